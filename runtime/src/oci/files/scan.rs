//! From compressed layers to an index, in one pass over each.

use std::cell::Cell;
use std::collections::HashSet;
use std::convert::Infallible;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use tar::EntryType;

use super::{Contents, FileIndex, Node, Step, follow};
use crate::cancel::{Cancel, Cancelled};
use crate::oci::digest::{Digest, Hasher};
use crate::oci::image::{BlobFile, BlobPlace, Layer};
use crate::oci::layout::LayoutError;

/// Files, directories and links that an index may hold; a full Debian with a desktop has 300,000.
const MAX_ENTRIES: usize = 500_000;
/// Bytes of paths, names and links in an index; a full Debian has 30 MiB.
const MAX_TEXT_BYTES: u64 = 128 << 20;
/// Bytes that all layers together may have unpacked.
const MAX_BYTES: u64 = 32 << 30;
/// Bytes of headers between the contents of two entries: long names and the
/// like, which are read into memory.
const MAX_HEADER_BYTES: u64 = 256 << 10;
/// Larger programs are not looked into: their headers may be at both ends.
const MAX_PROGRAM_BYTES: u64 = 64 << 20;
/// Largest `ld.so.cache`; that of a full system has 200 KiB.
const MAX_CACHE_BYTES: u64 = 4 << 20;
/// Libraries that it may list, and the longest path of one.
const MAX_CACHE_ENTRIES: usize = 20_000;
const MAX_CACHE_PATH_BYTES: usize = 512;
/// Largest text that says where a loader looks.
const MAX_SETTING_BYTES: u64 = 64 << 10;
/// Bytes between two looks at whether to go on.
const CHUNK_BYTES: usize = 1 << 20;

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// Notes that an old union file system left; they are no files.
const WHITEOUT_NOTES: &str = ".wh..wh.";

/// A compressed layer to be read.
#[derive(Debug, Clone, Copy)]
pub struct LayerBlob<'a> {
    /// The file that it is in.
    pub path: &'a Path,
    /// Where in the file it begins.
    pub start: u64,
    pub digest: &'a Digest,
    pub size: u64,
}

impl<'a> LayerBlob<'a> {
    /// A layer of an image; `None` when it is not on this machine.
    #[must_use]
    pub fn of(layer: &'a Layer) -> Option<Self> {
        let start = match &layer.blob {
            BlobPlace::Part { start, .. } => *start,
            _ => 0,
        };
        Some(Self { path: layer.holder()?, start, digest: &layer.digest, size: layer.size })
    }
}

