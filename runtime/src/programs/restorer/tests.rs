//! Restoring from caches and labels as files, as a platform sees it.

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

/// LYR-12, LYR-13, RST-14: every row of the table, for a buildpack of another version.
#[test]
fn lyr_13_and_rst_14_every_combination_of_types() {
    let mut platform = Platform::new();
    for types in ["blc", "bc", "bl", "b", "lc", "c", "l", "none"] {
        platform.last_build(types, if types == "none" { "" } else { types });
    }
    platform.restore().unwrap();
    assert_eq!(
        platform.found(),
        [
            "acme_node",
            "acme_node/bc",
            "acme_node/bc/file",
            "acme_node/bc.toml",
            "acme_node/blc",
            "acme_node/blc/file",
            "acme_node/blc.toml",
            "acme_node/c",
            "acme_node/c/file",
            "acme_node/c.toml",
            "acme_node/l.toml",
            "acme_node/lc",
            "acme_node/lc/file",
            "acme_node/lc.toml",
        ]
    );
    assert_eq!(fs::read_to_string(platform.node("bc/file")).unwrap(), "bc");
    assert_eq!(fs::metadata(platform.node("bc/file")).unwrap().mode() & 0o7777, 0o640);
    let text = fs::read_to_string(platform.node("l.toml")).unwrap();
    assert_eq!(toml::from_str::<Value>(&text).unwrap(), json!({"metadata": {"name": "l", "n": 1}}));
    assert_eq!(platform.warnings(), Vec::<&str>::new());
    let restored = platform.events.iter().filter(|event| matches!(event, Event::LayerRestored { .. }));
    assert_eq!(restored.count(), 5);
}

#[test]
fn lyr_09_and_lyr_10_only_old_buildpacks_get_their_flags_back() {
    for (api, expected) in [
        ("0.5", json!({"launch": true, "build": false, "cache": true, "metadata": {"name": "x", "n": 1}})),
        ("0.6", json!({"metadata": {"name": "x", "n": 1}})),
    ] {
        let mut platform = Platform::new();
        fs::write(&platform.inputs.group, GROUP.replace("0.10", api)).unwrap();
        platform.last_build("x", "lc");
        platform.restore().unwrap();
        let text = fs::read_to_string(platform.node("x.toml")).unwrap();
        assert_eq!(toml::from_str::<Value>(&text).unwrap(), expected, "{api}");
    }
}

#[test]
fn rst_01_and_sto_01_to_03_the_store_of_the_same_id_comes_first_and_always() {
    let store = json!({"deep": {"n": 9_007_199_254_740_993_i64}});
    let with_store = |key: &str| BuildpackLayers {
        key: key.to_owned(),
        version: "0.1".to_owned(),
        store: Some(StoreRecord { metadata: store.clone() }),
        ..BuildpackLayers::default()
    };
    for skip_layers in [false, true] {
        let mut platform = Platform::new();
        platform.inputs.skip_layers = skip_layers;
        platform.app = vec![with_store(NODE), with_store("acme/gone")];
        platform.restore().unwrap();
        assert_eq!(platform.found(), ["acme_node", "acme_node/store.toml"]);
        let text = fs::read_to_string(platform.node("store.toml")).unwrap();
        assert_eq!(toml::from_str::<Value>(&text).unwrap(), json!({ "metadata": store }));
    }
}

#[test]
fn rst_02_skipping_layers_removes_those_that_are_cached() {
    let mut platform = Platform::new();
    platform.inputs.skip_layers = true;
    platform.last_build("cached", "c");
    platform.last_build("launched", "l");
    for name in ["cached/file", "launched/file", "sbom/launch/x"] {
        fs::create_dir_all(platform.node(name).parent().unwrap()).unwrap();
        fs::write(platform.node(name), "left").unwrap();
    }
    fs::write(platform.node("cached.toml"), "").unwrap();
    fs::write(platform.node("cached.sha"), "").unwrap();
    platform.restore().unwrap();
    assert!(!platform.found().iter().any(|name| name.contains("cached")), "{:?}", platform.found());
    assert!(platform.node("launched/file").exists());
    assert!(!platform.node("launched.toml").exists());
}

