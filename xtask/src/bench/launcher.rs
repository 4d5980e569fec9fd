//! The start of a process in an image, beside another launcher.
//!
//! Both start `true` in the same image; `true` alone is timed too, so that what a
//! launcher adds can be told from what starting any process costs. The peer is the
//! `launcher` in the directory that `WAPACK_BENCH_LIFECYCLE` names.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{failed, median};
use crate::Result;
use crate::command::{step, warn};
use crate::setup::ARCHITECTURES;
use crate::workspace;

/// Counted starts of each.
const RUNS: usize = 1_000;
/// Starts of each before.
const WARM_UP: usize = 50;
/// Names the directory of the peer.
const PEER_VARIABLE: &str = "WAPACK_BENCH_LIFECYCLE";
/// Buildpacks of an image, and layers of each: of a small app and of a large one.
const SIZES: [(usize, usize); 2] = [(1, 2), (6, 3)];

/// Times our launcher and, if it is named, a peer.
pub(super) fn run() -> Result<()> {
    let native = ARCHITECTURES.iter().find(|architecture| architecture.is_native());
    let native = native.ok_or("there is no launcher for this machine")?;
    let ours = workspace::target().join("embed/launcher").join(format!("linux-{}", native.oci));
    let peer = env::var_os(PEER_VARIABLE).map(|directory| Path::new(&directory).join("launcher"));
    if peer.is_none() {
        warn(&format!("`{PEER_VARIABLE}` names no lifecycle, so there is nothing to compare with"));
    }
    step("starting a process in an image");
    for (buildpacks, layers) in SIZES {
        compare(&ours, peer.as_deref(), buildpacks, layers)?;
    }
    Ok(())
}

/// Both launchers in one image, in turns.
fn compare(ours: &Path, peer: Option<&Path>, buildpacks: usize, layers: usize) -> Result<()> {
    let image = image(buildpacks, layers)?;
    let mut commands = vec![alone(), launch(ours, &image)];
    commands.extend(peer.map(|peer| launch(peer, &image)));
    let mut times = vec![Vec::with_capacity(RUNS); commands.len()];
    for run in 0..WARM_UP + RUNS {
        for (command, times) in commands.iter_mut().zip(&mut times) {
            let time = measure(command)?;
            if run >= WARM_UP {
                times.push(time);
            }
        }
    }
    let medians: Vec<f64> = times.into_iter().map(|times| median(times).as_secs_f64() * 1e3).collect();
    let size = fs::metadata(ours).map_err(|error| failed("read", ours, &error))?.len();
    let added = |time: f64| time - medians[0];
    println!("{} layers; `true` alone: {:.2} ms (median of {RUNS})", buildpacks * layers, medians[0]);
    println!(
        "  launcher of {size} bytes: {:.2} ms, of which its own {:.2} ms",
        medians[1],
        added(medians[1])
    );
    if let Some(peer) = medians.get(2) {
        println!(
            "  peer: {peer:.2} ms, of which its own {:.2} ms; ratio {:.3}, of their own times {:.3}",
            added(*peer),
            medians[1] / peer,
            added(medians[1]) / added(*peer)
        );
    }
    Ok(())
}

/// The directories of an image whose layers all change the environment.
fn image(buildpacks: usize, layers: usize) -> Result<PathBuf> {
    let image = workspace::target().join("bench-launcher");
    if image.exists() {
        fs::remove_dir_all(&image).map_err(|error| failed("remove", &image, &error))?;
    }
    let write = |name: &str, text: &str| {
        let path = image.join(name);
        let parent = path.parent().unwrap_or(&image);
        fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
        fs::write(&path, text).map_err(|error| failed("write", &path, &error))
    };
    let mut metadata = String::new();
    for buildpack in 0..buildpacks {
        let id = format!("bench/{buildpack}");
        metadata.extend(["[[buildpacks]]\nid = \"", &id, "\"\nversion = \"1.0.0\"\napi = \"0.10\"\n"]);
        for layer in 0..layers {
            let layer = format!("layers/bench_{buildpack}/{layer}");
            write(&format!("{layer}/bin/program"), "")?;
            write(&format!("{layer}/env/LIST.append"), "word")?;
            write(&format!("{layer}/env/LIST.delim"), ",")?;
            write(&format!("{layer}/env.launch/VALUE.default"), "value")?;
        }
    }
    metadata +=
        "[[processes]]\ntype = \"web\"\ncommand = [\"true\"]\ndirect = true\nbuildpack-id = \"bench/0\"\n";
    write("layers/config/metadata.toml", &metadata)?;
    write("workspace/app", "")?;
    Ok(image)
}

fn alone() -> Command {
    let mut command = Command::new("/bin/true");
    command.env_clear().stdin(Stdio::null());
    command
}

fn launch(launcher: &Path, image: &Path) -> Command {
    let mut command = Command::new(launcher);
    command
        .arg0("/cnb/process/web")
        .env_clear()
        .env("PATH", "/cnb/process:/cnb/lifecycle:/usr/bin:/bin")
        .env("CNB_PLATFORM_API", "0.15")
        .env("CNB_DEPRECATION_MODE", "quiet")
        .env("CNB_LAYERS_DIR", image.join("layers"))
        .env("CNB_APP_DIR", image.join("workspace"))
        .stdin(Stdio::null());
    command
}

/// From before the start to the end of the process.
fn measure(command: &mut Command) -> Result<Duration> {
    let started = Instant::now();
    let status = command
        .status()
        .map_err(|error| format!("cannot start `{}`: {error}", command.get_program().display()))?;
    let time = started.elapsed();
    if status.success() {
        Ok(time)
    } else {
        Err(format!("`{}` failed ({status})", command.get_program().display()))
    }
}
