//! A Node application with about 400 packages, beside npm and Bun.
//!
//! All three get the same lock file, leave out what only development needs and
//! run no scripts. Peers do less: they fill a directory, where `wapack` also makes
//! an image. So the time of the buildpack's call is shown beside the whole build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Run, failed, measure, measure_with_output, median};
use crate::Result;
use crate::base;
use crate::command::{capture, find_program, run as run_command, step, warn};

/// Direct dependencies; what they need makes 398 packages, 18,355 files and 333 MB.
const DEPENDENCIES: [&str; 13] = [
    "express",
    "fastify",
    "koa",
    "lodash",
    "axios",
    "winston",
    "mongoose",
    "socket.io",
    "next@15",
    "react",
    "react-dom",
    "webpack",
    "eslint",
];
/// Counted runs of each command; each fetches or writes hundreds of megabytes.
const RUNS: usize = 5;
/// The buildpack whose call is timed.
const BUILDPACK: &str = "wapack/npm-install";

/// Times wapack, npm and, where it can be had, Bun.
pub(super) fn run(wapack: &Path, directory: &Path) -> Result<()> {
    if find_program("npm").is_none() {
        warn("npm is not installed, so Node applications are not timed");
        return Ok(());
    }
    let bench = Node { wapack, directory: directory.join("node"), base: base::layout()?, bun: None };
    let bun = bench.bun();
    let bench = Node { bun, ..bench };
    bench.application()?;
    bench.empty_store()?;
    bench.packages_in_the_store()?;
    bench.unchanged()
}

struct Node<'a> {
    wapack: &'a Path,
    directory: PathBuf,
    base: PathBuf,
    bun: Option<PathBuf>,
}

/// One build: the whole process, and the call of the buildpack in it.
struct Build {
    whole: Run,
    call: Duration,
}

impl Node<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The package for this machine holds the program itself.
    fn bun(&self) -> Option<PathBuf> {
        let home = self.path("bun");
        let program = home.join("package/bin/bun");
        if !program.is_file() {
            fs::create_dir_all(&home).ok()?;
            let packed = capture(
                Command::new("npm").args(["pack", "--silent", "@oven/bun-linux-x64"]).current_dir(&home),
            );
            let unpacked = packed.and_then(|name| {
                run_command(Command::new("tar").arg("-xzf").arg(name.trim()).current_dir(&home))
            });
            if let Err(problem) = unpacked {
                warn(&format!("there is no Bun to compare with: {problem}"));
                return None;
            }
        }
        Some(program)
    }

    /// Makes the application and its lock, once.
    fn application(&self) -> Result<()> {
        let app = self.path("app");
        if app.join("package-lock.json").is_file() {
            return Ok(());
        }
        fs::create_dir_all(&app).map_err(|error| failed("make", &app, &error))?;
        let manifest = json!({ "name": "bench", "version": "1.0.0", "private": true, "scripts": { "start": "node server.js" } });
        let file = app.join("package.json");
        fs::write(&file, manifest.to_string()).map_err(|error| failed("write", &file, &error))?;
        let file = app.join("server.js");
        fs::write(&file, "require('express')().listen(process.env.PORT);\n")
            .map_err(|error| failed("write", &file, &error))?;
        step("npm resolves the packages");
        let mut npm = Command::new("npm");
        npm.args(["install", "--package-lock-only", "--no-audit", "--no-fund", "--silent"])
            .args(DEPENDENCIES);
        run_command(npm.current_dir(&app))?;
        forget_unknown_packages(&app.join("package-lock.json"))
    }

    fn build(&self, store: &str, image: &str) -> Result<Build> {
        let mut command = Command::new(self.wapack);
        command
            .args(["build", "--output-format", "json", "--run-image"])
            .arg(format!("oci:{}:{}", self.base.display(), base::TAG))
            .arg("--path")
            .arg(self.path("app"))
            .arg("--cache-dir")
            .arg(self.path(store))
            .arg("--output")
            .arg(format!("oci:{}", self.path(&format!("{store}-images/{image}")).display()))
            .arg(format!("bench/{image}"));
        let (whole, output) = measure_with_output(&mut command)?;
        let call = output
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|event| {
                event["event"] == "buildpack-finished" && event["buildpack"].to_string().contains(BUILDPACK)
            })
            .and_then(|event| event["milliseconds"].as_f64())
            .ok_or_else(|| format!("the build does not say how long `{BUILDPACK}` took"))?;
        Ok(Build { whole, call: Duration::from_secs_f64(call / 1e3) })
    }

    /// A copy of the application for a peer to install into.
    fn copy(&self, name: &str) -> Result<PathBuf> {
        let copy = self.path(name);
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir_all(&copy).map_err(|error| failed("make", &copy, &error))?;
        for file in ["package.json", "package-lock.json", "server.js"] {
            fs::copy(self.path("app").join(file), copy.join(file))
                .map_err(|error| failed("copy", &copy, &error))?;
        }
        Ok(copy)
    }

    fn npm_ci(&self, cache: &Path) -> Result<Run> {
        let mut command = Command::new("npm");
        command
            .args(["ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--silent", "--cache"])
            .arg(cache)
            .current_dir(self.copy("npm-app")?);
        measure(&mut command)
    }

    fn bun_install(&self, program: &Path, cache: &Path) -> Result<Run> {
        let mut command = Command::new(program);
        command
            .args(["install", "--ignore-scripts", "--production", "--no-progress", "--silent"])
            .env("BUN_INSTALL_CACHE_DIR", cache)
            .env(
                "NPM_CONFIG_REGISTRY",
                capture(Command::new("npm").args(["config", "get", "registry"]))?.trim(),
            )
            .stderr(Stdio::null())
            .current_dir(self.copy("bun-app")?);
        measure(&mut command)
    }

    /// Nothing is on the machine but compiled buildpacks and Node itself.
    fn empty_store(&self) -> Result<()> {
        let (mut ours, mut npm, mut bun) = (Vec::new(), Vec::new(), Vec::new());
        self.build("fresh", "first")?;
        for round in 0..RUNS {
            self.forget_packages("fresh")?;
            ours.push(self.build("fresh", &format!("image-{round}"))?);
            let cache = self.path("npm-cache");
            let _ = fs::remove_dir_all(&cache);
            npm.push(self.npm_ci(&cache)?);
            if let Some(program) = &self.bun {
                let cache = self.path("bun-cache");
                let _ = fs::remove_dir_all(&cache);
                bun.push(self.bun_install(program, &cache)?);
            }
        }
        report("400 packages, empty store", &ours, &npm, &bun);
        Ok(())
    }

    /// Every package was downloaded before, for another image.
    fn packages_in_the_store(&self) -> Result<()> {
        let (mut ours, mut npm, mut bun) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..RUNS {
            ours.push(self.build("fresh", &format!("again-{round}"))?);
            npm.push(self.npm_ci(&self.path("npm-cache"))?);
            if let Some(program) = &self.bun {
                bun.push(self.bun_install(program, &self.path("bun-cache"))?);
            }
        }
        report("400 packages, in the store", &ours, &npm, &bun);
        Ok(())
    }

    fn unchanged(&self) -> Result<()> {
        self.build("fresh", "same")?;
        let ours = (0..RUNS * 2).map(|_| self.build("fresh", "same")).collect::<Result<Vec<_>>>()?;
        report("400 packages, unchanged", &ours, &[], &[]);
        Ok(())
    }

    /// Empties the store of downloads, and of nothing else.
    fn forget_packages(&self, store: &str) -> Result<()> {
        let downloads = self.path(store).join("downloads");
        for entry in fs::read_dir(&downloads).map_err(|error| failed("read", &downloads, &error))?.flatten() {
            for file in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                // Node itself is one large file; it is not what is measured.
                if file.metadata().is_ok_and(|metadata| metadata.len() < 24 << 20) {
                    fs::remove_file(file.path()).map_err(|error| failed("remove", &file.path(), &error))?;
                }
            }
        }
        Ok(())
    }
}

