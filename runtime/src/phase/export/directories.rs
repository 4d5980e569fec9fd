//! An image of directories as buildpacks left them: what the programs of the
//! lifecycle export.
//!
//! Paths are the same on disk and in the image (LYR-11). Nothing is written but
//! the blobs of layers; where the image goes is the caller's business.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use serde_json::Value;

use super::assembly::{Foundation, HistoryLines, assemble};
use super::contents::{App, Ground, is_reserved, launcher_layer, process_types_layer};
use super::labels::{LabelSet, json_text};
use super::looks::{Directory, Looking, Looks};
use super::on_disk::{is_real_directory, look_at};
use super::plans::{self, Part, Plans};
use super::start::configure_launcher;
use super::work::{Before, Entries, Files, Source, Tools, write_tree};
use super::{ExportError, Launcher, warn_of_sockets};
use crate::cancel::Cancel;
use crate::cnb::api::PlatformApi;
use crate::cnb::id::{BuildpackId, BuildpackRef, ExecEnv, LayerName, ProcessType};
use crate::cnb::labels::{
    self, BuildMetadata, BuildpackLayers, LayerRecord, LayerSha, LifecycleMetadata, ProjectMetadata,
    RunImageRecord, StackRecord, StackRunImage, StoreRecord,
};
use crate::cnb::layer::LayerTypes;
use crate::cnb::metadata_toml::MetadataToml;
use crate::cnb::run_toml::RunImageNames;
use crate::event::EventSink;
use crate::oci::blob::BlobStore;
use crate::oci::digest::DiffId;
use crate::oci::encoder::{Encoders, Encoding};
use crate::oci::image::{Image, Layer};
use crate::oci::layer::Owner;
use crate::tree::{Tree, TreeLimits};
use crate::workspace::Places;

/// Everything an image of directories is made from.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryExport<'a> {
    /// Decides what files and labels look like.
    pub api: PlatformApi,
    /// Where app and layers are, on disk and in the image.
    pub places: &'a Places,
    /// Of the app, of layers, and of everything in them.
    pub owner: Owner,
    /// The run image; with the configuration that extensions gave it.
    pub base: &'a Image,
    /// How the run image is referred to.
    pub run_image_reference: &'a str,
    /// What the run image is called (RUN-05).
    pub run_image_names: &'a RunImageNames,
    /// What image extensions put on the run image, each with its line of history.
    pub extension_layers: &'a [(Layer, String)],
    /// In group order.
    pub buildpacks: &'a [DirectoryBuildpack],
    pub metadata: &'a MetadataToml,
    /// For platforms that still have it: `null` or a list (LBL-12).
    pub bom: Option<&'a Value>,
    /// For the architecture of the run image.
    pub launcher: &'a Launcher,
    /// The process to start instead of the default one.
    pub process_type: Option<&'a str>,
    pub exec_env: &'a ExecEnv,
    pub project: &'a ProjectMetadata,
    /// Seconds since 1970 for `created`; `None` is 1980-01-01T00:00:01Z.
    pub created: Option<u64>,
    pub previous: Option<PreviousImage<'a>>,
    /// Layers whose tar need not be made to know its digest, because nothing has
    /// touched them since it was taken apart.
    pub known_diff_ids: &'a KnownDiffIds,
    /// What the app and each layer may hold.
    pub limits: TreeLimits,
    /// How new layers are compressed; with gzip where readers of the run image's family need
    /// not know it.
    pub encoding: Encoding,
}

/// Digests of the tars of layers.
pub type KnownDiffIds = BTreeMap<(BuildpackId, LayerName), DiffId>;

/// What a buildpack left on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectoryBuildpack {
    pub reference: BuildpackRef,
    /// Those with `launch`, sorted by name.
    pub layers: Vec<DirectoryLayer>,
    /// `[metadata]` of `store.toml`; `None` without that file.
    pub store: Option<Value>,
}

/// A launch layer on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectoryLayer {
    pub name: LayerName,
    pub types: LayerTypes,
    /// Its `[metadata]`; `null` if it has none.
    pub data: Value,
}

