//! A host for native tests: real files, layers remembered from one build of a
//! [`Project`](crate::testing::Project) to the next. It knows the contract, not
//! the real host: it enforces no limits and no grants.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use fs_err as fs;
use sha2::{Digest, Sha256};

use crate::downloads::Artifact;
use crate::error::Error;
use crate::files::{Summary, Unpack};
use crate::layer::{LayerState, LayerTypes, hex};

/// What is known of a layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerRecord {
    pub(crate) types: LayerTypes,
    pub(crate) key: String,
    pub(crate) metadata: String,
}

/// The host of one project. Clones share what it knows.
#[derive(Debug, Clone)]
pub(crate) struct Host(Rc<State>);

#[derive(Debug)]
struct State {
    layers_directory: PathBuf,
    /// Layers of the last build.
    restored: RefCell<BTreeMap<String, LayerRecord>>,
    /// Layers opened in this build.
    opened: RefCell<BTreeMap<String, LayerRecord>>,
    /// Directories that stand in for sources.
    sources: RefCell<BTreeMap<String, PathBuf>>,
}

impl Host {
    pub(crate) fn new(layers_directory: PathBuf) -> Self {
        Self(Rc::new(State {
            layers_directory,
            restored: RefCell::default(),
            opened: RefCell::default(),
            sources: RefCell::default(),
        }))
    }

    pub(crate) fn add_source(&self, name: String, directory: PathBuf) {
        self.0.sources.borrow_mut().insert(name, directory);
    }

    pub(crate) fn restored(&self) -> BTreeMap<String, LayerRecord> {
        self.0.restored.borrow().clone()
    }

    /// Forgets the layers that an unfinished build opened.
    pub(crate) fn begin(&self) {
        self.0.opened.borrow_mut().clear();
    }

    /// Remembers what a build returned, and removes the directories of the rest.
    pub(crate) fn finish(&self, metadata: &BTreeMap<String, String>) -> Result<(), Error> {
        let mut restored = BTreeMap::new();
        for (name, mut record) in self.0.opened.take() {
            let returned = metadata.get(&name);
            if returned.is_none_or(|_| !record.types.cache) {
                remove_tree(&self.0.layers_directory.join(&name))?;
            }
            if let Some(metadata) = returned.filter(|_| record.types.cache || record.types.launch) {
                record.metadata.clone_from(metadata);
                restored.insert(name, record);
            }
        }
        self.0.restored.replace(restored);
        Ok(())
    }

