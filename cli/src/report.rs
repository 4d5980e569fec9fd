//! Errors as a person and as a program read them.

use std::error::Error as _;
use std::fmt::Write as _;

use serde_json::{Value, json};
use wapack_runtime::error::Error;
use wapack_runtime::executor::GuestFailure;
use wapack_runtime::fault::Diagnose as _;
use wapack_runtime::phase::build::BuildError;
use wapack_runtime::text::{harmless, harmless_lines};

use crate::failure::Failure;
use crate::style::Style;

/// # Shape
/// ```text
/// error[policy.invalid]: cannot use the policy
///   caused by: cannot read `policy.toml`
///   caused by: No such file or directory (os error 2)
/// hint: …
/// ```
pub(crate) fn text(failure: &Failure, style: Style) -> String {
    let headline = style.error(&format!("error[{}]", failure.id()));
    let mut text = format!("{headline}: {}", harmless_lines(&failure.to_string()));
    for cause in causes(failure) {
        let _ = write!(text, "\n  caused by: {}", cause.replace('\n', "\n    "));
    }
    for function in backtrace(failure) {
        let _ = write!(text, "\n  at {}", harmless(function));
    }
    if let Some(hint) = failure.hint() {
        let _ = write!(text, "\n{}: {}", style.hint("hint"), harmless_lines(&hint));
    }
    text
}

/// One object with stable keys.
pub(crate) fn json(failure: &Failure, exit_code: u8) -> Value {
    json!({
        "id": failure.id(),
        "fault": failure.fault(),
        "message": harmless_lines(&failure.to_string()),
        "causes": causes(failure),
        "backtrace": backtrace(failure).iter().map(|function| harmless(function)).collect::<Vec<_>>(),
        "hint": failure.hint(),
        "exit_code": exit_code,
    })
}

fn causes(failure: &Failure) -> Vec<String> {
    let mut causes = Vec::new();
    let mut last = failure.to_string();
    let mut next = failure.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Errors of others sometimes say what their cause says again.
        if text != last {
            causes.push(harmless_lines(&text));
        }
        last = text;
        next = cause.source();
    }
    causes
}

/// Where a buildpack trapped, innermost function first.
fn backtrace(failure: &Failure) -> &[String] {
    match failure {
        Failure::Run(Error::Build(BuildError::Guest(GuestFailure::Trapped { backtrace, .. }))) => backtrace,
        Failure::OneOfSeveral { cause, .. } => self::backtrace(cause),
        _ => &[],
    }
}
