//! What a cache image has for the buildpacks of this build, where the store knows nothing of
//! the app's image: on a new machine.
//!
//! Whoever may write the cache image decides what is in layers, as with every cache; so it is
//! named by the user and never found. Beyond that nothing of it is believed: layers are what
//! manifest and configuration say by their digests, they are unpacked where nothing leads
//! out, and whatever is wrong with one of them, it is left out. None of its bytes get into an
//! image or into the store's blobs: an image gets what is made of the unpacked files (T1).

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Seek as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::previous::{copy_all, open_blob, wrong};
use super::{CacheImage, RestoreRequest};
use crate::cancel::Cancel;
use crate::cnb::cache_metadata::{CACHE_METADATA, CacheMetadata};
use crate::cnb::id::{BuildpackId, LayerName};
use crate::cnb::sbom::Sbom;
use crate::event::{Event, EventSink};
use crate::images::FoundImage;
use crate::oci::blob::{BlobStore as _, NewBlob};
use crate::oci::compression::decompress;
use crate::oci::digest::{DiffId, HashingWriter};
use crate::oci::image::Layer;
use crate::oci::tar_reader::{TarKind, TarReader};
use crate::oci::unpack::{Place, unpack};
use crate::oci::verify::VerifyingReader;
use crate::phase::values::{CACHE_LABEL, CacheLabel, CachedBuildpack, CachedRecord, cached_sbom_path};
use crate::store::{BuildpackRecords, ImageRecords, LayerRecord, TreeSource, WorkDir};
use crate::text::harmless;
use crate::tree::TreeLimits;
use crate::walk;

const LAYERS_DIRECTORY: &str = "/layers";
/// Of all bills of materials together.
const MAX_SBOM_BYTES: u64 = 64 << 20;

/// What was found, for the store to keep.
#[derive(Debug)]
pub struct Imported {
    pub records: ImageRecords,
    /// Where the contents are until then.
    work: WorkDir,
}

impl Imported {
    /// How many layers it has.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.records.buildpacks.values().map(|buildpack| buildpack.layers.len()).sum()
    }

    /// The records, and what has to stay until they are kept.
    #[must_use]
    pub fn into_parts(self) -> (ImageRecords, WorkDir) {
        (self.records, self.work)
    }
}

/// Takes over the layers of the buildpacks that take part; `None` when there are none. Of
/// others no byte is fetched.
pub fn import(
    request: &RestoreRequest<'_>,
    place: &CacheImage<'_>,
    events: &mut dyn EventSink,
) -> Option<Imported> {
    let (found, label) = cache_image(request, place, events)?;
    let work = match request.store.work_dir() {
        Ok(work) => work,
        Err(error) => {
            warn(events, place, &error);
            return None;
        }
    };
    let image = Source { request, place, found: &found, work: work.path() };
    image.fetch(&label, events);
    let mut sboms = None;
    let mut records = ImageRecords::default();
    for buildpack in request.group {
        let id = &buildpack.reference.id;
        let Some(CachedBuildpack { version, store, layers }) = label.buildpacks.get(id) else { continue };
        let mut kept = Vec::new();
        for (name, record) in layers {
            let result = image
                .sboms_of(id, name, record, &mut sboms, events)
                .and_then(|sboms| image.take_over(id, name, record, sboms, events));
            match result {
                Ok(layer) => kept.push(layer),
                // Half a cache would be all that the next build looks at.
                Err(_) if request.cancel.is_cancelled() => return None,
                Err(error) => {
                    let message = format!("layer `{id}:{name}` of the cache image is not used: {error}");
                    events.event(Event::Warning { message });
                }
            }
        }
        let (version, store_toml) = (version.clone(), store.clone());
        records.buildpacks.insert(id.clone(), BuildpackRecords { version, store_toml, layers: kept });
    }
    Some(Imported { records, work }).filter(|imported| imported.layers() > 0)
}

