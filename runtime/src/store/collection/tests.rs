//! What goes and what stays.

mod beside;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Instant, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::cnb::id::BuildpackId;
use crate::cnb::layer::{LayerFeatures, LayerTypes};
use crate::cnb::sbom::{Sbom, SbomFormat};
use crate::integrity::Integrity;
use crate::oci::blob::{BlobStore as _, Notes as _};
use crate::oci::digest::DiffId;
use crate::store::{BuildpackRecords, CompiledKey, ExportedAs, ImageRecords, LayerRecord, TreeSource};

const ENCODER: &str = "none";
const LARGE: usize = 100_000;
const HOUR: u64 = 3600;

fn private() -> TempDir {
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

fn open(temp: &TempDir) -> Store {
    let (store, warnings) = Store::open(temp.path()).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    store
}

/// Ends a build. Another test of this process may start a child at this moment, which holds
/// locks of its parent for as long as it takes to start.
fn close(store: Store) {
    let root = store.root().to_owned();
    store.leases.take("closing");
    drop(store);
    let claims = Claims::new(&root).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !claims.take("closing", Wait::No).unwrap() {
        assert!(Instant::now() < end, "a lease outlives its store");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn id() -> BuildpackId {
    "acme/node".parse().unwrap()
}

/// As large as files that matter, and different for each name.
fn bytes(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(LARGE).collect()
}

fn diff_id(name: &str) -> DiffId {
    DiffId(Digest::of(&bytes(name)))
}

fn put_layer(store: &Store, name: &str) -> DiffId {
    let (bytes, diff_id) = (bytes(name), diff_id(name));
    let blob = store.create().unwrap();
    blob.file().write_all(&bytes).unwrap();
    store.commit(blob, &diff_id, ENCODER, &diff_id.0, bytes.len() as u64).unwrap();
    diff_id
}

fn has_layer(store: &Store, name: &str) -> bool {
    store.find(&diff_id(name), ENCODER).is_some()
}

/// One whole build of an image: a layer with its tree, blob and bill of materials.
fn build(store: &Store, image: &str, contents: &str) {
    let cache = store.image("local", image);
    let diff_id = put_layer(store, contents);
    let work = store.work_dir().unwrap();
    let path = work.path().join("layer");
    std::fs::create_dir_all(path.join("bin")).unwrap();
    std::fs::write(path.join("bin/file"), bytes(contents)).unwrap();
    let layer = LayerRecord {
        name: "node".parse().unwrap(),
        types: LayerTypes { launch: true, build: true, cache: true },
        cache_key: contents.to_owned(),
        metadata: String::new(),
        environment: vec![],
        sboms: vec![Sbom { format: SbomFormat::Spdx, content: b"of everybody".into() }],
        exported: Some(ExportedAs { diff_id, encoder: ENCODER.into(), features: LayerFeatures::default() }),
        artifacts: None,
        tree: TreeSource::Move(path),
    };
    let buildpack = BuildpackRecords { version: None, store_toml: None, layers: vec![layer] };
    cache.commit(ImageRecords { buildpacks: BTreeMap::from([(id(), buildpack)]) }).unwrap();
}

/// The contents of an image's layer, after reading all that is kept for it.
fn kept(store: &Store, image: &str) -> Option<String> {
    let cache = store.image("local", image);
    let layers = cache.layers(&id());
    let layer = layers.first()?;
    let name = layer.cache_key.clone();
    assert_eq!(std::fs::read(layer.tree.as_ref().unwrap().path.join("bin/file")).unwrap(), bytes(&name));
    if let Some((_, blob)) = &layer.exported {
        assert_eq!(std::fs::read(&blob.path).unwrap(), bytes(&name));
    }
    assert_eq!(layer.sboms[0].content, b"of everybody");
    Some(name)
}

/// Says that something was last used so long ago.
fn used(store: &Store, name: &str, seconds_ago: u64) {
    let path = store.root().join(name);
    let time = SystemTime::now() - Duration::from_secs(seconds_ago);
    std::fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn layer_used(store: &Store, name: &str, seconds_ago: u64) {
    used(store, &super::super::blobs::index_name(&diff_id(name), ENCODER), seconds_ago);
}

fn image_used(store: &Store, image: &str, seconds_ago: u64) {
    used(store, &format!("{}/record", image_directory("local", image)), seconds_ago);
}

fn files(store: &Store, directory: &str) -> usize {
    std::fs::read_dir(store.root().join(directory)).unwrap().count()
}

/// What is there on the disk, counted without the code that collects.
fn disk_bytes(store: &Store) -> u64 {
    fn below(path: &Path) -> u64 {
        let entries = std::fs::read_dir(path).unwrap().flatten();
        entries
            .map(|entry| {
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() { below(&entry.path()) } else { metadata.len() }
            })
            .sum()
    }
    below(store.root())
}

#[test]
fn the_least_recently_used_goes_first_and_no_more_than_has_to() {
    let temp = private();
    let store = open(&temp);
    for (name, hours) in [("c", 1), ("a", 3), ("d", 0), ("b", 2)] {
        put_layer(&store, name);
        layer_used(&store, name, hours * HOUR);
    }
    close(store);
    let store = open(&temp);
    let all = store.inventory().bytes();
    let collected = store.collect(&CollectionGoal::keep(all - LARGE as u64)).unwrap();
    assert_eq!((collected.pieces, collected.in_use), (1, 0));
    assert_eq!(collected.left_bytes, all - collected.freed_bytes);
    assert_eq!(store.inventory().bytes(), collected.left_bytes);
    assert_eq!(["a", "b", "c", "d"].map(|name| has_layer(&store, name)), [false, true, true, true]);
    // Used just now: `b` is not the oldest any more.
    close(store);
    let store = open(&temp);
    store.collect(&CollectionGoal::keep(all - 2 * LARGE as u64)).unwrap();
    assert_eq!(["b", "c", "d"].map(|name| has_layer(&store, name)).iter().filter(|there| **there).count(), 2);
    assert!(has_layer(&store, "b"), "what was used last has gone");
    assert_eq!(store.take_warnings(), Vec::<String>::new());
}

#[test]
fn what_was_not_used_for_long_goes_however_little_there_is() {
    let temp = private();
    let store = open(&temp);
    build(&store, "old", "old");
    build(&store, "new", "new");
    put_layer(&store, "app");
    image_used(&store, "old", 50 * HOUR);
    layer_used(&store, "app", 30 * HOUR);
    close(store);
    let store = open(&temp);
    let mut goal = CollectionGoal::keep(u64::MAX);
    assert_eq!(store.collect(&goal).unwrap().pieces, 0);
    goal.max_age = Some(Duration::from_secs(40 * HOUR));
    assert_eq!(store.collect(&goal).unwrap().pieces, 1);
    assert!(has_layer(&store, "app") && kept(&store, "old").is_none());
    assert_eq!(kept(&store, "new").as_deref(), Some("new"));
    assert_eq!(store.take_warnings(), Vec::<String>::new());
}

/// Everything of every kind goes, and the next build makes it again without a warning.
#[test]
fn nothing_is_left_when_nothing_is_to_be_left() {
    let temp = private();
    let store = open(&temp);
    build(&store, "shop", "one");
    store.keep_note("a", "b");
    store.put_compiled(&CompiledKey::new("component", "engine"), b"code").unwrap();
    store.put_compile_failure(&CompiledKey::new("other", "engine"), "why").unwrap();
    let fill = |directory: &Path| -> Result<(), StoreError> {
        std::fs::write(directory.join("order.toml"), bytes("builder")).unwrap();
        Ok(())
    };
    let builder = store.builder("sha256:b", fill).unwrap();
    // `printf 'hello\n' | sha256sum`
    let hello: Integrity =
        "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03".parse().unwrap();
    let scratch = store.downloads().claim(&hello).unwrap().unwrap();
    scratch.file().write_all(b"hello\n").unwrap();
    drop(scratch.finish(Some(&hello.values()[0])).unwrap());
    // Litter of every sort.
    std::fs::write(temp.path().join("index/strange"), "x").unwrap();
    std::fs::write(temp.path().join("blobs/sha256/strange"), "x").unwrap();
    std::fs::create_dir_all(temp.path().join("layers/x/y/trees/z/tree")).unwrap();
    close(store);

    let store = open(&temp);
    let collected = store.collect(&CollectionGoal::nothing()).unwrap();
    assert_eq!(collected.left_bytes, 0, "{:?}", store.inventory().pieces);
    assert!(!builder.exists());
    for directory in ["blobs/sha256", "index", "notes", "compiled", "builders", "downloads", "digests"] {
        assert_eq!(files(&store, directory), 0, "{directory}");
    }
    assert!(store.image("local", "shop").is_empty() && store.note("a").is_none());
    close(store);
    let store = open(&temp);
    assert_eq!(files(&store, "work"), 0);
    build(&store, "shop", "one");
    assert_eq!(kept(&store, "shop").as_deref(), Some("one"));
    assert_eq!(store.builder("sha256:b", fill).unwrap(), builder);
    assert_eq!(store.take_warnings(), Vec::<String>::new());
}

#[test]
fn what_nothing_refers_to_goes_after_a_while() {
    let temp = private();
    let store = open(&temp);
    let name = inventory::blob_name(&put_layer(&store, "lost").0);
    build(&store, "shop", "one");
    let index = super::super::blobs::index_name(&diff_id("lost"), ENCODER);
    std::fs::remove_file(temp.path().join(index)).unwrap();
    close(store);
    let store = open(&temp);
    let all = CollectionGoal::keep(u64::MAX);
    assert_eq!(store.collect(&all).unwrap().pieces, 0, "it may be about to be referred to");
    used(&store, &name, GRACE.as_secs() + 1);
    assert_eq!(store.collect(&all).unwrap().pieces, 1);
    assert!(!temp.path().join(name).exists());
    assert_eq!(kept(&store, "shop").as_deref(), Some("one"));
}

#[test]
fn one_image_is_cleared_without_what_others_have_too() {
    let temp = private();
    let store = open(&temp);
    build(&store, "one", "of one");
    build(&store, "two", "shared");
    build(&store, "three", "shared");
    close(store);
    let store = open(&temp);
    let usage = store.usage();
    assert_eq!(usage.images.len(), 3);
    assert!(usage.images.iter().all(|image| {
        let exactly = LARGE as u64..LARGE as u64 + 10 * 4096;
        exactly.contains(&image.layer_bytes) && image.tree_bytes >= LARGE as u64 && image.tenant == "local"
    }));
    assert_eq!(usage.kinds[&StoreKind::Layers].pieces, 2);
    assert_eq!(usage.kinds[&StoreKind::Documents].pieces, 1);
    assert_eq!(store.clear_image("local", "nobody's").unwrap(), None);
    // Its image and its layer; the document is everybody's.
    assert_eq!(store.clear_image("local", "one").unwrap().unwrap().pieces, 2);
    assert_eq!(store.clear_image("local", "two").unwrap().unwrap().pieces, 1);
    assert_eq!(kept(&store, "three").as_deref(), Some("shared"));
    assert!(store.image("local", "two").is_empty());
    // While somebody builds it, it stays.
    let collected = open(&temp).clear_image("local", "three").unwrap().unwrap();
    assert_eq!((collected.pieces, collected.in_use), (0, 2));
    close(store);
    let store = open(&temp);
    assert_eq!(store.clear_image("local", "three").unwrap().unwrap().pieces, 3);
    assert_eq!(store.usage().images, []);
    assert_eq!(files(&store, "blobs/sha256"), 0);
}

/// Looks, where there may be too much. As with [`close`], somebody else may seem to be at it.
fn keep_under(store: &Store, cap: u64) -> Collected {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(collected) = store.keep_under(cap).unwrap() {
            return collected;
        }
        assert!(Instant::now() < end, "nobody looks");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Under the cap nothing is looked at: neither a file's name nor its status.
#[test]
fn a_build_only_looks_when_there_may_be_too_much() {
    let temp = private();
    let cap = 10 * LARGE as u64;
    let store = open(&temp);
    put_layer(&store, "a");
    assert_eq!(keep_under(&store, cap).pieces, 0, "nobody knows how large it is");
    // A look would count this one.
    let planted = temp.path().join("downloads/planted");
    std::fs::write(&planted, vec![0; 20 * LARGE]).unwrap();
    used(&store, "downloads/planted", HOUR);
    for name in ["b", "c", "d", "e"] {
        let store = open(&temp);
        put_layer(&store, name);
        assert_eq!(store.keep_under(cap).unwrap(), None);
        close(store);
    }
    close(store);
    assert!(planted.exists());
    // Builds that end without asking count, too.
    for name in ["f", "g", "h"] {
        let store = open(&temp);
        put_layer(&store, name);
        close(store);
    }
    let store = open(&temp);
    for name in ["i", "j"] {
        put_layer(&store, name);
    }
    let collected = keep_under(&store, cap);
    assert!(!planted.exists());
    assert!(collected.left_bytes <= cap - cap / 10, "{collected:?}");
    assert!(has_layer(&store, "i") && has_layer(&store, "j"), "{collected:?}");
    // Another cap is another question.
    keep_under(&store, cap / 2);
    // All that is left is in use, or little: nobody looks again and again in vain.
    assert_eq!(store.keep_under(cap / 2).unwrap(), None);
    for damage in ["", "x", "1", "1 2\nx\n", "-1 2\n"] {
        std::fs::write(temp.path().join("size"), damage).unwrap();
        keep_under(&store, cap);
    }
}

/// "200 builds keep the disk flat"
#[test]
fn two_hundred_builds_of_a_changing_app_keep_the_disk_flat() {
    let temp = private();
    let cap = 20 * LARGE as u64;
    let mut most = 0;
    for number in 0..200 {
        let store = open(&temp);
        if number % 50 == 0 {
            build(&store, "shop", &format!("node {number}"));
        }
        assert!(kept(&store, "shop").is_some(), "what every build uses has gone after {number}");
        put_layer(&store, &format!("app {number}"));
        store.keep_under(cap).unwrap();
        assert!(has_layer(&store, &format!("app {number}")));
        most = most.max(disk_bytes(&store));
        assert_eq!(store.take_warnings(), Vec::<String>::new());
        close(store);
    }
    // A build leaves what it wrote, at most, above the cap.
    assert!(most <= cap + 3 * LARGE as u64, "{most} bytes");
    assert!(most > cap / 2, "{most} bytes: too much has gone");
}

/// K3: no directory can be made where things could be moved to.
#[test]
fn k3_collecting_needs_no_space() {
    let temp = private();
    let store = open(&temp);
    build(&store, "shop", "one");
    put_layer(&store, "app");
    close(store);
    let store = open(&temp);
    std::fs::remove_dir_all(temp.path().join("work")).unwrap();
    std::fs::write(temp.path().join("work"), "").unwrap();
    assert_eq!(store.collect(&CollectionGoal::nothing()).unwrap().left_bytes, 0);
    assert_eq!(files(&store, "blobs/sha256"), 0);
    close(store);
    let (store, _) = Store::open(temp.path()).unwrap();
    assert!(store.image("local", "shop").is_empty());
    build(&store, "shop", "one");
    assert_eq!(kept(&store, "shop").as_deref(), Some("one"));
}

/// A tree that a killed build left beside the one that its record has.
#[test]
fn a_tree_without_a_record_goes_and_its_neighbour_stays() {
    let temp = private();
    let store = open(&temp);
    build(&store, "shop", "one");
    let trees = format!("{}/trees", image_directory("local", "shop"));
    let lost = temp.path().join(&trees).join("lost");
    std::fs::create_dir_all(lost.join("tree/deep")).unwrap();
    used(&store, &format!("{trees}/lost"), HOUR);
    // Whoever builds the image now may be about to refer to it.
    assert_eq!(open(&temp).collect(&CollectionGoal::keep(u64::MAX)).unwrap().in_use, 1);
    assert!(lost.exists(), "it has gone from under a build");
    close(store);
    let store = open(&temp);
    assert_eq!(store.collect(&CollectionGoal::keep(u64::MAX)).unwrap().pieces, 1);
    assert!(!lost.exists());
    assert_eq!(kept(&store, "shop").as_deref(), Some("one"));
    std::fs::create_dir_all(&lost).unwrap();
    close(store);
    assert_eq!(open(&temp).collect(&CollectionGoal::nothing()).unwrap().left_bytes, 0);
}

/// K8: a clock that jumps changes the order, and nothing else.
#[test]
fn k8_times_from_another_age_do_no_harm() {
    let temp = private();
    let store = open(&temp);
    for name in ["past", "future", "now"] {
        put_layer(&store, name);
    }
    layer_used(&store, "past", SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 1000);
    let path = store.root().join(super::super::blobs::index_name(&diff_id("future"), ENCODER));
    let future = SystemTime::now() + Duration::from_secs(10 * 365 * 24 * HOUR);
    std::fs::File::open(path).unwrap().set_modified(future).unwrap();
    close(store);
    let store = open(&temp);
    let mut goal = CollectionGoal::keep(2 * LARGE as u64 + 50_000);
    goal.max_age = Some(Duration::from_secs(100 * 365 * 24 * HOUR));
    store.collect(&goal).unwrap();
    assert_eq!(["past", "future", "now"].map(|name| has_layer(&store, name)), [false, true, true]);
}

/// K8: the record of a program that noted less is one: what it leads to stays, and is used.
#[test]
fn k8_what_an_older_program_left_is_not_litter() {
    let temp = private();
    let store = open(&temp);
    build(&store, "shop", "one");
    let name = format!("{}/record", image_directory("local", "shop"));
    let mut record: serde_json::Value = store.read_record(&name).unwrap();
    let buildpack = &mut record["buildpacks"]["acme/node"];
    assert!(buildpack.as_object_mut().unwrap().remove("version").is_some());
    let layer = &mut buildpack["layers"]["node"];
    assert!(layer.as_object_mut().unwrap().remove("artifacts").is_some());
    assert!(layer["tree"].as_object_mut().unwrap().remove("digest").is_some());
    store.write_record(&name, &record).unwrap();
    close(store);
    let store = open(&temp);
    let goal = CollectionGoal { grace: Duration::ZERO, ..CollectionGoal::keep(u64::MAX) };
    assert_eq!(store.collect(&goal).unwrap().pieces, 0, "{:?}", store.inventory().pieces);
    assert_eq!(kept(&store, "shop").as_deref(), Some("one"));
    assert_eq!(store.take_warnings(), Vec::<String>::new());
}
