//! `CNB_REGISTRY_AUTH`: registries and the headers that sign in to them, for the programs
//! of the lifecycle.

use std::collections::BTreeMap;

use wapack_runtime::network::{FindRegistryCredentials, RegistryCredentials, Secret};

use super::auths::{decode_basic, registry_name, registry_of_key};

/// Its name.
pub(crate) const VARIABLE: &str = "CNB_REGISTRY_AUTH";

/// What the value of the variable says.
///
/// # Shape
/// ```json
/// {
///   "registry.example:5000": "Basic am9lOnNlY3JldA==",
///   "https://gcr.example/v2/": "Bearer token",
///   "index.docker.io": "X-Identity token"
/// }
/// ```
///
/// # Spec
/// CLI-08. `X-Identity` is the reference lifecycle's. Keys are compared without scheme and
/// path, and those of Docker Hub under any of its names.
#[derive(Debug, Default)]
pub(crate) struct VariableCredentials {
    /// `None` for headers that are none.
    headers: BTreeMap<String, Option<RegistryCredentials>>,
}

/// A value that cannot be used, and where; nothing that stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not a JSON object of registries and headers: line {line}, column {column}")]
pub(crate) struct InvalidRegistryAuth {
    line: usize,
    column: usize,
}

impl VariableCredentials {
    /// Reads the value of the variable; an empty one says nothing.
    ///
    /// # Errors
    /// [`InvalidRegistryAuth`]. A header that is none is an error only for who asks for
    /// that registry, as with the reference.
    pub(crate) fn parse(value: &str) -> Result<Self, InvalidRegistryAuth> {
        if value.is_empty() {
            return Ok(Self::default());
        }
        let headers: BTreeMap<String, String> = serde_json::from_str(value)
            .map_err(|error| InvalidRegistryAuth { line: error.line(), column: error.column() })?;
        let read = |(key, header): (String, String)| (registry_of_key(&key), of_header(&header));
        Ok(Self { headers: headers.into_iter().map(read).collect() })
    }
}

impl FindRegistryCredentials for VariableCredentials {
    fn find(&self, registry: &str, _repository: &str) -> Result<Option<RegistryCredentials>, String> {
        match self.headers.get(&registry_name(registry)) {
            None => Ok(None),
            Some(Some(credentials)) => Ok(Some(credentials.clone())),
            Some(None) => Err(format!(
                "`{VARIABLE}`: the header for `{registry}` is not `Basic` with base64 of `USER:PASSWORD`, \
                 `Bearer TOKEN` or `X-Identity TOKEN`"
            )),
        }
    }
}

fn of_header(header: &str) -> Option<RegistryCredentials> {
    let (scheme, value) = header.split_once(' ')?;
    if value.is_empty() {
        return None;
    }
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => decode_basic(value),
        "bearer" => Some(RegistryCredentials::Bearer(Secret::new(value))),
        "x-identity" => Some(RegistryCredentials::IdentityToken(Secret::new(value))),
        _ => None,
    }
}
