//! What the guests of one build may put on disk, counted as they write.
//!
//! Apparent sizes count, so a sparse file costs what it claims to be. Each
//! operation is charged before it happens and refunded when its file is gone;
//! a file that is unlinked while open is refunded when the last handle closes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::limits::{LimitKind, Limits};

/// Device and inode: which file it is, whatever its name.
pub(crate) type FileId = (u64, u64);

/// The counters of one build, shared by all its cells.
#[derive(Debug, Clone)]
pub(crate) struct Quota {
    allowed_bytes: u64,
    allowed_entries: u64,
    pub(crate) path_depth: u64,
    pub(crate) open_files: u64,
    allowed_listings: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    entries: u64,
    /// Files that are open, by how many handles, and whether their name is gone.
    open: BTreeMap<FileId, OpenCount>,
    handles: u64,
    /// Memory of the directory listings that are held.
    listings: u64,
    reached: Option<LimitReached>,
}

/// Memory one name of a listing takes besides its bytes.
const NAME_OVERHEAD: u64 = 64;

/// What a directory listing is charged while it is held: a guest may hold many.
#[derive(Debug)]
pub(crate) struct ListingCharge {
    quota: Quota,
    bytes: u64,
}

impl ListingCharge {
    /// Charges one more name.
    ///
    /// # Errors
    /// `EOVERFLOW`, and the limit is noted.
    pub(crate) fn add(&mut self, name: &str) -> Result<(), Errno> {
        let bytes = name.len() as u64 + NAME_OVERHEAD;
        let allowed = self.quota.allowed_listings;
        self.quota.with(|state| {
            let wanted = state.listings.saturating_add(bytes);
            if wanted > allowed {
                let limit = LimitKind::HostCall;
                state.reached.get_or_insert(LimitReached { limit, allowed, reached: wanted });
                return Err(Errno::OVERFLOW);
            }
            state.listings = wanted;
            Ok(())
        })?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for ListingCharge {
    fn drop(&mut self) {
        self.quota.with(|state| state.listings = state.listings.saturating_sub(self.bytes));
    }
}

#[derive(Debug, Default)]
struct OpenCount {
    handles: u64,
    unlinked: bool,
}

/// A limit that was hit, kept for the message: guests see a bare error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitReached {
    pub(crate) limit: LimitKind,
    pub(crate) allowed: u64,
    pub(crate) reached: u64,
}

impl Quota {
    /// Counters that start at what earlier calls of the build used.
    pub(crate) fn new(limits: &Limits, used: (u64, u64)) -> Self {
        Self {
            allowed_bytes: limits.disk_bytes,
            allowed_entries: limits.disk_entries,
            path_depth: limits.path_depth,
            open_files: limits.open_files,
            allowed_listings: limits.hostcall_bytes,
            state: Arc::new(Mutex::new(State { bytes: used.0, entries: used.1, ..State::default() })),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes and entries in use.
    pub(crate) fn used(&self) -> (u64, u64) {
        self.with(|state| (state.bytes, state.entries))
    }

    /// The first limit that was hit.
    pub(crate) fn reached(&self) -> Option<LimitReached> {
        self.with(|state| state.reached)
    }

    /// The account of a new listing.
    pub(crate) fn listing(&self) -> ListingCharge {
        ListingCharge { quota: self.clone(), bytes: 0 }
    }

    /// Charges `bytes` of growth.
    ///
    /// # Errors
    /// `EDQUOT`, and the limit is noted.
    pub(crate) fn charge_bytes(&self, bytes: u64) -> Result<(), Errno> {
        self.with(|state| {
            let wanted = state.bytes.saturating_add(bytes);
            if wanted > self.allowed_bytes {
                state.reached.get_or_insert(LimitReached {
                    limit: LimitKind::DiskBytes,
                    allowed: self.allowed_bytes,
                    reached: wanted,
                });
                return Err(Errno::DQUOT);
            }
            state.bytes = wanted;
            Ok(())
        })
    }

    /// Charges one file, directory or link.
    ///
    /// # Errors
    /// `EDQUOT`, and the limit is noted.
    pub(crate) fn charge_entry(&self) -> Result<(), Errno> {
        self.with(|state| {
            let wanted = state.entries.saturating_add(1);
            if wanted > self.allowed_entries {
                state.reached.get_or_insert(LimitReached {
                    limit: LimitKind::DiskEntries,
                    allowed: self.allowed_entries,
                    reached: wanted,
                });
                return Err(Errno::DQUOT);
            }
            state.entries = wanted;
            Ok(())
        })
    }

    /// Charges one file and its `bytes`, both or neither.
    ///
    /// # Errors
    /// `EDQUOT`, and the limit is noted.
    pub(crate) fn charge_file(&self, bytes: u64) -> Result<(), Errno> {
        self.charge_entry()?;
        self.charge_bytes(bytes).inspect_err(|_| self.refund_entry())
    }

    /// Gives back `bytes` that a file no longer has.
    pub(crate) fn refund_bytes(&self, bytes: u64) {
        self.with(|state| state.bytes = state.bytes.saturating_sub(bytes));
    }

    /// Gives back one entry.
    pub(crate) fn refund_entry(&self) {
        self.with(|state| state.entries = state.entries.saturating_sub(1));
    }

    /// Notes that a handle to `file` exists.
    ///
    /// # Errors
    /// `EMFILE` past the limit of open files.
    pub(crate) fn opened(&self, file: FileId) -> Result<(), Errno> {
        self.with(|state| {
            if state.handles >= self.open_files {
                return Err(Errno::MFILE);
            }
            state.handles += 1;
            state.open.entry(file).or_default().handles += 1;
            Ok(())
        })
    }

    /// Notes that a handle to `file`, which is `size` bytes long now, is gone.
    pub(crate) fn closed(&self, file: FileId, size: u64) {
        self.with(|state| {
            state.handles = state.handles.saturating_sub(1);
            let Some(count) = state.open.get_mut(&file) else { return };
            count.handles -= 1;
            if count.handles == 0 {
                let unlinked = count.unlinked;
                state.open.remove(&file);
                if unlinked {
                    state.bytes = state.bytes.saturating_sub(size);
                }
            }
        });
    }

    /// Notes that the last name of `file` is gone; its bytes come back now or
    /// when the last handle closes, for until then the disk holds them.
    pub(crate) fn unlinked(&self, file: FileId, size: u64) {
        self.with(|state| {
            state.entries = state.entries.saturating_sub(1);
            match state.open.get_mut(&file) {
                Some(count) => count.unlinked = true,
                None => state.bytes = state.bytes.saturating_sub(size),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(bytes: u64, entries: u64) -> Quota {
        Quota::new(&Limits { disk_bytes: bytes, disk_entries: entries, ..Limits::default() }, (0, 0))
    }

    #[test]
    fn g7_the_limit_is_exact_and_noted() {
        let quota = quota(10, 10);
        quota.charge_bytes(10).unwrap();
        assert_eq!(quota.charge_bytes(1), Err(Errno::DQUOT));
        let reached = quota.reached().unwrap();
        assert_eq!((reached.limit, reached.allowed, reached.reached), (LimitKind::DiskBytes, 10, 11));
    }

    #[test]
    fn g7_an_unlinked_file_is_charged_until_its_last_handle_closes() {
        let quota = quota(10, 10);
        quota.charge_bytes(8).unwrap();
        quota.opened((1, 1)).unwrap();
        quota.unlinked((1, 1), 8);
        assert_eq!(quota.charge_bytes(8), Err(Errno::DQUOT));
        quota.closed((1, 1), 8);
        quota.charge_bytes(8).unwrap();
    }

    #[test]
    fn g8_entries_come_back_when_they_are_removed() {
        let quota = quota(10, 1);
        quota.charge_entry().unwrap();
        assert_eq!(quota.charge_entry(), Err(Errno::DQUOT));
        quota.refund_entry();
        quota.charge_entry().unwrap();
    }
}
