//! `[registries.*]`: how registries are reached.
//!
//! Knows how it is written and which of two files wins. Who signs in to registries is not
//! in a policy: that is found where the user's other tools keep it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;
use url::Url;

use super::file::Reader;
use super::sources::{absolute_path, base, list, many, named_key, quoted, quoted_path};
use super::{Origin, Origins, Policy, PolicyError};
use crate::network::{RegistrySettings, has_userinfo};
use crate::oci::reference::Reference;
use crate::toml_text::TomlError;

/// One registry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistryPolicy {
    /// Bases that are asked before the registry when something is fetched.
    pub mirrors: Vec<Url>,
    /// Whether it may be spoken to without TLS where it has none.
    pub insecure: bool,
    /// Hosts that may give tokens for it, beside itself.
    pub realms: Vec<String>,
    /// PEM files of authorities that are trusted for this registry, too.
    pub ca: Vec<PathBuf>,
}

/// `[registries.NAME]` of one file.
pub(super) struct RegistryTable {
    policy: RegistryPolicy,
    /// Of its name.
    line: usize,
    lines: Vec<(&'static str, usize)>,
}

const KEYS: [&str; 4] = ["ca", "insecure", "mirrors", "realms"];

impl Policy {
    /// Lays one file's registries over those of earlier ones. A registry is replaced as a
    /// whole: what one file trusts is not trusted with another file's mirrors.
    pub(super) fn apply_registries(
        &mut self,
        path: &Path,
        registries: BTreeMap<String, RegistryTable>,
        origins: &mut Origins,
    ) -> Result<(), PolicyError> {
        let origin = |line| Origin::File { path: path.to_owned(), line };
        for (name, RegistryTable { policy, line, lines }) in registries {
            let fits = |top: &Self| top.registries.get(&name) == Some(&policy);
            self.check_ceiling(&origin(line), fits, || format!("the registry `{name}`"))?;
            for key in KEYS {
                let line = lines.iter().find(|(known, _)| *known == key).map_or(line, |(_, line)| *line);
                origins.set(registry_key(&name, key), &origin(line));
            }
            origins.set(registry_key(&name, ""), &origin(line));
            self.registries.insert(name, policy);
        }
        Ok(())
    }

    /// Registries by name, as those take them who ask them.
    pub fn registry_settings(&self, origins: &Origins) -> BTreeMap<String, RegistrySettings> {
        let settings = |(name, policy): (&String, &RegistryPolicy)| {
            let RegistryPolicy { mirrors, insecure, realms, ca } = policy.clone();
            let set_by = origins.of(&registry_key(name, "")).to_string();
            (name.clone(), RegistrySettings { mirrors, insecure, realms, ca, set_by })
        };
        self.registries.iter().map(settings).collect()
    }
}

impl RegistryPolicy {
    /// Keys and values as they stand in TOML.
    pub(super) fn settings(&self, name: &str) -> Vec<(String, String)> {
        let mut settings = vec![("insecure", self.insecure.to_string())];
        if !self.mirrors.is_empty() {
            settings.push(("mirrors", list(self.mirrors.iter().map(|url| quoted(url.as_str())))));
        }
        if !self.realms.is_empty() {
            settings.push(("realms", list(self.realms.iter().map(|realm| quoted(realm)))));
        }
        if !self.ca.is_empty() {
            settings.push(("ca", list(self.ca.iter().map(|path| quoted_path(path)))));
        }
        settings.into_iter().map(|(key, value)| (registry_key(name, key), value)).collect()
    }
}

/// `registries."registry.example:5000".mirrors`.
fn registry_key(name: &str, key: &str) -> String {
    named_key("registries", name, key)
}

/// Reads `[registries]`.
pub(super) fn parse<'a>(
    reader: &Reader<'a>,
    value: &Spanned<DeValue<'a>>,
) -> Result<BTreeMap<String, RegistryTable>, TomlError> {
    let table = value
        .get_ref()
        .as_table()
        .ok_or_else(|| reader.error(&value.span(), "this is written `[registries.\"NAME\"]`"))?;
    let mut registries = BTreeMap::new();
    for (key, value) in table {
        let Some(name) = registry_name(key.get_ref()) else {
            let message = "this is not the name of a registry, such as `registry.example:5000`";
            return Err(reader.error(&key.span(), message));
        };
        let line = reader.at(&key.span(), ()).line;
        if registries.insert(name, RegistryTable::parse(reader, value, line)?).is_some() {
            return Err(reader.error(&key.span(), "this registry is there twice"));
        }
    }
    Ok(registries)
}

/// The name that completed names of images have (`index.docker.io` for `docker.io`).
fn registry_name(text: &str) -> Option<String> {
    let inside: Reference = format!("{text}/folder/image").parse().ok()?;
    // Without a dot, a colon or `localhost` it is taken for a folder of the usual registry.
    (inside.repository() == "folder/image").then(|| inside.registry().to_owned())
}

impl RegistryTable {
    fn parse<'a>(reader: &Reader<'a>, value: &Spanned<DeValue<'a>>, line: usize) -> Result<Self, TomlError> {
        let table = reader.table(value, &KEYS)?;
        let flag = |value: &Spanned<DeValue<'a>>| {
            let flag = value.get_ref().as_bool();
            flag.ok_or_else(|| reader.error(&value.span(), "this has to be `true` or `false`"))
        };
        let policy = RegistryPolicy {
            mirrors: table.get("mirrors").map_or(Ok(Vec::new()), |value| many(reader, value, mirror))?,
            insecure: table.get("insecure").map_or(Ok(false), flag)?,
            realms: table.get("realms").map_or(Ok(Vec::new()), |value| many(reader, value, realm))?,
            ca: table.get("ca").map_or(Ok(Vec::new()), |value| many(reader, value, absolute_path))?,
        };
        let line_of = |key| Some((key, reader.at(&table.get(key)?.span(), ()).line));
        Ok(Self { policy, line, lines: KEYS.into_iter().filter_map(line_of).collect() })
    }
}

/// A mirror is signed in to like any registry, under its own name.
fn mirror(reader: &Reader<'_>, value: &Spanned<DeValue<'_>>) -> Result<Url, TomlError> {
    let text = reader.text(value)?;
    if Url::parse(text).is_ok_and(|url| has_userinfo(&url)) {
        let message = "a user or password is not written here; sign in to the mirror with `docker login`";
        return Err(reader.error(&value.span(), message));
    }
    base(reader, value)
}

/// A host, with its port unless that is the usual one.
fn realm(reader: &Reader<'_>, value: &Spanned<DeValue<'_>>) -> Result<String, TomlError> {
    let text = reader.text(value)?;
    let url = Url::parse(&format!("https://{text}/")).ok().filter(|url| {
        url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !has_userinfo(url)
    });
    let host = url.as_ref().and_then(|url| Some((url.host_str()?, url.port())));
    // Whatever the parser forgave or escaped is not a name that a person would know again.
    let is_plain = |host: &str| text.to_ascii_lowercase().starts_with(host);
    match host {
        Some((host, None)) if is_plain(host) => Ok(host.to_owned()),
        Some((host, Some(port))) if is_plain(host) => Ok(format!("{host}:{port}")),
        _ => Err(reader
            .error(&value.span(), "this has to be a host, such as `auth.example` or `auth.example:8443`")),
    }
}
