//! Our own imports: what WASI cannot do, only as wide as the directories already granted.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use rustix::fs::Mode;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::bindings::buildpack::wapack::buildpack::{files, layers, types};
use super::cell::{Cell, OpenedDirectory};
use super::convert::layer_types;
use super::filesystem::{GuestPath, MountSpec, NodeKind, OpenFile, OpenHow, Opened, Walk, resolve};
use super::unpack::{Destination, Unpacked, unpack};
use crate::cnb::id::LayerName;
use crate::cnb::layer::LayerTypes;
use crate::executor::{LayerContents, Refusal};

/// Bytes copied or hashed at once.
const CHUNK_BYTES: usize = 256 * 1024;

pub(super) type HostResult<T> = wasmtime::Result<Result<T, types::HostError>>;

/// The layers a `build` call has opened.
pub(super) struct LayerDesk {
    /// Guest path of the layers directory; empty in `detect`, which has none.
    directory: String,
    opened: BTreeMap<LayerName, OpenedLayer>,
}

/// A layer between `open` and the end of the call.
#[derive(Debug, Clone)]
pub(super) struct OpenedLayer {
    pub(super) types: LayerTypes,
    pub(super) cache_key: String,
    pub(super) contents: LayerContents,
}

impl LayerDesk {
    pub(super) fn new(directory: String) -> Self {
        Self { directory, opened: BTreeMap::new() }
    }

    /// Guest path of a layer.
    pub(super) fn path(&self, name: &LayerName) -> String {
        format!("{}/{name}", self.directory)
    }

    pub(super) fn get(&self, name: &LayerName) -> Option<&OpenedLayer> {
        self.opened.get(name)
    }
}

pub(super) fn host_error(id: &str, message: impl Into<String>) -> types::HostError {
    types::HostError { id: id.to_owned(), message: message.into(), hint: None }
}

/// A failed file operation, with the id that says what kind of failure it is.
pub(super) fn file_error(what: &str, path: &str, error: Errno) -> types::HostError {
    let id = match error {
        Errno::NOENT | Errno::NOTDIR => "files.not_found",
        Errno::ROFS | Errno::PERM | Errno::ACCESS | Errno::LOOP => "files.not_permitted",
        Errno::DQUOT => "guest.disk_limit",
        Errno::EXIST => "files.exists",
        _ => "files.failed",
    };
    host_error(id, format!("cannot {what} `{path}`: {error}"))
}

pub(super) fn refused(refusal: Refusal) -> types::HostError {
    types::HostError { id: refusal.id, message: refusal.message, hint: refusal.hint }
}

impl Cell {
    /// An absolute guest path with its links resolved.
    fn absolute(&self, path: &str, follow: bool) -> Result<GuestPath, Errno> {
        let relative = path.strip_prefix('/').ok_or(Errno::INVAL)?;
        if relative.is_empty() {
            return Ok(GuestPath::root());
        }
        resolve(&self.files, &GuestPath::root(), relative, follow)
    }

    fn open_to_read(&mut self, path: &str) -> Result<OpenFile, Errno> {
        let path = self.absolute(path, true)?;
        match self.files.open(&path, OpenHow::default())? {
            Opened::File(file) => Ok(file),
            Opened::Directory => Err(Errno::ISDIR),
        }
    }

    fn chmod(&mut self, path: &str, executable: bool) -> Result<(), Errno> {
        let path = self.absolute(path, true)?;
        match self.files.open(&path, OpenHow { write: true, ..OpenHow::default() })? {
            Opened::File(file) => file.set_executable(executable),
            Opened::Directory => Err(Errno::ISDIR),
        }
    }

