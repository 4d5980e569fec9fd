//! From settings to what each program is told.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use wapack_runtime::cnb::api::PlatformApi;
use wapack_runtime::cnb::id::ExecEnv;
use wapack_runtime::oci::reference::Reference;
use wapack_runtime::programs::extender::ExtendKind;
use wapack_runtime::programs::{analyzer, builder, creator, detector, exporter, extender, rebaser, restorer};

use super::platform::{self, Mode};
use super::program::Program;
use super::settings::{Settings, Surroundings};
use super::speech::{Level, Speech};
use super::usage::UsageError;

/// A program that can start.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) inputs: Inputs,
    pub(crate) images: ImagePlace,
    /// Registries that may be spoken to without TLS (CLI-09). Where one has TLS, its certificate
    /// is verified all the same, unlike with the reference.
    pub(crate) insecure: Vec<String>,
    /// As whom it works, when it is told.
    pub(crate) user: Option<(u32, u32)>,
    /// Directories that have to be that user's.
    pub(crate) volumes: Vec<PathBuf>,
    pub(crate) warnings: Vec<String>,
}

/// What a program is told.
#[derive(Debug, Clone)]
pub(crate) enum Inputs {
    Analyzer(analyzer::Inputs),
    Detector(detector::Inputs),
    Restorer(restorer::Inputs),
    Extender(extender::Inputs),
    Builder(builder::Inputs),
    Exporter(exporter::Inputs),
    Creator(Box<creator::Inputs>),
    Rebaser(rebaser::Inputs),
}

impl Inputs {
    pub(super) fn program(&self) -> Program {
        match self {
            Self::Analyzer(_) => Program::Analyzer,
            Self::Detector(_) => Program::Detector,
            Self::Restorer(_) => Program::Restorer,
            Self::Extender(_) => Program::Extender,
            Self::Builder(_) => Program::Builder,
            Self::Exporter(_) => Program::Exporter,
            Self::Creator(_) => Program::Creator,
            Self::Rebaser(_) => Program::Rebaser,
        }
    }

    /// Where the buildpacks are, when it runs any.
    pub(super) fn buildpacks(&self) -> Option<&Path> {
        match self {
            Self::Detector(inputs) => Some(&inputs.buildpacks),
            Self::Builder(inputs) => Some(&inputs.buildpacks),
            Self::Creator(inputs) => Some(&inputs.builder.buildpacks),
            Self::Analyzer(_)
            | Self::Restorer(_)
            | Self::Extender(_)
            | Self::Exporter(_)
            | Self::Rebaser(_) => None,
        }
    }

    /// Where what was compiled outlives the program: the containers of a platform end with
    /// it, but not its volumes.
    pub(super) fn keeping(&self) -> Keeping<'_> {
        match self {
            Self::Detector(inputs) => Keeping::ThisBuild(&inputs.layers),
            Self::Builder(inputs) => Keeping::ThisBuild(&inputs.layers),
            Self::Creator(inputs) => {
                inputs.exporter.cache_dir.as_deref().map_or(Keeping::Nothing, Keeping::EveryBuild)
            }
            Self::Analyzer(_)
            | Self::Restorer(_)
            | Self::Extender(_)
            | Self::Exporter(_)
            | Self::Rebaser(_) => Keeping::Nothing,
        }
    }

    /// The image that is the cache.
    pub(super) fn cache_image(&self) -> Option<&str> {
        match self {
            Self::Analyzer(inputs) => inputs.cache_image.as_deref(),
            Self::Restorer(inputs) => inputs.cache_image.as_deref(),
            Self::Exporter(inputs) => inputs.cache_image.as_deref(),
            Self::Creator(inputs) => inputs.exporter.cache_image.as_deref(),
            Self::Detector(_) | Self::Extender(_) | Self::Builder(_) | Self::Rebaser(_) => None,
        }
    }

    /// Whether it reads or writes images.
    pub(super) fn needs_images(&self) -> bool {
        !matches!(self, Self::Detector(_) | Self::Extender(_) | Self::Builder(_))
    }
}

/// A volume of the platform, for what components were compiled to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping<'a> {
    /// The cache directory.
    EveryBuild(&'a Path),
    /// The layers directory: what the detector compiled, the builder need not.
    ThisBuild(&'a Path),
    Nothing,
}

/// Where a program's images are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImagePlace {
    Daemon,
    /// Layouts below a directory.
    Layout(PathBuf),
    Registry,
}

/// How much a program says; settled before anything else is looked at.
pub(super) fn speech(settings: &Settings) -> Result<Speech, UsageError> {
    let level = settings.text("log-level")?.unwrap_or_default();
    let level = Level::named(&level).ok_or(UsageError::LogLevel { level })?;
    Ok(Speech { level, color: !settings.is_on("no-color") })
}

