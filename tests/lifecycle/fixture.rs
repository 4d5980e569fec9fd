//! A builder image's files in a directory of one test's own, and programs run in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::support::target_directory;

pub(crate) const RUN_IMAGE: &str = "registry.example/run:1";
pub(crate) const IMAGE: &str = "registry.example/app:latest";
/// Whom programs run as that refuse root: `nobody`, whom every machine knows.
pub(crate) const USER: u32 = 65534;

/// Names that the program answers to.
const PROGRAMS: [&str; 8] =
    ["analyzer", "detector", "restorer", "extender", "builder", "exporter", "creator", "rebaser"];

/// The directory with `lifecycle` and its other names.
#[derive(Debug, Clone)]
pub(crate) struct Lifecycle(PathBuf);

impl Lifecycle {
    /// Ours: the program that cargo built, where every user can start it.
    pub(crate) fn ours() -> Self {
        static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
        let directory = DIRECTORY.get_or_init(|| {
            let program = Path::new(env!("CARGO_BIN_EXE_acceptance-worker")).with_file_name("wapack");
            assert!(program.is_file(), "`{}` is missing: run `cargo build` first", program.display());
            // For all tests of this process; the next run makes it anew.
            let directory = std::env::temp_dir().join("wapack-acceptance-lifecycle");
            std::fs::create_dir_all(&directory).expect("a directory");
            let copy = directory.join("lifecycle");
            let fresh = tempfile::NamedTempFile::new_in(&directory).expect("a file").into_temp_path();
            std::fs::copy(&program, &fresh).expect("a copy of the program");
            fresh.persist(&copy).expect("the program in its place");
            name_programs(&directory, &copy);
            directory
        });
        Self(directory.clone())
    }

