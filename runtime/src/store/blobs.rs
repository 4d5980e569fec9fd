//! Compressed layers and other bytes by digest, and which layer became which blob.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::files::{self, Seal, hash_of, is_digest};
use super::{Store, StoreError};
use crate::tree::{Status, hex};

/// A blob of the store whose bytes are known to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlob {
    /// `sha256:<hex>` of its bytes.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// Where it is, read-only.
    pub path: PathBuf,
    pub(super) seal: Seal,
}

/// A blob that is being written. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct BlobFile {
    file: File,
    path: PathBuf,
    committed: bool,
}

impl BlobFile {
    /// The file, for whoever writes without [`Write`].
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Write for BlobFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobFile {
    fn drop(&mut self) {
        if !self.committed {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What a record says of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SealedBlob {
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) seal: Seal,
}

impl From<&StoredBlob> for SealedBlob {
    fn from(blob: &StoredBlob) -> Self {
        Self { digest: blob.digest.clone(), size: blob.size, seal: blob.seal }
    }
}

/// One line of the index: this layer, compressed by that encoder, is this blob.
#[derive(Serialize, Deserialize)]
struct IndexRecord {
    diff_id: String,
    encoder: String,
    blob: SealedBlob,
}

impl Store {
    /// The blob that the layer `diff_id` became under `encoder`, if it is there
    /// and sound. An untouched blob costs one small record and one `stat`.
    pub fn find_blob(&self, diff_id: &str, encoder: &str) -> Option<StoredBlob> {
        let name = index_name(diff_id, encoder);
        let mut record: IndexRecord = self.read_record(&name)?;
        if record.diff_id != diff_id || record.encoder != encoder {
            return None;
        }
        let Some(blob) = self.check_blob(&record.blob) else {
            // The record would only lead here again.
            let _ = std::fs::remove_file(self.root().join(&name));
            return None;
        };
        if blob.seal != record.blob.seal {
            record.blob.seal = blob.seal;
            // Without the new seal the next build reads the bytes once more, no worse.
            let _ = self.write_record(&name, &record);
        }
        Some(blob)
    }

    /// The blob a record speaks of: by its seal, or by its bytes when the seal
    /// does not fit. Anything else than the right bytes is removed.
    pub(super) fn check_blob(&self, expected: &SealedBlob) -> Option<StoredBlob> {
        if !is_digest(&expected.digest) {
            return None;
        }
        let path = self.blob_path(&expected.digest);
        let found = |seal| {
            Some(StoredBlob {
                digest: expected.digest.clone(),
                size: expected.size,
                path: path.clone(),
                seal,
            })
        };
        let status = match Status::of(&path) {
            Ok(status) => status,
            Err(error) => {
                // A record without its blob: somebody removed it.
                if error.kind() == io::ErrorKind::NotFound {
                    self.note_damage(&path);
                }
                return None;
            }
        };
        if status.kind == FileType::RegularFile && status.size == expected.size {
            let seal = Seal::from_status(&status);
            if seal == expected.seal {
                return found(seal);
            }
            if let Some(seal) = reseal(&path, &expected.digest) {
                return found(seal);
            }
        }
        self.discard(&path);
        None
    }

    /// A file to write a blob to.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written.
    pub fn create_blob(&self) -> Result<BlobFile, StoreError> {
        self.with_scratch_path(|path| {
            let file =
                files::create_file(path).map_err(|error| StoreError::io("make the file", path, error))?;
            Ok(BlobFile { file, path: path.to_owned(), committed: false })
        })
    }

    /// Takes a finished blob into the store as what `diff_id` became under
    /// `encoder`. Digest and size are the caller's, who hashed while writing;
    /// a wrong size is noticed here, a wrong digest when bytes are verified.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written.
    pub fn commit_blob(
        &self,
        file: BlobFile,
        diff_id: &str,
        encoder: &str,
        digest: &str,
        size: u64,
    ) -> Result<StoredBlob, StoreError> {
        let blob = self.place_blob(file, digest, size)?;
        let record = IndexRecord {
            diff_id: diff_id.to_owned(),
            encoder: encoder.to_owned(),
            blob: SealedBlob::from(&blob),
        };
        self.write_record(&index_name(diff_id, encoder), &record)?;
        Ok(blob)
    }

    fn place_blob(&self, mut file: BlobFile, digest: &str, size: u64) -> Result<StoredBlob, StoreError> {
        let path = self.blob_path(digest);
        let failed = |error| StoreError::io("write", &path, error);
        if !is_digest(digest) {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a sha256 digest")));
        }
        let written = file.file.metadata().map_err(failed)?.len();
        if written != size {
            let text = format!("{written} bytes were written, {size} were announced");
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        file.file.set_permissions(Permissions::from_mode(0o444)).map_err(failed)?;
        file.file.sync_all().map_err(failed)?;
        self.put_in_place(&file.path, &path)?;
        file.committed = true;
        // Renaming changed the change time, so the seal is taken last, from the open file.
        let status = Status::of_open(&file.file).map_err(failed)?;
        let seal = Seal::from_status(&status);
        Ok(StoredBlob { digest: digest.to_owned(), size, path, seal })
    }

    /// Keeps bytes that a record wants to point to instead of holding them.
    pub(super) fn put_document(&self, bytes: &[u8]) -> Result<SealedBlob, StoreError> {
        use sha2::Digest;
        let digest = format!("sha256:{}", hex(&sha2::Sha256::digest(bytes)));
        let size = bytes.len() as u64;
        if let Some(seal) = reseal(&self.blob_path(&digest), &digest) {
            return Ok(SealedBlob { digest, size, seal });
        }
        let mut file = self.create_blob()?;
        file.write_all(bytes).map_err(|error| StoreError::io("write", &file.path, error))?;
        self.place_blob(file, &digest, size).map(|blob| SealedBlob::from(&blob))
    }

    /// The bytes of a document.
    pub(super) fn read_document(&self, expected: &SealedBlob) -> Option<Vec<u8>> {
        let blob = self.check_blob(expected)?;
        files::read_file(&blob.path, blob.size).ok()
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        let name = digest.strip_prefix("sha256:").unwrap_or(digest).replace('/', "_");
        self.root().join("blobs/sha256").join(name)
    }
}

/// Reads the bytes at `path` again; a seal if they have the digest.
fn reseal(path: &Path, digest: &str) -> Option<Seal> {
    let file = files::open_file(path).ok()?;
    let before = Status::of_open(&file).ok()?;
    let (found, _) = files::digest_of(&file).ok()?;
    let after = Status::of_open(&file).ok()?;
    // A second name changes the seal, so it is noticed here: it could be somebody's way in.
    (found == digest && before == after && after.links == 1).then(|| Seal::from_status(&after))
}

fn index_name(diff_id: &str, encoder: &str) -> String {
    format!("index/{}", hash_of(&[diff_id, encoder]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    const DIFF_ID: &str = "sha256:diff";
    const ENCODER: &str = "gzip-6";
    /// `printf 'hello\n' | sha256sum`
    const HELLO: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    fn commit(store: &Store) -> StoredBlob {
        let mut file = store.create_blob().unwrap();
        file.write_all(b"hello\n").unwrap();
        store.commit_blob(file, DIFF_ID, ENCODER, HELLO, 6).unwrap()
    }

    #[test]
    fn a_committed_blob_is_found_under_its_layer_and_encoder_only() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let blob = commit(&store);
        assert_eq!(store.find_blob(DIFF_ID, ENCODER), Some(blob.clone()));
        assert_eq!(store.find_blob(DIFF_ID, "zstd"), None);
        assert_eq!(store.find_blob("sha256:other", ENCODER), None);
        assert_eq!(std::fs::read(&blob.path).unwrap(), b"hello\n");
        let metadata = std::fs::metadata(&blob.path).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o444, 1));
        assert!(store.take_warnings().is_empty());
    }

    #[test]
    fn a_blob_that_is_not_committed_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let file = store.create_blob().unwrap();
        let path = file.path.clone();
        drop(file);
        assert!(!path.exists());
        let file = store.create_blob().unwrap();
        store.commit_blob(file, DIFF_ID, ENCODER, HELLO, 6).unwrap_err();
        assert_eq!(store.find_blob(DIFF_ID, ENCODER), None);
    }

    /// Replaces the file at a path by something else.
    type Corruption = fn(&Path);

    /// K4: the nine corruptions of a file.
    const CORRUPTIONS: [(&str, Corruption); 9] = [
        ("flipped bit", |path| rewrite(path, |bytes| bytes[0] ^= 1)),
        ("flipped last bit", |path| rewrite(path, |bytes| *bytes.last_mut().unwrap() ^= 0x80)),
        ("truncated", |path| rewrite(path, |bytes| bytes.truncate(bytes.len() - 1))),
        ("longer", |path| rewrite(path, |bytes| bytes.push(0))),
        ("empty", |path| rewrite(path, Vec::clear)),
        ("zeroes", |path| rewrite(path, |bytes| bytes.fill(0))),
        ("missing", |path| std::fs::remove_file(path).unwrap()),
        ("a link", |path| {
            std::fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
        ("a directory", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir_all(path.join("inside")).unwrap();
        }),
    ];

    /// In place, as a bad disk or a buggy program would.
    fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o444)).unwrap();
    }

