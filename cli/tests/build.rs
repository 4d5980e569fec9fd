use std::process::Command;

use crate::site::{SAMPLE, Site};

#[test]
fn the_sample_becomes_an_image_and_the_second_build_reuses_it() {
    let site = Site::new();
    let arguments = ["build", "--path", SAMPLE, "--output", "oci:image", "demo/website"];
    let first = site.run(&arguments).with(0).says(&[
        "===> ANALYZING\n===> DETECTING\n",
        "1 of 2 buildpacks participating\nwapack/static-site ",
        "===> RESTORING\n",
        "===> BUILDING\n[wapack/static-site] ",
        "===> EXPORTING\nAdding layer ",
        "Successfully built image demo/website:latest",
        "where     oci:image:demo/website:latest",
    ]);
    assert_eq!(first.err, "");
    let second = site.run(&arguments).with(0).says(&["Restoring layer ", "Reusing layer "]);
    let digest = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("  digest"));
        line.unwrap().to_owned()
    };
    assert!(!second.out.contains("Adding layer"), "{}", second.out);
    assert_eq!(digest(&first.out), digest(&second.out));
    assert_eq!(site.work_directories(), 0);

    match Command::new("skopeo")
        .args(["inspect", "oci:image:demo/website:latest"])
        .current_dir(site.path())
        .output()
    {
        Ok(inspected) => {
            assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));
            assert!(String::from_utf8_lossy(&inspected.stdout).contains("\"Architecture\""));
        }
        Err(_) => println!("SKIPPED: skopeo is not installed"),
    }
}

#[test]
fn without_an_output_the_image_is_beside_and_takes_no_part_in_the_next_build() {
    let site = Site::new();
    site.file("index.html", "<h1>hello</h1>");
    let build = |extra: &[&str]| {
        let arguments = [&["build", "-q", "--cache-dir", "cache", "demo/site"], extra].concat();
        site.run(&arguments).with(0).out
    };
    let first = build(&[]);
    assert!(first.starts_with("sha256:") && first.lines().count() == 1, "{first}");
    assert!(site.path().join("demo-site.oci/index.json").is_file());
    assert_eq!(build(&[]), first);
    // Others may name the same directory with more words.
    assert_eq!(build(&["--output", "oci:./demo-site.oci"]), first);
}

#[test]
fn the_same_digest_whatever_the_umask_and_the_variables_of_the_caller() {
    let site = Site::new();
    let run = |umask: &str, name: &str| {
        let script = format!(
            "umask {umask}; exec '{}' build -q --path '{SAMPLE}' --cache-dir cache-{umask} --env GREETING --output oci:{name} demo/site",
            env!("CARGO_BIN_EXE_wapack")
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(site.path()).env_clear();
        let ended: crate::site::Ended =
            command.env("PATH", "/usr/bin:/bin").env("GREETING", "hello").output().unwrap().into();
        ended.with(0).out
    };
    assert_eq!(run("077", "a"), run("000", "b"));
}

#[test]
fn json_is_one_object_a_line() {
    let site = Site::new();
    let ended = site
        .run(&[
            "build",
            "--output-format",
            "json",
            "--path",
            SAMPLE,
            "--output",
            "oci:image",
            "demo/website:1",
        ])
        .with(0);
    let events: Vec<serde_json::Value> =
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    assert_eq!((named("phase-started"), named("phase-finished"), named("group-chosen")), (5, 5, 1));
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["image"]), (&"finished".into(), &"demo/website:1".into()));
    assert_eq!(last["place"], "oci:image:demo/website:1");
    assert_eq!(ended.err, "");
}

#[test]
fn a_json_error_is_one_object_on_standard_error() {
    let site = Site::new();
    std::fs::create_dir(site.path().join("empty")).unwrap();
    let ended = site.run(&["build", "--output-format", "json", "--path", "empty", "app"]).with(20);
    let error: serde_json::Value = serde_json::from_str(&ended.err).unwrap();
    assert_eq!((&error["id"], &error["fault"]), (&"detect.nobody".into(), &"app".into()));
    assert!(error["hint"].is_string() && error["causes"].is_array());
}

#[test]
fn verbose_says_what_others_said_and_how_long_each_phase_took() {
    let site = Site::new();
    site.run(&["build", "-v", "--path", SAMPLE, "app"]).with(0).says(&[
        "pass: wapack/static-site@",
        "skip: wapack/procfile@",
        " ms\n===> EXPORTING",
    ]);
}

