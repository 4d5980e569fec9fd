//! Image layouts: directories that hold images as files.
//!
//! # Spec
//! image-spec `image-layout.md`. The directory is valid at every moment of a
//! write: blobs first, each under its final name only when it is whole, and
//! `index.json` last, by one rename.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fs_err as fs;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde_json::{Value, json};

use super::digest::{Digest, Hasher, InvalidDigest};
use super::image::{DOCKER_INDEX, Document, Image, ImageConfiguration, Layer, MediaFamily};
use crate::fault::{Diagnose, Fault, is_disk_full};

/// The annotation that names an image of a layout.
const REFERENCE_ANNOTATION: &str = "org.opencontainers.image.ref.name";
const LAYOUT_FILE: &str = "oci-layout";
const INDEX_FILE: &str = "index.json";
const BLOBS: &str = "blobs/sha256";
const LAYOUT_DOCUMENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// What a write that was killed leaves behind starts like this.
const TEMPORARY_PREFIX: &str = ".wapack-";
/// Manifests, configurations and indexes; real ones are a few kilobytes.
const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// An index may list indexes; real ones do so once.
const MAX_INDEX_DEPTH: usize = 4;
const COPY_BUFFER_BYTES: usize = 256 << 10;

/// Why a layout could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The file system said no.
    #[error("cannot use the image layout `{}`", directory.display())]
    Io {
        directory: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// There is none to read.
    #[error("there is no image layout in `{}`", directory.display())]
    Missing { directory: PathBuf },
    /// No space, no inodes, or no quota left.
    #[error("no space left for the image layout `{}`", directory.display())]
    DiskFull {
        directory: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// There are files, but it is no layout.
    #[error("`{}` is not empty and not an image layout", directory.display())]
    NotALayout { directory: PathBuf },
    /// Another process is writing to it.
    #[error("another process is writing to the image layout `{}`", directory.display())]
    Busy { directory: PathBuf },
    /// A document is not what it should be.
    #[error("`{}` in the image layout `{}` is not valid: {reason}", name, directory.display())]
    Invalid { directory: PathBuf, name: String, reason: String },
    /// A blob does not have the digest it is listed under.
    #[error("`{}` has the digest `{actual}`, expected `{expected}`", path.display())]
    WrongDigest { path: PathBuf, expected: Digest, actual: Digest },
    /// A blob does not have the size it is listed with.
    #[error("`{}` has {actual} bytes, expected {expected}", path.display())]
    WrongSize { path: PathBuf, expected: u64, actual: u64 },
    /// A blob of the image is gone or cannot be read.
    #[error("cannot read the blob `{}`", path.display())]
    UnreadableBlob {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// No image of that name, or for that system.
    #[error("the image layout `{}` has no image {wanted}", directory.display())]
    NoSuchImage {
        directory: PathBuf,
        /// Such as `` called `latest` ``.
        wanted: String,
        /// Names that are there.
        names: Vec<String>,
    },
    /// Several images, and nothing says which.
    #[error("the image layout `{}` has several images", directory.display())]
    Ambiguous { directory: PathBuf, names: Vec<String> },
    /// Whoever waits asked to stop.
    #[error("writing to the image layout `{}` was cancelled", directory.display())]
    Cancelled { directory: PathBuf },
}

impl LayoutError {
    fn io(directory: &Path, cause: io::Error) -> Self {
        let directory = directory.to_owned();
        if is_disk_full(&cause) { Self::DiskFull { directory, cause } } else { Self::Io { directory, cause } }
    }

    /// The file that is not the blob it should be, if that is what is wrong.
    #[must_use]
    pub fn damaged_blob(&self) -> Option<&Path> {
        match self {
            Self::WrongDigest { path, .. }
            | Self::WrongSize { path, .. }
            | Self::UnreadableBlob { path, .. } => Some(path),
            _ => None,
        }
    }
}

impl Diagnose for LayoutError {
    fn id(&self) -> &'static str {
        match self {
            Self::Io { .. } => "layout.io",
            Self::Missing { .. } => "layout.missing",
            Self::DiskFull { .. } => "host.disk_full",
            Self::NotALayout { .. } => "layout.not_a_layout",
            Self::Busy { .. } => "layout.busy",
            Self::Invalid { .. } => "layout.invalid",
            Self::WrongDigest { .. } => "layout.wrong_digest",
            Self::WrongSize { .. } => "layout.wrong_size",
            Self::UnreadableBlob { .. } => "layout.unreadable_blob",
            Self::NoSuchImage { .. } => "layout.no_such_image",
            Self::Ambiguous { .. } => "layout.ambiguous",
            Self::Cancelled { .. } => "build.cancelled",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Io { .. }
            | Self::DiskFull { .. }
            | Self::Busy { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. }
            | Self::UnreadableBlob { .. } => Fault::Environment,
            Self::Missing { .. }
            | Self::NotALayout { .. }
            | Self::Invalid { .. }
            | Self::NoSuchImage { .. }
            | Self::Ambiguous { .. }
            | Self::Cancelled { .. } => Fault::Caller,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => {
                Some("a layout is a directory with `oci-layout` and `index.json`".to_owned())
            }
            Self::DiskFull { .. } => Some("free some space, or name another place for the image".to_owned()),
            Self::NotALayout { .. } => Some("name a new or an empty directory".to_owned()),
            Self::NoSuchImage { names, .. } | Self::Ambiguous { names, .. } if !names.is_empty() => {
                Some(format!("it has `{}`", names.join("`, `")))
            }
            Self::WrongDigest { .. } | Self::WrongSize { .. } => {
                Some("the file is damaged; make or copy that image again".to_owned())
            }
            _ => None,
        }
    }
}

/// A layout that is being written; nobody else writes to it meanwhile.
#[derive(Debug)]
pub struct ImageLayout {
    directory: PathBuf,
    /// Locked until it is closed.
    handle: OwnedFd,
}

/// Called between pieces of work; answers whether to go on.
pub type KeepGoing<'a> = &'a mut dyn FnMut(u64) -> bool;

impl Drop for ImageLayout {
    /// Closing alone would leave the lock with a child that is just being
    /// started and has not closed its copy of the descriptor yet.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.handle, FlockOperation::Unlock);
    }
}

