//! `restorer`: brings back what the last build left.

use std::path::PathBuf;

use super::error::of_file;
use super::files::FileError;
use super::images::Images;
use crate::cnb::api::PlatformApi;
use crate::cnb::id::ExecEnv;
use crate::event::EventSink;

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    pub exec_env: ExecEnv,
    pub analyzed: PathBuf,
    pub build_image: Option<String>,
    /// The cache in a directory; without it and an image nothing is cached.
    pub cache_dir: Option<PathBuf>,
    pub cache_image: Option<String>,
    pub generated: PathBuf,
    pub group: PathBuf,
    pub layers: PathBuf,
    pub run: PathBuf,
    /// Restore `store.toml` only.
    pub skip_layers: bool,
    /// Who owns what is written; `None` leaves it as it is.
    pub owner: Option<(u32, u32)>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RestoreError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`RestoreError`].
///
/// # Spec
/// `platform.md` 0.15 "Phase: Restore"; RST-01 to RST-17.
pub fn run(_: &Inputs, _: &dyn Images, _: &mut dyn EventSink) -> Result<(), RestoreError> {
    unimplemented!()
}
