//! What files, flags and the ceiling make of one another.

use super::*;
use crate::network::SourcePlace;

struct Files {
    temp: tempfile::TempDir,
    paths: PolicyPaths,
}

fn files(system: Option<&str>, user: Option<&str>, explicit: Option<&str>) -> Files {
    let temp = tempfile::tempdir().unwrap();
    let place = |name: &str, text: Option<&str>| {
        let path = temp.path().join(name);
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        Some(path)
    };
    let paths = PolicyPaths {
        system: place("system", system),
        user: place("user", user),
        explicit: explicit.and_then(|text| place("explicit", Some(text))),
    };
    Files { temp, paths }
}

fn allowed(policy: &Policy, id: &str) -> Vec<String> {
    policy.allowed(&id.parse().unwrap()).0.iter().map(ToString::to_string).collect()
}

#[test]
fn without_files_the_defaults_of_a_single_user_hold() {
    let (policy, origins) = Policy::load(&files(None, None, None).paths).unwrap();
    assert_eq!(policy, Policy::default());
    assert_eq!(allowed(&policy, "a"), ["app-write", "bindings", "source=*"]);
    assert_eq!(policy.isolation, Isolation::BestEffort);
    assert!(policy.settings(&origins).iter().all(|setting| setting.origin == Origin::Default));
}

#[test]
fn later_files_win_and_every_value_knows_its_line() {
    let files = files(
        None,
        Some("[limits]\nmemory_bytes = 1_000\ntables = 0x10\n\n[grants]\nallow = [\"clock\"]\n"),
        Some(
            "isolation = \"required\"\n[limits]\nmemory_bytes = 2000\n[[buildpack]]\nid = \"a\"\n\
             allow = [\"source=npm\"]\n[sources.npm]\ndirectory = \"/srv/npm\"\n",
        ),
    );
    let (policy, origins) = Policy::load(&files.paths).unwrap();
    assert_eq!((policy.limits.memory_bytes, policy.limits.tables), (2000, 16));
    assert_eq!(policy.limits.memories, Limits::default().memories);
    assert_eq!(allowed(&policy, "a"), ["clock", "source=npm"]);
    assert_eq!(allowed(&policy, "b"), ["clock"]);
    let shown: Vec<String> = policy
        .settings(&origins)
        .iter()
        .filter(|setting| setting.origin != Origin::Default)
        .map(|setting| {
            let origin = setting.origin.to_string();
            let name = origin.rsplit('/').next().unwrap();
            format!("{} = {} ({name})", setting.key, setting.value)
        })
        .collect();
    assert_eq!(
        shown,
        [
            "buildpack.a.allow = [\"source=npm\"] (explicit:6)",
            "grants.allow = [\"clock\"] (user:6)",
            "isolation = \"required\" (explicit:1)",
            "limits.memory_bytes = 2000 (explicit:3)",
            "limits.tables = 16 (user:3)",
            "sources.npm.directory = \"/srv/npm\" (explicit:8)",
        ]
    );
}

#[test]
fn the_system_file_is_a_ceiling() {
    let system = "isolation = \"required\"\n[limits]\nmemory_bytes = 1000\n[grants]\nallow = [\"clock\"]\n\
                  [[buildpack]]\nid = \"a\"\nallow = [\"random\"]\n[sources.npm]\ndirectory = \"/srv\"\n";
    let system_has = |user: &str| {
        let files = files(Some(system), Some(user), None);
        Policy::load(&files.paths).map(|(policy, _)| policy).map_err(|error| {
            let text = error.to_string();
            text.replace(&files.temp.path().display().to_string(), "")
        })
    };
    let lower = system_has("[limits]\nmemory_bytes = 500\n[grants]\nallow = []\n").unwrap();
    assert_eq!(lower.limits.memory_bytes, 500);
    assert_eq!(allowed(&lower, "b"), [] as [&str; 0]);
    system_has("[[buildpack]]\nid = \"a\"\nallow = [\"random\", \"clock\"]\n").unwrap();
    for (user, expected) in [
        ("[limits]\nmemory_bytes = 1001\n", "/user:2: `memory_bytes = 1001` is more than `/system` allows"),
        // Not set by the system's file: the built-in value is what holds.
        ("[limits]\ntables = 65\n", "/user:2: `tables = 65` is more than `/system` allows"),
        (
            "[grants]\nallow = [\n\"clock\",\n\"app-write\"]\n",
            "/user:4: the grant `app-write` is more than `/system` allows",
        ),
        (
            "[[buildpack]]\nid = \"b\"\nallow = [\"random\"]\n",
            "/user:3: the grant `random` for `b` is more than `/system` allows",
        ),
        (
            "isolation = \"best-effort\"\n",
            "/user:1: `isolation = \"best-effort\"` is more than `/system` allows",
        ),
        ("[sources.npm]\ndirectory = \"/mine\"\n", "/user:2: the source `npm` is more than `/system` allows"),
    ] {
        assert_eq!(system_has(user).unwrap_err(), expected, "{user}");
    }
}

