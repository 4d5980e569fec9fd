//! `extender`: lets pass what needs no Dockerfile to be applied, and refuses the rest.

use std::io;
use std::path::PathBuf;

use super::builder;
use super::error::{BUILDPACK_API, of_file};
use super::files::{self, FileError};
use crate::cnb::api::{ApiVersion, PlatformApi};
use crate::cnb::dockerfile::{Dockerfile, DockerfileError, DockerfileKind, Instruction};
use crate::cnb::extension_toml::ExtensionDescriptor;
use crate::cnb::group_toml::Group;
use crate::cnb::id::{BuildpackRef, ExecEnv};
use crate::event::{Event, EventSink};
use crate::fault::{Diagnose, Fault};
use crate::phase::generate::{Generated, GeneratedFiles};

/// An image was not extended.
const EXTEND: u8 = 102;

/// Which image is extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtendKind {
    Build,
    Run,
}

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    pub exec_env: ExecEnv,
    pub kind: ExtendKind,
    pub analyzed: PathBuf,
    pub app: PathBuf,
    /// For the builder that follows.
    pub build_config: PathBuf,
    pub buildpacks: PathBuf,
    pub extended: PathBuf,
    pub generated: PathBuf,
    pub group: PathBuf,
    pub layers: PathBuf,
    pub plan: PathBuf,
    pub platform: PathBuf,
    pub owner: Option<(u32, u32)>,
}

/// Why an image was not extended.
#[derive(Debug, thiserror::Error)]
pub enum ExtendError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
    /// The API of an extension of the group.
    #[error("image extension `{extension}` uses Buildpack API {api}, which is not supported")]
    Api { extension: BuildpackRef, api: ApiVersion },
    /// A Dockerfile cannot be read, or lies behind a link.
    #[error("cannot read the Dockerfile of image extension `{extension}` for the {kind} image")]
    Read { extension: BuildpackRef, kind: &'static str, source: io::Error },
    /// A Dockerfile breaks a rule.
    #[error("`{}` of image extension `{extension}` is not valid", path.display())]
    Dockerfile { extension: BuildpackRef, path: PathBuf, source: DockerfileError },
    /// A Dockerfile that changes the image.
    #[error(
        "image extension `{extension}` changes the {kind} image, which wapack does not do: `{}`, line {}: `{instruction}`",
        path.display(), instruction.line
    )]
    Unsupported { extension: BuildpackRef, kind: &'static str, path: PathBuf, instruction: Instruction },
}

impl ExtendError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
            Self::Api { .. } => BUILDPACK_API,
            Self::Read { .. } | Self::Dockerfile { .. } | Self::Unsupported { .. } => EXTEND,
        }
    }
}

impl Diagnose for ExtendError {
    fn id(&self) -> &'static str {
        match self {
            Self::File(_) | Self::Read { .. } => "host.io",
            Self::Api { .. } => "buildpack.api_unsupported",
            Self::Dockerfile { .. } => "extension.bad_output",
            Self::Unsupported { .. } => "extension.unsupported",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::File(_) | Self::Read { .. } => Fault::Environment,
            Self::Api { .. } | Self::Dockerfile { .. } => Fault::Buildpack,
            Self::Unsupported { .. } => Fault::Caller,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unsupported { .. } => Some(
                "extensions that only choose another run image work; for this one run the extender of another \
                 lifecycle, or leave it out of the order"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl Inputs {
    /// What the builder is told, which follows when the build image is the kind.
    #[must_use]
    pub fn of_builder(&self) -> builder::Inputs {
        builder::Inputs {
            api: self.api,
            exec_env: self.exec_env.clone(),
            analyzed: self.analyzed.clone(),
            app: self.app.clone(),
            build_config: self.build_config.clone(),
            buildpacks: self.buildpacks.clone(),
            group: self.group.clone(),
            layers: self.layers.clone(),
            plan: self.plan.clone(),
            platform: self.platform.clone(),
        }
    }
}

/// Makes sure that no Dockerfile of the group's extensions has to be applied to the image.
///
/// Dockerfiles are not applied: one with any instruction behind `FROM` is an error.
/// After [`ExtendKind::Build`] the embedder goes on with [`builder::run`] and
/// [`Inputs::of_builder`], as the user that builds and no longer as root.
///
/// # Errors
/// [`ExtendError`].
///
/// # Spec
/// `platform.md` 0.15 "Phase: Extend"; EXT-04, EXT-06, EXT-07, and EXT-13, of which
/// only the choice of a run image is done.
pub fn run(inputs: &Inputs, events: &mut dyn EventSink) -> Result<(), ExtendError> {
    let group = files::read(&inputs.group, Group::parse)?;
    let (kind, image) = match inputs.kind {
        ExtendKind::Build => (DockerfileKind::Build, "build"),
        ExtendKind::Run => (DockerfileKind::Run, "run"),
    };
    let generated = GeneratedFiles::new(&inputs.generated, inputs.api);
    for element in &group.extensions {
        let extension = element.reference();
        if !element.api.is_supported() || element.api < ExtensionDescriptor::FIRST_API {
            return Err(ExtendError::Api { extension, api: element.api });
        }
        let written = generated.read(&extension.id, kind).map_err(|source| ExtendError::Read {
            extension: extension.clone(),
            kind: image,
            source,
        })?;
        let Some(Generated { path, text }) = written else { continue };
        let file = Dockerfile::parse(&text, kind).map_err(|source| ExtendError::Dockerfile {
            extension: extension.clone(),
            path: path.clone(),
            source,
        })?;
        if let Some(instruction) = file.instructions.into_iter().next() {
            return Err(ExtendError::Unsupported { extension, kind: image, path, instruction });
        }
    }
    let message = format!("no image extension changes the {image} image");
    events.event(Event::Note { message });
    Ok(())
}

#[cfg(test)]
mod tests;
