//! What each buildpack of the group left in its layers directory.

use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::cnb::build_toml::BuildToml;
use crate::cnb::group_toml::{Group, GroupElement};
use crate::cnb::id::{BuildpackRef, InvalidName, LayerName};
use crate::cnb::labels::{MetadataError, json_of_toml};
use crate::cnb::layer_toml::LayerToml;
use crate::cnb::store_toml;
use crate::phase::export::{DirectoryBuildpack, DirectoryLayer};
use crate::toml_text::{self, TomlFileError};

/// Why the results of a buildpack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A link instead of a directory: it could lead anywhere.
    #[error("`{}` is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    /// One of its files.
    #[error("the results of buildpack `{buildpack}` cannot be read")]
    File { buildpack: BuildpackRef, source: TomlFileError },
    /// A name that layers cannot have.
    #[error("a layer of buildpack `{buildpack}` has no valid name")]
    Name { buildpack: BuildpackRef, source: InvalidName },
    /// Metadata that does not fit into a label.
    #[error("`{}` cannot be stored in a label", path.display())]
    Metadata { path: PathBuf, source: MetadataError },
}

/// Files that are not about a layer (LYR-02).
const OTHER_FILES: [&str; 2] = ["build", "launch"];

/// Reads the files of one buildpack below `layers`.
///
/// # Spec
/// EXP-07, LYR-14 to LYR-18, STO-01.
pub(super) fn read(layers: &Path, element: &GroupElement) -> Result<DirectoryBuildpack, LayersError> {
    let reference = element.reference();
    let directory = layers.join(reference.id.directory_name());
    let mut found = DirectoryBuildpack { reference, layers: Vec::new(), store: None };
    for name in toml_names(&directory)? {
        let path = directory.join(format!("{name}.toml"));
        let failed = |source| LayersError::File { buildpack: found.reference.clone(), source };
        let json = |text: &str| {
            json_of_toml(text).map_err(|source| LayersError::Metadata { path: path.clone(), source })
        };
        if name == "store" {
            let metadata = toml_text::read_with(&path, store_toml::parse).map_err(failed)?;
            found.store = Some(json(&metadata)?);
        } else if !OTHER_FILES.contains(&name.as_str()) {
            let file = toml_text::read_with(&path, |text| LayerToml::parse(text, element.api));
            let LayerToml { types, metadata, .. } = file.map_err(failed)?;
            if types.launch {
                let invalid = |source| LayersError::Name { buildpack: found.reference.clone(), source };
                let name: LayerName = name.parse().map_err(invalid)?;
                found.layers.push(DirectoryLayer { name, types, data: json(&metadata)? });
            }
        }
    }
    Ok(found)
}

/// Names of the `.toml` files in a directory, without the ending, sorted by their bytes.
fn toml_names(directory: &Path) -> Result<Vec<String>, LayersError> {
    let failed = |source| LayersError::Read { path: directory.to_owned(), source };
    match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.is_dir() => {
            return Err(LayersError::NotADirectory { path: directory.to_owned() });
        }
        Ok(_) => {}
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".toml")
            && !entry.file_type().map_err(failed)?.is_dir()
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The bills of materials of `build.toml` files, each entry with its buildpack.
///
/// # Spec
/// RPT-03: before Platform API 0.9.
pub(super) fn build_bom(layers: &Path, group: &Group) -> Result<Vec<toml::Value>, LayersError> {
    let mut bom = Vec::new();
    for element in &group.buildpacks {
        let reference = element.reference();
        let path = layers.join(reference.id.directory_name()).join("build.toml");
        let file = match toml_text::read_with(&path, BuildToml::parse) {
            Err(TomlFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                continue;
            }
            result => result.map_err(|source| LayersError::File { buildpack: reference.clone(), source })?,
        };
        for entry in file.bom {
            let buildpack = [
                ("id".to_owned(), reference.id.as_str().into()),
                ("version".to_owned(), reference.version.as_str().into()),
            ];
            let entry: toml::Table = [
                ("name".to_owned(), entry.name.into()),
                ("metadata".to_owned(), entry.metadata.parse::<toml::Table>().unwrap_or_default().into()),
                ("buildpack".to_owned(), toml::Table::from_iter(buildpack).into()),
            ]
            .into_iter()
            .collect();
            bom.push(entry.into());
        }
    }
    Ok(bom)
}
