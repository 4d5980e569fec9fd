//! Files as Docker and podman write them, helpers that do as their name says, and a
//! canary in everything secret.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wapack_runtime::network::Secret;

use super::*;

/// A user's home and runtime directory, an app, and a directory on `PATH`.
struct User {
    temp: TempDir,
    variables: Vec<(String, String)>,
}

impl User {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for directory in ["home", "app", "bin"] {
            std::fs::create_dir(temp.path().join(directory)).unwrap();
        }
        let mut user = Self { temp, variables: Vec::new() };
        // The helper's own tools come after.
        let path = format!("{}:/usr/bin:/bin", user.path("bin"));
        let (home, record) = (user.path("home"), user.path("record"));
        user.set("HOME", &home).set("PATH", &path).set("FAKE_RECORD", &record);
        user
    }

    fn path(&self, name: &str) -> String {
        self.temp.path().join(name).display().to_string()
    }

    fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn file(&mut self, name: &str, text: &str) -> &mut Self {
        let path = self.temp.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn docker(&mut self, text: &str) -> &mut Self {
        self.file("home/.docker/config.json", text)
    }

    fn helper_in(&mut self, directory: &str, name: &str) -> &mut Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/discovery/testdata/helper");
        std::fs::create_dir_all(self.path(directory)).unwrap();
        let place = self.temp.path().join(directory).join(format!("docker-credential-{name}"));
        std::os::unix::fs::symlink(script, place).unwrap();
        self
    }

    fn helper(&mut self, name: &str) -> &mut Self {
        self.helper_in("bin", name)
    }

    /// What helpers were asked.
    fn record(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("record")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn credentials(&self) -> UserCredentials {
        let variables: Vec<(&str, &str)> =
            self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let environment = Environment::of(self.temp.path(), &variables);
        let app = PathBuf::from(self.path("app"));
        UserCredentials::new(environment, Some(&app), Cancel::default())
            .with_patience(Duration::from_secs(20))
    }

    /// T3: what is found or said shows no secret, whoever prints it.
    fn find(&self, registry: &str, repository: &str) -> Result<Option<RegistryCredentials>, String> {
        let credentials = self.credentials();
        let found = credentials.find(registry, repository);
        let printed = format!("{credentials:?} {found:?}");
        assert!(!printed.contains("CANARY") && !printed.contains("Q0FOQVJZ"), "{printed}");
        found.map_err(|error| error.replace(&self.path(""), ""))
    }

    fn password(&self, registry: &str, repository: &str) -> Option<String> {
        match self.find(registry, repository).unwrap()? {
            RegistryCredentials::Basic { user, password } => Some(format!("{user}:{}", password.reveal())),
            other => panic!("{other:?}"),
        }
    }

    fn error(&self, registry: &str) -> String {
        self.find(registry, "app").unwrap_err()
    }
}

fn basic(user: &str, password: &str) -> RegistryCredentials {
    RegistryCredentials::Basic { user: user.to_owned(), password: Secret::new(password) }
}

/// `printf joe:CANARY | base64`
const JOE: &str = "am9lOkNBTkFSWQ==";
/// `printf ann:CANARY-2 | base64`
const ANN: &str = "YW5uOkNBTkFSWS0y";

