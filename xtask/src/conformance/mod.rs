//! Which requirements of the specification are shown by which test.
//!
//! Three lists are kept by hand in `docs/conformance/`: the requirements, those
//! that no test shows yet, and the faults that were put in to see a test fail. The
//! rest is read from the tests themselves, which carry ids in their names. Out of
//! all this comes `docs/conformance.md`.

mod faults;
mod list;
mod page;
mod pending;
mod scan;

use std::fs;

use crate::Result;
use crate::command::{step, warn};
use crate::workspace;

use self::faults::Fault;
use self::list::List;
use self::pending::Pending;
use self::scan::Test;

const PAGE: &str = "docs/conformance.md";

/// Everything the page is made of.
struct Evidence {
    list: List,
    tests: Vec<Test>,
    faults: Vec<Fault>,
    pending: Pending,
}

impl Evidence {
    fn read() -> Result<Self> {
        let root = workspace::root();
        let directory = root.join("docs/conformance");
        let list = List::read(&directory.join("requirements"))?;
        let tests = scan::tests(&root, &list)?;
        let faults = faults::read(&directory.join("faults.toml"))?;
        let pending = Pending::read(&directory.join("pending.toml"))?;
        Ok(Self { list, tests, faults, pending })
    }

    fn is_shown(&self, id: &str) -> bool {
        self.tests.iter().any(|test| test.ids.iter().any(|shown| shown == id))
    }

    /// Everything that is said about requirements and is not so; a sentence each.
    fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        for test in &self.tests {
            for id in test.ids.iter().filter(|id| self.list.get(id).is_none()) {
                found.push(format!("`{}` in `{}` names {id}, which does not exist", test.name, test.path));
            }
        }
        for requirement in self.list.requirements() {
            if !requirement.supported && self.is_shown(&requirement.id) {
                found.push(format!("{} is listed as not supported, and has a test", requirement.id));
            }
        }
        for fault in &self.faults {
            found.extend(fault.contradictions(&self.list, &self.tests));
        }
        for id in self.pending.ids() {
            match self.list.get(id) {
                None => found.push(format!("`pending.toml` names {id}, which does not exist")),
                Some(requirement) if !requirement.supported => {
                    found.push(format!("{id} is both pending and not supported"));
                }
                Some(_) => {}
            }
        }
        found
    }

    /// What has to be shown, is not, and is not listed as pending either.
    fn missing(&self) -> Vec<&str> {
        self.list
            .requirements()
            .filter(|requirement| requirement.must() && requirement.supported && requirement.reason.is_none())
            .map(|requirement| requirement.id.as_str())
            .filter(|id| !self.is_shown(id) && !self.pending.contains(id))
            .collect()
    }

    /// Listed as pending although a test shows it.
    fn no_longer_pending(&self) -> Vec<&str> {
        self.pending.ids().filter(|id| self.is_shown(id)).collect()
    }

    /// Everything that makes the check fail but for the page itself.
    fn problems(&self) -> Vec<String> {
        let mut problems = self.contradictions();
        for id in self.missing() {
            problems.push(format!("no test shows {id}, and `pending.toml` does not list it"));
        }
        for id in self.no_longer_pending() {
            problems.push(format!(
                "a test shows {id}, which `pending.toml` still lists; `cargo xtask conformance` takes it out"
            ));
        }
        problems
    }
}

/// `cargo xtask conformance`: writes the page, and takes out of the list of what
/// is pending whatever a test shows by now.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => write(),
        [flag] if flag == "--check" => check(),
        _ => Err("`conformance` takes `--check` or nothing".to_owned()),
    }
}

fn write() -> Result<()> {
    let mut evidence = Evidence::read()?;
    let done: Vec<String> = evidence.no_longer_pending().into_iter().map(str::to_owned).collect();
    if !done.is_empty() {
        step(&format!("no longer pending: {}", done.join(", ")));
        evidence.pending.remove(&done);
        evidence.pending.write()?;
    }
    let path = workspace::root().join(PAGE);
    fs::write(&path, page::render(&evidence))
        .map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    step(&format!("{PAGE}: {}", page::summary(&evidence)));
    fail_on(&evidence.problems())
}

/// Whether the page is what would be written, and everything in it is so.
pub(crate) fn check() -> Result<()> {
    step("conformance page");
    let evidence = Evidence::read()?;
    let mut problems = evidence.problems();
    let written = fs::read_to_string(workspace::root().join(PAGE)).unwrap_or_default();
    if let Some(difference) = page::difference(&written, &page::render(&evidence)) {
        problems.push(format!("`{PAGE}` is stale; `cargo xtask conformance` writes it ({difference})"));
    }
    fail_on(&problems)
}

fn fail_on(problems: &[String]) -> Result<()> {
    for problem in problems {
        warn(problem);
    }
    match problems.len() {
        0 => Ok(()),
        number => Err(format!("{number} contradictions between the specification's list and the tests")),
    }
}

#[cfg(test)]
mod tests;
