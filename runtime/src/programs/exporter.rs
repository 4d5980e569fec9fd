//! `exporter`: makes the image, and the cache for the next build.

use std::path::PathBuf;

use super::error::of_file;
use super::files::FileError;
use super::images::Images;
use crate::cancel::Cancel;
use crate::cnb::api::PlatformApi;
use crate::cnb::id::ExecEnv;
use crate::event::EventSink;

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    pub exec_env: ExecEnv,
    /// All names of the image; the first is the output image.
    pub images: Vec<String>,
    pub analyzed: PathBuf,
    pub app: PathBuf,
    pub cache_dir: Option<PathBuf>,
    pub cache_image: Option<String>,
    pub extended: PathBuf,
    pub group: PathBuf,
    pub launcher: PathBuf,
    /// Directory with the launcher's bills of materials.
    pub launcher_sbom: PathBuf,
    pub layers: PathBuf,
    /// Write image and cache at the same time.
    pub parallel: bool,
    pub process_type: Option<String>,
    pub project_metadata: PathBuf,
    pub report: PathBuf,
    pub run: PathBuf,
    /// Owner of layers and app in the image.
    pub owner: (u32, u32),
    /// `SOURCE_DATE_EPOCH` as it was set.
    pub source_date_epoch: Option<String>,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
}

impl ExporterError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`ExporterError`].
///
/// # Spec
/// `platform.md` 0.15 "Phase: Export"; EXP-01 to EXP-13.
pub fn run(_: &Inputs, _: &dyn Images, _: &Cancel, _: &mut dyn EventSink) -> Result<(), ExporterError> {
    unimplemented!()
}
