//! `wapack rebase`

use std::ffi::OsStr;
use std::path::PathBuf;

use serde_json::json;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::cnb::api::PlatformApi;
use wapack_runtime::limits::show_bytes;
use wapack_runtime::oci::digest::Digest;
use wapack_runtime::oci::layout::{ImageLayout, LayoutImage, Placing, Platform, read_image};
use wapack_runtime::phase::rebase::{NewRunImage, RebaseRequest, Rebased, rebase};
use wapack_runtime::text::harmless;

use crate::args::RebaseArguments;
use crate::failure::{Failure, InputError};
use crate::output::Output;
use crate::place::{self, LayoutPlace};

pub(crate) fn run(arguments: &RebaseArguments, cancel: &Cancel, output: &mut Output) -> Result<u8, Failure> {
    let place = parse(&arguments.image)?;
    let app = read_image(&place.directory, place.reference.as_deref(), None)?;
    let (directory, reference) = destination(arguments.output.as_deref(), &app)?;
    let (run_image_name, run_image) = run_image(&arguments.run_image, &app)?;
    let new_reference = run_image.digest.to_string();
    let rebased = rebase(&RebaseRequest {
        app: &app.image,
        // Where it lies on this machine is no part of an image.
        run_image: NewRunImage { image: &run_image.image, name: &run_image_name, reference: &new_reference },
        api: PlatformApi::NEWEST,
        force: arguments.force,
    })?;
    for refusal in &rebased.overruled {
        output.warning(&refusal.to_string());
    }
    let placing = Placing { reference: &reference, unread: true, ..Placing::default() };
    let digest = ImageLayout::open(&directory)
        .and_then(|layout| layout.place(&rebased.image, &placing, &(), &mut |_| !cancel.is_cancelled()))
        .map_err(Failure::Rebased)?;
    summary(&Done { app, run_image, rebased, digest, directory, reference }, output);
    Ok(0)
}

fn parse(value: &OsStr) -> Result<LayoutPlace, InputError> {
    let shown = || value.to_string_lossy().escape_debug().to_string();
    LayoutPlace::parse(value).ok_or_else(|| InputError::NotInLayout { value: shown() })
}

/// Directory and name of the new image; what is not said is as with the old one.
fn destination(named: Option<&OsStr>, app: &LayoutImage) -> Result<(PathBuf, String), InputError> {
    let place = match named {
        Some(value) => parse(value)?,
        None => LayoutPlace { directory: app.directory.clone(), reference: None },
    };
    let reference = place.reference.or_else(|| app.reference.clone());
    let reference = reference.ok_or_else(|| InputError::Unnamed { directory: app.directory.clone() })?;
    Ok((place.directory, reference))
}

/// The new run image for the system of the app, and what it is called as `wapack build` would record it.
fn run_image(value: &OsStr, app: &LayoutImage) -> Result<(String, LayoutImage), InputError> {
    let place = parse(value)?;
    let wanted = &app.image.configuration;
    let platform = Platform {
        os: &wanted.os,
        architecture: &wanted.architecture,
        variant: wanted.variant.as_deref().filter(|variant| !variant.is_empty()),
    };
    let image =
        read_image(&place.directory, place.reference.as_deref(), Some(platform)).map_err(|source| {
            InputError::RunImageUnreadable {
                value: value.to_string_lossy().escape_debug().to_string(),
                source,
            }
        })?;
    Ok((place.reference.unwrap_or_default(), image))
}

/// What was done.
struct Done {
    app: LayoutImage,
    run_image: LayoutImage,
    rebased: Rebased,
    digest: Digest,
    directory: PathBuf,
    reference: String,
}

/// What there is now, and what is different.
fn summary(done: &Done, output: &mut Output) {
    let Done { app, run_image, rebased, digest, directory, reference } = done;
    let place = place::show(directory, reference);
    let layers = (rebased.old_layers, run_image.image.layers.len());
    let changed = app.digest != *digest;
    if output.is_json() {
        output.object(&json!({
            "event": "rebased",
            "image": reference,
            "digest": digest.to_string(),
            "old_digest": app.digest.to_string(),
            "changed": changed,
            "run_image": { "reference": run_image.digest.to_string(), "layers": layers.1 },
            "old_run_image": { "reference": rebased.old_reference, "layers": layers.0 },
            "bytes": rebased.image.bytes(),
            "layout": directory.display().to_string(),
            "place": place,
        }));
        return;
    }
    if output.is_quiet() {
        output.line(&digest.to_string());
        return;
    }
    let strong = output.terminal.out.strong(&harmless(reference));
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
    output.say(&format!(
        "{headline}\n  old base  {old}, {}\n  new base  {}, {}\n  digest    {digest}\n  size      {}\n  where     {}",
        count(layers.0),
        run_image.digest,
        count(layers.1),
        show_bytes(rebased.image.bytes()),
        harmless(&place),
    ));
}
