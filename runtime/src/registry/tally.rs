//! How far blobs are on their way: counted by the threads that move them, told by the one
//! that waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Event, EventSink, Transfer};

/// All blobs of one transfer.
pub(super) struct Tally {
    transfer: Transfer,
    gauges: Mutex<Vec<Gauge>>,
}

/// One blob on its way.
#[derive(Debug, Clone, Default)]
pub(super) struct Gauge(Arc<Counts>);

/// In bytes.
#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    total: AtomicU64,
}

impl Tally {
    pub(super) fn new(transfer: Transfer) -> Self {
        Self { transfer, gauges: Mutex::default() }
    }

    /// A blob of `bytes` that will have to be moved, for all that is known.
    pub(super) fn expect(&self, bytes: u64) -> Gauge {
        let gauge = Gauge::default();
        gauge.0.total.store(bytes, Ordering::Relaxed);
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner).push(gauge.clone());
        gauge
    }

    /// Tells how far all of them are, if that is not what was `told` last.
    pub(super) fn tell(&self, told: &mut (u64, u64), events: &mut dyn EventSink) {
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |of: fn(&Counts) -> &AtomicU64| {
            gauges.iter().map(|gauge| of(&gauge.0).load(Ordering::Relaxed)).sum::<u64>()
        };
        let found = (sum(|counts| &counts.done), sum(|counts| &counts.total));
        if found.0 > 0 && found != *told {
            *told = found;
            let (done_bytes, total_bytes) = found;
            events.event(Event::Transfer { transfer: self.transfer, done_bytes, total_bytes });
        }
    }
}

impl Gauge {
    /// So many bytes of it have been moved; fewer than before when it begins anew.
    pub(super) fn reach(&self, bytes: u64) {
        self.0.done.store(bytes, Ordering::Relaxed);
    }

    /// It is there already.
    pub(super) fn spare(&self) {
        self.0.done.store(0, Ordering::Relaxed);
        self.0.total.store(0, Ordering::Relaxed);
    }
}
