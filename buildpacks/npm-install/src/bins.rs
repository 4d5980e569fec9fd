//! The programs of packages: which links `.bin` directories have, and what npm
//! does to the files behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use wapack_sdk::{Error, files, fs};

use crate::collate;
use crate::select::Selection;
use crate::tree::{Id, Tree, normal, owner};

/// A link of a `.bin` directory. All paths are relative to the lock.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bin {
    /// Where the link is.
    pub place: String,
    /// Its text, relative to where it is.
    pub target: String,
    /// The file it leads to.
    pub program: String,
    /// Whether the file is the app's, which we do not change.
    pub is_apps: bool,
}

/// The links for everything that is installed, at most one for a place. Of
/// several packages in one `node_modules` with a program of one name the first
/// in npm's order wins; links to directories come last.
pub fn plan(tree: &Tree<'_>, selection: &Selection) -> Vec<Bin> {
    let mut packages: Vec<Id> = (0..tree.nodes.len())
        .filter(|&id| selection.is_installed(tree, id) && !tree.nodes[id].entry.bin.is_null())
        .collect();
    packages.sort_by(|&left, &right| {
        let (a, b) = (&tree.nodes[left], &tree.nodes[right]);
        a.is_link().cmp(&b.is_link()).then_with(|| collate::compare(a.place.as_str(), b.place.as_str()))
    });

    let mut seen = BTreeSet::new();
    let mut bins = Vec::new();
    for id in packages {
        let node = &tree.nodes[id];
        let place = node.place.as_str();
        let Some(around) = owner(place) else { continue };
        let directory = join(around, "node_modules/.bin");
        let up = place.strip_prefix(&join(around, "node_modules/")).unwrap_or(place);
        for (name, program) in normalized(&node.entry.bin, node.package_name()) {
            let link = join(&directory, &name);
            if seen.insert(link.clone()) {
                bins.push(Bin {
                    place: link,
                    target: format!("../{up}/{program}"),
                    program: join(place, &program),
                    is_apps: node.is_link(),
                });
            }
        }
    }
    bins
}

/// What a package's `bin` means: names without directories, and paths that stay
/// inside the package.
pub fn normalized(bin: &Value, package: &str) -> BTreeMap<String, String> {
    let base = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    let entries: Vec<(String, &Value)> = match bin {
        Value::String(_) => vec![(package.to_owned(), bin)],
        Value::Array(paths) => {
            paths.iter().map(|path| (base(path.as_str().unwrap_or_default()), path)).collect()
        }
        Value::Object(entries) => entries.iter().map(|(name, path)| (name.clone(), path)).collect(),
        _ => Vec::new(),
    };
    let mut clean = BTreeMap::new();
    for (name, path) in entries {
        let name = base(&inside(&name));
        let path = path.as_str().map(inside).unwrap_or_default();
        if !name.is_empty() && !path.is_empty() {
            clean.insert(name, path);
        }
    }
    clean
}

/// A path as seen from inside a package: `..` ends at its top.
fn inside(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split(['/', '\\', ':']) {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.join("/")
}

/// Makes the links and mends the files behind them, where `stands` says that
/// their places are. A program that is not there gets no link.
///
/// # Errors
/// When files cannot be written.
pub fn install(bins: &[Bin], stands: impl Fn(&str) -> PathBuf) -> Result<(), Error> {
    let mut made = BTreeSet::new();
    for bin in bins {
        let program = stands(&bin.program);
        if program.symlink_metadata().is_err() {
            continue;
        }
        let link = stands(&bin.place);
        if let Some(parent) = link.parent()
            && made.insert(parent.to_owned())
        {
            fs::create_dir_all(parent)?;
        }
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link)?;
        }
        symlink(&bin.target, &link)?;
        if !bin.is_apps && program.is_file() {
            files::set_executable(&program, true)?;
            mend_first_line(&program)?;
        }
    }
    Ok(())
}

/// Makes a link that says `target`.
///
/// # Errors
/// When it cannot be made.
#[expect(deprecated, reason = "what replaces it differs between targets")]
pub fn symlink(target: &str, link: &Path) -> Result<(), Error> {
    Ok(fs::soft_link(target, link)?)
}

/// A first line `#!…` that ends as lines of Windows do names a program that
/// does not exist.
fn mend_first_line(program: &Path) -> Result<(), Error> {
    let bytes = fs::read(program)?;
    // npm looks no further for the end of the line.
    let head = &bytes[..bytes.len().min(2048)];
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else { return Ok(()) };
    if !head.starts_with(b"#!") || end < 4 || head[end - 1] != b'\r' {
        return Ok(());
    }
    let mut mended = bytes[..end - 1].to_vec();
    mended.extend_from_slice(&bytes[end..]);
    // As npm, which writes back what it read as text.
    fs::write(program, String::from_utf8_lossy(&mended).as_bytes())?;
    files::set_executable(program, true)
}

/// `name` in the directory `place`, which may be the empty one.
pub fn join(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}/{name}") }
}

/// The directories of `.bin` links that a script in `project` finds, the
/// nearest first, down to the app.
pub fn search_path(app: &Path, project: &str) -> Vec<PathBuf> {
    let project = normal(project).unwrap_or_default();
    let mut directory = app.join(project);
    let mut found = Vec::new();
    loop {
        found.push(directory.join("node_modules/.bin"));
        if directory == app || !directory.pop() {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(bin: &Value) -> Vec<(String, String)> {
        normalized(bin, "@acme/tool").into_iter().collect()
    }

    #[test]
    fn all_forms_of_bin_become_names_and_paths_inside_the_package() {
        let pair = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        assert_eq!(names(&json!("./cli.js")), [pair("tool", "cli.js")]);
        assert_eq!(
            names(&json!({"a": "bin/a", "b/../c": "..\\..\\x"})),
            [pair("a", "bin/a"), pair("c", "x")]
        );
        assert_eq!(names(&json!(["bin/a.js"])), [pair("a.js", "bin/a.js")]);
        assert_eq!(names(&json!({"..": "x", "a": "", "b": 1, "c": "/"})), []);
        assert_eq!(names(&json!({"@s/a": "/etc/passwd"})), [pair("a", "etc/passwd")]);
    }

    /// The expected bytes are worked out from npm's pattern `^#![^\n]+\r\n`.
    #[test]
    fn only_the_first_line_is_mended() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x");
        for (before, after) in [
            ("#!/usr/bin/env node\r\nx\r\n", "#!/usr/bin/env node\nx\r\n"),
            ("#!/usr/bin/env node\nx\r\n", "#!/usr/bin/env node\nx\r\n"),
            ("// x\r\n", "// x\r\n"),
            ("#!\r\n", "#!\r\n"),
            ("#!x\r\n", "#!x\n"),
            ("#!x", "#!x"),
        ] {
            fs::write(&file, before).unwrap();
            mend_first_line(&file).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), after, "{before:?}");
        }
    }
}
