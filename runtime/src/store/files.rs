//! How single files get into the store, and how they are trusted after.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, FileType, OFlags, Timespec, Timestamps, UTIME_NOW};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Store, StoreError};
use crate::walk::{Status, hex};

/// A build that comes sooner than this after another one writes nothing for it.
const NOTE_USE_EVERY: Duration = Duration::from_mins(10);

/// No record is larger; reading stops there.
const MAX_RECORD_BYTES: u64 = 256 * 1024 * 1024;

/// What the host saw of a file when it knew the contents to be right.
///
/// Only the host can write to the store, and nobody can set a change time
/// back, so equal seals mean equal bytes without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seal {
    pub(super) size: u64,
    pub(super) inode: u64,
    pub(super) changed_seconds: i64,
    pub(super) changed_nanoseconds: u32,
}

impl Seal {
    pub(super) fn from_status(status: &Status) -> Self {
        Self {
            size: status.size,
            inode: status.inode,
            changed_seconds: status.changed.0,
            changed_nanoseconds: status.changed.1,
        }
    }
}

pub(super) fn create_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

pub(super) fn create_private_all(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}

pub(super) fn make_private(path: &Path) -> io::Result<()> {
    fs_err::set_permissions(path, Permissions::from_mode(0o700))
}

/// Flushes the names in a directory.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A new file that only we can read, refusing whatever has the name already.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Opens a regular file without following a link or waiting for a FIFO.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if Status::of_open(&file)?.kind != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    Ok(file)
}

/// All bytes of a regular file of at most `limit` bytes.
pub(super) fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_file(path)?;
    let size = file.metadata()?.len();
    if size > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any file of its kind"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `sha256:<hex>` and size of what is left to read.
pub(super) fn digest_of(mut reader: impl Read) -> io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut size = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((format!("sha256:{}", hex(&hasher.finalize())), size))
}

/// Hash of several texts, none of which can be confused with its neighbour.
pub(super) fn hash_of(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hex(&hasher.finalize())
}

fn parse_record<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.split_once('\n'))
        .filter(|(sum, body)| *sum == hash_of(&[name, body]))
        .and_then(|(_, body)| serde_json::from_str(body).ok())
}

/// Has a file say that it was used now, by when it was modified; nothing that is sealed.
/// Nothing but the order of collecting depends on it.
pub(super) fn note_use(path: &Path) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let is_recent = |status: Status| status.modified.0.abs_diff(now.cast_signed()) < NOTE_USE_EVERY.as_secs();
    if !Status::of(path).is_ok_and(is_recent) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        // On a store that cannot be written nothing is collected either.
        let _ = rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
}

impl Store {
    /// Puts `bytes` at `name`, whole or not at all. Whatever was there before is replaced.
    pub(super) fn write_whole(&self, name: &str, parts: &[&[u8]]) -> Result<(), StoreError> {
        let path = self.root().join(name);
        self.growth.add(parts.iter().map(|part| part.len() as u64).sum());
        self.with_scratch_path(|temporary| {
            let write = || -> io::Result<()> {
                let mut file = create_file(temporary)?;
                for part in parts {
                    file.write_all(part)?;
                }
                file.sync_all()
            };
            write().map_err(|error| StoreError::io("write", &path, error))?;
            self.put_in_place(temporary, &path)
        })
    }

    /// Renames a finished, flushed file to where it belongs.
    pub(super) fn put_in_place(&self, temporary: &Path, path: &Path) -> Result<(), StoreError> {
        let failed = |error| StoreError::io("write", path, error);
        if let Err(error) = std::fs::rename(temporary, path) {
            // A directory in the way is damage: nothing here ever puts one.
            if !matches!(Status::of(path), Ok(found) if found.kind == FileType::Directory) {
                return Err(failed(error));
            }
            self.discard(path);
            std::fs::rename(temporary, path).map_err(failed)?;
        }
        let parent = path.parent().expect("invariant: every file of the store is below its root");
        sync_directory(parent).map_err(failed)
    }

    /// Writes a record that [`Store::read_record`] gives back.
    ///
    /// # Shape
    /// One line with the checksum of `name` and body, then the body as JSON.
    pub(super) fn write_record(&self, name: &str, record: &impl Serialize) -> Result<(), StoreError> {
        let body = serde_json::to_string(record)
            .expect("invariant: records have text keys and nothing that fails to serialise");
        let sum = hash_of(&[name, &body]);
        self.write_whole(name, &[sum.as_bytes(), b"\n", body.as_bytes()])
    }

    /// Reads a record, and notes that it was used; `None` when it is missing or damaged in
    /// any way.
    pub(super) fn read_record<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.root().join(name);
        let bytes = match read_file(&path, MAX_RECORD_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) => {
                self.discard(&path);
                return None;
            }
        };
        let record = parse_record(name, &bytes);
        if record.is_some() {
            note_use(&path);
        } else {
            self.discard(&path);
        }
        record
    }

    /// Reads a record without using it; damage is left for who does.
    pub(super) fn peek_record<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        parse_record(name, &read_file(&self.root().join(name), MAX_RECORD_BYTES).ok()?)
    }
}
