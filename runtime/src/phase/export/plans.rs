//! Which layers an image has, by what they are for: their names, their lines of
//! history (IMG-08), and where the label says which is which.

use super::ExportError;
use super::work::{Files, Finished, LayerPlan, Source, Tools, make_layers};
use crate::cnb::id::{BuildpackRef, LayerName};
use crate::cnb::labels::{LayerSha, LifecycleMetadata};
use crate::event::EventSink;
use crate::oci::image::Layer;

/// What a layer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Buildpack,
    Sbom,
    App,
    Launcher,
    Config,
    ProcessTypes,
}

/// Layers to be made, in the order they have in the image (EXP-03).
#[derive(Default)]
pub(super) struct Plans<'a> {
    parts: Vec<Part>,
    plans: Vec<LayerPlan<'a>>,
}

impl<'a> Plans<'a> {
    pub(super) fn add(&mut self, part: Part, plan: LayerPlan<'a>) {
        self.parts.push(part);
        self.plans.push(plan);
    }

    pub(super) fn make(self, tools: Tools<'_>, events: &mut dyn EventSink) -> Result<Made, ExportError> {
        let finished = make_layers(self.plans, tools, events)?;
        Ok(Made { parts: self.parts, finished })
    }
}

/// The layers that were made.
pub(super) struct Made {
    parts: Vec<Part>,
    finished: Vec<Finished>,
}

impl Made {
    /// Those for one thing, in order.
    pub(super) fn of(&self, part: Part) -> impl Iterator<Item = &Layer> {
        self.parts.iter().zip(&self.finished).filter(move |(of, _)| **of == part).map(|(_, made)| &made.layer)
    }

    /// Says in the label which layer is what; buildpacks say it themselves.
    pub(super) fn record(&self, metadata: &mut LifecycleMetadata) {
        let sha = |layer: &Layer| LayerSha { sha: layer.diff_id.to_string() };
        let first = |part| self.of(part).next().map(sha);
        metadata.app = self.of(Part::App).map(sha).collect();
        metadata.sbom = first(Part::Sbom);
        metadata.launcher = first(Part::Launcher);
        metadata.config = first(Part::Config);
        metadata.process_types = first(Part::ProcessTypes).unwrap_or_default();
    }

    pub(super) fn into_layers(self) -> Vec<Finished> {
        self.finished
    }
}

/// A layer that an image extension made, as it is.
pub(super) fn extension(layer: &Layer, created_by: &str) -> Finished {
    Finished { layer: layer.clone(), created_by: created_by.to_owned() }
}

pub(super) fn buildpack<'a>(buildpack: &BuildpackRef, name: &LayerName, source: Source<'a>) -> LayerPlan<'a> {
    LayerPlan {
        name: format!("{}:{name}", buildpack.id),
        created_by: format!("Layer: '{name}', Created by buildpack: {buildpack}"),
        source,
    }
}

fn of_files<'a>(name: &str, created_by: &str, files: Files<'a>) -> LayerPlan<'a> {
    let (name, created_by) = (name.to_owned(), created_by.to_owned());
    LayerPlan { name, created_by, source: Source::Files(files) }
}

pub(super) fn sbom(files: Files<'_>) -> LayerPlan<'_> {
    of_files("sbom", "Software Bill-of-Materials", files)
}

/// The layer of one slice, or of what no slice took; `number` counts from 1.
pub(super) fn app(number: usize, has_slices: bool, files: Files<'_>) -> LayerPlan<'_> {
    if has_slices {
        of_files(&format!("app slice {number}"), &format!("Application Slice: {number}"), files)
    } else {
        of_files("app", "Application Layer", files)
    }
}

pub(super) fn launcher(files: Files<'_>) -> LayerPlan<'_> {
    of_files("launcher", "Buildpacks Application Launcher", files)
}

pub(super) fn config(files: Files<'_>) -> LayerPlan<'_> {
    of_files("launcher config", "Buildpacks Launcher Config", files)
}

pub(super) fn process_types(files: Files<'_>) -> LayerPlan<'_> {
    of_files("process types", "Buildpacks Process Types", files)
}
