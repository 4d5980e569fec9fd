//! Collecting beside builds, beside others who collect, and until it is killed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// K6: everything that a store found or wrote stays for as long as it is open.
#[test]
fn k6_what_a_build_uses_stays_until_it_ends() {
    let temp = private();
    let before = open(&temp);
    build(&before, "shop", "found");
    put_layer(&before, "app");
    build(&before, "unused", "unused");
    close(before);
    let running = open(&temp);
    assert_eq!(kept(&running, "shop").as_deref(), Some("found"));
    assert!(has_layer(&running, "app"));
    put_layer(&running, "written");
    let cache = running.image("local", "shop");

    let other = open(&temp);
    let collected = other.collect(&CollectionGoal::nothing()).unwrap();
    // An image, its layer, its document, the app's layer, and one that was written.
    assert_eq!(collected.in_use, 4, "{:?}", other.inventory().pieces);
    assert!(other.image("local", "unused").is_empty());
    let layers = cache.layers(&id());
    assert!(layers[0].exported.is_some() && layers[0].tree.as_ref().unwrap().path.is_dir());
    assert_eq!(kept(&running, "shop").as_deref(), Some("found"));
    assert!(has_layer(&running, "app") && has_layer(&running, "written"));
    drop(cache);
    close(running);
    close(other);
    let other = open(&temp);
    assert_eq!(other.collect(&CollectionGoal::nothing()).unwrap().left_bytes, 0);
    assert!(!has_layer(&other, "app"));
}

/// K6: what a build has only just begun to look for is there, or it is not; never half.
#[test]
fn k6_builds_beside_collecting_never_see_a_hole() {
    let temp = private();
    drop(open(&temp));
    let stop = AtomicBool::new(false);
    let (hits, rounds) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (temp, stop, hits) = (&temp, &stop, &hits);
            scope.spawn(move || {
                for round in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let store = open(temp);
                    // Some share an image, and all share layers.
                    let image = format!("image-{}", number % 3);
                    let contents = format!("contents-{}", round % 5);
                    let found = has_layer(&store, &contents);
                    if !found {
                        put_layer(&store, &contents);
                    }
                    let before = kept(&store, &image);
                    hits.fetch_add(u64::from(found) + u64::from(before.is_some()), Ordering::SeqCst);
                    if round % 2 == 0 {
                        build(&store, &image, &contents);
                    }
                    assert!(has_layer(&store, &contents), "a layer has gone that this build uses");
                    assert_eq!(store.take_warnings(), Vec::<String>::new());
                }
            });
        }
        scope.spawn(|| {
            let end = Instant::now() + Duration::from_secs(4);
            while Instant::now() < end {
                let store = open(&temp);
                store.collect(&CollectionGoal::nothing()).unwrap();
                assert_eq!(store.take_warnings(), Vec::<String>::new());
                rounds.fetch_add(1, Ordering::SeqCst);
                // Long enough for builds to leave something for one another.
                std::thread::sleep(Duration::from_millis(rounds.load(Ordering::SeqCst) % 40));
            }
            stop.store(true, Ordering::SeqCst);
        });
    });
    let (hits, rounds) = (hits.into_inner(), rounds.into_inner());
    assert!(hits > 20 && rounds > 20, "{hits} hits in {rounds} rounds show nothing");
    // See `close`: some of these stores are not closed for all yet.
    let store = open(&temp);
    let end = Instant::now() + Duration::from_secs(20);
    while store.collect(&CollectionGoal::nothing()).unwrap().left_bytes > 0 {
        assert!(Instant::now() < end, "something is left that nobody uses");
    }
    assert_eq!(files(&store, "blobs/sha256") + files(&store, "index"), 0);
}

/// K6: what somebody refers to since the look, and who is done by now.
#[test]
fn k6_what_came_into_use_after_the_look_stays() {
    let temp = private();
    let store = open(&temp);
    put_layer(&store, "app");
    let index = store.root().join(super::super::super::blobs::index_name(&diff_id("app"), ENCODER));
    std::fs::remove_file(index).unwrap();
    close(store);
    let store = open(&temp);
    let inventory = store.inventory();
    assert_eq!(inventory.pieces[0].kind, StoreKind::Unused);
    let other = open(&temp);
    put_layer(&other, "app");
    close(other);
    let claims = store.claims().unwrap();
    let choice = choose(&inventory, &CollectionGoal::nothing(), inventory::now(), &claims).unwrap();
    assert_eq!(choice.pieces.len(), 1);
    let collected = store.remove(choice, &inventory).collected;
    drop(claims);
    assert_eq!((collected.pieces, collected.in_use), (0, 1));
    assert!(has_layer(&store, "app"));
    assert_eq!(store.take_warnings(), Vec::<String>::new());
}