#[test]
fn flags_allow_and_the_ceiling_holds_for_them_too() {
    let (mut policy, mut origins) = Policy::load(&files(None, None, None).paths).unwrap();
    policy.allow_by_flag([Grant::Clock], &mut origins).unwrap();
    assert_eq!(allowed(&policy, "a"), ["app-write", "bindings", "clock", "source=*"]);
    assert_eq!(origins.of("grants.allow"), Origin::Flag);
    let files = files(Some("[grants]\nallow = []\n"), None, None);
    let (mut policy, mut origins) = Policy::load(&files.paths).unwrap();
    let error = policy.allow_by_flag([Grant::Clock], &mut origins).unwrap_err();
    assert_eq!(error.id(), "policy.ceiling");
}

#[test]
fn a_refused_grant_says_who_could_allow_it() {
    let buildpack = BuildpackRef { id: "a".parse().unwrap(), version: "1".parse().unwrap() };
    let asked = Grants(BTreeSet::from([Grant::Random])).into();
    let error = Policy::default().grant(&buildpack, &asked).unwrap_err();
    assert!(error.hint().unwrap().starts_with("allow it with `--grant random`"));
    let files = files(Some(""), None, None);
    let (policy, _) = Policy::load(&files.paths).unwrap();
    let hint = policy.grant(&buildpack, &asked).unwrap_err().hint().unwrap();
    assert!(hint.starts_with("only the operator can allow it"), "{hint}");
}

#[test]
fn what_is_not_understood_is_an_error_with_its_place() {
    for (text, line, part) in [
        ("[limits]\nmemory = 1\n", 2, "`memory` is not known here"),
        ("[limits]\nmemory_bytes = -1\n", 2, "above 0"),
        ("[limits]\nmemory_bytes = 0\n", 2, "above 0"),
        ("[limits]\nmemory_bytes = \"1\"\n", 2, "above 0"),
        ("[limits]\nmemory_bytes = 18446744073709551616\n", 2, ""),
        ("\n[grant]\n", 2, "`grant` is not known here"),
        ("[grants]\nallow = [\"clock\",\n \"network\"]\n", 3, "`network` is not a grant"),
        ("[grants]\nallow = \"clock\"\n", 2, "array"),
        ("isolation = \"none\"\n", 1, "required"),
        ("[[buildpack]]\nid = \"../a\"\nallow = []\n", 2, "not valid"),
        ("[[buildpack]]\nallow = []\n", 1, "both"),
        ("[sources.npm]\ndirectory = \"relative\"\n", 2, "absolute"),
        ("[sources.npm]\nuri = \"https://x\"\n", 2, "`uri` is not known here"),
        ("a = = 1\n", 1, ""),
    ] {
        let error = PolicyFile::parse(text).err().unwrap();
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.message.contains(part), "{text:?}: {error}");
    }
    let mut missing = files(None, None, None).paths;
    missing.explicit = Some(PathBuf::from("/nowhere/policy.toml"));
    assert_eq!(Policy::load(&missing).unwrap_err().id(), "policy.invalid");
}

