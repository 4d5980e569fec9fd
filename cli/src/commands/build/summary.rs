//! What there is now, and what to do with it.

use serde_json::json;
use wapack_runtime::images::{SavedImage, is_stream};
use wapack_runtime::lifecycle::BuiltImage;
use wapack_runtime::limits::show_bytes;
use wapack_runtime::oci::reference::Reference;
use wapack_runtime::text::harmless;

use super::destination::Destination;
use crate::images;
use crate::moved;
use crate::output::Output;
use crate::place::Place;

pub(super) fn show(built: &[BuiltImage], saved: &SavedImage, destination: &Destination, output: &mut Output) {
    let Some(first) = built.first() else { return };
    let image = destination.image();
    let place = destination.opened.place.with_name(image);
    let digest = saved.digest.as_ref().unwrap_or(&first.exported.digest).to_string();
    let bytes: u64 = built.iter().map(|built| built.exported.bytes).sum();
    let layers = first.exported.image.layers.len();
    if output.is_json() {
        let platform = |built: &BuiltImage| {
            let configuration = &built.exported.image.configuration;
            json!({
                "target": format!("{}/{}", configuration.os, configuration.architecture),
                "digest": built.exported.digest.to_string(),
                "bytes": built.exported.bytes,
            })
        };
        let mut finished = json!({
            "event": "finished",
            "image": image,
            "tags": destination.names[1..],
            "digest": digest,
            "id": saved.id,
            "bytes": bytes,
            "layers": layers,
            "launcher": first.exported.has_launcher,
            "layout": match &place {
                Place::Layout { directory, .. } => Some(directory.display().to_string()),
                _ => None,
            },
            "kind": place.kind(),
            "place": place.to_string(),
            "images": built.iter().map(platform).collect::<Vec<_>>(),
        });
        moved::add_to(&mut finished, &saved.moved);
        output.object(&finished);
        return;
    }
    // An engine has no manifest, or one of its own.
    let id = saved.id.as_ref().filter(|_| saved.digest.is_none());
    if output.is_quiet() {
        output.line(id.unwrap_or(&digest));
        return;
    }
    let strong = output.terminal.out.strong(image);
    let named = id.map_or_else(|| format!("digest    {digest}"), |id| format!("id        {id}"));
    let mut lines = vec![named];
    match built {
        [_] => {
            let noun = if layers == 1 { "layer" } else { "layers" };
            lines.push(format!("size      {} in {layers} {noun}", show_bytes(bytes)));
        }
        _ => {
            for built in built {
                let configuration = &built.exported.image.configuration;
                lines.push(format!(
                    "for       {}/{}, {}, {}",
                    configuration.os,
                    configuration.architecture,
                    show_bytes(built.exported.bytes),
                    built.exported.digest
                ));
            }
        }
    }
    lines.push(format!("moved     {}", moved::text(&saved.moved)));
    lines.push(format!("where     {place}"));
    for tag in &destination.names[1..] {
        lines.push(format!("also as   {}", place.with_name(tag)));
    }
    lines.extend(uses(&place));
    // A path can have anything in it.
    let lines: Vec<String> = lines.iter().map(|line| harmless(line)).collect();
    output.say(&format!("\nSuccessfully built image {strong}\n  {}", lines.join("\n  ")));
}

/// Commands for the image where it is, to be copied into a shell.
fn uses(place: &Place) -> Vec<String> {
    let name = place.name();
    match place {
        _ if place.path().is_some_and(is_stream) => vec![],
        Place::Layout { .. } | Place::OciArchive { .. } => {
            let written = shell_word(place.to_string());
            let mut lines = vec![format!("look      skopeo inspect {written}")];
            if podman_runs(place) {
                lines.push(format!("run       podman run --rm -p 8080:8080 {written}"));
            } else {
                lines.push(format!("load      skopeo copy {written} containers-storage:{name}"));
                lines.push(format!("run       podman run --rm -p 8080:8080 {name}"));
            }
            if images::has_engine() {
                lines.push("docker    `--output docker` puts it into the container engine here".to_owned());
            }
            lines
        }
        Place::DockerArchive { file, .. } => vec![
            format!("load      docker load --input {}", shell_word(file.display().to_string())),
            format!("run       docker run --rm -p 8080:8080 {name}"),
        ],
        Place::Daemon { .. } | Place::Registry { .. } => {
            vec![format!("run       docker run --rm -p 8080:8080 {name}")]
        }
    }
}

/// Podman names an image from a layout after the directory, as it is written, and many
/// directories make no name.
fn podman_runs(place: &Place) -> bool {
    let Place::Layout { directory, .. } = place else { return true };
    let name = format!("localhost/{}", directory.display().to_string().trim_start_matches('/'));
    name.parse::<Reference>().is_ok()
}

/// A word that a shell leaves as it is, or quotes around it.
fn shell_word(text: String) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
