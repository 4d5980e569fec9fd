//! The operator's policy: limits, grants, isolation and sources, from one
//! documented file in fixed places.
//!
//! Every value knows where it came from, so that a person can be shown. The
//! paths are the caller's: nothing here reads a variable of the environment.
//!
//! # Shape
//! ```toml
//! isolation = "best-effort"          # or "required": refuse to build with less
//!
//! [limits]                           # any field of `Limits`
//! memory_bytes = 536870912
//!
//! [grants]                           # for every buildpack
//! allow = ["app-write", "clock", "random", "source=npm"]
//!
//! [[buildpack]]                      # for one, in addition
//! id = "acme/node"
//! allow = ["source=npm"]
//!
//! [sources.npm]
//! directory = "/srv/mirror/npm"
//! ```
//! Later files win over earlier ones: built-in defaults, the system's file, the
//! user's file, the file of the command line. The system's file is a ceiling:
//! with it, later ones can lower limits and take away grants, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::cnb::id::{BuildpackId, BuildpackRef};
use crate::fault::{Diagnose, Fault};
use crate::grant::{self, AskedGrants, Grant, GrantRefused, Grants};
use crate::limits::Limits;
use crate::toml_text::{self, TomlError, TomlFileError};

/// Where policy files may be; those that are not there are skipped, except `explicit`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyPaths {
    /// `/etc/wapack/policy.toml`
    pub system: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME/wapack/policy.toml`
    pub user: Option<PathBuf>,
    /// `--policy FILE`
    pub explicit: Option<PathBuf>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A line of a policy file.
    File { path: PathBuf, line: usize },
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for Origin {
    /// `default`, `/etc/wapack/policy.toml:3` or `command line`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Flag => formatter.write_str("command line"),
        }
    }
}

/// What to do when the machine offers less isolation than there could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Isolation {
    /// Build with what there is, and say what is missing.
    #[default]
    BestEffort,
    /// Refuse to build.
    Required,
}

impl fmt::Display for Isolation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::BestEffort => "best-effort",
            Self::Required => "required",
        })
    }
}

/// Where the files of a source are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceMirror {
    /// A directory laid out like the source.
    pub directory: PathBuf,
}

/// The policy in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub limits: Limits,
    /// Allowed for every buildpack.
    pub allow: Grants,
    /// Allowed for single ones in addition.
    pub allow_buildpack: BTreeMap<BuildpackId, Grants>,
    pub isolation: Isolation,
    /// By the name of the source.
    pub sources: BTreeMap<String, SourceMirror>,
    /// What nothing after the system's file can go beyond, if there is one.
    pub ceiling: Option<Box<Ceiling>>,
}

/// The system's policy file and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceiling {
    pub path: PathBuf,
    policy: Policy,
}

impl Default for Policy {
    /// For a single user's own builds.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            allow: Grants(BTreeSet::from([Grant::AppWrite])),
            allow_buildpack: BTreeMap::new(),
            isolation: Isolation::default(),
            sources: BTreeMap::new(),
            ceiling: None,
        }
    }
}

/// One value of the policy in force, as `wapack config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Such as `limits.memory_bytes`.
    pub key: String,
    /// As it stands in TOML.
    pub value: String,
    pub origin: Origin,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read or says something that is not understood.
    #[error("cannot use the policy")]
    File(#[source] TomlFileError),
    /// A later file or a flag wants more than the system's file allows.
    #[error("{origin}: {what} is more than `{}` allows", ceiling.display())]
    Ceiling { origin: Origin, what: String, ceiling: PathBuf },
}

impl Diagnose for PolicyError {
    fn id(&self) -> &'static str {
        match self {
            Self::File(_) => "policy.invalid",
            Self::Ceiling { .. } => "policy.ceiling",
        }
    }

    fn fault(&self) -> Fault {
        Fault::Caller
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File(TomlFileError::Io { .. }) => None,
            Self::File(TomlFileError::Invalid { .. }) => {
                Some("`wapack config show` prints every value with its place".into())
            }
            Self::Ceiling { .. } => Some("only the operator of this machine can change that".into()),
        }
    }
}

