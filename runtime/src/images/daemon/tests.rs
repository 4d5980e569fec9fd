//! Against an engine of our own that answers as Docker 20.10 does, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::event::{Event, Transfer};
use crate::oci::image::{History, ImageConfiguration, RootFs, RunConfiguration};

/// One request, and what came with it.
#[derive(Debug)]
struct Asked {
    line: String,
    body: Vec<u8>,
}

/// An engine that gives one answer for each path; it ends with the connection.
struct FakeEngine {
    directory: TempDir,
    asked: mpsc::Receiver<Asked>,
}

type Answers = BTreeMap<String, Vec<(u16, Vec<u8>)>>;

impl FakeEngine {
    /// Answers by path; several for one path are given one after the other, the last for good.
    fn start(answers: &[(&str, u16, Vec<u8>)]) -> (Self, Daemon) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut map = Answers::new();
        for (path, status, body) in answers {
            map.entry((*path).to_owned()).or_default().push((*status, body.clone()));
        }
        let (sender, asked) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                serve(stream, &mut map, &sender);
            }
        });
        let daemon = Daemon::connect(DaemonAddress::Unix(socket), directory.path().to_owned()).unwrap();
        (Self { directory, asked }, daemon)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.try_iter().collect()
    }
}

fn serve(stream: UnixStream, answers: &mut Answers, sender: &mpsc::Sender<Asked>) {
    let mut output = stream.try_clone().unwrap();
    let mut input = BufReader::new(stream);
    loop {
        let (mut line, mut is_chunked) = (String::new(), false);
        loop {
            let mut header = String::new();
            if input.read_line(&mut header).unwrap_or_default() == 0 {
                return;
            }
            if header.trim().is_empty() {
                break;
            }
            is_chunked |= header.to_lowercase().starts_with("transfer-encoding: chunked");
            if line.is_empty() {
                line = header.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
            }
        }
        let mut body = Vec::new();
        while is_chunked {
            let mut size = String::new();
            input.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            input.read_exact(&mut chunk).unwrap();
            body.extend_from_slice(&chunk[..size]);
            is_chunked = size > 0;
        }
        let path = line.split_once(' ').unwrap().1.to_owned();
        sender.send(Asked { line, body }).unwrap();
        let missing = (404, br#"{"message":"No such image"}"#.to_vec());
        let (status, body) = match answers.get_mut(&path) {
            Some(all) if all.len() > 1 => all.remove(0),
            Some(all) => all[0].clone(),
            None => missing,
        };
        write!(output, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
        output.write_all(&body).unwrap();
    }
}

const ID: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

/// A tar with one file, and the digest of it.
fn layer_tar(content: &str) -> (DiffId, Vec<u8>) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, "file", content.as_bytes()).unwrap();
    let bytes = builder.into_inner().unwrap();
    (Digest::of(&bytes).to_string().parse().unwrap(), bytes)
}

fn inspected(layers: &[&DiffId]) -> Vec<u8> {
    let layers: Vec<String> = layers.iter().map(ToString::to_string).collect();
    let value = json!({"Id": format!("sha256:{ID}"), "Config": {"Env": ["A=b"]}, "Architecture": "amd64", "Os": "linux",
        "RootFS": {"Type": "layers", "Layers": layers}});
    serde_json::to_vec(&value).unwrap()
}

fn history() -> Vec<u8> {
    br#"[{"Created": 1, "CreatedBy": "y", "Size": 2}, {"Created": 1, "CreatedBy": "x", "Size": 2}]"#.to_vec()
}

/// What `docker save` gives: layers first, and one that is a link to another.
fn save_archive(layers: &[&[u8]]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut paths = vec![];
    for (index, layer) in layers.iter().enumerate() {
        let path = format!("{index}/layer.tar");
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        if let Some(first) = layers[..index].iter().position(|other| other == layer) {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, &path, format!("../{first}/layer.tar")).unwrap();
        } else {
            header.set_size(layer.len() as u64);
            builder.append_data(&mut header, &path, *layer).unwrap();
        }
        paths.push(path);
    }
    let manifest = serde_json::to_vec(&json!([{"Config": "c.json", "Layers": paths}])).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(manifest.len() as u64);
    builder.append_data(&mut header, "manifest.json", &manifest[..]).unwrap();
    builder.into_inner().unwrap()
}

