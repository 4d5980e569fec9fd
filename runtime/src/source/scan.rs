//! The one look at everything: what takes part, and what keeps the app from being built.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::FileType;

use super::dockerignore::{IGNORE_FILE, Ignore};
use super::error::{SourceError, shown};
use super::gitignore::GitPatterns;
use super::recheck::{Directories, Print};
use super::{Source, credentials};
use crate::cancel::Cancel;
use crate::cnb::project_toml::{FileChoice, PROJECT_FILE};
use crate::walk::{self, Entry, Status, Step};

/// Names listed in one error.
const LISTED_NAMES: usize = 10;

/// Longest path of an entry, as the kernel has it.
const MAX_PATH_BYTES: usize = 4095;

/// Left out wherever it stands: history, and credentials of remotes.
const GIT: &str = ".git";

/// What of a directory takes part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Absolute paths that take no part: what a build writes may lie in the app's directory.
    pub excluded: Vec<PathBuf>,
    /// What `project.toml` says; `None` where there is no such file, and
    /// `.dockerignore` is asked instead.
    pub files: Option<FileChoice>,
    /// Whether `.git` takes part like any other name.
    pub with_git: bool,
}

/// Patterns of one kind.
enum Patterns {
    None,
    Docker(Ignore),
    Include(GitPatterns),
    Exclude(GitPatterns),
}

/// What the patterns say of one entry.
enum Verdict {
    Takes,
    /// It does not, but something below may.
    Below,
    Left,
}

/// What holds for everything in a directory unless a pattern says otherwise.
enum Inherited {
    /// Which patterns of a `.dockerignore` match it or something above.
    Docker(Vec<bool>),
    Included(bool),
}

/// A directory that takes part only if something below does.
struct Pending {
    path: PathBuf,
    status: Status,
    has_good_name: bool,
}

/// What a scan has found so far.
#[derive(Default)]
struct Findings {
    /// Relative paths that take no part, whatever any pattern says.
    excluded: BTreeSet<PathBuf>,
    with_git: bool,
    hidden: BTreeSet<PathBuf>,
    prints: Vec<Print>,
    /// Directories that were walked, whether they take part or only something below.
    directories: Vec<Print>,
    warnings: Vec<String>,
    entries: u64,
    bytes: u64,
    bad_names: u64,
    listed_names: Vec<String>,
    credentials: u64,
    listed_credentials: Vec<String>,
    unreadable_by_others: bool,
    /// For each open directory.
    inherited: Vec<(PathBuf, Inherited)>,
    /// Open directories, one in the other.
    pending: Vec<Pending>,
}

