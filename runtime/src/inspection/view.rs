//! An image as its configuration and labels describe it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::SbomDocument;
use super::labels::Labels;
use super::owner::{LayerOwner, owners};
use crate::cnb::labels::{BuildpackRecord, ProcessRecord, REBASABLE};
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::Image;
use crate::oci::referrer::Referrer;

/// The version of the JSON that an [`ImageView`] becomes. It rises when a key changes its
/// meaning or goes; new keys may come at any time.
const SCHEMA_VERSION: u32 = 1;

/// Everything that is known of an image without reading a layer.
///
/// # Shape
/// As JSON, the document that `docs/inspect.md` describes. Where `pack inspect --output
/// json` says the same, the key is the same. Texts are as the image has them: whoever
/// shows them has to make them harmless.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageView {
    pub schema_version: u32,
    /// What it was asked for by.
    pub image_name: Option<String>,
    /// Of its manifest, where it has one.
    pub digest: Option<String>,
    /// In a container engine, which knows images by the digest of their configuration.
    pub image_id: Option<String>,
    /// `os/architecture`, with the variant if it has one.
    pub target: String,
    /// Where the name it was asked for by stands for images for several systems: which.
    pub systems: Vec<String>,
    pub created: Option<String>,
    pub user: Option<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub working_directory: Option<String>,
    /// Whether it has the labels of buildpacks; without them most of the rest is empty.
    pub made_by_buildpacks: bool,
    pub stack: Option<String>,
    pub base_image: BaseView,
    /// The run image by name, then its mirrors.
    pub run_images: Vec<RunImageView>,
    pub rebasable: bool,
    /// Why not.
    pub not_rebasable: Option<String>,
    pub launcher: LauncherView,
    pub buildpacks: Vec<BuildpackView>,
    pub extensions: Vec<BuildpackView>,
    pub default_process: Option<String>,
    pub processes: Vec<ProcessView>,
    pub sbom: SbomView,
    /// Of all layers together, as they are stored.
    pub bytes: u64,
    /// First to last.
    pub layers: Vec<LayerView>,
    /// What is attached to it from outside: bills of materials, provenance, signatures.
    pub attachments: Vec<AttachmentView>,
    /// Labels that could not be read.
    pub problems: Vec<String>,
}

/// What is below the layers that buildpacks made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BaseView {
    /// `image`, or `scratch` when there is nothing; `unknown` without labels.
    pub kind: &'static str,
    /// By digest, image id or path.
    pub reference: String,
    /// The diff id of its last layer.
    pub top_layer: String,
    /// How many layers it has.
    pub layers: usize,
}

/// A name of the run image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunImageView {
    pub name: String,
}

/// The program that starts processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LauncherView {
    pub present: bool,
    pub version: Option<String>,
}

/// A buildpack or extension that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildpackView {
    pub id: String,
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// The Buildpack API it was written for; only some lifecycles say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
}

/// A process that the image can start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessView {
    pub r#type: String,
    /// `bash`, or empty when no shell is between.
    pub shell: &'static str,
    /// The program.
    pub command: String,
    pub default: bool,
    /// All arguments, first those that users cannot replace.
    pub args: Vec<String>,
    /// How many of `args` stay when a user gives others.
    pub fixed_args: usize,
    pub direct: bool,
    pub buildpack: String,
    #[serde(rename = "working-dir")]
    pub working_directory: String,
}

/// The bills of materials inside the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SbomView {
    /// Whether a layer of the image has them.
    pub present: bool,
    /// The diff id of that layer.
    pub layer: Option<String>,
    /// Their paths in the image; not known as long as nobody read that layer.
    pub documents: Option<Vec<String>>,
    /// Media types, sorted; as `documents`.
    pub formats: Option<Vec<String>>,
}

/// A document beside an image that names it as its subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttachmentView {
    /// What kind of document it is.
    pub artifact_type: String,
    /// Of its manifest.
    pub digest: String,
    /// What it says of itself.
    pub annotations: BTreeMap<String, String>,
}

/// A layer, by who made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerView {
    /// `owner` as one text.
    pub made_by: String,
    pub owner: LayerOwner,
    /// As it is stored.
    pub bytes: u64,
    pub digest: String,
    pub diff_id: String,
    pub media_type: String,
    /// What the image's history says of it, if that fits its layers.
    pub created_by: Option<String>,
}

impl ImageView {
    /// Where the layers of buildpacks are in the image: `/layers`, or what it says itself.
    #[must_use]
    pub fn layers_directory(&self) -> &str {
        let said = self.env.iter().find_map(|variable| variable.strip_prefix("CNB_LAYERS_DIR="));
        said.filter(|directory| directory.starts_with('/')).unwrap_or("/layers")
    }

    /// Notes what was found beside the image.
    pub fn set_attached(&mut self, attached: &[Referrer]) {
        let view = |referrer: &Referrer| AttachmentView {
            artifact_type: referrer.artifact_type.clone(),
            digest: referrer.digest.to_string(),
            annotations: referrer.annotations.clone(),
        };
        self.attachments = attached.iter().map(view).collect();
    }

