//! Who takes part: order × app → the group that builds, and its plan.
//!
//! Asks each buildpack at most once, whatever the number of groups it is in.
//! Knows nothing of how a buildpack is run.

use std::collections::BTreeMap;
use std::io;

use crate::catalog::{Builder, Buildpack, CatalogError, GroupMember};
use crate::cnb::build_plan::{BuildPlan, PlanContribution};
use crate::cnb::id::{BuildpackRef, ExecEnv};
use crate::cnb::target::Target;
use crate::event::{Event, EventSink, Verdict};
use crate::executor::{CallInputs, DetectInputs, DetectOutputs, Executor, GuestFailure, LogSink, Program};
use crate::fault::{Diagnose, Fault};
use crate::grant::GrantRefused;
use crate::limits::Limits;
use crate::plan::{self, PlanMember};
use crate::policy::Policy;
use crate::workspace::Workspace;

/// What detection depends on.
#[derive(Debug, Clone, Copy)]
pub struct DetectRequest<'a> {
    pub builder: &'a Builder,
    pub policy: &'a Policy,
    pub limits: &'a Limits,
    pub target: &'a Target,
    pub exec_env: &'a ExecEnv,
    pub user_env: &'a BTreeMap<String, String>,
}

/// The group that builds.
#[derive(Debug, Clone)]
pub struct Detected<'a> {
    /// In order; everybody passed, and the plan works out.
    pub group: Vec<&'a Buildpack>,
    pub plan: BuildPlan,
    /// Members of the group that do not take part: optional ones that did not
    /// pass, or that nobody needs.
    pub left_out: Vec<FailedMember>,
    /// The groups that were tried before.
    pub failed: Vec<FailedGroup>,
}

/// Why a group does not build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedGroup {
    pub members: Vec<FailedMember>,
    /// The reason of the group as a whole, when all required members passed.
    pub plan: Option<String>,
}

/// What one member of a group that failed said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedMember {
    pub buildpack: BuildpackRef,
    pub optional: bool,
    pub verdict: Verdict,
}

/// Why nothing can be built.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// No group passed.
    #[error("no buildpack takes part in building this app{}", summary(.groups))]
    NobodyTakesPart {
        groups: Vec<FailedGroup>,
        /// Whether somebody went wrong rather than just not applying.
        with_errors: bool,
    },
    /// The order cannot be expanded.
    #[error("the order of the builder cannot be used")]
    Order(#[source] CatalogError),
    /// A buildpack asks for what the policy does not allow.
    #[error("buildpack `{}` cannot be run", .0.buildpack)]
    Grant(#[source] GrantRefused),
    /// A buildpack is of a kind that cannot be run.
    #[error("buildpack `{buildpack}` cannot be run by this version of wapack")]
    NotRunnable { buildpack: BuildpackRef },
    /// A directory could not be made.
    #[error("cannot prepare detection")]
    Io(#[source] io::Error),
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
}

fn summary(groups: &[FailedGroup]) -> String {
    use std::fmt::Write as _;

    // Writing to a string cannot fail.
    let mut lines = String::new();
    for (number, group) in groups.iter().enumerate() {
        for member in &group.members {
            let said = match &member.verdict {
                Verdict::Pass => continue,
                Verdict::Fail { reason } => format!("does not apply: {reason}"),
                Verdict::Error { message } => message.clone(),
            };
            let optional = if member.optional { " (optional)" } else { "" };
            let _ = write!(lines, "\n  group {}: {}{optional}: {said}", number + 1, member.buildpack);
        }
        if let Some(reason) = &group.plan {
            let _ = write!(lines, "\n  group {}: {reason}", number + 1);
        }
    }
    lines
}

impl Diagnose for DetectError {
    fn id(&self) -> &'static str {
        match self {
            Self::NobodyTakesPart { with_errors: false, .. } => "detect.nobody",
            Self::NobodyTakesPart { with_errors: true, .. } => "detect.error",
            Self::Order(error) => error.id(),
            Self::Grant(error) => error.id(),
            Self::NotRunnable { .. } => "buildpack.not_runnable",
            Self::Io(_) => "host.io",
            Self::Cancelled => "build.cancelled",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::NobodyTakesPart { with_errors: false, .. } => Fault::App,
            Self::NobodyTakesPart { with_errors: true, .. } | Self::NotRunnable { .. } => Fault::Buildpack,
            Self::Order(error) => error.fault(),
            Self::Grant(error) => error.fault(),
            Self::Io(_) => Fault::Environment,
            Self::Cancelled => Fault::Caller,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NobodyTakesPart { with_errors: true, .. } => {
                Some("`wapack inspect DIR` shows what a buildpack is made of".to_owned())
            }
            Self::NobodyTakesPart { with_errors: false, .. } => Some(
                "is `--path` the directory of the app? `--buildpack DIR` adds a buildpack of your own"
                    .to_owned(),
            ),
            Self::Order(error) => error.hint(),
            Self::Grant(error) => error.hint(),
            _ => None,
        }
    }
}

/// What is known of a buildpack once it was asked.
#[derive(Debug, Clone)]
enum Answer {
    Pass(Vec<PlanContribution>),
    Fail(String),
    Error(String),
}

impl Answer {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Pass(_) => Verdict::Pass,
            Self::Fail(reason) => Verdict::Fail { reason: reason.clone() },
            Self::Error(message) => Verdict::Error { message: message.clone() },
        }
    }
}

