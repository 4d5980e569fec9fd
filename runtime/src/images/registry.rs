//! Images in registries.

mod attachments;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci_spec::image::ImageIndex;

use super::{Attachments, Cause, FoundImage, Images, ImagesError, OvertakenName, SavedImage, Unsaved};
use crate::cancel::Cancel;
use crate::event::EventSink;
use crate::oci::blob::BlobStore;
use crate::oci::compression::decompress;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{BlobPlace, Image, Layer, MediaFamily, index_document};
use crate::oci::layout::{Platform, systems_of};
use crate::oci::moved::Moved;
use crate::oci::reference::{InvalidReference, Reference, Repository};
use crate::registry::{Package, Registry, RegistryError, RemoteBlob, Trouble};

/// The images of all registries that can be reached.
#[derive(Debug)]
pub struct RegistryImages {
    registry: Arc<Registry>,
    /// What to take where a name stands for images of several systems.
    architecture: String,
    variant: Option<String>,
    /// For layers that are read once.
    scratch: PathBuf,
    /// What a name led to at first, until it is written: all that is made in one run is made
    /// of the same images.
    found: Mutex<BTreeMap<Reference, FoundImage>>,
}

/// What names are to lead to.
struct Parcel {
    package: Package,
    /// Those that an index lists; they have no names.
    listed: Vec<Package>,
}

impl RegistryImages {
    /// Images as `registry` reaches them; where one name stands for several, it is the one
    /// for `architecture` (`amd64`, `arm64`) and `variant`. The directory `scratch` takes
    /// what is only read once.
    #[must_use]
    pub fn new(
        registry: impl Into<Arc<Registry>>,
        architecture: String,
        variant: Option<String>,
        scratch: PathBuf,
    ) -> Self {
        let registry = registry.into();
        Self { registry, architecture, variant, scratch, found: Mutex::default() }
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<Reference, FoundImage>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn platform(&self) -> Platform<'_> {
        Platform { os: "linux", architecture: &self.architecture, variant: self.variant.as_deref() }
    }

    /// Saves a parcel under names, in as many repositories as they have.
    fn save_all(
        &self,
        parcel: &Parcel,
        names: &[String],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        let mut repositories: Vec<(Repository, Vec<(&String, String)>)> = Vec::new();
        let mut unsaved = Vec::new();
        for name in names {
            let reference = match name.parse::<Reference>() {
                Ok(reference) => reference,
                Err(error) => {
                    unsaved.push(Unsaved { name: name.clone(), cause: error.into() });
                    continue;
                }
            };
            let Some(tag) = reference.tag() else {
                let rule = "what is saved gets its digest from what is in it";
                let cause = InvalidReference { value: name.escape_debug().to_string(), rule };
                unsaved.push(Unsaved { name: name.clone(), cause: cause.into() });
                continue;
            };
            let tag = (name, tag.to_owned());
            self.found().remove(&reference);
            match repositories.iter_mut().find(|(repository, _)| repository == reference.name()) {
                Some((_, tags)) => tags.push(tag),
                None => repositories.push((reference.name().clone(), vec![tag])),
            }
        }
        let mut results = BTreeMap::new();
        let mut moved = Moved::default();
        for (repository, tags) in &repositories {
            results.extend(self.save_in(parcel, repository, tags, &mut moved, blobs, cancel, events));
        }
        let mut saved = Vec::new();
        let mut overtaken = Vec::new();
        for name in names {
            match results.remove(name) {
                Some(Ok(other)) => {
                    saved.push(name.clone());
                    overtaken.extend(other.map(|digest| OvertakenName { name: name.clone(), digest }));
                }
                Some(Err(cause)) => unsaved.push(Unsaved { name: name.clone(), cause }),
                None => {}
            }
        }
        let saved = match &saved[..] {
            [] => SavedImage::default(),
            _ => SavedImage { overtaken, ..SavedImage::of_document(saved, &parcel.package.manifest, moved) },
        };
        if unsaved.is_empty() { Ok(saved) } else { Err(ImagesError::Unsaved { saved, unsaved }) }
    }

    /// Saves a parcel under the tags of one repository. Of each name, the manifest that it
    /// leads to by now if that is another one. Counts what becomes of the layers.
    #[expect(clippy::too_many_arguments, reason = "what saving takes, and where to and under which names")]
    fn save_in(
        &self,
        parcel: &Parcel,
        repository: &Repository,
        names: &[(&String, String)],
        moved: &mut Moved,
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Vec<(String, Result<Option<Digest>, Cause>)> {
        let tags: Vec<String> = names.iter().map(|(_, tag)| tag.clone()).collect();
        // An index comes after what it lists.
        let listed = parcel.listed.iter().try_for_each(|package| {
            *moved += self.registry.publish(package, repository, &[], blobs, cancel, events)?.moved;
            Ok(())
        });
        match listed
            .and_then(|()| self.registry.publish(&parcel.package, repository, &tags, blobs, cancel, events))
        {
            Ok(published) => {
                *moved += published.moved;
                let results = published.tags.into_iter().map(|tag| tag.result.map_err(Cause::from));
                names.iter().map(|(name, _)| (*name).clone()).zip(results).collect()
            }
            // The cause is of all of these names, and is told with the first.
            Err(error) => {
                let others = std::iter::repeat_with(|| Cause::from("as the names before it"));
                let causes = std::iter::once(Cause::from(error)).chain(others).map(Err);
                names.iter().map(|(name, _)| (*name).clone()).zip(causes).collect()
            }
        }
    }
}

/// What a layer is in a registry, if it is in one.
fn remote(layer: &Layer) -> Option<RemoteBlob> {
    match &layer.blob {
        BlobPlace::Registry(repository) => Some(RemoteBlob {
            repository: repository.clone(),
            digest: layer.digest.clone(),
            size: layer.size,
        }),
        BlobPlace::File(_) | BlobPlace::Part { .. } | BlobPlace::Engine => None,
    }
}

fn failed(name: &str, error: RegistryError) -> ImagesError {
    let name = name.to_owned();
    let is_damage = matches!(&error, RegistryError::Step { source, .. } if source.is_damage());
    let source = error.into();
    if is_damage { ImagesError::Damaged { name, source } } else { ImagesError::Image { name, source } }
}

impl Images for RegistryImages {
    fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
        let reference: Reference = name.parse()?;
        if let Some(found) = self.found().get(&reference) {
            return Ok(Some(found.clone()));
        }
        let found = self.registry.image(&reference, self.platform(), &Cancel::default());
        let Some(found) = found.map_err(|error| failed(name, error))? else { return Ok(None) };
        let by_digest = found.reference;
        let found = FoundImage { reference: by_digest.to_string(), image: found.image };
        self.found().extend([(reference, found.clone()), (by_digest, found.clone())]);
        Ok(Some(found))
    }

