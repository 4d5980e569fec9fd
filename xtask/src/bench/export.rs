//! Large layers from directories into an image layout, beside others that do the same.
//!
//! What is exported is of this machine: sources of crates, documentation and libraries of
//! the Rust toolchain, four layers of many small files and a few large ones. The peers are
//! `exporter` of the lifecycle in the directory that `WAPACK_BENCH_LIFECYCLE` names, with
//! the same directories and an `analyzed.toml` of its own `analyzer`; and, if it is installed,
//! `umoci insert`, a call for each directory. `wapack build`
//! exports all four directories as one layer, with gzip and with zstd, with an
//! empty store each time. Runs alternate.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::lifecycle::{Lifecycle, PEER, write_run_image};
use super::{failed, median};
use crate::Result;
use crate::command::{capture, find_program, run as run_command, step, warn};

const RUNS: usize = 5;
/// At most, of each layer.
const LAYER_BYTES: u64 = 330 << 20;
const LAYER_FILES: usize = 20_000;
/// How often memory is looked at: the kernel remembers the peak.
const SAMPLE: Duration = Duration::from_millis(10);

/// Times one export of each in turns.
pub(super) fn run(wapack: &Path, directory: &Path) -> Result<()> {
    let directory = directory.join("export");
    let seed = directory.join("seed");
    step("copying what is exported");
    let layers = write_layers(&seed)?;
    let tars: u64 = layers.iter().map(|layer| layer.tar_bytes).sum();
    let files: usize = layers.iter().map(|layer| layer.files).sum();
    println!("{} layers, {files} files, {:.2} GB as tar", layers.len(), tars as f64 / 1e9);

    let mut contestants = vec![Contestant::exporter(Lifecycle::ours(wapack)?, &seed, &directory)?];
    match env::var_os(PEER) {
        Some(place) => {
            let peer = Lifecycle::peer(Path::new(&place))?;
            contestants.push(Contestant::exporter(peer, &seed, &directory)?);
        }
        None => warn(&format!("`{PEER}` names no lifecycle, so there is nothing to compare with")),
    }
    contestants.push(Contestant::build(wapack, "gzip", &seed, &directory));
    contestants.push(Contestant::build(wapack, "zstd", &seed, &directory));
    contestants.push(Contestant::build(wapack, "zstd:1", &seed, &directory));
    if find_program("umoci").is_some() {
        contestants.push(Contestant::umoci(&seed, &directory)?);
    }

    let mut runs = vec![Vec::new(); contestants.len()];
    for number in 0..=RUNS {
        for (contestant, runs) in contestants.iter().zip(&mut runs) {
            let run = contestant.time()?;
            // The first one fills what the operating system keeps in memory.
            if number > 0 {
                runs.push(run);
            }
        }
    }
    let reference = contestants.iter().position(|contestant| contestant.name.starts_with("the reference"));
    let reference = reference.map(|index| median(runs[index].iter().map(|run| run.time).collect()));
    for (contestant, runs) in contestants.iter().zip(&runs) {
        let time = median(runs.iter().map(|run| run.time).collect());
        let bytes = runs.last().map_or(0, |run| run.bytes);
        let peak = runs.iter().map(|run| run.peak_bytes).max().unwrap_or(0);
        print!(
            "{}: {:.2} s ({:.2}–{:.2} s of {}), {:.0} MB/s, {:.0} MB, ratio {:.3}, {} MiB",
            contestant.name,
            time.as_secs_f64(),
            runs.iter().map(|run| run.time).min().unwrap_or_default().as_secs_f64(),
            runs.iter().map(|run| run.time).max().unwrap_or_default().as_secs_f64(),
            runs.len(),
            tars as f64 / 1e6 / time.as_secs_f64(),
            bytes as f64 / 1e6,
            bytes as f64 / tars as f64,
            peak >> 20
        );
        match reference {
            Some(reference) => {
                println!("; {:.1} times the reference's speed", reference.as_secs_f64() / time.as_secs_f64());
            }
            None => println!(),
        }
    }
    fs::remove_dir_all(&directory).map_err(|error| failed("remove", &directory, &error))
}

/// What one run took and left.
#[derive(Debug, Clone, Copy)]
struct Run {
    time: Duration,
    /// Of the largest process.
    peak_bytes: u64,
    /// Of the layout.
    bytes: u64,
}

