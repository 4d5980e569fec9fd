//! Images that a test says there are.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::{FoundImage, Images, ImagesError, SavedImage};
use crate::cancel::Cancel;
use crate::event::EventSink;
use crate::oci::blob::BlobStore;
use crate::oci::digest::DiffId;
use crate::oci::image::{Image, ImageConfiguration, MediaFamily};

/// Images by name, and layers that any of them has; nothing can be saved.
#[derive(Default)]
pub(crate) struct FixedImages {
    pub(crate) images: BTreeMap<String, ImageConfiguration>,
    /// Uncompressed tars.
    pub(crate) layers: BTreeMap<DiffId, Vec<u8>>,
    pub(crate) damaged: Vec<String>,
    pub(crate) unreachable: Vec<String>,
    pub(crate) read_only: Vec<String>,
    pub(crate) is_daemon: bool,
    /// No layer is given before so many were asked for.
    pub(crate) given_together: usize,
    pub(crate) read: Mutex<Vec<DiffId>>,
    pub(crate) was_read: Condvar,
}

impl FixedImages {
    /// Images of these names, for `arm64`, with no label.
    pub(crate) fn named(names: &[&str]) -> Self {
        let image = |name: &&str| ((*name).to_owned(), arm64_image(&Value::Null));
        Self { images: names.iter().map(image).collect(), ..Self::default() }
    }

    /// The layers that were asked for so far, those that there are not with them, sorted.
    pub(crate) fn layers_read(&self) -> Vec<DiffId> {
        let mut read = self.read.lock().unwrap().clone();
        read.sort();
        read
    }
}

/// The configuration of an image without layers.
pub(crate) fn arm64_image(labels: &Value) -> ImageConfiguration {
    serde_json::from_value(serde_json::json!({
        "architecture": "arm64", "os": "linux", "variant": "v8", "config": { "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": [] }
    }))
    .unwrap()
}

impl Images for FixedImages {
    fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
        let has = |names: &[String]| names.iter().any(|other| other == name);
        if has(&self.damaged) {
            return Err(ImagesError::Damaged { name: name.to_owned(), source: "no configuration".into() });
        }
        if has(&self.unreachable) {
            return Err(ImagesError::Image { name: name.to_owned(), source: "no answer".into() });
        }
        Ok(self.images.get(name).map(|configuration| FoundImage {
            reference: format!("{name}@found"),
            image: Image { family: MediaFamily::Oci, configuration: configuration.clone(), layers: vec![] },
        }))
    }

    fn layer(&self, image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
        let mut read = self.read.lock().unwrap();
        read.push(diff_id.clone());
        self.was_read.notify_all();
        let is_alone = |read: &mut Vec<DiffId>| read.len() < self.given_together;
        let (read, waited) =
            self.was_read.wait_timeout_while(read, Duration::from_secs(20), is_alone).unwrap();
        drop(read);
        assert!(!waited.timed_out(), "the next one is only asked for when this one was given");
        match self.layers.get(diff_id) {
            Some(tar) => Ok(Box::new(Cursor::new(tar.clone()))),
            None => Err(ImagesError::NoLayer { image: image.reference.clone(), diff_id: diff_id.clone() }),
        }
    }

    fn check_write(&self, name: &str) -> Result<(), ImagesError> {
        if self.read_only.iter().any(|other| other == name) {
            return Err(ImagesError::NotWritable { name: name.to_owned(), source: "denied".into() });
        }
        Ok(())
    }

    fn save(
        &self,
        _: &Image,
        _: &[String],
        _: &dyn BlobStore,
        _: &Cancel,
        _: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        unreachable!("nothing is saved")
    }

    fn is_daemon(&self) -> bool {
        self.is_daemon
    }
}
