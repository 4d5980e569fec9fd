//! Several executors as one: each call goes to the one for its kind of program.

use super::{
    BuildHost, BuildInputs, BuildOutputs, DetectInputs, DetectOutputs, Executor, GuestFailure, LogSink,
    Program,
};

/// Runs components by one executor and executables by another, in one group.
pub struct ByKind<'a> {
    pub components: &'a mut dyn Executor,
    pub executables: &'a mut dyn Executor,
}

impl Executor for ByKind<'_> {
    fn detect(
        &mut self,
        calls: &[DetectInputs],
        log: &mut dyn LogSink,
    ) -> Vec<Result<DetectOutputs, GuestFailure>> {
        let is_component = |call: &DetectInputs| matches!(call.call.program, Program::Component(_));
        let (components, executables): (Vec<DetectInputs>, Vec<DetectInputs>) =
            calls.iter().cloned().partition(is_component);
        let mut of_components = run(self.components, &components, log).into_iter();
        let mut of_executables = run(self.executables, &executables, log).into_iter();
        calls
            .iter()
            .filter_map(|call| if is_component(call) { of_components.next() } else { of_executables.next() })
            .collect()
    }

    fn build(&mut self, call: &BuildInputs, host: &mut dyn BuildHost) -> Result<BuildOutputs, GuestFailure> {
        match call.call.program {
            Program::Component(_) => self.components.build(call, host),
            Program::Executables(_) => self.executables.build(call, host),
        }
    }
}

/// No executor is woken for nothing.
fn run(
    executor: &mut dyn Executor,
    calls: &[DetectInputs],
    log: &mut dyn LogSink,
) -> Vec<Result<DetectOutputs, GuestFailure>> {
    if calls.is_empty() { Vec::new() } else { executor.detect(calls, log) }
}
