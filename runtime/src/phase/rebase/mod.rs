//! Putting the layers of an app on another run image.
//!
//! Pure: from two images, as their configurations and lists of layers, to a third
//! or the reason why not. Nobody reads a layer (RBS-04); finding images and keeping
//! the new one is for whoever calls.

mod checks;
mod error;
mod text;

pub use self::error::{RebaseError, Refusal, TargetText};

use serde_json::Value;

use crate::cnb::api::PlatformApi;
use crate::cnb::labels::LIFECYCLE_METADATA;
use crate::cnb::run_toml::RunImageNames;
use crate::oci::image::{History, Image, Layer, timestamp};
use crate::oci::layer::MODIFIED_SECONDS;

/// Labels that come from the run image.
const STACK_PREFIX: &str = "io.buildpacks.stack.";
/// Labels that come from the run image, from Platform API 0.12 on.
const BASE_PREFIX: &str = "io.buildpacks.base.";
/// The first Platform API with targets and names of run images in labels.
const TARGETS_SINCE: u64 = 12;

/// What is to be rebased onto what.
#[derive(Debug, Clone, Copy)]
pub struct RebaseRequest<'a> {
    /// The image of an app, as it is now.
    pub app: &'a Image,
    pub run_image: NewRunImage<'a>,
    /// The Platform API of whoever asks; what the app image was made with is in it.
    pub api: PlatformApi,
    /// Go on where a [`Refusal`] says no.
    pub force: bool,
}

/// The run image to be put below.
#[derive(Debug, Clone, Copy)]
pub struct NewRunImage<'a> {
    pub image: &'a Image,
    /// The name it was asked for by; empty if it has none.
    pub name: &'a str,
    /// By digest, image id or path, as the label is to name it.
    pub reference: &'a str,
}

/// The new image.
#[derive(Debug, Clone, PartialEq)]
pub struct Rebased {
    pub image: Image,
    /// What the old label said of its run image: digest, image id or path.
    pub old_reference: String,
    /// How many layers below the app's were replaced.
    pub old_layers: usize,
    /// What was made sure of.
    pub checked: Vec<&'static str>,
    /// What force was needed for.
    pub overruled: Vec<Refusal>,
}

/// Puts the app's layers on the new run image.
///
/// # Errors
/// [`RebaseError`]
///
/// # Spec
/// `platform.md` 0.15 "Rebase"; RBS-03 to RBS-16. Two departures: the variant of the
/// architecture is taken over, and what the app's history says stays; the reference
/// lifecycle loses both.
pub fn rebase(request: &RebaseRequest<'_>) -> Result<Rebased, RebaseError> {
    let RebaseRequest { app, run_image, api, force } = *request;
    let (mut overruled, mut checked) = (Vec::new(), vec!["the layers of its old run image are known"]);
    let mut refuse = |refusal: Refusal| {
        if force {
            overruled.push(refusal);
            Ok(())
        } else {
            Err(RebaseError::Refused(refusal))
        }
    };
    let mut metadata = metadata(app)?;
    let top_layer = text(&metadata["runImage"], "topLayer");
    let old_layers = base_layers(app, &top_layer)?;
    checked.extend(checks::check(app, run_image.image, &mut refuse)?);

    let new_top = run_image.image.layers.last().ok_or(RebaseError::EmptyRunImage)?;
    let old_reference = text(&metadata["runImage"], "reference");
    if !api.at_least(TARGETS_SINCE) {
        // Names were in no label then.
    } else if is_recorded(&metadata, run_image.name) {
        checked.push("the run image is called as the one it was made for");
    } else {
        let recorded = names(&metadata["runImage"]).or_else(|| names(&metadata["stack"]["runImage"]));
        refuse(Refusal::Unrecorded {
            name: run_image.name.to_owned(),
            recorded: recorded
                .map(|names| std::iter::once(names.image).chain(names.mirrors).collect())
                .unwrap_or_default(),
        })?;
        record_name(&mut metadata, run_image.name)?;
    }
    let record = object(&mut metadata, "runImage")?;
    record.insert("topLayer".to_owned(), new_top.diff_id.to_string().into());
    record.insert("reference".to_owned(), run_image.reference.into());

    let mut image = put_together(app, old_layers, run_image.image);
    let labels = &mut image.configuration.config.labels;
    let is_of_base = |name: &str| {
        name.starts_with(STACK_PREFIX) || api.at_least(TARGETS_SINCE) && name.starts_with(BASE_PREFIX)
    };
    labels.retain(|name, _| !is_of_base(name));
    let new = run_image.image.configuration.config.labels.iter();
    labels
        .extend(new.filter(|(name, _)| is_of_base(name)).map(|(name, value)| (name.clone(), value.clone())));
    // What did not change keeps its text: order of keys and escapes are nobody's business to change.
    if let Some(label) = labels.get_mut(LIFECYCLE_METADATA) {
        *label = text::updated(label, &metadata);
    }
    Ok(Rebased { image, old_reference, old_layers, checked, overruled })
}

