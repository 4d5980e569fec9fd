use oci_spec::image::MediaType;
use serde_json::json;

use super::*;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{ImageConfiguration, MediaFamily};

const REBASABLE: &str = "io.buildpacks.rebasable";
const STACK_ID: &str = "io.buildpacks.stack.id";
const MIXINS: &str = "io.buildpacks.stack.mixins";
const DISTRO_NAME: &str = "io.buildpacks.base.distro.name";
const DISTRO_VERSION: &str = "io.buildpacks.base.distro.version";
const RUN_NAME: &str = "registry.example/run:1";
const NEW_REFERENCE: &str = "registry.example/run@sha256:new";

/// A layer whose blob is nowhere: nobody reads it (RBS-04).
fn layer(name: &str) -> Layer {
    Layer {
        media_type: MediaType::ImageLayerGzip,
        digest: Digest::of(format!("blob of {name}").as_bytes()),
        size: 10,
        diff_id: DiffId(Digest::of(name.as_bytes())),
        blob: std::path::PathBuf::from(format!("/nowhere/{name}")).into(),
    }
}

fn diff_id(name: &str) -> String {
    layer(name).diff_id.to_string()
}

fn image(layers: &[&str], labels: &[(&str, &str)]) -> Image {
    let layers: Vec<Layer> = layers.iter().map(|name| layer(name)).collect();
    let history: Vec<_> = layers.iter().map(|layer| json!({ "created_by": layer.file() })).collect();
    let configuration = json!({
        "architecture": "amd64", "os": "linux", "created": "2020-02-02T00:00:00Z",
        "config": { "Labels": labels.iter().copied().collect::<std::collections::BTreeMap<_, _>>() },
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>(),
        },
        "history": history,
    });
    let configuration: ImageConfiguration = serde_json::from_value(configuration).unwrap();
    Image { family: MediaFamily::Oci, configuration, layers }
}

fn lifecycle_metadata() -> Value {
    json!({
        "app": [{ "sha": diff_id("app") }],
        "x-unknown": { "deep": [1, null, 9_007_199_254_740_993_i64] },
        "runImage": {
            "topLayer": diff_id("old 2"), "reference": "registry.example/run@sha256:old",
            "image": RUN_NAME, "mirrors": ["mirror.example/run:1"], "x-unknown": true,
        },
        "stack": { "runImage": { "image": "stack.example/run" }, "x-unknown": "kept" },
    })
}

/// An app on a run image of two layers, made with Platform API 0.12.
fn app() -> Image {
    let metadata = lifecycle_metadata().to_string();
    let mut app = image(&["old 1", "old 2", "app", "config"], &[(LIFECYCLE_METADATA, &metadata)]);
    app.configuration.config.env =
        vec!["PATH=/cnb/process:/bin".to_owned(), "CNB_PLATFORM_API=0.12".to_owned()];
    app
}

fn run_image() -> Image {
    image(&["new 1", "new 2", "new 3"], &[])
}

struct Case {
    app: Image,
    run_image: Image,
    name: &'static str,
    api: u64,
    force: bool,
}

impl Default for Case {
    fn default() -> Self {
        Self { app: app(), run_image: run_image(), name: RUN_NAME, api: 15, force: false }
    }
}

impl Case {
    fn run(&self) -> Result<Rebased, RebaseError> {
        let run_image = NewRunImage { image: &self.run_image, name: self.name, reference: NEW_REFERENCE };
        let api = PlatformApi::supported(crate::cnb::api::ApiVersion::zero(self.api)).unwrap();
        rebase(&RebaseRequest { app: &self.app, run_image, api, force: self.force })
    }

    fn api_of_app(&mut self, value: Option<&str>) {
        let env = &mut self.app.configuration.config.env;
        env.retain(|entry| !entry.starts_with("CNB_PLATFORM_API="));
        env.extend(value.map(|value| format!("CNB_PLATFORM_API={value}")));
    }

    /// Also with force, `expected` is how it ends.
    fn fails_even_with_force(mut self, expected: &RebaseError) {
        for force in [false, true] {
            self.force = force;
            assert_eq!(self.run().unwrap_err(), *expected);
        }
    }

    /// Without force it is refused, with force it is not.
    fn needs_force(mut self, expected: &Refusal) -> Rebased {
        assert_eq!(self.run().unwrap_err(), RebaseError::Refused(expected.clone()));
        self.force = true;
        let rebased = self.run().unwrap();
        assert_eq!(rebased.overruled, std::slice::from_ref(expected));
        rebased
    }
}

