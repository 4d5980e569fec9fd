//! A directory as the union of what was there and what was written over it.
//!
//! Reads trees that hostile code may have made, so it goes from one descriptor
//! to the next, never follows a link, and never recurses. It knows nothing of
//! layers or images.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::cancel::{Cancel, Cancelled};
use crate::fault::{Diagnose, Fault};
use crate::limits::show_bytes;

/// A directory as the union of two.
///
/// # Shape
/// A path is looked up in `upper`, then in `lower` unless it or one of its
/// parents is in `hidden`. Directories of both are merged. Paths in `hidden` are
/// relative and clean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// What was there, and is only read.
    pub lower: Option<PathBuf>,
    /// What was written.
    pub upper: Option<PathBuf>,
    /// What was removed from, or replaced in, `lower`.
    pub hidden: BTreeSet<PathBuf>,
}

/// One of the two directories of a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Lower,
    Upper,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    Directory,
    /// A regular file.
    File {
        size: u64,
        /// Who may execute it: some of the bits `0111`.
        execute: u32,
    },
    /// A symbolic link with its target as it is stored.
    Symlink {
        target: Vec<u8>,
    },
    /// A FIFO or a device; only where [`TreeLimits::special_files`] lets them in.
    Special(SpecialFile),
}

/// A file without contents of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialFile {
    Fifo,
    CharacterDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

/// One file, directory or link of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the tree, parts separated by `/`; never empty.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    side: Side,
    stamp: Stamp,
}

/// What tells that a file changed since it was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, u64),
    changed: (i64, u64),
}

/// Everything in a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Each directory followed by its children sorted by the bytes of their
    /// names, depth first.
    pub entries: Vec<Entry>,
    /// Paths of sockets; they cannot be stored and are left out.
    pub sockets: Vec<Vec<u8>>,
    /// Apparent size of all files together.
    pub bytes: u64,
}

/// What a tree may hold.
///
/// # Units
/// Apparent bytes, so that a sparse file counts as what reading it would give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeLimits {
    pub bytes: u64,
    pub entries: usize,
    /// Whether FIFOs and devices are listed instead of refused.
    pub special_files: bool,
}

impl Default for TreeLimits {
    /// Far above any real app, far below what fills a machine.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 5_000_000, special_files: false }
    }
}

/// Why a tree could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The file system said no.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// On the host.
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// A FIFO or a device, which an image should not carry.
    #[error("`{}` is a {what}", path.display())]
    SpecialFile {
        /// On the host.
        path: PathBuf,
        /// `fifo`, `device` or `special file`.
        what: &'static str,
    },
    /// A file is not what it was when it was listed.
    #[error("`{}` changed while it was read", path.display())]
    Changed {
        /// On the host.
        path: PathBuf,
    },
    /// Files of more bytes than allowed.
    #[error("`{}` makes the directory larger than {}", path.display(), show_bytes(*.allowed))]
    TooLarge {
        /// The file that was too much, on the host.
        path: PathBuf,
        allowed: u64,
    },
    /// More files than allowed.
    #[error("`{}` has more than {allowed} files", path.display())]
    TooMany {
        /// The directory, on the host.
        path: PathBuf,
        allowed: usize,
    },
    /// The build was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Diagnose for TreeError {
    fn id(&self) -> &'static str {
        match self {
            Self::Read { .. } => "source.unreadable",
            Self::SpecialFile { .. } => "source.special_file",
            Self::Changed { .. } => "source.changed",
            Self::TooLarge { .. } => "source.too_large",
            Self::TooMany { .. } => "source.too_many_files",
            Self::Cancelled(_) => "build.cancelled",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Read { .. } | Self::Changed { .. } => Fault::Environment,
            Self::SpecialFile { .. } | Self::TooLarge { .. } | Self::TooMany { .. } => Fault::App,
            Self::Cancelled(_) => Fault::Caller,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::SpecialFile { .. } => Some("remove it; only files, directories and links are built".into()),
            Self::Changed { .. } => Some("build again when nothing writes to the directory".into()),
            Self::TooLarge { .. } => {
                Some("a sparse file counts as its full size; remove what is not needed".into())
            }
            _ => None,
        }
    }
}

impl Tree {
    /// The tree of one directory, which is only read.
    #[must_use]
    pub fn of(directory: impl Into<PathBuf>) -> Self {
        Self { lower: Some(directory.into()), ..Self::default() }
    }

