//! Images in a container engine that speaks Docker's API: `-daemon`.
//!
//! Layers that the engine has are not sent to it: it takes an image whose first layers
//! it knows without their bytes.

mod archive;
mod documents;
mod engine;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fs_err as fs;
use oci_spec::image::MediaType;
use serde::Deserialize;

use self::archive::{LayerBytes, SavedArchive};
use self::documents::{Inspected, Step};
use self::engine::Engine;
pub use self::engine::{DaemonAddress, DaemonError};
use super::telling::Telling;
use super::{FoundImage, Images, ImagesError, SavedImage, Unsaved, bring};
use crate::cancel::Cancel;
use crate::event::EventSink;
use crate::oci::blob::{BlobStore, StoredBlob};
use crate::oci::compression::decompress;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{BlobPlace, Image, Layer, MediaFamily};
use crate::oci::moved::{Amount, Moved};
use crate::oci::reference::Reference;

/// A layer as an engine has it: a tar without compression.
const LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// The images of a container engine.
///
/// # Spec
/// `platform.md` 0.15, `-daemon`; RPT-01: images have ids there, and no digests.
#[derive(Debug)]
pub struct Daemon {
    engine: Engine,
    /// For what has to be copied out of the engine.
    scratch: PathBuf,
    /// Layers of images that were found, by id.
    found: Mutex<BTreeMap<String, Vec<DiffId>>>,
    /// What was copied out of the engine, by id.
    saved: Mutex<BTreeMap<String, Arc<SavedArchive>>>,
}

