//! Ctrl-C, a closed terminal, a polite kill: the first asks the build to stop, the second ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use wapack_runtime::cancel::Cancel;

/// What has been caught so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caught(Arc<AtomicI32>);

impl Caught {
    /// The first signal that was caught.
    pub(crate) fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }
}

/// Cancels `cancel` on the first signal and exits on the second.
pub(crate) fn watch(cancel: &Cancel) -> Caught {
    let caught = Caught::default();
    let ignored = ignored_signals();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    // Without handlers a signal ends the program as it always would; the next start cleans up.
    if let Ok(mut signals) = Signals::new(wanted) {
        let (caught, cancel) = (caught.clone(), cancel.clone());
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if caught.0.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                    exit_now(signal);
                }
                cancel.cancel();
            }
        });
    }
    caught
}

#[expect(clippy::exit, reason = "whoever asks twice does not want to wait; workers die with this process")]
fn exit_now(signal: i32) {
    std::process::exit(128 + signal);
}

/// What whoever started us ignores, as `nohup` does with hang-ups, stays ignored.
fn ignored_signals() -> u64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}
