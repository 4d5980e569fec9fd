//! Layers become bytes: tar, digests and compression, from trees into the store.
//!
//! Several layers are made at a time, two for each core; which of them is ready first
//! changes nothing but the time.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use oci_spec::image::MediaType;

use super::ExportError;
use super::contents::{Content, Ground, LayerEntry, tree_layer};
use super::directory_tar::outline_of;
use crate::cancel::{Cancel, Cancelled};
use crate::event::{Event, EventSink, LayerSource};
use crate::oci::blob::{BlobStore, StoredBlob};
use crate::oci::digest::{DiffId, HashingWriter};
use crate::oci::encoder::Encoders;
use crate::oci::image::Layer;
use crate::oci::layer::LayerWriter;
use crate::tree::{Listing, Tree, TreeError, TreeFile, TreeReader};

/// How much is read between two reports of progress.
const PROGRESS_BYTES: u64 = 4 << 20;
/// How many layers are made at a time; each holds a few mebibytes.
const MAX_AT_A_TIME: usize = 8;

/// A layer that is to be in the image.
pub(super) struct LayerPlan<'a> {
    /// For messages.
    pub name: String,
    /// Its line of history.
    pub created_by: String,
    pub source: Source<'a>,
}

/// Where the bytes of a layer come from.
pub(super) enum Source<'a> {
    /// They are known; nothing is read.
    Known(Layer),
    Files(Files<'a>),
}

/// A layer to be made of files.
pub(super) struct Files<'a> {
    pub entries: Entries<'a>,
    /// What files among the entries are read from.
    pub tree: Option<&'a Tree>,
    pub before: Before,
}

/// The entries of a layer.
pub(super) enum Entries<'a> {
    Listed(Cow<'a, [LayerEntry<'a>]>),
    /// Put together when the layer is made.
    Tree(Ground<'a>, &'a Listing),
}

/// Where the same layer may be already, compressed.
pub(super) enum Before {
    /// Nowhere: it is compressed while it is read for the first time.
    New,
    /// In the store. A layer of files of which it never had one with the same names and
    /// sizes is not looked for, but compressed while it is read for the first time.
    Stored,
    /// In an image: one of these.
    Image(Vec<Layer>),
}

/// A layer that is done, with its line of history.
pub(super) struct Finished {
    pub layer: Layer,
    pub created_by: String,
}

/// What making layers needs.
#[derive(Clone, Copy)]
pub(super) struct Tools<'a> {
    pub store: &'a dyn BlobStore,
    pub cancel: &'a Cancel,
    pub encoders: &'a Encoders,
    /// Of layers that these encoders made.
    pub media_type: &'a MediaType,
}

/// What a thread tells.
enum Message {
    Read(u64),
    Done(usize, Result<(Layer, LayerSource), ExportError>),
}

/// Makes the layers; they come back in the order of the plans.
///
/// # Errors
/// Of the first plan that fails, whichever of them failed first.
pub(super) fn make_layers(
    plans: Vec<LayerPlan<'_>>,
    tools: Tools<'_>,
    events: &mut dyn EventSink,
) -> Result<Vec<Finished>, ExportError> {
    let total_bytes = plans.iter().map(LayerPlan::bytes).sum();
    // The longest first, so that none is left alone at the end.
    let mut order: Vec<usize> = (0..plans.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(plans[index].bytes()));
    let queue = Queue { order, next: AtomicUsize::new(0), failed: AtomicUsize::new(usize::MAX) };
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    // With one for each core, the last would often be left alone with what one core can read and hash.
    let threads = (2 * cores).min(MAX_AT_A_TIME).min(plans.len());

    let mut results: Vec<Option<(Layer, LayerSource)>> = Vec::new();
    results.resize_with(plans.len(), || None);
    let mut failure: Option<(usize, ExportError)> = None;
    std::thread::scope(|scope| {
        let (sender, receiver) = channel();
        for _ in 0..threads {
            let (sender, plans, queue) = (sender.clone(), &plans, &queue);
            scope.spawn(move || queue.work(plans, tools, &sender));
        }
        drop(sender);
        let mut progress = Progress { done: 0, reported: 0, total: total_bytes };
        let mut told = 0;
        for message in receiver {
            match message {
                Message::Read(bytes) => progress.add(bytes, events),
                Message::Done(index, Ok(made)) => results[index] = Some(made),
                Message::Done(index, Err(error)) => {
                    if failure.as_ref().is_none_or(|(first, _)| index < *first) {
                        failure = Some((index, error));
                    }
                }
            }
            while let Some(Some((layer, source))) = results.get(told) {
                events.event(Event::LayerExported {
                    name: plans[told].name.clone(),
                    source: *source,
                    bytes: layer.size,
                    digest: layer.digest.to_string(),
                });
                told += 1;
            }
        }
    });
    if let Some((_, error)) = failure {
        return Err(error);
    }
    let made = results.into_iter().map(|made| made.expect("without a failure every layer is made").0);
    Ok(made.zip(plans).map(|(layer, plan)| Finished { layer, created_by: plan.created_by }).collect())
}

