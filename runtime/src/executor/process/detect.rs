//! `bin/detect`: what it is given, and what its answer means.

use crate::cancel::Cancel;
use crate::cnb::api::ApiVersion;
use crate::cnb::detect_plan;
use crate::toml_text;

use super::super::{CallInputs, DetectOutputs, Executables, GuestFailure, ReturnedFault};
use super::cause;
use super::private::PrivateFile;
use super::run::{describe, run};

/// The exit status that says "does not apply".
const FAIL: i32 = 100;

/// Runs `bin/detect` and reads the plan it wrote.
///
/// # Spec
/// `buildpack.md` 0.12 "Detection"; DET-01 to DET-04.
pub(super) fn detect(
    call: &CallInputs,
    executables: &Executables,
    cancel: &Cancel,
    line: &mut dyn FnMut(String),
) -> Result<DetectOutputs, GuestFailure> {
    let host = |error: &std::io::Error| GuestFailure::WorkerUnavailable {
        buildpack: call.buildpack.clone(),
        message: format!("its plan file cannot be made: {error}"),
    };
    let plan = PrivateFile::create(&executables.scratch, "plan.toml", "").map_err(|error| host(&error))?;
    let mut environment = call.environment.clone();
    if executables.api >= ApiVersion::zero(8) {
        environment.insert("CNB_BUILD_PLAN_PATH".to_owned(), plan.path().into());
    }
    let mut last_line = String::new();
    let arguments = [executables.platform.as_os_str(), plan.path().as_os_str()];
    let status = run(call, executables, "detect", &arguments, &environment, cancel, &mut |text| {
        if !text.trim().is_empty() {
            text.trim().clone_into(&mut last_line);
        }
        line(text);
    })?;
    match status.code() {
        Some(0) => {}
        Some(FAIL) => {
            let reason = if last_line.is_empty() { format!("exit status {FAIL}") } else { last_line };
            return Ok(DetectOutputs::Fail { reason });
        }
        _ => {
            return Err(GuestFailure::Returned {
                buildpack: call.buildpack.clone(),
                fault: ReturnedFault::Buildpack,
                message: format!("`bin/detect` {}", describe(status)),
                hint: None,
            });
        }
    }
    let bad = |message: String| GuestFailure::BadOutput { buildpack: call.buildpack.clone(), message };
    let text = toml_text::read(plan.path())
        .map_err(|error| bad(format!("its plan file cannot be read: {}", cause(&error))))?;
    let answer = detect_plan::parse(&text, executables.api)
        .map_err(|error| bad(format!("its plan file is not valid: {error}")))?;
    for warning in answer.warnings {
        line(format!("warning: {warning}"));
    }
    Ok(DetectOutputs::Pass(answer.alternatives))
}
