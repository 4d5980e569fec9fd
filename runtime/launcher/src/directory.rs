//! Directories and small files, with no more system calls than they take.
//!
//! An image with many layers has hundreds of them, and a process starts only when all
//! are read. What the standard library does besides (asking for sizes, setting flags
//! that are set, memory for each directory) is half of the calls.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Entries of most directories, in one call.
const LISTING_BYTES: usize = 8 << 10;
/// Most files hold the value of one variable.
const FILE_BYTES: usize = 4 << 10;
/// Where the name begins in what the kernel says of an entry: behind inode, offset,
/// length of the record and kind.
const NAME_OFFSET: usize = 19;

/// What an entry is by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Link,
    Other,
}

/// The names in a directory with what they are, in no order.
///
/// # Errors
/// Among others when there is no such directory.
pub(crate) fn list(path: &Path) -> io::Result<Vec<(OsString, Kind)>> {
    let directory = open(path, libc::O_DIRECTORY)?;
    let mut buffer = [0_u8; LISTING_BYTES];
    let mut entries = Vec::new();
    loop {
        #[expect(unsafe_code, reason = "std lists directories with more calls than this one")]
        // SAFETY: the descriptor is open, and the kernel writes at most the length of the buffer.
        let filled = unsafe {
            libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        };
        let filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
        if filled == 0 {
            return Ok(entries);
        }
        let mut rest = buffer.get(..filled).ok_or_else(damaged)?;
        while !rest.is_empty() {
            let length = rest.get(16..18).and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)?;
            let length = usize::from(u16::from_ne_bytes(length));
            let record =
                rest.get(..length).filter(|record| record.len() > NAME_OFFSET).ok_or_else(damaged)?;
            rest = &rest[length..];
            let name = record[NAME_OFFSET..].split(|byte| *byte == 0).next().unwrap_or_default();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let name = OsString::from_vec(name.to_vec());
            let kind = match record[18] {
                libc::DT_REG => Kind::File,
                libc::DT_DIR => Kind::Directory,
                libc::DT_LNK => Kind::Link,
                // Some file systems do not say.
                libc::DT_UNKNOWN => kind_of(&path.join(&name))?,
                _ => Kind::Other,
            };
            entries.push((name, kind));
        }
    }
}

/// All bytes of a file.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::from(open(path, 0)?);
    let mut buffer = [0_u8; FILE_BYTES];
    let mut bytes = Vec::new();
    loop {
        match io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn open(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | flags;
    #[expect(unsafe_code, reason = "`open` of some C libraries sets the flag for closing once more")]
    // SAFETY: the path ends with a zero byte and outlives the call; a descriptor that
    // comes back is nobody else's.
    unsafe {
        let descriptor = libc::openat(libc::AT_FDCWD, path.as_ptr(), flags);
        if descriptor < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(descriptor)) }
    }
}

fn kind_of(path: &Path) -> io::Result<Kind> {
    let kind = path.symlink_metadata()?.file_type();
    Ok(match kind {
        _ if kind.is_file() => Kind::File,
        _ if kind.is_dir() => Kind::Directory,
        _ if kind.is_symlink() => Kind::Link,
        _ => Kind::Other,
    })
}

fn damaged() -> io::Error {
    io::Error::other("the kernel lists it in an unknown form")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn every_entry_is_listed_with_what_it_is() {
        let root = tempfile::tempdir().unwrap();
        let mut expected = BTreeMap::new();
        // More than one call brings.
        for number in 0..500 {
            let name = format!("{number}-{}", "n".repeat(number % 200));
            fs::write(root.path().join(&name), "").unwrap();
            expected.insert(OsString::from(name), Kind::File);
        }
        fs::create_dir(root.path().join("directory")).unwrap();
        symlink("directory", root.path().join("link")).unwrap();
        let _socket = UnixListener::bind(root.path().join("socket")).unwrap();
        let bytes = OsString::from_vec(b"\xff.\n".to_vec());
        fs::write(root.path().join(&bytes), "").unwrap();
        for (name, kind) in [("directory", Kind::Directory), ("link", Kind::Link), ("socket", Kind::Other)] {
            expected.insert(name.into(), kind);
        }
        expected.insert(bytes, Kind::File);
        assert_eq!(list(root.path()).unwrap().into_iter().collect::<BTreeMap<_, _>>(), expected);
        for (name, kind) in &expected {
            assert_eq!(kind_of(&root.path().join(name)).unwrap(), *kind, "{name:?}");
        }
        assert_eq!(list(&root.path().join("link")).unwrap(), []);
        for (name, error) in [("missing", io::ErrorKind::NotFound), ("socket", io::ErrorKind::NotADirectory)]
        {
            assert_eq!(list(&root.path().join(name)).unwrap_err().kind(), error, "{name}");
        }
    }

    #[test]
    fn files_of_all_sizes_are_read_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        for length in [0, 1, FILE_BYTES, 3 * FILE_BYTES + 1] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect();
            fs::write(&path, &bytes).unwrap();
            assert!(read(&path).unwrap() == bytes, "{length}");
        }
        assert_eq!(read(&root.path().join("missing")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(read(root.path()).is_err());
    }
}
