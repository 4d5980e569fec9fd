//! A directory among the layers for what is not to be seen afterwards.

use std::io;
use std::path::{Path, PathBuf};

use crate::walk;

/// Removed when dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty directory in `layers`, on the file system that layers are on.
    pub(super) fn create(layers: &Path) -> io::Result<Self> {
        fs_err::create_dir_all(layers)?;
        // No buildpack's directory has a name like this: identifiers have no `~`.
        let path = layers.join(format!("~{}", walk::random_name()));
        walk::create_readable(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is in nobody's way.
        let _ = walk::remove(&self.0);
    }
}
