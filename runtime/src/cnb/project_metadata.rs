//! `project-metadata.toml`: where the source came from, as the platform says.

use serde::Deserialize;

use super::labels::{ProjectMetadata, json_of_toml};
use crate::toml_text::TomlError;

impl ProjectMetadata {
    /// Parses the text of a `project-metadata.toml`.
    ///
    /// # Errors
    /// When it is not TOML, or not of this shape.
    ///
    /// # Spec
    /// LBL-13.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let bad = |error: &dyn std::fmt::Display| TomlError::whole(error.to_string());
        let json = json_of_toml(text).map_err(|error| bad(&error))?;
        let metadata = Option::<Self>::deserialize(json).map_err(|error| bad(&error))?;
        Ok(metadata.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lbl_13_project_metadata_becomes_json() {
        let text = r#"
            [source]
            type = "git"
            [source.version]
            commit = "63a73f1b0f2a4f6978c19184b0ea33ea3f092913"
            declared = 1979-05-27T07:32:00Z
            [source.metadata]
            refs = ["main"]
            number = 9007199254740993
        "#;
        let metadata = ProjectMetadata::parse(text).unwrap();
        let expected = serde_json::json!({"source": {
            "type": "git",
            "version": {"commit": "63a73f1b0f2a4f6978c19184b0ea33ea3f092913", "declared": "1979-05-27T07:32:00Z"},
            "metadata": {"refs": ["main"], "number": 9_007_199_254_740_993_i64},
        }});
        assert_eq!(serde_json::to_value(metadata).unwrap(), expected);
        assert_eq!(ProjectMetadata::parse("").unwrap(), ProjectMetadata::default());
        ProjectMetadata::parse("source = 1").unwrap_err();
        ProjectMetadata::parse("source").unwrap_err();
    }
}
