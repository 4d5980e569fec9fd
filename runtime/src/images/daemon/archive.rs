//! The archive that `docker load` takes and `docker save` gives.
//!
//! # Shape
//! ```text
//! <sha256 of the configuration>.json
//! <diffID>.tar …                       compressed or not; empty for what the engine has
//! manifest.json                        [{"Config": …, "RepoTags": […], "Layers": [path …]}]
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use fs_err as fs;
use serde::Deserialize;
use serde_json::json;
use tar::{EntryType, Header};

use super::engine::DaemonError;
use crate::cancel::Cancel;
use crate::oci::compression::decompress;
use crate::oci::digest::DiffId;
use crate::oci::image::Document;

/// The largest document of an archive that is read.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// Where the bytes of a layer come from.
#[derive(Debug, Clone)]
pub(super) enum LayerBytes {
    /// The engine has the layer, on top of those before it.
    Known,
    /// A file with the layer's blob.
    Blob(PathBuf),
    /// A layer of an image that the engine gave.
    Saved(Arc<SavedArchive>),
}

/// The archive of an image, to be read once.
pub(super) fn stream(
    configuration: &Document,
    layers: &[(DiffId, LayerBytes)],
    names: &[String],
    cancel: &Cancel,
) -> Result<Box<dyn Read + Send + Sync>, DaemonError> {
    let mut parts = Parts { parts: Vec::new(), cancel: cancel.clone() };
    let hex = configuration.digest.as_str().trim_start_matches("sha256:");
    let configuration_name = format!("{hex}.json");
    parts.document(&configuration_name, &configuration.bytes)?;
    let mut paths = Vec::with_capacity(layers.len());
    for (index, (diff_id, bytes)) in layers.iter().enumerate() {
        let path = match bytes {
            LayerBytes::Known => format!("known-{index}"),
            _ => format!("{}.tar", diff_id.to_string().trim_start_matches("sha256:")),
        };
        // The same layer can be there twice; one copy is enough.
        if !paths.contains(&path) {
            match bytes {
                LayerBytes::Known => parts.document(&path, &[])?,
                LayerBytes::Blob(file) => {
                    let file = fs::File::open(file)?;
                    let size = file.metadata()?.len();
                    parts.entry(&path, size, Box::new(file))?;
                }
                LayerBytes::Saved(archive) => {
                    let place = archive.place(diff_id).ok_or_else(|| DaemonError::Image {
                        problem: format!("it has no layer `{diff_id}`"),
                    })?;
                    parts.entry(&path, place.size, Box::new(archive.open(place)?))?;
                }
            }
        }
        paths.push(path);
    }
    let manifest = json!([{ "Config": configuration_name, "RepoTags": names, "Layers": paths }]);
    parts.document("manifest.json", &serde_json::to_vec(&manifest)?)?;
    parts.parts.push(Box::new(io::repeat(0).take(1024)));
    parts.parts.reverse();
    Ok(Box::new(parts))
}

/// What is read one after the other; the last is the first.
struct Parts {
    parts: Vec<Box<dyn Read + Send + Sync>>,
    cancel: Cancel,
}

impl Parts {
    fn document(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.entry(name, bytes.len() as u64, Box::new(io::Cursor::new(bytes.to_vec())))
    }

    fn entry(&mut self, name: &str, size: u64, bytes: Box<dyn Read + Send + Sync>) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_path(name)?;
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header.set_cksum();
        self.parts.push(Box::new(io::Cursor::new(header.as_bytes().to_vec())));
        self.parts.push(Box::new(Exactly { bytes, left: size }));
        self.parts.push(Box::new(io::repeat(0).take(size.next_multiple_of(512) - size)));
        Ok(())
    }
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        while let Some(part) = self.parts.last_mut() {
            match part.read(buffer)? {
                0 => drop(self.parts.pop()),
                count => return Ok(count),
            }
        }
        Ok(0)
    }
}

/// A file of a known size: a shorter one would shift what follows.
struct Exactly {
    bytes: Box<dyn Read + Send + Sync>,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.bytes.read(&mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Where an entry's bytes are in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    start: u64,
    pub(super) size: u64,
}

/// What `docker save` gave, in a file without a name.
#[derive(Debug)]
pub(super) struct SavedArchive {
    file: std::fs::File,
    layers: BTreeMap<DiffId, Place>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    layers: Vec<String>,
}

impl SavedArchive {
    /// Reads where the layers of an image are that has `diff_ids`, in this order.
    pub(super) fn new(file: std::fs::File, diff_ids: &[DiffId]) -> Result<Self, DaemonError> {
        let problem = |problem: &str| DaemonError::Image { problem: problem.to_owned() };
        let (places, manifest) = index(&file)?;
        let manifest: Vec<Manifest> =
            serde_json::from_slice(&manifest.ok_or_else(|| problem("its archive has no manifest"))?)?;
        let [Manifest { layers }] = &manifest[..] else { return Err(problem("its archive has several")) };
        if layers.len() != diff_ids.len() {
            return Err(problem("its archive has other layers"));
        }
        let found = layers.iter().zip(diff_ids).map(|(path, diff_id)| {
            let place = places.get(path).ok_or_else(|| problem("a layer is missing in its archive"))?;
            Ok((diff_id.clone(), *place))
        });
        let layers = found.collect::<Result<_, DaemonError>>()?;
        Ok(Self { file, layers })
    }

    pub(super) fn place(&self, diff_id: &DiffId) -> Option<Place> {
        self.layers.get(diff_id).copied()
    }

    /// The bytes of an entry, as they are in the archive.
    fn open(&self, place: Place) -> io::Result<Window> {
        Ok(Window { file: self.file.try_clone()?, next: place.start, left: place.size })
    }

    /// The tar of a layer.
    pub(super) fn layer(&self, place: Place) -> io::Result<Box<dyn Read>> {
        decompress(self.open(place)?)
    }
}

/// Entries by name, and the text of the manifest.
type Index = (BTreeMap<String, Place>, Option<Vec<u8>>);

/// Places of all entries by name, links followed, and the manifest.
fn index(file: &std::fs::File) -> io::Result<Index> {
    let mut places = BTreeMap::new();
    let mut links = Vec::new();
    let mut manifest = None;
    let mut reader = file.try_clone()?;
    reader.seek(SeekFrom::Start(0))?;
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        match entry.header().entry_type() {
            EntryType::Regular => {
                let place = Place { start: entry.raw_file_position(), size: entry.size() };
                if name == "manifest.json" {
                    let mut bytes = Vec::new();
                    entry.by_ref().take(MAX_DOCUMENT_BYTES).read_to_end(&mut bytes)?;
                    manifest = Some(bytes);
                }
                places.insert(name, place);
            }
            EntryType::Symlink | EntryType::Link => {
                if let Some(target) = entry.link_name()? {
                    links.push((name, target.to_string_lossy().into_owned()));
                }
            }
            _ => {}
        }
    }
    // A layer that is there twice is a link to the first: `../<id>/layer.tar`.
    for (name, target) in links {
        let target = target.trim_start_matches("../");
        if let Some(place) = places.get(target).copied() {
            places.insert(name, place);
        }
    }
    Ok((places, manifest))
}

/// A part of a file. Its position is its own, whoever else reads the file.
struct Window {
    file: std::fs::File,
    next: u64,
    left: u64,
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = std::os::unix::fs::FileExt::read_at(&self.file, &mut buffer[..wanted], self.next)?;
        self.next += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
