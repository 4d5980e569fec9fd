//! After the image is written: hands layers to the store for the next build.
//!
//! Trouble here never fails a build; the next one is slower.

use std::collections::BTreeMap;

use crate::cnb::id::{BuildpackId, LayerName};
use crate::oci::encoder::Encoding;
use crate::phase::values::{ExportedLayer, KeptContents, Outcome};
use crate::store::{
    BuildpackRecords, ExportedAs, ImageCache, ImageRecords, LayerRecord, StoreError, TreeSource,
};

/// Replaces what the store keeps for the image by what this build made, with layers
/// compressed as `encoding` says.
///
/// # Errors
/// [`StoreError`]; what was kept before stays.
pub fn keep(
    outcome: Outcome,
    exported: &[ExportedLayer],
    encoding: Encoding,
    cache: ImageCache<'_>,
) -> Result<(), StoreError> {
    let blobs: BTreeMap<(&BuildpackId, &LayerName), &ExportedLayer> =
        exported.iter().map(|layer| ((&layer.buildpack, &layer.name), layer)).collect();
    let mut records = ImageRecords::default();
    for buildpack in outcome.built.buildpacks {
        let version = Some(buildpack.reference.version.to_string());
        let entry = BuildpackRecords { version, store_toml: buildpack.store, layers: Vec::new() };
        records.buildpacks.insert(buildpack.reference.id, entry);
    }
    for (layer, kept) in outcome.built.layers.into_iter().zip(outcome.kept) {
        let types = layer.types;
        // A layer that only the build needed leaves nothing (5.3).
        if !types.cache && (types.build || !types.launch) {
            continue;
        }
        let exported = blobs.get(&(&layer.buildpack.id, &layer.name)).copied();
        let tree = match kept.contents {
            _ if !types.cache => TreeSource::None,
            KeptContents::Unchanged => TreeSource::Unchanged,
            KeptContents::Fresh(path) => TreeSource::Move(path),
            KeptContents::Nothing => TreeSource::None,
        };
        let record = LayerRecord {
            name: layer.name.clone(),
            types,
            cache_key: kept.cache_key,
            metadata: layer.metadata,
            environment: layer.environment,
            sboms: kept.sboms,
            artifacts: kept.artifacts,
            exported: exported.map(|layer| ExportedAs {
                diff_id: layer.diff_id.clone(),
                encoder: encoding.id(),
                features: layer.features,
            }),
            tree,
        };
        if let Some(buildpack) = records.buildpacks.get_mut(&layer.buildpack.id) {
            buildpack.layers.push(record);
        }
    }
    cache.commit(records)
}
