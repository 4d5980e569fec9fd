//! Images that are started: by the real launcher and without it, on `scratch` and on Debian.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use wapack_runtime::oci::layout::read_image;
use wapack_runtime::phase::export::{Base, LauncherMode, RunImage};

use super::layout::debian;
use super::tools::{have, is_root, run, skip, wait_until};
use crate::support::{IMAGE, Site, found, target_directory};

/// A file that `cargo xtask embed` makes.
pub(super) fn embedded(name: &str) -> PathBuf {
    // With `--target`, programs are one directory deeper; what is embedded is not.
    let path = target_directory().join("embed").join(name);
    assert!(path.exists(), "`{}` is missing: run `cargo xtask embed` first", path.display());
    path
}

/// `tests/programs/show.rs` as a static program.
fn show_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = target_directory().join("acceptance/show");
        fs::create_dir_all(program.parent().expect("a parent")).expect("a directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/show.rs");
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2024", "--target=x86_64-unknown-linux-musl", "-Clinker=rust-lld", "-o"]);
        run(rustc.arg(&program).arg(source));
        program
    })
}

/// A way to start containers that works on this machine.
pub(super) struct Runtime {
    program: &'static str,
    /// Without control groups: crun refuses machines that mix both versions of them.
    own_cgroups: bool,
}

impl Runtime {
    /// `None`, said aloud, where containers cannot be started.
    pub(super) fn find(bundle: &Path) -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Runtime>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let ways = ["crun", "runc"]
                .into_iter()
                .flat_map(|program| [false, true].map(|own_cgroups| Self { program, own_cgroups }));
            let works = |way: &Self| {
                way.run(bundle, |config| config["process"]["args"] = json!(["/probe"]))
                    .is_ok_and(|output| output.stdout.starts_with(b"arguments [\"/probe\"]"))
            };
            fs::copy(show_program(), bundle.join("rootfs/probe")).expect("a file");
            let found = ways.into_iter().find(works);
            fs::remove_file(bundle.join("rootfs/probe")).expect("it is there");
            found
        });
        if found.is_none() {
            skip("neither crun nor runc can start a container here");
        }
        found.as_ref()
    }

    pub(super) fn command(&self, bundle: &Path) -> Command {
        let mut command = if self.own_cgroups {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"", "sh"]);
            command.arg(self.program);
            command
        } else {
            Command::new(self.program)
        };
        if self.own_cgroups && self.program == "crun" {
            command.args(["--cgroup-manager", "disabled"]);
        }
        command.arg("--root").arg(bundle.with_extension("state"));
        command
    }

    /// The command that runs a bundle after `change` of its configuration, and the container's name.
    pub(super) fn prepare(&self, bundle: &Path, change: impl FnOnce(&mut Value)) -> (Command, String) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let original = bundle.join("original.json");
        if !original.exists() {
            fs::copy(bundle.join("config.json"), &original).expect("a file");
        }
        let mut config: Value = serde_json::from_slice(&fs::read(original).expect("a file")).expect("JSON");
        config["process"]["terminal"] = json!(false);
        config["linux"]["namespaces"]
            .as_array_mut()
            .expect("a list")
            .retain(|namespace| namespace["type"] != "network");
        change(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).expect("a file");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("wapack-test-{}-{number}", std::process::id());
        let mut command = self.command(bundle);
        command.args(["run", "--bundle"]).arg(bundle).arg(&name).stdin(Stdio::null());
        (command, name)
    }

    fn run(&self, bundle: &Path, change: impl FnOnce(&mut Value)) -> std::io::Result<Output> {
        self.prepare(bundle, change).0.output()
    }
}

/// Unpacks the image of a site.
pub(super) fn unpack(site: &Site) -> PathBuf {
    let bundle = site.path("bundle");
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image"]).arg(format!("{}:{IMAGE}", site.path("image").display()));
    run(umoci.arg(&bundle));
    bundle
}

pub(super) fn can_run() -> bool {
    if !is_root() {
        skip("starting containers needs root");
    }
    is_root() && have(&["umoci", "unshare"])
}

pub(super) fn add_variables(config: &mut Value, variables: &[&str]) {
    let env = config["process"]["env"].as_array_mut().expect("a list");
    env.extend(variables.iter().map(|variable| json!(variable)));
}

/// What `show` said in a container that was started with these arguments (none: the image's own) and variables.
fn show(
    runtime: &Runtime,
    bundle: &Path,
    arguments: &[&str],
    variables: &[&str],
) -> (Option<i32>, Vec<String>) {
    let output = runtime
        .run(bundle, |config| {
            if !arguments.is_empty() {
                config["process"]["args"] = json!(arguments);
            }
            add_variables(config, variables);
        })
        .expect("it starts");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text.lines().map(str::to_owned).collect())
}

fn site_with_processes(mode: LauncherMode) -> Site {
    let mut site = Site::new().guest("processes");
    site.launcher_mode = mode;
    site.launcher = Some(embedded("launcher/linux-amd64"));
    fs::create_dir(site.path("app/sub")).expect("a directory");
    fs::write(site.path("app/sub/file"), "").expect("a file");
    fs::copy(show_program(), site.path("app/show")).expect("a file");
    fs::set_permissions(site.path("app/show"), Permissions::from_mode(0o755)).expect("a mode");
    site
}

