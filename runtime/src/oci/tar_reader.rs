//! Reading a tar, strictly: where two readers could disagree, it is refused.
//!
//! # Spec
//! POSIX.1-2024 `pax`, "ustar Interchange Format" and "pax Extended Header"; of GNU
//! tar, long names (`L`, `K`) and base-256 numbers. Neither sparse files nor the
//! contents that old writers claim for directories and links.

use std::io::{self, BufRead, Read};

use super::digest::{Digest, Hasher};

const BLOCK_BYTES: usize = 512;
/// Bytes of a pax header or a long name, which are read into memory.
const MAX_HEADER_BYTES: u64 = 64 * 1024;
/// The largest size that a header can say in octal.
const MAX_OCTAL_SIZE: u64 = 0o777_7777_7777;

/// Why a tar cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("the tar cannot be read")]
    Read(#[source] io::Error),
    /// It does not begin like a tar.
    #[error("it is no tar")]
    NoTar,
    #[error("the tar is damaged: {0}")]
    Damaged(String),
    /// An entry that is neither file, directory nor link.
    #[error("entry {number} `{}` of the tar is a {kind}", path.escape_ascii())]
    BadType { number: u64, path: Vec<u8>, kind: &'static str },
}

/// What the tar says of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Counted from 1.
    pub number: u64,
    /// As the tar has it: it may be absolute and lead anywhere.
    pub path: Vec<u8>,
    pub kind: TarKind,
    /// `None` when what is there is no number.
    pub mode: Option<u32>,
    /// Of the contents, in bytes; only files have any.
    pub size: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarKind {
    File,
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
}

/// Reads a tar entry by entry.
pub struct TarReader<R> {
    source: R,
    header: [u8; BLOCK_BYTES],
    /// Of the entry that is read, counted from 1.
    number: u64,
    /// Contents and padding of that entry that were not read yet.
    left: u64,
    padding: u64,
    /// Of the headers.
    outline: Hasher,
}

impl<R: BufRead> TarReader<R> {
    /// Reads `source`, which nothing but zeros may follow.
    pub fn new(source: R) -> Self {
        Self { source, header: [0; BLOCK_BYTES], number: 0, left: 0, padding: 0, outline: Hasher::default() }
    }

    /// The digest of the headers that were read, without contents and end: two tars
    /// with the same outline and the same contents have the same bytes.
    ///
    /// # Shape
    /// As [`LayerWriter::file_header`](super::layer::LayerWriter::file_header) writes it.
    #[must_use]
    pub fn outline(self) -> Digest {
        self.outline.finish()
    }

    /// The next entry; `None` at the end, after which nothing but zeros was found.
    /// What was not read of the contents before is skipped.
    ///
    /// # Errors
    /// [`TarError`].
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, TarError> {
        let left = self.left + self.padding;
        if drain(&mut (&mut self.source).take(left))? != left {
            return Err(self.damaged("is cut short"));
        }
        (self.left, self.padding) = (0, 0);
        let Some(entry) = self.next_header()? else {
            self.finish()?;
            return Ok(None);
        };
        self.left = entry.size;
        self.padding = padding(entry.size);
        Ok(Some(entry))
    }

    /// What is left of the contents of the entry that was read last.
    pub fn contents(&mut self) -> Contents<'_, R> {
        Contents(self)
    }
}

/// See [`TarReader::contents`]. Ends early only where the tar is cut short.
pub struct Contents<'t, R>(&'t mut TarReader<R>);

impl<R> Contents<'_, R> {
    /// Bytes that are still to come.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.0.left
    }
}

impl<R: BufRead> BufRead for Contents<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.left == 0 {
            return Ok(&[]);
        }
        let chunk = self.0.source.fill_buf()?;
        let count = chunk.len().min(usize::try_from(self.0.left).unwrap_or(usize::MAX));
        Ok(&chunk[..count])
    }

    fn consume(&mut self, count: usize) {
        self.0.source.consume(count);
        self.0.left -= count as u64;
    }
}

impl<R: BufRead> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Zeros that fill the last block.
fn padding(size: u64) -> u64 {
    let block = BLOCK_BYTES as u64;
    (block - size % block) % block
}

fn drain(contents: &mut impl Read) -> Result<u64, TarError> {
    std::io::copy(contents, &mut std::io::sink()).map_err(TarError::Read)
}

/// What stands before an entry and says more than its header has room for.
#[derive(Debug, Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    /// Whether a pax header gave these, or GNU tar's own entries.
    is_pax: bool,
    is_gnu: bool,
}

