//! Runs a real component in a test of its buildpack: in this process, in
//! milliseconds, against a temporary store.
//!
//! The cell is the one of a build: the same file system, limits, clocks and
//! imports. The worker process around it is missing, so it is for code of your own.
//!
//! ```no_run
//! use wapack_runtime::testkit::TestKit;
//!
//! let mut kit = TestKit::load("target/wasm32-wasip2/guest/hello_buildpack.wasm")?;
//! assert!(kit.detect("tests/apps/hello")?.is_pass());
//! let built = kit.build("tests/apps/hello")?;
//! assert_eq!(built.processes.len(), 1);
//! // The second build finds what the first one left in the cache.
//! assert!(kit.build("tests/apps/hello")?.layer("greeting").is_some_and(|layer| layer.restored));
//! # Ok::<(), wapack_runtime::testkit::TestKitError>(())
//! ```

use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use fs_err as fs;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::cancel::Cancel;
use crate::catalog::{Buildpack, BuildpackKind};
use crate::cnb::buildpack_toml::BuildpackDescriptor;
use crate::cnb::id::{BuildpackRef, ExecEnv, LayerName};
use crate::cnb::layer::LayerTypes;
use crate::cnb::target::Target;
use crate::executor::wasm::InProcessExecutor;
use crate::executor::{
    Arrivals, ArtifactRequest, BuildHost, BuildInputs, BuildOutputs, CallInputs, ComponentFile, DetectInputs,
    DetectOutputs, Executor, GuestFailure, LayerContents, LayerOutput, LogSink, OpenedLayer, PlanEntry,
    Program, Refusal, RestoredLayer, StoreOutput,
};
use crate::limits::Limits;
use crate::phase::build::merge;
use crate::sources::{Session, Sources};
use crate::toml_text::TomlError;
use crate::tree::Tree;
use crate::workspace::Workspace;

/// What a component has to say of itself when no `buildpack.toml` does.
const DEFAULT_DESCRIPTOR: &str = "api = \"0.12\"\n[buildpack]\nid = \"test/kit\"\nversion = \"0.0.0\"\n";

/// Why a test cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TestKitError {
    /// The component or a directory cannot be read or made.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// `buildpack.toml` is not valid.
    #[error("`buildpack.toml` is not valid: {0}")]
    Descriptor(TomlError),
    /// wasmtime does not work here.
    #[error("cannot run components: {0}")]
    Engine(String),
    /// The buildpack failed, trapped, hit a limit or returned something invalid.
    #[error(transparent)]
    Guest(#[from] GuestFailure),
}

/// One buildpack under test, with what it leaves in its cache.
pub struct TestKit {
    executor: InProcessExecutor,
    buildpack: Buildpack,
    limits: Limits,
    target: Target,
    env: BTreeMap<String, String>,
    plan: Vec<PlanEntry>,
    sources: Sources,
    directory: TempDir,
    builds: u32,
    cached: Vec<TestLayer>,
    store: Option<String>,
}

/// The verdict of `detect`, and what the buildpack printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestDetect {
    pub outputs: DetectOutputs,
    pub lines: Vec<String>,
}

impl TestDetect {
    /// Whether the buildpack takes part.
    #[must_use]
    pub fn is_pass(&self) -> bool {
        matches!(self.outputs, DetectOutputs::Pass(_))
    }
}

/// What `build` returned, left on disk and printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestBuild {
    /// What it returned; also what this value dereferences to.
    pub outputs: BuildOutputs,
    /// Its layers with their contents.
    pub contents: Vec<TestLayer>,
    pub lines: Vec<String>,
}

impl Deref for TestBuild {
    type Target = BuildOutputs;

    fn deref(&self) -> &BuildOutputs {
        &self.outputs
    }
}

impl TestBuild {
    /// A layer by its name.
    #[must_use]
    pub fn layer(&self, name: &str) -> Option<&TestLayer> {
        self.contents.iter().find(|layer| layer.name.as_str() == name)
    }
}

/// A layer on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestLayer {
    pub name: LayerName,
    pub types: LayerTypes,
    pub cache_key: String,
    /// TOML text.
    pub metadata: String,
    /// The contents.
    pub path: PathBuf,
    /// Whether the contents of the build before were used.
    pub restored: bool,
}

