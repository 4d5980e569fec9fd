//! Opens the places where images are: one way in for every command.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use wapack_runtime::cancel::Cancel;
use wapack_runtime::cnb::target::Target;
use wapack_runtime::images::{
    Daemon, DaemonAddress, DockerArchive, FoundImage, Images, ImagesError, OciArchive, OciDirectory,
    RegistryImages, is_stream,
};
use wapack_runtime::oci::layout::{LayoutError, Platform, image_names, read_image};
use wapack_runtime::registry::Registry;

use crate::app;
use crate::args::PolicyArguments;
use crate::discovery::{self, Environment, Question};
use crate::failure::{Failure, InputError};
use crate::image_name::ImageName;
use crate::place::Place;

/// Where container engines listen.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Opens places; the connections of one are those of the next.
pub(crate) struct Places {
    policy: PolicyArguments,
    /// The directory of the app, if there is one: its settings are not the user's.
    app: Option<PathBuf>,
    cancel: Cancel,
    daemon: OnceCell<Rc<Daemon>>,
    registry: OnceCell<Arc<Registry>>,
}

/// A place with images, opened.
pub(crate) struct Opened {
    pub(crate) place: Place,
    pub(crate) images: Rc<dyn Images>,
    target: Option<Target>,
}

impl Places {
    /// Places as the policy reaches them. Nothing is opened yet.
    pub(crate) fn new(policy: &PolicyArguments, app: Option<&Path>, cancel: &Cancel) -> Self {
        Self {
            policy: policy.clone(),
            app: app.map(Path::to_owned),
            cancel: cancel.clone(),
            daemon: OnceCell::new(),
            registry: OnceCell::new(),
        }
    }

    /// Opens a place. Where one name has images for several systems, it is the one for `target`.
    ///
    /// # Errors
    /// When it cannot be reached. A place without images is no error.
    pub(crate) fn open(&self, place: Place, target: Option<&Target>) -> Result<Opened, Failure> {
        let wanted = target.cloned();
        let images: Rc<dyn Images> = match &place {
            // What comes from a layout and goes to the same one is not read again.
            Place::Layout { directory, .. } => Rc::new(OciDirectory::new(directory.clone(), wanted).unread()),
            Place::OciArchive { file, .. } => Rc::new(OciArchive::new(file.clone(), wanted)),
            Place::DockerArchive { file, .. } => Rc::new(DockerArchive::new(file.clone())),
            Place::Daemon { .. } => self.daemon()?,
            Place::Registry { .. } => {
                let target = wanted.unwrap_or_else(app::host_target);
                let variant = target.variant.filter(|variant| !variant.is_empty());
                Rc::new(RegistryImages::new(self.registry()?, target.arch, variant, env::temp_dir()))
            }
        };
        Ok(Opened { place, images, target: target.cloned() })
    }

    /// Reads where an image is and opens that place; a bare name is in a registry.
    ///
    /// # Errors
    /// When the text names no place, or it cannot be reached.
    pub(crate) fn open_image(&self, text: &OsStr, target: Option<&Target>) -> Result<Opened, Failure> {
        let refused = || InputError::NotAnImage { value: text.to_string_lossy().escape_debug().to_string() };
        self.open(Place::of_image(text).ok_or_else(refused)?, target)
    }

    /// All registries, as policy and environment say that they are reached.
    fn registry(&self) -> Result<Arc<Registry>, Failure> {
        if let Some(registry) = self.registry.get() {
            return Ok(Arc::clone(registry));
        }
        let (policy, origins) = app::policy(&self.policy)?;
        let question = Question {
            policy: &policy,
            origins: &origins,
            app: self.app.as_deref(),
            wanted: BTreeSet::new(),
            cancel: &self.cancel,
        };
        let network = discovery::network(&question, Environment::of_process())?;
        let registry = Registry::new(&network.settings, &policy.limits, env::temp_dir());
        Ok(Arc::clone(self.registry.get_or_init(|| Arc::new(registry))))
    }

    /// The container engine of this machine, or the one `DOCKER_HOST` says.
    fn daemon(&self) -> Result<Rc<Daemon>, Failure> {
        if let Some(daemon) = self.daemon.get() {
            return Ok(Rc::clone(daemon));
        }
        let address = engine_address(|name| env::var_os(name))?;
        let daemon = Daemon::connect(address, env::temp_dir())
            .map_err(|error| ImagesError::Image { name: "docker".to_owned(), source: error.into() })?;
        Ok(Rc::clone(self.daemon.get_or_init(|| Rc::new(daemon))))
    }
}