impl<R: BufRead> TarReader<R> {
    /// The next entry; `None` at the first block of the end.
    fn next_header(&mut self) -> Result<Option<TarEntry>, TarError> {
        self.number += 1;
        let mut extension = Extension::default();
        loop {
            if !self.read_block()? {
                return Err(TarError::Damaged("it has no end marker".to_owned()));
            }
            let is_extended = extension.is_pax || extension.is_gnu;
            if self.header.iter().all(|byte| *byte == 0) {
                if is_extended {
                    return Err(self.damaged("is missing behind its extended header"));
                }
                return Ok(None);
            }
            self.check_sum()?;
            self.outline.update(&self.header);
            let header = Header(&self.header);
            let size = header.size().ok_or_else(|| self.damaged("has a size that is no number"))?;
            match header.kind() {
                b'x' if is_extended => return Err(self.damaged("has two extended headers")),
                b'L' | b'K' if extension.is_pax => return Err(self.damaged("has two extended headers")),
                b'x' => {
                    extension = self.pax_header(size)?;
                }
                b'g' => {
                    if is_extended {
                        return Err(self.damaged("has two extended headers"));
                    }
                    let global = self.pax_header(size)?;
                    if global.path.is_some() || global.link.is_some() || global.size.is_some() {
                        return Err(self.damaged("has its path or size for all entries at once"));
                    }
                }
                kind @ (b'L' | b'K') => {
                    let name = self.long_name(size)?;
                    let place = if kind == b'L' { &mut extension.path } else { &mut extension.link };
                    if place.replace(name).is_some() {
                        return Err(self.damaged("has two long names"));
                    }
                    extension.is_gnu = true;
                }
                _ => return self.entry(size, extension).map(Some),
            }
        }
    }

    fn entry(&self, size: u64, extension: Extension) -> Result<TarEntry, TarError> {
        let header = Header(&self.header);
        let path = extension.path.unwrap_or_else(|| header.path());
        let size = match extension.size {
            // Only a size that the header has no room for may differ from it.
            Some(said) if said != size && said <= MAX_OCTAL_SIZE => {
                return Err(self.damaged("has two sizes"));
            }
            said => said.unwrap_or(size),
        };
        let link = || extension.link.clone().unwrap_or_else(|| header.link());
        let bad_type = |kind| Err(TarError::BadType { number: self.number, path: path.clone(), kind });
        let kind = match header.kind() {
            // A trailing slash is how tars before POSIX say "directory".
            0 | b'0' | b'7' if path.ends_with(b"/") => TarKind::Directory,
            0 | b'0' | b'7' => TarKind::File,
            b'1' => TarKind::HardLink(link()),
            b'2' => TarKind::Symlink(link()),
            b'5' => TarKind::Directory,
            b'3' | b'4' => return bad_type("device"),
            b'6' => return bad_type("FIFO"),
            b'S' => return bad_type("sparse file"),
            _ => return bad_type("entry of an unknown type"),
        };
        let mode = header.mode();
        if kind == TarKind::File {
            if mode.is_none() {
                return Err(self.damaged("has a mode that is no number"));
            }
        } else if size != 0 {
            // Some readers skip that many bytes, others do not.
            return Err(self.damaged("has contents, and is no file"));
        }
        if extension.link.is_some() && !matches!(kind, TarKind::Symlink(_) | TarKind::HardLink(_)) {
            return Err(self.damaged("has a target, and is no link"));
        }
        Ok(TarEntry { number: self.number, path, kind, mode, size })
    }

    /// Reads the end: another block of zeros, and whatever is left has to be zeros.
    fn finish(&mut self) -> Result<(), TarError> {
        if !self.read_block()? {
            return Err(TarError::Damaged("it has half an end marker".to_owned()));
        }
        if self.header.iter().any(|byte| *byte != 0) {
            return Err(TarError::Damaged("its end marker is followed by something".to_owned()));
        }
        loop {
            let rest = self.source.fill_buf().map_err(TarError::Read)?;
            if rest.iter().any(|byte| *byte != 0) {
                return Err(TarError::Damaged("its end marker is followed by something".to_owned()));
            }
            match rest.len() {
                0 => return Ok(()),
                count => self.source.consume(count),
            }
        }
    }

    fn damaged(&self, what: &str) -> TarError {
        TarError::Damaged(format!("entry {} {what}", self.number))
    }

    /// Reads a block into `header`; `false` at the end of the file.
    fn read_block(&mut self) -> Result<bool, TarError> {
        if self.source.fill_buf().map_err(TarError::Read)?.is_empty() {
            return Ok(false);
        }
        self.source.read_exact(&mut self.header).map_err(TarError::Read)?;
        Ok(true)
    }

