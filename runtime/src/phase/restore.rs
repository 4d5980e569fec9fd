//! What the last build of the image left for the buildpacks of this one.
//!
//! Nothing is copied or read here: layers stay where they are in the store, and
//! a buildpack that opens one gets it in place.

use std::collections::BTreeMap;

use crate::catalog::Buildpack;
use crate::cnb::id::BuildpackId;
use crate::event::{Event, EventSink};
use crate::store::{CachedLayer, ImageCache};

/// What there is to use again, by buildpack.
#[derive(Debug, Default)]
pub struct Restored {
    buildpacks: BTreeMap<BuildpackId, RestoredBuildpack>,
}

/// What one buildpack left.
#[derive(Debug, Default)]
pub struct RestoredBuildpack {
    /// Sorted by name.
    pub layers: Vec<CachedLayer>,
    /// TOML text of `store.toml`.
    pub store: Option<String>,
}

impl Restored {
    /// What `buildpack` left; nothing when it never took part.
    pub fn take(&mut self, buildpack: &BuildpackId) -> RestoredBuildpack {
        self.buildpacks.remove(buildpack).unwrap_or_default()
    }
}

/// Looks up the layers and stores of `group`.
///
/// # Spec
/// Restore table in 5.3 (LYR-12, LYR-13): a layer that is `build` but not
/// `cache` leaves nothing; contents come from the cache only. STO-01, STO-03.
pub fn restore(group: &[&Buildpack], cache: &ImageCache<'_>, events: &mut dyn EventSink) -> Restored {
    let mut restored = Restored::default();
    for buildpack in group {
        let id = &buildpack.reference.id;
        let layers: Vec<CachedLayer> =
            cache.layers(id).into_iter().filter(|layer| layer.types.cache || !layer.types.build).collect();
        for layer in &layers {
            events.event(Event::LayerRestored {
                buildpack: buildpack.reference.clone(),
                layer: layer.name.to_string(),
            });
        }
        let store = cache.store_toml(id);
        restored.buildpacks.insert(id.clone(), RestoredBuildpack { layers, store });
    }
    restored
}
