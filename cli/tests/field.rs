//! What the tools of the field make of our images: crane, podman, containerd, and a registry
//! with referrers.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::engines::{Containerd, Podman};
use crate::registries::{Registry, WithReferrers, go_program};
use crate::room::Room;
use crate::site::{Ended, SAMPLE, Site};

/// The digest of what is built now.
fn build(site: &Site, arguments: &[&str]) -> String {
    let ended = site.run(&[&["build", "--quiet", "--path", SAMPLE], arguments].concat()).with(0);
    ended.out.lines().last().unwrap().to_owned()
}

fn view(site: &Site, place: &str) -> Value {
    serde_json::from_str(&site.run(&["inspect", "--json", place]).with(0).out).unwrap()
}

fn diff_ids(view: &Value) -> Vec<&Value> {
    view["layers"].as_array().unwrap().iter().map(|layer| &layer["diff_id"]).collect()
}

/// What crane prints.
struct Crane<'a> {
    program: std::path::PathBuf,
    site: &'a Site,
}

impl<'a> Crane<'a> {
    fn find(site: &'a Site) -> Option<Self> {
        Some(Self { program: go_program("crane")?, site })
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.site.path()).env("HOME", self.site.path());
        Ended::from(command.output().unwrap()).with(0).out.trim().to_owned()
    }
}

const INDEX: [&str; 4] = ["--target", "linux/amd64,linux/arm64", "--launcher", "always"];

/// It reads every byte, and checks digests, sizes, types and the order of what is in archives.
#[test]
fn crane_finds_nothing_wrong_with_what_is_published_and_written() {
    let site = Site::new();
    let Some(registry) = Registry::start(&site) else { return };
    let Some(crane) = Crane::find(&site) else { return };
    let at = |name: &str| format!("{}/{name}", registry.address);
    let (one, several, zstd) = (at("demo/site:1"), at("demo/several:1"), at("demo/zstd:1"));
    let digests = [
        build(&site, &["--publish", "--attach", "sbom,provenance", &one]),
        build(&site, &[&INDEX[..], &["--publish", &several]].concat()),
        build(&site, &["--publish", "--compression", "zstd", &zstd]),
    ];
    for (name, digest) in [&one, &several, &zstd].into_iter().zip(&digests) {
        assert_eq!(&crane.run(&["digest", name]), digest);
        // The version of crane that is pinned takes every layer for gzip when it reads them.
        let more = if *name == zstd { &["--fast"][..] } else { &[] };
        let said = crane.run(&[&["validate", "--remote", name], more].concat());
        assert_eq!(said, format!("PASS: {name}"));
    }
    // What is attached is one manifest each, which its tag lists.
    let tag = digests[0].replace(':', "-");
    let listed: Value =
        serde_json::from_str(&crane.run(&["manifest", &at(&format!("demo/site:{tag}"))])).unwrap();
    for entry in listed["manifests"].as_array().unwrap() {
        let name = format!("{}@{}", at("demo/site"), entry["digest"].as_str().unwrap());
        let manifest: Value = serde_json::from_str(&crane.run(&["manifest", &name])).unwrap();
        assert_eq!(manifest["subject"]["digest"], digests[0].as_str());
        assert_eq!(manifest["artifactType"], entry["artifactType"]);
        crane.run(&[
            "blob",
            &format!("{}@{}", at("demo/site"), manifest["layers"][0]["digest"].as_str().unwrap()),
        ]);
    }

    build(&site, &["--output", "docker-archive:image.tar", "demo/site:1"]);
    assert_eq!(crane.run(&["validate", "--tarball", "image.tar"]), "PASS: image.tar");
    for (layout, more) in [("layout", &[][..]), ("several", &INDEX[..])] {
        let digest = build(&site, &[&["--output", &format!("oci:{layout}"), "demo/site:1"], more].concat());
        let to = at(&format!("pushed/{layout}:1"));
        let whole = if more.is_empty() { &["push"][..] } else { &["push", "--index"] };
        crane.run(&[whole, &[layout, &to]].concat());
        // Of an index, a layout's own is the top.
        let pushed: Value = serde_json::from_str(&crane.run(&["manifest", &to])).unwrap();
        let top = if more.is_empty() {
            crane.run(&["digest", &to])
        } else {
            pushed["manifests"][0]["digest"].as_str().unwrap().to_owned()
        };
        assert_eq!(top, digest);
        assert_eq!(crane.run(&["validate", "--remote", &to]), format!("PASS: {to}"));
    }

    // And what crane writes is read, and built upon.
    crane.run(&["pull", "--format", "oci", &several, "pulled"]);
    crane.run(&["pull", &one, "pulled.tar"]);
    let published = view(&site, &one);
    assert_eq!(diff_ids(&view(&site, "docker-archive:pulled.tar")), diff_ids(&published));
    assert_eq!(view(&site, "oci:pulled")["systems"], json!(["linux/amd64", "linux/arm64"]));
    crane.run(&["mutate", "--tag", &at("run:1"), "--set-platform", "linux/amd64", &at("pushed/layout:1")]);
    crane.run(&["pull", &at("run:1"), "run.tar"]);
    for run_image in [at("run:1"), "docker-archive:run.tar".to_owned()] {
        build(&site, &["--run-image", &run_image, "--output", "oci:upon", "app"]);
        let upon = view(&site, "oci:upon");
        assert_eq!(diff_ids(&upon)[..3], diff_ids(&published), "{run_image}");
    }
}

