//! Whole commands, timed from outside and beside a peer.
//!
//! Runs of the two alternate, so that both see the same machine; medians and
//! their ratio are printed. The peer is Buildah, which also makes an OCI image
//! from a directory without a daemon; it runs no buildpacks, it copies.

mod contest;
mod detect;
mod export;
mod launcher;
mod lifecycle;
mod node;
mod rebase;
mod registry;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::command::{cargo, find_program, run as run_command, step, warn};
use crate::{checks, embed, setup, workspace};

/// Names a `wapack` that is there already, so that nothing is built before `export` and `rebase`.
const PROGRAM: &str = "WAPACK_BENCH_PROGRAM";
/// Counted runs of each command.
const RUNS: usize = 11;
/// Files and bytes of each in the layers of one gigabyte: two buildpacks, one layer each.
const BIG_FILES: u32 = 500;
const BIG_BYTES: u32 = 1024 * 1024;
/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(2);

/// The library's benchmarks, then whole commands; with the argument `node` only
/// the one beside npm, with `detect` only the one of many components, with `launcher`
/// only the start of a process in an image, with `lifecycle` only whole builds of classic
/// buildpacks, with `export` only large layers on their way into images (or some of its parts:
/// `export gzip`, `zstd`, `push`, `memory`), with `rebase` only an image in a registry onto another.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if arguments == ["launcher"] {
        setup::for_builds()?;
        embed::build_launchers()?;
        return launcher::run();
    }
    if let Some(program) = env::var_os(PROGRAM) {
        let bench = Bench { wapack: PathBuf::from(program), ..Bench::new()? };
        return match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
            Some(("export", parts)) => export::run(&bench.wapack, &bench.directory, parts),
            Some(("rebase", [])) => rebase::run(&bench.wapack, &bench.directory),
            _ => Err(format!("`{PROGRAM}` is for `export` and `rebase`")),
        };
    }
    embed::run()?;
    if arguments == ["node"] {
        build_wapack()?;
        let bench = Bench::new()?;
        return node::run(&bench.wapack, &bench.directory);
    }
    if arguments == ["lifecycle"] {
        let program = crate::lifecycle::program()?;
        let bench = Bench::new()?;
        return lifecycle::run(&program, &bench.directory);
    }
    if let Some(("export", parts)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        build_wapack()?;
        let bench = Bench::new()?;
        return export::run(&bench.wapack, &bench.directory, parts);
    }
    if arguments == ["rebase"] {
        build_wapack()?;
        let bench = Bench::new()?;
        return rebase::run(&bench.wapack, &bench.directory);
    }
    checks::guests()?;
    if arguments == ["detect"] {
        build_wapack()?;
        let bench = Bench::new()?;
        return detect::run(&bench.wapack, &bench.directory);
    }
    step("cargo bench");
    run_command(cargo(&["bench", "--package", "wapack-runtime", "--features", "testkit"]).args(arguments))?;
    build_wapack()?;
    let bench = Bench::new()?;
    bench.sample()?;
    bench.big_layers()?;
    launcher::run()?;
    detect::run(&bench.wapack, &bench.directory)?;
    lifecycle::run(&crate::lifecycle::program()?, &bench.directory)?;
    export::run(&bench.wapack, &bench.directory, &[])?;
    rebase::run(&bench.wapack, &bench.directory)?;
    node::run(&bench.wapack, &bench.directory)
}

fn build_wapack() -> Result<()> {
    step("building wapack");
    run_command(&mut cargo(&["build", "--quiet", "--release", "--package", "wapack"]))
}

