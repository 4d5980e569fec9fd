//! Who takes part: order × app → the group that builds, and its plan.
//!
//! Asks each buildpack at most once, whatever the number of groups it is in.
//! Knows nothing of how a buildpack is run. Image extensions take part like
//! buildpacks that nobody needs.

use std::collections::BTreeMap;
use std::io;

use crate::catalog::{Builder, Buildpack, CatalogError, Extension, GroupMember, Module};
use crate::cnb::api::PlatformApi;
use crate::cnb::build_plan::{BuildPlan, PlanContribution};
use crate::cnb::detect_plan;
use crate::cnb::id::{BuildpackRef, ExecEnv};
use crate::cnb::target::Target;
use crate::event::{Event, EventSink, Verdict};
use crate::executor::{CallInputs, DetectInputs, DetectOutputs, Executor, GuestFailure, LogSink, Program};
use crate::fault::{Diagnose, Fault};
use crate::grant::{GrantRefused, Grants};
use crate::limits::Limits;
use crate::plan::{self, PlanMember, Unresolved};
use crate::policy::Policy;
use crate::text::{harmless, harmless_lines};
use crate::toml_text::{self, TomlFileError};
use crate::workspace::Workspace;

/// What detection depends on.
#[derive(Debug, Clone, Copy)]
pub struct DetectRequest<'a> {
    /// Targets count from 0.12 on, execution environments from 0.15 on.
    pub api: PlatformApi,
    pub builder: &'a Builder,
    pub policy: &'a Policy,
    pub limits: &'a Limits,
    pub target: &'a Target,
    /// The stack of the build image, if it has one; it counts before 0.12.
    pub stack: Option<&'a str>,
    pub exec_env: &'a ExecEnv,
    pub user_env: &'a BTreeMap<String, String>,
}

/// The group that builds.
#[derive(Debug, Clone)]
pub struct Detected<'a> {
    /// In order; everybody passed, and the plan works out.
    pub group: Vec<&'a Buildpack>,
    /// In order; those that stand in front of the group.
    pub extensions: Vec<&'a Extension>,
    pub plan: BuildPlan,
    /// Everybody the order puts into the group, in order; those that do not take part too.
    pub members: Vec<TriedMember>,
    /// The groups that were tried before.
    pub failed: Vec<FailedGroup>,
}

/// Why a group does not build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedGroup {
    /// In order.
    pub members: Vec<TriedMember>,
    /// The reason of the group as a whole, when all required members passed.
    pub plan: Option<Unresolved>,
}

/// What one member of a group said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TriedMember {
    pub reference: BuildpackRef,
    /// Whether it is an image extension.
    pub extension: bool,
    pub optional: bool,
    pub verdict: Verdict,
    /// What it would like, best first, when it passed.
    pub alternatives: Vec<PlanContribution>,
    /// Why it does not take part in the group that builds, though it passed.
    pub dropped: Option<Unresolved>,
}

impl TriedMember {
    /// Whether it takes part, if its group builds.
    #[must_use]
    pub fn takes_part(&self) -> bool {
        self.verdict == Verdict::Pass && self.dropped.is_none()
    }
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
    #[error("`{buildpack}` cannot be run by this version of wapack")]
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
            let _ = write!(lines, "\n  group {}: {}{optional}: {said}", number + 1, member.reference);
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
    let mut answers = Answers::new();
    let mut failed = Vec::new();
    let exec_env = request.api.at_least(15).then_some(request.exec_env);
    for members in request.builder.groups(exec_env) {
        let members = members.map_err(DetectError::Order)?;
        ask(request, workspace, executor, events, &members, &mut answers)?;
        match settle(&members, &answers) {
            Ok(Settled { participants, plan, members }) => {
                let mut group = Vec::new();
                let mut extensions = Vec::new();
                for module in &participants {
                    match module {
                        Module::Buildpack(buildpack) => {
                            let asked = &buildpack.descriptor.grants;
                            request.policy.grant(&buildpack.reference, asked).map_err(DetectError::Grant)?;
                            group.push(*buildpack);
                        }
                        Module::Extension(extension) => extensions.push(*extension),
                    }
                }
                let buildpacks = participants.iter().map(|module| module.reference().clone()).collect();
                events.event(Event::GroupChosen { buildpacks, considered: members.len() });
                return Ok(Detected { group, extensions, plan, members, failed });
            }
            Err(group) => failed.push(group),
        }
    }
    let with_errors = answers.values().any(|answer| matches!(answer, Answer::Error(_)));
    Err(DetectError::NobodyTakesPart { groups: failed, with_errors })
}

