//! What manifests and indexes have to be like before anything in them is believed.
//!
//! Pure: bytes and what was said about them, to values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde_json::Value;

use super::error::Trouble;
use super::json;
use crate::oci::digest::Digest;
use crate::oci::image::{Document, ImageConfiguration, Layer, MediaFamily};
use crate::oci::platform::{Platform, fit};

/// Manifests and indexes; registries refuse to take larger ones.
pub(super) const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Configurations have all labels of an image in them.
pub(super) const MAX_CONFIGURATION_BYTES: u64 = 8 << 20;
/// Kernels mount far fewer layers above each other.
const MAX_LAYERS: usize = 512;
const MAX_INDEX_ENTRIES: usize = 1000;
/// An index may list indexes; real ones do so once.
pub(super) const MAX_INDEX_DEPTH: usize = 4;

const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What is understood, for `Accept`.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

/// A document of one of the two shapes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Manifest {
    Image(MediaFamily, Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

fn bad(text: impl Into<String>) -> Trouble {
    Trouble::Document(text.into())
}

/// The type in `Content-Type`, without parameters; one of those that are understood.
pub(super) fn media_type(content_type: Option<&str>) -> Result<MediaType, Trouble> {
    let text = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match text {
        OCI_MANIFEST => Ok(MediaType::ImageManifest),
        OCI_INDEX => Ok(MediaType::ImageIndex),
        DOCKER_MANIFEST | DOCKER_INDEX => Ok(MediaType::Other(text.to_owned())),
        "application/vnd.docker.distribution.manifest.v1+json"
        | "application/vnd.docker.distribution.manifest.v1+prettyjws" => {
            Err(bad("it is in a format from before 2016 (schema 1) that is no longer read"))
        }
        "" => Err(bad("nothing says what it is (`Content-Type`)")),
        other => {
            let shown: String = other.chars().take(80).flat_map(char::escape_default).collect();
            Err(bad(format!("its type `{shown}` is that of no image")))
        }
    }
}

/// Reads a manifest or an index whose bytes are verified.
///
/// # Spec
/// image-spec 1.1 `manifest.md`, `image-index.md`; R4: it is one of both and says so, or
/// nothing, and means the same to every reader.
pub(super) fn read(document: &Document) -> Result<Manifest, Trouble> {
    /// What tells the shapes from each other.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        schema_version: u64,
        media_type: Option<String>,
        manifests: Option<Value>,
        config: Option<Value>,
        layers: Option<Value>,
        fs_layers: Option<Value>,
        signatures: Option<Value>,
    }
    let invalid = |error: serde_json::Error| bad(format!("it cannot be read: {error}"));
    let shape: Shape = json::read(&document.bytes).map_err(invalid)?;
    if shape.schema_version != 2 {
        return Err(bad(format!("its schema version is {}, not 2", shape.schema_version)));
    }
    let announced = document.media_type.to_string();
    let is_oci = matches!(document.media_type, MediaType::ImageManifest | MediaType::ImageIndex);
    match &shape.media_type {
        Some(own) if *own == announced => {}
        // Docker's always say it; of OCI's, older ones do not.
        None if is_oci => {}
        _ => return Err(bad(format!("it does not say itself that it is `{announced}`"))),
    }
    let is_index = announced == OCI_INDEX || announced == DOCKER_INDEX;
    let has_image = shape.config.is_some() || shape.layers.is_some();
    let has_old = shape.fs_layers.is_some() || shape.signatures.is_some();
    if has_old || has_image == is_index || shape.manifests.is_some() != is_index {
        return Err(bad("it is not clear whether it is one image or an index of several"));
    }
    if is_index {
        let index: ImageIndex = serde_json::from_slice(&document.bytes).map_err(invalid)?;
        if index.manifests().len() > MAX_INDEX_ENTRIES {
            return Err(bad(format!("it lists more than {MAX_INDEX_ENTRIES} images")));
        }
        return Ok(Manifest::Index(Box::new(index)));
    }
    let manifest: ImageManifest = serde_json::from_slice(&document.bytes).map_err(invalid)?;
    if manifest.layers().len() > MAX_LAYERS {
        return Err(bad(format!("it has more than {MAX_LAYERS} layers")));
    }
    let family = if is_oci { MediaFamily::Oci } else { MediaFamily::Docker };
    Ok(Manifest::Image(family, Box::new(manifest)))
}

