//! `detector`: finds the group that builds.

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
    pub app: PathBuf,
    pub analyzed: PathBuf,
    pub build_config: PathBuf,
    pub buildpacks: PathBuf,
    pub extensions: PathBuf,
    pub generated: PathBuf,
    pub group: PathBuf,
    pub layers: PathBuf,
    /// As it was given; the defaults are looked for (ORD-15).
    pub order: Option<PathBuf>,
    pub plan: PathBuf,
    pub platform: PathBuf,
    pub run: PathBuf,
    pub system: PathBuf,
}

/// Why no group builds.
#[derive(Debug, thiserror::Error)]
pub enum DetectorError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
}

impl DetectorError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`DetectorError`].
///
/// # Spec
/// `platform.md` 0.15 "Phase: Detection"; ORD-01 to ORD-15, DET-01 to DET-17.
pub fn run(_: &Inputs, _: &mut Services<'_>) -> Result<(), DetectorError> {
    unimplemented!()
}
