//! What a container engine says about an image, as a configuration.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::oci::digest::DiffId;
use crate::oci::image::{History, ImageConfiguration, RootFs, RunConfiguration, timestamp};

/// `GET /images/<name>/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    #[serde(deserialize_with = "bare_id")]
    pub(super) id: String,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    config: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    os: String,
    #[serde(default)]
    os_version: Option<String>,
    #[serde(default, rename = "RootFS")]
    root_fs: Option<Layers>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Layers {
    #[serde(default)]
    layers: Option<Vec<DiffId>>,
}

/// An entry of `GET /images/<name>/history`, the newest first.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Step {
    #[serde(default)]
    created: i64,
    #[serde(default)]
    created_by: String,
    #[serde(default)]
    size: i64,
    #[serde(default)]
    comment: String,
}

/// An image's id as `analyzed.toml`, labels and `report.toml` have it: without `sha256:`.
fn bare_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    Ok(id.strip_prefix("sha256:").map(str::to_owned).unwrap_or(id))
}

/// `GET /info`, what it says about the place for images.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Information {
    driver: String,
    driver_status: Option<Vec<Vec<String>>>,
}

impl Information {
    /// Whether images are kept as trees of layers, by Docker's own drivers. An engine on
    /// containerd's store names a kind of snapshotter, and keeps blobs.
    pub(super) fn is_classic(&self) -> bool {
        let status = self.driver_status.iter().flatten().flatten();
        !self.driver.is_empty() && !status.into_iter().any(|text| text.starts_with("io.containerd."))
    }
}

/// The layers of an image that was looked at.
impl Inspected {
    pub(super) fn diff_ids(&self) -> Vec<DiffId> {
        self.root_fs.as_ref().and_then(|layers| layers.layers.clone()).unwrap_or_default()
    }

    /// The configuration that the image has, as far as the engine shows it.
    pub(super) fn configuration(self, steps: Vec<Step>) -> Result<ImageConfiguration, serde_json::Error> {
        let diff_ids = self.diff_ids();
        // The engine shows every field there is; what says nothing is not in the configuration.
        let config: serde_json::Map<String, Value> =
            self.config.unwrap_or_default().into_iter().filter(|(_, value)| !says_nothing(value)).collect();
        let config: RunConfiguration = serde_json::from_value(Value::Object(config))?;
        Ok(ImageConfiguration {
            created: self.created.filter(|created| !created.is_empty()),
            author: self.author.filter(|author| !author.is_empty()),
            architecture: self.architecture,
            variant: self.variant,
            os: self.os,
            os_version: self.os_version,
            config,
            history: history(steps, diff_ids.len()),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
            other: BTreeMap::new(),
        })
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// The steps as a configuration has them, or none when they are not those of its
/// layers: engines do not say which step made no layer.
fn history(steps: Vec<Step>, layers: usize) -> Vec<History> {
    let count = steps.len();
    let not_empty = steps.iter().filter(|step| step.size != 0).count();
    if count != layers && not_empty != layers {
        return Vec::new();
    }
    let oldest_first = steps.into_iter().rev();
    oldest_first
        .map(|step| {
            let text = |text: String| Some(text).filter(|text| !text.is_empty());
            let comment = text(step.comment).map(|comment| ("comment".to_owned(), Value::String(comment)));
            History {
                created: u64::try_from(step.created).ok().map(timestamp),
                created_by: text(step.created_by),
                empty_layer: count != layers && step.size == 0,
                other: comment.into_iter().collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(created_by: &str, size: i64) -> Step {
        Step { created: 315_532_801, created_by: created_by.into(), size, comment: String::new() }
    }

    #[test]
    fn steps_are_told_from_layers_or_left_out() {
        let show = |steps: Vec<Step>, layers| -> Vec<(String, bool)> {
            let entries = history(steps, layers).into_iter();
            entries.map(|entry| (entry.created_by.unwrap_or_default(), entry.empty_layer)).collect()
        };
        let steps = || vec![step("CMD", 0), step("COPY", 5), step("FROM", 9)];
        let told = [("FROM".to_owned(), false), ("COPY".to_owned(), false), ("CMD".to_owned(), true)];
        assert_eq!(show(steps(), 2), told);
        assert!(show(steps(), 3).iter().all(|(_, is_empty)| !is_empty));
        assert_eq!(show(steps(), 1), []);
        let entry = &history(vec![step("x", 1)], 1)[0];
        assert_eq!(entry.created.as_deref(), Some("1980-01-01T00:00:01Z"));
    }

    /// As Docker 20.10 and Docker 29 answer, shortened; and who says nothing is not trusted.
    #[test]
    fn an_engine_says_how_it_keeps_images() {
        let is_classic = |text: &str| {
            serde_json::from_str::<Information>(text).is_ok_and(|information| information.is_classic())
        };
        assert!(is_classic(
            r#"{"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]], "ID": "x"}"#
        ));
        assert!(is_classic(r#"{"Driver": "vfs", "DriverStatus": null}"#));
        let snapshotter =
            r#"{"Driver": "overlayfs", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}"#;
        assert!(!is_classic(snapshotter));
        assert!(!is_classic("{}"));
    }

    /// As Docker 20.10 answers, shortened.
    #[test]
    fn fields_that_say_nothing_are_not_in_the_configuration() {
        let text = r#"{
            "Id": "sha256:00", "RepoTags": ["a:latest"], "Created": "1980-01-01T00:00:01Z",
            "Config": {"Hostname": "", "User": "1000:1000", "Tty": false, "Env": ["A=b"], "Cmd": null,
                "Volumes": null, "WorkingDir": "/w", "Entrypoint": ["/e"], "OnBuild": null,
                "Labels": {"l": "v"}, "ExposedPorts": {"80/tcp": {}}, "StopTimeout": 0},
            "Architecture": "amd64", "Variant": "", "Os": "linux", "Size": 5,
            "RootFS": {"Type": "layers", "Layers":
                ["sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]}
        }"#;
        let inspected: Inspected = serde_json::from_str(text).unwrap();
        let configuration = inspected.configuration(vec![]).unwrap();
        let value = serde_json::to_value(&configuration).unwrap();
        let expected = serde_json::json!({
            "Env": ["A=b"], "User": "1000:1000", "WorkingDir": "/w", "Entrypoint": ["/e"],
            "Labels": {"l": "v"}, "ExposedPorts": {"80/tcp": {}}, "StopTimeout": 0,
        });
        assert_eq!(value["config"], expected);
        assert_eq!(configuration.rootfs.diff_ids.len(), 1);
    }
}