impl Source {
    /// Looks at everything in `path` once. Reads no contents but those of the
    /// ignore file, and the beginnings of files that may be keys.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn scan(path: &Path, selection: &Selection, cancel: &Cancel) -> Result<Self, SourceError> {
        let started = SystemTime::now();
        let missing = |source| SourceError::Missing { path: path.to_owned(), source };
        // The error names the path already, so the cause does not.
        let root = path.canonicalize().map_err(missing)?;
        let status = Status::of(&root).map_err(missing)?;
        if status.kind != FileType::Directory {
            return Err(missing(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let patterns = Patterns::of(&root, selection)?;
        let inside = selection.excluded.iter().filter_map(|path| path.strip_prefix(&root).ok());
        let mut findings = Findings {
            unreadable_by_others: status.mode & 0o005 != 0o005,
            excluded: inside.filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned).collect(),
            with_git: selection.with_git || selection.files.as_ref().is_some_and(names_git),
            ..Findings::default()
        };
        findings.directories.push(Print::with_times(Path::new(""), &status));
        for name in [IGNORE_FILE, PROJECT_FILE] {
            if let Ok(status) = Status::of(&root.join(name)) {
                findings.directories.push(Print::with_times(Path::new(name), &status));
                if name == IGNORE_FILE && selection.files.is_some() {
                    findings.warnings.push(format!(
                        "`{IGNORE_FILE}` says nothing beside `{PROJECT_FILE}`; what is to be left out is listed there, under `exclude`"
                    ));
                }
            }
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
        findings.leave_until(None);
        if findings.bad_names > 0 {
            return Err(SourceError::BadNames { count: findings.bad_names, listed: findings.listed_names });
        }
        findings.warn_of_credentials();
        Ok(Self {
            root,
            hidden: findings.hidden,
            entries: findings.entries,
            bytes: findings.bytes,
            warnings: findings.warnings,
            world_readable: !findings.unreadable_by_others,
            selection: selection.clone(),
            prints: findings.prints,
            directories: Directories::new(findings.directories, started),
        })
    }
}

/// Whether a list of what to keep names `.git` itself.
fn names_git(files: &FileChoice) -> bool {
    let FileChoice::Include(patterns) = files else { return false };
    patterns.iter().any(|pattern| pattern.split('/').any(|part| part == GIT))
}

impl Patterns {
    fn of(root: &Path, selection: &Selection) -> Result<Self, SourceError> {
        Ok(match &selection.files {
            None => Self::Docker(Ignore::read(root)?),
            Some(FileChoice::All) => Self::None,
            Some(FileChoice::Include(patterns)) => Self::Include(GitPatterns::new(patterns)?),
            Some(FileChoice::Exclude(patterns)) => Self::Exclude(GitPatterns::new(patterns)?),
        })
    }

    /// What is said of `path`, and what of everything below it unless more is said.
    ///
    /// # Spec
    /// PRJ-04. Below a directory that is left out nothing can be wanted again,
    /// as in git. Below one that is kept `!` leaves out: git would not, but who
    /// writes that wants less in the image.
    fn verdict(
        &self,
        path: &Path,
        is_directory: bool,
        above: Option<&Inherited>,
    ) -> (Verdict, Option<Inherited>) {
        match self {
            Self::None => (Verdict::Takes, None),
            Self::Docker(ignore) if ignore.is_empty() => (Verdict::Takes, None),
            Self::Docker(ignore) => {
                let above = match above {
                    Some(Inherited::Docker(matched)) => Some(matched.as_slice()),
                    _ => None,
                };
                let matched = ignore.matches(path, above);
                let verdict = match ignore.excludes(&matched) {
                    false => Verdict::Takes,
                    true if is_directory && ignore.may_include_below(path) => Verdict::Below,
                    true => Verdict::Left,
                };
                (verdict, Some(Inherited::Docker(matched)))
            }
            Self::Exclude(patterns) => match patterns.verdict(path, is_directory) {
                Some(true) => (Verdict::Left, None),
                _ => (Verdict::Takes, None),
            },
            Self::Include(patterns) => {
                let above = matches!(above, Some(Inherited::Included(true)));
                let is_included = patterns.verdict(path, is_directory).unwrap_or(above);
                let verdict = match (is_included, is_directory) {
                    (true, _) => Verdict::Takes,
                    (false, true) => Verdict::Below,
                    (false, false) => Verdict::Left,
                };
                (verdict, Some(Inherited::Included(is_included)))
            }
        }
    }
}

impl Findings {
    fn see(&mut self, entry: &Entry<'_>, patterns: &Patterns) -> Result<Step, SourceError> {
        let path = entry.path;
        let is_directory = entry.status.kind == FileType::Directory;
        self.leave_until(Some(path));
        let is_git = entry.name == GIT && !self.with_git;
        if is_git || self.excluded.contains(path) {
            return Ok(self.hide(path));
        }
        let above = self.inherited.last().map(|(_, inherited)| inherited);
        let (verdict, inherited) = patterns.verdict(path, is_directory, above);
        if is_directory
            && !matches!(verdict, Verdict::Left)
            && let Some(inherited) = inherited
        {
            self.inherited.push((path.to_owned(), inherited));
        }
        match verdict {
            Verdict::Left => return Ok(self.hide(path)),
            Verdict::Below => {
                self.directories.push(Print::with_times(path, &entry.status));
                let has_good_name = is_good_name(entry);
                self.pending.push(Pending { path: path.to_owned(), status: entry.status, has_good_name });
                return Ok(Step::Into);
            }
            Verdict::Takes => {}
        }
        self.take_pending();
        if !is_good_name(entry) {
            self.note_bad_name(path);
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
                if credentials::looks_like_one(path, entry.parent, entry.status.size) {
                    self.note_credentials(path);
                }
            }
            FileType::Symlink => {}
            FileType::Socket => {
                self.warnings.push(format!("`{}` is a socket and is left out", shown(path)));
                return Ok(self.hide(path));
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

    fn hide(&mut self, path: &Path) -> Step {
        self.hidden.insert(path.to_owned());
        Step::Over
    }

    /// Closes every directory that `path` is not in; all of them without one.
    fn leave_until(&mut self, path: Option<&Path>) {
        let is_left = |directory: &Path| path.is_none_or(|path| !path.starts_with(directory));
        while self.inherited.last().is_some_and(|(directory, _)| is_left(directory)) {
            self.inherited.pop();
        }
        while self.pending.last().is_some_and(|pending| is_left(&pending.path)) {
            let Some(Pending { path, .. }) = self.pending.pop() else { break };
            // Nothing of it takes part, so it is hidden as a whole.
            let below: Vec<PathBuf> = self
                .hidden
                .range::<Path, _>((Bound::Included(path.as_path()), Bound::Unbounded))
                .take_while(|hidden| hidden.starts_with(&path))
                .cloned()
                .collect();
            for hidden in below {
                self.hidden.remove(&hidden);
            }
            self.hidden.insert(path);
        }
    }

    /// Something below the pending directories takes part, so they do.
    fn take_pending(&mut self) {
        for Pending { path, status, has_good_name } in std::mem::take(&mut self.pending) {
            self.unreadable_by_others |= status.mode & 0o005 != 0o005;
            self.entries += 1;
            self.prints.push(Print::new(&path, &status));
            if !has_good_name {
                self.note_bad_name(&path);
            }
        }
    }

    fn note_bad_name(&mut self, path: &Path) {
        self.bad_names += 1;
        if self.listed_names.len() < LISTED_NAMES {
            self.listed_names.push(format!("`{}`", shown(path)));
        }
    }

    fn note_credentials(&mut self, path: &Path) {
        self.credentials += 1;
        if self.listed_credentials.len() < LISTED_NAMES {
            self.listed_credentials.push(format!("`{}`", shown(path)));
        }
    }

    fn warn_of_credentials(&mut self) {
        let more = self.credentials - self.listed_credentials.len() as u64;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let listed = self.listed_credentials.join(", ");
        let message = match self.credentials {
            0 => return,
            1 => format!("{listed} looks like a key or a credential and would get into the image"),
            _ => format!("{listed}{more} look like keys or credentials and would get into the image"),
        };
        let help = format!(
            "leave out what has to stay private, by `exclude` in `{PROJECT_FILE}` or by `{IGNORE_FILE}`"
        );
        self.warnings.push(format!("{message}; {help}"));
    }
}

/// I2: UTF-8, nothing a terminal would act on, and not too long.
fn is_good_name(entry: &Entry<'_>) -> bool {
    entry.path.as_os_str().len() <= MAX_PATH_BYTES
        && entry.name.to_str().is_some_and(|name| !name.chars().any(char::is_control))
}
