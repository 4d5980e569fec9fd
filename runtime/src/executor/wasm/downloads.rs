//! Downloads: what arrives is written or unpacked by a few threads of this
//! process while the rest is still on its way.
//!
//! The threads are started by the guest's own, so they have its Landlock domain and
//! its filter of system calls, and what they write is charged to its account. They
//! never ask the parent for anything.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::bindings::buildpack::wapack::buildpack::downloads::{self, Artifact};
use super::bindings::buildpack::wapack::buildpack::types::HostError;
use super::cell::{Cell, CellCalls};
use super::filesystem::{GuestPath, MountTable, OpenFile, OpenHow, Opened};
use super::host::{HostResult, file_error, for_each_chunk, host_error, refused};
use super::unpack::{Destination, SharedTable, UnpackError, unpack};
use crate::executor::ArtifactRequest;

/// More threads than that wait for the disk.
const MAX_THREADS: usize = 4;
/// Arrivals that wait for a thread here; the rest waits where it comes from.
const MAX_WAITING: usize = 64;

impl downloads::Host for Cell {
    fn fetch(&mut self, artifacts: Vec<Artifact>) -> HostResult<()> {
        Ok(fetch(self.calls.as_mut(), &mut self.files, &artifacts))
    }
}

/// Fetches `artifacts` and takes in each as it arrives.
fn fetch(calls: &mut dyn CellCalls, files: &mut MountTable, artifacts: &[Artifact]) -> Result<(), HostError> {
    let requests = artifacts
        .iter()
        .map(|artifact| ArtifactRequest {
            source: artifact.source.clone(),
            path: artifact.path.clone(),
            integrity: artifact.integrity.clone(),
        })
        .collect();
    let table = Mutex::new(files);
    let desk =
        ArrivalDesk { artifacts, table: &table, stop: AtomicBool::new(false), failed: Mutex::default() };
    let (sender, arrivals) = sync_channel(MAX_WAITING);
    let arrivals = Mutex::new(arrivals);
    std::thread::scope(|scope| {
        let started = (0..thread_count(artifacts.len()))
            .map_while(|_| {
                let thread = std::thread::Builder::new().name("unpack".to_owned());
                thread.spawn_scoped(scope, || desk.work(&arrivals)).ok()
            })
            .count();
        calls.fetch(requests, &mut |index, file| match file {
            // Once something failed, nothing new is started.
            Ok(_) if desk.is_stopped() => {}
            Ok(file) if started == 0 => desk.take_in(index, file),
            // The receiver lives as long as this call.
            Ok(file) => drop(sender.send((index, file))),
            Err(refusal) => desk.fail(index, refused(refusal)),
        });
        // Without a sender, the threads end when nothing is left.
        drop(sender);
    });
    desk.result()
}

fn thread_count(artifacts: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.min(MAX_THREADS).min(artifacts)
}

/// Where the arrivals of one fetch are taken in.
struct ArrivalDesk<'a, 't> {
    artifacts: &'a [Artifact],
    table: &'a SharedTable<'t>,
    stop: AtomicBool,
    /// What failed; the artifact that was asked for first when several did.
    failed: Mutex<Option<(usize, HostError)>>,
}

impl ArrivalDesk<'_, '_> {
    /// Takes in what arrives, until nothing more does.
    fn work(&self, arrivals: &Mutex<Receiver<(usize, OwnedFd)>>) {
        loop {
            let arrival = arrivals.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((index, file)) = arrival else { return };
            self.take_in(index, file);
        }
    }

    fn take_in(&self, index: usize, file: OwnedFd) {
        if !self.is_stopped()
            && let Some(artifact) = self.artifacts.get(index)
            && let Err(error) = self.place(artifact, file)
        {
            self.fail(index, error);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, index: usize, error: HostError) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever is stopped by an error is not the reason for it.
        let is_reason = error.id != UnpackError::Stopped.id();
        if is_reason && failed.as_ref().is_none_or(|(first, _)| index < *first) {
            *failed = Some((index, error));
        }
        self.stop.store(true, Ordering::Relaxed);
    }

    fn result(self) -> Result<(), HostError> {
        match self.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    /// Writes or unpacks what arrived.
    fn place(&self, artifact: &Artifact, file: OwnedFd) -> Result<(), HostError> {
        let name = format!("{}:{}", artifact.source, artifact.path);
        let target = &artifact.destination;
        let Some(options) = &artifact.unpack else {
            return self
                .write(target, file)
                .map_err(|error| file_error(&format!("write `{name}` to"), target, error));
        };
        let destination = GuestPath::parse(target)
            .and_then(|path| Destination::open(self.table, &path))
            .map_err(|error| file_error(&format!("unpack `{name}` into"), target, error))?;
        unpack(file.as_fd(), destination, options, &self.stop).map(|_| ()).map_err(|error| {
            host_error(error.id(), format!("cannot unpack `{name}` into `{target}`: {error}"))
        })
    }

    fn write(&self, target: &str, source: OwnedFd) -> Result<(), rustix::io::Errno> {
        let path = GuestPath::parse(target)?;
        let (source, target) = {
            let mut files = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            // Another artifact may be about to make the directory.
            if let Some(parent) = path.parent() {
                files.create_directories(&parent)?;
            }
            let how = OpenHow { write: true, create: true, truncate: true, ..OpenHow::default() };
            let Opened::File(target) = files.open(&path, how)? else {
                return Err(rustix::io::Errno::ISDIR);
            };
            (OpenFile::new(source, false, files.quota().clone())?, target)
        };
        for_each_chunk(&source, |chunk, offset| target.write_at(chunk, offset))
    }
}

#[cfg(test)]
mod tests;
