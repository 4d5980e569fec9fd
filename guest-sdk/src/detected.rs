//! What `detect` answers.

use serde::Serialize;

use crate::error::Error;
use crate::table;

/// What a buildpack needs from itself or from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The name under which it is provided, such as `node`.
    pub name: String,
    /// TOML for the buildpack that provides it.
    pub metadata: String,
}

impl Requirement {
    /// A requirement without metadata.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), metadata: String::new() }
    }

    /// Tells the providing buildpack more, such as a version.
    ///
    /// # Errors
    /// A buildpack error when `value` is not a table in TOML's terms.
    pub fn metadata<T: Serialize>(mut self, value: &T) -> Result<Self, Error> {
        self.metadata = table::to_text(value)?;
        Ok(self)
    }
}

impl<S: Into<String>> From<S> for Requirement {
    fn from(name: S) -> Self {
        Self::new(name)
    }
}

/// One way to take part in a build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanContribution {
    /// Names this buildpack can provide.
    pub provides: Vec<String>,
    /// Names that have to be provided, by it or by an earlier buildpack.
    pub requires: Vec<Requirement>,
}

/// The verdict of `detect`.
///
/// # Example
/// ```
/// use wapack_sdk::{Detected, Requirement};
///
/// // Brings its own `site`, or takes the one another buildpack provides.
/// let detected = Detected::pass()
///     .provides("site")
///     .requires("site")
///     .or(Detected::pass().requires(Requirement::new("site")));
/// assert_eq!(detected.alternatives().len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Detected(Verdict);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Never empty; the last one is being built.
    Pass(Vec<PlanContribution>),
    Fail(String),
}

impl Detected {
    /// The buildpack takes part; so far it provides and requires nothing.
    pub fn pass() -> Self {
        Self(Verdict::Pass(vec![PlanContribution::default()]))
    }

    /// The buildpack does not apply, and why, in half a sentence: ``no `Procfile` ``.
    pub fn fail(reason: impl Into<String>) -> Self {
        Self(Verdict::Fail(reason.into()))
    }

    /// Says that this buildpack can provide `name`. Nothing happens to a `fail`.
    pub fn provides(mut self, name: impl Into<String>) -> Self {
        if let Some(plan) = self.last() {
            plan.provides.push(name.into());
        }
        self
    }

    /// Says that `requirement` has to be provided. Nothing happens to a `fail`.
    pub fn requires(mut self, requirement: impl Into<Requirement>) -> Self {
        if let Some(plan) = self.last() {
            plan.requires.push(requirement.into());
        }
        self
    }

    /// Adds what else would do, for when the plan so far cannot be satisfied. Of
    /// a pass and a `fail`, the pass counts.
    pub fn or(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Verdict::Pass(mut plans), Verdict::Pass(more)) => {
                plans.extend(more);
                Self(Verdict::Pass(plans))
            }
            (Verdict::Fail(_), verdict @ Verdict::Pass(_)) | (verdict, _) => Self(verdict),
        }
    }

    /// Whether the buildpack takes part.
    pub fn is_pass(&self) -> bool {
        matches!(self.0, Verdict::Pass(_))
    }

    /// The ways to take part, best first; empty for a `fail`.
    pub fn alternatives(&self) -> &[PlanContribution] {
        match &self.0 {
            Verdict::Pass(plans) => plans,
            Verdict::Fail(_) => &[],
        }
    }

    /// Why the buildpack does not apply.
    pub fn reason(&self) -> Option<&str> {
        match &self.0 {
            Verdict::Pass(_) => None,
            Verdict::Fail(reason) => Some(reason),
        }
    }

    fn last(&mut self) -> Option<&mut PlanContribution> {
        match &mut self.0 {
            Verdict::Pass(plans) => plans.last_mut(),
            Verdict::Fail(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_counts_more_than_a_fail_on_either_side() {
        let pass = Detected::pass().provides("x");
        assert_eq!(Detected::fail("no").or(pass.clone()), pass);
        assert_eq!(pass.clone().or(Detected::fail("no")), pass);
        assert_eq!(Detected::fail("a").or(Detected::fail("b")).reason(), Some("a"));
    }

    #[test]
    fn provides_after_or_belongs_to_the_alternative() {
        let detected = Detected::pass().provides("a").or(Detected::pass()).provides("b");
        assert_eq!(detected.alternatives()[1].provides, ["b"]);
        assert!(Detected::fail("no").provides("x").alternatives().is_empty());
    }
}
