//! One name with images for several systems comes to stand on another run image.

use serde_json::{Value, json};
use wapack_runtime::oci::digest::Digest;
use wapack_runtime::oci::layout::{ImageLayout, Placing, Platform, read_image};

use crate::published::Registry;
use crate::site::{Ended, Site};

const TARGETS: &str = "linux/amd64,linux/arm64";

/// A site with two run images for two systems, `run:1` of the layouts `old` and `new`.
fn site() -> Site {
    let site = Site::new();
    for layout in ["old", "new", "app"] {
        site.file(&format!("{layout}-source/index.html"), layout);
    }
    for layout in ["old", "new"] {
        let (source, output) = (format!("{layout}-source"), format!("oci:{layout}"));
        site.run(&["build", "--path", &source, "--target", TARGETS, "--output", &output, "run:1"]).with(0);
        // Without what says that the image was built, and that nothing below it can be replaced.
        let layout = site.path().join(layout);
        let images: Vec<_> = ["amd64", "arm64"]
            .map(|architecture| {
                let platform = Platform { os: "linux", architecture, variant: None };
                let mut image = read_image(&layout, Some("run:1"), Some(platform)).unwrap().image;
                image.configuration.config.labels.clear();
                image
            })
            .into();
        let placing = Placing { reference: "run:1", ..Placing::default() };
        ImageLayout::open(&layout).unwrap().place_index(&images, &placing, &(), &mut |_| true).unwrap();
    }
    site
}

fn build(site: &Site, arguments: &[&str]) {
    site.run(&[&["build", "--path", "app-source", "--target", TARGETS], arguments].concat()).with(0);
}

fn json_of(ended: Ended) -> Value {
    serde_json::from_str(ended.with(0).out.lines().last().unwrap()).unwrap()
}

