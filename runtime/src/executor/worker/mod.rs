//! Guests in another process: the parent's side.
//!
//! The worker is this program started again, one per build, with a pair of
//! sockets between them. It has no network, no credentials, an empty
//! environment and, as far as the kernel offers it, only this build's
//! directories and a handful of system calls. State stays here: a worker that
//! crashes or hangs is replaced, and is the error of the one call that did it.

mod confine;
mod probe;
mod process;
mod protocol;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

pub use confine::Isolation;
pub use probe::Attempt;
pub use process::worker_main;

use confine::Confinement;
use protocol::{
    Answer, Call, MountShape, Outputs, ParentChannel, ParentWriter, Received, Report, Request, Role, Start,
};

use super::wasm::{Interface, NotLoadable, engine_key, new_engine};
use super::{
    Arrivals, ArtifactRequest, BuildHost, BuildInputs, BuildOutputs, CallInputs, ComponentFile, DetectInputs,
    DetectOutputs, Executor, GuestFailure, LogSink, Mount, OpenedLayer, Program, Refusal,
};
use crate::cancel::Cancel;
use crate::cnb::id::{BuildpackRef, LayerName};
use crate::cnb::layer::LayerTypes;
use crate::limits::{LimitKind, Limits};
use crate::text::harmless;

/// How long a worker may take to start, and to read what it is sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long reports that lie in the channel are still taken after a deadline.
const LATE_REPORTS: Duration = Duration::from_millis(500);
/// How often a wait looks whether the build was cancelled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

/// The program that calls [`worker_main`], as the embedder knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The program; usually the running one.
    pub program: PathBuf,
    /// What makes it a worker.
    pub arguments: Vec<String>,
}

/// A directory a worker keeps access to, besides what single calls bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// On the host.
    pub path: PathBuf,
    /// Whether guests may write there at all.
    pub writable: bool,
}

/// Keeps compiled components between builds. What it gives back is executed, so
/// it has to be what it was given: see the store.
pub trait CodeCache: Sync {
    /// Writes the code compiled from `component` by the engine with the key `engine`
    /// into `memory`, an empty file that nobody else can reach; `false` when there is
    /// none that can be trusted.
    fn load(&self, component: &str, engine: &str, memory: &File) -> bool;
    /// Keeps code. A failure is the cache's own business: it costs time only.
    fn keep(&self, component: &str, engine: &str, code: &[u8]);
    /// Why compiling `component` was given up lately, under the same limits.
    fn load_failure(&self, component: &str, engine: &str) -> Option<String>;
    /// Keeps that, so that a component made to take minutes does not do so in every build.
    fn keep_failure(&self, component: &str, engine: &str, message: &str);
}

/// Keeps nothing: every component is compiled anew.
#[derive(Debug, Clone, Copy)]
pub struct NoCode;

impl CodeCache for NoCode {
    fn load(&self, _: &str, _: &str, _: &File) -> bool {
        false
    }

    fn keep(&self, _: &str, _: &str, _: &[u8]) {}

    fn load_failure(&self, _: &str, _: &str) -> Option<String> {
        None
    }

    fn keep_failure(&self, _: &str, _: &str, _: &str) {}
}

/// What it takes to run workers.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How to start one.
    pub command: WorkerCommand,
    /// What guests may use up.
    pub limits: Limits,
    /// All directories of the build.
    pub roots: Vec<Root>,
    /// Run workers under this user id; for root only.
    pub user: Option<u32>,
    /// Refuse to run guests when the kernel does not offer all of the isolation.
    pub isolation_required: bool,
    /// Ends waits.
    pub cancel: Cancel,
}

/// Runs component buildpacks in a worker process.
pub struct WorkerExecutor<'a> {
    settings: WorkerSettings,
    code_cache: &'a dyn CodeCache,
    worker: Option<Worker>,
    spawned: Option<SpawnedWorker>,
    engine_key: Option<String>,
    /// Code that was loaded, in sealed memory files, by component digest.
    code: BTreeMap<String, OwnedFd>,
    /// Digests of components that will probably be called first.
    expected: Vec<String>,
    next_id: u64,
    disk_used: (u64, u64),
}

/// A running worker process.
struct Worker {
    channel: ParentChannel,
    child: Process,
    isolation: Isolation,
}

