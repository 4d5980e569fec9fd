//! What is said and left behind: bills of materials, the report, exit codes, errors.

use super::*;

#[test]
fn sbom_11_the_launchers_bill_of_materials_is_in_the_image() {
    let mut site = Site::new();
    site.write("launcher-sbom/launcher.sbom.cdx.json", "{\"l\":1}");
    site.write("launcher-sbom/sbom.spdx.json", "{\"s\":1}");
    site.write("launcher-sbom/other.json", "{}");
    let image = site.export();
    assert_eq!(diff_ids(&image)[1], site.expected("layers/sbom/launch", "walk", &[]));
    let copied = |name: &str| {
        let directory = site.path("layers/sbom/launch/buildpacksio_lifecycle/launcher");
        fs::read_to_string(directory.join(name)).unwrap()
    };
    assert_eq!(copied("sbom.cdx.json"), "{\"l\":1}");
    assert_eq!(copied("sbom.spdx.json"), "{\"s\":1}");
    assert!(lifecycle(&image)["sbom"]["sha"].is_string());
    fs::remove_dir_all(site.path("layers/sbom")).unwrap();
    site.api(10);
    assert!(lifecycle(&site.export()).get("sbom").is_none());
}

#[test]
fn a_launcher_for_another_processor_is_refused() {
    let site = Site::new();
    let mut program = fs::read("/bin/sh").unwrap();
    // `e_machine`, by ELF's own numbers: AArch64 is 183, x86-64 is 62.
    program[18..20].copy_from_slice(&[183, 0]);
    fs::write(site.path("launcher"), &program).unwrap();
    let (code, text) = site.failure();
    assert_eq!(code, 62);
    assert!(text.contains("is for `arm64`, and the run image for `amd64`"), "{text}");
    program[18..20].copy_from_slice(&[62, 0]);
    fs::write(site.path("launcher"), &program).unwrap();
    site.export();
}

/// SBOM-08, SBOM-10
#[test]
fn sbom_08_bills_of_materials_of_the_build_stay_outside() {
    let mut site = Site::new();
    site.write("layers/sbom/build/acme_node/sbom.cdx.json", "{\"of\": \"build\"}");
    site.write("layers/sbom/cache/acme_node/x/sbom.cdx.json", "{}");
    fs::create_dir(site.path("cache")).unwrap();
    site.inputs.cache_dir = Some(site.path("cache"));
    assert!(lifecycle(&site.export()).get("sbom").is_none());
    site.write("layers/sbom/launch/sbom.legacy.json", "null");
    let image = site.export();
    assert_eq!(lines(&image)[1], "Software Bill-of-Materials");
    assert_eq!(lifecycle(&image)["sbom"]["sha"], json!(site.expected("layers/sbom/launch", "walk", &[])));
    // Those of the build are where the builder left them, and neither in image nor cache.
    let text = fs::read_to_string(site.path("layers/sbom/build/acme_node/sbom.cdx.json")).unwrap();
    assert_eq!(text, "{\"of\": \"build\"}");
    let cached: Vec<String> = fs::read_dir(site.path("cache/committed"))
        .unwrap()
        .map(|entry| String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap()).into_owned())
        .collect();
    assert!(cached.len() == 2 && !cached.iter().any(|text| text.contains("sbom/build")), "{cached:?}");
    site.inputs.cache_dir = None;
    site.api(7);
    assert!(lifecycle(&site.export()).get("sbom").is_none());
}

/// Names in the tar of a layer, in their order.
fn names(layer: &Layer) -> Vec<String> {
    let blob = fs::File::open(layer.file().unwrap()).unwrap();
    let output = Command::new("tar").args(["-tzPf", "-"]).stdin(blob).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|name| name.trim_end_matches('/').to_owned())
        .collect()
}