/// The image that was made last time.
#[derive(Debug, Clone, Copy)]
pub struct PreviousImage<'a> {
    /// As `analyzed.toml` has it.
    pub metadata: &'a LifecycleMetadata,
    /// Those whose blobs can be used.
    pub layers: &'a [Layer],
}

/// An image that is not yet kept anywhere.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeImage {
    pub image: Image,
    /// The launch layers of buildpacks.
    pub diff_ids: KnownDiffIds,
}

/// Makes an image of directories.
///
/// # Errors
/// [`ExportError`].
///
/// # Spec
/// `platform.md` 0.15 "Phase: Export"; EXP-02 to EXP-13, TAR-01 to TAR-15,
/// IMG-01 to IMG-12, LBL-10 to LBL-18.
pub fn make_image(
    request: &DirectoryExport<'_>,
    store: &dyn BlobStore,
    cancel: &Cancel,
    events: &mut dyn EventSink,
) -> Result<MadeImage, ExportError> {
    let metadata = request.metadata;
    let process_type = wanted_process(request)?;
    check_process_types(request)?;

    let mut finding = Finding::new(request, cancel);
    let app_directory = finding.find(&request.places.app, Part::App, events)?;
    let app_directory = app_directory.ok_or_else(|| missing(&request.places.app))?;
    let layers = request.launch_layers(&mut finding, events)?;
    let sbom_path = format!("{}/sbom/launch", request.places.layers);
    let has_sbom = request.api.at_least(8)
        && is_real_directory(format!("{}/sbom", request.places.layers))
        && is_real_directory(&sbom_path);
    let sbom = if has_sbom { finding.find(&sbom_path, Part::Sbom, events)? } else { None };
    let config_path = format!("{}/config", request.places.layers);
    let config = finding.find(&config_path, Part::Config, events)?;
    let config = config.ok_or_else(|| missing(&config_path))?;
    let app = App::new(app_directory.place.ground.clone(), &app_directory.listing, &[], &[].into())?;
    let app_layers = app.layers(&metadata.slices)?;

    let mut plans = Plans::default();
    for (buildpack, layer, made_of) in &layers {
        let source = match made_of {
            MadeOf::Known(layer) => Source::Known(layer.clone()),
            MadeOf::Directory(directory) => {
                let recorded = request.recorded(&buildpack.id, &layer.name).map(|record| record.sha.as_str());
                Source::Files(directory.files(request.before(recorded)))
            }
        };
        plans.add(Part::Buildpack, plans::buildpack(buildpack, &layer.name, source));
    }
    let recorded = request.previous.map(|previous| previous.metadata);
    let sha = |layer: Option<&'_ LayerSha>| layer.map(|layer| layer.sha.clone());
    if let Some(sbom) = &sbom {
        let before = request.before(sha(recorded.and_then(|labels| labels.sbom.as_ref())).as_deref());
        plans.add(Part::Sbom, plans::sbom(sbom.files(before)));
    }
    for (number, entries) in (1..).zip(&app_layers) {
        let before = recorded.into_iter().flat_map(|labels| &labels.app).map(|layer| layer.sha.as_str());
        let files = Files {
            entries: Entries::Listed(entries.into()),
            tree: Some(&app_directory.tree),
            before: request.before(before),
        };
        plans.add(Part::App, plans::app(number, !metadata.slices.is_empty(), files));
    }
    let listed = |entries, recorded: Option<String>| Files {
        entries: Entries::Listed(Cow::Owned(entries)),
        tree: None,
        before: request.before(recorded.as_deref()),
    };
    let launcher = sha(recorded.and_then(|labels| labels.launcher.as_ref()));
    plans.add(Part::Launcher, plans::launcher(listed(launcher_layer(request.launcher), launcher)));
    let before = request.before(sha(recorded.and_then(|labels| labels.config.as_ref())).as_deref());
    plans.add(Part::Config, plans::config(config.files(before)));
    let types = metadata.processes.iter().map(|process| process.process_type.as_str());
    if let Some(entries) = process_types_layer(types) {
        let recorded = recorded.map(|labels| labels.process_types.sha.clone());
        plans.add(Part::ProcessTypes, plans::process_types(listed(entries, recorded)));
    }
    let family = request.base.family;
    let asked = request.encoding;
    let (encoding, media_type) =
        asked.media_type(family).map_or((Encoding::Gzip, family.layer()), |media_type| (asked, media_type));
    let encoders = Encoders::new(encoding);
    let tools = Tools { store, cancel, encoders: &encoders, media_type: &media_type };
    let made = plans.make(tools, events)?;

    let diff_ids: KnownDiffIds = layers
        .iter()
        .zip(made.of(Part::Buildpack))
        .map(|((buildpack, layer, _), made)| {
            ((buildpack.id.clone(), layer.name.clone()), made.diff_id.clone())
        })
        .collect();
    let mut label = request.lifecycle_metadata(&diff_ids);
    made.record(&mut label);

    let mut base = Foundation {
        family: request.base.family,
        configuration: request.base.configuration.clone(),
        layers: request.base.layers.clone(),
    };
    let run = &mut base.configuration.config;
    let (places, api) = (request.places, request.api.to_string());
    configure_launcher(run, &places.layers, &places.app, &api, process_type);
    request.set_labels(&label, &mut run.labels)?;
    let lines = if request.api.at_least(12) { HistoryLines::Kept } else { HistoryLines::Blank };
    let mut finished: Vec<_> =
        request.extension_layers.iter().map(|(layer, line)| plans::extension(layer, line)).collect();
    finished.extend(made.into_layers());
    Ok(MadeImage { image: assemble(base, finished, request.created, lines), diff_ids })
}