impl Opened {
    /// The image that the place names, or the only one there; of one for several systems
    /// that for the target, or for this machine.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub(crate) fn find(&self, places: &Places) -> Result<FoundImage, Failure> {
        self.look(places).map_err(|failure| match self.built_here() {
            Some(place) => InputError::BuiltHere {
                value: self.place.to_string(),
                place: place.to_string(),
                cause: Box::new(failure),
            }
            .into(),
            None => failure,
        })
    }

    /// Where a build without `--output` leaves the image that is looked for in a registry,
    /// if one did here.
    fn built_here(&self) -> Option<Place> {
        let Place::Registry { name: Some(name) } = &self.place else { return None };
        let name: ImageName = name.parse().ok()?;
        let directory = name.default_layout();
        let is_there = image_names(&directory).is_ok_and(|names| names.contains(&name.to_string()));
        is_there.then(|| Place::Layout { directory, reference: Some(name.to_string()) })
    }

    fn look(&self, places: &Places) -> Result<FoundImage, Failure> {
        let name = self.place.name();
        if self.place.path().is_some_and(is_stream) {
            return Err(InputError::NotAFile { place: self.place.to_string() }.into());
        }
        if name.is_empty() && matches!(self.place, Place::Daemon { .. } | Place::Registry { .. }) {
            return Err(InputError::NameMissing { value: self.place.to_string() }.into());
        }
        let images = match self.target {
            // Nothing says which of several systems: the one at hand.
            None if !self.images.systems(name)?.is_empty() => {
                Rc::clone(&places.open(self.place.clone(), Some(&app::host_target()))?.images)
            }
            _ => Rc::clone(&self.images),
        };
        match images.find(name) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(self.missing()),
            Err(error) => Err(error.into()),
        }
    }

    /// Why there is no such image, and which ones there are.
    fn missing(&self) -> Failure {
        if let Place::Layout { directory: path, .. } | Place::OciArchive { file: path, .. } = &self.place {
            // A layout can say more than that there is none.
            let platform = self.target.as_ref().map(|target| Platform {
                os: &target.os,
                architecture: &target.arch,
                variant: target.variant.as_deref(),
            });
            let name = Some(self.place.name()).filter(|name| !name.is_empty());
            let error = read_image(path, name, platform).err();
            return error.unwrap_or_else(|| LayoutError::Missing { directory: path.clone() }).into();
        }
        let names = self.images.names().unwrap_or_default();
        InputError::NoImage { value: self.place.to_string(), names }.into()
    }
}

/// Whether a place is where this program speaks.
pub(crate) fn is_standard_output(place: &Place) -> bool {
    let Some(path) = place.path() else { return false };
    let standard_output = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    match (path.metadata(), standard_output.and_then(|file| file.metadata())) {
        (Ok(place), Ok(output)) => (place.dev(), place.ino()) == (output.dev(), output.ino()),
        _ => false,
    }
}

/// Whether a container engine seems to listen.
pub(crate) fn has_engine() -> bool {
    match engine_address(|name| env::var_os(name)) {
        Ok(DaemonAddress::Unix(socket)) => socket.metadata().is_ok_and(|found| found.file_type().is_socket()),
        Ok(DaemonAddress::Tcp(_)) => true,
        Err(_) => false,
    }
}

/// Where the engine listens: `DOCKER_HOST`, or where it always does.
pub(crate) fn engine_address(
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<DaemonAddress, InputError> {
    let Some(value) = variable("DOCKER_HOST").filter(|value| !value.is_empty()) else {
        return Ok(DaemonAddress::Unix(DEFAULT_SOCKET.into()));
    };
    let value = value.to_string_lossy();
    if let Some(path) = value.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
        return Ok(DaemonAddress::Unix(path.into()));
    }
    match value.strip_prefix("tcp://").map(|host| host.trim_end_matches('/')) {
        Some(_) if variable("DOCKER_TLS_VERIFY").is_some() => Err(InputError::EngineTls),
        Some(host) if host.contains(':') => Ok(DaemonAddress::Tcp(host.to_owned())),
        _ => Err(InputError::EngineAddress { value: value.escape_debug().to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_listen_at_sockets_and_ports() {
        let read = |variables: &[(&str, &str)]| {
            engine_address(|wanted| {
                variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.into())
            })
        };
        let unix = |path: &str| DaemonAddress::Unix(path.into());
        assert_eq!(read(&[]).unwrap(), unix("/var/run/docker.sock"));
        assert_eq!(read(&[("DOCKER_HOST", "unix:///run/x.sock")]).unwrap(), unix("/run/x.sock"));
        let tcp = [("DOCKER_HOST", "tcp://127.0.0.1:2375/")];
        assert_eq!(read(&tcp).unwrap(), DaemonAddress::Tcp("127.0.0.1:2375".into()));
        assert!(matches!(read(&[tcp[0], ("DOCKER_TLS_VERIFY", "1")]), Err(InputError::EngineTls)));
        for value in ["unix://x", "ssh://host", "tcp://host", "host:1"] {
            let refused = read(&[("DOCKER_HOST", value)]);
            assert!(matches!(refused, Err(InputError::EngineAddress { .. })), "{value}");
        }
    }
}
