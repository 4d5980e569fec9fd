//! `report.toml`: what the exporter and the rebaser tell the platform about the image.

use serde::{Deserialize, Deserializer};

use super::reference_toml::Fields;
use crate::toml_text::{self, TomlError};

/// The file.
///
/// # Spec
/// `platform.md` 0.15 "report.toml"; RPT-01. `manifest-size` is written as a number,
/// as the reference lifecycle does; the text of the specification's sample is read, too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Report {
    #[serde(default)]
    pub image: ImageReport,
}

/// The image that was saved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageReport {
    /// Every name it was saved under, the output image first.
    #[serde(default)]
    pub tags: Vec<String>,
    /// In a daemon.
    #[serde(default)]
    pub image_id: Option<String>,
    /// Of the manifest; not in a daemon.
    #[serde(default)]
    pub digest: Option<String>,
    /// Of the manifest, in bytes; not in a daemon.
    #[serde(default, deserialize_with = "number_or_text")]
    pub manifest_size: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<NumberOrText>::deserialize(deserializer)? {
        None => Ok(None),
        Some(NumberOrText::Number(number)) => Ok(Some(number)),
        Some(NumberOrText::Text(text)) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

impl Report {
    /// Parses the text of a `report.toml`.
    ///
    /// # Errors
    /// With line and column where the parser knows them.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        toml_text::parse(text)
    }

    /// The text of the file, byte for byte as the reference lifecycle writes it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut file = Fields::default();
        file.table("image", self.image.fields());
        file.document()
    }

    /// The text of the file for a platform that wants to find the bill of materials
    /// of the build in it, too.
    ///
    /// # Spec
    /// RPT-03: before Platform API 0.9.
    #[must_use]
    pub fn to_toml_with_bom(&self, bom: &[toml::Value]) -> String {
        let mut build = Fields::default();
        build.tables("bom", bom.iter().filter_map(toml::Value::as_table).map(Fields::from).collect());
        let mut file = Fields::default();
        file.table("build", build);
        file.table("image", self.image.fields());
        file.document()
    }
}

impl ImageReport {
    /// As it is written.
    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        fields.texts("tags", &self.tags);
        fields.text_if_any("image-id", self.image_id.as_deref().unwrap_or_default());
        fields.text_if_any("digest", self.digest.as_deref().unwrap_or_default());
        if let Some(size) = self.manifest_size {
            fields.value("manifest-size", size.to_string());
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rpt_01_names_digest_and_size_are_written() {
        let image = ImageReport {
            tags: vec!["registry.example/app:1".to_owned(), "registry.example/app:2".to_owned()],
            digest: Some("sha256:aa".to_owned()),
            manifest_size: Some(1234),
            image_id: None,
        };
        assert_eq!(
            Report { image }.to_toml(),
            "[image]\n  tags = [\"registry.example/app:1\", \"registry.example/app:2\"]\n  \
             digest = \"sha256:aa\"\n  manifest-size = 1234\n"
        );
    }

    #[test]
    fn rpt_03_old_platforms_find_the_bill_of_materials() {
        let entry = toml::Value::Table(toml::toml! { name = "x" });
        let read: toml::Table = toml::from_str(&Report::default().to_toml_with_bom(&[entry])).unwrap();
        assert_eq!(read["build"]["bom"][0]["name"].as_str(), Some("x"));
        assert!(read.contains_key("image"));
        assert!(!Report::default().to_toml().contains("build"));
    }

    #[test]
    fn rpt_01_a_size_is_read_as_number_and_as_text() {
        for size in ["1234", "\"1234\""] {
            let report = Report::parse(&format!("[image]\nmanifest-size = {size}\n")).unwrap();
            assert_eq!(report.image.manifest_size, Some(1234));
        }
        Report::parse("[image]\nmanifest-size = \"many\"\n").unwrap_err();
        assert_eq!(Report::parse("").unwrap(), Report::default());
    }
}
