//! What the tests share: a site with its own store, and buildpacks made of guests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wapack_runtime::cancel::Cancel;
use wapack_runtime::catalog::{Builder, Buildpack, Catalog};
use wapack_runtime::cnb::id::ExecEnv;
use wapack_runtime::cnb::labels::ProjectMetadata;
use wapack_runtime::cnb::order::{Order, OrderGroup, OrderMember};
use wapack_runtime::cnb::target::Target;
use wapack_runtime::error::Error;
use wapack_runtime::event::Event;
use wapack_runtime::executor::worker::WorkerCommand;
use wapack_runtime::lifecycle::{self, AppRequest, BuildRequest};
use wapack_runtime::phase::export::{Base, Exported, Launcher, LauncherMode, RunImage};
use wapack_runtime::policy::{Policy, PolicyPaths};
use wapack_runtime::sources::Sources;
use wapack_runtime::store::Store;

/// The name of the image that tests build.
pub(crate) const IMAGE: &str = "acceptance/image:latest";

/// A store, an app and an output of one test's own.
pub(crate) struct Site {
    pub(crate) root: tempfile::TempDir,
    pub(crate) buildpacks: Vec<PathBuf>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) policy: Policy,
    pub(crate) launcher_mode: LauncherMode,
    pub(crate) run_image: RunImage,
    pub(crate) cancel: Cancel,
    pub(crate) sources: Sources,
    /// Passed to the worker program: tells this site's workers from others in `/proc`.
    pub(crate) worker_arguments: Vec<String>,
}

/// What a build said and did.
pub(crate) struct Outcome {
    pub(crate) result: Result<Exported, Error>,
    pub(crate) events: Vec<Event>,
}

impl Outcome {
    /// Everything buildpacks printed.
    pub(crate) fn lines(&self) -> Vec<&str> {
        let mut lines = Vec::new();
        for event in &self.events {
            if let Event::Output { line, .. } = event {
                lines.push(line.as_str());
            }
        }
        lines
    }
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_acceptance-worker"));
    binary.ancestors().nth(2).expect("it is in target/<profile>/").to_owned()
}

/// The component of a guest, by the name of its file in `tests/guests/examples`.
pub(crate) fn guest(name: &str) -> PathBuf {
    let directory = target_directory().join("wasm32-wasip2/guest/examples");
    let path = directory.join(format!("{}.wasm", name.replace('-', "_")));
    assert!(path.is_file(), "`{}` is missing: run `cargo xtask guests` first", path.display());
    path
}

pub(crate) fn amd64() -> Target {
    Target { os: "linux".into(), arch: "amd64".into(), variant: None, distro: None }
}

impl Site {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        for name in ["app", "buildpacks"] {
            std::fs::create_dir(root.path().join(name)).expect("a directory");
        }
        std::fs::write(root.path().join("app/index.html"), "<h1>hello</h1>\n").expect("a file");
        let worker_arguments = vec![root.path().display().to_string()];
        Self {
            root,
            worker_arguments,
            buildpacks: Vec::new(),
            env: BTreeMap::new(),
            policy: Policy::load(&PolicyPaths::default()).expect("the defaults").0,
            launcher_mode: LauncherMode::Auto,
            run_image: RunImage { base: Base::Scratch(amd64()), name: String::new(), mirrors: vec![] },
            cancel: Cancel::default(),
            sources: Sources::default(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Adds a buildpack `test/<name>` made of a component and extra lines of its `buildpack.toml`.
    pub(crate) fn buildpack(&mut self, name: &str, component: &Path, extra_toml: &str) -> PathBuf {
        let directory = self.path("buildpacks").join(name);
        std::fs::create_dir(&directory).expect("a directory");
        let toml =
            format!("api = \"0.12\"\n[buildpack]\nid = \"test/{name}\"\nversion = \"1.0.0\"\n{extra_toml}");
        std::fs::write(directory.join("buildpack.toml"), toml).expect("a file");
        std::fs::copy(component, directory.join("buildpack.wasm")).expect("the component");
        self.buildpacks.push(directory.clone());
        directory
    }

    /// Adds a guest of `tests/guests` as a buildpack.
    pub(crate) fn guest(mut self, name: &str) -> Self {
        self.buildpack(name, &guest(name), "");
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// How this site's workers are started.
    pub(crate) fn worker(&self) -> WorkerCommand {
        WorkerCommand {
            program: env!("CARGO_BIN_EXE_acceptance-worker").into(),
            arguments: self.worker_arguments.clone(),
        }
    }

    /// Builds with all buildpacks as one group.
    pub(crate) fn build(&self) -> Outcome {
        let (store, _) = Store::open(&self.path("store")).expect("a store");
        let digest = |path: &Path| store.digest_of_file(path);
        let mut catalog = Catalog::default();
        let mut members = Vec::new();
        for directory in &self.buildpacks {
            let buildpack = Buildpack::load(directory, &digest).expect("a buildpack");
            members.push(OrderMember {
                buildpack: buildpack.reference.clone(),
                optional: false,
                exec_envs: vec![],
            });
            catalog.add(buildpack).expect("each once");
        }
        let builder = Builder { catalog, order: Order { groups: vec![OrderGroup { members }] } };
        let (target, exec_env) = (amd64(), ExecEnv::default());
        let worker = self.worker();
        let launcher = Launcher { bytes: b"not a real launcher".to_vec(), version: "0.0.0".into() };
        let project = ProjectMetadata::default();
        let source = self.path("app");
        let output = self.path("image");
        let request = BuildRequest {
            app: AppRequest {
                source: &source,
                builder: &builder,
                store: &store,
                policy: &self.policy,
                target: &target,
                exec_env: &exec_env,
                user_env: &self.env,
                worker: &worker,
                keep_work_dir: false,
                cancel: &self.cancel,
            },
            tenant: "test",
            image: IMAGE,
            sources: &self.sources,
            run_image: &self.run_image,
            launcher: &launcher,
            launcher_mode: self.launcher_mode,
            user: None,
            process_type: None,
            project: &project,
            output: &output,
        };
        let mut events = Vec::new();
        let result = lifecycle::build(&request, &mut |event| events.push(event));
        Outcome { result, events }
    }
}
