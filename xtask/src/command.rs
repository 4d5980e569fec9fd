//! Starting other programs, with their own output on the terminal.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::workspace;

/// Says what is done, in the way cargo does.
pub(crate) fn step(what: &str) {
    println!("xtask: {what}");
}

/// Says what is missing but not fatal.
pub(crate) fn warn(what: &str) {
    eprintln!("warning: {what}");
}

/// Cargo, in the workspace and with its target directory.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    // `cargo run` says which cargo it was, so that `cargo +nightly xtask` stays on nightly.
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace::root());
    command
}

/// Runs a command whose output belongs on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("cannot start {}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed ({status})", shown(command))) }
}

/// Runs a command for what it prints; its errors go to the terminal.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start {}: {error}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{} failed ({})", shown(command), output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{} printed what is not UTF-8", shown(command)))
}

/// A command as one would type it, for messages.
fn shown(command: &Command) -> String {
    let mut text = format!("`{}", Path::new(command.get_program()).file_name().unwrap_or_default().display());
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text.push('`');
    text
}

/// Where a program is, also in the directories of administration tools.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}