struct Contestant {
    name: String,
    /// Not timed: makes everything as it was before the first run.
    before: Vec<Vec<String>>,
    /// Timed, one after the other.
    commands: Vec<Vec<String>>,
    environment: Vec<(&'static str, String)>,
    /// Where the image is then.
    output: PathBuf,
}

impl Contestant {
    /// `exporter` of four launch layers, from and into layouts.
    fn exporter(lifecycle: Lifecycle, seed: &Path, directory: &Path) -> Result<Self> {
        let place = directory.join(lifecycle.name.replace(' ', "-"));
        let path = |name: &str| place.join(name);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let write = super::lifecycle::write;
        write(&path("app/index.html"), b"hello\n", 0o644)?;
        let layers = path("layers");
        fs::create_dir_all(layers.join("bench_large")).map_err(|error| failed("make", &layers, &error))?;
        for layer in 0..LAYERS {
            let to = layers.join(format!("bench_large/layer-{layer}"));
            // The same files for everybody.
            run_command(Command::new("cp").arg("-al").arg(seed.join(format!("layer-{layer}"))).arg(&to))?;
            write(&to.with_extension("toml"), b"[types]\nlaunch = true\n", 0o644)?;
        }
        let group = "id = \"bench/large\"\nversion = \"1.0.0\"\napi = \"0.11\"\n";
        write(&layers.join("group.toml"), format!("[[group]]\n{group}").as_bytes(), 0o644)?;
        let metadata = format!(
            "[[buildpacks]]\n{group}[[processes]]\ntype = \"web\"\ncommand = [\"true\"]\nbuildpack-id = \"bench/large\"\n"
        );
        write(&layers.join("config/metadata.toml"), metadata.as_bytes(), 0o644)?;
        fs::create_dir_all(path("temporary")).map_err(|error| failed("make", &place, &error))?;
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        write_run_image(&path("layout/index.docker.io/library/run/latest"), architecture)?;
        let mut programs = Vec::new();
        for name in ["analyzer", "exporter"] {
            let link = path(name);
            std::os::unix::fs::symlink(&lifecycle.program, &link)
                .map_err(|error| failed("link", &link, &error))?;
            let mut command = vec![text(link)];
            for (flag, value) in
                [("-layout-dir", "layout"), ("-layers", "layers"), ("-analyzed", "layers/analyzed.toml")]
            {
                command.extend([flag.to_owned(), text(path(value))]);
            }
            // As root they would become somebody else, whom none of this belongs to.
            command.extend(["-layout", "-uid", "0", "-gid", "0"].map(str::to_owned));
            programs.push(command);
        }
        let (mut analyze, mut export) = (programs.swap_remove(0), programs.swap_remove(0));
        analyze.extend(["-run-image", "run", "bench/app"].map(str::to_owned));
        for (flag, value) in [("-app", path("app")), ("-group", layers.join("group.toml"))] {
            export.extend([flag.to_owned(), text(value)]);
        }
        export.extend(["-launcher".to_owned(), text(lifecycle.launcher), "bench/app".to_owned()]);
        let output = path("layout/index.docker.io/bench");
        let forget = vec!["rm".to_owned(), "-rf".to_owned(), text(output.clone())];
        Ok(Self {
            name: format!("{}: `exporter`, four layers, gzip", lifecycle.name),
            before: vec![forget, analyze],
            commands: vec![export],
            environment: vec![
                ("CNB_PLATFORM_API", "0.14".to_owned()),
                ("CNB_EXPERIMENTAL_MODE", "quiet".to_owned()),
                ("TMPDIR", text(path("temporary"))),
            ],
            output,
        })
    }

    /// `wapack build` of all directories as an app, with a buildpack that does nothing to it.
    fn build(wapack: &Path, compression: &str, seed: &Path, directory: &Path) -> Self {
        let place = directory.join(format!("build-{}", compression.replace(':', "-")));
        let text = |name: &str| place.join(name).to_string_lossy().into_owned();
        let app = seed.to_string_lossy().into_owned();
        let program = wapack.to_string_lossy().into_owned();
        let build = [
            program.as_str(),
            "build",
            "--quiet",
            "--run-image",
            "scratch",
            "--launcher",
            "always",
            "--compression",
            compression,
            "--buildpack",
            "wapack/static-site",
            "--path",
            &app,
            "--cache-dir",
            &text("store"),
            "--output",
            &format!("oci:{}", text("image")),
            "bench/image",
        ];
        Self {
            name: format!("wapack: `build`, one layer, {compression}"),
            before: vec![["rm", "-rf", &text("store"), &text("image")].map(str::to_owned).to_vec()],
            commands: vec![build.map(str::to_owned).to_vec()],
            environment: Vec::new(),
            output: place.join("image"),
        }
    }

