//! What a program of the lifecycle can fail with, and its exit codes.

use super::analyzer::AnalyzeError;
use super::builder::BuilderError;
use super::detector::DetectorError;
use super::exporter::ExporterError;
use super::extender::ExtendError;
use super::files::FileError;
use super::rebaser::RebaserError;
use super::restorer::RestoreError;

/// Why a program ended without success.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    #[error("failed to analyze")]
    Analyze(#[from] AnalyzeError),
    #[error("failed to detect")]
    Detect(#[from] DetectorError),
    #[error("failed to restore")]
    Restore(#[from] RestoreError),
    #[error("failed to extend")]
    Extend(#[from] ExtendError),
    #[error("failed to build")]
    Build(#[from] BuilderError),
    #[error("failed to export")]
    Export(#[from] ExporterError),
    #[error("failed to rebase")]
    Rebase(#[from] RebaserError),
}

/// Generic trouble, such as a file of the platform that cannot be read.
pub const GENERIC: u8 = 1;
/// Arguments and inputs that make no sense.
pub const INVALID: u8 = 3;
/// The Platform API is not supported.
pub const PLATFORM_API: u8 = 11;
/// The Buildpack API of a buildpack is not supported.
pub const BUILDPACK_API: u8 = 12;

impl ProgramError {
    /// The exit code.
    ///
    /// # Spec
    /// `platform.md` 0.15 "Exit Codes"; CLI-14.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Analyze(error) => error.code(),
            Self::Detect(error) => error.code(),
            Self::Restore(error) => error.code(),
            Self::Extend(error) => error.code(),
            Self::Build(error) => error.code(),
            Self::Export(error) => error.code(),
            Self::Rebase(error) => error.code(),
        }
    }
}

/// Files of the platform that cannot be used are generic trouble in every phase.
pub(super) fn of_file(_: &FileError) -> u8 {
    GENERIC
}
