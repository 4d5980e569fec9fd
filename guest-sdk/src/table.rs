//! Free-form TOML tables, which cross to the host as text.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// `value` as TOML text; an empty table is an empty string.
pub(crate) fn to_text<T: Serialize>(value: &T) -> Result<String, Error> {
    toml::to_string(value).map_err(|error| Error::buildpack(format!("metadata does not fit TOML: {error}")))
}

/// Reads `text`; `what` names it in the error.
pub(crate) fn from_text<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, Error> {
    toml::from_str(text)
        .map_err(|error| Error::buildpack(format!("{what} is not as expected: {}", error.message())))
}
