//! Flags that change what is written, one test each.

use std::fmt::Write as _;

use crate::site::{SAMPLE, Site};

fn build(site: &Site, more: &[&str]) -> crate::site::Ended {
    site.run(&[&["build", "demo/site", "--path", SAMPLE, "--output", "oci:out"], more].concat())
}

#[test]
fn tags_are_further_names_of_the_same_image() {
    let site = Site::new();
    let more = ["--tag", "demo/site:1", "-t", "other/name", "--tag", "demo/site:1", "-t", "demo/site:latest"];
    build(&site, &more)
        .with(0)
        .says(&["also as   oci:out:demo/site:1", "also as   oci:out:other/name:latest"]);
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(site.path().join("out/index.json")).unwrap()).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    let mut names: Vec<&str> = manifests
        .iter()
        .map(|manifest| manifest["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["demo/site:1", "demo/site:latest", "other/name:latest"]);
    assert!(manifests.iter().all(|manifest| manifest["digest"] == manifests[0]["digest"]));
    build(&site, &["--tag", "Not A Name"]).with(3).complains(&["error[input.image_name]: `Not A Name`"]);
}

#[test]
fn img_06_the_time_of_an_image_is_that_of_the_flag_or_the_variable() {
    let site = Site::new();
    let created = |more: &[&str], variable: Option<&str>| {
        let arguments = [&["build", "-q", "x", "--path", SAMPLE, "--output", "oci:out"], more].concat();
        let mut command = site.command(&arguments);
        if let Some(value) = variable {
            command.env("SOURCE_DATE_EPOCH", value);
        }
        let ended: crate::site::Ended = command.output().unwrap().into();
        let ended = ended.with(0);
        (site.configuration("out")["created"].as_str().unwrap().to_owned(), ended.err)
    };
    let usual = "1980-01-01T00:00:01Z";
    assert_eq!(created(&[], None).0, usual);
    // `date -u -d @1700000000`
    assert_eq!(created(&["--creation-time", "1700000000"], None).0, "2023-11-14T22:13:20Z");
    assert_eq!(created(&[], Some("1700000000")).0, "2023-11-14T22:13:20Z");
    assert_eq!(created(&["--creation-time", "0"], Some("1700000000")).0, "1970-01-01T00:00:00Z");
    assert_eq!(created(&[], Some("")), (usual.to_owned(), String::new()));
    for invalid in ["yesterday", "-1", "1.5", "now"] {
        let (time, said) = created(&[], Some(invalid));
        assert_eq!(time, usual, "{invalid}");
        assert!(said.contains("warning: `SOURCE_DATE_EPOCH` is not a number of seconds"), "{said}");
    }
    assert!(created(&["--creation-time", "now"], None).0.as_str() > "2024");
    for invalid in ["yesterday", "-1", "", "99999999999999"] {
        build(&site, &[&format!("--creation-time={invalid}")]).with(2).complains(&["--creation-time"]);
    }
}

/// SBOM-03, SBOM-04: the bytes of the buildpack, where the specification has them.
#[test]
fn sbom_04_bills_of_materials_are_written_as_files() {
    let site = Site::new();
    let directory = site.guest("well-behaved").expect("the guests are built");
    let toml = directory.join("buildpack.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, text + "sbom-formats = [\"application/vnd.cyclonedx+json\"]\n").unwrap();
    let stale = site.file("sboms/layers/sbom/build/acme_gone/sbom.spdx.json", "{}");
    let foreign = site.file("sboms/layers/notes.txt", "mine");
    build(&site, &["--buildpack", "well-behaved", "--sbom-output-dir", "sboms"]).with(0);
    let sbom = site.path().join("sboms/layers/sbom/launch/test_well-behaved/program/sbom.cdx.json");
    assert_eq!(std::fs::read_to_string(sbom).unwrap(), "{}");
    assert!(site.path().join("sboms/layers/sbom/build").is_dir());
    assert!(!stale.exists() && foreign.exists());
    site.file("file", "");
    build(&site, &["--sbom-output-dir", "file"])
        .with(62)
        .complains(&["cannot write bills of materials to `file`"]);
}

#[test]
fn the_default_process_is_the_process_type_by_another_name() {
    let site = Site::new();
    build(&site, &["--launcher", "always", "--default-process", "web"]).with(0);
    let entrypoint = site.configuration("out")["config"]["Entrypoint"].clone();
    assert_eq!(entrypoint, serde_json::json!(["/cnb/process/web"]));
    build(&site, &["--launcher", "always", "--default-process", "nope"]).with(62).complains(&["`nope`"]);
    build(&site, &["--default-process", "web", "--process-type", "web"]).with(2);
}

#[test]
fn keys_in_the_app_are_warned_of() {
    let site = Site::new();
    site.file("app/index.html", "x");
    site.file("app/.env", "TOKEN=1");
    let build = |more: &[&str]| site.run(&[&["build", "x", "--path", "app"], more].concat()).with(0);
    build(&[]).complains(&["warning: `.env` looks like a key or a credential"]);
    site.file("app/.dockerignore", ".env\n");
    assert_eq!(build(&[]).err, "");
}

/// Bindings are for the buildpacks that ask for them, and only to be read.
#[test]
fn bindings_are_seen_by_buildpacks_that_ask_for_them() {
    let site = Site::new();
    site.file("app/index.html", "<h1>hello</h1>");
    site.file("services/db/type", "postgresql");
    site.file("services/db/..data/password", "hidden");
    let directory = site.guest("peek").expect("the guests are built");
    let toml = std::fs::read_to_string(directory.join("buildpack.toml")).unwrap();
    let build = |grants: &str, more: &[&str]| {
        std::fs::write(directory.join("buildpack.toml"), format!("{toml}{grants}")).unwrap();
        let arguments = ["build", "x", "--path", "app", "--output", "oci:out", "--buildpack", "peek"];
        let ended = site.run(&[&arguments[..], &["--env", "PATHS=/platform"], more].concat()).with(0);
        let mut seen: Vec<String> =
            ended.out.lines().filter_map(|line| Some(line.split_once("/platform/")?.1.to_owned())).collect();
        seen.sort();
        seen
    };
    let environment = ["env/PATHS: /platform", "env: done"];
    let asked = "[grants]\nbindings = true\n";
    assert_eq!(
        build(asked, &["--bindings", "services"]),
        [&["bindings/db/type: postgresql", "bindings/db: done", "bindings: done"][..], &environment].concat()
    );
    assert_eq!(build("", &["--bindings", "services"]), environment);
    assert_eq!(build(asked, &[]), environment);

    site.file("services/stray", "");
    let arguments = ["build", "x", "--path", "app", "--output", "oci:out", "--bindings", "services"];
    let ended = site.run(&arguments).with(3);
    ended.complains(&["error[input.bindings]", "services/stray` is no binding: it is not a directory"]);
}

/// ENV-11, ENV-12: the builder's operator has the last word, by what the file's name says.
#[test]
fn env_11_and_12_a_builder_sets_variables_for_its_builds() {
    let site = Site::new();
    site.file("app/index.html", "<h1>hello</h1>");
    let guest = site.guest("env-reader").expect("the guests are built");
    std::fs::create_dir_all(site.path().join("builder/buildpacks/test_env-reader")).unwrap();
    std::fs::rename(guest, site.path().join("builder/buildpacks/test_env-reader/0.1.0")).unwrap();
    let order = "[[order]]\n[[order.group]]\nid = \"test/env-reader\"\nversion = \"0.1.0\"\n";
    site.file("builder/order.toml", order);
    site.file("builder/build-config/env/PLAIN", "operator");
    site.file("builder/build-config/env/GIVEN", "operator");
    site.file("builder/build-config/env/FORCED.override", "operator");
    site.file("builder/build-config/env/LIST.append", "operator");
    site.file("builder/build-config/env/LIST.delim", ":");
    let arguments = ["build", "x", "--path", "app", "--output", "oci:out", "--builder", "builder"];
    let user = ["--env", "GIVEN=user", "--env", "FORCED=user", "--env", "LIST=user"];
    let ended = site.run(&[&arguments[..], &user].concat()).with(0);
    for line in ["PLAIN=operator", "GIVEN=user", "FORCED=operator", "LIST=user:operator"] {
        assert!(ended.out.contains(&format!("env {line}\n")), "{line}: {}", ended.out);
    }
}

/// The same app in every encoding, read by the tools that people have.
#[test]
fn layers_are_compressed_as_asked_for_and_others_read_them() {
    let site = Site::new();
    // Several blocks, so that there are several members and frames.
    let mut text = String::new();
    for number in 0..300_000_u64 {
        writeln!(text, "line {number} {:x}", number * 2_654_435_761).unwrap();
    }
    site.file("app/index.html", "<h1>hello</h1>");
    site.file("app/big.txt", &text);
    let build = |more: &[&str], output: &str| {
        let output = format!("oci:{output}");
        let arguments = [&["build", "-q", "demo/site", "--path", "app", "--output", &output], more].concat();
        site.run(&arguments).with(0).out
    };
    let usual = build(&[], "usual");
    assert_eq!(build(&["--compression", "gzip"], "gzip"), usual);
    let zstd = build(&["--compression", "zstd"], "zstd");
    assert_ne!(zstd, usual);
    // Of what the store has, nothing of another encoding is taken.
    assert_eq!(build(&["--compression", "zstd:3"], "again"), zstd);
    assert_ne!(build(&["--compression", "zstd:1"], "one"), zstd);
    assert_eq!(build(&[], "usual-again"), usual);
    for name in ["gzip", "zstd"] {
        let run = |program: &str, arguments: &[&str]| {
            let output =
                std::process::Command::new(program).args(arguments).current_dir(site.path()).output();
            let output =
                output.unwrap_or_else(|error| panic!("`{program}` is needed for this test: {error}"));
            assert!(output.status.success(), "{program} {name}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let image = format!("oci:{name}:demo/site:latest");
        run(
            "skopeo",
            &["--insecure-policy", "copy", "-q", "--dest-decompress", &image, &format!("dir:{name}.dir")],
        );
        let configuration = site.configuration(name);
        for diff_id in configuration["rootfs"]["diff_ids"].as_array().unwrap() {
            let digest = diff_id.as_str().unwrap().trim_start_matches("sha256:");
            // Stored under its digest, which skopeo has computed.
            assert!(site.path().join(format!("{name}.dir/{digest}")).is_file(), "{name}: {digest}");
        }
        let buildah = format!("{name}.buildah");
        run(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "-q",
                &image,
                &format!("containers-storage:[vfs@{0}/{buildah}+{0}/run]demo/{name}", site.path().display()),
            ],
        );
    }
    // umoci of today's distributions does not know zstd.
    let output = std::process::Command::new("umoci")
        .args(["unpack", "--rootless", "--image", "gzip:demo/site:latest", "bundle"])
        .current_dir(site.path())
        .output()
        .expect("`umoci` is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = std::fs::read_to_string(site.path().join("bundle/rootfs/workspace/big.txt")).unwrap();
    assert!(found == text);
    for wrong in ["xz", "gzip:6", "zstd:0", "zstd:20", ""] {
        let arguments = ["build", "demo/site", "--path", "app", &format!("--compression={wrong}")];
        site.run(&arguments).with(2).complains(&["--compression <gzip|zstd[:LEVEL]>"]);
    }
}
