//! From arguments to what detecting and building take.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;

use wapack_runtime::cancel::Cancel;
use wapack_runtime::catalog::Builder;
use wapack_runtime::cnb::id::ExecEnv;
use wapack_runtime::cnb::labels::ProjectMetadata;
use wapack_runtime::cnb::target::Target;
use wapack_runtime::executor::worker::WorkerCommand;
use wapack_runtime::grant::{Grant, is_source_name};
use wapack_runtime::lifecycle::AppRequest;
use wapack_runtime::network::{SourcePlace, parse_base};
use wapack_runtime::oci::image::ImageConfiguration;
use wapack_runtime::policy::{Origins, Policy};
use wapack_runtime::source::Selection;
use wapack_runtime::store::Store;

use crate::args::{AppArguments, PolicyArguments};
use crate::buildpacks;
use crate::directories;
use crate::discovery::{self, Environment, Network, Question};
use crate::environment;
use crate::failure::{Failure, InputError};
use crate::output::Output;
use crate::project::Project;

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
    /// What the image says of where its source came from.
    pub(crate) project: ProjectMetadata,
    /// Service bindings of the platform.
    bindings: Option<PathBuf>,
    keep_work_dir: bool,
}

impl App {
    /// Reads what the arguments name. `outputs` take no part in the app, wherever they are;
    /// with `verify` nothing in the store is believed by its seal alone.
    pub(crate) fn prepare(
        arguments: &AppArguments,
        outputs: &[PathBuf],
        verify: bool,
        output: &mut Output,
    ) -> Result<Self, Failure> {
        let project = Project::read(&arguments.path, arguments.descriptor.as_deref(), output)?;
        let environment =
            environment::variables(&project.descriptor.env, &arguments.env_files, &arguments.environment)?;
        let (policy, origins) = policy(&arguments.policy)?;
        let cache = directories::cache(arguments.cache_dir.as_deref())?;
        let (mut store, warnings) = Store::open(&cache)?;
        if verify {
            store.verify_everything();
        }
        for warning in warnings {
            output.warning(&warning);
        }
        let builder = buildpacks::choose(arguments, &project, &policy, &store, output)?;
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
            selection: Selection {
                excluded,
                files: project.is_there.then(|| project.descriptor.files.clone()),
                with_git: arguments.include_git,
            },
            project: project.descriptor.metadata(),
            bindings: arguments.bindings.clone(),
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
            Grant::AppWrite | Grant::Bindings | Grant::Clock | Grant::Random => None,
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
            bindings: self.bindings.as_deref(),
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

/// A target that can be built for, as it is written: `linux/amd64`, `linux/arm64/v8`.
pub(crate) fn target(text: &str) -> Result<Target, InputError> {
    let target =
        parse_system(text).ok_or_else(|| InputError::Target { value: text.escape_debug().to_string() })?;
    match (target.os.as_str(), target.arch.as_str()) {
        ("linux", "amd64" | "arm64") => Ok(target),
        _ => Err(InputError::TargetUnsupported { value: show_target(&target) }),
    }
}

/// What an image that exists is for, whoever made it.
pub(crate) fn system(text: &str) -> Result<Target, InputError> {
    parse_system(text).ok_or_else(|| InputError::System { value: text.escape_debug().to_string() })
}

/// `OS/ARCHITECTURE[/VARIANT]`
fn parse_system(text: &str) -> Option<Target> {
    let parts: Vec<&str> = text.split('/').collect();
    let (os, arch, variant) = match parts[..] {
        [os, arch] => (os, arch, None),
        [os, arch, variant] => (os, arch, Some(variant)),
        _ => return None,
    };
    let is_word = |word: &&str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    // Names that others have for the same, and what indexes say of attachments.
    let is_none = matches!(arch, "aarch64" | "x64" | "unknown");
    (!is_none && [os, arch].iter().chain(&variant).all(is_word)).then(|| Target {
        os: os.to_owned(),
        arch: arch.to_owned(),
        variant: variant.map(str::to_owned),
        distro: None,
    })
}

/// Targets as they are written, with commas between them, each once.
pub(crate) fn targets(text: &str) -> Result<Vec<Target>, InputError> {
    let mut targets: Vec<Target> = Vec::new();
    for part in text.split(',').map(str::trim) {
        if part.is_empty() {
            return Err(InputError::TargetEmpty { value: text.escape_debug().to_string() });
        }
        let target = target(part)?;
        if targets.iter().any(|known| (&known.os, &known.arch) == (&target.os, &target.arch)) {
            return Err(InputError::TargetTwice { value: show_target(&target) });
        }
        targets.push(target);
    }
    Ok(targets)
}

pub(crate) fn show_target(target: &Target) -> String {
    format!("{}/{}", target.os, target.arch)
}

/// The system an image is for, as it is written.
pub(crate) fn show_system(configuration: &ImageConfiguration) -> String {
    let variant = configuration.variant.as_deref().filter(|variant| !variant.is_empty());
    let parts = [Some(&*configuration.os), Some(&*configuration.architecture), variant];
    parts.into_iter().flatten().collect::<Vec<_>>().join("/")
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
    use wapack_runtime::fault::Diagnose as _;

    use super::*;

    #[test]
    fn targets_are_those_there_is_a_launcher_for() {
        assert_eq!(target("linux/arm64/v8").unwrap().variant.as_deref(), Some("v8"));
        for (text, message, hint) in [
            ("linux/s390x", "no image can be built for `linux/s390x`", "targets are `linux/amd64` and"),
            ("linux/arm/v7", "no image can be built for `linux/arm`", "targets are `linux/amd64` and"),
            ("windows/amd64", "no image can be built for `windows/amd64`", "targets are `linux/amd64` and"),
            ("darwin/arm64", "no image can be built for `darwin/arm64`", "targets are `linux/amd64` and"),
            ("amd64", "`amd64` is not a target", "write `linux/amd64`"),
            ("linux/x86_64", "`linux/x86_64` is not a target", "write `linux/amd64`"),
            ("linux/aarch64", "`linux/aarch64` is not a target", "write `linux/arm64`"),
            ("Linux/ARM64", "`Linux/ARM64` is not a target", "write `linux/arm64`"),
            ("linux", "`linux` is not a target", "targets are `linux/amd64` and"),
            ("linux/", "`linux/` is not a target", "targets are `linux/amd64` and"),
            ("linux/amd64/", "`linux/amd64/` is not a target", "targets are `linux/amd64` and"),
            ("linux/arm64/v8/x", "`linux/arm64/v8/x` is not a target", "targets are `linux/amd64` and"),
            ("all", "`all` is not a target", "targets are `linux/amd64` and"),
            ("a b", "`a b` is not a target", "put commas between targets"),
            ("linux/\u{1b}", "`linux/\\u{1b}` is not a target", "targets are `linux/amd64` and"),
        ] {
            let error = target(text).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(error.hint().unwrap().starts_with(hint), "{text}: {:?}", error.hint());
        }
    }

    /// Images of others may be for anything that there is Linux for.
    #[test]
    fn systems_of_images_that_exist_are_any() {
        assert_eq!(show_target(&system("linux/s390x").unwrap()), "linux/s390x");
        assert_eq!(system("windows/amd64").unwrap().os, "windows");
        assert_eq!(system("linux/arm/v7").unwrap().variant.as_deref(), Some("v7"));
        for text in ["", "linux", "unknown/unknown", "linux/aarch64"] {
            assert!(system(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn targets_are_named_once() {
        let shown = |text: &str| targets(text).map(|all| all.iter().map(show_target).collect::<Vec<_>>());
        assert_eq!(shown("linux/arm64, linux/amd64").unwrap(), ["linux/arm64", "linux/amd64"]);
        for (text, message) in [
            ("", "there is an empty target in ``"),
            (" ", "there is an empty target in ` `"),
            ("linux/amd64,", "there is an empty target in `linux/amd64,`"),
            ("linux/amd64,linux/amd64", "the target `linux/amd64` is there twice"),
            ("linux/arm64,linux/arm64/v8", "the target `linux/arm64` is there twice"),
            ("linux/amd64 linux/arm64", "`linux/amd64 linux/arm64` is not a target"),
        ] {
            assert_eq!(shown(text).unwrap_err().to_string(), message);
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
