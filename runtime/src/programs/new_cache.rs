//! The cache of this build, for the next one.

mod image;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

pub(super) use self::image::CacheImage;
use super::each::each;
use super::last_cache::CacheInDaemon;
use super::layers_dir::{LayersDir, LayersDirError};
use super::telling::{note, warn, with_causes};
use crate::cache_dir::{CacheDir, CacheError, NewCache};
use crate::cancel::Cancel;
use crate::cnb::api::PlatformApi;
use crate::cnb::cache_metadata::CacheMetadata;
use crate::cnb::group_toml::GroupElement;
use crate::cnb::id::LayerName;
use crate::cnb::labels::{BuildpackLayers, LayerRecord, LayerSha, json_of_toml};
use crate::cnb::layer_toml::LayerToml;
use crate::event::EventSink;
use crate::images::ImagesError;
use crate::oci::digest::DiffId;
use crate::oci::layer::Owner;
use crate::phase::export::{ExportError, KnownDiffIds, write_directory};
use crate::text::harmless;
use crate::toml_text;
use crate::tree::TreeLimits;

/// What there is to cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cached<'a> {
    pub api: PlatformApi,
    /// The layers directory.
    pub layers: &'a Path,
    /// In group order.
    pub buildpacks: &'a [GroupElement],
    /// Of layers and everything in them, as in the image.
    pub owner: Owner,
    /// Digests of layers that were made for the image, or that nothing has touched
    /// since they were restored: those need not be made again.
    pub known: &'a KnownDiffIds,
}

