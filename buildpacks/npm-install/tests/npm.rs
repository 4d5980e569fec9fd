//! Our `node_modules` beside npm's own, file by file.
//!
//! Each test writes an app, has the npm of this machine lock and install it, and
//! builds it from the archives that npm fetched on the way. Without npm the
//! tests say so and pass; one that was asked for with `--ignored` is large.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a failure is a failed test, and skipping is said aloud"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use serde_json::Value;
use wapack_buildpack_npm_install::NpmInstall;
use wapack_sdk::testing::Project;
use wapack_sdk::{Built, LayerState, fs};

/// What every call of npm gets: nothing of this machine but its registry.
const QUIET: [&str; 6] = [
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
    "--update-notifier=false",
    "--omit-lockfile-registry-resolved=false",
];

/// An app that npm and we install.
struct App {
    /// npm's side.
    directory: tempfile::TempDir,
}

fn npm(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("npm")
        .args(arguments)
        .args(QUIET)
        .current_dir(directory)
        .output()
        .expect("npm is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "npm {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

impl App {
    /// Writes the files of an app; `None` when there is no npm.
    fn new(files: &[(&str, &str)]) -> Option<Self> {
        if Command::new("npm").arg("--version").output().is_err() {
            eprintln!("skipped: there is no npm on this machine");
            return None;
        }
        let app = Self { directory: tempfile::tempdir().unwrap() };
        for (name, text) in files {
            app.write(name, text);
        }
        Some(app)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let file = self.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// Has npm pack a directory into an archive of the app.
    fn pack(&self, directory: &str, to: &str) {
        let target = self.path().join(to);
        fs::create_dir_all(&target).unwrap();
        npm(&self.path().join(directory), &["pack", "--pack-destination", target.to_str().unwrap()]);
    }

    /// Has npm write the lock. A mirror that lacks packages for other systems
    /// makes one that npm itself refuses later, so these are forgotten.
    fn lock(self) -> Self {
        npm(self.path(), &["install", "--package-lock-only"]);
        let places = self.places();
        self.relock(|_, entry| {
            if let Some(optional) = entry.get_mut("optionalDependencies").and_then(Value::as_object_mut) {
                optional.retain(|name, _| {
                    places.iter().any(|place| place.ends_with(&format!("node_modules/{name}")))
                });
            }
        });
        self
    }

    /// The places of the lock.
    fn places(&self) -> Vec<String> {
        let lock = fs::read(self.path().join("package-lock.json")).unwrap();
        let lock: Value = serde_json::from_slice(&lock).unwrap();
        lock["packages"].as_object().unwrap().keys().cloned().collect()
    }

    /// The same lock as another kind of npm or registry would have written it.
    fn relock(&self, change: impl Fn(&str, &mut serde_json::Map<String, Value>)) {
        let file = self.path().join("package-lock.json");
        let mut lock: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for (place, entry) in lock["packages"].as_object_mut().unwrap() {
            change(place, entry.as_object_mut().unwrap());
        }
        fs::write(file, serde_json::to_string_pretty(&lock).unwrap()).unwrap();
    }

    /// Has npm install, builds the same with us, and compares.
    fn compare(&self) -> (Project, Built) {
        self.compare_with(&["--omit=dev"], |project| project)
    }

    fn compare_with(&self, omit: &[&str], change: impl FnOnce(Project) -> Project) -> (Project, Built) {
        let sources = tempfile::tempdir().unwrap();
        let ours = Project::new().unwrap();
        copy(self.path(), &ours.path().join("app"));
        npm(self.path(), &[&["ci"], omit].concat());
        let mut ours = change(ours.source("npm", sources.path()));
        for scope in self.fill(sources.path()) {
            ours = ours.source(format!("npm:{scope}"), sources.path());
        }
        let built = ours.build::<NpmInstall>().unwrap_or_else(|error| panic!("{error:?}"));
        let theirs = tree(self.path(), self.path(), self.path());
        let app = ours.path().join("app");
        let mut found = BTreeMap::new();
        for link in &built.app_links {
            let layer = ours.path().join("layers").join(&link.layer).join(&link.target);
            for (name, node) in tree(&layer, &layer, &app) {
                let name = if name.is_empty() { link.path.clone() } else { format!("{}/{name}", link.path) };
                found.insert(name, node);
            }
        }
        assert_eq!(differences(&theirs, &found), Vec::<String>::new());
        (ours, built)
    }

    /// Puts the archives that npm fetched where a registry would have them;
    /// answers the scopes that there are.
    fn fill(&self, directory: &Path) -> BTreeSet<String> {
        let cache = npm(self.path(), &["config", "get", "cache"]);
        let content = Path::new(cache.trim()).join("_cacache/content-v2/sha512");
        let lock: Value =
            serde_json::from_slice(&fs::read(self.path().join("package-lock.json")).unwrap()).unwrap();
        let mut scopes = BTreeSet::new();
        for (place, entry) in lock["packages"].as_object().unwrap() {
            let Some(hash) = entry["integrity"].as_str().and_then(|hash| hash.strip_prefix("sha512-")) else {
                continue;
            };
            let hash = base64::engine::general_purpose::STANDARD.decode(hash).unwrap();
            let hex = hash.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            let archive = content.join(&hex[..2]).join(&hex[2..4]).join(&hex[4..]);
            let name =
                entry["name"].as_str().unwrap_or_else(|| place.rsplit("node_modules/").next().unwrap());
            scopes.extend(name.split_once('/').map(|(scope, _)| scope.to_owned()));
            let base = name.rsplit('/').next().unwrap();
            let version = entry["version"].as_str().unwrap().split('+').next().unwrap();
            let file = directory.join(format!("{name}/-/{base}-{version}.tgz"));
            // What this platform does not need npm has not fetched.
            if archive.is_file() {
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::copy(archive, file).unwrap();
            }
        }
        scopes
    }
}

/// What a name of a tree is.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    Directory,
    File { contents: Vec<u8>, executable: bool },
    Link(PathBuf),
}

/// Everything in `node_modules` below `root`, which is npm's `app` or one of our
/// `node_modules`.
fn tree(root: &Path, directory: &Path, app: &Path) -> BTreeMap<String, Node> {
    let mut found = BTreeMap::new();
    let is_module =
        |path: &Path| root != app || path.components().any(|part| part.as_os_str() == "node_modules");
    if root == directory && root != app {
        found.insert(String::new(), Node::Directory);
    }
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let below = path.strip_prefix(root).unwrap().to_owned();
        let metadata = path.symlink_metadata().unwrap();
        let node = if metadata.is_symlink() {
            Node::Link(fs::read_link(&path).unwrap())
        } else if metadata.is_dir() {
            found.extend(tree(root, &path, app));
            Node::Directory
        } else {
            let executable = metadata.permissions().mode() & 0o100 != 0;
            Node::File { contents: fs::read(&path).unwrap(), executable }
        };
        if is_module(&below) {
            found.insert(below.display().to_string(), node);
        }
    }
    found
}

/// Runs a script in the app as it will be in the image, with the links into the
/// layer, and answers what it prints.
fn node(project: &Project, built: &Built, script: &str) -> String {
    let app = project.path().join("app");
    for link in &built.app_links {
        let place = app.join(&link.path);
        let _ = fs::remove_dir_all(&place);
        let target = project.path().join("layers").join(&link.layer).join(&link.target);
        std::os::unix::fs::symlink(target, place).unwrap();
    }
    let output = Command::new("node").args(["-e", script]).current_dir(app).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn differences(theirs: &BTreeMap<String, Node>, ours: &BTreeMap<String, Node>) -> Vec<String> {
    let mut differences = Vec::new();
    for name in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
        match (theirs.get(name), ours.get(name)) {
            (theirs, ours) if theirs == ours => {}
            (
                Some(Node::File { contents: a, executable: x }),
                Some(Node::File { contents: b, executable: y }),
            ) => {
                let (a, b) = (String::from_utf8_lossy(a), String::from_utf8_lossy(b));
                let line = a.lines().zip(b.lines()).find(|(a, b)| a != b);
                differences.push(format!("{name}: executable {x} {y}, first other line {line:?}"));
            }
            (Some(theirs), None) => differences.push(format!("{name}: only npm has {}", short(theirs))),
            (None, Some(ours)) => differences.push(format!("{name}: only we have {}", short(ours))),
            (theirs, ours) => {
                differences.push(format!("{name}: {:?} {:?}", theirs.map(short), ours.map(short)));
            }
        }
    }
    differences.truncate(20);
    differences
}

fn short(node: &Node) -> String {
    match node {
        Node::File { contents, .. } => format!("a file of {} bytes", contents.len()),
        other => format!("{other:?}"),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).unwrap() }
    }
}