/// The digest that a descriptor names; only SHA-256.
pub(super) fn digest_of(descriptor: &Descriptor) -> Result<Digest, Trouble> {
    let digest = descriptor.digest().to_string().parse::<Digest>();
    digest.map_err(|error| bad(format!("it refers to {error}")))
}

/// The bytes that a descriptor brings along, when they are those it means (R6).
pub(super) fn embedded(descriptor: &Descriptor, digest: &Digest) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(descriptor.data().as_ref()?).ok()?;
    (bytes.len() as u64 == descriptor.size() && Digest::of(&bytes) == *digest).then_some(bytes)
}

/// What an index offers for a platform: the best of what fits, and nothing by guessing. With
/// one entry that says nothing about platforms, that one.
pub(super) fn choose<'a>(index: &'a ImageIndex, wanted: Platform<'_>) -> Option<&'a Descriptor> {
    let fits = index.manifests().iter().filter_map(|entry| Some((fit(entry, wanted)?, entry)));
    fits.min_by_key(|(fit, _)| *fit).map(|(_, entry)| entry).or_else(|| nested(index))
}

/// The only entry, if it is an index itself or says nothing of platforms.
fn nested(index: &ImageIndex) -> Option<&Descriptor> {
    match index.manifests().as_slice() {
        [only] if only.platform().is_none() => Some(only),
        _ => None,
    }
}

/// The platforms that an index has images for, for messages.
pub(super) fn platforms(index: &ImageIndex) -> Vec<String> {
    let mut found: Vec<String> = index
        .manifests()
        .iter()
        .filter_map(|descriptor| {
            let platform = descriptor.platform().as_ref()?;
            let variant =
                platform.variant().as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
            let text = format!("{}/{}{variant}", platform.os(), platform.architecture());
            Some(text.chars().take(60).flat_map(char::escape_default).collect())
        })
        .collect();
    found.sort();
    found.dedup();
    found.truncate(20);
    found
}

/// An image's configuration, and its layers as manifest and configuration list them (R8).
pub(super) fn image(
    manifest: &ImageManifest,
    configuration: &[u8],
    place: &crate::oci::image::BlobPlace,
) -> Result<(ImageConfiguration, Vec<Layer>), Trouble> {
    let configuration: ImageConfiguration = json::read(configuration)
        .map_err(|error| bad(format!("its configuration cannot be read: {error}")))?;
    let diff_ids = &configuration.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers().len() {
        let (layers, listed) = (manifest.layers().len(), diff_ids.len());
        return Err(bad(format!("it has {layers} layers, and its configuration lists {listed}")));
    }
    let layers = manifest.layers().iter().zip(diff_ids);
    let layers = layers.map(|(descriptor, diff_id)| {
        Ok(Layer {
            media_type: descriptor.media_type().clone(),
            digest: digest_of(descriptor)?,
            size: descriptor.size(),
            diff_id: diff_id.clone(),
            blob: place.clone(),
        })
    });
    let layers = layers.collect::<Result<_, Trouble>>()?;
    Ok((configuration, layers))
}

/// Whether an image is for the platform that its index says it is for (R8).
pub(super) fn check_platform(descriptor: &Descriptor, found: &ImageConfiguration) -> Result<(), Trouble> {
    let Some(said) = descriptor.platform() else { return Ok(()) };
    let (os, architecture) = (said.os().to_string(), said.architecture().to_string());
    if (os.as_str(), architecture.as_str()) == (found.os.as_str(), found.architecture.as_str()) {
        return Ok(());
    }
    let show = |text: &str| text.chars().take(60).flat_map(char::escape_default).collect::<String>();
    let found = format!("{}/{}", show(&found.os), show(&found.architecture));
    Err(bad(format!(
        "its index says that it is for `{}/{}`, it is for `{found}`",
        show(&os),
        show(&architecture)
    )))
}
