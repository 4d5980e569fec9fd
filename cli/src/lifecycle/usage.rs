//! Command lines, variables and privileges that a program cannot start with.

use std::fmt::Write as _;
use std::path::PathBuf;

use wapack_runtime::oci::reference::InvalidReference;
use wapack_runtime::programs::{GENERIC, INVALID, PLATFORM_API};

use super::go_flags::FlagError;
use super::program::Program;

/// What is said of all programs together, without a Platform API.
pub(super) fn overview() -> String {
    let mut text = "\
The phases of the lifecycle, as a platform runs them one after the other.

Usage: wapack lifecycle PROGRAM [FLAGS], or the name of the program as that of a link to wapack

Programs:"
        .to_owned();
    for program in Program::ALL {
        let _ = write!(text, "\n  {:<9} {}", program.name(), program.purpose());
    }
    text.push_str(
        "\n\nEach needs the version of the interface in CNB_PLATFORM_API, such as 0.15; with it, `PROGRAM -h` lists the flags.\n\
         `wapack lifecycle -version` and `-descriptor` say what this lifecycle is.",
    );
    text
}

/// Flags that are not understood; Go's own code for it.
const FLAGS: u8 = 2;

/// Why a program does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    #[error("failed to get platform API version; please set `CNB_PLATFORM_API` to the one to be spoken")]
    NoPlatformApi,
    #[error(
        "failed to set platform API: platform API version `{version}` is incompatible with the lifecycle"
    )]
    PlatformApi { version: String },
    #[error(
        "failed to set platform API: the deprecated version `{version}` is refused by `CNB_DEPRECATION_MODE=error`"
    )]
    Deprecated { version: String },
    #[error("failed to parse arguments: there is no word that says which program to run; `-h` lists them")]
    NoProgram,
    #[error(
        "failed to recognize phase: `{word}`; there are detect, analyze, restore, build, export, rebase, create, extend"
    )]
    Program { word: String },
    #[error("failed to parse flags")]
    Flag(#[from] FlagError),
    #[error("failed to parse log level: there is no level `{level}`")]
    LogLevel { level: String },
    #[error("failed to parse arguments: received {got} arguments, but expected {expected}")]
    Arguments { got: usize, expected: &'static str },
    #[error(
        "failed to parse arguments: `{word}` stands behind the first argument that is no flag, and is not read as one"
    )]
    LateFlag { word: String },
    #[error("failed to resolve inputs: the variable `{name}` is no number: `{value}`")]
    Variable { name: &'static str, value: String },
    #[error("failed to resolve inputs: `-{name}` is no number of a user or group: `{value}`")]
    Id { name: &'static str, value: String },
    #[error("failed to resolve inputs: `-{name}` is not UTF-8")]
    NotText { name: &'static str },
    #[error("failed to resolve inputs: `-{name}` is empty")]
    Empty { name: &'static str },
    #[error("failed to resolve inputs: `-layout` needs `-layout-dir`")]
    NoLayoutDirectory,
    #[error("failed to resolve inputs: `{kind}` is no kind of image to extend; there are `build` and `run`")]
    ExtendKind { kind: String },
    #[error("failed to resolve inputs")]
    Image(#[from] InvalidReference),
    #[error(
        "failed to resolve inputs: writing to multiple registries is unsupported: `{first}` and `{other}`"
    )]
    Registries { first: String, other: String },
    #[error(
        "failed to resolve inputs: `-{name}` is unsupported: the run image is the one that `analyzed.toml` names"
    )]
    Unsupported { name: &'static str },
    #[error("failed to resolve inputs: supply only one of -run-image or (deprecated) -image")]
    BothRunImages,
    #[error("failed to resolve inputs: `{value}` is no execution environment")]
    ExecEnv { value: String },
    #[error("experimental features are disabled by CNB_EXPERIMENTAL_MODE=error: export to OCI layout format")]
    Experimental,
    #[error("failed to {phase}: refusing to run as root")]
    Root { phase: &'static str },
    #[error("failed to chown volumes: cannot give `{}` to {user}:{group}", path.display())]
    Chown { path: PathBuf, user: u32, group: u32, source: std::io::Error },
    #[error("failed to exec as user {user}:{group}")]
    RunAs { user: u32, group: u32, source: std::io::Error },
    #[error("failed to set environment for user {user}")]
    NoUser { user: u32, source: std::io::Error },
}

impl UsageError {
    /// The exit code.
    ///
    /// # Spec
    /// CLI-14: 2 and 3 are the reference lifecycle's.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::NoPlatformApi | Self::PlatformApi { .. } | Self::Deprecated { .. } => PLATFORM_API,
            Self::Flag(FlagError::Help) => 0,
            Self::Flag(_) => FLAGS,
            Self::NoProgram
            | Self::Program { .. }
            | Self::Arguments { .. }
            | Self::LateFlag { .. }
            | Self::Variable { .. }
            | Self::Id { .. }
            | Self::NotText { .. }
            | Self::Empty { .. }
            | Self::NoLayoutDirectory
            | Self::ExtendKind { .. }
            | Self::Image(_)
            | Self::Registries { .. }
            | Self::Unsupported { .. }
            | Self::BothRunImages
            | Self::ExecEnv { .. } => INVALID,
            Self::LogLevel { .. }
            | Self::Experimental
            | Self::Root { .. }
            | Self::Chown { .. }
            | Self::RunAs { .. }
            | Self::NoUser { .. } => GENERIC,
        }
    }
}
