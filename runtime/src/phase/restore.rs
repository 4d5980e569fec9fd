//! What the last build of the image left for the buildpacks of this one.
//!
//! From the store nothing is copied or read: layers stay where they are, and a
//! buildpack that opens one gets it in place. Where the store knows nothing of
//! the image, an earlier image tells what it can.

mod cache_image;
mod previous;

pub use self::cache_image::{Imported, import};
pub use self::previous::{LAYERS_LABEL, note_layer_keys};

use crate::cancel::Cancel;
use crate::catalog::Buildpack;
use crate::cnb::id::ExecEnv;
use crate::cnb::target::Target;
use crate::event::{Event, EventSink};
use crate::images::Images;
use crate::oci::encoder::Encoding;
use crate::phase::values::{Restored, RestoredBuildpack};
use crate::store::{CachedLayer, ImageCache, Store};

/// Where an earlier image may be.
#[derive(Clone, Copy)]
pub struct PreviousImage<'a> {
    pub images: &'a dyn Images,
    /// As the place writes it.
    pub name: &'a str,
    /// Place and name for people.
    pub place: &'a str,
    /// Whether somebody named it; then it is said aloud when it is of no use.
    pub is_asked_for: bool,
}

/// Where the layers of an earlier build are, for machines that have none of their own.
#[derive(Clone, Copy)]
pub struct CacheImage<'a> {
    pub images: &'a dyn Images,
    /// As the place writes it.
    pub name: &'a str,
    /// Place and name for people.
    pub place: &'a str,
}

/// What restoring depends on besides the store's record.
#[derive(Clone, Copy)]
pub struct RestoreRequest<'a> {
    pub group: &'a [&'a Buildpack],
    pub previous: Option<PreviousImage<'a>>,
    pub target: &'a Target,
    pub exec_env: &'a ExecEnv,
    pub store: &'a Store,
    /// How layers of the image will be compressed; blobs that are not cannot be taken over.
    pub encoding: Encoding,
    /// How files look in the image that is to be made. Blobs of another form are of no
    /// use; contents and what was said of them are.
    pub form: &'a str,
    /// How they looked in the last one, as far as it is known.
    pub last_form: Option<&'a str>,
    /// Whether what the store has came from a cache image. Then it has no layers that are
    /// in the app's image only.
    pub is_imported: bool,
    pub cancel: &'a Cancel,
}

/// Looks up the layers and stores of the group.
///
/// # Spec
/// Restore table in 5.3 (LYR-12, LYR-13): a layer that is `build` but not
/// `cache` leaves nothing; contents come from the cache only. STO-01, STO-03.
/// Without a cache the metadata of pure launch layers is still restored (RST-09).
pub fn restore(request: &RestoreRequest<'_>, cache: &ImageCache<'_>, events: &mut dyn EventSink) -> Restored {
    if cache.is_empty() {
        return previous::restore(request, events);
    }
    let mut restored = Restored::default();
    let has_other_form = request.last_form != Some(request.form);
    for buildpack in request.group {
        let id = &buildpack.reference.id;
        let mut layers: Vec<CachedLayer> =
            cache.layers(id).into_iter().filter(|layer| layer.types.cache || !layer.types.build).collect();
        if has_other_form {
            for layer in &mut layers {
                layer.exported = None;
            }
        }
        for layer in &layers {
            events.event(Event::LayerRestored {
                buildpack: buildpack.reference.clone(),
                layer: layer.name.to_string(),
            });
        }
        let store = cache.store_toml(id);
        let version = cache.version(id);
        restored.buildpacks.insert(id.clone(), RestoredBuildpack { layers, store, version });
    }
    if request.is_imported {
        add(&mut restored, previous::restore(request, events));
    }
    restored
}

/// Adds what the image alone tells.
fn add(restored: &mut Restored, previous: Restored) {
    for (id, previous) in previous.buildpacks {
        let known = restored.buildpacks.entry(id).or_default();
        known.layers.extend(previous.layers);
        known.layers.sort_by(|left, right| left.name.cmp(&right.name));
        known.layers.dedup_by(|left, right| left.name == right.name);
        known.store = known.store.take().or(previous.store);
        known.version = known.version.take().or(previous.version);
    }
}
