//! Directories of running builds, and what dead builds left of theirs.
//!
//! A build holds a lock on its directory's descriptor. The kernel drops the
//! lock with the process, however it dies, so no file names a process and no
//! clock decides who is alive.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Store, StoreError, files};
use crate::walk::{self, Status};

/// Attempts at a directory before giving up; each loss needs another process to sweep in between.
const ATTEMPTS: usize = 100;

/// A private directory for one build, removed when dropped.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    /// Where [`WorkDir::keep`] puts it.
    kept: PathBuf,
    /// Holds the lock; `None` once the directory is given away.
    lock: Option<OwnedFd>,
}

impl WorkDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the directory, under another path: `work/` is swept.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be moved; then it is removed as usual.
    pub fn keep(mut self) -> Result<PathBuf, StoreError> {
        let failed = |path: &Path, error| StoreError::io("keep the work directory", path, error);
        let parent = self.kept.parent().unwrap_or(&self.kept);
        files::create_private_all(parent).map_err(|error| failed(parent, error))?;
        fs_err::rename(&self.path, &self.kept).map_err(|error| failed(&self.path, error))?;
        self.lock = None;
        Ok(self.kept.clone())
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            // What cannot be removed now is litter for the next start.
            let _ = walk::remove(&self.path);
            drop(lock);
        }
    }
}

impl Store {
    /// A new, empty directory that only this user can enter.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written.
    pub fn work_dir(&self) -> Result<WorkDir, StoreError> {
        unnamed(self.root())
    }
}

/// A new, empty directory in the store at `root`.
pub(super) fn unnamed(root: &Path) -> Result<WorkDir, StoreError> {
    for _ in 0..ATTEMPTS {
        if let Some(directory) = make(root, &walk::random_name(), FlockOperation::LockExclusive)? {
            return Ok(directory);
        }
    }
    let lost = io::Error::new(io::ErrorKind::WouldBlock, "others keep removing it");
    Err(StoreError::io("make the work directory", &root.join("work"), lost))
}

/// The directory with this name in the store at `root`; `None` while another
/// has it. May hold what a process that was killed left there.
pub(super) fn named(root: &Path, name: &str) -> Result<Option<WorkDir>, StoreError> {
    make(root, name, FlockOperation::NonBlockingLockExclusive)
}

/// Makes the directory, if need be, and locks it: until then another process
/// may take it for litter, and `None` says that one did.
fn make(root: &Path, name: &str, operation: FlockOperation) -> Result<Option<WorkDir>, StoreError> {
    let path = root.join("work").join(name);
    let failed = |error| StoreError::io("make the work directory", &path, error);
    match files::create_private(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    match lock(&path, operation) {
        Ok(lock) => {
            let kept = root.join("kept").join(name);
            Ok(lock.map(|lock| WorkDir { path, kept, lock: Some(lock) }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Locks the directory at `path`; `None` when it is locked already, or gone by
/// the time the lock is there.
pub(super) fn lock(path: &Path, operation: FlockOperation) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    match rustix::fs::flock(&directory, operation) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        result => result?,
    }
    let still_there = match Status::of(path) {
        Ok(status) => status.same_file(&Status::of_open(&directory)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    Ok(still_there.then_some(directory))
}

/// Removes every directory of `work` that no living process holds.
pub(super) fn sweep(work: &Path) {
    // A sweep that fails is repeated by the next start.
    let Ok(entries) = std::fs::read_dir(work) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match lock(&path, FlockOperation::NonBlockingLockExclusive) {
            Ok(Some(held)) => {
                let _ = walk::remove(&path);
                drop(held);
            }
            // Files and links do not belong here.
            Err(error)
                if error.kind() == io::ErrorKind::NotADirectory
                    || Errno::from_io_error(&error) == Some(Errno::LOOP) =>
            {
                let _ = walk::remove(&path);
            }
            Ok(None) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_work_directory_is_private_and_goes_when_dropped() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let work = store.work_dir().unwrap();
        let path = work.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        std::fs::create_dir_all(path.join("a/b/c")).unwrap();
        drop(work);
        assert!(!path.exists());
    }

    #[test]
    fn opening_the_store_removes_litter_but_no_living_build() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        drop(store);
        let (store, _) = Store::open(temp.path()).unwrap();
        let living = store.work_dir().unwrap();
        std::fs::write(living.path().join("file"), "x").unwrap();
        // What a killed build leaves: a directory without a lock.
        let litter = temp.path().join("work/litter");
        std::fs::create_dir_all(litter.join("deep/er")).unwrap();
        std::fs::write(temp.path().join("work/file"), "x").unwrap();
        symlink("/", temp.path().join("work/link")).unwrap();
        drop(Store::open(temp.path()).unwrap());
        assert!(living.path().join("file").exists());
        let left: Vec<_> = std::fs::read_dir(temp.path().join("work")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_kept_directory_survives_the_next_start() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let work = store.work_dir().unwrap();
        std::fs::write(work.path().join("file"), "x").unwrap();
        let kept = work.keep().unwrap();
        drop(Store::open(temp.path()).unwrap());
        assert_eq!(std::fs::read(kept.join("file")).unwrap(), b"x");
    }

    #[test]
    fn many_threads_that_make_and_sweep_do_not_meet() {
        let temp = tempfile::tempdir().unwrap();
        drop(Store::open(temp.path()).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let (store, _) = Store::open(temp.path()).unwrap();
                        let work = store.work_dir().unwrap();
                        std::fs::write(work.path().join("file"), "x").unwrap();
                        assert!(work.path().join("file").exists());
                    }
                });
            }
        });
    }
}
