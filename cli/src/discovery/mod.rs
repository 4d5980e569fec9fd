//! Where sources come from: the policy, and what the user already has.
//!
//! Gives settings and never uses them: nothing in here opens a connection. The
//! order in which one place goes before another is in [`finder`]; each tool's
//! own formats are in a file of their own.

mod apt;
mod environment;
mod files;
mod finder;
mod found;
mod go;
mod npm;
mod pip;
mod registries;
mod secret;
mod surroundings;
#[cfg(test)]
mod tests;
mod tool;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use wapack_runtime::cancel::Cancel;
use wapack_runtime::network::{Credentials, NetworkSettings, SourcePlace, SourceTrust};
use wapack_runtime::policy::{Origins, Policy, SourcePolicy, source_key};

use crate::failure::{Failure, InputError};
use crate::output::Output;
use finder::Trusted;
use registries::UserCredentials;

pub(crate) use environment::{Environment, token_variable};
pub(crate) use finder::Finder;
pub(crate) use found::{Found, Remark};
pub(crate) use registries::{InvalidRegistryAuth, registry_of_key};

/// Sources that this program knows how to look for.
const KNOWN: [&str; 4] = ["debian", "go", npm::WHOLE, "pypi"];

/// What decides about the network of a build.
#[derive(Debug)]
pub(crate) struct Network {
    /// Everything that could be found without asking anybody.
    pub(crate) settings: NetworkSettings,
    /// Looks for the others, when they are needed.
    pub(crate) finder: Arc<Finder>,
    /// Sources that no policy names, as they are in `settings`.
    discovered: BTreeMap<String, Found>,
}

/// What it is found from.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) origins: &'a Origins,
    /// The directory of the app, if there is one.
    pub(crate) app: Option<&'a Path>,
    /// Sources that somebody could ask for; their parts are among them.
    pub(crate) wanted: BTreeSet<String>,
    pub(crate) cancel: &'a Cancel,
}

/// Finds out, without asking any program and without reading the app's files.
///
/// # Errors
/// When wapack's own configuration, or a variable of its own, cannot be used.
/// What is wrong elsewhere is a remark of the finder.
pub(crate) fn network(question: &Question<'_>, environment: Environment) -> Result<Network, Failure> {
    let Question { policy, origins, app, wanted, cancel } = question;
    let is_operators = policy.ceiling.is_some();
    let trusted = Trusted {
        tools: !is_operators,
        app: policy.network.origins_from_lock_files,
        offline: policy.network.offline,
    };
    let configured = policy.sources.keys().cloned().collect();
    let credentials = UserCredentials::new(environment.clone(), *app, (*cancel).clone());
    let finder = Finder::new(environment, *app, trusted, configured, (*cancel).clone());
    let mut settings = surroundings::settings(&policy.network, &finder, wanted.contains(npm::WHOLE));
    settings.registries = policy.registry_settings(origins);
    settings.registry_credentials = Some(Arc::new(credentials));
    for (name, source) in &policy.sources {
        if is_wanted(name, wanted) {
            let set_by = policy.source_origin(name, origins).to_string();
            settings.sources.insert(name.clone(), of_policy(name, source, set_by, &finder)?.settings);
        }
    }
    let scopes =
        finder.npm().filter(|_| wanted.contains(npm::WHOLE)).map(|npm| npm.scopes().collect::<Vec<_>>());
    let names: BTreeSet<String> = wanted.iter().cloned().chain(scopes.unwrap_or_default()).collect();
    let mut discovered = BTreeMap::new();
    for name in names.into_iter().filter(|name| !policy.sources.contains_key(name)) {
        if let Some(found) = finder.find_at_hand(&name)? {
            settings.sources.insert(name.clone(), found.settings.clone());
            discovered.insert(name, found);
        }
    }
    Ok(Network { settings, finder: Arc::new(finder), discovered })
}

