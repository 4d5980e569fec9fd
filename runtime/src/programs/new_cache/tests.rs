//! Caches of builds that left one thing or another.

mod image;
mod registry;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::cnb::group_toml::Group;
use crate::event::Event;
use crate::oci::digest::Digest;

const GROUP: &str = "[[group]]\nid = \"acme/node\"\nversion = \"1.0.0\"\napi = \"0.10\"\n\
    [[group]]\nid = \"acme/none\"\nversion = \"2\"\napi = \"0.10\"\n";

struct Build {
    root: tempfile::TempDir,
    group: Group,
    made: KnownDiffIds,
    api: PlatformApi,
    warnings: Vec<String>,
}

impl Build {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in ["cache", "layers/acme_node"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let group = Group::parse(GROUP).unwrap();
        Self { root, group, made: KnownDiffIds::new(), api: PlatformApi::NEWEST, warnings: vec![] }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn layer(&self, name: &str, types: &str, contents: Option<&str>) {
        let types: Vec<_> = types.split_whitespace().map(|flag| format!("{flag} = true\n")).collect();
        let toml = self.path(&format!("layers/acme_node/{name}.toml"));
        fs::write(toml, format!("[types]\n{}[metadata]\nn = 1\n", types.concat())).unwrap();
        if let Some(contents) = contents {
            let directory = self.path(&format!("layers/acme_node/{name}"));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("file"), contents).unwrap();
            fs::set_permissions(directory.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
        }
    }

    fn cache(&mut self) -> CacheMetadata {
        self.cache_in("cache");
        CacheDir::open(&self.path("cache")).unwrap().metadata()
    }

    fn cache_in(&mut self, directory: &str) {
        let directory = self.root.path().join(directory);
        self.cache_at(CachePlace::Directory(&directory));
    }

    fn cache_at(&mut self, place: CachePlace<'_>) {
        let cached = Cached {
            api: self.api,
            layers: &self.root.path().join("layers"),
            buildpacks: &self.group.buildpacks,
            owner: Owner { uid: 1001, gid: 1002 },
            known: &self.made,
        };
        let warnings = &mut self.warnings;
        let mut events = |event| {
            if let Event::Warning { message } = event {
                warnings.push(message);
            }
        };
        write(&cached, place, &Cancel::default(), &mut events);
    }

    fn tar(&self, sha: &str) -> Vec<u8> {
        fs::read(self.path(&format!("cache/committed/{sha}.tar"))).unwrap()
    }

    fn inode(&self, sha: &str) -> u64 {
        fs::metadata(self.path(&format!("cache/committed/{sha}.tar"))).unwrap().ino()
    }
}

#[test]
fn cac_01_and_04_cached_layers_with_contents_and_no_others() {
    let mut build = Build::new();
    build.layer("a.b", "cache", Some("one"));
    build.layer("all", "build launch cache", Some("two"));
    build.layer("launched", "launch build", Some("three"));
    build.layer("nothing", "", Some("four"));
    fs::create_dir(build.path("layers/acme_node/bare")).unwrap();
    let metadata = build.cache();
    let sha = |name: &str| metadata.buildpacks[0].layers[name].sha.clone();
    assert_eq!(
        serde_json::to_value(&metadata).unwrap(),
        json!({"sbom": {"sha": ""}, "buildpacks": [
            {"key": "acme/node", "version": "1.0.0", "layers": {
                "a.b": {"sha": sha("a.b"), "data": {"n": 1}, "build": false, "launch": false, "cache": true},
                "all": {"sha": sha("all"), "data": {"n": 1}, "build": true, "launch": true, "cache": true}
            }},
            {"key": "acme/none", "version": "2", "layers": {}}
        ]})
    );
    assert!(build.warnings.is_empty(), "{:?}", build.warnings);

    // CAC-04: the next build has only one of them.
    fs::remove_file(build.path("layers/acme_node/all.toml")).unwrap();
    build.cache();
    assert!(!build.path(&format!("cache/committed/{}.tar", sha("all"))).exists());
    assert_eq!(fs::read_dir(build.path("cache/committed")).unwrap().count(), 2);
}

/// SBOM-09, CAC-02: names absolute, owners as in the image, real ones above, modes as on disk.
#[test]
fn sbom_09_and_cac_02_layers_have_the_bytes_of_image_layers() {
    let mut build = Build::new();
    build.layer("x", "cache", Some("one"));
    fs::create_dir_all(build.path("layers/sbom/cache/acme_node/x")).unwrap();
    fs::write(build.path("layers/sbom/cache/acme_node/x/sbom.cdx.json"), "{}").unwrap();
    let metadata = build.cache();
    for (sha, file) in [
        (&metadata.buildpacks[0].layers["x"].sha, "layers/acme_node/x/file"),
        (&metadata.sbom.sha, "layers/sbom/cache/acme_node/x/sbom.cdx.json"),
    ] {
        let tar = build.tar(sha);
        assert_eq!(Digest::of(&tar).as_str(), sha);
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let on_disk = fs::symlink_metadata(&name).unwrap();
            let header = entry.header();
            assert_eq!(header.mode().unwrap(), on_disk.mode() & 0o7777, "{name}");
            let owner = (header.uid().unwrap(), header.gid().unwrap());
            let is_inside = name.contains("/acme_node/x") || name.contains("/sbom/cache");
            let expected =
                if is_inside { (1001, 1002) } else { (on_disk.uid().into(), on_disk.gid().into()) };
            assert_eq!(owner, expected, "{name}");
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            names.push(name);
        }
        assert_eq!(names.last().unwrap(), build.path(file).to_str().unwrap());
        assert_eq!(names[0].matches('/').count(), 1, "{names:?}");
    }

