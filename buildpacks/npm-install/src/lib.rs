//! `wapack/npm-install`: the `node_modules` that a lock describes, and how the
//! app is started.
//!
//! Knows the order of the work, the layer and the process. What the lock says
//! is the business of [`lock`], [`tree`] and [`select`]; what follows from it
//! of [`mod@install`]; what is started of [`start`].

pub mod bins;
pub mod collate;
pub mod hidden;
pub mod install;
pub mod install_script;
pub mod lock;
pub mod manifest;
pub mod materials;
pub mod mirror;
pub mod origin;
pub mod platform;
pub mod project;
pub mod script;
pub mod select;
pub mod start;
pub mod sync;
pub mod tree;
pub mod unbuilt;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use wapack_sdk::{
    BuildContext, Buildpack, Built, DetectContext, Detected, Error, Layer, LayerState, LayerTypes, Operation,
    Process, Requirement, Scope, fs,
};

use install::Plan;
use lock::{Lock, LockError};
use manifest::Manifest;
use platform::Platform;
use project::{Found, Project};
use select::Selection;
use start::Start;
use tree::{Tree, TreeError};

/// The buildpack.
#[derive(Debug)]
pub struct NpmInstall;

/// The variable that asks for more than production needs.
const INCLUDE_VARIABLE: &str = "WAPACK_NPM_INCLUDE";

/// Where the buildpack that provides Node may say which one, for those after it.
const NODE_VERSION_VARIABLE: &str = "WAPACK_NODE_VERSION";

/// What is provided, under its name in the plan.
const NODE_MODULES: &str = "node_modules";

/// The layer. It must not have the name that Node looks for: in a `node_modules`
/// it does not look for another one, so that packages would not find each other.
const LAYER: &str = "modules";

/// The process that starts the app.
const WEB: &str = "web";

/// What to do about a lock that cannot be used.
const WRITE_LOCK: &str = "`npm install --package-lock-only --lockfile-version 3` writes one; commit it";

impl Buildpack for NpmInstall {
    fn detect(context: &DetectContext) -> Result<Detected, Error> {
        let project = match Project::find(context)? {
            Found::Project(project) => project,
            Found::Nothing(reason) => return Ok(Detected::fail(reason)),
        };
        let package = package_of(context, &project.place)?;
        let version = match package.node_version() {
            Some(version) => Some(version.to_owned()),
            None => package_of(context, &project.root)?.node_version().map(str::to_owned),
        };
        let node = Requirement::new("node").metadata(&NodeRequirement {
            launch: true,
            source: version.is_some().then_some("package.json"),
            version,
        })?;
        Ok(Detected::pass().provides(NODE_MODULES).requires(node).requires(NODE_MODULES))
    }

    fn build(context: &BuildContext) -> Result<Built, Error> {
        let Found::Project(project) = Project::find(context)? else {
            return Err(Error::app("the `package.json` is gone"));
        };
        let package = package_of(context, &project.place)?;
        let (layer, mut built) = install(context, &project)?;
        let directory = project.directory(&context.app);
        let path = start::search_path(&context.app, &project.place);
        let mode = if context.exec_env.is_empty() { "production" } else { &context.exec_env };
        let mut layer = layer.env(Scope::Launch, "NODE_ENV", Operation::Default, mode).env(
            Scope::Launch,
            "PATH",
            Operation::Prepend(":"),
            path,
        );
        if let Some(start) = Start::of(&package, &directory) {
            let process;
            (layer, process) = process_of(&start, layer);
            log(&format!("{WEB}: {}", start.line));
            for note in &start.notes {
                log(&format!("warning: {note}"));
            }
            warn_unbuilt(&package, &directory, &start);
            let is_below = !project.place.is_empty();
            built = built.process(if is_below {
                process.working_directory(directory.display().to_string())
            } else {
                process
            });
        } else {
            log(
                "warning: nothing to start: `package.json` has neither `scripts.start` nor a `main` that is there, and there is no `server.js`",
            );
        }
        Ok(built.layer(layer))
    }
}

wapack_sdk::export!(NpmInstall);

/// What the provider of Node is told.
#[derive(Debug, serde::Serialize)]
struct NodeRequirement {
    launch: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
}

/// One line of the build's log.
#[expect(clippy::print_stdout, reason = "the build's log")]
fn log(line: &str) {
    println!("{line}");
}

