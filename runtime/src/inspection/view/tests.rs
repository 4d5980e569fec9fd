use serde_json::json;

use super::*;
use crate::oci::image::{BlobPlace, ImageConfiguration, Layer, MediaFamily};
use oci_spec::image::MediaType;

/// `sha256:` and 64 times the digit.
fn id(digit: char) -> String {
    format!("sha256:{}", String::from(digit).repeat(64))
}

/// An image with these labels and one layer for each digit.
fn image(digits: &str, labels: &serde_json::Value) -> Image {
    let configuration = json!({
        "architecture": "arm64", "variant": "v8", "os": "linux", "created": "1980-01-01T00:00:01Z",
        "config": {
            "User": "1000:1000", "Env": ["A=b", "PATH=/bin"], "Entrypoint": ["/cnb/process/web"],
            "WorkingDir": "/workspace", "Labels": labels,
        },
        "rootfs": { "type": "layers", "diff_ids": digits.chars().map(id).collect::<Vec<_>>() },
        "history": [],
    });
    let configuration: ImageConfiguration = serde_json::from_value(configuration).unwrap();
    let layer = |(number, digit): (u64, char)| Layer {
        media_type: MediaType::ImageLayerGzip,
        digest: Digest::of(digit.to_string().as_bytes()),
        size: 100 * number,
        diff_id: id(digit).parse().unwrap(),
        blob: BlobPlace::Engine,
    };
    let layers = (1..).zip(digits.chars()).map(layer).collect();
    Image { family: MediaFamily::Oci, configuration, layers }
}

/// As pack 0.40 with lifecycle 0.20 leaves them, with shorter digests: two layers of the base, one of a
/// buildpack, bills of materials, two slices and the rest of the app, launcher, config, process types.
fn labels() -> serde_json::Value {
    let sha = |digit| json!({ "sha": id(digit) });
    json!({
        "io.buildpacks.lifecycle.metadata": json!({
            "app": [sha('3'), sha('4'), sha('5')],
            "sbom": sha('2'),
            "buildpacks": [
                { "key": "paketo/node", "version": "1.2.3",
                  "layers": { "node": { "sha": id('1'), "data": {}, "build": false, "launch": true, "cache": true } } },
                { "key": "paketo/start", "version": "0.1", "layers": {} },
            ],
            "config": sha('6'), "launcher": sha('7'), "process-types": sha('8'),
            "runImage": { "topLayer": id('b'), "reference": "e5f1c5", "image": "example.com/run:1",
                          "mirrors": ["mirror.example/run:1"] },
            "stack": { "runImage": { "image": "example.com/run:1" } },
        }).to_string(),
        "io.buildpacks.build.metadata": json!({
            "bom": null,
            "buildpacks": [
                { "id": "paketo/node", "version": "1.2.3", "homepage": "https://example.com/node" },
                { "id": "paketo/start", "version": "0.1" },
            ],
            "launcher": { "version": "0.20.5", "source": { "git": { "repository": "r", "commit": "c" } } },
            "processes": [
                { "type": "web", "command": ["node", "server.js"], "args": ["--port", "80"], "direct": true,
                  "buildpackID": "paketo/start", "working-dir": "/srv" },
                { "type": "old", "command": "run me", "args": null, "direct": false, "buildpackID": "paketo/start" },
            ],
            "buildpack-default-process-type": "web",
        }).to_string(),
        "io.buildpacks.stack.id": "io.buildpacks.stacks.jammy",
    })
}

#[test]
fn an_image_of_pack_says_who_made_what() {
    let view = ImageView::of(&image("ab12345678", &labels()), Some(&Digest::of(b"m")));
    let makers: Vec<&str> = view.layers.iter().map(|layer| layer.made_by.as_str()).collect();
    assert_eq!(
        makers,
        [
            "base",
            "base",
            "paketo/node:node",
            "sbom",
            "app slice 1",
            "app slice 2",
            "app",
            "launcher config",
            "launcher",
            "process types"
        ]
    );
    assert_eq!(view.bytes, 5500);
    assert!(view.rebasable && view.made_by_buildpacks && view.problems.is_empty());
    let shown = serde_json::to_value(&view).unwrap();
    // The keys of `pack inspect --output json`.
    assert_eq!(shown["base_image"]["top_layer"], id('b'));
    assert_eq!(shown["base_image"]["reference"], "e5f1c5");
    assert_eq!(
        shown["run_images"],
        json!([{ "name": "example.com/run:1" }, { "name": "mirror.example/run:1" }])
    );
    assert_eq!(
        shown["buildpacks"],
        json!([
            { "id": "paketo/node", "version": "1.2.3", "homepage": "https://example.com/node" },
            { "id": "paketo/start", "version": "0.1" },
        ])
    );
    let web = &shown["processes"][0];
    assert_eq!(
        (&web["type"], &web["shell"], &web["command"], &web["default"], &web["args"], &web["working-dir"]),
        (
            &json!("web"),
            &json!(""),
            &json!("node"),
            &json!(true),
            &json!(["server.js", "--port", "80"]),
            &json!("/srv")
        )
    );
    let old = &shown["processes"][1];
    assert_eq!(
        (&old["shell"], &old["command"], &old["args"]),
        (&json!("bash"), &json!("run me"), &json!([]))
    );
    assert_eq!(shown["rebasable"], true);
    assert_eq!(shown["stack"], "io.buildpacks.stacks.jammy");
    // And our own.
    assert_eq!(shown["schema_version"], 1);
    assert_eq!((&shown["target"], &shown["default_process"]), (&json!("linux/arm64/v8"), &json!("web")));
    assert_eq!(shown["sbom"]["layer"], id('2'));
    assert_eq!(
        shown["layers"][2]["owner"],
        json!({ "kind": "buildpack", "buildpack": "paketo/node", "layer": "node" })
    );
    assert_eq!(shown["launcher"], json!({ "present": true, "version": "0.20.5" }));
}

