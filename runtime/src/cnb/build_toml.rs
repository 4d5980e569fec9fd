//! `build.toml`: what a buildpack did not do, and its old bill of materials.

use serde::Deserialize;
use toml::Table;

use super::build_plan::{Requirement, RequirementTable};
use super::reference_toml::Fields;
use crate::toml_text::{self, TomlError};

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildToml {
    /// Names of plan entries that were not satisfied, as written.
    pub unmet: Vec<String>,
    pub bom: Vec<Requirement>,
}

#[derive(Deserialize)]
struct BuildFile {
    #[serde(default)]
    unmet: Vec<Unmet>,
    #[serde(default)]
    bom: Vec<BomEntry>,
}

#[derive(Deserialize)]
struct Unmet {
    #[serde(default)]
    name: String,
}

/// The text of the file that says what is unmet; empty when that is nothing.
#[must_use]
pub fn to_toml(unmet: &[String]) -> String {
    let table = |name: &String| {
        let mut fields = Fields::default();
        fields.text("name", name);
        fields
    };
    let mut file = Fields::default();
    file.tables("unmet", unmet.iter().map(table).collect());
    file.document()
}

/// An entry of an old bill of materials, in `build.toml` and `launch.toml`.
#[derive(Deserialize)]
pub(super) struct BomEntry {
    #[serde(default)]
    name: String,
    version: Option<String>,
    metadata: Option<Table>,
}

impl BomEntry {
    /// SBOM-13: the version is part of the metadata.
    pub(super) fn checked(self) -> Result<Requirement, TomlError> {
        let Self { name, version, metadata } = self;
        if version.is_some_and(|version| !version.is_empty()) {
            return Err(TomlError::whole(format!(
                "the entry `{}` of `bom` has a `version`; it belongs into its metadata",
                name.escape_debug()
            )));
        }
        Ok(RequirementTable { name, metadata }.into())
    }
}

impl BuildToml {
    /// Parses the text of the file.
    ///
    /// # Errors
    /// With line and column.
    ///
    /// # Spec
    /// `buildpack.md` 0.12 "build.toml"; SBOM-13.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let file: BuildFile = toml_text::parse(text)?;
        Ok(Self {
            unmet: file.unmet.into_iter().map(|unmet| unmet.name).collect(),
            bom: file.bom.into_iter().map(BomEntry::checked).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sbom_13_a_version_beside_the_metadata_is_an_error() {
        let bom = |more: &str| BuildToml::parse(&format!("[[bom]]\nname = \"a\"\n{more}"));
        assert_eq!(bom("metadata.version = \"1\"\n").unwrap().bom[0].metadata, "version = \"1\"\n");
        bom("version = \"1\"\n").unwrap_err();
    }

    #[test]
    fn unmet_names_are_taken_as_written() {
        let file = BuildToml::parse("[[unmet]]\nname = \"a\"\n[[unmet]]\n").unwrap();
        assert_eq!(file.unmet, ["a", ""]);
        assert_eq!(BuildToml::parse(&to_toml(&file.unmet)).unwrap(), file);
        assert_eq!(to_toml(&[]), "");
        assert_eq!(BuildToml::parse("").unwrap(), BuildToml::default());
    }
}
