//! An image as a value: its configuration, its layers, and the manifest they make.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageManifest, ImageManifestBuilder, MediaType};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::digest::{DiffId, Digest};
use super::reference::Repository;

/// Which of the two families of media types an image uses; never a mix (IMG-10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MediaFamily {
    #[default]
    Oci,
    Docker,
}

/// The annotation that names an image of a layout.
pub(super) const REFERENCE_ANNOTATION: &str = "org.opencontainers.image.ref.name";
/// The annotation by which containerd, and engines on its store, call an image of a layout. Without
/// it they take the other as it is, and Docker does not find `app:1`, which is `docker.io/library/app:1`.
pub(super) const ENGINE_NAME_ANNOTATION: &str = "io.containerd.image.name";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// What the families call each kind of layer.
const LAYERS: [(MediaType, &str); 4] = [
    (MediaType::ImageLayerGzip, DOCKER_LAYER),
    (MediaType::ImageLayer, "application/vnd.docker.image.rootfs.diff.tar"),
    (MediaType::ImageLayerZstd, "application/vnd.docker.image.rootfs.diff.tar.zstd"),
    (MediaType::ImageLayerNonDistributableGzip, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
];
/// Docker's counterpart of an image index.
pub(super) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

impl MediaFamily {
    /// The family a manifest's media type belongs to; `None` when it is no image manifest.
    #[must_use]
    pub fn of_manifest(media_type: &MediaType) -> Option<Self> {
        match media_type {
            MediaType::ImageManifest => Some(Self::Oci),
            MediaType::Other(other) if other == DOCKER_MANIFEST => Some(Self::Docker),
            _ => None,
        }
    }

    /// Whether this is what lists the images for several systems.
    #[must_use]
    pub fn is_index(media_type: &MediaType) -> bool {
        [Self::Oci, Self::Docker].iter().any(|family| family.index() == *media_type)
    }

    /// Of an image manifest.
    #[must_use]
    pub fn manifest(self) -> MediaType {
        match self {
            Self::Oci => MediaType::ImageManifest,
            Self::Docker => MediaType::Other(DOCKER_MANIFEST.to_owned()),
        }
    }

    /// Of what lists the images for several systems.
    #[must_use]
    pub fn index(self) -> MediaType {
        match self {
            Self::Oci => MediaType::ImageIndex,
            Self::Docker => MediaType::Other(DOCKER_INDEX.to_owned()),
        }
    }

    /// Of an image configuration.
    #[must_use]
    pub fn configuration(self) -> MediaType {
        match self {
            Self::Oci => MediaType::ImageConfig,
            Self::Docker => MediaType::Other(DOCKER_CONFIG.to_owned()),
        }
    }

    /// Of a layer as we make it: tar, then gzip.
    #[must_use]
    pub fn layer(self) -> MediaType {
        match self {
            Self::Oci => MediaType::ImageLayerGzip,
            Self::Docker => MediaType::Other(DOCKER_LAYER.to_owned()),
        }
    }

    /// What this family calls a layer of `media_type`; unknown types stay.
    #[must_use]
    pub fn of_layer(self, media_type: &MediaType) -> MediaType {
        let known = LAYERS.into_iter().find(|(oci, docker)| {
            media_type == oci || matches!(media_type, MediaType::Other(other) if other == docker)
        });
        match (self, known) {
            (Self::Oci, Some((oci, _))) => oci,
            (Self::Docker, Some((_, docker))) => MediaType::Other(docker.to_owned()),
            (_, None) => media_type.clone(),
        }
    }

    /// The same, for a layer that is to be used again; `None` when who reads this family
    /// might not be able to unpack it.
    #[must_use]
    pub fn layer_like(self, media_type: &MediaType) -> Option<MediaType> {
        let is_read = match Self::Oci.of_layer(media_type) {
            MediaType::ImageLayerGzip | MediaType::ImageLayer => true,
            MediaType::ImageLayerZstd => self == Self::Oci,
            _ => false,
        };
        is_read.then(|| self.of_layer(media_type))
    }
}

/// An image configuration.
///
/// # Spec
/// image-spec `config.md`. Not the type of `oci-spec`: that one drops what the
/// specification does not list, such as Docker's `Healthcheck`, and everything
/// a base image says has to survive (EXP-02).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageConfiguration {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "empty_text")]
    pub variant: Option<String>,
    pub os: String,
    #[serde(default, rename = "os.version", skip_serializing_if = "empty_text")]
    pub os_version: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: RunConfiguration,
    pub rootfs: RootFs,
    #[serde(default, deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// What the specification does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// How a container of the image starts: `config` of the configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfiguration {
    #[serde(default, skip_serializing_if = "empty_text")]
    pub user: Option<String>,
    /// `NAME=value`, in order.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(default, skip_serializing_if = "empty_text")]
    pub working_dir: Option<String>,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Everything else: ports, volumes, stop signal, health check.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The layers of an image, by what they are uncompressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// First to last.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

/// How a layer came to be.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Author, comment, and what the specification does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn empty_text(text: &Option<String>) -> bool {
    text.as_deref().is_none_or(str::is_empty)
}

