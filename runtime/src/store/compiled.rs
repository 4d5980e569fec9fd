//! Precompiled components. A planted one would be native code in our process,
//! so each carries a MAC under a key that only the host can read (G24).

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::FileType;
use sha2::Sha256;

use super::files::{self, Seal, hash_of};
use super::{Store, StoreError};
use crate::walk::{self, Status};

const MAC_BYTES: usize = 32;

/// Larger than any output a compile limit lets through.
const MAX_COMPILED_BYTES: u64 = 4 << 30;

/// Bytes that are read, hashed and written at once: they stay in the processor's cache.
const CHUNK_BYTES: usize = 64 << 10;

/// How long a component that could not be compiled is not tried again.
const REMEMBER_FAILURE: Duration = Duration::from_hours(24);

/// What a precompiled component was made from, and for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompiledKey {
    component_digest: String,
    engine: String,
}

impl CompiledKey {
    /// A component by the digest of its bytes, and everything of the engine
    /// that its native code depends on: version, settings, CPU features.
    pub fn new(component_digest: &str, engine: &str) -> Self {
        Self { component_digest: component_digest.to_owned(), engine: engine.to_owned() }
    }

    fn file_name(&self, kind: Kind) -> String {
        format!("compiled/{}{}", hash_of(&[&self.component_digest, &self.engine]), kind.suffix())
    }
}

/// How long ago code was written before its seal counts: what was just changed may
/// change again within the same tick of the file system's clock.
const SETTLED: Duration = Duration::from_secs(2);

/// What a file in `compiled/` says of its component.
#[derive(Clone, Copy)]
enum Kind {
    Code,
    Failure,
    /// What the host saw of the code's file when it had verified every byte of it.
    Seal,
}

impl Kind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Code => "",
            Self::Failure => ".failure",
            Self::Seal => ".seal",
        }
    }
}

impl Store {
    /// Writes the native code of a component into an empty file that nobody else
    /// can reach. `false` unless every byte is one that [`Store::put_compiled`] wrote
    /// for exactly this key in this store; what the file holds then is nothing.
    ///
    /// Bytes are hashed once. As long as the seal that was taken then fits, they are
    /// only copied.
    pub fn compiled_into(&self, key: &CompiledKey, memory: &File) -> bool {
        let path = self.root().join(key.file_name(Kind::Code));
        if !self.verifies() && self.copy_sealed(key, &path, memory).is_some() {
            return true;
        }
        let authentic = empty(memory).and_then(|()| self.copy_authentic(key, &path, memory));
        match authentic {
            Ok(true) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Ok(false) | Err(_) => {
                self.discard(&path);
                false
            }
        }
    }

