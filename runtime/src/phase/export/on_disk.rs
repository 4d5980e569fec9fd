//! Directories that become layers as they are on disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fs_err as fs;

use super::contents::{Content, Ground, LayerEntry, Modes, ends};
use crate::oci::layer::Owner;
use crate::tree::TreeError;

/// What is at the path of a directory that is to be a layer.
pub(super) struct Place<'a> {
    pub ground: Ground<'a>,
    /// Whether there is anything below: a link is stored as what it is.
    pub is_directory: bool,
}

/// Looks at what is at `path`, an absolute path; `None` when nothing is.
///
/// # Errors
/// When it cannot be looked at, or is neither a directory nor a link.
///
/// # Spec
/// TAR-06, TAR-07: what is above keeps its real owner and mode, whatever it leads
/// through; the rest belongs to `owner`.
pub(super) fn look_at<'a>(path: &str, owner: Owner) -> Result<Option<Place<'a>>, TreeError> {
    let unreadable = |cause| TreeError::Read { path: path.into(), cause };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let content = if metadata.is_dir() {
        Content::Directory
    } else if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(unreadable)?;
        Content::Symlink(target.into_os_string().into_encoded_bytes())
    } else {
        return Err(unreadable(std::io::ErrorKind::NotADirectory.into()));
    };
    let mut above = Vec::new();
    for end in ends(path) {
        if end < path.len() {
            let parent = fs::metadata(&path[..end]).map_err(unreadable)?;
            let owner = Owner { uid: parent.uid().into(), gid: parent.gid().into() };
            above.push(entry(&path[..end], parent.mode(), owner, Content::Directory));
        }
    }
    let is_directory = metadata.is_dir();
    above.push(entry(path, metadata.mode(), owner, content));
    let modes = Modes::OnDisk;
    let ground = Ground { root: path.to_owned(), above, owner, modes, is_group_writable: false };
    Ok(Some(Place { ground, is_directory }))
}

fn entry<'a>(name: &str, mode: u32, owner: Owner, content: Content<'a>) -> LayerEntry<'a> {
    LayerEntry { name: name.into(), mode: mode & 0o7777, owner, content }
}

/// Whether `path` is a directory itself, not a link to one.
pub(super) fn is_real_directory(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path.as_ref()).is_ok_and(|metadata| metadata.is_dir())
}
