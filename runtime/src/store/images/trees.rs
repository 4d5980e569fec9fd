//! Trees of layers: sealed when they are kept, leased while they are used, removed when
//! nobody holds them.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::oci::digest::{Digest, Hasher};
use crate::store::files::{self, Seal};
use crate::store::inventory::tree_bytes;
use crate::store::{Store, StoreError, work};
use crate::walk::{self, Status, Step, WalkError};

/// Entries of a tree that a build looks at before it trusts the seal: about 10 ms
/// of `stat`. A layer of 50,000 files must not cost every build a tenth of a second.
const CHECKED_ENTRIES: usize = 4_000;

/// The contents of a layer, inside its directory under `trees/`.
pub(super) const TREE: &str = "tree";

/// Made when a tree is complete; its change time seals everything older.
pub(super) const MARKER: &str = "sealed";

/// The contents of a cached layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedTree {
    pub path: PathBuf,
    /// A file in the tree that changed after this was damaged.
    ///
    /// # Units
    /// Seconds and nanoseconds of the file system's clock, to compare with `st_ctime`.
    pub sealed_at: (i64, u32),
}

impl SealedTree {
    /// By the seal; where everything is verified, by its contents too.
    pub(super) fn is_sound(&self, stored: &StoredTree, verifies: bool) -> bool {
        if !verifies {
            return self.is_untouched(CHECKED_ENTRIES);
        }
        let has_digest = |expected: &String| digest_of_tree(&self.path).is_ok_and(|found| found == *expected);
        self.is_untouched(usize::MAX) && stored.digest.as_ref().is_none_or(has_digest)
    }

    /// Whether nothing in the tree has changed since it was sealed: one `stat`
    /// for each of the first `entries`, and no contents are read. What
    /// is past them is trusted for being in a directory that only we can write.
    fn is_untouched(&self, entries: usize) -> bool {
        let mut left = entries;
        let end = walk::walk::<Unsealed>(&self.path, |entry| {
            left = left.checked_sub(1).ok_or(Unsealed::Unchecked)?;
            if entry.status.changed <= self.sealed_at { Ok(Step::Into) } else { Err(Unsealed::Touched) }
        });
        matches!(end, Ok(()) | Err(Unsealed::Unchecked))
    }
}

/// Why a look at a tree ended early.
enum Unsealed {
    /// Something is not as it was sealed, or cannot be looked at.
    Touched,
    /// The tree is larger than what is looked at.
    Unchecked,
}

impl From<WalkError> for Unsealed {
    fn from(_: WalkError) -> Self {
        Self::Touched
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct StoredTree {
    pub(in crate::store) name: String,
    marker: Seal,
    /// Of everything in it; only where somebody asked for it to be verified.
    #[serde(default)]
    pub(super) digest: Option<String>,
}

impl StoredTree {
    /// What is in the tree now; `None` when it cannot be read.
    pub(super) fn read_digest(&self, trees: &Path) -> Option<String> {
        digest_of_tree(&trees.join(&self.name).join(TREE)).ok()
    }
}

impl Store {
    /// Takes over a tree into `trees` and seals it.
    pub(super) fn move_tree(&self, trees: &Path, from: &Path) -> Result<StoredTree, StoreError> {
        let failed = |error| StoreError::io("keep the layer", from, error);
        walk::adopt(from).map_err(|error| match error {
            walk::WalkError::Io { path, source } => StoreError::io("take over", &from.join(path), source),
            error @ walk::WalkError::TooDeep { .. } => {
                StoreError::Tree { path: from.to_owned(), what: error.to_string() }
            }
        })?;
        let name = walk::random_name();
        let holder = trees.join(&name);
        files::create_private(&holder).map_err(failed)?;
        let to = holder.join(TREE);
        let mode = Status::of(from).map_err(failed)?.mode;
        // Moving a directory to another parent changes it, so it has to be writable for a moment.
        if mode & 0o200 == 0 {
            std::fs::set_permissions(from, PermissionsExt::from_mode(mode | 0o700)).map_err(failed)?;
        }
        std::fs::rename(from, &to).map_err(failed)?;
        if mode & 0o200 == 0 {
            std::fs::set_permissions(&to, PermissionsExt::from_mode(mode)).map_err(failed)?;
        }
        let marker = files::create_file(&holder.join(MARKER)).map_err(failed)?;
        let marker = Seal::from_status(&Status::of_open(&marker).map_err(failed)?);
        self.growth.add(tree_bytes(&to));
        let digest = self.verifies().then(|| digest_of_tree(&to).ok()).flatten();
        Ok(StoredTree { name, marker, digest })
    }
}

/// Of names, kinds, executable bits, links and contents of everything in a tree.
pub(super) fn digest_of_tree(path: &Path) -> io::Result<String> {
    let mut hasher = Hasher::default();
    let mut see = |entry: &walk::Entry<'_>| -> Result<Step, WalkError> {
        let failed = |source: io::Error| WalkError::Io { path: entry.path.to_owned(), source };
        let text = match entry.status.kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(entry.parent, entry.name, flags, Mode::empty());
                let file = file.map_err(|error| failed(error.into()))?;
                files::digest_of(&std::fs::File::from(file)).map_err(failed)?.0
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(entry.parent, entry.name, Vec::new());
                let target = target.map_err(|error| failed(error.into()))?;
                Digest::of(target.as_bytes()).to_string()
            }
            _ => String::new(),
        };
        let name = entry.path.as_os_str().as_bytes();
        let mode = entry.status.mode & 0o111;
        hasher.update(format!("{:?} {mode:o} {text} {} ", entry.status.kind, name.len()).as_bytes());
        hasher.update(name);
        Ok(Step::Into)
    };
    match walk::walk(path, &mut see) {
        Ok(()) => Ok(hasher.finish().to_string()),
        Err(WalkError::Io { source, .. }) => Err(source),
        Err(error @ WalkError::TooDeep { .. }) => Err(io::Error::other(error.to_string())),
    }
}

#[derive(Debug)]
pub(super) struct Lease {
    _lock: OwnedFd,
    pub(super) tree: SealedTree,
}

/// Leases one tree. `Ok(None)`: a commit took it away in this moment.
pub(super) fn lease(trees: &Path, stored: &StoredTree) -> Result<Option<Lease>, ()> {
    let holder = trees.join(&stored.name);
    let lock = match work::lock(&holder, FlockOperation::NonBlockingLockShared) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err(()),
    };
    let marker = Status::of(&holder.join(MARKER)).map_err(|_| ())?;
    let path = holder.join(TREE);
    let tree = Status::of(&path).map_err(|_| ())?;
    // The root itself is covered by its change time, like every file below it.
    let whole = Seal::from_status(&marker) == stored.marker
        && tree.kind == FileType::Directory
        && tree.changed <= marker.changed;
    if !whole {
        return Err(());
    }
    Ok(Some(Lease { _lock: lock, tree: SealedTree { path, sealed_at: marker.changed } }))
}

/// Removes the trees that are not in `kept` and that nobody leases.
pub(super) fn collect(trees: &Path, kept: &BTreeSet<&str>) {
    // What stays because of an error is tried again by the next commit.
    let Ok(entries) = std::fs::read_dir(trees) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
            continue;
        }
        match work::lock(&entry.path(), FlockOperation::NonBlockingLockExclusive) {
            Ok(Some(lock)) => {
                let _ = walk::remove(&entry.path());
                drop(lock);
            }
            Ok(None) => {}
            Err(_) => {
                let _ = walk::remove(&entry.path());
            }
        }
    }
}
