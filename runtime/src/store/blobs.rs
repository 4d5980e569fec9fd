//! Compressed layers and other bytes by digest, and which layer became which blob.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::files::{self, Seal, hash_of};
use super::inventory::blob_name;
use super::{Store, StoreError};
use crate::oci::blob::{BlobStore, NewBlob, Notes, StoredBlob};
use crate::oci::digest::{DiffId, Digest};
use crate::walk::Status;

/// What a record says of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SealedBlob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) seal: Seal,
}

/// One line of the index: this layer, compressed by that encoder, is this blob.
#[derive(Serialize, Deserialize)]
struct IndexRecord {
    diff_id: DiffId,
    encoder: String,
    blob: SealedBlob,
}

/// A blob that was brought here as it is.
#[derive(Serialize, Deserialize)]
struct FetchedRecord {
    blob: SealedBlob,
}

/// What all records of the index have in common.
#[derive(Deserialize)]
pub(super) struct BlobRecord {
    pub(super) blob: SealedBlob,
}

/// Something that was found out, and could be again.
#[derive(Serialize, Deserialize)]
struct NoteRecord {
    name: String,
    text: String,
}

impl BlobStore for Store {
    /// An untouched blob costs one small record and one `stat`.
    fn find(&self, diff_id: &DiffId, encoder: &str) -> Option<StoredBlob> {
        let name = index_name(diff_id, encoder);
        let record: IndexRecord = self.read_record(&name)?;
        if record.diff_id != *diff_id || record.encoder != encoder {
            return None;
        }
        self.recorded(&name, &record.blob, |blob| IndexRecord {
            diff_id: diff_id.clone(),
            encoder: encoder.to_owned(),
            blob,
        })
    }

    fn create(&self) -> io::Result<NewBlob> {
        let created = self.with_scratch_path(|path| {
            let file =
                files::create_file(path).map_err(|error| StoreError::io("make the file", path, error))?;
            Ok(NewBlob::new(file, path.to_owned()))
        });
        created.map_err(io::Error::other)
    }

    /// Digest and size are the caller's, who hashed while writing; a wrong size
    /// is noticed here, a wrong digest when bytes are verified.
    fn commit(
        &self,
        blob: NewBlob,
        diff_id: &DiffId,
        encoder: &str,
        digest: &Digest,
        size: u64,
    ) -> io::Result<StoredBlob> {
        let blob = self.place_blob(blob, digest, size)?;
        let stored = self.stored(&blob);
        let record = IndexRecord { diff_id: diff_id.clone(), encoder: encoder.to_owned(), blob };
        self.write_record(&index_name(diff_id, encoder), &record).map_err(io::Error::other)?;
        Ok(stored)
    }

    /// An untouched blob costs one small record and one `stat`.
    fn blob(&self, digest: &Digest, size: u64) -> Option<StoredBlob> {
        let name = fetched_name(digest);
        let record: FetchedRecord = self.read_record(&name)?;
        if record.blob.digest != *digest || record.blob.size != size {
            return None;
        }
        self.recorded(&name, &record.blob, |blob| FetchedRecord { blob })
    }

    fn commit_fetched(&self, blob: NewBlob, digest: &Digest, size: u64) -> io::Result<StoredBlob> {
        let blob = self.place_blob(blob, digest, size)?;
        let stored = self.stored(&blob);
        self.write_record(&fetched_name(digest), &FetchedRecord { blob }).map_err(io::Error::other)?;
        Ok(stored)
    }

    fn discard(&self, path: &Path) {
        if path.starts_with(self.root()) {
            Store::discard(self, path);
        }
    }
}

impl Notes for Store {
    fn note(&self, name: &str) -> Option<String> {
        if self.verifies() {
            return None;
        }
        self.remembered(name)
    }

    fn keep_note(&self, name: &str, text: &str) {
        let record = NoteRecord { name: name.to_owned(), text: text.to_owned() };
        // Without it the next build finds out again, no worse.
        let _ = self.write_record(&note_name(name), &record);
    }
}

impl Store {
    /// A note that says what is kept rather than what need not be found out again: it is
    /// believed when everything else is verified, too.
    #[must_use]
    pub fn remembered(&self, name: &str) -> Option<String> {
        let record: NoteRecord = self.read_record(&note_name(name))?;
        (record.name == name).then_some(record.text)
    }

    /// The blob that the record `name` is about, from here on leased. With a new seal the
    /// record is written again, as `with_seal` makes it.
    fn recorded<R: Serialize>(
        &self,
        name: &str,
        expected: &SealedBlob,
        with_seal: impl FnOnce(SealedBlob) -> R,
    ) -> Option<StoredBlob> {
        self.leases.take(&blob_name(&expected.digest));
        // Collected before it was leased: a record goes before its blob.
        Status::of(&self.root().join(name)).ok()?;
        let Some(sound) = self.check_blob(expected) else {
            // The record would only lead here again.
            let _ = std::fs::remove_file(self.root().join(name));
            return None;
        };
        let blob = self.stored(&sound);
        if sound != *expected {
            // Without the new seal the next build reads the bytes once more, no worse.
            let _ = self.write_record(name, &with_seal(sound));
        }
        Some(blob)
    }

