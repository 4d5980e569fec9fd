//! Where sources and registries are and how to get there, as plain settings.
//!
//! A word of the library: whoever configures sources (a policy file, the command
//! line) and whoever fetches from them share it. Knows no file formats and opens
//! no connection.

mod artifact;
mod registries;

pub use self::artifact::{Artifact, Artifacts};
pub use self::registries::{FindRegistryCredentials, RegistryCredentials, RegistrySettings};

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use url::Url;

/// Everything that decides about the network in one build.
#[derive(Clone, Default)]
pub struct NetworkSettings {
    /// Sources by name: `npm`, `npm:@acme`, `debian`.
    pub sources: BTreeMap<String, SourceSettings>,
    /// Asked for the sources that are not among them.
    pub finder: Option<Arc<dyn FindSource>>,
    /// Registries by name: `index.docker.io`, `registry.example:5000`.
    pub registries: BTreeMap<String, RegistrySettings>,
    /// Asked when a registry wants to know who is there.
    pub registry_credentials: Option<Arc<dyn FindRegistryCredentials>>,
    /// Proxy for `http` addresses. It may have a password in it.
    pub http_proxy: Option<Url>,
    /// Proxy for `https` addresses. It may have a password in it.
    pub https_proxy: Option<Url>,
    /// Hosts that are reached without a proxy, as `NO_PROXY` writes them.
    pub no_proxy: Option<String>,
    /// PEM files of authorities that are trusted beside the system's.
    pub ca: Vec<PathBuf>,
    /// Use no network; what is not in the store is an error.
    pub offline: bool,
}

impl fmt::Debug for NetworkSettings {
    /// Without what is in the proxies' addresses besides their hosts.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sources,
            finder,
            registries,
            registry_credentials,
            http_proxy,
            https_proxy,
            no_proxy,
            ca,
            offline,
        } = self;
        formatter
            .debug_struct("NetworkSettings")
            .field("sources", sources)
            .field("finder", finder)
            .field("registries", registries)
            .field("registry_credentials", registry_credentials)
            .field("http_proxy", &http_proxy.as_ref().map(shown))
            .field("https_proxy", &https_proxy.as_ref().map(shown))
            .field("no_proxy", no_proxy)
            .field("ca", ca)
            .field("offline", offline)
            .finish()
    }
}

/// Looks for sources that the settings do not name.
///
/// It is asked when something is to be fetched, not before: it may read large
/// files and ask other programs, and most builds fetch nothing.
pub trait FindSource: fmt::Debug + Send + Sync {
    /// Where `name` is, if anything says so; for a part such as `npm:@acme`, only
    /// what is said of the part. Takes seconds at most.
    fn find(&self, name: &str) -> Option<SourceSettings>;
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// The variable that says where a source is: `WAPACK_SOURCE_NPM_ACME` for `npm:@acme`.
#[must_use]
pub fn source_variable(source: &str) -> String {
    let words = source.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold("WAPACK_SOURCE".to_owned(), |variable, word| {
        format!("{variable}_{}", word.to_ascii_uppercase())
    })
}

/// An address that cannot be a base or a proxy, and why. It has no part of the
/// address in it: there could be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    #[error("it is not an `http://` or `https://` address")]
    NotHttp,
    #[error("it has a `?` or a `#`")]
    Tail,
}

/// Reads the base of a source. A user name or password in it becomes credentials
/// and is not in the base any more.
///
/// # Errors
/// [`BadAddress`].
pub fn parse_base(text: &str) -> Result<(Url, Option<Credentials>), BadAddress> {
    let mut url = parse_http(text)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(BadAddress::Tail);
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let credentials = has_userinfo(&url).then(|| Credentials::Basic {
        user: decoded(url.username()),
        password: Secret::new(decoded(url.password().unwrap_or_default())),
    });
    // Neither fails for an address with a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok((url, credentials))
}

/// Reads a proxy; without a scheme it is an `http` one, as everywhere.
///
/// # Errors
/// [`BadAddress`].
pub fn parse_proxy(text: &str) -> Result<Url, BadAddress> {
    if text.contains("://") { parse_http(text) } else { parse_http(&format!("http://{text}")) }
}

fn parse_http(text: &str) -> Result<Url, BadAddress> {
    // The parser forgives spaces, line ends and missing slashes; an address is not meant to have them.
    let is_plain = !text.chars().any(|character| character.is_control() || character.is_whitespace());
    let has_scheme = ["http://", "https://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    let url = if is_plain && has_scheme { Url::parse(text).ok() } else { None };
    url.filter(|url| url.host_str().is_some_and(|host| !host.is_empty())).ok_or(BadAddress::NotHttp)
}

/// Whether there is a user name or a password in an address.
pub fn has_userinfo(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// An address as it may be shown: without user name and password.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// How to sign in.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Bearer(Secret),
    Basic { user: String, password: Secret },
}

impl fmt::Debug for Credentials {
    /// Without the user: where there is no password, that is often a token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bearer(_) => "Bearer(…)",
            Self::Basic { .. } => "Basic(…)",
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// R14: a password in an address is neither in the base nor in what is printed.
    #[test]
    fn r14_userinfo_becomes_credentials() {
        let (base, credentials) = parse_base("HTTPS://jo%40e:CANARY%3a1@Mirror.example:443/npm").unwrap();
        assert_eq!(base.as_str(), "https://mirror.example/npm/");
        let Some(Credentials::Basic { user, password }) = &credentials else { panic!("{credentials:?}") };
        assert_eq!((user.as_str(), password.reveal()), ("jo@e", "CANARY:1"));
        let settings = NetworkSettings {
            sources: [(
                "npm".to_owned(),
                SourceSettings {
                    place: SourcePlace::Base(base),
                    mirrors: Vec::new(),
                    credentials,
                    ca: Vec::new(),
                    trust: SourceTrust::Configured,
                    set_by: "test".to_owned(),
                },
            )]
            .into(),
            https_proxy: Some(parse_proxy("http://joe:CANARY@proxy.example:3128").unwrap()),
            ..NetworkSettings::default()
        };
        let token = parse_base("https://CANARY@mirror.example/").unwrap();
        let printed = format!("{settings:?} {settings:#?} {token:?}");
        assert!(printed.contains("http://proxy.example:3128/"), "{printed}");
        assert!(!printed.contains("CANARY"), "{printed}");
    }

    #[test]
    fn only_http_addresses_with_a_host_are_bases() {
        for text in ["https://h.example", "http://[::1]:8080/x", "https://h.example/a/b/"] {
            assert!(parse_base(text).unwrap().0.path().ends_with('/'), "{text}");
        }
        for text in [
            "",
            "h.example",
            "https:/h.example",
            "https:h.example",
            "https://",
            "https://user@",
            "ftp://h.example",
            "file:///srv",
            "https://h.example/\n",
            " https://h.example",
            "https://h.exa mple",
            "https://h.example:99999",
            "https://h.example/?a",
            "https://h.example/#a",
            "ä",
        ] {
            assert!(parse_base(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_proxy("proxy.example:3128").unwrap().as_str(), "http://proxy.example:3128/");
        assert!(parse_proxy("socks5://proxy.example").is_err());
    }
}
