use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::trees::{MARKER, TREE, digest_of_tree};
use super::*;

const TENANT: &str = "local";
const IMAGE: &str = "shop";

fn id() -> BuildpackId {
    "acme/node".parse().unwrap()
}

fn layer(name: &str, tree: TreeSource) -> LayerRecord {
    LayerRecord {
        name: name.parse().unwrap(),
        types: LayerTypes { launch: true, build: false, cache: true },
        cache_key: "v1".into(),
        metadata: "a = 1\n".into(),
        environment: vec![],
        sboms: vec![],
        artifacts: None,
        exported: None,
        tree,
    }
}

fn records(layers: Vec<LayerRecord>) -> ImageRecords {
    let buildpack = BuildpackRecords { version: None, store_toml: Some("kept = true\n".into()), layers };
    ImageRecords { buildpacks: BTreeMap::from([(id(), buildpack)]) }
}

/// A tree in a work directory, as a build leaves it.
fn written(store: &Store, contents: &str) -> (super::super::WorkDir, PathBuf) {
    let work = store.work_dir().unwrap();
    let path = work.path().join("layer");
    std::fs::create_dir_all(path.join("bin")).unwrap();
    std::fs::write(path.join("bin/node"), contents).unwrap();
    (work, path)
}

fn commit(store: &Store, contents: &str) {
    let (_work, path) = written(store, contents);
    store.image(TENANT, IMAGE).commit(records(vec![layer("node", TreeSource::Move(path))])).unwrap();
}

fn contents(cache: &ImageCache<'_>) -> String {
    let layers = cache.layers(&id());
    std::fs::read_to_string(layers[0].tree.as_ref().unwrap().path.join("bin/node")).unwrap()
}

fn count_trees(store: &Store) -> usize {
    std::fs::read_dir(store.image(TENANT, IMAGE).trees()).unwrap().count()
}

#[test]
fn the_next_build_finds_what_was_committed() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(temp.path()).unwrap();
    assert!(store.image(TENANT, IMAGE).layers(&id()).is_empty());

    let (_work, path) = written(&store, "one");
    let new = store.create().unwrap();
    new.file().write_all(b"hello\n").unwrap();
    let digest = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    let diff_id = DiffId(Digest::of(b"some layer"));
    let blob = store.commit(new, &diff_id, "gzip", &digest.parse().unwrap(), 6).unwrap();
    let exported = ExportedAs { diff_id, encoder: "gzip".into(), features: LayerFeatures::default() };
    let sbom = Sbom { format: SbomFormat::CycloneDx, content: "{}".into() };
    let artifacts: BTreeSet<Artifact> = [Artifact {
        source: "npm".to_owned(),
        path: "a.tgz".to_owned(),
        hash: "sha512:00".to_owned(),
        is_pinned: true,
    }]
    .into();
    let record = LayerRecord {
        exported: Some(exported.clone()),
        sboms: vec![sbom.clone()],
        artifacts: Some(artifacts.clone()),
        ..layer("node", TreeSource::Move(path.clone()))
    };
    store.image(TENANT, IMAGE).commit(records(vec![record])).unwrap();
    assert!(!path.exists());

    let (again, _) = Store::open(temp.path()).unwrap();
    let cache = again.image(TENANT, IMAGE);
    let layers = cache.layers(&id());
    assert_eq!(layers.len(), 1);
    assert_eq!(layers[0].exported, Some((exported, blob)));
    assert_eq!(layers[0].sboms, [sbom]);
    assert_eq!(layers[0].artifacts, Some(artifacts));
    assert_eq!(layers[0].metadata, "a = 1\n");
    assert_eq!(contents(&cache), "one");
    assert_eq!(cache.store_toml(&id()).as_deref(), Some("kept = true\n"));
    assert!(again.image("other tenant", IMAGE).layers(&id()).is_empty());
    assert!(again.image(TENANT, "other image").layers(&id()).is_empty());
    assert!(again.take_warnings().is_empty());
}

#[test]
fn an_unchanged_build_writes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(temp.path()).unwrap();
    commit(&store, "one");
    let path = temp.path().join(store.image(TENANT, IMAGE).record_name());
    let before = std::fs::metadata(&path).unwrap();
    let cache = store.image(TENANT, IMAGE);
    cache.commit(records(vec![layer("node", TreeSource::Unchanged)])).unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!(before.ino(), after.ino());
    assert_eq!(contents(&store.image(TENANT, IMAGE)), "one");
}

