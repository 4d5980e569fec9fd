//! `analyzer`: finds the previous image and the run image.

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use super::ImagePlaces;
use super::error::{INVALID, of_file};
use super::files::{self, FileError};
use super::last_cache::{CacheInDaemon, check_place, verified};
use super::layers_dir::{LayersDir, LayersDirError};
use super::telling::{note, warn, with_causes};
use crate::cnb::analyzed_toml::{Analyzed, AnalyzedRunImage};
use crate::cnb::api::PlatformApi;
use crate::cnb::labels::{EXEC_ENV, LIFECYCLE_METADATA, LifecycleMetadata, MetadataError};
use crate::cnb::run_toml::RunToml;
use crate::cnb::target::STACK_ID_LABEL;
use crate::event::EventSink;
use crate::images::{FoundImage, Images, ImagesError, best_mirror, target_of};
use crate::oci::digest::DiffId;
use crate::oci::reference::{InvalidReference, Reference};
use crate::oci::unpack::{UnpackError, unpack};
use crate::text::harmless;
use crate::walk;

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    /// The image to be made; the previous one too, unless another is named.
    pub image: String,
    /// Further names of it.
    pub tags: Vec<String>,
    pub previous_image: Option<String>,
    pub run_image: Option<String>,
    /// The stack of this build image, if it says which.
    pub stack: Option<String>,
    /// `run.toml`; before Platform API 0.12 `stack.toml`.
    pub run: PathBuf,
    pub layers: PathBuf,
    pub analyzed: PathBuf,
    pub cache_image: Option<String>,
    /// Leave the layers of the previous image alone.
    pub skip_layers: bool,
    /// Who owns what is written; `None` leaves it as it is.
    pub owner: Option<(u32, u32)>,
}

/// Exit code for what the specification has no other for.
const ANALYZE: u8 = 32;

