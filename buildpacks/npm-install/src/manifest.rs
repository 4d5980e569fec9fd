//! A `package.json` of the app, in the form that npm brings it into before it
//! looks at it. Knows nothing of locks.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use wapack_sdk::{Error, fs};

use crate::lock::{Dependencies, Entry, Text};

/// What a `package.json` of the app says.
#[derive(Debug, Clone, Default)]
pub struct Manifest {
    /// What npm would write about it into a lock.
    pub entry: Entry<'static>,
    /// Its scripts, by name.
    pub scripts: BTreeMap<String, String>,
    /// The module that stands for the package.
    pub main: Option<String>,
    /// Its own settings, which scripts find in their environment.
    pub config: Map<String, Value>,
    /// Whether it changes what packages of others ask for.
    pub has_overrides: bool,
    /// How the file is laid out.
    pub layout: Layout,
}

/// How a JSON file is laid out; npm keeps to it in what it writes beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// What a level is indented by.
    pub indent: String,
    /// The end of a line.
    pub newline: String,
}

impl Default for Layout {
    fn default() -> Self {
        Self { indent: "  ".into(), newline: "\n".into() }
    }
}

impl Manifest {
    /// Reads `package.json` in `directory`; `None` when there is none. `shown`
    /// is what errors call it.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn read(directory: &Path, shown: &str) -> Result<Option<Self>, Error> {
        let path = directory.join("package.json");
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = fs::read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        Self::parse(&text).map(Some).map_err(|reason| {
            Error::app(format!("cannot read `{shown}`: {reason}")).hint("it has to be one JSON object")
        })
    }

    /// Reads the text of a `package.json`.
    ///
    /// # Errors
    /// Why it is no JSON object.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_start_matches('\u{feff}');
        let fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let string = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let scripts: BTreeMap<String, String> = object(fields.get("scripts"))
            .filter_map(|(name, script)| Some((name.clone(), script.as_str()?.to_owned())))
            .collect();
        Ok(Self {
            entry: entry(&fields, &scripts),
            scripts,
            main: string("main"),
            config: object(fields.get("config")).map(|(name, value)| (name.clone(), value.clone())).collect(),
            has_overrides: object(fields.get("overrides")).next().is_some(),
            layout: Layout::of(text),
        })
    }

    /// The package's name.
    pub fn name(&self) -> Option<&str> {
        self.entry.name.as_ref().map(Text::as_str)
    }

    /// The package's version.
    pub fn version(&self) -> Option<&str> {
        self.entry.version.as_ref().map(Text::as_str)
    }

    /// The versions of Node that it is for.
    pub fn node_version(&self) -> Option<&str> {
        self.entry.engines.get("node").and_then(Value::as_str).filter(|range| !range.trim().is_empty())
    }
}

/// The part that npm would write into a lock.
fn entry(fields: &Map<String, Value>, scripts: &BTreeMap<String, String>) -> Entry<'static> {
    let value = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(Text::owned);
    let list = |name: &str| match fields.get(name) {
        Some(Value::String(one)) => Some(vec![one.clone()]),
        Some(Value::Array(many)) => Some(many.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        _ => None,
    };
    let optional_dependencies = dependencies(fields, "optionalDependencies");
    let mut needed = dependencies(fields, "dependencies");
    needed.retain(|name, _| !optional_dependencies.contains_key(name));
    let bundled = match fields.get("bundleDependencies").or_else(|| fields.get("bundledDependencies")) {
        Some(Value::Bool(true)) => needed.keys().map(Text::as_str).collect(),
        Some(Value::Object(names)) => names.keys().cloned().collect(),
        Some(names @ Value::Array(_)) => names.clone(),
        _ => Value::Null,
    };
    Entry {
        name: text("name"),
        version: text("version"),
        has_install_script: ["install", "preinstall", "postinstall"]
            .iter()
            .any(|event| scripts.get(*event).is_some_and(|script| !script.is_empty())),
        dependencies: needed,
        dev_dependencies: dependencies(fields, "devDependencies"),
        optional_dependencies,
        peer_dependencies: dependencies(fields, "peerDependencies"),
        peer_dependencies_meta: fields
            .get("peerDependenciesMeta")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default(),
        accept_dependencies: fields
            .get("acceptDependencies")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default(),
        bundle_dependencies: bundled,
        bin: value("bin"),
        engines: value("engines"),
        os: list("os"),
        cpu: list("cpu"),
        libc: list("libc"),
        license: value("license"),
        funding: match value("funding") {
            Value::String(url) => json!({ "url": url }),
            other => other,
        },
        deprecated: value("deprecated"),
        workspaces: value("workspaces"),
        ..Entry::default()
    }
}

fn dependencies(fields: &Map<String, Value>, name: &str) -> Dependencies<'static> {
    object(fields.get(name))
        .filter_map(|(name, version)| Some((Text::owned(name), Text::owned(version.as_str()?))))
        .collect()
}

fn object(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

impl Layout {
    /// How `text` is laid out: what stands between its first brace and the
    /// first name. Everything on one line is as good as no layout.
    fn of(text: &str) -> Self {
        let inside = text.trim_start().trim_start_matches(['{', '[']);
        let lines = inside.trim_start_matches(['\r', '\n']);
        let newline = &inside[..inside.len() - lines.len()];
        let indent: String =
            lines.chars().take_while(|character| character.is_whitespace()).take(10).collect();
        let default = Self::default();
        if newline.is_empty() {
            return default;
        }
        Self { indent: if indent.is_empty() { default.indent } else { indent }, newline: newline.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_optional_is_not_needed_as_well() {
        let manifest = Manifest::parse(
            r#"{"dependencies":{"a":"1","b":"2","odd":{}},"optionalDependencies":{"b":"2"},"bundledDependencies":true,
                "funding":"somewhere","os":"linux","scripts":{"postinstall":"x","odd":1},"engines":{"node":">=20"}}"#,
        )
        .unwrap();
        let names: Vec<&str> = manifest.entry.dependencies.keys().map(Text::as_str).collect();
        assert_eq!(names, ["a"]);
        assert_eq!(manifest.entry.bundle_dependencies, json!(["a"]));
        assert_eq!(manifest.entry.funding, json!({ "url": "somewhere" }));
        assert_eq!(manifest.entry.os, Some(vec!["linux".to_owned()]));
        assert!(manifest.entry.has_install_script);
        assert_eq!(manifest.scripts.len(), 1);
        assert_eq!(manifest.node_version(), Some(">=20"));
    }

    #[test]
    fn the_layout_is_the_one_of_the_first_lines() {
        let layout = |text| {
            let layout = Layout::of(text);
            (layout.indent, layout.newline)
        };
        assert_eq!(layout("{\n  \"a\": 1\n}"), ("  ".into(), "\n".into()));
        assert_eq!(layout("{\r\n\t\"a\": 1}"), ("\t".into(), "\r\n".into()));
        assert_eq!(layout("{\"a\":1}"), ("  ".into(), "\n".into()));
    }

    #[test]
    fn a_mark_in_front_is_fine_and_other_text_is_not() {
        assert!(Manifest::parse("\u{feff}{}").is_ok());
        assert!(Manifest::parse("[]").is_err());
        assert!(Manifest::parse("{").is_err());
    }
}
