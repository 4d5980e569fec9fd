//! The registries that the packages of a lock file came from.
//!
//! Reads one thing of it, without keeping the rest, and judges nothing: a lock
//! file that is wrong in other ways is for the buildpack to refuse.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Read as _};
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::super::files::{self, Links};

const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// More registries than this are not counted; nobody has as many.
const MAX_ORIGINS: usize = 64;

/// How many packages come from each registry, as a whole and by scope.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<(Option<String>, String), usize>);

impl Origins {
    /// The registry that most packages come from; of equals the first by name.
    pub(super) fn most_frequent(&self, scope: Option<&str>) -> Option<&str> {
        let of_scope = self.0.iter().filter(|((of, _), _)| of.as_deref() == scope);
        let first = of_scope.rev().max_by_key(|(_, count)| **count)?;
        Some(&first.0.1)
    }

    fn count(&mut self, scope: Option<&str>, origin: &str) {
        let key = (scope.map(str::to_owned), origin.to_owned());
        if self.0.len() < MAX_ORIGINS || self.0.contains_key(&key) {
            *self.0.entry(key).or_default() += 1;
        }
    }
}

/// Reads a lock file; `None` when there is none.
pub(super) fn origins(path: &Path) -> io::Result<Option<Origins>> {
    let Some(file) = files::open(path, Links::Refuse)? else { return Ok(None) };
    if file.metadata()?.len() > MAX_BYTES {
        return Err(io::Error::other("it is larger than 64 MiB"));
    }
    let lock: Lock = serde_json::from_reader(BufReader::new(file.take(MAX_BYTES)))?;
    Ok(Some(lock.packages.0))
}

/// The base and the scope of a registry's tarball: `<base>/<name>/-/<file>.tgz`.
fn split(resolved: &str) -> Option<(String, Option<String>)> {
    let address = resolved.split('#').next()?;
    let (left, file) = address.split_once("/-/")?;
    if file.strip_suffix(".tgz").is_none() || address.contains('?') || !left.starts_with("https://") {
        return None;
    }
    let (rest, last) = left.rsplit_once('/')?;
    let lower = last.to_ascii_lowercase();
    let (base, scope) = if let Some((scope, _)) = lower.split_once("%2f") {
        (rest, Some(scope.replace("%40", "@")))
    } else {
        match rest.rsplit_once('/') {
            Some((base, scope))
                if scope.starts_with('@') || scope.to_ascii_lowercase().starts_with("%40") =>
            {
                (base, Some(scope.to_ascii_lowercase().replace("%40", "@")))
            }
            _ => (rest, None),
        }
    };
    base.strip_prefix("https://").filter(|host| !host.is_empty())?;
    Some((format!("{base}/"), scope.filter(|scope| scope.starts_with('@'))))
}

/// # Shape
/// ```json
/// { "packages": { "node_modules/a": { "resolved": "https://…/a/-/a-1.0.0.tgz", "integrity": "sha512-…" } } }
/// ```
#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    packages: Packages,
}

#[derive(Default)]
struct Packages(Origins);

#[derive(Deserialize)]
struct Package {
    #[serde(default)]
    resolved: Text,
    #[serde(default)]
    integrity: Text,
}

/// Text, or anything else, which is nothing.
#[derive(Default)]
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Text(String),
            Other(IgnoredAny),
        }
        Ok(Self(match Any::deserialize(deserializer)? {
            Any::Text(text) => Some(text),
            Any::Other(IgnoredAny) => None,
        }))
    }
}

impl<'de> Deserialize<'de> for Packages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Packages;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("packages by their path")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Packages, A::Error> {
                let mut origins = Origins::default();
                while let Some((IgnoredAny, package)) = map.next_entry::<IgnoredAny, Package>()? {
                    // Without an integrity value it would not be fetched from there.
                    if package.integrity.0.is_none() {
                        continue;
                    }
                    if let Some((base, scope)) = package.resolved.0.as_deref().and_then(split) {
                        origins.count(None, &base);
                        if scope.is_some() {
                            origins.count(scope.as_deref(), &base);
                        }
                    }
                }
                Ok(Packages(origins))
            }
        }
        deserializer.deserialize_map(Count)
    }
}
