//! Opens the place where a program's images are.

use std::ffi::OsString;

use wapack_runtime::images::{Daemon, DaemonError, Images, LayoutImages};

use super::inputs::{ImagePlace, Inputs};
use super::settings::Surroundings;
use crate::app;
use crate::failure::InputError;
use crate::images::engine_address;

/// Why there are no images.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error("registries are not spoken by this version; use `-daemon`, or `-layout` with `-layout-dir`")]
    Registry,
    #[error("there is no place for images")]
    None,
    #[error(transparent)]
    Address(#[from] InputError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// Opens it; `None` for programs that have no images.
pub(super) fn open(
    place: &ImagePlace,
    inputs: &Inputs,
    surroundings: &Surroundings,
) -> Result<Option<Box<dyn Images>>, ImageError> {
    if !inputs.needs_images() {
        return Ok(None);
    }
    match place {
        ImagePlace::Daemon => {
            let variable = |name: &str| surroundings.variable(name).map(OsString::from);
            Ok(Some(Box::new(Daemon::connect(engine_address(variable)?, surroundings.scratch())?)))
        }
        ImagePlace::Layout(directory) => {
            Ok(Some(Box::new(LayoutImages::new(directory.clone(), app::host_target().arch))))
        }
        ImagePlace::Registry { .. } => Err(ImageError::Registry),
    }
}
