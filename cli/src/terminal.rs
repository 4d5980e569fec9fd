//! The one place that writes to standard output and standard error.

use std::io::{self, IsTerminal as _, Write as _};

use wapack_runtime::cancel::Cancel;

use crate::style::Style;

/// Both streams. Nobody panics when one of them is closed.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) out: Style,
    pub(crate) err: Style,
    /// Standard error is a terminal, where something may move.
    pub(crate) can_move: bool,
    /// Something else is written to standard output: what is said goes to standard error.
    out_taken: bool,
    /// Whoever read standard output went away.
    out_closed: bool,
    cancel: Cancel,
}

impl Terminal {
    pub(crate) fn new(no_color: bool, cancel: Cancel) -> Self {
        Self {
            out: Style::for_stream(&io::stdout(), no_color),
            err: Style::for_stream(&io::stderr(), no_color),
            can_move: io::stderr().is_terminal(),
            out_taken: false,
            out_closed: false,
            cancel,
        }
    }

    /// A line, or several, on standard output. When nobody reads it any more,
    /// what is under way is cancelled, so that it cleans up after itself.
    pub(crate) fn line(&mut self, text: &str) {
        if self.out_taken {
            return Self::error_line(text);
        }
        let mut stream = io::stdout().lock();
        let written = stream
            .write_all(text.as_bytes())
            .and_then(|()| stream.write_all(b"\n"))
            .and_then(|()| stream.flush());
        if written.is_err() && !self.out_closed {
            self.out_closed = true;
            self.cancel.cancel();
        }
    }

    /// A line, or several, on standard error.
    pub(crate) fn error_line(text: &str) {
        let mut stream = io::stderr().lock();
        // There is nowhere left to say that this failed.
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(b"\n"));
    }

    /// Leaves standard output to something that is no text.
    pub(crate) fn leave_out(&mut self) {
        self.out = self.err;
        self.out_taken = true;
    }

    pub(crate) fn out_closed(&self) -> bool {
        self.out_closed
    }
}
