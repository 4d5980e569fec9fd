//! What a cache image says of its layers: written after a build, read before one on another
//! machine.
//!
//! Beside the label of the specification, which has no room for it; programs of the
//! lifecycle read that one and find the same layers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::cnb::id::{BuildpackId, LayerName};
use crate::cnb::layer::{EnvironmentChange, LayerTypes};
use crate::cnb::sbom::SbomFormat;
use crate::network::Artifact;
use crate::oci::digest::DiffId;

/// The name of the label.
pub const CACHE_LABEL: &str = "io.wapack.cache";

/// What this program writes, and the only one it reads.
const FORMAT: u32 = 1;

/// Where the bills of materials of cached layers are in a layer of the image.
pub const CACHED_SBOMS: &str = "/layers/sbom/cache";

/// The contents of the label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLabel {
    format: u32,
    pub buildpacks: BTreeMap<BuildpackId, CachedBuildpack>,
}

/// What one buildpack left.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CachedBuildpack {
    pub version: Option<String>,
    /// TOML text of `store.toml`.
    pub store: Option<String>,
    pub layers: BTreeMap<LayerName, CachedRecord>,
}

/// A layer, without its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedRecord {
    /// Which of the image's layers it is.
    pub diff_id: DiffId,
    pub types: LayerTypes,
    /// What the buildpack said the contents depend on.
    pub key: String,
    /// TOML text.
    pub metadata: String,
    pub environment: Vec<EnvironmentChange>,
    pub artifacts: Option<BTreeSet<Artifact>>,
    /// Its bills of materials. Without one of them it is no layer.
    pub sboms: BTreeSet<SbomFormat>,
}

impl Default for CacheLabel {
    /// One without layers.
    fn default() -> Self {
        Self { format: FORMAT, buildpacks: BTreeMap::new() }
    }
}

impl CacheLabel {
    /// Reads the label; `None` for what this program does not write.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|label: &Self| label.format == FORMAT)
    }

    /// The text of the label.
    ///
    /// # Errors
    /// When a name in it is no text.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// Where a bill of materials of a cached layer is (SBOM-09).
#[must_use]
pub fn cached_sbom_path(buildpack: &BuildpackId, layer: &LayerName, format: SbomFormat) -> String {
    format!("{CACHED_SBOMS}/{}/{layer}/sbom.{}", buildpack.directory_name(), format.extension())
}