#[test]
fn podman_pulls_and_loads_and_gives_the_same_back() {
    let site = Site::new();
    let Some(room) = Room::open(Podman::SETUP) else { return };
    let Some(podman) = Podman::new(&room, &site) else { return };
    let Some(registry) = Registry::start_in(&room, &site) else { return };
    podman.trust(&registry.address);
    let name = format!("{}/demo/site:1", registry.address);
    let zstd = format!("{}/demo/zstd:1", registry.address);
    let several = format!("{}/demo/several:1", registry.address);
    let build = |more: &[&str]| {
        let arguments = [&["build", "--quiet", "--path", SAMPLE], more].concat();
        room.wapack(&site, &arguments).with(0).out.trim().to_owned()
    };
    let digest = build(&["--publish", &name]);
    build(&["--publish", "--compression", "zstd", &zstd]);
    build(&[&["--publish", &several], &INDEX[..]].concat());
    build(&["--output", "oci-archive:oci.tar", "demo/oci:1"]);
    build(&["--output", "docker-archive:docker.tar", "demo/docker:1"]);

    podman.call(&["pull", "--quiet", &name]).with(0);
    podman.call(&["pull", "--quiet", &zstd]).with(0);
    podman.call(&["pull", "--quiet", &several]).with(0);
    podman.call(&["pull", "--quiet", &format!("{}/demo/site@{digest}", registry.address)]).with(0);
    podman.call(&["load", "--quiet", "--input", "oci.tar"]).with(0).says(&["demo/oci:1"]);
    podman.call(&["load", "--quiet", "--input", "docker.tar"]).with(0).says(&["demo/docker:1"]);
    let inspect = |name: &str| -> Value {
        let out = podman.call(&["image", "inspect", name]).with(0).out;
        serde_json::from_str::<Value>(&out).unwrap()[0].clone()
    };
    let pulled = inspect(&name);
    assert_eq!(pulled["Digest"], digest);
    // An id is the digest of the configuration, which no way of transport changes.
    for other in [&zstd, "demo/oci:1", "demo/docker:1"] {
        assert_eq!(inspect(other)["Id"], pulled["Id"], "{other}");
    }
    let ours = view(&site, "oci-archive:oci.tar");
    assert_eq!(json!(diff_ids(&ours)), pulled["RootFS"]["Layers"]);

    // What it saves is ours again.
    podman.call(&["save", "--quiet", "--format", "oci-archive", "-o", "saved.tar", "demo/oci:1"]).with(0);
    podman
        .call(&["save", "--quiet", "--format", "docker-archive", "-o", "saved-docker.tar", "demo/oci:1"])
        .with(0);
    for place in ["oci-archive:saved.tar", "docker-archive:saved-docker.tar"] {
        let saved = view(&site, place);
        assert_eq!(diff_ids(&saved), diff_ids(&ours), "{place}");
        assert_eq!(saved["processes"], ours["processes"], "{place}");
    }
}

