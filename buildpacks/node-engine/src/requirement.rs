//! Who asks for which version of Node.js: variables, files, other buildpacks.
//! Knows no releases.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wapack_sdk::{BuildContext, DetectContext, Error, fs};

use crate::shown;
use crate::wanted::Wanted;

/// Variables of the user that name a version, the first of them first.
pub const VERSION_VARIABLES: [&str; 2] = ["WAPACK_NODE_VERSION", "BP_NODE_VERSION"];

/// Variables of the user that name the project's directory in the app.
pub const PROJECT_VARIABLES: [&str; 2] = ["WAPACK_NODE_PROJECT", "BP_NODE_PROJECT_PATH"];

/// A version, as someone wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The range or name.
    pub version: String,
    /// Where it stands: `package.json`, `.nvmrc`; empty when nobody asked.
    pub source: String,
}

impl Requirement {
    /// `version`, as it stands in `source`.
    pub fn new(version: impl Into<String>, source: impl Into<String>) -> Self {
        Self { version: version.into(), source: source.into() }
    }

    /// What it means.
    ///
    /// # Errors
    /// An app error when it means nothing.
    pub fn wanted(&self) -> Result<Wanted, Error> {
        Wanted::parse(&self.version).ok_or_else(|| {
            Error::app(format!("{self} is no version of Node.js"))
                .hint("a version such as `22.11.0`, a range such as `>=20 <25`, or `lts/*` would be one")
        })
    }
}

impl Default for Requirement {
    /// The newest release of long-term support.
    fn default() -> Self {
        Self::new("lts/*", "")
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, source } = self;
        let version = version.escape_debug();
        match source.as_str() {
            "" => write!(formatter, "the newest `lts/*`; nothing asks for another"),
            source if source.ends_with("package.json") => {
                write!(formatter, "`{version}` in `engines` of `{source}`")
            }
            source => write!(formatter, "`{version}` in `{source}`"),
        }
    }
}

/// Whether the app says that it is one of Node.js.
///
/// # Errors
/// When the user names a project directory that is none.
pub fn is_node_app(context: &DetectContext) -> Result<bool, Error> {
    if variable(context, &VERSION_VARIABLES).is_some() {
        return Ok(true);
    }
    let directories = directories(context)?;
    Ok(directories.iter().any(|directory| {
        ["package.json", ".nvmrc", ".node-version"].iter().any(|name| directory.join(name).is_file())
    }))
}

/// Everything that asks for a version; the first one counts.
///
/// # Errors
/// When a file cannot be understood, or the user names a project directory that
/// is none.
pub fn read(context: &BuildContext) -> Result<Vec<Requirement>, Error> {
    let mut found: Vec<Requirement> = variable(context, &VERSION_VARIABLES)
        .map(|(name, value)| Requirement::new(value, name))
        .into_iter()
        .collect();
    found.extend(planned(context)?);
    for directory in directories(context)? {
        let file = |name: &str| (directory.join(name), shown(&context.app, &directory.join(name)));
        let (path, name) = file("package.json");
        if let Some(version) = engines(&package(&path, &name)?) {
            found.push(Requirement::new(version, name));
        }
        for name in [".nvmrc", ".node-version"] {
            let (path, name) = file(name);
            if let Some(version) = version_file(&path)? {
                found.push(Requirement::new(version, name));
            }
        }
    }
    let mut unique: Vec<Requirement> = Vec::with_capacity(found.len());
    for requirement in found {
        if !unique.contains(&requirement) {
            unique.push(requirement);
        }
    }
    Ok(unique)
}

/// The directory of the project, then the app; often they are the same.
///
/// # Errors
/// When the user names one that is not in the app.
pub fn directories(context: &DetectContext) -> Result<Vec<PathBuf>, Error> {
    let Some((variable, named)) = variable(context, &PROJECT_VARIABLES) else {
        return Ok(vec![context.app.clone()]);
    };
    let project = context.app_path(named).ok_or_else(|| {
        Error::app(format!("`{variable}` leads out of the app: `{named}`"))
            .hint("name a directory relative to the app, such as `server`")
    })?;
    if !project.is_dir() {
        return Err(Error::app(format!("there is no directory `{named}`, which `{variable}` names")));
    }
    let mut directories = vec![project, context.app.clone()];
    directories.dedup();
    Ok(directories)
}

/// A `package.json`; nothing when there is none.
///
/// # Errors
/// An app error when it is no JSON.
pub fn package(path: &Path, name: &str) -> Result<Value, Error> {
    let Some(text) = text_of(path)? else { return Ok(Value::Null) };
    // Editors of other systems put a byte order mark there; npm takes it, too.
    serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| Error::app(format!("`{name}` is not valid JSON: {error}")))
}

fn engines(package: &Value) -> Option<String> {
    let version = package.get("engines")?.get("node")?.as_str()?;
    Some(version.trim().to_owned()).filter(|version| !version.is_empty())
}

/// What buildpacks before this one's choice require: their reading of a file
/// counts more than ours, as they know where the app's packages are.
fn planned(context: &BuildContext) -> Result<Vec<Requirement>, Error> {
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        version: String,
        #[serde(default, alias = "version-source")]
        source: String,
    }
    let mut found = Vec::new();
    for entry in &context.plan {
        let Metadata { version, source } = entry.metadata()?;
        if !version.trim().is_empty() {
            let source = if source.is_empty() { "the build plan".to_owned() } else { source };
            found.push(Requirement::new(version.trim(), source));
        }
    }
    Ok(found)
}

