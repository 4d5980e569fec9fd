//! Opens the place where a program's images are.

use wapack_runtime::programs::images::{Images, ImagesError};

use super::inputs::{ImagePlace, Inputs};
use super::settings::Surroundings;

/// Why there are no images.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error("registries are not spoken by this version; use `-daemon`, or `-layout` with `-layout-dir`")]
    Registry,
    #[error("there is no place for images")]
    None,
    #[error(transparent)]
    Place(#[from] ImagesError),
}

/// Opens it; `None` for programs that have no images.
pub(super) fn open(
    place: &ImagePlace,
    inputs: &Inputs,
    _surroundings: &Surroundings,
) -> Result<Option<Box<dyn Images>>, ImageError> {
    if !inputs.needs_images() {
        return Ok(None);
    }
    match place {
        ImagePlace::Daemon | ImagePlace::Layout(_) => Err(ImageError::None),
        ImagePlace::Registry { .. } => Err(ImageError::Registry),
    }
}
