//! `wasi:filesystem` over the mount table.
//!
//! Calls answer at once, on the guest's own thread: there is no pool of threads
//! a guest could fill. Times are one constant, so nothing a guest computes from
//! them can differ between two builds.

use std::sync::Arc;

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError};

use super::bindings::filesystem::wasi::filesystem::preopens;
use super::bindings::filesystem::wasi::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode, Filesize,
    MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use super::cell::Cell;
use super::filesystem::{GuestPath, Names, NodeKind, OpenFile, OpenHow, Opened, resolve};

/// Seconds since 1970 that every clock and every file shows: 1980-01-01T00:00:01Z.
pub(super) const CONSTANT_TIME: u64 = 315_532_801;
/// Last second that 32 bits hold: 2106-02-07.
const LAST_TIME: u64 = u32::MAX as u64;
/// Bytes one read gives at most; guests ask again for more.
const MAX_READ: u64 = 1024 * 1024;
/// Bytes a guest may write to a file stream before it asks again.
const WRITE_PERMIT: usize = 1024 * 1024;

/// An open file or directory of a guest.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it inside this crate")]
pub struct Descriptor {
    path: GuestPath,
    kind: DescriptorKind,
    writable: bool,
}

#[derive(Debug)]
enum DescriptorKind {
    Directory,
    File(Arc<OpenFile>),
}

/// What is left of a directory listing.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "as above")]
pub struct Listing(Names);

impl Descriptor {
    fn file(&self) -> Result<&Arc<OpenFile>, Errno> {
        match &self.kind {
            DescriptorKind::File(file) => Ok(file),
            DescriptorKind::Directory => Err(Errno::ISDIR),
        }
    }

    fn directory(&self) -> Result<&GuestPath, Errno> {
        match &self.kind {
            DescriptorKind::Directory => Ok(&self.path),
            DescriptorKind::File(_) => Err(Errno::NOTDIR),
        }
    }
}

impl Cell {
    fn descriptor(&self, descriptor: &Resource<Descriptor>) -> Result<&Descriptor, Errno> {
        self.table.get(descriptor).map_err(|_| Errno::BADF)
    }

    /// Resolves a path that a guest gave with a directory of its own.
    fn resolve(
        &self,
        directory: &Resource<Descriptor>,
        path: &str,
        follow: bool,
    ) -> Result<GuestPath, Errno> {
        resolve(&self.files, self.descriptor(directory)?.directory()?, path, follow)
    }
}

impl preopens::Host for Cell {
    /// One directory, `/`: everything below it is the mount table.
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let root = Descriptor { path: GuestPath::root(), kind: DescriptorKind::Directory, writable: true };
        Ok(vec![(self.table.push(root)?, "/".to_owned())])
    }
}

impl types::Host for Cell {
    fn convert_error_code(&mut self, error: Errno) -> wasmtime::Result<ErrorCode> {
        Ok(error_code(error))
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<Errno>().map(|error| error_code(*error)))
    }
}