/// Bytes read, and how many of them were told.
struct Progress {
    done: u64,
    reported: u64,
    total: u64,
}

impl Progress {
    fn add(&mut self, bytes: u64, events: &mut dyn EventSink) {
        self.done += bytes;
        if self.done >= self.reported + PROGRESS_BYTES {
            self.reported = self.done;
            events.event(Event::Progress { done_bytes: self.done, total_bytes: Some(self.total) });
        }
    }
}

impl LayerPlan<'_> {
    /// Of the files to be read.
    fn bytes(&self) -> u64 {
        match &self.source {
            Source::Known(_) => 0,
            Source::Files(files) => match &files.entries {
                Entries::Tree(_, listing) => listing.bytes,
                Entries::Listed(entries) => entries
                    .iter()
                    .map(|entry| if let Content::File { size, .. } = entry.content { size } else { 0 })
                    .sum(),
            },
        }
    }
}

/// Which layers are still to be made.
struct Queue {
    order: Vec<usize>,
    next: AtomicUsize,
    /// The first plan that is known to fail: those after it need not be made.
    failed: AtomicUsize,
}

impl Queue {
    fn work(&self, plans: &[LayerPlan<'_>], tools: Tools<'_>, sender: &Sender<Message>) {
        while let Some(&index) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.is_vain(index) {
                continue;
            }
            let mut work = Work { tools, queue: self, index, sender, untold: 0, counts: true };
            let result = work.make(&plans[index]);
            if result.is_err() {
                self.failed.fetch_min(index, Ordering::Relaxed);
            }
            // The other end only goes away with the build.
            let _ = sender.send(Message::Read(work.untold));
            let _ = sender.send(Message::Done(index, result));
        }
    }

    fn is_vain(&self, index: usize) -> bool {
        self.failed.load(Ordering::Relaxed) < index
    }
}

/// The making of one layer.
struct Work<'a> {
    tools: Tools<'a>,
    queue: &'a Queue,
    index: usize,
    sender: &'a Sender<Message>,
    /// Bytes that were read since progress was last told.
    untold: u64,
    /// Whether what is read is progress; not when it is read again.
    counts: bool,
}

impl Work<'_> {
    fn make(&mut self, plan: &LayerPlan<'_>) -> Result<(Layer, LayerSource), ExportError> {
        let files = match &plan.source {
            Source::Known(layer) => return Ok((layer.clone(), LayerSource::Reused)),
            Source::Files(files) => files,
        };
        let entries = match &files.entries {
            Entries::Listed(entries) => Cow::Borrowed(entries.as_ref()),
            Entries::Tree(ground, listing) => Cow::Owned(tree_layer(ground, listing)),
        };
        let reader = files.tree.map(Tree::reader).transpose()?;
        let tar = Tar { name: &plan.name, entries: &entries, reader: reader.as_ref() };
        let outline = match &files.before {
            Before::Stored if tar.reader.is_some() => Some(self.outline_note(&tar)?),
            _ => None,
        };
        let is_known = |outline| self.tools.store.note(outline).is_some();
        if matches!(files.before, Before::New) || outline.as_deref().is_some_and(|outline| !is_known(outline))
        {
            let layer = self.new_layer(&tar)?;
            if let Some(outline) = outline {
                self.tools.store.keep_note(&outline, layer.diff_id.0.as_str());
            }
            return Ok((layer, LayerSource::Added));
        }
        let diff_id = DiffId(self.write_tar(&tar, HashingWriter::new(io::sink()))?.finish().0);
        let known = match &files.before {
            Before::New => None,
            Before::Stored => {
                self.tools.store.find(&diff_id, &self.encoder()).map(|blob| self.layer(&diff_id, blob))
            }
            Before::Image(layers) => layers.iter().find(|layer| layer.diff_id == diff_id).cloned(),
        };
        if let Some(layer) = known {
            return Ok((layer, LayerSource::Reused));
        }
        self.counts = false;
        let layer = self.new_layer(&tar)?;
        if layer.diff_id != diff_id {
            let cause = io::Error::other("its files changed between two reads");
            return Err(tar.failed(cause));
        }
        Ok((layer, LayerSource::Added))
    }

    /// Tar, digest, compression, digest, file: in one pass.
    fn new_layer(&mut self, tar: &Tar<'_>) -> Result<Layer, ExportError> {
        let store = self.tools.store;
        let failed = |cause| tar.failed(cause);
        let blob = store.create().map_err(failed)?;
        let encoded = self.tools.encoders.writer(HashingWriter::new(blob.file()));
        let (diff_id, _, encoded) = self.write_tar(tar, HashingWriter::new(encoded))?.finish();
        let (digest, size, _) = encoded.finish().map_err(failed)?.finish();
        let diff_id = DiffId(diff_id);
        let blob = store.commit(blob, &diff_id, &self.encoder(), &digest, size).map_err(failed)?;
        Ok(self.layer(&diff_id, blob))
    }

    fn layer(&self, diff_id: &DiffId, blob: StoredBlob) -> Layer {
        stored_layer(self.tools.media_type, diff_id, blob)
    }

    /// The name of the note that says that the store has had a layer with these headers.
    fn outline_note(&self, tar: &Tar<'_>) -> Result<String, ExportError> {
        let outline = outline_of(tar.entries).map_err(|cause| tar.failed(cause))?;
        Ok(format!("outline of a layer by {}: {outline}", self.encoder()))
    }

    fn encoder(&self) -> String {
        self.tools.encoders.encoding().id()
    }

    fn write_tar<W: Write>(&mut self, tar: &Tar<'_>, writer: W) -> Result<W, ExportError> {
        write_entries(tar, writer, &mut |bytes| self.count(bytes))
    }

    /// To be called for everything that is read.
    fn count(&mut self, bytes: u64) -> Result<(), Cancelled> {
        if self.counts {
            self.untold += bytes;
            if self.untold >= PROGRESS_BYTES {
                let _ = self.sender.send(Message::Read(std::mem::take(&mut self.untold)));
            }
        }
        self.check()
    }

    /// Whether to go on: nobody cancelled, and no layer before this one failed.
    fn check(&self) -> Result<(), Cancelled> {
        if self.queue.is_vain(self.index) { Err(Cancelled) } else { self.tools.cancel.check() }
    }
}