/// Podman speaks Docker's API, and takes images without the bytes of layers that it has.
#[test]
fn podman_is_an_engine() {
    let site = Site::new();
    let Some(room) = Room::open(Podman::SETUP) else { return };
    let Some(podman) = Podman::new(&room, &site) else { return };
    let (_server, socket) = podman.serve();
    for (text, layout) in [("old", "run"), ("new", "newer")] {
        site.file(&format!("{layout}-files/base"), text);
        let image = format!("{layout}:run");
        for arguments in [
            &["init", "--layout", layout][..],
            &["new", "--image", &image],
            &["insert", "--rootless", "--image", &image, &format!("{layout}-files"), "/opt"],
        ] {
            room.run(&site, "umoci", arguments).with(0);
        }
    }
    let take = |layout: &str| {
        let to = "containers-storage:docker.io/demo/run:1";
        let arguments = ["--insecure-policy", "copy", "-q", &format!("oci:{layout}:run"), to];
        Ended::from(podman.command("skopeo", &arguments).output().unwrap()).with(0);
    };
    let wapack = |arguments: &[&str]| {
        let mut command = podman.command(env!("CARGO_BIN_EXE_wapack"), arguments);
        Ended::from(command.env("DOCKER_HOST", &socket).output().unwrap()).with(0).out
    };
    // Every byte that it has is read by another tool.
    let base = |bundle: &str| {
        let from = "containers-storage:docker.io/demo/app:1";
        let to = format!("oci:{bundle}-layout:x");
        let copy = ["--insecure-policy", "copy", "-q", from, &to];
        Ended::from(podman.command("skopeo", &copy).output().unwrap()).with(0);
        room.run(&site, "umoci", &["unpack", "--rootless", "--image", &to[4..], bundle]).with(0);
        std::fs::read_to_string(site.path().join(bundle).join("rootfs/opt/base")).unwrap()
    };
    take("run");
    let on = ["--run-image", "docker:demo/run:1", "--output", "docker", "demo/app:1"];
    let id = wapack(&[&["build", "--quiet", "--path", SAMPLE], &on[..]].concat());
    let known = podman.call(&["image", "inspect", "--format", "{{.Id}}", "demo/app:1"]).with(0).out;
    assert_eq!(id, known);
    assert_eq!(base("first"), "old");
    assert_eq!(wapack(&[&["build", "--quiet", "--path", SAMPLE], &on[..]].concat()), id);
    take("newer");
    wapack(&["rebase", "docker:demo/app:1"]);
    assert_eq!(base("second"), "new");
}