impl types::HostDescriptor for Cell {
    fn read_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: Filesize,
    ) -> Result<Resource<wasmtime_wasi::p2::DynInputStream>, Errno> {
        let file = Arc::clone(self.descriptor(&descriptor)?.file()?);
        let stream: wasmtime_wasi::p2::DynInputStream = Box::new(FileReader { file, offset });
        self.table.push(stream).map_err(|_| Errno::MFILE)
    }

    fn write_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: Filesize,
    ) -> Result<Resource<wasmtime_wasi::p2::DynOutputStream>, Errno> {
        self.writer(&descriptor, Some(offset))
    }

    fn append_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
    ) -> Result<Resource<wasmtime_wasi::p2::DynOutputStream>, Errno> {
        self.writer(&descriptor, None)
    }

    fn advise(
        &mut self,
        descriptor: Resource<Descriptor>,
        _: Filesize,
        _: Filesize,
        _: Advice,
    ) -> Result<(), Errno> {
        self.descriptor(&descriptor).map(|_| ())
    }

    fn sync_data(&mut self, descriptor: Resource<Descriptor>) -> Result<(), Errno> {
        // Nothing a guest writes has to survive a crash; the store syncs what it keeps.
        self.descriptor(&descriptor).map(|_| ())
    }

    fn sync(&mut self, descriptor: Resource<Descriptor>) -> Result<(), Errno> {
        self.sync_data(descriptor)
    }

    fn get_flags(&mut self, descriptor: Resource<Descriptor>) -> Result<DescriptorFlags, Errno> {
        let descriptor = self.descriptor(&descriptor)?;
        Ok(match (&descriptor.kind, descriptor.writable) {
            (DescriptorKind::Directory, true) => DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY,
            (DescriptorKind::File(_), true) => DescriptorFlags::READ | DescriptorFlags::WRITE,
            (_, false) => DescriptorFlags::READ,
        })
    }

    fn get_type(&mut self, descriptor: Resource<Descriptor>) -> Result<DescriptorType, Errno> {
        Ok(match self.descriptor(&descriptor)?.kind {
            DescriptorKind::Directory => DescriptorType::Directory,
            DescriptorKind::File(_) => DescriptorType::RegularFile,
        })
    }

    fn set_size(&mut self, descriptor: Resource<Descriptor>, size: Filesize) -> Result<(), Errno> {
        self.descriptor(&descriptor)?.file()?.set_size(size)
    }

    fn set_times(
        &mut self,
        descriptor: Resource<Descriptor>,
        access: NewTimestamp,
        modification: NewTimestamp,
    ) -> Result<(), Errno> {
        check_times(access, modification)?;
        if self.descriptor(&descriptor)?.writable { Ok(()) } else { Err(Errno::ROFS) }
    }

    fn read(
        &mut self,
        descriptor: Resource<Descriptor>,
        length: Filesize,
        offset: Filesize,
    ) -> Result<(Vec<u8>, bool), Errno> {
        let file = self.descriptor(&descriptor)?.file()?;
        let mut buffer = vec![0; usize::try_from(length.min(MAX_READ)).unwrap_or(0)];
        let count = file.read_at(&mut buffer, offset)?;
        buffer.truncate(count);
        let at_end = count == 0 && length > 0;
        Ok((buffer, at_end))
    }

    fn write(
        &mut self,
        descriptor: Resource<Descriptor>,
        bytes: Vec<u8>,
        offset: Filesize,
    ) -> Result<Filesize, Errno> {
        self.descriptor(&descriptor)?.file()?.write_at(&bytes, offset)?;
        Ok(bytes.len() as u64)
    }

    fn read_directory(&mut self, descriptor: Resource<Descriptor>) -> Result<Resource<Listing>, Errno> {
        let listing = self.files.list(self.descriptor(&descriptor)?.directory()?)?;
        self.table.push(Listing(listing)).map_err(|_| Errno::MFILE)
    }

    fn create_directory_at(&mut self, directory: Resource<Descriptor>, path: String) -> Result<(), Errno> {
        let path = self.resolve(&directory, path.trim_end_matches('/'), false)?;
        self.files.create_directory(&path)
    }

    fn stat(&mut self, descriptor: Resource<Descriptor>) -> Result<DescriptorStat, Errno> {
        match &self.descriptor(&descriptor)?.kind {
            DescriptorKind::Directory => Ok(stat_of(NodeKind::Directory)),
            DescriptorKind::File(file) => Ok(stat_of(NodeKind::File { size: file.size()?, execute: 0 })),
        }
    }

    fn stat_at(
        &mut self,
        directory: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> Result<DescriptorStat, Errno> {
        let path = self.resolve(&directory, &path, follows(flags))?;
        self.files.kind(&path)?.map(stat_of).ok_or(Errno::NOENT)
    }

    fn set_times_at(
        &mut self,
        directory: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        access: NewTimestamp,
        modification: NewTimestamp,
    ) -> Result<(), Errno> {
        check_times(access, modification)?;
        let path = self.resolve(&directory, &path, follows(flags))?;
        self.files.kind(&path)?.ok_or(Errno::NOENT)?;
        if self.files.is_writable(&path) { Ok(()) } else { Err(Errno::ROFS) }
    }

    fn link_at(
        &mut self,
        directory: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        new_directory: Resource<Descriptor>,
        new_path: String,
    ) -> Result<(), Errno> {
        let from = self.resolve(&directory, &path, follows(flags))?;
        let to = self.resolve(&new_directory, &new_path, false)?;
        self.files.link(&from, &to)
    }

    fn open_at(
        &mut self,
        directory: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        open: OpenFlags,
        wanted: DescriptorFlags,
    ) -> Result<Resource<Descriptor>, Errno> {
        let exclusive = open.contains(OpenFlags::EXCLUSIVE);
        let path = self.resolve(&directory, &path, follows(flags) && !exclusive)?;
        let how = OpenHow {
            write: wanted.contains(DescriptorFlags::WRITE),
            create: open.contains(OpenFlags::CREATE),
            exclusive,
            truncate: open.contains(OpenFlags::TRUNCATE),
            directory: open.contains(OpenFlags::DIRECTORY),
        };
        let (kind, writable) = match self.files.open(&path, how)? {
            Opened::Directory => {
                (DescriptorKind::Directory, wanted.contains(DescriptorFlags::MUTATE_DIRECTORY))
            }
            Opened::File(file) => (DescriptorKind::File(Arc::new(file)), how.write),
        };
        self.table.push(Descriptor { path, kind, writable }).map_err(|_| Errno::MFILE)
    }

    fn readlink_at(&mut self, directory: Resource<Descriptor>, path: String) -> Result<String, Errno> {
        let path = self.resolve(&directory, &path, false)?;
        match self.files.kind(&path)? {
            Some(NodeKind::Symlink) => self.files.read_link(&path),
            Some(_) => Err(Errno::INVAL),
            None => Err(Errno::NOENT),
        }
    }

    fn remove_directory_at(&mut self, directory: Resource<Descriptor>, path: String) -> Result<(), Errno> {
        let path = self.resolve(&directory, path.trim_end_matches('/'), false)?;
        self.files.remove_directory(&path)
    }

    fn rename_at(
        &mut self,
        directory: Resource<Descriptor>,
        path: String,
        new_directory: Resource<Descriptor>,
        new_path: String,
    ) -> Result<(), Errno> {
        let from = self.resolve(&directory, path.trim_end_matches('/'), false)?;
        let to = self.resolve(&new_directory, new_path.trim_end_matches('/'), false)?;
        if from == to {
            return Ok(());
        }
        if to.below(from.as_str()).is_some() {
            return Err(Errno::INVAL);
        }
        self.files.rename(&from, &to)
    }

    fn symlink_at(
        &mut self,
        directory: Resource<Descriptor>,
        target: String,
        path: String,
    ) -> Result<(), Errno> {
        let path = self.resolve(&directory, &path, false)?;
        self.files.create_symlink(&path, &target)
    }

    fn unlink_file_at(&mut self, directory: Resource<Descriptor>, path: String) -> Result<(), Errno> {
        let path = self.resolve(&directory, &path, false)?;
        self.files.unlink(&path)
    }

    fn is_same_object(
        &mut self,
        left: Resource<Descriptor>,
        right: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        Ok(self.table.get(&left)?.path == self.table.get(&right)?.path)
    }

    fn metadata_hash(&mut self, descriptor: Resource<Descriptor>) -> Result<MetadataHashValue, Errno> {
        Ok(hash_of(&self.descriptor(&descriptor)?.path))
    }

    fn metadata_hash_at(
        &mut self,
        directory: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> Result<MetadataHashValue, Errno> {
        let path = self.resolve(&directory, &path, follows(flags))?;
        self.files.kind(&path)?.ok_or(Errno::NOENT)?;
        Ok(hash_of(&path))
    }

    fn drop(&mut self, descriptor: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.table.delete(descriptor)?;
        Ok(())
    }
}

impl types::HostDirectoryEntryStream for Cell {
    fn read_directory_entry(&mut self, listing: Resource<Listing>) -> Result<Option<DirectoryEntry>, Errno> {
        let listing = self.table.get_mut(&listing).map_err(|_| Errno::BADF)?;
        Ok(listing.0.next().map(|(name, kind)| DirectoryEntry { type_: type_of(kind), name }))
    }

    fn drop(&mut self, listing: Resource<Listing>) -> wasmtime::Result<()> {
        self.table.delete(listing)?;
        Ok(())
    }
}

impl Cell {
    fn writer(
        &mut self,
        descriptor: &Resource<Descriptor>,
        offset: Option<u64>,
    ) -> Result<Resource<wasmtime_wasi::p2::DynOutputStream>, Errno> {
        let descriptor = self.descriptor(descriptor)?;
        let file = Arc::clone(descriptor.file()?);
        if !descriptor.writable {
            return Err(Errno::BADF);
        }
        let stream: wasmtime_wasi::p2::DynOutputStream = Box::new(FileWriter { file, offset });
        self.table.push(stream).map_err(|_| Errno::MFILE)
    }
}

/// A file read from front to back.
struct FileReader {
    file: Arc<OpenFile>,
    offset: u64,
}

#[wasmtime_wasi::async_trait]
impl Pollable for FileReader {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl InputStream for FileReader {
    fn read(&mut self, size: usize) -> Result<bytes::Bytes, StreamError> {
        let wanted = size.min(usize::try_from(MAX_READ).unwrap_or(usize::MAX));
        let mut buffer = vec![0; wanted];
        let count = self.file.read_at(&mut buffer, self.offset).map_err(failed)?;
        if count == 0 && wanted > 0 {
            return Err(StreamError::Closed);
        }
        buffer.truncate(count);
        self.offset += count as u64;
        Ok(buffer.into())
    }
}

/// A file written from an offset on, or at its end.
struct FileWriter {
    file: Arc<OpenFile>,
    offset: Option<u64>,
}

#[wasmtime_wasi::async_trait]
impl Pollable for FileWriter {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for FileWriter {
    fn write(&mut self, bytes: bytes::Bytes) -> Result<(), StreamError> {
        match &mut self.offset {
            None => self.file.append(&bytes).map_err(failed),
            Some(offset) => {
                self.file.write_at(&bytes, *offset).map_err(failed)?;
                *offset += bytes.len() as u64;
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(WRITE_PERMIT)
    }
}

fn failed(error: Errno) -> StreamError {
    StreamError::LastOperationFailed(error.into())
}

fn follows(flags: PathFlags) -> bool {
    flags.contains(PathFlags::SYMLINK_FOLLOW)
}

/// Times are not kept, but what no file system could keep is refused.
fn check_times(access: NewTimestamp, modification: NewTimestamp) -> Result<(), Errno> {
    for time in [access, modification] {
        if let NewTimestamp::Timestamp(time) = time
            && (time.seconds > LAST_TIME || time.nanoseconds >= 1_000_000_000)
        {
            return Err(Errno::INVAL);
        }
    }
    Ok(())
}

fn type_of(kind: NodeKind) -> DescriptorType {
    match kind {
        NodeKind::Directory => DescriptorType::Directory,
        NodeKind::File { .. } => DescriptorType::RegularFile,
        NodeKind::Symlink => DescriptorType::SymbolicLink,
        NodeKind::Special => DescriptorType::Unknown,
    }
}

fn stat_of(kind: NodeKind) -> DescriptorStat {
    let time = Some(Datetime { seconds: CONSTANT_TIME, nanoseconds: 0 });
    DescriptorStat {
        type_: type_of(kind),
        link_count: 1,
        size: if let NodeKind::File { size, .. } = kind { size } else { 0 },
        data_access_timestamp: time,
        data_modification_timestamp: time,
        status_change_timestamp: time,
    }
}

/// Tells files apart by their path; inode numbers would differ between builds.
fn hash_of(path: &GuestPath) -> MetadataHashValue {
    let digest = Sha256::digest(path.as_str());
    let word = |range: std::ops::Range<usize>| {
        digest[range].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    MetadataHashValue { lower: word(0..8), upper: word(8..16) }
}

fn error_code(error: Errno) -> ErrorCode {
    match error {
        Errno::ACCESS => ErrorCode::Access,
        Errno::AGAIN => ErrorCode::WouldBlock,
        Errno::BADF => ErrorCode::BadDescriptor,
        Errno::BUSY => ErrorCode::Busy,
        Errno::DQUOT => ErrorCode::Quota,
        Errno::EXIST => ErrorCode::Exist,
        Errno::FBIG => ErrorCode::FileTooLarge,
        Errno::ILSEQ => ErrorCode::IllegalByteSequence,
        Errno::INVAL => ErrorCode::Invalid,
        Errno::ISDIR => ErrorCode::IsDirectory,
        Errno::LOOP => ErrorCode::Loop,
        Errno::MLINK => ErrorCode::TooManyLinks,
        // WASI has no code for too many open files.
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => ErrorCode::InsufficientMemory,
        Errno::NAMETOOLONG => ErrorCode::NameTooLong,
        Errno::NOENT => ErrorCode::NoEntry,
        Errno::NOSPC => ErrorCode::InsufficientSpace,
        Errno::NOTDIR => ErrorCode::NotDirectory,
        Errno::NOTEMPTY => ErrorCode::NotEmpty,
        Errno::OVERFLOW => ErrorCode::Overflow,
        Errno::PERM => ErrorCode::NotPermitted,
        Errno::ROFS => ErrorCode::ReadOnly,
        Errno::XDEV => ErrorCode::CrossDevice,
        _ => ErrorCode::Io,
    }
}
