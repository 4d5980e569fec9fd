//! Who put a layer into an image.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::labels::Labels;
use crate::oci::image::Image;

/// Who made a layer, as the image's labels say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LayerOwner {
    /// The run image.
    Base,
    /// A buildpack, under a name of its own.
    Buildpack { buildpack: String, layer: String },
    /// The app, a part of it that a buildpack set apart; counted from 1.
    Slice { number: usize },
    /// The app, or what its slices leave of it.
    App,
    /// The program that starts processes.
    Launcher,
    /// What the launcher reads.
    Config,
    /// Bills of materials.
    Sbom,
    /// Links by which the launcher is started.
    ProcessTypes,
    /// Nobody says.
    Unknown,
}

impl fmt::Display for LayerOwner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base => formatter.write_str("base"),
            Self::Buildpack { buildpack, layer } => write!(formatter, "{buildpack}:{layer}"),
            Self::Slice { number } => write!(formatter, "app slice {number}"),
            Self::App => formatter.write_str("app"),
            Self::Launcher => formatter.write_str("launcher"),
            Self::Config => formatter.write_str("launcher config"),
            Self::Sbom => formatter.write_str("sbom"),
            Self::ProcessTypes => formatter.write_str("process types"),
            Self::Unknown => formatter.write_str("unknown"),
        }
    }
}

/// The owner of each layer of `image`, first to last, and how many are the base's.
///
/// Everything up to the top layer of the run image is the base's; where the label does
/// not name it, everything up to the first layer that somebody made.
pub(super) fn owners(image: &Image, labels: &Labels) -> (Vec<LayerOwner>, usize) {
    let makers = makers(labels);
    let diff_ids: Vec<&str> = image.layers.iter().map(|layer| layer.diff_id.0.as_str()).collect();
    let top = labels.lifecycle.run_image.top_layer.as_str();
    let of_base = match top {
        "" => diff_ids.iter().position(|id| makers.contains_key(id)).unwrap_or_default(),
        top => diff_ids.iter().position(|id| *id == top).map_or(0, |index| index + 1),
    };
    let owner = |(index, id): (usize, &&str)| {
        if index < of_base {
            return LayerOwner::Base;
        }
        makers.get(id).cloned().unwrap_or(LayerOwner::Unknown)
    };
    (diff_ids.iter().enumerate().map(owner).collect(), of_base)
}

/// Who made a layer, by its diff id.
fn makers<'l>(labels: &'l Labels) -> BTreeMap<&'l str, LayerOwner> {
    let metadata = &labels.lifecycle;
    let mut makers = BTreeMap::new();
    let mut note = |sha: &'l str, owner| {
        if !sha.is_empty() {
            makers.insert(sha, owner);
        }
    };
    for buildpack in &metadata.buildpacks {
        for (layer, record) in &buildpack.layers {
            let owner = LayerOwner::Buildpack { buildpack: buildpack.key.clone(), layer: layer.clone() };
            note(record.sha.as_str(), owner);
        }
    }
    let slices = metadata.app.len().saturating_sub(1);
    for (index, app) in metadata.app.iter().enumerate() {
        let owner = if index < slices { LayerOwner::Slice { number: index + 1 } } else { LayerOwner::App };
        note(app.sha.as_str(), owner);
    }
    for (record, owner) in [
        (&metadata.launcher, LayerOwner::Launcher),
        (&metadata.config, LayerOwner::Config),
        (&metadata.sbom, LayerOwner::Sbom),
    ] {
        note(record.as_ref().map_or("", |record| record.sha.as_str()), owner);
    }
    note(metadata.process_types.sha.as_str(), LayerOwner::ProcessTypes);
    makers
}
