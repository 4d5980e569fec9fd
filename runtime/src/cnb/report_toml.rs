//! `report.toml`: what a platform wants to know of the image that was made.

use serde::Serialize;

/// What the exporter and the rebaser report.
///
/// # Spec
/// `platform.md` 0.15 "report.toml"; RPT-01, RPT-03.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    /// Before Platform API 0.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildReport>,
    pub image: ImageReport,
}

/// What the build was made with, in the words of old buildpacks.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct BuildReport {
    pub bom: Vec<toml::Value>,
}

/// The image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageReport {
    /// Every name it was saved under, the output image first.
    pub tags: Vec<String>,
    /// In a daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// Of the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_size: Option<u64>,
}

impl Report {
    /// The text of the file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("texts, numbers and values that were TOML can be written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rpt_01_manifest_size_is_a_number_and_what_is_unknown_is_left_out() {
        let image = ImageReport {
            tags: vec!["registry.example/app:1".into(), "registry.example/app:2".into()],
            digest: Some("sha256:ab".into()),
            manifest_size: Some(1234),
            ..ImageReport::default()
        };
        let text = Report { image, build: None }.to_toml();
        assert_eq!(
            text,
            "[image]\ntags = [\"registry.example/app:1\", \"registry.example/app:2\"]\n\
             digest = \"sha256:ab\"\nmanifest-size = 1234\n"
        );
        let image =
            ImageReport { tags: vec!["a".into()], image_id: Some("5f".into()), ..ImageReport::default() };
        assert_eq!(Report { image, build: None }.to_toml(), "[image]\ntags = [\"a\"]\nimage-id = \"5f\"\n");
    }

    #[test]
    fn rpt_03_old_platforms_get_the_bill_of_materials() {
        let entry = toml::Value::Table(toml::toml! { name = "x" });
        let build = Some(BuildReport { bom: vec![entry] });
        let text = Report { build, image: ImageReport::default() }.to_toml();
        let read: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(read["build"]["bom"][0]["name"].as_str(), Some("x"));
    }
}
