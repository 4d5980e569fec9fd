//! From a lock to a `node_modules`: first everything that is to be done, as
//! data, then the doing. The data is what the layer depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha512};
use wapack_sdk::downloads::Artifact;
use wapack_sdk::files::{self, Unpack};
use wapack_sdk::{BuildContext, Error, fs};

use crate::bins::{self, Bin, join};
use crate::hidden;
use crate::manifest::Layout;
use crate::mirror::{Link, Mirrors, ROOT_MODULES, outermost};
use crate::origin::{Origin, Refused};
use crate::select::Selection;
use crate::tree::{ROOT, Tree};

/// Part of the layer's key: to be counted up when the same lock makes another
/// tree than before.
pub const FORMAT: &str = "2";

/// One package to be unpacked. Places are relative to the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Where its files go.
    pub place: String,
    /// What messages call it.
    pub title: String,
    /// Where its archive is.
    pub origin: Origin,
    /// What the archive's hash has to be.
    pub integrity: Option<String>,
    /// It should come inside another archive and is only fetched if it did not.
    pub bundled: bool,
}

/// Everything that there is to do for one lock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Packages to unpack.
    pub packages: Vec<Package>,
    /// Links to directories of the app.
    pub links: Vec<Link>,
    /// Links to programs.
    pub bins: Vec<Bin>,
    /// The text of npm's own note of what is installed.
    pub hidden: Option<String>,
    /// The `node_modules` that the app gets links to.
    pub directories: BTreeSet<String>,
}

impl Plan {
    /// What there is to do. `layout` is that of the app's `package.json`.
    ///
    /// # Errors
    /// For a package that no build can get.
    pub fn new(tree: &Tree<'_>, selection: &Selection, layout: &Layout) -> Result<Self, Error> {
        let mut plan = Self { bins: bins::plan(tree, selection), ..Self::default() };
        for (id, node) in tree.nodes.iter().enumerate() {
            if id == ROOT || !selection.is_installed(tree, id) {
                continue;
            }
            let place = node.place.as_str().to_owned();
            plan.directories.insert(outermost(&place).to_owned());
            if let Some(target) = node.target {
                plan.links.push(Link { place, target: tree.nodes[target].place.as_str().to_owned() });
                continue;
            }
            let bundled = node.bundler.is_some_and(|bundler| bundler != ROOT);
            match Origin::of(tree, id) {
                Ok(origin) => plan.packages.push(Package {
                    place,
                    title: node.title(),
                    origin,
                    integrity: node.entry.integrity.as_ref().map(|hash| hash.as_str().to_owned()),
                    bundled,
                }),
                // Nothing to get it from, and nothing needed: it comes with another one.
                Err(_) if bundled => {}
                Err(refused) => return Err(refusal(&node.title(), refused)),
            }
        }
        if plan.directories.contains(ROOT_MODULES) {
            plan.hidden = Some(hidden::text(tree, selection, layout));
        }
        Ok(plan)
    }

    /// Everything that the result depends on, for the layer's key. `root` is
    /// where the lock is.
    ///
    /// # Errors
    /// When an archive of the app cannot be read.
    pub fn inputs(&self, root: &Path) -> Result<Vec<(&'static str, String)>, Error> {
        let mut archives = String::new();
        for package in &self.packages {
            if let Origin::File { path } = &package.origin {
                let archive = root.join(path);
                if !archive.is_file() {
                    return Err(Error::app(format!("`{path}` is not there, which is `{}`", package.title))
                        .hint("it has to be part of what is built: look into `.dockerignore` and `project.toml`"));
                }
                archives += &files::hash_tree(archive)?;
            }
        }
        Ok(vec![
            ("format", FORMAT.to_owned()),
            ("directory", root.display().to_string()),
            ("packages", format!("{:?}", self.packages)),
            ("archives of the app", archives),
            ("links and commands", format!("{:?}", (&self.links, &self.bins, &self.directories))),
            ("hidden lock", self.hidden.clone().unwrap_or_default()),
        ])
    }

    /// Where in the layer everything stands.
    pub fn mirrors(&self) -> Mirrors {
        Mirrors::new(&self.directories, &self.links)
    }

    /// Does it, into `directory`, which stands for `root`, where the lock is.
    ///
    /// # Errors
    /// When something cannot be had or written.
    pub fn carry_out(&self, context: &BuildContext, root: &Path, directory: &Path) -> Result<(), Error> {
        let mirrors = self.mirrors();
        let place = |place: &str| directory.join(mirrors.place(place));
        for modules in &self.directories {
            fs::create_dir_all(place(modules))?;
        }
        let (bundled, unpacked): (Vec<&Package>, Vec<&Package>) =
            self.packages.iter().partition(|package| package.bundled);
        get(context, root, &place, &unpacked)?;
        let missing: Vec<&Package> = bundled
            .into_iter()
            .filter(|package| !place(&package.place).join("package.json").is_file())
            .collect();
        get(context, root, &place, &missing)?;

        for (door, text) in mirrors.doors(&self.links, root) {
            link(&directory.join(door), &text)?;
        }
        for entry in &self.links {
            link(&place(&entry.place), &entry.text(root))?;
        }
        bins::install(&self.bins, place)?;
        if let Some(text) = &self.hidden {
            fs::write(directory.join(ROOT_MODULES).join(".package-lock.json"), text)?;
        }
        Ok(())
    }
}