/// Writes the tar of one directory as a layer of an image has it, not compressed: what
/// a cache keeps. `None` when there is nothing at `path`, an absolute path.
///
/// # Errors
/// [`ExportError`]
///
/// # Spec
/// TAR-01 to TAR-15.
pub fn write_layer<W: Write>(
    path: &str,
    owner: Owner,
    limits: TreeLimits,
    cancel: &Cancel,
    writer: W,
) -> Result<Option<(DiffId, W)>, ExportError> {
    let Some(place) = look_at(path, owner)? else { return Ok(None) };
    let tree = if place.is_directory { Tree::of(path) } else { Tree::default() };
    let listing = tree.list(limits, cancel)?;
    write_tree(&place.ground, &tree, &listing, cancel, writer).map(Some)
}

/// The process asked for, or the default one (IMG-05).
fn wanted_process<'a>(request: &DirectoryExport<'a>) -> Result<Option<&'a str>, ExportError> {
    let mut types = request.metadata.processes.iter().map(|process| process.process_type.as_str());
    match request.process_type {
        Some(wanted) if !types.clone().any(|known| known == wanted) => Err(ExportError::UnknownProcess {
            wanted: wanted.to_owned(),
            known: types.by_ref().map(str::to_owned).collect(),
        }),
        Some(wanted) => Ok(Some(wanted)),
        None => Ok(request.metadata.default_process_type.as_deref()),
    }
}

/// Every type becomes the name of a link (LCH-06).
fn check_process_types(request: &DirectoryExport<'_>) -> Result<(), ExportError> {
    for process in &request.metadata.processes {
        process.process_type.parse::<ProcessType>().map_err(ExportError::ProcessType)?;
    }
    Ok(())
}

fn missing(path: &str) -> ExportError {
    let cause = std::io::ErrorKind::NotFound.into();
    crate::tree::TreeError::Read { path: path.into(), cause }.into()
}

/// A launch layer, and what it is made of.
type LaunchLayer<'a> = (&'a BuildpackRef, &'a DirectoryLayer, MadeOf);

enum MadeOf {
    Known(Layer),
    Directory(Box<Directory>),
}

