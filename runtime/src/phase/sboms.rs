//! Bills of materials as files, for whoever wants them beside the image.

use std::io;
use std::path::Path;

use fs_err as fs;

use crate::cnb::id::{BuildpackId, LayerName};
use crate::cnb::sbom::Sbom;
use crate::phase::values::Built;
use crate::walk;

/// Writes every bill of materials of a build below `directory`; those of an
/// earlier build are replaced.
///
/// # Shape
/// ```text
/// layers/sbom/launch/<buildpack>/sbom.<ext>
/// layers/sbom/launch/<buildpack>/<layer>/sbom.<ext>
/// layers/sbom/build/…
/// ```
///
/// # Errors
/// When a file cannot be written.
///
/// # Spec
/// SBOM-03, SBOM-04, SBOM-10.
pub fn write(built: &Built, directory: &Path) -> io::Result<()> {
    let root = directory.join("layers/sbom");
    for (name, sboms) in [("launch", &built.launch_sboms), ("build", &built.build_sboms)] {
        let place = root.join(name);
        if place.symlink_metadata().is_ok() {
            walk::remove(&place)?;
        }
        fs::create_dir_all(&place)?;
        for sbom in sboms {
            write_one(&place, sbom)?;
        }
    }
    Ok(())
}

fn write_one(
    place: &Path,
    (buildpack, layer, sbom): &(BuildpackId, Option<LayerName>, Sbom),
) -> io::Result<()> {
    let mut directory = place.join(buildpack.directory_name());
    if let Some(layer) = layer {
        directory.push(layer.as_str());
    }
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(format!("sbom.{}", sbom.format.extension())), &sbom.content)
}