impl RunConfiguration {
    /// The value of an environment variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .find_map(|entry| entry.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, v)| v)
    }

    /// Changes a variable where it stands, or adds it at the end (IMG-03).
    pub fn set_variable(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        match self.env.iter_mut().find(|entry| entry.split_once('=').is_some_and(|(key, _)| key == name)) {
            Some(place) => *place = entry,
            None => self.env.push(entry),
        }
    }
}

/// A time as image documents write it: `1980-01-01T00:00:01Z`.
#[must_use]
pub fn timestamp(seconds: u64) -> String {
    let (days, second) = (seconds / 86400, seconds % 86400);
    // Years are counted from March, so that a leap day is the last of its year;
    // 400 such years have 146,097 days, and 1970 began 719,468 days after year 0.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) =
        if month < 10 { (era * 400 + year, month + 3) } else { (era * 400 + year + 1, month - 9) };
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A layer of an image and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Of the blob.
    pub media_type: MediaType,
    /// Of the blob, as it is stored.
    pub digest: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    /// Of the tar inside.
    pub diff_id: DiffId,
    /// Where the blob is.
    pub blob: BlobPlace,
}

/// Where the bytes of a blob are. An image is known by its documents; its layers need
/// not be on this machine until somebody reads them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobPlace {
    /// In a file of this machine.
    File(PathBuf),
    /// In a file of this machine that holds more than it, such as an archive.
    Part { file: PathBuf, start: u64 },
    /// In a repository of a registry.
    Registry(Repository),
    /// In a container engine, which keeps layers uncompressed.
    Engine,
}

impl Layer {
    /// The file that holds the blob; `None` when it is not on this machine.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.blob {
            BlobPlace::File(path) => Some(path),
            BlobPlace::Part { .. } | BlobPlace::Registry(_) | BlobPlace::Engine => None,
        }
    }

    /// The file that holds the blob, whatever else it holds.
    #[must_use]
    pub fn holder(&self) -> Option<&Path> {
        match &self.blob {
            BlobPlace::File(path) | BlobPlace::Part { file: path, .. } => Some(path),
            BlobPlace::Registry(_) | BlobPlace::Engine => None,
        }
    }

    /// Whether the blob is in a file of this machine, and that is there.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.holder().is_some_and(Path::is_file)
    }

    /// The bytes of the blob, not verified.
    ///
    /// # Errors
    /// When its file cannot be opened; [`io::ErrorKind::NotFound`] when it is not on
    /// this machine.
    pub fn open(&self) -> io::Result<BlobFile> {
        let holder = self.holder().ok_or(io::ErrorKind::NotFound)?;
        let file = fs_err::File::open(holder)?.into_parts().0;
        let (next, left) = match &self.blob {
            BlobPlace::Part { start, .. } => (*start, self.size),
            _ => (0, u64::MAX),
        };
        Ok(BlobFile { file, next, left })
    }
}

impl From<PathBuf> for BlobPlace {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// The index that stands for images of several systems, in this order.
///
/// # Spec
/// image-spec `image-index.md`.
#[must_use]
pub fn index_document(images: &[Image]) -> Document {
    let entry = |image: &Image| {
        let manifest = image.documents().1;
        let configuration = &image.configuration;
        let mut platform =
            serde_json::json!({ "architecture": configuration.architecture, "os": configuration.os });
        if let Some(variant) = configuration.variant.as_deref().filter(|variant| !variant.is_empty()) {
            platform["variant"] = variant.into();
        }
        serde_json::json!({
            "mediaType": manifest.media_type.to_string(),
            "digest": manifest.digest.as_str(),
            "size": manifest.bytes.len(),
            "platform": platform,
        })
    };
    // Docker's kind of index holds nothing but Docker's manifests.
    let media_type = match images {
        [first, ..] if images.iter().all(|image| image.family == first.family) => first.family.index(),
        _ => MediaType::ImageIndex,
    };
    let value = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type.to_string(),
        "manifests": images.iter().map(entry).collect::<Vec<_>>(),
    });
    Document::of(media_type, &value)
}

/// The bytes of a blob in a file. Its position is its own, whoever else reads the file.
#[derive(Debug)]
pub struct BlobFile {
    file: std::fs::File,
    next: u64,
    left: u64,
}

impl BlobFile {
    /// `size` bytes of a file, from `start` on.
    #[must_use]
    pub fn part(file: std::fs::File, start: u64, size: u64) -> Self {
        Self { file, next: start, left: size }
    }
}

impl Read for BlobFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = std::os::unix::fs::FileExt::read_at(&self.file, &mut buffer[..wanted], self.next)?;
        self.next += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A whole image, ready to be written somewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub family: MediaFamily,
    /// Its `rootfs.diff_ids` are those of `layers`.
    pub configuration: ImageConfiguration,
    /// First to last, those of the base included.
    pub layers: Vec<Layer>,
}