/// The first line of a version file that says something; `#` begins a comment.
fn version_file(path: &Path) -> Result<Option<String>, Error> {
    let Some(text) = text_of(path)? else { return Ok(None) };
    let mut lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim_matches(['\u{feff}', ' ', '\t']));
    Ok(lines.find(|line| !line.is_empty()).map(str::to_owned))
}

fn text_of(path: &Path) -> Result<Option<String>, Error> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = fs::read(path)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The first variable of `names` that is set to something.
fn variable<'a>(context: &'a DetectContext, names: &[&'static str]) -> Option<(&'static str, &'a str)> {
    names.iter().find_map(|name| {
        let value = context.user_env.get(*name)?.trim();
        (!value.is_empty()).then_some((*name, value))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wapack_sdk::testing::Project;

    use super::*;

    fn asked(project: &Project) -> Vec<String> {
        read(&project.build_context()).unwrap().iter().map(ToString::to_string).collect()
    }

    fn with(files: &[(&str, &str)]) -> Project {
        let project = Project::new().unwrap();
        for (path, text) in files {
            project.app_file(path, text).unwrap();
        }
        project
    }

    const ALL: [(&str, &str); 3] = [
        ("package.json", r#"{"engines":{"node":">=18","npm":"10"}}"#),
        (".nvmrc", "lts/iron\n"),
        (".node-version", "v20.11.1"),
    ];

    #[test]
    fn the_order_of_who_asks() {
        let plan = BTreeMap::from([("version", "^22"), ("source", "web/package.json")]);
        let requirement = wapack_sdk::Requirement::new("node").metadata(&plan).unwrap();
        let project = with(&ALL).user_env("WAPACK_NODE_VERSION", " 22 ").plan("node").plan(requirement);
        assert_eq!(
            asked(&project),
            [
                "`22` in `WAPACK_NODE_VERSION`",
                "`^22` in `engines` of `web/package.json`",
                "`>=18` in `engines` of `package.json`",
                "`lts/iron` in `.nvmrc`",
                "`v20.11.1` in `.node-version`",
            ]
        );
    }

    #[test]
    fn what_is_asked_for_twice_counts_once() {
        let plan = BTreeMap::from([("version", ">=18"), ("source", "package.json")]);
        let requirement = wapack_sdk::Requirement::new("node").metadata(&plan).unwrap();
        assert_eq!(asked(&with(&ALL[..1]).plan(requirement)), ["`>=18` in `engines` of `package.json`"]);
    }

    #[test]
    fn files_of_the_project_come_before_those_of_the_app() {
        let mut files = ALL.to_vec();
        files.extend([("web/.nvmrc", "22"), ("web/package.json", "{}")]);
        for variable in PROJECT_VARIABLES {
            let asked = asked(&with(&files).user_env(variable, "./web/"));
            assert_eq!(asked[..2], ["`22` in `web/.nvmrc`", "`>=18` in `engines` of `package.json`"]);
        }
        assert_eq!(asked(&with(&files).user_env("WAPACK_NODE_PROJECT", ".")).len(), 3);
    }

    #[test]
    fn a_project_has_to_be_a_directory_of_the_app() {
        let error = |named: &str| {
            let project = with(&ALL).user_env("BP_NODE_PROJECT_PATH", named);
            directories(&project.detect_context()).unwrap_err().message
        };
        assert_eq!(error("../x"), "`BP_NODE_PROJECT_PATH` leads out of the app: `../x`");
        assert_eq!(error("/etc"), "`BP_NODE_PROJECT_PATH` leads out of the app: `/etc`");
        assert_eq!(error("web"), "there is no directory `web`, which `BP_NODE_PROJECT_PATH` names");
    }

    #[test]
    fn version_files_have_comments_and_empty_lines() {
        for text in ["22", "\u{feff}22\r\n", "# why\n\n 22 # because\n20\n"] {
            assert_eq!(asked(&with(&[(".nvmrc", text)])), ["`22` in `.nvmrc`"], "{text:?}");
        }
        assert!(asked(&with(&[(".nvmrc", "\n# 22\n")])).is_empty());
    }

    #[test]
    fn engines_of_other_kinds_ask_for_nothing() {
        for text in
            ["{}", r#"{"engines":["node"]}"#, r#"{"engines":{"node":18}}"#, r#"{"engines":{"node":""}}"#]
        {
            assert!(asked(&with(&[("package.json", text)])).is_empty(), "{text}");
        }
        let project = with(&[("package.json", "{")]);
        let error = read(&project.build_context()).unwrap_err();
        assert!(error.message.starts_with("`package.json` is not valid JSON: "), "{error}");
    }

    #[test]
    fn nonsense_is_named_with_its_place() {
        let error = Requirement::new("tw\u{1b}enty", ".nvmrc").wanted().unwrap_err();
        assert_eq!(error.message, "`tw\\u{1b}enty` in `.nvmrc` is no version of Node.js");
    }
}
