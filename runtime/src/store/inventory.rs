//! What is in the store, as pieces that can go one by one.
//!
//! Reads records without counting that as use, and looks at the status of every file. What
//! others are adding or removing meanwhile may be missed or counted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FileType;

use super::Store;
use super::blobs::BlobRecord;
use super::images::ImageRecord;
use crate::oci::digest::Digest;
use crate::walk::{self, Status, Step, WalkError};

/// Files take whole blocks.
const BLOCK_BYTES: u64 = 4096;

/// What something in the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreKind {
    /// What the last build of an image left: its record, and trees of layers.
    Images,
    /// Bills of materials of what images have.
    Documents,
    /// Compressed layers.
    Layers,
    /// What was found out of layers and files elsewhere.
    Notes,
    /// Precompiled components.
    Compiled,
    /// Unpacked builders.
    Builders,
    /// Files of sources.
    Downloads,
    /// What nothing refers to any more.
    Unused,
    /// Directories of running builds, and of builds that were asked to keep theirs.
    Work,
}

impl StoreKind {
    /// A word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Documents => "documents",
            Self::Layers => "layers",
            Self::Notes => "notes",
            Self::Compiled => "compiled",
            Self::Builders => "builders",
            Self::Downloads => "downloads",
            Self::Unused => "unused",
            Self::Work => "work",
        }
    }
}

/// One piece: it goes as a whole, or stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: StoreKind,
    /// Relative to the store's root; also the name of its lease.
    pub(super) name: String,
    /// Other files that go with it, before it.
    pub(super) records: BTreeSet<String>,
    pub(super) bytes: u64,
    /// Since the epoch.
    pub(super) used: Duration,
}

/// Who refers to blobs.
#[derive(Debug, Default)]
pub(super) struct References {
    /// Names of index records, with when they were last used, by the blob they lead to.
    pub(super) layers: BTreeMap<Digest, BTreeMap<String, Duration>>,
    /// Documents that records of images lead to, by the directory of the image.
    pub(super) documents: BTreeMap<Digest, BTreeSet<String>>,
    /// Trees that records of images lead to.
    pub(super) trees: BTreeSet<String>,
    /// Images by their directory: tenant and name.
    pub(super) images: BTreeMap<String, (String, String)>,
    /// Compressed layers of images by their directory.
    pub(super) exported: BTreeMap<String, BTreeSet<String>>,
}

/// Everything there is.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) pieces: Vec<Piece>,
    pub(super) references: References,
}

impl Inventory {
    /// All bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }
}

impl Store {
    /// Looks at everything but the directories of builds.
    pub(super) fn inventory(&self) -> Inventory {
        let references = self.references();
        let mut pieces = Vec::new();
        self.see_index(&references, &mut pieces);
        self.see_images(&references, &mut pieces);
        self.see_blobs(&references, &mut pieces);
        for directory in ["notes", "digests"] {
            pieces.extend(self.entries(directory).map(|entry| entry.piece(StoreKind::Notes)));
        }
        pieces.extend(self.entries("downloads").map(|entry| entry.piece(StoreKind::Downloads)));
        // `<hash>`, `<hash>.seal`, `<hash>.failure`; and `<hash>/` with `<hash>.json`.
        pieces.extend(self.families("compiled", StoreKind::Compiled));
        pieces.extend(self.families("builders", StoreKind::Builders));
        Inventory { pieces, references }
    }

    /// Reads every record that leads to blobs.
    pub(super) fn references(&self) -> References {
        let mut references = References::default();
        for Entry { name, used, .. } in self.entries("index") {
            if let Some(record) = self.peek_record::<BlobRecord>(&name) {
                references.layers.entry(record.blob.digest).or_default().insert(name, used);
            }
        }
        for directory in self.image_directories() {
            let Some(record) = self.peek_record::<ImageRecord>(&format!("{directory}/record")) else {
                continue;
            };
            references.add_image(&directory, record);
        }
        references
    }

    /// `layers/<tenant>/<image>` of every image.
    fn image_directories(&self) -> Vec<String> {
        let is_directory = |entry: &Entry| entry.status.kind == FileType::Directory;
        let tenants = self.entries("layers").filter(is_directory);
        tenants
            .flat_map(|tenant| self.entries(&tenant.name))
            .filter(is_directory)
            .map(|image| image.name)
            .collect()
    }

    fn see_index(&self, references: &References, pieces: &mut Vec<Piece>) {
        let known: BTreeSet<&String> = references.layers.values().flat_map(BTreeMap::keys).collect();
        let broken = self.entries("index").filter(|entry| !known.contains(&entry.name));
        pieces.extend(broken.map(|entry| entry.piece(StoreKind::Unused)));
    }

    fn see_images(&self, references: &References, pieces: &mut Vec<Piece>) {
        for directory in self.image_directories() {
            let record = self.root().join(&directory).join("record");
            let status = Status::of(&record).or_else(|_| Status::of(&self.root().join(&directory)));
            let is_known = references.images.contains_key(&directory);
            let mut bytes = 3 * BLOCK_BYTES;
            for tree in self.entries(&format!("{directory}/trees")) {
                if !is_known || references.trees.contains(&tree.name) {
                    bytes += tree.bytes();
                } else {
                    pieces.push(tree.piece(StoreKind::Unused));
                }
            }
            pieces.push(Piece {
                kind: if is_known { StoreKind::Images } else { StoreKind::Unused },
                name: directory,
                records: BTreeSet::new(),
                bytes,
                used: status.map(|status| used(&status)).unwrap_or_default(),
            });
        }
    }

