//! Layers become bytes: tar, digests and gzip, from trees into the store.

use std::io::{self, Read, Write};

use super::ExportError;
use super::contents::{Content, LayerEntry};
use crate::cancel::Cancel;
use crate::event::{Event, EventSink, LayerSource};
use crate::oci::blob::{BlobStore, StoredBlob};
use crate::oci::digest::{DiffId, HashingWriter};
use crate::oci::gzip::{ENCODER, GzipWriter};
use crate::oci::image::{Layer, MediaFamily};
use crate::oci::layer::LayerWriter;
use crate::tree::{Entry, TreeError, TreeFile, TreeReader};

/// How much is read between two reports of progress.
const PROGRESS_BYTES: u64 = 4 << 20;

/// A layer that is done, with its line of history.
pub(super) struct Finished {
    pub layer: Layer,
    pub created_by: String,
}

/// What making layers needs, and the layers made so far.
pub(super) struct Work<'a> {
    pub store: &'a dyn BlobStore,
    pub cancel: &'a Cancel,
    pub events: &'a mut dyn EventSink,
    pub done_bytes: u64,
    pub reported_bytes: u64,
    pub total_bytes: u64,
    pub family: MediaFamily,
    pub finished: Vec<Finished>,
}

impl Work<'_> {
    /// Adds a layer whose tar is hashed first: compressed only if the store does not know it.
    pub(super) fn small_layer(
        &mut self,
        name: &str,
        history: &str,
        entries: &[LayerEntry<'_>],
        reader: Option<&TreeReader<'_>>,
    ) -> Result<DiffId, ExportError> {
        let before = self.done_bytes;
        let writer = self.write_tar(name, entries, reader, HashingWriter::new(io::sink()))?;
        let diff_id = DiffId(writer.finish().0);
        let (blob, source) = if let Some(blob) = self.store.find(&diff_id, ENCODER) {
            (blob, LayerSource::Reused)
        } else {
            // The same bytes again: not more progress.
            self.done_bytes = before;
            let (diff_id_now, blob) = self.new_blob(name, entries, reader)?;
            if diff_id_now != diff_id {
                let cause = io::Error::other("its files changed between two reads");
                return Err(ExportError::Store { layer: name.to_owned(), cause });
            }
            (blob, LayerSource::Added)
        };
        self.finish(name, history.to_owned(), &diff_id, &blob, source);
        Ok(diff_id)
    }

    /// Tar, digest, gzip, digest, file: in one pass.
    pub(super) fn new_blob(
        &mut self,
        name: &str,
        entries: &[LayerEntry<'_>],
        reader: Option<&TreeReader<'_>>,
    ) -> Result<(DiffId, StoredBlob), ExportError> {
        let failed = |cause| ExportError::Store { layer: name.to_owned(), cause };
        let blob = self.store.create().map_err(failed)?;
        let gzip = GzipWriter::new(HashingWriter::new(blob.file())).map_err(failed)?;
        let (diff_id, _, gzip) = self.write_tar(name, entries, reader, HashingWriter::new(gzip))?.finish();
        let (digest, size, _) = gzip.finish().map_err(failed)?.finish();
        let diff_id = DiffId(diff_id);
        let blob = self.store.commit(blob, &diff_id, ENCODER, &digest, size).map_err(failed)?;
        Ok((diff_id, blob))
    }

    fn write_tar<W: Write>(
        &mut self,
        name: &str,
        entries: &[LayerEntry<'_>],
        reader: Option<&TreeReader<'_>>,
        writer: W,
    ) -> Result<W, ExportError> {
        let failed = |cause| ExportError::Store { layer: name.to_owned(), cause };
        let mut tar = LayerWriter::new(writer);
        for LayerEntry { name, mode, owner, content } in entries {
            self.cancel.check()?;
            match content {
                Content::Directory => tar.directory(name, *mode, *owner).map_err(failed)?,
                Content::Symlink(target) => tar.symlink(name, target, *mode, *owner).map_err(failed)?,
                Content::Bytes(bytes) => {
                    tar.file(name, *mode, *owner, bytes.len() as u64, *bytes).map_err(failed)?;
                }
                Content::File { entry, size } => {
                    let reader = reader.expect("layers with files have a tree");
                    let mut file = self.open(reader, entry)?;
                    let result = tar.file(name, *mode, *owner, *size, &mut file);
                    file.finish(result, failed)?;
                }
            }
        }
        tar.finish().map_err(failed)
    }

    fn open<'b>(&'b mut self, reader: &TreeReader<'_>, entry: &Entry) -> Result<Watched<'b>, TreeError> {
        let file = reader.open(entry)?;
        Ok(Watched {
            file,
            cancel: self.cancel,
            events: &mut *self.events,
            done_bytes: &mut self.done_bytes,
            reported_bytes: &mut self.reported_bytes,
            total_bytes: self.total_bytes,
            failure: None,
        })
    }

    pub(super) fn finish(
        &mut self,
        name: &str,
        created_by: String,
        diff_id: &DiffId,
        blob: &StoredBlob,
        source: LayerSource,
    ) {
        self.events.event(Event::LayerExported {
            name: name.to_owned(),
            source,
            bytes: blob.size,
            digest: blob.digest.to_string(),
        });
        let layer = Layer {
            media_type: self.family.layer(),
            digest: blob.digest.clone(),
            size: blob.size,
            diff_id: diff_id.clone(),
            blob: blob.path.clone(),
        };
        self.finished.push(Finished { layer, created_by });
    }
}

/// A file that is read with an eye on cancelling and progress.
struct Watched<'a> {
    file: TreeFile,
    cancel: &'a Cancel,
    events: &'a mut dyn EventSink,
    done_bytes: &'a mut u64,
    reported_bytes: &'a mut u64,
    total_bytes: u64,
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
        if let Err(cancelled) = self.cancel.check() {
            self.failure = Some(cancelled.into());
            return Err(io::Error::other(cancelled));
        }
        let read = match (&self.file).read(buffer) {
            Ok(read) => read,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => return Err(cause),
            Err(cause) => {
                let kind = cause.kind();
                self.failure = Some(TreeError::Read { path: self.file.path().to_owned(), cause }.into());
                return Err(kind.into());
            }
        };
        *self.done_bytes += read as u64;
        if *self.done_bytes >= *self.reported_bytes + PROGRESS_BYTES {
            *self.reported_bytes = *self.done_bytes;
            self.events
                .event(Event::Progress { done_bytes: *self.done_bytes, total_bytes: Some(self.total_bytes) });
        }
        Ok(read)
    }
}
