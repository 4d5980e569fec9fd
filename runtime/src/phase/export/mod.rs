//! From what was built and a run image to an image whose new layers are in the store.
//!
//! Knows the order and the names of everything in an image (layers, labels,
//! environment); how a layer becomes bytes is `oci`'s, and where the image goes is
//! nobody's business here.
//! Nothing here depends on time, user, locale, order of directories or cores.

mod assembly;
mod cache_image;
mod contents;
mod directories;
mod directory_tar;
mod error;
mod labels;
mod looks;
mod needs;
mod on_disk;
mod plans;
mod start;
mod work;

pub use self::cache_image::{CacheImageError, CacheImageRequest, cache_image};
pub use self::directories::{
    DirectoryBuildpack, DirectoryExport, DirectoryLayer, KnownDiffIds, MadeImage, PreviousImage, make_image,
    write_layer,
};
pub use self::directory_tar::{DirectoryLook, write_directory};
pub use self::error::ExportError;
pub use self::needs::{MissingLibrary, Origin, Problem, Unmet};

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use oci_spec::image::MediaType;

use self::assembly::{Foundation, HistoryLines, assemble};
use self::contents::{App, Ground, LayerEntry, Modes, open_to_group};
use self::needs::Subject;
use self::plans::{Made, Part, Plans};
use self::start::Start;
use self::work::{Before, Entries, Files, LayerPlan, Source, Tools};
use crate::cancel::Cancel;
use crate::cnb::api::PlatformApi;
use crate::cnb::build_metadata::BuildMetadata;
use crate::cnb::group_toml::GroupElement;
use crate::cnb::id::{ExecEnv, ProcessType};
use crate::cnb::labels::{LifecycleMetadata, ProjectMetadata};
use crate::cnb::layer::LayerFeatures;
use crate::cnb::target::Target;
use crate::event::{Event, EventSink};
use crate::images::{FoundImage, Images};
use crate::network::Artifacts;
use crate::oci::blob::{BlobStore, StoredBlob};
use crate::oci::digest::Digest;
use crate::oci::encoder::{Encoders, Encoding};
use crate::oci::image::{Image, ImageConfiguration, Layer, MediaFamily, RootFs, RunConfiguration};
use crate::oci::layer::Owner;
use crate::phase::values::{Built, BuiltBuildpack, BuiltContents, BuiltLayer, ExportedLayer, features_of};
use crate::tree::{Listing, Tree, TreeError, TreeLimits};

/// Where layers are in an image.
pub const LAYERS_DIRECTORY: &str = "/layers";
/// Where the app is in an image.
pub const APP_DIRECTORY: &str = "/workspace";
/// The Platform API that images are made by.
pub const PLATFORM_API: &str = "0.15";
/// The label of an image that starts without a launcher; its value is `none`.
pub const LAUNCHER_LABEL: &str = "io.wapack.launcher";
/// Who owns files, and runs, where nothing says otherwise.
const DEFAULT_OWNER: Owner = Owner { uid: 1000, gid: 1000 };
/// How many damaged blobs of an image are made anew: it has at most a few that can be.
pub const MAX_REPAIRS: usize = 8;

/// What an image is built upon.
#[derive(Debug, Clone, PartialEq)]
pub struct RunImage {
    pub base: Base,
    /// The name it was asked for by; empty if it has none.
    pub name: String,
    /// Other names of the same image.
    pub mirrors: Vec<String>,
}

/// The layers below ours.
#[derive(Debug, Clone, PartialEq)]
pub enum Base {
    /// None.
    Scratch(Target),
    /// Those of an image, wherever it was found.
    Image(Box<FoundImage>),
}

impl RunImage {
    /// Whether there is nothing below the app and its layers.
    #[must_use]
    pub fn is_scratch(&self) -> bool {
        matches!(self.base, Base::Scratch(_))
    }
}

/// The program that starts processes in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// A static executable for the run image's system.
    pub bytes: Vec<u8>,
    pub version: String,
}

/// Whether an image gets a launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LauncherMode {
    /// Except on `scratch` when nothing needs it.
    #[default]
    Auto,
    Always,
    /// Fails when something needs it.
    Never,
}

