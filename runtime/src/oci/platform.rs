//! Which of several images is the one for a system.

use std::cmp::Reverse;
use std::fmt;

use oci_spec::image::Descriptor;

/// The system an image is wanted for, in the words of image-spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform<'a> {
    pub os: &'a str,
    pub architecture: &'a str,
    /// `None` is what the architecture usually has.
    pub variant: Option<&'a str>,
}

impl fmt::Display for Platform<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        self.variant.map_or(Ok(()), |variant| write!(formatter, "/{variant}"))
    }
}

/// How well an image fits; the least is the best.
pub type Fit = (Closeness, Reverse<Option<Level>>);

/// What its variant is to the one that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closeness {
    Same,
    /// A lower one, which runs there too; the highest of them is the best.
    Lower,
    /// Nobody asked for a variant, or the image does not say its own, and there is no rule.
    Unsaid,
}

/// The number of a variant: 7 and 0 for `v7`, 8 and 2 for `v8.2`.
type Level = (u32, u32);

/// How well what an index lists fits a system; `None` if it does not run there, or says
/// nothing of systems.
///
/// # Spec
/// image-spec `image-index.md` leaves it open what runs where; this is what container engines
/// do: the same variant, or else the highest one below it. `arm` alone is `arm/v7`, `arm64` is
/// `arm64/v8`, `amd64` is `amd64/v1`. Who asks for no variant gets another one
/// rather than nothing (TGT-04).
#[must_use]
pub fn fit(descriptor: &Descriptor, wanted: Platform<'_>) -> Option<Fit> {
    let platform = descriptor.platform().as_ref()?;
    let architecture = platform.architecture().to_string();
    if platform.os().to_string() != wanted.os || architecture != wanted.architecture {
        return None;
    }
    let found = variant(&architecture, platform.variant().as_deref());
    let asked = variant(&architecture, wanted.variant);
    let level = found.as_deref().and_then(level_of);
    let closeness = match (found.as_deref(), asked.as_deref()) {
        (found, asked) if found == asked => Closeness::Same,
        (Some(_), Some(asked)) if level.is_some() && level < level_of(asked) => Closeness::Lower,
        (None, _) | (_, None) => Closeness::Unsaid,
        _ if is_said(wanted.variant) => return None,
        _ => Closeness::Unsaid,
    };
    Some((closeness, Reverse(level)))
}

fn is_said(variant: Option<&str>) -> bool {
    variant.is_some_and(|variant| !variant.is_empty())
}

/// A variant in its usual spelling, or the one that the architecture has where none is said.
fn variant(architecture: &str, said: Option<&str>) -> Option<String> {
    let usual = match architecture {
        "amd64" => Some("v1"),
        "arm" => Some("v7"),
        "arm64" => Some("v8"),
        _ => None,
    };
    match said.filter(|said| !said.is_empty()) {
        None => usual.map(str::to_owned),
        Some(said) => {
            let said = said.to_ascii_lowercase();
            let is_number = said.starts_with(|first: char| first.is_ascii_digit());
            Some(if is_number { format!("v{said}") } else { said })
        }
    }
}