#[test]
fn sources_and_network_are_read_with_the_place_of_every_key() {
    let files = files(
        None,
        Some(
            "[sources.npm]\nurl = \"https://old.example\"\ntoken-env = \"OLD\"\n\
             [network]\noffline = true\nproxy = \"http://old.example:1\"\n",
        ),
        Some(
            "[sources.npm]\nurl = \"https://mirror.example/npm\"\nmirrors = [\"https://b.example/\"]\n\
             ca = \"/etc/ssl/corp.pem\"\nuser = \"joe\"\npassword-file = \"/etc/npm.password\"\n\
             [sources.\"npm:@acme\"]\nurl = \"http://acme.example\"\ntoken-file = \"/etc/acme.token\"\n\
             [network]\noffline = false\nhttps-proxy = \"proxy.example:3128\"\nno-proxy = \".example\"\n\
             ca = [\"/a.pem\", \"/b.pem\"]\norigins-from-lock-files = false\n",
        ),
    );
    let (policy, origins) = Policy::load(&files.paths).unwrap();
    let shown: Vec<String> = policy
        .settings(&origins)
        .iter()
        .filter(|setting| setting.key.starts_with("sources") || setting.key.starts_with("network"))
        .map(|setting| {
            let origin = setting.origin.to_string();
            format!("{} = {} ({})", setting.key, setting.value, origin.rsplit('/').next().unwrap())
        })
        .collect();
    assert_eq!(
        shown,
        [
            "network.ca = [\"/a.pem\", \"/b.pem\"] (explicit:14)",
            "network.http-proxy = \"http://old.example:1/\" (user:6)",
            "network.https-proxy = \"http://proxy.example:3128/\" (explicit:12)",
            "network.no-proxy = \".example\" (explicit:13)",
            "network.offline = false (explicit:11)",
            "network.origins-from-lock-files = false (explicit:15)",
            "sources.\"npm:@acme\".token-file = \"/etc/acme.token\" (explicit:9)",
            "sources.\"npm:@acme\".url = \"http://acme.example/\" (explicit:8)",
            "sources.npm.ca = [\"/etc/ssl/corp.pem\"] (explicit:4)",
            "sources.npm.mirrors = [\"https://b.example/\"] (explicit:3)",
            "sources.npm.password-file = \"/etc/npm.password\" (explicit:6)",
            "sources.npm.url = \"https://mirror.example/npm/\" (explicit:2)",
            "sources.npm.user = \"joe\" (explicit:5)",
        ]
    );
    assert_eq!(policy.source_origin("npm", &origins).to_string().rsplit('/').next(), Some("explicit:2"));
}

#[test]
fn sources_and_network_that_are_not_understood_are_errors_with_their_place() {
    let source = |lines: &str| format!("[sources.npm]\nurl = \"https://a.example\"\n{lines}\n");
    for (text, line, part) in [
        ("[sources.npm]\n".to_owned(), 1, "`url` or `directory`"),
        (source("directory = \"/srv\""), 3, "two places"),
        ("[sources.npm]\ndirectory = \"/srv\"\nca = \"/a.pem\"\n".to_owned(), 3, "goes with `url`"),
        ("[sources.\"a b\"]\nurl = \"https://a.example\"\n".to_owned(), 1, "name of a source"),
        ("[sources.npm]\nurl = \"ftp://a.example\"\n".to_owned(), 2, "`http://` or `https://`"),
        ("[sources.npm]\nurl = \"https://a.example/?x\"\n".to_owned(), 2, "`?`"),
        ("[sources.npm]\nurl = \"https://joe:CANARY@a.example\"\n".to_owned(), 2, "`password-file`"),
        (source("mirrors = [\"https://b.example\",\n \"https://CANARY@c.example\"]"), 4, "`password-file`"),
        (source("token = \"CANARY\""), 3, "a token is not written here"),
        (source("password = \"CANARY\""), 3, "a password is not written here"),
        (source("token-file = \"relative\""), 3, "absolute"),
        (source("token-file = \"/a\"\ntoken-env = \"A\""), 4, "two places"),
        (source("token-env = \"A=B\""), 3, "name of a variable"),
        (source("user = \"joe\""), 3, "needs"),
        (source("user = \"a:b\"\npassword-env = \"A\""), 3, "`:`"),
        (source("password-env = \"A\""), 3, "needs `user`"),
        (source("user = \"joe\"\npassword-env = \"A\"\ntoken-env = \"B\""), 5, "either"),
        ("[network]\nproxy = \"http://joe:CANARY@proxy.example\"\n".to_owned(), 2, "`HTTPS_PROXY`"),
        ("[network]\nproxy = \"socks5://proxy.example\"\n".to_owned(), 2, "`http://`"),
        ("[network]\noffline = \"yes\"\n".to_owned(), 2, "`true` or `false`"),
        ("[network]\nca = [\"a.pem\"]\n".to_owned(), 2, "absolute"),
        ("[network]\nretries = 1\n".to_owned(), 2, "`retries` is not known here"),
    ] {
        let error = PolicyFile::parse(&text).err().unwrap();
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.message.contains(part), "{text:?}: {error}");
        // T3: what was written is not repeated.
        assert!(!error.message.contains("CANARY"), "{error}");
    }
}

