//! Names with rules: checked once, when they are parsed, and trusted after.
//!
//! Every one of these becomes part of a path, so the rules are also what keeps
//! a buildpack from naming a directory that is not its own.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes, of what is not named by a file of its buildpack.
const MAX_NAME_BYTES: usize = 128;
/// Longest name of a layer, in bytes: that of its file is one, with `.toml` behind it.
const MAX_LAYER_NAME_BYTES: usize = 250;

/// A name that breaks the rules of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{value}` is not valid: {rule}")]
pub struct InvalidName {
    /// What the name is for, such as `buildpack id`.
    pub kind: &'static str,
    /// The name, with control characters escaped.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// Declares a checked name: a newtype over `String` that parses, prints and
/// serialises as the string it holds.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $longest:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(value: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> Option<&'static str> = $check;
                match common_rule(value, $longest).or_else(|| check(value)) {
                    None => Ok(Self(value.to_owned())),
                    Some(rule) => Err(InvalidName {
                        kind: $kind,
                        value: value.escape_default().to_string(),
                        rule,
                    }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(value: String) -> Result<Self, InvalidName> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

/// What holds for every name, whatever its kind.
fn common_rule(value: &str, longest: usize) -> Option<&'static str> {
    if value.is_empty() {
        Some("it is empty")
    } else if value.len() > longest {
        Some("it is too long")
    } else if value.chars().any(char::is_control) {
        Some("it has control characters")
    } else {
        None
    }
}

fn is_id_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '/' | '-')
}

checked_name! {
    /// A buildpack's ID, such as `acme/node`.
    ///
    /// # Spec
    /// `buildpack.md` 0.12 "Buildpack ID": letters, digits, `.`, `/` and `-`; not
    /// `app`, `config`, `generated` or `sbom`. We also refuse empty, `.` and `..`
    /// segments, because the ID names directories.
    BuildpackId, "buildpack id", MAX_NAME_BYTES, |value| {
        if !value.chars().all(is_id_character) {
            Some("it may have letters, digits, `.`, `/` and `-` only")
        } else if matches!(value.to_ascii_lowercase().as_str(), "app" | "config" | "generated" | "sbom") {
            Some("it is reserved")
        } else if value.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            Some("it has an empty, `.` or `..` segment")
        } else {
            None
        }
    }
}

impl BuildpackId {
    /// The name of this buildpack's directory under `<layers>` and
    /// `<buildpacks>`: the ID with `/` replaced by `_`.
    #[must_use]
    pub fn directory_name(&self) -> String {
        self.0.replace('/', "_")
    }
}

checked_name! {
    /// A buildpack's version. Semantic versions are expected, but published
    /// packages have others, so only what breaks a path is refused.
    BuildpackVersion, "buildpack version", MAX_NAME_BYTES, |value| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_');
        if !value.chars().all(allowed) {
            Some("it may have letters, digits, `.`, `-`, `+` and `_` only")
        } else if matches!(value, "." | "..") {
            Some("it is not a version")
        } else {
            None
        }
    }
}

checked_name! {
    /// A layer's name.
    ///
    /// # Spec
    /// `buildpack.md` 0.12 "Layers": any file name but `build`, `launch` and
    /// `store`, whose `.toml` files are something else.
    LayerName, "layer name", MAX_LAYER_NAME_BYTES, |value| {
        if value.contains('/') || value.contains('\\') {
            Some("it has a path separator")
        } else if matches!(value, "." | "..") {
            Some("it is not a file name")
        } else if matches!(value, "build" | "launch" | "store") {
            Some("it is reserved")
        } else {
            None
        }
    }
}

checked_name! {
    /// The type of a process, such as `web`.
    ///
    /// # Spec
    /// LCH-06: what any published buildpack could use, for it becomes a file name;
    /// [`ProcessType::plain`] is what the specification asks for.
    ProcessType, "process type", MAX_NAME_BYTES, |value| {
        if value.contains(['/', '>', '<', ':', '\\', '|', '&']) {
            Some("it has one of `/`, `>`, `<`, `:`, `\\`, `|` and `&`")
        } else if matches!(value, "." | "..") {
            Some("it is not a file name")
        } else {
            None
        }
    }
}

impl ProcessType {
    /// The type `value`, if it keeps to what the specification asks of new buildpacks.
    ///
    /// # Spec
    /// `buildpack.md` 0.12 "launch.toml".
    ///
    /// # Errors
    /// When it has another character than letters, digits, `.`, `_` and `-`, or is no type at all.
    pub fn plain(value: &str) -> Result<Self, InvalidName> {
        if value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
            return value.parse();
        }
        Err(InvalidName {
            kind: "process type",
            value: value.escape_default().to_string(),
            rule: "it may have letters, digits, `.`, `_` and `-` only",
        })
    }
}

checked_name! {
    /// An execution environment, such as `production`.
    ///
    /// # Spec
    /// `buildpack.md` 0.12 "Execution environments": letters, digits, `.` and
    /// `-`; `*` stands for all of them in lists.
    ExecEnv, "execution environment", MAX_NAME_BYTES, |value| {
        if value == "*" || value.chars().all(is_id_character) && !value.contains('/') {
            None
        } else {
            Some("it may have letters, digits, `.` and `-` only")
        }
    }
}

impl ExecEnv {
    /// Whether it is in a list of execution environments; an empty one has all.
    #[must_use]
    pub fn is_among(&self, list: &[Self]) -> bool {
        list.is_empty() || list.iter().any(|listed| listed == self || listed.as_str() == "*")
    }
}

impl Default for ExecEnv {
    /// `production`, as the specification has it.
    fn default() -> Self {
        Self("production".to_owned())
    }
}

/// A buildpack, exactly: what groups, labels and messages call it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BuildpackRef {
    /// Its ID.
    pub id: BuildpackId,
    /// Its version.
    pub version: BuildpackVersion,
}

impl fmt::Display for BuildpackRef {
    /// `acme/node@1.2.0`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.id, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BPT-02, LYR-02: (I6) ids, layer names and process types as paths.
    #[test]
    fn i6_names_that_would_leave_their_directory_are_refused() {
        for value in [
            "", ".", "..", "../x", "a/../b", "/a", "a/", "a//b", "sbom", "SBOM", "a b", "a\0b", "a_b", "a\nb",
        ] {
            assert!(value.parse::<BuildpackId>().is_err(), "id {value:?}");
        }
        for value in ["", ".", "..", "a/b", "a\\b", "build", "launch", "store", "a\nb", &"x".repeat(251)] {
            assert!(value.parse::<LayerName>().is_err(), "layer {value:?}");
        }
        for value in ["", ".", "..", "a/b", "a\\b", "a\u{7f}"] {
            assert!(value.parse::<ProcessType>().is_err(), "process {value:?}");
        }
        for value in ["", "..", "1/2", "1 2"] {
            assert!(value.parse::<BuildpackVersion>().is_err(), "version {value:?}");
        }
    }

    /// BPT-02, LYR-02
    #[test]
    fn names_of_published_buildpacks_are_accepted() {
        let id: BuildpackId = "paketo-buildpacks/node.js".parse().unwrap();
        assert_eq!(id.directory_name(), "paketo-buildpacks_node.js");
        for value in ["web", "rails-console", "a.b_c"] {
            value.parse::<ProcessType>().unwrap();
        }
        // `.toml` has to fit behind a layer's name.
        for value in ["node modules", "größe", "v1.2", "Launch", "builder", &"x".repeat(250)] {
            value.parse::<LayerName>().unwrap();
        }
    }
}
