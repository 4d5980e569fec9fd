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
///
/// # Spec
/// TGT-12: the specification writes `variant`, the reference lifecycle
/// `arch-variant`; both are read, and the former is written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "PatternTable")]
pub struct TargetPattern {
    pub os: String,
    pub arch: String,
    pub variant: String,
    pub distros: Vec<Distro>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct PatternTable {
    os: String,
    arch: String,
    variant: String,
    arch_variant: String,
    distros: Vec<Distro>,
}

impl From<PatternTable> for TargetPattern {
    fn from(table: PatternTable) -> Self {
        let variant = if table.variant.is_empty() { table.arch_variant } else { table.variant };
        Self { os: table.os, arch: table.arch, variant, distros: table.distros }
    }
}

impl Distro {
    /// The distribution that an `/etc/os-release` names; `None` when it names none.
    ///
    /// # Spec
    /// TGT-05: `ID` and `VERSION_ID`, without quotes and blanks.
    #[must_use]
    pub fn of_os_release(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let values = text.lines().filter_map(|line| line.split_once('='));
            let value = values.filter(|(name, _)| *name == key).map(|(_, value)| value).next_back();
            value.unwrap_or_default().trim_matches(['"', '\'', ' ']).to_owned()
        };
        let distro = Self { name: value("ID"), version: value("VERSION_ID") };
        (distro != Self::default()).then_some(distro)
    }

    /// Whether one names another distribution or version than the other. What one
    /// of them does not say is no difference.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        !agree(&self.name, &other.name) || !agree(&self.version, &other.version)
    }
}

impl Target {
    /// What an image says of itself.
    ///
    /// # Spec
    /// TGT-01. TGT-11: an image of the old stack bionic without a distribution is
    /// Ubuntu 18.04, of its own architecture.
    #[must_use]
    pub fn of_image(
        os: &str,
        arch: &str,
        variant: Option<&str>,
        labels: &std::collections::BTreeMap<String, String>,
    ) -> Self {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let distro = Distro { name: label(DISTRO_NAME_LABEL), version: label(DISTRO_VERSION_LABEL) };
        let variant = variant.filter(|variant| !variant.is_empty()).map(str::to_owned);
        let target = Self {
            os: os.to_owned(),
            arch: arch.to_owned(),
            variant,
            distro: (distro != Distro::default()).then_some(distro),
        };
        if target.distro.is_none() && label(STACK_ID_LABEL) == BIONIC {
            let arch = if arch.is_empty() { "amd64" } else { arch }.to_owned();
            let distro = Distro { name: "ubuntu".to_owned(), version: "18.04".to_owned() };
            return Self { os: "linux".to_owned(), arch, distro: Some(distro), ..target };
        }
        target
    }
}

/// Label of a run image: name of its distribution.
pub const DISTRO_NAME_LABEL: &str = "io.buildpacks.base.distro.name";
/// Label of a run image: version of its distribution.
pub const DISTRO_VERSION_LABEL: &str = "io.buildpacks.base.distro.version";
/// Label of an image: its stack, before there were targets.
pub const STACK_ID_LABEL: &str = "io.buildpacks.stack.id";
/// The one stack that says which system it is.
pub(super) const BIONIC: &str = "io.buildpacks.stacks.bionic";

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
    fn tgt_04_a_variant_that_one_side_does_not_say_matches() {
        let pattern = |variant: &str| TargetPattern { variant: variant.into(), ..TargetPattern::default() };
        assert!(pattern("v8").matches(&debian()));
        assert!(!pattern("v7").matches(&debian()));
        assert!(pattern("").matches(&debian()));
        assert!(pattern("v7").matches(&Target { variant: None, ..debian() }));
    }

    #[test]
    fn tgt_03_one_of_the_distros_has_to_match() {
        let distro = |name: &str, version: &str| Distro { name: name.into(), version: version.into() };
        let matches = |distros: &[Distro]| {
            TargetPattern { distros: distros.to_vec(), ..TargetPattern::default() }.matches(&debian())
        };
        assert!(matches(&[distro("ubuntu", "24.04"), distro("debian", "12")]));
        assert!(matches(&[distro("debian", "")]) && matches(&[distro("", "12")]));
        assert!(!matches(&[distro("debian", "11"), distro("ubuntu", "12")]));
    }

    #[test]
    fn tgt_05_os_release_names_the_distribution() {
        let read = |text: &str| Distro::of_os_release(text).map(|distro| (distro.name, distro.version));
        let found = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        let text = "PRETTY_NAME=\"Debian = 12\"\nVERSION_ID=\"12\"\nID=debian \nID_LIKE=x\nXID=no\n";
        assert_eq!(read(text), found("debian", "12"));
        assert_eq!(read("ID='alpine'"), found("alpine", ""));
        assert_eq!(read("VERSION_ID=3\n"), found("", "3"));
        assert_eq!(read("NAME=x\nno equals sign\n"), None);
    }

    #[test]
    fn tgt_01_and_11_what_an_image_says_of_itself() {
        let labels = |labels: &[(&str, &str)]| {
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let debian12 = labels(&[
            ("io.buildpacks.base.distro.name", "debian"),
            ("io.buildpacks.base.distro.version", "12"),
        ]);
        assert_eq!(Target::of_image("linux", "arm64", Some("v8"), &debian12), debian());
        let bare = Target::of_image("linux", "amd64", Some(""), &labels(&[]));
        assert_eq!((bare.variant, bare.distro), (None, None));

        let bionic = [("io.buildpacks.stack.id", "io.buildpacks.stacks.bionic")];
        let of_bionic = |arch| {
            let target = Target::of_image("linux", arch, None, &labels(&bionic));
            let distro = target.distro.unwrap();
            format!("{}/{} {} {}", target.os, target.arch, distro.name, distro.version)
        };
        assert_eq!(of_bionic("arm64"), "linux/arm64 ubuntu 18.04");
        assert_eq!(of_bionic(""), "linux/amd64 ubuntu 18.04");
        let named = [bionic[0], ("io.buildpacks.base.distro.name", "debian")];
        let named = Target::of_image("linux", "amd64", None, &labels(&named));
        assert_eq!(named.distro.unwrap().name, "debian");
        let other = labels(&[("io.buildpacks.stack.id", "heroku-18")]);
        assert_eq!(Target::of_image("linux", "amd64", None, &other).distro, None);
    }

    #[test]
    fn tgt_12_both_spellings_of_the_variant_are_read() {
        let read = |text: &str| toml::from_str::<TargetPattern>(text).unwrap();
        assert_eq!(read("variant = \"v8\"").variant, "v8");
        assert_eq!(read("arch-variant = \"v8\"").variant, "v8");
        assert_eq!(read("variant = \"v8\"\narch-variant = \"v8\"").variant, "v8");
        assert!(toml::to_string(&read("arch-variant = \"v8\"")).unwrap().contains("\nvariant = \"v8\""));
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
