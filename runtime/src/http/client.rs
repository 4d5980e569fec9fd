//! Connections: certificates, proxies, and which machines may be talked to.
//!
//! Every name is resolved here, once for each connection, and the connection
//! goes to the addresses that were looked at (G18). What is asked of a server,
//! and what its answer means, is no concern of this file.
//!
//! Through a proxy the proxy resolves: it is the operator's, so its own address
//! may be anywhere, and where *it* connects to is the operator's business.
//! Addresses that stand in an URL as such are looked at all the same.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, NoProxy, Proxy, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use url::Url;

use super::address::{self, is_internal};
use super::pace::WINDOW;
use crate::network::NetworkSettings;

/// Where systems keep the authorities they trust, as one PEM file: Debian and
/// Alpine, Fedora and its kin, SUSE, and others.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Who sends a request.
const USER_AGENT: &str = concat!("wapack/", env!("CARGO_PKG_VERSION"));

/// Which machines a request may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// Any: the operator named it.
    Anywhere,
    /// Those of the public internet: somebody else named it.
    Public,
}

/// What this request may not reach, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Blocked(String);

impl Blocked {
    fn at(host: &str, address: IpAddr) -> Self {
        Self(format!("`{host}` is at the internal address {address}"))
    }
}

/// A file with certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read certificates from `{}`: {message}", path.display())]
pub(crate) struct BadAuthority {
    path: PathBuf,
    message: String,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(transparent)]
    Authority(#[from] BadAuthority),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot set up HTTP: {0}")]
    Http(String),
}

type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// The outside world as far as a test replaces it.
#[derive(Clone)]
pub(crate) struct World {
    /// The addresses of a name.
    pub(crate) resolve: Arc<dyn Fn(String) -> Lookup + Send + Sync>,
    /// Whether an address is not one of the public internet.
    pub(crate) is_internal: fn(IpAddr) -> bool,
    /// The shortest wait before a second try.
    pub(crate) first_wait: Duration,
    /// How long a body may be slow before it counts as slow.
    pub(crate) window: Duration,
}

impl Default for World {
    fn default() -> Self {
        Self {
            resolve: Arc::new(|name| Box::pin(system_lookup(name))),
            is_internal,
            first_wait: Duration::from_millis(500),
            window: WINDOW,
        }
    }
}

async fn system_lookup(name: String) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    Ok(found.map(|address| address.ip()).collect())
}

impl fmt::Debug for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("World").finish_non_exhaustive()
    }
}

/// One client for each set of authorities and each reach, so that a connection
/// made under one rule is never used under another.
pub(crate) struct Clients {
    world: World,
    http_proxy: Option<Url>,
    https_proxy: Option<Url>,
    no_proxy: Option<String>,
    /// Trusted for every source.
    ca: Vec<PathBuf>,
    connect_timeout: Duration,
    system_roots: OnceLock<Vec<CertificateDer<'static>>>,
    made: Mutex<HashMap<(Vec<PathBuf>, Reach), Client>>,
}

impl fmt::Debug for Clients {
    /// Addresses of proxies may have passwords in them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Clients").finish_non_exhaustive()
    }
}

impl Clients {
    pub(crate) fn new(settings: &NetworkSettings, world: World, connect_timeout: Duration) -> Self {
        Self {
            world,
            http_proxy: settings.http_proxy.clone(),
            https_proxy: settings.https_proxy.clone(),
            no_proxy: settings.no_proxy.clone(),
            ca: settings.ca.clone(),
            connect_timeout,
            system_roots: OnceLock::new(),
            made: Mutex::default(),
        }
    }

