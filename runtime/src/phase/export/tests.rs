//! Exporting, from values to an image in a layout.

mod app;
mod image;
mod reuse;
mod start;

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
use crate::fault::{Diagnose, Fault};
use crate::oci::blob::{BlobStore, NewBlob, Notes, StoredBlob};
use crate::oci::digest::DiffId;
use crate::oci::image::History;
use crate::oci::layout::{ImageLayout, read_image};
use crate::phase::values::BuiltBuildpack;

/// A store that keeps blobs in a directory, by diff id and encoder.
struct DirectoryStore {
    directory: PathBuf,
    created: AtomicUsize,
    /// What somebody asked for.
    wanted: Mutex<Vec<DiffId>>,
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
        self.wanted.lock().unwrap().push(diff_id.clone());
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
    encoding: Encoding,
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
                wanted: Mutex::default(),
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
            encoding: Encoding::Gzip,
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
            encoding: self.encoding,
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

fn labels_name(short: &str) -> &'static str {
    match short {
        "lifecycle" => "io.buildpacks.lifecycle.metadata",
        "build" => "io.buildpacks.build.metadata",
        _ => "io.buildpacks.project.metadata",
    }
}

fn history(image: &Image) -> Vec<&str> {
    image.configuration.history.iter().map(|entry| entry.created_by.as_deref().unwrap_or("")).collect()
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