/// Finds the image and reads its label; whatever is wrong with it, there is none.
fn cache_image(
    request: &RestoreRequest<'_>,
    place: &CacheImage<'_>,
    events: &mut dyn EventSink,
) -> Option<(FoundImage, CacheLabel)> {
    let shown = harmless(place.place);
    let found = match place.images.find(place.name) {
        Ok(Some(found)) => found,
        Ok(None) => {
            events.event(Event::Note { message: format!("there is no cache image `{shown}` yet") });
            return None;
        }
        Err(error) => {
            warn(events, place, &error);
            return None;
        }
    };
    let configuration = &found.image.configuration;
    let (os, arch) = (&configuration.os, &configuration.architecture);
    let is_variant = |text: &&String| !text.is_empty();
    let variant = configuration.variant.as_ref().filter(is_variant);
    let wanted = request.target.variant.as_ref().filter(is_variant);
    if (os, arch, variant) != (&request.target.os, &request.target.arch, wanted) {
        let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
        let system = harmless(&format!("{os}/{arch}{variant}"));
        let message = format!("the cache image `{shown}` is for `{system}` and is not used");
        events.event(Event::Warning { message });
        return None;
    }
    let label = configuration.config.labels.get(CACHE_LABEL);
    let Some(label) = label.and_then(|text| CacheLabel::parse(text)) else {
        let message = format!("`{shown}` is no cache image of this program and is not used");
        events.event(Event::Warning { message });
        return None;
    };
    Some((found, label))
}

fn warn(events: &mut dyn EventSink, place: &CacheImage<'_>, error: &dyn std::error::Error) {
    let (place, error) = (harmless(place.place), with_causes(error));
    let message = format!("the cache image `{place}` is not used: {error}");
    events.event(Event::Warning { message });
}

/// Bills of materials by path.
type Sboms = BTreeMap<String, Vec<u8>>;

/// A cache image that is read.
struct Source<'a> {
    request: &'a RestoreRequest<'a>,
    place: &'a CacheImage<'a>,
    found: &'a FoundImage,
    /// Where layers are unpacked.
    work: &'a Path,
}

