//! Grants: what a buildpack asks for ∩ what the operator's policy allows.
//!
//! A cell starts empty. Each variant of [`Grant`] opens one thing; exhaustive
//! matches over it are the places that open it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// One thing a buildpack may be allowed beyond the empty cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Grant {
    /// Write to the app directory in `build`.
    AppWrite,
    /// See the real time instead of a constant.
    Clock,
    /// Get real random numbers instead of a constant sequence.
    Random,
    /// Fetch from the named source.
    Source(String),
}

impl std::fmt::Display for Grant {
    /// As the command line and the policy file write it: `app-write`, `source=npm`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AppWrite => formatter.write_str("app-write"),
            Self::Clock => formatter.write_str("clock"),
            Self::Random => formatter.write_str("random"),
            Self::Source(name) => write!(formatter, "source={name}"),
        }
    }
}

/// A set of grants.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Grants(pub BTreeSet<Grant>);

impl Grants {
    /// Whether `grant` is in force.
    #[must_use]
    pub fn allows(&self, grant: &Grant) -> bool {
        self.0.contains(grant)
    }
}
