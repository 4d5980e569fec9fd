//! Software bills of materials: their formats. Their contents are never parsed.

use serde::{Deserialize, Serialize};

/// A format of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SbomFormat {
    CycloneDx,
    Spdx,
    Syft,
}

impl SbomFormat {
    /// The file name ending: `cdx.json`, `spdx.json` or `syft.json`.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::CycloneDx => "cdx.json",
            Self::Spdx => "spdx.json",
            Self::Syft => "syft.json",
        }
    }

    /// All formats.
    pub const ALL: [Self; 3] = [Self::CycloneDx, Self::Spdx, Self::Syft];

    /// The media type that `sbom-formats` in `buildpack.toml` declares.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::CycloneDx => "application/vnd.cyclonedx+json",
            Self::Spdx => "application/spdx+json",
            Self::Syft => "application/vnd.syft+json",
        }
    }
}

/// One bill of materials, stored byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sbom {
    pub format: SbomFormat,
    #[serde(with = "crate::text::mostly_text")]
    pub content: Vec<u8>,
}
