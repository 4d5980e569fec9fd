use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::*;
use crate::oci::blob::Notes;
use crate::oci::digest::{DiffId, HashingWriter};
use crate::oci::encoder::{Encoders, Encoding};
use crate::oci::image::{Image, ImageConfiguration, Layer, MediaFamily, RootFs};
use crate::oci::layer::{LayerWriter, Owner};

fn layer(directory: &Path, contents: &str) -> Layer {
    let owner = Owner::ROOT;
    let encoders = Encoders::new(Encoding::Gzip);
    let gzip = encoders.writer(HashingWriter::new(Vec::new()));
    let mut writer = LayerWriter::new(HashingWriter::new(gzip));
    writer.file(b"/hello", 0o644, owner, contents.len() as u64, contents.as_bytes()).unwrap();
    let (diff_id, _, gzip) = writer.finish().unwrap().finish();
    let (digest, size, bytes) = gzip.finish().unwrap().finish();
    let blob = directory.join(digest.hex());
    fs::write(&blob, bytes).unwrap();
    Layer { media_type: MediaType::ImageLayerGzip, digest, size, diff_id: DiffId(diff_id), blob: blob.into() }
}

fn image(layers: Vec<Layer>, architecture: &str) -> Image {
    let diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    Image {
        family: MediaFamily::Oci,
        configuration: ImageConfiguration {
            created: Some("1980-01-01T00:00:01Z".to_owned()),
            author: None,
            architecture: architecture.to_owned(),
            variant: None,
            os: "linux".to_owned(),
            os_version: None,
            config: crate::oci::image::RunConfiguration::default(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
            history: vec![],
            other: std::collections::BTreeMap::new(),
        },
        layers,
    }
}

fn write(directory: &Path, image: &Image, reference: &str) -> Digest {
    ImageLayout::open(directory).unwrap().write(image, reference, &(), &mut |_| true).unwrap()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("`{program}` is needed for this test: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Name, inode and modification time of everything: shows what was touched.
fn state(directory: &Path) -> Vec<(PathBuf, u64, i64, i64)> {
    let mut state = Vec::new();
    for directory in [directory.to_owned(), directory.join(BLOBS)] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::metadata(&path).unwrap();
            state.push((path, metadata.ino(), metadata.mtime(), metadata.mtime_nsec()));
        }
    }
    state.sort();
    state
}

#[test]
fn outside_tools_accept_it() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    let digest = write(&layout, &image(vec![layer(root.path(), "hi")], "amd64"), "v1");
    let source = format!("oci:{}:v1", layout.display());
    let inspected: Value = serde_json::from_str(&run("skopeo", &["inspect", &source])).unwrap();
    assert_eq!(inspected["Digest"], digest.as_str());
    assert_eq!(inspected["Architecture"], "amd64");
    let copy = root.path().join("copy");
    run("skopeo", &["--insecure-policy", "copy", "-q", &source, &format!("dir:{}", copy.display())]);
    let bundle = root.path().join("bundle");
    let image = format!("{}:v1", layout.display());
    run("umoci", &["unpack", "--rootless", "--image", &image, bundle.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(bundle.join("rootfs/hello")).unwrap(), "hi");
}

#[test]
fn the_same_image_again_touches_nothing() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    let image = image(vec![layer(root.path(), "hi")], "amd64");
    write(&layout, &image, "v1");
    let before = state(&layout);
    write(&layout, &image, "v1");
    assert_eq!(state(&layout), before);
}

#[test]
fn other_images_and_what_they_say_stay() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    let first = image(vec![layer(root.path(), "1")], "amd64");
    let second = image(vec![layer(root.path(), "2")], "arm64");
    write(&layout, &first, "one");
    let index = fs::read_to_string(layout.join(INDEX_FILE)).unwrap();
    let index = index.replace(r#""annotations":{"#, r#""x-unknown":1,"annotations":{"a":"b","#);
    fs::write(layout.join(INDEX_FILE), index).unwrap();
    write(&layout, &second, "two");
    write(&layout, &first, "two");
    write(&layout, &second, "two");
    let index: Value = serde_json::from_slice(&fs::read(layout.join(INDEX_FILE)).unwrap()).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2);
    assert_eq!(manifests[0]["x-unknown"], 1);
    assert_eq!(manifests[0]["annotations"]["a"], "b");
    assert_eq!(read_image(&layout, Some("one"), None).unwrap().image.configuration.architecture, "amd64");
    assert_eq!(read_image(&layout, Some("two"), None).unwrap().image.configuration.architecture, "arm64");
}

