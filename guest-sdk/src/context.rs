//! What `detect` and `build` are given.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::downloads::Artifact;
use crate::error::Error;
use crate::host::Host;
use crate::layer::{LayerDefinition, LayerTypes, RestoredLayer};
use crate::table;

/// The operating system and machine the image is built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `linux`.
    pub os: String,
    /// The architecture under its OCI name: `amd64`, `arm64`.
    pub arch: String,
    /// The variant of the architecture, such as `v8`.
    pub variant: Option<String>,
    /// The distribution of the run image, where it has one.
    pub distro: Option<Distro>,
}

/// A distribution, in the words of its `/etc/os-release`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distro {
    /// `ID`, such as `debian`.
    pub name: String,
    /// `VERSION_ID`, such as `12`.
    pub version: String,
}

/// What `detect` is given.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DetectContext {
    /// The app's source. Read-only in `detect`; in `build` too, unless
    /// `buildpack.toml` asks for the grant `app-write` and gets it.
    pub app: PathBuf,
    /// The files that came with the buildpack, read-only.
    pub buildpack: PathBuf,
    /// The platform directory, read-only: `env/` and `bindings/`.
    pub platform: PathBuf,
    /// The operating system and machine the image is built for.
    pub target: Target,
    /// The execution environment, such as `production` or `test`.
    pub exec_env: String,
    /// Variables the user set for this build.
    pub user_env: BTreeMap<String, String>,
    /// The text behind [`DetectContext::metadata`].
    pub(crate) metadata: String,
}

impl DetectContext {
    /// The `[metadata]` table of `buildpack.toml`.
    ///
    /// # Errors
    /// A buildpack error when the table does not fit `T`.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<T, Error> {
        table::from_text(&self.metadata, "`[metadata]` of `buildpack.toml`")
    }

    /// The path in the app that `relative` names, for what a user may set;
    /// `None` when it leads out of the app.
    pub fn app_path(&self, relative: impl AsRef<Path>) -> Option<PathBuf> {
        let mut path = self.app.clone();
        for component in relative.as_ref().components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        Some(path)
    }
}

/// One entry of the build plan that this buildpack is to satisfy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanEntry {
    /// The name under which it is provided, such as `node`.
    pub name: String,
    /// The text behind [`PlanEntry::metadata`].
    pub(crate) metadata: String,
}

impl PlanEntry {
    /// What the requiring buildpack said about it.
    ///
    /// # Errors
    /// A buildpack error when the table does not fit `T`.
    pub fn metadata<T: DeserializeOwned>(&self) -> Result<T, Error> {
        table::from_text(&self.metadata, &format!("what another buildpack requires of `{}`", self.name))
    }
}

/// What `build` is given: all that `detect` sees, and more.
///
/// It dereferences to [`DetectContext`], so that a function which both calls
/// need takes `&DetectContext`.
#[derive(Debug)]
#[non_exhaustive]
pub struct BuildContext {
    /// This buildpack's layers; [`BuildContext::layer`] makes them.
    pub layers: PathBuf,
    /// The entries of the build plan for this buildpack.
    pub plan: Vec<PlanEntry>,
    /// Layers of the previous build.
    pub restored_layers: Vec<RestoredLayer>,
    pub(crate) detect: DetectContext,
    pub(crate) store: Option<String>,
    pub(crate) host: Host,
}

impl Deref for BuildContext {
    type Target = DetectContext;

    fn deref(&self) -> &DetectContext {
        &self.detect
    }
}

impl BuildContext {
    /// Begins the layer `name`. What follows is its key, then its contents:
    ///
    /// ```
    /// # use wapack_sdk::{fs, BuildContext, Error, Layer, LayerTypes};
    /// # fn build(context: &BuildContext) -> Result<Layer, Error> {
    /// let version = "1.2.0";
    /// let layer = context
    ///     .layer("tool", LayerTypes::LAUNCH | LayerTypes::CACHE)
    ///     .key(&[("version", version), ("architecture", &context.target.arch)])
    ///     .fill(|directory| {
    ///         fs::create_dir(directory.join("bin"))?;
    ///         Ok(fs::write(directory.join("bin/tool"), version)?)
    ///     })?;
    /// # Ok(layer)
    /// # }
    /// ```
    pub fn layer(&self, name: impl Into<String>, types: LayerTypes) -> LayerDefinition<'_> {
        LayerDefinition::new(self, name.into(), types)
    }

    /// What the previous build left of the layer `name`. Only
    /// [`BuildContext::layer`] brings its contents back.
    pub fn restored_layer(&self, name: &str) -> Option<&RestoredLayer> {
        self.restored_layers.iter().find(|layer| layer.name == name)
    }

    /// What this buildpack put into [`Built::store`](crate::Built::store) last time.
    ///
    /// # Errors
    /// A buildpack error when the table does not fit `T`.
    pub fn store<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        self.store.as_deref().map(|text| table::from_text(text, "the buildpack's store")).transpose()
    }

    /// Fetches all of `artifacts`, in parallel where that helps. The operator
    /// decides where a source is and how to sign in there.
    ///
    /// # Errors
    /// Whatever the host refuses or cannot get; some destinations may have been
    /// written by then.
    pub fn fetch(&self, artifacts: &[Artifact]) -> Result<(), Error> {
        self.host.fetch(artifacts)
    }
}
