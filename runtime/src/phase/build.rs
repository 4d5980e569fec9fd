//! Runs the buildpacks of the group, one after the other: group × plan × app → [`Built`].
//!
//! Decides what a layer's directory holds when it is opened, and turns what a
//! buildpack returned into layers for the export. Everything a guest wrote is
//! looked at only after its call has ended, through descriptors and never
//! through a link.

mod explain;
mod in_place;
mod layer_files;
mod outputs;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs_err as fs;

#[cfg(feature = "testkit")]
pub(crate) use self::layer_files::merge;

use self::explain::Explained;
use self::outputs::take_outputs;
use crate::cancel::{Cancel, Cancelled};
use crate::catalog::Buildpack;
use crate::cnb::build_plan::BuildPlan;
use crate::cnb::id::{BuildpackRef, ExecEnv, LayerName};
use crate::cnb::layer::LayerTypes;
use crate::cnb::target::Target;
use crate::event::{Event, EventSink};
use crate::executor::{
    Arrivals, ArtifactRequest, BuildHost, BuildInputs, CallInputs, Executor, GuestFailure, LayerOutput,
    LogSink, Mount, OpenedLayer, PlanEntry, Program, Refusal, RestoredLayer,
};
use crate::fault::{Diagnose, Fault, is_disk_full};
use crate::grant::GrantRefused;
use crate::limits::Limits;
use crate::oci::encoder::Encoding;
use crate::phase::values::{Built, BuiltContents, Outcome, Restored};
use crate::policy::Policy;
use crate::sources::{Session, Sources};
use crate::store::CachedLayer;
use crate::walk;
use crate::workspace::{Carried, Workspace};

/// What building depends on besides the group.
#[derive(Debug, Clone, Copy)]
pub struct BuildPhaseRequest<'a> {
    pub policy: &'a Policy,
    pub limits: &'a Limits,
    pub target: &'a Target,
    pub exec_env: &'a ExecEnv,
    pub user_env: &'a BTreeMap<String, String>,
    pub sources: &'a Sources,
    /// How layers of the image will be compressed; blobs that are not cannot be taken over.
    pub encoding: Encoding,
    pub cancel: &'a Cancel,
}

/// Why the build stopped.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A buildpack did not end well.
    #[error(transparent)]
    Guest(#[from] GuestFailure),
    /// A buildpack asks for what the policy does not allow.
    #[error("buildpack `{}` cannot be run", .0.buildpack)]
    Grant(#[source] GrantRefused),
    /// A buildpack failed on a disk that is full.
    #[error("no space left for `{}`", directory.display())]
    DiskFull { directory: PathBuf, source: Box<GuestFailure> },
    /// A buildpack is of a kind that cannot be run.
    #[error("buildpack `{buildpack}` cannot be run by this version of wapack")]
    NotRunnable { buildpack: BuildpackRef },
    /// A directory could not be made or read.
    #[error("cannot prepare the build of buildpack `{buildpack}`")]
    Io { buildpack: BuildpackRef, source: io::Error },
    /// The build was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Diagnose for BuildError {
    fn id(&self) -> &'static str {
        match self {
            Self::Guest(failure) => failure.id(),
            Self::Grant(error) => error.id(),
            Self::NotRunnable { .. } => "buildpack.not_runnable",
            Self::DiskFull { .. } => "host.disk_full",
            Self::Io { source, .. } if is_disk_full(source) => "host.disk_full",
            Self::Io { .. } => "host.io",
            Self::Cancelled(_) => "build.cancelled",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Guest(failure) => failure.fault(),
            Self::Grant(error) => error.fault(),
            Self::NotRunnable { .. } => Fault::Buildpack,
            Self::Io { .. } | Self::DiskFull { .. } => Fault::Environment,
            Self::Cancelled(_) => Fault::Caller,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Guest(failure) => failure.hint(),
            Self::Grant(error) => error.hint(),
            Self::DiskFull { .. } => {
                Some("free some space, or name another place with `--cache-dir`".to_owned())
            }
            _ => None,
        }
    }
}

