//! Grants: what a buildpack asks for ∩ what the operator's policy allows.
//!
//! A cell starts empty. Each variant of [`Grant`] opens one thing; exhaustive
//! matches over it are the places that open it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cnb::id::BuildpackRef;
use crate::fault::{Diagnose, Fault};

/// One thing a buildpack may be allowed beyond the empty cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Grant {
    /// Write to the app directory in `build`.
    AppWrite,
    /// See the service bindings of the platform.
    Bindings,
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
            Self::Bindings => formatter.write_str("bindings"),
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
        match grant {
            // `npm` covers its parts, such as `npm:@acme`.
            Grant::Source(name) => {
                let has = |name: &str| self.0.contains(&Grant::Source(name.to_owned()));
                has(name) || has(ANY_SOURCE) || name.split_once(':').is_some_and(|(whole, _)| has(whole))
            }
            Grant::AppWrite | Grant::Bindings | Grant::Clock | Grant::Random => self.0.contains(grant),
        }
    }
}

/// What a buildpack asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AskedGrants {
    /// Without these it does not run.
    pub required: Grants,
    /// It runs without these, and takes another way.
    pub optional: Grants,
}

impl AskedGrants {
    /// Both kinds, for where everything is allowed.
    #[must_use]
    pub fn all(&self) -> Grants {
        Grants(self.required.0.union(&self.optional.0).cloned().collect())
    }

    /// What of it is allowed.
    #[must_use]
    pub fn allowed_by(&self, allowed: &Grants) -> Grants {
        Grants(self.all().0.into_iter().filter(|grant| allowed.allows(grant)).collect())
    }
}

impl From<Grants> for AskedGrants {
    fn from(required: Grants) -> Self {
        Self { required, optional: Grants::default() }
    }
}

/// Text that names no grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{value}` is not a grant: known are `app-write`, `bindings`, `clock`, `random`, `source=NAME` and `source=*` for all of them"
)]
pub struct UnknownGrant {
    /// The text, with control characters escaped.
    pub value: String,
}

impl std::str::FromStr for Grant {
    type Err = UnknownGrant;

    /// Reads what [`Grant`] displays as.
    fn from_str(text: &str) -> Result<Self, UnknownGrant> {
        match text {
            "app-write" => Ok(Self::AppWrite),
            "bindings" => Ok(Self::Bindings),
            "clock" => Ok(Self::Clock),
            "random" => Ok(Self::Random),
            _ => match text.strip_prefix("source=") {
                Some(name) if is_source_name(name) || name == ANY_SOURCE => Ok(Self::Source(name.to_owned())),
                _ => Err(UnknownGrant { value: text.escape_default().to_string() }),
            },
        }
    }
}

/// Allows every source. For a policy: a buildpack has to say which ones it wants.
pub const ANY_SOURCE: &str = "*";

/// Whether `name` can name a source: `npm`, or with a scope `npm:@acme`.
#[must_use]
pub fn is_source_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '@');
    name.len() <= 128 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed)
}

/// A buildpack asks for more than it is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("buildpack `{buildpack}` asks for the grant `{grant}`, which is not allowed")]
pub struct GrantRefused {
    pub buildpack: BuildpackRef,
    pub grant: Grant,
    /// The policy file that would have to change; `None` when any would do.
    pub ceiling: Option<String>,
}

impl Diagnose for GrantRefused {
    fn id(&self) -> &'static str {
        "grant.refused"
    }

    fn fault(&self) -> Fault {
        Fault::Caller
    }

    fn hint(&self) -> Option<String> {
        let line = format!("`allow = [\"{}\"]` under `[grants]`", self.grant);
        Some(match &self.ceiling {
            None => format!("allow it with `--grant {}`, or with {line} in `policy.toml`", self.grant),
            Some(file) => format!("only the operator can allow it, with {line} in `{file}`"),
        })
    }
}

/// What a buildpack gets: all it requires, or nothing, and what is allowed of
/// the rest. A buildpack that runs with less than it requires would fail later and
/// less clearly.
///
/// # Errors
/// [`GrantRefused`] with the first grant that is required and not allowed.
pub fn intersect(
    buildpack: &BuildpackRef,
    asked: &AskedGrants,
    allowed: &Grants,
    ceiling: Option<&str>,
) -> Result<Grants, GrantRefused> {
    match asked.required.0.iter().find(|grant| !allowed.allows(grant)) {
        None => Ok(asked.allowed_by(allowed)),
        Some(grant) => Err(GrantRefused {
            buildpack: buildpack.clone(),
            grant: grant.clone(),
            ceiling: ceiling.map(str::to_owned),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(texts: &[&str]) -> Grants {
        Grants(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn buildpack() -> BuildpackRef {
        BuildpackRef { id: "acme/node".parse().unwrap(), version: "1.2.0".parse().unwrap() }
    }

    #[test]
    fn a_grant_reads_what_it_displays() {
        for text in ["app-write", "bindings", "clock", "random", "source=npm", "source=npm:@acme"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for text in
            ["", "network", "source", "source=", "source=a b", "source=../x", "App-Write", "source=--x"]
        {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_buildpack_gets_what_it_asks_for_and_no_more() {
        let allowed = grants(&["app-write", "clock", "source=npm"]);
        let asked = grants(&["clock"]);
        assert_eq!(intersect(&buildpack(), &asked.clone().into(), &allowed, None).unwrap(), asked);
        let nothing = AskedGrants::default();
        assert_eq!(intersect(&buildpack(), &nothing, &allowed, None).unwrap(), Grants::default());
    }

    #[test]
    fn what_is_optional_is_left_out_where_it_is_not_allowed() {
        let asked = AskedGrants { required: grants(&["source=npm"]), optional: grants(&["source=nodejs"]) };
        let given = |allowed: &[&str]| intersect(&buildpack(), &asked, &grants(allowed), None);
        assert_eq!(given(&["source=npm"]).unwrap(), grants(&["source=npm"]));
        let both = ["source=nodejs", "source=npm"];
        assert_eq!(given(&[both[0], both[1], "clock"]).unwrap(), grants(&both));
        assert_eq!(given(&["source=nodejs"]).unwrap_err().grant, "source=npm".parse().unwrap());
    }

    #[test]
    fn a_refusal_names_buildpack_grant_and_remedy() {
        let asked = grants(&["source=npm"]).into();
        let error = intersect(&buildpack(), &asked, &grants(&["clock"]), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "buildpack `acme/node@1.2.0` asks for the grant `source=npm`, which is not allowed"
        );
        assert_eq!(
            error.hint().unwrap(),
            "allow it with `--grant source=npm`, or with `allow = [\"source=npm\"]` under `[grants]` in `policy.toml`"
        );
        let system = intersect(
            &buildpack(),
            &grants(&["random"]).into(),
            &Grants::default(),
            Some("/etc/wapack/policy.toml"),
        );
        assert_eq!(
            system.unwrap_err().hint().unwrap(),
            "only the operator can allow it, with `allow = [\"random\"]` under `[grants]` in `/etc/wapack/policy.toml`"
        );
    }
}