    /// Lists everything, in walk order. A side that is `None` is empty; one that
    /// does not exist is an error.
    ///
    /// # Errors
    /// All of [`TreeError`].
    pub fn list(&self, limits: TreeLimits, cancel: &Cancel) -> Result<Listing, TreeError> {
        let roots = Roots::open(self)?;
        let mut listing = Listing::default();
        let mut waiting = roots.children(self, &[], [true, true])?;
        let mut found = waiting.len();
        while let Some(Found { path, kind, mode, side, stamp, merged }) = waiting.pop() {
            cancel.check()?;
            let kind = match kind {
                FoundKind::Entry(EntryKind::Special(special)) if !limits.special_files => {
                    let what = if special == SpecialFile::Fifo { "fifo" } else { "device" };
                    return Err(TreeError::SpecialFile { path: self.host_path(side, &path), what });
                }
                FoundKind::Entry(kind) => kind,
                FoundKind::Socket => {
                    listing.sockets.push(path);
                    continue;
                }
                FoundKind::Unknown => {
                    let what = "special file";
                    return Err(TreeError::SpecialFile { path: self.host_path(side, &path), what });
                }
            };
            if let EntryKind::File { size, .. } = kind {
                listing.bytes = listing.bytes.saturating_add(size);
                if listing.bytes > limits.bytes {
                    let path = self.host_path(side, &path);
                    return Err(TreeError::TooLarge { path, allowed: limits.bytes });
                }
            }
            if kind == EntryKind::Directory {
                let sides = [merged || side == Side::Lower, merged || side == Side::Upper];
                let children = roots.children(self, &path, sides)?;
                found += children.len();
                if found > limits.entries {
                    let path = self.host_path(side, &[]);
                    return Err(TreeError::TooMany { path, allowed: limits.entries });
                }
                waiting.extend(children);
            }
            listing.entries.push(Entry { path, kind, mode, side, stamp });
        }
        Ok(listing)
    }

    /// Opens the files of a listing of this tree.
    ///
    /// # Errors
    /// When a directory of the tree cannot be opened.
    pub fn reader(&self) -> Result<TreeReader<'_>, TreeError> {
        Ok(TreeReader { tree: self, roots: Roots::open(self)? })
    }

    fn host_path(&self, side: Side, path: &[u8]) -> PathBuf {
        let root = match side {
            Side::Lower => self.lower.as_deref(),
            Side::Upper => self.upper.as_deref(),
        };
        let root = root.unwrap_or(Path::new(""));
        if path.is_empty() { root.to_path_buf() } else { root.join(OsStr::from_bytes(path)) }
    }

    fn hides(&self, path: &[u8]) -> bool {
        !self.hidden.is_empty() && self.hidden.contains(Path::new(OsStr::from_bytes(path)))
    }
}

/// Opens files of a [`Tree`] safely; made by [`Tree::reader`].
#[derive(Debug)]
pub struct TreeReader<'a> {
    tree: &'a Tree,
    roots: Roots,
}

impl TreeReader<'_> {
    /// Opens a file as it was listed.
    ///
    /// # Errors
    /// [`TreeError::Changed`] when it is another file or another version now.
    pub fn open(&self, entry: &Entry) -> Result<TreeFile, TreeError> {
        let path = self.tree.host_path(entry.side, &entry.path);
        let failed = |errno: Errno| match errno {
            // It was a file in a real directory when it was listed.
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::XDEV => {
                TreeError::Changed { path: path.clone() }
            }
            errno => TreeError::Read { path: path.clone(), cause: errno.into() },
        };
        let root = self.roots.get(entry.side).ok_or_else(|| failed(Errno::NOENT))?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let descriptor = open_beneath(root, &entry.path, flags).map_err(failed)?;
        let stat = rustix::fs::fstat(&descriptor).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || Stamp::of(&stat) != entry.stamp {
            return Err(TreeError::Changed { path });
        }
        Ok(TreeFile { file: descriptor.into(), stamp: entry.stamp, path })
    }
}

/// An open file of a [`Tree`], and what it was when it was listed.
#[derive(Debug)]
pub struct TreeFile {
    file: std::fs::File,
    stamp: Stamp,
    path: PathBuf,
}

impl TreeFile {
    /// Where the file is on the host, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to say when reading failed.
    #[must_use]
    pub fn unreadable(&self, cause: io::Error) -> TreeError {
        TreeError::Read { path: self.path.clone(), cause }
    }

    /// To be called after reading: the file is still what was listed.
    ///
    /// # Errors
    /// [`TreeError::Changed`] when it is not.
    pub fn check_unchanged(&self) -> Result<(), TreeError> {
        let stat = rustix::fs::fstat(&self.file)
            .map_err(|errno| TreeError::Read { path: self.path.clone(), cause: errno.into() })?;
        if Stamp::of(&stat) == self.stamp {
            Ok(())
        } else {
            Err(TreeError::Changed { path: self.path.clone() })
        }
    }
}

