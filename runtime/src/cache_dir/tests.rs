//! The directory as the reference lifecycle writes it, as ours, and as hostile hands leave it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::*;
use crate::cnb::labels::{BuildpackLayers, LayerRecord, LayerSha};

const A: &[u8] = b"the bytes of a layer";

fn diff_id(bytes: &[u8]) -> DiffId {
    DiffId(Digest::of(bytes))
}

fn put(root: &Path, name: &DiffId, bytes: &[u8]) {
    fs::create_dir_all(root.join("committed")).unwrap();
    fs::write(root.join("committed").join(format!("{name}.tar")), bytes).unwrap();
}

fn read(cache: &CacheDir, diff_id: &DiffId) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    cache.layer(diff_id).unwrap().expect("it is there").read().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn add(new: &NewCache<'_>, last: Option<&DiffId>, bytes: &[u8]) -> DiffId {
    new.add(last, |writer| writer.write_all(bytes)).unwrap()
}

fn inode(root: &Path, diff_id: &DiffId) -> u64 {
    fs::metadata(root.join(format!("committed/{diff_id}.tar"))).unwrap().ino()
}

/// A cache with one layer, made by an earlier build.
fn with_layer(bytes: &[u8]) -> (tempfile::TempDir, CacheDir) {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), &diff_id(bytes), bytes);
    let cache = CacheDir::open(root.path()).unwrap();
    (root, cache)
}

#[test]
fn cac_02_names_and_places_are_those_of_the_reference() {
    let root = tempfile::tempdir().unwrap();
    let cache = CacheDir::open(root.path()).unwrap();
    let new = cache.begin().unwrap();
    let layer = add(&new, None, A);
    assert_eq!(layer, diff_id(A));
    let record = LayerRecord { sha: layer.to_string(), cache: true, ..LayerRecord::default() };
    let metadata = CacheMetadata {
        sbom: LayerSha::default(),
        buildpacks: vec![BuildpackLayers {
            key: "acme/node".into(),
            version: "1".into(),
            layers: [("a.b".to_owned(), record)].into(),
            store: None,
        }],
    };
    new.commit(&metadata).unwrap();
    let names = |directory: &Path| {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(root.path()), ["committed"]);
    assert_eq!(
        names(&root.path().join("committed")),
        ["io.buildpacks.lifecycle.cache.metadata".to_owned(), format!("{}.tar", diff_id(A))]
    );
    let text = fs::read_to_string(root.path().join("committed").join(CACHE_METADATA)).unwrap();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&text).unwrap(),
        serde_json::json!({"sbom": {"sha": ""}, "buildpacks": [{"key": "acme/node", "version": "1", "layers":
            {"a.b": {"sha": diff_id(A).to_string(), "data": null, "build": false, "launch": false, "cache": true}}}]})
    );
    let again = CacheDir::open(root.path()).unwrap();
    assert_eq!(again.metadata(), metadata);
    assert_eq!(read(&again, &layer).unwrap(), A);
}

#[test]
fn cac_03_left_overs_are_wiped_and_the_directory_has_to_be_there() {
    let root = tempfile::tempdir().unwrap();
    for directory in ["staging/deep", "committed-backup/deep"] {
        fs::create_dir_all(root.path().join(directory)).unwrap();
        fs::write(root.path().join(directory).join("file"), "").unwrap();
    }
    CacheDir::open(root.path()).unwrap();
    assert_eq!(fs::read_dir(root.path().join("staging")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.path().join("committed")).unwrap().count(), 0);
    assert!(!root.path().join("committed-backup").exists());
    let missing = CacheDir::open(&root.path().join("missing")).unwrap_err();
    assert!(matches!(missing, CacheError::Missing { .. }), "{missing:?}");
    assert!(!root.path().join("missing").exists());
}

#[test]
fn cac_02_without_a_swap_the_last_cache_stays() {
    let (root, cache) = with_layer(A);
    let new = cache.begin().unwrap();
    add(&new, None, b"new");
    drop(new);
    assert_eq!(read(&cache, &diff_id(A)).unwrap(), A);

    // The second of the two renames fails: staging is gone.
    let new = cache.begin().unwrap();
    add(&new, None, b"new");
    fs::rename(root.path().join("staging"), root.path().join("elsewhere")).unwrap();
    new.commit(&CacheMetadata::default()).unwrap_err();
    assert_eq!(read(&cache, &diff_id(A)).unwrap(), A);
    assert!(!root.path().join("committed-backup").exists());
}

#[test]
fn cac_04_layers_that_are_not_taken_over_are_gone() {
    let (root, cache) = with_layer(A);
    let kept = diff_id(b"kept");
    put(root.path(), &kept, b"kept");
    let new = cache.begin().unwrap();
    assert!(new.reuse(&kept).unwrap());
    new.commit(&CacheMetadata::default()).unwrap();
    assert!(cache.layer(&diff_id(A)).unwrap().is_none());
    assert_eq!(read(&cache, &kept).unwrap(), b"kept");
}

#[test]
fn cac_05_a_layer_is_linked_over_and_a_damaged_one_is_written_anew() {
    let (root, cache) = with_layer(A);
    let damaged = diff_id(b"damaged");
    put(root.path(), &damaged, b"damagee");
    let before = inode(root.path(), &diff_id(A));
    let new = cache.begin().unwrap();
    assert!(new.reuse(&diff_id(A)).unwrap());
    assert!(!new.reuse(&damaged).unwrap());
    assert!(!new.reuse(&diff_id(b"never was")).unwrap());
    assert_eq!(add(&new, Some(&damaged), b"damaged"), damaged);
    new.commit(&CacheMetadata::default()).unwrap();
    assert_eq!(inode(root.path(), &diff_id(A)), before);
    assert_eq!(read(&cache, &damaged).unwrap(), b"damaged");
}

