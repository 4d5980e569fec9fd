//! Brings one file from a source's base or its mirrors: requests, redirects,
//! tries, and the limits on all of them.
//!
//! Knows where the bytes go, not what for.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::time::{sleep, timeout};
use url::Url;

use super::path::{SourcePath, is_below};
use crate::executor::Refusal;
use crate::fault::is_disk_full;
use crate::http::address;
use crate::http::client::{Blocked, ClientError, Clients, Reach, cause, find};
use crate::http::pace::{self, Floor};
use crate::integrity::{Hash, Hasher, Integrity};
use crate::limits::{Limits, show_bytes};
use crate::network::{Credentials, SourceSettings, SourceTrust};
use crate::walk::random_bytes;

const CREDENTIALS_HINT: &str = "check the credentials of this source; they are sent to its base and mirrors, and never to where those redirect";

/// One file, and everything that decides about how to get it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// As the guest named it.
    pub(super) source: &'a str,
    pub(super) settings: &'a SourceSettings,
    pub(super) base: &'a Url,
    pub(super) path: &'a SourcePath,
    pub(super) integrity: Option<&'a Integrity>,
}

/// How far downloads are; read while they go on.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) done_bytes: AtomicU64,
    pub(super) announced_bytes: AtomicU64,
    /// Files whose size a server said.
    pub(super) announced_files: AtomicUsize,
    pub(super) done_files: AtomicUsize,
    pub(super) total_files: AtomicUsize,
}

/// The network of one build.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) clients: Clients,
    pub(super) limits: Limits,
    /// Everything that came in so far.
    pub(super) received: AtomicU64,
}

/// Why a file did not come.
#[derive(Debug)]
struct Failure {
    id: &'static str,
    /// Such as "connecting failed: connection refused".
    what: String,
    hint: Option<String>,
    next: Next,
}

/// What can be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Try again, not before this time if the server said one.
    Again(Option<Duration>),
    /// Nothing; not at a mirror either.
    Stop,
}

impl Failure {
    fn again(id: &'static str, what: impl Into<String>) -> Self {
        Self { id, what: what.into(), hint: None, next: Next::Again(None) }
    }

    fn stop(id: &'static str, what: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self { id, what: what.into(), hint: hint.into(), next: Next::Stop }
    }

    fn limit(id: &'static str, what: String, field: &str) -> Self {
        Self::stop(id, what, raise(field))
    }
}

fn raise(field: &str) -> String {
    format!("the operator raises it with `{field}` under `[limits]` in the policy file")
}

impl Network {
    /// Downloads the file of `target` into `file`, which is empty, and gives its
    /// hash, which is as the target wants it.
    ///
    /// # Errors
    /// A refusal that names source, host, step and number of tries.
    pub(super) async fn download(
        &self,
        target: &Target<'_>,
        file: &File,
        counters: &Counters,
    ) -> Result<Option<Hash>, Refusal> {
        let mut body = Body::new(file, target.integrity, counters);
        let mut wrong = None;
        let mut last = None;
        for base in std::iter::once(target.base).chain(&target.settings.mirrors) {
            let refused = |tries, failure| refusal(target, base, tries, failure);
            match self.try_base(target, base, &mut body).await {
                Ok(()) => match body.verify().map_err(|error| refused(1, Failure::from(error)))? {
                    Verdict::Right(hash) => return Ok(hash),
                    // Once more from the next mirror, and no further.
                    Verdict::Wrong(found) => {
                        if wrong.replace((base, found)).is_some() {
                            break;
                        }
                        body.restart().map_err(|error| refused(1, Failure::from(error)))?;
                    }
                },
                Err((tries, failure)) => {
                    let is_last = failure.next == Next::Stop;
                    last = Some(refused(tries, failure));
                    if is_last {
                        break;
                    }
                    body.restart().map_err(|error| refused(1, Failure::from(error)))?;
                }
            }
        }
        Err(match (wrong, last) {
            (Some((base, found)), _) => wrong_bytes(target, base, &found),
            (None, Some(refusal)) => refusal,
            (None, None) => {
                refusal(target, target.base, 0, Failure::stop("host.failed", "nothing was asked", None))
            }
        })
    }

    /// All tries at one base; the error comes with their number.
    async fn try_base(
        &self,
        target: &Target<'_>,
        base: &Url,
        body: &mut Body<'_>,
    ) -> Result<(), (u32, Failure)> {
        let mut tries = 1;
        loop {
            let failure = match self.attempt(target, base, body).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            match failure.next {
                Next::Again(asked) if tries < pace::TRIES => {
                    let random = u64::from_ne_bytes(random_bytes());
                    sleep(pace::wait_after(tries, self.clients.world().first_wait, asked, random)).await;
                    tries += 1;
                }
                _ => return Err((tries, failure)),
            }
        }
    }

