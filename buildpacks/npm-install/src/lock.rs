//! The format of `package-lock.json` and `npm-shrinkwrap.json`, versions 2 and
//! 3, as borrowed data. Knows nothing of trees, files or platforms.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Text of the lock, borrowed where it has no escapes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Text that lives by itself.
    pub fn owned(text: impl Into<String>) -> Self {
        Self(Cow::Owned(text.into()))
    }
}

impl std::borrow::Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Names of packages, and which versions of them are asked for.
pub type Dependencies<'a> = BTreeMap<Text<'a>, Text<'a>>;

/// What the lock says about the package at one place. The same fields with the
/// same meaning as in the package's own `package.json`, where it has them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "the format has them")]
pub struct Entry<'a> {
    /// The package's name, where it is not the one of its directory.
    #[serde(borrow)]
    pub name: Option<Text<'a>>,
    /// Its version; a directory of the app may have none.
    #[serde(borrow)]
    pub version: Option<Text<'a>>,
    /// Where it came from; of a link, where it leads.
    #[serde(borrow)]
    pub resolved: Option<Text<'a>>,
    /// Hashes of its archive.
    #[serde(borrow)]
    pub integrity: Option<Text<'a>>,
    /// Whether it is a link to another place of the same lock.
    pub link: bool,
    /// Whether it came inside the archive of another package.
    pub in_bundle: bool,
    /// Whether it brings an `npm-shrinkwrap.json`.
    pub has_shrinkwrap: bool,
    /// Whether it runs something when it is installed.
    pub has_install_script: bool,
    /// What it needs.
    #[serde(borrow)]
    pub dependencies: Dependencies<'a>,
    /// What its authors need. Matters for packages of the app only.
    #[serde(borrow)]
    pub dev_dependencies: Dependencies<'a>,
    /// What it can do without.
    #[serde(borrow)]
    pub optional_dependencies: Dependencies<'a>,
    /// What has to stand beside it.
    #[serde(borrow)]
    pub peer_dependencies: Dependencies<'a>,
    /// More about `peer_dependencies`.
    pub peer_dependencies_meta: Map<String, Value>,
    /// Versions that are good enough.
    pub accept_dependencies: Map<String, Value>,
    /// What its archive has in `node_modules`.
    pub bundle_dependencies: Value,
    /// Programs, by name.
    pub bin: Value,
    /// Versions of Node and npm that it is for.
    pub engines: Value,
    /// Operating systems that it is for.
    #[serde(deserialize_with = "one_or_many")]
    pub os: Option<Vec<String>>,
    /// Processors that it is for.
    #[serde(deserialize_with = "one_or_many")]
    pub cpu: Option<Vec<String>>,
    /// C libraries that it is for.
    #[serde(deserialize_with = "one_or_many")]
    pub libc: Option<Vec<String>>,
    /// Its licence: text, or an object in old packages.
    pub license: Value,
    /// Where to send money.
    pub funding: Value,
    /// Why not to use it any more.
    pub deprecated: Value,
    /// Where the packages of a workspace are.
    pub workspaces: Value,
}

/// A lock of a version that we read.
#[derive(Debug)]
pub struct Lock<'a> {
    /// The name that the app had when the lock was written.
    pub name: Option<Text<'a>>,
    /// The version that it had.
    pub version: Option<Text<'a>>,
    /// What is at each place, in the order of the file. The place is a path
    /// relative to the lock; the empty one is the app itself.
    pub packages: Vec<(Text<'a>, Entry<'a>)>,
}

/// Why a lock cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum LockError {
    /// Not JSON, or JSON of another form; the reader's own words.
    Unreadable(String),
    /// An older or a newer version of the format.
    Version(u64),
}

impl<'a> Lock<'a> {
    /// Reads the text of a lock.
    ///
    /// # Errors
    /// When it is no lock of version 2 or 3.
    pub fn parse(text: &'a str) -> Result<Self, LockError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct File<'a> {
            #[serde(borrow)]
            name: Option<Text<'a>>,
            #[serde(borrow)]
            version: Option<Text<'a>>,
            lockfile_version: Option<u64>,
            #[serde(borrow)]
            packages: Option<Ordered<'a>>,
        }

        let file: File<'a> =
            serde_json::from_str(text).map_err(|error| LockError::Unreadable(error.to_string()))?;
        match (file.lockfile_version.unwrap_or(1), file.packages) {
            (2 | 3, Some(packages)) => {
                Ok(Self { name: file.name, version: file.version, packages: packages.0 })
            }
            (version, None) if version >= 2 => Err(LockError::Unreadable("it has no `packages`".to_owned())),
            (version, _) => Err(LockError::Version(version)),
        }
    }

    /// What the lock says about the app itself.
    pub fn root(&self) -> Option<&Entry<'a>> {
        self.packages.iter().find(|(place, _)| place.as_str().is_empty()).map(|(_, entry)| entry)
    }
}

/// An object whose order counts.
struct Ordered<'a>(Vec<(Text<'a>, Entry<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Ordered<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<'a>(std::marker::PhantomData<&'a ()>);

        impl<'de: 'a, 'a> serde::de::Visitor<'de> for Visitor<'a> {
            type Value = Ordered<'a>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of packages")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut packages = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    packages.push(entry);
                }
                Ok(Ordered(packages))
            }
        }

        deserializer.deserialize_map(Visitor(std::marker::PhantomData))
    }
}

/// `"linux"` and `["linux"]` mean the same.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(one) => Ok(Some(vec![one])),
        Value::Array(many) => Ok(Some(
            many.into_iter()
                .filter_map(|one| if let Value::String(one) = one { Some(one) } else { None })
                .collect(),
        )),
        _ => Err(D::Error::custom("neither text nor a list of texts")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_2_and_3_are_read_in_their_order() {
        let text = r#"{"lockfileVersion":3,"packages":{"":{"name":"app"},"node_modules/b":{"os":"linux"},
            "node_modules/a":{"version":"1.0.0","os":["linux"],"dependencies":{"b":"^1"}}}}"#;
        let lock = Lock::parse(text).unwrap();
        let places: Vec<&str> = lock.packages.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, ["", "node_modules/b", "node_modules/a"]);
        assert_eq!(lock.packages[1].1.os, lock.packages[2].1.os);
        assert_eq!(lock.packages[2].1.dependencies["b"].as_str(), "^1");
        // Borrowed: no copy of what has no escapes.
        assert!(matches!(lock.packages[2].1.version, Some(Text(Cow::Borrowed("1.0.0")))));
    }

    #[test]
    fn other_versions_and_other_files_are_told_apart() {
        let version = |text| Lock::parse(text).map(|_| ()).unwrap_err();
        assert_eq!(version(r#"{"lockfileVersion":1,"dependencies":{}}"#), LockError::Version(1));
        assert_eq!(version(r#"{"requires":true}"#), LockError::Version(1));
        assert_eq!(version(r#"{"lockfileVersion":4,"packages":{}}"#), LockError::Version(4));
        assert!(matches!(version("<<<<<<< HEAD"), LockError::Unreadable(_)));
        assert!(matches!(version(r#"{"lockfileVersion":3}"#), LockError::Unreadable(_)));
    }
}
