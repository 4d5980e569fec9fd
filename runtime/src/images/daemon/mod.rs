//! Images in a container engine that speaks Docker's API: `-daemon`.
//!
//! Layers that the engine has are not sent to it, if it keeps images in Docker's classic
//! way: it takes an image whose first layers it knows without their bytes. To an engine
//! on containerd's store, whole images are sent.

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
use self::documents::{Information, Inspected, Step};
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
use crate::oci::tar_index::TarPart;

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
        let is_id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let asked = if is_id { by_id(name) } else { name.to_owned() };
        let Some(inspected) = self.engine.get::<Inspected>(&format!("/images/{asked}/json"))? else {
            return Ok(None);
        };
        let id = inspected.id.clone();
        // By its id, for the name can be another's by now.
        let steps = self.engine.get::<Vec<Step>>(&format!("/images/{}/history", by_id(&id)))?;
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
        self.engine.get_stream(&format!("/images/{}/get", by_id(id)), |bytes| {
            io::Write::write_all(&mut file, bytes)
        })?;
        let archive = Arc::new(SavedArchive::new(file, &diff_ids)?);
        lock(&self.saved).insert(id.to_owned(), Arc::clone(&archive));
        Ok(archive)
    }

    /// How many of an image's first layers need not be sent, as the engine has them in this order.
    fn known(&self, image: &Image) -> usize {
        let same = |others: &Vec<DiffId>| {
            image.layers.iter().zip(others).take_while(|(layer, other)| layer.diff_id == **other).count()
        };
        let known = lock(&self.found).values().map(same).max().unwrap_or_default();
        if known > 0 && self.is_classic() { known } else { 0 }
    }

    /// Whether the engine takes an image without the bytes of layers that it has. One on containerd's
    /// store would take it too, and keep it with empty layers: it starts, but is pushed and saved broken.
    fn is_classic(&self) -> bool {
        match self.engine.get::<Information>("/info") {
            Ok(Some(information)) => information.is_classic(),
            _ => false,
        }
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
                LayerBytes::Saved(self.archive_with(&layer.diff_id)?.0)
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

    /// The archive of an image that really has a layer, and where it is there.
    fn archive_with(&self, diff_id: &DiffId) -> Result<(Arc<SavedArchive>, TarPart), DaemonError> {
        let found = lock(&self.found);
        let of_image = found.iter().filter(|(_, diff_ids)| diff_ids.contains(diff_id));
        let ids: Vec<String> = of_image.map(|(id, _)| id.clone()).collect();
        drop(found);
        for id in ids {
            let archive = self.archive(&id)?;
            if let Some(place) = archive.place(diff_id) {
                return Ok((archive, place));
            }
        }
        Err(DaemonError::Image { problem: format!("no image has the layer `{diff_id}`") })
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
        self.engine.post(&format!("/images/{}/tag?repo={repository}&tag={tag}", by_id(id)))
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
                let (archive, place) = self.archive_with(&layer.diff_id)?;
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

/// An id as every engine takes it: to one on containerd's store, bare hex is a name that is not allowed.
fn by_id(id: &str) -> String {
    format!("sha256:{id}")
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
        #[serde(default)]
        stream: Option<String>,
    }
    for message in serde_json::Deserializer::from_slice(answer).into_iter::<Message>() {
        let message = message?;
        // With containerd's store this is all that is said of an image that cannot start.
        let of_unpacking = message.stream.filter(|text| text.starts_with("Error unpacking image"));
        if let Some(message) = message.error.or(of_unpacking) {
            return Err(DaemonError::Refused { status: 200, message: message.trim().to_owned() });
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
