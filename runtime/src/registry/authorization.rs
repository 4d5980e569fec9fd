//! Signing in: which credentials go where, and the tokens that come of them.
//!
//! Credentials are found under the name of the registry, and go to that registry or to who
//! may give tokens for it (R1), over connections of their own that follow no redirect. What
//! is found here is sent by `exchange` to the very server it belongs to (R2).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::Shared;
use super::challenge::{Challenge, challenges};
use super::endpoint::Endpoint;
use super::error::Trouble;
use super::exchange::{read_up_to, send};
use crate::http::client::Reach;
use crate::network::{FindRegistryCredentials, RegistryCredentials};

/// A token server's answer is a few KiB.
const MAX_TOKEN_ANSWER: u64 = 256 << 10;
/// What a token is good for when nothing is said, and what it is at least given.
const LEAST_LIFE: Duration = Duration::from_mins(1);
/// Nothing is kept longer: whoever was shut out is noticed then at the latest.
const LONGEST_LIFE: Duration = Duration::from_hours(1);

/// What a request wants to do, and to which repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope {
    pub(super) repository: String,
    pub(super) push: bool,
    pub(super) delete: bool,
    /// Another repository of the registry that blobs are mounted from.
    pub(super) from: Option<String>,
}

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self { repository: repository.to_owned(), push: false, delete: false, from: None }
    }

    pub(super) fn push(repository: &str) -> Self {
        Self { push: true, ..Self::pull(repository) }
    }

    pub(super) fn delete(repository: &str) -> Self {
        Self { delete: true, ..Self::push(repository) }
    }

    /// As token servers read it.
    fn words(&self) -> Vec<String> {
        let actions = match self {
            Self { delete: true, .. } => "pull,push,delete",
            Self { push: true, .. } => "pull,push",
            _ => "pull",
        };
        let own = format!("repository:{}:{actions}", self.repository);
        let from = self.from.as_ref().map(|from| format!("repository:{from}:pull"));
        std::iter::once(own).chain(from).collect()
    }
}

/// What was found out about signing in, for as long as the registry is in use.
#[derive(Default)]
pub(super) struct Authorization {
    finder: Option<Arc<dyn FindRegistryCredentials>>,
    /// By the server's origin.
    headers: Mutex<BTreeMap<(String, Scope), Held>>,
    /// What the finder said, by registry and repository.
    found: Mutex<BTreeMap<(String, String), Option<RegistryCredentials>>>,
    /// One at a time signs in; the others then take what it got.
    turn: tokio::sync::Mutex<()>,
}

/// A header that was accepted, or is hoped to be.
#[derive(Clone)]
struct Held {
    header: HeaderValue,
    until: Option<Instant>,
    /// Whether credentials stand behind it.
    signed_in: bool,
}

impl fmt::Debug for Authorization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authorization").finish_non_exhaustive()
    }
}

