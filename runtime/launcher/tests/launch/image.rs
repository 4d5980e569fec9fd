//! An image's directories on disk, and what a launch in them came to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub(crate) const LAUNCHER: &str = env!("CARGO_BIN_EXE_launcher");

/// An image's directories on disk.
pub(crate) struct Image {
    root: TempDir,
}

impl Image {
    pub(crate) fn new(metadata: &str) -> Self {
        let image = Self { root: TempDir::new().unwrap() };
        fs::create_dir_all(image.app()).unwrap();
        image.file("layers/config/metadata.toml", metadata);
        image
    }

    /// One direct process `web` of a current buildpack `a/b`.
    pub(crate) fn with_process(command: &str) -> Self {
        Self::new(&format!(
            "{BUILDPACK}\n[[processes]]\ntype = \"web\"\ndirect = true\nbuildpack-id = \"a/b\"\n{command}\n"
        ))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn app(&self) -> PathBuf {
        self.path("workspace")
    }

    /// A file of layer `layer` of buildpack `a/b`.
    pub(crate) fn layer(&self, name: &str, contents: &str) -> PathBuf {
        self.file(&format!("layers/a_b/{name}"), contents)
    }

    pub(crate) fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }

    pub(crate) fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.layer(name, &format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The launcher under the name of a process type, with an image's environment.
    pub(crate) fn launcher(&self, name: &str) -> Command {
        let mut command = Command::new(LAUNCHER);
        command
            .arg0(format!("/cnb/process/{name}"))
            .env_clear()
            .env("PATH", "/cnb/process:/cnb/lifecycle:/usr/bin:/bin")
            .env("CNB_PLATFORM_API", "0.15")
            .env("CNB_LAYERS_DIR", self.path("layers"))
            .env("CNB_APP_DIR", self.app());
        command
    }

    pub(crate) fn web(&self) -> Command {
        self.launcher("web")
    }
}

pub(crate) const BUILDPACK: &str = "[[buildpacks]]\nid = \"a/b\"\nversion = \"1\"\napi = \"0.12\"\n";

/// What a launch printed; it must have succeeded, and printed nothing of its own.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line a failed launch printed.
pub(crate) fn failure(command: &mut Command, code: i32) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let errors = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{errors}");
    assert_eq!(stdout, b"", "a failed launch starts nothing");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors.strip_prefix("ERROR: failed to launch: ").expect(&errors).trim_end().to_owned()
}

/// Shell processes are about this one shell.
#[track_caller]
pub(crate) fn needs_bash() {
    assert!(Path::new("/bin/bash").exists(), "`/bin/bash` is needed for this test");
}
