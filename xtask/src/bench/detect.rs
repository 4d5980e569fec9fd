//! Detecting with a group of many different components.
//!
//! The whole process: starting it and its worker, reading, checking and loading the
//! compiled code, every call, the end. Beside it, where [`PEER`] names a directory
//! with a lifecycle for images of buildpacks, its detector with as many classic
//! buildpacks of one line.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{failed, median};
use crate::Result;
use crate::command::{capture, find_program, step, warn};
use crate::workspace;

/// Members of the group.
const BUILDPACKS: u32 = 20;
/// Counted runs of each command.
const RUNS: usize = 41;
/// Names the directory of a peer: one that holds `detector`, or `lifecycle`.
const PEER: &str = "WAPACK_BENCH_LIFECYCLE";
/// A detector refuses to be root.
const USER: &str = "65534";

/// Times `wapack detect`, and the peer's detector if there is one, in turns.
pub(super) fn run(wapack: &Path, directory: &Path) -> Result<()> {
    let directory = directory.join("detect");
    let app = directory.join("app");
    write(&app.join("index.html"), b"hello\n")?;
    let mut ours = wapack_detect(wapack, &directory, &app)?;
    // The first run compiles.
    step(&format!("compiling {BUILDPACKS} components"));
    time(&mut ours)?;
    let mut peer = None;
    if let Some(place) = std::env::var_os(PEER) {
        peer = Some(peer_detect(Path::new(&place), &directory, &app)?);
    } else {
        warn(&format!("`{PEER}` names no lifecycle, so there is nothing to compare with"));
    }
    let (mut own_times, mut peer_times) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        own_times.push(time(&mut ours)?);
        if let Some(peer) = &mut peer {
            peer_times.push(time(peer)?);
        }
    }
    print!("detect, {BUILDPACKS} components: {}", shown(own_times));
    if peer.is_some() {
        print!("; detector, {BUILDPACKS} bash buildpacks: {}", shown(peer_times));
    }
    println!();
    Ok(())
}

/// Median, fastest and slowest.
fn shown(mut times: Vec<Duration>) -> String {
    times.sort();
    let milliseconds = |time: Option<&Duration>| time.copied().unwrap_or_default().as_secs_f64() * 1e3;
    format!(
        "{:.1} ms ({:.1}–{:.1} ms of {})",
        milliseconds(Some(&median(times.clone()))),
        milliseconds(times.first()),
        milliseconds(times.last()),
        times.len()
    )
}

/// From start to end, without looking in between.
fn time(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("cannot start `{}`: {error}", command.get_program().display()))?;
    let time = started.elapsed();
    if status.success() {
        Ok(time)
    } else {
        Err(format!("`{}` failed ({status})", command.get_program().display()))
    }
}

/// A builder of one group: one component, made different by a section that nobody reads.
fn wapack_detect(wapack: &Path, directory: &Path, app: &Path) -> Result<Command> {
    let guest = workspace::target().join("wasm32-wasip2/guest/examples/env_reader.wasm");
    let component = fs::read(&guest).map_err(|error| failed("read", &guest, &error))?;
    let builder = directory.join("builder");
    for number in 0..BUILDPACKS {
        let place = builder.join(format!("buildpacks/bench_{number}/1.0.0"));
        write(&place.join("buildpack.toml"), descriptor(number).as_bytes())?;
        let section = format!("\u{6}number{number:08}");
        let length = u8::try_from(section.len()).map_err(|error| error.to_string())?;
        let bytes = [&component[..], &[0, length], section.as_bytes()].concat();
        write(&place.join("buildpack.wasm"), &bytes)?;
    }
    write(&builder.join("order.toml"), order().as_bytes())?;
    let mut command = Command::new(wapack);
    command.arg("detect").arg("--builder").arg(builder).arg("--path").arg(app);
    command.arg("--cache-dir").arg(directory.join("store"));
    Ok(command)
}

/// The same group of scripts, for a detector.
fn peer_detect(place: &Path, directory: &Path, app: &Path) -> Result<Command> {
    let peer = directory.join("peer");
    for number in 0..BUILDPACKS {
        let place = peer.join(format!("buildpacks/bench_{number}/1.0.0"));
        write(&place.join("buildpack.toml"), descriptor(number).as_bytes())?;
        for program in ["bin/detect", "bin/build"] {
            let program = place.join(program);
            write(&program, b"#!/usr/bin/env bash\nexit 0\n")?;
            set_mode(&program, 0o755)?;
        }
    }
    write(&peer.join("order.toml"), order().as_bytes())?;
    let layers = peer.join("layers");
    fs::create_dir_all(&layers).map_err(|error| failed("make", &layers, &error))?;
    set_mode(&layers, 0o777)?;
    let program = ["detector", "lifecycle"]
        .map(|name| place.join(name))
        .into_iter()
        .find(|program| program.is_file())
        .ok_or_else(|| format!("`{}` holds neither `detector` nor `lifecycle`", place.display()))?;
    let mut command = if capture(Command::new("id").arg("-u"))?.trim() == "0" {
        let setpriv = find_program("setpriv").ok_or("a detector refuses to be root: `setpriv` is needed")?;
        let link = peer.join("detector");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&program, &link).map_err(|error| failed("link", &link, &error))?;
        let mut command = Command::new(setpriv);
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(link);
        command
    } else {
        let mut command = Command::new(program);
        command.arg0("detector");
        command
    };
    command.env("CNB_PLATFORM_API", "0.15").arg("-app").arg(app);
    for (flag, value) in [
        ("-buildpacks", "buildpacks"),
        ("-order", "order.toml"),
        ("-layers", "layers"),
        ("-platform", "platform"),
    ] {
        command.arg(flag).arg(peer.join(value));
    }
    Ok(command)
}

fn descriptor(number: u32) -> String {
    format!("api = \"0.10\"\n[buildpack]\nid = \"bench/{number}\"\nversion = \"1.0.0\"\n")
}

fn order() -> String {
    let mut order = "[[order]]\n".to_owned();
    for number in 0..BUILDPACKS {
        let _ = write!(order, "\n[[order.group]]\nid = \"bench/{number}\"\nversion = \"1.0.0\"\n");
    }
    order
}

fn write(file: &Path, contents: &[u8]) -> Result<()> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
    }
    fs::write(file, contents).map_err(|error| failed("write", file, &error))
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|error| failed("change", path, &error))
}
