//! Why images cannot be used, whatever kind of place they are in.

use std::path::{Path, PathBuf};

use super::{ArchiveError, DaemonError, SavedImage};
use crate::fault::{Diagnose, Fault};
use crate::oci::digest::DiffId;
use crate::oci::image::Image;
use crate::oci::layout::LayoutError;
use crate::oci::reference::InvalidReference;
use crate::registry::RegistryError;

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
    /// Images for several systems are to go where a name has one.
    #[error("a name there has one image, for one system")]
    OneSystem,
    /// Documents were to be attached where nothing keeps them.
    #[error("nothing can be attached to image `{name}` there")]
    NoAttachments { name: String },
    /// It is not kept under every name (RPT-06).
    #[error("the image was not saved as {}", names_of(unsaved))]
    Unsaved {
        /// What was saved nevertheless.
        saved: SavedImage,
        /// At least one.
        unsaved: Vec<Unsaved>,
    },
}

/// What a kind of [`Images`](super::Images) has to say about an error.
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

impl ImagesError {
    /// The causes of this kind of place.
    fn causes(&self) -> impl Iterator<Item = &Cause> {
        let (one, several): (Option<&Cause>, &[Unsaved]) = match self {
            Self::Image { source, .. } | Self::Damaged { source, .. } | Self::NotWritable { source, .. } => {
                (Some(source), &[])
            }
            Self::Unsaved { unsaved, .. } => (None, unsaved),
            Self::Name(_) | Self::NoLayer { .. } | Self::OneSystem | Self::NoAttachments { .. } => {
                (None, &[])
            }
        };
        one.into_iter().chain(several.iter().map(|unsaved| &unsaved.cause))
    }

    /// The file of a layer of `image` that is not the blob it should be, if that is what
    /// is wrong.
    #[must_use]
    pub fn damaged_file(&self, image: &Image) -> Option<PathBuf> {
        self.causes().find_map(|cause| match cause.downcast_ref() {
            Some(RegistryError::DamagedHere { digest }) => {
                let layer = image.layers.iter().find(|layer| layer.digest == *digest)?;
                layer.file().map(Path::to_owned)
            }
            _ => layout_error(cause)?.damaged_blob().map(Path::to_owned),
        })
    }

    /// Whether a layer that was to be used where it is turned out to be missing there, or damaged.
    #[must_use]
    pub fn is_of_layer(&self) -> bool {
        let is_gone = |cause: &Cause| match cause.downcast_ref() {
            Some(RegistryError::Step { source, .. }) => source.is_damage(),
            _ => layout_error(cause).is_some_and(|error| error.damaged_blob().is_some()),
        };
        self.is_not_here() || self.causes().any(is_gone)
    }

    /// Whether a layer was to be written that is not on this machine.
    #[must_use]
    pub fn is_not_here(&self) -> bool {
        self.causes().any(|cause| matches!(layout_error(cause), Some(LayoutError::NotHere { .. })))
    }
}

/// What a place said of a blob or a layout.
fn layout_error(cause: &Cause) -> Option<&LayoutError> {
    if let Some(ArchiveError::Blob(error)) = cause.downcast_ref() {
        return Some(error);
    }
    cause.downcast_ref()
}

/// What a place has to say of its own error.
fn diagnosis(cause: &Cause) -> Option<&dyn Diagnose> {
    let layout = cause.downcast_ref::<LayoutError>().map(|error| error as &dyn Diagnose);
    let archive = || cause.downcast_ref::<ArchiveError>().map(|error| error as &dyn Diagnose);
    let daemon = || cause.downcast_ref::<DaemonError>().map(|error| error as &dyn Diagnose);
    let registry = || cause.downcast_ref::<RegistryError>().map(|error| error as &dyn Diagnose);
    layout.or_else(archive).or_else(daemon).or_else(registry)
}

impl Diagnose for ImagesError {
    fn id(&self) -> &'static str {
        if let Some(error) = self.causes().find_map(diagnosis) {
            return error.id();
        }
        match self {
            Self::Name(_) => "image.name",
            Self::Image { .. } => "image.unreachable",
            Self::Damaged { .. } => "image.damaged",
            Self::NotWritable { .. } => "image.not_writable",
            Self::NoLayer { .. } => "image.no_layer",
            Self::OneSystem => "image.one_system",
            Self::NoAttachments { .. } => "image.no_attachments",
            Self::Unsaved { .. } => "image.unsaved",
        }
    }

    fn fault(&self) -> Fault {
        if let Some(error) = self.causes().find_map(diagnosis) {
            return error.fault();
        }
        match self {
            Self::Name(_) | Self::NotWritable { .. } | Self::OneSystem | Self::NoAttachments { .. } => {
                Fault::Caller
            }
            Self::Image { .. } | Self::Damaged { .. } | Self::NoLayer { .. } | Self::Unsaved { .. } => {
                Fault::Environment
            }
        }
    }

    fn hint(&self) -> Option<String> {
        if matches!(self, Self::OneSystem) {
            let text = "write them to `oci:DIR`, `oci-archive:FILE` or a registry, or name one `--target`";
            return Some(text.to_owned());
        }
        if matches!(self, Self::NoAttachments { .. }) {
            return Some("write the image to `oci:DIR` or a registry".to_owned());
        }
        self.causes().find_map(diagnosis).and_then(Diagnose::hint)
    }
}