/// Who is to own the app and the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileOwner {
    /// `None` takes that of the image's user, where it is a number.
    pub uid: Option<u64>,
    /// The same of its group.
    pub gid: Option<u64>,
    /// Whether the group may do what the owner may, for platforms that run images as any
    /// user of one group.
    pub is_group_writable: bool,
}

/// How the files of the app and the layers look in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileForm {
    pub owner: Owner,
    pub is_group_writable: bool,
}

impl fmt::Display for FileForm {
    /// `1000:0`, or `1000:0 group-writable`: equal texts are equal forms.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.owner.uid, self.owner.gid)?;
        formatter.write_str(if self.is_group_writable { " group-writable" } else { "" })
    }
}

/// How files look in an image upon `run_image` that runs as `user`, or as the run image says.
#[must_use]
pub fn file_form(run_image: &RunImage, user: Option<Owner>, files: FileOwner) -> FileForm {
    let base_user = match &run_image.base {
        Base::Scratch(_) => None,
        Base::Image(base) => base.image.configuration.config.user.as_deref(),
    };
    // A name means nothing without the base's files; its files then belong to the usual user.
    let base_owner = || base_user.and_then(numeric_owner).unwrap_or(DEFAULT_OWNER);
    let usual = user.unwrap_or_else(base_owner);
    let owner = Owner { uid: files.uid.unwrap_or(usual.uid), gid: files.gid.unwrap_or(usual.gid) };
    FileForm { owner, is_group_writable: files.is_group_writable }
}

/// Everything `export` needs besides the store.
#[derive(Clone, Copy)]
pub struct ExportRequest<'a> {
    pub built: &'a Built,
    pub run_image: &'a RunImage,
    /// Where the run image was found, for the bytes of its layers.
    pub run_images: Option<&'a dyn Images>,
    /// For the architecture of the run image.
    pub launcher: &'a Launcher,
    pub launcher_mode: LauncherMode,
    /// Whom the image runs as; `None` takes the run image's.
    pub user: Option<Owner>,
    pub files: FileOwner,
    /// The process to start instead of the default one.
    pub process_type: Option<&'a ProcessType>,
    pub exec_env: &'a ExecEnv,
    pub project: &'a ProjectMetadata,
    /// Seconds since 1970 for `created`; `None` is 1980-01-01T00:00:01Z.
    pub created: Option<u64>,
    /// How layers are compressed.
    pub encoding: Encoding,
    /// What the app and each layer may hold.
    pub limits: TreeLimits,
}

/// The image that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// Of the manifest.
    pub digest: Digest,
    /// Of all blobs and documents together.
    pub bytes: u64,
    pub image: Image,
    /// The launch layers of buildpacks, for the next build.
    pub layers: Vec<ExportedLayer>,
    /// What came from sources for it.
    pub artifacts: Artifacts,
    /// Whether the image has a launcher.
    pub has_launcher: bool,
}

impl Exported {
    /// The same with the media types of one family, for a place that has no other.
    #[must_use]
    pub fn in_family(self, family: MediaFamily) -> Self {
        if self.image.family == family {
            return self;
        }
        let image = self.image.in_family(family);
        Self { digest: image.documents().1.digest, bytes: image.bytes(), image, ..self }
    }
}

/// Makes the image: its documents as values, its new layers as blobs in the store.
///
/// A blob of the store that turns out to be damaged is forgotten and made anew,
/// with a warning.
///
/// # Errors
/// [`ExportError`]. After [`ExportError::DamagedLayer`] that layer has to be built again.
pub fn export(
    request: &ExportRequest<'_>,
    store: &dyn BlobStore,
    cancel: &Cancel,
    events: &mut dyn EventSink,
) -> Result<Exported, ExportError> {
    for _ in 0..MAX_REPAIRS {
        match export_once(request, store, cancel, events) {
            Err(ExportError::Layout(damage)) => match damage.damaged_blob() {
                Some(path) if is_ours(request, path) => {
                    let path = path.to_owned();
                    forget_damaged(request, &path, damage.into(), store, events)?;
                }
                _ => return Err(damage.into()),
            },
            result => return result,
        }
    }
    export_once(request, store, cancel, events)
}

