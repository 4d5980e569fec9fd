//! What is set about registries, and who knows how to sign in to them.

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::Secret;

/// What is set about one registry. Without settings a registry is asked with `https` at
/// its own name, on this machine (loopback) also with `http`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegistrySettings {
    /// Bases that are asked, in this order, before the registry itself, when something is
    /// fetched; nothing is ever published to a mirror. `https://mirror.example/` stands for
    /// `https://mirror.example/v2/…`.
    pub mirrors: Vec<Url>,
    /// Whether it may be spoken to without TLS, and only if TLS is not to be had with it:
    /// a certificate that does not fit is an error all the same (R14).
    pub insecure: bool,
    /// Hosts, with ports unless they are the usual ones, that may be sent credentials of
    /// this registry to ask for a token, beside the registry itself (R1).
    pub realms: Vec<String>,
    /// PEM files of authorities that are trusted for this registry, too.
    pub ca: Vec<PathBuf>,
    /// Who said so, for messages: `/etc/wapack/policy.toml:12`.
    pub set_by: String,
}

/// Looks for credentials of registries.
///
/// It is asked once for each repository, when a registry wants credentials and not before:
/// it may read files and ask other programs. Only the process that talks to registries has
/// one; workers and buildpacks never do.
pub trait FindRegistryCredentials: fmt::Debug + Send + Sync {
    /// How to sign in to the `repository` of a `registry` (`index.docker.io`,
    /// `registry.example:5000`); `None` is nobody in particular.
    ///
    /// # Errors
    /// When somebody is configured to know and cannot say, in words without secrets.
    fn find(&self, registry: &str, repository: &str) -> Result<Option<RegistryCredentials>, String>;
}

/// How to sign in to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryCredentials {
    /// For the registry, or for who gives tokens for it.
    Basic { user: String, password: Secret },
    /// A refresh token of `OAuth2`, for who gives tokens for the registry (`identitytoken` of
    /// Docker's configuration).
    IdentityToken(Secret),
    /// A token for the registry itself, sent as it is.
    Bearer(Secret),
}

impl fmt::Debug for RegistryCredentials {
    /// Without the user: where there is no password, that is often a token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Basic { .. } => "Basic(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::Bearer(_) => "Bearer(…)",
        })
    }
}
