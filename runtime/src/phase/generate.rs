//! What image extensions want: Dockerfiles for the build image and the run image.
//!
//! Runs `bin/generate`, checks what it made, and decides which run image is used.
//! Nothing is applied here.

mod output;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

pub use self::output::{Generated, GeneratedFiles};

use crate::cancel::Cancel;
use crate::catalog::Extension;
use crate::cnb::analyzed_toml::{Analyzed, AnalyzedRunImage};
use crate::cnb::api::PlatformApi;
use crate::cnb::build_plan::{BuildPlan, Requirement};
use crate::cnb::dockerfile::{Dockerfile, DockerfileError, DockerfileKind};
use crate::cnb::id::{BuildpackRef, ExecEnv};
use crate::cnb::run_toml::RunToml;
use crate::cnb::target::Target;
use crate::cnb::{buildpack_plan, extend_config::ExtendConfig};
use crate::event::{Event, EventSink};
use crate::executor::process::{GenerateInputs, generate as run_generate};
use crate::executor::{CallInputs, GuestFailure, LogSink};
use crate::fault::{Diagnose, Fault};
use crate::grant::Grants;
use crate::limits::Limits;
use crate::toml_text::TomlError;
use crate::walk::{self, WalkError};
use crate::workspace::Workspace;

/// What generating depends on.
#[derive(Debug, Clone, Copy)]
pub struct GenerateRequest<'a> {
    pub api: PlatformApi,
    pub limits: &'a Limits,
    pub target: &'a Target,
    pub exec_env: &'a ExecEnv,
    /// Where Dockerfiles are put for the extender.
    pub generated: &'a Path,
    /// Run images that the platform knows.
    pub run_images: &'a RunToml,
    pub cancel: &'a Cancel,
}

/// What extensions change before anything is built.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// With the run image they chose, and which images they add to.
    pub analyzed: Analyzed,
    /// Without what they provide (UNM-06).
    pub plan: BuildPlan,
}