/// CAC-05: the same bytes again are the same file, others are not mixed with them.
#[test]
fn cac_05_what_is_written_is_compared_with_the_last_layer() {
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    for (verified, changed_at) in
        [(false, None), (true, None), (false, Some(11_000_000)), (true, Some(11_000_000)), (true, Some(0))]
    {
        let (root, cache) = with_layer(&large);
        let last = diff_id(&large);
        let before = inode(root.path(), &last);
        if verified {
            read(&cache, &last).unwrap();
        }
        let mut now = large.clone();
        if let Some(at) = changed_at {
            now[at] ^= 1;
        }
        let new = cache.begin().unwrap();
        assert_eq!(add(&new, Some(&last), &now), diff_id(&now), "{verified} {changed_at:?}");
        new.commit(&CacheMetadata::default()).unwrap();
        assert_eq!(inode(root.path(), &diff_id(&now)) == before, changed_at.is_none());
        assert!(read(&cache, &diff_id(&now)).unwrap() == now);
    }
    // Shorter and longer than the last one.
    for now in [&large[..1_000_000], &[&large[..], b"more"].concat()] {
        let (_root, cache) = with_layer(&large);
        let new = cache.begin().unwrap();
        assert_eq!(add(&new, Some(&diff_id(&large)), now), diff_id(now));
        new.commit(&CacheMetadata::default()).unwrap();
        assert!(read(&cache, &diff_id(now)).unwrap() == now);
    }
}

#[test]
fn cac_05_a_file_that_lies_about_its_digest_gets_its_own_name() {
    let (root, cache) = with_layer(A);
    let claimed = diff_id(b"something else");
    put(root.path(), &claimed, A);
    let new = cache.begin().unwrap();
    assert_eq!(add(&new, Some(&claimed), A), diff_id(A));
    new.commit(&CacheMetadata::default()).unwrap();
    assert!(cache.layer(&claimed).unwrap().is_none());
    assert_eq!(read(&cache, &diff_id(A)).unwrap(), A);
}

#[test]
fn rst_07_a_wrong_digest_is_an_error_at_the_end_of_reading() {
    let root = tempfile::tempdir().unwrap();
    put(root.path(), &diff_id(A), b"the bytes of a l4yer");
    let cache = CacheDir::open(root.path()).unwrap();
    for _ in 0..2 {
        let error = read(&cache, &diff_id(A)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

/// Once verified, a layer is not hashed again, unless somebody changed it since.
#[test]
fn a_file_that_changed_after_it_was_verified_is_verified_again() {
    let (root, cache) = with_layer(A);
    let layer = diff_id(A);
    assert!(!cache.layer(&layer).unwrap().unwrap().is_verified);
    read(&cache, &layer).unwrap();
    assert!(cache.layer(&layer).unwrap().unwrap().is_verified);

    let path = root.path().join(format!("committed/{layer}.tar"));
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(b"THE").unwrap();
    file.set_modified(modified).unwrap();
    assert!(!cache.layer(&layer).unwrap().unwrap().is_verified);
    read(&cache, &layer).unwrap_err();
    let new = cache.begin().unwrap();
    assert!(!new.reuse(&layer).unwrap());
}

#[test]
fn rst_10_metadata_that_cannot_be_read_is_none() {
    let root = tempfile::tempdir().unwrap();
    let cache = CacheDir::open(root.path()).unwrap();
    assert_eq!(cache.metadata(), CacheMetadata::default());
    let path = root.path().join("committed").join(CACHE_METADATA);
    fs::write(&path, "{").unwrap();
    assert_eq!(cache.metadata(), CacheMetadata::default());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(cache.metadata(), CacheMetadata::default());
}

/// Links that hostile hands put into the cache are not followed.
#[test]
fn links_lead_nowhere() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), A).unwrap();
    fs::write(outside.path().join(CACHE_METADATA), r#"{"sbom": {"sha": "x"}}"#).unwrap();
    let root = tempfile::tempdir().unwrap();
    symlink(outside.path(), root.path().join("staging")).unwrap();
    let cache = CacheDir::open(root.path()).unwrap();
    assert!(outside.path().join("secret").exists());

    let committed = root.path().join("committed");
    symlink(outside.path().join("secret"), committed.join(format!("{}.tar", diff_id(A)))).unwrap();
    cache.layer(&diff_id(A)).unwrap_err();
    symlink(outside.path().join(CACHE_METADATA), committed.join(CACHE_METADATA)).unwrap();
    assert_eq!(cache.metadata(), CacheMetadata::default());
    let new = cache.begin().unwrap();
    assert!(!new.reuse(&diff_id(A)).unwrap());
    drop(new);

    fs::rename(&committed, root.path().join("old")).unwrap();
    symlink(outside.path(), &committed).unwrap();
    let cache = CacheDir::open(root.path()).unwrap();
    assert_eq!(cache.metadata(), CacheMetadata::default());
    cache.begin().unwrap().commit(&CacheMetadata::default()).unwrap();
    assert!(outside.path().join("secret").exists());
    assert!(fs::symlink_metadata(&committed).unwrap().is_dir());
}
