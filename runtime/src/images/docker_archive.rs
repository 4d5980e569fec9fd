//! The archive that `docker load` takes, as a file: `docker-archive:FILE:NAME`.
//!
//! # Shape
//! ```text
//! <sha256 of the configuration>.json
//! <sha256 of the blob>.tar.gz …        or `.tar` for a layer without compression
//! manifest.json                        [{"Config": …, "RepoTags": […], "Layers": [path …]}]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fs_err as fs;
use oci_spec::image::MediaType;
use serde::{Deserialize, Serialize};

use super::archive::{ArchiveError, ArchiveFile, check_place, is_stream};
use super::telling::Telling;
use super::{FoundImage, Images, ImagesError, SavedImage, Saving, fetch_parts, layer_of};
use crate::cancel::Cancel;
use crate::event::EventSink;
use crate::oci::blob::BlobStore;
use crate::oci::digest::{DiffId, Digest, Hasher};
use crate::oci::image::{BlobFile, BlobPlace, Image, ImageConfiguration, Layer, MediaFamily};
use crate::oci::moved::Moved;
use crate::oci::reference::{Reference, same_image};
use crate::oci::tar_index::{TarIndex, TarPart};

const MANIFEST: &str = "manifest.json";
/// An image's labels are the largest part of a document.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// The images of an archive. An empty name is that of the only image. Nothing is
/// unpacked; whoever saves an image replaces the whole archive.
///
/// A blob with gzip is taken as it is: `docker load`, `podman load` and `skopeo` unpack
/// it. One with zstd is written without compression, for older engines know none.
#[derive(Debug, Clone)]
pub struct DockerArchive {
    file: PathBuf,
}

/// An image of the archive.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl DockerArchive {
    /// The images of `file`.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    fn open(&self) -> Result<Option<Opened>, ArchiveError> {
        if is_stream(&self.file) {
            return Ok(None);
        }
        let failed = |source| ArchiveError::Io { file: self.file.clone(), source };
        let file = match fs::File::open(&self.file) {
            Ok(file) => file.into_parts().0,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let index = TarIndex::read(&file).map_err(failed)?;
        let opened = Opened { path: self.file.clone(), file, index };
        Ok(Some(opened))
    }

    fn read(&self, name: &str) -> Result<Option<FoundImage>, ArchiveError> {
        let Some(opened) = self.open()? else { return Ok(None) };
        let entries = opened.entries()?;
        let chosen: Vec<&Entry> = entries
            .iter()
            .filter(|entry| name.is_empty() || entry.repo_tags.iter().any(|tag| same_image(tag, name)))
            .collect();
        match chosen[..] {
            [] => Ok(None),
            [entry] => opened.image(entry).map(Some),
            _ => Err(opened.invalid("it has several images; name one of them".to_owned())),
        }
    }

    fn write(
        &self,
        image: &Image,
        names: &[String],
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<(Digest, Moved), ArchiveError> {
        let mut tags = Vec::with_capacity(names.len());
        for name in names {
            tags.push(tag_of(name)?);
        }
        let (configuration, _) = image.documents();
        let distinct: BTreeMap<&Digest, u64> =
            image.layers.iter().map(|layer| (&layer.digest, layer.size)).collect();
        let telling = Telling::new(distinct.values().sum(), events);
        let mut archive = ArchiveFile::create(&self.file, cancel, telling)?;
        let config = format!("{}.json", configuration.digest.hex());
        archive.document(&config, &configuration.bytes)?;
        let mut written = BTreeSet::new();
        let mut layers = Vec::with_capacity(image.layers.len());
        for layer in &image.layers {
            let kind = MediaFamily::Oci.of_layer(&layer.media_type);
            let name = match kind {
                MediaType::ImageLayerZstd => format!("{}.tar", layer.diff_id.0.hex()),
                MediaType::ImageLayer => format!("{}.tar", layer.digest.hex()),
                _ => format!("{}.tar.gz", layer.digest.hex()),
            };
            // The same layer can be there twice; one copy is enough.
            if written.insert(name.clone()) {
                if kind == MediaType::ImageLayerZstd {
                    archive.unpacked(&name, layer)?;
                } else {
                    archive.blob(&name, layer)?;
                }
            }
            layers.push(name);
        }
        let manifest = [Entry { config, repo_tags: tags, layers }];
        let manifest = serde_json::to_vec(&manifest).expect("texts can be written");
        archive.document(MANIFEST, &manifest)?;
        Ok((configuration.digest, archive.finish()?))
    }
}

/// How engines and tools name an image in an archive.
fn tag_of(name: &str) -> Result<String, ArchiveError> {
    let refused = || ArchiveError::Name { name: name.escape_debug().to_string() };
    let reference: Reference = name.parse().map_err(|_| refused())?;
    let tag = reference.tag().ok_or_else(refused)?;
    let repository = name.strip_suffix(&format!(":{tag}")).unwrap_or(name);
    Ok(format!("{repository}:{tag}"))
}

/// An archive that is there.
struct Opened {
    path: PathBuf,
    file: File,
    index: TarIndex,
}

impl Opened {
    fn entries(&self) -> Result<Vec<Entry>, ArchiveError> {
        let manifest = self.document(MANIFEST)?;
        serde_json::from_slice(&manifest).map_err(|error| self.invalid(format!("`{MANIFEST}`: {error}")))
    }

