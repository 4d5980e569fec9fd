use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::layouts::{Layer, layout};
use crate::site::{Ended, Site};

const CDX: &str = "{\"bomFormat\":\"CycloneDX\"}";

/// As the reference lifecycle makes it: the documents of a buildpack, of a layer and of the launcher.
fn image(site: &Site) {
    let sboms = Layer::new()
        .file("/layers/sbom/launch/acme_node/sbom.cdx.json", CDX.as_bytes())
        .file("/layers/sbom/launch/acme_node/modules/sbom.spdx.json", b"{\"spdx\":\"\x1b[31m\"}")
        .file("/layers/sbom/launch/buildpacksio_lifecycle/launcher/sbom.syft.json", b"{}")
        .file("/layers/sbom/../../../evil.json", b"evil")
        .file("/etc/evil.json", b"evil");
    let app = Layer::new().file("workspace/x", b"x");
    let metadata = json!({ "sbom": { "sha": sboms.diff_id() }, "app": [{ "sha": app.diff_id() }] });
    let labels = json!({ "io.buildpacks.lifecycle.metadata": metadata.to_string() });
    layout(&site.path().join("image"), "demo:1", &labels, &[app, sboms]);
}

fn files(site: &Site, below: &str) -> Vec<String> {
    let output = Command::new("find").args([below, "-type", "f"]).current_dir(site.path()).output().unwrap();
    let mut files: Vec<String> = Ended::from(output).out.lines().map(str::to_owned).collect();
    files.sort();
    files
}

#[test]
fn bills_of_materials_are_listed_shown_and_downloaded() {
    let site = Site::new();
    image(&site);
    site.run(&["sbom", "list", "oci:image"]).with(0).says(&[
        "application/vnd.cyclonedx+json",
        "layers/sbom/launch/acme_node/modules/sbom.spdx.json",
        "application/vnd.syft+json",
    ]);
    let listed = site.run(&["sbom", "list", "--json", "oci:image"]).with(0).out;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["documents"].as_array().unwrap().len(), 3);
    assert_eq!(listed["documents"][1]["format"], "application/vnd.cyclonedx+json");
    let shown =
        site.run(&["sbom", "show", "oci:image", "/layers/sbom/launch/acme_node/sbom.cdx.json"]).with(0);
    assert_eq!(shown.out.trim_end(), CDX);
    let shown = site
        .run(&["sbom", "show", "oci:image", "layers/sbom/launch/acme_node/modules/sbom.spdx.json"])
        .with(0);
    assert!(!shown.out.contains('\x1b'), "{}", shown.out);
    site.run(&["sbom", "show", "oci:image", "nope"])
        .with(3)
        .complains(&["error[image.no_sbom]", "hint: it has"]);

    site.run(&["sbom", "download", "oci:image", "--output-dir", "out/sboms"]).with(0);
    assert_eq!(
        files(&site, "out"),
        [
            "out/sboms/layers/sbom/launch/acme_node/modules/sbom.spdx.json",
            "out/sboms/layers/sbom/launch/acme_node/sbom.cdx.json",
            "out/sboms/layers/sbom/launch/buildpacksio_lifecycle/launcher/sbom.syft.json",
        ]
    );
    assert_eq!(files(&site, ".").iter().filter(|file| file.contains("evil")).count(), 0);
    let document = site.path().join("out/sboms/layers/sbom/launch/acme_node/sbom.cdx.json");
    assert_eq!(std::fs::read_to_string(document).unwrap(), CDX);
}

#[test]
fn an_image_without_any_says_so() {
    let site = Site::new();
    layout(&site.path().join("image"), "demo:1", &json!({}), &[Layer::new().file("a", b"x")]);
    site.run(&["sbom", "download", "oci:image"]).with(3).complains(&["error[image.no_sbom]", "hint: "]);
    assert_eq!(
        files(&site, ".")
            .iter()
            .filter(|file| Path::new(file).extension().is_some_and(|extension| extension == "json")
                && !file.contains("image/"))
            .count(),
        0
    );
    site.run(&["inspect", "oci:image"]).with(0).says(&["sbom        none", "it was not made by buildpacks"]);
}

/// The layer with the documents is the only one that is read: the others may be gone.
#[test]
fn no_other_layer_is_read() {
    let site = Site::new();
    image(&site);
    let app = site.manifest("image")["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    std::fs::remove_file(site.path().join("image/blobs/sha256").join(app)).unwrap();
    site.run(&["sbom", "download", "oci:image", "-o", "out"]).with(0);
    assert_eq!(files(&site, "out").len(), 3);
    site.run(&["inspect", "oci:image"]).with(0).says(&["sbom        3 documents: application/spdx+json, "]);
}

/// R8: bytes that are not the layer's give no documents.
#[test]
fn r8_a_damaged_layer_writes_nothing() {
    let site = Site::new();
    image(&site);
    let layer = site.manifest("image")["layers"][1]["digest"].as_str().unwrap().replace("sha256:", "");
    let path = site.path().join("image/blobs/sha256").join(layer);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(9).position(|window| window == b"CycloneDX").unwrap();
    bytes[at] = b'X';
    std::fs::write(&path, bytes).unwrap();
    site.run(&["sbom", "download", "oci:image", "-o", "out"])
        .with(1)
        .complains(&["error[image.diffid_mismatch]"]);
    assert!(!site.path().join("out").exists());
}
