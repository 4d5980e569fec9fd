//! K1: a build killed at any moment costs nothing but itself.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{BuildpackRecords, CompiledKey, ExportedAs, ImageRecords, LayerRecord, Store, TreeSource};
use crate::cnb::id::BuildpackId;
use crate::cnb::layer::{LayerFeatures, LayerTypes};
use crate::oci::blob::BlobStore as _;
use crate::oci::digest::{DiffId, Digest};
use crate::walk;

/// In the current directory of the child; without it nobody asked for what it does.
const PERMISSION: &str = "started-to-be-killed";
const ROUNDS: u32 = 40;

fn id() -> BuildpackId {
    "acme/node".parse().unwrap()
}

/// One whole build: blob, tree, record and component all hold the same number.
fn build(store: &Store, number: u64) {
    let text = format!("{number}\n").repeat(1000);
    let diff_id = DiffId(Digest::of(text.as_bytes()));
    let blob = store.create().unwrap();
    blob.file().write_all(text.as_bytes()).unwrap();
    store.commit(blob, &diff_id, "none", &diff_id.0, text.len() as u64).unwrap();
    store.put_compiled(&CompiledKey::new("component", "engine"), text.as_bytes()).unwrap();

    let work = store.work_dir().unwrap();
    let path = work.path().join("layer");
    std::fs::create_dir_all(path.join("bin")).unwrap();
    std::fs::write(path.join("bin/file"), &text).unwrap();
    let layer = LayerRecord {
        name: "node".parse().unwrap(),
        types: LayerTypes { launch: true, build: true, cache: true },
        cache_key: number.to_string(),
        metadata: String::new(),
        environment: vec![],
        sboms: vec![],
        artifacts: None,
        exported: Some(ExportedAs { diff_id, encoder: "none".into(), features: LayerFeatures::default() }),
        tree: TreeSource::Move(path),
    };
    let buildpack = BuildpackRecords { version: None, store_toml: None, layers: vec![layer] };
    let records = ImageRecords { buildpacks: BTreeMap::from([(id(), buildpack)]) };
    store.image("local", "image").commit(records).unwrap();
}

/// The number of the last build that was committed whole, after checking every byte of it.
fn verified(root: &Path) -> Option<u64> {
    let (store, warnings) = Store::open(root).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(std::fs::read_dir(root.join("work")).unwrap().count(), 0, "litter");
    let cache = store.image("local", "image");
    let layers = cache.layers(&id());
    assert_eq!(store.take_warnings(), Vec::<String>::new());
    let layer = layers.first()?;
    let text = format!("{}\n", layer.cache_key).repeat(1000);
    let tree = layer.tree.as_ref().unwrap();
    assert_eq!(std::fs::read_to_string(tree.path.join("bin/file")).unwrap(), text);
    let (exported, blob) = layer.exported.as_ref().unwrap();
    assert_eq!(std::fs::read_to_string(&blob.path).unwrap(), text);
    assert_eq!(exported.diff_id.0, Digest::of(text.as_bytes()));
    if let Some(code) = store.compiled(&CompiledKey::new("component", "engine")) {
        assert_eq!(code.len() % 1000, 0);
    }
    assert_eq!(store.take_warnings(), Vec::<String>::new());
    Some(layer.cache_key.parse().unwrap())
}

#[test]
fn k1_a_store_verifies_after_kills_at_random_moments() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join(PERMISSION), "").unwrap();
    let root = temp.path().join("store");
    let mut last = None;
    let mut commits = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "store::kill_tests::builds_until_it_is_killed"])
            .current_dir(temp.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pause = u64::from(walk::random_bytes::<1>()[0]) * 2;
        std::thread::sleep(Duration::from_millis(20 + pause));
        assert!(child.try_wait().unwrap().is_none(), "round {round}: the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let now = verified(&root);
        // What was committed once never goes away.
        assert!(now >= last, "round {round}: {now:?} after {last:?}");
        commits += u32::from(now > last);
        last = now;
    }
    assert!(commits > 0, "no child lived long enough to commit");
    let (store, _) = Store::open(&root).unwrap();
    build(&store, u64::MAX);
    drop(store);
    assert_eq!(verified(&root), Some(u64::MAX));
    let cache = root.join("layers");
    let trees = std::fs::read_dir(cache).unwrap().flatten().flat_map(|tenant| {
        std::fs::read_dir(tenant.path())
            .unwrap()
            .flatten()
            .flat_map(|image| std::fs::read_dir(image.path().join("trees")).unwrap().collect::<Vec<_>>())
    });
    assert_eq!(trees.count(), 1, "trees of dead builds are left");
}

#[test]
#[ignore = "the child of the test above"]
fn builds_until_it_is_killed() {
    if !Path::new(PERMISSION).exists() {
        return;
    }
    let root = Path::new("store");
    let (store, _) = Store::open(root).unwrap();
    let first = store
        .image("local", "image")
        .layers(&id())
        .first()
        .map_or(0, |layer| layer.cache_key.parse::<u64>().unwrap() + 1);
    (first..u64::MAX).for_each(|number| build(&store, number));
}
