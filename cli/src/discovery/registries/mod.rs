//! Who knows how to sign in to registries: files of Docker, podman and their kin, and the
//! credential helpers that these name.
//!
//! Nothing is read or asked before a registry wants to know who is there. The app's own
//! directory has no say: no file is looked for in it, and no program on `PATH` that lies
//! in it is started.

mod auths;
mod helper;
#[cfg(test)]
mod tests;
mod variable;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wapack_runtime::cancel::Cancel;
use wapack_runtime::network::{FindRegistryCredentials, RegistryCredentials};

use super::environment::Environment;
use super::files::{self, Links};
use auths::Auths;
pub(crate) use auths::registry_of_key;
use helper::Helpers;
pub(crate) use variable::InvalidRegistryAuth;
use variable::{VARIABLE, VariableCredentials};

/// How long a credential helper may take: it may ask the user for a passphrase first.
const PATIENCE: Duration = Duration::from_mins(1);

/// What this machine's user is signed in to.
pub(crate) struct UserCredentials {
    environment: Environment,
    /// Never a place of programs.
    app: Option<PathBuf>,
    cancel: Cancel,
    patience: Duration,
}

impl fmt::Debug for UserCredentials {
    /// Not the environment: there are tokens in it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UserCredentials").finish_non_exhaustive()
    }
}

impl UserCredentials {
    /// Credentials that the user's variables lead to, while building `app`.
    pub(crate) fn new(environment: Environment, app: Option<&Path>, cancel: Cancel) -> Self {
        Self { environment, app: app.map(Path::to_owned), cancel, patience: PATIENCE }
    }

    #[cfg(test)]
    fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Files that may hold credentials; the first that knows of a registry is believed.
    fn files(&self) -> Result<Vec<PathBuf>, String> {
        let set = |variable: &str| match self.environment.text(variable) {
            None => Ok(None),
            Some(text) if Path::new(text).is_absolute() => Ok(Some(PathBuf::from(text))),
            Some(_) => Err(format!("the variable `{variable}` is not an absolute path")),
        };
        let docker = match set("DOCKER_CONFIG")? {
            Some(directory) => Some(directory),
            None => self.environment.home().map(|home| home.join(".docker")),
        };
        let runtime = self.environment.path("XDG_RUNTIME_DIR");
        let places = [
            set("REGISTRY_AUTH_FILE")?,
            docker.map(|directory| directory.join("config.json")),
            runtime.map(|directory| directory.join("containers/auth.json")),
            self.environment.config_home().map(|directory| directory.join("containers/auth.json")),
        ];
        Ok(places.into_iter().flatten().collect())
    }
}

impl FindRegistryCredentials for UserCredentials {
    fn find(&self, registry: &str, repository: &str) -> Result<Option<RegistryCredentials>, String> {
        let helpers = Helpers {
            environment: &self.environment,
            app: self.app.as_deref(),
            patience: self.patience,
            cancel: &self.cancel,
        };
        for path in self.files()? {
            let in_file = |what: &dyn fmt::Display| format!("`{}`: {what}", path.display());
            let Some(text) = files::read(&path, Links::Follow).map_err(|error| in_file(&error))? else {
                continue;
            };
            let auths = Auths::parse(&text).map_err(|error| in_file(&error))?;
            if let Some((helper, server)) = auths.helper(registry)
                && let Some(found) = helpers.ask(helper, &server).map_err(|error| in_file(&error))?
            {
                return Ok(Some(found));
            }
            if let Some(found) = auths.find(registry, repository).map_err(|error| in_file(&error))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Credentials of the programs of the lifecycle: what `CNB_REGISTRY_AUTH` says, and then
/// what the user is signed in to.
///
/// # Errors
/// When the variable cannot be understood.
///
/// # Spec
/// CLI-08.
pub(crate) fn of_program(
    environment: Environment,
    cancel: Cancel,
) -> Result<Arc<dyn FindRegistryCredentials>, InvalidRegistryAuth> {
    let variable = VariableCredentials::parse(environment.text(VARIABLE).unwrap_or_default())?;
    let user = UserCredentials::new(environment, None, cancel);
    Ok(Arc::new(FirstOf([Arc::new(variable), Arc::new(user)])))
}

/// Several who may know, asked in order; the first answer counts.
#[derive(Debug)]
struct FirstOf([Arc<dyn FindRegistryCredentials>; 2]);

impl FindRegistryCredentials for FirstOf {
    fn find(&self, registry: &str, repository: &str) -> Result<Option<RegistryCredentials>, String> {
        for one in &self.0 {
            if let Some(found) = one.find(registry, repository)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}
