//! `rebaser`: puts the layers of an image on another run image.

use std::path::PathBuf;

use super::error::INVALID;
use super::files::{self, FileError};
use crate::cancel::Cancel;
use crate::cnb::api::PlatformApi;
use crate::event::{Event, EventSink};
use crate::images::{FoundImage, Images, ImagesError, best_mirror};
use crate::oci::reference::{InvalidReference, Reference};
use crate::phase::rebase::{NewRunImage, RebaseError, RebaseRequest, rebase, recorded_run_image};

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    /// All names of the image; the first is also the image to work on.
    pub images: Vec<String>,
    pub previous_image: Option<String>,
    pub run_image: Option<String>,
    pub force: bool,
    pub report: PathBuf,
}

/// Why the image was not rebased.
#[derive(Debug, thiserror::Error)]
pub enum RebaserError {
    /// Nothing says which image.
    #[error("no image is named")]
    NoImage,
    /// A name that names no image.
    #[error(transparent)]
    Name(#[from] InvalidReference),
    /// Blobs are shared inside of a registry only.
    #[error("`{first}` and `{other}` are on different registries")]
    Registries { first: String, other: String },
    /// The image to work on.
    #[error("there is no image `{name}`")]
    NoSuchImage { name: String },
    /// Neither an argument nor the image says which.
    #[error("no run image is named, neither with the image nor by it")]
    NoRunImage,
    /// Under all of the names that the image knows.
    #[error("no run image of the names `{}` can be read", names.join("`, `"))]
    NoMirror { names: Vec<String> },
    /// The new run image.
    #[error("cannot read the run image `{name}`")]
    RunImage {
        name: String,
        /// `None` when there is none.
        source: Option<ImagesError>,
    },
    /// Reading the image or writing the new one.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// A rule of rebasing.
    #[error(transparent)]
    Rebase(#[from] RebaseError),
    /// The report.
    #[error(transparent)]
    Report(#[from] FileError),
}

/// Failed to rebase.
const REBASE: u8 = 72;

impl RebaserError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::NoImage | Self::Name(_) | Self::Registries { .. } => INVALID,
            Self::RunImage { .. } => super::GENERIC,
            Self::NoSuchImage { .. }
            | Self::NoRunImage
            | Self::NoMirror { .. }
            | Self::Images(_)
            | Self::Rebase(_)
            | Self::Report(_) => REBASE,
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`RebaserError`]; before the image is written, nothing has changed.
///
/// # Spec
/// `platform.md` 0.15 "Rebase"; RBS-01 to RBS-18.
pub fn run(
    inputs: &Inputs,
    images: &dyn Images,
    cancel: &Cancel,
    events: &mut dyn EventSink,
) -> Result<(), RebaserError> {
    let output = inputs.images.first().ok_or(RebaserError::NoImage)?;
    if !images.is_daemon() {
        check_names(inputs)?;
    }
    let name = inputs.previous_image.as_ref().unwrap_or(output);
    let app = images.find(name)?.ok_or_else(|| RebaserError::NoSuchImage { name: name.clone() })?.image;

    let run_image_name = if let Some(name) = &inputs.run_image {
        name.clone()
    } else {
        let names = recorded_run_image(&app, inputs.api)?.ok_or(RebaserError::NoRunImage)?;
        let best = best_mirror(images, name, &names).map(str::to_owned);
        best.ok_or_else(|| RebaserError::NoMirror {
            names: std::iter::once(names.image).chain(names.mirrors).collect(),
        })?
    };
    let run_image = run_image(images, &run_image_name)?;
    let request = RebaseRequest {
        app: &app,
        run_image: NewRunImage {
            image: &run_image.image,
            name: &run_image_name,
            reference: &run_image.reference,
        },
        api: inputs.api,
        force: inputs.force,
    };
    let rebased = rebase(&request)?;
    for refusal in &rebased.overruled {
        events.event(Event::Warning { message: refusal.to_string() });
    }

    // Blobs are where they were found: nothing of them is kept elsewhere.
    let saved = images.save(&rebased.image, &inputs.images, &(), cancel, events)?;
    let digest = saved.digest.as_ref().map(ToString::to_string).or(saved.id.clone()).unwrap_or_default();
    for message in saved.warnings() {
        events.event(Event::Warning { message });
    }
    for name in &saved.names {
        events.event(Event::ImageWritten {
            reference: name.clone(),
            digest: digest.clone(),
            bytes: rebased.image.bytes(),
        });
    }
    files::write(&inputs.report, &saved.report().to_toml())?;
    Ok(())
}

/// All names are names, and those to be written are on one registry (RBS-01).
fn check_names(inputs: &Inputs) -> Result<(), RebaserError> {
    let mut first: Option<(&String, Reference)> = None;
    for name in &inputs.images {
        let reference: Reference = name.parse()?;
        match &first {
            Some((first, registry)) if registry.registry() != reference.registry() => {
                return Err(RebaserError::Registries { first: (*first).clone(), other: name.clone() });
            }
            Some(_) => {}
            None => first = Some((name, reference)),
        }
    }
    for name in inputs.previous_image.iter().chain(&inputs.run_image) {
        name.parse::<Reference>()?;
    }
    Ok(())
}

fn run_image(images: &dyn Images, name: &str) -> Result<FoundImage, RebaserError> {
    let failed = |source| RebaserError::RunImage { name: name.to_owned(), source };
    images.find(name).map_err(|error| failed(Some(error)))?.ok_or_else(|| failed(None))
}

#[cfg(test)]
mod tests;
