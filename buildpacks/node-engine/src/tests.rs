//! The buildpack as a whole, with sources that hold small archives.

use std::os::unix::fs::PermissionsExt;

use wapack_sdk::testing::Project;
use wapack_sdk::{Fault, LayerState};

use super::*;

/// One npm package for each architecture, `24.11.0` also for arm64 in name only.
const INVENTORY: &str = r#"{ "releases": {
    "26.0.0": { "npm": { "amd64": "sha512-a" } },
    "24.11.1": { "lts": "Krypton", "dist": { "amd64": "sha256:aa" } },
    "24.11.0": { "lts": "Krypton", "npm": { "amd64": "sha512-b" }, "dist": { "amd64": "sha256:bb" } },
    "22.11.0": { "lts": "Jod", "npm": { "amd64": "sha512-c", "arm64": "sha512-d" } }
} }"#;

/// An archive as both sources have them, with more in it than an image needs.
fn archive(version: &str) -> Vec<u8> {
    let mut archive =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (path, text) in [
        ("package/bin/node", version),
        ("package/LICENSE", "MIT"),
        ("package/include/node/node.h", "// much"),
        ("package/lib/node_modules/npm/index.js", "// more"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// An app that asks for `engines`, with the source `npm`.
fn project(engines: &str) -> Project {
    let project = Project::new().unwrap();
    project.buildpack_file("inventory.json", INVENTORY).unwrap();
    project.app_file("package.json", format!(r#"{{"engines":{{"node":"{engines}"}}}}"#)).unwrap();
    let npm = project.path().join("npm");
    for (arch, versions) in [("x64", &["26.0.0", "24.11.0", "22.11.0"][..]), ("arm64", &["22.11.0"])] {
        let package = npm.join(format!("node-linux-{arch}/-"));
        fs::create_dir_all(&package).unwrap();
        for version in versions {
            fs::write(package.join(format!("node-linux-{arch}-{version}.tgz")), archive(version)).unwrap();
        }
    }
    project.source("npm", npm)
}

/// The same with Node's own site beside it, which has `24.11.0`, and `22.11.0`
/// without a hash in the inventory.
fn with_nodejs(project: Project) -> Project {
    let nodejs = project.path().join("nodejs");
    for version in ["24.11.0", "22.11.0"] {
        let directory = nodejs.join(format!("v{version}"));
        fs::create_dir_all(&directory).unwrap();
        let name = format!("node-v{version}-linux-x64.tar.gz");
        fs::write(directory.join("SHASUMS256.txt"), format!("{}  {name}\n", "c".repeat(64))).unwrap();
        fs::write(directory.join(name), archive(&format!("{version} of nodejs"))).unwrap();
    }
    project.source("nodejs", nodejs)
}

fn installed(built: &Built) -> String {
    fs::read_to_string(built.layers[0].path().join("bin/node")).unwrap()
}

fn log(version: &str, previous: Option<(&str, &str)>, update: bool) -> Vec<String> {
    let inventory = Inventory::parse(INVENTORY).unwrap();
    let previous = previous.map(|(version, asked)| Installed {
        version: version.into(),
        requirement: Requirement::new(asked, "package.json"),
        archive: Archive { source: "npm".into(), integrity: String::new() },
    });
    let requirements = [
        Requirement::new(version, "package.json"),
        Requirement::new("22", ".nvmrc"),
        Requirement::new("twenty", ".node-version"),
    ];
    choose(&inventory, "amd64", &requirements, previous.as_ref(), update).unwrap().log
}

#[test]
fn takes_part_when_a_file_says_that_it_is_an_app_of_node() {
    let project = Project::new().unwrap();
    project.app_file("server.js", "").unwrap();
    let reason = "no `package.json`, `.nvmrc` or `.node-version`";
    assert_eq!(project.detect::<NodeEngine>().unwrap().reason(), Some(reason));
    for file in ["package.json", ".nvmrc", ".node-version", "web/package.json"] {
        let project = Project::new().unwrap().user_env("WAPACK_NODE_PROJECT", "web");
        project.app_file("web/x", "").unwrap();
        project.app_file(file, "not even JSON").unwrap();
        let detected = project.detect::<NodeEngine>().unwrap();
        let [plan] = detected.alternatives() else { panic!("{detected:?}") };
        assert_eq!(plan.provides, ["node"]);
        assert_eq!(
            (plan.requires[0].name.as_str(), plan.requires[0].metadata.as_str()),
            ("node", "launch = true\n")
        );
    }
    assert!(
        Project::new().unwrap().user_env("BP_NODE_VERSION", "22").detect::<NodeEngine>().unwrap().is_pass()
    );
}

#[test]
fn the_layer_has_the_program_and_its_licence_and_nothing_else() {
    let project = project(">=22");
    let built = project.build::<NodeEngine>().unwrap();
    let [layer] = built.layers.as_slice() else { panic!("{built:?}") };
    assert_eq!(installed(&built), "24.11.0");
    let mode = fs::metadata(layer.path().join("bin/node")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    let mut names: Vec<_> =
        fs::read_dir(layer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["LICENSE", "bin"]);
    assert!(!project.path().join("layers/unpacked").exists());
    assert_eq!(layer.environment()[0].name, "NODE_HOME");
    assert_eq!(layer.environment()[0].value, layer.path().display().to_string());
}

#[test]
fn the_bill_of_materials_is_the_same_for_a_reused_layer() {
    let project = project("22");
    let first = project.build::<NodeEngine>().unwrap();
    let second = project.build::<NodeEngine>().unwrap();
    assert_eq!(
        (first.layers[0].state(), second.layers[0].state()),
        (LayerState::Filled, LayerState::Restored)
    );
    assert_eq!(first.layers[0].sboms(), second.layers[0].sboms());
    let [sbom] = second.layers[0].sboms() else { panic!("one bill") };
    for part in [
        r#""purl":"pkg:generic/node@22.11.0""#,
        r#""cpe":"cpe:2.3:a:nodejs:node.js:22.11.0:*:*:*:*:*:*:*""#,
        r#""licenses":[{"license":{"id":"MIT"}}]"#,
    ] {
        assert!(sbom.content.contains(part), "{part}: {}", sbom.content);
    }
}

#[test]
fn nodes_own_site_comes_first_where_it_is_set() {
    let project_24 = with_nodejs(project("24"));
    let built = project_24.build::<NodeEngine>().unwrap();
    assert_eq!(installed(&built), "24.11.0 of nodejs");
    // Without a hash in the inventory, the one of the site counts.
    let project_22 = with_nodejs(project("22"));
    let built = project_22.build::<NodeEngine>().unwrap();
    assert_eq!(installed(&built), "22.11.0 of nodejs");
    assert!(built.layers[0].sboms()[0].content.contains(&"c".repeat(64)));
    // What it has not comes from npm.
    let project_26 = with_nodejs(project("26"));
    let built = project_26.build::<NodeEngine>().unwrap();
    assert_eq!(installed(&built), "26.0.0");
}

#[test]
fn the_architecture_is_that_of_the_image() {
    let arm64 = project("*").arch("arm64");
    let built = arm64.build::<NodeEngine>().unwrap();
    assert_eq!(installed(&built), "22.11.0");
    let error = project("*").arch("riscv64").build::<NodeEngine>().unwrap_err();
    assert_eq!(
        error.message,
        "there is no Node.js for `linux/riscv64` that is `*` in `engines` of `package.json`"
    );
}

#[test]
fn a_release_that_only_nodes_own_site_has_says_how_to_set_it() {
    let error = project("24.11.1").build::<NodeEngine>().unwrap_err();
    assert_eq!(error.fault, Fault::Environment);
    assert_eq!(error.message, "the source `npm` has no Node.js 24.11.1 for `linux/amd64`");
    assert!(error.hint.unwrap().contains("--grant source=nodejs"));
}

#[test]
fn an_app_error_names_what_was_asked_for_and_what_is_near() {
    let error = project("99").build::<NodeEngine>().unwrap_err();
    assert_eq!(error.fault, Fault::App);
    assert_eq!(
        error.message,
        "there is no Node.js for `linux/amd64` that is `99` in `engines` of `package.json`"
    );
    assert_eq!(error.hint.unwrap(), "the nearest are 22.11.0, 24.11.0, 26.0.0");
}

#[test]
fn a_choice_stays_until_the_requirement_changes_or_an_update_is_asked_for() {
    let project = project(">=22");
    let older = INVENTORY.replace(r#""24.11.0": { "lts": "Krypton","#, r#""24.11.0": {"#);
    project.buildpack_file("inventory.json", older).unwrap();
    assert_eq!(installed(&project.build::<NodeEngine>().unwrap()), "22.11.0");

    // A newer buildpack knows more releases.
    project.buildpack_file("inventory.json", INVENTORY).unwrap();
    let built = project.build::<NodeEngine>().unwrap();
    assert_eq!((installed(&built).as_str(), built.layers[0].state()), ("22.11.0", LayerState::Restored));

    let project = project.user_env(UPDATE_VARIABLE, "1");
    assert_eq!(installed(&project.build::<NodeEngine>().unwrap()), "24.11.0");
    let project = project.user_env(UPDATE_VARIABLE, "0");
    assert_eq!(installed(&project.build::<NodeEngine>().unwrap()), "24.11.0");

    project.app_file("package.json", r#"{"engines":{"node":"22 || 26"}}"#).unwrap();
    assert_eq!(installed(&project.build::<NodeEngine>().unwrap()), "22.11.0");
}

#[test]
fn the_log_says_what_was_chosen_and_why() {
    assert_eq!(
        log(">=22", None, false),
        [
            "Node.js 24.11.0 (`>=22` in `engines` of `package.json`)",
            "warning: this is not `22` in `.nvmrc`, which counts less",
            "warning: `twenty` in `.node-version` is no version of Node.js",
        ]
    );
    assert_eq!(
        log("*", Some(("22.11.0", "*")), false)[..2],
        [
            "Node.js 22.11.0 (`*` in `engines` of `package.json`)",
            "kept from an earlier build; `--update` chooses anew, which is 24.11.0 now",
        ]
    );
    for (asked_then, update) in [("*", true), ("22", false)] {
        assert_eq!(
            log("*", Some(("22.11.0", asked_then)), update)[0],
            "Node.js 24.11.0 (`*` in `engines` of `package.json`)"
        );
    }
    let inventory = Inventory::parse(INVENTORY).unwrap();
    let default = choose(&inventory, "amd64", &[], None, false).unwrap();
    assert_eq!(default.log, ["Node.js 24.11.0 (the newest `lts/*`; nothing asks for another)"]);
}

#[test]
fn a_plain_app_starts_its_server() {
    let project = project("22");
    project.app_file("server.js", "").unwrap();
    let built = project.build::<NodeEngine>().unwrap();
    let node = built.layers[0].path().join("bin/node").display().to_string();
    assert_eq!(built.processes[0].command, [node.as_str(), "server.js"]);
}

/// The fallback is for what is not there. What is wrong there stays an error.
#[test]
fn wrong_bytes_of_nodes_own_site_are_not_replaced_by_npms() {
    let project = with_nodejs(project("24"));
    let file = project.path().join("nodejs/v24.11.0/node-v24.11.0-linux-x64.tar.gz");
    fs::write(file, "no archive").unwrap();
    assert!(project.build::<NodeEngine>().is_err());
}
