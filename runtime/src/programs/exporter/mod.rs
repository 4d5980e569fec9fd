//! `exporter`: makes the image, and the cache for the next build.

mod base;
mod buildpacks;
mod sboms;
mod scratch;

use std::io;
use std::path::{Path, PathBuf};

pub use self::base::BaseError;
pub use self::buildpacks::LayersError;
pub use self::sboms::SbomError;

use self::base::Base;
pub(in crate::programs) use self::scratch::ScratchBlobs;
use super::ImagePlaces;
use super::error::{BUILDPACK_API, GENERIC, INVALID, of_file};
use super::files::{self, FileError};
use super::new_cache::{self, CacheImage, CachePlace, Cached};
use super::telling::with_causes;
use crate::cancel::Cancel;
use crate::cnb::analyzed_toml::{Analyzed, AnalyzedRunImage};
use crate::cnb::api::{ApiVersion, PlatformApi};
use crate::cnb::group_toml::Group;
use crate::cnb::id::{BuildpackRef, ExecEnv};
use crate::cnb::labels::{MetadataError, ProjectMetadata};
use crate::cnb::metadata_toml::MetadataToml;
use crate::cnb::report_toml::{ImageReport, Report};
use crate::cnb::run_toml::{RunImageNames, RunToml};
use crate::event::{Event, EventSink};
use crate::images::{FoundImage, Images, ImagesError, SavedImage, Unsaved, recorded_names};
use crate::oci::elf::Elf;
use crate::oci::encoder::Encoding;
use crate::oci::image::{BlobPlace, Layer, MediaFamily};
use crate::oci::layer::Owner;
use crate::oci::layout::LayoutError;
use crate::oci::reference::{InvalidReference, Reference};
use crate::phase::export::{
    DirectoryBuildpack, DirectoryExport, ExportError, KnownDiffIds, Launcher, MadeImage, PreviousImage,
    make_image,
};
use crate::text::harmless;
use crate::tree::TreeLimits;
use crate::workspace::Places;

/// Something about the image went wrong.
const EXPORT: u8 = 62;
/// The last second that has a date of four digits for its year.
const MAX_EPOCH: u64 = 253_402_300_799;