/// The names of the run image that the label of `app` has, if it has any.
///
/// # Errors
/// [`RebaseError::NoMetadata`], [`RebaseError::Label`]
///
/// # Spec
/// RBS-02
pub fn recorded_run_image(app: &Image, api: PlatformApi) -> Result<Option<RunImageNames>, RebaseError> {
    let metadata = metadata(app)?;
    let newer = names(&metadata["runImage"]).filter(|_| api.at_least(TARGETS_SINCE));
    Ok(newer.or_else(|| names(&metadata["stack"]["runImage"])))
}

/// The label with the layers, as it is: keys that we do not know have to survive (RBS-12).
fn metadata(app: &Image) -> Result<Value, RebaseError> {
    let label = app.configuration.config.labels.get(LIFECYCLE_METADATA).ok_or(RebaseError::NoMetadata)?;
    let value: Value = serde_json::from_str(label)
        .map_err(|source| RebaseError::Label { name: LIFECYCLE_METADATA, reason: source.to_string() })?;
    let is_object = |value: &Value| value.is_object() || value.is_null();
    if value.is_object() && is_object(&value["runImage"]) && is_object(&value["stack"]) {
        Ok(value)
    } else {
        Err(RebaseError::Label { name: LIFECYCLE_METADATA, reason: "it is not what it should be".to_owned() })
    }
}

/// A text of the label; empty if there is none.
fn text(record: &Value, key: &str) -> String {
    record[key].as_str().unwrap_or_default().to_owned()
}

/// Image and mirrors of a record; `None` when it has no image.
fn names(record: &Value) -> Option<RunImageNames> {
    let image = text(record, "image");
    let mirrors = record["mirrors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mirrors = mirrors.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    (!image.is_empty()).then_some(RunImageNames { image, mirrors })
}

/// Whether the label has the name of the new run image (RBS-09). An image without a
/// name is the one it was if that one had no name either.
fn is_recorded(metadata: &Value, name: &str) -> bool {
    let recorded: Vec<String> = [&metadata["runImage"], &metadata["stack"]["runImage"]]
        .into_iter()
        .filter_map(names)
        .flat_map(|names| std::iter::once(names.image).chain(names.mirrors))
        .collect();
    match name {
        "" => recorded.is_empty(),
        name => recorded.iter().any(|recorded| crate::oci::reference::same_image(recorded, name)),
    }
}

/// Replaces the names of the run image by one (RBS-10).
fn record_name(metadata: &mut Value, name: &str) -> Result<(), RebaseError> {
    let record = object(metadata, "runImage")?;
    record.insert("image".to_owned(), name.into());
    record.remove("mirrors");
    let record = serde_json::json!({ "image": name });
    object(metadata, "stack")?.insert("runImage".to_owned(), record);
    Ok(())
}

/// An object of the label, made if it is not there.
fn object<'a>(
    metadata: &'a mut Value,
    key: &str,
) -> Result<&'a mut serde_json::Map<String, Value>, RebaseError> {
    let value = &mut metadata[key];
    if value.is_null() {
        *value = Value::Object(serde_json::Map::new());
    }
    value.as_object_mut().ok_or_else(|| RebaseError::Label {
        name: LIFECYCLE_METADATA,
        reason: format!("`{key}` is no object"),
    })
}

/// How many layers of `app` are those of its run image (RBS-03).
fn base_layers(app: &Image, top_layer: &str) -> Result<usize, RebaseError> {
    if top_layer.is_empty() {
        return Err(RebaseError::NoTopLayer);
    }
    let position = app.layers.iter().position(|layer| layer.diff_id.0.as_str() == top_layer);
    position
        .map(|position| position + 1)
        .ok_or_else(|| RebaseError::TopLayerMissing { top_layer: top_layer.to_owned() })
}

/// The app's image with other layers below; its labels are still the old ones.
fn put_together(app: &Image, old_layers: usize, base: &Image) -> Image {
    let family = base.family;
    let mut configuration = app.configuration.clone();
    configuration.os.clone_from(&base.configuration.os);
    configuration.architecture.clone_from(&base.configuration.architecture);
    configuration.variant.clone_from(&base.configuration.variant);
    configuration.os_version.clone_from(&base.configuration.os_version);

    let layers: Vec<Layer> = base
        .layers
        .iter()
        .chain(&app.layers[old_layers..])
        .map(|layer| Layer { media_type: family.of_layer(&layer.media_type), ..layer.clone() })
        .collect();
    configuration.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();

    let created = timestamp(MODIFIED_SECONDS);
    let mut history = history_of(base);
    history.extend(history_of(app).split_off(old_layers));
    for entry in &mut history {
        entry.created = Some(created.clone());
    }
    configuration.history = history;
    configuration.created = Some(created);
    for gone in ["docker_version", "container"] {
        configuration.other.remove(gone);
    }
    Image { family, configuration, layers }
}

/// One entry for each layer; blank ones where the image does not say.
fn history_of(image: &Image) -> Vec<History> {
    let entries = image.configuration.history.iter();
    let entries: Vec<History> = entries.filter(|entry| !entry.empty_layer).cloned().collect();
    if entries.len() == image.layers.len() { entries } else { vec![History::default(); image.layers.len()] }
}

#[cfg(test)]
mod tests;
