//! `wapack/node-engine`: Node.js, in the version that the app asks for.
//!
//! Knows the layer, what it says about itself, and how long a choice lasts. What
//! is asked for is the business of [`requirement`], what there is that of
//! [`inventory`], where it comes from that of [`install`], and what a plain app
//! starts that of [`start`].

pub mod install;
pub mod inventory;
pub mod requirement;
pub mod start;
pub mod wanted;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wapack_sdk::sbom::{Component, ComponentKind, CycloneDx};
use wapack_sdk::{
    BuildContext, Buildpack, Built, DetectContext, Detected, Error, Layer, LayerTypes, Operation,
    Requirement as PlanRequirement, Scope, fs,
};

use install::Archive;
use inventory::{Inventory, Release};
use requirement::Requirement;

/// The buildpack.
#[derive(Debug)]
pub struct NodeEngine;

/// What the plan calls Node.js, and what its layer is called.
const NODE: &str = "node";

/// Set to choose the version anew, as `wapack build --update` does.
pub const UPDATE_VARIABLE: &str = "WAPACK_UPDATE";

/// What the layer says to the next build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Installed {
    version: String,
    requirement: Requirement,
    archive: Archive,
}

impl Buildpack for NodeEngine {
    /// Looks for names only: every build of every app comes through here.
    fn detect(context: &DetectContext) -> Result<Detected, Error> {
        if !requirement::is_node_app(context)? {
            return Ok(Detected::fail("no `package.json`, `.nvmrc` or `.node-version`"));
        }
        // Required by itself, so that an app without packages gets Node.js too.
        let launch = std::collections::BTreeMap::from([("launch", true)]);
        let itself = PlanRequirement::new(NODE).metadata(&launch)?;
        Ok(Detected::pass().provides(NODE).requires(itself))
    }

    #[expect(clippy::print_stdout, reason = "the build's log")]
    fn build(context: &BuildContext) -> Result<Built, Error> {
        let text = fs::read_to_string(context.buildpack.join("inventory.json"))?;
        let inventory = Inventory::parse(&text)?;
        let arch = context.target.arch.as_str();
        let previous = context.restored_layer(NODE).and_then(|layer| layer.metadata::<Installed>().ok());

        let requirements = requirement::read(context)?;
        let choice = choose(&inventory, arch, &requirements, previous.as_ref(), update_is_asked(context))?;
        for line in &choice.log {
            println!("{line}");
        }

        start::check_packages(context)?;
        let layer = node_layer(context, &choice, previous)?;
        let process = start::process(context, &layer.path().join("bin/node"))?;
        let built = Built::new().layer(layer);
        Ok(match process {
            Some(process) => built.process(process),
            None => built,
        })
    }
}

wapack_sdk::export!(NodeEngine);

/// The version that this build uses, and what the log says of it.
#[derive(Debug)]
struct Choice<'a> {
    release: &'a Release,
    requirement: Requirement,
    log: Vec<String>,
}

/// Chooses by the first of `requirements`. An earlier choice for the same one
/// stays, so that a rebuild does not bring another Node.js by surprise.
fn choose<'a>(
    inventory: &'a Inventory,
    arch: &str,
    requirements: &[Requirement],
    previous: Option<&Installed>,
    update: bool,
) -> Result<Choice<'a>, Error> {
    let default = Requirement::default();
    let (first, rest) = match requirements.split_first() {
        Some((first, rest)) => (first, rest),
        None => (&default, &[][..]),
    };
    let wanted = first.wanted()?;
    let newest = inventory.resolve(&wanted, arch);
    let kept = previous
        .filter(|previous| !update && previous.requirement == *first)
        .and_then(|previous| inventory.get(&previous.version))
        .filter(|release| release.is_for(arch));
    let Some(release) = kept.or(newest) else {
        return Err(inventory.missing(first, &wanted, arch));
    };

    let mut log = vec![format!("Node.js {} ({first})", release.version)];
    if let Some(newest) = newest.filter(|newest| newest.version != release.version) {
        log.push(format!(
            "kept from an earlier build; `--update` chooses anew, which is {} now",
            newest.version
        ));
    }
    for other in rest {
        match other.wanted() {
            Ok(wanted) if wanted.matches(&release.version) => {}
            Ok(_) => log.push(format!("warning: this is not {other}, which counts less")),
            Err(_) => log.push(format!("warning: {other} is no version of Node.js")),
        }
    }
    Ok(Choice { release, requirement: first.clone(), log })
}

#[expect(clippy::print_stdout, reason = "the build's log")]
fn node_layer(
    context: &BuildContext,
    choice: &Choice<'_>,
    previous: Option<Installed>,
) -> Result<Layer, Error> {
    let arch = &context.target.arch;
    let version = choice.release.version.to_string();
    let mut archive = previous.map(|previous| previous.archive);
    let layer = context
        .layer(NODE, LayerTypes::LAUNCH | LayerTypes::BUILD | LayerTypes::CACHE)
        // The number counts changes of what is taken from the archive.
        .key(&[("version", version.as_str()), ("architecture", arch), ("format", "1")])
        .fill(|directory| {
            let installed = install::install(context, choice.release, directory)?;
            println!("installed from the source `{}`", installed.source);
            archive = Some(installed);
            Ok(())
        })?;
    let archive = archive.ok_or_else(|| Error::buildpack("a layer was restored without its metadata"))?;
    let bill = bill_of_materials(&version, &archive);
    let home = layer.path().to_owned();
    let installed = Installed { version, requirement: choice.requirement.clone(), archive };
    let chosen = installed.version.clone();
    Ok(layer
        .metadata(&installed)?
        .env(Scope::All, "NODE_HOME", Operation::Default, &home)
        // Later buildpacks leave out what is for another version.
        .env(Scope::Build, requirement::VERSION_VARIABLES[0], Operation::Override, chosen)
        .sbom(bill))
}

/// Named as scanners know it: Node.js is in no package registry, so what is
/// known of its weaknesses is found by the CPE.
fn bill_of_materials(version: &str, archive: &Archive) -> CycloneDx {
    let node = Component::generic(NODE, version)
        .kind(ComponentKind::Application)
        .cpe(format!("cpe:2.3:a:nodejs:node.js:{version}:*:*:*:*:*:*:*"))
        .license("MIT")
        .integrity(&archive.integrity);
    node.into()
}

fn update_is_asked(context: &DetectContext) -> bool {
    context.user_env.get(UPDATE_VARIABLE).is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

/// A file of the app for messages: `package.json`, `server/.nvmrc`.
fn shown(app: &Path, file: &Path) -> String {
    let relative: PathBuf = file.strip_prefix(app).unwrap_or(file).components().collect();
    relative.display().to_string()
}

#[cfg(test)]
mod tests;
