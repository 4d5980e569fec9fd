//! What the tests share: a site with its own store, and buildpacks made of guests.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use acceptance::{Job, Surroundings, amd64};
use wapack_runtime::cancel::Cancel;
use wapack_runtime::error::Error;
use wapack_runtime::event::{Event, LayerSource};
use wapack_runtime::executor::worker::WorkerCommand;
use wapack_runtime::images::FoundImage;
use wapack_runtime::oci::layout::LayoutImage;
use wapack_runtime::phase::export::{Base, Exported, LauncherMode, RunImage};
use wapack_runtime::policy::{Policy, PolicyPaths};

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
    /// Where the source `npm` is: an address, or a directory.
    pub(crate) npm: Option<String>,
    pub(crate) offline: bool,
    /// Passed to the worker program: tells this site's workers from others in `/proc`.
    pub(crate) worker_arguments: Vec<String>,
    /// A real launcher, where one is needed.
    pub(crate) launcher: Option<PathBuf>,
}

/// What a build said and did.
pub(crate) struct Outcome {
    pub(crate) result: Result<Exported, Error>,
    pub(crate) events: Vec<Event>,
}

impl Outcome {
    /// Everything buildpacks printed.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Output { line, .. } => Some(line.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Everything the user was warned of.
    pub(crate) fn warnings(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Warning { message } => Some(message.as_str()),
                _ => None,
            })
            .collect()
    }

    /// How the image's layers came to be, by name.
    pub(crate) fn layers(&self) -> BTreeMap<&str, LayerSource> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::LayerExported { name, source, .. } => Some((name.as_str(), *source)),
                _ => None,
            })
            .collect()
    }

    /// The digest of the image.
    pub(crate) fn digest(&self) -> String {
        match &self.result {
            Ok(exported) => exported.digest.to_string(),
            Err(error) => panic!("no image: {error:?}\n{:#?}", self.events),
        }
    }
}

/// An image of a layout as the library finds it.
pub(crate) fn found(image: &LayoutImage) -> FoundImage {
    FoundImage { reference: image.digest.to_string(), image: image.image.clone() }
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

impl Site {
    pub(crate) fn new() -> Self {
        Self::inside(tempfile::tempdir().expect("a temporary directory"))
    }

    /// A site in memory, where there is such a place: flushing a busy disk takes long.
    pub(crate) fn in_memory() -> Self {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::inside(root.expect("a temporary directory"))
    }

    fn inside(root: tempfile::TempDir) -> Self {
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
            npm: None,
            offline: false,
            launcher: None,
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

    /// Adds a file to the app that may be executed, for processes that nobody starts.
    pub(crate) fn program(self, name: &str) -> Self {
        let path = self.path("app").join(name);
        std::fs::write(&path, "a program").expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
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

    /// What a build of this site takes.
    pub(crate) fn job(&self) -> Job {
        Job {
            store: self.path("store"),
            app: self.path("app"),
            output: self.path("image"),
            tenant: "test".to_owned(),
            image: IMAGE.to_owned(),
            buildpacks: self.buildpacks.clone(),
            env: self.env.clone(),
            worker: env!("CARGO_BIN_EXE_acceptance-worker").into(),
            launcher: self.launcher.clone(),
            worker_arguments: self.worker_arguments.clone(),
            process_type: None,
            npm: self.npm.clone(),
            offline: self.offline,
            clear_cache: false,
            verify: false,
            previous: None,
        }
    }

    /// Builds with all buildpacks as one group.
    pub(crate) fn build(&self) -> Outcome {
        self.build_job(&self.job(), |_| ())
    }

    /// Builds, and shows each event when it happens.
    pub(crate) fn build_job(&self, job: &Job, mut watch: impl FnMut(&Event)) -> Outcome {
        let surroundings = Surroundings {
            policy: &self.policy,
            cancel: &self.cancel,
            launcher_mode: self.launcher_mode,
            run_image: &self.run_image,
        };
        let mut events = Vec::new();
        let result = acceptance::build(job, surroundings, &mut |event| {
            watch(&event);
            events.push(event);
        });
        Outcome { result, events }
    }
}
