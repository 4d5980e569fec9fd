//! Images of one layout that have names in it: `oci:DIR:NAME`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::fs::Access;

use super::attachments::{Attachments, attached_in, attachment_in};
use super::layout::{has_blob, is_damage, missing_bytes};
use super::telling::Telling;
use super::{FoundImage, Images, ImagesError, SavedImage, Saving, layer_of};
use crate::cancel::Cancel;
use crate::cnb::target::Target;
use crate::event::EventSink;
use crate::oci::blob::BlobStore;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{Document, Image, Layer, MediaFamily, index_document};
use crate::oci::layout::{
    ImageLayout, KeepGoing, LayoutError, LayoutImage, Placed, Placing, Platform, image_names, image_systems,
    read_image,
};
use crate::oci::referrer::{Attachment, Referrer};

/// How long another process may write to the same layout.
const PATIENCE: Duration = Duration::from_mins(1);

/// The images of one layout. An empty name is that of the only image.
///
/// # Spec
/// image-spec `image-layout.md`: names are `org.opencontainers.image.ref.name`.
#[derive(Debug, Clone)]
pub struct OciDirectory {
    directory: PathBuf,
    target: Option<Target>,
    unread: bool,
}

impl OciDirectory {
    /// The images of the layout in `directory`. Where a name has an image for each of
    /// several systems, it is the one for `target`.
    #[must_use]
    pub fn new(directory: PathBuf, target: Option<Target>) -> Self {
        Self { directory, target, unread: false }
    }

    /// Blobs that come from this very layout are not read again when they are saved.
    #[must_use]
    pub fn unread(self) -> Self {
        Self { unread: true, ..self }
    }

    /// The layout, waiting while another process writes to it.
    fn open(&self, cancel: &Cancel) -> Result<ImageLayout, LayoutError> {
        let started = Instant::now();
        loop {
            match ImageLayout::open(&self.directory) {
                Err(LayoutError::Busy { .. }) if started.elapsed() < PATIENCE && !cancel.is_cancelled() => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                result => return result,
            }
        }
    }

    fn placing<'a>(&self, reference: &'a str) -> Placing<'a> {
        Placing { reference, unread: self.unread, ..Placing::default() }
    }

    /// Does what `place` does for each of `names`, all of which lead to `document` then.
    fn place_as(
        &self,
        names: &[String],
        document: &Document,
        place: impl Fn(&ImageLayout, &Placing<'_>, KeepGoing<'_>) -> Result<Placed, LayoutError>,
        mut telling: Telling<'_>,
        cancel: &Cancel,
    ) -> Result<SavedImage, ImagesError> {
        let mut saving = Saving::default();
        let mut moved = None;
        for name in names {
            let mut keep_going = |bytes| {
                telling.add(bytes);
                !cancel.is_cancelled()
            };
            let result = self
                .open(cancel)
                .and_then(|layout| place(&layout, &self.placing(name), &mut keep_going))
                // A further name finds what the first one left.
                .map(|placed| moved = moved.or(Some(placed.moved)));
            saving.note(name, result.map_err(Into::into));
        }
        saving.finish(|names| SavedImage::of_document(names, document, moved.unwrap_or_default()))
    }

    fn check(&self) -> Result<(), LayoutError> {
        let directory = &self.directory;
        let failed = |cause| LayoutError::Io { directory: directory.clone(), cause };
        let there = directory.ancestors().find(|parent| parent.symlink_metadata().is_ok());
        // A relative directory that is not there would be made here.
        let there = there.filter(|there| !there.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !there.is_dir() {
            return Err(failed(std::io::ErrorKind::NotADirectory.into()));
        }
        rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|errno| failed(errno.into()))?;
        // Hidden files may be what a killed write left; a write knows its own.
        let is_hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
        let holds_something = fs::read_dir(directory)
            .is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| !is_hidden(&entry))));
        if holds_something && !directory.join("oci-layout").is_file() {
            return Err(LayoutError::NotALayout { directory: directory.clone() });
        }
        Ok(())
    }
}

