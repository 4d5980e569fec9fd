//! `project.toml`: what an app's author says of the app and of how it is built.
//!
//! The file belongs to the app, so its author may be hostile: names become
//! checked names here, and what a path in it may lead to is for others to decide.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;

use super::buildpack_toml::License;
use super::id::{BuildpackId, BuildpackVersion, ExecEnv};
use super::labels::{ProjectMetadata, ProjectSource};
use super::order::ExecEnvList;
use crate::toml_text::{self, TomlError};

/// The name of the file in an app's directory.
pub const PROJECT_FILE: &str = "project.toml";

/// The shell of an inline script that names none (PRJ-02).
const DEFAULT_SHELL: &str = "/bin/sh";

/// The version of an inline script that names none (PRJ-06).
const SCRIPT_VERSION: &str = "0.0.0";

/// Everything we read from `project.toml`.
///
/// # Spec
/// `project-descriptor.md` 0.1 and 0.2; PRJ-01 to PRJ-06. Schema 0.3 is pack's: 0.2
/// with execution environments for buildpacks and variables, of which only those for
/// `production` are there. Unknown keys are ignored, with a warning where one is likely
/// to be a slip.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProjectDescriptor {
    /// Who and what; every field may be empty.
    pub project: Project,
    /// A builder; empty when the file names none.
    pub builder: String,
    /// Which files of the app take part.
    pub files: FileChoice,
    /// Buildpacks instead of the builder's order.
    pub group: Vec<GroupEntry>,
    /// Buildpacks before every group of the builder's order.
    pub pre: Vec<GroupEntry>,
    /// Buildpacks after every group of the builder's order.
    pub post: Vec<GroupEntry>,
    /// Variables for the buildpacks, in the order written.
    pub env: Vec<(String, String)>,
    /// For the user; each is one sentence without a full stop.
    pub warnings: Vec<String>,
}

/// What a project is called and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Project {
    pub id: String,
    pub name: String,
    pub version: String,
    pub authors: Vec<String>,
    pub documentation_url: String,
    pub source_url: String,
    pub licenses: Vec<License>,
}

/// Which files of the app take part, by patterns as in `.gitignore`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum FileChoice {
    /// All of them.
    #[default]
    All,
    /// Only those that match.
    Include(Vec<String>),
    /// All but those that match.
    Exclude(Vec<String>),
}

/// A buildpack of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupEntry {
    pub buildpack: GroupBuildpack,
    /// Counted from 1.
    pub line: usize,
}

/// Where a buildpack of a group comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBuildpack {
    /// One that is at hand; without a version the latest.
    Id { id: BuildpackId, version: Option<BuildpackVersion> },
    /// A locator.
    Uri { uri: String, id: Option<BuildpackId> },
    /// A script in the file itself.
    Script { id: BuildpackId, version: BuildpackVersion, script: Script },
}

/// A buildpack's `build` as a script; its `detect` always passes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Script {
    /// Buildpack API.
    pub api: String,
    pub inline: String,
    #[serde(default = "default_shell")]
    pub shell: String,
}

fn default_shell() -> String {
    DEFAULT_SHELL.to_owned()
}

#[derive(Deserialize)]
struct VersionFile {
    #[serde(default, rename = "_")]
    header: Option<VersionTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct VersionTable {
    schema_version: Option<Spanned<String>>,
}

/// Schema 0.2.
#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    #[serde(rename = "_")]
    header: ProjectTable,
    io: IoTable,
}

