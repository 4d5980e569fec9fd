//! A project in a temporary directory, to test a buildpack's logic natively.
//!
//! `detect` and `build` run as ordinary functions on real files: quick to run
//! and open to a debugger. The real component in its real cell, with limits and
//! grants, is the business of the test kit in `wapack-runtime`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::Serialize;
use tempfile::TempDir;

use crate::Buildpack;
use crate::built::Built;
use crate::context::{BuildContext, DetectContext, PlanEntry, Target};
use crate::detected::{Detected, Requirement};
use crate::error::Error;
use crate::host::Host;
use crate::layer::RestoredLayer;
use crate::table;

/// An app, a buildpack and what earlier builds left, in a temporary directory.
///
/// # Example
/// ```
/// use wapack_sdk::testing::Project;
/// use wapack_sdk::{Buildpack, BuildContext, Built, DetectContext, Detected, Error};
///
/// struct Greeter;
///
/// impl Buildpack for Greeter {
///     fn detect(context: &DetectContext) -> Result<Detected, Error> {
///         Ok(if context.app.join("hello").exists() { Detected::pass() } else { Detected::fail("no `hello`") })
///     }
///     fn build(_: &BuildContext) -> Result<Built, Error> {
///         Ok(Built::new())
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let project = Project::new()?;
/// assert_eq!(project.detect::<Greeter>()?.reason(), Some("no `hello`"));
/// project.app_file("hello", "")?;
/// assert!(project.detect::<Greeter>()?.is_pass());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Project {
    root: TempDir,
    context: DetectContext,
    plan: Vec<PlanEntry>,
    store: std::cell::RefCell<Option<String>>,
    host: Host,
}

impl Project {
    /// An empty app, to be built for `linux/amd64`.
    ///
    /// # Errors
    /// When the temporary directory cannot be made.
    pub fn new() -> io::Result<Self> {
        let root = tempfile::Builder::new().prefix("wapack-sdk-").tempdir()?;
        let directory = |name: &str| -> io::Result<PathBuf> {
            let path = root.path().join(name);
            fs::create_dir(&path)?;
            Ok(path)
        };
        let context = DetectContext {
            app: directory("app")?,
            buildpack: directory("buildpack")?,
            platform: directory("platform")?,
            target: Target { os: "linux".into(), arch: "amd64".into(), variant: None, distro: None },
            exec_env: "production".to_owned(),
            user_env: BTreeMap::new(),
            metadata: String::new(),
        };
        let host = Host::new(directory("layers")?);
        Ok(Self { root, context, plan: Vec::new(), store: None.into(), host })
    }

    /// Writes a file of the app, and the directories on the way to it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn app_file(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
        write(&self.context.app.join(path), contents.as_ref())
    }

    /// Writes a file that comes with the buildpack.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn buildpack_file(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
        write(&self.context.buildpack.join(path), contents.as_ref())
    }

    /// Sets a variable of the user.
    #[must_use]
    pub fn user_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.context.user_env.insert(name.into(), value.into());
        self
    }

    /// Builds for another architecture.
    #[must_use]
    pub fn arch(mut self, arch: impl Into<String>) -> Self {
        self.context.target.arch = arch.into();
        self
    }

    /// Builds for another execution environment.
    #[must_use]
    pub fn exec_env(mut self, name: impl Into<String>) -> Self {
        self.context.exec_env = name.into();
        self
    }

    /// Sets the `[metadata]` of `buildpack.toml`.
    ///
    /// # Errors
    /// When `value` is not a table in TOML's terms.
    pub fn metadata<T: Serialize>(mut self, value: &T) -> Result<Self, Error> {
        self.context.metadata = table::to_text(value)?;
        Ok(self)
    }

    /// Adds an entry to the build plan.
    #[must_use]
    pub fn plan(mut self, entry: impl Into<Requirement>) -> Self {
        let Requirement { name, metadata } = entry.into();
        self.plan.push(PlanEntry { name, metadata });
        self
    }

    /// Lets `directory` stand in for the source `name`.
    #[must_use]
    pub fn source(self, name: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        self.host.add_source(name.into(), directory.into());
        self
    }

    /// The temporary directory: `app`, `buildpack`, `layers` and `platform`.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// What `detect` is given.
    pub fn detect_context(&self) -> DetectContext {
        self.context.clone()
    }

    /// What the next `build` is given.
    pub fn build_context(&self) -> BuildContext {
        self.host.begin();
        let restored_layers = self.host.restored().into_iter().map(|(name, record)| RestoredLayer {
            name,
            types: record.types,
            cache_key: record.key,
            metadata: record.metadata,
        });
        BuildContext {
            layers: self.root.path().join("layers"),
            plan: self.plan.clone(),
            restored_layers: restored_layers.collect(),
            detect: self.context.clone(),
            store: self.store.borrow().clone(),
            host: self.host.clone(),
        }
    }

    /// Runs `detect`.
    ///
    /// # Errors
    /// Those of the buildpack.
    pub fn detect<B: Buildpack>(&self) -> Result<Detected, Error> {
        B::detect(&self.context)
    }

    /// Runs `build` and remembers its layers and store for the next one.
    ///
    /// # Errors
    /// Those of the buildpack.
    pub fn build<B: Buildpack>(&self) -> Result<Built, Error> {
        let built = B::build(&self.build_context())?;
        let metadata =
            built.layers.iter().map(|layer| (layer.name().to_owned(), layer.metadata.clone())).collect();
        self.host.finish(&metadata)?;
        self.store.replace(built.store.clone());
        Ok(built)
    }
}

fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, contents)
}
