//! The seam between the lifecycle and whatever runs a buildpack.
//!
//! [`Executor`] takes plain, serialisable values and gives plain values back,
//! so what runs a buildpack may live in another process. Nothing after `build`
//! can tell which executor ran: everything it needs is in [`BuildOutputs`].
//! What a buildpack asks for *while* it runs goes through [`BuildHost`].

pub mod by_kind;
mod lines;
pub mod process;
pub mod wasm;
pub mod worker;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cnb::api::ApiVersion;
use crate::cnb::build_plan::{PlanContribution, Requirement};
use crate::cnb::env::Environment;
use crate::cnb::id::{BuildpackRef, ExecEnv, LayerName};
use crate::cnb::launch::{Label, Process, Slice};
use crate::cnb::layer::{EnvironmentChange, LayerTypes};
use crate::cnb::sbom::Sbom;
use crate::cnb::target::Target;
use crate::fault::{Diagnose, Fault};
use crate::grant::Grants;
use crate::limits::{CallLimits, LimitKind};
use crate::text::{harmless, harmless_lines};

/// Runs buildpacks of one kind.
pub trait Executor {
    /// Runs `detect` of several members of a group, in parallel where the
    /// executor can. The results are in the order of `calls`; a member that
    /// hangs or crashes costs only its own result.
    fn detect(
        &mut self,
        calls: &[DetectInputs],
        log: &mut dyn LogSink,
    ) -> Vec<Result<DetectOutputs, GuestFailure>>;

    /// Runs `build` of one buildpack.
    ///
    /// # Errors
    /// Everything a guest can do wrong, as [`GuestFailure`].
    fn build(&mut self, call: &BuildInputs, host: &mut dyn BuildHost) -> Result<BuildOutputs, GuestFailure>;
}

/// Takes the lines a buildpack prints, already made harmless to a terminal.
pub trait LogSink {
    /// One line of `buildpack`, without its line end.
    fn line(&mut self, buildpack: &BuildpackRef, line: &str);

    /// A component is about to be compiled, which takes a moment.
    fn compiling(&mut self, _buildpack: &BuildpackRef) {}
}

/// What a running `build` may ask the lifecycle for. Called on the side that
/// holds the store and the policy, never in the worker.
pub trait BuildHost: LogSink {
    /// Decides what a layer's directory holds.
    ///
    /// # Errors
    /// A refusal, shown to the guest.
    fn open_layer(
        &mut self,
        name: &LayerName,
        types: LayerTypes,
        cache_key: &str,
    ) -> Result<OpenedLayer, Refusal>;

    /// Gives a restored layer a directory for the files that will change.
    ///
    /// # Errors
    /// A refusal, shown to the guest.
    fn update_layer(&mut self, name: &LayerName) -> Result<PathBuf, Refusal>;

    /// Starts to fetch artifacts. Every one of them arrives once, as a file or
    /// as a refusal, in any order, during this call or after it.
    fn fetch(&mut self, artifacts: Vec<ArtifactRequest>, arrivals: Arrivals);

    /// Called every now and then while a guest runs, on the thread of all other
    /// calls: the moment to say how far downloads are.
    fn tick(&mut self) {}
}

/// Takes what a fetch brings, from any thread: the index of the artifact in the
/// request, and its file, verified and open for reading at the start.
pub type Arrivals = Arc<dyn Fn(usize, Result<File, Refusal>) + Send + Sync>;

/// One file of a source, as a guest asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArtifactRequest {
    /// Name of the source, such as `npm` or `npm:@acme`.
    pub source: String,
    /// Path under the source's base.
    pub path: String,
    /// As [`crate::integrity::Integrity`] reads it.
    pub integrity: Option<String>,
}

/// What a layer's directory holds, as host paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenedLayer {
    /// A read-only tree of the store.
    Restored { tree: PathBuf },
    /// No contents; the image can keep the layer of the last build.
    Kept,
    /// An empty directory to be filled.
    Empty { directory: PathBuf },
}

/// Why the host did not do what a guest asked for; the guest sees id and message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Stable id, such as `sandbox.source_refused`.
    pub id: String,
    /// What was refused, in lower case.
    pub message: String,
    /// What would allow it.
    pub hint: Option<String>,
}

