//! How an image starts, and what its processes need.

use super::*;

#[test]
fn without_a_launcher_the_image_is_the_app_and_its_layers() {
    let mut bench = Bench::new();
    bench.mode = LauncherMode::Auto;
    bench.program("server/bin/server", "x");
    bench.write("zlib/lib/z.so", "x");
    let change = |name: &str, scope, operation, value: &str| EnvironmentChange {
        name: name.into(),
        scope,
        operation,
        value: value.into(),
        delimiter: ":".into(),
    };
    bench.fresh("server").environment = vec![
        change("PORT", EnvironmentScope::All, EnvironmentOperation::Default, "8080"),
        change("BUILD", EnvironmentScope::Build, EnvironmentOperation::Override, "no"),
        change(
            "MODE",
            EnvironmentScope::Process("web".parse().unwrap()),
            EnvironmentOperation::Override,
            "web",
        ),
    ];
    bench.fresh("zlib");
    let mut process = web(&["server", "--root", "x"]);
    process.args = Some(vec!["-v".into()]);
    bench.built.processes = crate::cnb::launch::ProcessTable::default();
    bench.built.processes.add(&node().id, vec![process]);
    let exported = bench.export();
    assert!(!exported.has_launcher);
    let image = &exported.image;
    let run = &image.configuration.config;
    assert_eq!(run.entrypoint, ["server", "--root", "x"]);
    assert_eq!(run.cmd, ["-v"]);
    assert_eq!(
        run.env,
        [
            "LD_LIBRARY_PATH=/layers/acme_node/zlib/lib",
            "MODE=web",
            "PATH=/layers/acme_node/server/bin",
            "PORT=8080"
        ]
    );
    assert_eq!(run.working_dir.as_deref(), Some("/workspace"));
    assert_eq!(
        (run.labels[LAUNCHER_LABEL].as_str(), run.labels["io.buildpacks.rebasable"].as_str()),
        ("none", "false")
    );
    assert_eq!(image.layers.len(), 3);
    let metadata = label(image, labels_name("lifecycle"));
    assert!(metadata.get("launcher").is_none() && metadata.get("config").is_none());
}

#[test]
fn lau_23_a_relative_program_is_looked_up_from_the_app() {
    let mut bench = Bench::new();
    bench.mode = LauncherMode::Never;
    bench.built.processes = crate::cnb::launch::ProcessTable::default();
    bench.program("app/bin/run", "x");
    let process = Process { working_directory: Some("sub".into()), ..web(&["./bin/run"]) };
    bench.built.processes.add(&node().id, vec![process]);
    let run = bench.export().image.configuration.config;
    assert_eq!(run.entrypoint, ["/workspace/./bin/run"]);
    assert_eq!(run.working_dir.as_deref(), Some("/workspace/sub"));
}

#[test]
fn what_needs_a_launcher_gets_one_or_is_refused() {
    let needs = |change: &dyn Fn(&mut Bench)| {
        let mut bench = Bench::new();
        change(&mut bench);
        bench.mode = LauncherMode::Auto;
        assert!(bench.export().has_launcher);
        bench.mode = LauncherMode::Never;
        let error = bench.try_export().unwrap_err();
        assert_eq!(error.id(), "export.needs_launcher");
        error.to_string()
    };
    assert_eq!(
        needs(&|bench| {
            bench.write("modules/exec.d/x", "");
            bench.fresh("modules");
        }),
        "the image needs a launcher: layer `modules` of buildpack `acme/node@1.2` has programs in `exec.d`"
    );
    assert_eq!(
        needs(&|bench| bench.built.processes = crate::cnb::launch::ProcessTable::default()),
        "the image needs a launcher: there is no process to start"
    );
    assert_eq!(
        needs(&|bench| {
            let process = Process { exec_envs: vec!["test".parse().unwrap()], ..web(&[PROGRAM]) };
            bench.built.processes.add(&node().id, vec![process]);
        }),
        "the image needs a launcher: process `web` is for some execution environments only"
    );
}

#[test]
fn a_second_process_needs_the_launcher_unless_told_otherwise() {
    let mut bench = Bench::new();
    let job = Process { process_type: "job".parse().unwrap(), default: false, ..web(&[PROGRAM]) };
    bench.built.processes.add(&node().id, vec![job]);
    bench.mode = LauncherMode::Auto;
    assert!(bench.export().has_launcher);
    bench.mode = LauncherMode::Never;
    assert_eq!(bench.export().image.configuration.config.entrypoint, [PROGRAM, "--x"]);
}

/// A process that starts a script of a layer, whose interpreter is in the base.
fn bench_with_interpreter() -> Bench {
    let mut bench = Bench::new();
    bench.program("app/interpreter", "x");
    let base = base(&mut bench, |_| ());
    fs::remove_file(bench.root.path().join("app/interpreter")).unwrap();
    bench.program("tool/bin/run", "#!/workspace/interpreter\n");
    bench.fresh("tool");
    bench.run_image = RunImage { base: Base::Image(Box::new(base)), name: "base".into(), mirrors: vec![] };
    bench.built.processes = crate::cnb::launch::ProcessTable::default();
    bench.built.processes.add(&node().id, vec![web(&["run"])]);
    bench.store.notes.lock().unwrap().clear();
    bench
}

