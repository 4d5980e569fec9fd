//! What an archive is, by its first bytes, and its contents without compression.
//!
//! Decoders are bounded: in memory by the window they may ask for, in output by a
//! ratio to the archive's size. Nothing but zeros may stand behind the compressed data.

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::BorrowedFd;

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use rustix::fs::fstat;
use rustix::io::{Errno, pread};

use super::{CHUNK_BYTES, MAX_RATIO, RATIO_FREE_BYTES, UnpackError};
use crate::oci::compression::{MAX_WINDOW_BYTES, Zstd};

/// The formats there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Tar,
    Gzip,
    Xz,
    Zstd,
    Zip,
}

impl Format {
    /// Tells the format from the contents. Whatever is no other one has to be a tar.
    pub(super) fn of(archive: ArchiveFile<'_>) -> Result<Self, UnpackError> {
        let mut start = Vec::new();
        archive.reader(0, archive.size.min(6)).read_to_end(&mut start).map_err(UnpackError::read)?;
        Ok(match start.as_slice() {
            [] => return Err(UnpackError::Damaged("it is empty".to_owned())),
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            _ => Self::Tar,
        })
    }
}

/// The file an archive is in.
#[derive(Debug, Clone, Copy)]
pub(super) struct ArchiveFile<'a> {
    fd: BorrowedFd<'a>,
    pub(super) size: u64,
}

impl<'a> ArchiveFile<'a> {
    pub(super) fn new(fd: BorrowedFd<'a>) -> io::Result<Self> {
        let size = u64::try_from(fstat(fd)?.st_size).unwrap_or(0);
        Ok(Self { fd, size })
    }

    /// Reads `length` bytes from `start`.
    pub(super) fn reader(self, start: u64, length: u64) -> Part<'a> {
        Part { fd: self.fd, offset: start, end: start.saturating_add(length).min(self.size) }
    }
}

/// Reads a part of a file, whatever others read of it.
#[derive(Debug)]
pub(super) struct Part<'a> {
    fd: BorrowedFd<'a>,
    offset: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        loop {
            match pread(self.fd, &mut buffer[..length], self.offset) {
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The bytes of the tar in `archive`.
pub(super) fn decode<'a>(format: Format, archive: ArchiveFile<'a>) -> Box<dyn Read + 'a> {
    let source = archive.reader(0, archive.size);
    if format == Format::Tar {
        return Box::new(source);
    }
    let source = BufReader::with_capacity(CHUNK_BYTES, source);
    let left = allowed_output(archive.size);
    match format {
        Format::Gzip => Box::new(Bounded { source: Gzip::new(source), left }),
        Format::Xz => {
            // In KiB.
            let window = u32::try_from(MAX_WINDOW_BYTES / 1024).unwrap_or(u32::MAX);
            Box::new(Bounded { source: MemoryBound(XzReader::new_mem_limit(source, true, window)), left })
        }
        _ => Box::new(Bounded { source: MemoryBound(Zstd::new(source, only_zeros)), left }),
    }
}

/// What a compressed archive of `packed` bytes may become.
pub(super) fn allowed_output(packed: u64) -> u64 {
    packed.saturating_mul(MAX_RATIO).max(RATIO_FREE_BYTES)
}

pub(super) fn too_much_output() -> UnpackError {
    UnpackError::TooLarge(format!("expands to more than {MAX_RATIO} times its size"))
}

fn too_much_memory() -> UnpackError {
    let window = MAX_WINDOW_BYTES / 1024 / 1024;
    UnpackError::TooLarge(format!("takes more than {window} MiB of memory to unpack"))
}

/// Ends with an error once there is more than `left` bytes.
struct Bounded<R> {
    source: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(too_much_output().into_io()),
        }
        Ok(count)
    }
}

/// Fails unless nothing but zeros is left: archives are padded to the size of a tape's block.
fn only_zeros(source: &mut impl BufRead) -> io::Result<()> {
    loop {
        let rest = source.fill_buf()?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(UnpackError::Damaged("there is something behind its end".to_owned()).into_io());
        }
        match rest.len() {
            0 => return Ok(()),
            count => source.consume(count),
        }
    }
}

/// Any number of gzip members, one behind the other.
struct Gzip<R>(Member<R>);

enum Member<R> {
    Reading(Box<GzDecoder<R>>),
    /// Also while one state becomes the next.
    Ended,
}

impl<R: BufRead> Gzip<R> {
    fn new(source: R) -> Self {
        Self(Member::Reading(Box::new(GzDecoder::new(source))))
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Member::Reading(decoder) = &mut self.0 {
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Member::Reading(decoder) = std::mem::replace(&mut self.0, Member::Ended) else { break };
            let mut source = decoder.into_inner();
            match source.fill_buf()?.first() {
                None => break,
                Some(0) => only_zeros(&mut source)?,
                Some(_) => self.0 = Member::Reading(Box::new(GzDecoder::new(source))),
            }
        }
        Ok(0)
    }
}

/// Says which of a decoder's errors is about memory.
struct MemoryBound<R>(R);

impl<R: Read> Read for MemoryBound<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory => too_much_memory().into_io(),
            _ => error,
        })
    }
}
