//! The program `wapack`: arguments in, events out, one exit code.
//!
//! Everything that builds is in the library; this crate reads arguments, the
//! environment and the current directory, and is the only one that speaks.

mod app;
mod args;
mod buildpacks;
mod commands;
mod directories;
mod discovery;
mod embedded;
mod environment;
mod exit;
mod explain;
mod failure;
mod image_name;
mod images;
mod lifecycle;
mod looked_at;
mod moved;
mod output;
mod place;
mod progress;
mod project;
mod report;
mod signals;
mod style;
mod terminal;

use std::process::ExitCode;

/// The hidden first argument that makes this program a worker.
const WORKER: &str = "worker";

fn main() -> ExitCode {
    // Before anything else: a worker reads no arguments, files or variables of ours.
    if std::env::args_os().nth(1).is_some_and(|word| word == WORKER) {
        return wapack_runtime::executor::worker::worker_main();
    }
    match lifecycle::Call::of(std::env::args_os()) {
        Some(call) => lifecycle::run(&call),
        None => commands::run(),
    }
}
