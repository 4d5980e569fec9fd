//! Bills of materials of the lifecycle itself and of its launcher.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use crate::cnb::sbom::SbomFormat;
use crate::event::{Event, EventSink};

/// Where they are when nothing else is said.
const DEFAULT_DIRECTORY: &str = "/cnb/lifecycle";
/// The name of the lifecycle's directory among those of buildpacks.
const OWN_DIRECTORY: &str = "buildpacksio_lifecycle";
/// Real ones are some hundred kilobytes.
const MAX_BYTES: u64 = 64 << 20;

const FORMATS: [SbomFormat; 3] = [SbomFormat::CycloneDx, SbomFormat::Spdx, SbomFormat::Syft];

/// Why they could not be put where they belong.
#[derive(Debug, thiserror::Error)]
#[error("cannot copy the bill of materials `{}`", path.display())]
pub struct SbomError {
    path: PathBuf,
    source: io::Error,
}

/// Copies them among those of the buildpacks. What is missing is a warning.
///
/// # Shape
/// `<default>/lifecycle.sbom.<ext>` → `<layers>/sbom/build/buildpacksio_lifecycle/sbom.<ext>`;
/// `<launcher>/launcher.sbom.<ext>`, or whatever ends in `sbom.<ext>` where the platform has
/// a directory of its own for it → `<layers>/sbom/launch/buildpacksio_lifecycle/launcher/sbom.<ext>`.
///
/// # Spec
/// SBOM-11.
pub(super) fn copy(layers: &Path, launcher: &Path, events: &mut dyn EventSink) -> Result<(), SbomError> {
    copy_as(Path::new(DEFAULT_DIRECTORY), launcher, layers, events)
}

fn copy_as(own: &Path, launcher: &Path, layers: &Path, events: &mut dyn EventSink) -> Result<(), SbomError> {
    let mut found = named(own, "lifecycle", events);
    copy_all(layers, &["build", OWN_DIRECTORY], &found)?;
    found = if launcher == own { named(own, "launcher", events) } else { any(launcher, events) };
    copy_all(layers, &["launch", OWN_DIRECTORY, "launcher"], &found)
}

type Found = Vec<(SbomFormat, PathBuf)>;

fn named(directory: &Path, component: &str, events: &mut dyn EventSink) -> Found {
    let mut found = Vec::new();
    for format in FORMATS {
        let path = directory.join(format!("{component}.sbom.{}", format.extension()));
        if path.is_file() {
            found.push((format, path));
        } else {
            let message = format!("there is no bill of materials `{}`", path.display());
            events.event(Event::Warning { message });
        }
    }
    found
}

/// The files of a directory that only has those of the launcher.
fn any(directory: &Path, events: &mut dyn EventSink) -> Found {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            let message = format!("there are no bills of materials of the launcher: {error}");
            events.event(Event::Warning { message });
            return vec![];
        }
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let format_of = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        FORMATS.into_iter().find(|format| name.ends_with(&format!("sbom.{}", format.extension())))
    };
    paths
        .into_iter()
        .filter(|path| path.is_file())
        .filter_map(|path| Some((format_of(&path)?, path)))
        .collect()
}

fn copy_all(layers: &Path, below: &[&str], found: &Found) -> Result<(), SbomError> {
    for (format, path) in found {
        let failed = |source| SbomError { path: path.clone(), source };
        let mut bytes = Vec::new();
        fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)).map_err(failed)?;
        let directory = make_directory(layers, below).map_err(|error| failed(error.into()))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = format!("sbom.{}", format.extension());
        let file = openat(&directory, name, flags, Mode::from_raw_mode(0o644));
        let mut file = std::fs::File::from(file.map_err(|error| failed(error.into()))?);
        file.write_all(&bytes).map_err(failed)?;
    }
    Ok(())
}

/// Opens `<layers>/sbom/<below…>`, made where it is missing. A buildpack may have
/// put a link there; it is not followed.
fn make_directory(layers: &Path, below: &[&str]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory = openat(CWD, layers, flags, Mode::empty())?;
    for name in std::iter::once(&"sbom").chain(below) {
        match mkdirat(&directory, *name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        directory = openat(&directory, *name, flags | OFlags::NOFOLLOW, Mode::empty())?;
    }
    Ok(directory)
}
