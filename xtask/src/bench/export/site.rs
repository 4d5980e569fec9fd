//! The directories that an exporter is told of, and its calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::contest::{Outcome, measure};
use super::super::failed;
use super::super::lifecycle::{Lifecycle, write, write_run_image};
use crate::Result;
use crate::command::{capture, run as run_command};

/// Launch layers of one buildpack, and an app of one file.
pub(in crate::bench) struct Site {
    place: PathBuf,
    lifecycle: Lifecycle,
}

/// Where an image goes, and its run image comes from.
#[derive(Clone, Copy)]
pub(in crate::bench) enum To<'a> {
    /// Layouts of the site.
    Layout,
    /// A registry; with the names of run image and image.
    Registry { run: &'a str, images: &'a [String] },
}

impl Site {
    /// The layers are the directories in `seed` whose names are given, the same files for everybody.
    pub(in crate::bench) fn new(
        lifecycle: Lifecycle,
        seed: &Path,
        layers: &[String],
        place: &Path,
    ) -> Result<Self> {
        let site = Self { place: place.to_owned(), lifecycle };
        write(&site.path("app/index.html"), b"hello\n", 0o644)?;
        let directory = site.path("layers/bench_large");
        fs::create_dir_all(&directory).map_err(|error| failed("make", &directory, &error))?;
        for layer in layers {
            let to = directory.join(layer);
            run_command(Command::new("cp").arg("-al").arg(seed.join(layer)).arg(&to))?;
            write(&to.with_extension("toml"), b"[types]\nlaunch = true\n", 0o644)?;
        }
        let group = "id = \"bench/large\"\nversion = \"1.0.0\"\napi = \"0.11\"\n";
        write(&site.path("layers/group.toml"), format!("[[group]]\n{group}").as_bytes(), 0o644)?;
        let metadata = format!(
            "[[buildpacks]]\n{group}[[processes]]\ntype = \"web\"\ncommand = [\"true\"]\nbuildpack-id = \"bench/large\"\n"
        );
        write(&site.path("layers/config/metadata.toml"), metadata.as_bytes(), 0o644)?;
        let temporary = site.path("temporary");
        fs::create_dir_all(&temporary).map_err(|error| failed("make", &temporary, &error))?;
        write_run_image(&site.path("layout/index.docker.io/library/run/latest"), architecture(), b"run")?;
        for name in ["analyzer", "exporter"] {
            let link = site.path(name);
            std::os::unix::fs::symlink(&site.lifecycle.program, &link)
                .map_err(|error| failed("link", &link, &error))?;
        }
        Ok(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// The layout of the image.
    pub(in crate::bench) fn layout(&self) -> PathBuf {
        self.path("layout/index.docker.io/bench/app/latest")
    }

    fn program(&self, name: &str, to: To<'_>) -> Command {
        let mut command = Command::new(self.path(name));
        command
            .env("CNB_PLATFORM_API", "0.14")
            .env("CNB_EXPERIMENTAL_MODE", "quiet")
            .env("TMPDIR", self.path("temporary"))
            .arg("-layers")
            .arg(self.path("layers"))
            .arg("-analyzed")
            .arg(self.path("layers/analyzed.toml"))
            // As root they would become somebody else, whom none of this belongs to.
            .args(["-uid", "0", "-gid", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let To::Layout = to {
            command.arg("-layout").arg("-layout-dir").arg(self.path("layout"));
        }
        command
    }

    /// Exports once, as if nothing had been there; only the exporter itself is timed.
    pub(in crate::bench) fn export(&self, to: To<'_>, compression: Option<&str>) -> Result<Outcome> {
        let layout = self.path("layout/index.docker.io/bench");
        run_command(Command::new("rm").arg("-rf").arg(&layout))?;
        let own = ["bench/app".to_owned()];
        let (run, images) = match to {
            To::Layout => ("run", &own[..]),
            To::Registry { run, images } => (run, images),
        };
        run_command(self.program("analyzer", to).args(["-run-image", run]).arg(&images[0]))?;
        // What the run before wrote is not this one's business.
        run_command(&mut Command::new("sync"))?;
        let mut export = self.program("exporter", to);
        export.arg("-app").arg(self.path("app"));
        export.arg("-group").arg(self.path("layers/group.toml"));
        export.arg("-launcher").arg(&self.lifecycle.launcher).args(images);
        if let Some(compression) = compression {
            export.env("WAPACK_COMPRESSION", compression);
        }
        let mut outcome = measure(&mut export)?;
        if let To::Layout = to {
            let size = capture(Command::new("du").args(["-s", "--block-size=1"]).arg(&layout))?;
            let bytes: u64 = size.split_whitespace().next().and_then(|size| size.parse().ok()).unwrap_or(0);
            outcome.remark = format!(", image of {:.0} MB", bytes as f64 / 1e6);
        }
        Ok(outcome)
    }
}

pub(in crate::bench) fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
