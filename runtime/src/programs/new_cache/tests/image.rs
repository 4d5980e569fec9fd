//! Caches as images, in layouts, and in places that answer as they are told.

use std::io::Read;
use std::sync::Mutex;

use super::*;
use crate::images::{FoundImage, Images, ImagesError, LayoutImages, SavedImage};
use crate::oci::blob::BlobStore;
use crate::oci::image::Image;
use crate::programs::exporter::ScratchBlobs;
use crate::programs::last_cache::LastCache;

const NAME: &str = "registry.example/cache:1";
/// `head -c 1024 /dev/zero | sha256sum`: a tar with nothing in it.
const EMPTY_TAR: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

pub(super) fn place<'a>(caches: &'a dyn Images, name: &'a str, blobs: &'a dyn BlobStore) -> CacheImage<'a> {
    CacheImage { name, caches, blobs, app: &[], others: &[] }
}

impl Build {
    fn layouts(&self) -> LayoutImages {
        LayoutImages::new(self.path("images"), "amd64".to_owned())
    }

    pub(super) fn scratch(&self) -> ScratchBlobs {
        ScratchBlobs::new(self.root.path()).unwrap()
    }

    fn cache_image(&mut self, caches: &dyn Images, blobs: &dyn BlobStore) {
        self.cache_at(CachePlace::Image(place(caches, NAME, blobs)));
    }
}

pub(super) fn found(caches: &dyn Images, name: &str) -> Image {
    caches.find(name).unwrap().unwrap().image
}

fn label(image: &Image) -> CacheMetadata {
    let label = &image.configuration.config.labels["io.buildpacks.lifecycle.cache.metadata"];
    CacheMetadata::parse(label.as_bytes())
}

fn diff_ids(image: &Image) -> Vec<String> {
    image.configuration.rootfs.diff_ids.iter().map(ToString::to_string).collect()
}

#[test]
fn cac_06_an_image_with_the_document_as_a_label_and_a_layer_for_each() {
    let mut build = Build::new();
    build.layer("b", "cache", Some("one"));
    build.layer("a", "build launch cache", Some("two"));
    build.layer("launched", "launch", Some("three"));
    fs::create_dir_all(build.path("layers/sbom/cache/acme_node/a")).unwrap();
    fs::write(build.path("layers/sbom/cache/acme_node/a/sbom.cdx.json"), "{}").unwrap();
    let directory = build.cache();
    let caches = build.layouts();
    build.cache_image(&caches, &build.scratch());
    let image = found(&caches, NAME);
    assert_eq!(image.configuration.os, "linux");
    assert_eq!(label(&image), directory);
    let layers = &directory.buildpacks[0].layers;
    assert_eq!(diff_ids(&image), [&*layers["a"].sha, &layers["b"].sha, &directory.sbom.sha]);
    assert_eq!(image.configuration.history.len(), 3);
    // Whoever reads it finds the same tars.
    let last = LastCache::open(Some(&build.path("cache")), Some(NAME), &caches).unwrap();
    assert_eq!(last.metadata(), directory);
    for sha in diff_ids(&image) {
        let mut tar = Vec::new();
        last.layer(&sha.parse().unwrap()).unwrap().unwrap().read_to_end(&mut tar).unwrap();
        assert_eq!(tar, build.tar(&sha));
    }
    assert!(build.warnings.is_empty(), "{:?}", build.warnings);

    let mut nothing = Build::new();
    let caches = nothing.layouts();
    nothing.cache_image(&caches, &nothing.scratch());
    let image = found(&caches, NAME);
    assert_eq!(diff_ids(&image), [EMPTY_TAR]);
    assert_eq!(label(&image).buildpacks[0].layers.len(), 0);
}

#[test]
fn cac_08_what_is_used_again_is_there_once_and_not_compressed() {
    let mut build = Build::new();
    build.layer("same", "cache", Some("one"));
    build.layer("changed", "cache", Some("two"));
    fs::create_dir_all(build.path("layers/sbom/cache")).unwrap();
    fs::write(build.path("layers/sbom/cache/sbom"), "{}").unwrap();
    let caches = build.layouts();
    build.cache_image(&caches, &build.scratch());
    let before = found(&caches, NAME);
    // `()` has no room for anything that would be made.
    build.cache_image(&caches, &());
    assert!(build.warnings.is_empty(), "{:?}", build.warnings);
    assert_eq!(found(&caches, NAME), before);

    build.layer("changed", "cache", Some("another"));
    build.layer("new", "cache", Some("three"));
    build.cache_image(&caches, &build.scratch());
    let after = found(&caches, NAME);
    let ids = diff_ids(&after);
    assert_eq!(ids.len(), 4);
    let kept: Vec<_> = ids.iter().filter(|id| diff_ids(&before).contains(id)).collect();
    let layers = &label(&after).buildpacks[0].layers;
    assert_eq!(kept, [&layers["same"].sha, &label(&after).sbom.sha]);

    // CAC-04
    for name in ["changed", "same"] {
        fs::remove_file(build.path(&format!("layers/acme_node/{name}.toml"))).unwrap();
    }
    build.cache_image(&caches, &());
    assert_eq!(diff_ids(&found(&caches, NAME)).len(), 2);
    assert!(build.warnings.is_empty(), "{:?}", build.warnings);
}