/// The layer of `bench_with_interpreter` as the next build finds it.
fn store_layer(bench: &mut Bench, exported: &Exported, path: &Path) {
    let layer = &exported.layers[0];
    bench.built.layers.clear();
    let blob = StoredBlob { path: path.to_owned(), ..layer.blob.clone() };
    let (diff_id, features) = (layer.diff_id.clone(), layer.features);
    bench.layer("tool", BuiltContents::Stored { diff_id, blob, features });
}

#[test]
fn what_processes_need_is_read_once() {
    let mut bench = bench_with_interpreter();
    let first = bench.export();
    // From here on nothing can be read but what was kept.
    let nowhere = Path::new("/nonexistent");
    store_layer(&mut bench, &first, nowhere);
    if let Base::Image(base) = &mut bench.run_image.base {
        base.image.layers[0].blob = nowhere.to_owned().into();
    }
    assert_eq!(bench.export().digest, first.digest);
    // Another verdict, from the same files.
    bench.built.processes.add(&node().id, vec![Process { default: false, ..web(&["run", "again"]) }]);
    bench.export();
    // Somebody's notes in place of ours are no notes.
    for text in bench.store.notes.lock().unwrap().values_mut() {
        *text = "{".into();
    }
    assert_eq!(bench.try_export().unwrap_err().id(), "layout.unreadable_blob");
}

#[test]
fn a_layer_of_the_last_build_is_looked_into_again_on_another_base() {
    for keeps_notes in [true, false] {
        let mut bench = bench_with_interpreter();
        let first = bench.export();
        if !keeps_notes {
            bench.store.notes.lock().unwrap().clear();
        }
        store_layer(&mut bench, &first, &first.layers[0].blob.path);
        let target = Target { os: "linux".into(), arch: "amd64".into(), variant: None, distro: None };
        bench.run_image = RunImage { base: Base::Scratch(target), name: String::new(), mirrors: vec![] };
        let error = bench.try_export().unwrap_err();
        assert_eq!(error.id(), "export.no_interpreter");
        assert_eq!(error.to_string(), "process `web` cannot start on the run image `scratch`");
        assert_eq!(
            std::error::Error::source(&error).unwrap().to_string(),
            "`/layers/acme_node/tool/bin/run` of layer `tool` of buildpack `acme/node@1.2` needs \
             `/workspace/interpreter`, which is not in the image"
        );
    }
}

#[test]
fn what_may_change_when_the_image_starts_is_a_warning() {
    let warnings = |change: &dyn Fn(&mut Bench)| {
        let mut bench = Bench::new();
        bench.built.processes = crate::cnb::launch::ProcessTable::default();
        bench.built.processes.add(&node().id, vec![web(&["nowhere"])]);
        change(&mut bench);
        // Also when the verdict of the build before is all there is.
        let result = bench.try_export().and_then(|_| bench.try_export());
        let warnings = bench.events.iter().filter(|event| matches!(event, Event::Warning { .. })).count();
        result.map(|_| warnings).map_err(|error| error.id())
    };
    assert_eq!(warnings(&|_| ()), Err("export.no_program"));
    assert_eq!(
        warnings(&|bench| {
            bench.write("tool/exec.d/program", "x");
            bench.fresh("tool");
        }),
        Ok(2)
    );
    // What no variable can bring.
    assert_eq!(
        warnings(&|bench| {
            bench.write("tool/exec.d/program", "x");
            bench.write("app/nowhere", "x");
            bench.fresh("tool");
        }),
        Err("export.not_executable")
    );
    // A process that is not meant to start here.
    assert_eq!(
        warnings(&|bench| {
            let process = Process { exec_envs: vec!["test".parse().unwrap()], ..web(&["nowhere"]) };
            bench.built.processes.add(&node().id, vec![process]);
        }),
        Ok(2)
    );
}

/// A base that cannot be looked into is said once and refuses nothing.
#[test]
fn a_base_of_another_compression_is_a_warning() {
    let mut bench = bench_with_interpreter();
    let bytes = [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0];
    let path = bench.root.path().join("zstd");
    fs::write(&path, bytes).unwrap();
    if let Base::Image(base) = &mut bench.run_image.base {
        let layer = &mut base.image.layers[0];
        (layer.blob, layer.digest, layer.size) = (path.into(), Digest::of(&bytes), bytes.len() as u64);
    }
    bench.export();
    let message = bench.events.iter().find_map(|event| match event {
        Event::Warning { message } => Some(message.as_str()),
        _ => None,
    });
    assert!(message.unwrap().starts_with("whether the processes can start is not known: "), "{message:?}");
}
