//! `<layer>.toml`: what a layer is for, and what its buildpack notes about it.

use serde::Deserialize;
use toml::{Table, Value};

use super::api::ApiVersion;
use super::layer::LayerTypes;
use crate::toml_text::{self, TomlError};

/// The table in a layer's metadata that is ours: what a component said of the layer.
const OURS: &str = "io.wapack";

/// A layer's file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayerToml {
    pub types: LayerTypes,
    /// TOML text of `[metadata]`; empty when there is none.
    pub metadata: String,
    /// Old keys that were put up with.
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
struct LayerFile {
    launch: Option<Value>,
    build: Option<Value>,
    cache: Option<Value>,
    types: Option<TypesTable>,
    metadata: Option<Table>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TypesTable {
    launch: bool,
    build: bool,
    cache: bool,
}

impl LayerToml {
    /// Parses the file of a buildpack written for `api`.
    ///
    /// # Errors
    /// With line and column; flags outside `[types]` are one from API 0.6 on.
    ///
    /// # Spec
    /// `buildpack.md` 0.12 "Layer Content Metadata"; LYR-01, LYR-03, API-16.
    pub fn parse(text: &str, api: ApiVersion) -> Result<Self, TomlError> {
        let file: LayerFile = toml_text::parse(text)?;
        let mut warnings = Vec::new();
        let flags = [("launch", file.launch), ("build", file.build), ("cache", file.cache)];
        let types = if api >= ApiVersion::zero(6) {
            if let Some((name, _)) = flags.iter().find(|(_, flag)| flag.is_some()) {
                return Err(TomlError::whole(format!("`{name}` belongs into the table `[types]`")));
            }
            let TypesTable { launch, build, cache } = file.types.unwrap_or_default();
            LayerTypes { launch, build, cache }
        } else {
            if file.types.is_some() {
                warnings.push(format!("the table `[types]` is not part of Buildpack API {api} and ignored"));
            }
            let [launch, build, cache] = flags.map(|(_, flag)| flag == Some(Value::Boolean(true)));
            LayerTypes { launch, build, cache }
        };
        Ok(Self { types, metadata: toml_text::text_of(file.metadata.as_ref()), warnings })
    }

    /// The text of the file as a buildpack of API 0.6 or newer writes it.
    #[must_use]
    pub fn to_toml(types: LayerTypes, metadata: &Table) -> String {
        let types = [("build", types.build), ("cache", types.cache), ("launch", types.launch)];
        let types: Table =
            types.into_iter().map(|(name, flag)| (name.to_owned(), Value::Boolean(flag))).collect();
        let mut file = Table::from_iter([("types".to_owned(), Value::Table(types))]);
        if !metadata.is_empty() {
            file.insert("metadata".to_owned(), Value::Table(metadata.clone()));
        }
        file.to_string()
    }
}

/// What a component said when it opened a layer; kept in the layer's metadata between
/// builds, where nobody but us looks at it.
///
/// # Shape
/// ```toml
/// [metadata."io.wapack"]
/// cache-key = "sha256:…"
/// types = ["launch", "cache"]
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenedAs {
    pub cache_key: String,
    pub types: LayerTypes,
}

impl OpenedAs {
    /// Puts it into a layer's metadata.
    pub fn add_to(&self, metadata: &mut Table) {
        let LayerTypes { launch, build, cache } = self.types;
        let types = [("launch", launch), ("build", build), ("cache", cache)];
        let types = types.into_iter().filter(|(_, is)| *is).map(|(name, _)| Value::from(name)).collect();
        let ours = [
            ("cache-key".to_owned(), Value::from(self.cache_key.as_str())),
            ("types".to_owned(), Value::Array(types)),
        ];
        metadata.insert(OURS.to_owned(), Value::Table(Table::from_iter(ours)));
    }

    /// Takes it out again; `None` when no component wrote this.
    pub fn take_from(metadata: &mut Table) -> Option<Self> {
        let ours = metadata.remove(OURS)?;
        let cache_key = ours.get("cache-key")?.as_str()?.to_owned();
        let types = ours.get("types")?.as_array()?;
        let has = |name: &str| types.iter().any(|value| value.as_str() == Some(name));
        let types = LayerTypes { launch: has("launch"), build: has("build"), cache: has("cache") };
        Some(Self { cache_key, types })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWEST: ApiVersion = ApiVersion::zero(12);

    #[test]
    fn lyr_03_all_combinations_of_types() {
        for bits in 0..8 {
            let types = LayerTypes { launch: bits & 1 != 0, build: bits & 2 != 0, cache: bits & 4 != 0 };
            let LayerTypes { launch, build, cache } = types;
            let text = format!("[types]\nlaunch = {launch}\nbuild = {build}\ncache = {cache}\n");
            assert_eq!(LayerToml::parse(&text, NEWEST).unwrap().types, types);
            let written = LayerToml::to_toml(types, &Table::new());
            assert_eq!(LayerToml::parse(&written, NEWEST).unwrap().types, types);
        }
    }

    #[test]
    fn lyr_01_missing_types_are_false_and_metadata_is_any_toml() {
        let file =
            LayerToml::parse("[types]\nbuild = true\n[metadata]\nn = 1\n[metadata.a]\nb = [1.5]\n", NEWEST);
        let file = file.unwrap();
        assert_eq!(file.types, LayerTypes { build: true, ..LayerTypes::default() });
        assert_eq!(file.metadata, "n = 1\n\n[a]\nb = [1.5]\n");
        assert_eq!(LayerToml::parse("", NEWEST).unwrap(), LayerToml::default());
        LayerToml::parse("[types]\nbuild = \"yes\"\n", NEWEST).unwrap_err();
    }

    #[test]
    fn api_16_flags_at_the_top_level() {
        for name in ["launch", "build", "cache"] {
            for minor in 6..=12 {
                let error = LayerToml::parse(&format!("{name} = false\n"), ApiVersion::zero(minor));
                assert!(error.unwrap_err().to_string().contains(name), "{name} 0.{minor}");
            }
        }
        for minor in 2..=5 {
            let text = "build = true\ncache = false\n[types]\nlaunch = true\n";
            let file = LayerToml::parse(text, ApiVersion::zero(minor)).unwrap();
            assert_eq!(file.types, LayerTypes { build: true, ..LayerTypes::default() });
            assert_eq!(file.warnings.len(), 1);
        }
    }

    #[test]
    fn what_a_component_said_is_put_in_and_taken_out() {
        let opened = OpenedAs {
            cache_key: "k\"1".into(),
            types: LayerTypes { launch: true, build: false, cache: true },
        };
        let mut metadata: Table = "a = 1\n".parse().unwrap();
        let plain = metadata.clone();
        opened.add_to(&mut metadata);
        let text = LayerToml::to_toml(opened.types, &metadata);
        let mut read: Table = LayerToml::parse(&text, NEWEST).unwrap().metadata.parse().unwrap();
        assert_eq!(OpenedAs::take_from(&mut read), Some(opened));
        assert_eq!(read, plain);
        assert_eq!(OpenedAs::take_from(&mut read), None);
    }
}
