//! Targets: the system an image is for, and what a buildpack says it can build for.

use serde::{Deserialize, Serialize};

/// The system an image is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `linux`.
    pub os: String,
    /// OCI name of the architecture: `amd64`, `arm64`.
    pub arch: String,
    /// Variant of the architecture, such as `v8`.
    pub variant: Option<String>,
    /// Distribution of the run image; `scratch` has none.
    pub distro: Option<Distro>,
}

/// A distribution, named as `/etc/os-release` does (`ID`, `VERSION_ID`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Distro {
    /// Such as `debian`; empty matches anything.
    #[serde(default)]
    pub name: String,
    /// Such as `12`; empty matches anything.
    #[serde(default)]
    pub version: String,
}

/// One entry of `[[targets]]` in `buildpack.toml`. An empty field matches anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TargetPattern {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub arch: String,
    /// The specification writes `variant`, the reference lifecycle `arch-variant`.
    #[serde(default, alias = "arch-variant")]
    pub variant: String,
    #[serde(default)]
    pub distros: Vec<Distro>,
}

fn agree(left: &str, right: &str) -> bool {
    left.is_empty() || right.is_empty() || left == right
}

impl TargetPattern {
    /// Whether a buildpack that lists this pattern can build for `target`.
    ///
    /// # Spec
    /// `platform.md` 0.15 "Target Data"; TGT-02 to TGT-05: with `distros`
    /// listed, one has to match, and a target without a distribution matches none.
    #[must_use]
    pub fn matches(&self, target: &Target) -> bool {
        let distro_matches = || match &target.distro {
            None => false,
            Some(distro) => self
                .distros
                .iter()
                .any(|wanted| agree(&wanted.name, &distro.name) && agree(&wanted.version, &distro.version)),
        };
        agree(&self.os, &target.os)
            && agree(&self.arch, &target.arch)
            && agree(&self.variant, target.variant.as_deref().unwrap_or(""))
            && (self.distros.is_empty() || distro_matches())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> Target {
        Target {
            os: "linux".into(),
            arch: "arm64".into(),
            variant: Some("v8".into()),
            distro: Some(Distro { name: "debian".into(), version: "12".into() }),
        }
    }

    #[test]
    fn tgt_02_an_empty_field_matches_anything() {
        assert!(TargetPattern::default().matches(&debian()));
        let linux = TargetPattern { os: "linux".into(), ..TargetPattern::default() };
        assert!(linux.matches(&debian()));
    }

    #[test]
    fn tgt_03_fields_that_are_there_must_be_equal() {
        let amd64 = TargetPattern { arch: "amd64".into(), ..TargetPattern::default() };
        assert!(!amd64.matches(&debian()));
        let ubuntu = TargetPattern {
            distros: vec![Distro { name: "ubuntu".into(), version: String::new() }],
            ..TargetPattern::default()
        };
        assert!(!ubuntu.matches(&debian()));
    }

    #[test]
    fn tgt_05_a_listed_distro_does_not_match_a_target_without_one() {
        let pattern = TargetPattern {
            distros: vec![Distro { name: "debian".into(), version: "12".into() }],
            ..TargetPattern::default()
        };
        assert!(pattern.matches(&debian()));
        assert!(!pattern.matches(&Target { distro: None, ..debian() }));
    }
}
