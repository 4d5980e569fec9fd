//! The programs of the lifecycle: this one, called by another name.
//!
//! ```text
//!  name and arguments ─▶ Call ─▶ Platform API ─▶ Settings ─▶ Task ─▶ privileges ─▶ run ─▶ exit code
//! ```
//!
//! Everything up to [`inputs::Task`] is a function of the command line and its
//! [`settings::Surroundings`]; nothing is opened before. What the phases do is in
//! the library.

mod descriptor;
mod go_flags;
mod images;
mod inputs;
mod platform;
mod privileges;
mod program;
mod registries;
mod services;
mod settings;
mod speech;
mod table;
#[cfg(test)]
mod tests;
mod usage;

use std::error::Error;
use std::process::ExitCode;

use wapack_runtime::cancel::Cancel;
use wapack_runtime::programs::extender::ExtendKind;
use wapack_runtime::programs::{
    ImagePlaces, ProgramError, analyzer, builder, creator, detector, exporter, extender, rebaser, restorer,
};

use self::go_flags::FlagError;
use self::images::{ImageError, OpenImages};
use self::inputs::{Inputs, Task};
pub(crate) use self::program::Call;
use self::program::Program;
use self::services::Equipment;
use self::settings::{Settings, Surroundings};
use self::speech::{Log, Speech};
use self::usage::UsageError;
use crate::failure::Failure;
use crate::signals;

