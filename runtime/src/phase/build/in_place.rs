//! Components in the directories of a platform: their records as the files that a
//! classic buildpack would have left, and those files as what was restored.
//!
//! # Spec
//! WSM-04. The next program of the lifecycle, and classic buildpacks of the same
//! group, find nothing that tells which kind of buildpack was at work.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use fs_err as fs;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, symlinkat, unlinkat};
use rustix::io::Errno;
use toml::Table;

use crate::cnb::api::ApiVersion;
use crate::cnb::build_toml;
use crate::cnb::env::joins;
use crate::cnb::id::LayerName;
use crate::cnb::launch_toml;
use crate::cnb::layer::{EnvironmentChange, LayerTypes};
use crate::cnb::layer_toml::{LayerToml, OpenedAs};
use crate::cnb::sbom::Sbom;
use crate::cnb::store_toml;
use crate::executor::process::layers;
use crate::executor::{BuildOutputs, LayerOutput};
use crate::phase::values::{BuiltContents, RestoredBuildpack};
use crate::store::{CachedLayer, SealedTree};
use crate::toml_text::{TomlFileError, read_with};
use crate::tree::Tree;
use crate::walk;

/// Components have what came last.
const API: ApiVersion = *ApiVersion::SUPPORTED_BUILDPACK_APIS.end();

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Takes what was restored into `directory` for a component, and leaves that empty.
/// Contents go below `aside`. What no component left is not of use to one.
pub(super) fn take_restored(directory: &Path, aside: &Path) -> io::Result<RestoredBuildpack> {
    let mut restored = RestoredBuildpack::default();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(restored),
        entries => entries?,
    };
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names.iter().filter_map(|name| name.to_str()) {
        if name == "store.toml" {
            restored.store = no_file_as_none(read_with(&directory.join(name), store_toml::parse))?;
        }
        let Some(layer) = name.strip_suffix(".toml").and_then(|name| name.parse::<LayerName>().ok()) else {
            continue;
        };
        // Damaged files are layers that are made anew.
        let Ok(file) = read_with(&directory.join(name), |text| LayerToml::parse(text, API)) else { continue };
        let mut metadata: Table = file.metadata.parse().unwrap_or_default();
        let Some(opened) = OpenedAs::take_from(&mut metadata) else { continue };
        let contents = directory.join(layer.as_str());
        let (mut tree, mut environment) = (None, Vec::new());
        if contents.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            let Ok(changes) = layers::environment(&contents, ALL_TYPES, API) else { continue };
            environment = changes;
            fs::create_dir_all(aside)?;
            let path = aside.join(layer.as_str());
            fs::rename(&contents, &path)?;
            tree = Some(SealedTree { path, sealed_at: (i64::MAX, 0) });
        }
        restored.layers.push(CachedLayer {
            name: layer,
            types: opened.types,
            cache_key: opened.cache_key,
            metadata: metadata.to_string(),
            environment: comparable(&environment),
            sboms: Vec::new(),
            artifacts: None,
            exported: None,
            tree,
        });
    }
    for name in names {
        walk::remove(&directory.join(name))?;
    }
    Ok(restored)
}

const ALL_TYPES: LayerTypes = LayerTypes { launch: true, build: true, cache: true };

fn no_file_as_none<T>(read: Result<T, TomlFileError>) -> io::Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(TomlFileError::Io { source, .. }) => Err(source),
        // A store that cannot be read is none.
        Err(TomlFileError::Invalid { .. }) => Ok(None),
    }
}

/// Changes as far as files say them, in a fixed order.
pub(super) fn comparable(changes: &[EnvironmentChange]) -> Vec<EnvironmentChange> {
    let mut changes = changes.to_vec();
    for change in changes.iter_mut().filter(|change| !joins(change.operation)) {
        change.delimiter.clear();
    }
    changes.sort();
    changes
}

/// Moves the contents of a layer to their own place.
pub(super) fn settle_contents(place: &Path, contents: &mut BuiltContents) -> io::Result<()> {
    if let BuiltContents::Fresh(tree) = contents {
        if let Some(from) = tree.lower.as_ref().or(tree.upper.as_ref()) {
            fs::rename(from, place)?;
        }
        *tree = Tree::of(place);
    }
    Ok(())
}

/// Writes the files of a layer beside its contents.
pub(super) fn settle_layer(directory: &Path, layer: &LayerOutput) -> io::Result<()> {
    let name = layer.name.as_str();
    let mut metadata: Table = layer.metadata.parse().unwrap_or_default();
    OpenedAs { cache_key: layer.cache_key.clone(), types: layer.types }.add_to(&mut metadata);
    fs::write(directory.join(format!("{name}.toml")), LayerToml::to_toml(layer.types, &metadata))?;
    write_sboms(directory, name, &layer.sboms)
}

/// Writes the other files of `outputs`.
pub(super) fn settle(directory: &Path, outputs: &BuildOutputs, store: Option<&str>) -> io::Result<()> {
    let launch = launch_toml::to_toml(&outputs.processes, &outputs.labels, &outputs.slices);
    let files = [
        ("launch.toml", Some(launch).filter(|text| !text.is_empty())),
        ("build.toml", Some(build_toml::to_toml(&outputs.unmet)).filter(|text| !text.is_empty())),
        ("store.toml", store.map(store_toml::to_toml)),
    ];
    for (name, text) in files {
        if let Some(text) = text {
            fs::write(directory.join(name), text)?;
        }
    }
    write_sboms(directory, "launch", &outputs.launch_sboms)?;
    write_sboms(directory, "build", &outputs.build_sboms)
}

fn write_sboms(directory: &Path, of: &str, sboms: &[Sbom]) -> io::Result<()> {
    for sbom in sboms {
        fs::write(directory.join(format!("{of}.sbom.{}", sbom.format.extension())), &sbom.content)?;
    }
    Ok(())
}

/// Makes a link in the app, instead of whatever is at its place.
pub(super) fn link(app: &Path, path: &str, target: &Path) -> io::Result<()> {
    let mut directory: OwnedFd =
        rustix::fs::open(app, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())?;
    let names: Vec<&str> = path.split('/').collect();
    let Some((name, parents)) = names.split_last() else { return Ok(()) };
    for parent in parents {
        match mkdirat(&directory, *parent, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        directory = openat(&directory, *parent, DIRECTORY, Mode::empty())?;
    }
    match unlinkat(&directory, *name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        // The directories above it are no links.
        Err(Errno::ISDIR | Errno::PERM) => walk::remove(&app.join(path))?,
        Err(error) => return Err(error.into()),
    }
    Ok(symlinkat(target, &directory, OsStr::new(name))?)
}

#[cfg(test)]
mod tests;
