//! Between the records of the WIT contract and the values of the executor.
//!
//! What a guest returns is checked here, once, so that everything behind it
//! may trust names, paths and TOML.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::bindings::buildpack::wapack::buildpack::types;
use super::cell::{Cell, over_limit};
use super::filesystem::LimitReached;
use crate::cnb::build_plan::{PlanContribution, Requirement};
use crate::cnb::id::{BuildpackRef, InvalidName, LayerName, ProcessType};
use crate::cnb::launch::{Label, Process, Slice};
use crate::cnb::layer::{EnvironmentChange, EnvironmentOperation, EnvironmentScope, LayerTypes};
use crate::cnb::sbom::{Sbom, SbomFormat};
use crate::executor::{
    AppLink, BuildInputs, BuildOutputs, CallInputs, DetectOutputs, GuestDirectories, GuestFailure,
    LayerContents, LayerOutput, ReturnedFault, StoreOutput,
};
use crate::limits::LimitKind;

/// Labels that describe how the image was made; a buildpack may not change them.
const RESERVED_LABEL: &str = "io.buildpacks.lifecycle.metadata";
/// Bytes of one label, and of one environment value.
const MAX_LABEL_BYTES: usize = 64 * 1024;
const MAX_VARIABLE_BYTES: usize = 32 * 1024;

pub(super) fn detect_context(call: &CallInputs) -> types::DetectContext {
    types::DetectContext {
        target: target(call),
        exec_env: call.exec_env.to_string(),
        directories: directories(call, ""),
        user_env: user_env(call),
        metadata: call.metadata.clone(),
    }
}

pub(super) fn build_context(inputs: &BuildInputs) -> types::BuildContext {
    let call = &inputs.call;
    types::BuildContext {
        target: target(call),
        exec_env: call.exec_env.to_string(),
        directories: directories(call, &inputs.layers_directory),
        user_env: user_env(call),
        metadata: call.metadata.clone(),
        plan: inputs
            .plan
            .iter()
            .map(|entry| types::PlanEntry { name: entry.name.clone(), metadata: entry.metadata.clone() })
            .collect(),
        restored_layers: inputs
            .restored
            .iter()
            .map(|layer| types::RestoredLayer {
                name: layer.name.to_string(),
                types: layer_flags(layer.types),
                cache_key: layer.cache_key.clone(),
                metadata: layer.metadata.clone(),
            })
            .collect(),
        store: inputs.store.clone(),
    }
}

fn target(call: &CallInputs) -> types::Target {
    types::Target {
        os: call.target.os.clone(),
        arch: call.target.arch.clone(),
        variant: call.target.variant.clone(),
        distro: call
            .target
            .distro
            .as_ref()
            .map(|distro| types::Distro { name: distro.name.clone(), version: distro.version.clone() }),
    }
}

fn directories(call: &CallInputs, layers: &str) -> types::Directories {
    let GuestDirectories { app, buildpack, platform } = guest_directories(call);
    types::Directories { app, buildpack, platform, layers: layers.to_owned() }
}

fn guest_directories(call: &CallInputs) -> GuestDirectories {
    call.component().map(|component| component.directories.clone()).unwrap_or_default()
}

fn user_env(call: &CallInputs) -> Vec<types::Variable> {
    let variable =
        |(name, value): (&String, &String)| types::Variable { name: name.clone(), value: value.clone() };
    call.user_env.iter().map(variable).collect()
}

pub(super) fn layer_types(flags: types::LayerTypes) -> LayerTypes {
    LayerTypes {
        launch: flags.contains(types::LayerTypes::LAUNCH),
        build: flags.contains(types::LayerTypes::BUILD),
        cache: flags.contains(types::LayerTypes::CACHE),
    }
}

fn layer_flags(layer: LayerTypes) -> types::LayerTypes {
    let mut flags = types::LayerTypes::empty();
    if layer.launch {
        flags |= types::LayerTypes::LAUNCH;
    }
    if layer.build {
        flags |= types::LayerTypes::BUILD;
    }
    if layer.cache {
        flags |= types::LayerTypes::CACHE;
    }
    flags
}

