//! A directory for what is not kept, private to one run of a program.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::walk;

/// Removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct WorkDirectory(PathBuf);

impl WorkDirectory {
    /// Makes one in `parent`.
    pub(super) fn create(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!("wapack-{}", walk::random_name()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        // What cannot be removed is in the directory for such things.
        let _ = walk::remove(&self.0);
    }
}