fn set(image: &mut Image, label: &str, value: Option<&str>) {
    let labels = &mut image.configuration.config.labels;
    match value {
        Some(value) => labels.insert(label.to_owned(), value.to_owned()),
        None => labels.remove(label),
    };
}

fn set_metadata(image: &mut Image, change: impl FnOnce(&mut Value)) {
    let mut metadata = lifecycle_metadata();
    change(&mut metadata);
    set(image, LIFECYCLE_METADATA, Some(&metadata.to_string()));
}

fn metadata_of(rebased: &Rebased) -> Value {
    serde_json::from_str(&rebased.image.configuration.config.labels[LIFECYCLE_METADATA]).unwrap()
}

/// RBS-03, RBS-04
#[test]
fn rbs_03_and_04_layers_below_are_replaced_and_those_of_the_app_are_the_same() {
    let case = Case::default();
    let rebased = case.run().unwrap();
    let mut expected = case.run_image.layers.clone();
    expected.extend_from_slice(&case.app.layers[2..]);
    assert_eq!(rebased.image.layers, expected);
    assert_eq!(rebased.old_layers, 2);
    assert_eq!(rebased.old_reference, "registry.example/run@sha256:old");
    let diff_ids = &rebased.image.configuration.rootfs.diff_ids;
    let names = ["new 1", "new 2", "new 3", "app", "config"];
    assert_eq!(diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>(), names.map(diff_id));
}

#[test]
fn rbs_03_without_the_recorded_layer_nothing_is_done() {
    let mut case = Case::default();
    set_metadata(&mut case.app, |metadata| metadata["runImage"]["topLayer"] = diff_id("other").into());
    case.fails_even_with_force(&RebaseError::TopLayerMissing { top_layer: diff_id("other") });
    for nothing in [Value::Null, "".into()] {
        let mut case = Case::default();
        set_metadata(&mut case.app, |metadata| metadata["runImage"]["topLayer"] = nothing);
        case.fails_even_with_force(&RebaseError::NoTopLayer);
    }
    let mut case = Case::default();
    set(&mut case.app, LIFECYCLE_METADATA, None);
    case.fails_even_with_force(&RebaseError::NoMetadata);
    for text in ["", "[]", "{", r#"{"runImage": 1}"#, r#"{"runImage": {}, "stack": []}"#] {
        let mut case = Case::default();
        set(&mut case.app, LIFECYCLE_METADATA, Some(text));
        let error = case.run().unwrap_err();
        assert!(matches!(error, RebaseError::Label { name: LIFECYCLE_METADATA, .. }), "{text}: {error:?}");
    }
    let case = Case { run_image: image(&[], &[]), ..Case::default() };
    case.fails_even_with_force(&RebaseError::EmptyRunImage);
}

/// The rules for old images fail without stack ids; those for new ones where an image is not rebasable.
#[test]
fn rbs_05_the_platform_api_of_the_app_image_chooses_the_rules() {
    for (value, is_old) in [
        (None, true),
        (Some(""), true),
        (Some("0.7"), true),
        (Some("0.11"), true),
        (Some("0.12"), false),
        (Some("0.15"), false),
        (Some("1.0"), false),
    ] {
        for api in [11, 12, 15] {
            let mut case = Case { api, ..Case::default() };
            case.api_of_app(value);
            set(&mut case.app, REBASABLE, Some("false"));
            let expected = if is_old {
                RebaseError::Stack { app: String::new(), run_image: String::new() }
            } else {
                RebaseError::Refused(Refusal::NotRebasable)
            };
            assert_eq!(case.run().unwrap_err(), expected, "{value:?} {api}");
        }
    }
    let mut case = Case::default();
    case.api_of_app(Some("new"));
    case.fails_even_with_force(&RebaseError::Api { value: "new".to_owned() });
}

