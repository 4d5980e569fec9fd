//! Where credentials go, and where requests may be led.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::fake::Fake;
use super::kit::{Bench, CANARY, basic, go, name, signed_in, text};
use crate::fault::Diagnose as _;
use crate::http::test_server::{Answer, Request, Server, answer, head, ok};
use crate::network::{NetworkSettings, RegistryCredentials, RegistrySettings, Secret};
use crate::registry::{Registry, RemoteBlob};

/// `printf user:canary-7f3a | base64`
const BASIC: &str = "Basic dXNlcjpjYW5hcnktN2YzYQ==";

fn unauthorized(challenge: &str) -> Answer {
    answer("401 Unauthorized", &format!("www-authenticate: {challenge}\r\n"), b"")
}

fn has_secret(request: &Request) -> bool {
    let text = format!("{request:?}");
    // The second is a part of the password in base64.
    text.contains(CANARY) || text.contains("jYW5hcnk")
}

/// A registry that gives nothing without this header, and says how to get it.
fn strict(expected: &'static str, challenge: String) -> Fake {
    Fake::start(move |request, _| {
        if request.line.starts_with("GET /token") || request.header("authorization") == Some(expected) {
            return None;
        }
        Some(unauthorized(&challenge))
    })
}

/// R1: a registry sends whoever has credentials to a server of its choice.
#[test]
fn r1_no_other_realm_sees_credentials() {
    for credentials in [basic(), RegistryCredentials::IdentityToken(Secret::new(CANARY))] {
        let other = Server::start(|_, _| ok("", br#"{"token":"t"}"#));
        let realm = other.url("http", "127.0.0.1", "/token");
        let fake = strict("Bearer t", format!("Bearer realm=\"{realm}\",service=\"s\""));
        let bench = Bench::hurried(&signed_in(&fake.name(), credentials));
        let error = bench.find(&format!("{}/app", fake.name())).unwrap_err();
        assert_eq!(error.id(), "registry.untrusted_realm", "{}", text(&error));
        assert!(text(&error).contains(&format!("127.0.0.1:{}", other.port())), "{}", text(&error));
        assert_eq!(other.connections(), 0);
        assert!(!fake.server.requests().iter().any(has_secret));
    }
}

/// R1: nobody in particular may ask anywhere on the internet, and has nothing to lose there.
#[test]
fn r1_without_credentials_any_public_realm_may_be_asked() {
    let other = Server::start(|_, _| ok("", br#"{"access_token":"t"}"#));
    let realm = other.url("http", "127.0.0.1", "/token?x=1");
    let fake = strict("Bearer t", format!("Bearer realm=\"{realm}\",service=\"a b\""));
    let bench = Bench::hurried(&NetworkSettings::default());
    assert_eq!(bench.find(&format!("{}/app:1", fake.name())).unwrap(), None);
    let requests = other.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].header("authorization"), None);
    assert_eq!(requests[0].line, "GET /token?x=1&service=a+b&scope=repository%3Aapp%3Apull HTTP/1.1");
    // The token is used again.
    assert_eq!(bench.find(&format!("{}/app:2", fake.name())).unwrap(), None);
    assert_eq!(other.requests().len(), 1);
}

/// G18, R1: not a machine inside.
#[test]
fn g18_a_realm_is_no_way_inside() {
    let inside = Server::start_at(Ipv4Addr::new(127, 0, 0, 2), None, |_, _| ok("", br#"{"token":"t"}"#));
    let fake = strict("Bearer t", format!("Bearer realm=\"http://127.0.0.2:{}/token\"", inside.port()));
    let bench = Bench::hurried(&NetworkSettings::default());
    let error = bench.find(&format!("{}/app", fake.name())).unwrap_err();
    assert_eq!(error.id(), "net.blocked_address");
    assert_eq!(inside.connections(), 0);
}

/// R1: one that the operator names gets them; Basic in a header, identity tokens by POST.
#[test]
fn r1_a_realm_of_the_operator_gets_credentials() {
    for credentials in [basic(), RegistryCredentials::IdentityToken(Secret::new(CANARY))] {
        let other = Server::start(|_, _| ok("", br#"{"token":"t","expires_in":300}"#));
        let realm = other.url("http", "127.0.0.1", "/token");
        let fake = strict("Bearer t", format!("Bearer realm=\"{realm}\",service=\"s\""));
        let mut settings = signed_in(&fake.name(), credentials.clone());
        let realms = vec![format!("127.0.0.1:{}", other.port())];
        settings.registries.insert(fake.name(), RegistrySettings { realms, ..RegistrySettings::default() });
        let bench = Bench::hurried(&settings);
        assert_eq!(bench.find(&format!("{}/app", fake.name())).unwrap(), None);
        let request = &other.requests()[0];
        match credentials {
            RegistryCredentials::IdentityToken(_) => {
                assert_eq!(request.line, "POST /token HTTP/1.1");
                let form: std::collections::BTreeMap<_, _> =
                    url::form_urlencoded::parse(&request.body).into_owned().collect();
                let expected = [
                    ("client_id", "wapack"),
                    ("grant_type", "refresh_token"),
                    ("refresh_token", CANARY),
                    ("scope", "repository:app:pull"),
                    ("service", "s"),
                ];
                let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
                assert_eq!(form, expected.into());
                assert_eq!(request.header("authorization"), None);
            }
            _ => assert_eq!(request.header("authorization"), Some(BASIC)),
        }
        // The registry itself never sees them where it wants a token.
        assert!(!fake.server.requests().iter().any(has_secret));
    }
}

#[test]
fn basic_and_bearer_go_to_the_registry_itself() {
    let bearer = RegistryCredentials::Bearer(Secret::new("t"));
    for (credentials, expected, challenge) in [
        (basic(), BASIC, "Basic realm=\"x\""),
        (bearer, "Bearer t", "Bearer realm=\"http://127.0.0.1:1/token\""),
    ] {
        let fake = strict(expected, challenge.to_owned());
        let bench = Bench::hurried(&signed_in(&fake.name(), credentials));
        let image = bench.image(&[b"x"]);
        bench.push(&image, &name(&format!("{}/app:1", fake.name()))).unwrap();
        assert!(fake.kept().is_whole("app", "1"));
        // It is asked for once.
        let unsigned =
            fake.server.requests().iter().filter(|request| request.header("authorization").is_none()).count();
        assert_eq!(unsigned, 1);
    }
}

#[test]
fn wrong_credentials_are_tried_once_and_named_nowhere() {
    let fake = strict("Basic other", "Basic realm=\"x\"".to_owned());
    let bench = Bench::hurried(&signed_in(&fake.name(), basic()));
    let error = bench.find(&format!("{}/app", fake.name())).unwrap_err();
    assert_eq!(error.id(), "registry.unauthorized");
    assert!(text(&error).contains("do not allow"), "{}", text(&error));
    assert_eq!(fake.lines().len(), 2);
    let nobody = Bench::hurried(&NetworkSettings::default());
    let error = nobody.find(&format!("{}/app", fake.name())).unwrap_err();
    assert!(text(&error).contains("there are none"), "{}", text(&error));
}

#[test]
fn a_token_that_is_refused_is_asked_for_again() {
    let fake = Fake::start(|request, number| {
        if request.line.starts_with("GET /token") {
            return Some(ok("", format!("{{\"token\":\"t{number}\"}}").as_bytes()));
        }
        let old = request.header("authorization").is_none_or(|header| header == "Bearer t1");
        let address = request.header("host").unwrap();
        old.then(|| unauthorized(&format!("Bearer realm=\"http://{address}/token\"")))
    });
    let bench = Bench::hurried(&signed_in(&fake.name(), basic()));
    assert_eq!(bench.find(&format!("{}/app", fake.name())).unwrap(), None);
    let kinds: Vec<bool> = fake.lines().iter().map(|line| line.starts_with("GET /token")).collect();
    assert_eq!(kinds, [false, true, false, true, false]);
}

/// What is asked, and how it is led elsewhere: the first words of the line, and the answer.
type Detour = (&'static str, &'static str);

/// R2: everything that can be led away, with 307 and, for what only reads, with 302.
const DETOURS: [Detour; 9] = [
    ("GET /v2/app/manifests/", "302 Found"),
    ("GET /v2/app/manifests/", "307 Temporary Redirect"),
    ("GET /v2/app/blobs/", "302 Found"),
    ("GET /v2/app/blobs/", "308 Permanent Redirect"),
    ("HEAD /v2/app/blobs/", "307 Temporary Redirect"),
    ("POST /v2/app/blobs/uploads/", "307 Temporary Redirect"),
    ("PATCH /v2/app/blobs/uploads/", "307 Temporary Redirect"),
    ("PUT /v2/app/blobs/uploads/", "307 Temporary Redirect"),
    ("PUT /v2/app/manifests/", "308 Permanent Redirect"),
];

/// R2: pushes and pulls through a registry that redirects, and looks at what arrives where.
#[test]
fn r2_no_redirect_carries_credentials() {
    for (start, status) in DETOURS {
        // The other host is honest, and what it has is the registry's.
        let other = Arc::new(Fake::honest());
        let place = format!("http://127.0.0.1:{}", other.server.port());
        let fake = Fake::start(move |request, _| {
            if request.header("authorization") != Some(BASIC) {
                return Some(unauthorized("Basic realm=\"x\""));
            }
            let target = request.line.split(' ').nth(1).unwrap();
            let to = format!("location: {place}{target}\r\n");
            request.line.starts_with(start).then(|| answer(status, &to, b""))
        });
        let bench = Bench::hurried(&signed_in(&fake.name(), basic()));
        // Pieces are for what is large.
        let bytes = super::kit::noise(if start.starts_with("PATCH") { 33 << 20 } else { 100 }, 7);
        let image = bench.image(&[&bytes]);
        other.kept().put_image("app", "1", &image);
        let app = name(&format!("{}/app:1", fake.name()));
        if start.starts_with("GET") {
            fake.kept().put_image("app", "1", &image);
            let found = bench.registry.image(&app, super::kit::AMD64, &go()).unwrap().unwrap();
            let layer = &found.image.layers[0];
            let blob =
                RemoteBlob { repository: app.name().clone(), digest: layer.digest.clone(), size: layer.size };
            bench.registry.fetch(&[blob], &bench.store, &go(), &mut |_| ()).unwrap();
        } else {
            // Some of these cannot end well, for the other host does not know of the upload.
            let _ = bench.push(&image, &app);
        }
        let away = other.server.requests();
        assert!(away.iter().any(|request| request.line.starts_with(start)), "{start}: {away:#?}");
        assert!(!away.iter().any(has_secret), "{start}: {away:#?}");
        assert!(away.iter().all(|request| request.header("authorization").is_none()), "{start}");
    }
}

/// R2: the place of an upload is on another host, as with storage services. Bytes go there,
/// credentials do not.
#[test]
fn r2_an_upload_elsewhere_gets_bytes_and_no_credentials() {
    let other = Server::start(|_, _| answer("201 Created", "", b""));
    let place = format!("location: {}\r\n", other.url("http", "127.0.0.1", "/bucket?signature=abc"));
    let fake = Fake::start(move |request, _| {
        if request.header("authorization") != Some(BASIC) {
            return Some(unauthorized("Basic realm=\"x\""));
        }
        request.line.starts_with("POST").then(|| answer("202 Accepted", &place, b""))
    });
    let bench = Bench::hurried(&signed_in(&fake.name(), basic()));
    let image = bench.image(&[b"content"]);
    // The registry does not know of what went elsewhere; that is not the point here.
    let _ = bench.push(&image, &name(&format!("{}/app:1", fake.name())));
    let away = other.requests();
    assert!(away[0].line.starts_with("PUT /bucket?signature=abc&digest=sha256%3A"), "{away:#?}");
    assert_eq!(away[0].body, std::fs::read(image.layers[0].file().unwrap()).unwrap());
    assert!(away.iter().all(|request| request.header("authorization").is_none()), "{away:#?}");
}

/// R2: who was led away and back is not trusted with credentials any more.
#[test]
fn r2_a_redirect_that_comes_back_carries_none() {
    let back = Arc::new(std::sync::Mutex::new(String::new()));
    let to = Arc::clone(&back);
    let other =
        Server::start(move |_, _| answer("302 Found", &format!("location: {}\r\n", to.lock().unwrap()), b""));
    let away = other.url("http", "127.0.0.1", "/");
    let fake = Fake::start(move |request, _| {
        if request.line.contains("/secret") {
            return Some(ok("", b""));
        }
        if request.header("authorization") != Some(BASIC) {
            return Some(unauthorized("Basic realm=\"x\""));
        }
        Some(answer("302 Found", &format!("location: {away}\r\n"), b""))
    });
    *back.lock().unwrap() = format!("http://{}/v2/secret", fake.name());
    let bench = Bench::hurried(&signed_in(&fake.name(), basic()));
    bench.find(&format!("{}/app", fake.name())).unwrap_err();
    let requests = fake.server.requests();
    let last = requests.iter().find(|request| request.line.contains("/secret")).unwrap();
    assert_eq!(last.header("authorization"), None);
}

/// G18, R2: a redirect or an upload inside reaches nobody.
#[test]
fn g18_a_registry_leads_nobody_inside() {
    let inside = Server::start_at(Ipv4Addr::new(127, 0, 0, 2), None, |_, _| ok("", b""));
    let place = format!("location: http://127.0.0.2:{}/\r\n", inside.port());
    for (start, status) in
        [("GET /v2/app/manifests", "302 Found"), ("POST", "202 Accepted"), ("POST", "307 Temporary Redirect")]
    {
        let place = place.clone();
        let fake = Fake::start(move |request, _| {
            request.line.starts_with(start).then(|| answer(status, &place, b""))
        });
        let bench = Bench::hurried(&NetworkSettings::default());
        let app = name(&format!("{}/app:1", fake.name()));
        let error = match start {
            "POST" => bench.push(&bench.image(&[b"x"]), &app).unwrap_err(),
            _ => bench.find(&app.to_string()).unwrap_err(),
        };
        assert_eq!(error.id(), "net.blocked_address", "{start}: {}", text(&error));
        assert_eq!(inside.connections(), 0, "{start}");
    }
}

#[test]
fn redirects_end() {
    let fake = Fake::start(|request, number| {
        let to = format!("location: /v2/app/manifests/{number}\r\n");
        request.line.contains("manifests").then(|| answer("307 Temporary Redirect", &to, b""))
    });
    let bench = Bench::hurried(&NetworkSettings::default());
    let error = bench.find(&format!("{}/app", fake.name())).unwrap_err();
    assert_eq!(error.id(), "net.redirect_limit");
    assert_eq!(fake.lines().iter().filter(|line| line.contains("manifests")).count(), 6);
}

/// R14: a server that has no TLS is spoken to in plain text when it is on this machine or
/// named as insecure; nobody else is.
#[test]
fn r14_plain_http_is_for_the_named_only() {
    let fake = Fake::honest();
    let app = format!("registry.test:{}/app", fake.server.port());
    let error = Bench::hurried(&NetworkSettings::default()).find(&app).unwrap_err();
    assert_eq!(error.id(), "registry.unreachable", "{}", text(&error));
    assert_eq!(fake.lines(), [""; 0]);
    let insecure = RegistrySettings { insecure: true, ..RegistrySettings::default() };
    let mut settings = NetworkSettings::default();
    // For another port it says nothing.
    settings.registries.insert("registry.test".to_owned(), insecure.clone());
    Bench::hurried(&settings).find(&app).unwrap_err();
    assert_eq!(fake.lines(), [""; 0]);
    settings.registries.insert(format!("registry.test:{}", fake.server.port()), insecure);
    assert_eq!(Bench::hurried(&settings).find(&app).unwrap(), None);
}

/// R14: nobody is led from an encrypted connection to a plain one, and what a server says is
/// not repeated.
#[test]
fn r14_what_a_server_says_is_not_repeated() {
    let body = br#"{"errors":[{"code":"DENIED","message":"canary"},{"code":"canary-\u001b[31m"}]}"#;
    let fake = Fake::start(move |request, _| {
        let is_manifest = request.line.contains("manifests");
        is_manifest.then(|| answer("403 Forbidden", "www-authenticate: Basic realm=canary\r\n", body))
    });
    let bench = Bench::hurried(&NetworkSettings::default());
    let error = bench.find(&format!("{}/app", fake.name())).unwrap_err();
    assert!(text(&error).contains("403 `DENIED`:"), "{}", text(&error));
    // An upload's address has a secret in its query, and is not shown either.
    let fake = Fake::start(|request, _| {
        let is_put = request.line.starts_with("PUT");
        is_put.then(|| vec![crate::http::test_server::Step::Send(head("418 canary", ""))])
    });
    let error = bench.push(&bench.image(&[b"x"]), &name(&format!("{}/app:1", fake.name()))).unwrap_err();
    assert!(text(&error).contains("418"), "{}", text(&error));
}

/// Credentials of a registry are not those of its mirrors.
#[test]
fn r1_mirrors_get_no_credentials_of_the_registry() {
    let mirror = strict(BASIC, "Basic realm=\"x\"".to_owned());
    let fake = strict(BASIC, "Basic realm=\"x\"".to_owned());
    let mut settings = signed_in(&fake.name(), basic());
    let mirrors = vec![mirror.server.url("http", "127.0.0.1", "/")];
    settings.registries.insert(fake.name(), RegistrySettings { mirrors, ..RegistrySettings::default() });
    let bench = Bench::hurried(&settings);
    fake.kept().put_image("app", "1", &bench.image(&[b"x"]));
    assert!(bench.find(&format!("{}/app:1", fake.name())).unwrap().is_some());
    assert_eq!(mirror.lines().len(), 1, "it was asked first");
    assert!(!mirror.server.requests().iter().any(has_secret));
}

#[test]
fn nothing_is_asked_offline() {
    let settings = NetworkSettings { offline: true, ..NetworkSettings::default() };
    let fake = Fake::honest();
    let error = Bench::hurried(&settings).find(&format!("{}/app", fake.name())).unwrap_err();
    assert_eq!(error.id(), "registry.offline");
    assert_eq!(fake.server.connections(), 0);
    // Nothing is started before it is needed.
    let registry = Registry::new(&settings, &crate::limits::Limits::default(), "/".into());
    assert!(registry.runtime.0.get().is_none());
}
