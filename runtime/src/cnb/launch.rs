//! What runs in the image: processes, slices, labels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::id::{BuildpackId, ExecEnv, ProcessType};

/// A process of the image.
///
/// # Spec
/// `buildpack.md` 0.12 "launch.toml"; LCH-03.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its type, such as `web`.
    pub process_type: ProcessType,
    /// Executable and fixed arguments; never empty.
    pub command: Vec<String>,
    /// Arguments the user of the image may replace; `None` when the buildpack does not speak of them.
    pub args: Option<Vec<String>>,
    /// Started as it is; else by a shell, which only buildpacks before API 0.9 ask for.
    pub direct: bool,
    /// Whether it is the image's default process.
    pub default: bool,
    /// Where it starts; `None` is the app directory.
    pub working_directory: Option<String>,
    /// Execution environments it is for; empty means all.
    pub exec_envs: Vec<ExecEnv>,
}

/// App files that become a layer of their own: patterns relative to the app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    pub paths: Vec<String>,
}

/// A label of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    pub key: String,
    pub value: String,
}

/// All processes of a build, with the rules for several buildpacks applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessTable {
    processes: BTreeMap<ProcessType, (BuildpackId, Process)>,
    default: Option<ProcessType>,
}

impl ProcessTable {
    /// Adds what one buildpack defines, after those of earlier buildpacks. Returns the
    /// type that was the default and, for being redefined, is no more.
    ///
    /// # Spec
    /// PRC-01 to PRC-03: a later definition replaces an earlier one whole; the
    /// last `default = true` wins; redefining the default type without
    /// `default` leaves the image without a default.
    pub fn add(&mut self, buildpack: &BuildpackId, processes: Vec<Process>) -> Option<ProcessType> {
        let mut lost = None;
        for process in processes {
            let process_type = process.process_type.clone();
            if process.default {
                self.default = Some(process_type.clone());
                lost = None;
            } else if self.default.as_ref() == Some(&process_type) {
                lost = self.default.take();
            }
            self.processes.insert(process_type, (buildpack.clone(), process));
        }
        lost
    }

    /// The type that is started when nothing else is asked for.
    #[must_use]
    pub fn default_type(&self) -> Option<&ProcessType> {
        self.default.as_ref()
    }

    /// Looks up one process.
    #[must_use]
    pub fn get(&self, process_type: &ProcessType) -> Option<&Process> {
        self.processes.get(process_type).map(|(_, process)| process)
    }

    /// Every process with the buildpack that defined it, sorted by type (PRC-05).
    pub fn iter(&self) -> impl Iterator<Item = (&BuildpackId, &Process)> {
        self.processes.values().map(|(buildpack, process)| (buildpack, process))
    }

    /// Whether there is no process at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// How many processes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.processes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(process_type: &str, default: bool) -> Process {
        Process {
            process_type: process_type.parse().unwrap(),
            command: vec!["run".into()],
            args: None,
            direct: true,
            default,
            working_directory: None,
            exec_envs: vec![],
        }
    }

    #[test]
    fn prc_02_the_last_default_wins() {
        let mut table = ProcessTable::default();
        table.add(&"a".parse().unwrap(), vec![process("web", true)]);
        table.add(&"b".parse().unwrap(), vec![process("worker", true)]);
        assert_eq!(table.default_type().unwrap().as_str(), "worker");
    }

    #[test]
    fn prc_03_redefining_the_default_without_default_leaves_none() {
        let mut table = ProcessTable::default();
        table.add(&"a".parse().unwrap(), vec![process("worker", true)]);
        table.add(&"b".parse().unwrap(), vec![process("web", true)]);
        let lost = table.add(&"c".parse().unwrap(), vec![process("web", false)]);
        assert_eq!(lost.unwrap().as_str(), "web");
        assert_eq!(table.default_type(), None);
    }
}
