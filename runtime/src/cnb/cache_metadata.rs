//! What a cache holds: the document beside its layers, and the label of a cache image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::labels::{BuildpackLayers, LayerRecord, LayerSha, escaped_for_html, null_is_default};

/// Name of the file in a cache directory, and of the label of a cache image.
pub const CACHE_METADATA: &str = "io.buildpacks.lifecycle.cache.metadata";

/// Which layers a cache holds.
///
/// # Shape
/// `{"sbom": {"sha"}, "buildpacks": [{"key", "version", "layers": {"<name>": {"sha",
/// "data", "build", "launch", "cache"}}}]}`. The `sha` of `sbom` is empty when
/// there is no such layer.
///
/// # Spec
/// CAC-01, as the reference lifecycle writes it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheMetadata {
    #[serde(deserialize_with = "null_is_default")]
    pub sbom: LayerSha,
    /// In group order.
    #[serde(deserialize_with = "null_is_default")]
    pub buildpacks: Vec<BuildpackLayers>,
}

impl CacheMetadata {
    /// Reads the document; what is no such document says that nothing is cached (RST-10).
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        serde_json::from_slice::<Option<Self>>(bytes).ok().flatten().unwrap_or_default()
    }

    /// The document as it is stored.
    ///
    /// # Errors
    /// When the metadata of a layer has no JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self).map(|json| escaped_for_html(&json))
    }

    /// The layers of one buildpack, by name; whatever its version (RST-14).
    #[must_use]
    pub fn layers_of(&self, buildpack: &str) -> Option<&BTreeMap<String, LayerRecord>> {
        self.buildpacks.iter().find(|entry| entry.key == buildpack).map(|entry| &entry.layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the reference lifecycle wrote it.
    const DOCUMENT: &str = r#"{"sbom":{"sha":"sha256:aa"},"buildpacks":[{"key":"acme/node","version":"1","layers":{"a.b":{"sha":"sha256:bb","data":{"n":9007199254740993},"build":true,"launch":false,"cache":true}}},{"key":"acme/none","version":"2","layers":{}}]}"#;

    #[test]
    fn cac_01_the_document_is_the_one_of_the_reference() {
        let metadata = CacheMetadata::parse(DOCUMENT.as_bytes());
        assert_eq!(metadata.sbom.sha, "sha256:aa");
        let layer = &metadata.layers_of("acme/node").unwrap()["a.b"];
        assert!(layer.cache && layer.build && !layer.launch);
        assert_eq!(layer.data["n"], 9_007_199_254_740_993_i64);
        assert_eq!(metadata.to_json().unwrap(), DOCUMENT);
        assert_eq!(CacheMetadata::default().to_json().unwrap(), r#"{"sbom":{"sha":""},"buildpacks":[]}"#);
    }

    #[test]
    fn rst_10_what_cannot_be_read_is_an_empty_cache() {
        for text in ["", "{", "[]", "null", "1", r#"{"buildpacks": 1}"#, r#"{"buildpacks": [{"key": []}]}"#] {
            assert_eq!(CacheMetadata::parse(text.as_bytes()), CacheMetadata::default(), "{text}");
        }
        let nulls = r#"{"sbom": null, "buildpacks": [{"key": "a", "version": "1", "layers": null}]}"#;
        assert!(CacheMetadata::parse(nulls.as_bytes()).layers_of("a").unwrap().is_empty());
    }
}