#[test]
fn express_as_locked_by_version_3_and_2_with_and_without_addresses() {
    let package = r#"{"name":"web","version":"1.0.0","scripts":{"start":"node server.js"},
        "dependencies":{"express":"^4.21.0"},"devDependencies":{"ms":"^2.0.0","semver":"^7"}}"#;
    let Some(app) = App::new(&[("package.json", package), ("server.js", "")]) else { return };
    let app = app.lock();
    let (project, built) = app.compare();
    assert_eq!(built.processes[0].command, ["node", "server.js"]);
    assert_eq!(built.layers[0].state(), LayerState::Filled);
    // Packages find each other from where they really are.
    assert_eq!(node(&project, &built, "console.log(typeof require('express')())"), "function\n");
    // The same lock again: nothing is fetched.
    assert_eq!(project.build::<NpmInstall>().unwrap().layers[0].state(), LayerState::Restored);

    let _ = app.compare_with(&[], |project| project.user_env("WAPACK_NPM_INCLUDE", "dev"));
    app.relock(|_, entry| drop(entry.remove("resolved")));
    let _ = app.compare();

    npm(app.path(), &["install", "--package-lock-only", "--lockfile-version=2"]);
    let _ = app.compare();
    npm(app.path(), &["shrinkwrap"]);
    fs::copy(app.path().join("npm-shrinkwrap.json"), app.path().join("package-lock.json")).unwrap();
    let _ = app.compare();
}

