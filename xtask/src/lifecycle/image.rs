//! The lifecycle as an image: what a platform runs the phases in that no buildpack takes
//! part in, when it does not trust the builder.
//!
//! # Shape
//! What `docker load` takes: `manifest.json`, a configuration, and two layers. The last
//! one has `/cnb/lifecycle` and nothing else, because `pack` puts it on run images.

use std::io;

use serde_json::{Value, json};
use tar::Builder;
use toml::Table;

use super::{Contents, add_contents, header};
use crate::Result;
use crate::archive::digest;

/// The image, called `wapack/lifecycle:<version>`.
pub(super) fn pack(contents: &Contents, architecture: &str) -> Result<Vec<u8>> {
    let labels = labels(&contents.descriptor)?;
    write(contents, architecture, &labels)
        .map_err(|error| format!("cannot pack the lifecycle's image: {error}"))
}

/// What platforms ask an image of the lifecycle before they use it.
fn labels(descriptor: &str) -> Result<Value> {
    let wrong = |problem: &dyn std::fmt::Display| format!("the descriptor of the lifecycle: {problem}");
    let table: Table = descriptor.parse().map_err(|error| wrong(&error))?;
    let apis = table.get("apis").ok_or_else(|| wrong(&"it has no `apis`"))?;
    let apis = serde_json::to_string(apis).map_err(|error| wrong(&error))?;
    Ok(
        json!({ "io.buildpacks.lifecycle.apis": apis, "io.buildpacks.lifecycle.version": contents_version(&table) }),
    )
}

fn contents_version(descriptor: &Table) -> &str {
    descriptor.get("lifecycle").and_then(|lifecycle| lifecycle.get("version")?.as_str()).unwrap_or_default()
}

fn write(contents: &Contents, architecture: &str, labels: &Value) -> io::Result<Vec<u8>> {
    let mut ground = Builder::new(Vec::new());
    for (name, mode) in [("etc/", 0o755), ("layers/", 0o755), ("tmp/", 0o1777)] {
        ground.append_data(&mut header(tar::EntryType::Directory, mode, 0), name, io::empty())?;
    }
    // Platforms start some phases as `root`, by this name.
    for (name, text) in [("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\n"), ("etc/group", "root:x:0:\n")] {
        ground.append_data(&mut header(tar::EntryType::Regular, 0o644, text.len()), name, text.as_bytes())?;
    }
    let mut programs = Builder::new(Vec::new());
    programs.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), "cnb/", io::empty())?;
    add_contents(&mut programs, "cnb/lifecycle", contents)?;
    let layers = [ground.into_inner()?, programs.into_inner()?];
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let created = "1980-01-01T00:00:01Z";
    let configuration = json!({
        "created": created, "architecture": architecture, "os": "linux",
        "config": { "Env": ["PATH=/cnb/lifecycle"], "WorkingDir": "/layers", "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": [{ "created": created }, { "created": created, "created_by": "wapack" }],
    })
    .to_string();
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    let name = format!("{}.json", hex(&digest(configuration.as_bytes())));
    let paths: Vec<String> = diff_ids.iter().map(|diff_id| format!("{}/layer.tar", hex(diff_id))).collect();
    let tag = format!(
        "wapack/lifecycle:{}",
        labels["io.buildpacks.lifecycle.version"].as_str().unwrap_or_default()
    );
    let manifest = json!([{ "Config": name, "RepoTags": [tag], "Layers": paths }]).to_string();
    let mut archive = Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        archive.append_data(&mut header(tar::EntryType::Regular, 0o644, bytes.len()), name, bytes)
    };
    add("manifest.json", manifest.as_bytes())?;
    add(&name, configuration.as_bytes())?;
    for (path, layer) in paths.iter().zip(&layers) {
        add(path, layer)?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn entries(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        });
        entries.collect()
    }

    #[test]
    fn cli_13_the_image_says_what_it_speaks_and_its_last_layer_is_the_lifecycle() {
        let contents = super::super::tests::contents();
        let packed = pack(&contents, "amd64").unwrap();
        let archive = entries(&packed);
        let json = |name: &str| -> Value { serde_json::from_slice(&archive[name]).unwrap() };
        let manifest = &json("manifest.json")[0];
        assert_eq!(manifest["RepoTags"], json!(["wapack/lifecycle:1.2.3-x"]));
        let configuration = json(manifest["Config"].as_str().unwrap());
        let labels = &configuration["config"]["Labels"];
        assert_eq!(labels["io.buildpacks.lifecycle.version"], "1.2.3-x");
        assert_eq!(labels["io.buildpacks.lifecycle.apis"], r#"{"platform":{"supported":["0.7"]}}"#);
        let layers = manifest["Layers"].as_array().unwrap();
        let last = &archive[layers.last().unwrap().as_str().unwrap()];
        assert_eq!(configuration["rootfs"]["diff_ids"][1], digest(last));
        let names: Vec<String> = entries(last).into_keys().collect();
        assert!(names.iter().all(|name| name == "cnb/" || name.starts_with("cnb/lifecycle/")), "{names:?}");
        assert!(names.contains(&"cnb/lifecycle/restorer".to_owned()));
        let first = entries(&archive[layers[0].as_str().unwrap()]);
        assert!(first["etc/passwd"].starts_with(b"root:x:0:0:"));
        assert_eq!(packed, pack(&contents, "amd64").unwrap());
    }
}
