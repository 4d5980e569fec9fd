//! What the builder leaves for the exporter: `config/metadata.toml` and the tree `sbom`.
//!
//! # Shape
//! ```text
//! <layers>/config/metadata.toml
//! <layers>/sbom/launch/<buildpack>/sbom.cdx.json      of the whole image
//! <layers>/sbom/launch/<buildpack>/<layer>/sbom.cdx.json
//! <layers>/sbom/launch/sbom.legacy.json               old bills of materials
//! <layers>/sbom/build/…                               of what is not in the image
//! <layers>/sbom/cache/<buildpack>/<layer>/sbom.cdx.json
//! ```

use std::io;
use std::path::Path;

use fs_err as fs;

use super::{BuilderError, Inputs};
use crate::cnb::group_toml::Group;
use crate::cnb::id::{BuildpackId, LayerName};
use crate::cnb::legacy_bom;
use crate::cnb::metadata_toml::BuildMetadata;
use crate::cnb::sbom::Sbom;
use crate::phase::values::Built;
use crate::programs::files;

/// Writes all of it.
///
/// # Spec
/// BLD-10, MET-01, SBOM-03 to SBOM-05, SBOM-12.
pub(super) fn write(inputs: &Inputs, group: &Group, built: &Built) -> Result<(), BuilderError> {
    let directory = inputs.layers.join("sbom");
    if inputs.api.at_least(8) {
        write_sboms(&directory, built).map_err(BuilderError::Write)?;
    }
    if inputs.api.at_least(9) {
        for (name, entries) in [("launch", &built.launch_bom), ("build", &built.build_bom)] {
            files::write(&directory.join(name).join("sbom.legacy.json"), &legacy_bom::to_json(entries))?;
        }
    }
    let metadata = BuildMetadata {
        buildpacks: &group.buildpacks,
        extensions: &group.extensions,
        labels: &built.labels,
        processes: &built.processes,
        slices: &built.slices,
        bom: &built.launch_bom,
    };
    Ok(files::write(&inputs.layers.join("config/metadata.toml"), &metadata.to_toml(inputs.api))?)
}

fn write_sboms(directory: &Path, built: &Built) -> io::Result<()> {
    for (id, layer, sbom) in &built.launch_sboms {
        write_sbom(&directory.join("launch"), id, layer.as_ref(), sbom)?;
    }
    for (id, layer, sbom) in &built.build_sboms {
        write_sbom(&directory.join("build"), id, layer.as_ref(), sbom)?;
    }
    for (id, layer, sbom) in &built.cache_sboms {
        write_sbom(&directory.join("cache"), id, Some(layer), sbom)?;
    }
    Ok(())
}

fn write_sbom(directory: &Path, id: &BuildpackId, layer: Option<&LayerName>, sbom: &Sbom) -> io::Result<()> {
    let mut directory = directory.join(id.directory_name());
    if let Some(layer) = layer {
        directory.push(layer.as_str());
    }
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(format!("sbom.{}", sbom.format.extension())), &sbom.content)
}