struct Bench {
    wapack: PathBuf,
    directory: PathBuf,
    buildah: Option<PathBuf>,
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
struct Run {
    time: Duration,
    /// Of all processes together, at one moment.
    memory_bytes: u64,
}

impl Bench {
    fn new() -> Result<Self> {
        let directory = workspace::target().join("bench");
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(|error| failed("remove", &directory, &error))?;
        }
        fs::create_dir_all(&directory).map_err(|error| failed("make", &directory, &error))?;
        setup::for_benchmarks()?;
        let buildah = find_program("buildah");
        if buildah.is_none() {
            warn("buildah is not installed, so there is nothing to compare with");
        }
        Ok(Self { wapack: workspace::target().join("release/wapack"), directory, buildah })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `wapack build` with a store and a layout of its own.
    fn wapack(&self, app: &Path, name: &str) -> Command {
        let mut command = Command::new(&self.wapack);
        command
            .args(["build", "--quiet", "--run-image", "scratch", "--path"])
            .arg(app)
            .arg("--cache-dir")
            .arg(self.path(&format!("{name}-store")))
            .arg("--output")
            .arg(format!("oci:{}", self.path(&format!("{name}-image")).display()))
            .arg("bench/image");
        command
    }

    /// `buildah build --layers` of a directory copied onto nothing, into a layout.
    fn buildah(&self, program: &Path, app: &Path, name: &str) -> Result<Command> {
        let file = self.path("Containerfile");
        fs::write(&file, "FROM scratch\nCOPY . /workspace\n")
            .map_err(|error| failed("write", &file, &error))?;
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(self.path(&format!("{name}-buildah")))
            .arg("--runroot")
            .arg(self.path("buildah-run"))
            .args([
                "--storage-driver",
                "vfs",
                "build",
                "--quiet",
                "--layers",
                "--isolation",
                "chroot",
                "--file",
            ])
            .arg(&file)
            .arg("--tag")
            .arg(format!("oci:{}", self.path(&format!("{name}-buildah-image")).display()))
            .arg(app);
        Ok(command)
    }

    fn sample(&self) -> Result<()> {
        let app = workspace::root().join("samples/website");
        let cold = || {
            for directory in ["cold-store", "cold-image"] {
                let _ = fs::remove_dir_all(self.path(directory));
            }
            measure(&mut self.wapack(&app, "cold"))
        };
        // A rough guess of what a first build costs: the program has to compile its buildpacks.
        let runs = (0..5).map(|_| cold()).collect::<Result<Vec<_>>>()?;
        report("sample, cold", &runs, None);
        let mut ours = self.wapack(&app, "sample");
        let mut peer = match &self.buildah {
            Some(program) => Some(self.buildah(program, &app, "sample")?),
            None => None,
        };
        compare("sample, unchanged", &mut ours, peer.as_mut())
    }

