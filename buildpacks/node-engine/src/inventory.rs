//! The releases of Node.js that ship with the buildpack. Knows their hashes, not
//! where they are fetched from.

use std::collections::BTreeMap;

use nodejs_semver::Version;
use serde::Deserialize;
use wapack_sdk::Error;

use crate::install::{self, ARCHITECTURES};
use crate::requirement::Requirement;
use crate::wanted::Wanted;

/// All releases, newest first.
#[derive(Debug)]
pub struct Inventory {
    releases: Vec<Release>,
}

/// One release.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// The name of its line of long-term support, such as `Iron`.
    pub lts: Option<String>,
    hashes: Hashes,
}

/// # Shape
/// See `xtask/src/inventory.rs`, which writes it.
#[derive(Debug, Deserialize)]
struct File {
    releases: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    lts: Option<String>,
    #[serde(flatten)]
    hashes: Hashes,
}

/// By architecture, as images name them.
#[derive(Debug, Clone, Deserialize)]
struct Hashes {
    /// Of the npm package.
    #[serde(default)]
    npm: BTreeMap<String, String>,
    /// Of Node's own archive.
    #[serde(default)]
    dist: BTreeMap<String, String>,
}

impl Release {
    /// The integrity value of the npm package, when there is one.
    pub fn npm(&self, arch: &str) -> Option<&str> {
        self.hashes.npm.get(arch).map(String::as_str)
    }

    /// The hash of Node's own archive, when it is known.
    pub fn dist(&self, arch: &str) -> Option<&str> {
        self.hashes.dist.get(arch).map(String::as_str)
    }

    /// Whether there is any way to get it. Node's own site has every release for
    /// every architecture that npm has some for.
    pub fn is_for(&self, arch: &str) -> bool {
        install::node_arch(arch).is_some()
    }
}

