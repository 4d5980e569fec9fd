//! The cache of the lifecycle's programs: a directory in the reference lifecycle's format.
//!
//! Whoever writes to the directory may be hostile: nothing here follows a link
//! below it, and a layer is what its name says only when its bytes were read to
//! the end. Anything that is missing or damaged is a miss.
//!
//! # Shape
//! ```text
//! committed/io.buildpacks.lifecycle.cache.metadata    JSON, which layers there are
//! committed/sha256:<hex>.tar                          one layer each, uncompressed
//! staging/                                            the next cache, while it is written
//! committed-backup/                                   the last one, while they are swapped
//! ```
//!
//! # Spec
//! CAC-01 to CAC-05.

mod writing;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

pub use self::writing::NewCache;

use crate::cnb::cache_metadata::{CACHE_METADATA, CacheMetadata};
use crate::oci::digest::{DiffId, Digest};
use crate::oci::verify::VerifyingReader;
use crate::walk::{self, Status};

const COMMITTED: &str = "committed";
const STAGING: &str = "staging";
const BACKUP: &str = "committed-backup";
/// Real ones are some kilobytes; a layer's metadata is free-form.
const MAX_METADATA_BYTES: u64 = 64 << 20;

/// Why a cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The platform has to make the directory itself (CAC-03).
    #[error("there is no cache directory `{}`", path.display())]
    Missing { path: PathBuf },
    #[error("cannot use the cache directory `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// What should have become a layer could not be read.
    #[error("cannot write a layer to the cache directory `{}`", path.display())]
    Layer { path: PathBuf, source: io::Error },
}

/// A cache directory.
#[derive(Debug)]
pub struct CacheDir {
    path: PathBuf,
    root: OwnedFd,
}

impl CacheDir {
    /// Opens the directory and removes what an interrupted build left in it.
    ///
    /// # Errors
    /// [`CacheError::Missing`] when there is no such directory, [`CacheError::Io`]
    /// when its parts cannot be made.
    ///
    /// # Spec
    /// CAC-03.
    pub fn open(path: &Path) -> Result<Self, CacheError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(root) => root,
            Err(Errno::NOENT) => return Err(CacheError::Missing { path: path.to_owned() }),
            Err(error) => return Err(CacheError::Io { path: path.to_owned(), source: error.into() }),
        };
        let cache = Self { path: path.to_owned(), root };
        for left_over in [STAGING, BACKUP] {
            cache.remove(left_over)?;
        }
        for part in [STAGING, COMMITTED] {
            match rustix::fs::mkdirat(&cache.root, part, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(cache.failed(part, error.into())),
            }
        }
        Ok(cache)
    }

    /// What the cache holds. Nothing when that cannot be read (RST-10).
    #[must_use]
    pub fn metadata(&self) -> CacheMetadata {
        let read = || -> io::Result<Vec<u8>> {
            let (file, _) = open_file(self.part(COMMITTED)?.as_fd(), CACHE_METADATA)?;
            let mut bytes = Vec::new();
            file.take(MAX_METADATA_BYTES + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) if bytes.len() as u64 <= MAX_METADATA_BYTES => CacheMetadata::parse(&bytes),
            _ => CacheMetadata::default(),
        }
    }

    /// A layer, to be read; `None` when there is none of that digest.
    ///
    /// # Errors
    /// When it is there and cannot be opened.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<CachedLayer>, CacheError> {
        let opened = self.part(COMMITTED).and_then(|part| open_file(part.as_fd(), &file_name(diff_id)));
        match opened {
            Ok((file, status)) => {
                let is_verified = is_verified(&status, &diff_id.0);
                Ok(Some(CachedLayer { file, status, digest: diff_id.0.clone(), is_verified }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(&file_name(diff_id), error)),
        }
    }

    /// Opens one of the directories.
    fn part(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.root, name, flags, Mode::empty())?)
    }

    fn remove(&self, name: &str) -> Result<(), CacheError> {
        walk::remove_in(self.root.as_fd(), OsStr::new(name)).map_err(|error| self.failed(name, error))
    }

    fn failed(&self, name: &str, source: io::Error) -> CacheError {
        CacheError::Io { path: self.path.join(name), source }
    }
}

/// A layer of the cache, not yet read.
#[derive(Debug)]
pub struct CachedLayer {
    file: File,
    status: Status,
    digest: Digest,
    is_verified: bool,
}

impl CachedLayer {
    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.status.size
    }

    /// Its tar. Reading fails at the end when the digest is not the one of the name,
    /// unless this process has verified this very file before.
    #[must_use]
    pub fn read(self) -> CachedLayerReader {
        if self.is_verified {
            return CachedLayerReader::Verified(self.file);
        }
        let Self { file, status, digest, .. } = self;
        let reader = VerifyingReader::new(file, digest.clone());
        CachedLayerReader::Verifying(Box::new(Verifying { reader, opened: status, digest }))
    }
}

/// See [`CachedLayer::read`].
#[derive(Debug)]
pub enum CachedLayerReader {
    /// By this process, before.
    Verified(File),
    /// While it is read.
    Verifying(Box<Verifying>),
}

/// A file that is verified while it is read.
#[derive(Debug)]
pub struct Verifying {
    reader: VerifyingReader<File>,
    /// As it was before the first byte.
    opened: Status,
    digest: Digest,
}

impl Read for CachedLayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Verified(file) => file.read(buffer),
            Self::Verifying(verifying) => {
                let Verifying { reader, opened, digest } = &mut **verifying;
                let count = reader.read(buffer)?;
                if count == 0 && !buffer.is_empty() && Status::of_open(reader.inner())? == *opened {
                    remember(opened, digest);
                }
                Ok(count)
            }
        }
    }
}

/// What this process has read to the end and found to be what its name says, by
/// device and inode. `creator` restores and exports in one process, and a layer of
/// some gigabytes is not to be hashed for each.
static VERIFIED: Mutex<BTreeMap<FileId, (Status, Digest)>> = Mutex::new(BTreeMap::new());

/// Device and inode.
type FileId = ((u32, u32), u64);

fn remember(status: &Status, digest: &Digest) {
    let mut verified = VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    verified.insert((status.device, status.inode), (*status, digest.clone()));
}

/// Nobody can change a file and give it back its time of change.
fn is_verified(status: &Status, digest: &Digest) -> bool {
    let verified = VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    verified
        .get(&(status.device, status.inode))
        .is_some_and(|(then, known)| then == status && known == digest)
}

/// The file of a layer: the diffID with its prefix, and an ending.
fn file_name(diff_id: &DiffId) -> String {
    format!("{diff_id}.tar")
}

/// Opens a regular file to be read.
fn open_file(directory: BorrowedFd<'_>, name: &str) -> io::Result<(File, Status)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
    let status = Status::of_open(&file)?;
    if status.kind != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    Ok((file, status))
}

#[cfg(test)]
mod tests;
