//! The app's source directory: what of it takes part, and whether it stays the same.
//!
//! It is looked at and never written. Its author may be hostile: links are
//! never followed, patterns cost linear time, and what cannot become part of
//! an image is one clear error before anything runs.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use regex::bytes::{RegexSet, RegexSetBuilder};
use rustix::fs::{FileType, Mode, OFlags};

use crate::cancel::{Cancel, Cancelled};
use crate::fault::{Diagnose, Fault};
use crate::walk::{self, Entry, Status, Step, WalkError};

/// Names listed in one error.
const LISTED_NAMES: usize = 10;

/// Longest path of an entry, as the kernel has it.
const MAX_PATH_BYTES: usize = 4095;

/// Largest `.dockerignore`, and most patterns in it (I4).
const MAX_IGNORE_BYTES: u64 = 256 * 1024;
const MAX_IGNORE_PATTERNS: usize = 2_000;

/// Left out wherever it stands: history, and credentials of remotes.
const GIT: &str = ".git";

const IGNORE_FILE: &str = ".dockerignore";

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
    /// Absolute paths that take no part.
    excluded: Vec<PathBuf>,
    prints: Vec<Print>,
    directories: Directories,
}

/// What tells that a directory still has the same names in it.
#[derive(Debug, Clone, Default)]
struct Directories {
    /// With their times, the root first, and the ignore file, whether it takes part or not.
    prints: Vec<Print>,
    /// Whether they were left alone for so long before the scan that a name that
    /// came after it has changed their times.
    are_settled: bool,
}

/// A directory that was changed less than this before a scan may change once
/// more without its times telling: some file systems count in steps of two seconds.
const SETTLING_SECONDS: i64 = 3;

/// What `stat` said of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Print {
    path: PathBuf,
    inode: u64,
    /// Size and times. Not of directories: a hidden file that comes or goes
    /// changes its directory too, and what else is in it has prints of its own.
    contents: Option<Contents>,
}

/// Size, time of the last write and of the last change.
type Contents = (u64, (i64, u32), (i64, u32));

impl Print {
    fn new(path: &Path, status: &Status) -> Self {
        let contents =
            (status.kind != FileType::Directory).then_some((status.size, status.modified, status.changed));
        Self { path: path.to_owned(), inode: status.inode, contents }
    }

    /// With the times of a directory too: they change when a name in it comes or goes.
    fn with_times(path: &Path, status: &Status) -> Self {
        let contents = Some((status.size, status.modified, status.changed));
        Self { path: path.to_owned(), inode: status.inode, contents }
    }
}

impl Directories {
    fn new(prints: Vec<Print>, scanned: SystemTime) -> Self {
        let scanned = scanned.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        let changed = |print: &Print| print.contents.map(|(_, modified, changed)| modified.0.max(changed.0));
        let newest = prints.iter().filter_map(changed).max().unwrap_or(i64::MAX);
        Self { are_settled: newest < scanned.saturating_sub(SETTLING_SECONDS), prints }
    }
}

/// Why a source directory cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there.
    #[error("there is no directory `{}`", path.display())]
    Missing { path: PathBuf, source: io::Error },
    /// Something in it cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A FIFO or a device.
    #[error("`{path}` is a {what}, which cannot be part of an image")]
    SpecialFile { path: String, what: &'static str },
    /// Names that a component or a terminal could not deal with.
    #[error("{count} {} not be used: {}", if *count == 1 { "name can" } else { "names can" }, listed.join(", "))]
    BadNames {
        count: u64,
        /// The first ten, escaped, in backticks.
        listed: Vec<String>,
    },
    /// More levels of directories than are walked.
    #[error("`{path}` is deeper than {} directories", walk::MAX_DEPTH)]
    TooDeep { path: String },
    /// The ignore file cannot be used.
    #[error("`{IGNORE_FILE}` is not valid{}: {message}", line.map(|line| format!(" in line {line}")).unwrap_or_default())]
    Ignore { line: Option<usize>, message: String },
    /// Something changed while the build ran.
    #[error("`{path}` changed while it was built")]
    Changed { path: String },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Diagnose for SourceError {
    fn id(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "source.missing",
            Self::Io { .. } => "source.unreadable",
            Self::SpecialFile { .. } => "source.special_file",
            Self::BadNames { .. } => "source.bad_names",
            Self::TooDeep { .. } => "source.too_deep",
            Self::Ignore { .. } => "source.bad_ignore_file",
            Self::Changed { .. } => "source.changed",
            Self::Cancelled(_) => "build.cancelled",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Missing { .. } | Self::Cancelled(_) => Fault::Caller,
            Self::Io { .. } => Fault::Environment,
            _ => Fault::App,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some("name the app's directory with `--path`".into()),
            Self::SpecialFile { path, .. } => {
                Some(format!("remove it, or leave it out with a line `{path}` in `{IGNORE_FILE}`"))
            }
            Self::BadNames { .. } => Some(format!(
                "rename them; they have to be UTF-8 without control characters, or left out by `{IGNORE_FILE}`"
            )),
            Self::TooDeep { .. } => Some(format!("leave it out with `{IGNORE_FILE}`")),
            Self::Changed { .. } => Some("build again when nothing writes to the directory".into()),
            Self::Io { .. } | Self::Ignore { .. } | Self::Cancelled(_) => None,
        }
    }
}

