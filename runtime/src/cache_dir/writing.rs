//! Writing the next cache beside the last one, and swapping the two.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{BACKUP, COMMITTED, CacheDir, CacheError, STAGING, file_name, is_verified, open_file};
use crate::cnb::cache_metadata::{CACHE_METADATA, CacheMetadata};
use crate::oci::digest::{DiffId, Hasher};

const BUFFER_BYTES: usize = 512 << 10;

/// The next cache, while it is written. Without [`NewCache::commit`] the last one stays.
#[derive(Debug)]
pub struct NewCache<'c> {
    cache: &'c CacheDir,
    staging: OwnedFd,
    /// `None` when there is no last one.
    committed: Option<OwnedFd>,
    /// Layers that were added; several may be on their way at a time.
    added: AtomicU64,
}

impl CacheDir {
    /// Begins the next cache, which is empty.
    ///
    /// # Errors
    /// When there is no place for it.
    pub fn begin(&self) -> Result<NewCache<'_>, CacheError> {
        let failed = |error: io::Error| self.failed(STAGING, error);
        self.remove(STAGING)?;
        rustix::fs::mkdirat(&self.root, STAGING, Mode::from_raw_mode(0o777))
            .map_err(|error| failed(error.into()))?;
        let staging = self.part(STAGING).map_err(failed)?;
        Ok(NewCache { cache: self, staging, committed: self.part(COMMITTED).ok(), added: AtomicU64::new(0) })
    }
}

impl NewCache<'_> {
    /// Takes a layer of the last cache over, after its digest was checked; `false`
    /// when it is not there or damaged and has to be written anew.
    ///
    /// # Errors
    /// When it is there and cannot be taken.
    ///
    /// # Spec
    /// CAC-05.
    pub fn reuse(&self, diff_id: &DiffId) -> Result<bool, CacheError> {
        let Ok(Some(layer)) = self.cache.layer(diff_id) else { return Ok(false) };
        let is_whole = layer.is_verified || read_to_end(layer.read()).is_ok();
        if is_whole { self.link(diff_id, diff_id) } else { Ok(false) }
    }

    /// Adds the layer that `fill` writes, and says its digest.
    ///
    /// What is written is compared with the layer `last` of the last cache: while it
    /// is the same nothing is written, and when all of it was, that file is taken
    /// over. So an unchanged layer costs one pass over its files, and no digest if
    /// the cached file was verified before.
    ///
    /// # Errors
    /// [`CacheError::Layer`] when `fill` or writing fails.
    pub fn add(
        &self,
        last: Option<&DiffId>,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<DiffId, CacheError> {
        let name = format!("incoming-{}", self.added.fetch_add(1, Ordering::Relaxed));
        let failed = |source| CacheError::Layer { path: self.cache.path.clone(), source };
        let state = match last.and_then(|diff_id| self.last(diff_id)) {
            Some(last) => {
                let hasher = (!last.is_verified).then(Hasher::default);
                State::Comparing { last, same: 0, hasher }
            }
            None => State::Writing { file: self.create(&name)?, hasher: Hasher::default() },
        };
        let incoming = Incoming { new: self, name: &name, scratch: Vec::new(), state };
        let mut incoming = BufWriter::with_capacity(BUFFER_BYTES, incoming);
        fill(&mut incoming).map_err(failed)?;
        let incoming = incoming.into_inner().map_err(|error| failed(error.into_error()))?;

        if let Some((last, diff_id)) = incoming.unchanged()
            && self.link(&last, &diff_id)?
        {
            return Ok(diff_id);
        }
        let diff_id = incoming.into_file().map_err(failed)?;
        rustix::fs::renameat(&self.staging, &name, &self.staging, file_name(&diff_id))
            .map_err(|error| failed(error.into()))?;
        Ok(diff_id)
    }

    /// Makes this the cache, with `metadata` to say what is in it.
    ///
    /// # Errors
    /// When the two cannot be swapped; the last one is still there then.
    ///
    /// # Spec
    /// CAC-02.
    pub fn commit(self, metadata: &CacheMetadata) -> Result<(), CacheError> {
        let root = &self.cache.root;
        let mut file = self.create(CACHE_METADATA)?;
        let json = metadata.to_json().map_err(io::Error::from);
        // The line break is the reference's.
        json.and_then(|json| file.write_all(format!("{json}\n").as_bytes()))
            .map_err(|error| self.cache.failed(CACHE_METADATA, error))?;
        match rustix::fs::renameat(root, COMMITTED, root, BACKUP) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(self.cache.failed(COMMITTED, error.into())),
        }
        if let Err(error) = rustix::fs::renameat(root, STAGING, root, COMMITTED) {
            let undone = rustix::fs::renameat(root, BACKUP, root, COMMITTED);
            return Err(self.cache.failed(STAGING, undone.err().unwrap_or(error).into()));
        }
        // What stays is removed when the directory is opened next.
        let _ = self.cache.remove(BACKUP);
        Ok(())
    }

    fn last(&self, diff_id: &DiffId) -> Option<Last> {
        let (file, status) = open_file(self.committed.as_ref()?.as_fd(), &file_name(diff_id)).ok()?;
        let is_verified = is_verified(&status, &diff_id.0);
        Some(Last { file, size: status.size, diff_id: diff_id.clone(), is_verified })
    }

    /// Gives the layer `from` of the last cache the name of `diff_id` in this one;
    /// `false` where that is not possible and it has to be written.
    fn link(&self, from: &DiffId, diff_id: &DiffId) -> Result<bool, CacheError> {
        let Some(committed) = &self.committed else { return Ok(false) };
        let (from, to) = (file_name(from), file_name(diff_id));
        match rustix::fs::linkat(committed, &from, &self.staging, &to, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(true),
            // Somebody else's file, too many names, or a file system without links.
            Err(Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOENT) => Ok(false),
            Err(error) => Err(self.cache.failed(&to, error.into())),
        }
    }

    fn create(&self, name: &str) -> Result<File, CacheError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(&self.staging, name, flags, Mode::from_raw_mode(0o666))
            .map(File::from)
            .map_err(|error| self.cache.failed(name, error.into()))
    }
}

