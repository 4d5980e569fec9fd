//! Configuration, labels, layers and owners of an image.

use super::*;

/// LYR-16, SBOM-08, TAR-12 to TAR-14, LBL-11
#[test]
fn exp_03_order_of_layers_and_what_is_in_them() {
    let mut bench = Bench::new();
    bench.write("app/run.sh", "#!/bin/sh\n");
    let program = bench.root.path().join("app/run.sh");
    fs::set_permissions(program, fs::Permissions::from_mode(0o710)).unwrap();
    symlink("run.sh", bench.root.path().join("app/link")).unwrap();
    bench.write("modules/bin/tool", "tool");
    bench.fresh("modules").metadata = "version = 3\n[nested]\nx = 1.5".to_owned();
    bench.fresh("build-only").types.launch = false;
    let sbom = |content: &str| Sbom { format: SbomFormat::Spdx, content: content.into() };
    bench.built.launch_sboms =
        vec![(node().id, Some("modules".parse().unwrap()), sbom("{}")), (node().id, None, sbom("{\"a\":1}"))];
    let exported = bench.export();
    let image = &exported.image;
    assert_eq!(
        history(image),
        [
            "Layer: 'modules', Created by buildpack: acme/node@1.2",
            "Software Bill-of-Materials",
            "Application Layer",
            "Buildpacks Application Launcher",
            "Buildpacks Launcher Config",
            "Buildpacks Process Types",
        ]
    );
    assert_eq!(
        Bench::listing(image, 0),
        [
            "drwxr-xr-x 1000/1000 /layers",
            "drwxr-xr-x 1000/1000 /layers/acme_node",
            "drwxr-xr-x 1000/1000 /layers/acme_node/modules",
            "drwxr-xr-x 1000/1000 /layers/acme_node/modules/bin",
            "-rw-r--r-- 1000/1000 /layers/acme_node/modules/bin/tool",
        ]
    );
    assert_eq!(
        Bench::listing(image, 1),
        [
            "drwxr-xr-x 1000/1000 /layers",
            "drwxr-xr-x 1000/1000 /layers/sbom",
            "drwxr-xr-x 1000/1000 /layers/sbom/launch",
            "drwxr-xr-x 1000/1000 /layers/sbom/launch/acme_node",
            "drwxr-xr-x 1000/1000 /layers/sbom/launch/acme_node/modules",
            "-rw-r--r-- 1000/1000 /layers/sbom/launch/acme_node/modules/sbom.spdx.json",
            "-rw-r--r-- 1000/1000 /layers/sbom/launch/acme_node/sbom.spdx.json",
        ]
    );
    assert_eq!(
        Bench::listing(image, 2),
        [
            "drwxr-xr-x 1000/1000 /workspace",
            "lrwxrwxrwx 1000/1000 /workspace/link -> run.sh",
            "-rwxr-xr-x 1000/1000 /workspace/run.sh",
        ]
    );
    assert_eq!(
        Bench::listing(image, 3),
        ["drwxr-xr-x 0/0 /cnb", "drwxr-xr-x 0/0 /cnb/lifecycle", "-rwxr-xr-x 0/0 /cnb/lifecycle/launcher"]
    );
    assert_eq!(
        Bench::listing(image, 4),
        [
            "drwxr-xr-x 1000/1000 /layers",
            "drwxr-xr-x 1000/1000 /layers/config",
            "-rw-r--r-- 1000/1000 /layers/config/metadata.toml"
        ]
    );
    // V2, whose digest was made by an independent script.
    assert_eq!(
        image.layers[5].diff_id.0.hex(),
        "83d85471d9f8a3834b4e27cf701e3f0aef220cc816d9c173c7d32cd73909a590"
    );

    let metadata = label(image, labels_name("lifecycle"));
    assert_eq!(metadata["app"], json!([{"sha": image.layers[2].diff_id}]));
    assert_eq!(metadata["sbom"]["sha"], json!(image.layers[1].diff_id));
    let record = &metadata["buildpacks"][0]["layers"]["modules"];
    assert_eq!(record["sha"], json!(image.layers[0].diff_id));
    assert_eq!(record["data"], json!({"version": 3, "nested": {"x": 1.5}}));
    assert_eq!(record["cache"], true);
    assert!(metadata["buildpacks"][0]["layers"].get("build-only").is_none());
    assert_eq!(metadata["process-types"]["sha"], json!(image.layers[5].diff_id));
    let build = label(image, labels_name("build"));
    assert_eq!(build["launcher"]["version"], "9.8");
    assert_eq!(build["processes"][0]["command"], json!([PROGRAM, "--x"]));
    assert_eq!(build["buildpack-default-process-type"], "web");
    assert_eq!(label(image, labels_name("project")), json!({}));
}

