//! Which machines a request reaches, and what it takes along.

use super::*;

#[test]
fn g19_redirects_end() {
    let server = Server::start(|_, number| redirect(&format!("/{number}")));
    assert_eq!(rig(&server).id(Some(SHA256)), "net.redirect_limit");
    assert_eq!(server.requests().len(), 6);
    for location in
        ["", "ftp://public.test/x", "http://", "file:///etc/passwd", "http://[::1", "javascript:x"]
    {
        let server = Server::start(move |_, _| match location {
            "" => answer("302 Found", "", b""),
            location => redirect(location),
        });
        assert_eq!(rig(&server).id(Some(SHA256)), "source.bad_answer", "{location}");
    }
}

/// G18: wherever a redirect leads inward, nobody there hears of it.
#[test]
fn g18_redirects_inward_are_refused() {
    let canary = Server::start_at([127, 0, 0, 2].into(), None, |_, _| ok("", HELLO));
    let port = canary.port();
    for to in [
        format!("http://127.0.0.2:{port}/x"),
        format!("http://2130706434:{port}/x"),
        format!("http://0x7f.2:{port}/x"),
        format!("http://[::ffff:127.0.0.2]:{port}/x"),
        format!("http://internal.test:{port}/x"),
        format!("http://both.test:{port}/x"),
        format!("https://internal.test:{port}/x"),
        format!("https://127.0.0.2:{port}/x"),
        format!("//internal.test:{port}/x"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://10.0.0.1/x".to_owned(),
        "http://[fd00::1]/x".to_owned(),
        "http://[::]/x".to_owned(),
        "http://[64:ff9b::a00:1]/x".to_owned(),
    ] {
        for hops in [0, 2] {
            let to = to.clone();
            // Straight away, and after public ones.
            let server = Server::start(move |request, number| {
                let port = request.header("host").unwrap().rsplit_once(':').unwrap().1.to_owned();
                if number < hops {
                    redirect(&format!("http://other.test:{port}/{number}"))
                } else {
                    redirect(&to)
                }
            });
            let refusal = rig(&server).fetch("x", Some(SHA256)).unwrap_err();
            assert_eq!(refusal.id, "net.blocked_address", "{refusal:?}");
            assert!(refusal.hint.unwrap().contains("[sources.npm]"));
        }
    }
    assert_eq!(canary.connections(), 0);
}

/// What the operator names may be anywhere, and may lead on within itself.
#[test]
fn a_base_may_be_internal_and_a_redirect_public() {
    let public = Server::start(|_, _| ok("", HELLO));
    let to = public.url("http", "public.test", "/x").to_string();
    let internal = Server::start_at([127, 0, 0, 2].into(), None, move |_, number| match number {
        0 => redirect("/elsewhere"),
        _ => redirect(&to),
    });
    for host in ["internal.test", "127.0.0.2"] {
        let rig = setup(source(internal.url("http", host, "/"))).rig();
        assert_eq!(rig.fetch("x", Some(SHA256)).unwrap(), HELLO);
    }
}

/// A redirect that has left may not come back to what only the operator may name.
#[test]
fn g18_a_redirect_does_not_come_back_in() {
    let public = Server::start(|request, _| redirect(request.line.split(' ').nth(1).unwrap()[1..].trim()));
    let public_url = public.url("http", "public.test", "/").to_string();
    let internal = Server::start_at([127, 0, 0, 2].into(), None, move |request, _| {
        if request.line.contains("/secret") {
            return ok("", HELLO);
        }
        redirect(&format!("{public_url}http://{}/secret", request.header("host").unwrap()))
    });
    let rig = setup(source(internal.url("http", "internal.test", "/"))).rig();
    assert_eq!(rig.id(Some(SHA256)), "net.blocked_address");
    assert_eq!(internal.requests().len(), 1);
}

/// G18: names that change their mind never lead a redirect inward.
#[test]
fn g18_flipping_names_never_reach_inward() {
    let canary = Server::start_at([127, 0, 0, 2].into(), None, |_, _| ok("", HELLO));
    let port = canary.port();
    let server = Server::start(move |_, _| redirect(&format!("http://flip.test:{port}/x")));
    let mut setup = setup(source(server.url("http", "127.0.0.1", "/")));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    setup.world.resolve = Arc::new(move |_| {
        let last = if counted.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) { 1 } else { 2 };
        Box::pin(std::future::ready(Ok(vec![[127, 0, 0, last].into()])))
    });
    let rig = setup.rig();
    let artifacts = (0..100).map(|index| artifact(&format!("{index}"), None)).collect();
    for result in rig.fetch_all(artifacts) {
        // 127.0.0.1 has nothing at that port.
        let refusal = result.unwrap_err();
        assert!(["net.blocked_address", "source.unreachable"].contains(&refusal.id.as_str()), "{refusal:?}");
    }
    assert!(asked.load(Ordering::SeqCst) >= 100);
    assert_eq!(canary.connections(), 0);
}

