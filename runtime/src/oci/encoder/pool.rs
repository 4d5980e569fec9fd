//! The threads that compress for all layers of an export together.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZero;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::Encoding;
use super::block::{BLOCK_BYTES, Codec, OUTPUT_BYTES};

/// More than this, and reading, writing and hashing take longer than compressing.
const MAX_THREADS: usize = 8;

/// Threads that compress, as many as the machine has cores but at most eight; shared by
/// all writers. They start when there is something to do, and end when this is dropped.
///
/// # Units
/// Memory is in buffers of a little over one mebibyte: at most two for each thread and two more
/// with blocks on their way from a writer through a thread and back, one for each thread
/// that is compressing, and two for each writer. With eight threads and eight writers
/// that is 42, with two and two 12. What the encoders themselves take comes on top.
#[derive(Debug)]
pub struct Encoders {
    pool: Arc<Pool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Pool {
    encoding: Encoding,
    max_threads: usize,
    state: Mutex<State>,
    /// There is a job, or there will be none any more.
    changed: Condvar,
    /// How many buffers there are, spare or not, is how many others have this too.
    count: Arc<()>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Blocks that a writer handed over and has not got back.
    in_flight: usize,
    started: usize,
    idle: usize,
    is_closed: bool,
    spare: Vec<Buffer>,
}

#[derive(Debug)]
struct Job {
    block: Buffer,
    result: Sender<io::Result<Buffer>>,
}

/// Room for a block, compressed or not.
#[derive(Debug)]
struct Buffer {
    /// All of [`OUTPUT_BYTES`].
    bytes: Vec<u8>,
    used: usize,
    /// One of these for each buffer there is.
    _counted: Arc<()>,
}

impl Buffer {
    fn contents(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl Encoders {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(encoding: Encoding) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::with_threads(encoding, cores.min(MAX_THREADS))
    }

    pub(super) fn with_threads(encoding: Encoding, max_threads: usize) -> Self {
        let pool = Pool {
            encoding,
            max_threads,
            state: Mutex::default(),
            changed: Condvar::new(),
            count: Arc::default(),
        };
        Self { pool: Arc::new(pool), threads: Mutex::default() }
    }

    /// How everything written through these is compressed.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.pool.encoding
    }

    /// Compresses what is written to it, and writes that to `inner`.
    pub fn writer<W: Write>(&self, inner: W) -> EncodingWriter<'_, W> {
        let pending = Pending { pool: &self.pool, results: VecDeque::new() };
        EncodingWriter { inner, encoders: self, block: None, pending, is_empty: true, codec: None }
    }

