//! The build plan: what buildpacks provide and require, before and after it is resolved.

use serde::{Deserialize, Serialize};

use super::id::BuildpackRef;

/// Something that has to be provided for a buildpack to work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// Name under which it is provided.
    pub name: String,
    /// Free-form TOML text for the provider.
    pub metadata: String,
}

/// One alternative of what a buildpack provides and requires.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlanContribution {
    /// Names it can provide.
    pub provides: Vec<String>,
    /// What it needs, from itself or from an earlier buildpack.
    pub requires: Vec<Requirement>,
}

/// The resolved plan of a group: `plan.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildPlan {
    /// Sorted by name.
    pub entries: Vec<BuildPlanEntry>,
}

/// One name of the plan with everybody who provides and requires it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildPlanEntry {
    /// The name all of `requires` have.
    pub name: String,
    /// In group order.
    pub providers: Vec<BuildpackRef>,
    /// In group order.
    pub requires: Vec<Requirement>,
}
