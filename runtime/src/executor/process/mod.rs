//! Classic buildpacks as plain processes of this machine.
//!
//! For the programs of the lifecycle, which already run inside a build image:
//! nothing here isolates anything. It knows how `bin/detect` and `bin/build` are
//! called and which files they leave; what those mean for a build is `phase`'s.

use super::{
    BuildHost, BuildInputs, BuildOutputs, CallInputs, DetectInputs, DetectOutputs, Executor, GuestFailure,
    LogSink,
};

/// Runs `bin/detect` and `bin/build`.
#[derive(Debug, Default)]
pub struct ProcessExecutor {}

impl Executor for ProcessExecutor {
    fn detect(
        &mut self,
        calls: &[DetectInputs],
        _: &mut dyn LogSink,
    ) -> Vec<Result<DetectOutputs, GuestFailure>> {
        calls.iter().map(|call| Err(not_yet(&call.call))).collect()
    }

    fn build(&mut self, call: &BuildInputs, _: &mut dyn BuildHost) -> Result<BuildOutputs, GuestFailure> {
        Err(not_yet(&call.call))
    }
}

fn not_yet(call: &CallInputs) -> GuestFailure {
    GuestFailure::Unloadable {
        buildpack: call.buildpack.clone(),
        id: "buildpack.not_a_component".to_owned(),
        message: "buildpacks of executables cannot be run yet".to_owned(),
        hint: None,
    }
}
