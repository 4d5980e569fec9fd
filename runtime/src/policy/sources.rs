//! `[sources.*]` and `[network]`: where downloads come from.
//!
//! Knows how they are written and which of two files wins. There is never a
//! secret in a policy: it says which file or variable holds one, and whoever
//! uses it looks there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::file::{At, Reader};
use super::{Origin, Origins, Policy, PolicyError};
use crate::grant;
use crate::network::{SourcePlace, has_userinfo, parse_base, parse_proxy};
use crate::toml_text::TomlError;

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePolicy {
    pub place: SourcePlace,
    /// Asked in this order when `place` does not answer.
    pub mirrors: Vec<Url>,
    pub sign_in: Option<SignIn>,
    /// PEM files of authorities that are trusted for this source, too.
    pub ca: Vec<PathBuf>,
}

/// How to sign in to a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignIn {
    Token(SecretPlace),
    Password { user: String, password: SecretPlace },
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// The first line of a file.
    File(PathBuf),
    /// The value of a variable of whoever runs the build.
    Variable(String),
}

/// What holds for the network as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    pub http_proxy: Option<Url>,
    pub https_proxy: Option<Url>,
    /// As `NO_PROXY` writes it.
    pub no_proxy: Option<String>,
    /// PEM files of authorities that are trusted beside the system's.
    pub ca: Vec<PathBuf>,
    pub offline: bool,
    /// Whether the app's own files may say where a source is when nothing else does.
    pub origins_from_lock_files: bool,
}

impl Default for NetworkPolicy {
    /// For a single user's own builds.
    fn default() -> Self {
        Self {
            http_proxy: None,
            https_proxy: None,
            no_proxy: None,
            ca: Vec::new(),
            offline: false,
            origins_from_lock_files: true,
        }
    }
}

/// `[sources.NAME]` of one file.
pub(super) struct SourceTable {
    policy: SourcePolicy,
    /// Of its `url` or `directory`.
    line: usize,
    lines: Vec<(&'static str, usize)>,
}

/// `[network]` of one file.
#[derive(Default)]
pub(super) struct NetworkTable {
    http_proxy: Option<At<Url>>,
    https_proxy: Option<At<Url>>,
    no_proxy: Option<At<String>>,
    ca: Option<At<Vec<PathBuf>>>,
    offline: Option<At<bool>>,
    origins_from_lock_files: Option<At<bool>>,
}

impl Policy {
    /// Lays one file's sources over those of earlier ones. A source is replaced as
    /// a whole: one file's token never goes to another file's address.
    pub(super) fn apply_sources(
        &mut self,
        path: &Path,
        sources: BTreeMap<String, SourceTable>,
        origins: &mut Origins,
    ) -> Result<(), PolicyError> {
        let origin = |line| Origin::File { path: path.to_owned(), line };
        for (name, SourceTable { policy, line, lines }) in sources {
            self.put_source(name.clone(), policy, &origin(line), origins)?;
            for (key, line) in lines {
                origins.set(source_key(&name, key), &origin(line));
            }
        }
        Ok(())
    }

    fn put_source(
        &mut self,
        name: String,
        policy: SourcePolicy,
        origin: &Origin,
        origins: &mut Origins,
    ) -> Result<(), PolicyError> {
        let fits = |top: &Self| top.sources.get(&name) == Some(&policy);
        self.check_ceiling(origin, fits, || format!("the source `{name}`"))?;
        origins.set(source_key(&name, policy.place_key()), origin);
        self.sources.insert(name, policy);
        Ok(())
    }

