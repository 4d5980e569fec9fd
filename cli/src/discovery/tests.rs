//! Every step of the order, with files and variables of the test's own.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use wapack_runtime::fault::Diagnose as _;
use wapack_runtime::network::{FindSource as _, Secret, SourceSettings};
use wapack_runtime::policy::PolicyPaths;

use super::*;
use crate::report;
use crate::style::Style;

/// A home, an app, a system, and programs that say what they are told.
struct Machine {
    temp: TempDir,
    variables: Vec<(String, String)>,
}

/// What was found, and what was said about it.
struct Outcome {
    network: Network,
    said: Vec<Remark>,
}

impl Machine {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for directory in ["home", "app", "bin"] {
            std::fs::create_dir(temp.path().join(directory)).unwrap();
        }
        let mut machine = Self { temp, variables: Vec::new() };
        let (home, bin) = (machine.path("home"), machine.path("bin"));
        machine.set("HOME", &home).set("PATH", &bin);
        machine
    }

    fn path(&self, name: &str) -> String {
        self.temp.path().join(name).display().to_string()
    }

    fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn file(&mut self, name: &str, text: &str) -> &mut Self {
        let path = self.temp.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Installs a program that answers with `answer`.
    fn program(&mut self, name: &str, answer: &str) -> &mut Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/discovery/testdata/tool");
        std::os::unix::fs::symlink(script, self.temp.path().join("bin").join(name)).unwrap();
        let variable = format!("FAKE_{}", name.trim_end_matches('3').to_uppercase());
        self.set(&variable, answer)
    }

    fn environment(&self) -> Environment {
        let variables: Vec<(&str, &str)> =
            self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Environment::of(self.temp.path(), &variables)
    }

    fn look(&self, wanted: &[&str]) -> Result<Outcome, Failure> {
        let paths = PolicyPaths {
            system: Some(self.path("etc/wapack/policy.toml").into()),
            user: Some(self.path("home/policy.toml").into()),
            explicit: None,
        };
        let (policy, origins) = Policy::load(&paths)?;
        let app = self.temp.path().join("app");
        let question = Question {
            policy: &policy,
            origins: &origins,
            app: Some(&app),
            wanted: wanted.iter().map(|name| (*name).to_owned()).collect(),
            cancel: &Cancel::default(),
        };
        let network = network(&question, self.environment())?;
        let said = network.finder.take_remarks();
        Ok(Outcome { network, said })
    }

    /// Where one source is, and who says so, looking as far as it takes.
    fn find(&self, name: &str) -> Option<(String, String)> {
        self.look(&[name]).unwrap().get(name).map(|found| {
            let set_by = found.set_by.replace(&self.path(""), "");
            (address(&found), set_by)
        })
    }

    /// Everything that is said when one source is looked for.
    fn said(&self, name: &str) -> Vec<String> {
        let mut outcome = self.look(&[name]).unwrap();
        outcome.get(name);
        outcome.said.extend(outcome.network.finder.take_remarks());
        let text = |remark: Remark| match remark {
            Remark::Warning(text) | Remark::Note(text) => text.replace(&self.path(""), ""),
        };
        outcome.said.into_iter().map(text).collect()
    }
}

impl Outcome {
    fn get(&self, name: &str) -> Option<SourceSettings> {
        let at_hand = self.network.settings.sources.get(name).cloned();
        at_hand.or_else(|| self.network.finder.find(name))
    }

    fn credentials(&self, name: &str) -> Option<Credentials> {
        self.get(name)?.credentials
    }
}

fn address(settings: &SourceSettings) -> String {
    match &settings.place {
        SourcePlace::Base(url) => url.to_string(),
        SourcePlace::Directory(path) => path.display().to_string(),
    }
}

fn bearer(token: &str) -> Credentials {
    Credentials::Bearer(Secret::new(token))
}

fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic { user: user.to_owned(), password: Secret::new(password) }
}

fn lock(origin: &str) -> String {
    format!(
        r#"{{ "packages": {{ "": {{ "name": "x" }},
            "node_modules/a": {{ "resolved": "{origin}a/-/a-1.0.0.tgz", "integrity": "sha512-x" }} }} }}"#
    )
}

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

