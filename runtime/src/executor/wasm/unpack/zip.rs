//! Reading a zip, strictly: its two tables of contents have to say the same.
//!
//! A reader may go by the central directory at the end or by the headers before
//! each file. So both are read, and everything in the file has to be accounted for:
//! no gaps, no overlaps, nothing before or behind. Neither encryption nor zip64.
//!
//! # Spec
//! PKWARE `APPNOTE.TXT` 6.3.10, sections 4.3 and 4.4.

use std::io::{BufReader, Read};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::entry::{Entry, Kind, shown};
use super::extraction::Extraction;
use super::formats::{ArchiveFile, allowed_output, too_much_output};
use super::{CHUNK_BYTES, UnpackError};

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const DESCRIPTOR: &[u8] = b"PK\x07\x08";
const END: &[u8] = b"PK\x05\x06";
const LOCAL_BYTES: u64 = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: u64 = 22;
/// Bytes of the central directory, which is read into memory.
const MAX_DIRECTORY_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a link's target.
const MAX_TARGET_BYTES: u64 = 4096;
/// The flags that change nothing of what is unpacked: how hard it was compressed,
/// that sizes follow the data, that names are UTF-8.
const KNOWN_FLAGS: u16 = 0b1000_0000_1110;
const SIZES_FOLLOW: u16 = 1 << 3;
const NAMES_ARE_UTF8: u16 = 1 << 11;
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;

/// Unpacks the zip in `archive`.
pub(super) fn unpack(
    archive: ArchiveFile<'_>,
    extraction: &mut Extraction<'_, '_, '_>,
) -> Result<(), UnpackError> {
    let members = members(archive)?;
    for member in &members {
        let packed = BufReader::with_capacity(CHUNK_BYTES, archive.reader(member.data, member.packed_size));
        match member.method {
            Method::Stored => {
                member.unpack(packed, extraction)?;
            }
            Method::Deflated => {
                let decoder = member.unpack(DeflateDecoder::new(packed), extraction)?;
                if decoder.total_in() != member.packed_size {
                    return Err(member.damaged("has something behind its contents"));
                }
            }
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Stored,
    Deflated,
}

/// One record of the central directory.
struct Member {
    number: u64,
    name: Vec<u8>,
    flags: u16,
    method: Method,
    checksum: u32,
    packed_size: u64,
    size: u64,
    /// The permissions and type of Unix, where the archive has them.
    unix_mode: Option<u32>,
    /// Where its local header is, and its contents once that was read.
    header: u64,
    data: u64,
}

impl Member {
    fn damaged(&self, what: &str) -> UnpackError {
        UnpackError::Damaged(format!("entry {} `{}` {what}", self.number, shown(&self.name)))
    }

    /// Writes the contents and checks them; gives back the source for more checks.
    fn unpack<R: Read>(&self, source: R, extraction: &mut Extraction<'_, '_, '_>) -> Result<R, UnpackError> {
        let checked = Checked { source, checksum: Crc::new(), size: 0, allowed: self.size };
        let mut contents = BufReader::with_capacity(CHUNK_BYTES, checked);
        let kind = self.kind(&mut contents)?;
        let entry = Entry { number: self.number, path: self.name.clone(), kind };
        extraction.add(&entry, &mut contents)?;
        super::extraction::drain(&mut contents)?;
        let checked = contents.into_inner();
        if checked.size != self.size || checked.checksum.sum() != self.checksum {
            return Err(self.damaged("is not what its checksum says"));
        }
        Ok(checked.source)
    }

    fn kind(&self, contents: &mut impl Read) -> Result<Kind, UnpackError> {
        const TYPE: u32 = 0o170_000;
        let has_slash = self.name.ends_with(b"/");
        let mode = self.unix_mode.unwrap_or(0);
        let kind = match mode & TYPE {
            0 | 0o040_000 if has_slash => Kind::Directory,
            0 | 0o100_000 if !has_slash => Kind::File { size: self.size, mode },
            0o120_000 if !has_slash => {
                if self.size > MAX_TARGET_BYTES {
                    return Err(self.damaged("has too long a target"));
                }
                let mut target = Vec::new();
                contents.read_to_end(&mut target).map_err(UnpackError::read)?;
                Kind::Symlink(target)
            }
            0o040_000 | 0o100_000 | 0o120_000 => return Err(self.damaged("has a name of another type")),
            _ => {
                let name = shown(&self.name);
                return Err(UnpackError::BadType { number: self.number, name, kind: "special file" });
            }
        };
        if kind == Kind::Directory && self.size != 0 {
            return Err(self.damaged("has contents, and is no file"));
        }
        Ok(kind)
    }
}

/// Counts and sums what is read, and never reads much more than was declared.
struct Checked<R> {
    source: R,
    checksum: Crc,
    size: u64,
    allowed: u64,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.checksum.update(&buffer[..count]);
        self.size += count as u64;
        if self.size > self.allowed {
            return Err(UnpackError::Damaged("an entry is larger than it says".to_owned()).into_io());
        }
        Ok(count)
    }
}

/// Reads both tables of contents, and whether they agree.
fn members(archive: ArchiveFile<'_>) -> Result<Vec<Member>, UnpackError> {
    let end = end_record(archive)?;
    let bytes = read(archive, end.directory, end.directory_size)?;
    let mut rest = Fields(&bytes);
    let mut members = Vec::new();
    for number in 1..=end.count {
        members.push(central_record(&mut rest, number)?);
    }
    if !rest.0.is_empty() {
        return Err(damaged("its directory is longer than it says"));
    }
    let total: u64 = members.iter().map(|member| member.size).sum();
    if total > allowed_output(archive.size) {
        return Err(too_much_output());
    }
    let mut in_order: Vec<&mut Member> = members.iter_mut().collect();
    in_order.sort_by_key(|member| member.header);
    let mut expected = 0;
    for index in 0..in_order.len() {
        let next = in_order.get(index + 1).map_or(end.directory, |next| next.header);
        let member = &mut *in_order[index];
        if member.header != expected {
            return Err(member.damaged("does not begin where the one before it ends"));
        }
        check_local(archive, member, next)?;
        expected = next;
    }
    if expected != end.directory {
        return Err(damaged("there is something before its directory"));
    }
    Ok(members)
}

fn damaged(what: &str) -> UnpackError {
    UnpackError::Damaged(what.to_owned())
}

fn zip64() -> UnpackError {
    UnpackError::Unsupported("is a zip64 one".to_owned())
}

/// Reads all of a part, or fails.
fn read(archive: ArchiveFile<'_>, start: u64, length: u64) -> Result<Vec<u8>, UnpackError> {
    let mut bytes = Vec::new();
    archive.reader(start, length).read_to_end(&mut bytes).map_err(UnpackError::read)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(damaged("it is cut short")) }
}

