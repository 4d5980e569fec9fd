//! Patterns as in `.gitignore`, as `project.toml` lists them.
//!
//! # Spec
//! `project-descriptor.md` 0.2 names gitignore's rules; those are git's own
//! (`gitignore(5)`), compared byte by byte, upper and lower case apart (PRJ-04).

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::error::SourceError;
use crate::walk::hex;

/// Most patterns of one list (I4).
const MAX_PATTERNS: usize = 2_000;

/// Most bytes of all patterns of one list (I4).
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Patterns, of which the last that matches decides.
#[derive(Debug)]
pub(super) struct GitPatterns {
    /// Matches in linear time, all patterns at once.
    set: RegexSet,
    /// What each of them is besides its expression.
    kinds: Vec<Kind>,
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    is_negated: bool,
    directories_only: bool,
}

impl GitPatterns {
    /// Reads a list of patterns, one a text.
    pub(super) fn new(patterns: &[String]) -> Result<Self, SourceError> {
        let bad = |pattern: &str, message: &'static str| SourceError::Pattern {
            pattern: pattern.escape_debug().to_string(),
            message,
        };
        let too_many = patterns.len() > MAX_PATTERNS;
        if too_many || patterns.iter().map(String::len).sum::<usize>() > MAX_PATTERN_BYTES {
            return Err(bad(patterns.last().map_or("", String::as_str), "there are too many patterns"));
        }
        let mut expressions = Vec::new();
        let mut kinds = Vec::new();
        for pattern in patterns {
            if let Some((kind, expression)) = read(pattern).map_err(|message| bad(pattern, message))? {
                kinds.push(kind);
                expressions.push(expression);
            }
        }
        let set = RegexSetBuilder::new(&expressions).unicode(false).dot_matches_new_line(true).build();
        let set = set.map_err(|_| bad("", "the patterns are too large"))?;
        Ok(Self { set, kinds })
    }

    /// Whether the last pattern that matches `path` itself says that it is
    /// matched; `None` when none matches.
    pub(super) fn verdict(&self, path: &Path, is_directory: bool) -> Option<bool> {
        let matched = self.set.matches(path.as_os_str().as_bytes());
        let deciding = matched.iter().filter(|index| is_directory || !self.kinds[*index].directories_only);
        deciding.max().map(|index| !self.kinds[index].is_negated)
    }
}

/// One pattern; `None` for an empty line and a comment.
fn read(line: &str) -> Result<Option<(Kind, String)>, &'static str> {
    let mut pattern = without_trailing_spaces(line);
    if pattern.is_empty() || pattern.starts_with('#') {
        return Ok(None);
    }
    let is_negated = pattern.starts_with('!');
    if is_negated {
        pattern = &pattern[1..];
    }
    let directories_only = pattern.ends_with('/');
    if directories_only {
        pattern = &pattern[..pattern.len() - 1];
    }
    if pattern.is_empty() {
        return Err("it names nothing");
    }
    let is_anchored = pattern.contains('/');
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    let mut expression = String::from(if is_anchored { "^" } else { "(?:^|/)" });
    translate(pattern.as_bytes(), &mut expression)?;
    expression.push('$');
    Ok(Some((Kind { is_negated, directories_only }, expression)))
}

/// Blanks at the end say nothing, unless the last of them is escaped.
fn without_trailing_spaces(line: &str) -> &str {
    let trimmed = line.trim_end_matches(' ');
    let backslashes = trimmed.bytes().rev().take_while(|byte| *byte == b'\\').count();
    if backslashes % 2 == 1 && trimmed.len() < line.len() { &line[..=trimmed.len()] } else { trimmed }
}

fn translate(pattern: &[u8], text: &mut String) -> Result<(), &'static str> {
    let mut at = 0;
    while let Some(&byte) = pattern.get(at) {
        at += 1;
        match byte {
            b'*' => {
                let start = at - 1;
                while pattern.get(at) == Some(&b'*') {
                    at += 1;
                }
                // Git compares what is before the first wildcard by itself, so behind
                // that a name begins too, whatever its manual says.
                let is_first = !pattern[..start].iter().any(|byte| b"*?[\\".contains(byte));
                let begins_name = is_first || pattern[start - 1] == b'/';
                let is_double = at - start > 1 && begins_name;
                match pattern.get(at) {
                    Some(b'/') if is_double => {
                        text.push_str("(?:.*/)?");
                        at += 1;
                    }
                    None if is_double => text.push_str(".*"),
                    _ => text.push_str("[^/]*"),
                }
            }
            b'?' => text.push_str("[^/]"),
            b'[' => at = class(pattern, at, text)?,
            b'\\' => {
                let escaped = *pattern.get(at).ok_or("it ends in a backslash")?;
                at += 1;
                push_byte(escaped, text);
            }
            byte => push_byte(byte, text),
        }
    }
    Ok(())
}

