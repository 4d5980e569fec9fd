//! The image to build upon, and the target it makes.

use std::ffi::OsStr;

use wapack_runtime::cnb::target::Target;
use wapack_runtime::phase::export::{Base, RunImage};

use crate::app;
use crate::failure::{Failure, InputError};
use crate::images::{Opened, Places};
use crate::place::Place;

const SCRATCH: &str = "scratch";

/// A run image and where it was found.
pub(super) struct Chosen {
    pub(super) run_image: RunImage,
    pub(super) target: Target,
    /// `None` on `scratch`.
    pub(super) opened: Option<Opened>,
}

/// Where the run image is; `None` for `scratch`.
pub(super) fn place(value: &OsStr) -> Result<Option<Place>, InputError> {
    if value == SCRATCH {
        return Ok(None);
    }
    let refused = || InputError::RunImage { value: value.to_string_lossy().escape_debug().to_string() };
    Place::of_image(value).ok_or_else(refused).map(Some)
}

/// Finds the run image for the target that is `wanted`, or the one it is for.
pub(super) fn run_image(value: &OsStr, wanted: Option<&Target>, places: &Places) -> Result<Chosen, Failure> {
    let Some(place) = place(value)? else {
        let target = wanted.cloned().unwrap_or_else(app::host_target);
        let run_image =
            RunImage { base: Base::Scratch(target.clone()), name: String::new(), mirrors: Vec::new() };
        return Ok(Chosen { run_image, target, opened: None });
    };
    let shown = place.to_string();
    let preferred = wanted.cloned().unwrap_or_else(app::host_target);
    let opened = places.open(place, Some(&preferred))?;
    let found = opened.find(places).map_err(|source| InputError::RunImageUnreadable {
        value: shown.clone(),
        source: Box::new(source),
    })?;
    let configuration = &found.image.configuration;
    let target = Target::of_image(
        &configuration.os,
        &configuration.architecture,
        configuration.variant.as_deref(),
        &configuration.config.labels,
    );
    if let Some(wanted) = wanted
        && (&wanted.os, &wanted.arch) != (&target.os, &target.arch)
    {
        let (found, wanted) = (app::show_target(&target), app::show_target(wanted));
        return Err(InputError::RunImageTarget { value: shown, found, wanted }.into());
    }
    // Where it lies on this machine is no part of an image.
    let name = opened.place.name().to_owned();
    let run_image = RunImage { base: Base::Image(Box::new(found)), name, mirrors: Vec::new() };
    Ok(Chosen { run_image, target, opened: Some(opened) })
}
