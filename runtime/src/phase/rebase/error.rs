//! Why an image is not rebased.

use std::fmt;

use crate::fault::{Diagnose, Fault};

/// Why an image is not rebased. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RebaseError {
    /// A rule that force may overrule.
    #[error(transparent)]
    Refused(Refusal),
    /// It was not made by a lifecycle.
    #[error("the image has no label `io.buildpacks.lifecycle.metadata`")]
    NoMetadata,
    /// A label cannot be read.
    #[error("the label `{name}` is not valid: {reason}")]
    Label { name: &'static str, reason: String },
    /// The Platform API of the image.
    #[error("the image was made with the Platform API `{value}`, which is none")]
    Api { value: String },
    /// Its label does not say where the run image ends.
    #[error("the image has no run image below the app")]
    NoTopLayer,
    /// What its label says of its layers is not so.
    #[error("the image does not have the layer `{top_layer}`, where its run image should end")]
    TopLayerMissing { top_layer: String },
    /// There is nothing to put below.
    #[error("the run image has no layers")]
    EmptyRunImage,
    /// Stacks have to be the same; older images only. Empty is none.
    #[error("the run image is of {}, the image of {}", stack(run_image), stack(app))]
    Stack { app: String, run_image: String },
    /// The app was built for these; older images only.
    #[error("the run image lacks the mixins `{}`", missing.join("`, `"))]
    Mixins { missing: Vec<String> },
}

fn stack(id: &str) -> String {
    if id.is_empty() { "no stack".to_owned() } else { format!("the stack `{id}`") }
}

/// A rule that force may overrule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It says of itself that it must not be.
    #[error("the image is marked as not rebasable")]
    NotRebasable,
    /// The run image is for another system.
    #[error("the run image is for `{run_image}`, the app was built for `{app}`")]
    Target { app: TargetText, run_image: TargetText },
    /// The app was built for run images of other names.
    #[error("the run image `{name}` is not one that the image was made for")]
    Unrecorded {
        name: String,
        /// Those that it was made for.
        recorded: Vec<String>,
    },
}

/// A system and a distribution, for people: `linux/arm64/v8 debian 12`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetText(pub(super) String);

impl fmt::Display for TargetText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Diagnose for RebaseError {
    fn id(&self) -> &'static str {
        match self {
            Self::Refused(Refusal::NotRebasable) => "rebase.not_rebasable",
            Self::Refused(Refusal::Target { .. }) => "rebase.target",
            Self::Refused(Refusal::Unrecorded { .. }) => "rebase.unrecorded_run_image",
            Self::NoMetadata => "rebase.no_metadata",
            Self::Label { .. } => "rebase.label",
            Self::Api { .. } => "rebase.platform_api",
            Self::NoTopLayer => "rebase.no_run_image",
            Self::TopLayerMissing { .. } => "rebase.top_layer_missing",
            Self::EmptyRunImage => "rebase.empty_run_image",
            Self::Stack { .. } => "rebase.stack",
            Self::Mixins { .. } => "rebase.mixins",
        }
    }

    fn fault(&self) -> Fault {
        Fault::Caller
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Refused(Refusal::Unrecorded { recorded, .. }) if !recorded.is_empty() => {
                format!("it was made for `{}`; `--force` takes this one nevertheless", recorded.join("`, `"))
            }
            Self::Refused(Refusal::Unrecorded { .. }) => {
                "its label names no run image; `--force` takes this one nevertheless".to_owned()
            }
            Self::Refused(Refusal::NotRebasable) => {
                "build it again on the new run image; `--force` rebases it nevertheless".to_owned()
            }
            Self::Refused(Refusal::Target { .. }) => {
                "build it again for that system; `--force` rebases it nevertheless".to_owned()
            }
            Self::NoMetadata => "only images that buildpacks made can be rebased".to_owned(),
            Self::NoTopLayer => "it was built on `scratch`; build it again on a run image".to_owned(),
            Self::Stack { .. } | Self::Mixins { .. } => "build it again on the new run image".to_owned(),
            _ => return None,
        };
        Some(text)
    }
}