/// K6: programs that knew no leases held the directories of images and trees by themselves.
#[test]
fn k6_what_an_older_program_holds_stays() {
    for is_tree in [true, false] {
        let temp = private();
        let store = open(&temp);
        build(&store, "shop", "one");
        close(store);
        let store = open(&temp);
        let image = temp.path().join(image_directory("local", "shop"));
        let tree = std::fs::read_dir(image.join("trees")).unwrap().next().unwrap().unwrap().path();
        let held = if is_tree { tree } else { image };
        let lock = work::lock(&held, FlockOperation::LockShared).unwrap().unwrap();
        assert_eq!(store.collect(&CollectionGoal::nothing()).unwrap().in_use, 1);
        assert!(held.is_dir() && image_record(&store).is_file());
        // And so does the bill of materials that it leads to.
        let other = open(&temp);
        assert_eq!(kept(&other, "shop").as_deref(), Some("one"));
        assert_eq!(other.take_warnings(), Vec::<String>::new());
        close(other);
        drop(lock);
        assert_eq!(store.collect(&CollectionGoal::nothing()).unwrap().left_bytes, 0);
        assert!(!image_record(&store).exists());
    }
}

fn image_record(store: &Store) -> PathBuf {
    store.root().join(image_directory("local", "shop")).join("record")
}

/// At the end of a build nobody waits for somebody else who collects; who was asked to collect does.
#[test]
fn one_collects_at_a_time() {
    let temp = private();
    let store = open(&temp);
    put_layer(&store, "app");
    close(store);
    let store = open(&temp);
    let other = Claims::new(temp.path()).unwrap();
    assert!(other.take(COLLECTING, Wait::No).unwrap());
    assert_eq!(store.keep_under(1).unwrap(), None);
    assert_eq!(files(&store, "blobs/sha256"), 1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.collect(&CollectionGoal::nothing()).unwrap());
        let clearing = scope.spawn(|| store.clear_image("local", "shop").unwrap());
        std::thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished() && !clearing.is_finished(), "two collect");
        drop(other);
        assert_eq!(waiting.join().unwrap().left_bytes, 0);
        assert_eq!(clearing.join().unwrap(), None);
    });
}

/// K7: where nobody can lock, nothing is collected; a build is not troubled with that.
#[test]
fn k7_a_store_without_leases_is_left_alone() {
    let temp = private();
    let store = open(&temp);
    put_layer(&store, "app");
    close(store);
    let store = open(&temp);
    // As if the store could not be written: a link is never followed there, whoever is asking.
    std::fs::remove_file(temp.path().join("leases")).unwrap();
    std::os::unix::fs::symlink("elsewhere", temp.path().join("leases")).unwrap();
    assert!(store.collect(&CollectionGoal::nothing()).is_err());
    assert!(store.keep_under(1).is_err());
    assert_eq!(files(&store, "blobs/sha256"), 1);
    assert!(!temp.path().join("elsewhere").exists());
}

/// K6: an unpacked builder, and files of sources.
#[test]
fn k6_what_a_build_reads_in_place_stays() {
    let temp = private();
    let fill = |directory: &Path| -> Result<(), StoreError> {
        std::fs::write(directory.join("order.toml"), bytes("builder")).unwrap();
        Ok(())
    };
    let before = open(&temp);
    before.builder("sha256:b", fill).unwrap();
    // `printf 'hello\n' | sha256sum`
    let hello: Integrity =
        "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03".parse().unwrap();
    let scratch = before.downloads().claim(&hello).unwrap().unwrap();
    scratch.file().write_all(b"hello\n").unwrap();
    drop(scratch.finish(Some(&hello.values()[0])).unwrap());
    close(before);
    for is_builder in [true, false] {
        let running = open(&temp);
        if is_builder {
            running.builder("sha256:b", fill).unwrap();
        } else {
            assert!(running.downloads().open(&hello, &|| false).is_some());
        }
        let other = open(&temp);
        // The other one, where it is still there, goes.
        assert_eq!(other.collect(&CollectionGoal::nothing()).unwrap().in_use, 1);
        assert_eq!(files(&other, "builders"), if is_builder { 2 } else { 0 });
        close(running);
        close(other);
        let again = open(&temp);
        drop(again.builder("sha256:b", fill).unwrap());
        let scratch = again.downloads().claim(&hello).unwrap().unwrap();
        scratch.file().write_all(b"hello\n").unwrap();
        drop(scratch.finish(Some(&hello.values()[0])).unwrap());
        close(again);
    }
}

