//! Files that were downloaded, by the hash they were asked for.
//!
//! # Shape
//! ```text
//! downloads/sha512-<hex>          the bytes, 0444
//! work/sha512-<hex>/body          what is being downloaded, locked by who does it
//! ```
//! An entry is trusted for nothing: every use hashes its bytes again. So nothing
//! is flushed when one is written; a power cut leaves a torn file at worst,
//! which is a miss like any other damage. No entry ever has a second name,
//! through which somebody could change it.
//!
//! Whoever downloads holds the lock of the directory in `work/`, named after the
//! hash: one download of one file at a time, over all processes. The kernel
//! drops the lock with the process, and the next start sweeps the directory.

use std::fs::{File, Permissions};
use std::io::{self, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::growth::Growth;
use super::leases::Leases;
use super::work::{self, WorkDir};
use super::{Store, StoreError, files, note};
use crate::integrity::{Hash, Integrity};
use crate::walk::{self, Status, random_name};

/// The downloads of a store, for any thread.
#[derive(Debug, Clone)]
pub struct Downloads {
    root: PathBuf,
    damaged: Arc<Mutex<Vec<String>>>,
    leases: Arc<Leases>,
    growth: Arc<Growth>,
}

impl Store {
    /// Its downloads.
    pub fn downloads(&self) -> Downloads {
        Downloads {
            root: self.root.clone(),
            damaged: Arc::clone(&self.damaged),
            leases: Arc::clone(&self.leases),
            growth: Arc::clone(&self.growth),
        }
    }
}

impl Downloads {
    /// Whether there is something that may be the file; nothing is read.
    pub fn may_have(&self, integrity: &Integrity) -> bool {
        integrity.values().iter().any(|value| Status::of(&self.leased_path(value)).is_ok())
    }

    /// The file with this integrity, at its start. Its bytes are read and hashed;
    /// what they should not be is removed and noted as damage. Gives up when
    /// `stop` says so.
    pub fn open(&self, integrity: &Integrity, stop: &dyn Fn() -> bool) -> Option<File> {
        integrity.values().iter().find_map(|value| {
            let path = self.leased_path(value);
            match verified(&path, integrity, value, stop) {
                Ok(file) => {
                    files::note_use(&path);
                    Some(file)
                }
                Err(error) => {
                    if is_damage(&error) {
                        note(&self.damaged, &self.root, &path);
                        // On a store that cannot be written it stays, and stays a miss.
                        let _ = walk::remove(&path);
                    }
                    None
                }
            }
        })
    }

    /// A place to download the file to; `None` while somebody else does.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written.
    pub fn claim(&self, integrity: &Integrity) -> Result<Option<Scratch>, StoreError> {
        let name = integrity.values()[0].file_name();
        let Some(work) = work::named(&self.root, &name)? else { return Ok(None) };
        let kept = Kept {
            directory: self.root.join("downloads"),
            leases: Arc::clone(&self.leases),
            growth: Arc::clone(&self.growth),
        };
        Scratch::new(work, Some(kept)).map(Some)
    }

    /// A place for a file that nothing is known of; it is not kept.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        Scratch::new(work::unnamed(&self.root)?, None)
    }

    /// Where the file would be; nobody collects it from now on.
    fn leased_path(&self, value: &Hash) -> PathBuf {
        self.leases.take(&format!("downloads/{}", value.file_name()));
        self.path(value)
    }

    fn path(&self, value: &Hash) -> PathBuf {
        self.root.join("downloads").join(value.file_name())
    }
}

