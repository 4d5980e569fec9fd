//! What the image's processes need to start, looked for in the image.
//!
//! For every process: the program, the interpreter of a script, the dynamic
//! loader and the libraries of a program, where the launcher, the kernel and the
//! loader would look. It runs nothing, and it does not know what buildpacks are
//! called. What cannot be seen, such as a library that a program opens by
//! itself, is not found missing either.
//!
//! Layers of the last build are looked into like all others: the run image may
//! be another one now. So that an unchanged build reads none of this, the verdict
//! is kept under everything it depends on.

mod image_files;
mod libraries;
mod problem;
mod program;

pub use self::problem::{MissingLibrary, Origin, Problem, Unmet};

use serde::{Deserialize, Serialize};

use self::image_files::{ImageFiles, Stop};
use super::contents::LayerEntry;
use super::start::{self, Start};
use super::{Base, ExportError, ExportRequest};
use crate::cancel::Cancel;
use crate::cnb::id::ExecEnv;
use crate::cnb::launch::Process;
use crate::cnb::layer::LayerFeatures;
use crate::event::{Event, EventSink};
use crate::oci::blob::BlobStore;
use crate::oci::digest::Digest;
use crate::oci::image::RunConfiguration;
use crate::phase::values::{BuiltContents, BuiltLayer, ExportedLayer};
use crate::tree::{Listing, TreeError};

/// Part of the name of every note: a verdict of other rules is not found.
const RULES: &str = "1";

/// What is about to become an image, and the listings it was made of.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub request: &'a ExportRequest<'a>,
    pub layers: &'a [(&'a BuiltLayer, LayerFeatures)],
    /// Of each layer; `None` where the layer is one of the last build.
    pub listings: &'a [Option<Listing>],
    pub app_listing: &'a Listing,
    pub app_layers: &'a [Vec<LayerEntry<'a>>],
    pub start: Start<'a>,
    /// The base's, as nothing has changed it yet.
    pub run: &'a RunConfiguration,
}

/// What is kept of a check.
#[derive(Default, Serialize, Deserialize)]
struct Verdict {
    warnings: Vec<String>,
}

impl Verdict {
    fn warn(&self, events: &mut dyn EventSink) {
        for message in &self.warnings {
            events.event(Event::Warning { message: message.clone() });
        }
    }
}

/// A check that found nothing wrong.
pub(super) struct Checked<'a> {
    subject: Subject<'a>,
    /// `None` when an earlier build has looked already.
    fresh: Option<(Verdict, ImageFiles<'a>)>,
}

/// Makes sure that every process of the image can start.
///
/// # Errors
/// [`ExportError::CannotStart`] for the first process that cannot.
pub(super) fn check<'a>(
    subject: Subject<'a>,
    store: &'a dyn BlobStore,
    cancel: &'a Cancel,
    events: &mut dyn EventSink,
) -> Result<Checked<'a>, ExportError> {
    let known = subject.note_name(&[]).and_then(|name| store.note(&name));
    let known: Option<Verdict> = known.and_then(|text| serde_json::from_str(&text).ok());
    if let Some(verdict) = known {
        verdict.warn(events);
        return Ok(Checked { subject, fresh: None });
    }
    let mut files = ImageFiles::new(&subject, store, cancel)?;
    let mut verdict = Verdict::default();
    for (_, process) in subject.request.built.processes.iter() {
        let mut result = program::check(&subject, process, &files);
        if let Err(Stop::Elsewhere) = result {
            let brought = files.bring_base(subject.request.run_images, events);
            result = brought.and_then(|()| program::check(&subject, process, &files));
        }
        let problem = match result {
            Ok(()) => continue,
            Err(Stop::Unmet(problem)) => problem,
            Err(Stop::Failed(error)) => return Err(*error),
            Err(Stop::Elsewhere) => unreachable!("the base was brought here, or it is out of reach"),
            Err(Stop::Blind(reason)) => {
                let message = format!("whether the processes can start is not known: {reason}");
                verdict.warnings.push(message);
                break;
            }
        };
        let may_be_otherwise = subject.may_be_otherwise(process, &problem.problem);
        let error = ExportError::CannotStart {
            process: process.process_type.clone(),
            run_image: subject.run_image_name(),
            cause: problem,
        };
        if !may_be_otherwise {
            return Err(error);
        }
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        verdict.warnings.push(format!("{error}, unless something changes that when it starts: {cause}"));
    }
    verdict.warn(events);
    Ok(Checked { subject, fresh: Some((verdict, files)) })
}

