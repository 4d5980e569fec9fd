//! A page about an image: one file for any browser, which asks nobody for anything.
//!
//! Every text in it comes from whoever made the image. All of it is made harmless, then
//! escaped; data is JSON that the page's one script shows as text. A policy inside the
//! page lets no other script or style run, and nothing be loaded.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::engine::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::files::{FileNode, FileReport, shown_name, trees};
use super::{ImageView, LayerOwner};
use crate::cnb::labels::escaped_for_html;
use crate::limits::show_bytes;
use crate::text::harmless;

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Files that are shown one by one, and bytes of their paths: the page stays below some 8 MiB.
const MAX_FILES: usize = 50_000;
const MAX_PATH_BYTES: usize = 5 << 20;
/// Rows of tables that are there without the script.
const MAX_ROWS: usize = 100;
const MAX_LAYERS: usize = 1000;
const MAX_CHARACTERS: usize = 400;
/// Colours of buildpacks come after those of the others.
const COLOURS: usize = 12;
const FIRST_OF_BUILDPACKS: usize = 4;

/// The page about an image whose layers were read.
#[must_use]
pub fn html(view: &ImageView, report: &FileReport) -> String {
    let owners = Owners::of(view);
    let title = view.image_name.as_deref().or(view.digest.as_deref()).unwrap_or("image");
    let mut page = Page(String::new());
    page.raw(&format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src '{}'; style-src '{}'; \
         base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{} · image report</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<a class=\"skip\" href=\"#files\">Skip to the files</a>\n",
        source(SCRIPT),
        source(STYLE),
        escape(title),
    ));
    header(&mut page, view, report, title);
    page.raw("<main>\n");
    map(&mut page);
    layers(&mut page, view, report, &owners);
    files(&mut page, report, &owners);
    waste(&mut page, report, &owners);
    duplicates(&mut page, report, &owners);
    making(&mut page, view);
    page.raw("</main>\n<footer><p>Made by wapack from the image's configuration and layers. This page loads nothing \
              and sends nothing.</p></footer>\n<div id=\"tip\" hidden></div>\n<script type=\"application/json\" id=\"data\">");
    page.raw(&data(report, &owners));
    page.raw("</script>\n<script>");
    page.raw(SCRIPT);
    page.raw("</script>\n</body>\n</html>\n");
    page.0
}

/// What the policy calls the one script or style it allows.
fn source(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// Text of others for HTML: harmless, of bounded length, without markup.
fn escape(text: &str) -> String {
    let safe = harmless(text);
    let cut = match safe.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", &safe[..end]),
        None => safe,
    };
    let mut escaped = String::with_capacity(cut.len());
    for character in cut.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            character => escaped.push(character),
        }
    }
    escaped
}

struct Page(String);

impl Page {
    /// Markup, of which nothing comes from others.
    fn raw(&mut self, markup: &str) {
        self.0.push_str(markup);
    }