/// A failure the guest returned. Where it ran into a limit on the way, that is the reason.
pub(super) fn failure(
    buildpack: &BuildpackRef,
    failure: types::Failure,
    reached: Option<LimitReached>,
) -> GuestFailure {
    if let Some(reached) = reached {
        return over_limit(buildpack, reached);
    }
    GuestFailure::Returned {
        buildpack: buildpack.clone(),
        fault: match failure.fault {
            types::Fault::App => ReturnedFault::App,
            types::Fault::Buildpack => ReturnedFault::Buildpack,
            types::Fault::Environment => ReturnedFault::Environment,
        },
        message: failure.message,
        hint: failure.hint,
    }
}

/// Collects what is wrong with a result as one error per buildpack.
struct Checker<'a> {
    buildpack: &'a BuildpackRef,
}

impl Checker<'_> {
    fn bad(&self, message: impl Into<String>) -> GuestFailure {
        GuestFailure::BadOutput { buildpack: self.buildpack.clone(), message: message.into() }
    }

    fn name<T: FromStr<Err = InvalidName>>(&self, value: &str) -> Result<T, GuestFailure> {
        value.parse().map_err(|error: InvalidName| self.bad(error.to_string()))
    }

    fn toml(&self, what: &str, text: &str) -> Result<(), GuestFailure> {
        match text.parse::<toml::Table>() {
            Ok(_) => Ok(()),
            Err(error) => Err(self.bad(format!("the metadata of {what} is not TOML: {}", error.message()))),
        }
    }

    fn plain(&self, what: &str, text: &str) -> Result<(), GuestFailure> {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(
                self.bad(format!("{what} `{}` is empty or has control characters", text.escape_default()))
            );
        }
        Ok(())
    }

    /// A path that stays below the directory it is relative to.
    fn relative_path(&self, what: &str, path: &str, may_be_empty: bool) -> Result<String, GuestFailure> {
        let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        let escapes = path.starts_with('/') || names.contains(&"..") || path.chars().any(char::is_control);
        if escapes || names.is_empty() && !may_be_empty {
            return Err(
                self.bad(format!("{what} `{}` is not a path below its directory", path.escape_default()))
            );
        }
        Ok(names.join("/"))
    }

    fn size(&self, call: &CallInputs, bytes: usize) -> Result<(), GuestFailure> {
        let (allowed, reached) = (call.limits.limits.result_bytes, bytes as u64);
        if reached > allowed {
            return Err(over_limit(
                self.buildpack,
                LimitReached { limit: LimitKind::Result, allowed, reached },
            ));
        }
        Ok(())
    }
}

pub(super) fn detect_outputs(
    call: &CallInputs,
    outcome: types::DetectOutcome,
) -> Result<DetectOutputs, GuestFailure> {
    let check = Checker { buildpack: &call.buildpack };
    let alternatives = match outcome {
        types::DetectOutcome::Fail(reason) => {
            check.size(call, reason.len())?;
            return Ok(DetectOutputs::Fail { reason });
        }
        types::DetectOutcome::Pass(alternatives) => alternatives,
    };
    let mut bytes = 0;
    let mut contributions = Vec::with_capacity(alternatives.len().max(1));
    for alternative in alternatives {
        for name in &alternative.provides {
            check.plain("the name of a plan entry", name)?;
            bytes += name.len();
        }
        for requirement in &alternative.requires {
            check.plain("the name of a plan entry", &requirement.name)?;
            check.toml(&format!("plan entry `{}`", requirement.name), &requirement.metadata)?;
            bytes += requirement.name.len() + requirement.metadata.len();
        }
        check.size(call, bytes)?;
        contributions.push(PlanContribution {
            provides: alternative.provides,
            requires: alternative
                .requires
                .into_iter()
                .map(|requirement| Requirement { name: requirement.name, metadata: requirement.metadata })
                .collect(),
        });
    }
    if contributions.is_empty() {
        contributions.push(PlanContribution::default());
    }
    Ok(DetectOutputs::Pass(contributions))
}

