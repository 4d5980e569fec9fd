//! Guests in this process: for tests of buildpacks, and for measuring calls.
//!
//! The cell is the same, the walls around it are not: there is no worker, no
//! Landlock and no seccomp, and a guest that hangs inside the host cannot be
//! stopped. Never for code of strangers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::cell::{CellCalls, CellParts, Cells, LoadedComponent, OpenedDirectory};
use super::engine::{NotLoadable, compile, new_engine};
use super::filesystem::{MountSpec, Quota};
use crate::cnb::id::{BuildpackRef, LayerName};
use crate::cnb::layer::LayerTypes;
use crate::executor::{
    Arrivals, ArtifactRequest, BuildHost, BuildInputs, BuildOutputs, CallInputs, DetectInputs, DetectOutputs,
    Executor, GuestFailure, LogSink, OpenedLayer, Refusal,
};
use crate::limits::Limits;
use crate::text::harmless;

/// Runs components on threads of this process.
pub struct InProcessExecutor {
    limits: Limits,
    engine: wasmtime::Engine,
    cells: Arc<Cells>,
    components: BTreeMap<String, Arc<LoadedComponent>>,
}

/// Machine code of a component, made by the executor that takes it back.
#[derive(Debug)]
pub struct CompiledComponent(Vec<u8>);

/// What a guest's thread asks of the one that called the executor.
enum Question {
    Line(String),
    OpenLayer(LayerName, LayerTypes, String, Sender<Result<OpenedLayer, Refusal>>),
    UpdateLayer(LayerName, Sender<Result<std::path::PathBuf, Refusal>>),
    Fetch(Vec<ArtifactRequest>, Sender<(usize, Result<File, Refusal>)>),
}

impl InProcessExecutor {
    /// An executor with an engine of its own.
    ///
    /// # Errors
    /// A sentence when wasmtime does not work on this machine.
    pub fn new(limits: Limits) -> Result<Self, String> {
        let engine = new_engine(&limits).map_err(|error| error.to_string())?;
        let cells = Cells::new(engine.clone()).map_err(|error| error.to_string())?;
        Ok(Self { limits, engine, cells: Arc::new(cells), components: BTreeMap::new() })
    }

    /// Compiles a component, without keeping it.
    ///
    /// # Errors
    /// [`NotLoadable`] when it is none, or no buildpack.
    pub fn compile(&self, component: &[u8]) -> Result<CompiledComponent, NotLoadable> {
        compile(&self.engine, component, &self.limits).map(|(code, _)| CompiledComponent(code))
    }

    /// Makes compiled code ready to be instantiated, without keeping it.
    ///
    /// # Errors
    /// A sentence when its types do not fit the contract.
    pub fn load_compiled(&self, code: &CompiledComponent) -> Result<(), String> {
        let component = deserialize(&self.engine, &code.0).map_err(|error| error.to_string())?;
        self.cells.load(&component).map(|_| ()).map_err(|error| error.to_string())
    }

