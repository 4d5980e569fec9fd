//! Why an app's directory cannot be built, and how that is said.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::dockerignore::IGNORE_FILE;
use crate::cancel::Cancelled;
use crate::cnb::project_toml::PROJECT_FILE;
use crate::fault::{Diagnose, Fault};
use crate::walk::{self, WalkError};

/// Why a source directory cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there.
    #[error("there is no directory `{}`", path.display())]
    Missing { path: PathBuf, source: io::Error },
    /// Something in it cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A FIFO or a device.
    #[error("`{path}` is a {what}, which cannot be part of an image")]
    SpecialFile { path: String, what: &'static str },
    /// Names that a component or a terminal could not deal with.
    #[error("{count} {} not be used: {}", if *count == 1 { "name can" } else { "names can" }, listed.join(", "))]
    BadNames {
        count: u64,
        /// The first ten, escaped, in backticks.
        listed: Vec<String>,
    },
    /// More levels of directories than are walked.
    #[error("`{path}` is deeper than {} directories", walk::MAX_DEPTH)]
    TooDeep { path: String },
    /// The ignore file cannot be used.
    #[error("`{IGNORE_FILE}` is not valid{}: {message}", line.map(|line| format!(" in line {line}")).unwrap_or_default())]
    Ignore { line: Option<usize>, message: String },
    /// A pattern of `project.toml` cannot be used.
    #[error("the pattern `{pattern}` is not valid: {message}")]
    Pattern { pattern: String, message: &'static str },
    /// Something changed while the build ran.
    #[error("`{path}` changed while it was built")]
    Changed { path: String },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Diagnose for SourceError {
    fn id(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "source.missing",
            Self::Io { .. } => "source.unreadable",
            Self::SpecialFile { .. } => "source.special_file",
            Self::BadNames { .. } => "source.bad_names",
            Self::TooDeep { .. } => "source.too_deep",
            Self::Ignore { .. } => "source.bad_ignore_file",
            Self::Pattern { .. } => "source.bad_pattern",
            Self::Changed { .. } => "source.changed",
            Self::Cancelled(_) => "build.cancelled",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Missing { .. } | Self::Cancelled(_) => Fault::Caller,
            Self::Io { .. } => Fault::Environment,
            _ => Fault::App,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some("name the app's directory with `--path`".into()),
            Self::SpecialFile { path, .. } => {
                Some(format!("remove it, or leave it out with a line `{path}` in `{IGNORE_FILE}`"))
            }
            Self::BadNames { .. } => Some(format!(
                "rename them; they have to be UTF-8 without control characters, or left out by `{IGNORE_FILE}`"
            )),
            Self::TooDeep { .. } => Some(format!("leave it out with `{IGNORE_FILE}`")),
            Self::Changed { .. } => Some("build again when nothing writes to the directory".into()),
            Self::Pattern { .. } => Some(format!(
                "patterns of `include` and `exclude` in `{PROJECT_FILE}` are those of `.gitignore`"
            )),
            Self::Io { .. } | Self::Ignore { .. } | Self::Cancelled(_) => None,
        }
    }
}

impl From<WalkError> for SourceError {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Io { path, source } => Self::Io { path, source },
            WalkError::TooDeep { path } => Self::TooDeep { path: shown(&path) },
        }
    }
}

/// A path that is harmless on a terminal.
pub(super) fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().utf8_chunks().fold(String::new(), |mut text, chunk| {
        text.extend(chunk.valid().chars().flat_map(char::escape_debug));
        text.extend(
            chunk.invalid().iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).map(char::from),
        );
        text
    })
}
