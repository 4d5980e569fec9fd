//! The worker's side: confine, then run what the parent sends, a thread a guest.
//!
//! Holds no state of the build. What a guest asks for goes to the parent and
//! waits for its answer; what the parent does not send cannot be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::Engine;
use wasmtime::component::Component;

use super::confine::{self, Rule, rule};
use super::probe;
use super::protocol::{Answer, Call, MountShape, Outputs, Report, Request, Role, Start, WorkerChannel};
use crate::cnb::id::LayerName;
use crate::cnb::layer::LayerTypes;
use crate::executor::wasm::{
    CellCalls, CellParts, Cells, LoadedComponent, MountSpec, OpenedDirectory, Quota, compile, new_engine,
};
use crate::executor::{ArtifactRequest, CallInputs, GuestFailure, Refusal};
use crate::limits::Limits;

/// What the worker program exits with when the parent did not speak to it.
const NOT_A_WORKER: u8 = 64;
/// By how much the heap grows at least.
#[cfg(target_env = "gnu")]
const HEAP_STEP_BYTES: libc::c_int = 1 << 20;

/// The whole of a worker process. The embedder's program calls it, before
/// anything else, when it was started by the command that was given as the
/// worker command.
#[must_use]
pub fn worker_main() -> ExitCode {
    confine::close_inherited();
    share_one_heap();
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(NOT_A_WORKER),
    }
}

/// Guests' threads end after milliseconds: a heap for each costs more system calls
/// than waiting for each other.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "std has no way to tune its allocator")]
fn share_one_heap() {
    // SAFETY: changes settings of the allocator, and this process has one thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TOP_PAD, HEAP_STEP_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 * HEAP_STEP_BYTES);
    }
}

#[cfg(not(target_env = "gnu"))]
fn share_one_heap() {}

fn serve() -> std::io::Result<()> {
    // The channel comes as standard input; what reads standard input gets nothing.
    let channel = WorkerChannel::new(rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?);
    rustix::stdio::dup2_stdin(std::io::stdout())?;
    let Some((start, roots)) = channel.receive::<Start>()? else { return Ok(()) };
    confine::detach(&start.limits)?;
    match start.role {
        Role::Compiler => serve_compiler(&channel, &start),
        Role::Guests => serve_guests(channel, &start, &roots),
    }
}

fn serve_compiler(channel: &WorkerChannel, start: &Start) -> std::io::Result<()> {
    let engine = new_engine(&start.limits).map_err(std::io::Error::other)?;
    confine::limit_compiler(&start.limits)?;
    let isolation = confine::confine(&start.confinement, &[])?;
    channel.send(&Report::Ready(isolation))?;
    let Some((Request::Compile, mut descriptors)) = channel.receive::<Request>()? else { return Ok(()) };
    let mut bytes = Vec::new();
    if let Some(component) = descriptors.pop() {
        let allowed = start.limits.component_bytes + 1;
        File::from(component).take(allowed).read_to_end(&mut bytes)?;
    }
    match compile(&engine, &bytes, &start.limits) {
        Ok((code, interface)) => {
            channel.send(&Report::Compiled(Ok((code.len() as u64, interface))))?;
            channel.send_bytes(&code)
        }
        Err(error) => channel.send(&Report::Compiled(Err(error))),
    }
}

/// What all guests of this worker share.
struct Shared {
    channel: Mutex<WorkerChannel>,
    cells: Cells,
    engine: Engine,
    turns: Turns,
    /// By digest; a component that detects usually builds, too.
    components: Mutex<BTreeMap<String, Arc<LoadedComponent>>>,
    /// Guests that wait for an answer.
    waiting: Mutex<BTreeMap<u64, Sender<Answered>>>,
    files_are_confined: bool,
}

type Answered = (Answer, Option<OwnedFd>);