/// Whether to go on, after so many bytes more were read.
type Count<'a> = &'a mut dyn FnMut(u64) -> Result<(), Cancelled>;

/// Writes the tar of one layer.
fn write_entries<W: Write>(tar: &Tar<'_>, writer: W, count: Count<'_>) -> Result<W, ExportError> {
    let failed = |cause| tar.failed(cause);
    let mut writer = LayerWriter::new(writer);
    for LayerEntry { name, mode, owner, content } in tar.entries {
        count(0)?;
        match content {
            Content::Directory => writer.directory(name, *mode, *owner).map_err(failed)?,
            Content::Symlink(target) => writer.symlink(name, target, *mode, *owner).map_err(failed)?,
            Content::Special(special) => writer.special(name, *special, *mode, *owner).map_err(failed)?,
            Content::Bytes(bytes) => {
                writer.file(name, *mode, *owner, bytes.len() as u64, *bytes).map_err(failed)?;
            }
            Content::File { entry, size } => {
                let reader = tar.reader.expect("layers with files have a tree");
                let mut file = Watched { file: reader.open(entry)?, count: &mut *count, failure: None };
                let result = writer.file(name, *mode, *owner, *size, &mut file);
                file.finish(result, failed)?;
            }
        }
    }
    writer.finish().map_err(failed)
}

/// Writes the tar of one tree; its digest.
pub(super) fn write_tree<W: Write>(
    ground: &Ground<'_>,
    tree: &Tree,
    listing: &Listing,
    cancel: &Cancel,
    writer: W,
) -> Result<(DiffId, W), ExportError> {
    let entries = tree_layer(ground, listing);
    let tar = Tar { name: &ground.root, entries: &entries, reader: Some(&tree.reader()?) };
    let (digest, _, writer) =
        write_entries(&tar, HashingWriter::new(writer), &mut |_| cancel.check())?.finish();
    Ok((DiffId(digest), writer))
}

/// A blob of the store as a layer of an image.
pub(super) fn stored_layer(media_type: &MediaType, diff_id: &DiffId, blob: StoredBlob) -> Layer {
    Layer {
        media_type: media_type.clone(),
        digest: blob.digest,
        size: blob.size,
        diff_id: diff_id.clone(),
        blob: blob.path.into(),
    }
}

/// What a layer's tar is written from.
struct Tar<'a> {
    name: &'a str,
    entries: &'a [LayerEntry<'a>],
    reader: Option<&'a TreeReader<'a>>,
}

impl Tar<'_> {
    fn failed(&self, cause: io::Error) -> ExportError {
        ExportError::Store { layer: self.name.to_owned(), cause }
    }
}

/// A file that is read with an eye on cancelling and progress.
struct Watched<'a> {
    file: TreeFile,
    count: Count<'a>,
    /// Why reading failed: what the tar writer then returns is only an echo.
    failure: Option<ExportError>,
}

impl Watched<'_> {
    /// Tells failures of reading from those of writing.
    fn finish(
        self,
        result: io::Result<()>,
        failed_to_write: impl FnOnce(io::Error) -> ExportError,
    ) -> Result<(), ExportError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        match result {
            Ok(()) => Ok(self.file.check_unchanged()?),
            Err(cause)
                if matches!(cause.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
            {
                Err(TreeError::Changed { path: self.file.path().to_owned() }.into())
            }
            Err(cause) => Err(failed_to_write(cause)),
        }
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match (&self.file).read(buffer) {
            Ok(read) => read,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => return Err(cause),
            Err(cause) => {
                let kind = cause.kind();
                self.failure = Some(TreeError::Read { path: self.file.path().to_owned(), cause }.into());
                return Err(kind.into());
            }
        };
        if let Err(cancelled) = (self.count)(read as u64) {
            self.failure = Some(cancelled.into());
            return Err(io::Error::other(cancelled));
        }
        Ok(read)
    }
}