    /// `None` when the seal does not fit, or copying failed.
    fn copy_sealed(&self, key: &CompiledKey, path: &Path, memory: &File) -> Option<()> {
        let seal = self.read_authentic(key, Kind::Seal)?;
        let file = files::open_file(path).ok()?;
        let before = Status::of_open(&file).ok()?;
        if seal != seal_bytes(&before) {
            return None;
        }
        let mut offset = MAC_BYTES as u64;
        while offset < before.size {
            let left = usize::try_from(before.size - offset).ok()?;
            match rustix::fs::sendfile(memory, &file, Some(&mut offset), left) {
                Ok(0) => return None,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        // Not of the code itself: its seal would not fit any more.
        files::note_use(&self.root().join(key.file_name(Kind::Seal)));
        (Status::of_open(&file).ok()? == before).then_some(())
    }

    /// Hashes exactly what it writes: no byte is read twice.
    fn copy_authentic(&self, key: &CompiledKey, path: &Path, memory: &File) -> io::Result<bool> {
        let file = files::open_file(path)?;
        let before = Status::of_open(&file)?;
        let is_authentic = self.copy_and_verify(key, &file, memory)?;
        let settled = SystemTime::now().duration_since(UNIX_EPOCH).is_ok_and(|now| {
            let changed = u64::try_from(before.changed.0).unwrap_or(u64::MAX);
            now.as_secs() > changed.saturating_add(SETTLED.as_secs())
        });
        if is_authentic && settled && before.links == 1 && Status::of_open(&file)? == before {
            // Without the seal it is hashed again next time, no worse.
            let _ = self.write_authentic(key, Kind::Seal, &seal_bytes(&before));
        }
        Ok(is_authentic)
    }

    fn copy_and_verify(&self, key: &CompiledKey, mut file: &File, mut memory: &File) -> io::Result<bool> {
        let Some(secret) = self.secret() else { return Ok(false) };
        let mut expected = [0; MAC_BYTES];
        file.read_exact(&mut expected)?;
        let mut mac = mac_of(&secret, key, Kind::Code);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut limited = file.take(MAX_COMPILED_BYTES);
        loop {
            match limited.read(&mut chunk) {
                // Compares in constant time.
                Ok(0) => return Ok(mac.verify(&expected.into()).is_ok()),
                Ok(count) => {
                    mac.update(&chunk[..count]);
                    memory.write_all(&chunk[..count])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps the native code of a component.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written.
    pub fn put_compiled(&self, key: &CompiledKey, code: &[u8]) -> Result<(), StoreError> {
        self.write_authentic(key, Kind::Code, code)
    }

    /// Why the component could not be compiled, if that was tried within the last day.
    pub fn compile_failure(&self, key: &CompiledKey) -> Option<String> {
        self.compile_failure_at(key, SystemTime::now())
    }

    fn compile_failure_at(&self, key: &CompiledKey, now: SystemTime) -> Option<String> {
        let bytes = self.read_authentic(key, Kind::Failure)?;
        let (seconds, message) = bytes.split_first_chunk::<8>()?;
        let written = UNIX_EPOCH.checked_add(Duration::from_secs(u64::from_le_bytes(*seconds)))?;
        // A time from the future says that a clock jumped; then it is tried again.
        let age = now.duration_since(written).ok()?;
        (age < REMEMBER_FAILURE).then(|| String::from_utf8_lossy(message).into_owned())
    }

    /// Remembers for a day that the component cannot be compiled within the limits.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written.
    pub fn put_compile_failure(&self, key: &CompiledKey, message: &str) -> Result<(), StoreError> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let bytes = [&seconds.to_le_bytes(), message.as_bytes()].concat();
        self.write_authentic(key, Kind::Failure, &bytes)
    }

    fn write_authentic(&self, key: &CompiledKey, kind: Kind, bytes: &[u8]) -> Result<(), StoreError> {
        let secret = self.secret_or_new()?;
        let mac = mac_of(&secret, key, kind).chain_update(bytes).finalize().into_bytes();
        self.write_whole(&key.file_name(kind), &[&mac, bytes])
    }

    fn read_authentic(&self, key: &CompiledKey, kind: Kind) -> Option<Vec<u8>> {
        let path = self.root().join(key.file_name(kind));
        let mut bytes = match files::read_file(&path, MAX_COMPILED_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(_) => {
                self.discard(&path);
                return None;
            }
        };
        let authentic = self.secret().is_some_and(|secret| {
            bytes.split_first_chunk::<MAC_BYTES>().is_some_and(|(mac, bytes)| {
                // Compares in constant time.
                mac_of(&secret, key, kind).chain_update(bytes).verify(mac.into()).is_ok()
            })
        });
        if !authentic {
            self.discard(&path);
            return None;
        }
        bytes.drain(..MAC_BYTES);
        Some(bytes)
    }

    /// The key, if it is there and nobody else could have read or written it.
    fn secret(&self) -> Option<[u8; 32]> {
        let path = self.root().join("key");
        let status = Status::of(&path).ok()?;
        let ours = status.kind == FileType::RegularFile
            && matches!(status.mode, 0o400 | 0o600)
            && status.owner == rustix::process::geteuid().as_raw()
            && status.links == 1;
        if !ours {
            return None;
        }
        files::read_file(&path, 32).ok()?.try_into().ok()
    }

    fn secret_or_new(&self) -> Result<[u8; 32], StoreError> {
        if let Some(secret) = self.secret() {
            return Ok(secret);
        }
        let path = self.root().join("key");
        if Status::of(&path).is_ok() {
            // Everything under the old key is a miss from now on.
            self.discard(&path);
        }
        let failed = |error| StoreError::io("write", &path, error);
        self.with_scratch_path(|temporary| {
            let write = || -> std::io::Result<()> {
                let mut file = files::create_file(temporary)?;
                std::io::Write::write_all(&mut file, &walk::random_bytes::<32>())?;
                file.sync_all()
            };
            write().map_err(failed)?;
            // Of two processes that start at once, the second takes the first one's key.
            let renamed = rustix::fs::renameat_with(
                rustix::fs::CWD,
                temporary,
                rustix::fs::CWD,
                &path,
                rustix::fs::RenameFlags::NOREPLACE,
            );
            match renamed {
                Ok(()) => files::sync_directory(self.root()).map_err(failed),
                Err(rustix::io::Errno::EXIST) => Ok(()),
                Err(error) => Err(failed(error.into())),
            }
        })?;
        self.secret().ok_or_else(|| {
            failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "it changes while it is made"))
        })
    }
}

/// What tells that a file is still the one that was verified.
fn seal_bytes(status: &Status) -> Vec<u8> {
    let Seal { size, inode, changed_seconds, changed_nanoseconds } = Seal::from_status(status);
    [
        &size.to_le_bytes()[..],
        &inode.to_le_bytes(),
        &changed_seconds.to_le_bytes(),
        &changed_nanoseconds.to_le_bytes(),
        &status.device.0.to_le_bytes(),
        &status.device.1.to_le_bytes(),
    ]
    .concat()
}

/// Takes back what was written.
fn empty(mut memory: &File) -> io::Result<()> {
    memory.set_len(0)?;
    memory.rewind()
}

/// The MAC over everything that decides what the bytes that follow are good for.
fn mac_of(secret: &[u8; 32], key: &CompiledKey, kind: Kind) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("invariant: HMAC takes keys of any length");
    for field in ["wapack compiled 1", kind.suffix(), &key.component_digest, &key.engine] {
        mac.update(&(field.len() as u64).to_le_bytes());
        mac.update(field.as_bytes());
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    fn key(component: &str) -> CompiledKey {
        CompiledKey::new(component, "wasmtime 48.0.8 x86_64 avx2")
    }

    impl Store {
        /// The code, as [`Store::compiled_into`] writes it.
        pub(in crate::store) fn compiled(&self, key: &CompiledKey) -> Option<Vec<u8>> {
            let mut memory = tempfile::tempfile().unwrap();
            self.compiled_into(key, &memory).then(|| {
                let mut bytes = Vec::new();
                std::io::Seek::rewind(&mut memory).unwrap();
                memory.read_to_end(&mut bytes).unwrap();
                bytes
            })
        }
    }

    fn path(store: &Store, key: &CompiledKey) -> PathBuf {
        store.root().join(key.file_name(Kind::Code))
    }

    #[test]
    fn code_comes_back_under_its_own_key_only() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        assert_eq!(store.compiled(&key("a")), None);
        store.put_compiled(&key("a"), b"native code").unwrap();
        assert_eq!(store.compiled(&key("a")).unwrap(), b"native code");
        assert_eq!(store.compiled(&key("b")), None);
        assert_eq!(store.compiled(&CompiledKey::new("a", "wasmtime 48.0.9")), None);
        let (again, _) = Store::open(temp.path()).unwrap();
        assert_eq!(again.compiled(&key("a")).unwrap(), b"native code");
        assert!(again.take_warnings().is_empty());
    }

    #[test]
    fn g24_a_flip_of_any_byte_is_a_miss_and_the_file_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let code: Vec<u8> = (0..1000_u32).map(|n| n.to_le_bytes()[0]).collect();
        store.put_compiled(&key("a"), &code).unwrap();
        let path = path(&store, &key("a"));
        let good = std::fs::read(&path).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1 << (index % 8);
            std::fs::write(&path, bad).unwrap();
            assert_eq!(store.compiled(&key("a")), None, "byte {index}");
            assert!(!path.exists(), "byte {index}");
        }
        store.put_compiled(&key("a"), &code).unwrap();
        assert_eq!(store.compiled(&key("a")).unwrap(), code);
    }

