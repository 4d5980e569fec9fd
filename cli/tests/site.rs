//! A private cache and configuration, and the program in it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/website");

pub(crate) struct Site {
    temp: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    /// Fails with everything that was said.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "\n{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.out.contains(part), "no {part:?} in\n{}\n{}", self.out, self.err);
        }
        self
    }

    #[track_caller]
    pub(crate) fn complains(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "no {part:?} in\n{}", self.err);
        }
        self
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { temp: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.temp.path()
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The program in this directory, with nothing of the caller's environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wapack"));
        command.args(arguments).current_dir(self.path()).env_clear().env("HOME", self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().unwrap().into()
    }

    /// A buildpack that is one of the test guests; `None`, and why, when they are not built.
    pub(crate) fn guest(&self, name: &str) -> Option<PathBuf> {
        let program = Path::new(env!("CARGO_BIN_EXE_wapack"));
        let component = program.ancestors().find_map(|ancestor| {
            let file = ancestor
                .join("wasm32-wasip2/guest/examples")
                .join(format!("{}.wasm", name.replace('-', "_")));
            file.is_file().then_some(file)
        });
        let Some(component) = component else {
            println!("SKIPPED: the guest `{name}` is not built; `cargo xtask guests` builds it");
            return None;
        };
        let toml = format!("api = \"0.12\"\n[buildpack]\nid = \"test/{name}\"\nversion = \"0.1.0\"\n");
        let directory = self.file(&format!("{name}/buildpack.toml"), &toml).parent().unwrap().to_owned();
        std::fs::copy(component, directory.join("buildpack.wasm")).unwrap();
        Some(directory)
    }

    fn blob(&self, layout: &str, digest: &serde_json::Value) -> Vec<u8> {
        let name = digest.as_str().unwrap().replace("sha256:", "blobs/sha256/");
        std::fs::read(self.path().join(layout).join(name)).unwrap()
    }

    /// The manifest of the first image of a layout.
    pub(crate) fn manifest(&self, layout: &str) -> serde_json::Value {
        let index = std::fs::read(self.path().join(layout).join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        serde_json::from_slice(&self.blob(layout, &index["manifests"][0]["digest"])).unwrap()
    }

    /// The configuration of the first image of a layout.
    pub(crate) fn configuration(&self, layout: &str) -> serde_json::Value {
        serde_json::from_slice(&self.blob(layout, &self.manifest(layout)["config"]["digest"])).unwrap()
    }

    /// Everything but directories in the layers of the first image of a layout, sorted.
    pub(crate) fn layer_names(&self, layout: &str) -> Vec<String> {
        let mut names = Vec::new();
        for layer in self.manifest(layout)["layers"].as_array().unwrap() {
            let bytes = self.blob(layout, &layer["digest"]);
            let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(bytes.as_slice()));
            for entry in archive.entries().unwrap() {
                let entry = entry.unwrap();
                if !entry.header().entry_type().is_dir() {
                    names.push(entry.path().unwrap().display().to_string());
                }
            }
        }
        names.sort();
        names
    }

    /// The contents of the only file called `name` in the layers of the first image of a layout.
    pub(crate) fn file_in_layers(&self, layout: &str, name: &str) -> Vec<u8> {
        let mut found = Vec::new();
        for layer in self.manifest(layout)["layers"].as_array().unwrap() {
            let bytes = self.blob(layout, &layer["digest"]);
            let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(bytes.as_slice()));
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                if entry.path().unwrap().file_name().is_some_and(|found| found == name) {
                    found.push(Vec::new());
                    entry.read_to_end(found.last_mut().unwrap()).unwrap();
                }
            }
        }
        assert_eq!(found.len(), 1, "files called {name}");
        found.remove(0)
    }

    /// Every file called `name` below a directory of this site's home.
    pub(crate) fn find_files(&self, below: &str, name: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.path().join(format!(".{below}"))];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    open.push(path);
                } else if path.file_name().is_some_and(|found| found == name) {
                    found.push(path);
                }
            }
        }
        found
    }

    /// Changes the configuration of the first image of a layout, digests and all.
    pub(crate) fn change_configuration(&self, layout: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let mut configuration = self.configuration(layout);
        change(&mut configuration);
        let mut manifest = self.manifest(layout);
        let (digest, size) = self.add_blob(layout, &configuration);
        manifest["config"]["digest"] = digest.into();
        manifest["config"]["size"] = size.into();
        let (digest, size) = self.add_blob(layout, &manifest);
        let path = self.path().join(layout).join("index.json");
        let mut index: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        index["manifests"][0]["digest"] = digest.into();
        index["manifests"][0]["size"] = size.into();
        std::fs::write(path, index.to_string()).unwrap();
    }

    fn add_blob(&self, layout: &str, document: &serde_json::Value) -> (String, usize) {
        let bytes = document.to_string().into_bytes();
        let path = self.file("blob", "");
        std::fs::write(&path, &bytes).unwrap();
        let hashed: Ended = Command::new("sha256sum").arg(&path).output().unwrap().into();
        let hex = hashed.out.split(' ').next().unwrap().to_owned();
        std::fs::rename(path, self.path().join(layout).join("blobs/sha256").join(&hex)).unwrap();
        (format!("sha256:{hex}"), bytes.len())
    }

    /// Another program in this directory, which has to succeed. One that is missing is only accepted outside
    /// of continuous integration.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> Option<String> {
        match Command::new(program).args(arguments).current_dir(self.path()).output() {
            Ok(output) => Some(Ended::from(output).with(0).out),
            Err(error) => {
                assert!(std::env::var("CI").is_err(), "`{program}` must not be missing in CI: {error}");
                println!("SKIPPED: `{program}` is not installed");
                None
            }
        }
    }

    /// Directories of builds that are under way, or were left behind.
    pub(crate) fn work_directories(&self) -> usize {
        std::fs::read_dir(self.path().join(".cache/wapack/work")).map_or(0, Iterator::count)
    }
}
