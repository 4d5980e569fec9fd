//! What parent and worker say to each other, over a pair of sockets.
//!
//! # Shape
//! A frame is a length of four bytes, little-endian, and that many bytes of
//! JSON. Descriptors go with the first byte of a frame, and only from the
//! parent to the worker. The parent treats what it reads as hostile: it never
//! waits for the rest of a frame and caps its size.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recv, recvmsg, send, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::confine::{Confinement, Isolation};
use crate::cnb::id::LayerName;
use crate::cnb::layer::LayerTypes;
use crate::executor::wasm::{Interface, NotLoadable};
use crate::executor::{
    ArtifactRequest, BuildInputs, BuildOutputs, DetectInputs, DetectOutputs, GuestFailure, Refusal,
};
use crate::limits::Limits;

/// Bytes of one frame; SBOMs are the largest things that cross.
const MAX_FRAME_BYTES: usize = 192 * 1024 * 1024;
/// Descriptors of one frame; the kernel allows 253.
const MAX_DESCRIPTORS: usize = 250;

/// What the parent says first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) role: Role,
    pub(super) confinement: Confinement,
    pub(super) limits: Limits,
}

/// What a worker process is for. One that compiles never runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    Guests,
    Compiler,
}

/// From the parent to the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Run a guest. Descriptors: its code, each mount's lower and upper as far
    /// as they are there, the directory new layers are made in, restorable trees.
    Call { id: u64, call: Box<Call>, mounts: Vec<MountShape>, disk_used: (u64, u64), restorable: usize },
    /// The answer to a question of a running guest. At most one descriptor.
    Answer { id: u64, answer: Answer },
    /// Compile the component whose bytes the descriptor holds.
    Compile,
    /// Try to break out; see [`super::probe`]. Descriptors: none.
    Probe { parent: i32, paths: Vec<std::path::PathBuf> },
}

/// One call, without host paths.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Call {
    Detect(DetectInputs),
    Build(BuildInputs),
}

/// A mount whose directories come as descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MountShape {
    pub(super) guest_path: String,
    pub(super) lower: bool,
    pub(super) upper: bool,
    pub(super) writable: bool,
    pub(super) hidden: Vec<String>,
}

/// The parent's answer to a [`Report`] that asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// With the tree as descriptor.
    Restored,
    Kept,
    /// With the new directory or the directory for changes as descriptor.
    Granted,
    Refused(Refusal),
    /// An artifact of a fetch, one frame each: with its file as descriptor, or why not.
    Arrived {
        index: usize,
        refused: Option<Refusal>,
    },
}

/// From the worker to the parent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Confined, and this is what the kernel enforces.
    Ready(Isolation),
    Line {
        id: u64,
        line: String,
    },
    OpenLayer {
        id: u64,
        name: LayerName,
        types: LayerTypes,
        cache_key: String,
    },
    UpdateLayer {
        id: u64,
        name: LayerName,
    },
    Fetch {
        id: u64,
        artifacts: Vec<ArtifactRequest>,
    },
    Done {
        id: u64,
        result: Result<Outputs, GuestFailure>,
        disk_used: (u64, u64),
    },
    /// The length of the code that follows this frame as raw bytes.
    Compiled(Result<(u64, Interface), NotLoadable>),
    Probed(Vec<super::probe::Attempt>),
}

/// What a call returned.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outputs {
    Detect(DetectOutputs),
    Build(Box<BuildOutputs>),
}

fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4)
        .ok()
        .filter(|length| *length as usize <= MAX_FRAME_BYTES)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the message is too long"))?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    Ok(frame)
}

/// The worker's end: it trusts the parent and waits for it.
pub(super) struct WorkerChannel(OwnedFd);

