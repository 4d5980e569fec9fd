//! Images as directories: each name is an image layout of its own below one directory.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::Access;

use super::telling::Telling;
use super::{Cause, FoundImage, Images, ImagesError, SavedImage, Unsaved, layer_of};
use crate::cancel::Cancel;
use crate::event::EventSink;
use crate::oci::blob::BlobStore;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{Document, Image, Layer};
use crate::oci::layout::{ImageLayout, LayoutError, LayoutImage, Placed, Placing, Platform, read_image};
use crate::oci::reference::{InvalidReference, Reference};

/// How long another process may write to the same layout.
const PATIENCE: Duration = Duration::from_mins(1);

/// The images of a layout directory.
///
/// A name that starts with the directory is the path of a layout, perhaps with `@`
/// and the digest of its image behind it, as `analyzed.toml` has it. Every other
/// name is that of an image: a tag is in `<registry>/<repository>/<tag>`, a digest
/// in `<registry>/<repository>/<algorithm>/<digest>`.
///
/// # Spec
/// `platform.md` 0.15 "Map an image reference to a path in the layout directory";
/// RPT-04. As with the reference lifecycle, each layout has one image, and may lack
/// blobs of a run image that the platform has elsewhere: they are missing in what
/// is made from it, too.
#[derive(Debug, Clone)]
pub struct LayoutImages {
    directory: PathBuf,
    /// What to take where a layout has an image for several systems.
    architecture: String,
}

/// Where a name leads to.
struct Place {
    directory: PathBuf,
    /// What the image is called there.
    reference: String,
    /// Of the manifest, where the name says it.
    digest: Option<Digest>,
    /// Whether it is called by the digest of its manifest, which then cannot say it.
    called_by_digest: bool,
}

impl Place {
    /// The image's manifest there.
    fn manifest(&self, image: &Image) -> Document {
        if self.called_by_digest { image.documents().1 } else { image.documents_called(&self.reference).1 }
    }
}

impl LayoutImages {
    /// The images below `directory`, which is absolute. Where one is there for
    /// several systems, it is the one for `architecture` (`amd64`, `arm64`).
    #[must_use]
    pub fn new(directory: PathBuf, architecture: String) -> Self {
        Self { directory, architecture }
    }

    fn place(&self, name: &str) -> Result<Place, ImagesError> {
        let (path, digest) = match name.rsplit_once('@') {
            Some((path, digest)) => (path, digest.parse().ok()),
            None => (name, None),
        };
        let path = Path::new(path);
        if path.starts_with(&self.directory) {
            let refused = |rule| InvalidReference { value: name.escape_debug().to_string(), rule };
            if name.contains('@') && digest.is_none() {
                return Err(refused("what follows the `@` is not a SHA-256 digest").into());
            }
            if path.components().any(|part| part == Component::ParentDir) {
                return Err(refused("a path to a layout has no `..`").into());
            }
            let last = path.file_name().map(|last| last.to_string_lossy().into_owned());
            let reference = last.unwrap_or_default();
            return Ok(Place { directory: path.to_owned(), reference, digest, called_by_digest: false });
        }
        let reference: Reference = name.parse()?;
        let called = reference.digest().map(Digest::to_string).or(reference.tag().map(str::to_owned));
        Ok(Place {
            directory: self.directory.join(reference.layout_path()),
            reference: called.unwrap_or_default(),
            digest: None,
            called_by_digest: reference.digest().is_some(),
        })
    }

    fn read(&self, place: &Place) -> Result<Option<LayoutImage>, LayoutError> {
        let platform = Platform { os: "linux", architecture: &self.architecture, variant: None };
        let found = match read_image(&place.directory, None, Some(platform)) {
            Err(LayoutError::Missing { .. }) => return Ok(None),
            Err(LayoutError::Ambiguous { .. }) => {
                read_image(&place.directory, Some(&place.reference), Some(platform))?
            }
            found => found?,
        };
        Ok(Some(found).filter(|found| place.digest.as_ref().is_none_or(|digest| *digest == found.digest)))
    }

