//! `builder`: runs the buildpacks of the group.

mod outputs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::error::of_file;
use super::files::{self, FileError};
use super::scratch::Scratch;
use super::target::{OS_RELEASE, host_architecture, target_of};
use super::{BUILDPACK_API, Services, telling};
use crate::catalog::{Buildpack, BuildpackKind, CatalogError};
use crate::cnb::analyzed_toml::Analyzed;
use crate::cnb::api::PlatformApi;
use crate::cnb::build_plan::BuildPlan;
use crate::cnb::group_toml::{Group, GroupElement};
use crate::cnb::id::{BuildpackRef, ExecEnv};
use crate::cnb::target::Target;
use crate::event::Event;
use crate::executor::GuestFailure;
use crate::executor::by_kind::ByKind;
use crate::executor::process::ProcessExecutor;
use crate::executor::process::variables::VariablesError;
use crate::executor::worker::{Root, WorkerExecutor};
use crate::oci::digest::Digest;
use crate::oci::encoder::Encoding;
use crate::phase::build::{BuildError, BuildPhaseRequest, build};
use crate::phase::values::Restored;
use crate::text::harmless;
use crate::walk;
use crate::workspace::{Places, Surroundings, Workspace};

/// What it is told. All paths are absolute.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    pub exec_env: ExecEnv,
    pub analyzed: PathBuf,
    pub app: PathBuf,
    pub build_config: PathBuf,
    pub buildpacks: PathBuf,
    pub group: PathBuf,
    pub layers: PathBuf,
    pub plan: PathBuf,
    pub platform: PathBuf,
}

/// Why the build stopped.
#[derive(Debug, thiserror::Error)]
pub enum BuilderError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
    /// A buildpack of the group is too old or too new.
    #[error("buildpack `{buildpack}` cannot be run: its Buildpack API {api} is not supported")]
    Api { buildpack: BuildpackRef, api: crate::cnb::api::ApiVersion },
    /// A buildpack of the group is not there or damaged.
    #[error("cannot load buildpack `{buildpack}`")]
    Buildpack { buildpack: BuildpackRef, source: CatalogError },
    /// What a buildpack's own programs make is for the machine they run on.
    #[error(
        "buildpack `{buildpack}` is made of executables, which build for this machine (`{here}`), and the run image \
         is for `{target}`; build on a machine that is `{target}`, or take a run image for `{here}`"
    )]
    OtherMachine { buildpack: BuildpackRef, target: String, here: String },
    /// A path that cannot be told to buildpacks.
    #[error("`{}` is not UTF-8", path.display())]
    Path { path: PathBuf },
    /// The user's or the operator's variables.
    #[error("cannot use the files of variables")]
    Variables(#[from] VariablesError),
    /// A directory.
    #[error("cannot prepare the build")]
    Prepare(#[source] io::Error),
    /// A buildpack.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// What was built.
    #[error("cannot write what was built")]
    Write(#[source] io::Error),
}

/// A buildpack's own program did not end well.
const BUILDPACK_FAILED: u8 = 51;
/// Everything else that can go wrong in a build.
const FAILED: u8 = 52;

impl BuilderError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
            Self::Api { .. } => BUILDPACK_API,
            Self::Build(BuildError::Guest(failure)) => match failure {
                GuestFailure::BadOutput { .. }
                | GuestFailure::WorkerUnavailable { .. }
                | GuestFailure::Cancelled { .. } => FAILED,
                GuestFailure::Returned { .. }
                | GuestFailure::Limit { .. }
                | GuestFailure::Trapped { .. }
                | GuestFailure::Refused { .. }
                | GuestFailure::Unloadable { .. }
                | GuestFailure::WorkerCrashed { .. } => BUILDPACK_FAILED,
            },
            _ => FAILED,
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`BuilderError`].
///
/// # Spec
/// `platform.md` 0.15 "Phase: Build"; BLD-01 to BLD-10, API-07, GRP-02, GRP-03, TGT-13.
pub fn run(inputs: &Inputs, services: &mut Services<'_>) -> Result<(), BuilderError> {
    run_with(inputs, services, Isolated::Untold)
}

/// Runs it as a part of the creator, whose detector has said what holds components.
///
/// # Errors
/// [`BuilderError`].
pub fn run_in_creator(inputs: &Inputs, services: &mut Services<'_>) -> Result<(), BuilderError> {
    run_with(inputs, services, Isolated::Told)
}

/// Whether it has been said what holds components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isolated {
    Told,
    Untold,
}

