//! The last phase: from what was built and a run image to an image in a layout.
//!
//! Knows the order and the names of everything in an image (layers, labels,
//! environment); how a layer becomes bytes and a layout stays valid is `oci`'s.
//! Nothing here depends on time, user, locale, order of directories or cores.

mod contents;
mod error;
mod labels;
mod needs;
mod start;
mod work;

pub use self::error::ExportError;
pub use self::needs::{MissingLibrary, Origin, Problem, Unmet};

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use self::contents::App;
use self::needs::Subject;
use self::start::Start;
use self::work::{Finished, Work};
use crate::cancel::Cancel;
use crate::cnb::id::{ExecEnv, ProcessType};
use crate::cnb::labels::{LayerSha, LifecycleMetadata, ProjectMetadata};
use crate::cnb::launch::{LaunchBuildpack, metadata_toml};
use crate::cnb::layer::LayerFeatures;
use crate::cnb::target::Target;
use crate::event::{Event, EventSink, LayerSource};
use crate::oci::blob::BlobStore;
use crate::oci::digest::Digest;
use crate::oci::image::{
    History, Image, ImageConfiguration, MediaFamily, RootFs, RunConfiguration, timestamp,
};
use crate::oci::layer::{MODIFIED_SECONDS, Owner};
use crate::oci::layout::{ImageLayout, LayoutError, LayoutImage};
use crate::phase::values::{Built, BuiltContents, BuiltLayer, ExportedLayer, features_of};
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
/// How long another process may write to the same layout.
const LAYOUT_PATIENCE: Duration = Duration::from_mins(1);

/// How many damaged blobs one export replaces.
const MAX_REPAIRS: usize = 8;

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
    /// Those of an image in a layout.
    Layout(Box<LayoutImage>),
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

/// Everything `export` needs besides the store.
#[derive(Debug, Clone, Copy)]
pub struct ExportRequest<'a> {
    pub built: &'a Built,
    pub run_image: &'a RunImage,
    /// For the architecture of the run image.
    pub launcher: &'a Launcher,
    pub launcher_mode: LauncherMode,
    /// Owner of files and user of the image; `None` takes the run image's.
    pub user: Option<Owner>,
    /// The process to start instead of the default one.
    pub process_type: Option<&'a ProcessType>,
    pub exec_env: &'a ExecEnv,
    pub project: &'a ProjectMetadata,
    /// Seconds since 1970 for `created`; `None` is 1980-01-01T00:00:01Z.
    pub created: Option<u64>,
    /// What the app and each layer may hold.
    pub limits: TreeLimits,
    /// Directory of the image layout.
    pub output: &'a Path,
    /// The image's name in the layout.
    pub reference: &'a str,
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
    /// Whether the image has a launcher.
    pub has_launcher: bool,
}

/// Makes the image and writes it into a layout.
///
/// A blob of the store that turns out to be damaged is forgotten and made anew,
/// with a warning.
///
/// # Errors
/// [`ExportError`]; the layout is as it was before. After
/// [`ExportError::DamagedLayer`] that layer has to be built again.
pub fn export(
    request: &ExportRequest<'_>,
    store: &dyn BlobStore,
    cancel: &Cancel,
    events: &mut dyn EventSink,
) -> Result<Exported, ExportError> {
    // Each round forgets one blob; an image has at most a few that we can make again.
    for _ in 0..MAX_REPAIRS {
        let damage = match export_once(request, store, cancel, events) {
            Err(ExportError::Layout(damage)) => damage,
            result => return result,
        };
        match damage.damaged_blob() {
            Some(path) if !is_of_base(request.run_image, path) => {
                store.discard(path);
                let message = format!("a stored layer is damaged and made anew: {damage}");
                events.event(Event::Warning { message });
                if let Some(layer) = stored_layer(request.built, path) {
                    let (buildpack, name) = (layer.buildpack.clone(), layer.name.clone());
                    return Err(ExportError::DamagedLayer { buildpack, name, cause: Box::new(damage) });
                }
            }
            _ => return Err(damage.into()),
        }
    }
    export_once(request, store, cancel, events)
}

