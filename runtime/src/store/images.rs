//! What the last build of an image left for the next one: layers with their
//! metadata, trees and blobs, and each buildpack's `store.toml`.
//!
//! A tree is used in place by the builds that lease it, so it is never changed
//! and never removed under them: a new tree gets a new name, the record is
//! replaced as a whole, and only trees that no record and no lease holds go.

mod trees;

#[cfg(test)]
mod tests;

pub use self::trees::SealedTree;
use self::trees::{Lease, StoredTree, collect, lease};

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::blobs::SealedBlob;
use super::collection::image_directory;
use super::files;
use super::{Store, StoreError, work};
use crate::cnb::id::{BuildpackId, LayerName};
use crate::cnb::layer::{EnvironmentChange, LayerFeatures, LayerTypes};
use crate::cnb::sbom::{Sbom, SbomFormat};
use crate::network::Artifact;
use crate::oci::blob::{BlobStore as _, StoredBlob};
use crate::oci::digest::{DiffId, Digest};
use crate::walk::Status;

/// Attempts at a record whose trees vanish while it is read; each needs a commit in between.
const ATTEMPTS: usize = 20;

/// A layer as the last build of the image left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedLayer {
    pub name: LayerName,
    pub types: LayerTypes,
    /// What the buildpack said the contents depend on.
    pub cache_key: String,
    /// TOML text.
    pub metadata: String,
    pub environment: Vec<EnvironmentChange>,
    pub sboms: Vec<Sbom>,
    /// What its buildpack fetched to make it; `None` when nobody noted that.
    pub artifacts: Option<BTreeSet<Artifact>>,
    /// As it was exported, with its blob; `None` when it never was or when the
    /// blob is no longer there and sound.
    pub exported: Option<(ExportedAs, StoredBlob)>,
    /// The contents, read-only and leased for as long as the [`ImageCache`] lives.
    pub tree: Option<SealedTree>,
}

/// What became of a layer in an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportedAs {
    /// Of the layer's tar.
    pub diff_id: DiffId,
    /// What compressed it.
    pub encoder: String,
    /// What is in it.
    pub features: LayerFeatures,
}

/// Everything the next build of an image is to find.
#[derive(Debug, Default)]
pub struct ImageRecords {
    pub buildpacks: BTreeMap<BuildpackId, BuildpackRecords>,
}

/// What one buildpack leaves.
#[derive(Debug, Default)]
pub struct BuildpackRecords {
    /// Its version.
    pub version: Option<String>,
    /// TOML text for `store.toml`.
    pub store_toml: Option<String>,
    pub layers: Vec<LayerRecord>,
}

/// A layer to be kept.
#[derive(Debug)]
pub struct LayerRecord {
    pub name: LayerName,
    pub types: LayerTypes,
    pub cache_key: String,
    /// TOML text.
    pub metadata: String,
    pub environment: Vec<EnvironmentChange>,
    pub sboms: Vec<Sbom>,
    /// See [`CachedLayer::artifacts`].
    pub artifacts: Option<BTreeSet<Artifact>>,
    /// What became of it in the image, if it got there.
    pub exported: Option<ExportedAs>,
    pub tree: TreeSource,
}

/// Where the contents of a layer come from.
#[derive(Debug)]
pub enum TreeSource {
    /// A directory on the store's file system, which is moved away from there.
    Move(PathBuf),
    /// The tree that [`CachedLayer::tree`] gave out stays.
    Unchanged,
    /// No contents are kept.
    None,
}

/// What the last build of one image left, with leases on its trees.
#[derive(Debug)]
pub struct ImageCache<'store> {
    store: &'store Store,
    /// Relative to the store's root.
    directory: String,
    record: ImageRecord,
    /// By the name of the tree's directory.
    leases: BTreeMap<String, Lease>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) tenant: String,
    pub(super) image: String,
    pub(super) buildpacks: BTreeMap<BuildpackId, BuildpackRecord>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BuildpackRecord {
    /// Stores of earlier programs do not have it.
    #[serde(default)]
    version: Option<String>,
    store_toml: Option<String>,
    pub(super) layers: BTreeMap<LayerName, StoredLayer>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredLayer {
    types: LayerTypes,
    cache_key: String,
    metadata: String,
    environment: Vec<EnvironmentChange>,
    pub(super) sboms: Vec<(SbomFormat, SealedBlob)>,
    #[serde(default)]
    artifacts: Option<BTreeSet<Artifact>>,
    pub(super) exported: Option<ExportedAs>,
    pub(super) tree: Option<StoredTree>,
}

impl ImageRecord {
    /// The names of its trees.
    pub(super) fn trees(&self) -> impl Iterator<Item = &str> {
        let layers = self.buildpacks.values().flat_map(|buildpack| buildpack.layers.values());
        layers.filter_map(|layer| layer.tree.as_ref().map(|tree| tree.name.as_str()))
    }
}

impl Store {
    /// What the last build of `image` by `tenant` left. Costs one small file
    /// and a few `stat`s for each layer, whatever the size of the layers.
    pub fn image(&self, tenant: &str, image: &str) -> ImageCache<'_> {
        let directory = image_directory(tenant, image);
        // Before anything is read: nothing of it goes while this store is open.
        self.leases.take(&directory);
        let empty = || ImageRecord {
            tenant: tenant.to_owned(),
            image: image.to_owned(),
            buildpacks: BTreeMap::new(),
        };
        let mut cache = ImageCache { store: self, directory, record: empty(), leases: BTreeMap::new() };
        for attempt in 0..ATTEMPTS {
            let record: Option<ImageRecord> = self.read_record(&cache.record_name());
            // A record under the wrong name is somebody else's.
            cache.record =
                record.filter(|found| found.tenant == tenant && found.image == image).unwrap_or_else(empty);
            if cache.lease_trees(attempt + 1 == ATTEMPTS) {
                break;
            }
        }
        cache
    }
}

