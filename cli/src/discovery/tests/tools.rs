//! What the tools of a machine and their files say.

use super::*;

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
