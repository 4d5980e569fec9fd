//! What the buildpack says about apps, without npm: verdicts, errors, and what
//! becomes of the layer. Trees are compared with npm's in `tests/npm.rs`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use sha2::{Digest as _, Sha512};
use wapack_sdk::testing::Project as App;
use wapack_sdk::{Fault, fs};

use super::*;

/// An app with a `package.json` and a lock of version 3 with these packages.
fn app(package: &str, packages: &str) -> App {
    let app = App::new().unwrap();
    app.app_file("package.json", package).unwrap();
    let root = package.replace("\"scripts\"", "\"_scripts\"");
    let lock = format!(r#"{{"name":"x","lockfileVersion":3,"packages":{{"":{root}{packages}}}}}"#);
    app.app_file("package-lock.json", lock).unwrap();
    app
}

fn error(app: &App) -> Error {
    app.build::<NpmInstall>().unwrap_err()
}

/// Makes an archive as npm does, and answers its integrity.
fn archive(app: &App, path: &str, files: &[(&str, &str)]) -> String {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = directory.path().join("package").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let file = app.path().join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let tar =
        Command::new("tar").arg("-C").arg(directory.path()).arg("-czf").arg(&file).arg("package").status();
    assert!(tar.unwrap().success());
    let hash = Sha512::digest(fs::read(file).unwrap());
    format!("sha512-{}", base64::engine::general_purpose::STANDARD.encode(hash))
}

const LEFT: &str = r#"{"dependencies":{"left":"^1.0.0"}}"#;

#[test]
fn detect_asks_for_the_node_that_the_package_is_for() {
    let app = app(r#"{"engines":{"node":">=20 <23"}}"#, "");
    let detected = app.detect::<NpmInstall>().unwrap();
    let [plan] = detected.alternatives() else { panic!("{detected:?}") };
    assert_eq!(plan.provides, ["node_modules"]);
    let names: Vec<&str> = plan.requires.iter().map(|requirement| requirement.name.as_str()).collect();
    assert_eq!(names, ["node", "node_modules"]);
    assert_eq!(
        plan.requires[0].metadata,
        "launch = true\nversion = \">=20 <23\"\nsource = \"package.json\"\n"
    );
}

#[test]
fn detect_says_why_not() {
    let app = App::new().unwrap();
    assert_eq!(app.detect::<NpmInstall>().unwrap().reason(), Some("no `package.json`"));
    app.app_file("package.json", "{}").unwrap();
    assert!(app.detect::<NpmInstall>().unwrap().is_pass());
    app.app_file("yarn.lock", "").unwrap();
    let detected = app.detect::<NpmInstall>().unwrap();
    assert!(detected.reason().unwrap().contains("npm install --package-lock-only"), "{detected:?}");
    app.app_file("package.json", "{").unwrap();
    app.app_file("package-lock.json", "").unwrap();
    let error = app.detect::<NpmInstall>().unwrap_err();
    assert_eq!((error.fault, error.message.contains("`package.json`")), (Fault::App, true));
}

#[test]
fn an_app_without_dependencies_needs_no_lock() {
    let app = App::new().unwrap();
    app.app_file("package.json", r#"{"scripts":{"start":"node ."},"devDependencies":{"x":"1"}}"#).unwrap();
    let built = app.build::<NpmInstall>().unwrap();
    assert_eq!((built.processes[0].command.join(" "), built.app_links.len()), ("node .".into(), 0));
    let mode = &built.layers[0].environment()[0];
    assert_eq!((mode.name.as_str(), mode.value.as_str()), ("NODE_ENV", "production"));
    assert_eq!(mode.operation, Operation::Default);
}

#[test]
fn a_lock_that_cannot_be_used_is_the_apps_fault() {
    let app = App::new().unwrap();
    app.app_file("package.json", LEFT).unwrap();
    for (lock, message) in [
        (None, "there is no `package-lock.json`"),
        (Some(r#"{"lockfileVersion":1,"dependencies":{"left":{"version":"1.0.0"}}}"#), "is of version 1"),
        (Some("<<<<<<< HEAD"), "cannot read `package-lock.json`"),
    ] {
        if let Some(lock) = lock {
            app.app_file("package-lock.json", lock).unwrap();
        }
        let error = error(&app);
        assert!(error.fault == Fault::App && error.message.contains(message), "{error:?}");
        assert!(error.hint.unwrap().contains("--package-lock-only --lockfile-version 3"));
    }
}

/// npm: `npm ci` can only install packages when both files are in sync.
#[test]
fn a_lock_that_does_not_fit_is_refused() {
    let missing = error(&app(LEFT, ""));
    assert!(missing.message.ends_with("`left@^1.0.0` is not locked"), "{missing:?}");
    let other = error(&app(LEFT, r#","node_modules/left":{"version":"2.0.0"}"#));
    assert!(other.message.ends_with("`left` is locked as `2.0.0`, not as `^1.0.0`"), "{other:?}");
    let alias = r#"{"dependencies":{"left":"npm:right@1"}}"#;
    let other = error(&app(alias, r#","node_modules/left":{"version":"1.0.0"}"#));
    assert!(other.message.contains("`left` is locked as `left@1.0.0`, not as `npm:right@1`"), "{other:?}");
}

#[test]
fn what_is_for_another_platform_is_named() {
    let packages = r#","node_modules/left":{"version":"1.0.0","cpu":["arm64"],"libc":["glibc"]}"#;
    let error = error(&app(LEFT, packages));
    assert_eq!(error.message, "not for `linux/x64/glibc`, which the image is: `left@1.0.0`");
    let sources = tempfile::tempdir().unwrap();
    let app = app(LEFT, packages).arch("arm64").source("npm", sources.path());
    archive(&app, "x.tgz", &[("package.json", "{}")]);
    fs::create_dir_all(sources.path().join("left/-")).unwrap();
    fs::copy(app.path().join("x.tgz"), sources.path().join("left/-/left-1.0.0.tgz")).unwrap();
    assert!(app.build::<NpmInstall>().is_ok());
}

#[test]
fn what_cannot_be_had_is_refused_with_a_way_out() {
    for (resolved, message, hint) in [
        ("git+ssh://git@host.test/a/b.git#1", "`left@1.0.0` comes from a git repository", "npm pack"),
        ("file:../left.tgz", "is a file outside of the app: `../left.tgz`", "WAPACK_NODE_PROJECT"),
        ("file:lib/left", "is a copy of the directory `lib/left`", "install-links"),
        ("file:left.tgz", "`left.tgz` is not there", ".dockerignore"),
    ] {
        let error = error(&app(
            LEFT,
            &format!(r#","node_modules/left":{{"version":"1.0.0","resolved":"{resolved}"}}"#),
        ));
        assert!(error.fault == Fault::App && error.message.contains(message), "{error:?}");
        assert!(error.hint.as_ref().unwrap().contains(hint), "{error:?}");
    }
}

#[test]
fn an_address_needs_a_source_of_its_own() {
    let package = r#"{"dependencies":{"left":"https://files.test/left.tgz"}}"#;
    let packages = r#","node_modules/left":{"version":"1.0.0","resolved":"https://files.test/left.tgz"}"#;
    let failed = error(&app(package, packages));
    assert!(failed.fault == Fault::App && failed.message.contains("`left@1.0.0`"), "{failed:?}");
    assert!(failed.hint.unwrap().contains("[sources.\"npm:files.test\"]"));
    let sources = tempfile::tempdir().unwrap();
    let app = app(package, packages).source("npm:files.test", sources.path());
    archive(&app, "x.tgz", &[("package.json", "{}")]);
    fs::copy(app.path().join("x.tgz"), sources.path().join("left.tgz")).unwrap();
    assert!(app.build::<NpmInstall>().is_ok());
}

/// A lock is the author's text: nothing in it leads out of the layer.
#[test]
fn places_and_links_stay_in_the_app() {
    for packages in [
        r#","node_modules/../../left":{"version":"1.0.0"}"#,
        r#","/node_modules/left":{"version":"1.0.0"}"#,
        r#","node_modules//left":{"version":"1.0.0"}"#,
        r#","node_modules/left":{"resolved":"../left","link":true}"#,
        r#","node_modules/left":{"resolved":"/etc","link":true}"#,
        r#","node_modules/left":{"resolved":"node_modules/left","link":true}"#,
        r#","node_modules/a/node_modules/left":{"version":"1.0.0"}"#,
    ] {
        let error = error(&app(LEFT, packages));
        assert!(
            error.fault == Fault::App && error.message.contains("package-lock.json"),
            "{packages}: {error:?}"
        );
    }
}

#[test]
fn an_archive_of_the_app_is_the_one_that_was_locked_and_part_of_the_key() {
    let app = App::new().unwrap();
    let write = |integrity: &str| {
        let package = r#"{"dependencies":{"left":"file:left.tgz"}}"#;
        app.app_file("package.json", package).unwrap();
        let packages = format!(
            r#"{{"":{package},"node_modules/left":{{"version":"1.0.0","resolved":"file:left.tgz","integrity":"{integrity}",
                "hasInstallScript":true}}}}"#
        );
        app.app_file("package-lock.json", format!(r#"{{"lockfileVersion":3,"packages":{packages}}}"#))
            .unwrap();
    };
    write(&archive(&app, "app/left.tgz", &[("package.json", "{}"), ("a", "1")]));
    let built = app.build::<NpmInstall>().unwrap();
    let file = built.layers[0].path().join("node_modules/left/a");
    assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    assert_eq!(app.build::<NpmInstall>().unwrap().layers[0].state(), LayerState::Restored);

    let integrity = archive(&app, "app/left.tgz", &[("package.json", "{}"), ("a", "2")]);
    let error = error(&app);
    assert!(error.message.contains("is not the archive that was locked"), "{error:?}");
    write(&integrity);
    assert_eq!(app.build::<NpmInstall>().unwrap().layers[0].state(), LayerState::Filled);
    assert_eq!(fs::read_to_string(file).unwrap(), "2");
}

#[test]
fn only_known_words_can_be_included() {
    let app = app("{}", "").user_env(INCLUDE_VARIABLE, "dev,test");
    assert!(error(&app).message.contains("`test`"));
}

/// Whatever a start script is, a real shell runs it as npm would, and the
/// signal that stops a container reaches the server.
#[test]
fn shells_pass_signals_on_to_the_server() {
    let server = "trap 'echo stopped; exit 3' TERM; echo up; \
                  for second in 1 2 3 4 5 6 7 8 9; do sleep 1 & wait $!; done";
    for (scripts, expected, status) in [
        (r#""start":"echo a && ./server.sh""#, "a\nup\nstopped\n", Some(3)),
        (
            r#""prestart":"echo pre $npm_lifecycle_event","start":"A=1 ./server.sh""#,
            "pre prestart\nup\nstopped\n",
            Some(3),
        ),
        (r#""start":"./server.sh","poststart":"echo after""#, "up\nstopped\n", Some(3)),
        (r#""start":"echo once","poststart":"echo $npm_lifecycle_event # x""#, "once\npoststart\n", Some(0)),
    ] {
        let app = App::new().unwrap();
        app.app_file("package.json", format!("{{\"scripts\":{{{scripts}}}}}")).unwrap();
        app.app_file("server.sh", format!("#!/bin/sh\n{server}\n")).unwrap();
        wapack_sdk::files::set_executable(app.path().join("app/server.sh"), true).unwrap();
        let built = app.build::<NpmInstall>().unwrap();
        let command = &built.processes[0].command;
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .env("npm_lifecycle_event", "start")
            .current_dir(app.path().join("app"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        while std::io::BufRead::read_line(&mut output, &mut text).unwrap() > 0 {
            if text.ends_with("up\n") {
                Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
            }
        }
        assert_eq!(text, expected, "{scripts}");
        assert_eq!(child.wait().unwrap().code(), status, "{scripts}");
        std::io::stdout().flush().unwrap();
    }
}

/// npm fetches by itself what an archive was to bring and did not.
#[test]
fn what_was_to_be_bundled_and_is_not_is_fetched() {
    let packages = r#","node_modules/left":{"version":"1.0.0","dependencies":{"inner":"1","deep":"1"},
            "bundleDependencies":["inner","deep"]},
        "node_modules/left/node_modules/inner":{"version":"1.0.0","inBundle":true},
        "node_modules/left/node_modules/deep":{"version":"1.0.0","inBundle":true}"#;
    let sources = tempfile::tempdir().unwrap();
    let app = app(LEFT, packages).source("npm", sources.path());
    let serve = |name: &str, files: &[(&str, &str)]| {
        archive(&app, "x.tgz", files);
        let place = sources.path().join(name).join("-");
        fs::create_dir_all(&place).unwrap();
        fs::copy(app.path().join("x.tgz"), place.join(format!("{name}-1.0.0.tgz"))).unwrap();
    };
    serve("left", &[("package.json", "{}"), ("node_modules/inner/package.json", "bundled")]);
    serve("deep", &[("package.json", "fetched")]);
    let built = app.build::<NpmInstall>().unwrap();
    let inside = built.layers[0].path().join("node_modules/left/node_modules");
    assert_eq!(fs::read_to_string(inside.join("inner/package.json")).unwrap(), "bundled");
    assert_eq!(fs::read_to_string(inside.join("deep/package.json")).unwrap(), "fetched");
}

/// The nearest package `name` for a file in `directory`, as Node looks for it:
/// in the directories around where that really is.
fn nearest(directory: &Path, name: &str) -> Option<String> {
    let real = fs::canonicalize(directory).unwrap();
    real.ancestors().find_map(|around| {
        fs::read_to_string(around.join("node_modules").join(name).join("package.json")).ok()
    })
}

/// Does what the host does with the links of the app.
fn link_app(app: &App, built: &Built) {
    for link in &built.app_links {
        let target = app.path().join("layers").join(&link.layer).join(&link.target);
        std::os::unix::fs::symlink(target, app.path().join("app").join(&link.path)).unwrap();
    }
}

/// A package of the workspace in another one: what its packages need may stand
/// in the `node_modules` of either, or in the root's.
#[test]
fn packages_are_found_in_every_node_modules_around() {
    let root = r#"{"workspaces":["a","a/b"]}"#;
    let packages = r#","node_modules/a":{"resolved":"a","link":true},"node_modules/b":{"resolved":"a/b","link":true},
        "a":{"dependencies":{"near":"1"}},"a/b":{"dependencies":{"left":"1"}},
        "node_modules/near":{"version":"1.0.0"},"node_modules/far":{"version":"1.0.0"},
        "a/node_modules/near":{"version":"1.1.0"},
        "a/b/node_modules/left":{"version":"1.0.0","dependencies":{"near":"1","far":"1"}}"#;
    let sources = tempfile::tempdir().unwrap();
    let app = app(root, packages).source("npm", sources.path());
    app.app_file("a/package.json", r#"{"name":"a","dependencies":{"near":"1"}}"#).unwrap();
    app.app_file("a/b/package.json", r#"{"name":"b","dependencies":{"left":"1"}}"#).unwrap();
    for (name, version) in [("near", "1.0.0"), ("near", "1.1.0"), ("far", "1.0.0"), ("left", "1.0.0")] {
        archive(&app, "x.tgz", &[("package.json", version)]);
        let place = sources.path().join(name).join("-");
        fs::create_dir_all(&place).unwrap();
        fs::copy(app.path().join("x.tgz"), place.join(format!("{name}-{version}.tgz"))).unwrap();
    }
    let built = app.build::<NpmInstall>().unwrap();
    link_app(&app, &built);
    let left = app.path().join("app/a/b/node_modules/left");
    assert_eq!(nearest(&left, "near").as_deref(), Some("1.1.0"));
    assert_eq!(nearest(&left, "far").as_deref(), Some("1.0.0"));
}

/// Links are relative to the project, which has a place of its own in the layer.
#[test]
fn links_of_a_project_below_lead_into_it() {
    let app = App::new().unwrap().user_env(project::PROJECT_VARIABLE, "sub/server");
    let package = r#"{"dependencies":{"lib":"file:lib","self":"file:."}}"#;
    let packages = format!(
        r#"{{"":{package},"lib":{{}},"node_modules/lib":{{"resolved":"lib","link":true}},
            "node_modules/self":{{"resolved":"","link":true}}}}"#
    );
    app.app_file("sub/server/package.json", package).unwrap();
    app.app_file("sub/server/lib/package.json", r#"{"name":"lib"}"#).unwrap();
    let lock = format!(r#"{{"lockfileVersion":3,"packages":{packages}}}"#);
    app.app_file("sub/server/package-lock.json", lock).unwrap();
    let built = app.build::<NpmInstall>().unwrap();
    link_app(&app, &built);
    let project = fs::canonicalize(app.path()).unwrap().join("app/sub/server");
    let modules = project.join("node_modules");
    let target = |name: &str| fs::read_link(modules.join(name)).unwrap();
    assert_eq!(target("lib"), Path::new("../lib"));
    assert_eq!(fs::canonicalize(modules.join("lib")).unwrap(), project.join("lib"));
    // npm's `..` would be a directory of the layer.
    assert_eq!(fs::canonicalize(target("self")).unwrap(), project);
}
