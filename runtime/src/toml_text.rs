//! TOML that others wrote: size first, then parsed, and every error with its place.
//!
//! It knows positions in a text. It must not know what any file is for.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Largest TOML file that is read (I5).
pub(crate) const MAX_TOML_BYTES: u64 = 1024 * 1024;

/// What is wrong with a TOML text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TomlError {
    /// Counted from 1; 0 when the text as a whole is meant.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// In lower case, control characters escaped.
    pub message: String,
}

impl fmt::Display for TomlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "line {}, column {}: {}", self.line, self.column, self.message)
        }
    }
}

/// The text of a table that may be missing: empty without one, a line break for one
/// that is there and empty. The reference lifecycle writes the two differently.
pub(crate) fn text_of(table: Option<&toml::Table>) -> String {
    match table {
        None => String::new(),
        Some(table) if table.is_empty() => "\n".to_owned(),
        Some(table) => table.to_string(),
    }
}

/// The table that [`text_of`] wrote, or any other valid text; one that is not is as good as none.
pub(crate) fn table_of(text: &str) -> Option<toml::Table> {
    if text.is_empty() { None } else { toml::from_str(text).ok() }
}

impl TomlError {
    /// An error at a byte of `text`.
    pub(crate) fn at(text: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
        }
    }

    /// An error of the whole text.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self { line: 0, column: 0, message: message.into() }
    }

    pub(crate) fn from_parser(text: &str, error: &toml::de::Error) -> Self {
        // The parser quotes what it read; that may hold anything, and be of any length.
        let mut message: String =
            error.message().lines().next().unwrap_or("").chars().flat_map(char::escape_debug).collect();
        if let Some((end, _)) = message.char_indices().nth(300) {
            message.truncate(end);
            message.push('…');
        }
        match error.span() {
            Some(span) => Self::at(text, span.start, message),
            None => Self::whole(message),
        }
    }
}

/// Parses `text`. The parser refuses texts that nest too deep.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, TomlError> {
    if text.len() as u64 > MAX_TOML_BYTES {
        return Err(too_large());
    }
    toml::from_str(text).map_err(|error| TomlError::from_parser(text, &error))
}

fn too_large() -> TomlError {
    TomlError::whole(format!("the file is larger than {}", crate::limits::show_bytes(MAX_TOML_BYTES)))
}

/// Why a TOML file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TomlFileError {
    #[error("cannot read `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("`{}` is not valid", path.display())]
    Invalid { path: PathBuf, source: TomlError },
}

/// Reads a text file that is small enough; never waits for a FIFO.
pub(crate) fn read(path: &Path) -> Result<String, TomlFileError> {
    let failed = |source| TomlFileError::Io { path: path.to_owned(), source };
    let invalid = |source| TomlFileError::Invalid { path: path.to_owned(), source };
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file =
        rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(|error| failed(error.into()))?;
    let file = std::fs::File::from(file);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_TOML_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_TOML_BYTES {
        return Err(invalid(too_large()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..offset]).into_owned();
        invalid(TomlError::at(&text, text.len(), "not UTF-8"))
    })
}

/// Reads a file and parses it by `parse`.
pub(crate) fn read_with<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, TomlError>,
) -> Result<T, TomlFileError> {
    parse(&read(path)?).map_err(|source| TomlFileError::Invalid { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_line_and_column() {
        let error = parse::<toml::Table>("a = 1\nä = = 2\n").unwrap_err();
        assert_eq!(error.line, 2, "{error}");
        let error = TomlError::at("a\näb", 4, "here");
        assert_eq!(error.to_string(), "line 2, column 2: here");
    }

    /// I5: none of these may crash, and none is accepted.
    #[test]
    fn i5_hostile_texts_are_errors() {
        let texts = [
            format!("a = {}", "[".repeat(100_000)),
            format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000)),
            format!("a = {}", "{b=".repeat(100_000)),
            format!("a{} = 1", ".b".repeat(100_000)),
            format!("[a{}]", ".b".repeat(100_000)),
            format!("a = '{}'", "x".repeat(2 << 20)),
            "a = 1\na = 2".to_owned(),
            "a = 99999999999999999999".to_owned(),
            "a = \"\0\"".to_owned(),
            "\0".to_owned(),
        ];
        for text in texts {
            let error = parse::<toml::Table>(&text).unwrap_err();
            assert!(error.message.len() < 1000 && !error.message.contains('\n'), "{error}");
        }
    }

    #[test]
    fn i5_files_that_are_no_small_text_are_errors() {
        let temp = tempfile::tempdir().unwrap();
        let large = temp.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(64 << 20).unwrap();
        let latin = temp.path().join("latin");
        std::fs::write(&latin, b"a = 1\nb = '\xe4'").unwrap();
        let fifo = temp.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        for path in [&large, &latin, &fifo, &temp.path().join("missing"), &temp.path().to_owned()] {
            assert!(read(path).is_err(), "{}", path.display());
        }
        let error = read(&latin).unwrap_err();
        let TomlFileError::Invalid { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.to_string(), "line 2, column 6: not UTF-8");
    }
}
