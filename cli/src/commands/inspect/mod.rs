//! `wapack inspect`: by what the target is.

mod buildpack;
mod host;
mod image;
mod page;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use wapack_runtime::attestation::STATEMENT_MEDIA_TYPE;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::executor::worker::{CodeCache, Root, WorkerSettings};
use wapack_runtime::inspection::{ImageView, InspectionError, read_sboms};
use wapack_runtime::lifecycle;
use wapack_runtime::oci::reference::Reference;
use wapack_runtime::oci::referrer::Referrer;
use wapack_runtime::policy::Policy;
use wapack_runtime::text::harmless_lines;

use crate::app;
use crate::args::InspectArguments;
use crate::failure::{Failure, InputError};
use crate::images::Places;
use crate::looked_at::LookedAt;
use crate::output::Output;
use crate::place::Place;

pub(crate) fn run(arguments: &InspectArguments, cancel: &Cancel, output: &mut Output) -> Result<u8, Failure> {
    let as_json = arguments.json || output.is_json();
    let Some(target) = arguments.target.as_deref() else {
        let (policy, _) = app::policy(&arguments.policy)?;
        let report = host::look(&policy, cancel)?;
        show(&report, host::text, as_json, output);
        return Ok(u8::from(arguments.required && !report.is_complete()));
    };
    match kind_of(target)? {
        Kind::Image(place) => {
            let places = Places::new(&arguments.policy, None, cancel);
            let system = arguments.system.as_deref().map(app::system_flag).transpose()?;
            let opened = LookedAt::find(places.open(place, system.as_ref())?, &places)?;
            if arguments.provenance {
                output.line(&provenance(&opened)?);
                return Ok(0);
            }
            let view = look_at_image(&opened, cancel)?;
            match &arguments.html {
                Some(file) => page::write(&opened, &view, file, cancel, output)?,
                None => show(&view, image::text, as_json, output),
            }
        }
        Kind::Buildpack(directory) => {
            let (policy, _) = app::policy(&arguments.policy)?;
            show(&buildpack::look(&directory, &policy, cancel)?, buildpack::text, as_json, output);
        }
        Kind::Component(file) => {
            let (policy, _) = app::policy(&arguments.policy)?;
            show(&buildpack::look_at_component(&file, &policy, cancel)?, buildpack::text, as_json, output);
        }
    }
    Ok(0)
}

/// The provenance that is attached to an image; the first, if there are several.
fn provenance(opened: &LookedAt) -> Result<String, Failure> {
    let is_statement = |referrer: &&Referrer| referrer.artifact_type == STATEMENT_MEDIA_TYPE;
    let attached = opened.attached()?;
    let referrer = attached.iter().find(is_statement).ok_or(InspectionError::NoProvenance)?;
    let document = opened.attachment(referrer)?;
    Ok(harmless_lines(String::from_utf8_lossy(&document).trim_end()))
}

/// What is known of an image. Its bills of materials are listed where that costs no
/// transfer; a damaged layer is no reason to say nothing of the others.
fn look_at_image(opened: &LookedAt, cancel: &Cancel) -> Result<ImageView, Failure> {
    let mut view = opened.view()?;
    match opened.attached() {
        Ok(attached) => view.set_attached(&attached),
        Err(error) => view.problems.push(error.to_string()),
    }
    let here = view.sbom.layer.clone().filter(|layer| opened.is_here(layer));
    let Some(layer) = here.and_then(|layer| layer.parse().ok()) else { return Ok(view) };
    match read_sboms(&layer, view.layers_directory(), &|layer| opened.layer(layer), cancel) {
        Ok(documents) => view.sbom.set_documents(&documents),
        Err(error @ InspectionError::Cancelled(_)) => return Err(error.into()),
        Err(error) => view.problems.push(error.to_string()),
    }
    Ok(view)
}

/// What can be looked into.
enum Kind {
    Image(Place),
    Buildpack(PathBuf),
    Component(PathBuf),
}

fn kind_of(target: &OsStr) -> Result<Kind, InputError> {
    if let Some(place) = Place::parse(target) {
        return Ok(Kind::Image(place));
    }
    let path = Path::new(target);
    if path.join("oci-layout").is_file() {
        return Ok(Kind::Image(Place::Layout { directory: path.to_owned(), reference: None }));
    }
    if path.join("buildpack.toml").exists() {
        return Ok(Kind::Buildpack(path.to_owned()));
    }
    if path.is_file() && path.extension().is_some_and(|extension| extension == "wasm") {
        return Ok(Kind::Component(path.to_owned()));
    }
    let shown = || target.to_string_lossy().escape_debug().to_string();
    match path.symlink_metadata() {
        // What is no path may be a name; a path that is not there is one that was mistyped.
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => match Place::of_image(target) {
            Some(place) if place.name().parse::<Reference>().is_ok() => Ok(Kind::Image(place)),
            _ => Err(InputError::Unreadable { path: path.to_owned(), source }),
        },
        Err(source) => Err(InputError::Unreadable { path: path.to_owned(), source }),
        Ok(_) => Err(InputError::Inspect { value: shown() }),
    }
}

fn show<T: serde::Serialize>(report: &T, text: fn(&T) -> String, as_json: bool, output: &mut Output) {
    if as_json {
        output.document(report);
    } else {
        output.line(text(report).trim_end());
    }
}

/// A worker as a build would start it.
fn worker_settings(policy: &Policy, roots: Vec<Root>, cancel: &Cancel) -> Result<WorkerSettings, InputError> {
    Ok(WorkerSettings {
        command: app::worker()?,
        limits: policy.limits.clone(),
        roots,
        user: lifecycle::worker_user(),
        // What is missing is shown rather than refused.
        isolation_required: false,
        cancel: cancel.clone(),
    })
}

/// Looking leaves nothing behind.
struct NoCache;

impl CodeCache for NoCache {
    fn load(&self, _: &str, _: &str, _: &std::fs::File) -> bool {
        false
    }

    fn keep(&self, _component: &str, _engine: &str, _code: &[u8]) {}

    fn load_failure(&self, _: &str, _: &str) -> Option<String> {
        None
    }

    fn keep_failure(&self, _: &str, _: &str, _: &str) {}
}
