//! Damage, kills, full disks and company: the next build works, and what was there stays valid.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use acceptance::Job;
use rustix::fs::FlockOperation;
use wapack_runtime::fault::Diagnose as _;
use wapack_runtime::store::{Store, StoreError};

use super::reuse::files;
use super::tools::{Layout, build_process, have, is_root, result_of, run, skip, wait_until};
use crate::support::{IMAGE, Outcome, Site};

/// Every kind of layer and record; two builds in a row are equal.
fn site() -> Site {
    Site::in_memory().guest("well-behaved").guest("update-layer").env("COUNT", "no")
}

/// One thing that can be wrong with a file, and how to make it so.
type Damage = (&'static str, fn(&Path));

const DAMAGES: [Damage; 6] = [
    ("a flipped bit", |path| {
        let mut file = open_for_damage(path);
        let middle = file.metadata().expect("a file").len() / 2;
        let mut byte = [0];
        file.seek(SeekFrom::Start(middle)).expect("it is that long");
        // An empty file has no bit; a byte too many is as bad.
        let _ = file.read(&mut byte).expect("it can be read");
        byte[0] ^= 1;
        file.seek(SeekFrom::Start(middle)).expect("it is that long");
        file.write_all(&byte).expect("it can be written");
    }),
    ("truncated", |path| {
        let file = open_for_damage(path);
        let length = file.metadata().expect("a file").len();
        file.set_len(length / 2).expect("it can be written");
    }),
    ("zeroes", |path| {
        let length = fs::metadata(path).expect("a file").len();
        let zeroes = vec![0; usize::try_from(length).expect("it is small")];
        open_for_damage(path).write_all(&zeroes).expect("it can be written");
    }),
    ("missing", |path| fs::remove_file(path).expect("it is there")),
    ("a directory", |path| {
        fs::remove_file(path).expect("it is there");
        fs::create_dir(path).expect("a directory");
        fs::write(path.join("file"), "x").expect("a file");
    }),
    ("a link", |path| {
        fs::remove_file(path).expect("it is there");
        symlink("/etc/passwd", path).expect("a link");
    }),
];

fn open_for_damage(path: &Path) -> fs::File {
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("a mode");
    fs::OpenOptions::new().read(true).write(true).open(path).expect("it can be opened")
}

/// One of each kind of file in the store, by its place; blobs, trees and index each by size.
fn kinds(store: &Path) -> Vec<(&'static str, PathBuf)> {
    let all: Vec<PathBuf> = files(store, &|_| ()).into_keys().collect();
    let relative =
        |path: &Path| path.strip_prefix(store).expect("it is in the store").to_string_lossy().into_owned();
    let kind = |path: &Path| {
        let name = relative(path);
        let last = name.rsplit('/').next().unwrap_or_default();
        match name.split('/').next().unwrap_or_default() {
            "version" => "version",
            "key" => "key",
            "leases" => "leases",
            "size" => "size",
            "blobs" => "blob",
            "index" => "index",
            "compiled" => "compiled code",
            "digests" => "digest",
            "notes" => "note",
            "builders" if name.matches('/').count() == 1 => "record of a builder",
            "builders" if last == "buildpack.wasm" => "component of a builder",
            "builders" => "descriptor of a builder",
            "layers" if last == "record" => "record of an image",
            "layers" if last == "sealed" => "marker of a tree",
            "layers" => "file of a tree",
            _ => "unknown",
        }
    };
    let mut found: Vec<(&'static str, PathBuf)> = all.into_iter().map(|path| (kind(&path), path)).collect();
    found.sort();
    assert!(found.iter().all(|(kind, _)| *kind != "unknown"), "{found:?}");
    found.dedup_by_key(|(kind, _)| *kind);
    found
}

/// A builder in the store, as the command line keeps the one that comes with it.
fn buildpacks_in_store(site: &Site) -> Vec<PathBuf> {
    let (store, _) = Store::open(&site.path("store")).expect("a store");
    let copy = |to: &Path| -> Result<(), StoreError> {
        for name in ["well-behaved", "update-layer"] {
            fs::create_dir(to.join(name)).expect("a directory");
            for file in ["buildpack.toml", "buildpack.wasm"] {
                fs::copy(site.path("buildpacks").join(name).join(file), to.join(name).join(file))
                    .expect("a file");
            }
        }
        Ok(())
    };
    let builder = store.builder("sha256:00", copy).expect("a builder");
    vec![builder.join("well-behaved"), builder.join("update-layer")]
}

/// K4: whatever is damaged in the store is made again: the same image, at most one warning.
#[test]
fn every_kind_of_damage_to_every_kind_of_file_is_survived() {
    let site = site();
    let mut number = 0;
    let mut build = || -> (Outcome, PathBuf) {
        number += 1;
        let mut job = site.job();
        job.buildpacks = buildpacks_in_store(&site);
        // A new layout takes every blob from the store.
        job.output = site.path(&format!("image-{number}"));
        let outcome = site.build_job(&job, |_| ());
        (outcome, job.output)
    };
    let golden = build().0.digest();
    let usual = build().0.warnings().len();
    let mut tried = 0;
    for (damage, spoil) in DAMAGES {
        for kind in kinds(&site.path("store")).into_iter().map(|(kind, _)| kind) {
            // An earlier repair may have renamed it.
            let Some((_, path)) = kinds(&site.path("store")).into_iter().find(|(found, _)| *found == kind)
            else {
                continue;
            };
            spoil(&path);
            tried += 1;
            let (outcome, output) = build();
            let what = format!("{kind}: {damage}");
            match &outcome.result {
                Ok(exported) => assert_eq!(exported.digest.to_string(), golden, "{what}"),
                Err(error) => panic!("{what}: {error}: {error:?}"),
            }
            assert!(outcome.warnings().len() <= usual + 1, "{what}: {:?}", outcome.warnings());
            assert_eq!(Layout::verified(&output).images[IMAGE], golden, "{what}");
            fs::remove_dir_all(output).expect("it is there");
            // What was put right stays right.
            let (outcome, output) = build();
            assert_eq!(
                (outcome.digest(), outcome.warnings().len()),
                (golden.clone(), usual),
                "{what}, afterwards"
            );
            fs::remove_dir_all(output).expect("it is there");
        }
    }
    assert!(tried >= 60, "every kind was there: {tried}");
}

/// A worker program with a path of its own, so that its processes are known by it.
pub(super) fn own_worker(job: &mut Job, path: &Path) {
    symlink(&job.worker, path).expect("a link");
    path.clone_into(&mut job.worker);
}

/// Whether a process runs that was started by this path.
pub(super) fn is_running(program: &Path) -> bool {
    let program = program.as_os_str().as_encoded_bytes();
    let processes = fs::read_dir("/proc").expect("procfs");
    processes
        .flatten()
        .any(|process| fs::read(process.path().join("cmdline")).is_ok_and(|line| line.starts_with(program)))
}

/// Numbers that look random and are the same in every run.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// K1, K10: at every moment of a kill the layout holds the old image or the new one, whole.
#[test]
fn a_build_killed_at_any_moment_leaves_a_valid_layout_and_no_litter() {
    let site = site();
    let mut job = site.job();
    own_worker(&mut job, &site.path("worker"));
    // Two apps and keys, by turns: what is expected of each comes from stores of their own.
    let turn = |job: &mut Job, number: usize| {
        let key = ["1", "2"][number % 2];
        job.env.insert("KEY".into(), key.into());
        fs::write(site.path("app/index.html"), format!("<h1>{key}</h1>\n")).expect("a file");
    };
    let mut golden = Vec::new();
    for number in 0..2 {
        turn(&mut job, number);
        let mut clean = job.clone();
        clean.store = site.path(&format!("clean-store-{number}"));
        clean.output = site.path(&format!("clean-image-{number}"));
        golden.push(site.build_job(&clean, |_| ()).digest());
    }
    assert_ne!(golden[0], golden[1]);
    // How many events a build has when nothing of it is new.
    let mut events = 0;
    site.build_job(&job, |_| events += 1).digest();

    let mut numbers = Numbers(20_261_121);
    let mut killed = 0;
    for number in 0..40 {
        turn(&mut job, number);
        if number % 13 == 12 {
            fs::remove_dir_all(&job.store).expect("it is there");
        }
        // The layout has the other image only, so that every blob of this one is missing.
        let _ = fs::remove_dir_all(&job.output);
        let old = site.path(&format!("clean-image-{}", (number + 1) % 2));
        run(Command::new("cp").arg("-a").arg(old).arg(&job.output));
        let mut process = build_process(&[], &job).stdout(Stdio::piped()).spawn().expect("a process");
        // Every other time at a random event, else while the layout is written; and up to two milliseconds more.
        let event = if number % 2 == 0 { numbers.below(events) } else { events - 3 + numbers.below(2) };
        let mut said = BufReader::new(process.stdout.take().expect("it was asked for"));
        let lines = said.by_ref().lines().take(usize::try_from(event).expect("a few")).count();
        assert!(lines as u64 <= events);
        std::thread::sleep(Duration::from_micros(numbers.below(2000)));
        process.kill().expect("a signal");
        let status = process.wait().expect("it ends");
        killed += u32::from(!status.success());
        wait_until("the workers end with the build", || !is_running(&job.worker));

        let layout = Layout::verified(&job.output);
        assert!(golden.contains(&layout.images[IMAGE]), "round {number}: the old image or the new one");
        assert_eq!(site.build_job(&job, |_| ()).digest(), golden[number % 2], "round {number}");
        assert_eq!(Layout::verified(&job.output).images[IMAGE], golden[number % 2], "round {number}");
        let work: Vec<_> = fs::read_dir(job.store.join("work")).expect("a directory").collect();
        assert!(work.is_empty(), "round {number}: {work:?}");
        let litter: Vec<_> = fs::read_dir(&job.output)
            .expect("a directory")
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with('.'))
            .collect();
        assert!(litter.is_empty(), "round {number}: {litter:?}");
    }
    assert!(killed >= 20, "most were killed before they were done: {killed}");
}

/// K5: the same image by many at once, and different ones into one layout.
#[test]
fn builds_at_the_same_time_do_not_disturb_each_other() {
    let site = site();
    let golden = site.build().digest();
    fs::remove_dir_all(site.path("store")).expect("it is there");
    fs::remove_dir_all(site.path("image")).expect("it is there");
    let names = [IMAGE, IMAGE, IMAGE, "other:1", "other:2", "other:3", "other:4", "other:5"];
    for round in ["cold", "warm", "warm again", "and again", "and again"] {
        let _ = fs::remove_dir_all(site.path("image"));
        let digests: Vec<String> = std::thread::scope(|scope| {
            let build = |name: &str| {
                let mut job = site.job();
                job.image = name.to_owned();
                let output = build_process(&[], &job).output().expect("a process");
                result_of(&output).unwrap_or_else(|error| panic!("{round}: {error:?}"))
            };
            let running = names.map(|name| scope.spawn(move || build(name)));
            running.into_iter().map(|thread| thread.join().expect("a digest")).collect()
        });
        assert_eq!(digests, vec![golden.clone(); names.len()], "{round}");
        let layout = Layout::verified(&site.path("image"));
        assert_eq!(layout.images.len(), 6, "{round}: every image is in the index");
        assert!(layout.images.values().all(|digest| *digest == golden), "{round}");
    }
}

/// A layout is written by one at a time: who comes second waits and writes then.
#[test]
fn a_layout_that_somebody_holds_is_waited_for() {
    let mut site = site();
    let first = site.build();
    first.digest();
    let layers = first.layers().len();
    let index = || fs::read(site.path("image/index.json")).expect("the index");
    let before = index();
    let held = fs::File::open(site.path("image")).expect("a directory");
    rustix::fs::flock(&held, FlockOperation::LockShared).expect("a lock");
    let mut job = site.job();
    job.env.insert("KEY".into(), "2".into());
    let mut process = build_process(&[], &job).stdout(Stdio::piped()).spawn().expect("a process");
    let mut said = BufReader::new(process.stdout.take().expect("it was asked for"));
    let exported =
        |line: &std::io::Result<String>| line.as_ref().is_ok_and(|line| line.contains("layer-exported"));
    assert_eq!(said.by_ref().lines().filter(exported).take(layers).count(), layers);
    // Long enough for the writing that must not happen.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(process.try_wait().expect("a process"), None, "it waits");
    assert!(index() == before, "nothing was written");
    drop(held);
    assert!(process.wait().expect("it ends").success());
    assert!(index() != before);
    site.env.insert("KEY".into(), "2".into());
    assert_eq!(Layout::verified(&site.path("image")).images[IMAGE], site.build().digest());
}

/// A file system of a fixed size, for as long as this value lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf, bytes: u64) -> Option<Self> {
        fs::create_dir_all(&path).expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=755"), "none"])
            .arg(&path)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(path));
        }
        skip("a small disk cannot be mounted");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// EXP-08
