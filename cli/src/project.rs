//! `project.toml` of the app, or the file that takes its place.

use std::path::{Path, PathBuf};

use wapack_runtime::cnb::project_toml::{PROJECT_FILE, ProjectDescriptor};
use wapack_runtime::fault::{Diagnose, Fault};
use wapack_runtime::source::read_project;
use wapack_runtime::toml_text::TomlFileError;

use crate::failure::{Failure, InputError};
use crate::output::Output;

/// What an app says of itself, and who says it.
#[derive(Debug, Default)]
pub(crate) struct Project {
    pub(crate) descriptor: ProjectDescriptor,
    /// Whether there is such a file at all.
    pub(crate) is_there: bool,
    /// Where paths in it begin.
    pub(crate) directory: PathBuf,
    /// The app's directory without links, beyond which no path in it may lead;
    /// `None` for a file that the caller named and so answers for.
    pub(crate) confined_to: Option<PathBuf>,
}

impl Project {
    /// Reads the file `named`, or the one in the app's directory if it is there (PRJ-10).
    pub(crate) fn read(app: &Path, named: Option<&Path>, output: &mut Output) -> Result<Self, Failure> {
        let path = named.map_or_else(|| app.join(PROJECT_FILE), Path::to_owned);
        if named.is_none() {
            match path.symlink_metadata() {
                // Its author could have its errors quote any file of the host.
                Ok(found) if found.is_symlink() => return Err(ProjectError::Link { path }.into()),
                Ok(_) => {}
                Err(_) => return Ok(Self::default()),
            }
        }
        let descriptor = read_project(&path).map_err(ProjectError::File)?;
        for warning in &descriptor.warnings {
            output.warning(&format!("`{}`: {warning}", path.display()));
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let confined_to = match named {
            Some(_) => None,
            None => Some(fs_err::canonicalize(app).map_err(|source| InputError::Unreadable {
                path: app.to_owned(),
                source: source.kind().into(),
            })?),
        };
        Ok(Self { descriptor, is_there: true, directory, confined_to })
    }

    /// A directory that the file names; `None` when there is none.
    pub(crate) fn directory_of(&self, named: &str) -> Result<Option<PathBuf>, InputError> {
        let path = self.directory.join(named);
        if !path.is_dir() {
            return Ok(None);
        }
        let found = fs_err::canonicalize(&path)
            .map_err(|source| InputError::Unreadable { path: path.clone(), source: source.kind().into() })?;
        match &self.confined_to {
            Some(app) if !found.starts_with(app) => {
                Err(ProjectError::Path { named: named.escape_debug().to_string() }.into())
            }
            _ => Ok(Some(found)),
        }
    }
}

/// A project file that cannot be used, or something in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProjectError {
    #[error("cannot use the project file")]
    File(#[source] TomlFileError),
    #[error("the project file `{}` is a symbolic link", path.display())]
    Link { path: PathBuf },
    #[error("the project file names the builder `{named}`, which is not a directory beside it")]
    Builder { named: String },
    #[error("the project file leads out of the app's directory: `{named}`")]
    Path { named: String },
    #[error("the project file names the buildpack `{uri}`, which is not a directory beside it")]
    Uri { uri: String },
    #[error("the project file gives `{uri}` another id than `{found}`")]
    OtherId { uri: String, found: String },
    #[error("the app's own buildpack takes the name of another one: `{id}`")]
    TakesName { id: String },
    #[error("buildpack `{id}` in line {line} of the project file is a script, which cannot be run here")]
    Script { id: String, line: usize },
    #[error("the project file has `{name}`, which cannot name a variable: {rule}")]
    Variable { name: String, rule: &'static str },
}

impl Diagnose for ProjectError {
    fn id(&self) -> &'static str {
        "input.project"
    }

    fn fault(&self) -> Fault {
        Fault::Caller
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::File(TomlFileError::Io { .. }) => "name a file that is there with `--descriptor`",
            Self::File(_) | Self::Variable { .. } => return None,
            Self::Link { .. } => "name the file it leads to with `--descriptor`",
            Self::Builder { .. } => {
                "take the built-in builder with `--builder builtin`, or a directory with `--builder DIR`"
            }
            Self::Path { .. } => "if the file is yours, name it with `--descriptor`",
            Self::Uri { .. } => "name a directory with `buildpack.toml`, relative to the project file",
            Self::OtherId { .. } => "leave out the `id`, or name the other directory",
            Self::TakesName { .. } => {
                "give it an id of its own; or, if the project file is yours, name it with `--descriptor`"
            }
            Self::Script { .. } => {
                "make it a component (see `docs/writing-a-buildpack.md`), or name other buildpacks with `--buildpack`"
            }
        };
        Some(hint.to_owned())
    }
}
