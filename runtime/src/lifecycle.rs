//! The phases in order, and nothing else.
//!
//! ```text
//!  order ──────┐
//!  source dir ─┼─▶ detect ─Detected─▶ restore ─Restored─▶ build ─Outcome─▶ export ─Exported─▶ publish ─▶ keep
//!  buildpacks ─┘      │                  │                  │               │                 │         │
//!                  executor            store             executor          oci             images     store
//! ```
//!
//! [`write_cache`] comes after all of it, when the image was announced.
//!
//! Synchronous. In the middle only what a buildpack fetches by name and hash through
//! [`Sources`] talks to a network; at both ends the places do where images are.

mod cache_image;

pub use self::cache_image::{CacheError, CacheRequest, CachedImage, write_cache};

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cancel::Cancel;
use crate::catalog::{Builder, Buildpack, BuildpackKind, Module};
use crate::cnb::api::PlatformApi;
use crate::cnb::id::{ExecEnv, ProcessType};
use crate::cnb::labels::ProjectMetadata;
use crate::cnb::target::Target;
use crate::error::Error;
use crate::event::{Event, EventSink, Phase};
use crate::executor::worker::{
    CodeCache, Root, SpawnedWorker, WorkerCommand, WorkerExecutor, WorkerSettings,
};
use crate::images::{Images, SavedImage};
use crate::oci::blob::Notes as _;
use crate::oci::encoder::Encoding;
use crate::oci::layer::Owner;
use crate::phase::build::{BuildPhaseRequest, build as build_group};
use crate::phase::detect::{DetectRequest, Detected, detect as detect_group};
use crate::phase::export::{
    ExportRequest, Exported, FileOwner, Launcher, LauncherMode, MAX_REPAIRS, RunImage, export, file_form,
    forget_damaged, is_ours, layer_media_type,
};
use crate::phase::keep::keep;
use crate::phase::publish::{PublishRequest, publish};
use crate::phase::restore::{
    CacheImage, Imported, PreviousImage, RestoreRequest, import, note_layer_keys, restore,
};
use crate::phase::sboms;
use crate::policy::{Isolation, Policy};
use crate::source::{Selection, Source};
use crate::sources::Sources;
use crate::store::{CompiledKey, ImageCache, Store, StoreError, WorkDir};
use crate::tree::{Tree, TreeLimits};
use crate::walk;
use crate::workspace::Workspace;

/// First of the user ids that workers run under when we are root. Nobody is
/// given ids as high as this; adding the process id keeps builds apart.
const FIRST_WORKER_USER: u32 = 0x7000_0000;

/// The unused user id that workers of this process run under; `None` unless we are root.
pub fn worker_user() -> Option<u32> {
    rustix::process::geteuid().is_root().then(|| FIRST_WORKER_USER + std::process::id())
}

/// What detecting takes.
#[derive(Debug, Clone, Copy)]
pub struct AppRequest<'a> {
    /// The app's directory; never written.
    pub source: &'a Path,
    /// What of it takes part. Absolute paths in it are without links.
    pub selection: &'a Selection,
    pub builder: &'a Builder,
    pub store: &'a Store,
    pub policy: &'a Policy,
    pub target: &'a Target,
    pub exec_env: &'a ExecEnv,
    /// Variables of the user; the names are file names.
    pub user_env: &'a BTreeMap<String, String>,
    /// A directory of service bindings, for the buildpacks that are granted them.
    pub bindings: Option<&'a Path>,
    pub worker: &'a WorkerCommand,
    /// Leave the directories that buildpacks saw where they are.
    pub keep_work_dir: bool,
    pub cancel: &'a Cancel,
}

/// What building an image takes.
#[derive(Clone, Copy)]
pub struct BuildRequest<'a> {
    pub app: AppRequest<'a>,
    /// Who builds; cached layers of one tenant are never seen by another.
    pub tenant: &'a str,
    /// Name of the image; what was cached for it is used again.
    pub image: &'a str,
    pub sources: &'a Sources,
    pub run_image: &'a RunImage,
    /// Where the run image was found, for the bytes of its layers.
    pub run_images: Option<&'a dyn Images>,
    pub launcher: &'a Launcher,
    pub launcher_mode: LauncherMode,
    /// Whom the image runs as; `None` takes the run image's.
    pub user: Option<Owner>,
    pub files: FileOwner,
    pub process_type: Option<&'a ProcessType>,
    pub project: &'a ProjectMetadata,
    /// The place the image goes to.
    pub output: &'a dyn Images,
    /// What it is called there; at least one.
    pub names: &'a [String],
    /// Seconds since 1970 for `created`; `None` is 1980-01-01T00:00:01Z.
    pub created: Option<u64>,
    /// How layers are compressed.
    pub encoding: Encoding,
    /// Where bills of materials are to be written as files.
    pub sboms: Option<&'a Path>,
    /// Whether to say what the app's source hashes to, which costs reading it once more.
    pub hashes_source: bool,
    /// Forget first what was kept for the image.
    pub clear_cache: bool,
    /// Where layers of earlier builds may be, for when the store knows nothing of the image.
    pub cache_image: Option<CacheImage<'a>>,
    /// Where an earlier image may be, for when the store knows nothing of it.
    pub previous: Option<PreviousImage<'a>>,
}