    /// One more thread, if all are busy and there may be more.
    fn start_thread(&self) -> io::Result<()> {
        {
            let mut state = self.pool.lock();
            if state.started == self.pool.max_threads || state.idle >= state.jobs.len() {
                return Ok(());
            }
            state.started += 1;
        }
        let pool = Arc::clone(&self.pool);
        let started = std::thread::Builder::new().name("compress".to_owned()).spawn(move || pool.work());
        match started {
            Ok(thread) => {
                self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
                Ok(())
            }
            Err(error) => {
                let mut state = self.pool.lock();
                state.started -= 1;
                // Slower, and no reason to fail, as long as there is another one.
                if state.started > 0 { Ok(()) } else { Err(error) }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn buffers(&self) -> usize {
        Arc::strong_count(&self.pool.count) - 1
    }
}

impl Drop for Encoders {
    fn drop(&mut self) {
        self.pool.close();
        for thread in self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A thread that panicked has already failed the block it worked on.
            let _ = thread.join();
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn buffer(&self) -> Buffer {
        if let Some(buffer) = self.lock().spare.pop() {
            return Buffer { used: 0, ..buffer };
        }
        Buffer { bytes: vec![0; OUTPUT_BYTES], used: 0, _counted: Arc::clone(&self.count) }
    }

    fn give_back(&self, buffer: Buffer) {
        self.lock().spare.push(buffer);
    }

    /// Takes one of the places for blocks on their way, if one is free.
    fn enter(&self) -> bool {
        let mut state = self.lock();
        let is_free = state.in_flight < 2 * self.max_threads + 2;
        state.in_flight += usize::from(is_free);
        is_free
    }

    fn leave(&self) {
        self.lock().in_flight -= 1;
    }

    /// Hands over a block that has a place. Nobody answers when the threads are gone.
    fn push(&self, job: Job) {
        let mut state = self.lock();
        if !state.is_closed {
            state.jobs.push_back(job);
            self.changed.notify_one();
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.jobs.clear();
        self.changed.notify_all();
    }

    /// What a thread does.
    fn work(&self) {
        let _guard = CloseOnPanic(self);
        let mut codec = None;
        while let Some(job) = self.next_job() {
            let result = self.encode(&mut codec, job.block);
            // Nobody waits for it any more when the writer failed.
            let _ = job.result.send(result);
        }
    }

    fn next_job(&self) -> Option<Job> {
        let mut state = self.lock();
        state.idle += 1;
        let job = loop {
            if state.is_closed {
                break None;
            }
            if let Some(job) = state.jobs.pop_front() {
                break Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.idle -= 1;
        job
    }

    fn encode(&self, codec: &mut Option<Codec>, block: Buffer) -> io::Result<Buffer> {
        let codec = match codec {
            Some(codec) => codec,
            none => none.insert(Codec::new(self.encoding)?),
        };
        let mut output = self.buffer();
        output.used = codec.encode(block.contents(), &mut output.bytes)?;
        self.give_back(block);
        Ok(output)
    }
}

/// Lets nobody wait for a thread that is gone.
struct CloseOnPanic<'a>(&'a Pool);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

/// Compresses what is written to it, block by block; made by [`Encoders::writer`].
///
/// A writer that finds no room among the threads compresses the block itself, so writers
/// never wait for each other.
pub struct EncodingWriter<'a, W> {
    inner: W,
    encoders: &'a Encoders,
    /// Being filled.
    block: Option<Buffer>,
    pending: Pending<'a>,
    /// Whether no block was full yet.
    is_empty: bool,
    codec: Option<Codec>,
}

impl<W: Write> EncodingWriter<'_, W> {
    /// Writes what is left, and gives the inner writer back.
    ///
    /// # Errors
    /// When it cannot be compressed or written.
    pub fn finish(mut self) -> io::Result<W> {
        match self.block.take() {
            // A thread would have to be woken, and there would be nothing else to do.
            Some(block) if self.is_empty => self.encode_here(block)?,
            Some(block) => self.submit(block)?,
            None if self.is_empty => {
                let nothing = self.pending.pool.buffer();
                self.encode_here(nothing)?;
            }
            None => {}
        }
        while let Some(result) = self.pending.oldest() {
            self.write_block(result?)?;
        }
        Ok(self.inner)
    }

    fn submit(&mut self, block: Buffer) -> io::Result<()> {
        self.is_empty = false;
        // Whatever is done gives a place and a buffer back.
        while let Some(result) = self.pending.oldest_if_done() {
            self.write_block(result?)?;
        }
        while !self.pending.pool.enter() {
            match self.pending.oldest() {
                Some(result) => self.write_block(result?)?,
                None => return self.encode_here(block),
            }
        }
        let (sender, result) = channel();
        self.pending.results.push_back(result);
        self.pending.pool.push(Job { block, result: sender });
        self.encoders.start_thread()
    }

    fn encode_here(&mut self, block: Buffer) -> io::Result<()> {
        let encoded = self.pending.pool.encode(&mut self.codec, block)?;
        self.write_block(encoded)
    }

    fn write_block(&mut self, block: Buffer) -> io::Result<()> {
        let written = self.inner.write_all(block.contents());
        self.pending.pool.give_back(block);
        written
    }
}

impl<W: Write> Write for EncodingWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let block = match &mut self.block {
            Some(block) => block,
            none => none.insert(self.pending.pool.buffer()),
        };
        let taken = bytes.len().min(BLOCK_BYTES - block.used);
        block.bytes[block.used..block.used + taken].copy_from_slice(&bytes[..taken]);
        block.used += taken;
        if block.used == BLOCK_BYTES
            && let Some(block) = self.block.take()
        {
            self.submit(block)?;
        }
        Ok(taken)
    }

    /// Does nothing: where blocks end must not depend on who flushes when.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The blocks of one writer that are on their way, in order.
struct Pending<'a> {
    pool: &'a Pool,
    results: VecDeque<Receiver<io::Result<Buffer>>>,
}

impl Pending<'_> {
    /// Waits for the first one; `None` when there is none.
    fn oldest(&mut self) -> Option<io::Result<Buffer>> {
        let result = self.results.pop_front()?.recv();
        self.pool.leave();
        Some(result.unwrap_or_else(|_| Err(gone())))
    }

    fn oldest_if_done(&mut self) -> Option<io::Result<Buffer>> {
        let result = match self.results.front()?.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(gone()),
        };
        self.results.pop_front();
        self.pool.leave();
        Some(result)
    }
}

impl Drop for Pending<'_> {
    /// What a writer that failed leaves behind goes back to the others.
    fn drop(&mut self) {
        while let Some(result) = self.oldest() {
            if let Ok(buffer) = result {
                self.pool.give_back(buffer);
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("a compressing thread ended early")
}
