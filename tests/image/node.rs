//! Real Node applications: from npm's registry to an answer over HTTP.
//!
//! Every folder of `tests/apps` is an application with its lock file. It is
//! built on Debian, its `node_modules` is compared with what npm itself makes
//! of the same lock, and it is started and asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wapack_runtime::event::LayerSource;
use wapack_runtime::oci::layout::read_image;
use wapack_runtime::phase::export::{Base, LauncherMode, RunImage};

use super::layout::debian;
use super::run::{Runtime, add_variables, can_run, embedded, get, unpack};
use super::tools::{have, run, wait_until};
use crate::support::{Site, found};

/// The layer that holds `node_modules`, in an unpacked image.
const MODULES: &str = "layers/wapack_npm-install/modules/node_modules";

fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apps")
}

/// Where this machine's npm gets packages from.
fn npm_registry() -> String {
    run(Command::new("npm").args(["config", "get", "registry"]).current_dir("/")).trim().to_owned()
}

/// A site that builds a copy of one of the applications on Debian; `None`, said aloud, where that is not possible.
fn site(app: &str) -> Option<Site> {
    if !can_run() || !have(&["npm", "node"]) {
        return None;
    }
    let image = read_image(&debian()?, Some("debian"), None).expect("the base");
    let mut site = Site::new();
    site.launcher_mode = LauncherMode::Auto;
    site.launcher = Some(embedded("launcher/linux-amd64"));
    for buildpack in ["node-engine", "npm-install"] {
        site.buildpacks.push(embedded(&format!("builder/buildpacks/wapack_{buildpack}/0.1.0")));
    }
    site.run_image =
        RunImage { base: Base::Image(Box::new(found(&image))), name: "debian:test".into(), mirrors: vec![] };
    site.npm = Some(npm_registry());
    fs::remove_dir_all(site.path("app")).expect("it is there");
    run(Command::new("cp").arg("-r").arg(apps().join(app)).arg(site.path("app")));
    Some(site)
}

/// What a tree holds: kind, mode and contents of every entry by its path.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = path.symlink_metadata().expect("an entry");
            let what = if metadata.is_symlink() {
                format!("link to {}", fs::read_link(&path).expect("a link").display())
            } else if metadata.is_dir() {
                pending.push(path.clone());
                "directory".to_owned()
            } else {
                let bytes = fs::read(&path).expect("a file");
                format!("{:o} {}", metadata.permissions().mode() & 0o7777, super::tools::sha256(&bytes))
            };
            found.insert(path.strip_prefix(root).expect("below").display().to_string(), what);
        }
    }
    found
}

/// What npm makes of the lock of `app`.
fn npm_ci(site: &Site, app: &str) -> PathBuf {
    let directory = site.path("npm");
    run(Command::new("cp").arg("-r").arg(apps().join(app)).arg(&directory));
    let mut npm = Command::new("sh");
    npm.args(["-c", "umask 022; exec npm ci --ignore-scripts --omit=dev --no-audit --no-fund"]);
    run(npm.current_dir(&directory));
    directory
}

#[track_caller]
fn same_trees(ours: &Path, npms: &Path) {
    let (ours, npms) = (tree(ours), tree(npms));
    let paths: BTreeSet<&String> = ours.keys().chain(npms.keys()).collect();
    let differences: Vec<String> = paths
        .into_iter()
        .filter(|path| ours.get(*path) != npms.get(*path))
        .map(|path| format!("{path}: ours {:?}, npm's {:?}", ours.get(path), npms.get(path)))
        .collect();
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        npms.len(),
        differences.join("\n")
    );
}