/// An image that was built, and what its place says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct BuiltImage {
    pub exported: Exported,
    pub saved: SavedImage,
    /// The app's source as a Git tree, if it was asked for ([`Source::git_tree`]).
    pub source: Option<String>,
}

/// Finds out who would take part, and runs no `build`. A worker takes a moment to
/// start: one that was `spawned` before is there when it is needed.
///
/// # Errors
/// [`Error`].
pub fn detect<'a>(
    request: &AppRequest<'a>,
    spawned: Option<SpawnedWorker>,
    events: &mut dyn EventSink,
) -> Result<Detected<'a>, Error> {
    let mut site = Site::prepare(request, events)?;
    let code = Code(request.store);
    let mut executor = WorkerExecutor::new(site.settings(request, None), &code).with_spawned(spawned);
    executor.expect(first_components(request));
    say_isolation(&mut executor, events)?;
    let result = timed(Phase::Detect, events, |events| {
        detect_group(&Site::detect_request(request), &mut site.workspace, &mut executor, events)
    });
    // Its end and that of its directories take a moment each.
    executor.stop();
    site.close(request, events);
    drop(executor);
    Ok(result?)
}

/// Builds an image.
///
/// # Errors
/// [`Error`]; what the names led to they lead to still, and nothing has to be cleaned up.
pub fn build(request: &BuildRequest<'_>, events: &mut dyn EventSink) -> Result<BuiltImage, Error> {
    // Before anything runs, rather than after all of it did.
    layer_media_type(request.run_image, request.encoding)?;
    let app = &request.app;
    let spawned = SpawnedWorker::new(app.worker).ok();
    let (mut site, cache) = timed(Phase::Analyze, events, |events| -> Result<_, Error> {
        let site = Site::prepare(app, events)?;
        if request.clear_cache {
            app.store.forget_image(request.tenant, request.image)?;
        }
        Ok((site, app.store.image(request.tenant, request.image)))
    })?;
    let result = phases(request, spawned, &mut site, cache, events);
    site.close(app, events);
    for message in app.store.take_warnings() {
        events.event(Event::Warning { message });
    }
    result
}

fn phases<'store>(
    request: &BuildRequest<'store>,
    spawned: Option<SpawnedWorker>,
    site: &mut Site,
    mut cache: ImageCache<'store>,
    events: &mut dyn EventSink,
) -> Result<BuiltImage, Error> {
    let app = &request.app;
    let code = Code(app.store);
    let mut executor = WorkerExecutor::new(site.settings(app, Some(&cache)), &code).with_spawned(spawned);
    executor.expect(first_components(app));
    say_isolation(&mut executor, events)?;
    let detected = timed(Phase::Detect, events, |events| {
        detect_group(&Site::detect_request(app), &mut site.workspace, &mut executor, events)
    })?;
    let form = file_form(request.run_image, request.user, request.files).to_string();
    let last_form = app.store.remembered(&form_note(request.tenant, request.image));
    let mut is_imported = false;
    let restored = timed(Phase::Restore, events, |events| -> Result<_, Error> {
        let mut restore_request = RestoreRequest {
            group: &detected.group,
            previous: request.previous,
            target: app.target,
            exec_env: app.exec_env,
            store: app.store,
            encoding: request.encoding,
            form: &form,
            last_form: last_form.as_deref(),
            is_imported: false,
            cancel: app.cancel,
        };
        let place = request.cache_image.filter(|_| cache.is_empty() && !request.clear_cache);
        if let Some(imported) = place.and_then(|place| import(&restore_request, &place, events)) {
            cache = keep_imported(request, imported, events);
            restore_request.is_imported = true;
        }
        is_imported = restore_request.is_imported;
        Ok(restore(&restore_request, &cache, events))
    })?;
    if is_imported {
        // The worker may see what was there when it started.
        executor.stop();
        executor = WorkerExecutor::new(site.settings(app, Some(&cache)), &code);
    }
    let mut outcome = timed(Phase::Build, events, |events| {
        let phase = BuildPhaseRequest {
            policy: app.policy,
            limits: &app.policy.limits,
            target: app.target,
            exec_env: app.exec_env,
            user_env: app.user_env,
            sources: request.sources,
            encoding: request.encoding,
            cancel: app.cancel,
        };
        build_group(
            &phase,
            &detected.group,
            &detected.plan,
            restored,
            &mut site.workspace,
            &mut executor,
            events,
        )
    })?;
    note_layer_keys(&mut outcome, request.encoding, &form);
    // No guest is left when what they wrote is looked at.
    drop(executor);
    let built = timed(Phase::Export, events, |events| -> Result<_, Error> {
        let export_request = ExportRequest {
            built: &outcome.built,
            run_image: request.run_image,
            run_images: request.run_images,
            launcher: request.launcher,
            launcher_mode: request.launcher_mode,
            user: request.user,
            files: request.files,
            process_type: request.process_type,
            exec_env: app.exec_env,
            project: request.project,
            created: request.created,
            encoding: request.encoding,
            limits: TreeLimits::default(),
        };
        let source = request.hashes_source.then(|| site.source.git_tree(app.cancel)).transpose()?;
        site.source.recheck(app.cancel)?;
        let built = BuiltImage { source, ..export_and_publish(request, &export_request, events)? };
        if let Some(directory) = request.sboms {
            let path = directory.to_owned();
            sboms::write(&outcome.built, directory).map_err(|source| Error::Sboms { path, source })?;
        }
        let kept = keep_in_form(&form, last_form.as_deref(), request, || {
            keep(outcome, &built.exported.layers, request.encoding, cache)
        });
        if let Err(error) = kept {
            let message = format!("the next build of this image will not find its layers: {error}");
            events.event(Event::Warning { message });
        }
        Ok(built)
    })?;
    events.event(Event::ImageWritten {
        reference: request.image.to_owned(),
        digest: built.exported.digest.to_string(),
        bytes: built.exported.bytes,
    });
    Ok(built)
}

