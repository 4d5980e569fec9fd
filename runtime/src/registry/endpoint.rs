//! Which addresses a registry's name stands for.

use std::path::PathBuf;

use url::{Host, Url};

use crate::http::address::{same_origin, shown_host};
use crate::network::RegistrySettings;

/// The registry that short names mean, where its API is, and who gives tokens for it.
const DOCKER_HUB: &str = "index.docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// Hosts that are known to give the tokens of another one's registry (R1).
const KNOWN_REALMS: [(&str, &str); 2] =
    [(DOCKER_HUB_HOST, "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

/// One server that is asked for what is in a registry: the registry itself or a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Whose credentials are for it: the registry's name, or the mirror's host.
    pub(super) name: String,
    /// `https://registry.example/v2/`
    pub(super) base: Url,
    /// Trusted beside the system's.
    pub(super) ca: Vec<PathBuf>,
    /// Other hosts that may have the credentials, to give a token for them.
    realms: Vec<String>,
}

impl Endpoint {
    /// The registry itself, with a scheme that was found out.
    pub(super) fn of_registry(
        name: &str,
        scheme: &str,
        settings: Option<&RegistrySettings>,
    ) -> Result<Self, url::ParseError> {
        let host = if name == DOCKER_HUB { DOCKER_HUB_HOST } else { name };
        Ok(Self {
            name: name.to_owned(),
            base: format!("{scheme}://{host}/v2/").parse()?,
            ca: settings.map(|settings| settings.ca.clone()).unwrap_or_default(),
            realms: settings.map(|settings| settings.realms.clone()).unwrap_or_default(),
        })
    }

    /// The mirrors of a registry, in order. They get no credentials but their own.
    pub(super) fn mirrors(settings: Option<&RegistrySettings>) -> Vec<Self> {
        let Some(settings) = settings else { return Vec::new() };
        let of = |mirror: &Url| {
            let mut base = mirror.clone();
            // Whoever has credentials for a mirror gives them under its name.
            let (_, _) = (base.set_username(""), base.set_password(None));
            let slash = if base.path().ends_with('/') { "" } else { "/" };
            base.set_path(&format!("{}{slash}v2/", base.path()));
            base.set_query(None);
            base.set_fragment(None);
            Self { name: shown_host(&base), base, ca: settings.ca.clone(), realms: Vec::new() }
        };
        settings.mirrors.iter().map(of).collect()
    }

    /// An address below the repository: `manifests/latest`.
    pub(super) fn url(&self, repository: &str, below: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{repository}/{below}", self.base.path()));
        url
    }

    /// For messages.
    pub(super) fn host(&self) -> String {
        shown_host(&self.base)
    }

    /// Whether a request to `url` is one to this server.
    pub(super) fn owns(&self, url: &Url) -> bool {
        same_origin(&self.base, url)
    }

    /// Whether credentials of this server may go to `realm` (R1): the same host, on the same
    /// port or the usual one of `https`, or one that is known or named by the operator. In
    /// plain text only where the registry is spoken to in plain text, too.
    pub(super) fn trusts(&self, realm: &Url) -> bool {
        let encrypted = realm.scheme() == "https";
        if !encrypted && (realm.scheme() != "http" || self.base.scheme() != "http") {
            return false;
        }
        let same_host = realm.host_str() == self.base.host_str();
        let (port, own_port) = (realm.port_or_known_default(), self.base.port_or_known_default());
        if same_host && (port == own_port || (encrypted && port == Some(443))) {
            return true;
        }
        let known = KNOWN_REALMS.iter().any(|(host, realm_host)| {
            encrypted
                && port == Some(443)
                && self.base.host_str() == Some(host)
                && realm.host_str() == Some(realm_host)
        });
        known || self.names(realm)
    }

    /// Whether the operator says that this host belongs to the registry.
    pub(super) fn names(&self, url: &Url) -> bool {
        self.realms.iter().any(|realm| realm.eq_ignore_ascii_case(&shown_host(url)))
    }
}

/// Whether plain `http` may be tried with this registry: it is on this machine, or named as
/// insecure (R14).
pub(super) fn may_be_plain(name: &str, settings: Option<&RegistrySettings>) -> bool {
    settings.is_some_and(|settings| settings.insecure) || is_loopback(name)
}

fn is_loopback(name: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{name}/")) else { return false };
    match url.host() {
        Some(Host::Domain(host)) => host == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(base: &str, realms: &[&str]) -> Endpoint {
        let realms = realms.iter().map(|realm| (*realm).to_owned()).collect();
        Endpoint { name: "x".to_owned(), base: base.parse().unwrap(), ca: vec![], realms }
    }

    #[test]
    fn docker_hub_is_asked_at_its_own_host() {
        let hub = Endpoint::of_registry("index.docker.io", "https", None).unwrap();
        let url = hub.url("library/debian", "manifests/12");
        assert_eq!(url.as_str(), "https://registry-1.docker.io/v2/library/debian/manifests/12");
        assert!(hub.trusts(&"https://auth.docker.io/token".parse().unwrap()));
        let other = Endpoint::of_registry("registry.example:5000", "https", None).unwrap();
        assert_eq!(other.url("a", "tags/list").as_str(), "https://registry.example:5000/v2/a/tags/list");
        assert!(!other.trusts(&"https://auth.docker.io/token".parse().unwrap()));
    }

    /// R1: which realms get credentials.
    #[test]
    fn r1_realms_that_are_trusted() {
        let secure = endpoint("https://r.example:5050/v2/", &["tokens.example", "other.example:8443"]);
        let plain = endpoint("http://127.0.0.1:5000/v2/", &[]);
        for (registry, realm, trusted) in [
            (&secure, "https://r.example:5050/token", true),
            (&secure, "https://r.example/token", true),
            (&secure, "https://r.example:5051/token", false),
            (&secure, "http://r.example:5050/token", false),
            (&secure, "http://r.example/token", false),
            (&secure, "https://evil.example/token", false),
            (&secure, "https://r.example.evil.example/token", false),
            (&secure, "https://r.example@evil.example/token", false),
            (&secure, "https://tokens.example/token", true),
            (&secure, "http://tokens.example/token", false),
            (&secure, "https://tokens.example:444/token", false),
            (&secure, "https://other.example:8443/token", true),
            (&secure, "https://other.example/token", false),
            (&plain, "http://127.0.0.1:5000/token", true),
            (&plain, "http://127.0.0.1:5001/token", false),
            (&plain, "http://127.0.0.2:5000/token", false),
            (&plain, "ftp://127.0.0.1:5000/token", false),
        ] {
            assert_eq!(registry.trusts(&realm.parse().unwrap()), trusted, "{realm}");
        }
    }

    /// R14: a flag for one registry is for no other.
    #[test]
    fn r14_plain_http_is_for_this_machine_and_the_named() {
        let insecure = RegistrySettings { insecure: true, ..RegistrySettings::default() };
        assert!(may_be_plain("registry.example", Some(&insecure)));
        for name in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert!(may_be_plain(name, None), "{name}");
        }
        let secure = RegistrySettings::default();
        for name in ["registry.example", "localhost.example", "10.0.0.1:5000", "128.0.0.1", "[::2]"] {
            assert!(!may_be_plain(name, None) && !may_be_plain(name, Some(&secure)), "{name}");
        }
    }

    #[test]
    fn mirrors_have_a_name_of_their_own() {
        let mirror = "https://user:canary@mirror.example:8443/hub?canary#canary".parse().unwrap();
        let settings = RegistrySettings { mirrors: vec![mirror], ..RegistrySettings::default() };
        let mirrors = Endpoint::mirrors(Some(&settings));
        assert_eq!(mirrors[0].name, "mirror.example:8443");
        assert_eq!(mirrors[0].base.as_str(), "https://mirror.example:8443/hub/v2/");
    }
}
