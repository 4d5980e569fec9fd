//! The app's source directory: what of it takes part, and whether it stays the same.
//!
//! It is looked at and never written. Its author may be hostile: links are
//! never followed, patterns cost linear time, and what cannot become part of
//! an image is one clear error before anything runs.

mod credentials;
mod dockerignore;
mod error;
mod git_tree;
mod gitignore;
mod recheck;
mod scan;

pub use self::error::SourceError;
pub use self::scan::Selection;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use self::error::shown;
use self::recheck::{Directories, Print};
use crate::cancel::Cancel;
use crate::cnb::project_toml::ProjectDescriptor;
use crate::toml_text::{self, TomlFileError};
use crate::walk::{self, Entry, Status, Step};

/// Reads a `project.toml`.
///
/// # Errors
/// When it cannot be read, or is not valid, with line and column.
pub fn read_project(path: &Path) -> Result<ProjectDescriptor, TomlFileError> {
    toml_text::read_with(path, ProjectDescriptor::parse)
}

/// A source directory as it was when it was scanned.
#[derive(Debug, Clone)]
pub struct Source {
    /// Absolute, without links.
    pub root: PathBuf,
    /// What takes no part, relative to `root`; of a hidden directory only the directory.
    pub hidden: BTreeSet<PathBuf>,
    /// How many files, directories and links take part.
    pub entries: u64,
    /// Apparent size of the files that take part.
    pub bytes: u64,
    /// For the user; each is one sentence without a full stop.
    pub warnings: Vec<String>,
    /// Whether a process of another user could read everything that takes part.
    pub world_readable: bool,
    selection: Selection,
    prints: Vec<Print>,
    directories: Directories,
}

impl Source {
    /// Copies everything that takes part to the empty directory `to`, with
    /// modes as they are in an image: 0755 for directories and for files that
    /// somebody may execute, 0644 for all others. Shares blocks where the file
    /// system can.
    ///
    /// # Errors
    /// [`SourceError`]; what was copied until then stays.
    pub fn copy_to(&self, to: &Path, cancel: &Cancel) -> Result<(), SourceError> {
        let failed = |path: &Path, source: io::Error| SourceError::Io { path: path.to_owned(), source };
        walk::walk(&self.root, |entry| {
            cancel.check()?;
            if self.hidden.contains(entry.path) {
                return Ok(Step::Over);
            }
            let target = to.join(entry.path);
            match entry.status.kind {
                FileType::Directory => {
                    std::fs::create_dir(&target).map_err(|error| failed(&target, error))?;
                    set_mode(&target, 0o755).map_err(|error| failed(&target, error))?;
                }
                FileType::RegularFile => {
                    let copied = copy_file(entry, &target, cancel);
                    // A copy that was stopped failed for no other reason.
                    cancel.check()?;
                    copied.map_err(|error| failed(&target, error))?;
                }
                FileType::Symlink => {
                    let link = rustix::fs::readlinkat(entry.parent, entry.name, Vec::new())
                        .and_then(|link| rustix::fs::symlink(link, &target));
                    link.map_err(|error| failed(&target, error.into()))?;
                }
                // It was none of these when it was scanned.
                _ => return Err(SourceError::Changed { path: shown(entry.path) }),
            }
            Ok(Step::Into)
        })
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

fn copy_file(entry: &Entry<'_>, target: &Path, cancel: &Cancel) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let from = std::fs::File::from(rustix::fs::openat(entry.parent, entry.name, flags, Mode::empty())?);
    let status = Status::of_open(&from)?;
    if status.kind != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it was replaced meanwhile"));
    }
    let to = std::fs::File::create_new(target)?;
    walk::copy_contents(&from, &to, || cancel.check().map_err(io::Error::other))?;
    to.set_permissions(PermissionsExt::from_mode(image_mode(status.mode)))
}

/// The mode a file gets in the image.
fn image_mode(mode: u32) -> u32 {
    if mode & 0o111 == 0 { 0o644 } else { 0o755 }
}

#[cfg(test)]
mod tests;
