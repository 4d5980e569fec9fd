//! `<layers>/config/metadata.toml`: which buildpacks and processes the image has.
//!
//! Knows the file's format (MET-01) and nothing of what is done with it. Keys
//! that the launcher does not need are not looked at, whatever they hold.

use std::fs;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::failure::Failure;
use crate::platform::{ApiVersion, BUILDPACK_APIS};

/// The part of the file a launch needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// In the order they were built.
    pub(crate) buildpacks: Vec<Buildpack>,
    pub(crate) processes: Vec<Process>,
}

/// A buildpack that took part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Buildpack {
    pub(crate) id: String,
    pub(crate) api: ApiVersion,
}

/// A process as its buildpack defined it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "`process type` is the spec's word, and `type` is taken")]
pub(crate) struct Process {
    pub(crate) process_type: String,
    /// Executable and fixed arguments.
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    /// Started as it is, not by a shell.
    pub(crate) direct: bool,
    pub(crate) buildpack_id: String,
    pub(crate) working_directory: Option<String>,
    /// Empty means every execution environment.
    pub(crate) exec_envs: Vec<String>,
}

/// Reads and checks the file.
pub(crate) fn read(layers_directory: &Path) -> Result<Metadata, Failure> {
    let path = layers_directory.join("config").join("metadata.toml");
    let text = fs::read_to_string(&path)
        .map_err(|error| Failure::launch(format!("cannot read `{}`: {error}", path.display())))?;
    parse(&text).map_err(|problem| match problem {
        Problem::Format(what) => Failure::launch(format!("`{}` is not valid: {what}", path.display())),
        Problem::Api(what) => Failure::buildpack_api(what),
    })
}

#[derive(Debug)]
enum Problem {
    Format(String),
    Api(String),
}

fn parse(text: &str) -> Result<Metadata, Problem> {
    let document = DeTable::parse(text).map_err(|error| Problem::Format(error.message().into()))?;
    let document = document.get_ref();
    let mut metadata = Metadata::default();
    for table in tables(document, "buildpacks")? {
        metadata.buildpacks.push(buildpack(table)?);
    }
    for table in tables(document, "processes")? {
        metadata.processes.push(process(table)?);
    }
    Ok(metadata)
}

fn buildpack(table: &DeTable<'_>) -> Result<Buildpack, Problem> {
    let id = string(table, "id")?.ok_or_else(|| Problem::Format("a buildpack has no `id`".into()))?;
    // The id names a directory; `..` would lead out of the layers.
    if id.is_empty() || id == "." || id == ".." {
        return Err(Problem::Format(format!("`{id}` is no buildpack id")));
    }
    let (oldest, newest) = BUILDPACK_APIS;
    let named = string(table, "api")?.unwrap_or_default();
    let api = ApiVersion::parse(&named).filter(|api| (oldest..=newest).contains(api)).ok_or_else(|| {
        Problem::Api(format!(
            "buildpack `{id}` has buildpack API `{named}`; this launcher supports {oldest} to {newest}"
        ))
    })?;
    Ok(Buildpack { id, api })
}

fn process(table: &DeTable<'_>) -> Result<Process, Problem> {
    let process_type =
        string(table, "type")?.ok_or_else(|| Problem::Format("a process has no `type`".into()))?;
    let command = match value(table, "command") {
        // Platform API 0.9 and older wrote one string.
        Some(DeValue::String(command)) => vec![command.to_string()],
        _ => strings(table, "command")?,
    };
    let direct = match value(table, "direct") {
        None => false,
        Some(DeValue::Boolean(direct)) => *direct,
        Some(_) => return Err(wrong("direct", "a boolean")),
    };
    Ok(Process {
        command,
        args: strings(table, "args")?,
        direct,
        buildpack_id: string(table, "buildpack-id")?.unwrap_or_default(),
        working_directory: string(table, "working-dir")?.filter(|directory| !directory.is_empty()),
        exec_envs: strings(table, "exec-env")?,
        process_type,
    })
}

fn value<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Option<&'t DeValue<'i>> {
    table.get(key).map(toml::Spanned::get_ref)
}

fn tables<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Result<Vec<&'t DeTable<'i>>, Problem> {
    match value(table, key) {
        None => Ok(Vec::new()),
        Some(DeValue::Array(items)) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::Table(table) => Ok(table),
                _ => Err(wrong(key, "an array of tables")),
            })
            .collect(),
        Some(_) => Err(wrong(key, "an array of tables")),
    }
}

fn string(table: &DeTable<'_>, key: &str) -> Result<Option<String>, Problem> {
    match value(table, key) {
        None => Ok(None),
        Some(DeValue::String(text)) => Ok(Some(text.to_string())),
        Some(_) => Err(wrong(key, "a string")),
    }
}

fn strings(table: &DeTable<'_>, key: &str) -> Result<Vec<String>, Problem> {
    match value(table, key) {
        None => Ok(Vec::new()),
        Some(DeValue::Array(items)) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                _ => Err(wrong(key, "an array of strings")),
            })
            .collect(),
        Some(_) => Err(wrong(key, "an array of strings")),
    }
}

fn wrong(key: &str, expected: &str) -> Problem {
    Problem::Format(format!("`{key}` is not {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn met_01_reads_what_a_launch_needs() {
        let metadata = parse(
            r#"
            buildpack-default-process-type = "web"
            [[buildpacks]]
            id = "acme/site"
            version = "1.2.3"
            api = "0.12"
            homepage = "https://example.com"
            [[labels]]
            key = "a"
            value = "b"
            [[processes]]
            type = "web"
            command = ["server", "--fixed"]
            args = ["--port", "8080"]
            direct = true
            buildpack-id = "acme/site"
            working-dir = "public"
            exec-env = ["production"]
            [[slices]]
            paths = ["*.html"]
            "#,
        )
        .unwrap();
        assert_eq!(metadata.buildpacks, [Buildpack { id: "acme/site".into(), api: ApiVersion::new(0, 12) }]);
        assert_eq!(
            metadata.processes,
            [Process {
                process_type: "web".into(),
                command: vec!["server".into(), "--fixed".into()],
                args: vec!["--port".into(), "8080".into()],
                direct: true,
                buildpack_id: "acme/site".into(),
                working_directory: Some("public".into()),
                exec_envs: vec!["production".into()],
            }]
        );
    }

    #[test]
    fn lau_09_a_command_may_be_one_string() {
        let metadata = parse("[[processes]]\ntype = \"web\"\ncommand = \"serve it\"").unwrap();
        assert_eq!(metadata.processes[0].command, ["serve it"]);
        assert!(!metadata.processes[0].direct);
    }

    #[test]
    fn an_image_without_processes_is_fine() {
        assert_eq!(parse("").unwrap(), Metadata::default());
    }

    /// LAU-02
    #[test]
    fn bad_files_are_told_apart() {
        let format = |text: &str| match parse(text) {
            Err(Problem::Format(what)) => what,
            other => panic!("{text:?} gave {other:?}"),
        };
        assert_eq!(format("processes = 1"), "`processes` is not an array of tables");
        assert_eq!(
            format("[[processes]]\ntype = \"web\"\ncommand = [1]"),
            "`command` is not an array of strings"
        );
        assert_eq!(format("[[buildpacks]]\nid = \"..\"\napi = \"0.9\""), "`..` is no buildpack id");
        format("not toml");
        assert!(matches!(parse("[[buildpacks]]\nid = \"a\"\napi = \"0.99\""), Err(Problem::Api(_))));
        assert!(matches!(parse("[[buildpacks]]\nid = \"a\""), Err(Problem::Api(_))));
    }
}