pub(super) fn build_outputs(
    inputs: &BuildInputs,
    outcome: types::BuildOutcome,
    cell: &Cell,
) -> Result<BuildOutputs, GuestFailure> {
    let call = &inputs.call;
    let check = Checker { buildpack: &call.buildpack };
    check.size(call, result_bytes(&outcome))?;
    let mut layers = Vec::with_capacity(outcome.layers.len());
    let mut names = BTreeSet::new();
    for layer in outcome.layers {
        let layer = layer_output(&check, call, layer, cell)?;
        if !names.insert(layer.name.clone()) {
            return Err(check.bad(format!("layer `{}` is returned twice", layer.name)));
        }
        layers.push(layer);
    }
    layers.sort_by(|left, right| left.name.cmp(&right.name));
    let app_links = outcome
        .app_links
        .into_iter()
        .map(|link| app_link(&check, &link, &names))
        .collect::<Result<Vec<_>, _>>()?;
    for name in &outcome.unmet {
        if !inputs.plan.iter().any(|entry| entry.name == *name) {
            return Err(check.bad(format!("`{}` is unmet but was not in the plan", name.escape_default())));
        }
    }
    if let Some(store) = &outcome.store {
        check.toml("`store`", store)?;
    }
    Ok(BuildOutputs {
        layers,
        processes: processes(&check, outcome.processes)?,
        slices: outcome.slices.into_iter().map(|slice| Slice { paths: slice.paths }).collect(),
        labels: labels(&check, outcome.labels)?,
        app_links,
        unmet: outcome.unmet,
        store: outcome.store.map_or(StoreOutput::Unchanged, StoreOutput::Replaced),
        launch_sboms: sboms(&check, call, outcome.launch_sboms)?,
        build_sboms: sboms(&check, call, outcome.build_sboms)?,
        launch_bom: Vec::new(),
        build_bom: Vec::new(),
        app_hidden: cell.files.hidden(&guest_directories(call).app),
    })
}

fn result_bytes(outcome: &types::BuildOutcome) -> usize {
    let layers = outcome.layers.iter().map(|layer| {
        let changes = layer.environment.iter().map(|change| change.name.len() + change.value.len());
        layer.name.len() + layer.metadata.len() + changes.sum::<usize>()
    });
    let processes = outcome.processes.iter().map(|process| {
        let words = process.command.iter().chain(&process.args).map(String::len);
        process.process_type.len() + words.sum::<usize>()
    });
    let labels = outcome.labels.iter().map(|label| label.key.len() + label.value.len());
    let slices = outcome.slices.iter().flat_map(|slice| &slice.paths).map(String::len);
    let links = outcome.app_links.iter().map(|link| link.path.len() + link.target.len());
    let store = outcome.store.as_ref().map_or(0, String::len);
    layers.chain(processes).chain(labels).chain(slices).chain(links).sum::<usize>() + store
}

fn layer_output(
    check: &Checker<'_>,
    call: &CallInputs,
    layer: types::Layer,
    cell: &Cell,
) -> Result<LayerOutput, GuestFailure> {
    let name: LayerName = check.name(&layer.name)?;
    let Some(opened) = cell.layers.get(&name) else {
        return Err(check.bad(format!("layer `{name}` was never opened")));
    };
    check.toml(&format!("layer `{name}`"), &layer.metadata)?;
    let mut environment = layer
        .environment
        .into_iter()
        .map(|change| environment_change(check, &name, change))
        .collect::<Result<Vec<_>, _>>()?;
    environment.sort();
    let contents = match &opened.contents {
        LayerContents::Updated { .. } => {
            LayerContents::Updated { hidden: cell.files.hidden(&cell.layers.path(&name)) }
        }
        contents => contents.clone(),
    };
    Ok(LayerOutput {
        types: opened.types,
        cache_key: opened.cache_key.clone(),
        contents,
        metadata: layer.metadata,
        environment,
        sboms: sboms(check, call, layer.sboms)?,
        name,
    })
}

fn environment_change(
    check: &Checker<'_>,
    layer: &LayerName,
    change: types::EnvironmentChange,
) -> Result<EnvironmentChange, GuestFailure> {
    // The name is a file name up to its first dot.
    let valid = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if change.name.is_empty() || change.name.len() > 200 || !change.name.chars().all(valid) {
        return Err(check.bad(format!(
            "layer `{layer}` sets a variable named `{}`, which is not letters, digits and `_`",
            change.name.escape_default()
        )));
    }
    if change.value.contains('\0')
        || change.delimiter.contains('\0')
        || change.value.len() > MAX_VARIABLE_BYTES
    {
        return Err(
            check.bad(format!("the value of `{}` in layer `{layer}` has a NUL or is too long", change.name))
        );
    }
    Ok(EnvironmentChange {
        scope: match change.scope {
            types::EnvironmentScope::All => EnvironmentScope::All,
            types::EnvironmentScope::Build => EnvironmentScope::Build,
            types::EnvironmentScope::Launch => EnvironmentScope::Launch,
            types::EnvironmentScope::Process(process) => {
                EnvironmentScope::Process(process_type(check, &process)?)
            }
        },
        operation: match change.operation {
            types::EnvironmentOperation::Append => EnvironmentOperation::Append,
            types::EnvironmentOperation::Default => EnvironmentOperation::Default,
            types::EnvironmentOperation::Override => EnvironmentOperation::Override,
            types::EnvironmentOperation::Prepend => EnvironmentOperation::Prepend,
        },
        name: change.name,
        value: change.value.into(),
        delimiter: change.delimiter.into(),
    })
}

