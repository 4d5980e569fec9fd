//! Whole builds of classic buildpacks by `creator`, beside another lifecycle's.
//!
//! Both read and write layouts, so that no registry is between them. The peer is the
//! lifecycle in the directory that `WAPACK_BENCH_LIFECYCLE` names: `creator` or
//! `lifecycle`, and `launcher`. Each gets directories of its own; runs alternate. They
//! take up to 18 GB of disk, and with a peer a quarter of an hour.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flate2::{Compression, GzBuilder};
use serde_json::json;

use super::{failed, median};
use crate::Result;
use crate::archive::digest;
use crate::command::{run as run_command, step, warn};
use crate::setup::ARCHITECTURES;
use crate::workspace;

/// Names the directory of the peer.
pub(super) const PEER: &str = "WAPACK_BENCH_LIFECYCLE";
/// Whom a lifecycle becomes that was started by root.
const USER: u32 = 65534;
/// Counted rebuilds of the small app, and of the one with large layers.
const SMALL_RUNS: usize = 21;
const LARGE_RUNS: usize = 3;

/// Layers of the large app, files and bytes of each: 1.2 GB in 55,000 files, of which
/// a few are large.
const LAYERS: u32 = 4;
const SMALL_FILES: u32 = 13_650;
const SMALL_BYTES: usize = 12_000;
const LARGE_FILES: u32 = 37;
const LARGE_BYTES: usize = 4 << 20;
/// Files of one directory.
const DIRECTORY_FILES: u32 = 70;

/// Times both builds, by us and by the peer if there is one.
pub(super) fn run(program: &Path, directory: &Path) -> Result<()> {
    let native = ARCHITECTURES.iter().find(|architecture| architecture.is_native());
    let native = native.ok_or("there is no launcher for this machine")?;
    let ours = Lifecycle::ours(program)?;
    let peer = env::var_os(PEER).map(|place| Lifecycle::peer(Path::new(&place))).transpose()?;
    if peer.is_none() {
        warn(&format!("`{PEER}` names no lifecycle, so there is nothing to compare with"));
    }
    let lifecycles: Vec<Lifecycle> = [Some(ours), peer].into_iter().flatten().collect();
    let directory = directory.join("lifecycle");
    // Names of images are made of paths, and have no capitals.
    step("three small buildpacks");
    compare(&lifecycles, &directory.join("small"), native.oci, SMALL_RUNS, &small_buildpacks())?;
    step("four cached layers of 300 MB each");
    let seed = directory.join("seed");
    write_seed(&seed)?;
    compare(&lifecycles, &directory.join("large"), native.oci, LARGE_RUNS, &[large_buildpack(&seed)])
}

/// A creator, and the launcher that it puts into images.
pub(super) struct Lifecycle {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) launcher: PathBuf,
}

impl Lifecycle {
    /// A program of ours, with the launcher that was built for this machine.
    pub(super) fn ours(program: &Path) -> Result<Self> {
        let native = ARCHITECTURES.iter().find(|architecture| architecture.is_native());
        let native = native.ok_or("there is no launcher for this machine")?;
        let launcher = workspace::target().join("embed/launcher").join(format!("linux-{}", native.oci));
        Ok(Self { name: "wapack", program: program.to_owned(), launcher })
    }

    pub(super) fn peer(place: &Path) -> Result<Self> {
        let program = ["creator", "lifecycle"].map(|name| place.join(name));
        let program = program.into_iter().find(|program| program.is_file());
        let program = program
            .ok_or_else(|| format!("`{}` holds neither `creator` nor `lifecycle`", place.display()))?;
        let launcher = [place.join("launcher"), place.join("../launcher")];
        let launcher = launcher.into_iter().find(|launcher| launcher.is_file());
        let launcher = launcher.ok_or_else(|| format!("`{}` holds no `launcher`", place.display()))?;
        let resolved = |path: PathBuf| fs::canonicalize(&path).map_err(|error| failed("find", &path, &error));
        Ok(Self { name: "the reference", program: resolved(program)?, launcher: resolved(launcher)? })
    }
}