/// K3: a full disk is said as such, nothing is half there, and with space it goes on.
#[test]
fn a_full_disk_is_an_error_and_the_old_image_stays() {
    if !is_root() {
        return skip("a small disk needs root");
    }
    if !have(&["mount", "umount"]) {
        return;
    }
    let site = |bytes: &str| Site::in_memory().guest("big-layer").env("FILES", "4").env("BYTES", bytes);
    let golden = site("1000000").build().digest();
    // Where there is no room, for files of how many bytes.
    let cases = [
        ("image", "2500000", "the layout"),
        ("store", "2500000", "what the buildpack writes"),
        ("store", "1100000", "the blob"),
    ];
    for (place, bytes, what) in cases {
        let mut site = site("1000");
        let Some(_disk) = SmallDisk::mount(site.path(place), 8 << 20) else { return };
        let old = site.build().digest();
        site.env.extend([("KEY".into(), "2".into()), ("BYTES".into(), bytes.into())]);
        let error = site.build().result.expect_err(what);
        assert_eq!(error.id(), "host.disk_full", "{what}: {error}");
        assert_eq!(Layout::verified(&site.path("image")).images[IMAGE], old, "{what}");
        // With more space everything works, without anything being cleaned up by hand.
        run(Command::new("mount").args(["-o", "remount,size=200m"]).arg(site.path(place)));
        site.env.extend([("KEY".into(), "1000000".into()), ("BYTES".into(), "1000000".into())]);
        assert_eq!(site.build().digest(), golden, "{what}");
        assert_eq!(Layout::verified(&site.path("image")).images[IMAGE], golden, "{what}");
    }
}

/// A store that cannot be written, or is none, is an error or a slow build, never a wrong one.
#[test]
fn a_store_that_is_a_file_is_an_error() {
    let site = site();
    fs::write(site.path("store"), "x").expect("a file");
    let error = site.build().result.expect_err("a refusal");
    assert!(error.id().starts_with("store."), "{}", error.id());
    assert_eq!(fs::read(site.path("store")).expect("a file"), b"x");
}
