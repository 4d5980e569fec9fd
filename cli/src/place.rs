//! Where images are: `oci:DIR`, `oci:DIR:REF`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// An OCI layout, and perhaps the name of one of its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayoutPlace {
    pub(crate) directory: PathBuf,
    pub(crate) reference: Option<String>,
}

impl LayoutPlace {
    /// Reads what follows `oci:`. As in other tools, the first colon ends the
    /// directory. `None` for text that does not start so, or names none.
    pub(crate) fn parse(text: &OsStr) -> Option<Self> {
        let rest = text.as_bytes().strip_prefix(b"oci:")?;
        let (directory, reference) = match rest.iter().position(|byte| *byte == b':') {
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
            None => (rest, None),
        };
        if directory.is_empty() {
            return None;
        }
        let reference = reference.map(std::str::from_utf8).transpose().ok()?;
        Some(Self {
            directory: PathBuf::from(OsString::from_vec(directory.to_vec())),
            reference: reference.filter(|name| !name.is_empty()).map(str::to_owned),
        })
    }
}

/// How skopeo, podman and others name an image of a layout.
pub(crate) fn show(directory: &Path, reference: &str) -> String {
    format!("oci:{}:{reference}", directory.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colon_ends_the_directory() {
        let parse = |text: &str| {
            LayoutPlace::parse(OsStr::new(text))
                .map(|place| (place.directory.display().to_string(), place.reference))
        };
        assert_eq!(parse("oci:image"), Some(("image".into(), None)));
        assert_eq!(parse("oci:./a b:"), Some(("./a b".into(), None)));
        assert_eq!(parse("oci:/x:demo/website:1"), Some(("/x".into(), Some("demo/website:1".into()))));
        for text in ["", "oci:", "oci::latest", "docker:x", "image"] {
            assert_eq!(parse(text), None);
        }
    }
}
