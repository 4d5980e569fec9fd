//! Who is asked first for where a source is, and who is not asked at all.

use super::*;

type Step = (fn(&mut Machine), &'static str, &'static str);

/// One thing that can say where `npm` is, its answer, and who it was; the first one wins.
const STEPS: [Step; 10] = [
    (
        |machine| {
            machine.file("home/policy.toml", "[sources.npm]\nurl = \"https://s1.example/\"\n");
        },
        "https://s1.example/",
        "home/policy.toml:2",
    ),
    (
        |machine| {
            machine.set("WAPACK_SOURCE_NPM", "https://s2.example");
        },
        "https://s2.example/",
        "WAPACK_SOURCE_NPM",
    ),
    (
        |machine| {
            machine.set("npm_config_registry", "https://s3.example");
        },
        "https://s3.example/",
        "npm_config_registry",
    ),
    (
        |machine| {
            machine.set("NPM_CONFIG_REGISTRY", "https://s4.example");
        },
        "https://s4.example/",
        "NPM_CONFIG_REGISTRY",
    ),
    (
        |machine| {
            let path = machine.path("other.npmrc");
            machine.file("other.npmrc", "\nregistry=https://s5.example").set("NPM_CONFIG_USERCONFIG", &path);
        },
        "https://s5.example/",
        "other.npmrc:2",
    ),
    (
        |machine| {
            let path = machine.path("usr");
            machine.file("usr/etc/npmrc", "registry=https://s6.example\n").set("PREFIX", &path);
        },
        "https://s6.example/",
        "usr/etc/npmrc:1",
    ),
    (
        |machine| {
            machine.program("npm", "https://s7.example/");
        },
        "https://s7.example/",
        "npm config get registry --location=global",
    ),
    (
        |machine| {
            machine.file("app/.npmrc", "registry=https://s8.example\n");
        },
        "https://s8.example/",
        "app/.npmrc:1",
    ),
    (
        |machine| {
            machine.file("app/npm-shrinkwrap.json", &lock("https://s9.example/npm/"));
        },
        "https://s9.example/npm/",
        "app/npm-shrinkwrap.json",
    ),
    (
        |machine| {
            machine.file("app/package-lock.json", &lock("https://s10.example/"));
        },
        "https://s10.example/",
        "app/package-lock.json",
    ),
];

#[test]
fn what_is_nearer_to_the_user_goes_first() {
    for first in 0..STEPS.len() {
        let mut machine = Machine::new();
        for (prepare, ..) in &STEPS[first..] {
            prepare(&mut machine);
        }
        let (_, address, set_by) = STEPS[first];
        assert_eq!(machine.find("npm"), Some((address.to_owned(), set_by.to_owned())), "step {}", first + 1);
    }
    assert_eq!(Machine::new().find("npm"), None);
}

#[test]
fn with_an_operator_only_the_first_two_count() {
    let mut machine = Machine::new();
    for (prepare, ..) in &STEPS[1..] {
        prepare(&mut machine);
    }
    machine.file("etc/wapack/policy.toml", "");
    assert_eq!(machine.find("npm").unwrap().1, "WAPACK_SOURCE_NPM");
    let mut machine = Machine::new();
    for (prepare, ..) in &STEPS[2..] {
        prepare(&mut machine);
    }
    machine.file("home/.npmrc", "@acme:registry=https://acme.example\n");
    machine.file("etc/wapack/policy.toml", "");
    assert_eq!((machine.find("npm"), machine.find("npm:@acme")), (None, None));
    assert_eq!(machine.said("npm"), [] as [&str; 0]);
    // An operator may let apps have their say; the tools of a user still have none.
    machine.file("etc/wapack/policy.toml", "[network]\norigins-from-lock-files = true\n");
    assert_eq!(machine.find("npm").unwrap().1, "app/.npmrc:1");
}

/// An unchanged build starts no program and reads nothing of the app.
#[test]
fn tools_and_apps_are_asked_late_or_not_at_all() {
    let mut machine = Machine::new();
    machine.program("npm", "https://tool.example/");
    machine.file("app/package-lock.json", "not JSON");
    let outcome = machine.look(&["npm"]).unwrap();
    assert!(outcome.network.settings.sources.is_empty() && outcome.said.is_empty());
    assert_eq!(address(&outcome.get("npm").unwrap()), "https://tool.example/");
    // Nobody wants it: nothing is looked for.
    machine.file("home/.npmrc", "registry=https://home.example\n@acme:registry=https://acme.example\n");
    assert!(machine.look(&["pypi"]).unwrap().network.settings.sources.is_empty());
    // Who wants the whole gets its parts with it.
    let names: Vec<String> = machine.look(&["npm"]).unwrap().network.settings.sources.into_keys().collect();
    assert_eq!(names, ["npm", "npm:@acme"]);
    for text in ["[network]\noffline = true\n", "[network]\norigins-from-lock-files = false\n"] {
        let mut machine = Machine::new();
        machine.file("home/policy.toml", text).file("app/package-lock.json", &lock("https://lock.example/"));
        assert_eq!(machine.find("npm"), None, "{text}");
    }
}
