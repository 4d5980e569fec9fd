//! Builds made up from seeds, done twice: by the programs one by one and by the creator, and
//! by the reference implementation where there is one.
//!
//! `WAPACK_RANDOM_SEEDS=1000..2000` runs these seeds instead of the few of every day.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};

use super::fixture::{IMAGE, Lifecycle, Platform};
use super::random;
use super::reference::{differences, is_meant, opened, reference};

/// The seeds to run.
fn seeds(usual: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("WAPACK_RANDOM_SEEDS") else { return usual };
    let range = text.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
    range.unwrap_or_else(|| panic!("`WAPACK_RANDOM_SEEDS` is `{text}`, and not like `0..100`"))
}

/// How the phases are run.
#[derive(Clone, Copy)]
enum By {
    Programs,
    Creator,
}

/// Two builds, the second with new directories, the cache and the image of the first.
fn builds(platform: &Platform, by: By) -> BTreeMap<String, Value> {
    for name in ["cache", "layout/registry.example/app", "dump"] {
        let _ = std::fs::remove_dir_all(platform.path(name));
    }
    let _ = std::fs::remove_file(platform.path("app/changed"));
    let mut results = BTreeMap::new();
    for directory in ["cache", "dump"] {
        new_directory(platform, directory);
    }
    for number in ["1", "2"] {
        new_directory(platform, "layers");
        platform.file("number", number, 0o644);
        let code = run(platform, by);
        let mut put = |name: &str, value: Value| results.insert(format!("{number}.{name}"), value);
        put("code", json!(code));
        for name in ["layers/group.toml", "layers/config/metadata.toml"] {
            put(name, json!(std::fs::read_to_string(platform.path(name)).ok()));
        }
        put("plan", plan(platform));
        if platform.path("layout/registry.example/app").exists() {
            put("image", opened(platform));
        }
        put("cache", cache(platform));
    }
    for entry in std::fs::read_dir(platform.path("dump")).expect("a test's own files") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = String::from_utf8_lossy(&std::fs::read(&path).expect("a file")).into_owned();
        // The order of plans is random with the reference.
        let is_plan = path.extension().is_some_and(|extension| extension == "plan");
        let value = if is_plan { sorted(&text) } else { json!(text) };
        results.insert(format!("dump/{name}"), value);
    }
    results
}

fn new_directory(platform: &Platform, name: &str) {
    let _ = std::fs::remove_dir_all(platform.path(name));
    std::fs::create_dir(platform.path(name)).expect("a directory");
    super::fixture::give_if_root(&platform.path(name));
}

/// The code of the first phase that fails, or 0.
fn run(platform: &Platform, by: By) -> i32 {
    let launcher = platform.launcher();
    let mut export: Vec<&str> = launcher.iter().map(String::as_str).collect();
    export.push(IMAGE);
    match by {
        By::Creator => platform.run("creator", &export).code,
        By::Programs => [
            ("analyzer", &[IMAGE][..]),
            ("detector", &[]),
            ("restorer", &[]),
            ("builder", &[]),
            ("exporter", &export),
        ]
        .into_iter()
        .map(|(program, arguments)| platform.run(program, arguments).code)
        .find(|code| *code != 0)
        .unwrap_or(0),
    }
}

/// Entries of the plan, in an order of their own.
fn plan(platform: &Platform) -> Value {
    let Ok(text) = std::fs::read_to_string(platform.path("layers/plan.toml")) else { return Value::Null };
    let table: toml::Table = text.parse().expect("a plan is TOML");
    let mut plan = serde_json::to_value(table).expect("a test's own files");
    if let Some(entries) = plan.get_mut("entries").and_then(Value::as_array_mut) {
        entries.sort_by_key(|entry| entry["requires"][0]["name"].to_string());
    }
    plan
}

fn sorted(plan: &str) -> Value {
    let mut entries: Vec<&str> = plan.split("[[entries]]").map(str::trim).collect();
    entries.sort_unstable();
    json!(entries)
}

/// What was committed: names, and what the metadata says.
fn cache(platform: &Platform) -> Value {
    let directory = platform.path("cache/committed");
    // The reference makes the directory before there is anything for it.
    let entries = std::fs::read_dir(&directory).into_iter().flatten();
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    let metadata = std::fs::read_to_string(directory.join("io.buildpacks.lifecycle.cache.metadata"));
    json!({"names": names, "metadata": metadata.ok()})
}

/// Every difference that is not meant, with its seed.
fn compare(
    seed: u64,
    ours: &BTreeMap<String, Value>,
    theirs: &BTreeMap<String, Value>,
    found: &mut Vec<String>,
) {
    let (ours, theirs) = (json!(ours), json!(theirs));
    let mut of_seed = Vec::new();
    differences("", &ours, &theirs, &mut of_seed);
    of_seed.retain(|difference| !is_meant(difference));
    found.extend(of_seed.into_iter().map(|difference| format!("seed {seed}: {difference}")));
}

/// CRE-01: whatever a build is.
#[test]
fn cre_01_made_up_builds_are_the_same_by_programs_and_by_the_creator() {
    let mut found = Vec::new();
    let mut codes = BTreeMap::<String, usize>::new();
    for seed in seeds(0..12) {
        let platform = random::platform(Lifecycle::ours(), seed);
        let programs = builds(&platform, By::Programs);
        let creator = builds(&platform, By::Creator);
        *codes.entry(programs["1.code"].to_string()).or_default() += 1;
        compare(seed, &programs, &creator, &mut found);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(codes.contains_key("0") && codes.len() > 1, "they all end alike: {codes:?}");
}

#[test]
fn made_up_builds_give_what_the_reference_gives() {
    let Some(reference) = reference() else { return };
    let mut found = Vec::new();
    for seed in seeds(100..112) {
        let mut platform = random::platform(reference.clone(), seed);
        let by = if seed % 2 == 0 { By::Programs } else { By::Creator };
        let theirs = builds(&platform, by);
        platform.lifecycle = Lifecycle::ours();
        let ours = builds(&platform, by);
        compare(seed, &ours, &theirs, &mut found);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
