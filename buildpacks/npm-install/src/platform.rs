//! What an image runs on, in the words that packages use for it.

use std::fmt;

use nodejs_semver::{Range, Version};
use serde_json::Value;
use wapack_sdk::Target;

use crate::lock::Entry;

/// Operating system, processor and C library, and the Node on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: String,
    cpu: String,
    libc: &'static str,
    node: Option<Version>,
}

impl Platform {
    /// The platform of an image. Its C library is that of the distribution of
    /// the run image: musl for Alpine, otherwise glibc. Without a version of Node
    /// everything is for it.
    pub fn of(target: &Target, node: Option<&str>) -> Self {
        let cpu = match target.arch.as_str() {
            "amd64" => "x64",
            "386" => "ia32",
            "ppc64le" => "ppc64",
            other => other,
        };
        let is_alpine = target.distro.as_ref().is_some_and(|distro| distro.name == "alpine");
        Self {
            os: target.os.clone(),
            cpu: cpu.to_owned(),
            libc: if is_alpine { "musl" } else { "glibc" },
            node: node.and_then(|version| Version::parse(version).ok()),
        }
    }

    /// Whether a package is for it.
    pub fn fits(&self, package: &Entry<'_>) -> bool {
        let fits =
            |value: &str, list: &Option<Vec<String>>| list.as_ref().is_none_or(|list| is_in(value, list));
        fits(&self.os, &package.os) && fits(&self.cpu, &package.cpu) && fits(self.libc, &package.libc)
    }

    /// Whether a package is for its Node. What is no range is for all.
    pub fn has_node_for(&self, package: &Entry<'_>) -> bool {
        let range =
            package.engines.get("node").and_then(Value::as_str).and_then(|range| Range::parse(range).ok());
        match (&self.node, range) {
            (Some(node), Some(range)) => node.satisfies(&range),
            _ => true,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.os, self.cpu, self.libc)
    }
}

/// `any` is everything; `!x` is all but x; otherwise one of the names.
fn is_in(value: &str, list: &[String]) -> bool {
    if list == ["any"] {
        return true;
    }
    let refused = list.iter().filter_map(|entry| entry.strip_prefix('!'));
    if refused.clone().any(|refused| refused == value) {
        return false;
    }
    refused.count() == list.len() || list.iter().any(|entry| entry == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(value: &str, list: &[&str]) -> bool {
        is_in(value, &list.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>())
    }

    /// The expectations are npm-install-checks' own rules, worked out by hand.
    #[test]
    fn lists_allow_or_refuse() {
        assert!(is("linux", &["linux", "darwin"]));
        assert!(!is("linux", &["darwin"]));
        assert!(is("linux", &["!win32"]));
        assert!(!is("linux", &["!linux", "linux"]));
        assert!(!is("linux", &["!win32", "darwin"]));
        assert!(is("linux", &["any"]));
        assert!(!is("linux", &["any", "darwin"]));
        assert!(is("linux", &[]));
    }
}
