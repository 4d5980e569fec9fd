use super::*;

fn list() -> List {
    let mut list = List::default();
    let file = r#"
        [[area]]
        id = "ENV"
        title = "Environment"
        [area.requirements]
        ENV-14 = { level = "must", text = "directories" }
        ENV-15 = { level = "must", text = "a | b" }
        ENV-16 = { level = "should", text = "launch" }
        ENV-17 = { level = "must", text = "later first" }
        [[area]]
        id = "LAU"
        title = "Launching"
        [area.requirements]
        LAU-12 = { level = "must", text = "layers", supported = false, reason = "later" }
        LAU-13 = { level = "must", text = "start", reason = "cannot be seen" }
    "#;
    list.add(&file.parse().unwrap()).unwrap();
    list
}

fn test(path: &str, name: &str, ids: &[&str]) -> Test {
    Test { path: path.into(), name: name.into(), ids: ids.iter().map(|&id| id.to_owned()).collect() }
}

fn ids(source: &str) -> Vec<String> {
    scan::in_source("a.rs", source, &list()).into_iter().flat_map(|test| test.ids).collect()
}

/// The tests as somebody who reads them would count them.
fn evidence() -> Evidence {
    Evidence {
        list: list(),
        tests: vec![test("a.rs", "env_14_x", &["ENV-14"])],
        faults: vec![],
        pending: Pending::of(&["ENV-15", "ENV-17"]),
    }
}

#[test]
fn the_front_of_a_name_has_the_ids() {
    for (name, expected) in [
        ("env_14_directories", &["ENV-14"][..]),
        ("env_15_and_16_differ", &["ENV-15", "ENV-16"]),
        ("env_14_15_x", &["ENV-14", "ENV-15"]),
        ("env_14_to_17_x", &["ENV-14", "ENV-15", "ENV-16", "ENV-17"]),
        ("lau_12_13_env_16_17_x", &["LAU-12", "LAU-13", "ENV-16", "ENV-17"]),
        ("lau_12_and_env_16_x", &["LAU-12", "ENV-16"]),
        ("env_99_is_unknown", &["ENV-99"]),
        ("env_14_and_others", &["ENV-14"]),
        ("env_14_to_do", &["ENV-14"]),
        ("env_14", &["ENV-14"]),
        // A number with another meaning, and no id at the front.
        ("env_14_with_100_files", &["ENV-14"]),
        ("reads_env_14", &[]),
        ("environment_14_x", &[]),
        ("env_reader_14", &[]),
        ("g21_imports", &[]),
    ] {
        assert_eq!(ids(&format!("#[test]\nfn {name}() {{}}\n")), expected, "{name}");
    }
}

#[test]
fn a_line_above_the_test_may_have_them() {
    for (line, expected) in [
        ("/// ENV-14, ENV-15", &["ENV-14", "ENV-15"][..]),
        ("/// ENV-14 to ENV-16", &["ENV-14", "ENV-15", "ENV-16"]),
        ("/// ENV-14 and LAU-12: both", &["ENV-14", "LAU-12"]),
        ("/// ENV-77.", &["ENV-77"]),
        ("/// ENV-14 is what this is not about", &[]),
        ("/// G26: the list is golden", &[]),
        ("// ENV-14", &[]),
    ] {
        assert_eq!(ids(&format!("{line}\n#[test]\nfn some_test() {{}}\n")), expected, "{line}");
    }
    assert_eq!(ids("/// ENV-14\n#[cfg(unix)]\n#[test]\nfn env_15_x() {}\n"), ["ENV-15", "ENV-14"]);
    // Not of the test before.
    assert_eq!(ids("/// ENV-14\n#[test]\nfn a() {}\n\n#[test]\nfn b() {}\n"), ["ENV-14"]);
}

#[test]
fn what_does_not_run_shows_nothing() {
    assert!(ids("fn env_14_helper() {}\n").is_empty());
    assert!(ids("#[test]\n#[ignore = \"slow\"]\nfn env_14_x() {}\n").is_empty());
    assert!(ids("#[ignore = \"slow\"]\n#[test]\nfn env_14_x() {}\n").is_empty());
}

#[test]
fn what_has_to_be_shown_is_missed() {
    let mut evidence = evidence();
    assert_eq!(evidence.problems(), [""; 0]);
    evidence.pending = Pending::of(&["ENV-17"]);
    assert_eq!(evidence.problems(), ["no test shows ENV-15, and `pending.toml` does not list it"]);
    evidence.tests.push(test("a.rs", "env_15_to_17_x", &["ENV-15", "ENV-16", "ENV-17"]));
    assert_eq!(
        evidence.problems(),
        ["a test shows ENV-17, which `pending.toml` still lists; `cargo xtask conformance` takes it out"]
    );
    evidence.pending.remove(&["ENV-17".to_owned()]);
    assert_eq!(evidence.problems(), [""; 0]);
}