/// As `BuildKit` and `docker save` name images for engines on containerd's store, which take
/// the name of the layout for a whole one otherwise.
#[test]
fn names_with_tags_are_also_those_of_engines() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    let image = image(vec![layer(root.path(), "hi")], "amd64");
    let expected = [
        ("app:1", "docker.io/library/app:1".into()),
        ("localhost:5000/app:1", "localhost:5000/app:1".into()),
        ("v1", Value::Null),
        ("localhost:5000/app", Value::Null),
    ];
    for (name, _) in &expected {
        write(&layout, &image, name);
    }
    let index: Value = serde_json::from_slice(&fs::read(layout.join(INDEX_FILE)).unwrap()).unwrap();
    let named = |entry: &Value| entry["annotations"]["io.containerd.image.name"].clone();
    let found: Vec<Value> = index["manifests"].as_array().unwrap().iter().map(named).collect();
    assert_eq!(found, expected.map(|(_, name)| name));
}

#[test]
fn a_blob_of_the_wrong_size_is_written_again() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    let image = image(vec![layer(root.path(), "hi")], "amd64");
    write(&layout, &image, "v1");
    let blob = blob_path(&layout, &image.layers[0].digest);
    fs::write(&blob, "short").unwrap();
    let (_, manifest) = image.documents();
    fs::write(blob_path(&layout, &manifest.digest), "{}").unwrap();
    write(&layout, &image, "v1");
    assert_eq!(Digest::of(&fs::read(&blob).unwrap()), image.layers[0].digest);
    read_image(&layout, None, None).unwrap();
}

#[test]
fn a_source_blob_that_is_damaged_is_not_copied() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    let image = image(vec![layer(root.path(), "hi")], "amd64");
    let mut bytes = fs::read(image.layers[0].file().unwrap()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(image.layers[0].file().unwrap(), &bytes).unwrap();
    let writer = ImageLayout::open(&layout).unwrap();
    let error = writer.write(&image, "v1", &(), &mut |_| true).unwrap_err();
    assert_eq!(error.id(), "layout.wrong_digest");
    bytes.push(0);
    fs::write(image.layers[0].file().unwrap(), &bytes).unwrap();
    assert_eq!(writer.write(&image, "v1", &(), &mut |_| true).unwrap_err().id(), "layout.wrong_size");
    assert_eq!(fs::read_dir(layout.join(BLOBS)).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&layout).unwrap().count(), 3);
}

fn place(directory: &Path, image: &Image, linkable: Option<&Path>) -> Result<Digest, LayoutError> {
    let placing = Placing { reference: "v1", linkable, ..Placing::default() };
    ImageLayout::open(directory)
        .unwrap()
        .place(image, &placing, &(), &mut |_| true)
        .map(|placed| placed.digest)
}

fn file_of(path: &Path) -> (u64, u64, u64) {
    let found = fs::metadata(path).unwrap();
    (found.dev(), found.ino(), found.nlink())
}

#[test]
fn a_blob_that_may_be_linked_is_and_never_into_two_layouts() {
    let root = tempfile::tempdir().unwrap();
    let image = image(vec![layer(root.path(), "hi")], "amd64");
    let source = image.layers[0].file().unwrap().to_owned();
    let layouts = ["one", "two", "three"].map(|name| root.path().join(name));
    let blobs = layouts.each_ref().map(|layout| blob_path(layout, &image.layers[0].digest));
    place(&layouts[0], &image, Some(root.path())).unwrap();
    let (device, inode, names) = file_of(&blobs[0]);
    assert_eq!((device, inode, names), file_of(&source));
    assert_eq!(names, 2);
    place(&layouts[1], &image, Some(root.path())).unwrap();
    assert_ne!(file_of(&blobs[1]).1, inode);
    assert_eq!(file_of(&source).2, 2);
    // Only what is right in that directory.
    fs::remove_file(&blobs[0]).unwrap();
    place(&layouts[2], &image, Some(root.path().parent().unwrap())).unwrap();
    assert_eq!(file_of(&source).2, 1);
    for layout in &layouts[1..] {
        let bundle = layout.with_extension("bundle");
        run(
            "umoci",
            &[
                "unpack",
                "--rootless",
                "--image",
                &format!("{}:v1", layout.display()),
                bundle.to_str().unwrap(),
            ],
        );
        assert_eq!(fs::read_to_string(bundle.join("rootfs/hello")).unwrap(), "hi");
    }
    // What was there and wrong is replaced, not written over.
    fs::write(&blobs[1], "damaged").unwrap();
    place(&layouts[1], &image, Some(root.path())).unwrap();
    assert_eq!(file_of(&blobs[1]), file_of(&source));
    for layout in &layouts {
        assert_eq!(fs::read_dir(layout).unwrap().count(), 3, "no temporary names are left");
    }
}

