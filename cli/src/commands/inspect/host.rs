//! What holds a buildpack on this machine.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::error::Error;
use wapack_runtime::executor::worker::WorkerExecutor;
use wapack_runtime::policy::Policy;

use super::{NoCache, worker_settings};
use crate::failure::Failure;

/// Files that everybody can read, unless something holds them back.
const PROBED: [&str; 3] = ["/etc/hostname", "/etc/passwd", "/proc/self/environ"];

/// # Shape
/// Keys are stable: `landlock`, `seccomp`, `network_namespace` with `in_force`
/// and `missing`; `user`; `attempts` with `what` and `refused`.
#[derive(Debug, Serialize)]
pub(crate) struct HostReport {
    landlock: Defence,
    seccomp: Defence,
    network_namespace: Defence,
    /// The unused user id that workers get; none unless we are root.
    user: Option<u32>,
    attempts: Vec<Attempted>,
}

#[derive(Debug, Serialize)]
struct Defence {
    in_force: bool,
    /// Why it is not.
    missing: Option<String>,
}

#[derive(Debug, Serialize)]
struct Attempted {
    what: String,
    refused: Option<String>,
}

impl HostReport {
    /// Whether nothing is missing and nothing got through.
    pub(super) fn is_complete(&self) -> bool {
        [&self.landlock, &self.seccomp, &self.network_namespace].iter().all(|defence| defence.in_force)
            && self.attempts.iter().all(|attempt| attempt.refused.is_some())
    }
}

pub(super) fn look(policy: &Policy, cancel: &Cancel) -> Result<HostReport, Failure> {
    let mut executor = WorkerExecutor::new(worker_settings(policy, Vec::new(), cancel)?, &NoCache);
    let isolation = executor.isolation().map_err(Error::Worker)?;
    let attempts = executor.probe(PROBED.iter().map(PathBuf::from).collect()).map_err(Error::Worker)?;
    let defence = |missing: Option<String>| Defence { in_force: missing.is_none(), missing };
    Ok(HostReport {
        landlock: defence(isolation.landlock_missing),
        seccomp: defence(isolation.seccomp_missing),
        network_namespace: defence(isolation.network_namespace_missing),
        user: isolation.user,
        attempts: attempts
            .into_iter()
            .map(|attempt| Attempted { what: attempt.what, refused: attempt.refused })
            .collect(),
    })
}

pub(super) fn text(report: &HostReport) -> String {
    let mut text = "What holds a buildpack on this machine\n".to_owned();
    for (name, defence) in [
        ("Landlock (files)", &report.landlock),
        ("seccomp (system calls)", &report.seccomp),
        ("network namespace", &report.network_namespace),
    ] {
        let state = match &defence.missing {
            None => "in force".to_owned(),
            Some(why) => format!("MISSING: {why}"),
        };
        let _ = writeln!(text, "  {name:<24}{state}");
    }
    let user = match report.user {
        Some(user) => format!("{user}, which nobody else has"),
        None => "yours".to_owned(),
    };
    let _ = writeln!(text, "  {:<24}{user}\n\nWhat a worker tried, just now", "user id");
    for attempt in &report.attempts {
        let answer = match &attempt.refused {
            Some(why) => format!("refused: {why}"),
            None => "IT WORKED".to_owned(),
        };
        let _ = writeln!(text, "  {:<32}{answer}", attempt.what);
    }
    text
}
