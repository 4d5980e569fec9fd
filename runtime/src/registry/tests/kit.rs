//! Images and settings for the tests.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use oci_spec::image::MediaType;

use crate::cancel::Cancel;
use crate::limits::Limits;
use crate::network::NetworkSettings;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{BlobPlace, Image, ImageConfiguration, Layer, MediaFamily};
use crate::oci::layout::Platform;
use crate::oci::reference::Reference;
use crate::registry::Registry;
use crate::store::Store;

pub(crate) const AMD64: Platform<'_> = Platform { os: "linux", architecture: "amd64", variant: None };

pub(crate) fn go() -> Cancel {
    Cancel::default()
}

/// A client, a store and a directory for files.
pub(crate) struct Bench {
    pub(crate) registry: Registry,
    pub(crate) store: Store,
    pub(crate) directory: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(settings: &NetworkSettings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&directory.path().join("store")).unwrap();
        let registry = Registry::new(settings, &Limits::default(), directory.path().to_owned());
        Self { registry, store, directory }
    }

    /// An image of layers that each have one file with these bytes in it.
    pub(crate) fn image(&self, layers: &[&[u8]]) -> Image {
        image(self.directory.path(), layers)
    }
}

pub(crate) fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

pub(crate) fn image(directory: &Path, layers: &[&[u8]]) -> Image {
    let layers: Vec<Layer> = layers.iter().map(|bytes| layer(directory, bytes)).collect();
    let diff_ids: Vec<&DiffId> = layers.iter().map(|layer| &layer.diff_id).collect();
    let configuration: ImageConfiguration = serde_json::from_value(serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Labels": {"a": "b"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}
    }))
    .unwrap();
    Image { family: MediaFamily::Oci, configuration, layers }
}

/// A tar with one file, without compression: its blob is its content.
fn layer(directory: &Path, content: &[u8]) -> Layer {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "file", content).unwrap();
    let bytes = tar.into_inner().unwrap();
    let digest = Digest::of(&bytes);
    let path: PathBuf = directory.join(digest.hex());
    std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    Layer {
        media_type: MediaType::ImageLayer,
        size: bytes.len() as u64,
        diff_id: DiffId(digest.clone()),
        digest,
        blob: BlobPlace::File(path),
    }
}

/// Bytes that do not repeat.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length.div_ceil(8)).flat_map(|_| next()).take(length).collect()
}
