//! After an image is announced: what the store keeps of it goes into a cache image.

use crate::cancel::Cancel;
use crate::cnb::target::Target;
use crate::event::{Event, EventSink};
use crate::images::{Images, ImagesError, SavedImage};
use crate::oci::image::{BlobPlace, Image, Layer};
use crate::oci::reference::Repository;
use crate::phase::export::{CacheImageError, CacheImageRequest, cache_image};
use crate::store::Store;

/// What writing a cache image takes.
#[derive(Clone, Copy)]
pub struct CacheRequest<'a> {
    pub store: &'a Store,
    pub tenant: &'a str,
    /// The app's images that were built; at least one.
    pub images: &'a [CachedImage<'a>],
    /// The place of the cache image.
    pub to: &'a dyn Images,
    /// What it is called there.
    pub name: &'a str,
    pub cancel: &'a Cancel,
}

/// The app's image for one system.
#[derive(Clone, Copy)]
pub struct CachedImage<'a> {
    /// What the store knows it as.
    pub image: &'a str,
    pub target: &'a Target,
    pub layers: &'a [Layer],
    /// Where these layers are, if that is on the same registry as the cache.
    pub published: Option<&'a Repository>,
}

/// Why there is no new cache image.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error(transparent)]
    Make(#[from] CacheImageError),
    #[error(transparent)]
    Save(#[from] ImagesError),
}

/// Writes the cache: an image, or an index of one for each system. `None` when there is
/// nothing to cache.
///
/// # Errors
/// [`CacheError`]; the last cache image stays.
pub fn write_cache(
    request: &CacheRequest<'_>,
    events: &mut dyn EventSink,
) -> Result<Option<SavedImage>, CacheError> {
    let CacheRequest { store, tenant, to, cancel, .. } = *request;
    let mut made: Vec<Image> = Vec::new();
    for image in request.images {
        let there = |layer: &Layer| {
            let place = BlobPlace::Registry(image.published?.clone());
            Some(Layer { blob: place, ..layer.clone() })
        };
        let published: Vec<Layer> = image.layers.iter().filter_map(there).collect();
        let cache = store.image(tenant, image.image);
        let cache_request =
            CacheImageRequest { store, cache: &cache, target: image.target, published: &published };
        made.extend(cache_image(&cache_request, cancel)?);
    }
    let names = [request.name.to_owned()];
    let saved = match &made[..] {
        [] => return Ok(None),
        [only] => to.save(only, &names, store, cancel, events),
        several => to.save_index(several, &names, store, cancel, events),
    }?;
    for message in saved.warnings() {
        events.event(Event::Warning { message });
    }
    Ok(Some(saved))
}
