//! Layers of the last build: used in place, changed only in a copy, seen by their owner only.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use acceptance::Job;
use wapack_runtime::event::{Event, LayerSource};
use wapack_runtime::store::Store;

use super::tools::{Layout, build_process, have, result_of, sha256};
use crate::support::{IMAGE, Outcome, Site};

/// Every file below `directory`, with what `see` makes of it.
pub(super) fn files<T>(directory: &Path, see: &dyn Fn(&Path) -> T) -> BTreeMap<PathBuf, T> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(directory) else { return found };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files(&path, see));
        } else {
            let seen = see(&path);
            found.insert(path, seen);
        }
    }
    found
}

/// Which file it is and when it was written last.
fn identity(path: &Path) -> (u64, i64, i64) {
    let status = fs::symlink_metadata(path).expect("a file");
    (status.ino(), status.mtime(), status.mtime_nsec())
}

fn contents(path: &Path) -> String {
    sha256(&fs::read(path).expect("a file"))
}

/// The trace with calls in one line that `strace` had to cut in two, because
/// another process was faster: the second half does not say which file it was.
fn joined(trace: &str) -> String {
    let mut begun: std::collections::BTreeMap<&str, &str> = std::collections::BTreeMap::new();
    let mut lines = String::with_capacity(trace.len());
    for line in trace.lines() {
        let (process, call) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(start) = call.strip_suffix("<unfinished ...>") {
            begun.insert(process, start);
            continue;
        }
        let rest = call.trim_start().strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"));
        match (rest, begun.remove(process)) {
            (Some((_, rest)), Some(start)) => lines.extend([process, " ", start, rest, "\n"]),
            _ => lines.extend([line, "\n"]),
        }
    }
    lines
}

