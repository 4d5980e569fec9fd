//! Reading small text files that others wrote.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Configuration is never larger than this.
const MAX_BYTES: u64 = 1024 * 1024;

/// Whether a link may be followed to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    Follow,
    /// For files of an app: a link would be a way to read somebody else's file.
    Refuse,
}

/// Opens a regular file, and never waits for a FIFO. `None` when nothing is there.
pub(super) fn open(path: &Path, links: Links) -> io::Result<Option<File>> {
    let no_follow = if links == Links::Refuse { OFlags::NOFOLLOW } else { OFlags::empty() };
    let flags = (OFlags::NONBLOCK | no_follow).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if file.metadata()?.is_file() { Ok(Some(file)) } else { Err(io::Error::other("it is not a file")) }
}

/// Reads a text file; `None` when nothing is there.
pub(super) fn read(path: &Path, links: Links) -> io::Result<Option<String>> {
    let Some(file) = open(path, links)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let before = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let line = before.matches('\n').count() + 1;
        io::Error::other(format!("line {line} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_text_files_are_read() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        std::fs::write(path("text"), "a").unwrap();
        std::fs::write(path("latin"), b"a\n\xe4").unwrap();
        File::create(path("large")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        std::os::unix::fs::symlink("text", path("link")).unwrap();
        assert_eq!(read(&path("text"), Links::Refuse).unwrap().unwrap(), "a");
        assert_eq!(read(&path("link"), Links::Follow).unwrap().unwrap(), "a");
        assert!(read(&path("link"), Links::Refuse).is_err());
        assert_eq!(read(&path("latin"), Links::Follow).unwrap_err().to_string(), "line 2 is not UTF-8");
        for name in ["large", "fifo", "."] {
            assert!(read(&path(name), Links::Follow).is_err(), "{name}");
        }
        assert_eq!(read(&path("text/below"), Links::Follow).unwrap(), None);
        assert_eq!(read(&path("none"), Links::Follow).unwrap(), None);
    }
}
