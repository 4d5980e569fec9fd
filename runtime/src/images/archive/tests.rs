use std::process::Command;

use oci_spec::image::MediaType;

use super::*;
use crate::event::{Event, Transfer};
use crate::images::{DockerArchive, Images, ImagesError, OciArchive, OciDirectory};
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{BlobPlace, Image, ImageConfiguration, MediaFamily, RootFs, RunConfiguration};

/// An image with one layer of this blob.
fn image(directory: &Path, name: &str, blob: &[u8], tar: &[u8], media_type: MediaType) -> Image {
    let path = directory.join(name);
    fs::write(&path, blob).unwrap();
    let diff_id = DiffId(Digest::of(tar));
    let configuration = ImageConfiguration {
        created: None,
        author: None,
        architecture: "amd64".into(),
        variant: None,
        os: "linux".into(),
        os_version: None,
        config: RunConfiguration::default(),
        rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id.clone()] },
        history: vec![],
        other: std::collections::BTreeMap::default(),
    };
    let (digest, size) = (Digest::of(blob), blob.len() as u64);
    let layer = Layer { media_type, digest, size, diff_id, blob: path.into() };
    Image { family: MediaFamily::Oci, configuration, layers: vec![layer] }
}

/// A tar with one file, as tar makes it.
fn tar_of(directory: &Path, text: &str) -> Vec<u8> {
    fs::write(directory.join("hello"), text).unwrap();
    let output = Command::new("tar").args(["-cf", "-", "hello"]).current_dir(directory).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    child.wait_with_output().unwrap().stdout
}

fn save(images: &dyn Images, image: &Image, name: &str) -> Result<(), ImagesError> {
    images.save(image, &[name.to_owned()], &(), &Cancel::default(), &mut |_| ()).map(drop)
}

/// The contents of a layer, read through the place.
fn read_back(images: &dyn Images, name: &str) -> Vec<u8> {
    let found = images.find(name).unwrap().unwrap();
    let mut tar = Vec::new();
    images.layer(&found, &found.image.layers[0].diff_id).unwrap().read_to_end(&mut tar).unwrap();
    tar
}

#[test]
fn a_damaged_layer_leaves_the_archive_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let tar = tar_of(root.path(), "one");
    let good = image(root.path(), "good", &compressed("gzip", &tar), &tar, MediaType::ImageLayerGzip);
    let (oci, docker) = (root.path().join("oci.tar"), root.path().join("docker.tar"));
    let places: [(Box<dyn Images>, &Path); 2] = [
        (Box::new(OciArchive::new(oci.clone(), None)), &oci),
        (Box::new(DockerArchive::new(docker.clone())), &docker),
    ];
    for (place, file) in places {
        save(&*place, &good, "app:1").unwrap();
        let before = fs::read(file).unwrap();
        for damage in ["longer than the blob was, and by far so that it cannot be the same", "other", ""] {
            let mut bad =
                image(root.path(), "bad", &compressed("gzip", &tar), &tar, MediaType::ImageLayerGzip);
            fs::write(root.path().join("bad"), damage).unwrap();
            let error = save(&*place, &bad, "app:1").unwrap_err();
            assert_eq!(error.damaged_file(&bad), Some(root.path().join("bad")), "{error}");
            fs::remove_file(root.path().join("bad")).unwrap();
            assert!(save(&*place, &bad, "app:1").unwrap_err().damaged_file(&bad).is_some());
            bad.layers[0].blob = BlobPlace::Engine;
            assert!(save(&*place, &bad, "app:1").unwrap_err().is_not_here());
        }
        let stopped = Cancel::default();
        stopped.cancel();
        let error = place.save(&good, &["app:2".to_owned()], &(), &stopped, &mut |_| ()).unwrap_err();
        assert_eq!(error.id(), "build.cancelled");
        assert!(fs::read(file).unwrap() == before);
        let names: Vec<_> =
            fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".wapack")), "{names:?}");
        assert_eq!(read_back(&*place, "app:1"), tar);
    }
}

/// `docker load` of older engines knows no zstd.
#[test]
fn a_layer_with_zstd_is_unpacked_for_docker() {
    let root = tempfile::tempdir().unwrap();
    let tar = tar_of(root.path(), "zstd");
    let image = image(root.path(), "zstd", &compressed("zstd", &tar), &tar, MediaType::ImageLayerZstd);
    let file = root.path().join("docker.tar");
    let place = DockerArchive::new(file.clone());
    save(&place, &image, "app").unwrap();
    let name = format!("{}.tar", Digest::of(&tar).hex());
    let output = Command::new("tar").arg("-xOf").arg(&file).arg(&name).output().unwrap();
    assert!(output.stdout == tar, "{}", String::from_utf8_lossy(&output.stderr));
    let found = place.find("app:latest").unwrap().unwrap().image;
    let layer = &found.layers[0];
    assert_eq!((layer.size, &layer.digest), (tar.len() as u64, &Digest::of(&tar)));
}

