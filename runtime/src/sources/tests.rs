//! Fetching from servers that stall, lie and lead astray.
//!
//! Loopback plays the internet: 127.0.0.1 counts as public, every other
//! internal address as what it is, and names are resolved by the test.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use url::Url;

use super::*;
use crate::event::Event;
use crate::executor::Arrivals;
use crate::http::test_server::{Answer, Request, Server, Step, answer, head, ok, redirect};
use crate::network::{Credentials, Secret};
use crate::store::Store;
use crate::store::corruptions::CORRUPTIONS;

const HELLO: &[u8] = b"hello";
/// `printf hello | sha256sum`
const SHA256: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
/// `printf hello | sha1sum`
const SHA1: &str = "sha1:aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d";
/// Must never be seen anywhere.
const CANARY: &str = "canary-7f3a";

/// One build's sources over a store of its own.
struct Rig {
    store: Store,
    sources: Sources,
    directory: tempfile::TempDir,
}

/// Everything that decides, with defaults that only loopback needs.
struct Setup {
    settings: NetworkSettings,
    limits: Limits,
    world: World,
}

fn world() -> World {
    World {
        resolve: Arc::new(|name| {
            let address = match name.as_str() {
                "public.test" | "mirror.test" | "other.test" => Ok(vec![[127, 0, 0, 1].into()]),
                "internal.test" => Ok(vec![[127, 0, 0, 2].into()]),
                // One good answer does not make up for a bad one.
                "both.test" => Ok(vec![[127, 0, 0, 1].into(), [127, 0, 0, 2].into()]),
                _ => Err(io::Error::other("no such name")),
            };
            Box::pin(std::future::ready(address))
        }),
        is_internal: |address| address != Ipv4Addr::LOCALHOST && crate::http::address::is_internal(address),
        first_wait: Duration::from_millis(1),
        window: Duration::from_secs(1),
    }
}

fn source(base: Url) -> SourceSettings {
    SourceSettings {
        place: SourcePlace::Base(base),
        mirrors: Vec::new(),
        credentials: None,
        ca: Vec::new(),
        trust: SourceTrust::Configured,
        set_by: "test".to_owned(),
    }
}

fn setup(source: SourceSettings) -> Setup {
    let settings =
        NetworkSettings { sources: [("npm".to_owned(), source)].into(), ..NetworkSettings::default() };
    let limits = Limits {
        http_connect_seconds: 1,
        http_first_byte_seconds: 1,
        http_idle_seconds: 1,
        http_body_bytes: 1 << 20,
        ..Limits::default()
    };
    Setup { settings, limits, world: world() }
}

impl Setup {
    fn rig(self) -> Rig {
        let directory = tempfile::tempdir().unwrap();
        self.rig_in(directory)
    }

    fn rig_in(self, directory: tempfile::TempDir) -> Rig {
        let (store, _) = Store::open(directory.path()).unwrap();
        let sources = Sources::with_world(self.settings, &self.limits, Some(store.downloads()), self.world);
        Rig { store, sources, directory }
    }
}

fn rig(server: &Server) -> Rig {
    setup(source(server.url("http", "public.test", "/"))).rig()
}

fn buildpack() -> BuildpackRef {
    BuildpackRef { id: "acme/node".parse().unwrap(), version: "1.2.0".parse().unwrap() }
}

fn granted() -> Grants {
    Grants([Grant::Source("npm".to_owned())].into())
}

fn artifact(path: &str, integrity: Option<&str>) -> ArtifactRequest {
    ArtifactRequest {
        source: "npm".to_owned(),
        path: path.to_owned(),
        integrity: integrity.map(str::to_owned),
    }
}

impl Rig {
    fn fetch_all(&self, artifacts: Vec<ArtifactRequest>) -> Vec<Result<Vec<u8>, Refusal>> {
        let mut session = self.sources.session(&buildpack(), &granted());
        let (sender, receiver) = channel();
        let sender = Mutex::new(sender);
        let count = artifacts.len();
        let arrivals: Arrivals =
            Arc::new(move |index, file| sender.lock().unwrap().send((index, file)).unwrap());
        session.fetch(artifacts, &arrivals);
        let mut found: Vec<Option<Result<Vec<u8>, Refusal>>> = vec![None; count];
        for _ in 0..count {
            let (index, file) = receiver.recv().unwrap();
            let bytes = file.map(|mut file: File| {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                assert!(io::Write::write(&mut file, b"x").is_err(), "read-only");
                bytes
            });
            assert!(found[index].replace(bytes).is_none(), "each arrives once");
        }
        found.into_iter().map(Option::unwrap).collect()
    }