/// T3: tools get no token of ours and run where no file can answer for them.
#[test]
fn t3_tools_are_asked_where_nothing_is() {
    let mut machine = Machine::new();
    machine.program("npm", "look").set("WAPACK_SOURCE_NPM_TOKEN", "CANARY");
    assert_eq!(machine.find("npm").unwrap().0, "https://saw-nothing-and-nothing.example/");
}

#[test]
fn a_tool_that_does_not_answer_is_ended_and_said() {
    let mut machine = Machine::new();
    machine.program("npm", "stop");
    let finder = Finder::new(
        machine.environment(),
        None,
        Trusted { tools: true, app: true, offline: false },
        BTreeSet::new(),
        Cancel::default(),
    )
    .with_patience(Duration::from_millis(100));
    assert_eq!(finder.find_anywhere("npm"), None);
    let said = finder.take_remarks();
    assert!(matches!(&said[..], [Remark::Warning(text)] if text.contains("gave no answer")), "{said:?}");
    for (answer, warnings) in [("undefined", 1), ("", 0), ("https://a.example\nhttps://b.example", 1)] {
        let mut machine = Machine::new();
        machine.program("npm", answer);
        assert_eq!(machine.find("npm"), None, "{answer}");
        assert_eq!(machine.said("npm").len(), warnings, "{answer}");
    }
}

#[test]
fn other_sources_are_found_where_their_tools_keep_them() {
    let mut machine = Machine::new();
    machine.program("pip3", "https://pip.example/simple").program("go", "https://go.example,direct");
    assert_eq!(machine.find("pypi").unwrap().0, "https://pip.example/simple/");
    assert_eq!(machine.find("go").unwrap(), ("https://go.example/".into(), "go env GOPROXY".into()));

    machine.file("etc/pip.conf", "[global]\nindex-url = https://etc.example/simple\n");
    machine.file("home/.config/pip/pip.conf", "[global]\n# mine\nindex_url: https://user.example/simple\n");
    assert_eq!(machine.find("pypi").unwrap().1, "home/.config/pip/pip.conf:3");
    machine.file("etc/pip.conf", "[install]\nindex-url = https://etc.example/simple\n");
    assert_eq!(machine.find("pypi").unwrap().1, "etc/pip.conf:2");
    machine.set("PIP_INDEX_URL", "https://joe:secret@env.example/simple/");
    assert_eq!(machine.find("pypi").unwrap(), ("https://env.example/simple/".into(), "PIP_INDEX_URL".into()));
    assert_eq!(machine.look(&["pypi"]).unwrap().credentials("pypi"), Some(basic("joe", "secret")));

    machine.file("home/.config/go/env", "GOFLAGS=\nGOPROXY=https://a.example|https://b.example,direct\n");
    let found = machine.look(&["go"]).unwrap().get("go").unwrap();
    assert_eq!(address(&found), "https://a.example/");
    assert_eq!(found.mirrors[0].as_str(), "https://b.example/");
    machine.set("GOPROXY", "file:///srv/go");
    assert_eq!(machine.find("go").unwrap().0, "/srv/go");
    assert_eq!(machine.find("other"), None);
}

#[test]
fn apt_names_the_archive_of_the_installed_release() {
    let mut machine = Machine::new();
    machine.file("etc/os-release", "ID=debian\nVERSION_CODENAME=bookworm\n");
    assert_eq!(machine.find("debian"), None);
    machine.file(
        "etc/apt/sources.list",
        "# deb http://old.example/debian bookworm main\n\
         deb cdrom:[Debian 12]/ bookworm main\n\
         deb [arch=amd64 signed-by=/k.gpg] https://apps.example bookworm main\n\
         deb-src http://src.example/debian bookworm main\n\
         deb http://next.example/debian trixie main\n\
         deb http://extra.example/debian bookworm contrib\n\
         deb [ arch=amd64 ] http://one.example/debian/ bookworm contrib main # comment\n",
    );
    assert_eq!(
        machine.find("debian"),
        Some(("http://one.example/debian/".into(), "etc/apt/sources.list:7".into()))
    );
    assert_eq!(machine.said("debian"), [] as [&str; 0]);
    machine.file("etc/apt/sources.list", "");
    machine.file(
        "etc/apt/sources.list.d/a.sources",
        "Types: deb\nURIs: https://off.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n\n\
         types: deb-src deb\n# http://comment.example\nuris:\n https://multi.example/debian\n\
         Suites: bookworm-updates\n bookworm\nComponents: main\n",
    );
    assert_eq!(
        machine.find("debian"),
        Some(("https://multi.example/debian/".into(), "etc/apt/sources.list.d/a.sources:9".into()))
    );
    assert_eq!(machine.find("ubuntu"), None);
}

