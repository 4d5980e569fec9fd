use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::site::{Ended, SAMPLE, Site};

/// A build that would not end for a long time, at the moment its guest runs.
fn long_build(site: &Site, guest: &str) -> Option<Child> {
    let directory = site.guest(guest)?;
    let directory = directory.display().to_string();
    let mut child = site
        .command(&["build", "--path", SAMPLE, "--output", "oci:image", "-b", &directory, "app"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("===> BUILDING") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before it built");
    }
    // Long enough for the guest to be under way.
    std::thread::sleep(Duration::from_millis(300));
    child.stdout = Some(lines.into_inner());
    Some(child)
}

fn children(parent: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn is_alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn interrupted_by(signal: Signal, code: i32, guest: &str) {
    let site = Site::new();
    let Some(child) = long_build(&site, guest) else { return };
    let workers = children(child.id());
    assert!(!workers.is_empty(), "no worker runs");
    assert!(site.work_directories() > 0);
    let started = Instant::now();
    kill_process(Pid::from_child(&child), signal).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap()).with(code);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(ended.err, "interrupted; nothing was published\n");
    assert!(workers.iter().all(|worker| !is_alive(*worker)), "a worker is left");
    assert_eq!(site.work_directories(), 0);
    assert!(!site.path().join("image/index.json").exists());
}

#[test]
fn ctrl_c_ends_a_build_and_leaves_nothing() {
    interrupted_by(Signal::INT, 130, "nap-forever");
}

#[test]
fn ctrl_c_ends_a_guest_that_only_computes() {
    interrupted_by(Signal::INT, 130, "spin-in-build");
}

#[test]
fn a_polite_kill_does_too() {
    interrupted_by(Signal::TERM, 143, "nap-forever");
}

#[test]
fn so_does_a_closed_terminal() {
    interrupted_by(Signal::HUP, 129, "nap-forever");
}

#[test]
fn whoever_reads_may_stop_reading() {
    let site = Site::new();
    let mut child =
        site.command(&["build", "--path", SAMPLE, "--output", "oci:image", "app"]).spawn().unwrap();
    drop(child.stdout.take());
    let ended = Ended::from(child.wait_with_output().unwrap()).with(141);
    assert_eq!(ended.err, "");
    assert_eq!(site.work_directories(), 0);
}