    fn fetch(&self, path: &str, integrity: Option<&str>) -> Result<Vec<u8>, Refusal> {
        self.fetch_all(vec![artifact(path, integrity)]).remove(0)
    }

    fn id(&self, integrity: Option<&str>) -> String {
        self.fetch("x/y.tgz", integrity).unwrap_err().id
    }

    fn litter(&self) -> usize {
        // The store has one directory there for itself.
        std::fs::read_dir(self.store.root().join("work")).unwrap().count() - 1
    }

    fn kept(&self) -> usize {
        std::fs::read_dir(self.store.root().join("downloads")).unwrap().count()
    }
}

#[test]
fn a_file_comes_once_and_is_kept() {
    let server = Server::start(|_, _| ok("", HELLO));
    let rig = rig(&server);
    assert_eq!(rig.fetch("x/y.tgz", Some(SHA256)).unwrap(), HELLO);
    assert_eq!(rig.fetch("x/y.tgz", Some(SHA256)).unwrap(), HELLO);
    assert_eq!(rig.fetch("another/path", Some(SHA256)).unwrap(), HELLO, "bytes are known by their hash");
    let [request] = &server.requests()[..] else { panic!("{:?}", server.requests()) };
    assert_eq!(request.line, "GET /x/y.tgz HTTP/1.1");
    assert_eq!(request.header("host"), Some(format!("public.test:{}", server.port()).as_str()));
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    for name in ["cookie", "referer", "authorization"] {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert_eq!((rig.kept(), rig.litter()), (1, 0));
    assert!(rig.sources.take_warnings().is_empty());
}

/// What a build without news costs: no runtime, no client, no certificates.
#[test]
fn what_is_there_starts_no_network() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("@acme/x")).unwrap();
    std::fs::write(directory.path().join("@acme/x/y.tgz"), HELLO).unwrap();
    let mut place = source("http://public.test/".parse().unwrap());
    place.place = SourcePlace::Directory(directory.path().to_owned());
    let rig = setup(place).rig();
    assert_eq!(rig.fetch("@acme%2fx/y.tgz", Some(SHA256)).unwrap(), HELLO);
    assert_eq!(rig.fetch("@acme/x/y.tgz", None).unwrap(), HELLO);
    assert!(!rig.sources.runtime.is_started());
    let server = Server::start(|_, _| ok("", HELLO));
    let network = setup(source(server.url("http", "public.test", "/"))).rig();
    network.fetch("x", Some(SHA256)).unwrap();
    assert!(network.sources.runtime.is_started());
    let again = setup(source(server.url("http", "public.test", "/"))).rig_in(network.directory);
    again.fetch("x", Some(SHA256)).unwrap();
    assert!(!again.sources.runtime.is_started());
}

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

/// K5: one file is downloaded once, however many ask for it at the same time.
#[test]
fn k5_a_file_is_downloaded_once() {
    let server = Server::start(|_, _| {
        std::thread::sleep(Duration::from_millis(200));
        ok("", HELLO)
    });
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for process in 0..4 {
            let (root, url) = (directory.path(), server.url("http", "public.test", "/"));
            scope.spawn(move || {
                let Setup { settings, limits, world } = setup(source(url));
                let (store, _) = Store::open(root).unwrap();
                let sources = Sources::with_world(settings, &limits, Some(store.downloads()), world);
                let rig = Rig { store, sources, directory: tempfile::tempdir().unwrap() };
                // The same twice, and the same bytes under another path.
                let other = format!("path-{process}");
                let artifacts = ["same", "same", other.as_str()].map(|path| artifact(path, Some(SHA256)));
                for result in rig.fetch_all(artifacts.into()) {
                    assert_eq!(result.unwrap(), HELLO);
                }
            });
        }
    });
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn without_integrity_a_file_is_fetched_each_time() {
    let server = Server::start(|_, _| ok("", HELLO));
    let rig = rig(&server);
    for result in rig.fetch_all(vec![artifact("x", None), artifact("x", None)]) {
        assert_eq!(result.unwrap(), HELLO);
    }
    assert_eq!((server.requests().len(), rig.kept(), rig.litter()), (2, 0, 0));
    let [warning] = &rig.sources.take_warnings()[..] else { panic!() };
    assert!(warning.starts_with("2 files came without an integrity value"), "{warning}");
    assert!(rig.sources.take_warnings().is_empty());
}

