use std::process::Command;

use oci_spec::image::MediaType;

use fs_err as fs;

use super::*;
use crate::oci::digest::HashingWriter;
use crate::oci::encoder::{Encoders, Encoding};
use crate::oci::image::{ImageConfiguration, Layer, MediaFamily, RootFs, RunConfiguration};
use crate::oci::layer::{LayerWriter, Owner};

fn tar(contents: &str) -> Vec<u8> {
    let mut writer = LayerWriter::new(Vec::new());
    writer.file(b"/hello", 0o644, Owner::ROOT, contents.len() as u64, contents.as_bytes()).unwrap();
    writer.finish().unwrap()
}

fn layer(directory: &Path, contents: &str) -> Layer {
    let tar = tar(contents);
    let encoders = Encoders::new(Encoding::Gzip);
    let mut gzip = encoders.writer(HashingWriter::new(Vec::new()));
    io::Write::write_all(&mut gzip, &tar).unwrap();
    let (digest, size, bytes) = gzip.finish().unwrap().finish();
    let blob = directory.join(digest.hex());
    fs::write(&blob, bytes).unwrap();
    Layer {
        media_type: MediaType::ImageLayerGzip,
        digest,
        size,
        diff_id: DiffId(Digest::of(&tar)),
        blob: blob.into(),
    }
}

fn image(layers: Vec<Layer>) -> Image {
    let diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    Image {
        family: MediaFamily::Oci,
        configuration: ImageConfiguration {
            created: Some("1980-01-01T00:00:01Z".to_owned()),
            author: None,
            architecture: "amd64".to_owned(),
            variant: None,
            os: "linux".to_owned(),
            os_version: None,
            config: RunConfiguration::default(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
            history: vec![],
            other: std::collections::BTreeMap::new(),
        },
        layers,
    }
}

struct Fixture {
    root: tempfile::TempDir,
    images: LayoutImages,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let images = LayoutImages::new(root.path().join("images"), "amd64".to_owned());
        Self { root, images }
    }

    fn image(&self, contents: &str) -> Image {
        image(vec![layer(self.root.path(), contents)])
    }

    fn save(&self, image: &Image, names: &[&str]) -> Result<SavedImage, ImagesError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.images.save(image, &names, &(), &Cancel::default(), &mut |_| ())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.images.directory.join(path)
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("`{program}` is needed for this test: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(tar: Box<dyn Read>) -> String {
    let mut archive = tar::Archive::new(tar);
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut text = String::new();
    entry.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn rpt_04_each_name_is_a_layout_and_other_tools_find_it_by_its_tag() {
    let fixture = Fixture::new();
    let image = fixture.image("hi");
    let saved = fixture.save(&image, &["app", "registry.example:5000/a/b:1"]).unwrap();
    for (path, tag) in
        [("index.docker.io/library/app/latest", "latest"), ("registry.example:5000/a/b/1", "1")]
    {
        let index = fs::read_to_string(fixture.path(path).join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "{path}");
        assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], tag);
        let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
        let manifest = fs::read_to_string(fixture.path(path).join("blobs").join(digest)).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest["annotations"], serde_json::json!({"org.opencontainers.image.ref.name": tag}));
    }
    // A colon would end the directory.
    let place = format!("oci:{}:latest", fixture.path("index.docker.io/library/app/latest").display());
    let inspected: serde_json::Value = serde_json::from_str(&run("skopeo", &["inspect", &place])).unwrap();
    assert_eq!(inspected["Digest"], saved.digest.unwrap().as_str());
}

#[test]
fn rpt_04_a_digest_is_below_its_algorithm() {
    let fixture = Fixture::new();
    let image = fixture.image("hi");
    let (_, manifest) = image.documents();
    let name = format!("registry.example/run@{}", manifest.digest);
    fixture.save(&image, &[&name]).unwrap();
    let place = fixture.path("registry.example/run/sha256").join(manifest.digest.hex());
    assert!(place.join("oci-layout").is_file());
    let found = fixture.images.find(&name).unwrap().unwrap();
    assert_eq!(found.reference, format!("{}@{}", place.display(), manifest.digest));
}

