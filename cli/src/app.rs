//! From arguments to what detecting and building take.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use wapack_runtime::cancel::Cancel;
use wapack_runtime::catalog::{Builder, Buildpack, Catalog};
use wapack_runtime::cnb::id::{BuildpackId, BuildpackRef, BuildpackVersion, ExecEnv};
use wapack_runtime::cnb::order::{Order, OrderGroup, OrderMember};
use wapack_runtime::cnb::target::Target;
use wapack_runtime::executor::worker::WorkerCommand;
use wapack_runtime::grant::{Grant, is_source_name};
use wapack_runtime::lifecycle::AppRequest;
use wapack_runtime::network::{SourcePlace, parse_base};
use wapack_runtime::policy::{Origins, Policy};
use wapack_runtime::source::Selection;
use wapack_runtime::store::{Store, StoreError};

use crate::args::{AppArguments, PolicyArguments};
use crate::directories;
use crate::discovery::{self, Environment, Network, Question};
use crate::embedded;
use crate::failure::{Failure, InputError};
use crate::output::Output;

/// The word for the builder that is part of this program.
const BUILTIN: &str = "builtin";

/// The variable that has buildpacks choose versions anew.
const UPDATE_VARIABLE: &str = "WAPACK_UPDATE";

/// Everything of an [`AppRequest`], owned.
#[derive(Debug)]
pub(crate) struct App {
    source: PathBuf,
    pub(crate) store: Store,
    pub(crate) policy: Policy,
    origins: Origins,
    builder: Builder,
    environment: BTreeMap<String, String>,
    exec_env: ExecEnv,
    worker: WorkerCommand,
    selection: Selection,
    keep_work_dir: bool,
}

impl App {
    /// Reads what the arguments name. `outputs` take no part in the app, wherever they are.
    pub(crate) fn prepare(
        arguments: &AppArguments,
        outputs: &[PathBuf],
        output: &mut Output,
    ) -> Result<Self, Failure> {
        let environment = environment(&arguments.environment)?;
        let (policy, origins) = policy(&arguments.policy)?;
        let cache = directories::cache(arguments.cache_dir.as_deref())?;
        let (store, warnings) = Store::open(&cache)?;
        for warning in warnings {
            output.warning(&warning);
        }
        let mut builder = load_builder(&arguments.builder, &store)?;
        if !arguments.buildpacks.is_empty() {
            builder = with_buildpacks(&builder, &arguments.buildpacks, &store)?;
        }
        let mut excluded: Vec<PathBuf> = outputs.iter().map(|path| directories::resolved(path)).collect();
        excluded.push(store.root().to_owned());
        Ok(Self {
            source: arguments.path.clone(),
            store,
            policy,
            origins,
            builder,
            environment,
            exec_env: ExecEnv::default(),
            worker: worker()?,
            selection: Selection { excluded, ..Selection::default() },
            keep_work_dir: arguments.keep_work_dir,
        })
    }

    /// Tells the buildpacks that no choice of an earlier build has to stay.
    pub(crate) fn choose_anew(&mut self) {
        self.environment.insert(UPDATE_VARIABLE.to_owned(), "1".to_owned());
    }

    /// Where the sources are that the buildpacks of this build may ask for.
    pub(crate) fn network(&self, cancel: &Cancel) -> Result<Network, Failure> {
        let grants = self.builder.catalog.iter().flat_map(|buildpack| buildpack.descriptor.grants.all().0);
        let wanted = grants.filter_map(|grant| match grant {
            Grant::Source(name) => Some(name),
            Grant::AppWrite | Grant::Clock | Grant::Random => None,
        });
        let question = Question {
            policy: &self.policy,
            origins: &self.origins,
            app: Some(&self.source),
            wanted: wanted.collect(),
            cancel,
        };
        discovery::network(&question, Environment::of_process())
    }

    pub(crate) fn request<'a>(&'a self, target: &'a Target, cancel: &'a Cancel) -> AppRequest<'a> {
        AppRequest {
            source: &self.source,
            selection: &self.selection,
            builder: &self.builder,
            store: &self.store,
            policy: &self.policy,
            target,
            exec_env: &self.exec_env,
            user_env: &self.environment,
            worker: &self.worker,
            keep_work_dir: self.keep_work_dir,
            cancel,
        }
    }
}

/// This program, started as a worker.
pub(crate) fn worker() -> Result<WorkerCommand, InputError> {
    let program = env::current_exe()
        .map_err(|source| InputError::Unreadable { path: "/proc/self/exe".into(), source })?;
    Ok(WorkerCommand { program, arguments: vec![crate::WORKER.to_owned()] })
}

