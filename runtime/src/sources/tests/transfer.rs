//! Transfers: bad moments, bad servers, mirrors, limits.

use super::*;

/// A head that promises more than the body that follows.
fn promise(length: usize, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = head("200 OK", &format!("content-length: {length}\r\n{headers}"));
    bytes.extend_from_slice(body);
    bytes
}

fn rest(from: &str, body: &[u8]) -> Answer {
    answer("206 Partial Content", &format!("content-range: {from}\r\netag: \"1\"\r\n"), body)
}

/// G19, R10: servers that have a bad moment; the file comes all the same.
#[test]
fn r10_bad_moments_are_survived() {
    type Mode = (&'static str, fn() -> Vec<Answer>, Option<&'static str>);
    let modes: [Mode; 16] = [
        ("500", || vec![answer("500 x", "", b"no"), ok("", HELLO)], None),
        (
            "503, thrice",
            || {
                let bad = answer("503 x", "", b"");
                vec![bad.clone(), bad.clone(), bad, ok("", HELLO)]
            },
            None,
        ),
        ("429", || vec![answer("429 x", "retry-after: 0\r\n", b""), ok("", HELLO)], None),
        ("408", || vec![answer("408 x", "", b""), ok("", HELLO)], None),
        ("no head", || vec![vec![Step::Stall], ok("", HELLO)], None),
        (
            "half a head",
            || vec![vec![Step::Send(b"HTTP/1.1 200 O".to_vec()), Step::Stall], ok("", HELLO)],
            None,
        ),
        ("nothing at all", || vec![vec![], ok("", HELLO)], None),
        ("reset at once", || vec![vec![Step::Reset], ok("", HELLO)], None),
        ("no http", || vec![vec![Step::Send(b"SSH-2.0-x\r\n\r\n".to_vec())], ok("", HELLO)], None),
        (
            "reset in the body",
            || {
                vec![
                    vec![Step::Send(promise(5, "etag: \"1\"\r\n", b"he")), Step::Reset],
                    rest("bytes 2-4/5", b"llo"),
                ]
            },
            Some("bytes=2-"),
        ),
        (
            "stall in the body",
            || {
                vec![
                    vec![Step::Send(promise(5, "etag: \"1\"\r\n", b"hel")), Step::Stall],
                    rest("bytes 3-4/5", b"lo"),
                ]
            },
            Some("bytes=3-"),
        ),
        (
            "short body",
            || vec![vec![Step::Send(promise(5, "etag: \"1\"\r\n", b"hell"))], rest("bytes 4-4/5", b"o")],
            Some("bytes=4-"),
        ),
        ("short body without a tag", || vec![vec![Step::Send(promise(5, "", b"hell"))], ok("", HELLO)], None),
        (
            "short body with a weak tag",
            || vec![vec![Step::Send(promise(5, "etag: W/\"1\"\r\n", b"hell"))], ok("", HELLO)],
            None,
        ),
        (
            "another version instead of the rest",
            || vec![vec![Step::Send(promise(5, "etag: \"0\"\r\n", b"HE"))], ok("etag: \"1\"\r\n", HELLO)],
            Some("bytes=2-"),
        ),
        (
            "drip",
            || {
                let drip = Step::Drip(vec![b'x'; 1000], Duration::from_millis(100));
                vec![vec![Step::Send(promise(1000, "", b"")), drip], ok("", HELLO)]
            },
            None,
        ),
    ];
    std::thread::scope(|scope| {
        for (what, answers, range) in modes {
            scope.spawn(move || {
                let count = answers().len();
                let server = Server::start(move |_, number| answers()[number.min(count - 1)].clone());
                let rig = rig(&server);
                assert_eq!(rig.fetch("x/y.tgz", Some(SHA256)).unwrap(), HELLO, "{what}");
                let requests = server.requests();
                assert_eq!(requests.len(), count, "{what}");
                let second = &requests[1];
                assert_eq!(second.header("range"), range, "{what}");
                assert_eq!(second.header("if-range").is_some(), range.is_some(), "{what}");
                assert_eq!((rig.kept(), rig.litter()), (1, 0), "{what}");
            });
        }
    });
}