#[test]
fn a_blob_of_another_size_is_not_linked() {
    let root = tempfile::tempdir().unwrap();
    let image = image(vec![layer(root.path(), "hi")], "amd64");
    fs::write(image.layers[0].file().unwrap(), "short").unwrap();
    let layout = root.path().join("layout");
    assert_eq!(place(&layout, &image, Some(root.path())).unwrap_err().id(), "layout.wrong_size");
    assert_eq!(fs::read_dir(layout.join(BLOBS)).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&layout).unwrap().count(), 3);
}

/// The directory for temporary files is often on another file system.
#[test]
fn a_blob_on_another_file_system_is_copied() {
    let root = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    assert_ne!(device(root.path()), device(other.path()), "this test needs two file systems");
    let image = image(vec![layer(other.path(), "hi")], "amd64");
    let layout = root.path().join("layout");
    place(&layout, &image, Some(other.path())).unwrap();
    assert_eq!(
        Digest::of(&fs::read(blob_path(&layout, &image.layers[0].digest)).unwrap()),
        image.layers[0].digest
    );
    assert_eq!(file_of(image.layers[0].file().unwrap()).2, 1);
}

#[test]
fn k10_stopping_in_the_middle_leaves_the_old_image() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    let old = write(&layout, &image(vec![layer(root.path(), "old")], "amd64"), "v1");
    let new = image(vec![layer(root.path(), "new"), layer(root.path(), "newer")], "amd64");
    let mut calls = 0;
    let mut stop_at_second = |_| {
        calls += 1;
        calls < 2
    };
    let writer = ImageLayout::open(&layout).unwrap();
    let error = writer.write(&new, "v1", &(), &mut stop_at_second).unwrap_err();
    assert_eq!(error.id(), "build.cancelled");
    assert_eq!(read_image(&layout, Some("v1"), None).unwrap().digest, old);
    run("skopeo", &["inspect", &format!("oci:{}:v1", layout.display())]);
}

#[test]
fn what_a_killed_write_left_is_no_obstacle() {
    let root = tempfile::tempdir().unwrap();
    let image = image(vec![layer(root.path(), "hi")], "amd64");
    for left in [&[".wapack-1-oci-layout"][..], &[LAYOUT_FILE], &[LAYOUT_FILE, ".wapack-7-index.json"]] {
        let layout = root.path().join(format!("layout{}", left.join("")));
        fs::create_dir(&layout).unwrap();
        for name in left {
            fs::write(layout.join(name), LAYOUT_DOCUMENT).unwrap();
        }
        write(&layout, &image, "v1");
        assert_eq!(fs::read_dir(&layout).unwrap().count(), 3, "{left:?}");
        read_image(&layout, Some("v1"), None).unwrap();
    }
}

#[test]
fn directories_of_something_else_are_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("precious"), "").unwrap();
    assert_eq!(ImageLayout::open(root.path()).unwrap_err().id(), "layout.not_a_layout");
    fs::write(root.path().join(LAYOUT_FILE), r#"{"imageLayoutVersion":"9"}"#).unwrap();
    assert_eq!(ImageLayout::open(root.path()).unwrap_err().id(), "layout.invalid");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
}

#[test]
fn two_writers_do_not_meet() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    let first = ImageLayout::open(&layout).unwrap();
    assert_eq!(ImageLayout::open(&layout).unwrap_err().id(), "layout.busy");
    drop(first);
    ImageLayout::open(&layout).unwrap();
}

#[test]
fn an_image_is_found_by_name_or_system_or_by_being_the_only_one() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    let amd64 = image(vec![layer(root.path(), "1")], "amd64");
    let arm64 = image(vec![layer(root.path(), "2")], "arm64");
    write(&layout, &amd64, "one");
    assert_eq!(read_image(&layout, None, None).unwrap().image.layers.len(), 1);
    write(&layout, &arm64, "two");
    let ambiguous = read_image(&layout, None, None).unwrap_err();
    assert_eq!(ambiguous.id(), "layout.ambiguous");
    assert_eq!(ambiguous.hint().unwrap(), "it has `one`, `two`");
    let arm = Platform { os: "linux", architecture: "arm64", variant: Some("v8") };
    let found = read_image(&layout, None, Some(arm)).unwrap();
    assert_eq!(found.image.configuration.architecture, "arm64");
    let missing = read_image(&layout, Some("three"), None).unwrap_err();
    assert_eq!(missing.id(), "layout.no_such_image");
    assert!(missing.to_string().ends_with("has no image called `three`"), "{missing}");
}

