//! Who builds, and for whom: what buildpacks provide and require in, the
//! [`BuildPlan`] or the reason why there is none out.
//!
//! Pure: it knows names, not what is behind them, and runs nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::cnb::build_plan::{BuildPlan, BuildPlanEntry, PlanContribution, Provider};
use crate::cnb::id::BuildpackRef;

/// Combinations of alternatives that are tried. A group of honest buildpacks
/// needs a handful; 17 members with two alternatives each reach this.
const MAX_TRIALS: u64 = 100_000;

/// One member of a group that passed detection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanMember {
    pub buildpack: BuildpackRef,
    /// Whether it is an image extension, which cannot build anything by itself.
    pub extension: bool,
    /// Whether the group can do without it.
    pub optional: bool,
    /// What it said, best first.
    pub alternatives: Vec<PlanContribution>,
}

/// A plan that works out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub plan: BuildPlan,
    /// Which members take part, as indices into the given ones, in order.
    pub participants: Vec<usize>,
    /// Why others do not, by their indices.
    pub dropped: BTreeMap<usize, Unresolved>,
}

/// Why no plan works out. Unmet and unused names are those of the first trial,
/// the one the buildpacks would like best.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// Something is required that nobody before provides.
    #[error("buildpack `{buildpack}` requires `{name}`, which neither it nor a buildpack before it provides")]
    UnmetRequirement { name: String, buildpack: BuildpackRef },
    /// Something is provided that nobody after requires.
    #[error("{} `{buildpack}` provides `{name}`, which neither it nor a buildpack after it requires", kind(*.extension))]
    UnusedProvide { name: String, buildpack: BuildpackRef, extension: bool },
    /// Nobody is left.
    #[error("no buildpack of the group takes part")]
    NobodyLeft,
    /// The members have too many alternatives together.
    #[error("the alternatives of the group's build plans make more than {MAX_TRIALS} combinations")]
    TooManyTrials,
}

fn kind(extension: bool) -> &'static str {
    if extension { "image extension" } else { "buildpack" }
}

/// Finds the first combination of alternatives in which every name is both
/// provided and required.
///
/// # Errors
/// The reason, of the first combination.
///
/// # Spec
/// `buildpack.md` 0.12 "Build Plan"; PLAN-01 to PLAN-14. Image extensions alone
/// are no group (PLAN-08).
pub fn resolve(members: &[PlanMember]) -> Result<Resolved, Unresolved> {
    // Every combination, the last member's alternative changing fastest (PLAN-02).
    let mut chosen = vec![0; members.len()];
    let mut first_reason = None;
    for _ in 0..MAX_TRIALS {
        match try_alternatives(members, &chosen) {
            Ok(resolved) => return Ok(resolved),
            Err(reason) => {
                first_reason.get_or_insert(reason);
            }
        }
        if !advance(&mut chosen, members) {
            return Err(first_reason.unwrap_or(Unresolved::NobodyLeft));
        }
    }
    Err(Unresolved::TooManyTrials)
}

/// The next combination; `false` after the last.
fn advance(chosen: &mut [usize], members: &[PlanMember]) -> bool {
    for (choice, member) in chosen.iter_mut().zip(members).rev() {
        *choice += 1;
        if *choice < member.alternatives.len() {
            return true;
        }
        *choice = 0;
    }
    false
}

/// One member in one trial.
struct Participant<'a> {
    index: usize,
    buildpack: &'a BuildpackRef,
    extension: bool,
    /// Whether this trial may go on without it.
    optional: bool,
    contribution: &'a PlanContribution,
}

