//! Documents that are attached to images: one seam for the places that can keep them.

use std::path::Path;

use super::ImagesError;
use crate::cancel::Cancel;
use crate::oci::digest::Digest;
use crate::oci::image::Document;
use crate::oci::layout::{LayoutError, read_attachment, referrers};
use crate::oci::referrer::{Attachment, Referrer};

/// Attaches documents to images, and finds them.
///
/// `name` is what an image was found by or saved as; a registry keeps what is attached
/// in the same repository.
pub trait Attachments {
    /// Attaches documents to an image that was saved here as `name`; `subject` is its
    /// manifest. What is attached already is not written again.
    ///
    /// # Errors
    /// When it cannot be written, or the place only reads such documents.
    fn attach(
        &self,
        subject: &Document,
        name: &str,
        attachments: &[Attachment],
        cancel: &Cancel,
    ) -> Result<(), ImagesError>;

    /// Lists what is attached to the image with this manifest, ours or not.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn attached(&self, subject: &Digest, name: &str) -> Result<Vec<Referrer>, ImagesError>;

    /// The document of something that was listed, verified.
    ///
    /// # Errors
    /// When it is not there, too large, or has other bytes.
    fn attachment(&self, referrer: &Referrer, name: &str) -> Result<Vec<u8>, ImagesError>;

    /// Whether documents can be attached, and not only be found.
    fn can_attach(&self) -> bool;
}

/// Lists what is attached in a layout or an archive of one.
pub(super) fn attached_in(place: &Path, subject: &Digest, name: &str) -> Result<Vec<Referrer>, ImagesError> {
    referrers(place, subject).map_err(|error| unreadable(name, error))
}

/// Reads a document of a layout or an archive of one.
pub(super) fn attachment_in(place: &Path, referrer: &Referrer, name: &str) -> Result<Vec<u8>, ImagesError> {
    read_attachment(place, referrer).map_err(|error| unreadable(name, error))
}

fn unreadable(name: &str, error: LayoutError) -> ImagesError {
    ImagesError::Image { name: name.to_owned(), source: error.into() }
}