/// Debian's containerd, with its own `ctr`.
#[test]
fn containerd_imports_archives_and_starts_them() {
    let site = Site::new();
    let Some(room) = Room::open("") else { return };
    let Some(containerd) = Containerd::start(&room, &site) else { return };
    let digest = build(&site, &["--output", "oci-archive:oci.tar", "demo/oci:1"]);
    build(&site, &["--output", "docker-archive:docker.tar", "demo/docker:1"]);
    let several =
        build(&site, &[&["--output", "oci-archive:several.tar", "demo/several:1"], &INDEX[..]].concat());
    for archive in ["oci.tar", "docker.tar", "several.tar"] {
        containerd.ctr(&["images", "import", "--snapshotter", "native", archive]).with(0);
    }
    let listed = containerd.ctr(&["images", "list"]).with(0).out;
    let digest_of = |name: &str| {
        let line = listed
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("{name}: {listed}"));
        line.split_whitespace().nth(2).unwrap().to_owned()
    };
    // By the names that other programs ask for.
    assert_eq!(digest_of("docker.io/demo/oci:1"), digest);
    assert_eq!(digest_of("docker.io/demo/several:1"), several);
    digest_of("docker.io/demo/docker:1");
    let checked = containerd.ctr(&["images", "check", "--snapshotter", "native"]).with(0).out;
    assert!(checked.lines().count() > 3 && !checked.contains("incomplete"), "{checked}");
    for name in ["oci", "docker", "several"] {
        let image = format!("docker.io/demo/{name}:1");
        let arguments = ["run", "--rm", "--snapshotter", "native", "--net-host", &image, name];
        let mut container = containerd.start_ctr(&arguments, &site.path().join(name));
        let page = room.page(&site, "http://127.0.0.1:8080/", &mut container);
        assert_eq!(page, std::fs::read_to_string(Path::new(SAMPLE).join("index.html")).unwrap());
        containerd.ctr(&["task", "kill", "--signal", "SIGKILL", name]).with(0);
        crate::room::wait_until("the container ends", || container.has_ended());
    }
}

/// Its list is made by the registry itself, which is strict about what is in an index.
#[test]
fn a_registry_that_knows_referrers_lists_what_is_attached() {
    let site = Site::new();
    let Some(registry) = WithReferrers::start(&site) else { return };
    let Some(crane) = Crane::find(&site) else { return };
    let at = |name: &str| format!("{}/{name}", registry.address);
    let name = at("demo/site:1");
    let arguments = ["--publish", "--attach", "sbom,provenance", &name];
    let digest = build(&site, &arguments);
    // No tag but ours: the list needs none.
    assert_eq!(crane.run(&["ls", &at("demo/site")]), "1");
    let attached: Vec<Value> = view(&site, &name)["attachments"].as_array().unwrap().clone();
    let kinds: Vec<&Value> = attached.iter().map(|attachment| &attachment["artifact_type"]).collect();
    assert!(kinds.contains(&&json!("application/vnd.cyclonedx+json")), "{attached:?}");
    let statement: Value =
        serde_json::from_str(&site.run(&["inspect", "--provenance", &name]).with(0).out).unwrap();
    assert_eq!(statement["subject"][0]["digest"]["sha256"], digest.trim_start_matches("sha256:"));

    let before = registry.requests().len();
    assert_eq!(build(&site, &arguments), digest);
    let sent = registry.requests().split_off(before);
    let sent: Vec<_> =
        sent.iter().filter(|line| line.starts_with("PUT") || line.starts_with("PATCH")).collect();
    assert!(sent.is_empty(), "{sent:#?}");

    let several = at("demo/several:1");
    let index = build(&site, &[&INDEX[..], &["--publish", "--attach", "provenance", &several]].concat());
    assert_eq!(crane.run(&["digest", &several]), index);
    assert_eq!(crane.run(&["validate", "--remote", &several]), format!("PASS: {several}"));

    // Rebase: what another repository has is not sent again, mounted or not.
    for (run, text) in [("run:1", "old"), ("run:2", "new")] {
        site.file("run/index.html", text);
        site.run(&["build", "-q", "--path", "run", "--output", "oci:run-image", run]).with(0);
        crane.run(&["push", "run-image", &at(run)]);
        std::fs::remove_dir_all(site.path().join("run-image")).unwrap();
    }
    let based = at("demo/based:1");
    build(&site, &["--publish", "--run-image", &at("run:1"), &based]);
    let before = registry.requests().len();
    site.run(&["rebase", &based, "--run-image", &at("run:2"), "--force"]).with(0);
    let sent = registry.requests().split_off(before);
    let sent: Vec<_> =
        sent.iter().filter(|line| line.starts_with("PUT") && line.contains("/blobs/")).collect();
    assert_eq!(sent.len(), 1, "the configuration: {sent:#?}");
    assert_eq!(crane.run(&["validate", "--remote", &based]), format!("PASS: {based}"));
}
