//! One policy file: what it says, and the line of every value.
//!
//! It must not know of other files or of the ceiling.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::registries::{self, RegistryTable};
use super::sources::{NetworkTable, SourceTable};
use super::store::StoreTable;
use super::{Isolation, limit_fields};
use crate::cnb::id::BuildpackId;
use crate::grant::Grant;
use crate::limits::Limits;
use crate::toml_text::TomlError;

/// A value of one file, with its line.
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// What one file says.
#[derive(Default)]
pub(super) struct PolicyFile {
    pub(super) limits: BTreeMap<String, At<u64>>,
    pub(super) allow: Option<At<Vec<At<Grant>>>>,
    pub(super) buildpacks: BTreeMap<BuildpackId, At<Vec<At<Grant>>>>,
    pub(super) isolation: Option<At<Isolation>>,
    pub(super) sources: BTreeMap<String, SourceTable>,
    pub(super) network: NetworkTable,
    pub(super) registries: BTreeMap<String, RegistryTable>,
    pub(super) store: StoreTable,
}

/// A part of a policy file with its place.
pub(super) struct Reader<'a> {
    text: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) fn error(&self, span: &Range<usize>, message: impl Into<String>) -> TomlError {
        TomlError::at(self.text, span.start, message)
    }

    pub(super) fn at<T>(&self, span: &Range<usize>, value: T) -> At<T> {
        At { value, line: TomlError::at(self.text, span.start, "").line }
    }

    pub(super) fn table<'b>(
        &self,
        value: &'b Spanned<DeValue<'a>>,
        known: &[&str],
    ) -> Result<&'b DeTable<'a>, TomlError> {
        let table =
            value.get_ref().as_table().ok_or_else(|| self.error(&value.span(), "this has to be a table"))?;
        self.only(table, known)?;
        Ok(table)
    }

    fn only(&self, table: &DeTable<'a>, known: &[&str]) -> Result<(), TomlError> {
        match table.keys().find(|key| !known.contains(&key.get_ref().as_ref())) {
            None => Ok(()),
            Some(key) => Err(self.unknown(key, known)),
        }
    }

    fn unknown(&self, key: &Spanned<impl AsRef<str>>, known: &[&str]) -> TomlError {
        let name = key.get_ref().as_ref().escape_default();
        self.error(&key.span(), format!("`{name}` is not known here; known are {}", quoted(known)))
    }

    pub(super) fn text<'b>(&self, value: &'b Spanned<DeValue<'a>>) -> Result<&'b str, TomlError> {
        value.get_ref().as_str().ok_or_else(|| self.error(&value.span(), "this has to be a string"))
    }

    fn grants(&self, value: &Spanned<DeValue<'a>>) -> Result<At<Vec<At<Grant>>>, TomlError> {
        let array = value
            .get_ref()
            .as_array()
            .ok_or_else(|| self.error(&value.span(), "this has to be an array of grants"))?;
        let grant = |value: &Spanned<DeValue<'a>>| {
            let grant = self.text(value)?.parse::<Grant>();
            grant
                .map(|grant| self.at(&value.span(), grant))
                .map_err(|error| self.error(&value.span(), error.to_string()))
        };
        let grants = array.iter().map(grant).collect::<Result<_, _>>()?;
        Ok(self.at(&value.span(), grants))
    }

    pub(super) fn limit(&self, value: &Spanned<DeValue<'a>>) -> Result<At<u64>, TomlError> {
        let number = value.get_ref().as_integer().and_then(|integer| {
            let digits = integer.as_str().replace('_', "");
            u64::from_str_radix(digits.trim_start_matches('+'), integer.radix()).ok()
        });
        number
            .filter(|number| *number > 0)
            .map(|number| self.at(&value.span(), number))
            .ok_or_else(|| self.error(&value.span(), "a limit has to be a whole number above 0"))
    }
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

impl PolicyFile {
    pub(super) fn parse(text: &str) -> Result<Self, TomlError> {
        let reader = Reader { text };
        let root = DeTable::parse(text).map_err(|error| TomlError::from_parser(text, &error))?;
        let root = root.get_ref();
        let known =
            ["buildpack", "grants", "isolation", "limits", "network", "registries", "sources", "store"];
        reader.only(root, &known)?;
        let mut file = Self::default();
        if let Some(limits) = root.get("limits") {
            let known = limit_fields(&Limits::default());
            let known: Vec<&str> = known.keys().map(String::as_str).collect();
            for (name, value) in reader.table(limits, &known)? {
                file.limits.insert(name.get_ref().as_ref().to_owned(), reader.limit(value)?);
            }
        }
        if let Some(grants) = root.get("grants")
            && let Some(allow) = reader.table(grants, &["allow"])?.get("allow")
        {
            file.allow = Some(reader.grants(allow)?);
        }
        if let Some(buildpacks) = root.get("buildpack") {
            let array = buildpacks
                .get_ref()
                .as_array()
                .ok_or_else(|| reader.error(&buildpacks.span(), "this is written `[[buildpack]]`"))?;
            for buildpack in array {
                let table = reader.table(buildpack, &["allow", "id"])?;
                let (Some(id), Some(allow)) = (table.get("id"), table.get("allow")) else {
                    return Err(reader.error(&buildpack.span(), "it needs both `id` and `allow`"));
                };
                let parsed = reader.text(id)?.parse::<BuildpackId>();
                let parsed = parsed.map_err(|error| reader.error(&id.span(), error.to_string()))?;
                if file.buildpacks.insert(parsed, reader.grants(allow)?).is_some() {
                    return Err(reader.error(&id.span(), "this buildpack is there twice"));
                }
            }
        }
        if let Some(isolation) = root.get("isolation") {
            let value = match isolation.get_ref().as_str() {
                Some("best-effort") => Isolation::BestEffort,
                Some("required") => Isolation::Required,
                _ => {
                    let message = "this has to be \"best-effort\" or \"required\"";
                    return Err(reader.error(&isolation.span(), message));
                }
            };
            file.isolation = Some(reader.at(&isolation.span(), value));
        }
        if let Some(sources) = root.get("sources") {
            let table = sources
                .get_ref()
                .as_table()
                .ok_or_else(|| reader.error(&sources.span(), "this is written `[sources.NAME]`"))?;
            for (name, source) in table {
                let table = SourceTable::parse(&reader, name, source)?;
                file.sources.insert(name.get_ref().as_ref().to_owned(), table);
            }
        }
        if let Some(network) = root.get("network") {
            file.network = NetworkTable::parse(&reader, network)?;
        }
        if let Some(registries) = root.get("registries") {
            file.registries = registries::parse(&reader, registries)?;
        }
        if let Some(store) = root.get("store") {
            file.store = StoreTable::parse(&reader, store)?;
        }
        Ok(file)
    }
}
