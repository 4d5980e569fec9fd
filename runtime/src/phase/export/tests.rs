use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::cnb::id::{BuildpackId, BuildpackRef};
use crate::cnb::launch::{Label, Process, Slice};
use crate::cnb::layer::{EnvironmentChange, EnvironmentOperation, EnvironmentScope, LayerTypes};
use crate::cnb::sbom::{Sbom, SbomFormat};
use crate::event::LayerSource;
use crate::executor::AppLink;
use crate::fault::Diagnose;
use crate::oci::blob::{BlobStore, NewBlob, Notes, StoredBlob};
use crate::oci::digest::DiffId;
use crate::oci::image::History;
use crate::oci::layout::{ImageLayout, read_image};
use crate::phase::values::BuiltBuildpack;

/// A store that keeps blobs in a directory, by diff id and encoder.
struct DirectoryStore {
    directory: PathBuf,
    created: AtomicUsize,
    known: Mutex<BTreeMap<PathBuf, StoredBlob>>,
    notes: Mutex<BTreeMap<String, String>>,
}

impl DirectoryStore {
    fn path(&self, diff_id: &DiffId, encoder: &str) -> PathBuf {
        self.directory.join(format!("{}-{encoder}", diff_id.0.hex()))
    }
}

impl BlobStore for DirectoryStore {
    fn find(&self, diff_id: &DiffId, encoder: &str) -> Option<StoredBlob> {
        self.known
            .lock()
            .unwrap()
            .get(&self.path(diff_id, encoder))
            .filter(|blob| blob.path.exists())
            .cloned()
    }

    fn create(&self) -> std::io::Result<NewBlob> {
        let number = self.created.fetch_add(1, Ordering::SeqCst);
        let path = self.directory.join(format!("new-{number}"));
        Ok(NewBlob::new(fs::File::create(&path)?, path))
    }

    fn commit(
        &self,
        blob: NewBlob,
        diff_id: &DiffId,
        encoder: &str,
        digest: &Digest,
        size: u64,
    ) -> std::io::Result<StoredBlob> {
        let path = self.path(diff_id, encoder);
        blob.persist(&path)?;
        let stored = StoredBlob { digest: digest.clone(), size, path: path.clone() };
        self.known.lock().unwrap().insert(path, stored.clone());
        Ok(stored)
    }

    fn discard(&self, path: &Path) {
        fs::remove_file(path).unwrap();
    }
}

impl Notes for DirectoryStore {
    fn note(&self, name: &str) -> Option<String> {
        self.notes.lock().unwrap().get(name).cloned()
    }

    fn keep_note(&self, name: &str, text: &str) {
        self.notes.lock().unwrap().insert(name.to_owned(), text.to_owned());
    }
}

/// An app, a store and an output, in a directory of their own.
struct Bench {
    root: tempfile::TempDir,
    store: DirectoryStore,
    built: Built,
    run_image: RunImage,
    mode: LauncherMode,
    user: Option<Owner>,
    files: FileOwner,
    process_type: Option<ProcessType>,
    created: Option<u64>,
    launcher: Launcher,
    events: Vec<Event>,
    cancel: Cancel,
}

fn node() -> BuildpackRef {
    BuildpackRef { id: "acme/node".parse().unwrap(), version: "1.2".parse().unwrap() }
}

/// Where nobody looks: what a process needs is the subject of other tests.
const PROGRAM: &str = "/cnb/server";