/// K1, K2: by what it asks of the kernel. Whatever leads to something goes first, and that it is gone
/// is on the disk before that which it leads to goes.
#[test]
fn k1_and_k2_records_go_before_what_they_lead_to() {
    let temp = private();
    std::fs::write(temp.path().join(PERMISSION), "once").unwrap();
    let (store, _) = Store::open(&temp.path().join("store")).unwrap();
    build(&store, "shop", "one");
    let fill = |_: &Path| -> Result<(), StoreError> { Ok(()) };
    store.builder("sha256:b", fill).unwrap();
    let root = store.root().to_owned();
    close(store);
    let calls = "trace=unlink,unlinkat,rename,renameat,renameat2,fsync,fdatasync";
    let traced = Command::new("strace")
        .args(["--follow-forks", "--decode-fds=path", "--string-limit=1000", "--output=calls", "-e", calls])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "store::collection::tests::beside::collects_until_it_is_killed"])
        .current_dir(temp.path())
        .output();
    let traced = traced.expect("`cargo xtask setup` installs strace");
    assert!(traced.status.success(), "{traced:?}");
    let calls = std::fs::read_to_string(temp.path().join("calls")).unwrap();
    let calls: Vec<&str> = calls.lines().filter(|line| line.contains(root.to_str().unwrap())).collect();
    let find = |call: &str, path: &str| -> Vec<usize> {
        let is_it = |line: &&str| line.contains(call) && line.contains(path);
        calls.iter().enumerate().filter(|(_, line)| is_it(line)).map(|(number, _)| number).collect()
    };
    let image = image_directory("local", "shop");
    for (record, directory, thing) in [
        ("/index/".to_owned(), "/index>".to_owned(), "/blobs/sha256/".to_owned()),
        (format!("/{image}/record"), format!("/{image}>"), format!("/{image}/trees/")),
        (".json".to_owned(), "/builders>".to_owned(), "/builders/".to_owned()),
    ] {
        let gone = *find("unlink", &record).last().expect("the record goes");
        let flushed = find("sync(", &directory);
        let moved = *find("rename", &thing).first().expect("what it leads to goes");
        let is_between = flushed.iter().any(|flushed| gone < *flushed && *flushed < moved);
        assert!(is_between, "{record} {gone}, {flushed:?}, {moved}:\n{}", calls.join("\n"));
    }
    assert!(!root.join(image).exists());
}

/// In the current directory of the child; without it nobody asked for what it does.
const PERMISSION: &str = "started-to-be-killed";

/// K1: whoever collects may be killed at any moment: no record leads nowhere, no tree is half.
#[test]
fn k1_a_kill_while_collecting_leaves_nothing_that_counts() {
    let temp = private();
    std::fs::write(temp.path().join(PERMISSION), "").unwrap();
    let root = temp.path().join("store");
    let mut gone = 0;
    for round in 0..25 {
        let (store, warnings) = Store::open(&root).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        for number in 0..12 {
            build(&store, &format!("image-{number}"), &format!("contents-{}", number % 7));
        }
        close(store);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "store::collection::tests::beside::collects_until_it_is_killed"])
            .current_dir(temp.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(15 + u64::from(walk::random_bytes::<1>()[0]) / 4));
        child.kill().unwrap();
        child.wait().unwrap();
        let (store, warnings) = Store::open(&root).unwrap();
        assert_eq!(warnings, Vec::<String>::new(), "round {round}");
        for number in 0..12 {
            gone += u64::from(kept(&store, &format!("image-{number}")).is_none());
            has_layer(&store, &format!("contents-{}", number % 7));
        }
        assert_eq!(store.take_warnings(), Vec::<String>::new(), "round {round}");
        close(store);
    }
    assert!(gone > 0, "no child lived long enough to collect");
    let (store, _) = Store::open(&root).unwrap();
    assert_eq!(store.collect(&CollectionGoal::nothing()).unwrap().left_bytes, 0, "what was left cannot go");
}

#[test]
#[ignore = "the child of the test above"]
fn collects_until_it_is_killed() {
    if !Path::new(PERMISSION).exists() {
        return;
    }
    let root = PathBuf::from("store");
    if std::fs::read_to_string(PERMISSION).unwrap() == "once" {
        Store::open(&root).unwrap().0.collect(&CollectionGoal::nothing()).unwrap();
        return;
    }
    loop {
        let (store, _) = Store::open(&root).unwrap();
        let all = store.usage().bytes();
        store.collect(&CollectionGoal::keep(all.saturating_sub(LARGE as u64))).unwrap();
    }
}