/// Finds the directories that become layers.
struct Finding<'a> {
    looking: Looking<'a>,
    looks: Looks,
}

impl<'a> Finding<'a> {
    /// Lists the app and the layers of buildpacks, which may be large, all at once.
    fn new(request: &DirectoryExport<'_>, cancel: &'a Cancel) -> Self {
        let looking = Looking { owner: request.owner, limits: request.limits, cancel };
        let mut paths = vec![request.places.app.clone()];
        for buildpack in request.buildpacks {
            let id = &buildpack.reference.id;
            let layers = buildpack.layers.iter().filter(|layer| layer.types.launch);
            let unknown = layers.filter(|layer| request.known_layer(id, layer).is_none());
            if is_real_directory(request.places.layers_of(id)) {
                paths.extend(unknown.map(|layer| request.places.layer(id, &layer.name)));
            }
        }
        Self { looking, looks: looking.at_all(&paths) }
    }

    /// Lists what is at `path`; `None` when nothing is.
    fn find(
        &mut self,
        path: &str,
        part: Part,
        events: &mut dyn EventSink,
    ) -> Result<Option<Directory>, ExportError> {
        let Some(directory) = self.looking.take(&mut self.looks, path)? else { return Ok(None) };
        let listing = &directory.listing;
        warn_of_sockets(listing, events);
        let mut names: Vec<String> = Vec::new();
        // Of an app, its own place is the platform's choice.
        if part == Part::Buildpack && is_reserved(path.as_bytes()) {
            names.push(path.to_owned());
        }
        let reserved = listing.entries.iter().filter(|entry| is_reserved(&entry.path));
        names.extend(
            reserved.map(|entry| format!("{path}/{}", String::from_utf8_lossy(&entry.path).escape_debug())),
        );
        if names.is_empty() { Ok(Some(directory)) } else { Err(ExportError::ReservedNames { names }) }
    }
}

impl Directory {
    fn files<'a>(&'a self, before: Before) -> Files<'a> {
        let ground: Ground<'a> = self.place.ground.clone();
        Files { entries: Entries::Tree(ground, &self.listing), tree: Some(&self.tree), before }
    }
}

