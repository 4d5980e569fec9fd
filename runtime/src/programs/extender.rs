//! `extender`: would apply the Dockerfiles of image extensions.

use std::path::PathBuf;

use super::Services;
use super::error::of_file;
use super::files::FileError;
use crate::cnb::api::PlatformApi;
use crate::cnb::id::ExecEnv;

/// Which image is extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtendKind {
    Build,
    Run,
}

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    pub exec_env: ExecEnv,
    pub kind: ExtendKind,
    pub analyzed: PathBuf,
    pub app: PathBuf,
    pub buildpacks: PathBuf,
    pub extended: PathBuf,
    pub generated: PathBuf,
    pub group: PathBuf,
    pub layers: PathBuf,
    pub plan: PathBuf,
    pub platform: PathBuf,
    pub owner: Option<(u32, u32)>,
}

/// Why an image was not extended.
#[derive(Debug, thiserror::Error)]
pub enum ExtendError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ExtendError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`ExtendError`].
///
/// # Spec
/// `platform.md` 0.15 "Phase: Extend"; EXT-04 to EXT-13.
pub fn run(_: &Inputs, _: &mut Services<'_>) -> Result<(), ExtendError> {
    unimplemented!()
}