/// What a trace says was moved by system calls, in bytes.
fn bytes_moved<'a>(lines: impl Iterator<Item = &'a str>) -> u64 {
    let moves = ["read", "write", "send", "recv", "copy_file_range", "splice"];
    lines
        .filter(|line| {
            let call = line.split_once(' ').map_or("", |(_, rest)| rest.trim_start());
            let call = call.strip_prefix("<... ").unwrap_or(call).trim_start_matches('p');
            moves.iter().any(|name| call.starts_with(name))
        })
        .filter_map(|line| line.rsplit_once(" = ")?.1.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

const LAYER_FILES: u64 = 200;
const LAYER_BYTES: u64 = LAYER_FILES * 400_000;

/// What all processes of a rebuild read and write, as the kernel sees it.
#[test]
fn a_rebuild_reads_and_writes_next_to_nothing_of_a_large_layer() {
    if !have(&["strace"]) {
        return;
    }
    let site = Site::new()
        .guest("big-layer")
        .guest("well-behaved")
        .env("COUNT", "no")
        .env("FILES", &LAYER_FILES.to_string())
        .env("BYTES", &(LAYER_BYTES / LAYER_FILES).to_string());
    let first = site.build();
    let layer = |outcome: &Outcome| {
        outcome
            .result
            .as_ref()
            .expect("an image")
            .layers
            .iter()
            .find(|layer| layer.name.as_str() == "big")
            .expect("the layer")
            .clone()
    };
    assert!(layer(&first).blob.size > LAYER_BYTES * 9 / 10, "it hardly compresses");
    let before = files(&site.path("image"), &identity);
    let store_before = files(&site.path("store/layers"), &identity);

    let trace = site.path("trace");
    let trace_path = trace.to_str().expect("UTF-8").to_owned();
    let strace = [
        "strace",
        "--follow-forks",
        "--decode-fds=path",
        "--string-limit=200",
        "--output",
        trace_path.as_str(),
        "--trace=/^(open|openat|openat2|creat|p?read.*|p?write.*|send.*|recv.*|copy_file_range|splice|ioctl|mmap)$",
    ];
    let output = build_process(&strace, &site.job()).output().expect("a process");
    assert_eq!(result_of(&output), Ok(first.digest()), "{}", String::from_utf8_lossy(&output.stderr));

    let trace = joined(&fs::read_to_string(trace).expect("a trace"));
    assert!(trace.contains("index.json"), "the trace shows what is read: {trace}");
    let touched: Vec<&str> = trace.lines().filter(|line| line.contains("/file-0")).collect();
    assert!(touched.is_empty(), "files of the layer were opened: {touched:?}");
    let blob = layer(&first).blob.digest.to_string();
    let blob = blob.trim_start_matches("sha256:");
    let touched: Vec<&str> = trace
        .lines()
        .filter(|line| line.contains(blob) && !line.contains("write(1"))
        .filter(|line| line.contains("open"))
        .collect();
    assert!(touched.is_empty(), "the layer's blob was opened: {touched:?}");
    let moved = bytes_moved(trace.lines());
    assert!(moved > 1000, "the trace was understood");
    assert!(moved < LAYER_BYTES / 10, "{moved} bytes were moved for a layer of {LAYER_BYTES}");
    // Most of it is the code of the two components: from the store, to the worker, into memory.
    let code = |line: &&str| {
        ["memfd:", "/store/compiled/", "/buildpack.wasm>"].iter().any(|name| line.contains(name))
    };
    let rest = bytes_moved(trace.lines().filter(|line| !code(line)));
    assert!(rest < 500_000, "{rest} bytes besides code were moved for a layer of {LAYER_BYTES}");

    // What the trace looks for is there to be found when everything is verified.
    let verified = site.path("verified");
    let strace = strace.map(|word| if word == trace_path { verified.to_str().expect("UTF-8") } else { word });
    let again = build_process(&strace, &Job { verify: true, ..site.job() }).output().expect("a process");
    assert_eq!(result_of(&again), Ok(first.digest()), "{}", String::from_utf8_lossy(&again.stderr));
    let verified = joined(&fs::read_to_string(verified).expect("a trace"));
    assert!(verified.lines().filter(|line| line.contains("/file-0")).count() as u64 >= LAYER_FILES);
    assert!(verified.lines().any(|line| line.contains(blob) && line.contains("open")));

    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = |text: &str| said.lines().filter(|line| line.contains(text)).count();
    assert_eq!(said(r#""verdict":"pass""#), 2, "every detect ran");
    assert_eq!((said("big: Restored"), said("program: Restored")), (1, 1), "every build ran");
    assert_eq!(said(r#""name":"test/big-layer:big","source":"reused""#), 1);
    assert_eq!(files(&site.path("image"), &identity), before, "no blob and no index was written");
    assert_eq!(
        files(&site.path("store/layers"), &identity).keys().filter(|path| path.ends_with("record")).count(),
        1
    );
    let big = |all: &BTreeMap<PathBuf, (u64, i64, i64)>| {
        all.iter()
            .filter(|(path, _)| path.to_string_lossy().contains("/file-0"))
            .map(|(_, identity)| *identity)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        big(&files(&site.path("store/layers"), &identity)),
        big(&store_before),
        "the tree is the same one"
    );
    assert_eq!(big(&store_before).len() as u64, LAYER_FILES);
}

#[test]
fn a_guest_reads_a_restored_layer_in_place() {
    let mut site = Site::new().guest("big-layer");
    site.build().digest();
    site.env.insert("READ".into(), "file-00003".into());
    let again = site.build();
    again.digest();
    assert_eq!(again.lines(), ["big: Restored", "read 1000 bytes"]);
    assert_eq!(again.layers()["test/big-layer:big"], LayerSource::Reused);
}

/// The trees of cached layers in the store: each file with a digest of what is in it.
fn trees(site: &Site) -> BTreeMap<PathBuf, String> {
    files(&site.path("store/layers"), &contents)
        .into_iter()
        .filter(|(path, _)| path.components().any(|part| part.as_os_str() == "tree"))
        .collect()
}

#[test]
fn an_update_changes_a_copy_and_never_the_tree() {
    let mut site = Site::new().guest("update-layer");
    let name = "test/update-layer:updated";
    let first = site.build();
    assert_eq!(first.lines(), ["updated: Filled", "changing: first", "kept: kept"]);
    assert_eq!(first.layers()[name], LayerSource::Added);
    let tree = trees(&site);
    assert_eq!(tree.len(), 2);
    for change in ["never", "nothing"] {
        site.env.insert("CHANGE".into(), change.into());
        let again = site.build();
        assert_eq!(again.lines()[0], "updated: Restored");
        assert_eq!((again.layers()[name], again.digest()), (LayerSource::Reused, first.digest()), "{change}");
        assert_eq!(trees(&site), tree, "{change}");
    }

    // Another build still uses the old tree.
    let (store, _) = Store::open(&site.path("store")).expect("the store");
    let lease = store.image("test", IMAGE);
    site.env.insert("CHANGE".into(), "second\n".into());
    let changed = site.build();
    assert_eq!(changed.lines(), ["updated: Restored", "changing: second", "kept: kept"]);
    assert_eq!(changed.layers()[name], LayerSource::Added);
    assert_ne!(changed.digest(), first.digest());
    let both = trees(&site);
    assert_eq!(both.len(), 4, "{both:?}");
    for (path, digest) in &tree {
        assert_eq!(both.get(path), Some(digest), "the leased tree is what it was");
    }
    drop(lease);

    // What was changed is what the next build finds; the old tree goes.
    site.env.insert("CHANGE".into(), "never".into());
    let again = site.build();
    assert_eq!(again.lines(), ["updated: Restored", "changing: second", "kept: kept"]);
    assert_eq!(again.digest(), changed.digest());
    let left = trees(&site);
    assert_eq!(left.len(), 2);
    assert!(left.keys().all(|path| !tree.contains_key(path)));
    // And what comes from the cache is what comes without one.
    fs::remove_dir_all(site.path("image")).expect("it is there");
    assert_eq!(site.build().digest(), changed.digest());
}

#[test]
fn another_key_image_or_tenant_starts_with_nothing() {
    let mut site = Site::new().guest("big-layer");
    let state = |outcome: &Outcome| {
        outcome.digest();
        outcome.lines()[0].to_owned()
    };
    assert_eq!(state(&site.build()), "big: Filled");
    assert_eq!(state(&site.build()), "big: Restored");
    let other = |change: &dyn Fn(&mut Job)| {
        let mut job = site.job();
        change(&mut job);
        let (first, second) = (site.build_job(&job, |_| ()), site.build_job(&job, |_| ()));
        assert_eq!((state(&first).as_str(), state(&second).as_str()), ("big: Filled", "big: Restored"));
    };
    other(&|job| job.image = "acceptance/other".into());
    other(&|job| job.tenant = "other".into());
    // Two names that would meet if they were just put together.
    other(&|job| (job.tenant, job.image) = ("test/acceptance".into(), "image:latest".into()));
    assert_eq!(state(&site.build()), "big: Restored", "the others left it alone");
    site.env.insert("KEY".into(), "2".into());
    assert_eq!(state(&site.build()), "big: Filled");
    site.env.insert("KEY".into(), "1".into());
    assert_eq!(state(&site.build()), "big: Filled", "only the last one is kept");
}

/// LYR-12: what only the image has is kept there, without its contents.
#[test]
fn a_launch_only_layer_is_kept_while_its_blob_is_there() {
    let site = Site::new().guest("well-behaved").env("COUNT", "no");
    let states = |outcome: &Outcome| outcome.lines()[1..].join(", ");
    let first = site.build();
    assert_eq!(states(&first), "program: Filled, assets: Filled, counter: Filled, tools: Filled");
    let second = site.build();
    assert_eq!(second.digest(), first.digest());
    assert_eq!(states(&second), "program: Restored, assets: Kept, counter: Restored, tools: Filled");
    assert_eq!(second.layers()["test/well-behaved:assets"], LayerSource::Reused);
    for path in files(&site.path("store/blobs"), &|_| ()).into_keys() {
        fs::remove_file(path).expect("it is there");
    }
    fs::remove_dir_all(site.path("image")).expect("it is there");
    let third = site.build();
    assert_eq!(states(&third), "program: Filled, assets: Filled, counter: Restored, tools: Filled");
    assert_eq!(third.digest(), first.digest());
    Layout::verified(&site.path("image"));
}

/// BLD-08, ENV-13: what `build` layers hold and set is there for those who come later, and only in this build.
#[test]
fn build_layers_are_for_later_buildpacks_and_not_for_the_image() {
    let site = || {
        let site = Site::new().guest("well-behaved").guest("processes").guest("peek").guest("env-reader");
        site.program("show").env("COUNT", "no").env("PATHS", "/layers:/platform")
    };
    let check = |lines: &[&str], what: &str| {
        let has = |line: &str| assert!(lines.contains(&line), "{what}: no `{line}` in {lines:#?}");
        has("list /layers/test_well-behaved/tools: done");
        has("read /layers/test_well-behaved/tools/env.build/TOOLS.default: yes");
        has("read /platform/env/PATHS: /layers:/platform");
        has("env TOOLS=yes");
        let hidden = ["assets", "program", "counter", "APPEND=", "BUILD_ONLY="];
        let leaked: Vec<_> = lines
            .iter()
            .filter(|line| line.starts_with("list /layers") || line.starts_with("env "))
            .filter(|line| hidden.iter().any(|name| line.contains(name)))
            .collect();
        assert!(leaked.is_empty(), "{what}: layers that are not `build` were seen: {leaked:?}");
    };
    let here = site();
    for what in ["cold", "warm"] {
        let outcome = here.build();
        outcome.digest();
        check(&outcome.lines(), what);
        assert!(!outcome.layers().keys().any(|name| name.contains("tools")), "not in the image");
    }
    // Where a worker is another user, modes matter.
    let site = site();
    let umask = ["sh", "-c", "umask 077; exec \"$@\"", "sh"];
    for what in ["umask 077, cold", "umask 077, warm"] {
        let output = build_process(&umask, &site.job()).output().expect("a process");
        result_of(&output).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<String> = said
            .lines()
            .filter_map(|line| {
                serde_json::from_str::<serde_json::Value>(line).ok()?["line"].as_str().map(str::to_owned)
            })
            .collect();
        check(&lines.iter().map(String::as_str).collect::<Vec<_>>(), what);
    }
}

/// The event of a layer that is taken over comes before anything is run.
#[test]
fn what_can_be_used_again_is_announced() {
    let site = Site::new().guest("update-layer");
    site.build().digest();
    let again = site.build();
    let position = |wanted: &dyn Fn(&Event) -> bool| again.events.iter().position(wanted).expect("the event");
    let restored =
        position(&|event| matches!(event, Event::LayerRestored { layer, .. } if layer == "updated"));
    let started = position(&|event| matches!(event, Event::BuildpackStarted { .. }));
    assert!(restored < started);
}
