//! `wapack detect`

use serde_json::{Value, json};
use std::fmt::Write as _;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::event::Verdict;
use wapack_runtime::lifecycle;
use wapack_runtime::phase::detect::{Detected, FailedGroup, FailedMember};
use wapack_runtime::text::harmless_lines;

use crate::app::{self, App};
use crate::args::DetectArguments;
use crate::failure::Failure;
use crate::output::Output;

pub(crate) fn run(arguments: &DetectArguments, cancel: &Cancel, output: &mut Output) -> Result<u8, Failure> {
    let target =
        arguments.app.target.as_deref().map(app::target).transpose()?.unwrap_or_else(app::host_target);
    let app = App::prepare(&arguments.app, &[], false, output)?;
    // When nobody takes part the error says all of this.
    let request = app.request(&target, cancel);
    let detected = lifecycle::detect(&request, output)?;
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
        text.push_str(&members_of(&group.members));
        if let Some(reason) = &group.plan {
            let _ = writeln!(text, "  as a whole: {}", harmless_lines(reason));
        }
    }
    let _ = writeln!(text, "\ngroup {} builds:", detected.failed.len() + 1);
    for buildpack in &detected.group {
        let _ = writeln!(text, "  {}: takes part", buildpack.reference);
    }
    text.push_str(&members_of(&detected.left_out));
    text.pop();
    text
}

fn members_of(members: &[FailedMember]) -> String {
    members
        .iter()
        .fold(String::new(), |text, member| text + &format!("  {}: {}\n", member.buildpack, said(member)))
}

fn said(member: &FailedMember) -> String {
    let optional = if member.optional { " (optional)" } else { "" };
    match &member.verdict {
        Verdict::Pass => format!("fits, but nobody needs it{optional}"),
        Verdict::Fail { reason } => format!("does not apply{optional}: {}", harmless_lines(reason)),
        Verdict::Error { message } => format!("went wrong{optional}: {}", harmless_lines(message)),
    }
}

fn json_of(detected: &Detected<'_>) -> Value {
    let members = |members: &[FailedMember]| -> Vec<Value> {
        members
            .iter()
            .map(|member| {
                json!({
                    "buildpack": member.buildpack,
                    "optional": member.optional,
                    "verdict": member.verdict,
                })
            })
            .collect()
    };
    let group = |group: &FailedGroup| json!({ "members": members(&group.members), "plan": group.plan });
    json!({
        "event": "finished",
        "group": detected.group.iter().map(|buildpack| &buildpack.reference).collect::<Vec<_>>(),
        "left_out": members(&detected.left_out),
        "failed": detected.failed.iter().map(group).collect::<Vec<_>>(),
    })
}