/// Where the central directory is.
struct EndRecord {
    count: u64,
    directory: u64,
    directory_size: u64,
}

fn end_record(archive: ArchiveFile<'_>) -> Result<EndRecord, UnpackError> {
    let tail_bytes = archive.size.min(END_BYTES + u64::from(u16::MAX));
    let tail_start = archive.size - tail_bytes;
    let tail = read(archive, tail_start, tail_bytes)?;
    // Readers search from the end, or check that the comment ends the file: both
    // have to find the same record.
    let mut found: Vec<usize> = (0..tail.len()).filter(|at| tail[*at..].starts_with(END)).collect();
    let Some(at) = found.pop() else { return Err(damaged("it has no directory")) };
    let ends_the_file = |at: usize| {
        let comment = tail.get(at + 20..at + 22).map(|field| u16::from_le_bytes([field[0], field[1]]));
        comment.is_some_and(|length| at + 22 + usize::from(length) == tail.len())
    };
    if !ends_the_file(at) || found.into_iter().any(ends_the_file) {
        return Err(damaged("its end is not where it should be"));
    }
    let mut fields = Fields(&tail[at + 4..]);
    let (disk, directory_disk) = (fields.u16()?, fields.u16()?);
    let (count_here, count) = (fields.u16()?, fields.u16()?);
    let (directory_size, directory) = (fields.u32()?, fields.u32()?);
    if count == u16::MAX || directory_size == u32::MAX || directory == u32::MAX {
        return Err(zip64());
    }
    if disk != 0 || directory_disk != 0 || count_here != count {
        return Err(UnpackError::Unsupported("is one of several parts".to_owned()));
    }
    let (directory, directory_size) = (u64::from(directory), u64::from(directory_size));
    if directory_size > MAX_DIRECTORY_BYTES {
        let limit = MAX_DIRECTORY_BYTES / 1024 / 1024;
        return Err(UnpackError::TooLarge(format!("has a directory of more than {limit} MiB")));
    }
    if directory + directory_size != tail_start + at as u64 {
        return Err(damaged("its directory does not end where its end record begins"));
    }
    Ok(EndRecord { count: u64::from(count), directory, directory_size })
}

