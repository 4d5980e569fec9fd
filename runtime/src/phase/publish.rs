//! The last step: a finished image goes to its place, under all its names.
//!
//! Knows no kind of place. Layers that are elsewhere are brought here only for a place
//! that needs their bytes.

use crate::cancel::Cancel;
use crate::event::{Event, EventSink};
use crate::images::{Images, ImagesError, SavedImage};
use crate::oci::blob::BlobStore;
use crate::oci::image::{Image, Layer};

/// What is to be saved, and where.
#[derive(Clone, Copy)]
pub struct PublishRequest<'a> {
    pub image: &'a Image,
    /// The place.
    pub to: &'a dyn Images,
    /// As the place writes them; at least one.
    pub names: &'a [String],
    /// Where the image's layers come from that are not on this machine.
    pub from: &'a [&'a dyn Images],
}

/// Saves an image.
///
/// # Errors
/// [`ImagesError`]; the names that are not saved lead where they led before.
pub fn publish(
    request: &PublishRequest<'_>,
    blobs: &dyn BlobStore,
    cancel: &Cancel,
    events: &mut dyn EventSink,
) -> Result<SavedImage, ImagesError> {
    let PublishRequest { image, to, names, from } = *request;
    let brought = bring(image, |layer| to.wanted(layer), from, blobs, cancel, events)?;
    let saved = match to.save(brought.as_ref().unwrap_or(image), names, blobs, cancel, events) {
        // What the place seemed to have is damaged there.
        Err(error) if error.is_not_here() => {
            let all = bring(image, |layer| !layer.is_here(), from, blobs, cancel, events)?;
            all.map_or(Err(error), |image| to.save(&image, names, blobs, cancel, events))
        }
        result => result,
    }?;
    warn(&saved, events);
    Ok(saved)
}

/// Images for several systems that are to be saved under one name.
#[derive(Clone, Copy)]
pub struct IndexRequest<'a> {
    /// One for each system.
    pub images: &'a [Image],
    /// The place.
    pub to: &'a dyn Images,
    /// As the place writes them; at least one.
    pub names: &'a [String],
    /// Where the images' layers come from that are not on this machine.
    pub from: &'a [&'a dyn Images],
}

/// Saves images, and an index that stands for them.
///
/// # Errors
/// [`ImagesError`]; the names that are not saved lead where they led before.
pub fn publish_index(
    request: &IndexRequest<'_>,
    blobs: &dyn BlobStore,
    cancel: &Cancel,
    events: &mut dyn EventSink,
) -> Result<SavedImage, ImagesError> {
    let IndexRequest { images, to, names, from } = *request;
    let all_brought = |wanted: &dyn Fn(&Layer) -> bool, events: &mut dyn EventSink| {
        let brought = images.iter().map(|image| {
            let brought = bring(image, wanted, from, blobs, cancel, events)?;
            Ok(brought.unwrap_or_else(|| image.clone()))
        });
        brought.collect::<Result<Vec<Image>, ImagesError>>()
    };
    let saved =
        match to.save_index(&all_brought(&|layer| to.wanted(layer), events)?, names, blobs, cancel, events) {
            // What the place seemed to have is damaged there.
            Err(error) if error.is_not_here() => {
                to.save_index(&all_brought(&|layer| !layer.is_here(), events)?, names, blobs, cancel, events)
            }
            result => result,
        }?;
    warn(&saved, events);
    Ok(saved)
}

fn warn(saved: &SavedImage, events: &mut dyn EventSink) {
    for message in saved.warnings() {
        events.event(Event::Warning { message });
    }
}

/// The image with those layers on this machine that are `wanted`; `None` when nothing is.
fn bring(
    image: &Image,
    wanted: impl Fn(&Layer) -> bool,
    from: &[&dyn Images],
    blobs: &dyn BlobStore,
    cancel: &Cancel,
    events: &mut dyn EventSink,
) -> Result<Option<Image>, ImagesError> {
    let places: Vec<usize> = (0..image.layers.len()).filter(|place| wanted(&image.layers[*place])).collect();
    if places.is_empty() {
        return Ok(None);
    }
    let mut layers: Vec<Layer> = places.iter().map(|place| image.layers[*place].clone()).collect();
    for source in from {
        source.fetch(&mut layers, blobs, cancel, events)?;
    }
    let mut image = image.clone();
    for (place, layer) in places.into_iter().zip(layers) {
        image.layers[place] = layer;
    }
    Ok(Some(image))
}

#[cfg(test)]
mod tests;
