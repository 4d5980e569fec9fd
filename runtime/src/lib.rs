//! From an app's source to an OCI image, by buildpacks that run as sandboxed
//! WebAssembly components.

pub mod cancel;
pub mod cnb;
pub mod event;
pub mod executor;
pub mod fault;
pub mod grant;
pub mod limits;
pub mod store;
mod tree;