fn is_of_base(run_image: &RunImage, path: &Path) -> bool {
    match &run_image.base {
        Base::Scratch(_) => false,
        Base::Layout(base) => base.image.layers.iter().any(|layer| layer.blob == path),
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
    let mut configuration = base_configuration(request.run_image);
    let owner = owner(request, &mut configuration.config);
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
    let app = App::new(&app_listing, &built.app_links, &launch_layers)?;
    refuse_reserved_names(&app, &layers, &layer_listings)?;
    let app_layers = app.layers(&built.slices, owner)?;
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

    let total_bytes =
        app_listing.bytes + layer_listings.iter().flatten().map(|listing| listing.bytes).sum::<u64>();
    let mut work = Work {
        store,
        cancel,
        events,
        done_bytes: 0,
        reported_bytes: 0,
        total_bytes,
        family: family(request.run_image),
        finished: Vec::new(),
    };

    let mut metadata = LifecycleMetadata {
        exec_env: Some(request.exec_env.to_string()),
        ..labels::lifecycle_metadata(request.run_image)
    };
    let exported = buildpack_layers(&mut work, &featured, &layer_listings, owner)?;
    checked.keep(&exported, store);
    metadata.buildpacks = labels::buildpack_records(built, &layers, &exported)?;

    if let Some(entries) = contents::sbom_layer(&built.launch_sboms, owner) {
        let diff_id = work.small_layer("sbom", "Software Bill-of-Materials", &entries, None)?;
        metadata.sbom = Some(LayerSha { sha: diff_id.to_string() });
    }
    let reader = built.app.reader()?;
    for (number, entries) in (1..).zip(&app_layers) {
        let (name, history) = if built.slices.is_empty() {
            ("app".to_owned(), "Application Layer".to_owned())
        } else {
            (format!("app slice {number}"), format!("Application Slice: {number}"))
        };
        let diff_id = work.small_layer(&name, &history, entries, Some(&reader))?;
        metadata.app.push(LayerSha { sha: diff_id.to_string() });
    }
    if start == Start::Launcher {
        launcher_layers(&mut work, request, owner, &mut metadata)?;
    }

    let finished = work.finished;
    labels::set_labels(request, start, &metadata, &mut configuration.config.labels)?;
    let image = assemble(request, configuration, finished);
    let digest = write(&image, request.output, request.reference, store, cancel)?;
    Ok(Exported {
        digest,
        bytes: image.bytes(),
        image,
        layers: exported,
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
    for path in &listing.sockets {
        let path = String::from_utf8_lossy(path).escape_debug().to_string();
        events.event(Event::Warning { message: format!("`{path}` is a socket and not part of the image") });
    }
    Ok(listing)
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
        Base::Layout(base) => base.image.family,
    }
}

/// What the image starts from: the base's configuration, or an empty one.
fn base_configuration(run_image: &RunImage) -> ImageConfiguration {
    match &run_image.base {
        Base::Layout(base) => base.image.configuration.clone(),
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

/// Who owns the files; an image without a user gets one.
fn owner(request: &ExportRequest<'_>, run: &mut RunConfiguration) -> Owner {
    let base_user = run.user.as_deref().filter(|user| !user.is_empty());
    match (request.user, base_user) {
        (Some(owner), _) => {
            run.user = Some(format!("{}:{}", owner.uid, owner.gid));
            owner
        }
        // A name means nothing without the base's files; its files then belong to the usual user.
        (None, Some(user)) => numeric_owner(user).unwrap_or(DEFAULT_OWNER),
        (None, None) => {
            run.user = Some(format!("{}:{}", DEFAULT_OWNER.uid, DEFAULT_OWNER.gid));
            DEFAULT_OWNER
        }
    }
}

fn numeric_owner(user: &str) -> Option<Owner> {
    let (uid, gid) = user.split_once(':').unwrap_or((user, user));
    let (uid, gid): (u32, u32) = (uid.parse().ok()?, gid.parse().ok()?);
    Some(Owner { uid: uid.into(), gid: gid.into() })
}

fn buildpack_layers(
    work: &mut Work<'_>,
    layers: &[(&BuiltLayer, LayerFeatures)],
    listings: &[Option<Listing>],
    owner: Owner,
) -> Result<Vec<ExportedLayer>, ExportError> {
    let mut exported = Vec::with_capacity(layers.len());
    for ((layer, features), listing) in layers.iter().zip(listings) {
        let (buildpack, name) = (&layer.buildpack, &layer.name);
        let title = format!("{}:{name}", buildpack.id);
        let history = format!("Layer: '{name}', Created by buildpack: {buildpack}");
        let (diff_id, blob, source) = match (&layer.contents, listing) {
            (BuiltContents::Stored { diff_id, blob, .. }, _) => {
                (diff_id.clone(), blob.clone(), LayerSource::Reused)
            }
            (BuiltContents::Fresh(tree), listing) => {
                let listing = listing.as_ref().expect("every fresh layer was listed");
                let entries = contents::buildpack_layer(&buildpack.id, name, listing, owner);
                let (diff_id, blob) = work.new_blob(&title, &entries, Some(&tree.reader()?))?;
                (diff_id, blob, LayerSource::Added)
            }
        };
        work.finish(&title, history, &diff_id, &blob, source);
        exported.push(ExportedLayer {
            buildpack: buildpack.id.clone(),
            name: name.clone(),
            diff_id,
            blob,
            features: *features,
        });
    }
    Ok(exported)
}

fn launcher_layers(
    work: &mut Work<'_>,
    request: &ExportRequest<'_>,
    owner: Owner,
    metadata: &mut LifecycleMetadata,
) -> Result<(), ExportError> {
    let built = request.built;
    let entries = contents::launcher_layer(request.launcher);
    let diff_id = work.small_layer("launcher", "Buildpacks Application Launcher", &entries, None)?;
    metadata.launcher = Some(LayerSha { sha: diff_id.to_string() });

    let buildpacks: Vec<LaunchBuildpack> = built
        .buildpacks
        .iter()
        .map(|buildpack| LaunchBuildpack {
            reference: buildpack.reference.clone(),
            api: buildpack.api.clone(),
            homepage: buildpack.homepage.clone(),
        })
        .collect();
    let text = metadata_toml(&buildpacks, &built.labels, &built.processes, &built.slices);
    let entries = contents::config_layer(&text, owner);
    let diff_id = work.small_layer("launcher config", "Buildpacks Launcher Config", &entries, None)?;
    metadata.config = Some(LayerSha { sha: diff_id.to_string() });

    if let Some(entries) = contents::process_types_layer(&built.processes) {
        let diff_id = work.small_layer("process types", "Buildpacks Process Types", &entries, None)?;
        metadata.process_types = LayerSha { sha: diff_id.to_string() };
    }
    Ok(())
}

/// Puts base and new layers together (IMG-06, IMG-07).
fn assemble(
    request: &ExportRequest<'_>,
    mut configuration: ImageConfiguration,
    finished: Vec<Finished>,
) -> Image {
    let created = timestamp(request.created.unwrap_or(MODIFIED_SECONDS));
    let mut layers = match &request.run_image.base {
        Base::Scratch(_) => vec![],
        Base::Layout(base) => base.image.layers.clone(),
    };
    configuration.history.retain(|entry| !entry.empty_layer);
    if configuration.history.len() != layers.len() {
        configuration.history = vec![History::default(); layers.len()];
    }
    for Finished { layer, created_by } in finished {
        configuration.rootfs.diff_ids.push(layer.diff_id.clone());
        configuration.history.push(History { created_by: Some(created_by), ..History::default() });
        layers.push(layer);
    }
    for entry in &mut configuration.history {
        entry.created = Some(created.clone());
    }
    configuration.created = Some(created);
    for gone in ["docker_version", "container"] {
        configuration.other.remove(gone);
    }
    Image { family: family(request.run_image), configuration, layers }
}

/// Gives an image in a layout one more name.
///
/// # Errors
/// [`ExportError`]; the names it has stay.
pub fn add_name(
    exported: &Exported,
    output: &Path,
    reference: &str,
    store: &dyn BlobStore,
    cancel: &Cancel,
) -> Result<(), ExportError> {
    write(&exported.image, output, reference, store, cancel).map(drop)
}

fn write(
    image: &Image,
    output: &Path,
    reference: &str,
    store: &dyn BlobStore,
    cancel: &Cancel,
) -> Result<Digest, ExportError> {
    let started = Instant::now();
    let layout = loop {
        match ImageLayout::open(output) {
            Err(LayoutError::Busy { .. }) if started.elapsed() < LAYOUT_PATIENCE => {
                cancel.check()?;
                std::thread::sleep(Duration::from_millis(50));
            }
            result => break result?,
        }
    };
    Ok(layout.write(image, reference, store, &mut |_| !cancel.is_cancelled())?)
}

#[cfg(test)]
mod tests;
