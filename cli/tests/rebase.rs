use std::path::Path;
use std::process::Command;

use serde_json::Value;
use wapack_runtime::oci::layout::{ImageLayout, read_image};

use crate::site::{Ended, Site};

/// A site with two run images called `run:1`, the newer one in a layout of its own,
/// and an app on the older one.
fn site() -> Site {
    let site = Site::new();
    for (layout, text) in [("old", "old base"), ("new", "new base"), ("app", "the app")] {
        site.file(&format!("{layout}-source/index.html"), text);
    }
    for (layout, name) in [("old", "run:1"), ("new", "run:1"), ("new", "other:1")] {
        let source = format!("{layout}-source");
        site.run(&["build", "--path", &source, "--output", &format!("oci:{layout}"), name]).with(0);
        make_run_image(&site.path().join(layout), name);
    }
    site.run(&[
        "build",
        "--path",
        "app-source",
        "--run-image",
        "oci:old:run:1",
        "--output",
        "oci:image",
        "app",
    ])
    .with(0);
    site
}

/// Takes away what says that the image was built, and that nothing below it can be replaced.
fn make_run_image(layout: &Path, name: &str) {
    let mut image = read_image(layout, Some(name), None).unwrap().image;
    image.configuration.config.labels.clear();
    ImageLayout::open(layout).unwrap().write(&image, name, &(), &mut |_| true).unwrap();
}

fn inspect(site: &Site, place: &str) -> Value {
    serde_json::from_str(&site.run(&["inspect", "--json", place]).with(0).out).unwrap()
}

fn digest(site: &Site, place: &str) -> String {
    inspect(site, place)["digest"].as_str().unwrap().to_owned()
}

/// Those of the app, without the base's.
fn app_layers(site: &Site, place: &str) -> Vec<Value> {
    let layers = inspect(site, place)["layers"].as_array().unwrap().clone();
    layers.into_iter().filter(|layer| layer["made_by"] != "base").collect()
}

/// Runs a tool of the field; `None`, and why, when it is not installed. Continuous integration has them all.
fn tool(site: &Site, program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).current_dir(site.path()).output() {
        Ok(output) => Some(Ended::from(output).with(0).out),
        Err(error) => {
            assert!(std::env::var("CI").is_err(), "`{program}` must not be missing in CI: {error}");
            println!("SKIPPED: `{program}` is not installed");
            None
        }
    }
}

#[test]
fn an_app_gets_a_newer_run_image_and_keeps_its_layers() {
    let site = site();
    let (old, new) = (digest(&site, "oci:old"), digest(&site, "oci:new:run:1"));
    let (before, layers) = (digest(&site, "oci:image"), app_layers(&site, "oci:image"));
    let all_layers = inspect(&site, "oci:image")["layers"].clone();
    let ended = site.run(&["rebase", "oci:image", "--run-image", "oci:new:run:1"]).with(0);
    ended.says(&[
        "Successfully rebased image app:latest",
        &format!("old base  {old}, "),
        &format!("new base  {new}, "),
    ]);
    assert_ne!(digest(&site, "oci:image"), before);
    assert_eq!(app_layers(&site, "oci:image"), layers);
    assert_eq!(inspect(&site, "oci:image")["run_images"][0]["name"], "run:1");
    site.run(&["rebase", "oci:image", "--run-image", "oci:new:run:1"]).with(0).says(&["nothing changed"]);
    // And back again, to what it was.
    site.run(&["rebase", "oci:image", "--run-image", "oci:old:run:1"]).with(0);
    assert_eq!(inspect(&site, "oci:image")["layers"], all_layers);
}

#[test]
fn the_result_is_an_image_for_other_tools() {
    let site = site();
    site.run(&["rebase", "oci:image", "--run-image", "oci:new:run:1", "--output", "oci:out:app:2"]).with(0);
    assert_eq!(digest(&site, "oci:image:app:latest"), digest(&site, "oci:image"), "the old one stays");
    if let Some(text) = tool(&site, "skopeo", &["inspect", "oci:out:app:2"]) {
        let inspected: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(inspected["Digest"], digest(&site, "oci:out:app:2").as_str());
    }
    let copy = ["--insecure-policy", "copy", "-q", "oci:out:app:2", "dir:copy"];
    tool(&site, "skopeo", &copy);
    if tool(&site, "umoci", &["unpack", "--rootless", "--image", "out:app:2", "bundle"]).is_some() {
        // The static site of the base lies in `/workspace`, and the app's over it.
        let page = site.path().join("bundle/rootfs/workspace/index.html");
        assert_eq!(std::fs::read_to_string(page).unwrap(), "the app");
    }
}

#[test]
fn a_refusal_says_why_and_force_goes_on() {
    let site = site();
    let before = digest(&site, "oci:image");
    let other = ["rebase", "oci:image", "--run-image", "oci:new:other:1"];
    site.run(&other).with(72).complains(&[
        "error[rebase.unrecorded_run_image]: the run image `other:1`",
        "hint: it was made for `run:1`; `--force`",
    ]);
    assert_eq!(digest(&site, "oci:image"), before);
    let forced = [&other[..], &["--force"]].concat();
    site.run(&forced).with(0).complains(&["warning: the run image `other:1`"]);
    assert_eq!(inspect(&site, "oci:image")["run_images"][0]["name"], "other:1");
    site.run(&["rebase", "oci:old", "--run-image", "oci:new:run:1"])
        .with(72)
        .complains(&["error[rebase.no_metadata]", "hint: only images that buildpacks made"]);
    // An image on nothing has no run image that could be another one.
    site.run(&["build", "--path", "app-source", "--output", "oci:bare", "app"]).with(0);
    let bare = ["rebase", "oci:bare", "--run-image", "oci:new:run:1"];
    site.run(&bare).with(72).complains(&["error[rebase.no_run_image]", "hint: it was built on `scratch`"]);
}

#[test]
fn programs_read_what_changed() {
    let site = site();
    let (old, new, before) =
        (digest(&site, "oci:old"), digest(&site, "oci:new:run:1"), digest(&site, "oci:image"));
    let arguments = ["rebase", "oci:image", "--run-image", "oci:new:run:1", "--output-format", "json"];
    let ended = site.run(&arguments).with(0);
    let event: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!(event["event"], "rebased");
    assert_eq!(event["old_run_image"]["reference"], old.as_str());
    assert_eq!(event["run_image"]["reference"], new.as_str());
    assert_eq!((event["changed"].as_bool(), &event["old_digest"]), (Some(true), &before.into()));
    assert_eq!(event["digest"], digest(&site, "oci:image").as_str());
    let ended = site.run(&[&arguments[..3], &["oci:new:other:1"], &arguments[4..]].concat()).with(72);
    let error: Value = serde_json::from_str(ended.err.lines().last().unwrap()).unwrap();
    assert_eq!((&error["id"], &error["exit_code"]), (&"rebase.unrecorded_run_image".into(), &72.into()));
    site.run(&[&arguments[..4], &["-q"]].concat()).with(0).says(&[&digest(&site, "oci:image")]);
}

#[test]
fn what_is_no_image_is_refused() {
    let site = Site::new();
    let run = |image: &str, run_image: &str| site.run(&["rebase", image, "--run-image", run_image]);
    run("oci:", "oci:x").with(3).complains(&["error["]);
    run("oci:none", "oci:x").with(3).complains(&["error[layout.missing]"]);
    let site = self::site();
    site.run(&["rebase", "--offline", "oci:image"]).with(3).complains(&["error[input.run_image]"]);
}
