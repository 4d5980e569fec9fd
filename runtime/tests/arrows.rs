//! Who may use whom inside the library; the table in `ARCHITECTURE.md`, enforced.
//!
//! Reads the paths that begin with `crate::` or `super::` in every source file.
//! Comments may name anything, and unit tests may use anything. A test at the
//! end plants violations, so that the rules are seen to fail.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy.toml reaches only the tests themselves")]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules by row, the lowest first. Arrows point down; modules on one row do not know each other.
const ROWS: [(usize, &[&str]); 6] = [
    (
        0,
        &[
            "cancel",
            "cnb",
            "event",
            "fault",
            "grant",
            "http",
            "integrity",
            "limits",
            "network",
            "oci",
            "policy",
            "source",
            "text",
            "toml_text",
            "tree",
            "walk",
        ],
    ),
    (1, &["cache_dir", "catalog", "executor", "plan", "registry", "store"]),
    (2, &["images", "sources", "workspace"]),
    (3, &["inspection", "phase"]),
    (4, &["attestation", "error"]),
    (5, &["lifecycle", "programs", "testkit"]),
];

/// Row 0 is the exception to "do not know each other": these are plain words that anything may use, …
const WORDS: [&str; 9] =
    ["cancel", "cnb", "fault", "grant", "integrity", "limits", "network", "text", "toml_text"];
/// … these uses among the others are meant, …
const MEANT: [(&str, &str); 2] = [("oci", "tree"), ("source", "walk")];
/// … and these are not, words or not: an image has never heard of a buildpack.
const NEVER: [(&str, &str); 1] = [("oci", "cnb")];

/// A phase may know this phase's results, for they are its input. Nothing else of another phase.
const SHARED_PHASE: &str = "values";

/// What only some files may do, and why.
const RESERVED: [(&str, &[&str], &str); 3] = [
    ("preopened_dir", &["executor/wasm/sandbox.rs"], "one file opens directories for guests"),
    (
        "process::Command",
        &["executor/container/engine.rs", "executor/process/", "executor/worker/"],
        "only container engines, classic buildpacks and the worker are started",
    ),
    ("env::var", &["executor/worker/"], "the library takes values; the command line reads the environment"),
];

#[test]
fn arrows_point_down() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for file in rust_files(&source) {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        found.extend(violations(&name, &fs::read_to_string(&file).unwrap()));
    }
    assert!(
        found.is_empty(),
        "{} uses that ARCHITECTURE.md does not allow:\n  {}\n\
         Move the code to where it belongs; if the rule is wrong, change it in ARCHITECTURE.md and in this test.",
        found.len(),
        found.join("\n  ")
    );
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Everything in `source` that the rules forbid in the file `name` (relative to `src`).
fn violations(name: &str, source: &str) -> Vec<String> {
    if name.ends_with("/tests.rs") || name.contains("/tests/") {
        return Vec::new();
    }
    let code = code_of(source);
    let mut found = Vec::new();
    for (word, allowed, why) in RESERVED {
        if code.contains(word) && !allowed.iter().any(|place| name.starts_with(place)) {
            found.push(format!("{name} says `{word}`, which is for {} only: {why}", allowed.join(" and ")));
        }
    }
    let module = module_of(name);
    // The crate's root is its front door: it names everything.
    let Some(from) = module.first() else { return found };
    for path in used_paths(&code, &module) {
        if let Some(problem) = problem(from, &module, &path) {
            found.push(format!("{name} uses `{}`: {problem}", path.join("::")));
        }
    }
    found.dedup();
    found
}

fn problem(from: &str, module: &[String], path: &[String]) -> Option<String> {
    let to = path.first()?;
    // A constant of the crate itself, such as a version, belongs to no module.
    if to.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_') {
        return None;
    }
    if to == from {
        let other = path.get(1).filter(|_| from == "phase")?;
        let own = module.get(1)?;
        let is_module = other.starts_with(|first: char| first.is_ascii_lowercase());
        let crosses = is_module && other != own && other != SHARED_PHASE;
        return crosses.then(|| format!("the phase `{own}` must not know the phase `{other}`"));
    }
    let (Some(from_row), Some(to_row)) = (row(from), row(to)) else {
        let unknown = if row(from).is_none() { from } else { to };
        return Some(format!(
            "`{unknown}` has no row; give it one here and in ARCHITECTURE.md (and name modules, not re-exports)"
        ));
    };
    if NEVER.contains(&(from, to)) {
        return Some(format!("`{from}` must never have heard of `{to}`"));
    }
    if to_row < from_row {
        return None;
    }
    if to_row > from_row {
        return Some(format!("`{from}` (row {from_row}) is below `{to}` (row {to_row})"));
    }
    let meant = from_row == 0 && (WORDS.contains(&to.as_str()) || MEANT.contains(&(from, to)));
    (!meant).then(|| format!("`{from}` and `{to}` are both on row {from_row}"))
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().find(|(_, modules)| modules.contains(&module)).map(|(row, _)| *row)
}

