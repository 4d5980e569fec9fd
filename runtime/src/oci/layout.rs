//! Image layouts: directories that hold images as files.
//!
//! # Spec
//! image-spec `image-layout.md`. The directory is valid at every moment of a
//! write: blobs first, each under its final name only when it is whole, and
//! `index.json` last, by one rename.

mod reader;
mod referrers;
mod writer;

pub use self::reader::{LayoutImage, image_names, image_systems, read_image, systems_of};
pub use self::referrers::{MAX_ATTACHMENT_BYTES, read_attachment, referrers};
pub use self::writer::{ImageLayout, KeepGoing, LayoutFiles, NamedManifest, Placed, Placing, layout_files};

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fs_err as fs;
use oci_spec::image::MediaType;
use serde_json::{Value, json};

pub use super::platform::Platform;

use super::digest::Digest;
use super::image::{ENGINE_NAME_ANNOTATION, REFERENCE_ANNOTATION};
use crate::fault::{Diagnose, Fault, is_disk_full};

const LAYOUT_FILE: &str = "oci-layout";
const INDEX_FILE: &str = "index.json";
const BLOBS: &str = "blobs/sha256";
const LAYOUT_DOCUMENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Manifests, configurations and indexes; real ones are a few kilobytes.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;

/// Why a layout could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The file system said no.
    #[error("cannot use the image layout `{}`", directory.display())]
    Io {
        directory: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// There is none to read.
    #[error("there is no image layout in `{}`", directory.display())]
    Missing { directory: PathBuf },
    /// No space, no inodes, or no quota left.
    #[error("no space left for the image layout `{}`", directory.display())]
    DiskFull {
        directory: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// There are files, but it is no layout.
    #[error("`{}` is not empty and not an image layout", directory.display())]
    NotALayout { directory: PathBuf },
    /// Another process is writing to it.
    #[error("another process is writing to the image layout `{}`", directory.display())]
    Busy { directory: PathBuf },
    /// A document is not what it should be.
    #[error("`{}` in the image layout `{}` is not valid: {reason}", name, directory.display())]
    Invalid { directory: PathBuf, name: String, reason: String },
    /// A blob does not have the digest it is listed under.
    #[error("`{}` has the digest `{actual}`, expected `{expected}`", path.display())]
    WrongDigest { path: PathBuf, expected: Digest, actual: Digest },
    /// A blob does not have the size it is listed with.
    #[error("`{}` has {actual} bytes, expected {expected}", path.display())]
    WrongSize { path: PathBuf, expected: u64, actual: u64 },
    /// A blob of the image is gone or cannot be read.
    #[error("cannot read the blob `{}`", path.display())]
    UnreadableBlob {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// A layer is to be written that nobody brought onto this machine.
    #[error("the layer `{digest}` is not on this machine")]
    NotHere { digest: Digest },
    /// No image of that name, or for that system.
    #[error("the image layout `{}` has no image {wanted}", directory.display())]
    NoSuchImage {
        directory: PathBuf,
        /// Such as `` called `latest` ``.
        wanted: String,
        /// Names that are there.
        names: Vec<String>,
    },
    /// Several images, and nothing says which.
    #[error("the image layout `{}` has several images", directory.display())]
    Ambiguous { directory: PathBuf, names: Vec<String> },
    /// Whoever waits asked to stop.
    #[error("writing to the image layout `{}` was cancelled", directory.display())]
    Cancelled { directory: PathBuf },
}

impl LayoutError {
    fn io(directory: &Path, cause: io::Error) -> Self {
        let directory = directory.to_owned();
        if is_disk_full(&cause) { Self::DiskFull { directory, cause } } else { Self::Io { directory, cause } }
    }

    /// The file that is not the blob it should be, if that is what is wrong.
    #[must_use]
    pub fn damaged_blob(&self) -> Option<&Path> {
        match self {
            Self::WrongDigest { path, .. }
            | Self::WrongSize { path, .. }
            | Self::UnreadableBlob { path, .. } => Some(path),
            _ => None,
        }
    }
}

impl Diagnose for LayoutError {
    fn id(&self) -> &'static str {
        match self {
            Self::Io { .. } => "layout.io",
            Self::Missing { .. } => "layout.missing",
            Self::DiskFull { .. } => "host.disk_full",
            Self::NotALayout { .. } => "layout.not_a_layout",
            Self::Busy { .. } => "layout.busy",
            Self::Invalid { .. } => "layout.invalid",
            Self::WrongDigest { .. } => "layout.wrong_digest",
            Self::WrongSize { .. } => "layout.wrong_size",
            Self::UnreadableBlob { .. } => "layout.unreadable_blob",
            Self::NotHere { .. } => "layout.layer_not_here",
            Self::NoSuchImage { .. } => "layout.no_such_image",
            Self::Ambiguous { .. } => "layout.ambiguous",
            Self::Cancelled { .. } => "build.cancelled",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Io { .. }
            | Self::DiskFull { .. }
            | Self::Busy { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::UnreadableBlob { .. }
            | Self::NotHere { .. } => Fault::Environment,
            Self::Missing { .. }
            | Self::NotALayout { .. }
            | Self::Invalid { .. }
            | Self::NoSuchImage { .. }
            | Self::Ambiguous { .. }
            | Self::Cancelled { .. } => Fault::Caller,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => {
                Some("a layout is a directory with `oci-layout` and `index.json`".to_owned())
            }
            Self::DiskFull { .. } => Some("free some space, or name another place for the image".to_owned()),
            Self::NotALayout { .. } => Some("name a new or an empty directory".to_owned()),
            Self::NoSuchImage { names, .. } | Self::Ambiguous { names, .. } if !names.is_empty() => {
                Some(format!("it has `{}`", names.join("`, `")))
            }
            Self::WrongDigest { .. } | Self::WrongSize { .. } => {
                Some("the file is damaged; make or copy that image again".to_owned())
            }
            _ => None,
        }
    }
}

fn empty_index() -> Value {
    json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.to_string(), "manifests": [] })
}

fn index_bytes(index: &Value) -> Vec<u8> {
    serde_json::to_vec(index).expect("a JSON value can be written")
}

fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join(BLOBS).join(digest.hex())
}

/// Reads a JSON document that must be a file of a sensible size.
fn read_document(directory: &Path, path: &Path, name: &str) -> Result<Vec<u8>, LayoutError> {
    let failed = |cause| LayoutError::Io { directory: directory.to_owned(), cause };
    let mut bytes = Vec::new();
    fs::File::open(path)
        .map_err(failed)?
        .take(MAX_DOCUMENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(LayoutError::Invalid {
            directory: directory.to_owned(),
            name: name.to_owned(),
            reason: "it is larger than 4 MiB".to_owned(),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
