//! What is in an image: layers in their order, configuration, labels.
//!
//! Everything expected here is written by hand from the specification.

use std::path::Path;
use std::process::Command;

use acceptance::amd64;
use serde_json::{Value, json};
use wapack_runtime::fault::Diagnose as _;
use wapack_runtime::oci::layout::read_image;
use wapack_runtime::phase::export::{Base, LauncherMode, RunImage};

use super::layout::debian;
use super::tools::{Layout, diff_id, have, run_with, tar_file, tar_list};
use crate::support::{Outcome, Site, found};

/// The description of a directory, for `diff_id.py`.
fn directory(name: &str, owner: u32) -> Value {
    json!({ "name": name, "mode": 0o755, "uid": owner, "gid": owner })
}

fn file(name: &str, mode: u32, owner: u32, text: &str) -> Value {
    json!({ "name": name, "mode": mode, "uid": owner, "gid": owner, "text": text })
}

fn link(name: &str, mode: u32, owner: u32, target: &str) -> Value {
    json!({ "name": name, "mode": mode, "uid": owner, "gid": owner, "target": target })
}

/// The diffID of a layer that is made of `entries`, by an independent program.
fn diff_id_of(entries: &[Value]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/diff_id.py");
    let input = Value::from(entries.to_vec()).to_string();
    run_with(Command::new("python3").arg(script), input.as_bytes()).trim().to_owned()
}

/// How GNU tar shows the same entries.
fn shown(entries: &[Value]) -> Vec<String> {
    let show = |entry: &Value| {
        let text = |name: &str| entry[name].as_str();
        let kind = match (text("target"), text("text")) {
            (Some(_), _) => 'l',
            (None, Some(_)) => '-',
            (None, None) => 'd',
        };
        let mode = entry["mode"].as_u64().expect("a mode");
        let bits: String = (0..9)
            .map(|bit| if mode & (0o400 >> bit) == 0 { '-' } else { ['r', 'w', 'x'][bit % 3] })
            .collect();
        let size = text("text").map_or(0, str::len);
        let target = text("target").map(|target| format!(" -> {target}")).unwrap_or_default();
        format!(
            "{kind}{bits} {}/{} {size} 1980-01-01 00:00:01 {}{target}",
            entry["uid"],
            entry["gid"],
            text("name").expect("a name")
        )
    };
    entries.iter().map(show).collect()
}

/// The layers of the image of `well-behaved` with a launcher, in order, owned by `owner`.
fn expected_layers(owner: u32) -> Vec<Vec<Value>> {
    let root = "/layers/test_well-behaved";
    let above = [directory("/layers", owner), directory(root, owner)];
    let layer = |name: &str, rest: &[Value]| {
        let mut entries = above.to_vec();
        entries.push(directory(&format!("{root}/{name}"), owner));
        entries.extend_from_slice(rest);
        entries
    };
    let program = format!("{root}/program");
    vec![
        layer("assets", &[file(&format!("{root}/assets/asset"), 0o644, owner, "1")]),
        layer(
            "program",
            &[
                directory(&format!("{program}/bin"), owner),
                file(&format!("{program}/bin/program"), 0o755, owner, "1"),
                directory(&format!("{program}/env.launch"), owner),
                file(&format!("{program}/env.launch/PATH.delim"), 0o644, owner, ":"),
                file(&format!("{program}/env.launch/PATH.prepend"), 0o644, owner, "/program/bin"),
            ],
        ),
        vec![
            directory("/layers", owner),
            directory("/layers/sbom", owner),
            directory("/layers/sbom/launch", owner),
            directory("/layers/sbom/launch/test_well-behaved", owner),
            directory("/layers/sbom/launch/test_well-behaved/program", owner),
            file("/layers/sbom/launch/test_well-behaved/program/sbom.cdx.json", 0o644, owner, "{}"),
        ],
        vec![
            directory("/workspace", owner),
            file("/workspace/index.html", 0o644, owner, "<h1>hello</h1>\n"),
            link("/workspace/linked", 0o777, owner, "/layers/test_well-behaved/assets/asset"),
        ],
        vec![
            directory("/cnb", 0),
            directory("/cnb/lifecycle", 0),
            file("/cnb/lifecycle/launcher", 0o755, 0, "not a real launcher"),
        ],
        vec![
            directory("/layers", owner),
            directory("/layers/config", owner),
            file("/layers/config/metadata.toml", 0o644, owner, METADATA_TOML),
        ],
        vec![
            directory("/cnb", 0),
            directory("/cnb/process", 0),
            link("/cnb/process/web", 0o755, 0, "/cnb/lifecycle/launcher"),
        ],
    ]
}

/// What the launcher reads.
const METADATA_TOML: &str = "\
buildpack-default-process-type = \"web\"

[[buildpacks]]
  id = \"test/well-behaved\"
  version = \"1.0.0\"
  api = \"0.12\"

[[labels]]
  key = \"well-behaved\"
  value = \"yes\"

