//! Starts a process inside an exported image.
//!
//! This program is the image's entrypoint and so PID 1. It reads what the
//! build left behind (`<layers>/config/metadata.toml` and the launch layers),
//! prepares the environment, and becomes the process that was asked for: after
//! `execve` nothing of it is left. It prints nothing unless it fails.
//!
//! ```text
//! argv, env ──▶ platform ──▶ metadata ──▶ process (which, with what arguments)
//!                               │
//!                               ▼
//!                             layers ──▶ environment ──▶ exec_d ──▶ run
//! ```
//!
//! It knows the image's own files and nothing of how they were made: no OCI, no
//! Wasm, none of the runtime library. It must stay small and static, for it is
//! in every image; the run image need hold neither a libc nor a shell.
//!
//! # Spec
//! `platform.md` 0.15 "Launch" and `buildpack.md` 0.12 "Launch". Two departures
//! follow the reference lifecycle, whose order published buildpacks were tested
//! with: `exec.d` programs finish layer by layer (see [`exec_d`]), and within
//! one buildpack the layer with the greatest name comes first in `PATH` (see
//! [`environment`]).

mod directory;
mod environment;
mod exec_d;
mod failure;
mod layers;
mod metadata;
mod platform;
mod process;
mod run;
mod shell;

use std::ffi::OsString;
use std::process::ExitCode;

use failure::Failure;

#[expect(clippy::print_stderr, reason = "the one place where this program says why it failed")]
fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let caller = arguments.next().unwrap_or_default();
    let failure = match launch(caller, arguments.collect()) {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    eprintln!("ERROR: failed to launch: {failure}");
    ExitCode::from(failure.exit_code())
}

/// Everything in order, on one page. Does not return when it succeeds.
fn launch(caller: OsString, user_arguments: Vec<OsString>) -> Result<std::convert::Infallible, Failure> {
    let platform = platform::Platform::from_environment()?;
    let metadata = metadata::read(&platform.layers_directory)?;
    let process = process::choose(&caller, user_arguments, &metadata, &platform)?;
    let layers = layers::find(&platform.layers_directory, &metadata.buildpacks)?;

    run::enter(&platform.app_directory)?;
    let mut environment = environment::inherited(std::env::vars_os());
    environment::apply_layers(&mut environment, &layers, process.process_type.as_deref())?;
    exec_d::run_all(&mut environment, &layers, process.process_type.as_deref())?;
    run::become_process(&process, caller, &environment, &layers, &platform.app_directory)
}
