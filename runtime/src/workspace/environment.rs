//! The environment of one call of a buildpack, put together in the order of the specification.
//!
//! # Shape
//! 1. what the program of the lifecycle has itself, from a fixed list, for executables only;
//! 2. what build layers of earlier buildpacks change ([`Carried`]);
//! 3. what the user set;
//! 4. what the operator set;
//! 5. what the specification says of the call.
//!
//! Steps 3 to 5 are taken anew for each call and never carried on (ENV-02).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::Workspace;
use crate::catalog::{Buildpack, BuildpackKind};
use crate::cnb::api::ApiVersion;
use crate::cnb::env::{
    Environment, LayerEnvironment, PATH_VARIABLES, Unsuffixed, apply_build, apply_changes,
    changes_of_directory, put_in_front,
};
use crate::cnb::id::ExecEnv;
use crate::cnb::layer::{EnvironmentChange, EnvironmentScope};
use crate::cnb::target::Target;
use crate::executor::process::variables::{self, VariablesError};

/// What reaches a buildpack of the environment that a program of the lifecycle has
/// itself, beside the path variables.
const INHERITED: [&str; 9] = [
    "CNB_STACK_ID",
    "HOME",
    "HOSTNAME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// What the environment of all calls of a build has in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// Reaches executables only.
    pub inherited: Environment,
    /// Set by the user.
    pub user: Environment,
    /// Set by the operator, in the order they apply.
    pub operator: Vec<EnvironmentChange>,
}

impl Surroundings {
    /// Those of a program of the lifecycle that was started with `environment`.
    /// `build_config` is the operator's directory.
    ///
    /// # Errors
    /// [`VariablesError`] when the files of the user or the operator cannot be read.
    ///
    /// # Spec
    /// `platform.md` 0.15 "Environment Variables"; ENV-01, ENV-08, ENV-11, ENV-12.
    pub fn of_program(
        environment: &[(OsString, OsString)],
        platform: &Path,
        build_config: &Path,
    ) -> Result<Self, VariablesError> {
        let inherited = environment
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value)))
            .filter(|(name, _)| INHERITED.contains(name) || PATH_VARIABLES.contains(name))
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect();
        let operator = of_operator(build_config)?;
        Ok(Self { inherited, user: variables::read(&platform.join("env"))?, operator })
    }
}

/// What the directory `build_config` sets.
fn of_operator(build_config: &Path) -> Result<Vec<EnvironmentChange>, VariablesError> {
    let files = variables::read(&build_config.join("env"))?;
    Ok(changes_of_directory(&files, &EnvironmentScope::All, Unsuffixed::Default))
}

/// What earlier buildpacks leave to later ones in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// As executables see it.
    executables: Environment,
    /// As components see it, to whom nothing of the host gets.
    components: Environment,
}

impl Carried {
    /// Adds the build layers of one buildpack, sorted by name (ENV-13 to ENV-15).
    pub fn add(&mut self, layers: &[LayerEnvironment<'_>]) {
        apply_build(&mut self.executables, layers);
        apply_build(&mut self.components, layers);
    }
}

impl Workspace {
    /// Has the operator's directory `build_config` apply to every call.
    ///
    /// # Errors
    /// [`VariablesError`] when its files cannot be read.
    ///
    /// # Spec
    /// ENV-11, ENV-12.
    pub fn set_operator(&mut self, build_config: &Path) -> Result<(), VariablesError> {
        self.surroundings.operator = of_operator(build_config)?;
        Ok(())
    }

    /// The environment before any buildpack has built.
    pub fn before_layers(&self) -> Carried {
        Carried { executables: self.surroundings.inherited.clone(), components: Environment::new() }
    }

    /// The environment of a call of `buildpack`, except for what only the call itself knows.
    ///
    /// # Spec
    /// ENV-01, ENV-02, ENV-09 to ENV-11, ENV-27 and the table of section 4.4. Components
    /// have what came last in it, whatever API they name (WSM-07).
    pub fn environment(
        &self,
        buildpack: &Buildpack,
        target: &Target,
        exec_env: &ExecEnv,
        carried: &Carried,
    ) -> Environment {
        let is_classic = buildpack.kind == BuildpackKind::Classic;
        let mut environment = if is_classic { &carried.executables } else { &carried.components }.clone();
        self.surround(&mut environment, buildpack.descriptor.clear_env);
        let api = buildpack.descriptor.api;
        let since = |minor: u64| !is_classic || api >= ApiVersion::zero(minor);
        let mut set = |name: &str, value: OsString| environment.insert(name.to_owned(), value);
        if since(3) {
            let directory = if is_classic {
                buildpack.directory.clone().into_os_string()
            } else {
                self.places.buildpack(&buildpack.reference).into()
            };
            set("CNB_BUILDPACK_DIR", directory);
        }
        if since(8) {
            set("CNB_PLATFORM_DIR", self.places.platform.clone().into());
        }
        if since(10) {
            for (name, value) in target_variables(target, is_classic) {
                set(name, value.into());
            }
        }
        if since(12) {
            set("CNB_EXEC_ENV", exec_env.as_str().into());
        }
        environment
    }

    /// What the user set, as records; values that are not text are in the environment only.
    pub fn user_environment(&self) -> BTreeMap<String, String> {
        let text = |(name, value): (&String, &OsString)| Some((name.clone(), value.to_str()?.to_owned()));
        self.surroundings.user.iter().filter_map(text).collect()
    }

    /// Adds what the user and the operator set.
    pub(super) fn surround(&self, environment: &mut Environment, clear_env: bool) {
        if !clear_env {
            for (name, value) in &self.surroundings.user {
                if PATH_VARIABLES.contains(&name.as_str()) {
                    put_in_front(environment, name, value);
                } else {
                    environment.insert(name.clone(), value.clone());
                }
            }
        }
        apply_changes(environment, &self.surroundings.operator);
    }

    /// Adds what only `build` is told in its environment.
    pub fn add_build_variables(&self, buildpack: &Buildpack, environment: &mut Environment) {
        if buildpack.kind != BuildpackKind::Classic || buildpack.descriptor.api >= ApiVersion::zero(8) {
            let layers = self.places.layers_of(&buildpack.reference.id);
            environment.insert("CNB_LAYERS_DIR".to_owned(), layers.into());
        }
    }
}

/// TGT-10: what is not known is not set.
pub(super) fn target_variables(target: &Target, leave_out_empty: bool) -> Vec<(&'static str, &str)> {
    let mut variables = vec![("CNB_TARGET_OS", target.os.as_str()), ("CNB_TARGET_ARCH", &target.arch)];
    let distro = target.distro.as_ref();
    let known = [
        ("CNB_TARGET_ARCH_VARIANT", target.variant.as_deref()),
        ("CNB_TARGET_DISTRO_NAME", distro.map(|distro| distro.name.as_str())),
        ("CNB_TARGET_DISTRO_VERSION", distro.map(|distro| distro.version.as_str())),
    ];
    variables.extend(
        known
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .filter(|(_, value)| !(leave_out_empty && value.is_empty())),
    );
    variables
}

#[cfg(test)]
mod tests;