/// What everybody said who was asked; extensions and buildpacks may have the same name.
type Answers<'a> = BTreeMap<(bool, &'a BuildpackRef), Answer>;

fn key(module: Module<'_>) -> (bool, &BuildpackRef) {
    (module.is_extension(), module.reference())
}

/// Asks those members that were not asked before, at once.
fn ask<'a>(
    request: &DetectRequest<'_>,
    workspace: &mut Workspace,
    executor: &mut dyn Executor,
    events: &mut dyn EventSink,
    members: &[GroupMember<'a>],
    answers: &mut Answers<'a>,
) -> Result<(), DetectError> {
    let mut calls = Vec::new();
    let mut called = Vec::new();
    for GroupMember { module, .. } in members {
        if answers.contains_key(&key(*module)) {
            continue;
        }
        if let Some(mismatch) = mismatch(request, *module) {
            note(events, answers, *module, Answer::Error(mismatch));
            continue;
        }
        match prepare(request, workspace, *module)? {
            Prepared::Call(call) => {
                calls.push(*call);
                called.push(*module);
            }
            Prepared::Answer(answer) => note(events, answers, *module, answer),
        }
    }
    let results = executor.detect(&calls, &mut Lines(events));
    for (module, result) in called.into_iter().zip(results) {
        let answer = match result {
            Ok(DetectOutputs::Pass(alternatives)) => passed(module, alternatives),
            Ok(DetectOutputs::Fail { reason }) => Answer::Fail(harmless(&reason)),
            Err(GuestFailure::Cancelled { .. }) => return Err(DetectError::Cancelled),
            Err(failure) => Answer::Error(describe(&failure)),
        };
        note(events, answers, module, answer);
    }
    Ok(())
}

/// Why a module does not build for the target, or before Platform API 0.12 for the
/// stack; counted as an error, as the reference lifecycle does (DET-14, TGT-15).
fn mismatch(request: &DetectRequest<'_>, module: Module<'_>) -> Option<String> {
    let target = request.target;
    let matches = match module {
        Module::Buildpack(buildpack) => buildpack.descriptor.matches(target),
        Module::Extension(extension) => extension.descriptor.matches(target),
    };
    if !request.api.at_least(12) {
        let Module::Buildpack(buildpack) = module else { return None };
        let stack = request.stack.filter(|stack| !buildpack.descriptor.fits_stack(stack))?;
        return Some(format!("it does not build for the stack `{}`", harmless(stack)));
    }
    if matches {
        return None;
    }
    let mut system = format!("{}/{}", target.os, target.arch);
    if let Some(variant) = &target.variant {
        system = format!("{system}/{variant}");
    }
    if let Some(distro) = &target.distro {
        system = format!("{system} ({} {})", distro.name, distro.version);
    }
    Some(format!("it does not build for {system}"))
}

/// PLAN-05: an extension requires nothing.
fn passed(module: Module<'_>, alternatives: Vec<PlanContribution>) -> Answer {
    let requires = alternatives.iter().flat_map(|alternative| &alternative.requires).next();
    match requires {
        Some(requirement) if module.is_extension() => Answer::Error(format!(
            "its plan requires `{}`, and an image extension can only provide",
            harmless(&requirement.name)
        )),
        _ => Answer::Pass(alternatives),
    }
}

fn note<'a>(events: &mut dyn EventSink, answers: &mut Answers<'a>, module: Module<'a>, answer: Answer) {
    events.event(Event::Detected { buildpack: module.reference().clone(), verdict: answer.verdict() });
    answers.insert(key(module), answer);
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
    format!("[{}] {}{hint}", failure.id(), harmless_lines(&text))
}

/// How a module is asked.
enum Prepared {
    Call(Box<DetectInputs>),
    /// It need not be run.
    Answer(Answer),
}