impl Source<'_> {
    /// Fetches what is wanted together. What does not come is asked for once more, alone, and
    /// then it is said why.
    fn fetch(&self, label: &CacheLabel, events: &mut dyn EventSink) {
        let request = self.request;
        let buildpacks = request.group.iter().filter_map(|one| label.buildpacks.get(&one.reference.id));
        let records: Vec<&CachedRecord> = buildpacks.flat_map(|left| left.layers.values()).collect();
        let layers = self.found.image.layers.iter();
        let is_wanted = |layer: &&Layer| records.iter().any(|record| record.diff_id == layer.diff_id);
        let mut wanted: Vec<Layer> = layers.filter(is_wanted).cloned().collect();
        let _ = self.place.images.fetch(&mut wanted, request.store, request.cancel, events);
    }

    /// Brings a layer's blob here and verifies it.
    fn blob(&self, diff_id: &DiffId, events: &mut dyn EventSink) -> io::Result<(Layer, NewBlob)> {
        let request = self.request;
        let layer = self.found.image.layers.iter().find(|layer| layer.diff_id == *diff_id);
        let mut brought = [layer.ok_or_else(|| wrong("the image does not have it"))?.clone()];
        let fetched = self.place.images.fetch(&mut brought, request.store, request.cancel, events);
        fetched.map_err(|error| io::Error::other(with_causes(&error)))?;
        let [layer] = brought;
        let copy = request.store.create()?;
        let mut hashed = HashingWriter::new(copy.file());
        copy_all(&mut open_blob(&layer)?.take(layer.size), &mut hashed, request)?;
        let (digest, size, _) = hashed.finish();
        if digest != layer.digest || size != layer.size {
            return Err(wrong("its blob is not what its digest says"));
        }
        copy.file().rewind()?;
        Ok((layer, copy))
    }

    /// Unpacks a layer.
    fn take_over(
        &self,
        buildpack: &BuildpackId,
        name: &LayerName,
        record: &CachedRecord,
        sboms: Vec<Sbom>,
        events: &mut dyn EventSink,
    ) -> io::Result<LayerRecord> {
        if !record.types.cache {
            return Err(wrong("it is not one that is cached"));
        }
        let (_, blob) = self.blob(&record.diff_id, events)?;
        let below = format!("{}/{name}", buildpack.directory_name());
        let path = self.work.join(&below);
        if let Err(error) = self.unpack(&below, &record.diff_id, blob.file().try_clone()?) {
            // What is left of it is in the way of nothing.
            let _ = walk::remove(&path);
            return Err(error);
        }
        Ok(LayerRecord {
            name: name.clone(),
            types: record.types,
            cache_key: record.key.clone(),
            metadata: record.metadata.clone(),
            environment: record.environment.clone(),
            sboms,
            artifacts: record.artifacts.clone(),
            exported: None,
            tree: TreeSource::Move(path),
        })
    }

    fn unpack(&self, below: &str, diff_id: &DiffId, blob: std::fs::File) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(self.work, flags, Mode::empty())?;
        let limit = TreeLimits::default().bytes.saturating_mul(2);
        let blob = UntilCancelled { inner: decompress(blob)?.take(limit), cancel: self.request.cancel };
        let tar = VerifyingReader::new(blob, diff_id.0.clone());
        let place = Place { root: root.as_fd(), name: LAYERS_DIRECTORY.as_bytes(), below: below.as_bytes() };
        unpack(BufReader::with_capacity(256 << 10, tar), place)
            .map_err(|error| io::Error::other(with_causes(&error)))?;
        let is_directory = self.work.join(below).symlink_metadata().is_ok_and(|found| found.is_dir());
        if is_directory { Ok(()) } else { Err(wrong("it has no contents")) }
    }

    /// The bills of materials of a layer, all of them.
    fn sboms_of(
        &self,
        buildpack: &BuildpackId,
        name: &LayerName,
        record: &CachedRecord,
        read: &mut Option<Sboms>,
        events: &mut dyn EventSink,
    ) -> io::Result<Vec<Sbom>> {
        let mut sboms = Vec::new();
        for format in &record.sboms {
            let all = match read {
                Some(all) => all,
                None => read.insert(self.read_sboms(events)?),
            };
            let path = cached_sbom_path(buildpack, name, *format);
            let content = all.get(&path).ok_or_else(|| wrong("its bill of materials is missing"))?.clone();
            sboms.push(Sbom { format: *format, content });
        }
        Ok(sboms)
    }

    /// The layer with all of them, which the label of the specification names.
    fn read_sboms(&self, events: &mut dyn EventSink) -> io::Result<Sboms> {
        let label = self.found.image.configuration.config.labels.get(CACHE_METADATA);
        let metadata = label.map(|text| CacheMetadata::parse(text.as_bytes())).unwrap_or_default();
        let diff_id: DiffId =
            metadata.sbom.sha.parse().map_err(|_| wrong("its bill of materials is missing"))?;
        let (_, blob) = self.blob(&diff_id, events)?;
        let limited = decompress(blob.file().try_clone()?)?.take(MAX_SBOM_BYTES);
        let mut reader = TarReader::new(BufReader::new(VerifyingReader::new(limited, diff_id.0)));
        let mut sboms = Sboms::new();
        while let Some(entry) = reader.next_entry().map_err(|error| io::Error::other(with_causes(&error)))? {
            if entry.kind == TarKind::File {
                let mut content = Vec::new();
                reader.contents().read_to_end(&mut content)?;
                let path = String::from_utf8_lossy(&entry.path).into_owned();
                sboms.insert(format!("/{}", path.trim_start_matches('/')), content);
            }
        }
        Ok(sboms)
    }
}

/// Ends with an error when somebody wants to stop (K9).
struct UntilCancelled<'a, R> {
    inner: R,
    cancel: &'a Cancel,
}

impl<R: Read> Read for UntilCancelled<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        self.inner.read(buffer)
    }
}

/// An error with its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    harmless(&text)
}
