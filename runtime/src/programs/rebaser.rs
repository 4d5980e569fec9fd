//! `rebaser`: puts the layers of an image on another run image.

use std::path::PathBuf;

use super::error::of_file;
use super::files::FileError;
use super::images::Images;
use crate::cancel::Cancel;
use crate::cnb::api::PlatformApi;
use crate::event::EventSink;

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    /// All names of the image; the first is also the image to work on.
    pub images: Vec<String>,
    pub previous_image: Option<String>,
    pub run_image: Option<String>,
    pub force: bool,
    pub report: PathBuf,
}

/// Why the image was not rebased.
#[derive(Debug, thiserror::Error)]
pub enum RebaserError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RebaserError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`RebaserError`].
///
/// # Spec
/// `platform.md` 0.15 "Rebase"; RBS-01 to RBS-18.
pub fn run(_: &Inputs, _: &dyn Images, _: &Cancel, _: &mut dyn EventSink) -> Result<(), RebaserError> {
    unimplemented!()
}
