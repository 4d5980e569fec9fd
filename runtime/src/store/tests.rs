//! The store as a whole: how it is opened, and what it puts right.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

#[test]
fn everything_is_private_to_its_owner() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("a/b/wapack");
    let (store, warnings) = Store::open(&root).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    store.put_compiled(&CompiledKey::new("sha256:00", "engine"), b"code").unwrap();
    for path in [
        "",
        "blobs",
        "blobs/sha256",
        "index",
        "layers",
        "compiled",
        "builders",
        "digests",
        "downloads",
        "work",
    ] {
        let mode = std::fs::metadata(root.join(path)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700, "{path}");
    }
    assert_eq!(std::fs::metadata(root.join("key")).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn k8_a_newer_format_is_refused_and_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(temp.path()).unwrap();
    store.write_record("version", &Version { format: 2 }).unwrap();
    let before = std::fs::read(temp.path().join("version")).unwrap();
    let error = Store::open(temp.path()).unwrap_err();
    assert_eq!(error.id(), "store.newer_format");
    assert!(error.to_string().ends_with("has format 2; this program knows format 1"), "{error}");
    assert_eq!(std::fs::read(temp.path().join("version")).unwrap(), before);
}

/// K4 for the file every start reads first: no flip of a bit looks like a newer format.
#[test]
fn k4_a_damaged_version_is_written_again_with_one_warning() {
    let temp = tempfile::tempdir().unwrap();
    drop(Store::open(temp.path()).unwrap());
    let path = temp.path().join("version");
    let good = std::fs::read(&path).unwrap();
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1 << (index % 8);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bad).unwrap();
        let (_, warnings) = Store::open(temp.path()).unwrap();
        assert_eq!(warnings, ["`version` in the store was damaged and is made again"]);
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }
    let (_, warnings) = Store::open(temp.path()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn k4_directories_replaced_by_files_or_links_are_made_again() {
    let temp = tempfile::tempdir().unwrap();
    let outside = temp.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "x").unwrap();
    let root = temp.path().join("store");
    drop(Store::open(&root).unwrap());
    for name in ["index", "work", "layers", "compiled", "blobs"] {
        std::fs::remove_dir_all(root.join(name)).unwrap();
        if name == "index" {
            std::fs::write(root.join(name), "file").unwrap();
        } else {
            symlink(&outside, root.join(name)).unwrap();
        }
    }
    let (_, warnings) = Store::open(&root).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for name in DIRECTORIES {
        assert!(std::fs::symlink_metadata(root.join(name)).unwrap().is_dir(), "{name}");
    }
    assert!(outside.join("precious").exists());
}

#[test]
fn a_store_open_to_others_is_closed_with_a_warning() {
    let temp = tempfile::tempdir().unwrap();
    drop(Store::open(temp.path()).unwrap());
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (_, warnings) = Store::open(temp.path()).unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(std::fs::metadata(temp.path()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_full_disk_has_its_own_id() {
    let error = StoreError::io("write", Path::new("/x"), Errno::NOSPC.into());
    assert_eq!(error.id(), "host.disk_full");
    assert_eq!(error.to_string(), "no space left for `/x`");
}

/// Somebody who names their home as the cache by mistake finds it as it was.
#[test]
fn a_directory_with_other_things_in_it_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("precious"), "x").unwrap();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = Store::open(temp.path()).unwrap_err();
    assert_eq!(error.id(), "store.occupied");
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    assert_eq!(std::fs::metadata(temp.path()).unwrap().mode() & 0o777, 0o755);
    assert!(!Store::is_at(temp.path()));
    // A store that has lost its version and gained something is one, and so is a new disk.
    for directory in ["index", "lost+found"] {
        std::fs::create_dir(temp.path().join(directory)).unwrap();
        drop(Store::open(temp.path()).unwrap());
        assert!(Store::is_at(temp.path()));
        std::fs::remove_dir_all(temp.path()).unwrap();
        std::fs::create_dir(temp.path()).unwrap();
    }
}

#[test]
fn what_is_in_the_way_is_said() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    std::fs::write(&path, "x").unwrap();
    let error = Store::open(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot make the directory `{}`", path.display()));
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "there is something else already");
    symlink("nowhere", temp.path().join("link")).unwrap();
    let error = Store::open(&temp.path().join("link/store")).unwrap_err();
    assert_eq!(error.id(), "store.io");
}
