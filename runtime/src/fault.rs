//! Who can act on an error, its stable id, and what would help.
//!
//! Every error type of this crate that can reach a user implements
//! [`Diagnose`]; the command line prints it and picks the exit code from it.

use std::error::Error;
use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};

/// Who can do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The author of the app.
    App,
    /// The author of the buildpack: it failed, trapped, hit a limit or was refused.
    Buildpack,
    /// Whoever called us: a flag, a path, a policy file.
    Caller,
    /// The machine: disk, permissions, kernel. Trying again may help.
    Environment,
    /// A defect of wapack.
    Us,
}

/// What every user-visible error can say of itself besides its text.
pub trait Diagnose: std::error::Error {
    /// An id that never changes, such as `guest.disk_limit`.
    fn id(&self) -> &'static str;

    /// Who can act.
    fn fault(&self) -> Fault;

    /// What would help, as one sentence without a full stop.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Whether an error comes from a disk without space, inodes or quota.
pub(crate) fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let here = error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            || error.get_ref().is_some_and(|inner| is_disk_full(inner))
    });
    here || error.source().is_some_and(is_disk_full)
}
