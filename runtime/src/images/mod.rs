//! Where a platform keeps its images: one seam for layouts, daemons and registries.

mod archive;
mod attachments;
mod daemon;
mod docker_archive;
mod error;
#[cfg(test)]
pub(crate) mod fixed;
mod held;
mod layout;
mod oci_archive;
mod oci_directory;
mod registry;
mod run_image;
mod target;
mod telling;

pub use self::archive::{ArchiveError, is_stream};
pub use self::attachments::Attachments;
pub use self::daemon::{Daemon, DaemonAddress, DaemonError};
pub use self::docker_archive::DockerArchive;
pub use self::error::{Cause, ImagesError, Unsaved};
pub use self::held::Held;
pub use self::layout::LayoutImages;
pub use self::oci_archive::OciArchive;
pub use self::oci_directory::OciDirectory;
pub use self::registry::RegistryImages;
pub use self::run_image::{best_mirror, recorded_names};
pub use self::target::target_of;

use std::io::{self, Read};

use crate::cancel::Cancel;
use crate::cnb::report_toml::{ImageReport, Report};
use crate::event::EventSink;
use crate::oci::blob::{BlobStore, StoredBlob};
use crate::oci::compression::decompress;
use crate::oci::digest::{DiffId, Digest, HashingWriter};
use crate::oci::image::{BlobPlace, Document, Image, Layer, MediaFamily};
use crate::oci::moved::Moved;

/// Finds and keeps images by name. Several threads may ask at once.
pub trait Images: Sync {
    /// The image called `name`: its configuration and layers, no layer's bytes.
    /// `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be found out, or what is there is damaged.
    fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError>;

    /// The uncompressed tar of one layer of an image that was found.
    ///
    /// # Errors
    /// When it is not there. The bytes are not verified.
    fn layer(&self, image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn Read>, ImagesError>;

    /// Brings the blobs of layers onto this machine that are elsewhere, into `blobs`, and
    /// notes where they are then. Where everything is here, there is nothing to do.
    ///
    /// # Errors
    /// When one does not come, or not as it should be.
    fn fetch(
        &self,
        layers: &mut [Layer],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<(), ImagesError> {
        let _ = (layers, blobs, cancel, events);
        Ok(())
    }

    /// Whether `name` could be written, as far as that can be known before (ANA-02).
    ///
    /// # Errors
    /// When it could not.
    fn check_write(&self, name: &str) -> Result<(), ImagesError>;

    /// Keeps `image` under all of `names`. Layers whose blob is not on this machine
    /// are taken from where they were found.
    ///
    /// # Errors
    /// When any name could not be written; the others are tried (RPT-06).
    fn save(
        &self,
        image: &Image,
        names: &[String],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError>;

    /// Removes an image that was found, where it stays although its name leads to another one
    /// by now. Where it does not, there is nothing to do.
    ///
    /// # Errors
    /// When it is not removed.
    fn remove(&self, image: &FoundImage) -> Result<(), ImagesError> {
        let _ = image;
        Ok(())
    }

    /// The names of the images that are there, where they can be counted; else none.
    ///
    /// # Errors
    /// When they cannot be read.
    fn names(&self) -> Result<Vec<String>, ImagesError> {
        Ok(vec![])
    }

    /// The systems that `name` has images for, such as `linux/arm64`, where it stands for
    /// more than one image; else none.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn systems(&self, name: &str) -> Result<Vec<String>, ImagesError> {
        let _ = name;
        Ok(vec![])
    }

    /// Whether saving an image with this layer here needs its bytes on this machine, and
    /// they are not.
    fn wanted(&self, layer: &Layer) -> bool {
        !layer.is_here()
    }

    /// Keeps images for several systems under all of `names`: each by its digest, then one
    /// index that stands for them.
    ///
    /// # Errors
    /// As [`Images::save`]; [`ImagesError::OneSystem`] where a name has one image only.
    fn save_index(
        &self,
        images: &[Image],
        names: &[String],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        let _ = (images, names, blobs, cancel, events);
        Err(ImagesError::OneSystem)
    }

    /// Whether one name can stand for images for several systems.
    fn has_indexes(&self) -> bool {
        false
    }

    /// The only family of media types that tools read there, if it is one.
    fn family(&self) -> Option<MediaFamily> {
        None
    }

    /// Documents that are attached to images here; `None` where there are none.
    fn attachments(&self) -> Option<&dyn Attachments> {
        None
    }

    /// Whether saving makes the files of blobs part of the image, as they are: then it is worth
    /// having them written to disk while others are still being made.
    fn keeps_files(&self) -> bool {
        false
    }

    /// Whether this is a daemon, which has image ids instead of digests.
    fn is_daemon(&self) -> bool {
        false
    }
}

/// An image as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundImage {
    /// By digest, image id or path, as `analyzed.toml` and labels name it.
    pub reference: String,
    pub image: Image,
}

/// An image as it was kept (RPT-01).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedImage {
    pub names: Vec<String>,
    /// Of the manifest; `None` in a daemon.
    pub digest: Option<Digest>,
    /// In a daemon.
    pub id: Option<String>,
    pub manifest_bytes: Option<u64>,
    /// Those of the names that lead elsewhere by now.
    pub overtaken: Vec<OvertakenName>,
    /// What became of its layers.
    pub moved: Moved,
}