fn central_record(fields: &mut Fields<'_>, number: u64) -> Result<Member, UnpackError> {
    let mut record = Fields(fields.bytes(CENTRAL_BYTES)?);
    if record.bytes(4)? != CENTRAL {
        return Err(damaged("its directory has something else in it"));
    }
    let made_by = record.u16()?;
    check_version(record.u16()?)?;
    let (flags, method) = (record.u16()?, record.u16()?);
    let _time = record.u32()?;
    let checksum = record.u32()?;
    let (packed_size, size) = (record.u32()?, record.u32()?);
    let (name, extra, comment) = (record.u16()?, record.u16()?, record.u16()?);
    let disk = record.u16()?;
    let _internal = record.u16()?;
    let (attributes, header) = (record.u32()?, record.u32()?);
    let name = fields.bytes(usize::from(name))?.to_vec();
    check_extra(fields.bytes(usize::from(extra))?, &name)?;
    fields.bytes(usize::from(comment))?;

    let about = format!("has an entry {number} `{}` that is", shown(&name));
    if flags & ENCRYPTED != 0 {
        return Err(UnpackError::Unsupported(format!("{about} encrypted")));
    }
    if flags & !KNOWN_FLAGS != 0 {
        return Err(UnpackError::Unsupported(format!("{about} of unknown flags")));
    }
    if flags & NAMES_ARE_UTF8 == 0 && !name.is_ascii() {
        return Err(UnpackError::Unsupported(format!("{about} named in an unknown character set")));
    }
    let method = match method {
        0 => Method::Stored,
        8 => Method::Deflated,
        method => return Err(UnpackError::Unsupported(format!("{about} compressed by method {method}"))),
    };
    if [packed_size, size, header].contains(&u32::MAX) {
        return Err(zip64());
    }
    let is_unix = matches!(made_by >> 8, 3 | 19);
    let member = Member {
        number,
        name,
        flags,
        method,
        checksum,
        packed_size: u64::from(packed_size),
        size: u64::from(size),
        unix_mode: is_unix.then_some(attributes >> 16),
        header: u64::from(header),
        data: 0,
    };
    if disk != 0 {
        return Err(member.damaged("is in another part"));
    }
    if method == Method::Stored && packed_size != size {
        return Err(member.damaged("has two sizes"));
    }
    Ok(member)
}

/// Compares the header before the contents with what the directory says, and that
/// the contents go on until `next`.
fn check_local(archive: ArchiveFile<'_>, member: &mut Member, next: u64) -> Result<(), UnpackError> {
    let bytes = read(archive, member.header, LOCAL_BYTES)?;
    let mut record = Fields(&bytes);
    if record.bytes(4)? != LOCAL {
        return Err(member.damaged("is not where the directory says"));
    }
    check_version(record.u16()?)?;
    let (flags, method) = (record.u16()?, record.u16()?);
    let _time = record.u32()?;
    let said = (record.u32()?, u64::from(record.u32()?), u64::from(record.u32()?));
    let (name_bytes, extra_bytes) = (record.u16()?, record.u16()?);
    let variable_bytes = u64::from(name_bytes) + u64::from(extra_bytes);
    let variable = read(archive, member.header + LOCAL_BYTES, variable_bytes)?;
    let mut variable = Fields(&variable);
    let name = variable.bytes(usize::from(name_bytes))?;
    let method_is_same = method == if member.method == Method::Stored { 0 } else { 8 };
    if name != member.name || flags != member.flags || !method_is_same {
        return Err(member.damaged("is another one in the directory"));
    }
    check_extra(variable.0, &member.name)?;

    let actual = (member.checksum, member.packed_size, member.size);
    let sizes_follow = member.flags & SIZES_FOLLOW != 0;
    if said != actual && !(sizes_follow && said == (0, 0, 0)) {
        return Err(member.damaged("has another size or checksum in the directory"));
    }
    member.data = member.header + LOCAL_BYTES + variable_bytes;
    let end = member.data + member.packed_size;
    let behind = next.checked_sub(end).ok_or_else(|| member.damaged("overlaps the next one"))?;
    let is_descriptor = match behind {
        0 => !sizes_follow,
        12 | 16 if sizes_follow => {
            let bytes = read(archive, end, behind)?;
            let mut fields = Fields(&bytes);
            let is_signed = behind == 12 || fields.bytes(4)? == DESCRIPTOR;
            is_signed && (fields.u32()?, u64::from(fields.u32()?), u64::from(fields.u32()?)) == actual
        }
        _ => false,
    };
    if is_descriptor { Ok(()) } else { Err(member.damaged("is followed by something else")) }
}

/// The version of the format that is needed; ours is that of plain deflate, and
/// writers that ask for a newer one mean flags or methods, which are looked at.
fn check_version(needed: u16) -> Result<(), UnpackError> {
    const NEWEST: u16 = 63;
    if needed & 0xff > NEWEST {
        return Err(UnpackError::Unsupported("is of an unknown version".to_owned()));
    }
    Ok(())
}

/// Extra fields may not say other sizes or another name.
fn check_extra(extra: &[u8], name: &[u8]) -> Result<(), UnpackError> {
    const ZIP64: u16 = 0x0001;
    const UNICODE_PATH: u16 = 0x7075;
    let mut fields = Fields(extra);
    while !fields.0.is_empty() {
        let (id, length) = (fields.u16()?, fields.u16()?);
        let value = fields.bytes(usize::from(length))?;
        // A version and a checksum come first.
        let other_name = value.get(5..).is_none_or(|unicode| unicode != name);
        match id {
            ZIP64 => return Err(zip64()),
            UNICODE_PATH if other_name => return Err(damaged("an entry has two names")),
            _ => {}
        }
    }
    Ok(())
}

/// Takes little-endian fields from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], UnpackError> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or_else(|| damaged("it is cut short"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], UnpackError> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| damaged("it is cut short"))
    }

    fn u16(&mut self) -> Result<u16, UnpackError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, UnpackError> {
        self.array().map(u32::from_le_bytes)
    }
}