#[test]
fn ids_that_do_not_exist_are_found_wherever_they_are() {
    let mut evidence = evidence();
    evidence.tests.push(test("b.rs", "env_99_y", &["ENV-99"]));
    evidence.tests.push(test("b.rs", "lau_12_y", &["LAU-12"]));
    evidence.pending = Pending::of(&["ENV-15", "ENV-17", "ENV-98", "LAU-12"]);
    evidence.faults.push(Fault {
        ids: vec!["ENV-14".into(), "ENV-15".into(), "ENV-97".into()],
        file: "xtask/src/no-such-file.rs".into(),
        change: "none".into(),
        test: "env_14_x".into(),
    });
    assert_eq!(
        evidence.contradictions(),
        [
            "`env_99_y` in `b.rs` names ENV-99, which does not exist",
            "LAU-12 is listed as not supported, and has a test",
            "a fault was put into `xtask/src/no-such-file.rs`, which is not there",
            "a fault was seen by `env_14_x`, which is no test of ENV-15",
            "a fault names ENV-97, which does not exist",
            "`pending.toml` names ENV-98, which does not exist",
            "LAU-12 is both pending and not supported",
        ]
    );
}

#[test]
fn the_page_says_what_is_known() {
    let mut evidence = evidence();
    evidence.faults.push(Fault {
        ids: vec!["ENV-14".into()],
        file: "xtask/src/main.rs".into(),
        change: "a colon too many".into(),
        test: "env_14_x".into(),
    });
    assert_eq!(
        page::summary(&evidence),
        "6 requirements, 1 shown by tests (1 with a fault), 4 not shown yet, 1 not supported"
    );
    let page = page::render(&evidence);
    for line in [
        "| [ENV: Environment](#env-environment) | 4 | 1 | 1 | 3 | 0 |",
        "| ENV-14 | must | directories | [`env_14_x`](../a.rs) | `xtask/src/main.rs`: a colon too many |",
        "| ENV-15 | must | a \\| b | *Not shown by a test yet* |  |",
        "| LAU-12 | must | layers | *Not supported:* later |  |",
        "| LAU-13 | must | start | *No test:* cannot be seen |  |",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
}

#[test]
fn a_page_is_stale_when_a_test_was_added_or_renamed() {
    let mut evidence = evidence();
    let written = page::render(&evidence);
    assert_eq!(page::difference(&written, &page::render(&evidence)), None);
    evidence.tests[0].name = "env_14_renamed".into();
    assert!(page::difference(&written, &page::render(&evidence)).is_some());
    assert_eq!(page::difference("a\nb\n", "a\n"), Some("from line 2".into()));
    assert_eq!(page::difference("", "a\n"), Some("from line 1".into()));
}

#[test]
fn a_list_that_contradicts_itself_is_refused() {
    let refused = |text: &str| List::default().add(&text.parse().unwrap()).unwrap_err();
    let area = "[[area]]\nid = \"ENV\"\ntitle = \"x\"\n";
    assert_eq!(
        refused(&format!("{area}[area.requirements]\nLAU-12 = {{ level = \"must\", text = \"x\" }}\n")),
        "LAU-12 is in area ENV"
    );
    assert_eq!(
        refused(&format!("{area}[area.requirements]\nENV-12 = {{ level = \"ought\", text = \"x\" }}\n")),
        "ENV-12 has no level that is known"
    );
    assert_eq!(
        refused(&format!(
            "{area}supported = false\n[area.requirements]\nENV-12 = {{ level = \"may\", text = \"x\" }}\n"
        )),
        "ENV-12 is not supported, and nothing says why"
    );
    assert_eq!(refused(&format!("{area}{area}")), "there is another area ENV");
}

#[test]
fn pending_ids_survive_the_way_there_and_back() {
    let text = Pending::of(&["LAU-13", "ENV-14"]).to_string();
    let file: toml::Table = text.parse().unwrap();
    assert_eq!(file["ids"].as_array().unwrap().len(), 2);
    assert!(text.find("ENV-14") < text.find("LAU-13"), "{text}");
}

/// Counted by hand in the specification's list: none may get lost, none appear.
#[test]
fn the_list_is_complete() {
    let expected = [
        ("API", 21),
        ("ORD", 15),
        ("DET", 17),
        ("PLAN", 14),
        ("GRP", 3),
        ("UNM", 7),
        ("TGT", 15),
        ("BPT", 6),
        ("ENV", 30),
        ("BLD", 10),
        ("LYR", 18),
        ("STO", 5),
        ("LCH", 9),
        ("PRC", 6),
        ("SBOM", 14),
        ("MET", 4),
        ("EXE", 5),
        ("ANA", 10),
        ("RUN", 8),
        ("RST", 17),
        ("CAC", 13),
        ("EXP", 13),
        ("SLC", 7),
        ("TAR", 15),
        ("IMG", 12),
        ("LBL", 12),
        ("RPT", 7),
        ("LAU", 34),
        ("RBS", 19),
        ("CLI", 14),
        ("CRE", 4),
        ("DIST", 12),
        ("BLDR", 11),
        ("PRJ", 10),
        ("REG", 4),
        ("EXT", 13),
        ("WSM", 8),
    ];
    let list = List::read(&workspace::root().join("docs/conformance/requirements")).unwrap();
    let found: Vec<(&str, usize)> =
        list.areas.iter().map(|area| (area.id.as_str(), area.requirements.len())).collect();
    assert_eq!(found, expected);
    assert_eq!(list.requirements().count(), 442);
    assert_eq!(list.requirements().filter(|requirement| requirement.must()).count(), 404);
    for area in &list.areas {
        let numbers: Vec<&str> = area.requirements.iter().map(|one| &one.id[area.id.len() + 1..]).collect();
        assert!(numbers.is_sorted() && numbers.iter().all(|number| number.len() == 2), "{numbers:?}");
    }
}
