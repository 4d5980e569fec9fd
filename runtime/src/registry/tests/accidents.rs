//! What goes wrong without anybody meaning it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::fake::Fake;
use super::kit::{Bench, go, name, noise, text};
use crate::fault::Diagnose as _;
use crate::http::test_server::{Answer, Request, Step, answer, head};
use crate::network::NetworkSettings;
use crate::oci::digest::Digest;
use crate::oci::image::Image;
use crate::registry::{Package, RegistryError, RemoteBlob};

fn bench() -> Bench {
    Bench::hurried(&NetworkSettings::default())
}

fn fetch(bench: &Bench, fake: &Fake, content: &[u8]) -> Result<Vec<u8>, RegistryError> {
    let repository = name(&format!("{}/app", fake.name())).name().clone();
    let blob = RemoteBlob { repository, digest: Digest::of(content), size: content.len() as u64 };
    let blobs = bench.registry.fetch(&[blob], &bench.store, &go(), &mut |_| ())?;
    Ok(std::fs::read(&blobs[0].path).unwrap())
}

/// The first part of a body, and then what follows in the connection.
fn broken(content: &[u8], after: Step) -> Answer {
    let mut bytes = head("200 OK", &format!("content-length: {}\r\n", content.len()));
    bytes.extend_from_slice(&content[..content.len() / 2]);
    vec![Step::Send(bytes), after]
}

/// Ways to fail that may pass.
fn accidents(content: &[u8]) -> Vec<(&'static str, Answer)> {
    vec![
        ("429", answer("429 Too Many Requests", "retry-after: 0\r\n", b"")),
        ("500", answer("500 Internal Server Error", "", b"")),
        ("502", answer("502 Bad Gateway", "", b"")),
        ("503", answer("503 Service Unavailable", "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", b"")),
        ("504", answer("504 Gateway Timeout", "", b"")),
        ("a reset", vec![Step::Reset]),
        ("silence", vec![Step::Stall]),
        ("half a head", vec![Step::Send(b"HTTP/1.1 200 O".to_vec()), Step::Reset]),
        ("a body that is reset", broken(content, Step::Reset)),
        ("a body that stops", broken(content, Step::Stall)),
        ("a body that is closed early", broken(content, Step::Send(vec![]))),
        (
            "a body that drips",
            broken(content, Step::Drip(content[content.len() / 2..].to_vec(), Duration::from_millis(300))),
        ),
    ]
}

/// R10: each may happen twice, and the blob comes; if it never ends, it is an error that says
/// where, what and how often.
#[test]
fn r10_accidents_pass_or_end() {
    let content = noise(64, 3);
    for (what, accident) in accidents(&content) {
        let lie = accident.clone();
        let asked = AtomicUsize::new(0);
        let fake = Fake::start(move |request, _| {
            (request.line.contains("/blobs/") && asked.fetch_add(1, Ordering::SeqCst) < 2)
                .then(|| lie.clone())
        });
        fake.kept().put_blob("app", &content);
        assert_eq!(fetch(&bench(), &fake, &content).unwrap(), content, "{what}");

        let fake = Fake::start(move |request, _| request.line.contains("/blobs/").then(|| accident.clone()));
        let (bench, started) = (bench(), Instant::now());
        let error = fetch(&bench, &fake, &content).unwrap_err();
        let said = text(&error);
        assert!(said.contains(&fake.name()) && said.contains("fetch the blob"), "{what}: {said}");
        assert!(said.contains("(after 5 tries)"), "{what}: {said}");
        assert_eq!(fake.lines().iter().filter(|line| line.contains("/blobs/")).count(), 5, "{what}");
        assert!(started.elapsed() < Duration::from_mins(2), "{what}");
        assert_eq!(bench.kept(), Vec::<String>::new(), "{what}");
    }
}

