//! A gzip encoder whose bytes depend on its input and on nothing else.
//!
//! The input is cut into blocks of one mebibyte. Each is compressed on its own,
//! with the last 32 KiB of the block before as dictionary, and ends on a byte
//! boundary; the blocks in a row are one deflate stream, and so one gzip
//! member. Where the cuts are does not depend on how many threads work on them.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress};

/// Names everything that decides what bytes come out: whoever keeps compressed
/// blobs must not take one made by another encoder for one of this.
///
/// # Shape
/// Format of the stream, crate with version, level. A test compares it with
/// `Cargo.lock` and with a known result.
pub const ENCODER: &str = "gzip-1m-2;zlib-rs-0.6.8;6";

const LEVEL: u32 = 6;
const BLOCK_BYTES: usize = 1 << 20;
const DICTIONARY_BYTES: usize = 32 << 10;
const MAX_THREADS: usize = 8;

/// No file name, time 0, operating system unknown (RFC 1952).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block: every block before ends with a flush, not with the stream.
const END_OF_STREAM: [u8; 2] = [0x03, 0x00];

struct Job {
    block: Vec<u8>,
    dictionary: Vec<u8>,
    result: Sender<io::Result<CompressedBlock>>,
}

struct CompressedBlock {
    bytes: Vec<u8>,
    checksum: Crc,
}

/// Compresses what is written to it into one gzip member.
///
/// # Units
/// Holds at most about two blocks of one mebibyte for each thread; there are as
/// many threads as the machine has cores, at most eight, and none for input of
/// less than a block.
pub struct GzipWriter<W> {
    inner: W,
    block: Vec<u8>,
    dictionary: Vec<u8>,
    checksum: Crc,
    max_threads: usize,
    threads: Option<Threads>,
    pending: VecDeque<Receiver<io::Result<CompressedBlock>>>,
}

impl<W: Write> GzipWriter<W> {
    /// Writes the compressed bytes to `inner`.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn new(inner: W) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::with_threads(inner, cores.min(MAX_THREADS))
    }

    fn with_threads(mut inner: W, max_threads: usize) -> io::Result<Self> {
        inner.write_all(&HEADER)?;
        Ok(Self {
            inner,
            block: Vec::new(),
            dictionary: Vec::new(),
            checksum: Crc::new(),
            max_threads,
            threads: None,
            pending: VecDeque::new(),
        })
    }

    /// Ends the member and gives the inner writer back.
    ///
    /// # Errors
    /// When the rest cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            let block = std::mem::take(&mut self.block);
            if self.threads.is_none() {
                let dictionary = std::mem::take(&mut self.dictionary);
                let compressed = compress_block(&block, &dictionary)?;
                self.write_block(&compressed)?;
            } else {
                self.submit(block)?;
            }
        }
        while let Some(result) = self.pending.pop_front() {
            self.write_result(&result)?;
        }
        self.inner.write_all(&END_OF_STREAM)?;
        self.inner.write_all(&self.checksum.sum().to_le_bytes())?;
        self.inner.write_all(&self.checksum.amount().to_le_bytes())?;
        Ok(self.inner)
    }

    /// Hands a full block to the threads; waits for the oldest one when all have enough to do.
    fn submit(&mut self, block: Vec<u8>) -> io::Result<()> {
        let max_threads = self.max_threads;
        if self.pending.len() > max_threads
            && let Some(oldest) = self.pending.pop_front()
        {
            self.write_result(&oldest)?;
        }
        let next_dictionary = block[block.len().saturating_sub(DICTIONARY_BYTES)..].to_vec();
        let dictionary = std::mem::replace(&mut self.dictionary, next_dictionary);
        let (result, pending) = channel();
        let threads = match &mut self.threads {
            Some(threads) => threads,
            none => none.insert(Threads::start(max_threads)?),
        };
        threads.submit(Job { block, dictionary, result })?;
        self.pending.push_back(pending);
        Ok(())
    }

    fn write_result(&mut self, result: &Receiver<io::Result<CompressedBlock>>) -> io::Result<()> {
        let compressed =
            result.recv().map_err(|_| io::Error::other("a compressing thread ended early"))??;
        self.write_block(&compressed)
    }

    fn write_block(&mut self, compressed: &CompressedBlock) -> io::Result<()> {
        self.checksum.combine(&compressed.checksum);
        self.inner.write_all(&compressed.bytes)
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK_BYTES {
            let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES));
            self.submit(block)?;
        }
        Ok(taken)
    }

    /// Does nothing: where blocks end must not depend on who flushes when.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The threads that compress; dropping it ends them.
