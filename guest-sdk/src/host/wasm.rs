//! The real host: our types to and from those generated from `wit/`.

use std::marker::PhantomData;
use std::path::Path;

use crate::Buildpack;
use crate::built::{Built, Process, Sbom, SbomFormat};
use crate::context::{BuildContext, DetectContext, Distro, PlanEntry, Target};
use crate::detected::{Detected, PlanContribution};
use crate::downloads::Artifact;
use crate::error::{Error, Fault};
use crate::files::{Summary, Unpack};
use crate::layer::{EnvironmentChange, Layer, LayerState, LayerTypes, Operation, RestoredLayer, Scope};

use bindings::wapack::buildpack::{downloads, files, layers, types};

/// What `wit-bindgen` makes of `wit/`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "buildpack",
        pub_export_macro: true,
        export_macro_name: "export_world",
    });
}

/// Lends a [`Buildpack`] the exports of the world.
#[derive(Debug)]
pub struct Adapter<B>(PhantomData<B>);

impl<B: Buildpack> bindings::Guest for Adapter<B> {
    fn detect(context: types::DetectContext) -> Result<types::DetectOutcome, types::Failure> {
        let context = detect_context(
            context.target,
            context.exec_env,
            context.directories,
            context.user_env,
            context.metadata,
        );
        B::detect(&context).map(Into::into).map_err(Into::into)
    }

    fn build(context: types::BuildContext) -> Result<types::BuildOutcome, types::Failure> {
        let context = BuildContext {
            layers: context.directories.layers.clone().into(),
            plan: context
                .plan
                .into_iter()
                .map(|entry| PlanEntry { name: entry.name, metadata: entry.metadata })
                .collect(),
            restored_layers: context.restored_layers.into_iter().map(Into::into).collect(),
            detect: detect_context(
                context.target,
                context.exec_env,
                context.directories,
                context.user_env,
                context.metadata,
            ),
            store: context.store,
            host: Host,
        };
        B::build(&context).map(Into::into).map_err(Into::into)
    }
}

/// The host of this build. There is one, so there is nothing to hold.
#[derive(Debug)]
pub(crate) struct Host;

#[expect(clippy::unused_self, reason = "the native host has something to hold")]
impl Host {
    pub(crate) fn open_layer(&self, name: &str, types: LayerTypes, key: &str) -> Result<LayerState, Error> {
        Ok(match layers::open(name, types.into(), key)? {
            layers::LayerState::Restored => LayerState::Restored,
            layers::LayerState::Kept => LayerState::Kept,
            layers::LayerState::Empty => LayerState::Filled,
        })
    }

    pub(crate) fn update_layer(&self, name: &str) -> Result<(), Error> {
        Ok(layers::update(name)?)
    }