impl From<WalkError> for SourceError {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Io { path, source } => Self::Io { path, source },
            WalkError::TooDeep { path } => Self::TooDeep { path: shown(&path) },
        }
    }
}

/// A path that is harmless on a terminal.
fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().utf8_chunks().fold(String::new(), |mut text, chunk| {
        text.extend(chunk.valid().chars().flat_map(char::escape_debug));
        text.extend(
            chunk.invalid().iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).map(char::from),
        );
        text
    })
}

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
        let now = Self::scan_without(&self.root, &self.excluded, cancel)?;
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
    fn is_untouched(&self, cancel: &Cancel) -> Result<bool, Cancelled> {
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

/// The patterns of the ignore file.
///
/// # Shape
/// One pattern a line, relative to the root: `*`, `?`, `[a-z]` within one name,
/// `**` for any number of directories, `!` in front to take part after all,
/// `#` in front for a comment. The last pattern that matches decides. What
/// matches a directory matches everything below.
#[derive(Debug)]
struct Ignore {
    /// Matches in linear time, all patterns at once.
    set: RegexSet,
    /// Which of them begin with `!`.
    include: Vec<bool>,
    /// The `!` patterns' fixed beginnings: where something may be included.
    include_prefixes: Vec<PathBuf>,
}

impl Ignore {
    fn read(root: &Path) -> Result<Self, SourceError> {
        let path = root.join(IGNORE_FILE);
        let failed = |source| SourceError::Io { path: path.clone(), source };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(rustix::io::Errno::NOENT) => return Self::parse(""),
            Err(rustix::io::Errno::LOOP) => {
                return Err(SourceError::Ignore { line: None, message: "it is a symbolic link".into() });
            }
            Err(error) => return Err(failed(error.into())),
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(SourceError::Ignore { line: None, message: "it is not a regular file".into() });
        }
        let mut bytes = Vec::new();
        file.take(MAX_IGNORE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_IGNORE_BYTES {
            let message = format!("it is larger than {}", crate::limits::show_bytes(MAX_IGNORE_BYTES));
            return Err(SourceError::Ignore { line: None, message });
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| SourceError::Ignore { line: None, message: "it is not UTF-8".into() })?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, SourceError> {
        let bad = |line: usize, message: &str| SourceError::Ignore {
            line: Some(line),
            message: message.to_owned(),
        };
        let mut expressions = Vec::new();
        let mut include = Vec::new();
        let mut include_prefixes = Vec::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line_number = index + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (is_include, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            let Some(pattern) = clean(pattern) else {
                return Err(bad(line_number, "the pattern is empty or leads out of the directory"));
            };
            if expressions.len() >= MAX_IGNORE_PATTERNS {
                return Err(bad(line_number, "there are more than 2000 patterns"));
            }
            expressions.push(expression(&pattern).map_err(|message| bad(line_number, message))?);
            include.push(is_include);
            if is_include {
                let fixed = pattern.split('/').take_while(|part| !part.contains(['*', '?', '[', '\\']));
                include_prefixes.push(fixed.collect());
            }
        }
        let set =
            RegexSetBuilder::new(&expressions).unicode(false).dot_matches_new_line(true).build().map_err(
                |_| SourceError::Ignore { line: None, message: "its patterns are too large".into() },
            )?;
        Ok(Self { set, include, include_prefixes })
    }

    fn is_empty(&self) -> bool {
        self.include.is_empty()
    }

    /// For each pattern, whether it matches `path` or something above it.
    fn matches(&self, path: &Path, above: Option<&[bool]>) -> Vec<bool> {
        let mut matched = above.map_or_else(|| vec![false; self.include.len()], <[bool]>::to_vec);
        for index in self.set.matches(path.as_os_str().as_bytes()) {
            matched[index] = true;
        }
        matched
    }

    fn excludes(&self, matched: &[bool]) -> bool {
        let last = matched.iter().rposition(|matched| *matched);
        last.is_some_and(|index| !self.include[index])
    }

    /// Whether a `!` pattern could match something in the directory `path`.
    fn may_include_below(&self, path: &Path) -> bool {
        self.include_prefixes.iter().any(|prefix| prefix.starts_with(path) || path.starts_with(prefix))
    }
}

/// The pattern without `.` and empty parts, `..` resolved; `None` if nothing is left.
fn clean(pattern: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// A pattern as a regular expression over the bytes of a path.
fn expression(pattern: &str) -> Result<String, &'static str> {
    let mut text = String::from("^");
    let mut rest = pattern;
    while let Some(character) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**") {
            // More stars say no more.
            let after = after.trim_start_matches('*');
            if let Some(after) = after.strip_prefix('/') {
                text.push_str("(?:.*/)?");
                rest = after;
            } else {
                text.push_str(".*");
                rest = after;
            }
            continue;
        }
        rest = &rest[character.len_utf8()..];
        match character {
            '*' => text.push_str("[^/]*"),
            // One character, which may be several bytes.
            '?' => text.push_str("(?:[\\x00-\\x2e\\x30-\\x7f]|[\\xc0-\\xff][\\x80-\\xbf]*)"),
            '[' => rest = class(rest, &mut text)?,
            '\\' => {
                let escaped = rest.chars().next().ok_or("it ends in a backslash")?;
                rest = &rest[escaped.len_utf8()..];
                text.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
            }
            character => text.push_str(&regex::escape(character.encode_utf8(&mut [0; 4]))),
        }
    }
    text.push('$');
    Ok(text)
}