    #[test]
    fn k4_every_corruption_of_blob_or_index_is_a_miss_and_is_made_again() {
        for (what, corrupt) in CORRUPTIONS {
            for target in ["blob", "index"] {
                let temp = tempfile::tempdir().unwrap();
                let (store, _) = Store::open(temp.path()).unwrap();
                let blob = commit(&store);
                let path = match target {
                    "blob" => blob.path.clone(),
                    _ => temp.path().join(index_name(DIFF_ID, ENCODER)),
                };
                corrupt(&path);
                assert_eq!(store.find_blob(DIFF_ID, ENCODER), None, "{what} {target}");
                let expected = usize::from(!(what == "missing" && target == "index"));
                assert_eq!(store.take_warnings().len(), expected, "{what} {target}");
                commit(&store);
                let found = store.find_blob(DIFF_ID, ENCODER).unwrap();
                assert_eq!(std::fs::read(&found.path).unwrap(), b"hello\n", "{what} {target}");
                assert!(store.take_warnings().is_empty(), "{what} {target}");
            }
        }
    }

    #[test]
    fn a_copied_store_is_read_once_and_trusted_after() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let blob = commit(&store);
        // The same bytes in another file: what `cp -a` of a whole store gives.
        let copy = temp.path().join("copy");
        std::fs::copy(&blob.path, &copy).unwrap();
        std::fs::rename(&copy, &blob.path).unwrap();
        let found = store.find_blob(DIFF_ID, ENCODER).unwrap();
        assert_ne!(found.seal, blob.seal);
        let record: IndexRecord = store.read_record(&index_name(DIFF_ID, ENCODER)).unwrap();
        assert_eq!(record.blob.seal, found.seal);
        assert!(store.take_warnings().is_empty());
    }

    /// A second name is a way to write past the seal's owner.
    #[test]
    fn a_blob_with_a_second_name_is_not_trusted() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let blob = commit(&store);
        std::fs::hard_link(&blob.path, temp.path().join("second")).unwrap();
        assert_eq!(store.find_blob(DIFF_ID, ENCODER), None);
    }

    #[test]
    fn documents_come_back_and_are_stored_once() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let first = store.put_document(b"hello\n").unwrap();
        assert_eq!(first.digest, HELLO);
        assert_eq!(store.put_document(b"hello\n").unwrap(), first);
        assert_eq!(store.read_document(&first).unwrap(), b"hello\n");
        rewrite(&store.blob_path(HELLO), |bytes| bytes[1] = b'u');
        assert_eq!(store.read_document(&first), None);
        assert_eq!(store.put_document(b"hello\n").unwrap().digest, HELLO);
    }
}
