//! The sample website, from source to a running container.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::command::{cargo, find_program, run as run_command, step, warn};
use crate::{embed, setup, workspace};

const IMAGE: &str = "demo/website";
const CONTAINER: &str = "wapack-demo";

/// Builds it, shows how to run it, and runs it where that is possible.
pub(crate) fn run() -> Result<()> {
    setup::for_containers()?;
    embed::run()?;
    step("building wapack (the first time takes minutes)");
    run_command(&mut cargo(&["build", "--quiet", "--release", "--package", "wapack"]))?;
    let wapack = workspace::target().join("release/wapack");
    let demo = workspace::target().join("demo");
    let layout = demo.join("image");
    fs::create_dir_all(&demo).map_err(|error| format!("cannot make `{}`: {error}", demo.display()))?;

    let sample = workspace::root().join("samples/website");
    println!(
        "\n$ wapack build --verbose --path samples/website --run-image scratch --output oci:{} {IMAGE}",
        layout.display()
    );
    run_command(
        Command::new(&wapack)
            .args(["build", "--path"])
            .arg(&sample)
            .args(["--verbose", "--run-image", "scratch", "--output"])
            .arg(format!("oci:{}", layout.display()))
            .arg(IMAGE),
    )?;
    println!(
        "\nTo run it yourself:\n  skopeo copy oci:{0}:{IMAGE}:latest docker-daemon:{IMAGE}:latest && docker run --rm -p 8080:8080 {IMAGE}\n  \
         podman run --rm -p 8080:8080 oci:{0}:{IMAGE}:latest\n",
        layout.display()
    );

    let runtimes: Vec<PathBuf> = ["crun", "runc"].into_iter().filter_map(find_program).collect();
    if runtimes.is_empty() {
        warn("neither crun nor runc is installed, so the image is not started");
        return Ok(());
    }
    if find_program("umoci").is_none() {
        warn("umoci is not installed, so the image is not unpacked and not started");
        return Ok(());
    }
    let port = free_port()?;
    let bundle = unpack(&demo, &layout, port)?;
    show(&start(&runtimes, &demo, &bundle, port)?);
    Ok(())
}

/// Makes the layout into a bundle that an OCI runtime can start.
fn unpack(demo: &Path, layout: &Path, port: u16) -> Result<PathBuf> {
    let bundle = demo.join("bundle");
    if bundle.exists() {
        fs::remove_dir_all(&bundle)
            .map_err(|error| format!("cannot remove `{}`: {error}", bundle.display()))?;
    }
    let mut command = Command::new("umoci");
    command.args(["unpack", "--image"]).arg(format!("{}:{}", layout.display(), tag(layout)?));
    if !is_root() {
        command.arg("--rootless");
    }
    run_command(command.arg(&bundle))?;

    let file = bundle.join("config.json");
    let text =
        fs::read_to_string(&file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
    let mut config: Value =
        serde_json::from_str(&text).map_err(|error| format!("`{}`: {error}", file.display()))?;
    adapt(&mut config, port);
    fs::write(&file, config.to_string())
        .map_err(|error| format!("cannot write `{}`: {error}", file.display()))?;
    Ok(bundle)
}

/// The name under which the layout holds the image.
fn tag(layout: &Path) -> Result<String> {
    let file = layout.join("index.json");
    let text =
        fs::read_to_string(&file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
    let index: Value =
        serde_json::from_str(&text).map_err(|error| format!("`{}`: {error}", file.display()))?;
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("the image in `{}` has no name", file.display()))
}

/// No terminal, the host's network, and a port that is free.
fn adapt(config: &mut Value, port: u16) {
    config["process"]["terminal"] = json!(false);
    if let Some(variables) = config["process"]["env"].as_array_mut() {
        variables.push(json!(format!("PORT={port}")));
    }
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
    }
}

/// Tries each way to start the container until one serves the page.
fn start(runtimes: &[PathBuf], demo: &Path, bundle: &Path, port: u16) -> Result<String> {
    let mut reasons = String::new();
    for runtime in runtimes {
        for own_cgroups in [false, true] {
            let container = Container { runtime, state: demo.join("state"), own_cgroups };
            match container.serve(bundle, port) {
                Ok(page) => return Ok(page),
                Err(reason) => {
                    reasons.push_str("\n  ");
                    reasons.push_str(reason.trim());
                }
            }
        }
    }
    Err(format!("the image was built, but no container runtime could start it here:{reasons}"))
}

struct Container<'a> {
    runtime: &'a Path,
    state: PathBuf,
    /// Start it where it sees no control groups: crun refuses machines that mix both versions of them.
    own_cgroups: bool,
}

impl Container<'_> {
    /// Starts it, fetches the page, and stops it.
    fn serve(&self, bundle: &Path, port: u16) -> Result<String> {
        let mut command = self.command();
        command.args(["run", "--bundle"]).arg(bundle).arg(CONTAINER);
        let name = self.runtime.file_name().unwrap_or_default().display();
        step(&format!(
            "starting the image with {name}{}",
            if self.own_cgroups { ", without control groups" } else { "" }
        ));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let page = wait_for_page(&mut child, port).map_err(|reason| format!("{name}: {reason}"));
        // Whether it runs or half started: nothing of it may stay.
        let _ = self.command().args(["delete", "--force", CONTAINER]).stderr(Stdio::null()).status();
        let _ = child.kill();
        let _ = child.wait();
        page
    }

    fn command(&self) -> Command {
        let mut command;
        if self.own_cgroups {
            command = Command::new("unshare");
            command.args(if is_root() {
                &["--mount"][..]
            } else {
                &["--user", "--map-root-user", "--mount"]
            });
            command
                .args(["sh", "-c", "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"", "sh"])
                .arg(self.runtime);
        } else {
            command = Command::new(self.runtime);
        }
        command.arg("--root").arg(&self.state);
        if self.runtime.ends_with("crun") && self.own_cgroups {
            command.args(["--cgroup-manager", "disabled"]);
        }
        command
    }
}

/// Asks until the server answers; gives up when the container ends or after ten seconds.
fn wait_for_page(child: &mut Child, port: u16) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(page) = get(port) {
            return Ok(page);
        }
        if let Ok(Some(status)) = child.try_wait() {
            let mut said = String::new();
            if let Some(mut errors) = child.stderr.take() {
                let _ = errors.read_to_string(&mut said);
            }
            return Err(format!("{} ({status})", said.trim()));
        }
        if Instant::now() > deadline {
            return Err("it runs, but nothing answered within ten seconds".into());
        }
        sleep(Duration::from_millis(20));
    }
}

/// One page by HTTP, headers and all.
fn get(port: u16) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn show(page: &str) {
    println!("\nThe container answers:");
    for line in page.lines().take(24) {
        println!("  {line}");
    }
}

fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| format!("there is no free port: {error}"))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
