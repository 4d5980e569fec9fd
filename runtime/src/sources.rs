//! Sources: what a buildpack calls `npm` or `debian`, and where the operator put it.
//!
//! Serves sources that are directories: a mirror on disk, an air gap. A guest
//! names a source and a path; where that is, is never said to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use sha2::{Digest as _, Sha256, Sha512};

use crate::cnb::id::BuildpackRef;
use crate::executor::{Arrivals, ArtifactRequest, Refusal};
use crate::grant::{Grant, Grants};

/// The sources of a build.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    directories: BTreeMap<String, PathBuf>,
}

fn refusal(id: &str, message: String, hint: Option<String>) -> Refusal {
    Refusal { id: id.to_owned(), message, hint }
}

impl Sources {
    /// Sources by name, each a directory on this machine.
    #[must_use]
    pub fn new(directories: BTreeMap<String, PathBuf>) -> Self {
        Self { directories }
    }

    /// Hands over each of `artifacts`, see [`crate::executor::BuildHost::fetch`].
    pub fn fetch(
        &self,
        buildpack: &BuildpackRef,
        grants: &Grants,
        artifacts: &[ArtifactRequest],
        arrivals: &Arrivals,
    ) {
        for (index, artifact) in artifacts.iter().enumerate() {
            arrivals(index, self.fetch_one(buildpack, grants, artifact));
        }
    }

    /// Opens the file of `artifact`, checked against its integrity value.
    ///
    /// # Errors
    /// `sandbox.source_refused` when the source was not granted, `source.unset`
    /// when the operator did not say where it is, `source.not_found`,
    /// `source.bad_path` and `source.integrity` as they say.
    fn fetch_one(
        &self,
        buildpack: &BuildpackRef,
        grants: &Grants,
        artifact: &ArtifactRequest,
    ) -> Result<File, Refusal> {
        let name = &artifact.source;
        if !grants.allows(&Grant::Source(name.clone())) {
            return Err(refusal(
                "sandbox.source_refused",
                format!(
                    "buildpack `{buildpack}` was refused the source `{name}`: it is not among this build's grants"
                ),
                Some(format!(
                    "list it under `grants.sources` in `buildpack.toml`; the operator allows it with `--grant source={name}` or in the policy file"
                )),
            ));
        }
        let Some(directory) = self.directories.get(name) else {
            return Err(refusal(
                "source.unset",
                format!("the source `{name}` is not set"),
                Some(format!(
                    "set it in the policy file: `[sources.{name}]` with `directory = \"/path/to/mirror\"`"
                )),
            ));
        };
        let path = clean(&artifact.path).ok_or_else(|| {
            let message =
                format!("`{}` is not a path below the source `{name}`", artifact.path.escape_default());
            refusal("source.bad_path", message, None)
        })?;
        let open = || {
            open_beneath(directory, &path).map_err(|error| {
                refusal(
                    "source.not_found",
                    format!("the source `{name}` has no `{path}`: {}", error.kind()),
                    None,
                )
            })
        };
        let file = open()?;
        if let Some(expected) = &artifact.integrity {
            let found = Integrity::parse(expected)
                .ok_or_else(|| {
                    let message = format!("`{}` is not an integrity value", expected.escape_default());
                    let hint = "`sha256:<hex>`, `sha512:<hex>`, `sha256-<base64>` and `sha512-<base64>` are";
                    refusal("source.integrity", message, Some(hint.to_owned()))
                })?
                .check(file)
                .map_err(|error| {
                    refusal("source.unreadable", format!("cannot read `{path}`: {error}"), None)
                })?;
            if let Err(found) = found {
                return Err(refusal(
                    "source.integrity",
                    format!(
                        "`{path}` of the source `{name}` is not what was expected: `{expected}`, found `{found}`"
                    ),
                    None,
                ));
            }
        }
        open()
    }
}

/// The path without empty names and dots; `None` when it leaves the source.
fn clean(path: &str) -> Option<String> {
    let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    let fine = !path.starts_with('/') && !names.is_empty() && !names.contains(&"..");
    (fine && !path.chars().any(char::is_control)).then(|| names.join("/"))
}

