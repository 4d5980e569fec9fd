//! What building made: the value between `build` and `export`.

use crate::cnb::id::{BuildpackId, BuildpackRef, LayerName};
use crate::cnb::launch::{Label, ProcessTable, Slice};
use crate::cnb::layer::{EnvironmentChange, LayerFeatures, LayerTypes};
use crate::cnb::sbom::Sbom;
use crate::executor::AppLink;
use crate::oci::blob::StoredBlob;
use crate::oci::digest::DiffId;
use crate::tree::{EntryKind, Listing, Tree};

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
    /// Of the whole launch image of a buildpack, or of one launch layer.
    pub launch_sboms: Vec<(BuildpackId, Option<LayerName>, Sbom)>,
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
    pub api: String,
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
