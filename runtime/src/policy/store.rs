//! `[store]`: how much is kept between builds.

use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::file::{At, Reader};
use super::{Origin, Origins, Policy, PolicyError};
use crate::toml_text::TomlError;

/// How much of it there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorePolicy {
    /// What the store may take on the disk, in bytes, before the least recently used goes.
    pub max_bytes: u64,
}

impl Default for StorePolicy {
    /// Enough for the layers of a few dozen apps.
    fn default() -> Self {
        Self { max_bytes: 20 << 30 }
    }
}

/// `[store]` of one file.
#[derive(Default)]
pub(super) struct StoreTable {
    max_bytes: Option<At<u64>>,
}

impl StoreTable {
    pub(super) fn parse<'a>(reader: &Reader<'a>, value: &Spanned<DeValue<'a>>) -> Result<Self, TomlError> {
        let table = reader.table(value, &["max_bytes"])?;
        Ok(Self { max_bytes: table.get("max_bytes").map(|value| reader.limit(value)).transpose()? })
    }
}

impl Policy {
    /// Lays one file's `[store]` over what earlier ones said; under a ceiling it only shrinks.
    pub(super) fn apply_store(
        &mut self,
        path: &Path,
        table: StoreTable,
        origins: &mut Origins,
    ) -> Result<(), PolicyError> {
        if let Some(At { value, line }) = table.max_bytes {
            let origin = Origin::File { path: path.to_owned(), line };
            let fits = |top: &Self| value <= top.store.max_bytes;
            self.check_ceiling(&origin, fits, || format!("`max_bytes = {value}`"))?;
            origins.set("store.max_bytes", &origin);
            self.store.max_bytes = value;
        }
        Ok(())
    }
}

impl StorePolicy {
    /// Keys and values as they stand in TOML.
    pub(super) fn settings(self) -> Vec<(String, String)> {
        vec![("store.max_bytes".to_owned(), self.max_bytes.to_string())]
    }
}
