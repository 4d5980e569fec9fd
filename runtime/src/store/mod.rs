//! The one store: everything a build keeps for the next one.
//!
//! It knows files, digests and seals. It must not know what an executor or a
//! phase is, and nothing in it is ever needed for a correct build: whatever is
//! missing, damaged or strange is a *miss* with one warning, and is made again.
//!
//! # Shape
//! ```text
//! version                      format of the store
//! key                          secret of the precompiled components, 0600
//! blobs/sha256/<hex>           compressed layers and documents, 0444
//! index/<hash>                 layer and encoder -> blob
//! notes/<hash>                 what was found out of layers: their files, whether programs start
//! layers/<tenant>/<image>/     what the last build of an image left: record, trees/<random>/tree
//! compiled/<hash>              precompiled components, each with its MAC
//! builders/<hash>/             unpacked builders
//! downloads/<algorithm>-<hex>  files of sources, by the hash they were asked for
//! digests/<hash>               digests of files elsewhere, by seal
//! work/<random>/               directories of running builds
//! kept/<random>/               directories of builds that were asked to keep them
//! leases                       empty; bytes of it are locked for what running builds use
//! size                         how large the store was, and what was added since
//! ```
//! All directories are 0700. Records are JSON behind a checksum that also
//! covers where they stand. Everything appears by rename: written beside,
//! flushed, renamed, directory flushed, and only then mentioned in a record.
//! (Downloads are not flushed: no record mentions them, and every use hashes them.)

mod blobs;
mod builders;
mod collection;
mod compiled;
mod downloads;
mod files;
mod growth;
mod images;
mod inventory;
#[cfg(test)]
mod kill_tests;
mod leases;
mod usage;
mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fs::FileType;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::fault::{Diagnose, Fault};
use crate::walk::{self, Status};
use growth::Growth;
use leases::Leases;

#[cfg(test)]
pub(crate) use blobs::corruptions;
pub use collection::{Collected, CollectionGoal};
pub use compiled::CompiledKey;
pub use downloads::{Downloads, Scratch};
pub use images::{
    BuildpackRecords, CachedLayer, ExportedAs, ImageCache, ImageRecords, LayerRecord, SealedTree, TreeSource,
};
pub use inventory::StoreKind;
pub use usage::{ImageUsage, KindUsage, StoreUsage};
pub use work::WorkDir;

/// Format this program writes.
const FORMAT: u32 = 1;

/// Where records and damage are kept apart from each other.
const DIRECTORIES: [&str; 9] =
    ["blobs/sha256", "index", "notes", "layers", "compiled", "builders", "digests", "downloads", "work"];

/// Why the store could not do what was asked. Damage is never among the reasons.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {action} `{}`", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// No space, no inodes, or no quota left.
    #[error("no space left for `{}`", path.display())]
    DiskFull { path: PathBuf, source: io::Error },
    /// The store can be read but not written.
    #[error("the store cannot be written at `{}`", path.display())]
    ReadOnly { path: PathBuf, source: io::Error },
    /// A newer program made the store.
    #[error("the store `{}` has format {found}; this program knows format {FORMAT}", root.display())]
    Newer { root: PathBuf, found: u32 },
    /// Somebody else could plant files in the store.
    #[error("the store `{}` belongs to user {owner}, not to user {us}", root.display())]
    Foreign { root: PathBuf, owner: u32, us: u32 },
    /// The directory is somebody else's, with other things in it.
    #[error("the directory `{}` is no store, and is not empty", root.display())]
    Occupied { root: PathBuf },
    /// A layer's tree could not be taken over.
    #[error("cannot keep the layer tree `{}`: {what}", path.display())]
    Tree { path: PathBuf, what: String },
}

impl StoreError {
    fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match Errno::from_io_error(&source) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::DiskFull { path, source },
            Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => Self::ReadOnly { path, source },
            _ => Self::Io { action, path, source },
        }
    }
}

