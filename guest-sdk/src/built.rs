//! What `build` answers.

use serde::Serialize;

use crate::error::Error;
use crate::layer::Layer;
use crate::table;

/// A process of the image.
///
/// # Example
/// ```
/// use wapack_sdk::Process;
///
/// let web = Process::new("web", ["node", "server.js"]).args(["--verbose"]).default();
/// assert!(web.default);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Process {
    /// Its type, such as `web`: letters, digits, `.`, `_` and `-`.
    pub process_type: String,
    /// The executable and the arguments that are always passed.
    pub command: Vec<String>,
    /// Arguments that the user of the image may replace.
    pub args: Vec<String>,
    /// Whether the image starts it when nothing else is asked for.
    pub default: bool,
    /// Where it starts, instead of the app directory.
    pub working_directory: Option<String>,
    /// Execution environments it is for; empty means all.
    pub exec_envs: Vec<String>,
}

impl Process {
    /// A process that starts `command` directly, without a shell.
    pub fn new<C: Into<String>>(
        process_type: impl Into<String>,
        command: impl IntoIterator<Item = C>,
    ) -> Self {
        Self {
            process_type: process_type.into(),
            command: command.into_iter().map(Into::into).collect(),
            args: Vec::new(),
            default: false,
            working_directory: None,
            exec_envs: Vec::new(),
        }
    }

    /// Adds arguments that the user of the image may replace.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Makes it the one that the image starts when nothing else is asked for.
    /// One process of a buildpack may be.
    pub fn default(mut self) -> Self {
        self.default = true;
        self
    }

    /// Starts it in `directory` instead of the app directory.
    pub fn working_directory(mut self, directory: impl Into<String>) -> Self {
        self.working_directory = Some(directory.into());
        self
    }

    /// Limits it to an execution environment, such as `test`; may be repeated.
    pub fn exec_env(mut self, name: impl Into<String>) -> Self {
        self.exec_envs.push(name.into());
        self
    }
}

/// The format of a software bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SbomFormat {
    /// `application/vnd.cyclonedx+json`
    CycloneDx,
    /// `application/spdx+json`
    Spdx,
    /// `application/vnd.syft+json`
    Syft,
}

/// A software bill of materials. Its text is stored byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sbom {
    /// The format of `content`.
    pub format: SbomFormat,
    /// JSON.
    pub content: String,
}

impl Sbom {
    /// A bill of materials in `CycloneDX` JSON, such as
    /// [`CycloneDx`](crate::sbom::CycloneDx) writes.
    pub fn cyclonedx(content: impl Into<String>) -> Self {
        Self { format: SbomFormat::CycloneDx, content: content.into() }
    }

    /// A bill of materials in SPDX JSON.
    pub fn spdx(content: impl Into<String>) -> Self {
        Self { format: SbomFormat::Spdx, content: content.into() }
    }

    /// A bill of materials in Syft JSON.
    pub fn syft(content: impl Into<String>) -> Self {
        Self { format: SbomFormat::Syft, content: content.into() }
    }
}

/// A link that the host puts into the app at export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppLink {
    /// Where the link stands, relative to the app directory.
    pub path: String,
    /// The layer that it points into.
    pub layer: String,
    /// The target, relative to that layer.
    pub target: String,
}

/// What `build` contributes to the image.
///
/// # Example
/// ```
/// use wapack_sdk::{Built, Process};
///
/// let built = Built::new()
///     .process(Process::new("web", ["python3", "-m", "http.server"]).default())
///     .label("org.opencontainers.image.title", "my site");
/// assert_eq!(built.processes.len(), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Built {
    /// Layers; one that was opened but is not here is left out of the image.
    pub layers: Vec<Layer>,
    /// Processes of the image.
    pub processes: Vec<Process>,
    /// App files that become layers of their own, as lists of glob patterns.
    pub slices: Vec<Vec<String>>,
    /// Labels of the image.
    pub labels: Vec<(String, String)>,
    /// Links from the app into layers.
    pub app_links: Vec<AppLink>,
    /// Names from the plan that were not satisfied after all.
    pub unmet: Vec<String>,
    /// TOML handed back by [`BuildContext::store`](crate::BuildContext::store) next time.
    pub store: Option<String>,
    /// Bills of materials of the image as a whole.
    pub launch_sboms: Vec<Sbom>,
    /// Bills of materials of what only the build used.
    pub build_sboms: Vec<Sbom>,
}

impl Built {
    /// Contributes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer, made with [`BuildContext::layer`](crate::BuildContext::layer).
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Adds a process.
    pub fn process(mut self, process: Process) -> Self {
        self.processes.push(process);
        self
    }

    /// Makes the app files that match a layer of their own: glob patterns
    /// relative to the app directory.
    pub fn slice<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.slices.push(paths.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a label to the image.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((key.into(), value.into()));
        self
    }

    /// Has the host put a link at `path` of the app, to `target` in `layer`.
    /// What the source had at that path is hidden.
    pub fn app_link(mut self, path: impl Into<String>, layer: &Layer, target: impl Into<String>) -> Self {
        self.app_links.push(AppLink {
            path: path.into(),
            layer: layer.name().to_owned(),
            target: target.into(),
        });
        self
    }

    /// Says that the plan's entry `name` was not satisfied after all.
    pub fn unmet(mut self, name: impl Into<String>) -> Self {
        self.unmet.push(name.into());
        self
    }

    /// Leaves `value` for the next build of this app.
    ///
    /// # Errors
    /// A buildpack error when `value` is not a table in TOML's terms.
    pub fn store<T: Serialize>(mut self, value: &T) -> Result<Self, Error> {
        self.store = Some(table::to_text(value)?);
        Ok(self)
    }

    /// Adds a bill of materials of the image as a whole.
    pub fn launch_sbom(mut self, sbom: impl Into<Sbom>) -> Self {
        self.launch_sboms.push(sbom.into());
        self
    }

    /// Adds a bill of materials of what only the build used.
    pub fn build_sbom(mut self, sbom: impl Into<Sbom>) -> Self {
        self.build_sboms.push(sbom.into());
        self
    }
}