impl ImageLayout {
    /// Opens a layout for writing, or makes one in a new or empty directory.
    ///
    /// # Errors
    /// [`LayoutError::Busy`] while another process writes to it;
    /// [`LayoutError::NotALayout`] when the directory holds something else.
    pub fn open(directory: &Path) -> Result<Self, LayoutError> {
        let failed = |cause: io::Error| LayoutError::io(directory, cause);
        fs::create_dir_all(directory).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle =
            rustix::fs::open(directory, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LayoutError::Busy { directory: directory.to_owned() });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        let layout = Self { directory: directory.to_owned(), handle };
        layout.prepare()?;
        Ok(layout)
    }

    /// Makes the files a layout has to have, and removes what a killed write left.
    fn prepare(&self) -> Result<(), LayoutError> {
        let failed = |cause| self.io(cause);
        let mut is_layout = false;
        let mut is_empty = true;
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name == LAYOUT_FILE {
                is_layout = true;
            } else if name.to_string_lossy().starts_with(TEMPORARY_PREFIX) {
                fs::remove_file(entry.path()).map_err(failed)?;
            } else {
                is_empty = false;
            }
        }
        if is_layout {
            let document = read_document(&self.directory, &self.directory.join(LAYOUT_FILE), LAYOUT_FILE)?;
            let value: Value = serde_json::from_slice(&document)
                .map_err(|error| self.invalid(LAYOUT_FILE, error.to_string()))?;
            if value["imageLayoutVersion"] != "1.0.0" {
                return Err(self.invalid(LAYOUT_FILE, "`imageLayoutVersion` is not `1.0.0`".to_owned()));
            }
        } else if !is_empty {
            return Err(LayoutError::NotALayout { directory: self.directory.clone() });
        }
        if !self.directory.join(BLOBS).is_dir() {
            // `oci-layout` first: a directory left half made is then known as ours.
            if !is_layout {
                self.replace(LAYOUT_FILE, LAYOUT_DOCUMENT)?;
            }
            let blobs = self.directory.join(BLOBS);
            fs::create_dir_all(&blobs).map_err(failed)?;
            self.synchronise(blobs.parent().unwrap_or(&blobs))?;
        }
        if !self.directory.join(INDEX_FILE).exists() {
            self.replace(INDEX_FILE, &index_bytes(&empty_index()))?;
        }
        Ok(())
    }

    /// Puts an image into the layout under a name; other images stay.
    ///
    /// # Errors
    /// When a blob is not what it should be, or a file cannot be written.
    pub fn write(
        &self,
        image: &Image,
        reference: &str,
        keep_going: KeepGoing<'_>,
    ) -> Result<Digest, LayoutError> {
        let mut changed = false;
        for layer in &image.layers {
            changed |= self.add_blob(layer, keep_going)?;
        }
        let (configuration, manifest) = image.documents();
        changed |= self.add_document(&configuration)?;
        changed |= self.add_document(&manifest)?;
        if changed {
            self.synchronise(&self.directory.join(BLOBS))?;
        }
        self.set_reference(image, &manifest, reference)?;
        Ok(manifest.digest)
    }

    /// Copies a layer's blob into the layout unless it is there; answers whether it did.
    fn add_blob(&self, layer: &Layer, keep_going: KeepGoing<'_>) -> Result<bool, LayoutError> {
        let path = self.blob_path(&layer.digest);
        let is_there =
            fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == layer.size);
        if is_there {
            return Ok(false);
        }
        let mut temporary = self.temporary(&layer.digest.hex()[..12])?;
        let unreadable = |cause| LayoutError::UnreadableBlob { path: layer.blob.clone(), cause };
        let mut source = fs::File::open(&layer.blob).map_err(unreadable)?;
        let mut hasher = Hasher::default();
        let mut copied = 0;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            let read = source.read(&mut buffer).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            temporary.file.write_all(&buffer[..read]).map_err(|cause| self.io(cause))?;
            copied += read as u64;
            if copied > layer.size {
                break;
            }
            if !keep_going(read as u64) {
                return Err(LayoutError::Cancelled { directory: self.directory.clone() });
            }
        }
        if copied != layer.size {
            return Err(LayoutError::WrongSize {
                path: layer.blob.clone(),
                expected: layer.size,
                actual: source.metadata().map_or(copied, |metadata| metadata.len()),
            });
        }
        let actual = hasher.finish();
        if actual != layer.digest {
            return Err(LayoutError::WrongDigest {
                path: layer.blob.clone(),
                expected: layer.digest.clone(),
                actual,
            });
        }
        temporary.persist(&path).map_err(|cause| self.io(cause))?;
        Ok(true)
    }

    fn add_document(&self, document: &Document) -> Result<bool, LayoutError> {
        let path = self.blob_path(&document.digest);
        // Small enough to look whether it is whole.
        if fs::read(&path).is_ok_and(|found| found == document.bytes) {
            return Ok(false);
        }
        let mut temporary = self.temporary(&document.digest.hex()[..12])?;
        temporary.file.write_all(&document.bytes).map_err(|cause| self.io(cause))?;
        temporary.persist(&path).map_err(|cause| self.io(cause))?;
        Ok(true)
    }

    /// Makes `reference` point to a manifest; leaves the index alone when it already does.
    fn set_reference(&self, image: &Image, manifest: &Document, reference: &str) -> Result<(), LayoutError> {
        let old = read_document(&self.directory, &self.directory.join(INDEX_FILE), INDEX_FILE)?;
        // As plain JSON, so that what others wrote stays as it is.
        let mut index: Value =
            serde_json::from_slice(&old).map_err(|error| self.invalid(INDEX_FILE, error.to_string()))?;
        let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(self.invalid(INDEX_FILE, "it has no list `manifests`".to_owned()));
        };
        let configuration = &image.configuration;
        let mut platform = json!({ "architecture": configuration.architecture, "os": configuration.os });
        if let Some(variant) = configuration.variant.as_deref().filter(|variant| !variant.is_empty()) {
            platform["variant"] = variant.into();
        }
        let entry = json!({
            "mediaType": manifest.media_type.to_string(),
            "digest": manifest.digest.as_str(),
            "size": manifest.bytes.len(),
            "annotations": { REFERENCE_ANNOTATION: reference },
            "platform": platform,
        });
        let has_reference = |value: &Value| value["annotations"][REFERENCE_ANNOTATION] == reference;
        match manifests.iter().position(has_reference) {
            Some(first) => {
                let mut position = 0;
                manifests.retain(|value| {
                    let keep = position <= first || !has_reference(value);
                    position += 1;
                    keep
                });
                manifests[first] = entry;
            }
            None => manifests.push(entry),
        }
        let new = index_bytes(&index);
        if new == old { Ok(()) } else { self.replace(INDEX_FILE, &new) }
    }

    /// Writes a file at the top of the layout in one step.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), LayoutError> {
        let mut temporary = self.temporary(name)?;
        temporary.file.write_all(bytes).map_err(|cause| self.io(cause))?;
        temporary.persist(&self.directory.join(name)).map_err(|cause| self.io(cause))?;
        rustix::fs::fsync(&self.handle).map_err(|errno| self.io(errno.into()))
    }

    /// A new file at the top of the layout, so that `blobs` only ever holds blobs.
    fn temporary(&self, name: &str) -> Result<Temporary, LayoutError> {
        let path = self.directory.join(format!("{TEMPORARY_PREFIX}{}-{name}", std::process::id()));
        let file = fs::File::create(&path).map_err(|cause| self.io(cause))?;
        Ok(Temporary { file: file.into_parts().0, path: Some(path) })
    }

    fn synchronise(&self, directory: &Path) -> Result<(), LayoutError> {
        fs::File::open(directory).and_then(|file| file.sync_all()).map_err(|cause| self.io(cause))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path(&self.directory, digest)
    }

    fn io(&self, cause: io::Error) -> LayoutError {
        LayoutError::io(&self.directory, cause)
    }

    fn invalid(&self, name: &str, reason: String) -> LayoutError {
        LayoutError::Invalid { directory: self.directory.clone(), name: name.to_owned(), reason }
    }
}

