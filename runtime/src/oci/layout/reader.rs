//! Finding an image in a layout, and verifying its documents.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use super::{
    BLOBS, INDEX_FILE, LAYOUT_FILE, LayoutError, MAX_DOCUMENT_BYTES, REFERENCE_ANNOTATION, blob_path,
    read_document,
};
use crate::oci::digest::{Digest, InvalidDigest};
use crate::oci::image::{BlobPlace, Image, ImageConfiguration, Layer, MediaFamily};
use crate::oci::platform::{Platform, fit};
use crate::oci::tar_index::TarIndex;

/// An index may list indexes; real ones do so once.
const MAX_INDEX_DEPTH: usize = 4;

/// An image of a layout, verified down to its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct LayoutImage {
    /// Where it was found: a directory, or an archive of one.
    pub directory: PathBuf,
    /// What the layout calls it, if it has a name there.
    pub reference: Option<String>,
    /// Of its manifest.
    pub digest: Digest,
    /// The image; its layers' blobs are in the layout and not verified yet.
    pub image: Image,
}

/// Reads an image of a layout, a directory or an archive of one: the one called
/// `reference`, or the only one.
///
/// # Errors
/// When there is none, or several without a name to choose by, or something in
/// it is not what its digest says.
pub fn read_image(
    directory: &Path,
    reference: Option<&str>,
    platform: Option<Platform<'_>>,
) -> Result<LayoutImage, LayoutError> {
    find(&Reader::open(directory)?, reference, platform)
}

