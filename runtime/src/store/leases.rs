//! Who uses what in the store, by name, so that collecting takes nothing from a build.
//!
//! A name is a path relative to the store's root, and stands for one byte of the file
//! `leases`, far beyond its end: the one at the name's hash. A build holds a shared lock on
//! that byte for as long as it has the store open; whoever collects holds an exclusive one
//! while something goes. The kernel drops locks with the process, however it dies. Two
//! names with one byte only protect each other.
//!
//! Names and not files are locked, so that a lease holds whatever file a rename puts there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::OFlags;

use super::files::hash_of;

/// The file whose bytes are locked; nothing is ever in it.
const FILE: &str = "leases";

/// What one user of the store uses; given back when dropped.
#[derive(Debug)]
pub(super) struct Leases {
    path: PathBuf,
    /// Opened when first needed; `None` where there can be none, as in a store that
    /// cannot be written. Nothing is collected there either.
    file: OnceLock<Option<File>>,
}

impl Leases {
    pub(super) fn new(root: &Path) -> Self {
        Self { path: root.join(FILE), file: OnceLock::new() }
    }

    /// From now on nobody takes `name` away. Waits while somebody is doing so: whether it
    /// is there is to be asked after.
    pub(super) fn take(&self, name: &str) {
        if let Some(file) = self.file.get_or_init(|| open(&self.path).ok()) {
            // Without a lock somebody could collect it, and it would be a miss: no worse.
            let _ = lock(file, libc::F_RDLCK, name, Wait::Yes);
        }
    }
}

/// What somebody who collects has for themself; given back when dropped.
#[derive(Debug)]
pub(super) struct Claims(File);

/// Whether to wait for a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Yes,
    No,
}

impl Claims {
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        open(&root.join(FILE)).map(Self)
    }

    /// Whether nobody else uses `name`, and nobody will before this is dropped.
    pub(super) fn take(&self, name: &str, wait: Wait) -> io::Result<bool> {
        match lock(&self.0, libc::F_WRLCK, name, wait) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)
}

fn lock(file: &File, kind: libc::c_int, name: &str, wait: Wait) -> Result<(), Errno> {
    let kind = i16::try_from(kind).map_err(|_| Errno::EINVAL)?;
    let whence = i16::try_from(libc::SEEK_SET).map_err(|_| Errno::EINVAL)?;
    let byte = libc::flock { l_type: kind, l_whence: whence, l_start: place(name), l_len: 1, l_pid: 0 };
    loop {
        let request = match wait {
            Wait::Yes => FcntlArg::F_OFD_SETLKW(&byte),
            Wait::No => FcntlArg::F_OFD_SETLK(&byte),
        };
        match fcntl(file, request) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}

/// The byte of a name.
fn place(name: &str) -> i64 {
    // 60 bits: the end of the range has to be a file offset, too.
    i64::from_str_radix(&hash_of(&[name])[..15], 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k6_what_is_leased_is_not_claimed_and_the_other_way_round() {
        let temp = tempfile::tempdir().unwrap();
        let claims = Claims::new(temp.path()).unwrap();
        let (one, other) = (Leases::new(temp.path()), Leases::new(temp.path()));
        one.take("a");
        other.take("a");
        assert!(!claims.take("a", Wait::No).unwrap());
        assert!(claims.take("b", Wait::No).unwrap());
        drop(one);
        assert!(!claims.take("a", Wait::No).unwrap(), "the other one still has it");
        drop(other);
        assert!(claims.take("a", Wait::No).unwrap());
        assert!(!Claims::new(temp.path()).unwrap().take("a", Wait::No).unwrap());
        // Whoever wants to use it waits until it is gone.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Leases::new(temp.path()).take("a"));
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(!waiting.is_finished());
            drop(claims);
        });
    }

    /// K7: a process that dies holds nothing, and a lease is no file that could be left over.
    #[test]
    fn k7_a_store_that_cannot_be_written_has_no_leases() {
        let temp = tempfile::tempdir().unwrap();
        Leases::new(&temp.path().join("nowhere")).take("a");
        assert!(Claims::new(&temp.path().join("nowhere")).is_err());
        Leases::new(temp.path()).take("a");
        assert_eq!(std::fs::metadata(temp.path().join(FILE)).unwrap().len(), 0);
    }
}
