//! Why a registry could not be used. No text in here has an address's user, password or
//! query in it, nor anything that a server said besides status and codes (R14).

use std::io;
use std::time::Duration;

use crate::cancel::Cancelled;
use crate::fault::{Diagnose, Fault, is_disk_full};
use crate::http::client::{Blocked, ClientError};
use crate::oci::digest::Digest;

/// Why something could not be read from a registry, or written to it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A step did not succeed, however often it was tried.
    #[error("cannot {step} at `{host}`{}", after(*tries))]
    Step { step: String, host: String, tries: u32, source: Trouble },
    /// An index has images, but none that was wanted.
    #[error("`{name}` has no image for `{wanted}`, only for `{}`", there.join("`, `"))]
    NoPlatform { name: String, wanted: String, there: Vec<String> },
    /// The network is not to be used.
    #[error("the registry `{registry}` is not asked: this run is offline")]
    Offline { registry: String },
    /// A layer is neither on this machine nor in a registry.
    #[error("the layer `{digest}` is neither in a file nor in a registry")]
    NowhereToRead { digest: Digest },
    /// A file that is to be published is not what it should be; whoever keeps it forgot it.
    #[error("the kept layer `{digest}` is damaged")]
    DamagedHere { digest: Digest },
    /// A file on this machine.
    #[error("cannot use the file of `{digest}`")]
    File { digest: Digest, source: io::Error },
    /// No thread could be started.
    #[error("cannot start to talk to registries")]
    Start(#[source] io::Error),
    /// Somebody wants to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

fn after(tries: u32) -> String {
    if tries > 1 { format!(" (after {tries} tries)") } else { String::new() }
}

/// What went wrong in one step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    #[error("connecting failed: {0}")]
    Connect(String),
    #[error("the request failed: {0}")]
    Request(String),
    #[error("its certificate is not trusted: {0}")]
    Certificate(String),
    #[error("no answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
    #[error("the body broke off: {0}")]
    Interrupted(String),
    #[error("the body stopped for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("the body is too slow")]
    TooSlow,
    /// The server is there, but not now.
    #[error("the answer was {status}")]
    Busy { status: u16, again_after: Option<Duration> },
    #[error("the answer was {status}{}", with_codes(codes))]
    Answer { status: u16, codes: Vec<String> },
    /// Nobody, or not this user.
    #[error("the answer was {status}{}: {}", with_codes(codes), if *signed_in { "these credentials do not allow it" } else { "it asks for credentials, and there are none" })]
    Refused { status: u16, codes: Vec<String>, signed_in: bool },
    #[error("the answer was {0}, from the proxy")]
    Proxy(u16),
    /// R1
    #[error("it wants the credentials to be sent to `{realm}`")]
    UntrustedRealm { realm: String },
    #[error("how it wants to be signed in to is not understood")]
    Challenge,
    /// Whoever knows the credentials could not say.
    #[error("looking for credentials failed: {0}")]
    Credentials(String),
    #[error("the token that came is of no use")]
    Token,
    #[error("{0}")]
    Blocked(String),
    #[error("`{0}` is not `https`")]
    Insecure(String),
    #[error("it redirects more than {0} times")]
    Redirects(u64),
    #[error("it redirects to nowhere")]
    Nowhere,
    #[error("it is larger than {} bytes", .0)]
    TooLarge(u64),
    #[error("its size is {found} bytes instead of {expected}")]
    Size { expected: u64, found: u64 },
    #[error("its digest is `{found}` instead of `{expected}`")]
    Digest { expected: Digest, found: Digest },
    /// The bytes are those that were sent, but make no sense.
    #[error("{0}")]
    Document(String),
    #[error("the answer is not one of a registry: {0}")]
    Protocol(&'static str),
    #[error("it is not there")]
    NotThere,
    /// A file with certificates.
    #[error("{0}")]
    Authority(String),
    #[error("{0}")]
    Setup(String),
    #[error("cannot write what comes")]
    Keep(#[source] io::Error),
}

fn with_codes(codes: &[String]) -> String {
    if codes.is_empty() { String::new() } else { format!(" `{}`", codes.join("`, `")) }
}

impl Trouble {
    /// Whether the same request may go better later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Connect(_)
                | Self::Request(_)
                | Self::NoAnswer(_)
                | Self::Interrupted(_)
                | Self::Stalled(_)
                | Self::TooSlow
                | Self::Busy { .. }
        )
    }

    /// When the server wants to be asked again.
    pub(super) fn again_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { again_after, .. } => *again_after,
            _ => None,
        }
    }

    /// Whether what came is wrong, as opposed to not coming.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Size { .. } | Self::Digest { .. } | Self::Document(_) | Self::TooLarge(_) | Self::NotThere
        )
    }

    fn id(&self) -> &'static str {
        match self {
            Self::Connect(_) | Self::Request(_) | Self::Interrupted(_) | Self::Busy { .. } => {
                "registry.unreachable"
            }
            Self::Certificate(_) => "net.certificate",
            Self::NoAnswer(_) => "net.first_byte_timeout",
            Self::Stalled(_) => "net.idle_timeout",
            Self::TooSlow => "net.too_slow",
            Self::Refused { .. } | Self::Token | Self::Challenge => "registry.unauthorized",
            Self::Credentials(_) => "registry.credentials",
            Self::Proxy(_) => "net.proxy_unauthorized",
            Self::UntrustedRealm { .. } => "registry.untrusted_realm",
            Self::Blocked(_) => "net.blocked_address",
            Self::Insecure(_) => "net.insecure",
            Self::Redirects(_) => "net.redirect_limit",
            Self::TooLarge(_) => "registry.too_large",
            Self::Size { .. } | Self::Digest { .. } => "registry.integrity",
            Self::Document(_) => "registry.bad_document",
            Self::Answer { .. } | Self::Nowhere | Self::Protocol(_) => "registry.bad_answer",
            Self::NotThere => "registry.not_found",
            Self::Authority(_) => "net.bad_ca",
            Self::Setup(_) => "host.failed",
            Self::Keep(error) if is_disk_full(error) => "host.disk_full",
            Self::Keep(_) => "host.io",
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Certificate(_) => {
                "if an authority of your own signed it, name its PEM file as `ca` of this registry".to_owned()
            }
            Self::Refused { signed_in: false, .. } => {
                "sign in to the registry, for example with `docker login`".to_owned()
            }
            Self::Refused { .. } => {
                "check the credentials, and what they allow in this repository".to_owned()
            }
            Self::UntrustedRealm { realm } => format!(
                "if `{realm}` is to have them, name it among the `realms` of this registry; a registry cannot choose that"
            ),
            Self::Blocked(_) => {
                "a registry may send requests to public addresses only; name the host among its `realms` if it belongs to it"
                    .to_owned()
            }
            Self::Insecure(_) => {
                "registries are asked with `https`, except on this machine and where one is named as insecure"
                    .to_owned()
            }
            Self::Connect(_) => {
                "check the registry's name, the network, and the variables `HTTPS_PROXY` and `NO_PROXY`".to_owned()
            }
            Self::Proxy(_) => "give the proxy's address with user and password".to_owned(),
            Self::Authority(_) => {
                "`ca` has to name PEM files that can be read".to_owned()
            }
            Self::Keep(error) if is_disk_full(error) => "free some space".to_owned(),
            _ => return None,
        })
    }
}

