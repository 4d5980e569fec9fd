//! The one look at everything: what takes part, and what keeps the app from being built.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::FileType;

use super::Source;
use super::dockerignore::{IGNORE_FILE, Ignore};
use super::error::{SourceError, shown};
use super::recheck::{Directories, Print};
use crate::cancel::Cancel;
use crate::walk::{self, Entry, Status, Step};

/// Names listed in one error.
const LISTED_NAMES: usize = 10;

/// Longest path of an entry, as the kernel has it.
const MAX_PATH_BYTES: usize = 4095;

/// Left out wherever it stands: history, and credentials of remotes.
const GIT: &str = ".git";

/// What a scan has found so far.
#[derive(Default)]
struct Findings {
    /// Relative paths that take no part, whatever the ignore file says.
    excluded: BTreeSet<PathBuf>,
    hidden: BTreeSet<PathBuf>,
    prints: Vec<Print>,
    /// Directories that were walked, whether they take part or only something below.
    directories: Vec<Print>,
    warnings: Vec<String>,
    entries: u64,
    bytes: u64,
    bad_names: u64,
    listed_names: Vec<String>,
    unreadable_by_others: bool,
    /// For each open directory the patterns that match it or something above.
    matched: Vec<(PathBuf, Vec<bool>)>,
}

impl Source {
    /// Looks at everything in `path` once. Reads no contents but the ignore file's.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn scan(path: &Path, cancel: &Cancel) -> Result<Self, SourceError> {
        Self::scan_without(path, &[], cancel)
    }

    /// [`Source::scan`], but what is at the absolute paths `excluded` takes no
    /// part: what a build writes may lie in the app's directory.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn scan_without(path: &Path, excluded: &[PathBuf], cancel: &Cancel) -> Result<Self, SourceError> {
        let started = SystemTime::now();
        let missing = |source| SourceError::Missing { path: path.to_owned(), source };
        // The error names the path already, so the cause does not.
        let root = path.canonicalize().map_err(missing)?;
        let status = Status::of(&root).map_err(missing)?;
        if status.kind != FileType::Directory {
            return Err(missing(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let patterns = Ignore::read(&root)?;
        let inside = excluded.iter().filter_map(|path| path.strip_prefix(&root).ok());
        let mut findings = Findings {
            unreadable_by_others: status.mode & 0o005 != 0o005,
            excluded: inside.filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned).collect(),
            ..Findings::default()
        };
        findings.directories.push(Print::with_times(Path::new(""), &status));
        if let Ok(status) = Status::of(&root.join(IGNORE_FILE)) {
            findings.directories.push(Print::with_times(Path::new(IGNORE_FILE), &status));
        }
        let mut see = |entry: &Entry<'_>| {
            cancel.check()?;
            findings.see(entry, &patterns)
        };
        walk::walk(&root, &mut see).map_err(|error| match error {
            // Paths of a walk are relative to its root.
            SourceError::Io { path, source } => SourceError::Io { path: root.join(path), source },
            error => error,
        })?;
        if findings.bad_names > 0 {
            return Err(SourceError::BadNames { count: findings.bad_names, listed: findings.listed_names });
        }
        Ok(Self {
            root,
            hidden: findings.hidden,
            entries: findings.entries,
            bytes: findings.bytes,
            warnings: findings.warnings,
            world_readable: !findings.unreadable_by_others,
            excluded: excluded.to_vec(),
            prints: findings.prints,
            directories: Directories::new(findings.directories, started),
        })
    }
}

impl Findings {
    fn see(&mut self, entry: &Entry<'_>, patterns: &Ignore) -> Result<Step, SourceError> {
        let path = entry.path;
        let is_directory = entry.status.kind == FileType::Directory;
        if self.excluded.contains(path) {
            self.hidden.insert(path.to_owned());
            return Ok(Step::Over);
        }
        while self.matched.last().is_some_and(|(directory, _)| !path.starts_with(directory)) {
            self.matched.pop();
        }
        let above = self.matched.last().map(|(_, matched)| matched.as_slice());
        let matched = patterns.matches(path, above);
        let excluded = entry.name == GIT || patterns.excludes(&matched);
        // Below an excluded directory something may still be wanted; then its parts are hidden one by one.
        if excluded && !(is_directory && entry.name != GIT && patterns.may_include_below(path)) {
            self.hidden.insert(path.to_owned());
            return Ok(Step::Over);
        }
        if is_directory && !patterns.is_empty() {
            self.matched.push((path.to_owned(), matched));
        }

        if !is_good_name(entry) {
            self.bad_names += 1;
            if self.listed_names.len() < LISTED_NAMES {
                self.listed_names.push(format!("`{}`", shown(path)));
            }
            // What is below has the same bad part; and its path could not be told either.
            return Ok(Step::Over);
        }
        let special = |what| Err(SourceError::SpecialFile { path: shown(path), what });
        let others = entry.status.mode & 0o007;
        match entry.status.kind {
            FileType::Directory => self.unreadable_by_others |= others & 0o005 != 0o005,
            FileType::RegularFile => {
                self.unreadable_by_others |= others & 0o004 == 0;
                self.bytes += entry.status.size;
            }
            FileType::Symlink => {}
            FileType::Socket => {
                self.warnings.push(format!("`{}` is a socket and is left out", shown(path)));
                self.hidden.insert(path.to_owned());
                return Ok(Step::Over);
            }
            FileType::Fifo => return special("FIFO"),
            FileType::CharacterDevice | FileType::BlockDevice => return special("device"),
            FileType::Unknown => return special("file of an unknown kind"),
        }
        if is_directory {
            self.directories.push(Print::with_times(path, &entry.status));
        }
        self.entries += 1;
        self.prints.push(Print::new(path, &entry.status));
        Ok(Step::Into)
    }
}

/// I2: UTF-8, nothing a terminal would act on, and not too long.
fn is_good_name(entry: &Entry<'_>) -> bool {
    entry.path.as_os_str().len() <= MAX_PATH_BYTES
        && entry.name.to_str().is_some_and(|name| !name.chars().any(char::is_control))
}
