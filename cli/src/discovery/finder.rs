//! The order in which a source is looked for, behind wapack's own configuration.
//!
//! 1. wapack's own configuration (not here: it is what comes before)
//! 2. `WAPACK_SOURCE_<NAME>`
//! 3. what the user's tools are set to, by variables and files
//! 4. the installed tool itself
//! 5. the files of the app
//!
//! With an operator's policy file, nothing after 2 is asked.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tempfile::TempDir;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::network::{
    Credentials, FindSource, Secret, SourcePlace, SourceSettings, SourceTrust, parse_base, source_variable,
};

use super::environment::{Environment, token_variable};
use super::found::{Found, Remark, Remarks, authority};
use super::npm::{self, AppFiles, Npm};
use super::pip::Pip;
use super::tool::{self, Answer};
use super::{apt, go};
use crate::failure::InputError;

/// How long an installed tool may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked, and what it is set to.
struct Tool {
    source: &'static str,
    /// The first that is installed.
    programs: &'static [&'static str],
    arguments: &'static [&'static str],
}

/// `--location=global`: what npm's directory and those above it hold is no answer.
const TOOLS: [Tool; 3] = [
    Tool { source: "go", programs: &["go"], arguments: &["env", "GOPROXY"] },
    Tool {
        source: npm::WHOLE,
        programs: &["npm"],
        arguments: &["config", "get", "registry", "--location=global"],
    },
    Tool { source: "pypi", programs: &["pip", "pip3"], arguments: &["config", "get", "global.index-url"] },
];

/// Whose word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trusted {
    /// The user's tools, their files and variables.
    pub(super) tools: bool,
    /// The app's own files.
    pub(super) app: bool,
    /// Nothing will be downloaded: neither the tools nor the app need to be asked.
    pub(super) offline: bool,
}

/// Looks for sources that wapack's own configuration does not name.
pub(crate) struct Finder {
    environment: Environment,
    app: Option<PathBuf>,
    trusted: Trusted,
    /// Sources that wapack's own configuration names.
    configured: BTreeSet<String>,
    cancel: Cancel,
    patience: Duration,
    npm: OnceLock<Npm>,
    pip: OnceLock<Pip>,
    app_files: OnceLock<AppFiles>,
    /// Where nothing is, for asking tools, and for authorities that have no file.
    scratch: OnceLock<Option<TempDir>>,
    remarks: Mutex<Remarks>,
}

impl fmt::Debug for Finder {
    /// Not what it holds: there are tokens among it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Finder").field("trusted", &self.trusted).finish_non_exhaustive()
    }
}

