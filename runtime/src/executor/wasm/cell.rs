//! One call of one guest: a fresh store, its state, and how it can end.

use std::os::fd::OwnedFd;
use std::time::Duration;

use wasmtime::component::{Component, HasSelf, Linker, ResourceTable, ResourceTableError};
use wasmtime::{Engine, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};

use super::bindings::buildpack::BuildpackPre;
use super::bindings::{buildpack, filesystem};
use super::filesystem::{LimitReached, MountSpec, MountTable, Quota};
use super::host::LayerDesk;
use super::limits::{MemoryLimiter, Ticker, thread_cpu_time};
use super::log::{GuestLog, LineSink};
use super::{convert, sandbox};
use crate::cnb::id::{BuildpackRef, LayerName};
use crate::cnb::layer::LayerTypes;
use crate::executor::{
    ArtifactRequest, BuildInputs, BuildOutputs, CallInputs, DetectInputs, DetectOutputs, GuestFailure,
    Refusal,
};
use crate::limits::{CallLimits, LimitKind};

/// Frames of a backtrace that are worth showing.
const MAX_FRAMES: usize = 32;

/// What a guest's calls reach outside of its cell: the other end is in the
/// process that holds store and policy.
pub(crate) trait CellCalls: Send {
    /// See [`crate::executor::BuildHost::open_layer`].
    fn open_layer(
        &mut self,
        name: &LayerName,
        types: LayerTypes,
        cache_key: &str,
    ) -> Result<OpenedDirectory, Refusal>;

    /// See [`crate::executor::BuildHost::update_layer`].
    fn update_layer(&mut self, name: &LayerName) -> Result<OwnedFd, Refusal>;

    /// See [`crate::executor::BuildHost::fetch`]. Returns when all have arrived;
    /// `arrived` is called on this thread.
    fn fetch(
        &mut self,
        artifacts: Vec<ArtifactRequest>,
        arrived: &mut dyn FnMut(usize, Result<OwnedFd, Refusal>),
    );
}

/// [`crate::executor::OpenedLayer`] with the directory opened.
#[derive(Debug)]
pub(crate) enum OpenedDirectory {
    Restored(OwnedFd),
    Kept,
    Empty(OwnedFd),
}

/// What a call needs besides its inputs.
pub(crate) struct CellParts {
    /// The mounts of the inputs, opened.
    pub(crate) mounts: Vec<MountSpec>,
    pub(crate) quota: Quota,
    pub(crate) calls: Box<dyn CellCalls>,
    pub(crate) log: LineSink,
}

/// The state behind a running guest.
pub(super) struct Cell {
    wasi: WasiCtx,
    pub(super) table: ResourceTable,
    pub(super) files: MountTable,
    pub(super) layers: LayerDesk,
    pub(super) calls: Box<dyn CellCalls>,
    memory: MemoryLimiter,
}

impl WasiView for Cell {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// What all guests of one process share.
pub(crate) struct Cells {
    engine: Engine,
    linker: Linker<Cell>,
    ticker: Ticker,
}

/// A component that was checked against everything a cell offers.
pub(crate) struct LoadedComponent(BuildpackPre<Cell>);

/// The guest used up its CPU time.
#[derive(Debug, thiserror::Error)]
#[error("out of CPU time")]
struct OutOfCpuTime(LimitReached);

impl Cells {
    /// Links everything a guest may import.
    pub(crate) fn new(engine: Engine) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(&engine);
        sandbox::add_wasi(&mut linker)?;
        filesystem::wasi::filesystem::types::add_to_linker::<_, HasSelf<Cell>>(&mut linker, |cell| cell)?;
        filesystem::wasi::filesystem::preopens::add_to_linker::<_, HasSelf<Cell>>(&mut linker, |cell| cell)?;
        buildpack::Buildpack::add_to_linker::<_, HasSelf<Cell>>(&mut linker, |cell| cell)?;
        Ok(Self { engine, linker, ticker: Ticker::default() })
    }

    /// Checks a component's imports and exports against ours, types included.
    pub(crate) fn load(&self, component: &Component) -> wasmtime::Result<LoadedComponent> {
        Ok(LoadedComponent(BuildpackPre::new(self.linker.instantiate_pre(component)?)?))
    }

    /// Runs `detect` on the calling thread.
    pub(crate) fn detect(
        &self,
        component: &LoadedComponent,
        inputs: &DetectInputs,
        parts: CellParts,
    ) -> Result<DetectOutputs, GuestFailure> {
        let context = convert::detect_context(&inputs.call);
        let outcome = self.run(component, &inputs.call, String::new(), parts, async |guest, store| {
            guest.call_detect(store, &context).await
        })?;
        match outcome.result {
            Ok(verdict) => convert::detect_outputs(&inputs.call, verdict),
            Err(failure) => Err(convert::failure(&inputs.call.buildpack, failure, outcome.reached)),
        }
    }

    /// Runs `build` on the calling thread.
    pub(crate) fn build(
        &self,
        component: &LoadedComponent,
        inputs: &BuildInputs,
        parts: CellParts,
    ) -> Result<BuildOutputs, GuestFailure> {
        let context = convert::build_context(inputs);
        let layers = inputs.layers_directory.clone();
        let outcome = self.run(component, &inputs.call, layers, parts, async |guest, store| {
            guest.call_build(store, &context).await
        })?;
        match outcome.result {
            Ok(built) => convert::build_outputs(inputs, built, &outcome.cell),
            Err(failure) => Err(convert::failure(&inputs.call.buildpack, failure, outcome.reached)),
        }
    }

