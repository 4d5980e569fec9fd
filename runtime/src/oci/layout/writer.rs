//! Adding an image to a layout, with the directory valid at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use fs_err as fs;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    BLOBS, ENGINE_NAME_ANNOTATION, INDEX_FILE, LAYOUT_DOCUMENT, LAYOUT_FILE, LayoutError,
    REFERENCE_ANNOTATION, blob_path, empty_index, index_bytes, read_document,
};
use crate::oci::blob::Notes;
use crate::oci::digest::{Digest, Hasher};
use crate::oci::image::{Document, Image, ImageConfiguration, Layer, index_document};
use crate::oci::moved::Moved;
use crate::oci::reference::Reference;

/// What a write that was killed leaves behind starts like this.
const TEMPORARY_PREFIX: &str = ".wapack-";
const COPY_BUFFER_BYTES: usize = 256 << 10;
/// How many blobs are copied at a time.
const MAX_COPIES: usize = 4;
/// Seals that are kept of one layout; those of the image at hand always are.
const MAX_SEALS: usize = 2_000;

/// A layout that is being written; nobody else writes to it meanwhile.
#[derive(Debug)]
pub struct ImageLayout {
    directory: PathBuf,
    /// Locked until it is closed.
    handle: OwnedFd,
}

/// Called between pieces of work; answers whether to go on.
pub type KeepGoing<'a> = &'a mut dyn FnMut(u64) -> bool;

/// How an image is put into a layout.
#[derive(Debug, Clone, Copy, Default)]
pub struct Placing<'a> {
    /// Its name there.
    pub reference: &'a str,
    /// Whether its manifest says that name, too.
    pub called: bool,
    /// Whether it is the only image of the layout afterwards.
    pub alone: bool,
    /// Whether layers that come from this very layout stay unread.
    pub unread: bool,
    /// Where layouts may lack blobs that somebody else has; such a blob is left
    /// out here too.
    pub sparse: Option<&'a Path>,
    /// The directory whose blobs need not be copied, as [`linkable`](crate::oci::blob::BlobStore::linkable) says.
    pub linkable: Option<&'a Path>,
}

/// What was put into a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Of the manifest or index.
    pub digest: Digest,
    /// What became of the layers; one that is left out counts for nothing.
    pub moved: Moved,
}

impl Drop for ImageLayout {
    /// Closing alone would leave the lock with a child that is just being
    /// started and has not closed its copy of the descriptor yet.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.handle, FlockOperation::Unlock);
    }
}

impl ImageLayout {
    /// Opens a layout for writing, or makes one in a new or empty directory.
    ///
    /// # Errors
    /// [`LayoutError::Busy`] while another process writes to it;
    /// [`LayoutError::NotALayout`] when the directory holds something else.
    pub fn open(directory: &Path) -> Result<Self, LayoutError> {
        let failed = |cause: io::Error| LayoutError::io(directory, cause);
        fs::create_dir_all(directory).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle =
            rustix::fs::open(directory, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        match rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LayoutError::Busy { directory: directory.to_owned() });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        let layout = Self { directory: directory.to_owned(), handle };
        layout.prepare()?;
        Ok(layout)
    }

