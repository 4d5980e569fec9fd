//! `group.toml`: who builds, as the detector found out.

use serde::Deserialize;

use super::api::ApiVersion;
use super::id::{BuildpackId, BuildpackRef, BuildpackVersion};
use super::reference_toml::Fields;
use crate::toml_text::{self, TomlError};

/// The group that builds; later phases know no other.
///
/// # Spec
/// `platform.md` 0.15 "group.toml"; GRP-01, GRP-02.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Group {
    /// In order.
    #[serde(default, rename = "group")]
    pub buildpacks: Vec<GroupElement>,
    /// Image extensions, in order.
    #[serde(default, rename = "group-extensions")]
    pub extensions: Vec<GroupElement>,
}

/// A member of the group: never optional, never a composite.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GroupElement {
    pub id: BuildpackId,
    pub version: BuildpackVersion,
    /// Verified again by every phase (API-07).
    pub api: ApiVersion,
    #[serde(default)]
    pub homepage: Option<String>,
}

impl GroupElement {
    /// Id and version.
    #[must_use]
    pub fn reference(&self) -> BuildpackRef {
        BuildpackRef { id: self.id.clone(), version: self.version.clone() }
    }

    /// As it is written.
    pub(super) fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.text("id", self.id.as_str());
        fields.text("version", self.version.as_str());
        fields.text("api", &self.api.to_string());
        fields.text_if_any("homepage", self.homepage.as_deref().unwrap_or_default());
        fields
    }
}

impl Group {
    /// Parses the text of a `group.toml`.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        toml_text::parse(text)
    }

    /// The text of the file, byte for byte as the reference lifecycle writes it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut file = Fields::default();
        file.tables("group", self.buildpacks.iter().map(GroupElement::fields).collect());
        file.tables("group-extensions", self.extensions.iter().map(GroupElement::fields).collect());
        file.document()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grp_01_members_have_id_version_api_and_perhaps_a_homepage() {
        let text = r#"
            [[group]]
            id = "acme/node"
            version = "1.2.0"
            api = "0.10"
            homepage = "https://example.com"
            optional = true
            [[group]]
            id = "acme/npm"
            version = "0.1"
            api = "0.7"
            [[group-extensions]]
            id = "acme/curl"
            version = "1"
            api = "0.9"
        "#;
        let group = Group::parse(text).unwrap();
        assert_eq!(group.buildpacks[0].homepage.as_deref(), Some("https://example.com"));
        assert_eq!(group.buildpacks[1].reference().to_string(), "acme/npm@0.1");
        assert_eq!(group.extensions[0].api, ApiVersion::zero(9));
        assert_eq!(
            group.to_toml(),
            r#"[[group]]
  id = "acme/node"
  version = "1.2.0"
  api = "0.10"
  homepage = "https://example.com"

[[group]]
  id = "acme/npm"
  version = "0.1"
  api = "0.7"

[[group-extensions]]
  id = "acme/curl"
  version = "1"
  api = "0.9"
"#
        );
    }
}
