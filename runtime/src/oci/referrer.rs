//! Documents that belong to an image and lie beside it: artifacts with a `subject`.
//!
//! # Spec
//! image-spec 1.1 `manifest.md` "Guidelines for Artifact Usage"; distribution-spec 1.1
//! "Listing Referrers" and "Referrers Tag Schema".

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, MediaType};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::digest::Digest;
use super::image::Document;

/// What an artifact without a configuration has for one: `{}`.
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// What tools call the file that they write the document to.
const TITLE: &str = "org.opencontainers.image.title";
/// What our attachments are called; another one of that name takes the place of this one.
pub const ATTACHMENT_NAME: &str = "io.wapack.attachment";

/// A document that is to be attached to an image.
///
/// # Shape
/// As an image manifest with `artifactType`, an empty configuration, the document as its
/// one layer, and the image as its `subject`. The same document for the same image always
/// has the same bytes: there is no time in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// What kind of document it is; also its media type.
    pub artifact_type: String,
    /// A relative path, one for each document of an image.
    pub name: String,
    /// What lists of attachments show beside it.
    pub annotations: BTreeMap<String, String>,
    pub content: Vec<u8>,
}

/// The blobs that an attachment is stored as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentBlobs {
    pub manifest: Document,
    pub configuration: Document,
    pub content: Document,
    /// As lists of what refers to an image have it.
    pub listed: Referrer,
}

/// An entry of the list of what refers to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    pub media_type: String,
    /// Of its manifest.
    pub digest: Digest,
    /// Of its manifest, in bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Attachment {
    /// What is stored; `subject` is the manifest of the image.
    #[must_use]
    pub fn blobs(&self, subject: &Descriptor) -> AttachmentBlobs {
        let annotations: BTreeMap<String, String> = self
            .annotations
            .clone()
            .into_iter()
            .chain([(ATTACHMENT_NAME.to_owned(), self.name.clone())])
            .collect();
        let configuration = Document::new(MediaType::Other(EMPTY_TYPE.to_owned()), EMPTY.to_vec());
        let content = Document::new(MediaType::Other(self.artifact_type.clone()), self.content.clone());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.to_string(),
            "artifactType": self.artifact_type,
            "config": {
                "mediaType": EMPTY_TYPE,
                "digest": configuration.digest,
                "size": configuration.bytes.len(),
                "data": "e30=",
            },
            "layers": [{
                "mediaType": self.artifact_type,
                "digest": content.digest,
                "size": content.bytes.len(),
                "annotations": { TITLE: self.name },
            }],
            "subject": {
                "mediaType": subject.media_type().to_string(),
                "digest": subject.digest().to_string(),
                "size": subject.size(),
            },
            "annotations": annotations,
        });
        let bytes = manifest.to_string().into_bytes();
        let manifest = Document::new(MediaType::ImageManifest, bytes);
        let listed = Referrer {
            media_type: MediaType::ImageManifest.to_string(),
            digest: manifest.digest.clone(),
            size: manifest.bytes.len() as u64,
            artifact_type: self.artifact_type.clone(),
            annotations,
        };
        AttachmentBlobs { manifest, configuration, content, listed }
    }
}

impl Referrer {
    /// An entry of a list; `None` for one whose digest we do not read.
    #[must_use]
    pub fn of(descriptor: &Descriptor) -> Option<Self> {
        Some(Self {
            media_type: descriptor.media_type().to_string(),
            digest: descriptor.digest().to_string().parse().ok()?,
            size: descriptor.size(),
            artifact_type: descriptor.artifact_type().as_ref().map(ToString::to_string).unwrap_or_default(),
            annotations: descriptor.annotations().clone().unwrap_or_default().into_iter().collect(),
        })
    }
}

/// Digest and size of the one document of an attachment; `None` for a manifest with none
/// or several.
#[must_use]
pub fn content_of(manifest: &[u8]) -> Option<(Digest, u64)> {
    let manifest: ArtifactManifest = serde_json::from_slice(manifest).ok()?;
    match manifest.layers.as_slice() {
        [Part { digest, size, .. }] => Some((digest.clone(), *size)),
        _ => None,
    }
}

/// What a manifest that refers to another is; `None` when it does not say.
#[must_use]
pub fn kind_of(manifest: &[u8]) -> Option<String> {
    let manifest: ArtifactManifest = serde_json::from_slice(manifest).ok()?;
    Some(manifest.kind().to_owned()).filter(|kind| !kind.is_empty())
}

/// The parts of a manifest that say what it refers to.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ArtifactManifest {
    pub(super) artifact_type: String,
    pub(super) config: Option<Part>,
    pub(super) layers: Vec<Part>,
    pub(super) subject: Option<Part>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// A descriptor, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl ArtifactManifest {
    /// What it is: without a type of its own, the type of its configuration.
    pub(super) fn kind(&self) -> &str {
        match (self.artifact_type.as_str(), &self.config) {
            ("", Some(config)) => &config.media_type,
            (artifact_type, _) => artifact_type,
        }
    }
}

/// The tag under which registries that know no referrers keep the list of those of `subject`.
#[must_use]
pub fn fallback_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment() -> Attachment {
        Attachment {
            artifact_type: "application/spdx+json".to_owned(),
            name: "sbom/a.json".to_owned(),
            annotations: [("z".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())].into(),
            content: b"hello".to_vec(),
        }
    }

    fn subject() -> Descriptor {
        let digest: oci_spec::image::Digest = Digest::of(b"image").as_str().parse().unwrap();
        Descriptor::new(MediaType::ImageManifest, 5, digest)
    }

    /// By `printf '{}' | sha256sum` and `printf hello | sha256sum`; the fields are those of image-spec's
    /// example "Attaching an artifact to an image".
    #[test]
    fn the_manifest_is_that_of_an_artifact() {
        let blobs = attachment().blobs(&subject());
        let manifest: serde_json::Value = serde_json::from_slice(&blobs.manifest.bytes).unwrap();
        assert_eq!(
            manifest,
            json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "artifactType": "application/spdx+json",
                "config": {
                    "mediaType": "application/vnd.oci.empty.v1+json",
                    "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
                    "size": 2,
                    "data": "e30=",
                },
                "layers": [{
                    "mediaType": "application/spdx+json",
                    "digest": "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
                    "size": 5,
                    "annotations": { "org.opencontainers.image.title": "sbom/a.json" },
                }],
                "subject": {
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": Digest::of(b"image").as_str(),
                    "size": 5,
                },
                "annotations": { "a": "2", "io.wapack.attachment": "sbom/a.json", "z": "1" },
            })
        );
        assert_eq!(blobs.listed.digest, Digest::of(&blobs.manifest.bytes));
        for _ in 0..20 {
            assert_eq!(attachment().blobs(&subject()), blobs);
        }
    }

    #[test]
    fn the_tag_for_old_registries_is_the_digest() {
        let tag = fallback_tag(&Digest::of(b"hello"));
        assert_eq!(tag, "sha256-2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    }
}
