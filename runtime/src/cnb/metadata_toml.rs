//! `<layers>/config/metadata.toml` as the exporter reads it.
//!
//! What writes it is [`super::launch`].

use serde::Deserialize;

use super::labels::{BuildpackRecord, MetadataError, ProcessRecord, json_of_value};
use super::launch::{Label, Slice};
use crate::toml_text::{self, TomlError};

/// What a build leaves for the image as a whole.
///
/// # Spec
/// MET-01; read leniently, because builders of other lifecycles write it too.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct MetadataToml {
    #[serde(rename = "buildpack-default-process-type")]
    pub default_process_type: Option<String>,
    pub buildpacks: Vec<BuildpackRecord>,
    pub extensions: Vec<BuildpackRecord>,
    pub labels: Vec<Label>,
    /// `command` may be one text or a list.
    pub processes: Vec<ProcessRecord>,
    pub slices: Vec<Slice>,
    /// From before Platform API 0.9.
    bom: Option<toml::Value>,
}

impl MetadataToml {
    /// Parses the text of a `metadata.toml`.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let mut metadata: Self = toml_text::parse(text)?;
        metadata.default_process_type = metadata.default_process_type.filter(|text| !text.is_empty());
        Ok(metadata)
    }

    /// The bill of materials of old platforms as the label has it: `null` when there is none.
    ///
    /// # Errors
    /// When JSON cannot hold it.
    pub fn bom(&self) -> Result<serde_json::Value, MetadataError> {
        self.bom.clone().map_or(Ok(serde_json::Value::Null), json_of_value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MET-01, LAU-09: as the reference lifecycle writes it, with both forms of `command`.
    #[test]
    fn met_01_both_forms_of_command_are_read() {
        let text = r#"
            buildpack-default-process-type = "web"
            [[buildpacks]]
              id = "acme/node"
              version = "1.2"
              api = "0.10"
              homepage = "https://example.com"
            [[extensions]]
              id = "acme/curl"
              version = "1"
              api = "0.9"
            [[labels]]
              key = "k"
              value = "v"
            [[processes]]
              type = "web"
              command = ["serve", "x"]
              args = ["-v"]
              direct = true
              buildpack-id = "acme/node"
              working-dir = "/x"
              exec-env = ["test"]
            [[processes]]
              type = "old"
              command = "serve it"
              args = []
              direct = false
              buildpack-id = "acme/node"
            [[slices]]
              paths = ["*.js"]
            [[bom]]
              name = "x"
              [bom.metadata]
                n = 9007199254740993
        "#;
        let metadata = MetadataToml::parse(text).unwrap();
        assert_eq!(metadata.default_process_type.as_deref(), Some("web"));
        assert_eq!(metadata.buildpacks[0].api.as_deref(), Some("0.10"));
        assert_eq!(metadata.extensions[0].id, "acme/curl");
        let [web, old] = &metadata.processes[..] else { panic!("{metadata:?}") };
        assert_eq!(
            (&web.command[..], &web.buildpack_id[..]),
            (&["serve".to_owned(), "x".into()][..], "acme/node")
        );
        assert_eq!((web.working_directory.as_deref(), &web.exec_env[0][..]), (Some("/x"), "test"));
        assert_eq!((&old.command[..], old.direct), (&["serve it".to_owned()][..], false));
        assert_eq!(metadata.slices[0].paths, ["*.js"]);
        assert_eq!(metadata.bom().unwrap()[0]["metadata"]["n"], 9_007_199_254_740_993_i64);
        let nothing = MetadataToml::parse("").unwrap();
        assert_eq!((nothing.bom().unwrap(), nothing.processes.len()), (serde_json::Value::Null, 0));
        MetadataToml::parse("processes = 1").unwrap_err();
    }
}
