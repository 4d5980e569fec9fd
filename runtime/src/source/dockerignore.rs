//! `.dockerignore`: patterns of what takes no part.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use regex::bytes::{RegexSet, RegexSetBuilder};
use rustix::fs::{Mode, OFlags};

use super::error::SourceError;
use crate::walk;

/// Largest `.dockerignore`, and most patterns in it (I4).
const MAX_IGNORE_BYTES: u64 = 256 * 1024;
pub(super) const MAX_IGNORE_PATTERNS: usize = 2_000;

pub(super) const IGNORE_FILE: &str = ".dockerignore";

/// The patterns of the ignore file.
///
/// # Shape
/// One pattern a line, relative to the root: `*`, `?`, `[a-z]` within one name,
/// `**` for any number of directories, `!` in front to take part after all,
/// `#` in front for a comment. The last pattern that matches decides. What
/// matches a directory matches everything below.
#[derive(Debug)]
pub(super) struct Ignore {
    /// Matches in linear time, all patterns at once.
    set: RegexSet,
    /// Which of them begin with `!`.
    include: Vec<bool>,
    /// The `!` patterns' fixed beginnings: where something may be included.
    include_prefixes: Vec<PathBuf>,
}

impl Ignore {
    pub(super) fn read(root: &Path) -> Result<Self, SourceError> {
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

    pub(super) fn parse(text: &str) -> Result<Self, SourceError> {
        let bad = |line: usize, message: &str| SourceError::Ignore {
            line: Some(line),
            message: message.to_owned(),
        };
        let mut expressions = Vec::new();
        let mut include = Vec::new();
        let mut include_prefixes = Vec::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line_number = index + 1;
            // Only in the first column a `#` begins a comment; `.` says nothing, for historical reasons.
            if line.starts_with('#') || matches!(line.trim(), "" | "." | "./") {
                continue;
            }
            let line = line.trim();
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

    pub(super) fn is_empty(&self) -> bool {
        self.include.is_empty()
    }

    /// For each pattern, whether it matches `path` or something above it.
    pub(super) fn matches(&self, path: &Path, above: Option<&[bool]>) -> Vec<bool> {
        let mut matched = above.map_or_else(|| vec![false; self.include.len()], <[bool]>::to_vec);
        for index in self.set.matches(path.as_os_str().as_bytes()) {
            matched[index] = true;
        }
        matched
    }

    pub(super) fn excludes(&self, matched: &[bool]) -> bool {
        let last = matched.iter().rposition(|matched| *matched);
        last.is_some_and(|index| !self.include[index])
    }

    /// Whether a `!` pattern could match something in the directory `path`.
    pub(super) fn may_include_below(&self, path: &Path) -> bool {
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
