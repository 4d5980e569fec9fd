//! Memory, tables and CPU time of one guest.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Engine, ResourceLimiter};

use super::filesystem::LimitReached;
use crate::limits::{LimitKind, Limits};

/// How often a running guest is interrupted to look at its CPU time.
const TICK: Duration = Duration::from_millis(10);

/// Sums what all memories and tables of a guest take.
///
/// `wasmtime`'s own limiter counts each memory alone, and there may be many.
#[derive(Debug)]
pub(super) struct MemoryLimiter {
    limits: Limits,
    memory_bytes: u64,
    table_elements: u64,
    pub(super) reached: Option<LimitReached>,
}

impl MemoryLimiter {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), memory_bytes: 0, table_elements: 0, reached: None }
    }

    fn note(&mut self, limit: LimitKind, allowed: u64, reached: u64) -> bool {
        self.reached.get_or_insert(LimitReached { limit, allowed, reached });
        false
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.memory_bytes.saturating_add((desired - current) as u64);
        if wanted > self.limits.memory_bytes {
            return Ok(self.note(LimitKind::Memory, self.limits.memory_bytes, wanted));
        }
        self.memory_bytes = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.table_elements.saturating_add((desired - current) as u64);
        if wanted > self.limits.table_elements {
            return Ok(self.note(LimitKind::Tables, self.limits.table_elements, wanted));
        }
        self.table_elements = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        usize::try_from(self.limits.instances).unwrap_or(usize::MAX)
    }

    fn tables(&self) -> usize {
        usize::try_from(self.limits.tables).unwrap_or(usize::MAX)
    }

    fn memories(&self) -> usize {
        usize::try_from(self.limits.memories).unwrap_or(usize::MAX)
    }
}

/// CPU time the calling thread has used.
pub(super) fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Raises the engine's epoch every 10 ms while at least one guest runs.
///
/// Epochs are what interrupts a guest's own code; time inside the host is the
/// wall clock's business, which the parent process keeps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ticker(Arc<Mutex<TickerState>>);

#[derive(Debug, Default)]
struct TickerState {
    guests: usize,
    has_thread: bool,
}

/// Keeps a [`Ticker`] ticking until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticking(Ticker);

impl Ticker {
    /// Starts the ticks, if no other guest has.
    pub(crate) fn start(&self, engine: &Engine) -> Ticking {
        let mut state = self.lock();
        state.guests += 1;
        if !state.has_thread {
            state.has_thread = true;
            let (ticker, engine) = (self.clone(), engine.clone());
            std::thread::spawn(move || {
                loop {
                    std::thread::sleep(TICK);
                    engine.increment_epoch();
                    let mut state = ticker.lock();
                    if state.guests == 0 {
                        state.has_thread = false;
                        return;
                    }
                }
            });
        }
        drop(state);
        Ticking(self.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TickerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.guests = state.guests.saturating_sub(1);
    }
}
