//! `analyzed.toml`: the previous image and the run image, as the analyzer found them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::labels::{LifecycleMetadata, MetadataError, json_of_toml, toml_of_json};
use super::target::{Distro, Target};
use crate::toml_text::{self, TomlError};

/// What is known of images before anything is built.
///
/// # Spec
/// `platform.md` 0.15 "analyzed.toml"; ANA-04 to ANA-06, ANA-09: the names are
/// those of the reference lifecycle, and the specification's are read too.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Analyzed {
    /// Reference of the previous image; `None` or empty when there is none.
    pub previous_image: Option<String>,
    /// Reference of the build image, where extensions change it.
    pub build_image: Option<String>,
    /// Whether an extension changes the build image (EXT-10).
    pub extend_build_image: bool,
    /// The previous image's `io.buildpacks.lifecycle.metadata`.
    pub metadata: LifecycleMetadata,
    pub run_image: Option<AnalyzedRunImage>,
}

/// The run image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnalyzedRunImage {
    /// By digest, image id or path.
    pub reference: String,
    /// The name it was asked for by; from Platform API 0.12 on.
    pub image: String,
    /// Whether an extension adds to it.
    pub extend: bool,
    pub target: Option<TargetRecord>,
}

/// The target of a run image, as the file has it. Empty fields are not known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TargetRecord {
    /// `io.buildpacks.base.id`
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub arch: String,
    #[serde(default, rename = "arch-variant", skip_serializing_if = "String::is_empty")]
    pub arch_variant: String,
    /// The same in the specification's spelling (TGT-12).
    #[serde(default, rename = "variant", skip_serializing_if = "String::is_empty")]
    variant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distro: Option<Distro>,
}

impl From<&TargetRecord> for Target {
    fn from(record: &TargetRecord) -> Self {
        let variant = [&record.arch_variant, &record.variant].into_iter().find(|text| !text.is_empty());
        Self {
            os: record.os.clone(),
            arch: record.arch.clone(),
            variant: variant.cloned(),
            distro: record.distro.clone(),
        }
    }
}

impl From<&Target> for TargetRecord {
    fn from(target: &Target) -> Self {
        let variant = target.variant.clone().unwrap_or_default();
        Self {
            id: String::new(),
            os: target.os.clone(),
            arch: target.arch.clone(),
            arch_variant: variant.clone(),
            variant,
            distro: target.distro.clone(),
        }
    }
}

/// The file as the reference lifecycle writes it, and what else is read.
#[derive(Default, Serialize, Deserialize)]
struct AnalyzedFile {
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "previous-image")]
    image: Option<ImageRecord>,
    #[serde(default, rename = "build-image", skip_serializing_if = "Option::is_none")]
    build_image: Option<BuildImageTable>,
    #[serde(default)]
    metadata: toml::Table,
    #[serde(default, rename = "run-image", skip_serializing_if = "Option::is_none")]
    run_image: Option<RunImageTable>,
    /// The specification's sample has it here (CON-18).
    #[serde(default, skip_serializing)]
    target: Option<TargetRecord>,
}

#[derive(Serialize, Deserialize)]
struct ImageRecord {
    #[serde(default)]
    reference: String,
}

#[derive(Serialize, Deserialize)]
struct BuildImageTable {
    #[serde(default)]
    reference: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    extend: bool,
}

#[derive(Serialize, Deserialize)]
struct RunImageTable {
    #[serde(default)]
    reference: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    image: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    extend: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<TargetRecord>,
}