/// Origins by the key of their setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where the value of `key` came from.
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or(Origin::Default)
    }

    fn set(&mut self, key: impl Into<String>, origin: &Origin) {
        self.0.insert(key.into(), origin.clone());
    }
}

/// A value of one file, with its line.
struct At<T> {
    value: T,
    line: usize,
}

/// What one file says.
#[derive(Default)]
struct PolicyFile {
    limits: BTreeMap<String, At<u64>>,
    allow: Option<At<Vec<At<Grant>>>>,
    buildpacks: BTreeMap<BuildpackId, At<Vec<At<Grant>>>>,
    isolation: Option<At<Isolation>>,
    sources: BTreeMap<String, At<SourceMirror>>,
}

impl Policy {
    /// Reads the policy files that are there.
    ///
    /// # Errors
    /// [`PolicyError`] with file and line.
    pub fn load(paths: &PolicyPaths) -> Result<(Self, Origins), PolicyError> {
        let mut policy = Self::default();
        let mut origins = Origins::default();
        for (path, is_explicit) in [(&paths.system, false), (&paths.user, false), (&paths.explicit, true)] {
            let Some(path) = path else { continue };
            match toml_text::read_with(path, PolicyFile::parse) {
                Ok(file) => policy.apply(path, file, &mut origins)?,
                Err(TomlFileError::Io { source, .. })
                    if !is_explicit && source.kind() == std::io::ErrorKind::NotFound =>
                {
                    continue;
                }
                Err(error) => return Err(PolicyError::File(error)),
            }
            if paths.system.as_ref() == Some(path) {
                policy.ceiling = Some(Box::new(Ceiling { path: path.clone(), policy: policy.clone() }));
            }
        }
        Ok((policy, origins))
    }

    /// Lays one file over what earlier ones said.
    fn apply(&mut self, path: &Path, file: PolicyFile, origins: &mut Origins) -> Result<(), PolicyError> {
        let origin = |line| Origin::File { path: path.to_owned(), line };
        let mut limits = limit_fields(&self.limits);
        for (name, At { value, line }) in file.limits {
            let fits = |top: &Self| limit_fields(&top.limits).get(&name).is_some_and(|top| value <= *top);
            self.check_ceiling(&origin(line), fits, || format!("`{name} = {value}`"))?;
            origins.set(format!("limits.{name}"), &origin(line));
            limits.insert(name, value);
        }
        self.limits = limits_from(&limits);

        if let Some(At { value: grants, line }) = file.allow {
            for At { value: grant, line } in &grants {
                let fits = |top: &Self| top.allow.allows(grant);
                self.check_ceiling(&origin(*line), fits, || format!("the grant `{grant}`"))?;
            }
            origins.set("grants.allow", &origin(line));
            self.allow = Grants(grants.into_iter().map(|at| at.value).collect());
        }
        for (id, At { value: grants, line }) in file.buildpacks {
            for At { value: grant, line } in &grants {
                let fits = |top: &Self| top.allowed(&id).allows(grant);
                self.check_ceiling(&origin(*line), fits, || format!("the grant `{grant}` for `{id}`"))?;
            }
            origins.set(format!("buildpack.{id}.allow"), &origin(line));
            self.allow_buildpack.insert(id, Grants(grants.into_iter().map(|at| at.value).collect()));
        }
        if let Some(At { value, line }) = file.isolation {
            let fits = |top: &Self| value >= top.isolation;
            self.check_ceiling(&origin(line), fits, || format!("`isolation = \"{value}\"`"))?;
            origins.set("isolation", &origin(line));
            self.isolation = value;
        }
        for (name, At { value, line }) in file.sources {
            let fits = |top: &Self| top.sources.get(&name) == Some(&value);
            self.check_ceiling(&origin(line), fits, || format!("the source `{name}`"))?;
            origins.set(format!("sources.{name}.directory"), &origin(line));
            self.sources.insert(name, value);
        }
        Ok(())
    }

