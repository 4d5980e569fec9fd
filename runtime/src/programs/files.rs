//! Reading and writing the files between programs.

use std::io;
use std::path::{Path, PathBuf};

use crate::toml_text::{self, TomlError, TomlFileError};

/// Why a file between programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error(transparent)]
    Read(#[from] TomlFileError),
    #[error("cannot write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Reads a file that has to be there.
pub(super) fn read<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, TomlError>) -> Result<T, FileError> {
    Ok(toml_text::read_with(path, parse)?)
}

/// Reads a file that need not be there.
pub(super) fn read_if_there<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, TomlError>,
) -> Result<Option<T>, FileError> {
    match toml_text::read_with(path, parse) {
        Err(TomlFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        result => Ok(Some(result?)),
    }
}

/// Writes a file, and the directories above it.
pub(super) fn write(path: &Path, text: &str) -> Result<(), FileError> {
    let failed = |source| FileError::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent).map_err(failed)?;
    }
    fs_err::write(path, text).map_err(failed)
}