/// A document of an image as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub media_type: MediaType,
    pub digest: Digest,
    pub bytes: Vec<u8>,
}

impl Document {
    fn of(media_type: MediaType, value: &impl Serialize) -> Self {
        Self::new(media_type, serde_json::to_vec(value).expect("image documents have string keys only"))
    }

    /// A document of these bytes.
    #[must_use]
    pub fn new(media_type: MediaType, bytes: Vec<u8>) -> Self {
        Self { media_type, digest: Digest::of(&bytes), bytes }
    }

    /// What refers to this document.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        descriptor(self.media_type.clone(), &self.digest, self.bytes.len() as u64)
    }
}

/// A descriptor of something stored under a digest of ours.
pub(super) fn descriptor(media_type: MediaType, digest: &Digest, size: u64) -> Descriptor {
    let digest: oci_spec::image::Digest =
        digest.as_str().parse().expect("our digests are stricter than those of the specification");
    Descriptor::new(media_type, size, digest)
}

impl Image {
    /// The same image with the media types of one family (IMG-10).
    #[must_use]
    pub fn in_family(self, family: MediaFamily) -> Self {
        let layer = |layer: Layer| Layer { media_type: family.of_layer(&layer.media_type), ..layer };
        Self { family, layers: self.layers.into_iter().map(layer).collect(), ..self }
    }

    /// The configuration and the manifest as they are stored.
    #[must_use]
    pub fn documents(&self) -> (Document, Document) {
        self.documents_of(&self.manifest())
    }

    /// The same with a manifest that says what the image is called where it is stored.
    #[must_use]
    pub fn documents_called(&self, name: &str) -> (Document, Document) {
        let mut manifest = self.manifest();
        manifest.set_annotations(Some([(REFERENCE_ANNOTATION.to_owned(), name.to_owned())].into()));
        self.documents_of(&manifest)
    }

    fn documents_of(&self, manifest: &ImageManifest) -> (Document, Document) {
        (self.configuration_document(), Document::of(self.family.manifest(), manifest))
    }

    fn configuration_document(&self) -> Document {
        Document::of(self.family.configuration(), &self.configuration)
    }

    fn manifest(&self) -> ImageManifest {
        let layers: Vec<Descriptor> = self
            .layers
            .iter()
            .map(|layer| descriptor(layer.media_type.clone(), &layer.digest, layer.size))
            .collect();
        ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(self.family.manifest())
            .config(self.configuration_document().descriptor())
            .layers(layers)
            .build()
            .expect("every required field is set")
    }

    /// Bytes of all blobs and documents together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let (configuration, manifest) = self.documents();
        let documents = (configuration.bytes.len() + manifest.bytes.len()) as u64;
        documents + self.layers.iter().map(|layer| layer.size).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Docker writes it: nulls, a health check, keys of its own.
    const DOCKER: &str = r#"{
        "architecture": "arm64", "variant": "v8", "os": "linux", "docker_version": "20",
        "config": {
            "User": "", "Env": ["PATH=/bin", "A=b=c", "odd"], "Cmd": ["sh"], "Entrypoint": null,
            "Labels": null, "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30000000000},
            "ExposedPorts": {"80/tcp": {}}
        },
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [{"created": "2020-01-01T00:00:00Z", "comment": "x", "empty_layer": true}]
    }"#;

    #[test]
    fn exp_02_what_we_do_not_know_survives() {
        let configuration: ImageConfiguration = serde_json::from_str(DOCKER).unwrap();
        let written = serde_json::to_value(&configuration).unwrap();
        assert_eq!(written["config"]["Healthcheck"]["Interval"], 30_000_000_000_u64);
        assert_eq!(written["config"]["ExposedPorts"], serde_json::json!({"80/tcp": {}}));
        assert_eq!(written["docker_version"], "20");
        assert_eq!(written["history"][0]["comment"], "x");
        assert_eq!(written["variant"], "v8");
        assert!(written["config"].get("Labels").is_none());
    }

    #[test]
    fn timestamps_are_those_of_date() {
        for seconds in
            [0, 315_532_801, 951_782_400, 951_868_799, 1_709_164_800, 4_107_542_399, 32_503_680_000]
        {
            let output = std::process::Command::new("date")
                .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
                .output()
                .unwrap();
            assert_eq!(timestamp(seconds), String::from_utf8(output.stdout).unwrap().trim_end());
        }
    }

    #[test]
    fn img_03_variables_change_in_place_or_are_appended() {
        let mut configuration: ImageConfiguration = serde_json::from_str(DOCKER).unwrap();
        let run = &mut configuration.config;
        assert_eq!(run.variable("A"), Some("b=c"));
        run.set_variable("PATH", "/new");
        run.set_variable("B", "1");
        run.set_variable("A", "2");
        assert_eq!(run.env, ["PATH=/new", "A=2", "odd", "B=1"]);
    }
}
