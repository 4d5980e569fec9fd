//! The build plan: what buildpacks provide and require, before and after it is resolved.

use serde::{Deserialize, Serialize};

use super::id::{BuildpackId, BuildpackRef, BuildpackVersion};
use super::reference_toml::Fields;
use crate::toml_text::{self, TomlError};

/// Something that has to be provided for a buildpack to work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// Name under which it is provided.
    pub name: String,
    /// Free-form TOML text for the provider; empty when there is none.
    pub metadata: String,
}

/// One alternative of what a buildpack provides and requires.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlanContribution {
    /// Names it can provide.
    pub provides: Vec<String>,
    /// What it needs, from itself or from an earlier buildpack.
    pub requires: Vec<Requirement>,
}

/// The resolved plan of a group: `plan.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildPlan {
    /// Sorted by name.
    pub entries: Vec<BuildPlanEntry>,
}

/// One name of the plan with everybody who provides and requires it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildPlanEntry {
    /// The name all of `requires` have.
    pub name: String,
    /// In group order.
    pub providers: Vec<Provider>,
    /// In group order.
    pub requires: Vec<Requirement>,
}

/// Who provides an entry of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    pub buildpack: BuildpackRef,
    /// Whether it is an image extension, which satisfies whatever it is given (UNM-06).
    pub extension: bool,
}

#[derive(Deserialize)]
struct PlanFile {
    #[serde(default)]
    entries: Vec<EntryTable>,
}

#[derive(Deserialize)]
struct EntryTable {
    #[serde(default)]
    providers: Vec<ProviderTable>,
    #[serde(default)]
    requires: Vec<RequirementTable>,
}

#[derive(Deserialize)]
struct ProviderTable {
    id: BuildpackId,
    version: BuildpackVersion,
    #[serde(default)]
    extension: bool,
}

/// A requirement in TOML, in `plan.toml` and wherever else one is written.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RequirementTable {
    pub(crate) name: String,
    pub(crate) metadata: Option<toml::Table>,
}

impl From<&Requirement> for RequirementTable {
    fn from(requirement: &Requirement) -> Self {
        // Checked when it was read.
        Self { name: requirement.name.clone(), metadata: toml_text::table_of(&requirement.metadata) }
    }
}

impl From<RequirementTable> for Requirement {
    fn from(table: RequirementTable) -> Self {
        Self { name: table.name, metadata: toml_text::text_of(table.metadata.as_ref()) }
    }
}

impl BuildPlan {
    /// Parses the text of a `plan.toml`.
    ///
    /// # Errors
    /// With line and column; an entry whose requirements have different names is one.
    ///
    /// # Spec
    /// `platform.md` 0.15 "plan.toml"; PLAN-12.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let file: PlanFile = toml_text::parse(text)?;
        let entry = |table: EntryTable| {
            let name = table.requires.first().map(|first| first.name.clone()).unwrap_or_default();
            if table.requires.iter().any(|requirement| requirement.name != name) {
                let message =
                    format!("the requirements of an entry have different names: `{name}` and others");
                return Err(TomlError::whole(message));
            }
            let provider = |table: ProviderTable| Provider {
                buildpack: BuildpackRef { id: table.id, version: table.version },
                extension: table.extension,
            };
            Ok(BuildPlanEntry {
                name,
                providers: table.providers.into_iter().map(provider).collect(),
                requires: table.requires.into_iter().map(Requirement::from).collect(),
            })
        };
        Ok(Self { entries: file.entries.into_iter().map(entry).collect::<Result<_, _>>()? })
    }

    /// The text of the file, written as the reference lifecycle does but for the order of
    /// its entries, which is random there.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let provider = |provider: &Provider| {
            let mut fields = Fields::default();
            fields.text("id", provider.buildpack.id.as_str());
            fields.text("version", provider.buildpack.version.as_str());
            fields.flag_if_set("extension", provider.extension);
            fields
        };
        let requirement = |requirement: &Requirement| {
            let RequirementTable { name, metadata } = requirement.into();
            let mut fields = Fields::default();
            fields.text("name", &name);
            if let Some(metadata) = &metadata {
                fields.table("metadata", metadata.into());
            }
            fields
        };
        let entry = |entry: &BuildPlanEntry| {
            let mut fields = Fields::default();
            fields.tables("providers", entry.providers.iter().map(provider).collect());
            fields.tables("requires", entry.requires.iter().map(requirement).collect());
            fields
        };
        let mut file = Fields::default();
        file.tables("entries", self.entries.iter().map(entry).collect());
        file.document()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_12_the_file_there_and_back() {
        let text = r#"
            [[entries]]
            [[entries.providers]]
            id = "acme/node"
            version = "1"
            [[entries.providers]]
            id = "acme/curl"
            version = "2"
            extension = true
            [[entries.requires]]
            name = "node"
            [entries.requires.metadata]
            version = "~20"
            when = 1979-05-27
            [[entries.requires]]
            name = "node"
        "#;
        let plan = BuildPlan::parse(text).unwrap();
        assert_eq!(plan.entries[0].name, "node");
        assert_eq!(plan.entries[0].requires.len(), 2);
        assert!(!plan.entries[0].providers[0].extension && plan.entries[0].providers[1].extension);
        let written: toml::Table = plan.to_toml().parse().unwrap();
        let expected: toml::Table = text.parse().unwrap();
        assert_eq!(written, expected);
        assert_eq!(BuildPlan::parse("").unwrap().to_toml(), "");
    }

    /// The text is what the reference wrote; only one of the metadata is there.
    #[test]
    fn plan_11_and_12_the_bytes_of_the_reference() {
        let text = r#"[[entries]]

  [[entries.providers]]
    id = "acme/a"
    version = "1.0.0"

  [[entries.requires]]
    name = "node"
    [entries.requires.metadata]

  [[entries.requires]]
    name = "node"
"#;
        assert_eq!(BuildPlan::parse(text).unwrap().to_toml(), text);
    }

    #[test]
    fn plan_12_names_of_one_entry_are_equal() {
        let text = "[[entries]]\n[[entries.requires]]\nname = \"a\"\n[[entries.requires]]\nname = \"b\"\n";
        BuildPlan::parse(text).unwrap_err();
    }
}