fn auths(entries: &[(&str, &str)]) -> String {
    let entries: Vec<String> =
        entries.iter().map(|(key, auth)| format!(r#""{key}": {{ "auth": "{auth}" }}"#)).collect();
    format!(r#"{{ "auths": {{ {} }} }}"#, entries.join(", "))
}

#[test]
fn nobody_is_signed_in_without_files() {
    let mut user = User::new();
    assert_eq!(user.find("registry.example", "app").unwrap(), None);
    for empty in ["", "\n", "{}", r#"{"auths": null}"#, r#"{"auths": {"registry.example": {}}}"#] {
        user.docker(empty);
        assert_eq!(user.find("registry.example", "app").unwrap(), None, "{empty}");
    }
}

/// CLI-08: each kind of entry, as `docker login`, `az acr login` and others write it.
#[test]
fn cli_08_entries_of_every_kind_are_understood() {
    let bearer = RegistryCredentials::Bearer(Secret::new("CANARY"));
    let identity = RegistryCredentials::IdentityToken(Secret::new("CANARY"));
    for (entry, expected) in [
        (r#"{"auth": "am9lOkNBTkFSWQ=="}"#, basic("joe", "CANARY")),
        // Without what fills it up; with a colon, and none, in the password; filled up with NULs.
        (r#"{"auth": "am9lOkNBTkFSWQ"}"#, basic("joe", "CANARY")),
        (r#"{"auth": "am9lOkNBOk5BUlk="}"#, basic("joe", "CA:NARY")),
        (r#"{"auth": "am9lOg=="}"#, basic("joe", "")),
        (r#"{"auth": "am9lOkNBTkFSWQAA"}"#, basic("joe", "CANARY")),
        (r#"{"username": "joe", "password": "CANARY", "email": "joe@example.com"}"#, basic("joe", "CANARY")),
        (r#"{"auth": "am9lOkNBTkFSWQ==", "username": "x", "password": "y"}"#, basic("joe", "CANARY")),
        (r#"{"auth": "MDAwMDA6", "identitytoken": "CANARY"}"#, identity.clone()),
        (r#"{"identitytoken": "CANARY", "auth": ""}"#, identity),
        (r#"{"registrytoken": "CANARY", "identitytoken": "x"}"#, bearer),
    ] {
        let mut user = User::new();
        user.docker(&format!(
            r#"{{ "HttpHeaders": {{}}, "auths": {{ "registry.example:5000": {entry} }} }}"#
        ));
        assert_eq!(user.find("registry.example:5000", "app").unwrap(), Some(expected), "{entry}");
        assert_eq!(user.find("registry.example", "app").unwrap(), None, "another port is another registry");
    }
}

#[test]
fn keys_are_names_addresses_and_places_below() {
    for (key, registry, repository, fits) in [
        ("registry.example", "registry.example", "a/b", true),
        ("Registry.Example", "registry.example", "a/b", true),
        ("registry.example", "Registry.Example", "a/b", true),
        ("https://registry.example", "registry.example", "a/b", true),
        ("https://registry.example/v1/", "registry.example", "a/b", true),
        ("http://registry.example:5000/v2/", "registry.example:5000", "a/b", true),
        ("registry.example/v1/", "registry.example", "a/b", true),
        // Docker looks at the host of an address and at nothing else.
        ("https://registry.example/project", "registry.example", "a/b", true),
        ("https://index.docker.io/v1/", "index.docker.io", "library/debian", true),
        ("index.docker.io/v1/", "index.docker.io", "library/debian", true),
        ("docker.io", "index.docker.io", "library/debian", true),
        ("index.docker.io", "index.docker.io", "library/debian", true),
        ("registry-1.docker.io", "index.docker.io", "library/debian", true),
        ("docker.io/library", "index.docker.io", "library/debian", true),
        ("registry.example/a", "registry.example", "a/b", true),
        ("registry.example/a/", "registry.example", "a/b", true),
        ("registry.example/a/b", "registry.example", "a/b", true),
        ("[::1]:5000", "[::1]:5000", "a", true),
        ("registry.example/a/b/c", "registry.example", "a/b", false),
        ("registry.example/a", "registry.example", "ab", false),
        ("docker.io/acme", "index.docker.io", "library/debian", false),
        ("registry.example", "registry.example:443", "a", false),
        ("registry.example", "other.registry.example", "a", false),
        ("other.registry.example", "registry.example", "a", false),
        ("registry.example", "registry.example.evil.example", "a", false),
        ("https://registry.example@evil.example/", "registry.example", "a", false),
        ("", "registry.example", "a", false),
        ("/", "registry.example", "a", false),
    ] {
        let mut user = User::new();
        user.docker(&auths(&[(key, JOE)]));
        assert_eq!(user.find(registry, repository).unwrap().is_some(), fits, "{key} {registry}/{repository}");
    }
}

/// containers-auth.json(5): "the most specific one wins"; of the rest, names before addresses.
#[test]
fn the_most_specific_key_wins() {
    let mut user = User::new();
    user.file(
        "home/.config/containers/auth.json",
        &auths(&[
            ("https://registry.example/v1/", "b2xkOng="), // printf old:x | base64
            ("registry.example", JOE),
            ("Registry.Example/team", ANN),
            ("registry.example/team/app", "bWF4Ong="), // printf max:x | base64
        ]),
    );
    for (repository, who) in [
        ("app", "joe:CANARY"),
        ("team", "ann:CANARY-2"),
        ("team/other", "ann:CANARY-2"),
        ("team/app", "max:x"),
        ("team/app/deep", "max:x"),
        ("team/application", "ann:CANARY-2"),
    ] {
        assert_eq!(user.password("registry.example", repository).as_deref(), Some(who), "{repository}");
    }
}

#[test]
fn files_are_asked_in_order_and_the_first_that_knows_is_believed() {
    let mut user = User::new();
    let files = ["xdg/containers/auth.json", "run/containers/auth.json", "docker/config.json", "auth.json"];
    let (run, docker, auth) = (user.path("run"), user.path("docker"), user.path("auth.json"));
    user.set("XDG_CONFIG_HOME", &user.path("xdg"));
    user.set("XDG_RUNTIME_DIR", &run).set("DOCKER_CONFIG", &docker).set("REGISTRY_AUTH_FILE", &auth);
    // Not asked once `DOCKER_CONFIG` and `XDG_CONFIG_HOME` name other places.
    user.docker(&auths(&[("registry.example", ANN)]));
    user.file("home/.config/containers/auth.json", &auths(&[("registry.example", ANN)]));
    assert_eq!(user.find("registry.example", "app").unwrap(), None);
    for (place, name) in files.iter().zip(["a", "b", "c", "d"]) {
        let text = format!(r#"{{"auths": {{"registry.example": {{"username": "{name}"}}}}}}"#);
        user.file(place, &text);
        assert_eq!(user.password("registry.example", "app").unwrap(), format!("{name}:"), "{place}");
    }
    // A file that knows others only is passed over.
    user.file("auth.json", &auths(&[("other.example", JOE)]));
    assert_eq!(user.password("registry.example", "app").unwrap(), "c:");
    assert_eq!(user.password("other.example", "app").unwrap(), "joe:CANARY");
}

/// C9: what an app has in its directory is never asked.
#[test]
fn the_app_has_no_say() {
    let mut user = User::new();
    for name in ["config.json", ".docker/config.json", "auth.json", "containers/auth.json"] {
        user.file(&format!("app/{name}"), &auths(&[("registry.example", JOE)]));
    }
    for (name, value) in [("REGISTRY_AUTH_FILE", "auth.json"), ("DOCKER_CONFIG", ".docker")] {
        user.set(name, value);
        assert_eq!(user.error("registry.example"), format!("the variable `{name}` is not an absolute path"));
        user.set(name, "");
    }
    user.set("XDG_RUNTIME_DIR", ".").set("XDG_CONFIG_HOME", ".");
    assert_eq!(user.find("registry.example", "app").unwrap(), None);
    // npm puts this directory first on `PATH` for what it starts.
    user.helper_in("app/node_modules/.bin", "user");
    let path = format!("{}:{}:/usr/bin:/bin", user.path("app/node_modules/.bin"), user.path("bin"));
    user.set("PATH", &path).docker(r#"{"credsStore": "user"}"#);
    assert!(user.error("registry.example").contains("`docker-credential-user` is not on `PATH`"));
    assert_eq!(user.record(), Vec::<String>::new());
    user.helper("user");
    assert!(user.password("registry.example", "app").is_some());
}

#[test]
fn what_cannot_be_read_is_named_without_what_it_says() {
    for (text, error) in [
        ("{\n  \"auths\": CANARY", "`home/.docker/config.json`: line 2, column 12 is not as expected"),
        // A parser would repeat the value.
        (
            r#"{"auths": {"registry.example": "CANARY"}}"#,
            "`home/.docker/config.json`: line 1, column 39 is not as expected",
        ),
        (
            r#"{"auths": {"registry.example": {"auth": "CANARY!"}}}"#,
            "`home/.docker/config.json`: the `auth` for `registry.example` is not base64 of `USER:PASSWORD`",
        ),
        // printf CANARY | base64
        (
            r#"{"auths": {"registry.example": {"auth": "Q0FOQVJZ"}}}"#,
            "`home/.docker/config.json`: the `auth` for `registry.example` is not base64 of `USER:PASSWORD`",
        ),
        (r#"{"credsStore": "../CANARY"}"#, ""),
    ] {
        let mut user = User::new();
        user.docker(text);
        if error.is_empty() {
            // The name of a helper is no secret; that it is refused is what counts.
            let said = user.credentials().find("registry.example", "app").unwrap_err();
            assert!(said.ends_with("`../CANARY` is not the name of a credential helper"), "{said}");
        } else {
            assert_eq!(user.error("registry.example"), error);
        }
    }
    let user = User::new();
    std::fs::create_dir_all(user.path("home/.docker/config.json")).unwrap();
    assert_eq!(user.error("registry.example"), "`home/.docker/config.json`: it is not a file");
    // What is wrong with one registry is no matter for another.
    let mut user = User::new();
    user.docker(&auths(&[("a.example", "!"), ("b.example", JOE)]));
    assert!(user.find("b.example", "app").unwrap().is_some());
}

#[test]
fn helpers_are_asked_as_documented_where_nothing_is() {
    let mut user = User::new();
    user.helper("user").helper("token").set("WAPACK_SOURCE_NPM_TOKEN", "CANARY");
    user.docker(
        r#"{"credsStore": "user", "auths": {"https://index.docker.io/v1/": {}},
            "credHelpers": {"aws.example": "token", "https://old.example/v1/": "user", "docker.io/library": "token"}}"#,
    );
    assert_eq!(user.password("registry.example:5000", "app").unwrap(), "joe:CANARY-registry.example:5000");
    let hub = "https://index.docker.io/v1/";
    assert_eq!(user.password("index.docker.io", "library/debian").unwrap(), format!("joe:CANARY-{hub}"));
    assert_eq!(user.password("old.example", "a").unwrap(), "joe:CANARY-https://old.example/v1/");
    let token = Some(RegistryCredentials::IdentityToken(Secret::new("CANARY-token")));
    assert_eq!(user.find("aws.example", "app").unwrap(), token);
    assert_eq!(
        user.record(),
        [
            "get registry.example:5000 nothing nothing",
            "get https://index.docker.io/v1/ nothing nothing",
            "get https://old.example/v1/ nothing nothing",
            "get aws.example nothing nothing",
        ]
    );
}

#[test]
fn a_helper_that_knows_nothing_leaves_it_to_the_rest() {
    for name in ["none", "empty"] {
        let mut user = User::new();
        user.helper(name).docker(&format!(r#"{{"credsStore": "{name}"}}"#));
        assert_eq!(user.find("registry.example", "app").unwrap(), None, "{name}");
        user.docker(&format!(
            r#"{{"credsStore": "{name}", "auths": {{"registry.example": {{"auth": "{JOE}"}}}}}}"#
        ));
        assert_eq!(user.password("registry.example", "app").unwrap(), "joe:CANARY", "{name}");
        user.docker(&format!(r#"{{"credHelpers": {{"registry.example": "{name}"}}}}"#));
        user.file("home/.config/containers/auth.json", &auths(&[("registry.example", ANN)]));
        assert_eq!(user.password("registry.example", "app").unwrap(), "ann:CANARY-2", "{name}");
    }
}

/// T3: a helper that fails is named; nothing of what it says is shown.
#[test]
fn t3_a_helper_that_fails_is_named_and_not_repeated() {
    for (name, what) in [
        ("fails", "failed: exit status: 3"),
        ("garbage", "did not say what credential helpers say"),
        ("large", "said far more than credentials"),
        ("absent", "is not on `PATH`"),
    ] {
        let mut user = User::new();
        if name != "absent" {
            user.helper(name);
        }
        user.docker(&format!(r#"{{"credHelpers": {{"registry.example": "{name}"}}}}"#));
        let expected =
            format!("`home/.docker/config.json`: the credential helper `docker-credential-{name}` {what}");
        assert_eq!(user.error("registry.example"), expected);
        // Nobody else's business.
        assert_eq!(user.find("other.example", "app").unwrap(), None);
    }
}

/// What it said before it hung does not count, and nothing of it is left running.
#[test]
fn a_helper_that_hangs_is_stopped() {
    for name in ["hangs", "closes"] {
        let mut user = User::new();
        user.helper(name).docker(&format!(r#"{{"credsStore": "{name}"}}"#));
        let credentials = user.credentials().with_patience(Duration::from_millis(500));
        let start = Instant::now();
        let error = credentials.find("registry.example", "app").unwrap_err();
        assert!(
            error.ends_with(&format!("`docker-credential-{name}` did not answer within 0.5 seconds")),
            "{error}"
        );
        assert!(start.elapsed() < Duration::from_secs(10));
        let needle = format!("FAKE_RECORD={}", user.path("record"));
        let is_left = |entry: std::fs::DirEntry| {
            std::fs::read(entry.path().join("environ"))
                .is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|one| one == needle.as_bytes()))
        };
        // What is killed takes a moment to be gone.
        while std::fs::read_dir("/proc").unwrap().flatten().any(is_left) {
            assert!(start.elapsed() < Duration::from_secs(20), "{name} is left running");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    // Whoever interrupts does not wait either.
    let mut user = User::new();
    user.helper("hangs").docker(r#"{"credsStore": "hangs"}"#);
    let credentials = user.credentials();
    credentials.cancel.cancel();
    let error = credentials.find("registry.example", "app").unwrap_err();
    assert!(error.ends_with("`docker-credential-hangs` was stopped"), "{error}");
}

/// CLI-08
#[test]
fn cli_08_a_variable_signs_programs_in() {
    let value = format!(
        r#"{{"registry.example:5000": "Basic {JOE}", "https://gcr.example/v2/": "bearer CANARY",
            "docker.io": "X-IDENTITY CANARY", "broken.example": "CANARY", "empty.example": "Bearer ",
            "pair.example": "Basic Q0FOQVJZ"}}"#
    );
    let variable = VariableCredentials::parse(&value).unwrap();
    let find = |registry: &str| variable.find(registry, "a/b");
    assert_eq!(find("registry.example:5000"), Ok(Some(basic("joe", "CANARY"))));
    assert_eq!(find("gcr.example"), Ok(Some(RegistryCredentials::Bearer(Secret::new("CANARY")))));
    assert_eq!(find("index.docker.io"), Ok(Some(RegistryCredentials::IdentityToken(Secret::new("CANARY")))));
    assert_eq!(find("registry.example"), Ok(None));
    for registry in ["broken.example", "empty.example", "pair.example"] {
        let error = find(registry).unwrap_err();
        assert!(
            error.starts_with(&format!("`CNB_REGISTRY_AUTH`: the header for `{registry}` is not")),
            "{error}"
        );
        assert!(!error.contains("CANARY") && !error.contains("Q0FOQVJZ"), "{error}");
    }
    let printed = format!("{variable:?}");
    assert!(!printed.contains("CANARY"), "{printed}");
    assert_eq!(VariableCredentials::parse("").unwrap().find("a.example", "b"), Ok(None));
    for (value, place) in [("CANARY", "line 1, column 1"), (r#"{"a": {"b": "CANARY"}}"#, "line 1, column 6")]
    {
        let error = VariableCredentials::parse(value).unwrap_err().to_string();
        assert!(error.ends_with(place) && !error.contains("CANARY"), "{error}");
    }
}

/// CLI-08: "used together, the former first"
#[test]
fn cli_08_the_variable_goes_before_the_files() {
    let mut user = User::new();
    user.docker(&auths(&[("a.example", ANN), ("b.example", ANN)]));
    user.set("CNB_REGISTRY_AUTH", &format!(r#"{{"a.example": "Basic {JOE}"}}"#));
    let both = of_program(user.credentials().environment, Cancel::default()).unwrap();
    assert_eq!(both.find("a.example", "x"), Ok(Some(basic("joe", "CANARY"))));
    assert_eq!(both.find("b.example", "x"), Ok(Some(basic("ann", "CANARY-2"))));
    assert_eq!(both.find("c.example", "x"), Ok(None));
    user.set("CNB_REGISTRY_AUTH", "CANARY");
    assert!(of_program(user.credentials().environment, Cancel::default()).is_err());
}