/// Starts the image's default process, asks it once, and sends it `signal`.
fn answer(bundle: &Path, signal: &str) -> Option<Value> {
    let runtime = Runtime::find(bundle)?;
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let (mut command, name) =
        runtime.prepare(bundle, |config| add_variables(config, &[&format!("PORT={port}")]));
    let mut container = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = String::new();
    wait_until("the application answers", || {
        if container.try_wait().expect("a process").is_some() {
            let mut errors = String::new();
            container.stderr.take().expect("it was asked for").read_to_string(&mut errors).expect("text");
            panic!("the container ended: {errors}");
        }
        said = get(port, "/").unwrap_or_default();
        !said.is_empty()
    });
    run(runtime.command(bundle).args(["kill", &name, signal]));
    let deadline = Instant::now() + Duration::from_secs(10);
    while container.try_wait().expect("a process").is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = container.try_wait().expect("a process").is_some();
    let _ = runtime.command(bundle).args(["delete", "--force", &name]).status();
    let mut output = String::new();
    container.stdout.take().expect("it was asked for").read_to_string(&mut output).expect("text");
    let _ = container.wait();
    assert!(ended, "`{signal}` did not reach the application");
    let (head, body) = said.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{said}");
    // Of a chunked body, the line that is JSON.
    let body = body.lines().find(|line| line.starts_with('{')).expect("JSON");
    let mut answer: Value = serde_json::from_str(body).expect("JSON");
    answer["output"] = json!(output);
    Some(answer)
}

#[test]
fn an_express_application_with_a_lock_runs_and_has_npms_tree() {
    let Some(site) = site("express") else { return };
    let digest = site.build().digest();
    let bundle = unpack(&site);
    let rootfs = bundle.join("rootfs");
    same_trees(&rootfs.join(MODULES), &npm_ci(&site, "express").join("node_modules"));
    let link = fs::read_link(rootfs.join("workspace/node_modules")).expect("a link");
    assert_eq!(link, Path::new("/").join(MODULES));
    if let Some(said) = answer(&bundle, "TERM") {
        assert_eq!(said["greeting"], "Hello");
        assert_eq!(said["environment"], "production");
        assert_eq!(said["version"], "1.2.3");
        // The signal reached the server, not a shell in front of it.
        assert_eq!(said["output"], "stopping\n");
    }

    // The same lock: no network, nothing made again.
    let mut offline = site;
    offline.offline = true;
    let again = offline.build();
    assert_eq!(again.digest(), digest);
    let layers = again.layers();
    for layer in ["wapack/node-engine:node", "wapack/npm-install:modules"] {
        assert_eq!(layers.get(layer), Some(&LayerSource::Reused), "{layers:?}");
    }
}

#[test]
fn an_application_of_es_modules_starts_at_its_main_file() {
    let Some(site) = site("fastify-esm") else { return };
    site.build().digest();
    let bundle = unpack(&site);
    same_trees(&bundle.join("rootfs").join(MODULES), &npm_ci(&site, "fastify-esm").join("node_modules"));
    if let Some(said) = answer(&bundle, "KILL") {
        assert_eq!(said["greeting"], "Hello");
    }
}

#[test]
fn an_alias_a_variable_and_a_prestart_script_work() {
    let Some(site) = site("koa-alias") else { return };
    site.build().digest();
    let bundle = unpack(&site);
    same_trees(&bundle.join("rootfs").join(MODULES), &npm_ci(&site, "koa-alias").join("node_modules"));
    if let Some(said) = answer(&bundle, "KILL") {
        assert_eq!(said["greeting"], "Hello there");
        assert_eq!(said["length"], 21);
        assert_eq!(said["output"], "preparing\n");
    }
}

#[test]
fn a_package_of_a_workspace_runs_with_its_siblings() {
    let Some(site) = site("workspaces") else { return };
    let site = site.env("WAPACK_NODE_PROJECT", "packages/server");
    site.build().digest();
    let bundle = unpack(&site);
    same_trees(&bundle.join("rootfs").join(MODULES), &npm_ci(&site, "workspaces").join("node_modules"));
    if let Some(said) = answer(&bundle, "KILL") {
        assert_eq!(said["greeting"], "Hello");
        assert_eq!((&said["ms"], &said["root"]), (&json!("2.1.3"), &json!("2.0.0")));
    }
}
