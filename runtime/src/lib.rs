//! From an app's source to an OCI image, by buildpacks that run as sandboxed
//! WebAssembly components.

pub mod cancel;
pub mod catalog;
pub mod cnb;
pub mod error;
pub mod event;
pub mod executor;
pub mod fault;
pub mod grant;
pub mod lifecycle;
pub mod limits;
pub mod oci;
pub mod phase;
pub mod plan;
pub mod policy;
pub mod source;
pub mod sources;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod text;
pub mod toml_text;
pub mod tree;
mod walk;
pub mod workspace;

/// The wasmtime this crate is pinned to; part of the key of compiled code.
pub(crate) const WASMTIME_VERSION: &str = "48.0.8";