/// What the store keeps of the files of an image: not part of its records, which are older.
fn form_note(tenant: &str, image: &str) -> String {
    format!("form of {tenant} {image}")
}

/// Keeps layers, and remembers which form their files have.
fn keep_in_form(
    form: &str,
    last_form: Option<&str>,
    request: &BuildRequest<'_>,
    keep: impl FnOnce() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (store, note) = (request.app.store, form_note(request.tenant, request.image));
    if last_form == Some(form) {
        return keep();
    }
    // Until all of it is kept, nobody can say which files layers have.
    store.keep_note(&note, "");
    keep()?;
    store.keep_note(&note, form);
    Ok(())
}

/// Hands to the store what a cache image had, as if the last build had been here.
fn keep_imported<'store>(
    request: &BuildRequest<'store>,
    imported: Imported,
    events: &mut dyn EventSink,
) -> ImageCache<'store> {
    let (records, work) = imported.into_parts();
    let cache = || request.app.store.image(request.tenant, request.image);
    if let Err(error) = cache().commit(records) {
        let message = format!("the layers of the cache image are not used: {error}");
        events.event(Event::Warning { message });
    }
    drop(work);
    cache()
}

/// Makes the image and saves it; a blob that turns out to be damaged on the way is made anew.
fn export_and_publish(
    request: &BuildRequest<'_>,
    export_request: &ExportRequest<'_>,
    events: &mut dyn EventSink,
) -> Result<BuiltImage, Error> {
    let (store, cancel) = (request.app.store, request.app.cancel);
    let from: Vec<&dyn Images> = request.run_images.into_iter().collect();
    let make = |events: &mut dyn EventSink| {
        let exported = export(export_request, store, cancel, events)?;
        Ok::<_, Error>(match request.output.family() {
            Some(family) => exported.in_family(family),
            None => exported,
        })
    };
    let mut exported = make(events)?;
    let mut repairs = 0;
    loop {
        let image =
            PublishRequest { image: &exported.image, to: request.output, names: request.names, from: &from };
        let error = match publish(&image, store, cancel, events) {
            Ok(saved) => return Ok(BuiltImage { exported, saved, source: None }),
            Err(error) => error,
        };
        match error.damaged_file(&exported.image) {
            Some(path) if repairs < MAX_REPAIRS && is_ours(export_request, &path) => {
                forget_damaged(export_request, &path, error.into(), store, events)?;
            }
            _ => return Err(error.into()),
        }
        repairs += 1;
        exported = make(events)?;
    }
}

fn timed<T, E>(
    phase: Phase,
    events: &mut dyn EventSink,
    work: impl FnOnce(&mut dyn EventSink) -> Result<T, E>,
) -> Result<T, E> {
    events.event(Event::PhaseStarted { phase });
    let started = Instant::now();
    let result = work(events)?;
    events.event(Event::PhaseFinished { phase, elapsed: started.elapsed() });
    Ok(result)
}