/// A file under a temporary name, removed unless it gets its own.
#[derive(Debug)]
struct Temporary {
    file: File,
    path: Option<PathBuf>,
}

impl Temporary {
    fn persist(mut self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        let path = self.path.take().expect("it is taken here only");
        fs::rename(&path, to).inspect_err(|_| self.path = Some(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nothing to do about it; the next write removes it.
            let _ = fs::remove_file(path);
        }
    }
}

fn empty_index() -> Value {
    json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex.to_string(), "manifests": [] })
}

fn index_bytes(index: &Value) -> Vec<u8> {
    serde_json::to_vec(index).expect("a JSON value can be written")
}

fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join(BLOBS).join(digest.hex())
}

/// An image of a layout, verified down to its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct LayoutImage {
    /// Where it was found.
    pub directory: PathBuf,
    /// Of its manifest.
    pub digest: Digest,
    /// The image; its layers' blobs are in the layout and not verified yet.
    pub image: Image,
}

/// The system an image is wanted for, in the words of image-spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform<'a> {
    pub os: &'a str,
    pub architecture: &'a str,
    /// Only compared when both sides have one.
    pub variant: Option<&'a str>,
}

/// Reads an image of a layout: the one called `reference`, or the only one.
///
/// # Errors
/// When there is none, or several without a name to choose by, or something in
/// it is not what its digest says.
pub fn read_image(
    directory: &Path,
    reference: Option<&str>,
    platform: Option<Platform<'_>>,
) -> Result<LayoutImage, LayoutError> {
    let reader = Reader { directory };
    if !directory.join(LAYOUT_FILE).is_file() {
        return Err(LayoutError::Missing { directory: directory.to_owned() });
    }
    let index = read_document(directory, &directory.join(INDEX_FILE), INDEX_FILE)?;
    let index: ImageIndex = reader.parse(INDEX_FILE, &index)?;
    let name_of = |descriptor: &Descriptor| {
        descriptor
            .annotations()
            .as_ref()
            .and_then(|annotations| annotations.get(REFERENCE_ANNOTATION))
            .cloned()
    };
    let names: Vec<String> = index.manifests().iter().filter_map(name_of).collect();
    let mut candidates: Vec<Descriptor> = index
        .manifests()
        .iter()
        .filter(|descriptor| reference.is_none_or(|wanted| name_of(descriptor).as_deref() == Some(wanted)))
        .cloned()
        .collect();

    for _ in 0..MAX_INDEX_DEPTH {
        if candidates.len() > 1
            && let Some(platform) = platform
        {
            candidates.retain(|descriptor| is_for(descriptor, platform));
        }
        candidates.dedup_by(|left, right| left.digest() == right.digest());
        let chosen = match candidates.as_slice() {
            [chosen] => chosen.clone(),
            [] => {
                let wanted = match (reference, platform) {
                    (Some(reference), None) => format!("called `{reference}`"),
                    (Some(reference), Some(Platform { os, architecture, .. })) => {
                        format!("called `{reference}` for `{os}/{architecture}`")
                    }
                    (None, Some(Platform { os, architecture, .. })) => format!("for `{os}/{architecture}`"),
                    (None, None) => "at all".to_owned(),
                };
                return Err(LayoutError::NoSuchImage { directory: directory.to_owned(), wanted, names });
            }
            _ => return Err(LayoutError::Ambiguous { directory: directory.to_owned(), names }),
        };
        if let Some(family) = MediaFamily::of_manifest(chosen.media_type()) {
            return reader.image(&chosen, family);
        }
        let is_index = match chosen.media_type() {
            MediaType::ImageIndex => true,
            MediaType::Other(other) => other == DOCKER_INDEX,
            _ => false,
        };
        let name = chosen.digest().to_string();
        if !is_index {
            return Err(reader.invalid(&name, format!("its type `{}` is no image", chosen.media_type())));
        }
        let (_, bytes) = reader.document(&chosen)?;
        let index: ImageIndex = reader.parse(&name, &bytes)?;
        candidates.clone_from(index.manifests());
    }
    Err(reader.invalid(INDEX_FILE, "indexes are nested too deeply".to_owned()))
}