    /// Makes the files a layout has to have, and removes what a killed write left.
    fn prepare(&self) -> Result<(), LayoutError> {
        let failed = |cause| self.io(cause);
        let mut is_layout = false;
        let mut is_empty = true;
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name == LAYOUT_FILE {
                is_layout = true;
            } else if name.to_string_lossy().starts_with(TEMPORARY_PREFIX) {
                fs::remove_file(entry.path()).map_err(failed)?;
            } else {
                is_empty = false;
            }
        }
        if is_layout {
            let document = read_document(&self.directory, &self.directory.join(LAYOUT_FILE), LAYOUT_FILE)?;
            let value: Value = serde_json::from_slice(&document)
                .map_err(|error| self.invalid(LAYOUT_FILE, error.to_string()))?;
            if value["imageLayoutVersion"] != "1.0.0" {
                return Err(self.invalid(LAYOUT_FILE, "`imageLayoutVersion` is not `1.0.0`".to_owned()));
            }
        } else if !is_empty {
            return Err(LayoutError::NotALayout { directory: self.directory.clone() });
        }
        if !self.directory.join(BLOBS).is_dir() {
            // `oci-layout` first: a directory left half made is then known as ours.
            if !is_layout {
                self.replace(LAYOUT_FILE, LAYOUT_DOCUMENT)?;
            }
            let blobs = self.directory.join(BLOBS);
            fs::create_dir_all(&blobs).map_err(failed)?;
            self.synchronise(blobs.parent().unwrap_or(&blobs))?;
        }
        if !self.directory.join(INDEX_FILE).exists() {
            self.replace(INDEX_FILE, &index_bytes(&empty_index()))?;
        }
        Ok(())
    }

    /// Puts an image into the layout under a name; other images stay.
    ///
    /// A blob that is there already is taken only if it is known to be right: it
    /// is as it was when its bytes were last seen, says `notes`, or they are read
    /// again. Wrong ones are replaced.
    ///
    /// # Errors
    /// When a blob is not what it should be, or a file cannot be written.
    pub fn write(
        &self,
        image: &Image,
        reference: &str,
        notes: &dyn Notes,
        keep_going: KeepGoing<'_>,
    ) -> Result<Digest, LayoutError> {
        let placing = Placing { reference, ..Placing::default() };
        Ok(self.place(image, &placing, notes, keep_going)?.digest)
    }

    /// Puts an image into the layout as `placing` says.
    ///
    /// # Errors
    /// As [`ImageLayout::write`].
    pub fn place(
        &self,
        image: &Image,
        placing: &Placing<'_>,
        notes: &dyn Notes,
        keep_going: KeepGoing<'_>,
    ) -> Result<Placed, LayoutError> {
        let Added { manifest, moved, changed } = self.add(image, placing, notes, keep_going)?;
        if changed {
            self.synchronise(&self.directory.join(BLOBS))?;
        }
        let named = NamedManifest {
            document: &manifest,
            name: placing.reference,
            platform: Some(&image.configuration),
        };
        self.set_reference(&named, placing.alone)?;
        Ok(Placed { digest: manifest.digest, moved })
    }

    /// Puts images for several systems into the layout under one name, as an index.
    ///
    /// # Errors
    /// As [`ImageLayout::write`].
    pub fn place_index(
        &self,
        images: &[Image],
        placing: &Placing<'_>,
        notes: &dyn Notes,
        keep_going: KeepGoing<'_>,
    ) -> Result<Placed, LayoutError> {
        let (mut changed, mut moved) = (false, Moved::default());
        for image in images {
            let added = self.add(image, placing, notes, keep_going)?;
            changed |= added.changed;
            moved += added.moved;
        }
        let index = index_document(images);
        changed |= self.add_document(&index)?;
        if changed {
            self.synchronise(&self.directory.join(BLOBS))?;
        }
        let named = NamedManifest { document: &index, name: placing.reference, platform: None };
        self.set_reference(&named, placing.alone)?;
        Ok(Placed { digest: index.digest, moved })
    }

    /// Puts the blobs and documents of an image into the layout.
    fn add(
        &self,
        image: &Image,
        placing: &Placing<'_>,
        notes: &dyn Notes,
        keep_going: KeepGoing<'_>,
    ) -> Result<Added, LayoutError> {
        let mut missing: Vec<&Layer> = Vec::new();
        let mut seals = Seals::load(&self.handle, notes);
        let (mut moved, mut seen) = (Moved::default(), BTreeSet::new());
        for layer in image.layers.iter().filter(|layer| seen.insert(&layer.digest)) {
            if placing.unread && is_one_file(layer.file(), &self.blob_path(&layer.digest), layer.size) {
                moved += Moved::present(layer.size);
                continue;
            }
            if placing.sparse.is_some_and(|place| is_left_out(layer.file(), place)) {
                continue;
            }
            if self.has_blob(layer, &mut seals, keep_going)? {
                moved += Moved::present(layer.size);
            } else {
                missing.push(layer);
            }
        }
        self.copy_blobs(&missing, placing.linkable, keep_going)?;
        for layer in &missing {
            seals.remember(&layer.digest, &self.blob_path(&layer.digest));
            moved += Moved::sent(layer.size);
        }
        seals.keep(image, notes);
        let mut changed = !missing.is_empty();
        let (configuration, manifest) =
            if placing.called { image.documents_called(placing.reference) } else { image.documents() };
        changed |= self.add_document(&configuration)?;
        changed |= self.add_document(&manifest)?;
        Ok(Added { manifest, moved, changed })
    }

    /// Whether a layer's blob is in the layout, and right.
    fn has_blob(
        &self,
        layer: &Layer,
        seals: &mut Seals,
        keep_going: KeepGoing<'_>,
    ) -> Result<bool, LayoutError> {
        let path = self.blob_path(&layer.digest);
        let is_there = BlobSeal::of(&path).is_some_and(|seal| seal.size == layer.size);
        if is_there && (seals.is_known(&layer.digest, &path) || self.is_sound(layer, &path, keep_going)?) {
            seals.remember(&layer.digest, &path);
            return Ok(true);
        }
        Ok(false)
    }

    /// Copies blobs into the layout or links them, a few at a time: hashing one fills the time
    /// in which another is written to disk.
    ///
    /// # Errors
    /// Of the first layer that failed, whichever of them was first to fail.
    fn copy_blobs(
        &self,
        layers: &[&Layer],
        linkable: Option<&Path>,
        keep_going: KeepGoing<'_>,
    ) -> Result<(), LayoutError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut failures: Vec<(bool, usize, LayoutError)> = Vec::new();
        std::thread::scope(|scope| {
            let (sender, receiver) = channel();
            for _ in 0..cores.min(MAX_COPIES).min(layers.len()) {
                let (sender, next, stop) = (sender.clone(), &next, &stop);
                scope.spawn(move || {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let Some(layer) = layers.get(place) else { return };
                        let mut copied = |bytes| {
                            // The other end only goes away when nobody sends any more.
                            let _ = sender.send(Ok(bytes));
                            !stop.load(Ordering::Relaxed)
                        };
                        if let Err(error) = self.bring_blob(layer, linkable, &mut copied) {
                            stop.store(true, Ordering::Relaxed);
                            let _ = sender.send(Err((place, error)));
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for message in receiver {
                match message {
                    Ok(bytes) if keep_going(bytes) => {}
                    Ok(_) => stop.store(true, Ordering::Relaxed),
                    // Who was only told to stop says nothing of why.
                    Err((place, error)) => {
                        failures.push((matches!(error, LayoutError::Cancelled { .. }), place, error));
                    }
                }
            }
        });
        match failures.into_iter().min_by_key(|(is_cancelled, place, _)| (*is_cancelled, *place)) {
            Some((_, _, error)) => Err(error),
            // The last one may have been copied before it was told.
            None if stop.into_inner() => Err(LayoutError::Cancelled { directory: self.directory.clone() }),
            None => Ok(()),
        }
    }

    /// Whether a blob that is there has the right bytes.
    fn is_sound(&self, layer: &Layer, path: &Path, keep_going: KeepGoing<'_>) -> Result<bool, LayoutError> {
        let Ok(mut file) = fs::File::open(path) else { return Ok(false) };
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish() == layer.digest),
                Ok(read) => hasher.update(&buffer[..read]),
                Err(_) => return Ok(false),
            }
            if !keep_going(0) {
                return Err(LayoutError::Cancelled { directory: self.directory.clone() });
            }
        }
    }

    fn bring_blob(
        &self,
        layer: &Layer,
        linkable: Option<&Path>,
        keep_going: KeepGoing<'_>,
    ) -> Result<(), LayoutError> {
        let path = self.blob_path(&layer.digest);
        let Some(linked) = linkable.and_then(|place| self.linked(layer, place)) else {
            return self.copy_blob(layer, &path, keep_going);
        };
        linked.persist(&path).map_err(|cause| self.io(cause))?;
        if keep_going(layer.size) {
            Ok(())
        } else {
            Err(LayoutError::Cancelled { directory: self.directory.clone() })
        }
    }

    /// A second name for a blob right in `place`; `None` where that cannot be, as across file systems.
    ///
    /// Never a third: layouts that shared a file would be damaged together.
    fn linked(&self, layer: &Layer, place: &Path) -> Option<Temporary> {
        let blob = layer.file().filter(|file| file.parent() == Some(place))?;
        let file = fs::File::open(blob).ok()?.into_parts().0;
        let path = self.temporary_path(&layer.digest.hex()[..12]);
        fs::hard_link(blob, &path).ok()?;
        let linked = Temporary { file, path: Some(path) };
        let found = linked.file.metadata().ok()?;
        (found.is_file() && found.len() == layer.size && found.nlink() == 2).then_some(linked)
    }

    fn copy_blob(&self, layer: &Layer, path: &Path, keep_going: KeepGoing<'_>) -> Result<(), LayoutError> {
        let mut temporary = self.temporary(&layer.digest.hex()[..12])?;
        let Some(blob) = layer.holder() else {
            return Err(LayoutError::NotHere { digest: layer.digest.clone() });
        };
        let unreadable = |cause| LayoutError::UnreadableBlob { path: blob.to_owned(), cause };
        let mut source = layer.open().map_err(unreadable)?;
        let mut hasher = Hasher::default();
        let mut copied = 0;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            let read = source.read(&mut buffer).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            temporary.file.write_all(&buffer[..read]).map_err(|cause| self.io(cause))?;
            copied += read as u64;
            if copied > layer.size {
                break;
            }
            if !keep_going(read as u64) {
                return Err(LayoutError::Cancelled { directory: self.directory.clone() });
            }
        }
        if copied != layer.size {
            return Err(LayoutError::WrongSize {
                path: blob.to_owned(),
                expected: layer.size,
                actual: layer.file().and_then(|file| file.metadata().ok()).map_or(copied, |file| file.len()),
            });
        }
        let actual = hasher.finish();
        if actual != layer.digest {
            return Err(LayoutError::WrongDigest {
                path: blob.to_owned(),
                expected: layer.digest.clone(),
                actual,
            });
        }
        temporary.persist(path).map_err(|cause| self.io(cause))
    }

    pub(super) fn add_document(&self, document: &Document) -> Result<bool, LayoutError> {
        let path = self.blob_path(&document.digest);
        // Small enough to look whether it is whole.
        if fs::read(&path).is_ok_and(|found| found == document.bytes) {
            return Ok(false);
        }
        let mut temporary = self.temporary(&document.digest.hex()[..12])?;
        temporary.file.write_all(&document.bytes).map_err(|cause| self.io(cause))?;
        temporary.persist(&path).map_err(|cause| self.io(cause))?;
        Ok(true)
    }

    /// Makes the image's name point to a manifest; leaves the index alone when it already does.
    fn set_reference(&self, named: &NamedManifest<'_>, alone: bool) -> Result<(), LayoutError> {
        let reference = named.name;
        let entry = index_entry(named);
        let has_reference = |value: &Value| value["annotations"][REFERENCE_ANNOTATION] == reference;
        self.change_index(alone, |manifests| match manifests.iter().position(has_reference) {
            Some(first) => {
                let mut position = 0;
                manifests.retain(|value| {
                    let keep = position <= first || !has_reference(value);
                    position += 1;
                    keep
                });
                manifests[first] = entry;
            }
            None => manifests.push(entry),
        })
    }

    /// Changes the list in the index, if there is something to change; `anew` starts with none.
    pub(super) fn change_index(
        &self,
        anew: bool,
        change: impl FnOnce(&mut Vec<Value>),
    ) -> Result<(), LayoutError> {
        let old = read_document(&self.directory, &self.directory.join(INDEX_FILE), INDEX_FILE)?;
        // As plain JSON, so that what others wrote stays as it is.
        let mut index: Value = match serde_json::from_slice(&old) {
            Ok(index) => index,
            // There is nothing in it that would stay.
            Err(_) if anew => empty_index(),
            Err(error) => return Err(self.invalid(INDEX_FILE, error.to_string())),
        };
        let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(self.invalid(INDEX_FILE, "it has no list `manifests`".to_owned()));
        };
        if anew {
            manifests.clear();
        }
        change(manifests);
        let new = index_bytes(&index);
        if new == old { Ok(()) } else { self.replace(INDEX_FILE, &new) }
    }

    /// Makes sure that blobs are on the disk before something names them.
    pub(super) fn synchronise_blobs(&self) -> Result<(), LayoutError> {
        self.synchronise(&self.directory.join(BLOBS))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file at the top of the layout in one step.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), LayoutError> {
        let mut temporary = self.temporary(name)?;
        temporary.file.write_all(bytes).map_err(|cause| self.io(cause))?;
        temporary.persist(&self.directory.join(name)).map_err(|cause| self.io(cause))?;
        rustix::fs::fsync(&self.handle).map_err(|errno| self.io(errno.into()))
    }

    /// A new file at the top of the layout, so that `blobs` only ever holds blobs.
    fn temporary(&self, name: &str) -> Result<Temporary, LayoutError> {
        let path = self.temporary_path(name);
        let file = fs::File::create(&path).map_err(|cause| self.io(cause))?;
        Ok(Temporary { file: file.into_parts().0, path: Some(path) })
    }

    fn temporary_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{TEMPORARY_PREFIX}{}-{name}", std::process::id()))
    }

    fn synchronise(&self, directory: &Path) -> Result<(), LayoutError> {
        fs::File::open(directory).and_then(|file| file.sync_all()).map_err(|cause| self.io(cause))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path(&self.directory, digest)
    }

    fn io(&self, cause: io::Error) -> LayoutError {
        LayoutError::io(&self.directory, cause)
    }

    fn invalid(&self, name: &str, reason: String) -> LayoutError {
        LayoutError::Invalid { directory: self.directory.clone(), name: name.to_owned(), reason }
    }
}

