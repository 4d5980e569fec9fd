//! Sending a call, with descriptors for everything that it may open.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::OFlags;

use super::protocol::{Call, MountShape, Request};
use super::{PATIENCE, WorkerExecutor, give, inputs, named, open};
use crate::executor::{
    BuildInputs, CallInputs, ComponentFile, DetectInputs, GuestFailure, LogSink, Mount, Program,
};

/// Why a call was not sent.
pub(super) enum Unsent {
    /// It died before this call reached it.
    WorkerGone(String),
    Failed(Box<GuestFailure>),
}

impl From<GuestFailure> for Unsent {
    fn from(failure: GuestFailure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl WorkerExecutor<'_> {
    /// Sends a call with everything it may open.
    pub(super) fn send(&mut self, call: &Call, log: &mut dyn LogSink) -> Result<u64, Unsent> {
        let inputs = inputs(call);
        let unavailable = |message: String| GuestFailure::WorkerUnavailable {
            buildpack: inputs.buildpack.clone(),
            message,
        };
        let mut descriptors = vec![self.code(&inputs.buildpack, inputs.component()?, log)?];
        let mut shapes = Vec::with_capacity(inputs.mounts.len());
        let directory = |path: &Path| {
            open(path, OFlags::PATH | OFlags::DIRECTORY).map_err(|error| unavailable(named(path, error)))
        };
        for Mount { guest_path, lower, upper, writable, hidden } in &inputs.mounts {
            if let Some(lower) = lower {
                descriptors.push(directory(lower)?);
            }
            if let Some(upper) = upper {
                if *writable {
                    give(upper, self.settings.user).map_err(|error| unavailable(named(upper, error)))?;
                }
                descriptors.push(directory(upper)?);
            }
            shapes.push(MountShape {
                guest_path: guest_path.clone(),
                lower: lower.is_some(),
                upper: upper.is_some(),
                writable: *writable,
                hidden: hidden.clone(),
            });
        }
        let mut restorable = 0;
        if let Call::Build(build) = call {
            give(&build.layers_work_directory, self.settings.user)
                .map_err(|error| unavailable(named(&build.layers_work_directory, error)))?;
            descriptors.push(directory(&build.layers_work_directory)?);
            for tree in &build.restorable_trees {
                descriptors.push(directory(tree)?);
                restorable += 1;
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        let request = Request::Call {
            id,
            call: Box::new(without_host_paths(call)),
            mounts: shapes,
            disk_used: self.disk_used,
            restorable,
        };
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let worker = self.worker().map_err(unavailable)?;
        match worker.channel.send(&request, &descriptors, Instant::now() + PATIENCE) {
            Ok(()) => Ok(id),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Err(Unsent::WorkerGone(error.to_string()))
            }
            Err(error) => Err(unavailable(format!("the worker does not read: {error}")).into()),
        }
    }
}

/// The call as the worker may know it: directories come as descriptors.
fn without_host_paths(call: &Call) -> Call {
    let strip = |inputs: &CallInputs| CallInputs {
        mounts: Vec::new(),
        program: match &inputs.program {
            Program::Component(component) => {
                Program::Component(ComponentFile { path: PathBuf::new(), ..component.clone() })
            }
            other @ Program::Executables(_) => other.clone(),
        },
        ..inputs.clone()
    };
    match call {
        Call::Detect(inputs) => Call::Detect(DetectInputs { call: strip(&inputs.call) }),
        Call::Build(inputs) => Call::Build(BuildInputs {
            call: strip(&inputs.call),
            restorable_trees: Vec::new(),
            layers_work_directory: PathBuf::new(),
            ..inputs.clone()
        }),
    }
}
