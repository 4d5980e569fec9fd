//! The text of `node_modules/.package-lock.json`, in which npm notes what it
//! installed.

use serde_json::{Map, Value, json};

use crate::bins;
use crate::collate;
use crate::lock::{Dependencies, Entry, Text};
use crate::manifest::Layout;
use crate::select::Selection;
use crate::tree::{Id, Node, ROOT, Tree};

/// What npm writes there for the packages of `selection`.
pub fn text(tree: &Tree<'_>, selection: &Selection, layout: &Layout) -> String {
    let packages: Map<String, Value> = (0..tree.nodes.len())
        .filter(|&id| id != ROOT && selection.stays(id) && !is_stale(tree, id))
        .map(|id| (tree.nodes[id].place.as_str().to_owned(), Value::Object(entry(tree, id))))
        .collect();
    let mut file = Map::from_iter([
        ("lockfileVersion".to_owned(), json!(3)),
        ("requires".to_owned(), json!(true)),
        ("packages".to_owned(), Value::Object(packages)),
    ]);
    for (field, text) in [("name", &tree.title.0), ("version", &tree.title.1)] {
        if let Some(text) = text {
            file.insert(field.to_owned(), json!(text.as_str()));
        }
    }
    let mut text = String::new();
    write(&mut text, &Value::Object(file), &layout.indent, 0);
    text.push('\n');
    if layout.newline == "\n" { text } else { text.replace('\n', &layout.newline) }
}

/// A directory that was a package of the workspace once.
fn is_stale(tree: &Tree<'_>, id: Id) -> bool {
    let node = &tree.nodes[id];
    node.flags.extraneous && node.parent.is_none() && node.outer == Some(ROOT)
}

fn entry(tree: &Tree<'_>, id: Id) -> Map<String, Value> {
    let node = &tree.nodes[id];
    if let Some(target) = node.target {
        return Map::from_iter([
            ("resolved".to_owned(), json!(tree.nodes[target].place.as_str())),
            ("link".to_owned(), json!(true)),
        ]);
    }
    let mut fields = Map::new();
    let package = &node.entry;
    let mut put = |name: &str, value: Value| {
        if !is_empty(&value) {
            fields.insert(name.to_owned(), value);
        }
    };
    put("name", name(node).map(Value::from).unwrap_or_default());
    put("version", text_of(package.version.as_ref()));
    put("resolved", text_of(package.resolved.as_ref()));
    put("integrity", text_of(package.integrity.as_ref()));
    describe(package, node, &mut put);
    if node.parent.is_none() {
        put("devDependencies", object(&package.dev_dependencies));
    }
    put("inBundle", json!(node.bundler.is_some()));
    put("hasShrinkwrap", json!(package.has_shrinkwrap));
    put("hasInstallScript", json!(package.has_install_script));
    let flags = node.flags;
    put("extraneous", json!(flags.extraneous));
    if !flags.extraneous {
        put("peer", json!(flags.peer));
        put("dev", json!(flags.dev));
        put("optional", json!(flags.optional));
        put("devOptional", json!(flags.dev_optional && !flags.dev && !flags.optional));
    }
    fields
}

/// What comes from the package's own description.
fn describe(package: &Entry<'_>, node: &Node<'_>, put: &mut impl FnMut(&str, Value)) {
    put("dependencies", object(&package.dependencies));
    put("peerDependencies", object(&package.peer_dependencies));
    put("peerDependenciesMeta", Value::Object(package.peer_dependencies_meta.clone()));
    put("optionalDependencies", object(&package.optional_dependencies));
    put("bundleDependencies", package.bundle_dependencies.clone());
    put("acceptDependencies", Value::Object(package.accept_dependencies.clone()));
    put("funding", package.funding.clone());
    put("engines", package.engines.clone());
    put("os", json!(package.os));
    put("cpu", json!(package.cpu));
    put("libc", json!(package.libc));
    put(
        "license",
        match &package.license {
            Value::Object(license) if license.get("type").is_some_and(|kind| !is_empty(kind)) => {
                license["type"].clone()
            }
            license => license.clone(),
        },
    );
    put("bin", json!(bins::normalized(&package.bin, node.package_name())));
    put("deprecated", package.deprecated.clone());
    put("workspaces", package.workspaces.clone());
}

/// A package's name, where its directory does not say it.
fn name<'n>(node: &'n Node<'_>) -> Option<&'n str> {
    node.entry.name.as_ref().map(Text::as_str).filter(|name| *name != node.name.as_str())
}

fn text_of(text: Option<&Text<'_>>) -> Value {
    text.map(|text| Value::from(text.as_str())).unwrap_or_default()
}

fn object(dependencies: &Dependencies<'_>) -> Value {
    dependencies.iter().map(|(name, version)| (name.as_str().to_owned(), json!(version.as_str()))).collect()
}

/// What JavaScript takes for false, and empty lists and objects.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Names that npm puts before all others of their kind.
const FIRST: [&str; 8] =
    ["name", "version", "lockfileVersion", "resolved", "integrity", "requires", "packages", "dependencies"];

/// Writes JSON as npm does: objects after everything else, then by name, and
/// names that are numbers before both, because JavaScript keeps them there.
fn write(text: &mut String, value: &Value, indent: &str, depth: usize) {
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        for _ in 0..depth {
            text.push_str(indent);
        }
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by(|(left, a), (right, b)| {
                let number = |name: &str| {
                    name.parse::<u32>()
                        .ok()
                        .filter(|number| number.to_string() == name && *number != u32::MAX)
                };
                let first = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
                let key = |name: &str, value: &Value| {
                    let number = number(name);
                    (number.is_none(), number, value.is_object(), first(name))
                };
                key(left, a).cmp(&key(right, b)).then_with(|| collate::compare(left, right))
            });
            text.push('{');
            for (index, (name, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                line(text, depth + 1);
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push_str(": ");
                write(text, value, indent, depth + 1);
            }
            line(text, depth);
            text.push('}');
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                line(text, depth + 1);
                write(text, item, indent, depth + 1);
            }
            line(text, depth);
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected text is what npm's own `json-stringify-nice` makes of it.
    #[test]
    fn json_is_in_the_order_of_npm() {
        let value = json!({
            "engines": {"node": ">=1"}, "version": "1", "b": ["x", {}], "B": [], "name": "n", "10": 1, "9": {"a": "é\u{1f}\""},
            "dependencies": {"y": "1"}, "bin": {"x": "y"}
        });
        let mut text = String::new();
        write(&mut text, &value, " ", 0);
        let expected = "{\n \"9\": {\n  \"a\": \"é\\u001f\\\"\"\n },\n \"10\": 1,\n \"name\": \"n\",\n \"version\": \"1\",\n \
                        \"b\": [\n  \"x\",\n  {}\n ],\n \"B\": [],\n \"dependencies\": {\n  \"y\": \"1\"\n },\n \"bin\": \
                        {\n  \"x\": \"y\"\n },\n \"engines\": {\n  \"node\": \">=1\"\n }\n}";
        assert_eq!(text, expected);
    }
}