/// What a token server says. Other fields do not matter.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Authorization {
    pub(super) fn new(finder: Option<Arc<dyn FindRegistryCredentials>>) -> Self {
        Self { finder, ..Self::default() }
    }

    /// What to send to `endpoint` for `scope`, if that is known by now.
    pub(super) fn known(&self, endpoint: &Endpoint, scope: &Scope) -> Option<HeaderValue> {
        self.held(endpoint, scope).map(|held| held.header)
    }

    fn held(&self, endpoint: &Endpoint, scope: &Scope) -> Option<Held> {
        let headers = lock(&self.headers);
        let of = |scope: Scope| headers.get(&(endpoint.base.to_string(), scope));
        // What is no token is good for whatever is done there.
        let lasting = of(Scope::pull(&scope.repository)).filter(|held| held.until.is_none());
        let held = of(scope.clone()).or(lasting)?;
        held.until.is_none_or(|until| until > Instant::now()).then(|| held.clone())
    }

    fn keep(&self, endpoint: &Endpoint, scope: &Scope, held: Held) {
        let scope = if held.until.is_none() { Scope::pull(&scope.repository) } else { scope.clone() };
        lock(&self.headers).insert((endpoint.base.to_string(), scope), held);
    }

    /// Whether credentials are sent, for messages.
    pub(super) fn is_signed_in(&self, endpoint: &Endpoint, scope: &Scope) -> bool {
        self.held(endpoint, scope).is_some_and(|held| held.signed_in)
    }

    /// Does what an answer with 401 asks for; `refused` is what was sent. `false` when there
    /// is nothing else to send.
    pub(super) async fn sign_in(
        &self,
        shared: &Shared,
        endpoint: &Endpoint,
        scope: &Scope,
        refused: Option<&HeaderValue>,
        headers: &HeaderMap,
    ) -> Result<bool, Trouble> {
        let _turn = self.turn.lock().await;
        if let Some(known) = self.known(endpoint, scope)
            && Some(&known) != refused
        {
            return Ok(true);
        }
        let offered = challenges(headers);
        let credentials = self.credentials(endpoint, scope)?;
        let Some(held) = self.header(shared, endpoint, scope, &offered, credentials.as_ref()).await? else {
            return Ok(false);
        };
        // What was just refused is no better a second time; a token is never the same twice.
        let is_new = Some(&held.header) != refused;
        self.keep(endpoint, scope, held);
        Ok(is_new)
    }

    fn credentials(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
    ) -> Result<Option<RegistryCredentials>, Trouble> {
        let Some(finder) = &self.finder else { return Ok(None) };
        let key = (endpoint.name.clone(), scope.repository.clone());
        if let Some(found) = lock(&self.found).get(&key) {
            return Ok(found.clone());
        }
        let found = finder.find(&endpoint.name, &scope.repository).map_err(Trouble::Credentials)?;
        lock(&self.found).insert(key, found.clone());
        Ok(found)
    }

    async fn header(
        &self,
        shared: &Shared,
        endpoint: &Endpoint,
        scope: &Scope,
        offered: &[Challenge],
        credentials: Option<&RegistryCredentials>,
    ) -> Result<Option<Held>, Trouble> {
        if let Some(RegistryCredentials::Bearer(token)) = credentials {
            return Ok(Some(Held { header: bearer(token.reveal())?, until: None, signed_in: true }));
        }
        // A token says less about who we are than a password does.
        let by_token = offered.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service } => Some((realm, service.as_deref())),
            Challenge::Basic => None,
        });
        if let Some((realm, service)) = by_token {
            let realm: Url = realm.parse().map_err(|_| Trouble::Challenge)?;
            return self.token(shared, endpoint, scope, realm, service, credentials).await.map(Some);
        }
        match credentials {
            _ if offered.is_empty() => Err(Trouble::Challenge),
            None => Ok(None),
            Some(RegistryCredentials::Basic { user, password }) => {
                Ok(Some(Held { header: basic(user, password.reveal())?, until: None, signed_in: true }))
            }
            // There is nobody to give a token for it.
            Some(_) => Err(Trouble::Challenge),
        }
    }

    /// Asks for a token.
    async fn token(
        &self,
        shared: &Shared,
        endpoint: &Endpoint,
        scope: &Scope,
        mut realm: Url,
        service: Option<&str>,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<Held, Trouble> {
        let is_web = matches!(realm.scheme(), "http" | "https") && realm.host_str().is_some();
        if !is_web || realm.set_username("").is_err() || realm.set_password(None).is_err() {
            return Err(Trouble::Challenge);
        }
        realm.set_fragment(None);
        let trusted = endpoint.trusts(&realm);
        if !trusted && credentials.is_some() {
            return Err(Trouble::UntrustedRealm { realm: crate::http::address::shown_host(&realm) });
        }
        // Nobody's request may go where a redirect may: it has nothing in it to lose.
        let reach = shared.may_ask(endpoint, &realm, trusted)?;
        let client = shared.clients.get(&endpoint.ca, reach)?;
        let scopes = scope.words();
        let request = match credentials {
            Some(RegistryCredentials::IdentityToken(token)) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token");
                form.append_pair("client_id", "wapack");
                form.append_pair("scope", &scopes.join(" "));
                form.append_pair("refresh_token", token.reveal());
                if let Some(service) = service {
                    form.append_pair("service", service);
                }
                client
                    .post(realm)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.finish())
            }
            other => {
                {
                    let mut query = realm.query_pairs_mut();
                    if let Some(service) = service {
                        query.append_pair("service", service);
                    }
                    for scope in &scopes {
                        query.append_pair("scope", scope);
                    }
                }
                match other {
                    Some(RegistryCredentials::Basic { user, password }) => {
                        client.get(realm).header(AUTHORIZATION, basic(user, password.reveal())?)
                    }
                    _ => client.get(realm),
                }
            }
        };
        let request = request.header(ACCEPT_ENCODING, "identity");
        let mut response = send(shared, request, None).await?;
        let status = response.status();
        match status.as_u16() {
            200 => {}
            408 | 429 | 500.. => return Err(super::exchange::busy(&response)),
            status @ (400 | 401 | 403 | 404) => {
                let signed_in = credentials.is_some();
                return Err(Trouble::Refused { status, codes: Vec::new(), signed_in });
            }
            status => return Err(Trouble::Answer { status, codes: Vec::new() }),
        }
        let body = read_up_to(shared, &mut response, MAX_TOKEN_ANSWER).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| Trouble::Token)?;
        let token = if answer.token.is_empty() { &answer.access_token } else { &answer.token };
        if token.is_empty() {
            return Err(Trouble::Token);
        }
        let life = answer.expires_in.map_or(LEAST_LIFE, Duration::from_secs).clamp(LEAST_LIFE, LONGEST_LIFE);
        // Some of it is spent on the way.
        let until = Some(Instant::now() + life.mul_f64(0.8));
        Ok(Held { header: bearer(token)?, until, signed_in: credentials.is_some() })
    }
}

fn basic(user: &str, password: &str) -> Result<HeaderValue, Trouble> {
    header(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

fn bearer(token: &str) -> Result<HeaderValue, Trouble> {
    header(&format!("Bearer {token}"))
}

fn header(text: &str) -> Result<HeaderValue, Trouble> {
    let mut value = HeaderValue::try_from(text).map_err(|_| Trouble::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

impl Shared {
    /// How far a request to `url` may reach, if it may be sent at all: anywhere with the
    /// registry itself and whom the operator names, else to the public internet (G18).
    pub(super) fn may_ask(&self, endpoint: &Endpoint, url: &Url, own: bool) -> Result<Reach, Trouble> {
        let reach = if own || endpoint.names(url) { Reach::Anywhere } else { Reach::Public };
        // Nobody is led from an encrypted connection to a plain one.
        if url.scheme() != "https" && !(url.scheme() == "http" && endpoint.base.scheme() == "http") {
            return Err(Trouble::Insecure(crate::http::address::shown(url)));
        }
        self.clients.check(url, reach)?;
        Ok(reach)
    }
}