    /// Four layers, each a call.
    fn umoci(seed: &Path, directory: &Path) -> Result<Self> {
        let place = directory.join("umoci");
        fs::create_dir_all(&place).map_err(|error| failed("make", &place, &error))?;
        let layout = place.join("image").to_string_lossy().into_owned();
        let image = format!("{layout}:app");
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let insert = |layer: u32| {
            let from = seed.join(format!("layer-{layer}"));
            let to = format!("/layers/bench_large/layer-{layer}");
            words(&["umoci", "insert", "--image", &image, &from.to_string_lossy(), &to])
        };
        Ok(Self {
            name: "umoci: four times `insert`, gzip".to_owned(),
            before: vec![
                words(&["rm", "-rf", &layout]),
                words(&["umoci", "init", "--layout", &layout]),
                words(&["umoci", "new", "--image", &image]),
            ],
            commands: (0..LAYERS).map(insert).collect(),
            environment: Vec::new(),
            output: place.join("image"),
        })
    }

    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn time(&self) -> Result<Run> {
        for words in &self.before {
            run_command(self.command(words).stderr(Stdio::null()))?;
        }
        // What the run before wrote is not this one's business.
        run_command(&mut Command::new("sync"))?;
        let mut peak_bytes = 0;
        let started = Instant::now();
        for words in &self.commands {
            let mut command = self.command(words);
            let mut child = command
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| format!("cannot start `{}`: {error}", words[0]))?;
            let status = loop {
                if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                    break status;
                }
                peak_bytes = peak_bytes.max(peak(child.id()));
                sleep(SAMPLE);
            };
            if !status.success() {
                return Err(format!("`{}` failed ({status})", words.join(" ")));
            }
        }
        let time = started.elapsed();
        let size = capture(Command::new("du").args(["-s", "--block-size=1"]).arg(&self.output))?;
        let bytes = size.split_whitespace().next().and_then(|size| size.parse().ok()).unwrap_or(0);
        Ok(Run { time, peak_bytes, bytes })
    }
}

/// The most memory that a process has had.
fn peak(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes =
        line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
    kibibytes.unwrap_or(0_u64) << 10
}

const LAYERS: u32 = 4;

struct Written {
    files: usize,
    /// About: a header for each file, and its contents in whole blocks.
    tar_bytes: u64,
}

/// Two layers of crates' sources, one of documentation, one of libraries.
fn write_layers(seed: &Path) -> Result<Vec<Written>> {
    let sysroot = PathBuf::from(capture(Command::new("rustc").args(["--print", "sysroot"]))?.trim());
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .ok_or("neither `CARGO_HOME` nor `HOME` is set")?;
    let mut crates = Vec::new();
    for registry in children(&home.join("registry/src")) {
        crates.extend(children(&registry));
    }
    let (first, second) = crates.split_at(crates.len() / 2);
    let sources = [first.to_vec(), second.to_vec(), vec![sysroot.join("share")], vec![sysroot.join("lib")]];
    // The web page makes it an app for `wapack build`.
    super::lifecycle::write(&seed.join("index.html"), b"hello\n", 0o644)?;
    (0..LAYERS)
        .zip(sources)
        .map(|(number, sources)| {
            let layer = seed.join(format!("layer-{number}"));
            fs::create_dir_all(&layer).map_err(|error| failed("make", &layer, &error))?;
            let mut written = Written { files: 0, tar_bytes: 0 };
            for source in sources {
                let name = source.file_name().unwrap_or_default();
                copy(&source, &layer.join(name), &mut written)?;
            }
            Ok(written)
        })
        .collect()
}

/// In order of their names.
fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Copies files until a layer is full; links and the like are left out.
fn copy(from: &Path, to: &Path, written: &mut Written) -> Result<()> {
    let found = fs::symlink_metadata(from).map_err(|error| failed("look at", from, &error))?;
    if found.is_dir() {
        fs::create_dir_all(to).map_err(|error| failed("make", to, &error))?;
        for child in children(from) {
            copy(&child, &to.join(child.file_name().unwrap_or_default()), written)?;
        }
    } else if found.is_file() {
        let bytes = 512 + found.len().next_multiple_of(512);
        if written.files < LAYER_FILES && written.tar_bytes + bytes <= LAYER_BYTES {
            fs::copy(from, to).map_err(|error| failed("copy", from, &error))?;
            written.files += 1;
            written.tar_bytes += bytes;
        }
    }
    Ok(())
}
