//! Everything a build can fail with: one arm for each phase.

use std::io;
use std::path::PathBuf;

use crate::cancel::Cancelled;
use crate::executor::process::variables::VariablesError;
use crate::fault::{Diagnose, Fault, is_disk_full};
use crate::images::ImagesError;
use crate::phase::build::BuildError;
use crate::phase::detect::DetectError;
use crate::phase::export::ExportError;
use crate::source::SourceError;
use crate::store::StoreError;
use crate::workspace::BindingsError;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The app's directory.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directories of the build.
    #[error("cannot prepare the build")]
    Prepare(#[source] io::Error),
    /// What the builder's operator sets.
    #[error("cannot use the builder's `build-config`")]
    Operator(#[from] VariablesError),
    /// The service bindings.
    #[error(transparent)]
    Bindings(#[from] BindingsError),
    /// A worker process cannot be started or confined as the policy wants.
    #[error("cannot start a worker process: {0}")]
    Worker(String),
    /// Detection.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The buildpacks.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The image.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The place the image goes to.
    #[error(transparent)]
    Publish(#[from] ImagesError),
    /// Bills of materials that were wanted as files. The image is there.
    #[error("cannot write bills of materials to `{}`", path.display())]
    Sboms { path: PathBuf, source: io::Error },
    /// Cancelled between two phases.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    fn inner(&self) -> Option<&dyn Diagnose> {
        match self {
            Self::Source(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Detect(error) => Some(error),
            Self::Build(error) => Some(error),
            Self::Export(error) => Some(error),
            Self::Publish(error) => Some(error),
            Self::Prepare(_)
            | Self::Operator(_)
            | Self::Bindings(_)
            | Self::Worker(_)
            | Self::Sboms { .. }
            | Self::Cancelled(_) => None,
        }
    }
}

impl Diagnose for Error {
    fn id(&self) -> &'static str {
        match (self.inner(), self) {
            (Some(error), _) => error.id(),
            (None, Self::Bindings(BindingsError::Unwritable { .. })) => "host.io",
            (None, Self::Cancelled(_)) => "build.cancelled",
            (None, Self::Worker(_)) => "worker.unavailable",
            (None, Self::Prepare(source)) if is_disk_full(source) => "host.disk_full",
            (None, Self::Operator(_)) => "input.builder",
            (None, Self::Bindings(_)) => "input.bindings",
            (None, _) => "host.io",
        }
    }

    fn fault(&self) -> Fault {
        match (self.inner(), self) {
            (Some(error), _) => error.fault(),
            (None, Self::Bindings(BindingsError::Unwritable { .. })) => Fault::Environment,
            (None, Self::Cancelled(_) | Self::Operator(_) | Self::Bindings(_)) => Fault::Caller,
            (None, _) => Fault::Environment,
        }
    }

    fn hint(&self) -> Option<String> {
        match (self.inner(), self) {
            (Some(error), _) => error.hint(),
            (None, Self::Worker(_)) => {
                Some("`wapack inspect --host` shows what isolation this machine offers".to_owned())
            }
            (None, Self::Prepare(source)) if is_disk_full(source) => {
                Some("free some space, or name another place with `--cache-dir`".to_owned())
            }
            (None, _) => None,
        }
    }
}
