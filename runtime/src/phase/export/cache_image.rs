//! What the store keeps of an app's image as an image of its own: for the next build, on a
//! machine whose store knows nothing of it.
//!
//! Layers that are in the app's image, too, are the same blobs. The others are compressed
//! once, and again only when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use oci_spec::image::MediaType;

use super::ExportError;
use super::contents::{buildpack_ground, ends};
use super::work::write_tree;
use super::{FileForm, LAYERS_DIRECTORY};
use crate::cancel::Cancel;
use crate::cnb::cache_metadata::{CACHE_METADATA, CacheMetadata};
use crate::cnb::id::{BuildpackId, LayerName};
use crate::cnb::labels::{BuildpackLayers, LayerRecord, LayerSha, json_of_toml};
use crate::cnb::target::Target;
use crate::oci::blob::{BlobStore as _, Notes as _, StoredBlob};
use crate::oci::digest::{DiffId, HashingWriter};
use crate::oci::encoder::{Encoders, Encoding};
use crate::oci::image::{
    BlobPlace, History, Image, ImageConfiguration, Layer, MediaFamily, RootFs, RunConfiguration, timestamp,
};
use crate::oci::layer::{LayerWriter, MODIFIED_SECONDS, Owner};
use crate::phase::values::{
    CACHE_LABEL, CACHED_SBOMS, CacheLabel, CachedBuildpack, CachedRecord, cached_sbom_path,
};
use crate::store::{CachedLayer, ImageCache, SealedTree, Store};
use crate::tree::{Tree, TreeLimits};

/// The line of history of the layer with bills of materials.
const SBOM_LINE: &str = "Software Bill-of-Materials";

/// How files look in layers that are in no image but this.
const FORM: FileForm = FileForm { owner: Owner::ROOT, is_group_writable: false };

/// What a cache image is made from.
#[derive(Debug, Clone, Copy)]
pub struct CacheImageRequest<'a> {
    pub store: &'a Store,
    /// What the store keeps.
    pub cache: &'a ImageCache<'a>,
    /// What the app's image is for.
    pub target: &'a Target,
    /// Layers of the app's image that are in a registry by now.
    pub published: &'a [Layer],
}