/// What it is told.
#[derive(Debug, Clone)]
pub struct Inputs {
    pub api: PlatformApi,
    pub exec_env: ExecEnv,
    /// All names of the image; the first is the output image.
    pub images: Vec<String>,
    pub analyzed: PathBuf,
    pub app: PathBuf,
    pub cache_dir: Option<PathBuf>,
    pub cache_image: Option<String>,
    pub extended: PathBuf,
    pub group: PathBuf,
    pub launcher: PathBuf,
    /// Directory with the launcher's bills of materials.
    pub launcher_sbom: PathBuf,
    pub layers: PathBuf,
    /// Write image and cache at the same time.
    pub parallel: bool,
    pub process_type: Option<String>,
    pub project_metadata: PathBuf,
    pub report: PathBuf,
    /// `run.toml`; before Platform API 0.12 `stack.toml`.
    pub run: PathBuf,
    /// Owner of layers and app in the image.
    pub owner: (u32, u32),
    /// `SOURCE_DATE_EPOCH` as it was set.
    pub source_date_epoch: Option<String>,
    /// `WAPACK_COMPRESSION` as it was set: `gzip`, `zstd` or `zstd:LEVEL`.
    pub compression: Option<String>,
    /// A directory for what is only needed while it runs.
    pub scratch: PathBuf,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// A file of the platform.
    #[error(transparent)]
    File(#[from] FileError),
    /// What tells which run image it is.
    #[error(transparent)]
    Analyzed(FileError),
    #[error("the image has no name")]
    NoName,
    #[error(transparent)]
    Name(#[from] InvalidReference),
    #[error("the names `{first}` and `{other}` are on different registries")]
    Registries { first: String, other: String },
    #[error("`{}` names no run image", analyzed.display())]
    NoRunImage { analyzed: PathBuf },
    #[error("the directory `{}` has a name that an image cannot hold", path.display())]
    Directory { path: PathBuf },
    /// Another program ran the buildpacks (API-07).
    #[error("buildpack `{buildpack}` has the unsupported buildpack API `{api}`")]
    Api { buildpack: BuildpackRef, api: ApiVersion },
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error("the results of the build cannot be read")]
    Build(#[source] FileError),
    #[error("the bill of materials of the build cannot be stored in a label")]
    Bom(#[source] MetadataError),
    #[error(transparent)]
    Layers(#[from] LayersError),
    #[error(transparent)]
    Sbom(#[from] SbomError),
    #[error("cannot read the launcher `{}`", path.display())]
    Launcher { path: PathBuf, source: io::Error },
    /// No process of the image could be started.
    #[error("the launcher `{}` is for `{machine}`, and the run image for `{architecture}`; take a launcher for `{architecture}`", path.display())]
    LauncherMachine { path: PathBuf, machine: String, architecture: String },
    #[error("cannot use the directory `{}`", path.display())]
    Scratch { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Save(ImagesError),
    #[error("the report cannot be written")]
    Report(#[source] FileError),
}

impl ExporterError {
    /// # Spec
    /// EXP-07: what is read before anything is exported is no matter of the export.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::File(error) => of_file(error),
            Self::Analyzed(_)
            | Self::NoName
            | Self::Name(_)
            | Self::Registries { .. }
            | Self::NoRunImage { .. }
            | Self::Directory { .. } => INVALID,
            Self::Api { .. } => BUILDPACK_API,
            Self::Base(_) | Self::Build(_) => GENERIC,
            Self::Bom(_)
            | Self::Layers(_)
            | Self::Sbom(_)
            | Self::Launcher { .. }
            | Self::LauncherMachine { .. }
            | Self::Scratch { .. }
            | Self::Export(_)
            | Self::Save(_)
            | Self::Report(_) => EXPORT,
        }
    }
}

/// Runs it.
///
/// # Errors
/// [`ExporterError`].
///
/// # Spec
/// `platform.md` 0.15 "Phase: Export"; EXP-01 to EXP-13, RPT-01 to RPT-06.
pub fn run(
    inputs: &Inputs,
    places: ImagePlaces<'_>,
    cancel: &Cancel,
    events: &mut dyn EventSink,
) -> Result<(), ExporterError> {
    run_knowing(&KnownDiffIds::new(), inputs, places, cancel, events)
}

/// Runs it where the digests of some layers are known already: nothing has touched
/// them since the same process took them apart. They are not read at all where the
/// previous image has them, or the last cache.
///
/// # Errors
/// [`ExporterError`].
pub fn run_knowing(
    known_diff_ids: &KnownDiffIds,
    inputs: &Inputs,
    places: ImagePlaces<'_>,
    cancel: &Cancel,
    events: &mut dyn EventSink,
) -> Result<(), ExporterError> {
    let ImagePlaces { images, caches } = places;
    let scratch = &inputs.scratch;
    let failed = |source| ExporterError::Scratch { path: scratch.clone(), source };
    let mut given = Given::read(inputs, images, events)?;
    let blobs = ScratchBlobs::new(scratch).map_err(failed)?.written_early(images.keeps_files());
    let (made, saved) = loop {
        let made = given.make(inputs, known_diff_ids, &blobs, cancel, events)?;
        match images.save(&made.image, &inputs.images, &blobs, cancel, events) {
            Ok(saved) => break (made, saved),
            // Layers of the previous image are believed until they are copied.
            Err(error) if given.forget_damaged(&error, events) => {}
            Err(error) => return Err(ExporterError::Save(error)),
        }
    };
    tell(&made, &saved, events);
    given.report(inputs, saved)?;
    let group = read_group(&inputs.group)?;
    let mut known_diff_ids = known_diff_ids.clone();
    known_diff_ids.extend(made.diff_ids.clone());
    let cached = Cached {
        api: inputs.api,
        layers: &inputs.layers,
        buildpacks: &group.buildpacks,
        owner: owner(inputs),
        known: &known_diff_ids,
    };
    // The image is there and told of: what follows is for the next build.
    let place = match (&inputs.cache_image, &inputs.cache_dir) {
        (Some(name), _) => {
            let others: &[String] = if std::ptr::addr_eq(images, caches) { &inputs.images } else { &[] };
            CachePlace::Image(CacheImage { name, caches, blobs: &blobs, app: &made.image.layers, others })
        }
        (None, Some(directory)) => CachePlace::Directory(directory),
        (None, None) => CachePlace::None,
    };
    new_cache::write(&cached, place, cancel, events);
    Ok(())
}

/// Everything that was there before.
struct Given {
    places: Places,
    /// For the report of old platforms.
    build_bom: Vec<toml::Value>,
    metadata: MetadataToml,
    bom: Option<serde_json::Value>,
    run_image_names: RunImageNames,
    project: ProjectMetadata,
    buildpacks: Vec<DirectoryBuildpack>,
    base: Base,
    analyzed: Analyzed,
    /// Layers of the previous image that can be used again.
    previous: Vec<Layer>,
    launcher: Launcher,
}

impl Given {
    /// Forgets a layer of the previous image that is the reason of `error`, if there is
    /// one, so that it is made anew.
    fn forget_damaged(&mut self, error: &ImagesError, events: &mut dyn EventSink) -> bool {
        let ImagesError::Unsaved { unsaved, .. } = error else { return false };
        let damaged =
            |one: &Unsaved| Some(one.cause.downcast_ref::<LayoutError>()?.damaged_blob()?.to_owned());
        let Some(blob) = unsaved.iter().find_map(damaged) else { return false };
        let before = self.previous.len();
        self.previous.retain(|layer| layer.file() != Some(&blob));
        let is_ours = self.previous.len() < before;
        if is_ours {
            let message = format!("a layer of the previous image is not used again: {}", with_causes(error));
            events.event(Event::Warning { message });
        }
        is_ours
    }

    fn read(inputs: &Inputs, images: &dyn Images, events: &mut dyn EventSink) -> Result<Self, ExporterError> {
        check_names(&inputs.images, images)?;
        let places = places(inputs)?;
        let analyzed = files::read_if_there(&inputs.analyzed, Analyzed::parse);
        let analyzed = analyzed.map_err(ExporterError::Analyzed)?.unwrap_or_default();
        let run_image = analyzed.run_image.clone().filter(|run_image| !run_image.reference.is_empty());
        let no_run_image = || ExporterError::NoRunImage { analyzed: inputs.analyzed.clone() };
        let run_image = run_image.ok_or_else(no_run_image)?;
        let group = read_group(&inputs.group)?;
        let project = files::read_if_there(&inputs.project_metadata, ProjectMetadata::parse)?;
        let base = base::find(&run_image, &inputs.extended, images)?;
        let previous = previous_layers(&analyzed, images, events);

        let metadata_path = inputs.layers.join("config/metadata.toml");
        let metadata = files::read(&metadata_path, MetadataToml::parse).map_err(ExporterError::Build)?;
        let has_bom = !inputs.api.at_least(9);
        let bom = has_bom.then(|| metadata.bom()).transpose().map_err(ExporterError::Bom)?;
        let run_image_names = run_image_names(inputs, &run_image, &metadata)?;
        if inputs.api.at_least(11) {
            sboms::copy(&inputs.layers, &inputs.launcher_sbom, events)?;
        }
        let buildpacks = group
            .buildpacks
            .iter()
            .map(|element| buildpacks::read(&inputs.layers, element))
            .collect::<Result<_, _>>()?;
        let bytes = fs_err::read(&inputs.launcher)
            .map_err(|source| ExporterError::Launcher { path: inputs.launcher.clone(), source })?;
        check_machine(&inputs.launcher, &bytes, &base.image.configuration.architecture)?;
        let launcher = Launcher { bytes, version: env!("CARGO_PKG_VERSION").to_owned() };
        Ok(Self {
            places,
            build_bom: if has_bom { buildpacks::build_bom(&inputs.layers, &group)? } else { vec![] },
            metadata,
            bom,
            run_image_names,
            project: project.unwrap_or_default(),
            buildpacks,
            base,
            analyzed,
            previous,
            launcher,
        })
    }

    fn make(
        &self,
        inputs: &Inputs,
        known_diff_ids: &KnownDiffIds,
        blobs: &ScratchBlobs,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<MadeImage, ExportError> {
        let request = DirectoryExport {
            api: inputs.api,
            places: &self.places,
            owner: owner(inputs),
            base: &self.base.image,
            run_image_reference: &self.base.reference,
            run_image_names: &self.run_image_names,
            extension_layers: &self.base.extension_layers,
            buildpacks: &self.buildpacks,
            metadata: &self.metadata,
            bom: self.bom.as_ref(),
            launcher: &self.launcher,
            process_type: inputs.process_type.as_deref().filter(|name| !name.is_empty()),
            exec_env: &inputs.exec_env,
            project: &self.project,
            created: created(inputs, events),
            previous: Some(PreviousImage { metadata: &self.analyzed.metadata, layers: &self.previous }),
            known_diff_ids,
            limits: TreeLimits { special_files: true, ..TreeLimits::default() },
            encoding: encoding(inputs, self.base.image.family, events),
        };
        make_image(&request, blobs, cancel, events)
    }

    fn report(self, inputs: &Inputs, saved: SavedImage) -> Result<(), ExporterError> {
        let image = ImageReport {
            tags: saved.names,
            image_id: saved.id,
            digest: saved.digest.map(|digest| digest.to_string()),
            manifest_size: saved.manifest_bytes,
        };
        let report = Report { image };
        let text =
            if inputs.api.at_least(9) { report.to_toml() } else { report.to_toml_with_bom(&self.build_bom) };
        files::write(&inputs.report, &text).map_err(ExporterError::Report)
    }
}

/// Refuses a launcher that the processors of the image do not run.
fn check_machine(path: &Path, launcher: &[u8], architecture: &str) -> Result<(), ExporterError> {
    match Elf::read(io::Cursor::new(launcher)) {
        Some(Elf { abi, .. }) if !abi.runs_on(architecture) => Err(ExporterError::LauncherMachine {
            path: path.to_owned(),
            machine: abi.name(),
            architecture: harmless(architecture),
        }),
        _ => Ok(()),
    }
}

fn check_names(names: &[String], images: &dyn Images) -> Result<(), ExporterError> {
    let first = names.first().ok_or(ExporterError::NoName)?;
    let registry = |name: &str| name.parse::<Reference>().map(|name| name.registry().to_owned());
    let wanted = registry(first)?;
    for name in &names[1..] {
        if registry(name)? != wanted && !images.is_daemon() {
            return Err(ExporterError::Registries { first: first.clone(), other: name.clone() });
        }
    }
    Ok(())
}

pub(super) fn places(inputs: &Inputs) -> Result<Places, ExporterError> {
    // Without a slash at the end, or two in the middle.
    let text = |path: &Path| {
        let clean: PathBuf = path.components().collect();
        let text = clean.to_str().filter(|text| text.starts_with('/') && text.len() > 1);
        text.map(str::to_owned).ok_or_else(|| ExporterError::Directory { path: path.to_owned() })
    };
    Ok(Places { app: text(&inputs.app)?, layers: text(&inputs.layers)?, ..Places::default() })
}

/// Of layers and app in the image.
pub(super) fn owner(inputs: &Inputs) -> Owner {
    let (uid, gid) = inputs.owner;
    Owner { uid: uid.into(), gid: gid.into() }
}

fn read_group(path: &Path) -> Result<Group, ExporterError> {
    let group = files::read(path, Group::parse)?;
    match group.buildpacks.iter().chain(&group.extensions).find(|element| !element.api.is_supported()) {
        Some(element) => Err(ExporterError::Api { buildpack: element.reference(), api: element.api }),
        None => Ok(group),
    }
}

/// What the label calls the run image (RUN-05).
fn run_image_names(
    inputs: &Inputs,
    run_image: &AnalyzedRunImage,
    metadata: &MetadataToml,
) -> Result<RunImageNames, ExporterError> {
    let names = if inputs.api.at_least(12) {
        let offered = files::read_if_there(&inputs.run, RunToml::parse)?.unwrap_or_default();
        recorded_names(&offered, &run_image.image, !metadata.extensions.is_empty())
    } else {
        let offered = files::read_if_there(&inputs.run, RunToml::parse_stack)?.unwrap_or_default();
        offered.images.into_iter().next()
    };
    Ok(names.unwrap_or_default())
}

/// Layers of the previous image that are there to be used again; without it, all are made anew.
fn previous_layers(analyzed: &Analyzed, images: &dyn Images, events: &mut dyn EventSink) -> Vec<Layer> {
    let Some(name) = analyzed.previous_image.as_deref().filter(|name| !name.is_empty()) else {
        return vec![];
    };
    let why = match images.find(name) {
        // A platform may leave out the blobs of a layout; a registry has all or nothing (EXP-12).
        Ok(Some(FoundImage { image, .. })) => {
            let is_there = |layer: &Layer| {
                images.is_daemon() || layer.is_here() || matches!(layer.blob, BlobPlace::Registry(_))
            };
            return image.layers.into_iter().filter(is_there).collect();
        }
        Ok(None) => "it is gone".to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!("no layer of the previous image `{name}` is used again: {why}");
    events.event(Event::Warning { message });
    vec![]
}

/// The time of the image (IMG-06).
fn created(inputs: &Inputs, events: &mut dyn EventSink) -> Option<u64> {
    let text =
        inputs.source_date_epoch.as_deref().filter(|text| !text.is_empty() && inputs.api.at_least(9))?;
    let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_EPOCH);
    if seconds.is_none() {
        let message = "`SOURCE_DATE_EPOCH` is no number of seconds and not used".to_owned();
        events.event(Event::Warning { message });
    }
    seconds
}

/// How new layers are compressed.
fn encoding(inputs: &Inputs, family: MediaFamily, events: &mut dyn EventSink) -> Encoding {
    let Some(text) = inputs.compression.as_deref().filter(|text| !text.is_empty()) else {
        return Encoding::default();
    };
    let why = match text.parse::<Encoding>() {
        Ok(encoding) if encoding.media_type(family).is_some() => return encoding,
        Ok(_) => "the run image is in Docker's format".to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!("`WAPACK_COMPRESSION` is not used, layers are compressed with gzip: {why}");
    events.event(Event::Warning { message });
    Encoding::default()
}

fn tell(made: &MadeImage, saved: &SavedImage, events: &mut dyn EventSink) {
    let digest = saved.digest.as_ref().map(ToString::to_string).or_else(|| saved.id.clone());
    for message in saved.warnings() {
        events.event(Event::Warning { message });
    }
    for name in &saved.names {
        events.event(Event::ImageWritten {
            reference: name.clone(),
            digest: digest.clone().unwrap_or_default(),
            bytes: made.image.bytes(),
        });
    }
}

#[cfg(test)]
mod tests;
