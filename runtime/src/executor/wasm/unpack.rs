//! Unpacking an archive into a guest's directories.
//!
//! The archive is hostile. Every path is checked before anything is written,
//! nothing goes through a link, and what is written is charged to the guest's quota.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;
use rustix::io::Errno;
use tar::EntryType;

use super::bindings::buildpack::wapack::buildpack::files::UnpackOptions;
use super::filesystem::{GuestPath, MountTable, NodeKind, OpenFile, OpenHow, Opened};

/// Output a compressed archive may have before its ratio counts.
const RATIO_FREE_BYTES: u64 = 64 * 1024 * 1024;
/// Output per input byte past that; honest archives stay far below.
const MAX_RATIO: u64 = 200;
/// Bytes of headers between the contents of two entries: long names and the like,
/// which are read into memory.
const MAX_HEADER_BYTES: u64 = 256 * 1024;
/// Bytes copied at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("entry {number} `{name}` has a path that leaves the destination")]
    BadPath { number: u64, name: String },
    #[error("entry {number} `{name}` links to `{target}`, outside the destination or missing")]
    BadLink { number: u64, name: String, target: String },
    #[error("entry {number} `{name}` is a {kind}")]
    BadType { number: u64, name: String, kind: &'static str },
    #[error("entry {number} `{name}` is there twice")]
    Duplicate { number: u64, name: String },
    #[error("the archive expands to more than {MAX_RATIO} times its size")]
    TooLarge,
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    #[error("entry {number} `{name}` cannot be written: {error}")]
    Write { number: u64, name: String, error: Errno },
}

impl UnpackError {
    pub(super) fn id(&self) -> &'static str {
        match self {
            Self::BadPath { .. } => "archive.bad_path",
            Self::BadLink { .. } => "archive.bad_link",
            Self::BadType { .. } => "archive.bad_type",
            Self::Duplicate { .. } => "archive.duplicate",
            Self::TooLarge => "archive.too_large",
            Self::Damaged(_) => "archive.damaged",
            Self::Write { error: Errno::DQUOT, .. } => "guest.disk_limit",
            Self::Write { .. } => "archive.write_failed",
        }
    }
}

/// What was unpacked.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Unpacked {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Reads an open file from its start.
pub(super) struct FileSource<'a> {
    pub(super) file: &'a OpenFile,
    pub(super) offset: u64,
}

impl Read for FileSource<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Unpacks `archive` into the existing directory `destination`.
pub(super) fn unpack(
    files: &mut MountTable,
    archive: &OpenFile,
    destination: &GuestPath,
    options: &UnpackOptions,
) -> Result<Unpacked, UnpackError> {
    let strip = options.strip_components;
    let mut magic = [0; 2];
    let count = archive.read_at(&mut magic, 0).map_err(|error| UnpackError::Damaged(error.to_string()))?;
    let source = BufReader::with_capacity(CHUNK_BYTES, FileSource { file: archive, offset: 0 });
    if count == 2 && magic == [0x1f, 0x8b] {
        let packed = archive.size().map_err(|error| UnpackError::Damaged(error.to_string()))?;
        let allowed = packed.saturating_mul(MAX_RATIO).max(RATIO_FREE_BYTES);
        unpack_tar(files, MultiGzDecoder::new(source).take(allowed + 1), allowed, destination, strip)
    } else {
        unpack_tar(files, source.take(u64::MAX), u64::MAX, destination, strip)
    }
}