/// Why there is no cache image.
#[derive(Debug, thiserror::Error)]
pub enum CacheImageError {
    #[error(transparent)]
    Layer(#[from] ExportError),
    #[error("a layer cannot be compressed")]
    Compress(#[from] io::Error),
    #[error("what is in a layer cannot be stored in a label")]
    Label(#[from] serde_json::Error),
}

/// Makes the image; `None` when there is nothing to cache.
///
/// # Errors
/// [`CacheImageError`]
///
/// # Spec
/// CAC-01 and CAC-06: programs of the lifecycle read it, too. What they do not know is in
/// the label [`CACHE_LABEL`].
pub fn cache_image(
    request: &CacheImageRequest<'_>,
    cancel: &Cancel,
) -> Result<Option<Image>, CacheImageError> {
    let mut label = CacheLabel::default();
    let mut metadata = CacheMetadata::default();
    let mut layers = Vec::new();
    let mut sboms = BTreeMap::new();
    for id in request.cache.buildpacks() {
        let version = request.cache.version(id);
        let mut own = CachedBuildpack {
            version: version.clone(),
            store: request.cache.store_toml(id),
            layers: BTreeMap::new(),
        };
        let version = version.unwrap_or_default();
        let mut standard =
            BuildpackLayers { key: id.to_string(), version: version.clone(), ..BuildpackLayers::default() };
        for layer in request.cache.layers(id) {
            let Some(tree) = layer.tree.as_ref().filter(|_| layer.types.cache) else { continue };
            let blob = request.blob(id, &layer, tree, cancel)?;
            let line = format!("Layer: '{}', Created by buildpack: {id}@{version}", layer.name);
            // Metadata without JSON got into no label of the image either.
            let data = json_of_toml(&layer.metadata).unwrap_or_default();
            let types = layer.types;
            standard.layers.insert(
                layer.name.to_string(),
                LayerRecord {
                    sha: blob.diff_id.to_string(),
                    data,
                    build: types.build,
                    launch: types.launch,
                    cache: types.cache,
                },
            );
            for sbom in &layer.sboms {
                sboms.insert(cached_sbom_path(id, &layer.name, sbom.format), sbom.content.clone());
            }
            own.layers.insert(layer.name.clone(), record(layer, blob.diff_id.clone()));
            layers.push((blob, line));
        }
        metadata.buildpacks.push(standard);
        label.buildpacks.insert(id.clone(), own);
    }
    if layers.is_empty() {
        return Ok(None);
    }
    if !sboms.is_empty() {
        let layer = request.compress(|out| write_sboms(&sboms, out))?;
        metadata.sbom = LayerSha { sha: layer.diff_id.to_string() };
        layers.push((layer, SBOM_LINE.to_owned()));
    }
    let labels =
        [(CACHE_METADATA.to_owned(), metadata.to_json()?), (CACHE_LABEL.to_owned(), label.to_json()?)];
    Ok(Some(put_together(request.target, labels.into(), layers)))
}

fn record(layer: CachedLayer, diff_id: DiffId) -> CachedRecord {
    CachedRecord {
        diff_id,
        types: layer.types,
        key: layer.cache_key,
        metadata: layer.metadata,
        environment: layer.environment,
        artifacts: layer.artifacts,
        sboms: layer.sboms.iter().map(|sbom| sbom.format).collect(),
    }
}

impl CacheImageRequest<'_> {
    /// A cached layer as a layer of an image.
    fn blob(
        &self,
        buildpack: &BuildpackId,
        layer: &CachedLayer,
        tree: &SealedTree,
        cancel: &Cancel,
    ) -> Result<Layer, CacheImageError> {
        if let Some((exported, blob)) = &layer.exported {
            return Ok(self.layer(&exported.diff_id, &exported.encoder, blob.clone()));
        }
        let encoder = Encoding::Gzip.id();
        let note = note_of(tree);
        let known: Option<DiffId> = self.store.note(&note).and_then(|text| text.parse().ok());
        if let Some(diff_id) = known
            && let Some(blob) = self.store.find(&diff_id, &encoder)
        {
            return Ok(self.layer(&diff_id, &encoder, blob));
        }
        let layer = self.compress(|out| write_layer(buildpack, &layer.name, tree, cancel, out))?;
        self.store.keep_note(&note, &layer.diff_id.to_string());
        Ok(layer)
    }

    fn compress(
        &self,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), CacheImageError>,
    ) -> Result<Layer, CacheImageError> {
        let encoders = Encoders::new(Encoding::Gzip);
        let blob = self.store.create()?;
        let mut tar = HashingWriter::new(encoders.writer(HashingWriter::new(blob.file())));
        fill(&mut tar)?;
        let (diff_id, _, encoded) = tar.finish();
        let (digest, size, _) = encoded.finish()?.finish();
        let diff_id = DiffId(diff_id);
        let encoder = Encoding::Gzip.id();
        let blob = self.store.commit(blob, &diff_id, &encoder, &digest, size)?;
        Ok(self.layer(&diff_id, &encoder, blob))
    }

    /// A blob of the store, or the same one where the app's image has it.
    fn layer(&self, diff_id: &DiffId, encoder: &str, blob: StoredBlob) -> Layer {
        let published = self.published.iter().find(|layer| layer.digest == blob.digest);
        let is_zstd = encoder.starts_with("zstd-");
        Layer {
            media_type: if is_zstd { MediaType::ImageLayerZstd } else { MediaType::ImageLayerGzip },
            digest: blob.digest,
            size: blob.size,
            diff_id: diff_id.clone(),
            blob: match published.map(|layer| &layer.blob) {
                Some(place @ BlobPlace::Registry(_)) => place.clone(),
                _ => blob.path.into(),
            },
        }
    }
}

/// Under which the store knows the digest of a layer with this tree, which never changes.
fn note_of(tree: &SealedTree) -> String {
    format!("cached layer of {}", tree.path.display())
}

fn write_layer(
    buildpack: &BuildpackId,
    name: &LayerName,
    tree: &SealedTree,
    cancel: &Cancel,
    out: &mut dyn Write,
) -> Result<(), CacheImageError> {
    let tree = Tree::of(&tree.path);
    let listing = tree.list(TreeLimits::default(), cancel).map_err(ExportError::from)?;
    write_tree(&buildpack_ground(buildpack, name, FORM), &tree, &listing, cancel, out)?;
    Ok(())
}

/// # Spec
/// SBOM-09: below `sbom/cache` of the layers directory.
fn write_sboms(sboms: &BTreeMap<String, Vec<u8>>, out: &mut dyn Write) -> Result<(), CacheImageError> {
    debug_assert!(CACHED_SBOMS.starts_with(LAYERS_DIRECTORY));
    let mut writer = LayerWriter::new(out);
    let mut made = BTreeSet::new();
    for (path, content) in sboms {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        for directory in ends(parent).map(|end| &parent[..end]) {
            if made.insert(directory) {
                writer.directory(directory.as_bytes(), 0o755, Owner::ROOT)?;
            }
        }
        writer.file(path.as_bytes(), 0o644, Owner::ROOT, content.len() as u64, &content[..])?;
    }
    writer.finish()?;
    Ok(())
}

fn put_together(target: &Target, labels: BTreeMap<String, String>, layers: Vec<(Layer, String)>) -> Image {
    let created = timestamp(MODIFIED_SECONDS);
    let line = |(_, line): &(Layer, String)| History {
        created: Some(created.clone()),
        created_by: Some(line.clone()),
        ..History::default()
    };
    let history = layers.iter().map(line).collect();
    let layers: Vec<Layer> = layers.into_iter().map(|(layer, _)| layer).collect();
    let configuration = ImageConfiguration {
        created: Some(created),
        author: None,
        architecture: target.arch.clone(),
        variant: target.variant.clone(),
        os: target.os.clone(),
        os_version: None,
        config: RunConfiguration { labels, ..RunConfiguration::default() },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        },
        history,
        other: BTreeMap::new(),
    };
    Image { family: MediaFamily::Oci, configuration, layers }
}

#[cfg(test)]
mod tests;
