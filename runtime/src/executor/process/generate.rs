//! `bin/generate` of an image extension.

use std::path::PathBuf;

use super::executables;
use super::private::PrivateFile;
use super::run::{describe, run};
use crate::cancel::Cancel;
use crate::executor::{CallInputs, GuestFailure, LogSink, ReturnedFault};

/// Inputs of one `generate` call.
#[derive(Debug, Clone)]
pub struct GenerateInputs {
    pub call: CallInputs,
    /// What it is to provide, as TOML text.
    pub plan: String,
    /// Where it puts what it makes; an empty directory.
    pub output: PathBuf,
}

/// Runs `bin/generate`. What it made is in the output directory.
///
/// # Errors
/// [`GuestFailure`]; `Returned` when the program itself failed.
///
/// # Spec
/// `image_extension.md` "Generation"; EXT-02 and the table of section 4.4.
pub fn generate(inputs: &GenerateInputs, cancel: &Cancel, log: &mut dyn LogSink) -> Result<(), GuestFailure> {
    let call = &inputs.call;
    let executables = executables(call)?;
    let plan = PrivateFile::create(&executables.scratch, "plan.toml", &inputs.plan).map_err(|error| {
        GuestFailure::WorkerUnavailable {
            buildpack: call.buildpack.clone(),
            message: format!("its plan file cannot be made: {error}"),
        }
    })?;
    let mut environment = call.environment.clone();
    environment.insert("CNB_BP_PLAN_PATH".to_owned(), plan.path().into());
    environment.insert("CNB_OUTPUT_DIR".to_owned(), inputs.output.clone().into());
    let arguments = [inputs.output.as_os_str(), executables.platform.as_os_str(), plan.path().as_os_str()];
    let mut line = |text: String| log.line(&call.buildpack, &text);
    let status = run(call, executables, "generate", &arguments, &environment, cancel, &mut line)?;
    if status.success() {
        return Ok(());
    }
    Err(GuestFailure::Returned {
        buildpack: call.buildpack.clone(),
        fault: ReturnedFault::Buildpack,
        message: format!("`bin/generate` {}", describe(status)),
        hint: None,
    })
}