/// S5: what has nothing better than SHA-1 is accepted, and said.
#[test]
fn s5_sha1_is_accepted_and_said_once() {
    let server = Server::start(|_, _| ok("", HELLO));
    let rig = rig(&server);
    rig.fetch("x", Some(SHA1)).unwrap();
    rig.fetch("y", Some(&format!("{SHA1} {SHA256}"))).unwrap();
    let [warning] = &rig.sources.take_warnings()[..] else { panic!() };
    assert!(warning.starts_with("1 file could be checked by SHA-1 only"), "{warning}");
}

#[test]
fn offline_builds_work_from_the_store_and_name_what_is_missing() {
    let server = Server::start(|_, _| ok("", HELLO));
    let rig = rig(&server);
    rig.fetch("x", Some(SHA256)).unwrap();
    let mut setup = setup(source(server.url("http", "public.test", "/")));
    setup.settings.offline = true;
    let rig = setup.rig_in(rig.directory);
    assert_eq!(rig.fetch("x", Some(SHA256)).unwrap(), HELLO);
    let mut artifacts: Vec<_> =
        (10..32).map(|index| artifact(&format!("file-{index}"), Some(SHA1))).collect();
    artifacts.push(artifact("packument", None));
    for result in rig.fetch_all(artifacts) {
        let refusal = result.unwrap_err();
        assert_eq!(refusal.id, "source.offline");
        assert!(refusal.message.starts_with('`'), "{refusal:?}");
    }
    assert_eq!(server.requests().len(), 1);
    let warnings = rig.sources.take_warnings();
    let missing = warnings.iter().find(|warning| warning.contains("offline")).unwrap();
    assert!(missing.contains("`file-10` of `npm`, `file-11` of `npm`"), "{missing}");
    assert!(missing.contains("`file-29`") && !missing.contains("`file-30`"), "{missing}");
    assert!(missing.ends_with("and 3 more"), "{missing}");
}