/// The rest of a body that is not the rest is not taken for it.
#[test]
fn r3_a_wrong_rest_is_thrown_away() {
    for (what, wrong) in [
        ("from elsewhere", rest("bytes 0-4/5", HELLO)),
        ("from nowhere", answer("206 x", "", HELLO)),
        ("none", answer("416 x", "", b"")),
    ] {
        let server = Server::start(move |_, number| match number {
            0 => vec![Step::Send(promise(5, "etag: \"1\"\r\n", b"he"))],
            1 => wrong.clone(),
            _ => ok("", HELLO),
        });
        assert_eq!(rig(&server).fetch("x", Some(SHA256)).unwrap(), HELLO, "{what}");
        assert_eq!(server.requests()[2].header("range"), None, "{what}");
    }
    // Bytes of two versions, with a tag that lies: the whole is hashed again.
    let server = Server::start(|_, number| match number {
        0 => vec![Step::Send(promise(5, "etag: \"1\"\r\n", b"HE"))],
        _ => rest("bytes 2-4/5", b"llo"),
    });
    assert_eq!(rig(&server).id(Some(SHA256)), "source.integrity");
}

/// G19, R3, R10: what ends the fetch, under which id, and after how many requests.
#[test]
fn g19_bad_servers_end_with_an_error() {
    type Mode = (&'static str, fn() -> Answer, &'static str, usize);
    let modes: [Mode; 16] = [
        ("busy for ever", || answer("503 x", "", b""), "source.unreachable", 5),
        ("mute for ever", || vec![Step::Stall], "net.first_byte_timeout", 5),
        ("stops for ever", || vec![Step::Send(promise(5, "", b"")), Step::Stall], "net.idle_timeout", 5),
        ("breaks off for ever", || vec![Step::Send(promise(5, "", b"h"))], "source.interrupted", 5),
        (
            "endless",
            || vec![Step::Send(head("200 OK", "")), Step::Endless(vec![0; 4096])],
            "net.body_limit",
            1,
        ),
        ("says it is huge", || vec![Step::Send(promise(1 << 21, "", b"")), Step::Stall], "net.body_limit", 1),
        ("endless head", || vec![Step::Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec())], "source.unreachable", 5),
        (
            "two lengths",
            || vec![Step::Send(head("200 OK", "content-length: 5\r\ncontent-length: 6\r\n"))],
            "source.unreachable",
            5,
        ),
        ("wrong bytes", || ok("", b"hellp"), "source.integrity", 1),
        ("too short by its own word", || ok("", b"hell"), "source.integrity", 1),
        ("another encoding", || ok("content-encoding: gzip\r\n", b"\x1f\x8b"), "source.integrity", 1),
        ("part unasked", || rest("bytes 0-4/5", HELLO), "source.bad_answer", 5),
        ("no content", || answer("204 x", "", b""), "source.bad_answer", 1),
        ("404", || answer("404 x", "", HELLO), "source.not_found", 1),
        ("410", || answer("410 x", "", HELLO), "source.not_found", 1),
        ("teapot", || answer("418 x", "", HELLO), "source.bad_answer", 1),
    ];
    std::thread::scope(|scope| {
        for (what, answer, id, requests) in modes {
            scope.spawn(move || {
                let server = Server::start(move |_, _| answer());
                let rig = rig(&server);
                let refusal = rig.fetch("x/y.tgz", Some(SHA256)).unwrap_err();
                assert_eq!(refusal.id, id, "{what}: {refusal:?}");
                assert_eq!(server.requests().len(), requests, "{what}");
                for part in ["x/y.tgz", "npm", "public.test"] {
                    assert!(refusal.message.contains(part), "{what}: {refusal:?}");
                }
                assert_eq!(refusal.message.contains("after 5 tries"), requests == 5, "{what}: {refusal:?}");
                assert_eq!((rig.kept(), rig.litter()), (0, 0), "{what}");
            });
        }
    });
}

