//! Directories that are made once from a digest, and digests of files elsewhere.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation};
use serde::{Deserialize, Serialize};

use super::files::{self, Seal, hash_of};
use super::inventory::tree_bytes;
use super::{Store, StoreError, work};
use crate::walk::{self, Step, WalkError};

/// What an unpacked builder looked like when it was known to be whole.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct BuilderRecord {
    digest: String,
    /// Hash over path, mode and seal of every entry.
    seal: String,
}

/// What the digest of a file elsewhere was.
#[derive(Serialize, Deserialize)]
struct DigestRecord {
    path: PathBuf,
    device: (u32, u32),
    modified: (i64, u32),
    seal: Seal,
    digest: String,
}

impl Store {
    /// The directory for `digest`, filled by `fill` unless an earlier call did
    /// and nothing in it was touched since. Appears whole or not at all.
    ///
    /// # Errors
    /// What `fill` returns, and [`StoreError`] when the store cannot be written.
    pub fn builder<E: From<StoreError>>(
        &self,
        digest: &str,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let hash = hash_of(&[digest]);
        let directory = self.root().join("builders").join(&hash);
        let record_name = format!("builders/{hash}.json");
        let failed = |error| StoreError::io("make the directory", &directory, error);
        self.leases.take(&format!("builders/{hash}"));
        if self.builder_is_whole(digest, &hash) {
            return Ok(directory);
        }
        // One process at a time, so that nobody takes a half-recorded directory for a damaged one.
        let parent = self.root().join("builders");
        let lock = work::lock(&parent, FlockOperation::LockExclusive).map_err(failed)?;
        if self.builder_is_whole(digest, &hash) {
            return Ok(directory);
        }
        let is_there = |path: &Path| walk::Status::of(path).is_ok();
        if is_there(&self.root().join(&record_name)) {
            self.discard(&directory);
        } else if is_there(&directory) {
            // What was killed between the two, making or collecting it, has done no damage.
            let _ = walk::remove(&directory);
        }
        let work = self.work_dir()?;
        let fresh = work.path().join("builder");
        files::create_private(&fresh).map_err(failed)?;
        fill(&fresh)?;
        sync_tree(&fresh).map_err(failed)?;
        fs_err::rename(&fresh, &directory).map_err(failed)?;
        files::sync_directory(&parent).map_err(failed)?;
        self.growth.add(tree_bytes(&directory));
        let seal = seal_of_tree(&directory).map_err(|error| failed(io::Error::other(error)))?;
        self.write_record(&record_name, &BuilderRecord { digest: digest.to_owned(), seal })?;
        drop(lock);
        Ok(directory)
    }

    fn builder_is_whole(&self, digest: &str, hash: &str) -> bool {
        self.read_record::<BuilderRecord>(&format!("builders/{hash}.json")).is_some_and(|record| {
            record.digest == digest
                && seal_of_tree(&self.root().join("builders").join(hash)).ok() == Some(record.seal)
        })
    }

    /// `sha256:<hex>` of a file elsewhere. Reads it only when it may have
    /// changed since the last call, going by device, inode, size and times.
    ///
    /// # Errors
    /// When the file cannot be read or is no regular file.
    pub fn digest_of_file(&self, path: &Path) -> io::Result<String> {
        let name = format!("digests/{}", hash_of(&[&path.to_string_lossy()]));
        let file = std::fs::File::open(path)?;
        let before = walk::Status::of_open(&file)?;
        if before.kind != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let seal = Seal::from_status(&before);
        if let Some(record) = self.read_record::<DigestRecord>(&name)
            && record.path == path
            && record.device == before.device
            && record.modified == before.modified
            && record.seal == seal
        {
            return Ok(record.digest);
        }
        let (digest, _) = files::digest_of(&file)?;
        // A file that was just changed may change again within the same tick of its clock.
        let settled = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .is_ok_and(|now| now.as_secs().cast_signed() > before.changed.0 + 1);
        if settled && walk::Status::of_open(&file)? == before {
            let record = DigestRecord {
                path: path.to_owned(),
                device: before.device,
                modified: before.modified,
                seal,
                digest: digest.clone(),
            };
            // Without the record the file is read again next time, no worse.
            let _ = self.write_record(&name, &record);
        }
        Ok(digest)
    }
}

/// A hash over what `stat` says of every entry.
fn seal_of_tree(root: &Path) -> Result<String, WalkError> {
    use sha2::Digest;
    let mut hasher = sha2::Sha256::new();
    walk::walk::<WalkError>(root, |entry| {
        let path = entry.path.as_os_str().as_encoded_bytes();
        hasher.update((path.len() as u64).to_le_bytes());
        hasher.update(path);
        hasher.update(format!("{:?}", entry.status).as_bytes());
        Ok(Step::Into)
    })?;
    Ok(walk::hex(&hasher.finalize()))
}