#[test]
fn nothing_is_added_to_the_system_s_sources_and_network() {
    let system = "[sources.npm]\nurl = \"https://a.example\"\ntoken-env = \"A\"\n\
                  [network]\nproxy = \"http://proxy.example\"\nca = [\"/a.pem\", \"/b.pem\"]\n";
    let with = |user: &str| {
        let files = files(Some(system), Some(user), None);
        Policy::load(&files.paths).map_err(|error| (error.id(), error.to_string()))
    };
    let (policy, _) = with("[network]\noffline = true\nca = \"/b.pem\"\n").unwrap();
    assert!(policy.network.offline && !policy.network.origins_from_lock_files);
    assert_eq!(policy.network.ca, [PathBuf::from("/b.pem")]);
    for user in [
        "[sources.npm]\nurl = \"https://a.example\"\n",
        "[sources.npm]\nurl = \"https://a.example\"\ntoken-env = \"B\"\n",
        "[sources.\"npm:@acme\"]\nurl = \"https://a.example\"\n",
        "[network]\nproxy = \"http://other.example\"\n",
        "[network]\nno-proxy = \"*\"\n",
        "[network]\nca = \"/c.pem\"\n",
        "[network]\norigins-from-lock-files = true\n",
    ] {
        let (id, text) = with(user).unwrap_err();
        assert!(id == "policy.ceiling" && text.contains("user:"), "{user}: {text}");
    }
    let offline = files(Some("[network]\noffline = true\n"), Some("[network]\noffline = false\n"), None);
    assert_eq!(Policy::load(&offline.paths).unwrap_err().id(), "policy.ceiling");
    // Flags, too.
    let (mut policy, mut origins) = with("").unwrap();
    let place = |url: &str| SourcePlace::Base(url.parse().unwrap());
    let error = policy.source_by_flag("go", place("https://go.example/"), &mut origins).unwrap_err();
    assert!(error.to_string().starts_with("command line: the source `go` is more than "), "{error}");
    policy.offline_by_flag(&mut origins);
    assert!(policy.network.offline);
    let mut alone = Policy::default();
    alone.source_by_flag("go", place("https://go.example/"), &mut origins).unwrap();
    assert_eq!(alone.source_origin("go", &origins), Origin::Flag);
}

#[test]
fn registries_are_read_with_the_place_of_every_key() {
    let files = files(
        None,
        Some(
            "[registries.\"docker.io\"]\nmirrors = [\"https://old.example\"]\ninsecure = true\n\
             [registries.\"localhost\"]\ninsecure = true\n",
        ),
        Some(
            "[registries.\"index.docker.io\"]\nmirrors = [\"https://mirror.example\", \"http://10.0.0.1:5000/hub/\"]\n\
             realms = \"auth.example\"\n\
             [registries.\"registry.example:5000\"]\n\ninsecure = true\nca = \"/etc/ssl/corp.pem\"\n\
             realms = [\"Auth.Example:443\", \"[::1]:5001\"]\n",
        ),
    );
    let (policy, origins) = Policy::load(&files.paths).unwrap();
    let shown: Vec<String> = policy
        .settings(&origins)
        .iter()
        .filter(|setting| setting.key.starts_with("registries"))
        .map(|setting| {
            let origin = setting.origin.to_string();
            format!("{} = {} ({})", setting.key, setting.value, origin.rsplit('/').next().unwrap())
        })
        .collect();
    assert_eq!(
        shown,
        [
            // A registry is replaced as a whole, under whichever of its names.
            "registries.\"index.docker.io\".insecure = false (explicit:1)",
            "registries.\"index.docker.io\".mirrors = [\"https://mirror.example/\", \"http://10.0.0.1:5000/hub/\"] (explicit:2)",
            "registries.\"index.docker.io\".realms = [\"auth.example\"] (explicit:3)",
            "registries.\"registry.example:5000\".ca = [\"/etc/ssl/corp.pem\"] (explicit:7)",
            "registries.\"registry.example:5000\".insecure = true (explicit:6)",
            "registries.\"registry.example:5000\".realms = [\"auth.example\", \"[::1]:5001\"] (explicit:8)",
            "registries.localhost.insecure = true (user:5)",
        ]
    );
    let settings = policy.registry_settings(&origins);
    let hub = &settings["index.docker.io"];
    assert_eq!(
        hub.mirrors,
        ["https://mirror.example/", "http://10.0.0.1:5000/hub/"].map(|url| url.parse().unwrap())
    );
    assert_eq!((hub.insecure, hub.realms.as_slice()), (false, &["auth.example".to_owned()][..]));
    let other = &settings["registry.example:5000"];
    assert!(other.insecure && other.mirrors.is_empty());
    assert_eq!(other.ca, [PathBuf::from("/etc/ssl/corp.pem")]);
    assert!(other.set_by.ends_with("explicit:4"), "{}", other.set_by);
}