/// Forgets a blob of the store that turned out to be damaged, so that the next
/// [`export`] makes it anew, and says so.
///
/// # Errors
/// [`ExportError::DamagedLayer`] for a layer of the last build: that one has to be
/// built again.
pub fn forget_damaged(
    request: &ExportRequest<'_>,
    path: &Path,
    damage: Box<dyn std::error::Error + Send + Sync>,
    store: &dyn BlobStore,
    events: &mut dyn EventSink,
) -> Result<(), ExportError> {
    store.discard(path);
    let message = format!("a stored layer is damaged and made anew: {damage}");
    events.event(Event::Warning { message });
    match stored_layer(request.built, path) {
        Some(layer) => {
            let (buildpack, name) = (layer.buildpack.clone(), layer.name.clone());
            Err(ExportError::DamagedLayer { buildpack, name, cause: damage })
        }
        None => Ok(()),
    }
}

/// Whether a file is none of the run image's: those cannot be made again here.
#[must_use]
pub fn is_ours(request: &ExportRequest<'_>, path: &Path) -> bool {
    match &request.run_image.base {
        Base::Scratch(_) => true,
        Base::Image(base) => base.image.layers.iter().all(|layer| layer.holder() != Some(path)),
    }
}

fn stored_layer<'a>(built: &'a Built, path: &Path) -> Option<&'a BuiltLayer> {
    built
        .layers
        .iter()
        .find(|layer| matches!(&layer.contents, BuiltContents::Stored { blob, .. } if blob.path == path))
}

