//! What an earlier build left: used again, explained, verified, forgotten, taken from an image.

use crate::site::{Ended, Site};

/// A site with an app, a program to start and the guest `well-behaved` as its only buildpack.
fn site() -> Site {
    let site = Site::new();
    site.file("app/index.html", "<h1>hello</h1>");
    guest(&site, "well-behaved", "0.1.0");
    site
}

fn guest(site: &Site, name: &str, version: &str) {
    let directory = site.guest(name).expect("the guests are built");
    let toml = format!(
        "api = \"0.12\"\n[buildpack]\nid = \"test/{name}\"\nversion = \"{version}\"\n\
         sbom-formats = [\"application/vnd.cyclonedx+json\"]\n"
    );
    std::fs::write(directory.join("buildpack.toml"), toml).unwrap();
}

/// Builds with the guest `name`; its count of runs stays out of the image.
fn build_with(site: &Site, name: &str, more: &[&str]) -> Ended {
    let arguments =
        ["build", "x", "--path", "app", "--output", "oci:out", "--env", "COUNT=no", "--buildpack", name];
    site.run(&[&arguments, more].concat()).with(0)
}

fn build(site: &Site, more: &[&str]) -> Ended {
    build_with(site, "well-behaved", more)
}

fn digest(ended: &Ended) -> String {
    ended.out.lines().find(|line| line.starts_with("  digest")).unwrap().to_owned()
}

fn events(ended: &Ended, name: &str) -> Vec<serde_json::Value> {
    let events = ended.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events.filter(|event| event["event"] == name).collect()
}

#[test]
fn explain_says_of_each_layer_what_became_of_it_and_why() {
    let site = site();
    build(&site, &["--explain"]).says(&[
        "layer 'test/well-behaved:program' rebuilt: no earlier layer\n",
        "layer 'test/well-behaved:assets' rebuilt: no earlier layer\n",
        "layer 'test/well-behaved:tools' rebuilt: it is for the build only, and made each time\n",
    ]);
    build(&site, &["--explain"]).says(&[
        "layer 'test/well-behaved:program' reused: what it depends on is the same: key = \"1\"\n",
        "layer 'test/well-behaved:assets' kept: what it depends on is the same: key = \"1\"\n",
        "layer 'test/well-behaved:counter' changed: restored, but changed by the buildpack\n",
    ]);
    let quiet = build(&site, &[]);
    assert!(!quiet.out.contains("depends on"), "{}", quiet.out);
    guest(&site, "well-behaved", "0.2.0");
    let changed = build(&site, &["--explain", "--env", "KEY=2"]);
    let text = changed.out.split("layer 'test/well-behaved:program' ").nth(1).unwrap();
    let lines: Vec<&str> = text.lines().take(3).collect();
    assert_eq!(
        lines,
        [
            "rebuilt: what it depends on is another",
            "  key: was 1, is 2",
            "  buildpack version changed: was 0.1.0, is 0.2.0"
        ]
    );
}

#[test]
fn explanations_are_events_too() {
    let site = site();
    build(&site, &[]);
    let again = build(&site, &["--output-format", "json", "--env", "KEY=2"]);
    let found = events(&again, "layer-explained");
    let of = |name: &str| found.iter().find(|event| event["layer"] == name).unwrap();
    assert_eq!(
        (&of("program")["fate"], &of("program")["reason"]),
        (&"rebuilt".into(), &"inputs-changed".into())
    );
    let changed = serde_json::json!([{ "name": "key", "old": "1", "new": "2" }]);
    assert_eq!(of("program")["changed"], changed);
    assert_eq!((&of("counter")["fate"], &of("counter")["reason"]), (&"changed".into(), &"written-to".into()));
    assert_eq!(of("program")["buildpack"]["id"], "test/well-behaved");
    site.run(&["build", "x", "--explain", "--quiet"]).with(2).complains(&["--explain", "--quiet"]);
}

/// A layer with more files than a build looks at before it trusts the seal.
#[test]
fn verify_finds_what_the_seal_does_not_and_makes_it_anew() {
    let site = site();
    guest(&site, "big-layer", "0.1.0");
    let big = |more: &[&str]| {
        build_with(&site, "big-layer", &[&["--env", "FILES=4100", "--env", "BYTES=10"], more].concat())
    };
    let first = big(&[]);
    let damaged = site.find_files("cache/wapack/layers", "file-04099");
    assert_eq!(damaged.len(), 1);
    std::fs::write(&damaged[0], "damaged!!!").unwrap();
    // It is believed: nothing so far down is looked at.
    let trusting = big(&["--explain"]).says(&["layer 'test/big-layer:big' reused"]);
    assert_eq!((trusting.err.as_str(), digest(&trusting)), ("", digest(&first)));
    let verified =
        big(&["--verify", "--explain"]).says(&["layer 'test/big-layer:big' rebuilt: no earlier layer"]);
    assert_eq!(verified.err.matches("warning: ").count(), 1, "{}", verified.err);
    assert!(verified.err.contains("was damaged and is made again"), "{}", verified.err);
    assert_eq!(digest(&verified), digest(&first), "{}\n{}", verified.out, first.out);
    let sound = big(&["--verify", "--explain"]).says(&["layer 'test/big-layer:big' reused"]);
    assert_eq!((sound.err.as_str(), digest(&sound)), ("", digest(&first)));
}