fn read_to_end(mut reader: impl Read) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file of the last cache, to compare with.
struct Last {
    file: File,
    size: u64,
    diff_id: DiffId,
    /// Whether its digest is known to be the one of its name.
    is_verified: bool,
}

/// A layer on its way into the cache.
struct Incoming<'n> {
    new: &'n NewCache<'n>,
    /// While its digest is not known.
    name: &'n str,
    scratch: Vec<u8>,
    state: State,
}

enum State {
    Comparing {
        last: Last,
        /// Bytes that were the same so far.
        same: u64,
        /// Of those bytes; not needed when `last` is verified.
        hasher: Option<Hasher>,
    },
    Writing {
        file: File,
        hasher: Hasher,
    },
}

impl Incoming<'_> {
    /// The layer of the last cache that has exactly these bytes, and their digest.
    fn unchanged(&self) -> Option<(DiffId, DiffId)> {
        match &self.state {
            State::Comparing { last, same, hasher } if *same == last.size => {
                let digest = hasher.as_ref().map_or_else(|| last.diff_id.0.clone(), |h| h.clone().finish());
                Some((last.diff_id.clone(), DiffId(digest)))
            }
            _ => None,
        }
    }

    /// Stops comparing: what was the same becomes the beginning of a file.
    fn begin_file(&mut self) -> io::Result<(&mut File, &mut Hasher)> {
        if let State::Comparing { last, same, hasher } = &mut self.state {
            let mut file = self.new.create(self.name).map_err(io::Error::other)?;
            last.file.rewind()?;
            let mut beginning = (&last.file).take(*same);
            let (hasher, copied) = match hasher.take() {
                Some(hasher) => (hasher, io::copy(&mut beginning, &mut file)?),
                None => hash_and_copy(beginning, &mut file)?,
            };
            if copied != *same {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a cached layer changed while it was read",
                ));
            }
            self.state = State::Writing { file, hasher };
        }
        match &mut self.state {
            State::Writing { file, hasher } => Ok((file, hasher)),
            State::Comparing { .. } => unreachable!("it became a file above"),
        }
    }

    /// The digest of the file, which is written to its end.
    fn into_file(mut self) -> io::Result<DiffId> {
        let (_, hasher) = self.begin_file()?;
        Ok(DiffId(std::mem::take(hasher).finish()))
    }
}

impl Write for Incoming<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let State::Comparing { last, same, hasher } = &mut self.state {
            self.scratch.clear();
            (&last.file).take(bytes.len() as u64).read_to_end(&mut self.scratch)?;
            if self.scratch == bytes {
                if let Some(hasher) = hasher {
                    hasher.update(bytes);
                }
                *same += bytes.len() as u64;
                return Ok(bytes.len());
            }
        }
        let (file, hasher) = self.begin_file()?;
        file.write_all(bytes)?;
        hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hash_and_copy(mut from: impl Read, to: &mut File) -> io::Result<(Hasher, u64)> {
    let mut hasher = Hasher::default();
    let mut copied = 0;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok((hasher, copied)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
        copied += count as u64;
    }
}
