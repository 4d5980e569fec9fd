//! The layers directory of a platform, written to without following a link in it.
//!
//! Buildpacks of an earlier build may have left anything there.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::cnb::id::BuildpackId;
use crate::oci::unpack::Place;
use crate::walk::{self, Status};

/// Why the layers directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}`", path.display())]
pub struct LayersDirError {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Files beside layers that end like one (LYR-02).
const OTHER_FILES: [&str; 3] = ["build", "launch", "store"];

/// The open layers directory.
pub(super) struct LayersDir {
    path: PathBuf,
    root: OwnedFd,
}

impl LayersDir {
    /// Opens it, and makes it where it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, LayersDirError> {
        let failed = |source| LayersDirError { path: path.to_owned(), source };
        fs_err::create_dir_all(path).map_err(failed)?;
        // The directory itself may be a link: the platform named it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        Ok(Self { path: path.to_owned(), root })
    }

    /// Where a layer of an image or a cache may be unpacked: only in `below`.
    pub(super) fn place<'a>(&'a self, below: &'a str) -> Place<'a> {
        Place { root: self.root.as_fd(), name: self.path.as_os_str().as_bytes(), below: below.as_bytes() }
    }

    /// The names of the layers of a buildpack, by directory or by file.
    pub(super) fn layers_of(&self, buildpack: &BuildpackId) -> Result<BTreeSet<OsString>, LayersDirError> {
        let name = buildpack.directory_name();
        let failed = |source| self.failed(&name, source);
        let mut names = BTreeSet::new();
        let Some(directory) = self.directory(&name).map_err(failed)? else { return Ok(names) };
        for entry in Dir::read_from(&directory).map_err(|error| failed(error.into()))? {
            let entry = entry.map_err(|error| failed(error.into()))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let is_directory = Status::at(&directory, name).map_err(failed)?.kind == FileType::Directory;
            match name.as_bytes().strip_suffix(b".toml") {
                _ if matches!(name.as_bytes(), b"." | b"..") => {}
                _ if is_directory => drop(names.insert(name.to_owned())),
                Some(layer) if !OTHER_FILES.iter().any(|other| other.as_bytes() == layer) => {
                    names.insert(OsStr::from_bytes(layer).to_owned());
                }
                _ => {}
            }
        }
        Ok(names)
    }

    /// Writes a file into the directory of a buildpack, which is made where it is missing.
    pub(super) fn write(
        &self,
        buildpack: &BuildpackId,
        name: &str,
        text: &str,
    ) -> Result<(), LayersDirError> {
        let directory_name = buildpack.directory_name();
        let failed = |source| self.failed(&format!("{directory_name}/{name}"), source);
        match rustix::fs::mkdirat(&self.root, &directory_name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let directory = self.directory(&directory_name).map_err(failed)?;
        let directory = directory.ok_or_else(|| failed(io::ErrorKind::NotADirectory.into()))?;
        let mut file = create(directory.as_fd(), name).map_err(failed)?;
        io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)
    }

    /// Copies the file `from`, a path in the layers directory, into the directory of
    /// a buildpack. Nothing happens when there is no such file.
    pub(super) fn copy(&self, from: &str, buildpack: &BuildpackId, name: &str) -> Result<(), LayersDirError> {
        let directory_name = buildpack.directory_name();
        let failed = |source| self.failed(&format!("{directory_name}/{name}"), source);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let from = match self.open_beneath(from, flags) {
            Ok(from) => File::from(from),
            Err(error) if is_absent(error) => return Ok(()),
            Err(error) => return Err(self.failed(from, error.into())),
        };
        if Status::of_open(&from).map_err(failed)?.kind != FileType::RegularFile {
            return Ok(());
        }
        let Some(directory) = self.directory(&directory_name).map_err(failed)? else { return Ok(()) };
        let to = create(directory.as_fd(), name).map_err(failed)?;
        walk::copy_contents(&from, &to, || Ok(())).map_err(failed)
    }

    /// Removes something in the directory of a buildpack; what is not there is removed already.
    pub(super) fn remove_in(&self, buildpack: &BuildpackId, name: &str) -> Result<(), LayersDirError> {
        let directory_name = buildpack.directory_name();
        let failed = |source| self.failed(&format!("{directory_name}/{name}"), source);
        match self.directory(&directory_name).map_err(failed)? {
            Some(directory) => walk::remove_in(directory.as_fd(), OsStr::new(name)).map_err(failed),
            None => Ok(()),
        }
    }

    /// Removes a layer: its directory, its file, and the digest that old lifecycles left beside it.
    pub(super) fn remove_layer(&self, buildpack: &BuildpackId, layer: &str) -> Result<(), LayersDirError> {
        for name in [layer.to_owned(), format!("{layer}.toml"), format!("{layer}.sha")] {
            self.remove_in(buildpack, &name)?;
        }
        Ok(())
    }

    /// Removes the bills of materials (`sbom`), or one kind of them.
    pub(super) fn remove_sboms(&self, kind: Option<&str>) -> Result<(), LayersDirError> {
        let Some(kind) = kind else {
            return walk::remove_in(self.root.as_fd(), OsStr::new("sbom"))
                .map_err(|source| self.failed("sbom", source));
        };
        let failed = |source| self.failed(&format!("sbom/{kind}"), source);
        match self.directory("sbom").map_err(failed)? {
            Some(directory) => walk::remove_in(directory.as_fd(), OsStr::new(kind)).map_err(failed),
            None => Ok(()),
        }
    }

    /// Opens a directory; `None` when nothing is there.
    fn directory(&self, path: &str) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.open_beneath(path, flags) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open_beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = CString::new(path).map_err(|_| Errno::INVAL)?;
        rustix::fs::openat2(&self.root, &path, flags, Mode::empty(), resolve)
    }

    fn failed(&self, name: &str, source: io::Error) -> LayersDirError {
        LayersDirError { path: self.path.join(name), source }
    }
}

/// Nothing there, or a link that could lead anywhere.
fn is_absent(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// Makes a file; a file or link that is there gives way.
fn create(directory: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o666)).map(File::from)?)
}
