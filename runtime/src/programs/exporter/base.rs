//! What the image is built upon.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::cnb::analyzed_toml::AnalyzedRunImage;
use crate::images::{Images, ImagesError};
use crate::oci::image::{Image, Layer};
use crate::oci::layout::{LayoutError, read_image};

/// The run image, and what image extensions made of it.
pub(super) struct Base {
    pub reference: String,
    /// With the configuration of the extended image.
    pub image: Image,
    /// Each with its line of history.
    pub extension_layers: Vec<(Layer, String)>,
}

/// Why there is nothing to build upon.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    #[error(transparent)]
    Images(#[from] ImagesError),
    #[error("there is no run image `{reference}`")]
    Missing { reference: String },
    /// The run image was to be extended.
    #[error("there is not exactly one extended run image in `{}`", directory.display())]
    NotExtended { directory: PathBuf },
    #[error("the extended run image cannot be read")]
    Extended(#[from] LayoutError),
    /// A layer that an image extension made.
    #[error("layer `{diff_id}` of the extended run image is missing")]
    NoLayer { diff_id: String },
}

/// Finds the run image, and its extended form if there is one.
///
/// # Spec
/// EXP-01, EXP-03.
pub(super) fn find(
    run_image: &AnalyzedRunImage,
    extended: &Path,
    images: &dyn Images,
) -> Result<Base, BaseError> {
    let wanted = &run_image.reference;
    let found = images.find(wanted)?.ok_or_else(|| BaseError::Missing { reference: wanted.clone() })?;
    let mut base = Base { reference: found.reference, image: found.image, extension_layers: vec![] };
    if run_image.extend {
        extend(&mut base, &extended.join("run"))?;
    }
    Ok(base)
}

fn extend(base: &mut Base, directory: &Path) -> Result<(), BaseError> {
    let not_extended = || BaseError::NotExtended { directory: directory.to_owned() };
    let entries = fs::read_dir(directory).map_err(|_| not_extended())?;
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let [path] = &paths[..] else { return Err(not_extended()) };
    let extended = read_image(path, None, None)?.image;

    let history = extended.configuration.history.iter().filter(|entry| !entry.empty_layer);
    let mut lines = history.map(|entry| entry.created_by.clone().unwrap_or_default());
    for layer in extended.layers {
        let line = lines.next().unwrap_or_default();
        if base.image.layers.iter().any(|of_base| of_base.diff_id == layer.diff_id) {
            continue;
        }
        let media_type = base.image.family.layer_like(&layer.media_type);
        let Some(media_type) = media_type.filter(|_| layer.is_here()) else {
            return Err(BaseError::NoLayer { diff_id: layer.diff_id.to_string() });
        };
        base.extension_layers.push((Layer { media_type, ..layer }, line));
    }
    base.image.configuration.config = extended.configuration.config;
    Ok(())
}