    pub(crate) fn open_layer(&self, name: &str, types: LayerTypes, key: &str) -> Result<LayerState, Error> {
        let is_file_name = matches!(
            Path::new(name).components().collect::<Vec<_>>().as_slice(),
            [Component::Normal(only)] if *only == name
        );
        if !is_file_name || ["build", "launch", "store"].contains(&name.to_ascii_lowercase().as_str()) {
            return Err(Error::buildpack(format!("layer name `{name}` is not valid")));
        }
        let record = LayerRecord { types, key: key.to_owned(), metadata: String::new() };
        if self.0.opened.borrow_mut().insert(name.to_owned(), record).is_some() {
            return Err(Error::buildpack(format!("the layer `{name}` was opened twice")));
        }

        let restored = self.0.restored.borrow();
        let same = restored.get(name).is_some_and(|last| last.types == types && last.key == key);
        if same && types.cache {
            return Ok(LayerState::Restored);
        }
        let directory = self.0.layers_directory.join(name);
        remove_tree(&directory)?;
        // Later buildpacks need the contents of a build layer, so it cannot be kept.
        if same && types.launch && !types.build {
            return Ok(LayerState::Kept);
        }
        fs::create_dir_all(directory)?;
        Ok(LayerState::Filled)
    }

    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the real host has it")]
    pub(crate) fn update_layer(&self, _name: &str) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn fetch(&self, artifacts: &[Artifact]) -> Result<(), Error> {
        for artifact in artifacts {
            let sources = self.0.sources.borrow();
            let source = sources.get(&artifact.source).ok_or_else(|| {
                Error::host("source.unset", &format!("the test has no source `{}`", artifact.source), None)
                    .hint("give it one with `Project::source`")
            })?;
            let file = source.join(&artifact.path);
            if !file.is_file() {
                let message = format!("the source `{}` has no `{}`", artifact.source, artifact.path);
                return Err(Error::host("source.not_found", &message, None));
            }
            match &artifact.unpack {
                Some(how) => {
                    unpack(&file, &artifact.destination, how)?;
                }
                None => {
                    fs::copy(file, &artifact.destination)?;
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn set_executable(path: &Path, executable: bool) -> Result<(), Error> {
    let mode = if executable { 0o755 } else { 0o644 };
    Ok(fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<Summary, Error> {
    if to.symlink_metadata().is_ok() {
        return Err(Error::buildpack(format!("`{}` is there already", to.display())));
    }
    let mut summary = Summary::default();
    for (path, metadata) in walk(from)? {
        let target = match path.strip_prefix(from) {
            Ok(rest) if !rest.as_os_str().is_empty() => to.join(rest),
            _ => to.to_owned(),
        };
        summary.entries += 1;
        if metadata.is_dir() {
            fs::create_dir(target)?;
        } else if metadata.is_symlink() {
            fs_err::os::unix::fs::symlink(fs::read_link(path)?, target)?;
        } else {
            summary.bytes += fs::copy(path, target)?;
        }
    }
    Ok(summary)
}

pub(crate) fn hash_tree(path: &Path) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (entry, metadata) in walk(path)? {
        field(entry.strip_prefix(path).unwrap_or(&entry).as_os_str().as_bytes());
        if metadata.is_dir() {
            field(b"directory");
        } else if metadata.is_symlink() {
            field(b"link");
            field(fs::read_link(entry)?.as_os_str().as_bytes());
        } else {
            field(if metadata.permissions().mode() & 0o100 == 0 { b"file" } else { b"program" });
            field(&fs::read(entry)?);
        }
    }
    Ok(format!("sha256:{}", hex(&hash.finalize())))
}

/// Unpacks a tar, plain or compressed with gzip: of the real host's formats, what
/// tests of buildpacks make themselves.
pub(crate) fn unpack(archive: &Path, destination: &Path, how: &Unpack) -> Result<Summary, Error> {
    let mut file = fs::File::open(archive)?;
    let mut magic = [0; 2];
    let is_gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.seek(SeekFrom::Start(0))?;
    let reader: Box<dyn Read> =
        if is_gzip { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };

    fs::create_dir_all(destination)?;
    let mut summary = Summary::default();
    // Files under a name that the archive does not have.
    let mut renamed = BTreeSet::new();
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        if how.skip_links && (kind.is_symlink() || kind.is_hard_link()) {
            continue;
        }
        let path: PathBuf = entry
            .path()?
            .components()
            .filter(|part| *part != Component::CurDir)
            .skip(how.strip_components as usize)
            .collect();
        if path.as_os_str().is_empty() {
            continue;
        }
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(Error::app(format!("the archive has an entry outside itself: `{}`", path.display())));
        }
        let mut target = destination.join(path);
        if let Some(name) = new_name(&target, how).filter(|_| kind.is_file()) {
            target.set_file_name(name);
            // An entry that has the name itself wins, whichever comes first.
            if target.symlink_metadata().is_ok() {
                continue;
            }
            renamed.insert(target.clone());
        } else if renamed.remove(&target) {
            summary.entries -= 1;
            summary.bytes -= fs::symlink_metadata(&target)?.len();
            fs::remove_file(&target)?;
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        summary.entries += 1;
        summary.bytes += entry.size();
        let mode = entry.header().mode()?;
        entry.unpack(&target)?;
        if kind.is_file() {
            let mode = 0o644 | (mode & 0o111);
            fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(summary)
}

/// What a file is called instead of its own name.
fn new_name<'a>(path: &Path, how: &'a Unpack) -> Option<&'a str> {
    let name = path.file_name()?.to_str()?;
    how.rename.iter().find(|(from, to)| from == name && from != to).map(|(_, to)| to.as_str())
}

/// `root` and everything below it, parents first, sorted by name.
fn walk(root: &Path) -> Result<Vec<(PathBuf, std::fs::Metadata)>, Error> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
        found.push((path, metadata));
    }
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    Ok(found)
}

fn remove_tree(path: &Path) -> Result<(), Error> {
    if path.symlink_metadata().is_ok() { Ok(fs::remove_dir_all(path)?) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tarball_unpacks_as_the_real_host_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, mode, contents: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_size(contents.len() as u64);
            header.set_mode(mode);
            builder.append_data(&mut header, name, contents).unwrap();
        };
        add("package/a/.gitignore", 0o600, b"git");
        add("package/b/.gitignore", 0o600, b"git");
        add("package/b/.npmignore", 0o600, b"own");
        add("package/c/.npmignore", 0o600, b"own");
        add("package/c/.gitignore", 0o600, b"git");
        add("package/cli", 0o700, b"");
        let mut link = tar::Header::new_ustar();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        builder.append_link(&mut link, "package/link", "/etc/passwd").unwrap();
        let archive = directory.path().join("archive");
        fs::write(&archive, builder.into_inner().unwrap()).unwrap();

        let out = directory.path().join("out");
        let how = Unpack::strip(1).without_links().renaming(".gitignore", ".npmignore");
        let summary = unpack(&archive, &out, &how).unwrap();
        assert_eq!(summary, Summary { entries: 4, bytes: 9 });
        for (name, contents) in [("a", "git"), ("b", "own"), ("c", "own")] {
            assert_eq!(fs::read_to_string(out.join(name).join(".npmignore")).unwrap(), contents);
            assert_eq!(fs::read_dir(out.join(name)).unwrap().count(), 1);
        }
        let mode = |name| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("cli"), mode("a/.npmignore")), (0o744, 0o644));
        assert!(out.join("link").symlink_metadata().is_err());
    }
}