    /// The reference implementation, where the environment says where it is: a directory
    /// with `lifecycle`.
    pub(crate) fn reference() -> Option<Self> {
        let named = std::env::var_os("WAPACK_REFERENCE_LIFECYCLE")?;
        let directory = std::env::temp_dir().join("wapack-acceptance-reference");
        std::fs::create_dir_all(&directory).expect("a directory");
        name_programs(&directory, &Path::new(&named).join("lifecycle"));
        Some(Self(directory))
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn name_programs(directory: &Path, program: &Path) {
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    if program.parent() == Some(directory) {
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    for name in PROGRAMS.iter().chain(&["lifecycle"]) {
        let link = directory.join(name);
        if link != program && symlink(program, &link).is_err() {
            // Another test process was first.
            assert!(link.exists(), "`{}` leads nowhere", link.display());
        }
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Both streams.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.said());
        self
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Directories as a platform mounts them, and the variables that name them.
pub(crate) struct Platform {
    pub(crate) root: TempDir,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) variables: BTreeMap<String, String>,
}

impl Platform {
    /// An app, a run image in a layout, and no buildpack yet.
    pub(crate) fn new(lifecycle: Lifecycle, api: &str) -> Self {
        // The reference implementation reads paths as names of images, which have no capitals.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("wapack-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let root = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir();
        let root = root.expect("a temporary directory");
        let mut platform = Self { root, lifecycle, variables: BTreeMap::new() };
        for name in
            ["app", "buildpacks", "layers", "cache", "platform/env", "build-config/env", "layout", "sbom"]
        {
            std::fs::create_dir_all(platform.path(name)).expect("a directory");
        }
        platform.file("app/hello.txt", "hello\n", 0o644);
        platform.file("order.toml", "", 0o644);
        platform.file("run.toml", &format!("[[images]]\nimage = \"{RUN_IMAGE}\"\n"), 0o644);
        for kind in ["cdx", "spdx", "syft"] {
            platform.file(&format!("sbom/sbom.{kind}.json"), "{}", 0o644);
        }
        let launcher = target_directory().join("embed/launcher/linux-amd64");
        std::fs::copy(&launcher, platform.path("launcher")).expect("run `cargo xtask embed` first");
        platform.run_image(RUN_IMAGE);
        for (name, value) in [
            ("CNB_PLATFORM_API", api),
            ("CNB_EXPERIMENTAL_MODE", "quiet"),
            ("CNB_USE_LAYOUT", "true"),
            ("CNB_NO_COLOR", "true"),
            ("PATH", "/usr/bin:/bin"),
        ] {
            platform.set(name, value);
        }
        for (name, path) in [
            ("CNB_APP_DIR", "app"),
            ("CNB_BUILDPACKS_DIR", "buildpacks"),
            ("CNB_EXTENSIONS_DIR", "extensions"),
            ("CNB_LAYERS_DIR", "layers"),
            ("CNB_CACHE_DIR", "cache"),
            ("CNB_PLATFORM_DIR", "platform"),
            ("CNB_BUILD_CONFIG_DIR", "build-config"),
            ("CNB_LAYOUT_DIR", "layout"),
            ("CNB_ORDER_PATH", "order.toml"),
            ("CNB_RUN_PATH", "run.toml"),
            ("CNB_SYSTEM_PATH", "system.toml"),
            ("HOME", "home"),
        ] {
            let path = platform.path(path).display().to_string();
            platform.set(name, &path);
        }
        if is_root() {
            platform.set("CNB_USER_ID", &USER.to_string());
            platform.set("CNB_GROUP_ID", &USER.to_string());
        } else {
            platform.set("CNB_USER_ID", &rustix::process::getuid().as_raw().to_string());
            platform.set("CNB_GROUP_ID", &rustix::process::getgid().as_raw().to_string());
        }
        platform
    }

    /// Adds a run image; a label says its name.
    pub(crate) fn run_image(&self, name: &str) {
        write_run_image(&self.path("layout").join(name.replace(':', "/")), name);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn file(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    }

    /// Adds a buildpack `acme/<name>` with two shell scripts.
    pub(crate) fn buildpack(&self, name: &str, api: &str, detect: &str, build: &str) {
        let directory = format!("buildpacks/acme_{name}/1.0.0");
        let toml = format!(
            "api = \"{api}\"\n[buildpack]\nid = \"acme/{name}\"\nversion = \"1.0.0\"\nname = \"{name}\"\n\
             [[targets]]\nos = \"linux\"\n"
        );
        self.file(&format!("{directory}/buildpack.toml"), &toml, 0o644);
        for (phase, script) in [("detect", detect), ("build", build)] {
            self.file(&format!("{directory}/bin/{phase}"), &format!("#!/bin/sh\nset -eu\n{script}\n"), 0o755);
        }
    }

    /// The order: one group of `acme/…` buildpacks, the ones with a `?` optional.
    pub(crate) fn order(&self, members: &[&str]) {
        let mut text = "[[order]]\n".to_owned();
        for member in members {
            let name = member.trim_end_matches('?');
            let optional = member.ends_with('?');
            let _ = write!(
                text,
                "[[order.group]]\nid = \"acme/{name}\"\nversion = \"1.0.0\"\noptional = {optional}\n"
            );
        }
        self.file("order.toml", &text, 0o644);
    }

    /// Runs a program as a user who is not root.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Ended {
        self.run_below(&[], program, arguments)
    }

    /// The same, as the child of another program.
    pub(crate) fn run_below(&self, parent: &[&str], program: &str, arguments: &[&str]) -> Ended {
        if is_root() {
            for name in ["app", "layers", "cache", "layout"] {
                give(&self.path(name));
            }
        }
        let mut command = self.command(program, arguments);
        if let [parent, rest @ ..] = parent {
            let child = command;
            command = Command::new(parent);
            command.args(rest).arg(child.get_program()).args(child.get_args());
            command.env_clear().envs(&self.variables).current_dir(self.root.path());
        }
        if is_root() {
            command.uid(USER).gid(USER);
        }
        Ended::from(command.output().expect("the program starts"))
    }

    /// Runs a program as whoever runs the tests.
    pub(crate) fn run_as_we_are(&self, program: &str, arguments: &[&str]) -> Ended {
        Ended::from(self.command(program, arguments).output().expect("the program starts"))
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        // Others have to get to what is in it.
        std::fs::set_permissions(self.root.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let mut command = Command::new(self.lifecycle.program(program));
        command.args(arguments).env_clear().envs(&self.variables).current_dir(self.root.path());
        command
    }

    /// Arguments that have no variable, for programs that export.
    pub(crate) fn launcher(&self) -> [String; 4] {
        let path = |name| self.path(name).display().to_string();
        ["-launcher".to_owned(), path("launcher"), "-launcher-sbom".to_owned(), path("sbom")]
    }

    /// Every phase by itself; the image is [`IMAGE`].
    pub(crate) fn build(&self) -> Vec<Ended> {
        let launcher = self.launcher();
        let mut export: Vec<&str> = launcher.iter().map(String::as_str).collect();
        export.push(IMAGE);
        [
            ("analyzer", &[IMAGE][..]),
            ("detector", &[]),
            ("restorer", &[]),
            ("builder", &[]),
            ("exporter", &export),
        ]
        .into_iter()
        .map(|(program, arguments)| self.run(program, arguments).succeeded())
        .collect()
    }

    /// The image's layout.
    pub(crate) fn image(&self) -> Layout {
        Layout(self.path("layout").join(IMAGE.replace(':', "/")))
    }

    pub(crate) fn toml(&self, name: &str) -> toml::Table {
        let path = self.path(name);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
        text.parse().expect("TOML")
    }
}

/// One image as a layout has it.
pub(crate) struct Layout(PathBuf);

impl Layout {
    fn json(path: &Path) -> Value {
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
        serde_json::from_slice(&bytes).expect("JSON")
    }

    fn blob(&self, digest: &Value) -> PathBuf {
        let hex = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
        self.0.join("blobs/sha256").join(hex)
    }

    pub(crate) fn digest(&self) -> String {
        let index = Self::json(&self.0.join("index.json"));
        index["manifests"][0]["digest"].as_str().expect("a digest").to_owned()
    }

    pub(crate) fn configuration(&self) -> Value {
        let manifest = Self::json(&self.blob(&self.digest().into()));
        Self::json(&self.blob(&manifest["config"]["digest"]))
    }

    /// Names of everything in the layers, with what files hold; later layers win.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let manifest = Self::json(&self.blob(&self.digest().into()));
        let mut files = BTreeMap::new();
        for layer in manifest["layers"].as_array().expect("layers") {
            let blob = std::fs::File::open(self.blob(&layer["digest"])).expect("a blob");
            for entry in tar::Archive::new(flate2::read::MultiGzDecoder::new(blob)).entries().expect("a tar")
            {
                let mut entry = entry.expect("an entry");
                let name = entry.path().expect("a path").display().to_string();
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut bytes).expect("its bytes");
                files.insert(name, String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        files
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Lets the user of the build write to a directory, where that is somebody else.
pub(crate) fn give_if_root(path: &Path) {
    if is_root() {
        give(path);
    }
}

/// Gives all of a directory to the user of the build.
pub(crate) fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(USER), Some(USER)).expect("root gives");
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).expect("a directory") {
            give(&entry.expect("an entry").path());
        }
    }
}

/// A run image of one layer, as a platform would have put it there.
fn write_run_image(directory: &Path, name: &str) {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("a directory");
    let put = |bytes: &[u8]| {
        let hex = sha256(bytes);
        std::fs::write(blobs.join(&hex), bytes).expect("a blob");
        format!("sha256:{hex}")
    };
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    tar.append_data(&mut header, "etc/base", &b"base\n"[..]).expect("an entry");
    let tar = tar.into_inner().expect("a tar");
    let diff_id = sha256(&tar);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&tar).expect("bytes");
    let layer = gzip.finish().expect("gzip");
    let configuration = serde_json::to_vec(&json!({
        "created": "1980-01-01T00:00:01Z", "architecture": "amd64", "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"], "User": "1000:1000", "Labels": {
            "io.buildpacks.base.distro.name": "debian", "io.buildpacks.base.distro.version": "12",
            "io.buildpacks.stack.id": "acme.stack", "acme.run-image": name,
        }},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
        "history": [{"created": "1980-01-01T00:00:01Z", "created_by": "base"}],
    }))
    .expect("JSON");
    let oci = "application/vnd.oci.image";
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": format!("{oci}.manifest.v1+json"),
        "config": {"mediaType": format!("{oci}.config.v1+json"), "digest": put(&configuration), "size": configuration.len()},
        "layers": [{"mediaType": format!("{oci}.layer.v1.tar+gzip"), "digest": put(&layer), "size": layer.len()}],
    }))
    .expect("JSON");
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": format!("{oci}.manifest.v1+json"), "digest": put(&manifest), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "1"},
    }]});
    std::fs::write(directory.join("index.json"), index.to_string()).expect("a file");
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).expect("a file");
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
