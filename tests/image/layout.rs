//! Layouts: what others read of ours, what we read of theirs, and what is refused.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::FlockOperation;
use wapack_runtime::fault::Diagnose as _;

use super::tools::{Layout, have, is_root, run, skip};
use crate::support::{IMAGE, Site, target_directory};

/// A small Debian in a layout, under the name `debian`; made once and kept in `target`.
pub(super) fn debian() -> Option<PathBuf> {
    if !have(&["mmdebstrap", "umoci"]) {
        return None;
    }
    if !is_root() {
        skip("making a Debian needs root");
        return None;
    }
    let directory = target_directory().join("acceptance");
    fs::create_dir_all(&directory).expect("a directory");
    // Of several tests, one makes it and the others wait.
    let lock = File::create(directory.join("lock")).expect("a file");
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).expect("a lock");
    let layout = directory.join("debian-2");
    if layout.exists() {
        return Some(layout);
    }
    let packed = directory.join("debian.tar");
    let fresh = directory.join("fresh");
    let _ = fs::remove_dir_all(&fresh);
    let made = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=extract", "--include=bash,base-files,dash,libgcc-s1,libstdc++6"])
        // A machine whose clock is ahead of the mirror is no reason to fail.
        .args(["--aptopt=Acquire::Check-Valid-Until \"false\"", "bookworm"])
        .arg(&packed)
        // Where this machine's own apt gets its packages.
        .args(apt_sources())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        skip("a Debian cannot be made: is there a network?");
        return None;
    }
    let umoci = |arguments: &[&str], last: Option<&Path>| {
        let mut command = Command::new("umoci");
        run(command.current_dir(&directory).args(arguments).args(last));
    };
    umoci(&["init", "--layout", "fresh"], None);
    umoci(&["new", "--image", "fresh:debian"], None);
    umoci(&["raw", "add-layer", "--image", "fresh:debian"], Some(&packed));
    let settings = [
        "--config.user=1234:1234",
        "--config.env=PATH=/usr/bin:/bin",
        "--config.env=BASE=yes",
        "--config.cmd=/bin/bash",
        "--config.label=org.example.base=yes",
        "--config.stopsignal=SIGQUIT",
        "--config.exposedports=9/tcp",
        "--config.volume=/data",
    ];
    umoci(&[&["config", "--image", "fresh:debian"], &settings[..]].concat(), None);
    umoci(&["gc", "--layout", "fresh"], None);
    fs::remove_file(packed).expect("it is there");
    fs::rename(fresh, &layout).expect("a name");
    Some(layout)
}

/// The files that say where apt gets packages from, on a Debian or one like it.
fn apt_sources() -> Option<PathBuf> {
    let known = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    known.into_iter().map(PathBuf::from).find(|path| path.is_file())
}

/// The same digest, and the judgement of others.
#[test]
fn skopeo_and_umoci_accept_the_image() {
    if !have(&["skopeo", "umoci"]) {
        return;
    }
    let mut site = Site::new().guest("well-behaved");
    let digest = site.build().digest();
    let reference = format!("oci:{}:{IMAGE}", site.path("image").display());
    let inspected: serde_json::Value =
        serde_json::from_str(&run(Command::new("skopeo").args(["inspect", &reference]))).expect("JSON");
    assert_eq!(inspected["Digest"], digest.as_str());
    assert_eq!(inspected["Layers"].as_array().expect("a list").len(), 4);
    let copy = site.path("copy");
    run(Command::new("skopeo").args(["copy", &reference, &format!("dir:{}", copy.display())]));
    assert_eq!(super::tools::sha256(&fs::read(copy.join("manifest.json")).expect("a file")), digest);
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--rootless", "--image"]);
    umoci.arg(format!("{}:{IMAGE}", site.path("image").display())).arg(site.path("bundle"));
    run(&mut umoci);
    let page = fs::read_to_string(site.path("bundle/rootfs/workspace/index.html")).expect("a file");
    assert_eq!(page, "<h1>hello</h1>\n");
    // Over an image that another tool touched.
    run(Command::new("umoci")
        .args(["tag", "--image"])
        .arg(format!("{}:{IMAGE}", site.path("image").display()))
        .arg("other"));
    site.env.insert("KEY".into(), "2".into());
    let second = site.build().digest();
    let layout = Layout::verified(&site.path("image"));
    assert_eq!(layout.images[IMAGE], second);
    assert_eq!(layout.images["other"], digest);
}

#[test]
fn a_directory_of_somebody_elses_is_refused_and_left_alone() {
    let site = Site::new().guest("well-behaved");
    let output = site.path("image");
    fs::create_dir(&output).expect("a directory");
    fs::write(output.join("thesis.tex"), "years of work").expect("a file");
    let error = site.build().result.expect_err("a refusal");
    assert_eq!(error.id(), "layout.not_a_layout");
    let names: Vec<_> = fs::read_dir(&output)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["thesis.tex"]);
    // A file, and a path through one.
    for output in ["image/thesis.tex", "image/thesis.tex/below"] {
        let mut job = site.job();
        job.output = site.path(output);
        site.build_job(&job, |_| ()).result.expect_err("a refusal");
    }
    assert_eq!(fs::read_to_string(output.join("thesis.tex")).expect("a file"), "years of work");
}