/// A layer whose blob is a file of ours.
fn own_layer(directory: &Path, content: &str) -> Layer {
    let (diff_id, tar) = layer_tar(content);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&tar).unwrap();
    let blob_bytes = gzip.finish().unwrap();
    let blob = directory.join(content);
    std::fs::write(&blob, &blob_bytes).unwrap();
    let digest = Digest::of(&blob_bytes);
    Layer {
        media_type: MediaType::ImageLayerGzip,
        digest,
        size: blob_bytes.len() as u64,
        diff_id,
        blob: blob.into(),
    }
}

fn image_of(layers: Vec<Layer>) -> Image {
    let diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let configuration = ImageConfiguration {
        created: None,
        author: None,
        architecture: "amd64".to_owned(),
        variant: None,
        os: "linux".to_owned(),
        os_version: None,
        config: RunConfiguration::default(),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
        history: Vec::<History>::new(),
        other: BTreeMap::new(),
    };
    Image { family: MediaFamily::Docker, configuration, layers }
}

/// The entries of an archive that was sent: size by name, and the manifest.
fn entries(archive: &[u8]) -> (BTreeMap<String, u64>, Value) {
    let mut sizes = BTreeMap::new();
    let mut manifest = Value::Null;
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        sizes.insert(name.clone(), entry.size());
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if name == "manifest.json" {
            manifest = serde_json::from_slice(&bytes).unwrap();
        }
    }
    (sizes, manifest)
}

const INSPECT_APP: &str = "/images/index.docker.io/library/app:latest/json";
const CLASSIC: &[u8] = br#"{"Driver":"overlay2","DriverStatus":[["Backing Filesystem","extfs"]]}"#;
const SNAPSHOTTER: &[u8] =
    br#"{"Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}"#;
const LOADED: &[u8] = b"{\"stream\":\"Loaded image: app:latest\\n\"}\n";

#[test]
fn what_is_not_there_is_none_and_what_is_has_its_id_and_layers() {
    let ((first, _), (second, _)) = (layer_tar("1"), layer_tar("2"));
    let history_path = format!("/images/sha256:{ID}/history");
    let (_engine, daemon) = FakeEngine::start(&[
        ("/images/run/json", 200, inspected(&[&first, &second])),
        (&history_path, 200, history()),
        ("/images/broken/json", 500, br#"{"message":"no disk"}"#.to_vec()),
    ]);
    assert_eq!(daemon.find("other").unwrap(), None);
    let found = daemon.find("run").unwrap().unwrap();
    assert_eq!(found.reference, ID);
    assert_eq!(found.image.configuration.config.env, ["A=b"]);
    assert_eq!(found.image.layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>(), [&first, &second]);
    let steps: Vec<_> =
        found.image.configuration.history.iter().map(|step| step.created_by.as_deref()).collect();
    assert_eq!(steps, [Some("x"), Some("y")]);
    let error = daemon.find("broken").unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "the container engine answers 500: no disk");
    assert!(matches!(daemon.find("../x"), Err(ImagesError::Name(_))));
}

/// ANA-03
#[test]
fn ana_03_images_have_ids() {
    let path = format!("/images/sha256:{ID}/json");
    let (first, _) = layer_tar("1");
    let (_engine, daemon) = FakeEngine::start(&[(&path, 200, inspected(&[&first]))]);
    assert_eq!(daemon.find(ID).unwrap().unwrap().reference, ID);
    assert!(daemon.is_daemon());
}

