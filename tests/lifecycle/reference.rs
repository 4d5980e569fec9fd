//! The same builds by the reference implementation, where there is one.
//!
//! `WAPACK_REFERENCE_LIFECYCLE` is a directory with its `lifecycle`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::chain::example;
use super::fixture::{Lifecycle, Platform};

/// Labels that are JSON.
const DOCUMENTS: [&str; 3] =
    ["io.buildpacks.build.metadata", "io.buildpacks.lifecycle.metadata", "io.buildpacks.project.metadata"];

/// The reference implementation, or aloud that there is none: it is no part of this repository,
/// so not even continuous integration has to have it.
#[expect(clippy::print_stderr, reason = "this is for whoever runs the tests")]
pub(super) fn reference() -> Option<Lifecycle> {
    let reference = Lifecycle::reference();
    if reference.is_none() {
        eprintln!(
            "NOTHING IS COMPARED: `WAPACK_REFERENCE_LIFECYCLE` names no directory with the reference's `lifecycle`"
        );
    }
    reference
}

/// Every difference between two values, as `path: ours | theirs`.
pub(super) fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let keys: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            for key in keys {
                let of =
                    |values: &serde_json::Map<String, Value>| values.get(key).cloned().unwrap_or_default();
                differences(&format!("{path}.{key}"), &of(ours), &of(theirs), found);
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                differences(&format!("{path}[{index}]"), ours, theirs, found);
            }
        }
        _ if ours == theirs => {}
        _ => found.push(format!("{path}: {ours} | {theirs}")),
    }
}

/// A configuration with its labels taken apart.
pub(super) fn opened(platform: &Platform) -> Value {
    let mut configuration = platform.image().configuration();
    for label in DOCUMENTS {
        if let Some(text) = configuration["config"]["Labels"][label].as_str() {
            let value: Value = serde_json::from_str(text).expect("a test's own files");
            configuration["config"]["Labels"][label] = value;
        }
    }
    configuration
}

/// In the same directory, one after the other: its path is part of layers.
fn both(api: &str) -> Option<BTreeMap<&'static str, (Value, Value)>> {
    let reference = reference()?;
    let mut platform = example(reference, api);
    let results = |platform: &Platform| {
        platform.build();
        let toml = |name| serde_json::to_value(platform.toml(name)).expect("a test's own files");
        BTreeMap::from([
            ("group", toml("layers/group.toml")),
            ("plan", toml("layers/plan.toml")),
            ("metadata", toml("layers/config/metadata.toml")),
            ("image", opened(platform)),
        ])
    };
    let theirs = results(&platform);
    for name in ["layers", "cache", "layout/registry.example/app"] {
        std::fs::remove_dir_all(platform.path(name)).expect("a test's own files");
    }
    for name in ["layers", "cache"] {
        std::fs::create_dir(platform.path(name)).expect("a test's own files");
    }
    platform.lifecycle = Lifecycle::ours();
    let ours = results(&platform);
    Some(ours.into_iter().map(|(name, ours)| (name, (ours, theirs[name].clone()))).collect())
}

/// Where the two differ on purpose: how a path begins, and how it ends.
const MEANT: &[(&str, &str)] = &[
    // CON-22: the specification has it, the reference does not write it.
    ("build.metadata.buildpacks[", "].api"),
    // CON-17: the specification's place for what the reference has in a label of its own.
    ("lifecycle.metadata.exec-env", ""),
    // Each says its own.
    ("build.metadata.launcher.version", ""),
    // The reference gives the digest that the run image would have if it wrote it again;
    // ours is the one it has.
    ("lifecycle.metadata.runImage.reference", ""),
];

/// Whether a difference is one of those.
pub(super) fn is_meant(difference: &str) -> bool {
    let path = difference.split(": ").next().unwrap_or_default();
    // DET-10: whoever went wrong anywhere counts, optional or not.
    if path.rsplit('.').next() == Some("code") {
        return difference.ends_with(": 21 | 20");
    }
    let Some((_, label)) = path.split_once("image.config.Labels.io.buildpacks.") else { return false };
    MEANT.iter().any(|(start, end)| label.starts_with(start) && label.ends_with(end))
}

#[test]
fn a_build_gives_what_the_reference_gives() {
    for api in ["0.12", "0.15"] {
        let Some(results) = both(api) else { return };
        let mut found = Vec::new();
        for (name, (ours, theirs)) in results {
            differences(name, &ours, &theirs, &mut found);
        }
        found.retain(|difference| !is_meant(difference));
        assert!(found.is_empty(), "Platform API {api}:\n{}", found.join("\n"));
    }
}

#[test]
fn command_lines_that_make_no_sense_end_as_with_the_reference() {
    let Some(reference) = reference() else { return };
    let lines = include_str!("lines.txt");
    let mut found = Vec::new();
    for line in lines.lines() {
        let mut words = line.split_whitespace();
        let (api, program) =
            (words.next().expect("a test's own files"), words.next().expect("a test's own files"));
        let arguments: Vec<&str> = words.collect();
        let code = |lifecycle: Lifecycle| {
            let mut platform = Platform::new(lifecycle, api);
            platform.variables.retain(|name, _| ["PATH", "CNB_PLATFORM_API"].contains(&name.as_str()));
            if api == "-" {
                platform.variables.remove("CNB_PLATFORM_API");
            }
            platform.run(program, &arguments).code
        };
        let (ours, theirs) = (code(Lifecycle::ours()), code(reference.clone()));
        if ours != theirs {
            found.push(format!("{line}: {ours}, not {theirs}"));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