impl Read for &TreeFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }
}

impl Seek for &TreeFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        (&self.file).seek(position)
    }
}

impl Listing {
    /// When an entry was changed last, in seconds and nanoseconds since 1970.
    #[must_use]
    pub fn last_change(&self) -> Option<(i64, u64)> {
        self.entries.iter().map(|entry| entry.stamp.changed).max()
    }

    /// Equal for two listings of the same tree between which nothing was changed.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for Entry { path, kind, side, stamp, .. } in &self.entries {
            hasher.update((path.len() as u64).to_le_bytes());
            hasher.update(path);
            hasher.update([u8::from(*side == Side::Upper)]);
            match kind {
                EntryKind::Directory => hasher.update(b"d"),
                EntryKind::Symlink { target } => {
                    hasher.update(b"l");
                    hasher.update((target.len() as u64).to_le_bytes());
                    hasher.update(target);
                }
                // The bit for executing is part of what changes the time of change.
                EntryKind::File { .. } | EntryKind::Special(_) => {
                    hasher.update(b"f");
                    let Stamp { inode, size, modified, changed } = stamp;
                    for number in [*inode, *size, modified.1, changed.1] {
                        hasher.update(number.to_le_bytes());
                    }
                    for number in [modified.0, changed.0] {
                        hasher.update(number.to_le_bytes());
                    }
                }
            }
        }
        hasher.finalize().into()
    }
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

#[derive(Debug)]
struct Roots {
    lower: Option<OwnedFd>,
    upper: Option<OwnedFd>,
}

struct Found {
    path: Vec<u8>,
    kind: FoundKind,
    mode: u32,
    side: Side,
    stamp: Stamp,
    /// A directory that both sides have.
    merged: bool,
}

enum FoundKind {
    Entry(EntryKind),
    Socket,
    Unknown,
}

impl Roots {
    fn open(tree: &Tree) -> Result<Self, TreeError> {
        let open = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| {
                    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                    rustix::fs::open(path, flags, Mode::empty())
                        .map_err(|errno| TreeError::Read { path: path.clone(), cause: errno.into() })
                })
                .transpose()
        };
        Ok(Self { lower: open(&tree.lower)?, upper: open(&tree.upper)? })
    }

    fn get(&self, side: Side) -> Option<&OwnedFd> {
        match side {
            Side::Lower => self.lower.as_ref(),
            Side::Upper => self.upper.as_ref(),
        }
    }

    /// The children of a directory, last name first, looked up in `[lower, upper]`.
    fn children(&self, tree: &Tree, parent: &[u8], sides: [bool; 2]) -> Result<Vec<Found>, TreeError> {
        let mut children: BTreeMap<Vec<u8>, Found> = BTreeMap::new();
        for (side, wanted) in [(Side::Upper, sides[1]), (Side::Lower, sides[0])] {
            let Some(root) = self.get(side).filter(|_| wanted) else { continue };
            if side == Side::Lower && tree.hides(parent) {
                continue;
            }
            let failed = |path: &[u8], errno: Errno| {
                let path = tree.host_path(side, path);
                TreeError::Read { path, cause: errno.into() }
            };
            let directory = open_beneath(root, parent, OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(|errno| failed(parent, errno))?;
            let mut names = Dir::read_from(&directory).map_err(|errno| failed(parent, errno))?;
            while let Some(name) = names.read() {
                let name = name.map_err(|errno| failed(parent, errno))?;
                let name = name.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
                path.extend_from_slice(parent);
                if !parent.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                if side == Side::Lower && tree.hides(&path) {
                    continue;
                }
                let child =
                    look_at(&directory, name, path, side).map_err(|(path, errno)| failed(&path, errno))?;
                match children.get_mut(name) {
                    None => {
                        children.insert(name.to_vec(), child);
                    }
                    Some(above) => {
                        above.merged = above.is_directory() && child.is_directory();
                    }
                }
            }
        }
        Ok(children.into_values().rev().collect())
    }
}

impl Found {
    fn is_directory(&self) -> bool {
        matches!(self.kind, FoundKind::Entry(EntryKind::Directory))
    }
}