/// A layer that is a part of an archive goes on from there, verified.
#[test]
fn parts_of_an_archive_are_copied_and_verified() {
    let root = tempfile::tempdir().unwrap();
    let tar = tar_of(root.path(), "part");
    let blob = compressed("gzip", &tar);
    let original = image(root.path(), "blob", &blob, &tar, MediaType::ImageLayerGzip);
    let file = root.path().join("oci.tar");
    let archive = OciArchive::new(file.clone(), None);
    save(&archive, &original, "app").unwrap();
    fs::remove_file(root.path().join("blob")).unwrap();
    let found = archive.find("").unwrap().unwrap();
    let layout = OciDirectory::new(root.path().join("layout"), None);
    save(&layout, &found.image, "app").unwrap();
    assert_eq!(read_back(&layout, "app"), tar);
    let copied = root.path().join("layout/blobs/sha256").join(Digest::of(&blob).hex());
    assert!(fs::read(copied).unwrap() == blob);

    let BlobPlace::Part { start, .. } = found.image.layers[0].blob else { panic!("{found:?}") };
    let mut bytes = fs::read(&file).unwrap();
    bytes[usize::try_from(start).unwrap() + 12] ^= 1;
    fs::write(&file, bytes).unwrap();
    let again = archive.find("app").unwrap().unwrap();
    let error = save(&OciDirectory::new(root.path().join("other"), None), &again.image, "app").unwrap_err();
    assert_eq!(error.id(), "layout.wrong_digest");
}

#[test]
fn archives_that_are_none_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let tar = tar_of(root.path(), "x");
    let good = image(root.path(), "blob", &tar, &tar, MediaType::ImageLayer);
    let file = root.path().join("a.tar");
    let (oci, docker) = (OciArchive::new(file.clone(), None), DockerArchive::new(file.clone()));
    let refused = |place: &dyn Images| place.find("app").map(|found| found.is_some()).map_err(|e| full(&e));
    assert_eq!((refused(&oci), refused(&docker)), (Ok(false), Ok(false)));
    save(&oci, &good, "app").unwrap();
    let whole = fs::read(&file).unwrap();
    // The end of the archive, and the last block of its last file: whichever that is.
    fs::write(&file, &whole[..whole.len() - 1024 - 512]).unwrap();
    assert!(refused(&oci).unwrap_err().contains("is cut off"), "{:?}", refused(&oci));
    fs::write(&file, compressed("gzip", &whole)).unwrap();
    assert!(refused(&oci).unwrap_err().contains("is compressed"), "{:?}", refused(&oci));
    assert!(refused(&docker).unwrap_err().contains("is compressed"), "{:?}", refused(&docker));
    // Somebody else's tar.
    fs::write(&file, &tar).unwrap();
    assert_eq!(refused(&oci), Ok(false));
    assert!(refused(&docker).unwrap_err().contains("it has no `manifest.json`"));
    // A layer that is listed, and not there.
    fs::write(
        root.path().join("manifest.json"),
        r#"[{"Config":"c.json","RepoTags":null,"Layers":["../x"]}]"#,
    )
    .unwrap();
    fs::write(root.path().join("c.json"), serde_json::to_vec(&good.configuration).unwrap()).unwrap();
    let made = Command::new("tar")
        .args(["-cf", "a.tar", "manifest.json", "c.json"])
        .current_dir(root.path())
        .status()
        .unwrap();
    assert!(made.success());
    assert!(docker.find("").unwrap_err().to_string().contains("is damaged"));
}

fn full(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(full).unwrap_or_default();
    format!("{error}: {cause}")
}

/// What became of the layers of a saved image, and what was told meanwhile: bytes done and of all.
fn moved(place: &dyn Images, image: &Image, names: &[&str]) -> (Moved, Vec<(u64, u64)>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut told = Vec::new();
    let mut tell = |event| match event {
        Event::Transfer { transfer: Transfer::Publish, done_bytes, total_bytes } => {
            told.push((done_bytes, total_bytes));
        }
        other => panic!("{other:?}"),
    };
    let saved = place.save(image, &names, &(), &Cancel::default(), &mut tell).unwrap();
    (saved.moved, told)
}

#[test]
fn what_is_written_is_counted_and_told_and_what_is_there_is_not_written() {
    let root = tempfile::tempdir().unwrap();
    let tar = tar_of(root.path(), "counted");
    let blob = compressed("gzip", &tar);
    let mut twice = image(root.path(), "gzip", &blob, &tar, MediaType::ImageLayerGzip);
    twice.layers.push(twice.layers[0].clone());
    twice.configuration.rootfs.diff_ids.push(twice.layers[0].diff_id.clone());
    let bytes = blob.len() as u64;
    let (written, told) = (Moved::sent(bytes), vec![(bytes, bytes)]);

    let layout = OciDirectory::new(root.path().join("layout"), None);
    assert_eq!(moved(&layout, &twice, &["app:1", "app:2"]), (written, told.clone()));
    assert_eq!(moved(&layout, &twice, &["app:3"]), (Moved::present(bytes), vec![]));
    // An archive is written as a whole, always.
    for place in [
        Box::new(OciArchive::new(root.path().join("oci.tar"), None)) as Box<dyn Images>,
        Box::new(DockerArchive::new(root.path().join("docker.tar"))),
    ] {
        for _ in 0..2 {
            assert_eq!(moved(&*place, &twice, &["app:1", "app:2"]), (written, told.clone()));
        }
    }
    // Unpacked, it is as long as its tar.
    let zstd = image(root.path(), "zstd", &compressed("zstd", &tar), &tar, MediaType::ImageLayerZstd);
    let docker = DockerArchive::new(root.path().join("docker.tar"));
    let bytes = tar.len() as u64;
    assert_eq!(moved(&docker, &zstd, &["app"]), (Moved::sent(bytes), vec![(bytes, bytes)]));
}