#[test]
fn fastify_as_modules_of_the_standard() {
    let package =
        "{\n\t\"name\": \"api\",\n\t\"type\": \"module\",\n\t\"dependencies\": {\"fastify\": \"^5\"}\n}\n";
    let Some(app) = App::new(&[("package.json", package), ("server.js", "")]) else { return };
    let _ = app.lock().compare();
}

#[test]
fn koa_under_another_name_and_with_a_scope() {
    let package = r#"{"dependencies":{"web":"npm:koa@^2.15.0","router":"npm:@koa/router@^13","@koa/cors":"^5"},
        "optionalDependencies":{"left":"npm:left-pad@1.3.0"}}"#;
    let Some(app) = App::new(&[("package.json", package)]) else { return };
    let _ = app.lock().compare();
}

/// Two packages of a workspace want versions of `ms` that cannot be one, one of
/// them needs the other, and one of them has a program.
#[test]
fn workspaces_with_a_conflict_of_their_own() {
    let files = [
        (
            "package.json",
            r#"{"name":"all","workspaces":["packages/*","!packages/old"],"dependencies":{"ms":"2.0.0"}}"#,
        ),
        (
            "packages/a/package.json",
            r#"{"name":"@acme/a","version":"1.0.0","dependencies":{"ms":"2.1.3","@acme/b":"*","mkdirp":"^1"},
                "devDependencies":{"semver":"5.7.2"},"bin":{"a":"cli.js","mkdirp":"cli.js"},"scripts":{"start":"node cli.js"}}"#,
        ),
        ("packages/a/cli.js", "#!/usr/bin/env node\n"),
        (
            "packages/b/package.json",
            r#"{"name":"@acme/b","version":"2.0.0","license":"MIT","funding":"https://example.test",
                "dependencies":{"semver":"^7","mkdirp":"^0.5.6"}}"#,
        ),
        ("packages/old/package.json", r#"{"name":"old"}"#),
        ("packages/plain/package.json", r#"{"name":"plain","version":"1.0.0"}"#),
    ];
    let Some(app) = App::new(&files) else { return };
    let app = app.lock();
    // What the author has lying around is not part of the result.
    app.write("packages/b/node_modules/stray/index.js", "");
    app.write("packages/plain/node_modules/stray/index.js", "");
    let (project, built) = app.compare();
    assert_eq!(built.processes, []);
    let places: Vec<&str> = built.app_links.iter().map(|link| link.path.as_str()).collect();
    assert!(places.contains(&"node_modules") && places.contains(&"packages/a/node_modules"), "{places:?}");
    let script = "const real = require('fs').realpathSync; console.log(real('node_modules/@acme/b'));
        console.log(real('packages/b/node_modules/semver'))";
    let real = fs::canonicalize(project.path()).unwrap();
    let found = node(&project, &built, script);
    let (workspace, module) = found.trim().split_once('\n').unwrap();
    assert_eq!(Path::new(workspace), real.join("app/packages/b"));
    assert!(Path::new(module).starts_with(real.join("layers")), "{module}");
    drop(project);

    let (_, built) =
        app.compare_with(&["--omit=dev"], |app| app.user_env("WAPACK_NODE_PROJECT", "packages/a"));
    let web = &built.processes[0];
    assert_eq!(web.command, ["node", "cli.js"]);
    assert!(web.working_directory.as_ref().unwrap().ends_with("/app/packages/a"));
    let path = built.layers[0].environment().iter().find(|change| change.name == "PATH").unwrap();
    let place = |place: &str| project_less(&path.value, place);
    assert_eq!(path.value.split(':').count(), 3);
    assert!(place("/app/packages/a/node_modules/.bin") < place("/app/node_modules/.bin"), "{}", path.value);

    // A version that the lock has not heard of yet.
    app.write("packages/b/package.json", files[3].1.replace("2.0.0", "2.0.1"));
    let _ = app.compare();
}