    fn load(&mut self, call: &CallInputs) -> Result<Arc<LoadedComponent>, GuestFailure> {
        let program = call.component()?;
        if let Some(component) = self.components.get(&program.digest) {
            return Ok(Arc::clone(component));
        }
        let unloadable = |id: String, message: String, hint| GuestFailure::Unloadable {
            buildpack: call.buildpack.clone(),
            id,
            message,
            hint,
        };
        let not_a_component = |message| unloadable("buildpack.not_a_component".to_owned(), message, None);
        let bytes = fs_err::read(&program.path).map_err(|error| not_a_component(error.to_string()))?;
        let (code, _) = compile(&self.engine, &bytes, &self.limits)
            .map_err(|error| unloadable(error.id, error.message, error.hint))?;
        let component =
            deserialize(&self.engine, &code).map_err(|error| not_a_component(error.to_string()))?;
        let loaded = self.cells.load(&component).map_err(|error| not_a_component(format!("{error:#}")))?;
        let loaded = Arc::new(loaded);
        self.components.insert(program.digest.clone(), Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Runs `work` on a thread and answers what its guest asks.
    fn run<T: Send>(
        &mut self,
        call: &CallInputs,
        host: &mut dyn BuildHost,
        work: impl FnOnce(&Cells, &LoadedComponent, CellParts) -> Result<T, GuestFailure> + Send,
    ) -> Result<T, GuestFailure> {
        let component = self.load(call)?;
        let mounts = open_mounts(call)?;
        let quota = Quota::new(&self.limits, (0, 0));
        let (asking, questions) = channel();
        let lines = asking.clone();
        let parts = CellParts {
            mounts,
            quota,
            calls: Box::new(Asker(asking)),
            log: Box::new(move |line| drop(lines.send(Question::Line(line)))),
        };
        let cells = Arc::clone(&self.cells);
        std::thread::scope(|scope| {
            let guest = scope.spawn(move || work(&cells, &component, parts));
            answer(&questions, call, host);
            guest.join().unwrap_or_else(|_| {
                Err(GuestFailure::WorkerCrashed {
                    buildpack: call.buildpack.clone(),
                    how: "a panic of the host".into(),
                })
            })
        })
    }
}

#[expect(unsafe_code, reason = "loads machine code that was compiled a moment ago")]
fn deserialize(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<wasmtime::component::Component> {
    // SAFETY: the bytes come from `compile` of this process and were never out of memory.
    unsafe { wasmtime::component::Component::deserialize(engine, code) }
}

/// Answers until the guest's end has been dropped.
fn answer(questions: &Receiver<Question>, call: &CallInputs, host: &mut dyn BuildHost) {
    while let Ok(question) = questions.recv() {
        // A guest that does not wait any more needs no answer.
        match question {
            Question::Line(line) => host.line(&call.buildpack, &harmless(&line)),
            Question::OpenLayer(name, types, key, sender) => {
                drop(sender.send(host.open_layer(&name, types, &key)));
            }
            Question::UpdateLayer(name, sender) => drop(sender.send(host.update_layer(&name))),
            Question::Fetch(artifacts, sender) => {
                let sender = std::sync::Mutex::new(sender);
                let arrivals = move |index, file| {
                    let sender = sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    drop(sender.send((index, file)));
                };
                host.fetch(artifacts, Arc::new(arrivals));
            }
        }
    }
}

fn open_mounts(call: &CallInputs) -> Result<Vec<MountSpec>, GuestFailure> {
    let open = |path: &Path| {
        File::open(path).map(OwnedFd::from).map_err(|error| GuestFailure::WorkerUnavailable {
            buildpack: call.buildpack.clone(),
            message: format!("`{}`: {error}", path.display()),
        })
    };
    call.mounts
        .iter()
        .map(|mount| {
            Ok(MountSpec {
                guest_path: mount.guest_path.clone(),
                lower: mount.lower.as_deref().map(open).transpose()?,
                upper: mount.upper.as_deref().map(open).transpose()?,
                writable: mount.writable,
                hidden: mount.hidden.clone(),
            })
        })
        .collect()
}

impl Executor for InProcessExecutor {
    fn detect(
        &mut self,
        calls: &[DetectInputs],
        log: &mut dyn LogSink,
    ) -> Vec<Result<DetectOutputs, GuestFailure>> {
        struct Host<'a>(&'a mut dyn LogSink);
        impl LogSink for Host<'_> {
            fn line(&mut self, buildpack: &BuildpackRef, line: &str) {
                self.0.line(buildpack, line);
            }
        }
        impl BuildHost for Host<'_> {
            fn open_layer(&mut self, _: &LayerName, _: LayerTypes, _: &str) -> Result<OpenedLayer, Refusal> {
                Err(Refusal::not_in_detect())
            }
            fn update_layer(&mut self, _: &LayerName) -> Result<std::path::PathBuf, Refusal> {
                Err(Refusal::not_in_detect())
            }
            fn fetch(&mut self, artifacts: Vec<ArtifactRequest>, arrivals: Arrivals) {
                (0..artifacts.len()).for_each(|index| arrivals(index, Err(Refusal::not_in_detect())));
            }
        }
        let mut host = Host(log);
        calls
            .iter()
            .map(|inputs| {
                self.run(&inputs.call, &mut host, |cells, component, parts| {
                    cells.detect(component, inputs, parts)
                })
            })
            .collect()
    }

    fn build(
        &mut self,
        inputs: &BuildInputs,
        host: &mut dyn BuildHost,
    ) -> Result<BuildOutputs, GuestFailure> {
        self.run(&inputs.call, host, |cells, component, parts| cells.build(component, inputs, parts))
    }
}

/// Asks the thread that called the executor.
struct Asker(Sender<Question>);

impl Asker {
    fn ask<T>(&self, question: impl FnOnce(Sender<Result<T, Refusal>>) -> Question) -> Result<T, Refusal> {
        let (sender, receiver) = channel();
        self.0.send(question(sender)).map_err(|_| nobody_answers())?;
        receiver.recv().map_err(|_| nobody_answers())?
    }
}

fn nobody_answers() -> Refusal {
    Refusal { id: "host.failed".to_owned(), message: "nobody answers".to_owned(), hint: None }
}

fn open(path: &Path) -> Result<OwnedFd, Refusal> {
    File::open(path).map(OwnedFd::from).map_err(|error| Refusal {
        id: "host.failed".to_owned(),
        message: format!("the host could not prepare it: {error}"),
        hint: None,
    })
}

impl CellCalls for Asker {
    fn open_layer(
        &mut self,
        name: &LayerName,
        types: LayerTypes,
        cache_key: &str,
    ) -> Result<OpenedDirectory, Refusal> {
        let opened =
            self.ask(|sender| Question::OpenLayer(name.clone(), types, cache_key.to_owned(), sender))?;
        Ok(match opened {
            OpenedLayer::Restored { tree } => OpenedDirectory::Restored(open(&tree)?),
            OpenedLayer::Kept => OpenedDirectory::Kept,
            OpenedLayer::Empty { directory } => OpenedDirectory::Empty(open(&directory)?),
        })
    }

    fn update_layer(&mut self, name: &LayerName) -> Result<OwnedFd, Refusal> {
        open(&self.ask(|sender| Question::UpdateLayer(name.clone(), sender))?)
    }

    fn fetch(
        &mut self,
        artifacts: Vec<ArtifactRequest>,
        arrived: &mut dyn FnMut(usize, Result<OwnedFd, Refusal>),
    ) {
        let (sender, receiver) = channel();
        let mut missing: BTreeSet<usize> = (0..artifacts.len()).collect();
        if self.0.send(Question::Fetch(artifacts, sender)).is_ok() {
            while !missing.is_empty()
                && let Ok((index, file)) = receiver.recv()
            {
                missing.remove(&index);
                arrived(index, file.map(OwnedFd::from));
            }
        }
        for index in missing {
            arrived(index, Err(nobody_answers()));
        }
    }
}
