//! From a process to the program that it starts.

use std::borrow::Cow;

use super::super::start::{self, Start};
use super::super::{APP_DIRECTORY, Base};
use super::Subject;
use super::image_files::{ImageFiles, Stop};
use super::libraries::Search;
use super::problem::{Problem, Unmet};
use crate::cnb::env::Environment;
use crate::cnb::launch::Process;
use crate::oci::elf::Elf;
use crate::oci::files::{Contents, Script};

/// Scripts that may be the interpreters of scripts, as the kernel counts.
const MAX_SCRIPTS: usize = 5;
/// What container runtimes take when an image says nothing.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The launcher and its links come in after this check.
const LAUNCHER_DIRECTORY: &str = "/cnb/";

/// Looks for everything that a process needs.
///
/// # Errors
/// [`Stop::Unmet`] with the first thing that is missing.
pub(super) fn check(subject: &Subject<'_>, process: &Process, files: &ImageFiles<'_>) -> Result<(), Stop> {
    let request = subject.request;
    let mut environment = start::direct_environment(subject.run, request.built, process, subject.layers);
    if subject.start != Start::Launcher {
        environment.entry("PATH".to_owned()).or_insert_with(|| USUAL_PATH.into());
    }
    let working_directory = process.working_directory.as_deref().unwrap_or(APP_DIRECTORY);
    let look = Look {
        files,
        environment: &environment,
        working_directory: start::inside_app(working_directory),
        architecture: start::architecture(request),
        has_base: matches!(request.run_image.base, Base::Image(_)),
    };
    look.command(&process.command)
}

struct Look<'a> {
    files: &'a ImageFiles<'a>,
    environment: &'a Environment,
    working_directory: String,
    architecture: &'a str,
    has_base: bool,
}

impl Look<'_> {
    fn command(&self, words: &[String]) -> Result<(), Stop> {
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        if program.starts_with(LAUNCHER_DIRECTORY) {
            return Ok(());
        }
        let missing = || Problem::NoProgram { search_path: self.search_path(program) };
        let path = self.locate(program, program, missing)?;
        self.start(&path, 0)?;
        if is_env(program) {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            self.program_of_env(&path, &arguments)?;
        }
        Ok(())
    }

    /// Finds a program as the launcher does: as it is when it has a `/`, else along `PATH`.
    /// `subject` is the file whose problem it is when there is none.
    fn locate(
        &self,
        program: &str,
        subject: &str,
        missing: impl FnOnce() -> Problem,
    ) -> Result<String, Stop> {
        let path = self.path();
        let candidates: Vec<String> = if program.contains('/') {
            vec![start::inside_app(program)]
        } else {
            // An empty element is the app, as for the launcher.
            let join = |directory: &str| match directory {
                "" => start::inside_app(program),
                directory => start::inside_app(&format!("{directory}/{program}")),
            };
            path.split(':').map(join).collect()
        };
        let mut refused = None;
        for candidate in candidates {
            let Some(path) = self.files.follow(&candidate)? else { continue };
            match self.files.file(&path)? {
                Some((true, _)) => return Ok(path),
                Some((false, _)) => refused = refused.or(Some(path)),
                None => {}
            }
        }
        if let Some(path) = refused {
            return Err(self.unmet(&path, Problem::NotExecutable));
        }
        let origin = self.files.follow(subject)?.map(|path| self.files.origin(&path));
        let (program, problem) = (subject.to_owned(), missing());
        Err(Stop::Unmet(Box::new(Unmet { program, origin, has_base: self.has_base, problem })))
    }

    /// Where a program without a `/` is looked for.
    fn search_path(&self, program: &str) -> Option<String> {
        (!program.contains('/')).then(|| self.path().into_owned())
    }

    fn path(&self) -> Cow<'_, str> {
        self.environment.get("PATH").map_or(Cow::Borrowed(""), |path| path.to_string_lossy())
    }

    /// Looks for what the kernel and the loader need to start the file at a clean path.
    fn start(&self, path: &str, scripts: usize) -> Result<(), Stop> {
        match self.files.file(path)? {
            Some((_, Contents::Elf(elf))) => self.elf(path, &elf),
            Some((_, Contents::Script(script))) if scripts < MAX_SCRIPTS => {
                self.script(path, &script, scripts)
            }
            // Something that only this machine's kernel may know how to start.
            _ => Ok(()),
        }
    }

    fn script(&self, path: &str, script: &Script, scripts: usize) -> Result<(), Stop> {
        let interpreter = &script.interpreter;
        let missing = || Problem::NoInterpreter { interpreter: interpreter.clone() };
        // The kernel starts at the working directory, whatever `PATH` says.
        let place = if interpreter.starts_with('/') {
            interpreter.clone()
        } else {
            format!("{}/{interpreter}", self.working_directory)
        };
        let found = self.locate(&place, &absolute(path), missing)?;
        self.start(&found, scripts + 1)?;
        match &script.argument {
            Some(argument) if is_env(interpreter) => {
                // One argument, unless `-S` asks for words.
                let words: Vec<&str> = match argument.strip_prefix("-S") {
                    Some(rest) => rest.split_whitespace().collect(),
                    None => vec![argument],
                };
                self.program_of_env(path, &words)
            }
            _ => Ok(()),
        }
    }

    /// The program that `env` starts; `path` is the file that says so.
    fn program_of_env(&self, path: &str, words: &[&str]) -> Result<(), Stop> {
        let program = words.iter().find(|word| !word.contains('='));
        // Options may change everything.
        let Some(program) = program.filter(|program| !program.starts_with('-')) else { return Ok(()) };
        let missing = || Problem::NoInterpreter { interpreter: (*program).to_owned() };
        let found = self.locate(program, &absolute(path), missing)?;
        self.start(&found, MAX_SCRIPTS)
    }

    fn elf(&self, path: &str, elf: &Elf) -> Result<(), Stop> {
        if !elf.abi.runs_on(self.architecture) {
            let (machine, architecture) = (elf.abi.name(), self.architecture.to_owned());
            return Err(self.unmet(path, Problem::WrongMachine { machine, architecture }));
        }
        let Some(loader) = &elf.interpreter else { return Ok(()) };
        let place = if loader.starts_with('/') {
            loader.clone()
        } else {
            format!("{}/{loader}", self.working_directory)
        };
        let found = self.files.elf(&place)?;
        let Some((loader_path, loader_elf)) =
            found.filter(|(_, found)| found.as_ref().is_none_or(|found| found.abi == elf.abi))
        else {
            let problem = Problem::NoLoader { loader: loader.clone(), libraries: elf.needed.clone() };
            return Err(self.unmet(path, problem));
        };
        let search = Search::new(self.files, self.environment, &self.working_directory, loader, &loader_path);
        let missing = search.missing(path, elf, loader_elf.as_ref())?;
        if missing.is_empty() { Ok(()) } else { Err(self.unmet(path, Problem::NoLibraries { missing })) }
    }

    fn unmet(&self, path: &str, problem: Problem) -> Stop {
        let origin = Some(self.files.origin(path));
        Stop::Unmet(Box::new(Unmet { program: absolute(path), origin, has_base: self.has_base, problem }))
    }
}

fn absolute(path: &str) -> String {
    format!("/{path}")
}

fn is_env(program: &str) -> bool {
    program.rsplit('/').next() == Some("env")
}