impl From<Blocked> for Trouble {
    fn from(blocked: Blocked) -> Self {
        Self::Blocked(blocked.to_string())
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Authority(_) => Self::Authority(error.to_string()),
            ClientError::Tls(_) | ClientError::Http(_) => Self::Setup(error.to_string()),
        }
    }
}

impl Diagnose for RegistryError {
    fn id(&self) -> &'static str {
        match self {
            Self::Step { source, .. } => source.id(),
            Self::NoPlatform { .. } => "registry.no_platform",
            Self::Offline { .. } => "registry.offline",
            Self::NowhereToRead { .. } => "registry.no_layer",
            Self::DamagedHere { .. } => "store.damaged",
            Self::File { .. } => "host.io",
            Self::Start(_) => "host.failed",
            Self::Cancelled(_) => "build.cancelled",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Step {
                source:
                    Trouble::Refused { .. }
                    | Trouble::UntrustedRealm { .. }
                    | Trouble::Credentials(_)
                    | Trouble::Insecure(_)
                    | Trouble::Authority(_),
                ..
            }
            | Self::NoPlatform { .. } => Fault::Caller,
            _ => Fault::Environment,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Step { source, .. } => source.hint(),
            Self::DamagedHere { .. } => Some("try again: it is made anew".to_owned()),
            _ => None,
        }
    }
}