    /// One request, with the redirects it leads to.
    async fn attempt(&self, target: &Target<'_>, base: &Url, body: &mut Body<'_>) -> Result<(), Failure> {
        let mut url = target
            .path
            .below(base)
            .ok_or_else(|| Failure::stop("source.bad_path", "the path does not fit below its base", None))?;
        // Once a redirect has led elsewhere, nothing that follows is the operator's word.
        let mut left = false;
        for _ in 0..=self.limits.http_redirects {
            let reach = self.may_ask(target, base, &url, left)?;
            let client = self.clients.get(&target.settings.ca, reach)?;
            let mut request = client.get(url.clone()).header(header::ACCEPT_ENCODING, "identity");
            if !left && is_below(&url, base) {
                request = sign_in(request, target.settings.credentials.as_ref(), base)?;
            }
            let range = body.range();
            if let Some((from, etag)) = &range {
                request =
                    request.header(header::RANGE, format!("bytes={from}-")).header(header::IF_RANGE, etag);
            }
            let response = self.send(request, target).await?;
            let status = response.status();
            if !is_redirect(status) {
                return self.take(response, range.map(|(from, _)| from), body).await;
            }
            url = location(&url, &response)?;
            left |= !address::same_origin(&url, base);
        }
        let most = self.limits.http_redirects;
        Err(Failure::limit(
            "net.redirect_limit",
            format!("it redirects more than {most} times"),
            "http_redirects",
        ))
    }

    /// How far a request to `url` may reach, if it may be sent at all.
    fn may_ask(&self, target: &Target<'_>, base: &Url, url: &Url, left: bool) -> Result<Reach, Failure> {
        let is_public = left || target.settings.trust == SourceTrust::LockFile;
        if is_public
            && url.scheme() != "https"
            && (target.settings.trust == SourceTrust::LockFile || base.scheme() != "http")
        {
            let what = format!("`{}` is not `https`", address::shown(url));
            return Err(Failure::stop("net.insecure", what, set_source(target.source)));
        }
        let reach = if is_public { Reach::Public } else { Reach::Anywhere };
        self.clients.check(url, reach).map_err(|blocked| refuse_blocked(&blocked, target))?;
        Ok(reach)
    }

    async fn send(&self, request: RequestBuilder, target: &Target<'_>) -> Result<Response, Failure> {
        let limits = &self.limits;
        let patience =
            Duration::from_secs(limits.http_connect_seconds.saturating_add(limits.http_first_byte_seconds));
        let error = match timeout(patience, request.send()).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => error,
            Err(_) => {
                let what = format!("no answer within {} s", limits.http_first_byte_seconds);
                return Err(Failure::again("net.first_byte_timeout", what));
            }
        };
        if let Some(blocked) = find::<Blocked>(&error) {
            return Err(refuse_blocked(blocked, target));
        }
        if let Some(rustls::Error::InvalidCertificate(why)) = find::<rustls::Error>(&error) {
            return Err(Failure::stop(
                "net.certificate",
                format!("its certificate is not trusted: {why}"),
                format!(
                    "if an authority of your own signed it, name its PEM file: `ca = \"/path/to/ca.pem\"` under `{}` in the policy file",
                    table(target.source)
                ),
            ));
        }
        if error.is_connect() && error.is_timeout() {
            let what = format!("no connection within {} s", limits.http_connect_seconds);
            return Err(Failure::again("net.connect_timeout", what));
        }
        let step = if error.is_connect() { "connecting failed" } else { "the request failed" };
        Err(Failure::again("source.unreachable", format!("{step}: {}", cause(&error))))
    }

    /// Takes what a server answered that is no redirect; `asked` is where the
    /// body should begin.
    async fn take(&self, response: Response, asked: Option<u64>, body: &mut Body<'_>) -> Result<(), Failure> {
        let status = response.status();
        let answered = || format!("the answer was {}", status.as_u16());
        match status {
            StatusCode::OK => body.restart()?,
            StatusCode::PARTIAL_CONTENT if asked.is_some() && first_byte(response.headers()) == asked => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                body.restart()?;
                return Err(Failure::again(
                    "source.bad_answer",
                    format!("{}, which does not fit", answered()),
                ));
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(Failure::stop("source.not_found", answered(), None));
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Failure::stop("source.unauthorized", answered(), CREDENTIALS_HINT.to_owned()));
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let hint = "give the proxy's address with user and password".to_owned();
                return Err(Failure::stop("net.proxy_unauthorized", answered(), hint));
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => return Err(busy(&response)),
            status if status.is_server_error() => return Err(busy(&response)),
            _ => return Err(Failure::stop("source.bad_answer", answered(), None)),
        }
        self.check_body(body.written.saturating_add(response.content_length().unwrap_or(0)))?;
        body.announce(&response);
        self.stream(response, body).await
    }

    async fn stream(&self, mut response: Response, body: &mut Body<'_>) -> Result<(), Failure> {
        let idle = Duration::from_secs(self.limits.http_idle_seconds);
        let mut floor =
            Floor::new(self.limits.http_least_bytes_per_second, self.clients.world().window, Instant::now());
        loop {
            let piece = match timeout(idle, response.chunk()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => {
                    let what = format!("the body broke off: {}", cause(&error));
                    return Err(Failure::again("source.interrupted", what));
                }
                Err(_) => {
                    let what = format!("the body stopped for {} s", idle.as_secs());
                    return Err(Failure::again("net.idle_timeout", what));
                }
            };
            let count = piece.len() as u64;
            self.check_body(body.written.saturating_add(count))?;
            let limit = self.limits.http_total_bytes;
            if self.received.fetch_add(count, Ordering::Relaxed).saturating_add(count) > limit {
                let what = format!("this build has downloaded more than {}", show_bytes(limit));
                return Err(Failure::limit("net.total_limit", what, "http_total_bytes"));
            }
            body.write(&piece)?;
            if !floor.is_kept(count, Instant::now()) {
                let least = show_bytes(self.limits.http_least_bytes_per_second);
                return Err(Failure::again(
                    "net.too_slow",
                    format!("the body brings less than {least} a second"),
                ));
            }
        }
    }

    fn check_body(&self, bytes: u64) -> Result<(), Failure> {
        let limit = self.limits.http_body_bytes;
        if bytes <= limit {
            return Ok(());
        }
        let what = format!("it is larger than {}", show_bytes(limit));
        Err(Failure::limit("net.body_limit", what, "http_body_bytes"))
    }
}