/// A name that was written, and by somebody else at the same time (R11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OvertakenName {
    pub name: String,
    /// What it leads to.
    pub digest: Digest,
}

impl SavedImage {
    /// One with a digest: that of its manifest, or of the index for several systems.
    fn of_document(names: Vec<String>, document: &Document, moved: Moved) -> Self {
        Self {
            names,
            moved,
            digest: Some(document.digest.clone()),
            manifest_bytes: Some(document.bytes.len() as u64),
            ..Self::default()
        }
    }

    /// What the user should know of it, a sentence each.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.overtaken.iter().map(|OvertakenName { name, digest }| {
            let ours = self.digest.as_ref().map(|ours| format!(" instead of `{ours}`")).unwrap_or_default();
            format!("`{name}` leads to `{digest}`{ours}: somebody else published it at the same time")
        })
    }

    /// What `report.toml` says of it.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            image: ImageReport {
                tags: self.names.clone(),
                image_id: self.id.clone(),
                digest: self.digest.as_ref().map(ToString::to_string),
                manifest_size: self.manifest_bytes,
            },
        }
    }
}

/// What is kept under each of several names.
#[derive(Default)]
struct Saving {
    saved: Vec<String>,
    unsaved: Vec<Unsaved>,
}

impl Saving {
    fn note(&mut self, name: &str, result: Result<(), Cause>) {
        match result {
            Ok(()) => self.saved.push(name.to_owned()),
            Err(cause) => self.unsaved.push(Unsaved { name: name.to_owned(), cause }),
        }
    }

    /// The same for all names, which were tried together.
    fn note_all(&mut self, names: &[String], result: Result<(), Cause>) {
        match result {
            Ok(()) => self.saved.extend_from_slice(names),
            Err(cause) => {
                let name = names.join(", ");
                self.unsaved.push(Unsaved { name, cause });
            }
        }
    }

    /// The result, for the names that were saved.
    fn finish(self, saved: impl FnOnce(Vec<String>) -> SavedImage) -> Result<SavedImage, ImagesError> {
        let saved = saved(self.saved);
        if self.unsaved.is_empty() {
            Ok(saved)
        } else {
            Err(ImagesError::Unsaved { saved, unsaved: self.unsaved })
        }
    }
}

/// Copies a blob to those that were brought here, verified; gives its file and size.
fn bring(
    digest: &Digest,
    mut blob: impl Read,
    blobs: &dyn BlobStore,
    cancel: &Cancel,
) -> io::Result<StoredBlob> {
    let new = blobs.create()?;
    let mut hashed = HashingWriter::new(new.file());
    let mut buffer = vec![0; 256 << 10];
    loop {
        cancel.check().map_err(io::Error::other)?;
        match blob.read(&mut buffer)? {
            0 => break,
            read => io::Write::write_all(&mut hashed, &buffer[..read])?,
        }
    }
    let (actual, size, _) = hashed.finish();
    if actual != *digest {
        let message = format!("the layer has the digest `{actual}`, expected `{digest}`");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    blobs.commit_fetched(new, digest, size)
}

/// Gives layers that are parts of files a file of their own.
fn fetch_parts(layers: &mut [Layer], blobs: &dyn BlobStore, cancel: &Cancel) -> Result<(), ImagesError> {
    for layer in layers.iter_mut() {
        let BlobPlace::Part { file, .. } = &layer.blob else { continue };
        let kept = match blobs.blob(&layer.digest, layer.size) {
            Some(kept) => Ok(kept),
            None => layer.open().and_then(|blob| bring(&layer.digest, blob, blobs, cancel)),
        };
        let name = file.display().to_string();
        let kept = kept.map_err(|error| ImagesError::Image { name, source: error.into() })?;
        layer.blob = kept.path.into();
    }
    Ok(())
}

/// The tar of a layer that is in a file of this machine.
fn layer_of(image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
    let no_layer = || ImagesError::NoLayer { image: image.reference.clone(), diff_id: diff_id.clone() };
    let layer = image.image.layers.iter().find(|layer| layer.diff_id == *diff_id).ok_or_else(no_layer)?;
    match layer.open().and_then(decompress) {
        Ok(tar) => Ok(tar),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(no_layer()),
        Err(error) => Err(ImagesError::Image { name: image.reference.clone(), source: error.into() }),
    }
}