/// A worker process that was told nothing yet, and knows nothing: started early,
/// it is there when the directories of the build are.
pub struct SpawnedWorker {
    socket: OwnedFd,
    child: Process,
}

/// A child process that does not outlive this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl<'a> WorkerExecutor<'a> {
    /// An executor without a worker yet; the first call starts one.
    pub fn new(settings: WorkerSettings, code_cache: &'a dyn CodeCache) -> Self {
        Self {
            settings,
            code_cache,
            worker: None,
            spawned: None,
            engine_key: None,
            code: BTreeMap::new(),
            expected: Vec::new(),
            next_id: 0,
            disk_used: (0, 0),
        }
    }

    /// Gives it a process that was started by the command of its settings.
    #[must_use]
    pub fn with_spawned(mut self, spawned: Option<SpawnedWorker>) -> Self {
        self.spawned = spawned;
        self
    }

    /// Ends the worker without waiting for its end, which dropping this does. To be
    /// called when no call is left.
    pub fn stop(&mut self) {
        if let Some(worker) = &mut self.worker {
            let _ = worker.child.0.kill();
        }
    }

    /// Names, by their digests, components that will probably be called first: what
    /// the cache has of them is read while the worker starts.
    pub fn expect(&mut self, components: Vec<String>) {
        self.expected = components;
    }

    /// What holds the worker, starting one if there is none.
    ///
    /// # Errors
    /// A sentence when the worker cannot be started or confined.
    pub fn isolation(&mut self) -> Result<Isolation, String> {
        self.worker().map(|worker| worker.isolation.clone())
    }

    /// What holds the worker that runs, if one does.
    #[must_use]
    pub fn running_isolation(&self) -> Option<&Isolation> {
        self.worker.as_ref().map(|worker| &worker.isolation)
    }

    /// Lets the worker try to open `paths`, make sockets and more.
    ///
    /// # Errors
    /// A sentence when the worker cannot be asked.
    pub fn probe(&mut self, paths: Vec<PathBuf>) -> Result<Vec<Attempt>, String> {
        let deadline = Instant::now() + PATIENCE;
        let worker = self.worker()?;
        // A confined worker cannot ask who its parent is.
        let request = Request::Probe { parent: std::process::id().cast_signed(), paths };
        worker.channel.send(&request, &[], deadline).map_err(|error| error.to_string())?;
        match worker.channel.receive(deadline) {
            Ok(Received::Report(report)) => match *report {
                Report::Probed(attempts) => Ok(attempts),
                _ => Err("the worker answered something else".to_owned()),
            },
            Ok(_) => Err("the worker did not answer".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn worker(&mut self) -> Result<&mut Worker, String> {
        if self.worker.is_none() {
            let mut worker = Worker::start(&self.settings, Role::Guests, self.spawned.take())
                .map_err(|error| error.to_string())?;
            let expected = std::mem::take(&mut self.expected);
            self.read_code(&expected);
            worker.become_ready().map_err(|error| error.to_string())?;
            let missing = worker.isolation.missing();
            if self.settings.isolation_required && !missing.is_empty() {
                return Err(format!(
                    "the policy requires isolation that this machine lacks: {}",
                    missing.join(", ")
                ));
            }
            self.worker = Some(worker);
        }
        self.worker.as_mut().ok_or_else(|| "the worker is gone".to_owned())
    }

    /// Takes what the cache has of these components, on all cores. What it does not
    /// have is no matter here.
    fn read_code(&mut self, components: &[String]) {
        let mut digests: Vec<&str> = components.iter().map(String::as_str).collect();
        digests.sort_unstable();
        digests.dedup();
        digests.retain(|digest| !self.code.contains_key(*digest));
        if digests.is_empty() {
            return;
        }
        let Ok(engine) = self.engine_key() else { return };
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let (cache, digests) = (self.code_cache, &digests);
        let read = || {
            while let Some(digest) = digests.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Some(code) = cached_code(cache, digest, &engine) {
                    found.lock().unwrap_or_else(PoisonError::into_inner).push(((*digest).to_owned(), code));
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            // This thread is one of them.
            for _ in 1..cores.min(digests.len()) {
                scope.spawn(read);
            }
            read();
        });
        self.code.extend(found.into_inner().unwrap_or_else(PoisonError::into_inner));
    }

    /// The code of a component, from memory, the cache or a compiler process.
    fn code(
        &mut self,
        buildpack: &BuildpackRef,
        program: &ComponentFile,
        log: &mut dyn LogSink,
    ) -> Result<OwnedFd, GuestFailure> {
        let unavailable =
            |message: String| GuestFailure::WorkerUnavailable { buildpack: buildpack.clone(), message };
        if !self.code.contains_key(&program.digest) {
            let engine = self.engine_key().map_err(unavailable)?;
            let sealed = if let Some(code) = cached_code(self.code_cache, &program.digest, &engine) {
                code
            } else {
                let code = self.compile_once(buildpack, program, &engine, log)?;
                memory_of(&code).map_err(|error| unavailable(error.to_string()))?
            };
            self.code.insert(program.digest.clone(), sealed);
        }
        let sealed = self.code.get(&program.digest).ok_or_else(|| unavailable("no code".to_owned()))?;
        // Its own descriptor with its own position, for each time it is read.
        reopen(sealed).map_err(|error| unavailable(error.to_string()))
    }

    /// Compiles a component, unless it was given up lately.
    fn compile_once(
        &self,
        buildpack: &BuildpackRef,
        program: &ComponentFile,
        engine: &str,
        log: &mut dyn LogSink,
    ) -> Result<Vec<u8>, GuestFailure> {
        let limits = &self.settings.limits;
        let bounded = format!("{engine} {} s {} B", limits.compile_cpu_seconds, limits.compile_memory_bytes);
        if let Some(message) = self.code_cache.load_failure(&program.digest, &bounded) {
            return Err(GuestFailure::Unloadable {
                buildpack: buildpack.clone(),
                id: "buildpack.compile_limit".to_owned(),
                message,
                hint: Some(
                    "it was tried within the last day; other limits or another component are tried again"
                        .to_owned(),
                ),
            });
        }
        log.compiling(buildpack);
        match self.compile(buildpack, &program.path) {
            Ok((code, _)) => {
                self.code_cache.keep(&program.digest, engine, &code);
                Ok(code)
            }
            Err(failure) => {
                if let GuestFailure::Unloadable { id, message, .. } = &failure
                    && id == "buildpack.compile_limit"
                {
                    self.code_cache.keep_failure(&program.digest, &bounded, message);
                }
                Err(failure)
            }
        }
    }

    fn engine_key(&mut self) -> Result<String, String> {
        if let Some(key) = &self.engine_key {
            return Ok(key.clone());
        }
        let engine = new_engine(&self.settings.limits).map_err(|error| error.to_string())?;
        Ok(self.engine_key.insert(engine_key(&engine)).clone())
    }

    /// Compiles a component in a process of its own, and says what it imports and exports.
    ///
    /// # Errors
    /// [`GuestFailure::Unloadable`] when it is none, or takes too much to compile.
    pub fn compile(
        &self,
        buildpack: &BuildpackRef,
        component: &Path,
    ) -> Result<(Vec<u8>, Interface), GuestFailure> {
        let failed =
            |message: String| GuestFailure::WorkerUnavailable { buildpack: buildpack.clone(), message };
        let unloadable = |error: NotLoadable| GuestFailure::Unloadable {
            buildpack: buildpack.clone(),
            id: error.id,
            message: error.message,
            hint: error.hint,
        };
        let file = open(component, OFlags::RDONLY).map_err(|error| failed(named(component, error)))?;
        let mut compiler =
            Worker::start(&self.settings, Role::Compiler, None).map_err(|error| failed(error.to_string()))?;
        compiler.become_ready().map_err(|error| failed(error.to_string()))?;
        let seconds = self.settings.limits.compile_cpu_seconds;
        let deadline = Instant::now() + Duration::from_secs(seconds) + PATIENCE;
        let io_failed = |error: io::Error| failed(format!("the compiler process failed: {error}"));
        compiler.channel.send(&Request::Compile, &[file.as_fd()], deadline).map_err(io_failed)?;
        loop {
            if self.settings.cancel.is_cancelled() {
                return Err(GuestFailure::Cancelled { buildpack: buildpack.clone() });
            }
            let wait = deadline.min(Instant::now() + CANCEL_INTERVAL);
            match compiler.channel.receive(wait).map_err(io_failed)? {
                Received::Report(report) => match *report {
                    Report::Compiled(Ok((length, interface))) => {
                        let length = usize::try_from(length.min(self.settings.limits.compile_output_bytes))
                            .unwrap_or(usize::MAX);
                        let code = compiler.channel.receive_bytes(length, deadline).map_err(io_failed)?;
                        return Ok((code, interface));
                    }
                    Report::Compiled(Err(error)) => return Err(unloadable(error)),
                    _ => return Err(failed("the compiler process answered something else".to_owned())),
                },
                Received::Nothing if Instant::now() < deadline => {}
                // Killed by its limit of CPU time or memory, or it would have been.
                Received::Nothing | Received::Closed => {
                    return Err(unloadable(NotLoadable {
                        id: "buildpack.compile_limit".to_owned(),
                        message: format!(
                            "compiling it takes more than {seconds} s of CPU time or {} of memory",
                            crate::limits::show_bytes(self.settings.limits.compile_memory_bytes)
                        ),
                        hint: Some(
                            "the operator raises it with `compile_cpu_seconds` or `compile_memory_bytes` under `[limits]` in the policy file"
                                .to_owned(),
                        ),
                    }));
                }
            }
        }
    }

    /// Runs `calls` at once and answers what they ask, until all have ended.
    fn run(&mut self, calls: &[Call], host: &mut dyn BuildHost) -> Vec<Result<Outputs, GuestFailure>> {
        let mut results: Vec<Option<Result<Outputs, GuestFailure>>> = calls.iter().map(|_| None).collect();
        let mut waiting: VecDeque<usize> = (0..calls.len()).collect();
        let mut running: BTreeMap<u64, Running> = BTreeMap::new();
        while !(waiting.is_empty() && running.is_empty()) {
            let (mut fresh, mut second_try) = (Vec::new(), false);
            while let Some(index) = waiting.pop_front() {
                match self.send(&calls[index], &mut *host) {
                    Ok(id) => {
                        let started = Instant::now();
                        running.insert(id, Running { index, deadline: started, started, log_bytes: 0 });
                        fresh.push(id);
                    }
                    Err(Unsent::Failed(failure)) => results[index] = Some(Err(*failure)),
                    Err(Unsent::WorkerGone(_)) if !running.is_empty() => {
                        // One of them did it: see to that first, then try again.
                        waiting.push_front(index);
                        break;
                    }
                    Err(Unsent::WorkerGone(_)) if !second_try => {
                        self.worker = None;
                        second_try = true;
                        waiting.push_front(index);
                    }
                    Err(Unsent::WorkerGone(how)) => {
                        results[index] = Some(Err(crashed(inputs(&calls[index]), &how)));
                    }
                }
            }
            // Only now: while others were compiled, nobody listened to those that run.
            for id in fresh {
                if let Some(call) = running.get_mut(&id) {
                    call.started = Instant::now();
                    call.deadline = call.started + inputs(&calls[call.index]).limits.wall;
                }
            }
            let Some(first) = running.values().map(|call| call.deadline).min() else { continue };
            let ended = self.step(&mut running, calls, host, first);
            for (id, result) in ended {
                if let Some(call) = running.remove(&id) {
                    results[call.index] = Some(result);
                }
            }
            if self.worker.is_none() {
                // The others lost their worker through no fault of their own.
                waiting.extend(std::mem::take(&mut running).into_values().map(|call| call.index));
            }
        }
        results
            .into_iter()
            .zip(calls)
            .map(|(result, call)| result.unwrap_or_else(|| Err(crashed(inputs(call), "no result"))))
            .collect()
    }

    /// Takes one report, or notices a deadline, a death, a cancellation.
    fn step(
        &mut self,
        running: &mut BTreeMap<u64, Running>,
        calls: &[Call],
        host: &mut dyn BuildHost,
        first_deadline: Instant,
    ) -> Vec<(u64, Result<Outputs, GuestFailure>)> {
        let buildpack = |call: &Running| inputs(&calls[call.index]).buildpack.clone();
        if self.settings.cancel.is_cancelled() {
            self.worker = None;
            return running
                .iter()
                .map(|(id, call)| (*id, Err(GuestFailure::Cancelled { buildpack: buildpack(call) })))
                .collect();
        }
        host.tick();
        let Some(worker) = self.worker.as_mut() else { return vec![] };
        let wait = first_deadline.min(Instant::now() + CANCEL_INTERVAL);
        match worker.channel.receive(wait) {
            Ok(Received::Report(report)) => {
                let ended = self.handle(*report, running, calls, host);
                // What is there in time counts, but who never stops talking does not stop the clock.
                if ended.is_empty() && Instant::now() > first_deadline + LATE_REPORTS {
                    return self.overdue(running, calls);
                }
                ended
            }
            Ok(Received::Nothing) if Instant::now() < first_deadline => vec![],
            Ok(Received::Nothing) => self.overdue(running, calls),
            Ok(Received::Closed) => self.bury(running, calls),
            Err(error) => {
                self.worker = None;
                let how = format!("it broke the protocol: {error}");
                running
                    .iter()
                    .map(|(id, call)| (*id, Err(crashed(inputs(&calls[call.index]), &how))))
                    .collect()
            }
        }
    }

    /// The wall time of at least one guest is over.
    fn overdue(
        &mut self,
        running: &BTreeMap<u64, Running>,
        calls: &[Call],
    ) -> Vec<(u64, Result<Outputs, GuestFailure>)> {
        // Nothing in a hung guest can be dropped safely: the process goes.
        self.worker = None;
        let now = Instant::now();
        running
            .iter()
            .filter(|(_, call)| call.deadline <= now)
            .map(|(id, call)| {
                let inputs = inputs(&calls[call.index]);
                let failure = GuestFailure::Limit {
                    buildpack: inputs.buildpack.clone(),
                    limit: LimitKind::Wall,
                    allowed: milliseconds(inputs.limits.wall),
                    reached: milliseconds(call.started.elapsed()),
                };
                (*id, Err(failure))
            })
            .collect()
    }

    /// The worker died. With one guest running it is that guest's doing; with
    /// more, each is run again alone in a worker, so that only one is blamed.
    fn bury(
        &mut self,
        running: &mut BTreeMap<u64, Running>,
        calls: &[Call],
    ) -> Vec<(u64, Result<Outputs, GuestFailure>)> {
        let how = match self.worker.take() {
            Some(mut worker) => worker.child.0.wait().map_or_else(|error| error.to_string(), show_status),
            None => "it is gone".to_owned(),
        };
        let alone = running.len() == 1;
        let mut ended = Vec::new();
        for (id, call) in running.iter() {
            let inputs = inputs(&calls[call.index]);
            if alone {
                ended.push((*id, Err(crashed(inputs, &how))));
            } else {
                let result = self.run(std::slice::from_ref(&calls[call.index]), &mut NoHost).pop();
                ended.push((*id, result.unwrap_or_else(|| Err(crashed(inputs, &how)))));
            }
        }
        ended
    }

    fn handle(
        &mut self,
        report: Report,
        running: &mut BTreeMap<u64, Running>,
        calls: &[Call],
        host: &mut dyn BuildHost,
    ) -> Vec<(u64, Result<Outputs, GuestFailure>)> {
        let id = match &report {
            Report::Line { id, .. }
            | Report::OpenLayer { id, .. }
            | Report::UpdateLayer { id, .. }
            | Report::Fetch { id, .. }
            | Report::Done { id, .. } => *id,
            Report::Ready(_) | Report::Compiled(_) | Report::Probed(_) => return vec![],
        };
        let Some(call) = running.get_mut(&id) else { return vec![] };
        let inputs = inputs(&calls[call.index]);
        let answer = match report {
            Report::Line { line, .. } => {
                // Clipped in the worker, too; this is for one that was taken over.
                call.log_bytes += line.len() as u64;
                if call.log_bytes <= inputs.limits.limits.log_bytes.saturating_mul(4) {
                    host.line(&inputs.buildpack, &harmless(&line));
                }
                return vec![];
            }
            Report::Done { result, disk_used, .. } => {
                self.disk_used = (self.disk_used.0.max(disk_used.0), self.disk_used.1.max(disk_used.1));
                return vec![(id, result.map_err(|failure| failure.made_harmless(&inputs.buildpack)))];
            }
            Report::OpenLayer { name, types, cache_key, .. } => {
                self.answer_layer(host.open_layer(&name, types, &cache_key))
            }
            Report::UpdateLayer { name, .. } => {
                host.update_layer(&name).and_then(|path| self.grant_new(&path))
            }
            Report::Fetch { artifacts, .. } => {
                if let Some(worker) = &self.worker {
                    host.fetch(artifacts, arrivals(id, Arc::clone(worker.channel.writer())));
                }
                return vec![];
            }
            Report::Ready(_) | Report::Compiled(_) | Report::Probed(_) => return vec![],
        };
        let (answer, descriptor) = answer.unwrap_or_else(|refusal| (Answer::Refused(refusal), None));
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.iter().map(AsFd::as_fd).collect();
        if let Some(worker) = &self.worker {
            // A worker that cannot be answered is noticed by the next receive.
            let _ =
                worker.channel.send(&Request::Answer { id, answer }, &descriptors, Instant::now() + PATIENCE);
        }
        vec![]
    }

    fn answer_layer(
        &self,
        opened: Result<OpenedLayer, Refusal>,
    ) -> Result<(Answer, Option<OwnedFd>), Refusal> {
        match opened? {
            OpenedLayer::Kept => Ok((Answer::Kept, None)),
            OpenedLayer::Restored { tree } => {
                let (_, descriptor) = granted(&tree, OFlags::PATH | OFlags::DIRECTORY)?;
                Ok((Answer::Restored, descriptor))
            }
            OpenedLayer::Empty { directory } => self.grant_new(&directory),
        }
    }

    /// Hands a fresh directory to the worker's user.
    fn grant_new(&self, directory: &Path) -> Result<(Answer, Option<OwnedFd>), Refusal> {
        give(directory, self.settings.user).map_err(|error| host_failed(directory, error))?;
        granted(directory, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Sends a call with everything it may open.
    fn send(&mut self, call: &Call, log: &mut dyn LogSink) -> Result<u64, Unsent> {
        let inputs = inputs(call);
        let unavailable = |message: String| GuestFailure::WorkerUnavailable {
            buildpack: inputs.buildpack.clone(),
            message,
        };
        let mut descriptors = vec![self.code(&inputs.buildpack, inputs.component()?, log)?];
        let mut shapes = Vec::with_capacity(inputs.mounts.len());
        let directory = |path: &Path| {
            open(path, OFlags::PATH | OFlags::DIRECTORY).map_err(|error| unavailable(named(path, error)))
        };
        for Mount { guest_path, lower, upper, writable, hidden } in &inputs.mounts {
            if let Some(lower) = lower {
                descriptors.push(directory(lower)?);
            }
            if let Some(upper) = upper {
                if *writable {
                    give(upper, self.settings.user).map_err(|error| unavailable(named(upper, error)))?;
                }
                descriptors.push(directory(upper)?);
            }
            shapes.push(MountShape {
                guest_path: guest_path.clone(),
                lower: lower.is_some(),
                upper: upper.is_some(),
                writable: *writable,
                hidden: hidden.clone(),
            });
        }
        let mut restorable = 0;
        if let Call::Build(build) = call {
            give(&build.layers_work_directory, self.settings.user)
                .map_err(|error| unavailable(named(&build.layers_work_directory, error)))?;
            descriptors.push(directory(&build.layers_work_directory)?);
            for tree in &build.restorable_trees {
                descriptors.push(directory(tree)?);
                restorable += 1;
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        let request = Request::Call {
            id,
            call: Box::new(without_host_paths(call)),
            mounts: shapes,
            disk_used: self.disk_used,
            restorable,
        };
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let worker = self.worker().map_err(unavailable)?;
        match worker.channel.send(&request, &descriptors, Instant::now() + PATIENCE) {
            Ok(()) => Ok(id),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Err(Unsent::WorkerGone(error.to_string()))
            }
            Err(error) => Err(unavailable(format!("the worker does not read: {error}")).into()),
        }
    }
}

impl Executor for WorkerExecutor<'_> {
    fn detect(
        &mut self,
        calls: &[DetectInputs],
        log: &mut dyn LogSink,
    ) -> Vec<Result<DetectOutputs, GuestFailure>> {
        let calls: Vec<Call> = calls.iter().cloned().map(Call::Detect).collect();
        let results = self.run(&calls, &mut DetectHost(log));
        results
            .into_iter()
            .zip(&calls)
            .map(|(result, call)| match result? {
                Outputs::Detect(outputs) => Ok(outputs),
                Outputs::Build(_) => Err(crashed(inputs(call), "it answered another question")),
            })
            .collect()
    }

    fn build(&mut self, call: &BuildInputs, host: &mut dyn BuildHost) -> Result<BuildOutputs, GuestFailure> {
        let call = Call::Build(call.clone());
        let result = self.run(std::slice::from_ref(&call), host).pop();
        match result.unwrap_or_else(|| Err(crashed(inputs(&call), "no result")))? {
            Outputs::Build(outputs) => Ok(*outputs),
            Outputs::Detect(_) => Err(crashed(inputs(&call), "it answered another question")),
        }
    }
}

/// Why a call was not sent.
enum Unsent {
    /// It died before this call reached it.
    WorkerGone(String),
    Failed(Box<GuestFailure>),
}

impl From<GuestFailure> for Unsent {
    fn from(failure: GuestFailure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

/// A call that was sent and has not ended.
struct Running {
    index: usize,
    deadline: Instant,
    started: Instant,
    log_bytes: u64,
}

impl SpawnedWorker {
    /// Starts the process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn new(command: &WorkerCommand) -> io::Result<Self> {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        let child = Command::new(&command.program)
            .arg0("wapack-worker")
            .args(&command.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket: ours, child: Process(child) })
    }
}

impl Worker {
    /// Starts one, or takes the one that was started, and does not wait until it is ready.
    fn start(settings: &WorkerSettings, role: Role, spawned: Option<SpawnedWorker>) -> io::Result<Self> {
        let SpawnedWorker { socket, child } = match spawned {
            Some(spawned) => spawned,
            None => SpawnedWorker::new(&settings.command)?,
        };
        let worker = Self { channel: ParentChannel::new(socket), child, isolation: Isolation::default() };
        let deadline = Instant::now() + PATIENCE;
        let roots = match role {
            Role::Compiler => &[][..],
            Role::Guests => &settings.roots,
        };
        let directories = roots
            .iter()
            .map(|root| open(&root.path, OFlags::PATH | OFlags::DIRECTORY))
            .collect::<rustix::io::Result<Vec<_>>>()?;
        let start = Start {
            role,
            confinement: Confinement {
                user: settings.user,
                roots_writable: roots.iter().map(|root| root.writable).collect(),
            },
            limits: settings.limits.clone(),
        };
        let descriptors: Vec<BorrowedFd<'_>> = directories.iter().map(AsFd::as_fd).collect();
        worker.channel.send(&start, &descriptors, deadline)?;
        Ok(worker)
    }

    /// Waits until it is confined.
    fn become_ready(&mut self) -> io::Result<()> {
        match self.channel.receive(Instant::now() + PATIENCE)? {
            Received::Report(report) => match *report {
                Report::Ready(isolation) => {
                    self.isolation = isolation;
                    Ok(())
                }
                _ => Err(io::Error::other("the worker did not say that it is ready")),
            },
            Received::Nothing => Err(io::Error::other("the worker did not start in time")),
            Received::Closed => {
                let status = self.child.0.wait()?;
                Err(io::Error::other(format!("the worker ended at once ({})", show_status(status))))
            }
        }
    }
}

/// `detect` has no layers and no downloads.
struct DetectHost<'a>(&'a mut dyn LogSink);

/// For calls whose output was shown already.
struct NoHost;

impl LogSink for DetectHost<'_> {
    fn line(&mut self, buildpack: &BuildpackRef, line: &str) {
        self.0.line(buildpack, line);
    }

    fn compiling(&mut self, buildpack: &BuildpackRef) {
        self.0.compiling(buildpack);
    }
}

impl LogSink for NoHost {
    fn line(&mut self, _: &BuildpackRef, _: &str) {}
}

macro_rules! refuse_everything {
    ($host:ty) => {
        impl BuildHost for $host {
            fn open_layer(&mut self, _: &LayerName, _: LayerTypes, _: &str) -> Result<OpenedLayer, Refusal> {
                Err(Refusal::not_in_detect())
            }

            fn update_layer(&mut self, _: &LayerName) -> Result<PathBuf, Refusal> {
                Err(Refusal::not_in_detect())
            }

            fn fetch(&mut self, artifacts: Vec<ArtifactRequest>, arrivals: Arrivals) {
                (0..artifacts.len()).for_each(|index| arrivals(index, Err(Refusal::not_in_detect())));
            }
        }
    };
}

refuse_everything!(DetectHost<'_>);
refuse_everything!(NoHost);

fn inputs(call: &Call) -> &CallInputs {
    match call {
        Call::Detect(inputs) => &inputs.call,
        Call::Build(inputs) => &inputs.call,
    }
}

/// The call as the worker may know it: directories come as descriptors.
fn without_host_paths(call: &Call) -> Call {
    let strip = |inputs: &CallInputs| CallInputs {
        mounts: Vec::new(),
        program: match &inputs.program {
            Program::Component(component) => {
                Program::Component(ComponentFile { path: PathBuf::new(), ..component.clone() })
            }
            other @ Program::Executables(_) => other.clone(),
        },
        ..inputs.clone()
    };
    match call {
        Call::Detect(inputs) => Call::Detect(DetectInputs { call: strip(&inputs.call) }),
        Call::Build(inputs) => Call::Build(BuildInputs {
            call: strip(&inputs.call),
            restorable_trees: Vec::new(),
            layers_work_directory: PathBuf::new(),
            ..inputs.clone()
        }),
    }
}

fn crashed(inputs: &CallInputs, how: &str) -> GuestFailure {
    GuestFailure::WorkerCrashed { buildpack: inputs.buildpack.clone(), how: how.to_owned() }
}

fn show_status(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "unknown status".to_owned(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn open(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

fn named(path: &Path, error: rustix::io::Errno) -> String {
    format!("`{}`: {error}", path.display())
}

/// Makes a directory the worker's own.
fn give(directory: &Path, user: Option<u32>) -> rustix::io::Result<()> {
    let Some(user) = user else { return Ok(()) };
    let (user, group) = (rustix::fs::Uid::from_raw(user), rustix::fs::Gid::from_raw(user));
    rustix::fs::chownat(
        rustix::fs::CWD,
        directory,
        Some(user),
        Some(group),
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// Passes what arrives on to the guest `id`.
fn arrivals(id: u64, writer: Arc<ParentWriter>) -> Arrivals {
    Arc::new(move |index, file| {
        let (file, refused) = match file {
            Ok(file) => (Some(file), None),
            Err(refusal) => (None, Some(refusal)),
        };
        let descriptors: Vec<BorrowedFd<'_>> = file.iter().map(AsFd::as_fd).collect();
        let answer = Answer::Arrived { index, refused };
        // A worker that cannot be answered is noticed by the next receive.
        let _ = writer.send(&Request::Answer { id, answer }, &descriptors, Instant::now() + PATIENCE);
    })
}

fn granted(path: &Path, flags: OFlags) -> Result<(Answer, Option<OwnedFd>), Refusal> {
    let descriptor = open(path, flags).map_err(|error| host_failed(path, error))?;
    Ok((Answer::Granted, Some(descriptor)))
}

/// A failure of ours while answering; the guest is not told our paths.
fn host_failed(_: &Path, error: rustix::io::Errno) -> Refusal {
    Refusal {
        id: "host.failed".to_owned(),
        message: format!("the host could not prepare it: {error}"),
        hint: None,
    }
}

/// What the cache has, in memory that nobody can change any more.
fn cached_code(cache: &dyn CodeCache, component: &str, engine: &str) -> Option<OwnedFd> {
    let memory = new_memory().ok()?;
    if cache.load(component, engine, &memory) { sealed(memory).ok() } else { None }
}

/// Puts code into memory that nobody can change any more.
fn memory_of(code: &[u8]) -> io::Result<OwnedFd> {
    let mut memory = new_memory()?;
    memory.write_all(code)?;
    sealed(memory)
}

fn new_memory() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(rustix::fs::memfd_create("component", flags)?.into())
}

fn sealed(memory: File) -> io::Result<OwnedFd> {
    rustix::fs::fcntl_add_seals(
        &memory,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(memory.into())
}

fn reopen(memory: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    // Follows the link of procfs, which is the file itself.
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