/// An image whose blobs are in a layout.
struct Added {
    manifest: Document,
    moved: Moved,
    /// Whether anything was not there yet.
    changed: bool,
}

/// A manifest or an index with its name in a layout.
#[derive(Debug, Clone, Copy)]
pub struct NamedManifest<'a> {
    pub document: &'a Document,
    pub name: &'a str,
    /// What it is for; an index is for several.
    pub platform: Option<&'a ImageConfiguration>,
}

/// The files of a layout that are not blobs, and where the blobs are.
#[derive(Debug)]
pub struct LayoutFiles {
    /// Names with contents.
    pub documents: [(&'static str, Vec<u8>); 2],
    /// The directory of the blobs, whose names are their digests in hex.
    pub blobs: &'static str,
}

/// What a layout with these names has beside its blobs.
#[must_use]
pub fn layout_files(named: &[NamedManifest<'_>]) -> LayoutFiles {
    let mut index = empty_index();
    index["manifests"] = named.iter().map(index_entry).collect();
    let documents = [(LAYOUT_FILE, LAYOUT_DOCUMENT.to_vec()), (INDEX_FILE, index_bytes(&index))];
    LayoutFiles { documents, blobs: BLOBS }
}

/// What the index of a layout says of a manifest.
fn index_entry(named: &NamedManifest<'_>) -> Value {
    let NamedManifest { document, name, platform } = named;
    let mut entry = json!({
        "mediaType": document.media_type.to_string(),
        "digest": document.digest.as_str(),
        "size": document.bytes.len(),
        "annotations": { REFERENCE_ANNOTATION: name },
    });
    if let Some(name) = engine_name(name) {
        entry["annotations"][ENGINE_NAME_ANNOTATION] = name.into();
    }
    if let Some(configuration) = platform {
        let mut platform = json!({ "architecture": configuration.architecture, "os": configuration.os });
        if let Some(variant) = configuration.variant.as_deref().filter(|variant| !variant.is_empty()) {
            platform["variant"] = variant.into();
        }
        entry["platform"] = platform;
    }
    entry
}

/// What engines call an image; `None` for a name without a tag, which is one of the layout only.
fn engine_name(name: &str) -> Option<String> {
    let last = name.rsplit('/').next().filter(|last| last.contains(':') && !last.contains('@'));
    last.and_then(|_| name.parse::<Reference>().ok()).map(|reference| reference.in_engines())
}

/// Whether a blob is at its place already, being the file that it would be copied from.
fn is_one_file(blob: Option<&Path>, place: &Path, size: u64) -> bool {
    let status = |path: &Path| fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file);
    match (blob.and_then(status), status(place)) {
        (Some(blob), Some(place)) => {
            blob.dev() == place.dev() && blob.ino() == place.ino() && place.len() == size
        }
        _ => false,
    }
}

/// Whether a blob of a layout below `place` is missing.
fn is_left_out(blob: Option<&Path>, place: &Path) -> bool {
    let is_missing =
        |blob: &Path| fs::symlink_metadata(blob).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    blob.is_some_and(|blob| blob.starts_with(place) && is_missing(blob))
}

/// A file under a temporary name, removed unless it gets its own.
#[derive(Debug)]
struct Temporary {
    file: File,
    path: Option<PathBuf>,
}

impl Temporary {
    fn persist(mut self, to: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        let path = self.path.take().expect("it is taken here only");
        fs::rename(&path, to).inspect_err(|_| self.path = Some(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Nothing to do about it; the next write removes it.
            let _ = fs::remove_file(path);
        }
    }
}

/// What was seen of a blob when its bytes were known to be right. Nobody can set
/// a change time back, so equal seals mean equal bytes without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct BlobSeal {
    size: u64,
    inode: u64,
    changed: (i64, i64),
}

impl BlobSeal {
    /// `None` when there is no regular file.
    fn of(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self { size: found.len(), inode: found.ino(), changed: (found.ctime(), found.ctime_nsec()) })
    }
}

/// The seals of one layout's blobs.
struct Seals {
    /// Under which they are kept.
    name: String,
    known: BTreeMap<String, BlobSeal>,
    changed: bool,
}

impl Seals {
    fn load(directory: &OwnedFd, notes: &dyn Notes) -> Self {
        // By what the directory is: its path may lead elsewhere tomorrow.
        let name = rustix::fs::fstat(directory)
            .map_or_else(|_| String::new(), |stat| format!("layout {} {}", stat.st_dev, stat.st_ino));
        let known = notes.note(&name).and_then(|text| serde_json::from_str(&text).ok());
        Self { name, known: known.unwrap_or_default(), changed: false }
    }

    fn is_known(&self, digest: &Digest, path: &Path) -> bool {
        let known = self.known.get(digest.as_str());
        known.is_some_and(|known| BlobSeal::of(path).as_ref() == Some(known))
    }

    fn remember(&mut self, digest: &Digest, path: &Path) {
        if let Some(seal) = BlobSeal::of(path) {
            self.changed |= self.known.insert(digest.as_str().to_owned(), seal) != Some(seal);
        }
    }

    fn keep(mut self, image: &Image, notes: &dyn Notes) {
        if !self.changed {
            return;
        }
        if self.known.len() > MAX_SEALS {
            self.known.retain(|digest, _| image.layers.iter().any(|layer| layer.digest.as_str() == digest));
        }
        if let Ok(text) = serde_json::to_string(&self.known) {
            notes.keep_note(&self.name, &text);
        }
    }
}