impl Shared {
    fn send(&self, report: &Report) -> std::io::Result<()> {
        lock(&self.channel).send(report)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve_guests(channel: WorkerChannel, start: &Start, roots: &[OwnedFd]) -> std::io::Result<()> {
    let engine = new_engine(&start.limits).map_err(std::io::Error::other)?;
    let cells = Cells::new(engine.clone()).map_err(std::io::Error::other)?;
    // The first context seeds a random generator, which may want a device file.
    drop(wasmtime_wasi::WasiCtxBuilder::new().build());
    let roots: Vec<_> = roots.iter().map(AsFd::as_fd).collect();
    let isolation = confine::confine(&start.confinement, &roots)?;
    let files_are_confined = isolation.landlock_missing.is_none();
    channel.send(&Report::Ready(isolation))?;
    let receiver = WorkerChannel::new(rustix::io::fcntl_dupfd_cloexec(&channel, 3)?);
    let shared = Arc::new(Shared {
        channel: Mutex::new(channel),
        cells,
        engine,
        turns: Turns::new(),
        components: Mutex::default(),
        waiting: Mutex::default(),
        files_are_confined,
    });
    // The parent is gone when this ends, and with it everybody who waits for a guest.
    while let Some((request, descriptors)) = receiver.receive::<Request>()? {
        match request {
            Request::Call { id, call, mounts, disk_used, restorable } => {
                let guest = Guest { shared: Arc::clone(&shared), id, limits: start.limits.clone() };
                let work = move || guest.run(&call, mounts, disk_used, restorable, descriptors);
                std::thread::Builder::new().name("guest".to_owned()).spawn(work)?;
            }
            Request::Answer { id, answer } => {
                if let Some(waiting) = lock(&shared.waiting).get(&id) {
                    // A guest that no longer waits needs no answer.
                    let _ = waiting.send((answer, descriptors.into_iter().next()));
                }
            }
            Request::Probe { parent, paths } => {
                shared.send(&Report::Probed(probe::attempts(parent, &paths, &receiver)))?;
            }
            Request::Compile => {}
        }
    }
    Ok(())
}

/// One call, on its thread.
struct Guest {
    shared: Arc<Shared>,
    id: u64,
    limits: Limits,
}

impl Guest {
    fn run(
        self,
        call: &Call,
        mounts: Vec<MountShape>,
        disk_used: (u64, u64),
        restorable: usize,
        descriptors: Vec<OwnedFd>,
    ) {
        let buildpack = match &call {
            Call::Detect(inputs) => inputs.call.buildpack.clone(),
            Call::Build(inputs) => inputs.call.buildpack.clone(),
        };
        let quota = Quota::new(&self.limits, disk_used);
        let result = self.call(call, mounts, &quota, restorable, descriptors);
        let done = Report::Done { id: self.id, result, disk_used: quota.used() };
        if let Err(error) = self.shared.send(&done)
            && error.kind() == std::io::ErrorKind::InvalidData
        {
            // Too long for the channel; the parent must not wait for it until the time is over.
            let message = format!("its result cannot be passed on: {error}");
            let result = Err(GuestFailure::BadOutput { buildpack, message });
            // Without a parent there is nobody left to tell.
            let _ = self.shared.send(&Report::Done { id: self.id, result, disk_used: quota.used() });
        }
    }

    fn call(
        &self,
        call: &Call,
        shapes: Vec<MountShape>,
        quota: &Quota,
        restorable: usize,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Outputs, GuestFailure> {
        let inputs = match call {
            Call::Detect(inputs) => &inputs.call,
            Call::Build(inputs) => &inputs.call,
        };
        let broken = |message: &str| GuestFailure::WorkerUnavailable {
            buildpack: inputs.buildpack.clone(),
            message: message.to_owned(),
        };
        let mut descriptors = descriptors.into_iter();
        let mut take = || descriptors.next().ok_or_else(|| broken("a directory is missing"));
        let code = take()?;
        let mut mounts = Vec::with_capacity(shapes.len());
        for shape in shapes {
            mounts.push(MountSpec {
                lower: if shape.lower { Some(take()?) } else { None },
                upper: if shape.upper { Some(take()?) } else { None },
                writable: shape.writable,
                guest_path: shape.guest_path,
                hidden: shape.hidden,
            });
        }
        let layers = if matches!(call, Call::Build(_)) { Some(take()?) } else { None };
        let trees = (0..restorable).map(|_| take()).collect::<Result<Vec<_>, _>>()?;
        // Until the call has ended: guests that take turns do not wait for each other
        // in the kernel and in the allocator.
        let _turn = self.shared.turns.wait();
        let component = self.load(inputs, code)?;
        self.confine_thread(&mounts, layers.as_ref(), &trees).map_err(|error| broken(&error))?;
        drop((layers, trees));
        let line_channel = (Arc::clone(&self.shared), self.id);
        let parts = CellParts {
            mounts,
            quota: quota.clone(),
            calls: Box::new(Calls { shared: Arc::clone(&self.shared), id: self.id }),
            log: Box::new(move |line| {
                let (shared, id) = &line_channel;
                let _ = shared.send(&Report::Line { id: *id, line });
            }),
        };
        match call {
            Call::Detect(inputs) => self.shared.cells.detect(&component, inputs, parts).map(Outputs::Detect),
            Call::Build(inputs) => self
                .shared
                .cells
                .build(&component, inputs, parts)
                .map(|outputs| Outputs::Build(Box::new(outputs))),
        }
    }

    /// Gives this thread, on top of the worker's domain, only this guest's directories.
    fn confine_thread(
        &self,
        mounts: &[MountSpec],
        layers: Option<&OwnedFd>,
        trees: &[OwnedFd],
    ) -> Result<(), String> {
        if !self.shared.files_are_confined {
            return Ok(());
        }
        let mut rules: Vec<Rule<'_>> = Vec::new();
        for mount in mounts {
            rules.extend(mount.lower.iter().map(|directory| rule(directory, false)));
            rules.extend(mount.upper.iter().map(|directory| rule(directory, mount.writable)));
        }
        rules.extend(layers.map(|directory| rule(directory, true)));
        rules.extend(trees.iter().map(|directory| rule(directory, false)));
        confine::restrict_files(&rules)
    }

    fn load(&self, inputs: &CallInputs, code: OwnedFd) -> Result<Arc<LoadedComponent>, GuestFailure> {
        let digest = &inputs.component()?.digest;
        if let Some(component) = lock(&self.shared.components).get(digest) {
            return Ok(Arc::clone(component));
        }
        let unloadable = |message: String| GuestFailure::Unloadable {
            buildpack: inputs.buildpack.clone(),
            id: "buildpack.not_a_component".to_owned(),
            message,
            hint: None,
        };
        let component =
            deserialize(&self.shared.engine, code).map_err(|error| unloadable(error.to_string()))?;
        let loaded = self.shared.cells.load(&component).map_err(|error| {
            // Names are checked when compiling; what is left are types that differ.
            unloadable(error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "))
        })?;
        let loaded = Arc::new(loaded);
        lock(&self.shared.components).insert(digest.clone(), Arc::clone(&loaded));
        Ok(loaded)
    }
}

/// Maps the code instead of copying it, where procfs is there to open it by.
#[expect(unsafe_code, reason = "loads machine code that the parent authenticated")]
fn deserialize(engine: &Engine, code: OwnedFd) -> wasmtime::Result<Component> {
    let path = format!("/proc/self/fd/{}", code.as_raw_fd());
    // SAFETY: the parent sends only what a compiler process of ours returned or what
    // the store gave back under its MAC, and in a memory file that is sealed: nobody,
    // not even the parent, can change it any more.
    let mapped = unsafe { Component::deserialize_file(engine, path) };
    mapped.or_else(|_| {
        let mut bytes = Vec::new();
        File::from(code).read_to_end(&mut bytes)?;
        // SAFETY: as above.
        unsafe { Component::deserialize(engine, bytes) }
    })
}

/// Lets as many threads at once do something as there are cores, as long as that takes
/// no longer than [`TURN`]: nobody waits for a guest that hangs.
struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// Many times what an ordinary call of `detect` takes.
const TURN: Duration = Duration::from_millis(20);

/// Until it is dropped, one of the [`Turns`]; `None` when none was free in time.
struct Turn<'a>(Option<&'a Turns>);

impl Turns {
    fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { free: Mutex::new(cores), freed: Condvar::new() }
    }

    fn wait(&self) -> Turn<'_> {
        let free = lock(&self.free);
        let waited = self.freed.wait_timeout_while(free, TURN, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *free == 0 {
            return Turn(None);
        }
        *free -= 1;
        Turn(Some(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(turns) = self.0 {
            *lock(&turns.free) += 1;
            turns.freed.notify_one();
        }
    }
}

/// A guest's questions, sent to the parent.
struct Calls {
    shared: Arc<Shared>,
    id: u64,
}

impl Calls {
    fn ask(&self, report: &Report) -> Result<Answered, Refusal> {
        let answers = self.answers(report).map_err(|_| gone())?;
        let answer = answers.recv().map_err(|_| gone());
        lock(&self.shared.waiting).remove(&self.id);
        answer
    }

    /// Asks something that gets any number of answers.
    fn answers(&self, report: &Report) -> std::io::Result<Receiver<Answered>> {
        let (sender, receiver) = channel();
        lock(&self.shared.waiting).insert(self.id, sender);
        self.shared.send(report).map(|()| receiver)
    }

    fn descriptor(&self, report: &Report) -> Result<OwnedFd, Refusal> {
        match self.ask(report)? {
            (Answer::Refused(refusal), _) => Err(refusal),
            (_, Some(descriptor)) => Ok(descriptor),
            (_, None) => Err(no_directory()),
        }
    }
}

fn gone() -> Refusal {
    Refusal {
        id: "worker.parent_gone".to_owned(),
        message: "the build is being ended".to_owned(),
        hint: None,
    }
}

fn no_directory() -> Refusal {
    Refusal { id: "worker.protocol".to_owned(), message: "the host sent no directory".to_owned(), hint: None }
}

impl CellCalls for Calls {
    fn open_layer(
        &mut self,
        name: &LayerName,
        types: LayerTypes,
        cache_key: &str,
    ) -> Result<OpenedDirectory, Refusal> {
        let question =
            Report::OpenLayer { id: self.id, name: name.clone(), types, cache_key: cache_key.to_owned() };
        match self.ask(&question)? {
            (Answer::Refused(refusal), _) => Err(refusal),
            (Answer::Kept, _) => Ok(OpenedDirectory::Kept),
            (Answer::Restored, Some(tree)) => Ok(OpenedDirectory::Restored(tree)),
            (Answer::Granted, Some(directory)) => Ok(OpenedDirectory::Empty(directory)),
            (Answer::Restored | Answer::Granted, None) | (Answer::Arrived { .. }, _) => Err(no_directory()),
        }
    }

    fn update_layer(&mut self, name: &LayerName) -> Result<OwnedFd, Refusal> {
        self.descriptor(&Report::UpdateLayer { id: self.id, name: name.clone() })
    }

    fn fetch(
        &mut self,
        artifacts: Vec<ArtifactRequest>,
        arrived: &mut dyn FnMut(usize, Result<OwnedFd, Refusal>),
    ) {
        // What arrives faster than it is unpacked waits here as an open file.
        let mut asked = 0;
        for batch in artifacts.chunks(confine::WAITING_ARTIFACTS) {
            self.fetch_batch(batch, &mut |index, file| arrived(asked + index, file));
            asked += batch.len();
        }
    }
}

impl Calls {
    fn fetch_batch(
        &self,
        artifacts: &[ArtifactRequest],
        arrived: &mut dyn FnMut(usize, Result<OwnedFd, Refusal>),
    ) {
        let mut missing: BTreeSet<usize> = (0..artifacts.len()).collect();
        if let Ok(answers) = self.answers(&Report::Fetch { id: self.id, artifacts: artifacts.to_vec() }) {
            while !missing.is_empty()
                && let Ok((answer, file)) = answers.recv()
            {
                let Answer::Arrived { index, refused } = answer else { continue };
                if missing.remove(&index) {
                    arrived(index, refused.map_or_else(|| file.ok_or_else(no_directory), Err));
                }
            }
        }
        lock(&self.shared.waiting).remove(&self.id);
        for index in missing {
            arrived(index, Err(gone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn turns_go_round_and_nobody_waits_for_one_that_hangs() {
        let turns = Turns { free: Mutex::new(1), freed: Condvar::new() };
        let first = turns.wait();
        let started = Instant::now();
        // The first one hangs: this one goes ahead without a turn, and gives none back.
        let second = turns.wait();
        assert!(second.0.is_none() && started.elapsed() >= TURN);
        drop(second);
        assert_eq!(*lock(&turns.free), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(turns.wait().0.is_some()));
            std::thread::sleep(TURN / 10);
            drop(first);
        });
        assert_eq!(*lock(&turns.free), 1);
    }
}
