//! Layers: what is in them, and which are used again.

use super::*;

/// TAR-05, TAR-06, TAR-07, TAR-08, TAR-09, TAR-14: a layer, the bills of materials and the config.
#[test]
fn tar_05_to_09_directories_become_layers_as_they_are_on_disk() {
    let site = Site::new();
    site.layer("mods", LAUNCH);
    let mods = "layers/acme_node/mods";
    site.file(&format!("{mods}/bin/suid"), "s", 0o4711);
    site.file(&format!("{mods}/bin/sgid"), "g", 0o2750);
    site.file(&format!("{mods}/a-b"), "1", 0o600);
    site.file(&format!("{mods}/a/b"), "2", 0o444);
    site.file(&format!("{mods}/sticky/x"), "x", 0o666);
    site.mode(&format!("{mods}/sticky"), 0o1777);
    site.mode(&format!("{mods}/a"), 0o2700);
    fs::hard_link(site.path(&format!("{mods}/a-b")), site.path(&format!("{mods}/second"))).unwrap();
    symlink("nowhere/", site.path(&format!("{mods}/link"))).unwrap();
    let fifo = site.path(&format!("{mods}/fifo"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o620),
        0,
    )
    .unwrap();
    site.mode(&format!("{mods}/fifo"), 0o620);
    let _socket = std::os::unix::net::UnixListener::bind(site.path(&format!("{mods}/socket"))).unwrap();
    site.mode(mods, 0o750);
    site.mode("layers/acme_node", 0o711);
    site.mode("layers", 0o1775);
    site.write("layers/sbom/launch/acme_node/mods/sbom.cdx.json", "{}");
    site.file("layers/sbom/launch/sbom.legacy.json", "null", 0o600);
    site.write("layers/sbom/build/secret", "not in the image");

    let image = site.export();
    let ids = diff_ids(&image);
    assert_eq!(ids[1], site.expected(mods, "walk", &[]));
    assert_eq!(ids[2], site.expected("layers/sbom/launch", "walk", &[]));
    assert_eq!(ids[3], site.expected("app", "sorted", &[]));
    assert_eq!(ids[5], site.expected("layers/config", "walk", &[]));
    // V2, with one process more; made by an independent script.
    assert_eq!(ids.len(), 7);
    let metadata = lifecycle(&image);
    assert_eq!(metadata["buildpacks"][0]["layers"]["mods"]["sha"], json!(ids[1]));
    assert_eq!(metadata["sbom"]["sha"], json!(ids[2]));
    assert_eq!(metadata["app"], json!([{"sha": ids[3]}]));
    assert_eq!(metadata["launcher"]["sha"], json!(ids[4]));
    assert_eq!(metadata["config"]["sha"], json!(ids[5]));
    assert_eq!(metadata["process-types"]["sha"], json!(ids[6]));
    assert_eq!(metadata["runImage"]["topLayer"], json!(ids[0]));
    assert!(site.warnings().iter().any(|warning| warning.contains("socket")), "{:?}", site.warnings());
}