/// Takes out of a lock what it says of optional packages that it does not have. A
/// mirror that lacks packages for other systems makes locks that npm refuses later.
fn forget_unknown_packages(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).map_err(|error| failed("read", file, &error))?;
    let mut lock: Value =
        serde_json::from_str(&text).map_err(|error| format!("`{}`: {error}", file.display()))?;
    let Some(packages) = lock["packages"].as_object_mut() else { return Ok(()) };
    let known: Vec<String> = packages.keys().cloned().collect();
    let is_known = |name: &String| known.iter().any(|place| place.ends_with(&format!("node_modules/{name}")));
    for entry in packages.values_mut() {
        if let Some(optional) = entry.get_mut("optionalDependencies").and_then(Value::as_object_mut) {
            optional.retain(|name, _| is_known(name));
        }
    }
    fs::write(file, lock.to_string()).map_err(|error| failed("write", file, &error))
}

fn report(name: &str, ours: &[Build], npm: &[Run], bun: &[Run]) {
    let seconds = |time: Duration| time.as_secs_f64();
    let memory = |runs: &mut dyn Iterator<Item = u64>| runs.max().unwrap_or(0) >> 20;
    let call = median(ours.iter().map(|build| build.call).collect());
    let whole = median(ours.iter().map(|build| build.whole.time).collect());
    println!(
        "{name}: call {:.3} s, whole build {:.3} s, {} MiB",
        seconds(call),
        seconds(whole),
        memory(&mut ours.iter().map(|build| build.whole.memory_bytes))
    );
    for (peer, runs) in [("npm ci", npm), ("bun install", bun)] {
        if !runs.is_empty() {
            let time = median(runs.iter().map(|run| run.time).collect());
            println!(
                "  {peer}: {:.3} s, {} MiB; call / peer {:.3}, whole build / peer {:.3}",
                seconds(time),
                memory(&mut runs.iter().map(|run| run.memory_bytes)),
                seconds(call) / seconds(time),
                seconds(whole) / seconds(time)
            );
        }
    }
}