impl Diagnose for StoreError {
    fn id(&self) -> &'static str {
        match self {
            Self::Io { .. } => "store.io",
            Self::DiskFull { .. } => "host.disk_full",
            Self::ReadOnly { .. } => "store.read_only",
            Self::Newer { .. } => "store.newer_format",
            Self::Foreign { .. } => "store.foreign",
            Self::Occupied { .. } => "store.occupied",
            Self::Tree { .. } => "store.tree",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Newer { .. } | Self::Foreign { .. } | Self::Occupied { .. } => Fault::Caller,
            _ => Fault::Environment,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::DiskFull { .. } => Some("free some space, or name another place with `--cache-dir`".into()),
            Self::ReadOnly { .. } | Self::Foreign { .. } | Self::Occupied { .. } => {
                Some("name a directory of your own with `--cache-dir`".into())
            }
            Self::Newer { .. } => {
                Some("use the newer program, or name another place with `--cache-dir`".into())
            }
            Self::Io { .. } | Self::Tree { .. } => None,
        }
    }
}

/// The store of one user on one machine. Any number of processes may have it open.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Damaged pieces met so far, relative to the root.
    damaged: Arc<Mutex<Vec<String>>>,
    /// Where files are written before they are renamed; made when first needed.
    scratch: Mutex<Option<WorkDir>>,
    /// Whether seals are not enough.
    verifies: bool,
    /// On what this build uses.
    leases: Arc<Leases>,
    /// What this build has written.
    growth: Arc<Growth>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.tell_growth();
    }
}

#[derive(Serialize, Deserialize)]
struct Version {
    format: u32,
}

impl Store {
    /// Opens the store at `root`, making it if need be, and removes what dead
    /// builds left behind. Returns warnings for the user beside it.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Foreign`] and [`StoreError::Occupied`] need
    /// another root; the others are trouble of the machine. A store that can only be read
    /// opens.
    pub fn open(root: &Path) -> Result<(Self, Vec<String>), StoreError> {
        if let Err(error) = files::create_private_all(root)
            && !root.is_dir()
        {
            let is_in_the_way = error.kind() == io::ErrorKind::AlreadyExists;
            let other = || io::Error::new(io::ErrorKind::NotADirectory, "there is something else already");
            return Err(StoreError::io(
                "make the directory",
                root,
                if is_in_the_way { other() } else { error },
            ));
        }
        // From here on no link leads anywhere else.
        let root =
            fs_err::canonicalize(root).map_err(|error| StoreError::io("find the store", root, error))?;
        let status = Status::of(&root).map_err(|error| StoreError::io("look at the store", &root, error))?;
        let us = rustix::process::geteuid().as_raw();
        if status.owner != us {
            return Err(StoreError::Foreign { root, owner: status.owner, us });
        }
        if is_occupied(&root) {
            return Err(StoreError::Occupied { root });
        }
        let leases = Arc::new(Leases::new(&root));
        let store = Self {
            root,
            damaged: Arc::default(),
            scratch: Mutex::default(),
            verifies: false,
            leases,
            growth: Arc::default(),
        };
        store.check_version()?;
        let mut warnings = store.prepare(&status)?;
        warnings.extend(store.take_warnings());
        Ok((store, warnings))
    }

