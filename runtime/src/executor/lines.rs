//! What a buildpack prints, cut into lines and bounded.
//!
//! Lines leave here as they were written; whoever shows them makes them
//! harmless first ([`crate::text::harmless`]).

use crate::limits::{Limits, show_bytes};

/// Standard output and standard error of one call, in the order of writing.
pub(super) struct Lines {
    line: Vec<u8>,
    /// The line is longer than allowed; what follows is dropped up to its end.
    cut: bool,
    bytes: u64,
    clipped: bool,
    line_limit: usize,
    limit: u64,
}

impl Lines {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            line: Vec::new(),
            cut: false,
            bytes: 0,
            clipped: false,
            line_limit: usize::try_from(limits.log_line_bytes).unwrap_or(usize::MAX),
            limit: limits.log_bytes,
        }
    }

    /// Takes what was printed, and gives every finished line to `sink`.
    pub(super) fn print(&mut self, bytes: &[u8], sink: &mut dyn FnMut(String)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.clipped {
                return;
            }
            self.bytes += piece.len() as u64;
            if self.bytes > self.limit {
                self.clipped = true;
                self.line.clear();
                sink(format!("[log clipped: {}]", show_bytes(self.limit)));
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
                self.end_line(sink);
            }
        }
    }

    /// Passes on what was printed without a line end.
    pub(super) fn finish(&mut self, sink: &mut dyn FnMut(String)) {
        if !self.line.is_empty() {
            self.end_line(sink);
        }
    }

    fn end_line(&mut self, sink: &mut dyn FnMut(String)) {
        let mut line = String::from_utf8_lossy(&self.line).into_owned();
        if self.cut {
            line.push_str(" [line cut]");
        }
        self.line.clear();
        self.cut = false;
        sink(line);
    }
}
