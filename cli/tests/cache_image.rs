//! `--cache-image`: what one machine has cached, another one uses.

use std::path::Path;

use serde_json::Value;
use wapack_runtime::oci::digest::{DiffId, Digest};
use wapack_runtime::oci::image::Image;
use wapack_runtime::oci::layout::{ImageLayout, Platform, read_image};

use crate::published::Registry;
use crate::site::{Ended, Site};

/// A site with an app and the guests `well-behaved` and `big-layer` as buildpacks.
fn site() -> Site {
    let site = Site::new();
    site.file("app/index.html", "<h1>hello</h1>");
    for name in ["well-behaved", "big-layer"] {
        let directory = site.guest(name).expect("the guests are built");
        let toml = format!(
            "api = \"0.12\"\n[buildpack]\nid = \"test/{name}\"\nversion = \"0.1.0\"\n\
             sbom-formats = [\"application/vnd.cyclonedx+json\"]\n"
        );
        std::fs::write(directory.join("buildpack.toml"), toml).unwrap();
    }
    site
}

/// Builds with a guest; its count of runs stays out of the image.
fn build(site: &Site, name: &str, more: &[&str]) -> Ended {
    let arguments = ["build", name, "--path", "app", "--env", "COUNT=no", "--buildpack", "well-behaved"];
    site.run(&[&arguments, more].concat()).with(0)
}

/// Builds into a layout, with the cache in another one.
fn build_here(site: &Site, more: &[&str]) -> Ended {
    let places = ["--output", "oci:out", "--cache-image", "oci:cache:app"];
    build(site, "app", &[&places, more].concat())
}

/// The next build is on a new machine.
fn move_on(site: &Site) {
    std::fs::remove_dir_all(site.path().join(".cache")).unwrap();
}

#[track_caller]
fn digest(ended: &Ended) -> String {
    ended.out.lines().find(|line| line.starts_with("  digest")).unwrap().to_owned()
}

#[test]
fn a_new_machine_uses_what_another_one_cached() {
    let site = site();
    let Some(registry) = Registry::start(&site) else { return };
    let at = |name: &str| format!("{}/{name}", registry.host());
    let (app, cache) = (at("team/app:1"), at("team/cache:1"));
    let run = |more: &[&str]| build(&site, &app, &[&["--publish", "--cache-image", &cache], more].concat());

    let first = run(&[]).says(&[
        &format!("there is no cache image `registry:{cache}` yet"),
        "program: Filled",
        "counter: Filled",
        // What the app's image has, too, is not sent.
        "is written: 2 layers, ",
        "; 1 layer taken over from elsewhere in the registry",
    ]);
    let place = |text: &str| first.out.find(text).unwrap();
    assert!(place("Successfully built image") < place("is written: "), "{}", first.out);

    move_on(&site);
    registry.requests(&[]);
    let second = run(&["--explain"]).says(&[
        "Restoring layer 'test/well-behaved:program'",
        "program: Restored",
        "assets: Kept",
        "counter: Restored",
        "layer 'test/well-behaved:program' reused: what it depends on is the same",
        // T1: no bytes of the cache image get into another image; these are the same ones, made here.
        "Adding layer 'test/well-behaved:program'",
    ]);
    assert_eq!((second.err.as_str(), digest(&second)), ("", digest(&first)));
    second.says(&["moved     nothing; ", "is written: 1 layer, "]);
    let fetched = registry.requests(&["\"GET /v2/team/cache/blobs/"]);
    assert_eq!(fetched.len(), 4, "the configuration, two layers, bills of materials: {fetched:#?}");

    // This machine knows by itself now; one run of `counter` is new.
    let third = run(&[]).says(&["program: Restored", "is written: 1 layer, "]);
    assert_eq!(digest(&third), digest(&first));
    let fetched = registry.requests(&["\"GET /v2/team/cache/"]);
    assert!(fetched.is_empty(), "{fetched:#?}");
    // Somebody else's build of the same: a bill of materials that is missing would show.
    move_on(&site);
    assert_eq!(digest(&run(&["--clear-cache"]).says(&["program: Filled"])), digest(&first));
}

