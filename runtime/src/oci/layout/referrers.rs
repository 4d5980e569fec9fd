//! What is attached to the images of a layout.
//!
//! # Spec
//! image-spec `image-layout.md`: an entry of `index.json` without a name, as other tools
//! write and find them; who belongs to whom is in the manifests.

use std::collections::BTreeSet;
use std::path::Path;

use oci_spec::image::{Descriptor, MediaType};
use serde_json::{Value, json};

use super::reader::Reader;
use super::{ImageLayout, LayoutError};
use crate::oci::digest::Digest;
use crate::oci::image::DOCKER_INDEX;
use crate::oci::referrer::{ATTACHMENT_NAME, ArtifactManifest, Attachment, Referrer, content_of};

/// Entries of an index that are looked at, so that a hostile one ends.
const MAX_ENTRIES: usize = 2000;
/// Indexes within indexes.
const MAX_INDEX_DEPTH: usize = 4;
/// Largest attachment that is read.
pub const MAX_ATTACHMENT_BYTES: u64 = 64 << 20;

/// Lists what refers to the manifest `subject` in a layout or an archive of one.
///
/// # Errors
/// When there is no layout, or its index cannot be read. Entries that cannot be read
/// refer to nothing.
pub fn referrers(place: &Path, subject: &Digest) -> Result<Vec<Referrer>, LayoutError> {
    let reader = Reader::open(place)?;
    let mut found = Vec::new();
    for descriptor in reader.index()?.manifests().iter().take(MAX_ENTRIES) {
        let Some((digest, artifact)) = artifact(&reader, descriptor) else { continue };
        if artifact.subject.as_ref().is_some_and(|of| of.digest == *subject) {
            found.push(Referrer {
                media_type: descriptor.media_type().to_string(),
                digest,
                size: descriptor.size(),
                artifact_type: artifact.kind().to_owned(),
                annotations: artifact.annotations.unwrap_or_default(),
            });
        }
    }
    Ok(found)
}

/// Reads the document of an attachment, verified.
///
/// # Errors
/// When it is not there, larger than [`MAX_ATTACHMENT_BYTES`], or has other bytes.
pub fn read_attachment(place: &Path, referrer: &Referrer) -> Result<Vec<u8>, LayoutError> {
    let reader = Reader::open(place)?;
    let invalid = |reason: &str| reader.invalid(referrer.digest.as_str(), reason.to_owned());
    let manifest = reader.blob(&referrer.digest, referrer.size)?;
    let (digest, size) =
        content_of(&manifest).ok_or_else(|| invalid("it is no attachment with one document"))?;
    if size > MAX_ATTACHMENT_BYTES {
        return Err(invalid("its document is larger than 64 MiB"));
    }
    reader.blob(&digest, size)
}

/// A manifest that refers to another one, and its digest.
fn artifact(reader: &Reader<'_>, descriptor: &Descriptor) -> Option<(Digest, ArtifactManifest)> {
    if *descriptor.media_type() != MediaType::ImageManifest {
        return None;
    }
    let (digest, bytes) = reader.document(descriptor).ok()?;
    let artifact: ArtifactManifest = serde_json::from_slice(&bytes).ok()?;
    artifact.subject.is_some().then_some((digest, artifact))
}

impl ImageLayout {
    /// Attaches documents to an image of this layout; its descriptor is `subject`. Ours of
    /// the same names give way, and so do ours of images that the layout no longer has.
    /// Nothing is written when all of it is there already.
    ///
    /// # Errors
    /// When a file cannot be written, or the index read.
    pub fn attach(&self, subject: &Descriptor, attachments: &[Attachment]) -> Result<(), LayoutError> {
        let mut entries = Vec::with_capacity(attachments.len());
        let mut changed = false;
        for attachment in attachments {
            let blobs = attachment.blobs(subject);
            for document in [&blobs.content, &blobs.configuration, &blobs.manifest] {
                changed |= self.add_document(document)?;
            }
            entries.push(json!(blobs.listed));
        }
        if changed {
            self.synchronise_blobs()?;
        }
        let reader = Reader::open(self.directory())?;
        let images = images(&reader)?;
        self.change_index(false, |manifests| {
            manifests.retain(|entry| {
                let annotation = &entry["annotations"][ATTACHMENT_NAME];
                let Some(name) = annotation.as_str() else { return true };
                let of = subject_of(&reader, entry);
                let is_replaced = of.as_ref().is_some_and(|of| of.as_str() == subject.digest().to_string())
                    && attachments.iter().any(|attachment| attachment.name == name)
                    && !entries.contains(entry);
                !is_replaced && of.is_some_and(|of| images.contains(&of))
            });
            for entry in &entries {
                if !manifests.contains(entry) {
                    manifests.push(entry.clone());
                }
            }
        })
    }
}

fn subject_of(reader: &Reader<'_>, entry: &Value) -> Option<Digest> {
    let digest: Digest = entry["digest"].as_str()?.parse().ok()?;
    let bytes = reader.blob(&digest, entry["size"].as_u64()?).ok()?;
    serde_json::from_slice::<ArtifactManifest>(&bytes).ok()?.subject.map(|subject| subject.digest)
}

/// Every manifest of a layout, those in indexes too.
fn images(reader: &Reader<'_>) -> Result<BTreeSet<Digest>, LayoutError> {
    let mut found = BTreeSet::new();
    let mut open: Vec<(Descriptor, usize)> =
        reader.index()?.manifests().iter().map(|descriptor| (descriptor.clone(), 0)).collect();
    while let Some((descriptor, depth)) = open.pop() {
        let Ok(digest) = descriptor.digest().to_string().parse::<Digest>() else { continue };
        let is_new = found.insert(digest);
        let is_index = match descriptor.media_type() {
            MediaType::ImageIndex => true,
            MediaType::Other(other) => other == DOCKER_INDEX,
            _ => false,
        };
        if is_new && is_index && depth < MAX_INDEX_DEPTH && found.len() < MAX_ENTRIES {
            let Ok((_, bytes)) = reader.document(&descriptor) else { continue };
            let Ok(index) = serde_json::from_slice::<oci_spec::image::ImageIndex>(&bytes) else { continue };
            open.extend(index.manifests().iter().map(|inner| (inner.clone(), depth + 1)));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