fn project_less(path: &str, end: &str) -> usize {
    path.split(':').position(|entry| entry.ends_with(end)).unwrap()
}

/// Directories that are linked: one for production, one for development with
/// dependencies of its own, and one that only another one needs.
#[test]
fn directories_of_the_app_are_linked() {
    let files = [
        (
            "package.json",
            r#"{"dependencies":{"a":"file:lib/a"},"devDependencies":{"tool":"file:tools/tool"},
                "optionalDependencies":{"opt":"file:lib/opt"}}"#,
        ),
        (
            "lib/a/package.json",
            r#"{"name":"a","version":"1.0.0","dependencies":{"b":"file:../b","ms":"2.1.3"}}"#,
        ),
        ("lib/b/package.json", r#"{"name":"b","bin":{"b":"b.js"}}"#),
        ("lib/b/b.js", ""),
        ("lib/opt/package.json", r#"{"name":"opt","version":"1.0.0","os":["darwin"]}"#),
        ("tools/tool/package.json", r#"{"name":"tool","version":"0.1.0","dependencies":{"ms":"2.0.0"}}"#),
    ];
    let Some(app) = App::new(&files) else { return };
    let app = app.lock();
    let _ = app.compare();
    let _ = app.compare_with(&[], |app| app.exec_env("test"));
}

/// Two packages of a workspace link to directories that cannot both stand at
/// the root; one has the name that the layer has for such trees.
#[test]
fn links_of_every_node_modules_are_npms_and_lead_to_the_app() {
    let files = [
        (
            "package.json",
            r#"{"name":"all","workspaces":["packages/*","nested/0"],"dependencies":{"lib":"file:one","ms":"2.0.0"}}"#,
        ),
        (
            "packages/a/package.json",
            r#"{"name":"a","version":"1.0.0","dependencies":{"lib":"file:../../two","@acme/x":"*"}}"#,
        ),
        (
            "nested/0/package.json",
            r#"{"name":"@acme/x","version":"1.0.0","dependencies":{"ms":"2.1.3","lib":"file:./inner"}}"#,
        ),
        ("nested/0/index.js", "module.exports = require.resolve('ms')"),
        ("one/package.json", r#"{"name":"lib","version":"1.0.0","main":"package.json"}"#),
        ("two/package.json", r#"{"name":"lib","version":"2.0.0","main":"package.json","bin":"two.js"}"#),
        ("two/two.js", "#!/usr/bin/env node\n"),
        ("nested/0/inner/package.json", r#"{"name":"lib","version":"3.0.0","main":"package.json"}"#),
    ];
    let Some(app) = App::new(&files) else { return };
    let (project, built) = app.lock().compare();
    let layer = built.layers[0].path();
    let target = |place: &str| fs::read_link(layer.join(place)).unwrap();
    assert_eq!(target("node_modules/@acme/x"), Path::new("../../nested/0"));
    assert_eq!(target("nested_/1/packages/a/node_modules/lib"), Path::new("../../../two"));
    assert_eq!(target("nested_/0/nested/0/node_modules/lib"), Path::new("../inner"));

    let script = "const paths = paths => require.resolve('lib', {paths: [paths]});
        console.log([paths('.'), paths('packages/a'), paths('nested/0'), require('@acme/x')].join('\\n'))";
    let found = node(&project, &built, script);
    let found: Vec<&Path> = found.lines().map(Path::new).collect();
    let real = fs::canonicalize(project.path()).unwrap().join("app");
    let expected = ["one", "two", "nested/0/inner"].map(|place| real.join(place).join("package.json"));
    assert_eq!(found[..3], expected);
    assert!(found[3].ends_with("nested/0/node_modules/ms/index.js"), "{found:?}");
}

/// An archive of the app with programs as Windows leaves them, and one that
/// brings its dependencies along.
#[test]
fn archives_of_the_app_with_programs_and_bundled_packages() {
    let files = [
        (
            "package.json",
            r#"{"dependencies":{"crlf":"file:vendor/crlf-1.0.0.tgz","@acme/bundle":"file:vendor/acme-bundle-1.0.0.tgz",
                "nested":"file:vendor/nested-1.0.0.tgz","gap":"file:vendor/gap-1.0.0.tgz","odd":"file:vendor/odd.tgz",
                "ms":"2.1.3"}}"#,
        ),
        (
            "src/crlf/package.json",
            r#"{"name":"crlf","version":"1.0.0","bin":{"one":"bin/one.js","two":"./bin/../bin/two.js","gone":"gone.js",
                "mkdirp":"bin/one.js"},"directories":{"man":"man"},"license":{"type":"ISC","url":"x"}}"#,
        ),
        ("src/crlf/bin/one.js", "#!/usr/bin/env node\r\nconsole.log(1)\r\n"),
        ("src/crlf/bin/two.js", "#!/usr/bin/env node\nconsole.log(2)\r\n"),
        ("src/crlf/bin/three.js", "#!/usr/bin/env node\r\n"),
        ("src/crlf/sub/.npmignore", "nothing\n"),
        (
            "src/bundle/package.json",
            r#"{"name":"@acme/bundle","version":"1.0.0","dependencies":{"inner":"1.0.0","ms":"2.1.3"},
                "bundleDependencies":["inner"],"bin":"bundle.js"}"#,
        ),
        ("src/bundle/bundle.js", "#!/usr/bin/env node\r\n"),
        (
            "src/bundle/node_modules/inner/package.json",
            r#"{"name":"inner","version":"1.0.0","bin":"inner.js","dependencies":{"deep":"^1"},
                "scripts":{"postinstall":"x"},"funding":"https://example.test/fund"}"#,
        ),
        ("src/bundle/node_modules/inner/inner.js", "#!/usr/bin/env node\r\n"),
        (
            "src/bundle/node_modules/deep/package.json",
            r#"{"name":"deep","version":"1.2.3","_resolved":"x","directories":{"bin":"bin"}}"#,
        ),
        ("src/bundle/node_modules/deep/bin/tool", "#!/usr/bin/env node\r\n"),
        // It says that it brings something along, and does not.
        (
            "src/gap/package.json",
            r#"{"name":"gap","version":"1.0.0","dependencies":{"ms":"2.0.0"},"bundleDependencies":["ms"]}"#,
        ),
        // Packed by something else than npm, which would leave these out.
        ("src/odd/package/package.json", r#"{"name":"odd","version":"1.0.0"}"#),
        ("src/odd/package/.gitignore", "a"),
        ("src/odd/package/both/.gitignore", "b"),
        ("src/odd/package/both/.npmignore", "c"),
        // Of two programs with one name, the first package has it.
        (
            "src/nested/package.json",
            r#"{"name":"nested","version":"1.0.0","dependencies":{"mkdirp":"^1","semver":"5"}}"#,
        ),
    ];
    let Some(app) = App::new(&files) else { return };
    for name in ["crlf", "bundle", "nested", "gap"] {
        app.pack(&format!("src/{name}"), "vendor");
    }
    let odd = ["-czf", "vendor/odd.tgz", "-C", "src/odd", "package"];
    assert!(Command::new("tar").args(odd).current_dir(app.path()).status().unwrap().success());
    fs::remove_dir_all(app.path().join("src")).unwrap();
    let app = app.lock();
    let _ = app.compare();
}