#[test]
fn rpt_01_what_was_saved_is_told() {
    let fixture = Fixture::new();
    let image = fixture.image("hi");
    let saved = fixture.save(&image, &["b", "a:1"]).unwrap();
    let (_, manifest) = image.documents_called("latest");
    assert_eq!(saved.names, ["b", "a:1"]);
    assert_eq!(saved.digest, Some(manifest.digest));
    assert_eq!(saved.manifest_bytes, Some(manifest.bytes.len() as u64));
    assert_eq!(saved.id, None);
}

#[test]
fn rpt_06_all_names_are_tried_and_each_failure_is_named() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("registry.example/a")).unwrap();
    fs::write(fixture.path("registry.example/a/1"), "in the way").unwrap();
    let names = ["registry.example/a:1", "No Name", "registry.example/a:2"];
    let error = fixture.save(&fixture.image("hi"), &names).unwrap_err();
    let message = error.to_string();
    let ImagesError::Unsaved { saved, unsaved } = error else { panic!("{error:?}") };
    assert_eq!(saved.names, ["registry.example/a:2"]);
    assert_eq!(unsaved.iter().map(|unsaved| unsaved.name.as_str()).collect::<Vec<_>>(), names[..2]);
    for name in &names[..2] {
        assert!(message.contains(name), "{message}");
    }
    assert!(fixture.images.find(names[2]).unwrap().is_some());
}

#[test]
fn an_image_is_found_by_name_path_and_path_with_digest() {
    let fixture = Fixture::new();
    let image = fixture.image("hi");
    fixture.save(&image, &["app:1"]).unwrap();
    let by_name = fixture.images.find("app:1").unwrap().unwrap();
    assert_eq!(by_name.image.configuration, image.configuration);
    assert_eq!(fixture.images.find(&by_name.reference).unwrap().unwrap(), by_name);
    let path = fixture.path("index.docker.io/library/app/1");
    assert_eq!(fixture.images.find(path.to_str().unwrap()).unwrap().unwrap(), by_name);
    let other = format!("{}@{}", path.display(), Digest::of(b"other"));
    assert_eq!(fixture.images.find(&other).unwrap(), None);
    assert_eq!(fixture.images.find("app:2").unwrap(), None);
    for name in [format!("{}@x", path.display()), format!("{}/../x", path.display())] {
        assert!(matches!(fixture.images.find(&name), Err(ImagesError::Name(_))), "{name}");
    }
}

#[test]
fn layers_come_without_their_compression() {
    let fixture = Fixture::new();
    let tar = tar("zstd");
    let plain = fixture.root.path().join("plain");
    fs::write(&plain, &tar).unwrap();
    let packed = fixture.root.path().join("packed");
    run("zstd", &["-q", plain.to_str().unwrap(), "-o", packed.to_str().unwrap()]);
    let of = |path: &Path, media_type| {
        let bytes = fs::read(path).unwrap();
        let diff_id = DiffId(Digest::of(&tar));
        Layer {
            media_type,
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            diff_id,
            blob: path.to_owned().into(),
        }
    };
    let gzip = layer(fixture.root.path(), "gzip");
    let gzip_id = gzip.diff_id.clone();
    fixture.save(&image(vec![of(&packed, MediaType::ImageLayerZstd), gzip]), &["a"]).unwrap();
    fixture.save(&image(vec![of(&plain, MediaType::ImageLayer)]), &["b"]).unwrap();
    let zstd_id = DiffId(Digest::of(&tar));
    let (a, b) = (fixture.images.find("a").unwrap().unwrap(), fixture.images.find("b").unwrap().unwrap());
    assert_eq!(text(fixture.images.layer(&a, &zstd_id).unwrap()), "zstd");
    assert_eq!(text(fixture.images.layer(&a, &gzip_id).unwrap()), "gzip");
    assert_eq!(text(fixture.images.layer(&b, &zstd_id).unwrap()), "zstd");
    assert!(matches!(fixture.images.layer(&b, &gzip_id), Err(ImagesError::NoLayer { .. })));
}

