//! A folder as one compressed file whose bytes depend on nothing but the
//! folder's names and contents.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

use crate::Result;

/// 1980-01-01T00:00:01Z, the time that everything in our images has.
pub(crate) const FIXED_TIME: u64 = 315_532_801;

/// Packs everything under `folder`.
///
/// # Shape
/// Entries in byte order of their paths; owners 0, fixed times; directories and
/// executable files 0755, other files 0644; gzip without a name or a time.
pub(crate) fn pack(folder: &Path) -> Result<Vec<u8>> {
    let cannot = |error: std::io::Error| format!("cannot pack `{}`: {error}", folder.display());
    let mut archive = tar::Builder::new(GzBuilder::new().write(Vec::new(), Compression::best()));
    for path in walk(folder).map_err(cannot)? {
        let metadata = fs::metadata(&path).map_err(cannot)?;
        let name = path.strip_prefix(folder).map_err(|error| error.to_string())?;
        let mut header = tar::Header::new_ustar();
        header.set_mtime(FIXED_TIME);
        header.set_uid(0);
        header.set_gid(0);
        if metadata.is_dir() {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            archive.append_data(&mut header, name, &[][..]).map_err(cannot)?;
        } else {
            let contents = fs::read(&path).map_err(cannot)?;
            let executable = metadata.permissions().mode() & 0o111 != 0;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(if executable { 0o755 } else { 0o644 });
            header.set_size(contents.len() as u64);
            archive.append_data(&mut header, name, &contents[..]).map_err(cannot)?;
        }
    }
    let mut encoder = archive.into_inner().map_err(cannot)?;
    encoder.flush().map_err(cannot)?;
    encoder.finish().map_err(cannot)
}

/// Everything under a folder, parents before children, in byte order.
pub(crate) fn walk(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// `sha256:` and the digest in hex.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Writes a file only if its contents are new, so that cargo sees no change where there is none.
pub(crate) fn write_if_changed(path: &Path, contents: &[u8], mode: u32) -> Result<()> {
    let cannot = |error: std::io::Error| format!("cannot write `{}`: {error}", path.display());
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(cannot)?;
    }
    fs::write(path, contents).map_err(cannot)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(cannot)
}
