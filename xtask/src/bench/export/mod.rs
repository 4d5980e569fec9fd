//! Large layers from directories into images, beside others that do the same.
//!
//! What is exported is of this machine: sources of crates, documentation and libraries of
//! the Rust toolchain, four layers of many small files and a few large ones. The peer is
//! `exporter` of the lifecycle in the directory that `WAPACK_BENCH_LIFECYCLE` names, with
//! the same files and an `analyzed.toml` of its own `analyzer`. Runs alternate.
//!
//! In parts, each of a few minutes: `gzip` and `zstd` into layouts; `push` into an empty registry on
//! loopback, beside programs that push the finished layers from a layout; `memory` with a single
//! layer of one gibibyte that cannot be compressed, to a registry and back.

mod seed;
pub(super) mod site;

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::seed::{LAYERS, write_layers};
use self::site::{Site, To, architecture};
use super::contest::{Contestant, Outcome, Results, compete, describe, measure};
use super::failed;
use super::lifecycle::{Lifecycle, PEER, write_run_image};
use super::registry::Registry;
use crate::Result;
use crate::command::{find_program, run as run_command, step, warn};

const PARTS: [&str; 4] = ["gzip", "zstd", "push", "memory"];
const RUNS: usize = 3;
const MEMORY_BYTES: usize = 1 << 30;

/// Times these parts; all without any.
pub(super) fn run(wapack: &Path, directory: &Path, parts: &[String]) -> Result<()> {
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return Err(format!("`{unknown}` is none of {PARTS:?}"));
    }
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let directory = directory.join("export");
    let results = Results::new("export")?;
    if PARTS[..3].iter().any(|part| is_wanted(part)) {
        let (ours, peer) = sites(wapack, &directory, &results)?;
        let peer = peer.as_ref();
        if is_wanted("gzip") {
            into_layouts(&results, &ours, peer, "gzip", &["gzip"])?;
        }
        if is_wanted("zstd") {
            into_layouts(&results, &ours, peer, "zstd", &["zstd:1", "zstd:3"])?;
        }
        if is_wanted("push") {
            push(&results, &ours, peer, &directory)?;
        }
    }
    if is_wanted("memory") {
        memory(&results, wapack, &directory)?;
    }
    fs::remove_dir_all(&directory).map_err(|error| failed("remove", &directory, &error))
}

/// Ours and the peer's, with the same four layers.
pub(super) fn sites(wapack: &Path, directory: &Path, results: &Results) -> Result<(Site, Option<Site>)> {
    let seed = directory.join("seed");
    step("copying what is exported");
    let layers = write_layers(&seed)?;
    let tars: u64 = layers.iter().map(|layer| layer.tar_bytes).sum();
    let files: usize = layers.iter().map(|layer| layer.files).sum();
    results.say(&format!("{} layers, {files} files, {:.2} GB as tar", layers.len(), tars as f64 / 1e9))?;
    let names: Vec<String> = (0..LAYERS).map(|layer| format!("layer-{layer}")).collect();
    let ours = Site::new(Lifecycle::ours(wapack)?, &seed, &names, &directory.join("wapack"))?;
    let peer = match peer()? {
        Some(peer) => Some(Site::new(peer, &seed, &names, &directory.join("reference"))?),
        None => None,
    };
    Ok((ours, peer))
}

/// The lifecycle to compare with, if one is named.
pub(super) fn peer() -> Result<Option<Lifecycle>> {
    let Some(place) = env::var_os(PEER) else {
        warn(&format!("`{PEER}` names no lifecycle, so there is nothing to compare with"));
        return Ok(None);
    };
    Lifecycle::peer(Path::new(&place)).map(Some)
}

fn into_layouts(
    results: &Results,
    ours: &Site,
    peer: Option<&Site>,
    what: &str,
    compressions: &[&str],
) -> Result<()> {
    let mut contestants: Vec<Contestant<'_>> = Vec::new();
    for compression in compressions {
        let run = Box::new(|| ours.export(To::Layout, Some(compression)));
        contestants.push(Contestant { name: format!("wapack's `exporter`, {compression}"), run });
    }
    if let Some(peer) = peer {
        let run = Box::new(|| peer.export(To::Layout, None));
        contestants.push(Contestant { name: "the reference's `exporter`, gzip".to_owned(), run });
    }
    compete(results, what, RUNS, &contestants)
}

