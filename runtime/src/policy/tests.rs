//! What files, flags and the ceiling make of one another.

use super::*;

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
    assert_eq!(allowed(&policy, "a"), ["app-write"]);
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
    assert_eq!(allowed(&policy, "a"), ["app-write", "clock"]);
    assert_eq!(origins.of("grants.allow"), Origin::Flag);
    let files = files(Some("[grants]\nallow = []\n"), None, None);
    let (mut policy, mut origins) = Policy::load(&files.paths).unwrap();
    let error = policy.allow_by_flag([Grant::Clock], &mut origins).unwrap_err();
    assert_eq!(error.id(), "policy.ceiling");
}

#[test]
fn a_refused_grant_says_who_could_allow_it() {
    let buildpack = BuildpackRef { id: "a".parse().unwrap(), version: "1".parse().unwrap() };
    let asked = Grants(BTreeSet::from([Grant::Random]));
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
