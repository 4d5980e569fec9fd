//! Where apt gets the distribution's own packages.
//!
//! Of all that apt is told, one archive is the distribution's: that of the
//! installed release, with the component `main`.

use std::path::PathBuf;

use super::environment::Environment;
use super::files::{self, Links};
use super::found::{Found, Remarks};

/// One archive that binary packages come from.
#[derive(Debug, PartialEq, Eq)]
struct Archive {
    address: String,
    suite: String,
    has_main: bool,
    line: usize,
}

/// The archive of the distribution called `name`, when this machine runs it.
pub(super) fn find(name: &str, environment: &Environment, remarks: &mut Remarks) -> Option<Found> {
    let release = files::read(&environment.system("etc/os-release"), Links::Follow).ok()??;
    if os_release(&release, "ID")? != name {
        return None;
    }
    let codename = os_release(&release, "VERSION_CODENAME");
    let mut candidates = Vec::new();
    for path in source_files(environment) {
        let text = match files::read(&path, Links::Follow) {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            Err(error) => {
                remarks.warn(format!("{} is not used: {error}", path.display()));
                continue;
            }
        };
        let is_deb822 = path.extension().is_some_and(|extension| extension == "sources");
        let archives = if is_deb822 { deb822(&text) } else { one_line(&text) };
        let fits = |archive: &Archive| {
            archive.has_main && codename.as_ref().is_none_or(|codename| archive.suite == *codename)
        };
        let is_web = |address: &str| {
            ["http://", "https://", "file:///"].iter().any(|scheme| address.starts_with(scheme))
        };
        for archive in archives.into_iter().filter(fits) {
            if is_web(&archive.address) {
                candidates.push((archive.address, format!("{}:{}", path.display(), archive.line)));
            }
        }
    }
    // Other people's archives name the same release; the distribution's own is called like it.
    let own = candidates
        .iter()
        .position(|(address, _)| address.trim_end_matches('/').ends_with(&format!("/{name}")))
        .unwrap_or_default();
    let (address, set_by) = candidates.into_iter().nth(own)?;
    Found::of_tool(&address, &set_by, remarks)
}

/// `sources.list`, then the others by name.
fn source_files(environment: &Environment) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(environment.system("etc/apt/sources.list.d"));
    let mut others: Vec<PathBuf> =
        entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    others.retain(|path| path.extension().is_some_and(|kind| kind == "list" || kind == "sources"));
    others.sort();
    others.insert(0, environment.system("etc/apt/sources.list"));
    others
}

fn os_release(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

/// # Shape
/// ```text
/// deb [signed-by=/etc/apt/x.gpg arch=amd64] http://mirror.example/debian bookworm main contrib
/// ```
fn one_line(text: &str) -> Vec<Archive> {
    let archive = |(line, text): (usize, &str)| {
        let rest = text.split('#').next()?.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix(char::is_whitespace)?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let (address, suite) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Archive { address, suite, has_main: words.any(|component| component == "main"), line })
    };
    (1..).zip(text.lines()).filter_map(archive).collect()
}

/// # Shape
/// ```text
/// Types: deb
/// URIs: http://mirror.example/debian
/// Suites: bookworm bookworm-updates
/// Components: main
/// ```
fn deb822(text: &str) -> Vec<Archive> {
    let mut archives = Vec::new();
    let mut stanza: Vec<(usize, String, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines().chain([""])) {
        if line.trim().is_empty() {
            archives.extend(of_stanza(&std::mem::take(&mut stanza)));
        } else if line.starts_with('#') {
            // In the middle of a field, too.
        } else if line.starts_with([' ', '\t']) {
            if let Some((.., value)) = stanza.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((key, value)) = line.split_once(':') {
            stanza.push((number, key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    archives
}

fn of_stanza(fields: &[(usize, String, String)]) -> Vec<Archive> {
    let field = |name: &str| fields.iter().find(|(_, key, _)| key == name);
    let words = |name: &str| field(name).map_or("", |(.., value)| value.as_str()).split_whitespace();
    let is_on = !words("enabled").any(|word| word == "no") && words("types").any(|word| word == "deb");
    let Some((line, ..)) = field("uris").filter(|_| is_on) else { return Vec::new() };
    let has_main = words("components").any(|component| component == "main");
    words("uris")
        .flat_map(|address| words("suites").map(move |suite| (address, suite)))
        .map(|(address, suite)| Archive {
            address: address.to_owned(),
            suite: suite.to_owned(),
            has_main,
            line: *line,
        })
        .collect()
}
