//! Patterns of slices: which files of an app are a layer of their own.

/// A pattern of a slice, parsed.
///
/// # Spec
/// SLC-01: as Go's `filepath.Match` on the path relative to the app. `*` and `?`
/// stop at `/`, `[a-z]` and `[^a-z]` are sets, `\` takes the next character as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Character(char),
    AnyCharacter,
    AnyText,
    Set { negated: bool, ranges: Vec<(char, char)> },
}

/// A pattern with a set that does not end, or nothing after `\`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}` is malformed")]
pub struct InvalidPattern {
    /// With control characters escaped.
    pub pattern: String,
}

impl SlicePattern {
    /// Parses a pattern that is relative to the app, or absolute inside it.
    ///
    /// # Errors
    /// [`InvalidPattern`]
    pub fn parse(pattern: &str, app_directory: &str) -> Result<Self, InvalidPattern> {
        let cleaned = clean(pattern);
        let relative = match cleaned.strip_prefix(app_directory) {
            Some("") => ".",
            Some(rest) => rest.strip_prefix('/').unwrap_or(&cleaned),
            None => &cleaned,
        };
        let invalid = || InvalidPattern { pattern: pattern.escape_debug().to_string() };
        let mut parts = Vec::new();
        let mut characters = relative.chars();
        while let Some(character) = characters.next() {
            parts.push(match character {
                '*' => Part::AnyText,
                '?' => Part::AnyCharacter,
                '\\' => Part::Character(characters.next().ok_or_else(invalid)?),
                '[' => parse_set(&mut characters).ok_or_else(invalid)?,
                other => Part::Character(other),
            });
        }
        Ok(Self { parts })
    }

    /// Whether the pattern stands for the app itself.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.parts == [Part::Character('.')]
    }

    /// Whether a path relative to the app matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let path: Vec<char> = path.chars().collect();
        let (mut part, mut place) = (0, 0);
        // Where to go on when what follows the last `*` does not fit.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match (self.parts.get(part), path.get(place)) {
                (None, None) => return true,
                (Some(Part::AnyText), _) => {
                    part += 1;
                    retry = Some((part, place));
                    continue;
                }
                (Some(one), Some(&character)) if one.takes(character) => {
                    part += 1;
                    place += 1;
                    continue;
                }
                _ => {}
            }
            match retry {
                Some((after, from)) if path.get(from).is_some_and(|&character| character != '/') => {
                    part = after;
                    place = from + 1;
                    retry = Some((after, place));
                }
                _ => return false,
            }
        }
    }
}

impl Part {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Character(expected) => *expected == character,
            Self::AnyCharacter => character != '/',
            Self::AnyText => false,
            Self::Set { negated, ranges } => {
                let is_in = ranges.iter().any(|(low, high)| (*low..=*high).contains(&character));
                is_in != *negated
            }
        }
    }
}

/// The rest of a set, after its `[`.
fn parse_set(characters: &mut std::str::Chars<'_>) -> Option<Part> {
    let mut negated = false;
    if characters.as_str().starts_with('^') {
        negated = true;
        characters.next();
    }
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && characters.as_str().starts_with(']') {
            characters.next();
            return Some(Part::Set { negated, ranges });
        }
        let low = set_member(characters)?;
        let mut high = low;
        if characters.as_str().starts_with('-') {
            characters.next();
            high = set_member(characters)?;
        }
        ranges.push((low, high));
    }
}

fn set_member(characters: &mut std::str::Chars<'_>) -> Option<char> {
    match characters.next()? {
        '-' | ']' => None,
        '\\' => characters.next(),
        other => Some(other),
    }
}

/// The shortest path that names the same: no `.`, no `..` but in front, no double slash.
fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                None if is_absolute => {}
                _ => parts.push(part),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (is_absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        SlicePattern::parse(pattern, "/workspace").unwrap().matches(path)
    }

    /// SLC-06
    #[test]
    fn slc_01_patterns() {
        for (pattern, path, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*", "a/b", false),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("**/b", "a/b", true),
            ("**/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^e-g]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "aüb", true),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("a[^a]b", "aüb", true),
            ("./a//b/../c", "a/c", true),
            ("/workspace/a", "a", true),
            ("/workspace2/a", "2/a", false),
            ("/a", "a", false),
            ("../a", "a", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
        assert!(SlicePattern::parse(".", "/workspace").unwrap().is_everything());
        assert!(SlicePattern::parse("/workspace/", "/workspace").unwrap().is_everything());
    }

    /// SLC-01
    #[test]
    fn malformed_patterns() {
        for pattern in ["[", "[]", "[]a]", "[-]", "[x-]", "[a-b-c]", "[^", "[^bc", "a\\", "[a-\\"] {
            assert!(SlicePattern::parse(pattern, "/workspace").is_err(), "{pattern}");
        }
    }

    /// Would take forever with a matcher that tries every way.
    #[test]
    fn many_stars_are_quick() {
        let pattern = "a*".repeat(50) + "b";
        assert!(!matches(&pattern, &"a".repeat(5000)));
    }
}
