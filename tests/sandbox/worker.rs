//! The process around the guests: what it lacks, and what happens when it dies.
//!
//! On Linux nothing here is skipped: a kernel without Landlock or seccomp fails
//! these tests, because there the product would run with less.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal};
use wapack_runtime::cancel::Cancel;
use wapack_runtime::event::Event;
use wapack_runtime::executor::worker::{NoCode, Root, WorkerExecutor, WorkerSettings};
use wapack_runtime::fault::Diagnose as _;
use wapack_runtime::policy::Isolation;
use wapack_runtime::store::Store;

use super::{eventually, no_litter, raw_bytes};
use crate::support::{Outcome, Site, guest};

/// The workers of a site that are running, those that compile included.
pub(super) fn processes(site: &Site) -> Vec<u32> {
    let tag = &site.worker_arguments[0];
    let ours = std::process::id().to_string();
    let processes = fs::read_dir("/proc").expect("procfs").flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let arguments = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
        (parent == ours && arguments.starts_with("wapack-worker\0") && arguments.contains(tag)).then_some(pid)
    });
    processes.collect()
}

/// How many guests run in a worker.
fn guest_threads(pid: u32) -> usize {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok())
        .filter(|name| name.trim_end() == "guest")
        .count()
}

/// The worker of a site in which a guest runs.
fn guest_process(site: &Site) -> Option<u32> {
    processes(site).into_iter().find(|pid| guest_threads(*pid) > 0)
}

/// Cancels a build when the test that watches it has failed.
struct CancelOnPanic<'a>(&'a Cancel);

impl Drop for CancelOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}

/// Builds on another thread and looks at the worker once a guest runs in it.
pub(super) fn while_running<T>(site: &Site, look: impl FnOnce(u32) -> T) -> (T, Outcome) {
    std::thread::scope(|scope| {
        let build = scope.spawn(|| site.build());
        let guard = CancelOnPanic(&site.cancel);
        let seen = look(eventually("a guest in a worker", || guest_process(site)));
        drop(guard);
        (seen, build.join().expect("no panic"))
    })
}

/// Looks at a worker whose guest never ends by itself, then cancels the build.
fn look_at_worker<T>(guest: &str, look: impl FnOnce(&Site, u32) -> T) -> T {
    let site = Site::new().guest(guest);
    let (seen, outcome) = while_running(&site, |pid| {
        let seen = look(&site, pid);
        site.cancel.cancel();
        seen
    });
    assert_eq!(outcome.error().id(), "build.cancelled");
    assert!(no_litter(&site));
    seen
}

/// A field of `/proc/<pid>/status`.
fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("the kernel has it").trim().to_owned()
}

/// The most memory a process had at once, in bytes, looked at until it ends.
pub(super) fn peak_memory(pid: u32) -> u64 {
    let mut peak = 0;
    while let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) {
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let Some(line) = line else { break };
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        peak = peak.max(kib * 1024);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    peak
}

#[test]
fn the_worker_is_a_process_without_privileges() {
    look_at_worker("nap-forever", |_, pid| {
        assert_ne!(pid, std::process::id());
        assert_eq!(status(pid, "Seccomp"), "2");
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        assert_eq!(status(pid, "CapEff"), "0000000000000000");
        assert_eq!(status(pid, "CapPrm"), "0000000000000000");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
        if rustix::process::geteuid().is_root() {
            let users: Vec<u32> =
                status(pid, "Uid").split_whitespace().map(|user| user.parse().expect("a number")).collect();
            assert_eq!(users.len(), 4);
            assert!(users.iter().all(|user| *user >= 0x7000_0000), "{users:?}");
            assert_eq!(status(pid, "Groups"), "");
        }
    });
}