fn look_at(directory: &OwnedFd, name: &[u8], path: Vec<u8>, side: Side) -> Result<Found, (Vec<u8>, Errno)> {
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(errno) => return Err((path, errno)),
    };
    let stamp = Stamp::of(&stat);
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let special = |special| FoundKind::Entry(EntryKind::Special(special));
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => FoundKind::Entry(EntryKind::Directory),
        FileType::RegularFile => {
            FoundKind::Entry(EntryKind::File { size: stamp.size, execute: stat.st_mode & 0o111 })
        }
        FileType::Symlink => match rustix::fs::readlinkat(directory, name, Vec::new()) {
            Ok(target) => FoundKind::Entry(EntryKind::Symlink { target: target.into_bytes() }),
            Err(errno) => return Err((path, errno)),
        },
        FileType::Socket => FoundKind::Socket,
        FileType::Fifo => special(SpecialFile::Fifo),
        FileType::CharacterDevice => special(SpecialFile::CharacterDevice { major, minor }),
        FileType::BlockDevice => special(SpecialFile::BlockDevice { major, minor }),
        FileType::Unknown => FoundKind::Unknown,
    };
    Ok(Found { path, kind, mode: stat.st_mode & 0o7777, side, stamp, merged: false })
}

/// The kernel takes paths of at most 4096 bytes at once.
const LONGEST_STEP: usize = 4000;

