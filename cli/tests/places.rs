//! Images go to every kind of place and come from there, as the tools of the field see it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::elf::images_for;
use crate::engines::Docker;
use crate::registries::{Registry, requests};
use crate::room::Room;
use crate::site::{Ended, SAMPLE, Site};

/// Runs a tool of the field; `None`, and why, when it is not installed. Continuous integration has them all.
pub(crate) fn tool(site: &Site, program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).current_dir(site.path()).output() {
        Ok(output) => Some(Ended::from(output).with(0).out),
        Err(error) => {
            assert!(std::env::var("CI").is_err(), "`{program}` must not be missing in CI: {error}");
            println!("SKIPPED: `{program}` is not installed");
            None
        }
    }
}

fn skopeo_digest(site: &Site, place: &str) -> Option<Value> {
    let text = tool(site, "skopeo", &["inspect", "--tls-verify=false", place])?;
    Some(serde_json::from_str::<Value>(&text).unwrap()["Digest"].clone())
}

/// What `wapack build` said last, as JSON.
fn build(site: &Site, arguments: &[&str]) -> Value {
    let ended = site.run(&[&["build", "--output-format", "json"], arguments].concat()).with(0);
    serde_json::from_str(ended.out.lines().last().unwrap()).unwrap()
}

fn inspect(site: &Site, place: &str) -> Value {
    serde_json::from_str(&site.run(&["inspect", "--json", place]).with(0).out).unwrap()
}

/// An image to build upon called `NAME`, with a layer of its own.
fn make_run_image(site: &Site, layout: &str, name: &str, text: &str) {
    site.file(&format!("{layout}-files/base"), text);
    let image = format!("{layout}:{name}");
    tool(site, "umoci", &["init", "--layout", layout]);
    tool(site, "umoci", &["new", "--image", &image]);
    tool(site, "umoci", &["insert", "--rootless", "--image", &image, &format!("{layout}-files"), "/opt"]);
}

