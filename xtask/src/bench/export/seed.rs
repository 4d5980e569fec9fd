//! What is exported: copies of files that every machine with this toolchain has.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::failed;
use crate::Result;
use crate::command::capture;

/// At most, of each layer.
const LAYER_BYTES: u64 = 330 << 20;
const LAYER_FILES: usize = 20_000;

pub(super) const LAYERS: u32 = 4;

pub(super) struct Written {
    pub(super) files: usize,
    /// About: a header for each file, and its contents in whole blocks.
    pub(super) tar_bytes: u64,
}

/// Two layers of crates' sources, one of documentation, one of libraries.
pub(super) fn write_layers(seed: &Path) -> Result<Vec<Written>> {
    let sysroot = PathBuf::from(capture(Command::new("rustc").args(["--print", "sysroot"]))?.trim());
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .ok_or("neither `CARGO_HOME` nor `HOME` is set")?;
    let mut crates = Vec::new();
    for registry in children(&home.join("registry/src")) {
        crates.extend(children(&registry));
    }
    let (first, second) = crates.split_at(crates.len() / 2);
    let sources = [first.to_vec(), second.to_vec(), vec![sysroot.join("share")], vec![sysroot.join("lib")]];
    (0..LAYERS)
        .zip(sources)
        .map(|(number, sources)| {
            let layer = seed.join(format!("layer-{number}"));
            fs::create_dir_all(&layer).map_err(|error| failed("make", &layer, &error))?;
            let mut written = Written { files: 0, tar_bytes: 0 };
            for source in sources {
                let name = source.file_name().unwrap_or_default();
                copy(&source, &layer.join(name), &mut written)?;
            }
            Ok(written)
        })
        .collect()
}

/// In order of their names.
fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Copies files until a layer is full; links and the like are left out.
fn copy(from: &Path, to: &Path, written: &mut Written) -> Result<()> {
    let found = fs::symlink_metadata(from).map_err(|error| failed("look at", from, &error))?;
    if found.is_dir() {
        fs::create_dir_all(to).map_err(|error| failed("make", to, &error))?;
        for child in children(from) {
            copy(&child, &to.join(child.file_name().unwrap_or_default()), written)?;
        }
    } else if found.is_file() {
        let bytes = 512 + found.len().next_multiple_of(512);
        if written.files < LAYER_FILES && written.tar_bytes + bytes <= LAYER_BYTES {
            fs::copy(from, to).map_err(|error| failed("copy", from, &error))?;
            written.files += 1;
            written.tar_bytes += bytes;
        }
    }
    Ok(())
}
