//! Everything a command can fail with.

use std::path::PathBuf;

use wapack_runtime::catalog::CatalogError;
use wapack_runtime::error::Error;
use wapack_runtime::executor::GuestFailure;
use wapack_runtime::fault::{Diagnose, Fault};
use wapack_runtime::images::ImagesError;
use wapack_runtime::inspection::InspectionError;
use wapack_runtime::network::BadAddress;
use wapack_runtime::oci::layout::LayoutError;
use wapack_runtime::phase::rebase::RebaseError;
use wapack_runtime::policy::PolicyError;
use wapack_runtime::store::StoreError;

use crate::discovery::InvalidRegistryAuth;
use crate::project::ProjectError;

/// How the place of an image is written.
const PLACES: &str = "an image is `oci:DIR[:REF]`, `oci-archive:FILE[:REF]`, `docker-archive:FILE[:NAME]`, \
                      `docker:NAME` for a container engine, or `NAME` for a registry";

/// How targets are written.
const TARGETS: &str = "targets are `linux/amd64` and `linux/arm64`, with a comma between them";

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Detecting or building, by phase.
    #[error(transparent)]
    Run(#[from] Error),
    /// What was asked for makes no sense.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Builder or buildpacks.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A layout that is read, or refused before anything is written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// An image that is looked into.
    #[error(transparent)]
    Inspection(#[from] InspectionError),
    /// A place with images, or one of them.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// A rule of rebasing.
    #[error(transparent)]
    Rebase(#[from] RebaseError),
    /// What was rebased is not where it should be.
    #[error("cannot write the rebased image")]
    Rebased(#[source] ImagesError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A component that is looked at.
    #[error(transparent)]
    Guest(#[from] GuestFailure),
    /// One of several targets; nothing becomes of the others then.
    #[error("{task} for `{target}`, and nothing is published for the other targets")]
    OneOfSeveral {
        /// What could not be done.
        task: &'static str,
        target: String,
        #[source]
        cause: Box<Failure>,
    },
    /// What is built into this program.
    #[error("cannot unpack the built-in builder")]
    Builtin(#[source] std::io::Error),
}

impl From<ProjectError> for Failure {
    fn from(error: ProjectError) -> Self {
        Self::Input(error.into())
    }
}

impl Failure {
    /// What it is about, by the type that knows.
    fn inner(&self) -> Option<&dyn Diagnose> {
        match self {
            Self::Run(error) => Some(error),
            Self::Input(error) => Some(error),
            Self::Catalog(error) => Some(error),
            Self::Policy(error) => Some(error),
            Self::Inspection(error) => Some(error),
            Self::Layout(error) => Some(error),
            Self::Rebased(error) | Self::Images(error) => Some(error),
            Self::Rebase(error) => Some(error),
            Self::Store(error) => Some(error),
            Self::Guest(error) => Some(error),
            Self::OneOfSeveral { cause, .. } => Some(&**cause),
            Self::Builtin(_) => None,
        }
    }

    /// The same for one of several targets.
    pub(crate) fn of_target(self, task: &'static str, target: String) -> Self {
        if self.is_cancelled() { self } else { Self::OneOfSeveral { task, target, cause: Box::new(self) } }
    }

    /// Whether somebody asked to stop.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.id() == "build.cancelled"
    }
}

impl Diagnose for Failure {
    fn id(&self) -> &'static str {
        self.inner().map_or("host.io", Diagnose::id)
    }

    fn fault(&self) -> Fault {
        self.inner().map_or(Fault::Environment, Diagnose::fault)
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Policy(PolicyError::File(wapack_runtime::toml_text::TomlFileError::Io { .. })) => {
                Some("name a policy file that is there, or leave out `--policy`; `wapack config path` lists the others".to_owned())
            }
            Self::Store(StoreError::Io { .. }) => Some("name another place with `--cache-dir`".to_owned()),
            Self::OneOfSeveral { target, cause, .. } if matches!(**cause, Self::Run(Error::Detect(_))) => {
                Some(format!("leave `{target}` out of `--target`, or name buildpacks that build for it"))
            }
            _ => self.inner().and_then(Diagnose::hint),
        }
    }
}

/// An argument, or a path an argument names, that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("there is no place for the cache: neither `HOME` nor `XDG_CACHE_HOME` is set")]
    NoHome,
    #[error("`{name}` cannot name an image: {rule}")]
    ImageName { name: String, rule: &'static str },
    #[error("`{name}` is a place, not the name of an image")]
    ImagePlace { name: String },
    #[error("cannot write an image to `{value}`")]
    Output { value: String },
    #[error("the output `{place}:{reference}` names an image")]
    OutputReference { place: String, reference: String },
    #[error("the image would be written over its own run image `{place}`")]
    OutputIsInput { place: String },
    #[error("a name in `{place}` has one image, for one system")]
    OneTarget { place: String },
    #[error("`{}` is not a directory", path.display())]
    OutputNotADirectory { path: PathBuf },
    #[error("`{value}` is not an image to build upon")]
    RunImage { value: String },
    #[error("`{value}` is not a place for a cache image")]
    CacheImage { value: String },
    #[error("the cache image `{value}` would take the place of the image itself")]
    CacheImageIsImage { value: String },
    #[error("the cache image `{value}` would take the place of an image that the build starts from")]
    CacheImageIsInput { value: String },
    #[error("`{value}` is not an image to take layers from")]
    PreviousImage { value: String },
    #[error("cannot use the run image `{value}`")]
    RunImageUnreadable { value: String, source: Box<Failure> },
    #[error("nothing says what the image is called in `{place}`")]
    Unnamed { place: String },
    #[error("`{place}` holds other images, which would be lost")]
    OthersInArchive { place: String, names: Vec<String> },
    #[error("`{place}` stands for images for several systems, of which one would be left")]
    OthersInIndex { place: String },
    #[error("`{place}` lists something that is no image for a system of its own: `{system}`")]
    NotEachSystem { place: String, system: String },
    #[error("the image is for `{found}`, not for `{wanted}`")]
    ImageTarget { found: String, wanted: String },
    #[error("the label of the image names no run image")]
    NoRunImage,
    #[error("none of the image's run images can be read: `{}`", names.join("`, `"))]
    NoMirror { names: Vec<String> },
    #[error("`{value}` is not the place of an image")]
    NotAnImage { value: String },
    #[error("there is no image `{value}`")]
    NoImage { value: String, names: Vec<String> },
    #[error("cannot use the image `{value}`")]
    BuiltHere {
        value: String,
        place: String,
        #[source]
        cause: Box<Failure>,
    },
    #[error("`{value}` says no name of an image")]
    NameMissing { value: String },
    #[error("`DOCKER_HOST` is `{value}`, which is neither `unix://<path>` nor `tcp://<host>:<port>`")]
    EngineAddress { value: String },
    #[error("the container engine wants TLS, which is not spoken by this version")]
    EngineTls,
    #[error("the run image `{value}` is for `{found}`, not for `{wanted}`")]
    RunImageTarget { value: String, found: String, wanted: String },
    #[error("`{value}` is not a target")]
    Target { value: String },
    #[error("no image can be built for `{value}`")]
    TargetUnsupported { value: String },
    #[error("there is an empty target in `{value}`")]
    TargetEmpty { value: String },
    #[error("`{value}` is not a system")]
    System { value: String },
    #[error("the target `{value}` is there twice")]
    TargetTwice { value: String },
    #[error("there is no launcher for `{target}`")]
    NoLauncher { target: String },
    #[error("`{value}` is not a user")]
    User { value: String },
    #[error("`{name}` cannot name a variable: {rule}")]
    Variable { name: String, rule: &'static str },
    #[error("the variable `{name}` is not set here")]
    UnsetVariable { name: String },
    #[error("the value of the variable `{name}` is not UTF-8")]
    VariableNotUtf8 { name: String },
    #[error("there is no builder `{}`", path.display())]
    Builder { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not a builder", path.display())]
    NotABuilder { path: PathBuf },
    #[error("there is no buildpack `{value}`")]
    Buildpack { value: String, known: Vec<String> },
    #[error("`{}` is a file, not a buildpack's directory", path.display())]
    BuildpackFile { path: PathBuf },
    #[error("there are several versions of buildpack `{id}`")]
    BuildpackVersions { id: String, versions: Vec<String> },
    #[error("the buildpack `{value}` is not on this machine")]
    BuildpackRemote { value: String },
    #[error("`from=builder` is there twice")]
    OrderTwice,
    #[error(transparent)]
    Project(#[from] ProjectError),
    #[error("`{}` is not a file of variables: line {line}: {rule}", path.display())]
    VariableFile { path: PathBuf, line: usize, rule: &'static str },
    #[error("cannot read the variables in `{}`", path.display())]
    VariableFileUnreadable { path: PathBuf, source: std::io::Error },
    #[error("`{place}` is no file that can be read twice")]
    NotAFile { place: String },
    #[error("there is no file `{value}`, and it is not the name of an image: {rule}")]
    Nowhere { value: String, rule: &'static str },
    #[error("`{value}` is nothing that can be inspected")]
    Inspect { value: String },
    #[error("cannot read `{}`", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("cannot write `{}`", path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },
    #[error("`{value}` does not say where a source is: {rule}")]
    SourceFlag { value: String, rule: String },
    #[error("the variable `{variable}` does not say where the source `{name}` is")]
    SourceVariable { variable: String, name: String, source: BadAddress },
    #[error("{set_by}: nothing signs in to the source `{name}`")]
    SourceSecret { name: String, set_by: String, source: SecretError },
    #[error("there is no cache `{}`", path.display())]
    NoCache { path: PathBuf },
    #[error("nothing is kept for the image `{image}`")]
    NothingKept { image: String },
    #[error("cannot use the variable `CNB_REGISTRY_AUTH`")]
    RegistryAuth(#[source] InvalidRegistryAuth),
}

impl InputError {
    /// What would help with a target.
    fn target_hint(&self) -> String {
        match self {
            Self::RunImageTarget { wanted, .. } => {
                format!("name a run image that is for `{wanted}`, or leave `{wanted}` out of `--target`")
            }
            Self::OneTarget { .. } => {
                "write them to `oci:DIR`, `oci-archive:FILE` or a registry, or name one target".to_owned()
            }
            Self::Target { value } => meant_target(value).to_owned(),
            _ => TARGETS.to_owned(),
        }
    }
}

/// How the target is written that somebody seems to have meant.
fn meant_target(value: &str) -> &'static str {
    if value.contains(char::is_whitespace) {
        return "put commas between targets, and nothing else";
    }
    match value.to_ascii_lowercase().trim_start_matches("linux/") {
        "amd64" | "x86_64" | "x86-64" | "x64" => "write `linux/amd64`",
        "arm64" | "aarch64" => "write `linux/arm64`",
        _ => TARGETS,
    }
}

/// Why a secret is not where it should be. Never what was found instead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("the variable `{name}` is not set")]
    Unset { name: String },
    #[error("cannot use `{}`", path.display())]
    File { path: PathBuf, source: std::io::Error },
}

impl Diagnose for InputError {
    fn id(&self) -> &'static str {
        match self {
            Self::NoHome => "input.no_home",
            Self::ImageName { .. } | Self::ImagePlace { .. } => "input.image_name",
            Self::Output { .. }
            | Self::OutputReference { .. }
            | Self::OutputIsInput { .. }
            | Self::OutputNotADirectory { .. }
            | Self::OthersInArchive { .. }
            | Self::OthersInIndex { .. } => "input.output",
            Self::RunImage { .. }
            | Self::RunImageUnreadable { .. }
            | Self::NoRunImage
            | Self::NoMirror { .. } => "input.run_image",
            Self::Unnamed { .. } => "input.layout",
            Self::PreviousImage { .. } => "input.previous_image",
            Self::CacheImage { .. } | Self::CacheImageIsImage { .. } | Self::CacheImageIsInput { .. } => {
                "input.cache_image"
            }
            Self::NotAnImage { .. }
            | Self::NameMissing { .. }
            | Self::NotEachSystem { .. }
            | Self::NotAFile { .. } => "input.image",
            Self::NoImage { .. } => "input.no_image",
            Self::BuiltHere { cause, .. } => cause.id(),
            Self::EngineAddress { .. } | Self::EngineTls => "input.engine",
            Self::RunImageTarget { .. }
            | Self::ImageTarget { .. }
            | Self::Target { .. }
            | Self::TargetUnsupported { .. }
            | Self::TargetEmpty { .. }
            | Self::System { .. }
            | Self::TargetTwice { .. }
            | Self::OneTarget { .. }
            | Self::NoLauncher { .. } => "input.target",
            Self::User { .. } => "input.user",
            Self::Variable { .. }
            | Self::UnsetVariable { .. }
            | Self::VariableNotUtf8 { .. }
            | Self::VariableFile { .. }
            | Self::VariableFileUnreadable { .. } => "input.variable",
            Self::Project(error) => error.id(),
            Self::Builder { .. } | Self::NotABuilder { .. } => "input.builder",
            Self::Buildpack { .. }
            | Self::BuildpackFile { .. }
            | Self::BuildpackVersions { .. }
            | Self::BuildpackRemote { .. }
            | Self::OrderTwice => "input.buildpack",
            Self::Inspect { .. }
            | Self::Nowhere { .. }
            | Self::Unreadable { .. }
            | Self::Unwritable { .. } => "input.inspect",
            Self::SourceFlag { .. } | Self::SourceVariable { .. } => "input.source",
            Self::SourceSecret { .. } => "input.source_secret",
            Self::RegistryAuth(_) => "input.registry_auth",
            Self::NoCache { .. } | Self::NothingKept { .. } => "input.cache",
        }
    }

    fn fault(&self) -> Fault {
        Fault::Caller
    }

    fn hint(&self) -> Option<String> {
        let hint = self.hint_of_system_or_cache().map(str::to_owned).or_else(|| self.hint_of_source());
        if hint.is_some() {
            return hint;
        }
        let quoted = |names: &[String]| format!("`{}`", names.join("`, `"));
        let hint = match self {
            Self::NoHome => "name a directory with `--cache-dir`",
            Self::ImageName { .. } => "a name is written `my/app` or `my/app:1.0`",
            Self::ImagePlace { name } => {
                return Some(format!("name the place with `--output {name}`, and the image as `my/app`"));
            }
            Self::Output { .. } => {
                "write it to an OCI layout, a directory: `--output oci:DIR`; or to `oci-archive:FILE`, \
                 `docker-archive:FILE`, `docker`, or `registry`"
            }
            Self::OutputReference { place, .. } => {
                return Some(format!("the image is called by its NAME; write `--output {place}`"));
            }
            Self::OutputIsInput { .. } => "give it another name, or name another place with `--output`",
            Self::TargetTwice { .. } | Self::OrderTwice => "name it once",
            Self::OutputNotADirectory { .. } => "name a new directory, or one that holds an OCI layout",
            Self::RunImage { .. } => "it is `scratch`, or an image such as `--run-image oci:DIR[:REF]`",
            Self::RunImageUnreadable { source, .. } => return source.hint(),
            Self::PreviousImage { .. } | Self::NotAnImage { .. } | Self::NameMissing { .. } => PLACES,
            Self::NoImage { names, .. } if !names.is_empty() => {
                return Some(format!("there is {}", quoted(names)));
            }
            Self::BuiltHere { place, .. } => return Some(format!("`wapack build` left one here: `{place}`")),
            Self::EngineTls => "name its socket: `DOCKER_HOST=unix:///var/run/docker.sock`",
            Self::Unnamed { .. } => "say where the new one goes: `--output oci:DIR:REF`",
            Self::OthersInArchive { .. } => "name another archive with `--output`",
            Self::NoRunImage | Self::NoMirror { .. } => "name one with `--run-image`",
            Self::RunImageTarget { .. }
            | Self::OneTarget { .. }
            | Self::Target { .. }
            | Self::TargetUnsupported { .. }
            | Self::TargetEmpty { .. }
            | Self::NoLauncher { .. } => return Some(self.target_hint()),
            Self::User { .. } => "a user is written in numbers: `--user 1000` or `--user 1000:1000`",
            Self::Variable { .. } => {
                "a variable is written `--env NAME=VALUE`, or `--env NAME` for the value it has here"
            }
            Self::UnsetVariable { name } => {
                return Some(format!("write `--env {name}=` for an empty value"));
            }
            Self::VariableNotUtf8 { .. } => "buildpacks take text only",
            Self::Builder { .. } | Self::NotABuilder { .. } => {
                "a builder is a directory with `order.toml` and `buildpacks/`; `--builder builtin` is the built-in one"
            }
            Self::Buildpack { known, .. } if !known.is_empty() => {
                return Some(format!("name a directory with `buildpack.toml`, or one of {}", quoted(known)));
            }
            Self::Buildpack { .. } => "name a directory with `buildpack.toml`",
            Self::BuildpackFile { .. } => {
                "name the directory that holds `buildpack.toml` and `buildpack.wasm`"
            }
            Self::BuildpackVersions { versions, .. } => {
                return Some(format!("name one of {}", quoted(versions)));
            }
            Self::BuildpackRemote { .. } => "put it into a directory, and name that with `--buildpack DIR`",
            Self::Project(error) => return error.hint(),
            Self::VariableFile { .. } => "a line is `NAME=VALUE`, `NAME`, or a comment that begins with `#`",
            Self::VariableFileUnreadable { .. } => "name a file that is there with `--env-file`",
            Self::NotAFile { .. } => "write the archive to a file first",
            Self::Inspect { .. } | Self::Nowhere { .. } => {
                "name a buildpack's directory, a `.wasm` file, or an image as `oci:DIR[:REF]` or `my/app:1.0`; `--host` is this machine"
            }
            Self::Unwritable { .. } => "name a file in a directory that is there and can be written",
            Self::Unreadable { .. }
            | Self::NoImage { .. }
            | Self::OthersInIndex { .. }
            | Self::NotEachSystem { .. }
            | Self::ImageTarget { .. }
            | Self::System { .. }
            | Self::CacheImage { .. }
            | Self::CacheImageIsImage { .. }
            | Self::CacheImageIsInput { .. }
            | Self::SourceFlag { .. }
            | Self::SourceVariable { .. }
            | Self::SourceSecret { .. }
            | Self::EngineAddress { .. } => return None,
            Self::NoCache { .. } => "name the directory that builds have with `--cache-dir`",
            Self::NothingKept { .. } => "`wapack cache du` lists the images",
            Self::RegistryAuth(_) => {
                r#"it is written `{"registry.example": "Basic …"}`, with `Basic`, `Bearer` or `X-Identity`"#
            }
        };
        Some(hint.to_owned())
    }
}

impl InputError {
    /// Of images for several systems, and of those that are caches.
    fn hint_of_system_or_cache(&self) -> Option<&'static str> {
        Some(match self {
            Self::OthersInIndex { .. } => {
                "name another image with `--output`, or leave out `--target` to rebase all of them"
            }
            Self::NotEachSystem { .. } => {
                "name one of its images with `--target`, and another place for it with `--output`"
            }
            Self::ImageTarget { .. } => "leave out `--target`",
            Self::System { .. } => "a system is written `linux/arm64` or `linux/arm/v7`",
            Self::CacheImage { .. } => "name one in a registry, `oci:DIR:NAME`, or `oci-archive:FILE:NAME`",
            Self::CacheImageIsImage { .. } | Self::CacheImageIsInput { .. } => "give it another name",
            _ => return None,
        })
    }

    fn hint_of_source(&self) -> Option<String> {
        let hint = match self {
            Self::SourceFlag { .. } => {
                "write `--source npm=https://mirror.example/npm/` or `--source npm=DIR`"
            }
            Self::SourceVariable { .. } => {
                "it is an `http://` or `https://` address, or the absolute path of a directory"
            }
            Self::SourceSecret { source: SecretError::Unset { name }, .. } => {
                return Some(format!("set `{name}` where `wapack` is run"));
            }
            Self::SourceSecret { .. } => {
                "the file has the secret as its only line, and whoever runs the build can read it"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