/// `None` for a variant that is no number.
fn level_of(variant: &str) -> Option<Level> {
    let number = variant.strip_prefix('v')?;
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is chosen of an index with these entries.
    fn chosen(wanted: &str, entries: &[&'static str]) -> Option<&'static str> {
        let parts = |text: &'static str| {
            let mut parts = text.split('/');
            (parts.next().unwrap(), parts.next().unwrap(), parts.next())
        };
        let descriptor = |text: &'static str| {
            let (os, architecture, variant) = parts(text);
            let mut platform = serde_json::json!({"os": os, "architecture": architecture});
            if let Some(variant) = variant {
                platform["variant"] = variant.into();
            }
            let digest = format!("sha256:{}", "0".repeat(64));
            let value = serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest, "size": 1, "platform": platform
            });
            serde_json::from_value::<Descriptor>(value).unwrap()
        };
        let mut wanted = wanted.split('/');
        let wanted = Platform {
            os: wanted.next().unwrap(),
            architecture: wanted.next().unwrap(),
            variant: wanted.next(),
        };
        let fits = entries.iter().filter_map(|text| Some((fit(&descriptor(text), wanted)?, *text)));
        fits.min_by_key(|(fit, _)| *fit).map(|(_, text)| text)
    }

    /// By hand, from what containerd documents of its default matching.
    #[test]
    fn the_same_variant_comes_first_and_then_the_highest_one_below() {
        const ARM: [&str; 4] = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm64/v8"];
        for (wanted, entries, expected) in [
            ("linux/arm/v7", &ARM[..], Some("linux/arm/v7")),
            ("linux/arm/v6", &ARM[..], Some("linux/arm/v6")),
            ("linux/arm/v5", &ARM[..], Some("linux/arm/v5")),
            ("linux/arm/v8", &ARM[..], Some("linux/arm/v7")),
            ("linux/arm/7", &ARM[..], Some("linux/arm/v7")),
            ("linux/arm", &ARM[..], Some("linux/arm/v7")),
            ("linux/arm64", &ARM[..], Some("linux/arm64/v8")),
            ("linux/arm64/v8", &ARM[..], Some("linux/arm64/v8")),
            ("linux/arm64/v9", &ARM[..], Some("linux/arm64/v8")),
            ("linux/amd64", &ARM[..], None),
            ("windows/arm64", &ARM[..], None),
            // What is above does not run.
            ("linux/arm/v6", &["linux/arm/v7"], None),
            ("linux/arm/v6", &["linux/arm/v7", "linux/arm/v5"], Some("linux/arm/v5")),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], Some("linux/arm/v6")),
            // Without a variant it is v7, v8 or v1.
            ("linux/arm/v6", &["linux/arm"], None),
            ("linux/arm/v7", &["linux/arm/v6", "linux/arm"], Some("linux/arm")),
            ("linux/arm64/v8", &["linux/arm64"], Some("linux/arm64")),
            ("linux/arm64", &["linux/arm64/v9", "linux/arm64/v8"], Some("linux/arm64/v8")),
            ("linux/arm64/v8.2", &["linux/arm64/v8", "linux/arm64/v8.1"], Some("linux/arm64/v8.1")),
            ("linux/arm64/v8.10", &["linux/arm64/v8.9", "linux/arm64/v9"], Some("linux/arm64/v8.9")),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some("linux/amd64")),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2"], Some("linux/amd64/v2")),
            ("linux/amd64/v3", &["linux/amd64/v4", "linux/amd64"], Some("linux/amd64")),
            ("linux/amd64/v1", &["linux/amd64/v2"], None),
            // Nobody asked: what there is, the best of it.
            ("linux/arm", &["linux/arm/v6", "linux/arm/v5"], Some("linux/arm/v6")),
            ("linux/amd64", &["linux/amd64/v2"], Some("linux/amd64/v2")),
            // Architectures without a rule.
            ("linux/riscv64", &["linux/riscv64"], Some("linux/riscv64")),
            ("linux/riscv64", &["linux/riscv64/rva23", "linux/riscv64"], Some("linux/riscv64")),
            ("linux/riscv64/rva20", &["linux/riscv64/rva23"], None),
            ("linux/riscv64/rva20", &["linux/riscv64"], Some("linux/riscv64")),
            (
                "linux/ppc64le/power8",
                &["linux/ppc64le/power9", "linux/ppc64le/power8"],
                Some("linux/ppc64le/power8"),
            ),
        ] {
            assert_eq!(chosen(wanted, entries), expected, "{wanted} {entries:?}");
        }
    }

    #[test]
    fn a_platform_is_written_as_usual() {
        let platform = |variant| Platform { os: "linux", architecture: "arm", variant };
        assert_eq!(platform(Some("v7")).to_string(), "linux/arm/v7");
        assert_eq!(platform(None).to_string(), "linux/arm");
    }
}
