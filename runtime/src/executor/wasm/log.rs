//! What a guest prints, as the streams that WASI has for it.
//!
//! Lines leave here as the guest wrote them; whoever shows them makes them
//! harmless first ([`crate::text::harmless`]).

use std::sync::{Arc, Mutex, PoisonError};

use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

use crate::executor::lines::Lines;
use crate::limits::Limits;

/// Bytes a guest may write before it asks again.
const WRITE_PERMIT: usize = 64 * 1024;

/// Where finished lines go.
pub(crate) type LineSink = Box<dyn FnMut(String) + Send>;

/// Standard output and standard error of one guest, in the order of writing.
#[derive(Clone)]
pub(super) struct GuestLog(Arc<Mutex<State>>);

struct State {
    sink: LineSink,
    lines: Lines,
}

impl GuestLog {
    pub(super) fn new(sink: LineSink, limits: &Limits) -> Self {
        Self(Arc::new(Mutex::new(State { sink, lines: Lines::new(limits) })))
    }

    /// Passes on what was printed without a line end.
    pub(super) fn finish(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { sink, lines } = &mut *state;
        lines.finish(sink);
    }

    fn print(&self, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { sink, lines } = &mut *state;
        lines.print(bytes, sink);
    }
}

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestLog {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for this one, which is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestLog {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for GuestLog {
    fn write(&mut self, bytes: bytes::Bytes) -> Result<(), StreamError> {
        self.print(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(WRITE_PERMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(limits: &Limits, writes: &[&[u8]]) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let log = GuestLog::new(Box::new(move |line| sink.lock().unwrap().push(line)), limits);
        for bytes in writes {
            log.print(bytes);
        }
        log.finish();
        let lines = lines.lock().unwrap();
        lines.clone()
    }

    #[test]
    fn writes_become_lines() {
        assert_eq!(lines(&Limits::default(), &[b"a", b"b\nc\n\nd"]), ["ab", "c", "", "d"]);
    }

    #[test]
    fn g14_long_lines_are_cut_and_long_logs_are_clipped() {
        let limits = Limits { log_line_bytes: 3, log_bytes: 12, ..Limits::default() };
        assert_eq!(
            lines(&limits, &[b"abcd", b"ef\nxyz\n", b"1234567", b"more\n"]),
            ["abc [line cut]", "xyz", "[log clipped: 12 B]"]
        );
    }
}
