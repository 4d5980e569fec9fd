//! One file for each command.

mod build;
mod cache;
mod config;
mod detect;
mod inspect;
mod rebase;
mod sbom;

use std::process::ExitCode;

use clap::Parser as _;
use wapack_runtime::cancel::Cancel;

use crate::args::{Arguments, Command};
use crate::exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::signals;
use crate::terminal::Terminal;

/// Parses the arguments and does what they ask for.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are "errors" that go to standard output; a closed one is no news.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let cancel = Cancel::default();
    let caught = signals::watch(&cancel);
    let terminal = Terminal::new(arguments.speech.no_color, cancel.clone());
    let mut output = Output::new(terminal, &arguments.speech);
    let result: Result<u8, Failure> = match &arguments.command {
        Command::Build(arguments) => build::run(arguments, &cancel, &mut output),
        Command::Detect(arguments) => detect::run(arguments, &cancel, &mut output),
        Command::Rebase(arguments) => rebase::run(arguments, &cancel, &mut output),
        Command::Inspect(arguments) => inspect::run(arguments, &cancel, &mut output),
        Command::Sbom(arguments) => sbom::run(arguments, &cancel, &mut output),
        Command::Config(arguments) => config::run(arguments, &cancel, &mut output),
        Command::Cache(arguments) => cache::run(arguments, &mut output),
    };
    ExitCode::from(match result {
        Ok(_) if output.terminal.out_closed() => exit::CLOSED,
        Ok(code) => code,
        Err(failure) => output.failure(&failure, &caught),
    })
}
