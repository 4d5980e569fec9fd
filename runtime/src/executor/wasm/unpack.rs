//! Unpacking an archive into a guest's directories.
//!
//! The archive is hostile. Every path is checked before anything is written,
//! nothing goes through a link, and what is written is charged to the guest's quota.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;
use rustix::io::Errno;
use tar::EntryType;

use super::filesystem::{GuestPath, MountTable, NodeKind, OpenFile, OpenHow, Opened};

/// Output a compressed archive may have before its ratio counts.
const RATIO_FREE_BYTES: u64 = 64 * 1024 * 1024;
/// Output per input byte past that; honest archives stay far below.
const MAX_RATIO: u64 = 200;
/// Bytes of headers between the contents of two entries: long names and the like,
/// which are read into memory.
const MAX_HEADER_BYTES: u64 = 256 * 1024;
/// Bytes copied at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("entry {number} `{name}` has a path that leaves the destination")]
    BadPath { number: u64, name: String },
    #[error("entry {number} `{name}` links to `{target}`, outside the destination or missing")]
    BadLink { number: u64, name: String, target: String },
    #[error("entry {number} `{name}` is a {kind}")]
    BadType { number: u64, name: String, kind: &'static str },
    #[error("entry {number} `{name}` is there twice")]
    Duplicate { number: u64, name: String },
    #[error("the archive expands to more than {MAX_RATIO} times its size")]
    TooLarge,
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    #[error("entry {number} `{name}` cannot be written: {error}")]
    Write { number: u64, name: String, error: Errno },
}

impl UnpackError {
    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::BadPath { .. } => "archive.bad_path",
            Self::BadLink { .. } => "archive.bad_link",
            Self::BadType { .. } => "archive.bad_type",
            Self::Duplicate { .. } => "archive.duplicate",
            Self::TooLarge => "archive.too_large",
            Self::Damaged(_) => "archive.damaged",
            Self::Write { error: Errno::DQUOT, .. } => "guest.disk_limit",
            Self::Write { .. } => "archive.write_failed",
        }
    }
}

/// What was unpacked.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Unpacked {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Reads an open file from its start.
pub(super) struct FileSource<'a> {
    pub(super) file: &'a OpenFile,
    pub(super) offset: u64,
}

impl Read for FileSource<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Unpacks `archive` into the existing directory `destination`.
pub(super) fn unpack(
    files: &mut MountTable,
    archive: &OpenFile,
    destination: &GuestPath,
    strip: u32,
) -> Result<Unpacked, UnpackError> {
    let mut magic = [0; 2];
    let count = archive.read_at(&mut magic, 0).map_err(|error| UnpackError::Damaged(error.to_string()))?;
    let source = BufReader::with_capacity(CHUNK_BYTES, FileSource { file: archive, offset: 0 });
    if count == 2 && magic == [0x1f, 0x8b] {
        let packed = archive.size().map_err(|error| UnpackError::Damaged(error.to_string()))?;
        let allowed = packed.saturating_mul(MAX_RATIO).max(RATIO_FREE_BYTES);
        unpack_tar(files, MultiGzDecoder::new(source).take(allowed + 1), allowed, destination, strip)
    } else {
        unpack_tar(files, source.take(u64::MAX), u64::MAX, destination, strip)
    }
}

