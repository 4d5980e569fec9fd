//! How large the store is, roughly, without looking at it: what the last look found, and
//! what was written since.
//!
//! # Shape
//! The file `size`, one line each:
//! ```text
//! 1048576 21474836480      bytes that were there, and how many there might have been
//! 4096                     bytes that a build added since
//! ```
//! Lines are appended whole, so several builds do not disturb one another. A number that
//! was lost in a crash only makes the next look come later; what cannot be read is looked
//! at again.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Store, StoreError, files};

const FILE: &str = "size";
/// So many builds fit that somebody should look again.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// A store that stays above its cap, because all of it is in use, is looked at again when it
/// has grown by this part of the cap.
const PATIENCE: u64 = 10;

/// What this process has written.
#[derive(Debug, Default)]
pub(super) struct Growth(AtomicU64);

impl Growth {
    pub(super) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What the last look found, with what was added since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Estimate {
    found: u64,
    cap: u64,
    added: u64,
}

impl Store {
    /// Whether somebody should look whether there is more than `cap`. Costs one small file,
    /// however large the store is.
    pub(super) fn may_be_over(&self, cap: u64) -> bool {
        self.tell_growth();
        let Some(Estimate { found, cap: last_cap, added }) = self.estimate() else { return true };
        let is_over = found.saturating_add(added) > cap;
        is_over && (found <= cap || last_cap != cap || added > cap / PATIENCE)
    }

    /// Remembers what a look found.
    pub(super) fn remember_size(&self, found: u64, cap: u64) -> Result<(), StoreError> {
        self.write_whole(FILE, &[format!("{found} {cap}\n").as_bytes()])
    }

    /// Adds what this process has written to the file, so that others know.
    pub(super) fn tell_growth(&self) {
        let added = self.growth.0.swap(0, Ordering::Relaxed);
        if added > 0 {
            let path = self.root().join(FILE);
            let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            // Nobody has looked yet where there is no file.
            if let Ok(mut file) = OpenOptions::new().append(true).custom_flags(flags).open(path) {
                let _ = file.write_all(format!("{added}\n").as_bytes());
            }
        }
    }

    fn estimate(&self) -> Option<Estimate> {
        let bytes = files::read_file(&self.root().join(FILE), MAX_FILE_BYTES).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        let (found, cap) = lines.next()?.split_once(' ')?;
        let added = lines
            .map(|line| line.parse::<u64>().ok())
            .try_fold(0_u64, |sum, added| Some(sum.saturating_add(added?)))?;
        Some(Estimate { found: found.parse().ok()?, cap: cap.parse().ok()?, added })
    }
}