fn open_beneath(directory: &Path, path: &str) -> io::Result<File> {
    let root =
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file =
        openat2(&root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)?;
    let file = File::from(file);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// A hash that contents must have.
#[derive(Debug, PartialEq, Eq)]
enum Integrity {
    Sha256(Vec<u8>),
    Sha512(Vec<u8>),
}

impl Integrity {
    fn parse(text: &str) -> Option<Self> {
        let (algorithm, value) = text.split_once([':', '-'])?;
        let bytes = if text.contains(':') {
            from_hex(value)?
        } else {
            base64::engine::general_purpose::STANDARD.decode(value).ok()?
        };
        match (algorithm, bytes.len()) {
            ("sha256", 32) => Some(Self::Sha256(bytes)),
            ("sha512", 64) => Some(Self::Sha512(bytes)),
            _ => None,
        }
    }

    /// Compares; the inner error is what was found instead.
    fn check(&self, mut file: File) -> io::Result<Result<(), String>> {
        let mut buffer = vec![0; 256 * 1024];
        let mut feed = |update: &mut dyn FnMut(&[u8])| -> io::Result<()> {
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    count => update(&buffer[..count]),
                }
            }
        };
        let (name, expected, found) = match self {
            Self::Sha256(expected) => {
                let mut hasher = Sha256::new();
                feed(&mut |bytes| hasher.update(bytes))?;
                ("sha256", expected, hasher.finalize().to_vec())
            }
            Self::Sha512(expected) => {
                let mut hasher = Sha512::new();
                feed(&mut |bytes| hasher.update(bytes))?;
                ("sha512", expected, hasher.finalize().to_vec())
            }
        };
        let shown = || found.iter().fold(format!("{name}:"), |text, byte| text + &format!("{byte:02x}"));
        Ok(if *expected == found { Ok(()) } else { Err(shown()) })
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|start| u8::from_str_radix(&text[start..start + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buildpack() -> BuildpackRef {
        BuildpackRef { id: "acme/node".parse().unwrap(), version: "1.2.0".parse().unwrap() }
    }

    fn fetch(sources: &Sources, path: &str, integrity: Option<&str>) -> Result<String, String> {
        let grants = Grants([Grant::Source("npm".to_owned())].into());
        let artifact = ArtifactRequest {
            source: "npm".to_owned(),
            path: path.to_owned(),
            integrity: integrity.map(str::to_owned),
        };
        let file = sources.fetch_one(&buildpack(), &grants, &artifact).map_err(|refusal| refusal.id)?;
        Ok(io::read_to_string(file).unwrap())
    }

    /// `printf hello | sha256sum`, `printf hello | openssl dgst -sha512 -binary | base64`
    const SHA256: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    const SHA512: &str =
        "sha512-m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw==";

    #[test]
    fn files_of_a_source_are_found_and_checked() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("a")).unwrap();
        std::fs::write(directory.path().join("a/b.tgz"), "hello").unwrap();
        std::os::unix::fs::symlink("/etc/hostname", directory.path().join("out")).unwrap();
        let sources = Sources::new([("npm".to_owned(), directory.path().to_owned())].into());
        assert_eq!(fetch(&sources, "a/b.tgz", None).unwrap(), "hello");
        fetch(&sources, "a//./b.tgz", Some(SHA256)).unwrap();
        fetch(&sources, "a/b.tgz", Some(SHA512)).unwrap();
        assert_eq!(
            fetch(&sources, "a/b.tgz", Some(&SHA256.replace('2', "3"))).unwrap_err(),
            "source.integrity"
        );
        assert_eq!(fetch(&sources, "a/b.tgz", Some("md5:00")).unwrap_err(), "source.integrity");
        assert_eq!(fetch(&sources, "a", None).unwrap_err(), "source.not_found");
        assert_eq!(fetch(&sources, "out", None).unwrap_err(), "source.not_found");
        for path in ["../x", "/etc/hostname", "", "a/../../x", "a\nb"] {
            assert_eq!(fetch(&sources, path, None).unwrap_err(), "source.bad_path", "{path:?}");
        }
    }

    #[test]
    fn a_source_has_to_be_granted_and_set() {
        let artifact = ArtifactRequest { source: "npm".to_owned(), path: "x".to_owned(), integrity: None };
        let refusal = Sources::default().fetch_one(&buildpack(), &Grants::default(), &artifact).unwrap_err();
        assert_eq!(refusal.id, "sandbox.source_refused");
        assert_eq!(fetch(&Sources::default(), "x", None).unwrap_err(), "source.unset");
    }
}
