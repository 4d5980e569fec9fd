//! `bin/build`: what it is given, and the files it leaves as records.

use std::path::Path;

use super::layers::{self, LayersError, Rules};
use super::private::PrivateFile;
use super::run::{describe, run};
use super::{cause, layers::LayersDirectory};
use crate::cancel::Cancel;
use crate::cnb::api::ApiVersion;
use crate::cnb::build_plan::Requirement;
use crate::cnb::build_toml::BuildToml;
use crate::cnb::buildpack_plan;
use crate::cnb::launch_toml::LaunchToml;
use crate::cnb::store_toml;
use crate::executor::{
    BuildInputs, BuildOutputs, Executables, GuestFailure, LogSink, ReturnedFault, StoreOutput,
};
use crate::toml_text::{self, TomlError, TomlFileError, read_with};

/// Runs `bin/build` and reads everything it left.
///
/// # Spec
/// `buildpack.md` 0.12 "Build"; BLD-01 to BLD-03, BLD-07, API-15.
pub(super) fn build(
    inputs: &BuildInputs,
    executables: &Executables,
    cancel: &Cancel,
    log: &mut dyn LogSink,
) -> Result<BuildOutputs, GuestFailure> {
    let buildpack = &inputs.call.buildpack;
    let api = executables.api;
    let entry = |entry: &crate::executor::PlanEntry| Requirement {
        name: entry.name.clone(),
        metadata: entry.metadata.clone(),
    };
    let given: Vec<Requirement> = inputs.plan.iter().map(entry).collect();
    let plan = PrivateFile::create(&executables.scratch, "plan.toml", &buildpack_plan::to_toml(&given, api))
        .map_err(|error| GuestFailure::WorkerUnavailable {
            buildpack: buildpack.clone(),
            message: format!("its plan file cannot be made: {error}"),
        })?;
    let mut environment = inputs.call.environment.clone();
    if api >= ApiVersion::zero(8) {
        environment.insert("CNB_BP_PLAN_PATH".to_owned(), plan.path().into());
    }
    let directory = inputs.layers_work_directory.as_path();
    let arguments = [directory.as_os_str(), executables.platform.as_os_str(), plan.path().as_os_str()];
    let mut show = |line: String| log.line(buildpack, &line);
    let status = run(&inputs.call, executables, "build", &arguments, &environment, cancel, &mut show)?;
    if !status.success() {
        return Err(GuestFailure::Returned {
            buildpack: buildpack.clone(),
            fault: ReturnedFault::Buildpack,
            message: format!("`bin/build` {}", describe(status)),
            hint: None,
        });
    }
    let rules = Rules {
        api,
        sbom_formats: &executables.sbom_formats,
        sbom_bytes: inputs.call.limits.limits.sbom_bytes,
    };
    let (outputs, warnings) = read(directory, rules, &given, plan.path()).map_err(|error| {
        GuestFailure::BadOutput { buildpack: buildpack.clone(), message: error.to_string() }
    })?;
    for warning in warnings {
        show(format!("warning: {warning}"));
    }
    Ok(outputs)
}

/// The files of a buildpack's layers directory, and what it left of its plan.
fn read(
    directory: &Path,
    rules: Rules<'_>,
    given: &[Requirement],
    plan: &Path,
) -> Result<(BuildOutputs, Vec<String>), LayersError> {
    let api = rules.api;
    // In the order of BLD-07.
    let LayersDirectory { mut layers, mut warnings } = layers::read(directory, rules)?;
    let build = if api < ApiVersion::zero(5) {
        BuildToml::default()
    } else {
        optional(directory, "build.toml", BuildToml::parse)?.unwrap_or_default()
    };
    let sboms = layers::read_sboms(directory, rules, &mut layers)?;
    let store = match optional(directory, "store.toml", store_toml::parse)? {
        Some(metadata) => StoreOutput::Replaced(metadata),
        None => StoreOutput::Cleared,
    };
    let mut launch =
        optional(directory, "launch.toml", |text| LaunchToml::parse(text, api))?.unwrap_or_default();
    warnings.append(&mut launch.warnings);
    let (unmet, build_bom, launch_bom) = if api < ApiVersion::zero(5) {
        let answer = toml_text::read_with(plan, buildpack_plan::parse_answer)
            .map_err(|error| LayersError::Toml { file: "plan.toml".to_owned(), problem: cause(&error) })?;
        let is_left = |given: &&Requirement| !answer.iter().any(|entry| entry.name == given.name);
        (given.iter().filter(is_left).map(|entry| entry.name.clone()).collect(), Vec::new(), answer)
    } else {
        (build.unmet, build.bom, launch.bom)
    };
    // API-20: not a word to those who are on their way.
    if api >= ApiVersion::zero(7) && !sboms.any && !(build_bom.is_empty() && launch_bom.is_empty()) {
        warnings.push("`bom` tables are deprecated; bills of materials are files of their own".to_owned());
    }
    let outputs = BuildOutputs {
        layers,
        processes: launch.processes,
        slices: launch.slices,
        labels: launch.labels,
        unmet,
        store,
        launch_sboms: sboms.launch,
        build_sboms: sboms.build,
        launch_bom,
        build_bom,
        ..BuildOutputs::default()
    };
    Ok((outputs, warnings))
}

/// Reads a file that need not be there.
fn optional<T>(
    directory: &Path,
    name: &str,
    parse: impl FnOnce(&str) -> Result<T, TomlError>,
) -> Result<Option<T>, LayersError> {
    match read_with(&directory.join(name), parse) {
        Err(TomlFileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some).map_err(|error| layers::toml_error(name, &error)),
    }
}
