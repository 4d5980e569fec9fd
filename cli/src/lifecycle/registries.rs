//! How the programs reach registries: what the platform says in variables and flags.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::images::RegistryImages;
use wapack_runtime::network::{
    FindRegistryCredentials, NetworkSettings, RegistryCredentials, RegistrySettings, Secret,
};
use wapack_runtime::policy::Policy;
use wapack_runtime::registry::Registry;

use super::settings::Surroundings;
use crate::app;
use crate::discovery::{self, Environment};

/// The variable with credentials of the platform.
const VARIABLE: &str = "CNB_REGISTRY_AUTH";
/// The registry that has several names.
const DOCKER_HUB: &str = "index.docker.io";

/// The variable with credentials is of no use. It is never quoted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum AuthError {
    #[error("`{VARIABLE}` is not a JSON object of texts")]
    Json,
    #[error(
        "`{VARIABLE}` has something for `{registry}` that is neither `Basic …`, `Bearer …` nor `X-Identity …`"
    )]
    Value { registry: String },
}

/// Opens the images of registries. Nothing is asked of any yet.
pub(super) fn images(
    insecure: &[String],
    surroundings: &Surroundings,
    policy: &Policy,
    cancel: &Cancel,
) -> Result<RegistryImages, AuthError> {
    let environment = Environment::of_variables(surroundings.environment.clone());
    // It reads the same variable as we do below.
    let network = discovery::of_variables(policy, environment, cancel).map_err(|_| AuthError::Json)?;
    let mut settings = NetworkSettings { sources: BTreeMap::new(), finder: None, ..network.settings };
    for name in insecure {
        let registry = settings.registries.entry(normal(name)).or_default();
        *registry = RegistrySettings { insecure: true, ..std::mem::take(registry) };
    }
    settings.registry_credentials = Some(credentials(surroundings, settings.registry_credentials)?);
    let target = app::host_target();
    let registry = Registry::new(&settings, &policy.limits, surroundings.scratch());
    Ok(RegistryImages::new(registry, target.arch, target.variant, surroundings.scratch()))
}

/// Who knows credentials: the platform's variable, and for registries that are not in it
/// whoever is `next`, such as one that reads Docker's configuration (CLI-08).
fn credentials(
    surroundings: &Surroundings,
    next: Option<Arc<dyn FindRegistryCredentials>>,
) -> Result<Arc<dyn FindRegistryCredentials>, AuthError> {
    let text =
        surroundings.variable(VARIABLE).map(|text| text.to_str().ok_or(AuthError::Json)).transpose()?;
    let of_platform = text.map(parse).transpose()?.unwrap_or_default();
    Ok(Arc::new(Platform { of_platform, next }))
}

/// What the platform says, and whom to ask next.
#[derive(Debug)]
struct Platform {
    of_platform: BTreeMap<String, RegistryCredentials>,
    next: Option<Arc<dyn FindRegistryCredentials>>,
}

impl FindRegistryCredentials for Platform {
    fn find(&self, registry: &str, repository: &str) -> Result<Option<RegistryCredentials>, String> {
        match (self.of_platform.get(registry), &self.next) {
            (Some(found), _) => Ok(Some(found.clone())),
            (None, Some(next)) => next.find(registry, repository),
            (None, None) => Ok(None),
        }
    }
}

/// # Spec
/// CLI-08: a JSON object from registries to values of `Authorization`.
fn parse(text: &str) -> Result<BTreeMap<String, RegistryCredentials>, AuthError> {
    let values: BTreeMap<String, String> = serde_json::from_str(text).map_err(|_| AuthError::Json)?;
    let of = |(key, value): (String, String)| {
        let registry = normal(&key);
        match header(&value) {
            Some(credentials) => Ok((registry, credentials)),
            None => Err(AuthError::Value { registry: registry.escape_debug().to_string() }),
        }
    };
    values.into_iter().map(of).collect()
}

fn header(value: &str) -> Option<RegistryCredentials> {
    let (kind, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if rest.is_empty() {
        return None;
    }
    if kind.eq_ignore_ascii_case("bearer") {
        return Some(RegistryCredentials::Bearer(Secret::new(rest)));
    }
    if kind.eq_ignore_ascii_case("x-identity") {
        return Some(RegistryCredentials::IdentityToken(Secret::new(rest)));
    }
    if !kind.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(RegistryCredentials::Basic { user: user.to_owned(), password: Secret::new(password) })
}

/// The registry that a key means: without scheme and path, by the name that image names have.
fn normal(key: &str) -> String {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    match host {
        "docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> RegistryCredentials {
        RegistryCredentials::Basic { user: user.to_owned(), password: Secret::new(password) }
    }

    /// CLI-08; the encoded text is `printf 'user:pass:word' | base64`.
    #[test]
    fn cli_08_the_variable_has_headers_by_registry() {
        let text = r#"{
            "registry.example:5000": "Basic dXNlcjpwYXNzOndvcmQ=", "https://index.docker.io/v1/": "Bearer token",
            "http://other.example/v2/": "X-Identity identity"
        }"#;
        let found = parse(text).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found["registry.example:5000"], basic("user", "pass:word"));
        assert_eq!(found["index.docker.io"], RegistryCredentials::Bearer(Secret::new("token")));
        assert_eq!(found["other.example"], RegistryCredentials::IdentityToken(Secret::new("identity")));
        assert!(parse(r#"{"docker.io": "Bearer t"}"#).unwrap().contains_key("index.docker.io"));
        assert!(parse("{}").unwrap().is_empty());
    }

    #[test]
    fn nonsense_in_the_variable_is_told_without_it() {
        for text in ["", "canary", "[]", r#"{"a": 1}"#, r#"{"a": {"auth": "canary"}}"#] {
            assert_eq!(parse(text).unwrap_err(), AuthError::Json, "{text}");
        }
        for value in ["", "canary", "Basic", "Basic canary!", "Basic Y2FuYXJ5", "Digest canary", "Bearer "] {
            let text = serde_json::json!({ "registry.example": value }).to_string();
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains("`registry.example`") && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn who_is_not_in_the_variable_is_looked_for_elsewhere() {
        #[derive(Debug)]
        struct Everybody;
        impl FindRegistryCredentials for Everybody {
            fn find(&self, registry: &str, _: &str) -> Result<Option<RegistryCredentials>, String> {
                Ok(Some(basic(registry, "x")))
            }
        }
        let of_platform = parse(r#"{"a.example": "Bearer token"}"#).unwrap();
        let chain = Platform { of_platform, next: Some(Arc::new(Everybody)) };
        let bearer = RegistryCredentials::Bearer(Secret::new("token"));
        assert_eq!(chain.find("a.example", "x").unwrap(), Some(bearer));
        assert_eq!(chain.find("b.example", "x").unwrap(), Some(basic("b.example", "x")));
    }
}
