//! Container engines of a test's own: Docker's, podman's storage, containerd.

use std::path::PathBuf;
use std::process::Command;

use crate::room::{Room, Server, have, skip, wait_until};
use crate::site::{Ended, Site};

const CLASSIC: [&str; 1] = ["--storage-driver=vfs"];

/// A Docker daemon, with a network where it is in a room.
pub(crate) struct Docker {
    server: Server,
    pub(crate) socket: String,
}

impl Docker {
    /// Without a network. `None`, said aloud, where it does not start.
    pub(crate) fn start(site: &Site) -> Option<Self> {
        let flags = ["--iptables=false", "--ip6tables=false", "--bridge=none"];
        Self::start_as(site, Command::new("dockerd"), &[&flags[..], &CLASSIC].concat())
    }

    /// A newer one on containerd's store, in a room for the sake of its firewall. Where it was
    /// not built, this is said aloud, also in continuous integration: minutes of downloads
    /// from elsewhere shall not decide whether a change is good.
    pub(crate) fn start_with_containerd(room: &Room, site: &Site) -> Option<Self> {
        let wapack = std::path::Path::new(env!("CARGO_BIN_EXE_wapack"));
        let mut versions =
            wapack.ancestors().filter_map(|directory| directory.join("tools").read_dir().ok()).flatten();
        let program = versions
            .find_map(|version| Some(version.ok()?.path().join("dockerd")).filter(|path| path.is_file()));
        let Some(program) = program else {
            println!(
                "SKIPPED: no `dockerd` with containerd's store was built; `cargo xtask setup` does it where there is Go"
            );
            return None;
        };
        let flags = ["--feature", "containerd-snapshotter=true", "--storage-driver=native"];
        Self::start_as(site, room.command(site, program.to_str().unwrap(), &[]), &flags)
    }

    /// With the network of a room.
    pub(crate) fn start_in(room: &Room, site: &Site) -> Option<Self> {
        Self::start_as(site, room.command(site, "dockerd", &[]), &CLASSIC)
    }

    fn start_as(site: &Site, mut command: Command, flags: &[&str]) -> Option<Self> {
        if !have(&["dockerd", "docker"]) {
            return None;
        }
        let path = |name: &str| site.path().join(name).display().to_string();
        let socket = format!("unix://{}", path("docker.sock"));
        command.args(flags).args(["--data-root", &path("docker-data")]).args([
            "--exec-root",
            &path("docker-exec"),
            "--pidfile",
            &path("docker.pid"),
            "-H",
            &socket,
        ]);
        let log = site.path().join("docker.log");
        let mut docker = Self { server: Server::start(&mut command, &log), socket };
        let mut has_ended = false;
        wait_until("the daemon answers", || {
            has_ended = docker.server.has_ended();
            has_ended || docker.call(&["version"]).code == Some(0)
        });
        if has_ended {
            skip(&format!("`dockerd` does not start here: {}", docker.server.said()));
            return None;
        }
        Some(docker)
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Ended {
        Command::new("docker").args(["-H", &self.socket]).args(arguments).output().unwrap().into()
    }

    pub(crate) fn id(&self, name: &str) -> String {
        self.call(&["image", "inspect", "-f", "{{.Id}}", name]).with(0).out.trim().to_owned()
    }

    /// `wapack` with this engine.
    pub(crate) fn wapack(&self, site: &Site, arguments: &[&str]) -> Ended {
        site.command(arguments).env("DOCKER_HOST", &self.socket).output().unwrap().into()
    }

    /// What a file of an image says, read through a container that never starts.
    pub(crate) fn file(&self, site: &Site, image: &str, path: &str) -> String {
        let container = self.call(&["create", image, "x"]).with(0).out.trim().to_owned();
        let to = site.path().join(format!("copied-{container}")).display().to_string();
        self.call(&["cp", &format!("{container}:{path}"), &to]).with(0);
        self.call(&["rm", &container]).with(0);
        std::fs::read_to_string(to).unwrap()
    }
}

/// Podman with storage and configuration of the test's own: everything that this machine or
/// a container inside another needs is in files, so that command lines stay as they are.
pub(crate) struct Podman<'a> {
    pub(crate) room: &'a Room,
    site: &'a Site,
    variables: [(&'static str, PathBuf); 3],
}

impl<'a> Podman<'a> {
    /// What a room needs: a file system of control groups that is not a mixture of both versions.
    pub(crate) const SETUP: &'static str = "mount -t cgroup2 none /sys/fs/cgroup";

    pub(crate) fn new(room: &'a Room, site: &'a Site) -> Option<Self> {
        if !have(&["podman", "crun"]) {
            return None;
        }
        let root = site.path().display();
        // Limits may not be raised here, nor control groups made.
        let containers = site.file(
            "podman/containers.conf",
            "[containers]\ncgroups = \"disabled\"\npids_limit = 0\n\
             default_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
             [engine]\nruntime = \"crun\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
        );
        let storage = site.file(
            "podman/storage.conf",
            &format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{root}/podman/images\"\nrunroot = \"/run/podman\"\n"),
        );
        // By name, not by telling each command to be careless.
        let registries =
            site.file("podman/registries.conf", "[[registry]]\nlocation = \"127.0.0.1\"\ninsecure = true\n");
        let variables = [
            ("CONTAINERS_CONF", containers),
            ("CONTAINERS_STORAGE_CONF", storage),
            ("CONTAINERS_REGISTRIES_CONF", registries),
        ];
        Some(Self { room, site, variables })
    }

    /// Lets commands talk to this registry without TLS.
    pub(crate) fn trust(&self, registry: &str) {
        let text = format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n");
        self.site.file("podman/registries.conf", &text);
    }

    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.room.command(self.site, program, arguments);
        command.envs(self.variables.iter().map(|(name, path)| (name, path)));
        command
    }