/// What arrived so far of a file; survives a connection that breaks off.
struct Body<'a> {
    file: &'a File,
    integrity: Option<&'a Integrity>,
    counters: &'a Counters,
    hasher: Option<Hasher>,
    written: u64,
    /// Tells the server that we want the rest of the same bytes.
    etag: Option<HeaderValue>,
    /// The bytes came in more than one piece.
    is_resumed: bool,
    /// What the server said that there is, if it did.
    announced: Option<u64>,
}

enum Verdict {
    /// With the hash, when one is wanted.
    Right(Option<Hash>),
    Wrong(Hash),
}

impl<'a> Body<'a> {
    fn new(file: &'a File, integrity: Option<&'a Integrity>, counters: &'a Counters) -> Self {
        Self {
            file,
            integrity,
            counters,
            hasher: integrity.map(Integrity::hasher),
            written: 0,
            etag: None,
            is_resumed: false,
            announced: None,
        }
    }

    /// From where on the rest is wanted, and of which version of the file.
    fn range(&self) -> Option<(u64, HeaderValue)> {
        let etag = self.etag.clone().filter(|_| self.written > 0)?;
        Some((self.written, etag))
    }

    fn restart(&mut self) -> io::Result<()> {
        if self.written > 0 {
            self.file.set_len(0)?;
            let mut file = self.file;
            file.rewind()?;
            self.counters.done_bytes.fetch_sub(self.written, Ordering::Relaxed);
        }
        self.written = 0;
        self.is_resumed = false;
        self.etag = None;
        self.hasher = self.integrity.map(Integrity::hasher);
        Ok(())
    }

