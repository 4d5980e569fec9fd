//! What the last build of an image left for the next one: layers with their
//! metadata, trees and blobs, and each buildpack's `store.toml`.
//!
//! A tree is used in place by the builds that lease it, so it is never changed
//! and never removed under them: a new tree gets a new name, the record is
//! replaced as a whole, and only trees that no record and no lease holds go.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::blobs::SealedBlob;
use super::collection::image_directory;
use super::files::{self, Seal};
use super::inventory::tree_bytes;
use super::{Store, StoreError, work};
use crate::cnb::id::{BuildpackId, LayerName};
use crate::cnb::layer::{EnvironmentChange, LayerFeatures, LayerTypes};
use crate::cnb::sbom::{Sbom, SbomFormat};
use crate::network::Artifact;
use crate::oci::blob::{BlobStore as _, StoredBlob};
use crate::oci::digest::{DiffId, Digest, Hasher};
use crate::walk::{self, Status, Step, WalkError};

/// Attempts at a record whose trees vanish while it is read; each needs a commit in between.
const ATTEMPTS: usize = 20;

/// Entries of a tree that a build looks at before it trusts the seal: about 10 ms
/// of `stat`. A layer of 50,000 files must not cost every build a tenth of a second.
const CHECKED_ENTRIES: usize = 4_000;

/// The contents of a layer, inside its directory under `trees/`.
const TREE: &str = "tree";

/// Made when a tree is complete; its change time seals everything older.
const MARKER: &str = "sealed";

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

/// The contents of a cached layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedTree {
    pub path: PathBuf,
    /// A file in the tree that changed after this was damaged.
    ///
    /// # Units
    /// Seconds and nanoseconds of the file system's clock, to compare with `st_ctime`.
    pub sealed_at: (i64, u32),
}

impl SealedTree {
    /// Whether nothing in the tree has changed since it was sealed: one `stat`
    /// for each of the first `entries`, and no contents are read. What
    /// is past them is trusted for being in a directory that only we can write.
    fn is_untouched(&self, entries: usize) -> bool {
        let mut left = entries;
        let end = walk::walk::<Unsealed>(&self.path, |entry| {
            left = left.checked_sub(1).ok_or(Unsealed::Unchecked)?;
            if entry.status.changed <= self.sealed_at { Ok(Step::Into) } else { Err(Unsealed::Touched) }
        });
        matches!(end, Ok(()) | Err(Unsealed::Unchecked))
    }
}

/// Why a look at a tree ended early.
enum Unsealed {
    /// Something is not as it was sealed, or cannot be looked at.
    Touched,
    /// The tree is larger than what is looked at.
    Unchecked,
}

impl From<WalkError> for Unsealed {
    fn from(_: WalkError) -> Self {
        Self::Touched
    }
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

#[derive(Debug)]
struct Lease {
    _lock: OwnedFd,
    tree: SealedTree,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredTree {
    pub(super) name: String,
    marker: Seal,
    /// Of everything in it; only where somebody asked for it to be verified.
    #[serde(default)]
    digest: Option<String>,
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
            && !self.is_sound(tree, stored)
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

    /// By the seal; where everything is verified, by its contents too.
    fn is_sound(&self, tree: &SealedTree, stored: &StoredTree) -> bool {
        if !self.store.verifies() {
            return tree.is_untouched(CHECKED_ENTRIES);
        }
        let has_digest = |expected: &String| digest_of_tree(&tree.path).is_ok_and(|found| found == *expected);
        tree.is_untouched(usize::MAX) && stored.digest.as_ref().is_none_or(has_digest)
    }

    /// Every tree this build may read, leased for as long as this value lives.
    pub fn leased_trees(&self) -> Vec<PathBuf> {
        self.leases.values().map(|lease| lease.tree.path.clone()).collect()
    }

    /// Whether nothing is known of the image: it was never built here, or was forgotten.
    pub fn is_empty(&self) -> bool {
        self.record.buildpacks.is_empty()
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
            TreeSource::Move(path) => Some(self.move_tree(&path)?),
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
                tree.digest = digest_of_tree(&self.trees().join(&tree.name).join(TREE)).ok();
            }
            tree
        })
    }

    /// Takes over a tree and seals it.
    fn move_tree(&self, from: &Path) -> Result<StoredTree, StoreError> {
        let failed = |error| StoreError::io("keep the layer", from, error);
        walk::adopt(from).map_err(|error| match error {
            walk::WalkError::Io { path, source } => StoreError::io("take over", &from.join(path), source),
            error @ walk::WalkError::TooDeep { .. } => {
                StoreError::Tree { path: from.to_owned(), what: error.to_string() }
            }
        })?;
        let name = walk::random_name();
        let holder = self.trees().join(&name);
        files::create_private(&holder).map_err(failed)?;
        let to = holder.join(TREE);
        let mode = Status::of(from).map_err(failed)?.mode;
        // Moving a directory to another parent changes it, so it has to be writable for a moment.
        if mode & 0o200 == 0 {
            std::fs::set_permissions(from, PermissionsExt::from_mode(mode | 0o700)).map_err(failed)?;
        }
        std::fs::rename(from, &to).map_err(failed)?;
        if mode & 0o200 == 0 {
            std::fs::set_permissions(&to, PermissionsExt::from_mode(mode)).map_err(failed)?;
        }
        let marker = files::create_file(&holder.join(MARKER)).map_err(failed)?;
        let marker = Seal::from_status(&Status::of_open(&marker).map_err(failed)?);
        self.store.growth.add(tree_bytes(&to));
        let digest = self.store.verifies().then(|| digest_of_tree(&to).ok()).flatten();
        Ok(StoredTree { name, marker, digest })
    }
}

