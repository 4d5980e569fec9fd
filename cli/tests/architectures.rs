//! One build for several processors, on a machine with one of them.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::each_debian::each_debian;
use crate::elf::{Image, common_layers, images_for};
use crate::layouts::{Layer, layout, offered, write_index};
use crate::places::tool;
use crate::registries::{Registry, requests};
use crate::site::{Ended, SAMPLE, Site};

const BOTH: &str = "linux/amd64,linux/arm64";
/// `tests/apps/native`: its sums are done by code for the processor, in packages that are optional.
const NATIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/apps/native");

/// Builds and gives back every event.
fn build(site: &Site, arguments: &[&str]) -> Vec<Value> {
    let ended = site.run(&[&["build", "--output-format", "json"], arguments].concat()).with(0);
    ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How each layer came to be, as `NAME HOW`.
fn layers(events: &[Value]) -> Vec<String> {
    let told = events.iter().filter(|event| event["event"] == "layer-exported");
    told.map(|event| format!("{} {}", event["name"], event["source"]).replace('"', "")).collect()
}

fn digest(events: &[Value]) -> &Value {
    &events.last().unwrap()["digest"]
}

/// Paths, kinds, modes, links and contents below a directory, as `find` and `sha256sum` see them.
fn tree(directory: &Path) -> Vec<String> {
    let script = "find . -printf '%P %y %m %l\\n'; find . -type f -exec sha256sum {} +";
    let ended: Ended =
        Command::new("sh").args(["-c", script]).current_dir(directory).output().unwrap().into();
    let mut lines: Vec<String> = ended.with(0).out.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Unpacks the image of a layout for an architecture; gives back the bundle.
fn unpack(site: &Site, place: &str, architecture: &str) -> Option<PathBuf> {
    let one = format!("oci:{architecture}:x");
    tool(site, "skopeo", &["--insecure-policy", "--override-arch", architecture, "copy", "-q", place, &one])?;
    let bundle = format!("{architecture}-bundle");
    tool(site, "umoci", &["unpack", "--rootless", "--image", &one[4..], &bundle])?;
    Some(site.path().join(bundle))
}

/// A Node app gets the Node and the packages of each processor, as npm would have installed them there; nothing of it
/// is made twice, and it works on the processor that this machine has not.
#[test]
fn a_node_app_has_what_each_processor_needs() {
    let site = Site::new();
    let Some(base) = each_debian() else { return };
    let Some(npm) = tool(&site, "npm", &["config", "get", "registry"]) else { return };
    let output = |name: &str| format!("oci:{name}");
    let native = |more: &[&str]| {
        let source = format!("npm={}", npm.trim());
        let common = ["--path", NATIVE, "--run-image", &base, "--source", &source];
        build(&site, &[&common[..], more, &["native"]].concat())
    };
    let first = native(&["--target", BOTH, "--output", &output("image")]);
    let images = images_for(&site.path().join("image"), "native:latest", &["amd64", "arm64"]);
    for image in &images {
        let has = |name: &str| image.programs.keys().any(|path| path.ends_with(name));
        for name in ["bin/node", ".node", "cnb/lifecycle/launcher", "libstdc++.so.6.0.30"] {
            assert!(has(name), "no {name} for {}: {:?}", image.architecture, image.programs);
        }
    }
    let for_each: Vec<&Value> = first
        .iter()
        .filter(|event| event["event"] == "target-started")
        .map(|event| &event["target"])
        .collect();
    assert_eq!(for_each, ["linux/amd64", "linux/arm64"]);
    // The app, the launcher's settings: what does not depend on the processor is there once.
    let shared = common_layers(&images);
    assert!(shared.len() >= 3, "{shared:?}");
    assert_eq!(images[0].layers.len(), images[1].layers.len());

    // Without a network: everything of both is used again, together and each alone.
    let is_reused = |events: &[Value], count: usize| {
        let layers = layers(events);
        assert_eq!(layers.len(), count);
        assert!(layers.iter().all(|layer| layer.ends_with(" reused")), "{layers:?}");
    };
    let again = native(&["--offline", "--target", BOTH, "--output", &output("again")]);
    assert_eq!(digest(&again), digest(&first));
    let of_both = layers(&first).len();
    is_reused(&again, of_both);
    for architecture in ["arm64", "amd64"] {
        let target = format!("linux/{architecture}");
        let alone = native(&["--offline", "--target", &target, "--output", &output("alone")]);
        is_reused(&alone, of_both / 2);
        images_for(&site.path().join("alone"), "native:latest", &[architecture]);
    }

    for architecture in ["amd64", "arm64"] {
        let Some(bundle) = unpack(&site, "oci:image:native:latest", architecture) else { return };
        let modules = bundle.join("rootfs/layers/wapack_npm-install/modules/node_modules");
        assert_eq!(tree(&modules), tree(&npm_ci(&site, architecture)), "{architecture}");
    }
    answers_on_arm64(&site.path().join("arm64-bundle"));
}

/// What npm makes of the lock for a processor.
fn npm_ci(site: &Site, architecture: &str) -> PathBuf {
    let directory = site.path().join(format!("npm-{architecture}"));
    std::fs::create_dir(&directory).unwrap();
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(Path::new(NATIVE).join(name), directory.join(name)).unwrap();
    }
    let cpu = if architecture == "amd64" { "x64" } else { architecture };
    let script = "umask 022; exec npm ci --os=linux --cpu=\"$1\" --libc=glibc --ignore-scripts --omit=dev \
                  --no-audit --no-fund --loglevel=error";
    let mut command = Command::new("sh");
    let ended: Ended =
        command.args(["-c", script, "sh", cpu]).current_dir(&directory).output().unwrap().into();
    ended.with(0);
    directory.join("node_modules")
}

/// Starts an image for ARM in an emulator, launcher and all, and asks it.
fn answers_on_arm64(bundle: &Path) {
    let Some(emulator) =
        ["/usr/bin/qemu-aarch64-static"].into_iter().map(Path::new).find(|path| path.exists())
    else {
        assert!(std::env::var("CI").is_err(), "`qemu-aarch64-static` must not be missing in CI");
        println!("SKIPPED: `qemu-aarch64-static` is not installed");
        return;
    };
    let configuration = std::fs::read(bundle.join("config.json")).unwrap();
    let process = &serde_json::from_slice::<Value>(&configuration).unwrap()["process"];
    let texts = |list: &Value| {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    // In a user namespace the kernel has a list of emulators of its own, and nothing of the machine is changed.
    // The numbers are the first bytes of a program for this processor, and which of them count.
    let script = r#"set -e
        mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
        printf '%s' ":arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:$1:F" \
            > /proc/sys/fs/binfmt_misc/register
        root=$2; shift 2
        exec /usr/sbin/chroot "$root" "$@""#;
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["/bin/sh", "-c", script, "sh"]).arg(emulator).arg(bundle.join("rootfs"));
    command.args(texts(&process["args"])).env_clear().env("PORT", port.to_string());
    for variable in texts(&process["env"]) {
        let (name, value) = variable.split_once('=').unwrap();
        command.env(name, value);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut app = Ending(command.spawn().unwrap());
    let since = Instant::now();
    let answer = loop {
        if let Ok(answer) = ask(port) {
            break answer;
        }
        if app.0.try_wait().unwrap().is_some() || since.elapsed() > Duration::from_mins(1) {
            let _ = app.0.kill();
            let mut said = String::new();
            std::io::Read::read_to_string(&mut app.0.stderr.take().unwrap(), &mut said).unwrap();
            panic!("there is no answer: {said}");
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    // The check value of CRC-32, as everybody has it.
    assert!(answer.contains(r#"{"architecture":"arm64","sum":"cbf43926"}"#), "{answer}");
}

/// A process that ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(port: u16) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};

    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Also where systems are built for one at a time: a buildpack that goes by the names of its layers alone would
/// otherwise find the programs of another processor there.
#[test]
fn layers_for_one_processor_are_none_for_another() {
    let site = Site::new();
    let restored = |target: &str| {
        let events = build(&site, &["--path", SAMPLE, "--target", target, "--output", "oci:image", "app"]);
        events.iter().filter(|event| event["event"] == "layer-restored").count()
    };
    assert_eq!(restored("linux/amd64"), 0);
    assert_eq!(restored("linux/arm64"), 0);
    images_for(&site.path().join("image"), "app:latest", &["arm64"]);
    // Neither has forgotten the other's.
    assert_eq!(restored("linux/amd64"), 1);
    assert_eq!(restored("linux/arm64"), 1);
    assert_eq!(restored(BOTH), 2);
    let usage = || site.run(&["cache", "du"]).with(0).out.matches("app:latest").count();
    assert_eq!(usage(), 2);
    site.run(&["cache", "clear", "--image", "app"]).with(0);
    assert_eq!(usage(), 0);
    site.run(&["cache", "clear", "--image", "app"]).with(3);
}

/// The built-in buildpack for websites, as a build has unpacked it.
fn built_in(site: &Site) -> PathBuf {
    build(site, &["--path", SAMPLE, "--output", "oci:other", "other"]);
    let descriptors = site.find_files("cache", "buildpack.toml");
    let mut directories = descriptors.iter().filter_map(|path| path.parent());
    directories.find(|directory| directory.join("server").is_dir()).expect("it has a server").to_owned()
}

fn copy(site: &Site, from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    tool(site, "cp", &["-r", from.to_str().unwrap(), to.to_str().unwrap()]);
    tool(site, "chmod", &["-R", "u+w", to.to_str().unwrap()]);
}

#[test]
fn one_system_that_fails_leaves_everything_as_it_was() {
    let site = Site::new();
    let half = site.path().join("half");
    copy(&site, &built_in(&site), &half);
    std::fs::remove_dir_all(half.join("server/linux-arm64")).unwrap();
    let half = half.to_str().unwrap();
    let fails = |to: &[&str]| {
        site.run(&[&["build", "--path", SAMPLE, "--target", BOTH, "--buildpack", half], to].concat())
            .with(51)
            .complains(&["cannot build for `linux/arm64`, and nothing is published", "caused by: "])
            .says(&["For linux/amd64"]);
    };
    build(&site, &["--path", SAMPLE, "--target", BOTH, "--output", "oci:image", "app"]);
    let before = tree(&site.path().join("image"));
    fails(&["--output", "oci:image", "app"]);
    assert_eq!(tree(&site.path().join("image")), before);
    fails(&["--output", "oci:fresh", "app"]);
    assert!(!site.path().join("fresh/index.json").exists());
    let json = ["build", "--output-format", "json", "--path", SAMPLE, "--target", BOTH, "--buildpack", half];
    site.run(&[&json[..], &["--output", "oci:fresh", "app"]].concat())
        .with(51)
        .complains(&["\"message\":\"cannot build for `linux/arm64`"]);
    let Some(server) = Registry::start(&site) else { return };
    fails(&["--publish", &format!("{}/app", server.address)]);
    let sent: Vec<String> = requests(&site).into_iter().filter(|line| line.starts_with("PUT ")).collect();
    assert_eq!(sent, [""; 0]);
}

#[test]
fn who_does_not_build_for_a_system_is_refused_before_anything_is_built() {
    let site = Site::new();
    let whole = built_in(&site);
    let half = site.path().join("builder/buildpacks/test_half/0.1.0");
    copy(&site, &whole, &half);
    let descriptor = std::fs::read_to_string(half.join("buildpack.toml")).unwrap();
    let for_arm = "[[targets]]\nos = \"linux\"\narch = \"arm64\"\n";
    assert!(descriptor.contains(for_arm), "{descriptor}");
    let descriptor = descriptor.replace(for_arm, "").replace("wapack/static-site", "test/half");
    std::fs::write(half.join("buildpack.toml"), descriptor).unwrap();
    let run = |targets: &str, more: &[&str]| {
        let common = ["build", "--path", SAMPLE, "--target", targets, "--output", "oci:image"];
        site.run(&[&common[..], more, &["app"]].concat())
    };
    let half = ["--buildpack", half.to_str().unwrap()];
    let ended = run(BOTH, &half).with(21).complains(&[
        "cannot build for `linux/arm64`, and nothing is published",
        "test/half@0.1.0: it does not build for linux/arm64",
        "hint: leave `linux/arm64` out of `--target`",
    ]);
    assert!(!ended.out.contains("BUILDING"), "{}", ended.out);
    // For one system it is enough.
    run("linux/amd64", &half).with(0);

    // Somebody else who does takes its place, which is said.
    copy(&site, &whole, &site.path().join("builder/buildpacks/wapack_static-site/0.1.0"));
    site.file(
        "builder/order.toml",
        "[[order]]\n[[order.group]]\nid = \"test/half\"\nversion = \"0.1.0\"\n\
         [[order]]\n[[order.group]]\nid = \"wapack/static-site\"\nversion = \"0.1.0\"\n",
    );
    run(BOTH, &["--builder", "builder"]).with(0).complains(&[
        "not the same buildpacks take part for linux/amd64 (test/half@0.1.0) and for linux/arm64 (wapack/static-site@0.1.0)",
    ]);
    images_for(&site.path().join("image"), "app:latest", &["amd64", "arm64"]);
}

#[test]
fn a_run_image_without_one_of_the_systems_is_refused_with_both_names() {
    let site = Site::new();
    layout(&site.path().join("base"), "run", &Value::Null, &[Layer::new().file("x", b"")]);
    let run = |targets: &str| {
        let common = ["build", "--path", SAMPLE, "--run-image", "oci:base:run", "--output", "oci:image"];
        site.run(&[&common[..], &["--target", targets, "app"]].concat())
    };
    for targets in [BOTH, "linux/arm64"] {
        run(targets).with(3).complains(&[
            "error[input.target]: the run image `oci:base:run` is for `linux/amd64`, not for `linux/arm64`",
            "hint: name a run image that is for `linux/arm64`, or leave `linux/arm64` out of `--target`",
        ]);
    }
    assert!(!site.path().join("image/index.json").exists());
    run("linux/amd64").with(0);
    // An index has it not among others.
    let base = site.path().join("base");
    write_index(&base, "run", &["s390x", "amd64"].map(|architecture| offered(&base, architecture)));
    run(BOTH).with(3).complains(&[
        "error[input.run_image]: cannot use the run image `oci:base:run`",
        "has no image called `run` for `linux/arm64`, only for `linux/s390x`, `linux/amd64`",
    ]);
    run("linux/amd64").with(0);
    assert_eq!(Image::all(&site.path().join("image"), "app:latest").len(), 1);
}