/// IMG-02, IMG-06, LBL-17
#[test]
fn img_01_configuration_with_a_launcher() {
    let mut bench = Bench::new();
    bench.created = Some(1_700_000_000);
    let image = bench.export().image;
    let run = &image.configuration.config;
    assert_eq!(
        run.env,
        [
            "CNB_LAYERS_DIR=/layers",
            "CNB_APP_DIR=/workspace",
            "CNB_PLATFORM_API=0.15",
            "CNB_DEPRECATION_MODE=quiet",
            "PATH=/cnb/process:/cnb/lifecycle",
        ]
    );
    assert_eq!(run.entrypoint, ["/cnb/process/web"]);
    assert_eq!((run.working_dir.as_deref(), run.user.as_deref()), (Some("/workspace"), Some("1000:1000")));
    assert_eq!(image.configuration.created.as_deref(), Some("2023-11-14T22:13:20Z"));
    assert_eq!(run.labels["io.buildpacks.exec-env"], "production");
    assert_eq!(run.labels["io.buildpacks.rebasable"], "false");
    assert!(!run.labels.contains_key(LAUNCHER_LABEL));
}

#[test]
fn img_05_entrypoint() {
    let mut bench = Bench::new();
    bench.process_type = Some("job".parse().unwrap());
    let error = bench.try_export().unwrap_err();
    assert_eq!((error.id(), error.hint().unwrap().as_str()), ("export.unknown_process", "there is `web`"));
    assert!(!bench.layout().exists());

    bench.process_type = None;
    bench.built.processes.add(&node().id, vec![Process { default: false, ..web(&[PROGRAM]) }]);
    assert_eq!(bench.export().image.configuration.config.entrypoint, ["/cnb/lifecycle/launcher"]);
}