#[test]
fn errors_say_what_was_found_and_what_helps() {
    let server = Server::start(|request, _| match request.line.split(' ').nth(1) {
        Some("/wrong") => ok("", b"hellp"),
        _ => answer("401 x", "www-authenticate: Basic realm=\"x\"\r\n", b""),
    });
    let rig = rig(&server);
    let wrong = rig.fetch("wrong", Some(SHA256)).unwrap_err();
    assert!(wrong.message.contains(SHA256), "{wrong:?}");
    // `printf hellp | sha256sum`
    let found = "sha256:fdd7585e08c4e2afd71dcabdb4636c89d557a3f42db9e2040c8bbd1708aa4ce7";
    assert!(wrong.message.contains(found), "{wrong:?}");
    let unauthorized = rig.fetch("private", Some(SHA256)).unwrap_err();
    assert_eq!(unauthorized.id, "source.unauthorized");
    assert!(unauthorized.hint.unwrap().contains("credentials"));
}

#[test]
fn a_build_downloads_only_so_much() {
    let server = Server::start(|_, _| ok("", HELLO));
    let mut setup = setup(source(server.url("http", "public.test", "/")));
    setup.limits.http_total_bytes = 12;
    let rig = setup.rig();
    rig.fetch("1", None).unwrap();
    rig.fetch("2", None).unwrap();
    let refusal = rig.fetch("3", None).unwrap_err();
    assert_eq!(refusal.id, "net.total_limit");
    assert!(refusal.hint.unwrap().contains("`http_total_bytes`"));
}

#[test]
fn mirrors_are_asked_in_order() {
    let dead: Url = "http://127.0.0.1:1/".parse().unwrap();
    let wrong = Server::start(|_, _| ok("", b"wrong"));
    let right = Server::start(|_, _| ok("", HELLO));
    let missing = Server::start(|_, _| answer("404 x", "", b""));
    let url = |server: &Server| server.url("http", "mirror.test", "/m");
    let fetch = |base: Url, mirrors: Vec<Url>| {
        let rig = setup(SourceSettings { mirrors, ..source(base) }).rig();
        rig.fetch("x", Some(SHA256)).map_err(|refusal| refusal.id)
    };
    assert_eq!(fetch(dead.clone(), vec![url(&right)]).unwrap(), HELLO);
    assert_eq!(right.requests()[0].line, "GET /m/x HTTP/1.1");
    // Wrong bytes: once more from the next one, and no further.
    assert_eq!(fetch(url(&wrong), vec![url(&right)]).unwrap(), HELLO);
    assert_eq!(fetch(url(&wrong), vec![dead.clone(), url(&right)]).unwrap(), HELLO);
    let before = right.requests().len();
    assert_eq!(fetch(url(&wrong), vec![url(&wrong), url(&right)]).unwrap_err(), "source.integrity");
    assert_eq!(fetch(url(&wrong), vec![dead.clone()]).unwrap_err(), "source.integrity");
    // A clear no is an answer.
    assert_eq!(fetch(url(&missing), vec![url(&right)]).unwrap_err(), "source.not_found");
    assert_eq!(right.requests().len(), before);
    assert_eq!(fetch(dead.clone(), vec![dead]).unwrap_err(), "source.unreachable");
}