/// Why a program did not do what it is for.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error("failed to initialize images")]
    Images(#[from] ImageError),
    /// Policy, sources or worker.
    #[error("failed to prepare for components")]
    Equipment(#[source] Box<Failure>),
    #[error(transparent)]
    Program(#[from] ProgramError),
}

impl Failed {
    fn code(&self) -> u8 {
        match self {
            Self::Usage(error) => error.code(),
            Self::Program(error) => error.code(),
            Self::Images(_) | Self::Equipment(_) => wapack_runtime::programs::GENERIC,
        }
    }
}

/// What a call comes to before anything is done.
enum Prepared {
    /// A question that is answered here.
    Say(String),
    Run {
        task: Box<Task>,
        speech: Speech,
    },
}

/// Runs the program that was called.
pub(crate) fn run(call: &Call) -> ExitCode {
    let mut surroundings = Surroundings::of_process();
    let cancel = Cancel::default();
    let mut speech = Speech::default();
    match prepare(call, &surroundings, &mut speech) {
        Ok(Prepared::Say(text)) => {
            Log::new(Speech::default(), cancel).info(&text);
            ExitCode::SUCCESS
        }
        Ok(Prepared::Run { task, speech }) => start(&task, &mut surroundings, speech, &cancel),
        Err(error) => fail(&mut Log::new(speech, cancel), &error, error.code()),
    }
}

/// From the command line to a task; the Platform API is looked at before any flag (API-03).
fn prepare(call: &Call, surroundings: &Surroundings, speech: &mut Speech) -> Result<Prepared, UsageError> {
    let version = || Prepared::Say(descriptor::VERSION.to_owned());
    if call.program.is_none() {
        match call.arguments.first().and_then(|word| word.to_str()) {
            Some("-version" | "--version") => return Ok(version()),
            Some("-descriptor" | "--descriptor") => return Ok(Prepared::Say(descriptor::toml())),
            Some("-h" | "-help" | "--help" | "help") => return Ok(Prepared::Say(usage::overview())),
            _ => {}
        }
    }
    if call.program.is_none() && call.arguments.is_empty() {
        return Err(UsageError::NoProgram);
    }
    let (api, deprecation) = platform::api(surroundings)?;
    let (program, arguments) = if let Some(program) = call.program {
        (program, &call.arguments[..])
    } else {
        let (word, rest) = call.arguments.split_first().ok_or(UsageError::NoProgram)?;
        let unknown = || UsageError::Program { word: word.to_string_lossy().escape_debug().to_string() };
        (program::named(word).ok_or_else(unknown)?, rest)
    };
    let settings = match Settings::read(program, api, arguments, surroundings) {
        Err(UsageError::Flag(FlagError::Help)) => return Ok(Prepared::Say(table::usage(program, api))),
        settings => settings?,
    };
    if settings.is_on("version") {
        return Ok(version());
    }
    *speech = inputs::speech(&settings)?;
    let mut task = inputs::resolve(&settings, surroundings)?;
    task.warnings.splice(0..0, deprecation);
    Ok(Prepared::Run { task: Box::new(task), speech: *speech })
}

/// Runs a task, and says how it ended.
fn start(task: &Task, surroundings: &mut Surroundings, speech: Speech, cancel: &Cancel) -> ExitCode {
    let mut log = Log::new(speech, cancel.clone());
    for warning in &task.warnings {
        log.warning(warning);
    }
    // The daemon's socket can be root's alone, so it is opened first.
    let ready = images::open(task, surroundings, cancel)
        .map_err(Failed::from)
        .and_then(|images| Ok((images, privileges(task, surroundings)?)));
    let images = match ready {
        Ok((images, ())) => images,
        Err(error) => return fail(&mut log, &error, error.code()),
    };
    // As root, and before anybody else's code runs (EXT-12).
    let builder = match extend(task, surroundings, &mut log) {
        Ok(builder) => builder,
        Err(error) => return fail(&mut log, &error, error.code()),
    };
    let task = builder.as_ref().unwrap_or(task);
    // From here on there are threads.
    let caught = signals::watch(cancel);
    match run_task(task, images.as_ref().map(OpenImages::places), surroundings, cancel, &mut log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let signal = caught.signal().and_then(|signal| u8::try_from(128 + signal).ok());
            fail(&mut log, &error, signal.unwrap_or_else(|| error.code()))
        }
    }
}

fn privileges(task: &Task, surroundings: &mut Surroundings) -> Result<(), UsageError> {
    let program = task.inputs.program();
    privileges::refuse_root(program)?;
    let Some((user, group)) = task.user.filter(|_| program != Program::Extender) else { return Ok(()) };
    privileges::become_user(user, group, &task.volumes)?;
    if program == Program::Creator {
        privileges::set_home(surroundings, user)?;
    }
    Ok(())
}

/// What the extender has to do as root. The build of an extended build image is the next
/// task, as the user that builds.
fn extend(task: &Task, surroundings: &mut Surroundings, log: &mut Log) -> Result<Option<Task>, Failed> {
    let Inputs::Extender(inputs) = &task.inputs else { return Ok(None) };
    extender::run(inputs, log).map_err(ProgramError::from)?;
    if inputs.kind == ExtendKind::Run {
        return Ok(None);
    }
    if let Some((user, group)) = inputs.owner {
        privileges::become_user(user, group, &[&inputs.layers])?;
        privileges::set_home(surroundings, user)?;
    }
    privileges::refuse_root(Program::Builder)?;
    Ok(Some(Task { inputs: Inputs::Builder(inputs.of_builder()), ..task.clone() }))
}

fn run_task(
    task: &Task,
    images: Option<ImagePlaces<'_>>,
    surroundings: &Surroundings,
    cancel: &Cancel,
    log: &mut Log,
) -> Result<(), Failed> {
    let images = || images.ok_or(ImageError::None);
    let equipment = match task.inputs.buildpacks() {
        Some(buildpacks) => Some(
            Equipment::gather(buildpacks, task.inputs.keeping(), surroundings, cancel, log)
                .map_err(|error| Failed::Equipment(Box::new(error)))?,
        ),
        None => None,
    };
    let equipment = || equipment.as_ref().expect("programs that run buildpacks say where those are");
    match &task.inputs {
        Inputs::Analyzer(inputs) => analyzer::run(inputs, images()?, log).map_err(ProgramError::from)?,
        Inputs::Detector(inputs) => equipment()
            .lend(cancel, log, |services| detector::run(inputs, services))
            .map_err(ProgramError::from)?,
        Inputs::Restorer(inputs) => restorer::run(inputs, images()?, log).map_err(ProgramError::from)?,
        // Done, or the builder's by now.
        Inputs::Extender(_) => {}
        Inputs::Builder(inputs) => equipment()
            .lend(cancel, log, |services| builder::run(inputs, services))
            .map_err(ProgramError::from)?,
        Inputs::Exporter(inputs) => {
            exporter::run(inputs, images()?, cancel, log).map_err(ProgramError::from)?;
        }
        Inputs::Creator(inputs) => {
            let images = images()?;
            equipment().lend(cancel, log, |services| creator::run(inputs, images, services))?;
        }
        Inputs::Rebaser(inputs) => {
            rebaser::run(inputs, images()?.images, cancel, log).map_err(ProgramError::from)?;
        }
    }
    Ok(())
}

fn fail(log: &mut Log, error: &dyn Error, code: u8) -> ExitCode {
    log.failure(error);
    ExitCode::from(code)
}
