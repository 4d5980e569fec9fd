//! Components in the directories of a platform, in one group with classic buildpacks: the
//! worker of the real programs, as a user who is not root.

use super::fixture::{IMAGE, Lifecycle, Platform};
use crate::support::{guest, target_directory};

/// Says what it sees of the component before it, and has a layer of its own.
pub(super) const BUILD: &str = r#"
echo "classic sees TOOLS=${TOOLS:-} in $(cd "$1/.." && echo *)"
mkdir -p "$1/plain"
echo plain > "$1/plain/file"
printf '[types]\nlaunch = true\n' > "$1/plain.toml"
"#;

/// A component that uses all of the contract, then a script.
fn platform() -> Platform {
    let platform = Platform::new(Lifecycle::ours(), "0.15");
    add_component(&platform, "careful", "well-behaved");
    platform.buildpack("one", "0.10", "exit 0", BUILD);
    platform.order(&["careful", "one"]);
    platform
}

pub(super) fn add_component(platform: &Platform, name: &str, behaviour: &str) {
    let directory = format!("buildpacks/acme_{name}/1.0.0");
    let toml = format!(
        "api = \"0.12\"\n[buildpack]\nid = \"acme/{name}\"\nversion = \"1.0.0\"\n\
         sbom-formats = [\"application/vnd.cyclonedx+json\"]\n[[targets]]\nos = \"linux\"\n"
    );
    platform.file(&format!("{directory}/buildpack.toml"), &toml, 0o644);
    std::fs::copy(guest(behaviour), platform.path(&format!("{directory}/buildpack.wasm")))
        .expect("the component");
}

/// A new container: layers are gone, but not the cache.
pub(super) fn begin_again(platform: &Platform) {
    std::fs::remove_dir_all(platform.path("layers")).expect("the layers");
    std::fs::create_dir(platform.path("layers")).expect("a directory");
}

fn has(ended: &super::fixture::Ended, text: &str) -> bool {
    ended.stdout.lines().any(|line| line.contains(text))
}

#[track_caller]
pub(super) fn says(ended: &super::fixture::Ended, lines: &[&str]) {
    for line in lines {
        assert!(has(ended, line), "`{line}` is not in:\n{}", ended.said());
    }
}

/// WSM-04: the second build takes each layer from where its kind is kept: contents from the
/// cache, and of a layer that is for the image only nothing but what its key was.
#[test]
fn wsm_04_and_lyr_13_a_component_finds_its_layers_again() {
    let platform = platform();
    let ended = platform.build();
    let first = &ended[3];
    says(first, &["run 1", "program: Filled", "assets: Filled", "counter: Filled", "tools: Filled"]);
    says(first, &["classic sees TOOLS=yes"]);
    let image = platform.image();
    let files = image.files();
    let ending =
        |end: &str| files.iter().find(|(name, _)| name.ends_with(end)).map(|(_, text)| text.as_str());
    assert_eq!(ending("/acme_careful/program/bin/program"), Some("1"));
    assert_eq!(ending("/acme_careful/assets/asset"), Some("1"));
    assert_eq!(ending("/acme_careful/counter/runs"), None, "it is for later builds only");
    assert_eq!(ending("/acme_one/plain/file"), Some("plain\n"));
    let configuration = image.configuration();
    assert_eq!(configuration["config"]["Labels"]["well-behaved"], "yes");
    assert_eq!(configuration["config"]["Entrypoint"], serde_json::json!(["/cnb/process/web"]));
    let diff_ids = configuration["rootfs"]["diff_ids"].clone();

    begin_again(&platform);
    let ended = platform.build();
    // Kept between builds by the image: `store.toml`.
    says(&ended[3], &["run 2", "program: Restored", "assets: Kept", "counter: Restored", "tools: Filled"]);
    for layer in ["acme/careful:program", "acme/careful:assets"] {
        says(&ended[4], &[&format!("Reusing layer '{layer}'")]);
    }
    assert_eq!(platform.image().configuration()["rootfs"]["diff_ids"], diff_ids);
    let files = platform.image().files();
    let asset = files.iter().find(|(name, _)| name.ends_with("/acme_careful/assets/asset"));
    assert_eq!(asset.map(|(_, text)| text.as_str()), Some("1"), "the layer of the last image");
}

