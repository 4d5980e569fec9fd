//! The labels of an image: what a later build, a rebase or `inspect` reads from it.
//!
//! # Spec
//! `platform.md` 0.15 "Labels". Written with every key the reference lifecycle
//! writes; read leniently, because other lifecycles wrote most images there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::reference_toml::{Fields, escape_unicode, moment};

/// Name of the label with a [`LifecycleMetadata`].
pub const LIFECYCLE_METADATA: &str = "io.buildpacks.lifecycle.metadata";
/// Name of the label with a [`BuildMetadata`].
pub const BUILD_METADATA: &str = "io.buildpacks.build.metadata";
/// Name of the label with a [`ProjectMetadata`].
pub const PROJECT_METADATA: &str = "io.buildpacks.project.metadata";
/// Name of the label that is `false` when an image cannot get another base.
pub const REBASABLE: &str = "io.buildpacks.rebasable";
/// Name of the label with the execution environment.
pub const EXEC_ENV: &str = "io.buildpacks.exec-env";

/// `io.buildpacks.lifecycle.metadata`: which layer is what.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LifecycleMetadata {
    /// Slices in order, then the rest. Very old images have one object here.
    #[serde(deserialize_with = "one_or_many")]
    pub app: Vec<LayerSha>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sbom: Option<LayerSha>,
    /// In group order, also those without layers.
    #[serde(deserialize_with = "null_is_default")]
    pub buildpacks: Vec<BuildpackLayers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<LayerSha>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launcher: Option<LayerSha>,
    /// Its `sha` is empty when there is no such layer.
    #[serde(rename = "process-types", deserialize_with = "null_is_default")]
    pub process_types: LayerSha,
    #[serde(rename = "runImage", deserialize_with = "null_is_default")]
    pub run_image: RunImageRecord,
    #[serde(deserialize_with = "null_is_default")]
    pub stack: StackRecord,
    #[serde(rename = "exec-env", skip_serializing_if = "Option::is_none")]
    pub exec_env: Option<String>,
}

/// A layer by the digest of its tar.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LayerSha {
    #[serde(default)]
    pub sha: String,
}

/// The launch layers of one buildpack.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildpackLayers {
    /// Its ID.
    pub key: String,
    pub version: String,
    /// By exact name, dots and all.
    #[serde(deserialize_with = "null_is_default")]
    pub layers: BTreeMap<String, LayerRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreRecord>,
}

/// A launch layer of a buildpack.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerRecord {
    pub sha: String,
    /// The layer's `[metadata]`; `null` if it has none.
    pub data: Value,
    pub build: bool,
    pub launch: bool,
    pub cache: bool,
}

/// What a buildpack keeps for its next build.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreRecord {
    pub metadata: Value,
}

/// The run image, and where its layers end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunImageRecord {
    /// Empty when the base has no layers.
    #[serde(rename = "topLayer")]
    pub top_layer: String,
    pub reference: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub mirrors: Vec<String>,
}

/// The run image again, for old platforms.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StackRecord {
    #[serde(rename = "runImage", deserialize_with = "null_is_default")]
    pub run_image: StackRunImage,
}

/// Names of a run image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StackRunImage {
    pub image: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub mirrors: Vec<String>,
}

/// `io.buildpacks.build.metadata`: who built it and what it runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildMetadata {
    /// Before Platform API 0.9, and then perhaps `null` (LBL-12).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bom: Option<Value>,
    #[serde(deserialize_with = "null_is_default")]
    pub buildpacks: Vec<BuildpackRecord>,
    /// Image extensions that took part.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub extensions: Vec<BuildpackRecord>,
    #[serde(deserialize_with = "null_is_default")]
    pub launcher: LauncherRecord,
    #[serde(deserialize_with = "null_is_default")]
    pub processes: Vec<ProcessRecord>,
    #[serde(rename = "buildpack-default-process-type", skip_serializing_if = "Option::is_none")]
    pub default_process_type: Option<String>,
}

/// A buildpack of the group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildpackRecord {
    pub id: String,
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// Images of the reference lifecycle do not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
}

