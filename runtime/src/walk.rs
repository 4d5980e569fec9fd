//! Directory trees by descriptor: looking at them, walking them, removing them.
//!
//! Whoever made a tree may be hostile, so nothing here follows a symbolic link
//! below the root it was given, recurses, or trusts a path twice. It knows
//! nothing of what the trees are for.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

/// Levels of directories that are walked; each costs an open descriptor.
pub(crate) const MAX_DEPTH: usize = 200;

/// Directories kept open while a tree is removed; deeper ones are moved up.
const REMOVE_DEPTH: usize = 32;

/// How a directory is opened: never through a link.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a look at one file says, without following it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) kind: FileType,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) inode: u64,
    pub(crate) device: (u32, u32),
    pub(crate) links: u32,
    pub(crate) owner: u32,
    pub(crate) group: u32,
    /// Seconds and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// Seconds and nanoseconds; nobody can set it back.
    pub(crate) changed: (i64, u32),
}

impl Status {
    /// Looks at `name` in `directory`.
    pub(crate) fn at(directory: impl AsFd, name: &OsStr) -> io::Result<Self> {
        Self::look(directory, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Looks at the last component of `path` itself.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Self::look(CWD, path.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Looks at an open file.
    pub(crate) fn of_open(file: impl AsFd) -> io::Result<Self> {
        Self::look(file, OsStr::new(""), AtFlags::EMPTY_PATH)
    }

    fn look(directory: impl AsFd, name: &OsStr, flags: AtFlags) -> io::Result<Self> {
        let found = rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS)?;
        Ok(Self {
            kind: FileType::from_raw_mode(found.stx_mode.into()),
            mode: u32::from(found.stx_mode) & 0o7777,
            size: found.stx_size,
            inode: found.stx_ino,
            device: (found.stx_dev_major, found.stx_dev_minor),
            links: found.stx_nlink,
            owner: found.stx_uid,
            group: found.stx_gid,
            modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
            changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
        })
    }

    /// Whether it is the same file, whatever its name.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        self.inode == other.inode && self.device == other.device
    }
}

/// One entry of a walked tree.
pub(crate) struct Entry<'a> {
    /// The open directory that holds it.
    pub(crate) parent: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    /// Relative to the root of the walk.
    pub(crate) path: &'a Path,
    pub(crate) status: Status,
}

/// Whether a walk enters the directory it has just shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Into,
    Over,
}

/// Why a tree could not be walked; paths are relative to its root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    #[error("cannot read `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}` is deeper than {MAX_DEPTH} directories", path.display())]
    TooDeep { path: PathBuf },
}

struct Level {
    directory: OwnedFd,
    /// Sorted backwards, so that `pop` gives the next one.
    names: Vec<CString>,
}

/// Shows every entry below `root` to `visit`: a directory before what is in it,
/// names sorted by bytes. The root itself is not shown.
pub(crate) fn walk<E: From<WalkError>>(
    root: &Path,
    mut visit: impl FnMut(&Entry<'_>) -> Result<Step, E>,
) -> Result<(), E> {
    let mut path = PathBuf::new();
    let failed = |path: &Path, error: Errno| WalkError::Io { path: path.to_owned(), source: error.into() };
    // The root may be a link: whoever named it chose what it leads to.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags, Mode::empty()).map_err(|error| failed(root, error))?;
    let names = names_of(&directory).map_err(|error| failed(root, error))?;
    let mut levels = vec![Level { directory, names }];

    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            levels.pop();
            path.pop();
            continue;
        };
        let name = OsStr::from_bytes(name.as_bytes());
        path.push(name);
        let status = Status::at(&level.directory, name)
            .map_err(|source| WalkError::Io { path: path.clone(), source })?;
        let entry = Entry { parent: level.directory.as_fd(), name, path: &path, status };
        let step = visit(&entry)?;
        if status.kind != FileType::Directory || step == Step::Over {
            path.pop();
            continue;
        }
        if levels.len() >= MAX_DEPTH {
            return Err(WalkError::TooDeep { path }.into());
        }
        let parent = &levels[levels.len() - 1].directory;
        let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
            .map_err(|error| failed(&path, error))?;
        let names = names_of(&directory).map_err(|error| failed(&path, error))?;
        levels.push(Level { directory, names });
    }
    Ok(())
}