/// R10: what is not going to pass is not tried again.
#[test]
fn r10_what_does_not_pass_is_asked_once() {
    for status in
        ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found", "501 Not Implemented"]
    {
        let fake =
            Fake::start(move |request, _| request.line.contains("/blobs/").then(|| answer(status, "", b"")));
        fetch(&bench(), &fake, b"x").unwrap_err();
        assert_eq!(fake.lines().len(), 1, "{status}");
    }
}

/// R10: what has arrived is not asked for again, and the whole is hashed.
#[test]
fn r10_downloads_go_on_where_they_stopped() {
    let content = noise(5 << 20, 4);
    let lie = content.clone();
    let fake = Fake::start(move |request, number| {
        if !request.line.contains("/blobs/") || number >= 8 {
            return None;
        }
        // One more half MiB each time.
        let range =
            request.header("range").map(|range| range.trim_start_matches("bytes=").trim_end_matches('-'));
        let from: usize = range.map_or(0, |from| from.parse().unwrap());
        let piece = &lie[from..from + (512 << 10)];
        let length = lie.len() - from;
        let mut bytes = match from {
            0 => head("200 OK", &format!("content-length: {length}\r\n")),
            from => head(
                "206 Partial Content",
                &format!(
                    "content-length: {length}\r\ncontent-range: bytes {from}-{}/{}\r\n",
                    lie.len() - 1,
                    lie.len()
                ),
            ),
        };
        bytes.extend_from_slice(piece);
        Some(vec![Step::Send(bytes), Step::Reset])
    });
    fake.kept().put_blob("app", &content);
    let error = fetch(&bench(), &fake, &content).unwrap_err();
    assert!(text(&error).contains("5 tries"), "half a MiB is no progress: {}", text(&error));
    let ranges = |request: &Request| request.header("range").map(str::to_owned);
    let asked: Vec<_> = fake.server.requests().iter().map(ranges).collect();
    assert_eq!(asked[..2], [None, Some(format!("bytes={}-", 512 << 10))]);
    // The next one starts anew, and gets the rest honestly after three more.
    assert_eq!(fetch(&bench(), &fake, &content).unwrap(), content);
}

fn app(fake: &Fake) -> String {
    format!("{}/app:1", fake.name())
}

/// Images of two small layers and one that goes in pieces.
fn image(bench: &Bench, seed: u64) -> Image {
    bench.image(&[&noise(100, seed), &noise(33 << 20, seed + 1), b"shared"])
}

/// R10: accidents at every kind of request of a push pass.
#[test]
fn r10_a_push_gets_past_accidents() {
    for start in [
        "HEAD /v2/app/manifests/",
        "HEAD /v2/app/blobs/",
        "POST /v2/app/blobs/uploads/",
        "PATCH /v2/app/blobs/uploads/",
        "PUT /v2/app/blobs/uploads/",
        "PUT /v2/app/manifests/sha256:",
        "PUT /v2/app/manifests/1",
    ] {
        for (what, accident) in accidents(b"xx").into_iter().take(7).step_by(2) {
            // Silence takes seconds each time.
            let left = AtomicUsize::new(if what == "silence" { 1 } else { 2 });
            let fake = Fake::start(move |request, _| {
                let hit = request.line.starts_with(start)
                    && left
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                        .is_ok();
                hit.then(|| accident.clone())
            });
            let bench = bench();
            let bytes = noise(if start.starts_with("PATCH") { 33 << 20 } else { 100 }, 5);
            let result = bench.push(&bench.image(&[&bytes]), &name(&app(&fake)));
            result.unwrap_or_else(|error| panic!("{what} at {start}: {}", text(&error)));
            assert!(fake.kept().is_whole("app", "1"), "{what} at {start}");
        }
    }
}

