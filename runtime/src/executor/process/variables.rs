//! Directories in which each file is a variable: those of layers, users and operators.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{Mode, OFlags};

/// Largest file of a variable; the system starts no program with more than an eighth of it.
const MAX_BYTES: u64 = 1 << 20;

/// Files of one directory.
const MAX_FILES: usize = 10_000;

/// Why a directory of variables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VariablesError {
    /// A directory or a file, links that lead nowhere included.
    #[error("cannot read `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// More than anybody needs.
    #[error("`{}` is too large", path.display())]
    TooLarge { path: PathBuf },
}

/// The files of `directory` by name, with their contents as they are.
///
/// # Errors
/// [`VariablesError`]; that there is no directory is no error.
///
/// # Spec
/// ENV-08, ENV-12, ENV-21, ENV-25: directories and links to directories are skipped,
/// links to files are followed. Names that are not text can be no variable's here.
pub fn read(directory: &Path) -> Result<BTreeMap<String, OsString>, VariablesError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| VariablesError::Io { path, source }
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(failed(directory))?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(failed(directory))?;
        let path = entry.path();
        if path.metadata().map_err(failed(&path))?.is_dir() {
            continue;
        }
        if files.len() == MAX_FILES {
            return Err(VariablesError::TooLarge { path: directory.to_owned() });
        }
        let contents = contents(&path).map_err(failed(&path))?;
        let contents = contents.ok_or_else(|| VariablesError::TooLarge { path: path.clone() })?;
        if let Ok(name) = entry.file_name().into_string() {
            files.insert(name, OsString::from_vec(contents));
        }
    }
    Ok(files)
}

/// What is in a regular file; never waits for a FIFO. `None` when it is too much.
fn contents(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MAX_BYTES).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn env_08_and_21_names_and_contents_are_taken_as_they_are() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("FOO.append"), "x\n").unwrap();
        std::fs::write(temp.path().join("EMPTY"), "").unwrap();
        std::fs::write(temp.path().join("BYTES"), b"\xff\n").unwrap();
        let files = read(temp.path()).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["BYTES", "EMPTY", "FOO.append"]);
        assert_eq!(files["FOO.append"], "x\n");
        assert_eq!(files["BYTES"].as_encoded_bytes(), b"\xff\n");
    }

    #[test]
    fn env_12_links_and_directories() {
        let temp = tempfile::tempdir().unwrap();
        assert!(read(&temp.path().join("missing")).unwrap().is_empty());
        // As Kubernetes mounts them.
        let data = temp.path().join("..data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("TOKEN"), "secret").unwrap();
        symlink("..data/TOKEN", temp.path().join("TOKEN")).unwrap();
        symlink("..data", temp.path().join("link-to-directory")).unwrap();
        let files = read(temp.path()).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["TOKEN"]);
        assert_eq!(files["TOKEN"], "secret");
        symlink("nowhere", temp.path().join("DANGLING")).unwrap();
        let error = read(temp.path()).unwrap_err();
        assert!(matches!(&error, VariablesError::Io { path, .. } if path.ends_with("DANGLING")), "{error}");
    }

    #[test]
    fn what_is_no_small_file_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let large = temp.path().join("LARGE");
        File::create(&large).unwrap().set_len(64 << 20).unwrap();
        assert!(matches!(read(temp.path()), Err(VariablesError::TooLarge { .. })));
        std::fs::remove_file(&large).unwrap();
        let fifo = temp.path().join("FIFO");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(matches!(read(temp.path()), Err(VariablesError::Io { .. })));
    }
}
