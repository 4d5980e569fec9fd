//! From an app's source to an OCI image, by buildpacks that run as sandboxed
//! WebAssembly components.

pub mod cancel;
pub mod cnb;
pub mod event;
pub mod executor;
pub mod fault;
pub mod grant;
pub mod limits;
pub mod oci;
pub mod phase;
pub mod text;
pub mod tree;

/// The wasmtime this crate is pinned to; part of the key of compiled code.
pub(crate) const WASMTIME_VERSION: &str = "48.0.8";