#[test]
fn an_image_of_others_is_a_plain_one() {
    let mut plain = image("ab", &json!({ "maintainer": "me" }));
    plain.layers[1].media_type = MediaType::ImageLayer;
    plain.configuration.history = serde_json::from_value(
        json!([{ "created_by": "ADD rootfs" }, { "empty_layer": true }, { "created_by": "RUN x" }]),
    )
    .unwrap();
    let view = ImageView::of(&plain, None);
    assert!(!view.made_by_buildpacks && !view.rebasable && !view.sbom.present);
    assert_eq!((view.base_image.kind, view.base_image.layers), ("unknown", 0));
    let layers: Vec<_> = view.layers.iter().map(|layer| layer.created_by.as_deref()).collect();
    assert_eq!(layers, [Some("ADD rootfs"), Some("RUN x")]);
    assert!(view.layers.iter().all(|layer| layer.owner == LayerOwner::Unknown));
}

#[test]
fn it_says_why_an_image_cannot_be_rebased() {
    let why = |digits: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut labels = labels();
        change(&mut labels);
        ImageView::of(&image(digits, &labels), None).not_rebasable.unwrap_or_default()
    };
    assert_eq!(why("ab1", &|_| ()), "");
    assert!(why("a1", &|_| ()).contains("lacks the layer"));
    assert!(why("ab1", &|labels| labels[REBASABLE] = "false".into()).contains(REBASABLE));
    let on_scratch = |labels: &mut serde_json::Value| {
        labels["io.buildpacks.lifecycle.metadata"] = json!({ "app": [] }).to_string().into();
    };
    assert!(why("ab1", &on_scratch).contains("do not say where"));
}

/// R9: labels of 9 MB, nested 100,000 deep, with control characters, of other shapes.
#[test]
fn r9_hostile_labels_say_nothing_and_break_nothing() {
    let big = format!(r#"{{"app":[],"unknown":"{}"}}"#, "x".repeat(9 << 20));
    let brackets = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!(r#"{{"buildpacks":[{{"layers":{{"l":{{"data":{brackets}}}}}}}]}}"#);
    let odd = "{\"app\": \"\u{1b}[31m\"}".to_owned();
    for text in [big, deep, odd, "7".to_owned(), String::new(), "{\"app\":[{\"sha\":7}]}".to_owned()] {
        let labels =
            json!({ "io.buildpacks.lifecycle.metadata": text, "io.buildpacks.build.metadata": "{}" });
        let view = ImageView::of(&image("ab", &labels), None);
        let [problem] = view.problems.as_slice() else { panic!("{:.100}: {:?}", text, view.problems) };
        assert!(problem.contains("io.buildpacks.lifecycle.metadata"), "{problem}");
        assert!(problem.len() < 400 && !problem.contains(char::is_control), "{problem}");
        assert_eq!(view.layers.len(), 2);
    }
    let unknown = json!({ "io.buildpacks.lifecycle.metadata": format!("{{\"unknown\":{brackets}}}") });
    assert!(ImageView::of(&image("ab", &unknown), None).made_by_buildpacks);
}

/// R9: whatever the configuration says is shown as it is, and nothing is done with it.
#[test]
fn r9_a_configuration_is_data() {
    let mut image = image("a", &json!({}));
    let run = &mut image.configuration.config;
    run.env = vec!["LD_PRELOAD=/x\nB=c".to_owned()];
    run.working_dir = Some("../../etc".to_owned());
    let view = ImageView::of(&image, None);
    assert_eq!(view.env, ["LD_PRELOAD=/x\nB=c"]);
    assert_eq!(view.working_directory.as_deref(), Some("../../etc"));
}