impl WorkerChannel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends one frame; blocks while the parent is busy, which is what slows a
    /// guest that prints faster than anybody reads.
    pub(super) fn send<T: Serialize>(&self, message: &T) -> io::Result<()> {
        self.send_bytes(&encode(message)?)
    }

    /// Sends raw bytes.
    pub(super) fn send_bytes(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match send(&self.0, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for one frame; `None` when the parent is gone.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let mut descriptors = Vec::new();
        let mut filled = 0;
        while filled < length.len() {
            // Descriptors come with the first byte; asking for exactly the
            // length keeps the kernel from joining two frames.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut buffers = [io::IoSliceMut::new(&mut length[filled..])];
            let count = match recvmsg(&self.0, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Ok(message) => message.bytes,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    descriptors.extend(fds);
                }
            }
            if count == 0 {
                return Ok(None);
            }
            filled += count;
        }
        let mut frame = vec![0; u32::from_le_bytes(length) as usize];
        let mut filled = 0;
        while filled < frame.len() {
            match recv(&self.0, &mut frame[filled..], RecvFlags::empty()) {
                Ok((_, 0)) => return Ok(None),
                Ok((_, count)) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some((serde_json::from_slice(&frame)?, descriptors)))
    }
}

impl AsFd for WorkerChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The parent's end: it never waits longer than it wants to.
pub(super) struct ParentChannel {
    writer: Arc<ParentWriter>,
    received: Vec<u8>,
    closed: bool,
}

/// The half of the parent's end that sends, for several threads.
pub(super) struct ParentWriter {
    socket: OwnedFd,
    /// Held for a whole frame.
    turn: Mutex<()>,
}

impl ParentWriter {
    /// Sends one frame with descriptors, by `deadline` at the latest.
    ///
    /// # Errors
    /// `TimedOut` when the worker does not read; `BrokenPipe` when it is gone.
    pub(super) fn send<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> io::Result<()> {
        let frame = encode(message)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = &frame[..];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        while !rest.is_empty() {
            let first = rest.len() == frame.len();
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if first
                && !descriptors.is_empty()
                && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
            {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many directories for one call"));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[io::IoSlice::new(rest)], &mut ancillary, flags) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !self.wait(PollFlags::OUT, deadline)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn wait(&self, flags: PollFlags, deadline: Instant) -> io::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        match poll(&mut [PollFd::new(&self.socket, flags)], Some(&timeout)) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(!left.is_zero()),
            Err(error) => Err(error.into()),
        }
    }
}

impl ParentChannel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        let writer = ParentWriter { socket, turn: Mutex::new(()) };
        Self { writer: Arc::new(writer), received: Vec::new(), closed: false }
    }

    /// The sending half.
    pub(super) fn writer(&self) -> &Arc<ParentWriter> {
        &self.writer
    }

    /// See [`ParentWriter::send`].
    pub(super) fn send<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> io::Result<()> {
        self.writer.send(message, descriptors, deadline)
    }

    /// Gives the next whole frame, waiting until `deadline` at most.
    ///
    /// # Errors
    /// `InvalidData` when the worker breaks the protocol.
    pub(super) fn receive(&mut self, deadline: Instant) -> io::Result<Received> {
        loop {
            if let Some(report) = self.next_frame()? {
                return Ok(Received::Report(Box::new(report)));
            }
            if self.closed {
                return Ok(Received::Closed);
            }
            if !self.writer.wait(PollFlags::IN, deadline)? {
                return Ok(Received::Nothing);
            }
            self.fill()?;
        }
    }

    /// Takes `count` raw bytes that follow a frame.
    pub(super) fn receive_bytes(&mut self, count: usize, deadline: Instant) -> io::Result<Vec<u8>> {
        while self.received.len() < count {
            if self.closed {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !self.writer.wait(PollFlags::IN, deadline)? && Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.fill()?;
        }
        let rest = self.received.split_off(count);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    fn fill(&mut self) -> io::Result<()> {
        let start = self.received.len();
        self.received.resize(start + 64 * 1024, 0);
        let count = match recv(&self.writer.socket, &mut self.received[start..], RecvFlags::DONTWAIT) {
            Ok((_, count)) => count,
            Err(Errno::INTR | Errno::AGAIN) => {
                self.received.truncate(start);
                return Ok(());
            }
            // A worker that was killed with bytes unread resets the connection.
            Err(Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        self.received.truncate(start + count);
        self.closed = count == 0;
        Ok(())
    }

    fn next_frame(&mut self) -> io::Result<Option<Report>> {
        let Some((length, rest)) = self.received.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the worker sent too long a message"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let report = serde_json::from_slice(&rest[..length])?;
        self.received.drain(..4 + length);
        Ok(Some(report))
    }
}

/// What [`ParentChannel::receive`] found.
pub(super) enum Received {
    Report(Box<Report>),
    /// The deadline passed.
    Nothing,
    /// The worker is gone.
    Closed,
}
