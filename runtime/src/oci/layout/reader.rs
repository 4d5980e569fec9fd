//! Finding an image in a layout, and verifying its documents.

use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};

use super::{INDEX_FILE, LAYOUT_FILE, LayoutError, REFERENCE_ANNOTATION, blob_path, read_document};
use crate::oci::digest::{Digest, InvalidDigest};
use crate::oci::image::{DOCKER_INDEX, Image, ImageConfiguration, Layer, MediaFamily};

/// An index may list indexes; real ones do so once.
const MAX_INDEX_DEPTH: usize = 4;

/// An image of a layout, verified down to its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct LayoutImage {
    /// Where it was found.
    pub directory: PathBuf,
    /// What the layout calls it, if it has a name there.
    pub reference: Option<String>,
    /// Of its manifest.
    pub digest: Digest,
    /// The image; its layers' blobs are in the layout and not verified yet.
    pub image: Image,
}

/// The system an image is wanted for, in the words of image-spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform<'a> {
    pub os: &'a str,
    pub architecture: &'a str,
    /// Only compared when both sides have one.
    pub variant: Option<&'a str>,
}

/// Reads an image of a layout: the one called `reference`, or the only one.
///
/// # Errors
/// When there is none, or several without a name to choose by, or something in
/// it is not what its digest says.
pub fn read_image(
    directory: &Path,
    reference: Option<&str>,
    platform: Option<Platform<'_>>,
) -> Result<LayoutImage, LayoutError> {
    let reader = Reader { directory };
    if !directory.join(LAYOUT_FILE).is_file() {
        return Err(LayoutError::Missing { directory: directory.to_owned() });
    }
    let index = read_document(directory, &directory.join(INDEX_FILE), INDEX_FILE)?;
    let index: ImageIndex = reader.parse(INDEX_FILE, &index)?;
    let name_of = |descriptor: &Descriptor| {
        descriptor
            .annotations()
            .as_ref()
            .and_then(|annotations| annotations.get(REFERENCE_ANNOTATION))
            .cloned()
    };
    let names: Vec<String> = index.manifests().iter().filter_map(name_of).collect();
    let mut candidates: Vec<Descriptor> = index
        .manifests()
        .iter()
        .filter(|descriptor| reference.is_none_or(|wanted| name_of(descriptor).as_deref() == Some(wanted)))
        .cloned()
        .collect();

    let mut name = None;
    for _ in 0..MAX_INDEX_DEPTH {
        if candidates.len() > 1
            && let Some(platform) = platform
        {
            candidates.retain(|descriptor| is_for(descriptor, platform));
        }
        candidates.dedup_by(|left, right| left.digest() == right.digest());
        let chosen = match candidates.as_slice() {
            [chosen] => chosen.clone(),
            [] => {
                let wanted = match (reference, platform) {
                    (Some(reference), None) => format!("called `{reference}`"),
                    (Some(reference), Some(Platform { os, architecture, .. })) => {
                        format!("called `{reference}` for `{os}/{architecture}`")
                    }
                    (None, Some(Platform { os, architecture, .. })) => format!("for `{os}/{architecture}`"),
                    (None, None) => "at all".to_owned(),
                };
                return Err(LayoutError::NoSuchImage { directory: directory.to_owned(), wanted, names });
            }
            _ => return Err(LayoutError::Ambiguous { directory: directory.to_owned(), names }),
        };
        name = name.or_else(|| name_of(&chosen));
        if let Some(family) = MediaFamily::of_manifest(chosen.media_type()) {
            return Ok(LayoutImage { reference: name, ..reader.image(&chosen, family)? });
        }
        let is_index = match chosen.media_type() {
            MediaType::ImageIndex => true,
            MediaType::Other(other) => other == DOCKER_INDEX,
            _ => false,
        };
        let name = chosen.digest().to_string();
        if !is_index {
            return Err(reader.invalid(&name, format!("its type `{}` is no image", chosen.media_type())));
        }
        let (_, bytes) = reader.document(&chosen)?;
        let index: ImageIndex = reader.parse(&name, &bytes)?;
        candidates.clone_from(index.manifests());
    }
    Err(reader.invalid(INDEX_FILE, "indexes are nested too deeply".to_owned()))
}

fn is_for(descriptor: &Descriptor, wanted: Platform<'_>) -> bool {
    descriptor.platform().as_ref().is_some_and(|platform| {
        let variant_agrees = match (platform.variant().as_deref(), wanted.variant) {
            (Some(left), Some(right)) => left == right,
            _ => true,
        };
        platform.os().to_string() == wanted.os
            && platform.architecture().to_string() == wanted.architecture
            && variant_agrees
    })
}

struct Reader<'a> {
    directory: &'a Path,
}

impl Reader<'_> {
    fn image(&self, descriptor: &Descriptor, family: MediaFamily) -> Result<LayoutImage, LayoutError> {
        let (digest, bytes) = self.document(descriptor)?;
        let manifest: ImageManifest = self.parse(digest.as_str(), &bytes)?;
        let (configuration_digest, bytes) = self.document(manifest.config())?;
        let configuration: ImageConfiguration = self.parse(configuration_digest.as_str(), &bytes)?;
        let diff_ids = &configuration.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers().len() {
            let reason =
                format!("it lists {} layers, its configuration {}", manifest.layers().len(), diff_ids.len());
            return Err(self.invalid(digest.as_str(), reason));
        }
        let layers = manifest
            .layers()
            .iter()
            .zip(diff_ids)
            .map(|(descriptor, diff_id)| {
                let digest = self.digest(descriptor)?;
                Ok(Layer {
                    media_type: descriptor.media_type().clone(),
                    blob: blob_path(self.directory, &digest).into(),
                    digest,
                    size: descriptor.size(),
                    diff_id: diff_id.clone(),
                })
            })
            .collect::<Result<_, LayoutError>>()?;
        let image = Image { family, configuration, layers };
        Ok(LayoutImage { directory: self.directory.to_owned(), reference: None, digest, image })
    }

    /// Reads a document and verifies it.
    fn document(&self, descriptor: &Descriptor) -> Result<(Digest, Vec<u8>), LayoutError> {
        let expected = self.digest(descriptor)?;
        let path = blob_path(self.directory, &expected);
        let bytes = read_document(self.directory, &path, expected.as_str())?;
        let actual = Digest::of(&bytes);
        if bytes.len() as u64 != descriptor.size() {
            let (expected, actual) = (descriptor.size(), bytes.len() as u64);
            return Err(LayoutError::WrongSize { path, expected, actual });
        }
        if actual != expected {
            return Err(LayoutError::WrongDigest { path, expected, actual });
        }
        Ok((expected, bytes))
    }

    fn digest(&self, descriptor: &Descriptor) -> Result<Digest, LayoutError> {
        descriptor
            .digest()
            .to_string()
            .parse()
            .map_err(|error: InvalidDigest| self.invalid(INDEX_FILE, error.to_string()))
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, LayoutError> {
        serde_json::from_slice(bytes).map_err(|error| self.invalid(name, error.to_string()))
    }

    fn invalid(&self, name: &str, reason: String) -> LayoutError {
        LayoutError::Invalid { directory: self.directory.to_owned(), name: name.to_owned(), reason }
    }
}