/// Checks the arguments, and puts every value where it belongs.
pub(super) fn resolve(settings: &Settings, surroundings: &Surroundings) -> Result<Task, UsageError> {
    refuse_late_flags(&settings.arguments)?;
    let mut warnings = Vec::new();
    let names = names(settings)?;
    let stack = surroundings.variable("CNB_STACK_ID");
    let epoch = surroundings.variable("SOURCE_DATE_EPOCH");
    let compression = surroundings.variable("WAPACK_COMPRESSION");
    let reader = Reader {
        settings,
        names: &names,
        own: surroundings.user,
        exec_env: exec_env(surroundings)?,
        scratch: surroundings.scratch(),
        stack: stack.map(|stack| stack.to_string_lossy().into_owned()),
        source_date_epoch: epoch.map(|epoch| epoch.to_string_lossy().into_owned()),
        compression: compression.map(|compression| compression.to_string_lossy().into_owned()),
    };
    let inputs = reader.inputs()?;
    check_names(settings, &names)?;
    let images = images(settings, &inputs, surroundings, &mut warnings)?;
    warnings.extend(remarks(settings, &images));
    let insecure = if inputs.needs_images() { settings.texts("insecure-registry")? } else { vec![] };
    let user = reader.user()?;
    Ok(Task { inputs, images, insecure, user, volumes: volumes(settings), warnings })
}

/// The names of the image, in the order they are given.
fn names(settings: &Settings) -> Result<Vec<String>, UsageError> {
    let got = settings.arguments.len();
    let expected = match settings.program {
        Program::Analyzer | Program::Creator => (1..=1, "1"),
        Program::Exporter | Program::Rebaser => (1..=usize::MAX, "at least 1"),
        Program::Detector | Program::Restorer | Program::Extender | Program::Builder => (0..=0, "none"),
    };
    if !expected.0.contains(&got) {
        return Err(UsageError::Arguments { got, expected: expected.1 });
    }
    let given = settings
        .arguments
        .iter()
        .map(|name| name.to_str().map(str::to_owned).ok_or(UsageError::NotText { name: "image" }));
    let mut names = given.collect::<Result<Vec<_>, _>>()?;
    if matches!(settings.program, Program::Analyzer | Program::Creator) {
        names.extend(settings.texts("tag")?);
    }
    let mut unique: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    Ok(unique)
}

/// Every name has to be one, and all that are written are in one registry (ANA-01).
fn check_names(settings: &Settings, names: &[String]) -> Result<(), UsageError> {
    let mut registry: Option<String> = None;
    for name in names {
        let reference: Reference = name.parse()?;
        match &registry {
            Some(first) if first != reference.registry() && !settings.is_on("daemon") => {
                let other = reference.registry().to_owned();
                return Err(UsageError::Registries { first: first.clone(), other });
            }
            _ => registry = Some(reference.registry().to_owned()),
        }
    }
    for flag in ["previous-image", "build-image", "run-image", "image", "cache-image"] {
        if let Some(name) = settings.text(flag)?
            && !(settings.program == Program::Exporter && flag == "run-image")
        {
            name.parse::<Reference>()?;
        }
    }
    Ok(())
}

/// Where images are, as far as the program has any.
fn images(
    settings: &Settings,
    inputs: &Inputs,
    surroundings: &Surroundings,
    warnings: &mut Vec<String>,
) -> Result<ImagePlace, UsageError> {
    let has_layouts = inputs.needs_images() && !matches!(inputs, Inputs::Rebaser(_));
    let layout = has_layouts && settings.is_on("layout");
    if layout {
        match platform::experimental(surroundings) {
            Mode::Error => return Err(UsageError::Experimental),
            Mode::Warn => warnings
                .push("Platform requested experimental feature 'export to OCI layout format'".to_owned()),
            Mode::Quiet => {}
        }
    }
    if settings.is_on("daemon") {
        return Ok(ImagePlace::Daemon);
    }
    if layout {
        let directory = settings.path("layout-dir").ok_or(UsageError::NoLayoutDirectory)?;
        return Ok(ImagePlace::Layout(directory));
    }
    Ok(ImagePlace::Registry)
}

/// `CNB_EXEC_ENV`. Buildpacks of API 0.12 are told whatever the Platform API is, as by the
/// reference lifecycle; all else looks at it from Platform API 0.15 on.
fn exec_env(surroundings: &Surroundings) -> Result<ExecEnv, UsageError> {
    match surroundings.variable("CNB_EXEC_ENV") {
        Some(value) => {
            let value = value.to_string_lossy();
            value.parse().map_err(|_| UsageError::ExecEnv { value: value.into_owned() })
        }
        None => Ok(ExecEnv::default()),
    }
}

