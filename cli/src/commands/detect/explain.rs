//! Why a group builds, and why the others do not, in words.

use std::fmt::Write as _;

use serde_json::{Value, json};
use wapack_runtime::cnb::build_plan::PlanContribution;
use wapack_runtime::event::Verdict;
use wapack_runtime::phase::detect::{Detected, FailedGroup, TriedMember};
use wapack_runtime::plan::Unresolved;
use wapack_runtime::text::{harmless, harmless_lines};

/// All groups that were tried, in order.
pub(super) struct Explanation<'a> {
    groups: Vec<Group<'a>>,
}

struct Group<'a> {
    members: &'a [TriedMember],
    outcome: Result<(), Option<&'a Unresolved>>,
}

impl<'a> Explanation<'a> {
    pub(super) fn of_success(detected: &'a Detected<'_>) -> Self {
        let mut explanation = Self::of_failure(&detected.failed);
        explanation.groups.push(Group { members: &detected.members, outcome: Ok(()) });
        explanation
    }

    pub(super) fn of_failure(failed: &'a [FailedGroup]) -> Self {
        let group =
            |group: &'a FailedGroup| Group { members: &group.members, outcome: Err(group.plan.as_ref()) };
        Self { groups: failed.iter().map(group).collect() }
    }

    /// # Shape
    /// ```text
    ///
    /// group 1 does not build: a required member does not take part
    ///   acme/node@1.2.0               does not apply: there is no package.json
    /// group 2 does not build: buildpack `acme/npm@1.0.0` requires `node`, which …
    ///   acme/npm@1.0.0                passes; requires node
    /// group 3 builds
    ///   acme/go@0.3.0                 takes part; provides go; requires go
    ///   acme/procfile@0.1.0 optional  left out: …
    /// ```
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (number, group) in (1..).zip(&self.groups) {
            let verdict = match group.outcome {
                Ok(()) => "builds".to_owned(),
                Err(reason) => format!("does not build: {}", harmless_lines(&why(reason))),
            };
            let _ = write!(text, "\ngroup {number} {verdict}");
            let names: Vec<String> = group.members.iter().map(name).collect();
            let width = names.iter().map(String::len).max().unwrap_or_default();
            for (name, member) in names.iter().zip(group.members) {
                let _ = write!(text, "\n  {name:<width$}  {}", said(member, group.outcome.is_ok()));
            }
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let contribution = |one: &PlanContribution| {
            json!({
                "provides": one.provides,
                "requires": one.requires.iter().map(|requirement| &requirement.name).collect::<Vec<_>>(),
            })
        };
        let member = |member: &TriedMember, builds: bool| {
            json!({
                "buildpack": member.reference,
                "extension": member.extension,
                "optional": member.optional,
                "verdict": member.verdict,
                "alternatives": member.alternatives.iter().map(contribution).collect::<Vec<_>>(),
                "takes_part": builds && member.takes_part(),
                "left_out": member.dropped.as_ref().map(ToString::to_string),
            })
        };
        let group = |group: &Group<'_>| {
            let builds = group.outcome.is_ok();
            json!({
                "builds": builds,
                "reason": group.outcome.err().map(why),
                "members": group.members.iter().map(|one| member(one, builds)).collect::<Vec<_>>(),
            })
        };
        json!({ "event": "explained", "groups": self.groups.iter().map(group).collect::<Vec<_>>() })
    }
}

fn why(reason: Option<&Unresolved>) -> String {
    reason.map_or("a required member does not take part".to_owned(), ToString::to_string)
}

fn name(member: &TriedMember) -> String {
    let kind = if member.extension { " extension" } else { "" };
    let optional = if member.optional { " optional" } else { "" };
    format!("{}{kind}{optional}", member.reference)
}

/// What a member says, on one line unless it went wrong at length.
fn said(member: &TriedMember, builds: bool) -> String {
    match (&member.verdict, &member.dropped) {
        (Verdict::Fail { reason }, _) => format!("does not apply: {}", harmless_lines(reason)),
        (Verdict::Error { message }, _) => format!("went wrong: {}", harmless_lines(message)),
        (Verdict::Pass, Some(dropped)) => format!("left out: {}", harmless_lines(&dropped.to_string())),
        (Verdict::Pass, None) => {
            let part = if builds { "takes part" } else { "passes" };
            let wishes: Vec<String> = member.alternatives.iter().map(wish).collect();
            if wishes.iter().all(|wish| wish == NOTHING) {
                return part.to_owned();
            }
            format!("{part}; {}", wishes.join("; or "))
        }
    }
}

/// What somebody would like who neither provides nor requires.
const NOTHING: &str = "nothing";

