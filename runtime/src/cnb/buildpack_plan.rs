//! The plan file that `bin/build` is given: the entries one buildpack is to satisfy.

use serde::Deserialize;
use toml::{Table, Value};

use super::api::ApiVersion;
use super::build_plan::{Requirement, RequirementTable};
use super::reference_toml::Fields;
use crate::toml_text::{self, TomlError};

#[derive(Default, Deserialize)]
struct AnswerFile {
    #[serde(default)]
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    name: String,
    version: Option<String>,
    metadata: Option<Table>,
}

/// The text of the file for a buildpack written for `api`.
///
/// # Spec
/// `buildpack.md` 0.12 "Buildpack Plan (TOML)"; UNM-01. Buildpacks of API 0.2 find
/// `metadata.version` beside the metadata, too.
#[must_use]
pub fn to_toml(entries: &[Requirement], api: ApiVersion) -> String {
    let entry = |requirement: &Requirement| {
        let RequirementTable { name, metadata } = requirement.into();
        let mut fields = Fields::default();
        fields.text("name", &name);
        let version = metadata.as_ref().and_then(|metadata| metadata.get("version")).and_then(Value::as_str);
        if let Some(version) = version.filter(|_| api < ApiVersion::zero(3)) {
            fields.text("version", version);
        }
        if let Some(metadata) = &metadata {
            fields.table("metadata", metadata.into());
        }
        fields
    };
    // Scripts read this line by line, so it looks as it always did.
    let mut file = Fields::default();
    file.tables("entries", entries.iter().map(entry).collect());
    file.document()
}

/// The entries that a buildpack of an API before 0.5 left in the file: those it met.
///
/// # Errors
/// With line and column.
pub fn parse_answer(text: &str) -> Result<Vec<Requirement>, TomlError> {
    let file: AnswerFile = toml_text::parse(text)?;
    let entry = |Entry { name, version, mut metadata }: Entry| {
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            let metadata = metadata.get_or_insert_default();
            metadata.entry("version").or_insert(Value::String(version));
        }
        RequirementTable { name, metadata }.into()
    };
    Ok(file.entries.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(name: &str, metadata: &str) -> Requirement {
        Requirement { name: name.into(), metadata: metadata.into() }
    }

    #[test]
    fn unm_01_and_02_one_entry_for_each_requirement() {
        let entries = [requirement("node", "version = \"20\"\n"), requirement("node", "")];
        assert_eq!(
            to_toml(&entries, ApiVersion::zero(12)),
            "[[entries]]\n  name = \"node\"\n  [entries.metadata]\n    version = \"20\"\n\n\
             [[entries]]\n  name = \"node\"\n"
        );
        assert_eq!(to_toml(&[], ApiVersion::zero(12)), "");
        let old: Table = to_toml(&entries, ApiVersion::zero(2)).parse().unwrap();
        assert_eq!(old["entries"][0]["version"].as_str(), Some("20"));
        assert_eq!(old["entries"][0]["metadata"]["version"].as_str(), Some("20"));
    }

    #[test]
    fn answers_of_old_buildpacks() {
        let answer =
            parse_answer("[[entries]]\nname = \"node\"\nversion = \"20\"\nmetadata.a = 1\n").unwrap();
        assert_eq!(answer, [requirement("node", "a = 1\nversion = \"20\"\n")]);
        assert_eq!(parse_answer("").unwrap(), []);
    }
}
