use serde_json::Value;

use crate::site::{SAMPLE, Site};

#[test]
fn an_image_says_what_it_is_made_of() {
    let site = Site::new();
    site.run(&["build", "--path", SAMPLE, "--output", "oci:image", "demo/website"]).with(0);
    site.run(&["inspect", "oci:image"]).with(0).says(&[
        "base        scratch",
        "launcher    none",
        "  wapack/static-site@0.1.0",
        "  web (default): ",
        "wapack/static-site:server\n",
        "  app",
    ]);
    let ended = site.run(&["inspect", "--json", "oci:image:demo/website:latest"]).with(0);
    let document: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (&document["base_image"]["kind"], &document["launcher"]["present"]),
        (&"scratch".into(), &false.into())
    );
    assert_eq!(document["default_process"], "web");
    assert!(document["layers"].as_array().unwrap().iter().any(|layer| layer["made_by"] == "app"));
    site.run(&["inspect", "oci:image:other"])
        .with(3)
        .complains(&["layout.no_such_image", "demo/website:latest"]);
}

/// A built image is a run image for the next.
#[test]
fn an_image_upon_another_has_a_base() {
    let site = Site::new();
    site.run(&["build", "--path", SAMPLE, "--output", "oci:base", "base:1"]).with(0);
    site.run(&["build", "--path", SAMPLE, "--run-image", "oci:base:base:1", "--output", "oci:image", "app"])
        .with(0);
    let ended = site.run(&["inspect", "--json", "image"]).with(0);
    let document: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (&document["base_image"]["kind"], &document["run_images"][0]["name"]),
        (&"image".into(), &"base:1".into())
    );
    assert_eq!(document["launcher"]["present"], true);
    assert!(!ended.out.contains(&site.path().display().to_string()), "{}", ended.out);
}

#[test]
fn a_buildpack_says_what_it_exports_imports_and_asks_for() {
    let site = Site::new();
    let Some(directory) = site.guest("well-behaved") else { return };
    let toml = directory.join("buildpack.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, format!("{text}[grants]\nclock = true\napp-write = true\n")).unwrap();
    let target = directory.display().to_string();
    site.run(&["inspect", &target]).with(0).says(&[
        "test/well-behaved@0.1.0",
        "app-write           allowed",
        "clock               NOT ALLOWED; `--grant clock`",
        "Exports\n  build\n  detect",
        "wapack:buildpack/types@0.1.0",
    ]);
    let ended = site.run(&["inspect", "--json", "--grant", "clock", &target]).with(0);
    let document: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(document["buildpack"]["grants"][1], serde_json::json!({ "grant": "clock", "allowed": true }));
    let component = format!("{target}/buildpack.wasm");
    site.run(&["inspect", &component]).with(0).says(&["Component\n  digest      sha256:"]);
}

#[test]
fn what_is_no_buildpack_is_refused() {
    let site = Site::new();
    let bad = site.file("bad.wasm", "hello").display().to_string();
    site.run(&["inspect", &bad]).with(3).complains(&["error[buildpack.not_a_component]", "hint: "]);
    site.file("notes.txt", "x");
    site.run(&["inspect", "notes.txt"]).with(3).complains(&["error[input.inspect]", "hint: "]);
    site.run(&["inspect", "./nope"])
        .with(3)
        .complains(&["error[input.inspect]: there is no file `./nope`", "hint: "]);
}

#[test]
fn the_host_is_asked_by_a_worker_that_tries() {
    let site = Site::new();
    site.run(&["inspect", "--host"]).with(0).says(&[
        "Landlock",
        "seccomp",
        "network namespace",
        "open /etc/hostname",
    ]);
    let ended = site.run(&["inspect", "--host", "--json", "--required"]);
    let document: Value = serde_json::from_str(&ended.out).unwrap();
    let in_force =
        ["landlock", "seccomp", "network_namespace"].iter().all(|key| document[key]["in_force"] == true);
    let attempts = document["attempts"].as_array().unwrap();
    let refused = attempts.iter().all(|attempt| attempt["refused"].is_string());
    assert_eq!(ended.code, Some(i32::from(!(in_force && refused))), "{}", ended.out);
}