/// Runs `build` of every buildpack in `group`.
///
/// # Errors
/// [`BuildError`]; later buildpacks do not run (BLD-02).
///
/// # Spec
/// `platform.md` 0.15 "Phase: Build"; BLD-01, BLD-02, BLD-07, UNM-01 to UNM-05.
pub fn build(
    request: &BuildPhaseRequest<'_>,
    group: &[&Buildpack],
    plan: &BuildPlan,
    mut restored: Restored,
    workspace: &mut Workspace,
    executor: &mut dyn Executor,
    events: &mut dyn EventSink,
) -> Result<Outcome, BuildError> {
    let mut progress = Progress {
        environment: workspace.before_layers(),
        visible: Vec::new(),
        met: BTreeSet::new(),
        outcome: Outcome { built: Built::default(), kept: Vec::new() },
    };
    let mut build_all = || {
        for buildpack in group {
            request.cancel.check()?;
            let reference = || buildpack.reference.clone();
            events.event(Event::BuildpackStarted { buildpack: reference() });
            let started = Instant::now();
            build_one(request, buildpack, plan, &mut restored, workspace, executor, events, &mut progress)?;
            events.event(Event::BuildpackFinished { buildpack: reference(), elapsed: started.elapsed() });
        }
        Ok::<_, BuildError>(())
    };
    let result = build_all();
    for message in request.sources.take_warnings() {
        events.event(Event::Warning { message });
    }
    result?;
    progress.outcome.built.app = workspace.app.clone();
    Ok(progress.outcome)
}

/// What earlier buildpacks leave to later ones.
struct Progress {
    environment: Carried,
    /// Build layers of earlier buildpacks, at their paths.
    visible: Vec<Mount>,
    /// Names of the plan that are satisfied.
    met: BTreeSet<String>,
    outcome: Outcome,
}

