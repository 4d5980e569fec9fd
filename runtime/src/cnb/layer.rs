//! Layers as buildpacks describe them: types, and changes of the environment.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::env::LayerRoots;
use super::id::ProcessType;

/// What a layer is for. All eight combinations are valid.
///
/// # Spec
/// `buildpack.md` 0.12 "Layer Types".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LayerTypes {
    /// Part of the image.
    pub launch: bool,
    /// Visible to later buildpacks.
    pub build: bool,
    /// Kept for the next build.
    pub cache: bool,
}

/// When a change of the environment applies; each is a directory in the layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EnvironmentScope {
    /// `env/`
    All,
    /// `env.build/`
    Build,
    /// `env.launch/`
    Launch,
    /// `env.launch/<type>/`
    Process(ProcessType),
}

/// How a change meets the value that is there; each is a file name suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EnvironmentOperation {
    Append,
    Default,
    Override,
    Prepend,
}

/// One change of the environment, made by a layer.
///
/// # Spec
/// `buildpack.md` 0.12 "Environment Variable Modification Rules".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EnvironmentChange {
    pub name: String,
    pub scope: EnvironmentScope,
    pub operation: EnvironmentOperation,
    /// Bytes without NUL.
    #[serde(with = "crate::text::mostly_text")]
    pub value: OsString,
    /// Between old and new value for `Append` and `Prepend`; may be empty.
    #[serde(with = "crate::text::mostly_text")]
    pub delimiter: OsString,
}

/// What has to be known of a layer's contents without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LayerFeatures {
    /// Directories that become part of path variables.
    pub roots: LayerRoots,
    /// Programs that the launcher runs before the process.
    pub has_exec_d: bool,
    /// Scripts that the launcher sources before a shell process.
    pub has_profile_d: bool,
}
