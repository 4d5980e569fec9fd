//! An image of one gigabyte in a registry on loopback onto another run image, beside others.
//!
//! Each has an image of its own there, with the same layers, and takes it from one run image to the other
//! and back. What was moved is what the registry's log of requests says.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::contest::{Contestant, Outcome, Results, compete, measure};
use super::export::site::{To, architecture};
use super::export::{copy_layout, peer, sites};
use super::failed;
use super::lifecycle::write_run_image;
use super::registry::Registry;
use crate::Result;
use crate::command::{find_program, run as run_command, warn};

const RUNS: usize = 11;
/// Of the layer of each run image: as large as a small distribution.
const RUN_IMAGE_BYTES: usize = 30 << 20;
const NAMES: [&str; 3] = ["wapack", "reference", "crane"];

/// Times rebases in turns.
pub(super) fn run(wapack: &Path, directory: &Path) -> Result<()> {
    if find_program("docker-registry").is_none() {
        warn("`docker-registry` is missing, so nothing is rebased");
        return Ok(());
    }
    let directory = directory.join("rebase");
    let results = Results::new("rebase")?;
    let registry = Registry::start(&directory.join("registry"))?;
    let runs = [registry.image("run:one"), registry.image("run:two")];
    for (number, run) in (1..).zip(&runs) {
        let layout = directory.join(format!("run-{number}"));
        write_run_image(&layout, architecture(), &noise(number))?;
        copy_layout(&layout, run)?;
    }
    let images = NAMES.map(|name| registry.image(&format!("bench/{name}:latest")));
    let (site, _) = sites(wapack, &directory, &results)?;
    site.export(To::Registry { run: &runs[0], images: &images }, None)?;

    let mut contestants = vec![rebaser(&registry, &runs, "`wapack rebase`", move |_, to| {
        let mut command = Command::new(wapack);
        command.args(["rebase", "--quiet", "--force", &images_of("wapack", to), "--run-image", to]);
        command
    })];
    if let Some(peer) = peer()? {
        let program = directory.join("rebaser");
        symlink(&peer.program, &program).map_err(|error| failed("link", &program, &error))?;
        contestants.push(rebaser(&registry, &runs, "the reference's `rebaser`", move |_, to| {
            let mut command = Command::new(&program);
            command.env("CNB_PLATFORM_API", "0.14").args([
                "-uid",
                "0",
                "-gid",
                "0",
                "-force",
                "-run-image",
                to,
            ]);
            command.arg(images_of("reference", to));
            command
        }));
    }
    match find_program("crane") {
        Some(crane) => contestants.push(rebaser(&registry, &runs, "`crane rebase`", move |from, to| {
            let image = images_of("crane", to);
            let mut command = Command::new(&crane);
            command.args(["rebase", "--old_base", from, "--new_base", to, "--tag", &image, &image]);
            command
        })),
        None => results.say("rebase, `crane` is missing")?,
    }
    compete(&results, "rebase", RUNS, &contestants)?;
    drop(contestants);
    drop(registry);
    run_command(Command::new("rm").arg("-rf").arg(&directory))
}

/// The image of a contestant, in the registry of a run image.
fn images_of(name: &str, run: &str) -> String {
    let registry = run.split('/').next().unwrap_or("");
    format!("{registry}/bench/{name}:latest")
}

/// One who rebases from one run image to the other in turn.
fn rebaser<'a>(
    registry: &'a Registry,
    runs: &'a [String; 2],
    name: &str,
    command: impl Fn(&str, &str) -> Command + 'a,
) -> Contestant<'a> {
    let number = AtomicUsize::new(0);
    let run = move || -> Result<Outcome> {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let (from, to) = (&runs[number % 2], &runs[(number + 1) % 2]);
        let mark = registry.mark();
        let mut outcome = measure(&mut command(from, to))?;
        let moved = registry.moved(mark);
        // Configurations of images are a few kilobytes; layers would be millions.
        outcome.remark = format!(", {} bytes of blobs up, {} down", moved.up, moved.down);
        Ok(outcome)
    };
    Contestant { name: name.to_owned(), run: Box::new(run) }
}

fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut noise = Vec::with_capacity(RUN_IMAGE_BYTES);
    while noise.len() < RUN_IMAGE_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_le_bytes());
    }
    noise
}
