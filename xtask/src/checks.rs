//! Tests, lints and benchmarks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::command::{cargo, find_program, run, step, warn};
use crate::{conformance, embed, setup, workspace};

/// Builds what tests need and runs all of them.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    setup::for_containers()?;
    embed::run()?;
    guests()?;
    step("cargo test");
    let mut command = cargo(&["test", "--workspace"]);
    for package in not_for_this_machine()? {
        command.args(["--exclude", &package]);
    }
    run(command.args(arguments))
}

/// Components that only tests load: the crates in `tests/guests`, or that folder itself.
pub(crate) fn guests() -> Result<()> {
    setup::for_builds()?;
    let packages = guest_packages()?;
    if packages.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    // One behaviour each: an example is a component of its own without a crate of its own.
    embed::build_components(&packages, &["--bins", "--examples"])
}

fn guest_packages() -> Result<Vec<String>> {
    let folder = workspace::root().join("tests/guests");
    let mut packages: Vec<String> = workspace::crates(&folder)?.into_iter().map(|(_, name)| name).collect();
    if folder.join("Cargo.toml").is_file() {
        packages.push(workspace::package_name(&folder)?);
    }
    Ok(packages)
}

/// Crates that make sense only as components or inside images. Their logic, where
/// they have any of their own, is tested through the images.
fn not_for_this_machine() -> Result<Vec<String>> {
    let mut packages = guest_packages()?;
    for (directory, _) in workspace::crates(&workspace::root().join("buildpacks"))? {
        packages.extend(workspace::crates(&directory)?.into_iter().map(|(_, name)| name));
    }
    Ok(packages)
}

/// Everything that can be said about the code without running it.
pub(crate) fn check() -> Result<()> {
    setup::for_checks()?;
    // The command line program takes these in at compile time.
    embed::run()?;
    step("cargo fmt --check");
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    step("cargo clippy");
    let excluded = not_for_this_machine()?;
    let exclude = |command: &mut Command| {
        for package in &excluded {
            command.args(["--exclude", package]);
        }
    };
    let mut clippy = cargo(&["clippy", "--quiet", "--workspace", "--all-targets"]);
    exclude(&mut clippy);
    run(clippy.args(["--", "--deny", "warnings"]))?;
    step("cargo doc");
    let mut doc = cargo(&["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]);
    exclude(&mut doc);
    run(doc.env("RUSTDOCFLAGS", "--deny warnings"))?;
    conformance::check()?;
    dependencies()
}

/// `cargo deny`: bans, licences and sources always, advisories where their list can be fetched.
fn dependencies() -> Result<()> {
    if find_program("cargo-deny").is_none() {
        warn("dependencies were NOT checked; install the tool with `cargo install cargo-deny --locked`");
        return Ok(());
    }
    step("cargo deny");
    let manifests = locked_manifests()?;
    // The rules are found in the current directory, whichever manifest it is.
    let deny = |manifest: &Path, arguments: &[&str]| {
        let mut command = cargo(&["deny", "--log-level", "error", "--manifest-path"]);
        command.arg(manifest).args(arguments);
        command
    };
    for manifest in &manifests {
        run(&mut deny(manifest, &["check", "bans", "licenses", "sources"]))?;
    }
    let fetched = deny(&manifests[0], &["fetch", "db"]).stderr(Stdio::null()).status();
    if !fetched.is_ok_and(|status| status.success()) {
        warn("advisories were NOT checked: their list cannot be fetched from here");
        return Ok(());
    }
    for manifest in &manifests {
        run(&mut deny(manifest, &["--offline", "check", "advisories"]))?;
    }
    Ok(())
}

/// The workspace's manifest, and those of programs that have a lock file of their own.
fn locked_manifests() -> Result<Vec<PathBuf>> {
    let mut manifests = vec![workspace::root().join("Cargo.toml")];
    for (buildpack, _) in workspace::crates(&workspace::root().join("buildpacks"))? {
        for (directory, _) in workspace::crates(&buildpack)? {
            if directory.join("Cargo.lock").is_file() {
                manifests.push(directory.join("Cargo.toml"));
            }
        }
    }
    Ok(manifests)
}

/// Runs the tests in the mode in which they write what they otherwise compare with.
pub(crate) fn bless() -> Result<()> {
    embed::run()?;
    guests()?;
    step("cargo test, writing snapshots and golden files; look at the difference before you commit it");
    let mut command = cargo(&["test", "--quiet", "--workspace"]);
    for package in not_for_this_machine()? {
        command.args(["--exclude", &package]);
    }
    run(command.env("INSTA_UPDATE", "always").env("WAPACK_BLESS", "1"))
}