fn is_for(descriptor: &Descriptor, wanted: Platform<'_>) -> bool {
    descriptor.platform().as_ref().is_some_and(|platform| {
        let variant_agrees = match (platform.variant().as_deref(), wanted.variant) {
            (Some(left), Some(right)) => left == right,
            _ => true,
        };
        platform.os().to_string() == wanted.os
            && platform.architecture().to_string() == wanted.architecture
            && variant_agrees
    })
}

struct Reader<'a> {
    directory: &'a Path,
}

impl Reader<'_> {
    fn image(&self, descriptor: &Descriptor, family: MediaFamily) -> Result<LayoutImage, LayoutError> {
        let (digest, bytes) = self.document(descriptor)?;
        let manifest: ImageManifest = self.parse(digest.as_str(), &bytes)?;
        let (configuration_digest, bytes) = self.document(manifest.config())?;
        let configuration: ImageConfiguration = self.parse(configuration_digest.as_str(), &bytes)?;
        let diff_ids = &configuration.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers().len() {
            let reason =
                format!("it lists {} layers, its configuration {}", manifest.layers().len(), diff_ids.len());
            return Err(self.invalid(digest.as_str(), reason));
        }
        let layers = manifest
            .layers()
            .iter()
            .zip(diff_ids)
            .map(|(descriptor, diff_id)| {
                let digest = self.digest(descriptor)?;
                Ok(Layer {
                    media_type: descriptor.media_type().clone(),
                    blob: blob_path(self.directory, &digest),
                    digest,
                    size: descriptor.size(),
                    diff_id: diff_id.clone(),
                })
            })
            .collect::<Result<_, LayoutError>>()?;
        let image = Image { family, configuration, layers };
        Ok(LayoutImage { directory: self.directory.to_owned(), digest, image })
    }

    /// Reads a document and verifies it.
    fn document(&self, descriptor: &Descriptor) -> Result<(Digest, Vec<u8>), LayoutError> {
        let expected = self.digest(descriptor)?;
        let path = blob_path(self.directory, &expected);
        let bytes = read_document(self.directory, &path, expected.as_str())?;
        let actual = Digest::of(&bytes);
        if bytes.len() as u64 != descriptor.size() {
            let (expected, actual) = (descriptor.size(), bytes.len() as u64);
            return Err(LayoutError::WrongSize { path, expected, actual });
        }
        if actual != expected {
            return Err(LayoutError::WrongDigest { path, expected, actual });
        }
        Ok((expected, bytes))
    }

    fn digest(&self, descriptor: &Descriptor) -> Result<Digest, LayoutError> {
        descriptor
            .digest()
            .to_string()
            .parse()
            .map_err(|error: InvalidDigest| self.invalid(INDEX_FILE, error.to_string()))
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, LayoutError> {
        serde_json::from_slice(bytes).map_err(|error| self.invalid(name, error.to_string()))
    }

    fn invalid(&self, name: &str, reason: String) -> LayoutError {
        LayoutError::Invalid { directory: self.directory.to_owned(), name: name.to_owned(), reason }
    }
}

