//! `wapack rebase`

mod run_image;
mod summary;

use std::collections::BTreeSet;
use std::ffi::OsStr;

use wapack_runtime::cancel::Cancel;
use wapack_runtime::cnb::api::PlatformApi;
use wapack_runtime::cnb::target::Target;
use wapack_runtime::images::{FoundImage, Images, SavedImage};
use wapack_runtime::oci::blob::BlobStore;
use wapack_runtime::oci::digest::Digest;
use wapack_runtime::oci::image::Image;
use wapack_runtime::phase::publish::{IndexRequest, PublishRequest, publish, publish_index};
use wapack_runtime::phase::rebase::{NewRunImage, RebaseRequest, Rebased, rebase};
use wapack_runtime::policy::Policy;
use wapack_runtime::store::Store;

use self::run_image::{Chosen, run_image};
use super::cache;
use crate::app;
use crate::args::RebaseArguments;
use crate::directories;
use crate::failure::{Failure, InputError};
use crate::images::{Opened, Places, is_standard_output};
use crate::output::Output;
use crate::place::Place;

pub(crate) fn run(arguments: &RebaseArguments, cancel: &Cancel, output: &mut Output) -> Result<u8, Failure> {
    let places = Places::new(&arguments.policy, None, cancel);
    let wanted = arguments.target.as_deref().map(app::system).transpose()?;
    let app_place = places.open_image(&arguments.image, wanted.as_ref())?;
    let systems = app_place.images.systems(app_place.place.name())?;
    let sources = sources(&places, app_place, wanted.as_ref(), &systems)?;
    let to = destination(&places, arguments.output.as_deref(), &sources[0].place)?;
    if is_standard_output(&to.place) {
        output.terminal.leave_out();
    }
    if sources.len() > 1 && !to.images.has_indexes() {
        return Err(InputError::OneTarget { place: to.place.to_string() }.into());
    }
    if wanted.is_some() && !to.images.systems(to.place.name())?.is_empty() {
        return Err(InputError::OthersInIndex { place: to.place.to_string() }.into());
    }
    // All of them before anything is written.
    let rebased = sources.into_iter().map(|source| {
        let system = app::show_system(&source.found.image.configuration);
        rebase_one(arguments, &places, source, &to, output).map_err(|failure| match systems.len() {
            0 => failure,
            _ => failure.of_target("cannot rebase the image", system),
        })
    });
    let images = rebased.collect::<Result<Vec<One>, Failure>>()?;
    let (policy, _) = app::policy(&arguments.policy)?;
    let saved = save(&images, &to, &policy, cancel, output)?;
    summary::show(&images, &saved, &to.place, output);
    Ok(0)
}

/// An image that is to be rebased.
struct Source {
    place: Opened,
    found: FoundImage,
}

/// What was done with the image for one system.
struct One {
    app_place: Opened,
    app: FoundImage,
    chosen: Chosen,
    rebased: Rebased,
}

impl One {
    /// The system it is for.
    fn system(&self) -> String {
        app::show_system(&self.rebased.image.configuration)
    }

    /// Of its manifest.
    fn digest(&self) -> Digest {
        self.rebased.image.documents().1.digest
    }
}

/// The image that the place names, or the one for each of `systems`; at least one.
fn sources(
    places: &Places,
    place: Opened,
    wanted: Option<&Target>,
    systems: &[String],
) -> Result<Vec<Source>, Failure> {
    if wanted.is_some() || systems.is_empty() {
        let found = place.find(places)?;
        let configuration = &found.image.configuration;
        if let Some(wanted) = wanted
            && (&wanted.os, &wanted.arch) != (&configuration.os, &configuration.architecture)
        {
            let (found, wanted) = (app::show_system(configuration), app::show_target(wanted));
            return Err(InputError::ImageTarget { found, wanted }.into());
        }
        return Ok(vec![Source { place, found }]);
    }
    let shown = place.place.to_string();
    let not_each =
        |system: &str| InputError::NotEachSystem { place: shown.clone(), system: system.to_owned() };
    let mut sources = Vec::with_capacity(systems.len());
    let mut seen = BTreeSet::new();
    for system in systems {
        let target = app::system(system).map_err(|_| not_each(system))?;
        let place = places.open(place.place.clone(), Some(&target))?;
        let found = place.find(places)?;
        if !seen.insert(found.reference.clone()) {
            return Err(not_each(system).into());
        }
        sources.push(Source { place, found });
    }
    Ok(sources)
}

