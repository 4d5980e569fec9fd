//! An image layout in one tar file: `oci-archive:FILE:NAME`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use super::archive::{ArchiveError, ArchiveFile, check_place, is_stream};
use super::attachments::{Attachments, attached_in, attachment_in};
use super::telling::Telling;
use super::{FoundImage, Images, ImagesError, SavedImage, Saving, fetch_parts, layer_of, oci_directory};
use crate::cancel::Cancel;
use crate::cnb::target::Target;
use crate::event::EventSink;
use crate::oci::blob::BlobStore;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{Document, Image, Layer, MediaFamily, index_document};
use crate::oci::layout::{LayoutFiles, NamedManifest, layout_files};
use crate::oci::moved::Moved;
use crate::oci::referrer::{Attachment, Referrer};

/// The images of an archive. An empty name is that of the only image. Nothing is
/// unpacked; whoever saves an image replaces the whole archive.
///
/// # Spec
/// image-spec `image-layout.md`, as a tar.
#[derive(Debug, Clone)]
pub struct OciArchive {
    file: PathBuf,
    target: Option<Target>,
}

impl OciArchive {
    /// The images of `file`. Where a name has an image for each of several systems, it
    /// is the one for `target`.
    #[must_use]
    pub fn new(file: PathBuf, target: Option<Target>) -> Self {
        Self { file, target }
    }

    /// Writes an archive with these images under each of `names`.
    fn write(
        &self,
        images: &[Image],
        top: &Document,
        names: &[String],
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<Moved, ArchiveError> {
        enum Blob<'a> {
            Document(Vec<u8>),
            Layer(&'a Layer),
        }
        let mut blobs: BTreeMap<Digest, Blob<'_>> = BTreeMap::new();
        for image in images {
            let (configuration, manifest) = image.documents();
            blobs.insert(configuration.digest, Blob::Document(configuration.bytes));
            blobs.insert(manifest.digest, Blob::Document(manifest.bytes));
            for layer in &image.layers {
                blobs.insert(layer.digest.clone(), Blob::Layer(layer));
            }
        }
        blobs.insert(top.digest.clone(), Blob::Document(top.bytes.clone()));
        let platform = (images.len() == 1).then(|| &images[0].configuration);
        let named: Vec<NamedManifest<'_>> =
            names.iter().map(|name| NamedManifest { document: top, name, platform }).collect();
        let LayoutFiles { documents, blobs: directory } = layout_files(&named);

        let bytes = |blob: &Blob<'_>| if let Blob::Layer(layer) = blob { layer.size } else { 0 };
        let telling = Telling::new(blobs.values().map(bytes).sum(), events);
        let mut archive = ArchiveFile::create(&self.file, cancel, telling)?;
        for (name, bytes) in documents {
            archive.document(name, &bytes)?;
        }
        archive.directory("blobs/")?;
        archive.directory(&format!("{directory}/"))?;
        for (digest, blob) in blobs {
            let name = format!("{directory}/{}", digest.hex());
            match blob {
                Blob::Document(bytes) => archive.document(&name, &bytes)?,
                Blob::Layer(layer) => archive.blob(&name, layer)?,
            }
        }
        archive.finish()
    }
}

impl OciArchive {
    /// Keeps images under names that all lead to `document`.
    fn save_as(
        &self,
        document: &Document,
        images: &[Image],
        names: &[String],
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        let result = self.write(images, document, names, cancel, events);
        let moved = result.as_ref().copied().unwrap_or_default();
        let mut saving = Saving::default();
        saving.note_all(names, result.map(drop).map_err(Into::into));
        saving.finish(|names| SavedImage::of_document(names, document, moved))
    }
}

impl Images for OciArchive {
    fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
        if !self.file.exists() || is_stream(&self.file) {
            return Ok(None);
        }
        oci_directory::find(&self.file, name, self.target.as_ref())
    }

    fn layer(&self, image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
        layer_of(image, diff_id)
    }

    fn fetch(
        &self,
        layers: &mut [Layer],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        _: &mut dyn EventSink,
    ) -> Result<(), ImagesError> {
        fetch_parts(layers, blobs, cancel)
    }

    fn systems(&self, name: &str) -> Result<Vec<String>, ImagesError> {
        if is_stream(&self.file) {
            return Ok(vec![]);
        }
        oci_directory::systems(&self.file, name)
    }

    fn names(&self) -> Result<Vec<String>, ImagesError> {
        if is_stream(&self.file) {
            return Ok(vec![]);
        }
        oci_directory::names(&self.file)
    }

    fn check_write(&self, name: &str) -> Result<(), ImagesError> {
        check_place(&self.file)
            .map_err(|error| ImagesError::NotWritable { name: name.to_owned(), source: error.into() })
    }

    /// All names or none: the archive is written in one step.
    fn save(
        &self,
        image: &Image,
        names: &[String],
        _: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        let (_, manifest) = image.documents();
        self.save_as(&manifest, std::slice::from_ref(image), names, cancel, events)
    }

    fn save_index(
        &self,
        images: &[Image],
        names: &[String],
        _: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        self.save_as(&index_document(images), images, names, cancel, events)
    }

    /// Skopeo and others see no image of Docker's types in a layout.
    fn family(&self) -> Option<MediaFamily> {
        Some(MediaFamily::Oci)
    }

    fn has_indexes(&self) -> bool {
        true
    }

    fn attachments(&self) -> Option<&dyn Attachments> {
        Some(self)
    }
}

impl Attachments for OciArchive {
    /// An archive is written as a whole, with its images.
    fn attach(&self, _: &Document, name: &str, _: &[Attachment], _: &Cancel) -> Result<(), ImagesError> {
        Err(ImagesError::NoAttachments { name: name.to_owned() })
    }

    fn attached(&self, subject: &Digest, name: &str) -> Result<Vec<Referrer>, ImagesError> {
        attached_in(&self.file, subject, name)
    }

    fn attachment(&self, referrer: &Referrer, name: &str) -> Result<Vec<u8>, ImagesError> {
        attachment_in(&self.file, referrer, name)
    }

    fn can_attach(&self) -> bool {
        false
    }
}