/// Reads a JSON document that must be a file of a sensible size.
fn read_document(directory: &Path, path: &Path, name: &str) -> Result<Vec<u8>, LayoutError> {
    let failed = |cause| LayoutError::Io { directory: directory.to_owned(), cause };
    let mut bytes = Vec::new();
    fs::File::open(path)
        .map_err(failed)?
        .take(MAX_DOCUMENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(LayoutError::Invalid {
            directory: directory.to_owned(),
            name: name.to_owned(),
            reason: "it is larger than 4 MiB".to_owned(),
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    use super::*;
    use crate::oci::digest::{DiffId, HashingWriter};
    use crate::oci::gzip::GzipWriter;
    use crate::oci::image::RootFs;
    use crate::oci::layer::{LayerWriter, Owner};

    fn layer(directory: &Path, contents: &str) -> Layer {
        let owner = Owner::ROOT;
        let gzip = GzipWriter::new(HashingWriter::new(Vec::new())).unwrap();
        let mut writer = LayerWriter::new(HashingWriter::new(gzip));
        writer.file(b"/hello", 0o644, owner, contents.len() as u64, contents.as_bytes()).unwrap();
        let (diff_id, _, gzip) = writer.finish().unwrap().finish();
        let (digest, size, bytes) = gzip.finish().unwrap().finish();
        let blob = directory.join(digest.hex());
        fs::write(&blob, bytes).unwrap();
        Layer { media_type: MediaType::ImageLayerGzip, digest, size, diff_id: DiffId(diff_id), blob }
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
        ImageLayout::open(directory).unwrap().write(image, reference, &mut |_| true).unwrap()
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
        let mut bytes = fs::read(&image.layers[0].blob).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&image.layers[0].blob, &bytes).unwrap();
        let writer = ImageLayout::open(&layout).unwrap();
        let error = writer.write(&image, "v1", &mut |_| true).unwrap_err();
        assert_eq!(error.id(), "layout.wrong_digest");
        bytes.push(0);
        fs::write(&image.layers[0].blob, &bytes).unwrap();
        assert_eq!(writer.write(&image, "v1", &mut |_| true).unwrap_err().id(), "layout.wrong_size");
        assert_eq!(fs::read_dir(layout.join(BLOBS)).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&layout).unwrap().count(), 3);
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
        let error = writer.write(&new, "v1", &mut stop_at_second).unwrap_err();
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
}