    fn copy(&mut self, from: &str, to: &str) -> Result<Unpacked, Errno> {
        let (from, to) = (self.absolute(from, false)?, self.absolute(to, false)?);
        if to.below(from.as_str()).is_some() {
            return Err(Errno::INVAL);
        }
        if self.files.kind(&to)?.is_some() {
            return Err(Errno::EXIST);
        }
        let mut copied = Unpacked::default();
        let mut walk = Walk::new(&self.files, &from)?;
        while let Some((path, kind)) = walk.next(&self.files)? {
            let below = path.below(from.as_str()).ok_or(Errno::INVAL)?;
            let target = below
                .split('/')
                .filter(|name| !name.is_empty())
                .try_fold(to.clone(), |to, name| to.join(name))?;
            match kind {
                NodeKind::Directory => self.files.create_directory(&target)?,
                NodeKind::Symlink => {
                    let link = self.files.read_link(&path)?;
                    self.files.create_symlink(&target, &link)?;
                }
                NodeKind::File { size, execute } => {
                    self.copy_file(&path, &target, execute)?;
                    copied.bytes += size;
                }
                NodeKind::Special => return Err(Errno::PERM),
            }
            copied.entries += 1;
        }
        Ok(copied)
    }

    fn copy_file(&mut self, from: &GuestPath, to: &GuestPath, execute: u32) -> Result<(), Errno> {
        let how = OpenHow { write: true, create: true, exclusive: true, ..OpenHow::default() };
        let (source, target) = (self.files.open(from, OpenHow::default())?, self.files.open(to, how)?);
        let (Opened::File(source), Opened::File(target)) = (source, target) else { return Err(Errno::ISDIR) };
        for_each_chunk(&source, |chunk, offset| target.write_at(chunk, offset))?;
        if execute == 0 { Ok(()) } else { target.set_mode(Mode::from_raw_mode(0o644 | execute)) }
    }

