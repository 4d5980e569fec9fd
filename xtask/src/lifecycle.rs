//! The lifecycle as an archive, in the form that builders are made from, and as an image.
//!
//! # Shape
//! ```text
//! lifecycle-v<version>+linux.x86-64.tgz
//!   lifecycle.toml             version and APIs, as the program itself tells them
//!   lifecycle/
//!     lifecycle                `wapack`, static
//!     lifecycle.sbom.<ext>     what it is made of, in three formats
//!     launcher
//!     launcher.sbom.<ext>
//!     analyzer -> lifecycle    and the other programs
//! lifecycle-v<version>+linux.x86-64.image.tar
//!                              the same below `/cnb`, for `docker load`
//! ```
//!
//! For this machine's architecture, because the program is asked for its own description.

mod image;
mod sbom;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use crate::Result;
use crate::archive::{FIXED_TIME, digest, write_if_changed};
use crate::command::{capture, run as run_command, step};
use crate::embed::{self, static_build};
use crate::setup::{self, ARCHITECTURES, Architecture};
use crate::workspace;

/// Names that the program answers to.
const PROGRAMS: [&str; 8] =
    ["analyzer", "builder", "creator", "detector", "exporter", "extender", "rebaser", "restorer"];

/// Everything that the lifecycle consists of.
struct Contents {
    /// `lifecycle.toml`.
    descriptor: String,
    program: Vec<u8>,
    launcher: Vec<u8>,
    /// File names and contents.
    sboms: Vec<(String, Vec<u8>)>,
}

/// Builds the program and packs it.
pub(crate) fn run() -> Result<()> {
    embed::run()?;
    let architecture = native()?;
    let program = build(architecture)?;
    let launcher = workspace::target().join(format!("embed/launcher/linux-{}", architecture.oci));
    for file in [&program, &launcher] {
        check_static(file)?;
    }
    let ask = |argument: &str| capture(Command::new(&program).args(["lifecycle", argument]));
    let version = ask("-version")?;
    let contents = Contents {
        descriptor: ask("-descriptor")?,
        program: read(&program)?,
        launcher: read(&launcher)?,
        sboms: sboms(architecture)?,
    };
    let archive = pack(&contents).map_err(|error| format!("cannot pack the lifecycle: {error}"))?;
    let name = format!("lifecycle-v{}+linux.{}", version.trim(), platform_name(architecture));
    let image = image::pack(&contents, architecture.oci)?;
    for (name, bytes) in [(format!("{name}.tgz"), archive), (format!("{name}.image.tar"), image)] {
        let path = workspace::target().join("lifecycle").join(&name);
        write_if_changed(&path, &bytes, 0o644)?;
        let sum = format!("{}  {name}\n", digest(&bytes).trim_start_matches("sha256:"));
        write_if_changed(&path.with_file_name(format!("{name}.sha256")), sum.as_bytes(), 0o644)?;
        step(&format!("{} ({} kB)", path.display(), bytes.len() / 1000));
    }
    Ok(())
}

/// Bills of materials of both programs. The first one carries the launcher and the
/// built-in buildpacks with it.
fn sboms(architecture: &Architecture) -> Result<Vec<(String, Vec<u8>)>> {
    let buildpacks = workspace::crates(&workspace::root().join("buildpacks"))?;
    let mut carried = vec!["wapack", "wapack-launcher"];
    carried.extend(buildpacks.iter().map(|(_, package)| package.as_str()));
    let mut files = Vec::new();
    for (name, packages) in [("lifecycle", &carried[..]), ("launcher", &["wapack-launcher"])] {
        let program = sbom::program(name, packages, architecture.target)?;
        files.extend(sbom::documents(&program).map(|(ending, bytes)| (format!("{name}.{ending}"), bytes)));
    }
    Ok(files)
}

/// A program that starts in any image: nothing of it is looked up in the image's own
/// libraries, not even what would start it.
fn check_static(file: &Path) -> Result<()> {
    match needs_loader(&read(file)?) {
        Some(false) => Ok(()),
        Some(true) => Err(format!("`{}` is not static", file.display())),
        None => Err(format!("`{}` is no program", file.display())),
    }
}

/// Whether a 64-bit little-endian ELF file has a program header `INTERP`; `None` for
/// anything else.
fn needs_loader(file: &[u8]) -> Option<bool> {
    const INTERP: u32 = 3;
    let number = |offset: usize, bytes: usize| -> Option<u64> {
        let field = file.get(offset..offset.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let offset = usize::try_from(start.checked_add(index * size)?).ok()?;
        if number(offset, 4)? == u64::from(INTERP) {
            return Some(true);
        }
    }
    Some(false)
}

/// The static program for this machine, made of what was embedded.
pub(crate) fn program() -> Result<PathBuf> {
    build(native()?)
}

fn native() -> Result<&'static Architecture> {
    let mut architectures = ARCHITECTURES.iter();
    let native = architectures.find(|architecture| architecture.is_native());
    native.ok_or_else(|| "there is no lifecycle for this machine's architecture".to_owned())
}