    /// Code that was written long ago and verified since, so that there is a seal.
    fn sealed(store: &Store, key: &CompiledKey, code: &[u8]) -> PathBuf {
        store.put_compiled(key, code).unwrap();
        let seal = store.root().join(key.file_name(Kind::Seal));
        assert_eq!(store.compiled(key).unwrap(), code);
        assert!(!seal.exists(), "code that was just written has no seal");
        std::thread::sleep(SETTLED + Duration::from_millis(1100));
        assert_eq!(store.compiled(key).unwrap(), code);
        seal
    }

    #[test]
    fn g24_sealed_code_is_not_hashed_and_any_change_of_its_file_breaks_the_seal() {
        let temp = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(temp.path()).unwrap();
        let code = vec![7; 100_000];
        let seal = sealed(&store, &key("a"), &code);
        let path = path(&store, &key("a"));
        // A file whose MAC is wrong, under a seal that the host itself made for it.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let status = Status::of(&path).unwrap();
        store.write_authentic(&key("a"), Kind::Seal, &seal_bytes(&status)).unwrap();
        assert_eq!(store.compiled(&key("a")).unwrap(), code, "nothing is hashed");
        // The same bytes again, and the same time of the last write.
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_times(std::fs::FileTimes::new().set_modified(modified)).unwrap();
        drop(file);
        let before = std::fs::read(&seal).unwrap();
        assert_eq!(store.compiled(&key("a")), None, "it is hashed, and the MAC is wrong");
        assert!(!path.exists());
        // Nor is the seal of one component good for another, nor one that was made up.
        for other in ["b", "c"] {
            store.put_compiled(&key(other), &code).unwrap();
        }
        let seal_of = |name: &str| store.root().join(key(name).file_name(Kind::Seal));
        std::fs::write(seal_of("b"), &before).unwrap();
        let status = Status::of(&store.root().join(key("c").file_name(Kind::Code))).unwrap();
        std::fs::write(seal_of("c"), [vec![0; MAC_BYTES], seal_bytes(&status)].concat()).unwrap();
        assert_eq!(store.read_authentic(&key("b"), Kind::Seal), None);
        assert_eq!(store.read_authentic(&key("c"), Kind::Seal), None);
        store.verify_everything();
        assert_eq!(store.compiled(&key("b")).unwrap(), code);
    }

