//! Layers, and the key without which there is none.
//!
//! The types go one way: [`LayerDefinition`] has only `key`, [`KeyedLayer`] has
//! only `fill` and `update`, and those alone give a [`Layer`].

use std::ffi::OsStr;
use std::ops::BitOr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::built::Sbom;
use crate::context::BuildContext;
use crate::error::Error;
use crate::table;

/// What a layer is for: one of the constants, or several joined by `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerTypes {
    /// Part of the image.
    pub launch: bool,
    /// Visible to later buildpacks of the same build.
    pub build: bool,
    /// Kept for the next build.
    pub cache: bool,
}

impl LayerTypes {
    /// Part of the image.
    pub const LAUNCH: Self = Self { launch: true, build: false, cache: false };
    /// Visible to later buildpacks of the same build.
    pub const BUILD: Self = Self { launch: false, build: true, cache: false };
    /// Kept for the next build.
    pub const CACHE: Self = Self { launch: false, build: false, cache: true };
}

impl BitOr for LayerTypes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            launch: self.launch | other.launch,
            build: self.build | other.build,
            cache: self.cache | other.cache,
        }
    }
}

/// A layer that an earlier build of the same image left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredLayer {
    /// Its name.
    pub name: String,
    /// What it was for.
    pub types: LayerTypes,
    /// The key it was made under, as the host keeps it.
    pub cache_key: String,
    pub(crate) metadata: String,
}

impl RestoredLayer {
    /// The metadata it was returned with.
    ///
    /// # Errors
    /// A buildpack error when the table does not fit `T`.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<T, Error> {
        table::from_text(&self.metadata, &format!("metadata of the layer `{}`", self.name))
    }
}

/// What the host holds of a layer once it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// The contents of the last build are in the directory.
    Restored,
    /// The image keeps the layer of the last build; the directory is not here.
    Kept,
    /// The buildpack filled an empty directory.
    Filled,
}

/// What [`KeyedLayer::update`] finds in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// What the last build left there, made writable.
    Restored,
    /// Nothing.
    Empty,
}

/// A layer with a name and a purpose that still needs its key.
#[derive(Debug)]
#[must_use = "a layer needs a key and contents"]
pub struct LayerDefinition<'a> {
    context: &'a BuildContext,
    name: String,
    types: LayerTypes,
}

impl<'a> LayerDefinition<'a> {
    pub(crate) fn new(context: &'a BuildContext, name: String, types: LayerTypes) -> Self {
        Self { context, name, types }
    }

    /// States everything the contents depend on, each with a name: versions,
    /// hashes of files, the architecture. While all are the same, so is the
    /// layer; when one is not, `wapack build --explain` says which.
    ///
    /// The values are kept where the layer is, and shown; long ones and those that
    /// are no text as their hash. A value that nobody may see does not belong here.
    pub fn key<V: AsRef<[u8]>>(self, inputs: &[(&str, V)]) -> KeyedLayer<'a> {
        KeyedLayer { definition: self, key: key_of(inputs) }
    }
}

/// A layer that knows what it depends on and still needs its contents.
#[derive(Debug)]
#[must_use = "a layer needs contents"]
pub struct KeyedLayer<'a> {
    definition: LayerDefinition<'a>,
    key: String,
}

impl KeyedLayer<'_> {
    /// Opens the layer and runs `fill` on its directory when there is nothing
    /// to reuse. For contents that follow from the key alone.
    ///
    /// # Errors
    /// Those of `fill`, and a name that the host refuses.
    pub fn fill(self, fill: impl FnOnce(&Path) -> Result<(), Error>) -> Result<Layer, Error> {
        let layer = self.open()?;
        if layer.state == LayerState::Filled {
            fill(&layer.path)?;
        }
        Ok(layer)
    }

    /// Opens the layer and runs `update` on its directory, whether it holds the
    /// contents of the last build or nothing. For caches that a tool brings up
    /// to date by itself. A layer that is only kept in the image is left alone.
    ///
    /// # Errors
    /// Those of `update`, and a name that the host refuses.
    pub fn update(self, update: impl FnOnce(&Path, Contents) -> Result<(), Error>) -> Result<Layer, Error> {
        let host = &self.definition.context.host;
        let layer = self.open()?;
        match layer.state {
            LayerState::Restored => {
                host.update_layer(&layer.name)?;
                update(&layer.path, Contents::Restored)?;
            }
            LayerState::Filled => update(&layer.path, Contents::Empty)?,
            LayerState::Kept => {}
        }
        Ok(layer)
    }

    fn open(&self) -> Result<Layer, Error> {
        let LayerDefinition { context, name, types } = &self.definition;
        let state = context.host.open_layer(name, *types, &self.key)?;
        let metadata = match (state, context.restored_layer(name)) {
            (LayerState::Restored | LayerState::Kept, Some(restored)) => restored.metadata.clone(),
            _ => String::new(),
        };
        Ok(Layer {
            path: context.layers.join(name),
            name: name.clone(),
            state,
            metadata,
            environment: Vec::new(),
            sboms: Vec::new(),
        })
    }
}