    fn image(&self, entry: &Entry) -> Result<FoundImage, ArchiveError> {
        let bytes = self.document(&entry.config)?;
        let digest = Digest::of(&bytes);
        // Engines name the file after its digest; others may call it what they like.
        let stem = Path::new(&entry.config).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if stem.len() == digest.hex().len() && stem != digest.hex() {
            return Err(self.invalid(format!("`{}` has the digest `{digest}`", entry.config.escape_debug())));
        }
        let configuration: ImageConfiguration = serde_json::from_slice(&bytes)
            .map_err(|error| self.invalid(format!("`{}`: {error}", entry.config.escape_debug())))?;
        let diff_ids = &configuration.rootfs.diff_ids;
        if diff_ids.len() != entry.layers.len() {
            let (listed, known) = (entry.layers.len(), diff_ids.len());
            return Err(self.invalid(format!("it lists {listed} layers, the configuration {known}")));
        }
        let layers = entry.layers.iter().zip(diff_ids).map(|(path, diff_id)| self.layer(path, diff_id));
        let layers = layers.collect::<Result<_, _>>()?;
        let image = Image { family: MediaFamily::Docker, configuration, layers };
        Ok(FoundImage { reference: digest.to_string(), image })
    }

    /// A layer: its digest is not written down, and is that of its bytes. Without
    /// compression it has to be the `DiffID`, so that nothing is read for it.
    fn layer(&self, path: &str, diff_id: &DiffId) -> Result<Layer, ArchiveError> {
        let missing = || self.invalid(format!("it has no layer `{}`", path.escape_debug()));
        let part = self.index.get(path).ok_or_else(missing)?;
        let failed = |source| self.failed(source);
        let mut magic = Vec::new();
        self.part(part).map_err(failed)?.take(4).read_to_end(&mut magic).map_err(failed)?;
        let (kind, digest) = match magic[..] {
            [0x1f, 0x8b, ..] => (MediaType::ImageLayerGzip, self.hash(part).map_err(failed)?),
            [0x28, 0xb5, 0x2f, 0xfd] => (MediaType::ImageLayerZstd, self.hash(part).map_err(failed)?),
            _ => (MediaType::ImageLayer, diff_id.0.clone()),
        };
        Ok(Layer {
            media_type: MediaFamily::Docker.of_layer(&kind),
            digest,
            size: part.size,
            diff_id: diff_id.clone(),
            blob: BlobPlace::Part { file: self.path.clone(), start: part.start },
        })
    }

    fn part(&self, part: TarPart) -> io::Result<BlobFile> {
        Ok(BlobFile::part(self.file.try_clone()?, part.start, part.size))
    }

    fn hash(&self, part: TarPart) -> io::Result<Digest> {
        let mut hasher = Hasher::default();
        let (mut blob, mut buffer) = (self.part(part)?, vec![0; 256 << 10]);
        loop {
            match blob.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                read => hasher.update(&buffer[..read]),
            }
        }
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let found = self.index.document(&self.file, name, MAX_DOCUMENT_BYTES);
        let found = found.map_err(|source| self.failed(source))?;
        found.ok_or_else(|| self.invalid(format!("it has no `{}`", name.escape_debug())))
    }

    fn failed(&self, source: io::Error) -> ArchiveError {
        ArchiveError::Io { file: self.path.clone(), source }
    }

    fn invalid(&self, reason: String) -> ArchiveError {
        ArchiveError::Invalid { file: self.path.clone(), reason }
    }
}

impl Images for DockerArchive {
    fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
        self.read(name).map_err(|error| {
            let name = if name.is_empty() { self.file.display().to_string() } else { name.to_owned() };
            match error {
                ArchiveError::Invalid { .. } => ImagesError::Damaged { name, source: error.into() },
                error => ImagesError::Image { name, source: error.into() },
            }
        })
    }

    fn layer(&self, image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
        layer_of(image, diff_id)
    }

    fn fetch(
        &self,
        layers: &mut [Layer],
        blobs: &dyn BlobStore,
        cancel: &Cancel,
        _: &mut dyn EventSink,
    ) -> Result<(), ImagesError> {
        fetch_parts(layers, blobs, cancel)
    }

    fn names(&self) -> Result<Vec<String>, ImagesError> {
        let entries = || Ok(self.open()?.map(|opened| opened.entries()).transpose()?.unwrap_or_default());
        let entries = entries().map_err(|error: ArchiveError| ImagesError::Image {
            name: self.file.display().to_string(),
            source: error.into(),
        })?;
        Ok(entries.into_iter().flat_map(|entry| entry.repo_tags).collect())
    }

    fn check_write(&self, name: &str) -> Result<(), ImagesError> {
        tag_of(name)
            .and_then(|_| check_place(&self.file))
            .map_err(|error| ImagesError::NotWritable { name: name.to_owned(), source: error.into() })
    }

    /// All names or none: the archive is written in one step. The digest of a manifest is
    /// not known there; the image has the id that an engine gives it.
    fn save(
        &self,
        image: &Image,
        names: &[String],
        _: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        let result = self.write(image, names, cancel, events);
        let moved = result.as_ref().map(|(_, moved)| *moved).unwrap_or_default();
        let id = result.as_ref().ok().map(|(digest, _)| digest.hex().to_owned());
        let mut saving = Saving::default();
        saving.note_all(names, result.map(drop).map_err(Into::into));
        saving.finish(|names| SavedImage { names, id, moved, ..SavedImage::default() })
    }
}
