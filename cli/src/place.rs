//! Where images are, as text: `oci:DIR:NAME`, `docker:NAME`, `registry.example/app:1`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// A place with images, and perhaps the name of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// An OCI layout, a directory.
    Layout { directory: PathBuf, reference: Option<String> },
    /// An OCI layout in a tar file.
    OciArchive { file: PathBuf, reference: Option<String> },
    /// A tar file as `docker load` takes it.
    DockerArchive { file: PathBuf, name: Option<String> },
    /// A container engine.
    Daemon { name: Option<String> },
    /// The registry that the name says.
    Registry { name: Option<String> },
}

impl Place {
    /// Reads a text that says what kind of place it means. As in other tools, the first
    /// colon ends the path of a directory or file. `None` for text that does not say.
    pub(crate) fn parse(text: &OsStr) -> Option<Self> {
        if text == "docker" {
            return Some(Self::Daemon { name: None });
        }
        if text == "registry" {
            return Some(Self::Registry { name: None });
        }
        let bytes = text.as_bytes();
        let after = |prefix: &str| bytes.strip_prefix(prefix.as_bytes());
        if let Some(rest) = after("oci:") {
            let (directory, reference) = path_and_name(rest)?;
            return Some(Self::Layout { directory, reference });
        }
        if let Some(rest) = after("oci-archive:") {
            let (file, reference) = path_and_name(rest)?;
            return Some(Self::OciArchive { file, reference });
        }
        if let Some(rest) = after("docker-archive:") {
            let (file, name) = path_and_name(rest)?;
            return Some(Self::DockerArchive { file, name });
        }
        // Skopeo means registries by this one.
        if let Some(rest) = after("docker://").or(after("registry:")) {
            return Some(Self::Registry { name: text_of(rest)? });
        }
        if let Some(rest) = after("docker-daemon:").or(after("docker:")) {
            return Some(Self::Daemon { name: text_of(rest)? });
        }
        None
    }

    /// Reads where an image is; a bare name is in a registry.
    pub(crate) fn of_image(text: &OsStr) -> Option<Self> {
        Self::parse(text).or_else(|| {
            let name = text.to_str().filter(|name| !name.is_empty())?;
            Some(Self::Registry { name: Some(name.to_owned()) })
        })
    }

    /// The name of the image there; empty without one.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Layout { reference: name, .. }
            | Self::OciArchive { reference: name, .. }
            | Self::DockerArchive { name, .. }
            | Self::Daemon { name }
            | Self::Registry { name } => name.as_deref().unwrap_or_default(),
        }
    }

    /// The same place with the name of an image.
    pub(crate) fn with_name(&self, image: &str) -> Self {
        let mut place = self.clone();
        match &mut place {
            Self::Layout { reference: name, .. }
            | Self::OciArchive { reference: name, .. }
            | Self::DockerArchive { name, .. }
            | Self::Daemon { name }
            | Self::Registry { name } => *name = Some(image.to_owned()),
        }
        place
    }

    /// The same place without a name.
    pub(crate) fn without_name(&self) -> Self {
        let mut place = self.clone();
        match &mut place {
            Self::Layout { reference: name, .. }
            | Self::OciArchive { reference: name, .. }
            | Self::DockerArchive { name, .. }
            | Self::Daemon { name }
            | Self::Registry { name } => *name = None,
        }
        place
    }

    /// The directory or file of this machine that it is.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Layout { directory: path, .. }
            | Self::OciArchive { file: path, .. }
            | Self::DockerArchive { file: path, .. } => Some(path),
            Self::Daemon { .. } | Self::Registry { .. } => None,
        }
    }

    /// What kind of place it is, as it is written.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Layout { .. } => "oci",
            Self::OciArchive { .. } => "oci-archive",
            Self::DockerArchive { .. } => "docker-archive",
            Self::Daemon { .. } => "docker",
            Self::Registry { .. } => "registry",
        }
    }
}

/// A place that [`Place::parse`] reads again.
impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind())?;
        if let Some(path) = self.path() {
            write!(formatter, ":{}", path.display())?;
        }
        match self.name() {
            "" => Ok(()),
            name => write!(formatter, ":{name}"),
        }
    }
}

/// What stands behind the kind; `None` when the path is empty or the name no text.
fn path_and_name(rest: &[u8]) -> Option<(PathBuf, Option<String>)> {
    let (path, name) = match rest.iter().position(|byte| *byte == b':') {
        Some(colon) => (&rest[..colon], text_of(&rest[colon + 1..])?),
        None => (rest, None),
    };
    (!path.is_empty()).then(|| (PathBuf::from(OsString::from_vec(path.to_vec())), name))
}

/// `Some(None)` for an empty text.
#[expect(clippy::option_option, reason = "no text, or a text that may be empty")]
fn text_of(bytes: &[u8]) -> Option<Option<String>> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some((!text.is_empty()).then(|| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Place> {
        Place::parse(OsStr::new(text))
    }

    #[test]
    fn the_first_colon_ends_the_path() {
        let layout = |directory: &str, reference: Option<&str>| Place::Layout {
            directory: directory.into(),
            reference: reference.map(str::to_owned),
        };
        assert_eq!(parse("oci:image"), Some(layout("image", None)));
        assert_eq!(parse("oci:./a b:"), Some(layout("./a b", None)));
        assert_eq!(parse("oci:/x:demo/website:1"), Some(layout("/x", Some("demo/website:1"))));
        let (file, name) = ("a.tar".into(), Some("x:1".to_owned()));
        assert_eq!(parse("docker-archive:a.tar:x:1"), Some(Place::DockerArchive { file, name }));
        let file = "a.tar".into();
        assert_eq!(parse("oci-archive:a.tar"), Some(Place::OciArchive { file, reference: None }));
        for text in ["", "oci:", "oci::latest", "oci-archive:", "docker-archive::x", "dir:x", "image"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    /// Skopeo's spellings beside ours, and what is shown is read again.
    #[test]
    fn engines_and_registries_are_told_apart() {
        let daemon = |name: &str| Some(Place::Daemon { name: Some(name.to_owned()) });
        let registry = |name: &str| Some(Place::Registry { name: Some(name.to_owned()) });
        assert_eq!(parse("docker:my/app:1"), daemon("my/app:1"));
        assert_eq!(parse("docker-daemon:my/app:1"), daemon("my/app:1"));
        assert_eq!(parse("docker://my/app:1"), registry("my/app:1"));
        assert_eq!(parse("registry:my/app:1"), registry("my/app:1"));
        assert_eq!(parse("docker"), Some(Place::Daemon { name: None }));
        assert_eq!(parse("registry"), Some(Place::Registry { name: None }));
        assert_eq!(Place::of_image(OsStr::new("debian:12")), registry("debian:12"));
        assert_eq!(Place::of_image(OsStr::new("oci:x")), parse("oci:x"));
        for text in [
            "oci:x",
            "oci:x:a:1",
            "oci-archive:x.tar:a",
            "docker-archive:x.tar:a:1",
            "docker:a",
            "registry:a/b:1",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }
}
