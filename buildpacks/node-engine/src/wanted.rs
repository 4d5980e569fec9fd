//! What a text asks for: a range as npm writes them, or a name of nvm's.
//! Knows no releases.

use nodejs_semver::{Range, Version};

use crate::inventory::Release;

/// The versions of Node.js that would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `node`, `latest`, `current`: the newest release of all.
    Newest,
    /// `lts/*`, `lts/-1`: the newest of a line of long-term support, counted from
    /// the newest line.
    LongTerm {
        /// How many lines back.
        back: usize,
    },
    /// `lts/iron`: the newest of the line with this name, in lower case.
    Line(String),
    /// Anything that npm takes for a range, a single version included.
    Range(Range),
}

impl Wanted {
    /// Reads `text`, or says `None` when it asks for nothing that there could be.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        Some(match lower.as_str() {
            "node" | "latest" | "current" | "stable" => Self::Newest,
            "lts" | "lts/*" => Self::LongTerm { back: 0 },
            _ => match lower.strip_prefix("lts/") {
                Some(line) => match line.strip_prefix('-') {
                    Some(back) => Self::LongTerm { back: back.parse().ok()? },
                    None if line.chars().all(|letter| letter.is_ascii_alphabetic()) && !line.is_empty() => {
                        Self::Line(line.to_owned())
                    }
                    None => return None,
                },
                None => Self::Range(Range::parse(text).ok()?),
            },
        })
    }

    /// Whether a release with this version is plainly not what is asked for;
    /// names such as `lts/*` are never at odds with a version.
    pub fn matches(&self, version: &Version) -> bool {
        match self {
            Self::Range(range) => version.satisfies(range),
            Self::Newest | Self::LongTerm { .. } | Self::Line(_) => true,
        }
    }

    /// The release among `releases`, newest first, that fits best. In a range,
    /// those of long-term support come first: `>=20` is no wish for a release
    /// that nobody maintains half a year from now.
    pub(crate) fn best<'a>(&self, releases: &[&'a Release]) -> Option<&'a Release> {
        let mut releases = releases.iter().copied();
        match self {
            Self::Newest => releases.next(),
            Self::LongTerm { back } => {
                let mut lines: Vec<&Release> = releases.filter(|release| release.lts.is_some()).collect();
                lines.dedup_by_key(|release| release.version.major());
                lines.get(*back).copied()
            }
            Self::Line(name) => releases
                .find(|release| release.lts.as_ref().is_some_and(|line| line.eq_ignore_ascii_case(name))),
            Self::Range(range) => {
                let fitting: Vec<&Release> =
                    releases.filter(|release| release.version.satisfies(range)).collect();
                let long_term = fitting.iter().find(|release| release.lts.is_some());
                long_term.or(fitting.first()).copied()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nvm_and_ranges_of_npm_are_told_apart() {
        for newest in ["node", "latest", " Current ", "stable"] {
            assert_eq!(Wanted::parse(newest), Some(Wanted::Newest), "{newest}");
        }
        for (text, back) in [("lts", 0), ("lts/*", 0), ("LTS/*", 0), ("lts/-1", 1), ("lts/-2", 2)] {
            assert_eq!(Wanted::parse(text), Some(Wanted::LongTerm { back }), "{text}");
        }
        assert_eq!(Wanted::parse("lts/Iron"), Some(Wanted::Line("iron".into())));
        for range in ["20", "v20.11.1", "^20 || 22", "18 - 20", "*", "", ">= 18.0.0 <21"] {
            assert!(matches!(Wanted::parse(range), Some(Wanted::Range(_))), "{range}");
        }
        for nothing in ["lts/", "lts/-x", "lts/20", "iojs", "twenty", "20.x.y.z", "lts/../x"] {
            assert_eq!(Wanted::parse(nothing), None, "{nothing}");
        }
    }
}
