use crate::site::{SAMPLE, Site};

/// Arguments after `build`, exit code, parts of standard error.
#[test]
fn what_cannot_be_used_is_refused_with_a_hint() {
    let site = Site::new();
    site.file("file", "x");
    site.file("foreign/notes.txt", "x");
    std::fs::create_dir(site.path().join("empty")).unwrap();
    let toml = "api = \"0.12\"\n[buildpack]\nid = \"acme/x\"\nversion = \"1\"\n";
    site.file("no-wasm/buildpack.toml", toml);
    site.file("bad-wasm/buildpack.toml", toml);
    site.file("bad-wasm/buildpack.wasm", "hello");
    site.file("old/buildpack.toml", &toml.replace("0.12", "0.1"));
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["--path", "nope", "app"], 3, &["error[source.missing]: there is no directory `nope`", "hint: "]),
        (&["--path", "file", "app"], 3, &["error[source.missing]", "caused by: not a directory", "hint: "]),
        (&["--path", "empty", "app"], 20, &["error[detect.nobody]", "does not apply: ", "hint: is `--path`"]),
        (&["Bad Name"], 3, &["error[input.image_name]: `Bad Name`", "hint: a name is written"]),
        (&["--output", "image", "app"], 3, &["error[input.output]", "hint: write it to an OCI layout"]),
        (&["--output", "oci:x:y", "app"], 3, &["error[input.output]", "`--output oci:x`"]),
        (&["--output", "oci:file", "app"], 3, &["error[input.output]: `file` is not a directory"]),
        (&["--output", "oci:foreign", "app"], 3, &["error[layout.not_a_layout]", "hint: name a new"]),
        (&["--run-image", "oci:", "app"], 3, &["error[input.run_image]: `oci:`", "hint: it is `scratch`"]),
        (
            &["--run-image", "oci:empty", "app"],
            3,
            &["error[input.run_image]", "there is no image layout in `empty`"],
        ),
        (&["--builder", "nope", "app"], 3, &["error[input.builder]", "No such file", "`--builder builtin`"]),
        (&["--builder", "empty", "app"], 3, &["error[input.builder]: `empty` is not a builder"]),
        (&["--buildpack", "acme/nope", "app"], 3, &["error[input.buildpack]", "`wapack/static-site@"]),
        (&["--buildpack", "bad-wasm/buildpack.wasm", "app"], 3, &["error[input.buildpack]", "is a file"]),
        (
            &["--buildpack", "no-wasm", "app"],
            3,
            &["error[buildpack.not_a_buildpack]", "hint: build the component"],
        ),
        (
            &["--buildpack", "bad-wasm", "app"],
            21,
            &["buildpack.not_a_component", "cargo build --target wasm32-wasip2"],
        ),
        (&["--buildpack", "old", "app"], 12, &["error[buildpack.api_unsupported]", "0.1"]),
        (
            &["--policy", "nope", "app"],
            3,
            &["error[policy.invalid]", "caused by: cannot read `nope`", "hint: "],
        ),
        (&["--env", "a/b=1", "app"], 3, &["error[input.variable]", "hint: "]),
        (
            &["--env", "NOT_SET_HERE", "app"],
            3,
            &["error[input.variable]", "hint: write `--env NOT_SET_HERE="],
        ),
        (&["--target", "windows/amd64", "app"], 3, &["error[input.target]", "hint: targets are"]),
        (&["--user", "root", "app"], 3, &["error[input.user]", "hint: "]),
        (&["--cache-dir", "file", "app"], 1, &["error[store.", "--cache-dir"]),
        (
            &["--path", SAMPLE, "--process-type", "worker", "app"],
            62,
            &["error[export.unknown_process]", "`web`"],
        ),
    ];
    for (arguments, code, parts) in cases {
        site.run(&[&["build"], *arguments].concat()).with(*code).complains(parts);
    }
    assert_eq!(site.work_directories(), 0);
    assert!(!site.path().join("app.oci").exists());
}

#[test]
fn without_a_home_the_cache_has_to_be_named() {
    let site = Site::new();
    let ended: crate::site::Ended =
        site.command(&["build", "--path", SAMPLE, "app"]).env_remove("HOME").output().unwrap().into();
    ended.with(3).complains(&["error[input.no_home]", "hint: name a directory with `--cache-dir`"]);
}

#[test]
fn detect_says_who_and_why_not() {
    let site = Site::new();
    site.run(&["detect", "--path", SAMPLE]).with(0).says(&[
        "group 1 builds:",
        "wapack/static-site@0.1.0: takes part",
        "wapack/procfile@0.1.0: does not apply (optional): no `Procfile`",
    ]);
    site.file("proc/Procfile", "web: true\n");
    site.run(&["detect", "--path", "proc"]).with(0).says(&["group 2 does not build:", "group 3 builds:"]);
    std::fs::create_dir(site.path().join("empty")).unwrap();
    site.run(&["detect", "--path", "empty"]).with(20).complains(&["group 3: wapack/procfile", "hint: "]);
}
