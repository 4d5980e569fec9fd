//! Opens the place where a program's images are.

use std::ffi::OsString;

use wapack_runtime::cancel::Cancel;
use wapack_runtime::images::{Daemon, DaemonError, Images, LayoutImages};
use wapack_runtime::policy::{Policy, PolicyError, PolicyPaths};
use wapack_runtime::programs::ImagePlaces;

use super::inputs::{ImagePlace, Task};
use super::registries;
use super::settings::Surroundings;
use crate::app;
use crate::discovery::InvalidRegistryAuth;
use crate::failure::InputError;
use crate::images::engine_address;

/// Why there are no images.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error("cannot use the variable `CNB_REGISTRY_AUTH`")]
    Registry(#[from] InvalidRegistryAuth),
    #[error("cannot use registries")]
    Settings(#[source] Box<PolicyError>),
    #[error("there is no place for images")]
    None,
    #[error(transparent)]
    Address(#[from] InputError),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// The images of a program.
pub(super) struct OpenImages {
    images: Box<dyn Images>,
    /// Those that are caches, where they are elsewhere.
    caches: Option<Box<dyn Images>>,
}

impl OpenImages {
    pub(super) fn places(&self) -> ImagePlaces<'_> {
        let images = &*self.images;
        ImagePlaces { images, caches: self.caches.as_deref().unwrap_or(images) }
    }
}

/// Opens it; `None` for programs that have no images. A cache image is in a registry wherever
/// the others are (CAC-07).
pub(super) fn open(
    task: &Task,
    surroundings: &Surroundings,
    cancel: &Cancel,
) -> Result<Option<OpenImages>, ImageError> {
    if !task.inputs.needs_images() {
        return Ok(None);
    }
    let registries = || -> Result<Box<dyn Images>, ImageError> {
        // Policy files are for `wapack build`: here the platform decides.
        let (policy, _) =
            Policy::load(&PolicyPaths::default()).map_err(|error| ImageError::Settings(Box::new(error)))?;
        Ok(Box::new(registries::images(&task.insecure, surroundings, &policy, cancel)?))
    };
    let images: Box<dyn Images> = match &task.images {
        ImagePlace::Daemon => {
            let variable = |name: &str| surroundings.variable(name).map(OsString::from);
            Box::new(Daemon::connect(engine_address(variable)?, surroundings.scratch())?)
        }
        ImagePlace::Layout(directory) => {
            Box::new(LayoutImages::new(directory.clone(), app::host_target().arch))
        }
        ImagePlace::Registry => return Ok(Some(OpenImages { images: registries()?, caches: None })),
    };
    let caches = task.inputs.cache_image().map(|_| registries()).transpose()?;
    Ok(Some(OpenImages { images, caches }))
}
