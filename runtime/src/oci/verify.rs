//! Reading bytes that should have a known digest, and reading them ahead of their use.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::digest::{Digest, Hasher};

/// The bytes do not have the digest they are kept under.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the contents have the digest `{actual}`, expected `{expected}`")]
pub struct WrongDigest {
    pub expected: Digest,
    pub actual: Digest,
}

/// A reader whose end is an error when what was read has the wrong digest.
///
/// The verdict comes last: whoever uses the bytes before has to be able to undo it.
#[derive(Debug)]
pub struct VerifyingReader<R> {
    inner: R,
    /// `None` once the end was reached.
    hasher: Option<Hasher>,
    expected: Digest,
}

impl<R: Read> VerifyingReader<R> {
    /// Reads `inner`, which should have the digest `expected`.
    pub fn new(inner: R, expected: Digest) -> Self {
        Self { inner, hasher: Some(Hasher::default()), expected }
    }

    /// What is read.
    pub fn inner(&self) -> &R {
        &self.inner
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    /// Fails with [`WrongDigest`] inside at the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..count]);
            }
        } else if !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            let actual = hasher.finish();
            if actual != self.expected {
                let expected = self.expected.clone();
                return Err(io::Error::new(io::ErrorKind::InvalidData, WrongDigest { expected, actual }));
            }
        }
        Ok(count)
    }
}

const CHUNK_BYTES: usize = 512 << 10;
/// Chunks that are read before they are needed.
const CHUNKS_AHEAD: usize = 6;

/// Reads on a thread of its own, so that what reading costs, such as a digest,
/// is paid while the bytes before are used.
#[derive(Debug)]
pub struct ReadAhead {
    chunks: Receiver<io::Result<Vec<u8>>>,
    /// Used chunks go back.
    spare: Sender<Vec<u8>>,
    current: Vec<u8>,
    used: usize,
    ended: bool,
}

impl ReadAhead {
    /// Starts reading. The thread ends with the reader, or soon after this is dropped.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(reader: impl Read + Send + 'static) -> io::Result<Self> {
        let (give, chunks) = sync_channel(CHUNKS_AHEAD);
        let (spare, take) = channel();
        std::thread::Builder::new().name("read-ahead".to_owned()).spawn(move || {
            read_all(reader, &give, &take);
        })?;
        Ok(Self { chunks, spare, current: Vec::new(), used: 0, ended: false })
    }
}

fn read_all(mut reader: impl Read, give: &SyncSender<io::Result<Vec<u8>>>, take: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = take.try_recv().unwrap_or_default();
        chunk.clear();
        let result = (&mut reader).take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
        let is_last = result.is_err() || chunk.is_empty();
        // What was read before an error comes before it.
        if !chunk.is_empty() && give.send(Ok(chunk)).is_err() {
            return;
        }
        if is_last {
            let _ = give.send(result.map(|_| Vec::new()));
            return;
        }
    }
}

impl BufRead for ReadAhead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.current.len() && !self.ended {
            // The thread may have ended already; then nobody wants the chunk.
            let _ = self.spare.send(std::mem::take(&mut self.current));
            self.used = 0;
            let chunk = self.chunks.recv().map_err(|_| io::Error::other("the reading thread ended early"));
            match chunk.flatten() {
                Ok(chunk) => {
                    self.ended = chunk.is_empty();
                    self.current = chunk;
                }
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok(&self.current[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    #[test]
    fn the_end_is_an_error_when_the_digest_is_wrong() {
        let good = VerifyingReader::new(b"abc".as_slice(), Digest::of(b"abc"));
        assert_eq!(io::read_to_string(good).unwrap(), "abc");
        let mut bad = VerifyingReader::new(b"abc".as_slice(), Digest::of(b"abd"));
        let mut buffer = [0; 8];
        assert_eq!(bad.read(&mut buffer).unwrap(), 3);
        let error = bad.read(&mut buffer).unwrap_err().downcast::<WrongDigest>().unwrap();
        assert_eq!((error.expected, error.actual), (Digest::of(b"abd"), Digest::of(b"abc")));
    }

    #[test]
    fn what_is_read_ahead_is_what_was_there() {
        for length in [0, 1, CHUNK_BYTES, CHUNK_BYTES * (CHUNKS_AHEAD + 3) + 7] {
            let expected = bytes(length);
            let mut read = Vec::new();
            let source = io::Cursor::new(expected.clone());
            ReadAhead::start(source).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == expected, "{length}");
        }
    }

    #[test]
    fn an_error_comes_after_what_was_read_before_it() {
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("broken"))?;
                let count = CHUNK_BYTES.min(buffer.len());
                Ok(count)
            }
        }
        let mut reader = ReadAhead::start(Broken(4)).unwrap();
        let mut read = Vec::new();
        let error = reader.read_to_end(&mut read).unwrap_err();
        assert_eq!(error.to_string(), "broken");
        assert!(!read.is_empty());
    }

    #[test]
    fn a_reader_nobody_wants_any_more_ends() {
        struct Endless {
            _alive: SyncSender<()>,
        }
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                Ok(buffer.len())
            }
        }
        let (alive, ended) = sync_channel(0);
        let mut reader = ReadAhead::start(Endless { _alive: alive }).unwrap();
        reader.fill_buf().unwrap();
        drop(reader);
        // The sender goes with the thread.
        assert!(ended.recv_timeout(std::time::Duration::from_secs(20)).is_err());
        assert_eq!(ended.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected));
    }
}