[[processes]]
  type = \"web\"
  command = [\"/layers/test_well-behaved/program/bin/program\"]
  args = [\"--polite\"]
  direct = true
  buildpack-id = \"test/well-behaved\"
";

/// IMG-08, in the order of EXP-03.
const HISTORY: [&str; 7] = [
    "Layer: 'assets', Created by buildpack: test/well-behaved@1.0.0",
    "Layer: 'program', Created by buildpack: test/well-behaved@1.0.0",
    "Software Bill-of-Materials",
    "Application Layer",
    "Buildpacks Application Launcher",
    "Buildpacks Launcher Config",
    "Buildpacks Process Types",
];

fn well_behaved(launcher_mode: LauncherMode) -> Site {
    let mut site = Site::new().guest("well-behaved");
    site.launcher_mode = launcher_mode;
    site
}

/// EXP-03, TAR-01 to TAR-04, TAR-07, TAR-11 to TAR-14: GNU tar shows what it should, and tar made by another program has the same digest.
#[test]
fn layers_are_in_order_with_their_owners_modes_and_times() {
    if !have(&["python3"]) {
        return;
    }
    let site = well_behaved(LauncherMode::Always);
    site.build().digest();
    let layout = Layout::verified(&site.path("image"));
    check_layers(&layout, &layout.layers(), 1000);
}

fn check_layers(layout: &Layout, found: &[std::path::PathBuf], owner: u32) {
    let (_, configuration) = layout.image();
    let diff_ids = configuration["rootfs"]["diff_ids"].as_array().expect("a list");
    let below = diff_ids.len() - found.len();
    let expected = expected_layers(owner);
    assert_eq!(found.len(), expected.len());
    for ((layer, entries), recorded) in found.iter().zip(&expected).zip(&diff_ids[below..]) {
        assert_eq!(tar_list(layer), shown(entries));
        assert_eq!(diff_id(layer), diff_id_of(entries));
        assert_eq!(*recorded, diff_id(layer));
    }
}

/// IMG-01 to IMG-04, IMG-07, IMG-08, LBL-10 to LBL-13, LBL-16 to LBL-17, EXE-03.
#[test]
fn configuration_and_labels_are_those_of_the_specification() {
    let site = well_behaved(LauncherMode::Always);
    site.build().digest();
    let layout = Layout::verified(&site.path("image"));
    let (manifest, configuration) = layout.image();
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    for layer in manifest["layers"].as_array().expect("a list") {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    }
    let history: Vec<Value> =
        HISTORY.iter().map(|text| json!({ "created": "1980-01-01T00:00:01Z", "created_by": text })).collect();
    let mut configuration = configuration;
    let labels = configuration["config"]["Labels"].take();
    let diff_ids = configuration["rootfs"]["diff_ids"].take();
    assert_eq!(
        configuration,
        json!({
            "created": "1980-01-01T00:00:01Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "User": "1000:1000",
                "Env": [
                    "CNB_LAYERS_DIR=/layers",
                    "CNB_APP_DIR=/workspace",
                    "CNB_PLATFORM_API=0.15",
                    "CNB_DEPRECATION_MODE=quiet",
                    "PATH=/cnb/process:/cnb/lifecycle"
                ],
                "Entrypoint": ["/cnb/process/web"],
                "WorkingDir": "/workspace",
                "Labels": null
            },
            "rootfs": { "type": "layers", "diff_ids": null },
            "history": history
        })
    );
    assert_labels(&labels, &diff_ids);
}

fn assert_labels(labels: &Value, diff_ids: &Value) {
    let label = |name: &str| -> Value {
        serde_json::from_str(labels[name].as_str().expect("a label")).expect("JSON")
    };
    let sha = |index: usize| json!({ "sha": diff_ids[index] });
    let layer = |index: usize, data: &Value, cache: bool| json!({ "sha": diff_ids[index], "data": data, "build": false, "launch": true, "cache": cache });
    assert_eq!(
        label("io.buildpacks.lifecycle.metadata"),
        json!({
            "app": [sha(3)],
            "sbom": sha(2),
            "buildpacks": [{
                "key": "test/well-behaved",
                "version": "1.0.0",
                "layers": {
                    "assets": layer(0, &json!({ "key": "1" }), false),
                    "program": layer(1, &Value::Null, true)
                },
                "store": { "metadata": { "runs": 1 } }
            }],
            "config": sha(5),
            "launcher": sha(4),
            "process-types": sha(6),
            "runImage": { "topLayer": "", "reference": "" },
            "stack": { "runImage": { "image": "" } },
            "exec-env": "production"
        })
    );
    assert_eq!(
        label("io.buildpacks.build.metadata"),
        json!({
            "buildpacks": [{ "id": "test/well-behaved", "version": "1.0.0", "api": "0.12" }],
            "launcher": { "version": "0.0.0", "source": { "git": { "repository": "", "commit": "" } } },
            "processes": [{
                "type": "web",
                "command": ["/layers/test_well-behaved/program/bin/program"],
                "args": ["--polite"],
                "direct": true,
                "buildpackID": "test/well-behaved"
            }],
            "buildpack-default-process-type": "web"
        })
    );
    assert_eq!(label("io.buildpacks.project.metadata"), json!({}));
    let mut names: Vec<&String> = labels.as_object().expect("a map").keys().collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "io.buildpacks.build.metadata",
            "io.buildpacks.exec-env",
            "io.buildpacks.lifecycle.metadata",
            "io.buildpacks.project.metadata",
            "io.buildpacks.rebasable",
            "io.wapack.layers",
            "well-behaved"
        ]
    );
    // Only the layer that has no contents anywhere but in the image.
    let ours = label("io.wapack.layers");
    assert_eq!(
        ours,
        json!({ "test/well-behaved": { "assets": { "key": "key = \"1\"\n", "encoder": "gzip-1m-members-1;libdeflate-sys-1.26.1;1" } } })
    );
    assert_eq!(labels["io.buildpacks.rebasable"], "false");
    assert_eq!(labels["io.buildpacks.exec-env"], "production");
    assert_eq!(labels["well-behaved"], "yes");
}

