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

/// T3: sources are shown with whoever named them, and never with what signs in.
#[test]
fn t3_sources_are_shown_without_their_secrets() {
    let site = Site::new();
    site.file(".npmrc", "registry=https://npm.example\n//npm.example/:_authToken=${MY_TOKEN}\n");
    site.file("pip.conf", "[global]\nindex-url = https://CANARY@pip.example/simple\n");
    site.file("token", "CANARY\n");
    site.file(
        "policy.toml",
        "[sources.\"npm:@acme\"]\nurl = \"https://acme.example\"\ntoken-file = \"/no/token\"\n",
    );
    let run = |arguments: &[&str]| -> crate::site::Ended {
        let mut command = site.command(&[&["config", "show", "--source", "go=/srv/go"], arguments].concat());
        command.env("MY_TOKEN", "CANARY").env("PIP_CONFIG_FILE", site.path().join("pip.conf"));
        command.output().unwrap().into()
    };
    let ended = run(&["--offline"]).with(0);
    let line = |key: &str| ended.out.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(line("sources.npm.url = \"https://npm.example/\"").ends_with("/.npmrc:1"));
    assert!(line("sources.npm.token = (set by ").ends_with("/.npmrc:2"));
    assert!(line("sources.pypi.url = \"https://pip.example/simple/\"").ends_with("/pip.conf:2"));
    assert!(line("sources.pypi.password = (set by ").contains("/pip.conf:2)"));
    assert!(line("sources.go.directory = \"/srv/go\"").ends_with("# command line"));
    assert!(line("network.offline = true").ends_with("# command line"));
    let json = run(&["--json"]).with(0);
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let settings = document["settings"].as_array().unwrap();
    let token = settings.iter().find(|setting| setting["key"] == "sources.npm.token").unwrap();
    assert_eq!(token["origin"]["from"], "discovered");
    // What is ours has to be right.
    let broken = run(&["--policy", "policy.toml"]).with(3).complains(&[
        "error[input.source_secret]: policy.toml:2: nothing signs in to the source `npm:@acme`",
        "caused by: cannot use `/no/token`",
        "hint: ",
    ]);
    for ended in [ended, json, broken] {
        assert!(!format!("{}{}", ended.out, ended.err).contains("CANARY"), "{ended:?}");
    }
}

#[test]
fn a_source_that_cannot_be_is_refused() {
    let site = Site::new();
    site.run(&["config", "show", "--source", "npm"])
        .with(3)
        .complains(&["error[input.source]", "hint: write `--source"]);
    let mut command = site.command(&["config", "show"]);
    let ended: crate::site::Ended = command.env("WAPACK_SOURCE_NPM", "CANARY").output().unwrap().into();
    let ended = ended
        .with(3)
        .complains(&["error[input.source]: the variable `WAPACK_SOURCE_NPM`", "caused by: it is not an"]);
    assert!(!ended.err.contains("CANARY"));
}

#[test]
fn registries_and_the_store_are_shown_with_their_places() {
    let site = Site::new();
    site.file(
        "policy.toml",
        "[registries.\"docker.io\"]\nmirrors = \"https://mirror.example\"\n\n[store]\nmax_bytes = 1_000_000\n",
    );
    let ended = site.run(&["config", "show", "--policy", "policy.toml"]).with(0);
    let line = |key: &str| ended.out.lines().find(|line| line.starts_with(key)).unwrap();
    let mirrors = line("registries.\"index.docker.io\".mirrors = [\"https://mirror.example/\"]");
    assert!(mirrors.ends_with("policy.toml:2"), "{mirrors}");
    assert!(line("store.max_bytes = 1000000").ends_with("policy.toml:5"));
    let json = site.run(&["config", "show", "--policy", "policy.toml", "--json"]).with(0);
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let settings = document["settings"].as_array().unwrap();
    let shown =
        settings.iter().find(|setting| setting["key"] == "registries.\"index.docker.io\".insecure").unwrap();
    assert_eq!((&shown["value"], &shown["origin"]["line"]), (&"false".into(), &1.into()));
}
