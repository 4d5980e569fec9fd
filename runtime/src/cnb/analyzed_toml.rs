//! `analyzed.toml`: the previous image and the run image, as the analyzer found them.

use serde::Deserialize;
use serde_json::Value;

use super::labels::{
    BuildpackLayers, LayerSha, LifecycleMetadata, MetadataError, RunImageRecord, StackRunImage,
    fields_of_json, json_of_toml,
};
use super::reference_toml::Fields;
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct TargetRecord {
    /// `io.buildpacks.base.id`
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub arch: String,
    #[serde(default, rename = "arch-variant")]
    pub arch_variant: String,
    /// The same in the specification's spelling (TGT-12).
    #[serde(default, rename = "variant")]
    variant: String,
    #[serde(default)]
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
#[derive(Deserialize)]
struct AnalyzedFile {
    #[serde(default, alias = "previous-image")]
    image: Option<ImageRecord>,
    #[serde(default, rename = "build-image")]
    build_image: Option<BuildImageTable>,
    #[serde(default)]
    metadata: toml::Table,
    #[serde(default, rename = "run-image")]
    run_image: Option<RunImageTable>,
    /// The specification's sample has it here (CON-18).
    #[serde(default)]
    target: Option<TargetRecord>,
}

#[derive(Deserialize)]
struct ImageRecord {
    #[serde(default)]
    reference: String,
}

#[derive(Deserialize)]
struct BuildImageTable {
    #[serde(default)]
    reference: String,
    #[serde(default)]
    extend: bool,
}

#[derive(Deserialize)]
struct RunImageTable {
    #[serde(default)]
    reference: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    extend: bool,
    #[serde(default)]
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
        let mut metadata = metadata.unwrap_or_default();
        // Written where nothing is known.
        for layer in [&mut metadata.config, &mut metadata.launcher] {
            layer.take_if(|layer| layer.sha.is_empty());
        }
        let top_level_target = file.target;
        Ok(Self {
            previous_image: file.image.map(|image| image.reference),
            extend_build_image: file.build_image.as_ref().is_some_and(|image| image.extend),
            build_image: file
                .build_image
                .map(|image| image.reference)
                .filter(|reference| !reference.is_empty()),
            metadata,
            run_image: file.run_image.map(|table| AnalyzedRunImage {
                reference: table.reference,
                image: table.image,
                extend: table.extend,
                target: table.target.or(top_level_target),
            }),
        })
    }

    /// The text of the file, written as the reference lifecycle does.
    ///
    /// # Errors
    /// When the metadata cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, MetadataError> {
        let mut file = Fields::default();
        if let Some(reference) = &self.previous_image {
            let mut image = Fields::default();
            image.text("reference", reference);
            file.table("image", image);
        }
        if self.build_image.is_some() || self.extend_build_image {
            let mut build_image = Fields::default();
            build_image.text("reference", self.build_image.as_deref().unwrap_or_default());
            build_image.flag_if_set("extend", self.extend_build_image);
            file.table("build-image", build_image);
        }
        file.table("metadata", metadata_fields(&self.metadata)?);
        if let Some(run_image) = &self.run_image {
            file.table("run-image", run_image.fields());
        }
        Ok(file.document())
    }
}

impl AnalyzedRunImage {
    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.text("reference", &self.reference);
        fields.text_if_any("image", &self.image);
        fields.flag_if_set("extend", self.extend);
        if let Some(target) = &self.target {
            fields.table("target", target.fields());
        }
        fields
    }
}

impl TargetRecord {
    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.text_if_any("id", &self.id);
        fields.text("os", &self.os);
        fields.text("arch", &self.arch);
        fields.text_if_any("arch-variant", &self.arch_variant);
        fields.text_if_any("variant", &self.variant);
        if let Some(distro) = &self.distro {
            let mut distro_fields = Fields::default();
            distro_fields.text("name", &distro.name);
            distro_fields.text("version", &distro.version);
            fields.table("distro", distro_fields);
        }
        fields
    }
}