/// The digests of the layers of the image for one architecture.
fn layers(site: &Site, place: &str, architecture: &str) -> Vec<Value> {
    let target = format!("linux/{architecture}");
    let inspected = json_of(site.run(&["inspect", "--json", "--target", &target, place]).one_line());
    assert_eq!(inspected["target"], target);
    inspected["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].clone()).collect()
}

impl Ended {
    /// A document that is laid out for reading, as one line.
    fn one_line(mut self) -> Self {
        self.out = self.out.lines().collect();
        self
    }
}

/// That an index stands on `new`, and has the layers of the app it had before on top.
fn check_rebased(site: &Site, before: &[Vec<Value>; 2], place: &str) {
    for (architecture, before) in ["amd64", "arm64"].iter().zip(before) {
        let base = layers(site, "oci:new:run:1", architecture);
        let old_base = layers(site, "oci:old:run:1", architecture).len();
        let now = layers(site, place, architecture);
        assert_eq!(now[..base.len()], base, "{architecture}");
        assert_eq!(now[base.len()..], before[old_base..], "{architecture}");
    }
}

fn both(site: &Site, place: &str) -> [Vec<Value>; 2] {
    ["amd64", "arm64"].map(|architecture| layers(site, place, architecture))
}

#[test]
fn every_image_of_an_index_comes_to_stand_on_the_run_image_of_its_system() {
    let site = site();
    build(&site, &["--run-image", "oci:old:run:1", "--output", "oci:image", "app:1"]);
    let before = both(&site, "oci:image:app:1");
    assert_ne!(before[0], before[1]);
    let arguments = ["rebase", "oci:image:app:1", "--run-image", "oci:new:run:1"];
    let rebase = || json_of(site.run(&[&arguments[..], &["--output-format", "json"]].concat()));
    let said = rebase();
    check_rebased(&site, &before, "oci:image:app:1");
    assert_eq!(said["changed"], true);
    let systems: Vec<&Value> =
        said["images"].as_array().unwrap().iter().map(|image| &image["target"]).collect();
    assert_eq!(systems, ["linux/amd64", "linux/arm64"]);
    // What is new in the layout are the layers of the new run images that differ from the old ones'.
    let new: std::collections::BTreeSet<String> = both(&site, "oci:new:run:1")
        .iter()
        .flatten()
        .map(|digest| digest.as_str().unwrap().to_owned())
        .filter(|digest| !before.iter().flatten().any(|known| known == digest))
        .collect();
    assert_eq!(said["moved_layers"], new.len());
    let index: Value =
        serde_json::from_slice(&std::fs::read(site.path().join("image/index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], said["digest"]);

    let again = rebase();
    assert_eq!((&again["digest"], &again["changed"]), (&said["digest"], &json!(false)));
    assert_eq!((&again["moved_layers"], &again["moved_bytes"]), (&json!(0), &json!(0)));
    site.run(&arguments).with(0).says(&[
        "is on this run image already; nothing changed",
        "  for       linux/amd64\n    old base  sha256:",
        "  for       linux/arm64\n    old base  sha256:",
        "moved     nothing; ",
    ]);
}

#[test]
fn one_image_of_an_index_goes_elsewhere_and_leaves_the_index_as_it_was() {
    let site = site();
    build(&site, &["--run-image", "oci:old:run:1", "--output", "oci:image", "app:1"]);
    let before = both(&site, "oci:image:app:1");
    let index = || std::fs::read(site.path().join("image/index.json")).unwrap();
    let unchanged = index();
    let rebase = |more: &[&str]| {
        site.run(&[&["rebase", "oci:image:app:1", "--run-image", "oci:new:run:1"], more].concat())
    };
    let lost = ["error[input.output]: `oci:image:app:1` stands for images for several systems"];
    rebase(&["--target", "linux/arm64"]).with(3).complains(&lost);
    rebase(&["--target", "linux/arm64", "--output", "oci:image:app:1"]).with(3).complains(&lost);
    rebase(&["--output", "docker-archive:app.tar"]).with(3).complains(&["error[input.target]"]);
    assert!(!site.path().join("app.tar").exists());
    assert!(index() == unchanged);

    let one = ["--target", "linux/arm64", "--output", "oci:one:app", "--output-format", "json"];
    let said = json_of(rebase(&one));
    assert_eq!((&said["target"], &said["digest"]), (&json!("linux/arm64"), &said["images"][0]["digest"]));
    let (base, old_base) = (layers(&site, "oci:new:run:1", "arm64"), layers(&site, "oci:old:run:1", "arm64"));
    assert_eq!(layers(&site, "oci:one:app", "arm64"), [&base[..], &before[1][old_base.len()..]].concat());
    assert!(index() == unchanged);
    site.run(&["rebase", "oci:one:app", "--run-image", "oci:new:run:1", "--target", "linux/amd64"])
        .with(3)
        .complains(&["error[input.target]: the image is for `linux/arm64`, not for `linux/amd64`"]);
}

/// Of a new run image that lacks a system, and of an index with something that is no image.
#[test]
fn an_index_that_cannot_be_rebased_as_a_whole_stays_as_it_is() {
    let site = site();
    build(&site, &["--run-image", "oci:old:run:1", "--output", "oci:image", "app:1"]);
    let amd64 = ["inspect", "--json", "--target", "linux/amd64", "oci:new:run:1"];
    assert_eq!(json_of(site.run(&amd64).one_line())["target"], "linux/amd64");
    let layout = site.path().join("new");
    let platform = Platform { os: "linux", architecture: "amd64", variant: None };
    let image = read_image(&layout, Some("run:1"), Some(platform)).unwrap().image;
    ImageLayout::open(&layout).unwrap().write(&image, "run:1", &(), &mut |_| true).unwrap();

    let files = || {
        let blobs = std::fs::read_dir(site.path().join("image/blobs/sha256")).unwrap().count();
        (blobs, std::fs::read(site.path().join("image/index.json")).unwrap())
    };
    let before = files();
    let rebase = || site.run(&["rebase", "oci:image:app:1", "--run-image", "oci:new:run:1"]);
    rebase().with(72).complains(&[
        "error[rebase.target]: cannot rebase the image for `linux/arm64`",
        "caused by: ",
        "linux/amd64",
    ]);
    assert!(files() == before);

    // As other tools attach things: an entry for no system.
    let place =
        |digest: &str| site.path().join("image/blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let mut top: Value = serde_json::from_slice(&before.1).unwrap();
    let digest = top["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let mut index: Value = serde_json::from_slice(&std::fs::read(place(&digest)).unwrap()).unwrap();
    let mut entry = index["manifests"][0].clone();
    entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    index["manifests"].as_array_mut().unwrap().push(entry);
    let bytes = serde_json::to_vec(&index).unwrap();
    let digest = Digest::of(&bytes).to_string();
    std::fs::write(place(&digest), &bytes).unwrap();
    top["manifests"][0]["digest"] = json!(digest);
    top["manifests"][0]["size"] = json!(bytes.len());
    std::fs::write(site.path().join("image/index.json"), serde_json::to_vec(&top).unwrap()).unwrap();
    let before = files();
    rebase()
        .with(3)
        .complains(&["error[input.image]", "is no image for a system of its own: `unknown/unknown`"]);
    assert!(files() == before);
}

/// RBS-04: nothing but documents is sent, and the tag comes last.
#[test]
fn rbs_04_an_index_is_rebased_in_a_registry_without_moving_a_layer() {
    let site = site();
    let Some(registry) = Registry::start(&site) else { return };
    let at = |name: &str| format!("{}/{name}", registry.host());
    let push = |layout: &str| {
        let (from, to) = (format!("oci:{layout}:run:1"), format!("docker://{}", at("run:1")));
        let arguments = ["--insecure-policy", "copy", "-q", "--all", "--dest-tls-verify=false", &from, &to];
        let pushed = std::process::Command::new("skopeo").args(arguments).current_dir(site.path()).output();
        match pushed {
            Ok(output) => drop(Ended::from(output).with(0)),
            Err(error) => panic!("`skopeo` is needed where `docker-registry` is: {error}"),
        }
    };
    push("old");
    build(&site, &["--run-image", &at("run:1"), "--publish", &at("app:1")]);
    let before = both(&site, &at("app:1"));
    push("new");
    registry.requests(&[]);

    let said = json_of(site.run(&["rebase", &at("app:1"), "--output-format", "json"]));
    let written = registry.requests(&["\"PUT /v2/", "\"PATCH /v2/", "\"POST /v2/"]);
    check_rebased(&site, &before, &at("app:1"));
    assert_eq!((&said["moved_layers"], &said["moved_bytes"]), (&json!(0), &json!(0)));
    assert!(said["mounted_layers"].as_u64().unwrap() > 0, "{said}");
    let puts: Vec<&String> = written.iter().filter(|line| line.contains("\"PUT /v2/")).collect();
    let blobs = puts.iter().filter(|line| line.contains("/blobs/")).count();
    assert_eq!(blobs, 2, "the configurations: {written:#?}");
    let manifests: Vec<&&String> = puts.iter().filter(|line| line.contains("/manifests/")).collect();
    assert_eq!(manifests.len(), 4, "two images, the index, and its tag: {written:#?}");
    assert!(manifests[3].contains("/manifests/1 "), "{written:#?}");
    assert_eq!(puts.last().unwrap(), manifests[3]);

    let again = json_of(site.run(&["rebase", &at("app:1"), "--output-format", "json"]));
    assert_eq!((&again["digest"], &again["changed"]), (&said["digest"], &json!(false)));
    let sent = registry.requests(&["\"PUT /v2/", "\"PATCH /v2/"]);
    assert!(sent.is_empty(), "{sent:#?}");
    let blobs = registry.requests(&["/blobs/sha256"]);
    assert!(blobs.is_empty(), "{blobs:#?}");
}
