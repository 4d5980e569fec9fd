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

/// Unpacks an archive (tar, or tar compressed with gzip) into `destination`,
/// which is made when missing, with `strip_components` leading names of each
/// entry removed.
///
/// # Errors
/// When the archive is damaged, or an entry would leave `destination`.
pub fn unpack(
    archive: impl AsRef<Path>,
    destination: impl AsRef<Path>,
    strip_components: u32,
) -> Result<Summary, Error> {
    host::unpack(archive.as_ref(), destination.as_ref(), strip_components)
}
