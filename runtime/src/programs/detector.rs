//! `detector`: finds the group that builds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::Services;
use super::builder::digest;
use super::error::{BUILDPACK_API, GENERIC, of_file};
use super::files::{self, FileError};
use super::scratch::Scratch;
use super::target::{OS_RELEASE, disagreements, target_of};
use super::telling;
use crate::catalog::{Builder, BuildpackKind, CatalogError, Installed};
use crate::cnb::analyzed_toml::Analyzed;
use crate::cnb::api::PlatformApi;
use crate::cnb::group_toml::{Group, GroupElement};
use crate::cnb::id::{BuildpackRef, ExecEnv};
use crate::cnb::labels::MetadataError;
use crate::cnb::order::OrderToml;
use crate::cnb::run_toml::RunToml;
use crate::cnb::system_toml::SystemToml;
use crate::cnb::target::Target;
use crate::event::{Event, EventSink, Verdict};
use crate::executor::by_kind::ByKind;
use crate::executor::process::ProcessExecutor;
use crate::executor::process::variables::VariablesError;
use crate::executor::worker::{Root, WorkerExecutor};
use crate::phase::detect::{DetectError, DetectRequest, Detected, detect};
use crate::phase::generate::{GenerateError, GenerateRequest, generate};
use crate::workspace::{Places, Surroundings, Workspace};

/// The order of a builder image, where nothing else says one.
const ORDER_OF_IMAGE: &str = "/cnb/order.toml";

/// No group passed, and nobody went wrong.
const NOBODY: u8 = 20;
/// No group passed, and somebody went wrong.
const NOBODY_WITH_ERRORS: u8 = 21;
/// Detection itself went wrong.
const DETECT: u8 = 22;
/// `bin/generate` of an extension failed.
const GENERATE_FAILED: u8 = 91;
/// Generating went wrong otherwise.
const GENERATE: u8 = 92;

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    pub exec_env: ExecEnv,
    pub app: PathBuf,
    pub analyzed: PathBuf,
    pub build_config: PathBuf,
    pub buildpacks: PathBuf,
    pub extensions: PathBuf,
    pub generated: PathBuf,
    pub group: PathBuf,
    pub layers: PathBuf,
    /// As it was given; the defaults are looked for (ORD-15).
    pub order: Option<PathBuf>,
    pub plan: PathBuf,
    pub platform: PathBuf,
    pub run: PathBuf,
    pub system: PathBuf,
}

/// Why no group builds.
#[derive(Debug, thiserror::Error)]
pub enum DetectorError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody the order names cannot be loaded.
    #[error("the order `{}` cannot be used", path.display())]
    Order { path: PathBuf, source: CatalogError },
    /// Image extensions are experimental for the Platform API, and nobody agreed.
    #[error("the order `{}` has image extensions, which are experimental before Platform API 0.13", path.display())]
    Experimental { path: PathBuf },
    /// The user's or the operator's variables.
    #[error("the variables of the platform cannot be read")]
    Variables(#[from] VariablesError),
    /// A path that cannot be told to buildpacks.
    #[error("`{}` is not UTF-8", path.display())]
    Path { path: PathBuf },
    /// The directory for what is not kept.
    #[error("cannot make a temporary directory in `{}`", parent.display())]
    Work { parent: PathBuf, source: io::Error },
    /// No group passed, or it could not be found out.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// Image extensions take part where they are not run.
    #[error("image extension `{extension}` takes part, and the creator runs no extensions")]
    HasExtensions { extension: BuildpackRef },
    /// An image extension.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// What was analyzed cannot be written again.
    #[error("cannot write `analyzed.toml`")]
    Analyzed(#[from] MetadataError),
}

impl DetectorError {
    /// # Spec
    /// DET-10, ORD-10, EXT-02.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
            Self::Order { source, .. } => match source {
                error if error.is_api_unsupported() => BUILDPACK_API,
                CatalogError::Member { .. } => DETECT,
                _ => GENERIC,
            },
            Self::Experimental { .. }
            | Self::Path { .. }
            | Self::Variables(_)
            | Self::Work { .. }
            | Self::Analyzed(_) => GENERIC,
            Self::Detect(error) => match error {
                DetectError::NobodyTakesPart { with_errors: false, .. } => NOBODY,
                DetectError::NobodyTakesPart { with_errors: true, .. } => NOBODY_WITH_ERRORS,
                DetectError::Order(error) if error.is_api_unsupported() => BUILDPACK_API,
                _ => DETECT,
            },
            Self::HasExtensions { .. } => DETECT,
            Self::Generate(GenerateError::Failed { .. }) => GENERATE_FAILED,
            Self::Generate(_) => GENERATE,
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`DetectorError`].
///
/// # Spec
/// `platform.md` 0.15 "Phase: Detection"; ORD-01 to ORD-15, DET-01 to DET-15. That it
/// refuses to run as root (DET-16) is the embedder's.
pub fn run(inputs: &Inputs, services: &mut Services<'_>) -> Result<(), DetectorError> {
    run_with(inputs, services, Extensions::Generate)
}

/// Runs it as a part of the creator, which does not run image extensions.
///
/// # Errors
/// [`DetectorError`]; [`DetectorError::HasExtensions`] when the group that builds has some (CRE-02).
pub fn run_in_creator(inputs: &Inputs, services: &mut Services<'_>) -> Result<(), DetectorError> {
    run_with(inputs, services, Extensions::Refuse)
}

/// What becomes of image extensions that take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extensions {
    Generate,
    Refuse,
}

