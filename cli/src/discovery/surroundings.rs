//! Proxies and authorities that hold for every source.

use std::path::{Path, PathBuf};

use url::Url;
use wapack_runtime::network::{NetworkSettings, parse_proxy};
use wapack_runtime::policy::NetworkPolicy;

use super::environment::Environment;
use super::finder::Finder;
use super::found::{Remarks, authority};
use super::npm::Proxies;

/// A directory with more authorities than this is something else.
const MAX_AUTHORITIES: usize = 1024;

/// Settings without sources. The policy's proxies go before those of the
/// variables, and these before npm's: always all of them together, so that
/// nobody's exceptions are applied to another's proxy.
pub(super) fn settings(policy: &NetworkPolicy, finder: &Finder, with_npm: bool) -> NetworkSettings {
    let of_policy = Proxies {
        http: policy.http_proxy.clone(),
        https: policy.https_proxy.clone(),
        exceptions: policy.no_proxy.clone(),
    };
    let mut proxies = of_policy;
    if proxies == Proxies::default() {
        proxies = of_variables(finder.environment(), &mut finder.remarks());
    }
    if proxies == Proxies::default()
        && let Some(npm) = finder.npm().filter(|_| with_npm)
    {
        proxies = npm.proxies(&mut finder.remarks());
    }
    let mut ca = policy.ca.clone();
    ca.extend(authorities(finder.environment(), &mut finder.remarks()));
    NetworkSettings {
        http_proxy: proxies.http,
        https_proxy: proxies.https,
        no_proxy: proxies.exceptions,
        ca,
        offline: policy.offline,
        ..NetworkSettings::default()
    }
}

/// The variables that most programs follow, small letters first.
fn of_variables(environment: &Environment, remarks: &mut Remarks) -> Proxies {
    // A server that runs programs for its visitors sets `HTTP_PROXY` to a header of theirs.
    let is_cgi = environment.text("REQUEST_METHOD").is_some();
    let http = if is_cgi { &["http_proxy"][..] } else { &["http_proxy", "HTTP_PROXY"] };
    let mut proxy = |names: &[&str]| -> Option<Url> {
        let (name, text) =
            environment.first(names).or_else(|| environment.first(&["all_proxy", "ALL_PROXY"]))?;
        match parse_proxy(text) {
            Ok(url) => Some(url),
            Err(error) => {
                remarks.warn(format!("{name}: this proxy is not used: {error}"));
                None
            }
        }
    };
    Proxies {
        http: proxy(http),
        https: proxy(&["https_proxy", "HTTPS_PROXY"]),
        exceptions: environment.first(&["no_proxy", "NO_PROXY"]).map(|(_, hosts)| hosts.to_owned()),
    }
}

/// What OpenSSL's variables name. There they take the place of the system's
/// authorities; here they come beside them.
fn authorities(environment: &Environment, remarks: &mut Remarks) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Some(path) = environment.text("SSL_CERT_FILE") {
        found.extend(authority(path.as_ref(), "SSL_CERT_FILE", remarks));
    }
    if let Some(directories) = environment.text("SSL_CERT_DIR") {
        for directory in std::env::split_paths(directories).filter(|directory| directory.is_absolute()) {
            found.extend(hashed_files(&directory));
        }
    }
    found
}

/// Files as OpenSSL looks them up: `5ed36f99.0`.
fn hashed_files(directory: &Path) -> Vec<PathBuf> {
    let is_hashed = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
        name.is_some_and(|(hash, number)| {
            hash.len() == 8
                && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
                && number.parse::<u8>().is_ok()
        })
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries
        .take(MAX_AUTHORITIES)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_hashed)
        .collect();
    files.sort();
    files
}