impl Analyzed {
    /// Parses the text of an `analyzed.toml`.
    ///
    /// # Errors
    /// With line and column where the parser knows them.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let file: AnalyzedFile = toml_text::parse(text)?;
        let bad = |error: &dyn std::fmt::Display| TomlError::whole(format!("`[metadata]`: {error}"));
        let mut json = json_of_toml(&file.metadata.to_string()).map_err(|error| bad(&error))?;
        for (way, in_label, in_file) in KEYS.iter().rev() {
            rename(&mut json, way, in_file, in_label);
        }
        let metadata = Option::<LifecycleMetadata>::deserialize(json).map_err(|error| bad(&error))?;
        let top_level_target = file.target;
        Ok(Self {
            previous_image: file.image.map(|image| image.reference),
            extend_build_image: file.build_image.as_ref().is_some_and(|image| image.extend),
            build_image: file
                .build_image
                .map(|image| image.reference)
                .filter(|reference| !reference.is_empty()),
            metadata: metadata.unwrap_or_default(),
            run_image: file.run_image.map(|table| AnalyzedRunImage {
                reference: table.reference,
                image: table.image,
                extend: table.extend,
                target: table.target.or(top_level_target),
            }),
        })
    }

    /// The text of the file.
    ///
    /// # Errors
    /// When the metadata cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, MetadataError> {
        let not_toml = |error: &dyn std::fmt::Display| MetadataError::NotToml(error.to_string());
        let mut json = serde_json::to_value(&self.metadata).map_err(|error| not_toml(&error))?;
        complete(&mut json);
        for (way, in_label, in_file) in &KEYS {
            rename(&mut json, way, in_label, in_file);
        }
        let image = |reference: &String| ImageRecord { reference: reference.clone() };
        let build_image = BuildImageTable {
            reference: self.build_image.clone().unwrap_or_default(),
            extend: self.extend_build_image,
        };
        let file = AnalyzedFile {
            image: self.previous_image.as_ref().map(image),
            build_image: (build_image.extend || !build_image.reference.is_empty()).then_some(build_image),
            metadata: toml::from_str(&toml_of_json(&json)?).map_err(|error| not_toml(&error))?,
            run_image: self.run_image.as_ref().map(|run_image| RunImageTable {
                reference: run_image.reference.clone(),
                image: run_image.image.clone(),
                extend: run_image.extend,
                target: run_image.target.clone(),
            }),
            target: None,
        };
        toml::to_string(&file).map_err(|error| not_toml(&error))
    }
}

/// Where label and file differ in the name of a key: the way there, `*` being
/// every element, then the name in the label and the one in the file. What is
/// below a renamed key stands before it.
const KEYS: [(&[&str], &str, &str); 4] = [
    (&["runImage"], "topLayer", "top-layer"),
    (&[], "runImage", "run-image"),
    (&["stack"], "runImage", "run-image"),
    (&["buildpacks", "*", "layers", "*"], "data", "metadata"),
];

/// Gives the metadata the keys that the reference lifecycle writes: digests that are not known
/// are empty, and what is empty besides is left out.
fn complete(metadata: &mut Value) {
    let Value::Object(metadata) = metadata else { return };
    for name in ["config", "launcher"] {
        metadata.entry(name).or_insert_with(|| serde_json::json!({"sha": ""}));
    }
    metadata.retain(|name, value| match name.as_str() {
        "app" | "buildpacks" => value.as_array().is_none_or(|values| !values.is_empty()),
        "stack" => value["runImage"]["image"] != "",
        _ => true,
    });
}