    pub(crate) fn fetch(&self, artifacts: &[Artifact]) -> Result<(), Error> {
        let artifacts = artifacts
            .iter()
            .map(|artifact| {
                Ok(downloads::Artifact {
                    source: artifact.source.clone(),
                    path: artifact.path.clone(),
                    integrity: artifact.integrity.clone(),
                    destination: text(&artifact.destination)?.to_owned(),
                    unpack: artifact.unpack.as_ref().map(Into::into),
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(downloads::fetch(&artifacts)?)
    }
}

pub(crate) fn set_executable(path: &Path, executable: bool) -> Result<(), Error> {
    Ok(files::set_executable(text(path)?, executable)?)
}

pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<Summary, Error> {
    Ok(files::copy_tree(text(from)?, text(to)?)?.into())
}

pub(crate) fn hash_tree(path: &Path) -> Result<String, Error> {
    Ok(files::hash_tree(text(path)?)?)
}

pub(crate) fn unpack(archive: &Path, destination: &Path, how: &Unpack) -> Result<Summary, Error> {
    Ok(files::unpack(text(archive)?, text(destination)?, &how.into())?.into())
}

/// Paths cross as text; WASI has no others.
fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::buildpack(format!("the path is not UTF-8: {}", path.display())))
}

fn detect_context(
    target: types::Target,
    exec_env: String,
    directories: types::Directories,
    user_env: Vec<types::Variable>,
    metadata: String,
) -> DetectContext {
    DetectContext {
        app: directories.app.into(),
        buildpack: directories.buildpack.into(),
        platform: directories.platform.into(),
        target: Target {
            os: target.os,
            arch: target.arch,
            variant: target.variant,
            distro: target.distro.map(|distro| Distro { name: distro.name, version: distro.version }),
        },
        exec_env,
        user_env: user_env.into_iter().map(|variable| (variable.name, variable.value)).collect(),
        metadata,
    }
}

impl From<types::HostError> for Error {
    fn from(error: types::HostError) -> Self {
        Self::host(&error.id, &error.message, error.hint)
    }
}

impl From<Error> for types::Failure {
    fn from(error: Error) -> Self {
        let fault = match error.fault {
            Fault::App => types::Fault::App,
            Fault::Buildpack => types::Fault::Buildpack,
            Fault::Environment => types::Fault::Environment,
        };
        Self { fault, message: error.message, hint: error.hint }
    }
}

impl From<&Unpack> for files::UnpackOptions {
    fn from(how: &Unpack) -> Self {
        Self {
            strip_components: how.strip_components,
            skip_links: how.skip_links,
            rename: how.rename.clone(),
        }
    }
}

impl From<files::Summary> for Summary {
    fn from(summary: files::Summary) -> Self {
        Self { entries: summary.entries, bytes: summary.bytes }
    }
}

impl From<Detected> for types::DetectOutcome {
    fn from(detected: Detected) -> Self {
        match detected.reason() {
            Some(reason) => Self::Fail(reason.to_owned()),
            None => Self::Pass(detected.alternatives().iter().cloned().map(Into::into).collect()),
        }
    }
}

impl From<PlanContribution> for types::PlanContribution {
    fn from(plan: PlanContribution) -> Self {
        let requires = plan
            .requires
            .into_iter()
            .map(|requirement| types::Requirement { name: requirement.name, metadata: requirement.metadata })
            .collect();
        Self { provides: plan.provides, requires }
    }
}

impl From<LayerTypes> for types::LayerTypes {
    fn from(types: LayerTypes) -> Self {
        let mut flags = Self::empty();
        flags.set(Self::LAUNCH, types.launch);
        flags.set(Self::BUILD, types.build);
        flags.set(Self::CACHE, types.cache);
        flags
    }
}

impl From<types::RestoredLayer> for RestoredLayer {
    fn from(layer: types::RestoredLayer) -> Self {
        use types::LayerTypes as Flags;
        Self {
            name: layer.name,
            types: LayerTypes {
                launch: layer.types.contains(Flags::LAUNCH),
                build: layer.types.contains(Flags::BUILD),
                cache: layer.types.contains(Flags::CACHE),
            },
            cache_key: layer.cache_key,
            metadata: layer.metadata,
        }
    }
}

impl From<EnvironmentChange> for types::EnvironmentChange {
    fn from(change: EnvironmentChange) -> Self {
        let (operation, delimiter) = match change.operation {
            Operation::Append(delimiter) => (types::EnvironmentOperation::Append, delimiter),
            Operation::Default => (types::EnvironmentOperation::Default, ""),
            Operation::Override => (types::EnvironmentOperation::Override, ""),
            Operation::Prepend(delimiter) => (types::EnvironmentOperation::Prepend, delimiter),
        };
        let scope = match change.scope {
            Scope::All => types::EnvironmentScope::All,
            Scope::Build => types::EnvironmentScope::Build,
            Scope::Launch => types::EnvironmentScope::Launch,
            Scope::Process(process) => types::EnvironmentScope::Process(process),
        };
        Self { name: change.name, scope, operation, value: change.value, delimiter: delimiter.to_owned() }
    }
}

impl From<Sbom> for types::Sbom {
    fn from(sbom: Sbom) -> Self {
        let format = match sbom.format {
            SbomFormat::CycloneDx => types::SbomFormat::Cyclonedx,
            SbomFormat::Spdx => types::SbomFormat::Spdx,
            SbomFormat::Syft => types::SbomFormat::Syft,
        };
        Self { format, content: sbom.content }
    }
}

impl From<Layer> for types::Layer {
    fn from(layer: Layer) -> Self {
        Self {
            name: layer.name().to_owned(),
            metadata: layer.metadata,
            environment: layer.environment.into_iter().map(Into::into).collect(),
            sboms: layer.sboms.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Process> for types::Process {
    fn from(process: Process) -> Self {
        Self {
            process_type: process.process_type,
            command: process.command,
            args: process.args,
            default: process.default,
            working_directory: process.working_directory,
            exec_envs: process.exec_envs,
        }
    }
}

impl From<Built> for types::BuildOutcome {
    fn from(built: Built) -> Self {
        Self {
            layers: built.layers.into_iter().map(Into::into).collect(),
            processes: built.processes.into_iter().map(Into::into).collect(),
            slices: built.slices.into_iter().map(|paths| types::Slice { paths }).collect(),
            labels: built.labels.into_iter().map(|(key, value)| types::Label { key, value }).collect(),
            app_links: built
                .app_links
                .into_iter()
                .map(|link| types::AppLink { path: link.path, layer: link.layer, target: link.target })
                .collect(),
            unmet: built.unmet,
            store: built.store,
            launch_sboms: built.launch_sboms.into_iter().map(Into::into).collect(),
            build_sboms: built.build_sboms.into_iter().map(Into::into).collect(),
        }
    }
}
