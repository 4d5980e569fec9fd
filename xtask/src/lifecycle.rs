//! The lifecycle as an archive, in the form that builders are made from.
//!
//! # Shape
//! ```text
//! lifecycle-v<version>+linux.x86-64.tgz
//!   lifecycle.toml             version and APIs, as the program itself tells them
//!   lifecycle/
//!     lifecycle                `wapack`, static
//!     launcher
//!     analyzer -> lifecycle    and the other programs
//! ```
//!
//! For this machine's architecture, because the program is asked for its own description.

use std::fs;
use std::path::PathBuf;
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

/// Builds the program and packs it.
pub(crate) fn run() -> Result<()> {
    embed::run()?;
    let architecture = native()?;
    let program = build(architecture)?;
    let ask = |argument: &str| capture(Command::new(&program).args(["lifecycle", argument]));
    let (version, descriptor) = (ask("-version")?, ask("-descriptor")?);
    let launcher = workspace::target().join(format!("embed/launcher/linux-{}", architecture.oci));

    let archive = pack(&descriptor, &read(&program)?, &read(&launcher)?)
        .map_err(|error| format!("cannot pack the lifecycle: {error}"))?;
    let name = format!("lifecycle-v{}+linux.{}.tgz", version.trim(), platform_name(architecture));
    let path = workspace::target().join("lifecycle").join(&name);
    write_if_changed(&path, &archive, 0o644)?;
    let sum = format!("{}  {name}\n", digest(&archive).trim_start_matches("sha256:"));
    write_if_changed(&path.with_file_name(format!("{name}.sha256")), sum.as_bytes(), 0o644)?;
    step(&format!("{} ({} kB)", path.display(), archive.len() / 1000));
    Ok(())
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

fn pack(descriptor: &str, program: &[u8], launcher: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut archive = Builder::new(GzBuilder::new().write(Vec::new(), Compression::best()));
    let header = |kind, mode, size: usize| {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(FIXED_TIME);
        header.set_size(size as u64);
        header
    };
    for (name, mode, bytes) in [
        ("lifecycle.toml", 0o644, descriptor.as_bytes()),
        ("lifecycle/", 0o755, &[]),
        ("lifecycle/launcher", 0o755, launcher),
        ("lifecycle/lifecycle", 0o755, program),
    ] {
        let kind = if name.ends_with('/') { EntryType::Directory } else { EntryType::Regular };
        archive.append_data(&mut header(kind, mode, bytes.len()), name, bytes)?;
    }
    for name in PROGRAMS {
        let path = format!("lifecycle/{name}");
        archive.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, "lifecycle")?;
    }
    archive.into_inner()?.finish()
}

fn read(file: &std::path::Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn cli_13_the_archive_is_what_builders_are_made_from() {
        let packed = pack("[lifecycle]\n", b"program", b"launcher").unwrap();
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
            entries[..4],
            [
                entry("lifecycle.toml", 0o644, "[lifecycle]\n"),
                entry("lifecycle/", 0o755, ""),
                entry("lifecycle/launcher", 0o755, "launcher"),
                entry("lifecycle/lifecycle", 0o755, "program"),
            ]
        );
        let links: Vec<_> =
            PROGRAMS.iter().map(|name| entry(&format!("lifecycle/{name}"), 0o777, "lifecycle")).collect();
        assert_eq!(entries[4..], links);
        assert_eq!(packed, pack("[lifecycle]\n", b"program", b"launcher").unwrap());
    }
}
