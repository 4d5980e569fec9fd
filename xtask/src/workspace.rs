//! Where things are in this repository, and what its manifests say.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::Result;

/// The repository.
pub(crate) fn root() -> PathBuf {
    let manifest_directory =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest_directory.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's target directory, the same that a nested cargo uses.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |named| root().join(named))
}

/// Reads a TOML file.
pub(crate) fn read_toml(path: &Path) -> Result<Table> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    text.parse().map_err(|error| format!("`{}` is not valid TOML: {error}", path.display()))
}

/// The value at a path of keys.
pub(crate) fn lookup<'t>(table: &'t Table, keys: &[&str]) -> Option<&'t Value> {
    let (first, rest) = keys.split_first()?;
    rest.iter().try_fold(table.get(*first)?, |value, key| value.get(key))
}

/// The text at a path of keys.
pub(crate) fn text<'t>(table: &'t Table, keys: &[&str]) -> Result<&'t str> {
    lookup(table, keys)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("there should be a text `{}`, and is none", keys.join(".")))
}

/// The crates directly under a folder of the repository, sorted: directory and package name.
pub(crate) fn crates(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut directories: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(_) => return Ok(Vec::new()),
    };
    directories.sort();
    directories.retain(|directory| directory.join("Cargo.toml").is_file());
    directories.into_iter().map(|directory| package_name(&directory).map(|name| (directory, name))).collect()
}

/// The name of the package in a directory.
pub(crate) fn package_name(directory: &Path) -> Result<String> {
    let path = directory.join("Cargo.toml");
    let manifest = read_toml(&path)?;
    let name =
        text(&manifest, &["package", "name"]).map_err(|error| format!("`{}`: {error}", path.display()))?;
    Ok(name.to_owned())
}