    /// Whether a value fits under the ceiling, if there is one.
    fn check_ceiling(
        &self,
        origin: &Origin,
        fits: impl FnOnce(&Self) -> bool,
        what: impl FnOnce() -> String,
    ) -> Result<(), PolicyError> {
        match &self.ceiling {
            Some(ceiling) if !fits(&ceiling.policy) => Err(PolicyError::Ceiling {
                origin: origin.clone(),
                what: what(),
                ceiling: ceiling.path.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Allows what `--grant` names, for every buildpack.
    ///
    /// # Errors
    /// [`PolicyError::Ceiling`] when the system's file does not allow it.
    pub fn allow_by_flag(
        &mut self,
        grants: impl IntoIterator<Item = Grant>,
        origins: &mut Origins,
    ) -> Result<(), PolicyError> {
        for grant in grants {
            if !self.allow.allows(&grant) {
                let fits = |top: &Self| top.allow.allows(&grant);
                self.check_ceiling(&Origin::Flag, fits, || format!("the grant `{grant}`"))?;
                self.allow.0.insert(grant);
                origins.set("grants.allow", &Origin::Flag);
            }
        }
        Ok(())
    }

    /// What one buildpack may be granted.
    pub fn allowed(&self, id: &BuildpackId) -> Grants {
        let mut allowed = self.allow.clone();
        allowed.0.extend(self.allow_buildpack.get(id).into_iter().flat_map(|grants| grants.0.clone()));
        allowed
    }

    /// What a buildpack that asks for `asked` gets.
    ///
    /// # Errors
    /// [`GrantRefused`] with what would allow it.
    pub fn grant(&self, buildpack: &BuildpackRef, asked: &AskedGrants) -> Result<Grants, GrantRefused> {
        let ceiling = self.ceiling.as_ref().map(|ceiling| ceiling.path.display().to_string());
        grant::intersect(buildpack, asked, &self.allowed(&buildpack.id), ceiling.as_deref())
    }

    /// Every value in force with its origin, sorted by key.
    pub fn settings(&self, origins: &Origins) -> Vec<Setting> {
        let list = |grants: &Grants| {
            let names: Vec<String> = grants.0.iter().map(|grant| format!("\"{grant}\"")).collect();
            format!("[{}]", names.join(", "))
        };
        let mut settings = vec![
            ("grants.allow".to_owned(), list(&self.allow)),
            ("isolation".to_owned(), format!("\"{}\"", self.isolation)),
        ];
        for (id, grants) in &self.allow_buildpack {
            settings.push((format!("buildpack.{id}.allow"), list(grants)));
        }
        for (name, value) in limit_fields(&self.limits) {
            settings.push((format!("limits.{name}"), value.to_string()));
        }
        for (name, mirror) in &self.sources {
            let directory = toml::Value::String(mirror.directory.to_string_lossy().into_owned());
            settings.push((format!("sources.{name}.directory"), directory.to_string()));
        }
        settings.sort();
        let setting = |(key, value): (String, String)| Setting { origin: origins.of(&key), key, value };
        settings.into_iter().map(setting).collect()
    }
}

/// The fields of the limits by name.
fn limit_fields(limits: &Limits) -> BTreeMap<String, u64> {
    serde_json::to_value(limits)
        .and_then(serde_json::from_value)
        .expect("invariant: every limit is a number with a name")
}

fn limits_from(fields: &BTreeMap<String, u64>) -> Limits {
    serde_json::to_value(fields)
        .and_then(serde_json::from_value)
        .expect("invariant: the fields came from limits, and unknown ones were refused")
}

/// A part of a policy file with its place.
struct Reader<'a> {
    text: &'a str,
}

impl<'a> Reader<'a> {
    fn error(&self, span: &Range<usize>, message: impl Into<String>) -> TomlError {
        TomlError::at(self.text, span.start, message)
    }

    fn at<T>(&self, span: &Range<usize>, value: T) -> At<T> {
        At { value, line: TomlError::at(self.text, span.start, "").line }
    }

    fn table<'b>(
        &self,
        value: &'b Spanned<DeValue<'a>>,
        known: &[&str],
    ) -> Result<&'b DeTable<'a>, TomlError> {
        let table =
            value.get_ref().as_table().ok_or_else(|| self.error(&value.span(), "this has to be a table"))?;
        self.only(table, known)?;
        Ok(table)
    }

    fn only(&self, table: &DeTable<'a>, known: &[&str]) -> Result<(), TomlError> {
        match table.keys().find(|key| !known.contains(&key.get_ref().as_ref())) {
            None => Ok(()),
            Some(key) => Err(self.unknown(key, known)),
        }
    }

    fn unknown(&self, key: &Spanned<impl AsRef<str>>, known: &[&str]) -> TomlError {
        let name = key.get_ref().as_ref().escape_default();
        self.error(&key.span(), format!("`{name}` is not known here; known are {}", quoted(known)))
    }

    fn text<'b>(&self, value: &'b Spanned<DeValue<'a>>) -> Result<&'b str, TomlError> {
        value.get_ref().as_str().ok_or_else(|| self.error(&value.span(), "this has to be a string"))
    }

    fn grants(&self, value: &Spanned<DeValue<'a>>) -> Result<At<Vec<At<Grant>>>, TomlError> {
        let array = value
            .get_ref()
            .as_array()
            .ok_or_else(|| self.error(&value.span(), "this has to be an array of grants"))?;
        let grant = |value: &Spanned<DeValue<'a>>| {
            let grant = self.text(value)?.parse::<Grant>();
            grant
                .map(|grant| self.at(&value.span(), grant))
                .map_err(|error| self.error(&value.span(), error.to_string()))
        };
        let grants = array.iter().map(grant).collect::<Result<_, _>>()?;
        Ok(self.at(&value.span(), grants))
    }

    fn limit(&self, value: &Spanned<DeValue<'a>>) -> Result<At<u64>, TomlError> {
        let number = value.get_ref().as_integer().and_then(|integer| {
            let digits = integer.as_str().replace('_', "");
            u64::from_str_radix(digits.trim_start_matches('+'), integer.radix()).ok()
        });
        number
            .filter(|number| *number > 0)
            .map(|number| self.at(&value.span(), number))
            .ok_or_else(|| self.error(&value.span(), "a limit has to be a whole number above 0"))
    }
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

impl PolicyFile {
    fn parse(text: &str) -> Result<Self, TomlError> {
        let reader = Reader { text };
        let root = DeTable::parse(text).map_err(|error| TomlError::from_parser(text, &error))?;
        let root = root.get_ref();
        reader.only(root, &["buildpack", "grants", "isolation", "limits", "sources"])?;
        let mut file = Self::default();
        if let Some(limits) = root.get("limits") {
            let known = limit_fields(&Limits::default());
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            for (name, value) in reader.table(limits, &known)? {
                file.limits.insert(name.get_ref().as_ref().to_owned(), reader.limit(value)?);
            }
        }
        if let Some(grants) = root.get("grants")
            && let Some(allow) = reader.table(grants, &["allow"])?.get("allow")
        {
            file.allow = Some(reader.grants(allow)?);
        }
        if let Some(buildpacks) = root.get("buildpack") {
            let array = buildpacks
                .get_ref()
                .as_array()
                .ok_or_else(|| reader.error(&buildpacks.span(), "this is written `[[buildpack]]`"))?;
            for buildpack in array {
                let table = reader.table(buildpack, &["allow", "id"])?;
                let (Some(id), Some(allow)) = (table.get("id"), table.get("allow")) else {
                    return Err(reader.error(&buildpack.span(), "it needs both `id` and `allow`"));
                };
                let parsed = reader.text(id)?.parse::<BuildpackId>();
                let parsed = parsed.map_err(|error| reader.error(&id.span(), error.to_string()))?;
                if file.buildpacks.insert(parsed, reader.grants(allow)?).is_some() {
                    return Err(reader.error(&id.span(), "this buildpack is there twice"));
                }
            }
        }
        if let Some(isolation) = root.get("isolation") {
            let value = match isolation.get_ref().as_str() {
                Some("best-effort") => Isolation::BestEffort,
                Some("required") => Isolation::Required,
                _ => {
                    let message = "this has to be \"best-effort\" or \"required\"";
                    return Err(reader.error(&isolation.span(), message));
                }
            };
            file.isolation = Some(reader.at(&isolation.span(), value));
        }
        if let Some(sources) = root.get("sources") {
            let table = sources
                .get_ref()
                .as_table()
                .ok_or_else(|| reader.error(&sources.span(), "this is written `[sources.NAME]`"))?;
            for (name, source) in table {
                if !grant::is_source_name(name.get_ref()) {
                    return Err(reader.error(&name.span(), "this is not the name of a source"));
                }
                let known = reader.table(source, &["directory"])?;
                let directory = known
                    .get("directory")
                    .ok_or_else(|| reader.error(&source.span(), "it needs `directory`"))?;
                let path = PathBuf::from(reader.text(directory)?);
                if !path.is_absolute() {
                    return Err(reader.error(&directory.span(), "this has to be an absolute path"));
                }
                let mirror = reader.at(&directory.span(), SourceMirror { directory: path });
                file.sources.insert(name.get_ref().as_ref().to_owned(), mirror);
            }
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        temp: tempfile::TempDir,
        paths: PolicyPaths,
    }

    fn files(system: Option<&str>, user: Option<&str>, explicit: Option<&str>) -> Files {
        let temp = tempfile::tempdir().unwrap();
        let place = |name: &str, text: Option<&str>| {
            let path = temp.path().join(name);
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            Some(path)
        };
        let paths = PolicyPaths {
            system: place("system", system),
            user: place("user", user),
            explicit: explicit.and_then(|text| place("explicit", Some(text))),
        };
        Files { temp, paths }
    }

    fn allowed(policy: &Policy, id: &str) -> Vec<String> {
        policy.allowed(&id.parse().unwrap()).0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_files_the_defaults_of_a_single_user_hold() {
        let (policy, origins) = Policy::load(&files(None, None, None).paths).unwrap();
        assert_eq!(policy, Policy::default());
        assert_eq!(allowed(&policy, "a"), ["app-write"]);
        assert_eq!(policy.isolation, Isolation::BestEffort);
        assert!(policy.settings(&origins).iter().all(|setting| setting.origin == Origin::Default));
    }

    #[test]
    fn later_files_win_and_every_value_knows_its_line() {
        let files = files(
            None,
            Some("[limits]\nmemory_bytes = 1_000\ntables = 0x10\n\n[grants]\nallow = [\"clock\"]\n"),
            Some(
                "isolation = \"required\"\n[limits]\nmemory_bytes = 2000\n[[buildpack]]\nid = \"a\"\n\
                 allow = [\"source=npm\"]\n[sources.npm]\ndirectory = \"/srv/npm\"\n",
            ),
        );
        let (policy, origins) = Policy::load(&files.paths).unwrap();
        assert_eq!((policy.limits.memory_bytes, policy.limits.tables), (2000, 16));
        assert_eq!(policy.limits.memories, Limits::default().memories);
        assert_eq!(allowed(&policy, "a"), ["clock", "source=npm"]);
        assert_eq!(allowed(&policy, "b"), ["clock"]);
        let shown: Vec<String> = policy
            .settings(&origins)
            .iter()
            .filter(|setting| setting.origin != Origin::Default)
            .map(|setting| {
                let origin = setting.origin.to_string();
                let name = origin.rsplit('/').next().unwrap();
                format!("{} = {} ({name})", setting.key, setting.value)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "buildpack.a.allow = [\"source=npm\"] (explicit:6)",
                "grants.allow = [\"clock\"] (user:6)",
                "isolation = \"required\" (explicit:1)",
                "limits.memory_bytes = 2000 (explicit:3)",
                "limits.tables = 16 (user:3)",
                "sources.npm.directory = \"/srv/npm\" (explicit:8)",
            ]
        );
    }

    #[test]
    fn the_system_file_is_a_ceiling() {
        let system = "isolation = \"required\"\n[limits]\nmemory_bytes = 1000\n[grants]\nallow = [\"clock\"]\n\
                      [[buildpack]]\nid = \"a\"\nallow = [\"random\"]\n[sources.npm]\ndirectory = \"/srv\"\n";
        let system_has = |user: &str| {
            let files = files(Some(system), Some(user), None);
            Policy::load(&files.paths).map(|(policy, _)| policy).map_err(|error| {
                let text = error.to_string();
                text.replace(&files.temp.path().display().to_string(), "")
            })
        };
        let lower = system_has("[limits]\nmemory_bytes = 500\n[grants]\nallow = []\n").unwrap();
        assert_eq!(lower.limits.memory_bytes, 500);
        assert_eq!(allowed(&lower, "b"), [] as [&str; 0]);
        system_has("[[buildpack]]\nid = \"a\"\nallow = [\"random\", \"clock\"]\n").unwrap();
        for (user, expected) in [
            (
                "[limits]\nmemory_bytes = 1001\n",
                "/user:2: `memory_bytes = 1001` is more than `/system` allows",
            ),
            // Not set by the system's file: the built-in value is what holds.
            ("[limits]\ntables = 65\n", "/user:2: `tables = 65` is more than `/system` allows"),
            (
                "[grants]\nallow = [\n\"clock\",\n\"app-write\"]\n",
                "/user:4: the grant `app-write` is more than `/system` allows",
            ),
            (
                "[[buildpack]]\nid = \"b\"\nallow = [\"random\"]\n",
                "/user:3: the grant `random` for `b` is more than `/system` allows",
            ),
            (
                "isolation = \"best-effort\"\n",
                "/user:1: `isolation = \"best-effort\"` is more than `/system` allows",
            ),
            (
                "[sources.npm]\ndirectory = \"/mine\"\n",
                "/user:2: the source `npm` is more than `/system` allows",
            ),
        ] {
            assert_eq!(system_has(user).unwrap_err(), expected, "{user}");
        }
    }

    #[test]
    fn flags_allow_and_the_ceiling_holds_for_them_too() {
        let (mut policy, mut origins) = Policy::load(&files(None, None, None).paths).unwrap();
        policy.allow_by_flag([Grant::Clock], &mut origins).unwrap();
        assert_eq!(allowed(&policy, "a"), ["app-write", "clock"]);
        assert_eq!(origins.of("grants.allow"), Origin::Flag);
        let files = files(Some("[grants]\nallow = []\n"), None, None);
        let (mut policy, mut origins) = Policy::load(&files.paths).unwrap();
        let error = policy.allow_by_flag([Grant::Clock], &mut origins).unwrap_err();
        assert_eq!(error.id(), "policy.ceiling");
    }

    #[test]
    fn a_refused_grant_says_who_could_allow_it() {
        let buildpack = BuildpackRef { id: "a".parse().unwrap(), version: "1".parse().unwrap() };
        let asked = Grants(BTreeSet::from([Grant::Random])).into();
        let error = Policy::default().grant(&buildpack, &asked).unwrap_err();
        assert!(error.hint().unwrap().starts_with("allow it with `--grant random`"));
        let files = files(Some(""), None, None);
        let (policy, _) = Policy::load(&files.paths).unwrap();
        let hint = policy.grant(&buildpack, &asked).unwrap_err().hint().unwrap();
        assert!(hint.starts_with("only the operator can allow it"), "{hint}");
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_its_place() {
        for (text, line, part) in [
            ("[limits]\nmemory = 1\n", 2, "`memory` is not known here"),
            ("[limits]\nmemory_bytes = -1\n", 2, "above 0"),
            ("[limits]\nmemory_bytes = 0\n", 2, "above 0"),
            ("[limits]\nmemory_bytes = \"1\"\n", 2, "above 0"),
            ("[limits]\nmemory_bytes = 18446744073709551616\n", 2, ""),
            ("\n[grant]\n", 2, "`grant` is not known here"),
            ("[grants]\nallow = [\"clock\",\n \"network\"]\n", 3, "`network` is not a grant"),
            ("[grants]\nallow = \"clock\"\n", 2, "array"),
            ("isolation = \"none\"\n", 1, "required"),
            ("[[buildpack]]\nid = \"../a\"\nallow = []\n", 2, "not valid"),
            ("[[buildpack]]\nallow = []\n", 1, "both"),
            ("[sources.npm]\ndirectory = \"relative\"\n", 2, "absolute"),
            ("[sources.npm]\nurl = \"https://x\"\n", 2, "`url` is not known here"),
            ("a = = 1\n", 1, ""),
        ] {
            let error = PolicyFile::parse(text).err().unwrap();
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(error.message.contains(part), "{text:?}: {error}");
        }
        let mut missing = files(None, None, None).paths;
        missing.explicit = Some(PathBuf::from("/nowhere/policy.toml"));
        assert_eq!(Policy::load(&missing).unwrap_err().id(), "policy.invalid");
    }
}