/// The names in a directory, sorted backwards.
fn names_of(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !is_dot(entry.file_name().to_bytes()) {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable_by(|left, right| right.cmp(left));
    Ok(names)
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// Removes `path` with everything in it; what is not there is removed already.
///
/// Goes on after a failure and returns the first one.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(Errno::INVAL));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    // Searching is enough to remove a file.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(parent, flags, Mode::empty()) {
        Ok(parent) => remove_in(parent.as_fd(), name),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes `name` in `parent` with everything in it, as [`remove`] does.
pub(crate) fn remove_in(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        // Linux says EISDIR; a read-only parent is an error of its own.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let mut first_failure = None;
    empty(open_for_removal(parent, name)?, &mut first_failure);
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(first_failure.unwrap_or(error).into()),
    }
}

/// Opens a directory so that its entries can be removed, whatever its mode.
fn open_for_removal(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let writable = Mode::RWXU;
    match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(directory) => {
            let status = rustix::fs::fstat(&directory)?;
            if !Mode::from_raw_mode(status.st_mode).contains(writable) {
                // Somebody else's directory stays as it is; then unlinking reports it.
                let _ = rustix::fs::fchmod(&directory, writable);
            }
            Ok(directory)
        }
        Err(Errno::ACCESS) => {
            // A name could be swapped for a link between a check and a chmod by name; this descriptor cannot.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            rustix::fs::chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), writable)?;
            rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())
        }
        Err(error) => Err(error),
    }
}

/// A directory that is being emptied.
struct Doomed {
    directory: OwnedFd,
    /// In the level above; unused for the first.
    name: CString,
    subdirectories: Vec<CString>,
}

/// Removes everything in `root`. Needs few descriptors however deep it is:
/// what lies too deep is first moved up into `root`.
fn empty(root: OwnedFd, first_failure: &mut Option<Errno>) {
    let mut moved_up = 0_u64;
    let mut levels = vec![unlink_files(root, CString::default(), first_failure)];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.subdirectories.pop() else {
            let done = levels.pop();
            if let (Some(parent), Some(done)) = (levels.last(), done)
                && let Err(error) = rustix::fs::unlinkat(&parent.directory, &done.name, AtFlags::REMOVEDIR)
            {
                first_failure.get_or_insert(error);
            }
            continue;
        };
        // Most directories that are left behind are empty.
        if rustix::fs::unlinkat(&level.directory, &name, AtFlags::REMOVEDIR).is_ok() {
            continue;
        }
        let opened = open_for_removal(level.directory.as_fd(), OsStr::from_bytes(name.as_bytes()));
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                first_failure.get_or_insert(error);
                continue;
            }
        };
        if levels.len() < REMOVE_DEPTH {
            levels.push(unlink_files(opened, name, first_failure));
            continue;
        }
        // The name may be taken, by chance or on purpose; the counter moves on.
        let moved = loop {
            moved_up += 1;
            let new_name = CString::new(format!("moved-up-{moved_up}")).unwrap_or_default();
            let from = &levels[levels.len() - 1].directory;
            match rustix::fs::renameat_with(
                from,
                &name,
                &levels[0].directory,
                &new_name,
                rustix::fs::RenameFlags::NOREPLACE,
            ) {
                Err(Errno::EXIST) => {}
                result => break result.map(|()| new_name),
            }
        };
        match moved {
            Ok(new_name) => levels[0].subdirectories.push(new_name),
            Err(error) => {
                first_failure.get_or_insert(error);
            }
        }
    }
}

/// Removes what is no directory and lists what is.
fn unlink_files(directory: OwnedFd, name: CString, first_failure: &mut Option<Errno>) -> Doomed {
    let mut subdirectories = Vec::new();
    match Dir::read_from(&directory) {
        Ok(entries) => {
            for entry in entries {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        first_failure.get_or_insert(error);
                        break;
                    }
                };
                if is_dot(entry.file_name().to_bytes()) {
                    continue;
                }
                if entry.file_type() == FileType::Directory {
                    subdirectories.push(entry.file_name().to_owned());
                    continue;
                }
                match rustix::fs::unlinkat(&directory, entry.file_name(), AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    // Some file systems do not say what an entry is.
                    Err(Errno::ISDIR) => subdirectories.push(entry.file_name().to_owned()),
                    Err(error) => {
                        first_failure.get_or_insert(error);
                    }
                }
            }
        }
        Err(error) => {
            first_failure.get_or_insert(error);
        }
    }
    Doomed { directory, name, subdirectories }
}

