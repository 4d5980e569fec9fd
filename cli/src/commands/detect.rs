//! `wapack detect`

mod explain;

use serde_json::{Value, json};
use std::fmt::Write as _;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::error::Error;
use wapack_runtime::event::Verdict;
use wapack_runtime::executor::worker::SpawnedWorker;
use wapack_runtime::lifecycle;
use wapack_runtime::phase::detect::{DetectError, Detected, FailedGroup, TriedMember};
use wapack_runtime::text::harmless_lines;

use self::explain::Explanation;
use super::cache;
use crate::app::{self, App};
use crate::args::DetectArguments;
use crate::failure::Failure;
use crate::output::Output;

pub(crate) fn run(arguments: &DetectArguments, cancel: &Cancel, output: &mut Output) -> Result<u8, Failure> {
    let target =
        arguments.app.target.as_deref().map(app::target).transpose()?.unwrap_or_else(app::host_target);
    // It starts while buildpacks are read; an error is met again, and told, when it is needed.
    let spawned = SpawnedWorker::new(&app::worker()?).ok();
    let app = App::prepare(&arguments.app, &[], false, output)?;
    let request = app.request(&target, cancel);
    let result = lifecycle::detect(&request, spawned, output);
    cache::keep_under_cap(&app.store, &app.policy, output);
    if arguments.explain {
        let explanation = match &result {
            Ok(detected) => Some(Explanation::of_success(detected)),
            Err(Error::Detect(DetectError::NobodyTakesPart { groups, .. })) => {
                Some(Explanation::of_failure(groups))
            }
            Err(_) => None,
        };
        if let Some(explanation) = explanation {
            if output.is_json() {
                output.object(&explanation.json());
            } else {
                output.say(&explanation.text());
            }
        }
        result?;
        return Ok(0);
    }
    // When nobody takes part the error says all of this.
    let detected = result?;
    if output.is_json() {
        output.object(&json_of(&detected));
    } else {
        output.say(&text_of(&detected));
    }
    Ok(0)
}

/// # Shape
/// ```text
///
/// group 1 does not build:
///   acme/node@1.2.0: does not apply: there is no package.json
/// group 2 builds:
///   acme/go@0.3.0: takes part
/// ```
fn text_of(detected: &Detected<'_>) -> String {
    let mut text = String::new();
    for (number, group) in (1..).zip(&detected.failed) {
        let _ = writeln!(text, "\ngroup {number} does not build:");
        group.members.iter().for_each(|member| text.push_str(&line_of(member)));
        if let Some(reason) = &group.plan {
            let _ = writeln!(text, "  as a whole: {}", harmless_lines(&reason.to_string()));
        }
    }
    let _ = writeln!(text, "\ngroup {} builds:", detected.failed.len() + 1);
    for member in &detected.members {
        if member.takes_part() {
            let _ = writeln!(text, "  {}: takes part", member.reference);
        } else {
            text.push_str(&line_of(member));
        }
    }
    text.pop();
    text
}

fn line_of(member: &TriedMember) -> String {
    format!("  {}: {}\n", member.reference, said(member))
}

/// What a member of a group says that does not take part.
fn said(member: &TriedMember) -> String {
    let optional = if member.optional { " (optional)" } else { "" };
    match &member.verdict {
        Verdict::Pass => format!("fits, but nobody needs it{optional}"),
        Verdict::Fail { reason } => format!("does not apply{optional}: {}", harmless_lines(reason)),
        Verdict::Error { message } => format!("went wrong{optional}: {}", harmless_lines(message)),
    }
}

fn json_of(detected: &Detected<'_>) -> Value {
    let member = |member: &TriedMember| {
        json!({
            "buildpack": member.reference,
            "optional": member.optional,
            "verdict": member.verdict,
        })
    };
    let members = |members: &[TriedMember]| members.iter().map(member).collect::<Vec<Value>>();
    let group = |group: &FailedGroup| {
        json!({
            "members": members(&group.members),
            "plan": group.plan.as_ref().map(ToString::to_string),
        })
    };
    let left_out: Vec<TriedMember> =
        detected.members.iter().filter(|member| !member.takes_part()).cloned().collect();
    json!({
        "event": "finished",
        "group": detected.group.iter().map(|buildpack| &buildpack.reference).collect::<Vec<_>>(),
        "left_out": members(&left_out),
        "failed": detected.failed.iter().map(group).collect::<Vec<_>>(),
    })
}