/// Exporters make the layers and push them; the others push the layers that an exporter made.
fn push(results: &Results, ours: &Site, peer: Option<&Site>, directory: &Path) -> Result<()> {
    if find_program("docker-registry").is_none() {
        warn("`docker-registry` is missing, so nothing is pushed");
        return Ok(());
    }
    ours.export(To::Layout, None)?;
    let finished = directory.join("finished");
    run_command(Command::new("cp").arg("-r").arg(ours.layout()).arg(&finished))?;
    let run_image = directory.join("run-image");
    write_run_image(&run_image, architecture(), b"run")?;
    let served = directory.join("registry");
    let to_new = |push: &dyn Fn(&Registry) -> Result<Outcome>| {
        let registry = Registry::start(&served)?;
        copy_layout(&run_image, &registry.image("run:latest"))?;
        run_command(&mut Command::new("sync"))?;
        let mark = registry.mark();
        let mut outcome = push(&registry)?;
        outcome.remark = format!(", {:.0} MB pushed", registry.moved(mark).up as f64 / 1e6);
        Ok(outcome)
    };
    let exported = |site: &Site, registry: &Registry| {
        let (run, images) = (registry.image("run:latest"), [registry.image("bench/app:latest")]);
        site.export(To::Registry { run: &run, images: &images }, None)
    };
    let mut contestants = vec![Contestant {
        name: "wapack's `exporter`, gzip, from files".to_owned(),
        run: Box::new(|| to_new(&|registry| exported(ours, registry))),
    }];
    if let Some(peer) = peer {
        contestants.push(Contestant {
            name: "the reference's `exporter`, gzip, from files".to_owned(),
            run: Box::new(|| to_new(&|registry| exported(peer, registry))),
        });
    }
    for Pusher { name, prepare, push } in pushers(directory, &finished) {
        let Some(program) = find_program(name) else {
            results.say(&format!("push, `{name}` is missing"))?;
            continue;
        };
        if let Some(mut prepare) = prepare {
            run_command(&mut prepare)?;
        }
        let run = Box::new(move || {
            to_new(&|registry| {
                let mut command = Command::new(&program);
                measure(command.args(push(&registry.image("bench/app:latest"))))
            })
        });
        contestants.push(Contestant { name: format!("`{name}`, finished layers"), run });
    }
    compete(results, "push", RUNS, &contestants)
}

/// A program that pushes an image from a layout.
struct Pusher {
    name: &'static str,
    prepare: Option<Command>,
    /// Its arguments, with the name that the image gets.
    push: Arguments,
}

/// What a program is told to push to a name.
type Arguments = Box<dyn Fn(&str) -> Vec<String>>;

fn pushers(directory: &Path, layout: &Path) -> Vec<Pusher> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (layout, root) = (text(layout), text(&directory.join("buildah")));
    let storage = move || {
        let runroot = format!("{root}-run");
        ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"].map(str::to_owned).to_vec()
    };
    let mut pull = Command::new("buildah");
    pull.args(storage()).args(["pull", "--quiet", &format!("oci:{layout}")]);
    let pulled = format!("oci:{layout}");
    let skopeo = pulled.clone();
    vec![
        Pusher {
            name: "crane",
            prepare: None,
            push: Box::new(move |image| ["push", &layout, image].map(str::to_owned).to_vec()),
        },
        Pusher {
            name: "skopeo",
            prepare: None,
            push: Box::new(move |image| {
                [
                    "--insecure-policy",
                    "copy",
                    "--dest-tls-verify=false",
                    &skopeo,
                    &format!("docker://{image}"),
                ]
                .map(str::to_owned)
                .to_vec()
            }),
        },
        Pusher {
            name: "buildah",
            prepare: Some(pull),
            push: Box::new(move |image| {
                let name = format!("localhost{}:latest", pulled.trim_start_matches("oci:"));
                let push = ["push", "--quiet", "--tls-verify=false", &name, &format!("docker://{image}")];
                storage().into_iter().chain(push.map(str::to_owned)).collect()
            }),
        },
    ]
}

/// Puts the only image of a layout into a registry.
pub(super) fn copy_layout(layout: &Path, image: &str) -> Result<()> {
    let from = format!("oci:{}", layout.display());
    let copy = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
    run_command(Command::new("skopeo").args(copy).arg(from).arg(format!("docker://{image}")))
}

/// One layer of noise to a registry, and the image from there into a layout.
fn memory(results: &Results, wapack: &Path, directory: &Path) -> Result<()> {
    if find_program("docker-registry").is_none() {
        warn("`docker-registry` is missing, so nothing is moved");
        return Ok(());
    }
    let seed = directory.join("noise");
    write_noise(&seed.join("layer/noise"))?;
    let site =
        Site::new(Lifecycle::ours(wapack)?, &seed, &["layer".to_owned()], &directory.join("one-layer"))?;
    let registry = Registry::start(&directory.join("registry"))?;
    let run_image = directory.join("memory-run-image");
    write_run_image(&run_image, architecture(), b"run")?;
    let (run, image) = (registry.image("run:latest"), registry.image("bench/noise:latest"));
    copy_layout(&run_image, &run)?;
    let outcome = site.export(To::Registry { run: &run, images: std::slice::from_ref(&image) }, None)?;
    results.say(&format!("memory, one layer of 1 GiB to a registry: {}", describe(&outcome)))?;
    let output = format!("oci:{}", directory.join("fetched").display());
    let mark = registry.mark();
    let mut fetch = Command::new(wapack);
    fetch.args(["rebase", "--force", &image, "--run-image", &run, "--output", &output]);
    let mut outcome = measure(&mut fetch)?;
    outcome.remark = format!(", {:.0} MB fetched", registry.moved(mark).down as f64 / 1e6);
    results.say(&format!("memory, one layer of 1 GiB from a registry: {}", describe(&outcome)))
}

fn write_noise(file: &Path) -> Result<()> {
    let parent = file.parent().map(PathBuf::from).unwrap_or_default();
    fs::create_dir_all(&parent).map_err(|error| failed("make", &parent, &error))?;
    let mut state = 1_u64;
    let mut noise = || -> std::io::Result<()> {
        let mut out = std::io::BufWriter::new(fs::File::create(file)?);
        for _ in 0..MEMORY_BYTES / 8 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            out.write_all(&state.to_le_bytes())?;
        }
        out.flush()
    };
    noise().map_err(|error| failed("write", file, &error))
}