/// Why layers were not read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A blob is not what it should be.
    #[error(transparent)]
    Blob(#[from] LayoutError),
    /// Sound, but not to be looked into.
    #[error("cannot look into the layer `{}`: {reason}", path.display())]
    Unsupported { path: PathBuf, reason: String },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl FileIndex {
    /// Reads layers, the lowest first, and verifies each blob on the way.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn scan<'a>(
        layers: impl IntoIterator<Item = LayerBlob<'a>>,
        cancel: &Cancel,
    ) -> Result<Self, ScanError> {
        let mut index = Self::default();
        let budget = Budget { bytes: Cell::new(MAX_BYTES), text: Cell::new(MAX_TEXT_BYTES) };
        for layer in layers {
            let unreadable = |cause| LayoutError::UnreadableBlob { path: layer.path.to_owned(), cause };
            let file = std::fs::File::open(layer.path).map_err(unreadable)?;
            // A file of its own is read to its end, which shows whether it is too long.
            let size = if layer.start == 0 { u64::MAX } else { layer.size };
            let file = BlobFile::part(file, layer.start, size);
            let mut blob = Hashed { inner: file, hasher: Hasher::default(), bytes: 0 };
            let result = index.apply(&mut blob, &budget, cancel);
            cancel.check()?;
            // Damage explains everything else that went wrong.
            let rest = io::copy(&mut blob, &mut io::sink()).map_err(unreadable);
            rest?;
            let (actual, bytes) = (blob.hasher.finish(), blob.bytes);
            if bytes != layer.size {
                let (path, expected) = (layer.path.to_owned(), layer.size);
                return Err(LayoutError::WrongSize { path, expected, actual: bytes }.into());
            }
            if actual != *layer.digest {
                let (path, expected) = (layer.path.to_owned(), layer.digest.clone());
                return Err(LayoutError::WrongDigest { path, expected, actual }.into());
            }
            result.map_err(|error| ScanError::Unsupported {
                path: layer.path.to_owned(),
                reason: error.to_string(),
            })?;
        }
        Ok(index)
    }

    /// Puts one layer on top.
    fn apply(&mut self, blob: impl Read, budget: &Budget, cancel: &Cancel) -> io::Result<()> {
        let mut blob = BufReader::with_capacity(CHUNK_BYTES, blob);
        let magic: [u8; 4] = {
            let start = io::BufRead::fill_buf(&mut blob)?;
            let mut magic = [0; 4];
            let length = start.len().min(4);
            magic[..length].copy_from_slice(&start[..length]);
            magic
        };
        let refuse = |what: &str| Err(io::Error::new(io::ErrorKind::Unsupported, what));
        match magic {
            [0x1f, 0x8b, ..] => self.apply_tar(MultiGzDecoder::new(blob), budget, cancel),
            [0x28, 0xb5, 0x2f, 0xfd] => refuse("it is compressed with zstd"),
            _ => self.apply_tar(blob, budget, cancel),
        }
    }

    fn apply_tar(&mut self, tar: impl Read, budget: &Budget, cancel: &Cancel) -> io::Result<()> {
        let room = Cell::new(0);
        let mut archive =
            tar::Archive::new(Watched { inner: tar, room: &room, budget: &budget.bytes, cancel });
        let mut entries = archive.entries()?;
        let mut fresh = HashSet::new();
        loop {
            room.set(MAX_HEADER_BYTES);
            let Some(entry) = entries.next() else { return Ok(()) };
            let mut entry = entry?;
            room.set(u64::MAX);
            self.add(&mut entry, &mut fresh, &budget.text)?;
            if self.nodes.len() > MAX_ENTRIES {
                return Err(io::Error::other(format!("the image has more than {MAX_ENTRIES} files")));
            }
            // The rest of the contents, which would count as a header otherwise.
            io::copy(&mut entry, &mut io::sink())?;
        }
    }

    /// Adds one entry; `fresh` is what this layer has added so far.
    fn add(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        fresh: &mut HashSet<String>,
        text: &Cell<u64>,
    ) -> io::Result<()> {
        let name = entry.path_bytes();
        let Some((parent, name)) = std::str::from_utf8(&name).ok().and_then(split) else { return Ok(()) };
        let Some(directory) = self.make_parent(&parent, fresh) else { return Ok(()) };
        let join =
            |name: &str| if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        if name == OPAQUE {
            self.remove_below(&directory, fresh);
            return Ok(());
        }
        if name.starts_with(WHITEOUT_NOTES) {
            return Ok(());
        }
        if let Some(gone) = name.strip_prefix(WHITEOUT) {
            // R7: what is left has to be a name.
            if !matches!(gone, "" | "." | "..") {
                let gone = join(gone);
                self.remove_below(&gone, &HashSet::new());
                self.nodes.remove(&gone);
            }
            return Ok(());
        }
        let path = join(&name);
        let link_target = |entry: &tar::Entry<'_, _>| {
            entry.link_name_bytes().and_then(|target| String::from_utf8(target.into_owned()).ok())
        };
        let node = match entry.header().entry_type() {
            EntryType::Directory => Node::Directory,
            EntryType::Symlink => match link_target(entry) {
                Some(target) => Node::Link(target),
                None => return Ok(()),
            },
            EntryType::Link => {
                let target = link_target(entry).and_then(|target| self.follow(&target));
                match target.and_then(|target| self.get(&target).cloned()) {
                    Some(node @ Node::File { .. }) => node,
                    _ => return Ok(()),
                }
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let executable = entry.header().mode()? & 0o111 != 0;
                Node::File { executable, contents: contents(&path, entry)? }
            }
            _ => Node::File { executable: false, contents: Contents::Other },
        };
        spend(text, path.len() as u64 + weight(&node), "its files have too long names")?;
        self.insert(&path, node);
        fresh.insert(path);
        Ok(())
    }

    /// The directory that entries of `parent` end up in, made if it is not there.
    fn make_parent(&mut self, parent: &str, fresh: &mut HashSet<String>) -> Option<String> {
        let look = |path: &str| Ok::<_, Infallible>(Some(self.get(path).map_or(Step::Directory, Step::from)));
        let Ok(directory) = follow(parent, look);
        let directory = directory?;
        let ends = directory.match_indices('/').map(|(end, _)| end).chain([directory.len()]);
        for end in ends.filter(|end| *end > 0) {
            let path = &directory[..end];
            match self.get(path) {
                Some(Node::Directory) => {}
                Some(_) => return None,
                None => {
                    self.insert(path, Node::Directory);
                    fresh.insert(path.to_owned());
                }
            }
        }
        Some(directory)
    }

    fn follow(&self, path: &str) -> Option<String> {
        let Ok(found) = follow(path, |path| Ok::<_, Infallible>(self.get(path).map(Step::from)));
        found
    }
}

