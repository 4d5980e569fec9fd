//! What the image says: its configuration, labels and names.

use super::*;

/// EXP-01, EXP-02, IMG-01 to IMG-04, IMG-08, IMG-09
#[test]
fn img_01_to_04_what_the_image_starts_with() {
    let site = Site::new();
    site.layer("x", LAUNCH);
    site.write("layers/acme_node/x/f", "f");
    let image = site.export();
    let run = &image.configuration.config;
    let (layers, app) = (site.path("layers"), site.path("app"));
    assert_eq!(
        run.env,
        [
            "PATH=/cnb/process:/cnb/lifecycle:/usr/bin".to_owned(),
            format!("CNB_LAYERS_DIR={}", layers.display()),
            format!("CNB_APP_DIR={}", app.display()),
            "CNB_PLATFORM_API=0.15".to_owned(),
            "CNB_DEPRECATION_MODE=quiet".to_owned(),
        ]
    );
    assert_eq!(run.working_dir.as_deref(), app.to_str());
    assert_eq!(run.cmd, Vec::<String>::new());
    assert_eq!(run.user.as_deref(), Some("1000:1000"));
    assert_eq!(run.other["StopSignal"], "SIGINT");
    assert_eq!(run.labels["own"], "x");
    assert_eq!(
        lines(&image),
        [
            "ADD rootfs",
            "Layer: 'x', Created by buildpack: acme/node@1.2",
            "Application Layer",
            "Buildpacks Application Launcher",
            "Buildpacks Launcher Config",
            "Buildpacks Process Types",
        ]
    );
}

#[test]
fn img_05_what_is_started() {
    let mut site = Site::new();
    assert_eq!(site.export().configuration.config.entrypoint, ["/cnb/process/web"]);
    site.inputs.process_type = Some("job".to_owned());
    assert_eq!(site.export().configuration.config.entrypoint, ["/cnb/process/job"]);
    site.inputs.process_type = Some("none".to_owned());
    assert_eq!(site.failure().0, 62);
    site.inputs.process_type = None;
    site.write("layers/config/metadata.toml", "");
    let image = site.export();
    assert_eq!(image.configuration.config.entrypoint, ["/cnb/lifecycle/launcher"]);
    // EXP-03: without a process there is no layer of process types.
    assert_eq!(lifecycle(&image)["process-types"]["sha"], "");
    assert_eq!(image.layers.len(), 4);
}

#[test]
fn img_06_the_time_of_an_image() {
    let mut site = Site::new();
    let created = |site: &Site| site.export().configuration.created.unwrap();
    assert_eq!(created(&site), "1980-01-01T00:00:01Z");
    for bad in ["tomorrow", "-1", "1e9", "99999999999999"] {
        site.inputs.source_date_epoch = Some(bad.to_owned());
        assert_eq!(created(&site), "1980-01-01T00:00:01Z");
        assert!(site.warnings().iter().any(|warning| warning.contains("SOURCE_DATE_EPOCH")), "{bad}");
    }
    site.inputs.source_date_epoch = Some("1700000000".to_owned());
    let image = site.export();
    // As `date -u -d @1700000000` says.
    assert_eq!(image.configuration.created.as_deref(), Some("2023-11-14T22:13:20Z"));
    assert!(image.configuration.history.iter().all(|entry| entry.created == image.configuration.created));
    site.api(8);
    assert_eq!(created(&site), "1980-01-01T00:00:01Z");
}

#[test]
fn layers_are_compressed_as_the_platform_wants() {
    let mut site = Site::new();
    let is_zstd = |site: &Site| {
        let image = site.export();
        let layout = site.path("images/registry.example/app/1/blobs/sha256");
        let made = image.layers[1..].iter().map(|layer| {
            let bytes = fs::read(layout.join(layer.digest.hex())).unwrap();
            // RFC 8878, 3.1.1, and RFC 1952, 2.3.1.
            let is_zstd = bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
            assert_eq!(!is_zstd, bytes.starts_with(&[0x1f, 0x8b]));
            assert_eq!(is_zstd, layer.media_type.to_string().ends_with("+zstd"), "{}", layer.media_type);
            is_zstd
        });
        made.collect::<Vec<_>>()
    };
    let remarks = |site: &Site| {
        let warnings = site.warnings().into_iter();
        warnings.filter(|warning| warning.contains("WAPACK_COMPRESSION")).collect::<Vec<_>>()
    };
    assert_eq!(is_zstd(&site), [false; 4]);
    for zstd in ["zstd", "zstd:1"] {
        site.inputs.compression = Some(zstd.to_owned());
        assert_eq!(is_zstd(&site), [true; 4], "{zstd}");
        assert_eq!(remarks(&site), [""; 0]);
    }
    site.inputs.compression = Some("lzma".to_owned());
    assert_eq!(is_zstd(&site), [false; 4]);
    let not_used = "`WAPACK_COMPRESSION` is not used, layers are compressed with gzip: ";
    let reason = |site: &Site| remarks(site)[0].strip_prefix(not_used).map(str::to_owned);
    let names = "it is neither `gzip` nor `zstd`, nor `zstd:` and a level from 1 to 19";
    assert_eq!(reason(&site).as_deref(), Some(names));
    // Who reads images in Docker's format need not know zstd.
    site.inputs.compression = Some("zstd".to_owned());
    let reference = site.run_image("run", MediaFamily::Docker);
    site.analyzed(&reference, "");
    assert_eq!(is_zstd(&site), [false; 4]);
    assert_eq!(reason(&site).as_deref(), Some("the run image is in Docker's format"));
}