impl Refusal {
    /// `detect` has neither layers nor downloads, whichever executor runs it.
    pub(crate) fn not_in_detect() -> Self {
        Self {
            id: "sandbox.not_in_detect".to_owned(),
            message: "layers and downloads are for `build` only".to_owned(),
            hint: None,
        }
    }
}

/// A host directory as a guest sees it.
///
/// # Shape
/// The guest sees the union of `lower` and `upper`, which wins, with the paths
/// of `hidden` cut out of `lower`. Where it is `writable`, changes go to `upper`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute guest path, such as `/workspace`.
    pub guest_path: String,
    /// What the guest finds there and cannot change.
    pub lower: Option<PathBuf>,
    /// What was written over it.
    pub upper: Option<PathBuf>,
    /// Whether the guest may change `upper`.
    pub writable: bool,
    /// Paths relative to the mount that are not visible in `lower`.
    pub hidden: Vec<String>,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A component, in a cell.
    Component(ComponentFile),
    /// `bin/detect` and `bin/build`, as plain processes of this machine. They see
    /// the paths of the host as they are; the mounts of the call say nothing to them.
    Executables(Executables),
}

/// A component file, the digest it was loaded under, and the directories its guest is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentFile {
    /// `sha256:<hex>` of the component's bytes.
    pub digest: String,
    /// The component file on the host.
    pub path: PathBuf,
    pub directories: GuestDirectories,
}

/// Directories of every call, as absolute guest paths; they are mounts of the call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GuestDirectories {
    pub app: String,
    /// The buildpack's own files.
    pub buildpack: String,
    pub platform: String,
}

/// A classic buildpack and the directories its processes are told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executables {
    /// Absolute path of the buildpack.
    pub directory: PathBuf,
    /// Decides what is passed and how its files are read.
    pub api: ApiVersion,
    /// The app, and the working directory.
    pub app: PathBuf,
    /// The platform directory.
    pub platform: PathBuf,
    /// Media types of bills of materials it says it writes.
    pub sbom_formats: Vec<String>,
    /// Where private files of a call are made.
    pub scratch: PathBuf,
}

/// What is the same for both calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallInputs {
    /// Who is called; in every message.
    pub buildpack: BuildpackRef,
    /// What is run.
    pub program: Program,
    /// The whole of what the guest can see, in no particular order.
    pub mounts: Vec<Mount>,
    /// The process environment, by the rules of the specification.
    pub environment: Environment,
    /// What the image is for.
    pub target: Target,
    /// Such as `production`.
    pub exec_env: ExecEnv,
    /// Variables the user set, as records.
    pub user_env: BTreeMap<String, String>,
    /// The `[metadata]` table of `buildpack.toml`, as TOML text.
    pub metadata: String,
    /// What the guest may do beyond the empty cell.
    pub grants: Grants,
    /// What the guest may use up.
    pub limits: CallLimits,
}

impl CallInputs {
    /// The component to run.
    ///
    /// # Errors
    /// [`GuestFailure::Unloadable`] when it is no component that is to be run.
    pub fn component(&self) -> Result<&ComponentFile, GuestFailure> {
        match &self.program {
            Program::Component(component) => Ok(component),
            Program::Executables(_) => Err(GuestFailure::Unloadable {
                buildpack: self.buildpack.clone(),
                id: "buildpack.not_a_component".to_owned(),
                message: "it is made of executables".to_owned(),
                hint: None,
            }),
        }
    }
}

/// Inputs of one `detect` call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectInputs {
    pub call: CallInputs,
}

/// The verdict of `detect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DetectOutputs {
    /// Takes part: its plan alternatives, best first, never empty.
    Pass(Vec<PlanContribution>),
    /// Does not apply, and why.
    Fail { reason: String },
}

/// One entry of the plan a buildpack is to satisfy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanEntry {
    pub name: String,
    /// TOML text.
    pub metadata: String,
}

/// A layer of the last build, as a buildpack is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredLayer {
    pub name: LayerName,
    pub types: LayerTypes,
    pub cache_key: String,
    /// TOML text.
    pub metadata: String,
}