impl Inventory {
    /// Reads the file beside the component.
    ///
    /// # Errors
    /// A buildpack error when it is damaged.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let damaged = |problem: String| Error::buildpack(format!("`inventory.json` is damaged: {problem}"));
        let file: File = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let mut releases = Vec::with_capacity(file.releases.len());
        for (text, Entry { lts, hashes }) in file.releases {
            let version = Version::parse(&text).map_err(|_| damaged(format!("`{text}` is no version")))?;
            releases.push(Release { version, lts, hashes });
        }
        releases.sort_by(|left, right| right.version.cmp(&left.version));
        Ok(Self { releases })
    }

    /// The release with exactly this version.
    pub fn get(&self, version: &str) -> Option<&Release> {
        self.releases.iter().find(|release| release.version.to_string() == version)
    }

    /// The release that fits best. One that the source `npm` has comes first,
    /// whatever the operator has set, and of its line the newest that `npm` has for
    /// every architecture: the same app gets the same version.
    pub fn resolve(&self, wanted: &Wanted, arch: &str) -> Option<&Release> {
        let packaged: Vec<&Release> =
            self.releases.iter().filter(|release| release.npm(arch).is_some()).collect();
        let Some(newest) = wanted.best(&packaged) else {
            let all: Vec<&Release> = self.releases.iter().filter(|release| release.is_for(arch)).collect();
            return wanted.best(&all);
        };
        let is_alike = |release: &&&Release| {
            release.version.major() == newest.version.major()
                && release.lts == newest.lts
                && wanted.matches(&release.version)
                && ARCHITECTURES.iter().all(|(arch, _)| release.npm(arch).is_some())
        };
        Some(packaged.iter().find(is_alike).copied().unwrap_or(newest))
    }

    /// The error for when nothing fits, with what comes nearest.
    pub fn missing(&self, requirement: &Requirement, wanted: &Wanted, arch: &str) -> Error {
        let error = Error::app(format!("there is no Node.js for `linux/{arch}` that is {requirement}"));
        let near = self.nearest(requirement.version.as_str(), arch);
        error.hint(match (near.as_slice(), wanted) {
            ([], _) => "there is none for this architecture at all".to_owned(),
            (_, Wanted::Line(_)) => {
                let mut lines: Vec<String> = self
                    .releases
                    .iter()
                    .filter_map(|release| release.lts.as_ref())
                    .map(|name| format!("`lts/{}`", name.to_ascii_lowercase()))
                    .collect();
                lines.dedup();
                format!("the lines of long-term support are {}", lines.join(", "))
            }
            _ => format!("the nearest are {}", near.join(", ")),
        })
    }

    /// Up to four releases that the source `npm` has, near the first version
    /// that `text` names, oldest first.
    pub fn nearest(&self, text: &str, arch: &str) -> Vec<String> {
        let numbers: Vec<u64> = text
            .trim_start_matches(|letter: char| !letter.is_ascii_digit())
            .split(|letter: char| !letter.is_ascii_digit())
            .take(3)
            .map_while(|number| number.parse().ok())
            .collect();
        let number = |index: usize| numbers.get(index).copied();
        let mut near: Vec<&Release> =
            self.releases.iter().filter(|release| release.npm(arch).is_some()).collect();
        // A number that is not named is taken as the newest one.
        near.sort_by_key(|release| {
            let distance = |index: usize, found: u64| match number(index) {
                Some(wanted) => found.abs_diff(wanted),
                None => u64::MAX - found,
            };
            let version = &release.version;
            (distance(0, version.major()), distance(1, version.minor()), distance(2, version.patch()))
        });
        near.truncate(4);
        near.sort_by(|left, right| left.version.cmp(&right.version));
        near.iter().map(|release| release.version.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file that ships.
    fn shipped() -> Inventory {
        Inventory::parse(include_str!("../inventory.json")).unwrap()
    }

    fn small() -> Inventory {
        Inventory::parse(
            r#"{ "releases": {
                "26.0.0": { "npm": { "amd64": "sha512-a" } },
                "24.11.1": { "lts": "Krypton", "dist": { "arm64": "sha256:d" } },
                "24.11.0": { "lts": "Krypton", "npm": { "amd64": "sha512-a", "arm64": "sha512-b" } },
                "24.1.0": { "npm": { "amd64": "sha512-a" } },
                "23.5.0": { "npm": { "amd64": "sha512-a" } },
                "22.11.0": { "lts": "Jod", "npm": { "amd64": "sha512-a" } },
                "20.9.0": { "lts": "Iron", "npm": { "amd64": "sha512-a" } },
                "20.0.0": { "npm": { "amd64": "sha512-a" } },
                "9.11.0": { "npm": { "amd64": "sha512-a" } }
            } }"#,
        )
        .unwrap()
    }

    fn resolved(text: &str, arch: &str) -> Option<String> {
        let wanted = Wanted::parse(text).unwrap();
        small().resolve(&wanted, arch).map(|release| release.version.to_string())
    }

    /// One app for several architectures has one Node.js, though they have not the same newest one.
    #[test]
    fn a_release_for_every_architecture_is_taken_first() {
        let inventory = Inventory::parse(
            r#"{ "releases": {
                "26.2.0": { "npm": { "arm64": "sha512-a" } },
                "26.1.0": { "npm": { "amd64": "sha512-a" } },
                "26.0.0": { "npm": { "amd64": "sha512-a", "arm64": "sha512-b" } },
                "25.1.0": { "npm": { "amd64": "sha512-a" } },
                "24.3.0": { "lts": "Krypton", "npm": { "arm64": "sha512-a" } },
                "24.2.0": { "lts": "Krypton", "npm": { "amd64": "sha512-a", "arm64": "sha512-b" } },
                "24.1.0": { "npm": { "amd64": "sha512-a", "arm64": "sha512-b" } }
            } }"#,
        )
        .unwrap();
        for (text, amd64, arm64) in [
            ("node", "26.0.0", "26.0.0"),
            (">=26", "26.0.0", "26.0.0"),
            ("*", "24.2.0", "24.2.0"),
            ("lts/*", "24.2.0", "24.2.0"),
            ("<=24.1", "24.1.0", "24.1.0"),
            // Where there is none, each takes what it has: another line would surprise more.
            (">26.0.0", "26.1.0", "26.2.0"),
            (">=25 <26", "25.1.0", ""),
        ] {
            for (arch, version) in [("amd64", amd64), ("arm64", arm64)] {
                let packaged = inventory.resolve(&Wanted::parse(text).unwrap(), arch);
                let found = packaged.filter(|release| release.npm(arch).is_some());
                let found = found.map(|release| release.version.to_string()).unwrap_or_default();
                assert_eq!(found, version, "{text} {arch}");
            }
        }
        for text in ["*", ">=18", "lts/*", "node", "22", "24"] {
            let version = |arch| {
                let wanted = Wanted::parse(text).unwrap();
                shipped().resolve(&wanted, arch).unwrap().version.to_string()
            };
            assert_eq!(version("amd64"), version("arm64"), "{text}");
        }
    }

    #[test]
    fn the_release_that_fits_best() {
        for (text, version) in [
            ("node", "26.0.0"),
            ("*", "24.11.0"),
            ("", "24.11.0"),
            ("lts/*", "24.11.0"),
            ("lts/-1", "22.11.0"),
            ("lts/iron", "20.9.0"),
            (">=20", "24.11.0"),
            (">=25", "26.0.0"),
            ("20", "20.9.0"),
            ("20.0", "20.0.0"),
            ("v24.1.0", "24.1.0"),
            ("20.x || 22", "22.11.0"),
            ("22 - 23", "22.11.0"),
            ("^23.1", "23.5.0"),
            ("<10", "9.11.0"),
        ] {
            assert_eq!(resolved(text, "amd64").as_deref(), Some(version), "{text}");
        }
        for text in ["lts/-9", "lts/argon", ">=30", "21", "24.11.2"] {
            assert_eq!(resolved(text, "amd64"), None, "{text}");
        }
    }

    #[test]
    fn one_that_npm_has_not_is_taken_when_no_other_fits() {
        assert_eq!(resolved("24", "arm64").unwrap(), "24.11.0");
        assert_eq!(resolved("24.11.1", "arm64").unwrap(), "24.11.1");
        assert_eq!(resolved("20.9.0", "arm64").unwrap(), "20.9.0");
        assert_eq!(resolved("24", "riscv64"), None);
    }

    #[test]
    fn a_missing_release_is_an_error_with_the_nearest() {
        let error = |version: &str, arch: &str| {
            let requirement = Requirement::new(version, ".nvmrc");
            let error = small().missing(&requirement, &Wanted::parse(version).unwrap(), arch);
            (error.message, error.hint.unwrap())
        };
        let (message, hint) = error("22.99.1", "amd64");
        assert_eq!(message, "there is no Node.js for `linux/amd64` that is `22.99.1` in `.nvmrc`");
        assert_eq!(hint, "the nearest are 20.9.0, 22.11.0, 23.5.0, 24.11.0");
        assert_eq!(error(">=30", "amd64").1, "the nearest are 23.5.0, 24.1.0, 24.11.0, 26.0.0");
        assert_eq!(error("99", "arm64").1, "the nearest are 24.11.0");
        assert_eq!(
            error("lts/argon", "amd64").1,
            "the lines of long-term support are `lts/krypton`, `lts/jod`, `lts/iron`"
        );
        assert_eq!(error("20", "riscv64").1, "there is none for this architecture at all");
    }

    #[test]
    fn the_list_that_ships_is_whole() {
        let inventory = shipped();
        for arch in ["amd64", "arm64"] {
            for text in ["*", "18", "20", "22", "24", "lts/*", "node", "20.11.1"] {
                let release = inventory.resolve(&Wanted::parse(text).unwrap(), arch).unwrap();
                let integrity = release.npm(arch).unwrap_or_default();
                assert!(integrity.starts_with("sha512-") && integrity.len() == 95, "{arch} {text}");
            }
        }
        assert_eq!(inventory.get("20.11.1").unwrap().lts.as_deref(), Some("Iron"));
        assert!(inventory.get("20.0.0").unwrap().lts.is_none());
        assert!(inventory.releases.iter().all(|release| release.version.major() >= 16));
    }

    #[test]
    fn a_damaged_list_is_the_buildpacks_fault() {
        assert!(Inventory::parse("{").unwrap_err().message.starts_with("`inventory.json` is damaged"));
        assert!(Inventory::parse(r#"{"releases":{"x":{}}}"#).unwrap_err().message.contains("`x`"));
    }
}
