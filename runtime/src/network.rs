//! Where sources are and how to get there, as plain settings.
//!
//! A word of the library: whoever configures sources (a policy file, the command
//! line) and whoever fetches from them share it. Knows no file formats and opens
//! no connection.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use url::Url;

/// Everything that decides about the network in one build.
#[derive(Debug, Clone, Default)]
pub struct NetworkSettings {
    /// Sources by name: `npm`, `npm:@acme`, `debian`.
    pub sources: BTreeMap<String, SourceSettings>,
    /// Proxy for `http` addresses.
    pub http_proxy: Option<Url>,
    /// Proxy for `https` addresses.
    pub https_proxy: Option<Url>,
    /// Hosts that are reached without a proxy, as `NO_PROXY` writes them.
    pub no_proxy: Option<String>,
    /// PEM files of authorities that are trusted beside the system's.
    pub ca: Vec<PathBuf>,
    /// Use no network; what is not in the store is an error.
    pub offline: bool,
}

/// One source.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Where it is.
    pub place: SourcePlace,
    /// Bases that are asked, in this order, when `place` does not answer.
    pub mirrors: Vec<Url>,
    /// Sent to the base and its mirrors only, never to where they redirect.
    pub credentials: Option<Credentials>,
    /// PEM files of authorities that are trusted for this source, too.
    pub ca: Vec<PathBuf>,
    /// How far the place is trusted.
    pub trust: SourceTrust,
    /// Who said so, for messages: `/etc/wapack/policy.toml:12`, `NPM_CONFIG_REGISTRY`.
    pub set_by: String,
}

/// Where a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourcePlace {
    /// A directory laid out like the source.
    Directory(PathBuf),
    /// `http` or `https`. Paths are appended to its path.
    Base(Url),
}

/// Who stands behind a source's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceTrust {
    /// The operator or user: it may be anywhere, a private network included.
    Configured,
    /// The author of the app, whose lock file names it: `https` to a public
    /// address only, and only with an integrity value.
    LockFile,
}

/// How to sign in.
#[derive(Debug, Clone)]
pub enum Credentials {
    Bearer(Secret),
    Basic { user: String, password: Secret },
}

/// Text that nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the header it goes into and for nothing else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}
