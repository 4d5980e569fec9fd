//! Versions of the two interfaces of the specification, and which of them we speak.
//!
//! What a version changes is decided where it matters, by comparing with
//! [`ApiVersion::zero`] or [`PlatformApi::at_least`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id::InvalidName;

/// A version of the Buildpack API.
///
/// # Spec
/// API-01, API-02: below 1.0 every version stands for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiVersion {
    pub major: u64,
    pub minor: u64,
}

impl ApiVersion {
    /// Buildpack APIs this program runs (API-10).
    pub const SUPPORTED_BUILDPACK_APIS: std::ops::RangeInclusive<Self> =
        Self { major: 0, minor: 2 }..=Self { major: 0, minor: 12 };

    /// The version `0.<minor>`.
    #[must_use]
    pub const fn zero(minor: u64) -> Self {
        Self { major: 0, minor }
    }

    /// Whether a buildpack of this API can be run.
    #[must_use]
    pub fn is_supported(self) -> bool {
        Self::SUPPORTED_BUILDPACK_APIS.contains(&self)
    }
}

impl FromStr for ApiVersion {
    type Err = InvalidName;

    /// API-01: `<major>.<minor>`, or `<major>` for `<major>.0`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let number = |digits: &str| {
            // `parse` alone would take a sign.
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
        };
        match (number(major), number(minor)) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(InvalidName {
                kind: "API version",
                value: text.escape_default().to_string(),
                rule: "it is written `<major>.<minor>`",
            }),
        }
    }
}

impl TryFrom<String> for ApiVersion {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<ApiVersion> for String {
    fn from(version: ApiVersion) -> String {
        version.to_string()
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// The Platform API a program of the lifecycle was started with: 0.7 to 0.15.
///
/// # Spec
/// API-03, API-09.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlatformApi(ApiVersion);

impl PlatformApi {
    /// The versions we speak.
    pub const SUPPORTED: std::ops::RangeInclusive<ApiVersion> = ApiVersion::zero(7)..=ApiVersion::zero(15);
    /// The one our own commands speak.
    pub const NEWEST: Self = Self(ApiVersion::zero(15));

    /// `version`, if we speak it.
    #[must_use]
    pub fn supported(version: ApiVersion) -> Option<Self> {
        Self::SUPPORTED.contains(&version).then_some(Self(version))
    }

    /// Whether it is `0.<minor>` or newer.
    #[must_use]
    pub fn at_least(self, minor: u64) -> bool {
        self.0 >= ApiVersion::zero(minor)
    }
}

impl fmt::Display for PlatformApi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_01_versions_are_one_or_two_numbers() {
        let parse = |text: &str| text.parse::<ApiVersion>();
        assert_eq!(parse("0.12").unwrap(), ApiVersion { major: 0, minor: 12 });
        assert_eq!(parse("1").unwrap(), ApiVersion { major: 1, minor: 0 });
        for text in ["", "a", "0.1.2", "0.", ".1", "-1.0", "0.+1", "0.99999999999999999999"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("0.2").unwrap().is_supported() && parse("0.12").unwrap().is_supported());
        assert!(!parse("0.1").unwrap().is_supported() && !parse("0.13").unwrap().is_supported());
        assert!(!parse("1.0").unwrap().is_supported());
    }

    #[test]
    fn api_02_below_1_0_a_version_fits_only_itself() {
        let fits = |text: String| text.parse::<ApiVersion>().unwrap().is_supported();
        let minors: Vec<u64> = (0..30).filter(|minor| fits(format!("0.{minor}"))).collect();
        assert_eq!(minors, (2..=12).collect::<Vec<_>>());
        // None of those we know is of another major version, so none of them fits any.
        for major in 1..4 {
            assert!(!(0..30).any(|minor| fits(format!("{major}.{minor}"))), "{major}");
        }
        // `0` is `0.0`, and not any version below 1.0.
        assert!(!fits("0".to_owned()));
        let platform = |minor| PlatformApi::supported(ApiVersion::zero(minor)).is_some();
        assert_eq!(
            (0..30).filter(|minor| platform(*minor)).collect::<Vec<_>>(),
            (7..=15).collect::<Vec<_>>()
        );
        assert!(PlatformApi::supported(ApiVersion { major: 1, minor: 9 }).is_none());
    }

    #[test]
    fn api_09_platform_apis_are_0_7_to_0_15() {
        let supported = |text: &str| PlatformApi::supported(text.parse().unwrap()).is_some();
        assert!(supported("0.7") && supported("0.15"));
        assert!(!supported("0.6") && !supported("0.16") && !supported("1.0"));
        assert!(PlatformApi::NEWEST.at_least(15) && !PlatformApi::NEWEST.at_least(16));
    }
}