fn try_alternatives(members: &[PlanMember], chosen: &[usize]) -> Result<Resolved, Unresolved> {
    static NOTHING: PlanContribution = PlanContribution { provides: Vec::new(), requires: Vec::new() };
    let mut participants: Vec<Participant<'_>> = members
        .iter()
        .zip(chosen)
        .enumerate()
        .map(|(index, (member, choice))| Participant {
            index,
            buildpack: &member.buildpack,
            extension: member.extension,
            // An optional member goes only when nothing it offers fits (PLAN-03).
            optional: member.optional && choice + 1 >= member.alternatives.len(),
            contribution: member.alternatives.get(*choice).unwrap_or(&NOTHING),
        })
        .collect();

    let mut first_reason = None;
    let mut dropped = BTreeMap::new();
    loop {
        if participants.iter().all(|participant| participant.extension) {
            return Err(first_reason.unwrap_or(Unresolved::NobodyLeft));
        }
        let (unmet, unused) = mismatches(&participants);
        if unmet.is_empty() && unused.is_empty() {
            break;
        }
        let reasons = unmet
            .into_iter()
            .map(|mismatch| (mismatch, true))
            .chain(unused.into_iter().map(|mismatch| (mismatch, false)));
        for ((name, position), is_requirement) in reasons {
            let participant = &participants[position];
            let (name, buildpack) = (name.to_owned(), participant.buildpack.clone());
            let reason = if is_requirement {
                Unresolved::UnmetRequirement { name, buildpack }
            } else {
                Unresolved::UnusedProvide { name, buildpack, extension: participant.extension }
            };
            if !participant.optional {
                return Err(reason);
            }
            first_reason.get_or_insert_with(|| reason.clone());
            dropped.entry(participant.index).or_insert(reason);
        }
        participants.retain(|participant| !dropped.contains_key(&participant.index));
    }
    Ok(Resolved {
        plan: BuildPlan { entries: entries(&participants) },
        participants: participants.iter().map(|participant| participant.index).collect(),
        dropped,
    })
}

/// A name and the position of whoever said it.
type Mismatch<'a> = (&'a str, usize);

/// Requirements that nobody up to there provides, and provides that nobody from
/// there on requires, each in group order (PLAN-04).
fn mismatches<'a>(participants: &[Participant<'a>]) -> (Vec<Mismatch<'a>>, Vec<Mismatch<'a>>) {
    let mut provided = BTreeSet::new();
    let mut unmet = Vec::new();
    for (position, participant) in participants.iter().enumerate() {
        provided.extend(participant.contribution.provides.iter().map(String::as_str));
        for requirement in &participant.contribution.requires {
            if !provided.contains(requirement.name.as_str()) {
                unmet.push((requirement.name.as_str(), position));
            }
        }
    }
    let mut required = BTreeSet::new();
    let mut unused = Vec::new();
    for (position, participant) in participants.iter().enumerate().rev() {
        required.extend(participant.contribution.requires.iter().map(|require| require.name.as_str()));
        for name in participant.contribution.provides.iter().rev() {
            if !required.contains(name.as_str()) {
                unused.push((name.as_str(), position));
            }
        }
    }
    unused.reverse();
    (unmet, unused)
}

