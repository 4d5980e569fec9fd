//! A small Debian for each architecture, under one name, to build upon.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::layouts::{offered, write_index};
use crate::site::Ended;

const NAME: &str = "debian";

/// Where it is, as `--run-image` takes it; made once and kept beside what cargo builds. Packages are unpacked
/// and nothing of them is run, so that it makes no difference which machine this is.
///
/// `None`, said aloud, where it cannot be made.
pub(crate) fn each_debian() -> Option<String> {
    let skip = |reason: &str| {
        assert!(std::env::var("CI").is_err(), "this must not be skipped in CI: {reason}");
        println!("SKIPPED: {reason}");
    };
    if !rustix::process::geteuid().is_root() {
        skip("making a Debian needs root");
        return None;
    }
    let kept = Path::new(env!("CARGO_BIN_EXE_wapack")).ancestors().nth(2).unwrap().join("acceptance");
    fs::create_dir_all(&kept).unwrap();
    // Of several tests, one makes it and the others wait.
    let lock = File::create(kept.join("each-debian.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let layout = kept.join("each-debian");
    let place = format!("oci:{}:{NAME}", layout.display());
    if layout.exists() {
        return Some(place);
    }
    let work = tempfile::tempdir_in(&kept).unwrap();
    let made = work.path().join("all");
    fs::create_dir_all(made.join("blobs/sha256")).unwrap();
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let Some(descriptor) = one(work.path(), architecture, &made) else {
            skip("a Debian cannot be made: are mmdebstrap and umoci there, and a network?");
            return None;
        };
        manifests.push(descriptor);
    }
    write_index(&made, NAME, &manifests);
    fs::rename(made, &layout).unwrap();
    Some(place)
}

/// Makes the one for an architecture; its blobs go to `made`. Gives the descriptor of its manifest.
fn one(work: &Path, architecture: &str, made: &Path) -> Option<Value> {
    let packed = work.join(architecture).with_extension("tar");
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--quiet", "--variant=extract", "--include=bash,base-files,dash,libgcc-s1,libstdc++6"])
        // A machine whose clock is ahead of the mirror is no reason to fail.
        .args(["--aptopt=Acquire::Check-Valid-Until \"false\"", &format!("--architectures={architecture}")])
        .arg("bookworm")
        .arg(&packed)
        .args(apt_sources());
    mmdebstrap.status().ok().filter(std::process::ExitStatus::success)?;
    let image = format!("{architecture}:{NAME}");
    let umoci = |arguments: &[&str]| {
        Some(Ended::from(Command::new("umoci").args(arguments).current_dir(work).output().ok()?).with(0))
    };
    umoci(&["init", "--layout", architecture])?;
    umoci(&["new", "--image", &image])?;
    umoci(&["raw", "add-layer", "--image", &image, packed.to_str().unwrap()])?;
    let settings = ["--os=linux", "--config.user=1234:1234", "--config.env=PATH=/usr/bin:/bin"];
    let architecture_setting = format!("--architecture={architecture}");
    umoci(&[&["config", "--image", &image, &architecture_setting][..], &settings].concat())?;
    umoci(&["gc", "--layout", architecture])?;
    let layout = work.join(architecture);
    for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let blob = entry.unwrap();
        fs::rename(blob.path(), made.join("blobs/sha256").join(blob.file_name())).unwrap();
    }
    Some(offered(&layout, architecture))
}

/// The file that says where apt gets packages from, on a Debian or one like it.
fn apt_sources() -> Option<PathBuf> {
    let known = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    known.into_iter().map(PathBuf::from).find(|path| path.is_file())
}