/// The launcher of the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LauncherRecord {
    /// Empty when the image has none.
    pub version: String,
    #[serde(deserialize_with = "null_is_default")]
    pub source: LauncherSource,
}

/// Where the launcher comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LauncherSource {
    #[serde(deserialize_with = "null_is_default")]
    pub git: GitSource,
}

/// A commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GitSource {
    pub repository: String,
    pub commit: String,
}

/// A process of the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessRecord {
    #[serde(rename = "type")]
    pub process_type: String,
    /// One text before Platform API 0.10.
    #[serde(deserialize_with = "text_or_list")]
    pub command: Vec<String>,
    /// `null` when the buildpack did not speak of them.
    pub args: Option<Vec<String>>,
    pub direct: bool,
    #[serde(rename = "buildpackID", alias = "buildpack-id")]
    pub buildpack_id: String,
    #[serde(rename = "working-dir", skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    #[serde(
        rename = "exec-env",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub exec_env: Vec<String>,
}

/// `io.buildpacks.project.metadata`: where the source came from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectMetadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ProjectSource>,
}

/// A source under version control.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProjectSource {
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub version: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
}

pub(super) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
    None,
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<LayerSha>, D::Error> {
    OneOrMany::deserialize(deserializer).map(OneOrMany::into_vec)
}

fn text_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    OneOrMany::deserialize(deserializer).map(OneOrMany::into_vec)
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::Many(many) => many,
            Self::One(one) => vec![one],
            Self::None => vec![],
        }
    }
}

/// Makes every process of a [`BuildMetadata`] one whose `command` is a text, and
/// what follows in the list its first arguments.
///
/// # Spec
/// LBL-12, PRC-06: before Platform API 0.10.
pub fn with_text_commands(build: &mut Value) {
    let processes = build.get_mut("processes").and_then(Value::as_array_mut);
    for process in processes.into_iter().flatten() {
        let Some(Value::Array(command)) = process.get_mut("command").map(Value::take) else { continue };
        let mut parts = command.into_iter();
        process["command"] = parts.next().unwrap_or_else(|| Value::String(String::new()));
        let arguments = process.get_mut("args").map(Value::take);
        process["args"] = parts
            .chain(arguments.as_ref().and_then(Value::as_array).into_iter().flatten().cloned())
            .collect();
    }
}

/// Free-form metadata that cannot go into a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// No TOML.
    #[error("it is not valid TOML: {0}")]
    NotToml(String),
    /// `inf` and `nan` have no JSON.
    #[error("it has a number that JSON cannot hold")]
    NotANumber,
    /// Deeper than anybody reads it back.
    #[error("it is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
}

/// Levels of tables and lists; readers of JSON commonly stop at 128.
const MAX_DEPTH: usize = 64;

/// TOML text as it is stored in a label; `null` when it is empty.
///
/// # Errors
/// [`MetadataError`]
pub fn json_of_toml(text: &str) -> Result<Value, MetadataError> {
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let table: toml::Table =
        toml::from_str(text).map_err(|error| MetadataError::NotToml(error.message().to_owned()))?;
    json_of(toml::Value::Table(table), MAX_DEPTH)
}

/// A TOML value as JSON; times become text (STO-05).
///
/// # Errors
/// [`MetadataError`]
pub fn json_of_value(value: toml::Value) -> Result<Value, MetadataError> {
    json_of(value, MAX_DEPTH)
}

/// Recursion is bounded by `depth`.
fn json_of(value: toml::Value, depth: usize) -> Result<Value, MetadataError> {
    let depth = depth.checked_sub(1).ok_or(MetadataError::TooDeep)?;
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => {
            serde_json::Number::from_f64(number).map(Value::Number).ok_or(MetadataError::NotANumber)?
        }
        toml::Value::Boolean(value) => Value::Bool(value),
        toml::Value::Datetime(time) => Value::String(moment(&time)),
        toml::Value::Array(values) => {
            Value::Array(values.into_iter().map(|value| json_of(value, depth)).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => Value::Object(
            table
                .into_iter()
                .map(|(key, value)| Ok((key, json_of(value, depth)?)))
                .collect::<Result<_, _>>()?,
        ),
    })
}

