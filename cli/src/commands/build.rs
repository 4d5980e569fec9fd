//! `wapack build`

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::cnb::target::{Distro, Target};
use wapack_runtime::lifecycle::{self, BuildRequest};
use wapack_runtime::limits::show_bytes;
use wapack_runtime::network::{FindSource, NetworkSettings};
use wapack_runtime::oci::layer::Owner;
use wapack_runtime::oci::layout::{LayoutError, LayoutImage, Platform, read_image};
use wapack_runtime::phase::export::{Base, Exported, Launcher, LauncherMode, RunImage};
use wapack_runtime::phase::restore::PreviousImage;
use wapack_runtime::sources::Sources;

use crate::app::{self, App};
use crate::args::{BuildArguments, CreationTime, LauncherChoice};
use crate::discovery;
use crate::embedded;
use crate::failure::{Failure, InputError};
use crate::image_name::ImageName;
use crate::output::Output;
use crate::place::Place;

/// Builds of one user's own cache are all one tenant's.
const TENANT: &str = "local";
const SCRATCH: &str = "scratch";
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";
const DISTRO_NAME: &str = "io.buildpacks.base.distro.name";
const DISTRO_VERSION: &str = "io.buildpacks.base.distro.version";

pub(crate) fn run(arguments: &BuildArguments, cancel: &Cancel, output: &mut Output) -> Result<u8, Failure> {
    let name: ImageName = arguments.name.parse()?;
    let layout = layout_for(arguments.output.as_deref(), &name)?;
    let user = arguments.image.user.as_deref().map(parse_user).transpose()?;
    let wanted = arguments.app.target.as_deref().map(app::target).transpose()?;
    let (run_image, target) = run_image(&arguments.run_image, wanted)?;
    let launcher = embedded::launcher(&target.arch)
        .filter(|_| target.os == "linux")
        .ok_or_else(|| InputError::NoLauncher { target: show_target(&target) })?;
    let launcher = Launcher { bytes: launcher.to_vec(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let tags = tags(&arguments.tags, &name)?;
    let previous = arguments.earlier.previous_image.as_deref().map(previous_image).transpose()?;
    let created = created(arguments.image.creation_time, output);
    output.explains = arguments.earlier.explain;
    let mut outputs = vec![layout.clone()];
    outputs.extend(arguments.image.sbom_output_dir.clone());
    let mut app = App::prepare(&arguments.app, &outputs, arguments.earlier.verify, output)?;
    if arguments.update {
        app.choose_anew();
    }
    let network = app.network(cancel)?;
    discovery::say_remarks(&network.finder, output);
    let finder = Arc::clone(&network.finder) as Arc<dyn FindSource>;
    let settings = NetworkSettings { finder: Some(finder), ..network.settings };
    let sources = Sources::new(settings, &app.policy.limits, app.store.downloads());
    let image = name.to_string();
    let request = BuildRequest {
        app: app.request(&target, cancel),
        tenant: TENANT,
        image: &image,
        sources: &sources,
        run_image: &run_image,
        launcher: &launcher,
        launcher_mode: match arguments.image.launcher {
            LauncherChoice::Auto => LauncherMode::Auto,
            LauncherChoice::Always => LauncherMode::Always,
            LauncherChoice::Never => LauncherMode::Never,
        },
        user,
        process_type: arguments.image.process_type.as_ref(),
        project: &app.project,
        output: &layout,
        tags: &tags,
        created,
        sboms: arguments.image.sbom_output_dir.as_deref(),
        clear_cache: arguments.earlier.clear_cache,
        previous: PreviousImage {
            directory: previous.as_ref().map_or(&layout, |place| &place.directory),
            reference: previous
                .as_ref()
                .map_or(Some(&image), |place| place.reference.as_ref())
                .map(String::as_str),
            is_asked_for: previous.is_some(),
        },
    };
    let exported = lifecycle::build(&request, output);
    discovery::say_remarks(&network.finder, output);
    let exported = exported?;
    summary(&exported, &image, &tags, &layout, output);
    Ok(0)
}

/// A layout, and perhaps the name of one of its images.
struct LayoutPlace {
    directory: PathBuf,
    reference: Option<String>,
}

fn layout_place(value: &OsStr) -> Option<LayoutPlace> {
    match Place::parse(value)? {
        Place::Layout { directory, reference } => Some(LayoutPlace { directory, reference }),
        _ => None,
    }
}

fn show_place(directory: &Path, reference: &str) -> String {
    Place::Layout { directory: directory.to_owned(), reference: Some(reference.to_owned()) }.to_string()
}

/// Where the image goes; refused now when it could not be written there later.
fn layout_for(named: Option<&OsStr>, name: &ImageName) -> Result<PathBuf, Failure> {
    let directory = match named {
        None => PathBuf::from(format!("{}.oci", name.file_name())),
        Some(value) => {
            let refused = || InputError::Output { value: value.to_string_lossy().escape_debug().to_string() };
            let place = layout_place(value).ok_or_else(refused)?;
            if let Some(reference) = place.reference {
                return Err(InputError::OutputReference { directory: place.directory, reference }.into());
            }
            place.directory
        }
    };
    if directory.symlink_metadata().is_ok() && !directory.is_dir() {
        return Err(InputError::OutputNotADirectory { path: directory }.into());
    }
    // Hidden files may be what a killed write left; the library knows its own.
    let holds_something = fs_err::read_dir(&directory).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")))
    });
    if holds_something && !directory.join("oci-layout").is_file() {
        return Err(LayoutError::NotALayout { directory }.into());
    }
    Ok(directory)
}