#[test]
fn buildpacks_that_are_named_build_in_that_order() {
    let site = Site::new();
    site.file("app/index.html", "<h1>hello</h1>");
    site.file("app/Procfile", "web: true\n");
    site.run(&[
        "build",
        "--path",
        "app",
        "-b",
        "wapack/procfile",
        "-b",
        "wapack/static-site",
        "--launcher",
        "always",
        "app",
    ])
    .with(0)
    .says(&[
        "2 of 2 buildpacks participating\nwapack/procfile    0.1.0\nwapack/static-site 0.1.0",
        "Adding layer 'launcher'",
    ]);
    // One of them does not apply, and none of them is optional.
    std::fs::remove_file(site.path().join("app/Procfile")).unwrap();
    site.run(&["build", "--path", "app", "-b", "wapack/procfile", "-b", "wapack/static-site@0.1.0", "app"])
        .with(20);
}

#[test]
fn a_trap_is_shown_with_the_functions_it_came_through() {
    let site = Site::new();
    let Some(directory) = site.guest("panic") else { return };
    std::fs::create_dir(site.path().join("app")).unwrap();
    let directory = directory.display().to_string();
    let ended = site.run(&["build", "--path", "app", "--buildpack", &directory, "app"]);
    assert!(matches!(ended.code, Some(21 | 51)), "{ended:?}");
    ended.complains(&["trapped", "at ", "--keep-work-dir"]);
    assert_eq!(site.work_directories(), 0);
}

/// As root the buildpacks run as another user, who cannot read such an app in place.
#[test]
fn an_app_that_only_its_owner_can_read_builds_the_same() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new();
    let index = site.file("app/index.html", "<h1>hello</h1>");
    let build = |name: &str| {
        site.run(&["build", "-q", "--path", "app", "--output", &format!("oci:{name}"), "app"]).with(0).out
    };
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let open = build("open");
    mode(&index, 0o600);
    mode(&site.path().join("app"), 0o700);
    assert_eq!(build("closed"), open);
}

#[test]
fn what_the_buildpacks_saw_can_be_kept() {
    let site = Site::new();
    let ended = site.run(&["build", "--path", SAMPLE, "--keep-work-dir", "app"]).with(0);
    let line = ended.out.lines().find(|line| line.starts_with("the directories of the build are in `"));
    let path = line.unwrap().split('`').nth(1).unwrap();
    assert!(std::path::Path::new(path).join("platform/env").is_dir());
}

#[test]
fn an_update_tells_the_buildpacks_to_choose_anew() {
    let site = Site::new();
    let Some(directory) = site.guest("env-reader") else { return };
    let build = |more: &[&str]| {
        let mut arguments = vec!["build", "x", "--path", SAMPLE, "--buildpack", directory.to_str().unwrap()];
        arguments.extend(more);
        site.run(&arguments).with(0)
    };
    let ended = build(&[]);
    assert!(!ended.out.contains("WAPACK_UPDATE"), "{}", ended.out);
    build(&["--update", "--env", "WAPACK_UPDATE=0"]).says(&["WAPACK_UPDATE=1"]);
}

#[test]
fn a_grant_is_refused_to_a_buildpack_that_takes_part_and_no_other() {
    let site = Site::new();
    let Some(directory) = site.guest("well-behaved") else { return };
    let toml = directory.join("buildpack.toml");
    let grants = "[grants]\nsources = [\"npm\"]\noptional-sources = [\"nodejs\"]\n";
    std::fs::write(&toml, std::fs::read_to_string(&toml).unwrap() + grants).unwrap();
    site.file("policy.toml", "[grants]\nallow = []\n");
    let detect = |more: &[&str]| {
        let mut arguments = vec!["detect", "--path", SAMPLE, "--policy", "policy.toml"];
        arguments.extend(["--buildpack", directory.to_str().unwrap()]);
        arguments.extend(more);
        site.run(&arguments)
    };
    detect(&["--env", "DETECT=fail"]).with(20).complains(&["does not apply: `DETECT` says so"]);
    detect(&[]).with(3).complains(&["error[grant.refused]", "asks for the grant `source=npm`"]);
    // What is optional may be missing.
    detect(&["--grant", "source=npm"]).with(0);
    site.run(&["inspect", "--policy", "policy.toml", directory.to_str().unwrap()])
        .with(0)
        .says(&["source=npm          NOT ALLOWED; ", "source=nodejs       not allowed; it runs without"]);
}
