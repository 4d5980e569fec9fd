//! The cache as an image: a label that says which layers there are, and the layers.
//!
//! What the last cache image has stays where it is, and no byte of it is read. The rest is
//! compressed as for an image, unless it was for the image that was just made.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::{Cached, Contents, Keep, NotCached};
use crate::cancel::Cancel;
use crate::cnb::cache_metadata::{CACHE_METADATA, CacheMetadata};
use crate::event::EventSink;
use crate::images::{FoundImage, Images, ImagesError, SavedImage};
use crate::oci::blob::BlobStore;
use crate::oci::digest::{DiffId, HashingWriter};
use crate::oci::encoder::{Encoders, Encoding};
use crate::oci::image::{
    BlobPlace, History, Image, ImageConfiguration, Layer, MediaFamily, RootFs, RunConfiguration, timestamp,
};
use crate::oci::layer::{LayerWriter, MODIFIED_SECONDS};
use crate::oci::reference::{Reference, same_image};
use crate::programs::last_cache::{check_place, metadata_of};
use crate::programs::target::host_architecture;
use crate::programs::telling::{note, warn, with_causes};
use crate::text::harmless;

/// The line of history of a layer with bills of materials.
const SBOM_LINE: &str = "Software Bill-of-Materials";

/// An image that is to be the cache.
#[derive(Clone, Copy)]
pub(in crate::programs) struct CacheImage<'a> {
    pub name: &'a str,
    pub caches: &'a dyn Images,
    /// Has what was compressed for the app's image.
    pub blobs: &'a dyn BlobStore,
    /// Of the app's image.
    pub app: &'a [Layer],
    /// Names in the same place that lead to the app's image.
    pub others: &'a [String],
}

impl CacheImage<'_> {
    /// Writes it. The last one is removed for platforms that expect it.
    pub(super) fn write(
        self,
        cached: &Cached<'_>,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<(), NotCached> {
        check_place(self.caches, self.name)?;
        if self.others.iter().any(|other| same_image(other, self.name)) {
            return Err(NotCached::TakenName { name: self.name.to_owned() });
        }
        let last = match self.caches.find(self.name) {
            Err(ImagesError::Damaged { .. }) => None,
            found => found?,
        };
        let saved = match self.fill_and_save(cached, last.as_ref(), cancel, events) {
            Err(NotCached::Images(error)) if last.is_some() && error.is_of_layer() => {
                let error = with_causes(&error);
                warn(events, format!("no layer of the last cache image is used again: {error}"));
                self.fill_and_save(cached, None, cancel, events)?
            }
            saved => saved?,
        };
        if let Some(last) = last.filter(|last| !cached.api.at_least(13) && !is_same(last, &saved))
            && let Err(error) = self.caches.remove(&last)
        {
            warn(events, format!("the last cache image is not removed: {}", with_causes(&error)));
        }
        Ok(())
    }

    fn fill_and_save(
        self,
        cached: &Cached<'_>,
        last: Option<&FoundImage>,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, NotCached> {
        let new = NewImage::new(self, last);
        let metadata = last.map(metadata_of).unwrap_or_default();
        let metadata = cached.fill(&new, &metadata, cancel, events)?;
        let image = new.image(&metadata)?;
        let saved = self.caches.save(&image, &[self.name.to_owned()], self.blobs, cancel, events)?;
        let kept = image.layers.iter().filter(|layer| new.has_been(&layer.diff_id).is_some()).count();
        let (name, layers) = (harmless(self.name), image.layers.len());
        note(events, format!("cache image `{name}` is written: {kept} of {layers} layers as they were"));
        Ok(saved)
    }

    /// Layers of the app's image that the registry of the cache has already.
    fn next_door(self) -> Vec<Layer> {
        let Ok(name) = self.name.parse::<Reference>() else { return vec![] };
        let is_next_door = |layer: &&Layer| match &layer.blob {
            BlobPlace::Registry(repository) => {
                repository.registry() == name.registry() && !self.caches.wanted(layer)
            }
            _ => false,
        };
        self.app.iter().filter(is_next_door).cloned().collect()
    }
}

/// Whether an image is the one that was saved.
fn is_same(found: &FoundImage, saved: &SavedImage) -> bool {
    let digest = found.reference.rsplit_once('@').map(|(_, digest)| digest);
    saved.digest.as_ref().is_some_and(|saved| digest == Some(saved.as_str()))
}

/// The next cache image, while layers come into it.
struct NewImage<'a> {
    family: MediaFamily,
    /// What the last cache image has.
    last: Vec<Layer>,
    /// What can be taken over by name.
    next_door: Vec<Layer>,
    blobs: &'a dyn BlobStore,
    encoders: Encoders,
    layers: Mutex<BTreeMap<DiffId, Layer>>,
}

impl<'a> NewImage<'a> {
    fn new(place: CacheImage<'a>, last: Option<&FoundImage>) -> Self {
        // A layout may lack blobs; a registry has all or nothing.
        let is_there = |layer: &&Layer| layer.is_here() || matches!(layer.blob, BlobPlace::Registry(_));
        let last = last.into_iter().flat_map(|last| last.image.layers.iter().filter(is_there));
        Self {
            family: place.caches.family().unwrap_or_default(),
            last: last.cloned().collect(),
            next_door: place.next_door(),
            blobs: place.blobs,
            encoders: Encoders::new(Encoding::Gzip),
            layers: Mutex::default(),
        }
    }

