//! How the image starts: by the launcher, or directly where nothing needs one.

use super::contents::{LAUNCHER_PATH, layer_directory};
use super::{APP_DIRECTORY, Base, ExportError, ExportRequest, LAYERS_DIRECTORY, LauncherMode, PLATFORM_API};
use crate::cnb::env::{Environment, LayerEnvironment, apply_launch};
use crate::cnb::id::ProcessType;
use crate::cnb::launch::Process;
use crate::cnb::layer::LayerFeatures;
use crate::oci::image::RunConfiguration;
use crate::phase::values::{Built, BuiltLayer};

/// How the image starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start<'a> {
    /// The launcher picks and starts a process.
    Launcher,
    /// The container runtime starts this process.
    Direct(&'a Process),
}

/// Decides whether the image gets a launcher.
pub(super) fn choose<'a>(
    request: &ExportRequest<'a>,
    layers: &[(&'a BuiltLayer, LayerFeatures)],
) -> Result<Start<'a>, ExportError> {
    let built = request.built;
    let wanted = wanted_process(request)?;
    match request.launcher_mode {
        LauncherMode::Always => Ok(Start::Launcher),
        LauncherMode::Auto => {
            let other_processes = built.processes.len() > 1;
            match (direct_process(built, wanted, layers), request.run_image.is_scratch()) {
                (Ok(process), true) if !other_processes => Ok(Start::Direct(process)),
                _ => Ok(Start::Launcher),
            }
        }
        LauncherMode::Never => direct_process(built, wanted, layers)
            .map(Start::Direct)
            .map_err(|reasons| ExportError::NeedsLauncher { reasons }),
    }
}

/// The process asked for, or the default one (IMG-05).
fn wanted_process<'a>(request: &ExportRequest<'a>) -> Result<Option<&'a ProcessType>, ExportError> {
    let processes = &request.built.processes;
    match request.process_type {
        Some(wanted) if processes.get(wanted).is_none() => Err(ExportError::UnknownProcess {
            wanted: wanted.to_string(),
            known: processes.iter().map(|(_, process)| process.process_type.to_string()).collect(),
        }),
        Some(wanted) => Ok(Some(wanted)),
        None => Ok(processes.default_type()),
    }
}

/// The process that needs no launcher, or everything that does need one.
fn direct_process<'a>(
    built: &'a Built,
    wanted: Option<&ProcessType>,
    layers: &[(&BuiltLayer, LayerFeatures)],
) -> Result<&'a Process, Vec<String>> {
    let mut reasons = Vec::new();
    let only = || (built.processes.len() == 1).then(|| built.processes.iter().next()).flatten();
    let process = match wanted {
        Some(wanted) => built.processes.get(wanted),
        None => only().map(|(_, process)| process),
    };
    match process {
        None if built.processes.is_empty() => reasons.push("there is no process to start".to_owned()),
        None => reasons.push("there are several processes and no default".to_owned()),
        Some(process) => {
            if !process.direct {
                reasons.push(format!("process `{}` is started by a shell", process.process_type));
            }
            if !process.exec_envs.iter().all(|exec_env| exec_env.as_str() == "*") {
                reasons.push(format!(
                    "process `{}` is for some execution environments only",
                    process.process_type
                ));
            }
        }
    }
    for (layer, features) in layers {
        let (buildpack, name) = (&layer.buildpack, &layer.name);
        if features.has_exec_d {
            reasons.push(format!("layer `{name}` of buildpack `{buildpack}` has programs in `exec.d`"));
        }
        if features.has_profile_d {
            reasons.push(format!("layer `{name}` of buildpack `{buildpack}` has scripts in `profile.d`"));
        }
        if layer.environment.iter().any(|change| change.value.to_str().is_none()) {
            reasons
                .push(format!("layer `{name}` of buildpack `{buildpack}` has a variable that is not text"));
        }
    }
    match process {
        Some(process) if reasons.is_empty() => Ok(process),
        _ => Err(reasons),
    }
}