#[expect(clippy::too_many_arguments, reason = "each is one of the values the phase takes or carries on")]
fn build_one(
    request: &BuildPhaseRequest<'_>,
    buildpack: &Buildpack,
    plan: &BuildPlan,
    restored: &mut Restored,
    workspace: &mut Workspace,
    executor: &mut dyn Executor,
    events: &mut dyn EventSink,
    progress: &mut Progress,
) -> Result<(), BuildError> {
    let reference = &buildpack.reference;
    let failed = |source| BuildError::Io { buildpack: reference.clone(), source };
    let program = workspace
        .program(buildpack)
        .ok_or_else(|| BuildError::NotRunnable { buildpack: reference.clone() })?;
    let grants = request.policy.grant(reference, &buildpack.descriptor.grants).map_err(BuildError::Grant)?;
    let layers_work_directory = workspace.layers_of(buildpack).map_err(failed)?;
    let is_settled = workspace.is_in_place() && matches!(program, Program::Component(_));
    let cached = if is_settled {
        let directory = PathBuf::from(workspace.places.layers_of(&reference.id));
        fs::create_dir_all(&directory).map_err(failed)?;
        let aside = workspace.root().join("restored").join(reference.id.directory_name());
        in_place::take_restored(&directory, &aside).map_err(failed)?
    } else {
        restored.take(&reference.id)
    };
    let mut mounts = workspace.mounts(buildpack, &grants, true).map_err(failed)?;
    mounts.extend(progress.visible.iter().cloned());
    let mut environment =
        workspace.environment(buildpack, request.target, request.exec_env, &progress.environment);
    workspace.add_build_variables(buildpack, &mut environment);
    let inputs = BuildInputs {
        call: CallInputs {
            buildpack: reference.clone(),
            mounts,
            environment,
            target: request.target.clone(),
            exec_env: request.exec_env.clone(),
            user_env: request.user_env.clone(),
            metadata: buildpack.descriptor.metadata.clone(),
            grants: grants.clone(),
            limits: match program {
                Program::Component(_) => request.limits.for_build(),
                Program::Executables(_) => request.limits.for_executables(),
            },
            program,
        },
        layers_directory: workspace.places.layers_of(&reference.id),
        plan: plan_for(reference, plan, &progress.met),
        restored: cached.layers.iter().map(restored_layer).collect(),
        restorable_trees: cached
            .layers
            .iter()
            .filter_map(|layer| Some(layer.tree.as_ref()?.path.clone()))
            .collect(),
        layers_work_directory: layers_work_directory.clone(),
        store: cached.store.clone(),
    };
    let mut host = Host {
        events,
        directory: &layers_work_directory,
        cached: &cached.layers,
        session: request.sources.session(reference, &grants),
        layers_made: 0,
        in_place: is_settled,
        encoding: request.encoding,
    };
    let result = executor.build(&inputs, &mut host);
    // The last word on downloads; what is still on its way ends with the session.
    host.tick();
    let fetched = host.session.arrived();
    drop(host);
    let outputs = result.map_err(|failure| match failure {
        // Guests see a bare error number and blame themselves.
        GuestFailure::Returned { .. } | GuestFailure::Trapped { .. } if is_full(&layers_work_directory) => {
            BuildError::DiskFull { directory: workspace.root().to_owned(), source: Box::new(failure) }
        }
        failure => failure.into(),
    })?;
    let before = progress.outcome.kept.len();
    let made: Vec<LayerOutput> = outputs.layers.clone();
    let settled = is_settled.then(|| PathBuf::from(workspace.places.layers_of(&reference.id)));
    let lost = take_outputs(
        request,
        buildpack,
        &inputs,
        outputs,
        &fetched,
        &cached.layers,
        settled.as_deref(),
        workspace,
        progress,
    )?;
    if let Some(process_type) = lost {
        // PRC-03
        let message = format!(
            "buildpack `{reference}` redefines the default process `{process_type}` without making it the \
             default; the image has no default process"
        );
        events.event(Event::Warning { message });
    }
    // In the directories of a platform the restorer and the exporter say what became of a layer.
    if workspace.is_in_place() {
        return Ok(());
    }
    let explained =
        Explained { buildpack: reference, version_was: cached.version.as_deref(), cached: &cached.layers };
    let claimed = made.iter().filter(|layer| layer.types != LayerTypes::default());
    for (layer, kept) in claimed.zip(&progress.outcome.kept[before..]) {
        events.event(explained.layer(layer, &kept.contents));
    }
    explained.dropped(&made).for_each(|event| events.event(event));
    Ok(())
}

/// UNM-01 to UNM-03: the entries this buildpack provides and nobody met before. UNM-06:
/// an extension has met all of its own.
fn plan_for(buildpack: &BuildpackRef, plan: &BuildPlan, met: &BTreeSet<String>) -> Vec<PlanEntry> {
    plan.entries
        .iter()
        .filter(|entry| entry.providers.iter().all(|provider| !provider.extension))
        .filter(|entry| entry.providers.iter().any(|provider| provider.buildpack.id == buildpack.id))
        .filter(|entry| !met.contains(&entry.name))
        .flat_map(|entry| &entry.requires)
        .map(|requirement| PlanEntry {
            name: requirement.name.clone(),
            metadata: requirement.metadata.clone(),
        })
        .collect()
}

fn restored_layer(layer: &CachedLayer) -> RestoredLayer {
    RestoredLayer {
        name: layer.name.clone(),
        types: layer.types,
        cache_key: layer.cache_key.clone(),
        metadata: layer.metadata.clone(),
    }
}

/// Answers a running buildpack.
struct Host<'a> {
    events: &'a mut dyn EventSink,
    /// Host directory its layers are made in.
    directory: &'a Path,
    cached: &'a [CachedLayer],
    session: Session,
    /// Directories made so far.
    layers_made: usize,
    /// Whether the last image is not here to be looked at.
    in_place: bool,
    encoding: Encoding,
}

