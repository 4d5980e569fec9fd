//! Which layers the image has, in the order they count.
//!
//! ```text
//! <layers>/
//!   acme_site/          buildpack `acme/site`, `/` written as `_`
//!     a/ b/             its layers, by name
//! ```

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::directory::{self, Kind};
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
            // A link to a directory is no layer.
            let layers = entries(&directory)?.into_iter().filter(|entry| entry.kind == Kind::Directory);
            let layers = layers.map(|entry| entry.path).collect();
            Ok(BuildpackLayers { api: buildpack.api, layers })
        })
        .collect()
}

/// What is in a directory.
struct Entry {
    path: PathBuf,
    /// Of the entry itself; the directory says it without another call.
    kind: Kind,
}

impl Entry {
    /// Whether it is a regular file, or a link to one.
    fn is_file(&self) -> bool {
        self.kind == Kind::File || (self.kind == Kind::Link && self.path.is_file())
    }
}

/// The entries of a directory, sorted by the bytes of their names; none where
/// there is no such directory.
fn entries(directory: &Path) -> Result<Vec<Entry>, Failure> {
    let cannot = |error: io::Error| {
        Failure::launch(format!("cannot read the directory `{}`: {error}", directory.display()))
    };
    let listed = match directory::list(directory) {
        Ok(listed) => listed,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(cannot(error)),
    };
    let mut entries: Vec<Entry> =
        listed.into_iter().map(|(name, kind)| Entry { path: directory.join(name), kind }).collect();
    entries.sort_unstable_by(|left, right| left.path.file_name().cmp(&right.path.file_name()));
    Ok(entries)
}

/// What a directory holds for every process, and whether there is something with the
/// name of one that may be for that process alone.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// The regular files, and links to such, sorted.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) has_own: bool,
}

/// The files of a directory that are for every process.
pub(crate) fn files(directory: &Path, process_type: Option<&str>) -> Result<Files, Failure> {
    Ok(chosen(entries(directory)?, process_type))
}

/// As [`files`], but a link that leads nowhere is an error: what it should say or do is missing (ENV-12).
pub(crate) fn files_without_dangling_links(
    directory: &Path,
    process_type: Option<&str>,
) -> Result<Files, Failure> {
    let entries = entries(directory)?;
    for Entry { path, .. } in entries.iter().filter(|entry| entry.kind == Kind::Link) {
        path.metadata()
            .map_err(|error| Failure::launch(format!("cannot read `{}`: {error}", path.display())))?;
    }
    Ok(chosen(entries, process_type))
}

fn chosen(entries: Vec<Entry>, process_type: Option<&str>) -> Files {
    let is_own = |name: &str| entries.iter().any(|entry| entry.path.file_name() == Some(OsStr::new(name)));
    let has_own = process_type.is_some_and(is_own);
    Files { files: entries.into_iter().filter(Entry::is_file).map(|entry| entry.path).collect(), has_own }
}