/// LAU-03 to LAU-32, as far as processes without a shell go; the same on every base.
fn check_processes(site: &Site, base_path: &str) {
    site.build().digest();
    let bundle = unpack(site);
    let Some(runtime) = Runtime::find(&bundle) else { return };
    let has = |said: &(Option<i32>, Vec<String>), line: &str| {
        assert!(said.1.iter().any(|found| found == line), "no `{line}` in {said:#?}");
    };

    let said = show(runtime, &bundle, &[], &[]);
    assert_eq!(said.0, Some(0), "{said:#?}");
    let lines = [
        r#"arguments ["/workspace/show", "always", "usually"]"#,
        "directory /workspace",
        "DEFAULT=a",
        "OVERRIDE=b",
        "APPEND=a,b",
        "ONLY_WEB=a",
        &format!("PATH=/layers/test_processes/a/bin{base_path}"),
    ];
    for line in lines {
        has(&said, line);
    }
    let gone =
        ["CNB_LAYERS_DIR=", "CNB_APP_DIR=", "CNB_PLATFORM_API=", "CNB_DEPRECATION_MODE=", "BUILD_ONLY="];
    assert!(!said.1.iter().any(|line| gone.iter().any(|name| line.starts_with(name))), "{said:#?}");

    let said =
        show(runtime, &bundle, &["/cnb/process/web", "mine", "$HOME"], &["DEFAULT=user", "OVERRIDE=user"]);
    has(&said, r#"arguments ["/workspace/show", "always", "mine", "$HOME"]"#);
    has(&said, "DEFAULT=user");
    has(&said, "OVERRIDE=b");

    let said = show(runtime, &bundle, &["/cnb/process/job"], &[]);
    has(&said, r#"arguments ["./show", "job"]"#);
    has(&said, "directory /workspace/sub");
    assert!(!said.1.iter().any(|line| line.starts_with("ONLY_WEB=")), "{said:#?}");

    let said = show(runtime, &bundle, &["/cnb/lifecycle/launcher", "--", "/workspace/show", "direct"], &[]);
    has(&said, r#"arguments ["/workspace/show", "direct"]"#);
    assert_eq!(show(runtime, &bundle, &["/cnb/process/web", "exit", "7"], &[]).0, Some(7), "passed through");
    let said = show(runtime, &bundle, &["/cnb/lifecycle/launcher", "--", "/workspace/missing"], &[]);
    assert_eq!(said.0, Some(82), "{said:#?}");
    assert!(said.1[0].starts_with("ERROR: failed to launch: "), "{said:#?}");
}

#[test]
fn the_launcher_starts_processes_on_scratch() {
    if can_run() {
        check_processes(&site_with_processes(LauncherMode::Auto), "");
    }
}

#[test]
fn the_launcher_starts_processes_on_debian() {
    if !can_run() {
        return;
    }
    let Some(base) = debian() else { return };
    let image = read_image(&base, Some("debian"), None).expect("the base");
    let on_debian = |mut site: Site| {
        let base = Base::Image(Box::new(found(&image)));
        site.run_image = RunImage { base, name: "debian:test".into(), mirrors: vec![] };
        site
    };
    check_processes(&on_debian(site_with_processes(LauncherMode::Auto)), ":/usr/bin:/bin");

    // LAU-25 to LAU-28: through a shell, as the Procfile's author writes it.
    let mut site = on_debian(Site::new());
    site.launcher = Some(embedded("launcher/linux-amd64"));
    site.buildpacks.push(embedded("builder/buildpacks/wapack_procfile/0.1.0"));
    fs::write(site.path("app/Procfile"), "web: echo \"hello $NAME\" && exit 3\n").expect("a file");
    site.build().digest();
    let bundle = unpack(&site);
    let Some(runtime) = Runtime::find(&bundle) else { return };
    let said = show(runtime, &bundle, &[], &["NAME=you"]);
    assert_eq!(said, (Some(3), vec!["hello you".to_owned()]));
}

/// Without a launcher the image itself says what the launcher would have made of it.
#[test]
fn an_image_without_a_launcher_starts_the_same_process() {
    if !can_run() {
        return;
    }
    let with = site_with_processes(LauncherMode::Always);
    let without = site_with_processes(LauncherMode::Never);
    let mut said = Vec::new();
    for site in [&with, &without] {
        site.build().digest();
        let bundle = unpack(site);
        let Some(runtime) = Runtime::find(&bundle) else { return };
        let (code, mut lines) = show(runtime, &bundle, &[], &[]);
        lines.sort_unstable();
        said.push((code, lines));
    }
    assert_eq!(said[0].0, Some(0));
    assert_eq!(said[0], said[1]);
}

pub(super) fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The sample website with the buildpack that comes with wapack, from source to page.
#[test]
fn the_sample_website_is_served_at_the_port_it_is_told() {
    if !can_run() {
        return;
    }
    for mode in [LauncherMode::Auto, LauncherMode::Always] {
        let mut site = Site::new();
        site.launcher_mode = mode;
        site.launcher = Some(embedded("launcher/linux-amd64"));
        site.buildpacks.push(embedded("builder/buildpacks/wapack_static-site/0.1.0"));
        let mut job = site.job();
        job.app = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/website");
        site.build_job(&job, |_| ()).digest();
        let bundle = unpack(&site);
        let Some(runtime) = Runtime::find(&bundle) else { return };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let (mut command, name) =
            runtime.prepare(&bundle, |config| add_variables(config, &[&format!("PORT={port}")]));
        let mut container = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut page = String::new();
        wait_until("the page is served", || {
            page = get(port, "/").unwrap_or_default();
            assert_eq!(container.try_wait().expect("a process"), None, "the container ended");
            !page.is_empty()
        });
        let missing = get(port, "/nothing-here").expect("an answer");
        let _ = runtime.command(&bundle).args(["delete", "--force", &name]).status();
        let _ = container.wait();
        let expected = fs::read_to_string(job.app.join("index.html")).expect("a file");
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        assert!(page.ends_with(&expected), "{page}");
        assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    }
}
