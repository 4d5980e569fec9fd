//! The layers directory that a classic buildpack leaves, as records.
//!
//! # Shape
//! ```text
//! <layer>.toml            types and metadata
//! <layer>/                contents; may be missing
//! <layer>/env/NAME.append, env.build/, env.launch/, env.launch/<type>/
//! <layer>.sbom.cdx.json
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{Mode, OFlags};

use super::cause;
use super::variables::{self, VariablesError};
use crate::cnb::api::ApiVersion;
use crate::cnb::env::{Unsuffixed, changes_of_directory};
use crate::cnb::id::{InvalidName, LayerName};
use crate::cnb::layer::{EnvironmentChange, EnvironmentScope, LayerTypes};
use crate::cnb::layer_toml::LayerToml;
use crate::cnb::sbom::{Sbom, SbomFormat};
use crate::executor::{LayerContents, LayerOutput};
use crate::toml_text::{TomlFileError, read_with};
use crate::walk;

/// Ends the name of a directory that is no layer.
const IGNORED: &str = ".ignore";

/// Files whose names are not those of layers.
const RESERVED: [&str; 3] = ["build", "launch", "store"];

/// Entries of a layers directory that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// Why a layers directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// It cannot be listed, or something in it cannot be renamed.
    #[error("cannot use `{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A TOML file; the file and what is wrong with it.
    #[error("`{file}` cannot be used: {problem}")]
    Toml { file: String, problem: String },
    /// A layer whose name is not possible here.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Files of an environment.
    #[error("{0}: {cause}", cause = std::error::Error::source(.0).map(ToString::to_string).unwrap_or_default())]
    Variables(#[from] VariablesError),
    /// A bill of materials that the buildpack did not say it writes, or of no known format.
    #[error("the bill of materials `{file}` {problem}")]
    Sbom { file: String, problem: String },
    /// Too many files, or one that is too large.
    #[error("`{}` is too large", path.display())]
    TooLarge { path: PathBuf },
}

/// What is read by which rules.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    pub api: ApiVersion,
    /// Media types of the bills of materials that may be there.
    pub sbom_formats: &'a [String],
    /// The largest of them.
    pub sbom_bytes: u64,
}

/// What a layers directory holds.
#[derive(Debug, Default)]
pub struct LayersDirectory {
    /// Sorted by name; those that are nothing are among them when they have a file.
    pub layers: Vec<LayerOutput>,
    pub warnings: Vec<String>,
}

/// Bills of materials that are not of one layer.
#[derive(Debug, Default)]
pub struct Sboms {
    pub launch: Vec<Sbom>,
    pub build: Vec<Sbom>,
    /// Whether there is any, those of layers included.
    pub any: bool,
}

/// Reads what a buildpack left in `directory`. Directories that are no layers are
/// renamed away.
///
/// # Errors
/// [`LayersError`] with what breaks a rule.
///
/// # Spec
/// `buildpack.md` 0.12 "Layers"; LYR-01 to LYR-08.
pub fn read(directory: &Path, rules: Rules<'_>) -> Result<LayersDirectory, LayersError> {
    let entries = list(directory)?;
    let mut found = LayersDirectory::default();
    let mut layers = BTreeMap::new();
    for (name, _) in entries.iter().filter(|(_, is_directory)| !is_directory) {
        let Some(layer) = name.strip_suffix(".toml") else { continue };
        // LYR-05: the files of reserved names are looked at like layers', and then are none.
        let is_reserved = RESERVED.contains(&layer);
        let api = if is_reserved { rules.api.max(ApiVersion::zero(5)) } else { rules.api };
        let parse = |text: &str| LayerToml::parse(text, api);
        let file = read_with(&directory.join(name), parse).map_err(|error| toml_error(name, &error))?;
        if is_reserved || layer.is_empty() {
            continue;
        }
        found.warnings.extend(file.warnings.iter().map(|warning| format!("`{name}`: {warning}")));
        layers.insert(layer.to_owned(), file);
    }
    put_away(directory, &entries, &layers)?;
    for (name, file) in layers {
        let path = directory.join(&name);
        let contents = if file.types != LayerTypes::default() && path.is_dir() {
            LayerContents::InPlace
        } else {
            LayerContents::Nowhere
        };
        let is_used = contents == LayerContents::InPlace && (file.types.build || file.types.launch);
        found.layers.push(LayerOutput {
            sboms: Vec::new(),
            name: name.parse::<LayerName>()?,
            types: file.types,
            cache_key: String::new(),
            metadata: file.metadata,
            environment: if is_used { environment(&path, file.types, rules.api)? } else { Vec::new() },
            contents,
        });
    }
    Ok(found)
}

pub(super) fn toml_error(file: &str, error: &TomlFileError) -> LayersError {
    LayersError::Toml { file: file.escape_debug().to_string(), problem: cause(error) }
}

