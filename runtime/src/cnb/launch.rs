//! What runs in the image: processes, slices, labels, and `metadata.toml`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::id::{BuildpackId, BuildpackRef, ExecEnv, ProcessType};

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

/// A buildpack of the group as `metadata.toml` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchBuildpack {
    pub reference: BuildpackRef,
    /// Buildpack API it was written for.
    pub api: String,
    pub homepage: Option<String>,
}

/// The text of `<layers>/config/metadata.toml`, which the launcher reads.
///
/// # Spec
/// MET-01 to MET-04: fixed order of keys, processes sorted by type, neither
/// `default` nor `optional`, and no `exec-env` where it would say "all".
#[must_use]
pub fn metadata_toml(
    buildpacks: &[LaunchBuildpack],
    labels: &[Label],
    processes: &ProcessTable,
    slices: &[Slice],
) -> String {
    let document = MetadataToml {
        default_type: processes.default_type(),
        buildpacks: buildpacks
            .iter()
            .map(|buildpack| MetadataBuildpack {
                id: &buildpack.reference.id,
                version: buildpack.reference.version.to_string(),
                api: &buildpack.api,
                homepage: buildpack.homepage.as_deref(),
            })
            .collect(),
        labels,
        processes: processes
            .iter()
            .map(|(buildpack, process)| MetadataProcess {
                process_type: &process.process_type,
                command: &process.command,
                args: process.args.as_deref().unwrap_or_default(),
                direct: process.direct,
                buildpack_id: buildpack,
                working_directory: process.working_directory.as_deref(),
                exec_env: &process.exec_envs,
            })
            .collect(),
        slices,
    };
    document.text()
}

#[derive(Serialize)]
struct MetadataToml<'a> {
    #[serde(rename = "buildpack-default-process-type", skip_serializing_if = "Option::is_none")]
    default_type: Option<&'a ProcessType>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    buildpacks: Vec<MetadataBuildpack<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    labels: &'a [Label],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    processes: Vec<MetadataProcess<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    slices: &'a [Slice],
}

impl MetadataToml<'_> {
    fn text(&self) -> String {
        toml::to_string(self).expect("strings, lists and tables can always be written")
    }
}

#[derive(Serialize)]
struct MetadataBuildpack<'a> {
    id: &'a BuildpackId,
    version: String,
    api: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    homepage: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct MetadataProcess<'a> {
    #[serde(rename = "type")]
    process_type: &'a ProcessType,
    command: &'a [String],
    args: &'a [String],
    direct: bool,
    buildpack_id: &'a BuildpackId,
    #[serde(rename = "working-dir", skip_serializing_if = "Option::is_none")]
    working_directory: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    exec_env: &'a [ExecEnv],
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

    /// PRC-05, MET-02, MET-03
    #[test]
    fn met_01_metadata_toml() {
        let mut table = ProcessTable::default();
        let web = Process {
            command: vec!["serve".into(), "two words".into()],
            working_directory: Some("/workspace/x".into()),
            exec_envs: vec!["test".parse().unwrap()],
            ..process("web", true)
        };
        let job = Process { args: Some(vec!["-v".into()]), ..process("job", false) };
        table.add(&"acme/node".parse().unwrap(), vec![web, job]);
        let buildpacks = [LaunchBuildpack {
            reference: BuildpackRef { id: "acme/node".parse().unwrap(), version: "1.2".parse().unwrap() },
            api: "0.12".into(),
            homepage: None,
        }];
        let labels = [Label { key: "k".into(), value: "v".into() }];
        let slices = [Slice { paths: vec!["*.js".into()] }];
        let expected = "\
buildpack-default-process-type = \"web\"

[[buildpacks]]
id = \"acme/node\"
version = \"1.2\"
api = \"0.12\"

[[labels]]
key = \"k\"
value = \"v\"

[[processes]]
type = \"job\"
command = [\"run\"]
args = [\"-v\"]
direct = true
buildpack-id = \"acme/node\"

[[processes]]
type = \"web\"
command = [\"serve\", \"two words\"]
args = []
direct = true
buildpack-id = \"acme/node\"
working-dir = \"/workspace/x\"
exec-env = [\"test\"]

[[slices]]
paths = [\"*.js\"]
";
        assert_eq!(metadata_toml(&buildpacks, &labels, &table, &slices), expected);
        assert_eq!(metadata_toml(&[], &[], &ProcessTable::default(), &[]), "");
    }

    #[test]
    fn awkward_text_in_metadata_toml_is_read_by_others() {
        let awkward = "a \"b\" 'c' \\ \u{1}\r\n\n'''\"\"\" ü\t";
        let mut table = ProcessTable::default();
        let web = Process { command: vec![awkward.into(), String::new()], ..process("web", false) };
        table.add(&"a".parse().unwrap(), vec![web]);
        let text = metadata_toml(&[], &[], &table, &[]);
        let script = "import sys,json,tomllib;\
            print(json.dumps(tomllib.loads(sys.argv[1])['processes'][0]['command']))";
        let output = std::process::Command::new("python3").args(["-c", script, &text]).output().unwrap();
        let read: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(read, [awkward, ""]);
    }
}