    /// Lays one file's `[network]` over what earlier ones said.
    pub(super) fn apply_network(
        &mut self,
        path: &Path,
        table: NetworkTable,
        origins: &mut Origins,
    ) -> Result<(), PolicyError> {
        let origin = |line| Origin::File { path: path.to_owned(), line };
        let mut check = |this: &Self, key: &str, line, fits: &dyn Fn(&NetworkPolicy) -> bool| {
            this.check_ceiling(&origin(line), |top| fits(&top.network), || format!("`{key}`"))?;
            origins.set(format!("network.{key}"), &origin(line));
            Ok(())
        };
        if let Some(At { value, line }) = table.http_proxy {
            check(self, "http-proxy", line, &|top| top.http_proxy.as_ref() == Some(&value))?;
            self.network.http_proxy = Some(value);
        }
        if let Some(At { value, line }) = table.https_proxy {
            check(self, "https-proxy", line, &|top| top.https_proxy.as_ref() == Some(&value))?;
            self.network.https_proxy = Some(value);
        }
        if let Some(At { value, line }) = table.no_proxy {
            check(self, "no-proxy", line, &|top| top.no_proxy.as_ref() == Some(&value))?;
            self.network.no_proxy = Some(value);
        }
        if let Some(At { value, line }) = table.ca {
            check(self, "ca", line, &|top| value.iter().all(|file| top.ca.contains(file)))?;
            self.network.ca = value;
        }
        if let Some(At { value, line }) = table.offline {
            check(self, "offline", line, &|top| value || !top.offline)?;
            self.network.offline = value;
        }
        if let Some(At { value, line }) = table.origins_from_lock_files {
            check(self, "origins-from-lock-files", line, &|top| !value || top.origins_from_lock_files)?;
            self.network.origins_from_lock_files = value;
        }
        Ok(())
    }

    /// Sets a source by `--source`, instead of what files say of it.
    ///
    /// # Errors
    /// [`PolicyError::Ceiling`] when there is a system's file that does not say the same.
    pub fn source_by_flag(
        &mut self,
        name: &str,
        place: SourcePlace,
        origins: &mut Origins,
    ) -> Result<(), PolicyError> {
        let policy = SourcePolicy { place, mirrors: Vec::new(), sign_in: None, ca: Vec::new() };
        self.put_source(name.to_owned(), policy, &Origin::Flag, origins)
    }

    /// Uses no network, by `--offline`. It takes something away, so no ceiling is asked.
    pub fn offline_by_flag(&mut self, origins: &mut Origins) {
        if !self.network.offline {
            self.network.offline = true;
            origins.set("network.offline", &Origin::Flag);
        }
    }

    /// Where the address of a source comes from.
    pub fn source_origin(&self, name: &str, origins: &Origins) -> Origin {
        self.sources
            .get(name)
            .map_or(Origin::Default, |source| origins.of(&source_key(name, source.place_key())))
    }
}

impl SourcePolicy {
    fn place_key(&self) -> &'static str {
        match self.place {
            SourcePlace::Directory(_) => "directory",
            SourcePlace::Base(_) => "url",
        }
    }

    /// Keys and values as they stand in TOML.
    pub(super) fn settings(&self, name: &str) -> Vec<(String, String)> {
        let place = match &self.place {
            SourcePlace::Directory(path) => quoted_path(path),
            SourcePlace::Base(url) => quoted(url.as_str()),
        };
        let mut settings = vec![(self.place_key(), place)];
        if !self.mirrors.is_empty() {
            settings.push(("mirrors", list(self.mirrors.iter().map(|url| quoted(url.as_str())))));
        }
        let mut secret = |file, variable, place: &SecretPlace| match place {
            SecretPlace::File(path) => settings.push((file, quoted_path(path))),
            SecretPlace::Variable(name) => settings.push((variable, quoted(name))),
        };
        match &self.sign_in {
            None => {}
            Some(SignIn::Token(place)) => secret("token-file", "token-env", place),
            Some(SignIn::Password { user, password }) => {
                secret("password-file", "password-env", password);
                settings.push(("user", quoted(user)));
            }
        }
        if !self.ca.is_empty() {
            settings.push(("ca", list(self.ca.iter().map(|path| quoted_path(path)))));
        }
        settings.into_iter().map(|(key, value)| (source_key(name, key), value)).collect()
    }
}

impl NetworkPolicy {
    /// Keys and values as they stand in TOML.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let mut settings = vec![
            ("offline", self.offline.to_string()),
            ("origins-from-lock-files", self.origins_from_lock_files.to_string()),
        ];
        let proxies = [("http-proxy", &self.http_proxy), ("https-proxy", &self.https_proxy)];
        settings
            .extend(proxies.into_iter().filter_map(|(key, url)| Some((key, quoted(url.as_ref()?.as_str())))));
        settings.extend(self.no_proxy.iter().map(|hosts| ("no-proxy", quoted(hosts))));
        if !self.ca.is_empty() {
            settings.push(("ca", list(self.ca.iter().map(|path| quoted_path(path)))));
        }
        settings.into_iter().map(|(key, value)| (format!("network.{key}"), value)).collect()
    }
}