fn package_of(context: &DetectContext, place: &str) -> Result<Manifest, Error> {
    let shown = bins::join(place, "package.json");
    Ok(Manifest::read(&context.app.join(place), &shown)?.unwrap_or_default())
}

/// Fills the layer, and links the app to it.
fn install(context: &BuildContext, project: &Project) -> Result<(Layer, Built), Error> {
    let root = project.root_directory(&context.app);
    let root_package = package_of(context, &project.root)?;
    let Some(name) = project.lock else {
        needs_no_lock(&root_package)?;
        return empty(context);
    };
    let bytes = fs::read(root.join(name))?;
    let text = String::from_utf8_lossy(&bytes);
    let tree = tree_of(&text, name, &root, &root_package)?;
    let with_dev = includes_dev(context)?;
    let selection = selection_of(&tree, context, with_dev)?;
    let mut plan = Plan::new(&tree, &selection, &root_package.layout)?;
    plan.directories.extend(install::leftovers(&tree, &selection, &root));
    missing_directories(&plan, &root)?;

    let materials = install::materials(&tree, &selection);
    log(&format!(
        "{} packages{}",
        materials.len(),
        if with_dev { ", with those for development" } else { "" }
    ));
    let layer = context.layer(LAYER, LayerTypes::LAUNCH | LayerTypes::CACHE).key(&plan.inputs(&root)?).fill(
        |directory| {
            let below = directory.join(&project.root);
            fs::create_dir_all(&below)?;
            plan.carry_out(context, &root, &below)
        },
    )?;
    if layer.state() == LayerState::Restored {
        log("the lock has not changed: reusing what was installed");
    }
    for line in install_script::warning(&install_script::missed(&tree, &selection), &platform_of(context)) {
        log(&line);
    }
    let mirrors = plan.mirrors();
    let below = |place: &str| bins::join(&project.root, place);
    let built = plan.directories.iter().fold(Built::new(), |built, modules| {
        built.app_link(below(modules), &layer, below(&mirrors.place(modules)))
    });
    Ok((layer.sbom(materials::bill(&materials)), built))
}

/// What the lock `name` with this `text` says, if it fits the app.
fn tree_of<'t>(text: &'t str, name: &str, root: &Path, root_package: &Manifest) -> Result<Tree<'t>, Error> {
    let lock = Lock::parse(text.trim_start_matches('\u{feff}')).map_err(|error| unusable(name, error))?;
    let manifests = manifests(&lock, root)?;
    let options = tree::Options { ignore_peers: ignores_peers(root) };
    let tree = Tree::new(lock, root_package, manifests, options).map_err(|error| damaged(name, error))?;
    sync::check(&tree, root_package, name)?;
    Ok(tree)
}

/// What the image is.
fn platform_of(context: &BuildContext) -> Platform {
    let node = std::env::var(NODE_VERSION_VARIABLE).ok();
    Platform::of(&context.target, node.as_deref())
}

/// What of it is for the image.
fn selection_of(tree: &Tree<'_>, context: &BuildContext, with_dev: bool) -> Result<Selection, Error> {
    let platform = platform_of(context);
    let selection = Selection::new(tree, &platform, with_dev).map_err(|unfit| {
        let titles: Vec<String> = unfit.0.iter().map(|id| format!("`{}`", tree.nodes[*id].title())).collect();
        Error::app(format!("not for `{platform}`, which the image is: {}", titles.join(", "))).hint(
            "leave them out, make them `optionalDependencies`, or build for another platform or run image",
        )
    })?;
    for id in &selection.other_node {
        let package = &tree.nodes[*id];
        let wanted = package.entry.engines.get("node").and_then(|range| range.as_str()).unwrap_or_default();
        log(&format!("warning: `{}` is for another Node: `{wanted}`", package.title()));
    }
    Ok(selection)
}

/// The layer of an app without dependencies: only its environment.
fn empty(context: &BuildContext) -> Result<(Layer, Built), Error> {
    let layer = context
        .layer(LAYER, LayerTypes::LAUNCH | LayerTypes::CACHE)
        .key(&[("format", install::FORMAT), ("packages", "none")])
        .fill(|_| Ok(()))?;
    Ok((layer, Built::new()))
}

fn needs_no_lock(package: &Manifest) -> Result<(), Error> {
    let entry = &package.entry;
    let needed = entry.dependencies.len() + entry.optional_dependencies.len() + entry.peer_dependencies.len();
    if needed == 0 && entry.workspaces.is_null() {
        return Ok(());
    }
    Err(Error::app(
        "`package.json` has dependencies, and there is no `package-lock.json` that says which versions",
    )
    .hint(WRITE_LOCK))
}

