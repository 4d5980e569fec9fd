//! An image that is looked into, wherever it is.

use std::io::Read;

use wapack_runtime::images::{Cause, FoundImage};
use wapack_runtime::inspection::ImageView;
use wapack_runtime::oci::digest::{DiffId, Digest};

use crate::failure::Failure;
use crate::images::Opened;

/// An image and the place it was found in.
pub(crate) struct LookedAt {
    pub(crate) found: FoundImage,
    opened: Opened,
}

impl LookedAt {
    /// Finds the image that `opened` names; no layer is read.
    pub(crate) fn find(opened: Opened) -> Result<Self, Failure> {
        Ok(Self { found: opened.find()?, opened })
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
    pub(crate) fn view(&self) -> ImageView {
        let view = ImageView::of(&self.found.image, self.digest().as_ref());
        let name = self.opened.place.name();
        ImageView {
            image_name: (!name.is_empty()).then(|| name.to_owned()),
            image_id: self.opened.images.is_daemon().then(|| self.found.reference.clone()),
            ..view
        }
    }

    /// The uncompressed tar of a layer, fetched if it has to be; not verified.
    pub(crate) fn layer(&self, diff_id: &DiffId) -> Result<Box<dyn Read>, Cause> {
        Ok(self.opened.images.layer(&self.found, diff_id)?)
    }

    /// Whether a layer can be read without fetching it.
    pub(crate) fn is_here(&self, diff_id: &str) -> bool {
        let mut layers = self.found.image.layers.iter();
        layers.any(|layer| layer.diff_id.0.as_str() == diff_id && layer.is_here())
    }
}
