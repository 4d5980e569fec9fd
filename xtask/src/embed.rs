//! Everything that becomes part of the `wapack` program.
//!
//! # Shape
//! ```text
//! <target>/embed/
//!   builder/                       also a builder directory as users may have one
//!     order.toml
//!     buildpacks/<id>/<version>/   id with `/` written as `_`
//!       buildpack.toml
//!       buildpack.wasm
//!       …                          what the buildpack's manifest lists
//!   builder.tar.gz                 the same, deterministic
//!   builder.digest                 of builder.tar.gz
//!   launcher/linux-{amd64,arm64}
//! ```
//!
//! A buildpack is a crate in `buildpacks/` with a `buildpack.toml`. What it
//! brings along beside its component stands in its `Cargo.toml`:
//! ```toml
//! [package.metadata.wapack]
//! files = ["LICENSE-of-something"]
//! assets = [{ package = "some-server", bin = "serve", profile = "server", path = "server/linux-{arch}/serve" }]
//! ```
//! An asset is a static program built for every architecture, from a crate in a
//! folder of the buildpack's. `buildpacks/order.toml` is the built-in order;
//! versions are filled in from each `buildpack.toml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::{Table, Value};

use crate::Result;
use crate::archive::{self, FIXED_TIME, write_if_changed};
use crate::command::{capture, cargo, run as run_command, step};
use crate::setup::{self, ARCHITECTURES, Architecture, WASM_TARGET};
use crate::workspace::{self, lookup, read_toml, text};

/// Builds and packs all of it.
pub(crate) fn run() -> Result<()> {
    setup::for_builds()?;
    let buildpacks = find_buildpacks()?;
    let packages: Vec<&str> = buildpacks.iter().map(|buildpack| buildpack.package.as_str()).collect();
    build_components(&packages, &["--lib"])?;
    for asset in buildpacks.iter().flat_map(|buildpack| &buildpack.assets) {
        for architecture in &ARCHITECTURES {
            build_asset(asset, architecture)?;
        }
    }
    build_launchers()?;
    assemble(&buildpacks)
}

/// Components of `packages`, from the kinds of targets that cargo is told to build.
pub(crate) fn build_components(packages: &[&str], kinds: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    step(&format!("building components: {}", packages.join(", ")));
    let mut command = cargo(&["build", "--quiet", "--target", WASM_TARGET, "--profile", "guest"]);
    command.args(kinds);
    for package in packages {
        command.args(["--package", package]);
    }
    run_command(reproducible(&mut command))
}

/// Where the component of a package comes out.
fn component(package: &str) -> PathBuf {
    workspace::target().join(WASM_TARGET).join("guest").join(format!("{}.wasm", package.replace('-', "_")))
}

struct Buildpack {
    directory: PathBuf,
    package: String,
    id: String,
    version: String,
    files: Vec<String>,
    assets: Vec<Asset>,
}

/// A static program that a buildpack puts into images.
struct Asset {
    package: String,
    directory: PathBuf,
    bin: String,
    profile: String,
    /// Inside the buildpack, with `{arch}` for the architecture.
    path: String,
}

fn find_buildpacks() -> Result<Vec<Buildpack>> {
    let mut buildpacks = Vec::new();
    for (directory, package) in workspace::crates(&workspace::root().join("buildpacks"))? {
        let descriptor = directory.join("buildpack.toml");
        if !descriptor.is_file() {
            continue;
        }
        let table = read_toml(&descriptor)?;
        let described = |key| {
            text(&table, &["buildpack", key])
                .map(str::to_owned)
                .map_err(|error| format!("`{}`: {error}", descriptor.display()))
        };
        let manifest = read_toml(&directory.join("Cargo.toml"))?;
        let extras = lookup(&manifest, &["package", "metadata", "wapack"]).and_then(Value::as_table);
        buildpacks.push(Buildpack {
            id: described("id")?,
            version: described("version")?,
            files: extras.map(listed_files).unwrap_or_default(),
            assets: match extras {
                Some(extras) => listed_assets(extras, &directory)?,
                None => Vec::new(),
            },
            directory,
            package,
        });
    }
    Ok(buildpacks)
}

