//! Unpacking an archive into a guest's directories.
//!
//! The archive is hostile. What could be read in two ways is refused rather than
//! guessed, every path is checked before anything is written, nothing goes through
//! a link, and what is written is charged to the guest's quota.
//!
//! [`formats`] tells what an archive is and decompresses it, [`TarReader`] and [`zip`]
//! read entries, [`extraction`] decides what becomes of each, and [`destination`]
//! writes them.

mod destination;
mod entry;
mod extraction;
mod formats;
#[cfg(test)]
mod tests;
mod zip;

use std::io::{self, BufRead, BufReader};
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;

use rustix::io::Errno;

pub(super) use destination::{Destination, SharedTable};

use crate::oci::tar_reader::{TarError, TarKind, TarReader};

use super::bindings::buildpack::wapack::buildpack::files::UnpackOptions;
use entry::{Entry, Kind, shown};
use extraction::Extraction;
use formats::{ArchiveFile, Format};

/// Bytes copied at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Output a compressed archive may have before its ratio counts.
const RATIO_FREE_BYTES: u64 = 64 * 1024 * 1024;
/// Output per input byte past that; honest archives stay far below.
const MAX_RATIO: u64 = 200;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("entry {number} `{name}` has a path that leaves the destination, or is none")]
    BadPath { number: u64, name: String },
    #[error("entry {number} `{name}` links to `{target}`, outside the destination or missing")]
    BadLink { number: u64, name: String, target: String },
    #[error("entry {number} `{name}` is a {kind}")]
    BadType { number: u64, name: String, kind: &'static str },
    #[error("entry {number} `{name}` is there twice, and not the same")]
    Duplicate { number: u64, name: String },
    #[error("`{0}` is no file name to rename to")]
    BadRename(String),
    #[error("the archive {0}")]
    TooLarge(String),
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    #[error("the archive {0}, which is not supported")]
    Unsupported(String),
    #[error("entry {number} `{name}` cannot be written: {error}")]
    Write { number: u64, name: String, error: Errno },
    /// Somebody else failed; nobody gets to see this one.
    #[error("unpacking was stopped")]
    Stopped,
}

impl UnpackError {
    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::BadPath { .. } => "archive.bad_path",
            Self::BadLink { .. } => "archive.bad_link",
            Self::BadType { .. } => "archive.bad_type",
            Self::Duplicate { .. } => "archive.duplicate",
            Self::BadRename(_) => "archive.bad_rename",
            Self::TooLarge(_) => "archive.too_large",
            Self::Damaged(_) => "archive.damaged",
            Self::Unsupported(_) => "archive.unsupported",
            Self::Write { error: Errno::DQUOT, .. } => "guest.disk_limit",
            Self::Write { .. } => "archive.write_failed",
            Self::Stopped => "archive.stopped",
        }
    }

    /// A failed read of the archive. Decoders say more than "damaged" in their own error.
    fn read(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(ours) => ours,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Damaged("it is cut short".to_owned())
            }
            Err(error) => Self::Damaged(error.to_string()),
        }
    }

    /// Passes through a reader.
    fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, self)
    }
}

/// What was unpacked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unpacked {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Unpacks the regular file `archive`. Ends soon after `stop` is set, with [`UnpackError::Stopped`].
pub(super) fn unpack(
    archive: BorrowedFd<'_>,
    destination: Destination<'_, '_>,
    options: &UnpackOptions,
    stop: &AtomicBool,
) -> Result<Unpacked, UnpackError> {
    let mut extraction = Extraction::new(destination, options, stop)?;
    let archive = ArchiveFile::new(archive).map_err(UnpackError::read)?;
    match Format::of(archive)? {
        Format::Zip => zip::unpack(archive, &mut extraction)?,
        packed => {
            let source = formats::decode(packed, archive);
            unpack_tar(BufReader::with_capacity(CHUNK_BYTES, source), &mut extraction)?;
        }
    }
    Ok(extraction.unpacked())
}

fn unpack_tar(source: impl BufRead, extraction: &mut Extraction<'_, '_, '_>) -> Result<(), UnpackError> {
    let mut tar = TarReader::new(source);
    while let Some(entry) = tar.next_entry()? {
        let kind = match entry.kind {
            TarKind::File => Kind::File { size: entry.size, mode: entry.mode.unwrap_or(0) },
            TarKind::Directory => Kind::Directory,
            TarKind::Symlink(target) => Kind::Symlink(target),
            TarKind::HardLink(target) => Kind::HardLink(target),
        };
        let entry = Entry { number: entry.number, path: entry.path, kind };
        extraction.add(&entry, &mut tar.contents())?;
    }
    Ok(())
}

impl From<TarError> for UnpackError {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Read(error) => Self::read(error),
            TarError::NoTar => Self::Damaged("it is no tar, gzip, xz, zstd or zip archive".to_owned()),
            TarError::Damaged(what) => Self::Damaged(what),
            TarError::BadType { number, path, kind } => Self::BadType { number, name: shown(&path), kind },
        }
    }
}