fn link(place: &Path, text: &str) -> Result<(), Error> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    bins::symlink(text, place)
}

/// Fetches and unpacks packages, all at once, to where `place` says that theirs is.
fn get(
    context: &BuildContext,
    root: &Path,
    place: &dyn Fn(&str) -> PathBuf,
    packages: &[&Package],
) -> Result<(), Error> {
    let how = Unpack::strip(1).without_links().renaming(".gitignore", ".npmignore");
    let mut artifacts = Vec::new();
    for package in packages {
        let destination = place(&package.place);
        fs::create_dir_all(&destination)?;
        match &package.origin {
            Origin::Registry { source, path } | Origin::Address { source, path, .. } => {
                let artifact = Artifact::new(source, path, destination).unpack(how.clone());
                artifacts.push(match &package.integrity {
                    Some(hash) => artifact.integrity(hash),
                    None => artifact,
                });
            }
            Origin::File { path } => {
                let archive = root.join(path);
                check_file(&archive, path, package)?;
                files::unpack(archive, destination, &how)?;
            }
        }
    }
    if artifacts.is_empty() {
        return Ok(());
    }
    context.fetch(&artifacts).map_err(|error| explained(error, packages))
}

/// An archive of the app has to be the one that was locked.
fn check_file(archive: &Path, shown: &str, package: &Package) -> Result<(), Error> {
    let Some(expected) = package.integrity.as_deref().and_then(sha512_of) else { return Ok(()) };
    let actual = BASE64.encode(Sha512::digest(fs::read(archive)?));
    if expected.contains(&actual.as_str()) {
        return Ok(());
    }
    Err(Error::app(format!(
        "`{shown}` is not the archive that was locked as `{}`: expected `sha512-{}`, found `sha512-{actual}`",
        package.title,
        expected.join(" ")
    ))
    .hint("run `npm install` to lock the new one"))
}

/// The hashes of the strongest kind that npm writes, if there are any.
fn sha512_of(integrity: &str) -> Option<Vec<&str>> {
    let hashes: Vec<&str> = integrity
        .split_whitespace()
        .filter_map(|hash| hash.strip_prefix("sha512-"))
        .map(|hash| hash.split('?').next().unwrap_or(hash))
        .collect();
    (!hashes.is_empty()).then_some(hashes)
}

/// A source for a single host is one that nobody sets up before it is needed.
fn explained(error: Error, packages: &[&Package]) -> Error {
    if error.id.as_deref() != Some("source.unset") {
        return error;
    }
    let asked = |package: &&&Package| match &package.origin {
        Origin::Address { source, .. } => error.message.contains(&format!("`{source}`")),
        _ => false,
    };
    let Some(Package { title, origin: Origin::Address { source, host, .. }, .. }) =
        packages.iter().find(asked)
    else {
        return error;
    };
    Error::app(format!("cannot get `{title}`, which is asked for by an address at `{host}`: {}", error.message)).hint(
        format!(
            "depend on a version in the registry, or on an archive in the app (`file:`); or an operator allows the \
             address with a base for it under `[sources.\"{source}\"]`"
        ),
    )
}

fn refusal(title: &str, refused: Refused) -> Error {
    match refused {
        Refused::Git(address) => Error::app(format!("`{title}` comes from a git repository: `{address}`")).hint(
            "a build has neither git nor its passwords: publish the package, or `npm pack` it and depend on the archive \
             (`file:…tgz`)",
        ),
        Refused::Outside(path) => Error::app(format!("`{title}` is a file outside of the app: `{path}`"))
            .hint("put it into the app, or build the directory around both and name the app's with `WAPACK_NODE_PROJECT`"),
        Refused::Directory(path) => {
            Error::app(format!("`{title}` is a copy of the directory `{path}`, not a link to it"))
                .hint("run `npm install` without `install-links`, or make it a package of a workspace")
        }
        Refused::Nothing => Error::app(format!("the lock says neither where `{title}` is from nor its version"))
            .hint("run `npm install` to write the lock again"),
        Refused::Unknown(address) => {
            Error::app(format!("`{title}` comes from where no build can get it: `{address}`"))
                .hint("publish the package, or `npm pack` it and depend on the archive (`file:…tgz`)")
        }
    }
}

/// Directories of the app's own packages that have a `node_modules` from the
/// author's machine where the lock has nothing: the result must not have it.
pub fn leftovers(tree: &Tree<'_>, selection: &Selection, root: &Path) -> Vec<String> {
    (0..tree.nodes.len())
        .filter(|&id| {
            id == ROOT || tree.nodes[id].parent.is_none() && selection.stays(id) && tree.is_workspace(id)
        })
        .map(|id| join(tree.nodes[id].place.as_str(), "node_modules"))
        .filter(|place| outermost(place) == place && root.join(place).is_dir())
        .collect()
}

/// The packages by name and version, each once, for a bill of materials.
pub fn materials<'t>(tree: &'t Tree<'_>, selection: &Selection) -> Vec<&'t crate::tree::Node<'t>> {
    let mut once = BTreeMap::new();
    for (id, node) in tree.nodes.iter().enumerate() {
        if selection.is_installed(tree, id) && !node.is_link() {
            once.entry((node.package_name(), node.version())).or_insert(node);
        }
    }
    once.into_values().collect()
}
