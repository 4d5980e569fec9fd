//! `launch.toml`: processes, labels and slices of one buildpack, by its API.

use serde::Deserialize;
use toml::Value;

use super::api::ApiVersion;
use super::build_plan::Requirement;
use super::build_toml::BomEntry;
use super::id::{ExecEnv, ProcessType};
use super::launch::{Label, Process, Slice};
use super::reference_toml::Fields;
use crate::toml_text::{self, TomlError};

/// The label that says what an image is made of; not a buildpack's to set (LCH-08).
const RESERVED_LABEL: &str = "io.buildpacks.lifecycle.metadata";

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LaunchToml {
    pub processes: Vec<Process>,
    pub labels: Vec<Label>,
    pub slices: Vec<Slice>,
    pub bom: Vec<Requirement>,
    /// Keys that were put up with.
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
struct LaunchFile {
    #[serde(default)]
    processes: Vec<ProcessTable>,
    #[serde(default)]
    labels: Vec<LabelTable>,
    #[serde(default)]
    slices: Vec<SliceTable>,
    #[serde(default)]
    bom: Vec<BomEntry>,
}

#[derive(Deserialize)]
struct LabelTable {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct SliceTable {
    #[serde(default)]
    paths: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ProcessTable {
    #[serde(rename = "type", default)]
    process_type: String,
    command: Option<Value>,
    args: Option<Vec<String>>,
    direct: Option<bool>,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    working_dir: String,
    #[serde(default)]
    exec_env: Vec<ExecEnv>,
}

impl LaunchToml {
    /// Parses the file of a buildpack written for `api`.
    ///
    /// # Errors
    /// With line and column, or the type of the process that breaks a rule.
    ///
    /// # Spec
    /// `buildpack.md` 0.12 "launch.toml"; LCH-02 to LCH-06, LCH-08, API-18, PRC-04.
    pub fn parse(text: &str, api: ApiVersion) -> Result<Self, TomlError> {
        let file: LaunchFile = toml_text::parse(text)?;
        let mut warnings = Vec::new();
        let mut processes = Vec::<Process>::with_capacity(file.processes.len());
        for table in file.processes {
            let process = process(table, api, &mut warnings)?;
            let process_type = &process.process_type;
            let is_defined = processes.iter().any(|other| other.process_type == *process_type);
            if is_defined && api >= ApiVersion::zero(9) {
                return Err(TomlError::whole(format!("the process `{process_type}` is defined twice")));
            }
            if process.default && processes.iter().any(|other| other.default) && api >= ApiVersion::zero(6) {
                return Err(TomlError::whole("more than one process is the default"));
            }
            processes.push(process);
        }
        if file.labels.iter().any(|label| label.key == RESERVED_LABEL) {
            return Err(TomlError::whole(format!(
                "the label `{RESERVED_LABEL}` is not a buildpack's to set"
            )));
        }
        Ok(Self {
            processes,
            labels: file
                .labels
                .into_iter()
                .map(|label| Label { key: label.key, value: label.value })
                .collect(),
            slices: file.slices.into_iter().map(|slice| Slice { paths: slice.paths }).collect(),
            bom: file.bom.into_iter().map(BomEntry::checked).collect::<Result<_, _>>()?,
            warnings,
        })
    }
}

/// The text of the file as a buildpack of the newest API writes it; empty when it would say nothing.
#[must_use]
pub fn to_toml(processes: &[Process], labels: &[Label], slices: &[Slice]) -> String {
    let process = |process: &Process| {
        let mut fields = Fields::default();
        fields.text("type", process.process_type.as_str());
        fields.texts("command", &process.command);
        if let Some(args) = &process.args {
            fields.texts("args", args);
        }
        fields.value("default", process.default.to_string());
        fields.text_if_any("working-dir", process.working_directory.as_deref().unwrap_or_default());
        let exec_envs: Vec<&str> = process.exec_envs.iter().map(ExecEnv::as_str).collect();
        fields.texts("exec-env", &exec_envs);
        fields
    };
    let label = |label: &Label| {
        let mut fields = Fields::default();
        fields.text("key", &label.key);
        fields.text("value", &label.value);
        fields
    };
    let slice = |slice: &Slice| {
        let mut fields = Fields::default();
        fields.texts("paths", &slice.paths);
        fields
    };
    let mut file = Fields::default();
    file.tables("processes", processes.iter().map(process).collect());
    file.tables("labels", labels.iter().map(label).collect());
    file.tables("slices", slices.iter().map(slice).collect());
    file.document()
}

fn process(table: ProcessTable, api: ApiVersion, warnings: &mut Vec<String>) -> Result<Process, TomlError> {
    let bad =
        |rule: &str| TomlError::whole(format!("the process `{}` {rule}", table.process_type.escape_debug()));
    let process_type = process_type(&table.process_type, api)?;
    let is_list = api >= ApiVersion::zero(9);
    if is_list && table.direct.is_some() {
        return Err(bad("has the key `direct`, which is not part of its Buildpack API"));
    }
    let command = match table.command {
        None => return Err(bad("has no command")),
        Some(Value::String(command)) if !is_list => vec![command],
        Some(Value::Array(words)) if is_list => {
            let words: Option<Vec<String>> =
                words.iter().map(|word| word.as_str().map(str::to_owned)).collect();
            words.filter(|words| !words.is_empty()).ok_or_else(|| bad("has a command without words"))?
        }
        Some(_) if is_list => return Err(bad("has a command that is not a list of strings")),
        Some(_) => return Err(bad("has a command that is not a string")),
    };
    let mut working_directory = Some(table.working_dir).filter(|directory| !directory.is_empty());
    if api < ApiVersion::zero(8) && working_directory.take().is_some() {
        warnings.push(format!(
            "the working directory of the process `{process_type}` is not part of Buildpack API {api} and ignored"
        ));
    }
    Ok(Process {
        default: if api < ApiVersion::zero(6) { process_type.as_str() == "web" } else { table.default },
        process_type,
        command,
        args: table.args,
        direct: is_list || table.direct.unwrap_or(false),
        working_directory,
        exec_envs: if api < ApiVersion::zero(12) { Vec::new() } else { table.exec_env },
    })
}

/// LCH-06: stricter from API 0.9 on than what published buildpacks were held to.
fn process_type(text: &str, api: ApiVersion) -> Result<ProcessType, TomlError> {
    let process_type = if api >= ApiVersion::zero(9) { ProcessType::plain(text) } else { text.parse() };
    process_type.map_err(|error| TomlError::whole(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, minor: u64) -> Result<LaunchToml, TomlError> {
        LaunchToml::parse(text, ApiVersion::zero(minor))
    }

    fn one(text: &str, minor: u64) -> Process {
        parse(&format!("[[processes]]\ntype = \"web\"\n{text}"), minor).unwrap().processes.remove(0)
    }

    fn refused(text: &str, minor: u64) -> String {
        parse(&format!("[[processes]]\n{text}"), minor).unwrap_err().to_string()
    }

    #[test]
    fn lch_02_commands_by_api() {
        for minor in 2..=8 {
            assert_eq!(one("command = \"a b\"\n", minor).command, ["a b"]);
            refused("type = \"web\"\ncommand = [\"a\"]\n", minor);
        }
        for minor in 9..=12 {
            assert_eq!(one("command = [\"a\", \"b\"]\nargs = [\"c\"]\n", minor).command, ["a", "b"]);
            for command in ["\"a\"", "[]", "[1]", "1"] {
                refused(&format!("type = \"web\"\ncommand = {command}\n"), minor);
            }
        }
        refused("type = \"web\"\n", 12);
    }

    #[test]
    fn lch_03_and_api_18_direct() {
        for minor in 2..=8 {
            assert!(!one("command = \"a\"\n", minor).direct);
            assert!(one("command = \"a\"\ndirect = true\n", minor).direct);
        }
        for minor in 9..=12 {
            assert!(one("command = [\"a\"]\n", minor).direct);
            for direct in [true, false] {
                let error =
                    refused(&format!("type = \"web\"\ncommand = [\"a\"]\ndirect = {direct}\n"), minor);
                assert!(error.contains("`direct`"), "{error}");
            }
        }
    }

    #[test]
    fn lch_04_working_directories_start_at_0_8() {
        for minor in 2..=12 {
            let command = if minor < 9 { "\"a\"" } else { "[\"a\"]" };
            let text = format!("[[processes]]\ntype = \"web\"\ncommand = {command}\nworking-dir = \"/x\"\n");
            let file = parse(&text, minor).unwrap();
            let expected = (minor >= 8).then(|| "/x".to_owned());
            assert_eq!(file.processes[0].working_directory, expected, "0.{minor}");
            assert_eq!(file.warnings.is_empty(), minor >= 8, "0.{minor}");
        }
    }

    #[test]
    fn lch_05_one_default() {
        let two = |command: &str| {
            let process = |name: &str| {
                format!("[[processes]]\ntype = \"{name}\"\ncommand = {command}\ndefault = true\n")
            };
            process("a") + &process("b")
        };
        assert!(parse(&two("[\"x\"]"), 12).unwrap_err().to_string().contains("default"));
        parse(&two("\"x\""), 6).unwrap_err();
    }

    #[test]
    fn lch_06_process_types() {
        for name in ["", "a/b", "a>b", "a<b", "a:b", "a|b", "a&b", "a\\\\b", ".."] {
            refused(&format!("type = \"{name}\"\ncommand = [\"x\"]\n"), 12);
            refused(&format!("type = \"{name}\"\ncommand = \"x\"\n"), 8);
        }
        refused("type = \"a b\"\ncommand = [\"x\"]\n", 9);
        let old = parse("[[processes]]\ntype = \"a b\"\ncommand = \"x\"\n", 8).unwrap();
        assert_eq!(old.processes[0].process_type.as_str(), "a b");
        let twice = "[[processes]]\ntype = \"a\"\ncommand = [\"x\"]\n".repeat(2);
        assert!(parse(&twice, 12).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn wsm_04_records_there_and_back() {
        let text = "[[processes]]\ntype = \"web\"\ncommand = [\"a\", \"b\"]\nargs = [\"c\"]\ndefault = true\n\
                    working-dir = \"/x\"\nexec-env = [\"test\"]\n\
                    [[processes]]\ntype = \"job\"\ncommand = [\"j\"]\n\
                    [[processes]]\ntype = \"none\"\ncommand = [\"n\"]\nargs = []\n\
                    [[labels]]\nkey = \"k\"\nvalue = \"v\"\n[[slices]]\npaths = [\"*.js\"]\n";
        let file = parse(text, 12).unwrap();
        let written = to_toml(&file.processes, &file.labels, &file.slices);
        assert_eq!(parse(&written, 12).unwrap(), file);
        assert_eq!(to_toml(&[], &[], &[]), "");
    }

    #[test]
    fn lch_08_the_lifecycles_own_label_is_refused() {
        let label = |key: &str| parse(&format!("[[labels]]\nkey = \"{key}\"\nvalue = \"v\"\n"), 12);
        assert_eq!(label("io.buildpacks.stack.id").unwrap().labels[0].value, "v");
        label("io.buildpacks.lifecycle.metadata").unwrap_err();
    }

    #[test]
    fn prc_04_before_0_6_web_is_the_default() {
        let text = "[[processes]]\ntype = \"web\"\ncommand = \"a\"\n\
                    [[processes]]\ntype = \"b\"\ncommand = \"b\"\ndefault = true\n";
        for minor in 2..=8 {
            let defaults = parse(text, minor).unwrap().processes;
            let defaults: Vec<bool> = defaults.iter().map(|process| process.default).collect();
            assert_eq!(defaults, if minor < 6 { [true, false] } else { [false, true] }, "0.{minor}");
        }
    }
}
