//! `store.toml`: what a buildpack remembers from build to build.

use serde::Deserialize;
use toml::{Table, Value};

use crate::toml_text::{self, TomlError};

#[derive(Deserialize)]
struct StoreFile {
    metadata: Option<Table>,
}

/// The table `[metadata]` of the file, as TOML text.
///
/// # Errors
/// With line and column.
///
/// # Spec
/// `buildpack.md` 0.12 "store.toml"; STO-01.
pub fn parse(text: &str) -> Result<String, TomlError> {
    let file: StoreFile = toml_text::parse(text)?;
    Ok(toml_text::text_of(file.metadata.as_ref()))
}

/// The text of the file for a `metadata` that was read or checked before.
#[must_use]
pub fn to_toml(metadata: &str) -> String {
    let metadata: Table = metadata.parse().unwrap_or_default();
    Table::from_iter([("metadata".to_owned(), Value::Table(metadata))]).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sto_01_the_metadata_there_and_back() {
        let metadata =
            parse("other = 1\n[metadata]\nn = 1\nwhen = 1979-05-27\n[metadata.deep]\nx = [1, 2]\n");
        let metadata = metadata.unwrap();
        assert_eq!(parse(&to_toml(&metadata)).unwrap(), metadata);
        let table: Table = metadata.parse().unwrap();
        assert_eq!(table["n"], Value::Integer(1));
        assert!(matches!(table["when"], Value::Datetime(_)));
        assert_eq!(parse("").unwrap(), "");
        parse("= 1").unwrap_err();
    }
}