#[test]
fn img_07_history_says_nothing_before_platform_api_0_12() {
    let mut site = Site::new();
    site.api(11);
    let image = site.export();
    assert_eq!(image.configuration.history.len(), image.layers.len());
    let entries = serde_json::to_value(&image.configuration.history).unwrap();
    for entry in entries.as_array().unwrap() {
        assert_eq!(*entry, json!({"created": "1980-01-01T00:00:01Z"}));
    }
}

#[test]
fn img_10_the_family_is_the_run_images() {
    let site = Site::new();
    let reference = site.run_image("docker-run", MediaFamily::Docker);
    site.analyzed(&reference, "");
    let image = site.export();
    assert_eq!(image.family, MediaFamily::Docker);
    assert!(image.layers.iter().all(|layer| layer.media_type == MediaFamily::Docker.layer()));
}

#[test]
fn img_12_the_same_directories_give_the_same_manifest() {
    let site = Site::new();
    for number in 0..40 {
        site.layer(&format!("l{number}"), LAUNCH);
        site.write(&format!("layers/acme_node/l{number}/f"), &"x".repeat(number * 1000));
    }
    let first = site.export().documents();
    for _ in 0..3 {
        assert_eq!(site.export().documents(), first);
    }
}

/// LBL-11, LBL-12, PRC-06: forms of older platforms.
#[test]
fn lbl_12_labels_by_platform_api() {
    let mut site = Site::new();
    let label = build(&site.export());
    assert_eq!(label["processes"][1]["command"], json!(["serve", "a b"]));
    assert_eq!(label["processes"][1]["args"], json!(["-v"]));
    assert_eq!(label["processes"][0]["direct"], false);
    assert_eq!(label["processes"][1]["exec-env"], json!(["production"]));
    assert_eq!(label["processes"][0]["buildpackID"], "acme/node");
    assert_eq!(
        label["buildpacks"],
        json!([{"id": "acme/node", "version": "1.2", "homepage": "https://example.com", "api": "0.12"}])
    );
    assert_eq!(label["buildpack-default-process-type"], "web");
    assert!(label.get("bom").is_none());
    site.api(9);
    let label = build(&site.export());
    assert_eq!(label["processes"][1]["command"], "serve");
    assert_eq!(label["processes"][1]["args"], json!(["a b", "-v"]));
    assert!(label.get("bom").is_none());
    site.api(8);
    assert_eq!(build(&site.export())["bom"], Value::Null);
    let bom = "[[bom]]\nname = \"x\"\n[bom.metadata]\nv = 1\n[bom.buildpack]\nid = \"a\"\nversion = \"1\"\n";
    site.write("layers/config/metadata.toml", &format!("{METADATA}{bom}"));
    let expected = json!([{"name": "x", "metadata": {"v": 1}, "buildpack": {"id": "a", "version": "1"}}]);
    assert_eq!(build(&site.export())["bom"], expected);
}

/// EXE-03, LBL-17
#[test]
fn exe_03_the_execution_environment_is_recorded_from_platform_api_0_15_on() {
    let mut site = Site::new();
    site.inputs.exec_env = "test".parse().unwrap();
    let image = site.export();
    assert_eq!(image.configuration.config.labels["io.buildpacks.exec-env"], "test");
    assert_eq!(lifecycle(&image)["exec-env"], "test");
    assert!(!image.configuration.config.env.iter().any(|entry| entry.starts_with("CNB_EXEC_ENV")));
    site.api(14);
    let image = site.export();
    assert!(!image.configuration.config.labels.contains_key("io.buildpacks.exec-env"));
    assert!(lifecycle(&image).get("exec-env").is_none());
}

#[test]
fn lbl_13_and_16_labels_of_platform_and_buildpacks() {
    let site = Site::new();
    assert_eq!(site.export().configuration.config.labels["io.buildpacks.project.metadata"], "{}");
    site.write(
        "layers/project-metadata.toml",
        "[source]\ntype = \"git\"\n[source.version]\ncommit = \"ab\"\n",
    );
    let labels = "[[labels]]\nkey = \"own\"\nvalue = \"1\"\n[[labels]]\nkey = \"own\"\nvalue = \"2\"\n";
    site.write("layers/config/metadata.toml", &format!("{METADATA}{labels}"));
    let image = site.export();
    assert_eq!(image.configuration.config.labels["own"], "2");
    assert_eq!(label(&image, "io.buildpacks.project.metadata")["source"]["version"]["commit"], "ab");
    site.write("layers/project-metadata.toml", "source");
    assert_eq!(site.failure().0, 1);
}

#[test]
fn run_05_names_of_the_run_image() {
    let mut site = Site::new();
    let image = site.export();
    let names = json!({"image": "docker.io/library/run", "mirrors": ["mirror.example/run"]});
    let record = &lifecycle(&image)["runImage"];
    assert_eq!((&record["image"], &record["mirrors"]), (&names["image"], &names["mirrors"]));
    assert_eq!(lifecycle(&image)["stack"]["runImage"], names);
    let run = site.images.find("run").unwrap().unwrap();
    assert_eq!(record["reference"], run.reference);
    fs::remove_file(site.path("run.toml")).unwrap();
    let label = lifecycle(&site.export());
    assert!(label["runImage"].get("image").is_none() && label["runImage"].get("mirrors").is_none());
    // Before Platform API 0.12 the names come from `stack.toml`, and are in one place only.
    site.api(11);
    site.write("run.toml", "[run-image]\nimage = \"stack-run\"\n");
    let label = lifecycle(&site.export());
    assert!(label["runImage"].get("image").is_none());
    assert_eq!(label["stack"]["runImage"]["image"], "stack-run");
}
