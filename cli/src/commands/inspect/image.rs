//! What is in an image, by its configuration and its labels.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wapack_runtime::cnb::labels::{BUILD_METADATA, BuildMetadata, LIFECYCLE_METADATA, LifecycleMetadata};
use wapack_runtime::images::FoundImage;
use wapack_runtime::limits::show_bytes;
use wapack_runtime::oci::image::RunConfiguration;
use wapack_runtime::text::harmless;

/// # Shape
/// Keys are stable. Without labels of buildpacks most of it is empty.
#[derive(Debug, Serialize)]
pub(crate) struct ImageReport {
    digest: String,
    target: String,
    created: Option<String>,
    user: Option<String>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    working_directory: Option<String>,
    base: BaseReport,
    launcher: LauncherReport,
    buildpacks: Vec<String>,
    default_process: Option<String>,
    processes: Vec<ProcessReport>,
    /// Of all layers together, compressed.
    bytes: u64,
    layers: Vec<LayerReport>,
}

#[derive(Debug, Serialize)]
struct BaseReport {
    /// `scratch`, or `image`.
    kind: &'static str,
    name: Option<String>,
    top_layer: Option<String>,
}

#[derive(Debug, Serialize)]
struct LauncherReport {
    present: bool,
    version: Option<String>,
}

#[derive(Debug, Serialize)]
struct ProcessReport {
    r#type: String,
    command: Vec<String>,
    arguments: Vec<String>,
    buildpack: String,
    working_directory: Option<String>,
}

#[derive(Debug, Serialize)]
struct LayerReport {
    /// Such as `app`, or the id of a buildpack with the name of its layer.
    made_by: String,
    bytes: u64,
    digest: String,
    diff_id: String,
}

pub(super) fn look(found: &FoundImage) -> ImageReport {
    let configuration = &found.image.configuration;
    let run = &configuration.config;
    let lifecycle: LifecycleMetadata = label(run, LIFECYCLE_METADATA);
    let build: BuildMetadata = label(run, BUILD_METADATA);
    let makers = makers(&lifecycle);
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let diff_ids: Vec<String> = found.image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let top_layer = text(&lifecycle.run_image.top_layer);
    // Everything up to the top layer of the base, or up to the first layer that somebody made.
    let base_layers = match &top_layer {
        Some(top) => diff_ids.iter().position(|id| id == top).map_or(0, |index| index + 1),
        None => diff_ids.iter().position(|id| makers.contains_key(id)).unwrap_or_default(),
    };
    let layers = found.image.layers.iter().zip(&diff_ids).enumerate().map(|(index, (layer, diff_id))| {
        let made_by =
            if index < base_layers { Some("base") } else { makers.get(diff_id).map(String::as_str) };
        LayerReport {
            made_by: made_by.unwrap_or("unknown").to_owned(),
            bytes: layer.size,
            digest: layer.digest.to_string(),
            diff_id: diff_id.clone(),
        }
    });
    let version = text(&build.launcher.version);
    ImageReport {
        digest: found.reference.clone(),
        target: [
            Some(configuration.os.as_str()),
            Some(&configuration.architecture),
            configuration.variant.as_deref(),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("/"),
        created: configuration.created.clone(),
        user: run.user.clone(),
        entrypoint: run.entrypoint.clone(),
        command: run.cmd.clone(),
        working_directory: run.working_dir.clone(),
        base: BaseReport {
            kind: if base_layers == 0 { "scratch" } else { "image" },
            name: text(&lifecycle.run_image.image).or_else(|| text(&lifecycle.stack.run_image.image)),
            top_layer,
        },
        launcher: LauncherReport { present: lifecycle.launcher.is_some(), version },
        buildpacks: build.buildpacks.iter().map(|it| format!("{}@{}", it.id, it.version)).collect(),
        default_process: build.default_process_type.clone(),
        processes: build
            .processes
            .iter()
            .map(|process| ProcessReport {
                r#type: process.process_type.clone(),
                command: process.command.clone(),
                arguments: process.args.clone().unwrap_or_default(),
                buildpack: process.buildpack_id.clone(),
                working_directory: process.working_directory.clone(),
            })
            .collect(),
        bytes: found.image.layers.iter().map(|layer| layer.size).sum(),
        layers: layers.collect(),
    }
}

/// A label's JSON; what cannot be read says nothing.
fn label<T: DeserializeOwned + Default>(run: &RunConfiguration, name: &str) -> T {
    run.labels.get(name).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Who made a layer, by its diff id.
fn makers(metadata: &LifecycleMetadata) -> BTreeMap<String, String> {
    let mut makers = BTreeMap::new();
    let mut note = |sha: &str, who: String| {
        if !sha.is_empty() {
            makers.insert(sha.to_owned(), who);
        }
    };
    for buildpack in &metadata.buildpacks {
        for (name, layer) in &buildpack.layers {
            note(&layer.sha, format!("{}:{name}", buildpack.key));
        }
    }
    for app in &metadata.app {
        note(&app.sha, "app".to_owned());
    }
    let ours =
        [("launcher", &metadata.launcher), ("launcher config", &metadata.config), ("sbom", &metadata.sbom)];
    for (who, layer) in ours {
        note(layer.as_ref().map_or("", |layer| layer.sha.as_str()), who.to_owned());
    }
    note(&metadata.process_types.sha, "process types".to_owned());
    makers
}

pub(super) fn text(report: &ImageReport) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12}{}", harmless(value));
    };
    field("digest", &report.digest);
    field("target", &report.target);
    let base = report.base.name.clone().unwrap_or_else(|| match report.base.kind {
        "scratch" => "scratch".to_owned(),
        _ => "an image without a name".to_owned(),
    });
    field("base", &base);
    field("user", report.user.as_deref().unwrap_or("that of the base"));
    let launcher = match (report.launcher.present, &report.launcher.version) {
        (true, Some(version)) => format!("yes, {version}"),
        (true, None) => "yes".to_owned(),
        (false, _) => "none; the container runtime starts the process itself".to_owned(),
    };
    field("launcher", &launcher);
    field("start", &[report.entrypoint.as_slice(), report.command.as_slice()].concat().join(" "));
    text.push_str("\nBuildpacks\n");
    for buildpack in &report.buildpacks {
        let _ = writeln!(text, "  {}", harmless(buildpack));
    }
    if report.buildpacks.is_empty() {
        text.push_str("  none: it was not made by buildpacks\n");
    }
    text.push_str("\nProcesses\n");
    for process in &report.processes {
        let default =
            if report.default_process.as_ref() == Some(&process.r#type) { " (default)" } else { "" };
        let line = [process.command.as_slice(), process.arguments.as_slice()].concat().join(" ");
        let _ = writeln!(
            text,
            "  {}{default}: {}   from {}",
            harmless(&process.r#type),
            harmless(&line),
            harmless(&process.buildpack)
        );
    }
    if report.processes.is_empty() {
        text.push_str("  none\n");
    }
    let _ = writeln!(text, "\nLayers ({})", show_bytes(report.bytes));
    for layer in &report.layers {
        let digest = layer.digest.get(..19).unwrap_or(&layer.digest);
        let _ = writeln!(text, "  {digest}  {:>10}  {}", show_bytes(layer.bytes), harmless(&layer.made_by));
    }
    text
}