    let mut old = Build::new();
    old.api = PlatformApi::supported(crate::cnb::api::ApiVersion::zero(7)).unwrap();
    fs::create_dir_all(old.path("layers/sbom/cache")).unwrap();
    assert_eq!(old.cache().sbom.sha, "");
}

#[test]
fn cac_05_an_unchanged_layer_is_the_same_file() {
    let mut build = Build::new();
    build.layer("changed", "cache", Some("one"));
    build.layer("same", "cache", Some("two"));
    build.layer("launched", "launch cache", Some("three"));
    let before = build.cache();
    let sha = |metadata: &CacheMetadata, name: &str| metadata.buildpacks[0].layers[name].sha.clone();
    let inodes = ["same", "launched"].map(|name| build.inode(&sha(&before, name)));
    build.layer("changed", "cache", Some("another"));
    // The exporter has made this one for the image.
    let id = build.group.buildpacks[0].id.clone();
    build.made.insert((id, "launched".parse().unwrap()), sha(&before, "launched").parse().unwrap());
    let after = build.cache();
    assert_eq!(["same", "launched"].map(|name| build.inode(&sha(&after, name))), inodes);
    assert_ne!(sha(&before, "changed"), sha(&after, "changed"));
    for layer in after.buildpacks[0].layers.values() {
        assert_eq!(Digest::of(&build.tar(&layer.sha)).as_str(), layer.sha);
    }

    // Damaged in the meantime: written anew, and the same again.
    for name in ["same", "launched"] {
        let path = build.path(&format!("cache/committed/{}.tar", sha(&after, name)));
        let mut bytes = fs::read(&path).unwrap();
        bytes[700] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let mended = build.cache();
    assert_eq!(mended, after);
    for layer in mended.buildpacks[0].layers.values() {
        assert_eq!(Digest::of(&build.tar(&layer.sha)).as_str(), layer.sha);
    }
}

#[test]
fn lyr_17_a_cached_layer_without_contents_is_a_warning() {
    let mut build = Build::new();
    build.layer("empty", "cache", None);
    build.layer("link", "cache", None);
    symlink("/etc", build.path("layers/acme_node/link")).unwrap();
    build.layer("there", "cache", Some(""));
    let metadata = build.cache();
    assert_eq!(metadata.buildpacks[0].layers.keys().collect::<Vec<_>>(), ["there"]);
    assert_eq!(build.warnings.len(), 2, "{:?}", build.warnings);
}

#[test]
fn cac_09_trouble_with_the_cache_is_a_warning() {
    let mut build = Build::new();
    build.layer("x", "cache", Some("one"));
    build.cache_in("nowhere");
    build.cache_at(CachePlace::None);
    assert_eq!(build.warnings.len(), 1, "{:?}", build.warnings);
    assert!(!build.path("nowhere").exists());
    assert_eq!(fs::read_dir(build.path("cache")).unwrap().count(), 0);

    fs::write(build.path("layers/acme_node/bad.toml"), "[").unwrap();
    let metadata = build.cache();
    assert_eq!(metadata.buildpacks[0].layers.len(), 1);
    assert_eq!(build.warnings.len(), 2);
}

/// A FIFO or a link out of the layers directory does not stop or mislead anything.
#[test]
fn hostile_layers_directories_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("x")).unwrap();
    fs::write(outside.path().join("x/secret"), "secret").unwrap();
    fs::write(outside.path().join("x.toml"), "[types]\ncache = true\n").unwrap();
    let mut build = Build::new();
    fs::remove_dir(build.path("layers/acme_node")).unwrap();
    symlink(outside.path(), build.path("layers/acme_node")).unwrap();
    build.cache();
    assert_eq!(build.warnings.len(), 1, "{:?}", build.warnings);
    assert!(!build.path("cache/committed/io.buildpacks.lifecycle.cache.metadata").exists());
}
