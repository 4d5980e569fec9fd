//! `wapack build`

mod attach;
mod cache_image;
mod destination;
mod run_image;
mod summary;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::cnb::target::Target;
use wapack_runtime::images::{Held, Images, SavedImage};
use wapack_runtime::lifecycle::{self, BuildRequest, BuiltImage};
use wapack_runtime::network::{FindSource, NetworkSettings};
use wapack_runtime::oci::layer::Owner;
use wapack_runtime::phase::export::{FileOwner, Launcher, LauncherMode};
use wapack_runtime::phase::publish::{IndexRequest, publish_index};
use wapack_runtime::phase::restore::PreviousImage;
use wapack_runtime::sources::Sources;

use self::cache_image::{CacheImagePlace, Cached};
use self::destination::Destination;
use self::run_image::{Chosen, run_image};
use super::cache;
use crate::app::{self, App};
use crate::args::{Attach, BuildArguments, CreationTime, LauncherChoice};
use crate::discovery::{self, Finder};
use crate::embedded;
use crate::failure::{Failure, InputError};
use crate::images::{Opened, Places, is_standard_output};
use crate::output::Output;
use crate::place::Place;

/// Builds of one user's own cache are all one tenant's.
pub(super) const TENANT: &str = "local";
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

pub(crate) fn run(arguments: &BuildArguments, cancel: &Cancel, output: &mut Output) -> Result<u8, Failure> {
    let places = Places::new(&arguments.app.policy, Some(&arguments.app.path), cancel);
    let targets = arguments.app.target.as_deref().map(app::targets).transpose()?.unwrap_or_default();
    let destination = Destination::choose(arguments, &places, targets.len())?;
    if is_standard_output(&destination.opened.place) {
        output.terminal.leave_out();
    }
    attach::check(arguments, &destination)?;
    let owners = owners(arguments)?;
    if let Some(place) = run_image::place(&arguments.run_image)? {
        destination.refuse_input(&places.open(place, None)?)?;
    }
    let cache_image = CacheImagePlace::choose(arguments, &destination)?;
    let parts = parts(arguments, &places, &targets)?;
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

    let job = Job {
        arguments,
        destination: &destination,
        parts: &parts,
        cache_image: cache_image.as_ref(),
        places: &places,
        owners,
        created,
        app: &app,
        sources: &sources,
        finder: &network.finder,
        cancel,
    };
    let result = job.run(output);
    // Whoever waits for the image has it by now; a build that failed has left something, too.
    cache::keep_under_cap(&app.store, &app.policy, output);
    result?;
    Ok(0)
}

/// A build for which everything is at hand.
struct Job<'a> {
    arguments: &'a BuildArguments,
    destination: &'a Destination,
    /// At least one.
    parts: &'a [Part],
    cache_image: Option<&'a CacheImagePlace>,
    places: &'a Places,
    owners: Owners,
    created: Option<u64>,
    app: &'a App,
    sources: &'a Sources,
    finder: &'a Finder,
    cancel: &'a Cancel,
}

