//! What a platform asks for as a whole: its API, and what becomes of things that are
//! deprecated or experimental.

use wapack_runtime::cnb::api::{ApiVersion, PlatformApi};

use super::settings::Surroundings;
use super::usage::UsageError;

/// Platform APIs that are spoken, but not for long: none, as with the reference lifecycle.
const DEPRECATED: &[ApiVersion] = &[];

/// What becomes of something that may be unwanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Quiet,
    Warn,
    Error,
}

/// The Platform API, and what to warn of.
///
/// # Errors
/// When it is unset or not spoken (API-03, API-04).
pub(super) fn api(surroundings: &Surroundings) -> Result<(PlatformApi, Option<String>), UsageError> {
    let text = surroundings.variable("CNB_PLATFORM_API").map(|text| text.to_string_lossy().into_owned());
    let text = text.filter(|text| !text.trim().is_empty()).ok_or(UsageError::NoPlatformApi)?;
    let refused = || UsageError::PlatformApi { version: text.clone() };
    let version: ApiVersion = text.strip_prefix('v').unwrap_or(&text).parse().map_err(|_| refused())?;
    let api = PlatformApi::supported(version).ok_or_else(refused)?;
    Ok((api, deprecated(version, DEPRECATED, deprecation(surroundings))?))
}

/// What `CNB_DEPRECATION_MODE` says; anything unknown warns (API-08).
fn deprecation(surroundings: &Surroundings) -> Mode {
    match surroundings.variable("CNB_DEPRECATION_MODE").and_then(|mode| mode.to_str()) {
        Some("quiet") => Mode::Quiet,
        Some("error") => Mode::Error,
        _ => Mode::Warn,
    }
}

/// The warning about a version, if it is among those that are `deprecated`.
fn deprecated(
    version: ApiVersion,
    deprecated: &[ApiVersion],
    mode: Mode,
) -> Result<Option<String>, UsageError> {
    match mode {
        _ if !deprecated.contains(&version) => Ok(None),
        Mode::Quiet => Ok(None),
        Mode::Warn => Ok(Some(format!("Platform requested deprecated API '{version}'"))),
        Mode::Error => Err(UsageError::Deprecated { version: version.to_string() }),
    }
}

/// What `CNB_EXPERIMENTAL_MODE` says: nothing experimental unless it is asked for (CLI-10).
pub(super) fn experimental(surroundings: &Surroundings) -> Mode {
    match surroundings.variable("CNB_EXPERIMENTAL_MODE").and_then(|mode| mode.to_str()) {
        None | Some("error") => Mode::Error,
        // The specification's word, and the reference's (CON-31).
        Some("silent" | "quiet") => Mode::Quiet,
        Some(_) => Mode::Warn,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn with(variables: &[(&str, &str)]) -> Surroundings {
        let environment: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Surroundings { environment, working_directory: "/".into(), user: (1000, 1000) }
    }

    #[test]
    fn api_03_and_09_what_is_not_spoken_is_refused() {
        let read = |text: &str| api(&with(&[("CNB_PLATFORM_API", text)])).map(|(api, _)| api.to_string());
        for text in ["0.7", "0.12", "0.15"] {
            assert_eq!(read(text).unwrap(), text);
        }
        assert_eq!(read("v0.12").unwrap(), "0.12");
        for text in ["0.6", "0.16", "1", "1.0", "0", "x", "0.12.1", "vv0.12"] {
            let error = read(text).unwrap_err();
            assert!(matches!(error, UsageError::PlatformApi { .. }) && error.code() == 11, "{text}: {error}");
        }
    }

    #[test]
    fn api_04_con_01_an_unset_platform_api_is_code_11() {
        for surroundings in [with(&[]), with(&[("CNB_PLATFORM_API", "")]), with(&[("CNB_PLATFORM_API", " ")])]
        {
            let error = api(&surroundings).unwrap_err();
            assert!(matches!(error, UsageError::NoPlatformApi) && error.code() == 11, "{error}");
        }
    }

    #[test]
    fn api_08_deprecated_versions_are_warned_of_refused_or_taken() {
        let old = ApiVersion::zero(7);
        let read = |version, mode: Option<&str>| {
            let variables: Vec<_> = mode.iter().map(|mode| ("CNB_DEPRECATION_MODE", *mode)).collect();
            deprecated(version, &[old], deprecation(&with(&variables))).map_err(|error| error.code())
        };
        let warning = || Ok(Some("Platform requested deprecated API '0.7'".to_owned()));
        assert_eq!(read(old, None), warning());
        assert_eq!(read(old, Some("warn")), warning());
        assert_eq!(read(old, Some("of course")), warning());
        assert_eq!(read(old, Some("quiet")), Ok(None));
        assert_eq!(read(old, Some("error")), Err(11));
        assert_eq!(read(ApiVersion::zero(8), Some("error")), Ok(None));
    }

    #[test]
    fn cli_10_con_31_experiments_need_to_be_asked_for() {
        let mode = |text: &str| experimental(&with(&[("CNB_EXPERIMENTAL_MODE", text)]));
        assert_eq!(experimental(&with(&[])), Mode::Error);
        assert_eq!(["error", ""].map(mode), [Mode::Error; 2]);
        assert_eq!(["silent", "quiet"].map(mode), [Mode::Quiet; 2]);
        assert_eq!(["warn", "maybe"].map(mode), [Mode::Warn; 2]);
    }
}