fn run_with(
    inputs: &Inputs,
    services: &mut Services<'_>,
    extensions: Extensions,
) -> Result<(), DetectorError> {
    let analyzed = files::read_if_there(&inputs.analyzed, Analyzed::parse)?;
    if analyzed.is_none() {
        // ANA-10
        let path = inputs.analyzed.display();
        let message = format!("there is no `{path}`: nothing is known of the run image");
        services.events.event(Event::Warning { message });
    }
    let analyzed = analyzed.unwrap_or_default();
    let builder = builder(inputs, services)?;
    let os_release = Path::new(OS_RELEASE);
    let target = target_of(&analyzed, os_release);
    for message in disagreements(&analyzed, os_release) {
        services.events.event(Event::Warning { message });
    }
    let failed = |source| DetectorError::Work { parent: inputs.layers.clone(), source };
    let work = Scratch::create(&inputs.layers).map_err(failed)?;
    let surroundings =
        Surroundings::of_program(services.environment, &inputs.platform, &inputs.build_config)?;
    let mut workspace = Workspace::in_place(work.path(), places(inputs)?, surroundings)
        .map_err(|source| DetectorError::Work { parent: work.path().to_owned(), source })?;
    let user_env = workspace.user_environment();
    let detected = ask(inputs, &builder, &target, &user_env, &mut workspace, services)?;
    files::write(&inputs.group, &group_of(&detected).to_toml())?;
    files::write(&inputs.plan, &detected.plan.to_toml())?;
    let Some(first) = detected.extensions.first() else { return Ok(()) };
    if extensions == Extensions::Refuse {
        return Err(DetectorError::HasExtensions { extension: first.reference.clone() });
    }
    let run_images = if inputs.api.at_least(12) {
        files::read_if_there(&inputs.run, RunToml::parse)?.unwrap_or_default()
    } else {
        RunToml::default()
    };
    let request = GenerateRequest {
        api: inputs.api,
        limits: &services.policy.limits,
        target: &target,
        exec_env: &inputs.exec_env,
        generated: &inputs.generated,
        run_images: &run_images,
        cancel: services.cancel,
    };
    let (extensions, plan) = (&detected.extensions, detected.plan);
    let outcome = generate(&request, extensions, plan, analyzed, &workspace, services.events)?;
    files::write(&inputs.analyzed, &outcome.analyzed.to_toml()?)?;
    files::write(&inputs.plan, &outcome.plan.to_toml())?;
    Ok(())
}

/// Loads everybody the order names.
fn builder(inputs: &Inputs, services: &Services<'_>) -> Result<Builder, DetectorError> {
    let path = order_path(inputs, Path::new(ORDER_OF_IMAGE));
    let mut order = files::read(&path, OrderToml::parse)?;
    if inputs.api.at_least(15) {
        let system = files::read_if_there(&inputs.system, SystemToml::parse)?.unwrap_or_default();
        order.order = system.around(order.order);
    }
    if !order.extensions.groups.is_empty() && !inputs.api.at_least(13) && !agrees_to_experiments(services) {
        return Err(DetectorError::Experimental { path });
    }
    let installed = Installed { buildpacks: &inputs.buildpacks, extensions: &inputs.extensions };
    let component_bytes = services.policy.limits.component_bytes;
    let digest_of_file = |path: &Path| digest(path, component_bytes);
    installed.builder(order, &digest_of_file).map_err(|source| DetectorError::Order { path, source })
}

/// The order file (ORD-15); `of_image` is the last resort.
fn order_path(inputs: &Inputs, of_image: &Path) -> PathBuf {
    if let Some(order) = &inputs.order {
        return order.clone();
    }
    let of_layers = inputs.layers.join("order.toml");
    if of_layers.exists() { of_layers } else { of_image.to_owned() }
}

/// Whether experimental features may be used (CLI-10).
fn agrees_to_experiments(services: &Services<'_>) -> bool {
    services
        .environment
        .iter()
        .filter(|(name, _)| name == "CNB_EXPERIMENTAL_MODE")
        .any(|(_, value)| !value.is_empty() && value != "error")
}