#[test]
fn npm_signs_in_as_npm_does() {
    let auth = "am9lOnM6ZWNyZXQ="; // printf joe:s:ecret | base64
    let password = "czplY3JldA=="; // printf s:ecret | base64
    let both = Some(basic("joe", "s:ecret"));
    for (lines, expected) in [
        ("//r.example/npm/:_authToken=tok", Some(bearer("tok"))),
        ("//r.example/npm:_authToken=tok", Some(bearer("tok"))),
        ("//r.example/:_authToken=tok", Some(bearer("tok"))),
        ("//r.example:_authToken=tok", Some(bearer("tok"))),
        ("//r.example/:_authToken=far\n//r.example/npm/:_authToken=near", Some(bearer("near"))),
        ("//r.example/:_authToken=${MY_TOKEN}", Some(bearer("from-env"))),
        (&format!("//r.example/npm/:_auth={auth}"), both.clone()),
        (&format!("//r.example/npm/:_auth = \"{auth}\""), both.clone()),
        (&format!("//r.example/npm/:username=joe\n//r.example/npm/:_password={password}"), both.clone()),
        (&format!("//r.example/npm/:_auth={auth}\n//r.example/npm/:_authToken=tok"), Some(bearer("tok"))),
        // Somebody else's, or nobody's.
        ("//other.example/:_authToken=tok", None),
        ("//r.example:8443/:_authToken=tok", None),
        ("//r.example/np/:_authToken=tok", None),
        ("//r.example/npm/x/:_authToken=tok", None),
        ("_authToken=tok", None),
        ("//r.example/npm/:username=joe", None),
        ("//r.example/npm/:_auth=%%%", None),
        ("//r.example/npm/:_authToken=${NOT_SET}", None),
    ] {
        let mut machine = Machine::new();
        machine.file("home/.npmrc", &format!("registry=https://r.example/npm\n{lines}\n"));
        machine.set("MY_TOKEN", "from-env");
        assert_eq!(machine.look(&["npm"]).unwrap().credentials("npm"), expected, "{lines}");
    }
    // The tool's answer is signed in to as well, and a scope has its own token.
    let mut machine = Machine::new();
    machine.program("npm", "https://tool.example/").file(
        "home/.npmrc",
        "//tool.example/:_authToken=t1\n@acme:registry=https://acme.example\n//acme.example/:_authToken=t2\n",
    );
    let outcome = machine.look(&["npm"]).unwrap();
    assert_eq!(outcome.credentials("npm"), Some(bearer("t1")));
    assert_eq!(outcome.credentials("npm:@acme"), Some(bearer("t2")));
}

