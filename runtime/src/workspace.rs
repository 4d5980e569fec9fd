//! The directories of one build, and which of them a buildpack's call sees.
//!
//! # Shape
//! ```text
//! <work>/app/        what buildpacks wrote to the app
//! <work>/source/     a private copy of the source, only where it has to be one
//! <work>/layers/<id>/<layer>/   layers made in this build
//! <work>/changes/<id>/<layer>/  what `update` wrote over a restored layer
//! <work>/platform/env/<NAME>
//! <work>/bindings/<binding>/<key>   for those that were granted them
//! <work>/tmp/<n>/    one per call
//! ```
//!
//! Guests know only the paths of the specification. Nothing here runs anything.
//!
//! The programs of the lifecycle work in place: app, platform directory and the
//! layers directories of executables are the ones they were given, and only `tmp`
//! and what components make is below `<work>`.

mod bindings;
mod environment;
mod extensions;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

pub use self::bindings::BindingsError;
pub use self::environment::{Carried, Surroundings};

use crate::catalog::{Buildpack, BuildpackKind};
use crate::cnb::id::{BuildpackId, BuildpackRef, LayerName};
use crate::executor::{ComponentFile, Executables, GuestDirectories, Mount, Program};
use crate::grant::{Grant, Grants};
use crate::tree::Tree;
use crate::walk;

/// The directory of service bindings in that of the platform.
const BINDINGS: &str = "bindings";

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
    surroundings: Surroundings,
    /// Whether `places` are the directories themselves.
    in_place: bool,
    /// Service bindings, where they are not a part of the platform directory.
    bindings: Option<PathBuf>,
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
        let user = user_env.iter().map(|(name, value)| (name.clone(), value.into())).collect();
        Ok(Self {
            places: Places::default(),
            root: root.to_owned(),
            app,
            surroundings: Surroundings { user, ..Surroundings::default() },
            in_place: false,
            bindings: None,
            calls: 0,
        })
    }

    /// A workspace of the directories `places` themselves. `root` is an empty directory
    /// on the file system of the layers, for what is not to be seen afterwards.
    ///
    /// # Errors
    /// When directories cannot be made.
    pub fn in_place(root: &Path, places: Places, surroundings: Surroundings) -> io::Result<Self> {
        for directory in ["layers", "tmp"] {
            walk::create_readable(&root.join(directory))?;
        }
        let app = Tree { upper: Some(PathBuf::from(&places.app)), ..Tree::default() };
        Ok(Self {
            places,
            root: root.to_owned(),
            app,
            surroundings,
            in_place: true,
            bindings: None,
            calls: 0,
        })
    }

    /// Takes the service bindings in the directory `from`, for the buildpacks that are granted them.
    ///
    /// # Errors
    /// [`BindingsError`].
    pub fn add_bindings(&mut self, from: &Path) -> Result<(), BindingsError> {
        let copy = self.root.join(BINDINGS);
        bindings::copy(from, &copy)?;
        self.bindings = Some(copy);
        Ok(())
    }

    /// Whether the directories that buildpacks see are those of the platform itself.
    pub fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Where this build's directories are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What runs `buildpack` here; `None` when nothing does.
    pub fn program(&self, buildpack: &Buildpack) -> Option<Program> {
        match &buildpack.kind {
            BuildpackKind::Component { path, digest } => Some(Program::Component(ComponentFile {
                digest: digest.clone(),
                path: path.clone(),
                directories: self.guest_directories(buildpack),
            })),
            BuildpackKind::Classic if self.in_place => Some(Program::Executables(Executables {
                directory: buildpack.directory.clone(),
                api: buildpack.descriptor.api,
                app: PathBuf::from(&self.places.app),
                platform: PathBuf::from(&self.places.platform),
                sbom_formats: buildpack.descriptor.sbom_formats.clone(),
                scratch: self.root.join("tmp"),
            })),
            BuildpackKind::Composite(_) | BuildpackKind::Classic => None,
        }
    }

    /// What a component is told of the mounts of its calls.
    pub fn guest_directories(&self, buildpack: &Buildpack) -> GuestDirectories {
        GuestDirectories {
            app: self.places.app.clone(),
            buildpack: self.places.buildpack(&buildpack.reference),
            platform: self.places.platform.clone(),
        }
    }

    /// Host directory that one buildpack's new layers are made in: for executables the
    /// one they and everybody else sees.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn layers_of(&self, buildpack: &Buildpack) -> io::Result<PathBuf> {
        let id = &buildpack.reference.id;
        let directory = if self.in_place && buildpack.kind == BuildpackKind::Classic {
            PathBuf::from(self.places.layers_of(id))
        } else {
            self.root.join("layers").join(id.directory_name())
        };
        match walk::create_readable(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(directory),
        }
    }

    /// What a call of `buildpack` sees: the app, its own files, the platform directory
    /// and an empty `/tmp`. The app can be written when `building`, if that is granted.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn mounts(
        &mut self,
        buildpack: &Buildpack,
        grants: &Grants,
        building: bool,
    ) -> io::Result<Vec<Mount>> {
        let app_write = building && grants.allows(&Grant::AppWrite);
        let sees_bindings = grants.allows(&Grant::Bindings);
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
        let platform =
            if self.in_place { PathBuf::from(&self.places.platform) } else { self.root.join("platform") };
        let mut platform = read_only(self.places.platform.clone(), &platform);
        if !sees_bindings {
            platform.hidden.push(BINDINGS.to_owned());
        }
        let bindings = self.bindings.as_deref().filter(|_| sees_bindings);
        let bindings = bindings.map(|path| read_only(format!("{}/{BINDINGS}", self.places.platform), path));
        let mut mounts = vec![
            self.app_mount(app_write),
            read_only(self.places.buildpack(&buildpack.reference), &buildpack.directory),
            platform,
            Mount {
                guest_path: "/tmp".to_owned(),
                lower: None,
                upper: Some(scratch),
                writable: true,
                hidden: Vec::new(),
            },
        ];
        mounts.extend(bindings);
        Ok(mounts)
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
}