/// TAR-06: whoever owns what is above a layer, and whatever its mode.
#[test]
fn tar_06_what_is_above_keeps_its_owner() {
    let site = Site::new();
    site.layer("x", LAUNCH);
    site.write("layers/acme_node/x/f", "f");
    let image = site.export();
    let output = Command::new("tar")
        .args(["--list", "--verbose", "--numeric-owner", "--absolute-names", "--gzip", "--file"])
        .arg(image.layers[1].file().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let owner_of = |path: &Path| {
        let name = path.to_str().unwrap();
        let line = text.lines().find(|line| line.ends_with(&format!(" {name}"))).expect(name);
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let layer = site.path("layers/acme_node/x");
    assert_eq!(owner_of(&layer), format!("{UID}/{GID}"));
    assert_eq!(owner_of(&layer.join("f")), format!("{UID}/{GID}"));
    for parent in layer.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
        let metadata = fs::metadata(parent).unwrap();
        assert_eq!(owner_of(parent), format!("{}/{}", metadata.uid(), metadata.gid()), "{parent:?}");
    }
}

/// EXP-03, EXP-04, SLC-03, SLC-04, SLC-05: a directory that lost everything to one slice is
/// not there for the next, and no layer is left out.
#[test]
fn slc_03_to_05_slices_of_an_app_on_disk() {
    let site = Site::new();
    for name in ["static/a.css", "static/sub/b.css", "README.md", "deep/a/x", "deep/z/q", "main.js"] {
        site.file(&format!("app/{name}"), name, 0o640);
    }
    fs::create_dir(site.path("app/emptydir")).unwrap();
    let slices = "[[slices]]\npaths = [\"static/*\", \"*.md\"]\n[[slices]]\npaths = [\"nothing\"]\n\
                  [[slices]]\npaths = [\"static\", \"deep/a\"]\n";
    site.write("layers/config/metadata.toml", &format!("{METADATA}{slices}"));
    let image = site.export();
    let app: Vec<String> = lifecycle(&image)["app"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["sha"].as_str().unwrap().to_owned())
        .collect();
    let first = ["", "static", "static/a.css", "static/sub", "static/sub/b.css", "README.md"];
    assert_eq!(app[0], site.expected("app", "sorted", &first));
    assert_eq!(app[1], site.expected("app", "sorted", &["-"]));
    assert_eq!(app[2], site.expected("app", "sorted", &["", "deep", "deep/a", "deep/a/x"]));
    assert_eq!(
        app[3],
        site.expected("app", "sorted", &["", "deep", "deep/z", "deep/z/q", "main.js", "emptydir"])
    );
    assert_eq!(
        lines(&image)[1..5],
        ["Application Slice: 1", "Application Slice: 2", "Application Slice: 3", "Application Slice: 4",]
    );
}

/// SLC-01, EXP-08: and nothing is saved.
#[test]
fn slc_01_a_malformed_pattern_is_a_failed_export() {
    let site = Site::new();
    site.write("layers/config/metadata.toml", "[[slices]]\npaths = [\"[\"]\n");
    let (code, text) = site.failure();
    assert_eq!(code, 62, "{text}");
    assert!(site.images.find("registry.example/app:1").unwrap().is_none());
}

/// LYR-14, LYR-16, LYR-18, LBL-01, STO-01
#[test]
fn lyr_14_launch_layers_are_in_the_image_with_their_metadata() {
    let site = Site::new();
    site.layer("a.b ü", &format!("{LAUNCH}build = true\n[metadata]\nn = 9007199254740993\n"));
    fs::create_dir(site.path("layers/acme_node/a.b ü")).unwrap();
    site.layer("build", "[[unmet]]\nname = \"x\"\n");
    site.layer("only-build", "[types]\nbuild = true\n");
    site.write("layers/acme_node/only-build/f", "f");
    site.write("layers/acme_node/no-toml/f", "f");
    site.write("layers/acme_node/store.toml", "[metadata]\nk = 1\n");
    let image = site.export();
    let record = &lifecycle(&image)["buildpacks"][0];
    let ids = diff_ids(&image);
    let expected = json!({
        "key": "acme/node", "version": "1.2", "store": {"metadata": {"k": 1}},
        "layers": {"a.b ü": {"sha": ids[1], "data": {"n": 9_007_199_254_740_993_i64}, "build": true, "launch": true, "cache": false}},
    });
    assert_eq!(*record, expected);
    assert_eq!(image.layers.len(), 6);
}

/// EXP-10, EXP-11, EXP-13
#[test]
fn exp_10_and_11_unchanged_layers_are_taken_from_the_previous_image() {
    let site = Site::new();
    for name in ["same", "changed", "gone"] {
        site.layer(name, LAUNCH);
        site.write(&format!("layers/acme_node/{name}/f"), name);
    }
    site.write("layers/sbom/launch/x", "{}");
    site.write("app/main.js", "main");
    let first = site.export();
    assert_eq!(site.reused(), Vec::<String>::new());
    // As others compress: the blobs of the previous image have to be found in the new one.
    let previous = recompressed(&site, &first);
    site.save(&previous, "registry.example/app:1");
    site.becomes_previous(&previous);
    fs::remove_dir_all(site.path("layers/acme_node/gone")).unwrap();
    fs::remove_file(site.path("layers/acme_node/gone.toml")).unwrap();
    site.write("layers/acme_node/changed/f", "other");
    let second = site.export();
    assert_eq!(
        site.reused(),
        ["acme/node:same", "sbom", "app", "launcher", "launcher config", "process types"]
    );
    let digests =
        |image: &Image| -> Vec<Digest> { image.layers.iter().map(|layer| layer.digest.clone()).collect() };
    // changed, gone, same, …: the base and the changed one are new, the gone one is left out.
    assert_eq!(digests(&second)[2..], digests(&previous)[3..]);
    assert_ne!(digests(&second)[1], digests(&previous)[1]);

    site.analyzed(
        &Analyzed::parse(&fs::read_to_string(&site.inputs.analyzed).unwrap())
            .unwrap()
            .run_image
            .unwrap()
            .reference,
        "",
    );
    let fresh = site.export();
    assert_eq!(fresh.configuration, second.configuration);
    assert_ne!(digests(&fresh)[2..], digests(&second)[2..]);
}

/// The same image with blobs of another compression.
fn recompressed(site: &Site, image: &Image) -> Image {
    let mut image = image.clone();
    for (number, layer) in image.layers.iter_mut().enumerate().skip(1) {
        let output = Command::new("sh")
            .args(["-c", "gzip -dc < \"$0\" | gzip -1n"])
            .arg(layer.file().unwrap())
            .output()
            .unwrap();
        layer.digest = Digest::of(&output.stdout);
        layer.size = output.stdout.len() as u64;
        layer.blob = site.path(&format!("scratch/{number}.again")).into();
        fs::write(layer.file().unwrap(), output.stdout).unwrap();
    }
    image
}

/// EXP-11: a layer that cannot be used again is made like any other.
#[test]
fn exp_11_a_damaged_layer_of_the_previous_image_is_made_anew() {
    let mut site = Site::new();
    site.layer("l", LAUNCH);
    site.write("layers/acme_node/l/f", "f");
    let first = site.export();
    site.becomes_previous(&first);
    let blob = first.layers[1].file().unwrap();
    let bytes = fs::read(blob).unwrap();
    let mut changed = bytes.clone();
    changed[20] ^= 1;
    for damaged in [&b"not what it was"[..], &bytes[..bytes.len() - 1], &changed] {
        fs::write(blob, damaged).unwrap();
        // Another layout, into which layers are copied.
        site.inputs.images[0].push('1');
        let again = site.export();
        let warnings = site.warnings();
        assert!(warnings.iter().any(|text| text.contains("is not used again")), "{warnings:?}");
        assert_eq!(again.documents(), first.documents());
        assert_eq!(fs::read(again.layers[1].file().unwrap()).unwrap(), bytes);
    }
}

#[test]
fn exp_10_a_slice_is_any_layer_of_the_previous_app() {
    let site = Site::new();
    site.write("app/a", "a");
    site.write("app/b", "b");
    let slices = |first: &str, second: &str| {
        format!("{METADATA}[[slices]]\npaths = [\"{first}\"]\n[[slices]]\npaths = [\"{second}\"]\n")
    };
    site.write("layers/config/metadata.toml", &slices("a", "b"));
    let first = site.export();
    site.becomes_previous(&first);
    site.write("layers/config/metadata.toml", &slices("b", "a"));
    site.export();
    let reused = site.reused();
    for name in ["app slice 1", "app slice 2", "app slice 3"] {
        assert!(reused.iter().any(|reused| reused == name), "{name} in {reused:?}");
    }
}

/// LYR-15, EXP-12
#[test]
fn lyr_15_a_layer_without_contents_stays_as_it_was() {
    let site = Site::new();
    site.layer("kept", &format!("{LAUNCH}[metadata]\nv = 1\n"));
    site.write("layers/acme_node/kept/f", "f");
    let first = site.export();
    site.becomes_previous(&first);
    fs::remove_dir_all(site.path("layers/acme_node/kept")).unwrap();
    site.layer("kept", &format!("{LAUNCH}[metadata]\nv = 2\n"));
    let second = site.export();
    assert_eq!(second.layers[1].digest, first.layers[1].digest);
    assert_eq!(lines(&second)[1], "Layer: 'kept', Created by buildpack: acme/node@1.2");
    let record = &lifecycle(&second)["buildpacks"][0]["layers"]["kept"];
    assert_eq!((&record["data"]["v"], &record["sha"]), (&json!(2), &json!(diff_ids(&first)[1])));
    // A platform may leave out blobs; then the layer cannot stay.
    site.becomes_previous(&second);
    let images = site.path("images/registry.example/app/1/blobs/sha256");
    fs::remove_file(images.join(first.layers[1].digest.hex())).unwrap();
    let (code, text) = site.failure();
    assert!(code == 62 && text.contains("`kept`"), "{code} {text}");
    site.layer("kept", LAUNCH);
    site.layer("new", LAUNCH);
    fs::remove_file(site.path("layers/acme_node/kept.toml")).unwrap();
    let (code, text) = site.failure();
    assert!(code == 62 && text.contains("`new`"), "{code} {text}");
}

#[test]
fn lyr_17_a_cached_layer_without_contents_fails_the_export() {
    let site = Site::new();
    site.layer("x", LAUNCH);
    site.write("layers/acme_node/x/f", "f");
    site.becomes_previous(&site.export());
    fs::remove_dir_all(site.path("layers/acme_node/x")).unwrap();
    site.layer("x", "[types]\nlaunch = true\ncache = true\n");
    let (code, text) = site.failure();
    assert!(code == 62 && text.contains("to be cached"), "{code} {text}");
}

#[test]
fn exp_07_files_of_buildpacks_that_cannot_be_read_fail_the_export() {
    for (name, text) in
        [("x", "types"), ("x", "[types]\nlaunch = 1\n"), ("x", "launch = true\n"), ("store", "[")]
    {
        let site = Site::new();
        site.layer(name, text);
        let (code, said) = site.failure();
        assert!(code == 62 && said.contains("acme/node@1.2"), "{text}: {code} {said}");
    }
    let site = Site::new();
    site.write("layers/config/metadata.toml", "processes = 1");
    assert_eq!(site.failure().0, 1);
    let site = Site::new();
    site.write("layers/analyzed.toml", "run-image = 1");
    assert_eq!(site.failure().0, 3);
}

/// A buildpack must not lead the exporter out of its directory.
#[test]
fn links_in_the_place_of_directories_are_not_followed() {
    let site = Site::new();
    site.write("secret/f", "secret");
    site.write("secret/x.toml", LAUNCH);
    site.write("secret/x/f", "secret");
    symlink(site.path("secret"), site.path("layers/acme_node")).unwrap();
    let (code, text) = site.failure();
    assert!(code == 62 && text.contains("acme_node` is not a directory"), "{code} {text}");
    fs::remove_file(site.path("layers/acme_node")).unwrap();
    site.layer("x", LAUNCH);
    symlink("../../secret", site.path("layers/acme_node/x")).unwrap();
    symlink("../secret", site.path("layers/sbom")).unwrap();
    let image = site.export();
    // The link itself, and no layer of bills of materials.
    assert_eq!(diff_ids(&image)[1], site.expected("layers/acme_node/x", "walk", &[""]));
    assert_eq!(image.layers.len(), 6);
    // Nothing is written through the link either.
    site.write("launcher-sbom/sbom.cdx.json", "{}");
    assert_eq!(site.failure().0, 62);
    assert!(!site.path("secret/launch").exists());
}

#[test]
fn a_layer_whose_digest_is_known_is_not_read() {
    let site = Site::new();
    for name in ["x", "new"] {
        site.layer(name, LAUNCH);
        site.write(&format!("layers/acme_node/{name}/f"), "before");
    }
    let first = site.export();
    site.becomes_previous(&first);
    for name in ["x", "new"] {
        site.write(&format!("layers/acme_node/{name}/f"), "after");
    }
    let known = [("x", first.layers[2].diff_id.clone()), ("new", DiffId(Digest::of(b"nowhere")))]
        .map(|(name, diff_id)| (("acme/node".parse().unwrap(), name.parse().unwrap()), diff_id));
    let known = KnownDiffIds::from(known);
    run_knowing(&known, &site.inputs, ImagePlaces::one(&site.images), &Cancel::default(), &mut |_| ())
        .unwrap();
    let second = site.images.find("registry.example/app:1").unwrap().unwrap().image;
    assert_eq!(second.layers[2], first.layers[2]);
    // One that the previous image does not have is made.
    assert_eq!(diff_ids(&second)[1], site.expected("layers/acme_node/new", "walk", &[]));
}

/// TAR-08, CAC-01: what a cache keeps of a layer is what an image has of it.
#[test]
fn tar_08_a_directory_alone_is_written_like_a_layer() {
    let site = Site::new();
    site.layer("x", LAUNCH);
    site.file("layers/acme_node/x/a/b", "ab", 0o755);
    site.file("layers/acme_node/x/a-b", "a-b", 0o600);
    let path = site.path("layers/acme_node/x");
    let write = |path: &Path| {
        let (owner, cancel) = (Owner { uid: UID.into(), gid: GID.into() }, Cancel::default());
        write_layer(path.to_str().unwrap(), owner, TreeLimits::default(), &cancel, Vec::new()).unwrap()
    };
    let (diff_id, tar) = write(&path).unwrap();
    assert_eq!(diff_id.to_string(), site.expected("layers/acme_node/x", "walk", &[]));
    assert_eq!(Digest::of(&tar), diff_id.0);
    assert_eq!(diff_ids(&site.export())[1], diff_id.to_string());
    assert_eq!(write(&path.join("missing")), None);
}