/// Of buildpacks that do not take part, no layer is fetched.
#[test]
fn only_layers_of_buildpacks_that_take_part_are_fetched() {
    let site = site();
    let Some(registry) = Registry::start(&site) else { return };
    let at = |name: &str| format!("{}/{name}", registry.host());
    let (app, cache) = (at("app:1"), at("cache:1"));
    let place = ["--publish", "--cache-image", &cache];
    build(&site, &app, &[&place[..], &["--buildpack", "big-layer"]].concat());
    move_on(&site);
    registry.requests(&[]);
    let arguments = ["build", &app, "--path", "app", "--buildpack", "big-layer"];
    site.run(&[&arguments[..], &place[..]].concat()).with(0).says(&["big: Restored"]);
    let fetched = registry.requests(&["\"GET /v2/cache/blobs/"]);
    assert_eq!(fetched.len(), 2, "the configuration and one layer: {fetched:#?}");
}

/// CAC-06: programs of the lifecycle find the layers by the specification's label.
#[test]
fn cac_06_the_label_of_the_specification_names_the_layers() {
    let site = site();
    build_here(&site, &[]);
    let configuration = site.configuration("cache");
    assert_eq!(configuration["os"], "linux");
    let diff_ids = configuration["rootfs"]["diff_ids"].as_array().unwrap();
    let label = configuration["config"]["Labels"]["io.buildpacks.lifecycle.cache.metadata"].as_str().unwrap();
    let label: Value = serde_json::from_str(label).unwrap();
    let buildpack = &label["buildpacks"][0];
    assert_eq!((&buildpack["key"], &buildpack["version"]), (&"test/well-behaved".into(), &"0.1.0".into()));
    let layers = buildpack["layers"].as_object().unwrap();
    assert_eq!(layers.keys().collect::<Vec<_>>(), ["counter", "program"]);
    assert_eq!((&layers["program"]["launch"], &layers["program"]["cache"]), (&true.into(), &true.into()));
    for sha in [&layers["counter"]["sha"], &layers["program"]["sha"], &label["sbom"]["sha"]] {
        assert!(diff_ids.contains(sha), "{sha} {diff_ids:?}");
    }
    assert_eq!(diff_ids.len(), 3);
    let names = site.layer_names("cache");
    assert_eq!(
        names,
        [
            "/layers/sbom/cache/test_well-behaved/program/sbom.cdx.json",
            "/layers/test_well-behaved/counter/runs",
            "/layers/test_well-behaved/program/bin/program",
            "/layers/test_well-behaved/program/env.launch/PATH.delim",
            "/layers/test_well-behaved/program/env.launch/PATH.prepend",
        ]
    );
}

#[test]
fn each_system_has_a_cache_of_its_own_under_one_name() {
    let site = site();
    let both = ["--target", "linux/amd64,linux/arm64"];
    let first = build_here(&site, &both);
    move_on(&site);
    let second = build_here(&site, &both);
    assert_eq!(second.out.matches("program: Restored").count(), 2, "{}", second.out);
    assert_eq!(second.out.matches("counter: Restored").count(), 2, "{}", second.out);
    assert_eq!((second.err.as_str(), digest(&second)), ("", digest(&first)));
}

/// CAC-09: a cache that cannot be read or written never costs the image.
#[test]
fn cac_09_a_build_goes_on_without_its_cache() {
    let site = site();
    let first = build_here(&site, &[]);
    let without = |places: &[&str], complaints: &[&str]| {
        move_on(&site);
        let ended = build(&site, "app", &[&["--output", "oci:out"], places].concat());
        let ended = ended.says(&["program: Filled"]).complains(complaints);
        assert_eq!(digest(&ended), digest(&first));
    };
    // Nobody listens there.
    let (read, written) = (
        "warning: the cache image `registry:127.0.0.1:1/cache:1` is not used: ",
        "warning: the cache image `registry:127.0.0.1:1/cache:1` is not written: ",
    );
    without(&["--cache-image", "127.0.0.1:1/cache:1"], &[read, written]);
    let file = site.file("a-file/x", "").parent().unwrap().join("x/layout");
    let place = format!("oci:{}:cache", file.display());
    without(&["--cache-image", &place], &["is not written: "]);
}