impl File {
    /// Without what is for other execution environments; 0.3 has one place for variables.
    fn for_environment(mut self, exec_env: &ExecEnv) -> Self {
        let build = &mut self.io.buildpacks;
        for group in [&mut build.group, &mut build.pre.group, &mut build.post.group] {
            group.retain(|entry| exec_env.is_among(&entry.as_ref().exec_env.0));
        }
        build.build.env.retain(|variable| exec_env.is_among(&variable.exec_env.0));
        build.env.build.clear();
        self
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct IoTable {
    buildpacks: BuildTable,
}

/// Schema 0.1.
#[derive(Deserialize, Default)]
#[serde(default)]
struct OldFile {
    project: ProjectTable,
    build: OldBuildTable,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct ProjectTable {
    id: String,
    name: String,
    version: String,
    authors: Vec<String>,
    documentation_url: String,
    source_url: String,
    licenses: Vec<Spanned<License>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct BuildTable {
    builder: String,
    include: Option<Spanned<Vec<String>>>,
    exclude: Option<Spanned<Vec<String>>>,
    group: Vec<Spanned<GroupTable>>,
    pre: GroupsTable,
    post: GroupsTable,
    build: EnvTable,
    env: OldEnvTable,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct OldBuildTable {
    builder: String,
    include: Option<Spanned<Vec<String>>>,
    exclude: Option<Spanned<Vec<String>>>,
    buildpacks: Vec<Spanned<GroupTable>>,
    env: Vec<Variable>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GroupsTable {
    group: Vec<Spanned<GroupTable>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EnvTable {
    env: Vec<Variable>,
}

/// The older place of the same variables.
#[derive(Deserialize, Default)]
#[serde(default)]
struct OldEnvTable {
    build: Vec<Variable>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: String,
    #[serde(default, rename = "exec-env")]
    exec_env: ExecEnvList,
}

#[derive(Deserialize)]
struct GroupTable {
    id: Option<BuildpackId>,
    version: Option<BuildpackVersion>,
    uri: Option<String>,
    script: Option<Script>,
    #[serde(default, rename = "exec-env")]
    exec_env: ExecEnvList,
}

impl ProjectDescriptor {
    /// Parses the text of a `project.toml`.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let found: VersionFile = toml_text::parse(text)?;
        let version = found.header.and_then(|header| header.schema_version);
        let mut descriptor = match version.as_ref().map(|version| version.as_ref().as_str()) {
            Some("0.2") => Self::of(text, toml_text::parse(text)?)?,
            Some("0.3") => {
                Self::of(text, toml_text::parse::<File>(text)?.for_environment(&ExecEnv::default()))?
            }
            Some("0.1") | None => Self::of_old(text, toml_text::parse(text)?)?,
            Some(other) => {
                let offset = version.as_ref().map_or(0, |version| version.span().start);
                let message = format!(
                    "schema version `{}` is not known; known are 0.1, 0.2 and 0.3",
                    other.escape_debug()
                );
                return Err(TomlError::at(text, offset, message));
            }
        };
        if version.is_none() {
            descriptor.warnings.insert(
                0,
                "it does not say `schema-version` under `[_]` and is read as schema 0.1".to_owned(),
            );
        }
        let is_old = version.is_none_or(|version| version.as_ref() == "0.1");
        descriptor.warnings.extend(slips(text, is_old));
        Ok(descriptor)
    }

    fn of(text: &str, file: File) -> Result<Self, TomlError> {
        let build = file.io.buildpacks;
        let mut env = variables(build.env.build);
        // Where both are there the newer place wins, so it comes last.
        env.extend(variables(build.build.env));
        Ok(Self {
            project: project(text, file.header)?,
            builder: build.builder,
            files: file_choice(text, build.include, build.exclude)?,
            group: entries(text, build.group)?,
            pre: entries(text, build.pre.group)?,
            post: entries(text, build.post.group)?,
            env,
            warnings: Vec::new(),
        })
    }

    fn of_old(text: &str, file: OldFile) -> Result<Self, TomlError> {
        let build = file.build;
        Ok(Self {
            project: project(text, file.project)?,
            builder: build.builder,
            files: file_choice(text, build.include, build.exclude)?,
            group: entries(text, build.buildpacks)?,
            pre: Vec::new(),
            post: Vec::new(),
            env: variables(build.env),
            warnings: Vec::new(),
        })
    }

    /// What the image's label says of where the source came from.
    ///
    /// # Spec
    /// PRJ-09, LBL-13.
    #[must_use]
    pub fn metadata(&self) -> ProjectMetadata {
        let Project { version, source_url, .. } = &self.project;
        let entry = |name: &str, text: &String| {
            let value = Some(text).filter(|text| !text.is_empty()).map(|text| Value::String(text.clone()));
            value.map(|value| (name.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>()
        };
        let is_told = !version.is_empty() || !source_url.is_empty();
        ProjectMetadata {
            source: is_told.then(|| ProjectSource {
                kind: "project".to_owned(),
                version: entry("declared", version),
                metadata: entry("url", source_url),
            }),
        }
    }
}

/// PRJ-05
fn project(text: &str, table: ProjectTable) -> Result<Project, TomlError> {
    let mut licenses = Vec::with_capacity(table.licenses.len());
    for license in table.licenses {
        let offset = license.span().start;
        let license = license.into_inner();
        if license.license_type.is_empty() && license.uri.is_empty() {
            return Err(TomlError::at(text, offset, "a license needs `type` or `uri`"));
        }
        licenses.push(license);
    }
    Ok(Project {
        id: table.id,
        name: table.name,
        version: table.version,
        authors: table.authors,
        documentation_url: table.documentation_url,
        source_url: table.source_url,
        licenses,
    })
}

/// PRJ-04
fn file_choice(
    text: &str,
    include: Option<Spanned<Vec<String>>>,
    exclude: Option<Spanned<Vec<String>>>,
) -> Result<FileChoice, TomlError> {
    match (include, exclude) {
        (None, None) => Ok(FileChoice::All),
        (Some(include), None) => Ok(FileChoice::Include(include.into_inner())),
        (None, Some(exclude)) => Ok(FileChoice::Exclude(exclude.into_inner())),
        (Some(include), Some(exclude)) => {
            let offset = include.span().start.max(exclude.span().start);
            Err(TomlError::at(text, offset, "`include` and `exclude` cannot both be given"))
        }
    }
}

fn entries(text: &str, tables: Vec<Spanned<GroupTable>>) -> Result<Vec<GroupEntry>, TomlError> {
    let one = |table: Spanned<GroupTable>| {
        let offset = table.span().start;
        let buildpack = entry(table.into_inner()).map_err(|message| TomlError::at(text, offset, message))?;
        Ok(GroupEntry { buildpack, line: TomlError::at(text, offset, "").line })
    };
    tables.into_iter().map(one).collect()
}

/// PRJ-05, PRJ-06
fn entry(table: GroupTable) -> Result<GroupBuildpack, &'static str> {
    Ok(match (table.id, table.version, table.uri, table.script) {
        (_, _, Some(_), Some(_)) => return Err("a buildpack has `uri` or `script`, not both"),
        (_, Some(_), Some(_), None) => return Err("a buildpack has `uri` or `version`, not both"),
        (id, None, Some(uri), None) => GroupBuildpack::Uri { uri, id },
        (Some(id), version, None, Some(script)) => {
            let version = match version {
                Some(version) => version,
                None => SCRIPT_VERSION.parse().map_err(|_| "there is no version")?,
            };
            GroupBuildpack::Script { id, version, script }
        }
        (Some(id), version, None, None) => GroupBuildpack::Id { id, version },
        (None, _, None, Some(_)) => return Err("a buildpack with a `script` needs an `id`"),
        (None, _, None, None) => return Err("a buildpack needs an `id` or a `uri`"),
    })
}

fn variables(variables: Vec<Variable>) -> Vec<(String, String)> {
    variables.into_iter().map(|variable| (variable.name, variable.value)).collect()
}

/// Keys that say nothing here, but would under another name or schema.
fn slips(text: &str, is_old: bool) -> Vec<String> {
    let Ok(table) = toml::from_str::<toml::Table>(text) else { return Vec::new() };
    let known: &[(&[&str], &[&str])] = if is_old {
        &[
            (&[], &["_", "project", "build", "metadata"]),
            (
                &["project"],
                &["id", "name", "version", "authors", "documentation-url", "source-url", "licenses"],
            ),
            (&["build"], &["builder", "include", "exclude", "buildpacks", "env"]),
        ]
    } else {
        &[
            // Other platforms have tables of their own beside ours.
            (
                &["_"],
                &[
                    "schema-version",
                    "id",
                    "name",
                    "version",
                    "authors",
                    "documentation-url",
                    "source-url",
                    "licenses",
                    "metadata",
                ],
            ),
            (
                &["io", "buildpacks"],
                &["builder", "include", "exclude", "group", "pre", "post", "build", "env"],
            ),
            (&["io", "buildpacks", "build"], &["env"]),
        ]
    };
    let mut warnings = Vec::new();
    for (path, names) in known {
        let found = path.iter().try_fold(&table, |table, name| table.get(*name)?.as_table());
        for key in
            found.into_iter().flat_map(|table| table.keys()).filter(|key| !names.contains(&key.as_str()))
        {
            let place: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
            warnings
                .push(format!("its key `{}` is not known and says nothing", place.join(".").escape_debug()));
        }
    }
    if !is_old {
        let old = ["project", "build"].into_iter().filter(|name| table.contains_key(*name));
        warnings.extend(
            old.map(|name| format!("its table `[{name}]` is of schema 0.1 and says nothing since 0.2")),
        );
    }
    warnings
}

#[cfg(test)]
mod tests;