#[test]
fn the_worker_has_no_variable_and_no_descriptor_of_ours() {
    // Not closed on exec: a program that embeds us may have such descriptors.
    let flags = rustix::fs::OFlags::RDONLY;
    let bait = rustix::fs::open("/etc/hostname", flags, rustix::fs::Mode::empty()).expect("a file");
    assert!(!rustix::io::fcntl_getfd(&bait).expect("open").contains(rustix::io::FdFlags::CLOEXEC));
    look_at_worker("spin-in-build", |site, pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).expect("readable for root");
        assert_eq!(String::from_utf8_lossy(&environment), "");
        let ours = [site.path("app"), site.path("buildpacks"), site.path("store/work")];
        let mut sockets = BTreeSet::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("readable for root") {
            let entry = entry.expect("an entry");
            // What a guest's thread has just closed is gone.
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let number: u32 = entry.file_name().to_string_lossy().parse().expect("a number");
            let name = target.display().to_string();
            if number <= 2 {
                assert_eq!(name, "/dev/null");
            } else if name.starts_with("socket:") {
                sockets.insert(name);
            } else if !name.starts_with("/memfd:component") && !name.starts_with("/memfd:wasm-memory-image") {
                assert!(ours.iter().any(|place| target.starts_with(place)), "{number} is {name}");
            }
        }
        assert_eq!(sockets.len(), 1, "the channel to the parent and no other: {sockets:?}");
    });
    drop(bait);
}

#[test]
fn g16_the_worker_has_no_network() {
    look_at_worker("nap-forever", |_, pid| {
        let namespace =
            |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).expect("a namespace");
        assert_ne!(namespace(&pid.to_string()), namespace("self"));
        let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).expect("a list");
        let names: Vec<&str> =
            devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
        assert!(names.iter().all(|name| ["lo", "sit0", "ip6tnl0", "tunl0"].contains(name)), "{names:?}");
        // An interface that is up has addresses.
        for list in ["if_inet6", "route"] {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{list}")).unwrap_or_default();
            assert!(text.lines().all(|line| line.starts_with("Iface")), "{list}: {text}");
        }
    });
}

#[test]
fn g16_no_process_of_a_build_makes_an_internet_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let status = Command::new("strace")
        .args(["-f", "-qq", "--seccomp-bpf", "-e", "trace=socket,socketpair,connect,bind", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "sandbox::a_well_behaved_guest_builds"])
        .output()
        .expect("strace is installed by the set-up");
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    let log = fs::read_to_string(log).expect("what was traced");
    assert!(log.contains("socketpair(AF_UNIX"), "the channel was seen: {log}");
    for line in log.lines() {
        assert!(!line.contains("AF_INET") && !line.contains("AF_NETLINK"), "{line}");
    }
}

fn settings(site: &Site, roots: Vec<Root>) -> WorkerSettings {
    WorkerSettings {
        command: site.worker(),
        limits: site.policy.limits.clone(),
        roots,
        user: rustix::process::geteuid().is_root().then_some(0x7123_4567),
        isolation_required: true,
        cancel: Cancel::default(),
    }
}

#[test]
fn g9_a_worker_that_was_taken_over_cannot_get_out() {
    let site = Site::new();
    let (store, _) = Store::open(&site.path("store")).expect("a store");
    let work = store.work_dir().expect("a directory");
    let other = site.path("store/work/other-build");
    fs::create_dir(&other).expect("a directory");
    fs::write(work.path().join("mine"), "mine").expect("a file");
    // Readable for everybody, so that only Landlock stands in the way.
    for path in
        [site.path(""), site.path("store"), site.path("store/work"), other.clone(), work.path().to_owned()]
    {
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("our own");
    }
    let roots = vec![Root { path: work.path().to_owned(), writable: true }];
    let mut executor = WorkerExecutor::new(settings(&site, roots), &NoCode);
    assert_eq!(executor.isolation().expect("a worker").missing(), [] as [String; 0]);
    let inside = work.path().join("mine");
    let paths: Vec<PathBuf> = vec![
        inside.clone(),
        "/etc/hostname".into(),
        site.path("store/key"),
        other,
        site.path("store"),
        site.path("app/index.html"),
        "/proc/self/environ".into(),
        format!("/proc/{}/environ", std::process::id()).into(),
        "/".into(),
    ];
    let attempts = executor.probe(paths).expect("an answer");
    assert!(attempts.len() > 15, "{attempts:?}");
    for attempt in &attempts {
        let allowed = attempt.what == format!("open {}", inside.display());
        assert_eq!(attempt.refused.is_none(), allowed, "{attempt:?}");
    }
}