    fn big_layers(&self) -> Result<()> {
        let guest = workspace::target().join("wasm32-wasip2/guest/examples/big_layer.wasm");
        let app = self.path("app");
        fs::create_dir_all(&app).map_err(|error| failed("make", &app, &error))?;
        fs::write(app.join("index.html"), "hello\n").map_err(|error| failed("write", &app, &error))?;
        let mut ours = self.wapack(&app, "big");
        for number in ["one", "two"] {
            let buildpack = self.path(number);
            fs::create_dir_all(&buildpack).map_err(|error| failed("make", &buildpack, &error))?;
            let toml = format!("api = \"0.12\"\n[buildpack]\nid = \"bench/{number}\"\nversion = \"1.0.0\"\n");
            fs::write(buildpack.join("buildpack.toml"), toml)
                .map_err(|error| failed("write", &buildpack, &error))?;
            fs::copy(&guest, buildpack.join("buildpack.wasm"))
                .map_err(|error| failed("copy", &guest, &error))?;
            ours.arg("--buildpack").arg(&buildpack);
        }
        ours.arg("--env").arg(format!("FILES={BIG_FILES}")).arg("--env").arg(format!("BYTES={BIG_BYTES}"));
        step("the first build of two layers of 500 MiB each");
        let first = measure(&mut ours)?;
        report("two layers of 500 MiB, first build", &[first], None);
        let mut peer = match &self.buildah {
            Some(program) => {
                let copy = self.path("big-app");
                copy_of_layers(&copy)?;
                Some(self.buildah(program, &copy, "big")?)
            }
            None => None,
        };
        compare("two layers of 500 MiB, unchanged", &mut ours, peer.as_mut())
    }
}

/// The same number of files and bytes as the guest's layers, for the peer to copy.
fn copy_of_layers(directory: &Path) -> Result<()> {
    let mut state = 1_u64;
    for layer in ["one", "two"] {
        let layer = directory.join(layer);
        fs::create_dir_all(&layer).map_err(|error| failed("make", &layer, &error))?;
        for file in 0..BIG_FILES {
            let mut contents = Vec::with_capacity(BIG_BYTES as usize);
            while contents.len() < BIG_BYTES as usize {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                contents.extend((state ^ (state >> 32)).to_le_bytes());
            }
            let path = layer.join(format!("file-{file:05}"));
            fs::write(&path, contents).map_err(|error| failed("write", &path, &error))?;
        }
    }
    Ok(())
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {what} `{}`: {error}", path.display())
}

/// One warm-up of each, then both in turn.
fn compare(name: &str, ours: &mut Command, mut peer: Option<&mut Command>) -> Result<()> {
    measure(ours)?;
    if let Some(peer) = peer.as_deref_mut() {
        measure(peer)?;
    }
    let (mut own_runs, mut peer_runs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        own_runs.push(measure(ours)?);
        if let Some(peer) = peer.as_deref_mut() {
            peer_runs.push(measure(peer)?);
        }
    }
    report(name, &own_runs, peer.map(|_| peer_runs.as_slice()));
    Ok(())
}

fn report(name: &str, ours: &[Run], peer: Option<&[Run]>) {
    let time = |runs: &[Run]| median(runs.iter().map(|run| run.time).collect());
    let memory = |runs: &[Run]| runs.iter().map(|run| run.memory_bytes).max().unwrap_or(0) >> 20;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let fastest = ours.iter().map(|run| run.time).min().unwrap_or_default();
    print!(
        "{name}: {:.1} ms (fastest {:.1} ms of {}), {} MiB",
        milliseconds(time(ours)),
        milliseconds(fastest),
        ours.len(),
        memory(ours)
    );
    match peer {
        Some(runs) => println!(
            "; buildah {:.1} ms, {} MiB; ratio {:.3}",
            milliseconds(time(runs)),
            memory(runs),
            time(ours).as_secs_f64() / time(runs).as_secs_f64()
        ),
        None => println!(),
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs a command to its end, with the memory of all its processes.
fn measure(command: &mut Command) -> Result<Run> {
    measure_child(command.stdout(Stdio::null())).map(|(run, _)| run)
}

/// Like [`measure`], with what the command prints.
fn measure_with_output(command: &mut Command) -> Result<(Run, String)> {
    measure_child(command.stdout(Stdio::piped()))
}

fn measure_child(command: &mut Command) -> Result<(Run, String)> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start `{}`: {error}", command.get_program().display()))?;
    // Read while the command runs: a full pipe would stop it.
    let reader = child.stdout.take().map(|mut output| {
        std::thread::spawn(move || {
            let mut text = String::new();
            output.read_to_string(&mut text).map(|_| text)
        })
    });
    let mut memory_bytes = 0;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        memory_bytes = memory_bytes.max(memory_of_tree(&child));
        sleep(SAMPLE);
    };
    let time = started.elapsed();
    if !status.success() {
        return Err(format!("`{}` failed ({status})", command.get_program().display()));
    }
    let output = match reader.map(std::thread::JoinHandle::join) {
        Some(Ok(Ok(text))) => text,
        Some(_) => return Err("what the command printed cannot be read".to_owned()),
        None => String::new(),
    };
    Ok((Run { time, memory_bytes }, output))
}

/// Resident bytes of a process and all below it, shared pages counted once for each.
fn memory_of_tree(child: &Child) -> u64 {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in the second field may have blanks and parentheses in it.
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = rest.split(' ').collect();
        let parent = fields.get(1).and_then(|field| field.parse::<u32>().ok()).unwrap_or(0);
        let pages = fields.get(21).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        parents.insert(id, (parent, pages * 4096));
    }
    let is_below = |mut id: u32| {
        while let Some((parent, _)) = parents.get(&id) {
            if id == child.id() {
                return true;
            }
            id = *parent;
        }
        false
    };
    parents.iter().filter(|(id, _)| is_below(**id)).map(|(_, (_, bytes))| bytes).sum()
}
