//! The plan file that `bin/detect` writes: what a buildpack provides and requires, with alternatives.

use serde::Deserialize;
use toml::{Table, Value};

use super::api::ApiVersion;
use super::build_plan::{PlanContribution, Requirement, RequirementTable};
use crate::toml_text::{self, TomlError};

/// What a plan file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectPlan {
    /// Best first, never empty.
    pub alternatives: Vec<PlanContribution>,
    /// Old keys that were put up with.
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
struct PlanFile {
    #[serde(flatten)]
    first: Sections,
    #[serde(default)]
    or: Vec<Sections>,
}

#[derive(Deserialize)]
struct Sections {
    #[serde(default)]
    provides: Vec<Provide>,
    #[serde(default)]
    requires: Vec<Require>,
}

#[derive(Deserialize)]
struct Provide {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Require {
    #[serde(default)]
    name: String,
    /// Before `metadata.version`.
    version: Option<String>,
    metadata: Option<Table>,
}

/// Parses the text of the plan file of a buildpack written for `api`.
///
/// # Errors
/// With line and column; a `version` beside `metadata` that the API does not have is one.
///
/// # Spec
/// `buildpack.md` 0.12 "Build Plan (TOML)"; PLAN-01, API-17 and the table of section 1.1:
/// until API 0.10 a top-level `version` is moved into the metadata.
pub fn parse(text: &str, api: ApiVersion) -> Result<DetectPlan, TomlError> {
    let file: PlanFile = toml_text::parse(text)?;
    let mut warnings = Vec::new();
    let alternatives = std::iter::once(file.first)
        .chain(file.or)
        .map(|sections| contribution(sections, api, &mut warnings))
        .collect::<Result<_, _>>()?;
    Ok(DetectPlan { alternatives, warnings })
}

fn contribution(
    sections: Sections,
    api: ApiVersion,
    warnings: &mut Vec<String>,
) -> Result<PlanContribution, TomlError> {
    let provides = sections.provides.into_iter().map(|provide| provide.name).collect();
    let requires = sections
        .requires
        .into_iter()
        .map(|require| requirement(require, api, warnings))
        .collect::<Result<_, _>>()?;
    Ok(PlanContribution { provides, requires })
}

fn requirement(
    require: Require,
    api: ApiVersion,
    warnings: &mut Vec<String>,
) -> Result<Requirement, TomlError> {
    let Require { name, version, mut metadata } = require;
    if let Some(version) = version.filter(|version| !version.is_empty()) {
        let shown = name.escape_debug();
        if api >= ApiVersion::zero(11) {
            return Err(TomlError::whole(format!(
                "what it requires as `{shown}` has a `version`, which is not supported; \
                 `metadata.version` takes its place"
            )));
        }
        let metadata = metadata.get_or_insert_default();
        let same = metadata.get("version").and_then(Value::as_str) == Some(version.as_str());
        // Before API 0.3 this was where versions belonged.
        if metadata.contains_key("version") && (api >= ApiVersion::zero(3) || !same) {
            return Err(TomlError::whole(format!(
                "what it requires as `{shown}` has both `version` and `metadata.version`"
            )));
        }
        if api >= ApiVersion::zero(3) {
            warnings.push(format!(
                "what is required as `{shown}` has a `version`, which is deprecated; \
                 `metadata.version` takes its place"
            ));
        }
        metadata.insert("version".to_owned(), Value::String(version));
    }
    Ok(RequirementTable { name, metadata }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contributions(text: &str, minor: u64) -> Vec<PlanContribution> {
        parse(text, ApiVersion::zero(minor)).unwrap().alternatives
    }

    fn requirement(name: &str, metadata: &str) -> Requirement {
        Requirement { name: name.into(), metadata: metadata.into() }
    }

    #[test]
    fn plan_01_the_top_level_pair_comes_first_even_when_it_is_empty() {
        let text = "[[or]]\n[[or.provides]]\nname = \"b\"\n[[or]]\n[[or.requires]]\nname = \"c\"\n";
        let found = contributions(text, 12);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], PlanContribution::default());
        assert_eq!(found[1].provides, ["b"]);
        assert_eq!(found[2].requires, [requirement("c", "")]);
        assert_eq!(contributions("", 12), [PlanContribution::default()]);
    }

    #[test]
    fn plan_11_metadata_is_carried_through() {
        let text = "[[requires]]\nname = \"a\"\n[requires.metadata]\nn = 1\nwhen = 1979-05-27\n\
                    [requires.metadata.deep]\nlist = [1, 2]\n";
        let found = contributions(text, 12);
        let metadata: Table = found[0].requires[0].metadata.parse().unwrap();
        assert_eq!(metadata["n"].as_integer(), Some(1));
        assert_eq!(metadata["when"].as_datetime().unwrap().to_string(), "1979-05-27");
        assert_eq!(metadata["deep"]["list"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn api_17_a_top_level_version_is_moved_until_0_10_and_refused_from_0_11() {
        let text = "[[requires]]\nname = \"a\"\nversion = \"1\"\n";
        for minor in 2..=10 {
            let found = parse(text, ApiVersion::zero(minor)).unwrap();
            assert_eq!(found.alternatives[0].requires, [requirement("a", "version = \"1\"\n")], "0.{minor}");
            assert_eq!(found.warnings.is_empty(), minor == 2, "0.{minor}");
        }
        for minor in [11, 12] {
            parse(text, ApiVersion::zero(minor)).unwrap_err();
        }
    }

    #[test]
    fn api_17_two_versions_are_an_error() {
        let both = |metadata: &str| {
            format!("[[requires]]\nname = \"a\"\nversion = \"1\"\nmetadata.version = \"{metadata}\"\n")
        };
        for minor in 3..=12 {
            parse(&both("1"), ApiVersion::zero(minor)).unwrap_err();
        }
        // The oldest API has both, as long as they agree.
        assert_eq!(contributions(&both("1"), 2)[0].requires, [requirement("a", "version = \"1\"\n")]);
        parse(&both("2"), ApiVersion::zero(2)).unwrap_err();
    }
}
