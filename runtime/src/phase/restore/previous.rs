//! What an earlier image still tells when the store knows nothing of it: on a
//! new machine, or after the cache was cleared.
//!
//! The image may come from anywhere. Nothing of it is believed that its own
//! digests do not prove, and whatever cannot be used is left out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::unix::ffi::OsStringExt as _;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::RestoreRequest;
use crate::cnb::env::{Unsuffixed, changes_of_directory};
use crate::cnb::id::{BuildpackId, LayerName, ProcessType};
use crate::cnb::labels::{self, LayerRecord, LifecycleMetadata};
use crate::cnb::launch::Label;
use crate::cnb::layer::{EnvironmentChange, EnvironmentScope, LayerFeatures, LayerTypes};
use crate::event::{Event, EventSink};
use crate::images::FoundImage;
use crate::oci::blob::{BlobStore as _, StoredBlob};
use crate::oci::compression::decompress;
use crate::oci::digest::{DiffId, Hasher, HashingWriter};
use crate::oci::encoder::Encoding;
use crate::oci::image::{BlobFile, BlobPlace, Layer};
use crate::oci::tar_reader::{TarKind, TarReader};
use crate::phase::values::{Outcome, Restored, RestoredBuildpack};
use crate::store::{CachedLayer, ExportedAs};
use crate::tree::TreeLimits;

/// The label with what a later build has to know of layers that it may keep.
pub const LAYERS_LABEL: &str = "io.wapack.layers";

/// Where layers are in an image of ours.
const LAYERS_DIRECTORY: &str = "layers";

/// Largest file of an environment directory that is read, and all of them together.
const MAX_ENVIRONMENT_BYTES: u64 = 1024 * 1024;

/// Of a layer, beside what the specification's label has.
#[derive(Serialize, Deserialize)]
struct LayerKey {
    /// What the buildpack said the contents depend on.
    key: String,
    /// What compressed it.
    encoder: String,
    /// How its files look, unless it is as they usually do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    form: Option<String>,
}

/// How files look unless somebody says otherwise.
const USUAL_FORM: &str = "1000:1000";

/// What a label says of a form.
fn recorded(form: &str) -> Option<String> {
    (form != USUAL_FORM).then(|| form.to_owned())
}

/// By buildpack and layer.
type LayerKeys = BTreeMap<String, BTreeMap<String, LayerKey>>;

/// Puts a label into the image with the keys of the layers that a later build
/// may keep without their contents; none when there are no such layers.
pub fn note_layer_keys(outcome: &mut Outcome, encoding: Encoding, form: &str) {
    let mut keys = LayerKeys::new();
    for (layer, kept) in outcome.built.layers.iter().zip(&outcome.kept) {
        if is_keepable(layer.types) {
            let key = LayerKey { key: kept.cache_key.clone(), encoder: encoding.id(), form: recorded(form) };
            let layers = keys.entry(layer.buildpack.id.to_string()).or_default();
            layers.insert(layer.name.to_string(), key);
        }
    }
    // A buildpack cannot say this of another one's layers.
    outcome.built.labels.retain(|label| label.key != LAYERS_LABEL);
    if !keys.is_empty() {
        let value = serde_json::json!(keys).to_string();
        outcome.built.own_labels.push(Label { key: LAYERS_LABEL.to_owned(), value });
    }
}

/// RST-03, when there is no cache: a layer for the image only.
fn is_keepable(types: LayerTypes) -> bool {
    types.launch && !types.build && !types.cache
}

/// What the previous image says of the buildpacks of the group.
pub(super) fn restore(request: &RestoreRequest<'_>, events: &mut dyn EventSink) -> Restored {
    let mut restored = Restored::default();
    let Some((image, metadata)) = previous_image(request, events) else { return restored };
    let keys: LayerKeys = image
        .image
        .configuration
        .config
        .labels
        .get(LAYERS_LABEL)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    for buildpack in request.group {
        let id = &buildpack.reference.id;
        let Some(record) = metadata.buildpacks.iter().find(|record| record.key == id.as_str()) else {
            continue;
        };
        let mut layers = Vec::new();
        for (name, record) in &record.layers {
            let Ok(name) = name.parse::<LayerName>() else { continue };
            let key = keys.get(id.as_str()).and_then(|keys| keys.get(name.as_str()));
            if let Some(layer) = layer(request, &image, id, &name, record, key, events) {
                events.event(Event::LayerRestored {
                    buildpack: buildpack.reference.clone(),
                    layer: name.to_string(),
                });
                layers.push(layer);
            }
        }
        let store = record.store.as_ref().and_then(|store| labels::toml_of_json(&store.metadata).ok());
        let version = Some(record.version.clone());
        restored.buildpacks.insert(id.clone(), RestoredBuildpack { layers, store, version });
    }
    restored
}