impl Finder {
    pub(super) fn new(
        environment: Environment,
        app: Option<&Path>,
        trusted: Trusted,
        configured: BTreeSet<String>,
        cancel: Cancel,
    ) -> Self {
        Self {
            environment,
            app: app.map(Path::to_owned),
            trusted,
            configured,
            cancel,
            patience: PATIENCE,
            npm: OnceLock::new(),
            pip: OnceLock::new(),
            app_files: OnceLock::new(),
            scratch: OnceLock::new(),
            remarks: Mutex::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(super) fn remarks(&self) -> MutexGuard<'_, Remarks> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came up since the last time.
    pub(crate) fn take_remarks(&self) -> Vec<Remark> {
        self.remarks().take()
    }

    /// What npm is set to, when that counts.
    pub(super) fn npm(&self) -> Option<&Npm> {
        self.trusted.tools.then(|| self.npm.get_or_init(|| Npm::read(&self.environment, &mut self.remarks())))
    }

    fn pip(&self) -> &Pip {
        self.pip.get_or_init(|| {
            if self.trusted.tools {
                Pip::read(&self.environment, &mut self.remarks())
            } else {
                Pip::default()
            }
        })
    }

    /// Looks where looking costs nothing: steps 2 and 3.
    ///
    /// # Errors
    /// When a variable of ours has a value that is no place.
    pub(super) fn find_at_hand(&self, name: &str) -> Result<Option<Found>, InputError> {
        if let Some(found) = self.by_variable(name)? {
            return Ok(Some(found));
        }
        Ok(self.by_tool_settings(name))
    }

    /// Looks everywhere: steps 2 to 5.
    pub(crate) fn find_anywhere(&self, name: &str) -> Option<Found> {
        let at_hand = self.find_at_hand(name).unwrap_or_else(|error| {
            self.remarks().warn(format!("{error}: {}", cause(&error)));
            None
        });
        at_hand.or_else(|| self.by_tool(name)).or_else(|| self.by_app(name))
    }

    /// The token that `WAPACK_SOURCE_<NAME>_TOKEN` holds.
    pub(super) fn token(&self, name: &str) -> Option<(Credentials, String)> {
        let variable = token_variable(name);
        let token = self.environment.text(&variable)?;
        Some((Credentials::Bearer(Secret::new(token.trim())), variable))
    }

    /// Step 2.
    fn by_variable(&self, name: &str) -> Result<Option<Found>, InputError> {
        let variable = source_variable(name);
        // `npm:token` would read the token of `npm` as an address.
        if variable.ends_with("_TOKEN") {
            return Ok(None);
        }
        let Some(text) = self.environment.text(&variable) else { return Ok(None) };
        if text.starts_with('/') {
            let place = SourcePlace::Directory(text.into());
            return Ok(Some(Found::at(place, SourceTrust::Configured, variable)));
        }
        let (base, credentials) = parse_base(text).map_err(|error| InputError::SourceVariable {
            variable: variable.clone(),
            name: name.to_owned(),
            source: error,
        })?;
        let mut found = Found::at(SourcePlace::Base(base), SourceTrust::Configured, variable.as_str());
        found.sign_in(credentials, &variable);
        if let Some((token, variable)) = self.token(name) {
            found.settings.credentials = None;
            found.sign_in(Some(token), &variable);
        }
        self.add_authorities(name, &mut found);
        Ok(Some(found))
    }

    /// Step 3.
    fn by_tool_settings(&self, name: &str) -> Option<Found> {
        if !self.trusted.tools {
            return None;
        }
        let found = match name {
            "debian" | "ubuntu" => apt::find(name, &self.environment, &mut self.remarks())?,
            "go" => go::find(&self.environment, &mut self.remarks())?,
            "pypi" => self.pip().find(&self.environment, &mut self.remarks())?,
            _ if is_npm(name) => self.npm()?.find(name, &mut self.remarks())?,
            _ => return None,
        };
        Some(self.finished(name, found))
    }

    /// Step 4.
    fn by_tool(&self, name: &str) -> Option<Found> {
        if !self.trusted.tools || self.trusted.offline {
            return None;
        }
        let tool = TOOLS.iter().find(|tool| tool.source == name)?;
        let program = *tool.programs.iter().find(|program| self.environment.program(program).is_some())?;
        let set_by = format!("{program} {}", tool.arguments.join(" "));
        let answer = self.empty_directory().map_or(Answer::Failed, |directory| {
            let Self { environment, patience, cancel, .. } = self;
            tool::ask(environment, program, tool.arguments, &directory, *patience, cancel)
        });
        let found = match answer {
            Answer::Nothing => None,
            Answer::Failed => {
                self.remarks().warn(format!("`{set_by}` gave no answer that could be used"));
                None
            }
            Answer::Line(list) if name == "go" => go::of_list(&list, &set_by, &mut self.remarks()),
            Answer::Line(line) => Found::of_tool(&line, &set_by, &mut self.remarks()),
        }?;
        Some(self.finished(name, found))
    }

    /// Step 5. Whoever configured the whole of a source has decided about its parts.
    fn by_app(&self, name: &str) -> Option<Found> {
        if !self.trusted.app || self.trusted.offline || !is_npm(name) {
            return None;
        }
        if self.configured.contains(npm::WHOLE)
            || self.environment.text(&source_variable(npm::WHOLE)).is_some()
        {
            return None;
        }
        let app = self.app.as_deref()?;
        let remarks = &mut self.remarks();
        let found = self.app_files.get_or_init(|| AppFiles::read(app, remarks)).find(name, remarks)?;
        if self.token(name).is_some() {
            remarks.warn(unused_token(name));
        }
        Some(found)
    }

    /// Adds what a tool of the user would add to an address.
    fn finished(&self, name: &str, mut found: Found) -> Found {
        if let Some(npm) = self.npm().filter(|_| is_npm(name)) {
            npm.sign_in(&mut found, &mut self.remarks());
        }
        self.add_authorities(name, &mut found);
        let remarks = &mut self.remarks();
        // Packages of a distribution are signed; everybody gets them like this.
        if !matches!(name, "debian" | "ubuntu") {
            found.warn_of_plain_http(name, remarks);
        }
        if self.token(name).is_some() {
            remarks.warn(unused_token(name));
        }
        found
    }

    /// Authorities of the user's tools.
    fn add_authorities(&self, name: &str, found: &mut Found) {
        if found.base().is_none() {
            return;
        }
        let ca = &mut found.settings.ca;
        if is_npm(name) {
            let remarks = &mut self.remarks();
            if let Some((variable, path)) = self.environment.first(&["NODE_EXTRA_CA_CERTS"]) {
                ca.extend(authority(path.as_ref(), variable, remarks));
            }
        }
        if let Some(npm) = self.npm().filter(|_| is_npm(name)) {
            let (files, texts) = npm.authorities(&self.environment, &mut self.remarks());
            ca.extend(files);
            ca.extend(self.written(&texts));
        }
        if name == "pypi" {
            ca.extend(self.pip().authority(&self.environment, &mut self.remarks()));
        }
        ca.dedup();
    }

    fn scratch(&self) -> Option<&Path> {
        self.scratch.get_or_init(|| TempDir::with_prefix("wapack-").ok()).as_ref().map(TempDir::path)
    }

    fn empty_directory(&self) -> Option<PathBuf> {
        let directory = self.scratch()?.join("empty");
        fs_err::create_dir_all(&directory).ok()?;
        Some(directory)
    }

    /// A file with authorities that stand in a configuration themselves.
    fn written(&self, texts: &[String]) -> Option<PathBuf> {
        if texts.is_empty() {
            return None;
        }
        let path = self.scratch()?.join("npm-ca.pem");
        fs_err::write(&path, texts.join("\n")).ok()?;
        Some(path)
    }
}

impl FindSource for Finder {
    fn find(&self, name: &str) -> Option<SourceSettings> {
        self.find_anywhere(name).map(|found| found.settings)
    }
}

fn is_npm(name: &str) -> bool {
    name == npm::WHOLE || name.starts_with("npm:@")
}

fn cause(error: &InputError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

fn unused_token(name: &str) -> String {
    format!(
        "`{}` is not used: it goes with `{}`, or with the source `{name}` in the policy file",
        token_variable(name),
        source_variable(name)
    )
}