#[test]
fn registries_that_are_not_understood_are_errors_with_their_place() {
    let registry = |lines: &str| format!("[registries.\"a.example\"]\n{lines}\n");
    for (text, line, part) in [
        ("registries = 1\n".to_owned(), 1, "`[registries.\"NAME\"]`"),
        // Neither a folder of Docker Hub nor an address.
        ("[registries.acme]\n".to_owned(), 1, "name of a registry"),
        ("[registries.\"https://a.example\"]\n".to_owned(), 1, "name of a registry"),
        ("[registries.\"a.example/team\"]\n".to_owned(), 1, "name of a registry"),
        ("[registries.\"a.example:port\"]\n".to_owned(), 1, "name of a registry"),
        ("[registries.\"\"]\n".to_owned(), 1, "name of a registry"),
        ("[registries.\"docker.io\"]\n[registries.\"index.docker.io\"]\n".to_owned(), 2, "twice"),
        (registry("token = \"CANARY\""), 2, "`token` is not known here"),
        (registry("insecure = \"yes\""), 2, "`true` or `false`"),
        (registry("mirrors = \"mirror.example\""), 2, "`https://`"),
        (registry("mirrors = [\n\"https://joe:CANARY@b.example\"]"), 3, "`docker login`"),
        (registry("ca = \"corp.pem\""), 2, "absolute"),
        (registry("realms = \"https://auth.example\""), 2, "has to be a host"),
        (registry("realms = [\"a.example\", \"auth.example/token\"]"), 2, "has to be a host"),
        (registry("realms = \"joe:CANARY@auth.example\""), 2, "has to be a host"),
        (registry("realms = \"a b\""), 2, "has to be a host"),
        (registry("realms = \"\""), 2, "has to be a host"),
        (registry("realms = \"auth.example?x\""), 2, "has to be a host"),
        ("[store]\nmax_bytes = 0\n".to_owned(), 2, "above 0"),
        ("[store]\nmax-bytes = 1\n".to_owned(), 2, "`max-bytes` is not known here"),
    ] {
        let error = PolicyFile::parse(&text).err().unwrap_or_else(|| panic!("{text}"));
        assert_eq!(error.line, line, "{text:?}: {error}");
        assert!(error.message.contains(part), "{text:?}: {error}");
        assert!(!error.message.contains("CANARY"), "{error}");
    }
}

#[test]
fn nothing_is_added_to_the_system_s_registries_and_store() {
    let system =
        "[registries.\"docker.io\"]\nmirrors = \"https://mirror.example/\"\n[store]\nmax_bytes = 1000\n";
    let with = |user: &str| {
        let files = files(Some(system), Some(user), None);
        Policy::load(&files.paths).map_err(|error| (error.id(), error.to_string()))
    };
    let (policy, _) = with(
        "[registries.\"index.docker.io\"]\nmirrors = [\"https://mirror.example\"]\n[store]\nmax_bytes = 999\n",
    )
    .unwrap();
    assert_eq!(policy.store.max_bytes, 999);
    for user in [
        "[registries.\"docker.io\"]\n",
        "[registries.\"docker.io\"]\nmirrors = \"https://mirror.example/\"\ninsecure = true\n",
        "[registries.\"docker.io\"]\nmirrors = \"https://mirror.example/\"\nrealms = \"evil.example\"\n",
        "[registries.\"other.example\"]\ninsecure = true\n",
        "[store]\nmax_bytes = 1001\n",
    ] {
        let (id, text) = with(user).unwrap_err();
        assert!(id == "policy.ceiling" && text.contains("user:"), "{user}: {text}");
    }
}
