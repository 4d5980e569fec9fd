use std::process::Command;

use serde_json::Value;

use crate::site::{Ended, SAMPLE, Site};

fn build(site: &Site, more: &[&str]) -> Ended {
    let arguments = ["build", "--path", SAMPLE, "--output", "oci:image", "--env", "SECRET=hunter2"];
    site.run(&[&arguments[..], more, &["demo/website"]].concat())
}

fn provenance(site: &Site) -> Value {
    serde_json::from_str(&site.run(&["inspect", "--provenance", "oci:image"]).with(0).out).unwrap()
}

/// Every file of the layout with its time.
fn state(site: &Site) -> Vec<String> {
    let command = "find image -type f -printf '%p %s %T@\\n' | sort";
    let output = Command::new("sh").args(["-c", command]).current_dir(site.path()).output().unwrap();
    Ended::from(output).with(0).out.lines().map(str::to_owned).collect()
}

#[test]
fn a_build_attaches_where_its_image_comes_from() {
    let site = Site::new();
    build(&site, &["--tag", "demo/website:2", "--attach", "sbom,provenance"]).with(0);
    let inspected: Value =
        serde_json::from_str(&site.run(&["inspect", "--json", "oci:image:demo/website:2"]).with(0).out)
            .unwrap();
    let digest = inspected["digest"].as_str().unwrap();
    let attached: Vec<&str> = inspected["attachments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attachment| attachment["artifact_type"].as_str().unwrap())
        .collect();
    assert!(attached.contains(&"application/vnd.in-toto+json"), "{attached:?}");

    let output = site.run(&["inspect", "--provenance", "oci:image:demo/website:2"]).with(0).out;
    let statement: Value = serde_json::from_str(&output).unwrap();
    let hex = digest.trim_start_matches("sha256:");
    assert_eq!(statement["subject"][0]["name"], "demo/website:latest");
    assert_eq!(statement["subject"][1]["digest"]["sha256"], hex);
    let definition = &statement["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["runImage"], "scratch");
    assert_eq!(definition["externalParameters"]["variables"], serde_json::json!(["SECRET"]));
    // What Git says of the same files.
    let script = format!(
        "cp -r '{SAMPLE}' app && cd app && git init --quiet --object-format=sha256 && git add --all --force && git write-tree"
    );
    let tree = site.tool("sh", &["-ec", &script]).unwrap();
    let app = &definition["resolvedDependencies"][0];
    assert_eq!((&app["name"], &app["digest"]["gitTree"]), (&"app".into(), &tree.trim().into()));
    let component = &definition["resolvedDependencies"][1];
    assert!(component["uri"].as_str().unwrap().starts_with("urn:cnb:builder:wapack/"), "{component}");
    assert_eq!(component["digest"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(statement["predicate"]["runDetails"]["metadata"]["wapack_hermetic"], true);
    // Nothing of the machine, and no secret.
    for private in ["hunter2", site.path().to_str().unwrap(), SAMPLE] {
        assert!(!output.contains(private), "{private}");
    }
}

/// D8: the same build attaches the same bytes, and doing it again writes nothing.
#[test]
fn d8_attaching_again_writes_nothing() {
    let site = Site::new();
    build(&site, &["--attach", "sbom,provenance"]).with(0);
    let (before, first) = (state(&site), provenance(&site));
    build(&site, &["--attach", "sbom,provenance"]).with(0);
    assert_eq!(state(&site), before);
    let other = Site::new();
    build(&other, &["--attach", "provenance"]).with(0);
    assert_eq!(provenance(&other), first);
    // The image itself is the same without.
    let plain = Site::new();
    build(&plain, &[]).with(0);
    let digest = |site: &Site| {
        let out = site.run(&["inspect", "--json", "oci:image"]).with(0).out;
        serde_json::from_str::<Value>(&out).unwrap()["digest"].clone()
    };
    assert_eq!(digest(&plain), digest(&site));
    plain
        .run(&["inspect", "--provenance", "oci:image"])
        .with(3)
        .complains(&["error[image.no_provenance]", "hint: "]);
}

#[test]
fn what_keeps_no_attachments_is_refused_before_the_build() {
    let site = Site::new();
    site.run(&["build", "--path", SAMPLE, "--output", "oci-archive:image.tar", "--attach", "sbom", "demo"])
        .with(3)
        .complains(&["error[image.no_attachments]", "hint: write the image to `oci:DIR`"]);
    assert!(!site.path().join("image.tar").exists());
}

/// Other tools find the image by its name as before, and the attachments by their subject.
#[test]
fn other_tools_read_the_layout() {
    let site = Site::new();
    build(&site, &["--attach", "sbom,provenance"]).with(0);
    let ours = site.run(&["inspect", "--json", "oci:image"]).with(0).out;
    let digest = serde_json::from_str::<Value>(&ours).unwrap()["digest"].as_str().unwrap().to_owned();
    let tool = |program: &str, arguments: &[&str]| -> Option<String> {
        match Command::new(program).args(arguments).current_dir(site.path()).output() {
            Ok(output) => Some(Ended::from(output).with(0).out),
            Err(error) => {
                // No package registry that set-up may use has it.
                let is_installed_in_ci = program != "oras";
                assert!(
                    std::env::var("CI").is_err() || !is_installed_in_ci,
                    "`{program}` must not be missing in CI: {error}"
                );
                println!("SKIPPED: `{program}` is not installed");
                None
            }
        }
    };
    if let Some(text) = tool("skopeo", &["inspect", "oci:image:demo/website:latest"]) {
        let inspected: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(inspected["Digest"], digest.as_str());
    }
    tool("umoci", &["unpack", "--rootless", "--image", "image:demo/website:latest", "bundle"]);
    let subject = format!("image@{digest}");
    if let Some(text) = tool("oras", &["discover", "--oci-layout", &subject, "--format", "json"]) {
        let found: Value = serde_json::from_str(&text).unwrap();
        let mut kinds: Vec<&str> = found["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|referrer| referrer["artifactType"].as_str().unwrap())
            .collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["application/vnd.cyclonedx+json", "application/vnd.in-toto+json"]);
    }
}

/// What was fetched for a layer is known as long as the layer is used, also by builds that fetch
/// nothing; of a layer that only an image still has, nobody knows it, and the provenance says so.
#[test]
fn d8_what_was_fetched_stays_known_with_the_layer() {
    let site = Site::new();
    let Some(directory) = site.guest("fetch-many") else { return };
    let toml = directory.join("buildpack.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, format!("{text}[grants]\nsources = [\"npm\"]\n")).unwrap();
    site.file("package/lib/index.js", "x");
    site.file("app/index.txt", "x");
    site.file("npm/empty", "");
    let packed = Command::new("tar").args(["-czf", "npm/p.tgz", "package"]).current_dir(site.path()).output();
    Ended::from(packed.unwrap()).with(0);
    let sum = Command::new("sha256sum").arg("npm/p.tgz").current_dir(site.path()).output().unwrap();
    let sum = Ended::from(sum).out.split(' ').next().unwrap().to_owned();
    let build = |more: &[&str]| {
        let arguments =
            ["build", "--path", "app", "--buildpack", directory.to_str().unwrap(), "--output", "oci:image"];
        let sources =
            ["--source", "npm=npm", "--grant", "source=npm", "--attach", "provenance", "--env", "COUNT=2"];
        site.run(&[&arguments[..], &sources, more, &["demo"]].concat()).with(0);
    };
    build(&[]);
    let first = provenance(&site);
    let dependencies =
        first["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap().clone();
    assert_eq!(
        dependencies[2],
        serde_json::json!({
            "uri": "wapack-source:npm/p.tgz",
            "digest": { "sha256": sum },
            "annotations": { "kind": "source", "pinned": "false" },
        })
    );
    let metadata = |provenance: &Value| provenance["predicate"]["runDetails"]["metadata"].clone();
    assert_eq!(metadata(&first), serde_json::json!({ "wapack_hermetic": false, "wapack_complete": true }));
    // The layer is used again, and its file is not there any more.
    std::fs::remove_file(site.path().join("npm/p.tgz")).unwrap();
    build(&[]);
    assert_eq!(provenance(&site), first);
    build(&["--cache-dir", "another"]);
    assert_eq!(
        metadata(&provenance(&site)),
        serde_json::json!({ "wapack_hermetic": false, "wapack_complete": false })
    );
}
