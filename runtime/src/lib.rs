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
pub mod plan;
pub mod policy;
pub mod source;
pub mod store;
pub mod toml_text;
mod tree;
