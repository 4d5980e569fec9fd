//! What the host writes into a layer after its buildpack has ended.
//!
//! The buildpack may have left anything there, links to elsewhere included, so
//! every name is opened relative to the layer's own descriptor and never followed.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fchmod, mkdirat, open, openat};
use rustix::io::Errno;

use crate::cancel::{Cancel, Cancelled};
use crate::cnb::env;
use crate::cnb::layer::EnvironmentChange;
use crate::tree::{EntryKind, Tree, TreeError, TreeLimits};
use crate::walk;

/// Names at the top of a layer that hold its environment; the host's to write.
const ENVIRONMENT_NAMES: [&str; 3] = ["env", "env.build", "env.launch"];
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Later buildpacks read it, perhaps as another user.
const READABLE: Mode = Mode::from_raw_mode(0o644);

/// Why a layer cannot be finished.
#[derive(Debug)]
pub(crate) enum BadLayer {
    Io(io::Error),
    Cancelled(Cancelled),
    /// The buildpack's doing; the text goes on after "layer `x`".
    Refused(String),
}

impl From<Errno> for BadLayer {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<TreeError> for BadLayer {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            error => Self::Refused(format!("cannot be read: {error}")),
        }
    }
}

/// Writes the environment of a layer as the files of the specification.
///
/// # Shape
/// `env/NAME.append` and `env/NAME.delim`, the same in `env.build/`,
/// `env.launch/` and `env.launch/<type>/`.
pub(super) fn write_environment(layer: &Path, changes: &[EnvironmentChange]) -> Result<(), BadLayer> {
    let root = open(layer, DIRECTORY, Mode::empty())?;
    for name in ENVIRONMENT_NAMES {
        match openat(&root, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                return Err(BadLayer::Refused(format!(
                    "has `{name}`, which the host writes; changes of the environment are returned, not written"
                )));
            }
        }
    }
    let files = env::files(changes).map_err(|error| BadLayer::Refused(format!("is not valid: {error}")))?;
    for (path, value) in files {
        let names: Vec<&str> = path.split('/').collect();
        let Some((name, directories)) = names.split_last() else { continue };
        let mut directory = root.try_clone().map_err(BadLayer::Io)?;
        for name in directories {
            directory = make_directory(&directory, name)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&directory, *name, flags, READABLE)?;
        // The umask may have taken some of it.
        fchmod(&file, READABLE)?;
        File::from(file).write_all(value.as_encoded_bytes()).map_err(BadLayer::Io)?;
    }
    Ok(())
}

fn make_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let directory = openat(parent, name, DIRECTORY, Mode::empty())?;
    fchmod(&directory, Mode::from_raw_mode(0o755))?;
    Ok(directory)
}

/// Makes `directory` a plain copy of `tree`, without its environment files.
///
/// What did not change is cloned where the file system can.
pub(crate) fn merge(tree: &Tree, directory: &Path, cancel: &Cancel) -> Result<(), BadLayer> {
    let listing = tree.list(TreeLimits::default(), cancel)?;
    walk::create_readable(directory).map_err(BadLayer::Io)?;
    let reader = tree.reader()?;
    for entry in &listing.entries {
        if ENVIRONMENT_NAMES.iter().any(|name| is_below(&entry.path, name)) {
            continue;
        }
        let path = directory.join(std::ffi::OsStr::from_bytes(&entry.path));
        match &entry.kind {
            EntryKind::Directory => walk::create_readable(&path).map_err(BadLayer::Io)?,
            EntryKind::Symlink { target } => {
                rustix::fs::symlink(target.as_slice(), &path)?;
            }
            EntryKind::File { execute, .. } => {
                cancel.check().map_err(BadLayer::Cancelled)?;
                let source = reader.open(entry)?;
                let mode = READABLE | Mode::from_raw_mode(*execute);
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut copy = File::from(open(&path, flags, mode)?);
                fchmod(&copy, mode)?;
                io::copy(&mut &source, &mut copy).map_err(BadLayer::Io)?;
            }
            EntryKind::Special(_) => unreachable!("special files are refused when the tree is listed"),
        }
    }
    Ok(())
}

fn is_below(path: &[u8], name: &str) -> bool {
    path.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}