impl TestKit {
    /// Loads the component of a buildpack.
    ///
    /// # Errors
    /// [`TestKitError`]; that it is no buildpack is said by the first call.
    pub fn load(component: impl AsRef<Path>) -> Result<Self, TestKitError> {
        let limits = Limits::default();
        let directory = tempfile::tempdir()?;
        let path = component.as_ref().to_owned();
        let digest = hex(&Sha256::digest(fs::read(&path)?));
        let own = directory.path().join("buildpack");
        fs::create_dir(&own)?;
        let descriptor = BuildpackDescriptor::parse(DEFAULT_DESCRIPTOR).map_err(TestKitError::Descriptor)?;
        let target = Target { os: "linux".into(), arch: "amd64".into(), variant: None, distro: None };
        Ok(Self {
            executor: InProcessExecutor::new(limits.clone()).map_err(TestKitError::Engine)?,
            buildpack: Buildpack {
                reference: descriptor.reference.clone(),
                descriptor,
                directory: own,
                kind: BuildpackKind::Component { path, digest: format!("sha256:{digest}") },
            },
            limits,
            target,
            env: BTreeMap::new(),
            plan: Vec::new(),
            sources: Sources::default(),
            directory,
            builds: 0,
            cached: Vec::new(),
            store: None,
        })
    }

    /// Takes id, metadata and grants from the `buildpack.toml` in `directory`,
    /// which is also what the component sees as its own directory.
    ///
    /// # Errors
    /// When the file cannot be read or is not valid.
    pub fn buildpack_directory(mut self, directory: impl AsRef<Path>) -> Result<Self, TestKitError> {
        let text = fs::read_to_string(directory.as_ref().join("buildpack.toml"))?;
        self.buildpack.descriptor = BuildpackDescriptor::parse(&text).map_err(TestKitError::Descriptor)?;
        self.buildpack.reference = self.buildpack.descriptor.reference.clone();
        self.buildpack.directory = directory.as_ref().canonicalize()?;
        Ok(self)
    }

    /// Sets a variable of the user.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Builds for another architecture, such as `arm64`.
    #[must_use]
    pub fn arch(mut self, arch: &str) -> Self {
        arch.clone_into(&mut self.target.arch);
        self
    }

    /// Gives the buildpack an entry of the build plan; `metadata` is TOML.
    #[must_use]
    pub fn plan_entry(mut self, name: &str, metadata: &str) -> Self {
        self.plan.push(PlanEntry { name: name.to_owned(), metadata: metadata.to_owned() });
        self
    }

    /// Serves sources: from directories with [`Sources::of_directories`], or from anywhere.
    #[must_use]
    pub fn sources(mut self, sources: Sources) -> Self {
        self.sources = sources;
        self
    }

    /// Calls `detect` on the app in `app`.
    ///
    /// # Errors
    /// [`TestKitError`].
    pub fn detect(&mut self, app: impl AsRef<Path>) -> Result<TestDetect, TestKitError> {
        let mut workspace = self.workspace(app.as_ref())?;
        let call = self.call(&mut workspace, false)?;
        let mut host = Host::new(self, PathBuf::new());
        let mut results = self.executor.detect(&[DetectInputs { call }], &mut host);
        let outputs = results.pop().transpose()?.unwrap_or(DetectOutputs::Fail { reason: String::new() });
        Ok(TestDetect { outputs, lines: host.lines })
    }

    /// Calls `build` on the app in `app`, with the layers of the build before.
    ///
    /// # Errors
    /// [`TestKitError`].
    pub fn build(&mut self, app: impl AsRef<Path>) -> Result<TestBuild, TestKitError> {
        let mut workspace = self.workspace(app.as_ref())?;
        let id = self.buildpack.reference.id.clone();
        let layers_work_directory = workspace.layers_of(&self.buildpack)?;
        let inputs = BuildInputs {
            call: self.call(&mut workspace, true)?,
            layers_directory: workspace.places.layers_of(&id),
            plan: self.plan.clone(),
            restored: self.cached.iter().map(restored).collect(),
            restorable_trees: Vec::new(),
            layers_work_directory: layers_work_directory.clone(),
            store: self.store.clone(),
        };
        let mut host = Host::new(self, layers_work_directory);
        let outputs = self.executor.build(&inputs, &mut host)?;
        let lines = host.lines;
        let contents = outputs
            .layers
            .iter()
            .map(|layer| self.contents_of(layer, &inputs.layers_work_directory))
            .collect::<Result<Vec<_>, _>>()?;
        self.cached = contents.iter().filter(|layer| layer.types.cache).cloned().collect();
        match &outputs.store {
            StoreOutput::Unchanged => {}
            StoreOutput::Replaced(store) => self.store = Some(store.clone()),
            StoreOutput::Cleared => self.store = None,
        }
        Ok(TestBuild { outputs, contents, lines })
    }

