//! The files of the image that is about to be, without making it.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::io::BufReader;

use super::super::contents::{Content, LayerEntry, layer_directory};
use super::super::{APP_DIRECTORY, Base, ExportError};
use super::Subject;
use super::problem::{Origin, Unmet};
use crate::cancel::Cancel;
use crate::event::EventSink;
use crate::images::{Images, ImagesError};
use crate::oci::blob::{BlobStore, StoredBlob};
use crate::oci::digest::Digest;
use crate::oci::elf::Elf;
use crate::oci::files::{Contents, FileIndex, LayerBlob, Node, ScanError, Step, follow};
use crate::oci::image::Layer;
use crate::phase::values::{BuiltContents, ExportedLayer};
use crate::tree::{Entry, TreeReader};

/// Why the look at a process ended.
pub(super) enum Stop {
    /// It cannot start.
    Unmet(Box<Unmet>),
    /// The base has to be looked into, and its layers are not on this machine.
    Elsewhere,
    /// The base cannot be looked into, for this reason.
    Blind(String),
    Failed(Box<ExportError>),
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Blob(error) => Self::Failed(Box::new(error.into())),
            ScanError::Cancelled(cancelled) => Self::Failed(Box::new(cancelled.into())),
            ScanError::Unsupported { .. } => Self::Blind(error.to_string()),
        }
    }
}

/// Everything that will be in the image but the launcher: the base, and above it
/// the app and the layers, each in a directory of its own.
pub(super) struct ImageFiles<'a> {
    parts: Vec<Part<'a>>,
    base: Cow<'a, [Layer]>,
    base_index: OnceCell<FileIndex>,
    store: &'a dyn BlobStore,
    cancel: &'a Cancel,
}

/// The app or a layer.
struct Part<'a> {
    /// Its directory, without the leading slash.
    root: String,
    origin: Origin,
    source: Source<'a>,
    /// Made when it is first looked into.
    index: RefCell<Option<FileIndex>>,
}