#[test]
fn rbs_06_stacks_of_old_images_are_equal() {
    for (of_app, of_run_image) in [(None, None), (Some("a"), None), (None, Some("a")), (Some("a"), Some("b"))]
    {
        let mut case = Case::default();
        case.api_of_app(None);
        set(&mut case.app, STACK_ID, of_app);
        set(&mut case.run_image, STACK_ID, of_run_image);
        let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
        case.fails_even_with_force(&RebaseError::Stack { app: text(of_app), run_image: text(of_run_image) });
    }
    let mut case = Case::default();
    case.api_of_app(None);
    set(&mut case.app, STACK_ID, Some("a"));
    set(&mut case.run_image, STACK_ID, Some("a"));
    // Neither this nor the target is looked at in old images.
    set(&mut case.app, REBASABLE, Some("false"));
    case.run_image.configuration.architecture = "arm64".to_owned();
    assert_eq!(case.run().unwrap().overruled, []);
}

#[test]
fn rbs_06_mixins_of_old_images_are_all_there() {
    for (of_app, of_run_image, missing) in [
        (None, None, vec![]),
        (Some("null"), Some("null"), vec![]),
        (Some(r#"["a","run:b"]"#), Some(r#"["b","build:a","c"]"#), vec![]),
        (Some(r#"["run:a"]"#), Some(r#"["a"]"#), vec![]),
        (Some(r#"["z","b","a"]"#), Some(r#"["b"]"#), vec!["a", "z"]),
        (Some(r#"["a"]"#), None, vec!["a"]),
    ] {
        let mut case = Case::default();
        case.api_of_app(Some("0.9"));
        for (image, mixins) in [(&mut case.app, of_app), (&mut case.run_image, of_run_image)] {
            set(image, STACK_ID, Some("a"));
            set(image, MIXINS, mixins);
        }
        if missing.is_empty() {
            case.run().unwrap();
        } else {
            let missing = missing.into_iter().map(str::to_owned).collect();
            case.fails_even_with_force(&RebaseError::Mixins { missing });
        }
    }
}

#[test]
fn rbs_07_an_image_that_is_not_rebasable_needs_force() {
    for (value, is_refused) in
        [(None, false), (Some("true"), false), (Some(""), false), (Some("false"), true)]
    {
        let mut case = Case::default();
        set(&mut case.app, REBASABLE, value);
        // Of the app, not of the run image.
        set(&mut case.run_image, REBASABLE, Some("false"));
        if is_refused {
            case.needs_force(&Refusal::NotRebasable);
        } else {
            assert_eq!(case.run().unwrap().overruled, []);
        }
    }
}

#[test]
fn rbs_08_targets_fit() {
    // os, architecture, variant, name and version of the distribution.
    type Target = [&'static str; 5];
    let linux: Target = ["linux", "arm64", "v8", "debian", "12"];
    let cases: [(Target, Target, bool); 14] = [
        (linux, linux, true),
        (linux, ["windows", "arm64", "v8", "debian", "12"], false),
        (linux, ["linux", "amd64", "v8", "debian", "12"], false),
        (linux, ["linux", "arm64", "v7", "debian", "12"], false),
        (linux, ["linux", "arm64", "", "debian", "12"], true),
        (["linux", "arm64", "", "debian", "12"], linux, true),
        (linux, ["linux", "arm64", "v8", "ubuntu", "12"], false),
        (linux, ["linux", "arm64", "v8", "debian", "13"], false),
        // What the new image does not say is no difference; what only it says is one.
        (linux, ["linux", "arm64", "v8", "", ""], true),
        (linux, ["linux", "arm64", "v8", "debian", ""], true),
        (linux, ["linux", "arm64", "v8", "", "12"], true),
        (["linux", "arm64", "v8", "", ""], linux, false),
        (["linux", "arm64", "v8", "debian", ""], linux, false),
        (["linux", "arm64", "v8", "debian", ""], ["linux", "arm64", "v8", "debian", ""], true),
    ];
    for (of_app, of_run_image, fits) in cases {
        let mut case = Case::default();
        for (image, target) in [(&mut case.app, of_app), (&mut case.run_image, of_run_image)] {
            let [os, architecture, variant, name, version] = target;
            image.configuration.os = os.to_owned();
            image.configuration.architecture = architecture.to_owned();
            image.configuration.variant = (!variant.is_empty()).then(|| variant.to_owned());
            set(image, DISTRO_NAME, (!name.is_empty()).then_some(name));
            set(image, DISTRO_VERSION, (!version.is_empty()).then_some(version));
        }
        if fits {
            assert_eq!(case.run().unwrap().overruled, [], "{of_app:?} {of_run_image:?}");
        } else {
            let text = |[os, architecture, variant, name, version]: Target| {
                let system = [os, architecture, variant].join("/");
                TargetText([system.trim_end_matches('/'), name, version].join(" ").trim_end().to_owned())
            };
            case.needs_force(&Refusal::Target { app: text(of_app), run_image: text(of_run_image) });
        }
    }
}

#[test]
fn rbs_09_the_run_image_is_one_that_the_label_names() {
    for name in [
        RUN_NAME,
        "mirror.example/run:1",
        "stack.example/run:latest",
        "registry.example/run:1@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    ] {
        let rebased = Case { name, ..Case::default() }.run().unwrap();
        assert_eq!(metadata_of(&rebased)["runImage"]["image"], RUN_NAME, "{name}");
        assert_eq!(rebased.overruled, []);
    }
    let recorded = vec![RUN_NAME.to_owned(), "mirror.example/run:1".to_owned()];
    for name in ["registry.example/run:2", "registry.example/run", "run:1", ""] {
        let refusal = Refusal::Unrecorded { name: name.to_owned(), recorded: recorded.clone() };
        Case { name, ..Case::default() }.needs_force(&refusal);
        // Before Platform API 0.12 nobody asks.
        let rebased = Case { name, api: 11, ..Case::default() }.run().unwrap();
        assert_eq!(metadata_of(&rebased)["runImage"]["image"], RUN_NAME);
    }
    let mut case = Case { name: "", ..Case::default() };
    set_metadata(&mut case.app, |metadata| {
        metadata["runImage"].as_object_mut().unwrap().remove("image");
        metadata["stack"] = Value::Null;
    });
    case.run().unwrap();
}

#[test]
fn rbs_10_a_forced_name_is_the_only_one() {
    let name = "other.example/run";
    let rebased = Case { name, force: true, ..Case::default() }.run().unwrap();
    let mut expected = lifecycle_metadata();
    expected["runImage"] = json!({
        "topLayer": diff_id("new 3"), "reference": NEW_REFERENCE, "image": name, "x-unknown": true,
    });
    expected["stack"]["runImage"] = json!({ "image": name });
    assert_eq!(metadata_of(&rebased), expected);
}

#[test]
fn rbs_11_labels_of_the_base_come_from_the_run_image() {
    let mut case = Case::default();
    for (label, value) in [
        ("io.buildpacks.base.id", "old"),
        ("io.buildpacks.base.homepage", "gone"),
        ("io.buildpacks.stack.maintainer", "gone"),
        ("io.buildpacks.stackless", "mine"),
        ("mine", "mine"),
    ] {
        set(&mut case.app, label, Some(value));
    }
    for label in
        ["io.buildpacks.base.id", "io.buildpacks.stack.released", "theirs", "io.buildpacks.stackless"]
    {
        set(&mut case.run_image, label, Some("new"));
    }
    let labels = |case: &Case| {
        let mut labels = case.run().unwrap().image.configuration.config.labels;
        labels.remove(LIFECYCLE_METADATA);
        labels.into_iter().collect::<Vec<_>>()
    };
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    let expected = pairs(&[
        ("io.buildpacks.base.id", "new"),
        ("io.buildpacks.stack.released", "new"),
        ("io.buildpacks.stackless", "mine"),
        ("mine", "mine"),
    ]);
    assert_eq!(labels(&case), expected);
    case.api = 11;
    let expected = pairs(&[
        ("io.buildpacks.base.homepage", "gone"),
        ("io.buildpacks.base.id", "old"),
        ("io.buildpacks.stack.released", "new"),
        ("io.buildpacks.stackless", "mine"),
        ("mine", "mine"),
    ]);
    assert_eq!(labels(&case), expected);
}

#[test]
fn rbs_12_of_the_metadata_only_the_base_changes() {
    let mut expected = lifecycle_metadata();
    expected["runImage"]["topLayer"] = diff_id("new 3").into();
    expected["runImage"]["reference"] = NEW_REFERENCE.into();
    assert_eq!(metadata_of(&Case::default().run().unwrap()), expected);

    // As very old images have it.
    let mut case = Case { api: 11, ..Case::default() };
    let old = json!({ "app": { "sha": "x" }, "runImage": { "topLayer": diff_id("old 2") }, "stack": null });
    set(&mut case.app, LIFECYCLE_METADATA, Some(&old.to_string()));
    let mut expected = old;
    expected["runImage"] = json!({ "topLayer": diff_id("new 3"), "reference": NEW_REFERENCE });
    assert_eq!(metadata_of(&case.run().unwrap()), expected);
}

/// RBS-12, RBS-16: the label has the order of whoever wrote it, here the reference, which writes
/// the expected text for the same rebase.
#[test]
fn rbs_12_and_16_a_label_keeps_its_order_there_and_back() {
    let label = |top: &str, reference: &str| {
        format!(
            "{{\"app\":[{{\"sha\":\"{}\"}}],\"sbom\":{{\"sha\":\"s\"}},\"buildpacks\":[{{\"key\":\"a\",\"version\":\"1\",\
             \"layers\":{{\"l\":{{\"sha\":\"x\",\"data\":{{\"z\":1.50,\"a\":\"\\u003c\\u0026\"}},\"build\":false,\
             \"launch\":true,\"cache\":false}}}}}}],\"config\":{{\"sha\":\"c\"}},\"launcher\":{{\"sha\":\"l\"}},\
             \"process-types\":{{\"sha\":\"\"}},\"runImage\":{{\"topLayer\":\"{top}\",\"reference\":\"{reference}\",\
             \"image\":\"{RUN_NAME}\"}},\"stack\":{{\"runImage\":{{\"image\":\"{RUN_NAME}\"}}}}}}",
            diff_id("app")
        )
    };
    let mut case = Case::default();
    let before = label(&diff_id("old 2"), NEW_REFERENCE);
    set(&mut case.app, LIFECYCLE_METADATA, Some(&before));
    let there = case.run().unwrap().image;
    let text = |image: &Image| image.configuration.config.labels[LIFECYCLE_METADATA].clone();
    assert_eq!(text(&there), label(&diff_id("new 3"), NEW_REFERENCE));
    let old_base = || image(&["old 1", "old 2"], &[]);
    let back = Case { app: there.clone(), run_image: old_base(), ..Case::default() }.run().unwrap().image;
    assert_eq!(text(&back), before);
    let at_once = Case { app: case.app, run_image: old_base(), ..Case::default() }.run().unwrap().image;
    assert_eq!(back.documents(), at_once.documents());
}

#[test]
fn rbs_13_how_the_app_starts_stays() {
    let mut case = Case::default();
    let run = &mut case.app.configuration.config;
    run.entrypoint = vec!["/cnb/process/web".to_owned()];
    run.user = Some("1000:1000".to_owned());
    run.working_dir = Some("/workspace".to_owned());
    run.other.insert("ExposedPorts".to_owned(), json!({ "80/tcp": {} }));
    let other = &mut case.run_image.configuration.config;
    other.env = vec!["PATH=/new".to_owned(), "NEW=1".to_owned()];
    other.user = Some("0:0".to_owned());
    other.cmd = vec!["sh".to_owned()];
    other.other.insert("Healthcheck".to_owned(), json!({}));
    let mut found = case.run().unwrap().image.configuration.config;
    found.labels.clear();
    let mut expected = case.app.configuration.config.clone();
    expected.labels.clear();
    assert_eq!(found, expected);
}

#[test]
fn rbs_14_the_system_is_that_of_the_run_image() {
    let mut case = Case { force: true, ..Case::default() };
    let new = &mut case.run_image.configuration;
    new.os = "plan9".to_owned();
    new.architecture = "riscv64".to_owned();
    new.variant = Some("v1".to_owned());
    new.os_version = Some("4".to_owned());
    let expected = case.run_image.configuration.clone();
    let found = case.run().unwrap().image.configuration;
    assert_eq!((&found.os, &found.architecture), (&expected.os, &expected.architecture));
    assert_eq!((&found.variant, &found.os_version), (&expected.variant, &expected.os_version));

    let mut case = Case { run_image: run_image(), ..case };
    case.app.configuration.variant = Some("v8".to_owned());
    assert_eq!(case.run().unwrap().image.configuration.variant, None);
}

#[test]
fn rbs_15_created_is_constant_and_the_history_of_the_app_stays() {
    let case = Case::default();
    let configuration = case.run().unwrap().image.configuration;
    assert_eq!(configuration.created.as_deref(), Some("1980-01-01T00:00:01Z"));
    let history = |configuration: &ImageConfiguration| {
        let entries = configuration.history.iter();
        entries
            .map(|entry| (entry.created.clone().unwrap(), entry.created_by.clone().unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    let expect = |created_by: [&str; 5]| {
        created_by.map(|text| ("1980-01-01T00:00:01Z".to_owned(), text.to_owned())).to_vec()
    };
    let expected =
        expect(["/nowhere/new 1", "/nowhere/new 2", "/nowhere/new 3", "/nowhere/app", "/nowhere/config"]);
    assert_eq!(history(&configuration), expected);

    // Entries without a layer count for nothing, and where they do not fit there are blank ones.
    let mut case = Case::default();
    let empty = History { empty_layer: true, ..History::default() };
    case.app.configuration.history.insert(1, empty.clone());
    case.app.configuration.history.insert(3, empty);
    case.run_image.configuration.history.pop();
    let configuration = case.run().unwrap().image.configuration;
    assert_eq!(history(&configuration), expect(["", "", "", "/nowhere/app", "/nowhere/config"]));
    case.app.configuration.history.pop();
    assert_eq!(history(&case.run().unwrap().image.configuration), expect([""; 5]));
}

#[test]
fn rbs_16_onto_its_own_run_image_nothing_changes_but_the_date() {
    let mut case = Case::default();
    case.app.configuration.other.insert("docker_version".to_owned(), "20".into());
    set(&mut case.app, "io.buildpacks.base.id", Some("x"));
    set(&mut case.run_image, "io.buildpacks.base.id", Some("x"));
    let once = case.run().unwrap().image;
    assert_eq!(case.run().unwrap().image.documents(), once.documents());
    let again = Case { app: once.clone(), ..case };
    assert_eq!(again.run().unwrap().image.documents(), once.documents());

    // Not even the text of the label, which others wrote in their own order.
    let mut case = Case { run_image: image(&["old 1", "old 2"], &[]), ..Case::default() };
    set_metadata(&mut case.app, |metadata| metadata["runImage"]["reference"] = NEW_REFERENCE.into());
    let text = case.app.configuration.config.labels[LIFECYCLE_METADATA].replacen('{', "{ ", 1);
    set(&mut case.app, LIFECYCLE_METADATA, Some(&text));
    let mut expected = case.app.clone();
    let created = Some("1980-01-01T00:00:01Z".to_owned());
    expected.configuration.created.clone_from(&created);
    expected.configuration.history.iter_mut().for_each(|entry| entry.created.clone_from(&created));
    assert_eq!(case.run().unwrap().image, expected);
}

/// IMG-10
#[test]
fn img_10_the_media_types_are_of_one_family() {
    let mut case = Case::default();
    case.run_image.family = MediaFamily::Docker;
    for layer in &mut case.run_image.layers {
        layer.media_type = MediaFamily::Docker.layer();
    }
    let image = case.run().unwrap().image;
    let docker = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    assert!(image.layers.iter().all(|layer| layer.media_type.to_string() == docker));
    assert_eq!(image.family, MediaFamily::Docker);
    assert_eq!(MediaFamily::Oci.of_layer(&MediaFamily::Docker.layer()), MediaType::ImageLayerGzip);
    for oci in [MediaType::ImageLayer, MediaType::ImageLayerZstd, MediaType::ImageLayerNonDistributableGzip] {
        let docker = MediaFamily::Docker.of_layer(&oci);
        assert!(docker.to_string().starts_with("application/vnd.docker."), "{docker}");
        assert_eq!(MediaFamily::Oci.of_layer(&docker), oci);
    }
}

#[test]
fn rbs_02_the_label_names_the_run_image() {
    let newer =
        RunImageNames { image: RUN_NAME.to_owned(), mirrors: vec!["mirror.example/run:1".to_owned()] };
    let older = RunImageNames { image: "stack.example/run".to_owned(), mirrors: vec![] };
    let api = |minor| PlatformApi::supported(crate::cnb::api::ApiVersion::zero(minor)).unwrap();
    let mut app = app();
    assert_eq!(recorded_run_image(&app, api(12)).unwrap(), Some(newer));
    assert_eq!(recorded_run_image(&app, api(11)).unwrap(), Some(older.clone()));
    set_metadata(&mut app, |metadata| metadata["runImage"]["image"] = "".into());
    assert_eq!(recorded_run_image(&app, api(15)).unwrap(), Some(older));
    set_metadata(&mut app, |metadata| {
        metadata["runImage"]["image"] = Value::Null;
        metadata["stack"] = Value::Null;
    });
    assert_eq!(recorded_run_image(&app, api(15)).unwrap(), None);
}