impl Job<'_> {
    /// Builds for every system, saves, attaches, and says what there is.
    fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let to = &*self.destination.opened.images;
        let built = if let [only] = self.parts {
            vec![self.build(only, to, output)?]
        } else {
            self.build_each(output)?
        };
        let saved = match &built[..] {
            [only] => only.saved.clone(),
            several => self.publish_index(several, output)?,
        };
        for (built, part) in built.iter().zip(self.parts) {
            let known = attach::Known {
                arguments: self.arguments,
                app: self.app.request(&part.run_image.target, self.cancel),
                created: self.created,
                cancel: self.cancel,
            };
            let count = attach::attach(built, part, self.destination, &known)?;
            if count > 0 {
                output.detail(&format!("{count} documents are attached to {}", built.exported.digest));
            }
        }
        summary::show(&built, &saved, self.destination, output);
        // Whoever waits for the image need not wait for this.
        if let Some(place) = self.cache_image {
            self.write_cache(place, &built, output);
        }
        Ok(())
    }

    /// Builds for each of several systems, one after the other: a build has all processors.
    fn build_each(&self, output: &mut Output) -> Result<Vec<BuiltImage>, Failure> {
        self.detect_each(output)?;
        let held = Held::new(self.destination.opened.images.family());
        let build = |part: &Part| {
            if output.is_json() {
                output.object(&json!({ "event": "target-started", "target": part.name() }));
            } else {
                output.say(&format!("\nFor {}", part.name()));
            }
            self.build(part, &held, output).map_err(|failure| failure.of_target("cannot build", part.name()))
        };
        self.parts.iter().map(build).collect()
    }

    /// Finds out who takes part for every system, before the first of them is built for.
    fn detect_each(&self, output: &mut Output) -> Result<(), Failure> {
        let mut first: Option<(String, Vec<String>)> = None;
        for part in self.parts {
            let mut request = self.app.request(&part.run_image.target, self.cancel);
            request.keep_work_dir = false;
            // What there is to say is said by the build.
            let detected = lifecycle::detect(&request, None, &mut |_| ())
                .map_err(|error| Failure::from(error).of_target("cannot build", part.name()))?;
            let group: Vec<_> =
                detected.group.iter().map(|buildpack| buildpack.reference.to_string()).collect();
            match &first {
                None => first = Some((part.name(), group)),
                Some((_, of_first)) if *of_first == group => {}
                Some((system, of_first)) => output.warning(&format!(
                    "not the same buildpacks take part for {system} ({}) and for {} ({})",
                    of_first.join(", "),
                    part.name(),
                    group.join(", ")
                )),
            }
        }
        Ok(())
    }

    /// What the store calls the image. Layers for one system are none for another, whether they
    /// are built for together or not.
    fn cached_as(&self, part: &Part) -> String {
        let image = self.destination.image();
        let is_host = part.name() == app::show_target(&app::host_target());
        if is_host { image.to_owned() } else { format!("{image} {}", part.name()) }
    }

    fn build(&self, part: &Part, to: &dyn Images, output: &mut Output) -> Result<BuiltImage, Failure> {
        let arguments = self.arguments;
        let image = self.destination.image();
        let cached_as = self.cached_as(part);
        let target = &part.run_image.target;
        let cached = self.cache_image.and_then(|cached| cached.open(self.places, target, output));
        let cache_image = cached.as_ref().map(Cached::as_request);
        let earlier = &part.previous;
        let is_asked_for = arguments.earlier.previous_image.is_some();
        let place = earlier.place.to_string();
        let previous = PreviousImage {
            images: &*earlier.images,
            name: if is_asked_for { earlier.place.name() } else { image },
            place: &place,
            is_asked_for,
        };
        let request = BuildRequest {
            app: self.app.request(target, self.cancel),
            tenant: TENANT,
            image: &cached_as,
            sources: self.sources,
            run_image: &part.run_image.run_image,
            run_images: part.run_image.opened.as_ref().map(|opened| &*opened.images),
            launcher: &part.launcher,
            launcher_mode: match arguments.image.launcher {
                LauncherChoice::Auto => LauncherMode::Auto,
                LauncherChoice::Always => LauncherMode::Always,
                LauncherChoice::Never => LauncherMode::Never,
            },
            user: self.owners.user,
            files: self.owners.files,
            process_type: arguments.image.process_type.as_ref(),
            project: &self.app.project,
            output: to,
            names: &self.destination.names,
            created: self.created,
            encoding: arguments.image.compression,
            sboms: arguments.image.sbom_output_dir.as_deref(),
            hashes_source: arguments.image.attach.contains(&Attach::Provenance),
            clear_cache: arguments.earlier.clear_cache,
            cache_image,
            previous: Some(previous),
        };
        let result = lifecycle::build(&request, output);
        discovery::say_remarks(self.finder, output);
        Ok(result?)
    }

    fn publish_index(&self, built: &[BuiltImage], output: &mut Output) -> Result<SavedImage, Failure> {
        let images: Vec<_> = built.iter().map(|built| built.exported.image.clone()).collect();
        let opened = self.parts.iter().filter_map(|part| part.run_image.opened.as_ref());
        let from: Vec<&dyn Images> = opened.map(|opened| &*opened.images).collect();
        let request = IndexRequest {
            images: &images,
            to: &*self.destination.opened.images,
            names: &self.destination.names,
            from: &from,
        };
        let saved = publish_index(&request, &self.app.store, self.cancel, output);
        Ok(saved.map_err(wapack_runtime::error::Error::from)?)
    }
}

/// What is built for one system.
struct Part {
    run_image: Chosen,
    launcher: Launcher,
    /// Where the image of the last build may be, or the one that was asked for.
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
        let place = match arguments.earlier.previous_image.as_deref() {
            Some(value) => Place::of_image(value).ok_or_else(|| InputError::PreviousImage {
                value: value.to_string_lossy().escape_debug().to_string(),
            })?,
            None => Destination::place(arguments)?,
        };
        let previous = places.open(place, Some(target))?;
        Ok(Part { run_image, launcher, previous })
    };
    wanted.into_iter().map(part).collect()
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