/// Flushes every file and directory of a small tree.
fn sync_tree(root: &Path) -> io::Result<()> {
    walk::walk::<WalkError>(root, |entry| {
        if matches!(entry.status.kind, FileType::RegularFile | FileType::Directory) {
            std::fs::File::open(root.join(entry.path))
                .and_then(|file| file.sync_all())
                .map_err(|source| WalkError::Io { path: entry.path.to_owned(), source })?;
        }
        Ok(Step::Into)
    })
    .map_err(io::Error::other)?;
    files::sync_directory(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "the shape `builder` asks for")]
    fn fill(directory: &Path) -> Result<(), StoreError> {
        std::fs::create_dir(directory.join("buildpacks")).unwrap();
        std::fs::write(directory.join("order.toml"), "order").unwrap();
        std::fs::write(directory.join("buildpacks/a"), "a").unwrap();
        Ok(())
    }

    fn never(_: &Path) -> Result<(), StoreError> {
        panic!("filled again")
    }

    #[test]
    fn a_builder_is_filled_once_and_again_after_damage() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let directory = store.builder("sha256:b", fill).unwrap();
        assert_eq!(store.builder("sha256:b", never).unwrap(), directory);
        let damages: [fn(&Path); 5] = [
            |directory| std::fs::write(directory.join("buildpacks/a"), "b").unwrap(),
            |directory| std::fs::remove_file(directory.join("order.toml")).unwrap(),
            |directory| std::fs::write(directory.join("buildpacks/extra"), "").unwrap(),
            |directory| std::fs::remove_dir_all(directory).unwrap(),
            |directory| std::fs::write(directory.with_extension("json"), "{}").unwrap(),
        ];
        for (index, damage) in damages.iter().enumerate() {
            damage(&directory);
            store.builder("sha256:b", fill).unwrap();
            assert_eq!(std::fs::read(directory.join("buildpacks/a")).unwrap(), b"a", "damage {index}");
            assert!(!directory.join("buildpacks/extra").exists());
            store.builder("sha256:b", never).unwrap();
        }
    }

    /// K1: it is mentioned in a record last when it is made, and first not any more when it goes.
    #[test]
    fn k1_a_builder_without_a_record_is_made_anew_without_a_word() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let directory = store.builder("sha256:b", fill).unwrap();
        std::fs::remove_file(directory.with_extension("json")).unwrap();
        std::fs::write(directory.join("buildpacks/extra"), "").unwrap();
        store.builder("sha256:b", fill).unwrap();
        assert!(!directory.join("buildpacks/extra").exists());
        assert_eq!(store.take_warnings(), Vec::<String>::new());
        // With one it is damage.
        std::fs::write(directory.join("buildpacks/extra"), "").unwrap();
        store.builder("sha256:b", fill).unwrap();
        assert_eq!(store.take_warnings().len(), 1);
    }

    #[test]
    fn a_fill_that_fails_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let failure = || StoreError::Tree { path: PathBuf::new(), what: "no".into() };
        store.builder("sha256:b", |_| Err::<(), _>(failure())).unwrap_err();
        assert_eq!(std::fs::read_dir(temp.path().join("builders")).unwrap().count(), 0);
        store.builder("sha256:b", fill).unwrap();
    }

    #[test]
    fn a_digest_follows_its_file_and_a_settled_file_is_not_read_again() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&temp.path().join("store")).unwrap();
        let path = temp.path().join("buildpack.wasm");
        std::fs::write(&path, "hello\n").unwrap();
        let hello = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(store.digest_of_file(&path).unwrap(), hello);
        // `printf 'world\n' | sha256sum`, within the same second
        std::fs::write(&path, "world\n").unwrap();
        let world = "sha256:e258d248fda94c63753607f7c4494ee0fcbe92f1a76bfdac795c9d84101eb317";
        assert_eq!(store.digest_of_file(&path).unwrap(), world);
        std::thread::sleep(std::time::Duration::from_millis(2100));
        assert_eq!(store.digest_of_file(&path).unwrap(), world);
        let name = format!("digests/{}", hash_of(&[&path.to_string_lossy()]));
        let mut record: DigestRecord = store.read_record(&name).unwrap();
        record.digest = "from the record".into();
        store.write_record(&name, &record).unwrap();
        assert_eq!(store.digest_of_file(&path).unwrap(), "from the record");
        std::fs::write(&path, "hello\n").unwrap();
        assert_eq!(store.digest_of_file(&path).unwrap(), hello);
    }
}
