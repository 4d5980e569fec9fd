//! The tests of the workspace, and the ids they carry.
//!
//! A test carries ids at the front of its name, `env_14_…`, `env_15_and_16_…`,
//! `rst_03_to_07_…`, `lau_12_env_16_…`, or in a line above it that begins with
//! `/// ENV-14, ENV-15`. Files are read line by line: what is formatted by rustfmt
//! is regular enough, and a parser would be more than all the rest of this program.

use std::fs;
use std::path::Path;

use super::list::List;
use crate::{Result, archive};

/// A test that carries ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    /// From the root of the repository.
    pub(super) path: String,
    pub(super) name: String,
    /// In the order in which they are named; they may not exist.
    pub(super) ids: Vec<String>,
}

/// All tests with ids in all Rust files of the workspace, sorted.
pub(super) fn tests(root: &Path, list: &List) -> Result<Vec<Test>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(root).map_err(|error| error.to_string())? {
        let folder = folder.map_err(|error| error.to_string())?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if name == "target" || name.starts_with('.') || !folder.is_dir() {
            continue;
        }
        let cannot = |error: std::io::Error| format!("cannot read `{}`: {error}", folder.display());
        for file in archive::walk(&folder).map_err(cannot)? {
            if file.extension().is_none_or(|extension| extension != "rs") || !file.is_file() {
                continue;
            }
            let source = fs::read_to_string(&file).map_err(cannot)?;
            let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
            found.extend(in_source(&path, &source, list));
        }
    }
    found.sort();
    Ok(found)
}

/// The tests with ids in one file. Ignored ones show nothing.
pub(super) fn in_source(path: &str, source: &str, list: &List) -> Vec<Test> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (index, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[test]") {
        let Some((distance, name)) =
            lines[index..].iter().enumerate().find_map(|(distance, line)| Some((distance, function(line)?)))
        else {
            continue;
        };
        let above =
            lines[..index].iter().rev().take_while(|line| line.starts_with("///") || line.starts_with("#["));
        let between = &lines[index..index + distance];
        if above.clone().chain(between).any(|line| line.starts_with("#[ignore")) {
            continue;
        }
        let mut ids = ids_in_name(name, list);
        for line in above.chain(between) {
            for id in line.strip_prefix("/// ").map(|text| ids_in_line(text, list)).unwrap_or_default() {
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        if !ids.is_empty() {
            found.push(Test { path: path.to_owned(), name: name.to_owned(), ids });
        }
    }
    found
}

/// The name of the function that a line begins.
fn function(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

/// The ids at the front of a test's name.
fn ids_in_name(name: &str, list: &List) -> Vec<String> {
    let words: Vec<&str> = name.split('_').collect();
    read_ids(&words, list).0
}

/// The ids at the front of a line of documentation, up to its end or a colon or full stop.
fn ids_in_line(text: &str, list: &List) -> Vec<String> {
    let text = text.split([':', '.']).next().unwrap_or(text).replace([',', '-'], " ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let (ids, rest) = read_ids(&words, list);
    // Otherwise it is a sentence that happens to begin with one.
    if rest == words.len() { ids } else { Vec::new() }
}

/// Areas and numbers, `and` and `to` between them, until another word; and how many words that was.
fn read_ids(words: &[&str], list: &List) -> (Vec<String>, usize) {
    let mut ids: Vec<String> = Vec::new();
    let (mut area, mut last, mut taken) = (None, None, 0);
    while taken < words.len() {
        let step = match words[taken..] {
            [word, number, ..] if list.area(word).is_some() && two_digits(number).is_some() => {
                area = list.area(word);
                last = None;
                1
            }
            ["and", next, ..] if area.is_some() && is_id(next, words.get(taken + 2), list) => 1,
            ["to", end, ..] if last.is_some() && two_digits(end).is_some() => {
                // The end of the range is read as a number of its own.
                if let (Some(area), Some(last), Some(end)) = (area, last, two_digits(end)) {
                    ids.extend((last + 1..end).map(|number| format!("{}-{number:02}", area.id)));
                }
                1
            }
            ["to", word, end, ..]
                if last.is_some() && area.is_some_and(|area| area.id.eq_ignore_ascii_case(word)) =>
            {
                if let (Some(area), Some(last), Some(end)) = (area, last, two_digits(end)) {
                    ids.extend((last + 1..end).map(|number| format!("{}-{number:02}", area.id)));
                }
                2
            }
            [number, ..] => match (area, two_digits(number)) {
                (Some(area), Some(number)) => {
                    ids.push(format!("{}-{number:02}", area.id));
                    last = Some(number);
                    1
                }
                _ => break,
            },
            [] => break,
        };
        taken += step;
    }
    (ids, taken)
}

fn is_id(word: &str, after: Option<&&str>, list: &List) -> bool {
    two_digits(word).is_some()
        || (list.area(word).is_some() && after.is_some_and(|after| two_digits(after).is_some()))
}

fn two_digits(word: &str) -> Option<u32> {
    (word.len() == 2).then(|| word.parse().ok()).flatten()
}
