//! Credential helpers: `docker-credential-NAME get`, with the server on standard input and
//! JSON on standard output.
//!
//! What a helper says is never shown, not even when it fails: it may be a secret.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::network::{RegistryCredentials, Secret};

use super::super::environment::Environment;
use super::super::tool::{self, Ended};

/// No answer is longer: tokens have a few KiB.
const MAX_ANSWER_BYTES: u64 = 256 * 1024;
/// The user that stands for an identity token.
const TOKEN_USER: &str = "<token>";
/// What every helper says when it knows nothing; it ends in an error, then.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// What asking needs.
pub(super) struct Helpers<'a> {
    pub(super) environment: &'a Environment,
    pub(super) app: Option<&'a Path>,
    pub(super) patience: Duration,
    pub(super) cancel: &'a Cancel,
}

/// It has no `Debug`: there is a password in it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Helpers<'_> {
    /// What the helper `name` keeps for a `server`.
    ///
    /// # Errors
    /// Which helper could not say, and what became of it.
    pub(super) fn ask(&self, name: &str, server: &str) -> Result<Option<RegistryCredentials>, String> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        if !name.chars().all(allowed) {
            return Err(format!("`{}` is not the name of a credential helper", name.escape_debug()));
        }
        let program = format!("docker-credential-{name}");
        let failed = |what: &str| Err(format!("the credential helper `{program}` {what}"));
        let Some(path) = self.program(&program) else { return failed("is not on `PATH`") };
        let Ok(nowhere) = TempDir::with_prefix("wapack-") else {
            return failed("cannot be asked: there is no temporary directory for it to run in");
        };
        let mut command = tool::command(self.environment, &path, nowhere.path());
        command.arg("get");
        let Self { patience, cancel, .. } = self;
        let ended = tool::run(&mut command, server.as_bytes(), MAX_ANSWER_BYTES, *patience, cancel);
        let (status, said) = match ended {
            Ended::NotStarted => return failed("could not be started"),
            Ended::Stopped if cancel.is_cancelled() => return failed("was stopped"),
            Ended::Stopped => {
                return failed(&format!("did not answer within {} seconds", patience.as_secs_f32()));
            }
            Ended::TooMuch => return failed("said far more than credentials"),
            Ended::Exited { status, said } => (status, said),
        };
        if !status.success() {
            let knows_nothing = String::from_utf8_lossy(&said).trim() == NOT_FOUND;
            return if knows_nothing { Ok(None) } else { failed(&format!("failed: {status}")) };
        }
        let Ok(Answer { username, secret }) = serde_json::from_slice(&said) else {
            return failed("did not say what credential helpers say");
        };
        Ok(match username.as_str() {
            TOKEN_USER => Some(RegistryCredentials::IdentityToken(Secret::new(secret))),
            "" if secret.is_empty() => None,
            _ => Some(RegistryCredentials::Basic { user: username, password: Secret::new(secret) }),
        })
    }

    /// The helper on `PATH`, unless it, or the directory that names it, is the app's.
    fn program(&self, name: &str) -> Option<PathBuf> {
        let app = self.app.and_then(|app| fs_err::canonicalize(app).ok());
        let is_apps = |path: &Path| match (&app, fs_err::canonicalize(path)) {
            (Some(app), Ok(path)) => path.starts_with(app),
            _ => false,
        };
        let mut programs = self.environment.programs(name);
        programs.find(|path| !is_apps(path) && !path.parent().is_some_and(is_apps))
    }
}
