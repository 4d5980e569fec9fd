//! Writing a tar archive of an image: beside its place first, and there in one step; into
//! a pipe or a device as it comes.
//!
//! Equal images make equal archives: nothing of the machine gets into one.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::Access;
use tar::{EntryType, Header};

use super::telling::Telling;
use crate::cancel::Cancel;
use crate::fault::{Diagnose, Fault, is_disk_full};
use crate::oci::compression::decompress;
use crate::oci::digest::Hasher;
use crate::oci::image::Layer;
use crate::oci::layout::LayoutError;
use crate::oci::moved::Moved;

const BUFFER_BYTES: usize = 256 << 10;
const BLOCK_BYTES: u64 = 512;

/// Why an archive could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("cannot use the archive `{}`", file.display())]
    Io { file: PathBuf, source: io::Error },
    #[error("the archive `{}` is not valid: {reason}", file.display())]
    Invalid { file: PathBuf, reason: String },
    /// An image has no name there, or one that archives cannot have.
    #[error("`{name}` cannot be the name of an image in an archive")]
    Name { name: String },
    /// A layer that is to go in.
    #[error(transparent)]
    Blob(#[from] LayoutError),
}

impl Diagnose for ArchiveError {
    fn id(&self) -> &'static str {
        match self {
            Self::Io { source, .. } if is_disk_full(source) => "host.disk_full",
            Self::Io { .. } => "archive.io",
            Self::Invalid { .. } => "archive.invalid",
            Self::Name { .. } => "archive.name",
            Self::Blob(error) => error.id(),
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Io { .. } => Fault::Environment,
            Self::Invalid { .. } | Self::Name { .. } => Fault::Caller,
            Self::Blob(error) => error.fault(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } if is_disk_full(source) => {
                Some("free some space, or name another place for the image".to_owned())
            }
            Self::Invalid { .. } => Some("make the archive again".to_owned()),
            Self::Name { .. } => Some("a name is written `my/app:1.0`".to_owned()),
            Self::Io { .. } => None,
            Self::Blob(error) => error.hint(),
        }
    }
}

/// An archive that is being written; it is gone unless it is finished.
pub(super) struct ArchiveFile<'a> {
    place: &'a Path,
    /// The file until it is finished, and what it is called then; nothing for a stream.
    rename: Option<Rename>,
    writer: BufWriter<File>,
    cancel: &'a Cancel,
    telling: Telling<'a>,
    moved: Moved,
}

struct Rename {
    from: PathBuf,
    to: PathBuf,
}

impl<'a> ArchiveFile<'a> {
    pub(super) fn create(
        place: &'a Path,
        cancel: &'a Cancel,
        telling: Telling<'a>,
    ) -> Result<Self, ArchiveError> {
        let failed = |source| ArchiveError::Io { file: place.to_owned(), source };
        let (file, rename) = if is_stream(place) {
            // What is there already, as with `>>`, stays.
            (fs::OpenOptions::new().append(true).open(place).map_err(failed)?, None)
        } else {
            // A link stays, and what it leads to is replaced.
            let to = where_it_leads(place);
            let name = to.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
            let name = format!(".wapack-{}-{}", std::process::id(), name.to_string_lossy());
            let from = to.with_file_name(name);
            (fs::File::create(&from).map_err(failed)?, Some(Rename { from, to }))
        };
        let writer = BufWriter::with_capacity(BUFFER_BYTES, file.into_parts().0);
        Ok(Self { place, rename, writer, cancel, telling, moved: Moved::default() })
    }

    pub(super) fn directory(&mut self, name: &str) -> Result<(), ArchiveError> {
        self.header(name, EntryType::Directory, 0o755, 0)
    }

