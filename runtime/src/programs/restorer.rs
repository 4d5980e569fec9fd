//! `restorer`: brings back what the last build left.

mod contents;
mod decisions;
mod run_image;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};

use self::contents::{Miss, Wanted};
use self::decisions::{Decision, Known, decide};
pub use self::run_image::RunImageError;
use super::ImagePlaces;
use super::error::{BUILDPACK_API, GENERIC, of_file};
use super::files::{self, FileError};
use super::last_cache::{LastCache, LastCacheError};
use super::layers_dir::{LayersDir, LayersDirError};
use super::telling::{note, warn, with_causes};
use crate::cnb::analyzed_toml::Analyzed;
use crate::cnb::api::{ApiVersion, PlatformApi};
use crate::cnb::cache_metadata::CacheMetadata;
use crate::cnb::group_toml::{Group, GroupElement};
use crate::cnb::id::{BuildpackId, BuildpackRef, ExecEnv, LayerName};
use crate::cnb::labels::{LayerRecord, LifecycleMetadata, MetadataError, file_of_json};
use crate::cnb::sbom::SbomFormat;
use crate::event::{Event, EventSink};
use crate::oci::digest::{DiffId, Digest};
use crate::oci::unpack::UnpackError;
use crate::text::harmless;
use crate::walk;

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    pub exec_env: ExecEnv,
    pub analyzed: PathBuf,
    pub build_image: Option<String>,
    /// The cache in a directory; without it and an image nothing is cached.
    pub cache_dir: Option<PathBuf>,
    pub cache_image: Option<String>,
    pub generated: PathBuf,
    pub group: PathBuf,
    pub layers: PathBuf,
    pub run: PathBuf,
    /// Restore `store.toml` only.
    pub skip_layers: bool,
    /// Who owns what is written; `None` leaves it as it is.
    pub owner: Option<(u32, u32)>,
}

/// Exit code for what the specification has no other for.
const RESTORE: u8 = 42;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
    /// Of the group.
    #[error("buildpack `{buildpack}` has the Buildpack API `{api}`, which is not supported")]
    Api { buildpack: BuildpackRef, api: ApiVersion },
    /// The images that `analyzed.toml` names.
    #[error(transparent)]
    RunImage(#[from] RunImageError),
    /// What is known of the images does not fit into `analyzed.toml`.
    #[error("cannot write what is known of the images")]
    Analyzed(#[source] MetadataError),
    /// The cache of the last build.
    #[error(transparent)]
    Cache(#[from] LastCacheError),
    /// The layers directory.
    #[error(transparent)]
    Layers(#[from] LayersDirError),
    /// There is no room for a layer, or no right to write it.
    #[error("cannot restore layer `{layer}` of buildpack `{buildpack}`")]
    Write { buildpack: BuildpackRef, layer: String, source: UnpackError },
    /// The bills of materials cannot be unpacked here.
    #[error("cannot restore the bills of materials")]
    Sbom(#[source] UnpackError),
    /// What was written cannot be given to its owner.
    #[error("cannot give `{}` to its owner", path.display())]
    Owner { path: PathBuf, source: std::io::Error },
}

impl RestoreError {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
            Self::Api { .. } => BUILDPACK_API,
            Self::RunImage(_) | Self::Analyzed(_) | Self::Cache(_) => GENERIC,
            Self::Layers(_) | Self::Write { .. } | Self::Sbom(_) | Self::Owner { .. } => RESTORE,
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`RestoreError`]. A cache that is damaged is a warning: what it should have held
/// is not restored, and the buildpack makes it again.
///
/// # Spec
/// `platform.md` 0.15 "Phase: Restore"; RST-01 to RST-17, RUN-06 to RUN-08, STO-01
/// to STO-03, LYR-12, LYR-13, EXE-04. Where the specification and the reference
/// disagree: RST-07 and RST-12 (CON-19, CON-20) as the specification has it.
pub fn run(inputs: &Inputs, places: ImagePlaces<'_>, events: &mut dyn EventSink) -> Result<(), RestoreError> {
    run_in_creator(inputs, places, events).map(drop)
}

/// A layer whose contents were brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unpacked {
    pub buildpack: BuildpackId,
    pub layer: LayerName,
    /// Of its tar, every byte of which was read.
    pub diff_id: DiffId,
    /// Of its tar.
    pub outline: Digest,
}

/// Runs it, and says which layers are now on disk.
///
/// # Errors
/// [`RestoreError`], as [`run`].
pub(super) fn run_in_creator(
    inputs: &Inputs,
    places: ImagePlaces<'_>,
    events: &mut dyn EventSink,
) -> Result<Vec<Unpacked>, RestoreError> {
    let ImagePlaces { images, caches } = places;
    let group = files::read(&inputs.group, Group::parse)?;
    let all = group.buildpacks.iter().chain(&group.extensions);
    if let Some(element) = { all }.find(|element| !element.api.is_supported()) {
        return Err(RestoreError::Api { buildpack: element.reference(), api: element.api });
    }
    let mut app = LifecycleMetadata::default();
    if let Some(mut analyzed) = files::read_if_there(&inputs.analyzed, Analyzed::parse)? {
        run_image::update(&mut analyzed, inputs, !group.extensions.is_empty(), images)?;
        files::write(&inputs.analyzed, &analyzed.to_toml().map_err(RestoreError::Analyzed)?)?;
        app = analyzed.metadata;
    } else {
        let path = inputs.analyzed.display();
        warn(events, format!("there is no `{path}`: nothing is known of the last image"));
    }
    let cache = LastCache::open(inputs.cache_dir.as_deref(), inputs.cache_image.as_deref(), caches)?;
    let layers = LayersDir::open(&inputs.layers)?;
    let restoring = Restoring { inputs, layers, cache, app };
    let unpacked = restoring.restore(&group.buildpacks, events)?;
    if let Some(owner) = inputs.owner {
        // RST-13
        walk::give(&inputs.layers, owner).map_err(|error| {
            let source = std::io::Error::other(error);
            RestoreError::Owner { path: inputs.layers.clone(), source }
        })?;
    }
    Ok(unpacked)
}

struct Restoring<'a> {
    inputs: &'a Inputs,
    layers: LayersDir,
    cache: LastCache<'a>,
    /// Of the previous image.
    app: LifecycleMetadata,
}

/// A layer whose metadata is to be written.
struct Restored<'g> {
    buildpack: &'g GroupElement,
    layer: String,
    record: LayerRecord,
    /// Of the tar of its contents, where those were restored.
    outline: Option<Digest>,
}

impl Restored<'_> {
    fn unpacked(&self) -> Option<Unpacked> {
        Some(Unpacked {
            buildpack: self.buildpack.id.clone(),
            layer: self.layer.parse().ok()?,
            diff_id: self.record.sha.parse().ok()?,
            outline: self.outline.clone()?,
        })
    }
}