fn process_type(check: &Checker<'_>, name: &str) -> Result<ProcessType, GuestFailure> {
    ProcessType::plain(name).map_err(|error| check.bad(error.to_string()))
}

fn processes(check: &Checker<'_>, processes: Vec<types::Process>) -> Result<Vec<Process>, GuestFailure> {
    let mut checked = Vec::<Process>::with_capacity(processes.len());
    for process in processes {
        let process_type = process_type(check, &process.process_type)?;
        if process.command.first().is_none_or(String::is_empty) {
            return Err(check.bad(format!("process `{process_type}` has no command")));
        }
        if process.command.iter().chain(&process.args).any(|word| word.contains('\0')) {
            return Err(check.bad(format!("process `{process_type}` has a NUL in its command")));
        }
        if checked.iter().any(|other| other.process_type == process_type) {
            return Err(check.bad(format!("process `{process_type}` is defined twice")));
        }
        if process.default && checked.iter().any(|other| other.default) {
            return Err(check.bad("more than one process is the default"));
        }
        let exec_envs =
            process.exec_envs.iter().map(|name| check.name(name)).collect::<Result<Vec<_>, _>>()?;
        if let Some(directory) = &process.working_directory {
            check.plain("the working directory", directory)?;
        }
        checked.push(Process {
            process_type,
            command: process.command,
            args: Some(process.args),
            direct: true,
            default: process.default,
            working_directory: process.working_directory,
            exec_envs,
        });
    }
    Ok(checked)
}

fn labels(check: &Checker<'_>, labels: Vec<types::Label>) -> Result<Vec<Label>, GuestFailure> {
    labels
        .into_iter()
        .map(|label| {
            check.plain("the key of a label", &label.key)?;
            if label.key == RESERVED_LABEL {
                return Err(check.bad(format!("the label `{RESERVED_LABEL}` is not a buildpack's to set")));
            }
            if label.value.len() > MAX_LABEL_BYTES {
                return Err(check.bad(format!("the label `{}` is longer than 64 KiB", label.key)));
            }
            Ok(Label { key: label.key, value: label.value })
        })
        .collect()
}

fn app_link(
    check: &Checker<'_>,
    link: &types::AppLink,
    layers: &BTreeSet<LayerName>,
) -> Result<AppLink, GuestFailure> {
    let layer: LayerName = check.name(&link.layer)?;
    if !layers.contains(&layer) {
        return Err(check.bad(format!(
            "the app link `{}` points into layer `{layer}`, which is not returned",
            link.path.escape_default()
        )));
    }
    Ok(AppLink {
        path: check.relative_path("the app link", &link.path, false)?,
        target: check.relative_path("the target of an app link", &link.target, true)?,
        layer,
    })
}

fn sboms(check: &Checker<'_>, call: &CallInputs, sboms: Vec<types::Sbom>) -> Result<Vec<Sbom>, GuestFailure> {
    let mut formats = BTreeSet::new();
    sboms
        .into_iter()
        .map(|sbom| {
            let format = match sbom.format {
                types::SbomFormat::Cyclonedx => SbomFormat::CycloneDx,
                types::SbomFormat::Spdx => SbomFormat::Spdx,
                types::SbomFormat::Syft => SbomFormat::Syft,
            };
            if !formats.insert(format) {
                return Err(check.bad(format!("there are two SBOMs of the format `{}`", format.extension())));
            }
            let (allowed, reached) = (call.limits.limits.sbom_bytes, sbom.content.len() as u64);
            if reached > allowed {
                return Err(over_limit(
                    check.buildpack,
                    LimitReached { limit: LimitKind::Result, allowed, reached },
                ));
            }
            Ok(Sbom { format, content: sbom.content.into_bytes() })
        })
        .collect()
}