/// The rest of a `[…]` class; returns what comes after it.
fn class<'a>(mut rest: &'a str, text: &mut String) -> Result<&'a str, &'static str> {
    const OPEN: &str = "a `[` is not closed, or its class is empty";
    let negated = rest.starts_with('^') || rest.starts_with('!');
    if negated {
        rest = &rest[1..];
    }
    let next = |rest: &mut &'a str| -> Result<u8, &'static str> {
        let mut character = rest.chars().next().ok_or(OPEN)?;
        *rest = &rest[character.len_utf8()..];
        if character == '\\' {
            character = rest.chars().next().ok_or(OPEN)?;
            *rest = &rest[character.len_utf8()..];
        }
        u8::try_from(character).ok().filter(u8::is_ascii).ok_or("a class may have ASCII characters only")
    };
    let mut members = String::new();
    loop {
        if let Some(after) = rest.strip_prefix(']') {
            if members.is_empty() {
                return Err(OPEN);
            }
            // Nothing in brackets crosses a `/`.
            text.push_str(if negated { "[^/" } else { "[[" });
            text.push_str(&members);
            text.push_str(if negated { "]" } else { "]&&[^/]]" });
            return Ok(after);
        }
        let low = next(&mut rest)?;
        let high = match rest.strip_prefix('-') {
            Some(after) if !after.starts_with(']') => {
                rest = after;
                next(&mut rest)?
            }
            _ => low,
        };
        if high < low {
            return Err("a range in a class goes backwards");
        }
        for (byte, after) in [(low, "-"), (high, "")] {
            members.extend(["\\x", &walk::hex(&[byte]), after]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixListener;

    fn app(files: &[&str]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for name in files {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        temp
    }

    fn hidden(source: &Source) -> Vec<&str> {
        source.hidden.iter().map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn what_a_build_writes_into_the_app_takes_no_part() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("out")).unwrap();
        std::fs::write(root.join("out/index.json"), "{}").unwrap();
        std::fs::write(root.join(".dockerignore"), "!out\n").unwrap();
        let source =
            Source::scan_without(&root, &[root.join("out"), "/elsewhere".into()], &Cancel::default())
                .unwrap();
        assert!(source.hidden.contains(Path::new("out")));
        std::fs::write(root.join("out/more"), "x").unwrap();
        source.recheck(&Cancel::default()).unwrap();
    }

    #[test]
    fn git_is_hidden_wherever_it_stands() {
        let temp = app(&["index.html", ".git/config", "sub/.git/config", "sub/.gitignore"]);
        let source = Source::scan(temp.path(), &Cancel::default()).unwrap();
        assert_eq!(hidden(&source), [".git", "sub/.git"]);
        assert_eq!((source.entries, source.bytes), (3, 10 + 14));
        let included = app(&[".git/config"]);
        std::fs::write(included.path().join(IGNORE_FILE), "!.git\n!.git/config\n").unwrap();
        assert_eq!(hidden(&Source::scan(included.path(), &Cancel::default()).unwrap()), [".git"]);
    }

    #[test]
    fn patterns_of_the_ignore_file() {
        for (patterns, path, excluded) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "b/a", false),
            ("/a/", "a", true),
            ("./a//b", "a/b", true),
            ("a/../b", "b", true),
            ("*", "a", true),
            ("*.md", "a.md", true),
            ("*.md", "b/a.md", false),
            ("*/a", "b/a", true),
            ("*/a", "c/b/a", false),
            ("**/a", "a", true),
            ("**/a", "c/b/a", true),
            ("**/*.md", "c/b/a.md", true),
            ("a/**", "a/b/c", true),
            ("a/**/d", "a/d", true),
            ("a/**/d", "a/b/c/d", true),
            ("a/**/d", "a/bd", false),
            ("**", "a/b", true),
            ("a**c", "a/b/c", true),
            ("a?c", "abc", true),
            ("a?c", "aäc", true),
            ("a?c", "a/c", false),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aee", false),
            ("a[^b]c", "abc", false),
            ("a[^b]c", "a/c", false),
            ("a[^b]c", "adc", true),
            ("a[.-0]c", "a/c", false),
            ("a[.-0]c", "a.c", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("a.c", "abc", false),
            ("a+(b)", "a+(b)", true),
            ("{a,b}", "a", false),
            ("# a\n\na ", "a", true),
            ("a\n!a", "a", false),
            ("!a\na", "a", true),
            ("*\n!a", "a", false),
            ("*\n!a/b", "a/b", false),
            ("*\n!a/b", "a/c", true),
            ("a\n!a/b\na/b/c", "a/b/c", true),
            ("\u{feff}a", "a", true),
            ("A", "a", false),
        ] {
            let ignore = Ignore::parse(patterns).unwrap();
            let mut matched = None;
            let mut partial = PathBuf::new();
            for part in Path::new(path) {
                partial.push(part);
                matched = Some(ignore.matches(&partial, matched.as_deref()));
            }
            assert_eq!(ignore.excludes(&matched.unwrap()), excluded, "{patterns:?} on {path:?}");
        }
    }

    #[test]
    fn a_file_wanted_below_an_excluded_directory_is_there() {
        let temp = app(&["a/keep/x", "a/drop", "b/y", "c"]);
        std::fs::write(temp.path().join(IGNORE_FILE), "*\n!a/keep\n!c\n").unwrap();
        let source = Source::scan(temp.path(), &Cancel::default()).unwrap();
        assert_eq!(hidden(&source), [IGNORE_FILE, "a/drop", "b"]);
    }

    #[test]
    fn bad_ignore_files_are_errors_with_their_line() {
        for (text, line) in [("a\n[", 2), ("a\n\n[]", 3), ("..", 1), ("!", 1), ("a\\", 1), ("[b-a]", 1)] {
            let error = Ignore::parse(text).unwrap_err();
            assert!(error.to_string().contains(&format!("in line {line}:")), "{text:?}: {error}");
        }
        let temp = app(&["x"]);
        symlink("/etc/passwd", temp.path().join(IGNORE_FILE)).unwrap();
        assert_eq!(Source::scan(temp.path(), &Cancel::default()).unwrap_err().id(), "source.bad_ignore_file");
    }

    /// I4: a pattern that takes backtracking matchers forever.
    #[test]
    fn i4_hostile_patterns_cost_linear_time() {
        let ignore = Ignore::parse(&format!("{}b\n{}b\n", "*a".repeat(40), "**a".repeat(40))).unwrap();
        let path = PathBuf::from("a".repeat(250));
        let start = std::time::Instant::now();
        assert!(!ignore.excludes(&ignore.matches(&path, None)));
        assert!(start.elapsed() < std::time::Duration::from_millis(100), "{:?}", start.elapsed());
        let many = "x*y?z[a-z]\n".repeat(MAX_IGNORE_PATTERNS + 1);
        assert!(Ignore::parse(&many).is_err());
    }

    /// I1: the loop ends, and nothing outside is looked at.
    #[test]
    fn i1_links_are_kept_and_never_followed() {
        let temp = app(&["file"]);
        for (name, target) in [
            ("absolute", "/etc/passwd"),
            ("directory", "/etc"),
            ("up", "../../../etc"),
            ("self", "self"),
            ("here", "."),
            ("dangling", "nowhere"),
        ] {
            symlink(target, temp.path().join(name)).unwrap();
        }
        let source = Source::scan(temp.path(), &Cancel::default()).unwrap();
        assert_eq!((source.entries, source.bytes), (7, 4));
        let copy = tempfile::tempdir().unwrap();
        source.copy_to(copy.path(), &Cancel::default()).unwrap();
        assert_eq!(std::fs::read_link(copy.path().join("up")).unwrap(), Path::new("../../../etc"));
        assert_eq!(std::fs::read_link(copy.path().join("here")).unwrap(), Path::new("."));
    }

    #[test]
    fn i2_bad_names_are_one_error_that_lists_ten() {
        let temp = app(&["good"]);
        for n in 0..11 {
            std::fs::write(temp.path().join(format!("new\nline{n:02}")), "").unwrap();
        }
        std::fs::write(temp.path().join(OsStr::from_bytes(b"latin\xe4")), "").unwrap();
        let error = Source::scan(temp.path(), &Cancel::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("12 names can not be used: `latin\\xe4`, `new\\nline00`"), "{text}");
        assert_eq!(text.matches('`').count(), 20);
        assert!(!text.contains('\n'));
        // Left out, they do no harm.
        std::fs::write(temp.path().join(IGNORE_FILE), "new*\nlatin*\n").unwrap();
        Source::scan(temp.path(), &Cancel::default()).unwrap();
    }

    #[test]
    fn special_files_are_refused_and_sockets_left_out() {
        let temp = app(&["file"]);
        let _listener = UnixListener::bind(temp.path().join("socket")).unwrap();
        let source = Source::scan(temp.path(), &Cancel::default()).unwrap();
        assert_eq!(hidden(&source), ["socket"]);
        assert_eq!(source.warnings, ["`socket` is a socket and is left out"]);
        let fifo = temp.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let error = Source::scan(temp.path(), &Cancel::default()).unwrap_err();
        assert_eq!(error.id(), "source.special_file");
        assert_eq!(error.to_string(), "`pipe` is a FIFO, which cannot be part of an image");
    }

    #[test]
    fn i3_every_change_is_noticed_and_named() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("b/file", |root| std::fs::write(root.join("b/file"), "other.").unwrap()),
            ("b/file", |root| {
                // Same contents, another file.
                std::fs::copy(root.join("b/file"), root.join(".git")).unwrap();
                std::fs::rename(root.join(".git"), root.join("b/file")).unwrap();
            }),
            ("c", |root| std::fs::remove_file(root.join("c")).unwrap()),
            ("a", |root| std::fs::write(root.join("a"), "").unwrap()),
            ("z", |root| std::fs::write(root.join("z"), "").unwrap()),
            ("c", |root| set_mode(&root.join("c"), 0o755).unwrap()),
        ];
        for (index, (name, change)) in changes.iter().enumerate() {
            let temp = app(&["b/file", "c"]);
            let source = Source::scan(temp.path(), &Cancel::default()).unwrap();
            source.recheck(&Cancel::default()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            change(temp.path());
            let error = source.recheck(&Cancel::default()).unwrap_err();
            assert_eq!(error.id(), "source.changed");
            assert_eq!(error.to_string(), format!("`{name}` changed while it was built"), "change {index}");
        }
    }

    #[test]
    fn i3_a_hidden_file_may_come_and_go() {
        let temp = app(&["b/file", ".git/index"]);
        let source = Source::scan(temp.path(), &Cancel::default()).unwrap();
        std::fs::write(temp.path().join(".git/new"), "").unwrap();
        std::fs::write(temp.path().join("b/.git"), "").unwrap();
        source.recheck(&Cancel::default()).unwrap();
    }

    #[test]
    fn readable_by_others_or_not() {
        let temp = app(&["a/file"]);
        set_mode(temp.path(), 0o755).unwrap();
        assert!(Source::scan(temp.path(), &Cancel::default()).unwrap().world_readable);
        for (path, mode) in [("a/file", 0o600), ("a", 0o750), ("", 0o700), ("a", 0o754)] {
            let before = std::fs::metadata(temp.path().join(path)).unwrap().mode() & 0o7777;
            set_mode(&temp.path().join(path), mode).unwrap();
            assert!(
                !Source::scan(temp.path(), &Cancel::default()).unwrap().world_readable,
                "{path} {mode:o}"
            );
            set_mode(&temp.path().join(path), before).unwrap();
        }
    }

    #[test]
    fn a_copy_has_the_modes_of_an_image_and_no_hidden_file() {
        let temp = app(&["bin/run", "secret", ".git/config"]);
        set_mode(&temp.path().join("bin/run"), 0o710).unwrap();
        set_mode(&temp.path().join("bin"), 0o700).unwrap();
        set_mode(&temp.path().join("secret"), 0o600).unwrap();
        let source = Source::scan(temp.path(), &Cancel::default()).unwrap();
        let copy = tempfile::tempdir().unwrap();
        source.copy_to(copy.path(), &Cancel::default()).unwrap();
        for (path, mode) in [("bin", 0o755), ("bin/run", 0o755), ("secret", 0o644)] {
            let found = std::fs::metadata(copy.path().join(path)).unwrap().mode() & 0o7777;
            assert_eq!(found, mode, "{path}");
        }
        assert_eq!(std::fs::read(copy.path().join("bin/run")).unwrap(), b"bin/run");
        assert!(!copy.path().join(".git").exists());
    }

    #[test]
    fn a_missing_directory_and_a_file_have_a_hint() {
        let temp = app(&["file"]);
        for name in ["missing", "file"] {
            let error = Source::scan(&temp.path().join(name), &Cancel::default()).unwrap_err();
            assert_eq!(error.id(), "source.missing");
            assert!(error.hint().unwrap().contains("--path"));
        }
    }

    /// Long enough ago for times to tell, as in a directory that nobody has just made.
    fn settle(source: &mut Source) {
        source.directories.are_settled = true;
    }

    /// I3: the quick look notices what the long one does, and where it cannot tell it does not decide.
    #[test]
    fn i3_a_quick_look_says_untouched_only_of_what_is() {
        type Change = fn(&Path);
        let cases: [(bool, Change); 9] = [
            (true, |_| ()),
            (true, |root| std::fs::write(root.join(".git/new"), "").unwrap()),
            (false, |root| std::fs::write(root.join("b/new"), "").unwrap()),
            (false, |root| std::fs::write(root.join("new"), "").unwrap()),
            (false, |root| std::fs::write(root.join("b/file"), "other!").unwrap()),
            (false, |root| std::fs::remove_file(root.join("b/file")).unwrap()),
            (false, |root| set_mode(&root.join("b/file"), 0o755).unwrap()),
            (false, |root| std::fs::write(root.join(IGNORE_FILE), "c\n").unwrap()),
            (false, |root| {
                std::fs::rename(root.join("b"), root.join(".git/b")).unwrap();
                symlink(".git/b", root.join("b")).unwrap();
            }),
        ];
        for (index, (expected, change)) in cases.into_iter().enumerate() {
            let temp = app(&["b/file", "c", ".git/index"]);
            std::fs::write(temp.path().join(IGNORE_FILE), ".git\n").unwrap();
            let mut source = Source::scan(temp.path(), &Cancel::default()).unwrap();
            assert!(!source.is_untouched(&Cancel::default()).unwrap(), "directories were just made");
            settle(&mut source);
            std::thread::sleep(std::time::Duration::from_millis(20));
            change(temp.path());
            assert_eq!(source.is_untouched(&Cancel::default()).unwrap(), expected, "change {index}");
        }
    }

    #[test]
    fn directories_settle_when_nobody_touches_them() {
        let temp = app(&["b/file"]);
        let now = SystemTime::now();
        let source = Source::scan(temp.path(), &Cancel::default()).unwrap();
        let at = |seconds| {
            let later = now + std::time::Duration::from_secs(seconds);
            Directories::new(source.directories.prints.clone(), later).are_settled
        };
        assert_eq!((at(0), at(2), at(60)), (false, false, true));
    }

    #[test]
    fn a_cancelled_scan_and_copy_end() {
        let temp = app(&["file"]);
        let source = Source::scan(temp.path(), &Cancel::default()).unwrap();
        let cancel = Cancel::default();
        cancel.cancel();
        assert_eq!(Source::scan(temp.path(), &cancel).unwrap_err().id(), "build.cancelled");
        assert_eq!(source.recheck(&cancel).unwrap_err().id(), "build.cancelled");
        let copy = tempfile::tempdir().unwrap();
        assert_eq!(source.copy_to(copy.path(), &cancel).unwrap_err().id(), "build.cancelled");
        assert_eq!(std::fs::read_dir(copy.path()).unwrap().count(), 0);
    }
}