fn rebase_one(
    arguments: &RebaseArguments,
    places: &Places,
    source: Source,
    to: &Opened,
    output: &mut Output,
) -> Result<One, Failure> {
    let Source { place: app_place, found: app } = source;
    let chosen = run_image(places, arguments.run_image.as_deref(), &app, &to.place)?;
    let mut rebased = rebase(&RebaseRequest {
        app: &app.image,
        // Where it lies on this machine is no part of an image.
        run_image: NewRunImage {
            image: &chosen.found.image,
            name: chosen.place.place.name(),
            reference: &chosen.found.reference,
        },
        api: PlatformApi::NEWEST,
        force: arguments.force,
    })?;
    for refusal in &rebased.overruled {
        output.warning(&refusal.to_string());
    }
    if let Some(family) = to.images.family() {
        rebased.image = rebased.image.in_family(family);
    }
    Ok(One { app_place, app, chosen, rebased })
}

/// Writes what was rebased: an image, or an index of several.
fn save(
    images: &[One],
    to: &Opened,
    policy: &Policy,
    cancel: &Cancel,
    output: &mut Output,
) -> Result<SavedImage, Failure> {
    let store = store_for(images.iter().map(|one| &one.rebased.image), to)?;
    let nothing = ();
    let blobs: &dyn BlobStore = store.as_ref().map_or(&nothing, |store| store);
    let places = images.iter().flat_map(|one| [&one.chosen.place, &one.app_place]);
    let from: Vec<&dyn Images> = places.map(|place| &*place.images).collect();
    let names = [to.place.name().to_owned()];
    let saved = match images {
        [only] => {
            let request =
                PublishRequest { image: &only.rebased.image, to: &*to.images, names: &names, from: &from };
            publish(&request, blobs, cancel, output)
        }
        several => {
            let images: Vec<Image> = several.iter().map(|one| one.rebased.image.clone()).collect();
            let request = IndexRequest { images: &images, to: &*to.images, names: &names, from: &from };
            publish_index(&request, blobs, cancel, output)
        }
    };
    if let Some(store) = &store {
        cache::keep_under_cap(store, policy, output);
    }
    saved.map_err(Failure::Rebased)
}

/// Where the new image goes; what is not said is as with the old one.
fn destination(places: &Places, named: Option<&OsStr>, app: &Opened) -> Result<Opened, Failure> {
    let place = match named {
        Some(value) => Place::of_image(value).ok_or_else(|| InputError::Output {
            value: value.to_string_lossy().escape_debug().to_string(),
        })?,
        None => app.place.clone(),
    };
    let names = match place.name() {
        "" => app.images.names()?,
        name => vec![name.to_owned()],
    };
    let name = match (app.place.name(), &names[..]) {
        (_, [name]) => name,
        ("", _) => return Err(InputError::Unnamed { place: app.place.to_string() }.into()),
        (name, _) => name,
    };
    let place = place.with_name(name);
    // An archive is written as a whole, and what else is in it would be lost.
    let is_archive = matches!(place, Place::OciArchive { .. } | Place::DockerArchive { .. });
    let to = places.open(place, None)?;
    if is_archive {
        let others: Vec<String> =
            to.images.names()?.into_iter().filter(|other| other != to.place.name()).collect();
        if !others.is_empty() {
            return Err(InputError::OthersInArchive { place: to.place.to_string(), names: others }.into());
        }
    }
    // A registry refuses the first thing it is sent, which is soon enough and saves two requests.
    if !matches!(to.place, Place::Registry { .. }) {
        to.images.check_write(to.place.name()).map_err(Failure::Rebased)?;
    }
    Ok(to)
}

/// Somewhere to keep layers that have to be brought here; none when there are none.
fn store_for<'a>(images: impl Iterator<Item = &'a Image>, to: &Opened) -> Result<Option<Store>, Failure> {
    if !images.flat_map(|image| &image.layers).any(|layer| to.images.wanted(layer)) {
        return Ok(None);
    }
    let (store, _) = Store::open(&directories::cache(None)?)?;
    Ok(Some(store))
}
