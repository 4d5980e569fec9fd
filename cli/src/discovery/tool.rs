//! Running a program of the user's: what it is set to, or what it keeps for them.
//!
//! It runs where nothing is (an app's files cannot answer for it), with a time
//! limit, without a shell, and what it says is bounded.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use wapack_runtime::cancel::Cancel;

use super::environment::Environment;

/// An answer is one line.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;
/// How soon a cancelled build is noticed.
const PAUSE: Duration = Duration::from_millis(50);
/// How soon the end of a program is noticed that has said everything.
const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// Keeps the programs from doing more than they are asked for.
const SETTINGS: [(&str, &str); 5] = [
    ("GOTOOLCHAIN", "local"),
    ("GOWORK", "off"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("npm_config_logs_max", "0"),
    ("npm_config_update_notifier", "false"),
];

/// What came of asking.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The program is not installed, or has nothing to say.
    Nothing,
    Line(String),
    /// It took too long, or could not be started.
    Failed,
}

/// Runs `program` in `directory` and takes the line it prints, as an address and nothing else.
pub(super) fn ask(
    environment: &Environment,
    program: &str,
    arguments: &[&str],
    directory: &Path,
    patience: Duration,
    cancel: &Cancel,
) -> Answer {
    let Some(path) = environment.program(program) else { return Answer::Nothing };
    let mut command = command(environment, &path, directory);
    command.args(arguments).envs(SETTINGS);
    let Ended::Exited { said, .. } = run(&mut command, b"", MAX_ANSWER_BYTES, patience, cancel) else {
        return Answer::Failed;
    };
    match std::str::from_utf8(&said).map(str::trim) {
        Err(_) => Answer::Failed,
        Ok("") => Answer::Nothing,
        Ok(line) if line.contains('\n') => Answer::Failed,
        Ok(line) => Answer::Line(line.to_owned()),
    }
}

/// A program with the user's variables, except for those that hold tokens of wapack's own.
pub(super) fn command(environment: &Environment, program: &Path, directory: &Path) -> Command {
    let is_ours = |name: &OsStr| name.as_encoded_bytes().starts_with(b"WAPACK_SOURCE_");
    let mut command = Command::new(program);
    command
        .current_dir(directory)
        .env_clear()
        .envs(environment.variables().filter(|(name, _)| !is_ours(name)))
        .env("PWD", directory);
    command
}

/// How a program ended. It has no `Debug`: what was said may be a secret.
pub(super) enum Ended {
    NotStarted,
    /// It was stopped: it took too long, or nobody wants to know any more.
    Stopped,
    /// It was stopped because it said more than it may.
    TooMuch,
    Exited {
        status: ExitStatus,
        said: Vec<u8>,
    },
}

/// Runs a program, tells it `input`, and takes at most `limit` bytes of its standard
/// output. It and all that it started in its group are gone after.
///
/// # Units
/// `input` fits into the buffer of a pipe: it is written before anything is read.
pub(super) fn run(
    command: &mut Command,
    input: &[u8],
    limit: u64,
    patience: Duration,
    cancel: &Cancel,
) -> Ended {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).spawn();
    let Ok(mut child) = child else { return Ended::NotStarted };
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not want to hear it says so by how it ends.
        let _ = stdin.write_all(input);
    }
    let end = Instant::now() + patience;
    let said = first_bytes(&mut child, limit, end, cancel);
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let is_within = said.as_ref().is_some_and(|said| said.len() as u64 <= limit);
    let has_ended = is_within && process.is_some_and(|process| has_ended(process, end, cancel));
    // It and all that it started; without a wait its id is nobody else's yet.
    if let Some(process) = process {
        let _ = kill_process_group(process, Signal::KILL);
    }
    match (said, child.wait()) {
        (Some(said), Ok(status)) if has_ended => Ended::Exited { status, said },
        (Some(_), _) if !is_within => Ended::TooMuch,
        _ => Ended::Stopped,
    }
}

/// What it prints until it closes its output, or one byte more than `limit`; `None` when
/// that takes too long.
fn first_bytes(child: &mut Child, limit: u64, end: Instant, cancel: &Cancel) -> Option<Vec<u8>> {
    let stdout = child.stdout.take()?;
    let (done, finished) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(limit + 1).read_to_end(&mut bytes);
        let _ = done.send(read.ok().map(|_| bytes));
    });
    loop {
        match finished.recv_timeout(PAUSE.min(end.saturating_duration_since(Instant::now()))) {
            Ok(bytes) => return bytes,
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if cancel.is_cancelled() || Instant::now() >= end => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Whether a program that has closed its output ends in time; it is not waited for.
fn has_ended(process: Pid, end: Instant, cancel: &Cancel) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        match waitid(WaitId::Pid(process), options) {
            Ok(Some(_)) => return true,
            Err(error) if error != Errno::INTR => return false,
            _ if cancel.is_cancelled() || Instant::now() >= end => return false,
            _ => std::thread::sleep(SHORT_PAUSE),
        }
    }
}
