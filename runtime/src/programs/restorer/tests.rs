//! Restoring from caches and labels as files, as a platform sees it: what its tests share.

mod files;
mod images;
mod layers;
mod sboms;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::cache_dir::CacheDir;
use crate::cnb::analyzed_toml::AnalyzedRunImage;
use crate::cnb::labels::{BuildpackLayers, LayerSha, StoreRecord};
use crate::images::LayoutImages;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::layer::{LayerWriter, Owner};

const NODE: &str = "acme/node";
const GROUP: &str = "[[group]]\nid = \"acme/node\"\nversion = \"2.0.0\"\napi = \"0.10\"\n";

/// A platform's directories.
struct Platform {
    root: tempfile::TempDir,
    inputs: Inputs,
    /// What is said while restoring.
    events: Vec<Event>,
    app: Vec<BuildpackLayers>,
    cache: CacheMetadata,
}

impl Platform {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for directory in ["cache", "layers"] {
            fs::create_dir(path(directory)).unwrap();
        }
        fs::write(path("group.toml"), GROUP).unwrap();
        let inputs = Inputs {
            api: PlatformApi::NEWEST,
            exec_env: ExecEnv::default(),
            analyzed: path("analyzed.toml"),
            build_image: None,
            cache_dir: Some(path("cache")),
            cache_image: None,
            generated: path("generated"),
            group: path("group.toml"),
            layers: path("layers"),
            run: path("run.toml"),
            skip_layers: false,
            owner: None,
        };
        Self { root, inputs, events: Vec::new(), app: Vec::new(), cache: CacheMetadata::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A path below the layers of the buildpack.
    fn node(&self, name: &str) -> PathBuf {
        self.path("layers/acme_node").join(name)
    }

    /// A layer as the exporter would have cached it, with one file.
    fn tar(&self, layer: &str, contents: &str) -> Vec<u8> {
        let mut writer = LayerWriter::new(Vec::new());
        let directory = self.node(layer);
        let mut parents: Vec<&Path> = directory.ancestors().filter(|path| path.parent().is_some()).collect();
        parents.reverse();
        for parent in parents {
            writer.directory(parent.as_os_str().as_encoded_bytes(), 0o755, Owner::ROOT).unwrap();
        }
        let name = directory.join("file");
        let name = name.as_os_str().as_encoded_bytes();
        writer.file(name, 0o640, Owner::ROOT, contents.len() as u64, contents.as_bytes()).unwrap();
        writer.finish().unwrap()
    }

    fn record(types: &str, sha: &str, data: Value) -> LayerRecord {
        LayerRecord {
            sha: sha.to_owned(),
            data,
            build: types.contains('b'),
            launch: types.contains('l'),
            cache: types.contains('c'),
        }
    }

    /// What the last build left of a layer: in the label if it is for launch, in the
    /// cache if it is to be cached.
    fn last_build(&mut self, layer: &str, types: &str) {
        let tar = self.tar(layer, layer);
        let sha = Digest::of(&tar).to_string();
        let record = Self::record(types, &sha, json!({"name": layer, "n": 1}));
        if types.contains('l') {
            self.app_layers().insert(layer.to_owned(), record.clone());
        }
        if types.contains('c') {
            self.put(&tar);
            self.cache_layers().insert(layer.to_owned(), record);
        }
    }

    fn put(&self, tar: &[u8]) -> String {
        let sha = Digest::of(tar).to_string();
        fs::create_dir_all(self.path("cache/committed")).unwrap();
        fs::write(self.path(&format!("cache/committed/{sha}.tar")), tar).unwrap();
        sha
    }

    fn app_layers(&mut self) -> &mut BTreeMap<String, LayerRecord> {
        layers_of_node(&mut self.app)
    }

    fn cache_layers(&mut self) -> &mut BTreeMap<String, LayerRecord> {
        layers_of_node(&mut self.cache.buildpacks)
    }

    fn write_analyzed(&self, analyzed: &Analyzed) {
        fs::write(&self.inputs.analyzed, analyzed.to_toml().unwrap()).unwrap();
    }

    fn images(&self) -> LayoutImages {
        LayoutImages::new(self.path("images"), "amd64".to_owned())
    }

    fn restore(&mut self) -> Result<(), RestoreError> {
        let metadata = LifecycleMetadata { buildpacks: self.app.clone(), ..LifecycleMetadata::default() };
        self.restore_after(&Analyzed { metadata, ..Analyzed::default() })
    }

    fn restore_after(&mut self, analyzed: &Analyzed) -> Result<(), RestoreError> {
        self.write_analyzed(analyzed);
        self.run()
    }

    fn run(&mut self) -> Result<(), RestoreError> {
        fs::create_dir_all(self.path("cache/committed")).unwrap();
        let metadata = self.path("cache/committed/io.buildpacks.lifecycle.cache.metadata");
        if !metadata.exists() {
            fs::write(metadata, self.cache.to_json().unwrap()).unwrap();
        }
        let images = self.images();
        let events = &mut self.events;
        run(&self.inputs, ImagePlaces::one(&images), &mut |event| events.push(event))
    }

    fn warnings(&self) -> Vec<&str> {
        let mut warnings = Vec::new();
        for event in &self.events {
            if let Event::Warning { message } = event {
                warnings.push(message.as_str());
            }
        }
        warnings
    }

    /// Everything below the buildpack's layers, sorted.
    fn found(&self) -> Vec<String> {
        let mut found = Vec::new();
        let result = walk::walk::<walk::WalkError>(&self.path("layers"), |entry| {
            found.push(entry.path.to_str().unwrap().to_owned());
            Ok(walk::Step::Into)
        });
        result.unwrap();
        found
    }
}

fn layers_of_node(buildpacks: &mut Vec<BuildpackLayers>) -> &mut BTreeMap<String, LayerRecord> {
    if buildpacks.is_empty() {
        let (key, version) = (NODE.to_owned(), "1.0.0".to_owned());
        buildpacks.push(BuildpackLayers { key, version, ..BuildpackLayers::default() });
    }
    &mut buildpacks[0].layers
}
