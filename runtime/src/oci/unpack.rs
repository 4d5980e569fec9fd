//! Layers as files again, below one directory and nowhere else.
//!
//! A layer may come from hostile hands: everything goes through descriptors, from
//! a directory that the caller opened and without following a link, so no entry
//! leads out whatever stands in its name or on disk.
//!
//! # Spec
//! RST-08, RST-15 to RST-17.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io::{self, BufRead};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::digest::Digest;
use super::tar_reader::{Contents, TarEntry, TarError, TarKind, TarReader};

/// Bytes of a name, as the kernel takes them.
const MAX_NAME_BYTES: usize = 4000;

/// Why a layer was not unpacked, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error(transparent)]
    Tar(#[from] TarError),
    /// It is not what this layer may have.
    #[error("entry {number} `{}` of the layer is not below `{}`", name.escape_ascii(), below.escape_ascii())]
    Outside { number: u64, name: Vec<u8>, below: Vec<u8> },
    #[error("entry {number} `{}` of the layer is a hard link", name.escape_ascii())]
    HardLink { number: u64, name: Vec<u8> },
    #[error("entry {number} `{}` of the layer cannot be written", name.escape_ascii())]
    Write { number: u64, name: Vec<u8>, source: io::Error },
}

impl UnpackError {
    /// Whether the machine is at fault, and not the layer: no space, no rights.
    #[must_use]
    pub fn is_of_machine(&self) -> bool {
        let Self::Write { source, .. } = self else { return false };
        let of_layer = [
            Errno::EXIST,
            Errno::ILSEQ,
            Errno::INVAL,
            Errno::ISDIR,
            Errno::LOOP,
            Errno::NAMETOOLONG,
            Errno::NOTDIR,
            Errno::XDEV,
        ];
        Errno::from_io_error(source).is_none_or(|error| !of_layer.contains(&error))
    }
}

/// Where a layer is unpacked.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The open directory.
    pub root: BorrowedFd<'a>,
    /// What the directory is called in the layer: an absolute path.
    pub name: &'a [u8],
    /// The part of the directory that the layer may fill, relative to it. What is
    /// above may be in the layer, as directories.
    pub below: &'a [u8],
}

/// Unpacks `tar` and reads it to its end.
///
/// Owners and times are not applied. Directories that were not there get their
/// mode when everything is in them, files their exact mode; files that are there
/// are replaced, links are not. The answer is the [outline](TarReader::outline) of the tar.
///
/// # Errors
/// [`UnpackError`]; what was unpacked until then stays.
pub fn unpack(tar: impl BufRead, place: Place<'_>) -> Result<Digest, UnpackError> {
    let name: Vec<&[u8]> = parts_of(place.name).unwrap_or_default();
    let below: Vec<&[u8]> = parts_of(place.below).unwrap_or_default();
    let mut unpacking =
        Unpacking { root: place.root, current: None, known: BTreeSet::new(), made: Vec::new() };
    let mut tar = TarReader::new(tar);
    while let Some(entry) = tar.next_entry()? {
        let outside = || UnpackError::Outside {
            number: entry.number,
            name: entry.path.clone(),
            below: place.below.to_vec(),
        };
        let parts = parts_of(&entry.path).ok_or_else(outside)?;
        let is_directory = entry.kind == TarKind::Directory;
        let Some(inner) = strip(&parts, &name) else {
            // Parents of the directory are in every layer.
            if is_directory && strip(&name, &parts).is_some() {
                continue;
            }
            return Err(outside());
        };
        let is_above = strip(&below, inner).is_some();
        if strip(inner, &below).is_none() && !(is_directory && is_above) {
            return Err(outside());
        }
        if inner.is_empty() {
            if is_directory {
                continue;
            }
            return Err(outside());
        }
        unpacking.add(&entry, inner, &mut tar.contents())?;
    }
    unpacking.set_modes()?;
    Ok(tar.outline())
}

/// The names of a path, absolute or not; `None` when it has a `..` or cannot be one.
fn parts_of(path: &[u8]) -> Option<Vec<&[u8]>> {
    if path.len() > MAX_NAME_BYTES || path.contains(&0) {
        return None;
    }
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.map(|part| Some(part).filter(|part| *part != b"..")).collect()
}

/// What follows `prefix` in a path.
fn strip<'a, 'p>(parts: &'a [&'p [u8]], prefix: &[&[u8]]) -> Option<&'a [&'p [u8]]> {
    let (start, rest) = parts.split_at_checked(prefix.len())?;
    (start == prefix).then_some(rest)
}

struct Unpacking<'a> {
    root: BorrowedFd<'a>,
    /// The directory that was written to last.
    current: Option<(Vec<u8>, OwnedFd)>,
    /// Directories that are there, ours or not.
    known: BTreeSet<Vec<u8>>,
    /// Directories that were made and have a header, parents first.
    made: Vec<Made>,
}

struct Made {
    number: u64,
    path: Vec<u8>,
    mode: Mode,
}

