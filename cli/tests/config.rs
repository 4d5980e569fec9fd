use crate::site::Site;

#[test]
fn every_setting_says_where_it_came_from() {
    let site = Site::new();
    site.file("policy.toml", "isolation = \"required\"\n\n[limits]\nmemory_bytes = 1000\n");
    site.file(".config/wapack/policy.toml", "[limits]\ntables = 3\n");
    let ended = site.run(&["config", "show", "--policy", "policy.toml", "--grant", "clock"]).with(0);
    let line = |key: &str| ended.out.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(line("isolation = \"required\"").ends_with("# policy.toml:1"));
    assert!(line("limits.memory_bytes = 1000").ends_with("# policy.toml:4"));
    assert!(line("limits.tables = 3").ends_with("/.config/wapack/policy.toml:2"));
    assert!(line("limits.memories = ").ends_with("# default"));
    assert!(line("grants.allow = ").ends_with("# command line"));

    let ended = site.run(&["config", "show", "--json", "--policy", "policy.toml"]).with(0);
    let document: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let settings = document["settings"].as_array().unwrap();
    let isolation = settings.iter().find(|setting| setting["key"] == "isolation").unwrap();
    assert_eq!(isolation["origin"], serde_json::json!({ "from": "file", "path": "policy.toml", "line": 1 }));
}

#[test]
fn the_files_are_listed_in_order() {
    let site = Site::new();
    site.file("cfg/wapack/policy.toml", "");
    let mut command = site.command(&["config", "path", "--policy", "mine.toml"]);
    let ended: crate::site::Ended =
        command.env("XDG_CONFIG_HOME", site.path().join("cfg")).output().unwrap().into();
    let ended = ended.with(0);
    let lines: Vec<&str> = ended.out.lines().collect();
    assert!(lines[0].starts_with("/etc/wapack/policy.toml "), "{lines:?}");
    assert!(lines[1].contains("/cfg/wapack/policy.toml") && lines[1].contains("  there, user"), "{lines:?}");
    assert!(lines[2].starts_with("mine.toml ") && lines[2].contains("not there, command line"), "{lines:?}");
}

#[test]
fn a_policy_that_is_not_understood_names_its_line() {
    let site = Site::new();
    site.file("policy.toml", "\n[limits]\nmemory = 1\n");
    site.run(&["config", "show", "--policy", "policy.toml"]).with(3).complains(&[
        "error[policy.invalid]",
        "caused by: `policy.toml` is not valid",
        "caused by: line 3, column 1",
    ]);
}