/// `provides a, b; requires c`
fn wish(contribution: &PlanContribution) -> String {
    let list = |verb: &str, names: Vec<&String>| {
        let names: Vec<String> = names.into_iter().map(|name| harmless(name)).collect();
        (!names.is_empty()).then(|| format!("{verb} {}", names.join(", ")))
    };
    let requires = contribution.requires.iter().map(|requirement| &requirement.name).collect();
    let both = [list("provides", contribution.provides.iter().collect()), list("requires", requires)];
    let both: Vec<String> = both.into_iter().flatten().collect();
    if both.is_empty() { NOTHING.to_owned() } else { both.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wapack_runtime::cnb::build_plan::{BuildPlan, Requirement};
    use wapack_runtime::cnb::id::BuildpackRef;

    fn reference(name: &str) -> BuildpackRef {
        let (id, version) = name.split_once('@').unwrap();
        BuildpackRef { id: id.parse().unwrap(), version: version.parse().unwrap() }
    }

    /// `"+a -b|…"` is what it would like; a name that ends in `?` is optional.
    fn passes(name: &str, plan: &str) -> TriedMember {
        let contribution = |text: &str| {
            let names = |sign: char| {
                text.split_whitespace().filter_map(move |word| word.strip_prefix(sign)).map(str::to_owned)
            };
            let requires = names('-').map(|name| Requirement { name, metadata: String::new() }).collect();
            PlanContribution { provides: names('+').collect(), requires }
        };
        TriedMember {
            reference: reference(name.trim_end_matches('?')),
            extension: false,
            optional: name.ends_with('?'),
            verdict: Verdict::Pass,
            alternatives: plan.split('|').map(contribution).collect(),
            dropped: None,
        }
    }

    fn with(name: &str, verdict: Verdict) -> TriedMember {
        TriedMember { verdict, alternatives: Vec::new(), ..passes(name, "") }
    }

    fn detected() -> Detected<'static> {
        let fail = Verdict::Fail { reason: "there is no package.json".into() };
        let error = Verdict::Error { message: "[guest.trap] trapped: boom\u{1b}[2J".into() };
        let unmet =
            Unresolved::UnmetRequirement { name: "node".into(), buildpack: reference("acme/npm@1.0.0") };
        let unused = Unresolved::UnusedProvide {
            name: "curl".into(),
            buildpack: reference("acme/curl@2.0.0"),
            extension: true,
        };
        let curl =
            TriedMember { extension: true, dropped: Some(unused), ..passes("acme/curl@2.0.0?", "+curl") };
        Detected {
            group: Vec::new(),
            extensions: Vec::new(),
            plan: BuildPlan::default(),
            members: vec![curl, passes("acme/go@0.3.0", "+go -go|"), with("acme/web@1.0.0?", error)],
            failed: vec![
                FailedGroup {
                    members: vec![with("acme/node@1.2.0", fail), passes("acme/npm@1.0.0", "")],
                    plan: None,
                },
                FailedGroup { members: vec![passes("acme/npm@1.0.0", "-node -npm")], plan: Some(unmet) },
            ],
        }
    }

    #[test]
    fn groups_are_explained_in_words() {
        let detected = detected();
        assert_eq!(
            Explanation::of_success(&detected).text(),
            "
group 1 does not build: a required member does not take part
  acme/node@1.2.0  does not apply: there is no package.json
  acme/npm@1.0.0   passes
group 2 does not build: buildpack `acme/npm@1.0.0` requires `node`, which neither it nor a buildpack before it \
provides
  acme/npm@1.0.0  passes; requires node, npm
group 3 builds
  acme/curl@2.0.0 extension optional  left out: image extension `acme/curl@2.0.0` provides `curl`, which neither \
it nor a buildpack after it requires
  acme/go@0.3.0                       takes part; provides go; requires go; or nothing
  acme/web@1.0.0 optional             went wrong: [guest.trap] trapped: boom\\u{1b}[2J"
        );
        assert_eq!(Explanation::of_failure(&detected.failed[..1]).text().lines().count(), 4);
    }

    #[test]
    fn groups_are_explained_to_programs() {
        let detected = detected();
        let json = Explanation::of_success(&detected).json();
        assert_eq!(json["event"], "explained");
        assert_eq!(json["groups"][0]["builds"], false);
        assert_eq!(json["groups"][0]["reason"], "a required member does not take part");
        assert_eq!(json["groups"][0]["members"][0]["verdict"]["reason"], "there is no package.json");
        assert_eq!(json["groups"][1]["members"][0]["alternatives"][0]["requires"], json!(["node", "npm"]));
        let last = &json["groups"][2];
        assert_eq!((&last["builds"], &last["reason"]), (&json!(true), &Value::Null));
        assert_eq!(last["members"][0]["takes_part"], false);
        assert!(last["members"][0]["left_out"].as_str().unwrap().contains("`curl`"));
        assert_eq!(last["members"][1]["takes_part"], true);
    }
}