    fn hash(&mut self, path: &str) -> Result<String, Errno> {
        let root = self.absolute(path, true)?;
        let mut hasher = Sha256::new();
        let mut walk = Walk::new(&self.files, &root)?;
        while let Some((path, kind)) = walk.next(&self.files)? {
            // Each field with its length, so that no two trees read alike.
            let mut field = |tag: &[u8], bytes: &[u8]| {
                hasher.update(tag);
                hasher.update((bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            };
            field(b"path", path.below(root.as_str()).unwrap_or("").as_bytes());
            match kind {
                NodeKind::Directory => field(b"directory", b""),
                NodeKind::Symlink => field(b"link", self.files.read_link(&path)?.as_bytes()),
                NodeKind::File { size, execute } => {
                    field(if execute != 0 { b"program" } else { b"file" }, &size.to_le_bytes());
                    let Opened::File(file) = self.files.open(&path, OpenHow::default())? else {
                        return Err(Errno::ISDIR);
                    };
                    for_each_chunk(&file, |chunk, _| {
                        hasher.update(chunk);
                        Ok(())
                    })?;
                }
                NodeKind::Special => return Err(Errno::PERM),
            }
        }
        Ok(format!("sha256:{}", hex(&hasher.finalize())))
    }
}

/// Gives the contents of `file` to `work`, with the offset of each chunk.
pub(super) fn for_each_chunk(
    file: &OpenFile,
    mut work: impl FnMut(&[u8], u64) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset)? {
            0 => return Ok(()),
            count => {
                work(&buffer[..count], offset)?;
                offset += count as u64;
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn summary(unpacked: Unpacked) -> files::Summary {
    files::Summary { entries: unpacked.entries, bytes: unpacked.bytes }
}

impl types::Host for Cell {}

impl files::Host for Cell {
    fn set_executable(&mut self, path: String, executable: bool) -> HostResult<()> {
        Ok(self.chmod(&path, executable).map_err(|error| file_error("set the mode of", &path, error)))
    }

    fn copy_tree(&mut self, from: String, to: String) -> HostResult<files::Summary> {
        Ok(self.copy(&from, &to).map(summary).map_err(|error| {
            let both = format!("{from}` to `{to}");
            file_error("copy", &both, error)
        }))
    }

    fn hash_tree(&mut self, path: String) -> HostResult<String> {
        Ok(self.hash(&path).map_err(|error| file_error("hash", &path, error)))
    }

    fn unpack(
        &mut self,
        archive: String,
        destination: String,
        options: files::UnpackOptions,
    ) -> HostResult<files::Summary> {
        let file = match self.open_to_read(&archive) {
            Ok(file) => file,
            Err(error) => return Ok(Err(file_error("read", &archive, error))),
        };
        let table = Mutex::new(&mut self.files);
        let directory = GuestPath::parse(&destination).and_then(|path| Destination::open(&table, &path));
        let directory = match directory {
            Ok(directory) => directory,
            Err(error) => return Ok(Err(file_error("unpack into", &destination, error))),
        };
        let unpacked = unpack(file.as_fd(), directory, &options, &AtomicBool::new(false));
        Ok(unpacked.map(summary).map_err(|error| {
            host_error(error.id(), format!("cannot unpack `{archive}` into `{destination}`: {error}"))
        }))
    }
}

impl layers::Host for Cell {
    fn open(
        &mut self,
        name: String,
        types: types::LayerTypes,
        cache_key: String,
    ) -> HostResult<layers::LayerState> {
        if self.layers.directory.is_empty() {
            return Ok(Err(host_error("layers.not_in_detect", "layers can be opened in `build` only")));
        }
        let name: LayerName = match name.parse() {
            Ok(name) => name,
            Err(error) => {
                let error: crate::cnb::id::InvalidName = error;
                return Ok(Err(host_error("layers.bad_name", error.to_string())));
            }
        };
        if self.layers.opened.contains_key(&name) {
            let message = format!("layer `{name}` is open already");
            return Ok(Err(host_error("layers.open_already", message)));
        }
        // The parent makes a directory for it.
        if let Err(error) = self.files.quota().charge_entry() {
            return Ok(Err(file_error("open the layer", name.as_str(), error)));
        }
        let types = layer_types(types);
        let opened = match self.calls.open_layer(&name, types, &cache_key) {
            Ok(opened) => opened,
            Err(refusal) => return Ok(Err(refused(refusal))),
        };
        let guest_path = self.layers.path(&name);
        let (state, contents) = match opened {
            OpenedDirectory::Restored(tree) => {
                self.files.mount(MountSpec {
                    guest_path,
                    lower: Some(tree),
                    upper: None,
                    writable: false,
                    hidden: vec![],
                });
                (layers::LayerState::Restored, LayerContents::Restored)
            }
            OpenedDirectory::Kept => (layers::LayerState::Kept, LayerContents::Kept),
            OpenedDirectory::Empty(directory) => {
                self.files.mount(MountSpec {
                    guest_path,
                    lower: None,
                    upper: Some(directory),
                    writable: true,
                    hidden: vec![],
                });
                (layers::LayerState::Empty, LayerContents::Written)
            }
        };
        self.layers.opened.insert(name, OpenedLayer { types, cache_key, contents });
        Ok(Ok(state))
    }

    fn update(&mut self, name: String) -> HostResult<()> {
        let not_restored =
            |name: &str| host_error("layers.not_restored", format!("layer `{name}` is not a restored one"));
        let Ok(name) = name.parse::<LayerName>() else { return Ok(Err(not_restored(&name))) };
        let path = self.layers.path(&name);
        let Some(layer) = self.layers.opened.get_mut(&name) else {
            return Ok(Err(not_restored(name.as_str())));
        };
        match layer.contents {
            LayerContents::Restored => {}
            LayerContents::Written | LayerContents::InPlace | LayerContents::Updated { .. } => {
                return Ok(Ok(()));
            }
            LayerContents::Kept | LayerContents::Nowhere => return Ok(Err(not_restored(name.as_str()))),
        }
        match self.calls.update_layer(&name) {
            Ok(upper) => {
                self.files.make_writable(&path, upper);
                layer.contents = LayerContents::Updated { hidden: vec![] };
                Ok(Ok(()))
            }
            Err(refusal) => Ok(Err(refused(refusal))),
        }
    }
}
