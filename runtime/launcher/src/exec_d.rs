//! `exec.d`: programs of the layers that settle variables when the image starts.
//!
//! Each writes `name = "value"` lines as TOML to descriptor 3; the next one
//! already sees them. Each layer is finished (its plain programs, then those of
//! the process type) before the next begins. The spec runs all plain ones of
//! all layers first; the reference does as we do, and the difference shows only
//! where programs of different layers depend on each other.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use toml::de::{DeTable, DeValue};

use crate::environment::Environment;
use crate::failure::Failure;
use crate::layers::{self, BuildpackLayers, Files};

/// Where a program writes its variables.
const OUTPUT_DESCRIPTOR: RawFd = 3;

/// Runs every program that applies, and puts what they say into `environment`.
pub(crate) fn run_all(
    environment: &mut Environment,
    buildpacks: &[BuildpackLayers],
    process_type: Option<&str>,
) -> Result<(), Failure> {
    for layer in buildpacks.iter().flat_map(|buildpack| &buildpack.layers) {
        let directory = layer.join("exec.d");
        let has_own = run_directory(environment, &directory, process_type)?;
        if let Some(process_type) = process_type.filter(|_| has_own) {
            run_directory(environment, &directory.join(process_type), None)?;
        }
    }
    Ok(())
}

/// Says whether there may be programs for the process type alone.
fn run_directory(
    environment: &mut Environment,
    directory: &Path,
    process_type: Option<&str>,
) -> Result<bool, Failure> {
    let Files { files, has_own } = layers::files_without_dangling_links(directory, process_type)?;
    for program in files {
        let failed = |why: String| Failure::launch(format!("exec.d program `{}` {why}", program.display()));
        let (status, output) =
            run(&program, environment).map_err(|error| failed(format!("could not be run: {error}")))?;
        if !status.success() {
            return Err(failed(format!("failed ({status})")));
        }
        let variables = parse(&output)
            .map_err(|problem| failed(format!("wrote to descriptor 3 what is not valid: {problem}")))?;
        environment.extend(variables);
    }
    Ok(has_own)
}

/// Runs one program in the current directory; gives its end and what it wrote.
///
/// Waits until the last holder of the descriptor has closed it, so a program
/// that leaves something running in the background must not hand it on.
fn run(program: &Path, environment: &Environment) -> io::Result<(ExitStatus, Vec<u8>)> {
    let (mut reader, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command.env_clear().envs(environment).stdin(Stdio::null());
    let descriptor = writer.as_raw_fd();
    #[expect(
        unsafe_code,
        reason = "only this hook can place a descriptor; it calls nothing but dup2 or fcntl"
    )]
    // SAFETY: both calls are async-signal-safe and use no memory of ours. In this
    // copy of the process descriptor 3 belongs to nobody: it is the pipe itself,
    // or one the container came with, which stays as it was in the launcher.
    unsafe {
        command.pre_exec(move || place(descriptor));
    }
    let mut child = command.spawn()?;
    // The pipe ends only when our own writing end is gone.
    drop(writer);
    let mut output = Vec::new();
    // Before waiting: a pipe holds 64 KiB and the program may write more.
    let read = reader.read_to_end(&mut output);
    let status = child.wait()?;
    read?;
    Ok((status, output))
}

/// Makes `descriptor` the one a program writes to, to be kept across `execve`.
fn place(descriptor: RawFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "std has no call that places a descriptor")]
    // SAFETY: numbers only; the caller holds `descriptor` open.
    let result = unsafe {
        if descriptor == OUTPUT_DESCRIPTOR {
            libc::fcntl(descriptor, libc::F_SETFD, 0)
        } else {
            libc::dup2(descriptor, OUTPUT_DESCRIPTOR)
        }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads `name = "value"` pairs.
fn parse(output: &[u8]) -> Result<Vec<(OsString, OsString)>, String> {
    let text = str::from_utf8(output).map_err(|error| error.to_string())?;
    let table = DeTable::parse(text).map_err(|error| error.message().to_owned())?;
    table
        .get_ref()
        .iter()
        .map(|(name, value)| {
            let name: &str = name.get_ref();
            let DeValue::String(value) = value.get_ref() else {
                return Err(format!("`{name}` is not a string"));
            };
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(format!("no environment can hold `{}`", name.escape_debug()));
            }
            Ok((OsString::from(name), OsString::from(&**value)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lau_18_flat_strings_only() {
        assert_eq!(parse(b"").unwrap(), []);
        assert_eq!(
            parse(b"A = \"1\"\n\"B.C\" = 'x y'\n").unwrap(),
            [("A".into(), "1".into()), ("B.C".into(), "x y".into())]
        );
        for bad in
            ["A = 1", "A = [\"x\"]", "[A]\nB = \"x\"", "A.B = \"x\"", "A", "A = \"\\u0000\"", "\"\" = \"x\""]
        {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"A = \"\xff\"").is_err());
    }
}
