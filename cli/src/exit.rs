//! From an error to an exit code, by phase and by who can act.
//!
//! The numbers of the phases are those of the platform specification's reference
//! implementation, so that platforms read them as they are used to.

use wapack_runtime::catalog::CatalogError;
use wapack_runtime::error::Error;
use wapack_runtime::executor::GuestFailure;
use wapack_runtime::fault::{Diagnose as _, Fault};
use wapack_runtime::phase::build::BuildError;
use wapack_runtime::phase::detect::DetectError;

use crate::failure::Failure;

/// Trouble of the machine, or a defect of ours.
const OTHER: u8 = 1;
/// Arguments, inputs or policy; 2 is for arguments that are not understood.
const INVALID: u8 = 3;
const BUILDPACK_API: u8 = 12;
const NOBODY: u8 = 20;
const NOBODY_WITH_ERRORS: u8 = 21;
const DETECT: u8 = 22;
const BUILDPACK_FAILED: u8 = 51;
const BUILD: u8 = 52;
const EXPORT: u8 = 62;
const REBASE: u8 = 72;
const INTERRUPTED: u8 = 130;
/// As if ended by SIGPIPE.
pub(crate) const CLOSED: u8 = 141;

/// The code of an error; `signal` is what was caught, if anything.
pub(crate) fn code(failure: &Failure, signal: Option<i32>) -> u8 {
    if failure.is_cancelled() {
        return signal.and_then(|signal| u8::try_from(128 + signal).ok()).unwrap_or(INTERRUPTED);
    }
    match failure {
        Failure::Run(error) => run(error),
        Failure::Catalog(error) => catalog(error),
        Failure::Input(_) | Failure::Policy(_) => INVALID,
        Failure::Rebase(_) | Failure::Rebased(_) => REBASE,
        Failure::ForSystem { source, .. } => code(source, signal),
        Failure::Layout(_)
        | Failure::Inspection(_)
        | Failure::Images(_)
        | Failure::Store(_)
        | Failure::Guest(_)
        | Failure::Builtin(_) => by_fault(failure.fault()),
    }
}

fn run(error: &Error) -> u8 {
    match error {
        Error::Source(_)
        | Error::Store(_)
        | Error::Prepare(_)
        | Error::Operator(_)
        | Error::Bindings(_)
        | Error::Worker(_) => by_fault(error.fault()),
        Error::Detect(error) => match error {
            DetectError::NobodyTakesPart { with_errors: false, .. } => NOBODY,
            DetectError::NobodyTakesPart { with_errors: true, .. } => NOBODY_WITH_ERRORS,
            DetectError::Order(error) => catalog(error),
            DetectError::Grant(_) => INVALID,
            DetectError::NotRunnable { .. } | DetectError::Io(_) => DETECT,
            DetectError::Cancelled => INTERRUPTED,
        },
        Error::Build(error) => match error {
            BuildError::Guest(GuestFailure::WorkerUnavailable { .. })
            | BuildError::NotRunnable { .. }
            | BuildError::DiskFull { .. }
            | BuildError::Io { .. } => BUILD,
            BuildError::Guest(GuestFailure::Cancelled { .. }) | BuildError::Cancelled(_) => INTERRUPTED,
            BuildError::Guest(_) => BUILDPACK_FAILED,
            BuildError::Grant(_) => INVALID,
        },
        Error::Export(_) | Error::Publish(_) | Error::Sboms { .. } => EXPORT,
        Error::Cancelled(_) => INTERRUPTED,
    }
}

fn catalog(error: &CatalogError) -> u8 {
    match error {
        CatalogError::ApiUnsupported { .. } => BUILDPACK_API,
        error => by_fault(error.fault()),
    }
}

fn by_fault(fault: Fault) -> u8 {
    match fault {
        Fault::App | Fault::Buildpack | Fault::Caller => INVALID,
        Fault::Environment | Fault::Us => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wapack_runtime::cancel::Cancelled;

    #[test]
    fn a_cancelled_build_ends_as_its_signal_says() {
        let failure = || Failure::Run(Error::Cancelled(Cancelled));
        assert_eq!(
            [Some(2), Some(15), Some(1), None].map(|signal| code(&failure(), signal)),
            [130, 143, 129, 130]
        );
    }

    /// DET-10
    #[test]
    fn detection_has_two_codes_of_its_own() {
        let nobody =
            |with_errors| Failure::Run(DetectError::NobodyTakesPart { groups: vec![], with_errors }.into());
        assert_eq!([false, true].map(|with_errors| code(&nobody(with_errors), None)), [20, 21]);
    }
}
