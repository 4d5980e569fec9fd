//! Whether an app's layers may be put on a run image.

use super::TARGETS_SINCE;
use super::error::{RebaseError, Refusal, TargetText};
use crate::cnb::api::ApiVersion;
use crate::cnb::labels::REBASABLE;
use crate::oci::image::{Image, ImageConfiguration};

const STACK_ID: &str = "io.buildpacks.stack.id";
const MIXINS: &str = "io.buildpacks.stack.mixins";
const DISTRO_NAME: &str = "io.buildpacks.base.distro.name";
const DISTRO_VERSION: &str = "io.buildpacks.base.distro.version";
/// Where an image says which Platform API it was made with.
const API_VARIABLE: &str = "CNB_PLATFORM_API";

/// Asks `refuse` about each thing that force may overrule; gives what is as it should be.
pub(super) fn check(
    app: &Image,
    run_image: &Image,
    refuse: &mut dyn FnMut(Refusal) -> Result<(), RebaseError>,
) -> Result<Vec<&'static str>, RebaseError> {
    let (app, run_image) = (&app.configuration, &run_image.configuration);
    if is_older(app)? {
        check_stack(app, run_image)?;
        check_mixins(app, run_image)?;
        return Ok(vec!["stack and mixins are the same"]);
    }
    let mut checked = Vec::new();
    if label(app, REBASABLE) == "false" {
        refuse(Refusal::NotRebasable)?;
    } else {
        checked.push("it may be rebased");
    }
    if fits(app, run_image) {
        checked.push("system and distribution are the same");
    } else {
        refuse(Refusal::Target { app: target(app), run_image: target(run_image) })?;
    }
    Ok(checked)
}

/// Whether an image is from before there were targets (RBS-05).
fn is_older(app: &ImageConfiguration) -> Result<bool, RebaseError> {
    match app.config.variable(API_VARIABLE) {
        None | Some("") => Ok(true),
        Some(text) => match text.parse::<ApiVersion>() {
            Ok(api) => Ok(api < ApiVersion::zero(TARGETS_SINCE)),
            Err(_) => Err(RebaseError::Api { value: text.escape_debug().to_string() }),
        },
    }
}

/// RBS-06
fn check_stack(app: &ImageConfiguration, run_image: &ImageConfiguration) -> Result<(), RebaseError> {
    let (of_app, of_run_image) = (label(app, STACK_ID), label(run_image, STACK_ID));
    if of_app.is_empty() || of_app != of_run_image {
        return Err(RebaseError::Stack { app: of_app.to_owned(), run_image: of_run_image.to_owned() });
    }
    Ok(())
}

/// RBS-06
fn check_mixins(app: &ImageConfiguration, run_image: &ImageConfiguration) -> Result<(), RebaseError> {
    let offered = mixins(run_image)?;
    let mut missing: Vec<String> =
        mixins(app)?.into_iter().filter(|mixin| !offered.contains(mixin)).collect();
    missing.sort();
    missing.dedup();
    if missing.is_empty() { Ok(()) } else { Err(RebaseError::Mixins { missing }) }
}

/// Mixins of an image, without the stage they are for.
fn mixins(image: &ImageConfiguration) -> Result<Vec<String>, RebaseError> {
    let text = label(image, MIXINS);
    if text.is_empty() {
        return Ok(vec![]);
    }
    let mixins: Option<Vec<String>> = serde_json::from_str(text)
        .map_err(|error| RebaseError::Label { name: MIXINS, reason: error.to_string() })?;
    let bare = |mixin: String| match mixin.split_once(':') {
        Some((_, bare)) => bare.to_owned(),
        None => mixin,
    };
    Ok(mixins.unwrap_or_default().into_iter().map(bare).collect())
}

/// RBS-08
fn fits(app: &ImageConfiguration, run_image: &ImageConfiguration) -> bool {
    let variants = [app, run_image].map(|image| image.variant.as_deref().unwrap_or_default());
    let is_kept = |name| matches!(label(run_image, name), "") || label(run_image, name) == label(app, name);
    app.os == run_image.os
        && app.architecture == run_image.architecture
        && (variants.contains(&"") || variants[0] == variants[1])
        && is_kept(DISTRO_NAME)
        && is_kept(DISTRO_VERSION)
}

fn target(image: &ImageConfiguration) -> TargetText {
    let parts = [&image.os, &image.architecture, image.variant.as_deref().unwrap_or_default()];
    let system: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let distro = [label(image, DISTRO_NAME), label(image, DISTRO_VERSION)];
    let distro: Vec<&str> = distro.into_iter().filter(|part| !part.is_empty()).collect();
    TargetText([vec![system.join("/")], distro.into_iter().map(str::to_owned).collect()].concat().join(" "))
}

fn label<'a>(image: &'a ImageConfiguration, name: &str) -> &'a str {
    image.config.labels.get(name).map(String::as_str).unwrap_or_default()
}
