//! What one phase hands to the next.
//!
//! Plain values; which phase makes one and which takes it is said at each.

mod cache_label;

pub use self::cache_label::{
    CACHE_LABEL, CACHED_SBOMS, CacheLabel, CachedBuildpack, CachedRecord, cached_sbom_path,
};

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::cnb::api::ApiVersion;
use crate::cnb::build_plan::Requirement;
use crate::cnb::id::{BuildpackId, BuildpackRef, LayerName};
use crate::cnb::launch::{Label, ProcessTable, Slice};
use crate::cnb::layer::{EnvironmentChange, LayerFeatures, LayerTypes};
use crate::cnb::sbom::Sbom;
use crate::executor::AppLink;
use crate::network::{Artifact, Artifacts};
use crate::oci::blob::StoredBlob;
use crate::oci::digest::DiffId;
use crate::store::CachedLayer;
use crate::tree::{EntryKind, Listing, Tree};

/// What there is to use again, by buildpack: from `restore` to `build`.
#[derive(Debug, Default)]
pub struct Restored {
    /// Those of the group that left something.
    pub buildpacks: BTreeMap<BuildpackId, RestoredBuildpack>,
}

/// What one buildpack left.
#[derive(Debug, Default)]
pub struct RestoredBuildpack {
    /// Sorted by name.
    pub layers: Vec<CachedLayer>,
    /// TOML text of `store.toml`.
    pub store: Option<String>,
    /// The version that left it, as far as it is known.
    pub version: Option<String>,
}

impl Restored {
    /// What `buildpack` left; nothing when it never took part.
    pub fn take(&mut self, buildpack: &BuildpackId) -> RestoredBuildpack {
        self.buildpacks.remove(buildpack).unwrap_or_default()
    }
}

/// What was built, and what of it the next build may use: from `build` to `export` and `keep`.
#[derive(Debug)]
pub struct Outcome {
    /// What the image is made of.
    pub built: Built,
    /// Facts about each layer of `built.layers`, in the same order, that only the store wants.
    pub kept: Vec<KeptLayer>,
}

/// A layer as the store is to keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLayer {
    pub cache_key: String,
    pub sboms: Vec<Sbom>,
    /// What its buildpack fetched to make it; `None` when nobody noted that.
    pub artifacts: Option<BTreeSet<Artifact>>,
    pub contents: KeptContents,
}

/// Where the contents of a layer to be kept are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptContents {
    /// In the store already.
    Unchanged,
    /// In a directory of this build.
    Fresh(PathBuf),
    /// Nowhere; only its blob stays.
    Nothing,
}

/// A buildpack's layer as it is in the image: from `export` to `keep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedLayer {
    pub buildpack: BuildpackId,
    pub name: LayerName,
    pub diff_id: DiffId,
    pub blob: StoredBlob,
    pub features: LayerFeatures,
}

/// Everything `build` made, of all buildpacks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Built {
    /// In group order.
    pub buildpacks: Vec<BuiltBuildpack>,
    /// In group order, those of one buildpack by name. Those that are not
    /// `launch` do not get into the image.
    pub layers: Vec<BuiltLayer>,
    pub processes: ProcessTable,
    /// In group order.
    pub slices: Vec<Slice>,
    /// In group order; the last of a key wins.
    pub labels: Vec<Label>,
    /// The host's own labels; buildpacks cannot set these.
    pub own_labels: Vec<Label>,
    /// Of the whole launch image of a buildpack, or of one launch layer.
    pub launch_sboms: Vec<(BuildpackId, Option<LayerName>, Sbom)>,
    /// The same for what is not in the image, …
    pub build_sboms: Vec<(BuildpackId, Option<LayerName>, Sbom)>,
    /// … and for layers that are cached, wherever else they are.
    pub cache_sboms: Vec<(BuildpackId, LayerName, Sbom)>,
    /// Entries of old bills of materials.
    pub launch_bom: Vec<(BuildpackRef, Requirement)>,
    pub build_bom: Vec<(BuildpackRef, Requirement)>,
    /// What came from sources.
    pub artifacts: Artifacts,
    /// The app as the last buildpack left it.
    pub app: Tree,
    /// Links from the app into layers, made in the image only.
    pub app_links: Vec<(BuildpackId, AppLink)>,
}

/// A buildpack that built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltBuildpack {
    pub reference: BuildpackRef,
    /// The buildpack API it was written for.
    pub api: ApiVersion,
    pub homepage: Option<String>,
    /// TOML text of `store.toml` `[metadata]`; `None` without that file.
    pub store: Option<String>,
}

/// A layer of a buildpack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltLayer {
    pub buildpack: BuildpackRef,
    pub name: LayerName,
    pub types: LayerTypes,
    /// TOML text of `[metadata]`; may be empty.
    pub metadata: String,
    /// What its environment files say, in the order they apply. The files
    /// themselves are part of `contents`.
    pub environment: Vec<EnvironmentChange>,
    pub contents: BuiltContents,
}

/// What is in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuiltContents {
    /// As the last build left it: nothing of it is read.
    Stored { diff_id: DiffId, blob: StoredBlob, features: LayerFeatures },
    /// Made or changed by this build.
    Fresh(Tree),
}

/// Reads off a layer's listing what has to be known of its contents later.
#[must_use]
pub fn features_of(listing: &Listing) -> LayerFeatures {
    let mut features = LayerFeatures::default();
    for entry in listing.entries.iter().filter(|entry| entry.kind == EntryKind::Directory) {
        match entry.path.as_slice() {
            b"bin" => features.roots.bin = true,
            b"lib" => features.roots.lib = true,
            b"include" => features.roots.include = true,
            b"pkgconfig" => features.roots.pkgconfig = true,
            b"exec.d" => features.has_exec_d = true,
            b"profile.d" => features.has_profile_d = true,
            _ => {}
        }
    }
    features
}
