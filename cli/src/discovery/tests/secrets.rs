//! Who signs in where, and that nothing secret is printed.

use super::*;

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
