//! What is built into this program: the default builder and the launcher.
//!
//! Bytes only; which buildpacks they are is not known here.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path};

use flate2::read::GzDecoder;
use tar::{Archive, EntryType};

/// The default builder directory, as `tar.gz`.
const BUILDER_ARCHIVE: &[u8] = include_bytes!(concat!(env!("WAPACK_EMBED_DIR"), "/builder.tar.gz"));

/// Digest of [`BUILDER_ARCHIVE`], so that an unpacked copy can be found again without reading the archive.
pub(crate) const BUILDER_DIGEST: &str = env!("WAPACK_BUILDER_DIGEST");

/// The launcher for images of `linux/amd64`.
const LAUNCHER_AMD64: &[u8] = include_bytes!(concat!(env!("WAPACK_EMBED_DIR"), "/launcher/linux-amd64"));

/// The launcher for images of `linux/arm64`.
const LAUNCHER_ARM64: &[u8] = include_bytes!(concat!(env!("WAPACK_EMBED_DIR"), "/launcher/linux-arm64"));

/// Unpacks the default builder into an empty directory. Modes are those of the
/// archive, whatever the umask: some files end in images, and a worker under
/// another user reads them all.
pub(crate) fn unpack_builder(directory: &Path) -> io::Result<()> {
    let mode = |path: &Path, mode| fs_err::set_permissions(path, Permissions::from_mode(mode));
    mode(directory, 0o755)?;
    let mut archive = Archive::new(GzDecoder::new(BUILDER_ARCHIVE));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        // Ours, so this never happens; a path that leaves would be worse than an error.
        if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{}`", path.display())));
        }
        let target = directory.join(&path);
        let parents: Vec<&Path> = target.ancestors().skip(1).take_while(|path| *path != directory).collect();
        for parent in parents.into_iter().rev().filter(|parent| !parent.is_dir()) {
            fs_err::create_dir(parent)?;
            mode(parent, 0o755)?;
        }
        match entry.header().entry_type() {
            EntryType::Regular => {
                io::copy(&mut entry, fs_err::File::create_new(&target)?.file_mut())?;
                mode(&target, if entry.header().mode()? & 0o100 == 0 { 0o644 } else { 0o755 })?;
            }
            EntryType::Directory if target.is_dir() => {}
            EntryType::Directory => {
                fs_err::create_dir(&target)?;
                mode(&target, 0o755)?;
            }
            other => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{other:?}"))),
        }
    }
    Ok(())
}

/// The launcher for images of an architecture, by its OCI name.
pub(crate) fn launcher(arch: &str) -> Option<&'static [u8]> {
    match arch {
        "amd64" => Some(LAUNCHER_AMD64),
        "arm64" => Some(LAUNCHER_ARM64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_unpacks_to_what_everybody_can_read() {
        let temp = tempfile::tempdir().unwrap();
        unpack_builder(temp.path()).unwrap();
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(temp.path()), 0o755);
        assert_eq!(mode(&temp.path().join("order.toml")), 0o644);
        assert_eq!(mode(&temp.path().join("buildpacks")), 0o755);
    }

    /// It is in every image, and the run image need not hold anything for it.
    #[test]
    fn launchers_are_small_and_static() {
        const LOAD: usize = 1;
        const INTERPRETER: usize = 3;
        for arch in ["amd64", "arm64"] {
            let bytes = launcher(arch).unwrap();
            assert!(bytes.len() < 1_000_000, "{arch}: {} bytes", bytes.len());
            // Of a 64-bit ELF: where the program headers are, how long one is and how many there are.
            let number = |at: usize, length: usize| {
                bytes[at..at + length].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
            };
            let (start, length, count) = (number(32, 8), number(54, 2), number(56, 2));
            let kinds: Vec<usize> = (0..count).map(|index| number(start + index * length, 4)).collect();
            assert!(kinds.contains(&LOAD) && !kinds.contains(&INTERPRETER), "{arch}: {kinds:?}");
        }
    }
}