/// Finds out from wapack's own variables alone: programs of the lifecycle run where
/// no user has set anything up.
///
/// # Errors
/// When the variable that signs in to registries cannot be understood.
pub(crate) fn of_variables(
    policy: &Policy,
    environment: Environment,
    cancel: &Cancel,
) -> Result<Network, InvalidRegistryAuth> {
    let credentials = registries::of_program(environment.clone(), cancel.clone());
    let trusted = Trusted { tools: false, app: false, offline: policy.network.offline };
    let finder = Finder::new(environment, None, trusted, BTreeSet::new(), cancel.clone());
    let mut settings = surroundings::settings(&policy.network, &finder, false);
    settings.registry_credentials = Some(credentials?);
    Ok(Network { settings, finder: Arc::new(finder), discovered: BTreeMap::new() })
}

impl Network {
    /// Every source that no policy names; asks the installed tools, too.
    pub(crate) fn all_discovered(&self) -> BTreeMap<String, Found> {
        let mut all = self.discovered.clone();
        for name in KNOWN {
            if !self.settings.sources.contains_key(name)
                && let Some(found) = self.finder.find_anywhere(name)
            {
                all.insert(name.to_owned(), found);
            }
        }
        all
    }
}

/// Says what came up while looking.
pub(crate) fn say_remarks(finder: &Finder, output: &mut Output) {
    for remark in finder.take_remarks() {
        match remark {
            Remark::Warning(message) => output.warning(&message),
            Remark::Note(message) => output.note(&message),
        }
    }
}

/// All sources that are known here, for whoever wants to see them.
pub(crate) fn known_sources(policy: &Policy) -> BTreeSet<String> {
    policy.sources.keys().cloned().chain(KNOWN.map(str::to_owned)).collect()
}

/// A discovered source as a policy would write it; what is secret is only named.
pub(crate) fn shown(name: &str, found: &Found) -> Vec<(String, String, String)> {
    let Found { settings, signed_in_by } = found;
    let text = |text: &str| format!("{text:?}");
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let mut lines = Vec::new();
    let mut line = |key: &str, value: String| {
        lines.push((source_key(name, key), value, settings.set_by.clone()));
    };
    match &settings.place {
        SourcePlace::Base(url) => line("url", text(url.as_str())),
        SourcePlace::Directory(path) => line("directory", text(&path.to_string_lossy())),
    }
    if !settings.mirrors.is_empty() {
        line("mirrors", list(settings.mirrors.iter().map(|url| text(url.as_str())).collect()));
    }
    if !settings.ca.is_empty() {
        line("ca", list(settings.ca.iter().map(|path| text(&path.to_string_lossy())).collect()));
    }
    if let Some(credentials) = &settings.credentials {
        let key = match credentials {
            Credentials::Bearer(_) => "token",
            Credentials::Basic { .. } => "password",
        };
        let set_by = signed_in_by.as_ref().unwrap_or(&settings.set_by);
        lines.push((source_key(name, key), format!("(set by {set_by})"), set_by.clone()));
    }
    lines
}

/// Whether it, or what it is a part of, is asked for.
fn is_wanted(name: &str, wanted: &BTreeSet<String>) -> bool {
    let whole = name.split_once(':').map(|(whole, _)| whole);
    wanted.contains(name) || whole.is_some_and(|whole| wanted.contains(whole))
}

fn of_policy(
    name: &str,
    source: &SourcePolicy,
    set_by: String,
    finder: &Finder,
) -> Result<Found, InputError> {
    let mut found = Found::at(source.place.clone(), SourceTrust::Configured, set_by);
    found.settings.mirrors.clone_from(&source.mirrors);
    found.settings.ca.clone_from(&source.ca);
    if let Some(sign_in) = &source.sign_in {
        let (credentials, set_by) = secret::credentials(sign_in, finder.environment(), &mut finder.remarks())
            .map_err(|error| {
                let set_by = found.settings.set_by.clone();
                InputError::SourceSecret { name: name.to_owned(), set_by, source: error }
            })?;
        found.sign_in(Some(credentials), &set_by);
    } else if found.base().is_some()
        && let Some((token, variable)) = finder.token(name)
    {
        found.sign_in(Some(token), &variable);
    }
    Ok(found)
}