    fn check_sum(&self) -> Result<(), TarError> {
        let header = Header(&self.header);
        let is_tar =
            header.sum().is_some_and(|sum| sum == header.unsigned_sum() || sum == header.signed_sum());
        match is_tar {
            true => Ok(()),
            false if self.number == 1 => Err(TarError::NoTar),
            false => Err(self.damaged("has a wrong checksum")),
        }
    }

    fn skip_padding(&mut self, size: u64) -> Result<(), TarError> {
        let padding = padding(size);
        if drain(&mut (&mut self.source).take(padding))? != padding {
            return Err(self.damaged("is cut short"));
        }
        Ok(())
    }

    fn header_contents(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_HEADER_BYTES {
            return Err(self.damaged("has too long a header"));
        }
        let mut bytes = Vec::new();
        (&mut self.source).take(size).read_to_end(&mut bytes).map_err(TarError::Read)?;
        if bytes.len() as u64 != size {
            return Err(self.damaged("is cut short"));
        }
        self.skip_padding(size)?;
        let padding = usize::try_from(padding(size)).expect("less than a block");
        self.outline.update(&bytes);
        self.outline.update(&[0; BLOCK_BYTES][..padding]);
        Ok(bytes)
    }

    /// The contents of an `L` or `K` entry: a name up to its NUL.
    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.header_contents(size)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        if name[end..].iter().any(|byte| *byte != 0) {
            return Err(self.damaged("has a long name that goes on behind its end"));
        }
        name.truncate(end);
        if name.is_empty() { Err(self.damaged("has an empty long name")) } else { Ok(name) }
    }

    /// The records of an `x` or `g` entry, which have to fill it exactly.
    fn pax_header(&mut self, size: u64) -> Result<Extension, TarError> {
        let bytes = self.header_contents(size)?;
        let mut extension = Extension { is_pax: true, ..Extension::default() };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (key, value, next) =
                pax_record(rest).ok_or_else(|| self.damaged("has a malformed extended header"))?;
            rest = next;
            let is_new = match key {
                b"path" | b"linkpath" => {
                    if value.is_empty() || value.contains(&0) {
                        return Err(self.damaged("has an empty path, or one with a NUL"));
                    }
                    let place = if key == b"path" { &mut extension.path } else { &mut extension.link };
                    place.replace(value.to_vec()).is_none()
                }
                b"size" => {
                    let size = decimal(value).ok_or_else(|| self.damaged("has a size that is no number"))?;
                    extension.size.replace(size).is_none()
                }
                b"hdrcharset" if value != b"ISO-IR 10646 2000 UTF-8" => {
                    return Err(self.damaged("has names in an unknown character set"));
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    let path = extension.path.unwrap_or_default();
                    return Err(TarError::BadType { number: self.number, path, kind: "sparse file" });
                }
                _ => true,
            };
            if !is_new {
                return Err(self.damaged("says its path or size twice"));
            }
        }
        Ok(extension)
    }
}

/// `<length> <key>=<value>\n`, where the length counts all of it.
fn pax_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The fields of a header block.
struct Header<'a>(&'a [u8; BLOCK_BYTES]);

impl Header<'_> {
    /// The type flag.
    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        // GNU tar has other things in the prefix, and says so in the magic.
        if &self.0[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    fn size(&self) -> Option<u64> {
        number(&self.0[124..136])
    }

    fn mode(&self) -> Option<u32> {
        number(&self.0[100..108]).and_then(|mode| u32::try_from(mode).ok())
    }

    fn sum(&self) -> Option<u64> {
        number(&self.0[148..156])
    }

    /// The sum of all bytes, those of the sum itself taken as spaces.
    fn unsigned_sum(&self) -> u64 {
        self.summed().map(u64::from).sum()
    }

    /// As writers with signed characters have it.
    fn signed_sum(&self) -> u64 {
        let sum: i64 = self.summed().map(|byte| i64::from(byte.cast_signed())).sum();
        u64::try_from(sum).unwrap_or(u64::MAX)
    }

    fn summed(&self) -> impl Iterator<Item = u8> {
        self.0.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte })
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits between spaces and NULs, or base 256 with the first bit set; an
/// empty field is 0. Neither negative nor above 2^63.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((first, rest)) = field.split_first()
        && first & 0x80 != 0
    {
        // 0xff begins a negative number; the other bits of the first byte are digits.
        return rest.iter().try_fold(u64::from(first & 0x7f), |value, byte| {
            value
                .checked_mul(256)?
                .checked_add(u64::from(*byte))
                .filter(|value| *value <= i64::MAX.cast_unsigned())
        });
    }
    let start = field.iter().position(|byte| *byte != b' ').unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|byte| !matches!(byte, b'0'..=b'7')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if rest.iter().any(|byte| !matches!(byte, b' ' | 0)) {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| value.checked_mul(8)?.checked_add(u64::from(digit - b'0')))
}