    #[test]
    fn where_everything_is_verified_a_seal_is_not_believed() {
        let temp = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(temp.path()).unwrap();
        store.put_compiled(&key("a"), b"native code").unwrap();
        let path = path(&store, &key("a"));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let status = Status::of(&path).unwrap();
        store.write_authentic(&key("a"), Kind::Seal, &seal_bytes(&status)).unwrap();
        assert_eq!(store.compiled(&key("a")).unwrap(), b"native codd");
        store.verify_everything();
        assert_eq!(store.compiled(&key("a")), None);
    }

    #[test]
    fn g24_swapped_replayed_or_planted_entries_are_misses() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        let (a, b) = (key("a"), key("b"));
        let swap: [fn(&Store, &CompiledKey, &CompiledKey); 5] = [
            |store, a, b| {
                let middle = store.root().join("middle");
                std::fs::rename(path(store, a), &middle).unwrap();
                std::fs::rename(path(store, b), path(store, a)).unwrap();
                std::fs::rename(&middle, path(store, b)).unwrap();
            },
            // Code for an older engine, put where the newer one looks.
            |store, a, b| {
                for key in [a, b] {
                    let older = CompiledKey::new(&key.component_digest, "wasmtime 48.0.7");
                    store.put_compiled(&older, b"hole").unwrap();
                    std::fs::rename(path(store, &older), path(store, key)).unwrap();
                }
            },
            // A failure's text, put where code is looked for.
            |store, a, b| {
                for key in [a, b] {
                    store.put_compile_failure(key, "too big").unwrap();
                    std::fs::rename(store.root().join(key.file_name(Kind::Failure)), path(store, key))
                        .unwrap();
                }
            },
            |store, a, b| {
                for key in [a, b] {
                    std::fs::write(path(store, key), [0; 64]).unwrap();
                }
            },
            |store, a, b| {
                for key in [a, b] {
                    // Even a link to the right bytes: its target is somebody else's.
                    let real = store.root().join(format!("real-{}", key.component_digest));
                    std::fs::rename(path(store, key), &real).unwrap();
                    symlink(&real, path(store, key)).unwrap();
                }
            },
        ];
        for (index, swap) in swap.iter().enumerate() {
            store.put_compiled(&a, b"code a").unwrap();
            store.put_compiled(&b, b"code b").unwrap();
            swap(&store, &a, &b);
            assert_eq!((store.compiled(&a), store.compiled(&b)), (None, None), "attack {index}");
        }
    }

    #[test]
    fn a_key_that_is_lost_damaged_or_readable_makes_everything_a_miss() {
        type Damage = fn(&std::path::Path);
        let damages: [(&str, Damage); 5] = [
            ("lost", |key| std::fs::remove_file(key).unwrap()),
            ("short", |key| std::fs::write(key, [0; 31]).unwrap()),
            ("other", |key| std::fs::write(key, [0; 32]).unwrap()),
            ("readable", |key| {
                std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).unwrap();
            }),
            ("a directory", |key| {
                std::fs::remove_file(key).unwrap();
                std::fs::create_dir(key).unwrap();
            }),
        ];
        for (what, damage) in damages {
            let temp = tempfile::tempdir().unwrap();
            let (store, _) = Store::open(temp.path()).unwrap();
            store.put_compiled(&key("a"), b"code").unwrap();
            damage(&temp.path().join("key"));
            assert_eq!(store.compiled(&key("a")), None, "{what}");
            store.put_compiled(&key("a"), b"code").unwrap();
            assert_eq!(store.compiled(&key("a")).unwrap(), b"code", "{what}");
        }
    }

    #[test]
    fn a_failure_is_remembered_for_a_day_and_never_in_a_clock_of_the_past() {
        let temp = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(temp.path()).unwrap();
        store.put_compile_failure(&key("a"), "took too long").unwrap();
        assert_eq!(store.compile_failure(&key("a")).unwrap(), "took too long");
        assert_eq!(store.compile_failure(&key("b")), None);
        let day = Duration::from_hours(24);
        let now = SystemTime::now();
        assert!(store.compile_failure_at(&key("a"), now + day / 2).is_some());
        assert_eq!(store.compile_failure_at(&key("a"), now + day), None);
        assert_eq!(store.compile_failure_at(&key("a"), now - day), None);
    }
}