/// Why the images are not known.
#[derive(Debug, thiserror::Error)]
pub enum AnalyzeError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name that names no image.
    #[error(transparent)]
    Name(#[from] InvalidReference),
    /// ANA-01
    #[error("`{first}` and `{second}` are on different registries")]
    Registries { first: String, second: String },
    /// The file with the names of run images.
    #[error("cannot choose a run image")]
    RunToml(#[source] FileError),
    /// None is given and the platform offers none (ANA-08).
    #[error("there is no run image: none is given, and `{}` names none", run.display())]
    NoRunImage { run: PathBuf },
    /// None of its names can be read (RUN-02).
    #[error("the run image `{name}` cannot be read, nor any of its mirrors")]
    NoReadableRunImage {
        name: String,
        /// What is wrong with the image itself; `None` when it is not there.
        source: Option<ImagesError>,
    },
    #[error("the run image `{name}` cannot be read")]
    RunImage { name: String, source: Option<ImagesError> },
    #[error("the run image `{name}` does not say which operating system it is for")]
    NoSystem { name: String },
    /// Before Platform API 0.12 both are of one stack (TGT-15).
    #[error("the run image `{name}` is of the stack `{found}`, and this build image of `{own}`")]
    Stacks { name: String, found: String, own: String },
    #[error("the previous image `{name}` cannot be read")]
    PreviousImage { name: String, source: ImagesError },
    /// It could not be kept (ANA-02).
    #[error("there is no access to write image `{name}`")]
    Access { name: String, source: ImagesError },
    #[error(transparent)]
    CacheInDaemon(#[from] CacheInDaemon),
    /// What is known of the images does not fit into `analyzed.toml`.
    #[error("cannot write what is known of the images")]
    Analyzed(#[source] MetadataError),
    /// The layers directory.
    #[error(transparent)]
    Layers(#[from] LayersDirError),
    /// There is no room for the bills of materials, or no right to write them.
    #[error("cannot unpack the bills of materials of the previous image")]
    Sbom(#[source] UnpackError),
    /// What was written cannot be given to its owner.
    #[error("cannot give `{}` to its owner", path.display())]
    Owner { path: PathBuf, source: std::io::Error },
}

impl AnalyzeError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
            Self::Name(_)
            | Self::Registries { .. }
            | Self::CacheInDaemon(_)
            | Self::RunToml(_)
            | Self::NoRunImage { .. }
            | Self::NoReadableRunImage { .. } => INVALID,
            Self::RunImage { .. }
            | Self::NoSystem { .. }
            | Self::Stacks { .. }
            | Self::PreviousImage { .. }
            | Self::Access { .. }
            | Self::Analyzed(_)
            | Self::Layers(_)
            | Self::Sbom(_)
            | Self::Owner { .. } => ANALYZE,
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`AnalyzeError`]. A previous image that is not there, or damaged, is none.
///
/// # Spec
/// `platform.md` 0.15 "Phase: Analysis"; ANA-01 to ANA-10, RUN-01 to RUN-04.
pub fn run(inputs: &Inputs, places: ImagePlaces<'_>, events: &mut dyn EventSink) -> Result<(), AnalyzeError> {
    let ImagePlaces { images, caches } = places;
    check_names(inputs, images)?;
    let cache_image = inputs.cache_image.as_deref();
    cache_image.map_or(Ok(()), |name| check_place(caches, name))?;
    let run_image = choose_run_image(inputs, images)?;
    let names = std::iter::once(&inputs.image).chain(&inputs.tags).map(|name| (images, name));
    for (place, name) in names.chain(inputs.cache_image.iter().map(|name| (caches, name))) {
        let failed = |source| AnalyzeError::Access { name: name.clone(), source };
        place.check_write(name).map_err(failed)?;
    }
    let previous = find_previous(inputs, images, events)?;
    let run_image = look_at_run_image(&run_image, inputs, images)?;
    let (reference, metadata) = match &previous {
        Some(previous) => read_label(previous, events),
        None => (String::new(), LifecycleMetadata::default()),
    };
    let sbom = metadata.sbom.as_ref().filter(|sbom| !sbom.sha.is_empty());
    if let (Some(previous), Some(sbom)) = (&previous, sbom)
        && inputs.api.at_least(8)
        && !inputs.skip_layers
    {
        unpack_sboms(inputs, images, previous, &sbom.sha, events)?;
    }
    let analyzed = Analyzed {
        previous_image: Some(reference),
        metadata,
        run_image: Some(run_image),
        ..Analyzed::default()
    };
    files::write(&inputs.analyzed, &analyzed.to_toml().map_err(AnalyzeError::Analyzed)?)?;
    if let Some(owner) = inputs.owner {
        give(inputs, owner)?;
    }
    Ok(())
}

/// ANA-01
fn check_names(inputs: &Inputs, images: &dyn Images) -> Result<(), AnalyzeError> {
    let Inputs { image, tags, previous_image, run_image, cache_image, .. } = inputs;
    for name in [previous_image, run_image, cache_image].into_iter().flatten() {
        name.parse::<Reference>()?;
    }
    let first: Reference = image.parse()?;
    for tag in tags {
        let other: Reference = tag.parse()?;
        if other.registry() != first.registry() && !images.is_daemon() {
            return Err(AnalyzeError::Registries { first: image.clone(), second: tag.clone() });
        }
    }
    Ok(())
}

/// RUN-01 to RUN-03, ANA-08
fn choose_run_image(inputs: &Inputs, images: &dyn Images) -> Result<String, AnalyzeError> {
    if let Some(name) = &inputs.run_image {
        return Ok(name.clone());
    }
    let parse = if inputs.api.at_least(12) { RunToml::parse } else { RunToml::parse_stack };
    let offered = files::read_if_there(&inputs.run, parse).map_err(AnalyzeError::RunToml)?;
    let names = offered.unwrap_or_default().images.into_iter().next();
    let names = names.filter(|names| !names.image.is_empty());
    let names = names.ok_or_else(|| AnalyzeError::NoRunImage { run: inputs.run.clone() })?;
    let best = best_mirror(images, &inputs.image, &names).map(str::to_owned);
    best.ok_or_else(|| {
        let source = images.find(&names.image).err();
        AnalyzeError::NoReadableRunImage { name: names.image, source }
    })
}

/// ANA-03
fn find_previous(
    inputs: &Inputs,
    images: &dyn Images,
    events: &mut dyn EventSink,
) -> Result<Option<FoundImage>, AnalyzeError> {
    let name = inputs.previous_image.as_ref().unwrap_or(&inputs.image);
    match images.find(name) {
        Ok(None) => {
            note(events, format!("there is no previous image `{}`", harmless(name)));
            Ok(None)
        }
        Ok(found) => Ok(found),
        Err(error @ ImagesError::Damaged { .. }) => {
            warn(events, format!("the previous image is not used: {}", with_causes(&error)));
            Ok(None)
        }
        Err(source) => Err(AnalyzeError::PreviousImage { name: name.clone(), source }),
    }
}

/// The reference of the previous image, and its label.
///
/// # Spec
/// ANA-04, ANA-05, QRK-16.
fn read_label(previous: &FoundImage, events: &mut dyn EventSink) -> (String, LifecycleMetadata) {
    let labels = &previous.image.configuration.config.labels;
    let reference = previous.reference.clone();
    let Some(text) = labels.get(LIFECYCLE_METADATA) else {
        return (reference, LifecycleMetadata::default());
    };
    let metadata = serde_json::from_str::<LifecycleMetadata>(text);
    // What cannot be written to `analyzed.toml` cannot be used either.
    let usable = metadata.map_err(|error| error.to_string()).and_then(|metadata| {
        let analyzed = Analyzed { metadata, ..Analyzed::default() };
        analyzed.to_toml().map_err(|error| error.to_string())?;
        Ok(analyzed.metadata)
    });
    match usable {
        Ok(mut metadata) => {
            // Images of the reference lifecycle say it in a label of its own (EXE-03).
            metadata.exec_env = metadata.exec_env.or_else(|| labels.get(EXEC_ENV).cloned());
            (reference, metadata)
        }
        Err(reason) => {
            warn(
                events,
                format!(
                    "the previous image is not used: its label `{LIFECYCLE_METADATA}` is not valid: {}",
                    harmless(&reason)
                ),
            );
            (String::new(), LifecycleMetadata::default())
        }
    }
}

/// ANA-06
fn look_at_run_image(
    name: &str,
    inputs: &Inputs,
    images: &dyn Images,
) -> Result<AnalyzedRunImage, AnalyzeError> {
    let failed = |source| AnalyzeError::RunImage { name: name.to_owned(), source };
    let found = images.find(name).map_err(|error| failed(Some(error)))?.ok_or_else(|| failed(None))?;
    let target = target_of(&found.image.configuration);
    if !inputs.api.at_least(12) {
        check_stack(name, inputs, &found)?;
        return Ok(AnalyzedRunImage { reference: found.reference, ..AnalyzedRunImage::default() });
    }
    if target.os.is_empty() {
        return Err(AnalyzeError::NoSystem { name: name.to_owned() });
    }
    Ok(AnalyzedRunImage {
        reference: found.reference,
        image: name.to_owned(),
        extend: false,
        target: Some(target),
    })
}

/// TGT-15: what one of them does not say is no difference. Mixins are in labels of
/// both images, and this one is not to be looked at from within.
fn check_stack(name: &str, inputs: &Inputs, run_image: &FoundImage) -> Result<(), AnalyzeError> {
    let found = run_image.image.configuration.config.labels.get(STACK_ID_LABEL);
    match (found.filter(|found| !found.is_empty()), &inputs.stack) {
        (Some(found), Some(own)) if found != own => {
            Err(AnalyzeError::Stacks { name: name.to_owned(), found: harmless(found), own: harmless(own) })
        }
        _ => Ok(()),
    }
}

/// Unpacks the bills of materials of the previous image, for the restorer to pick
/// from. Those of another layers directory, or damaged ones, are left out.
///
/// # Spec
/// ANA-07.
fn unpack_sboms(
    inputs: &Inputs,
    images: &dyn Images,
    previous: &FoundImage,
    sha: &str,
    events: &mut dyn EventSink,
) -> Result<(), AnalyzeError> {
    let layers = LayersDir::open(&inputs.layers)?;
    layers.remove_sboms(Some("launch"))?;
    let reason = match sha.parse::<DiffId>() {
        Err(error) => with_causes(&error),
        Ok(diff_id) => match images.layer(previous, &diff_id) {
            Err(error) => with_causes(&error),
            Ok(tar) => match unpack(verified(tar, &diff_id), layers.place("sbom/launch")) {
                Ok(_) => return Ok(()),
                Err(error) if error.is_of_machine() => return Err(AnalyzeError::Sbom(error)),
                Err(error) => with_causes(&error),
            },
        },
    };
    layers.remove_sboms(Some("launch"))?;
    warn(events, format!("the bills of materials of the previous image are not used: {reason}"));
    Ok(())
}

fn give(inputs: &Inputs, owner: (u32, u32)) -> Result<(), AnalyzeError> {
    let failed = |path: &PathBuf, source| AnalyzeError::Owner { path: path.clone(), source };
    let (user, group) = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
    rustix::fs::chown(&inputs.analyzed, Some(user), Some(group))
        .map_err(|error| failed(&inputs.analyzed, error.into()))?;
    if inputs.layers.exists() {
        let other = |error| failed(&inputs.layers, std::io::Error::other(error));
        walk::give(&inputs.layers, owner).map_err(other)?;
    }
    Ok(())
}
