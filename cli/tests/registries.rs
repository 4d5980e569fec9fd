//! Registries on loopback: Debian's, and one that knows referrers.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::room::{Room, Server, have, skip, wait_until};
use crate::site::Site;

/// Debian's `docker-registry`, which has not heard of referrers.
pub(crate) struct Registry {
    _server: Server,
    pub(crate) address: String,
}

impl Registry {
    /// On a port of its own. `None`, said aloud, where it is not installed.
    pub(crate) fn start(site: &Site) -> Option<Self> {
        Self::start_as(site, Command::new("docker-registry"))
    }

    /// For whoever is in a room.
    pub(crate) fn start_in(room: &Room, site: &Site) -> Option<Self> {
        Self::start_as(site, room.command(site, "docker-registry", &[]))
    }

    fn start_as(site: &Site, mut command: Command) -> Option<Self> {
        if !have(&["docker-registry"]) {
            return None;
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let storage = site.path().join("registry");
        let configuration = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            storage.display()
        );
        let configuration = site.file("registry.yml", &configuration);
        let log = site.path().join("registry.log");
        let mut server = Server::start(command.arg("serve").arg(configuration), &log);
        wait_until("the registry listens", || {
            assert!(!server.has_ended(), "{}", server.said());
            server.said().contains("listening on")
        });
        Some(Self { _server: server, address })
    }
}

/// Requests that Debian's registry has answered, as `METHOD path`.
pub(crate) fn requests(site: &Site) -> Vec<String> {
    let log = std::fs::read_to_string(site.path().join("registry.log")).unwrap();
    let lines = log.lines().filter(|line| line.contains("HTTP/1.1\" "));
    lines.filter_map(|line| Some(line.split('"').nth(1)?.trim_end_matches(" HTTP/1.1").to_owned())).collect()
}

/// A program of `tests/programs/field`; `None`, said aloud, where it was not built.
pub(crate) fn go_program(name: &str) -> Option<PathBuf> {
    let wapack = std::path::Path::new(env!("CARGO_BIN_EXE_wapack"));
    let places = wapack.ancestors().map(|directory| directory.join("tools").join(name));
    let found = places.into_iter().find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("`{name}` is not built; `cargo xtask setup` does it where there is Go"));
    }
    found
}

/// The registry of go-containerregistry, in memory. It knows referrers, wants the images
/// of an index to be there before it, and takes no manifest of a type that it does not know.
pub(crate) struct WithReferrers {
    process: Child,
    pub(crate) address: String,
    output: PathBuf,
}

impl WithReferrers {
    pub(crate) fn start(site: &Site) -> Option<Self> {
        let output = site.path().join("referrers.log");
        let mut process = Command::new(go_program("registry")?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&output).unwrap())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Some(Self { process, address: format!("127.0.0.1:{}", port.trim()), output })
    }

    /// What it answered so far: a line for each request, `METHOD path status …`.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.output).unwrap();
        // Date and time stand before.
        log.lines().filter_map(|line| Some(line.splitn(3, ' ').nth(2)?.to_owned())).collect()
    }
}

impl Drop for WithReferrers {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