/// What the images of a layout are called, those for several systems once.
///
/// # Errors
/// When there is no layout, or its index cannot be read.
pub fn image_names(directory: &Path) -> Result<Vec<String>, LayoutError> {
    let mut names: Vec<String> =
        Reader::open(directory)?.index()?.manifests().iter().filter_map(name_of).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The systems that a name of a layout has images for, such as `linux/arm64`; those of
/// the only name where `reference` is `None`. None for an image that is alone.
///
/// # Errors
/// When there is no layout, or its index cannot be read.
pub fn image_systems(directory: &Path, reference: Option<&str>) -> Result<Vec<String>, LayoutError> {
    let reader = Reader::open(directory)?;
    let index = reader.index()?;
    let is_wanted = |descriptor: &&Descriptor| {
        reference.is_none_or(|wanted| name_of(descriptor).as_deref() == Some(wanted))
    };
    let mut systems = Vec::new();
    for descriptor in index.manifests().iter().filter(is_wanted) {
        if MediaFamily::is_index(descriptor.media_type()) {
            let (digest, bytes) = reader.document(descriptor)?;
            let index: ImageIndex = reader.parse(digest.as_str(), &bytes)?;
            systems.extend(systems_of(&index));
        }
    }
    Ok(systems)
}

/// The systems of an index, one for each of its images.
#[must_use]
pub fn systems_of(index: &ImageIndex) -> Vec<String> {
    index.manifests().iter().map(system_of).collect()
}

fn system_of(descriptor: &Descriptor) -> String {
    match descriptor.platform() {
        Some(platform) => {
            let variant = platform.variant().as_ref().filter(|variant| !variant.is_empty());
            let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
            format!("{}/{}{variant}", platform.os(), platform.architecture())
        }
        None => "unknown".to_owned(),
    }
}

fn name_of(descriptor: &Descriptor) -> Option<String> {
    descriptor.annotations().as_ref().and_then(|annotations| annotations.get(REFERENCE_ANNOTATION)).cloned()
}

/// The descriptor for `platform`, or the only one, behind any number of indexes.
fn find(
    reader: &Reader<'_>,
    reference: Option<&str>,
    platform: Option<Platform<'_>>,
) -> Result<LayoutImage, LayoutError> {
    let directory = reader.directory;
    let index = reader.index()?;
    let names: Vec<String> = index.manifests().iter().filter_map(name_of).collect();
    let mut candidates: Vec<Descriptor> = index
        .manifests()
        .iter()
        .filter(|descriptor| match reference {
            // What is attached to an image is none.
            None => descriptor.artifact_type().is_none(),
            Some(wanted) => name_of(descriptor).as_deref() == Some(wanted),
        })
        .cloned()
        .collect();

    let mut name = None;
    let mut systems = Vec::new();
    for _ in 0..MAX_INDEX_DEPTH {
        if candidates.len() > 1
            && let Some(platform) = platform
        {
            systems = candidates
                .iter()
                .filter(|descriptor| descriptor.platform().is_some())
                .map(system_of)
                .collect();
            let best = candidates.iter().filter_map(|candidate| fit(candidate, platform)).min();
            candidates.retain(|candidate| best.is_some() && fit(candidate, platform) == best);
        }
        candidates.dedup_by(|left, right| left.digest() == right.digest());
        let chosen = match candidates.as_slice() {
            [chosen] => chosen.clone(),
            [] => {
                let wanted = match (reference, platform) {
                    (Some(reference), None) => format!("called `{reference}`"),
                    (Some(reference), Some(platform)) => format!("called `{reference}` for `{platform}`"),
                    (None, Some(platform)) => format!("for `{platform}`"),
                    (None, None) => "at all".to_owned(),
                };
                let directory = directory.to_owned();
                if systems.is_empty() {
                    return Err(LayoutError::NoSuchImage { directory, wanted, names });
                }
                // What there is of that name says more than which names there are.
                let wanted = format!("{wanted}, only for `{}`", systems.join("`, `"));
                return Err(LayoutError::NoSuchImage { directory, wanted, names: Vec::new() });
            }
            _ => return Err(LayoutError::Ambiguous { directory: directory.to_owned(), names }),
        };
        name = name.or_else(|| name_of(&chosen));
        if let Some(family) = MediaFamily::of_manifest(chosen.media_type()) {
            return Ok(LayoutImage { reference: name, ..reader.image(&chosen, family)? });
        }
        let name = chosen.digest().to_string();
        if !MediaFamily::is_index(chosen.media_type()) {
            return Err(reader.invalid(&name, format!("its type `{}` is no image", chosen.media_type())));
        }
        let (_, bytes) = reader.document(&chosen)?;
        let index: ImageIndex = reader.parse(&name, &bytes)?;
        candidates.clone_from(index.manifests());
    }
    Err(reader.invalid(INDEX_FILE, "indexes are nested too deeply".to_owned()))
}

/// The bytes of a file, or one more than `size` of them.
fn read_at_most(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(size.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where a blob is in a layout.
fn in_archive(digest: &Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

pub(super) struct Reader<'a> {
    directory: &'a Path,
    /// Where the layout is an archive.
    archive: Option<(File, TarIndex)>,
}

impl<'a> Reader<'a> {
    /// Opens a directory, or a file that is an archive of one.
    pub(super) fn open(directory: &'a Path) -> Result<Self, LayoutError> {
        if directory.is_file() {
            let failed = |cause| LayoutError::Io { directory: directory.to_owned(), cause };
            let file = fs_err::File::open(directory).map_err(failed)?.into_parts().0;
            let index = TarIndex::read(&file).map_err(failed)?;
            if index.get(LAYOUT_FILE).is_none() {
                return Err(LayoutError::Missing { directory: directory.to_owned() });
            }
            return Ok(Self { directory, archive: Some((file, index)) });
        }
        if !directory.join(LAYOUT_FILE).is_file() {
            return Err(LayoutError::Missing { directory: directory.to_owned() });
        }
        Ok(Self { directory, archive: None })
    }

    pub(super) fn index(&self) -> Result<ImageIndex, LayoutError> {
        self.parse(INDEX_FILE, &self.read(INDEX_FILE, INDEX_FILE)?)
    }

    /// The bytes of a document at `path` in the layout, called `name` in errors.
    fn read(&self, path: &str, name: &str) -> Result<Vec<u8>, LayoutError> {
        let Some((file, index)) = &self.archive else {
            return read_document(self.directory, &self.directory.join(path), name);
        };
        let failed = |cause| LayoutError::Io { directory: self.directory.to_owned(), cause };
        let found = index.document(file, path, MAX_DOCUMENT_BYTES).map_err(failed)?;
        found.ok_or_else(|| self.invalid(name, "the archive does not have it".to_owned()))
    }

    /// Where a layer's blob is.
    fn place(&self, digest: &Digest, size: u64) -> Result<BlobPlace, LayoutError> {
        let Some((_, index)) = &self.archive else { return Ok(blob_path(self.directory, digest).into()) };
        match index.get(&in_archive(digest)) {
            Some(part) if part.size == size => {
                Ok(BlobPlace::Part { file: self.directory.to_owned(), start: part.start })
            }
            Some(part) => Err(LayoutError::WrongSize {
                path: self.directory.join(in_archive(digest)),
                expected: size,
                actual: part.size,
            }),
            None => Err(self.invalid(digest.as_str(), "the archive does not have it".to_owned())),
        }
    }

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
                    blob: self.place(&digest, descriptor.size())?,
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
    pub(super) fn document(&self, descriptor: &Descriptor) -> Result<(Digest, Vec<u8>), LayoutError> {
        let expected = self.digest(descriptor)?;
        let path = blob_path(self.directory, &expected);
        let bytes = self.read(&in_archive(&expected), expected.as_str())?;
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

    /// Reads a blob of any size and verifies it.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, LayoutError> {
        let path = blob_path(self.directory, digest);
        let bytes = match &self.archive {
            None => read_at_most(&path, size).map_err(|cause| self.io(cause))?,
            Some((file, index)) => index
                .document(file, &in_archive(digest), size)
                .map_err(|cause| self.io(cause))?
                .ok_or_else(|| self.invalid(digest.as_str(), "the archive does not have it".to_owned()))?,
        };
        let actual = Digest::of(&bytes);
        if bytes.len() as u64 != size {
            return Err(LayoutError::WrongSize { path, expected: size, actual: bytes.len() as u64 });
        }
        if actual != *digest {
            return Err(LayoutError::WrongDigest { path, expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    fn io(&self, cause: io::Error) -> LayoutError {
        LayoutError::Io { directory: self.directory.to_owned(), cause }
    }

    pub(super) fn parse<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        bytes: &[u8],
    ) -> Result<T, LayoutError> {
        serde_json::from_slice(bytes).map_err(|error| self.invalid(name, error.to_string()))
    }

    pub(super) fn invalid(&self, name: &str, reason: String) -> LayoutError {
        LayoutError::Invalid { directory: self.directory.to_owned(), name: name.to_owned(), reason }
    }
}
