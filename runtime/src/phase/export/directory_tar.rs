//! One directory as the tar of a layer, outside any image: for caches.

use std::io::{self, Write};

use super::ExportError;
use super::contents::{Content, LayerEntry, tree_layer};
use super::on_disk::look_at;
use crate::cancel::Cancel;
use crate::oci::layer::{LayerWriter, Owner};
use crate::tree::{Tree, TreeError, TreeLimits};

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