/// Finds the first group that passes.
///
/// # Errors
/// [`DetectError`]; what every group said is part of it.
///
/// # Spec
/// `platform.md` 0.15 "Phase: Detection"; ORD-01, DET-05, DET-06, DET-08 to DET-15.
pub fn detect<'a>(
    request: &DetectRequest<'a>,
    workspace: &mut Workspace,
    executor: &mut dyn Executor,
    events: &mut dyn EventSink,
) -> Result<Detected<'a>, DetectError> {
    let mut answers: BTreeMap<BuildpackRef, Answer> = BTreeMap::new();
    let mut failed = Vec::new();
    for group in request.builder.catalog.expand(&request.builder.order) {
        let members: Vec<GroupMember<'a>> = group
            .map_err(DetectError::Order)?
            .into_iter()
            .filter(|member| is_for(member, request.exec_env))
            .collect();
        ask(request, workspace, executor, events, &members, &mut answers)?;
        match settle(&members, &answers) {
            Ok(Settled { group, plan, left_out }) => {
                for buildpack in &group {
                    let asked = &buildpack.descriptor.grants;
                    request.policy.grant(&buildpack.reference, asked).map_err(DetectError::Grant)?;
                }
                let buildpacks = group.iter().map(|buildpack| buildpack.reference.clone()).collect();
                events.event(Event::GroupChosen { buildpacks, considered: members.len() });
                return Ok(Detected { group, plan, left_out, failed });
            }
            Err(group) => failed.push(group),
        }
    }
    let with_errors = answers.values().any(|answer| matches!(answer, Answer::Error(_)));
    Err(DetectError::NobodyTakesPart { groups: failed, with_errors })
}

/// DET-15: a member for other execution environments is as if it was not there.
fn is_for(member: &GroupMember<'_>, exec_env: &ExecEnv) -> bool {
    let allows = |list: &[ExecEnv]| {
        list.is_empty() || list.iter().any(|allowed| allowed == exec_env || allowed.as_str() == "*")
    };
    allows(member.exec_envs) && allows(&member.buildpack.descriptor.exec_envs)
}