/// Opens an entry if it is what its name says.
fn verified(path: &Path, integrity: &Integrity, value: &Hash, stop: &dyn Fn() -> bool) -> io::Result<File> {
    let mut file = files::open_file(path)?;
    // A second name could be somebody's way in.
    if Status::of_open(&file)?.links == 1 && integrity.hash(&file, stop)? == *value {
        file.rewind()?;
        return Ok(file);
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Whether the entry itself is wrong, and not only this attempt at reading it,
/// as when too many files are open.
fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData || Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// A file that is being downloaded; gone when dropped.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    path: PathBuf,
    kept: Option<Kept>,
    /// Dropped last: removes what is left, then lets go of the lock.
    _work: WorkDir,
}

/// Where a file is kept, and who is to know.
#[derive(Debug)]
struct Kept {
    directory: PathBuf,
    leases: Arc<Leases>,
    growth: Arc<Growth>,
}

impl Scratch {
    fn new(work: WorkDir, kept: Option<Kept>) -> Result<Self, StoreError> {
        let path = work.path().join(format!("body-{}", random_name()));
        let file =
            files::create_file(&path).map_err(|error| StoreError::io("make the file", &path, error))?;
        Ok(Self { file, path, kept, _work: work })
    }

    /// The file, for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Keeps the file in the store, if it was claimed, as the one with the hash
    /// `found`, which the caller computed from what is in the file now. Gives
    /// the file at its start, read-only; what is not kept has no name any more.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written.
    pub fn finish(self, found: Option<&Hash>) -> Result<File, StoreError> {
        let failed = |error| StoreError::io("keep the download", &self.path, error);
        self.file.set_permissions(Permissions::from_mode(0o444)).map_err(failed)?;
        let file = files::open_file(&self.path).map_err(failed)?;
        if let (Some(kept), Some(found)) = (&self.kept, found) {
            let path = kept.directory.join(found.file_name());
            kept.leases.take(&format!("downloads/{}", found.file_name()));
            kept.growth.add(Status::of_open(&file).map_err(failed)?.size);
            // Something else than a file under that name would make the renaming fail.
            if Status::of(&path).is_ok_and(|status| status.kind == FileType::Directory) {
                walk::remove(&path).map_err(failed)?;
            }
            fs_err::rename(&self.path, &path).map_err(failed)?;
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::blobs::corruptions::{CORRUPTIONS, rewrite};
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::MetadataExt as _;

    /// `printf 'hello\n' | sha256sum`
    const HELLO: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    fn hello() -> Integrity {
        HELLO.parse().unwrap()
    }

    fn put(downloads: &Downloads) -> File {
        let scratch = downloads.claim(&hello()).unwrap().unwrap();
        scratch.file().write_all(b"hello\n").unwrap();
        scratch.finish(Some(&hello().values()[0])).unwrap()
    }

    fn text(mut file: File) -> String {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    fn open(downloads: &Downloads) -> Option<String> {
        downloads.open(&hello(), &|| false).map(text)
    }

    fn litter(store: &Store) -> usize {
        // The store has one directory there for itself.
        std::fs::read_dir(store.root().join("work")).unwrap().count() - 1
    }

    #[test]
    fn a_download_is_found_by_its_hash_and_read_only() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let downloads = store.downloads();
        assert_eq!(open(&downloads), None);
        let mut file = put(&downloads);
        assert!(file.write_all(b"x").is_err());
        assert_eq!(text(file), "hello\n");
        assert_eq!(open(&downloads).unwrap(), "hello\n");
        let metadata = std::fs::metadata(downloads.path(&hello().values()[0])).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o444, 1));
        assert_eq!(litter(&store), 0);
        assert!(store.take_warnings().is_empty());
    }

    #[test]
    fn k1_what_is_not_finished_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let downloads = store.downloads();
        drop(downloads.claim(&hello()).unwrap().unwrap());
        let scratch = downloads.scratch().unwrap();
        scratch.file().write_all(b"hello\n").unwrap();
        assert_eq!(text(scratch.finish(Some(&hello().values()[0])).unwrap()), "hello\n");
        assert_eq!(open(&downloads), None, "what was not claimed is not kept");
        assert_eq!(litter(&store), 0);
    }

    /// K5: one at a time; K7: who is gone holds nothing, and the next start sweeps.
    #[test]
    fn k5_one_at_a_time_claims_a_download() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let (other, _) = Store::open(temp.path()).unwrap();
        let held = store.downloads().claim(&hello()).unwrap().unwrap();
        assert!(other.downloads().claim(&hello()).unwrap().is_none());
        let (third, _) = Store::open(temp.path()).unwrap();
        assert!(third.downloads().claim(&hello()).unwrap().is_none(), "a start swept what is in use");
        drop(held);
        assert!(other.downloads().claim(&hello()).unwrap().is_some());
        // What a killed process leaves.
        let litter = temp.path().join("work").join(hello().values()[0].file_name());
        std::fs::create_dir(&litter).unwrap();
        std::fs::write(litter.join("body-0"), "hel").unwrap();
        assert_eq!(text(put(&store.downloads())), "hello\n");
        assert!(!litter.exists());
    }

    #[test]
    fn k4_every_corruption_of_a_download_is_a_miss_and_is_made_again() {
        for (what, corrupt) in CORRUPTIONS {
            let temp = tempfile::tempdir().unwrap();
            let (store, _) = Store::open(temp.path()).unwrap();
            let downloads = store.downloads();
            drop(put(&downloads));
            corrupt(&downloads.path(&hello().values()[0]));
            assert_eq!(open(&downloads), None, "{what}");
            assert_eq!(store.take_warnings().len(), usize::from(what != "missing"), "{what}");
            assert!(!downloads.may_have(&hello()), "{what}");
            drop(put(&downloads));
            assert_eq!(open(&downloads).unwrap(), "hello\n", "{what}");
            assert!(store.take_warnings().is_empty(), "{what}");
        }
    }

    #[test]
    fn a_download_with_a_second_name_is_not_trusted() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let downloads = store.downloads();
        drop(put(&downloads));
        std::fs::hard_link(downloads.path(&hello().values()[0]), temp.path().join("second")).unwrap();
        assert_eq!(open(&downloads), None);
        assert_eq!(std::fs::read(temp.path().join("second")).unwrap(), b"hello\n");
    }

    /// The bytes of one hash under the name of another.
    #[test]
    fn a_swapped_name_is_a_miss() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let downloads = store.downloads();
        drop(put(&downloads));
        let other: Integrity = HELLO.replace("5891", "0000").parse().unwrap();
        let both: Integrity = format!("{HELLO} {other}").parse().unwrap();
        std::fs::rename(downloads.path(&hello().values()[0]), downloads.path(&other.values()[0])).unwrap();
        assert!(downloads.open(&both, &|| false).is_none());
    }

    #[test]
    fn k1_a_kill_at_any_moment_leaves_nothing_that_counts() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let downloads = store.downloads();
        drop(put(&downloads));
        let path = downloads.path(&hello().values()[0]);
        // A torn file, as after a power cut.
        for length in 0..6 {
            rewrite(&path, |bytes| bytes.truncate(length));
            assert_eq!(open(&downloads), None);
            drop(put(&downloads));
        }
        assert_eq!(open(&downloads).unwrap(), "hello\n");
    }
}