fn run_with(inputs: &Inputs, services: &mut Services<'_>, isolated: Isolated) -> Result<(), BuilderError> {
    let group = files::read(&inputs.group, Group::parse)?;
    let plan = files::read(&inputs.plan, BuildPlan::parse)?;
    // API-07: before anything runs.
    if let Some(element) =
        group.buildpacks.iter().chain(&group.extensions).find(|one| !one.api.is_supported())
    {
        return Err(BuilderError::Api { buildpack: element.reference(), api: element.api });
    }
    let analyzed = files::read_if_there(&inputs.analyzed, Analyzed::parse)?.unwrap_or_else(|| {
        let message =
            format!("there is no `{}`; nothing is known of the run image", inputs.analyzed.display());
        services.events.event(Event::Warning { message });
        Analyzed::default()
    });
    let buildpacks = load(inputs, &group, services.policy.limits.component_bytes)?;
    let target = target_of(&analyzed, Path::new(OS_RELEASE));
    check_machine(&buildpacks, &target)?;

    let surroundings =
        Surroundings::of_program(services.environment, &inputs.platform, &inputs.build_config)?;
    let user_env: BTreeMap<String, String> = surroundings
        .user
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.to_str()?.to_owned())))
        .collect();
    // BLD-04
    walk::remove(&inputs.layers.join("sbom")).map_err(BuilderError::Prepare)?;
    let scratch = Scratch::create(&inputs.layers).map_err(BuilderError::Prepare)?;
    let mut workspace =
        Workspace::in_place(scratch.path(), places(inputs)?, surroundings).map_err(BuilderError::Prepare)?;

    let mut executables = ProcessExecutor::new(services.cancel.clone());
    let settings = services.worker_settings(roots(inputs, scratch.path(), &buildpacks));
    let mut components = WorkerExecutor::new(settings, services.code);
    let has_components =
        buildpacks.iter().any(|buildpack| matches!(buildpack.kind, BuildpackKind::Component { .. }));
    // A worker that cannot be started is the error of the first call.
    if has_components
        && isolated == Isolated::Untold
        && let Ok(isolation) = components.isolation()
    {
        telling::isolation(services.events, &isolation);
    }
    let mut executor = ByKind { components: &mut components, executables: &mut executables };
    let request = BuildPhaseRequest {
        policy: services.policy,
        limits: &services.policy.limits,
        target: &target,
        exec_env: &inputs.exec_env,
        user_env: &user_env,
        sources: services.sources,
        encoding: Encoding::default(),
        cancel: services.cancel,
    };
    let members: Vec<&Buildpack> = buildpacks.iter().collect();
    let restored = Restored::default();
    let outcome = build(&request, &members, &plan, restored, &mut workspace, &mut executor, services.events)?;
    outputs::write(inputs, &group, &outcome.built)
}

/// Refuses executables where the image is for another machine than the one they run on.
/// Components make no difference between machines.
fn check_machine(buildpacks: &[Buildpack], target: &Target) -> Result<(), BuilderError> {
    let here = host_architecture();
    let classic = buildpacks.iter().find(|buildpack| buildpack.kind == BuildpackKind::Classic);
    match classic {
        Some(buildpack) if target.arch != here => Err(BuilderError::OtherMachine {
            buildpack: buildpack.reference.clone(),
            target: harmless(&format!("{}/{}", target.os, target.arch)),
            here: format!("{}/{here}", target.os),
        }),
        _ => Ok(()),
    }
}

/// The buildpacks of the group, under the names they have there.
fn load(inputs: &Inputs, group: &Group, component_bytes: u64) -> Result<Vec<Buildpack>, BuilderError> {
    let digest_of_file = |path: &Path| digest(path, component_bytes);
    let load = |element: &GroupElement| {
        let reference = element.reference();
        let directory =
            inputs.buildpacks.join(reference.id.directory_name()).join(reference.version.as_str());
        match Buildpack::load_any(&directory, &digest_of_file) {
            Ok(buildpack) => Ok(Buildpack { reference, ..buildpack }),
            Err(CatalogError::ApiUnsupported { api, .. }) => {
                Err(BuilderError::Api { buildpack: reference, api })
            }
            Err(source) => Err(BuilderError::Buildpack { buildpack: reference, source }),
        }
    };
    group.buildpacks.iter().map(load).collect()
}

/// `sha256:<hex>` of a component file.
pub(super) fn digest(path: &Path, limit: u64) -> io::Result<String> {
    let file = fs_err::File::open(path)?;
    if file.metadata()?.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for a component"));
    }
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, limit), &mut bytes)?;
    Ok(Digest::of(&bytes).to_string())
}

fn places(inputs: &Inputs) -> Result<Places, BuilderError> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| BuilderError::Path { path: path.to_owned() })
    };
    Ok(Places {
        app: text(&inputs.app)?,
        layers: text(&inputs.layers)?,
        platform: text(&inputs.platform)?,
        buildpacks: text(&inputs.buildpacks)?,
    })
}

/// What a worker sees, and whether it may write there.
fn roots(inputs: &Inputs, scratch: &Path, buildpacks: &[Buildpack]) -> Vec<Root> {
    let root = |path: &Path, writable: bool| Root { path: path.to_owned(), writable };
    let mut roots = vec![
        root(&inputs.app, true),
        root(&inputs.layers, false),
        root(&inputs.platform, false),
        root(scratch, true),
    ];
    roots.extend(buildpacks.iter().map(|buildpack| root(&buildpack.directory, false)));
    roots
}
