//! `--cache-image`: read before the build where the store knows nothing of the image, written
//! after it. Whatever is wrong with it, the image is made.

use wapack_runtime::cnb::target::Target;
use wapack_runtime::images::is_stream;
use wapack_runtime::lifecycle::{BuiltImage, CacheRequest, CachedImage, write_cache};
use wapack_runtime::oci::reference::{Reference, Repository};
use wapack_runtime::phase::restore::CacheImage;
use wapack_runtime::text::harmless;

use super::destination::{Destination, is_one, same_path};
use super::{Job, TENANT, run_image};
use crate::args::BuildArguments;
use crate::failure::{Failure, InputError};
use crate::images::{Opened, Places};
use crate::moved;
use crate::output::Output;
use crate::place::Place;

/// Where the cache image is.
pub(super) struct CacheImagePlace(Place);

/// The same, opened for one system.
pub(super) struct Cached {
    opened: Opened,
    shown: String,
}

impl CacheImagePlace {
    /// The place that was named, if one was.
    pub(super) fn choose(
        arguments: &BuildArguments,
        destination: &Destination,
    ) -> Result<Option<Self>, Failure> {
        let Some(value) = arguments.earlier.cache_image.as_deref() else { return Ok(None) };
        let shown = || value.to_string_lossy().escape_debug().to_string();
        let place = Place::of_image(value).filter(|place| !place.name().is_empty());
        let is_kept = |place: &Place| match place {
            // What is written gets its digest from what is in it.
            Place::Registry { .. } => {
                place.name().parse::<Reference>().is_ok_and(|name| name.tag().is_some())
            }
            Place::Layout { .. } => true,
            Place::OciArchive { file, .. } => !is_stream(file),
            Place::DockerArchive { .. } | Place::Daemon { .. } => false,
        };
        let refused = || InputError::CacheImage { value: shown() };
        let place = place.filter(is_kept).ok_or_else(refused)?;
        let output = &destination.opened.place;
        let is_image = destination.names.iter().any(|name| is_one(&output.with_name(name), &place));
        // An archive is written as a whole.
        let is_archive = matches!(place, Place::OciArchive { .. }) && same_path(output.path(), place.path());
        if is_image || is_archive {
            return Err(InputError::CacheImageIsImage { value: shown() }.into());
        }
        let previous = arguments.earlier.previous_image.as_deref().and_then(Place::of_image);
        for input in [run_image::place(&arguments.run_image)?, previous].into_iter().flatten() {
            let is_archive =
                matches!(place, Place::OciArchive { .. }) && same_path(input.path(), place.path());
            if is_one(&input, &place) || is_archive {
                return Err(InputError::CacheImageIsInput { value: shown() }.into());
            }
        }
        Ok(Some(Self(place)))
    }

    /// Opens it; a place that cannot be opened is a warning.
    pub(super) fn open(&self, places: &Places, target: &Target, output: &mut Output) -> Option<Cached> {
        match places.open(self.0.clone(), Some(target)) {
            Ok(opened) => Some(Cached { opened, shown: self.0.to_string() }),
            Err(failure) => {
                self.warn("used", &failure, output);
                None
            }
        }
    }

    fn warn(&self, done: &str, error: &dyn std::error::Error, output: &mut Output) {
        let mut text = format!("the cache image `{}` is not {done}: {error}", self.0);
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        output.warning(&harmless(&text));
    }
}

impl Cached {
    pub(super) fn as_request(&self) -> CacheImage<'_> {
        CacheImage { images: &*self.opened.images, name: self.opened.place.name(), place: &self.shown }
    }
}

impl Job<'_> {
    /// Writes the cache of what was built. Trouble is a warning, for the image is made (CAC-09).
    pub(super) fn write_cache(&self, place: &CacheImagePlace, built: &[BuiltImage], output: &mut Output) {
        let opened = match self.places.open(place.0.clone(), None) {
            Ok(opened) => opened,
            Err(failure) => return place.warn("written", &failure, output),
        };
        let published = self.published_beside(&place.0);
        let known_as: Vec<String> = self.parts.iter().map(|part| self.cached_as(part)).collect();
        let parts = self.parts.iter().zip(built).zip(&known_as);
        let images: Vec<CachedImage<'_>> = parts
            .map(|((part, built), image)| CachedImage {
                image,
                target: &part.run_image.target,
                layers: &built.exported.image.layers,
                published: published.as_ref(),
            })
            .collect();
        let request = CacheRequest {
            store: &self.app.store,
            tenant: TENANT,
            images: &images,
            to: &*opened.images,
            name: place.0.name(),
            cancel: self.cancel,
        };
        match write_cache(&request, output) {
            Ok(Some(saved)) => {
                let moved = moved::text(&saved.moved);
                output.note(&format!("cache image `{}` is written: {moved}", harmless(&place.0.to_string())));
            }
            Ok(None) => output.detail("there is nothing for the cache image"),
            Err(error) => place.warn("written", &error, output),
        }
    }

    /// The repository of the image, where that is on the registry of the cache.
    fn published_beside(&self, cache: &Place) -> Option<Repository> {
        let (Place::Registry { .. }, Place::Registry { .. }) = (&self.destination.opened.place, cache) else {
            return None;
        };
        let repository = |name: &str| name.parse::<Reference>().ok().map(|name| name.name().clone());
        let (image, cache) = (repository(self.destination.image())?, repository(cache.name())?);
        (image.registry() == cache.registry()).then_some(image)
    }
}