fn unpack_tar(
    files: &mut MountTable,
    source: io::Take<impl Read>,
    allowed: u64,
    destination: &GuestPath,
    strip: u32,
) -> Result<Unpacked, UnpackError> {
    let damaged = |error: io::Error| UnpackError::Damaged(error.to_string());
    let room = Cell::new(0);
    let mut archive = tar::Archive::new(HeaderBound { source, room: &room });
    let mut unpacked = Unpacked::default();
    let mut seen = BTreeSet::new();
    let mut number = 0;
    let mut entries = archive.entries().map_err(damaged)?;
    loop {
        room.set(MAX_HEADER_BYTES);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(damaged)?;
        room.set(u64::MAX);
        number += 1;
        let raw = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(&raw).escape_default().to_string();
        let bad_path = || UnpackError::BadPath { number, name: name.clone() };
        let Some(relative) = clean(&raw, strip).ok_or_else(bad_path)? else { continue };
        let write = |error| UnpackError::Write { number, name: name.clone(), error };
        let path =
            relative.iter().try_fold(destination.clone(), |path, part| path.join(part)).map_err(write)?;
        let kind = entry.header().entry_type();
        let repeats = !seen.insert(path.clone());
        if repeats && kind != EntryType::Directory {
            return Err(UnpackError::Duplicate { number, name });
        }
        make_parents(files, destination, &path).map_err(write)?;
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let how = OpenHow { write: true, create: true, exclusive: true, ..OpenHow::default() };
                let file = match files.open(&path, how).map_err(write)? {
                    Opened::File(file) => file,
                    Opened::Directory => return Err(write(Errno::ISDIR)),
                };
                let size = copy(&mut entry, &file, write)?;
                if entry.header().mode().map_err(damaged)? & 0o111 != 0 {
                    file.set_executable(true).map_err(write)?;
                }
                unpacked.bytes += size;
                if size != entry.size() {
                    return Err(UnpackError::Damaged(format!("entry {number} `{name}` is cut short")));
                }
            }
            EntryType::Directory => make_directory(files, &path).map_err(write)?,
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
                let shown = String::from_utf8_lossy(&target).escape_default().to_string();
                let bad_link = || UnpackError::BadLink { number, name: name.clone(), target: shown.clone() };
                if kind == EntryType::Symlink {
                    let target = std::str::from_utf8(&target).map_err(|_| bad_link())?;
                    if !stays_inside(&relative, target) {
                        return Err(bad_link());
                    }
                    files.create_symlink(&path, target).map_err(write)?;
                } else {
                    let source = clean(&target, strip).flatten().ok_or_else(bad_link)?;
                    let source = source
                        .iter()
                        .try_fold(destination.clone(), |path, part| path.join(part))
                        .map_err(|_| bad_link())?;
                    // Only a file of this very archive, so that no other file gets a second name.
                    if !seen.contains(&source) {
                        return Err(bad_link());
                    }
                    files.link(&source, &path).map_err(|_| bad_link())?;
                }
            }
            EntryType::XGlobalHeader => continue,
            EntryType::Fifo => return Err(UnpackError::BadType { number, name, kind: "FIFO" }),
            EntryType::Char | EntryType::Block => {
                return Err(UnpackError::BadType { number, name, kind: "device" });
            }
            EntryType::GNUSparse => return Err(UnpackError::BadType { number, name, kind: "sparse file" }),
            _ => return Err(UnpackError::BadType { number, name, kind: "entry of an unknown type" }),
        }
        unpacked.entries += 1;
    }
    let mut source = archive.into_inner().source;
    // Reads on to the end: trailing bytes count, and a checksum behind them is checked.
    io::copy(&mut source, &mut io::sink()).map_err(damaged)?;
    if source.limit() == 0 && allowed != u64::MAX {
        return Err(UnpackError::TooLarge);
    }
    Ok(unpacked)
}

/// Fails when more than `room` is read: between two entries that is little.
struct HeaderBound<'a, R> {
    source: R,
    room: &'a Cell<u64>,
}

impl<R: Read> Read for HeaderBound<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        match self.room.get().checked_sub(count as u64) {
            Some(left) => self.room.set(left),
            None => return Err(io::Error::new(io::ErrorKind::InvalidData, "a header is too long")),
        }
        Ok(count)
    }
}

fn copy(
    entry: &mut impl Read,
    file: &OpenFile,
    write: impl Fn(Errno) -> UnpackError,
) -> Result<u64, UnpackError> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        match entry.read(&mut buffer) {
            Ok(0) => return Ok(offset),
            Ok(count) => {
                file.write_at(&buffer[..count], offset).map_err(&write)?;
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(UnpackError::Damaged(error.to_string())),
        }
    }
}

/// The names of an entry's path without the first `strip`; `None` when the path
/// is not one we write, `Some(None)` when nothing is left of it.
#[expect(clippy::option_option, reason = "refused, nothing left, and a path are three answers")]
fn clean(path: &[u8], strip: u32) -> Option<Option<Vec<String>>> {
    let path = std::str::from_utf8(path).ok()?;
    if path.starts_with('/') || path.contains('\\') || path.chars().any(char::is_control) {
        return None;
    }
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => return None,
            name => names.push(name.to_owned()),
        }
    }
    let rest: Vec<String> = names.into_iter().skip(strip as usize).collect();
    Some((!rest.is_empty()).then_some(rest))
}

