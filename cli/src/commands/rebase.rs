//! `wapack rebase`

use std::ffi::OsStr;

use serde_json::json;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::cnb::api::PlatformApi;
use wapack_runtime::cnb::run_toml::RunImageNames;
use wapack_runtime::cnb::target::Target;
use wapack_runtime::images::{FoundImage, SavedImage, best_mirror};
use wapack_runtime::limits::show_bytes;
use wapack_runtime::oci::blob::BlobStore;
use wapack_runtime::oci::image::{BlobPlace, Image};
use wapack_runtime::oci::reference::Reference;
use wapack_runtime::phase::publish::{PublishRequest, publish};
use wapack_runtime::phase::rebase::{NewRunImage, RebaseRequest, Rebased, rebase, recorded_run_image};
use wapack_runtime::store::Store;
use wapack_runtime::text::harmless;

use super::cache;
use crate::app;
use crate::args::RebaseArguments;
use crate::directories;
use crate::failure::{Failure, InputError};
use crate::images::{Opened, Places};
use crate::output::Output;
use crate::place::Place;

pub(crate) fn run(arguments: &RebaseArguments, cancel: &Cancel, output: &mut Output) -> Result<u8, Failure> {
    let places = Places::new(&arguments.policy, None, cancel);
    let app_place = places.open_image(&arguments.image, None)?;
    let systems = app_place.images.systems(app_place.place.name())?;
    if !systems.is_empty() {
        let (place, systems) = (app_place.place.to_string(), systems.join("`, `"));
        return Err(InputError::SeveralSystems { place, systems }.into());
    }
    let app = app_place.find(&places)?;
    let to = destination(&places, arguments.output.as_deref(), &app_place)?;
    let chosen = run_image(&places, arguments.run_image.as_deref(), &app, &to.place)?;
    let run_image = &chosen.found;
    let mut rebased = rebase(&RebaseRequest {
        app: &app.image,
        // Where it lies on this machine is no part of an image.
        run_image: NewRunImage {
            image: &run_image.image,
            name: chosen.place.place.name(),
            reference: &run_image.reference,
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
    let moved = moved(&rebased.image, &to);
    let (policy, _) = app::policy(&arguments.policy)?;
    let store = store_for(&rebased.image, &to)?;
    let nothing = ();
    let blobs: &dyn BlobStore = store.as_ref().map_or(&nothing, |store| store);
    let request = PublishRequest {
        image: &rebased.image,
        to: &*to.images,
        names: &[to.place.name().to_owned()],
        from: &[&*chosen.place.images, &*app_place.images],
    };
    let saved = publish(&request, blobs, cancel, output).map_err(Failure::Rebased)?;
    if let Some(store) = &store {
        cache::keep_under_cap(store, &policy, output);
    }
    summary(&Done { app, chosen, rebased, saved, place: to.place, moved }, output);
    Ok(0)
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
    to.images.check_write(to.place.name()).map_err(Failure::Rebased)?;
    Ok(to)
}

/// The new run image, and how it was chosen.
struct Chosen {
    place: Opened,
    found: FoundImage,
    /// The names it was chosen among, when nobody named one.
    among: Vec<String>,
}

/// The new run image for the system of the app: the one that is named, or else the best
/// of those that the app's label has (RBS-02, RUN-02).
fn run_image(
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

/// Somewhere to keep layers that have to be brought here; none when there are none.
fn store_for(image: &Image, to: &Opened) -> Result<Option<Store>, Failure> {
    if !image.layers.iter().any(|layer| to.images.wanted(layer)) {
        return Ok(None);
    }
    let (store, _) = Store::open(&directories::cache(None)?)?;
    Ok(Some(store))
}

/// What becomes of the layers of an image on their way to its place, as far as that is
/// known before.
#[derive(Debug, Clone, Copy, Default)]
struct Moved {
    layers: usize,
    bytes: u64,
    /// Layers that a registry takes from another repository of its own.
    mounted: usize,
}

fn moved(image: &Image, to: &Opened) -> Moved {
    let repository = to.place.name().parse::<Reference>().ok().map(|reference| reference.name().clone());
    let mut moved = Moved::default();
    for layer in &image.layers {
        let (is_moved, is_mounted) = match (&to.place, &layer.blob) {
            (Place::Layout { directory, .. }, _) => {
                (!directory.join("blobs/sha256").join(layer.digest.hex()).exists(), false)
            }
            (Place::Registry { .. }, BlobPlace::Registry(from)) => {
                let is_neighbour = repository.as_ref().is_some_and(|own| own.registry() == from.registry());
                (!is_neighbour, is_neighbour && repository.as_ref() != Some(from))
            }
            (Place::Daemon { .. }, BlobPlace::Engine) => (false, false),
            _ => (true, false),
        };
        if is_moved {
            moved.layers += 1;
            moved.bytes += layer.size;
        }
        moved.mounted += usize::from(is_mounted);
    }
    moved
}

/// What was done.
struct Done {
    app: FoundImage,
    chosen: Chosen,
    rebased: Rebased,
    saved: SavedImage,
    place: Place,
    moved: Moved,
}

/// What there is now, and what is different.
fn summary(done: &Done, output: &mut Output) {
    let Done { app, chosen, rebased, saved, place, moved } = done;
    let run_image = &chosen.found;
    let layers = (rebased.old_layers, run_image.image.layers.len());
    let kept = rebased.image.layers.len() - layers.1;
    let digest = saved.digest.as_ref().map(ToString::to_string).or(saved.id.clone()).unwrap_or_default();
    let changed = !app.reference.ends_with(&digest);
    if output.is_json() {
        output.object(&json!({
            "event": "rebased",
            "image": place.name(),
            "digest": digest,
            "old_digest": app.reference,
            "changed": changed,
            "run_image": {
                "reference": run_image.reference,
                "name": chosen.place.place.name(),
                "among": chosen.among,
                "layers": layers.1,
            },
            "old_run_image": { "reference": rebased.old_reference, "layers": layers.0 },
            "checked": rebased.checked,
            "kept_layers": kept,
            "mounted_layers": moved.mounted,
            "moved_layers": moved.layers,
            "moved_bytes": moved.bytes,
            "bytes": rebased.image.bytes(),
            "layout": place.path().map(|path| path.display().to_string()),
            "place": place.to_string(),
        }));
        return;
    }
    if output.is_quiet() {
        output.line(&digest);
        return;
    }
    let strong = output.terminal.out.strong(&harmless(place.name()));
    let headline = if changed {
        format!("Successfully rebased image {strong}")
    } else {
        format!("The image {strong} is on this run image already; nothing changed")
    };
    let old = match rebased.old_reference.as_str() {
        "" => "unknown".to_owned(),
        old => harmless(old),
    };
    let count = |layers: usize| format!("{layers} {}", if layers == 1 { "layer" } else { "layers" });
    let mounted = match moved.mounted {
        0 => String::new(),
        mounted => format!("; {} taken over from elsewhere in the registry", count(mounted)),
    };
    let among = match &chosen.among[..] {
        [] => String::new(),
        names => format!("\n  chosen    {}", harmless(&why_chosen(chosen.place.place.name(), names, place))),
    };
    output.say(&format!(
        "{headline}\n  old base  {old}, {}\n  new base  {}, {}{among}\n  because   {}\n  kept      {} of the app\
         \n  moved     {}, {}{mounted}\n  digest    {digest}\n  size      {}\n  where     {}",
        count(layers.0),
        harmless(&run_image.reference),
        count(layers.1),
        rebased.checked.join(", "),
        count(kept),
        count(moved.layers),
        show_bytes(moved.bytes),
        show_bytes(rebased.image.bytes()),
        harmless(&place.to_string()),
    ));
}

/// Why the best name is the best (RUN-02).
fn why_chosen(best: &str, names: &[String], to: &Place) -> String {
    let registry = |name: &str| name.parse::<Reference>().ok().map(|name| name.registry().to_owned());
    let why = if registry(best).is_some() && registry(best) == registry(to.name()) {
        "it is on the same registry"
    } else {
        "it is the first that can be read"
    };
    format!("{best} of {}: {why}", names.join(", "))
}
