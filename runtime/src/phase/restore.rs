//! What the last build of the image left for the buildpacks of this one.
//!
//! Nothing is copied or read here: layers stay where they are in the store, and
//! a buildpack that opens one gets it in place.

use crate::catalog::Buildpack;
use crate::event::{Event, EventSink};
use crate::phase::values::{Restored, RestoredBuildpack};
use crate::store::{CachedLayer, ImageCache};

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
