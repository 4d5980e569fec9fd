//! `wapack build`

mod attach;
mod destination;
mod run_image;
mod summary;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use wapack_runtime::cancel::Cancel;
use wapack_runtime::cnb::target::Target;
use wapack_runtime::images::{Held, Images};
use wapack_runtime::lifecycle::{self, BuildRequest, BuiltImage};
use wapack_runtime::network::{FindSource, NetworkSettings};
use wapack_runtime::oci::layer::Owner;
use wapack_runtime::phase::export::{FileOwner, Launcher, LauncherMode};
use wapack_runtime::phase::publish::{IndexRequest, publish_index};
use wapack_runtime::phase::restore::PreviousImage;
use wapack_runtime::sources::Sources;

use self::destination::Destination;
use self::run_image::{Chosen, run_image};
use super::cache;
use crate::app::{self, App};
use crate::args::{BuildArguments, CreationTime, LauncherChoice};
use crate::discovery;
use crate::embedded;
use crate::failure::{Failure, InputError};
use crate::images::{Opened, Places};
use crate::output::Output;
use crate::place::Place;

/// Builds of one user's own cache are all one tenant's.
pub(super) const TENANT: &str = "local";
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

pub(crate) fn run(arguments: &BuildArguments, cancel: &Cancel, output: &mut Output) -> Result<u8, Failure> {
    let places = Places::new(&arguments.app.policy, Some(&arguments.app.path), cancel);
    let targets = arguments.app.target.as_deref().map(app::targets).transpose()?.unwrap_or_default();
    let destination = Destination::choose(arguments, &places, targets.len())?;
    attach::check(arguments, &destination)?;
    let owners = owners(arguments)?;
    if let Some(place) = run_image::place(&arguments.run_image)? {
        destination.refuse_input(&places.open(place, None)?)?;
    }
    let parts = parts(arguments, &places, &targets)?;
    let previous = previous_image(arguments, &places, &targets)?;
    let created = created(arguments.image.creation_time, output);
    output.explains = arguments.earlier.explain;
    let mut outputs: Vec<_> = destination.opened.place.path().map(Into::into).into_iter().collect();
    outputs.extend(arguments.image.sbom_output_dir.clone());
    let mut app = App::prepare(&arguments.app, &outputs, arguments.earlier.verify, output)?;
    if arguments.update {
        app.choose_anew();
    }
    destination.check_write()?;
    let network = app.network(cancel)?;
    discovery::say_remarks(&network.finder, output);
    let finder = Arc::clone(&network.finder) as Arc<dyn FindSource>;
    let settings = NetworkSettings { finder: Some(finder), ..network.settings };
    let sources = Sources::new(settings, &app.policy.limits, app.store.downloads());

    let held = Held::new(destination.opened.images.family());
    let is_index = parts.len() > 1;
    let mut built = Vec::with_capacity(parts.len());
    for part in &parts {
        let image = destination.image();
        // Layers for one system are none for another.
        let cached_as = if is_index { format!("{image} {}", part.name()) } else { image.to_owned() };
        let to: &dyn Images = if is_index { &held } else { &*destination.opened.images };
        let earlier = previous.as_ref().unwrap_or(&part.previous);
        let earlier_place = earlier.place.to_string();
        let earlier = PreviousImage {
            images: &*earlier.images,
            name: if previous.is_some() { earlier.place.name() } else { image },
            place: &earlier_place,
            is_asked_for: previous.is_some(),
        };
        if is_index {
            output.say(&format!("\nFor {}", part.name()));
        }
        let request = BuildRequest {
            app: app.request(&part.run_image.target, cancel),
            tenant: TENANT,
            image: &cached_as,
            sources: &sources,
            run_image: &part.run_image.run_image,
            run_images: part.run_image.opened.as_ref().map(|opened| &*opened.images),
            launcher: &part.launcher,
            launcher_mode: match arguments.image.launcher {
                LauncherChoice::Auto => LauncherMode::Auto,
                LauncherChoice::Always => LauncherMode::Always,
                LauncherChoice::Never => LauncherMode::Never,
            },
            user: owners.user,
            files: owners.files,
            process_type: arguments.image.process_type.as_ref(),
            project: &app.project,
            output: to,
            names: &destination.names,
            created,
            encoding: arguments.image.compression,
            sboms: arguments.image.sbom_output_dir.as_deref(),
            clear_cache: arguments.earlier.clear_cache,
            previous: Some(earlier),
        };
        let result = lifecycle::build(&request, output);
        discovery::say_remarks(&network.finder, output);
        built.push(result?);
    }
    let saved = match &built[..] {
        [BuiltImage { saved, .. }] => saved.clone(),
        _ => {
            let images: Vec<_> = built.iter().map(|built| built.exported.image.clone()).collect();
            let from: Vec<&dyn Images> =
                parts.iter().filter_map(|part| Some(&*part.run_image.opened.as_ref()?.images)).collect();
            let request = IndexRequest {
                images: &images,
                to: &*destination.opened.images,
                names: &destination.names,
                from: &from,
            };
            publish_index(&request, &app.store, cancel).map_err(wapack_runtime::error::Error::from)?
        }
    };
    for (built, part) in built.iter().zip(&parts) {
        let app = app.request(&part.run_image.target, cancel);
        let known = attach::Known { arguments, app, created, cancel };
        let count = attach::attach(built, part, &destination, &known)?;
        if count > 0 {
            output.detail(&format!("{count} documents are attached to {}", built.exported.digest));
        }
    }
    summary::show(&built, &saved, &destination, output);
    // Whoever waits for the image has it by now.
    cache::keep_under_cap(&app.store, &app.policy, output);
    Ok(0)
}