/// K4: whatever happened to a kept file, it is fetched again.
#[test]
fn k4_damaged_downloads_are_fetched_again() {
    for (what, corrupt) in CORRUPTIONS {
        let server = Server::start(|_, _| ok("", HELLO));
        let rig = rig(&server);
        rig.fetch("x", Some(SHA256)).unwrap();
        corrupt(&rig.store.root().join("downloads").join(SHA256.replace(':', "-")));
        assert_eq!(rig.fetch("x", Some(SHA256)).unwrap(), HELLO, "{what}");
        assert_eq!(rig.fetch("x", Some(SHA256)).unwrap(), HELLO, "{what}");
        assert_eq!(server.requests().len(), 2, "{what}");
        assert_eq!(rig.store.take_warnings().len(), usize::from(what != "missing"), "{what}");
    }
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

#[test]
fn a_source_has_to_be_granted_and_set() {
    let session = |grants: &str| {
        let grants = Grants([Grant::Source(grants.to_owned())].into());
        Sources::default().session(&buildpack(), &grants)
    };
    let ask = |mut session: Session, source: &str| {
        let (sender, receiver) = channel();
        let sender = Mutex::new(sender);
        let arrivals: Arrivals = Arc::new(move |_, file| sender.lock().unwrap().send(file).unwrap());
        let request = ArtifactRequest { source: source.to_owned(), ..artifact("x", None) };
        session.fetch(vec![request], &arrivals);
        receiver.recv().unwrap().unwrap_err()
    };
    assert_eq!(ask(session("debian"), "npm").id, "sandbox.source_refused");
    let unset = ask(session("npm"), "npm");
    assert_eq!(unset.id, "source.unset");
    assert_eq!(
        unset.hint.unwrap(),
        "say where it is in the policy file:\n[sources.npm]\nurl = \"https://mirror.example/\"\nor with the variable `WAPACK_SOURCE_NPM`"
    );
    let scoped = ask(session("npm"), "npm:@acme").hint.unwrap();
    assert!(
        scoped.contains("[sources.\"npm:@acme\"]") && scoped.contains("`WAPACK_SOURCE_NPM_ACME`"),
        "{scoped}"
    );
}

/// A scope lives in the whole source unless it has a place of its own; other parts never do.
#[test]
fn scopes_fall_back_and_other_parts_do_not() {
    let server = Server::start(|_, _| ok("", HELLO));
    let mut setup = setup(source(server.url("http", "public.test", "/npm")));
    setup.settings.sources.insert("npm:@own".to_owned(), source(server.url("http", "public.test", "/own")));
    let rig = setup.rig();
    let fetch = |source: &str| {
        let request = ArtifactRequest { source: source.to_owned(), ..artifact("x", None) };
        rig.fetch_all(vec![request]).remove(0).map_err(|refusal| refusal.id)
    };
    fetch("npm:@acme").unwrap();
    fetch("npm:@own").unwrap();
    assert_eq!(fetch("npm:codeload.example").unwrap_err(), "source.unset");
    let lines: Vec<String> = server.requests().into_iter().map(|request| request.line).collect();
    assert_eq!(lines, ["GET /npm/x HTTP/1.1", "GET /own/x HTTP/1.1"]);
}

#[test]
fn directories_are_sources_too() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("a")).unwrap();
    std::fs::write(directory.path().join("a/b.tgz"), HELLO).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", directory.path().join("out")).unwrap();
    let directories = [("npm".to_owned(), directory.path().to_owned())].into();
    let sources = Sources::of_directories(directories);
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig { store: Store::open(temp.path()).unwrap().0, sources, directory: temp };
    let id = |path: &str, integrity: Option<&str>| rig.fetch(path, integrity).unwrap_err().id;
    assert_eq!(rig.fetch("a/b.tgz", None).unwrap(), HELLO);
    assert_eq!(rig.fetch("a/b.tgz", Some(SHA256)).unwrap(), HELLO);
    assert_eq!(id("a/b.tgz", Some(&SHA256.replace('2', "3"))), "source.integrity");
    assert_eq!(id("a/b.tgz", Some("md5:00")), "source.integrity");
    assert_eq!(id("a", None), "source.not_found");
    assert_eq!(id("out", None), "source.not_found");
    for path in ["../x", "/etc/hostname", "", "a/../../x", "a\nb", "a//b.tgz"] {
        assert_eq!(id(path, None), "source.bad_path", "{path:?}");
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

/// What a buildpack was given is noted with its hash, whether it came over the network, from the
/// store or from a directory; what it was refused is not.
#[test]
fn what_a_buildpack_was_given_is_noted() {
    let server = Server::start(|request, _| {
        if request.line.contains("/missing") { answer("404 Not Found", "", b"") } else { ok("", HELLO) }
    });
    let rig = rig(&server);
    let noted = |rig: &Rig, artifacts: Vec<ArtifactRequest>| {
        let mut session = rig.sources.session(&buildpack(), &granted());
        let (sender, receiver) = channel();
        let sender = Mutex::new(sender);
        let count = artifacts.len();
        let arrivals: Arrivals = Arc::new(move |_, file| {
            drop(sender.lock().unwrap().send(file.map(|mut file: File| {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                bytes
            })));
        });
        session.fetch(artifacts, &arrivals);
        for _ in 0..count {
            if let Ok(bytes) = receiver.recv().unwrap() {
                assert_eq!(bytes, HELLO, "noting does not move where it is read");
            }
        }
        session.arrived().into_iter().map(|it| (it.path, it.hash, it.is_pinned)).collect::<Vec<_>>()
    };
    let wanted = || {
        vec![
            artifact("loose", None),
            artifact("missing", Some(&format!("sha256:{}", "1".repeat(64)))),
            artifact("pinned", Some(SHA256)),
            artifact("several", Some(&format!("{SHA256} sha256:{}", "0".repeat(64)))),
            artifact("weak", Some(SHA1)),
            artifact("wrong", Some(&format!("sha256:{}", "0".repeat(64)))),
        ]
    };
    let expected = [
        ("loose".to_owned(), SHA256.to_owned(), false),
        ("pinned".to_owned(), SHA256.to_owned(), true),
        ("several".to_owned(), SHA256.to_owned(), true),
        ("weak".to_owned(), SHA1.to_owned(), false),
    ];
    assert_eq!(noted(&rig, wanted()), expected);
    // Now most of it is in the store.
    assert_eq!(noted(&rig, wanted()), expected);

    let directory = tempfile::tempdir().unwrap();
    for name in ["loose", "pinned", "several", "weak", "wrong"] {
        std::fs::write(directory.path().join(name), HELLO).unwrap();
    }
    let place = SourcePlace::Directory(directory.path().to_owned());
    let local = setup(SourceSettings { place, ..source(server.url("http", "public.test", "/")) }).rig();
    assert_eq!(noted(&local, wanted()), expected);
}
