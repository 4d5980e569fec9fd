//! What is in an image, shown for people.

use std::fmt::Write as _;

use wapack_runtime::inspection::{ImageView, ProcessView};
use wapack_runtime::limits::show_bytes;
use wapack_runtime::oci::referrer::ATTACHMENT_NAME;
use wapack_runtime::text::harmless;

/// What is shown of a list that somebody made endless; JSON has all of it.
const MAX_LINES: usize = 200;
/// The same for one text.
const MAX_CHARACTERS: usize = 400;

/// The text of others as one line that is safe to show.
fn line_of(text: &str) -> String {
    let safe = harmless(text);
    match safe.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", &safe[..end]),
        None => safe,
    }
}

pub(super) fn text(view: &ImageView) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12}{}", line_of(value));
    };
    if let Some(name) = &view.image_name {
        field("image", name);
    }
    if let Some(digest) = &view.digest {
        field("digest", digest);
    }
    if let Some(id) = &view.image_id {
        field("id", id);
    }
    field("target", &view.target);
    if view.systems.len() > 1 {
        field("  of", &format!("{}; `--target` shows another", view.systems.join(", ")));
    }
    field("created", view.created.as_deref().unwrap_or("it does not say"));
    field("base", &base(view));
    for mirror in view.run_images.iter().skip(1).take(MAX_LINES) {
        field("  or", &mirror.name);
    }
    if !view.base_image.reference.is_empty() {
        field("  was", &view.base_image.reference);
    }
    field(
        "rebasable",
        &view.not_rebasable.as_ref().map_or_else(|| "yes".to_owned(), |reason| format!("no: {reason}")),
    );
    field("user", view.user.as_deref().unwrap_or("that of the base"));
    let launcher = match (view.launcher.present, &view.launcher.version) {
        (true, Some(version)) => format!("yes, {version}"),
        (true, None) => "yes".to_owned(),
        (false, _) => "none; the container runtime starts the process itself".to_owned(),
    };
    field("launcher", &launcher);
    field("start", &[view.entrypoint.as_slice(), view.command.as_slice()].concat().join(" "));
    if let Some(directory) = &view.working_directory {
        field("in", directory);
    }
    field("sbom", &sbom(view));
    for attachment in view.attachments.iter().take(MAX_LINES) {
        let name = attachment.annotations.get(ATTACHMENT_NAME).map_or("", String::as_str);
        field("attached", &format!("{} {name}", attachment.artifact_type));
    }
    for problem in &view.problems {
        field("problem", problem);
    }
    list(&mut text, "Variables", "none", view.env.iter().map(|variable| line_of(variable)));
    let module = |module: &wapack_runtime::inspection::BuildpackView| {
        let homepage = module.homepage.as_ref().map_or(String::new(), |homepage| format!("   {homepage}"));
        line_of(&format!("{}@{}{homepage}", module.id, module.version))
    };
    let nobody = if view.made_by_buildpacks { "none" } else { "none: it was not made by buildpacks" };
    list(&mut text, "Buildpacks", nobody, view.buildpacks.iter().map(module));
    if !view.extensions.is_empty() {
        list(&mut text, "Extensions", nobody, view.extensions.iter().map(module));
    }
    list(&mut text, "Processes", "none", view.processes.iter().map(process));
    let title = format!("Layers ({})", show_bytes(view.bytes));
    let layers = view.layers.iter().map(|layer| {
        let digest = layer.digest.get(..19).unwrap_or(&layer.digest);
        let made_by = match &layer.created_by {
            Some(created_by) if !view.made_by_buildpacks => created_by,
            _ => &layer.made_by,
        };
        format!("{digest}  {:>10}  {}", show_bytes(layer.bytes), line_of(made_by))
    });
    list(&mut text, &title, "none", layers);
    text
}

fn base(view: &ImageView) -> String {
    match (view.run_images.first(), view.base_image.kind) {
        (Some(run_image), _) => run_image.name.clone(),
        (None, "image") => "an image without a name".to_owned(),
        (None, "scratch") => "scratch".to_owned(),
        (None, _) => "unknown".to_owned(),
    }
}

fn sbom(view: &ImageView) -> String {
    if !view.sbom.present {
        return "none".to_owned();
    }
    match (&view.sbom.documents, &view.sbom.formats) {
        (Some(documents), Some(formats)) => {
            let noun = if documents.len() == 1 { "document" } else { "documents" };
            format!("{} {noun}: {}", documents.len(), formats.join(", "))
        }
        _ => "yes; `wapack sbom list` reads that layer".to_owned(),
    }
}

fn process(process: &ProcessView) -> String {
    let default = if process.default { " (default)" } else { "" };
    let words = [std::slice::from_ref(&process.command), process.args.as_slice()].concat().join(" ");
    let mut line = format!("{}{default}: {words}", process.r#type);
    if !process.direct {
        line.push_str("   through bash");
    }
    if !process.working_directory.is_empty() {
        line = format!("{line}   in {}", process.working_directory);
    }
    line_of(&format!("{line}   from {}", process.buildpack))
}

fn list(text: &mut String, title: &str, none: &str, lines: impl ExactSizeIterator<Item = String>) {
    let _ = writeln!(text, "\n{title}");
    let count = lines.len();
    for line in lines.take(MAX_LINES) {
        let _ = writeln!(text, "  {line}");
    }
    if count == 0 {
        let _ = writeln!(text, "  {none}");
    }
    if count > MAX_LINES {
        let _ = writeln!(text, "  … and {} more; `--json` has them", count - MAX_LINES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9_a_long_text_is_cut_and_none_steers_the_terminal() {
        assert_eq!(line_of("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\u{a}b");
        assert_eq!(line_of(&"x".repeat(9 << 20)).chars().count(), MAX_CHARACTERS + 1);
        let mut text = String::new();
        list(&mut text, "T", "none", (0..1000).map(|number| number.to_string()));
        assert!(text.ends_with("  199\n  … and 800 more; `--json` has them\n"), "{text}");
    }
}