    /// Whether there is a store at `root`, as far as can be seen: one that cannot be looked
    /// at may be one. Makes nothing.
    #[must_use]
    pub fn is_at(root: &Path) -> bool {
        let version = Status::of(&root.join("version"));
        !version.is_err_and(|error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        })
    }

    /// From now on the bytes of everything are looked at, however sound it seems
    /// by its seal: blobs and documents by their digests, trees by theirs. A tree
    /// gets one when it is first kept or used this way.
    pub fn verify_everything(&mut self) {
        self.verifies = true;
    }

    /// Whether seals are not enough.
    pub(crate) fn verifies(&self) -> bool {
        self.verifies
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the user should know of damage that was met since the last call: at
    /// most one warning, however much there was.
    pub fn take_warnings(&self) -> Vec<String> {
        let damaged = std::mem::take(&mut *lock(&self.damaged));
        let Some(first) = damaged.first() else { return Vec::new() };
        let more = match damaged.len() - 1 {
            0 => String::new(),
            1 => " and 1 other file".to_owned(),
            more => format!(" and {more} other files"),
        };
        vec![format!("`{first}`{more} in the store was damaged and is made again")]
    }

    /// Notes that `path` was not what the store had left there.
    fn note_damage(&self, path: &Path) {
        note(&self.damaged, &self.root, path);
    }

    /// Notes damage and gets it out of the way. On a store that cannot be
    /// written it stays, and stays a miss.
    fn discard(&self, path: &Path) {
        self.note_damage(path);
        let _ = walk::remove(path);
    }

    /// A newer format is refused; an unreadable version is damage like any other.
    fn check_version(&self) -> Result<(), StoreError> {
        match self.read_record::<Version>("version") {
            Some(version) if version.format > FORMAT => {
                Err(StoreError::Newer { root: self.root.clone(), found: version.format })
            }
            _ => Ok(()),
        }
    }

    /// Makes what is missing, puts right what can be, and sweeps.
    fn prepare(&self, root: &Status) -> Result<Vec<String>, StoreError> {
        let mut warnings = Vec::new();
        if root.mode & 0o077 != 0 {
            warnings.push(format!("`{}` was open to other users and is not any more", self.root.display()));
            if files::make_private(&self.root).is_err() {
                return Ok(vec!["the store cannot be written; nothing of this build is kept".to_owned()]);
            }
        }
        for name in DIRECTORIES {
            let mut path = self.root.clone();
            for part in name.split('/') {
                path.push(part);
                match self.prepare_directory(&path) {
                    Ok(()) => {}
                    Err(error @ StoreError::ReadOnly { .. }) => {
                        let cause = std::error::Error::source(&error).map(ToString::to_string);
                        warnings.push(format!("{error}: {}", cause.unwrap_or_default()));
                        return Ok(warnings);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if self.read_record::<Version>("version").is_none() {
            match self.write_record("version", &Version { format: FORMAT }) {
                Err(StoreError::ReadOnly { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        work::sweep(&self.root.join("work"));
        Ok(warnings)
    }

    /// Makes sure that `path` is a private directory of our own.
    fn prepare_directory(&self, path: &Path) -> Result<(), StoreError> {
        match Status::of(path) {
            Ok(found) if found.kind == FileType::Directory => {
                if found.mode & 0o077 != 0 || found.mode & 0o700 != 0o700 {
                    files::make_private(path)
                        .map_err(|error| StoreError::io("change the mode of", path, error))?;
                }
                return Ok(());
            }
            Ok(_) => self.discard(path),
            Err(_) => {}
        }
        match files::create_private(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(|error| StoreError::io("make the directory", path, error)),
        }
    }

    /// Runs `act` with the path of a file that does not exist yet and is
    /// removed with this process, on the store's own file system.
    fn with_scratch_path<T>(
        &self,
        act: impl FnOnce(&Path) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let path = {
            let mut scratch = lock(&self.scratch);
            let directory = match scratch.take() {
                Some(directory) => directory,
                None => self.work_dir()?,
            };
            let path = directory.path().join(walk::random_name());
            *scratch = Some(directory);
            path
        };
        act(&path)
    }
}

/// Whether a directory has other things in it and nothing of a store. It would become
/// private, and whatever is called like something of ours would be damage.
fn is_occupied(root: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(root) else { return false };
    // A file system of its own has the last one.
    let files = ["version", "key", "leases", "size", "kept", "lost+found"];
    let directories = || DIRECTORIES.iter().filter_map(|name| name.split('/').next());
    let mut names = entries.flatten().map(|entry| entry.file_name()).peekable();
    names.peek().is_some()
        && !names.any(|name| directories().chain(files).any(|ours| name.as_os_str() == ours))
}

/// Notes once that `path` of the store at `root` was damaged.
fn note(damaged: &Mutex<Vec<String>>, root: &Path, path: &Path) {
    let path = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let mut damaged = lock(damaged);
    if !damaged.contains(&path) {
        damaged.push(path);
    }
}

/// What a poisoned lock protects here is still whole: each change is one push or one swap.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