struct Threads {
    jobs: Option<SyncSender<Job>>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(count: usize) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(count);
        let queue = Arc::new(Mutex::new(queue));
        let handles = (0..count.max(1))
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::Builder::new().name("gzip".to_owned()).spawn(move || work(&queue))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { jobs: Some(jobs), handles })
    }

    fn submit(&self, job: Job) -> io::Result<()> {
        let jobs = self.jobs.as_ref().expect("the queue is open until it is dropped");
        jobs.send(job).map_err(|_| io::Error::other("the compressing threads ended early"))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.jobs = None;
        for handle in self.handles.drain(..) {
            // A thread that panicked has already failed the block it worked on.
            let _ = handle.join();
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let Ok(queue) = queue.lock() else { return };
        let Ok(job) = queue.recv() else { return };
        drop(queue);
        let result = compress_block(&job.block, &job.dictionary);
        // Nobody waits for it any more when the writer failed.
        let _ = job.result.send(result);
    }
}

/// With a compressor of its own: one that is reset still knows something of the
/// block before, and which block that was depends on who was faster.
fn compress_block(block: &[u8], dictionary: &[u8]) -> io::Result<CompressedBlock> {
    let mut compressor = Compress::new(Compression::new(LEVEL), false);
    if !dictionary.is_empty() {
        compressor.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    let mut bytes = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let consumed = usize::try_from(compressor.total_in()).map_err(io::Error::other)?;
        compressor
            .compress_vec(&block[consumed..], &mut bytes, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        // Room left over means that the flush is complete.
        if compressor.total_in() == block.len() as u64 && bytes.len() < bytes.capacity() {
            break;
        }
        bytes.reserve(64 << 10);
    }
    let mut checksum = Crc::new();
    checksum.update(block);
    Ok(CompressedBlock { bytes, checksum })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::oci::digest::Digest;

    /// Half noise, half text, so that blocks differ in how well they compress.
    fn sample(bytes: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut data = Vec::with_capacity(bytes + 64);
        while data.len() < bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state & 1 == 0 {
                data.extend_from_slice(&state.to_le_bytes());
            } else {
                data.extend_from_slice(b"the quick brown fox jumps over the lazy dog");
            }
        }
        data.truncate(bytes);
        data
    }

    fn gzip(data: &[u8], threads: usize, piece: usize) -> Vec<u8> {
        let mut writer = GzipWriter::with_threads(Vec::new(), threads).unwrap();
        for part in data.chunks(piece) {
            writer.write_all(part).unwrap();
            writer.flush().unwrap();
        }
        writer.finish().unwrap()
    }

    fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} is needed for this test: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || stdin.write_all(&input).unwrap());
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        assert!(output.status.success(), "{command:?}: {}", output.status);
        output.stdout
    }

    #[test]
    fn outside_tools_read_it_back() {
        for bytes in [0, 1, 1024, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES + 77] {
            let data = sample(bytes);
            let compressed = gzip(&data, 2, 70_000);
            assert_eq!(run(Command::new("gzip").arg("-dc"), &compressed), data, "gzip, {bytes} bytes");
            let script = "import gzip,sys;sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))";
            assert_eq!(run(Command::new("python3").args(["-c", script]), &compressed), data, "{bytes} bytes");
            run(Command::new("gzip").arg("-t"), &compressed);
        }
    }

    #[test]
    fn it_is_one_member() {
        // `decompressobj` stops at the end of the first member.
        let script = "import sys,zlib;d=zlib.decompressobj(31);d.decompress(sys.stdin.buffer.read());\
                      print(d.eof,len(d.unused_data))";
        let compressed = gzip(&sample(3 * BLOCK_BYTES + 5), 2, BLOCK_BYTES);
        assert_eq!(run(Command::new("python3").args(["-c", script]), &compressed), b"True 0\n");
    }

    #[test]
    fn bytes_do_not_depend_on_threads_or_on_the_size_of_writes() {
        let data = sample(4 * BLOCK_BYTES + 123);
        let expected = gzip(&data, 1, data.len());
        for (threads, piece) in [(1, 1000), (2, 4096), (3, BLOCK_BYTES), (8, 999_983)] {
            assert_eq!(gzip(&data, threads, piece), expected, "{threads} threads, pieces of {piece}");
        }
    }

    /// IMG-12: with few letters at random, of which a compressor that was only reset makes something else.
    #[test]
    fn img_12_what_a_thread_compressed_before_leaves_no_trace() {
        let mut state = 1_u64;
        let mut letter = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b'a' + u8::try_from((state >> 33) % 4).unwrap()
        };
        let data: Vec<u8> = (0..3 * BLOCK_BYTES + 5).map(|_| letter()).collect();
        // Each block by a compressor that has seen nothing before.
        let alone = |block: &[u8], dictionary: &[u8]| {
            let mut compressor = Compress::new(Compression::new(LEVEL), false);
            if !dictionary.is_empty() {
                compressor.set_dictionary(dictionary).unwrap();
            }
            let mut bytes = Vec::with_capacity(2 * BLOCK_BYTES);
            compressor.compress_vec(block, &mut bytes, FlushCompress::Sync).unwrap();
            assert!(bytes.len() < bytes.capacity());
            bytes
        };
        let dictionary_of = |at: usize| &data[at.saturating_sub(DICTIONARY_BYTES)..at];
        let mut expected = HEADER.to_vec();
        for (number, block) in data.chunks(BLOCK_BYTES).enumerate() {
            expected.extend(alone(block, dictionary_of(number * BLOCK_BYTES)));
        }
        for threads in [1, 2, 3, 8] {
            let found = gzip(&data, threads, 4096);
            assert!(found[..expected.len()] == expected, "{threads} threads");
        }
    }

    #[test]
    fn the_header_is_fixed() {
        assert_eq!(gzip(b"", 1, 1)[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
    }

    #[test]
    fn it_compresses_across_blocks_and_stays_near_the_usual_ratio() {
        let data = sample(3 * BLOCK_BYTES);
        let usual = run(Command::new("gzip").args(["-6", "-nc"]), &data).len();
        let ours = gzip(&data, 2, 4096).len();
        assert!(ours < usual + usual / 20, "{ours} bytes, gzip -6 makes {usual}");
    }

    /// When this fails after an upgrade, [`ENCODER`] has to change with it.
    #[test]
    fn the_encoder_id_stands_for_these_bytes() {
        let compressed = gzip(&sample(BLOCK_BYTES + 4096), 2, 4096);
        let lock: toml::Table = toml::from_str(include_str!("../../../Cargo.lock")).unwrap();
        let packages = lock["package"].as_array().unwrap();
        let encoder = packages.iter().find(|package| package["name"].as_str() == Some("zlib-rs")).unwrap();
        assert_eq!(ENCODER, format!("gzip-1m-2;zlib-rs-{};{LEVEL}", encoder["version"].as_str().unwrap()));
        assert_eq!(
            Digest::of(&compressed).as_str(),
            "sha256:a08b75d4e797dcbd342eb958a44bdb3c70c4ed45f7bbfb9fe4d0e8b6dbdb4203"
        );
    }

    #[test]
    fn an_error_of_the_inner_writer_is_an_error() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.0 < bytes.len() {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.0 -= bytes.len();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = GzipWriter::with_threads(Full(100), 2).unwrap();
        let error = writer.write_all(&sample(8 * BLOCK_BYTES)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