/// D4's last resort: what a lock file names is `https`, public, and checked.
#[test]
fn a_place_from_a_lock_file_is_trusted_with_little() {
    let canary = Server::start_at([127, 0, 0, 2].into(), None, |_, _| ok("", HELLO));
    let id = |base: Url, integrity| {
        let place = SourceSettings { trust: SourceTrust::LockFile, ..source(base) };
        setup(place).rig().id(integrity)
    };
    assert_eq!(id(canary.url("http", "public.test", "/"), Some(SHA256)), "net.insecure");
    assert_eq!(id(canary.url("https", "public.test", "/"), None), "source.integrity_required");
    assert_eq!(id(canary.url("https", "internal.test", "/"), Some(SHA256)), "net.blocked_address");
    assert_eq!(id(canary.url("https", "127.0.0.2", "/"), Some(SHA256)), "net.blocked_address");
    assert_eq!(canary.connections(), 0);
}

/// G17: whatever a guest spells, the request goes to the base, or nowhere.
#[test]
fn g17_every_spelling_stays_at_the_base() {
    let server = Server::start(|_, _| ok("", HELLO));
    let rig = setup(source(server.url("http", "public.test", "/api/npm/"))).rig();
    for path in [
        "@evil.test/x",
        ":80/x",
        "user:pw@evil.test/x",
        "http:evil.test",
        "PUBLIC.TEST",
        "public.test.",
        "x;/..;/y",
        "x%20HTTP/1.1",
        "@acme%2fx/-/x-1.0.0.tgz",
        "ü",
        "a b",
    ] {
        rig.fetch(path, None).unwrap();
    }
    for request in server.requests() {
        assert!(request.line.starts_with("GET /api/npm/"), "{request:?}");
        assert_eq!(request.header("host").unwrap(), format!("public.test:{}", server.port()));
    }
    let before = server.requests().len();
    for path in [
        "http://evil.test/x",
        "//evil.test/x",
        "/x",
        "../x",
        "x/../../y",
        "%2e%2e/x",
        "x%2f..%2f..%2fy",
        "x\\..\\y",
        "x?y=z",
        "x#y",
        "x\r\nHost: evil.test",
        "x%0d%0aHost:%20evil.test",
        "",
        ".",
        "x//y",
        "%252e%252e/x",
        "x%00",
    ] {
        assert_eq!(rig.fetch(path, None).unwrap_err().id, "source.bad_path", "{path:?}");
    }
    assert_eq!(server.requests().len(), before);
}