/// The stack of this build image, if it says which.
fn stack(environment: &[(OsString, OsString)]) -> Option<&str> {
    let mut values = environment.iter().filter(|(name, _)| name == "CNB_STACK_ID");
    values.next_back().and_then(|(_, value)| value.to_str()).filter(|stack| !stack.is_empty())
}

fn places(inputs: &Inputs) -> Result<Places, DetectorError> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| DetectorError::Path { path: path.to_owned() })
    };
    Ok(Places {
        app: text(&inputs.app)?,
        layers: text(&inputs.layers)?,
        platform: text(&inputs.platform)?,
        buildpacks: text(&inputs.buildpacks)?,
    })
}

/// Runs detection, and tells what everybody printed once it is over.
fn ask<'a, 's: 'a>(
    inputs: &'a Inputs,
    builder: &'a Builder,
    target: &'a Target,
    user_env: &'a BTreeMap<String, String>,
    workspace: &mut Workspace,
    services: &mut Services<'s>,
) -> Result<Detected<'a>, DetectorError> {
    let read_only = |path: &Path| Root { path: path.to_owned(), writable: false };
    let mut roots = vec![Root { path: workspace.root().to_owned(), writable: true }];
    roots.extend([inputs.app.as_path(), inputs.platform.as_path()].map(read_only));
    roots.extend(
        builder
            .catalog
            .iter()
            .filter(|buildpack| matches!(buildpack.kind, BuildpackKind::Component { .. }))
            .map(|buildpack| read_only(&buildpack.directory)),
    );
    let mut components = WorkerExecutor::new(services.worker_settings(roots), services.code);
    let mut executables = ProcessExecutor::new(services.cancel.clone());
    let mut executor = ByKind { components: &mut components, executables: &mut executables };
    let request = DetectRequest {
        api: inputs.api,
        builder,
        policy: services.policy,
        limits: &services.policy.limits,
        target,
        stack: stack(services.environment),
        exec_env: &inputs.exec_env,
        user_env,
    };
    let mut collected = Collected { events: services.events, members: Vec::new(), rest: Vec::new() };
    let result = detect(&request, workspace, &mut executor, &mut collected);
    if let Some(isolation) = components.running_isolation() {
        telling::isolation(collected.events, isolation);
    }
    collected.tell(result.is_err());
    Ok(result?)
}

/// Holds back what is said during detection, and tells it by members.
///
/// # Spec
/// DET-11: what is printed by those that passed or do not apply is for those who
/// look for a mistake, unless nobody builds.
struct Collected<'a> {
    events: &'a mut dyn EventSink,
    members: Vec<Member>,
    rest: Vec<Event>,
}

struct Member {
    reference: BuildpackRef,
    lines: Vec<String>,
    verdict: Option<Verdict>,
}

impl Collected<'_> {
    /// The member of this name that was not heard to its end; an extension and a
    /// buildpack may have the same name.
    fn member(&mut self, reference: &BuildpackRef) -> &mut Member {
        let open = |member: &Member| member.reference == *reference && member.verdict.is_none();
        let position = self.members.iter().position(open).unwrap_or_else(|| {
            self.members.push(Member { reference: reference.clone(), lines: Vec::new(), verdict: None });
            self.members.len() - 1
        });
        &mut self.members[position]
    }

    fn tell(self, failed: bool) {
        for Member { reference, lines, verdict } in self.members {
            let prominent = failed || !matches!(verdict, Some(Verdict::Pass | Verdict::Fail { .. }));
            if !lines.is_empty() {
                self.events.event(Event::DetectOutput { buildpack: reference.clone(), lines, prominent });
            }
            if let Some(verdict) = verdict {
                self.events.event(Event::Detected { buildpack: reference, verdict });
            }
        }
        self.rest.into_iter().for_each(|event| self.events.event(event));
    }
}

impl EventSink for Collected<'_> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Output { buildpack, line } => self.member(&buildpack).lines.push(line),
            Event::Detected { buildpack, verdict } => self.member(&buildpack).verdict = Some(verdict),
            Event::GroupChosen { .. } => self.rest.push(event),
            event => self.events.event(event),
        }
    }
}

/// GRP-01
fn group_of(detected: &Detected<'_>) -> Group {
    let homepage = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let buildpack = |buildpack: &&crate::catalog::Buildpack| GroupElement {
        id: buildpack.reference.id.clone(),
        version: buildpack.reference.version.clone(),
        api: buildpack.descriptor.api,
        homepage: homepage(&buildpack.descriptor.homepage),
    };
    let extension = |extension: &&crate::catalog::Extension| GroupElement {
        id: extension.reference.id.clone(),
        version: extension.reference.version.clone(),
        api: extension.descriptor.api,
        homepage: homepage(&extension.descriptor.homepage),
    };
    Group {
        buildpacks: detected.group.iter().map(buildpack).collect(),
        extensions: detected.extensions.iter().map(extension).collect(),
    }
}

#[cfg(test)]
mod tests;