/// Whether a relative link at `path` points into the destination.
fn stays_inside(path: &[String], target: &str) -> bool {
    if target.is_empty() || target.starts_with('/') || target.contains('\0') {
        return false;
    }
    let mut depth = path.len() - 1;
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    true
}

/// Makes the directories between `destination` and `path`; a link or a file on
/// the way is an error, never followed or replaced.
fn make_parents(files: &mut MountTable, destination: &GuestPath, path: &GuestPath) -> Result<(), Errno> {
    let mut missing = Vec::new();
    let mut current = path.parent();
    while let Some(directory) = current {
        if directory == *destination || files.kind(&directory)? == Some(NodeKind::Directory) {
            break;
        }
        current = directory.parent();
        missing.push(directory);
    }
    missing.into_iter().rev().try_for_each(|directory| make_directory(files, &directory))
}

fn make_directory(files: &mut MountTable, path: &GuestPath) -> Result<(), Errno> {
    match files.kind(path)? {
        None => files.create_directory(path),
        Some(NodeKind::Directory) => Ok(()),
        Some(_) => Err(Errno::NOTDIR),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::filesystem::{MountSpec, Quota};
    use super::*;
    use crate::limits::Limits;

    /// One entry: type, path, contents or target of the link.
    type Row<'a> = (EntryType, &'a [u8], &'a [u8]);

    /// A tar without the checks of the crate that writes it.
    fn tar(rows: &[Row<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, path, contents) in rows {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path);
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            let is_link = matches!(*kind, EntryType::Symlink | EntryType::Link);
            if is_link {
                header.as_mut_bytes()[157..157 + contents.len()].copy_from_slice(contents);
            }
            let contents = if is_link { &[][..] } else { contents };
            header.set_size(contents.len() as u64);
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(contents);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    struct Unpacking {
        directory: tempfile::TempDir,
        result: Result<Unpacked, UnpackError>,
        used: (u64, u64),
    }

    impl Unpacking {
        fn id(&self) -> &'static str {
            self.result.as_ref().err().map_or("unpacked", UnpackError::id)
        }
    }

    fn run(bytes: &[u8], strip: u32) -> Unpacking {
        let limits = Limits { disk_bytes: 100 << 20, disk_entries: 100, ..Limits::default() };
        let directory = tempfile::tempdir().unwrap();
        let upper = directory.path().join("upper");
        std::fs::create_dir(&upper).unwrap();
        std::fs::write(directory.path().join("archive"), bytes).unwrap();
        let quota = Quota::new(&limits, (0, 0));
        let archive = std::fs::File::open(directory.path().join("archive")).unwrap();
        let archive = OpenFile::new(archive.into(), false, quota.clone()).unwrap();
        let mut files = MountTable::new(quota);
        files.mount(MountSpec {
            guest_path: "/out".to_owned(),
            lower: None,
            upper: Some(std::fs::File::open(&upper).unwrap().into()),
            writable: true,
            hidden: vec![],
        });
        let destination = GuestPath::parse("/out").unwrap();
        let options = UnpackOptions { strip_components: strip, skip_links: false, rename: vec![] };
        let result = unpack(&mut files, &archive, &destination, &options);
        let used = files.quota().used();
        Unpacking { directory, result, used }
    }

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn plain_and_packed_archives_unpack_alike() {
        let rows: &[Row<'_>] = &[
            (EntryType::Directory, b"p/d/", b""),
            (FILE, b"p/d/file", b"contents"),
            (EntryType::Symlink, b"p/d/link", b"file"),
            (EntryType::Link, b"p/hard", b"p/d/file"),
        ];
        for bytes in [tar(rows), gzip(&tar(rows))] {
            let unpacking = run(&bytes, 1);
            let unpacked = unpacking.result.as_ref().unwrap();
            assert_eq!((unpacked.entries, unpacked.bytes, unpacking.used), (4, 8, (8, 4)));
            let upper = unpacking.directory.path().join("upper");
            assert_eq!(std::fs::read(upper.join("d/link")).unwrap(), b"contents");
            assert_eq!(std::fs::read(upper.join("hard")).unwrap(), b"contents");
        }
    }

    #[test]
    fn paths_and_links_that_lead_out_are_refused() {
        for path in [&b"../x"[..], b"a/../../x", b"/etc/x", b"a\\..\\x", b"a\nb", b"\xff"] {
            assert_eq!(run(&tar(&[(FILE, path, b"x")]), 0).id(), "archive.bad_path", "{path:?}");
        }
        for kind in [EntryType::Symlink, EntryType::Link] {
            for target in [&b"/etc/passwd"[..], b"../../x", b"..", b"a/../../../x"] {
                let unpacking = run(&tar(&[(FILE, b"ours", b"x"), (kind, b"link", target)]), 0);
                assert_eq!(unpacking.id(), "archive.bad_link", "{kind:?} {target:?}");
            }
        }
        // A hard link to what is not of this archive.
        assert_eq!(run(&tar(&[(EntryType::Link, b"link", b"missing")]), 0).id(), "archive.bad_link");
        // Through a link that was unpacked before.
        let through: &[Row<'_>] = &[
            (EntryType::Directory, b"d/", b""),
            (EntryType::Symlink, b"link", b"d"),
            (FILE, b"link/x", b"x"),
        ];
        assert_eq!(run(&tar(through), 0).id(), "archive.write_failed");
    }

    #[test]
    fn devices_and_what_is_there_twice_are_refused() {
        for kind in [EntryType::Fifo, EntryType::Char, EntryType::Block] {
            assert_eq!(run(&tar(&[(kind, b"x", b"")]), 0).id(), "archive.bad_type", "{kind:?}");
        }
        assert_eq!(run(&tar(&[(FILE, b"x", b"1"), (FILE, b"./x", b"2")]), 0).id(), "archive.duplicate");
        let again: &[Row<'_>] = &[(EntryType::Directory, b"d/", b""), (EntryType::Directory, b"d/", b"")];
        assert_eq!(run(&tar(again), 0).id(), "unpacked");
        let both: &[Row<'_>] = &[(FILE, b"d", b"x"), (FILE, b"d/x", b"x")];
        assert_eq!(run(&tar(both), 0).id(), "archive.write_failed");
    }

    #[test]
    fn what_is_unpacked_counts_and_stops_at_the_limits() {
        let many: Vec<String> = (0..101).map(|index| index.to_string()).collect();
        let rows: Vec<Row<'_>> = many.iter().map(|name| (FILE, name.as_bytes(), &b""[..])).collect();
        assert_eq!(run(&tar(&rows), 0).id(), "guest.disk_limit");
        let zeros = vec![0; 80 << 20];
        // 80 MiB of one byte pack to a thousandth: more than 200 to 1, and past 64 MiB.
        let bomb = run(&gzip(&tar(&[(FILE, b"zeros", &zeros)])), 0);
        assert!(["archive.too_large", "archive.damaged"].contains(&bomb.id()), "{:?}", bomb.result);
        assert!(bomb.used.0 <= 65 << 20);
    }

    #[test]
    fn truncated_and_damaged_archives_are_errors() {
        let whole = tar(&[(FILE, b"file", &[7; 3000])]);
        assert_eq!(run(&whole[..1500], 0).id(), "archive.damaged");
        let packed = gzip(&whole);
        assert_eq!(run(&packed[..packed.len() - 4], 0).id(), "archive.damaged");
        let mut checksum = packed.clone();
        let at = checksum.len() - 6;
        checksum[at] ^= 1;
        assert_eq!(run(&checksum, 0).id(), "archive.damaged");
        assert_eq!(run(&[1; 700], 0).id(), "archive.damaged");
    }

    /// Long names are read into memory before anybody can look at them.
    #[test]
    fn a_header_cannot_take_all_memory() {
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            let name = vec![b'n'; 10 << 20];
            let unpacking = run(&tar(&[(kind, b"long", &name), (FILE, b"file", b"x")]), 0);
            let error = unpacking.result.unwrap_err().to_string();
            assert_eq!(error, "the archive is damaged: a header is too long", "{kind:?}");
        }
    }
}
