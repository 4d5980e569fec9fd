//! One build through the library's front door, as the tests and `acceptance-build` make it.
//!
//! Knows which values a build takes and nothing about what is tested.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wapack_runtime::cancel::Cancel;
use wapack_runtime::catalog::{Builder, Buildpack, Catalog};
use wapack_runtime::cnb::id::{ExecEnv, ProcessType};
use wapack_runtime::cnb::labels::ProjectMetadata;
use wapack_runtime::cnb::order::{Order, OrderGroup, OrderMember};
use wapack_runtime::cnb::target::Target;
use wapack_runtime::error::Error;
use wapack_runtime::event::{Event, EventSink};
use wapack_runtime::executor::worker::WorkerCommand;
use wapack_runtime::images::OciDirectory;
use wapack_runtime::lifecycle::{self, AppRequest, BuildRequest};
use wapack_runtime::network::{NetworkSettings, SourcePlace, SourceSettings, SourceTrust};
use wapack_runtime::oci::encoder::Encoding;
use wapack_runtime::phase::export::{Exported, FileOwner, Launcher, LauncherMode, RunImage};
use wapack_runtime::phase::restore::PreviousImage;
use wapack_runtime::policy::Policy;
use wapack_runtime::source::Selection;
use wapack_runtime::sources::Sources;
use wapack_runtime::store::Store;

/// The platform that tests build for.
#[must_use]
pub fn amd64() -> Target {
    Target { os: "linux".into(), arch: "amd64".into(), variant: None, distro: None }
}

/// What goes into a build and fits into text, so that another process can do it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub store: PathBuf,
    pub app: PathBuf,
    /// Directory of the layout.
    pub output: PathBuf,
    pub tenant: String,
    pub image: String,
    /// All of one group, in this order.
    pub buildpacks: Vec<PathBuf>,
    pub env: BTreeMap<String, String>,
    pub worker: PathBuf,
    /// Tells a site's workers from others in `/proc`.
    #[serde(default)]
    pub worker_arguments: Vec<String>,
    /// The launcher's file; without it a text takes its place.
    pub launcher: Option<PathBuf>,
    /// The process to start instead of the default one.
    pub process_type: Option<String>,
    /// Where the source `npm` is: an address, or a directory.
    #[serde(default)]
    pub npm: Option<String>,
    /// Forget first what was kept for the image.
    #[serde(default)]
    pub clear_cache: bool,
    /// Read the bytes of everything in the store again.
    #[serde(default)]
    pub verify: bool,
    /// A layout with an earlier image of the same name.
    #[serde(default)]
    pub previous: Option<PathBuf>,
    /// Fetch nothing over the network.
    #[serde(default)]
    pub offline: bool,
}

/// What goes into a build besides its [`Job`].
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    pub policy: &'a Policy,
    pub cancel: &'a Cancel,
    pub launcher_mode: LauncherMode,
    pub run_image: &'a RunImage,
}

/// Builds.
///
/// # Errors
/// Those of the library.
///
/// # Panics
/// When a buildpack or the launcher cannot be loaded.
#[allow(clippy::result_large_err, reason = "the library's own error")]
pub fn build(
    job: &Job,
    surroundings: Surroundings<'_>,
    events: &mut dyn EventSink,
) -> Result<Exported, Error> {
    let (mut store, warnings) = Store::open(&job.store)?;
    if job.verify {
        store.verify_everything();
    }
    for message in warnings {
        events.event(Event::Warning { message });
    }
    let builder = builder(&store, &job.buildpacks);
    let bytes = job.launcher.as_ref().map_or_else(
        || b"not a real launcher".to_vec(),
        |path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
    );
    let process_type: Option<ProcessType> =
        job.process_type.as_deref().map(|name| name.parse().expect("a process type"));
    let request = BuildRequest {
        app: AppRequest {
            source: &job.app,
            selection: &Selection::default(),
            builder: &builder,
            store: &store,
            policy: surroundings.policy,
            target: &amd64(),
            exec_env: &ExecEnv::default(),
            user_env: &job.env,
            bindings: None,
            worker: &WorkerCommand { program: job.worker.clone(), arguments: job.worker_arguments.clone() },
            keep_work_dir: false,
            cancel: surroundings.cancel,
        },
        tenant: &job.tenant,
        image: &job.image,
        sources: &Sources::new(network(job), &surroundings.policy.limits, store.downloads()),
        run_image: surroundings.run_image,
        run_images: None,
        launcher: &Launcher { bytes, version: "0.0.0".into() },
        launcher_mode: surroundings.launcher_mode,
        user: None,
        files: FileOwner::default(),
        process_type: process_type.as_ref(),
        project: &ProjectMetadata::default(),
        output: &OciDirectory::new(job.output.clone(), None),
        names: std::slice::from_ref(&job.image),
        created: None,
        encoding: Encoding::default(),
        sboms: None,
        hashes_source: false,
        cache_image: None,
        clear_cache: job.clear_cache,
        previous: Some(PreviousImage {
            images: &OciDirectory::new(job.previous.clone().unwrap_or_else(|| job.output.clone()), None),
            name: &job.image,
            place: &job.image,
            is_asked_for: job.previous.is_some(),
        }),
    };
    Ok(lifecycle::build(&request, events)?.exported)
}

fn network(job: &Job) -> NetworkSettings {
    let place = |text: &String| {
        if text.starts_with('/') {
            SourcePlace::Directory(text.into())
        } else {
            SourcePlace::Base(text.parse().expect("an address"))
        }
    };
    let npm = job.npm.as_ref().map(|text| SourceSettings {
        place: place(text),
        mirrors: vec![],
        credentials: None,
        ca: vec![],
        trust: SourceTrust::Configured,
        set_by: "the job".to_owned(),
    });
    NetworkSettings {
        sources: npm.into_iter().map(|npm| ("npm".to_owned(), npm)).collect(),
        offline: job.offline,
        ..NetworkSettings::default()
    }
}

fn builder(store: &Store, directories: &[impl AsRef<Path>]) -> Builder {
    let digest = |path: &Path| store.digest_of_file(path);
    let mut catalog = Catalog::default();
    let mut members = Vec::new();
    for directory in directories {
        let buildpack = Buildpack::load(directory.as_ref(), &digest).expect("a buildpack");
        let buildpack_reference = buildpack.reference.clone();
        members.push(OrderMember { buildpack: buildpack_reference, optional: false, exec_envs: vec![] });
        catalog.add(buildpack).expect("each once");
    }
    let order = Order { groups: vec![OrderGroup { members }] };
    Builder { catalog, order, extensions: Order::default(), build_config: None }
}