/// Finds the image and reads its label; whatever is wrong with it, there is none.
fn previous_image(
    request: &RestoreRequest<'_>,
    events: &mut dyn EventSink,
) -> Option<(FoundImage, LifecycleMetadata)> {
    let place = request.previous.as_ref()?;
    let mut without = |message: String| {
        let event = if place.is_asked_for { Event::Warning { message } } else { Event::Detail { message } };
        events.event(event);
        None
    };
    let image = match place.images.find(place.name) {
        Ok(Some(image)) => image,
        Ok(None) if !place.is_asked_for => return None,
        Ok(None) => return without(format!("there is no previous image `{}`", place.place)),
        Err(error) => return without(format!("there is no previous image: {error}")),
    };
    let configuration = &image.image.configuration;
    let (os, arch) = (&configuration.os, &configuration.architecture);
    if (os, arch) != (&request.target.os, &request.target.arch) {
        return without(format!("the previous image is for `{os}/{arch}` and is not used"));
    }
    let text = configuration.config.labels.get(labels::LIFECYCLE_METADATA);
    let metadata: LifecycleMetadata = match text.map(|text| serde_json::from_str(text)) {
        Some(Ok(metadata)) => metadata,
        Some(Err(error)) => {
            return without(format!(
                "the label of the previous image cannot be read and is not used: {error}"
            ));
        }
        None => return without("the previous image was not made by buildpacks and is not used".to_owned()),
    };
    // EXE-04
    if metadata.exec_env.as_ref().is_some_and(|environment| environment != request.exec_env.as_str()) {
        return without("the previous image is for another execution environment and is not used".to_owned());
    }
    Some((image, metadata))
}

/// One layer of the previous image: always what the buildpack said of it, and
/// its blob where the image proves what it is.
fn layer(
    request: &RestoreRequest<'_>,
    image: &FoundImage,
    buildpack: &BuildpackId,
    name: &LayerName,
    record: &LayerRecord,
    key: Option<&LayerKey>,
    events: &mut dyn EventSink,
) -> Option<CachedLayer> {
    let types = LayerTypes { launch: record.launch, build: record.build, cache: record.cache };
    if !is_keepable(types) {
        return None;
    }
    let mut cached = CachedLayer {
        name: name.clone(),
        types,
        cache_key: String::new(),
        metadata: labels::toml_of_json(&record.data).unwrap_or_default(),
        environment: Vec::new(),
        sboms: Vec::new(),
        artifacts: None,
        exported: None,
        tree: None,
    };
    let stored = image.image.layers.iter().find(|layer| layer.diff_id.to_string() == record.sha);
    let (Some(key), Some(stored)) = (key, stored) else { return Some(cached) };
    cached.cache_key.clone_from(&key.key);
    // Bytes of another encoder, or files of another owner, would make this image differ from one made anew.
    let encoder = request.encoding.id();
    if key.encoder != encoder || key.form != recorded(request.form) {
        return Some(cached);
    }
    match take_over(request, stored, buildpack, name, events) {
        Ok(taken) => {
            let exported = ExportedAs { diff_id: stored.diff_id.clone(), encoder, features: taken.features };
            cached.environment = taken.environment;
            cached.exported = Some((exported, taken.blob));
        }
        Err(error) => events.event(Event::Detail {
            message: format!("layer `{name}` of the previous image cannot be kept: {error}"),
        }),
    }
    Some(cached)
}

/// A layer of the image that is in the store now.
struct TakenOver {
    blob: StoredBlob,
    environment: Vec<EnvironmentChange>,
    features: LayerFeatures,
}

