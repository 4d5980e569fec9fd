//! Putting one blob into a repository: not at all if it is there, by name from another
//! repository, whole, or in pieces that go on where a connection broke.
//!
//! # Spec
//! distribution-spec 1.1, "Pushing blobs" and "Mounting a blob from another repository".

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use reqwest::{Method, StatusCode};
use url::Url;

use super::Shared;
use super::authorization::Scope;
use super::endpoint::Endpoint;
use super::error::Trouble;
use super::exchange::{Answer, Call, Payload, Tried, Tries, location};
use super::tally::Gauge;
use crate::oci::digest::Digest;

/// What is sent with one request when it does not fit into two: a connection that breaks
/// costs no more than this.
const PIECE_BYTES: u64 = 32 << 20;
/// Answers that carry nothing of interest in their bodies.
pub(super) const NO_BODY: u64 = 64 << 10;

/// A blob that is to be sent.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) bytes: OutgoingBytes,
    pub(super) gauge: Gauge,
}

#[derive(Debug, Clone)]
pub(super) enum OutgoingBytes {
    File(Arc<File>),
    Memory(Bytes),
}

impl Outgoing {
    fn part(&self, from: u64, length: u64) -> Payload {
        match &self.bytes {
            OutgoingBytes::File(file) => {
                Payload::Part { file: Arc::clone(file), from, length, gauge: self.gauge.clone() }
            }
            OutgoingBytes::Memory(bytes) => {
                let place = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).min(bytes.len());
                Payload::Bytes(bytes.slice(place(from)..place(from.saturating_add(length))))
            }
        }
    }
}

/// An upload that a registry has opened.
#[derive(Debug, Clone)]
pub(super) struct Session {
    location: Url,
    /// Bytes that it has.
    done: u64,
    piece: u64,
}

/// What became of a mount.
#[derive(Debug)]
pub(super) enum Mounted {
    Done,
    /// It is to be sent, into this upload if there is one.
    No(Option<Session>),
}

/// A repository that is written to.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) shared: &'a Shared,
    pub(super) endpoint: &'a Endpoint,
    pub(super) repository: &'a str,
}

