//! What takes how much of the store.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::Store;
use super::inventory::StoreKind;

/// What takes how much.
///
/// # Units
/// Bytes in whole blocks of 4 KiB, as files take them; files that share their blocks with
/// others count all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUsage {
    pub kinds: BTreeMap<StoreKind, KindUsage>,
    /// The largest first.
    pub images: Vec<ImageUsage>,
}

/// What one kind of things takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KindUsage {
    pub pieces: u64,
    pub bytes: u64,
}

/// What is kept for one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    pub tenant: String,
    pub image: String,
    /// Trees of layers, which are this image's alone.
    pub tree_bytes: u64,
    /// Compressed layers of its buildpacks; other images may have the same.
    pub layer_bytes: u64,
    pub last_used: SystemTime,
}

impl StoreUsage {
    /// Everything.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.kinds.values().map(|kind| kind.bytes).sum()
    }
}

impl Store {
    /// Looks at every file of the store.
    #[must_use]
    pub fn usage(&self) -> StoreUsage {
        let inventory = self.inventory();
        let mut kinds: BTreeMap<StoreKind, KindUsage> = BTreeMap::new();
        for piece in &inventory.pieces {
            let kind = kinds.entry(piece.kind).or_default();
            kind.pieces += 1;
            kind.bytes += piece.bytes;
        }
        let work = self.work_bytes();
        if work > 0 {
            kinds.insert(StoreKind::Work, KindUsage { pieces: 1, bytes: work });
        }
        let references = &inventory.references;
        let mut images = Vec::new();
        for piece in &inventory.pieces {
            let Some((tenant, image)) = references.images.get(&piece.name) else { continue };
            let exported = references.exported.get(&piece.name);
            let is_its = |records: &std::collections::BTreeSet<String>| {
                exported.is_some_and(|exported| !exported.is_disjoint(records))
            };
            let layers = inventory.pieces.iter().filter(|layer| is_its(&layer.records));
            images.push(ImageUsage {
                tenant: tenant.clone(),
                image: image.clone(),
                tree_bytes: piece.bytes,
                layer_bytes: layers.map(|layer| layer.bytes).sum(),
                last_used: time(piece.used),
            });
        }
        images.sort_by_key(|image| std::cmp::Reverse(image.tree_bytes + image.layer_bytes));
        StoreUsage { kinds, images }
    }
}

fn time(since_epoch: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(since_epoch).unwrap_or(SystemTime::UNIX_EPOCH)
}