/// Metadata of a label as TOML text again; what TOML cannot hold is left out.
///
/// # Errors
/// [`MetadataError::TooDeep`]
pub fn toml_of_json(value: &Value) -> Result<String, MetadataError> {
    match toml_of(value, MAX_DEPTH)? {
        Some(toml::Value::Table(table)) => {
            toml::to_string(&table).map_err(|error| MetadataError::NotToml(error.to_string()))
        }
        _ => Ok(String::new()),
    }
}

/// JSON of which every text can stand in HTML, which is how the reference lifecycle writes it.
/// Outside of texts JSON has none of these characters.
#[must_use]
pub fn escaped_for_html(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escape_unicode(character, &mut escaped),
            character => escaped.push(character),
        }
    }
    escaped
}

/// Metadata of a label as the reference lifecycle writes it into a file.
///
/// # Errors
/// [`MetadataError::TooDeep`]
pub fn file_of_json(value: &Value) -> Result<String, MetadataError> {
    Ok(fields_of_json(value)?.map(|fields| fields.document()).unwrap_or_default())
}

/// The fields of an object; `None` for anything else.
pub(super) fn fields_of_json(value: &Value) -> Result<Option<Fields>, MetadataError> {
    Ok(toml_of(value, MAX_DEPTH)?.as_ref().and_then(toml::Value::as_table).map(Fields::from))
}

