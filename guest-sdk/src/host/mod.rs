//! The host, behind one set of functions: the real one in a component, a small
//! native one in tests. Nothing outside this folder asks which it is.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{Host, copy_tree, hash_tree, set_executable, unpack};
#[cfg(target_family = "wasm")]
pub use wasm::{Adapter, bindings};
#[cfg(target_family = "wasm")]
pub(crate) use wasm::{Host, copy_tree, hash_tree, set_executable, unpack};