impl Checked<'_> {
    /// Keeps what was found for the next build, now that the layers are blobs.
    pub(super) fn keep(self, exported: &[ExportedLayer], store: &dyn BlobStore) {
        let Some((verdict, files)) = self.fresh else { return };
        files.keep(exported, store);
        if let (Some(name), Ok(text)) = (self.subject.note_name(exported), serde_json::to_string(&verdict)) {
            store.keep_note(&name, &text);
        }
    }
}

impl Subject<'_> {
    /// What to call the run image: its name, or what it is.
    fn run_image_name(&self) -> String {
        let run_image = self.request.run_image;
        match &run_image.base {
            Base::Scratch(_) => "scratch".to_owned(),
            Base::Image(base) if run_image.name.is_empty() => base.reference.clone(),
            Base::Image(_) => run_image.name.clone(),
        }
    }

    /// Whether the process may start all the same: programs of `exec.d` can
    /// change where things are looked for, and a process for another execution
    /// environment is not meant to start here.
    fn may_be_otherwise(&self, process: &Process, problem: &Problem) -> bool {
        let is_changed =
            self.layers.iter().any(|(_, features)| features.has_exec_d || features.has_profile_d);
        !is_for(process, self.request.exec_env) || (is_changed && problem.depends_on_environment())
    }

    /// Everything a verdict depends on. `None` as long as a layer has no digest:
    /// then it is new, and so is the verdict.
    fn note_name(&self, exported: &[ExportedLayer]) -> Option<String> {
        let base: Vec<&Digest> = match &self.request.run_image.base {
            Base::Scratch(_) => vec![],
            Base::Image(base) => base.image.layers.iter().map(|layer| &layer.digest).collect(),
        };
        let layers = self.layers.iter().map(|(layer, features)| {
            let exported = exported
                .iter()
                .find(|exported| exported.buildpack == layer.buildpack.id && exported.name == layer.name);
            let digest = match (&layer.contents, exported) {
                (BuiltContents::Stored { blob, .. }, _) => &blob.digest,
                (BuiltContents::Fresh(_), Some(exported)) => &exported.blob.digest,
                (BuiltContents::Fresh(_), None) => return None,
            };
            Some((layer.buildpack.to_string(), &layer.name, digest, features, &layer.environment))
        });
        let built = &self.request.built;
        let processes: Vec<&Process> = built.processes.iter().map(|(_, process)| process).collect();
        let links: Vec<_> = built.app_links.iter().map(|(_, link)| (&link.path, &link.target)).collect();
        let text = serde_json::to_string(&(
            (RULES, self.run_image_name(), start::architecture(self.request), base, &self.run.env),
            (self.start == Start::Launcher, self.request.exec_env.to_string(), processes),
            (layers.collect::<Option<Vec<_>>>()?, links, self.app_listing.fingerprint()),
        ));
        text.ok().map(|text| format!("processes {}", Digest::of(text.as_bytes())))
    }
}

fn is_for(process: &Process, exec_env: &ExecEnv) -> bool {
    let names = &process.exec_envs;
    names.is_empty() || names.iter().any(|name| name.as_str() == "*" || name == exec_env)
}

impl From<TreeError> for Stop {
    fn from(error: TreeError) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}
