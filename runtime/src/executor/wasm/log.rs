//! What a guest prints, cut into lines and bounded.
//!
//! Lines leave here as the guest wrote them; whoever shows them makes them
//! harmless first ([`crate::text::harmless`]).

use std::sync::{Arc, Mutex, PoisonError};

use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

use crate::limits::{Limits, show_bytes};

/// Bytes a guest may write before it asks again.
const WRITE_PERMIT: usize = 64 * 1024;

/// Where finished lines go.
pub(crate) type LineSink = Box<dyn FnMut(String) + Send>;

/// Standard output and standard error of one guest, in the order of writing.
#[derive(Clone)]
pub(super) struct GuestLog(Arc<Mutex<State>>);

struct State {
    sink: LineSink,
    line: Vec<u8>,
    /// The line is longer than allowed; what follows is dropped up to its end.
    cut: bool,
    bytes: u64,
    clipped: bool,
    line_limit: usize,
    limit: u64,
}

impl GuestLog {
    pub(super) fn new(sink: LineSink, limits: &Limits) -> Self {
        Self(Arc::new(Mutex::new(State {
            sink,
            line: Vec::new(),
            cut: false,
            bytes: 0,
            clipped: false,
            line_limit: usize::try_from(limits.log_line_bytes).unwrap_or(usize::MAX),
            limit: limits.log_bytes,
        })))
    }

    /// Passes on what was printed without a line end.
    pub(super) fn finish(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.line.is_empty() {
            state.end_line();
        }
    }
}

impl State {
    fn print(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.clipped {
                return;
            }
            self.bytes += piece.len() as u64;
            if self.bytes > self.limit {
                self.clipped = true;
                self.line.clear();
                (self.sink)(format!("[log clipped: {}]", show_bytes(self.limit)));
                return;
            }
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = self.line_limit.saturating_sub(self.line.len());
            self.cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let mut line = String::from_utf8_lossy(&self.line).into_owned();
        if self.cut {
            line.push_str(" [line cut]");
        }
        self.line.clear();
        self.cut = false;
        (self.sink)(line);
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).print(&bytes);
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
            log.0.lock().unwrap().print(bytes);
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
