//! `wapack sbom`: the bills of materials inside an image.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::cnb::sbom::SbomFormat;
use wapack_runtime::inspection::{InspectionError, SbomDocument, read_sboms, write_sboms};
use wapack_runtime::limits::show_bytes;
use wapack_runtime::text::harmless_lines;

use crate::app;
use crate::args::{ImageToRead, SbomArguments, SbomCommand};
use crate::failure::Failure;
use crate::images::Places;
use crate::looked_at::LookedAt;
use crate::output::Output;

pub(crate) fn run(arguments: &SbomArguments, cancel: &Cancel, output: &mut Output) -> Result<u8, Failure> {
    match &arguments.command {
        SbomCommand::Download { image, output_dir } => {
            download(&documents(image, cancel)?, output_dir, output)?;
        }
        SbomCommand::List { image, json } => {
            list(&documents(image, cancel)?, *json || output.is_json(), output);
        }
        SbomCommand::Show { image, path } => show(documents(image, cancel)?, path, output)?,
    }
    Ok(0)
}

/// The documents of an image; of its layers only the one that has them is read.
fn documents(image: &ImageToRead, cancel: &Cancel) -> Result<Vec<SbomDocument>, Failure> {
    let places = Places::new(&image.policy, None, cancel);
    let system = image.system.as_deref().map(app::system).transpose()?;
    let opened = LookedAt::find(places.open_image(&image.image, system.as_ref())?, &places)?;
    let view = opened.view()?;
    let layer = view.sbom.layer.as_ref().and_then(|layer| layer.parse().ok());
    let layer = layer.ok_or(InspectionError::NoSboms)?;
    let documents = read_sboms(&layer, view.layers_directory(), &|layer| opened.layer(layer), cancel)?;
    if documents.is_empty() { Err(InspectionError::NoSboms.into()) } else { Ok(documents) }
}

fn download(documents: &[SbomDocument], directory: &Path, output: &mut Output) -> Result<(), Failure> {
    let written = write_sboms(documents, directory)?;
    if output.is_json() {
        let files: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
        output.object(&json!({ "event": "sboms-written", "files": files }));
        return Ok(());
    }
    for path in written {
        output.say(&path.display().to_string());
    }
    Ok(())
}

fn list(documents: &[SbomDocument], as_json: bool, output: &mut Output) {
    if as_json {
        let documents: Vec<_> = documents
            .iter()
            .map(|document| {
                json!({
                    "path": document.path,
                    "format": document.format.map(SbomFormat::media_type),
                    "bytes": document.content.len(),
                })
            })
            .collect();
        output.document(&json!({ "schema_version": 1, "documents": documents }));
        return;
    }
    let mut text = String::new();
    for document in documents {
        let format = document.format.map_or("unknown", |format| format.media_type());
        let bytes = show_bytes(document.content.len() as u64);
        let _ = writeln!(text, "{format:<30}{bytes:>10}  {}", document.path);
    }
    output.line(text.trim_end());
}

/// Prints one document; what could steer a terminal is shown instead of sent. In JSON no
/// such character has to stand for itself.
fn show(documents: Vec<SbomDocument>, path: &str, output: &mut Output) -> Result<(), Failure> {
    let paths: Vec<String> = documents.iter().map(|document| document.path.clone()).collect();
    let wanted = path.trim_start_matches('/');
    let found = documents.into_iter().find(|document| document.path == wanted);
    let found = found.ok_or_else(|| InspectionError::NoSuchSbom {
        path: path.escape_debug().to_string(),
        documents: paths,
    })?;
    output.line(harmless_lines(&String::from_utf8_lossy(&found.content)).trim_end());
    Ok(())
}
