//! Classic buildpacks as plain processes of this machine.
//!
//! For the programs of the lifecycle, which already run inside a build image:
//! nothing here isolates anything. It knows how `bin/detect` and `bin/build` are
//! called and which files they leave; what those mean for a build is `phase`'s.

mod build;
mod detect;
mod generate;
pub mod layers;
mod private;
mod run;
mod shield;
#[cfg(test)]
mod tests;
pub mod variables;

pub use self::generate::{GenerateInputs, generate};

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, Sender, channel};

use self::shield::Shield;
use super::{
    BuildHost, BuildInputs, BuildOutputs, CallInputs, DetectInputs, DetectOutputs, Executables, Executor,
    GuestFailure, LogSink, Program,
};
use crate::cancel::Cancel;
use crate::toml_text::TomlFileError;

/// Members of a group that run at the same time; they mostly wait for the disk.
const MEMBERS_AT_ONCE: usize = 8;

/// Runs `bin/detect` and `bin/build`.
#[derive(Debug)]
pub struct ProcessExecutor {
    cancel: Cancel,
    /// Whether files can be made in a directory.
    is_writable: fn(&Path) -> bool,
}

impl Default for ProcessExecutor {
    fn default() -> Self {
        Self::new(Cancel::default())
    }
}

impl ProcessExecutor {
    /// An executor whose programs end when `cancel` says so.
    #[must_use]
    pub fn new(cancel: Cancel) -> Self {
        Self { cancel, is_writable: shield::is_writable }
    }
}

impl Executor for ProcessExecutor {
    /// Lines come member by member, whatever the order they were printed in.
    fn detect(
        &mut self,
        calls: &[DetectInputs],
        log: &mut dyn LogSink,
    ) -> Vec<Result<DetectOutputs, GuestFailure>> {
        // DET-07: one app for all of them.
        let executables = calls.iter().find_map(|call| executables(&call.call).ok());
        let shield = executables.and_then(|with| Shield::of(&with.app, &with.scratch, self.is_writable));
        let waiting = Mutex::new(calls.iter().enumerate().collect::<VecDeque<_>>());
        let (said, hear) = channel();
        let mut results = std::thread::scope(|scope| {
            for _ in 0..calls.len().min(MEMBERS_AT_ONCE) {
                let (said, waiting, cancel, shield) = (said.clone(), &waiting, &self.cancel, &shield);
                scope.spawn(move || {
                    if let Some(shield) = shield {
                        shield.enter();
                    }
                    ask(waiting, cancel, &said);
                });
            }
            drop(said);
            collect(calls, &hear, log)
        });
        // A thread that died has said nothing of its member.
        let nothing = |call: &DetectInputs| GuestFailure::WorkerCrashed {
            buildpack: call.call.buildpack.clone(),
            how: "its thread ended".to_owned(),
        };
        calls
            .iter()
            .zip(results.drain(..))
            .map(|(call, result)| result.unwrap_or_else(|| Err(nothing(call))))
            .collect()
    }

    fn build(&mut self, call: &BuildInputs, host: &mut dyn BuildHost) -> Result<BuildOutputs, GuestFailure> {
        build::build(call, executables(&call.call)?, &self.cancel, host)
    }
}

/// What a thread says of the member with a number.
enum Said {
    Line(String),
    Ended(Result<DetectOutputs, GuestFailure>),
}

/// Asks one member after the other, until nobody is left.
fn ask(waiting: &Mutex<VecDeque<(usize, &DetectInputs)>>, cancel: &Cancel, said: &Sender<(usize, Said)>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((number, inputs)) = next else { return };
        // The other end is there for as long as we are.
        let say = |what: Said| drop(said.send((number, what)));
        let result = executables(&inputs.call).and_then(|executables| {
            detect::detect(&inputs.call, executables, cancel, &mut |line| say(Said::Line(line)))
        });
        say(Said::Ended(result));
    }
}

/// Passes on what is said, one member at a time.
fn collect(
    calls: &[DetectInputs],
    hear: &Receiver<(usize, Said)>,
    log: &mut dyn LogSink,
) -> Vec<Option<Result<DetectOutputs, GuestFailure>>> {
    let mut results: Vec<Option<_>> = calls.iter().map(|_| None).collect();
    let mut held: Vec<Vec<String>> = vec![Vec::new(); calls.len()];
    let mut speaking = 0;
    for (number, said) in hear {
        match said {
            Said::Line(line) => held[number].push(line),
            Said::Ended(result) => results[number] = Some(result),
        }
        while let Some(call) = calls.get(speaking) {
            for line in held[speaking].drain(..) {
                log.line(&call.call.buildpack, &line);
            }
            if results[speaking].is_none() {
                break;
            }
            speaking += 1;
        }
    }
    results
}

/// What is wrong with a file, without its path: that is a private one.
fn cause(error: &TomlFileError) -> String {
    match error {
        TomlFileError::Io { source, .. } => source.to_string(),
        TomlFileError::Invalid { source, .. } => source.to_string(),
    }
}

/// The programs to run.
fn executables(call: &CallInputs) -> Result<&Executables, GuestFailure> {
    match &call.program {
        Program::Executables(executables) => Ok(executables),
        Program::Component(_) => Err(GuestFailure::Unloadable {
            buildpack: call.buildpack.clone(),
            id: "buildpack.not_executable".to_owned(),
            message: "it is a component".to_owned(),
            hint: None,
        }),
    }
}