    pub(super) fn document(&mut self, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.header(name, EntryType::Regular, 0o644, bytes.len() as u64)?;
        self.write(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// The blob of a layer, verified on the way.
    pub(super) fn blob(&mut self, name: &str, layer: &Layer) -> Result<(), ArchiveError> {
        let Some(holder) = layer.holder() else {
            return Err(LayoutError::NotHere { digest: layer.digest.clone() }.into());
        };
        let path = || holder.to_owned();
        let unreadable = |cause| LayoutError::UnreadableBlob { path: path(), cause };
        let mut source = layer.open().map_err(unreadable)?;
        self.header(name, EntryType::Regular, 0o644, layer.size)?;
        let (mut hasher, mut copied, mut buffer) = (Hasher::default(), 0, vec![0; BUFFER_BYTES]);
        loop {
            let read = source.read(&mut buffer).map_err(unreadable)?;
            copied += read as u64;
            if read == 0 || copied > layer.size {
                break;
            }
            hasher.update(&buffer[..read]);
            self.write(&buffer[..read])?;
            self.telling.add(read as u64);
        }
        if copied != layer.size {
            let error = LayoutError::WrongSize { path: path(), expected: layer.size, actual: copied };
            return Err(error.into());
        }
        let actual = hasher.finish();
        if actual != layer.digest {
            let expected = layer.digest.clone();
            return Err(LayoutError::WrongDigest { path: path(), expected, actual }.into());
        }
        self.moved += Moved::sent(layer.size);
        self.pad(layer.size)
    }

    /// The tar of a layer, without the compression of its blob; read twice, for an
    /// archive says first how long a file is.
    pub(super) fn unpacked(&mut self, name: &str, layer: &Layer) -> Result<(), ArchiveError> {
        let Some(holder) = layer.holder() else {
            return Err(LayoutError::NotHere { digest: layer.digest.clone() }.into());
        };
        let unreadable = |cause| LayoutError::UnreadableBlob { path: holder.to_owned(), cause };
        let open = || layer.open().and_then(decompress).map_err(unreadable);
        let size = io::copy(&mut open()?, &mut io::sink()).map_err(unreadable)?;
        self.header(name, EntryType::Regular, 0o644, size)?;
        let (mut tar, mut hasher, mut buffer) =
            (open()?.take(size), Hasher::default(), vec![0; BUFFER_BYTES]);
        loop {
            let read = tar.read(&mut buffer).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            self.write(&buffer[..read])?;
            self.telling.add(read as u64);
        }
        let actual = hasher.finish();
        if actual != layer.diff_id.0 {
            let (path, expected) = (holder.to_owned(), layer.diff_id.0.clone());
            return Err(LayoutError::WrongDigest { path, expected, actual }.into());
        }
        self.moved += Moved::sent(size);
        self.pad(size)
    }

    /// Gives the archive its name, when all of it is on the disk. What became of the layers.
    pub(super) fn finish(mut self) -> Result<Moved, ArchiveError> {
        self.write(&[0; 1024])?;
        let place = self.place;
        let failed = |source| ArchiveError::Io { file: place.to_owned(), source };
        self.writer.flush().map_err(failed)?;
        let Some(Rename { from, to }) = &self.rename else { return Ok(self.moved) };
        self.writer.get_ref().sync_all().map_err(failed)?;
        fs::rename(from, to).map_err(failed)?;
        let directory = parent(to).to_owned();
        self.rename = None;
        fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(self.moved)
    }

    fn header(&mut self, name: &str, kind: EntryType, mode: u32, size: u64) -> Result<(), ArchiveError> {
        let mut header = Header::new_gnu();
        header.set_path(name).map_err(|source| self.failed(source))?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<(), ArchiveError> {
        let missing = usize::try_from(size.next_multiple_of(BLOCK_BYTES) - size).unwrap_or_default();
        self.write(&[0; 512][..missing])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        if self.cancel.is_cancelled() {
            return Err(LayoutError::Cancelled { directory: self.place.to_owned() }.into());
        }
        self.writer.write_all(bytes).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> ArchiveError {
        ArchiveError::Io { file: self.place.to_owned(), source }
    }
}

impl Drop for ArchiveFile<'_> {
    fn drop(&mut self) {
        if let Some(Rename { from, .. }) = &self.rename {
            // Nothing to do about it.
            let _ = fs::remove_file(from);
        }
    }
}

/// Whether what is at `place` takes bytes and keeps none to read again: a pipe, a device,
/// or whatever an open file of a process is.
#[must_use]
pub fn is_stream(place: &Path) -> bool {
    let is_of_process = ["/proc", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"]
        .iter()
        .any(|directory| place.starts_with(directory));
    place.metadata().is_ok_and(|found| !found.is_dir() && (is_of_process || !found.is_file()))
}

/// Whether a file could be made or replaced at `place`; makes nothing.
pub(super) fn check_place(place: &Path) -> Result<(), ArchiveError> {
    let failed = |source| ArchiveError::Io { file: place.to_owned(), source };
    if place.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    if place.file_name().is_none() {
        return Err(failed(io::ErrorKind::InvalidFilename.into()));
    }
    let checked = if is_stream(place) {
        rustix::fs::access(place, Access::WRITE_OK)
    } else {
        rustix::fs::access(parent(&where_it_leads(place)), Access::WRITE_OK | Access::EXEC_OK)
    };
    checked.map_err(|errno| failed(errno.into()))
}

/// The place itself, or what a link there leads to, whether that is there or not.
fn where_it_leads(place: &Path) -> PathBuf {
    if let Ok(found) = fs::canonicalize(place) {
        return found;
    }
    match fs::read_link(place) {
        Ok(target) => parent(place).join(target),
        Err(_) => place.to_owned(),
    }
}

fn parent(place: &Path) -> &Path {
    place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests;
