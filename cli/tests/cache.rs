//! `wapack cache`, and what builds do of it by themselves.

use serde_json::Value;

use crate::site::{Ended, SAMPLE, Site};

fn build(site: &Site, arguments: &[&str]) -> Ended {
    let own = ["build", "--path", SAMPLE, "--output", "oci:image", "demo/website"];
    site.run(&[&own, arguments].concat())
}

fn usage(site: &Site) -> Value {
    let ended = site.run(&["cache", "du", "--json"]).with(0);
    serde_json::from_str(&ended.out).unwrap()
}

#[test]
fn what_takes_how_much_and_how_to_get_rid_of_it() {
    let site = Site::new();
    site.run(&["cache", "du"]).with(3).complains(&["error[input.cache]: there is no cache", "--cache-dir"]);
    assert!(!site.path().join(".cache").exists(), "asking about a cache has made one");
    build(&site, &[]).with(0);
    site.run(&["cache", "du"]).with(0).says(&[
        "layers",
        "compiled",
        "total",
        "demo/website:latest",
        "just now",
    ]);
    let before = usage(&site);
    assert_eq!(before["images"][0]["image"], "demo/website:latest");
    assert_eq!(before["max_bytes"], 20_u64 << 30);
    let sum: u64 =
        before["kinds"].as_object().unwrap().values().map(|kind| kind["bytes"].as_u64().unwrap()).sum();
    assert_eq!(before["bytes"].as_u64().unwrap(), sum);

    // There is less than the policy allows.
    site.run(&["cache", "gc"]).with(0).says(&["0 B freed"]);
    site.run(&["cache", "clear", "--image", "other/app"]).with(3).complains(&[
        "error[input.cache]: nothing is kept for the image `other/app:latest`",
        "hint: `wapack cache du` lists the images",
    ]);
    site.run(&["cache", "clear", "--image", "demo/website"]).with(0);
    assert_eq!(usage(&site)["images"], Value::Array(vec![]));
    assert!(usage(&site)["kinds"]["compiled"]["bytes"].as_u64().unwrap() > 0, "more than the image has gone");
    let ended = site.run(&["cache", "clear", "--json"]).with(0);
    let collected: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&collected["left_bytes"], &collected["in_use"]), (&0.into(), &0.into()));
    assert!(collected["freed_bytes"].as_u64().unwrap() > 0);
    // The same image, from nothing.
    let digest = std::fs::read(site.path().join("image/index.json")).unwrap();
    build(&site, &[]).with(0);
    assert_eq!(std::fs::read(site.path().join("image/index.json")).unwrap(), digest);
    for wrong in [["gc", "--keep-bytes", "2GB"], ["gc", "--max-age", "30"]] {
        site.run(&[&["cache"], &wrong[..]].concat()).with(2);
    }
}

#[test]
fn a_build_keeps_the_cache_below_what_the_policy_says() {
    let site = Site::new();
    let policy = site.file("small.toml", "[store]\nmax_bytes = 100_000\n");
    let policy = policy.to_str().unwrap();
    build(&site, &[]).with(0);
    let large = usage(&site)["bytes"].as_u64().unwrap();
    assert!(large > 300_000, "{large}: too little to show anything");
    // What somebody else has left, and nobody uses now.
    let other = site.path().join(".cache/wapack/downloads/left");
    std::fs::write(&other, vec![0; 200_000]).unwrap();
    let ended = build(&site, &["--policy", policy, "--verbose"]).with(0);
    assert!(
        ended.err.contains("the cache was near") || ended.out.contains("the cache was near"),
        "{ended:?}"
    );
    assert!(!other.exists());
    // What this build has used is what the next one wants.
    assert_eq!(usage(&site)["images"][0]["image"], "demo/website:latest");
}

/// Where the cache is, by the variables of the user; and what is no cache.
#[test]
fn odd_places() {
    let site = Site::new();
    build(&site, &[]).with(0);
    let du = |place: &str| {
        let mut command = site.command(&["cache", "du", "--json"]);
        Ended::from(
            command
                .env("XDG_CACHE_HOME", place.replace("SITE", site.path().to_str().unwrap()))
                .output()
                .unwrap(),
        )
    };
    let usual = usage(&site);
    std::os::unix::fs::symlink(".cache", site.path().join("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", site.path().join("dangling")).unwrap();
    site.file("file", "x");
    // Paths that are not absolute are to be ignored, says the specification of these variables.
    for place in ["", "relative", "SITE/link"] {
        let ended = du(place).with(0);
        assert_eq!(serde_json::from_str::<Value>(&ended.out).unwrap(), usual, "{place:?}");
    }
    for place in ["SITE/missing", "SITE/dangling", "SITE/file"] {
        du(place).with(3).complains(&["error[input.cache]: there is no cache", "hint: "]);
    }
    // Neither asked about nor built with does another directory become a cache.
    site.file("precious/notes.txt", "x");
    let mode = |name: &str| std::fs::metadata(site.path().join(name)).unwrap().permissions();
    let before = mode("precious");
    for command in ["du", "gc", "clear"] {
        site.run(&["cache", command, "--cache-dir", "precious"]).with(3).complains(&["error[input.cache]"]);
    }
    build(&site, &["--cache-dir", "precious"]).with(3).complains(&[
        "error[store.occupied]: the directory `",
        "is no store, and is not empty",
        "hint: name a directory of your own with `--cache-dir`",
    ]);
    assert_eq!(std::fs::read_dir(site.path().join("precious")).unwrap().count(), 1);
    assert_eq!(mode("precious"), before);
    build(&site, &["--cache-dir", "file"]).with(1).complains(&[
        "error[store.io]: cannot make the directory `",
        "caused by: there is something else already",
    ]);
    assert!(!site.path().join("missing").exists() && !site.path().join("relative").exists());
}