    /// Notes what the head of an answer says of the whole file.
    fn announce(&mut self, response: &Response) {
        self.is_resumed = self.written > 0;
        let tag = response.headers().get(header::ETAG);
        // A weak one may stand for other bytes.
        self.etag = tag.filter(|tag| tag.as_bytes().starts_with(b"\"")).cloned();
        let Some(length) = response.content_length() else { return };
        let whole = self.written + length;
        let before = self.announced.replace(whole);
        if before.is_none() {
            self.counters.announced_files.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.announced_bytes.fetch_sub(before.unwrap_or(0), Ordering::Relaxed);
        self.counters.announced_bytes.fetch_add(whole, Ordering::Relaxed);
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut file = self.file;
        file.write_all(piece)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        }
        self.written += piece.len() as u64;
        self.counters.done_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Compares the bytes with what they should be. Those of several answers are
    /// read once more as a whole.
    fn verify(&mut self) -> io::Result<Verdict> {
        let (Some(integrity), Some(hasher)) = (self.integrity, self.hasher.take()) else {
            return Ok(Verdict::Right(None));
        };
        let found = if self.is_resumed {
            let mut file = self.file;
            file.rewind()?;
            integrity.hash(file, &|| false)?
        } else {
            hasher.finish()
        };
        Ok(if integrity.accepts(&found) { Verdict::Right(Some(found)) } else { Verdict::Wrong(found) })
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if is_disk_full(&error) {
            let hint = "free some space, or name another place with `--cache-dir`".to_owned();
            return Self::stop("host.disk_full", "no space left to write it", hint);
        }
        Self::stop("host.io", format!("cannot write it: {}", error.kind()), None)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Authority(_) => {
                let hint = "`ca` has to name PEM files that everybody who builds can read".to_owned();
                Self::stop("net.bad_ca", error.to_string(), hint)
            }
            ClientError::Tls(_) | ClientError::Http(_) => Self::stop("host.failed", error.to_string(), None),
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads.
fn location(url: &Url, response: &Response) -> Result<Url, Failure> {
    let bad = || Failure::stop("source.bad_answer", "it redirects to nowhere", None);
    let text =
        response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(bad)?;
    let mut next = url.join(text).map_err(|_| bad())?;
    let is_web = matches!(next.scheme(), "http" | "https") && next.host_str().is_some();
    // What the server put there as credentials is not for us to send.
    if !is_web || next.set_username("").is_err() || next.set_password(None).is_err() {
        return Err(bad());
    }
    next.set_fragment(None);
    Ok(next)
}

/// The place of the first byte of a partial answer.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// The server is there, but not now.
fn busy(response: &Response) -> Failure {
    let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    Failure {
        id: "source.unreachable",
        what: format!("the answer was {}", response.status().as_u16()),
        hint: None,
        next: Next::Again(asked.and_then(|text| pace::retry_after(text, SystemTime::now()))),
    }
}

/// Adds credentials: those of the source, or those in the base's address.
fn sign_in(
    request: RequestBuilder,
    credentials: Option<&Credentials>,
    base: &Url,
) -> Result<RequestBuilder, Failure> {
    use base64::Engine as _;
    let basic = |user: &str, password: &str| {
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        format!("Basic {encoded}")
    };
    let text = match credentials {
        Some(Credentials::Bearer(token)) => format!("Bearer {}", token.reveal()),
        Some(Credentials::Basic { user, password }) => basic(user, password.reveal()),
        None if base.username().is_empty() && base.password().is_none() => return Ok(request),
        None => {
            let part = |text: &str| address::unescape(text).unwrap_or_else(|| text.to_owned());
            basic(&part(base.username()), &part(base.password().unwrap_or_default()))
        }
    };
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Failure::stop("source.bad_credentials", "its credentials fit into no header", None))?;
    value.set_sensitive(true);
    Ok(request.header(header::AUTHORIZATION, value))
}

fn refuse_blocked(blocked: &Blocked, target: &Target<'_>) -> Failure {
    Failure::stop("net.blocked_address", blocked.to_string(), set_source(target.source))
}

fn set_source(source: &str) -> String {
    format!(
        "only an address that the operator names may be there: set `url` under `{}` in the policy file",
        table(source)
    )
}

/// The head of a source's table in the policy file.
pub(super) fn table(source: &str) -> String {
    let is_bare = source.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'));
    if is_bare { format!("[sources.{source}]") } else { format!("[sources.\"{source}\"]") }
}

fn refusal(target: &Target<'_>, base: &Url, tries: u32, failure: Failure) -> Refusal {
    let tries = if tries > 1 { format!(" (after {tries} tries)") } else { String::new() };
    Refusal {
        id: failure.id.to_owned(),
        message: format!(
            "cannot fetch `{}` of the source `{}` from `{}`: {}{tries}",
            target.path.in_directory(),
            target.source,
            address::shown_host(base),
            failure.what
        ),
        hint: failure.hint,
    }
}

fn wrong_bytes(target: &Target<'_>, base: &Url, found: &Hash) -> Refusal {
    let expected = target.integrity.map(ToString::to_string).unwrap_or_default();
    Refusal {
        id: "source.integrity".to_owned(),
        message: format!(
            "`{}` of the source `{}` from `{}` is not what was expected: `{expected}`, found `{found}`",
            target.path.in_directory(),
            target.source,
            address::shown_host(base),
        ),
        hint: None,
    }
}