    fn write(
        &self,
        image: &Image,
        place: &Place,
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<Placed, LayoutError> {
        let started = Instant::now();
        let layout = loop {
            match ImageLayout::open(&place.directory) {
                Err(LayoutError::Busy { .. }) if started.elapsed() < PATIENCE && !cancel.is_cancelled() => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                result => break result?,
            }
        };
        let placing = Placing {
            reference: &place.reference,
            called: !place.called_by_digest,
            alone: true,
            unread: true,
            sparse: Some(&self.directory),
            linkable: blobs.linkable(),
        };
        let mut telling = Telling::new(missing_bytes(&place.directory, [image]), events);
        layout.place(image, &placing, blobs, &mut |bytes| {
            telling.add(bytes);
            !cancel.is_cancelled()
        })
    }
}

impl Images for LayoutImages {
    fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
        let place = self.place(name)?;
        match self.read(&place) {
            Ok(found) => Ok(found.map(|found| FoundImage {
                reference: format!("{}@{}", place.directory.display(), found.digest),
                image: found.image,
            })),
            Err(error) => {
                let name = name.to_owned();
                Err(if is_damage(&error) {
                    ImagesError::Damaged { name, source: error.into() }
                } else {
                    ImagesError::Image { name, source: error.into() }
                })
            }
        }
    }

    fn layer(&self, image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
        layer_of(image, diff_id)
    }

    /// Makes nothing: asks whether the first directory that is there could be written to.
    fn check_write(&self, name: &str) -> Result<(), ImagesError> {
        let place = self.place(name)?;
        let is_writable = || {
            let there = place.directory.ancestors().find(|directory| directory.exists());
            let there = there.ok_or(io::ErrorKind::NotFound)?;
            if !there.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)
        };
        is_writable()
            .map_err(|error| ImagesError::NotWritable { name: name.to_owned(), source: error.into() })
    }

    fn keeps_files(&self) -> bool {
        true
    }

    /// Every name gets the blobs, none shares them with another: each is a layout of its own.
    fn save(
        &self,
        image: &Image,
        names: &[String],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        let mut saved = SavedImage::default();
        let mut unsaved = vec![];
        for name in names {
            let result = self.place(name).map_err(Into::into).and_then(|place| {
                let placed = self.write(image, &place, blobs, cancel, events).map_err(Cause::from)?;
                Ok((place.manifest(image), placed.moved))
            });
            match result {
                Ok((manifest, moved)) => {
                    saved.moved += moved;
                    // Each manifest says its own tag; what is told is of the first.
                    saved.digest.get_or_insert(manifest.digest);
                    saved.manifest_bytes.get_or_insert(manifest.bytes.len() as u64);
                    saved.names.push(name.clone());
                }
                Err(cause) => unsaved.push(Unsaved { name: name.clone(), cause }),
            }
        }
        if unsaved.is_empty() { Ok(saved) } else { Err(ImagesError::Unsaved { saved, unsaved }) }
    }
}

/// Of the layers of images, what a layout does not seem to have.
pub(super) fn missing_bytes<'a>(directory: &Path, images: impl IntoIterator<Item = &'a Image>) -> u64 {
    let layers = images.into_iter().flat_map(|image| &image.layers);
    let layers: BTreeMap<&Digest, &Layer> = layers.map(|layer| (&layer.digest, layer)).collect();
    layers.values().filter(|layer| !has_blob(directory, layer)).map(|layer| layer.size).sum()
}

/// Whether a layout seems to have a layer's blob.
pub(super) fn has_blob(directory: &Path, layer: &Layer) -> bool {
    let blob = directory.join("blobs/sha256").join(layer.digest.hex());
    blob.metadata().is_ok_and(|blob| blob.is_file() && blob.len() == layer.size)
}

/// Whether what is there is wrong, as opposed to not being reachable.
pub(super) fn is_damage(error: &LayoutError) -> bool {
    match error {
        LayoutError::Io { cause, .. } => cause.kind() == io::ErrorKind::NotFound,
        LayoutError::DiskFull { .. } | LayoutError::Busy { .. } | LayoutError::Cancelled { .. } => false,
        LayoutError::Missing { .. }
        | LayoutError::NotALayout { .. }
        | LayoutError::Invalid { .. }
        | LayoutError::WrongDigest { .. }
        | LayoutError::WrongSize { .. }
        | LayoutError::UnreadableBlob { .. }
        | LayoutError::NotHere { .. }
        | LayoutError::NoSuchImage { .. }
        | LayoutError::Ambiguous { .. } => true,
    }
}

#[cfg(test)]
mod tests;
