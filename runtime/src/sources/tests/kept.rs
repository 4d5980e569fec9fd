//! What is asked for, and what is kept.

use super::*;

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
