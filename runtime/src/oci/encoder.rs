//! How the tar of a layer becomes a blob: gzip or zstd, the same bytes on every machine.
//!
//! The tar is cut into blocks of one mebibyte, at fixed offsets. Each is compressed on
//! its own, and the results stand one behind the other: a gzip member or a zstd frame
//! for each block. So nothing but the input decides where the cuts are and what
//! comes out, one large layer keeps all cores busy, and memory stays what it is however
//! large the layer.
//!
//! **Why many members.** RFC 1952 (2.2) says that a gzip file is a series of members,
//! RFC 8878 (3) the same of frames. The layers of eStargz and zstd:chunked are such
//! series, of a member or frame for each file and more, and so are packages for Alpine; every container
//! engine, registry and image tool that we tried reads them. Readers that stopped after
//! the first member have existed and were mended; none goes unnoticed, because the digest
//! of the whole tar is in the image's configuration. One member for all blocks would
//! need an encoder that can pause between them, and those pay for it: at the
//! size libdeflate makes at its fastest level, zlib-rs takes half as long again.
//!
//! **Why a mebibyte.** A block knows nothing of the one before. With gzip, whose memory
//! is 32 KiB, that costs 0.2 % against blocks of 4 MiB, and half a mebibyte costs as
//! much again. With zstd it is 1 % at level 1 and 5 % at level 3; larger blocks would
//! multiply the memory by as much, and leave smaller layers to one core.

mod block;
mod pool;

use std::fmt;
use std::str::FromStr;

use oci_spec::image::MediaType;

use super::image::MediaFamily;

pub use self::pool::{Encoders, EncodingWriter};

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    #[default]
    Gzip,
    Zstd(ZstdLevel),
}

/// How hard zstd tries: 1 to 19.
///
/// # Units
/// Each thread that compresses takes about 1 MiB at level 1, 3 MiB at level 3 and 20 MiB at level 19.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZstdLevel(u8);

impl ZstdLevel {
    const MAX: u8 = 19;

    /// A level; `None` when there is none of that number.
    #[must_use]
    pub fn new(level: u8) -> Option<Self> {
        (1..=Self::MAX).contains(&level).then_some(Self(level))
    }
}

/// Zstd's own.
impl Default for ZstdLevel {
    fn default() -> Self {
        Self(3)
    }
}

impl Encoding {
    /// Names everything that decides what bytes come out: whoever keeps compressed
    /// blobs must not take one made by another encoder for one of this.
    ///
    /// # Shape
    /// Format of the stream, library with version, level. Tests compare it with
    /// `Cargo.lock` and with known results.
    #[must_use]
    pub fn id(self) -> String {
        match self {
            Self::Gzip => "gzip-1m-members-1;libdeflate-sys-1.26.1;1".to_owned(),
            Self::Zstd(level) => format!("zstd-1m-frames-1;zstd-sys-2.1.2+zstd.1.5.7;{}", level.0),
        }
    }

    /// What a layer that is compressed like this is called in an image of a family; `None`
    /// when who reads that family need not be able to unpack it.
    #[must_use]
    pub fn media_type(self, family: MediaFamily) -> Option<MediaType> {
        match (self, family) {
            (Self::Gzip, family) => Some(family.layer()),
            (Self::Zstd(_), MediaFamily::Oci) => Some(MediaType::ImageLayerZstd),
            (Self::Zstd(_), MediaFamily::Docker) => None,
        }
    }
}

/// `gzip`, `zstd` or `zstd:LEVEL`.
impl fmt::Display for Encoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gzip => formatter.write_str("gzip"),
            Self::Zstd(level) => write!(formatter, "zstd:{}", level.0),
        }
    }
}

/// A text that names no encoding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEncoding {
    #[error("it is neither `gzip` nor `zstd`, nor `zstd:` and a level from 1 to {}", ZstdLevel::MAX)]
    Name,
    #[error("the levels of zstd go from 1 to {}", ZstdLevel::MAX)]
    Level,
    #[error("gzip has one level; leave it out")]
    GzipLevel,
}

impl FromStr for Encoding {
    type Err = InvalidEncoding;

    fn from_str(text: &str) -> Result<Self, InvalidEncoding> {
        match text.split_once(':') {
            None if text == "gzip" => Ok(Self::Gzip),
            None if text == "zstd" => Ok(Self::Zstd(ZstdLevel::default())),
            Some(("gzip", _)) => Err(InvalidEncoding::GzipLevel),
            Some(("zstd", level)) => {
                let is_number = level.bytes().all(|byte| byte.is_ascii_digit()) && !level.starts_with('0');
                let level = level.parse().ok().filter(|_| is_number).and_then(ZstdLevel::new);
                level.map(Self::Zstd).ok_or(InvalidEncoding::Level)
            }
            _ => Err(InvalidEncoding::Name),
        }
    }
}

#[cfg(test)]
mod tests;