    /// A client that also trusts the authorities in `ca`.
    pub(crate) fn get(&self, ca: &[PathBuf], reach: Reach) -> Result<Client, ClientError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (ca.to_owned(), reach);
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        let client = self.make(ca, reach)?;
        made.insert(key, client.clone());
        Ok(client)
    }

    /// Whether `url` itself says something that its reach forbids; names are
    /// looked at when they are resolved.
    pub(crate) fn check(&self, url: &Url, reach: Reach) -> Result<(), Blocked> {
        if reach == Reach::Anywhere {
            return Ok(());
        }
        if let Some(address) = address::literal_address(url)
            && (self.world.is_internal)(address)
        {
            return Err(Blocked::at(url.host_str().unwrap_or_default(), address));
        }
        // The proxy may be anywhere, but nobody is sent to it under its own name.
        if self.proxy_names().any(|name| Some(name) == url.host_str()) {
            return Err(Blocked(format!("`{}` is the proxy", url.host_str().unwrap_or_default())));
        }
        Ok(())
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    fn proxy_names(&self) -> impl Iterator<Item = &str> {
        [&self.http_proxy, &self.https_proxy].into_iter().flatten().filter_map(Url::host_str)
    }

    fn make(&self, ca: &[PathBuf], reach: Reach) -> Result<Client, ClientError> {
        let resolver = Resolver {
            world: self.world.clone(),
            reach,
            proxies: self.proxy_names().map(str::to_owned).collect(),
        };
        let http = |error: reqwest::Error| ClientError::Http(cause(&error));
        let mut builder = Client::builder()
            .tls_backend_preconfigured(self.tls(ca)?)
            .dns_resolver(resolver)
            .redirect(redirect::Policy::none())
            .referer(false)
            // Those of the environment are not ours to read; ours follow.
            .no_proxy()
            .connect_timeout(self.connect_timeout)
            .user_agent(USER_AGENT);
        let skip = self.no_proxy.as_deref().and_then(NoProxy::from_string);
        if let Some(url) = &self.http_proxy {
            builder = builder.proxy(Proxy::http(url.clone()).map_err(http)?.no_proxy(skip.clone()));
        }
        if let Some(url) = &self.https_proxy {
            builder = builder.proxy(Proxy::https(url.clone()).map_err(http)?.no_proxy(skip));
        }
        builder.build().map_err(http)
    }

    fn tls(&self, ca: &[PathBuf]) -> Result<ClientConfig, ClientError> {
        let mut roots = RootCertStore::empty();
        // Bundles of systems hold some that are too odd to be understood; they are passed over.
        roots.add_parsable_certificates(self.system_roots.get_or_init(system_roots).iter().cloned());
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for path in self.ca.iter().chain(ca) {
            for certificate in read_authorities(path)? {
                let unfit =
                    |error: rustls::Error| BadAuthority { path: path.clone(), message: error.to_string() };
                roots.add(certificate).map_err(unfit)?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(tls)
    }
}

/// The authorities this system trusts; none where there is no bundle.
fn system_roots() -> Vec<CertificateDer<'static>> {
    SYSTEM_BUNDLES.iter().find_map(|path| read_authorities(Path::new(path)).ok()).unwrap_or_default()
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadAuthority> {
    let bad = |message: String| BadAuthority { path: path.to_owned(), message };
    let bytes = fs_err::read(path).map_err(|error| bad(error.kind().to_string()))?;
    let found = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if found.is_empty() { Err(bad("it has none in PEM form".to_owned())) } else { Ok(found) }
}

/// Resolves names, and refuses all answers when one of them is out of reach.
struct Resolver {
    world: World,
    reach: Reach,
    /// Hosts of the operator's proxies.
    proxies: Vec<String>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let lookup = (self.world.resolve)(host.clone());
        let is_internal = self.world.is_internal;
        let checked = self.reach == Reach::Public && !self.proxies.contains(&host);
        Box::pin(async move {
            let addresses = lookup.await?;
            if let Some(address) = addresses.iter().find(|address| checked && is_internal(**address)) {
                return Err(Blocked::at(&host, *address).into());
            }
            // The port is that of the URL.
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

/// The first error of type `T` among `error` and its causes, also those that
/// an `io::Error` wraps.
pub(crate) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    if let Some(found) = error.downcast_ref() {
        return Some(found);
    }
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.and_then(|inner| find(inner)).or_else(|| error.source().and_then(find))
}

/// The words of the innermost cause: the outer ones say "error sending request",
/// and might say for which address.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