/// Refuses words behind the first argument that look like flags: they are not read as flags,
/// and no image has such a name (I8).
fn refuse_late_flags(arguments: &[OsString]) -> Result<(), UsageError> {
    match arguments.iter().find(|word| word.as_encoded_bytes().starts_with(b"-")) {
        Some(word) => Err(UsageError::LateFlag { word: word.to_string_lossy().escape_debug().to_string() }),
        None => Ok(()),
    }
}

/// What a platform might not have meant.
fn remarks(settings: &Settings, images: &ImagePlace) -> Vec<String> {
    let program = settings.program;
    let mut remarks = Vec::new();
    let has_cache = settings.has("cache-dir") || settings.has("cache-image");
    if matches!(program, Program::Restorer | Program::Exporter | Program::Creator) && !has_cache {
        remarks.push("No cached data will be used, no cache specified.".to_owned());
    }
    let exports = matches!(program, Program::Analyzer | Program::Exporter | Program::Creator);
    if exports && *images != ImagePlace::Daemon && settings.has("launch-cache") {
        remarks.push("Ignoring -launch-cache, only intended for use with -daemon".to_owned());
    }
    if matches!(program, Program::Exporter | Program::Creator) && settings.is_on("parallel") && !has_cache {
        remarks.push(
            "Parallel export has been enabled, but it has not taken effect because no cache has been specified."
                .to_owned(),
        );
    }
    remarks
}

/// The directories that belong to the user the program works as (CLI-11).
fn volumes(settings: &Settings) -> Vec<PathBuf> {
    let names: &[&str] = match settings.program {
        Program::Analyzer | Program::Restorer | Program::Creator => &["layers", "cache-dir", "launch-cache"],
        Program::Exporter => &["cache-dir", "launch-cache"],
        Program::Detector | Program::Extender | Program::Builder | Program::Rebaser => &[],
    };
    names.iter().filter_map(|name| settings.path(name)).collect()
}

/// Everything that inputs are made of.
struct Reader<'a> {
    settings: &'a Settings,
    names: &'a [String],
    /// The ids of this process.
    own: (u32, u32),
    exec_env: ExecEnv,
    /// `CNB_STACK_ID`, of the build image.
    stack: Option<String>,
    /// `SOURCE_DATE_EPOCH` as it is set.
    source_date_epoch: Option<String>,
    /// `WAPACK_COMPRESSION` as it is set.
    compression: Option<String>,
    /// For what is only needed while a program runs.
    scratch: PathBuf,
}

