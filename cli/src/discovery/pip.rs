//! What pip is set to: the index that the source `pypi` is.

use std::path::PathBuf;

use super::environment::Environment;
use super::files::{self, Links};
use super::found::{Found, Remarks, authority};

/// A value of a file, with its place.
struct Setting {
    section: String,
    key: String,
    value: String,
    set_by: String,
}

/// Settings that `pip install` would see; later ones win.
#[derive(Default)]
pub(super) struct Pip(Vec<Setting>);

impl Pip {
    pub(super) fn read(environment: &Environment, remarks: &mut Remarks) -> Self {
        let mut settings = Vec::new();
        for path in files_of(environment) {
            match files::read(&path, Links::Follow) {
                Ok(None) => {}
                Ok(Some(text)) => match parse(&text) {
                    Ok(items) => settings.extend(items.into_iter().map(|(line, section, key, value)| {
                        Setting { section, key, value, set_by: format!("{}:{line}", path.display()) }
                    })),
                    Err(line) => {
                        remarks.warn(format!(
                            "{}:{line} is not understood; the file is not used",
                            path.display()
                        ));
                    }
                },
                Err(error) => remarks.warn(format!("{} is not used: {error}", path.display())),
            }
        }
        Self(settings)
    }

    /// A value as `pip install` takes it: its own section goes before the general one.
    fn get(&self, key: &str) -> Option<(&str, &str)> {
        ["install", "global"].into_iter().find_map(|section| {
            let found = self.0.iter().rfind(|setting| setting.section == section && setting.key == key)?;
            Some((found.value.as_str(), found.set_by.as_str()))
        })
    }

    pub(super) fn find(&self, environment: &Environment, remarks: &mut Remarks) -> Option<Found> {
        let (address, set_by) = match environment.first(&["PIP_INDEX_URL"]) {
            Some((name, address)) => (address, name),
            None => self.get("index-url")?,
        };
        Found::of_tool(address, set_by, remarks)
    }

    /// Authorities that pip trusts.
    pub(super) fn authority(&self, environment: &Environment, remarks: &mut Remarks) -> Option<PathBuf> {
        let (path, set_by) = match environment.first(&["PIP_CERT"]) {
            Some((name, path)) => (path, name),
            None => match self.get("cert") {
                Some(found) => found,
                None => environment
                    .first(&["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
                    .map(|(name, path)| (path, name))?,
            },
        };
        authority(path.as_ref(), set_by, remarks)
    }
}

/// The files that pip reads, the last one wins.
fn files_of(environment: &Environment) -> Vec<PathBuf> {
    let named = environment.text("PIP_CONFIG_FILE").map(PathBuf::from);
    if named.as_ref().is_some_and(|path| path.as_os_str() == "/dev/null") {
        return Vec::new();
    }
    let mut files: Vec<PathBuf> = match environment.text("XDG_CONFIG_DIRS") {
        Some(directories) => std::env::split_paths(directories)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join("pip/pip.conf"))
            .collect(),
        None => vec![environment.system("etc/xdg/pip/pip.conf")],
    };
    files.push(environment.system("etc/pip.conf"));
    if !named.as_ref().is_some_and(|path| path.exists()) {
        files.extend(environment.home().map(|home| home.join(".pip/pip.conf")));
        files.extend(environment.config_home().map(|config| config.join("pip/pip.conf")));
    }
    files.extend(environment.path("VIRTUAL_ENV").map(|directory| directory.join("pip.conf")));
    files.extend(named.filter(|path| path.is_absolute()));
    files
}

/// Lines as Python's `configparser` reads them; `Err` is the line it would stop at.
fn parse(text: &str) -> Result<Vec<(usize, String, String, String)>, usize> {
    let mut items: Vec<(usize, String, String, String)> = Vec::new();
    let mut section = None;
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with(char::is_whitespace)
            && let Some((.., value)) = items.last_mut()
        {
            value.push('\n');
            value.push_str(trimmed);
            continue;
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            section = Some(rest.split_once(']').ok_or(number)?.0.to_owned());
            continue;
        }
        let (key, value) = trimmed.split_once(['=', ':']).ok_or(number)?;
        let key = key.trim().to_ascii_lowercase().replace('_', "-");
        let key = key.strip_prefix("--").unwrap_or(&key).to_owned();
        items.push((number, section.clone().ok_or(number)?, key, value.trim().to_owned()));
    }
    Ok(items)
}
