//! `builder`: runs the buildpacks of the group.

use std::path::PathBuf;

use super::Services;
use super::error::of_file;
use super::files::FileError;
use crate::cnb::api::PlatformApi;
use crate::cnb::id::ExecEnv;

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    pub exec_env: ExecEnv,
    pub analyzed: PathBuf,
    pub app: PathBuf,
    pub build_config: PathBuf,
    pub buildpacks: PathBuf,
    pub group: PathBuf,
    pub layers: PathBuf,
    pub plan: PathBuf,
    pub platform: PathBuf,
}

/// Why the build stopped.
#[derive(Debug, thiserror::Error)]
pub enum BuilderError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
}

impl BuilderError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`BuilderError`].
///
/// # Spec
/// `platform.md` 0.15 "Phase: Build"; BLD-01 to BLD-10.
pub fn run(_: &Inputs, _: &mut Services<'_>) -> Result<(), BuilderError> {
    unimplemented!()
}
