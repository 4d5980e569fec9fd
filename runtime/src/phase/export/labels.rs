//! The labels of the image.

use std::collections::BTreeMap;

use super::start::Start;
use super::{Base, ExportError, ExportRequest, LAUNCHER_LABEL, RunImage};
use crate::cnb::id::{BuildpackRef, ExecEnv};
use crate::cnb::labels::{
    self, BuildMetadata, BuildpackLayers, BuildpackRecord, LayerRecord, LifecycleMetadata, ProcessRecord,
    RunImageRecord, StackRecord, StackRunImage, StoreRecord,
};
use crate::cnb::launch::Label;
use crate::oci::image::Layer;
use crate::phase::values::{Built, BuiltLayer};

pub(super) fn lifecycle_metadata(run_image: &RunImage) -> LifecycleMetadata {
    let (top_layer, reference) = match &run_image.base {
        Base::Scratch(_) => (String::new(), String::new()),
        Base::Image(base) => {
            let top = base.image.layers.last().map(|layer| layer.diff_id.to_string());
            (top.unwrap_or_default(), base.reference.clone())
        }
    };
    let (image, mirrors) = (run_image.name.clone(), run_image.mirrors.clone());
    LifecycleMetadata {
        run_image: RunImageRecord { top_layer, reference, image: image.clone(), mirrors: mirrors.clone() },
        stack: StackRecord { run_image: StackRunImage { image, mirrors } },
        ..LifecycleMetadata::default()
    }
}

pub(super) fn buildpack_records<'l>(
    built: &Built,
    layers: &[&BuiltLayer],
    made: impl Iterator<Item = &'l Layer>,
) -> Result<Vec<BuildpackLayers>, ExportError> {
    let json = |buildpack: &BuildpackRef, subject: String, text: &str| {
        labels::json_of_toml(text).map_err(|cause| ExportError::Metadata {
            buildpack: buildpack.clone(),
            subject,
            cause,
        })
    };
    let made: Vec<&Layer> = made.collect();
    built
        .buildpacks
        .iter()
        .map(|buildpack| {
            let reference = &buildpack.reference;
            let mut records = BTreeMap::new();
            for (layer, made) in layers.iter().zip(&made) {
                if layer.buildpack != *reference {
                    continue;
                }
                let record = LayerRecord {
                    sha: made.diff_id.to_string(),
                    data: json(reference, format!("layer `{}`", layer.name), &layer.metadata)?,
                    build: layer.types.build,
                    launch: layer.types.launch,
                    cache: layer.types.cache,
                };
                records.insert(layer.name.to_string(), record);
            }
            let store = buildpack
                .store
                .as_deref()
                .map(|text| json(reference, "the store".to_owned(), text))
                .transpose()?
                .map(|metadata| StoreRecord { metadata });
            Ok(BuildpackLayers {
                key: reference.id.to_string(),
                version: reference.version.to_string(),
                layers: records,
                store,
            })
        })
        .collect()
}

pub(super) fn set_labels(
    request: &ExportRequest<'_>,
    start: Start<'_>,
    metadata: &LifecycleMetadata,
    image_labels: &mut BTreeMap<String, String>,
) -> Result<(), ExportError> {
    let built = request.built;
    let mut description = BuildMetadata {
        buildpacks: built
            .buildpacks
            .iter()
            .map(|buildpack| BuildpackRecord {
                id: buildpack.reference.id.to_string(),
                version: buildpack.reference.version.to_string(),
                homepage: buildpack.homepage.clone(),
                api: Some(buildpack.api.to_string()),
            })
            .collect(),
        processes: built
            .processes
            .iter()
            .map(|(buildpack, process)| ProcessRecord {
                process_type: process.process_type.to_string(),
                command: process.command.clone(),
                args: Some(process.args.clone().unwrap_or_default()),
                direct: process.direct,
                buildpack_id: buildpack.to_string(),
                working_directory: process.working_directory.clone(),
                exec_env: process.exec_envs.iter().map(ToString::to_string).collect(),
            })
            .collect(),
        default_process_type: built.processes.default_type().map(ToString::to_string),
        ..BuildMetadata::default()
    };
    if start == Start::Launcher {
        description.launcher.version.clone_from(&request.launcher.version);
        image_labels.remove(LAUNCHER_LABEL);
    } else {
        image_labels.insert(LAUNCHER_LABEL.to_owned(), "none".to_owned());
    }
    if request.run_image.is_scratch() {
        // There are no layers of a base that others could replace.
        image_labels.insert(labels::REBASABLE.to_owned(), "false".to_owned());
    }
    let set = LabelSet {
        lifecycle: json_text(metadata),
        build: json_text(&description),
        project: json_text(request.project),
        exec_env: Some(request.exec_env),
        buildpacks: &built.labels,
    };
    set.put_into(image_labels)?;
    for label in &built.own_labels {
        image_labels.insert(label.key.clone(), label.value.clone());
    }
    Ok(())
}

/// The labels of an image, as text.
pub(super) struct LabelSet<'a> {
    pub lifecycle: String,
    pub build: String,
    pub project: String,
    pub exec_env: Option<&'a ExecEnv>,
    /// Those of buildpacks; the last of a key wins (LCH-07).
    pub buildpacks: &'a [Label],
}

impl LabelSet<'_> {
    pub(super) fn put_into(self, image_labels: &mut BTreeMap<String, String>) -> Result<(), ExportError> {
        let mut set = |name: &str, value: String| image_labels.insert(name.to_owned(), value);
        set(labels::LIFECYCLE_METADATA, self.lifecycle);
        set(labels::BUILD_METADATA, self.build);
        set(labels::PROJECT_METADATA, self.project);
        if let Some(exec_env) = self.exec_env {
            set(labels::EXEC_ENV, exec_env.to_string());
        }
        for label in self.buildpacks {
            // LCH-08: a rebase and the next build take this one at its word.
            if label.key == labels::LIFECYCLE_METADATA {
                return Err(ExportError::ReservedLabel { key: label.key.clone() });
            }
            set(&label.key, label.value.clone());
        }
        Ok(())
    }
}

pub(super) fn json_text(value: &impl serde::Serialize) -> String {
    labels::escaped_for_html(&serde_json::to_string(value).expect("labels have string keys only"))
}