/// Inputs of one `build` call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildInputs {
    pub call: CallInputs,
    /// Guest path of this buildpack's layers, writable: `/layers/<id>`.
    pub layers_directory: String,
    pub plan: Vec<PlanEntry>,
    pub restored: Vec<RestoredLayer>,
    /// Host directories that `open_layer` may answer with: read-only store trees of
    /// `restored`. The executor confines the guest before it asks for them.
    pub restorable_trees: Vec<PathBuf>,
    /// Host directory below which `open_layer` and `update_layer` make theirs.
    pub layers_work_directory: PathBuf,
    /// TOML text of `store.toml` `[metadata]`.
    pub store: Option<String>,
}

/// Everything one `build` produced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BuildOutputs {
    /// Sorted by name.
    pub layers: Vec<LayerOutput>,
    pub processes: Vec<Process>,
    pub slices: Vec<Slice>,
    pub labels: Vec<Label>,
    pub app_links: Vec<AppLink>,
    /// Names of the plan that were not satisfied.
    pub unmet: Vec<String>,
    pub store: StoreOutput,
    pub launch_sboms: Vec<Sbom>,
    pub build_sboms: Vec<Sbom>,
    /// Entries of old bills of materials.
    pub launch_bom: Vec<Requirement>,
    pub build_bom: Vec<Requirement>,
    /// App paths the guest removed or replaced; they hide what the source has.
    pub app_hidden: Vec<String>,
}

/// What becomes of a buildpack's `store.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StoreOutput {
    /// It stays as it was (STO-04).
    #[default]
    Unchanged,
    /// TOML text of its `[metadata]`.
    Replaced(String),
    /// The buildpack removed it.
    Cleared,
}

/// One layer as `build` left it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerOutput {
    pub name: LayerName,
    pub types: LayerTypes,
    pub cache_key: String,
    pub contents: LayerContents,
    /// TOML text.
    pub metadata: String,
    pub environment: Vec<EnvironmentChange>,
    pub sboms: Vec<Sbom>,
}

/// Where the contents of a layer are after `build`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerContents {
    /// The store's tree, unchanged.
    Restored,
    /// Nowhere here: the last image's layer stays.
    Kept,
    /// The directory `open_layer` gave out.
    Written,
    /// The directory of this name in the buildpack's layers directory, its
    /// environment files included: the buildpack wrote all of it itself.
    InPlace,
    /// There is no directory: whether an image or a cache keeps the layer is for
    /// those who see its types and the last image.
    Nowhere,
    /// The store's tree with the directory of `update_layer` over it; these
    /// paths of the tree were removed or replaced.
    Updated { hidden: Vec<String> },
}

/// A link the host puts into the app at export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppLink {
    /// Relative to the app, clean.
    pub path: String,
    pub layer: LayerName,
    /// Relative to the layer, clean; may be empty.
    pub target: String,
}

/// Who a guest says can act on the failure it returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReturnedFault {
    App,
    Buildpack,
    Environment,
}

/// How a call of a buildpack can end without a result.
///
/// A trap, a limit or a bad result is always an error, never "does not apply" (WSM-02).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GuestFailure {
    /// The buildpack itself says that it failed.
    #[error("buildpack `{buildpack}` failed: {message}")]
    Returned { buildpack: BuildpackRef, fault: ReturnedFault, message: String, hint: Option<String> },
    /// It ran into a limit.
    #[error("buildpack `{buildpack}` {} (limit {}, reached {})", .limit.what(), .limit.show(*.allowed), .limit.show(*.reached))]
    Limit {
        buildpack: BuildpackRef,
        limit: LimitKind,
        /// In the unit of the limit.
        allowed: u64,
        reached: u64,
    },
    /// It panicked or did something Wasm forbids.
    #[error("buildpack `{buildpack}` trapped: {message}")]
    Trapped {
        buildpack: BuildpackRef,
        /// First line: what the trap was.
        message: String,
        /// Function names, innermost first.
        backtrace: Vec<String>,
    },
    /// What it returned breaks a rule.
    #[error("buildpack `{buildpack}` returned something invalid: {message}")]
    BadOutput { buildpack: BuildpackRef, message: String },
    /// It was refused something and did not go on.
    #[error("buildpack `{buildpack}` was refused: {refusal}")]
    Refused { buildpack: BuildpackRef, refusal: Refusal },
    /// It is no component of our world; nothing of it ran.
    #[error("buildpack `{buildpack}` cannot be loaded: {message}")]
    Unloadable {
        buildpack: BuildpackRef,
        /// `buildpack.unsupported_import`, `buildpack.missing_export`,
        /// `buildpack.not_a_component`, `buildpack.compile_limit` or
        /// `buildpack.not_executable`.
        id: String,
        message: String,
        hint: Option<String>,
    },
    /// The process that ran it went away.
    #[error("the worker that ran buildpack `{buildpack}` crashed ({how})")]
    WorkerCrashed {
        buildpack: BuildpackRef,
        /// Such as `signal 11`.
        how: String,
    },
    /// The worker could not be started or confined.
    #[error("cannot run buildpack `{buildpack}` in a worker process: {message}")]
    WorkerUnavailable { buildpack: BuildpackRef, message: String },
    /// The build was cancelled.
    #[error("cancelled while buildpack `{buildpack}` ran")]
    Cancelled { buildpack: BuildpackRef },
}

