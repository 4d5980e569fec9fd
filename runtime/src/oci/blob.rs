//! The seam to whoever keeps compressed layers between builds.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::digest::{DiffId, Digest};

/// A compressed layer in a file that does not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBlob {
    /// Of the file.
    pub digest: Digest,
    /// Of the file, in bytes.
    pub size: u64,
    /// The file.
    pub path: PathBuf,
}

/// Keeps what was found out and could be found out again, such as what is inside
/// a layer. `()` keeps nothing.
pub trait Notes {
    /// What was last kept under `name`; what cannot be read is not there.
    fn note(&self, name: &str) -> Option<String>;

    /// Keeps a text under `name`, if it can.
    fn keep_note(&self, name: &str, text: &str);
}

impl Notes for () {
    fn note(&self, _: &str) -> Option<String> {
        None
    }

    fn keep_note(&self, _: &str, _: &str) {}
}

/// Keeps compressed layers. An encoder's name is part of the key, so that a
/// layer taken from here has the bytes a fresh one would have.
pub trait BlobStore: Notes + Sync {
    /// Looks up a layer by what it is uncompressed. What cannot be read is not there.
    fn find(&self, diff_id: &DiffId, encoder: &str) -> Option<StoredBlob>;

    /// A new, empty file on the store's file system.
    ///
    /// # Errors
    /// When it cannot be made.
    fn create(&self) -> io::Result<NewBlob>;

    /// Takes a file that was filled over; `digest` and `size` are what was written to it.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn commit(
        &self,
        blob: NewBlob,
        diff_id: &DiffId,
        encoder: &str,
        digest: &Digest,
        size: u64,
    ) -> io::Result<StoredBlob>;

    /// Looks up a blob that was brought here, by its digest. What cannot be read is not there.
    fn blob(&self, digest: &Digest, size: u64) -> Option<StoredBlob> {
        let _ = (digest, size);
        None
    }

    /// Takes over a file with a blob as somebody else made it; its bytes are verified.
    ///
    /// # Errors
    /// When it cannot be kept, as with every store that keeps only what is made here.
    fn commit_fetched(&self, blob: NewBlob, digest: &Digest, size: u64) -> io::Result<StoredBlob> {
        let _ = (blob, digest, size);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Forgets a blob whose file turned out to be damaged.
    fn discard(&self, path: &Path);

    /// The directory of blobs that may get a second name elsewhere instead of being copied:
    /// their bytes were hashed on their way there, nobody else knows them, and they
    /// are gone soon. `None` where blobs are kept: what happens to one name of a file happens to all.
    fn linkable(&self) -> Option<&Path> {
        None
    }
}

/// Keeps nothing, for whoever has all blobs already.
impl BlobStore for () {
    fn find(&self, _: &DiffId, _: &str) -> Option<StoredBlob> {
        None
    }

    fn create(&self) -> io::Result<NewBlob> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn commit(&self, _: NewBlob, _: &DiffId, _: &str, _: &Digest, _: u64) -> io::Result<StoredBlob> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn discard(&self, _: &Path) {}
}

/// A file that is being filled; it is removed when it is dropped.
#[derive(Debug)]
pub struct NewBlob {
    file: File,
    path: Option<PathBuf>,
}

impl NewBlob {
    /// Takes over the file at `path`, which nobody else knows.
    #[must_use]
    pub fn new(file: File, path: PathBuf) -> Self {
        Self { file, path: Some(path) }
    }

    /// To write to.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes everything to disk, then gives the file its final name.
    ///
    /// # Errors
    /// When either fails; the file is removed.
    pub fn persist(mut self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        if let Some(path) = self.path.take() {
            fs::rename(&path, to).inspect_err(|_| self.path = Some(path))?;
        }
        Ok(())
    }

    /// Leaves the file where it is, written to disk or not.
    #[must_use]
    pub fn leave(mut self) -> PathBuf {
        self.path.take().unwrap_or_default()
    }
}

impl Drop for NewBlob {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Only a leftover in a directory of the store, which cleans itself.
            let _ = fs::remove_file(path);
        }
    }
}
