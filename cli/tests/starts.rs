//! Every kind of output becomes a running container, by the very lines that a build prints.

use std::process::Command;

use crate::engines::{Docker, Podman};
use crate::registries::Registry;
use crate::room::{Room, Server, wait_until};
use crate::site::{SAMPLE, Site};

/// What the last lines of a build say after these words.
fn lines<'a>(said: &'a str, words: &'a [&str]) -> Vec<&'a str> {
    let of = |line: &'a str| {
        let (word, rest) = line.strip_prefix("  ")?.split_once(' ')?;
        words.contains(&word).then(|| rest.trim_start())
    };
    let last = said.rsplit_once("Successfully built image").unwrap().1;
    last.lines().filter_map(of).collect()
}

/// Does what the build says, and looks at the page meanwhile. `shell` runs a line, `stop` all containers.
fn follow(room: &Room, site: &Site, said: &str, shell: impl Fn(&str) -> Command, stop: impl Fn()) {
    for line in lines(said, &["look", "load"]) {
        let output = shell(line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let run = lines(said, &["run"]);
    let [line] = run[..] else { panic!("{run:?}: {said}") };
    assert!(line.contains(" --rm -p 8080:8080 "), "{line}");
    let log = site.path().join("container.log");
    let mut container = Server::start(&mut shell(&format!("exec {line}")), &log);
    let page = room.page(site, "http://127.0.0.1:8080/", &mut container);
    let expected = std::fs::read_to_string(std::path::Path::new(SAMPLE).join("index.html")).unwrap();
    assert_eq!(page, expected, "{line}: {}", container.said());
    stop();
    wait_until(&format!("`{line}` ends with its container"), || container.has_ended());
}

#[test]
fn layouts_and_archives_start_with_podman() {
    let site = Site::new();
    let Some(room) = Room::open(Podman::SETUP) else { return };
    let Some(podman) = Podman::new(&room, &site) else { return };
    let absolute = format!("oci:{}", site.path().join("image").display());
    let two = ["--target", "linux/amd64,linux/arm64"];
    for (output, more) in [
        ("oci:layout", &[][..]),
        // Podman makes no name of some of these.
        ("oci:My Image & more", &["--launcher", "always"]),
        ("oci:./relative", &[]),
        (&absolute, &[]),
        ("oci:several", &two),
        ("oci-archive:image.tar", &[]),
        ("oci-archive:it's several.tar", &two),
    ] {
        let common = ["build", "--path", SAMPLE, "--output", output];
        let said = room.wapack(&site, &[&common[..], more, &["demo/site:1"]].concat()).with(0).out;
        follow(
            &room,
            &site,
            &said,
            |line| podman.command("sh", &["-c", line]),
            || drop(podman.call(&["stop", "--all", "--time", "5"]).with(0)),
        );
    }
}

/// By way of an archive, straight into the engine, and from a registry.
#[test]
fn archives_engines_and_registries_start_with_docker() {
    let site = Site::new();
    let Some(room) = Room::open("") else { return };
    let Some(docker) = Docker::start_in(&room, &site) else { return };
    let Some(registry) = Registry::start_in(&room, &site) else { return };
    let published = format!("{}/demo/site:1", registry.address);
    for (output, name) in [
        ("docker-archive:image.tar", "demo/archived:1"),
        ("docker-archive:it's an image.tar", "demo/archived"),
        ("docker", "demo/site:1"),
        ("docker", "registry.example/demo/site"),
        ("registry", &published),
    ] {
        let wapack = env!("CARGO_BIN_EXE_wapack");
        let arguments = ["build", "--path", SAMPLE, "--output", output, name];
        let mut command = room.command(&site, wapack, &arguments);
        let built = command.env("DOCKER_HOST", &docker.socket).output().unwrap();
        let said = crate::site::Ended::from(built).with(0).out;
        follow(
            &room,
            &site,
            &said,
            |line| {
                let mut command = room.command(&site, "sh", &["-c", line]);
                command.env("DOCKER_HOST", &docker.socket);
                command
            },
            || {
                let running = docker.call(&["ps", "--quiet"]).with(0).out;
                docker.call(&["stop", "--time", "5", running.trim()]).with(0);
            },
        );
    }
}
