//! The formats of the Cloud Native Buildpacks specification, one file each.
//!
//! Everything here is plain data: parsed and checked at the door, written back
//! byte for byte the same. Nothing here reads a file, knows an executor or has
//! heard of Wasm.

pub mod analyzed_toml;
pub mod api;
pub mod build_plan;
pub mod buildpack_toml;
pub mod env;
pub mod group_toml;
pub mod id;
pub mod labels;
pub mod launch;
pub mod layer;
pub mod order;
pub mod project_toml;
pub mod run_toml;
pub mod sbom;
pub mod slice;
pub mod target;
