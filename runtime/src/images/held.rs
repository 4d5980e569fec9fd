//! Nowhere: for an image that becomes part of something before it goes to a place.

use std::io::Read;

use super::{FoundImage, Images, ImagesError, SavedImage};
use crate::cancel::Cancel;
use crate::event::EventSink;
use crate::oci::blob::BlobStore;
use crate::oci::digest::DiffId;
use crate::oci::image::{Image, Layer, MediaFamily};
use crate::oci::moved::Moved;

/// Has no images, and takes every one without keeping it: whoever made it still has it.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    family: Option<MediaFamily>,
}

impl Held {
    /// For an image that goes on to a place with this family of media types.
    #[must_use]
    pub fn new(family: Option<MediaFamily>) -> Self {
        Self { family }
    }
}

impl Images for Held {
    fn family(&self) -> Option<MediaFamily> {
        self.family
    }

    fn find(&self, _: &str) -> Result<Option<FoundImage>, ImagesError> {
        Ok(None)
    }

    fn layer(&self, image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
        Err(ImagesError::NoLayer { image: image.reference.clone(), diff_id: diff_id.clone() })
    }

    fn check_write(&self, _: &str) -> Result<(), ImagesError> {
        Ok(())
    }

    fn wanted(&self, _: &Layer) -> bool {
        false
    }

    fn save(
        &self,
        image: &Image,
        _: &[String],
        _: &dyn BlobStore,
        _: &Cancel,
        _: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        Ok(SavedImage::of_document(vec![], &image.documents().1, Moved::default()))
    }
}