/// Where the cache goes.
#[derive(Clone, Copy)]
pub(super) enum CachePlace<'a> {
    None,
    Directory(&'a Path),
    Image(CacheImage<'a>),
}

/// Writes the cache. Whatever goes wrong is a warning, for the image is made.
///
/// # Spec
/// CAC-01 to CAC-10, SBOM-09, LYR-17, QRK-25.
pub(super) fn write(cached: &Cached<'_>, place: CachePlace<'_>, cancel: &Cancel, events: &mut dyn EventSink) {
    let result = match place {
        // Whoever gives no cache is told so before anything is done.
        CachePlace::None => Ok(()),
        CachePlace::Directory(directory) => cached.write_directory(directory, cancel, events),
        CachePlace::Image(image) => image.write(cached, cancel, events),
    };
    if let Err(error) = result {
        warn(events, format!("nothing is cached: {}", with_causes(&error)));
    }
}

/// Why there is no cache, or a layer is not in it.
#[derive(Debug, thiserror::Error)]
enum NotCached {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Layers(#[from] LayersDirError),
    #[error(transparent)]
    InDaemon(#[from] CacheInDaemon),
    #[error("`{name}` is the name of the image itself")]
    TakenName { name: String },
    #[error(transparent)]
    Layer(#[from] ExportError),
    #[error("it cannot be compressed")]
    Compress(#[from] io::Error),
    #[error("what is in it cannot be stored in a label")]
    Label(#[source] serde_json::Error),
    #[error(transparent)]
    Images(#[from] ImagesError),
}

/// The next cache, while layers come into it.
trait Keep: Sync {
    /// Keeps a layer; its digest.
    fn keep(&self, contents: &Contents<'_>) -> Result<DiffId, NotCached>;
}

/// What a layer is made of.
struct Contents<'a> {
    path: &'a str,
    owner: Owner,
    /// Its digest, where it is known already.
    diff_id: Option<&'a DiffId>,
    /// Of the same layer in the last cache.
    last: Option<&'a DiffId>,
    cancel: &'a Cancel,
}

impl Contents<'_> {
    fn write(&self, out: &mut dyn Write) -> Result<(), ExportError> {
        write_directory(self.path, self.owner, TreeLimits::default(), self.cancel, out)
    }
}

impl Keep for NewCache<'_> {
    fn keep(&self, contents: &Contents<'_>) -> Result<DiffId, NotCached> {
        match contents.diff_id {
            Some(diff_id) if self.reuse(diff_id)? => Ok(diff_id.clone()),
            _ => Ok(self.add(contents.last, |out| contents.write(out).map_err(io::Error::other))?),
        }
    }
}

/// A layer that is to be cached.
struct Layer<'a> {
    buildpack: &'a GroupElement,
    name: LayerName,
    /// Everything but its digest.
    record: LayerRecord,
    path: String,
    /// Of the same layer in the last cache.
    last: Option<DiffId>,
    /// Where it is known already.
    diff_id: Option<DiffId>,
}

impl Cached<'_> {
    fn write_directory(
        &self,
        directory: &Path,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<(), NotCached> {
        let cache = CacheDir::open(directory)?;
        let new = cache.begin()?;
        let metadata = self.fill(&new, &cache.metadata(), cancel, events)?;
        Ok(new.commit(&metadata)?)
    }

    /// Puts all layers into a cache, and says what is in it then. Those that it does not take
    /// are warnings.
    fn fill(
        &self,
        new: &dyn Keep,
        last: &CacheMetadata,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<CacheMetadata, NotCached> {
        let layers = self.layers(last, events)?;
        let mut metadata = CacheMetadata::default();
        for buildpack in self.buildpacks {
            metadata.buildpacks.push(BuildpackLayers {
                key: buildpack.id.to_string(),
                version: buildpack.version.to_string(),
                ..BuildpackLayers::default()
            });
        }
        let owner = self.owner;
        let digests = each(&layers, |layer| {
            let (diff_id, last) = (layer.diff_id.as_ref(), layer.last.as_ref());
            new.keep(&Contents { path: &layer.path, owner, diff_id, last, cancel })
        });
        for (layer, digest) in layers.into_iter().zip(digests) {
            let name = format!("{}:{}", layer.buildpack.id, layer.name);
            match digest {
                Ok(diff_id) => {
                    let record = LayerRecord { sha: diff_id.to_string(), ..layer.record };
                    let mut entries = metadata.buildpacks.iter_mut();
                    if let Some(entry) = entries.find(|entry| entry.key == layer.buildpack.id.as_str()) {
                        entry.layers.insert(layer.name.to_string(), record);
                    }
                    note(events, format!("layer `{name}` is cached"));
                }
                Err(error) => warn(events, format!("layer `{name}` is not cached: {}", with_causes(&error))),
            }
        }
        let sbom = self.layers.join("sbom/cache");
        let has_sbom = is_directory(&self.layers.join("sbom")) && is_directory(&sbom);
        if let (true, true, Some(path)) = (self.api.at_least(8), has_sbom, sbom.to_str()) {
            let last = last.sbom.sha.parse().ok();
            match new.keep(&Contents { path, owner, diff_id: None, last: last.as_ref(), cancel }) {
                Ok(diff_id) => metadata.sbom = LayerSha { sha: diff_id.to_string() },
                Err(error) => {
                    warn(events, format!("bills of materials are not cached: {}", with_causes(&error)));
                }
            }
        }
        Ok(metadata)
    }

    /// The layers with `cache = true` and contents.
    fn layers(&self, last: &CacheMetadata, events: &mut dyn EventSink) -> Result<Vec<Layer<'_>>, NotCached> {
        let directory = LayersDir::open(self.layers)?;
        let none = BTreeMap::new();
        let mut layers = Vec::new();
        for buildpack in self.buildpacks {
            let last = last.layers_of(buildpack.id.as_str()).unwrap_or(&none);
            for name in directory.layers_of(&buildpack.id)? {
                let not_cached = |reason: &dyn std::fmt::Display| {
                    let name = harmless(&name.to_string_lossy());
                    format!("layer `{}:{name}` is not cached: {reason}", buildpack.id)
                };
                let path = self.layers.join(buildpack.id.directory_name()).join(&name);
                let mut toml_path = path.clone().into_os_string();
                toml_path.push(".toml");
                let parse = |text: &str| LayerToml::parse(text, buildpack.api);
                let file = match toml_text::read_with(Path::new(&toml_path), parse) {
                    Ok(file) if file.types.cache => file,
                    Ok(_) => continue,
                    Err(toml_text::TomlFileError::Io { source, .. })
                        if source.kind() == io::ErrorKind::NotFound =>
                    {
                        continue;
                    }
                    Err(error) => {
                        warn(events, not_cached(&with_causes(&error)));
                        continue;
                    }
                };
                if !is_directory(&path) {
                    warn(events, not_cached(&"it has no contents"));
                    continue;
                }
                let Some((path, name)) = path.to_str().zip(name.to_str()) else {
                    warn(events, not_cached(&"its name is not UTF-8"));
                    continue;
                };
                let name: LayerName = match name.parse() {
                    Ok(name) => name,
                    Err(error) => {
                        warn(events, not_cached(&error));
                        continue;
                    }
                };
                let data = match json_of_toml(&file.metadata) {
                    Ok(data) => data,
                    Err(error) => {
                        warn(events, not_cached(&error));
                        continue;
                    }
                };
                layers.push(Layer {
                    buildpack,
                    record: record(&file, data),
                    path: path.to_owned(),
                    last: last.get(name.as_str()).and_then(|record| record.sha.parse().ok()),
                    diff_id: self.known.get(&(buildpack.id.clone(), name.clone())).cloned(),
                    name,
                });
            }
        }
        Ok(layers)
    }
}

fn record(file: &LayerToml, data: Value) -> LayerRecord {
    let types = file.types;
    LayerRecord { sha: String::new(), data, build: types.build, launch: types.launch, cache: types.cache }
}

/// Whether it is a directory itself, not a link to one.
fn is_directory(path: &Path) -> bool {
    fs_err::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}
