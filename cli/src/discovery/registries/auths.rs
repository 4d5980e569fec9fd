//! Docker's `config.json` and the `auth.json` of podman, buildah and skopeo: two files of
//! one format.
//!
//! # Shape
//! ```json
//! {
//!   "auths": {
//!     "https://index.docker.io/v1/": { "auth": "am9lOnNlY3JldA==" },
//!     "registry.example:5000": { "username": "joe", "password": "…" },
//!     "registry.example/team/app": { "identitytoken": "…" }
//!   },
//!   "credHelpers": { "aws.example": "ecr-login" },
//!   "credsStore": "secretservice"
//! }
//! ```
//!
//! # Spec
//! containers-auth.json(5), for keys below a registry and for helpers before entries;
//! Docker's configuration, for keys that are addresses.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use wapack_runtime::network::{RegistryCredentials, Secret};

/// Base64 with or without what fills it up: both are written.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where everybody's images are, …
const HUB: &str = "index.docker.io";
/// … how it is called, too, …
const HUB_ALIASES: [&str; 2] = ["docker.io", "registry-1.docker.io"];
/// … and what credential helpers know it as.
const HUB_SERVER: &str = "https://index.docker.io/v1/";

/// What one file says. It has no `Debug`: there are passwords in it.
#[derive(Default, Deserialize)]
pub(super) struct Auths {
    #[serde(default, rename = "auths")]
    registries: Option<BTreeMap<String, Option<Auth>>>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
struct Auth {
    /// Base64 of `user:password`; wins over the two apart, as with Docker.
    #[serde(rename = "auth")]
    encoded: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Auths {
    /// Reads a file's text.
    ///
    /// # Errors
    /// With the place of what is wrong, and nothing of what stands there.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text)
            .map_err(|error| format!("line {}, column {} is not as expected", error.line(), error.column()))
    }

    /// The credential helper for a registry, and what it knows the registry as.
    pub(super) fn helper(&self, registry: &str) -> Option<(&str, String)> {
        let named = self.helpers.iter().flatten().filter(|(_, helper)| !helper.is_empty());
        let mut named = named.filter(|(key, _)| Place::of(key).is_registry(registry));
        if let Some((key, helper)) = named.next() {
            return Some((helper, key.clone()));
        }
        let store = self.store.as_deref().filter(|store| !store.is_empty())?;
        Some((store, if registry == HUB { HUB_SERVER.to_owned() } else { registry.to_owned() }))
    }

    /// What the file itself says: of the repository, or else of what it is below, up to the
    /// registry. Entries that say nothing are there only to show that a helper knows.
    ///
    /// # Errors
    /// When an entry cannot be understood, without what it says.
    pub(super) fn find(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<RegistryCredentials>, String> {
        let entries = self.registries.iter().flatten();
        let fitting = entries.filter_map(|(key, auth)| {
            let place = Place::of(key);
            let auth = auth.as_ref().filter(|auth| auth.says_something())?;
            place.holds(registry, repository).then_some(((place.path.len(), !place.is_address), auth))
        });
        match fitting.max_by_key(|(rank, _)| *rank) {
            None => Ok(None),
            Some((_, auth)) => auth.credentials(registry).map(Some),
        }
    }
}

impl Auth {
    fn says_something(&self) -> bool {
        let Self { encoded, username, password: _, identitytoken, registrytoken } = self;
        [encoded, username, identitytoken, registrytoken].into_iter().flatten().any(|text| !text.is_empty())
    }

    fn credentials(&self, registry: &str) -> Result<RegistryCredentials, String> {
        let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        if let Some(token) = text(&self.registrytoken) {
            return Ok(RegistryCredentials::Bearer(Secret::new(token)));
        }
        if let Some(token) = text(&self.identitytoken) {
            return Ok(RegistryCredentials::IdentityToken(Secret::new(token)));
        }
        if let Some(auth) = text(&self.encoded) {
            return decode_basic(&auth)
                .ok_or_else(|| format!("the `auth` for `{registry}` is not base64 of `USER:PASSWORD`"));
        }
        Ok(RegistryCredentials::Basic {
            user: self.username.clone().unwrap_or_default(),
            password: Secret::new(self.password.clone().unwrap_or_default()),
        })
    }
}

/// Base64 of `user:password`, as in headers and files.
pub(super) fn decode_basic(text: &str) -> Option<RegistryCredentials> {
    let bytes = BASE64.decode(text.trim()).ok()?;
    let pair = String::from_utf8(bytes).ok()?;
    let (user, password) = pair.split_once(':')?;
    // Docker's first files were padded like this, and it still reads them.
    let password = Secret::new(password.trim_end_matches('\0'));
    (!user.is_empty()).then(|| RegistryCredentials::Basic { user: user.to_owned(), password })
}

/// What a key of a file or a variable is about.
struct Place {
    registry: String,
    /// What is below it; empty for all of it.
    path: String,
    /// `https://index.docker.io/v1/` and its like.
    is_address: bool,
}

impl Place {
    fn of(key: &str) -> Self {
        let bare = ["https://", "http://"].into_iter().find_map(|scheme| {
            let (start, rest) = key.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        });
        let (registry, path) = bare.unwrap_or(key).split_once('/').unwrap_or((bare.unwrap_or(key), ""));
        let path = path.trim_end_matches('/');
        let is_address = bare.is_some() || matches!(path, "v1" | "v2");
        Self {
            registry: registry_name(registry),
            path: if is_address { String::new() } else { path.to_owned() },
            is_address,
        }
    }

    fn is_registry(&self, registry: &str) -> bool {
        self.path.is_empty() && self.registry == registry_name(registry)
    }

    fn holds(&self, registry: &str, repository: &str) -> bool {
        let below = || {
            repository.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.registry == registry_name(registry) && (self.path.is_empty() || below())
    }
}

/// The one name of a registry.
pub(super) fn registry_name(text: &str) -> String {
    let name = text.to_ascii_lowercase();
    if HUB_ALIASES.contains(&name.as_str()) { HUB.to_owned() } else { name }
}

/// The registry that a key is about, whatever else it says.
pub(crate) fn registry_of_key(key: &str) -> String {
    Place::of(key).registry
}
