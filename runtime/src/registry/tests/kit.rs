//! Images and settings for the tests.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oci_spec::image::MediaType;

use crate::cancel::Cancel;
use crate::http::client::World;
use crate::limits::Limits;
use crate::network::{FindRegistryCredentials, NetworkSettings, RegistryCredentials, Secret};
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{BlobPlace, Image, ImageConfiguration, Layer, MediaFamily};
use crate::oci::layout::Platform;
use crate::oci::reference::Reference;
use crate::registry::{Package, Published, Registry, RegistryError, RemoteImage};
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
        Self::in_world(settings, &Limits::default(), World::default())
    }

    /// With little patience, and loopback as the internet: 127.0.0.1 counts as public.
    pub(crate) fn hurried(settings: &NetworkSettings) -> Self {
        let limits = Limits {
            http_connect_seconds: 1,
            http_first_byte_seconds: 1,
            http_idle_seconds: 1,
            ..Limits::default()
        };
        let resolve = |name: String| -> std::io::Result<Vec<IpAddr>> {
            match name.as_str() {
                "registry.test" | "other.test" => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
                _ => Err(std::io::Error::other("no such name")),
            }
        };
        let world = World {
            resolve: Arc::new(move |name| Box::pin(std::future::ready(resolve(name)))),
            is_internal: |address| {
                address != Ipv4Addr::LOCALHOST && crate::http::address::is_internal(address)
            },
            first_wait: Duration::from_millis(1),
            window: Duration::from_secs(1),
        };
        Self::in_world(settings, &limits, world)
    }

    fn in_world(settings: &NetworkSettings, limits: &Limits, world: World) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&directory.path().join("store")).unwrap();
        let registry = Registry::in_world(settings, limits, directory.path().to_owned(), world);
        Self { registry, store, directory }
    }

    pub(crate) fn find(&self, name: &str) -> Result<Option<RemoteImage>, RegistryError> {
        self.registry.image(&name.parse().unwrap(), AMD64, &go())
    }

    /// Publishes under one name, which has to succeed.
    pub(crate) fn push(&self, image: &Image, to: &Reference) -> Result<Published, RegistryError> {
        let tags = [to.tag().unwrap().to_owned()];
        let mut published = self.registry.publish(
            &Package::of_image(image),
            to.name(),
            &tags,
            &self.store,
            &go(),
            &mut |_| (),
        )?;
        match published.tags.pop().unwrap().result {
            Ok(None) => Ok(published),
            Ok(Some(other)) => panic!("overtaken by {other}"),
            Err(error) => Err(error),
        }
    }

    /// Names of all files that are kept.
    pub(crate) fn kept(&self) -> Vec<String> {
        let mut names = Vec::new();
        for directory in ["blobs/sha256", "index"] {
            let directory = self.directory.path().join("store").join(directory);
            names.extend(
                std::fs::read_dir(directory)
                    .unwrap()
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap()),
            );
        }
        names.sort();
        names
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

/// Must never be seen where it does not belong.
pub(crate) const CANARY: &str = "canary-7f3a";

/// Knows credentials for one registry.
#[derive(Debug)]
struct One(String, RegistryCredentials);

impl FindRegistryCredentials for One {
    fn find(&self, registry: &str, _: &str) -> Result<Option<RegistryCredentials>, String> {
        Ok((registry == self.0).then(|| self.1.clone()))
    }
}

/// Settings with credentials for one registry.
pub(crate) fn signed_in(registry: &str, credentials: RegistryCredentials) -> NetworkSettings {
    NetworkSettings {
        registry_credentials: Some(Arc::new(One(registry.to_owned(), credentials))),
        ..NetworkSettings::default()
    }
}

pub(crate) fn basic() -> RegistryCredentials {
    RegistryCredentials::Basic { user: "user".to_owned(), password: Secret::new(CANARY) }
}

/// An error with all its causes, as it is printed and as it is debugged.
pub(crate) fn text(error: &RegistryError) -> String {
    let mut text = format!("{error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    assert!(!format!("{text} {error:?}").contains("canary"), "{text} {error:?}");
    text
}
