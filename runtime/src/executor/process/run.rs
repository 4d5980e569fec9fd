//! One program of a classic buildpack: started, listened to, ended.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, PipeReader, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::super::lines::Lines;
use super::super::{CallInputs, Executables, GuestFailure};
use crate::cancel::Cancel;
use crate::cnb::env::Environment;
use crate::limits::LimitKind;
use crate::text::{harmless, without_colours};

/// How long we look away while nothing is printed.
const WATCH: Duration = Duration::from_millis(100);

/// What a program leaves running may go on printing for so long, such as a filter
/// that its output goes through. Then it is ended.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Between asking a cancelled program to end and ending it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A program is busy while another thread starts one and still holds it open for writing.
const BUSY_ATTEMPTS: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Runs `bin/<name>` of `executables` and gives every line it prints, of both streams
/// in their order, to `line`. Nothing of it runs any more when this returns.
///
/// # Errors
/// [`GuestFailure`] when it cannot be started, runs into the wall time of the call or
/// is cancelled; how it ended by itself is the result.
///
/// # Spec
/// `buildpack.md` 0.12 "Buildpack Interface"; API-15, DET-01, BLD-01: started
/// directly, in the app, with nothing to read.
pub(super) fn run(
    call: &CallInputs,
    executables: &Executables,
    name: &str,
    arguments: &[&OsStr],
    environment: &Environment,
    cancel: &Cancel,
    line: &mut dyn FnMut(String),
) -> Result<ExitStatus, GuestFailure> {
    let cannot_start = |error: &io::Error| GuestFailure::Unloadable {
        buildpack: call.buildpack.clone(),
        id: "buildpack.not_executable".to_owned(),
        message: format!("`bin/{name}` cannot be started: {error}"),
        hint: None,
    };
    let started = Instant::now();
    let mut command = Command::new(executables.directory.join("bin").join(name));
    command
        .args(arguments)
        .current_dir(&executables.app)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .process_group(0);
    let (output, child) = start(command).map_err(|error| cannot_start(&error))?;
    let running = Running { child, reaped: false };
    let mut lines = Lines::new(&call.limits.limits);
    let mut show = |text: String| {
        // What a terminal would have made of it: the line end of other systems, colours.
        line(harmless(&without_colours(text.strip_suffix('\r').unwrap_or(&text))));
    };
    let deadline = started.checked_add(call.limits.wall);
    let result = listen(running, &output, deadline, cancel, &mut lines, &mut show);
    lines.finish(&mut show);
    match result {
        Ok(status) => Ok(status),
        Err(Stop::Cancelled) => Err(GuestFailure::Cancelled { buildpack: call.buildpack.clone() }),
        Err(Stop::TooLong) => Err(GuestFailure::Limit {
            buildpack: call.buildpack.clone(),
            limit: LimitKind::Wall,
            allowed: milliseconds(call.limits.wall),
            reached: milliseconds(started.elapsed()),
        }),
        Err(Stop::Io(error)) => Err(cannot_start(&error)),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Starts a program with both streams in one pipe, so that their order is kept.
fn start(mut command: Command) -> io::Result<(PipeReader, Child)> {
    let (output, input) = io::pipe()?;
    let flags = rustix::fs::fcntl_getfl(&output)?;
    rustix::fs::fcntl_setfl(&output, flags | rustix::fs::OFlags::NONBLOCK)?;
    command.stdout(input.try_clone()?).stderr(input);
    let mut attempts = 0;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && attempts < BUSY_ATTEMPTS => {
                attempts += 1;
                sleep(BUSY_PAUSE);
            }
            // `command` holds the writing end and is dropped here.
            result => return result.map(|child| (output, child)),
        }
    }
}

/// Why a program was ended.
enum Stop {
    Cancelled,
    TooLong,
    Io(io::Error),
}

impl From<Errno> for Stop {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// A program and what it started; all of it is ended when this is dropped.
struct Running {
    child: Child,
    reaped: bool,
}

impl Running {
    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether the program itself has ended. It is not waited for, so that its number
    /// stays its own.
    fn has_ended(&self) -> Result<bool, Errno> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(self.group()), options)?.is_some())
    }

    /// Ends what is left of its group, and says how the program itself ended.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.reaped {
            // Nobody left in the group is what we want.
            let _ = kill_process_group(self.group(), Signal::KILL);
        }
        let status = self.child.wait();
        self.reaped |= status.is_ok();
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Killed above or now; nothing more can be done for it.
        let _ = self.end();
    }
}

/// Reads what is printed until the program and its streams have ended.
fn listen(
    mut running: Running,
    output: &PipeReader,
    deadline: Option<Instant>,
    cancel: &Cancel,
    lines: &mut Lines,
    show: &mut dyn FnMut(String),
) -> Result<ExitStatus, Stop> {
    let mut is_open = true;
    let mut pause = Duration::from_millis(1);
    let mut ended_at = None;
    loop {
        if cancel.is_cancelled() {
            stop_gently(&running);
            return Err(Stop::Cancelled);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Stop::TooLong);
        }
        if is_open {
            wait_for(output)?;
            is_open = read(output, lines, show).map_err(Stop::Io)?;
        }
        if ended_at.is_none() && running.has_ended()? {
            ended_at = Some(Instant::now());
        }
        match ended_at {
            Some(ended_at) if !is_open || ended_at.elapsed() >= AFTERMATH => break,
            None if !is_open => {
                sleep(pause);
                pause = (pause * 2).min(WATCH);
            }
            _ => {}
        }
    }
    running.end().map_err(Stop::Io)
}

/// Waits until there is something to read, but not for long.
fn wait_for(output: &PipeReader) -> Result<(), Errno> {
    let timeout = Timespec::try_from(WATCH).map_err(|_| Errno::INVAL)?;
    match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads what is there; whether more can come.
fn read(mut output: &PipeReader, lines: &mut Lines, show: &mut dyn FnMut(String)) -> io::Result<bool> {
    let mut buffer = [0; 16 << 10];
    match output.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(length) => {
            lines.print(&buffer[..length], show);
            Ok(true)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Lets the program clean up behind itself; what does not go is ended by the caller.
fn stop_gently(running: &Running) {
    // It may be gone already.
    let _ = kill_process_group(running.group(), Signal::TERM);
    let deadline = Instant::now() + LAST_WORDS;
    while Instant::now() < deadline && !running.has_ended().unwrap_or(true) {
        sleep(Duration::from_millis(10));
    }
}

/// How a program ended that did not end well: `exited with status 3`.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}