/// R10: an upload in pieces goes on with what the registry says that it has.
#[test]
fn r10_uploads_go_on_where_they_stopped() {
    // The third piece arrives, and its answer is lost.
    let fake = Arc::new(Fake::start({
        let pieces = AtomicUsize::new(0);
        move |request, _| {
            let third = request.line.starts_with("PATCH") && pieces.fetch_add(1, Ordering::SeqCst) == 2;
            third.then(|| vec![Step::Reset])
        }
    }));
    let bench = bench();
    let bytes = noise(100 << 20, 6);
    bench.push(&bench.image(&[&bytes]), &name(&app(&fake))).unwrap();
    assert!(fake.kept().is_whole("app", "1"));
    let of = |request: &Request| {
        let method = request.line.split(' ').next().unwrap().to_owned();
        matches!(method.as_str(), "PATCH" | "GET").then(|| {
            let from = request.header("content-range").map_or("", |range| range.split_once('-').unwrap().0);
            (method.clone(), from.to_owned())
        })
    };
    let seen: Vec<_> = fake.server.requests().iter().filter_map(of).collect();
    let mib = |count: u64| (count << 20).to_string();
    let expected = [
        ("PATCH", "0".to_owned()),
        ("PATCH", mib(32)),
        ("PATCH", mib(64)),
        ("GET", String::new()),
        ("PATCH", mib(64)),
        ("PATCH", mib(96)),
    ];
    let expected: Vec<_> = expected.into_iter().map(|(method, from)| (method.to_owned(), from)).collect();
    assert_eq!(seen, expected);
}

/// Some registries take a blob in one request only.
#[test]
fn a_registry_without_pieces_gets_the_whole() {
    let fake = Fake::start(|request, _| {
        request.line.starts_with("PATCH").then(|| answer("405 Method Not Allowed", "", b""))
    });
    let bench = bench();
    bench.push(&image(&bench, 1), &name(&app(&fake))).unwrap();
    assert!(fake.kept().is_whole("app", "1"));
}

/// R10: it says that it has a blob, and has not.
#[test]
fn r10_a_blob_that_is_gone_after_all_is_sent() {
    let fake = Fake::start(|request, _| {
        let is_asked = request.line.starts_with("HEAD") && request.line.contains("/blobs/");
        is_asked.then(|| vec![Step::Send(head("200 OK", "content-length: 1\r\n"))])
    });
    let bench = bench();
    bench.push(&bench.image(&[b"a", b"b"]), &name(&app(&fake))).unwrap();
    assert!(fake.kept().is_whole("app", "1"));
}

/// R11: the registry dies at every request of a push; the tag is the old one or the new one,
/// and what it leads to is whole.
#[test]
fn r11_a_push_that_dies_leaves_the_tag_old_or_new() {
    let mut outcomes = [0, 0];
    for dies_at in 0.. {
        let dead = Arc::new(AtomicBool::new(false));
        let number = Arc::new(AtomicUsize::new(usize::MAX));
        let (is_dead, counting) = (Arc::clone(&dead), Arc::clone(&number));
        let fake = Fake::start(move |_, _| {
            let now = counting.load(Ordering::SeqCst);
            if now != usize::MAX {
                counting.store(now + 1, Ordering::SeqCst);
            }
            if now != usize::MAX && now >= dies_at {
                is_dead.store(true, Ordering::SeqCst);
                return Some(answer("400 Bad Request", "", b""));
            }
            None
        });
        // It would also take a name for something that is not there.
        fake.kept().is_careless = true;
        let bench = bench();
        let (old, new) = (bench.image(&[b"shared", b"old"]), bench.image(&[b"shared", b"new"]));
        let old_digest = bench.push(&old, &name(&app(&fake))).unwrap().digest;
        number.store(0, Ordering::SeqCst);
        let result = bench.push(&new, &name(&app(&fake)));
        let kept = fake.kept();
        assert!(kept.is_whole("app", "1"), "{dies_at}");
        let tag = Digest::of(&kept.manifests[&("app".to_owned(), "1".to_owned())].1);
        let new_digest = new.documents().1.digest;
        assert!(tag == old_digest || tag == new_digest, "{dies_at}");
        outcomes[usize::from(tag == new_digest)] += 1;
        assert!(result.is_ok() || dead.load(Ordering::SeqCst));
        if !dead.load(Ordering::SeqCst) {
            assert_eq!(tag, new_digest);
            break;
        }
    }
    // All but looking at the tag afterwards come before it changes.
    assert!(outcomes[0] > 8 && outcomes[1] == 2, "{outcomes:?}");
}

