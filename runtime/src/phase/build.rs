//! Runs the buildpacks of the group, one after the other: group × plan × app → [`Built`].
//!
//! Decides what a layer's directory holds when it is opened, and turns what a
//! buildpack returned into layers for the export. Everything a guest wrote is
//! looked at only after its call has ended, through descriptors and never
//! through a link.

mod explain;
mod in_place;
mod layer_files;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fs_err as fs;

pub(crate) use self::layer_files::{BadLayer, merge};

use self::explain::Explained;
use self::layer_files::write_environment;
use crate::cancel::{Cancel, Cancelled};
use crate::catalog::Buildpack;
use crate::cnb::build_plan::BuildPlan;
use crate::cnb::env::{LayerEnvironment, LayerRoots};
use crate::cnb::id::{BuildpackRef, ExecEnv, LayerName, ProcessType};
use crate::cnb::layer::LayerTypes;
use crate::cnb::target::Target;
use crate::event::{Event, EventSink};
use crate::executor::{
    AppLink, Arrivals, ArtifactRequest, BuildHost, BuildInputs, BuildOutputs, CallInputs, Executor,
    GuestFailure, LayerContents, LayerOutput, LogSink, Mount, OpenedLayer, PlanEntry, Program, Refusal,
    RestoredLayer, StoreOutput,
};
use crate::fault::{Diagnose, Fault, is_disk_full};
use crate::grant::{Grant, GrantRefused};
use crate::limits::Limits;
use crate::oci::gzip::ENCODER;
use crate::phase::values::{
    Built, BuiltBuildpack, BuiltContents, BuiltLayer, KeptContents, KeptLayer, Outcome, Restored,
};
use crate::policy::Policy;
use crate::sources::{Session, Sources};
use crate::store::CachedLayer;
use crate::tree::Tree;
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
    let app_write = grants.allows(&Grant::AppWrite);
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
    let mut mounts = workspace.mounts(buildpack, app_write).map_err(failed)?;
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
    };
    let result = executor.build(&inputs, &mut host);
    // The last word on downloads; what is still on its way ends with the session.
    host.tick();
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
                None if !types.cache && types.launch && (self.in_place || stored(layer).is_some()) => {
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
fn stored(layer: &CachedLayer) -> Option<BuiltContents> {
    let (exported, blob) = layer.exported.as_ref()?;
    // Bytes of another encoder would make this image differ from an uncached one.
    if exported.encoder != ENCODER {
        return None;
    }
    Some(BuiltContents::Stored {
        diff_id: exported.diff_id.clone(),
        blob: blob.clone(),
        features: exported.features,
    })
}

/// BLD-07: after each success, layers first, then environment, then the rest.
///
/// `settled` is where records become files. Returns the process type that is no
/// longer the default.
#[expect(clippy::too_many_arguments, reason = "each is one of the values the phase takes or carries on")]
fn take_outputs(
    request: &BuildPhaseRequest<'_>,
    buildpack: &Buildpack,
    inputs: &BuildInputs,
    mut outputs: BuildOutputs,
    cached: &[CachedLayer],
    settled: Option<&Path>,
    workspace: &mut Workspace,
    progress: &mut Progress,
) -> Result<Option<ProcessType>, BuildError> {
    let reference = &buildpack.reference;
    let failed = |source| BuildError::Io { buildpack: reference.clone(), source };
    check_unmet(reference, inputs, &outputs.unmet)?;
    let mut environments = Vec::new();
    for layer in std::mem::take(&mut outputs.layers) {
        take_sboms(reference, &layer, &mut progress.outcome.built);
        if layer.types == LayerTypes::default() || layer.contents == LayerContents::Nowhere {
            continue;
        }
        if let Some(directory) = settled.filter(|_| layer.contents == LayerContents::Kept) {
            // Whether the last image has it is the exporter's to see.
            in_place::settle_layer(directory, &layer).map_err(failed)?;
            continue;
        }
        let (mut contents, mut kept) = layer_contents(request, reference, inputs, &layer, cached)?;
        if let Some(directory) = settled {
            let place = directory.join(layer.name.as_str());
            in_place::settle_contents(&place, &mut contents).map_err(failed)?;
            in_place::settle_layer(directory, &layer).map_err(failed)?;
            kept = KeptContents::Fresh(place);
        }
        if layer.types.build
            && let Some(directory) = host_directory(&contents, &layer, cached)
        {
            let roots = roots_of(&directory, layer.contents == LayerContents::InPlace);
            environments.push((layer.name.clone(), roots, layer.environment.clone()));
            progress.visible.push(Mount {
                guest_path: workspace.places.layer(&reference.id, &layer.name),
                lower: Some(directory),
                upper: None,
                writable: false,
                hidden: Vec::new(),
            });
        }
        progress.outcome.kept.push(KeptLayer {
            cache_key: layer.cache_key.clone(),
            sboms: layer.sboms.clone(),
            contents: kept,
        });
        progress.outcome.built.layers.push(BuiltLayer {
            buildpack: reference.clone(),
            name: layer.name,
            types: layer.types,
            metadata: layer.metadata,
            environment: layer.environment,
            contents,
        });
    }
    // ENV-15: the reference goes by the names of the files, and `-` is before `.`.
    environments.sort_by_key(|(name, _, _)| format!("{name}.toml"));
    let environments: Vec<LayerEnvironment<'_>> = environments
        .iter()
        .map(|(name, roots, changes)| LayerEnvironment {
            directory: workspace.places.layer(&reference.id, name),
            roots: *roots,
            changes,
        })
        .collect();
    progress.environment.add(&environments);
    let unmet: BTreeSet<&String> = outputs.unmet.iter().collect();
    progress
        .met
        .extend(inputs.plan.iter().map(|entry| &entry.name).filter(|name| !unmet.contains(name)).cloned());
    let store = match std::mem::take(&mut outputs.store) {
        StoreOutput::Unchanged => inputs.store.clone(),
        StoreOutput::Replaced(store) => Some(store),
        StoreOutput::Cleared => None,
    };
    if let Some(directory) = settled {
        in_place::settle(directory, &outputs, store.as_deref()).map_err(failed)?;
        for AppLink { path, layer, target } in std::mem::take(&mut outputs.app_links) {
            let layer = Path::new(&workspace.places.layer(&reference.id, &layer)).join(target);
            in_place::link(Path::new(&workspace.places.app), &path, &layer).map_err(failed)?;
        }
    }
    workspace.app.hidden.extend(outputs.app_hidden.into_iter().map(PathBuf::from));

    let built = &mut progress.outcome.built;
    let lost = built.processes.add(&reference.id, outputs.processes);
    built.slices.extend(outputs.slices);
    built.labels.extend(outputs.labels);
    let of_buildpack = |sbom| (reference.id.clone(), None, sbom);
    built.launch_sboms.extend(outputs.launch_sboms.into_iter().map(of_buildpack));
    built.build_sboms.extend(outputs.build_sboms.into_iter().map(of_buildpack));
    let by = |entry| (reference.clone(), entry);
    built.launch_bom.extend(outputs.launch_bom.into_iter().map(by));
    built.build_bom.extend(outputs.build_bom.into_iter().map(by));
    built.app_links.extend(outputs.app_links.into_iter().map(|link| (reference.id.clone(), link)));
    built.buildpacks.push(BuiltBuildpack {
        reference: reference.clone(),
        api: buildpack.descriptor.api.to_string(),
        homepage: Some(buildpack.descriptor.homepage.clone()).filter(|homepage| !homepage.is_empty()),
        store,
    });
    Ok(lost)
}

/// UNM-05: only what was asked for can be unmet.
fn check_unmet(buildpack: &BuildpackRef, inputs: &BuildInputs, unmet: &[String]) -> Result<(), GuestFailure> {
    let is_given = |name: &&String| !name.is_empty() && inputs.plan.iter().any(|entry| entry.name == **name);
    match unmet.iter().find(|name| !is_given(name)) {
        None => Ok(()),
        Some(name) => Err(GuestFailure::BadOutput {
            buildpack: buildpack.clone(),
            message: format!("`{}` cannot be unmet: its plan has no such entry", name.escape_debug()),
        }),
    }
}

/// SBOM-04 to SBOM-06: of a layer for the image, or else of one for the build; of a
/// cached one besides.
fn take_sboms(buildpack: &BuildpackRef, layer: &LayerOutput, built: &mut Built) {
    for sbom in &layer.sboms {
        let (id, name) = (buildpack.id.clone(), layer.name.clone());
        if layer.types.cache {
            built.cache_sboms.push((id.clone(), name.clone(), sbom.clone()));
        }
        let of = if layer.types.launch { &mut built.launch_sboms } else { &mut built.build_sboms };
        of.push((id, Some(name), sbom.clone()));
    }
}

/// Finds out what is in a layer, and brings its environment files up to date.
fn layer_contents(
    request: &BuildPhaseRequest<'_>,
    buildpack: &BuildpackRef,
    inputs: &BuildInputs,
    layer: &LayerOutput,
    cached: &[CachedLayer],
) -> Result<(BuiltContents, KeptContents), BuildError> {
    let known = cached.iter().find(|known| known.name == layer.name);
    let directory = inputs.layers_work_directory.join(layer.name.as_str());
    let changes = inputs.layers_work_directory.join(format!("{}{CHANGES}", layer.name));
    let same_environment = known.is_some_and(|known| {
        in_place::comparable(&known.environment) == in_place::comparable(&layer.environment)
    });
    let bad = |error: BadLayer| match error {
        BadLayer::Io(source) => BuildError::Io { buildpack: buildpack.clone(), source },
        BadLayer::Cancelled(cancelled) => BuildError::Cancelled(cancelled),
        BadLayer::Refused(message) => BuildError::Guest(GuestFailure::BadOutput {
            buildpack: buildpack.clone(),
            message: format!("layer `{}` {message}", layer.name),
        }),
    };
    let tree = known.and_then(|known| known.tree.as_ref()).map(|tree| tree.path.clone());
    let untouched = match &layer.contents {
        LayerContents::Restored => true,
        // Asked for, but nothing was written in the end.
        LayerContents::Updated { hidden } => hidden.is_empty() && is_empty(&changes),
        LayerContents::Written | LayerContents::InPlace | LayerContents::Kept | LayerContents::Nowhere => {
            false
        }
    };
    match &layer.contents {
        LayerContents::Kept | LayerContents::Nowhere => {
            let contents = known.and_then(stored).ok_or_else(|| {
                bad(BadLayer::Refused("is to be kept, but the last image does not have it".to_owned()))
            })?;
            if !same_environment {
                return Err(bad(BadLayer::Refused(
                    "is kept without its contents, so its environment cannot change".to_owned(),
                )));
            }
            Ok((contents, KeptContents::Nothing))
        }
        LayerContents::InPlace => Ok((fresh(&directory), KeptContents::Fresh(directory))),
        LayerContents::Written => {
            write_environment(&directory, &layer.environment).map_err(bad)?;
            Ok((fresh(&directory), KeptContents::Fresh(directory)))
        }
        LayerContents::Restored | LayerContents::Updated { .. } if untouched && same_environment => {
            let contents = known
                .and_then(stored)
                .or_else(|| tree.map(|tree| fresh(&tree)))
                .ok_or_else(|| bad(BadLayer::Refused("was restored, but is gone".to_owned())))?;
            Ok((contents, KeptContents::Unchanged))
        }
        LayerContents::Restored | LayerContents::Updated { .. } => {
            let hidden = match &layer.contents {
                LayerContents::Updated { hidden } => hidden.iter().map(PathBuf::from).collect(),
                _ => BTreeSet::new(),
            };
            let upper = changes.exists().then_some(changes);
            merge(&Tree { lower: tree, upper, hidden }, &directory, request.cancel).map_err(bad)?;
            write_environment(&directory, &layer.environment).map_err(bad)?;
            Ok((fresh(&directory), KeptContents::Fresh(directory)))
        }
    }
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

fn fresh(directory: &Path) -> BuiltContents {
    BuiltContents::Fresh(Tree::of(directory))
}

fn is_empty(directory: &Path) -> bool {
    match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => true,
    }
}

/// Where later buildpacks find a build layer on the host.
fn host_directory(contents: &BuiltContents, layer: &LayerOutput, cached: &[CachedLayer]) -> Option<PathBuf> {
    match contents {
        BuiltContents::Fresh(tree) => tree.lower.clone().or_else(|| tree.upper.clone()),
        BuiltContents::Stored { .. } => {
            let known = cached.iter().find(|known| known.name == layer.name)?;
            Some(known.tree.as_ref()?.path.clone())
        }
    }
}

/// `is_host` when links in it mean what they say here.
fn roots_of(directory: &Path, is_host: bool) -> LayerRoots {
    let status = |path: PathBuf| if is_host { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let has = |name: &str| status(directory.join(name)).is_ok_and(|metadata| metadata.is_dir());
    LayerRoots { bin: has("bin"), lib: has("lib"), include: has("include"), pkgconfig: has("pkgconfig") }
}