/// Makes a directory that others may read, whatever the umask: a worker may run as another user.
pub(crate) fn create_readable(path: &Path) -> io::Result<()> {
    fs_err::create_dir(path)?;
    fs_err::set_permissions(path, PermissionsExt::from_mode(0o755))
}

/// Bytes copied between two questions whether to go on.
const COPY_BYTES: u64 = 16 << 20;

/// Copies the contents of an open file, sharing its blocks where the file
/// system can. Ends when `go_on` fails.
pub(crate) fn copy_contents(
    from: &std::fs::File,
    to: &std::fs::File,
    mut go_on: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    loop {
        go_on()?;
        if io::copy(&mut io::Read::take(from, COPY_BYTES), &mut &*to)? == 0 {
            return Ok(());
        }
    }
}

/// Takes ownership of a tree that others wrote: every entry becomes ours, modes
/// stay, and a file with several names becomes several files, so that no name
/// outside the tree leads into it (G11).
pub(crate) fn adopt(root: &Path) -> Result<(), WalkError> {
    let us = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    change_owner(root, us, |status| status.owner == us.0, |status| status.links > 1)
}

/// Gives `root` and everything below it to the user and group `owner`; modes stay.
///
/// A file with several names that somebody else owns becomes a file of its own, so
/// that no name outside the tree is given away with it.
pub(crate) fn give(root: &Path, owner: (u32, u32)) -> Result<(), WalkError> {
    let is_theirs = |status: &Status| (status.owner, status.group) == owner;
    change_owner(root, owner, is_theirs, |status| status.links > 1 && !is_theirs(status))
}

fn change_owner(
    root: &Path,
    owner: (u32, u32),
    is_right: impl Fn(&Status) -> bool,
    is_to_separate: impl Fn(&Status) -> bool,
) -> Result<(), WalkError> {
    let user = Some(rustix::fs::Uid::from_raw(owner.0));
    let group = Some(rustix::fs::Gid::from_raw(owner.1));
    let root_status = Status::of(root).map_err(|source| WalkError::Io { path: root.to_owned(), source })?;
    if !is_right(&root_status) {
        rustix::fs::chown(root, user, group)
            .map_err(|error| WalkError::Io { path: root.to_owned(), source: error.into() })?;
    }
    walk(root, |entry| {
        let failed = |source: io::Error| WalkError::Io { path: entry.path.to_owned(), source };
        if entry.status.kind == FileType::RegularFile && is_to_separate(&entry.status) {
            separate(entry).map_err(failed)?;
            if is_right(&Status::at(entry.parent, entry.name).map_err(failed)?) {
                return Ok(Step::Into);
            }
        } else if is_right(&entry.status) {
            return Ok(Step::Into);
        }
        rustix::fs::chownat(entry.parent, entry.name, user, group, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failed(error.into()))?;
        // Changing the owner drops setuid and setgid.
        if entry.status.kind == FileType::RegularFile && entry.status.mode & 0o6000 != 0 {
            rustix::fs::chmodat(
                entry.parent,
                entry.name,
                Mode::from_raw_mode(entry.status.mode),
                AtFlags::empty(),
            )
            .map_err(|error| failed(error.into()))?;
        }
        Ok(Step::Into)
    })
}

/// Replaces one of several names of a file by a file of its own.
fn separate(entry: &Entry<'_>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = std::fs::File::from(rustix::fs::openat(entry.parent, entry.name, flags, Mode::empty())?);
    let name = format!(".separate-{}", random_name());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let to = std::fs::File::from(rustix::fs::openat(entry.parent, &name, flags, Mode::RUSR | Mode::WUSR)?);
    copy_contents(&from, &to, || Ok(()))?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(entry.status.mode))?;
    let modified =
        rustix::fs::Timespec { tv_sec: entry.status.modified.0, tv_nsec: entry.status.modified.1.into() };
    rustix::fs::futimens(
        &to,
        &rustix::fs::Timestamps { last_access: modified, last_modification: modified },
    )?;
    rustix::fs::renameat(entry.parent, &name, entry.parent, entry.name)?;
    Ok(())
}