    /// Describes `image`; `digest` is that of its manifest, if it has one.
    #[must_use]
    pub fn of(image: &Image, digest: Option<&Digest>) -> Self {
        let configuration = &image.configuration;
        let run = &configuration.config;
        let labels = Labels::of(run);
        let (owners, of_base) = owners(image, &labels);
        let (lifecycle, build) = (&labels.lifecycle, &labels.build);
        let not_rebasable = not_rebasable(image, &labels);
        let target = [
            Some(configuration.os.as_str()),
            Some(&configuration.architecture),
            configuration.variant.as_deref().filter(|variant| !variant.is_empty()),
        ];
        let records = if lifecycle.run_image.image.is_empty() {
            (&lifecycle.stack.run_image.image, &lifecycle.stack.run_image.mirrors)
        } else {
            (&lifecycle.run_image.image, &lifecycle.run_image.mirrors)
        };
        let names = std::iter::once(records.0).chain(records.1).filter(|name| !name.is_empty());
        Self {
            schema_version: SCHEMA_VERSION,
            image_name: None,
            digest: digest.map(ToString::to_string),
            image_id: None,
            target: target.into_iter().flatten().collect::<Vec<_>>().join("/"),
            systems: Vec::new(),
            created: configuration.created.clone(),
            user: run.user.clone(),
            env: run.env.clone(),
            entrypoint: run.entrypoint.clone(),
            command: run.cmd.clone(),
            working_directory: run.working_dir.clone(),
            made_by_buildpacks: labels.are_there,
            stack: run.labels.get(STACK_ID).cloned(),
            base_image: BaseView {
                kind: match (labels.are_there, of_base) {
                    (false, _) => "unknown",
                    (true, 0) => "scratch",
                    (true, _) => "image",
                },
                reference: lifecycle.run_image.reference.clone(),
                top_layer: lifecycle.run_image.top_layer.clone(),
                layers: of_base,
            },
            run_images: names.map(|name| RunImageView { name: name.clone() }).collect(),
            rebasable: not_rebasable.is_none(),
            not_rebasable,
            launcher: LauncherView {
                present: lifecycle.launcher.as_ref().is_some_and(|layer| !layer.sha.is_empty()),
                version: Some(build.launcher.version.clone()).filter(|version| !version.is_empty()),
            },
            buildpacks: build.buildpacks.iter().map(BuildpackView::of).collect(),
            extensions: build.extensions.iter().map(BuildpackView::of).collect(),
            default_process: build.default_process_type.clone(),
            processes: processes(&build.processes, build.default_process_type.as_deref()),
            sbom: SbomView {
                present: owners.contains(&LayerOwner::Sbom),
                layer: sbom_layer(image, &owners).map(ToString::to_string),
                ..SbomView::default()
            },
            bytes: image.layers.iter().map(|layer| layer.size).sum(),
            layers: layers(image, owners),
            attachments: Vec::new(),
            problems: labels.problems.iter().map(ToString::to_string).collect(),
        }
    }
}

impl SbomView {
    /// Notes what was found in the layer.
    pub fn set_documents(&mut self, documents: &[SbomDocument]) {
        let formats: BTreeSet<&str> = documents
            .iter()
            .filter_map(|document| document.format)
            .map(crate::cnb::sbom::SbomFormat::media_type)
            .collect();
        self.documents = Some(documents.iter().map(|document| document.path.clone()).collect());
        self.formats = Some(formats.into_iter().map(str::to_owned).collect());
    }
}

const STACK_ID: &str = "io.buildpacks.stack.id";

impl BuildpackView {
    fn of(record: &BuildpackRecord) -> Self {
        let BuildpackRecord { id, version, homepage, api } = record.clone();
        Self { id, version, homepage, api }
    }
}

/// Why nobody can put the app's layers on another base.
fn not_rebasable(image: &Image, labels: &Labels) -> Option<String> {
    let top = labels.lifecycle.run_image.top_layer.as_str();
    if !labels.are_there {
        return Some("it was not made by buildpacks".to_owned());
    }
    if image.configuration.config.labels.get(REBASABLE).is_some_and(|value| value == "false") {
        return Some(format!("its label `{REBASABLE}` says so"));
    }
    if top.is_empty() {
        return Some("its labels do not say where the layers of the base end".to_owned());
    }
    let is_there = image.layers.iter().any(|layer| layer.diff_id.0.as_str() == top);
    (!is_there).then(|| "it lacks the layer that its labels call the top of the base".to_owned())
}

fn processes(records: &[ProcessRecord], default: Option<&str>) -> Vec<ProcessView> {
    let view = |record: &ProcessRecord| {
        let mut words = record.command.iter().cloned();
        let command = words.next().unwrap_or_default();
        let mut args: Vec<String> = words.collect();
        let fixed_args = args.len();
        args.extend(record.args.iter().flatten().cloned());
        ProcessView {
            r#type: record.process_type.clone(),
            shell: if record.direct { "" } else { "bash" },
            command,
            default: default == Some(record.process_type.as_str()),
            args,
            fixed_args,
            direct: record.direct,
            buildpack: record.buildpack_id.clone(),
            working_directory: record.working_directory.clone().unwrap_or_default(),
        }
    };
    records.iter().map(view).collect()
}

fn layers(image: &Image, owners: Vec<LayerOwner>) -> Vec<LayerView> {
    let history = image.configuration.history.iter().filter(|entry| !entry.empty_layer);
    let history: Vec<Option<String>> = history.map(|entry| entry.created_by.clone()).collect();
    let fits = history.len() == image.layers.len();
    let view = |(index, (layer, owner)): (usize, (&crate::oci::image::Layer, LayerOwner))| LayerView {
        made_by: owner.to_string(),
        owner,
        bytes: layer.size,
        digest: layer.digest.to_string(),
        diff_id: layer.diff_id.to_string(),
        media_type: layer.media_type.to_string(),
        created_by: history.get(index).filter(|_| fits).cloned().flatten(),
    };
    image.layers.iter().zip(owners).enumerate().map(view).collect()
}

fn sbom_layer<'a>(image: &'a Image, owners: &[LayerOwner]) -> Option<&'a DiffId> {
    let index = owners.iter().position(|owner| *owner == LayerOwner::Sbom)?;
    image.layers.get(index).map(|layer| &layer.diff_id)
}

#[cfg(test)]
mod tests;
