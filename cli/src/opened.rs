//! An image that was found, and its layers.

use std::io::{self, Read};
use std::path::Path;

use wapack_runtime::inspection::ImageView;
use wapack_runtime::oci::compression::decompress;
use wapack_runtime::oci::digest::{DiffId, Digest};
use wapack_runtime::oci::image::Image;
use wapack_runtime::oci::layout::read_image;

use crate::failure::Failure;
use crate::place::LayoutPlace;

/// An image that can be looked into.
pub(crate) struct OpenedImage {
    pub(crate) image: Image,
    /// Of its manifest, where it has one.
    pub(crate) digest: Option<Digest>,
    /// What it is called where it is.
    pub(crate) name: Option<String>,
    /// The layout it is in.
    pub(crate) layout: std::path::PathBuf,
}

impl OpenedImage {
    /// Finds the image at `place`; no layer is read.
    pub(crate) fn open(place: &LayoutPlace) -> Result<Self, Failure> {
        let found = read_image(&place.directory, place.reference.as_deref(), None)?;
        Ok(Self {
            image: found.image,
            digest: Some(found.digest),
            name: found.reference,
            layout: found.directory,
        })
    }

    /// What its configuration and labels say.
    pub(crate) fn view(&self) -> ImageView {
        ImageView { image_name: self.name.clone(), ..ImageView::of(&self.image, self.digest.as_ref()) }
    }

    /// The uncompressed tar of a layer.
    pub(crate) fn layer(
        &self,
        diff_id: &DiffId,
    ) -> Result<Box<dyn Read>, Box<dyn std::error::Error + Send + Sync>> {
        let layer = self.image.layers.iter().find(|layer| layer.diff_id == *diff_id);
        let file = layer.and_then(|layer| layer.file()).ok_or(io::ErrorKind::NotFound)?;
        Ok(decompress(open_file(file)?)?)
    }

    /// Whether a layer can be read without fetching it.
    pub(crate) fn is_here(&self, diff_id: &str) -> bool {
        self.image.layers.iter().any(|layer| layer.diff_id.0.as_str() == diff_id && layer.is_here())
    }
}

fn open_file(path: &Path) -> io::Result<fs_err::File> {
    fs_err::File::open(path)
}