/// EXP-05, LYR-11: each file is where it was during the build, and there is no other.
#[test]
fn exp_05_and_lyr_11_the_image_has_what_was_built_at_its_place_and_nothing_else() {
    let site = Site::new();
    site.layer("l", LAUNCH);
    site.write("layers/acme_node/l/deep/f", "f");
    site.layer("b", "[types]\nbuild = true\ncache = true\n");
    site.write("layers/acme_node/b/no", "no");
    site.write("layers/acme_node/ignored.ignore/no", "no");
    site.write("layers/acme_other/l/no", "no");
    site.write("layers/acme_other/l.toml", LAUNCH);
    site.write("layers/stray", "no");
    site.write("layers/generated/no", "no");
    site.write("app/main", "x");
    site.write("platform/env/SECRET", "no");
    site.write("stray", "no");
    let image = site.export();
    let root = site.path("");
    let root = root.to_str().unwrap().trim_end_matches('/');
    let found: Vec<Vec<String>> = image.layers[1..]
        .iter()
        .map(|layer| {
            let below = |name: String| match name.strip_prefix(&format!("{root}/")) {
                Some(name) => Some(name.to_owned()),
                // Directories above are there with every layer.
                None => Some(name).filter(|name| !root.starts_with(name.as_str())),
            };
            names(layer).into_iter().filter_map(below).collect()
        })
        .collect();
    assert_eq!(
        found,
        [
            vec![
                "layers",
                "layers/acme_node",
                "layers/acme_node/l",
                "layers/acme_node/l/deep",
                "layers/acme_node/l/deep/f"
            ],
            vec!["app", "app/main"],
            vec!["/cnb", "/cnb/lifecycle", "/cnb/lifecycle/launcher"],
            vec!["layers", "layers/config", "layers/config/metadata.toml"],
            vec!["/cnb", "/cnb/process", "/cnb/process/job", "/cnb/process/web"],
        ]
    );
}

#[test]
fn sto_04_a_store_that_is_deleted_is_cleared_and_one_that_is_left_alone_stays() {
    let site = Site::new();
    let store = |site: &Site| lifecycle(&site.export())["buildpacks"][0].get("store").cloned();
    site.write("layers/acme_node/store.toml", "[metadata]\nk = 1\n");
    assert_eq!(store(&site), Some(json!({"metadata": {"k": 1}})));
    let image = site.export();
    site.becomes_previous(&image);
    // Nobody touched it.
    assert_eq!(store(&site), Some(json!({"metadata": {"k": 1}})));
    fs::remove_file(site.path("layers/acme_node/store.toml")).unwrap();
    assert_eq!(store(&site), None);
}

/// RPT-01, EXP-06
#[test]
fn rpt_01_every_name_is_saved_and_reported() {
    let mut site = Site::new();
    site.inputs.images = vec![
        "registry.example/app:1".to_owned(),
        "registry.example/app:2".to_owned(),
        "registry.example/b".to_owned(),
    ];
    let image = site.export();
    for name in &site.inputs.images {
        let found = site.images.find(name).unwrap().unwrap().image;
        assert_eq!(found.documents(), image.documents(), "{name}");
    }
    // As it is under the first name, which it says.
    let (_, manifest) = image.documents_called("1");
    let report: toml::Table = fs::read_to_string(&site.inputs.report).unwrap().parse().unwrap();
    let expected = toml::toml! {
        [image]
        tags = ["registry.example/app:1", "registry.example/app:2", "registry.example/b"]
    };
    assert_eq!(report["image"]["tags"], expected["image"]["tags"]);
    assert_eq!(report["image"]["digest"].as_str(), Some(manifest.digest.as_str()));
    assert_eq!(report["image"]["manifest-size"].as_integer(), i64::try_from(manifest.bytes.len()).ok());
    assert_eq!(report.len(), 1);
}

#[test]
fn rpt_02_a_report_that_cannot_be_written_fails_the_export() {
    let mut site = Site::new();
    site.inputs.report = site.path("launcher/report.toml");
    assert_eq!(site.failure().0, 62);
}

#[test]
fn rpt_03_old_platforms_are_told_what_the_build_was_made_with() {
    let mut site = Site::new();
    site.api(8);
    site.layer("build", "[[bom]]\nname = \"x\"\n[bom.metadata]\nv = 1\n");
    site.export();
    let report: toml::Table = fs::read_to_string(&site.inputs.report).unwrap().parse().unwrap();
    let entry = report["build"]["bom"][0].as_table().unwrap();
    let expected: toml::Table = toml::toml! {
        name = "x"
        [metadata]
        v = 1
        [buildpack]
        id = "acme/node"
        version = "1.2"
    };
    assert_eq!(*entry, expected);
}

#[test]
fn rpt_06_a_name_that_fails_fails_the_export() {
    let mut site = Site::new();
    site.inputs.images.push("registry.example/app:2".to_owned());
    site.write("images/registry.example/app/2", "in the way");
    let (code, text) = site.failure();
    assert!(code == 62 && text.contains("app:2"), "{code} {text}");
    assert!(site.images.find("registry.example/app:1").unwrap().is_some());
}