/// The first build, then rebuilds in turns, each with a fresh directory of layers.
fn compare(
    lifecycles: &[Lifecycle],
    directory: &Path,
    architecture: &str,
    runs: usize,
    buildpacks: &[Buildpack],
) -> Result<()> {
    let sites = lifecycles
        .iter()
        .map(|lifecycle| {
            Site::new(lifecycle, &directory.join(lifecycle.name.replace(' ', "-")), architecture, buildpacks)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut first = Vec::new();
    for site in &sites {
        first.push(site.time()?);
        // Not counted: it fills what the operating system keeps in memory.
        site.time()?;
    }
    let mut times = vec![Vec::new(); sites.len()];
    for _ in 0..runs {
        for (site, times) in sites.iter().zip(&mut times) {
            times.push(site.time()?);
        }
    }
    print("first build", lifecycles, &first.iter().map(|time| vec![*time]).collect::<Vec<_>>());
    print("unchanged rebuild", lifecycles, &times);
    fs::remove_dir_all(directory).map_err(|error| failed("remove", directory, &error))
}

fn print(what: &str, lifecycles: &[Lifecycle], times: &[Vec<Duration>]) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let medians: Vec<f64> = times.iter().map(|times| milliseconds(median(times.clone()))).collect();
    for ((lifecycle, times), median) in lifecycles.iter().zip(times).zip(&medians) {
        let all = || times.iter().copied();
        println!(
            "{what}, {}: {median:.1} ms ({:.1}–{:.1} ms of {})",
            lifecycle.name,
            milliseconds(all().min().unwrap_or_default()),
            milliseconds(all().max().unwrap_or_default()),
            times.len()
        );
    }
    if let [ours, peer] = medians[..] {
        println!("{what}: ratio {:.3}, {:.1} times as fast", ours / peer, peer / ours);
    }
}

/// The directories that a platform mounts.
struct Site<'a> {
    lifecycle: &'a Lifecycle,
    directory: PathBuf,
    /// How many there were.
    builds: AtomicUsize,
}

