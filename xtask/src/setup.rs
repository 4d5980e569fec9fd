//! What a machine needs: Rust targets and components, and system packages.
//!
//! Installs what is missing where it may, and nothing twice. Where it may not,
//! it says what to install; what only widens the tests is not insisted on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::command::{capture, find_program, run, step, warn};
use crate::{Result, workspace};

/// Components run here.
pub(crate) const WASM_TARGET: &str = "wasm32-wasip2";

/// An architecture that images can have.
pub(crate) struct Architecture {
    /// As image configurations name it.
    pub(crate) oci: &'static str,
    /// Rust's target for static programs.
    pub(crate) target: &'static str,
    /// Prefix of the C compiler and archiver of another machine.
    cross: &'static str,
}

/// Every architecture we build for.
pub(crate) const ARCHITECTURES: [Architecture; 2] = [
    Architecture { oci: "amd64", target: "x86_64-unknown-linux-musl", cross: "x86_64-linux-gnu" },
    Architecture { oci: "arm64", target: "aarch64-unknown-linux-musl", cross: "aarch64-linux-gnu" },
];

impl Architecture {
    /// Whether programs for it run here.
    pub(crate) fn is_native(&self) -> bool {
        self.target.starts_with(std::env::consts::ARCH)
    }

    /// The C compiler for static programs.
    pub(crate) fn c_compiler(&self) -> String {
        if self.is_native() { "musl-gcc".into() } else { format!("{}-gcc", self.cross) }
    }

    /// The archiver that goes with it.
    pub(crate) fn archiver(&self) -> String {
        if self.is_native() { "ar".into() } else { format!("{}-ar", self.cross) }
    }

    fn packages(&self) -> Vec<String> {
        if self.is_native() {
            return vec!["musl-tools".into()];
        }
        // Debian's package names write x86_64 with a hyphen, and know the kernel's name for the C library.
        vec![format!("gcc-{}", self.cross.replace('_', "-")), format!("libc6-dev-{}-cross", self.oci)]
    }
}

/// For every command, so that the machine is ready for the others too.
pub(crate) fn everything() -> Result<()> {
    for_builds()?;
    for_checks()?;
    for_containers()
}

/// Targets, and compilers for the C parts of programs that go into images.
pub(crate) fn for_builds() -> Result<()> {
    let mut targets = vec![WASM_TARGET];
    targets.extend(ARCHITECTURES.iter().map(|architecture| architecture.target));
    rust_targets(&targets)?;
    let needed: Vec<(String, Vec<String>)> = ARCHITECTURES
        .iter()
        .map(|architecture| (architecture.c_compiler(), architecture.packages()))
        .collect();
    let missing = missing_packages(&needed);
    if missing.is_empty() || install(&missing)? {
        return Ok(());
    }
    Err(format!(
        "C compilers for static programs are missing; as root, run: apt-get install {} (or what your system calls them)",
        missing.join(" ")
    ))
}

