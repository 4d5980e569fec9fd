//! Opens the place where a program's images are.

use wapack_runtime::cancel::Cancel;
use wapack_runtime::images::{Daemon, DaemonAddress, DaemonError, Images, LayoutImages};
use wapack_runtime::policy::{Policy, PolicyError, PolicyPaths};

use super::inputs::{ImagePlace, Inputs};
use super::registries::{self, AuthError};
use super::settings::Surroundings;
use crate::app;

/// Where container engines listen.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Why there are no images.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error("cannot use registries")]
    Registry(#[from] AuthError),
    #[error("cannot use registries")]
    Settings(#[source] Box<PolicyError>),
    #[error("there is no place for images")]
    None,
    #[error("`DOCKER_HOST` is `{value}`, which is neither `unix://<path>` nor `tcp://<host>:<port>`")]
    Address { value: String },
    #[error("the container engine wants TLS, which is not spoken by this version")]
    Tls,
    #[error(transparent)]
    Daemon(#[from] DaemonError),
}

/// Opens it; `None` for programs that have no images.
pub(super) fn open(
    place: &ImagePlace,
    inputs: &Inputs,
    surroundings: &Surroundings,
    cancel: &Cancel,
) -> Result<Option<Box<dyn Images>>, ImageError> {
    if !inputs.needs_images() {
        return Ok(None);
    }
    match place {
        ImagePlace::Daemon => {
            Ok(Some(Box::new(Daemon::connect(address(surroundings)?, surroundings.scratch())?)))
        }
        ImagePlace::Layout(directory) => {
            Ok(Some(Box::new(LayoutImages::new(directory.clone(), app::host_target().arch))))
        }
        ImagePlace::Registry { insecure } => {
            // Policy files are for `wapack build`: here the platform decides.
            let (policy, _) = Policy::load(&PolicyPaths::default())
                .map_err(|error| ImageError::Settings(Box::new(error)))?;
            Ok(Some(Box::new(registries::images(insecure, surroundings, &policy, cancel)?)))
        }
    }
}

/// Where the engine listens: `DOCKER_HOST`, or where it always does.
fn address(surroundings: &Surroundings) -> Result<DaemonAddress, ImageError> {
    let Some(value) = surroundings.variable("DOCKER_HOST") else {
        return Ok(DaemonAddress::Unix(DEFAULT_SOCKET.into()));
    };
    let value = value.to_string_lossy();
    if let Some(path) = value.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
        return Ok(DaemonAddress::Unix(path.into()));
    }
    match value.strip_prefix("tcp://").map(|host| host.trim_end_matches('/')) {
        Some(_) if surroundings.variable("DOCKER_TLS_VERIFY").is_some() => Err(ImageError::Tls),
        Some(host) if host.contains(':') => Ok(DaemonAddress::Tcp(host.to_owned())),
        _ => Err(ImageError::Address { value: value.escape_debug().to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn engines_listen_at_sockets_and_ports() {
        let read = |variables: &[(&str, &str)]| {
            let environment: BTreeMap<_, _> =
                variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
            address(&Surroundings { environment, working_directory: "/".into(), user: (0, 0) })
        };
        let unix = |path: &str| DaemonAddress::Unix(path.into());
        assert_eq!(read(&[]).unwrap(), unix("/var/run/docker.sock"));
        assert_eq!(read(&[("DOCKER_HOST", "unix:///run/x.sock")]).unwrap(), unix("/run/x.sock"));
        let tcp = [("DOCKER_HOST", "tcp://127.0.0.1:2375/")];
        assert_eq!(read(&tcp).unwrap(), DaemonAddress::Tcp("127.0.0.1:2375".into()));
        assert!(matches!(read(&[tcp[0], ("DOCKER_TLS_VERIFY", "1")]), Err(ImageError::Tls)));
        for value in ["unix://x", "ssh://host", "tcp://host", "host:1"] {
            assert!(matches!(read(&[("DOCKER_HOST", value)]), Err(ImageError::Address { .. })), "{value}");
        }
    }
}
