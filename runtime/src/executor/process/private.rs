//! A directory for the files of one call that nobody else is to see.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;

use crate::walk;

/// A private directory with one file in it, removed when dropped.
pub(super) struct PrivateFile {
    directory: PathBuf,
    path: PathBuf,
}

impl PrivateFile {
    /// Makes `name` with `text` in a new directory in `scratch`.
    pub(super) fn create(scratch: &Path, name: &str, text: &str) -> io::Result<Self> {
        let directory = scratch.join(walk::random_name());
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let path = directory.join(name);
        let file = Self { directory, path };
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        io::Write::write_all(&mut options.open(&file.path)?, text.as_bytes())?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        // What cannot be removed goes with the scratch directory.
        let _ = walk::remove(&self.directory);
    }
}
