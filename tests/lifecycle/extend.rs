//! Image extensions, from the detector to the image.

use std::fmt::Write as _;

use std::os::unix::fs::MetadataExt as _;

use super::fixture::{IMAGE, Lifecycle, Platform, USER, is_root};
use crate::image::tools::skip;

const OTHER_RUN_IMAGE: &str = "registry.example/run:2";

/// An extension that writes these Dockerfiles, before a buildpack that says who it is.
fn platform(dockerfiles: &[(&str, &str)]) -> Platform {
    let platform = Platform::new(Lifecycle::ours(), "0.13");
    platform.run_image(OTHER_RUN_IMAGE);
    platform.buildpack("one", "0.10", "exit 0", "echo \"script of $(id -u) at $HOME\"");
    platform.order(&["one"]);
    let order = std::fs::read_to_string(platform.path("order.toml")).expect("an order");
    let extensions =
        "[[order-extensions]]\n[[order-extensions.group]]\nid = \"acme/x\"\nversion = \"1.0.0\"\n";
    platform.file("order.toml", &format!("{order}{extensions}"), 0o644);
    let directory = "extensions/acme_x/1.0.0";
    let toml = "api = \"0.10\"\n[extension]\nid = \"acme/x\"\nversion = \"1.0.0\"\n";
    platform.file(&format!("{directory}/extension.toml"), toml, 0o644);
    let mut generate = "#!/bin/sh\nset -eu\n".to_owned();
    for (name, text) in dockerfiles {
        platform.file(&format!("{directory}/files/{name}"), text, 0o644);
        let _ = writeln!(generate, "cp \"$CNB_EXTENSION_DIR/files/{name}\" \"$1/{name}\"");
    }
    platform.file(&format!("{directory}/bin/detect"), "#!/bin/sh\nexit 0\n", 0o755);
    platform.file(&format!("{directory}/bin/generate"), &generate, 0o755);
    platform.run("analyzer", &[IMAGE]).succeeded();
    platform.run("detector", &[]).succeeded();
    platform.run("restorer", &[]).succeeded();
    platform
}

/// EXT-12: after what root does to the build image, the build is its user's, with that
/// user's home; EXT-06: a Dockerfile of nothing but `FROM` needs no root to do anything.
#[test]
fn ext_12_the_extender_goes_on_as_the_user_that_builds() {
    if !is_root() {
        return skip("not run as root, so nobody can become another");
    }
    let platform = platform(&[("build.Dockerfile", "ARG base_image\nFROM ${base_image}\n")]);
    for name in ["layers", "layers/group.toml", "layers/plan.toml"] {
        std::os::unix::fs::chown(platform.path(name), Some(0), Some(0)).unwrap();
    }
    let ended = platform.run_as_we_are("extender", &["-kind", "build"]).succeeded();
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let of_user = users.lines().find(|line| line.split(':').nth(2) == Some(&USER.to_string()));
    let home = of_user.and_then(|line| line.split(':').nth(5)).expect("every machine knows it");
    assert!(ended.stdout.contains(&format!("script of {USER} at {home}\n")), "{}", ended.said());
    for name in ["layers", "layers/plan.toml", "layers/config/metadata.toml"] {
        assert_eq!(std::fs::metadata(platform.path(name)).unwrap().uid(), USER, "{name}");
    }
    let launcher = platform.launcher();
    let mut export: Vec<&str> = launcher.iter().map(String::as_str).collect();
    export.push(IMAGE);
    platform.run("exporter", &export).succeeded();
}

/// EXT-12: without a user to become, root does not run buildpacks.
#[test]
fn ext_12_root_does_not_build_what_it_extended() {
    if !is_root() {
        return skip("not run as root, so there is nothing to refuse");
    }
    let mut platform = platform(&[("build.Dockerfile", "ARG base_image\nFROM ${base_image}\n")]);
    platform.set("CNB_USER_ID", "0");
    platform.set("CNB_GROUP_ID", "0");
    let ended = platform.run_as_we_are("extender", &["-kind", "build"]);
    assert_eq!(ended.code, 1, "{}", ended.said());
    assert!(ended.stderr.contains("refusing to run as root"), "{}", ended.said());
    assert!(!ended.said().contains("script of"), "{}", ended.said());
}

/// EXT-13, CLI-14: nothing is built on an image that should have been changed.
#[test]
fn ext_13_a_dockerfile_that_has_to_be_run_ends_the_build() {
    let text = "ARG base_image\nFROM ${base_image}\nRUN apt-get install -y curl\n";
    let platform = platform(&[("build.Dockerfile", text)]);
    let ended = platform.run_as_we_are("extender", &["-kind", "build"]);
    assert_eq!(ended.code, 102, "{}", ended.said());
    assert!(
        ended.stderr.contains("image extension `acme/x@1.0.0` changes the build image"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("line 3: `RUN apt-get install -y curl`"), "{}", ended.stderr);
    assert!(!ended.said().contains("script of"), "{}", ended.said());
}

/// EXT-06, RUN-07: the detector leaves the new run image without a reference, the restorer
/// finds it, and the image is built upon it.
#[test]
fn ext_06_run_07_an_extension_chooses_another_run_image() {
    let from = format!("FROM {OTHER_RUN_IMAGE}\n");
    let platform = platform(&[("run.Dockerfile", &from)]);
    let analyzed = platform.toml("layers/analyzed.toml");
    assert_eq!(analyzed["run-image"]["image"].as_str(), Some(OTHER_RUN_IMAGE));
    let reference = analyzed["run-image"]["reference"].as_str().unwrap_or_default();
    assert!(reference.contains("/run/2"), "{reference}");
    platform.run("extender", &["-kind", "run"]).succeeded();
    platform.run("builder", &[]).succeeded();
    let launcher = platform.launcher();
    let mut export: Vec<&str> = launcher.iter().map(String::as_str).collect();
    export.push(IMAGE);
    platform.run("exporter", &export).succeeded();
    let configuration = platform.image().configuration();
    assert_eq!(configuration["config"]["Labels"]["acme.run-image"], OTHER_RUN_IMAGE);
}
