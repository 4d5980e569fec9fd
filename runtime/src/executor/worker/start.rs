//! Starting worker processes, and knowing how they ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::fs::OFlags;

use super::confine::{Confinement, Isolation};
use super::protocol::{ParentChannel, Received, Report, Role, Start};
use super::{PATIENCE, open};
use crate::cancel::Cancel;
use crate::limits::Limits;

/// The program that calls [`worker_main`](super::worker_main), as the embedder knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The program; usually the running one.
    pub program: PathBuf,
    /// What makes it a worker.
    pub arguments: Vec<String>,
}

/// A directory a worker keeps access to, besides what single calls bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// On the host.
    pub path: PathBuf,
    /// Whether guests may write there at all.
    pub writable: bool,
}

/// What it takes to run workers.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// How to start one.
    pub command: WorkerCommand,
    /// What guests may use up.
    pub limits: Limits,
    /// All directories of the build.
    pub roots: Vec<Root>,
    /// Run workers under this user id; for root only.
    pub user: Option<u32>,
    /// Refuse to run guests when the kernel does not offer all of the isolation.
    pub isolation_required: bool,
    /// Ends waits.
    pub cancel: Cancel,
}

/// A running worker process.
pub(super) struct Worker {
    pub(super) channel: ParentChannel,
    child: Process,
    pub(super) isolation: Isolation,
}

/// A worker process that was told nothing yet, and knows nothing: started early,
/// it is there when the directories of the build are.
pub struct SpawnedWorker {
    socket: OwnedFd,
    child: Process,
}

/// A child process that does not outlive this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl SpawnedWorker {
    /// Starts the process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn new(command: &WorkerCommand) -> io::Result<Self> {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        let child = Command::new(&command.program)
            .arg0("wapack-worker")
            .args(&command.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { socket: ours, child: Process(child) })
    }
}

impl Worker {
    /// Starts one, or takes the one that was started, and does not wait until it is ready.
    pub(super) fn start(
        settings: &WorkerSettings,
        role: Role,
        spawned: Option<SpawnedWorker>,
    ) -> io::Result<Self> {
        let SpawnedWorker { socket, child } = match spawned {
            Some(spawned) => spawned,
            None => SpawnedWorker::new(&settings.command)?,
        };
        let worker = Self { channel: ParentChannel::new(socket), child, isolation: Isolation::default() };
        let deadline = Instant::now() + PATIENCE;
        let roots = match role {
            Role::Compiler => &[][..],
            Role::Guests => &settings.roots,
        };
        let directories = roots
            .iter()
            .map(|root| open(&root.path, OFlags::PATH | OFlags::DIRECTORY))
            .collect::<rustix::io::Result<Vec<_>>>()?;
        let start = Start {
            role,
            confinement: Confinement {
                user: settings.user,
                roots_writable: roots.iter().map(|root| root.writable).collect(),
            },
            limits: settings.limits.clone(),
        };
        let descriptors: Vec<BorrowedFd<'_>> = directories.iter().map(AsFd::as_fd).collect();
        worker.channel.send(&start, &descriptors, deadline)?;
        Ok(worker)
    }

    /// Ends the process without waiting for its end.
    pub(super) fn kill(&mut self) {
        let _ = self.child.0.kill();
    }

    /// Waits for its end; how it ended.
    pub(super) fn wait(&mut self) -> String {
        self.child.0.wait().map_or_else(|error| error.to_string(), show_status)
    }

    /// Waits until it is confined.
    pub(super) fn become_ready(&mut self) -> io::Result<()> {
        match self.channel.receive(Instant::now() + PATIENCE)? {
            Received::Report(report) => match *report {
                Report::Ready(isolation) => {
                    self.isolation = isolation;
                    Ok(())
                }
                _ => Err(io::Error::other("the worker did not say that it is ready")),
            },
            Received::Nothing => Err(io::Error::other("the worker did not start in time")),
            Received::Closed => Err(io::Error::other(format!("the worker ended at once ({})", self.wait()))),
        }
    }
}

fn show_status(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "unknown status".to_owned(),
    }
}