    /// Speaks Docker's API at the address that is given.
    pub(crate) fn serve(&self) -> (Server, String) {
        let socket = self.site.path().join("podman.sock");
        let address = format!("unix://{}", socket.display());
        let mut command = self.command("podman", &["system", "service", "--time", "0", &address]);
        let mut server = Server::start(&mut command, &self.site.path().join("podman.log"));
        wait_until("podman listens", || {
            assert!(!server.has_ended(), "{}", server.said());
            socket.exists()
        });
        (server, address)
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Ended {
        self.command("podman", arguments).output().unwrap().into()
    }
}

/// A containerd that nobody else uses.
pub(crate) struct Containerd<'a> {
    server: Server,
    room: &'a Room,
    site: &'a Site,
    address: String,
}

impl<'a> Containerd<'a> {
    pub(crate) fn start(room: &'a Room, site: &'a Site) -> Option<Self> {
        if !have(&["containerd", "ctr", "runc"]) {
            return None;
        }
        let path = |name: &str| site.path().join("containerd").join(name).display().to_string();
        let address = path("socket");
        let configuration = format!(
            "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{address}\"\n[ttrpc]\naddress = \"{address}.ttrpc\"\n",
            path("root"),
            path("state"),
        );
        let configuration = site.file("containerd/config.toml", &configuration).display().to_string();
        let mut command = room.command(site, "containerd", &["--config", &configuration]);
        let server = Server::start(&mut command, &site.path().join("containerd/log"));
        let mut containerd = Self { server, room, site, address };
        wait_until("containerd answers", || {
            assert!(!containerd.server.has_ended(), "{}", containerd.server.said());
            containerd.ctr(&["version"]).code == Some(0)
        });
        Some(containerd)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.room.command(self.site, "ctr", arguments);
        command.env("CONTAINERD_ADDRESS", &self.address);
        command
    }

    pub(crate) fn ctr(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    pub(crate) fn start_ctr(&self, arguments: &[&str], log: &std::path::Path) -> Server {
        Server::start(&mut self.command(arguments), log)
    }
}