/// Formatting and lints.
pub(crate) fn for_checks() -> Result<()> {
    let missing: Vec<&str> = [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")]
        .into_iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    rustup(&["component", "add"], &missing)
}

/// Programs that check an image or start it. Tests that lack one say so and are skipped.
pub(crate) fn for_containers() -> Result<()> {
    programs(&[
        ("crun", "crun"),
        ("runc", "runc"),
        ("skopeo", "skopeo"),
        ("umoci", "umoci"),
        ("mmdebstrap", "mmdebstrap"),
        ("python3", "python3"),
        ("strace", "strace"),
        ("git", "git"),
        ("gcc", "gcc"),
        ("readelf", "binutils"),
        ("xz", "xz-utils"),
        ("zstd", "zstd"),
        ("pigz", "pigz"),
        ("openssl", "openssl"),
        ("qemu-aarch64-static", "qemu-user-static"),
        ("node", "nodejs"),
        ("npm", "npm"),
        ("dockerd", "docker.io"),
        ("containerd", "containerd"),
        ("podman", "podman"),
        // Not on the path: podman starts it to connect a container.
        ("/usr/lib/podman/netavark", "netavark"),
        ("nsenter", "util-linux"),
        ("ip", "iproute2"),
        ("iptables", "iptables"),
        ("nft", "nftables"),
        ("chromium", "chromium"),
        ("docker-registry", "docker-registry"),
        ("htpasswd", "apache2-utils"),
    ])?;
    go_programs();
    Ok(())
}

/// A Docker daemon that can keep images in containerd's store; system packages have older ones.
const NEW_DOCKERD: &str = "github.com/moby/moby/v2/cmd/dockerd@v2.0.0-beta.24";

/// Programs of the field that no system package has.
fn go_programs() {
    let source = workspace::root().join("tests/programs/field");
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let newest = ["go.mod", "go.sum", "registry/main.go"].map(|name| changed(&source.join(name)));
    let programs = workspace::target().join("tools");
    let made = ["crane", "registry"].map(|name| changed(&programs.join(name)));
    if made.iter().min() <= newest.iter().max() {
        let what = "crane, and a registry that knows referrers";
        let packages = ["./registry", "github.com/google/go-containerregistry/cmd/crane"];
        go(what, &["build", "-o", &programs.join("").to_string_lossy()], &packages, &source);
    }
    // Named after what it is of, so that a new version is another program.
    let dockerd = programs.join(NEW_DOCKERD.rsplit('@').next().unwrap_or_default());
    if !dockerd.join("dockerd").is_file() {
        let what = "a Docker daemon that knows containerd's store (the first time takes minutes)";
        go(what, &["install", "-tags", "exclude_graphdriver_btrfs"], &[NEW_DOCKERD], &dockerd);
    }
}

/// Runs Go in a directory, which is also where it installs. What only widens the tests is not insisted on.
fn go(what: &str, command: &[&str], packages: &[&str], directory: &Path) {
    if find_program("go").is_none() {
        warn(&format!("Go 1.26 or newer is not installed, with which tests need {what}"));
        return;
    }
    step(&format!("go {}: {what}", command[0]));
    let made = fs::create_dir_all(directory).map_err(|error| error.to_string());
    let install = || {
        let mut go = Command::new("go");
        // No other Go than the one that is here.
        go.envs([("GOTOOLCHAIN", "local"), ("CGO_ENABLED", "0")]).env("GOBIN", directory);
        run(go.args(command).args(["-trimpath", "-buildvcs=false"]).args(packages).current_dir(directory))
    };
    // A connection that drops is no verdict; Go keeps what it has.
    let result = made.and_then(|()| install().or_else(|_| install()).or_else(|_| install()));
    if let Err(problem) = result {
        warn(&format!("{problem}; some tests need {what}"));
    }
}

/// What benchmarks compare with.
pub(crate) fn for_benchmarks() -> Result<()> {
    programs(&[("buildah", "buildah")])
}

/// Programs that are not insisted on, and the packages they come in.
fn programs(names: &[(&str, &str)]) -> Result<()> {
    let needed: Vec<(String, Vec<String>)> =
        names.iter().map(|(program, package)| ((*program).to_owned(), vec![(*package).to_owned()])).collect();
    let missing = missing_packages(&needed);
    if !missing.is_empty() && !install(&missing)? {
        warn(&format!(
            "not everything can be tried out here; for all of it, run as root: apt-get install {} (or what your \
             system calls them)",
            missing.join(" ")
        ));
    }
    Ok(())
}

fn rust_targets(targets: &[&str]) -> Result<()> {
    let sysroot = capture(Command::new("rustc").args(["--print", "sysroot"]))
        .map_err(|problem| format!("{problem}; install Rust with rustup first"))?;
    // The toolchain's own folder, because a Rust without rustup may have targets too.
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib");
    let missing: Vec<&str> =
        targets.iter().copied().filter(|target| !libraries.join(target).join("lib").is_dir()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    rustup(&["target", "add"], &missing)
}

fn rustup(arguments: &[&str], missing: &[&str]) -> Result<()> {
    let wanted = missing.join(" ");
    if find_program("rustup").is_none() {
        return Err(format!(
            "this Rust lacks `{wanted}` and was not installed by rustup; install rustup, or add them the way \
             your system does"
        ));
    }
    step(&format!("rustup {} {wanted}", arguments.join(" ")));
    run(Command::new("rustup").args(arguments).args(missing)).map_err(|problem| {
        format!("{problem}; is there a network? When rustup can be reached, run `rustup {} {wanted}` and try again", arguments.join(" "))
    })
}

/// The packages of every program that is not there.
fn missing_packages(needed: &[(String, Vec<String>)]) -> Vec<String> {
    needed
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .flat_map(|(_, packages)| packages.clone())
        .collect()
}

/// Installs packages where that is ours to do; `false` where it is not.
fn install(packages: &[String]) -> Result<bool> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_root || !Path::new("/etc/debian_version").exists() || find_program("apt-get").is_none() {
        return Ok(false);
    }
    step(&format!("apt-get install {}", packages.join(" ")));
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq").args(arguments);
        command
    };
    run(&mut apt_get(&["update"]))?;
    run(apt_get(&["install", "--yes", "--no-install-recommends"]).args(packages))?;
    Ok(true)
}