impl Unpacking<'_> {
    fn add<R: BufRead>(
        &mut self,
        entry: &TarEntry,
        parts: &[&[u8]],
        contents: &mut Contents<'_, R>,
    ) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Write { number: entry.number, name: entry.path.clone(), source };
        let mode = Mode::from_raw_mode(entry.mode.unwrap_or(0o755) & 0o7777);
        let Some((last, above)) = parts.split_last() else { return Ok(()) };
        let name = CString::new(*last).map_err(|error| failed(error.into()))?;
        match &entry.kind {
            TarKind::HardLink(_) => {
                return Err(UnpackError::HardLink { number: entry.number, name: entry.path.clone() });
            }
            TarKind::Directory => {
                let is_new = self
                    .make_directory(parts, without_special(mode) | Mode::RWXU)
                    .map_err(|error| failed(error.into()))?;
                if is_new {
                    self.made.push(Made { number: entry.number, path: parts.join(&b'/'), mode });
                }
            }
            TarKind::Symlink(target) => {
                let target = CString::new(target.as_slice()).map_err(|error| failed(error.into()))?;
                let parent = self.directory(above).map_err(|error| failed(error.into()))?;
                rustix::fs::symlinkat(&target, parent, &name).map_err(|error| failed(error.into()))?;
            }
            TarKind::File => {
                let parent = self.directory(above).map_err(|error| failed(error.into()))?;
                let file = create_file(parent, &name, mode).map_err(|error| failed(error.into()))?;
                while contents.left() > 0 {
                    let chunk = contents.fill_buf().map_err(TarError::Read)?;
                    if chunk.is_empty() {
                        let what = format!("entry {} is cut short", entry.number);
                        return Err(TarError::Damaged(what).into());
                    }
                    let written = match rustix::io::write(&file, chunk) {
                        Err(Errno::INTR) => continue,
                        written => written.map_err(|error| failed(error.into()))?,
                    };
                    contents.consume(written);
                }
                set_mode(&file, mode).map_err(|error| failed(error.into()))?;
            }
        }
        Ok(())
    }

    /// The open directory `parts`; what is missing of it is made.
    fn directory(&mut self, parts: &[&[u8]]) -> Result<BorrowedFd<'_>, Errno> {
        let path = parts.join(&b'/');
        let is_current = self.current.as_ref().is_some_and(|(current, _)| *current == path);
        if !is_current {
            if !path.is_empty() && !self.known.contains(&path) {
                // The umask of the process has the last word, as nothing else says anything.
                self.make_directory(parts, Mode::from_raw_mode(0o777))?;
            }
            self.current = Some((path.clone(), open_directory(self.root, &path, OFlags::PATH)?));
        }
        match &self.current {
            Some((_, directory)) => Ok(directory.as_fd()),
            None => Ok(self.root),
        }
    }

    /// Makes the directory `parts` and those above it; says whether it was not there.
    fn make_directory(&mut self, parts: &[&[u8]], mode: Mode) -> Result<bool, Errno> {
        let mut is_new = false;
        // Those above that are known need no look.
        let start = (1..parts.len()).rev().find(|end| self.known.contains(&parts[..*end].join(&b'/')));
        for end in start.map_or(1, |end| end + 1)..=parts.len() {
            let path = parts[..end].join(&b'/');
            let mode = if end == parts.len() { mode } else { Mode::from_raw_mode(0o777) };
            let parent = open_directory(self.root, &parts[..end - 1].join(&b'/'), OFlags::PATH)?;
            let name = CString::new(parts[end - 1]).map_err(|_| Errno::INVAL)?;
            is_new = match rustix::fs::mkdirat(&parent, &name, mode) {
                Ok(()) => true,
                Err(Errno::EXIST) => {
                    // A link or a file in its place is refused here.
                    open_directory(self.root, &path, OFlags::PATH)?;
                    false
                }
                Err(error) => return Err(error),
            };
            self.known.insert(path);
        }
        Ok(is_new)
    }

    /// Gives new directories their modes, children before their parents.
    fn set_modes(self) -> Result<(), UnpackError> {
        for made in self.made.iter().rev() {
            open_directory(self.root, &made.path, OFlags::RDONLY)
                .and_then(|directory| set_mode(&directory, made.mode))
                .map_err(|error| UnpackError::Write {
                    number: made.number,
                    name: made.path.clone(),
                    source: error.into(),
                })?;
        }
        Ok(())
    }
}

/// A mode without setuid, setgid and sticky: those come with the contents.
fn without_special(mode: Mode) -> Mode {
    mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO)
}

/// Gives an open file its mode, unless the umask left it as it is: most files were
/// made with theirs, and each change is one more for the file system to write.
fn set_mode(file: &OwnedFd, mode: Mode) -> Result<(), Errno> {
    let is_right = Mode::from_raw_mode(rustix::fs::fstat(file)?.st_mode) == mode;
    if is_right { Ok(()) } else { rustix::fs::fchmod(file, mode) }
}

/// Makes a file, with as much of `mode` as it may have before its contents; one that
/// is there, or a link, gives way.
fn create_file(parent: BorrowedFd<'_>, name: &CString, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let create = || rustix::fs::openat(parent, name, flags, without_special(mode));
    match create() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
            create()
        }
        result => result,
    }
}

/// Opens a directory below `root`; no part of it may be a link or lead out of `root`.
fn open_directory(root: BorrowedFd<'_>, path: &[u8], how: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path.is_empty() { b".".as_slice() } else { path };
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    let flags = how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(root, &path, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests;
