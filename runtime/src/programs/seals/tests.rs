//! Layers that buildpacks leave alone, and those they touch in whatever way.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use super::*;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::unpack::{self, unpack};
use crate::phase::export::write_directory;

const OWNER: Owner = Owner { uid: 1000, gid: 1001 };

/// A layers directory with one restored layer.
struct Site {
    _root: tempfile::TempDir,
    places: Places,
    restored: Unpacked,
}

impl Site {
    fn new() -> Self {
        Self::with(|tar| tar)
    }

    /// What was cached is what `change` makes of the layer's tar.
    fn with(change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let layers = root.path().to_str().unwrap().to_owned();
        let layer = root.path().join("acme_node/x");
        // A name that no header has room for.
        let long = layer.join("d".repeat(120)).join("n".repeat(120));
        for directory in [layer.join("bin"), long.clone()] {
            fs::create_dir_all(directory).unwrap();
        }
        for file in [layer.join("bin/one"), layer.join("two"), long.join("three")] {
            fs::write(file, "abc").unwrap();
        }
        fs::set_permissions(layer.join("bin/one"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("two", layer.join("link")).unwrap();
        let path = layer.to_str().unwrap();
        let mut tar = Vec::new();
        write_directory(path, OWNER, TreeLimits::default(), &Cancel::default(), &mut tar).unwrap();
        let tar = change(tar);
        fs::remove_dir_all(&layer).unwrap();
        let opened = fs::File::open(root.path()).unwrap();
        let place = unpack::Place { root: opened.as_fd(), name: layers.as_bytes(), below: b"acme_node/x" };
        let restored = Unpacked {
            buildpack: "acme/node".parse().unwrap(),
            layer: "x".parse().unwrap(),
            diff_id: DiffId(Digest::of(&tar)),
            outline: unpack(&tar[..], place).unwrap(),
        };
        Self { _root: root, places: Places { layers, ..Places::default() }, restored }
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.places.layers).join("acme_node/x").join(name)
    }

    /// Whether the layer counts as untouched after a buildpack did this.
    fn holds_after(&self, buildpack: impl FnOnce()) -> bool {
        self.holds(OWNER, buildpack)
    }

    fn holds(&self, owner: Owner, buildpack: impl FnOnce()) -> bool {
        let cancel = Cancel::default();
        let seals = Seals::take(vec![self.restored.clone()], &self.places, owner, &cancel);
        buildpack();
        let known = seals.unbroken();
        if known.is_empty() {
            return false;
        }
        let layer = ("acme/node".parse().unwrap(), "x".parse().unwrap());
        assert_eq!(known, KnownDiffIds::from([(layer, self.restored.diff_id.clone())]));
        true
    }
}

/// CAC-05: the digest that a layer was unpacked with stands for as long as nothing touches it.
#[test]
fn cac_05_a_layer_that_nobody_touched_keeps_its_digest() {
    let site = Site::new();
    assert!(site.holds_after(|| ()));
    // Reading changes the time of access alone, and files beside the layer are not in it.
    assert!(site.holds_after(|| {
        fs::read(site.path("two")).unwrap();
        fs::write(site.path("../x.toml"), "[types]\nlaunch = true\n").unwrap();
    }));
}

/// CAC-05: same size, and the time of the last write put back.
#[test]
fn cac_05_a_file_that_was_rewritten_in_its_old_clothes_is_seen() {
    let site = Site::new();
    assert!(!site.holds_after(|| {
        let path = site.path("two");
        let before = fs::metadata(&path).unwrap();
        fs::write(&path, "abd").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let times = fs::FileTimes::new()
            .set_modified(before.modified().unwrap())
            .set_accessed(before.accessed().unwrap());
        file.set_times(times).unwrap();
        let after = fs::metadata(&path).unwrap();
        let look = |found: &fs::Metadata| (found.ino(), found.len(), found.mtime(), found.mtime_nsec());
        assert_eq!(look(&after), look(&before));
    }));
}

#[test]
fn every_other_change_is_seen() {
    let changes: [fn(&Site); 8] = [
        |site| fs::write(site.path("bin/new"), "").unwrap(),
        |site| fs::remove_file(site.path("two")).unwrap(),
        |site| fs::set_permissions(site.path("two"), fs::Permissions::from_mode(0o600)).unwrap(),
        |site| fs::set_permissions(site.path("bin"), fs::Permissions::from_mode(0o700)).unwrap(),
        |site| fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o700)).unwrap(),
        // What is above the layer is in its tar.
        |site| fs::set_permissions(site.path(".."), fs::Permissions::from_mode(0o700)).unwrap(),
        |site| {
            fs::rename(site.path("two"), site.path("other")).unwrap();
            fs::rename(site.path("bin/one"), site.path("two")).unwrap();
            fs::rename(site.path("other"), site.path("bin/one")).unwrap();
        },
        |site| {
            let layer = Path::new(&site.places.layers).join("acme_node/x");
            fs::rename(&layer, layer.with_file_name("y")).unwrap();
            symlink("y", &layer).unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let site = Site::new();
        assert!(!site.holds_after(|| change(&site)), "change {number}");
    }
}

#[test]
fn a_layer_that_would_be_written_otherwise_has_no_seal() {
    let site = Site::new();
    let other = Owner { gid: 1002, ..OWNER };
    assert!(!site.holds(other, || ()), "for another group");
    // Another program's tar: one entry has another time.
    let site = Site::with(|mut tar| {
        let last = tar.len() - 1024 - 1024;
        let header = &mut tar[last..last + 512];
        assert_eq!(&header[257..262], b"ustar");
        assert_eq!(&header[136..147], b"02263523001");
        header[146] = b'2';
        let sum = u32::from_str_radix(std::str::from_utf8(&header[148..154]).unwrap(), 8).unwrap();
        header[148..154].copy_from_slice(format!("{:06o}", sum + 1).as_bytes());
        tar
    });
    assert!(!site.holds_after(|| ()), "with another time");
}