fn unpack_tar(
    files: &mut MountTable,
    source: io::Take<impl Read>,
    allowed: u64,
    destination: &GuestPath,
    strip: u32,
) -> Result<Unpacked, UnpackError> {
    let damaged = |error: io::Error| UnpackError::Damaged(error.to_string());
    let room = Cell::new(0);
    let mut archive = tar::Archive::new(HeaderBound { source, room: &room });
    let mut unpacked = Unpacked::default();
    let mut seen = BTreeSet::new();
    let mut number = 0;
    let mut entries = archive.entries().map_err(damaged)?;
    loop {
        room.set(MAX_HEADER_BYTES);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(damaged)?;
        room.set(u64::MAX);
        number += 1;
        let raw = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(&raw).escape_default().to_string();
        let bad_path = || UnpackError::BadPath { number, name: name.clone() };
        let Some(relative) = clean(&raw, strip).ok_or_else(bad_path)? else { continue };
        let write = |error| UnpackError::Write { number, name: name.clone(), error };
        let path =
            relative.iter().try_fold(destination.clone(), |path, part| path.join(part)).map_err(write)?;
        let kind = entry.header().entry_type();
        let repeats = !seen.insert(path.clone());
        if repeats && kind != EntryType::Directory {
            return Err(UnpackError::Duplicate { number, name });
        }
        make_parents(files, destination, &path).map_err(write)?;
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let how = OpenHow { write: true, create: true, exclusive: true, ..OpenHow::default() };
                let file = match files.open(&path, how).map_err(write)? {
                    Opened::File(file) => file,
                    Opened::Directory => return Err(write(Errno::ISDIR)),
                };
                let size = copy(&mut entry, &file, write)?;
                if entry.header().mode().map_err(damaged)? & 0o111 != 0 {
                    file.set_executable(true).map_err(write)?;
                }
                unpacked.bytes += size;
                if size != entry.size() {
                    return Err(UnpackError::Damaged(format!("entry {number} `{name}` is cut short")));
                }
            }
            EntryType::Directory => make_directory(files, &path).map_err(write)?,
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
                let shown = String::from_utf8_lossy(&target).escape_default().to_string();
                let bad_link = || UnpackError::BadLink { number, name: name.clone(), target: shown.clone() };
                if kind == EntryType::Symlink {
                    let target = std::str::from_utf8(&target).map_err(|_| bad_link())?;
                    if !stays_inside(&relative, target) {
                        return Err(bad_link());
                    }
                    files.create_symlink(&path, target).map_err(write)?;
                } else {
                    let source = clean(&target, strip).flatten().ok_or_else(bad_link)?;
                    let source = source
                        .iter()
                        .try_fold(destination.clone(), |path, part| path.join(part))
                        .map_err(|_| bad_link())?;
                    // Only a file of this very archive, so that no other file gets a second name.
                    if !seen.contains(&source) {
                        return Err(bad_link());
                    }
                    files.link(&source, &path).map_err(|_| bad_link())?;
                }
            }
            EntryType::XGlobalHeader => continue,
            EntryType::Fifo => return Err(UnpackError::BadType { number, name, kind: "FIFO" }),
            EntryType::Char | EntryType::Block => {
                return Err(UnpackError::BadType { number, name, kind: "device" });
            }
            EntryType::GNUSparse => return Err(UnpackError::BadType { number, name, kind: "sparse file" }),
            _ => return Err(UnpackError::BadType { number, name, kind: "entry of an unknown type" }),
        }
        unpacked.entries += 1;
    }
    drop(entries);
    let mut source = archive.into_inner().source;
    // Reads on to the end: trailing bytes count, and a checksum behind them is checked.
    io::copy(&mut source, &mut io::sink()).map_err(damaged)?;
    if source.limit() == 0 && allowed != u64::MAX {
        return Err(UnpackError::TooLarge);
    }
    Ok(unpacked)
}

/// Fails when more than `room` is read: between two entries that is little.
struct HeaderBound<'a, R> {
    source: R,
    room: &'a Cell<u64>,
}

impl<R: Read> Read for HeaderBound<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        match self.room.get().checked_sub(count as u64) {
            Some(left) => self.room.set(left),
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "a header is too long")),
        }
        Ok(count)
    }
}

fn copy(
    entry: &mut impl Read,
    file: &OpenFile,
    write: impl Fn(Errno) -> UnpackError,
) -> Result<u64, UnpackError> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        match entry.read(&mut buffer) {
            Ok(0) => return Ok(offset),
            Ok(count) => {
                file.write_at(&buffer[..count], offset).map_err(&write)?;
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(UnpackError::Damaged(error.to_string())),
        }
    }
}

/// The names of an entry's path without the first `strip`; `None` when the path
/// is not one we write, `Some(None)` when nothing is left of it.
#[expect(clippy::option_option, reason = "refused, nothing left, and a path are three answers")]
fn clean(path: &[u8], strip: u32) -> Option<Option<Vec<String>>> {
    let path = std::str::from_utf8(path).ok()?;
    if path.starts_with('/') || path.contains('\\') || path.chars().any(char::is_control) {
        return None;
    }
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => return None,
            name => names.push(name.to_owned()),
        }
    }
    let rest: Vec<String> = names.into_iter().skip(strip as usize).collect();
    Some((!rest.is_empty()).then_some(rest))
}

/// Whether a relative link at `path` points into the destination.
fn stays_inside(path: &[String], target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') || target.contains('\0') {
        return false;
    }
    let mut depth = path.len() - 1;
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

/// Makes the directories between `destination` and `path`; a link or a file on
/// the way is an error, never followed or replaced.
fn make_parents(files: &mut MountTable, destination: &GuestPath, path: &GuestPath) -> Result<(), Errno> {
    let mut missing = Vec::new();
    let mut current = path.parent();
    while let Some(directory) = current {
        if directory == *destination || files.kind(&directory)? == Some(NodeKind::Directory) {
            break;
        }
        current = directory.parent();
        missing.push(directory);
    }
    missing.into_iter().rev().try_for_each(|directory| make_directory(files, &directory))
}

fn make_directory(files: &mut MountTable, path: &GuestPath) -> Result<(), Errno> {
    match files.kind(path)? {
        None => files.create_directory(path),
        Some(NodeKind::Directory) => Ok(()),
        Some(_) => Err(Errno::NOTDIR),
    }
}