/// Sets what starts the image and with which environment.
pub(super) fn configure(
    start: Start<'_>,
    request: &ExportRequest<'_>,
    layers: &[(&BuiltLayer, LayerFeatures)],
    run: &mut RunConfiguration,
) -> Result<(), ExportError> {
    run.cmd.clear();
    match start {
        Start::Launcher => {
            let wanted = wanted_process(request)?.map(ProcessType::as_str);
            configure_launcher(run, LAYERS_DIRECTORY, APP_DIRECTORY, PLATFORM_API, wanted);
        }
        Start::Direct(process) => {
            for (name, value) in direct_environment(run, request.built, process, layers) {
                // Where there is anything else, the launcher is not left out.
                let Some(value) = value.to_str() else { continue };
                if run.variable(&name) != Some(value) {
                    run.set_variable(&name, value);
                }
            }
            if !request.run_image.is_scratch() {
                // RBS-05: decides which rules a rebase goes by.
                run.set_variable("CNB_PLATFORM_API", PLATFORM_API);
            }
            run.working_dir = Some(match &process.working_directory {
                None => APP_DIRECTORY.to_owned(),
                Some(directory) => inside_app(directory),
            });
            run.entrypoint.clone_from(&process.command);
            // LAU-23: looked up from the app, wherever the process then works.
            if let Some(program) = run.entrypoint.first_mut()
                && program.contains('/')
            {
                *program = inside_app(program);
            }
            run.cmd = process.args.clone().unwrap_or_default();
        }
    }
    Ok(())
}

/// Sets what an image with a launcher starts with.
///
/// # Spec
/// IMG-01 to IMG-05.
pub(super) fn configure_launcher(
    run: &mut RunConfiguration,
    layers: &str,
    app: &str,
    platform_api: &str,
    process_type: Option<&str>,
) {
    run.cmd.clear();
    // In this order, where the base has none of them.
    run.set_variable("CNB_LAYERS_DIR", layers);
    run.set_variable("CNB_APP_DIR", app);
    run.set_variable("CNB_PLATFORM_API", platform_api);
    run.set_variable("CNB_DEPRECATION_MODE", "quiet");
    let path = match run.variable("PATH") {
        Some(path) if !path.is_empty() => format!("/cnb/process:/cnb/lifecycle:{path}"),
        _ => "/cnb/process:/cnb/lifecycle".to_owned(),
    };
    run.set_variable("PATH", &path);
    run.working_dir = Some(app.to_owned());
    run.entrypoint = vec![match process_type {
        Some(process_type) => format!("/cnb/process/{process_type}"),
        None => LAUNCHER_PATH.to_owned(),
    }];
}

/// A path as a process means it: relative ones start at the app.
pub(super) fn inside_app(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{APP_DIRECTORY}/{path}") }
}

/// The processors that the image is for, in the words of image-spec.
pub(super) fn architecture<'a>(request: &ExportRequest<'a>) -> &'a str {
    match &request.run_image.base {
        Base::Scratch(target) => &target.arch,
        Base::Image(base) => &base.image.configuration.architecture,
    }
}

/// What the launcher would make of the environment (LAU-12).
pub(super) fn direct_environment(
    run: &RunConfiguration,
    built: &Built,
    process: &Process,
    layers: &[(&BuiltLayer, LayerFeatures)],
) -> Environment {
    let mut environment: Environment = run
        .env
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    for buildpack in &built.buildpacks {
        let layers: Vec<LayerEnvironment<'_>> = layers
            .iter()
            .filter(|(layer, _)| layer.buildpack == buildpack.reference)
            .map(|(layer, features)| LayerEnvironment {
                directory: layer_directory(&layer.buildpack.id, &layer.name),
                roots: features.roots,
                changes: &layer.environment,
            })
            .collect();
        apply_launch(&mut environment, &layers, Some(&process.process_type));
    }
    environment
}