/// API-07, EXP-07: before anything is made.
#[test]
fn api_07_and_codes_of_what_is_wrong_before() {
    let mut site = Site::new();
    site.write("layers/group.toml", "[[group]]\nid = \"acme/node\"\nversion = \"1.2\"\napi = \"0.99\"\n");
    assert_eq!(site.failure().0, 12);
    site.write("layers/group.toml", "[");
    assert_eq!(site.failure().0, 1);
    site.write("layers/analyzed.toml", "");
    assert_eq!(site.failure().0, 3);
    for names in [vec![], vec!["No Name"], vec!["one.example/a", "two.example/a"]] {
        site.inputs.images = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(site.failure().0, 3, "{names:?}");
    }
    let site = Site::new();
    site.analyzed("missing.example/run", "");
    assert_eq!(site.failure().0, 1);
}

/// EXP-01, EXP-03, LBL-14: with what image extensions made of the run image.
#[test]
fn exp_01_an_extended_run_image_is_the_base() {
    let site = Site::new();
    let found = site.images.find("run").unwrap().unwrap();
    let mut extended = found.image.clone();
    let layer = site.blob("curl", MediaFamily::Docker);
    extended.layers.push(layer.clone());
    extended.configuration.rootfs.diff_ids.push(layer.diff_id.clone());
    let line = "Layer: 'RUN apt', Created by extension: acme/curl";
    extended.configuration.history.push(History { created_by: Some(line.to_owned()), ..History::default() });
    extended.configuration.config.labels.insert("io.buildpacks.rebasable".to_owned(), "true".to_owned());
    extended.configuration.config.env.push("CURL=1".to_owned());
    let reference = site.save(&extended, "extended");
    // The platform has the layers of the run image elsewhere.
    let from = site.path("images/index.docker.io/library/extended/latest");
    fs::remove_file(from.join("blobs/sha256").join(extended.layers[0].digest.hex())).unwrap();
    let to = site.path("layers/extended/run");
    fs::create_dir_all(&to).unwrap();
    fs::rename(&from, to.join(reference.rsplit_once('@').unwrap().1)).unwrap();

    let image = site.export();
    assert!(!diff_ids(&image).contains(&layer.diff_id.to_string()), "it is not to be extended");
    let text = fs::read_to_string(&site.inputs.analyzed).unwrap();
    site.write("layers/analyzed.toml", &format!("{text}extend = true\n"));
    let image = site.export();
    assert_eq!(diff_ids(&image)[1], layer.diff_id.to_string());
    assert_eq!(lines(&image)[..3], ["ADD rootfs", line, "Application Layer"]);
    assert_eq!(image.layers[1].media_type, MediaFamily::Oci.layer());
    assert_eq!(image.configuration.config.labels["io.buildpacks.rebasable"], "true");
    assert!(image.configuration.config.env.contains(&"CURL=1".to_owned()));
    // What a rebase replaces ends below.
    assert_eq!(lifecycle(&image)["runImage"]["topLayer"], json!(diff_ids(&image)[0]));
    assert_eq!(lifecycle(&image)["runImage"]["reference"], found.reference);
}

#[test]
fn nothing_is_left_in_the_scratch_directory() {
    let site = Site::new();
    site.export();
    let left: Vec<_> =
        fs::read_dir(site.path("scratch")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["etc.blob"]);
}

/// CAC-09: whoever waits for the image need not wait for the cache.
#[test]
fn cac_09_the_image_is_told_of_before_the_cache_is_written() {
    let mut site = Site::new();
    site.layer("kept", "[types]\ncache = true\n");
    site.file("layers/acme_node/kept/file", "x", 0o644);
    site.inputs.cache_image = Some("registry.example/cache".to_owned());
    site.export();
    let caches = site.images.find("registry.example/cache").unwrap().unwrap().image;
    assert_eq!(caches.layers.len(), 1);
    let events = site.events.borrow().clone();
    let place = |wanted: fn(&Event) -> bool| events.iter().position(wanted).unwrap();
    let written = place(|event| matches!(event, Event::ImageWritten { .. }));
    assert!(written < place(|event| matches!(event, Event::Note { message } if message.contains("kept"))));

    site.inputs.cache_image = Some(site.inputs.images[0].clone());
    let app = site.export();
    assert!(app.layers.len() > 1);
    assert!(site.warnings().iter().any(|warning| warning.contains("nothing is cached")));
}
