//! Something that moves while a person waits; only on a terminal, and only after a while.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use wapack_runtime::limits::show_bytes;

/// What is over sooner than this is not worth a bar.
const PATIENCE: Duration = Duration::from_millis(300);
const REFRESH: Duration = Duration::from_millis(100);

/// At most one bar or spinner at the bottom of the terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: bool,
    bar: Option<Bar>,
    spinner: Option<Spinner>,
}

#[derive(Debug)]
struct Bar {
    started: Instant,
    /// There once it took long enough.
    drawn: Option<ProgressBar>,
}

/// Waits in a thread of its own: whoever works does not come by meanwhile.
#[derive(Debug)]
struct Spinner {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Progress {
    pub(crate) fn new(shown: bool) -> Self {
        Self { shown, bar: None, spinner: None }
    }

    /// Bytes were fetched or written; `what` stands behind the numbers.
    pub(crate) fn bytes(&mut self, done: u64, total: Option<u64>, what: &str) {
        if !self.shown {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| Bar { started: Instant::now(), drawn: None });
        if bar.started.elapsed() < PATIENCE {
            return;
        }
        let length = total.unwrap_or(done).max(done);
        // What was done before the bar was drawn would count as done in no time.
        let message = format!("({}/s) {what}", show_bytes(rate(done, bar.started.elapsed())));
        let drawn = bar.drawn.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
            // Never wider than the terminal.
            bar.set_style(style("{bar:20} {bytes} of {total_bytes} {wide_msg}"));
            bar.with_position(done).with_message(message.clone())
        });
        drawn.set_length(length);
        drawn.set_position(done);
        drawn.set_message(message);
    }

    /// Something of unknown length starts; it ends with the next call of [`Progress::clear`].
    pub(crate) fn spin(&mut self, what: String) {
        self.clear();
        if !self.shown {
            return;
        }
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            if stopped.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            spinner.set_style(style("{spinner} {msg} ({elapsed})"));
            spinner.set_message(what);
            while stopped.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
                spinner.tick();
            }
            spinner.finish_and_clear();
        });
        self.spinner = Some(Spinner { stop, thread });
    }

    /// Makes room for a line.
    pub(crate) fn clear(&mut self) {
        if let Some(Spinner { stop, thread }) = self.spinner.take() {
            drop(stop);
            let _ = thread.join();
        }
        if let Some(drawn) = self.bar.take().and_then(|bar| bar.drawn) {
            drawn.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Bytes in a second, since the start.
fn rate(done: u64, elapsed: Duration) -> u64 {
    let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    done.saturating_mul(1000) / milliseconds
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_whole_time() {
        assert_eq!(rate(3 << 20, Duration::from_millis(1500)), 2 << 20);
        assert_eq!(rate(0, Duration::from_secs(1)), 0);
        assert_eq!(rate(5, Duration::ZERO), 5000);
    }
}