/// The policy in force.
pub(crate) fn policy(arguments: &PolicyArguments) -> Result<(Policy, Origins), Failure> {
    let (mut policy, mut origins) = Policy::load(&directories::policy_files(arguments.policy.as_deref()))?;
    policy.allow_by_flag(arguments.grants.iter().cloned(), &mut origins)?;
    for source in &arguments.sources {
        let (name, place) = source_flag(source)?;
        policy.source_by_flag(name, place, &mut origins)?;
    }
    if arguments.offline {
        policy.offline_by_flag(&mut origins);
    }
    Ok((policy, origins))
}

/// `NAME=URL` or `NAME=DIR`. Other users of the machine can see the arguments
/// of a program, so there is no password in them.
fn source_flag(text: &str) -> Result<(&str, SourcePlace), InputError> {
    let (name, place) = text.split_once('=').unwrap_or((text, ""));
    let refused = |rule: &str| InputError::SourceFlag {
        value: format!("{}=…", name.escape_debug()),
        rule: rule.to_owned(),
    };
    if !is_source_name(name) {
        return Err(refused("that is not the name of a source"));
    }
    if place.is_empty() {
        return Err(refused("there is nothing behind the `=`"));
    }
    if !place.contains("://") {
        let directory = std::path::absolute(place).map_err(|error| refused(&error.to_string()))?;
        return Ok((name, SourcePlace::Directory(directory)));
    }
    match parse_base(place) {
        Ok((base, None)) => Ok((name, SourcePlace::Base(base))),
        Ok((_, Some(_))) => {
            let variable = discovery::token_variable(name);
            Err(refused(&format!("a password can be seen here; put a token into `{variable}`")))
        }
        Err(error) => Err(refused(&error.to_string())),
    }
}

/// What [`Store::builder`] can fail with.
enum Unpack {
    Store(StoreError),
    Archive(io::Error),
}

impl From<StoreError> for Unpack {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn load_builder(named: &Path, store: &Store) -> Result<Builder, Failure> {
    let digest_of_file = |path: &Path| store.digest_of_file(path);
    if named == Path::new(BUILTIN) {
        let directory = store
            .builder(embedded::BUILDER_DIGEST, |directory| {
                embedded::unpack_builder(directory).map_err(Unpack::Archive)
            })
            .map_err(|error| match error {
                Unpack::Store(error) => Failure::Store(error),
                Unpack::Archive(error) => Failure::Builtin(error),
            })?;
        return Ok(Builder::load(&directory, &digest_of_file)?);
    }
    let missing = |source| InputError::Builder { path: named.to_owned(), source };
    let directory = named.canonicalize().map_err(missing)?;
    if !directory.join("order.toml").is_file() {
        return Err(InputError::NotABuilder { path: named.to_owned() }.into());
    }
    Ok(Builder::load(&directory, &digest_of_file)?)
}

/// The builder with an order of just these buildpacks. One from a directory
/// takes the place of the builder's own of the same version.
fn with_buildpacks(builder: &Builder, named: &[OsString], store: &Store) -> Result<Builder, Failure> {
    let digest_of_file = |path: &Path| store.digest_of_file(path);
    let mut catalog = Catalog::default();
    let mut members = Vec::with_capacity(named.len());
    for value in named {
        let path = Path::new(value);
        let buildpack = if path.is_dir() {
            let directory = fs_err::canonicalize(path)
                .map_err(|source| InputError::Unreadable { path: path.to_owned(), source })?;
            let buildpack = Buildpack::load(&directory, &digest_of_file)?;
            let reference = buildpack.reference.clone();
            catalog.add(buildpack)?;
            reference
        } else if path.is_file() {
            return Err(InputError::BuildpackFile { path: path.to_owned() }.into());
        } else {
            of_builder(builder, value)?
        };
        members.push(OrderMember { buildpack, optional: false, exec_envs: Vec::new() });
    }
    for buildpack in builder.catalog.iter() {
        if catalog.get(&buildpack.reference).is_err() {
            catalog.add(buildpack.clone())?;
        }
    }
    Ok(Builder { catalog, order: Order { groups: vec![OrderGroup { members }] } })
}

/// `ID[@VERSION]` of the builder.
fn of_builder(builder: &Builder, value: &OsStr) -> Result<BuildpackRef, Failure> {
    let missing = || InputError::Buildpack {
        value: value.to_string_lossy().escape_debug().to_string(),
        known: builder.catalog.iter().map(|buildpack| buildpack.reference.to_string()).collect(),
    };
    let text = value.to_str().ok_or_else(missing)?;
    let (id, version) = match text.split_once('@') {
        Some((id, version)) => (id, Some(version.parse::<BuildpackVersion>().map_err(|_| missing())?)),
        None => (text, None),
    };
    let id: BuildpackId = id.parse().map_err(|_| missing())?;
    if let Some(version) = version {
        let reference = BuildpackRef { id, version };
        return match builder.catalog.get(&reference) {
            Ok(_) => Ok(reference),
            Err(_) => Err(missing().into()),
        };
    }
    let mut versions: Vec<BuildpackRef> = builder
        .catalog
        .iter()
        .filter(|buildpack| buildpack.reference.id == id)
        .map(|buildpack| buildpack.reference.clone())
        .collect();
    match (versions.pop(), versions.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            versions.push(last);
            let versions = versions.iter().map(ToString::to_string).collect();
            Err(InputError::BuildpackVersions { id: id.to_string(), versions }.into())
        }
        (None, _) => Err(missing().into()),
    }
}