fn toml_of(value: &Value, depth: usize) -> Result<Option<toml::Value>, MetadataError> {
    let depth = depth.checked_sub(1).ok_or(MetadataError::TooDeep)?;
    Ok(match value {
        Value::Null => None,
        Value::Bool(value) => Some(toml::Value::Boolean(*value)),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Some(toml::Value::Integer(number)),
            None => number.as_f64().map(toml::Value::Float),
        },
        Value::String(text) => Some(toml::Value::String(text.clone())),
        Value::Array(values) => {
            let values: Vec<_> = values
                .iter()
                .filter_map(|value| toml_of(value, depth).transpose())
                .collect::<Result<_, _>>()?;
            Some(toml::Value::Array(values))
        }
        Value::Object(object) => {
            let mut table = toml::Table::new();
            for (key, value) in object {
                if let Some(value) = toml_of(value, depth)? {
                    table.insert(key.clone(), value);
                }
            }
            Some(toml::Value::Table(table))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_in_json_can_stand_in_html() {
        let json = serde_json::json!({"a<b": "&\u{2028}ü>"}).to_string();
        let escaped = escaped_for_html(&json);
        assert_eq!(escaped, "{\"a\\u003cb\":\"\\u0026\\u2028ü\\u003e\"}");
        assert_eq!(
            serde_json::from_str::<Value>(&escaped).unwrap(),
            serde_json::from_str::<Value>(&json).unwrap()
        );
    }

    /// LBL-03
    #[test]
    fn lbl_01_every_key_is_written() {
        let metadata = LifecycleMetadata {
            app: vec![LayerSha { sha: "sha256:a".into() }],
            buildpacks: vec![BuildpackLayers {
                key: "acme/node".into(),
                version: "1".into(),
                layers: [(
                    "a.b".to_owned(),
                    LayerRecord { sha: "sha256:b".into(), launch: true, ..LayerRecord::default() },
                )]
                .into(),
                store: Some(StoreRecord { metadata: serde_json::json!({"k": 1}) }),
            }],
            exec_env: Some("production".into()),
            ..LifecycleMetadata::default()
        };
        let expected = serde_json::json!({
            "app": [{"sha": "sha256:a"}],
            "buildpacks": [{
                "key": "acme/node", "version": "1",
                "layers": {"a.b": {"sha": "sha256:b", "data": null, "build": false, "launch": true, "cache": false}},
                "store": {"metadata": {"k": 1}}
            }],
            "process-types": {"sha": ""},
            "runImage": {"topLayer": "", "reference": ""},
            "stack": {"runImage": {"image": ""}},
            "exec-env": "production"
        });
        assert_eq!(serde_json::to_value(&metadata).unwrap(), expected);
    }

    #[test]
    fn lbl_02_images_of_others_are_read() {
        let old = r#"{"app": {"sha": "sha256:x"}, "buildpacks": [{"key": "a", "version": "1", "layers": null}],
            "launcher": {"sha": "sha256:l"}, "stack": {"runImage": {"image": "r", "mirrors": null}}, "new": [1]}"#;
        let metadata: LifecycleMetadata = serde_json::from_str(old).unwrap();
        assert_eq!(metadata.app, [LayerSha { sha: "sha256:x".into() }]);
        assert_eq!(metadata.launcher.unwrap().sha, "sha256:l");
        assert_eq!(metadata.stack.run_image.image, "r");
        let metadata: LifecycleMetadata = serde_json::from_str(r#"{"app": null}"#).unwrap();
        assert_eq!(metadata, LifecycleMetadata::default());
    }

    #[test]
    fn lbl_12_commands_of_both_kinds_are_read() {
        let text = r#"{"processes": [{"type": "web", "command": "run", "args": null},
            {"type": "job", "command": ["run", "x"], "args": ["y"], "direct": true}], "bom": null}"#;
        let metadata: BuildMetadata = serde_json::from_str(text).unwrap();
        assert_eq!(metadata.processes[0].command, ["run"]);
        assert_eq!(metadata.processes[1].command, ["run", "x"]);
        assert_eq!(metadata.processes[1].args.as_deref(), Some(&["y".to_owned()][..]));
    }

    #[test]
    fn lbl_13_no_source_is_an_empty_object() {
        assert_eq!(serde_json::to_string(&ProjectMetadata::default()).unwrap(), "{}");
    }

    /// LBL-01, STO-05: the reference tells a table without anything in it from none.
    #[test]
    fn an_empty_table_is_not_nothing() {
        assert_eq!(json_of_toml("").unwrap(), Value::Null);
        let layer = |text: &str| {
            let file = crate::cnb::layer_toml::LayerToml::parse(text, crate::cnb::api::ApiVersion::zero(12));
            json_of_toml(&file.unwrap().metadata).unwrap()
        };
        assert_eq!(layer("[types]\n"), Value::Null);
        assert_eq!(layer("[metadata]\n"), serde_json::json!({}));
        let store = |text: &str| json_of_toml(&crate::cnb::store_toml::parse(text).unwrap()).unwrap();
        assert_eq!((store(""), store("[metadata]\n")), (Value::Null, serde_json::json!({})));
        assert_eq!(file_of_json(&serde_json::json!({"metadata": {}})).unwrap(), "[metadata]\n");
        assert_eq!(file_of_json(&serde_json::json!({"metadata": null})).unwrap(), "");
    }

    #[test]
    fn sto_05_metadata_survives_the_way_there_and_back() {
        let text = "big = 9007199254740993\nfloat = 1.0\nlist = [1, 2]\ntime = 1979-05-27\n\n[\"a.b\".c]\nd = true\n";
        let json = json_of_toml(text).unwrap();
        assert_eq!(json["big"], 9_007_199_254_740_993_i64);
        assert_eq!(json["a.b"]["c"]["d"], true);
        assert_eq!(json["time"], "1979-05-27T00:00:00Z");
        let back: toml::Table = toml::from_str(&toml_of_json(&json).unwrap()).unwrap();
        let mut expected: toml::Table = toml::from_str(text).unwrap();
        expected.insert("time".into(), "1979-05-27T00:00:00Z".into());
        assert_eq!(back, expected);
    }

    #[test]
    fn metadata_that_is_none_or_not_valid() {
        assert_eq!(json_of_toml("").unwrap(), Value::Null);
        assert_eq!(toml_of_json(&Value::Null).unwrap(), "");
        assert!(matches!(json_of_toml("x"), Err(MetadataError::NotToml(_))));
        assert_eq!(json_of_toml("x = inf"), Err(MetadataError::NotANumber));
        let deep = format!("x = {}{}", "[".repeat(70), "]".repeat(70));
        assert_eq!(json_of_toml(&deep), Err(MetadataError::TooDeep));
    }
}
