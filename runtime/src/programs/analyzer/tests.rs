//! Analyzing images of a layout directory, and of others that answer as they are told.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::cnb::api::ApiVersion;
use crate::cnb::labels::{BuildpackLayers, LayerRecord, LayerSha};
use crate::images::fixed::{FixedImages, arm64_image};
use crate::oci::digest::{DiffId, Digest};
use crate::oci::layer::{LayerWriter, Owner};

struct Platform {
    root: tempfile::TempDir,
    inputs: Inputs,
    images: FixedImages,
    warnings: Vec<String>,
}

impl Platform {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("layers")).unwrap();
        let inputs = Inputs {
            api: PlatformApi::NEWEST,
            image: "h.example/app".to_owned(),
            tags: vec![],
            previous_image: None,
            run_image: Some("acme/run".to_owned()),
            stack: None,
            run: path("run.toml"),
            layers: path("layers"),
            analyzed: path("layers/analyzed.toml"),
            cache_image: None,
            skip_layers: false,
            owner: None,
        };
        let mut images = FixedImages::default();
        let labels = json!({
            "io.buildpacks.base.distro.name": "debian", "io.buildpacks.base.distro.version": "12"
        });
        images.images.insert("acme/run".to_owned(), arm64_image(&labels));
        Self { root, inputs, images, warnings: vec![] }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn old(mut self, minor: u64) -> Self {
        self.inputs.api = PlatformApi::supported(ApiVersion::zero(minor)).unwrap();
        self
    }

    fn analyze(&mut self) -> Result<Analyzed, AnalyzeError> {
        let warnings = &mut self.warnings;
        run(&self.inputs, ImagePlaces::one(&self.images), &mut |event| {
            if let crate::event::Event::Warning { message } = event {
                warnings.push(message);
            }
        })?;
        Ok(Analyzed::parse(&fs::read_to_string(&self.inputs.analyzed).unwrap()).unwrap())
    }

    fn has(&mut self, name: &str) {
        self.images.images.insert(name.to_owned(), arm64_image(&json!({})));
    }

    fn previous(&mut self, metadata: &serde_json::Value) {
        let labels = json!({ LIFECYCLE_METADATA: metadata.to_string() });
        self.images.images.insert("h.example/app".to_owned(), arm64_image(&labels));
    }
}

#[test]
fn ana_01_names_are_names_and_share_one_registry() {
    let cases: [fn(&mut Inputs); 6] = [
        |inputs| inputs.image = "not a name".into(),
        |inputs| inputs.tags = vec!["h.example/B".into()],
        |inputs| inputs.tags = vec!["h.example/b".into(), "other.example/b".into()],
        |inputs| inputs.previous_image = Some("..".into()),
        |inputs| inputs.run_image = Some("a@b".into()),
        |inputs| inputs.cache_image = Some(":".into()),
    ];
    for (number, break_it) in cases.into_iter().enumerate() {
        let mut platform = Platform::new();
        break_it(&mut platform.inputs);
        let error = platform.analyze().unwrap_err();
        assert_eq!(error.code(), 3, "{number}: {error:?}");
        assert!(!platform.inputs.analyzed.exists());
    }
    let mut platform = Platform::new();
    platform.inputs.tags = vec!["h.example/other:2".into()];
    platform.analyze().unwrap();
    // A daemon has no registries.
    platform.inputs.tags.push("other.example/b".into());
    platform.images.is_daemon = true;
    platform.analyze().unwrap();
}

#[test]
fn ana_02_access_is_checked_before_anything_is_written() {
    for name in ["h.example/app", "h.example/tag", "h.example/cache"] {
        let mut platform = Platform::new();
        platform.inputs.tags = vec!["h.example/tag".into()];
        platform.inputs.cache_image = Some("h.example/cache".into());
        platform.images.read_only = vec![name.into()];
        let error = platform.analyze().unwrap_err();
        assert!(matches!(&error, AnalyzeError::Access { name: named, .. } if named == name), "{error:?}");
        assert_eq!((error.code(), platform.inputs.analyzed.exists()), (32, false));
    }
    let mut platform = Platform::new();
    platform.images.unreachable = vec!["h.example/app".into()];
    let error = platform.analyze().unwrap_err();
    assert_eq!(error.code(), 32, "{error:?}");
}

/// ANA-02, CAC-07: a cache image is looked for where caches are, and not in a daemon.
#[test]
fn ana_02_and_cac_07_caches_have_a_place_of_their_own() {
    let cache = "h.example/cache".to_owned();
    let mut platform = Platform::new();
    platform.inputs.cache_image = Some(cache.clone());
    platform.images.is_daemon = true;
    assert_eq!(platform.analyze().unwrap_err().code(), 3);
    let analyze = |caches: &FixedImages| {
        let places = ImagePlaces { images: &platform.images, caches };
        run(&platform.inputs, places, &mut |_| {})
    };
    let error =
        analyze(&FixedImages { read_only: vec![cache.clone()], ..FixedImages::default() }).unwrap_err();
    assert!(matches!(&error, AnalyzeError::Access { name, .. } if *name == cache), "{error:?}");
    assert!(!platform.inputs.analyzed.exists());
    // Of the app's image nothing is asked there.
    analyze(&FixedImages { read_only: vec!["h.example/app".to_owned()], ..FixedImages::default() }).unwrap();
}