impl<'a> DirectoryExport<'a> {
    /// What the previous image's label says of a layer.
    fn recorded(&self, buildpack: &BuildpackId, name: &LayerName) -> Option<&'a LayerRecord> {
        let mut buildpacks = self.previous?.metadata.buildpacks.iter();
        buildpacks.find(|record| record.key == buildpack.as_str())?.layers.get(name.as_str())
    }

    /// A layer of the previous image in the words of this one.
    fn previous_layer(&self, sha: &str) -> Option<Layer> {
        let layer = self.previous?.layers.iter().find(|layer| layer.diff_id.to_string() == sha)?;
        let media_type = self.base.family.layer_like(&layer.media_type)?;
        Some(Layer { media_type, ..layer.clone() })
    }

    /// Where a layer may be that had one of these digests in the previous image (EXP-10).
    fn before<'s>(&self, recorded: impl IntoIterator<Item = &'s str>) -> Before {
        let layers: Vec<Layer> = recorded.into_iter().filter_map(|sha| self.previous_layer(sha)).collect();
        if layers.is_empty() { Before::New } else { Before::Image(layers) }
    }

    /// The layer of the previous image that one is known to be.
    fn known_layer(&self, id: &BuildpackId, layer: &DirectoryLayer) -> Option<Layer> {
        let diff_id = self.known_diff_ids.get(&(id.clone(), layer.name.clone()))?;
        self.previous_layer(diff_id.0.as_str())
    }

    fn launch_layers(
        &self,
        finding: &mut Finding<'_>,
        events: &mut dyn EventSink,
    ) -> Result<Vec<LaunchLayer<'a>>, ExportError> {
        let mut layers = Vec::new();
        for buildpack in self.buildpacks {
            let (reference, id) = (&buildpack.reference, &buildpack.reference.id);
            let directory = self.places.layers_of(id);
            for layer in buildpack.layers.iter().filter(|layer| layer.types.launch) {
                let path = self.places.layer(id, &layer.name);
                let made_of = if let Some(known) = self.known_layer(id, layer) {
                    MadeOf::Known(known)
                } else if is_real_directory(&directory)
                    && let Some(found) = finding.find(&path, Part::Buildpack, events)?
                {
                    MadeOf::Directory(Box::new(found))
                } else {
                    MadeOf::Known(self.kept_layer(reference, layer)?)
                };
                layers.push((reference, layer, made_of));
            }
        }
        Ok(layers)
    }

    /// The layer of the previous image that stays (LYR-15, LYR-17).
    fn kept_layer(&self, buildpack: &BuildpackRef, layer: &DirectoryLayer) -> Result<Layer, ExportError> {
        let (buildpack, name) = (buildpack.clone(), layer.name.clone());
        if layer.types.cache {
            return Err(ExportError::NoContents { buildpack, name });
        }
        let Some(record) = self.recorded(&buildpack.id, &name) else {
            return Err(ExportError::NothingToKeep { buildpack, name });
        };
        let kept = self.previous_layer(&record.sha);
        kept.ok_or_else(|| ExportError::KeptLayerGone { buildpack, name, diff_id: record.sha.clone() })
    }

    fn lifecycle_metadata(&self, diff_ids: &KnownDiffIds) -> LifecycleMetadata {
        let top = self.base.layers.last().map(|layer| layer.diff_id.to_string());
        let RunImageNames { image, mirrors } = self.run_image_names.clone();
        let stack =
            StackRecord { run_image: StackRunImage { image: image.clone(), mirrors: mirrors.clone() } };
        let names = if self.api.at_least(12) { (image, mirrors) } else { Default::default() };
        LifecycleMetadata {
            run_image: RunImageRecord {
                top_layer: top.unwrap_or_default(),
                reference: self.run_image_reference.to_owned(),
                image: names.0,
                mirrors: names.1,
            },
            stack,
            buildpacks: self.buildpacks.iter().map(|buildpack| record(buildpack, diff_ids)).collect(),
            exec_env: self.api.at_least(15).then(|| self.exec_env.to_string()),
            ..LifecycleMetadata::default()
        }
    }

    fn set_labels(
        &self,
        lifecycle: &LifecycleMetadata,
        image_labels: &mut BTreeMap<String, String>,
    ) -> Result<(), ExportError> {
        let metadata = self.metadata;
        let mut description = BuildMetadata {
            bom: self.bom.cloned(),
            buildpacks: metadata.buildpacks.clone(),
            extensions: metadata.extensions.clone(),
            processes: metadata.processes.clone(),
            default_process_type: metadata.default_process_type.clone(),
            ..BuildMetadata::default()
        };
        description.launcher.version.clone_from(&self.launcher.version);
        let mut description = serde_json::to_value(&description).unwrap_or_default();
        if !self.api.at_least(10) {
            labels::with_text_commands(&mut description);
        }
        let set = LabelSet {
            lifecycle: json_text(lifecycle),
            build: json_text(&description),
            project: json_text(self.project),
            exec_env: self.api.at_least(15).then_some(self.exec_env),
            buildpacks: &metadata.labels,
        };
        set.put_into(image_labels)
    }
}

fn record(buildpack: &DirectoryBuildpack, diff_ids: &KnownDiffIds) -> BuildpackLayers {
    let id = &buildpack.reference.id;
    let layers = buildpack.layers.iter().filter_map(|layer| {
        let sha = diff_ids.get(&(id.clone(), layer.name.clone()))?.to_string();
        let LayerTypes { launch, build, cache } = layer.types;
        let record = LayerRecord { sha, data: layer.data.clone(), build, launch, cache };
        Some((layer.name.to_string(), record))
    });
    BuildpackLayers {
        key: id.to_string(),
        version: buildpack.reference.version.to_string(),
        layers: layers.collect(),
        store: buildpack.store.clone().map(|metadata| StoreRecord { metadata }),
    }
}
