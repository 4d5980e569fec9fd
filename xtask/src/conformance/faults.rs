//! Faults that somebody put in, and the test that was seen to fail.

use std::path::Path;

use toml::Value;

use super::list::List;
use super::scan::Test;
use crate::Result;
use crate::workspace::{self, read_toml};

/// One fault, put in and taken out again.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) ids: Vec<String>,
    /// Where it was put in, from the root of the repository.
    pub(super) file: String,
    /// What was changed, in words.
    pub(super) change: String,
    /// The test that failed.
    pub(super) test: String,
}

pub(super) fn read(path: &Path) -> Result<Vec<Fault>> {
    let file = read_toml(path)?;
    let faults = file.get("fault").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    faults.iter().map(parse).collect()
}

fn parse(fault: &Value) -> Result<Fault> {
    let text = |key: &str| {
        fault
            .get(key)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or_else(|| format!("a fault has no `{key}`: {fault}"))
    };
    let ids = fault.get("ids").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(Fault {
        ids: ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        file: text("file")?,
        change: text("change")?,
        test: text("test")?,
    })
}

impl Fault {
    /// What is not so: a fault is evidence only while its file and its test are there.
    pub(super) fn contradictions(&self, list: &List, tests: &[Test]) -> Vec<String> {
        let mut found = Vec::new();
        if !workspace::root().join(&self.file).is_file() {
            found.push(format!("a fault was put into `{}`, which is not there", self.file));
        }
        for id in &self.ids {
            if list.get(id).is_none() {
                found.push(format!("a fault names {id}, which does not exist"));
            } else if !tests.iter().any(|test| test.name == self.test && test.ids.contains(id)) {
                found.push(format!("a fault was seen by `{}`, which is no test of {id}", self.test));
            }
        }
        found
    }
}
