//! A small Debian to build upon, made of packages, without a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::command::{run, step};
use crate::{setup, workspace};

/// The release, and what programs usually need beside its essential packages.
const RELEASE: &str = "bookworm";
const PACKAGES: &str = "ca-certificates,libstdc++6,tzdata";
/// The image's name in its layout.
pub(crate) const TAG: &str = "bookworm";

/// Makes the layout `target/base` when it is not there, and says how to use it.
pub(crate) fn run_command() -> Result<()> {
    let layout = layout()?;
    println!("\nTo build upon it:\n  wapack build --run-image oci:{}:{TAG} …\n", layout.display());
    Ok(())
}

/// The layout, made when it is not there.
pub(crate) fn layout() -> Result<PathBuf> {
    let layout = workspace::target().join("base");
    if layout.join("index.json").is_file() {
        return Ok(layout);
    }
    setup::for_containers()?;
    let work = workspace::target().join("base.work");
    if work.exists() {
        fs::remove_dir_all(&work).map_err(|error| format!("cannot remove `{}`: {error}", work.display()))?;
    }
    fs::create_dir_all(&work).map_err(|error| format!("cannot make `{}`: {error}", work.display()))?;
    step(&format!("mmdebstrap {RELEASE}"));
    run(Command::new("mmdebstrap")
        .args(["--quiet", "--variant=essential", &format!("--include={PACKAGES}")])
        // A machine whose clock is ahead of the mirror is no reason to fail.
        .args(["--aptopt=Acquire::Check-Valid-Until \"false\"", RELEASE])
        .arg(work.join("root.tar"))
        .args(apt_sources()))?;
    let umoci = |arguments: &[&str]| run(Command::new("umoci").current_dir(&work).args(arguments));
    let image = format!("layout:{TAG}");
    umoci(&["init", "--layout", "layout"])?;
    umoci(&["new", "--image", &image])?;
    umoci(&["raw", "add-layer", "--image", &image, "root.tar"])?;
    let path = "--config.env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    umoci(&["config", "--image", &image, path, "--config.user=1000:1000"])?;
    umoci(&["gc", "--layout", "layout"])?;
    fs::rename(work.join("layout"), &layout)
        .map_err(|error| format!("cannot put the layout at `{}`: {error}", layout.display()))?;
    // What is left is scratch; the next run would remove it, too.
    let _ = fs::remove_dir_all(&work);
    Ok(layout)
}

/// The file that says where apt gets packages from, on a Debian or one like it.
fn apt_sources() -> Option<&'static Path> {
    let known = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    known.into_iter().map(Path::new).find(|path| path.is_file())
}
