//! Blobs that live as long as the program: what is kept after it is the image.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fs_err as fs;

use crate::oci::blob::{BlobStore, NewBlob, Notes, StoredBlob};
use crate::oci::digest::{DiffId, Digest};
use crate::walk;

/// A directory of blobs, removed at the end.
pub(in crate::programs) struct ScratchBlobs {
    directory: PathBuf,
    made: AtomicUsize,
    /// Whether blobs are on their way to the disk from the moment they are made.
    writes_early: bool,
    known: Mutex<BTreeMap<(String, String), StoredBlob>>,
}

impl ScratchBlobs {
    /// Makes it in `parent`.
    pub(in crate::programs) fn new(parent: &Path) -> io::Result<Self> {
        let directory = parent.join(format!("wapack-export-{}", walk::random_name()));
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(Self { directory, made: AtomicUsize::new(0), writes_early: false, known: Mutex::default() })
    }

    /// For blobs that become part of an image as they are: whoever makes sure at the end
    /// that they are on the disk then has little to wait for.
    #[must_use]
    pub(in crate::programs) fn written_early(mut self, writes_early: bool) -> Self {
        self.writes_early = writes_early;
        self
    }

    /// Lets the kernel begin to write a blob. Unlike waiting for it, that takes no error away from whoever
    /// waits for it at the end.
    fn write_early(&self, blob: &NewBlob) {
        if self.writes_early {
            // What is written need not be kept in memory either: nobody reads it before the image is there.
            let _ = rustix::fs::fadvise(blob.file(), 0, None, rustix::fs::Advice::DontNeed);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), StoredBlob>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for ScratchBlobs {
    fn drop(&mut self) {
        // What is left in a directory for temporary files is nobody's loss.
        let _ = walk::remove(&self.directory);
    }
}

impl Notes for ScratchBlobs {
    fn note(&self, _: &str) -> Option<String> {
        None
    }

    fn keep_note(&self, _: &str, _: &str) {}
}

impl BlobStore for ScratchBlobs {
    fn find(&self, diff_id: &DiffId, encoder: &str) -> Option<StoredBlob> {
        self.known().get(&(diff_id.to_string(), encoder.to_owned())).cloned()
    }

    fn create(&self) -> io::Result<NewBlob> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(number.to_string());
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(NewBlob::new(file.into_parts().0, path))
    }

    fn commit(
        &self,
        blob: NewBlob,
        diff_id: &DiffId,
        encoder: &str,
        digest: &Digest,
        size: u64,
    ) -> io::Result<StoredBlob> {
        // Whoever keeps the image waits for the disk; this name of it need not outlive a crash.
        self.write_early(&blob);
        let blob = StoredBlob { digest: digest.clone(), size, path: blob.leave() };
        self.known().insert((diff_id.to_string(), encoder.to_owned()), blob.clone());
        Ok(blob)
    }

    fn blob(&self, digest: &Digest, size: u64) -> Option<StoredBlob> {
        self.known().get(&fetched(digest)).filter(|blob| blob.size == size).cloned()
    }

    fn commit_fetched(&self, blob: NewBlob, digest: &Digest, size: u64) -> io::Result<StoredBlob> {
        let blob = StoredBlob { digest: digest.clone(), size, path: blob.leave() };
        self.known().insert(fetched(digest), blob.clone());
        Ok(blob)
    }

    fn discard(&self, path: &Path) {
        self.known().retain(|_, blob| blob.path != path);
    }

    fn linkable(&self) -> Option<&Path> {
        Some(&self.directory)
    }
}

/// The key of a blob that was brought here: no encoder has this name.
fn fetched(digest: &Digest) -> (String, String) {
    (digest.to_string(), "fetched".to_owned())
}
