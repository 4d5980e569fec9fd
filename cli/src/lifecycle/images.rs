//! Opens the place where a program's images are.

use std::ffi::OsString;

use wapack_runtime::cancel::Cancel;
use wapack_runtime::images::{Daemon, DaemonError, Images, LayoutImages};
use wapack_runtime::policy::{Policy, PolicyError, PolicyPaths};

use super::inputs::{ImagePlace, Inputs};
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

/// Opens it; `None` for programs that have no images.
pub(super) fn open(
    place: &ImagePlace,
    inputs: &Inputs,
    surroundings: &Surroundings,
    cancel: &Cancel,
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
        ImagePlace::Registry { insecure } => {
            // Policy files are for `wapack build`: here the platform decides.
            let (policy, _) = Policy::load(&PolicyPaths::default())
                .map_err(|error| ImageError::Settings(Box::new(error)))?;
            Ok(Some(Box::new(registries::images(insecure, surroundings, &policy, cancel)?)))
        }
    }
}