fn unusable(name: &str, error: LockError) -> Error {
    match error {
        LockError::Version(version) => {
            Error::app(format!("`{name}` is of version {version}; 2 and 3 can be read")).hint(WRITE_LOCK)
        }
        LockError::Unreadable(reason) => {
            Error::app(format!("cannot read `{name}`: {reason}")).hint(WRITE_LOCK)
        }
    }
}

fn damaged(name: &str, error: TreeError) -> Error {
    let hint = "delete it and run `npm install` to write it again";
    let message = match error {
        TreeError::Place(place) => {
            format!("`{name}` has a package at `{place}`, which is no place in the app")
        }
        TreeError::Homeless(place) => format!("`{name}` has `{place}`, but not the package around it"),
        TreeError::Target(place, target) => {
            format!(
                "`{name}` has a link at `{place}` to `{target}`, which it does not know or which is not in the app"
            )
        }
    };
    Error::app(message).hint(hint)
}

/// The `package.json` of the packages in the app that the lock links to.
fn manifests(lock: &Lock<'_>, root: &Path) -> Result<BTreeMap<String, Manifest>, Error> {
    let mut manifests = BTreeMap::new();
    for (_, entry) in lock.packages.iter().filter(|(_, entry)| entry.link) {
        let target = entry.resolved.as_ref().and_then(|resolved| tree::normal(resolved.as_str()));
        let Some(target) = target.filter(|target| !is_in_node_modules(target)) else { continue };
        let shown = bins::join(&target, "package.json");
        if let Some(manifest) = Manifest::read(&root.join(&target), &shown)? {
            manifests.insert(target, manifest);
        }
    }
    Ok(manifests)
}

fn is_in_node_modules(place: &str) -> bool {
    place.split('/').any(|name| name == "node_modules")
}

/// Directories of the app that are linked to have to be there.
fn missing_directories(plan: &Plan, root: &Path) -> Result<(), Error> {
    match plan.links.iter().find(|link| !root.join(&link.target).is_dir()) {
        None => Ok(()),
        Some(link) => {
            Err(Error::app(format!("`{}` is not there, which `{}` links to", link.target, link.place)).hint(
                "it has to be part of what is built: look into `.dockerignore`, or build the directory that has both",
            ))
        }
    }
}

/// Whether packages for development are installed too.
fn includes_dev(context: &DetectContext) -> Result<bool, Error> {
    let asked = context.user_env.get(INCLUDE_VARIABLE).map(String::as_str).unwrap_or_default();
    let mut included = context.exec_env == "test";
    for word in asked.split([',', ' ']).filter(|word| !word.is_empty()) {
        match word {
            "dev" => included = true,
            // They are always there.
            "prod" | "optional" | "peer" => {}
            other => {
                return Err(Error::app(format!("`{INCLUDE_VARIABLE}` does not know `{other}`"))
                    .hint("it knows `dev`"));
            }
        }
    }
    Ok(included)
}

/// The one setting of the app's `.npmrc` that says how its lock is to be read.
fn ignores_peers(root: &Path) -> bool {
    let Ok(bytes) = fs::read(root.join(".npmrc")) else { return false };
    String::from_utf8_lossy(&bytes).lines().any(|line| {
        let line: String = line.chars().filter(|character| !character.is_whitespace()).collect();
        matches!(line.as_str(), "legacy-peer-deps=true" | "legacy-peer-deps")
    })
}

fn process_of(start: &Start, mut layer: Layer) -> (Layer, Process) {
    for (name, value) in &start.variables {
        layer = layer.env(Scope::Process(WEB.to_owned()), name, Operation::Override, value);
    }
    (layer, Process::new(WEB, start.command.clone()).default())
}

fn warn_unbuilt(package: &Manifest, directory: &Path, start: &Start) {
    let Some(missing) = unbuilt::missing(package, directory, &start.line) else { return };
    log("warning: ------------------------------------------------------------------------");
    log(&format!("warning: THIS IMAGE MAY NOT START: {missing}"));
    log("warning: a build does not run `scripts.build`. Run it first (`npm run build`), and have what it");
    log("warning: makes among what is built: not excluded by `.dockerignore` or `project.toml`");
    log("warning: ------------------------------------------------------------------------");
}
