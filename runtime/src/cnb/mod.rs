//! The formats of the Cloud Native Buildpacks specification, one file each.
//!
//! Everything here is plain data: parsed and checked at the door, written back
//! byte for byte the same. Nothing here reads a file, knows an executor or has
//! heard of Wasm.

pub mod analyzed_toml;
pub mod api;
pub mod build_metadata;
pub mod build_plan;
pub mod build_toml;
pub mod buildpack_plan;
pub mod buildpack_toml;
pub mod cache_metadata;
pub mod detect_plan;
pub mod dockerfile;
pub mod env;
pub mod extend_config;
pub mod extension_toml;
pub mod group_toml;
pub mod id;
pub mod labels;
pub mod launch;
pub mod launch_toml;
pub mod layer;
pub mod layer_toml;
pub mod legacy_bom;
pub mod metadata_toml;
pub mod order;
pub mod project_metadata;
pub mod project_toml;
mod reference_toml;
pub mod report_toml;
pub mod run_toml;
pub mod sbom;
pub mod slice;
pub mod store_toml;
pub mod system_toml;
pub mod target;
