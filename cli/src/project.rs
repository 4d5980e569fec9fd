//! `project.toml` of the app, or the file that takes its place.

use std::path::{Path, PathBuf};

use wapack_runtime::cnb::project_toml::{PROJECT_FILE, ProjectDescriptor};
use wapack_runtime::source::read_project;

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
                Ok(found) if found.is_symlink() => return Err(InputError::ProjectLink { path }.into()),
                Ok(_) => {}
                Err(_) => return Ok(Self::default()),
            }
        }
        let descriptor = read_project(&path).map_err(InputError::Project)?;
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
                Err(InputError::ProjectPath { named: named.escape_debug().to_string() })
            }
            _ => Ok(Some(found)),
        }
    }
}
