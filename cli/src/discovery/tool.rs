//! Asking an installed program what it is set to.
//!
//! It runs where nothing is (an app's files cannot answer for it), with a time
//! limit, without a shell. What it says is read as an address and nothing else.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use wapack_runtime::cancel::Cancel;

use super::environment::Environment;

/// An answer is one line.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;
/// How soon a cancelled build is noticed.
const PAUSE: Duration = Duration::from_millis(50);

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

/// Runs `program` in `directory` and takes the line it prints.
pub(super) fn ask(
    environment: &Environment,
    program: &str,
    arguments: &[&str],
    directory: &Path,
    patience: Duration,
    cancel: &Cancel,
) -> Answer {
    let Some(path) = environment.program(program) else { return Answer::Nothing };
    let variables =
        environment.variables().filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"WAPACK_SOURCE_"));
    let child = Command::new(path)
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs(variables)
        .env("PWD", directory)
        .envs(SETTINGS)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let Ok(mut child) = child else { return Answer::Failed };
    let text = first_bytes(&mut child, patience, cancel);
    // It and all that it started; without a wait its id is nobody else's yet.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait();
    match text {
        None => Answer::Failed,
        Some(text) => match text.trim() {
            "" => Answer::Nothing,
            line if line.contains('\n') => Answer::Failed,
            line => Answer::Line(line.to_owned()),
        },
    }
}

/// What it prints until it closes its output; `None` when that takes too long.
fn first_bytes(child: &mut Child, patience: Duration, cancel: &Cancel) -> Option<String> {
    let stdout = child.stdout.take()?;
    let (done, finished) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes);
        let _ = done.send(read.ok().and_then(|_| String::from_utf8(bytes).ok()));
    });
    let end = Instant::now() + patience;
    loop {
        match finished.recv_timeout(PAUSE.min(end.saturating_duration_since(Instant::now()))) {
            Ok(text) => return text,
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if cancel.is_cancelled() || Instant::now() >= end => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