/// Parent and name, without empty and `.` parts; `..` stops at the root.
fn split(path: &str) -> Option<(String, String)> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let name = parts.pop()?;
    Some((parts.join("/"), name.to_owned()))
}

/// Looks into a file that streams by.
fn contents(path: &str, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Contents> {
    let size = entry.size();
    let mut read = |limit: u64| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        entry.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    if path == "etc/ld.so.cache" && size <= MAX_CACHE_BYTES {
        return Ok(library_cache(&read(size)?).map_or(Contents::Other, Contents::LibraryCache));
    }
    if path.starts_with("etc/ld-musl-") && size <= MAX_SETTING_BYTES {
        let text = String::from_utf8(read(size)?);
        return Ok(text.map_or(Contents::Other, Contents::Text));
    }
    let mut bytes = read(super::SCRIPT_BYTES)?;
    if bytes.starts_with(&object::elf::ELFMAG) {
        if size > MAX_PROGRAM_BYTES {
            return Ok(Contents::Unread);
        }
        bytes.extend(read(size)?);
    }
    Contents::read(Cursor::new(bytes))
}

/// Names and paths in the cache of glibc's `ldconfig`; `None` when it is no such cache.
///
/// # Shape
/// ```text
/// "glibc-ld.so.cache1.1" · entries u32 · bytes of strings u32 · 20 bytes
/// entries × ( flags u32 · name u32 · path u32 · 12 bytes )
/// ```
/// Names and paths are offsets of strings that end with NUL, from the file's start.
pub(crate) fn library_cache(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    const HEADER_BYTES: usize = 48;
    const ENTRY_BYTES: usize = 24;
    /// On machines of both byte orders the numbers are the machine's own; all we know of are little-endian.
    fn number(bytes: &[u8], at: usize) -> Option<usize> {
        let number: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(number)).ok()
    }
    let string = |at: usize| {
        let bytes = bytes.get(at..)?;
        let end = bytes.iter().take(MAX_CACHE_PATH_BYTES).position(|&byte| byte == 0)?;
        String::from_utf8(bytes[..end].to_vec()).ok()
    };
    if !bytes.starts_with(b"glibc-ld.so.cache1.1") {
        return None;
    }
    let entries =
        bytes.get(HEADER_BYTES..)?.chunks_exact(ENTRY_BYTES).take(number(bytes, 20)?.min(MAX_CACHE_ENTRIES));
    entries.map(|entry| Some((string(number(entry, 4)?)?, string(number(entry, 8)?)?))).collect()
}

/// Bytes of text that a node holds.
fn weight(node: &Node) -> u64 {
    let bytes = match node {
        Node::Directory => 0,
        Node::Link(target) => target.len(),
        Node::File { contents, .. } => match contents {
            Contents::Unread | Contents::Other => 0,
            Contents::Elf(elf) => {
                let texts = [&elf.interpreter, &elf.rpath, &elf.runpath, &elf.soname];
                let texts = texts.into_iter().flatten().chain(&elf.needed);
                texts.map(String::len).sum()
            }
            Contents::Script(script) => {
                script.interpreter.len() + script.argument.as_ref().map_or(0, String::len)
            }
            Contents::LibraryCache(entries) => {
                entries.iter().map(|(name, path)| name.len() + path.len()).sum()
            }
            Contents::Text(text) => text.len(),
        },
    };
    bytes as u64
}

/// What is left to be read and to be kept.
struct Budget {
    bytes: Cell<u64>,
    text: Cell<u64>,
}

fn spend(budget: &Cell<u64>, amount: u64, what: &'static str) -> io::Result<()> {
    budget.set(budget.get().checked_sub(amount).ok_or_else(|| io::Error::other(what))?);
    Ok(())
}

/// Counts what goes by, and hashes it.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Ends when there is too much of anything, or when the build is to stop.
struct Watched<'a, R> {
    inner: R,
    /// What may be read until somebody sets it anew.
    room: &'a Cell<u64>,
    /// What may be read at all.
    budget: &'a Cell<u64>,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        let read = self.inner.read(buffer)? as u64;
        spend(self.room, read, "an entry has too long a header")?;
        spend(self.budget, read, "it unpacks to too much")?;
        Ok(usize::try_from(read).unwrap_or(buffer.len()))
    }
}