#[test]
fn k6_a_leased_tree_outlives_the_commit_that_replaces_it() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(temp.path()).unwrap();
    commit(&store, "one");
    let running = store.image(TENANT, IMAGE);
    commit(&store, "two");
    assert_eq!(contents(&running), "one");
    assert_eq!(contents(&store.image(TENANT, IMAGE)), "two");
    assert_eq!(count_trees(&store), 2);
    drop(running);
    commit(&store, "three");
    assert_eq!(count_trees(&store), 1);
}

/// The build that started first ends last; what it used all the time is what stays.
#[test]
fn k6_an_unchanged_layer_of_a_slow_build_is_still_there() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(temp.path()).unwrap();
    commit(&store, "one");
    let slow = store.image(TENANT, IMAGE);
    commit(&store, "two");
    slow.commit(records(vec![layer("node", TreeSource::Unchanged)])).unwrap();
    assert_eq!(contents(&store.image(TENANT, IMAGE)), "one");
    assert_eq!(count_trees(&store), 1);
}

#[test]
fn k6_readers_never_see_a_hole_while_others_commit() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(temp.path()).unwrap();
    commit(&store, "0");
    std::thread::scope(|scope| {
        scope.spawn(|| (1..60).for_each(|n| commit(&store, &n.to_string())));
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let cache = store.image(TENANT, IMAGE);
                    assert!(contents(&cache).parse::<u32>().unwrap() < 60);
                }
            });
        }
    });
    assert!(store.take_warnings().is_empty());
}

/// The moment between reading a record and leasing its trees.
#[test]
fn k6_a_record_that_was_replaced_meanwhile_is_read_again() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(temp.path()).unwrap();
    commit(&store, "one");
    let mut cache = store.image(TENANT, IMAGE);
    cache.leases.clear();
    commit(&store, "two");
    assert!(!cache.lease_trees(false));
    assert!(store.take_warnings().is_empty());
    assert!(cache.layers(&id())[0].tree.is_none());
}

#[test]
fn g11_no_name_outside_leads_into_a_kept_tree() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(temp.path()).unwrap();
    let (work, path) = written(&store, "good");
    std::fs::hard_link(path.join("bin/node"), work.path().join("second")).unwrap();
    store.image(TENANT, IMAGE).commit(records(vec![layer("node", TreeSource::Move(path))])).unwrap();
    std::fs::write(work.path().join("second"), "poison").unwrap();
    assert_eq!(contents(&store.image(TENANT, IMAGE)), "good");
}

#[test]
fn k4_damage_to_record_tree_or_marker_is_a_miss() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 8] = [
        ("record", |image| std::fs::write(image.join("record"), "{}").unwrap()),
        ("record", |image| {
            std::fs::remove_file(image.join("record")).unwrap();
            std::fs::create_dir(image.join("record")).unwrap();
        }),
        ("trees", |image| std::fs::remove_dir_all(image.join("trees")).unwrap()),
        ("tree", |image| std::fs::remove_dir_all(holder(image).join(TREE)).unwrap()),
        ("tree", |image| {
            let tree = holder(image).join(TREE);
            std::fs::rename(&tree, image.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink(image.join("elsewhere"), &tree).unwrap();
        }),
        ("tree", |image| std::fs::remove_file(holder(image).join(MARKER)).unwrap()),
        // Another tree, sealed by somebody else.
        ("tree", |image| {
            std::fs::remove_file(holder(image).join(MARKER)).unwrap();
            std::fs::write(holder(image).join(TREE).join("new"), "").unwrap();
            std::fs::write(holder(image).join(MARKER), "").unwrap();
        }),
        // Something new at the top of the tree.
        ("tree", |image| std::fs::write(holder(image).join(TREE).join("new"), "").unwrap()),
    ];
    for (index, (what, damage)) in damages.iter().enumerate() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        commit(&store, "one");
        damage(&temp.path().join(&store.image(TENANT, IMAGE).directory));
        let cache = store.image(TENANT, IMAGE);
        let layers = cache.layers(&id());
        if *what == "record" {
            assert!(layers.is_empty(), "damage {index}");
        } else {
            assert_eq!(layers[0].tree, None, "damage {index}");
        }
        assert_eq!(store.take_warnings().len(), 1, "damage {index}");
        drop(cache);
        commit(&store, "two");
        assert_eq!(contents(&store.image(TENANT, IMAGE)), "two", "damage {index}");
        assert_eq!(count_trees(&store), 1, "damage {index}");
    }
}

