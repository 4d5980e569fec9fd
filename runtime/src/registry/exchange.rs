//! One question to a registry and its answer: redirects, tries, and the limits on both.
//!
//! Knows nothing of manifests and blobs.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use url::Url;

use super::Shared;
use super::authorization::Scope;
use super::endpoint::Endpoint;
use super::error::Trouble;
use super::tally::Gauge;
use crate::http::client::{Blocked, cause, find};
use crate::http::pace::{self, Floor};
use crate::walk::random_bytes;

/// No try begins later than this after the first: with what one try may take, all of them
/// end within two minutes (R10).
const GIVE_UP: Duration = Duration::from_secs(70);

/// What of an answer that is an error is looked at.
const MAX_ERROR_BYTES: u64 = 64 << 10;

/// What a file is read in for sending.
const PIECE_BYTES: usize = 256 << 10;

/// A registry may take its time to look at what was sent.
const COMMIT_PATIENCE: Duration = Duration::from_secs(90);

/// A question.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) scope: &'a Scope,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload,
}

impl<'a> Call<'a> {
    pub(super) fn new(endpoint: &'a Endpoint, scope: &'a Scope, method: Method, url: Url) -> Self {
        Self { endpoint, scope, method, url, headers: HeaderMap::new(), payload: Payload::Nothing }
    }

    pub(super) fn with(mut self, name: reqwest::header::HeaderName, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn carrying(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }
}

/// What is sent with a question.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    Nothing,
    Bytes(Bytes),
    /// `length` bytes of a file, from the place `from` on.
    Part {
        file: Arc<File>,
        from: u64,
        length: u64,
        gauge: Gauge,
    },
}

/// An answer, as a whole.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Where it came from in the end.
    pub(super) url: Url,
}

impl Answer {
    /// An answer that nobody can use, as an error.
    pub(super) fn refusal(&self, shared: &Shared, call: &Call<'_>) -> Trouble {
        refusal(self.status, &self.body, shared, call)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// An error, and how often it was tried.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) tries: u32,
    pub(super) trouble: Trouble,
}

impl From<Trouble> for Tried {
    fn from(trouble: Trouble) -> Self {
        Self { tries: 1, trouble }
    }
}

/// Counts tries, and waits between them.
#[derive(Debug)]
pub(super) struct Tries {
    number: u32,
    began: Instant,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self { number: 1, began: Instant::now() }
    }

    /// Waits for the next try, if there is to be one.
    pub(super) async fn next(&mut self, shared: &Shared, trouble: Trouble) -> Result<(), Tried> {
        if !trouble.may_pass() || self.number >= pace::TRIES || self.began.elapsed() > GIVE_UP {
            return Err(Tried { tries: self.number, trouble });
        }
        let random = u64::from_ne_bytes(random_bytes());
        let first = shared.clients.world().first_wait;
        sleep(pace::wait_after(self.number, first, trouble.again_after(), random)).await;
        self.number += 1;
        Ok(())
    }

