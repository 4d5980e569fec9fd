//! `group.toml`: who builds, as the detector found out.

use serde::{Deserialize, Serialize};

use super::api::ApiVersion;
use super::id::{BuildpackId, BuildpackRef, BuildpackVersion};
use crate::toml_text::{self, TomlError};

/// The group that builds; later phases know no other.
///
/// # Spec
/// `platform.md` 0.15 "group.toml"; GRP-01, GRP-02.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Group {
    /// In order.
    #[serde(default, rename = "group", skip_serializing_if = "Vec::is_empty")]
    pub buildpacks: Vec<GroupElement>,
    /// Image extensions, in order.
    #[serde(default, rename = "group-extensions", skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<GroupElement>,
}

/// A member of the group: never optional, never a composite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupElement {
    pub id: BuildpackId,
    pub version: BuildpackVersion,
    /// Verified again by every phase (API-07).
    pub api: ApiVersion,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
}

impl GroupElement {
    /// Id and version.
    #[must_use]
    pub fn reference(&self) -> BuildpackRef {
        BuildpackRef { id: self.id.clone(), version: self.version.clone() }
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

    /// The text of the file.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "it cannot: names, versions and tables can all be written")]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("names and versions can be written")
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
            "[[group]]\nid = \"acme/node\"\nversion = \"1.2.0\"\napi = \"0.10\"\n\
             homepage = \"https://example.com\"\n\n\
             [[group]]\nid = \"acme/npm\"\nversion = \"0.1\"\napi = \"0.7\"\n\n\
             [[group-extensions]]\nid = \"acme/curl\"\nversion = \"1\"\napi = \"0.9\"\n"
        );
    }
}