/// `sources.npm.url`, or `sources."npm:@acme".url`.
pub fn source_key(name: &str, key: &str) -> String {
    named_key("sources", name, key)
}

/// The key of one thing in a table of tables.
pub(super) fn named_key(table: &str, name: &str, key: &str) -> String {
    let is_bare = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
    if is_bare { format!("{table}.{name}.{key}") } else { format!("{table}.\"{name}\".{key}") }
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

pub(super) fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// What a source may say, …
const SOURCE_KEYS: [&str; 9] =
    ["directory", "url", "mirrors", "ca", "user", "password-file", "password-env", "token-file", "token-env"];
/// … as far as it is about a server.
const SERVER_KEYS: &[&str] = SOURCE_KEYS.split_at(2).1;
const NETWORK_KEYS: [&str; 7] =
    ["ca", "http-proxy", "https-proxy", "no-proxy", "offline", "origins-from-lock-files", "proxy"];

impl SourceTable {
    pub(super) fn parse<'a>(
        reader: &Reader<'a>,
        name: &Spanned<impl AsRef<str>>,
        value: &Spanned<DeValue<'a>>,
    ) -> Result<Self, TomlError> {
        if !grant::is_source_name(name.get_ref().as_ref()) {
            return Err(reader.error(&name.span(), "this is not the name of a source"));
        }
        if let Some(table) = value.get_ref().as_table() {
            refuse_secrets(reader, table)?;
        }
        let table = reader.table(value, &SOURCE_KEYS)?;
        let (place_value, place) = match (table.get("url"), table.get("directory")) {
            (Some(url), None) => (url, SourcePlace::Base(base(reader, url)?)),
            (None, Some(directory)) => (directory, SourcePlace::Directory(absolute_path(reader, directory)?)),
            (None, None) => return Err(reader.error(&value.span(), "it needs `url` or `directory`")),
            (Some(_), Some(directory)) => {
                return Err(reader.error(&directory.span(), "`url` and `directory` are two places"));
            }
        };
        let policy = SourcePolicy {
            place,
            mirrors: match table.get("mirrors") {
                None => Vec::new(),
                Some(mirrors) => many(reader, mirrors, base)?,
            },
            sign_in: sign_in(reader, table)?,
            ca: table.get("ca").map_or(Ok(Vec::new()), |ca| many(reader, ca, absolute_path))?,
        };
        if let SourcePlace::Directory(_) = policy.place
            && let Some(value) = SERVER_KEYS.iter().find_map(|key| table.get(*key))
        {
            return Err(reader.error(&value.span(), "this goes with `url`, not with `directory`"));
        }
        let line = |value: &Spanned<DeValue<'a>>| reader.at(&value.span(), ()).line;
        let lines = SOURCE_KEYS.into_iter().filter_map(|key| Some((key, line(table.get(key)?)))).collect();
        Ok(Self { policy, line: line(place_value), lines })
    }
}

impl NetworkTable {
    pub(super) fn parse<'a>(reader: &Reader<'a>, value: &Spanned<DeValue<'a>>) -> Result<Self, TomlError> {
        let table = reader.table(value, &NETWORK_KEYS)?;
        let proxy_of = |key| {
            let value = table.get(key).or_else(|| table.get("proxy"));
            value.map(|value| Ok(reader.at(&value.span(), proxy(reader, value)?))).transpose()
        };
        let flag = |key| {
            let value = table.get(key);
            let read = |value: &Spanned<DeValue<'a>>| match value.get_ref().as_bool() {
                Some(flag) => Ok(reader.at(&value.span(), flag)),
                None => Err(reader.error(&value.span(), "this has to be `true` or `false`")),
            };
            value.map(read).transpose()
        };
        let text =
            |value: &Spanned<DeValue<'a>>| Ok(reader.at(&value.span(), reader.text(value)?.to_owned()));
        let files =
            |value: &Spanned<DeValue<'a>>| Ok(reader.at(&value.span(), many(reader, value, absolute_path)?));
        Ok(Self {
            http_proxy: proxy_of("http-proxy")?,
            https_proxy: proxy_of("https-proxy")?,
            no_proxy: table.get("no-proxy").map(text).transpose()?,
            ca: table.get("ca").map(files).transpose()?,
            offline: flag("offline")?,
            origins_from_lock_files: flag("origins-from-lock-files")?,
        })
    }
}