impl Target<'_> {
    fn uploads(&self) -> Url {
        self.endpoint.url(self.repository, "blobs/uploads/")
    }

    /// Whether the repository has a blob.
    pub(super) async fn has(&self, scope: &Scope, digest: &Digest) -> Result<bool, Tried> {
        let url = self.endpoint.url(self.repository, &format!("blobs/{digest}"));
        let call = Call::new(self.endpoint, scope, Method::HEAD, url);
        let answer = self.shared.ask(&call, NO_BODY).await?;
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(answer.refusal(self.shared, &call).into()),
        }
    }

    /// Takes a blob over from another repository of the registry, if that has it and lets us.
    pub(super) async fn mount(&self, from: &str, digest: &Digest) -> Result<Mounted, Tried> {
        let scope = Scope { from: Some(from.to_owned()), ..Scope::push(self.repository) };
        let mut url = self.uploads();
        url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from);
        let call = Call::new(self.endpoint, &scope, Method::POST, url).with(CONTENT_LENGTH, "0");
        let answer = match self.shared.ask(&call, NO_BODY).await {
            Ok(answer) => answer,
            // Who gives tokens may not give one for both.
            Err(Tried { trouble: Trouble::Refused { .. }, .. }) => return Ok(Mounted::No(None)),
            Err(tried) => return Err(tried),
        };
        match answer.status {
            StatusCode::CREATED => Ok(Mounted::Done),
            StatusCode::ACCEPTED => Ok(Mounted::No(session(&answer).ok())),
            status if status.is_client_error() => Ok(Mounted::No(None)),
            _ => Err(answer.refusal(self.shared, &call).into()),
        }
    }

    /// Begins an upload.
    async fn begin(&self, scope: &Scope) -> Result<Session, Tried> {
        let call = Call::new(self.endpoint, scope, Method::POST, self.uploads()).with(CONTENT_LENGTH, "0");
        let answer = self.shared.ask(&call, NO_BODY).await?;
        match answer.status {
            StatusCode::ACCEPTED => Ok(session(&answer)?),
            _ => Err(answer.refusal(self.shared, &call).into()),
        }
    }

    /// Whether an upload may be begun; it is taken back.
    pub(super) async fn try_upload(&self) -> Result<(), Tried> {
        let session = self.begin(&Scope::push(self.repository)).await?;
        self.take_back(session).await;
        Ok(())
    }

    /// Ends an upload of which nothing is wanted.
    pub(super) async fn take_back(&self, session: Session) {
        let scope = Scope::push(self.repository);
        let call = Call::new(self.endpoint, &scope, Method::DELETE, session.location);
        // Registries forget uploads by themselves, too.
        let _ = self.shared.ask_once(&call, NO_BODY).await;
    }

    /// Sends a blob, however often the connection breaks.
    pub(super) async fn send(
        &self,
        scope: &Scope,
        blob: &Outgoing,
        session: Option<Session>,
    ) -> Result<(), Tried> {
        let mut tries = Tries::new();
        let mut sending = Sending { session, whole: blob.size <= PIECE_BYTES, accepted: false };
        let mut furthest = 0;
        loop {
            let trouble = match self.send_once(scope, blob, &mut sending).await {
                Ok(()) => return Ok(()),
                Err(Tried { trouble, .. }) => trouble,
            };
            // Some take a blob in one request only.
            let is_refusal = matches!(trouble, Trouble::Answer { status: 400..=499 | 501, .. });
            if is_refusal && !sending.whole && !sending.accepted {
                sending = Sending { session: None, whole: true, accepted: false };
                continue;
            }
            let done = sending.session.as_ref().map_or(0, |session| session.done);
            if done > furthest {
                furthest = done;
                tries.restart();
            }
            tries.next(self.shared, trouble).await?;
            // The answer may be all that was lost.
            if self.has(scope, &blob.digest).await? {
                return Ok(());
            }
            sending.session = match sending.session.take() {
                Some(session) if !sending.whole => self.status(scope, session, blob.size).await,
                _ => None,
            };
        }
    }

    /// Sends what is missing.
    async fn send_once(&self, scope: &Scope, blob: &Outgoing, sending: &mut Sending) -> Result<(), Tried> {
        let mut session = match sending.session.take() {
            Some(session) => session,
            None => self.begin(scope).await?,
        };
        let payload = if sending.whole {
            blob.part(0, blob.size)
        } else {
            while session.done < blob.size {
                sending.session = Some(session.clone());
                session = self.send_piece(scope, blob, session).await?;
                sending.accepted = true;
            }
            Payload::Bytes(Bytes::new())
        };
        let mut url = session.location.clone();
        sending.session = Some(session);
        url.query_pairs_mut().append_pair("digest", blob.digest.as_str());
        let length = if sending.whole { blob.size } else { 0 };
        let call = Call::new(self.endpoint, scope, Method::PUT, url)
            .with(CONTENT_TYPE, "application/octet-stream")
            .with(CONTENT_LENGTH, &length.to_string())
            .carrying(payload);
        let answer = self.shared.ask_once(&call, NO_BODY).await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(answer.refusal(self.shared, &call).into()),
        }
    }

    /// Sends one piece; the session as it is afterwards.
    async fn send_piece(&self, scope: &Scope, blob: &Outgoing, session: Session) -> Result<Session, Tried> {
        let length = session.piece.min(blob.size - session.done);
        let end = session.done + length;
        let call = Call::new(self.endpoint, scope, Method::PATCH, session.location)
            .with(CONTENT_TYPE, "application/octet-stream")
            .with(CONTENT_RANGE, &format!("{}-{}", session.done, end - 1))
            .with(CONTENT_LENGTH, &length.to_string())
            .carrying(blob.part(session.done, length));
        let answer = self.shared.ask_once(&call, NO_BODY).await?;
        if answer.status != StatusCode::ACCEPTED {
            return Err(answer.refusal(self.shared, &call).into());
        }
        let next = self::session(&answer)?;
        let done = if answer.headers.contains_key(RANGE) { next.done } else { end };
        // Who has taken less takes the rest with the next piece; more than there was is a lie.
        if done <= session.done || done > end {
            return Err(Trouble::Protocol("it has not what was sent").into());
        }
        Ok(Session { done, piece: session.piece, ..next })
    }

    /// How far an upload is; `None` when it is to be begun anew.
    async fn status(&self, scope: &Scope, session: Session, size: u64) -> Option<Session> {
        let call = Call::new(self.endpoint, scope, Method::GET, session.location);
        let answer = self.shared.ask_once(&call, NO_BODY).await.ok()?;
        let is_known =
            matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::ACCEPTED);
        let mut next = Some(&answer).filter(|_| is_known).map(self::session)?.ok()?;
        next.piece = session.piece;
        (next.done <= size).then_some(next)
    }
}

/// What is known of a blob on its way.
struct Sending {
    session: Option<Session>,
    /// In one request.
    whole: bool,
    /// It took a piece.
    accepted: bool,
}

/// The upload that an answer tells of.
fn session(answer: &Answer) -> Result<Session, Trouble> {
    let location = location(&answer.url, &answer.headers)?;
    let least = answer.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
    // `0-0` is also what is said when there is nothing.
    let last = answer.header(RANGE.as_str()).and_then(|range| {
        let range = range.strip_prefix("bytes=").unwrap_or(range);
        range.strip_prefix("0-")?.parse::<u64>().ok()
    });
    let done = last.filter(|last| *last > 0).map_or(0, |last| last.saturating_add(1));
    Ok(Session { location, done, piece: PIECE_BYTES.max(least.unwrap_or(0)) })
}