/// 32 hex digits nobody can guess.
pub(crate) fn random_name() -> String {
    hex(&random_bytes::<16>())
}

/// Bytes from the kernel's generator.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut done = 0;
    while done < N {
        match rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => panic!("invariant: the kernel has random numbers after boot: {error}"),
        }
    }
    bytes
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// The deepest chain that can be made quickly without long paths.
    fn nest(root: &Path, depth: usize) {
        let mut directory = rustix::fs::open(root, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&directory, "d", Mode::RWXU).unwrap();
            directory = rustix::fs::openat(&directory, "d", DIRECTORY, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn remove_survives_100_000_nested_directories() {
        // In memory where there is such a place: on a busy disk this takes minutes.
        let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let root = temp.path().join("deep");
        std::fs::create_dir(&root).unwrap();
        nest(&root, 100_000);
        // A name that the removal itself would like to use.
        std::fs::create_dir(root.join("moved-up-1")).unwrap();
        remove(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn remove_does_not_follow_links_and_takes_read_only_directories() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("precious"), "x").unwrap();
        let root = temp.path().join("root");
        std::fs::create_dir_all(root.join("locked/inner")).unwrap();
        std::fs::write(root.join("locked/inner/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("locked/link")).unwrap();
        for (path, mode) in [("locked/inner", 0o000), ("locked", 0o555)] {
            std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        remove(&root).unwrap();
        assert!(!root.exists());
        assert_eq!(std::fs::read(outside.join("precious")).unwrap(), b"x");
    }

    #[test]
    fn remove_of_a_link_leaves_what_it_leads_to() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("there")).unwrap();
        std::os::unix::fs::symlink(temp.path().join("there"), temp.path().join("link")).unwrap();
        remove(&temp.path().join("link")).unwrap();
        assert!(temp.path().join("there").exists());
        remove(&temp.path().join("never-was")).unwrap();
    }

    #[test]
    fn walk_shows_sorted_entries_and_does_not_enter_links() {
        let temp = tempfile::tempdir().unwrap();
        for directory in ["a", "a-b", "skipped/inside"] {
            std::fs::create_dir_all(temp.path().join(directory)).unwrap();
        }
        std::fs::write(temp.path().join("a/b"), "").unwrap();
        std::os::unix::fs::symlink("/", temp.path().join("root")).unwrap();
        let mut shown = Vec::new();
        walk::<WalkError>(temp.path(), |entry| {
            shown.push(entry.path.to_str().unwrap().to_owned());
            Ok(if entry.path == Path::new("skipped") { Step::Over } else { Step::Into })
        })
        .unwrap();
        assert_eq!(shown, ["a", "a/b", "a-b", "root", "skipped"]);
    }

    #[test]
    fn walk_refuses_a_tree_that_is_too_deep() {
        let temp = tempfile::tempdir().unwrap();
        nest(temp.path(), 300);
        let result = walk::<WalkError>(temp.path(), |_| Ok(Step::Into));
        assert!(matches!(result, Err(WalkError::TooDeep { .. })), "{result:?}");
    }

    /// G11: a name outside the tree must not lead into it.
    #[test]
    fn g11_adopt_separates_hard_links_and_keeps_mode_and_contents() {
        let temp = tempfile::tempdir().unwrap();
        let tree = temp.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), "before").unwrap();
        std::fs::set_permissions(tree.join("file"), std::fs::Permissions::from_mode(0o754)).unwrap();
        std::fs::hard_link(tree.join("file"), temp.path().join("outside")).unwrap();
        adopt(&tree).unwrap();
        std::fs::write(temp.path().join("outside"), "poison").unwrap();
        assert_eq!(std::fs::read(tree.join("file")).unwrap(), b"before");
        let metadata = std::fs::metadata(tree.join("file")).unwrap();
        assert_eq!((metadata.nlink(), metadata.mode() & 0o7777), (1, 0o754));
    }
}
