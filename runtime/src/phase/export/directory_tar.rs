//! One directory as the tar of a layer, outside any image: for caches.

use std::io::{self, Write};

use super::ExportError;
use super::contents::{Content, Ground, LayerEntry, tree_layer};
use super::on_disk::look_at;
use crate::cancel::Cancel;
use crate::oci::digest::{Digest, HashingWriter};
use crate::oci::layer::{LayerWriter, Owner};
use crate::tree::{Listing, Tree, TreeError, TreeLimits};

/// Writes what is at `path` as the layer that an image would have; the same bytes.
///
/// # Errors
/// When there is no such directory, or it cannot be read, or `out` cannot be written.
///
/// # Spec
/// SBOM-09, TAR-01 to TAR-11.
pub fn write_directory(
    path: &str,
    owner: Owner,
    limits: TreeLimits,
    cancel: &Cancel,
    out: impl Write,
) -> Result<(), ExportError> {
    let missing = || TreeError::Read { path: path.into(), cause: io::ErrorKind::NotFound.into() };
    let place = look_at(path, owner)?.ok_or_else(missing)?;
    let tree = if place.is_directory { Tree::of(path) } else { Tree::default() };
    let listing = tree.list(limits, cancel)?;
    let reader = tree.reader()?;
    let failed = |cause| ExportError::Store { layer: path.to_owned(), cause };
    let mut writer = LayerWriter::new(out);
    for LayerEntry { name, mode, owner, content } in tree_layer(&place.ground, &listing) {
        cancel.check()?;
        match content {
            Content::Directory => writer.directory(&name, mode, owner).map_err(failed)?,
            Content::Symlink(target) => writer.symlink(&name, &target, mode, owner).map_err(failed)?,
            Content::Special(special) => writer.special(&name, special, mode, owner).map_err(failed)?,
            Content::Bytes(bytes) => {
                writer.file(&name, mode, owner, bytes.len() as u64, bytes).map_err(failed)?;
            }
            Content::File { entry, size } => {
                let file = reader.open(entry)?;
                writer.file(&name, mode, owner, size, &file).map_err(failed)?;
                file.check_unchanged()?;
            }
        }
    }
    writer.finish().map_err(failed)?;
    Ok(())
}

/// A directory as it was when it was looked at. Nothing in it was opened.
///
/// Two looks are equal when nothing was changed in between: every entry is the same
/// inode, with the same size and times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryLook {
    ground: Ground<'static>,
    listing: Listing,
}

impl DirectoryLook {
    /// Looks at what is at `path`; `None` when there is no directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn at(
        path: &str,
        owner: Owner,
        limits: TreeLimits,
        cancel: &Cancel,
    ) -> Result<Option<Self>, ExportError> {
        let Some(place) = look_at(path, owner)?.filter(|place| place.is_directory) else { return Ok(None) };
        let listing = Tree::of(path).list(limits, cancel)?;
        Ok(Some(Self { ground: place.ground, listing }))
    }

    /// The outline of the tar that [`write_directory`] would write, as
    /// [`TarReader::outline`](crate::oci::tar_reader::TarReader::outline) says it.
    ///
    /// # Errors
    /// When a name or number cannot be stored.
    pub fn outline(&self) -> io::Result<Digest> {
        outline_of(&tree_layer(&self.ground, &self.listing))
    }

    /// When something in it was changed last, in seconds and nanoseconds since 1970.
    #[must_use]
    pub fn last_change(&self) -> Option<(i64, u64)> {
        self.listing.last_change()
    }
}

/// The outline of the tar of these entries: everything but what is in the files.
pub(super) fn outline_of(entries: &[LayerEntry<'_>]) -> io::Result<Digest> {
    let mut writer = LayerWriter::new(HashingWriter::new(io::sink()));
    for LayerEntry { name, mode, owner, content } in entries {
        match content {
            Content::Directory => writer.directory(name, *mode, *owner)?,
            Content::Symlink(target) => writer.symlink(name, target, *mode, *owner)?,
            Content::Special(special) => writer.special(name, *special, *mode, *owner)?,
            Content::Bytes(bytes) => writer.file_header(name, *mode, *owner, bytes.len() as u64)?,
            Content::File { size, .. } => writer.file_header(name, *mode, *owner, *size)?,
        }
    }
    Ok(writer.into_inner().finish().0)
}