#[test]
fn rst_06_a_cache_out_of_step_with_the_image_is_dropped() {
    let mut platform = Platform::new();
    platform.last_build("both", "lc");
    platform.app_layers().get_mut("both").unwrap().sha = Digest::of(b"another").to_string();
    fs::create_dir_all(platform.node("both")).unwrap();
    platform.restore().unwrap();
    assert_eq!(platform.found(), ["acme_node"]);
}

/// RST-07, LYR-13: metadata and contents both or neither; one warning, and the others go on.
#[test]
fn rst_07_and_lyr_13_what_is_damaged_is_a_miss() {
    let mut platform = Platform::new();
    for layer in ["absent", "damaged", "good", "hostile", "odd"] {
        platform.last_build(layer, "c");
    }
    let tar = |platform: &Platform, layer: &str| {
        let sha = &platform.cache.buildpacks[0].layers[layer].sha;
        platform.path(&format!("cache/committed/{sha}.tar"))
    };
    fs::remove_file(tar(&platform, "absent")).unwrap();
    let damaged = tar(&platform, "damaged");
    let mut bytes = fs::read(&damaged).unwrap();
    let at = bytes.windows(7).rposition(|window| window == b"damaged").unwrap();
    bytes[at] = b'D';
    fs::write(&damaged, bytes).unwrap();
    // It is what it says, and leads elsewhere.
    let other = platform.tar("good/../../../outside", "x");
    let sha = platform.put(&other);
    platform.cache_layers().get_mut("hostile").unwrap().sha = sha;
    platform.cache_layers().get_mut("odd").unwrap().sha = "../../etc/passwd".to_owned();
    platform.restore().unwrap();
    assert_eq!(
        platform.found(),
        ["acme_node", "acme_node/good", "acme_node/good/file", "acme_node/good.toml"]
    );
    let warnings = platform.warnings();
    assert_eq!(warnings.len(), 4, "{warnings:#?}");
    for layer in ["absent", "damaged", "hostile", "odd"] {
        let about = warnings.iter().filter(|text| text.contains(&format!("acme/node:{layer}`")));
        assert_eq!(about.count(), 1, "{layer}: {warnings:#?}");
    }
}

#[test]
fn rst_09_without_a_cache_nothing_fails() {
    for given in [true, false] {
        let mut platform = Platform::new();
        platform.last_build("launched", "l");
        platform.last_build("both", "lc");
        platform.cache = CacheMetadata::default();
        if !given {
            platform.inputs.cache_dir = None;
        }
        platform.restore().unwrap();
        assert_eq!(platform.found(), ["acme_node", "acme_node/launched.toml"]);
        assert_eq!(platform.warnings(), [""; 0]);
    }
}

#[test]
fn rst_10_a_cache_that_cannot_be_read_is_empty() {
    let mut platform = Platform::new();
    platform.last_build("cached", "c");
    fs::write(platform.path("cache/committed/io.buildpacks.lifecycle.cache.metadata"), "{").unwrap();
    platform.restore().unwrap();
    assert_eq!(platform.found(), Vec::<String>::new());
}

