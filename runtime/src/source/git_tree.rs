//! One hash of everything that takes part, as Git would compute it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::error::{SourceError, shown};
use super::{Source, image_mode};
use crate::cancel::Cancel;
use crate::walk::{self, Entry, Status, Step};

/// The name of an object.
type ObjectId = [u8; 32];

/// An entry of a tree object.
struct TreeEntry {
    name: OsString,
    /// As Git writes it: `100644`.
    mode: &'static str,
    object: ObjectId,
}

impl TreeEntry {
    /// Git sorts directories as if their names ended with a slash.
    fn order(&self) -> Vec<u8> {
        let mut name = self.name.as_bytes().to_vec();
        if self.mode == DIRECTORY {
            name.push(b'/');
        }
        name
    }
}

const DIRECTORY: &str = "40000";

impl Source {
    /// The hash of a Git tree object with everything that takes part, in a repository of
    /// object format SHA-256: names, contents, links, and what is executable, but no
    /// empty directories. Whether there is such a repository does not matter. In
    /// hexadecimal digits.
    ///
    /// # Spec
    /// in-toto attestation framework v1 `digest_set.md`, `gitTree`.
    ///
    /// # Errors
    /// [`SourceError`]; also when a file changes meanwhile.
    pub fn git_tree(&self, cancel: &Cancel) -> Result<String, SourceError> {
        let mut trees: BTreeMap<PathBuf, Vec<TreeEntry>> = BTreeMap::from([(PathBuf::new(), vec![])]);
        walk::walk::<SourceError>(&self.root, |entry| {
            cancel.check()?;
            if self.hidden.contains(entry.path) {
                return Ok(Step::Over);
            }
            let (mode, object) = match entry.status.kind {
                FileType::Directory => {
                    trees.insert(entry.path.to_owned(), vec![]);
                    return Ok(Step::Into);
                }
                FileType::RegularFile => {
                    let mode = if image_mode(entry.status.mode) == 0o755 { "100755" } else { "100644" };
                    (mode, self.file(entry, cancel)?)
                }
                FileType::Symlink => {
                    let target = rustix::fs::readlinkat(entry.parent, entry.name, Vec::new())
                        .map_err(|error| self.unreadable(entry.path, error.into()))?;
                    ("120000", object("blob", target.as_bytes()))
                }
                _ => return Err(SourceError::Changed { path: shown(entry.path) }),
            };
            let parent = entry.path.parent().unwrap_or(Path::new(""));
            trees.entry(parent.to_owned()).or_default().push(TreeEntry {
                name: entry.name.to_owned(),
                mode,
                object,
            });
            Ok(Step::Into)
        })?;
        // The last one has nothing below it: what was comes after it, and is in it by now.
        while let Some((path, entries)) = trees.pop_last() {
            let Some((parent, name)) = path.parent().zip(path.file_name()) else {
                return Ok(walk::hex(&tree(entries)));
            };
            if !entries.is_empty() {
                let entry = TreeEntry { name: name.to_owned(), mode: DIRECTORY, object: tree(entries) };
                trees.entry(parent.to_owned()).or_default().push(entry);
            }
        }
        Ok(walk::hex(&tree(vec![])))
    }

    fn file(&self, entry: &Entry<'_>, cancel: &Cancel) -> Result<ObjectId, SourceError> {
        let failed = |error: std::io::Error| self.unreadable(entry.path, error);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(entry.parent, entry.name, flags, Mode::empty())
            .map_err(|error| failed(error.into()))?;
        let mut file = std::fs::File::from(file);
        let status = Status::of_open(&file).map_err(failed)?;
        let mut hasher = Sha256::new();
        hasher.update(format!("blob {}\0", status.size).as_bytes());
        let mut buffer = vec![0; 256 << 10];
        let mut size = 0;
        loop {
            cancel.check()?;
            let read = file.read(&mut buffer).map_err(failed)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            size += read as u64;
        }
        if size != status.size {
            return Err(SourceError::Changed { path: shown(entry.path) });
        }
        Ok(hasher.finalize().into())
    }

    fn unreadable(&self, path: &Path, source: std::io::Error) -> SourceError {
        SourceError::Io { path: self.root.join(path), source }
    }
}

fn tree(mut entries: Vec<TreeEntry>) -> ObjectId {
    entries.sort_by_cached_key(TreeEntry::order);
    let mut contents = Vec::new();
    for entry in &entries {
        contents.extend_from_slice(entry.mode.as_bytes());
        contents.push(b' ');
        contents.extend_from_slice(entry.name.as_bytes());
        contents.push(0);
        contents.extend_from_slice(&entry.object);
    }
    object("tree", &contents)
}

/// The hash of a Git object.
fn object(kind: &str, contents: &[u8]) -> ObjectId {
    let mut hasher = Sha256::new();
    hasher.update(format!("{kind} {}\0", contents.len()).as_bytes());
    hasher.update(contents);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::process::Command;

    use super::super::Selection;
    use super::*;

    fn git(directory: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What Git itself computes of the same files.
    #[test]
    fn it_is_what_git_says() {
        let temp = tempfile::tempdir().unwrap();
        let write = |name: &str, contents: &[u8], mode: u32| {
            let path = temp.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, contents).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        // As names `a.b` < `a/` < `a0`, unlike as texts `a` < `a.b`.
        for (name, mode) in [("a/x", 0o644), ("a.b", 0o755), ("a0", 0o600), ("ä/deep/er", 0o644)] {
            write(name, name.as_bytes(), mode);
        }
        write("empty", b"", 0o644);
        write("large", &b"7".repeat(600_000), 0o644);
        std::fs::create_dir_all(temp.path().join("nothing/below")).unwrap();
        symlink("../no/where", temp.path().join("a/link")).unwrap();
        let hash = || {
            let source = Source::scan(temp.path(), &Selection::default(), &Cancel::default()).unwrap();
            source.git_tree(&Cancel::default()).unwrap()
        };
        let mut before = hash();
        git(temp.path(), &["init", "--quiet", "--object-format=sha256"]);
        git(temp.path(), &["add", "--all", "--force"]);
        assert_eq!(before, git(temp.path(), &["write-tree"]));
        // The repository takes no part.
        assert_eq!(hash(), before);
        for (name, contents, mode) in
            [("a0", "a1", 0o600), ("a0", "a1", 0o755), ("nothing/below/it", "", 0o644)]
        {
            write(name, contents.as_bytes(), mode);
            git(temp.path(), &["add", "--all", "--force"]);
            let changed = hash();
            assert_ne!(changed, before, "{name} {mode:o}");
            assert_eq!(changed, git(temp.path(), &["write-tree"]), "{name} {mode:o}");
            before = changed;
        }
        // Nothing of what is ignored is in it.
        write(".dockerignore", b"large\n", 0o644);
        let without = hash();
        write("large", b"other", 0o644);
        assert_eq!(hash(), without);
    }
}
