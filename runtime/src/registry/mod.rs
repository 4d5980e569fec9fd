//! A client of registries: what is in a repository, and how to put something there.
//!
//! It knows the distribution specification, and neither what images are for nor where blobs
//! are kept on this machine: those go through [`BlobStore`](crate::oci::blob::BlobStore).
//!
//! It is our own on top of `reqwest`, and not the `oci-client` crate (0.18), which has no
//! seam for what is promised here: it makes its own connections (no look at the address a
//! redirect leads to, G18), sends passwords to whatever realm a registry names (R1), and
//! reads every document as a whole however long it is (R5). It also sends no identity
//! tokens and resumes nothing; what would be left of it are its types, and those of
//! `oci-spec` are in use already.
//!
//! Callers wait for answers: the threads that do so run on a runtime of this module.

mod authorization;
mod challenge;
mod documents;
mod endpoint;
mod error;
mod exchange;
mod fetch;
mod image;
mod json;
mod publish;
mod referrers;
mod removal;
mod tally;
mod upload;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime;

pub use self::error::{RegistryError, Trouble};
pub use self::fetch::RemoteBlob;
pub use self::image::RemoteImage;
pub use self::publish::{Package, PackageBlob, PackageBytes, Published, PublishedTag};

use self::authorization::Authorization;
use self::endpoint::{Endpoint, may_be_plain};
use self::exchange::{Tried, trouble_of};
use crate::cancel::Cancel;
use crate::http::client::{Clients, World};
use crate::http::pace::Floor;
use crate::limits::Limits;
use crate::network::{NetworkSettings, RegistrySettings};
use crate::oci::image::Document;
use crate::oci::reference::Reference;

/// Threads that move bytes between sockets and the library's own threads.
const NETWORK_THREADS: usize = 2;
/// Names are resolved on threads that block.
const RESOLVER_THREADS: usize = 4;
/// Blobs on their way at the same time.
const TRANSFERS: usize = 4;
/// Between two looks at whether somebody wants to stop.
const LOOK: Duration = Duration::from_millis(100);

/// The registries that can be reached, under any name. It starts no thread and opens no
/// connection before it is asked for something.
pub struct Registry {
    shared: Shared,
    /// For what is only passed on.
    scratch: PathBuf,
    runtime: Runtime,
}

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// What all requests share.
pub(super) struct Shared {
    clients: Clients,
    limits: Limits,
    registries: BTreeMap<String, RegistrySettings>,
    offline: bool,
    authorization: Authorization,
    /// Registries that may be spoken to in plain text, by whether they are.
    plain: tokio::sync::Mutex<BTreeMap<String, bool>>,
    /// What names led to when they were first asked for, until they are written here: all that is made in one
    /// run is made of the same images (S1).
    named: Mutex<BTreeMap<Reference, Document>>,
}

impl Registry {
    /// Registries as the settings have them, within `limits`. Blobs that are only passed on
    /// are in files of the directory `scratch` meanwhile, which have no names.
    #[must_use]
    pub fn new(settings: &NetworkSettings, limits: &Limits, scratch: PathBuf) -> Self {
        Self::in_world(settings, limits, scratch, World::default())
    }

    pub(crate) fn in_world(
        settings: &NetworkSettings,
        limits: &Limits,
        scratch: PathBuf,
        world: World,
    ) -> Self {
        let connect = Duration::from_secs(limits.http_connect_seconds);
        let shared = Shared {
            clients: Clients::new(settings, world, connect),
            limits: limits.clone(),
            registries: settings.registries.clone(),
            offline: settings.offline,
            authorization: Authorization::new(settings.registry_credentials.clone()),
            plain: tokio::sync::Mutex::default(),
            named: Mutex::default(),
        };
        Self { shared, scratch, runtime: Runtime::default() }
    }

    /// Waits for `work` on this thread; not longer than until somebody wants to stop.
    fn wait<T>(
        &self,
        cancel: &Cancel,
        work: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        cancel.check()?;
        let handle = self.runtime.handle()?;
        handle.block_on(async {
            let mut work = std::pin::pin!(work);
            loop {
                match tokio::time::timeout(LOOK, &mut work).await {
                    Ok(result) => return result,
                    Err(_) => cancel.check()?,
                }
            }
        })
    }
}

/// The runtime that drives connections; starts when first needed.
#[derive(Default)]
struct Runtime(OnceLock<Result<runtime::Runtime, std::io::ErrorKind>>);

impl Runtime {
    fn handle(&self) -> Result<&runtime::Handle, RegistryError> {
        let start = || {
            runtime::Builder::new_multi_thread()
                .worker_threads(NETWORK_THREADS)
                .max_blocking_threads(RESOLVER_THREADS)
                .thread_name("registries")
                .enable_all()
                .build()
                .map_err(|error| error.kind())
        };
        match self.0.get_or_init(start) {
            Ok(runtime) => Ok(runtime.handle()),
            Err(kind) => Err(RegistryError::Start((*kind).into())),
        }
    }
}

impl Drop for Runtime {
    /// Without waiting for a name that is being resolved.
    fn drop(&mut self) {
        if let Some(Ok(runtime)) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn settings(&self, registry: &str) -> Option<&RegistrySettings> {
        self.registries.get(registry)
    }

    fn named(&self) -> MutexGuard<'_, BTreeMap<Reference, Document>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn floor(&self) -> Floor {
        Floor::new(self.limits.http_least_bytes_per_second, self.clients.world().window, Instant::now())
    }

    fn check_online(&self, registry: &str) -> Result<(), RegistryError> {
        if self.offline {
            return Err(RegistryError::Offline { registry: registry.to_owned() });
        }
        Ok(())
    }

    /// Whom to ask for what is in `registry`: mirrors first.
    async fn readable(&self, registry: &str) -> Vec<Result<Endpoint, Tried>> {
        let mirrors = Endpoint::mirrors(self.settings(registry)).into_iter().map(Ok);
        let own = self.origin(registry).await.map_err(Tried::from);
        mirrors.chain(std::iter::once(own)).collect()
    }

    /// The registry itself.
    async fn origin(&self, registry: &str) -> Result<Endpoint, Trouble> {
        let settings = self.settings(registry);
        let of = |scheme| {
            Endpoint::of_registry(registry, scheme, settings)
                .map_err(|_| Trouble::Protocol("its name is no address"))
        };
        if !may_be_plain(registry, settings) {
            return of("https");
        }
        let mut known = self.plain.lock().await;
        let is_plain = if let Some(is_plain) = known.get(registry) {
            *is_plain
        } else {
            let is_plain = !self.speaks_tls(&of("https")?).await?;
            known.insert(registry.to_owned(), is_plain);
            is_plain
        };
        of(if is_plain { "http" } else { "https" })
    }

    /// Whether there is TLS. A certificate that is not trusted is TLS, too (R14).
    async fn speaks_tls(&self, endpoint: &Endpoint) -> Result<bool, Trouble> {
        let reach = self.may_ask(endpoint, &endpoint.base, true)?;
        let client = self.clients.get(&endpoint.ca, reach)?;
        let request = client.get(endpoint.base.clone());
        let wait = Duration::from_secs(self.limits.http_connect_seconds);
        match tokio::time::timeout(wait, request.send()).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) => match crate::http::client::find::<rustls::Error>(&error) {
                // What came is no TLS.
                Some(rustls::Error::InvalidMessage(_)) => Ok(false),
                Some(_) => Err(trouble_of(&error)),
                None => Ok(!error.is_connect()),
            },
            Err(_) => Ok(false),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