impl GuestFailure {
    /// This failure as `buildpack`'s, with everything the guest wrote made
    /// harmless to a terminal. What comes from a worker passes here.
    pub(crate) fn made_harmless(self, by: &BuildpackRef) -> Self {
        let buildpack = by.clone();
        let lines = |text: String| harmless_lines(&text);
        match self {
            Self::Returned { fault, message, hint, .. } => {
                Self::Returned { buildpack, fault, message: lines(message), hint: hint.map(lines) }
            }
            Self::Limit { limit, allowed, reached, .. } => Self::Limit { buildpack, limit, allowed, reached },
            Self::Trapped { message, backtrace, .. } => Self::Trapped {
                buildpack,
                message: lines(message),
                backtrace: backtrace.iter().map(|frame| harmless(frame)).collect(),
            },
            Self::BadOutput { message, .. } => Self::BadOutput { buildpack, message: lines(message) },
            Self::Refused { refusal, .. } => Self::Refused {
                buildpack,
                refusal: Refusal {
                    id: refusal.id,
                    message: lines(refusal.message),
                    hint: refusal.hint.map(lines),
                },
            },
            Self::Unloadable { id, message, hint, .. } => {
                Self::Unloadable { buildpack, id, message: lines(message), hint: hint.map(lines) }
            }
            Self::WorkerCrashed { how, .. } => Self::WorkerCrashed { buildpack, how: lines(how) },
            Self::WorkerUnavailable { message, .. } => {
                Self::WorkerUnavailable { buildpack, message: lines(message) }
            }
            Self::Cancelled { .. } => Self::Cancelled { buildpack },
        }
    }
}

impl Diagnose for GuestFailure {
    fn id(&self) -> &'static str {
        match self {
            Self::Returned { .. } => "buildpack.failed",
            Self::Limit { limit, .. } => limit.id(),
            Self::Trapped { .. } => "guest.trap",
            Self::BadOutput { .. } => "buildpack.bad_output",
            Self::Refused { .. } => "sandbox.refused",
            Self::Unloadable { id, .. } => match id.as_str() {
                "buildpack.unsupported_import" => "buildpack.unsupported_import",
                "buildpack.missing_export" => "buildpack.missing_export",
                "buildpack.compile_limit" => "buildpack.compile_limit",
                "buildpack.not_executable" => "buildpack.not_executable",
                _ => "buildpack.not_a_component",
            },
            Self::WorkerCrashed { .. } => "worker.crashed",
            Self::WorkerUnavailable { .. } => "worker.unavailable",
            Self::Cancelled { .. } => "build.cancelled",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Returned { fault, .. } => match fault {
                ReturnedFault::App => Fault::App,
                ReturnedFault::Buildpack => Fault::Buildpack,
                ReturnedFault::Environment => Fault::Environment,
            },
            Self::WorkerUnavailable { .. } => Fault::Environment,
            Self::Cancelled { .. } => Fault::Caller,
            _ => Fault::Buildpack,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Returned { hint, .. } | Self::Unloadable { hint, .. } => hint.clone(),
            Self::Limit { limit, .. } => Some(limit.hint()),
            Self::Refused { refusal, .. } => refusal.hint.clone(),
            Self::Trapped { .. } => {
                Some("`--keep-work-dir` keeps the directories the buildpack saw".to_owned())
            }
            _ => None,
        }
    }
}