/// Further names, each once.
fn tags(named: &[String], image: &ImageName) -> Result<Vec<String>, InputError> {
    let mut tags: Vec<String> = Vec::with_capacity(named.len());
    for tag in named {
        let tag = tag.parse::<ImageName>()?.to_string();
        if tag != image.to_string() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

fn previous_image(value: &OsStr) -> Result<LayoutPlace, InputError> {
    layout_place(value).ok_or_else(|| InputError::PreviousImage {
        value: value.to_string_lossy().escape_debug().to_string(),
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

/// The image to build upon, and the target it makes.
fn run_image(value: &OsStr, wanted: Option<Target>) -> Result<(RunImage, Target), InputError> {
    if value == SCRATCH {
        let target = wanted.unwrap_or_else(app::host_target);
        let run_image =
            RunImage { base: Base::Scratch(target.clone()), name: String::new(), mirrors: Vec::new() };
        return Ok((run_image, target));
    }
    let shown = value.to_string_lossy().escape_debug().to_string();
    let place = layout_place(value).ok_or_else(|| InputError::RunImage { value: shown.clone() })?;
    let preferred = wanted.clone().unwrap_or_else(app::host_target);
    let platform =
        Platform { os: &preferred.os, architecture: &preferred.arch, variant: preferred.variant.as_deref() };
    let image = read_image(&place.directory, place.reference.as_deref(), Some(platform))
        .map_err(|source| InputError::RunImageUnreadable { value: shown, source })?;
    let target = target_of(&image);
    if let Some(wanted) = wanted
        && (&wanted.os, &wanted.arch) != (&target.os, &target.arch)
    {
        return Err(InputError::RunImageTarget { found: show_target(&target), wanted: show_target(&wanted) });
    }
    // Where it lies on this machine is no part of an image.
    let name = place.reference.unwrap_or_default();
    Ok((RunImage { base: Base::Layout(Box::new(image)), name, mirrors: Vec::new() }, target))
}

/// What an image says it is for.
fn target_of(image: &LayoutImage) -> Target {
    let configuration = &image.image.configuration;
    let label = |name| configuration.config.labels.get(name).cloned();
    Target {
        os: configuration.os.clone(),
        arch: configuration.architecture.clone(),
        variant: configuration.variant.clone().filter(|variant| !variant.is_empty()),
        distro: label(DISTRO_NAME)
            .map(|name| Distro { name, version: label(DISTRO_VERSION).unwrap_or_default() }),
    }
}

fn show_target(target: &Target) -> String {
    format!("{}/{}", target.os, target.arch)
}

/// What there is now, and what to do with it.
fn summary(exported: &Exported, image: &str, tags: &[String], layout: &Path, output: &mut Output) {
    let digest = exported.digest.to_string();
    let place = show_place(layout, image);
    if output.is_json() {
        output.object(&json!({
            "event": "finished",
            "image": image,
            "tags": tags,
            "digest": digest,
            "bytes": exported.bytes,
            "layers": exported.image.layers.len(),
            "launcher": exported.has_launcher,
            "layout": layout.display().to_string(),
            "place": place,
        }));
        return;
    }
    if output.is_quiet() {
        output.line(&digest);
        return;
    }
    let layers = exported.image.layers.len();
    let strong = output.terminal.out.strong(image);
    let names = tags.iter().fold(String::new(), |names, tag| {
        names
            + "
  also as   "
            + &show_place(layout, tag)
    });
    output.say(&format!(
        "\nSuccessfully built image {strong}\n  digest    {digest}\n  size      {} in {layers} {}\n  \
         where     {place}{names}\n  look      skopeo inspect {place}\n  run       podman run --rm -p 8080:8080 {place}",
        show_bytes(exported.bytes),
        if layers == 1 { "layer" } else { "layers" },
    ));
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
