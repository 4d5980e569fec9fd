//! The run image that comes below an app.

use std::ffi::OsStr;

use wapack_runtime::cnb::api::PlatformApi;
use wapack_runtime::cnb::run_toml::RunImageNames;
use wapack_runtime::cnb::target::Target;
use wapack_runtime::images::{FoundImage, best_mirror};
use wapack_runtime::oci::reference::Reference;
use wapack_runtime::phase::rebase::recorded_run_image;

use crate::failure::{Failure, InputError};
use crate::images::{Opened, Places};
use crate::place::Place;

/// The new run image, and how it was chosen.
pub(super) struct Chosen {
    pub(super) place: Opened,
    pub(super) found: FoundImage,
    /// The names it was chosen among, when nobody named one.
    pub(super) among: Vec<String>,
}

/// The new run image for the system of the app: the one that is named, or else the best
/// of those that the app's label has (RBS-02, RUN-02).
pub(super) fn run_image(
    places: &Places,
    named: Option<&OsStr>,
    app: &FoundImage,
    to: &Place,
) -> Result<Chosen, Failure> {
    let configuration = &app.image.configuration;
    let target = Target {
        os: configuration.os.clone(),
        arch: configuration.architecture.clone(),
        variant: configuration.variant.clone().filter(|variant| !variant.is_empty()),
        distro: None,
    };
    if let Some(value) = named {
        let place = places.open_image(value, Some(&target))?;
        let found = place.find(places)?;
        return Ok(Chosen { place, found, among: vec![] });
    }
    let names = recorded_run_image(&app.image, PlatformApi::NEWEST)?.ok_or(InputError::NoRunImage)?;
    let all = |names: RunImageNames| std::iter::once(names.image).chain(names.mirrors).collect::<Vec<_>>();
    // An engine has its own; everything else gets them from registries.
    let place = match to {
        Place::Daemon { .. } => Place::Daemon { name: None },
        _ => Place::Registry { name: Some(names.image.clone()) },
    };
    let place = places.open(place, Some(&target))?;
    let Some(best) = best_mirror(&*place.images, to.name(), &names).map(str::to_owned) else {
        return Err(InputError::NoMirror { names: all(names) }.into());
    };
    let place = places.open(place.place.with_name(&best), Some(&target))?;
    let found = place.find(places)?;
    Ok(Chosen { place, found, among: all(names) })
}

impl Chosen {
    /// Why the name is the best for an image at `to` (RUN-02); `None` when somebody named it.
    pub(super) fn why(&self, to: &Place) -> Option<String> {
        if self.among.is_empty() {
            return None;
        }
        let best = self.place.place.name();
        let registry = |name: &str| name.parse::<Reference>().ok().map(|name| name.registry().to_owned());
        let why = if registry(best).is_some() && registry(best) == registry(to.name()) {
            "it is on the same registry"
        } else {
            "it is the first that can be read"
        };
        Some(format!("{best} of {}: {why}", self.among.join(", ")))
    }
}