fn holder(image: &Path) -> PathBuf {
    std::fs::read_dir(image.join("trees")).unwrap().next().unwrap().unwrap().path()
}

/// Damage that no time tells of: the record's digest is not that of the tree.
#[test]
fn a_tree_that_is_not_what_was_recorded_is_a_miss_only_where_it_is_verified() {
    let temp = tempfile::tempdir().unwrap();
    let open = |verifies: bool| {
        let (mut store, _) = Store::open(temp.path()).unwrap();
        if verifies {
            store.verify_everything();
        }
        store
    };
    commit(&open(true), "one");
    assert_eq!(contents(&open(true).image(TENANT, IMAGE)), "one");
    let store = open(false);
    let name = store.image(TENANT, IMAGE).record_name();
    let mut record: ImageRecord = store.read_record(&name).unwrap();
    let tree = |record: &mut ImageRecord| {
        record.buildpacks.get_mut(&id()).unwrap().layers.values_mut().next().unwrap().tree.take().unwrap()
    };
    let mut stored = tree(&mut record);
    let holder = store.image(TENANT, IMAGE).trees().join(&stored.name).join(TREE);
    assert_eq!(stored.digest, Some(digest_of_tree(&holder).unwrap()));
    stored.digest = Some("sha256:0".to_owned());
    let layers = &mut record.buildpacks.get_mut(&id()).unwrap().layers;
    layers.values_mut().next().unwrap().tree = Some(stored);
    store.write_record(&name, &record).unwrap();
    assert_eq!(store.image(TENANT, IMAGE).layers(&id()).len(), 1);
    assert!(store.take_warnings().is_empty());
    let verifying = open(true);
    assert!(verifying.image(TENANT, IMAGE).layers(&id()).is_empty());
    assert_eq!(verifying.take_warnings().len(), 1);
}

#[test]
fn a_digest_of_a_tree_covers_names_contents_modes_and_links() {
    type Change = fn(&Path);
    let changes: [Change; 5] = [
        |root| std::fs::write(root.join("bin/node"), "two").unwrap(),
        |root| std::fs::rename(root.join("bin/node"), root.join("bin/nope")).unwrap(),
        |root| std::fs::set_permissions(root.join("bin/node"), PermissionsExt::from_mode(0o755)).unwrap(),
        |root| std::fs::create_dir(root.join("empty")).unwrap(),
        |root| {
            std::fs::remove_file(root.join("link")).unwrap();
            std::os::unix::fs::symlink("elsewhere", root.join("link")).unwrap();
        },
    ];
    for (index, change) in changes.iter().enumerate() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("bin")).unwrap();
        std::fs::write(temp.path().join("bin/node"), "one").unwrap();
        std::os::unix::fs::symlink("bin", temp.path().join("link")).unwrap();
        let before = digest_of_tree(temp.path()).unwrap();
        assert_eq!(digest_of_tree(temp.path()).unwrap(), before);
        change(temp.path());
        assert_ne!(digest_of_tree(temp.path()).unwrap(), before, "change {index}");
    }
}

#[test]
fn an_image_that_is_forgotten_leaves_no_tree() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(temp.path()).unwrap();
    commit(&store, "one");
    store.forget_image(TENANT, IMAGE).unwrap();
    assert!(store.image(TENANT, IMAGE).is_empty());
    assert_eq!(count_trees(&store), 0);
    store.forget_image(TENANT, "never built").unwrap();
    assert_eq!(store.take_warnings(), [""; 0]);
}

#[test]
fn a_changed_file_is_newer_than_its_seal() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(temp.path()).unwrap();
    commit(&store, "one");
    let cache = store.image(TENANT, IMAGE);
    let tree = cache.layers(&id())[0].tree.clone().unwrap();
    let file = tree.path.join("bin/node");
    assert!(Status::of(&file).unwrap().changed <= tree.sealed_at);
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(&file, "two").unwrap();
    assert!(Status::of(&file).unwrap().changed > tree.sealed_at);
}

#[test]
fn a_read_only_layer_directory_is_moved_too() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(temp.path()).unwrap();
    let (_work, path) = written(&store, "one");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o555)).unwrap();
    store.image(TENANT, IMAGE).commit(records(vec![layer("node", TreeSource::Move(path))])).unwrap();
    let cache = store.image(TENANT, IMAGE);
    let tree = cache.layers(&id())[0].tree.clone().unwrap();
    assert_eq!(std::fs::metadata(&tree.path).unwrap().mode() & 0o7777, 0o555);
}
