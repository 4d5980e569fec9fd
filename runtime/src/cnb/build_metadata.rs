//! `<layers>/config/metadata.toml`: what the builder hands to the exporter and the launcher.

use super::api::PlatformApi;
use super::build_plan::Requirement;
use super::group_toml::GroupElement;
use super::id::{BuildpackId, BuildpackRef};
use super::launch::{Label, Process, ProcessTable, Slice};
use super::reference_toml::{Fields, json_text};
use crate::toml_text;

/// What the file says.
#[derive(Debug, Clone, Copy)]
pub struct BuildMetadata<'a> {
    pub buildpacks: &'a [GroupElement],
    pub extensions: &'a [GroupElement],
    pub labels: &'a [Label],
    pub processes: &'a ProcessTable,
    pub slices: &'a [Slice],
    /// Entries of old bills of materials; before Platform API 0.9 they are here.
    pub bom: &'a [(BuildpackRef, Requirement)],
}

impl BuildMetadata<'_> {
    /// The text of the file, byte for byte as the reference lifecycle writes it.
    ///
    /// # Spec
    /// MET-01 to MET-04, PRC-05, PRC-06.
    #[must_use]
    pub fn to_toml(&self, api: PlatformApi) -> String {
        let mut file = Fields::default();
        if self.processes.is_empty() {
            file.value("processes", "[]".to_owned());
        }
        if let Some(default) = self.processes.default_type() {
            file.text("buildpack-default-process-type", default.as_str());
        }
        if !api.at_least(9) {
            file.tables("bom", self.bom.iter().map(bom_entry).collect());
        }
        file.tables("buildpacks", self.buildpacks.iter().map(GroupElement::fields).collect());
        file.tables("extensions", self.extensions.iter().map(GroupElement::fields).collect());
        file.tables("labels", self.labels.iter().map(label).collect());
        let processes = self.processes.iter();
        let processes = processes.map(|(buildpack, of)| process(buildpack, of, api)).collect();
        file.tables("processes", processes);
        file.tables("slices", self.slices.iter().map(slice).collect());
        file.document()
    }
}

fn label(label: &Label) -> Fields {
    let mut fields = Fields::default();
    fields.text("key", &label.key);
    fields.text("value", &label.value);
    fields
}

fn slice(slice: &Slice) -> Fields {
    let mut fields = Fields::default();
    fields.texts("paths", &slice.paths);
    fields
}

fn process(buildpack: &BuildpackId, process: &Process, api: PlatformApi) -> Fields {
    let mut fields = Fields::default();
    fields.text("type", process.process_type.as_str());
    let mut args: Option<Vec<&String>> = process.args.as_ref().map(|args| args.iter().collect());
    if api.at_least(10) {
        let words: Vec<String> = process.command.iter().map(|word| json_text(word)).collect();
        fields.value("command", format!("[{}]", words.join(", ")));
    } else if let Some((first, others)) = process.command.split_first() {
        // PRC-06
        fields.value("command", json_text(first));
        // What it moves the reference always writes.
        args.get_or_insert_default().splice(0..0, others);
    }
    // The reference leaves the key out where the buildpack did.
    if let Some(args) = args {
        fields.texts("args", &args);
    }
    fields.value("direct", process.direct.to_string());
    fields.text("buildpack-id", buildpack.as_str());
    fields.text_if_any("working-dir", process.working_directory.as_deref().unwrap_or_default());
    if !process.exec_envs.is_empty() {
        let names: Vec<&str> = process.exec_envs.iter().map(super::id::ExecEnv::as_str).collect();
        fields.texts("exec-env", &names);
    }
    fields
}

