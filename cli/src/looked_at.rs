//! An image that is looked into, wherever it is.

use std::io::Read;

use wapack_runtime::images::{Cause, FoundImage, ImagesError};
use wapack_runtime::inspection::ImageView;
use wapack_runtime::oci::digest::{DiffId, Digest};
use wapack_runtime::oci::referrer::Referrer;

use crate::failure::Failure;
use crate::images::{Opened, Places};

/// An image and the place it was found in.
pub(crate) struct LookedAt {
    pub(crate) found: FoundImage,
    opened: Opened,
}

impl LookedAt {
    /// Finds the image that `opened` names; no layer is read.
    pub(crate) fn find(opened: Opened, places: &Places) -> Result<Self, Failure> {
        Ok(Self { found: opened.find(places)?, opened })
    }

    /// Of its manifest; engines have none.
    pub(crate) fn digest(&self) -> Option<Digest> {
        if self.opened.images.is_daemon() {
            return None;
        }
        let reference = &self.found.reference;
        reference.rsplit('@').next().and_then(|digest| digest.parse().ok())
    }

    /// What its configuration and labels say.
    ///
    /// # Errors
    /// When it cannot be found out what else the image's name stands for.
    pub(crate) fn view(&self) -> Result<ImageView, Failure> {
        let view = ImageView::of(&self.found.image, self.digest().as_ref());
        let name = self.opened.place.name();
        Ok(ImageView {
            systems: self.opened.images.systems(name)?,
            image_name: (!name.is_empty()).then(|| name.to_owned()),
            image_id: self.opened.images.is_daemon().then(|| self.found.reference.clone()),
            ..view
        })
    }

    /// The uncompressed tar of a layer, fetched if it has to be; not verified.
    pub(crate) fn layer(&self, diff_id: &DiffId) -> Result<Box<dyn Read>, Cause> {
        Ok(self.opened.images.layer(&self.found, diff_id)?)
    }

    /// What is attached to it.
    pub(crate) fn attached(&self) -> Result<Vec<Referrer>, Failure> {
        match (self.opened.images.attachments(), self.digest()) {
            (Some(keeper), Some(digest)) => Ok(keeper.attached(&digest, self.opened.place.name())?),
            _ => Ok(Vec::new()),
        }
    }

    /// The document of something attached.
    pub(crate) fn attachment(&self, referrer: &Referrer) -> Result<Vec<u8>, Failure> {
        let name = self.opened.place.name();
        let keeper = self.opened.images.attachments();
        let keeper = keeper.ok_or_else(|| ImagesError::NoAttachments { name: name.to_owned() })?;
        Ok(keeper.attachment(referrer, name)?)
    }

    /// Whether a layer can be read without fetching it.
    pub(crate) fn is_here(&self, diff_id: &str) -> bool {
        let mut layers = self.found.image.layers.iter();
        layers.any(|layer| layer.diff_id.0.as_str() == diff_id && layer.is_here())
    }
}
