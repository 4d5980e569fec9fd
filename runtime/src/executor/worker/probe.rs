//! A worker that tries to get out, to show what holds it.
//!
//! `wapack inspect --host` prints the answers, and the tests compare them: the
//! same code and the same confinement as a build, minus the guest.

use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

/// One thing the worker tried, and what the kernel said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Such as "open /etc/hostname".
    pub what: String,
    /// `None` when it worked, else the error.
    pub refused: Option<String>,
}

fn attempt<T>(what: String, result: rustix::io::Result<T>) -> Attempt {
    Attempt { what, refused: result.err().map(|error| error.to_string()) }
}

/// Tries files, sockets and processes, from inside.
pub(super) fn attempts(parent: i32, paths: &[PathBuf], channel: &impl AsFd) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = paths
        .iter()
        .map(|path| {
            let opened = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            attempt(format!("open {}", path.display()), opened)
        })
        .collect();
    let created = rustix::fs::openat(CWD, "/tmp/wapack-probe", OFlags::WRONLY | OFlags::CREATE, Mode::RUSR);
    attempts.push(attempt("create /tmp/wapack-probe".to_owned(), created));
    for (name, family) in [
        ("internet", rustix::net::AddressFamily::INET),
        ("internet v6", rustix::net::AddressFamily::INET6),
        ("unix", rustix::net::AddressFamily::UNIX),
        ("netlink", rustix::net::AddressFamily::NETLINK),
    ] {
        let socket = rustix::net::socket(family, rustix::net::SocketType::DGRAM, None);
        attempts.push(attempt(format!("make an {name} socket"), socket));
    }
    attempts.push(attempt(
        "signal the parent process".to_owned(),
        rustix::process::Pid::from_raw(parent)
            .map_or(Err(rustix::io::Errno::SRCH), rustix::process::test_kill_process),
    ));
    attempts.push(attempt("change the root directory".to_owned(), rustix::process::chroot("/")));
    attempts.push(attempt("set the mode of the channel".to_owned(), rustix::fs::fchown(channel, None, None)));
    attempts
}