    /// There was progress: what comes now has all tries before it.
    pub(super) fn restart(&mut self) {
        *self = Self::new();
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Shared {
    /// Asks until there is an answer, whatever it says, and reads up to `most` bytes of it.
    /// Only for questions that may be asked twice.
    pub(super) async fn ask(&self, call: &Call<'_>, most: u64) -> Result<Answer, Tried> {
        let mut tries = Tries::new();
        loop {
            match self.ask_once(call, most).await {
                Ok(answer) => return Ok(answer),
                Err(trouble) => tries.next(self, trouble).await?,
            }
        }
    }

    /// The same with one try.
    pub(super) async fn ask_once(&self, call: &Call<'_>, most: u64) -> Result<Answer, Trouble> {
        let (mut response, url) = self.begin(call).await?;
        let status = response.status();
        if is_busy(status) {
            return Err(busy(&response));
        }
        let headers = response.headers().clone();
        let body = if call.method == Method::HEAD {
            Bytes::new()
        } else if status.is_success() {
            read_up_to(self, &mut response, most).await?
        } else {
            // What is said beside the status helps, or does not.
            read_up_to(self, &mut response, MAX_ERROR_BYTES).await.unwrap_or_default()
        };
        Ok(Answer { status, headers, body, url })
    }

    /// The head of an answer that is neither a redirect nor a question for credentials that
    /// could be answered.
    pub(super) async fn begin(&self, call: &Call<'_>) -> Result<(Response, Url), Trouble> {
        for _ in 0..2 {
            let sent = self.authorization.known(call.endpoint, call.scope);
            let (response, url) = self.follow(call, sent.as_ref()).await?;
            // Only the registry itself may ask for credentials.
            if response.status() != StatusCode::UNAUTHORIZED || url != call.url || !call.endpoint.owns(&url) {
                return Ok((response, url));
            }
            let (endpoint, scope) = (call.endpoint, call.scope);
            let again = self.authorization.sign_in(self, endpoint, scope, sent.as_ref(), response.headers());
            if !again.await? {
                return Ok((response, url));
            }
        }
        let sent = self.authorization.known(call.endpoint, call.scope);
        self.follow(call, sent.as_ref()).await
    }

    /// Sends a question to where it leads in the end. Credentials go to the endpoint itself,
    /// and nowhere any more once something led away from it (R2).
    async fn follow(
        &self,
        call: &Call<'_>,
        authorization: Option<&reqwest::header::HeaderValue>,
    ) -> Result<(Response, Url), Trouble> {
        let most = self.limits.http_redirects;
        let mut url = call.url.clone();
        let mut method = call.method.clone();
        let mut payload = call.payload.clone();
        let mut left = false;
        for _ in 0..=most {
            left |= !call.endpoint.owns(&url);
            let reach = self.may_ask(call.endpoint, &url, !left)?;
            let client = self.clients.get(&call.endpoint.ca, reach)?;
            let mut request = client
                .request(method.clone(), url.clone())
                .headers(call.headers.clone())
                .header(ACCEPT_ENCODING, "identity");
            if let Some(authorization) = authorization.filter(|_| !left) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let sent = Arc::new(AtomicU64::new(0));
            request = payload.attach(request, &sent);
            let response = send(self, request, Some(&sent)).await?;
            if !is_redirect(response.status()) {
                return Ok((response, url));
            }
            let keeps_method = matches!(response.status().as_u16(), 307 | 308);
            let is_reading = method == Method::GET || method == Method::HEAD;
            if !keeps_method && !is_reading {
                // The other kinds would make a reading request of it.
                return Err(Trouble::Nowhere);
            }
            if is_reading {
                (method, payload) = (call.method.clone(), Payload::Nothing);
            }
            url = location(&url, response.headers())?;
        }
        Err(Trouble::Redirects(most))
    }
}

impl Payload {
    fn attach(&self, request: RequestBuilder, sent: &Arc<AtomicU64>) -> RequestBuilder {
        match self {
            Self::Nothing => request,
            Self::Bytes(bytes) => request.body(bytes.clone()),
            Self::Part { file, from, length, gauge } => request.body(reqwest::Body::wrap(FilePart {
                file: Arc::clone(file),
                place: *from,
                left: *length,
                sent: Arc::clone(sent),
                gauge: gauge.clone(),
            })),
        }
    }
}

/// A part of a file on its way. What is read comes from the page cache, in moments.
struct FilePart {
    file: Arc<File>,
    place: u64,
    left: u64,
    /// Bytes of this request.
    sent: Arc<AtomicU64>,
    gauge: Gauge,
}

impl Body for FilePart {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let size = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let mut piece = BytesMut::zeroed(size);
        if let Err(error) = self.file.read_exact_at(&mut piece, self.place) {
            return Poll::Ready(Some(Err(error)));
        }
        self.place += size as u64;
        self.left -= size as u64;
        self.sent.fetch_add(size as u64, Ordering::Relaxed);
        self.gauge.reach(self.place);
        Poll::Ready(Some(Ok(Frame::data(piece.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Sends a request and waits for the head of its answer. While `sent` grows there is no hurry.
pub(super) async fn send(
    shared: &Shared,
    request: RequestBuilder,
    sent: Option<&AtomicU64>,
) -> Result<Response, Trouble> {
    let limits = &shared.limits;
    let first_byte = Duration::from_secs(limits.http_first_byte_seconds);
    let patience = first_byte + Duration::from_secs(limits.http_connect_seconds);
    let mut waiting = Box::pin(request.send());
    let mut seen = 0;
    loop {
        let wait = if seen > 0 { patience.max(COMMIT_PATIENCE.min(patience * 3)) } else { patience };
        let now = |sent: Option<&AtomicU64>| sent.map_or(0, |sent| sent.load(Ordering::Relaxed));
        match timeout(wait, &mut waiting).await {
            Ok(Ok(response)) if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                return Err(Trouble::Proxy(response.status().as_u16()));
            }
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => return Err(trouble_of(&error)),
            Err(_) if now(sent) > seen => seen = now(sent),
            Err(_) => return Err(Trouble::NoAnswer(wait)),
        }
    }
}

/// Why a request was not answered.
pub(super) fn trouble_of(error: &reqwest::Error) -> Trouble {
    if let Some(blocked) = find::<Blocked>(error) {
        return Trouble::Blocked(blocked.to_string());
    }
    if let Some(rustls::Error::InvalidCertificate(why)) = find::<rustls::Error>(error) {
        return Trouble::Certificate(why.to_string());
    }
    if error.is_connect() { Trouble::Connect(cause(error)) } else { Trouble::Request(cause(error)) }
}

/// Reads a body as a whole; more than `most` bytes are an error, said or not (R5).
pub(super) async fn read_up_to(
    shared: &Shared,
    response: &mut Response,
    most: u64,
) -> Result<Bytes, Trouble> {
    if response.content_length().is_some_and(|length| length > most) {
        return Err(Trouble::TooLarge(most));
    }
    let mut body = BytesMut::new();
    let mut floor = shared.floor();
    while let Some(piece) = next_piece(shared, response, &mut floor).await? {
        if body.len() as u64 + piece.len() as u64 > most {
            return Err(Trouble::TooLarge(most));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// The next piece of a body; none may be late, nor all of them slow.
pub(super) async fn next_piece(
    shared: &Shared,
    response: &mut Response,
    floor: &mut Floor,
) -> Result<Option<Bytes>, Trouble> {
    let idle = Duration::from_secs(shared.limits.http_idle_seconds);
    let piece = match timeout(idle, response.chunk()).await {
        Ok(Ok(piece)) => piece,
        Ok(Err(error)) => return Err(Trouble::Interrupted(cause(&error))),
        Err(_) => return Err(Trouble::Stalled(idle)),
    };
    let count = piece.as_ref().map_or(0, |piece| piece.len() as u64);
    if piece.is_some() && !floor.is_kept(count, Instant::now()) {
        return Err(Trouble::TooSlow);
    }
    Ok(piece)
}

/// An answer that is no use, as an error. Of what it says only codes are taken: the rest is
/// the server's to choose, and could be what was sent to it.
pub(super) fn refusal(status: StatusCode, body: &[u8], shared: &Shared, call: &Call<'_>) -> Trouble {
    #[derive(Deserialize, Default)]
    struct Errors {
        #[serde(default)]
        errors: Vec<OneError>,
    }
    #[derive(Deserialize)]
    struct OneError {
        #[serde(default)]
        code: String,
    }
    let errors: Errors = serde_json::from_slice(body).unwrap_or_default();
    let is_code = |code: &String| {
        (1..=40).contains(&code.len()) && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let codes: Vec<String> =
        errors.errors.into_iter().map(|error| error.code).filter(is_code).take(4).collect();
    let status = status.as_u16();
    if matches!(status, 401 | 403) {
        let signed_in = shared.authorization.is_signed_in(call.endpoint, call.scope);
        return Trouble::Refused { status, codes, signed_in };
    }
    Trouble::Answer { status, codes }
}

pub(super) fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502..=504 | 507 | 520..=529)
}

/// The server is there, but not now.
pub(super) fn busy(response: &Response) -> Trouble {
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Trouble::Busy {
        status: response.status().as_u16(),
        again_after: asked.and_then(|text| pace::retry_after(text, SystemTime::now())),
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where `Location` leads.
pub(super) fn location(url: &Url, headers: &HeaderMap) -> Result<Url, Trouble> {
    let text = headers.get(LOCATION).and_then(|value| value.to_str().ok()).ok_or(Trouble::Nowhere)?;
    let mut next = url.join(text).map_err(|_| Trouble::Nowhere)?;
    let is_web = matches!(next.scheme(), "http" | "https") && next.host_str().is_some();
    // What the server put there as credentials is not for us to send.
    if !is_web || next.set_username("").is_err() || next.set_password(None).is_err() {
        return Err(Trouble::Nowhere);
    }
    next.set_fragment(None);
    Ok(next)
}
