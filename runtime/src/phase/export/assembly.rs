//! Base and new layers become one image.

use super::work::Finished;
use crate::oci::image::{History, Image, ImageConfiguration, Layer, MediaFamily, timestamp};
use crate::oci::layer::MODIFIED_SECONDS;

/// What new layers are put upon.
pub(super) struct Foundation {
    pub family: MediaFamily,
    /// Of the whole image, but for layers and history.
    pub configuration: ImageConfiguration,
    /// Of the base.
    pub layers: Vec<Layer>,
}

/// Whether the history says what made a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HistoryLines {
    Kept,
    /// One entry for each layer, with nothing but the time: before Platform API 0.12.
    Blank,
}

/// Puts base and new layers together.
///
/// # Spec
/// IMG-06, IMG-07.
pub(super) fn assemble(
    base: Foundation,
    finished: Vec<Finished>,
    created: Option<u64>,
    lines: HistoryLines,
) -> Image {
    let created = timestamp(created.unwrap_or(MODIFIED_SECONDS));
    let Foundation { family, mut configuration, mut layers } = base;
    configuration.history.retain(|entry| !entry.empty_layer);
    if configuration.history.len() != layers.len() {
        configuration.history = vec![History::default(); layers.len()];
    }
    for Finished { layer, created_by } in finished {
        configuration.rootfs.diff_ids.push(layer.diff_id.clone());
        configuration.history.push(History { created_by: Some(created_by), ..History::default() });
        layers.push(layer);
    }
    if lines == HistoryLines::Blank {
        configuration.history.fill(History::default());
    }
    for entry in &mut configuration.history {
        entry.created = Some(created.clone());
    }
    configuration.created = Some(created);
    for gone in ["docker_version", "container"] {
        configuration.other.remove(gone);
    }
    Image { family, configuration, layers }
}