enum Source<'a> {
    /// Files are read from where they are now.
    Fresh { entries: BTreeMap<&'a str, &'a Entry>, reader: TreeReader<'a> },
    /// A layer as the last build left it.
    Stored(&'a StoredBlob),
}

impl<'a> ImageFiles<'a> {
    pub(super) fn new(
        subject: &Subject<'a>,
        store: &'a dyn BlobStore,
        cancel: &'a Cancel,
    ) -> Result<Self, ExportError> {
        let request = subject.request;
        let mut parts = Vec::new();
        for ((layer, _), listing) in subject.layers.iter().zip(subject.listings) {
            let root = layer_directory(&layer.buildpack.id, &layer.name);
            let origin = Origin::Layer { buildpack: layer.buildpack.clone(), name: layer.name.clone() };
            let part = match (&layer.contents, listing) {
                (BuiltContents::Stored { blob, .. }, _) => Part {
                    root: relative(&root),
                    origin,
                    source: Source::Stored(blob),
                    index: RefCell::default(),
                },
                (BuiltContents::Fresh(tree), listing) => {
                    let entries = listing.iter().flat_map(|listing| &listing.entries);
                    let nodes = entries.map(|entry| (entry.path.as_slice(), Found::Tree(entry)));
                    Part::fresh(&root, origin, tree.reader()?, nodes)
                }
            };
            parts.push(part);
        }
        let app = subject.app_layers.iter().flatten().filter_map(|entry| {
            let path = entry.name.strip_prefix(APP_DIRECTORY.as_bytes())?.strip_prefix(b"/")?;
            Some((path, Found::of(entry)))
        });
        parts.push(Part::fresh(APP_DIRECTORY, Origin::App, request.built.app.reader()?, app));
        let base = match &request.run_image.base {
            Base::Scratch(_) => &[][..],
            Base::Image(base) => base.image.layers.as_slice(),
        };
        Ok(Self { parts, base: base.into(), base_index: OnceCell::new(), store, cancel })
    }

    /// An image that is only a base.
    #[cfg(test)]
    pub(super) fn of_base(index: FileIndex, store: &'a dyn BlobStore, cancel: &'a Cancel) -> Self {
        Self { parts: vec![], base: Cow::default(), base_index: OnceCell::from(index), store, cancel }
    }

    /// Where a path leads, as a clean path without a leading slash; `None` when there is nothing.
    pub(super) fn follow(&self, path: &str) -> Result<Option<String>, Stop> {
        follow(path, |path| self.step(path))
    }

    /// What is at a clean path that [`ImageFiles::follow`] gave: whether it can be executed and what it is.
    pub(super) fn file(&self, path: &str) -> Result<Option<(bool, Contents)>, Stop> {
        let file = |node: Option<&Node>| match node {
            Some(Node::File { executable, contents }) => Some((*executable, contents.clone())),
            _ => None,
        };
        for part in self.parts.iter().filter(|part| is_at_or_below(path, &part.root)) {
            if let Some(found) = part.with(self, |index| file(index.get(path)))? {
                return match found {
                    (executable, Contents::Unread) => Ok(Some((executable, part.read(self, path)?))),
                    found => Ok(Some(found)),
                };
            }
        }
        Ok(file(self.base()?.get(path)))
    }

    /// The program or library that a path leads to, with its clean path.
    pub(super) fn elf(&self, path: &str) -> Result<Option<(String, Option<Elf>)>, Stop> {
        let Some(path) = self.follow(path)? else { return Ok(None) };
        Ok(match self.file(&path)? {
            Some((_, Contents::Elf(elf))) => Some((path, Some(*elf))),
            // Too large to be looked into; the loader would.
            Some((_, Contents::Unread)) => Some((path, None)),
            _ => None,
        })
    }

    /// Whose file a clean path is.
    pub(super) fn origin(&self, path: &str) -> Origin {
        let part = self.parts.iter().find(|part| is_at_or_below(path, &part.root));
        part.map_or(Origin::RunImage, |part| part.origin.clone())
    }

    /// Keeps what the new layers hold, by the digest of their blobs.
    pub(super) fn keep(&self, exported: &[ExportedLayer], store: &dyn BlobStore) {
        for part in &self.parts {
            let (Origin::Layer { buildpack, name }, Source::Fresh { .. }) = (&part.origin, &part.source)
            else {
                continue;
            };
            let blob = exported.iter().find(|layer| layer.buildpack == buildpack.id && layer.name == *name);
            if let (Some(layer), Some(index)) = (blob, &*part.index.borrow()) {
                keep_index(store, &[&layer.blob.digest], index);
            }
        }
    }

    fn step(&self, path: &str) -> Result<Option<Step>, Stop> {
        for part in &self.parts {
            // What is above a part is a directory, whatever the base has there.
            if part.root == path || is_at_or_below(&part.root, path) {
                return Ok(Some(Step::Directory));
            }
            if is_at_or_below(path, &part.root)
                && let Some(step) = part.with(self, |index| index.get(path).map(Step::from))?
            {
                return Ok(Some(step));
            }
        }
        Ok(self.base()?.get(path).map(Step::from))
    }

    fn base(&self) -> Result<&FileIndex, Stop> {
        if let Some(index) = self.base_index.get() {
            return Ok(index);
        }
        let digests: Vec<&Digest> = self.base.iter().map(|layer| &layer.digest).collect();
        let index = match self.known(&digests) {
            Some(index) => index,
            None => self.scanned_base()?,
        };
        Ok(self.base_index.get_or_init(|| index))
    }

    /// Brings the layers of the base here, from where they were found.
    pub(super) fn bring_base(
        &mut self,
        run_images: Option<&dyn Images>,
        events: &mut dyn EventSink,
    ) -> Result<(), Stop> {
        let layers = self.base.to_mut();
        if let Some(images) = run_images {
            let blind = |error: ImagesError| Stop::Blind(with_causes(&error));
            images.fetch(layers, self.store, self.cancel, events).map_err(blind)?;
        }
        if layers.iter().all(|layer| LayerBlob::of(layer).is_some()) {
            Ok(())
        } else {
            Err(Stop::Blind("the run image is not on this machine".to_owned()))
        }
    }

    /// Reads the layers of the base.
    fn scanned_base(&self) -> Result<FileIndex, Stop> {
        let blobs = self.base.iter().map(|layer| LayerBlob::of(layer).ok_or(Stop::Elsewhere));
        let blobs = blobs.collect::<Result<Vec<_>, Stop>>()?;
        self.scanned(blobs.into_iter())
    }

    fn known(&self, digests: &[&Digest]) -> Option<FileIndex> {
        self.store.note(&index_name(digests)).and_then(|text| serde_json::from_str(&text).ok())
    }

    /// What layers hold: as it was kept, or read now.
    fn indexed<'b>(&self, blobs: impl Iterator<Item = LayerBlob<'b>> + Clone) -> Result<FileIndex, Stop> {
        let digests: Vec<&Digest> = blobs.clone().map(|blob| blob.digest).collect();
        match self.known(&digests) {
            Some(index) => Ok(index),
            None => self.scanned(blobs),
        }
    }

    fn scanned<'b>(&self, blobs: impl Iterator<Item = LayerBlob<'b>> + Clone) -> Result<FileIndex, Stop> {
        let index = FileIndex::scan(blobs.clone(), self.cancel)?;
        if !index.is_empty() {
            let digests: Vec<&Digest> = blobs.map(|blob| blob.digest).collect();
            keep_index(self.store, &digests, &index);
        }
        Ok(index)
    }
}