/// R11: somebody else's push in between is seen.
#[test]
fn r11_a_lost_race_is_told() {
    let other = Digest::of(b"other");
    let said = other.clone();
    let looked = AtomicUsize::new(0);
    let fake = Fake::start(move |request, _| {
        let second = request.line.starts_with("HEAD /v2/app/manifests/1 ")
            && looked.fetch_add(1, Ordering::SeqCst) == 1;
        second.then(|| vec![Step::Send(head("200 OK", &format!("docker-content-digest: {said}\r\n")))])
    });
    let bench = bench();
    let package = Package::of_image(&bench.image(&[b"a"]));
    let to = name(&app(&fake));
    let mut published = bench
        .registry
        .publish(&package, to.name(), &["1".to_owned()], &bench.store, &go(), &mut |_| ())
        .unwrap();
    assert_eq!(published.tags.pop().unwrap().result.unwrap(), Some(other));
}

/// A file that changed since it was hashed is not published, and its keeper is told.
#[test]
fn a_damaged_layer_is_not_published() {
    for damage in [|bytes: &mut Vec<u8>| bytes[600] ^= 1, |bytes: &mut Vec<u8>| bytes.truncate(600)] {
        let fake = Fake::honest();
        let bench = bench();
        let image = bench.image(&[b"a", b"b"]);
        let path = image.layers[1].file().unwrap();
        let mut bytes = std::fs::read(path).unwrap();
        damage(&mut bytes);
        std::fs::write(path, bytes).unwrap();
        let error = bench.push(&image, &name(&app(&fake))).unwrap_err();
        assert_eq!(error.id(), "store.damaged", "{}", text(&error));
        assert!(fake.kept().manifests.is_empty());
    }
}

#[test]
fn whoever_waits_can_be_stopped() {
    let fake = Fake::start(|_, _| Some(vec![Step::Stall]));
    let bench = Bench::new(&NetworkSettings::default());
    let cancel = go();
    let stopper = cancel.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        stopper.cancel();
    });
    let started = Instant::now();
    let result = bench.registry.image(&name(&app(&fake)), super::kit::AMD64, &cancel);
    assert!(matches!(result, Err(RegistryError::Cancelled(_))));
    assert!(started.elapsed() < Duration::from_secs(2));
    thread.join().unwrap();
}

/// As the registry of go-containerregistry does, and others for whom one may not read.
#[test]
fn a_registry_that_mounts_nothing_is_sent_only_what_it_lacks() {
    let fake = Fake::honest();
    let bench = Bench::new(&NetworkSettings::default());
    let (from, to) = (name(&format!("{}/run:1", fake.name())), name(&format!("{}/app:1", fake.name())));
    bench.push(&bench.image(&[b"one", b"two"]), &from).unwrap();
    fake.kept().mounts_nothing = true;
    let mut image = bench.find(&from.to_string()).unwrap().unwrap().image;
    let sent = |image: &Image| {
        let before = fake.lines().len();
        bench.push(image, &to).unwrap();
        let lines = fake.lines().split_off(before);
        let is_open = lines.iter().filter(|line| line.starts_with("POST")).count();
        let is_closed = |line: &&String| {
            line.contains("/blobs/uploads/") && (line.starts_with("PUT") || line.starts_with("DELETE"))
        };
        assert_eq!(lines.iter().filter(is_closed).count(), is_open, "{lines:#?}");
        lines.iter().filter(|line| line.starts_with("PUT") && line.contains("/blobs/")).count()
    };
    assert_eq!(sent(&image), 3, "both layers and the configuration");
    image.configuration.author = Some("somebody else".to_owned());
    assert_eq!(sent(&image), 1, "the configuration");
}
