//! Which layers the image has, in the order they count.
//!
//! ```text
//! <layers>/
//!   acme_site/          buildpack `acme/site`, `/` written as `_`
//!     a/ b/             its layers, by name
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::metadata::Buildpack;
use crate::platform::ApiVersion;

/// The layers of one buildpack.
#[derive(Debug)]
pub(crate) struct BuildpackLayers {
    /// API of the buildpack: it decides what a variable's file without a suffix means.
    pub(crate) api: ApiVersion,
    /// Layer directories, sorted by name.
    pub(crate) layers: Vec<PathBuf>,
}

/// Finds the layers of every buildpack, buildpacks in the order they were built.
pub(crate) fn find(
    layers_directory: &Path,
    buildpacks: &[Buildpack],
) -> Result<Vec<BuildpackLayers>, Failure> {
    buildpacks
        .iter()
        .map(|buildpack| {
            let directory = layers_directory.join(buildpack.id.replace('/', "_"));
            let layers = entries(&directory)?.into_iter().filter(|path| is_directory(path)).collect();
            Ok(BuildpackLayers { api: buildpack.api, layers })
        })
        .collect()
}

/// The entries of a directory, sorted by the bytes of their names; none where
/// there is no such directory.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let cannot = |error: io::Error| {
        Failure::launch(format!("cannot read the directory `{}`: {error}", directory.display()))
    };
    let reader = match fs::read_dir(directory) {
        Ok(reader) => reader,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(cannot(error)),
    };
    let mut paths =
        reader.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(cannot)?;
    paths.sort_unstable_by(|left, right| left.file_name().cmp(&right.file_name()));
    Ok(paths)
}

/// The regular files of a directory, and links to such, sorted.
pub(crate) fn files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    Ok(entries(directory)?.into_iter().filter(|path| path.is_file()).collect())
}

/// As [`files`], but a link that leads nowhere is an error: what it should say is missing (ENV-12).
pub(crate) fn files_without_dangling_links(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in entries(directory)? {
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => files.push(path),
            Ok(_) => {}
            Err(error) => {
                return Err(Failure::launch(format!("cannot read `{}`: {error}", path.display())));
            }
        }
    }
    Ok(files)
}

/// A directory itself; a link to one is not a layer.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}