/// Asks those members that were not asked before, at once.
fn ask(
    request: &DetectRequest<'_>,
    workspace: &mut Workspace,
    executor: &mut dyn Executor,
    events: &mut dyn EventSink,
    members: &[GroupMember<'_>],
    answers: &mut BTreeMap<BuildpackRef, Answer>,
) -> Result<(), DetectError> {
    let mut calls = Vec::new();
    for member in members {
        let buildpack = member.buildpack;
        if answers.contains_key(&buildpack.reference) {
            continue;
        }
        if buildpack.descriptor.matches(request.target) {
            calls.push(detect_inputs(request, workspace, buildpack)?);
        } else {
            let message = format!("it does not build for {}/{}", request.target.os, request.target.arch);
            // Counted as an error, as the reference does (DET-14).
            note(events, answers, &buildpack.reference, Answer::Error(message));
        }
    }
    let results = executor.detect(&calls, &mut Lines(events));
    for (call, result) in calls.iter().zip(results) {
        let answer = match result {
            Ok(DetectOutputs::Pass(alternatives)) => Answer::Pass(alternatives),
            Ok(DetectOutputs::Fail { reason }) => Answer::Fail(crate::text::harmless(&reason)),
            Err(GuestFailure::Cancelled { .. }) => return Err(DetectError::Cancelled),
            Err(failure) => Answer::Error(describe(&failure)),
        };
        note(events, answers, &call.call.buildpack, answer);
    }
    Ok(())
}

fn note(
    events: &mut dyn EventSink,
    answers: &mut BTreeMap<BuildpackRef, Answer>,
    buildpack: &BuildpackRef,
    answer: Answer,
) {
    events.event(Event::Detected { buildpack: buildpack.clone(), verdict: answer.verdict() });
    answers.insert(buildpack.clone(), answer);
}

/// An error with its id, and what would help, in the one line a group gives it.
fn describe(failure: &GuestFailure) -> String {
    let text = match failure {
        GuestFailure::Trapped { message, backtrace, .. } if !backtrace.is_empty() => {
            format!("trapped: {message}\n      at {}", backtrace.join("\n      at "))
        }
        failure => failure.to_string(),
    };
    let hint = failure.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("[{}] {}{hint}", failure.id(), crate::text::harmless_lines(&text))
}

fn detect_inputs(
    request: &DetectRequest<'_>,
    workspace: &mut Workspace,
    buildpack: &Buildpack,
) -> Result<DetectInputs, DetectError> {
    let program = workspace
        .program(buildpack)
        .ok_or_else(|| DetectError::NotRunnable { buildpack: buildpack.reference.clone() })?;
    // What is missing is refused when the buildpack takes part: one that does not
    // apply is no reason to refuse an app.
    let grants = buildpack.descriptor.grants.allowed_by(&request.policy.allowed(&buildpack.reference.id));
    Ok(DetectInputs {
        call: CallInputs {
            buildpack: buildpack.reference.clone(),
            mounts: workspace.mounts(buildpack, false).map_err(DetectError::Io)?,
            environment: workspace.environment(
                buildpack,
                request.target,
                request.exec_env,
                &workspace.before_layers(),
            ),
            target: request.target.clone(),
            exec_env: request.exec_env.clone(),
            user_env: request.user_env.clone(),
            metadata: buildpack.descriptor.metadata.clone(),
            grants,
            limits: match program {
                Program::Component(_) => request.limits.for_detect(),
                Program::Executables(_) => request.limits.for_executables(),
            },
            program,
        },
    })
}

/// A group that passes.
struct Settled<'a> {
    group: Vec<&'a Buildpack>,
    plan: BuildPlan,
    left_out: Vec<FailedMember>,
}

/// Whether a group passes, and with whom.
fn settle<'a>(
    members: &[GroupMember<'a>],
    answers: &BTreeMap<BuildpackRef, Answer>,
) -> Result<Settled<'a>, FailedGroup> {
    let mut passed = Vec::new();
    let mut plan_members = Vec::new();
    let mut verdicts = Vec::new();
    let mut required_failed = false;
    for member in members {
        let reference = &member.buildpack.reference;
        let answer =
            answers.get(reference).cloned().unwrap_or_else(|| Answer::Error("it was not asked".to_owned()));
        verdicts.push(FailedMember {
            buildpack: reference.clone(),
            optional: member.optional,
            verdict: answer.verdict(),
        });
        match answer {
            Answer::Pass(alternatives) => {
                passed.push(member.buildpack);
                plan_members.push(PlanMember {
                    buildpack: reference.clone(),
                    optional: member.optional,
                    alternatives,
                });
            }
            Answer::Fail(_) | Answer::Error(_) => required_failed |= !member.optional,
        }
    }
    if required_failed || passed.is_empty() {
        return Err(FailedGroup { members: verdicts, plan: None });
    }
    match plan::resolve(&plan_members) {
        Ok(resolved) => {
            let group: Vec<&Buildpack> =
                resolved.participants.iter().filter_map(|index| passed.get(*index).copied()).collect();
            let takes_part =
                |member: &FailedMember| group.iter().any(|buildpack| buildpack.reference == member.buildpack);
            verdicts.retain(|member| !takes_part(member));
            Ok(Settled { group, plan: resolved.plan, left_out: verdicts })
        }
        Err(reason) => Err(FailedGroup { members: verdicts, plan: Some(reason.to_string()) }),
    }
}

/// Passes lines of buildpacks on as events.
struct Lines<'a>(&'a mut dyn EventSink);

impl LogSink for Lines<'_> {
    fn line(&mut self, buildpack: &BuildpackRef, line: &str) {
        self.0.event(Event::Output { buildpack: buildpack.clone(), line: line.to_owned() });
    }

    fn compiling(&mut self, buildpack: &BuildpackRef) {
        self.0.event(Event::Compiling { buildpack: buildpack.clone() });
    }
}
