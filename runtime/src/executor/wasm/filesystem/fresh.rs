//! Filling a directory that shows nothing but what is written to it.
//!
//! A mount without a lower side needs no lookup in the [`MountTable`](super::MountTable)
//! for each file: the kernel's own tree is all there is. So several threads can
//! fill it at once, each with a [`FreshDirectory`] of its own, and all they share
//! is the quota. Nothing goes through a link, whoever put it there.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::{self, Errno};

use super::mount::{DIRECTORY_MODE, FILE_MODE, open_beneath};
use super::quota::Quota;

/// Directories that are kept open; a thread of a worker has few descriptors.
const MAX_OPEN: usize = 24;
/// Without `NOFOLLOW`, which would make a link "not a directory": no lookup here follows one.
const OPEN_DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// A directory to be filled by one thread. Paths are relative to it and clean:
/// names separated by `/`, none of them empty, `.` or `..`.
#[derive(Debug)]
pub(crate) struct FreshDirectory {
    root: OwnedFd,
    /// How many names the guest path of the root has.
    depth: u64,
    quota: Quota,
    /// Directories below the root that were used lately.
    open: BTreeMap<String, OwnedFd>,
}

impl FreshDirectory {
    /// The directory `relative` below `mount`, made when missing. `mount_depth` is
    /// how many names the guest path of the mount has.
    pub(super) fn new(
        mount: BorrowedFd<'_>,
        mount_depth: u64,
        relative: &str,
        quota: Quota,
    ) -> Result<Self, Errno> {
        let root = open_beneath(mount, "", OPEN_DIRECTORY, Mode::empty())?;
        let mut directory = Self { root, depth: mount_depth, quota, open: BTreeMap::new() };
        if !relative.is_empty() {
            directory.root = directory.open_or_make(relative)?;
            directory.depth += relative.split('/').count() as u64;
            directory.open.clear();
        }
        Ok(directory)
    }

    /// Makes the directory `path` and those above it, as far as they are missing.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` when one of them is a link or a file, `EDQUOT` over the limit.
    pub(crate) fn make_directory(&mut self, path: &str) -> Result<(), Errno> {
        self.directory(path).map(|_| ())
    }

    /// Makes a file and the directories above it. All of its `size` is charged now;
    /// what is not written is given back.
    ///
    /// # Errors
    /// `EEXIST` when something is there, and those of [`Self::make_directory`].
    pub(crate) fn create_file(&mut self, path: &str, size: u64, mode: Mode) -> Result<NewFile, Errno> {
        let quota = self.quota.clone();
        let (directory, name) = self.parent(path)?;
        quota.charge_file(size)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = fs::openat(directory, name, flags, mode).and_then(|fd| {
            // The mask of the process may have taken bits.
            if mode != FILE_MODE {
                fs::fchmod(&fd, mode)?;
            }
            Ok(fd)
        });
        match made {
            Ok(fd) => Ok(NewFile { fd, unwritten: size, quota }),
            Err(error) => {
                quota.refund_entry();
                quota.refund_bytes(size);
                Err(error)
            }
        }
    }

    /// Makes a link with the given target, which is not looked at.
    pub(crate) fn create_symlink(&mut self, path: &str, target: &str) -> Result<(), Errno> {
        let quota = self.quota.clone();
        let (directory, name) = self.parent(path)?;
        quota.charge_entry()?;
        fs::symlinkat(target, directory, name).inspect_err(|_| quota.refund_entry())
    }

    /// Makes `to` another name of the file `from`.
    pub(crate) fn link(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        let quota = self.quota.clone();
        // Opened by itself: looking up the second directory may close the first.
        let (source, source_name) = split(from);
        let source = open_beneath(self.root.as_fd(), source, OPEN_DIRECTORY, Mode::empty())?;
        let (directory, name) = self.parent(to)?;
        quota.charge_entry()?;
        fs::linkat(&source, source_name, directory, name, AtFlags::empty())
            .inspect_err(|_| quota.refund_entry())
    }

    /// Opens the file `path` to read.
    pub(crate) fn open_file(&mut self, path: &str) -> Result<File, Errno> {
        let (directory, name) = self.parent(path)?;
        // NONBLOCK: were it a FIFO, opening it must not wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = fs::openat(directory, name, flags, Mode::empty())?;
        match fs::FileType::from_raw_mode(fs::fstat(&file)?.st_mode) {
            fs::FileType::RegularFile => Ok(file.into()),
            _ => Err(Errno::PERM),
        }
    }

    /// Removes the file `path`, of which this is the only name.
    pub(crate) fn remove_file(&mut self, path: &str) -> Result<(), Errno> {
        let size = self.open_file(path)?.metadata().map_or(0, |metadata| metadata.len());
        let quota = self.quota.clone();
        let (directory, name) = self.parent(path)?;
        fs::unlinkat(directory, name, AtFlags::empty())?;
        quota.refund_entry();
        quota.refund_bytes(size);
        Ok(())
    }

    /// The directory that holds `path`, made when missing, and the last name.
    fn parent<'a>(&mut self, path: &'a str) -> Result<(BorrowedFd<'_>, &'a str), Errno> {
        if self.depth + path.split('/').count() as u64 > self.quota.path_depth {
            return Err(Errno::NAMETOOLONG);
        }
        let (directory, name) = split(path);
        Ok((self.directory(directory)?, name))
    }

    fn directory(&mut self, path: &str) -> Result<BorrowedFd<'_>, Errno> {
        if path.is_empty() {
            return Ok(self.root.as_fd());
        }
        if !self.open.contains_key(path) {
            let directory = self.open_or_make(path)?;
            if self.open.len() >= MAX_OPEN {
                self.open.clear();
            }
            self.open.insert(path.to_owned(), directory);
        }
        self.open.get(path).map(AsFd::as_fd).ok_or(Errno::NOENT)
    }

    fn open_or_make(&self, path: &str) -> Result<OwnedFd, Errno> {
        match open_beneath(self.root.as_fd(), path, OPEN_DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        if self.depth + path.split('/').count() as u64 > self.quota.path_depth {
            return Err(Errno::NAMETOOLONG);
        }
        let mut current: Option<OwnedFd> = None;
        for name in path.split('/') {
            let parent = current.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
            let opened = match open_beneath(parent, name, OPEN_DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => {
                    self.make(parent, name)?;
                    open_beneath(parent, name, OPEN_DIRECTORY, Mode::empty())?
                }
                result => result?,
            };
            current = Some(opened);
        }
        current.ok_or(Errno::NOENT)
    }

    fn make(&self, parent: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
        self.quota.charge_entry()?;
        match fs::mkdirat(parent, name, DIRECTORY_MODE) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.quota.refund_entry();
                // Another thread was faster; what it made is looked at when it is opened.
                if error == Errno::EXIST { Ok(()) } else { Err(error) }
            }
        }
    }
}

/// A file that is being written, once, from its start.
#[derive(Debug)]
pub(crate) struct NewFile {
    fd: OwnedFd,
    /// Bytes that are charged and not written.
    unwritten: u64,
    quota: Quota,
}

impl NewFile {
    /// Writes all of `bytes` at the end.
    ///
    /// # Errors
    /// `EFBIG` past the size it was made for.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() as u64 > self.unwritten {
            return Err(Errno::FBIG);
        }
        while !bytes.is_empty() {
            match io::write(&self.fd, bytes) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => {
                    self.unwritten -= count as u64;
                    bytes = &bytes[count..];
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.unwritten > 0 {
            self.quota.refund_bytes(self.unwritten);
        }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