/// Why there are no Dockerfiles.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The extension's own program.
    #[error("image extension `{extension}` failed")]
    Failed { extension: BuildpackRef, source: GuestFailure },
    /// It could not be run.
    #[error("image extension `{extension}` cannot be run")]
    NotRun { extension: BuildpackRef, source: Option<GuestFailure> },
    /// What it made breaks a rule.
    #[error("`{file}` of image extension `{extension}` is not valid")]
    Dockerfile { extension: BuildpackRef, file: &'static str, source: DockerfileError },
    /// Its arguments for Dockerfiles.
    #[error("`extend-config.toml` of image extension `{extension}` is not valid")]
    Config { extension: BuildpackRef, source: TomlError },
    /// `context` is for both images, `context.build` and `context.run` for one.
    #[error("image extension `{extension}` made `context` and `{other}`, which exclude each other")]
    Contexts { extension: BuildpackRef, other: &'static str },
    /// A file or directory of what it made.
    #[error("cannot use `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The files it has instead of `bin/generate`.
    #[error("cannot copy `{}`", path.display())]
    Copy { path: PathBuf, source: WalkProblem },
}

/// Why a tree could not be copied.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WalkProblem(#[from] WalkError);

impl From<io::Error> for WalkProblem {
    fn from(source: io::Error) -> Self {
        Self(WalkError::Io { path: PathBuf::new(), source })
    }
}

impl Diagnose for GenerateError {
    fn id(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "extension.failed",
            Self::NotRun { .. } => "extension.not_run",
            Self::Dockerfile { .. } | Self::Config { .. } | Self::Contexts { .. } => "extension.bad_output",
            Self::Io { .. } | Self::Copy { .. } => "host.io",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Io { .. } | Self::Copy { .. } => Fault::Environment,
            _ => Fault::Buildpack,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Failed { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// A Dockerfile of an extension.
struct Written {
    extension: BuildpackRef,
    file: Dockerfile,
    path: PathBuf,
}

/// Has every extension generate what it wants, in order.
///
/// # Errors
/// [`GenerateError`].
///
/// # Spec
/// `image_extension.md` "Generation"; EXT-02 to EXT-07, EXT-10, UNM-06.
pub fn generate(
    request: &GenerateRequest<'_>,
    extensions: &[&Extension],
    mut plan: BuildPlan,
    analyzed: Analyzed,
    workspace: &Workspace,
    events: &mut dyn EventSink,
) -> Result<Outcome, GenerateError> {
    let files = GeneratedFiles::new(request.generated, request.api);
    let mut run_files = Vec::new();
    let mut extends_build = false;
    for extension in extensions {
        let given = take_plan(&mut plan, extension);
        let made = files.made_by(&extension.reference.id, workspace.root());
        run(request, extension, &given, &made, workspace, events)?;
        check_arguments_and_contexts(extension, &made)?;
        for kind in [DockerfileKind::Run, DockerfileKind::Build] {
            let Some(file) = dockerfile(extension, &made, kind, events)? else { continue };
            let path = files
                .keep(&made, &extension.reference.id, kind)
                .map_err(|source| GenerateError::Io { path: made.clone(), source })?;
            match kind {
                DockerfileKind::Build => extends_build |= file.extends(),
                DockerfileKind::Run => {
                    run_files.push(Written { extension: extension.reference.clone(), file, path });
                }
            }
        }
    }
    let mut analyzed = switch_run_image(request, analyzed, &run_files, events)?;
    analyzed.extend_build_image |= extends_build;
    Ok(Outcome { analyzed, plan })
}

/// The entries an extension provides. It satisfies all of them, so that nobody
/// behind it gets them (EXT-03, UNM-06).
fn take_plan(plan: &mut BuildPlan, extension: &Extension) -> Vec<Requirement> {
    let provides = |entry: &crate::cnb::build_plan::BuildPlanEntry| {
        entry
            .providers
            .iter()
            .any(|provider| provider.extension && provider.buildpack.id == extension.reference.id)
    };
    let (given, left) = std::mem::take(&mut plan.entries).into_iter().partition::<Vec<_>, _>(provides);
    let names: BTreeSet<&str> = given.iter().map(|entry| entry.name.as_str()).collect();
    plan.entries = left.into_iter().filter(|entry| !names.contains(entry.name.as_str())).collect();
    given.into_iter().flat_map(|entry| entry.requires).collect()
}

/// Runs `bin/generate` with `made` as its output; without one, what lies in the
/// extension's `generate` directory is its output.
fn run(
    request: &GenerateRequest<'_>,
    extension: &Extension,
    given: &[Requirement],
    made: &Path,
    workspace: &Workspace,
    events: &mut dyn EventSink,
) -> Result<(), GenerateError> {
    let io = |source| GenerateError::Io { path: made.to_owned(), source };
    let reference = &extension.reference;
    // Private to this call: nothing of an earlier one is taken for its output.
    walk::remove(made).map_err(io)?;
    fs_err::create_dir_all(made).map_err(io)?;
    if extension.directory.join("bin/generate").symlink_metadata().is_err() {
        let prepared = extension.directory.join("generate");
        return match output::copy(&prepared, made) {
            Err(source) => Err(GenerateError::Copy { path: prepared, source }),
            Ok(()) => Ok(()),
        };
    }
    let program = workspace
        .extension_program(extension)
        .ok_or_else(|| GenerateError::NotRun { extension: reference.clone(), source: None })?;
    let inputs = GenerateInputs {
        call: CallInputs {
            buildpack: reference.clone(),
            program,
            mounts: Vec::new(),
            environment: workspace.extension_environment(extension, request.target, None),
            target: request.target.clone(),
            exec_env: request.exec_env.clone(),
            user_env: std::collections::BTreeMap::new(),
            metadata: String::new(),
            grants: Grants::default(),
            limits: request.limits.for_build(),
        },
        plan: buildpack_plan::to_toml(given, extension.descriptor.api),
        output: made.to_owned(),
    };
    run_generate(&inputs, request.cancel, &mut Lines(events)).map_err(|source| match source {
        source @ GuestFailure::WorkerUnavailable { .. } => {
            GenerateError::NotRun { extension: reference.clone(), source: Some(source) }
        }
        source => GenerateError::Failed { extension: reference.clone(), source },
    })
}

fn check_arguments_and_contexts(extension: &Extension, made: &Path) -> Result<(), GenerateError> {
    let reference = || extension.reference.clone();
    let path = made.join("extend-config.toml");
    let text = output::read_beneath(made, Path::new("extend-config.toml"))
        .map_err(|source| GenerateError::Io { path, source })?;
    if let Some(text) = text {
        ExtendConfig::parse(&text)
            .map_err(|source| GenerateError::Config { extension: reference(), source })?;
    }
    let has = |name: &str| made.join(name).symlink_metadata().is_ok_and(|status| status.is_dir());
    match ["context.build", "context.run"].into_iter().find(|other| has("context") && has(other)) {
        Some(other) => Err(GenerateError::Contexts { extension: reference(), other }),
        None => Ok(()),
    }
}

/// Reads a Dockerfile, and warns of what is not foreseen in it.
fn dockerfile(
    extension: &Extension,
    made: &Path,
    kind: DockerfileKind,
    events: &mut dyn EventSink,
) -> Result<Option<Dockerfile>, GenerateError> {
    let name = kind.file_name();
    let text = output::read_beneath(made, Path::new(name))
        .map_err(|source| GenerateError::Io { path: made.join(name), source })?;
    let Some(text) = text else { return Ok(None) };
    let file = Dockerfile::parse(&text, kind).map_err(|source| GenerateError::Dockerfile {
        extension: extension.reference.clone(),
        file: name,
        source,
    })?;
    for instruction in file.instructions.iter().filter(|instruction| !instruction.is_foreseen()) {
        let (extension, line) = (&extension.reference, instruction.line);
        let message = format!(
            "`{name}` of image extension `{extension}`: `{}` in line {line} is not recommended",
            instruction.name
        );
        events.event(Event::Warning { message });
    }
    Ok(Some(file))
}

/// The last Dockerfile that names another image decides; those before it are
/// put out of the way.
fn switch_run_image(
    request: &GenerateRequest<'_>,
    mut analyzed: Analyzed,
    files: &[Written],
    events: &mut dyn EventSink,
) -> Result<Analyzed, GenerateError> {
    let switch = files.iter().rposition(|written| written.file.new_base.is_some());
    let (ignored, remaining) = files.split_at(switch.unwrap_or(0));
    for Written { path, .. } in ignored {
        let mut aside = path.clone().into_os_string();
        aside.push(".ignore");
        fs_err::rename(path, &aside).map_err(|source| GenerateError::Io { path: path.clone(), source })?;
    }
    let extends = remaining.iter().any(|written| written.file.extends());
    let chosen =
        remaining.first().and_then(|written| Some((&written.extension, written.file.new_base.as_ref()?)));
    let known = analyzed.run_image.as_ref().map(|run_image| run_image.image.as_str());
    // Before Platform API 0.12 the name is not recorded.
    let is_new = |image: &str| !request.api.at_least(12) || known != Some(image);
    if let Some((extension, image)) = chosen.filter(|(_, image)| is_new(image)) {
        let listed = request
            .run_images
            .images
            .iter()
            .any(|listed| listed.image == *image || listed.mirrors.iter().any(|mirror| mirror == image));
        if !listed {
            let image = crate::text::harmless(image);
            let message = format!(
                "image extension `{extension}` takes the run image `{image}`, which the platform does not list"
            );
            events.event(Event::Warning { message });
        }
        // Whatever was known of the image before is not known of this one (CON-33).
        analyzed.run_image = Some(if request.api.at_least(12) {
            AnalyzedRunImage { image: image.clone(), ..AnalyzedRunImage::default() }
        } else {
            AnalyzedRunImage { reference: image.clone(), ..AnalyzedRunImage::default() }
        });
    }
    if let Some(run_image) = &mut analyzed.run_image {
        run_image.extend |= extends;
    }
    Ok(analyzed)
}

/// Passes lines of extensions on as events.
struct Lines<'a>(&'a mut dyn EventSink);

impl LogSink for Lines<'_> {
    fn line(&mut self, extension: &BuildpackRef, line: &str) {
        self.0.event(Event::Output { buildpack: extension.clone(), line: line.to_owned() });
    }
}