impl Reader<'_> {
    fn inputs(&self) -> Result<Inputs, UsageError> {
        Ok(match self.settings.program {
            Program::Analyzer => Inputs::Analyzer(self.analyzer("skip-layers")?),
            Program::Detector => Inputs::Detector(self.detector()?),
            Program::Restorer => Inputs::Restorer(self.restorer("skip-layers")?),
            Program::Extender => Inputs::Extender(self.extender()?),
            Program::Builder => Inputs::Builder(self.builder()?),
            Program::Exporter => Inputs::Exporter(self.exporter()?),
            Program::Creator => Inputs::Creator(Box::new(creator::Inputs {
                analyzer: self.analyzer("skip-restore")?,
                detector: self.detector()?,
                restorer: self.restorer("skip-restore")?,
                builder: self.builder()?,
                exporter: self.exporter()?,
            })),
            Program::Rebaser => Inputs::Rebaser(self.rebaser()?),
        })
    }

    fn api(&self) -> PlatformApi {
        self.settings.api
    }

    fn path(&self, name: &'static str) -> Result<PathBuf, UsageError> {
        self.settings.needed_path(name)
    }

    /// `run.toml`, or what was there before it.
    fn run(&self) -> Result<PathBuf, UsageError> {
        self.path(if self.api().at_least(12) { "run" } else { "stack" })
    }

    /// As whom the program works, and whose its layers are; one id alone leaves the other 0.
    fn user(&self) -> Result<Option<(u32, u32)>, UsageError> {
        match (self.settings.id("uid")?, self.settings.id("gid")?) {
            (None, None) => Ok(None),
            (user, group) => Ok(Some((user.unwrap_or_default(), group.unwrap_or_default()))),
        }
    }

    fn analyzer(&self, skip: &str) -> Result<analyzer::Inputs, UsageError> {
        let (image, tags) = self.names.split_first().ok_or(UsageError::Empty { name: "image" })?;
        Ok(analyzer::Inputs {
            api: self.api(),
            image: image.clone(),
            tags: tags.to_vec(),
            previous_image: self.settings.text("previous-image")?,
            run_image: self.settings.text("run-image")?,
            stack: self.stack.clone(),
            run: self.run()?,
            layers: self.path("layers")?,
            analyzed: self.path("analyzed")?,
            cache_image: self.settings.text("cache-image")?,
            skip_layers: self.settings.is_on(skip),
            // Volumes are given away before, as a whole, and all that follows is written as their owner.
            owner: None,
        })
    }

    fn detector(&self) -> Result<detector::Inputs, UsageError> {
        Ok(detector::Inputs {
            api: self.api(),
            exec_env: self.exec_env.clone(),
            app: self.path("app")?,
            analyzed: self.path("analyzed")?,
            build_config: self.path("build-config")?,
            buildpacks: self.path("buildpacks")?,
            extensions: self.path("extensions")?,
            generated: self.path("generated")?,
            group: self.path("group")?,
            layers: self.path("layers")?,
            order: self.settings.path("order"),
            plan: self.path("plan")?,
            platform: self.path("platform")?,
            run: self.run()?,
            system: self.path("system")?,
        })
    }

    fn restorer(&self, skip: &str) -> Result<restorer::Inputs, UsageError> {
        Ok(restorer::Inputs {
            api: self.api(),
            exec_env: self.exec_env.clone(),
            analyzed: self.path("analyzed")?,
            build_image: self.settings.text("build-image")?,
            cache_dir: self.settings.path("cache-dir"),
            cache_image: self.settings.text("cache-image")?,
            generated: self.path("generated")?,
            group: self.path("group")?,
            layers: self.path("layers")?,
            run: self.run()?,
            skip_layers: self.settings.is_on(skip),
            owner: None,
        })
    }

    fn extender(&self) -> Result<extender::Inputs, UsageError> {
        let kind = match self.settings.text("kind")?.unwrap_or_default().as_str() {
            "build" => ExtendKind::Build,
            "run" => ExtendKind::Run,
            other => return Err(UsageError::ExtendKind { kind: other.escape_debug().to_string() }),
        };
        Ok(extender::Inputs {
            api: self.api(),
            exec_env: self.exec_env.clone(),
            kind,
            analyzed: self.path("analyzed")?,
            app: self.path("app")?,
            build_config: self.path("build-config")?,
            buildpacks: self.path("buildpacks")?,
            extended: self.path("extended")?,
            generated: self.path("generated")?,
            group: self.path("group")?,
            layers: self.path("layers")?,
            plan: self.path("plan")?,
            platform: self.path("platform")?,
            owner: self.user()?,
        })
    }

    fn builder(&self) -> Result<builder::Inputs, UsageError> {
        Ok(builder::Inputs {
            api: self.api(),
            exec_env: self.exec_env.clone(),
            analyzed: self.path("analyzed")?,
            app: self.path("app")?,
            build_config: self.path("build-config")?,
            buildpacks: self.path("buildpacks")?,
            group: self.path("group")?,
            layers: self.path("layers")?,
            plan: self.path("plan")?,
            platform: self.path("platform")?,
        })
    }

    fn exporter(&self) -> Result<exporter::Inputs, UsageError> {
        if self.settings.program == Program::Exporter {
            // Whatever the value is: the analyzer has chosen (QRK-29).
            for name in ["run-image", "image"] {
                if self.settings.is_given(name) {
                    return Err(UsageError::Unsupported { name });
                }
            }
        }
        Ok(exporter::Inputs {
            api: self.api(),
            exec_env: self.exec_env.clone(),
            images: self.names.to_vec(),
            analyzed: self.path("analyzed")?,
            app: self.path("app")?,
            cache_dir: self.settings.path("cache-dir"),
            cache_image: self.settings.text("cache-image")?,
            extended: self.path("extended")?,
            group: self.path("group")?,
            launcher: self.path("launcher")?,
            launcher_sbom: self.path("launcher-sbom")?,
            layers: self.path("layers")?,
            parallel: self.settings.is_on("parallel"),
            process_type: self.settings.text("process-type")?,
            project_metadata: self.path("project-metadata")?,
            report: self.path("report")?,
            run: self.run()?,
            owner: self.user()?.unwrap_or(self.own),
            source_date_epoch: self.source_date_epoch.clone(),
            compression: self.compression.clone(),
            scratch: self.scratch.clone(),
        })
    }

    fn rebaser(&self) -> Result<rebaser::Inputs, UsageError> {
        let deprecated = self.settings.text("image")?;
        if deprecated.is_some() && self.settings.is_given("run-image") {
            return Err(UsageError::BothRunImages);
        }
        Ok(rebaser::Inputs {
            api: self.api(),
            images: self.names.to_vec(),
            previous_image: self.settings.text("previous-image")?,
            run_image: match deprecated {
                None => self.settings.text("run-image")?,
                deprecated => deprecated,
            },
            force: self.settings.is_on("force"),
            report: self.path("report")?,
        })
    }
}