/// When a change of the environment applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// For later buildpacks and in the running image.
    All,
    /// For later buildpacks only.
    Build,
    /// In the running image only.
    Launch,
    /// In the running image, for one process type only.
    Process(String),
}

/// How a change of the environment meets the value that is there. `Append` and
/// `Prepend` have the delimiter that stands between the two, such as `:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Put behind the value.
    Append(&'static str),
    /// Set only where the variable is unset or empty.
    Default,
    /// Replace the value.
    Override,
    /// Put in front of the value.
    Prepend(&'static str),
}

/// One change of the environment, made by a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentChange {
    /// The variable.
    pub name: String,
    /// When it applies.
    pub scope: Scope,
    /// How it meets the value that is there.
    pub operation: Operation,
    /// The value.
    pub value: String,
}

/// A layer with its contents, ready for [`Built::layer`](crate::Built::layer).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a layer that is not part of `Built` is left out of the image"]
pub struct Layer {
    name: String,
    path: PathBuf,
    state: LayerState,
    pub(crate) metadata: String,
    pub(crate) environment: Vec<EnvironmentChange>,
    pub(crate) sboms: Vec<Sbom>,
}

impl Layer {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its directory is, in the build and in the image.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its contents came from.
    pub fn state(&self) -> LayerState {
        self.state
    }

    /// What it does to the environment.
    pub fn environment(&self) -> &[EnvironmentChange] {
        &self.environment
    }

    /// Its bills of materials.
    pub fn sboms(&self) -> &[Sbom] {
        &self.sboms
    }

    /// Says something about the contents to the next build, which finds it in
    /// [`BuildContext::restored_layer`]. A reused layer keeps its metadata when
    /// this is not called.
    ///
    /// # Errors
    /// A buildpack error when `value` is not a table in TOML's terms.
    pub fn metadata<T: Serialize>(mut self, value: &T) -> Result<Self, Error> {
        self.metadata = table::to_text(value)?;
        Ok(self)
    }

    /// Changes the environment. Not part of the contents: say it for a reused
    /// layer as well, outside `fill`.
    pub fn env(
        mut self,
        scope: Scope,
        name: impl Into<String>,
        operation: Operation,
        value: impl AsRef<OsStr>,
    ) -> Self {
        let value = value.as_ref().to_string_lossy().into_owned();
        self.environment.push(EnvironmentChange { name: name.into(), scope, operation, value });
        self
    }

    /// Adds a bill of materials. Not part of the contents: say it for a reused
    /// layer as well, outside `fill`.
    pub fn sbom(mut self, sbom: impl Into<Sbom>) -> Self {
        self.sboms.push(sbom.into());
        self
    }
}

/// Most bytes of an input that stands in a key as it is; a hash is longer than that.
const LONGEST_VALUE: usize = 64;

/// One key for all of `inputs`.
///
/// # Shape
/// TOML, a line each, so that the host can say which of them changed:
/// ```text
/// node = "20.1.0"
/// "lock file" = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
/// ```
fn key_of<V: AsRef<[u8]>>(inputs: &[(&str, V)]) -> String {
    // A string of JSON is one of TOML, but for one character.
    let quoted = |text: &str| serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f");
    let mut key = String::new();
    for (name, value) in inputs {
        let value = value.as_ref();
        let shown = match std::str::from_utf8(value) {
            Ok(text) if text.len() <= LONGEST_VALUE => quoted(text),
            _ => quoted(&format!("sha256:{}", hex(&Sha256::digest(value)))),
        };
        let is_bare =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        key += &if is_bare { (*name).to_owned() } else { quoted(name) };
        key += " = ";
        key += &shown;
        key.push('\n');
    }
    key
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_do_not_run_into_each_other() {
        let keys = [
            key_of::<&str>(&[]),
            key_of(&[("a", "")]),
            key_of(&[("a", "1\"\n\"b\" = \"2")]),
            key_of(&[("a", "1"), ("b", "2")]),
            key_of(&[("b", "2"), ("a", "1")]),
            key_of(&[("a", "12")]),
            key_of(&[("a\" = \"1", "2")]),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
    }

    #[test]
    fn a_key_is_toml_of_short_values_and_hashes() {
        let long = "x".repeat(65);
        let key = key_of(&[("node", b"20.1.0".as_slice()), ("of \"x\"", &[0xff]), ("long", long.as_bytes())]);
        // The hashes are those that sha256sum prints.
        assert_eq!(
            key,
            "node = \"20.1.0\"\n\
             \"of \\\"x\\\"\" = \"sha256:a8100ae6aa1940d0b663bb31cd466142ebbdbd5187131b92d93818987832eb89\"\n\
             long = \"sha256:9537c5fdf120482f7d58d25e9ed583f52c02b4e304ea814db1633ad565aed7e9\"\n"
        );
        let read: toml::Table = toml::from_str(&key).unwrap();
        assert_eq!(read["node"].as_str(), Some("20.1.0"));
        assert!(toml::from_str::<toml::Table>(&key_of(&[("a", "\u{7f}\u{1}\t\\/")])).is_ok());
    }

    #[test]
    fn types_join() {
        let types = LayerTypes::LAUNCH | LayerTypes::CACHE;
        assert_eq!(types, LayerTypes { launch: true, build: false, cache: true });
    }
}
