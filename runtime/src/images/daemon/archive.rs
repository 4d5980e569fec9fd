//! The archive that `docker load` takes and `docker save` gives.
//!
//! # Shape
//! ```text
//! <sha256 of the configuration>.json
//! <diffID>.tar …                       compressed or not; empty for what the engine has
//! manifest.json                        [{"Config": …, "RepoTags": […], "Layers": [path …]}]
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use serde_json::json;
use tar::{EntryType, Header};

use super::engine::DaemonError;
use crate::cancel::Cancel;
use crate::oci::compression::decompress;
use crate::oci::digest::DiffId;
use crate::oci::image::{BlobFile, Document, Layer};
use crate::oci::moved::Amount;
use crate::oci::tar_index::{TarIndex, TarPart};

/// The largest document of an archive that is read.
const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// Where the bytes of a layer come from.
#[derive(Debug, Clone)]
pub(super) enum LayerBytes {
    /// The engine has the layer, on top of those before it.
    Known,
    /// A layer whose blob is in a file.
    Blob(Layer),
    /// A file without a name.
    File(Arc<std::fs::File>),
    /// A layer of an image that the engine gave.
    Saved(Arc<SavedArchive>),
}

/// An archive that is on its way to an engine.
pub(super) struct Outgoing {
    /// To be read once.
    pub(super) bytes: Box<dyn Read + Send + Sync>,
    /// The layers in it.
    pub(super) sent: Amount,
    /// How much was read of them.
    pub(super) done_bytes: Arc<AtomicU64>,
}

/// The archive of an image.
pub(super) fn stream(
    configuration: &Document,
    layers: &[(DiffId, LayerBytes)],
    names: &[String],
    cancel: &Cancel,
) -> Result<Outgoing, DaemonError> {
    let mut sent = Amount::default();
    let mut parts = Parts { parts: Vec::new(), cancel: cancel.clone() };
    let done_bytes = Arc::<AtomicU64>::default();
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
            let is_known = matches!(bytes, LayerBytes::Known);
            let (size, bytes): (u64, Box<dyn Read + Send + Sync>) = match bytes {
                LayerBytes::Known => (0, Box::new(io::empty())),
                LayerBytes::Blob(layer) => (layer.size, Box::new(layer.open()?)),
                LayerBytes::File(file) => {
                    let size = file.metadata()?.len();
                    (size, Box::new(BlobFile::part(file.try_clone()?, 0, size)))
                }
                LayerBytes::Saved(archive) => {
                    let place = archive.place(diff_id).ok_or_else(|| DaemonError::Image {
                        problem: format!("it has no layer `{diff_id}`"),
                    })?;
                    (place.size, Box::new(archive.open(place)?))
                }
            };
            if !is_known {
                sent += Amount::one(size);
            }
            parts.entry(&path, size, Box::new(Counted { bytes, done: Arc::clone(&done_bytes) }))?;
        }
        paths.push(path);
    }
    let manifest = json!([{ "Config": configuration_name, "RepoTags": names, "Layers": paths }]);
    parts.document("manifest.json", &serde_json::to_vec(&manifest)?)?;
    parts.parts.push(Box::new(io::repeat(0).take(1024)));
    parts.parts.reverse();
    Ok(Outgoing { bytes: Box::new(parts), sent, done_bytes })
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

/// Counts what is read.
struct Counted {
    bytes: Box<dyn Read + Send + Sync>,
    done: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.done.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
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

/// What `docker save` gave, in a file without a name.
#[derive(Debug)]
pub(super) struct SavedArchive {
    file: std::fs::File,
    layers: BTreeMap<DiffId, TarPart>,
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
        let index = TarIndex::read(&file)?;
        let manifest = index.document(&file, "manifest.json", MAX_DOCUMENT_BYTES)?;
        let manifest: Vec<Manifest> =
            serde_json::from_slice(&manifest.ok_or_else(|| problem("its archive has no manifest"))?)?;
        let [Manifest { layers }] = &manifest[..] else { return Err(problem("its archive has several")) };
        if layers.len() != diff_ids.len() {
            return Err(problem("its archive has other layers"));
        }
        let found = layers.iter().zip(diff_ids).map(|(path, diff_id)| {
            let place = index.get(path).ok_or_else(|| problem("a layer is missing in its archive"))?;
            Ok((diff_id.clone(), place))
        });
        let mut layers = found.collect::<Result<BTreeMap<DiffId, TarPart>, DaemonError>>()?;
        // No tar is empty. An engine on containerd's store has such a file where another program did
        // not send a layer, and believed that the engine had it.
        layers.retain(|_, place| place.size > 0);
        Ok(Self { file, layers })
    }

    pub(super) fn place(&self, diff_id: &DiffId) -> Option<TarPart> {
        self.layers.get(diff_id).copied()
    }

    /// The bytes of an entry, as they are in the archive.
    pub(super) fn open(&self, place: TarPart) -> io::Result<BlobFile> {
        Ok(BlobFile::part(self.file.try_clone()?, place.start, place.size))
    }

    /// The tar of a layer.
    pub(super) fn layer(&self, place: TarPart) -> io::Result<Box<dyn Read>> {
        decompress(self.open(place)?)
    }
}