/// Of names, kinds, executable bits, links and contents of everything in a tree.
fn digest_of_tree(path: &Path) -> io::Result<String> {
    let mut hasher = Hasher::default();
    let mut see = |entry: &walk::Entry<'_>| -> Result<Step, WalkError> {
        let failed = |source: io::Error| WalkError::Io { path: entry.path.to_owned(), source };
        let text = match entry.status.kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(entry.parent, entry.name, flags, Mode::empty());
                let file = file.map_err(|error| failed(error.into()))?;
                files::digest_of(&std::fs::File::from(file)).map_err(failed)?.0
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(entry.parent, entry.name, Vec::new());
                let target = target.map_err(|error| failed(error.into()))?;
                Digest::of(target.as_bytes()).to_string()
            }
            _ => String::new(),
        };
        let name = entry.path.as_os_str().as_bytes();
        let mode = entry.status.mode & 0o111;
        hasher.update(format!("{:?} {mode:o} {text} {} ", entry.status.kind, name.len()).as_bytes());
        hasher.update(name);
        Ok(Step::Into)
    };
    match walk::walk(path, &mut see) {
        Ok(()) => Ok(hasher.finish().to_string()),
        Err(WalkError::Io { source, .. }) => Err(source),
        Err(error @ WalkError::TooDeep { .. }) => Err(io::Error::other(error.to_string())),
    }
}

/// Leases one tree. `Ok(None)`: a commit took it away in this moment.
fn lease(trees: &Path, stored: &StoredTree) -> Result<Option<Lease>, ()> {
    let holder = trees.join(&stored.name);
    let lock = match work::lock(&holder, FlockOperation::NonBlockingLockShared) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err(()),
    };
    let marker = Status::of(&holder.join(MARKER)).map_err(|_| ())?;
    let path = holder.join(TREE);
    let tree = Status::of(&path).map_err(|_| ())?;
    // The root itself is covered by its change time, like every file below it.
    let whole = Seal::from_status(&marker) == stored.marker
        && tree.kind == FileType::Directory
        && tree.changed <= marker.changed;
    if !whole {
        return Err(());
    }
    Ok(Some(Lease { _lock: lock, tree: SealedTree { path, sealed_at: marker.changed } }))
}