/// Opens a path below `root`; no part of it may be a link or lead out of `root`.
fn open_beneath(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let open = |from: rustix::fd::BorrowedFd<'_>, path: &[u8], flags: OFlags| {
        let path = CString::new(path).map_err(|_| Errno::INVAL)?;
        rustix::fs::openat2(from, &path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    let mut rest = if path.is_empty() { b".".as_slice() } else { path };
    let mut step: Option<OwnedFd> = None;
    while rest.len() > LONGEST_STEP {
        let slash = rest[..LONGEST_STEP].iter().rposition(|&byte| byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        let from = step.as_ref().unwrap_or(root).as_fd();
        step = Some(open(from, &rest[..slash], OFlags::PATH | OFlags::DIRECTORY)?);
        rest = &rest[slash + 1..];
    }
    open(step.as_ref().unwrap_or(root).as_fd(), rest, flags | OFlags::NOFOLLOW)
}

/// Sorts entries by their whole path as bytes, so that `a-b` comes before `a/b` (TAR-08).
pub fn sort_by_path(entries: &mut [Entry]) {
    entries.sort_by(|left, right| left.path.cmp(&right.path));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn names(listing: &Listing) -> Vec<&str> {
        listing.entries.iter().map(|entry| std::str::from_utf8(&entry.path).unwrap()).collect()
    }

    fn list(tree: &Tree) -> Result<Listing, TreeError> {
        tree.list(TreeLimits::default(), &Cancel::default())
    }

    fn write(root: &Path, path: &str, contents: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn read(tree: &Tree, path: &str) -> String {
        let listing = list(tree).unwrap();
        let entry = listing.entries.iter().find(|entry| entry.path == path.as_bytes()).unwrap();
        let file = tree.reader().unwrap().open(entry).unwrap();
        let mut text = String::new();
        (&file).read_to_string(&mut text).unwrap();
        file.check_unchanged().unwrap();
        text
    }

    #[test]
    fn tar_08_walk_order_and_path_order_differ() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "a/b", "");
        write(root.path(), "a-b", "");
        let mut listing = list(&Tree::of(root.path())).unwrap();
        assert_eq!(names(&listing), ["a", "a/b", "a-b"]);
        sort_by_path(&mut listing.entries);
        assert_eq!(names(&listing), ["a", "a-b", "a/b"]);
    }

    #[test]
    fn upper_covers_lower_and_directories_merge() {
        let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in ["both/lower", "both/same", "dir-then-file/x", "file-then-dir", "gone/x", "new/old", "z"]
        {
            write(lower.path(), path, "lower");
        }
        for path in ["both/same", "both/upper", "dir-then-file", "file-then-dir/y", "new/new"] {
            write(upper.path(), path, "upper");
        }
        let tree = Tree {
            lower: Some(lower.path().into()),
            upper: Some(upper.path().into()),
            hidden: ["gone", "new", "z"].map(PathBuf::from).into(),
        };
        let listing = list(&tree).unwrap();
        assert_eq!(
            names(&listing),
            [
                "both",
                "both/lower",
                "both/same",
                "both/upper",
                "dir-then-file",
                "file-then-dir",
                "file-then-dir/y",
                "new",
                "new/new"
            ]
        );
        assert_eq!(read(&tree, "both/same"), "upper");
        assert_eq!(read(&tree, "both/lower"), "lower");
        assert_eq!(listing.bytes, 6 * 5);
    }

    #[test]
    fn kinds_and_modes() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "plain", "12");
        write(root.path(), "program", "");
        fs::set_permissions(root.path().join("program"), fs::Permissions::from_mode(0o610)).unwrap();
        symlink("/etc/passwd", root.path().join("link")).unwrap();
        symlink("..", root.path().join("up")).unwrap();
        let listing = list(&Tree::of(root.path())).unwrap();
        let kinds: Vec<_> = listing.entries.into_iter().map(|entry| entry.kind).collect();
        assert_eq!(
            kinds,
            [
                EntryKind::Symlink { target: b"/etc/passwd".to_vec() },
                EntryKind::File { size: 2, execute: 0 },
                EntryKind::File { size: 0, execute: 0o010 },
                EntryKind::Symlink { target: b"..".to_vec() },
            ]
        );
    }

    #[test]
    fn sockets_are_left_out_and_fifos_refused() {
        let root = tempfile::tempdir().unwrap();
        let _socket = UnixListener::bind(root.path().join("socket")).unwrap();
        let listing = list(&Tree::of(root.path())).unwrap();
        assert_eq!((listing.entries.len(), listing.sockets), (0, vec![b"socket".to_vec()]));
        rustix::fs::mknodat(rustix::fs::CWD, root.path().join("pipe"), FileType::Fifo, Mode::RUSR, 0)
            .unwrap();
        let error = list(&Tree::of(root.path())).unwrap_err();
        assert_eq!(error.id(), "source.special_file");
        assert!(error.to_string().ends_with("/pipe` is a fifo"), "{error}");
    }

    #[test]
    fn a_file_that_changed_or_was_replaced_is_not_opened() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(root.path(), "dir/file", "before");
        let tree = Tree::of(root.path());
        let entry = list(&tree).unwrap().entries.remove(1);
        fs::write(root.path().join("dir/file"), "after, longer").unwrap();
        assert_eq!(tree.reader().unwrap().open(&entry).unwrap_err().id(), "source.changed");

        let entry = list(&tree).unwrap().entries.remove(1);
        // The very same file, but by way of a link.
        fs::rename(root.path().join("dir"), other.path().join("dir")).unwrap();
        symlink(other.path().join("dir"), root.path().join("dir")).unwrap();
        assert_eq!(tree.reader().unwrap().open(&entry).unwrap_err().id(), "source.changed");
    }

    /// TAR-15
    #[test]
    fn a_file_that_changes_while_it_is_open_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "file", "before");
        let tree = Tree::of(root.path());
        let entry = list(&tree).unwrap().entries.remove(0);
        let file = tree.reader().unwrap().open(&entry).unwrap();
        fs::write(root.path().join("file"), "after!").unwrap();
        let set_time = fs::File::open(root.path().join("file")).unwrap();
        set_time.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(file.check_unchanged().unwrap_err().id(), "source.changed");
    }

    #[test]
    fn sparse_files_count_as_their_apparent_size() {
        let root = tempfile::tempdir().unwrap();
        fs::File::create(root.path().join("bomb")).unwrap().set_len(1 << 40).unwrap();
        let error = list(&Tree::of(root.path())).unwrap_err();
        assert_eq!(error.id(), "source.too_large");
    }

    #[test]
    fn many_files_are_too_many() {
        let root = tempfile::tempdir().unwrap();
        for name in 0..11 {
            write(root.path(), &format!("dir/{name}"), "");
        }
        let limits = TreeLimits { entries: 11, ..TreeLimits::default() };
        let error = Tree::of(root.path()).list(limits, &Cancel::default()).unwrap_err();
        assert_eq!(error.id(), "source.too_many_files");
    }

    /// Deeper than a path the kernel takes, and than a stack would last.
    #[test]
    fn depth_is_no_problem() {
        let root = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let depth = 100;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut at = rustix::fs::open(root.path(), flags, Mode::empty()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, name.as_str(), flags, Mode::empty()).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let file = rustix::fs::openat(&at, "end", flags, Mode::RUSR).unwrap();
        rustix::io::write(&file, b"deep").unwrap();
        let tree = Tree::of(root.path());
        let listing = list(&tree).unwrap();
        assert_eq!(listing.entries.len(), depth + 1);
        let file = tree.reader().unwrap().open(&listing.entries[depth]).unwrap();
        let mut text = String::new();
        (&file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "deep");
    }

    #[test]
    fn a_missing_directory_is_an_error_that_names_it() {
        let error = list(&Tree::of("/nonexistent/tree")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `/nonexistent/tree`");
    }

    #[test]
    fn cancelling_ends_it() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "file", "");
        let cancel = Cancel::default();
        cancel.cancel();
        let result = Tree::of(root.path()).list(TreeLimits::default(), &cancel);
        assert!(matches!(result, Err(TreeError::Cancelled(_))));
    }
}