/// Something of a part, before it has a path in the image.
enum Found<'a> {
    Tree(&'a Entry),
    Made(Node),
}

impl<'a> Found<'a> {
    fn of(entry: &LayerEntry<'a>) -> Self {
        match &entry.content {
            Content::File { entry, .. } => Self::Tree(entry),
            Content::Directory => Self::Made(Node::Directory),
            Content::Symlink(target) => Self::Made(Node::Link(String::from_utf8_lossy(target).into_owned())),
            Content::Bytes(_) | Content::Special(_) => {
                Self::Made(Node::File { executable: false, contents: Contents::Other })
            }
        }
    }
}

impl<'a> Part<'a> {
    fn fresh(
        root: &str,
        origin: Origin,
        reader: TreeReader<'a>,
        found: impl Iterator<Item = (&'a [u8], Found<'a>)>,
    ) -> Self {
        let root = relative(root);
        let mut index = FileIndex::default();
        let mut entries = BTreeMap::new();
        index.insert(&root, Node::Directory);
        for (path, found) in found {
            let Ok(path) = std::str::from_utf8(path) else { continue };
            let node = match found {
                Found::Made(node) => node,
                Found::Tree(entry) => {
                    entries.insert(path, entry);
                    node_of(entry)
                }
            };
            index.insert(&format!("{root}/{path}"), node);
        }
        let source = Source::Fresh { entries, reader };
        Self { root, origin, source, index: RefCell::new(Some(index)) }
    }

    fn with<T>(&self, files: &ImageFiles<'_>, ask: impl FnOnce(&FileIndex) -> T) -> Result<T, Stop> {
        if self.index.borrow().is_none()
            && let Source::Stored(blob) = self.source
        {
            let index = files.indexed(std::iter::once(layer_blob(blob)))?;
            *self.index.borrow_mut() = Some(index);
        }
        Ok(ask(self.index.borrow().as_ref().unwrap_or(&FileIndex::default())))
    }

    /// Looks into a file that nobody has looked into yet.
    fn read(&self, files: &ImageFiles<'_>, path: &str) -> Result<Contents, Stop> {
        let contents = match &self.source {
            Source::Fresh { entries, reader } => {
                let inside = path.strip_prefix(&self.root).and_then(|path| path.strip_prefix('/'));
                let Some(entry) = inside.and_then(|path| entries.get(path)) else {
                    return Ok(Contents::Other);
                };
                let file = reader.open(entry)?;
                let contents = Contents::read(BufReader::with_capacity(4096, &file));
                let contents = contents.map_err(|cause| file.unreadable(cause))?;
                file.check_unchanged()?;
                contents
            }
            // When it was new nobody asked for this file.
            Source::Stored(blob) => {
                let index = files.scanned(std::iter::once(layer_blob(blob)))?;
                let found = match index.get(path) {
                    Some(Node::File { contents, .. }) => contents.clone(),
                    _ => Contents::Other,
                };
                *self.index.borrow_mut() = Some(index);
                return Ok(found);
            }
        };
        if let Some(index) = self.index.borrow_mut().as_mut()
            && let Some(Node::File { executable, .. }) = index.get(path)
        {
            let executable = *executable;
            index.insert(path, Node::File { executable, contents: contents.clone() });
        }
        Ok(contents)
    }
}

fn node_of(entry: &Entry) -> Node {
    use crate::tree::EntryKind;
    match &entry.kind {
        EntryKind::Directory => Node::Directory,
        EntryKind::Symlink { target } => Node::Link(String::from_utf8_lossy(target).into_owned()),
        EntryKind::File { execute, .. } => {
            Node::File { executable: *execute != 0, contents: Contents::Unread }
        }
        EntryKind::Special(_) => Node::File { executable: false, contents: Contents::Other },
    }
}

fn layer_blob(blob: &StoredBlob) -> LayerBlob<'_> {
    LayerBlob { path: &blob.path, start: 0, digest: &blob.digest, size: blob.size }
}

/// An error with what caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn relative(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

fn is_at_or_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn index_name(digests: &[&Digest]) -> String {
    let digests: Vec<&str> = digests.iter().map(|digest| digest.as_str()).collect();
    format!("files {} {}", super::RULES, digests.join(" "))
}

fn keep_index(store: &dyn BlobStore, digests: &[&Digest], index: &FileIndex) {
    if let Ok(text) = serde_json::to_string(index) {
        store.keep_note(&index_name(digests), &text);
    }
}