    fn row(&mut self, class: &str, cells: &[Cell<'_>]) {
        let _ = write!(self.0, "<tr{class}>");
        for cell in cells {
            match cell {
                Cell::Number(text) => {
                    let _ = write!(self.0, "<td class=\"number\">{}</td>", escape(text));
                }
                Cell::Text(text) => {
                    let _ = write!(self.0, "<td>{}</td>", escape(text));
                }
                Cell::Path(text) => {
                    let _ = write!(self.0, "<td><span class=\"path\">{}</span></td>", escape(text));
                }
                Cell::Owner(text, colour) => {
                    let _ = write!(self.0, "<td><span class=\"dot c{colour}\"></span>{}</td>", escape(text));
                }
                Cell::Bar(share, colour) => {
                    let _ = write!(
                        self.0,
                        "<td><svg class=\"bar\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" \
                         aria-hidden=\"true\"><rect class=\"c{colour}\" width=\"{share}\" height=\"10\"/></svg></td>"
                    );
                }
            }
        }
        self.raw("</tr>\n");
    }

    fn table(&mut self, heads: &[&str]) {
        self.raw("<div class=\"scroll\"><table><thead><tr>");
        for head in heads {
            let class = if head.starts_with('#') { " class=\"number\"" } else { "" };
            let _ = write!(self.0, "<th scope=\"col\"{class}>{}</th>", head.trim_start_matches('#'));
        }
        self.raw("</tr></thead><tbody>\n");
    }

    fn end_of_table(&mut self, left_out: usize, what: &str) {
        self.raw("</tbody></table></div>\n");
        if left_out > 0 {
            let _ = writeln!(self.0, "<p class=\"note\">And {left_out} more {what}.</p>");
        }
    }
}

/// A cell of a table.
enum Cell<'a> {
    Number(&'a str),
    Text(&'a str),
    Path(&'a str),
    /// With its colour.
    Owner(&'a str, usize),
    /// Per cent, and its colour.
    Bar(u64, usize),
}

/// What layers are called and how they are coloured.
struct Owners {
    /// For each layer: its name, who is behind it, the colour.
    layers: Vec<(String, String, usize)>,
}

impl Owners {
    fn of(view: &ImageView) -> Self {
        let mut buildpacks: BTreeMap<&str, usize> = BTreeMap::new();
        let mut layers = Vec::with_capacity(view.layers.len());
        for (index, layer) in view.layers.iter().enumerate() {
            let number = index + 1;
            let (owner, colour) = match &layer.owner {
                LayerOwner::Base => ("base".to_owned(), 0),
                LayerOwner::App | LayerOwner::Slice { .. } => ("app".to_owned(), 1),
                LayerOwner::Launcher | LayerOwner::Config | LayerOwner::ProcessTypes => {
                    ("launcher".to_owned(), 2)
                }
                LayerOwner::Sbom => ("sbom".to_owned(), 3),
                LayerOwner::Buildpack { buildpack, .. } => {
                    let next = FIRST_OF_BUILDPACKS + buildpacks.len() % (COLOURS - FIRST_OF_BUILDPACKS);
                    (harmless(buildpack), *buildpacks.entry(buildpack).or_insert(next))
                }
                LayerOwner::Unknown => (format!("layer {number}"), index % COLOURS),
            };
            let what = match &layer.created_by {
                Some(created_by) if layer.owner == LayerOwner::Unknown => created_by,
                _ => &layer.made_by,
            };
            layers.push((format!("{number}. {}", shown_name(what.as_bytes())), owner, colour));
        }
        Self { layers }
    }

    fn cell(&self, layer: usize) -> Cell<'_> {
        self.layers.get(layer).map_or(Cell::Text(""), |(name, _, colour)| Cell::Owner(name, *colour))
    }
}

fn header(page: &mut Page, view: &ImageView, report: &FileReport, title: &str) {
    let _ = write!(
        page.0,
        "<header>\n<p class=\"eyebrow\">Image report</p>\n<h1>{}</h1>\n<p class=\"digest\"><code>{}</code></p>\n\
         <dl class=\"facts\">\n",
        escape(title),
        escape(view.digest.as_deref().unwrap_or("without a digest")),
    );
    let unpacked: u64 = report.layers.iter().map(|layer| layer.bytes).sum();
    let count: usize = report.layers.iter().map(|layer| layer.files).sum();
    let gain: u64 = report.duplicates.iter().map(super::files::Duplicates::gain).sum();
    let base = match (view.run_images.first(), view.base_image.kind) {
        (Some(run_image), _) => run_image.name.as_str(),
        (None, "scratch") => "scratch",
        (None, "image") => "without a name",
        (None, _) => "unknown",
    };
    let fact = |name: &str, value: &str, more: &str| {
        let more = if more.is_empty() { String::new() } else { format!("<small>{}</small>", escape(more)) };
        let class = if value.chars().count() > 18 { " class=\"wide\"" } else { "" };
        format!("<div{class}><dt>{name}</dt><dd>{}{more}</dd></div>\n", escape(value))
    };
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let bytes = format!("{} of files unpacked", show_bytes(unpacked));
    let layers = view.layers.len();
    let wasted = report.wasted_bytes();
    let facts = [
        fact("Size", &show_bytes(view.bytes), &bytes),
        fact("Layers", &layers.to_string(), &plural(count, "file")),
        fact(
            "Hidden by later layers",
            &show_bytes(wasted),
            if wasted == 0 { "nothing is wasted" } else { "pulled, never seen" },
        ),
        fact("Equal files", &show_bytes(gain), "more than one of each"),
        fact("Base", base, &plural(view.base_image.layers, "layer")),
        fact(
            "Rebasable",
            if view.rebasable { "yes" } else { "no" },
            view.not_rebasable.as_deref().unwrap_or(""),
        ),
        fact("Target", &view.target, ""),
        fact("User", view.user.as_deref().unwrap_or("root, or the base's"), ""),
        fact("Created", view.created.as_deref().unwrap_or("it does not say"), ""),
    ];
    page.raw(&facts.concat());
    page.raw("</dl>\n</header>\n");
}

fn map(page: &mut Page) {
    page.raw(
        "<section aria-labelledby=\"where\">\n<h2 id=\"where\">Where the bytes are</h2>\n\
         <noscript><p class=\"note\">The map needs JavaScript; the tables below have the same numbers.</p></noscript>\n\
         <div data-script hidden>\n<div class=\"controls\">\n<div class=\"switch\" role=\"group\" aria-label=\"Show\">\
         <button type=\"button\" data-mode=\"layers\" aria-pressed=\"true\">Layer by layer</button>\
         <button type=\"button\" data-mode=\"files\" aria-pressed=\"false\">As one file system</button></div>\n\
         <input type=\"search\" id=\"search\" placeholder=\"Find files by path\" aria-label=\"Find files by path\" \
         autocomplete=\"off\" spellcheck=\"false\">\n</div>\n\
         <nav class=\"crumbs\" id=\"crumbs\" aria-label=\"Directory that is shown\"></nav>\n\
         <svg id=\"treemap\" role=\"group\" aria-label=\"Map of bytes; arrow keys move, Enter goes into a directory, \
         Escape goes up\"></svg>\n<p class=\"note\" id=\"status\" role=\"status\"></p>\n\
         <ul class=\"legend\" id=\"legend\" aria-label=\"Whose layers are shown\"></ul>\n</div>\n</section>\n",
    );
}

fn layers(page: &mut Page, view: &ImageView, report: &FileReport, owners: &Owners) {
    page.raw("<section aria-labelledby=\"layers\">\n<h2 id=\"layers\">Layers</h2>\n");
    page.table(&["Made by", "", "#Stored", "#Unpacked", "#Files", "#Hidden later", "Digest"]);
    let largest = view.layers.iter().map(|layer| layer.bytes).max().unwrap_or_default().max(1);
    for (index, (layer, found)) in view.layers.iter().zip(&report.layers).enumerate().take(MAX_LAYERS) {
        let colour = owners.layers.get(index).map_or(0, |layer| layer.2);
        let unpacked = match &found.problem {
            Some(problem) => format!("not read: {problem}"),
            None => show_bytes(found.bytes),
        };
        page.row(
            "",
            &[
                owners.cell(index),
                Cell::Bar(layer.bytes.saturating_mul(100) / largest, colour),
                Cell::Number(&show_bytes(layer.bytes)),
                Cell::Number(&unpacked),
                Cell::Number(&found.files.to_string()),
                Cell::Number(&if found.wasted_bytes == 0 {
                    String::new()
                } else {
                    show_bytes(found.wasted_bytes)
                }),
                Cell::Path(layer.digest.get(..19).unwrap_or(&layer.digest)),
            ],
        );
    }
    page.end_of_table(view.layers.len().saturating_sub(MAX_LAYERS), "layers");
    page.raw("</section>\n");
}

/// The largest files; the script puts those in their place that are searched for.
fn files(page: &mut Page, report: &FileReport, owners: &Owners) {
    page.raw(
        "<section aria-labelledby=\"largest\" id=\"files\">\n<h2 id=\"largest\">Files by size</h2>\n\
              <p class=\"note\" id=\"count\" role=\"status\"></p>\n",
    );
    page.table(&["#Size", "Path", "Layer", ""]);
    let mut largest: Vec<usize> = (0..report.files.len()).collect();
    largest.sort_by_key(|index| (Reverse(report.files[*index].bytes), *index));
    for index in largest.iter().take(MAX_ROWS) {
        let file = &report.files[*index];
        let (class, note) =
            if file.gone_in.is_some() { (" class=\"gone\"", "hidden by a later layer") } else { ("", "") };
        let path = format!("/{}", shown_name(&file.path));
        let cells = [
            Cell::Number(&show_bytes(file.bytes)),
            Cell::Path(&path),
            owners.cell(file.layer),
            Cell::Text(note),
        ];
        page.row(class, &cells);
    }
    page.end_of_table(0, "files");
    page.raw("</section>\n");
}

/// What later layers hide.
fn waste(page: &mut Page, report: &FileReport, owners: &Owners) {
    let gone = |(index, file): (usize, &super::files::FileRecord)| file.gone_in.map(|layer| (index, layer));
    let mut wasted: Vec<(usize, usize)> = report.files.iter().enumerate().filter_map(gone).collect();
    if wasted.is_empty() {
        return;
    }
    wasted.sort_by_key(|(index, _)| (Reverse(report.files[*index].bytes), *index));
    let _ = write!(
        page.0,
        "<section aria-labelledby=\"waste\">\n<h2 id=\"waste\">Hidden by later layers: {}</h2>\n\
         <p class=\"note\">Everybody who pulls the image gets these bytes; no container ever sees them.</p>\n",
        show_bytes(report.wasted_bytes()),
    );
    page.table(&["#Size", "Path", "Layer", "Replaced or removed by"]);
    for (index, layer) in wasted.iter().take(MAX_ROWS) {
        let file = &report.files[*index];
        let path = format!("/{}", shown_name(&file.path));
        let cells = [
            Cell::Number(&show_bytes(file.bytes)),
            Cell::Path(&path),
            owners.cell(file.layer),
            owners.cell(*layer),
        ];
        page.row("", &cells);
    }
    page.end_of_table(wasted.len().saturating_sub(MAX_ROWS), "files");
    page.raw("</section>\n");
}

/// Equal files.
fn duplicates(page: &mut Page, report: &FileReport, owners: &Owners) {
    /// Of one set.
    const MAX_PATHS: usize = 8;
    if report.duplicates.is_empty() {
        return;
    }
    page.raw("<section aria-labelledby=\"equal\">\n<h2 id=\"equal\">Equal files</h2>\n");
    page.table(&["#Size", "#Times", "Paths", "Layer"]);
    for set in report.duplicates.iter().take(MAX_ROWS) {
        for (number, index) in set.files.iter().take(MAX_PATHS).enumerate() {
            let file = &report.files[*index];
            let path = format!("/{}", shown_name(&file.path));
            let (size, times) = if number == 0 {
                (show_bytes(set.bytes), set.files.len().to_string())
            } else {
                (String::new(), String::new())
            };
            page.row(
                "",
                &[Cell::Number(&size), Cell::Number(&times), Cell::Path(&path), owners.cell(file.layer)],
            );
        }
    }
    page.end_of_table(report.duplicates.len().saturating_sub(MAX_ROWS), "sets of equal files");
    page.raw("</section>\n");
}

/// Who made the image, and what it starts.
fn making(page: &mut Page, view: &ImageView) {
    page.raw(
        "<section aria-labelledby=\"made\">\n<h2 id=\"made\">How it was made, and what it starts</h2>\n",
    );
    if !view.buildpacks.is_empty() {
        page.raw("<h3>Buildpacks</h3>\n");
        page.table(&["Id", "Version", "Homepage"]);
        for buildpack in view.buildpacks.iter().take(MAX_ROWS) {
            // A homepage is anybody's text, and no link.
            let homepage = buildpack.homepage.as_deref().unwrap_or_default();
            page.row("", &[Cell::Text(&buildpack.id), Cell::Text(&buildpack.version), Cell::Text(homepage)]);
        }
        page.end_of_table(view.buildpacks.len().saturating_sub(MAX_ROWS), "buildpacks");
    }
    if !view.processes.is_empty() {
        page.raw("<h3>Processes</h3>\n");
        page.table(&["Type", "Command", "Directory", "From"]);
        for process in view.processes.iter().take(MAX_ROWS) {
            let command =
                [std::slice::from_ref(&process.command), process.args.as_slice()].concat().join(" ");
            let default = if process.default { " (default)" } else { "" };
            let name = format!("{}{default}", process.r#type);
            page.row(
                "",
                &[
                    Cell::Text(&name),
                    Cell::Path(&command),
                    Cell::Path(&process.working_directory),
                    Cell::Text(&process.buildpack),
                ],
            );
        }
        page.end_of_table(view.processes.len().saturating_sub(MAX_ROWS), "processes");
    }
    page.raw("<h3>Configuration</h3>\n");
    page.table(&["", ""]);
    let start = [view.entrypoint.as_slice(), view.command.as_slice()].concat().join(" ");
    page.row("", &[Cell::Text("Start"), Cell::Path(&start)]);
    page.row("", &[Cell::Text("Directory"), Cell::Path(view.working_directory.as_deref().unwrap_or("/"))]);
    for variable in view.env.iter().take(MAX_ROWS) {
        page.row("", &[Cell::Text("Variable"), Cell::Path(variable)]);
    }
    for document in view.sbom.documents.iter().flatten().take(MAX_ROWS) {
        page.row("", &[Cell::Text("Bill of materials"), Cell::Path(document)]);
    }
    for problem in view.problems.iter().take(MAX_ROWS) {
        page.row("", &[Cell::Text("Problem"), Cell::Text(problem)]);
    }
    page.end_of_table(0, "");
    page.raw("</section>\n");
}

/// What the script shows.
///
/// # Shape
/// `{"layers": [{"name", "owner", "colour", "tree": [NODE]}]}`, where a node is
/// `["directory", [NODE]]`, `["file", bytes]`, the same with `1` behind when a later
/// layer hides it, or `[files, bytes, hidden bytes]` for the rest of a directory.
fn data(report: &FileReport, owners: &Owners) -> String {
    let layers: Vec<Value> = trees(report, MAX_FILES, MAX_PATH_BYTES)
        .iter()
        .zip(&owners.layers)
        .map(|(nodes, (name, owner, colour))| {
            json!({ "name": name, "owner": owner, "colour": colour, "tree": nodes.iter().map(node).collect::<Vec<_>>() })
        })
        .collect();
    escaped_for_html(&json!({ "layers": layers }).to_string())
}

/// Recursion is bounded by the depth of [`trees`].
fn node(node: &FileNode) -> Value {
    match node {
        FileNode::Directory { name, children, .. } => {
            json!([name, children.iter().map(self::node).collect::<Vec<_>>()])
        }
        FileNode::File { name, bytes, is_wasted: false } => json!([name, bytes]),
        FileNode::File { name, bytes, is_wasted: true } => json!([name, bytes, 1]),
        FileNode::Rest { files, bytes, wasted_bytes } => json!([files, bytes, wasted_bytes]),
    }
}

#[cfg(test)]
mod tests;