/// Ctrl-C: the connection is closed, nothing stays behind, and nothing arrives any more.
#[test]
fn k9_a_dropped_session_ends_its_downloads() {
    let server = Server::start(|_, _| vec![Step::Send(promise(5, "", b"he")), Step::Stall]);
    let mut setup = setup(source(server.url("http", "public.test", "/")));
    setup.limits.http_idle_seconds = 600;
    setup.limits.http_connections = 2;
    let rig = setup.rig();
    let mut session = rig.sources.session(&buildpack(), &granted());
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&arrived);
    let arrivals: Arrivals = Arc::new(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let weak = Arc::downgrade(&arrivals);
    session.fetch((0..10).map(|index| artifact(&format!("{index}"), None)).collect(), &arrivals);
    drop(arrivals);
    while server.requests().len() < 2 {
        std::thread::yield_now();
    }
    drop(session);
    // The last of the tasks lets go of it.
    while weak.strong_count() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(arrived.load(Ordering::SeqCst), 0);
    assert_eq!(server.requests().len(), 2);
    while rig.litter() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn progress_is_told_with_bytes_and_files() {
    let server = Server::start(|request, _| {
        if request.line.contains("/1 ") {
            return ok("", HELLO);
        }
        vec![Step::Send(promise(5, "", b"he")), Step::Stall]
    });
    let mut setup = setup(source(server.url("http", "public.test", "/")));
    setup.limits.http_idle_seconds = 600;
    let rig = setup.rig();
    let mut session = rig.sources.session(&buildpack(), &granted());
    assert_eq!(session.progress(), None);
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let arrivals: Arrivals = Arc::new(move |_, _| sender.lock().unwrap().send(()).unwrap());
    session.fetch(vec![artifact("1", None), artifact("2", None)], &arrivals);
    receiver.recv().unwrap();
    let expected = Event::Download { done_bytes: 7, total_bytes: Some(10), done_files: 1, total_files: 2 };
    // Before, there may be earlier states; after, nothing new.
    while session.progress() != Some(expected.clone()) {
        std::thread::yield_now();
    }
    assert_eq!(session.progress(), None);
}

/// How fast a real registry's files come; `WAPACK_TEST_LOCK` names a `package-lock.json`.
///
/// `cargo test -p wapack-runtime --release --lib -- --ignored --nocapture speed_of_a_real_registry`
#[test]
#[ignore = "needs npm, its registry, and a lock file"]
fn speed_of_a_real_registry() {
    let registry = std::process::Command::new("npm").args(["config", "get", "registry"]).output().unwrap();
    let base: Url = String::from_utf8(registry.stdout).unwrap().trim().parse().unwrap();
    let lock = std::fs::read(std::env::var_os("WAPACK_TEST_LOCK").unwrap()).unwrap();
    let lock: serde_json::Value = serde_json::from_slice(&lock).unwrap();
    let artifacts: Vec<ArtifactRequest> = lock["packages"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, package)| package["integrity"].is_string() && package["os"].is_null())
        .map(|(path, package)| {
            let name = path.rsplit_once("node_modules/").unwrap().1;
            let base = name.rsplit('/').next().unwrap();
            let path = format!("{name}/-/{base}-{}.tgz", package["version"].as_str().unwrap());
            artifact(&path, package["integrity"].as_str())
        })
        .collect();
    for count in [8, 16, 32, 64].repeat(3) {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(directory.path()).unwrap();
        let sources = [("npm".to_owned(), source(base.clone()))].into();
        let settings = NetworkSettings { sources, ..NetworkSettings::default() };
        let limits = Limits { http_connections: count, ..Limits::default() };
        let times = [(); 2].map(|()| {
            let (settings, downloads) = (settings.clone(), store.downloads());
            let sources = Sources::with_world(settings, &limits, Some(downloads), World::default());
            let mut session = sources.session(&buildpack(), &granted());
            let (sender, receiver) = channel();
            let sender = Mutex::new(sender);
            let arrivals: Arrivals = Arc::new(move |_, file| sender.lock().unwrap().send(file).unwrap());
            let started = std::time::Instant::now();
            session.fetch(artifacts.clone(), &arrivals);
            let sizes = artifacts.iter().map(|_| receiver.recv().unwrap().unwrap().metadata().unwrap().len());
            (sizes.sum::<u64>(), started.elapsed())
        });
        let [(bytes, cold), (_, warm)] = times;
        println!(
            "{count} at once: {} files, {bytes} bytes, {cold:?}; from the store {warm:?}",
            artifacts.len()
        );
    }
}
