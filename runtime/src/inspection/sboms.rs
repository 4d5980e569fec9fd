//! The bills of materials inside an image.
//!
//! # Spec
//! `platform.md` 0.15 "Bill of Materials": `<layers>/sbom/launch/<buildpack>[/<layer>]/sbom.<ext>`.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::InspectionError;
use super::layer::{LayerTar, OpenLayer, is_no_file};
use crate::cancel::Cancel;
use crate::cnb::sbom::SbomFormat;
use crate::limits::show_bytes;
use crate::oci::digest::DiffId;
use crate::oci::tar_reader::{TarEntry, TarError, TarKind};

/// Where they are below the layers of buildpacks; nothing else of the layer is of interest.
const DIRECTORY: &[u8] = b"sbom";
/// Where they are for whoever reads them, wherever an image has its layers.
const ROOT: &str = "layers/sbom";
const ENDING: &[u8] = b".json";
/// Longest name of a file or directory.
const MAX_NAME_BYTES: usize = 255;
/// Deepest path; real ones have six parts.
const MAX_PARTS: usize = 10;
/// Of all documents together, which are held in memory until they are known to be right.
const MAX_BYTES: u64 = 128 << 20;
const MAX_DOCUMENTS: usize = 10_000;

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SbomDocument {
    /// `layers/sbom/launch/…`, wherever the image has its layers.
    pub path: String,
    /// By its name; `None` for others, such as the old `sbom.legacy.json`.
    pub format: Option<SbomFormat>,
    /// Byte for byte.
    pub content: Vec<u8>,
}

/// Reads the documents of the layer `diff_id`, sorted by path, and the whole layer to
/// verify it. The image has the layers of buildpacks in `layers_directory`.
///
/// Whatever in it is no document of a bill of materials is passed over: links, devices,
/// other files, paths that lead elsewhere.
///
/// # Errors
/// [`InspectionError`]
pub fn read_sboms(
    diff_id: &DiffId,
    layers_directory: &str,
    open: OpenLayer<'_>,
    cancel: &Cancel,
) -> Result<Vec<SbomDocument>, InspectionError> {
    let mut layer = LayerTar::open(diff_id, open)?;
    let mut documents = BTreeMap::new();
    let mut bytes = 0;
    loop {
        cancel.check()?;
        let entry = match layer.tar.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) if is_no_file(&error) => continue,
            Err(error) => return Err(layer.failed(error)),
        };
        let Some(path) = document_path(&entry, layers_directory) else { continue };
        bytes += entry.size;
        if bytes > MAX_BYTES || documents.len() >= MAX_DOCUMENTS {
            let limit =
                if bytes > MAX_BYTES { show_bytes(MAX_BYTES) } else { format!("{MAX_DOCUMENTS} files") };
            return Err(InspectionError::TooLarge { diff_id: diff_id.clone(), limit });
        }
        let mut content = Vec::new();
        let read = layer.tar.contents().read_to_end(&mut content);
        read.map_err(|error| layer.failed(TarError::Read(error)))?;
        let format = format_of(&path);
        documents.insert(path.clone(), SbomDocument { path, format, content });
    }
    Ok(documents.into_values().collect())
}

/// The path of a document; `None` for whatever else it is.
fn document_path(entry: &TarEntry, layers_directory: &str) -> Option<String> {
    let parts = parts_of(&entry.path);
    let parts = parts.strip_prefix(parts_of(layers_directory.as_bytes()).as_slice())?;
    let parts = parts.strip_prefix(&[DIRECTORY])?;
    let is_name = |part: &&[u8]| {
        *part != b".." && part.len() <= MAX_NAME_BYTES && !part.iter().any(u8::is_ascii_control)
    };
    let is_document = entry.kind == TarKind::File
        && parts.len() <= MAX_PARTS
        && parts.iter().all(is_name)
        && parts.last().is_some_and(|name| name.ends_with(ENDING));
    let path = is_document.then(|| String::from_utf8(parts.join(&b'/')).ok()).flatten()?;
    Some(format!("{ROOT}/{path}"))
}

fn parts_of(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect()
}

fn format_of(path: &str) -> Option<SbomFormat> {
    let name = path.rsplit('/').next()?;
    SbomFormat::ALL.into_iter().find(|format| name.strip_prefix("sbom.") == Some(format.extension()))
}

/// Writes documents below `directory` under their paths in the image; the directory is
/// made if it is not there. A file that is there is replaced.
///
/// Nothing is written anywhere else: below `directory` no link is followed.
///
/// # Errors
/// [`InspectionError::Write`]; what was written until then stays.
pub fn write_sboms(documents: &[SbomDocument], directory: &Path) -> Result<Vec<PathBuf>, InspectionError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |cause| InspectionError::Write { path, cause }
    };
    fs_err::create_dir_all(directory).map_err(failed(directory))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::open(directory, flags, Mode::empty()).map_err(|error| failed(directory)(error.into()))?;
    let mut written = Vec::with_capacity(documents.len());
    for document in documents {
        let path = directory.join(&document.path);
        let result = create(&root, &document.path).map_err(std::io::Error::from);
        result
            .and_then(|file| std::fs::File::from(file).write_all(&document.content))
            .map_err(failed(&path))?;
        written.push(path);
    }
    Ok(written)
}

/// Makes the file `path` below `root` anew, and the directories above it.
fn create(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let (above, name) = path.rsplit_once('/').ok_or(Errno::INVAL)?;
    let mut directory = open_beneath(root, ".")?;
    for part in above.split('/') {
        match rustix::fs::mkdirat(&directory, part, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        directory = open_beneath(&directory, part)?;
    }
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    // Removed first: a file that is there may be a link, or have another name elsewhere.
    match rustix::fs::unlinkat(&directory, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory.as_fd(), &name, flags, Mode::from_raw_mode(0o644))
}

fn open_beneath(directory: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests;
