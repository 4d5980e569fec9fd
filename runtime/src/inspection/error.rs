//! Why an image could not be looked into.

use std::io;
use std::path::PathBuf;

use crate::cancel::Cancelled;
use crate::fault::{Diagnose, Fault, is_disk_full};
use crate::oci::digest::{DiffId, Digest};
use crate::oci::tar_reader::TarError;

/// Why an image could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum InspectionError {
    /// The image has no layer with bills of materials.
    #[error("the image has no bill of materials")]
    NoSboms,
    /// Nobody attached where it comes from.
    #[error("the image has no provenance attached to it")]
    NoProvenance,
    /// There is no document of that name.
    #[error("the image has no bill of materials `{path}`")]
    NoSuchSbom { path: String, documents: Vec<String> },
    /// What opened a layer could not.
    #[error("cannot read the layer `{diff_id}`")]
    Layer {
        diff_id: DiffId,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is no tar, or a damaged one.
    #[error("cannot read the layer `{diff_id}`")]
    Tar {
        diff_id: DiffId,
        #[source]
        cause: TarError,
    },
    /// Its bytes are not those that the image's configuration names.
    #[error("the layer `{expected}` has the contents of `{actual}`")]
    WrongContents { expected: DiffId, actual: Digest },
    /// More than anybody writes.
    #[error("the layer `{diff_id}` has bills of materials of more than {limit}")]
    TooLarge { diff_id: DiffId, limit: String },
    /// A document could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Diagnose for InspectionError {
    fn id(&self) -> &'static str {
        match self {
            Self::NoSboms | Self::NoSuchSbom { .. } => "image.no_sbom",
            Self::NoProvenance => "image.no_provenance",
            Self::Layer { .. } => "image.layer_unreadable",
            Self::Tar { .. } => "image.layer_damaged",
            Self::WrongContents { .. } => "image.diffid_mismatch",
            Self::TooLarge { .. } => "image.sbom_too_large",
            Self::Write { cause, .. } if is_disk_full(cause) => "host.disk_full",
            Self::Write { .. } => "image.not_written",
            Self::Cancelled(_) => "build.cancelled",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::NoSboms
            | Self::NoProvenance
            | Self::NoSuchSbom { .. }
            | Self::TooLarge { .. }
            | Self::Cancelled(_) => Fault::Caller,
            Self::Layer { .. } | Self::Tar { .. } | Self::WrongContents { .. } | Self::Write { .. } => {
                Fault::Environment
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoSboms => Some("only buildpacks that write one put it into the image".to_owned()),
            Self::NoProvenance => Some("`wapack build --attach provenance` attaches it".to_owned()),
            Self::NoSuchSbom { documents, .. } if !documents.is_empty() => {
                Some(format!("it has `{}`", documents.join("`, `")))
            }
            Self::WrongContents { .. } | Self::Tar { .. } => {
                Some("the layer is damaged; make or copy that image again".to_owned())
            }
            Self::Write { .. } => {
                Some("name a directory of yours that can be written, without links in it".to_owned())
            }
            _ => None,
        }
    }
}