/// What the first group of the order is made of; it is always asked.
fn first_components(request: &AppRequest<'_>) -> Vec<String> {
    let mut groups = request.builder.groups(Some(request.exec_env));
    let group = groups.next().and_then(Result::ok).unwrap_or_default();
    let digest = |module: Module<'_>| match module {
        Module::Buildpack(Buildpack { kind: BuildpackKind::Component { digest, .. }, .. }) => {
            Some(digest.clone())
        }
        Module::Buildpack(_) | Module::Extension(_) => None,
    };
    group.into_iter().filter_map(|member| digest(member.module)).collect()
}

/// Less isolation is said aloud.
fn say_isolation(executor: &mut WorkerExecutor<'_>, events: &mut dyn EventSink) -> Result<(), Error> {
    let missing = executor.isolation().map_err(Error::Worker)?.missing();
    if !missing.is_empty() {
        let message = format!("buildpacks run with less isolation on this machine: {}", missing.join(", "));
        events.event(Event::Warning { message });
    }
    Ok(())
}

/// The directories of one build, and what cleans them up.
struct Site {
    source: Source,
    workspace: Workspace,
    work: WorkDir,
    worker_user: Option<u32>,
}

impl Site {
    fn prepare(request: &AppRequest<'_>, events: &mut dyn EventSink) -> Result<Self, Error> {
        let source = Source::scan(request.source, request.selection, request.cancel)?;
        for message in &source.warnings {
            events.event(Event::Warning { message: message.clone() });
        }
        let work = request.store.work_dir()?;
        let worker_user = worker_user();
        let app = if worker_user.is_some() && !source.world_readable {
            // The worker's user could not read it in place.
            let copy = work.path().join("source");
            walk::create_readable(&copy).map_err(Error::Prepare)?;
            source.copy_to(&copy, request.cancel)?;
            Tree { lower: Some(copy), ..Tree::default() }
        } else {
            Tree { lower: Some(source.root.clone()), upper: None, hidden: source.hidden.clone() }
        };
        let mut workspace = Workspace::new(work.path(), app, request.user_env).map_err(Error::Prepare)?;
        if let Some(build_config) = &request.builder.build_config {
            workspace.set_operator(build_config)?;
        }
        if let Some(bindings) = request.bindings {
            workspace.add_bindings(bindings)?;
        }
        Ok(Self { source, workspace, work, worker_user })
    }

    fn detect_request<'a>(request: &AppRequest<'a>) -> DetectRequest<'a> {
        DetectRequest {
            api: PlatformApi::NEWEST,
            builder: request.builder,
            policy: request.policy,
            limits: &request.policy.limits,
            target: request.target,
            stack: None,
            exec_env: request.exec_env,
            user_env: request.user_env,
        }
    }

    fn settings(&self, request: &AppRequest<'_>, cache: Option<&ImageCache<'_>>) -> WorkerSettings {
        let read_only = |path: PathBuf| Root { path, writable: false };
        let mut roots = vec![Root { path: self.work.path().to_owned(), writable: true }];
        roots.extend(self.workspace.app.lower.clone().map(read_only));
        roots.extend(request.builder.catalog.iter().map(|buildpack| read_only(buildpack.directory.clone())));
        roots.extend(cache.into_iter().flat_map(ImageCache::leased_trees).map(read_only));
        WorkerSettings {
            command: request.worker.clone(),
            limits: request.policy.limits.clone(),
            roots,
            user: self.worker_user,
            isolation_required: request.policy.isolation == Isolation::Required,
            cancel: request.cancel.clone(),
        }
    }

    fn close(self, request: &AppRequest<'_>, events: &mut dyn EventSink) {
        if request.keep_work_dir {
            match self.work.keep() {
                Ok(path) => {
                    let message = format!("the directories of the build are in `{}`", path.display());
                    events.event(Event::Note { message });
                }
                Err(error) => events.event(Event::Warning { message: error.to_string() }),
            }
        }
    }
}

/// Compiled components, in the store.
pub struct Code<'a>(pub &'a Store);

impl CodeCache for Code<'_> {
    fn load(&self, component: &str, engine: &str, memory: &File) -> bool {
        self.0.compiled_into(&CompiledKey::new(component, engine), memory)
    }

    fn keep(&self, component: &str, engine: &str, code: &[u8]) {
        // Without it the next build compiles again; the store has noted why.
        let _ = self.0.put_compiled(&CompiledKey::new(component, engine), code);
    }

    fn load_failure(&self, component: &str, engine: &str) -> Option<String> {
        self.0.compile_failure(&CompiledKey::new(component, engine))
    }

    fn keep_failure(&self, component: &str, engine: &str, message: &str) {
        let _ = self.0.put_compile_failure(&CompiledKey::new(component, engine), message);
    }
}