/// R2, T3: credentials go to the base and below it, and nowhere else.
#[test]
fn r2_credentials_go_to_the_base_only() {
    let other = Server::start(|_, _| ok("", HELLO));
    let to = other.url("http", "other.test", "/api/npm/x").to_string();
    let server = Server::start(move |request, _| match request.line.split(' ').nth(1).unwrap() {
        "/api/npm/elsewhere" => redirect(&to),
        "/api/npm/beside" => redirect("/api/other/x"),
        "/api/npm/within" => redirect("/api/npm/files/x"),
        "/api/npm/trick" => redirect("/api/npm/..%2f..%2fadmin"),
        _ => ok("", HELLO),
    });
    let base = server.url("http", "public.test", "/api/npm");
    let basic = Credentials::Basic { user: "user".to_owned(), password: Secret::new("pass:word") };
    let mut with_user = base.clone();
    with_user.set_username("us%40er").unwrap();
    with_user.set_password(Some("pw")).unwrap();
    // `printf user:pass:word | base64`, `printf us@er:pw | base64`
    for (base, credentials, expected) in [
        (base.clone(), Some(Credentials::Bearer(Secret::new(CANARY))), format!("Bearer {CANARY}")),
        (base, Some(basic), "Basic dXNlcjpwYXNzOndvcmQ=".to_owned()),
        (with_user, None, "Basic dXNAZXI6cHc=".to_owned()),
    ] {
        let before = server.requests().len();
        let rig = setup(SourceSettings { credentials, ..source(base) }).rig();
        for path in ["elsewhere", "beside", "within", "trick"] {
            rig.fetch(path, None).unwrap();
        }
        for request in &server.requests()[before..] {
            let is_below = request.line.starts_with("GET /api/npm/") && !request.line.contains("%2f");
            assert_eq!(request.header("authorization"), is_below.then_some(expected.as_str()), "{request:?}");
        }
    }
    assert_eq!(other.requests().len(), 3);
    assert!(other.requests().iter().all(|request| request.header("authorization").is_none()));
}

/// T3: no message, event or debug text has a secret.
#[test]
fn t3_secrets_are_in_no_message() {
    let refusing = Server::start(|_, number| match number {
        0 => redirect(&format!("http://user:{CANARY}@internal.test/x?token={CANARY}#{CANARY}")),
        1 => answer("403 x", "", b""),
        2 => redirect(&format!("ftp://{CANARY}@x/")),
        _ => ok("", b"wrong"),
    });
    let mut base = refusing.url("http", "public.test", &format!("/?token={CANARY}"));
    base.set_password(Some(CANARY)).unwrap();
    let mut gone = base.clone();
    gone.set_port(Some(1)).unwrap();
    let bearer = Some(Credentials::Bearer(Secret::new(CANARY)));
    let rig = setup(SourceSettings { credentials: bearer.clone(), ..source(base) }).rig();
    let dead = setup(SourceSettings { credentials: bearer, ..source(gone) });
    let mut through = setup(source("http://public.test/".parse().unwrap()));
    through.settings.http_proxy = Some(format!("http://user:{CANARY}@127.0.0.1:1").parse().unwrap());
    let (dead, through) = (dead.rig(), through.rig());
    let mut texts = vec![format!("{:?} {:?}", rig.sources, through.sources)];
    for rig in [&rig, &rig, &rig, &rig, &dead, &through] {
        texts.push(format!("{:?}", rig.fetch("x", Some(SHA256)).unwrap_err()));
        texts.extend(rig.sources.take_warnings());
    }
    assert_eq!(refusing.requests().len(), 4);
    for text in texts {
        assert!(!text.contains(CANARY), "{text}");
        assert!(!text.contains("token"), "{text}");
    }
}

/// An authority, and a server that it signed for.
fn tls(host: &str) -> (String, Arc<ServerConfig>) {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let signed = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    (authority.pem(), Arc::new(config))
}