/// The plan of participants that fit together: sorted by name (PLAN-13), the
/// rest in group order (PLAN-14). Who provides a name twice is listed twice, as
/// by the reference lifecycle.
fn entries(participants: &[Participant<'_>]) -> Vec<BuildPlanEntry> {
    let mut entries: BTreeMap<&str, BuildPlanEntry> = BTreeMap::new();
    for participant in participants {
        for name in &participant.contribution.provides {
            entry(&mut entries, name).providers.push(Provider {
                buildpack: participant.buildpack.clone(),
                extension: participant.extension,
            });
        }
        for requirement in &participant.contribution.requires {
            entry(&mut entries, &requirement.name).requires.push(requirement.clone());
        }
    }
    entries.into_values().collect()
}

fn entry<'a, 'b>(
    entries: &'b mut BTreeMap<&'a str, BuildPlanEntry>,
    name: &'a str,
) -> &'b mut BuildPlanEntry {
    entries.entry(name).or_insert_with(|| BuildPlanEntry {
        name: name.to_owned(),
        providers: Vec::new(),
        requires: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cnb::build_plan::Requirement;

    /// `"+a -b"` provides `a` and requires `b`; `|` separates alternatives; a
    /// name that ends in `?` is optional, one that begins with `.` an extension.
    fn group(members: &[(&str, &str)]) -> Vec<PlanMember> {
        members
            .iter()
            .map(|(name, plan)| PlanMember {
                buildpack: reference(name.trim_end_matches('?').trim_start_matches('.')),
                extension: name.starts_with('.'),
                optional: name.ends_with('?'),
                alternatives: plan.split('|').map(contribution).collect(),
            })
            .collect()
    }

    fn contribution(text: &str) -> PlanContribution {
        let names = |sign: char| {
            text.split_whitespace().filter_map(move |word| word.strip_prefix(sign)).map(str::to_owned)
        };
        let requires = names('-').map(|name| Requirement { name, metadata: String::new() }).collect();
        PlanContribution { provides: names('+').collect(), requires }
    }

    fn reference(name: &str) -> BuildpackRef {
        BuildpackRef { id: name.parse().unwrap(), version: "1".parse().unwrap() }
    }

    /// `"A,B: x=A<1 y=A,B<2"`: participants, then each name with its providers
    /// and the number of its requirements.
    fn shown(members: &[(&str, &str)]) -> String {
        let members = group(members);
        match resolve(&members) {
            Err(error) => match error {
                Unresolved::UnmetRequirement { name, buildpack } => {
                    format!("unmet {name} of {}", buildpack.id)
                }
                Unresolved::UnusedProvide { name, buildpack, .. } => {
                    format!("unused {name} of {}", buildpack.id)
                }
                Unresolved::NobodyLeft => "nobody".into(),
                Unresolved::TooManyTrials => "too many".into(),
            },
            Ok(resolved) => {
                let ids = |refs: Vec<&BuildpackRef>| {
                    refs.iter().map(|one| one.id.as_str()).collect::<Vec<_>>().join(",")
                };
                let mut text =
                    ids(resolved.participants.iter().map(|index| &members[*index].buildpack).collect());
                text.push(':');
                for entry in &resolved.plan.entries {
                    let providers = ids(entry.providers.iter().map(|provider| &provider.buildpack).collect());
                    let requires = entry.requires.len();
                    text.extend([" ", &entry.name, "=", &providers, "<", &requires.to_string()]);
                }
                text
            }
        }
    }

    /// PLAN-01 to PLAN-04, PLAN-06 to PLAN-09, PLAN-13, PLAN-14
    #[test]
    fn table_of_the_specification() {
        for (why, members, expected) in [
            ("nothing said, nothing wanted", vec![("A", "")], "A:"),
            ("PLAN-04 its own provide", vec![("A", "+x -x")], "A: x=A<1"),
            ("PLAN-04 an earlier provide", vec![("A", "+x"), ("B", "-x")], "A,B: x=A<1"),
            ("PLAN-04 a later provide does not count", vec![("A", "-x"), ("B", "+x")], "unmet x of A"),
            ("PLAN-06 unmet", vec![("A", ""), ("B", "-x")], "unmet x of B"),
            ("PLAN-06 unused", vec![("A", "+x"), ("B", "")], "unused x of A"),
            ("PLAN-04 provided again too late", vec![("A", "+x -x"), ("B", "+x")], "unused x of B"),
            ("PLAN-07 optional with unmet goes", vec![("A", ""), ("B?", "-x")], "A:"),
            ("PLAN-07 optional with unused goes", vec![("A?", "+x"), ("B", "")], "B:"),
            ("PLAN-07 one drop leads to the next", vec![("A?", "+x"), ("B?", "-x -y"), ("C", "")], "C:"),
            (
                "PLAN-07 what goes takes its requires along",
                vec![("A", "+x"), ("B?", "-x -y")],
                "unused x of A",
            ),
            (
                "PLAN-07 what goes takes its provides along",
                vec![("A?", "+x +unused"), ("B", "-x")],
                "unmet x of B",
            ),
            ("PLAN-08 nobody left", vec![("A?", "-x"), ("B?", "+y")], "unmet x of A"),
            ("PLAN-08 nobody there", vec![], "nobody"),
            ("PLAN-01 the second alternative", vec![("A", "+x|"), ("B", "")], "A,B:"),
            ("PLAN-01 an empty first alternative counts", vec![("A", "|+x -x")], "A:"),
            (
                "PLAN-02 the last member changes first",
                // Both (A second, B first) and (A first, B second) fit; the latter comes first.
                vec![("A", "+x|+y"), ("B", "-y|-x")],
                "A,B: x=A<1",
            ),
            (
                "PLAN-03 an optional member's better alternative is tried before it goes",
                vec![("A", "+x|"), ("B?", "-y|-x")],
                "A,B: x=A<1",
            ),
            (
                "PLAN-03 it does not go while an alternative of it fits",
                vec![("A", "+x -x"), ("B?", "-y|-x")],
                "A,B: x=A<2",
            ),
            ("PLAN-03 in the last alternative it goes", vec![("A", "+z -z"), ("B?", "-y|-x")], "A: z=A<1"),
            (
                "PLAN-09 several on both sides",
                vec![("A", "+x"), ("B", "+x -x"), ("C", "-x")],
                "A,B,C: x=A,B<2",
            ),
            ("PLAN-13 sorted by name", vec![("A", "+z +a"), ("B", "-z -a")], "A,B: a=A<1 z=A<1"),
            ("PLAN-14 one member, twice the same name", vec![("A", "+x +x -x -x")], "A: x=A,A<2"),
        ] {
            assert_eq!(shown(&members), expected, "{why}: {members:?}");
        }
    }

    #[test]
    fn plan_05_what_an_extension_provides_has_to_be_required_by_a_buildpack_behind_it() {
        assert_eq!(shown(&[(".X?", "+x"), ("A", "-x")]), "X,A: x=X<1");
        assert_eq!(shown(&[(".X?", "+x"), ("A", "")]), "A:");
        // The names of both kinds are apart.
        assert_eq!(shown(&[(".A?", "+x"), ("A", "+x -x")]), "A,A: x=A,A<1");
        let resolved = resolve(&group(&[(".X?", "+x"), ("A", "+x -x")])).unwrap();
        let extensions: Vec<bool> =
            resolved.plan.entries[0].providers.iter().map(|provider| provider.extension).collect();
        assert_eq!(extensions, [true, false]);
    }

    #[test]
    fn plan_08_extensions_alone_are_no_group() {
        assert_eq!(shown(&[(".X?", "")]), "nobody");
        assert_eq!(shown(&[(".X?", ""), ("A?", "-y")]), "unmet y of A");
    }

    #[test]
    fn plan_07_why_a_member_is_dropped_is_said() {
        let members = group(&[(".X?", "+x"), ("A?", "-y"), ("B", "")]);
        let dropped: Vec<String> =
            resolve(&members).unwrap().dropped.into_iter().map(|(at, why)| format!("{at}: {why}")).collect();
        assert_eq!(
            dropped,
            [
                "0: image extension `X@1` provides `x`, which neither it nor a buildpack after it requires",
                "1: buildpack `A@1` requires `y`, which neither it nor a buildpack before it provides"
            ]
        );
    }

    #[test]
    fn plan_11_metadata_is_carried_through() {
        let mut members = group(&[("A", "+x"), ("B", "-x")]);
        members[1].alternatives[0].requires[0].metadata = "version = \"~20\"\n".into();
        let resolved = resolve(&members).unwrap();
        assert_eq!(resolved.plan.entries[0].requires[0].metadata, "version = \"~20\"\n");
    }

    #[test]
    fn hostile_alternatives_end() {
        let members: Vec<(String, String)> =
            (0..40).map(|n| (format!("b{n}"), "-no|-no|-no|-no".to_owned())).collect();
        let members: Vec<(&str, &str)> =
            members.iter().map(|(name, plan)| (name.as_str(), plan.as_str())).collect();
        assert_eq!(shown(&members), "too many");
    }
}