fn web(command: &[&str]) -> Process {
    Process {
        process_type: "web".parse().unwrap(),
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        args: None,
        direct: true,
        default: true,
        working_directory: None,
        exec_envs: vec![],
    }
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in ["app", "store"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        let target = Target { os: "linux".into(), arch: "amd64".into(), variant: None, distro: None };
        let mut built = Built {
            buildpacks: vec![BuiltBuildpack {
                reference: node(),
                api: crate::cnb::api::ApiVersion::zero(12),
                homepage: Some("https://example.com".into()),
                store: None,
            }],
            app: Tree::of(root.path().join("app")),
            ..Built::default()
        };
        built.processes.add(&node().id, vec![web(&[PROGRAM, "--x"])]);
        Self {
            store: DirectoryStore {
                directory: root.path().join("store"),
                created: AtomicUsize::new(0),
                known: Mutex::default(),
                notes: Mutex::default(),
            },
            root,
            built,
            run_image: RunImage { base: Base::Scratch(target), name: "scratch".into(), mirrors: vec![] },
            mode: LauncherMode::Always,
            user: None,
            files: FileOwner::default(),
            process_type: None,
            created: None,
            launcher: Launcher { bytes: b"#!launcher".to_vec(), version: "9.8".into() },
            events: vec![],
            cancel: Cancel::default(),
        }
    }

    fn write(&self, path: &str, contents: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn program(&self, path: &str, contents: &str) {
        self.write(path, contents);
        fs::set_permissions(self.root.path().join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn layer(&mut self, name: &str, contents: BuiltContents) -> &mut BuiltLayer {
        let types = LayerTypes { launch: true, build: false, cache: true };
        self.built.layers.push(BuiltLayer {
            buildpack: node(),
            name: name.parse().unwrap(),
            types,
            metadata: String::new(),
            environment: vec![],
            contents,
        });
        self.built.layers.last_mut().unwrap()
    }

    fn fresh(&mut self, name: &str) -> &mut BuiltLayer {
        let directory = self.root.path().join(name);
        fs::create_dir_all(&directory).unwrap();
        self.layer(name, BuiltContents::Fresh(Tree::of(directory)))
    }

    fn layout(&self) -> PathBuf {
        self.root.path().join("out")
    }

    fn try_export(&mut self) -> Result<Exported, ExportError> {
        let (exec_env, project) = (ExecEnv::default(), ProjectMetadata::default());
        let request = ExportRequest {
            built: &self.built,
            run_image: &self.run_image,
            run_images: None,
            launcher: &self.launcher,
            launcher_mode: self.mode,
            user: self.user,
            files: self.files,
            process_type: self.process_type.as_ref(),
            exec_env: &exec_env,
            project: &project,
            created: self.created,
            limits: TreeLimits::default(),
        };
        let layout = self.layout();
        let events = &mut self.events;
        let mut sink = |event| events.push(event);
        // As `lifecycle` does it: saved into a layout, and made anew where it is damaged.
        loop {
            let exported = export(&request, &self.store, &self.cancel, &mut sink)?;
            let written =
                ImageLayout::open(&layout)?.write(&exported.image, "app", &self.store, &mut |_| true);
            match written {
                Ok(digest) => {
                    assert_eq!(digest, exported.digest);
                    return Ok(exported);
                }
                Err(damage) => match damage.damaged_blob().map(Path::to_owned) {
                    Some(path) if is_ours(&request, &path) => {
                        forget_damaged(&request, &path, damage.into(), &self.store, &mut sink)?;
                    }
                    _ => return Err(damage.into()),
                },
            }
        }
    }

    fn export(&mut self) -> Exported {
        self.try_export().unwrap()
    }

    /// Name, kind, mode, owner and target of every entry of a layer, as GNU tar shows them.
    fn listing(image: &Image, layer: usize) -> Vec<String> {
        let output = Command::new("tar")
            .args(["--list", "--verbose", "--numeric-owner", "--absolute-names", "--gzip", "--file"])
            .arg(image.layers[layer].file().unwrap())
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| {
                let parts: Vec<&str> = line.split_whitespace().collect();
                assert_eq!(parts[3..5], ["1980-01-01", "00:00"], "{line}");
                format!("{} {} {}", parts[0], parts[1], parts[5..].join(" "))
            })
            .collect()
    }

    fn names(image: &Image, layer: usize) -> Vec<String> {
        let listing = Self::listing(image, layer);
        listing.iter().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect()
    }
}

fn label(image: &Image, name: &str) -> Value {
    serde_json::from_str(&image.configuration.config.labels[name]).unwrap()
}

fn history(image: &Image) -> Vec<&str> {
    image.configuration.history.iter().map(|entry| entry.created_by.as_deref().unwrap_or("")).collect()
}

/// LYR-16, SBOM-08, TAR-12 to TAR-14, LBL-11
#[test]
fn exp_03_order_of_layers_and_what_is_in_them() {
    let mut bench = Bench::new();
    bench.write("app/run.sh", "#!/bin/sh\n");
    let program = bench.root.path().join("app/run.sh");
    fs::set_permissions(program, fs::Permissions::from_mode(0o710)).unwrap();
    symlink("run.sh", bench.root.path().join("app/link")).unwrap();
    bench.write("modules/bin/tool", "tool");
    bench.fresh("modules").metadata = "version = 3\n[nested]\nx = 1.5".to_owned();
    bench.fresh("build-only").types.launch = false;
    let sbom = |content: &str| Sbom { format: SbomFormat::Spdx, content: content.into() };
    bench.built.launch_sboms =
        vec![(node().id, Some("modules".parse().unwrap()), sbom("{}")), (node().id, None, sbom("{\"a\":1}"))];
    let exported = bench.export();
    let image = &exported.image;
    assert_eq!(
        history(image),
        [
            "Layer: 'modules', Created by buildpack: acme/node@1.2",
            "Software Bill-of-Materials",
            "Application Layer",
            "Buildpacks Application Launcher",
            "Buildpacks Launcher Config",
            "Buildpacks Process Types",
        ]
    );
    assert_eq!(
        Bench::listing(image, 0),
        [
            "drwxr-xr-x 1000/1000 /layers",
            "drwxr-xr-x 1000/1000 /layers/acme_node",
            "drwxr-xr-x 1000/1000 /layers/acme_node/modules",
            "drwxr-xr-x 1000/1000 /layers/acme_node/modules/bin",
            "-rw-r--r-- 1000/1000 /layers/acme_node/modules/bin/tool",
        ]
    );
    assert_eq!(
        Bench::listing(image, 1),
        [
            "drwxr-xr-x 1000/1000 /layers",
            "drwxr-xr-x 1000/1000 /layers/sbom",
            "drwxr-xr-x 1000/1000 /layers/sbom/launch",
            "drwxr-xr-x 1000/1000 /layers/sbom/launch/acme_node",
            "drwxr-xr-x 1000/1000 /layers/sbom/launch/acme_node/modules",
            "-rw-r--r-- 1000/1000 /layers/sbom/launch/acme_node/modules/sbom.spdx.json",
            "-rw-r--r-- 1000/1000 /layers/sbom/launch/acme_node/sbom.spdx.json",
        ]
    );
    assert_eq!(
        Bench::listing(image, 2),
        [
            "drwxr-xr-x 1000/1000 /workspace",
            "lrwxrwxrwx 1000/1000 /workspace/link -> run.sh",
            "-rwxr-xr-x 1000/1000 /workspace/run.sh",
        ]
    );
    assert_eq!(
        Bench::listing(image, 3),
        ["drwxr-xr-x 0/0 /cnb", "drwxr-xr-x 0/0 /cnb/lifecycle", "-rwxr-xr-x 0/0 /cnb/lifecycle/launcher"]
    );
    assert_eq!(
        Bench::listing(image, 4),
        [
            "drwxr-xr-x 1000/1000 /layers",
            "drwxr-xr-x 1000/1000 /layers/config",
            "-rw-r--r-- 1000/1000 /layers/config/metadata.toml"
        ]
    );
    // V2, whose digest was made by an independent script.
    assert_eq!(
        image.layers[5].diff_id.0.hex(),
        "83d85471d9f8a3834b4e27cf701e3f0aef220cc816d9c173c7d32cd73909a590"
    );

    let metadata = label(image, labels_name("lifecycle"));
    assert_eq!(metadata["app"], json!([{"sha": image.layers[2].diff_id}]));
    assert_eq!(metadata["sbom"]["sha"], json!(image.layers[1].diff_id));
    let record = &metadata["buildpacks"][0]["layers"]["modules"];
    assert_eq!(record["sha"], json!(image.layers[0].diff_id));
    assert_eq!(record["data"], json!({"version": 3, "nested": {"x": 1.5}}));
    assert_eq!(record["cache"], true);
    assert!(metadata["buildpacks"][0]["layers"].get("build-only").is_none());
    assert_eq!(metadata["process-types"]["sha"], json!(image.layers[5].diff_id));
    let build = label(image, labels_name("build"));
    assert_eq!(build["launcher"]["version"], "9.8");
    assert_eq!(build["processes"][0]["command"], json!([PROGRAM, "--x"]));
    assert_eq!(build["buildpack-default-process-type"], "web");
    assert_eq!(label(image, labels_name("project")), json!({}));
}

fn labels_name(short: &str) -> &'static str {
    match short {
        "lifecycle" => "io.buildpacks.lifecycle.metadata",
        "build" => "io.buildpacks.build.metadata",
        _ => "io.buildpacks.project.metadata",
    }
}

/// IMG-02, IMG-06, LBL-17
#[test]
fn img_01_configuration_with_a_launcher() {
    let mut bench = Bench::new();
    bench.created = Some(1_700_000_000);
    let image = bench.export().image;
    let run = &image.configuration.config;
    assert_eq!(
        run.env,
        [
            "CNB_LAYERS_DIR=/layers",
            "CNB_APP_DIR=/workspace",
            "CNB_PLATFORM_API=0.15",
            "CNB_DEPRECATION_MODE=quiet",
            "PATH=/cnb/process:/cnb/lifecycle",
        ]
    );
    assert_eq!(run.entrypoint, ["/cnb/process/web"]);
    assert_eq!((run.working_dir.as_deref(), run.user.as_deref()), (Some("/workspace"), Some("1000:1000")));
    assert_eq!(image.configuration.created.as_deref(), Some("2023-11-14T22:13:20Z"));
    assert_eq!(run.labels["io.buildpacks.exec-env"], "production");
    assert_eq!(run.labels["io.buildpacks.rebasable"], "false");
    assert!(!run.labels.contains_key(LAUNCHER_LABEL));
}

#[test]
fn img_05_entrypoint() {
    let mut bench = Bench::new();
    bench.process_type = Some("job".parse().unwrap());
    let error = bench.try_export().unwrap_err();
    assert_eq!((error.id(), error.hint().unwrap().as_str()), ("export.unknown_process", "there is `web`"));
    assert!(!bench.layout().exists());

    bench.process_type = None;
    bench.built.processes.add(&node().id, vec![Process { default: false, ..web(&[PROGRAM]) }]);
    assert_eq!(bench.export().image.configuration.config.entrypoint, ["/cnb/lifecycle/launcher"]);
}

/// An image to build upon, in a layout of its own.
fn base(bench: &mut Bench, change: impl FnOnce(&mut ImageConfiguration)) -> FoundImage {
    let layout = bench.root.path().join("base");
    let exported = bench.export();
    let mut image = exported.image;
    image.layers.truncate(1);
    image.configuration.rootfs.diff_ids.truncate(1);
    image.configuration.history.truncate(1);
    image.configuration.config = RunConfiguration::default();
    change(&mut image.configuration);
    ImageLayout::open(&layout).unwrap().write(&image, "base", &(), &mut |_| true).unwrap();
    fs::remove_dir_all(bench.layout()).unwrap();
    let found = read_image(&layout, Some("base"), None).unwrap();
    FoundImage { reference: found.digest.to_string(), image: found.image }
}

/// IMG-03, IMG-04, IMG-07, IMG-09, LBL-15
#[test]
fn exp_01_and_02_a_base_is_kept() {
    let mut bench = Bench::new();
    bench.write("app/x", "x");
    let base = base(&mut bench, |configuration| {
        configuration.architecture = "arm64".into();
        configuration.variant = Some("v8".into());
        let run = &mut configuration.config;
        run.user = Some("33:44".into());
        run.env = vec!["A=b=c".into(), "PATH=/usr/bin".into(), "CNB_APP_DIR=/old".into()];
        run.cmd = vec!["sh".into()];
        run.entrypoint = vec!["/old".into()];
        run.labels.insert("io.buildpacks.base.id".into(), "debian".into());
        run.other.insert("Healthcheck".into(), json!({"Test": ["NONE"]}));
        configuration.other.insert("docker_version".into(), "20".into());
        // Two entries for one layer: not to be trusted.
        configuration.history = vec![History::default(); 2];
    });
    bench.run_image = RunImage {
        base: Base::Image(Box::new(base.clone())),
        name: "example.com/run".into(),
        mirrors: vec!["mirror.example.com/run".into()],
    };
    let image = bench.export().image;
    let configuration = &image.configuration;
    assert_eq!(image.layers[0].digest, base.image.layers[0].digest);
    assert_eq!(
        (configuration.architecture.as_str(), configuration.variant.as_deref()),
        ("arm64", Some("v8"))
    );
    let run = &configuration.config;
    assert_eq!(
        run.env,
        [
            "A=b=c",
            "PATH=/cnb/process:/cnb/lifecycle:/usr/bin",
            "CNB_APP_DIR=/workspace",
            "CNB_LAYERS_DIR=/layers",
            "CNB_PLATFORM_API=0.15",
            "CNB_DEPRECATION_MODE=quiet",
        ]
    );
    assert_eq!((run.user.as_deref(), run.cmd.len()), (Some("33:44"), 0));
    assert_eq!(run.other["Healthcheck"], json!({"Test": ["NONE"]}));
    assert_eq!(run.labels["io.buildpacks.base.id"], "debian");
    assert!(!run.labels.contains_key("io.buildpacks.rebasable"));
    assert!(!configuration.other.contains_key("docker_version"));
    assert_eq!(configuration.history.len(), image.layers.len());
    assert!(Bench::listing(&image, 1)[0].starts_with("drwxr-xr-x 33/44 /workspace"));
    let metadata = label(&image, labels_name("lifecycle"));
    assert_eq!(
        metadata["runImage"],
        json!({
            "topLayer": base.image.layers[0].diff_id, "reference": base.reference,
            "image": "example.com/run", "mirrors": ["mirror.example.com/run"]
        })
    );
    assert_eq!(metadata["stack"]["runImage"]["image"], "example.com/run");
    // Layers of the base are in the output too.
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .arg(format!("oci:{}:app", bench.layout().display()))
        .arg(format!("dir:{}", bench.root.path().join("copy").display()))
        .output()
        .expect("`skopeo` is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn img_10_a_docker_base_gives_a_docker_image() {
    let mut bench = Bench::new();
    let mut base = base(&mut bench, |_| {});
    base.image.family = MediaFamily::Docker;
    bench.run_image.base = Base::Image(Box::new(base));
    let image = bench.export().image;
    let (configuration, manifest) = image.documents();
    assert_eq!(manifest.media_type.to_string(), "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(configuration.media_type.to_string(), "application/vnd.docker.container.image.v1+json");
    let last = image.layers.last().unwrap();
    assert_eq!(last.media_type.to_string(), "application/vnd.docker.image.rootfs.diff.tar.gzip");
}

#[test]
fn user_and_owner() {
    let mut bench = Bench::new();
    bench.user = Some(Owner { uid: 7, gid: 8 });
    let image = bench.export().image;
    assert_eq!(image.configuration.config.user.as_deref(), Some("7:8"));
    assert_eq!(Bench::listing(&image, 0), ["drwxr-xr-x 7/8 /workspace"]);
    for (user, expected) in
        [("0", (0, 0)), ("5:6", (5, 6)), ("www-data", (1000, 1000)), ("1:x", (1000, 1000))]
    {
        let mut bench = Bench::new();
        let base = base(&mut bench, |configuration| configuration.config.user = Some(user.into()));
        let base = Base::Image(Box::new(base));
        bench.run_image = RunImage { base, name: "base".into(), mirrors: vec![] };
        let form = file_form(&bench.run_image, None, FileOwner::default());
        assert_eq!((form.owner.uid, form.owner.gid), expected, "{user}");
        assert_eq!(bench.export().image.configuration.config.user.as_deref(), Some(user));
    }
}

/// What platforms want that run an image as any user of group 0: its bits are the owner's.
#[test]
fn the_owner_of_files_is_not_the_user_and_its_group_may_write() {
    let mut bench = Bench::new();
    bench.program("app/run.sh", "x");
    symlink("run.sh", bench.root.path().join("app/link")).unwrap();
    bench.write("modules/data", "x");
    bench.fresh("modules");
    bench.user = Some(Owner { uid: 7, gid: 8 });
    bench.files = FileOwner { uid: Some(9), gid: Some(0), is_group_writable: true };
    let image = bench.export().image;
    assert_eq!(image.configuration.config.user.as_deref(), Some("7:8"));
    let layer = ["drwxrwxr-x 9/0 /layers/acme_node/modules", "-rw-rw-r-- 9/0 /layers/acme_node/modules/data"];
    assert_eq!(Bench::listing(&image, 0)[2..], layer);
    assert_eq!(
        Bench::listing(&image, 1),
        [
            "drwxrwxr-x 9/0 /workspace",
            "lrwxrwxrwx 9/0 /workspace/link -> run.sh",
            "-rwxrwxr-x 9/0 /workspace/run.sh",
        ]
    );
    // The launcher is nobody's to change.
    assert_eq!(Bench::listing(&image, 2)[2], "-rwxr-xr-x 0/0 /cnb/lifecycle/launcher");
    assert_eq!(Bench::listing(&image, 3)[2], "-rw-rw-r-- 9/0 /layers/config/metadata.toml");
}

fn slices(bench: &mut Bench, slices: &[&[&str]]) {
    bench.built.slices = slices
        .iter()
        .map(|paths| Slice { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
        .collect();
}

/// EXP-04, IMG-08, SLC-07
#[test]
fn slc_02_to_05_slices() {
    let mut bench = Bench::new();
    for path in ["a.js", "lib/deep/x.js", "lib/y.css", "only/a.js", "static/img/1.png", "static/2.png", "z"] {
        bench.write(&format!("app/{path}"), "");
    }
    fs::create_dir(bench.root.path().join("app/empty")).unwrap();
    slices(&mut bench, &[&["*.js", "only/*.js"], &["static", "lib/deep/*", "a.js"], &["nothing"]]);
    let image = bench.export().image;
    assert_eq!(
        history(&image)[..4],
        ["Application Slice: 1", "Application Slice: 2", "Application Slice: 3", "Application Slice: 4"]
    );
    assert_eq!(
        Bench::names(&image, 0),
        ["/workspace", "/workspace/a.js", "/workspace/only", "/workspace/only/a.js"]
    );
    assert_eq!(
        Bench::names(&image, 1),
        [
            "/workspace",
            "/workspace/lib",
            "/workspace/lib/deep",
            "/workspace/lib/deep/x.js",
            "/workspace/static",
            "/workspace/static/2.png",
            "/workspace/static/img",
            "/workspace/static/img/1.png"
        ]
    );
    // EXP-04: V4, the empty layer.
    assert_eq!(
        image.layers[2].diff_id.0.hex(),
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
    assert_eq!(
        Bench::names(&image, 3),
        ["/workspace", "/workspace/empty", "/workspace/lib", "/workspace/lib/y.css", "/workspace/z"]
    );
}

/// EXP-04
#[test]
fn slc_05_nothing_left_is_an_empty_layer() {
    let mut bench = Bench::new();
    bench.write("app/dir/x", "");
    slices(&mut bench, &[&["*"]]);
    let image = bench.export().image;
    assert_eq!(Bench::names(&image, 0), ["/workspace", "/workspace/dir", "/workspace/dir/x"]);
    assert_eq!(
        image.layers[1].diff_id.0.hex(),
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}

#[test]
fn slc_01_a_malformed_pattern_fails_the_export() {
    let mut bench = Bench::new();
    slices(&mut bench, &[&["a[b"]]);
    assert_eq!(bench.try_export().unwrap_err().id(), "export.slice");
}

fn link(path: &str, layer: &str, target: &str) -> (BuildpackId, AppLink) {
    let link = AppLink { path: path.into(), layer: layer.parse().unwrap(), target: target.into() };
    (node().id, link)
}

#[test]
fn app_links_hide_what_the_source_has() {
    let mut bench = Bench::new();
    for path in ["node_modules/x/y", "node_modules-2/z", "sub/f"] {
        bench.write(&format!("app/{path}"), "");
    }
    bench.fresh("modules");
    bench.built.app_links =
        vec![link("node_modules", "modules", "node_modules"), link("sub/new/dir/link", "modules", "")];
    let image = bench.export().image;
    assert_eq!(
        Bench::listing(&image, 1),
        [
            "drwxr-xr-x 1000/1000 /workspace",
            "lrwxrwxrwx 1000/1000 /workspace/node_modules -> /layers/acme_node/modules/node_modules",
            "drwxr-xr-x 1000/1000 /workspace/node_modules-2",
            "-rw-r--r-- 1000/1000 /workspace/node_modules-2/z",
            "drwxr-xr-x 1000/1000 /workspace/sub",
            "-rw-r--r-- 1000/1000 /workspace/sub/f",
            "drwxr-xr-x 1000/1000 /workspace/sub/new",
            "drwxr-xr-x 1000/1000 /workspace/sub/new/dir",
            "lrwxrwxrwx 1000/1000 /workspace/sub/new/dir/link -> /layers/acme_node/modules",
        ]
    );
}

#[test]
fn app_links_that_cannot_be_are_refused() {
    for bad in [
        link("../x", "modules", ""),
        link("/x", "modules", ""),
        link("", "modules", ""),
        link("a/../b", "modules", ""),
        link("x", "modules", "../../etc"),
        link("x", "other", ""),
        link("file/x", "modules", ""),
    ] {
        let mut bench = Bench::new();
        bench.write("app/file", "");
        bench.fresh("modules");
        bench.built.app_links = vec![bad.clone()];
        assert_eq!(bench.try_export().unwrap_err().id(), "export.app_link", "{bad:?}");
    }
}

#[test]
fn r13_names_that_would_remove_files_are_all_listed() {
    let mut bench = Bench::new();
    for path in [".wh.passwd", "a/b/.wh..wh..opq", "a/.wh.dir/x", "a/b.wh.fine"] {
        bench.write(&format!("app/{path}"), "");
    }
    bench.write("modules/.wh.bin", "");
    bench.fresh("modules");
    let error = bench.try_export().unwrap_err();
    assert_eq!(error.id(), "export.reserved_name");
    let ExportError::ReservedNames { names } = error else { panic!("{error}") };
    assert_eq!(
        names,
        [
            "/workspace/.wh.passwd",
            "/workspace/a/.wh.dir",
            "/workspace/a/.wh.dir/x",
            "/workspace/a/b/.wh..wh..opq",
            "/layers/acme_node/modules/.wh.bin",
        ]
    );
    assert!(!bench.layout().exists());
}

/// The second bench differs in everything that must not matter.
#[test]
fn img_12_the_same_input_gives_the_same_digest() {
    let digest = |reversed: bool| {
        let mut bench = Bench::new();
        let mut paths: Vec<String> =
            (0..40).map(|number| format!("app/dir{}/f{number}", number % 3)).collect();
        paths.extend((0..20).map(|number| format!("modules/lib/{number}")));
        if reversed {
            paths.reverse();
        }
        for (number, path) in (1..).zip(&paths) {
            bench.write(path, path);
            let path = bench.root.path().join(path);
            let mode = if reversed { 0o600 } else { 0o664 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let time = std::time::UNIX_EPOCH + Duration::from_secs(if reversed { number } else { 7 });
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
        if reversed {
            let directory = bench.root.path().join("app/dir1");
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
        }
        bench.write("big/file", &"some text that compresses ".repeat(100_000));
        bench.fresh("big");
        bench.fresh("modules");
        let first = bench.export();
        // Again, from what the first export left in the store.
        fs::remove_dir_all(bench.layout()).unwrap();
        assert_eq!(bench.export().digest, first.digest);
        first.digest
    };
    assert_eq!(digest(false), digest(true));
}

/// EXP-11
#[test]
fn a_stored_layer_is_not_read_and_gives_the_same_image() {
    let mut bench = Bench::new();
    bench.write("modules/bin/tool", "tool");
    bench.fresh("modules");
    let fresh = bench.export();
    let [layer] = fresh.layers.as_slice() else { panic!("one layer") };
    assert!(layer.features.roots.bin);
    bench.built.layers.clear();
    fs::remove_dir_all(bench.root.path().join("modules")).unwrap();
    bench.layer(
        "modules",
        BuiltContents::Stored {
            diff_id: layer.diff_id.clone(),
            blob: StoredBlob { path: "/nonexistent".into(), ..layer.blob.clone() },
            features: layer.features,
        },
    );
    bench.store.created.store(0, Ordering::SeqCst);
    let again = bench.export();
    assert_eq!(again.digest, fresh.digest);
    // App, launcher and the rest are known by their tar: nothing is compressed either.
    assert_eq!(bench.store.created.load(Ordering::SeqCst), 0);
    let reused = |event: &&Event| matches!(event, Event::LayerExported { source: LayerSource::Reused, .. });
    assert_eq!(bench.events.iter().filter(reused).count(), 5);
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_blobs_of_the_store_are_made_anew() {
    let mut bench = Bench::new();
    bench.write("app/x", "x");
    let first = bench.export();
    fs::remove_dir_all(bench.layout()).unwrap();
    damage(first.image.layers[0].file().unwrap());
    fs::write(first.image.layers[1].file().unwrap(), "cut").unwrap();
    let again = bench.export();
    assert_eq!(again.digest, first.digest);
    let warnings = bench.events.iter().filter(|event| matches!(event, Event::Warning { .. }));
    assert_eq!(warnings.count(), 2);
    fs::remove_dir_all(bench.layout()).unwrap();
    assert_eq!(bench.export().digest, first.digest);
}

#[test]
fn a_damaged_layer_of_the_last_build_is_forgotten_and_named() {
    let mut bench = Bench::new();
    bench.write("modules/bin/tool", "tool");
    bench.fresh("modules");
    let layer = bench.export().layers.remove(0);
    fs::remove_dir_all(bench.layout()).unwrap();
    damage(&layer.blob.path);
    bench.built.layers.clear();
    let ExportedLayer { diff_id, blob, features, .. } = layer;
    bench.layer("modules", BuiltContents::Stored { diff_id, blob: blob.clone(), features });
    let error = bench.try_export().unwrap_err();
    assert_eq!(error.id(), "export.damaged_layer");
    assert_eq!(error.to_string(), "the stored layer `modules` of buildpack `acme/node@1.2` is damaged");
    assert!(!blob.path.exists());
}

/// LBL-16
#[test]
fn lch_07_and_08_labels_of_buildpacks() {
    let mut bench = Bench::new();
    let label = |key: &str, value: &str| Label { key: key.into(), value: value.into() };
    bench.built.labels = vec![label("a", "1"), label("a", "2"), label("io.buildpacks.exec-env", "x")];
    let image = bench.export().image;
    assert_eq!(image.configuration.config.labels["a"], "2");
    assert_eq!(image.configuration.config.labels["io.buildpacks.exec-env"], "x");
    bench.built.labels = vec![label("io.buildpacks.lifecycle.metadata", "{}")];
    assert_eq!(bench.try_export().unwrap_err().id(), "export.reserved_label");
}

#[test]
fn metadata_that_cannot_be_stored_names_its_layer() {
    let mut bench = Bench::new();
    bench.fresh("modules").metadata = "x = nan".to_owned();
    let error = bench.try_export().unwrap_err();
    assert_eq!(error.id(), "export.metadata");
    assert_eq!(
        error.to_string(),
        "the metadata of layer `modules` of buildpack `acme/node@1.2` cannot be stored"
    );
}

#[test]
fn without_a_launcher_the_image_is_the_app_and_its_layers() {
    let mut bench = Bench::new();
    bench.mode = LauncherMode::Auto;
    bench.program("server/bin/server", "x");
    bench.write("zlib/lib/z.so", "x");
    let change = |name: &str, scope, operation, value: &str| EnvironmentChange {
        name: name.into(),
        scope,
        operation,
        value: value.into(),
        delimiter: ":".into(),
    };
    bench.fresh("server").environment = vec![
        change("PORT", EnvironmentScope::All, EnvironmentOperation::Default, "8080"),
        change("BUILD", EnvironmentScope::Build, EnvironmentOperation::Override, "no"),
        change(
            "MODE",
            EnvironmentScope::Process("web".parse().unwrap()),
            EnvironmentOperation::Override,
            "web",
        ),
    ];
    bench.fresh("zlib");
    let mut process = web(&["server", "--root", "x"]);
    process.args = Some(vec!["-v".into()]);
    bench.built.processes = crate::cnb::launch::ProcessTable::default();
    bench.built.processes.add(&node().id, vec![process]);
    let exported = bench.export();
    assert!(!exported.has_launcher);
    let image = &exported.image;
    let run = &image.configuration.config;
    assert_eq!(run.entrypoint, ["server", "--root", "x"]);
    assert_eq!(run.cmd, ["-v"]);
    assert_eq!(
        run.env,
        [
            "LD_LIBRARY_PATH=/layers/acme_node/zlib/lib",
            "MODE=web",
            "PATH=/layers/acme_node/server/bin",
            "PORT=8080"
        ]
    );
    assert_eq!(run.working_dir.as_deref(), Some("/workspace"));
    assert_eq!(
        (run.labels[LAUNCHER_LABEL].as_str(), run.labels["io.buildpacks.rebasable"].as_str()),
        ("none", "false")
    );
    assert_eq!(image.layers.len(), 3);
    let metadata = label(image, labels_name("lifecycle"));
    assert!(metadata.get("launcher").is_none() && metadata.get("config").is_none());
}

#[test]
fn lau_23_a_relative_program_is_looked_up_from_the_app() {
    let mut bench = Bench::new();
    bench.mode = LauncherMode::Never;
    bench.built.processes = crate::cnb::launch::ProcessTable::default();
    bench.program("app/bin/run", "x");
    let process = Process { working_directory: Some("sub".into()), ..web(&["./bin/run"]) };
    bench.built.processes.add(&node().id, vec![process]);
    let run = bench.export().image.configuration.config;
    assert_eq!(run.entrypoint, ["/workspace/./bin/run"]);
    assert_eq!(run.working_dir.as_deref(), Some("/workspace/sub"));
}

#[test]
fn what_needs_a_launcher_gets_one_or_is_refused() {
    let needs = |change: &dyn Fn(&mut Bench)| {
        let mut bench = Bench::new();
        change(&mut bench);
        bench.mode = LauncherMode::Auto;
        assert!(bench.export().has_launcher);
        bench.mode = LauncherMode::Never;
        let error = bench.try_export().unwrap_err();
        assert_eq!(error.id(), "export.needs_launcher");
        error.to_string()
    };
    assert_eq!(
        needs(&|bench| {
            bench.write("modules/exec.d/x", "");
            bench.fresh("modules");
        }),
        "the image needs a launcher: layer `modules` of buildpack `acme/node@1.2` has programs in `exec.d`"
    );
    assert_eq!(
        needs(&|bench| bench.built.processes = crate::cnb::launch::ProcessTable::default()),
        "the image needs a launcher: there is no process to start"
    );
    assert_eq!(
        needs(&|bench| {
            let process = Process { exec_envs: vec!["test".parse().unwrap()], ..web(&[PROGRAM]) };
            bench.built.processes.add(&node().id, vec![process]);
        }),
        "the image needs a launcher: process `web` is for some execution environments only"
    );
}

#[test]
fn a_second_process_needs_the_launcher_unless_told_otherwise() {
    let mut bench = Bench::new();
    let job = Process { process_type: "job".parse().unwrap(), default: false, ..web(&[PROGRAM]) };
    bench.built.processes.add(&node().id, vec![job]);
    bench.mode = LauncherMode::Auto;
    assert!(bench.export().has_launcher);
    bench.mode = LauncherMode::Never;
    assert_eq!(bench.export().image.configuration.config.entrypoint, [PROGRAM, "--x"]);
}

#[test]
fn sockets_are_left_out_with_a_warning() {
    let mut bench = Bench::new();
    let _socket = std::os::unix::net::UnixListener::bind(bench.root.path().join("app/s")).unwrap();
    let image = bench.export().image;
    assert_eq!(Bench::names(&image, 0), ["/workspace"]);
    assert!(
        bench
            .events
            .contains(&Event::Warning { message: "`s` is a socket and not part of the image".to_owned() })
    );
}

#[test]
fn cancelling_while_files_are_read_leaves_nothing() {
    let bench = Bench::new();
    fs::File::create(bench.root.path().join("app/big")).unwrap().set_len(64 << 20).unwrap();
    let (exec_env, project) = (ExecEnv::default(), ProjectMetadata::default());
    let request = ExportRequest {
        built: &bench.built,
        run_image: &bench.run_image,
        run_images: None,
        launcher: &bench.launcher,
        launcher_mode: LauncherMode::Auto,
        user: None,
        files: FileOwner::default(),
        process_type: None,
        exec_env: &exec_env,
        project: &project,
        created: None,
        limits: TreeLimits::default(),
    };
    let cancel = bench.cancel.clone();
    let mut progress = Vec::new();
    let mut sink = |event| {
        if let Event::Progress { done_bytes, total_bytes } = event {
            progress.push((done_bytes, total_bytes));
            cancel.cancel();
        }
    };
    let error = export(&request, &bench.store, &bench.cancel, &mut sink).unwrap_err();
    assert_eq!(error.id(), "build.cancelled");
    assert_eq!(progress, [(4 << 20, Some(64 << 20))]);
    assert_eq!(fs::read_dir(&bench.store.directory).unwrap().count(), 0);
}

#[test]
fn umoci_unpacks_what_we_export() {
    let mut bench = Bench::new();
    bench.write("app/index.html", "<h1>hi</h1>");
    bench.write("modules/bin/tool", "tool");
    bench.fresh("modules");
    bench.export();
    let bundle = bench.root.path().join("bundle");
    let output = Command::new("umoci")
        .args(["unpack", "--rootless", "--image"])
        .arg(format!("{}:app", bench.layout().display()))
        .arg(&bundle)
        .output()
        .expect("`umoci` is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let root = bundle.join("rootfs");
    assert_eq!(fs::read_to_string(root.join("workspace/index.html")).unwrap(), "<h1>hi</h1>");
    assert_eq!(fs::read_to_string(root.join("layers/acme_node/modules/bin/tool")).unwrap(), "tool");
    assert_eq!(fs::read_link(root.join("cnb/process/web")).unwrap(), Path::new("/cnb/lifecycle/launcher"));
    let configuration: Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(configuration["process"]["args"], json!(["/cnb/process/web"]));
}

/// A process that starts a script of a layer, whose interpreter is in the base.
fn bench_with_interpreter() -> Bench {
    let mut bench = Bench::new();
    bench.program("app/interpreter", "x");
    let base = base(&mut bench, |_| ());
    fs::remove_file(bench.root.path().join("app/interpreter")).unwrap();
    bench.program("tool/bin/run", "#!/workspace/interpreter\n");
    bench.fresh("tool");
    bench.run_image = RunImage { base: Base::Image(Box::new(base)), name: "base".into(), mirrors: vec![] };
    bench.built.processes = crate::cnb::launch::ProcessTable::default();
    bench.built.processes.add(&node().id, vec![web(&["run"])]);
    bench.store.notes.lock().unwrap().clear();
    bench
}

/// The layer of `bench_with_interpreter` as the next build finds it.
fn store_layer(bench: &mut Bench, exported: &Exported, path: &Path) {
    let layer = &exported.layers[0];
    bench.built.layers.clear();
    let blob = StoredBlob { path: path.to_owned(), ..layer.blob.clone() };
    let (diff_id, features) = (layer.diff_id.clone(), layer.features);
    bench.layer("tool", BuiltContents::Stored { diff_id, blob, features });
}

#[test]
fn what_processes_need_is_read_once() {
    let mut bench = bench_with_interpreter();
    let first = bench.export();
    // From here on nothing can be read but what was kept.
    let nowhere = Path::new("/nonexistent");
    store_layer(&mut bench, &first, nowhere);
    if let Base::Image(base) = &mut bench.run_image.base {
        base.image.layers[0].blob = nowhere.to_owned().into();
    }
    assert_eq!(bench.export().digest, first.digest);
    // Another verdict, from the same files.
    bench.built.processes.add(&node().id, vec![Process { default: false, ..web(&["run", "again"]) }]);
    bench.export();
    // Somebody's notes in place of ours are no notes.
    for text in bench.store.notes.lock().unwrap().values_mut() {
        *text = "{".into();
    }
    assert_eq!(bench.try_export().unwrap_err().id(), "layout.unreadable_blob");
}

#[test]
fn a_layer_of_the_last_build_is_looked_into_again_on_another_base() {
    for keeps_notes in [true, false] {
        let mut bench = bench_with_interpreter();
        let first = bench.export();
        if !keeps_notes {
            bench.store.notes.lock().unwrap().clear();
        }
        store_layer(&mut bench, &first, &first.layers[0].blob.path);
        let target = Target { os: "linux".into(), arch: "amd64".into(), variant: None, distro: None };
        bench.run_image = RunImage { base: Base::Scratch(target), name: String::new(), mirrors: vec![] };
        let error = bench.try_export().unwrap_err();
        assert_eq!(error.id(), "export.no_interpreter");
        assert_eq!(error.to_string(), "process `web` cannot start on the run image `scratch`");
        assert_eq!(
            std::error::Error::source(&error).unwrap().to_string(),
            "`/layers/acme_node/tool/bin/run` of layer `tool` of buildpack `acme/node@1.2` needs \
             `/workspace/interpreter`, which is not in the image"
        );
    }
}

#[test]
fn what_may_change_when_the_image_starts_is_a_warning() {
    let warnings = |change: &dyn Fn(&mut Bench)| {
        let mut bench = Bench::new();
        bench.built.processes = crate::cnb::launch::ProcessTable::default();
        bench.built.processes.add(&node().id, vec![web(&["nowhere"])]);
        change(&mut bench);
        // Also when the verdict of the build before is all there is.
        let result = bench.try_export().and_then(|_| bench.try_export());
        let warnings = bench.events.iter().filter(|event| matches!(event, Event::Warning { .. })).count();
        result.map(|_| warnings).map_err(|error| error.id())
    };
    assert_eq!(warnings(&|_| ()), Err("export.no_program"));
    assert_eq!(
        warnings(&|bench| {
            bench.write("tool/exec.d/program", "x");
            bench.fresh("tool");
        }),
        Ok(2)
    );
    // What no variable can bring.
    assert_eq!(
        warnings(&|bench| {
            bench.write("tool/exec.d/program", "x");
            bench.write("app/nowhere", "x");
            bench.fresh("tool");
        }),
        Err("export.not_executable")
    );
    // A process that is not meant to start here.
    assert_eq!(
        warnings(&|bench| {
            let process = Process { exec_envs: vec!["test".parse().unwrap()], ..web(&["nowhere"]) };
            bench.built.processes.add(&node().id, vec![process]);
        }),
        Ok(2)
    );
}

/// A base that cannot be looked into is said once and refuses nothing.
#[test]
fn a_base_of_another_compression_is_a_warning() {
    let mut bench = bench_with_interpreter();
    let bytes = [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0];
    let path = bench.root.path().join("zstd");
    fs::write(&path, bytes).unwrap();
    if let Base::Image(base) = &mut bench.run_image.base {
        let layer = &mut base.image.layers[0];
        (layer.blob, layer.digest, layer.size) = (path.into(), Digest::of(&bytes), bytes.len() as u64);
    }
    bench.export();
    let message = bench.events.iter().find_map(|event| match event {
        Event::Warning { message } => Some(message.as_str()),
        _ => None,
    });
    assert!(message.unwrap().starts_with("whether the processes can start is not known: "), "{message:?}");
}
