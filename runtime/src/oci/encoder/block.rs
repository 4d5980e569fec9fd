//! One block becomes one gzip member or one zstd frame.

use std::io;

use libdeflater::{CompressionLvl, Compressor};

use super::Encoding;

/// How much is compressed at once.
pub(super) const BLOCK_BYTES: usize = 1 << 20;
/// More than any encoder makes of a block that it cannot make smaller.
pub(super) const OUTPUT_BYTES: usize = BLOCK_BYTES + (BLOCK_BYTES >> 6);

/// The level of libdeflate: its fastest. Twice as fast as zlib-rs at level 6, and 6 % larger.
const GZIP_LEVEL: i32 = 1;

/// A compressor of blocks. What it made before leaves no trace in what it makes.
pub(super) struct Codec(Kind);

enum Kind {
    Gzip(Gzip),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Codec {
    pub(super) fn new(encoding: Encoding) -> io::Result<Self> {
        Ok(Self(match encoding {
            Encoding::Gzip => Kind::Gzip(Gzip::new()?),
            Encoding::Zstd(level) => Kind::Zstd(zstd::bulk::Compressor::new(level.0.into())?),
        }))
    }

    /// Compresses `block` into `output`, which has [`OUTPUT_BYTES`]; how much of it is used.
    pub(super) fn encode(&mut self, block: &[u8], output: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Gzip(gzip) => gzip.encode(block, output),
            Kind::Zstd(zstd) => zstd.compress_to_buffer(block, output),
        }
    }
}

struct Gzip {
    compressor: Compressor,
    /// Made when a block first looks as if it could not be compressed.
    probe: Option<zstd::bulk::Compressor<'static>>,
}

impl Gzip {
    fn new() -> io::Result<Self> {
        Ok(Self { compressor: compressor(GZIP_LEVEL)?, probe: None })
    }

    /// Looking for matches where there are none takes deflate longer than anything else,
    /// so a block of noise is stored as it is.
    fn encode(&mut self, block: &[u8], output: &mut [u8]) -> io::Result<usize> {
        let encoded = if looks_random(block) && !self.shrinks(block, output)? {
            compressor(0)?.gzip_compress(block, output)
        } else {
            self.compressor.gzip_compress(block, output)
        };
        encoded.map_err(io::Error::other)
    }

    /// Whether a block can be made smaller, asked of zstd: it sees matches too, and goes
    /// through noise twenty times as fast.
    fn shrinks(&mut self, block: &[u8], output: &mut [u8]) -> io::Result<bool> {
        let probe = match &mut self.probe {
            Some(probe) => probe,
            none => none.insert(zstd::bulk::Compressor::new(1)?),
        };
        Ok(probe.compress_to_buffer(block, output)? < block.len() - block.len() / 64)
    }
}

fn compressor(level: i32) -> io::Result<Compressor> {
    let level = CompressionLvl::new(level).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(Compressor::new(level))
}

const SAMPLES: usize = 16;
const SAMPLE_BYTES: usize = 4096;
/// Of noise it is 69,600 on average, of what gzip made up to 75,000, of text and programs
/// at least twice as much.
const RANDOM_SQUARES: u64 = 80_000;

/// Whether bytes are spread evenly in all of a few places of a block, as they are in
/// what was compressed or encrypted already. Blocks that are not full are no trouble.
fn looks_random(block: &[u8]) -> bool {
    block.len() == BLOCK_BYTES
        && block.chunks(BLOCK_BYTES / SAMPLES).all(|part| {
            let mut counts = [0_u64; 256];
            for byte in &part[..SAMPLE_BYTES] {
                counts[usize::from(*byte)] += 1;
            }
            counts.iter().map(|count| count * count).sum::<u64>() < RANDOM_SQUARES
        })
}
