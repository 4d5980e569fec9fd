//! Why no image was made.

use std::io;

use super::needs::Unmet;
use crate::cancel::Cancelled;
use crate::cnb::id::{BuildpackId, BuildpackRef, InvalidName, LayerName, ProcessType};
use crate::cnb::labels::MetadataError;
use crate::cnb::slice::InvalidPattern;
use crate::fault::{Diagnose, Fault, is_disk_full};
use crate::oci::layout::LayoutError;
use crate::tree::TreeError;

/// Why no image was made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Files that would remove others instead of being added.
    #[error("{} would remove files from the image instead of adding one: {}", count(.names.len(), "file"), quoted(.names))]
    ReservedNames {
        /// In the image.
        names: Vec<String>,
    },
    /// A buildpack sets a label that describes the image itself.
    #[error("a buildpack may not set the label `{key}`")]
    ReservedLabel { key: String },
    /// Metadata that cannot be stored in a label.
    #[error("the metadata of {subject} of buildpack `{buildpack}` cannot be stored")]
    Metadata {
        buildpack: BuildpackRef,
        /// Such as `` layer `x` ``.
        subject: String,
        #[source]
        cause: MetadataError,
    },
    /// A slice with a malformed pattern.
    #[error("a slice of the app is not valid")]
    Slice(#[from] InvalidPattern),
    /// A link from the app into a layer that cannot be made.
    #[error("buildpack `{buildpack}` cannot put a link at `{path}`: {reason}")]
    AppLink { buildpack: BuildpackId, path: String, reason: &'static str },
    /// No process of that type.
    #[error("there is no process `{wanted}`")]
    UnknownProcess { wanted: String, known: Vec<String> },
    /// A type of process that cannot be the name of a link.
    #[error("a process cannot be started by its type")]
    ProcessType(#[source] InvalidName),
    /// A layer that is to be cached, and has nothing to cache.
    #[error("layer `{name}` of buildpack `{buildpack}` is to be cached and has no contents")]
    NoContents { buildpack: BuildpackRef, name: LayerName },
    /// A layer without contents that was not there before either.
    #[error(
        "layer `{name}` of buildpack `{buildpack}` has no contents, and the previous image has no such layer"
    )]
    NothingToKeep { buildpack: BuildpackRef, name: LayerName },
    /// A layer without contents that the previous image should have.
    #[error(
        "layer `{name}` of buildpack `{buildpack}` has no contents, and the previous image has lost its `{diff_id}`"
    )]
    KeptLayerGone { buildpack: BuildpackRef, name: LayerName, diff_id: String },
    /// The image was to have no launcher.
    #[error("the image needs a launcher: {}", .reasons.join("; "))]
    NeedsLauncher { reasons: Vec<String> },
    /// Something that a process needs is not in the image.
    #[error("process `{process}` cannot start on the run image `{run_image}`")]
    CannotStart {
        process: ProcessType,
        /// As it was asked for, or `scratch`.
        run_image: String,
        #[source]
        cause: Box<Unmet>,
    },
    /// The kept layer of the last build is damaged. The store has forgotten it, so
    /// building again makes a new one.
    #[error("the stored layer `{name}` of buildpack `{buildpack}` is damaged")]
    DamagedLayer {
        buildpack: BuildpackRef,
        name: LayerName,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layer cannot be written to the store.
    #[error("cannot store layer `{layer}`")]
    Store {
        layer: String,
        #[source]
        cause: io::Error,
    },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Diagnose for ExportError {
    fn id(&self) -> &'static str {
        match self {
            Self::Tree(error) => error.id(),
            Self::Layout(error) => error.id(),
            Self::ReservedNames { .. } => "export.reserved_name",
            Self::ReservedLabel { .. } => "export.reserved_label",
            Self::Metadata { .. } => "export.metadata",
            Self::Slice(_) => "export.slice",
            Self::AppLink { .. } => "export.app_link",
            Self::UnknownProcess { .. } => "export.unknown_process",
            Self::ProcessType(_) => "export.process_type",
            Self::NoContents { .. } => "export.no_contents",
            Self::NothingToKeep { .. } => "export.nothing_to_keep",
            Self::KeptLayerGone { .. } => "export.kept_layer_gone",
            Self::NeedsLauncher { .. } => "export.needs_launcher",
            Self::CannotStart { cause, .. } => cause.problem.id(),
            Self::DamagedLayer { .. } => "export.damaged_layer",
            Self::Store { cause, .. } if is_disk_full(cause) => "host.disk_full",
            Self::Store { .. } => "export.store",
            Self::Cancelled(_) => "build.cancelled",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Tree(error) => error.fault(),
            Self::Layout(error) => error.fault(),
            Self::ReservedNames { .. } => Fault::App,
            Self::ReservedLabel { .. }
            | Self::Metadata { .. }
            | Self::Slice(_)
            | Self::AppLink { .. }
            | Self::ProcessType(_)
            | Self::NoContents { .. }
            | Self::NothingToKeep { .. } => Fault::Buildpack,
            Self::CannotStart { cause, .. } => cause.problem.fault(),
            Self::UnknownProcess { .. } | Self::NeedsLauncher { .. } | Self::Cancelled(_) => Fault::Caller,
            Self::Store { .. } | Self::DamagedLayer { .. } | Self::KeptLayerGone { .. } => Fault::Environment,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Tree(error) => error.hint(),
            Self::Layout(error) => error.hint(),
            Self::ReservedNames { .. } => Some(
                "names that start with `.wh.` have a meaning in images; rename or exclude them".to_owned(),
            ),
            Self::UnknownProcess { known, .. } if !known.is_empty() => {
                Some(format!("there is {}", quoted(known)))
            }
            Self::Store { cause, .. } if is_disk_full(cause) => {
                Some("free some space, or name another place with `--cache-dir`".to_owned())
            }
            Self::DamagedLayer { .. } => Some("build again; the layer is then made anew".to_owned()),
            Self::CannotStart { cause, .. } => Some(cause.hint()),
            Self::NeedsLauncher { .. } => Some("leave out `--launcher never`".to_owned()),
            _ => None,
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn quoted(names: &[impl ToString]) -> String {
    names.iter().map(|name| format!("`{}`", name.to_string())).collect::<Vec<_>>().join(", ")
}