#[test]
fn layers_the_engine_has_in_this_order_are_not_sent() {
    let ((first, _), (second, _)) = (layer_tar("1"), layer_tar("2"));
    let (engine, daemon) = FakeEngine::start(&[
        ("/info", 200, CLASSIC.to_vec()),
        ("/images/run/json", 200, inspected(&[&first, &second])),
        ("/images/load?quiet=1", 200, LOADED.to_vec()),
        (INSPECT_APP, 200, inspected(&[])),
    ]);
    let mut layers = daemon.find("run").unwrap().unwrap().image.layers;
    let own = own_layer(engine.directory.path(), "own");
    let own_name = format!("{}.tar", own.diff_id.to_string().trim_start_matches("sha256:"));
    layers.push(own.clone());
    let image = image_of(layers);
    engine.asked();
    let saved = daemon.save(&image, &["app".to_owned()], &NoBlobs, &Cancel::default(), &mut |_| ()).unwrap();
    assert_eq!((saved.id.as_deref(), saved.digest), (Some(ID), None));
    // How large its own layers are, an engine does not say.
    let (sent, present) = (Amount::one(own.size), Amount { layers: 2, bytes: 0 });
    assert_eq!(saved.moved, Moved { sent, present, ..Moved::default() });
    let asked = engine.asked();
    let load = asked.iter().find(|asked| asked.line.starts_with("POST /images/load")).unwrap();
    let (sizes, manifest) = entries(&load.body);
    assert_eq!((sizes["known-0"], sizes["known-1"], sizes[&own_name]), (0, 0, own.size));
    assert_eq!(manifest[0]["Layers"], json!(["known-0", "known-1", own_name]));
    assert_eq!(manifest[0]["RepoTags"], json!(["index.docker.io/library/app:latest"]));
    let (configuration, _) = image.documents();
    let name = format!("{}.json", configuration.digest.as_str().trim_start_matches("sha256:"));
    assert_eq!(manifest[0]["Config"], json!(name));
    assert_eq!(sizes[&name], configuration.bytes.len() as u64);
}

/// A layer of the previous image that stands on others now: it is copied out, once.
#[test]
fn a_reused_layer_in_another_place_comes_from_the_image_that_has_it() {
    let ((first, first_tar), (second, second_tar)) = (layer_tar("1"), layer_tar("2"));
    let get = format!("/images/sha256:{ID}/get");
    let (engine, daemon) = FakeEngine::start(&[
        ("/images/old/json", 200, inspected(&[&first, &second, &first])),
        (&get, 200, save_archive(&[&first_tar, &second_tar, &first_tar])),
        ("/images/load?quiet=1", 200, LOADED.to_vec()),
        (INSPECT_APP, 200, inspected(&[])),
    ]);
    let found = daemon.find("old").unwrap().unwrap();
    let reused = found.image.layers[1].clone();
    let image = image_of(vec![own_layer(engine.directory.path(), "new"), reused]);
    daemon.save(&image, &["app".to_owned()], &NoBlobs, &Cancel::default(), &mut |_| ()).unwrap();
    let mut tar = Vec::new();
    daemon.layer(&found, &second).unwrap().read_to_end(&mut tar).unwrap();
    assert_eq!(tar, second_tar);
    tar.clear();
    daemon.layer(&found, &first).unwrap().read_to_end(&mut tar).unwrap();
    assert_eq!(tar, first_tar);
    let asked = engine.asked();
    let load = asked.iter().find(|asked| asked.line.starts_with("POST /images/load")).unwrap();
    let name = format!("{}.tar", second.to_string().trim_start_matches("sha256:"));
    assert_eq!(entries(&load.body).0[&name], second_tar.len() as u64);
    assert_eq!(asked.iter().filter(|asked| asked.line == format!("GET {get}")).count(), 1);
    let (missing, _) = layer_tar("missing");
    assert!(matches!(daemon.layer(&found, &missing), Err(ImagesError::NoLayer { .. })));
}

/// Containerd's store keeps what it is sent: an empty layer would be one. An engine that
/// does not say how it keeps images is sent whole ones too.
#[test]
fn an_engine_on_containerds_store_gets_every_layer() {
    for (status, information) in [(200, SNAPSHOTTER), (403, &b"{}"[..]), (200, b"{}"), (200, b"what?")] {
        let (first, first_tar) = layer_tar("1");
        let get = format!("/images/sha256:{ID}/get");
        let (engine, daemon) = FakeEngine::start(&[
            ("/info", status, information.to_vec()),
            ("/images/run/json", 200, inspected(&[&first])),
            (&get, 200, save_archive(&[&first_tar])),
            ("/images/load?quiet=1", 200, LOADED.to_vec()),
            (INSPECT_APP, 200, inspected(&[])),
        ]);
        let image = image_of(daemon.find("run").unwrap().unwrap().image.layers);
        daemon.save(&image, &["app".to_owned()], &NoBlobs, &Cancel::default(), &mut |_| ()).unwrap();
        let asked = engine.asked();
        let loads: Vec<_> =
            asked.iter().filter(|asked| asked.line.starts_with("POST /images/load")).collect();
        assert_eq!(loads.len(), 1);
        let (sizes, _) = entries(&loads[0].body);
        let name = format!("{}.tar", first.to_string().trim_start_matches("sha256:"));
        assert_eq!(sizes[&name], first_tar.len() as u64);
        assert!(!sizes.contains_key("known-0"), "{sizes:?}");
    }
}

