use super::*;
use crate::cnb::layer::LayerTypes;
use crate::cnb::sbom::{Sbom, SbomFormat};
use crate::store::{BuildpackRecords, ImageRecords, LayerRecord as Record, TreeSource};

/// Keeps a cached layer that is in no image, with these contents, as the last build's.
fn keep(store: &Store, contents: &str) {
    let work = store.work_dir().unwrap();
    let tree = work.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), contents).unwrap();
    let layer = Record {
        name: "cached".parse().unwrap(),
        types: LayerTypes { cache: true, ..LayerTypes::default() },
        cache_key: "key".to_owned(),
        metadata: "a = 1\n".to_owned(),
        environment: vec![],
        sboms: vec![Sbom { format: SbomFormat::Spdx, content: b"{}".to_vec() }],
        artifacts: None,
        exported: None,
        tree: TreeSource::Move(tree),
    };
    let buildpack =
        BuildpackRecords { version: Some("1".to_owned()), layers: vec![layer], ..Default::default() };
    let buildpacks = [("acme/one".parse().unwrap(), buildpack)].into();
    store.image("us", "app").commit(ImageRecords { buildpacks }).unwrap();
}

fn make(store: &Store, cancel: &Cancel) -> Result<Option<Image>, CacheImageError> {
    let target = Target { os: "linux".into(), arch: "arm64".into(), variant: None, distro: None };
    let cache = store.image("us", "app");
    let request = CacheImageRequest { store, cache: &cache, target: &target, published: &[] };
    cache_image(&request, cancel)
}

/// CAC-01: the label of the specification; and ours beside it.
#[test]
fn cac_01_a_cache_image_says_what_its_layers_are() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path()).unwrap();
    assert_eq!(make(&store, &Cancel::default()).unwrap(), None);
    keep(&store, "one");
    let image = make(&store, &Cancel::default()).unwrap().unwrap();
    let configuration = &image.configuration;
    assert_eq!((configuration.os.as_str(), configuration.architecture.as_str()), ("linux", "arm64"));
    let [layer, sboms] = &image.layers[..] else { panic!("{:?}", image.layers) };
    let labels = &configuration.config.labels;
    let metadata: serde_json::Value = serde_json::from_str(&labels[CACHE_METADATA]).unwrap();
    assert_eq!(
        metadata,
        serde_json::json!({
            "sbom": {"sha": sboms.diff_id.to_string()},
            "buildpacks": [{"key": "acme/one", "version": "1", "layers": {"cached": {
                "sha": layer.diff_id.to_string(), "data": {"a": 1},
                "build": false, "launch": false, "cache": true
            }}}]
        })
    );
    let label = CacheLabel::parse(&labels[CACHE_LABEL]).unwrap();
    let record = &label.buildpacks[&"acme/one".parse().unwrap()].layers[&"cached".parse().unwrap()];
    assert_eq!((record.key.as_str(), record.metadata.as_str()), ("key", "a = 1\n"));
    assert_eq!(record.diff_id, layer.diff_id);
}

#[test]
fn what_did_not_change_is_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(directory.path()).unwrap();
    keep(&store, "one");
    let first = make(&store, &Cancel::default()).unwrap().unwrap();
    // Whoever reads a tree asks first whether to go on.
    let stopped = Cancel::default();
    stopped.cancel();
    assert_eq!(make(&store, &stopped).unwrap().unwrap(), first);
    keep(&store, "two");
    assert!(make(&store, &stopped).is_err());
    let second = make(&store, &Cancel::default()).unwrap().unwrap();
    assert_ne!(second.layers[0].diff_id, first.layers[0].diff_id);
    assert_eq!(second.layers[1], first.layers[1], "the bills of materials");
    // The same contents again, and the same bytes.
    keep(&store, "one");
    assert_eq!(make(&store, &Cancel::default()).unwrap().unwrap(), first);
}