/// What is built for one system.
struct Part {
    run_image: Chosen,
    launcher: Launcher,
    /// Where the image of the last build may be.
    previous: Opened,
}

impl Part {
    fn name(&self) -> String {
        app::show_target(&self.run_image.target)
    }
}

/// Everything that differs between the systems; one without a target for the usual one.
fn parts(arguments: &BuildArguments, places: &Places, targets: &[Target]) -> Result<Vec<Part>, Failure> {
    let wanted: Vec<Option<&Target>> =
        if targets.is_empty() { vec![None] } else { targets.iter().map(Some).collect() };
    let part = |wanted: Option<&Target>| {
        let run_image = run_image(&arguments.run_image, wanted, places)?;
        let target = &run_image.target;
        let launcher = embedded::launcher(&target.arch)
            .filter(|_| target.os == "linux")
            .ok_or_else(|| InputError::NoLauncher { target: app::show_target(target) })?;
        let launcher = Launcher { bytes: launcher.to_vec(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let place = Destination::place(arguments)?;
        let previous = places.open(place, Some(target))?;
        Ok(Part { run_image, launcher, previous })
    };
    wanted.into_iter().map(part).collect()
}

fn previous_image(
    arguments: &BuildArguments,
    places: &Places,
    targets: &[Target],
) -> Result<Option<Opened>, Failure> {
    let Some(value) = arguments.earlier.previous_image.as_deref() else { return Ok(None) };
    let shown = || value.to_string_lossy().escape_debug().to_string();
    let place = Place::parse(value).ok_or_else(|| InputError::PreviousImage { value: shown() })?;
    let target = targets.first().cloned().unwrap_or_else(app::host_target);
    places.open(place, Some(&target)).map(Some)
}

/// Who the image runs as, and who owns its files.
struct Owners {
    user: Option<Owner>,
    files: FileOwner,
}

fn owners(arguments: &BuildArguments) -> Result<Owners, InputError> {
    let image = &arguments.image;
    let is_group_writable = image.group_writable;
    let owner = image.owner.as_deref().map(parse_user).transpose()?;
    let names_group = image.owner.as_deref().is_some_and(|text| text.contains(':'));
    // Who is let in by the group is let in by group 0.
    let gid = owner.map(|owner| owner.gid).filter(|_| names_group || !is_group_writable);
    Ok(Owners {
        user: image.user.as_deref().map(parse_user).transpose()?,
        files: FileOwner {
            uid: owner.map(|owner| owner.uid),
            gid: gid.or(is_group_writable.then_some(0)),
            is_group_writable,
        },
    })
}

/// When the image says it was made.
///
/// # Spec
/// IMG-06: a value of the variable that is not a number is warned of and ignored.
fn created(named: Option<CreationTime>, output: &mut Output) -> Option<u64> {
    let of_variable = || std::env::var_os(SOURCE_DATE_EPOCH).filter(|value| !value.is_empty());
    let chosen = if let Some(chosen) = named {
        chosen
    } else if let Some(Ok(CreationTime::Seconds(seconds))) = of_variable()?.to_str().map(str::parse) {
        CreationTime::Seconds(seconds)
    } else {
        output.warning(&format!("`{SOURCE_DATE_EPOCH}` is not a number of seconds and is ignored"));
        return None;
    };
    match chosen {
        CreationTime::Seconds(seconds) => Some(seconds),
        CreationTime::Now => SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs()),
    }
}

/// `UID` or `UID:GID`.
fn parse_user(text: &str) -> Result<Owner, InputError> {
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse::<u32>().ok()).flatten().map(u64::from)
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    match (number(uid), number(gid)) {
        (Some(uid), Some(gid)) => Ok(Owner { uid, gid }),
        _ => Err(InputError::User { value: text.escape_debug().to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert_eq!(parse_user("1000").unwrap(), Owner { uid: 1000, gid: 1000 });
        assert_eq!(parse_user("0:5").unwrap(), Owner { uid: 0, gid: 5 });
        for text in ["", "root", "1:", ":1", "-1", "+1", "4294967296", "1:2:3"] {
            assert!(parse_user(text).is_err(), "{text:?}");
        }
    }
}
