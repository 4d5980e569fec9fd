//! Files of a source, by the source's name.

use std::path::{Path, PathBuf};

use crate::files::Unpack;

/// One file of a source, for [`BuildContext::fetch`](crate::BuildContext::fetch).
///
/// A buildpack names neither host nor token. The source has to be listed under
/// `grants.sources` in `buildpack.toml`, and the operator has to allow it.
///
/// # Example
/// ```
/// use wapack_sdk::downloads::Artifact;
/// use wapack_sdk::files::Unpack;
///
/// let artifact = Artifact::new("npm", "left-pad/-/left-pad-1.3.0.tgz", "/layers/acme_node/modules/left-pad")
///     .integrity("sha512-XI5MPzVNApjAyhQzphX8BkmKsKUxD4LdyK24iZeQGinBN9yTQT3bFlCBy/aVx2HrNcqQGsdot8ghrjyrvMCoEA==")
///     .unpack(Unpack::strip(1));
/// assert_eq!(artifact.unpack, Some(Unpack::strip(1)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Artifact {
    /// The source, such as `npm`, or a part of it that the operator may have put
    /// elsewhere, such as `npm:@acme`. The part before the colon is what is granted.
    pub source: String,
    /// The path under the source's base, without a leading `/`.
    pub path: String,
    /// The expected hash. Without one the file is not shared between builds.
    pub integrity: Option<String>,
    /// Where the file goes or, when it is unpacked, where its entries go.
    pub destination: PathBuf,
    /// Unpacks the file.
    pub unpack: Option<Unpack>,
}

impl Artifact {
    /// The file at `path` of `source`, to be written to `destination`.
    pub fn new(source: impl Into<String>, path: impl Into<String>, destination: impl AsRef<Path>) -> Self {
        Self {
            source: source.into(),
            path: path.into(),
            integrity: None,
            destination: destination.as_ref().to_owned(),
            unpack: None,
        }
    }

    /// Expects the hash `sha256:<hex>`, `sha512:<hex>`, or what npm writes:
    /// `sha512-<base64>`, several of them separated by spaces.
    pub fn integrity(mut self, hash: impl Into<String>) -> Self {
        self.integrity = Some(hash.into());
        self
    }

    /// Unpacks the file into `destination`.
    pub fn unpack(mut self, how: Unpack) -> Self {
        self.unpack = Some(how);
        self
    }
}
