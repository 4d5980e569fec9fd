//! Where Dockerfiles of extensions are. Reads what others wrote: never through a link.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::WalkProblem;
use crate::cnb::api::PlatformApi;
use crate::cnb::dockerfile::DockerfileKind;
use crate::cnb::id::BuildpackId;
use crate::walk::{self, Step};

/// Largest Dockerfile or `extend-config.toml` that is read.
const MAX_BYTES: u64 = 1 << 20;

/// The directory that extensions fill for the extender.
///
/// # Shape
/// ```text
/// <generated>/<id, / as _>/{build.Dockerfile,run.Dockerfile,extend-config.toml,context…}
/// <generated>/{build,run}/<id, / as _>/{Dockerfile,extend-config.toml}    before Platform API 0.13
/// ```
///
/// # Spec
/// EXT-07.
#[derive(Debug, Clone, Copy)]
pub struct GeneratedFiles<'a> {
    root: &'a Path,
    by_kind: bool,
}

/// The text of a Dockerfile and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    pub path: PathBuf,
    pub text: String,
}

impl<'a> GeneratedFiles<'a> {
    /// The directory `root` as `api` has it.
    #[must_use]
    pub fn new(root: &'a Path, api: PlatformApi) -> Self {
        Self { root, by_kind: !api.at_least(13) }
    }

    /// A Dockerfile of an extension; `None` when there is none, or it is ignored.
    ///
    /// # Errors
    /// When it cannot be read, or a link leads to it.
    pub fn read(self, extension: &BuildpackId, kind: DockerfileKind) -> io::Result<Option<Generated>> {
        let relative = self.relative(extension, kind);
        let text = read_beneath(self.root, &relative)?;
        Ok(text.map(|text| Generated { path: self.root.join(relative), text }))
    }

    fn relative(self, extension: &BuildpackId, kind: DockerfileKind) -> PathBuf {
        let name = extension.directory_name();
        match (self.by_kind, kind) {
            (false, _) => Path::new(&name).join(kind.file_name()),
            (true, DockerfileKind::Build) => Path::new("build").join(name).join("Dockerfile"),
            (true, DockerfileKind::Run) => Path::new("run").join(name).join("Dockerfile"),
        }
    }

    /// Where an extension puts what it makes: in the directory itself, or in `work`,
    /// when only some of it is kept.
    pub(super) fn made_by(self, extension: &BuildpackId, work: &Path) -> PathBuf {
        let name = extension.directory_name();
        if self.by_kind { work.join("generated").join(name) } else { self.root.join(name) }
    }

    /// Puts a Dockerfile that was made where the extender looks for it.
    pub(super) fn keep(
        self,
        made: &Path,
        extension: &BuildpackId,
        kind: DockerfileKind,
    ) -> io::Result<PathBuf> {
        let kept = self.root.join(self.relative(extension, kind));
        if self.by_kind {
            let directory = kept.parent().unwrap_or(self.root);
            walk::remove(directory)?;
            fs_err::create_dir_all(directory)?;
            for (from, to) in [(kind.file_name(), "Dockerfile"), ("extend-config.toml", "extend-config.toml")]
            {
                if let Some(text) = read_beneath(made, Path::new(from))? {
                    fs_err::write(directory.join(to), text)?;
                }
            }
        }
        Ok(kept)
    }
}

/// The text of a regular file below `root`. Neither `root` nor a part of the path is a link:
/// whoever made them may be another user than we are.
pub(super) fn read_beneath(root: &Path, relative: &Path) -> io::Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(root, flags | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
    {
        Err(Errno::NOENT) => return Ok(None),
        directory => directory?,
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&directory, relative, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => return Ok(None),
        file => File::from(file?),
    };
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    if !file.metadata()?.is_file() {
        return Err(invalid("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(invalid("larger than 1 MiB"));
    }
    String::from_utf8(text).map(Some).map_err(|_| invalid("not UTF-8"))
}

/// Copies a tree into an empty directory; that there is none is no error. Links stay links.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), WalkProblem> {
    if from.symlink_metadata().is_err() {
        return Ok(());
    }
    walk::walk(from, |entry| -> Result<Step, WalkProblem> {
        let (source, target) = (from.join(entry.path), to.join(entry.path));
        match entry.status.kind {
            FileType::Directory => fs_err::create_dir(target)?,
            FileType::RegularFile => drop(fs_err::copy(source, target)?),
            FileType::Symlink => {
                let link =
                    rustix::fs::readlinkat(entry.parent, entry.name, Vec::new()).map_err(io::Error::from)?;
                let link = std::ffi::OsStr::from_bytes(link.as_bytes());
                fs_err::os::unix::fs::symlink(link, target)?;
            }
            _ => {}
        }
        Ok(Step::Into)
    })
}
