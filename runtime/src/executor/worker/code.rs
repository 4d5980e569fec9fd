//! The code of components: from the cache, or from a process that compiles and does
//! nothing else.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use super::protocol::{Received, Report, Request, Role};
use super::start::Worker;
use super::{CANCEL_INTERVAL, PATIENCE, WorkerExecutor, named, open};
use crate::cnb::id::BuildpackRef;
use crate::executor::wasm::{Interface, NotLoadable, engine_key, new_engine};
use crate::executor::{ComponentFile, GuestFailure, LogSink};

/// Keeps compiled components between builds. What it gives back is executed, so
/// it has to be what it was given: see the store.
pub trait CodeCache: Sync {
    /// Writes the code compiled from `component` by the engine with the key `engine`
    /// into `memory`, an empty file that nobody else can reach; `false` when there is
    /// none that can be trusted.
    fn load(&self, component: &str, engine: &str, memory: &File) -> bool;
    /// Keeps code. A failure is the cache's own business: it costs time only.
    fn keep(&self, component: &str, engine: &str, code: &[u8]);
    /// Why compiling `component` was given up lately, under the same limits.
    fn load_failure(&self, component: &str, engine: &str) -> Option<String>;
    /// Keeps that, so that a component made to take minutes does not do so in every build.
    fn keep_failure(&self, component: &str, engine: &str, message: &str);
}

/// Keeps nothing: every component is compiled anew.
#[derive(Debug, Clone, Copy)]
pub struct NoCode;

impl CodeCache for NoCode {
    fn load(&self, _: &str, _: &str, _: &File) -> bool {
        false
    }

    fn keep(&self, _: &str, _: &str, _: &[u8]) {}

    fn load_failure(&self, _: &str, _: &str) -> Option<String> {
        None
    }

    fn keep_failure(&self, _: &str, _: &str, _: &str) {}
}

