//! The tools of the field, and a look at layouts that shares no code with the library.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use acceptance::Job;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// How long anything that should happen soon may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says aloud why a test, or a part of one, is not run. Continuous integration has to have everything.
#[expect(clippy::print_stderr, reason = "this is for whoever runs the tests")]
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var("CI").is_err(), "this must not be skipped in CI: {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// Whether all these programs are installed; if not, says so.
pub(crate) fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &&&str| std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    let missing: Vec<_> = programs.iter().filter(|name| !found(name)).collect();
    if !missing.is_empty() {
        skip(&format!("not installed: {missing:?}"));
    }
    missing.is_empty()
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a program that has to succeed; returns what it printed.
pub(super) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("the program is there");
    succeeded(command, &output);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs a program that has to succeed, with `input` as its standard input.
pub(super) fn run_with(command: &mut Command, input: &[u8]) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program is there");
    child.stdin.take().expect("it was asked for").write_all(input).expect("it reads its input");
    let output = child.wait_with_output().expect("it ends");
    succeeded(command, &output);
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn succeeded(command: &Command, output: &Output) {
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Waits until `condition` holds.
pub(super) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The program that makes one build in a process of its own, after `wrapper`.
pub(super) fn build_process(wrapper: &[&str], job: &Job) -> Command {
    let program = env!("CARGO_BIN_EXE_acceptance-build");
    let mut command = match wrapper.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.arg(serde_json::to_string(job).expect("a job as JSON"));
    command
}

/// What a build in a process of its own came to: a digest, or an error and its message.
pub(super) fn result_of(output: &Output) -> Result<String, (String, String)> {
    let text = String::from_utf8_lossy(&output.stdout);
    let last: Value = text
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| panic!("no result: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let field = |name: &str| last[name].as_str().map(str::to_owned);
    field("digest").ok_or_else(|| (field("error").unwrap_or_default(), field("message").unwrap_or_default()))
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// A layout whose every byte was checked.
pub(super) struct Layout {
    directory: PathBuf,
    /// Digest of the manifest by the image's name.
    pub(super) images: BTreeMap<String, String>,
}

impl Layout {
    /// Reads a layout: everything that is mentioned is there, and every blob
    /// has the digest that is its name.
    pub(super) fn verified(directory: &Path) -> Self {
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("JSON");
        let version = parse(&fs::read(directory.join("oci-layout")).expect("`oci-layout`"));
        assert_eq!(version["imageLayoutVersion"], "1.0.0");
        for entry in fs::read_dir(directory.join("blobs/sha256")).expect("blobs") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            assert_eq!(sha256(&fs::read(&path).expect("a blob")), format!("sha256:{name}"));
        }
        let mut layout = Self { directory: directory.to_owned(), images: BTreeMap::new() };
        let index = parse(&fs::read(directory.join("index.json")).expect("`index.json`"));
        for descriptor in index["manifests"].as_array().expect("a list") {
            let manifest = layout.document(descriptor);
            layout.document(&manifest["config"]);
            for layer in manifest["layers"].as_array().expect("a list") {
                layout.checked(layer);
            }
            let name = &descriptor["annotations"]["org.opencontainers.image.ref.name"];
            let name = name.as_str().expect("a name").to_owned();
            let digest = descriptor["digest"].as_str().expect("a digest").to_owned();
            assert_eq!(layout.images.insert(name, digest), None, "each name once");
        }
        layout
    }

    fn checked(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().expect("a digest");
        let path = self.blob(digest);
        let size = fs::metadata(&path).unwrap_or_else(|error| panic!("{digest}: {error}")).len();
        assert_eq!(descriptor["size"], size, "{digest}");
        path
    }

    fn document(&self, descriptor: &Value) -> Value {
        serde_json::from_slice(&fs::read(self.checked(descriptor)).expect("a blob")).expect("JSON")
    }

    pub(super) fn blob(&self, digest: &str) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// Manifest and configuration of the only image.
    pub(super) fn image(&self) -> (Value, Value) {
        let digest = self.images.values().next().expect("an image");
        let manifest: Value =
            serde_json::from_slice(&fs::read(self.blob(digest)).expect("a blob")).expect("JSON");
        let configuration = self.document(&manifest["config"]);
        (manifest, configuration)
    }

    /// The layers of the only image: files, from the bottom.
    pub(super) fn layers(&self) -> Vec<PathBuf> {
        let (manifest, _) = self.image();
        manifest["layers"].as_array().expect("a list").iter().map(|layer| self.checked(layer)).collect()
    }
}

/// What GNU tar makes of a layer: mode, owner, time and name of each entry.
pub(super) fn tar_list(layer: &Path) -> Vec<String> {
    let mut command = Command::new("tar");
    command.args([
        "--list",
        "--gzip",
        "--verbose",
        "--numeric-owner",
        "--full-time",
        "--utc",
        "-P",
        "--file",
    ]);
    let text = run(command.arg(layer).env("LC_ALL", "C"));
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// One file of a layer, as GNU tar extracts it.
pub(super) fn tar_file(layer: &Path, name: &str) -> String {
    let mut command = Command::new("tar");
    run(command.args(["--extract", "--gzip", "--to-stdout", "-P", "--file"]).arg(layer).arg(name))
}

/// The digest of a layer's tar, by gzip and `sha256sum`.
pub(super) fn diff_id(layer: &Path) -> String {
    let mut command = Command::new("sh");
    let text = run(command.args(["-c", "gzip -dc \"$1\" | sha256sum", "sh"]).arg(layer));
    format!("sha256:{}", text.split_whitespace().next().expect("a digest"))
}
