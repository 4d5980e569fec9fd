//! File work that WASI cannot do, or that the host does faster.
//!
//! Everything else is plain [`std::fs`], or [`crate::fs`] for errors that name
//! the path. Nothing here reaches what file calls cannot reach.

use std::path::Path;

use crate::error::Error;
use crate::host;

/// What an operation over many files did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Files, directories and links.
    pub entries: u64,
    /// Bytes of file contents.
    pub bytes: u64,
}

/// How the entries of an archive become files.
///
/// # Example
/// ```
/// use wapack_sdk::files::Unpack;
///
/// let npm_package = Unpack::strip(1).without_links().renaming(".gitignore", ".npmignore");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Unpack {
    /// Leading names of each entry that are removed.
    pub strip_components: u32,
    /// Leave symbolic and hard links out.
    pub skip_links: bool,
    /// File names that are replaced, from and to. An entry that has the new name
    /// itself wins over one that would get it.
    pub rename: Vec<(String, String)>,
}

impl Unpack {
    /// Removes `components` leading names of each entry.
    pub fn strip(components: u32) -> Self {
        Self { strip_components: components, ..Self::default() }
    }

    /// Leaves symbolic and hard links out.
    pub fn without_links(mut self) -> Self {
        self.skip_links = true;
        self
    }

    /// Calls files `to` that the archive calls `from`.
    pub fn renaming(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.rename.push((from.into(), to.into()));
        self
    }
}

/// Sets or clears the executable bit of a file. WASI has no mode bits, so files
/// that a buildpack writes are not executable until it says so.
///
/// # Errors
/// When `path` is no file of a writable directory.
pub fn set_executable(path: impl AsRef<Path>, executable: bool) -> Result<(), Error> {
    host::set_executable(path.as_ref(), executable)
}

/// Copies a file or a tree, links as links. `to` must not exist.
///
/// # Errors
/// When `from` cannot be read or `to` cannot be written.
pub fn copy_tree(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Summary, Error> {
    host::copy_tree(from.as_ref(), to.as_ref())
}

/// A hash over names, kinds, executable bits, link targets and contents, as
/// `sha256:` and 64 hex digits: a good part of a layer's key. Times and owners
/// do not count.
///
/// # Errors
/// When `path` cannot be read.
pub fn hash_tree(path: impl AsRef<Path>) -> Result<String, Error> {
    host::hash_tree(path.as_ref())
}

/// Unpacks an archive (tar, plain or compressed with gzip, xz or zstd, or zip)
/// into `destination`, which is made when missing.
///
/// # Errors
/// When the archive is damaged, or an entry would leave `destination`.
pub fn unpack(
    archive: impl AsRef<Path>,
    destination: impl AsRef<Path>,
    how: &Unpack,
) -> Result<Summary, Error> {
    host::unpack(archive.as_ref(), destination.as_ref(), how)
}