#[test]
fn an_index_that_nobody_can_read_is_written_anew() {
    let fixture = Fixture::new();
    let image = fixture.image("hi");
    fixture.save(&image, &["app"]).unwrap();
    let index = fixture.path("index.docker.io/library/app/latest/index.json");
    let written = fs::read(&index).unwrap();
    fs::write(&index, "not json").unwrap();
    fixture.save(&image, &["app"]).unwrap();
    assert_eq!(fs::read(&index).unwrap(), written);
}

#[test]
fn a_damaged_image_is_told_from_one_that_cannot_be_reached() {
    let fixture = Fixture::new();
    let image = fixture.image("hi");
    let (configuration, manifest) = image.documents_called("latest");
    for damage in [&configuration.digest, &manifest.digest] {
        fixture.save(&image, &["app"]).unwrap();
        let blob = fixture.path("index.docker.io/library/app/latest/blobs/sha256").join(damage.hex());
        fs::write(&blob, "{}").unwrap();
        assert!(matches!(fixture.images.find("app"), Err(ImagesError::Damaged { .. })));
        fs::remove_file(&blob).unwrap();
        assert!(matches!(fixture.images.find("app"), Err(ImagesError::Damaged { .. })));
    }
    let index = fixture.path("index.docker.io/library/app/latest/index.json");
    fs::write(&index, "not json").unwrap();
    assert!(matches!(fixture.images.find("app"), Err(ImagesError::Damaged { .. })));
    fs::remove_file(&index).unwrap();
    fs::create_dir(&index).unwrap();
    assert!(matches!(fixture.images.find("app"), Err(ImagesError::Image { .. })));
}

#[test]
fn a_name_saved_again_has_the_new_image_only() {
    let fixture = Fixture::new();
    fixture.save(&fixture.image("old"), &["app"]).unwrap();
    let new = fixture.image("new");
    let path = fixture.path("index.docker.io/library/app/latest");
    // As other tools leave it: a name of their own.
    let index = path.join("index.json");
    fs::write(&index, fs::read_to_string(&index).unwrap().replace("latest", "other")).unwrap();
    fixture.save(&new, &["app"]).unwrap();
    let found = fixture.images.find("app").unwrap().unwrap();
    assert_eq!(found.image.configuration, new.configuration);
    assert_eq!(
        run("umoci", &["list", "--layout", path.to_str().unwrap()]),
        "latest
"
    );
}

#[test]
fn blobs_that_the_platform_left_out_stay_out() {
    let fixture = Fixture::new();
    let base = fixture.image("base");
    fixture.save(&base, &["run"]).unwrap();
    let blob = |name: &str, layer: &Layer| {
        fixture.path(&format!("index.docker.io/library/{name}/latest/blobs/sha256")).join(layer.digest.hex())
    };
    fs::remove_file(blob("run", &base.layers[0])).unwrap();
    let mut layers = fixture.images.find("run").unwrap().unwrap().image.layers;
    let app_layer = layer(fixture.root.path(), "app");
    layers.push(app_layer.clone());
    fixture.save(&image(layers.clone()), &["app"]).unwrap();
    assert!(!blob("app", &base.layers[0]).exists());
    assert!(blob("app", &app_layer).exists());
    // A blob of our own that is gone is an error.
    layers[1].blob = fixture.root.path().join("gone").into();
    let error = fixture.save(&image(layers), &["other"]).unwrap_err();
    assert!(matches!(error, ImagesError::Unsaved { .. }), "{error:?}");
}

#[test]
fn whether_a_name_can_be_written_is_known_before() {
    let fixture = Fixture::new();
    fixture.images.check_write("registry.example/a:1").unwrap();
    assert!(!fixture.images.directory.exists(), "asking makes nothing");
    fs::create_dir_all(fixture.path("registry.example")).unwrap();
    fs::write(fixture.path("registry.example/a"), "").unwrap();
    let error = fixture.images.check_write("registry.example/a:1").unwrap_err();
    assert!(matches!(error, ImagesError::NotWritable { .. }), "{error:?}");
    assert!(matches!(fixture.images.check_write("a b"), Err(ImagesError::Name(_))));
}
