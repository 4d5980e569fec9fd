//! The phases of the lifecycle as programs: the files of a platform in, files out.
//!
//! ```text
//!  analyzer ─analyzed.toml─▶ detector ─group.toml, plan.toml─▶ restorer ─layers─▶ builder ─metadata.toml─▶ exporter
//! ```
//!
//! Each module is one program: what it is told ([`analyzer::Inputs`] …), and a `run`
//! that reads the files before it, calls what does the work, and writes the files
//! after it. [`creator`] runs them one after the other. Where the specification says
//! nothing, they do what the reference lifecycle does; a platform can put them where
//! it had the reference's.
//!
//! Must not know flags, variables and users: the embedder reads those, and turns a
//! [`ProgramError`] into the exit code that [`ProgramError::code`] says.
//!
//! # Spec
//! `platform.md` 0.15 "Lifecycle Interface".

pub mod analyzer;
pub mod builder;
pub mod creator;
pub mod detector;
mod each;
mod error;
pub mod exporter;
pub mod extender;
mod files;
mod last_cache;
mod layers_dir;
mod new_cache;
pub mod rebaser;
pub mod restorer;
mod scratch;
mod seals;
mod target;
mod telling;

pub use self::error::{BUILDPACK_API, GENERIC, INVALID, PLATFORM_API, ProgramError};
pub use self::files::FileError;
pub use self::last_cache::{CacheInDaemon, LastCacheError};
pub use self::layers_dir::LayersDirError;

use crate::cancel::Cancel;
use crate::event::EventSink;
use crate::executor::worker::{CodeCache, Root, WorkerCommand, WorkerSettings};
use crate::images::Images;
use crate::policy::{Isolation, Policy};
use crate::sources::Sources;

/// Where programs find and keep images.
#[derive(Clone, Copy)]
pub struct ImagePlaces<'a> {
    /// Of apps, and what they run on.
    pub images: &'a dyn Images,
    /// Those that are caches. They are refused where it is a daemon (CAC-07).
    pub caches: &'a dyn Images,
}

impl<'a> ImagePlaces<'a> {
    /// All in one place.
    #[must_use]
    pub fn one(images: &'a dyn Images) -> Self {
        Self { images, caches: images }
    }
}

/// What the embedder gives to programs that run buildpacks.
pub struct Services<'a> {
    /// How a worker for components is started.
    pub worker: &'a WorkerCommand,
    /// Keeps what was compiled.
    pub code: &'a dyn CodeCache,
    /// What components may do.
    pub policy: &'a Policy,
    /// Where components download from.
    pub sources: &'a Sources,
    /// The environment of the program itself; only what the specification lists
    /// of it reaches a buildpack (ENV-01).
    pub environment: &'a [(std::ffi::OsString, std::ffi::OsString)],
    pub cancel: &'a Cancel,
    pub events: &'a mut dyn EventSink,
}

impl Services<'_> {
    /// How a worker is made that sees `roots`.
    fn worker_settings(&self, roots: Vec<Root>) -> WorkerSettings {
        WorkerSettings {
            command: self.worker.clone(),
            limits: self.policy.limits.clone(),
            roots,
            user: None,
            isolation_required: self.policy.isolation == Isolation::Required,
            cancel: self.cancel.clone(),
        }
    }
}
