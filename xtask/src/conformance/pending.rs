//! The requirements that are meant to be met and that no test shows yet.
//!
//! By hand it only grows; what a test shows is taken out by the program. So the
//! difference of two versions says what was done, and what was given up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use toml::Value;

use crate::Result;
use crate::workspace::read_toml;

const HEAD: &str = "\
# Requirements that no test shows yet. `cargo xtask conformance` takes out those that a
# test shows by now; nothing puts one in but a decision.
";

/// Ids, and the file they are in.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    path: PathBuf,
    ids: BTreeSet<String>,
}

impl Pending {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = read_toml(path)?;
        let ids = file.get("ids").and_then(Value::as_array).ok_or("`pending.toml` has no `ids`")?;
        let ids = ids.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Self { path: path.to_owned(), ids })
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(String::as_str)
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    pub(super) fn remove(&mut self, ids: &[String]) {
        self.ids.retain(|id| !ids.contains(id));
    }

    pub(super) fn write(&self) -> Result<()> {
        fs::write(&self.path, self.to_string())
            .map_err(|error| format!("cannot write `{}`: {error}", self.path.display()))
    }
}

impl std::fmt::Display for Pending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "{HEAD}ids = [")?;
        for id in &self.ids {
            writeln!(formatter, "    \"{id}\",")?;
        }
        writeln!(formatter, "]")
    }
}

#[cfg(test)]
impl Pending {
    pub(super) fn of(ids: &[&str]) -> Self {
        Self { path: PathBuf::new(), ids: ids.iter().map(|&id| id.to_owned()).collect() }
    }
}