impl WorkerExecutor<'_> {
    /// Takes what the cache has of these components, on all cores. What it does not
    /// have is no matter here.
    pub(super) fn read_code(&mut self, components: &[String]) {
        let mut digests: Vec<&str> = components.iter().map(String::as_str).collect();
        digests.sort_unstable();
        digests.dedup();
        digests.retain(|digest| !self.code.contains_key(*digest));
        if digests.is_empty() {
            return;
        }
        let Ok(engine) = self.engine_key() else { return };
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let (cache, digests) = (self.code_cache, &digests);
        let read = || {
            while let Some(digest) = digests.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Some(code) = cached_code(cache, digest, &engine) {
                    found.lock().unwrap_or_else(PoisonError::into_inner).push(((*digest).to_owned(), code));
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            // This thread is one of them.
            for _ in 1..cores.min(digests.len()) {
                scope.spawn(read);
            }
            read();
        });
        self.code.extend(found.into_inner().unwrap_or_else(PoisonError::into_inner));
    }

    /// The code of a component, from memory, the cache or a compiler process.
    pub(super) fn code(
        &mut self,
        buildpack: &BuildpackRef,
        program: &ComponentFile,
        log: &mut dyn LogSink,
    ) -> Result<OwnedFd, GuestFailure> {
        let unavailable =
            |message: String| GuestFailure::WorkerUnavailable { buildpack: buildpack.clone(), message };
        if !self.code.contains_key(&program.digest) {
            let engine = self.engine_key().map_err(unavailable)?;
            let sealed = if let Some(code) = cached_code(self.code_cache, &program.digest, &engine) {
                code
            } else {
                let code = self.compile_once(buildpack, program, &engine, log)?;
                memory_of(&code).map_err(|error| unavailable(error.to_string()))?
            };
            self.code.insert(program.digest.clone(), sealed);
        }
        let sealed = self.code.get(&program.digest).ok_or_else(|| unavailable("no code".to_owned()))?;
        // Its own descriptor with its own position, for each time it is read.
        reopen(sealed).map_err(|error| unavailable(error.to_string()))
    }

    /// Compiles a component, unless it was given up lately.
    fn compile_once(
        &self,
        buildpack: &BuildpackRef,
        program: &ComponentFile,
        engine: &str,
        log: &mut dyn LogSink,
    ) -> Result<Vec<u8>, GuestFailure> {
        let limits = &self.settings.limits;
        let bounded = format!("{engine} {} s {} B", limits.compile_cpu_seconds, limits.compile_memory_bytes);
        if let Some(message) = self.code_cache.load_failure(&program.digest, &bounded) {
            return Err(GuestFailure::Unloadable {
                buildpack: buildpack.clone(),
                id: "buildpack.compile_limit".to_owned(),
                message,
                hint: Some(
                    "it was tried within the last day; other limits or another component are tried again"
                        .to_owned(),
                ),
            });
        }
        log.compiling(buildpack);
        match self.compile(buildpack, &program.path) {
            Ok((code, _)) => {
                self.code_cache.keep(&program.digest, engine, &code);
                Ok(code)
            }
            Err(failure) => {
                if let GuestFailure::Unloadable { id, message, .. } = &failure
                    && id == "buildpack.compile_limit"
                {
                    self.code_cache.keep_failure(&program.digest, &bounded, message);
                }
                Err(failure)
            }
        }
    }

    fn engine_key(&mut self) -> Result<String, String> {
        if let Some(key) = &self.engine_key {
            return Ok(key.clone());
        }
        let engine = new_engine(&self.settings.limits).map_err(|error| error.to_string())?;
        Ok(self.engine_key.insert(engine_key(&engine)).clone())
    }

    /// Compiles a component in a process of its own, and says what it imports and exports.
    ///
    /// # Errors
    /// [`GuestFailure::Unloadable`] when it is none, or takes too much to compile.
    pub fn compile(
        &self,
        buildpack: &BuildpackRef,
        component: &Path,
    ) -> Result<(Vec<u8>, Interface), GuestFailure> {
        let failed =
            |message: String| GuestFailure::WorkerUnavailable { buildpack: buildpack.clone(), message };
        let unloadable = |error: NotLoadable| GuestFailure::Unloadable {
            buildpack: buildpack.clone(),
            id: error.id,
            message: error.message,
            hint: error.hint,
        };
        let file = open(component, OFlags::RDONLY).map_err(|error| failed(named(component, error)))?;
        let mut compiler =
            Worker::start(&self.settings, Role::Compiler, None).map_err(|error| failed(error.to_string()))?;
        compiler.become_ready().map_err(|error| failed(error.to_string()))?;
        let seconds = self.settings.limits.compile_cpu_seconds;
        let deadline = Instant::now() + Duration::from_secs(seconds) + PATIENCE;
        let io_failed = |error: io::Error| failed(format!("the compiler process failed: {error}"));
        compiler.channel.send(&Request::Compile, &[file.as_fd()], deadline).map_err(io_failed)?;
        loop {
            if self.settings.cancel.is_cancelled() {
                return Err(GuestFailure::Cancelled { buildpack: buildpack.clone() });
            }
            let wait = deadline.min(Instant::now() + CANCEL_INTERVAL);
            match compiler.channel.receive(wait).map_err(io_failed)? {
                Received::Report(report) => match *report {
                    Report::Compiled(Ok((length, interface))) => {
                        let length = usize::try_from(length.min(self.settings.limits.compile_output_bytes))
                            .unwrap_or(usize::MAX);
                        let code = compiler.channel.receive_bytes(length, deadline).map_err(io_failed)?;
                        return Ok((code, interface));
                    }
                    Report::Compiled(Err(error)) => return Err(unloadable(error)),
                    _ => return Err(failed("the compiler process answered something else".to_owned())),
                },
                Received::Nothing if Instant::now() < deadline => {}
                // Killed by its limit of CPU time or memory, or it would have been.
                Received::Nothing | Received::Closed => {
                    return Err(unloadable(NotLoadable {
                        id: "buildpack.compile_limit".to_owned(),
                        message: format!(
                            "compiling it takes more than {seconds} s of CPU time or {} of memory",
                            crate::limits::show_bytes(self.settings.limits.compile_memory_bytes)
                        ),
                        hint: Some(
                            "the operator raises it with `compile_cpu_seconds` or `compile_memory_bytes` under `[limits]` in the policy file"
                                .to_owned(),
                        ),
                    }));
                }
            }
        }
    }
}

/// What the cache has, in memory that nobody can change any more.
fn cached_code(cache: &dyn CodeCache, component: &str, engine: &str) -> Option<OwnedFd> {
    let memory = new_memory().ok()?;
    if cache.load(component, engine, &memory) { sealed(memory).ok() } else { None }
}

/// Puts code into memory that nobody can change any more.
fn memory_of(code: &[u8]) -> io::Result<OwnedFd> {
    let mut memory = new_memory()?;
    memory.write_all(code)?;
    sealed(memory)
}

fn new_memory() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(rustix::fs::memfd_create("component", flags)?.into())
}

fn sealed(memory: File) -> io::Result<OwnedFd> {
    rustix::fs::fcntl_add_seals(
        &memory,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(memory.into())
}

fn reopen(memory: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    // Follows the link of procfs, which is the file itself.
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