/// Removes the trees that are not in `kept` and that nobody leases.
fn collect(trees: &Path, kept: &BTreeSet<&str>) {
    // What stays because of an error is tried again by the next commit.
    let Ok(entries) = std::fs::read_dir(trees) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
            continue;
        }
        match work::lock(&entry.path(), FlockOperation::NonBlockingLockExclusive) {
            Ok(Some(lock)) => {
                let _ = walk::remove(&entry.path());
                drop(lock);
            }
            Ok(None) => {}
            Err(_) => {
                let _ = walk::remove(&entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    const TENANT: &str = "local";
    const IMAGE: &str = "shop";

    fn id() -> BuildpackId {
        "acme/node".parse().unwrap()
    }

    fn layer(name: &str, tree: TreeSource) -> LayerRecord {
        LayerRecord {
            name: name.parse().unwrap(),
            types: LayerTypes { launch: true, build: false, cache: true },
            cache_key: "v1".into(),
            metadata: "a = 1\n".into(),
            environment: vec![],
            sboms: vec![],
            artifacts: None,
            exported: None,
            tree,
        }
    }

    fn records(layers: Vec<LayerRecord>) -> ImageRecords {
        let buildpack = BuildpackRecords { version: None, store_toml: Some("kept = true\n".into()), layers };
        ImageRecords { buildpacks: BTreeMap::from([(id(), buildpack)]) }
    }

    /// A tree in a work directory, as a build leaves it.
    fn written(store: &Store, contents: &str) -> (super::super::WorkDir, PathBuf) {
        let work = store.work_dir().unwrap();
        let path = work.path().join("layer");
        std::fs::create_dir_all(path.join("bin")).unwrap();
        std::fs::write(path.join("bin/node"), contents).unwrap();
        (work, path)
    }

    fn commit(store: &Store, contents: &str) {
        let (_work, path) = written(store, contents);
        store.image(TENANT, IMAGE).commit(records(vec![layer("node", TreeSource::Move(path))])).unwrap();
    }

    fn contents(cache: &ImageCache<'_>) -> String {
        let layers = cache.layers(&id());
        std::fs::read_to_string(layers[0].tree.as_ref().unwrap().path.join("bin/node")).unwrap()
    }

    fn count_trees(store: &Store) -> usize {
        std::fs::read_dir(store.image(TENANT, IMAGE).trees()).unwrap().count()
    }

    #[test]
    fn the_next_build_finds_what_was_committed() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        assert!(store.image(TENANT, IMAGE).layers(&id()).is_empty());

        let (_work, path) = written(&store, "one");
        let new = store.create().unwrap();
        new.file().write_all(b"hello\n").unwrap();
        let digest = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let diff_id = DiffId(Digest::of(b"some layer"));
        let blob = store.commit(new, &diff_id, "gzip", &digest.parse().unwrap(), 6).unwrap();
        let exported = ExportedAs { diff_id, encoder: "gzip".into(), features: LayerFeatures::default() };
        let sbom = Sbom { format: SbomFormat::CycloneDx, content: "{}".into() };
        let artifacts: BTreeSet<Artifact> = [Artifact {
            source: "npm".to_owned(),
            path: "a.tgz".to_owned(),
            hash: "sha512:00".to_owned(),
            is_pinned: true,
        }]
        .into();
        let record = LayerRecord {
            exported: Some(exported.clone()),
            sboms: vec![sbom.clone()],
            artifacts: Some(artifacts.clone()),
            ..layer("node", TreeSource::Move(path.clone()))
        };
        store.image(TENANT, IMAGE).commit(records(vec![record])).unwrap();
        assert!(!path.exists());

        let (again, _) = Store::open(temp.path()).unwrap();
        let cache = again.image(TENANT, IMAGE);
        let layers = cache.layers(&id());
        assert_eq!(layers.len(), 1);
        assert_eq!(layers[0].exported, Some((exported, blob)));
        assert_eq!(layers[0].sboms, [sbom]);
        assert_eq!(layers[0].artifacts, Some(artifacts));
        assert_eq!(layers[0].metadata, "a = 1\n");
        assert_eq!(contents(&cache), "one");
        assert_eq!(cache.store_toml(&id()).as_deref(), Some("kept = true\n"));
        assert!(again.image("other tenant", IMAGE).layers(&id()).is_empty());
        assert!(again.image(TENANT, "other image").layers(&id()).is_empty());
        assert!(again.take_warnings().is_empty());
    }

    #[test]
    fn an_unchanged_build_writes_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        commit(&store, "one");
        let path = temp.path().join(store.image(TENANT, IMAGE).record_name());
        let before = std::fs::metadata(&path).unwrap();
        let cache = store.image(TENANT, IMAGE);
        cache.commit(records(vec![layer("node", TreeSource::Unchanged)])).unwrap();
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!(before.ino(), after.ino());
        assert_eq!(contents(&store.image(TENANT, IMAGE)), "one");
    }

    #[test]
    fn k6_a_leased_tree_outlives_the_commit_that_replaces_it() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        commit(&store, "one");
        let running = store.image(TENANT, IMAGE);
        commit(&store, "two");
        assert_eq!(contents(&running), "one");
        assert_eq!(contents(&store.image(TENANT, IMAGE)), "two");
        assert_eq!(count_trees(&store), 2);
        drop(running);
        commit(&store, "three");
        assert_eq!(count_trees(&store), 1);
    }

    /// The build that started first ends last; what it used all the time is what stays.
    #[test]
    fn k6_an_unchanged_layer_of_a_slow_build_is_still_there() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        commit(&store, "one");
        let slow = store.image(TENANT, IMAGE);
        commit(&store, "two");
        slow.commit(records(vec![layer("node", TreeSource::Unchanged)])).unwrap();
        assert_eq!(contents(&store.image(TENANT, IMAGE)), "one");
        assert_eq!(count_trees(&store), 1);
    }

    #[test]
    fn k6_readers_never_see_a_hole_while_others_commit() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        commit(&store, "0");
        std::thread::scope(|scope| {
            scope.spawn(|| (1..60).for_each(|n| commit(&store, &n.to_string())));
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let cache = store.image(TENANT, IMAGE);
                        assert!(contents(&cache).parse::<u32>().unwrap() < 60);
                    }
                });
            }
        });
        assert!(store.take_warnings().is_empty());
    }

    /// The moment between reading a record and leasing its trees.
    #[test]
    fn k6_a_record_that_was_replaced_meanwhile_is_read_again() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        commit(&store, "one");
        let mut cache = store.image(TENANT, IMAGE);
        cache.leases.clear();
        commit(&store, "two");
        assert!(!cache.lease_trees(false));
        assert!(store.take_warnings().is_empty());
        assert!(cache.layers(&id())[0].tree.is_none());
    }

    #[test]
    fn g11_no_name_outside_leads_into_a_kept_tree() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let (work, path) = written(&store, "good");
        std::fs::hard_link(path.join("bin/node"), work.path().join("second")).unwrap();
        store.image(TENANT, IMAGE).commit(records(vec![layer("node", TreeSource::Move(path))])).unwrap();
        std::fs::write(work.path().join("second"), "poison").unwrap();
        assert_eq!(contents(&store.image(TENANT, IMAGE)), "good");
    }

    #[test]
    fn k4_damage_to_record_tree_or_marker_is_a_miss() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 8] = [
            ("record", |image| std::fs::write(image.join("record"), "{}").unwrap()),
            ("record", |image| {
                std::fs::remove_file(image.join("record")).unwrap();
                std::fs::create_dir(image.join("record")).unwrap();
            }),
            ("trees", |image| std::fs::remove_dir_all(image.join("trees")).unwrap()),
            ("tree", |image| std::fs::remove_dir_all(holder(image).join(TREE)).unwrap()),
            ("tree", |image| {
                let tree = holder(image).join(TREE);
                std::fs::rename(&tree, image.join("elsewhere")).unwrap();
                std::os::unix::fs::symlink(image.join("elsewhere"), &tree).unwrap();
            }),
            ("tree", |image| std::fs::remove_file(holder(image).join(MARKER)).unwrap()),
            // Another tree, sealed by somebody else.
            ("tree", |image| {
                std::fs::remove_file(holder(image).join(MARKER)).unwrap();
                std::fs::write(holder(image).join(TREE).join("new"), "").unwrap();
                std::fs::write(holder(image).join(MARKER), "").unwrap();
            }),
            // Something new at the top of the tree.
            ("tree", |image| std::fs::write(holder(image).join(TREE).join("new"), "").unwrap()),
        ];
        for (index, (what, damage)) in damages.iter().enumerate() {
            let temp = tempfile::tempdir().unwrap();
            let (store, _) = Store::open(temp.path()).unwrap();
            commit(&store, "one");
            damage(&temp.path().join(&store.image(TENANT, IMAGE).directory));
            let cache = store.image(TENANT, IMAGE);
            let layers = cache.layers(&id());
            if *what == "record" {
                assert!(layers.is_empty(), "damage {index}");
            } else {
                assert_eq!(layers[0].tree, None, "damage {index}");
            }
            assert_eq!(store.take_warnings().len(), 1, "damage {index}");
            drop(cache);
            commit(&store, "two");
            assert_eq!(contents(&store.image(TENANT, IMAGE)), "two", "damage {index}");
            assert_eq!(count_trees(&store), 1, "damage {index}");
        }
    }

    fn holder(image: &Path) -> PathBuf {
        std::fs::read_dir(image.join("trees")).unwrap().next().unwrap().unwrap().path()
    }

    /// Damage that no time tells of: the record's digest is not that of the tree.
    #[test]
    fn a_tree_that_is_not_what_was_recorded_is_a_miss_only_where_it_is_verified() {
        let temp = tempfile::tempdir().unwrap();
        let open = |verifies: bool| {
            let (mut store, _) = Store::open(temp.path()).unwrap();
            if verifies {
                store.verify_everything();
            }
            store
        };
        commit(&open(true), "one");
        assert_eq!(contents(&open(true).image(TENANT, IMAGE)), "one");
        let store = open(false);
        let name = store.image(TENANT, IMAGE).record_name();
        let mut record: ImageRecord = store.read_record(&name).unwrap();
        let tree = |record: &mut ImageRecord| {
            record.buildpacks.get_mut(&id()).unwrap().layers.values_mut().next().unwrap().tree.take().unwrap()
        };
        let mut stored = tree(&mut record);
        let holder = store.image(TENANT, IMAGE).trees().join(&stored.name).join(TREE);
        assert_eq!(stored.digest, Some(digest_of_tree(&holder).unwrap()));
        stored.digest = Some("sha256:0".to_owned());
        let layers = &mut record.buildpacks.get_mut(&id()).unwrap().layers;
        layers.values_mut().next().unwrap().tree = Some(stored);
        store.write_record(&name, &record).unwrap();
        assert_eq!(store.image(TENANT, IMAGE).layers(&id()).len(), 1);
        assert!(store.take_warnings().is_empty());
        let verifying = open(true);
        assert!(verifying.image(TENANT, IMAGE).layers(&id()).is_empty());
        assert_eq!(verifying.take_warnings().len(), 1);
    }

    #[test]
    fn a_digest_of_a_tree_covers_names_contents_modes_and_links() {
        type Change = fn(&Path);
        let changes: [Change; 5] = [
            |root| std::fs::write(root.join("bin/node"), "two").unwrap(),
            |root| std::fs::rename(root.join("bin/node"), root.join("bin/nope")).unwrap(),
            |root| std::fs::set_permissions(root.join("bin/node"), PermissionsExt::from_mode(0o755)).unwrap(),
            |root| std::fs::create_dir(root.join("empty")).unwrap(),
            |root| {
                std::fs::remove_file(root.join("link")).unwrap();
                std::os::unix::fs::symlink("elsewhere", root.join("link")).unwrap();
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            let temp = tempfile::tempdir().unwrap();
            std::fs::create_dir(temp.path().join("bin")).unwrap();
            std::fs::write(temp.path().join("bin/node"), "one").unwrap();
            std::os::unix::fs::symlink("bin", temp.path().join("link")).unwrap();
            let before = digest_of_tree(temp.path()).unwrap();
            assert_eq!(digest_of_tree(temp.path()).unwrap(), before);
            change(temp.path());
            assert_ne!(digest_of_tree(temp.path()).unwrap(), before, "change {index}");
        }
    }

    #[test]
    fn an_image_that_is_forgotten_leaves_no_tree() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        commit(&store, "one");
        store.forget_image(TENANT, IMAGE).unwrap();
        assert!(store.image(TENANT, IMAGE).is_empty());
        assert_eq!(count_trees(&store), 0);
        store.forget_image(TENANT, "never built").unwrap();
        assert_eq!(store.take_warnings(), [""; 0]);
    }

    #[test]
    fn a_changed_file_is_newer_than_its_seal() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        commit(&store, "one");
        let cache = store.image(TENANT, IMAGE);
        let tree = cache.layers(&id())[0].tree.clone().unwrap();
        let file = tree.path.join("bin/node");
        assert!(Status::of(&file).unwrap().changed <= tree.sealed_at);
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(&file, "two").unwrap();
        assert!(Status::of(&file).unwrap().changed > tree.sealed_at);
    }

    #[test]
    fn a_read_only_layer_directory_is_moved_too() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let (_work, path) = written(&store, "one");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o555)).unwrap();
        store.image(TENANT, IMAGE).commit(records(vec![layer("node", TreeSource::Move(path))])).unwrap();
        let cache = store.image(TENANT, IMAGE);
        let tree = cache.layers(&id())[0].tree.clone().unwrap();
        assert_eq!(std::fs::metadata(&tree.path).unwrap().mode() & 0o7777, 0o555);
    }
}