/// The metadata of an image; digests that are not known are empty.
fn metadata_fields(metadata: &LifecycleMetadata) -> Result<Fields, MetadataError> {
    let layer = |layer: Option<&LayerSha>| {
        let mut fields = Fields::default();
        fields.text("sha", layer.map(|layer| layer.sha.as_str()).unwrap_or_default());
        fields
    };
    let run_image_names = |fields: &mut Fields, image: &str, mirrors: &[String]| {
        fields.text_if_any("image", image);
        if !mirrors.is_empty() {
            fields.texts("mirrors", mirrors);
        }
    };
    let mut fields = Fields::default();
    if let Some(exec_env) = &metadata.exec_env {
        fields.text("exec-env", exec_env);
    }
    fields.tables("app", metadata.app.iter().map(|app| layer(Some(app))).collect());
    if metadata.sbom.is_some() {
        fields.table("sbom", layer(metadata.sbom.as_ref()));
    }
    let buildpacks = metadata.buildpacks.iter().map(buildpack_fields).collect::<Result<_, _>>()?;
    fields.tables("buildpacks", buildpacks);
    fields.table("config", layer(metadata.config.as_ref()));
    fields.table("launcher", layer(metadata.launcher.as_ref()));
    fields.table("process-types", layer(Some(&metadata.process_types)));
    let RunImageRecord { top_layer, reference, image, mirrors } = &metadata.run_image;
    let mut run_image = Fields::default();
    run_image.text("top-layer", top_layer);
    run_image.text("reference", reference);
    run_image_names(&mut run_image, image, mirrors);
    fields.table("run-image", run_image);
    let StackRunImage { image, mirrors } = &metadata.stack.run_image;
    if !image.is_empty() {
        let mut run_image = Fields::default();
        run_image_names(&mut run_image, image, mirrors);
        let mut stack = Fields::default();
        stack.table("run-image", run_image);
        fields.table("stack", stack);
    }
    Ok(fields)
}

fn buildpack_fields(buildpack: &BuildpackLayers) -> Result<Fields, MetadataError> {
    let mut layers = Fields::default();
    for (name, layer) in &buildpack.layers {
        let mut fields = Fields::default();
        fields.text("sha", &layer.sha);
        for (name, flag) in [("build", layer.build), ("launch", layer.launch), ("cache", layer.cache)] {
            fields.value(name, flag.to_string());
        }
        if let Some(metadata) = fields_of_json(&layer.data)? {
            fields.table("metadata", metadata);
        }
        layers.table(name, fields);
    }
    let mut fields = Fields::default();
    fields.text("key", &buildpack.key);
    fields.text("version", &buildpack.version);
    fields.table("layers", layers);
    if let Some(record) = &buildpack.store {
        let mut store = Fields::default();
        if let Some(metadata) = fields_of_json(&record.metadata)? {
            store.table("metadata", metadata);
        }
        fields.table("store", store);
    }
    Ok(fields)
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
        assert!(text.contains("    arch-variant = \"v6\"\n    variant = \"v6\"\n"), "{text}");
    }

    #[test]
    fn ext_10_that_the_build_image_is_extended_is_recorded() {
        let analyzed = Analyzed { extend_build_image: true, ..Analyzed::default() };
        let text = analyzed.to_toml().unwrap();
        assert!(text.contains("[build-image]\n  reference = \"\"\n  extend = true\n"), "{text}");
        assert_eq!(Analyzed::parse(&text).unwrap(), analyzed);
        let with_reference = Analyzed { build_image: Some("a@sha256:b".into()), ..Analyzed::default() };
        let text = with_reference.to_toml().unwrap();
        assert!(text.contains("[build-image]\n  reference = \"a@sha256:b\"\n"), "{text}");
        assert!(!text.contains("extend"), "{text}");
        assert_eq!(Analyzed::parse(&text).unwrap(), with_reference);
    }

    #[test]
    fn an_empty_file_is_nothing_known() {
        assert_eq!(Analyzed::parse("").unwrap(), Analyzed::default());
        Analyzed::parse("metadata = 1").unwrap_err();
    }
}
