//! From an app's source to an OCI image, by buildpacks that run as sandboxed
//! WebAssembly components.
//!
//! ```text
//!  order ──────┐
//!  source dir ─┼─▶ detect ─Detected─▶ restore ─Restored─▶ build ─Outcome─▶ export ─Exported─▶ keep
//!  buildpacks ─┘      │                  │                  │               │               │
//!                  executor            store             executor          oci            store
//! ```
//!
//! The front door is [`lifecycle`]: its two functions call the phases in order,
//! and each phase is one file in [`phase`]. What runs a buildpack is behind
//! [`executor::Executor`]; what is kept between builds is in [`store`].
//!
//! The library returns values and tells [`event::Event`]s. It never prints,
//! exits, reads an environment variable or the current directory: that is its
//! embedder's business, who also says how a worker process is started
//! ([`executor::worker::WorkerCommand`]).

pub mod attestation;
pub mod cache_dir;
pub mod cancel;
pub mod catalog;
pub mod cnb;
pub mod error;
pub mod event;
pub mod executor;
pub mod fault;
pub mod grant;
mod http;
pub mod images;
pub mod inspection;
pub mod integrity;
pub mod lifecycle;
pub mod limits;
pub mod network;
pub mod oci;
pub mod phase;
pub mod plan;
pub mod policy;
pub mod programs;
pub mod registry;
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
