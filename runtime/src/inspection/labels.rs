//! Labels, read with limits: their text comes from whoever made the image.

use serde::de::DeserializeOwned;

use crate::cnb::labels::{BUILD_METADATA, BuildMetadata, LIFECYCLE_METADATA, LifecycleMetadata};
use crate::oci::image::RunConfiguration;
use crate::text::harmless;

/// Longest label that is read; real ones have a few hundred kilobytes at most. How deep
/// its JSON may be is the parser's own limit, 128 levels.
const MAX_LABEL_BYTES: usize = 2 << 20;

/// What a label's problem is cut to.
const MAX_REASON_CHARACTERS: usize = 200;

/// A label that says nothing, because it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the label `{name}` cannot be read: {reason}")]
pub struct LabelProblem {
    pub name: &'static str,
    pub reason: String,
}

/// What the labels of buildpacks say of an image.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// Whether the image says that buildpacks made it.
    pub(super) are_there: bool,
    pub(super) lifecycle: LifecycleMetadata,
    pub(super) build: BuildMetadata,
    pub(super) problems: Vec<LabelProblem>,
}

impl Labels {
    pub(super) fn of(run: &RunConfiguration) -> Self {
        let mut problems = Vec::new();
        let lifecycle = read(run, LIFECYCLE_METADATA, &mut problems);
        let build = read(run, BUILD_METADATA, &mut problems);
        Self {
            are_there: lifecycle.is_some() || build.is_some(),
            lifecycle: lifecycle.unwrap_or_default(),
            build: build.unwrap_or_default(),
            problems,
        }
    }
}

fn read<T: DeserializeOwned>(
    run: &RunConfiguration,
    name: &'static str,
    problems: &mut Vec<LabelProblem>,
) -> Option<T> {
    let text = run.labels.get(name)?;
    let parsed = if text.len() > MAX_LABEL_BYTES {
        Err(format!("it has {} bytes, more than {MAX_LABEL_BYTES}", text.len()))
    } else {
        serde_json::from_str(text).map_err(|error| {
            // The parser quotes what it found, which may be long and anything.
            harmless(&error.to_string()).chars().take(MAX_REASON_CHARACTERS).collect()
        })
    };
    parsed.map_err(|reason| problems.push(LabelProblem { name, reason })).ok()
}
