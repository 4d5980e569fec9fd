//! The file system a guest sees: one table of mounts, nothing else.
//!
//! Guests know only guest paths (`/workspace`, `/layers/<id>/<layer>`, …). Every
//! path is resolved here against the [`MountTable`], absolute symlinks
//! included, and handed to the kernel with `openat2` so that no component of
//! it can be a link or leave its mount. What a guest learns is constant: times,
//! inode numbers and link counts say nothing of the host, listings are sorted.
//!
//! Knows nothing of Wasm or of buildpacks; `wasi` binds it to `wasi:filesystem`,
//! `host` to our own interfaces.

mod fresh;
mod mount;
mod open_file;
mod quota;
mod resolve;

pub(crate) use fresh::{FreshDirectory, NewFile};
pub(crate) use mount::{MountSpec, MountTable, Names, NodeKind, OpenHow, Opened, Walk};
pub(crate) use open_file::OpenFile;
pub(crate) use quota::{LimitReached, Quota};
pub(crate) use resolve::{GuestPath, resolve};
