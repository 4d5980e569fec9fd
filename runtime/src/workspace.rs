//! The directories of one build, and which of them a buildpack's call sees.
//!
//! # Shape
//! ```text
//! <work>/app/        what buildpacks wrote to the app
//! <work>/source/     a private copy of the source, only where it has to be one
//! <work>/layers/<id>/<layer>/   layers made in this build
//! <work>/changes/<id>/<layer>/  what `update` wrote over a restored layer
//! <work>/platform/env/<NAME>
//! <work>/tmp/<n>/    one per call
//! ```
//!
//! Guests know only the paths of the specification. Nothing here runs anything.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::catalog::{Buildpack, BuildpackKind};
use crate::cnb::env::Environment;
use crate::cnb::id::{BuildpackId, BuildpackRef, ExecEnv, LayerName};
use crate::cnb::target::Target;
use crate::executor::{ComponentFile, Mount, Program};
use crate::tree::Tree;
use crate::walk;

/// Variables whose user value is put in front instead of replacing (ENV-09).
const PATH_VARIABLES: [&str; 5] = ["CPATH", "LD_LIBRARY_PATH", "LIBRARY_PATH", "PATH", "PKG_CONFIG_PATH"];

/// Where a build's directories are, as buildpacks, and later the image, see them.
///
/// Absolute paths. `wapack build` has the specification's, whatever is behind them
/// on the host; the programs of the lifecycle work in the directories they are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    pub app: String,
    pub layers: String,
    pub platform: String,
    pub buildpacks: String,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            app: "/workspace".to_owned(),
            layers: "/layers".to_owned(),
            platform: "/platform".to_owned(),
            buildpacks: "/cnb/buildpacks".to_owned(),
        }
    }
}

impl Places {
    /// A buildpack's layers directory.
    #[must_use]
    pub fn layers_of(&self, buildpack: &BuildpackId) -> String {
        format!("{}/{}", self.layers, buildpack.directory_name())
    }

    /// A layer.
    #[must_use]
    pub fn layer(&self, buildpack: &BuildpackId, layer: &LayerName) -> String {
        format!("{}/{layer}", self.layers_of(buildpack))
    }

    /// A buildpack's own files.
    #[must_use]
    pub fn buildpack(&self, buildpack: &BuildpackRef) -> String {
        format!("{}/{}/{}", self.buildpacks, buildpack.id.directory_name(), buildpack.version)
    }
}

/// The directories of a build, and the app as far as it has come.
#[derive(Debug)]
pub struct Workspace {
    /// Where guests see them.
    pub places: Places,
    root: PathBuf,
    /// The app: source, what was written over it, what is hidden of it.
    pub app: Tree,
    calls: u32,
}

impl Workspace {
    /// Lays out the directories of a build below `root`, which is empty.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn new(root: &Path, app: Tree, user_env: &BTreeMap<String, String>) -> io::Result<Self> {
        for directory in ["app", "changes", "layers", "platform", "platform/env", "tmp"] {
            walk::create_readable(&root.join(directory))?;
        }
        for (name, value) in user_env {
            let file = root.join("platform/env").join(name);
            fs::write(&file, value)?;
            fs::set_permissions(file, PermissionsExt::from_mode(0o644))?;
        }
        Ok(Self { places: Places::default(), root: root.to_owned(), app, calls: 0 })
    }

    /// Where this build's directories are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What runs `buildpack` here; `None` when nothing does.
    pub fn program(&self, buildpack: &Buildpack) -> Option<Program> {
        match &buildpack.kind {
            BuildpackKind::Component { path, digest } => {
                Some(Program::Component(ComponentFile { digest: digest.clone(), path: path.clone() }))
            }
            BuildpackKind::Composite(_) | BuildpackKind::Classic => None,
        }
    }

    /// Host directory that one buildpack's new layers are made in.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn layers_of(&self, buildpack: &BuildpackId) -> io::Result<PathBuf> {
        let directory = self.root.join("layers").join(buildpack.directory_name());
        match walk::create_readable(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(directory),
        }
    }

    /// What every call of `buildpack` sees: the app, its own files, the
    /// platform directory and an empty `/tmp`.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn mounts(&mut self, buildpack: &Buildpack, app_write: bool) -> io::Result<Vec<Mount>> {
        self.calls += 1;
        let scratch = self.root.join("tmp").join(self.calls.to_string());
        walk::create_readable(&scratch)?;
        if app_write {
            self.app.upper.get_or_insert_with(|| self.root.join("app"));
        }
        let read_only = |guest_path: String, path: &Path| Mount {
            guest_path,
            lower: Some(path.to_owned()),
            upper: None,
            writable: false,
            hidden: Vec::new(),
        };
        Ok(vec![
            self.app_mount(app_write),
            read_only(self.places.buildpack(&buildpack.reference), &buildpack.directory),
            read_only(self.places.platform.clone(), &self.root.join("platform")),
            Mount {
                guest_path: "/tmp".to_owned(),
                lower: None,
                upper: Some(scratch),
                writable: true,
                hidden: Vec::new(),
            },
        ])
    }

    fn app_mount(&self, writable: bool) -> Mount {
        let hidden = self.app.hidden.iter().filter_map(|path| path.to_str().map(str::to_owned)).collect();
        Mount {
            guest_path: self.places.app.clone(),
            lower: self.app.lower.clone(),
            // What an earlier buildpack wrote is seen by all later ones (BLD-06).
            upper: self.app.upper.clone(),
            writable,
            hidden,
        }
    }

    /// The user's variables as they reach a buildpack's process, and those of
    /// the specification. Nothing of the host is among them.
    ///
    /// # Spec
    /// ENV-09, ENV-10 and the table of section 4.4.
    pub fn environment(
        &self,
        buildpack: &Buildpack,
        target: &Target,
        exec_env: &ExecEnv,
        user_env: &BTreeMap<String, String>,
        from_layers: &Environment,
    ) -> Environment {
        let mut environment = from_layers.clone();
        if !buildpack.descriptor.clear_env {
            for (name, value) in user_env {
                let current = environment.get(name).filter(|current| !current.is_empty());
                let value = match current {
                    Some(current) if PATH_VARIABLES.contains(&name.as_str()) => format!("{value}:{current}"),
                    _ => value.clone(),
                };
                environment.insert(name.clone(), value);
            }
        }
        let mut set = |name: &str, value: &str| environment.insert(name.to_owned(), value.to_owned());
        set("CNB_BUILDPACK_DIR", &self.places.buildpack(&buildpack.reference));
        set("CNB_PLATFORM_DIR", &self.places.platform);
        set("CNB_TARGET_OS", &target.os);
        set("CNB_TARGET_ARCH", &target.arch);
        if let Some(variant) = &target.variant {
            set("CNB_TARGET_ARCH_VARIANT", variant);
        }
        if let Some(distro) = &target.distro {
            set("CNB_TARGET_DISTRO_NAME", &distro.name);
            set("CNB_TARGET_DISTRO_VERSION", &distro.version);
        }
        set("CNB_EXEC_ENV", exec_env.as_str());
        environment
    }
}