impl LogSink for Host<'_> {
    fn line(&mut self, buildpack: &BuildpackRef, line: &str) {
        self.events.event(Event::Output { buildpack: buildpack.clone(), line: line.to_owned() });
    }

    fn compiling(&mut self, buildpack: &BuildpackRef) {
        self.events.event(Event::Compiling { buildpack: buildpack.clone() });
    }
}

impl BuildHost for Host<'_> {
    fn open_layer(
        &mut self,
        name: &LayerName,
        types: LayerTypes,
        cache_key: &str,
    ) -> Result<OpenedLayer, Refusal> {
        let same = |layer: &&CachedLayer| {
            layer.name == *name && layer.types == types && layer.cache_key == cache_key
        };
        if let Some(layer) = self.cached.iter().find(same) {
            match &layer.tree {
                Some(tree) => return Ok(OpenedLayer::Restored { tree: tree.path.clone() }),
                // LYR-13: of a cached layer, contents and metadata are restored both or not at all.
                None if !types.cache
                    && types.launch
                    && (self.in_place || stored(layer, self.encoding).is_some()) =>
                {
                    return Ok(OpenedLayer::Kept);
                }
                None => {}
            }
        }
        self.fresh(name.as_str()).map(|directory| OpenedLayer::Empty { directory })
    }

    fn update_layer(&mut self, name: &LayerName) -> Result<PathBuf, Refusal> {
        // Not a layer name: those have no slash, and no layer is called like this.
        self.fresh(&format!("{name}{CHANGES}"))
    }

    fn fetch(&mut self, artifacts: Vec<ArtifactRequest>, arrivals: Arrivals) {
        self.session.fetch(artifacts, &arrivals);
    }

    fn tick(&mut self) {
        if let Some(event) = self.session.progress() {
            self.events.event(event);
        }
    }
}

/// Ends the name of the directory that takes what is written over a restored
/// layer. A line feed cannot be in a layer's name.
const CHANGES: &str = "\nchanges";

/// Layers one buildpack may make; no image format has room for more.
const MAX_LAYERS: usize = 256;

impl Host<'_> {
    fn fresh(&mut self, name: &str) -> Result<PathBuf, Refusal> {
        self.layers_made += 1;
        if self.layers_made > MAX_LAYERS {
            return Err(Refusal {
                id: "layers.too_many".to_owned(),
                message: format!("a buildpack may make at most {MAX_LAYERS} layers"),
                hint: None,
            });
        }
        let directory = self.directory.join(name);
        match walk::create_readable(&directory) {
            Ok(()) => Ok(directory),
            Err(error) => Err(Refusal {
                id: "host.failed".to_owned(),
                message: format!("the host could not make the layer's directory: {}", error.kind()),
                hint: None,
            }),
        }
    }
}

/// The layer as it is in the store, if the image can take it over as it is.
fn stored(layer: &CachedLayer, encoding: Encoding) -> Option<BuiltContents> {
    let (exported, blob) = layer.exported.as_ref()?;
    // Bytes of another encoder would make this image differ from an uncached one.
    if exported.encoder != encoding.id() {
        return None;
    }
    Some(BuiltContents::Stored {
        diff_id: exported.diff_id.clone(),
        blob: blob.clone(),
        features: exported.features,
    })
}

/// Space that a file system keeps back, or that one small write does not need.
const NO_SPACE_BYTES: u64 = 64 << 10;

/// Whether the file system of `directory` has neither space nor inodes left.
fn is_full(directory: &Path) -> bool {
    rustix::fs::statvfs(directory).is_ok_and(|found| {
        found.f_bavail.saturating_mul(found.f_frsize) < NO_SPACE_BYTES
            || (found.f_files > 0 && found.f_favail == 0)
    })
}
