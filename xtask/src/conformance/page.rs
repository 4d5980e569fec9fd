//! The page: a table for each area.

use std::fmt::Write as _;

use super::Evidence;
use super::list::Requirement;

const HEAD: &str = "\
# What the specification asks, and which test shows it

Written by `cargo xtask conformance` from the names of the tests; do not edit it. The requirements are those of the Cloud Native
Buildpacks specification (Buildpack API 0.12, Platform API 0.15) and, where it is silent, what its reference implementation does, in
our own words. Those about components are our own. Ids never change.

A requirement is *shown* by the tests named beside it. Where a fault is named, somebody put exactly that into the code and saw the test fail.
*Not shown by a test yet* means what it says: it may be so already, and nobody can rely on it. *Not supported* is what wapack does not do
now, and why.
";

/// What became of some requirements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    all: usize,
    shown: usize,
    with_fault: usize,
    unsupported: usize,
}

impl Count {
    fn of<'a>(evidence: &Evidence, requirements: impl Iterator<Item = &'a Requirement>) -> Self {
        let mut count = Self::default();
        for requirement in requirements {
            count.all += 1;
            // What is not supported and has a test is a contradiction; it is counted once.
            count.shown += usize::from(requirement.supported && evidence.is_shown(&requirement.id));
            count.with_fault += usize::from(faults(evidence, &requirement.id).next().is_some());
            count.unsupported += usize::from(!requirement.supported);
        }
        count
    }

    fn not_shown(self) -> usize {
        self.all - self.shown - self.unsupported
    }
}

/// One line about all of it.
pub(super) fn summary(evidence: &Evidence) -> String {
    let count = Count::of(evidence, evidence.list.requirements());
    format!(
        "{} requirements, {} shown by tests ({} with a fault), {} not shown yet, {} not supported",
        count.all,
        count.shown,
        count.with_fault,
        count.not_shown(),
        count.unsupported
    )
}

/// The whole page.
pub(super) fn render(evidence: &Evidence) -> String {
    // Writing to a string cannot fail.
    let mut page = format!("{HEAD}\nIn all: {}.\n\n", summary(evidence));
    page.push_str("| Area | Requirements | Shown | Seen to fail | Not shown yet | Not supported |\n");
    page.push_str("|---|---|---|---|---|---|\n");
    for area in &evidence.list.areas {
        let count = Count::of(evidence, area.requirements.iter());
        let _ = writeln!(
            page,
            "| [{}](#{}) | {} | {} | {} | {} | {} |",
            heading(&area.id, &area.title),
            anchor(&heading(&area.id, &area.title)),
            count.all,
            count.shown,
            count.with_fault,
            count.not_shown(),
            count.unsupported
        );
    }
    for area in &evidence.list.areas {
        let _ = write!(page, "\n## {}\n\n", heading(&area.id, &area.title));
        page.push_str(
            "| Id | Level | Requirement | Shown by | Fault that turned it red |\n|---|---|---|---|---|\n",
        );
        for requirement in &area.requirements {
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} |",
                requirement.id,
                requirement.level.name(),
                cell(&requirement.text),
                shown_by(evidence, requirement),
                faults(evidence, &requirement.id).collect::<Vec<_>>().join("<br>")
            );
        }
    }
    page
}

fn heading(id: &str, title: &str) -> String {
    format!("{id}: {title}")
}

/// The anchor that a heading gets where Markdown is shown.
fn anchor(heading: &str) -> String {
    heading
        .chars()
        .filter_map(|character| match character {
            ' ' => Some('-'),
            character if character.is_alphanumeric() || character == '-' => {
                Some(character.to_ascii_lowercase())
            }
            _ => None,
        })
        .collect()
}

fn shown_by(evidence: &Evidence, requirement: &Requirement) -> String {
    let tests: Vec<String> = evidence
        .tests
        .iter()
        .filter(|test| test.ids.contains(&requirement.id))
        .map(|test| format!("[`{}`](../{})", test.name, test.path))
        .collect();
    match (tests.is_empty(), &requirement.reason) {
        (false, _) => tests.join("<br>"),
        (true, Some(reason)) if requirement.supported => format!("*No test:* {}", cell(reason)),
        (true, Some(reason)) => format!("*Not supported:* {}", cell(reason)),
        (true, None) => "*Not shown by a test yet*".to_owned(),
    }
}

fn faults<'a>(evidence: &'a Evidence, id: &'a str) -> impl Iterator<Item = String> + 'a {
    evidence
        .faults
        .iter()
        .filter(move |fault| fault.ids.iter().any(|named| named == id))
        .map(|fault| format!("`{}`: {}", fault.file, cell(&fault.change)))
}

/// Text that cannot end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The first line in which two pages differ.
pub(super) fn difference(written: &str, wanted: &str) -> Option<String> {
    if written == wanted {
        return None;
    }
    let mut lines = written.lines().zip(wanted.lines()).enumerate();
    let line = lines.find(|(_, (one, other))| one != other);
    let line = line.map_or_else(|| written.lines().count().min(wanted.lines().count()), |(index, _)| index);
    Some(format!("from line {}", line + 1))
}