    fn stored(&self, blob: &SealedBlob) -> StoredBlob {
        StoredBlob { digest: blob.digest.clone(), size: blob.size, path: self.blob_path(&blob.digest) }
    }

    /// The blob a record speaks of: by its seal, or by its bytes when the seal
    /// does not fit. Anything else than the right bytes is removed. Whoever collects
    /// leaves it alone from now on.
    pub(super) fn check_blob(&self, expected: &SealedBlob) -> Option<SealedBlob> {
        let path = self.blob_path(&expected.digest);
        self.leases.take(&blob_name(&expected.digest));
        let found = |seal| Some(SealedBlob { seal, ..expected.clone() });
        for _ in 0..MAX_LOOKS {
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
                if seal == expected.seal && !self.verifies() {
                    return found(seal);
                }
                if let Some(seal) = reseal(&path, &expected.digest) {
                    return found(seal);
                }
            }
            // What somebody else has put there meanwhile is not what was looked at, and may be right.
            if Status::of(&path).is_ok_and(|now| now == status) {
                break;
            }
        }
        Self::discard(self, &path);
        None
    }

    fn place_blob(&self, blob: NewBlob, digest: &Digest, size: u64) -> io::Result<SealedBlob> {
        let path = self.blob_path(digest);
        self.leases.take(&blob_name(digest));
        let written = blob.file().metadata()?.len();
        if written != size {
            let text = format!("{written} bytes were written, {size} were announced");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        blob.file().set_permissions(Permissions::from_mode(0o444))?;
        let file = blob.file().try_clone()?;
        // Something else than a file under that name would make the renaming fail.
        if Status::of(&path).is_ok_and(|status| status.kind != FileType::RegularFile) {
            Self::discard(self, &path);
        }
        blob.persist(&path)?;
        files::sync_directory(path.parent().unwrap_or(self.root()))?;
        self.growth.add(size);
        // Renaming changed the change time, so the seal is taken last, from the open file.
        let seal = Seal::from_status(&Status::of_open(&file)?);
        Ok(SealedBlob { digest: digest.clone(), size, seal })
    }

    /// Keeps bytes that a record wants to point to instead of holding them.
    pub(super) fn put_document(&self, bytes: &[u8]) -> io::Result<SealedBlob> {
        let digest = Digest::of(bytes);
        let size = bytes.len() as u64;
        self.leases.take(&blob_name(&digest));
        if let Some(seal) = reseal(&self.blob_path(&digest), &digest) {
            return Ok(SealedBlob { digest, size, seal });
        }
        let blob = self.create()?;
        let mut file = blob.file();
        file.write_all(bytes)?;
        self.place_blob(blob, &digest, size)
    }

    /// The bytes of a document.
    pub(super) fn read_document(&self, expected: &SealedBlob) -> Option<Vec<u8>> {
        let blob = self.check_blob(expected)?;
        files::read_file(&self.blob_path(&blob.digest), blob.size).ok()
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root().join(blob_name(digest))
    }
}

/// So often a blob is looked at that is replaced by another one each time.
const MAX_LOOKS: usize = 8;

/// Reads the bytes at `path` again; a seal if they have the digest.
fn reseal(path: &Path, digest: &Digest) -> Option<Seal> {
    let file = files::open_file(path).ok()?;
    let before = Status::of_open(&file).ok()?;
    let (found, _) = files::digest_of(&file).ok()?;
    let after = Status::of_open(&file).ok()?;
    // A second name changes the seal, so it is noticed here: it could be somebody's way in.
    (found == digest.as_str() && before == after && after.links == 1).then(|| Seal::from_status(&after))
}

/// The record of a layer and its encoder, relative to the store's root.
pub(super) fn index_name(diff_id: &DiffId, encoder: &str) -> String {
    format!("index/{}", hash_of(&[&diff_id.to_string(), encoder]))
}

fn fetched_name(digest: &Digest) -> String {
    format!("index/{}", hash_of(&["fetched", digest.as_str()]))
}

fn note_name(name: &str) -> String {
    format!("notes/{}", hash_of(&[name]))
}

/// What can happen to a file, for the tests of everything that is kept as one.
#[cfg(test)]
pub(crate) mod corruptions {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    /// Replaces the file at a path by something else.
    pub(crate) type Corruption = fn(&Path);

