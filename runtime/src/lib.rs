//! From an app's source to an OCI image, by buildpacks that run as sandboxed
//! WebAssembly components.

pub mod cancel;
pub mod catalog;
pub mod cnb;
pub mod event;
pub mod executor;
pub mod fault;
pub mod grant;
pub mod limits;
pub mod oci;
pub mod phase;
pub mod plan;
pub mod policy;
pub mod source;
pub mod store;
pub mod text;
pub mod toml_text;
pub mod tree;
mod walk;

/// The wasmtime this crate is pinned to; part of the key of compiled code.
pub(crate) const WASMTIME_VERSION: &str = "48.0.8";