fn push_byte(byte: u8, text: &mut String) {
    text.push_str("\\x");
    text.push_str(&hex(&[byte]));
}

/// A `[…]` class whose bracket is behind `at`; returns where it goes on.
fn class(pattern: &[u8], mut at: usize, text: &mut String) -> Result<usize, &'static str> {
    const OPEN: &str = "a `[` is not closed";
    let is_negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    at += usize::from(is_negated);
    let first = at;
    let mut members = String::new();
    loop {
        let mut low = *pattern.get(at).ok_or(OPEN)?;
        at += 1;
        if low == b']' && at - 1 > first {
            break;
        }
        if low == b'[' && pattern.get(at) == Some(&b':') {
            let rest = &pattern[at + 1..];
            let length = rest.windows(2).position(|pair| pair == b":]").ok_or(OPEN)?;
            members.push_str(named_class(&rest[..length]).ok_or("it has a class of an unknown name")?);
            at += length + 3;
            continue;
        }
        if low == b'\\' {
            low = *pattern.get(at).ok_or(OPEN)?;
            at += 1;
        }
        let mut high = low;
        if pattern.get(at) == Some(&b'-') && pattern.get(at + 1).is_some_and(|next| *next != b']') {
            high = pattern[at + 1];
            at += 2;
            if high == b'\\' {
                high = *pattern.get(at).ok_or(OPEN)?;
                at += 1;
            }
        }
        if high < low {
            return Err("a range in a class goes backwards");
        }
        push_byte(low, &mut members);
        members.push('-');
        push_byte(high, &mut members);
    }
    // Nothing in brackets matches a `/`.
    text.push_str(if is_negated { "[^/" } else { "[[" });
    text.push_str(&members);
    text.push_str(if is_negated { "]" } else { "]&&[^/]]" });
    Ok(at)
}