/// Copies a layer's blob into the store, verifies its digest and its diffID, and
/// reads what has to be known of its contents.
fn take_over(
    request: &RestoreRequest<'_>,
    layer: &Layer,
    buildpack: &BuildpackId,
    name: &LayerName,
    events: &mut dyn EventSink,
) -> io::Result<TakenOver> {
    let mut brought = [layer.clone()];
    if !layer.is_here()
        && let Some(place) = &request.previous
    {
        place.images.fetch(&mut brought, request.store, request.cancel, events).map_err(io::Error::other)?;
    }
    let source = open_blob(&brought[0])?;
    let copy = request.store.create()?;
    let mut hashed = HashingWriter::new(copy.file());
    copy_all(&mut source.take(layer.size), &mut hashed, request)?;
    let (digest, size, _) = hashed.finish();
    if digest != layer.digest || size != layer.size {
        return Err(wrong("its blob is not what its digest says"));
    }
    let mut file = copy.file();
    file.rewind()?;
    let limit = TreeLimits::default().bytes.saturating_mul(2);
    let mut contents =
        Reading { inner: decompress(file.try_clone()?)?.take(limit), hasher: Hasher::default(), request };
    let root = format!("{LAYERS_DIRECTORY}/{}/{name}/", buildpack.directory_name());
    let (environment, features) = look_into(&mut contents, &root)?;
    io::copy(&mut contents, &mut io::sink())?;
    if DiffId(contents.hasher.finish()) != layer.diff_id {
        return Err(wrong("its contents are not what the configuration says"));
    }
    let blob = request.store.commit(copy, &layer.diff_id, &request.encoding.id(), &digest, size)?;
    Ok(TakenOver { blob, environment, features })
}

/// Opens a blob that somebody else may have put there: no link, and no pipe that waits.
pub(super) fn open_blob(layer: &Layer) -> io::Result<BlobFile> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let holder = layer.holder().ok_or(io::ErrorKind::NotFound)?;
    let file = File::from(rustix::fs::open(holder, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    let start = match layer.blob {
        BlobPlace::Part { start, .. } => start,
        _ if metadata.len() == layer.size => 0,
        _ => return Err(wrong("its blob is not what the manifest says")),
    };
    if !metadata.is_file() {
        return Err(wrong("its blob is not what the manifest says"));
    }
    Ok(BlobFile::part(file, start, layer.size))
}

pub(super) fn wrong(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

pub(super) fn copy_all(
    from: &mut impl Read,
    to: &mut impl io::Write,
    request: &RestoreRequest<'_>,
) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        request.cancel.check().map_err(io::Error::other)?;
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => to.write_all(&buffer[..read])?,
        }
    }
}

/// Hashes what is read.
struct Reading<'a, R> {
    inner: R,
    hasher: Hasher,
    request: &'a RestoreRequest<'a>,
}

impl<R: Read> Read for Reading<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.request.cancel.check().map_err(io::Error::other)?;
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Finds environment files, and the directories that mean something, below `root`.
fn look_into(tar: impl Read, root: &str) -> io::Result<(Vec<EnvironmentChange>, LayerFeatures)> {
    let mut features = LayerFeatures::default();
    let mut directories: BTreeMap<String, BTreeMap<String, OsString>> = BTreeMap::new();
    let mut left = MAX_ENVIRONMENT_BYTES;
    let mut reader = TarReader::new(io::BufReader::new(tar));
    while let Some(entry) = reader.next_entry().map_err(io::Error::other)? {
        let path = String::from_utf8_lossy(&entry.path);
        let Some(path) = path.trim_start_matches('/').strip_prefix(root) else { continue };
        let path = path.trim_end_matches('/').to_owned();
        if entry.kind == TarKind::Directory {
            match path.as_str() {
                "bin" => features.roots.bin = true,
                "lib" => features.roots.lib = true,
                "include" => features.roots.include = true,
                "pkgconfig" => features.roots.pkgconfig = true,
                "exec.d" => features.has_exec_d = true,
                "profile.d" => features.has_profile_d = true,
                _ => {}
            }
            continue;
        }
        let Some((directory, name)) = path.rsplit_once('/') else { continue };
        if scope_of(directory).is_none() || entry.kind != TarKind::File {
            continue;
        }
        left = left.checked_sub(entry.size).ok_or_else(|| wrong("its environment is too large"))?;
        let mut value = Vec::new();
        reader.contents().read_to_end(&mut value)?;
        let value = OsString::from_vec(value);
        directories.entry(directory.to_owned()).or_default().insert(name.to_owned(), value);
    }
    let changes = directories.iter().filter_map(|(directory, files)| {
        Some(changes_of_directory(files, &scope_of(directory)?, Unsuffixed::Override))
    });
    Ok((changes.flatten().collect(), features))
}

fn scope_of(directory: &str) -> Option<EnvironmentScope> {
    match directory {
        "env" => Some(EnvironmentScope::All),
        "env.build" => Some(EnvironmentScope::Build),
        "env.launch" => Some(EnvironmentScope::Launch),
        other => {
            let process: ProcessType = other.strip_prefix("env.launch/")?.parse().ok()?;
            Some(EnvironmentScope::Process(process))
        }
    }
}