/// What the app's image has just been made of is not compressed a second time.
#[test]
fn a_layer_of_the_app_is_not_compressed_again() {
    let mut build = Build::new();
    build.layer("both", "cache launch", Some("one"));
    let (caches, blobs) = (build.layouts(), build.scratch());
    build.cache_image(&caches, &blobs);
    let before = found(&caches, NAME);
    let id = build.group.buildpacks[0].id.clone();
    build.made.insert((id, "both".parse().unwrap()), before.layers[0].diff_id.clone());
    // It is not even read.
    fs::write(build.path("layers/acme_node/both/file"), "another").unwrap();
    build.cache_at(CachePlace::Image(place(&caches, "registry.example/cache:2", &blobs)));
    assert_eq!(found(&caches, "registry.example/cache:2").layers[0].digest, before.layers[0].digest);
}

/// Layouts, with something else about them.
struct Told {
    layouts: LayoutImages,
    is_daemon: bool,
    is_stuck: bool,
    error: Option<fn(String) -> ImagesError>,
    removed: Mutex<Vec<String>>,
}

impl Told {
    fn over(build: &Build) -> Self {
        let layouts = build.layouts();
        Self { layouts, is_daemon: false, is_stuck: false, error: None, removed: Mutex::default() }
    }
}

impl Images for Told {
    fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
        match self.error {
            Some(error) => Err(error(name.to_owned())),
            None => self.layouts.find(name),
        }
    }

    fn layer(&self, image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
        self.layouts.layer(image, diff_id)
    }

    fn check_write(&self, name: &str) -> Result<(), ImagesError> {
        self.layouts.check_write(name)
    }

    fn save(
        &self,
        image: &Image,
        names: &[String],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        self.layouts.save(image, names, blobs, cancel, events)
    }

    fn remove(&self, image: &FoundImage) -> Result<(), ImagesError> {
        self.removed.lock().unwrap().push(image.reference.clone());
        let name = image.reference.clone();
        if self.is_stuck { Err(ImagesError::Image { name, source: "405".into() }) } else { Ok(()) }
    }

    fn is_daemon(&self) -> bool {
        self.is_daemon
    }
}

#[test]
fn cac_07_a_daemon_is_no_place_for_a_cache() {
    let mut build = Build::new();
    build.layer("x", "cache", Some("one"));
    let caches = Told { is_daemon: true, ..Told::over(&build) };
    build.cache_image(&caches, &build.scratch());
    assert!(build.warnings[0].contains("cannot be in a daemon"), "{:?}", build.warnings);
    assert_eq!(caches.layouts.find(NAME).unwrap(), None);
    assert!(LastCache::open(None, Some(NAME), &caches).is_err());
}

#[test]
fn cac_07_the_last_one_is_removed_before_platform_0_13() {
    for (minor, is_stuck) in [(12, false), (12, true), (13, false), (15, false)] {
        let mut build = Build::new();
        build.api = PlatformApi::supported(crate::cnb::api::ApiVersion::zero(minor)).unwrap();
        build.layer("x", "cache", Some("one"));
        let caches = Told { is_stuck, ..Told::over(&build) };
        build.cache_image(&caches, &build.scratch());
        let first = caches.find(NAME).unwrap().unwrap().reference;
        // Nothing changed: it is still in use.
        build.cache_image(&caches, &build.scratch());
        assert!(caches.removed.lock().unwrap().is_empty(), "0.{minor}");
        build.layer("x", "cache", Some("another"));
        build.cache_image(&caches, &build.scratch());
        let expected = if minor == 12 { vec![first] } else { vec![] };
        assert_eq!(*caches.removed.lock().unwrap(), expected, "0.{minor}");
        assert_eq!(build.warnings.len(), usize::from(is_stuck), "{:?}", build.warnings);
    }
}

#[test]
fn cac_09_trouble_with_a_cache_image_is_a_warning() {
    let mut build = Build::new();
    build.layer("x", "cache", Some("one"));
    let unreachable: fn(String) -> ImagesError =
        |name| ImagesError::Image { name, source: "no answer".into() };
    let caches = Told { error: Some(unreachable), ..Told::over(&build) };
    build.cache_image(&caches, &build.scratch());
    assert!(build.warnings[0].contains("no answer"), "{:?}", build.warnings);
    assert_eq!(caches.layouts.find(NAME).unwrap(), None);

    // One that is damaged is as good as none.
    let damaged: fn(String) -> ImagesError =
        |name| ImagesError::Damaged { name, source: "no configuration".into() };
    let caches = Told { error: Some(damaged), ..Told::over(&build) };
    build.cache_image(&caches, &build.scratch());
    assert_eq!(found(&caches.layouts, NAME).layers.len(), 1);
    assert_eq!(build.warnings.len(), 1);

    // It does not take the place of the app.
    let app = ["registry.example/cache:1".to_owned()];
    let caches = build.layouts();
    build.layer("x", "cache", Some("another"));
    let before = found(&caches, NAME);
    let blobs = build.scratch();
    build.cache_at(CachePlace::Image(CacheImage { others: &app, ..place(&caches, NAME, &blobs) }));
    assert!(build.warnings[1].contains("the name of the image itself"), "{:?}", build.warnings);
    assert_eq!(found(&caches, NAME), before);
}

/// CAC-05: a layer of the last cache image whose blob is lost is made anew.
#[test]
fn cac_05_a_layer_that_a_layout_lost_is_made_anew() {
    let mut build = Build::new();
    build.layer("x", "cache", Some("one"));
    let caches = build.layouts();
    build.cache_image(&caches, &build.scratch());
    let before = found(&caches, NAME);
    fs::remove_file(before.layers[0].file().unwrap()).unwrap();
    build.cache_image(&caches, &build.scratch());
    let after = found(&caches, NAME);
    assert_eq!(after, before, "{:?}", build.warnings);
    assert_eq!(Digest::of(&fs::read(after.layers[0].file().unwrap()).unwrap()), after.layers[0].digest);
}