fn rename(value: &mut Value, way: &[&str], from: &str, to: &str) {
    match (value, way) {
        (Value::Object(object), []) => {
            if let Some(value) = object.remove(from) {
                object.insert(to.to_owned(), value);
            }
        }
        (Value::Object(object), ["*", rest @ ..]) => {
            object.values_mut().for_each(|value| rename(value, rest, from, to));
        }
        (Value::Array(values), ["*", rest @ ..]) => {
            for value in values {
                rename(value, rest, from, to);
            }
        }
        (Value::Object(object), [first, rest @ ..]) => {
            if let Some(value) = object.get_mut(*first) {
                rename(value, rest, from, to);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the reference lifecycle writes it.
    const FILE: &str = r#"
[image]
  reference = "registry.example/app@sha256:aa"
[metadata]
  [[metadata.app]]
    sha = "sha256:bb"
  [metadata.config]
    sha = "sha256:cc"
  [[metadata.buildpacks]]
    key = "acme/node"
    version = "1"
    [metadata.buildpacks.layers]
      [metadata.buildpacks.layers."a.b"]
        sha = "sha256:dd"
        build = false
        launch = true
        cache = true
        [metadata.buildpacks.layers."a.b".metadata]
          count = 9007199254740993
          topLayer = "mine"
  [metadata.run-image]
    top-layer = "sha256:ee"
    reference = "registry.example/run@sha256:ff"
    image = "registry.example/run"
  [metadata.stack]
    [metadata.stack.run-image]
      image = "registry.example/run"
[run-image]
  reference = "registry.example/run@sha256:00"
  image = "registry.example/run"
  [run-image.target]
    os = "linux"
    arch = "arm64"
    arch-variant = "v8"
    [run-image.target.distro]
      name = "debian"
      version = "12"
"#;

    #[test]
    fn ana_05_the_label_survives_the_way_there_and_back() {
        let analyzed = Analyzed::parse(FILE).unwrap();
        assert_eq!(analyzed.previous_image.as_deref(), Some("registry.example/app@sha256:aa"));
        assert_eq!(analyzed.metadata.run_image.top_layer, "sha256:ee");
        assert_eq!(analyzed.metadata.stack.run_image.image, "registry.example/run");
        let layer = &analyzed.metadata.buildpacks[0].layers["a.b"];
        assert_eq!(layer.data["count"], 9_007_199_254_740_993_i64);
        assert_eq!(layer.data["topLayer"], "mine");
        assert!(layer.launch && layer.cache && !layer.build);
        let run_image = analyzed.run_image.clone().unwrap();
        let target = Target::from(run_image.target.as_ref().unwrap());
        assert_eq!((target.arch.as_str(), target.variant.as_deref()), ("arm64", Some("v8")));

        let text = analyzed.to_toml().unwrap();
        assert_eq!(Analyzed::parse(&text).unwrap(), analyzed);
        for key in ["top-layer = \"sha256:ee\"", "run-image.target]", "layers.\"a.b\".metadata]"] {
            assert!(text.contains(key), "{key} in\n{text}");
        }
    }

    #[test]
    fn ana_09_the_specifications_spelling_is_read() {
        let text = r#"
            [previous-image]
            reference = "app@sha256:aa"
            [target]
            os = "linux"
            arch = "arm64"
            variant = "v7"
            [run-image]
            reference = "run@sha256:bb"
        "#;
        let analyzed = Analyzed::parse(text).unwrap();
        assert_eq!(analyzed.previous_image.as_deref(), Some("app@sha256:aa"));
        let target = Target::from(analyzed.run_image.unwrap().target.as_ref().unwrap());
        assert_eq!(target.variant.as_deref(), Some("v7"));
    }

    #[test]
    fn tgt_12_the_variant_is_written_in_both_spellings() {
        let target =
            Target { os: "linux".into(), arch: "arm".into(), variant: Some("v6".into()), distro: None };
        let run_image = AnalyzedRunImage { target: Some((&target).into()), ..AnalyzedRunImage::default() };
        let text = Analyzed { run_image: Some(run_image), ..Analyzed::default() }.to_toml().unwrap();
        assert!(text.contains("arch-variant = \"v6\"\nvariant = \"v6\"\n"), "{text}");
    }

    #[test]
    fn ext_10_that_the_build_image_is_extended_is_recorded() {
        let analyzed = Analyzed { extend_build_image: true, ..Analyzed::default() };
        let text = analyzed.to_toml().unwrap();
        assert!(text.contains("[build-image]\nreference = \"\"\nextend = true\n"), "{text}");
        assert_eq!(Analyzed::parse(&text).unwrap(), analyzed);
        let with_reference = Analyzed { build_image: Some("a@sha256:b".into()), ..Analyzed::default() };
        let text = with_reference.to_toml().unwrap();
        assert!(text.contains("[build-image]\nreference = \"a@sha256:b\"\n"), "{text}");
        assert!(!text.contains("extend"), "{text}");
        assert_eq!(Analyzed::parse(&text).unwrap(), with_reference);
    }

    #[test]
    fn an_empty_file_is_nothing_known() {
        assert_eq!(Analyzed::parse("").unwrap(), Analyzed::default());
        Analyzed::parse("metadata = 1").unwrap_err();
    }
}