    /// Where the contents of a returned layer are; those of an updated one are put together.
    fn contents_of(&self, layer: &LayerOutput, directory: &Path) -> Result<TestLayer, TestKitError> {
        let known = self.cached.iter().find(|known| known.name == layer.name);
        let path = directory.join(layer.name.as_str());
        let path = match (&layer.contents, known) {
            (LayerContents::Restored, Some(known)) => known.path.clone(),
            (LayerContents::Updated { hidden }, Some(known)) => {
                let tree = Tree {
                    lower: Some(known.path.clone()),
                    upper: Some(directory.join(changes_of(&layer.name))),
                    hidden: hidden.iter().map(PathBuf::from).collect(),
                };
                merge(&tree, &path, &Cancel::default())
                    .map_err(|error| io::Error::other(format!("{error:?}")))?;
                path
            }
            _ => path,
        };
        Ok(TestLayer {
            name: layer.name.clone(),
            types: layer.types,
            cache_key: layer.cache_key.clone(),
            metadata: layer.metadata.clone(),
            path,
            restored: !matches!(layer.contents, LayerContents::Written),
        })
    }

    fn workspace(&mut self, app: &Path) -> Result<Workspace, TestKitError> {
        self.builds += 1;
        let root = self.directory.path().join(format!("call-{}", self.builds));
        fs::create_dir(&root)?;
        Ok(Workspace::new(&root, Tree::of(app.canonicalize()?), &self.env)?)
    }

    fn call(&self, workspace: &mut Workspace, building: bool) -> Result<CallInputs, TestKitError> {
        let BuildpackKind::Component { path, digest } = &self.buildpack.kind else {
            return Err(TestKitError::Engine("not a component".to_owned()));
        };
        let grants = self.buildpack.descriptor.grants.all();
        let exec_env = ExecEnv::default();
        let mut environment =
            workspace.environment(&self.buildpack, &self.target, &exec_env, &workspace.before_layers());
        if building {
            workspace.add_build_variables(&self.buildpack, &mut environment);
        }
        Ok(CallInputs {
            buildpack: self.buildpack.reference.clone(),
            program: Program::Component(ComponentFile {
                digest: digest.clone(),
                path: path.clone(),
                directories: workspace.guest_directories(&self.buildpack),
            }),
            mounts: workspace.mounts(&self.buildpack, &grants, building)?,
            environment,
            target: self.target.clone(),
            exec_env,
            user_env: self.env.clone(),
            metadata: self.buildpack.descriptor.metadata.clone(),
            grants,
            limits: if building { self.limits.for_build() } else { self.limits.for_detect() },
        })
    }
}

/// Name of the directory for what is written over a restored layer; no layer is called like this.
fn changes_of(layer: &LayerName) -> String {
    format!("{layer}\nchanges")
}

fn restored(layer: &TestLayer) -> RestoredLayer {
    RestoredLayer {
        name: layer.name.clone(),
        types: layer.types,
        cache_key: layer.cache_key.clone(),
        metadata: layer.metadata.clone(),
    }
}

fn hex(bytes: &[u8]) -> String {
    crate::walk::hex(bytes)
}

/// Answers a call from the kit's cache and sources.
struct Host {
    directory: PathBuf,
    cached: Vec<TestLayer>,
    session: Session,
    lines: Vec<String>,
}

impl Host {
    fn new(kit: &TestKit, directory: PathBuf) -> Self {
        Self {
            directory,
            cached: kit.cached.clone(),
            session: kit.sources.session(&kit.buildpack.reference, &kit.buildpack.descriptor.grants.all()),
            lines: Vec::new(),
        }
    }

    fn fresh(&self, name: &str) -> Result<PathBuf, Refusal> {
        let directory = self.directory.join(name);
        fs::create_dir(&directory).map(|()| directory).map_err(|error| Refusal {
            id: "host.failed".to_owned(),
            message: error.to_string(),
            hint: None,
        })
    }
}

impl LogSink for Host {
    fn line(&mut self, _: &BuildpackRef, line: &str) {
        self.lines.push(line.to_owned());
    }
}

impl BuildHost for Host {
    fn open_layer(
        &mut self,
        name: &LayerName,
        types: LayerTypes,
        cache_key: &str,
    ) -> Result<OpenedLayer, Refusal> {
        let same =
            |layer: &&TestLayer| layer.name == *name && layer.types == types && layer.cache_key == cache_key;
        match self.cached.iter().find(same) {
            Some(layer) => Ok(OpenedLayer::Restored { tree: layer.path.clone() }),
            None => self.fresh(name.as_str()).map(|directory| OpenedLayer::Empty { directory }),
        }
    }

    fn update_layer(&mut self, name: &LayerName) -> Result<PathBuf, Refusal> {
        self.fresh(&changes_of(name))
    }

    fn fetch(&mut self, artifacts: Vec<ArtifactRequest>, arrivals: Arrivals) {
        self.session.fetch(artifacts, &arrivals);
    }
}