#[test]
fn an_image_is_the_same_in_every_place_and_for_every_tool() {
    let site = Site::new();
    let common = ["--path", SAMPLE, "--tag", "demo/site:1", "demo/site"];
    let to = |place: &str| build(&site, &[&["--output", place], &common[..]].concat());
    let digest = to("oci:layout")["digest"].clone();
    for (place, kind) in
        [("oci-archive:oci.tar", "oci-archive"), ("docker-archive:docker.tar", "docker-archive")]
    {
        let said = to(place);
        assert_eq!((&said["digest"], &said["kind"]), (&digest, &kind.into()));
        assert_eq!(said["place"], format!("{place}:demo/site:latest"));
        // The same input, the same bytes.
        let file = site.path().join(place.split_once(':').unwrap().1);
        let first = std::fs::read(&file).unwrap();
        to(place);
        assert!(std::fs::read(&file).unwrap() == first, "{place} differs");
        let left: Vec<_> = std::fs::read_dir(site.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(".wapack"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let layers = |place: &str| {
        let layers = inspect(&site, place)["layers"].as_array().unwrap().clone();
        layers.into_iter().map(|layer| layer["diff_id"].clone()).collect::<Vec<_>>()
    };
    for tag in ["demo/site:latest", "demo/site:1"] {
        for place in ["oci:layout", "oci-archive:oci.tar", "docker-archive:docker.tar"] {
            assert_eq!(layers(&format!("{place}:{tag}")), layers("oci:layout:demo/site:1"), "{place}");
        }
        for place in [format!("oci:layout:{tag}"), format!("oci-archive:oci.tar:{tag}")] {
            let Some(found) = skopeo_digest(&site, &place) else { return };
            assert_eq!(found, digest, "{place}");
        }
    }
    // Everything is read, and every digest checked.
    for (number, place) in
        ["oci-archive:oci.tar:demo/site:1", "docker-archive:docker.tar:demo/site:1"].into_iter().enumerate()
    {
        let copy = format!("oci:copy{number}:x");
        tool(&site, "skopeo", &["--insecure-policy", "copy", "-q", place, &copy]);
        tool(&site, "umoci", &["unpack", "--rootless", "--image", &copy[4..], &format!("bundle{number}")]);
        let page = site.path().join(format!("bundle{number}/rootfs/workspace/index.html"));
        assert_eq!(
            std::fs::read(page).unwrap(),
            std::fs::read(Path::new(SAMPLE).join("index.html")).unwrap()
        );
    }
}

#[test]
fn what_other_tools_archived_is_built_upon_and_rebased() {
    let site = Site::new();
    make_run_image(&site, "base", "run", "old");
    make_run_image(&site, "newer", "run", "new");
    let copy = |from: &str, to: &str| tool(&site, "skopeo", &["--insecure-policy", "copy", "-q", from, to]);
    if copy("oci:base:run", "docker-archive:run.tar:demo/run:1").is_none() {
        return;
    }
    copy("oci:newer:run", "docker-archive:newer.tar:demo/run:1");
    copy("oci:base:run", "oci-archive:run-oci.tar:demo/run:1");
    let on = |run_image: &str, output: &str| {
        build(&site, &["--path", SAMPLE, "--run-image", run_image, "--output", output, "app"])
    };
    on("docker-archive:run.tar:demo/run:1", "oci:on-docker");
    on("oci-archive:run-oci.tar", "oci:on-oci");
    on("docker-archive:run.tar:demo/run:1", "docker-archive:app.tar");
    for (number, place) in
        ["oci:on-docker:app:latest", "oci:on-oci:app:latest", "docker-archive:app.tar:app:latest"]
            .into_iter()
            .enumerate()
    {
        copy(place, &format!("oci:unpack{number}:x"));
        let bundle = format!("bundle{number}");
        tool(&site, "umoci", &["unpack", "--rootless", "--image", &format!("unpack{number}:x"), &bundle]);
        let base = site.path().join(bundle).join("rootfs/opt/base");
        assert_eq!(std::fs::read_to_string(base).unwrap(), "old", "{place}");
    }
    let rebase = ["rebase", "docker-archive:app.tar", "--run-image", "docker-archive:newer.tar"];
    site.run(&rebase).with(72).complains(&["error[rebase.unrecorded_run_image]"]);
    let newer = ["rebase", "docker-archive:app.tar", "--run-image", "docker-archive:newer.tar:demo/run:1"];
    site.run(&newer)
        .with(0)
        .says(&["kept      6 layers of the app", "because   the layers of its old run image"]);
    copy("docker-archive:app.tar:app:latest", "oci:rebased:x");
    tool(&site, "umoci", &["unpack", "--rootless", "--image", "rebased:x", "rebased-bundle"]);
    let base = site.path().join("rebased-bundle/rootfs/opt/base");
    assert_eq!(std::fs::read_to_string(base).unwrap(), "new");
}

/// RBS-02, RBS-04, RUN-02: the run image is the one that the label names, on the same
/// registry, and no layer is downloaded or uploaded for it.
#[test]
fn rbs_02_and_rbs_04_a_rebase_in_a_registry_moves_no_layer() {
    let site = Site::new();
    let Some(registry) = Registry::start(&site) else { return };
    let at = |name: &str| format!("{}/{name}", registry.address);
    make_run_image(&site, "base", "run", "old");
    make_run_image(&site, "newer", "run", "new");
    let publish_base = |layout: &str| {
        let to = format!("docker://{}", at("run:1"));
        let from = format!("oci:{layout}:run");
        tool(&site, "skopeo", &["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &from, &to])
    };
    if publish_base("base").is_none() {
        return;
    }
    let said = build(&site, &["--path", SAMPLE, "--publish", "--run-image", &at("run:1"), &at("app:1")]);
    assert_eq!(said["kind"], "registry");
    let before = skopeo_digest(&site, &format!("docker://{}", at("app:1"))).unwrap();
    assert_eq!(before, said["digest"]);
    // Nothing is new: nothing is sent.
    let sent = requests(&site).len();
    build(&site, &["--path", SAMPLE, "--publish", "--run-image", &at("run:1"), &at("app:1")]);
    let again = requests(&site);
    let again: Vec<_> = again[sent..].iter().filter(|line| line.contains("/blobs/uploads/?digest")).collect();
    assert!(again.is_empty(), "{again:?}");

    publish_base("newer");
    let sent = requests(&site).len();
    let arguments = ["rebase", &at("app:1"), "--output", &at("app:2"), "--output-format", "json"];
    let ended = site.run(&arguments).with(0);
    let said: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!(said["run_image"]["name"], at("run:1"));
    assert_eq!(said["run_image"]["among"], serde_json::json!([at("run:1")]));
    assert_eq!((&said["moved_bytes"], &said["mounted_layers"]), (&0.into(), &1.into()));
    assert_eq!(said["present_layers"], said["kept_layers"]);
    let made = requests(&site).split_off(sent);
    let layers = inspect(&site, &at("app:2"))["layers"].as_array().unwrap().clone();
    for layer in layers {
        let digest = layer["digest"].as_str().unwrap();
        let touched: Vec<_> = made
            .iter()
            .filter(|line| line.contains(digest) && !line.starts_with("HEAD") && !line.contains("mount="))
            .collect();
        assert!(touched.is_empty(), "{touched:?}");
    }
    let to = ["--insecure-policy", "copy", "-q", "--src-tls-verify=false"];
    let from = format!("docker://{}", at("app:2"));
    tool(&site, "skopeo", &[&to[..], &[&from, "oci:pulled:x"]].concat());
    tool(&site, "umoci", &["unpack", "--rootless", "--image", "pulled:x", "bundle"]);
    assert_eq!(std::fs::read_to_string(site.path().join("bundle/rootfs/opt/base")).unwrap(), "new");
}

/// A layer that is only in a registry comes to this machine for a place that needs it.
#[test]
fn a_run_image_from_a_registry_gets_into_a_layout() {
    let site = Site::new();
    let Some(registry) = Registry::start(&site) else { return };
    make_run_image(&site, "base", "run", "old");
    let name = format!("{}/run:1", registry.address);
    let to = format!("docker://{name}");
    let copy = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "oci:base:run", &to];
    if tool(&site, "skopeo", &copy).is_none() {
        return;
    }
    let arguments = ["--path", SAMPLE, "--run-image", &name, "--output", "oci:image", "app"];
    let first = build(&site, &arguments);
    let sent = requests(&site).len();
    assert_eq!(build(&site, &arguments)["digest"], first["digest"]);
    let fetched: Vec<String> = requests(&site)
        .split_off(sent)
        .into_iter()
        .filter(|line| line.starts_with("GET") && line.contains("/blobs/"))
        .collect();
    // The configuration is a blob, and no layer is needed twice.
    assert!(fetched.len() <= 1, "{fetched:?}");
    tool(&site, "umoci", &["unpack", "--rootless", "--image", "image:app:latest", "bundle"]);
    assert_eq!(std::fs::read_to_string(site.path().join("bundle/rootfs/opt/base")).unwrap(), "old");
}

#[test]
fn r12_an_image_does_not_take_the_place_of_what_it_is_made_of() {
    let site = Site::new();
    make_run_image(&site, "base", "app", "old");
    let run = |output: &str, run_image: &str, name: &str| {
        site.run(&["build", "--path", SAMPLE, "--output", output, "--run-image", run_image, name])
    };
    if !site.path().join("base").exists() {
        return;
    }
    tool(&site, "umoci", &["tag", "--image", "base:app", "app:latest"]);
    let index = || std::fs::read(site.path().join("base/index.json")).unwrap();
    let before = index();
    let refused = ["error[input.output]: the image would be written over its own run image"];
    run("oci:base", "oci:./base:app:latest", "app").with(3).complains(&refused);
    run("oci:base", "oci:base:app", "app:latest").with(0);
    assert_ne!(index(), before, "another name in the same layout is another image");
    tool(&site, "skopeo", &["--insecure-policy", "copy", "-q", "oci:base:app", "oci-archive:a.tar:run"]);
    run("oci-archive:a.tar", "oci-archive:./a.tar:run", "app").with(3).complains(&refused);
    // Before anybody is asked.
    for name in ["acme/app:latest", "docker://index.docker.io/acme/app"] {
        run("registry", name, "docker.io/acme/app").with(3).complains(&refused);
    }
}

#[test]
fn one_build_makes_an_image_for_each_system() {
    let site = Site::new();
    let targets = "linux/amd64,linux/arm64";
    let common = ["--path", SAMPLE, "--launcher", "always", "--target", targets, "--tag", "app:1", "app"];
    let to = |place: &str| build(&site, &[&["--output", place], &common[..]].concat());
    let said = to("oci:image");
    assert_eq!(to("oci:image")["digest"], said["digest"]);
    assert_eq!(to("oci-archive:image.tar")["digest"], said["digest"]);
    let images = images_for(&site.path().join("image"), "app:1", &["amd64", "arm64"]);
    for image in images {
        assert!(image.programs.len() >= 2, "the launcher and the web server: {:?}", image.programs);
        assert!(image.programs.contains_key("cnb/lifecycle/launcher"), "{:?}", image.programs);
    }
    // As another tool picks them.
    for architecture in ["amd64", "arm64"] {
        for (number, place) in ["oci:image:app:1", "oci-archive:image.tar:app:latest"].into_iter().enumerate()
        {
            let copy = format!("{architecture}{number}");
            let to = format!("oci:{copy}:x");
            let arguments = ["--insecure-policy", "--override-arch", architecture, "copy", "-q", place, &to];
            if tool(&site, "skopeo", &arguments).is_none() {
                return;
            }
            images_for(&site.path().join(copy), "x", &[architecture]);
        }
    }
    for (asked, places) in
        [("linux/arm64", "oci:image:app:1"), ("linux/amd64", "oci-archive:image.tar:app:1")]
    {
        let out = site.run(&["inspect", "--json", "--target", asked, places]).with(0).out;
        let view: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(view["target"], asked);
        assert_eq!(view["systems"], serde_json::json!(["linux/amd64", "linux/arm64"]));
    }
    let one = |place: &str| {
        site.run(&[&["build", "--output", place], &common[..]].concat())
            .with(3)
            .complains(&["error[input.target]", "hint: write them to `oci:DIR`"])
    };
    one("docker-archive:docker.tar");
    if let Some(registry) = Registry::start(&site) {
        let name = format!("{}/app:1", registry.address);
        let arguments = ["--path", SAMPLE, "--launcher", "always", "--target", targets, "--publish", &name];
        assert_eq!(build(&site, &arguments)["digest"], said["digest"]);
        assert_eq!(skopeo_digest(&site, &format!("docker://{name}")), Some(said["digest"].clone()));
        let out = site.run(&["inspect", "--target", "linux/arm64", &name]).with(0).out;
        assert!(out.contains("target      linux/arm64\n  of        linux/amd64, linux/arm64;"), "{out}");
    }
}

/// Layers of an earlier build are those of its owner, and are made anew for another.
#[test]
fn files_get_the_owner_of_this_build() {
    let site = Site::new();
    let owned = |cache: &str, more: &[&str]| {
        let cache = site.path().join(cache).display().to_string();
        let common =
            ["--path", SAMPLE, "--cache-dir", &cache, "--output", "oci:image", "--launcher", "always"];
        build(&site, &[&common[..], more, &["app"]].concat())["digest"].clone()
    };
    let usual = owned("one", &[]);
    let group = owned("one", &["--group-writable"]);
    assert_ne!(group, usual);
    let owner = owned("one", &["--owner", "7:8"]);
    assert_eq!(owned("two", &["--owner", "7:8", "--clear-cache"]), owner, "a cache makes no difference");
    std::fs::remove_dir_all(site.path().join("image")).unwrap();
    assert_eq!(owned("three", &["--group-writable"]), group);
    assert_eq!(owned("one", &[]), usual);
    assert_eq!(owned("one", &["--verify", "--owner", "7:8"]), owner, "nor does reading it again");
    owned("one", &["--owner", "7", "--group-writable", "--user", "9"]);
    assert_eq!(inspect(&site, "oci:image")["user"], "9:9");
    if tool(&site, "skopeo", &["--insecure-policy", "copy", "-q", "oci:image:app:latest", "dir:files"])
        .is_none()
    {
        return;
    }
    let manifest = std::fs::read_to_string(site.path().join("files/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let mut app = String::new();
    for layer in manifest["layers"].as_array().unwrap() {
        let blob = format!("files/{}", layer["digest"].as_str().unwrap().trim_start_matches("sha256:"));
        app += &tool(&site, "tar", &["-tvzf", &blob, "--numeric-owner"]).unwrap();
    }
    let lines: Vec<&str> = app
        .lines()
        .filter(|line| {
            line.contains(" workspace")
                || line.contains(" layers")
                || line.contains("/workspace")
                || line.contains("/layers")
        })
        .collect();
    assert!(lines.len() > 5, "{app}");
    for line in lines.iter().filter(|line| !line.starts_with('l')) {
        let bits = line.as_bytes();
        assert!(line.contains(" 7/0 ") && bits[5] == bits[2] && bits[4] == bits[1], "{line}");
    }
}

/// Containerd's store keeps what it is sent: an image is whole in it, also the layers that the
/// engine had, and is called by the digest of its manifest.
#[test]
fn an_engine_on_containerds_store_has_whole_images() {
    let site = Site::new();
    make_run_image(&site, "base", "run", "old");
    make_run_image(&site, "newer", "run", "new");
    let Some(room) = Room::open("") else { return };
    let Some(docker) = Docker::start_with_containerd(&room, &site) else { return };
    for (layout, archive) in [("base", "run.tar"), ("newer", "newer.tar")] {
        let (from, to) = (format!("oci:{layout}:run"), format!("docker-archive:{archive}:demo/run:1"));
        tool(&site, "skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
    }
    let at = |name: &str| site.path().join(name).display().to_string();
    docker.call(&["load", "--input", &at("run.tar")]).with(0);
    let build = |more: &[&str]| {
        let arguments = [&["build", "--path", SAMPLE, "--run-image", "docker:demo/run:1"], more].concat();
        docker.wapack(&site, &arguments).with(0)
    };
    // What the engine saves is read by another tool, byte for byte.
    let saved = |name: &str| {
        let archive = at("saved.tar");
        docker.call(&["save", "--output", &archive, name]).with(0);
        let _ = std::fs::remove_dir_all(site.path().join("saved"));
        let from = format!("docker-archive:{archive}:{name}");
        tool(&site, "skopeo", &["--insecure-policy", "copy", "-q", &from, "oci:saved:x"]);
        let _ = std::fs::remove_dir_all(site.path().join("saved-bundle"));
        tool(&site, "umoci", &["unpack", "--rootless", "--image", "saved:x", "saved-bundle"]);
        std::fs::read_to_string(site.path().join("saved-bundle/rootfs/opt/base")).unwrap()
    };
    build(&["--output", "docker", "--tag", "demo/app:2", "demo/app:1"]);
    let id = docker.id("demo/app:1");
    assert_eq!(docker.id("demo/app:2"), id);
    assert_eq!(saved("demo/app:1"), "old");
    assert_eq!(docker.file(&site, "demo/app:1", "/opt/base"), "old");
    build(&["--output", "docker", "demo/app:1"]);
    assert_eq!(docker.id("demo/app:1"), id, "nothing changed");

    docker.call(&["load", "--input", &at("newer.tar")]).with(0);
    docker.wapack(&site, &["rebase", "docker:demo/app:1"]).with(0);
    assert_ne!(docker.id("demo/app:1"), id);
    assert_eq!(saved("demo/app:1"), "new");
    assert_eq!(saved("demo/app:2"), "old");

    // Such an engine loads layouts too, with the digest that the build says.
    let output = ["--output", "oci-archive:app.tar", "demo/layout:1"];
    let common = ["--output-format", "json", "--path", SAMPLE, "--run-image", "docker:demo/run:1"];
    let ended = docker.wapack(&site, &[&["build"], &common[..], &output].concat()).with(0);
    let said: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    docker.call(&["load", "--input", &at("app.tar")]).with(0);
    assert_eq!(docker.id("demo/layout:1"), said["digest"].as_str().unwrap());
    assert_eq!(saved("demo/layout:1"), "new");
}

/// Docker's classic store of images: what is loaded, what is sent, and a rebase there.
#[test]
fn a_container_engine_takes_images_and_only_layers_that_it_lacks() {
    let site = Site::new();
    make_run_image(&site, "base", "run", "old");
    make_run_image(&site, "newer", "run", "new");
    let Some(docker) = Docker::start(&site) else { return };
    for (layout, archive) in [("base", "run.tar"), ("newer", "newer.tar")] {
        let (from, to) = (format!("oci:{layout}:run"), format!("docker-archive:{archive}:demo/run:1"));
        if tool(&site, "skopeo", &["--insecure-policy", "copy", "-q", &from, &to]).is_none() {
            return;
        }
    }
    let at = |name: &str| site.path().join(name).display().to_string();
    docker.call(&["load", "--input", &at("run.tar")]).with(0);
    let common = ["--path", SAMPLE, "--run-image"];
    let build = |more: &[&str]| docker.wapack(&site, &[&["build"], &common[..], more].concat()).with(0);

    build(&["docker:demo/run:1", "--output", "docker", "--tag", "demo/app:2", "demo/app:1"]).says(&[
        "where     docker:demo/app:1",
        "also as   docker:demo/app:2",
        "docker run --rm",
    ]);
    let id = docker.id("demo/app:1");
    assert_eq!(docker.id("demo/app:2"), id);
    assert_eq!(docker.file(&site, "demo/app:1", "/opt/base"), "old");
    let quiet = build(&["docker:demo/run:1", "--quiet", "--output", "docker", "demo/app:1"]).out;
    assert_eq!(docker.id("demo/app:1"), id, "nothing changed");
    assert_eq!(format!("sha256:{}", quiet.trim()), id);

    // The same image by way of an archive is the same to the engine.
    build(&["docker:demo/run:1", "--output", "docker-archive:app.tar", "demo/loaded:1"]);
    docker.call(&["load", "--input", &at("app.tar")]).with(0);
    assert_eq!(docker.id("demo/loaded:1"), id);
    // And out of the engine, into a layout.
    build(&["docker:demo/run:1", "--output", "oci:out", "app"]);
    tool(&site, "umoci", &["unpack", "--rootless", "--image", "out:app:latest", "bundle"]);
    assert_eq!(std::fs::read_to_string(site.path().join("bundle/rootfs/opt/base")).unwrap(), "old");

    docker.call(&["load", "--input", &at("newer.tar")]).with(0);
    docker
        .wapack(&site, &["rebase", "docker:demo/app:1"])
        .with(0)
        .says(&["chosen    demo/run:1 of demo/run:1", "moved     6 layers, "]);
    assert_ne!(docker.id("demo/app:1"), id);
    assert_eq!(docker.file(&site, "demo/app:1", "/opt/base"), "new");
    assert_eq!(docker.file(&site, "demo/app:2", "/opt/base"), "old");
    docker
        .wapack(&site, &["inspect", "docker:demo/none"])
        .with(3)
        .complains(&["error[input.no_image]: there is no image `docker:demo/none`"]);
}

/// A build without `--output` leaves a layout; who then looks in a registry is told.
#[test]
fn an_image_that_was_left_here_is_pointed_out() {
    let site = Site::new();
    let Some(registry) = Registry::start(&site) else { return };
    let name = format!("{}/left/here:2", registry.address);
    let layout = format!("oci:{}-left-here.oci:{name}", registry.address.replace(':', "-"));
    let hint = format!("hint: `wapack build` left one here: `{layout}`");
    site.run(&["build", "-q", "--path", SAMPLE, &name]).with(0);
    site.run(&["inspect", &name]).with(3).complains(&["error[input.no_image]", &hint]);
    site.run(&["inspect", &layout]).with(0);
    site.run(&["build", "-q", "--path", SAMPLE, "--publish", &name]).with(0);
    site.run(&["inspect", &name]).with(0);
}