#[test]
fn a_policy_that_requires_isolation_refuses_a_machine_without_it() {
    let mut site = Site::new().guest("well-behaved");
    site.worker_arguments.push("--without-landlock".to_owned());
    let outcome = site.build();
    let warnings: Vec<&str> = outcome
        .succeeded()
        .events
        .iter()
        .filter_map(
            |event| if let Event::Warning { message } = event { Some(message.as_str()) } else { None },
        )
        .collect();
    assert_eq!(
        warnings,
        ["buildpacks run with less isolation on this machine: no Landlock (the kernel does not offer it)"]
    );
    site.policy.isolation = Isolation::Required;
    let outcome = site.build();
    assert_eq!(
        outcome.said(),
        (
            "worker.unavailable",
            "cannot start a worker process: the policy requires isolation that this machine lacks: \
             no Landlock (the kernel does not offer it)"
                .to_owned()
        )
    );
    assert!(no_litter(&site));
}

#[test]
fn g25_a_worker_that_is_killed_is_one_builds_error() {
    let number = |signal: Signal| signal.as_raw();
    for signal in [Signal::KILL, Signal::SEGV] {
        let mut site = Site::new().guest("nap-forever");
        let (neighbour, outcome) = while_running(&site, |pid| {
            let neighbour = Site::new().guest("sleep").env("SECONDS", "1");
            let ((), outcome) = while_running(&neighbour, |_| kill(pid, signal));
            outcome
        });
        assert_eq!(neighbour.succeeded().lines(), ["awake"]);
        outcome.failed_with(
            "worker.crashed",
            &format!(
                "the worker that ran buildpack `test/nap-forever@1.0.0` crashed (signal {})",
                number(signal)
            ),
        );
        assert!(no_litter(&site));
        // The same site builds, with no step by hand.
        site.buildpacks.clear();
        site = site.guest("well-behaved");
        site.build().succeeded();
        assert!(no_litter(&site));
    }
}

fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("small")).expect("not zero");
    // The handler of wasmtime takes a first SEGV that no instruction made for one it has to repeat.
    eventually("the death of the worker", || {
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return Some(());
        }
        let _ = rustix::process::kill_process(pid, signal);
        None
    });
}

#[test]
fn g25_a_worker_that_dies_in_detect_costs_the_others_nothing() {
    let mut site = Site::new().guest("sleep-in-detect");
    // The same component, so that both run before the third is even compiled.
    site.buildpack("also-asleep", &guest("sleep-in-detect"), "");
    site = site.guest("well-behaved");
    site.policy.limits.detect_wall_seconds = 5;
    let ((), outcome) = while_running(&site, |pid| {
        eventually("two guests at once", || (guest_threads(pid) >= 2).then_some(()));
        kill(pid, Signal::KILL);
    });
    // Who did it is not known, so each is run again alone; then they hang as they always do.
    outcome.detect_failed_with("guest.wall_limit", "test/sleep-in-detect@1.0.0");
    let verdicts = super::verdicts(&outcome);
    assert!(verdicts.iter().all(|(_, verdict)| !verdict.contains("worker.")), "{verdicts:?}");
    assert_eq!(verdicts[2].1, "Pass", "{verdicts:?}");
}

/// How often a component was compiled.
fn compiled(outcome: &Outcome) -> usize {
    outcome.succeeded().events.iter().filter(|event| matches!(event, Event::Compiling { .. })).count()
}

#[test]
fn g24_planted_and_damaged_code_is_compiled_again() {
    let site = Site::new().guest("well-behaved");
    assert_eq!(compiled(&site.build()), 1);
    assert_eq!(compiled(&site.build()), 0, "it was kept");
    let directory = site.path("store/compiled");
    let files = || -> Vec<PathBuf> {
        fs::read_dir(&directory).expect("the store").map(|entry| entry.expect("an entry").path()).collect()
    };
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    let good = fs::read(file).expect("code");
    let planted = [&[0; 32][..], &good[32..]].concat();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bytes in [planted, flipped, good[..good.len() / 2].to_vec(), vec![]] {
        fs::write(file, bytes).expect("as root");
        assert_eq!(compiled(&site.build()), 1);
        assert_eq!(fs::read(file).expect("code").len(), good.len());
    }
    assert_eq!(compiled(&site.build()), 0);
}

