//! Which machines the programs in the layers of images are for, by the headers of ELF alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};

use crate::layouts::{Layer, layout};
use crate::site::Site;

/// `e_machine` as ELF's own lists have it, by the name that images have for it.
const MACHINES: [(&str, u16); 2] = [("amd64", 62), ("arm64", 183)];

/// One of the images that a name stands for.
pub(crate) struct Image {
    pub(crate) architecture: String,
    /// Digests, from the bottom.
    pub(crate) layers: Vec<String>,
    /// The machine of every ELF file of every layer, by its path.
    pub(crate) programs: BTreeMap<String, u16>,
}

impl Image {
    /// Every image that `name` stands for, in the order of its index.
    pub(crate) fn all(directory: &Path, name: &str) -> Vec<Self> {
        let index = document(&directory.join("index.json"));
        let is_it =
            |descriptor: &&Value| descriptor["annotations"]["org.opencontainers.image.ref.name"] == name;
        let named = index["manifests"].as_array().unwrap().iter().find(is_it).expect("the name");
        let manifest = document(&blob(directory, named));
        match manifest["manifests"].as_array() {
            None => vec![Self::of(directory, named)],
            Some(all) => all.iter().map(|descriptor| Self::of(directory, descriptor)).collect(),
        }
    }

    fn of(directory: &Path, descriptor: &Value) -> Self {
        let manifest = document(&blob(directory, descriptor));
        let configuration = document(&blob(directory, &manifest["config"]));
        let architecture = configuration["architecture"].as_str().unwrap().to_owned();
        if let Some(platform) = descriptor.get("platform") {
            assert_eq!(platform["architecture"], architecture, "the index says otherwise");
        }
        let mut image = Self { architecture, layers: Vec::new(), programs: BTreeMap::new() };
        for layer in manifest["layers"].as_array().unwrap() {
            image.layers.push(layer["digest"].as_str().unwrap().to_owned());
            let file = std::fs::File::open(blob(directory, layer)).unwrap();
            match layer["mediaType"].as_str().unwrap() {
                "application/vnd.oci.image.layer.v1.tar" => image.read(file),
                "application/vnd.oci.image.layer.v1.tar+gzip" => image.read(MultiGzDecoder::new(file)),
                other => panic!("nobody looks into layers of the type {other}"),
            }
        }
        image
    }

    fn read(&mut self, layer: impl Read) {
        for entry in tar::Archive::new(layer).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let path = path.trim_start_matches('.').trim_start_matches('/').to_owned();
            let mut header = Vec::new();
            (&mut entry).take(20).read_to_end(&mut header).unwrap();
            if header.starts_with(b"\x7fELF") {
                let machine = [header[18], header[19]];
                // The sixth byte says in which order.
                let is_little = header[5] == 1;
                let machine =
                    if is_little { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
                self.programs.insert(path, machine);
            }
        }
    }

    /// Programs that are not for the image's own processor.
    pub(crate) fn strangers(&self) -> Vec<String> {
        let own = MACHINES.iter().find(|(name, _)| *name == self.architecture).expect("a known one").1;
        let others = self.programs.iter().filter(|(_, machine)| **machine != own);
        others.map(|(path, machine)| format!("{path}: {machine}")).collect()
    }
}

/// The images of a name are for these architectures, and so is everything in them.
#[track_caller]
pub(crate) fn images_for(directory: &Path, name: &str, architectures: &[&str]) -> Vec<Image> {
    let images = Image::all(directory, name);
    let found: Vec<&str> = images.iter().map(|image| image.architecture.as_str()).collect();
    assert_eq!(found, architectures);
    for image in &images {
        assert!(!image.programs.is_empty(), "{}: there is no program", image.architecture);
        assert_eq!(image.strangers(), [""; 0], "{}", image.architecture);
    }
    images
}

/// The layers that all of these images have.
pub(crate) fn common_layers(images: &[Image]) -> BTreeSet<String> {
    let of = |image: &Image| image.layers.iter().cloned().collect::<BTreeSet<String>>();
    let all = images.iter().map(of).reduce(|left, right| &left & &right);
    all.unwrap_or_default()
}

fn blob(directory: &Path, descriptor: &Value) -> std::path::PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    directory.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

fn document(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What the other tests rely on: a program that got into the wrong image is seen, in whichever layer.
#[test]
fn a_program_for_another_machine_is_found() {
    let site = Site::new();
    // By hand, from ELF's specification: 64 bit, the order of bytes, version 1; machine in bytes 18 and 19.
    let program = |order: u8, machine: [u8; 2]| {
        let mut bytes = b"\x7fELF\x02\x00\x01\x00\0\0\0\0\0\0\0\0\x02\x00\0\0 and more".to_vec();
        bytes[5] = order;
        bytes[18..20].copy_from_slice(&machine);
        bytes
    };
    let layers = [
        Layer::new().file("own", &program(1, [62, 0])).file("text", b"#!/bin/sh\n").file("short", b"\x7fEL"),
        Layer::new().file("cnb/launcher", &program(1, [183, 0])).file("old/s390x", &program(2, [0, 22])),
        Layer::new().file("own2", &program(1, [62, 0])),
    ];
    layout(&site.path().join("image"), "app", &json!({}), &layers);
    let images = Image::all(&site.path().join("image"), "app");
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].layers.len(), 3);
    assert_eq!(images[0].programs.len(), 4);
    assert_eq!(images[0].strangers(), ["cnb/launcher: 183", "old/s390x: 22"]);
}