#[test]
fn ana_03_and_04_the_previous_image_by_reference() {
    let mut platform = Platform::new();
    assert_eq!(platform.analyze().unwrap().previous_image.as_deref(), Some(""));
    platform.has("h.example/app");
    assert_eq!(platform.analyze().unwrap().previous_image.as_deref(), Some("h.example/app@found"));
    platform.inputs.previous_image = Some("h.example/before".into());
    assert_eq!(platform.analyze().unwrap().previous_image.as_deref(), Some(""));
    platform.has("h.example/before");
    let analyzed = platform.analyze().unwrap();
    assert_eq!(analyzed.previous_image.as_deref(), Some("h.example/before@found"));
    // ANA-05: no label, empty metadata.
    assert_eq!(analyzed.metadata, LifecycleMetadata::default());
    assert!(platform.warnings.is_empty(), "{:?}", platform.warnings);
}

#[test]
fn ana_05_and_qrk_16_a_label_is_taken_over_or_the_image_is_none() {
    let mut platform = Platform::new();
    let label = json!({
        "app": [{"sha": "sha256:aa"}],
        "buildpacks": [{"key": "acme/node", "version": "1", "layers": {"a.b": {"sha": "sha256:bb",
            "data": {"n": 9_007_199_254_740_993_i64}, "build": false, "launch": true, "cache": true}}}],
        "unknown": [1]
    });
    platform.previous(&label);
    let analyzed = platform.analyze().unwrap();
    assert_eq!(analyzed.metadata.app, [LayerSha { sha: "sha256:aa".into() }]);
    let record: &BuildpackLayers = &analyzed.metadata.buildpacks[0];
    let expected = LayerRecord {
        sha: "sha256:bb".into(),
        data: json!({"n": 9_007_199_254_740_993_i64}),
        build: false,
        launch: true,
        cache: true,
    };
    assert_eq!(record.layers["a.b"], expected);

    platform.previous(&json!({"buildpacks": 1}));
    let analyzed = platform.analyze().unwrap();
    assert_eq!(
        (analyzed.previous_image.as_deref(), analyzed.metadata),
        (Some(""), LifecycleMetadata::default())
    );
    assert_eq!(platform.warnings.len(), 1);

    platform.images.damaged = vec!["h.example/app".into()];
    let analyzed = platform.analyze().unwrap();
    assert_eq!(analyzed.previous_image.as_deref(), Some(""));
    assert_eq!(platform.warnings.len(), 2);
}

#[test]
fn ana_06_the_run_image_with_its_target() {
    let analyzed = Platform::new().analyze().unwrap();
    let run_image = analyzed.run_image.unwrap();
    assert_eq!((run_image.reference.as_str(), run_image.image.as_str()), ("acme/run@found", "acme/run"));
    let target = run_image.target.unwrap();
    assert_eq!(
        (target.os.as_str(), target.arch.as_str(), target.arch_variant.as_str()),
        ("linux", "arm64", "v8")
    );
    assert_eq!(target.distro.unwrap().name, "debian");
    assert!(!run_image.extend);

    let old = Platform::new().old(11).analyze().unwrap().run_image.unwrap();
    assert_eq!(old, AnalyzedRunImage { reference: "acme/run@found".into(), ..AnalyzedRunImage::default() });

    let mut platform = Platform::new();
    platform.images.images.get_mut("acme/run").unwrap().os.clear();
    assert_eq!(platform.analyze().unwrap_err().code(), 32);
    platform.images.images.clear();
    assert_eq!(platform.analyze().unwrap_err().code(), 32);
}

#[test]
fn tgt_15_before_platform_api_0_12_run_image_and_build_image_are_of_one_stack() {
    let labels = json!({ "io.buildpacks.stack.id": "acme.stack" });
    for (minor, own, code) in [
        (11, Some("acme.stack"), 0),
        (11, None, 0),
        (11, Some("other"), 32),
        (7, Some("other"), 32),
        (12, Some("other"), 0),
    ] {
        let mut platform = Platform::new().old(minor);
        platform.images.images.insert("acme/run".to_owned(), arm64_image(&labels));
        platform.inputs.stack = own.map(str::to_owned);
        let found = platform.analyze().map_or_else(|error| error.code(), |_| 0);
        assert_eq!(found, code, "{minor} {own:?}");
        // An image that is of no stack is none of another.
        platform.images.images.insert("acme/run".to_owned(), arm64_image(&json!({})));
        platform.analyze().unwrap();
    }
}