    /// A layer of the last cache image in the words of this one. Its bytes
    /// are verified by whoever restores them.
    fn has_been(&self, diff_id: &DiffId) -> Option<Layer> {
        self.named(self.last.iter().find(|layer| layer.diff_id == *diff_id)?)
    }

    /// A layer that is somewhere already.
    fn known(&self, diff_id: &DiffId) -> Option<Layer> {
        let next_door = || self.named(self.next_door.iter().find(|layer| layer.diff_id == *diff_id)?);
        self.has_been(diff_id).or_else(|| self.compressed(diff_id)).or_else(next_door)
    }

    /// A layer that was compressed for the app's image.
    fn compressed(&self, diff_id: &DiffId) -> Option<Layer> {
        let blob = self.blobs.find(diff_id, &self.encoders.encoding().id())?;
        let media_type = self.family.layer();
        let (digest, size, diff_id) = (blob.digest, blob.size, diff_id.clone());
        Some(Layer { media_type, digest, size, diff_id, blob: blob.path.into() })
    }

    fn named(&self, layer: &Layer) -> Option<Layer> {
        let media_type = self.family.layer_like(&layer.media_type)?;
        Some(Layer { media_type, ..layer.clone() })
    }

    /// Compresses a layer.
    fn new_layer(
        &self,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), NotCached>,
    ) -> Result<Layer, NotCached> {
        let blob = self.blobs.create()?;
        let mut tar = HashingWriter::new(self.encoders.writer(HashingWriter::new(blob.file())));
        fill(&mut tar)?;
        let (diff_id, _, encoded) = tar.finish();
        let (digest, size, _) = encoded.finish()?.finish();
        let diff_id = DiffId(diff_id);
        let blob = self.blobs.commit(blob, &diff_id, &self.encoders.encoding().id(), &digest, size)?;
        Ok(Layer { media_type: self.family.layer(), digest, size, diff_id, blob: blob.path.into() })
    }

    /// The image of the layers that `metadata` lists, each once; its layers say which they are
    /// in their lines of history.
    ///
    /// # Spec
    /// CAC-06, CAC-08.
    fn image(&self, metadata: &CacheMetadata) -> Result<Image, NotCached> {
        let mut made = std::mem::take(&mut *self.layers.lock().unwrap_or_else(PoisonError::into_inner));
        let mut take = |sha: &str| made.remove(&sha.parse().ok()?);
        let mut layers = Vec::new();
        for buildpack in &metadata.buildpacks {
            for (name, record) in &buildpack.layers {
                let (id, version) = (&buildpack.key, &buildpack.version);
                let line = format!("Layer: '{name}', Created by buildpack: {id}@{version}");
                layers.extend(take(&record.sha).map(|layer| (layer, line)));
            }
        }
        layers.extend(take(&metadata.sbom.sha).map(|layer| (layer, SBOM_LINE.to_owned())));
        if layers.is_empty() {
            // Some registries refuse images without layers.
            let nothing = |out: &mut dyn Write| Ok(LayerWriter::new(out).finish().map(drop)?);
            layers.push((self.new_layer(nothing)?, String::new()));
        }
        let created = timestamp(MODIFIED_SECONDS);
        let line = |(_, line): &(Layer, String)| History {
            created: Some(created.clone()),
            created_by: Some(line.clone()).filter(|line| !line.is_empty()),
            ..History::default()
        };
        let history = layers.iter().map(line).collect();
        let layers: Vec<Layer> = layers.into_iter().map(|(layer, _)| layer).collect();
        let json = metadata.to_json().map_err(NotCached::Label)?;
        let labels = [(CACHE_METADATA.to_owned(), json)].into();
        let configuration = ImageConfiguration {
            created: Some(created),
            author: None,
            architecture: host_architecture().to_owned(),
            variant: None,
            os: "linux".to_owned(),
            os_version: None,
            config: RunConfiguration { labels, ..RunConfiguration::default() },
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            },
            history,
            other: BTreeMap::new(),
        };
        Ok(Image { family: self.family, configuration, layers })
    }
}

impl Keep for NewImage<'_> {
    fn keep(&self, contents: &Contents<'_>) -> Result<DiffId, NotCached> {
        let known = match contents.diff_id {
            Some(diff_id) => self.known(diff_id),
            // It may be the same as last time.
            None => match contents.last.and_then(|last| self.has_been(last)) {
                Some(last) => {
                    let mut tar = HashingWriter::new(io::sink());
                    contents.write(&mut tar)?;
                    Some(last).filter(|last| last.diff_id.0 == tar.finish().0)
                }
                None => None,
            },
        };
        let layer = match known {
            Some(layer) => layer,
            None => self.new_layer(|out| Ok(contents.write(out)?))?,
        };
        let diff_id = layer.diff_id.clone();
        self.layers.lock().unwrap_or_else(PoisonError::into_inner).insert(diff_id.clone(), layer);
        Ok(diff_id)
    }
}