/// A layer of bills of materials, and what the analyzer unpacked.
fn with_sboms(platform: &mut Platform) {
    let mut writer = LayerWriter::new(Vec::new());
    for (name, text) in [
        ("acme_node/a.b/sbom.cdx.json", "cached cdx"),
        ("acme_node/a.b/sbom.spdx.json", "cached spdx"),
        ("acme_node/dropped/sbom.cdx.json", "dropped"),
        ("acme_other/x/sbom.cdx.json", "other"),
    ] {
        let path = platform.path("layers/sbom/cache").join(name);
        let name = path.as_os_str().as_encoded_bytes();
        writer.file(name, 0o644, Owner::ROOT, text.len() as u64, text.as_bytes()).unwrap();
    }
    let sha = platform.put(&writer.finish().unwrap());
    platform.cache.sbom = LayerSha { sha };
    for (name, text) in [
        ("acme_node/a.b/sbom.spdx.json", "launched spdx"),
        ("acme_node/build-and-launch/sbom.syft.json", "bl"),
        ("acme_node/sbom.cdx.json", "of the image"),
    ] {
        let path = platform.path("layers/sbom/launch").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    platform.last_build("a.b", "lc");
    platform.last_build("build-and-launch", "bl");
    platform.last_build("dropped", "lc");
    platform.app_layers().get_mut("dropped").unwrap().sha = Digest::of(b"another").to_string();
}

/// RST-11, RST-12, SBOM-14: of layers whose metadata came back; the image's wins.
#[test]
fn rst_11_rst_12_and_sbom_14_bills_of_materials_of_restored_layers() {
    let mut platform = Platform::new();
    with_sboms(&mut platform);
    platform.restore().unwrap();
    assert_eq!(
        platform.found(),
        [
            "acme_node",
            "acme_node/a.b",
            "acme_node/a.b/file",
            "acme_node/a.b.sbom.cdx.json",
            "acme_node/a.b.sbom.spdx.json",
            "acme_node/a.b.toml",
        ]
    );
    assert_eq!(fs::read_to_string(platform.node("a.b.sbom.cdx.json")).unwrap(), "cached cdx");
    assert_eq!(fs::read_to_string(platform.node("a.b.sbom.spdx.json")).unwrap(), "launched spdx");
}

#[test]
fn rst_11_not_before_platform_api_0_8_and_a_damaged_one_is_a_warning() {
    let mut platform = Platform::new();
    with_sboms(&mut platform);
    platform.inputs.api = PlatformApi::supported(ApiVersion::zero(7)).unwrap();
    platform.restore().unwrap();
    assert!(!platform.node("a.b.sbom.cdx.json").exists());

    let mut platform = Platform::new();
    with_sboms(&mut platform);
    let tar = platform.path(&format!("cache/committed/{}.tar", platform.cache.sbom.sha));
    fs::OpenOptions::new().append(true).open(tar).unwrap().write_all(&[0; 512]).unwrap();
    platform.restore().unwrap();
    assert_eq!(platform.warnings().len(), 1, "{:?}", platform.warnings());
    assert!(!platform.node("a.b.sbom.cdx.json").exists());
    assert_eq!(fs::read_to_string(platform.node("a.b.sbom.spdx.json")).unwrap(), "launched spdx");
}

#[test]
fn rst_13_everything_belongs_to_the_build_user() {
    let us = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // Only root can give files away.
    let owner = if us.0 == 0 { (1234, 5678) } else { us };
    let mut platform = Platform::new();
    platform.last_build("cached", "c");
    fs::create_dir_all(platform.path("layers/other/deep")).unwrap();
    fs::write(platform.path("layers/other/setuid"), "").unwrap();
    fs::set_permissions(platform.path("layers/other/setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
    let outside = platform.path("outside");
    fs::write(&outside, "precious").unwrap();
    fs::hard_link(&outside, platform.path("layers/other/second-name")).unwrap();
    symlink(&outside, platform.path("layers/other/link")).unwrap();
    platform.inputs.owner = Some(owner);
    platform.restore().unwrap();
    for name in platform.found() {
        let metadata = fs::symlink_metadata(platform.path("layers").join(&name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), owner, "{name}");
    }
    assert_eq!(fs::metadata(platform.path("layers")).unwrap().uid(), owner.0);
    assert_eq!(fs::metadata(platform.path("layers/other/setuid")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(fs::metadata(outside).unwrap().uid(), us.0);
}

/// Links that an earlier build left lead nowhere, for reading, writing and removing.
#[test]
fn links_in_the_layers_directory_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("both")).unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();

    let mut platform = Platform::new();
    platform.last_build("both", "lc");
    platform.app_layers().get_mut("both").unwrap().sha = Digest::of(b"another").to_string();
    platform.last_build("l", "l");
    symlink(outside.path(), platform.path("layers/acme_node")).unwrap();
    let error = platform.restore().unwrap_err();
    assert_eq!(error.code(), 42, "{error:?}");
    assert!(outside.path().join("both").exists() && !outside.path().join("l.toml").exists());

    let mut platform = Platform::new();
    platform.last_build("l", "l");
    fs::create_dir_all(platform.path("layers/sbom/launch/acme_node/l")).unwrap();
    let sbom = platform.path("layers/sbom/launch/acme_node/l/sbom.cdx.json");
    symlink(outside.path().join("secret"), sbom).unwrap();
    fs::create_dir_all(platform.node("")).unwrap();
    symlink(outside.path().join("target"), platform.node("l.toml")).unwrap();
    platform.restore().unwrap();
    assert_eq!(platform.found(), ["acme_node", "acme_node/l.toml"]);
    assert!(!outside.path().join("target").exists());
}

#[test]
fn exe_04_layers_for_another_environment_are_not_restored() {
    for (built_for, minor, expected) in [
        (Some("test"), 15, false),
        (Some("production"), 15, true),
        (None, 15, true),
        (Some("test"), 14, true),
    ] {
        let mut platform = Platform::new();
        platform.inputs.api = PlatformApi::supported(ApiVersion::zero(minor)).unwrap();
        platform.last_build("l", "l");
        platform.last_build("lc", "lc");
        let metadata = LifecycleMetadata {
            buildpacks: platform.app.clone(),
            exec_env: built_for.map(str::to_owned),
            ..LifecycleMetadata::default()
        };
        platform.restore_after(&Analyzed { metadata, ..Analyzed::default() }).unwrap();
        assert_eq!(platform.node("l.toml").exists(), expected, "{built_for:?}");
        assert_eq!(platform.node("lc/file").exists(), expected, "{built_for:?}");
    }
}

#[test]
fn ana_10_a_missing_analyzed_toml_is_a_warning_and_a_malformed_one_an_error() {
    let mut platform = Platform::new();
    platform.last_build("cached", "c");
    platform.run().unwrap();
    assert!(platform.node("cached/file").exists());
    assert_eq!(platform.warnings().len(), 1);
    assert!(!platform.inputs.analyzed.exists());

    fs::write(&platform.inputs.analyzed, "[").unwrap();
    let error = platform.run().unwrap_err();
    assert_eq!(error.code(), 1, "{error:?}");
}

#[test]
fn api_07_the_apis_of_the_group_are_verified() {
    for text in [
        "[[group]]\nid = \"a\"\nversion = \"1\"\napi = \"0.99\"\n",
        "[[group-extensions]]\nid = \"a\"\nversion = \"1\"\napi = \"0.1\"\n",
    ] {
        let mut platform = Platform::new();
        fs::write(&platform.inputs.group, text).unwrap();
        let error = platform.restore().unwrap_err();
        assert_eq!(error.code(), 12, "{error:?}");
    }
}

#[test]
fn cac_03_a_cache_directory_that_is_not_there_is_an_error() {
    let mut platform = Platform::new();
    platform.inputs.cache_dir = Some(platform.path("nowhere"));
    let error = platform.restore().unwrap_err();
    assert_eq!(error.code(), 1, "{error:?}");
}

mod images {
    use super::*;
    use crate::cancel::Cancel;
    use crate::event::EventSink;
    use crate::images::{FoundImage, Images, ImagesError, SavedImage};
    use crate::oci::blob::BlobStore;
    use crate::oci::image::{Image, ImageConfiguration, MediaFamily};

    /// Has the images of these names.
    struct Named(Vec<&'static str>);

    impl Images for Named {
        fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
            let configuration: ImageConfiguration = serde_json::from_str(
                r#"{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
            )
            .unwrap();
            let image = Image { family: MediaFamily::Oci, configuration, layers: vec![] };
            let found = FoundImage { reference: format!("found:{name}"), image };
            Ok(self.0.contains(&name).then_some(found))
        }

        fn layer(&self, _: &FoundImage, _: &DiffId) -> Result<Box<dyn std::io::Read>, ImagesError> {
            unreachable!("no layer is wanted")
        }

        fn check_write(&self, _: &str) -> Result<(), ImagesError> {
            unreachable!("nothing is written")
        }

        fn save(
            &self,
            _: &Image,
            _: &[String],
            _: &dyn BlobStore,
            _: &Cancel,
            _: &mut dyn EventSink,
        ) -> Result<SavedImage, ImagesError> {
            unreachable!("nothing is written")
        }
    }

    fn restored(
        platform: &mut Platform,
        run_image: AnalyzedRunImage,
        images: &dyn Images,
    ) -> Result<Analyzed, RestoreError> {
        platform.write_analyzed(&Analyzed { run_image: Some(run_image), ..Analyzed::default() });
        run(&platform.inputs, ImagePlaces::one(images), &mut |_| {})?;
        Ok(Analyzed::parse(&fs::read_to_string(&platform.inputs.analyzed).unwrap()).unwrap())
    }

    fn run_image(reference: &str, image: &str) -> AnalyzedRunImage {
        AnalyzedRunImage { reference: reference.into(), image: image.into(), ..AnalyzedRunImage::default() }
    }

    /// A cache image; its layers are files of the cache directory.
    struct CacheImage {
        metadata: CacheMetadata,
        directory: PathBuf,
        fetched: std::cell::RefCell<Vec<String>>,
    }

    impl Images for CacheImage {
        fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
            let label = json!({"io.buildpacks.lifecycle.cache.metadata": self.metadata.to_json().unwrap()});
            let configuration: ImageConfiguration = serde_json::from_value(json!({
                "architecture": "", "os": "linux", "config": {"Labels": label},
                "rootfs": {"type": "layers", "diff_ids": []}
            }))
            .unwrap();
            let image = Image { family: MediaFamily::Oci, configuration, layers: vec![] };
            Ok(Some(FoundImage { reference: name.to_owned(), image }))
        }

        fn layer(&self, image: &FoundImage, diff_id: &DiffId) -> Result<Box<dyn std::io::Read>, ImagesError> {
            self.fetched.borrow_mut().push(diff_id.to_string());
            let (image, diff_id) = (image.reference.clone(), diff_id.clone());
            match fs::read(self.directory.join(format!("{diff_id}.tar"))) {
                Ok(tar) => Ok(Box::new(std::io::Cursor::new(tar))),
                Err(_) => Err(ImagesError::NoLayer { image, diff_id }),
            }
        }

        fn check_write(&self, _: &str) -> Result<(), ImagesError> {
            unreachable!("nothing is written")
        }

        fn save(
            &self,
            _: &Image,
            _: &[String],
            _: &dyn BlobStore,
            _: &Cancel,
            _: &mut dyn EventSink,
        ) -> Result<SavedImage, ImagesError> {
            unreachable!("nothing is written")
        }
    }

    /// RST-05, RST-07, CAC-10: only layers of the group are fetched from a cache image, and
    /// they have to be what they should be.
    #[test]
    fn rst_05_from_a_cache_image_only_layers_of_the_group_are_fetched() {
        let mut platform = Platform::new();
        for layer in ["kept", "damaged", "lost"] {
            platform.last_build(layer, "c");
        }
        let sha = |platform: &mut Platform, layer: &str| platform.cache_layers()[layer].sha.clone();
        let shas = ["damaged", "kept", "lost"].map(|layer| sha(&mut platform, layer));
        let directory = platform.path("cache/committed");
        let mut other = platform.cache.buildpacks[0].clone();
        other.key = "acme/gone".to_owned();
        other.layers.values_mut().for_each(|layer| layer.sha = format!("sha256:{}", "a".repeat(64)));
        platform.cache.buildpacks.push(other);
        fs::write(directory.join(format!("{}.tar", shas[0])), platform.tar("damaged", "other")).unwrap();
        fs::remove_file(directory.join(format!("{}.tar", shas[2]))).unwrap();
        let metadata = std::mem::take(&mut platform.cache);
        let caches = CacheImage { metadata, directory, fetched: std::cell::RefCell::default() };
        platform.inputs.cache_image = Some("h.example/cache".to_owned());
        platform.write_analyzed(&Analyzed::default());
        let images = platform.images();
        let events = &mut platform.events;
        let places = ImagePlaces { images: &images, caches: &caches };
        run(&platform.inputs, places, &mut |event| events.push(event)).unwrap();
        let mut fetched = caches.fetched.take();
        fetched.sort();
        let mut expected = shas.to_vec();
        expected.sort();
        assert_eq!(fetched, expected);
        assert_eq!(fs::read_to_string(platform.node("kept/file")).unwrap(), "kept");
        for layer in ["damaged", "lost"] {
            assert!(!platform.node(layer).exists() && !platform.node(&format!("{layer}.toml")).exists());
        }
        assert_eq!(platform.warnings().len(), 2, "{:?}", platform.warnings());
    }

    #[test]
    fn run_06_a_run_image_of_run_toml_has_to_be_there_still() {
        let mut platform = Platform::new();
        fs::write(&platform.inputs.run, "[[images]]\nimage = \"acme/run\"\nmirrors = [\"h.example/run\"]\n")
            .unwrap();
        for (minor, image, there, expected) in [
            (14, "docker.io/acme/run:latest", vec![], false),
            (14, "acme/run", vec!["acme/run"], true),
            // No other name is tried.
            (14, "h.example/run", vec!["acme/run"], false),
            (14, "h.example/run", vec!["h.example/run"], true),
            (14, "acme/switched", vec![], true),
            (13, "acme/run", vec![], true),
        ] {
            platform.inputs.api = PlatformApi::supported(ApiVersion::zero(minor)).unwrap();
            let result = restored(&mut platform, run_image("run@sha256:00", image), &Named(there.clone()));
            match result {
                Ok(analyzed) => {
                    assert!(expected, "0.{minor} {image} {there:?}");
                    assert_eq!(analyzed.run_image, Some(run_image("run@sha256:00", image)));
                }
                Err(error) => assert!(!expected && error.code() == 1, "{image} {there:?}: {error:?}"),
            }
        }
    }

    #[test]
    fn run_07_with_extensions_a_missing_target_is_filled_in() {
        let with_extension =
            format!("{GROUP}[[group-extensions]]\nid = \"acme/ext\"\nversion = \"1\"\napi = \"0.10\"\n");
        let images = Named(vec!["acme/switched"]);
        let mut platform = Platform::new();
        let untouched = restored(&mut platform, run_image("", "acme/switched"), &images).unwrap();
        assert_eq!(untouched.run_image, Some(run_image("", "acme/switched")));

        fs::write(&platform.inputs.group, with_extension).unwrap();
        let filled = restored(&mut platform, run_image("", "acme/switched"), &images).unwrap();
        let filled = filled.run_image.unwrap();
        assert_eq!(
            (filled.reference.as_str(), filled.image.as_str()),
            ("found:acme/switched", "acme/switched")
        );
        assert_eq!(filled.target.as_ref().unwrap().arch, "arm64");
        // Known already: left alone.
        let known = AnalyzedRunImage { reference: "kept".into(), ..filled };
        let kept = restored(&mut platform, known.clone(), &images).unwrap();
        assert_eq!(kept.run_image, Some(known));

        restored(&mut platform, run_image("", "acme/nowhere"), &images).unwrap_err();
        platform.inputs.api = PlatformApi::supported(ApiVersion::zero(9)).unwrap();
        restored(&mut platform, run_image("", "acme/nowhere"), &images).unwrap();
    }

    #[test]
    fn run_08_the_build_image_is_recorded_by_reference() {
        let mut platform = Platform::new();
        platform.inputs.build_image = Some("acme/build".to_owned());
        let images = Named(vec!["acme/build"]);
        let analyzed = restored(&mut platform, run_image("r", "run"), &images).unwrap();
        assert_eq!(analyzed.build_image.as_deref(), Some("found:acme/build"));
        platform.inputs.build_image = Some("acme/nowhere".to_owned());
        let error = restored(&mut platform, run_image("r", "run"), &images).unwrap_err();
        assert_eq!(error.code(), 1);
    }
}

/// The cache is read while it is being restored from, and can be written right after.
#[test]
fn a_restored_layer_is_verified_for_the_rest_of_the_process() {
    let mut platform = Platform::new();
    platform.last_build("cached", "c");
    platform.restore().unwrap();
    let sha: DiffId = platform.cache.buildpacks[0].layers["cached"].sha.parse().unwrap();
    let tar = platform.tar("cached", "cached");
    let cache = CacheDir::open(&platform.path("cache")).unwrap();
    let new = cache.begin().unwrap();
    assert_eq!(new.add(Some(&sha), |writer| writer.write_all(&tar)).unwrap(), sha);
    new.commit(&platform.cache).unwrap();
}
