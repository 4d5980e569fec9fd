//! Whether the app is still what was scanned.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FileType;

use super::Source;
use super::error::{SourceError, shown};
use crate::cancel::{Cancel, Cancelled};
use crate::walk::Status;

/// What tells that a directory still has the same names in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Directories {
    /// With their times, the root first, and the ignore file, whether it takes part or not.
    pub(super) prints: Vec<Print>,
    /// Whether they were left alone for so long before the scan that a name that
    /// came after it has changed their times.
    pub(super) are_settled: bool,
}

/// A directory that was changed less than this before a scan may change once
/// more without its times telling: some file systems count in steps of two seconds.
const SETTLING_SECONDS: i64 = 3;

/// What `stat` said of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Print {
    path: PathBuf,
    inode: u64,
    /// Size and times. Not of directories: a hidden file that comes or goes
    /// changes its directory too, and what else is in it has prints of its own.
    contents: Option<Contents>,
}

/// Size, time of the last write and of the last change.
type Contents = (u64, (i64, u32), (i64, u32));

impl Print {
    pub(super) fn new(path: &Path, status: &Status) -> Self {
        let contents =
            (status.kind != FileType::Directory).then_some((status.size, status.modified, status.changed));
        Self { path: path.to_owned(), inode: status.inode, contents }
    }

    /// With the times of a directory too: they change when a name in it comes or goes.
    pub(super) fn with_times(path: &Path, status: &Status) -> Self {
        let contents = Some((status.size, status.modified, status.changed));
        Self { path: path.to_owned(), inode: status.inode, contents }
    }
}

impl Directories {
    pub(super) fn new(prints: Vec<Print>, scanned: SystemTime) -> Self {
        let scanned = scanned.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        let changed = |print: &Print| print.contents.map(|(_, modified, changed)| modified.0.max(changed.0));
        let newest = prints.iter().filter_map(changed).max().unwrap_or(i64::MAX);
        Self { are_settled: newest < scanned.saturating_sub(SETTLING_SECONDS), prints }
    }
}

impl Source {
    /// Makes sure that nothing that takes part has changed since the scan (I3).
    ///
    /// Looks at each entry once more, and lists a directory again only when its
    /// times leave it open whether a name came or went.
    ///
    /// # Errors
    /// [`SourceError::Changed`] with the first path, and everything a scan can find.
    pub fn recheck(&self, cancel: &Cancel) -> Result<(), SourceError> {
        if self.is_untouched(cancel)? {
            return Ok(());
        }
        let now = Self::scan(&self.root, &self.selection, cancel)?;
        let changed = |print: &Print| Err(SourceError::Changed { path: shown(&print.path) });
        for (before, after) in self.prints.iter().zip(&now.prints) {
            if before != after {
                // One that came or went shifts all others; the smaller path is the one.
                return changed(if after.path < before.path { after } else { before });
            }
        }
        let common = self.prints.len().min(now.prints.len());
        match (self.prints.get(common), now.prints.get(common)) {
            (Some(print), _) | (_, Some(print)) => changed(print),
            (None, None) => Ok(()),
        }
    }

    /// Whether every entry is as it was, by its times alone; `false` may mean nothing.
    pub(super) fn is_untouched(&self, cancel: &Cancel) -> Result<bool, Cancelled> {
        let directories = &self.directories;
        if !directories.are_settled {
            return Ok(false);
        }
        let files = self.prints.iter().filter(|print| print.contents.is_some());
        for print in directories.prints.iter().chain(files) {
            cancel.check()?;
            let now = Status::of(&self.root.join(&print.path));
            if !now.is_ok_and(|status| Print::with_times(&print.path, &status) == *print) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
