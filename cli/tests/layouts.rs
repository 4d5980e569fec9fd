//! Layouts made by hand, for images that no build makes.

use std::path::Path;

use serde_json::{Value, json};

/// An uncompressed layer.
pub(crate) struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn file(mut self, path: &str, contents: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        self.0.append(&header, contents).unwrap();
        self
    }

    pub(crate) fn diff_id(&self) -> String {
        digest(&self.bytes())
    }

    /// With the end that the builder writes last.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.get_ref().clone();
        bytes.extend([0; 1024]);
        bytes
    }
}

fn digest(bytes: &[u8]) -> String {
    wapack_runtime::oci::digest::Digest::of(bytes).to_string()
}

/// Writes a layout with one image.
pub(crate) fn layout(directory: &Path, name: &str, labels: &Value, layers: &[Layer]) {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8], media_type: &str| {
        let digest = digest(bytes);
        std::fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    };
    let layer = |layer: &Layer| blob(&layer.bytes(), "application/vnd.oci.image.layer.v1.tar");
    let configuration = json!({
        "architecture": "amd64", "os": "linux", "config": { "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(Layer::diff_id).collect::<Vec<_>>() },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(configuration.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json"),
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    let mut entry = blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Makes `name`, and nothing else, lead to an index of these manifests in a layout that has them.
pub(crate) fn write_index(directory: &Path, name: &str, manifests: &[Value]) {
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests }).to_string();
    let digest = digest(index.as_bytes());
    std::fs::write(directory.join("blobs").join(digest.replace(':', "/")), &index).unwrap();
    let named = json!({
        "mediaType": media_type, "digest": digest, "size": index.len(),
        "annotations": { "org.opencontainers.image.ref.name": name },
    });
    let index = json!({ "schemaVersion": 2, "manifests": [named] });
    std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// The first manifest of a layout, as an index offers it for a system.
pub(crate) fn offered(directory: &Path, architecture: &str) -> Value {
    let index = std::fs::read(directory.join("index.json")).unwrap();
    let mut index: Value = serde_json::from_slice(&index).unwrap();
    let mut manifest = index["manifests"][0].take();
    manifest.as_object_mut().unwrap().remove("annotations");
    manifest["platform"] = json!({ "os": "linux", "architecture": architecture });
    manifest
}