/// R14: certificates are checked, errors are final and say what to configure.
#[test]
fn r14_an_authority_is_trusted_when_it_is_named() {
    let (pem, config) = tls("public.test");
    let server = Server::start_at(Ipv4Addr::LOCALHOST, Some(config), |_, _| ok("", HELLO));
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let base = |host| source(server.url("https", host, "/"));
    let unknown = setup(base("public.test")).rig().fetch("x", Some(SHA256)).unwrap_err();
    assert_eq!(unknown.id, "net.certificate", "{unknown:?}");
    assert!(unknown.hint.unwrap().contains("`ca = \"/path/to/ca.pem\"` under `[sources.npm]`"));
    assert!(!unknown.message.contains("tries"), "{}", unknown.message);
    assert_eq!(server.requests().len(), 0);
    let of_source = setup(SourceSettings { ca: vec![ca.clone()], ..base("public.test") }).rig();
    assert_eq!(of_source.fetch("x", Some(SHA256)).unwrap(), HELLO);
    let mut of_all = setup(base("public.test"));
    of_all.settings.ca = vec![ca.clone()];
    assert_eq!(of_all.rig().fetch("x", Some(SHA256)).unwrap(), HELLO);
    // Another name than the one it was signed for.
    let wrong = setup(SourceSettings { ca: vec![ca.clone()], ..base("other.test") }).rig();
    assert_eq!(wrong.id(Some(SHA256)), "net.certificate");
    // What a lock file names gets no authority of its own, but those of all.
    let mut locked = setup(SourceSettings { trust: SourceTrust::LockFile, ..base("public.test") });
    locked.settings.ca = vec![ca.clone()];
    assert_eq!(locked.rig().fetch("x", Some(SHA256)).unwrap(), HELLO);
    for text in
        [None, Some("not PEM"), Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")]
    {
        match text {
            None => std::fs::remove_file(&ca).unwrap(),
            Some(text) => std::fs::write(&ca, text).unwrap(),
        }
        let rig = setup(SourceSettings { ca: vec![ca.clone()], ..base("public.test") }).rig();
        assert_eq!(rig.id(Some(SHA256)), "net.bad_ca", "{text:?}");
    }
}

/// R14: from `https` nothing leads to `http`.
#[test]
fn r14_a_redirect_does_not_leave_tls() {
    let (pem, config) = tls("public.test");
    let plain = Server::start(|_, _| ok("", HELLO));
    let to = plain.url("http", "public.test", "/x").to_string();
    let server = Server::start_at(Ipv4Addr::LOCALHOST, Some(config), move |_, _| redirect(&to));
    let mut setup = setup(source(server.url("https", "public.test", "/")));
    let directory = tempfile::tempdir().unwrap();
    setup.settings.ca = vec![directory.path().join("ca.pem")];
    std::fs::write(&setup.settings.ca[0], pem).unwrap();
    assert_eq!(setup.rig().id(Some(SHA256)), "net.insecure");
    assert_eq!(plain.connections(), 0);
}

/// The proxy may be internal; nobody but it is spoken to, and nobody is sent to it.
#[test]
fn a_proxy_is_the_operators() {
    let seen = |request: &Request| request.line.split(' ').nth(1).unwrap().to_owned();
    let proxy =
        Server::start_at([127, 0, 0, 2].into(), None, move |request, _| match seen(request).as_str() {
            "http://base.invalid/inward" => redirect("http://10.0.0.1/x"),
            "http://base.invalid/proxy" => redirect("http://internal.test/x"),
            "http://base.invalid/away" => redirect("http://elsewhere.invalid/x"),
            _ => ok("", HELLO),
        });
    let mut setup = setup(source("http://base.invalid/".parse().unwrap()));
    let mut address = proxy.url("http", "internal.test", "/");
    address.set_username("user").unwrap();
    address.set_password(Some("pw")).unwrap();
    setup.settings.http_proxy = Some(address);
    let rig = setup.rig();
    assert_eq!(rig.fetch("x", Some(SHA256)).unwrap(), HELLO);
    assert_eq!(rig.fetch("away", None).unwrap(), HELLO);
    assert_eq!(rig.fetch("inward", None).unwrap_err().id, "net.blocked_address");
    assert_eq!(rig.fetch("proxy", None).unwrap_err().id, "net.blocked_address");
    // `printf user:pw | base64`
    assert_eq!(proxy.requests()[0].header("proxy-authorization"), Some("Basic dXNlcjpwdw=="));
    assert_eq!(proxy.requests()[0].line, "GET http://base.invalid/x HTTP/1.1");
}

#[test]
fn no_proxy_hosts_are_reached_directly() {
    let server = Server::start(|_, _| ok("", HELLO));
    let mut setup = setup(source(server.url("http", "public.test", "/")));
    setup.settings.http_proxy = Some("http://127.0.0.1:1".parse().unwrap());
    setup.settings.no_proxy = Some("example.test,public.test".to_owned());
    assert_eq!(setup.rig().fetch("x", Some(SHA256)).unwrap(), HELLO);
}
