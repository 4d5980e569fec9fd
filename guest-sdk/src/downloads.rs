//! Files of a source, by the source's name.

use std::path::{Path, PathBuf};

/// One file of a source, for [`BuildContext::fetch`](crate::BuildContext::fetch).
///
/// A buildpack names neither host nor token. The source has to be listed under
/// `grants.sources` in `buildpack.toml`, and the operator has to allow it.
///
/// # Example
/// ```
/// use wapack_sdk::downloads::Artifact;
///
/// let artifact = Artifact::new("npm", "left-pad/-/left-pad-1.3.0.tgz", "/layers/acme_node/modules/left-pad")
///     .integrity("sha512-XI5MPzVNApjAyhQzphX8BkmKsKUxD4LdyK24iZeQGinBN9yTQT3bFlCBy/aVx2HrNcqQGsdot8ghrjyrvMCoEA==")
///     .unpack(1);
/// assert_eq!(artifact.strip_components, Some(1));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Artifact {
    /// The source, such as `npm`.
    pub source: String,
    /// The path under the source's base, without a leading `/`.
    pub path: String,
    /// The expected hash. Without one the file is not shared between builds.
    pub integrity: Option<String>,
    /// Where the file goes or, when it is unpacked, where its entries go.
    pub destination: PathBuf,
    /// Unpacks the file, with so many leading names of each entry removed.
    pub strip_components: Option<u32>,
}

impl Artifact {
    /// The file at `path` of `source`, to be written to `destination`.
    pub fn new(source: impl Into<String>, path: impl Into<String>, destination: impl AsRef<Path>) -> Self {
        Self {
            source: source.into(),
            path: path.into(),
            integrity: None,
            destination: destination.as_ref().to_owned(),
            strip_components: None,
        }
    }

    /// Expects the hash `sha256:<hex>`, `sha512:<hex>` or `sha512-<base64>`.
    pub fn integrity(mut self, hash: impl Into<String>) -> Self {
        self.integrity = Some(hash.into());
        self
    }

    /// Unpacks the file into `destination`, with `strip_components` leading
    /// names of each entry removed.
    pub fn unpack(mut self, strip_components: u32) -> Self {
        self.strip_components = Some(strip_components);
        self
    }
}