fn build(architecture: &Architecture) -> Result<PathBuf> {
    setup::for_builds()?;
    step(&format!("building wapack for {}", architecture.target));
    run_command(static_build(architecture, "release").args(["--package", "wapack"]))?;
    Ok(workspace::target().join(architecture.target).join("release/wapack"))
}

/// What platforms call an architecture in the names of these archives.
fn platform_name(architecture: &Architecture) -> &'static str {
    match architecture.oci {
        "amd64" => "x86-64",
        other => other,
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(FIXED_TIME);
    header.set_size(size as u64);
    header
}

fn pack(contents: &Contents) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(GzBuilder::new().write(Vec::new(), Compression::best()));
    let descriptor = contents.descriptor.as_bytes();
    archive.append_data(
        &mut header(EntryType::Regular, 0o644, descriptor.len()),
        "lifecycle.toml",
        descriptor,
    )?;
    add_contents(&mut archive, "lifecycle", contents)?;
    archive.into_inner()?.finish()
}

/// The programs and their bills of materials, in a directory.
fn add_contents<W: Write>(archive: &mut Builder<W>, directory: &str, contents: &Contents) -> io::Result<()> {
    archive.append_data(&mut header(EntryType::Directory, 0o755, 0), format!("{directory}/"), io::empty())?;
    let programs = [("launcher", &contents.launcher), ("lifecycle", &contents.program)];
    let programs = programs.map(|(name, bytes)| (name, 0o755, bytes));
    let sboms = contents.sboms.iter().map(|(name, bytes)| (name.as_str(), 0o644, bytes));
    for (name, mode, bytes) in programs.into_iter().chain(sboms) {
        let path = format!("{directory}/{name}");
        archive.append_data(&mut header(EntryType::Regular, mode, bytes.len()), path, &bytes[..])?;
    }
    for name in PROGRAMS {
        let path = format!("{directory}/{name}");
        archive.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, "lifecycle")?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    pub(super) fn contents() -> Contents {
        Contents {
            descriptor: "[apis.platform]\nsupported = [\"0.7\"]\n[lifecycle]\nversion = \"1.2.3-x\"\n".into(),
            program: b"program".to_vec(),
            launcher: b"launcher".to_vec(),
            sboms: vec![("launcher.sbom.cdx.json".into(), b"{}".to_vec())],
        }
    }

    #[test]
    fn cli_13_the_archive_is_what_builders_are_made_from() {
        let packed = pack(&contents()).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
        let mut entries = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let (path, mode) = (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap());
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            let mut bytes = String::new();
            entry.read_to_string(&mut bytes).unwrap();
            entries.push((path, mode, link.unwrap_or(bytes)));
        }
        let entry = |path: &str, mode, rest: &str| (path.to_owned(), mode, rest.to_owned());
        assert_eq!(
            entries[..5],
            [
                entry("lifecycle.toml", 0o644, &contents().descriptor),
                entry("lifecycle/", 0o755, ""),
                entry("lifecycle/launcher", 0o755, "launcher"),
                entry("lifecycle/lifecycle", 0o755, "program"),
                entry("lifecycle/launcher.sbom.cdx.json", 0o644, "{}"),
            ]
        );
        let links: Vec<_> =
            PROGRAMS.iter().map(|name| entry(&format!("lifecycle/{name}"), 0o777, "lifecycle")).collect();
        assert_eq!(entries[5..], links);
        assert_eq!(packed, pack(&contents()).unwrap());
    }

    /// A program of this machine's own C library needs a loader; one with other headers does not.
    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        let file = |kinds: &[u32]| {
            let mut file = vec![0; 64 + 56 * kinds.len()];
            file[..6].copy_from_slice(b"\x7fELF\x02\x01");
            file[32] = 64;
            file[54] = 56;
            file[56] = u8::try_from(kinds.len()).unwrap();
            for (index, kind) in kinds.iter().enumerate() {
                file[64 + 56 * index..][..4].copy_from_slice(&kind.to_le_bytes());
            }
            file
        };
        assert_eq!(needs_loader(&file(&[1, 6, 1])), Some(false));
        assert_eq!(needs_loader(&file(&[6, 3, 1])), Some(true));
        assert_eq!(needs_loader(&file(&[1])[..80]), Some(false));
        assert_eq!(needs_loader(&file(&[1, 1])[..100]), None, "it is cut off");
        assert_eq!(needs_loader(b"#!/bin/sh"), None);
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(needs_loader(&own), Some(cfg!(target_env = "gnu")));
    }
}
