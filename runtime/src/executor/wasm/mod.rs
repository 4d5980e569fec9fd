//! Buildpacks as WebAssembly components, in the process that calls this.
//!
//! Every call gets a fresh store and an empty cell; nothing of one call is left
//! for the next. Knows nothing of other processes: [`super::worker`] puts a
//! confined one around it. Only this module and those below it see wasmtime.

mod bindings;
mod cell;
mod convert;
mod downloads;
mod engine;
mod filesystem;
mod host;
mod in_process;
mod limits;
mod log;
mod sandbox;
mod unpack;
mod wasi;

pub(crate) use cell::{CellCalls, CellParts, Cells, LoadedComponent, OpenedDirectory};
pub use engine::{Interface, NotLoadable};
pub(crate) use engine::{compile, engine_key, new_engine};
pub(crate) use filesystem::{MountSpec, Quota};
pub use in_process::{CompiledComponent, InProcessExecutor};