impl Daemon {
    /// Connects. From then on the process may become another user, to whom the
    /// engine's socket is closed. No thread is started.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(address: DaemonAddress, scratch: PathBuf) -> Result<Self, DaemonError> {
        let engine = Engine::connect(address)?;
        Ok(Self { engine, scratch, found: Mutex::default(), saved: Mutex::default() })
    }

    fn inspect(&self, name: &str) -> Result<Option<FoundImage>, DaemonError> {
        let Some(inspected) = self.engine.get::<Inspected>(&format!("/images/{name}/json"))? else {
            return Ok(None);
        };
        let id = inspected.id.clone();
        // By its id, for the name can be another's by now.
        let steps = self.engine.get::<Vec<Step>>(&format!("/images/{id}/history"))?;
        let diff_ids = inspected.diff_ids();
        let configuration = inspected.configuration(steps.unwrap_or_default())?;
        let layers = diff_ids.iter().map(Self::known_layer).collect::<Result<_, _>>()?;
        lock(&self.found).insert(id.clone(), diff_ids);
        let image = Image { family: MediaFamily::Docker, configuration, layers };
        Ok(Some(FoundImage { reference: id, image }))
    }

    /// A layer that only the engine has: its blob is the tar itself.
    fn known_layer(diff_id: &DiffId) -> Result<Layer, DaemonError> {
        let digest: Digest = diff_id
            .to_string()
            .parse()
            .map_err(|_| DaemonError::Image { problem: format!("`{diff_id}` is no digest") })?;
        Ok(Layer {
            media_type: MediaType::Other(LAYER_TAR.to_owned()),
            size: 0,
            diff_id: diff_id.clone(),
            blob: BlobPlace::Engine,
            digest,
        })
    }

    /// A whole image, copied out of the engine once.
    fn archive(&self, id: &str) -> Result<Arc<SavedArchive>, DaemonError> {
        if let Some(archive) = lock(&self.saved).get(id) {
            return Ok(Arc::clone(archive));
        }
        let diff_ids = lock(&self.found).get(id).cloned();
        let diff_ids =
            diff_ids.ok_or_else(|| DaemonError::Image { problem: format!("`{id}` was not looked for") })?;
        let mut file = unnamed(&self.scratch)?;
        self.engine
            .get_stream(&format!("/images/{id}/get"), |bytes| io::Write::write_all(&mut file, bytes))?;
        let archive = Arc::new(SavedArchive::new(file, &diff_ids)?);
        lock(&self.saved).insert(id.to_owned(), Arc::clone(&archive));
        Ok(archive)
    }

    /// How many of an image's first layers the engine has in this order.
    fn known(&self, image: &Image) -> usize {
        let same = |others: &Vec<DiffId>| {
            image.layers.iter().zip(others).take_while(|(layer, other)| layer.diff_id == **other).count()
        };
        lock(&self.found).values().map(same).max().unwrap_or_default()
    }

    /// Sends an image but for its `known` first layers; gives its id, and what became of the
    /// layers.
    fn load(
        &self,
        image: &Image,
        name: &str,
        known: usize,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<(String, Moved), DaemonError> {
        let mut layers = Vec::with_capacity(image.layers.len());
        for (index, layer) in image.layers.iter().enumerate() {
            let bytes = if index < known {
                LayerBytes::Known
            } else if layer.is_here() {
                self.bytes_of(layer)?
            } else {
                LayerBytes::Saved(self.archive(&self.image_with(&layer.diff_id)?)?)
            };
            layers.push((layer.diff_id.clone(), bytes));
        }
        let (configuration, _) = image.documents();
        let archive = archive::stream(&configuration, &layers, &[name.to_owned()], cancel)?;
        let mut telling = Telling::new(archive.sent.bytes, events);
        let done = || archive.done_bytes.load(Ordering::Relaxed);
        let answer =
            self.engine.post_stream("/images/load?quiet=1", archive.bytes, &mut || telling.reach(done()))?;
        telling.reach(done());
        check_load(&answer)?;
        let loaded = self.engine.get::<Inspected>(&format!("/images/{name}/json"))?;
        let loaded =
            loaded.ok_or_else(|| DaemonError::Image { problem: format!("it is not there as `{name}`") })?;
        let mut present = Amount::default();
        let mut seen = BTreeSet::new();
        for layer in image.layers[..known].iter().filter(|layer| seen.insert(&layer.diff_id)) {
            present += Amount::one(layer.size);
        }
        Ok((loaded.id, Moved { sent: archive.sent, present, ..Moved::default() }))
    }

    /// A layer's bytes as every engine takes them: older ones know no zstd.
    fn bytes_of(&self, layer: &Layer) -> Result<LayerBytes, DaemonError> {
        if MediaFamily::Oci.of_layer(&layer.media_type) != MediaType::ImageLayerZstd {
            return Ok(LayerBytes::Blob(layer.clone()));
        }
        let mut file = unnamed(&self.scratch)?;
        io::copy(&mut decompress(layer.open()?)?, &mut file)?;
        Ok(LayerBytes::File(Arc::new(file)))
    }

    fn image_with(&self, diff_id: &DiffId) -> Result<String, DaemonError> {
        let found = lock(&self.found);
        let image = found.iter().find(|(_, diff_ids)| diff_ids.contains(diff_id)).map(|(id, _)| id.clone());
        image.ok_or_else(|| DaemonError::Image { problem: format!("no image has the layer `{diff_id}`") })
    }

    fn save_first(
        &self,
        image: &Image,
        name: &str,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<(String, Moved), DaemonError> {
        let known = self.known(image);
        match self.load(image, name, known, cancel, events) {
            // An engine may keep layers in another way, or have lost some meanwhile.
            Err(DaemonError::Refused { .. } | DaemonError::Image { .. })
                if known > 0 && !cancel.is_cancelled() =>
            {
                self.load(image, name, 0, cancel, events)
            }
            result => result,
        }
    }

    fn tag(&self, id: &str, reference: &Reference) -> Result<(), DaemonError> {
        let tag = reference.tag().unwrap_or_default();
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        self.engine.post(&format!("/images/{id}/tag?repo={repository}&tag={tag}"))
    }
}

impl Images for Daemon {
    /// `name` may be the id of an image (ANA-03).
    fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
        // As it is written: the engine knows whether it is a name or an id. Checked, for it
        // becomes part of an address.
        name.parse::<Reference>()?;
        self.inspect(name).map_err(|error| {
            let name = name.to_owned();
            match error {
                DaemonError::Invalid(_) | DaemonError::Image { .. } => {
                    ImagesError::Damaged { name, source: error.into() }
                }
                error => ImagesError::Image { name, source: error.into() },
            }
        })
    }

    fn layer(&self, image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
        let failed =
            |source: DaemonError| ImagesError::Image { name: image.reference.clone(), source: source.into() };
        let no_layer = || ImagesError::NoLayer { image: image.reference.clone(), diff_id: diff_id.clone() };
        if !image.image.layers.iter().any(|layer| layer.diff_id == *diff_id) {
            return Err(no_layer());
        }
        let archive = self.archive(&image.reference).map_err(failed)?;
        let place = archive.place(diff_id).ok_or_else(no_layer)?;
        archive.layer(place).map_err(|error| failed(error.into()))
    }

    /// The engine gives a whole image, of which the layers are taken, without compression.
    fn fetch(
        &self,
        layers: &mut [Layer],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        _: &mut dyn EventSink,
    ) -> Result<(), ImagesError> {
        for layer in layers.iter_mut().filter(|layer| layer.blob == BlobPlace::Engine) {
            let fetched = || -> Result<StoredBlob, DaemonError> {
                let archive = self.archive(&self.image_with(&layer.diff_id)?)?;
                let missing =
                    || DaemonError::Image { problem: format!("it has no layer `{}`", layer.diff_id) };
                let place = archive.place(&layer.diff_id).ok_or_else(missing)?;
                if let Some(kept) = blobs.blob(&layer.digest, place.size) {
                    return Ok(kept);
                }
                Ok(bring(&layer.digest, archive.layer(place)?, blobs, cancel)?)
            };
            let stored = fetched().map_err(|error| ImagesError::Image {
                name: layer.diff_id.to_string(),
                source: error.into(),
            })?;
            layer.size = stored.size;
            layer.blob = stored.path.into();
        }
        Ok(())
    }

    /// Layers stay where they are, in this engine.
    fn wanted(&self, layer: &Layer) -> bool {
        layer.blob != BlobPlace::Engine && !layer.is_here()
    }

    /// An engine takes every name that is one, but for those with a digest.
    fn check_write(&self, name: &str) -> Result<(), ImagesError> {
        taggable(name)
            .map(drop)
            .map_err(|cause| ImagesError::NotWritable { name: name.to_owned(), source: cause })
    }

    fn save(
        &self,
        image: &Image,
        names: &[String],
        _: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        let mut saved = SavedImage::default();
        let mut unsaved = vec![];
        for name in names {
            let result = taggable(name).and_then(|reference| {
                if let Some(id) = &saved.id {
                    return self.tag(id, &reference).map_err(Into::into);
                }
                let (id, moved) = self.save_first(image, &reference.to_string(), cancel, events)?;
                (saved.id, saved.moved) = (Some(id), moved);
                Ok(())
            });
            match result {
                Ok(()) => saved.names.push(name.clone()),
                Err(cause) => unsaved.push(Unsaved { name: name.clone(), cause }),
            }
        }
        if unsaved.is_empty() { Ok(saved) } else { Err(ImagesError::Unsaved { saved, unsaved }) }
    }

    fn is_daemon(&self) -> bool {
        true
    }
}

fn taggable(name: &str) -> Result<Reference, super::Cause> {
    let reference: Reference = name.parse()?;
    if reference.tag().is_none() {
        let problem = "an image cannot be kept under a digest".to_owned();
        return Err(DaemonError::Image { problem }.into());
    }
    Ok(reference)
}

/// Engines answer with success, and then say in the text that it was none.
fn check_load(answer: &[u8]) -> Result<(), DaemonError> {
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        error: Option<String>,
    }
    for message in serde_json::Deserializer::from_slice(answer).into_iter::<Message>() {
        if let Some(message) = message?.error {
            return Err(DaemonError::Refused { status: 200, message });
        }
    }
    Ok(())
}

/// A file that is gone with whoever has it open.
fn unnamed(directory: &std::path::Path) -> io::Result<std::fs::File> {
    let path = directory.join(format!("wapack-image-{:016x}", rand::random::<u64>()));
    let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file.into_parts().0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
