//! A regular file that a guest holds open, with the quota it is charged to.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs;
use rustix::io::{self, Errno};

use super::quota::{FileId, Quota};

/// An open regular file. Closing it settles its account.
#[derive(Debug)]
pub(crate) struct OpenFile {
    fd: OwnedFd,
    id: FileId,
    quota: Quota,
    /// Whether growth is charged: only files of a writable mount can grow.
    pub(crate) writable: bool,
}

impl OpenFile {
    /// Takes over `fd`, which must be a regular file.
    ///
    /// # Errors
    /// `EMFILE` past the limit of open files.
    pub(crate) fn new(fd: OwnedFd, writable: bool, quota: Quota) -> Result<Self, Errno> {
        let stat = fs::fstat(&fd)?;
        let id = (stat.st_dev, stat.st_ino);
        quota.opened(id)?;
        Ok(Self { fd, id, quota, writable })
    }

    /// The size in bytes.
    pub(crate) fn size(&self) -> Result<u64, Errno> {
        Ok(u64::try_from(fs::fstat(&self.fd)?.st_size).unwrap_or(0))
    }

    /// Reads up to `buffer.len()` bytes at `offset`; 0 is the end of the file.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        loop {
            match io::pread(&self.fd, &mut *buffer, offset) {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Writes all of `bytes` at `offset`, charged before it happens.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Errno> {
        if !self.writable {
            return Err(Errno::BADF);
        }
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno::FBIG)?;
        self.grow_to(end)?;
        let mut written = 0;
        while written < bytes.len() {
            match io::pwrite(&self.fd, &bytes[written..], offset + written as u64) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at the end.
    pub(crate) fn append(&self, bytes: &[u8]) -> Result<(), Errno> {
        self.write_at(bytes, self.size()?)
    }

    /// Cuts or extends the file.
    pub(crate) fn set_size(&self, size: u64) -> Result<(), Errno> {
        if !self.writable {
            return Err(Errno::BADF);
        }
        let before = self.size()?;
        self.grow_to(size)?;
        fs::ftruncate(&self.fd, size)?;
        self.quota.refund_bytes(before.saturating_sub(size));
        Ok(())
    }

    fn grow_to(&self, end: u64) -> Result<(), Errno> {
        let growth = end.saturating_sub(self.size()?);
        if growth > 0 { self.quota.charge_bytes(growth) } else { Ok(()) }
    }

    /// Sets or clears the executable bits; everything else of the mode is fixed.
    pub(crate) fn set_executable(&self, executable: bool) -> Result<(), Errno> {
        self.set_mode(fs::Mode::from_raw_mode(if executable { 0o755 } else { 0o644 }))
    }

    /// Sets the permissions, which the caller has reduced to what files may have here.
    pub(crate) fn set_mode(&self, mode: fs::Mode) -> Result<(), Errno> {
        fs::fchmod(&self.fd, mode)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let size = self.size().unwrap_or(0);
        self.quota.closed(self.id, size);
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