    fn run<T>(
        &self,
        component: &LoadedComponent,
        call: &CallInputs,
        layers_directory: String,
        parts: CellParts,
        work: impl AsyncFnOnce(&buildpack::Buildpack, &mut Store<Cell>) -> wasmtime::Result<T>,
    ) -> Result<Outcome<T>, GuestFailure> {
        let log = GuestLog::new(parts.log, &call.limits.limits);
        let mut files = MountTable::new(parts.quota);
        for mount in parts.mounts {
            files.mount(mount);
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(size(call.limits.limits.handles));
        let cell = Cell {
            wasi: sandbox::wasi(call, &log),
            table,
            files,
            layers: LayerDesk::new(layers_directory),
            calls: parts.calls,
            memory: MemoryLimiter::new(&call.limits.limits),
        };
        let mut store = Store::new(&self.engine, cell);
        limit(&mut store, &call.limits);
        let ticking = self.ticker.start(&self.engine);
        let unavailable =
            |message: String| GuestFailure::WorkerUnavailable { buildpack: call.buildpack.clone(), message };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| unavailable(error.to_string()))?;
        let result = runtime.block_on(async {
            let guest = component.0.instantiate_async(&mut store).await?;
            work(&guest, &mut store).await
        });
        drop(ticking);
        log.finish();
        let cell = store.into_data();
        let reached = cell.memory.reached.or(cell.files.quota().reached());
        match result {
            Ok(result) => Ok(Outcome { result, cell, reached }),
            Err(error) => Err(stopped(call, &error, reached)),
        }
    }
}

struct Outcome<T> {
    result: T,
    cell: Cell,
    /// A limit the guest ran into on the way, whatever it made of that.
    reached: Option<LimitReached>,
}

/// Sets everything that bounds the guest. Before it is instantiated: its start
/// function is code, too.
fn limit(store: &mut Store<Cell>, limits: &CallLimits) {
    store.limiter(|cell| &mut cell.memory);
    store.set_hostcall_fuel(size(limits.limits.hostcall_bytes));
    store.set_max_component_handles(size(limits.limits.handles));
    let (allowed, started) = (limits.cpu, thread_cpu_time());
    store.epoch_deadline_callback(move |_| {
        let used = thread_cpu_time().saturating_sub(started);
        if used < allowed {
            return Ok(UpdateDeadline::Continue(1));
        }
        Err(wasmtime::Error::new(OutOfCpuTime(LimitReached {
            limit: LimitKind::Cpu,
            allowed: milliseconds(allowed),
            reached: milliseconds(used),
        })))
    });
    store.set_epoch_deadline(1);
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Turns what wasmtime says into what the user should know.
fn stopped(call: &CallInputs, error: &wasmtime::Error, reached: Option<LimitReached>) -> GuestFailure {
    let buildpack = call.buildpack.clone();
    if let Some(limit) = error.downcast_ref::<OutOfCpuTime>().map(|stop| stop.0).or(reached) {
        return over_limit(&buildpack, limit);
    }
    if let Some(limit) = other_limit(call, error) {
        return over_limit(&buildpack, limit);
    }
    let message = match (error.downcast_ref::<Trap>(), error.downcast_ref::<I32Exit>()) {
        (_, Some(exit)) => format!("it called exit with code {}", exit.0),
        (Some(trap), None) => trap.to_string(),
        (None, None) => error.root_cause().to_string(),
    };
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
    GuestFailure::Trapped { buildpack, message, backtrace }
}

pub(super) fn over_limit(buildpack: &BuildpackRef, reached: LimitReached) -> GuestFailure {
    GuestFailure::Limit {
        buildpack: buildpack.clone(),
        limit: reached.limit,
        allowed: reached.allowed,
        reached: reached.reached,
    }
}

/// Limits that wasmtime itself keeps. It has no types for most of them, so the
/// texts are compared; a test per limit notices when a new version changes one.
fn other_limit(call: &CallInputs, error: &wasmtime::Error) -> Option<LimitReached> {
    let limits = &call.limits.limits;
    // What was asked for is in none of the texts; it was at least one more.
    let at = |limit, allowed| Some(LimitReached { limit, allowed, reached: allowed.saturating_add(1) });
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::StackOverflow)) {
        return at(LimitKind::Stack, limits.stack_bytes);
    }
    if matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full)) {
        return at(LimitKind::Handles, limits.handles);
    }
    let text = error.root_cause().to_string();
    if text.contains("store handle limit exceeded") {
        at(LimitKind::Handles, limits.handles)
    } else if text.contains("fuel allocated for hostcalls has been exhausted") {
        at(LimitKind::HostCall, limits.hostcall_bytes)
    } else if text.contains("requested len") && text.contains("exceeds limit") {
        at(LimitKind::Random, limits.random_bytes)
    } else if text.contains("memory minimum size") {
        at(LimitKind::Memory, limits.memory_bytes)
    } else if text.contains("table minimum size") {
        at(LimitKind::Tables, limits.table_elements)
    } else if text.contains("memory count too high") {
        at(LimitKind::Memories, limits.memories)
    } else if text.contains("table count too high") {
        at(LimitKind::TableCount, limits.tables)
    } else if text.contains("instance count too high") {
        at(LimitKind::Instances, limits.instances)
    } else {
        None
    }
}

fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    // Its text has the names demangled; the values behind it do not.
    backtrace
        .to_string()
        .lines()
        .filter_map(|line| line.trim_start().split_once(": "))
        .filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()))
        .map(|(_, frame)| frame.trim())
        .map(|frame| frame.split_once('!').map_or(frame, |(_, name)| name).to_owned())
        .take(MAX_FRAMES)
        .collect()
}
