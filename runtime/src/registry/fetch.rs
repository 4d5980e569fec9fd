//! Bringing blobs here: in pieces where the connection breaks, verified as a whole (R3).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};

use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Method, StatusCode};

use super::authorization::Scope;
use super::endpoint::Endpoint;
use super::error::{RegistryError, Trouble};
use super::exchange::{Call, Tried, Tries, busy, is_busy, next_piece, read_up_to, refusal};
use super::tally::{Gauge, Tally};
use super::upload::NO_BODY;
use super::{LOOK, Registry, Shared, TRANSFERS};
use crate::cancel::Cancel;
use crate::event::{EventSink, Transfer};
use crate::oci::blob::{BlobStore, StoredBlob};
use crate::oci::digest::{Digest, Hasher};
use crate::oci::reference::Repository;

/// Progress that gives a broken download all its tries back.
const RESTART_BYTES: u64 = 1 << 20;

/// A blob of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteBlob {
    pub repository: Repository,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

impl Registry {
    /// Brings blobs into `store`, in their order; those that are there are not asked for.
    ///
    /// # Errors
    /// The first that does not come, or not as its digest and size say. What was complete by
    /// then is in the store.
    pub fn fetch(
        &self,
        wanted: &[RemoteBlob],
        store: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<Vec<StoredBlob>, RegistryError> {
        let tally = Tally::new(Transfer::Fetch);
        let wanted: Vec<_> = wanted.iter().map(|blob| (blob, tally.expect(blob.size))).collect();
        let fetch = |(blob, gauge): &(&RemoteBlob, Gauge)| self.fetch_one(blob, store, gauge, cancel);
        self.each(&wanted, fetch, &tally, cancel, events)
    }

    /// Writes a blob to `file`, which is empty. The file is rewound when it is complete.
    ///
    /// # Errors
    /// When it does not come, or not as its digest and size say.
    pub fn fetch_to(&self, blob: &RemoteBlob, file: &File, cancel: &Cancel) -> Result<(), RegistryError> {
        self.fetch_counted(blob, file, &Gauge::default(), cancel)
    }

    pub(super) fn fetch_counted(
        &self,
        blob: &RemoteBlob,
        file: &File,
        gauge: &Gauge,
        cancel: &Cancel,
    ) -> Result<(), RegistryError> {
        self.wait(cancel, self.shared.fetch(blob, file, gauge))
    }

    fn fetch_one(
        &self,
        blob: &RemoteBlob,
        store: &dyn BlobStore,
        gauge: &Gauge,
        cancel: &Cancel,
    ) -> Result<StoredBlob, RegistryError> {
        if let Some(stored) = store.blob(&blob.digest, blob.size) {
            gauge.spare();
            return Ok(stored);
        }
        let failed = |source| RegistryError::File { digest: blob.digest.clone(), source };
        let new = store.create().map_err(failed)?;
        self.fetch_counted(blob, new.file(), gauge, cancel)?;
        store.commit_fetched(new, &blob.digest, blob.size).map_err(failed)
    }

    /// Does something for each item on a few threads at once, while this one tells how far they
    /// are. After the first error nothing new is begun.
    pub(super) fn each<I: Sync, T: Send>(
        &self,
        items: &[I],
        work: impl Fn(&I) -> Result<T, RegistryError> + Sync,
        tally: &Tally,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<Vec<T>, RegistryError> {
        // Made once, before there are several who might.
        self.runtime.handle()?;
        let queue: Mutex<VecDeque<usize>> = Mutex::new((0..items.len()).collect());
        let results: Mutex<Vec<Option<T>>> = Mutex::new(items.iter().map(|_| None).collect());
        let first_error: Mutex<Option<RegistryError>> = Mutex::new(None);
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let run = || {
            while let Some(index) = next() {
                let result = cancel.check().map_err(RegistryError::from).and_then(|()| work(&items[index]));
                match result {
                    Ok(value) => {
                        results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(value);
                    }
                    Err(error) => {
                        first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    }
                }
            }
        };
        let mut told = (0, 0);
        std::thread::scope(|scope| {
            let (working, ended) = channel::<Infallible>();
            for _ in 0..TRANSFERS.min(items.len()) {
                let (run, working) = (&run, working.clone());
                let thread = std::thread::Builder::new().name("registries".to_owned());
                // With fewer threads it takes longer.
                let _ = thread.spawn_scoped(scope, move || {
                    run();
                    drop(working);
                });
            }
            drop(working);
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                tally.tell(&mut told, events);
            }
            // All that is left where there can be no threads.
            run();
        });
        tally.tell(&mut told, events);
        if let Some(error) = first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(results.into_iter().flatten().collect())
    }
}

impl Shared {
    async fn fetch(&self, blob: &RemoteBlob, file: &File, gauge: &Gauge) -> Result<(), RegistryError> {
        let registry = blob.repository.registry();
        self.check_online(registry)?;
        let mut last = None;
        for endpoint in self.readable(registry).await {
            let (host, result) = match endpoint {
                Ok(endpoint) => {
                    let mut body = Arriving::new(file, blob, gauge);
                    (endpoint.host(), self.fetch_from(&endpoint, blob, &mut body).await)
                }
                Err(tried) => (registry.to_owned(), Err(tried)),
            };
            match result {
                Ok(()) => return Ok(()),
                Err(tried) => last = Some((host, tried)),
            }
        }
        let (host, Tried { tries, trouble }) =
            last.unwrap_or_else(|| (registry.to_owned(), Trouble::NotThere.into()));
        let step = format!("fetch the blob `{}` of `{}`", blob.digest, blob.repository);
        Err(RegistryError::Step { step, host, tries, source: trouble })
    }