fn listed_files(extras: &Table) -> Vec<String> {
    let files = extras.get("files").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    files.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn listed_assets(extras: &Table, buildpack: &Path) -> Result<Vec<Asset>> {
    let assets = extras.get("assets").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let inner_crates = workspace::crates(buildpack)?;
    let mut found = Vec::new();
    for asset in assets {
        let wrong = |problem: String| format!("an asset in `{}/Cargo.toml`: {problem}", buildpack.display());
        let asset = asset.as_table().ok_or_else(|| wrong("is no table".into()))?;
        let package = text(asset, &["package"]).map_err(wrong)?.to_owned();
        let (directory, _) = inner_crates
            .iter()
            .find(|(_, name)| *name == package)
            .ok_or_else(|| wrong(format!("no folder beside it holds the crate `{package}`")))?;
        found.push(Asset {
            directory: directory.clone(),
            bin: text(asset, &["bin"]).map_err(wrong)?.to_owned(),
            profile: text(asset, &["profile"]).unwrap_or("release").to_owned(),
            path: text(asset, &["path"]).map_err(wrong)?.to_owned(),
            package,
        });
    }
    Ok(found)
}

/// Builds a program for one architecture, unless nothing it is made of has changed.
///
/// Cargo would see that by itself, but for dependencies whose build scripts look
/// different to it every time; the web server has one, and takes a minute.
fn build_asset(asset: &Asset, architecture: &Architecture) -> Result<()> {
    let stamp =
        workspace::target().join("embed/stamps").join(format!("{}-{}", asset.package, architecture.target));
    let inputs = asset_inputs(asset, architecture)?;
    if let Some(inputs) = &inputs
        && fs::read_to_string(&stamp).is_ok_and(|built| built == *inputs)
        && program(architecture, &asset.profile, &asset.bin).is_file()
    {
        return Ok(());
    }
    step(&format!("building {} for {}", asset.bin, architecture.target));
    let mut command = static_build(architecture, &asset.profile);
    command.arg("--manifest-path").arg(asset.directory.join("Cargo.toml"));
    command.args(["--package", &asset.package, "--bin", &asset.bin]);
    run_command(&mut command)?;
    inputs.map_or(Ok(()), |inputs| write_if_changed(&stamp, inputs.as_bytes(), 0o644))
}

/// A digest of everything that a program is made of; `None` for one that is
/// built from more than its own folder, which a lock file of its own rules out.
fn asset_inputs(asset: &Asset, architecture: &Architecture) -> Result<Option<String>> {
    if !asset.directory.join("Cargo.lock").is_file() {
        return Ok(None);
    }
    let mut inputs = capture(Command::new("rustc").arg("--version"))?.into_bytes();
    let build = static_build(architecture, &asset.profile);
    inputs.extend_from_slice(format!("{build:?}").as_bytes());
    let cannot = |error: std::io::Error| format!("cannot read `{}`: {error}", asset.directory.display());
    for file in archive::walk(&asset.directory).map_err(cannot)? {
        if file.is_file() {
            inputs.extend_from_slice(file.as_os_str().as_encoded_bytes());
            inputs.extend_from_slice(&read(&file)?);
        }
    }
    Ok(Some(archive::digest(&inputs)))
}

/// The launcher, for every architecture.
pub(crate) fn build_launchers() -> Result<()> {
    for architecture in &ARCHITECTURES {
        step(&format!("building launcher for {}", architecture.target));
        run_command(static_build(architecture, "launcher").args(["--package", "wapack-launcher"]))?;
        let file = program(architecture, "launcher", "launcher");
        let bytes = read(&file)?;
        let name = format!("linux-{}", architecture.oci);
        write_if_changed(&workspace::target().join("embed/launcher").join(name), &bytes, 0o755)?;
    }
    Ok(())
}

/// A cargo build of a static program.
pub(crate) fn static_build(architecture: &Architecture, profile: &str) -> Command {
    let mut command = cargo(&["build", "--quiet", "--target", architecture.target, "--profile", profile]);
    command.arg("--target-dir").arg(workspace::target());
    let variable = architecture.target.replace('-', "_");
    command.env(format!("CC_{variable}"), architecture.c_compiler());
    command.env(format!("AR_{variable}"), architecture.archiver());
    // The toolchain's own linker knows every architecture, so no cross linker has to be installed.
    command.env(format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()), "rust-lld");
    reproducible(&mut command);
    command
}

