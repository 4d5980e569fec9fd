//! `analyzer`: finds the previous image and the run image.

use std::path::PathBuf;

use super::error::of_file;
use super::files::FileError;
use super::images::Images;
use crate::cnb::api::PlatformApi;
use crate::event::EventSink;

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    /// The image to be made; the previous one too, unless another is named.
    pub image: String,
    /// Further names of it.
    pub tags: Vec<String>,
    pub previous_image: Option<String>,
    pub run_image: Option<String>,
    /// `run.toml`; before Platform API 0.12 `stack.toml`.
    pub run: PathBuf,
    pub layers: PathBuf,
    pub analyzed: PathBuf,
    pub cache_image: Option<String>,
    /// Leave the layers of the previous image alone.
    pub skip_layers: bool,
    /// Who owns what is written; `None` leaves it as it is.
    pub owner: Option<(u32, u32)>,
}

/// Why the images are not known.
#[derive(Debug, thiserror::Error)]
pub enum AnalyzeError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
}

impl AnalyzeError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`AnalyzeError`].
///
/// # Spec
/// `platform.md` 0.15 "Phase: Analysis"; ANA-01 to ANA-10.
pub fn run(_: &Inputs, _: &dyn Images, _: &mut dyn EventSink) -> Result<(), AnalyzeError> {
    unimplemented!()
}
