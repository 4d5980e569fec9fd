//! The real launcher against a layers directory, as a container would start it.
//!
//! Where the reference lifecycle's launcher runs the same image, it gives what is expected here.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy.toml reaches only the tests themselves")]

mod choice;
mod environment;
mod exec_d;
mod image;
mod running;
mod shell;
