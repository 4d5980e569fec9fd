//! `extension.toml`: what an image extension says of itself.

use serde::Deserialize;

use super::api::ApiVersion;
use super::buildpack_toml::{BuildpackTable, License};
use super::id::{BuildpackRef, ExecEnv};
use super::target::{Target, TargetPattern};
use crate::toml_text::{self, TomlError};

/// Everything we read from `extension.toml`.
///
/// # Spec
/// `image_extension.md` "extension.toml"; EXT-01. Unknown keys are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionDescriptor {
    pub api: ApiVersion,
    pub reference: BuildpackRef,
    /// For people; may be empty, like the next two.
    pub name: String,
    pub homepage: String,
    pub description: String,
    pub keywords: Vec<String>,
    pub licenses: Vec<License>,
    /// Whether it runs without the user's environment variables.
    pub clear_env: bool,
    /// Execution environments it is for; empty means all.
    pub exec_envs: Vec<ExecEnv>,
    /// Empty means any.
    pub targets: Vec<TargetPattern>,
}

#[derive(Deserialize)]
struct DescriptorFile {
    api: ApiVersion,
    extension: BuildpackTable,
    #[serde(default)]
    targets: Vec<TargetPattern>,
    #[serde(default)]
    order: Option<toml::Value>,
}

impl ExtensionDescriptor {
    /// The first Buildpack API that has extensions (API-12).
    pub const FIRST_API: ApiVersion = ApiVersion::zero(9);

    /// Parses the text of an `extension.toml`.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let file: DescriptorFile = toml_text::parse(text)?;
        if file.order.is_some() {
            let offset = text.find("[[order").unwrap_or(0);
            return Err(TomlError::at(text, offset, "an image extension has no `[[order]]`"));
        }
        let table = file.extension;
        Ok(Self {
            api: file.api,
            reference: BuildpackRef { id: table.id, version: table.version },
            name: table.name,
            homepage: table.homepage,
            description: table.description,
            keywords: table.keywords,
            licenses: table.licenses,
            clear_env: table.clear_env,
            exec_envs: table.exec_env.0,
            targets: file.targets,
        })
    }

    /// Fills in the targets of an extension that lists none: one with executables is for Linux.
    pub fn infer_targets(&mut self, has_executables: bool) {
        if self.targets.is_empty() && has_executables {
            self.targets.push(TargetPattern { os: "linux".to_owned(), ..TargetPattern::default() });
        }
    }

    /// Whether it can be used for `target`.
    #[must_use]
    pub fn matches(&self, target: &Target) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|pattern| pattern.matches(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "api = \"0.10\"\n[extension]\nid = \"acme/curl\"\nversion = \"1.0.0\"\n";

    fn with(more: &str) -> Result<ExtensionDescriptor, TomlError> {
        ExtensionDescriptor::parse(&format!("{MINIMAL}{more}"))
    }

    #[test]
    fn ext_01_all_keys_are_read() {
        let text = r#"
            name = "Curl"
            homepage = "https://example.com"
            description = "d"
            keywords = ["k"]
            clear-env = true
            exec-env = ["test"]
            future = 1
            [[extension.licenses]]
            type = "MIT"
            [[targets]]
            os = "linux"
            arch = "arm64"
        "#;
        let descriptor = with(text).unwrap();
        assert_eq!(descriptor.api, ApiVersion::zero(10));
        assert_eq!(descriptor.reference.to_string(), "acme/curl@1.0.0");
        assert_eq!((descriptor.name.as_str(), descriptor.homepage.as_str()), ("Curl", "https://example.com"));
        assert!(descriptor.clear_env);
        assert_eq!(descriptor.exec_envs, ["test".parse().unwrap()]);
        assert_eq!(descriptor.licenses[0].license_type, "MIT");
        assert_eq!(descriptor.targets[0].arch, "arm64");
        let tables = with("[[extension.exec-env]]\nname = \"test\"\n").unwrap();
        assert_eq!(tables.exec_envs, descriptor.exec_envs);
    }

    #[test]
    fn ext_01_an_extension_has_no_order() {
        let order = "[[order]]\n[[order.group]]\nid = \"a\"\nversion = \"1\"\n";
        assert_eq!(with(order).unwrap_err().line, 5);
        ExtensionDescriptor::parse(&MINIMAL.replace("[extension]", "[buildpack]")).unwrap_err();
    }

    #[test]
    fn ext_01_with_executables_it_is_for_linux_else_for_any() {
        let windows = Target { os: "windows".into(), arch: "amd64".into(), variant: None, distro: None };
        let matches = |more: &str, has_executables| {
            let mut descriptor = with(more).unwrap();
            descriptor.infer_targets(has_executables);
            descriptor.matches(&windows)
        };
        assert!(matches("", false) && !matches("", true));
        assert!(matches("[[targets]]\nos = \"windows\"\n", true));
    }
}
