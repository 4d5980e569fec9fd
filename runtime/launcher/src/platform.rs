//! What the image's environment says about the platform, and API versions.
//!
//! The only module that reads the launcher's own variables.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// An API version such as `0.12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    major: u64,
    minor: u64,
}

impl ApiVersion {
    pub(crate) const fn new(major: u64, minor: u64) -> Self {
        Self { major, minor }
    }

    /// Reads `<major>.<minor>` or `<major>`, with or without a leading `v`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| {
            // `u64::from_str` would let a sign through.
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        };
        let text = text.strip_prefix('v').unwrap_or(text);
        match text.split_once('.') {
            Some((major, minor)) => Some(Self::new(number(major)?, number(minor)?)),
            None => Some(Self::new(number(text)?, 0)),
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// Platform APIs this launcher speaks, both ends included.
pub(crate) const PLATFORM_APIS: (ApiVersion, ApiVersion) = (ApiVersion::new(0, 7), ApiVersion::new(0, 15));
/// Buildpack APIs whose layers this launcher understands, both ends included.
pub(crate) const BUILDPACK_APIS: (ApiVersion, ApiVersion) = (ApiVersion::new(0, 2), ApiVersion::new(0, 12));

/// The image's own settings.
#[derive(Debug)]
pub(crate) struct Platform {
    /// `CNB_PLATFORM_API`.
    pub(crate) api: ApiVersion,
    /// `CNB_LAYERS_DIR`, absolute.
    pub(crate) layers_directory: PathBuf,
    /// `CNB_APP_DIR`, absolute.
    pub(crate) app_directory: PathBuf,
    /// `CNB_EXEC_ENV`.
    pub(crate) exec_env: String,
}

impl Platform {
    /// Reads the settings, the API before anything else.
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        let (oldest, newest) = PLATFORM_APIS;
        let named = env::var("CNB_PLATFORM_API").unwrap_or_default();
        if named.is_empty() {
            return Err(Failure::platform_api(format!(
                "`CNB_PLATFORM_API` is not set; the image's environment should say which platform API \
                 it was built with, from {oldest} to {newest}"
            )));
        }
        let api =
            ApiVersion::parse(&named).filter(|api| (oldest..=newest).contains(api)).ok_or_else(|| {
                Failure::platform_api(format!(
                    "platform API `{named}` is not supported; this launcher speaks {oldest} to {newest}"
                ))
            })?;
        warn_of_process_type();
        let exec_env = env::var("CNB_EXEC_ENV").unwrap_or_default();
        Ok(Self {
            api,
            layers_directory: directory("CNB_LAYERS_DIR", "/layers")?,
            app_directory: directory("CNB_APP_DIR", "/workspace")?,
            exec_env: if exec_env.is_empty() { "production".into() } else { exec_env },
        })
    }
}

/// Says that a variable of old does nothing any more (LAU-05).
#[expect(clippy::print_stderr, reason = "the one thing to say before the process starts")]
fn warn_of_process_type() {
    if let Some(named) = env::var_os("CNB_PROCESS_TYPE").filter(|value| !value.is_empty()) {
        let named = named.display();
        eprintln!(
            "WARNING: `CNB_PROCESS_TYPE` chooses no process; start the image with the entrypoint `{named}`"
        );
    }
}

/// Absolute, because the working directory changes before the last use.
fn directory(variable: &str, default: &str) -> Result<PathBuf, Failure> {
    let named = env::var_os(variable).filter(|value| !value.is_empty());
    let path = named.as_deref().map_or(Path::new(default), Path::new);
    std::path::absolute(path).map_err(|error| {
        Failure::launch(format!("the directory `{}` of `{variable}` cannot be used: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_01_versions_are_one_or_two_plain_numbers() {
        assert_eq!(ApiVersion::parse("0.12"), Some(ApiVersion::new(0, 12)));
        assert_eq!(ApiVersion::parse("v0.12"), Some(ApiVersion::new(0, 12)));
        assert_eq!(ApiVersion::parse("1"), Some(ApiVersion::new(1, 0)));
        for bad in ["", ".", "0.", ".1", "0.1.2", "+1.2", "0.-1", " 0.1", "0.1a", "99999999999999999999.0"] {
            assert_eq!(ApiVersion::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(ApiVersion::new(0, 9) < ApiVersion::new(0, 12));
    }
}