fn entrypoint(outcome: &Outcome) -> Vec<String> {
    outcome.digest();
    outcome.result.as_ref().expect("an image").image.configuration.config.entrypoint.clone()
}

#[test]
fn the_launcher_is_left_out_where_it_may_be() {
    let program = "/layers/test_well-behaved/program/bin/program";
    assert_eq!(entrypoint(&well_behaved(LauncherMode::Auto).build()), [program], "one process, on scratch");
    assert_eq!(entrypoint(&well_behaved(LauncherMode::Never).build()), [program]);
    assert_eq!(entrypoint(&well_behaved(LauncherMode::Always).build()), ["/cnb/process/web"]);
    let two_processes = |mode| {
        let mut site = Site::new().guest("processes").program("show");
        site.launcher_mode = mode;
        entrypoint(&site.build())
    };
    assert_eq!(two_processes(LauncherMode::Auto), ["/cnb/process/web"]);
    assert_eq!(two_processes(LauncherMode::Never), ["/workspace/show", "always"]);
    let mut no_process = Site::new().guest("big-layer");
    no_process.launcher_mode = LauncherMode::Never;
    assert_eq!(no_process.build().result.expect_err("a refusal").id(), "export.needs_launcher");
}

/// EXP-01, EXP-02, IMG-07: what the base has stays, and its user owns what we add.
#[test]
fn a_base_stays_below_and_its_configuration_stays() {
    let Some(base) = debian() else { return };
    if !have(&["python3"]) {
        return;
    }
    let mut site = well_behaved(LauncherMode::Auto);
    let image = read_image(&base, Some("debian"), None).expect("the base");
    let below: Vec<Vec<u8>> = image
        .image
        .layers
        .iter()
        .map(|layer| std::fs::read(layer.file().expect("a file")).expect("a blob"))
        .collect();
    let reference = image.digest.to_string();
    let top = image.image.layers.last().expect("a layer").diff_id.to_string();
    site.run_image =
        RunImage { base: Base::Image(Box::new(found(&image))), name: "debian:test".into(), mirrors: vec![] };
    site.build().digest();
    let layout = Layout::verified(&site.path("image"));
    let layers = layout.layers();
    for (layer, expected) in layers.iter().zip(&below) {
        assert!(std::fs::read(layer).expect("a blob") == *expected, "a layer of the base changed");
    }
    check_layers(&layout, &layers[below.len()..], 1234);
    let (_, configuration) = layout.image();
    let run = &configuration["config"];
    assert_eq!(run["User"], "1234:1234");
    assert_eq!(run["StopSignal"], "SIGQUIT");
    assert_eq!(run["ExposedPorts"], json!({ "9/tcp": {} }));
    assert_eq!(run["Volumes"], json!({ "/data": {} }));
    assert_eq!(run["Labels"]["org.example.base"], "yes");
    assert_eq!(run["Labels"].get("io.buildpacks.rebasable"), None);
    assert_eq!(run.get("Cmd"), None);
    let env: Vec<&str> = run["Env"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(
        env,
        [
            "PATH=/cnb/process:/cnb/lifecycle:/usr/bin:/bin",
            "BASE=yes",
            "CNB_LAYERS_DIR=/layers",
            "CNB_APP_DIR=/workspace",
            "CNB_PLATFORM_API=0.15",
            "CNB_DEPRECATION_MODE=quiet"
        ]
    );
    let metadata: Value =
        serde_json::from_str(run["Labels"]["io.buildpacks.lifecycle.metadata"].as_str().expect("a label"))
            .expect("JSON");
    assert_eq!(
        metadata["runImage"],
        json!({ "topLayer": top, "reference": reference, "image": "debian:test" })
    );
    // IMG-07: one line for each layer, all of one time.
    let history = configuration["history"].as_array().expect("a list");
    assert_eq!(history.len(), layers.len());
    assert!(history.iter().all(|entry| entry["created"] == "1980-01-01T00:00:01Z"));
    // The base is only read.
    assert_eq!(amd64().os, configuration["os"]);
    assert!(tar_file(&layers[0], "./etc/debian_version").starts_with("12"));
}
