//! Where entries become files: past the mount table where it has no say, else through it.

use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::super::filesystem::{
    FreshDirectory, GuestPath, MountTable, NewFile, NodeKind, OpenFile, OpenHow, Opened,
};

/// The guest's mount table, while several threads write for it.
pub(in super::super) type SharedTable<'t> = Mutex<&'t mut MountTable>;

/// A directory that is being filled. Paths are relative to it and clean.
pub(in super::super) enum Destination<'s, 't> {
    /// Filled by the kernel's own means, in parallel with others.
    Fresh(FreshDirectory),
    /// Something may be there that the table knows of: it is asked, one thread at a time.
    Mounted { table: &'s SharedTable<'t>, root: GuestPath },
}

/// A file that is being written, from its start.
pub(super) enum Writing {
    Fresh(NewFile),
    Mounted { file: OpenFile, offset: u64 },
}

fn lock<'s, 't>(table: &'s SharedTable<'t>) -> MutexGuard<'s, &'t mut MountTable> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'s, 't> Destination<'s, 't> {
    /// Makes the directory `root`, and those above it, as far as they are missing.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` when a link or a file is there or on the way.
    pub(in super::super) fn open(table: &'s SharedTable<'t>, root: &GuestPath) -> Result<Self, Errno> {
        let mut files = lock(table);
        if let Some(fresh) = files.fresh(root)? {
            return Ok(Self::Fresh(fresh));
        }
        files.create_directories(root)?;
        Ok(Self::Mounted { table, root: root.clone() })
    }

    /// Makes a directory; one that is there is fine.
    pub(super) fn make_directory(&mut self, path: &str) -> Result<(), Errno> {
        match self {
            Self::Fresh(fresh) => fresh.make_directory(path),
            Self::Mounted { table, root } => lock(table).create_directories(&below(root, path)?),
        }
    }

    /// Makes a file of `size` bytes.
    pub(super) fn create_file(&mut self, path: &str, size: u64, mode: Mode) -> Result<Writing, Errno> {
        match self {
            Self::Fresh(fresh) => fresh.create_file(path, size, mode).map(Writing::Fresh),
            Self::Mounted { table, root } => {
                let path = below(root, path)?;
                let mut files = lock(table);
                make_parent(&mut files, &path)?;
                // A size that has no room is refused before anything is written; what
                // is written is charged as it is.
                files.quota().charge_bytes(size)?;
                files.quota().refund_bytes(size);
                let how = OpenHow { write: true, create: true, exclusive: true, ..OpenHow::default() };
                match files.open(&path, how)? {
                    Opened::File(file) => {
                        file.set_mode(mode)?;
                        Ok(Writing::Mounted { file, offset: 0 })
                    }
                    Opened::Directory => Err(Errno::EXIST),
                }
            }
        }
    }

    /// Makes a symbolic link.
    pub(super) fn create_symlink(&mut self, path: &str, target: &str) -> Result<(), Errno> {
        match self {
            Self::Fresh(fresh) => fresh.create_symlink(path, target),
            Self::Mounted { table, root } => {
                let path = below(root, path)?;
                let mut files = lock(table);
                make_parent(&mut files, &path)?;
                files.create_symlink(&path, target)
            }
        }
    }

    /// Makes `to` another name of the file `from`.
    pub(super) fn link(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        match self {
            Self::Fresh(fresh) => fresh.link(from, to),
            Self::Mounted { table, root } => {
                let (from, to) = (below(root, from)?, below(root, to)?);
                let mut files = lock(table);
                make_parent(&mut files, &to)?;
                files.link(&from, &to)
            }
        }
    }

    /// Removes a file that was written here and has no other name.
    pub(super) fn remove_file(&mut self, path: &str) -> Result<(), Errno> {
        match self {
            Self::Fresh(fresh) => fresh.remove_file(path),
            Self::Mounted { table, root } => lock(table).unlink(&below(root, path)?),
        }
    }

    /// Reads back a file that was written here.
    pub(super) fn read_file(&mut self, path: &str) -> Result<Reading, Errno> {
        match self {
            Self::Fresh(fresh) => fresh.open_file(path).map(Reading::Fresh),
            Self::Mounted { table, root } => {
                match lock(table).open(&below(root, path)?, OpenHow::default())? {
                    Opened::File(file) => Ok(Reading::Mounted { file, offset: 0 }),
                    Opened::Directory => Err(Errno::ISDIR),
                }
            }
        }
    }
}

fn below(root: &GuestPath, path: &str) -> Result<GuestPath, Errno> {
    path.split('/').try_fold(root.clone(), |path, name| path.join(name))
}

fn make_parent(files: &mut MountTable, path: &GuestPath) -> Result<(), Errno> {
    match path.parent() {
        Some(parent) if files.kind(&parent)? != Some(NodeKind::Directory) => {
            files.create_directories(&parent)
        }
        _ => Ok(()),
    }
}

impl Writing {
    /// Writes all of `bytes` at the end.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Fresh(file) => file.write(bytes),
            Self::Mounted { file, offset } => {
                file.write_at(bytes, *offset)?;
                *offset += bytes.len() as u64;
                Ok(())
            }
        }
    }
}

/// A file that is read back, from its start.
pub(super) enum Reading {
    Fresh(File),
    Mounted { file: OpenFile, offset: u64 },
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Fresh(file) => file.read(buffer),
            Self::Mounted { file, offset } => {
                let count = file.read_at(buffer, *offset)?;
                *offset += count as u64;
                Ok(count)
            }
        }
    }
}
