//! Guests in another process: the parent's side.
//!
//! The worker is this program started again, one per build, with a pair of
//! sockets between them. It has no network, no credentials, an empty
//! environment and, as far as the kernel offers it, only this build's
//! directories and a handful of system calls. State stays here: a worker that
//! crashes or hangs is replaced, and is the error of the one call that did it.

mod code;
mod confine;
mod hosts;
mod probe;
mod process;
mod protocol;
mod sending;
mod start;

pub use code::{CodeCache, NoCode};
pub use confine::Isolation;
pub use probe::Attempt;
pub use process::worker_main;
pub use start::{Root, SpawnedWorker, WorkerCommand, WorkerSettings};

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use hosts::{DetectHost, NoHost};
use protocol::{Answer, Call, Outputs, ParentWriter, Received, Report, Request, Role};
use sending::Unsent;
use start::Worker;

use super::{
    Arrivals, BuildHost, BuildInputs, BuildOutputs, CallInputs, DetectInputs, DetectOutputs, Executor,
    GuestFailure, LogSink, OpenedLayer, Refusal,
};
use crate::limits::LimitKind;
use crate::text::harmless;

/// How long a worker may take to start, and to read what it is sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long reports that lie in the channel are still taken after a deadline.
const LATE_REPORTS: Duration = Duration::from_millis(500);
/// How often a wait looks whether the build was cancelled.
const CANCEL_INTERVAL: Duration = Duration::from_millis(50);

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
            worker.kill();
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
            Some(mut worker) => worker.wait(),
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

/// A call that was sent and has not ended.
struct Running {
    index: usize,
    deadline: Instant,
    started: Instant,
    log_bytes: u64,
}

fn inputs(call: &Call) -> &CallInputs {
    match call {
        Call::Detect(inputs) => &inputs.call,
        Call::Build(inputs) => &inputs.call,
    }
}

fn crashed(inputs: &CallInputs, how: &str) -> GuestFailure {
    GuestFailure::WorkerCrashed { buildpack: inputs.buildpack.clone(), how: how.to_owned() }
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