/// Policies are shown to people and kept in repositories; secrets are elsewhere.
fn refuse_secrets(reader: &Reader<'_>, table: &DeTable<'_>) -> Result<(), TomlError> {
    for (key, message) in [
        ("token", "a token is not written here; name what holds it with `token-file` or `token-env`"),
        (
            "password",
            "a password is not written here; name what holds it with `password-file` or `password-env`",
        ),
    ] {
        if let Some((key, _)) = table.get_key_value(key) {
            return Err(reader.error(&key.span(), message));
        }
    }
    Ok(())
}

fn sign_in(reader: &Reader<'_>, table: &DeTable<'_>) -> Result<Option<SignIn>, TomlError> {
    let secret = |file, variable| match (table.get(file), table.get(variable)) {
        (None, None) => Ok(None),
        (Some(path), None) => Ok(Some((path, SecretPlace::File(absolute_path(reader, path)?)))),
        (None, Some(name)) => {
            let text = reader.text(name)?;
            if text.is_empty() || text.contains(['=', '\0']) {
                return Err(reader.error(&name.span(), "this is not the name of a variable"));
            }
            Ok(Some((name, SecretPlace::Variable(text.to_owned()))))
        }
        (Some(_), Some(name)) => {
            Err(reader.error(&name.span(), format!("`{file}` and `{variable}` are two places of one secret")))
        }
    };
    let token = secret("token-file", "token-env")?;
    let password = secret("password-file", "password-env")?;
    match (token, table.get("user"), password) {
        (None, None, None) => Ok(None),
        (Some((_, token)), None, None) => Ok(Some(SignIn::Token(token))),
        (None, Some(user), Some((_, password))) => {
            let text = reader.text(user)?;
            if text.contains(':') {
                return Err(reader.error(&user.span(), "the name of a user has no `:`"));
            }
            Ok(Some(SignIn::Password { user: text.to_owned(), password }))
        }
        (None, Some(user), None) => {
            Err(reader.error(&user.span(), "`user` needs `password-file` or `password-env`"))
        }
        (None, None, Some((key, _))) => Err(reader.error(&key.span(), "a password needs `user`")),
        (Some((key, _)), ..) => {
            Err(reader.error(&key.span(), "it is either a token or `user` and a password"))
        }
    }
}

pub(super) fn base(reader: &Reader<'_>, value: &Spanned<DeValue<'_>>) -> Result<Url, TomlError> {
    let (url, credentials) =
        parse_base(reader.text(value)?).map_err(|error| reader.error(&value.span(), error.to_string()))?;
    match credentials {
        None => Ok(url),
        Some(_) => Err(reader.error(
            &value.span(),
            "a user or password is not written here; use `user` with `password-file` or `password-env`",
        )),
    }
}

fn proxy(reader: &Reader<'_>, value: &Spanned<DeValue<'_>>) -> Result<Url, TomlError> {
    let url =
        parse_proxy(reader.text(value)?).map_err(|error| reader.error(&value.span(), error.to_string()))?;
    if has_userinfo(&url) {
        return Err(reader.error(
            &value.span(),
            "a user or password is not written here; set a proxy that asks for one as `HTTPS_PROXY`",
        ));
    }
    Ok(url)
}

pub(super) fn absolute_path(reader: &Reader<'_>, value: &Spanned<DeValue<'_>>) -> Result<PathBuf, TomlError> {
    let path = PathBuf::from(reader.text(value)?);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(reader.error(&value.span(), "this has to be an absolute path"))
    }
}

/// One, or an array of them.
pub(super) fn many<'a, T>(
    reader: &Reader<'a>,
    value: &Spanned<DeValue<'a>>,
    read: impl Fn(&Reader<'a>, &Spanned<DeValue<'a>>) -> Result<T, TomlError>,
) -> Result<Vec<T>, TomlError> {
    match value.get_ref().as_array() {
        Some(array) => array.iter().map(|value| read(reader, value)).collect(),
        None => Ok(vec![read(reader, value)?]),
    }
}