fn export_once(
    request: &ExportRequest<'_>,
    store: &dyn BlobStore,
    cancel: &Cancel,
    events: &mut dyn EventSink,
) -> Result<Exported, ExportError> {
    let built = request.built;
    let (family, media_type) =
        (family(request.run_image), layer_media_type(request.run_image, request.encoding)?);
    let mut configuration = base_configuration(request.run_image);
    let form = file_form(request.run_image, request.user, request.files);
    let owner = form.owner;
    set_user(request.user, &mut configuration.config);
    let run = configuration.config.clone();

    // Everything that can be refused is, before the first byte is written.
    let layers: Vec<&BuiltLayer> = built.layers.iter().filter(|layer| layer.types.launch).collect();
    let app_listing = list(&built.app, request, cancel, events)?;
    let layer_listings = layers
        .iter()
        .map(|layer| match &layer.contents {
            BuiltContents::Stored { .. } => Ok(None),
            BuiltContents::Fresh(tree) => list(tree, request, cancel, events).map(Some),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let featured: Vec<(&BuiltLayer, LayerFeatures)> = layers
        .iter()
        .zip(&layer_listings)
        .map(|(layer, listing)| (*layer, features(layer, listing.as_ref())))
        .collect();
    let launch_layers = layers.iter().map(|layer| (&layer.buildpack.id, &layer.name)).collect();
    let ground = Ground::normalised(APP_DIRECTORY.to_owned(), owner, Modes::Normal);
    let app = App::new(ground, &app_listing, &built.app_links, &launch_layers)?;
    refuse_reserved_names(&app, &layers, &layer_listings)?;
    let mut app_layers = app.layers(&built.slices)?;
    if form.is_group_writable {
        for entries in &mut app_layers {
            open_to_group(entries);
        }
    }
    let start = start::choose(request, &featured)?;
    let subject = Subject {
        request,
        layers: &featured,
        listings: &layer_listings,
        app_listing: &app_listing,
        app_layers: &app_layers,
        start,
        run: &run,
    };
    let checked = needs::check(subject, store, cancel, events)?;
    start::configure(start, request, &featured, &mut configuration.config)?;

    let encoders = Encoders::new(request.encoding);
    let tools = Tools { store, cancel, encoders: &encoders, media_type: &media_type };
    let metadata_text = config_text(built);
    let mut plans = Plans::default();
    for ((layer, _), listing) in featured.iter().zip(&layer_listings) {
        plans.add(Part::Buildpack, buildpack_plan(layer, listing.as_ref(), form, &media_type));
    }
    if let Some(entries) = contents::sbom_layer(&built.launch_sboms, owner) {
        plans.add(Part::Sbom, plans::sbom(formed(entries, form)));
    }
    for (number, entries) in (1..).zip(&app_layers) {
        let files = Files {
            entries: Entries::Listed(entries.into()),
            tree: Some(&built.app),
            before: Before::Stored,
        };
        plans.add(Part::App, plans::app(number, !built.slices.is_empty(), files));
    }
    if start == Start::Launcher {
        plans.add(Part::Launcher, plans::launcher(small(contents::launcher_layer(request.launcher))));
        plans.add(Part::Config, plans::config(formed(contents::config_layer(&metadata_text, owner), form)));
        let types = built.processes.iter().map(|(_, process)| process.process_type.as_str());
        if let Some(entries) = contents::process_types_layer(types) {
            plans.add(Part::ProcessTypes, plans::process_types(small(entries)));
        }
    }
    let made = plans.make(tools, events)?;

    let exported = exported_layers(&featured, &made);
    checked.keep(&exported, store);
    let mut metadata = LifecycleMetadata {
        exec_env: Some(request.exec_env.to_string()),
        ..labels::lifecycle_metadata(request.run_image)
    };
    metadata.buildpacks = labels::buildpack_records(built, &layers, made.of(Part::Buildpack))?;
    made.record(&mut metadata);
    labels::set_labels(request, start, &metadata, &mut configuration.config.labels)?;
    let base_layers = match &request.run_image.base {
        Base::Scratch(_) => vec![],
        Base::Image(base) => base.image.layers.clone(),
    };
    let base = Foundation { family, configuration, layers: base_layers };
    let image = assemble(base, made.into_layers(), request.created, HistoryLines::Kept);
    Ok(Exported {
        digest: image.documents().1.digest,
        bytes: image.bytes(),
        image,
        layers: exported,
        artifacts: built.artifacts.clone(),
        has_launcher: start == Start::Launcher,
    })
}

fn list(
    tree: &Tree,
    request: &ExportRequest<'_>,
    cancel: &Cancel,
    events: &mut dyn EventSink,
) -> Result<Listing, TreeError> {
    let listing = tree.list(request.limits, cancel)?;
    warn_of_sockets(&listing, events);
    Ok(listing)
}

fn warn_of_sockets(listing: &Listing, events: &mut dyn EventSink) {
    for path in &listing.sockets {
        let path = String::from_utf8_lossy(path).escape_debug().to_string();
        events.event(Event::Warning { message: format!("`{path}` is a socket and not part of the image") });
    }
}

fn features(layer: &BuiltLayer, listing: Option<&Listing>) -> LayerFeatures {
    match &layer.contents {
        BuiltContents::Stored { features, .. } => *features,
        BuiltContents::Fresh(_) => listing.map(features_of).unwrap_or_default(),
    }
}

fn refuse_reserved_names(
    app: &App<'_>,
    layers: &[&BuiltLayer],
    listings: &[Option<Listing>],
) -> Result<(), ExportError> {
    let show = |root: &str, path: &[u8]| format!("{root}/{}", String::from_utf8_lossy(path).escape_debug());
    let mut names: Vec<String> = app
        .paths()
        .filter(|path| contents::is_reserved(path))
        .map(|path| show(APP_DIRECTORY, path))
        .collect();
    for (layer, listing) in layers.iter().zip(listings) {
        let root = contents::layer_directory(&layer.buildpack.id, &layer.name);
        if contents::is_reserved(root.as_bytes()) {
            names.push(root.clone());
        }
        let entries = listing.iter().flat_map(|listing| &listing.entries);
        names.extend(
            entries.filter(|entry| contents::is_reserved(&entry.path)).map(|entry| show(&root, &entry.path)),
        );
    }
    if names.is_empty() { Ok(()) } else { Err(ExportError::ReservedNames { names }) }
}

fn family(run_image: &RunImage) -> MediaFamily {
    match &run_image.base {
        Base::Scratch(_) => MediaFamily::Oci,
        Base::Image(base) => base.image.family,
    }
}

/// What layers are called that are compressed like this in an image upon that one.
///
/// # Errors
/// [`ExportError::Compression`] when its readers might not be able to unpack them.
pub fn layer_media_type(run_image: &RunImage, encoding: Encoding) -> Result<MediaType, ExportError> {
    encoding
        .media_type(family(run_image))
        .ok_or_else(|| ExportError::Compression { encoding, run_image: run_image.name.clone() })
}

/// What the image starts from: the base's configuration, or an empty one.
fn base_configuration(run_image: &RunImage) -> ImageConfiguration {
    match &run_image.base {
        Base::Image(base) => base.image.configuration.clone(),
        Base::Scratch(target) => ImageConfiguration {
            created: None,
            author: None,
            architecture: target.arch.clone(),
            variant: target.variant.clone(),
            os: target.os.clone(),
            os_version: None,
            config: RunConfiguration::default(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![] },
            history: vec![],
            other: BTreeMap::new(),
        },
    }
}

/// An image without a user gets one.
fn set_user(user: Option<Owner>, run: &mut RunConfiguration) {
    let has_user = run.user.as_deref().is_some_and(|user| !user.is_empty());
    if let Some(user) = user.or((!has_user).then_some(DEFAULT_OWNER)) {
        run.user = Some(format!("{}:{}", user.uid, user.gid));
    }
}

fn numeric_owner(user: &str) -> Option<Owner> {
    let (uid, gid) = user.split_once(':').unwrap_or((user, user));
    let (uid, gid): (u32, u32) = (uid.parse().ok()?, gid.parse().ok()?);
    Some(Owner { uid: uid.into(), gid: gid.into() })
}

/// A layer that is made of little, and may well be in the store already.
fn small(entries: Vec<LayerEntry<'_>>) -> Files<'_> {
    Files { entries: Entries::Listed(entries.into()), tree: None, before: Before::Stored }
}

/// The same, for what belongs to the app.
fn formed(mut entries: Vec<LayerEntry<'_>>, form: FileForm) -> Files<'_> {
    if form.is_group_writable {
        open_to_group(&mut entries);
    }
    small(entries)
}

fn buildpack_plan<'a>(
    layer: &'a BuiltLayer,
    listing: Option<&'a Listing>,
    form: FileForm,
    media_type: &MediaType,
) -> LayerPlan<'a> {
    let source = match &layer.contents {
        BuiltContents::Stored { diff_id, blob, .. } => {
            Source::Known(work::stored_layer(media_type, diff_id, blob.clone()))
        }
        BuiltContents::Fresh(tree) => {
            let listing = listing.expect("every fresh layer was listed");
            let ground = contents::buildpack_ground(&layer.buildpack.id, &layer.name, form);
            Source::Files(Files {
                entries: Entries::Tree(ground, listing),
                tree: Some(tree),
                before: Before::New,
            })
        }
    };
    plans::buildpack(&layer.buildpack, &layer.name, source)
}

fn exported_layers(layers: &[(&BuiltLayer, LayerFeatures)], made: &Made) -> Vec<ExportedLayer> {
    let exported = |((built, features), layer): (&(&BuiltLayer, LayerFeatures), &Layer)| {
        let path = layer.file().expect("layers of buildpacks are files of the store").to_owned();
        ExportedLayer {
            buildpack: built.buildpack.id.clone(),
            name: built.name.clone(),
            diff_id: layer.diff_id.clone(),
            blob: StoredBlob { digest: layer.digest.clone(), size: layer.size, path },
            features: *features,
        }
    };
    layers.iter().zip(made.of(Part::Buildpack)).map(exported).collect()
}

/// The text of `metadata.toml`.
fn config_text(built: &Built) -> String {
    let element = |buildpack: &BuiltBuildpack| GroupElement {
        id: buildpack.reference.id.clone(),
        version: buildpack.reference.version.clone(),
        api: buildpack.api,
        homepage: buildpack.homepage.clone(),
    };
    let metadata = BuildMetadata {
        buildpacks: &built.buildpacks.iter().map(element).collect::<Vec<_>>(),
        extensions: &[],
        labels: &built.labels,
        processes: &built.processes,
        slices: &built.slices,
        bom: &built.launch_bom,
    };
    metadata.to_toml(PlatformApi::NEWEST)
}

#[cfg(test)]
mod tests;
