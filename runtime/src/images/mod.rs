//! Where a platform keeps its images: one seam for layouts, daemons and registries.

mod daemon;
mod layout;
mod registry;
mod run_image;
mod target;

pub use self::daemon::{Daemon, DaemonAddress, DaemonError};
pub use self::layout::LayoutImages;
pub use self::registry::RegistryImages;
pub use self::run_image::{best_mirror, recorded_names};
pub use self::target::target_of;

use std::io::Read;

use crate::cancel::Cancel;
use crate::cnb::report_toml::{ImageReport, Report};
use crate::oci::blob::BlobStore;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{Image, Layer};
use crate::oci::reference::InvalidReference;

/// Finds and keeps images by name.
pub trait Images {
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
    fn fetch(&self, layers: &mut [Layer], blobs: &dyn BlobStore, cancel: &Cancel) -> Result<(), ImagesError> {
        let _ = (layers, blobs, cancel);
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
    ) -> Result<SavedImage, ImagesError>;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedImage {
    pub names: Vec<String>,
    /// Of the manifest; `None` in a daemon.
    pub digest: Option<Digest>,
    /// In a daemon.
    pub id: Option<String>,
    pub manifest_bytes: Option<u64>,
}

impl SavedImage {
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

/// Why images cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// A name that names no image.
    #[error(transparent)]
    Name(#[from] InvalidReference),
    /// What is there cannot be reached.
    #[error("cannot use image `{name}`")]
    Image { name: String, source: Cause },
    /// What is there is no whole image; as a previous image it counts as none (ANA-05).
    #[error("image `{name}` is damaged")]
    Damaged { name: String, source: Cause },
    /// It could not be kept under this name.
    #[error("cannot write image `{name}`")]
    NotWritable { name: String, source: Cause },
    /// A layer is not there.
    #[error("image `{image}` has no layer `{diff_id}`")]
    NoLayer { image: String, diff_id: DiffId },
    /// It is not kept under every name (RPT-06).
    #[error("the image was not saved as {}", names_of(unsaved))]
    Unsaved {
        /// What was saved nevertheless.
        saved: SavedImage,
        /// At least one.
        unsaved: Vec<Unsaved>,
    },
}

/// What a kind of [`Images`] has to say about an error.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A name that an image was not saved under.
#[derive(Debug)]
pub struct Unsaved {
    pub name: String,
    pub cause: Cause,
}

/// The names with their causes: there may be several, and `source` is one.
fn names_of(unsaved: &[Unsaved]) -> String {
    let with_causes = |unsaved: &Unsaved| {
        let mut text = format!("`{}`: {}", unsaved.name, unsaved.cause);
        let mut cause = unsaved.cause.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    };
    unsaved.iter().map(with_causes).collect::<Vec<_>>().join("; ")
}