/// The systems of a name in a layout or in an archive of one.
pub(super) fn systems(place: &Path, name: &str) -> Result<Vec<String>, ImagesError> {
    match image_systems(place, Some(name).filter(|name| !name.is_empty())) {
        Err(LayoutError::Missing { .. }) => Ok(vec![]),
        systems => systems
            .map_err(|error| ImagesError::Image { name: place.display().to_string(), source: error.into() }),
    }
}

/// The names of the images in a layout or in an archive of one.
pub(super) fn names(place: &Path) -> Result<Vec<String>, ImagesError> {
    match image_names(place) {
        Err(LayoutError::Missing { .. }) => Ok(vec![]),
        names => names
            .map_err(|error| ImagesError::Image { name: place.display().to_string(), source: error.into() }),
    }
}

/// Finds an image of a layout or of an archive of one.
pub(super) fn find(
    place: &Path,
    name: &str,
    target: Option<&Target>,
) -> Result<Option<FoundImage>, ImagesError> {
    let platform = target.map(|target| Platform {
        os: &target.os,
        architecture: &target.arch,
        variant: target.variant.as_deref().filter(|variant| !variant.is_empty()),
    });
    let shown = || if name.is_empty() { place.display().to_string() } else { name.to_owned() };
    match read_image(place, Some(name).filter(|name| !name.is_empty()), platform) {
        // Where it lies on this machine is no part of an image.
        Ok(LayoutImage { digest, image, .. }) => {
            Ok(Some(FoundImage { reference: digest.to_string(), image }))
        }
        Err(LayoutError::Missing { .. } | LayoutError::NoSuchImage { .. }) => Ok(None),
        Err(error) if is_damage(&error) => Err(ImagesError::Damaged { name: shown(), source: error.into() }),
        Err(error) => Err(ImagesError::Image { name: shown(), source: error.into() }),
    }
}

impl Images for OciDirectory {
    fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
        find(&self.directory, name, self.target.as_ref())
    }

    fn layer(&self, image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
        layer_of(image, diff_id)
    }

    fn systems(&self, name: &str) -> Result<Vec<String>, ImagesError> {
        systems(&self.directory, name)
    }

    fn names(&self) -> Result<Vec<String>, ImagesError> {
        names(&self.directory)
    }

    /// Makes nothing.
    fn check_write(&self, name: &str) -> Result<(), ImagesError> {
        self.check().map_err(|error| ImagesError::NotWritable { name: name.to_owned(), source: error.into() })
    }

    /// A layer whose blob the layout has already need not be anywhere else.
    fn wanted(&self, layer: &Layer) -> bool {
        !layer.is_here() && !has_blob(&self.directory, layer)
    }

    fn save(
        &self,
        image: &Image,
        names: &[String],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        let place = |layout: &ImageLayout, placing: &Placing<'_>, keep_going: KeepGoing<'_>| {
            layout.place(image, placing, blobs, keep_going)
        };
        let telling = Telling::new(missing_bytes(&self.directory, [image]), events);
        self.place_as(names, &image.documents().1, place, telling, cancel)
    }

    fn save_index(
        &self,
        images: &[Image],
        names: &[String],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        let place = |layout: &ImageLayout, placing: &Placing<'_>, keep_going: KeepGoing<'_>| {
            layout.place_index(images, placing, blobs, keep_going)
        };
        let telling = Telling::new(missing_bytes(&self.directory, images), events);
        self.place_as(names, &index_document(images), place, telling, cancel)
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

impl Attachments for OciDirectory {
    fn attach(
        &self,
        subject: &Document,
        name: &str,
        attachments: &[Attachment],
        cancel: &Cancel,
    ) -> Result<(), ImagesError> {
        self.open(cancel)
            .and_then(|layout| layout.attach(&subject.descriptor(), attachments))
            .map_err(|error| ImagesError::NotWritable { name: name.to_owned(), source: error.into() })
    }

    fn attached(&self, subject: &Digest, name: &str) -> Result<Vec<Referrer>, ImagesError> {
        attached_in(&self.directory, subject, name)
    }

    fn attachment(&self, referrer: &Referrer, name: &str) -> Result<Vec<u8>, ImagesError> {
        attachment_in(&self.directory, referrer, name)
    }

    fn can_attach(&self) -> bool {
        true
    }
}