fn prepare(
    request: &DetectRequest<'_>,
    workspace: &mut Workspace,
    module: Module<'_>,
) -> Result<Prepared, DetectError> {
    let buildpack = match module {
        Module::Buildpack(buildpack) => buildpack,
        Module::Extension(extension) => return prepare_extension(request, workspace, extension),
    };
    let program = workspace
        .program(buildpack)
        .ok_or_else(|| DetectError::NotRunnable { buildpack: buildpack.reference.clone() })?;
    // What is missing is refused when the buildpack takes part: one that does not
    // apply is no reason to refuse an app.
    let grants = buildpack.descriptor.grants.allowed_by(&request.policy.allowed(&buildpack.reference.id));
    Ok(Prepared::Call(Box::new(DetectInputs {
        call: CallInputs {
            buildpack: buildpack.reference.clone(),
            mounts: workspace.mounts(buildpack, &grants, false).map_err(DetectError::Io)?,
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
    })))
}

fn prepare_extension(
    request: &DetectRequest<'_>,
    workspace: &Workspace,
    extension: &Extension,
) -> Result<Prepared, DetectError> {
    if extension.directory.join("bin/detect").symlink_metadata().is_err() {
        return Ok(Prepared::Answer(written(extension)));
    }
    let program = workspace
        .extension_program(extension)
        .ok_or_else(|| DetectError::NotRunnable { buildpack: extension.reference.clone() })?;
    let environment = workspace.extension_environment(extension, request.target, Some(request.exec_env));
    Ok(Prepared::Call(Box::new(DetectInputs {
        call: CallInputs {
            buildpack: extension.reference.clone(),
            program,
            mounts: Vec::new(),
            environment,
            target: request.target.clone(),
            exec_env: request.exec_env.clone(),
            user_env: request.user_env.clone(),
            metadata: String::new(),
            grants: Grants::default(),
            limits: request.limits.for_detect(),
        },
    })))
}

/// What an extension without `bin/detect` says: it passes, with the plan that lies
/// in its `detect` directory.
fn written(extension: &Extension) -> Answer {
    let path = extension.directory.join("detect/plan.toml");
    let parse = |text: &str| detect_plan::parse(text, extension.descriptor.api);
    match toml_text::read_with(&path, parse) {
        Ok(plan) => passed(Module::Extension(extension), plan.alternatives),
        Err(TomlFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Answer::Pass(vec![PlanContribution::default()])
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            Answer::Error(harmless_lines(&format!("{error}{}", cause.unwrap_or_default())))
        }
    }
}

/// A group that passes.
struct Settled<'a> {
    participants: Vec<Module<'a>>,
    plan: BuildPlan,
    members: Vec<TriedMember>,
}

/// Whether a group passes, and with whom.
///
/// # Spec
/// DET-08, DET-09.
fn settle<'a>(members: &[GroupMember<'a>], answers: &Answers<'a>) -> Result<Settled<'a>, FailedGroup> {
    let mut tried = Vec::new();
    let mut passed = Vec::new();
    let mut plan_members = Vec::new();
    let mut required_failed = false;
    for (position, GroupMember { module, optional }) in members.iter().enumerate() {
        let answer = answers.get(&key(*module));
        let answer = answer.cloned().unwrap_or_else(|| Answer::Error("it was not asked".to_owned()));
        let verdict = answer.verdict();
        let alternatives = match answer {
            Answer::Pass(alternatives) => {
                passed.push((position, *module));
                plan_members.push(PlanMember {
                    buildpack: module.reference().clone(),
                    extension: module.is_extension(),
                    optional: *optional,
                    alternatives: alternatives.clone(),
                });
                alternatives
            }
            Answer::Fail(_) | Answer::Error(_) => {
                required_failed |= !optional;
                Vec::new()
            }
        };
        tried.push(TriedMember {
            reference: module.reference().clone(),
            extension: module.is_extension(),
            optional: *optional,
            verdict,
            alternatives,
            dropped: None,
        });
    }
    if required_failed {
        return Err(FailedGroup { members: tried, plan: None });
    }
    match plan::resolve(&plan_members) {
        Ok(mut resolved) => {
            for (index, (position, _)) in passed.iter().enumerate() {
                tried[*position].dropped = resolved.dropped.remove(&index);
            }
            let participants = resolved
                .participants
                .iter()
                .filter_map(|index| passed.get(*index))
                .map(|(_, module)| *module);
            Ok(Settled { participants: participants.collect(), plan: resolved.plan, members: tried })
        }
        Err(reason) => Err(FailedGroup { members: tried, plan: Some(reason) }),
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

#[cfg(test)]
mod tests;