/// Names in a directory, sorted, and whether each is a directory itself.
fn list(directory: &Path) -> Result<Vec<(String, bool)>, LayersError> {
    let failed = |source| LayersError::Io { path: directory.to_owned(), source };
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entries.len() == MAX_ENTRIES {
            return Err(LayersError::TooLarge { path: directory.to_owned() });
        }
        // A name that is not text is no layer's.
        if let Ok(name) = entry.file_name().into_string() {
            entries.push((name, entry.file_type().map_err(failed)?.is_dir()));
        }
    }
    entries.sort();
    Ok(entries)
}

/// LYR-06, LYR-08: what has no type is not seen under its name any more.
fn put_away(
    directory: &Path,
    entries: &[(String, bool)],
    layers: &BTreeMap<String, LayerToml>,
) -> Result<(), LayersError> {
    let is_layer = |name: &str| layers.get(name).is_some_and(|file| file.types != LayerTypes::default());
    let with_directory = entries.iter().filter(|(_, is_directory)| *is_directory).map(|(name, _)| name);
    // A link that a file makes a layer is one, and ends with it.
    let linked = layers.keys().filter(|name| directory.join(name).is_symlink());
    for name in with_directory.chain(linked) {
        let is_put_away = name.ends_with(IGNORED) && !layers.contains_key(name);
        if is_layer(name) || is_put_away {
            continue;
        }
        let ignored = format!("{name}{IGNORED}");
        let failed = |source| LayersError::Io { path: directory.join(name), source };
        if is_layer(&ignored) {
            let problem = format!("it is a layer, and `{name}` is to be put away under this name");
            return Err(LayersError::Toml { file: ignored.escape_debug().to_string(), problem });
        }
        walk::remove(&directory.join(&ignored)).map_err(failed)?;
        fs::rename(directory.join(name), directory.join(&ignored)).map_err(failed)?;
    }
    Ok(())
}

/// The changes that the files of a layer make, those of each directory in the order of their names.
///
/// # Errors
/// [`VariablesError`].
pub fn environment(
    layer: &Path,
    types: LayerTypes,
    api: ApiVersion,
) -> Result<Vec<EnvironmentChange>, VariablesError> {
    let unsuffixed = if api < ApiVersion::zero(5) { Unsuffixed::Prepend } else { Unsuffixed::Override };
    let changes = |directory: &Path, scope: &EnvironmentScope| -> Result<_, VariablesError> {
        Ok(changes_of_directory(&variables::read(directory)?, scope, unsuffixed))
    };
    let mut all = changes(&layer.join("env"), &EnvironmentScope::All)?;
    if types.build {
        all.extend(changes(&layer.join("env.build"), &EnvironmentScope::Build)?);
    }
    let launch = layer.join("env.launch");
    if types.launch && launch.is_dir() {
        all.extend(changes(&launch, &EnvironmentScope::Launch)?);
        for (name, _) in list(&launch).unwrap_or_default() {
            // ENV-25: other directories are skipped.
            if let Ok(process) = name.parse()
                && launch.join(&name).is_dir()
            {
                all.extend(changes(&launch.join(&name), &EnvironmentScope::Process(process))?);
            }
        }
    }
    Ok(all)
}

/// Reads the bills of materials in `directory`. Those of `layers` are put there.
///
/// # Errors
/// [`LayersError`] with what breaks a rule.
///
/// # Spec
/// `buildpack.md` 0.12 "Software-Bill-of-Materials"; SBOM-01, SBOM-02, SBOM-06, SBOM-07.
pub fn read_sboms(
    directory: &Path,
    rules: Rules<'_>,
    layers: &mut [LayerOutput],
) -> Result<Sboms, LayersError> {
    let mut found = Sboms::default();
    if rules.api < ApiVersion::zero(7) {
        return Ok(found);
    }
    for (file, _) in &list(directory)? {
        let Some((of, rest)) =
            file.rsplit_once(".sbom.").filter(|(_, rest)| rest.strip_suffix(".json").is_some())
        else {
            continue;
        };
        let sboms = match of {
            "launch" => &mut found.launch,
            "build" => &mut found.build,
            // SBOM-06: what belongs to no layer is left out, whatever it is.
            of => match layers.iter_mut().find(|layer| layer.name.as_str() == of) {
                Some(layer) => &mut layer.sboms,
                None => continue,
            },
        };
        let bad = |problem: String| LayersError::Sbom { file: file.escape_debug().to_string(), problem };
        let Some(format) = SbomFormat::ALL.into_iter().find(|format| format.extension() == rest) else {
            return Err(bad("is of no known format".to_owned()));
        };
        if !rules.sbom_formats.iter().any(|declared| declared == format.media_type()) {
            let media_type = format.media_type();
            return Err(bad(format!(
                "is `{media_type}`, which `sbom-formats` of its buildpack does not have"
            )));
        }
        let path = directory.join(file);
        let content = read_small(&path, rules.sbom_bytes)
            .map_err(|source| LayersError::Io { path: path.clone(), source })?
            .ok_or(LayersError::TooLarge { path })?;
        sboms.push(Sbom { format, content });
        found.any = true;
    }
    Ok(found)
}

/// What is in a regular file; never waits for a FIFO. `None` when it is more than `limit`.
fn read_small(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}