    /// K4: the nine corruptions of a file.
    pub(crate) const CORRUPTIONS: [(&str, Corruption); 9] = [
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
    pub(crate) fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        std::fs::write(path, bytes).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o444)).unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::corruptions::{CORRUPTIONS, rewrite};
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const ENCODER: &str = "gzip-6";
    /// `printf 'hello\n' | sha256sum`
    const HELLO: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    fn hello() -> Digest {
        HELLO.parse().unwrap()
    }

    fn diff_id() -> DiffId {
        DiffId(Digest::of(b"some layer"))
    }

    fn commit(store: &Store) -> StoredBlob {
        let blob = store.create().unwrap();
        blob.file().write_all(b"hello\n").unwrap();
        store.commit(blob, &diff_id(), ENCODER, &hello(), 6).unwrap()
    }

    #[test]
    fn a_committed_blob_is_found_under_its_layer_and_encoder_only() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let blob = commit(&store);
        assert_eq!(store.find(&diff_id(), ENCODER), Some(blob.clone()));
        assert_eq!(store.find(&diff_id(), "zstd"), None);
        assert_eq!(store.find(&DiffId(hello()), ENCODER), None);
        assert_eq!(std::fs::read(&blob.path).unwrap(), b"hello\n");
        let metadata = std::fs::metadata(&blob.path).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o444, 1));
        assert!(store.take_warnings().is_empty());
    }

    /// Damage that no time tells of: the seal is that of the wrong bytes.
    #[test]
    fn wrong_bytes_under_the_right_seal_are_a_miss_where_they_are_verified() {
        let temp = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(temp.path()).unwrap();
        let blob = commit(&store);
        rewrite(&blob.path, |bytes| bytes[0] ^= 1);
        let name = index_name(&diff_id(), ENCODER);
        let mut record: IndexRecord = store.read_record(&name).unwrap();
        record.blob.seal = Seal::from_status(&Status::of(&blob.path).unwrap());
        store.write_record(&name, &record).unwrap();
        assert_eq!(store.find(&diff_id(), ENCODER), Some(blob));
        store.verify_everything();
        assert_eq!(store.find(&diff_id(), ENCODER), None);
        assert_eq!(store.take_warnings().len(), 1);
    }

    /// K6: collected after its record was read, and before it was leased.
    #[test]
    fn k6_a_blob_that_goes_with_its_record_is_no_damage() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let blob = commit(&store);
        let name = index_name(&diff_id(), ENCODER);
        let record: IndexRecord = store.read_record(&name).unwrap();
        std::fs::remove_file(temp.path().join(&name)).unwrap();
        std::fs::remove_file(blob.path).unwrap();
        let found = store.recorded(&name, &record.blob, |blob| FetchedRecord { blob });
        assert_eq!(found, None);
        assert_eq!(store.take_warnings(), Vec::<String>::new());
    }

    #[test]
    fn a_blob_that_is_not_committed_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        drop(store.create().unwrap());
        let blob = store.create().unwrap();
        store.commit(blob, &diff_id(), ENCODER, &hello(), 6).unwrap_err();
        assert_eq!(std::fs::read_dir(temp.path().join("blobs/sha256")).unwrap().count(), 0);
        assert_eq!(store.find(&diff_id(), ENCODER), None);
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
                    _ => temp.path().join(index_name(&diff_id(), ENCODER)),
                };
                corrupt(&path);
                assert_eq!(store.find(&diff_id(), ENCODER), None, "{what} {target}");
                let expected = usize::from(!(what == "missing" && target == "index"));
                assert_eq!(store.take_warnings().len(), expected, "{what} {target}");
                commit(&store);
                let found = store.find(&diff_id(), ENCODER).unwrap();
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
        let record = || store.read_record::<IndexRecord>(&index_name(&diff_id(), ENCODER)).unwrap();
        let before = record().blob;
        store.find(&diff_id(), ENCODER).unwrap();
        let after = record().blob;
        assert_ne!(after.seal, before.seal);
        assert_eq!(after.seal, Seal::from_status(&Status::of(&blob.path).unwrap()));
        assert!(store.take_warnings().is_empty());
    }

    /// A second name is a way to write past the seal's owner.
    #[test]
    fn a_blob_with_a_second_name_is_not_trusted() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let blob = commit(&store);
        std::fs::hard_link(&blob.path, temp.path().join("second")).unwrap();
        assert_eq!(store.find(&diff_id(), ENCODER), None);
    }

    #[test]
    fn documents_come_back_and_are_stored_once() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let first = store.put_document(b"hello\n").unwrap();
        assert_eq!(first.digest, hello());
        assert_eq!(store.put_document(b"hello\n").unwrap(), first);
        assert_eq!(store.read_document(&first).unwrap(), b"hello\n");
        rewrite(&store.blob_path(&hello()), |bytes| bytes[1] = b'u');
        assert_eq!(store.read_document(&first), None);
        assert_eq!(store.put_document(b"hello\n").unwrap().digest, hello());
    }
}
