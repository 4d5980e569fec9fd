//! The last step: finds the program and becomes it.

use std::convert::Infallible;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment::Environment;
use crate::failure::Failure;
use crate::layers::BuildpackLayers;
use crate::process::{Process, Start};
use crate::shell;

/// Makes `directory` the current one.
pub(crate) fn enter(directory: &Path) -> Result<(), Failure> {
    env::set_current_dir(directory)
        .map_err(|error| Failure::launch(format!("cannot enter `{}`: {error}", directory.display())))
}

/// Replaces this program by the process. Returns only if that fails.
pub(crate) fn become_process(
    process: &Process,
    caller: OsString,
    environment: &Environment,
    layers: &[BuildpackLayers],
    app_directory: &Path,
) -> Result<Infallible, Failure> {
    match &process.start {
        Start::Direct { program, arguments } => {
            // A relative program is meant from the app, not from the working directory (LAU-23).
            let path = environment.get(OsStr::new("PATH")).map(OsString::as_os_str);
            let file = locate(program, path.unwrap_or_default(), app_directory)?;
            enter(&process.working_directory)?;
            let mut command = Command::new(&file);
            command.arg0(program).args(arguments);
            execute(command, environment, &file)
        }
        Start::ShellWords(_) | Start::ShellScript { .. } => {
            let bash = Path::new(shell::BASH);
            check_shell(bash)?;
            let (script, parameters) = shell::script(process, layers, app_directory)?;
            let mut command = Command::new(bash);
            command.arg0("bash").arg("-c").arg(script).arg(caller).args(parameters);
            execute(command, environment, bash)
        }
    }
}

/// Says what is missing better than the system would.
fn check_shell(bash: &Path) -> Result<(), Failure> {
    if bash.exists() {
        return Ok(());
    }
    Err(Failure::launch(format!(
        "this process needs a shell, and the image has no `{}`; use a run image with bash, \
         or start a program directly (`-- PROGRAM ARGUMENTS…`)",
        bash.display()
    )))
}

fn execute(mut command: Command, environment: &Environment, file: &Path) -> Result<Infallible, Failure> {
    let error = command.env_clear().envs(environment).exec();
    let hint = match error.raw_os_error() {
        Some(libc::ENOENT) if file.exists() => {
            " (the file is there, but the interpreter or loader it names is not in this image)"
        }
        Some(libc::ENOEXEC) => " (it is for another architecture, or a script without a `#!` line)",
        _ => "",
    };
    Err(Failure::launch(format!("cannot execute `{}`: {error}{hint}", file.display())))
}

/// Finds the file of `program`: as it is when it has a `/`, else along `path`.
fn locate(program: &OsStr, path: &OsStr, app_directory: &Path) -> Result<PathBuf, Failure> {
    if program.as_bytes().contains(&b'/') {
        return Ok(app_directory.join(program));
    }
    let mut refused = None;
    // Split, an empty path would be one empty element.
    for directory in env::split_paths(path).filter(|_| !path.is_empty()) {
        // An empty or relative element is meant from the current directory, which is the app.
        let file = app_directory.join(directory).join(program);
        match is_executable(&file) {
            Ok(true) => return Ok(file),
            Ok(false) => refused = refused.or(Some(file)),
            Err(_) => {}
        }
    }
    Err(Failure::launch(match refused {
        Some(file) => format!("`{}` is not executable: `{}`", program.display(), file.display()),
        None => format!("`{}` was not found in PATH (`{}`)", program.display(), path.display()),
    }))
}

fn is_executable(file: &Path) -> io::Result<bool> {
    let metadata = file.metadata()?;
    Ok(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lau_34_an_image_without_bash_gets_a_clear_error() {
        let failure = check_shell(Path::new("/no/such/bash")).unwrap_err();
        assert_eq!(failure.exit_code(), 82);
        let message = failure.to_string();
        assert!(message.starts_with("this process needs a shell, and the image has no `/no/such/bash`"));
    }

    #[test]
    fn lau_22_an_empty_path_has_no_programs() {
        let app = std::env::temp_dir();
        assert!(locate(OsStr::new("sh"), OsStr::new(""), Path::new("/bin")).is_err());
        assert_eq!(locate(OsStr::new("sh"), OsStr::new("/bin"), &app).unwrap(), Path::new("/bin/sh"));
    }
}