    /// The blob is verified before anything of it is read.
    fn layer(&self, image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
        let no_layer = || ImagesError::NoLayer { image: image.reference.clone(), diff_id: diff_id.clone() };
        let layer = image.image.layers.iter().find(|layer| layer.diff_id == *diff_id).ok_or_else(no_layer)?;
        let unreadable =
            |error: io::Error| ImagesError::Image { name: image.reference.clone(), source: error.into() };
        if let Some(path) = layer.file() {
            return fs_err::File::open(path).and_then(decompress).map_err(unreadable);
        }
        let blob = remote(layer).ok_or_else(no_layer)?;
        let file = tempfile::tempfile_in(&self.scratch).map_err(unreadable)?;
        match self.registry.fetch_to(&blob, &file, &Cancel::default()) {
            Ok(()) => decompress(file).map_err(unreadable),
            Err(RegistryError::Step { source: Trouble::NotThere, .. }) => Err(no_layer()),
            Err(error) => Err(failed(&image.reference, error)),
        }
    }

    fn fetch(
        &self,
        layers: &mut [Layer],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<(), ImagesError> {
        let (places, wanted): (Vec<usize>, Vec<RemoteBlob>) =
            layers.iter().enumerate().filter_map(|(place, layer)| Some((place, remote(layer)?))).unzip();
        let Some(first) = wanted.first() else { return Ok(()) };
        let name = first.repository.to_string();
        let fetched =
            self.registry.fetch(&wanted, blobs, cancel, events).map_err(|error| failed(&name, error))?;
        for (place, blob) in places.into_iter().zip(fetched) {
            layers[place].blob = blob.path.into();
        }
        Ok(())
    }

    fn systems(&self, name: &str) -> Result<Vec<String>, ImagesError> {
        let reference: Reference = name.parse()?;
        let document = self.registry.first_document(&reference, &Cancel::default());
        let document = document.map_err(|error| failed(name, error))?;
        let index = document.filter(|document| MediaFamily::is_index(&document.media_type));
        let index = index.and_then(|index| serde_json::from_slice::<ImageIndex>(&index.bytes).ok());
        Ok(index.as_ref().map(systems_of).unwrap_or_default())
    }

    fn check_write(&self, name: &str) -> Result<(), ImagesError> {
        let reference: Reference = name.parse()?;
        self.registry
            .check_push(reference.name(), &Cancel::default())
            .map_err(|error| ImagesError::NotWritable { name: name.to_owned(), source: error.into() })
    }

    /// Layers that are in another repository of the registry stay there and are taken over by
    /// name; those of another registry pass through this machine.
    fn save(
        &self,
        image: &Image,
        names: &[String],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        self.save_all(
            &Parcel { package: Package::of_image(image), listed: vec![] },
            names,
            blobs,
            cancel,
            events,
        )
    }

    /// By its digest.
    fn remove(&self, image: &FoundImage) -> Result<(), ImagesError> {
        let name = &image.reference;
        let reference: Reference = name.parse()?;
        let Some(digest) = reference.digest() else {
            let rule = "only what is named by its digest is removed";
            return Err(InvalidReference { value: name.escape_debug().to_string(), rule }.into());
        };
        self.found().retain(|_, found| found.reference != *name);
        let removed = self.registry.remove(reference.name(), digest, &Cancel::default());
        removed.map_err(|error| ImagesError::Image { name: name.clone(), source: error.into() })
    }

    fn save_index(
        &self,
        images: &[Image],
        names: &[String],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        let index = Package { blobs: vec![], configuration: None, manifest: index_document(images) };
        self.save_all(
            &Parcel { package: index, listed: images.iter().map(Package::of_image).collect() },
            names,
            blobs,
            cancel,
            events,
        )
    }

    fn has_indexes(&self) -> bool {
        true
    }

    fn attachments(&self) -> Option<&dyn Attachments> {
        Some(self)
    }

    /// What is in a registry goes from there to there.
    fn wanted(&self, layer: &Layer) -> bool {
        !matches!(layer.blob, BlobPlace::Registry(_)) && layer.file().is_none()
    }
}

#[cfg(test)]
mod tests;