    fn see_blobs(&self, references: &References, pieces: &mut Vec<Piece>) {
        for entry in self.entries("blobs/sha256") {
            let digest = entry.file_name().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            let records = digest.as_ref().and_then(|digest| references.layers.get(digest));
            let is_document = digest.as_ref().is_some_and(|digest| references.documents.contains_key(digest));
            let piece = match records {
                Some(records) => Piece {
                    bytes: entry.bytes() + records.len() as u64 * BLOCK_BYTES,
                    used: records.values().copied().max().unwrap_or_default(),
                    records: records.keys().cloned().collect(),
                    ..entry.piece(StoreKind::Layers)
                },
                None => entry.piece(if is_document { StoreKind::Documents } else { StoreKind::Unused }),
            };
            pieces.push(piece);
        }
        // Records of blobs that are gone lead nowhere.
        let gone = references
            .layers
            .iter()
            .filter(|(digest, _)| Status::of(&self.root().join(blob_name(digest))).is_err());
        for (name, used) in gone.flat_map(|(_, records)| records) {
            pieces.push(Piece {
                kind: StoreKind::Unused,
                name: name.clone(),
                records: BTreeSet::new(),
                bytes: BLOCK_BYTES,
                used: *used,
            });
        }
    }

    /// Entries of a directory that share what is before the first dot.
    fn families(&self, directory: &str, kind: StoreKind) -> Vec<Piece> {
        let mut families: BTreeMap<String, Piece> = BTreeMap::new();
        for entry in self.entries(directory) {
            let stem = entry.name.split_once('.').map_or(entry.name.as_str(), |(stem, _)| stem).to_owned();
            let mut piece = entry.piece(kind);
            let family = families.entry(stem.clone()).or_insert_with(|| Piece {
                name: stem,
                bytes: 0,
                used: Duration::ZERO,
                ..piece.clone()
            });
            family.bytes += piece.bytes;
            family.used = family.used.max(piece.used);
            if piece.name != family.name {
                family.records.insert(std::mem::take(&mut piece.name));
            }
        }
        families.into_values().collect()
    }

    fn entries(&self, directory: &str) -> impl Iterator<Item = Entry> + use<> {
        let path = self.root().join(directory);
        let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
        let directory = directory.to_owned();
        entries.filter_map(move |entry| {
            // The store writes no other names; the next look may find another place for them.
            let name = format!("{directory}/{}", entry.file_name().to_str()?);
            let path = entry.path();
            let status = Status::of(&path).ok()?;
            Some(Entry { used: used(&status), name, path, status })
        })
    }

    /// What builds have below `work/` and `kept/`.
    pub(super) fn work_bytes(&self) -> u64 {
        ["work", "kept"].iter().flat_map(|directory| self.entries(directory)).map(|entry| entry.bytes()).sum()
    }
}

impl References {
    fn add_image(&mut self, directory: &str, record: ImageRecord) {
        let layers = record.buildpacks.into_values().flat_map(|buildpack| buildpack.layers.into_values());
        for layer in layers {
            for (_, document) in layer.sboms {
                self.documents.entry(document.digest).or_default().insert(directory.to_owned());
            }
            if let Some(tree) = layer.tree {
                self.trees.insert(format!("{directory}/trees/{}", tree.name));
            }
            if let Some(exported) = layer.exported {
                let name = super::blobs::index_name(&exported.diff_id, &exported.encoder);
                self.exported.entry(directory.to_owned()).or_default().insert(name);
            }
        }
        self.images.insert(directory.to_owned(), (record.tenant, record.image));
    }
}

/// The blob with this digest, relative to the store's root.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Something in a directory of the store.
struct Entry {
    name: String,
    path: PathBuf,
    status: Status,
    used: Duration,
}

impl Entry {
    fn file_name(&self) -> Option<&str> {
        self.path.file_name().and_then(OsStr::to_str)
    }

    fn bytes(&self) -> u64 {
        blocks(&self.status)
            + if self.status.kind == FileType::Directory { tree_bytes(&self.path) } else { 0 }
    }

    fn piece(&self, kind: StoreKind) -> Piece {
        Piece {
            kind,
            name: self.name.clone(),
            records: BTreeSet::new(),
            bytes: self.bytes(),
            used: self.used,
        }
    }
}

/// What is in a directory takes so much; what cannot be read counts nothing.
pub(super) fn tree_bytes(path: &Path) -> u64 {
    let mut sum = 0;
    let _ = walk::walk::<WalkError>(path, |entry| {
        sum += blocks(&entry.status);
        Ok(Step::Into)
    });
    sum
}

fn blocks(status: &Status) -> u64 {
    status.size.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// When something was last used: reading a record sets its time of modification.
fn used(status: &Status) -> Duration {
    let (seconds, nanoseconds) = status.modified;
    Duration::new(u64::try_from(seconds).unwrap_or_default(), nanoseconds)
}

/// Since the epoch.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