#[test]
fn tokens_of_our_own_variables_and_files() {
    let mut machine = Machine::new();
    machine.set("WAPACK_SOURCE_NPM", "https://a.example").set("WAPACK_SOURCE_NPM_TOKEN", "t1");
    assert_eq!(machine.look(&["npm"]).unwrap().credentials("npm"), Some(bearer("t1")));
    // A source called like the variable of a token is not looked for there.
    assert_eq!(machine.find("npm:token"), None);
    machine.file("home/policy.toml", "[sources.npm]\nurl = \"https://b.example\"\n");
    assert_eq!(machine.look(&["npm"]).unwrap().credentials("npm"), Some(bearer("t1")));

    let path = machine.path("npm.token");
    machine.file("npm.token", "t2\n");
    let policy = format!("[sources.npm]\nurl = \"https://b.example\"\ntoken-file = \"{path}\"\n");
    machine.file("home/policy.toml", &policy);
    assert_eq!(machine.look(&["npm"]).unwrap().credentials("npm"), Some(bearer("t2")));
    assert!(machine.said("npm")[0].contains("everybody on this machine can read the secret"));
    let secret = "[sources.npm]\nurl = \"https://b.example\"\nuser = \"joe\"\npassword-env = \"PASSWORD\"\n";
    machine.file("home/policy.toml", secret);
    let error = machine.look(&["npm"]).err().unwrap();
    assert_eq!(error.id(), "input.source_secret");
    assert!(error.to_string().ends_with("policy.toml:2: nothing signs in to the source `npm`"), "{error}");
    // It only matters when somebody wants the source.
    machine.look(&["pypi"]).unwrap();
    machine.set("PASSWORD", "p");
    assert_eq!(machine.look(&["npm"]).unwrap().credentials("npm"), Some(basic("joe", "p")));

    let mut machine = Machine::new();
    machine.file("home/.npmrc", "registry=https://a.example").set("WAPACK_SOURCE_NPM_TOKEN", "t1");
    assert_eq!(machine.look(&["npm"]).unwrap().credentials("npm"), None);
    assert!(machine.said("npm")[0].starts_with("`WAPACK_SOURCE_NPM_TOKEN` is not used"));
}

/// T3: an app's `.npmrc` gets no variable of the host, and nothing in it signs in.
#[test]
fn t3_an_app_cannot_aim_secrets() {
    let mut machine = Machine::new();
    machine.set("AWS_SECRET", "CANARY");
    machine.file("home/.npmrc", "//evil.example/:_authToken=CANARY\n");
    machine.file(
        "app/.npmrc",
        "registry=https://evil.example/${AWS_SECRET}/\n//evil.example/:_authToken=${AWS_SECRET}\n\
         @a:registry=https://CANARY@evil.example\n@b:registry=http://evil.example\n\
         @c:registry=https://evil.example/\nproxy=http://evil.example\ncafile=/app/ca.pem\n",
    );
    assert_eq!(machine.find("npm"), None);
    assert_eq!(machine.find("npm:@a"), None);
    assert_eq!(machine.find("npm:@b"), None);
    let outcome = machine.look(&["npm"]).unwrap();
    let found = outcome.get("npm:@c").unwrap();
    assert_eq!(address(&found), "https://evil.example/");
    assert_eq!((found.trust, &found.credentials, found.ca.len()), (SourceTrust::LockFile, &None, 0));
    assert_eq!(outcome.network.settings.http_proxy, None);
    let said = machine.said("npm");
    assert!(said.iter().any(|text| text.starts_with("app/.npmrc:2: nothing in an app signs in")), "{said:?}");
    assert!(said.iter().any(|text| text.starts_with("app/.npmrc:1: no variable is put")), "{said:?}");
    assert!(machine.said("npm:@b")[1].contains("`https` addresses only"));
    assert!(!format!("{said:?} {:?}", machine.said("npm:@a")).contains("CANARY"));

    // A link would make it somebody else's file.
    let mut machine = Machine::new();
    machine.file(".npmrc", "registry=https://other.example\n");
    machine.file("package-lock.json", &lock("https://other.example/"));
    for name in [".npmrc", "package-lock.json"] {
        std::os::unix::fs::symlink(machine.path(name), machine.path(&format!("app/{name}"))).unwrap();
    }
    assert_eq!(machine.find("npm"), None);
    assert_eq!(machine.said("npm").len(), 2);
}