#[test]
fn an_index_of_an_index_is_followed_by_system() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    write(&layout, &image(vec![layer(root.path(), "1")], "amd64"), "one");
    write(&layout, &image(vec![layer(root.path(), "2")], "arm64"), "two");
    let inner = fs::read(layout.join(INDEX_FILE)).unwrap();
    let digest = Digest::of(&inner);
    fs::write(blob_path(&layout, &digest), &inner).unwrap();
    let mut outer = empty_index();
    outer["manifests"] = json!([{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest.as_str(), "size": inner.len()
    }]);
    fs::write(layout.join(INDEX_FILE), index_bytes(&outer)).unwrap();
    let amd64 = Platform { os: "linux", architecture: "amd64", variant: None };
    let found = read_image(&layout, None, Some(amd64)).unwrap();
    assert_eq!(found.image.configuration.architecture, "amd64");
}

#[test]
fn documents_that_lie_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    let image = image(vec![layer(root.path(), "hi")], "amd64");
    write(&layout, &image, "v1");
    let (configuration, _) = image.documents();
    let path = blob_path(&layout, &configuration.digest);
    let mut bytes = configuration.bytes.clone();
    let place = bytes.windows(5).position(|window| window == b"amd64").unwrap();
    bytes[place..place + 5].copy_from_slice(b"amd65");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(read_image(&layout, None, None).unwrap_err().id(), "layout.wrong_digest");
    fs::write(&path, vec![b' '; 5 << 20]).unwrap();
    assert_eq!(read_image(&layout, None, None).unwrap_err().id(), "layout.invalid");

    let index = fs::read_to_string(layout.join(INDEX_FILE)).unwrap();
    let evil = index.replace("sha256:", "sha256:../");
    fs::write(layout.join(INDEX_FILE), evil).unwrap();
    assert_eq!(read_image(&layout, None, None).unwrap_err().id(), "layout.invalid");
}

/// Notes in memory.
#[derive(Default)]
struct Memory(std::cell::RefCell<std::collections::BTreeMap<String, String>>);

impl Notes for Memory {
    fn note(&self, name: &str) -> Option<String> {
        self.0.borrow().get(name).cloned()
    }

    fn keep_note(&self, name: &str, text: &str) {
        self.0.borrow_mut().insert(name.to_owned(), text.to_owned());
    }
}

/// A bad disk, a bad copy, or somebody with an editor: right size, wrong bytes.
#[test]
fn a_blob_with_wrong_bytes_is_written_again() {
    let root = tempfile::tempdir().unwrap();
    let layout = root.path().join("layout");
    let image = image(vec![layer(root.path(), "hi")], "amd64");
    let blob = blob_path(&layout, &image.layers[0].digest);
    let memory = Memory::default();
    let write = |notes: &dyn Notes| {
        ImageLayout::open(&layout).unwrap().write(&image, "v1", notes, &mut |_| true).unwrap();
        Digest::of(&fs::read(&blob).unwrap()) == image.layers[0].digest
    };
    assert!(write(&memory));
    let damage = || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut bytes = fs::read(&blob).unwrap();
        bytes[12] ^= 1;
        fs::write(&blob, bytes).unwrap();
    };
    for notes in [&memory as &dyn Notes, &()] {
        damage();
        assert!(write(notes));
    }
    // A blob that is as it was is not read: this one would be noticed.
    write(&memory);
    damage();
    let seal = fs::metadata(&blob).unwrap();
    for text in memory.0.borrow_mut().values_mut() {
        let mut seals: Value = serde_json::from_str(text).unwrap();
        seals[image.layers[0].digest.as_str()]["changed"] = json!([seal.ctime(), seal.ctime_nsec()]);
        *text = seals.to_string();
    }
    assert!(!write(&memory));
    // Notes that are none cost a read.
    for text in memory.0.borrow_mut().values_mut() {
        *text = "[]".into();
    }
    assert!(write(&memory));
    // A link to a good blob is not a blob.
    let elsewhere = root.path().join("elsewhere");
    fs::rename(&blob, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &blob).unwrap();
    assert!(write(&memory));
    assert!(fs::symlink_metadata(&blob).unwrap().is_file());
}