fn sbom_layer(root: &std::path::Path) -> Vec<u8> {
    let mut writer = LayerWriter::new(Vec::new());
    let file = root.join("sbom/launch/acme_node/a/sbom.cdx.json");
    let name = file.as_os_str().as_encoded_bytes();
    writer.file(name, 0o644, Owner::ROOT, 2, b"{}".as_slice()).unwrap();
    writer.finish().unwrap()
}

#[test]
fn ana_07_the_sbom_layer_is_unpacked() {
    let unpacked = "layers/sbom/launch/acme_node/a/sbom.cdx.json";
    for (minor, skip_layers, expected) in
        [(15, false, true), (8, false, true), (15, true, false), (7, false, false)]
    {
        let mut platform = Platform::new().old(minor);
        platform.inputs.skip_layers = skip_layers;
        let tar = sbom_layer(&platform.path("layers"));
        let digest = Digest::of(&tar);
        platform.previous(&json!({"sbom": {"sha": digest.to_string()}}));
        platform.images.layers.insert(DiffId(digest), tar);
        platform.analyze().unwrap();
        assert_eq!(platform.path(unpacked).exists(), expected, "0.{minor} {skip_layers}");
    }
}

/// ANA-07: hostile, damaged or of another layers directory.
#[test]
fn ana_07_an_sbom_layer_that_cannot_be_used_is_left_out() {
    let platform = Platform::new();
    let good = sbom_layer(&platform.path("layers"));
    let elsewhere = sbom_layer(std::path::Path::new("/another/layers"));
    let outside = sbom_layer(&platform.path("layers/sbom/launch/../../../outside"));
    let sha = |bytes: &[u8]| Digest::of(bytes).to_string();
    for (sha, layer) in [
        (sha(&good), None),
        (sha(b"something else"), Some(good)),
        (sha(&elsewhere), Some(elsewhere)),
        (sha(&outside), Some(outside)),
        ("nonsense".to_owned(), None),
    ] {
        let mut platform = Platform::new();
        platform.inputs.layers.clone_from(&platform.path("layers"));
        platform.previous(&json!({ "sbom": { "sha": sha } }));
        platform.images.layers.extend(sha.parse().ok().zip(layer));
        let analyzed = platform.analyze().unwrap();
        assert_eq!(analyzed.previous_image.as_deref(), Some("h.example/app@found"));
        assert_eq!(platform.warnings.len(), 1);
        assert!(!platform.path("layers/sbom/launch").exists() && !platform.path("outside").exists());
    }
}

#[test]
fn ana_08_no_run_image_is_invalid_input() {
    for (file, there) in
        [(None, true), (Some(""), true), (Some("["), true), (Some("[[images]]\nimage = \"x/y\""), false)]
    {
        let mut platform = Platform::new();
        platform.inputs.run_image = None;
        if let Some(text) = file {
            fs::write(&platform.inputs.run, text).unwrap();
        }
        let error = platform.analyze().unwrap_err();
        assert_eq!(error.code(), 3, "{file:?} {there}: {error:?}");
    }
}

#[test]
fn run_01_to_03_the_run_image_is_chosen() {
    let run_toml = "[[images]]\nimage = \"acme/run\"\nmirrors = [\"h.example/run\", \"h.example/second\"]\n\
        [[images]]\nimage = \"h.example/other\"\n";
    let stack_toml =
        "[run-image]\nimage = \"acme/run\"\nmirrors = [\"h.example/run\", \"h.example/second\"]\n";
    for minor in [11, 12, 15] {
        let mut platform = Platform::new().old(minor);
        let chosen = |platform: &mut Platform| {
            platform.analyze().unwrap().run_image.unwrap().reference.trim_end_matches("@found").to_owned()
        };
        fs::write(&platform.inputs.run, if minor == 11 { stack_toml } else { run_toml }).unwrap();
        platform.has("h.example/other");
        assert_eq!(chosen(&mut platform), "acme/run");
        platform.inputs.run_image = None;
        assert_eq!(chosen(&mut platform), "acme/run");
        platform.has("h.example/second");
        assert_eq!(chosen(&mut platform), "h.example/second");
        platform.has("h.example/run");
        assert_eq!(chosen(&mut platform), "h.example/run");
        platform.inputs.run_image = Some("acme/run".into());
        assert_eq!(chosen(&mut platform), "acme/run");
    }
}

#[test]
fn exe_04_the_environment_of_an_image_of_the_reference_is_known() {
    let mut platform = Platform::new();
    let labels = json!({ LIFECYCLE_METADATA: "{}", EXEC_ENV: "test" });
    platform.images.images.insert("h.example/app".to_owned(), arm64_image(&labels));
    assert_eq!(platform.analyze().unwrap().metadata.exec_env.as_deref(), Some("test"));
}