impl<'a> Site<'a> {
    fn new(
        lifecycle: &'a Lifecycle,
        directory: &Path,
        architecture: &str,
        buildpacks: &[Buildpack],
    ) -> Result<Self> {
        let site = Self { lifecycle, directory: directory.to_owned(), builds: AtomicUsize::new(0) };
        for name in ["cache", "layers", "layout", "platform/env", "sbom", "temporary"] {
            let path = site.path(name);
            fs::create_dir_all(&path).map_err(|error| failed("make", &path, &error))?;
        }
        write(&site.path("app/index.html"), b"hello\n", 0o644)?;
        let mut order = "[[order]]\n".to_owned();
        for Buildpack { name, detect, build } in buildpacks {
            let place = site.path(&format!("buildpacks/bench_{name}/1.0.0"));
            let descriptor = format!(
                "api = \"0.11\"\n[buildpack]\nid = \"bench/{name}\"\nversion = \"1.0.0\"\n[[targets]]\nos = \"linux\"\n"
            );
            write(&place.join("buildpack.toml"), descriptor.as_bytes(), 0o644)?;
            for (program, script) in [("detect", detect), ("build", build)] {
                let script = format!("#!/usr/bin/env bash\nset -e\n{script}");
                write(&place.join("bin").join(program), script.as_bytes(), 0o755)?;
            }
            let _ = write!(order, "[[order.group]]\nid = \"bench/{name}\"\nversion = \"1.0.0\"\n");
        }
        write(&site.path("order.toml"), order.as_bytes(), 0o644)?;
        for kind in ["cdx", "spdx", "syft"] {
            write(&site.path(&format!("sbom/launcher.sbom.{kind}.json")), b"{}", 0o644)?;
        }
        write_run_image(&site.path("layout/index.docker.io/library/run/latest"), architecture, b"run")?;
        if is_root() {
            // Images are made beside the run image.
            let owner = format!("{USER}:{USER}");
            run_command(Command::new("chown").args(["-R", &owner]).arg(site.path("layout")))?;
        }
        let link = site.path("creator");
        symlink(&lifecycle.program, &link).map_err(|error| failed("link", &link, &error))?;
        Ok(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// One build with a fresh directory of layers. The one before is moved away and not
    /// removed: ext4 does not give out an inode again that was freed a moment ago, and
    /// looks at each of those for every new file.
    fn time(&self) -> Result<Duration> {
        let layers = self.path("layers");
        let number = self.builds.fetch_add(1, Ordering::Relaxed);
        let old = self.path(&format!("old-layers-{number}"));
        fs::rename(&layers, &old).map_err(|error| failed("move", &layers, &error))?;
        fs::create_dir(&layers).map_err(|error| failed("make", &layers, &error))?;
        if is_root() {
            for path in ["layers", "cache", "layout", "temporary"] {
                give(&self.path(path))?;
            }
        }
        // What the run before wrote or removed is not this one's business.
        run_command(&mut Command::new("sync"))?;
        let mut command = Command::new(self.path("creator"));
        for (flag, path) in [
            ("-app", "app"),
            ("-buildpacks", "buildpacks"),
            ("-cache-dir", "cache"),
            ("-layers", "layers"),
            ("-layout-dir", "layout"),
            ("-order", "order.toml"),
            ("-platform", "platform"),
        ] {
            command.arg(flag).arg(self.path(path));
        }
        command
            .arg("-launcher")
            .arg(&self.lifecycle.launcher)
            .args(["-layout", "-run-image", "run"])
            .args(["-uid", &USER.to_string(), "-gid", &USER.to_string(), "bench/app"])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &layers)
            .env("TMPDIR", self.path("temporary"))
            .env("CNB_PLATFORM_API", "0.14")
            .env("CNB_EXPERIMENTAL_MODE", "quiet")
            .stdin(Stdio::null());
        if is_root() {
            command.uid(USER).gid(USER);
        }
        let started = Instant::now();
        let output = command
            .output()
            .map_err(|error| format!("cannot start `{}`: {error}", command.get_program().display()))?;
        let time = started.elapsed();
        if output.status.success() {
            Ok(time)
        } else {
            let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
            Err(format!("`{}` failed ({}):\n{}", self.lifecycle.name, output.status, said.concat()))
        }
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0)
}

/// Gives a directory to whom the lifecycle runs as; what is in it is that user's already.
fn give(path: &Path) -> Result<()> {
    chown(path, Some(USER), Some(USER)).map_err(|error| failed("give away", path, &error))
}

/// A classic buildpack.
struct Buildpack {
    name: &'static str,
    detect: String,
    build: String,
}

/// Three that do little: one provides and wants a thing, one wants it too, one makes a
/// layer with a script and a process.
fn small_buildpacks() -> [Buildpack; 3] {
    let look = "\necho \"variables:\"\nexport | sed 's/^/  /'\necho \"plan:\"\nsed 's/^/  /' \"$3\"\n";
    let provides = "printf '[[provides]]\\nname = \"thing\"\\n[[requires]]\\nname = \"thing\"\\n' > \"$2\"\n";
    let requires =
        "printf '[[requires]]\\nname = \"thing\"\\n[requires.metadata]\\nwhere = \"here\"\\n' > \"$2\"\n";
    let build = r#"
mkdir -p "$1/tool"
printf '[types]\nlaunch = true\n' > "$1/tool.toml"
printf '#!/usr/bin/env bash\nexport | sort\n' > "$1/tool/show"
chmod +x "$1/tool/show"
printf '[[processes]]\ntype = "show"\ncommand = ["%s/tool/show"]\ndefault = true\n' "$1" > "$1/launch.toml"
"#;
    [
        Buildpack { name: "first", detect: provides.to_owned(), build: look.to_owned() },
        Buildpack { name: "second", detect: requires.to_owned(), build: look.to_owned() },
        Buildpack { name: "third", detect: String::new(), build: build.to_owned() },
    ]
}

/// Copies the layers in its first build, and leaves them alone after.
fn large_buildpack(seed: &Path) -> Buildpack {
    let build = format!(
        r#"
for layer in {layers}; do
  if [ ! -e "$1/$layer" ]; then cp -r "{seed}/$layer" "$1/$layer"; fi
  printf '[types]\nlaunch = true\ncache = true\n' > "$1/$layer.toml"
done
printf '[[processes]]\ntype = "web"\ncommand = ["true"]\ndefault = true\n' > "$1/launch.toml"
"#,
        layers = (0..LAYERS).map(|layer| format!("layer-{layer}")).collect::<Vec<_>>().join(" "),
        seed = seed.display(),
    );
    Buildpack { name: "large", detect: String::new(), build }
}

/// The layers that are copied: words and numbers, which compress to about a third.
fn write_seed(seed: &Path) -> Result<()> {
    let mut state = 1_u64;
    let mut text = |length: usize| {
        let mut bytes = Vec::with_capacity(length + 32);
        while bytes.len() < length {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let _ = writeln!(bytes, "value_{} = {:x};", state >> 60, state >> 32);
        }
        bytes.truncate(length);
        bytes
    };
    for layer in 0..LAYERS {
        let layer = seed.join(format!("layer-{layer}"));
        for file in 0..SMALL_FILES {
            let directory = file / DIRECTORY_FILES;
            let path = layer.join(format!("package-{}/part-{directory}/file-{file}.txt", directory % 20));
            write(&path, &text(SMALL_BYTES), 0o644)?;
        }
        for file in 0..LARGE_FILES {
            write(&layer.join(format!("lib/library-{file}.so")), &text(LARGE_BYTES), 0o755)?;
        }
    }
    Ok(())
}

/// A run image with one layer that has one file, in a layout of its own.
pub(super) fn write_run_image(layout: &Path, architecture: &str, contents: &[u8]) -> Result<()> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(contents.len() as u64);
    header.set_mode(0o644);
    let packed = tar.append_data(&mut header, "etc/name", contents).and_then(|()| tar.into_inner());
    let tar = packed.map_err(|error| format!("cannot pack the run image: {error}"))?;
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::default());
    let packed = gzip.write_all(&tar).and_then(|()| gzip.finish());
    let layer = packed.map_err(|error| format!("cannot pack the run image: {error}"))?;
    let blob = |bytes: &[u8]| {
        let digest = digest(bytes);
        let path = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        write(&path, bytes, 0o644).map(|()| digest)
    };
    let configuration = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
        "history": [{ "created_by": "bench" }],
    });
    let described = |kind: &str, digest: String, size: usize| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size });
    let configuration = configuration.to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("config.v1+json", blob(configuration.as_bytes())?, configuration.len()),
        "layers": [described("layer.v1.tar+gzip", blob(&layer)?, layer.len())],
    });
    let manifest = manifest.to_string();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [described("manifest.v1+json", blob(manifest.as_bytes())?, manifest.len())],
    });
    write(&layout.join("index.json"), index.to_string().as_bytes(), 0o644)?;
    write(&layout.join("oci-layout"), b"{\"imageLayoutVersion\":\"1.0.0\"}", 0o644)
}

pub(super) fn write(file: &Path, contents: &[u8], mode: u32) -> Result<()> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
    }
    fs::write(file, contents).map_err(|error| failed("write", file, &error))?;
    fs::set_permissions(file, fs::Permissions::from_mode(mode))
        .map_err(|error| failed("change", file, &error))
}