#[test]
fn a_cache_image_has_a_name_and_a_place_of_its_own() {
    let site = site();
    let run = |more: &[&str]| site.run(&[&["build", "app", "--path", "app"], more].concat()).with(3);
    for place in ["docker:cache", "docker-archive:cache.tar:x", "oci:cache", "registry", "a b"] {
        run(&["--cache-image", place])
            .complains(&["error[input.cache_image]", "hint: name one in a registry"]);
    }
    let digest = format!("registry.example/cache@sha256:{}", "0".repeat(64));
    run(&["--cache-image", &digest]).complains(&["error[input.cache_image]"]);
    for (output, place) in [
        ("registry", "docker.io/library/app"),
        ("oci:out", "oci:./out:app:latest"),
        ("oci-archive:out.tar", "oci-archive:./out.tar:cache"),
    ] {
        site.file("out/oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
        site.file("out.tar", "");
        run(&["--output", output, "--cache-image", place])
            .complains(&["would take the place of the image itself"]);
    }
    // Nothing is there yet, and it is the same place all the same.
    run(&["--output", "oci-archive:new.tar", "--cache-image", "oci-archive:./new.tar:cache"])
        .complains(&["would take the place of the image itself"]);
    // R12
    for (flag, input) in [("--run-image", "registry.example/run:1"), ("--previous-image", "oci:out:app")] {
        run(&["--publish", flag, input, "--cache-image", input])
            .complains(&["would take the place of an image that the build starts from"]);
    }
}

/// Changes the cache image, so that all of its digests are right again.
fn change_cache(site: &Site, change: impl FnOnce(&mut Image)) {
    let layout = site.path().join("cache");
    let mut image = read_image(&layout, Some("app"), None::<Platform<'_>>).unwrap().image;
    change(&mut image);
    ImageLayout::open(&layout).unwrap().write(&image, "app", &(), &mut |_| true).unwrap();
}

/// Puts another tar in the place of the layer `counter`, and says so in all labels.
fn replace_counter(directory: &Path, image: &mut Image, tar: &[u8]) {
    let labels = &mut image.configuration.config.labels;
    let label: Value = serde_json::from_str(&labels["io.wapack.cache"]).unwrap();
    let old = label["buildpacks"]["test/well-behaved"]["layers"]["counter"]["diff_id"].as_str().unwrap();
    let new = Digest::of(tar);
    for text in labels.values_mut() {
        *text = text.replace(old, new.as_str());
    }
    let place = image.layers.iter().position(|layer| layer.diff_id.to_string() == old).unwrap();
    let file = directory.join("other-layer");
    std::fs::write(&file, tar).unwrap();
    let layer = &mut image.layers[place];
    layer.diff_id = DiffId(new.clone());
    (layer.digest, layer.size, layer.blob) = (new.clone(), tar.len() as u64, file.into());
    image.configuration.rootfs.diff_ids[place] = DiffId(new);
}

/// A2, A9: a layer of hostile hands gets nowhere, and the others are used.
#[test]
fn a2_and_a9_a_layer_that_leads_out_is_not_unpacked() {
    type Fill = fn(&mut tar::Builder<Vec<u8>>);
    fn header(kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(size);
        header
    }
    const COUNTER: &str = "layers/test_well-behaved/counter";
    let attacks: [(&str, Fill); 4] = [
        ("a path with ..", |tar| {
            let mut header = header(tar::EntryType::Regular, 4);
            let name = &mut header.as_old_mut().name;
            let path = b"layers/test_well-behaved/counter/../../../../evil";
            name[..path.len()].copy_from_slice(path);
            header.set_cksum();
            tar.append(&header, &b"evil"[..]).unwrap();
        }),
        ("a file of another layer", |tar| {
            let path = "layers/test_well-behaved/program/bin/program";
            tar.append_data(&mut header(tar::EntryType::Regular, 4), path, &b"evil"[..]).unwrap();
        }),
        ("a link, and a file through it", |tar| {
            let link = format!("{COUNTER}/link");
            tar.append_link(&mut header(tar::EntryType::Symlink, 0), &link, "/tmp").unwrap();
            let path = format!("{COUNTER}/link/wapack-evil");
            tar.append_data(&mut header(tar::EntryType::Regular, 4), path, &b"evil"[..]).unwrap();
        }),
        ("a pipe", |tar| {
            let path = format!("{COUNTER}/pipe");
            tar.append_data(&mut header(tar::EntryType::Fifo, 0), path, &b""[..]).unwrap();
        }),
    ];
    let site = site();
    let first = build_here(&site, &[]);
    for (what, fill) in attacks {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut header(tar::EntryType::Directory, 0), COUNTER, &b""[..]).unwrap();
        fill(&mut tar);
        let tar = tar.into_inner().unwrap();
        change_cache(&site, |image| replace_counter(site.path(), image, &tar));
        move_on(&site);
        let ended = build_here(&site, &[]);
        let warning = "warning: layer `test/well-behaved:counter` of the cache image is not used: ";
        assert!(ended.err.contains(warning), "{what}: {}\n{}", ended.out, ended.err);
        let ended = ended.says(&["program: Restored", "counter: Filled"]);
        assert_eq!(digest(&ended), digest(&first), "{what}");
        assert!(!Path::new("/tmp/wapack-evil").exists(), "{what}");
        assert_eq!(site.find_files("cache", "evil"), Vec::<std::path::PathBuf>::new(), "{what}");
    }
    // The same way, but as it should be.
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header(tar::EntryType::Directory, 0), COUNTER, &b""[..]).unwrap();
    let path = format!("{COUNTER}/runs");
    tar.append_data(&mut header(tar::EntryType::Regular, 2), path, &b"xx"[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    change_cache(&site, |image| replace_counter(site.path(), image, &tar));
    move_on(&site);
    assert_eq!(build_here(&site, &[]).says(&["counter: Restored"]).err, "");
}

/// R3, R8: what is not what its digests say is not used.
#[test]
fn r3_and_r8_a_damaged_cache_is_none() {
    let site = site();
    let first = build_here(&site, &[]);
    // Blobs that are not what the manifest says.
    for layer in site.manifest("cache")["layers"].as_array().unwrap() {
        let name = layer["digest"].as_str().unwrap().replace("sha256:", "cache/blobs/sha256/");
        let file = site.path().join(name);
        let mut bytes = std::fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    move_on(&site);
    let again = build_here(&site, &[]).says(&["program: Filled", "counter: Filled"]);
    let again = again.complains(&[
        "layer `test/well-behaved:counter` of the cache image is not used: its blob is not what its digest says",
        "layer `test/well-behaved:program` of the cache image is not used: its blob is not what its digest says",
    ]);
    assert_eq!(digest(&again), digest(&first));

    // The bytes of the manifest, and not those of the configuration.
    build_here(&site, &[]);
    change_cache(&site, |image| {
        let other = DiffId(Digest::of(b"other"));
        for (layer, diff_id) in image.layers.iter_mut().zip(&mut image.configuration.rootfs.diff_ids) {
            let old = layer.diff_id.to_string();
            for text in image.configuration.config.labels.values_mut() {
                *text = text.replace(&old, other.0.as_str());
            }
            (layer.diff_id, *diff_id) = (other.clone(), other.clone());
        }
    });
    move_on(&site);
    let again = build_here(&site, &[]).says(&["program: Filled", "counter: Filled"]);
    assert_eq!(digest(&again), digest(&first));

    // A label that is not ours, and none.
    for text in ["{", "{\"format\":2,\"form\":null,\"buildpacks\":{}}"] {
        change_cache(&site, |image| {
            image.configuration.config.labels.insert("io.wapack.cache".to_owned(), text.to_owned());
        });
        move_on(&site);
        let again = build_here(&site, &[]).says(&["program: Filled"]);
        assert!(again.err.contains("is no cache image of this program and is not used"), "{}", again.err);
    }
}
