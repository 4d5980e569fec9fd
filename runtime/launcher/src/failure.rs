//! Why a launch failed: a sentence, and the exit code the platform spec gives it.

use std::fmt;

/// The platform API is missing or not one of ours.
const PLATFORM_API: u8 = 11;
/// A buildpack of the image has an API that is not one of ours.
const BUILDPACK_API: u8 = 12;
/// Anything else before the process runs.
const LAUNCH: u8 = 82;

/// A launch that did not happen.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The environment's `CNB_PLATFORM_API` cannot be honoured.
    pub(crate) fn platform_api(message: impl Into<String>) -> Self {
        Self { code: PLATFORM_API, message: message.into() }
    }

    /// A buildpack's `api` cannot be honoured.
    pub(crate) fn buildpack_api(message: impl Into<String>) -> Self {
        Self { code: BUILDPACK_API, message: message.into() }
    }

    /// Everything that has no code of its own.
    pub(crate) fn launch(message: impl Into<String>) -> Self {
        Self { code: LAUNCH, message: message.into() }
    }

    /// What this program exits with.
    pub(crate) fn exit_code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}
