//! Opens the places where images are: one way in for every command.

use std::cell::OnceCell;
use std::env;
use std::ffi::{OsStr, OsString};
use std::rc::Rc;

use wapack_runtime::cnb::target::Target;
use wapack_runtime::images::{
    Daemon, DaemonAddress, DockerArchive, FoundImage, Images, ImagesError, OciArchive, OciDirectory,
};
use wapack_runtime::oci::layout::{LayoutError, Platform, read_image};

use crate::failure::{Failure, InputError};
use crate::place::Place;

/// Where container engines listen.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Opens places; the connections of one are those of the next.
#[derive(Default)]
pub(crate) struct Places {
    daemon: OnceCell<Rc<Daemon>>,
}

/// A place with images, opened.
pub(crate) struct Opened {
    pub(crate) place: Place,
    pub(crate) images: Rc<dyn Images>,
    target: Option<Target>,
}

impl Places {
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
                return Err(InputError::NoRegistries { value: place.to_string() }.into());
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
    /// The image that the place names, or the only one there.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub(crate) fn find(&self) -> Result<FoundImage, Failure> {
        let name = self.place.name();
        if name.is_empty() && matches!(self.place, Place::Daemon { .. } | Place::Registry { .. }) {
            return Err(InputError::NameMissing { value: self.place.to_string() }.into());
        }
        match self.images.find(name) {
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

/// Whether a container engine seems to listen.
pub(crate) fn has_engine() -> bool {
    match engine_address(|name| env::var_os(name)) {
        Ok(DaemonAddress::Unix(socket)) => socket.exists(),
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