impl Restoring<'_> {
    fn restore(
        &self,
        group: &[GroupElement],
        events: &mut dyn EventSink,
    ) -> Result<Vec<Unpacked>, RestoreError> {
        self.restore_stores(group, events)?;
        let skips = self.skips_layers(events);
        let metadata = self.cache.metadata();
        let mut restored = Vec::new();
        let mut wanted = Vec::new();
        for buildpack in group {
            for (layer, decision) in self.decide(buildpack, &metadata, skips, events)? {
                match decision {
                    Decision::Metadata(record) => {
                        restored.push(Restored { buildpack, layer, record, outline: None });
                    }
                    Decision::Contents(record) => {
                        let sha = record.sha.clone();
                        wanted.push((
                            Wanted { buildpack: buildpack.id.clone(), layer: layer.clone(), sha },
                            Restored { buildpack, layer, record, outline: None },
                        ));
                    }
                    Decision::Remove => {
                        note(events, format!("removing layer `{}:{}`", buildpack.id, harmless(&layer)));
                        self.layers.remove_layer(&buildpack.id, &layer)?;
                    }
                }
            }
        }
        restored.extend(self.restore_contents(wanted, events)?);
        restored.sort_by(|left, right| {
            let place =
                |restored: &Restored<'_>| group.iter().position(|element| element == restored.buildpack);
            place(left).cmp(&place(right)).then_with(|| left.layer.cmp(&right.layer))
        });
        let mut unpacked = Vec::new();
        for restored in &restored {
            let Restored { buildpack, layer, record, .. } = restored;
            let name = format!("{layer}.toml");
            match file_of_json(&layer_file(record, buildpack.api)) {
                Ok(text) => self.layers.write(&buildpack.id, &name, &text)?,
                Err(error) => {
                    warn(
                        events,
                        format!("layer `{}:{}` is not restored: {error}", buildpack.id, harmless(layer)),
                    );
                    self.layers.remove_layer(&buildpack.id, layer)?;
                    continue;
                }
            }
            unpacked.extend(restored.unpacked());
            events.event(Event::LayerRestored { buildpack: buildpack.reference(), layer: harmless(layer) });
        }
        if self.inputs.api.at_least(8) && !skips {
            self.restore_sboms(&restored, &metadata, events)?;
        }
        Ok(unpacked)
    }

    /// RST-01, STO-01 to STO-03: by id, whatever the version.
    fn restore_stores(&self, group: &[GroupElement], events: &mut dyn EventSink) -> Result<(), RestoreError> {
        for element in group {
            let mut buildpacks = self.app.buildpacks.iter();
            let store = buildpacks
                .find(|entry| entry.key == element.id.as_str())
                .and_then(|entry| entry.store.as_ref());
            let Some(store) = store else { continue };
            match file_of_json(&json!({ "metadata": store.metadata })) {
                Ok(text) => self.layers.write(&element.id, "store.toml", &text)?,
                Err(error) => {
                    warn(events, format!("the store of buildpack `{}` is not restored: {error}", element.id));
                }
            }
        }
        Ok(())
    }

    /// Whether no layer is restored (RST-02, EXE-04).
    fn skips_layers(&self, events: &mut dyn EventSink) -> bool {
        let Inputs { api, exec_env, skip_layers, .. } = self.inputs;
        let built_for = self.app.exec_env.as_deref().filter(|_| api.at_least(15));
        match built_for.filter(|built_for| *built_for != exec_env.as_str()) {
            Some(built_for) if !skip_layers => {
                note(
                    events,
                    format!("the last image was built for `{}`: no layer is restored", harmless(built_for)),
                );
                true
            }
            _ => *skip_layers,
        }
    }

    fn decide(
        &self,
        buildpack: &GroupElement,
        metadata: &CacheMetadata,
        skips: bool,
        events: &mut dyn EventSink,
    ) -> Result<BTreeMap<String, Decision>, RestoreError> {
        let none = BTreeMap::new();
        let mut apps = self.app.buildpacks.iter();
        let app = apps.find(|entry| entry.key == buildpack.id.as_str()).map_or(&none, |entry| &entry.layers);
        let cache = metadata.layers_of(buildpack.id.as_str()).unwrap_or(&none);
        let (app, cache) = (named_well(app, buildpack, events), named_well(cache, buildpack, events));
        // A name that is no text is in neither.
        let on_disk = self.layers.layers_of(&buildpack.id)?;
        let on_disk: BTreeSet<String> =
            on_disk.into_iter().filter_map(|name| name.into_string().ok()).collect();
        Ok(decide(self.inputs.api, skips, Known { app: &app, cache: &cache, on_disk: &on_disk }))
    }

    /// Unpacks contents; gives back the layers that are whole (RST-07).
    fn restore_contents<'g>(
        &self,
        wanted: Vec<(Wanted, Restored<'g>)>,
        events: &mut dyn EventSink,
    ) -> Result<Vec<Restored<'g>>, RestoreError> {
        let (wanted, layers): (Vec<Wanted>, Vec<Restored<'g>>) = wanted.into_iter().unzip();
        let results = contents::restore(&self.cache, &self.layers, &wanted);
        let mut restored = Vec::new();
        for (layer, result) in layers.into_iter().zip(results) {
            let miss = match result {
                Ok(outline) => {
                    restored.push(Restored { outline: Some(outline), ..layer });
                    continue;
                }
                Err(miss) => miss,
            };
            let buildpack = &layer.buildpack.id;
            self.layers.remove_layer(buildpack, &layer.layer)?;
            if let Miss::Machine(source) = miss {
                let (buildpack, layer) = (layer.buildpack.reference(), harmless(&layer.layer));
                return Err(RestoreError::Write { buildpack, layer, source });
            }
            let message = format!(
                "layer `{buildpack}:{}` is not restored: {}",
                harmless(&layer.layer),
                with_causes(&miss)
            );
            warn(events, message);
        }
        Ok(restored)
    }

    /// RST-11, RST-12: from the cache and from the previous image, for the layers
    /// whose metadata was restored.
    fn restore_sboms(
        &self,
        restored: &[Restored<'_>],
        metadata: &CacheMetadata,
        events: &mut dyn EventSink,
    ) -> Result<(), RestoreError> {
        if !metadata.sbom.sha.is_empty() {
            self.layers.remove_sboms(Some("cache"))?;
            match contents::unpack_one(&self.cache, &self.layers, &metadata.sbom.sha, "sbom/cache") {
                Ok(_) => {}
                Err(Miss::Machine(source)) => return Err(RestoreError::Sbom(source)),
                Err(miss) => {
                    self.layers.remove_sboms(Some("cache"))?;
                    warn(
                        events,
                        format!("cached bills of materials are not restored: {}", with_causes(&miss)),
                    );
                }
            }
        }
        for Restored { buildpack, layer, .. } in restored {
            let directory = buildpack.id.directory_name();
            for kind in ["cache", "launch"] {
                for format in [SbomFormat::CycloneDx, SbomFormat::Spdx, SbomFormat::Syft] {
                    let extension = format.extension();
                    let from = format!("sbom/{kind}/{directory}/{layer}/sbom.{extension}");
                    self.layers.copy(&from, &buildpack.id, &format!("{layer}.sbom.{extension}"))?;
                }
            }
        }
        Ok(self.layers.remove_sboms(None)?)
    }
}

/// What is restored of `<layer>.toml`: from Buildpack API 0.6 on a buildpack has to say
/// anew what a layer is for (LYR-09, LYR-10).
fn layer_file(record: &LayerRecord, api: ApiVersion) -> Value {
    let LayerRecord { data, build, launch, cache, .. } = record;
    if api >= ApiVersion::zero(6) {
        json!({ "metadata": data })
    } else {
        json!({ "build": build, "launch": launch, "cache": cache, "metadata": data })
    }
}

/// The layers whose names can be names of directories.
fn named_well(
    layers: &BTreeMap<String, LayerRecord>,
    buildpack: &GroupElement,
    events: &mut dyn EventSink,
) -> BTreeMap<String, LayerRecord> {
    let mut well = BTreeMap::new();
    for (name, layer) in layers {
        match name.parse::<LayerName>() {
            Ok(_) => drop(well.insert(name.clone(), layer.clone())),
            Err(error) => {
                warn(events, format!("a layer of buildpack `{}` is not restored: {error}", buildpack.id));
            }
        }
    }
    well
}
