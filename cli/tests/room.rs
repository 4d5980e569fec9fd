//! A network and mounts of a test's own, where engines and containers may use any port.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::site::{Ended, Site};

/// How long an engine or a container may take to answer on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Whether all of these are installed; says which are not. Continuous integration has them all.
pub(crate) fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<_> = std::env::split_paths(&path).chain(["/usr/sbin".into()]).collect();
    let is_there = |name: &&&str| directories.iter().any(|directory| directory.join(name).is_file());
    let missing: Vec<_> = programs.iter().filter(|name| !is_there(name)).collect();
    if !missing.is_empty() {
        skip(&format!("{missing:?} are not installed; `cargo xtask setup` installs them"));
    }
    missing.is_empty()
}

/// Says aloud why a test is not run, which must not happen in continuous integration.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var("CI").is_err(), "this must not be skipped in CI: {reason}");
    println!("SKIPPED: {reason}");
}

/// A process that ends when it is asked to, or is made to.
pub(crate) struct Server {
    process: Child,
    log: PathBuf,
}

impl Server {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let output = std::fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        Self { process: command.spawn().unwrap(), log: log.to_owned() }
    }

    /// Everything that it printed.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        // Engines stop their own children when they are asked.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let since = Instant::now();
        while !self.has_ended() {
            if since.elapsed() > Duration::from_secs(15) {
                let _ = self.process.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Namespaces that last as long as the value.
pub(crate) struct Room {
    process: Child,
}

impl Room {
    /// `setup` are commands of a shell inside. `None`, said aloud, where that is not allowed.
    pub(crate) fn open(setup: &str) -> Option<Self> {
        if !have(&["unshare", "nsenter", "ip", "iptables", "python3"]) {
            return None;
        }
        let script = format!(
            "set -e; ip link set lo up; mount -t tmpfs none /run; {setup}\n\
             echo ready; exec sleep 1000"
        );
        let mut process = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let room = Self { process };
        if said.trim() != "ready" {
            skip("a network and mounts of one's own are not allowed here");
            return None;
        }
        Some(room)
    }

    /// A program inside, with the environment and directory of the site's programs.
    pub(crate) fn command(&self, site: &Site, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--target", &self.process.id().to_string()]);
        // The mounts are those of the room, and so is the directory.
        command.arg(format!("--wdns={}", site.path().display())).arg(program).args(arguments);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env_clear().env("HOME", site.path()).env("PATH", format!("{path}:/usr/sbin:/sbin"));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, site: &Site, program: &str, arguments: &[&str]) -> Ended {
        self.command(site, program, arguments).output().unwrap().into()
    }

    pub(crate) fn wapack(&self, site: &Site, arguments: &[&str]) -> Ended {
        self.run(site, env!("CARGO_BIN_EXE_wapack"), arguments)
    }

    /// What a server inside answers, as soon as it does.
    #[track_caller]
    pub(crate) fn page(&self, site: &Site, address: &str, server: &mut Server) -> String {
        let fetch = "import sys, urllib.request\n\
                     sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], timeout=5).read())";
        let since = Instant::now();
        loop {
            let ended = self.run(site, "python3", &["-c", fetch, address]);
            if ended.code == Some(0) {
                return ended.out;
            }
            assert!(!server.has_ended(), "it ended: {}", server.said());
            assert!(
                since.elapsed() < PATIENCE,
                "{address} is never answered: {}{}",
                ended.err,
                server.said()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks again until it is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