/// What is for another system is left out with everything that only it needs.
#[test]
fn optional_packages_for_other_systems() {
    let package = r#"{"dependencies":{"esbuild":"0.25.0","chokidar":"^3.6.0","@parcel/watcher":"2.5.0"}}"#;
    let Some(app) = App::new(&[("package.json", package)]) else { return };
    let app = app.lock();
    let (_, built) = app.compare();
    let bill = &built.layers[0].sboms()[0].content;
    assert!(bill.contains("pkg:npm/%40esbuild/linux-x64@0.25.0"), "{bill}");
    assert!(!bill.contains("darwin") && !bill.contains("fsevents") && !bill.contains("musl"), "{bill}");
}

/// Peers decide who is there for development; the setting of older locks says
/// that they do not.
#[test]
fn peers_count_unless_the_app_says_otherwise() {
    let package = r#"{"dependencies":{"ajv-keywords":"5.1.0"},"devDependencies":{"ajv":"8.17.1"}}"#;
    let Some(app) = App::new(&[("package.json", package)]) else { return };
    let app = app.lock();
    let _ = app.compare();
    app.write("package.json", r#"{"dependencies":{"ajv-keywords":"5.1.0"}}"#);
    let app = app.lock();
    let _ = app.compare();
    app.write("package.json", package);
    app.write(".npmrc", "legacy-peer-deps = true\n");
    let app = app.lock();
    let _ = app.compare();
}

#[test]
#[ignore = "400 packages: minutes where the machine is busy"]
fn a_real_world_of_packages() {
    let package = r#"{"name":"big","version":"1.0.0","dependencies":{"express":"*","fastify":"*","koa":"*","lodash":"*",
        "axios":"*","winston":"*","mongoose":"*","socket.io":"*","next":"^15","react":"*","react-dom":"*","webpack":"*",
        "eslint":"*"}}"#;
    let Some(app) = App::new(&[("package.json", package)]) else { return };
    let _ = app.lock().compare();
}