fn named_class(name: &[u8]) -> Option<&'static str> {
    Some(match name {
        b"alnum" => "a-zA-Z0-9",
        b"alpha" => "a-zA-Z",
        b"blank" => "\\x20\\x09",
        b"cntrl" => "\\x00-\\x1f\\x7f",
        b"digit" => "0-9",
        b"graph" => "\\x21-\\x7e",
        b"lower" => "a-z",
        b"print" => "\\x20-\\x7e",
        b"punct" => "\\x21-\\x2f\\x3a-\\x40\\x5b-\\x60\\x7b-\\x7e",
        b"space" => "\\x20\\x09-\\x0d",
        b"upper" => "A-Z",
        b"xdigit" => "0-9a-fA-F",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Whether the patterns match `path` or a directory above it, as git's own walk finds out.
    fn ignores(patterns: &GitPatterns, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        (1..=parts.len()).any(|count| {
            let partial = parts[..count].join("/");
            patterns.verdict(Path::new(&partial), count < parts.len()) == Some(true)
        })
    }

    const FILES: &[&str] = &[
        "a",
        "b",
        "a.md",
        "docs/a",
        "docs/a.md",
        "docs/deep/a.md",
        "docs/deep/b",
        "src/main.rs",
        "src/a/x",
        "foo/bar",
        "foo/x/bar",
        "foo/x/y/bar",
        "x/foo/bar",
        "build/out",
        "lib/build/out",
        "lib/build2",
        "#hash",
        "!bang",
        "with space",
        "trailing ",
        "star*",
        "back\\slash",
        "a]b",
        "a-b",
        "a[b]",
        "q1",
        "q12",
        "ä",
        "Upper",
        "dir.d/f",
        "x/y/z/w",
        "abc/b/c",
        "a*b",
        "aXb",
        "axxb",
        "k/a/b",
        "tab\tx",
    ];

    /// Every list is put before git itself, for every file.
    #[test]
    fn prj_04_patterns_match_what_git_matches() {
        let repository = tempfile::tempdir().unwrap();
        let names = repository.path().join(".git-names");
        std::fs::write(&names, FILES.join("\0")).unwrap();
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command
                .args(arguments)
                .current_dir(repository.path())
                .env_clear()
                .env("PATH", "/usr/bin:/bin:/usr/local/bin");
            command.env("HOME", repository.path());
            command.stdin(std::fs::File::open(&names).unwrap()).output().unwrap()
        };
        assert!(git(&["init", "-q"]).status.success());
        for file in FILES {
            let path = repository.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let lists: &[&[&str]] = &[
            &["a"],
            &["/a"],
            &["a/"],
            &["*.md"],
            &["/*.md"],
            &["docs/*.md"],
            &["docs/**"],
            &["docs/**/a.md"],
            &["**/a.md"],
            &["**/build"],
            &["build"],
            &["build/"],
            &["/build/"],
            &["lib/build"],
            &["foo/bar"],
            &["foo/**/bar"],
            &["foo/*/bar"],
            &["**/foo/bar"],
            &["**"],
            &["*"],
            &["/*"],
            &["*/"],
            &["**/"],
            &["/**"],
            &["*", "!a"],
            &["*", "!docs", "!docs/a.md"],
            &["/*", "!/docs", "/docs/*", "!/docs/a.md"],
            &["docs", "!docs/a.md"],
            &["docs/*", "!docs/a.md"],
            &["!a", "a"],
            &["a", "!a"],
            &["*.md", "!a.md"],
            &["#hash"],
            &["\\#hash"],
            &["!bang"],
            &["\\!bang"],
            &["with space"],
            &["with space  "],
            &["trailing "],
            &["trailing\\ "],
            &["star\\*"],
            &["back\\\\slash"],
            &["a]b"],
            &["a[]]b"],
            &["a[]-a]b"],
            &["a\\[b]"],
            &["q?"],
            &["q??"],
            &["?"],
            &["??"],
            &["[a-c]"],
            &["[!a]"],
            &["[^a]"],
            &["[[:upper:]]pper"],
            &["[[:digit:]a]"],
            &["q[[:digit:]]"],
            &["a[!b]b"],
            &["src/[m]ain.rs"],
            &["src[/]main.rs"],
            &["upper"],
            &["dir.d"],
            &["dir.d/"],
            &["dir.d/*"],
            &["x/**/w"],
            &["x/**"],
            &["x/***"],
            &["x/**y"],
            &["**y"],
            &["ab**/c"],
            &["abc/**c"],
            &["a**b"],
            &["k/**/b"],
            &["k/**/**/b"],
            &["**/**/b"],
            &["***/b"],
            &["tab\tx"],
            &["a/**"],
            &["/docs/deep"],
            &["deep"],
            &["deep/"],
            &["deep/b"],
            &["docs/deep/"],
            &["docs//deep"],
            &["./a"],
            &["a*b"],
            &["a?b"],
            &["a\\*b"],
            &["\\a"],
            &["docs/dee[o-q]"],
            &["", "a"],
            &["  a"],
            &["a-[!-z]"],
            &["a[-x]b"],
            &["a[a-]b"],
            &["[\\]a]"],
            &["foo", "!foo/bar"],
            &["**/x", "!/x"],
            &["src/**/x", "!src/a"],
        ];
        for list in lists {
            std::fs::write(repository.path().join(".gitignore"), list.join("\n") + "\n").unwrap();
            let said = git(&["check-ignore", "--no-index", "-z", "--stdin"]);
            assert!(matches!(said.status.code(), Some(0 | 1)), "{said:?}");
            let expected: Vec<&str> =
                std::str::from_utf8(&said.stdout).unwrap().split_terminator('\0').collect();
            let patterns: Vec<String> = list.iter().map(|&pattern| pattern.to_owned()).collect();
            let patterns = GitPatterns::new(&patterns).unwrap();
            let found: Vec<&str> = FILES.iter().copied().filter(|file| ignores(&patterns, file)).collect();
            assert_eq!(found, expected, "{list:?}");
        }
    }

    #[test]
    fn patterns_that_can_match_nothing_are_errors() {
        for pattern in ["[", "a[b", "[]", "[b-a]", "a\\", "!", "/", "[[:nothing:]]"] {
            let error = GitPatterns::new(&[pattern.to_owned()]).unwrap_err().to_string();
            assert!(error.starts_with("the pattern `"), "{error}");
        }
        assert!(GitPatterns::new(&vec!["x".to_owned(); MAX_PATTERNS + 1]).is_err());
    }

    /// I4: a pattern that takes backtracking matchers forever.
    #[test]
    fn i4_hostile_patterns_cost_linear_time() {
        let patterns = [format!("{}b", "*a".repeat(40)), format!("x/{}b", "**/a".repeat(40))];
        let patterns = GitPatterns::new(&patterns).unwrap();
        let start = std::time::Instant::now();
        assert_eq!(patterns.verdict(Path::new(&"a".repeat(250)), false), None);
        assert!(start.elapsed() < std::time::Duration::from_millis(100), "{:?}", start.elapsed());
    }
}
