//! Builds into a container engine: a Docker daemon of the test's own, without network.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::chain::example;
use super::fixture::{Ended, IMAGE, Lifecycle, Platform, RUN_IMAGE, USER, is_root};
use crate::image::tools::skip;

/// A daemon that ends with the test.
pub(super) struct Docker {
    process: Child,
    pub(super) socket: String,
}

impl Docker {
    /// `None`, said aloud, where none can be started.
    pub(super) fn start(platform: &Platform) -> Option<Self> {
        if !is_root() {
            skip("only root starts a Docker daemon");
            return None;
        }
        let path = |name| platform.path(name).display().to_string();
        let socket = format!("unix://{}", path("docker.sock"));
        let log = std::fs::File::create(platform.path("docker.log")).expect("a file");
        let started = Command::new("dockerd")
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"])
            .args(["--data-root", &path("docker-data"), "--exec-root", &path("docker-exec")])
            .args(["--pidfile", &path("docker.pid"), "-H", &socket])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let Ok(process) = started else {
            skip("there is no `dockerd`; `cargo xtask setup` installs it");
            return None;
        };
        let mut docker = Self { process, socket };
        let started = Instant::now();
        while docker.run(&["version"]).is_none() {
            let ended = docker.process.try_wait().expect("a child").is_some();
            if ended || started.elapsed() > Duration::from_mins(1) {
                let log = std::fs::read_to_string(platform.path("docker.log")).unwrap_or_default();
                skip(&format!("`dockerd` does not start here: {log}"));
                return None;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(docker)
    }

    /// What `docker` prints, if it succeeds.
    pub(super) fn run(&self, arguments: &[&str]) -> Option<String> {
        let ended = self.call(arguments);
        (ended.code == 0).then(|| ended.stdout.trim().to_owned())
    }

    /// How `docker` ends, and what it says.
    pub(super) fn call(&self, arguments: &[&str]) -> Ended {
        let output = Command::new("docker").args(["-H", &self.socket]).args(arguments).output();
        Ended::from(output.expect("`docker` is there, as `dockerd` is"))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

/// Root opens the engine's socket, becomes the user, and goes on with it (CLI-11);
/// images have ids (RPT-01); a second build leaves the layers that are there (RST).
#[test]
fn cli_11_rpt_01_a_build_into_a_docker_daemon() {
    let mut platform = example(Lifecycle::ours(), "0.12");
    let Some(docker) = Docker::start(&platform) else { return };
    let base = platform.path("base.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&base).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    tar.append_data(&mut header, "etc/base", &b"base\n"[..]).unwrap();
    tar.finish().unwrap();
    docker.run(&["import", &base.display().to_string(), RUN_IMAGE]).expect("a run image");
    for name in ["CNB_USE_LAYOUT", "CNB_LAYOUT_DIR"] {
        platform.variables.remove(name);
    }
    let socket = docker.socket.clone();
    platform.set("DOCKER_HOST", &socket);
    platform.set("CNB_USE_DAEMON", "true");
    let launcher = platform.launcher();
    let mut export: Vec<&str> = launcher.iter().map(String::as_str).collect();
    export.extend([IMAGE, "registry.example/app:other"]);
    let build = || {
        for name in ["app", "layers", "cache"] {
            std::os::unix::fs::chown(platform.path(name), Some(USER), Some(USER)).unwrap();
        }
        platform.run_as_we_are("analyzer", &[IMAGE]).succeeded();
        platform.run("detector", &[]).succeeded();
        platform.run_as_we_are("restorer", &[]).succeeded();
        platform.run("builder", &[]).succeeded();
        platform.run_as_we_are("exporter", &export).succeeded()
    };
    build();
    let inspect = |format: &str| docker.run(&["image", "inspect", "-f", format, IMAGE]).expect("the image");
    let id = inspect("{{.Id}}");
    let bare = id.strip_prefix("sha256:");
    assert_eq!(platform.toml("layers/report.toml")["image"]["image-id"].as_str(), bare);
    assert_eq!(
        docker.run(&["image", "inspect", "-f", "{{.Id}}", "registry.example/app:other"]),
        Some(id.clone())
    );
    assert_eq!(inspect("{{index .Config.Labels \"acme.label\"}}"), "labelled");
    assert_eq!(inspect("{{json .Config.Entrypoint}}"), "[\"/cnb/process/web\"]");

    std::fs::remove_dir_all(platform.path("layers")).unwrap();
    std::fs::create_dir(platform.path("layers")).unwrap();
    let ended = build();
    assert!(ended.stdout.contains("Reusing layer 'acme/one:app'"), "{}", ended.said());
    assert_eq!(inspect("{{.Id}}"), id);
}