/// What another program left in containerd's store: it is not passed on.
#[test]
fn an_empty_file_is_no_layer() {
    let (first, first_tar) = layer_tar("1");
    let other_id = ID.replace("aa", "bb");
    let other = String::from_utf8(inspected(&[&first])).unwrap().replace(ID, &other_id).into_bytes();
    let (get, get_other) = (format!("/images/sha256:{ID}/get"), format!("/images/sha256:{other_id}/get"));
    let (engine, daemon) = FakeEngine::start(&[
        ("/info", 200, SNAPSHOTTER.to_vec()),
        ("/images/broken/json", 200, inspected(&[&first])),
        ("/images/whole/json", 200, other),
        (&get, 200, save_archive(&[b""])),
        (&get_other, 200, save_archive(&[&first_tar])),
        ("/images/load?quiet=1", 200, LOADED.to_vec()),
        (INSPECT_APP, 200, inspected(&[])),
    ]);
    let image = image_of(daemon.find("broken").unwrap().unwrap().image.layers);
    let save = || daemon.save(&image, &["app".to_owned()], &NoBlobs, &Cancel::default(), &mut |_| ());
    let ImagesError::Unsaved { unsaved, .. } = save().unwrap_err() else { panic!() };
    let said = unsaved[0].cause.to_string();
    assert!(said.contains(&format!("no image has the layer `{first}`")), "{said}");
    daemon.find("whole").unwrap();
    save().unwrap();
    let asked = engine.asked();
    let load = asked.iter().find(|asked| asked.line.starts_with("POST /images/load")).unwrap();
    let name = format!("{}.tar", first.to_string().trim_start_matches("sha256:"));
    assert_eq!(entries(&load.body).0[&name], first_tar.len() as u64);
}

/// Docker 29 answers like this, with success, and keeps the image.
#[test]
fn an_image_that_cannot_be_unpacked_is_an_error() {
    let answer = b"{\"stream\":\"Loaded image: app:latest\\n\"}\n\
        {\"stream\":\"Error unpacking image app:latest: mismatched image rootfs\\n\"}\n";
    let (_engine, daemon) = FakeEngine::start(&[
        ("/images/load?quiet=1", 200, answer.to_vec()),
        (INSPECT_APP, 200, inspected(&[])),
    ]);
    let save = daemon.save(&image_of(vec![]), &["app".to_owned()], &NoBlobs, &Cancel::default(), &mut |_| ());
    let ImagesError::Unsaved { unsaved, .. } = save.unwrap_err() else { panic!() };
    let said = unsaved[0].cause.to_string();
    assert!(said.ends_with("Error unpacking image app:latest: mismatched image rootfs"), "{said}");
}