#[test]
fn g22_damaged_components_cost_no_more_than_an_error() {
    let site = Site::new();
    let executor = WorkerExecutor::new(settings(&site, vec![]), &NoCode);
    let buildpack = wapack_runtime::cnb::id::BuildpackRef {
        id: "test/damaged".parse().expect("an id"),
        version: "1.0.0".parse().expect("a version"),
    };
    let whole = raw_bytes("no-build");
    let file = site.path("component");
    let mut ids = BTreeSet::new();
    // A fixed sequence: what fails once fails again.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("small")
    };
    for round in 0..300 {
        let mut bytes = whole.to_vec();
        if round % 5 == 0 {
            bytes.truncate(random(whole.len()));
        } else {
            let at = random(whole.len());
            bytes[at] ^= 1 << random(8);
        }
        fs::write(&file, &bytes).expect("a file");
        match executor.compile(&buildpack, &file) {
            Ok(_) => ids.insert("works"),
            Err(failure) => {
                assert_ne!(failure.id(), "worker.unavailable", "round {round}: {failure}");
                ids.insert(failure.id())
            }
        };
    }
    assert!(ids.contains("buildpack.not_a_component"), "{ids:?}");
    assert!(!ids.contains("buildpack.compile_limit"), "a compiler died: {ids:?}");
    assert!(Path::new(&file).exists());
}

/// A package as npm packs one.
fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    for (name, contents) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("package/{name}"), *contents).expect("in memory");
    }
    builder.into_inner().and_then(flate2::write::GzEncoder::finish).expect("in memory")
}

/// A site whose guest fetches one package `count` times.
fn fetching(count: u64, package: &[u8]) -> Site {
    let mut site = Site::in_memory().env("COUNT", &count.to_string());
    site.buildpack("fetch-many", &guest("fetch-many"), "[grants]\nsources = [\"npm\"]\n");
    site.policy.allow.0.insert("source=npm".parse().expect("a grant"));
    fs::create_dir(site.path("source")).expect("a directory");
    fs::write(site.path("source/p.tgz"), package).expect("a file");
    site.npm = Some(site.path("source").display().to_string());
    site
}

#[test]
fn downloads_are_unpacked_by_threads_as_confined_as_the_guest() {
    // More than may wait in the worker as open files at once.
    let package = tarball(&[("package.json", b"{}"), ("lib/index.js", &vec![b'x'; 50_000])]);
    let site = fetching(2500, &package);
    let (seen, outcome) = while_running(&site, |pid| {
        eventually("a thread that unpacks", || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            tasks.flatten().find_map(|task| {
                let text = |name| fs::read_to_string(task.path().join(name)).ok();
                if text("comm")?.trim_end() != "unpack" {
                    return None;
                }
                let status = text("status")?;
                let fields = ["Seccomp:", "NoNewPrivs:", "CapEff:"];
                let lines = status.lines().filter(|line| fields.iter().any(|field| line.starts_with(field)));
                Some(lines.map(|line| line.replace('\t', "")).collect::<Vec<_>>())
            })
        })
    });
    assert_eq!(seen, ["CapEff:0000000000000000", "NoNewPrivs:1", "Seccomp:2"]);
    outcome.succeeded();
    assert!(outcome.lines().contains(&"files: 2500"), "{:?}", outcome.lines());
}

#[test]
fn a_download_that_climbs_out_is_the_error_of_its_build() {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..12].copy_from_slice(b"package/../x");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    let package = [header.as_bytes().as_slice(), &[0; 1024]].concat();
    let site = fetching(3, &package);
    let outcome = site.build();
    let text = format!("{:?}", outcome.error());
    assert!(text.contains("cannot unpack `npm:p.tgz` into `/layers/"), "{text}");
    assert!(text.contains("entry 1 `package/../x` has a path that leaves the destination"), "{text}");
    assert!(no_litter(&site));
}