/// `executor/wasm/mod.rs` is the module `executor::wasm`.
fn module_of(name: &str) -> Vec<String> {
    let mut parts: Vec<String> = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod" || (parts.len() == 1 && last == "lib")) {
        parts.pop();
    }
    parts
}

/// The source without comments and without the unit tests at its end.
fn code_of(source: &str) -> String {
    let mut code = String::new();
    let mut test_only = false;
    for line in source.lines() {
        if test_only && line.starts_with("mod ") {
            break;
        }
        test_only = line == "#[cfg(test)]" || (test_only && line.starts_with("#["));
        code.push_str(without_comment(line));
        code.push('\n');
    }
    code
}

fn without_comment(line: &str) -> &str {
    line.match_indices("//")
        .find(|(at, _)| line[..*at].matches('"').count().is_multiple_of(2))
        .map_or(line, |(at, _)| &line[..at])
}

/// Every path used, from the crate's root, as far as two names.
fn used_paths(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for prefix in ["crate::", "super::"] {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back();
            // The rest of a longer name, or a `super` that the first one of a chain counts.
            if before.is_some_and(|before| before.is_alphanumeric() || "_$:".contains(before)) {
                continue;
            }
            let mut base = if prefix == "crate::" { Vec::new() } else { module.to_vec() };
            let mut rest = &code[at..];
            rest = rest.strip_prefix("crate::").unwrap_or(rest);
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
            for tail in expand(rest) {
                paths.push(base.iter().cloned().chain(tail).take(2).collect());
            }
        }
    }
    paths
}

/// The paths of a use tree: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn expand(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        return items(group).iter().flat_map(|item| expand(item)).collect();
    }
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return vec![Vec::new()];
    }
    match rest.strip_prefix("::") {
        None => vec![vec![name.to_owned()]],
        Some(rest) => expand(rest)
            .into_iter()
            .map(|tail| std::iter::once(name.to_owned()).chain(tail).collect())
            .collect(),
    }
}

/// The items of a group, up to the brace that closes it.
fn items(group: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.retain(|item| !item.trim().is_empty());
    items
}

#[test]
fn planted_violations_are_found() {
    let cases = [
        ("executor/mod.rs", "use crate::phase::detect::Detected;", "is below `phase`"),
        ("executor/wasm/mod.rs", "use super::super::store::Store;", "both on row 1"),
        ("store/mod.rs", "use crate::{cnb::id, executor::Executor};", "both on row 1"),
        ("plan.rs", "fn a() { crate::lifecycle::build(); }", "is below `lifecycle`"),
        ("oci/layer.rs", "use crate::cnb::layer::LayerTypes;", "must never have heard of `cnb`"),
        ("tree.rs", "use crate::event::Event;", "both on row 0"),
        ("phase/detect.rs", "use super::build::Built;", "must not know the phase `build`"),
        ("phase/detect.rs", "use crate::{\n    cnb,\n    phase::{export, Thing},\n};", "the phase `export`"),
        ("phase/build.rs", "use crate::brand_new::Thing;", "`brand_new` has no row"),
        ("phase/build.rs", "use crate::Error;", "`Error` has no row"),
        ("brand_new.rs", "use crate::cnb;", "`brand_new` has no row"),
        ("phase/build.rs", "builder.preopened_dir(path);", "one file opens directories"),
        ("store/mod.rs", "use std::process::Command;", "says `process::Command`"),
        ("lib.rs", "std::env::var(\"HOME\");", "says `env::var`"),
        ("cnb/id.rs", "#[cfg(test)]\nuse crate::plan::Plan;\nfn a() {}", "is below `plan`"),
    ];
    for (name, source, expected) in cases {
        let found = violations(name, source).join("\n");
        assert!(found.contains(expected), "{name}: {source:?} gave {found:?}");
    }
}

#[test]
fn lawful_code_is_left_alone() {
    let cases = [
        ("lib.rs", "pub use crate::lifecycle::build;"),
        ("lifecycle.rs", "use crate::phase::{detect, build};\nuse crate::store::Store;"),
        ("phase/detect.rs", "use crate::executor::{Executor, wasm::Cell};\nuse super::values::Built;"),
        ("phase/detect.rs", "use crate::phase::detect::order;\nuse super::Phase;"),
        ("executor/wasm/cell.rs", "use super::limits;\nuse crate::limits::CallLimits;"),
        ("executor/wasm/sandbox.rs", "builder.preopened_dir(path);"),
        ("executor/mod.rs", "/// For [`crate::phase`] and `std::process::Command`.\n// crate::lifecycle"),
        ("oci/layer.rs", "use crate::tree::Tree;\nuse crate::fault::Fault;"),
        ("store/mod.rs", "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::lifecycle;\n}"),
        ("store/mod.rs", "let text = \"// not a comment\"; my_crate::plan::x();"),
        ("executor/wasm/tests.rs", "use crate::lifecycle;"),
        ("executor/wasm/engine.rs", "use crate::WASMTIME_VERSION;"),
    ];
    for (name, source) in cases {
        assert_eq!(violations(name, source), Vec::<String>::new(), "{name}: {source:?}");
    }
}