impl Store {
    /// Forgets what was kept for `image` by `tenant`, so that the next build makes it all anew.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn forget_image(&self, tenant: &str, image: &str) -> Result<(), StoreError> {
        let cache = self.image(tenant, image);
        if cache.is_empty() { Ok(()) } else { cache.commit(ImageRecords::default()) }
    }
}

impl ImageCache<'_> {
    fn record_name(&self) -> String {
        format!("{}/record", self.directory)
    }

    fn trees(&self) -> PathBuf {
        self.store.root().join(&self.directory).join("trees")
    }

    /// Leases every tree of the record; `false` when the record should be read
    /// again because a commit replaced it meanwhile. What is damaged, or gone
    /// even at the `last` attempt, is left out.
    fn lease_trees(&mut self, last: bool) -> bool {
        let trees = self.trees();
        self.leases.clear();
        let stored: Vec<StoredTree> = self
            .record
            .buildpacks
            .values()
            .flat_map(|buildpack| buildpack.layers.values())
            .filter_map(|layer| layer.tree.clone())
            .collect();
        let mut vanished = Vec::new();
        for tree in stored {
            match lease(&trees, &tree) {
                Ok(Some(lease)) => {
                    self.leases.insert(tree.name, lease);
                }
                Ok(None) => vanished.push(trees.join(tree.name)),
                Err(()) => self.store.note_damage(&trees.join(tree.name)),
            }
        }
        if vanished.is_empty() {
            return true;
        }
        let unchanged =
            self.store.read_record::<ImageRecord>(&self.record_name()).as_ref() == Some(&self.record);
        if unchanged || last {
            for path in vanished {
                self.store.note_damage(&path);
            }
        }
        unchanged
    }

    /// The layers of one buildpack, sorted by name. Costs a `stat` for each
    /// file in them; a layer that somebody touched is left out.
    pub fn layers(&self, buildpack: &BuildpackId) -> Vec<CachedLayer> {
        let Some(record) = self.record.buildpacks.get(buildpack) else { return Vec::new() };
        record.layers.iter().filter_map(|(name, layer)| self.cached_layer(name, layer)).collect()
    }

    /// A layer without its bill of materials is no layer: the image would differ from an uncached one.
    fn cached_layer(&self, name: &LayerName, layer: &StoredLayer) -> Option<CachedLayer> {
        let mut sboms = Vec::with_capacity(layer.sboms.len());
        for (format, document) in &layer.sboms {
            let content = self.store.read_document(document)?;
            sboms.push(Sbom { format: *format, content });
        }
        let exported = layer.exported.as_ref().and_then(|exported| {
            Some((exported.clone(), self.store.find(&exported.diff_id, &exported.encoder)?))
        });
        let stored = layer.tree.as_ref();
        let tree = stored.and_then(|tree| self.leases.get(&tree.name)).map(|lease| &lease.tree);
        // A guest would meet the damage as wrong contents or as a failure of its own.
        if let (Some(tree), Some(stored)) = (tree, stored)
            && !tree.is_sound(stored, self.store.verifies())
        {
            self.store.note_damage(&tree.path);
            return None;
        }
        Some(CachedLayer {
            name: name.clone(),
            types: layer.types,
            cache_key: layer.cache_key.clone(),
            metadata: layer.metadata.clone(),
            environment: layer.environment.clone(),
            sboms,
            artifacts: layer.artifacts.clone(),
            exported,
            tree: tree.cloned(),
        })
    }

    /// Every tree this build may read, leased for as long as this value lives.
    pub fn leased_trees(&self) -> Vec<PathBuf> {
        self.leases.values().map(|lease| lease.tree.path.clone()).collect()
    }

    /// Whether nothing is known of the image: it was never built here, or was forgotten.
    pub fn is_empty(&self) -> bool {
        self.record.buildpacks.is_empty()
    }

    /// Those that left something.
    pub fn buildpacks(&self) -> impl Iterator<Item = &BuildpackId> {
        self.record.buildpacks.keys()
    }

    /// The version of a buildpack that left what there is.
    pub fn version(&self, buildpack: &BuildpackId) -> Option<String> {
        self.record.buildpacks.get(buildpack)?.version.clone()
    }

    /// What a buildpack left in `store.toml`, as TOML text.
    pub fn store_toml(&self, buildpack: &BuildpackId) -> Option<String> {
        self.record.buildpacks.get(buildpack)?.store_toml.clone()
    }

    /// Replaces everything that is kept for this image, at the end of a build.
    /// The next build sees all of it or, after a crash at any moment, all of
    /// what was there before. When nothing changed, nothing is written.
    ///
    /// # Errors
    /// [`StoreError`]; then the old records stay. The image is not affected.
    pub fn commit(mut self, records: ImageRecords) -> Result<(), StoreError> {
        let directory = self.store.root().join(&self.directory);
        let trees = self.trees();
        let failed = |error| StoreError::io("write", &directory, error);
        if Status::of(&trees).is_err() {
            files::create_private_all(&trees).map_err(failed)?;
            for path in [directory.as_path(), directory.parent().unwrap_or(&directory)] {
                files::sync_directory(path).map_err(failed)?;
            }
        }
        // Held to the end: a tree that is in place but not yet in the record must not be collected.
        let lock = work::lock(&directory, FlockOperation::LockExclusive).map_err(failed)?;

        let mut record = ImageRecord {
            tenant: self.record.tenant.clone(),
            image: self.record.image.clone(),
            buildpacks: BTreeMap::new(),
        };
        let mut moved = false;
        for (id, mut buildpack) in records.buildpacks {
            let mut layers = BTreeMap::new();
            for layer in std::mem::take(&mut buildpack.layers) {
                moved |= matches!(layer.tree, TreeSource::Move(_));
                let (name, layer) = self.store_layer(&id, layer)?;
                layers.insert(name, layer);
            }
            let BuildpackRecords { version, store_toml, .. } = buildpack;
            record.buildpacks.insert(id, BuildpackRecord { version, store_toml, layers });
        }
        if moved {
            // Guests do not flush what they write, and flushing each of 30,000 files takes minutes.
            let everything = std::fs::File::open(&directory).map_err(failed)?;
            rustix::fs::syncfs(&everything).map_err(|error| failed(error.into()))?;
        }
        // Another build of the image may have committed since this one read the record.
        if self.store.read_record::<ImageRecord>(&self.record_name()).as_ref() != Some(&record) {
            self.store.write_record(&self.record_name(), &record)?;
        }
        let kept: BTreeSet<&str> = record.trees().collect();
        self.leases.retain(|name, _| kept.contains(name.as_str()));
        collect(&trees, &kept);
        drop(lock);
        Ok(())
    }

    fn store_layer(
        &self,
        buildpack: &BuildpackId,
        layer: LayerRecord,
    ) -> Result<(LayerName, StoredLayer), StoreError> {
        let old = self.record.buildpacks.get(buildpack).and_then(|old| old.layers.get(&layer.name));
        let tree = match layer.tree {
            TreeSource::None => None,
            TreeSource::Move(path) => Some(self.store.move_tree(&self.trees(), &path)?),
            TreeSource::Unchanged => {
                let known = old.and_then(|old| old.tree.clone());
                let leased = known.filter(|tree| self.leases.contains_key(&tree.name));
                if leased.is_none() {
                    return Err(StoreError::Tree {
                        path: self.trees(),
                        what: format!("layer `{}` of `{buildpack}` has none that could stay", layer.name),
                    });
                }
                self.with_digest(leased)
            }
        };
        let mut sboms = Vec::with_capacity(layer.sboms.len());
        for sbom in layer.sboms {
            // An unchanged document is not read again, let alone written.
            let digest = Digest::of(&sbom.content);
            let known = old.and_then(|old| old.sboms.iter().find(|(_, known)| known.digest == digest));
            let document = match known.and_then(|(_, known)| self.store.check_blob(known)) {
                Some(blob) => blob,
                None => self
                    .store
                    .put_document(&sbom.content)
                    .map_err(|error| StoreError::io("write", self.store.root(), error))?,
            };
            sboms.push((sbom.format, document));
        }
        let stored = StoredLayer {
            types: layer.types,
            cache_key: layer.cache_key,
            metadata: layer.metadata,
            environment: layer.environment,
            sboms,
            artifacts: layer.artifacts,
            exported: layer.exported,
            tree,
        };
        Ok((layer.name, stored))
    }

    /// Notes what is in a tree that was just found to be untouched.
    fn with_digest(&self, tree: Option<StoredTree>) -> Option<StoredTree> {
        tree.map(|mut tree| {
            if self.store.verifies() && tree.digest.is_none() {
                tree.digest = tree.read_digest(&self.trees());
            }
            tree
        })
    }
}