/// Leaves the paths and the time of this machine out of what is built.
fn reproducible(command: &mut Command) -> &mut Command {
    let mut flags = vec![format!("--remap-path-prefix={}=/wapack", workspace::root().display())];
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("SOURCE_DATE_EPOCH", FIXED_TIME.to_string())
}

fn program(architecture: &Architecture, profile: &str, bin: &str) -> PathBuf {
    workspace::target().join(architecture.target).join(profile).join(bin)
}

/// Puts the builder directory together anew, and packs it.
fn assemble(buildpacks: &[Buildpack]) -> Result<()> {
    let embed = workspace::target().join("embed");
    let builder = embed.join("builder");
    // Anew, so that nothing of an earlier version stays.
    if builder.exists() {
        fs::remove_dir_all(&builder)
            .map_err(|error| format!("cannot remove `{}`: {error}", builder.display()))?;
    }
    for buildpack in buildpacks {
        let directory =
            builder.join("buildpacks").join(buildpack.id.replace('/', "_")).join(&buildpack.version);
        let copy = |from: &Path, to: &str, mode| write_if_changed(&directory.join(to), &read(from)?, mode);
        copy(&buildpack.directory.join("buildpack.toml"), "buildpack.toml", 0o644)?;
        copy(&component(&buildpack.package), "buildpack.wasm", 0o644)?;
        for file in &buildpack.files {
            copy(&buildpack.directory.join(file), file, 0o644)?;
        }
        for asset in &buildpack.assets {
            for architecture in &ARCHITECTURES {
                let to = asset.path.replace("{arch}", architecture.oci);
                copy(&program(architecture, &asset.profile, &asset.bin), &to, 0o755)?;
            }
        }
    }
    write_if_changed(&builder.join("order.toml"), order(buildpacks)?.as_bytes(), 0o644)?;

    let packed = archive::pack(&builder)?;
    write_if_changed(&embed.join("builder.tar.gz"), &packed, 0o644)?;
    write_if_changed(&embed.join("builder.digest"), archive::digest(&packed).as_bytes(), 0o644)?;
    step(&format!(
        "{} buildpacks in {} ({} kB)",
        buildpacks.len(),
        embed.join("builder.tar.gz").display(),
        packed.len() / 1000
    ));
    Ok(())
}

/// `buildpacks/order.toml` with the version of each buildpack.
fn order(buildpacks: &[Buildpack]) -> Result<String> {
    let path = workspace::root().join("buildpacks/order.toml");
    let order = read_toml(&path)?;
    let versions: BTreeMap<&str, &str> =
        buildpacks.iter().map(|buildpack| (buildpack.id.as_str(), buildpack.version.as_str())).collect();
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut written = String::from("# Built from buildpacks/order.toml.\n");
    for group in list(order.get("order")) {
        written.push_str("\n[[order]]\n");
        for member in list(group.get("group")) {
            let member = member.as_table().ok_or("a member of the order is no table")?;
            let id = text(member, &["id"])?;
            let version = versions.get(id).ok_or_else(|| {
                format!("`{}` names `{id}`, and no crate beside it is that buildpack", path.display())
            })?;
            let optional = member.get("optional").and_then(Value::as_bool).unwrap_or_default();
            let _ = write!(written, "\n[[order.group]]\nid = \"{id}\"\nversion = \"{version}\"\n");
            if optional {
                written.push_str("optional = true\n");
            }
        }
    }
    Ok(written)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))
}