/// `NAME=VALUE`, or `NAME` for the value it has here; later ones win.
fn environment(arguments: &[OsString]) -> Result<BTreeMap<String, String>, InputError> {
    let mut variables = BTreeMap::new();
    for argument in arguments {
        let bytes = argument.as_bytes();
        let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(equals) => (&bytes[..equals], Some(OsStr::from_bytes(&bytes[equals + 1..]).to_owned())),
            None => (bytes, None),
        };
        let name = variable_name(name)?;
        let value = match value {
            Some(value) => value,
            None => env::var_os(&name).ok_or_else(|| InputError::UnsetVariable { name: name.clone() })?,
        };
        let value = value.into_string().map_err(|_| InputError::VariableNotUtf8 { name: name.clone() })?;
        variables.insert(name, value);
    }
    Ok(variables)
}

/// A name becomes a file of the platform directory.
fn variable_name(name: &[u8]) -> Result<String, InputError> {
    let shown = || String::from_utf8_lossy(name).escape_debug().to_string();
    let refused = |rule| InputError::Variable { name: shown(), rule };
    let Ok(text) = std::str::from_utf8(name) else { return Err(refused("it is not UTF-8")) };
    match text {
        "" => Err(refused("it is empty")),
        "." | ".." => Err(refused("it is not a file name")),
        _ if text.contains('/') => Err(refused("it has a `/`")),
        _ if text.chars().any(char::is_control) => Err(refused("it has control characters")),
        _ if text.len() > 255 => Err(refused("it is longer than 255 bytes")),
        _ if text.starts_with("CNB_") => Err(refused("names that start with `CNB_` are the specification's")),
        _ => Ok(text.to_owned()),
    }
}

/// A target as it is written: `linux/amd64`, `linux/arm64/v8`.
pub(crate) fn target(text: &str) -> Result<Target, InputError> {
    let refused = || InputError::Target { value: text.escape_debug().to_string() };
    let mut parts = text.split('/');
    let (os, arch, variant) = (parts.next(), parts.next(), parts.next());
    match (os, arch, variant, parts.next()) {
        (Some("linux"), Some(arch @ ("amd64" | "arm64")), variant, None) if variant != Some("") => {
            Ok(Target {
                os: "linux".to_owned(),
                arch: arch.to_owned(),
                variant: variant.map(str::to_owned),
                distro: None,
            })
        }
        _ => Err(refused()),
    }
}

/// The target of this machine.
pub(crate) fn host_target() -> Target {
    let arch = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Target { os: "linux".to_owned(), arch: arch.to_owned(), variant: None, distro: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_checked_by_name() {
        let read = |arguments: &[&str]| environment(&arguments.iter().map(Into::into).collect::<Vec<_>>());
        let variables = read(&["A=1", "B=", "A=2=3"]).unwrap();
        assert_eq!(variables, BTreeMap::from([("A".into(), "2=3".into()), ("B".into(), String::new())]));
        for argument in ["", "=x", ".=1", "..=1", "a/b=1", "a\nb=1", "CNB_X=1", "WAPACK_SURELY_NOT_SET"] {
            assert!(read(&[argument]).is_err(), "{argument:?}");
        }
    }

    #[test]
    fn targets_are_those_there_is_a_launcher_for() {
        assert_eq!(target("linux/arm64/v8").unwrap().variant.as_deref(), Some("v8"));
        for text in
            ["", "linux", "linux/", "linux/riscv64", "windows/amd64", "linux/amd64/", "linux/arm64/v8/x"]
        {
            assert!(target(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sources_of_flags_are_addresses_or_directories() {
        let place = |text: &str| match source_flag(text) {
            Ok((name, SourcePlace::Base(url))) => format!("{name} {url}"),
            Ok((name, SourcePlace::Directory(path))) => format!("{name} {}", path.display()),
            Err(error) => error.to_string(),
        };
        assert_eq!(place("npm=https://mirror.example/npm"), "npm https://mirror.example/npm/");
        assert_eq!(place("npm:@acme=/srv/a=b"), "npm:@acme /srv/a=b");
        assert!(place("npm=mirror").starts_with("npm /"));
        for text in
            ["npm", "npm=", "=x", "../x=/srv", "npm=ftp://CANARY", "npm=https://CANARY@mirror.example"]
        {
            let said = place(text);
            assert!(said.contains("does not say where a source is") && !said.contains("CANARY"), "{said}");
        }
    }
}