/// IMG-03, IMG-04, IMG-07, IMG-09, LBL-15
#[test]
fn exp_01_and_02_a_base_is_kept() {
    let mut bench = Bench::new();
    bench.write("app/x", "x");
    let base = base(&mut bench, |configuration| {
        configuration.architecture = "arm64".into();
        configuration.variant = Some("v8".into());
        let run = &mut configuration.config;
        run.user = Some("33:44".into());
        run.env = vec!["A=b=c".into(), "PATH=/usr/bin".into(), "CNB_APP_DIR=/old".into()];
        run.cmd = vec!["sh".into()];
        run.entrypoint = vec!["/old".into()];
        run.labels.insert("io.buildpacks.base.id".into(), "debian".into());
        run.other.insert("Healthcheck".into(), json!({"Test": ["NONE"]}));
        configuration.other.insert("docker_version".into(), "20".into());
        // Two entries for one layer: not to be trusted.
        configuration.history = vec![History::default(); 2];
    });
    bench.run_image = RunImage {
        base: Base::Image(Box::new(base.clone())),
        name: "example.com/run".into(),
        mirrors: vec!["mirror.example.com/run".into()],
    };
    let image = bench.export().image;
    let configuration = &image.configuration;
    assert_eq!(image.layers[0].digest, base.image.layers[0].digest);
    assert_eq!(
        (configuration.architecture.as_str(), configuration.variant.as_deref()),
        ("arm64", Some("v8"))
    );
    let run = &configuration.config;
    assert_eq!(
        run.env,
        [
            "A=b=c",
            "PATH=/cnb/process:/cnb/lifecycle:/usr/bin",
            "CNB_APP_DIR=/workspace",
            "CNB_LAYERS_DIR=/layers",
            "CNB_PLATFORM_API=0.15",
            "CNB_DEPRECATION_MODE=quiet",
        ]
    );
    assert_eq!((run.user.as_deref(), run.cmd.len()), (Some("33:44"), 0));
    assert_eq!(run.other["Healthcheck"], json!({"Test": ["NONE"]}));
    assert_eq!(run.labels["io.buildpacks.base.id"], "debian");
    assert!(!run.labels.contains_key("io.buildpacks.rebasable"));
    assert!(!configuration.other.contains_key("docker_version"));
    assert_eq!(configuration.history.len(), image.layers.len());
    assert!(Bench::listing(&image, 1)[0].starts_with("drwxr-xr-x 33/44 /workspace"));
    let metadata = label(&image, labels_name("lifecycle"));
    assert_eq!(
        metadata["runImage"],
        json!({
            "topLayer": base.image.layers[0].diff_id, "reference": base.reference,
            "image": "example.com/run", "mirrors": ["mirror.example.com/run"]
        })
    );
    assert_eq!(metadata["stack"]["runImage"]["image"], "example.com/run");
    // Layers of the base are in the output too.
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .arg(format!("oci:{}:app", bench.layout().display()))
        .arg(format!("dir:{}", bench.root.path().join("copy").display()))
        .output()
        .expect("`skopeo` is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn img_10_a_docker_base_gives_a_docker_image() {
    let mut bench = Bench::new();
    let mut base = base(&mut bench, |_| {});
    base.image.family = MediaFamily::Docker;
    bench.run_image.base = Base::Image(Box::new(base));
    let image = bench.export().image;
    let (configuration, manifest) = image.documents();
    assert_eq!(manifest.media_type.to_string(), "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(configuration.media_type.to_string(), "application/vnd.docker.container.image.v1+json");
    let last = image.layers.last().unwrap();
    assert_eq!(last.media_type.to_string(), "application/vnd.docker.image.rootfs.diff.tar.gzip");
}

#[test]
fn user_and_owner() {
    let mut bench = Bench::new();
    bench.user = Some(Owner { uid: 7, gid: 8 });
    let image = bench.export().image;
    assert_eq!(image.configuration.config.user.as_deref(), Some("7:8"));
    assert_eq!(Bench::listing(&image, 0), ["drwxr-xr-x 7/8 /workspace"]);
    for (user, expected) in
        [("0", (0, 0)), ("5:6", (5, 6)), ("www-data", (1000, 1000)), ("1:x", (1000, 1000))]
    {
        let mut bench = Bench::new();
        let base = base(&mut bench, |configuration| configuration.config.user = Some(user.into()));
        let base = Base::Image(Box::new(base));
        bench.run_image = RunImage { base, name: "base".into(), mirrors: vec![] };
        let form = file_form(&bench.run_image, None, FileOwner::default());
        assert_eq!((form.owner.uid, form.owner.gid), expected, "{user}");
        assert_eq!(bench.export().image.configuration.config.user.as_deref(), Some(user));
    }
}

/// What platforms want that run an image as any user of group 0: its bits are the owner's.
#[test]
fn the_owner_of_files_is_not_the_user_and_its_group_may_write() {
    let mut bench = Bench::new();
    bench.program("app/run.sh", "x");
    symlink("run.sh", bench.root.path().join("app/link")).unwrap();
    bench.write("modules/data", "x");
    bench.fresh("modules");
    bench.user = Some(Owner { uid: 7, gid: 8 });
    bench.files = FileOwner { uid: Some(9), gid: Some(0), is_group_writable: true };
    let image = bench.export().image;
    assert_eq!(image.configuration.config.user.as_deref(), Some("7:8"));
    let layer = ["drwxrwxr-x 9/0 /layers/acme_node/modules", "-rw-rw-r-- 9/0 /layers/acme_node/modules/data"];
    assert_eq!(Bench::listing(&image, 0)[2..], layer);
    assert_eq!(
        Bench::listing(&image, 1),
        [
            "drwxrwxr-x 9/0 /workspace",
            "lrwxrwxrwx 9/0 /workspace/link -> run.sh",
            "-rwxrwxr-x 9/0 /workspace/run.sh",
        ]
    );
    // The launcher is nobody's to change.
    assert_eq!(Bench::listing(&image, 2)[2], "-rwxr-xr-x 0/0 /cnb/lifecycle/launcher");
    assert_eq!(Bench::listing(&image, 3)[2], "-rw-rw-r-- 9/0 /layers/config/metadata.toml");
}

/// LBL-16
#[test]
fn lch_07_and_08_labels_of_buildpacks() {
    let mut bench = Bench::new();
    let label = |key: &str, value: &str| Label { key: key.into(), value: value.into() };
    bench.built.labels = vec![label("a", "1"), label("a", "2"), label("io.buildpacks.exec-env", "x")];
    let image = bench.export().image;
    assert_eq!(image.configuration.config.labels["a"], "2");
    assert_eq!(image.configuration.config.labels["io.buildpacks.exec-env"], "x");
    bench.built.labels = vec![label("io.buildpacks.lifecycle.metadata", "{}")];
    assert_eq!(bench.try_export().unwrap_err().id(), "export.reserved_label");
}

#[test]
fn metadata_that_cannot_be_stored_names_its_layer() {
    let mut bench = Bench::new();
    bench.fresh("modules").metadata = "x = nan".to_owned();
    let error = bench.try_export().unwrap_err();
    assert_eq!(error.id(), "export.metadata");
    assert_eq!(
        error.to_string(),
        "the metadata of layer `modules` of buildpack `acme/node@1.2` cannot be stored"
    );
}

#[test]
fn sockets_are_left_out_with_a_warning() {
    let mut bench = Bench::new();
    let _socket = std::os::unix::net::UnixListener::bind(bench.root.path().join("app/s")).unwrap();
    let image = bench.export().image;
    assert_eq!(Bench::names(&image, 0), ["/workspace"]);
    assert!(
        bench
            .events
            .contains(&Event::Warning { message: "`s` is a socket and not part of the image".to_owned() })
    );
}

#[test]
fn cancelling_while_files_are_read_leaves_nothing() {
    let bench = Bench::new();
    fs::File::create(bench.root.path().join("app/big")).unwrap().set_len(64 << 20).unwrap();
    let (exec_env, project) = (ExecEnv::default(), ProjectMetadata::default());
    let request = ExportRequest {
        built: &bench.built,
        run_image: &bench.run_image,
        run_images: None,
        launcher: &bench.launcher,
        launcher_mode: LauncherMode::Auto,
        user: None,
        files: FileOwner::default(),
        process_type: None,
        exec_env: &exec_env,
        project: &project,
        created: None,
        encoding: Encoding::Gzip,
        limits: TreeLimits::default(),
    };
    let cancel = bench.cancel.clone();
    let mut progress = Vec::new();
    let mut sink = |event| {
        if let Event::Progress { done_bytes, total_bytes } = event {
            progress.push((done_bytes, total_bytes));
            cancel.cancel();
        }
    };
    let error = export(&request, &bench.store, &bench.cancel, &mut sink).unwrap_err();
    assert_eq!(error.id(), "build.cancelled");
    assert_eq!(progress[0], (4 << 20, Some(64 << 20)));
    // Whoever reads may be a few pieces ahead of whoever is told, and then stops.
    assert!(progress.len() < 8, "{progress:?}");
    assert_eq!(fs::read_dir(&bench.store.directory).unwrap().count(), 0);
}

#[test]
fn umoci_unpacks_what_we_export() {
    let mut bench = Bench::new();
    bench.write("app/index.html", "<h1>hi</h1>");
    bench.write("modules/bin/tool", "tool");
    bench.fresh("modules");
    bench.export();
    let bundle = bench.root.path().join("bundle");
    let output = Command::new("umoci")
        .args(["unpack", "--rootless", "--image"])
        .arg(format!("{}:app", bench.layout().display()))
        .arg(&bundle)
        .output()
        .expect("`umoci` is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let root = bundle.join("rootfs");
    assert_eq!(fs::read_to_string(root.join("workspace/index.html")).unwrap(), "<h1>hi</h1>");
    assert_eq!(fs::read_to_string(root.join("layers/acme_node/modules/bin/tool")).unwrap(), "tool");
    assert_eq!(fs::read_link(root.join("cnb/process/web")).unwrap(), Path::new("/cnb/lifecycle/launcher"));
    let configuration: Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(configuration["process"]["args"], json!(["/cnb/process/web"]));
}