/// WSM-04: another key is another layer, whatever was kept.
#[test]
fn wsm_04_a_component_with_another_key_makes_its_layers_anew() {
    let platform = platform();
    platform.build();
    begin_again(&platform);
    platform.file("platform/env/KEY", "2", 0o644);
    let ended = platform.build();
    says(&ended[3], &["program: Filled", "assets: Filled", "counter: Restored"]);
    let files = platform.image().files();
    let asset = files.iter().find(|(name, _)| name.ends_with("/acme_careful/assets/asset"));
    assert_eq!(asset.map(|(_, text)| text.as_str()), Some("2"));
}

/// CRE-01, WSM-04: in one process, with the same image; what was compiled is in the cache's directory.
#[test]
fn cre_01_the_creator_runs_components_and_keeps_what_it_compiled() {
    let platform = platform();
    let launcher = platform.launcher();
    let mut arguments: Vec<&str> = launcher.iter().map(String::as_str).collect();
    arguments.extend(["-log-level", "debug", IMAGE]);
    let ended = platform.run("creator", &arguments).succeeded();
    says(&ended, &["acme/careful@1.0.0 is compiled", "assets: Filled", "classic sees TOOLS=yes"]);
    begin_again(&platform);
    let ended = platform.run("creator", &arguments).succeeded();
    assert!(!has(&ended, "is compiled"), "{}", ended.said());
    says(&ended, &["program: Restored", "assets: Kept", "Reusing layer 'acme/careful:assets'"]);
    assert!(platform.path("cache/committed").is_dir());
}

/// The detector compiles for the builder; each is a process of its own.
#[test]
fn what_the_detector_compiled_is_not_compiled_by_the_builder() {
    let mut platform = platform();
    platform.set("CNB_LOG_LEVEL", "debug");
    let ended = platform.build();
    says(&ended[1], &["acme/careful@1.0.0 is compiled"]);
    assert!(!has(&ended[3], "is compiled"), "{}", ended[3].said());
    let inside = platform.image().files();
    assert!(!inside.keys().any(|name| name.contains("~wapack")), "it is no part of the image");
}

/// WSM-04: the buildpacks of the program itself, as a builder image would have them.
#[test]
fn built_in_buildpacks_build_in_the_directories_of_a_platform() {
    let platform = Platform::new(Lifecycle::ours(), "0.15");
    for (id, version) in [("wapack_static-site", "0.1.0"), ("wapack_procfile", "0.1.0")] {
        let from = target_directory().join("embed/builder/buildpacks").join(id).join(version);
        let to = platform.path("buildpacks").join(id).join(version);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let copied = std::process::Command::new("cp").arg("-r").args([&from, &to]).status().unwrap();
        assert!(copied.success(), "run `cargo xtask embed` first");
    }
    platform.buildpack("one", "0.10", "exit 0", BUILD);
    platform.file("app/index.html", "<h1>hello</h1>\n", 0o644);
    platform.file("app/Procfile", "worker: cat hello.txt\n", 0o644);
    let member =
        |id: &str, version: &str| format!("[[order.group]]\nid = \"{id}\"\nversion = \"{version}\"\n");
    let members = [("wapack/static-site", "0.1.0"), ("acme/one", "1.0.0"), ("wapack/procfile", "0.1.0")];
    let members: String = members.iter().map(|(id, version)| member(id, version)).collect();
    platform.file("order.toml", &format!("[[order]]\n{members}"), 0o644);
    platform.build();
    let label = &platform.image().configuration()["config"]["Labels"]["io.buildpacks.build.metadata"];
    let metadata: serde_json::Value = serde_json::from_str(label.as_str().unwrap()).unwrap();
    let types: Vec<&str> = metadata["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|process| process["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["web", "worker"]);
    let server = platform.path("layers").display().to_string();
    let command = metadata["processes"][0]["command"][0].as_str().unwrap();
    assert!(command.starts_with(&server), "{command}");
    let files = platform.image().files();
    assert!(files.keys().any(|name| format!("/{}", name.trim_start_matches('/')) == command), "{command}");

    begin_again(&platform);
    let ended = platform.build();
    says(&ended[4], &["Reusing layer 'wapack/static-site:server'"]);
}