#[test]
fn lock_files_name_the_registry_of_most_packages() {
    let package = |name: &str, resolved: &str| {
        format!(r#""node_modules/{name}": {{ "resolved": "{resolved}", "integrity": "sha512-x" }}"#)
    };
    let find = |packages: &[String], name: &str| {
        let mut machine = Machine::new();
        let text = format!(r#"{{ "lockfileVersion": 3, "packages": {{ {} }} }}"#, packages.join(","));
        machine.file("app/package-lock.json", &text);
        machine.find(name).map(|(address, _)| address)
    };
    let packages = [
        package("a", "https://many.example/npm/a/-/a-1.0.0.tgz"),
        package("b", "https://few.example/b/-/b-1.0.0.tgz"),
        package("@acme/c", "https://acme.example/x/@acme/c/-/c-1.0.0.tgz#0123"),
        package("@acme/d", "https://acme.example/x/@acme%2fd/-/d-1.0.0.tgz"),
        package("@same/e", "https://many.example/npm/@same/e/-/e-1.0.0.tgz"),
        package("f", "https://many.example/npm/f/-/f-1.0.0.tgz"),
    ];
    assert_eq!(find(&packages, "npm").unwrap(), "https://many.example/npm/");
    assert_eq!(find(&packages, "npm:@acme").unwrap(), "https://acme.example/x/");
    assert_eq!((find(&packages, "npm:@same"), find(&packages, "npm:@none")), (None, None));
    // Two of a kind: always the same one.
    assert_eq!(find(&packages[..2], "npm").unwrap(), "https://few.example/");
    let no_integrity = r#""node_modules/a": { "resolved": "https://a.example/a/-/a-1.0.0.tgz" }"#.to_owned();
    let odd = r#""x": { "resolved": true, "integrity": [1, {"a": null}] }, "y": {}"#.to_owned();
    for packages in [
        no_integrity,
        odd,
        package("a", "http://a.example/a/-/a-1.0.0.tgz"),
        package("a", "https://joe:CANARY@a.example/a/-/a-1.0.0.tgz"),
        package("a", "git+ssh://git@a.example/a.git#0123"),
        package("a", "https://a.example/a-1.0.0.tgz"),
        package("a", "https://a.example/a/-/a-1.0.0.tgz?token=1"),
        package("a", "https:///a/-/a-1.0.0.tgz"),
        package("a", "file:../a"),
    ] {
        assert_eq!(find(std::slice::from_ref(&packages), "npm"), None, "{packages}");
    }
    // Where the whole of it was configured, its parts are not the app's to decide.
    let mut machine = Machine::new();
    machine.file("app/package-lock.json", &format!(r#"{{ "packages": {{ {} }} }}"#, packages.join(",")));
    assert!(machine.find("npm:@acme").is_some());
    machine.set("WAPACK_SOURCE_NPM", "https://mirror.example");
    assert_eq!(machine.find("npm:@acme"), None);
    // I5: what is no lock file is said, and is not the end.
    for text in ["", "[", "{\"packages\": 1}", &format!("{{\"packages\": {}", "[".repeat(100_000))] {
        let mut machine = Machine::new();
        machine.file("app/package-lock.json", text);
        assert_eq!(machine.find("npm"), None);
        assert!(machine.said("npm")[0].contains("app/package-lock.json names no source"), "{text:.20}");
    }
}

#[test]
fn a_lock_file_is_named_once_as_where_an_address_comes_from() {
    let mut machine = Machine::new();
    machine.file("app/package-lock.json", &lock("https://lock.example/"));
    let outcome = machine.look(&["npm"]).unwrap();
    assert_eq!(outcome.get("npm").unwrap().trust, SourceTrust::LockFile);
    outcome.get("npm");
    let said = outcome.network.finder.take_remarks();
    assert!(
        matches!(&said[..], [Remark::Note(text)] if text.contains("app/package-lock.json says so")),
        "{said:?}"
    );
}

#[test]
fn what_is_wrong_in_a_users_file_is_a_warning_with_its_line() {
    for (name, text, source, expected) in [
        ("home/.npmrc", "\nregistry = nonsense\n", "npm", "home/.npmrc:2: this address is not used"),
        (
            "home/.npmrc",
            "registry=https://${NOT_SET}.example",
            "npm",
            "home/.npmrc:1: the variable `NOT_SET`",
        ),
        ("home/.npmrc", "registry=http://plain.example", "npm", "the source `npm` can be read on the way"),
        (
            "home/.npmrc",
            "strict-ssl=false\nregistry=https://a.example",
            "npm",
            "home/.npmrc:1: `strict-ssl=false`",
        ),
        (
            "home/.npmrc",
            "cafile=/nowhere.pem\nregistry=https://a.example",
            "npm",
            "home/.npmrc:1: there is no file",
        ),
        ("home/.npmrc/x", "", "npm", "home/.npmrc is not used: it is not a file"),
        ("etc/pip.conf", "[global]\nnonsense\n", "pypi", "etc/pip.conf:2 is not understood"),
        (
            "etc/pip.conf",
            "[global]\nindex-url = ftp://x\n",
            "pypi",
            "etc/pip.conf:2: this address is not used",
        ),
        ("home/.config/go/env", "GOPROXY=nonsense", "go", "home/.config/go/env:1: this address is not used"),
    ] {
        let mut machine = Machine::new();
        machine.file(name, text);
        let said = machine.said(source);
        assert!(said.len() == 1 && said[0].starts_with(expected), "{text:?}: {said:?}");
    }
    // What is written for us is an error.
    let mut machine = Machine::new();
    machine.file("home/policy.toml", "[sources.npm]\nurl = \"nonsense\"\n");
    assert_eq!(machine.look(&["npm"]).err().unwrap().id(), "policy.invalid");
    let mut machine = Machine::new();
    machine.set("WAPACK_SOURCE_NPM", "relative");
    assert_eq!(machine.look(&["npm"]).err().unwrap().id(), "input.source");
    machine.look(&["pypi"]).unwrap();
}

#[test]
fn proxies_and_authorities_come_from_one_place() {
    let proxies = |machine: &Machine| {
        let settings = machine.look(&["npm"]).unwrap().network.settings;
        let text = |url: Option<url::Url>| url.map_or_else(|| "-".to_owned(), String::from);
        let no_proxy = settings.no_proxy.unwrap_or_else(|| "-".to_owned());
        format!("{} {} {no_proxy}", text(settings.http_proxy), text(settings.https_proxy))
    };
    let mut machine = Machine::new();
    machine
        .file("home/.npmrc", "https-proxy=https://npm.example:1\nnoproxy[]=a.example\nnoproxy[]=b.example\n");
    assert_eq!(proxies(&machine), "https://npm.example:1/ https://npm.example:1/ a.example,b.example");
    machine.set("ALL_PROXY", "all.example:1").set("HTTP_PROXY", "http://upper.example:1");
    assert_eq!(proxies(&machine), "http://upper.example:1/ http://all.example:1/ -");
    // "httpoxy": with it, the variable is a visitor's header.
    machine.set("REQUEST_METHOD", "GET").set("NO_PROXY", "x.example");
    assert_eq!(proxies(&machine), "http://all.example:1/ http://all.example:1/ x.example");
    machine.set("http_proxy", "http://lower.example:1").set("https_proxy", "socks5://s.example");
    assert_eq!(proxies(&machine), "http://lower.example:1/ - x.example");
    assert!(machine.said("npm")[0].starts_with("https_proxy: this proxy is not used"));
    machine.file("home/policy.toml", "[network]\nproxy = \"http://policy.example:1\"\n");
    assert_eq!(proxies(&machine), "http://policy.example:1/ http://policy.example:1/ -");

    let mut machine = Machine::new();
    for name in ["file.pem", "node.pem", "pip.pem", "npm.pem", "dir/0a1b2c3d.0", "dir/readme", "dir/x.0"] {
        machine.file(name, "");
    }
    for (variable, name) in [
        ("SSL_CERT_FILE", "file.pem"),
        ("SSL_CERT_DIR", "dir"),
        ("NODE_EXTRA_CA_CERTS", "node.pem"),
        ("PIP_CERT", "pip.pem"),
    ] {
        let path = machine.path(name);
        machine.set(variable, &path);
    }
    let npmrc = format!(
        "registry=https://a.example\ncafile={}\nca=\"-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----\"\n",
        machine.path("npm.pem")
    );
    machine.file("home/.npmrc", &npmrc).set("PIP_INDEX_URL", "https://p.example");
    let outcome = machine.look(&["npm", "pypi"]).unwrap();
    let names = |paths: &[std::path::PathBuf]| -> Vec<String> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&outcome.network.settings.ca), ["file.pem", "0a1b2c3d.0"]);
    let npm = outcome.get("npm").unwrap();
    assert_eq!(names(&npm.ca), ["node.pem", "npm.pem", "npm-ca.pem"]);
    let written = std::fs::read_to_string(&npm.ca[2]).unwrap();
    assert_eq!(written, "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----");
    assert_eq!(names(&outcome.get("pypi").unwrap().ca), ["pip.pem"]);
}

/// T3, R14: no secret is in anything that can be printed.
#[test]
fn t3_no_secret_is_printed() {
    let mut machine = Machine::new();
    machine
        .file("home/.npmrc", "registry=https://CANARY:CANARY@a.example\n//b.example/:_authToken=CANARY\n@b:registry=https://b.example\n")
        .set("PIP_INDEX_URL", "https://CANARY@p.example/simple")
        .set("WAPACK_SOURCE_NPM_C", "https://joe:CANARY@c.example")
        .set("WAPACK_SOURCE_NPM_D_TOKEN", "CANARY")
        .set("HTTPS_PROXY", "http://joe:CANARY@proxy.example:1")
        .set("GOPROXY", "https://x:CANARY@go.example,https://y:CANARY@go.example")
        .program("npm", "CANARY");
    let outcome = machine.look(&["npm", "npm:@c", "pypi", "go", "debian"]).unwrap();
    assert_eq!(outcome.network.settings.sources.len(), 5);
    let Network { settings, .. } = &outcome.network;
    let mut printed = vec![format!("{:?} {settings:#?} {:?}", outcome.network, outcome.said)];
    for (name, found) in outcome.network.all_discovered() {
        printed.push(format!("{found:?} {:?}", shown(&name, &found)));
    }
    assert!(printed.concat().contains("(set by "), "{printed:?}");
    // Errors and warnings about such values.
    let mut fails = |machine: &Machine| {
        let error = machine.look(&["npm"]).err().unwrap();
        let style = Style::for_stream(&std::io::stdout(), true);
        printed.extend([
            format!("{error:?}"),
            report::text(&error, style),
            report::json(&error, 3).to_string(),
        ]);
    };
    for value in ["CANARY", "https://joe:CANARY@", "ftp://joe:CANARY@x", "https://joe:CANARY@x/?CANARY"] {
        let mut machine = Machine::new();
        machine.set("WAPACK_SOURCE_NPM", value);
        fails(&machine);
        let mut machine = Machine::new();
        machine.file("home/policy.toml", &format!("[sources.npm]\nurl = \"{value}\"\n"));
        fails(&machine);
        for key in ["token", "password", "token-file"] {
            let text = format!("[sources.npm]\nurl = \"https://a.example\"\n{key} = \"{value}\"\n");
            machine.file("home/policy.toml", &text);
            fails(&machine);
        }
    }
    for value in ["CANARY", "https://joe:CANARY@", "ftp://joe:CANARY@x", "https://joe:CANARY@x/?CANARY"] {
        let mut machine = Machine::new();
        machine.set("npm_config_registry", value).set("HTTPS_PROXY", &value.replace("https", "socks"));
        let said = machine.said("npm");
        assert_eq!(said.len(), if value == "CANARY" { 1 } else { 2 }, "{said:?}");
        printed.extend(said);
    }
    assert!(!printed.concat().contains("CANARY"), "{printed:#?}");
}

/// What a policy says of registries, and who knows how to sign in, get to whoever opens one.
#[test]
fn registries_of_the_policy_and_credentials_of_the_user_are_handed_on() {
    let mut machine = Machine::new();
    machine.file("home/policy.toml", "\n[registries.\"docker.io\"]\ninsecure = true\n");
    // printf joe:CANARY | base64
    let auths = r#"{"auths": {"registry.example": {"auth": "am9lOkNBTkFSWQ=="}}}"#;
    machine.file("home/.docker/config.json", auths);
    let settings = machine.look(&[]).unwrap().network.settings;
    let hub = &settings.registries["index.docker.io"];
    assert!(hub.insecure && hub.set_by.ends_with("home/policy.toml:2"), "{hub:?}");
    let found = settings.registry_credentials.as_ref().unwrap().find("registry.example", "app").unwrap();
    assert!(found.is_some());
    assert!(!format!("{settings:?} {found:?}").contains("CANARY"), "{settings:?}");
}