fn bom_entry((buildpack, entry): &(BuildpackRef, Requirement)) -> Fields {
    let mut by = Fields::default();
    by.text("id", buildpack.id.as_str());
    by.text("version", buildpack.version.as_str());
    let mut fields = Fields::default();
    fields.text("name", &entry.name);
    if let Some(metadata) = toml_text::table_of(&entry.metadata) {
        fields.table("metadata", (&metadata).into());
    }
    fields.table("buildpack", by);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cnb::api::ApiVersion;

    fn api(minor: u64) -> PlatformApi {
        PlatformApi::supported(ApiVersion::zero(minor)).unwrap()
    }

    fn process(process_type: &str, command: &[&str], args: &[&str]) -> Process {
        Process {
            process_type: process_type.parse().unwrap(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            args: Some(args.iter().map(|word| (*word).to_owned()).collect())
                .filter(|args: &Vec<_>| !args.is_empty()),
            direct: true,
            default: process_type == "web",
            working_directory: None,
            exec_envs: vec![],
        }
    }

    fn table() -> ProcessTable {
        let mut table = ProcessTable::default();
        let web =
            process("web", &["run <it>", "arg & 'x' ü", "nl\n"], &["a b", "<&>", "tab\there", "esc\u{1b}"]);
        let worker = Process {
            working_directory: Some("/w".into()),
            exec_envs: vec!["test".parse().unwrap(), "production".parse().unwrap()],
            direct: false,
            ..process("t12", &["x"], &[])
        };
        table.add(&"acme/a12".parse().unwrap(), vec![web, worker]);
        table.add(&"acme/last".parse().unwrap(), vec![process("aaa", &["\u{1}\u{7f}\u{2028}"], &[])]);
        table
    }

    fn buildpacks() -> Vec<GroupElement> {
        let element = |id: &str, homepage: Option<&str>| GroupElement {
            id: id.parse().unwrap(),
            version: "1.0.0".parse().unwrap(),
            api: ApiVersion::zero(12),
            homepage: homepage.map(str::to_owned),
        };
        vec![element("acme/a12", Some("http://example.com/<12>&")), element("acme/last", None)]
    }

    /// As the reference does for what buildpacks wrote.
    #[test]
    fn met_04_arguments_that_are_none_are_told_from_no_word_of_them() {
        let mut table = ProcessTable::default();
        let none = Process { args: Some(Vec::new()), ..process("none", &["n"], &[]) };
        table.add(&"a".parse().unwrap(), vec![none, process("silent", &["s"], &[])]);
        let metadata = BuildMetadata {
            buildpacks: &[],
            extensions: &[],
            labels: &[],
            processes: &table,
            slices: &[],
            bom: &[],
        };
        let expected = r#"[[processes]]
  type = "none"
  command = ["n"]
  args = []
  direct = true
  buildpack-id = "a"

[[processes]]
  type = "silent"
  command = ["s"]
  direct = true
  buildpack-id = "a"
"#;
        assert_eq!(metadata.to_toml(api(15)), expected);
    }

    /// MET-01, MET-02, MET-03, MET-04, PRC-05. The text is what the reference wrote for the same
    /// buildpacks, but for `direct`, which was true there.
    #[test]
    fn met_01_to_04_the_bytes_of_the_reference() {
        let labels = [Label { key: "k".into(), value: "v <&> \"q\" 'ü' \\ \t tab".into() }];
        let slices =
            [Slice { paths: vec!["a/*.js".into(), "b<12>".into(), "c'q".into()] }, Slice { paths: vec![] }];
        let metadata = BuildMetadata {
            buildpacks: &buildpacks(),
            extensions: &buildpacks()[1..],
            labels: &labels,
            processes: &table(),
            slices: &slices,
            bom: &[],
        };
        let expected = r#"buildpack-default-process-type = "web"

[[buildpacks]]
  id = "acme/a12"
  version = "1.0.0"
  api = "0.12"
  homepage = "http://example.com/<12>&"

[[buildpacks]]
  id = "acme/last"
  version = "1.0.0"
  api = "0.12"

[[extensions]]
  id = "acme/last"
  version = "1.0.0"
  api = "0.12"

[[labels]]
  key = "k"
  value = "v <&> \"q\" 'ü' \\ \t tab"

[[processes]]
  type = "aaa"
  command = ["\u0001?\u2028"]
  direct = true
  buildpack-id = "acme/last"

[[processes]]
  type = "t12"
  command = ["x"]
  direct = false
  buildpack-id = "acme/a12"
  working-dir = "/w"
  exec-env = ["test", "production"]

[[processes]]
  type = "web"
  command = ["run \u003cit\u003e", "arg \u0026 'x' ü", "nl\n"]
  args = ["a b", "<&>", "tab\there", "esc\u001b"]
  direct = true
  buildpack-id = "acme/a12"

[[slices]]
  paths = ["a/*.js", "b<12>", "c'q"]

[[slices]]
  paths = []
"#
        .replace('?', "\u{7f}");
        assert_eq!(metadata.to_toml(api(15)), expected);
        assert_eq!(metadata.to_toml(api(10)), expected);
    }

    #[test]
    fn met_01_without_processes_and_the_old_bill_of_materials() {
        let bom = [
            (
                buildpacks()[1].reference(),
                Requirement { name: "n".into(), metadata: "b = 1\na = \"x\"\n".into() },
            ),
            (buildpacks()[1].reference(), Requirement { name: "m".into(), metadata: String::new() }),
        ];
        let metadata = BuildMetadata {
            buildpacks: &buildpacks()[1..],
            extensions: &[],
            labels: &[],
            processes: &ProcessTable::default(),
            slices: &[],
            bom: &bom,
        };
        let members = "[[buildpacks]]\n  id = \"acme/last\"\n  version = \"1.0.0\"\n  api = \"0.12\"\n";
        assert_eq!(metadata.to_toml(api(9)), format!("processes = []\n\n{members}"));
        let by = "  [bom.buildpack]\n    id = \"acme/last\"\n    version = \"1.0.0\"\n";
        assert_eq!(
            metadata.to_toml(api(8)),
            format!(
                "processes = []\n\n[[bom]]\n  name = \"n\"\n  [bom.metadata]\n    a = \"x\"\n    b = 1\n{by}\n\
                 [[bom]]\n  name = \"m\"\n{by}\n{members}"
            )
        );
    }

    #[test]
    fn awkward_text_is_read_by_others() {
        let awkward = "a \"b\" 'c' \\ \u{1}\r\n\n'''\"\"\" ü\t<&>";
        let mut table = ProcessTable::default();
        table.add(&"a".parse().unwrap(), vec![process("t", &[awkward, ""], &[awkward])]);
        let metadata = BuildMetadata {
            buildpacks: &[],
            extensions: &[],
            labels: &[],
            processes: &table,
            slices: &[],
            bom: &[],
        };
        let text = metadata.to_toml(api(15));
        let script = "import sys,json,tomllib;p=tomllib.loads(sys.argv[1])['processes'][0];\
            print(json.dumps(p['command']+p['args']))";
        let output = std::process::Command::new("python3").args(["-c", script, &text]).output().unwrap();
        let read: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(read, [awkward, "", awkward]);
    }

    #[test]
    fn prc_06_one_word_commands_of_old_platforms() {
        let metadata = BuildMetadata {
            buildpacks: &[],
            extensions: &[],
            labels: &[],
            processes: &table(),
            slices: &[],
            bom: &[],
        };
        let text = metadata.to_toml(api(9));
        let web = "  type = \"web\"\n  command = \"run \\u003cit\\u003e\"\n  \
                   args = [\"arg & 'x' ü\", \"nl\\n\", \"a b\", \"<&>\", \"tab\\there\", \"esc\\u001b\"]\n";
        assert!(text.contains(web), "{text}");
        assert!(text.contains("  type = \"t12\"\n  command = \"x\"\n  args = []\n"), "{text}");
    }
}