    async fn fetch_from(
        &self,
        endpoint: &Endpoint,
        blob: &RemoteBlob,
        body: &mut Arriving<'_>,
    ) -> Result<(), Tried> {
        let scope = Scope::pull(blob.repository.path());
        let url = endpoint.url(blob.repository.path(), &format!("blobs/{}", blob.digest));
        let call = Call::new(endpoint, &scope, Method::GET, url);
        let mut tries = Tries::new();
        body.restart().map_err(Trouble::Keep)?;
        let mut is_second = false;
        loop {
            let before = body.written;
            let trouble = match self.fetch_once(&call, body).await {
                Ok(()) => match body.verify() {
                    Ok(()) => return Ok(()),
                    // Pieces of several answers may be of several minds; a whole one is not.
                    Err(Trouble::Digest { .. } | Trouble::Size { .. })
                        if body.is_resumed && !std::mem::replace(&mut is_second, true) =>
                    {
                        body.restart().map_err(Trouble::Keep)?;
                        continue;
                    }
                    Err(trouble) => return Err(Tried { tries: tries.number(), trouble }),
                },
                Err(trouble) => trouble,
            };
            // Who sends a little at a time is not given more time for it.
            if body.written >= before + RESTART_BYTES && trouble.may_pass() {
                tries.restart();
            }
            tries.next(self, trouble).await?;
        }
    }

    /// One request for what is still missing.
    async fn fetch_once(&self, call: &Call<'_>, body: &mut Arriving<'_>) -> Result<(), Trouble> {
        let from = body.written;
        if from > 0 && from == body.blob.size {
            return Ok(());
        }
        let call = match from {
            0 => call.clone(),
            from => call.clone().with(RANGE, &format!("bytes={from}-")),
        };
        let (mut response, _) = self.begin(&call).await?;
        let status = response.status();
        match status {
            StatusCode::OK => body.restart().map_err(Trouble::Keep)?,
            StatusCode::PARTIAL_CONTENT if from > 0 && first_byte(response.headers()) == Some(from) => {
                body.is_resumed = true;
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                body.restart().map_err(Trouble::Keep)?;
                if from == 0 {
                    return Err(Trouble::Protocol("it sends a part that nobody asked for"));
                }
                return Err(Trouble::Interrupted("it does not go on where it stopped".to_owned()));
            }
            StatusCode::NOT_FOUND => return Err(Trouble::NotThere),
            status if is_busy(status) => return Err(busy(&response)),
            status => {
                let text = read_up_to(self, &mut response, NO_BODY).await.unwrap_or_default();
                return Err(refusal(status, &text, self, &call));
            }
        }
        let expected = body.blob.size;
        if let Some(length) = response.content_length() {
            let found = body.written.saturating_add(length);
            if found != expected {
                return Err(Trouble::Size { expected, found });
            }
        }
        let mut floor = self.floor();
        while let Some(piece) = next_piece(self, &mut response, &mut floor).await? {
            let found = body.written + piece.len() as u64;
            if found > expected {
                return Err(Trouble::Size { expected, found });
            }
            body.write(&piece).map_err(Trouble::Keep)?;
        }
        Ok(())
    }
}

/// The place of the first byte of a partial answer.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// What arrived so far of a blob; survives a connection that breaks off.
struct Arriving<'a> {
    file: &'a File,
    blob: &'a RemoteBlob,
    gauge: &'a Gauge,
    hasher: Hasher,
    written: u64,
    /// The bytes came in more than one answer.
    is_resumed: bool,
}

impl<'a> Arriving<'a> {
    fn new(file: &'a File, blob: &'a RemoteBlob, gauge: &'a Gauge) -> Self {
        Self { file, blob, gauge, hasher: Hasher::default(), written: 0, is_resumed: false }
    }

    fn restart(&mut self) -> io::Result<()> {
        let mut file = self.file;
        file.set_len(0)?;
        file.rewind()?;
        (self.hasher, self.written, self.is_resumed) = (Hasher::default(), 0, false);
        self.gauge.reach(0);
        Ok(())
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut file = self.file;
        file.write_all(piece)?;
        self.hasher.update(piece);
        self.written += piece.len() as u64;
        self.gauge.reach(self.written);
        Ok(())
    }

    /// Compares what came with what should have. What came in pieces is read once more.
    fn verify(&mut self) -> Result<(), Trouble> {
        let mut file = self.file;
        file.rewind().map_err(Trouble::Keep)?;
        let (found, expected) = (self.written, self.blob.size);
        if found != expected {
            return Err(Trouble::Size { expected, found });
        }
        let found = if self.is_resumed {
            let found = hash(file).map_err(Trouble::Keep)?;
            file.rewind().map_err(Trouble::Keep)?;
            found
        } else {
            std::mem::take(&mut self.hasher).finish()
        };
        if found != self.blob.digest {
            return Err(Trouble::Digest { expected: self.blob.digest.clone(), found });
        }
        Ok(())
    }
}

/// The digest of a file from where it is.
pub(super) fn hash(mut file: &File) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}
