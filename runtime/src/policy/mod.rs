//! The operator's policy: limits, grants, isolation, sources and registries, from one
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
//! allow = ["app-write", "bindings", "clock", "random", "source=npm"]
//!
//! [[buildpack]]                      # for one, in addition
//! id = "acme/node"
//! allow = ["source=npm"]
//!
//! [sources.npm]                      # or [sources."npm:@acme"]
//! url = "https://mirror.example/npm/" # or directory = "/srv/mirror/npm"
//! mirrors = ["https://mirror-2.example/npm/"]
//! token-file = "/etc/wapack/npm.token" # or token-env; or user and password-file, password-env
//! ca = "/etc/ssl/corp.pem"           # one or several
//!
//! [network]
//! proxy = "http://proxy.example:3128" # http-proxy and https-proxy one by one
//! no-proxy = ".example,10.0.0.0/8"
//! ca = ["/etc/ssl/corp.pem"]
//! offline = false
//! origins-from-lock-files = false
//!
//! [registries."registry.example:5000"]
//! mirrors = ["https://mirror.example/"] # asked first when something is fetched
//! insecure = true                    # plain `http`, if there is no TLS
//! realms = ["auth.example"]          # who else may be sent its credentials, for tokens
//! ca = "/etc/ssl/corp.pem"           # one or several
//!
//! [store]
//! max_bytes = 21474836480            # what is kept between builds
//! ```
//! Later files win over earlier ones: built-in defaults, the system's file, the
//! user's file, the file of the command line. The system's file is a ceiling:
//! with it, later ones can lower limits and take away grants, nothing else.

mod file;
mod registries;
mod sources;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::cnb::id::{BuildpackId, BuildpackRef};
use crate::fault::{Diagnose, Fault};
use crate::grant::{self, ANY_SOURCE, AskedGrants, Grant, GrantRefused, Grants};
use crate::limits::Limits;
use crate::toml_text::{self, TomlFileError};

use file::{At, PolicyFile};
pub use registries::RegistryPolicy;
pub use sources::{NetworkPolicy, SecretPlace, SignIn, SourcePolicy, source_key};
pub use store::StorePolicy;

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
    pub sources: BTreeMap<String, SourcePolicy>,
    pub network: NetworkPolicy,
    /// By the name of the registry: `index.docker.io`, `registry.example:5000`.
    pub registries: BTreeMap<String, RegistryPolicy>,
    pub store: StorePolicy,
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
    /// For a single user's own builds. Sources are places that the user has set
    /// or uses already, and a buildpack can only ask them for files.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            allow: Grants(BTreeSet::from([
                Grant::AppWrite,
                Grant::Bindings,
                Grant::Source(ANY_SOURCE.to_owned()),
            ])),
            allow_buildpack: BTreeMap::new(),
            isolation: Isolation::default(),
            sources: BTreeMap::new(),
            network: NetworkPolicy::default(),
            registries: BTreeMap::new(),
            store: StorePolicy::default(),
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
            let is_system = paths.system.as_ref() == Some(path);
            match toml_text::read_with(path, PolicyFile::parse) {
                Ok(file) => {
                    // An operator has to say that apps may name addresses.
                    policy.network.origins_from_lock_files &= !is_system;
                    policy.apply(path, file, &mut origins)?;
                }
                Err(TomlFileError::Io { source, .. })
                    if !is_explicit && source.kind() == std::io::ErrorKind::NotFound =>
                {
                    continue;
                }
                Err(error) => return Err(PolicyError::File(error)),
            }
            if is_system {
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
        self.apply_sources(path, file.sources, origins)?;
        self.apply_network(path, file.network, origins)?;
        self.apply_registries(path, file.registries, origins)?;
        self.apply_store(path, file.store, origins)?;
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
        for (name, source) in &self.sources {
            settings.extend(source.settings(name));
        }
        settings.extend(self.network.settings());
        for (name, registry) in &self.registries {
            settings.extend(registry.settings(name));
        }
        settings.extend(self.store.settings());
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

#[cfg(test)]
mod tests;