#[test]
fn clear_cache_forgets_contents_and_the_image_still_tells_the_rest() {
    let site = site();
    let first = build(&site, &[]);
    build(&site, &[]).says(&["program: Restored", "assets: Kept", "counter: Restored"]);
    let cleared = build(&site, &["--clear-cache"]);
    let cleared = cleared.says(&["program: Filled", "assets: Kept", "counter: Filled"]);
    assert_eq!(digest(&cleared), digest(&first));
    build(&site, &[]).says(&["program: Restored", "assets: Kept", "counter: Restored"]);
}

/// LYR-15, RST-09, STO-02: on a new machine the image is all there is.
#[test]
fn lyr_15_and_rst_09_and_sto_02_a_new_machine_learns_from_the_image() {
    let site = site();
    let first = build(&site, &[]);
    let lose = || std::fs::remove_dir_all(site.path().join(".cache")).unwrap();
    lose();
    let again = build(&site, &["--explain"]).says(&[
        "Restoring layer 'test/well-behaved:assets'",
        "assets: Kept",
        "layer 'test/well-behaved:assets' kept: what it depends on is the same",
        "program: Filled",
        "Reusing layer 'test/well-behaved:assets'",
    ]);
    assert_eq!(digest(&again), digest(&first));
    // The next build knows all of it by itself.
    build(&site, &[]).says(&["program: Restored", "assets: Kept"]);
    // Another key, and the layer is made anew.
    lose();
    build(&site, &["--env", "KEY=2", "--explain"])
        .says(&["assets: Filled", "layer 'test/well-behaved:assets' rebuilt: what it depends on is another"]);
    // The count of runs is in the store's file alone, and the image has it.
    lose();
    let counted = ["build", "x", "--path", "app", "--output", "oci:out", "--buildpack", "well-behaved"];
    site.run(&counted).with(0).says(&["run 2"]);
    lose();
    site.run(&counted).with(0).says(&["run 3"]);
}

#[test]
fn a_previous_image_is_taken_from_where_it_is_said_to_be() {
    let site = site();
    let first = build(&site, &[]);
    std::fs::remove_dir_all(site.path().join(".cache")).unwrap();
    std::fs::rename(site.path().join("out"), site.path().join("elsewhere")).unwrap();
    build(&site, &[]).says(&["assets: Filled"]);
    std::fs::remove_dir_all(site.path().join(".cache")).unwrap();
    std::fs::remove_dir_all(site.path().join("out")).unwrap();
    let again = build(&site, &["--previous-image", "oci:elsewhere:x:latest"]).says(&["assets: Kept"]);
    assert_eq!(digest(&again), digest(&first));
    // One that is not there is no error, but said; what is no place at all is refused.
    std::fs::remove_dir_all(site.path().join(".cache")).unwrap();
    build(&site, &["--previous-image", "oci:nowhere"])
        .complains(&["warning: there is no previous image `oci:nowhere`"]);
    site.run(&["build", "x", "--previous-image", "Not A Name"])
        .with(3)
        .complains(&["error[input.previous_image]"]);
}

/// Each system has an earlier image of its own.
#[test]
fn a_previous_index_serves_every_system() {
    let site = Site::new();
    let targets = ["--target", "linux/amd64,linux/arm64"];
    let build = |more: &[&str]| {
        let arguments = ["build", "x", "--path", crate::site::SAMPLE];
        site.run(&[&arguments[..], &targets, more].concat()).with(0)
    };
    build(&["--output", "oci:first"]);
    std::fs::remove_dir_all(site.path().join(".cache")).unwrap();
    let ended = build(&["--output", "oci:second", "--previous-image", "oci:first:x:latest"]);
    assert!(!ended.err.contains("warning"), "{}", ended.err);
}

/// ANA-05, QRK-16: what cannot be decoded is as if it were not there.
#[test]
fn ana_05_a_previous_image_whose_label_is_no_json_is_none() {
    let site = site();
    let first = build(&site, &[]);
    site.change_configuration("out", |configuration| {
        configuration["config"]["Labels"]["io.buildpacks.lifecycle.metadata"] = "{".into();
    });
    std::fs::remove_dir_all(site.path().join(".cache")).unwrap();
    let again = build(&site, &["--verbose"])
        .says(&["the label of the previous image cannot be read", "assets: Filled"]);
    assert_eq!((again.err.as_str(), digest(&again)), ("", digest(&first)));
}

/// A blob that is not what it should be is never kept.
#[test]
fn a_previous_image_with_a_wrong_blob_is_not_believed() {
    let site = site();
    let first = build(&site, &[]);
    for layer in site.manifest("out")["layers"].as_array().unwrap() {
        let blob = site.path().join("out/blobs/sha256").join(&layer["digest"].as_str().unwrap()[7..]);
        let mut bytes = std::fs::read(&blob).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&blob, bytes).unwrap();
    }
    std::fs::remove_dir_all(site.path().join(".cache")).unwrap();
    let again = build(&site, &["--verbose"]).says(&[
        "layer `assets` of the previous image cannot be kept: its blob is not what its digest says",
        "assets: Filled",
    ]);
    assert_eq!(digest(&again), digest(&first));
    assert!(site.layer_names("out").iter().any(|name| name.ends_with("/assets/asset")));
}