/// A layer can be lost meanwhile: everything is sent then.
#[test]
fn an_engine_that_misses_a_layer_gets_all_of_them() {
    let ((first, first_tar), missing) = (layer_tar("1"), br#"{"error":"no such layer"}"#.to_vec());
    let get = format!("/images/sha256:{ID}/get");
    let (engine, daemon) = FakeEngine::start(&[
        ("/info", 200, CLASSIC.to_vec()),
        ("/images/run/json", 200, inspected(&[&first])),
        (&get, 200, save_archive(&[&first_tar])),
        ("/images/load?quiet=1", 200, missing),
        ("/images/load?quiet=1", 200, LOADED.to_vec()),
        (INSPECT_APP, 200, inspected(&[])),
    ]);
    let image = image_of(daemon.find("run").unwrap().unwrap().image.layers);
    let mut told = Vec::new();
    let mut tell = |event| told.push(event);
    let saved = daemon.save(&image, &["app".to_owned()], &NoBlobs, &Cancel::default(), &mut tell).unwrap();
    let bytes = first_tar.len() as u64;
    assert_eq!(saved.moved, Moved::sent(bytes));
    let (transfer, done_bytes, total_bytes) = (Transfer::Publish, bytes, bytes);
    assert_eq!(told, [Event::Transfer { transfer, done_bytes, total_bytes }]);
    let asked = engine.asked();
    let loads: Vec<_> = asked.iter().filter(|asked| asked.line.starts_with("POST /images/load")).collect();
    let name = format!("{}.tar", first.to_string().trim_start_matches("sha256:"));
    assert_eq!(entries(&loads[0].body).0["known-0"], 0);
    assert_eq!(entries(&loads[1].body).0[&name], first_tar.len() as u64);
}

/// RPT-06: the others are tried, and each failure is told.
#[test]
fn rpt_06_every_name_is_tried() {
    let tag = |tag: &str| format!("/images/sha256:{ID}/tag?repo=reg.example/app&tag={tag}");
    let (refused, taken) = (tag("1"), tag("2"));
    let (_engine, daemon) = FakeEngine::start(&[
        ("/images/load?quiet=1", 200, LOADED.to_vec()),
        (INSPECT_APP, 200, inspected(&[])),
        (&refused, 409, br#"{"message":"conflict"}"#.to_vec()),
        (&taken, 201, vec![]),
    ]);
    let names =
        ["app", "reg.example/app:1", "reg.example/app:2", &format!("app@sha256:{ID}")].map(str::to_owned);
    let error =
        daemon.save(&image_of(vec![]), &names, &NoBlobs, &Cancel::default(), &mut |_| ()).unwrap_err();
    let ImagesError::Unsaved { saved, unsaved } = error else { panic!("{error:?}") };
    assert_eq!(saved.names, ["app", "reg.example/app:2"]);
    let unsaved: Vec<String> =
        unsaved.iter().map(|unsaved| format!("{}: {}", unsaved.name, unsaved.cause)).collect();
    assert_eq!(unsaved[0], "reg.example/app:1: the container engine answers 409: conflict");
    assert!(unsaved[1].starts_with("app@sha256"), "{unsaved:?}");
    assert!(daemon.check_write("app").is_ok() && daemon.check_write(&names[3]).is_err());
}

#[test]
fn a_blob_that_shrank_is_an_error_and_not_an_image() {
    let (engine, daemon) = FakeEngine::start(&[("/images/load?quiet=1", 200, LOADED.to_vec())]);
    let own = own_layer(engine.directory.path(), "own");
    let image = image_of(vec![own.clone()]);
    let layers = [(own.diff_id.clone(), LayerBytes::Blob(own.clone()))];
    let (configuration, _) = image.documents();
    let mut stream = archive::stream(&configuration, &layers, &[], &Cancel::default()).unwrap();
    std::fs::OpenOptions::new().write(true).open(own.file().unwrap()).unwrap().set_len(3).unwrap();
    assert_eq!(stream.bytes.read_to_end(&mut Vec::new()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let cancel = Cancel::default();
    let mut stream = archive::stream(&configuration, &[], &[], &cancel).unwrap();
    cancel.cancel();
    assert!(stream.bytes.read(&mut [0; 8]).is_err());
    assert!(daemon.check_write("own").is_ok());
}

#[test]
fn nobody_listening_is_an_error_that_names_the_place() {
    let address = DaemonAddress::Unix("/nonexistent/engine.sock".into());
    let error = Daemon::connect(address, "/tmp".into()).unwrap_err();
    assert_eq!(error.to_string(), "cannot connect to `/nonexistent/engine.sock`");
}

/// Daemons keep their own layers.
struct NoBlobs;

impl crate::oci::blob::Notes for NoBlobs {
    fn note(&self, _: &str) -> Option<String> {
        None
    }

    fn keep_note(&self, _: &str, _: &str) {}
}

impl BlobStore for NoBlobs {
    fn find(&self, _: &DiffId, _: &str) -> Option<crate::oci::blob::StoredBlob> {
        None
    }

    fn create(&self) -> io::Result<crate::oci::blob::NewBlob> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn commit(
        &self,
        _: crate::oci::blob::NewBlob,
        _: &DiffId,
        _: &str,
        _: &Digest,
        _: u64,
    ) -> io::Result<crate::oci::blob::StoredBlob> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn discard(&self, _: &Path) {}
}
