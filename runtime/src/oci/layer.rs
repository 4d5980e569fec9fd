//! Layers as tar: the bytes of each entry, and nothing of the machine they were made on.
//!
//! # Spec
//! image-spec `layer.md`, and the tar details that make the same files give the
//! same digest as the reference lifecycle: absolute names with their leading
//! slash, directories without a trailing one, one constant time, no user names,
//! PAX records only for what a USTAR header cannot hold.

use std::io::{self, Read, Write};

use tar::{EntryType, Header, UstarHeader};

use crate::tree::SpecialFile;

const BLOCK: usize = 512;
/// Of the name field of a header.
const NAME_BYTES: usize = 100;
/// 1980-01-01T00:00:01Z.
pub const MODIFIED_SECONDS: u64 = 315_532_801;
const COPY_BUFFER_BYTES: usize = 128 << 10;

/// Owner of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u64,
    pub gid: u64,
}

impl Owner {
    /// `0:0`.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

/// Writes one layer.
///
/// # Units
/// Names are absolute paths as bytes, without a trailing slash. `mode` is
/// permission bits with setuid, setgid and sticky. Entries are written in the
/// order of the calls.
#[derive(Debug)]
pub struct LayerWriter<W> {
    inner: W,
    buffer: Vec<u8>,
}

impl<W: Write> LayerWriter<W> {
    /// Writes the tar to `inner`, which should buffer.
    pub fn new(inner: W) -> Self {
        Self { inner, buffer: Vec::new() }
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// When the name cannot be stored, or the writer fails.
    pub fn directory(&mut self, name: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
        self.header(EntryType::Directory, name, b"", mode, owner, 0)
    }

    /// Adds a symbolic link; `target` is stored as it is.
    ///
    /// # Errors
    /// When name or target cannot be stored, or the writer fails.
    pub fn symlink(&mut self, name: &[u8], target: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
        self.header(EntryType::Symlink, name, target, mode, owner, 0)
    }

    /// Adds a FIFO or a device, which is all header.
    ///
    /// # Errors
    /// When the name cannot be stored, or the writer fails.
    pub fn special(&mut self, name: &[u8], special: SpecialFile, mode: u32, owner: Owner) -> io::Result<()> {
        let (entry_type, device) = match special {
            SpecialFile::Fifo => (EntryType::Fifo, None),
            SpecialFile::CharacterDevice { major, minor } => (EntryType::Char, Some((major, minor))),
            SpecialFile::BlockDevice { major, minor } => (EntryType::Block, Some((major, minor))),
        };
        self.entry(&Fields { entry_type, name, target: b"", mode, owner, size: 0, device })
    }

    /// Adds a file of exactly `size` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` when `contents` has fewer bytes, `InvalidData` when it
    /// has more: the file changed while it was read (TAR-15). Otherwise when the
    /// name cannot be stored, or reading or writing fails.
    pub fn file(
        &mut self,
        name: &[u8],
        mode: u32,
        owner: Owner,
        size: u64,
        mut contents: impl Read,
    ) -> io::Result<()> {
        self.file_header(name, mode, owner, size)?;
        self.buffer.resize(COPY_BUFFER_BYTES, 0);
        let mut left = size;
        loop {
            let read = match contents.read(&mut self.buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if read == 0 {
                break;
            }
            left = left.checked_sub(read as u64).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "the file grew while it was read")
            })?;
            self.inner.write_all(&self.buffer[..read])?;
        }
        if left > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file shrank while it was read"));
        }
        self.pad(size)
    }

    /// Adds the header of a file and nothing of its contents: what is written then is
    /// no tar, but the outline of one.
    ///
    /// # Errors
    /// When the name cannot be stored, or the writer fails.
    pub fn file_header(&mut self, name: &[u8], mode: u32, owner: Owner, size: u64) -> io::Result<()> {
        self.header(EntryType::Regular, name, b"", mode, owner, size)
    }

    /// Gives the inner writer back, without an end.
    #[must_use]
    pub fn into_inner(self) -> W {
        self.inner
    }

    /// Ends the layer with two zero blocks and gives the inner writer back.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&[0; 2 * BLOCK])?;
        Ok(self.inner)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let used = usize::try_from(size % BLOCK as u64).expect("less than a block");
        if used == 0 { Ok(()) } else { self.inner.write_all(&[0; BLOCK][used..]) }
    }

    fn header(
        &mut self,
        entry_type: EntryType,
        name: &[u8],
        target: &[u8],
        mode: u32,
        owner: Owner,
        size: u64,
    ) -> io::Result<()> {
        self.entry(&Fields { entry_type, name, target, mode, owner, size, device: None })
    }

    fn entry(&mut self, entry: &Fields<'_>) -> io::Result<()> {
        let &Fields { entry_type, name, target, mode, owner, size, device } = entry;
        check_name(name)?;
        if target.contains(&0) || (target.is_empty() && entry_type == EntryType::Symlink) {
            return Err(invalid("a link target is empty or has a NUL byte"));
        }
        let mut header = Header::new_ustar();
        let fields = header.as_ustar_mut().expect("made as a USTAR header");
        // What does not fit, sorted by key.
        let mut too_big: Vec<(&str, Vec<u8>)> = Vec::new();

        let split = if fits(name, fields.name.len()) { None } else { split_name(name) };
        let target_fits = fits(target, fields.linkname.len());
        let numbers_fit = [
            octal(&mut fields.uid, owner.uid),
            octal(&mut fields.gid, owner.gid),
            octal(&mut fields.size, size),
        ];
        if !numbers_fit[1] {
            too_big.push(("gid", owner.gid.to_string().into_bytes()));
        }
        if !target_fits {
            too_big.push(("linkpath", target.to_vec()));
        }
        let name_fits = fits(name, fields.name.len());
        // With a PAX header there anyway, the whole name goes into it too.
        let has_other_records = !target_fits || numbers_fit.contains(&false);
        if !name_fits && (split.is_none() || has_other_records) {
            too_big.push(("path", name.to_vec()));
        }
        if !numbers_fit[2] {
            too_big.push(("size", size.to_string().into_bytes()));
        }
        if !numbers_fit[0] {
            too_big.push(("uid", owner.uid.to_string().into_bytes()));
        }

        match split {
            Some((prefix, rest)) if too_big.is_empty() => {
                fields.prefix[..prefix.len()].copy_from_slice(prefix);
                text(&mut fields.name, rest);
            }
            _ => text(&mut fields.name, name),
        }
        text(&mut fields.linkname, target);
        if !octal(&mut fields.mode, u64::from(mode)) || !octal(&mut fields.mtime, MODIFIED_SECONDS) {
            return Err(invalid("a mode is out of range"));
        }
        let (major, minor) = device.unwrap_or((0, 0));
        if !octal(&mut fields.dev_major, major.into()) || !octal(&mut fields.dev_minor, minor.into()) {
            return Err(invalid("the number of a device is out of range"));
        }
        fields.typeflag = [entry_type.as_byte()];

        if !too_big.is_empty() {
            self.extended_header(name, &too_big)?;
        }
        set_checksum(&mut header);
        self.inner.write_all(header.as_bytes())
    }

    /// The PAX header before an entry: one `length key=value` line for each record.
    fn extended_header(&mut self, name: &[u8], records: &[(&str, Vec<u8>)]) -> io::Result<()> {
        let mut body = Vec::new();
        for (key, value) in records {
            body.extend_from_slice(&record(key, value));
        }
        let last_slash = name.iter().rposition(|&byte| byte == b'/').expect("names are absolute");
        let mut header_name = name[..=last_slash].to_vec();
        header_name.extend_from_slice(b"PaxHeaders.0/");
        header_name.extend_from_slice(&name[last_slash + 1..]);
        header_name.retain(u8::is_ascii);
        header_name.truncate(NAME_BYTES);
        while header_name.ends_with(b"/") {
            header_name.pop();
        }

        let mut header = Header::new_ustar();
        let fields = header.as_ustar_mut().expect("made as a USTAR header");
        text(&mut fields.name, &header_name);
        for field in [&mut fields.mode, &mut fields.uid, &mut fields.gid] {
            octal(field, 0);
        }
        if !octal(&mut fields.size, body.len() as u64) {
            return Err(invalid("a name is too long"));
        }
        octal(&mut fields.mtime, 0);
        fields.typeflag = [EntryType::XHeader.as_byte()];
        set_checksum(&mut header);
        self.inner.write_all(header.as_bytes())?;
        self.inner.write_all(&body)?;
        self.pad(body.len() as u64)
    }
}

/// What the header of one entry says.
struct Fields<'a> {
    entry_type: EntryType,
    name: &'a [u8],
    target: &'a [u8],
    mode: u32,
    owner: Owner,
    size: u64,
    /// Major and minor number.
    device: Option<(u32, u32)>,
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn check_name(name: &[u8]) -> io::Result<()> {
    if !name.starts_with(b"/") || name.ends_with(b"/") {
        return Err(invalid("an entry's name is not an absolute path without a trailing slash"));
    }
    if name.contains(&0) {
        return Err(invalid("an entry's name has a NUL byte"));
    }
    Ok(())
}

fn fits(value: &[u8], field: usize) -> bool {
    value.is_ascii() && value.len() <= field
}

/// Cuts a long name at the last slash that leaves both parts short enough.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut empty = Header::new_ustar();
    let UstarHeader { name: rest_field, prefix: prefix_field, .. } =
        empty.as_ustar_mut().expect("made as a USTAR header");
    if !name.is_ascii() {
        return None;
    }
    let window = &name[..name.len().min(prefix_field.len() + 1)];
    let slash = window.iter().rposition(|&byte| byte == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (!prefix.is_empty() && !rest.is_empty() && rest.len() <= rest_field.len()).then_some((prefix, rest))
}

/// Fills a text field; what is not ASCII or too long is in a PAX record, and
/// only a reminder of it stays here.
fn text(field: &mut [u8], value: &[u8]) {
    field.fill(0);
    let ascii: Vec<u8> = value.iter().copied().filter(u8::is_ascii).collect();
    let kept = ascii.len().min(field.len());
    field[..kept].copy_from_slice(&ascii[..kept]);
    // Old readers take a name that was cut at a slash for a directory.
    if ascii.len() > field.len() && field.ends_with(b"/") {
        let end = field.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        field[end] = 0;
    }
}

/// Fills a number field: octal, zero-padded, NUL at the end; zero when it does not fit.
fn octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    let fits = text.len() == digits;
    field.fill(b'0');
    field[digits] = 0;
    if fits {
        field[..digits].copy_from_slice(text.as_bytes());
    }
    fits
}

/// Six octal digits, NUL, space; summed over the header with blanks in their place.
fn set_checksum(header: &mut Header) {
    let blank = [b' '; 8];
    header.as_ustar_mut().expect("made as a USTAR header").cksum = blank;
    let sum: u32 = header.as_bytes().iter().map(|&byte| u32::from(byte)).sum();
    let text = format!("{sum:06o}\0 ");
    let fields = header.as_ustar_mut().expect("made as a USTAR header");
    fields.cksum.copy_from_slice(text.as_bytes());
}

/// One PAX record; its length counts its own digits.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::oci::digest::Digest;

    const USER: Owner = Owner { uid: 1000, gid: 1000 };

    fn layer(fill: impl FnOnce(&mut LayerWriter<Vec<u8>>)) -> Vec<u8> {
        let mut writer = LayerWriter::new(Vec::new());
        fill(&mut writer);
        writer.finish().unwrap()
    }

    fn assert_vector(bytes: &[u8], size: usize, sha256: &str) {
        assert_eq!(bytes.len(), size);
        assert_eq!(Digest::of(bytes).hex(), sha256);
    }

    /// TAR-01 to TAR-04, TAR-11: bytes that an independent program made.
    #[test]
    fn v1_a_buildpack_layer() {
        let bytes = layer(|writer| {
            for name in ["/layers", "/layers/acme_hello", "/layers/acme_hello/greeting"] {
                writer.directory(name.as_bytes(), 0o755, USER).unwrap();
            }
            writer.file(b"/layers/acme_hello/greeting/msg", 0o644, USER, 3, b"hi\n".as_slice()).unwrap();
        });
        assert_vector(&bytes, 3584, "3cd7f996aaa0f6f294487e07973af974edd8419985b3e64ec3cdb58788a9c055");
    }

    /// TAR-13
    #[test]
    fn v2_process_types() {
        let bytes = layer(|writer| {
            for name in ["/cnb", "/cnb/process"] {
                writer.directory(name.as_bytes(), 0o755, Owner::ROOT).unwrap();
            }
            writer.symlink(b"/cnb/process/web", b"/cnb/lifecycle/launcher", 0o755, Owner::ROOT).unwrap();
        });
        assert_vector(&bytes, 2560, "83d85471d9f8a3834b4e27cf701e3f0aef220cc816d9c173c7d32cd73909a590");
    }

    /// TAR-10
    #[test]
    fn v3_an_app() {
        let bytes = layer(|writer| {
            writer.directory(b"/workspace", 0o755, USER).unwrap();
            writer.file(b"/workspace/app.sh", 0o755, USER, 10, b"#!/bin/sh\n".as_slice()).unwrap();
            writer.symlink(b"/workspace/link", b"app.sh", 0o777, USER).unwrap();
        });
        assert_vector(&bytes, 3072, "f8b658f4345cb9342aae80cbfa93a888e83d431c8c09b7eace78093c037354a1");
    }

    /// TAR-11
    #[test]
    fn v4_nothing() {
        let bytes = layer(|_| {});
        assert_vector(&bytes, 1024, "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
    }

    fn read_with(command: &mut Command, input: &[u8]) -> String {
        let mut child = command
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} is needed for this test: {error}"));
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Names around every border of the format, each with a file of its own size.
    fn awkward_names() -> Vec<String> {
        let mut names = vec![
            format!("/{}", "a".repeat(99)),
            format!("/{}", "b".repeat(100)),
            format!("/{}/{}", "c".repeat(154), "d".repeat(100)),
            format!("/{}/{}", "c".repeat(155), "d".repeat(100)),
            format!("/{}/{}", "e".repeat(60), "f".repeat(101)),
            format!("/{}", "g/".repeat(600) + "end"),
            "/größe/名前".to_owned(),
            format!("/{}/ü", "h".repeat(98)),
            "/with = and\nnewline".to_owned(),
        ];
        for length in 85..100 {
            // The length of a PAX record counts its own digits: cross 99 to 100.
            names.push(format!("/ü{}", "x".repeat(length - "13 path=/ü\n".len())));
        }
        names
    }

    fn awkward_layer() -> Vec<u8> {
        layer(|writer| {
            for (size, name) in awkward_names().iter().enumerate() {
                writer.file(name.as_bytes(), 0o644, USER, size as u64, vec![b'.'; size].as_slice()).unwrap();
            }
            let target = format!("../{}", "t".repeat(200));
            writer.symlink(b"/long-link", target.as_bytes(), 0o777, USER).unwrap();
            writer.symlink(b"/utf8-link", "ü".as_bytes(), 0o777, USER).unwrap();
            writer.directory(b"/big-owner", 0o755, Owner { uid: 5_000_000, gid: 4_294_967_294 }).unwrap();
        })
    }

    /// TAR-01, TAR-03
    #[test]
    fn python_reads_names_that_need_pax() {
        let script = "import sys,tarfile,json\n\
            t=tarfile.open(fileobj=sys.stdin.buffer,mode='r|')\n\
            print(json.dumps([[m.name,m.size,m.linkname,m.uid,m.gid,int(m.mtime)] for m in t]))";
        let read = read_with(Command::new("python3").args(["-c", script]), &awkward_layer());
        let read: serde_json::Value = serde_json::from_str(&read).unwrap();
        let mut expected: Vec<serde_json::Value> = awkward_names()
            .iter()
            .enumerate()
            .map(|(size, name)| serde_json::json!([name, size, "", 1000, 1000, 315_532_801]))
            .collect();
        let target = format!("../{}", "t".repeat(200));
        expected.push(serde_json::json!(["/long-link", 0, target, 1000, 1000, 315_532_801]));
        expected.push(serde_json::json!(["/utf8-link", 0, "ü", 1000, 1000, 315_532_801]));
        expected.push(serde_json::json!(["/big-owner", 0, "", 5_000_000, 4_294_967_294_u32, 315_532_801]));
        assert_eq!(read, serde_json::Value::Array(expected));
    }

    /// TAR-01
    #[test]
    fn gnu_tar_reads_names_that_need_pax() {
        let arguments = ["--list", "--absolute-names", "--quoting-style=literal"];
        let read = read_with(Command::new("tar").args(arguments).args(["--file", "-"]), &awkward_layer());
        let mut expected = awkward_names();
        expected.extend(["/long-link".to_owned(), "/utf8-link".to_owned(), "/big-owner".to_owned()]);
        let expected: String = expected.into_iter().map(|name| name + "\n").collect();
        // The name with a line break is printed as one.
        assert_eq!(read.replace("/big-owner/\n", "/big-owner\n"), expected);
    }

    /// TAR-01, TAR-02, TAR-09, TAR-10: size and digest of the same entries written by
    /// Go's `archive/tar`, which the reference lifecycle uses.
    #[test]
    fn tar_01_awkward_entries_have_the_bytes_of_the_reference() {
        let text = |text: &str| text.as_bytes().to_vec();
        let names = [
            text(&format!("/{}", "a".repeat(99))),
            text(&format!("/{}", "b".repeat(100))),
            text(&format!("/{}/{}", "c".repeat(154), "d".repeat(100))),
            text(&format!("/{}/{}", "c".repeat(155), "d".repeat(100))),
            text(&format!("/{}/{}", "e".repeat(60), "f".repeat(101))),
            text(&format!("/{}", "g/".repeat(600) + "end")),
            text("/größe/名前"),
            text(&format!("/{}/ü", "h".repeat(98))),
            text("/with = and\nnewline"),
            b"/bad\xff\xfename".to_vec(),
            text(&format!("/{}/ü/{}", "k".repeat(98), "l".repeat(10))),
            text(&format!("/{}/{}", "m".repeat(98), "n".repeat(120))),
        ];
        let targets = [
            text(&format!("../{}", "t".repeat(200))),
            text("ü"),
            text("dir/"),
            text("/abs/ü"),
            text(&format!("/ü/{}//{}", "x".repeat(98), "y".repeat(9))),
            b"a\xffb".to_vec(),
        ];
        let owner = Owner { uid: 1000, gid: 1001 };
        let bytes = layer(|writer| {
            for (size, name) in names.iter().enumerate() {
                writer.file(name, 0o4755, owner, size as u64, vec![b'.'; size].as_slice()).unwrap();
            }
            for (number, target) in targets.iter().enumerate() {
                writer.symlink(format!("/link{number}").as_bytes(), target, 0o777, owner).unwrap();
            }
            let big = Owner { uid: 5_000_000, gid: 4_294_967_294 };
            writer.directory(b"/big-owner", 0o1777, big).unwrap();
            writer.special(b"/fifo", SpecialFile::Fifo, 0o640, Owner::ROOT).unwrap();
            let null = SpecialFile::CharacterDevice { major: 1, minor: 3 };
            writer.special(b"/null", null, 0o666, Owner::ROOT).unwrap();
            let block = SpecialFile::BlockDevice { major: 259, minor: 65537 };
            writer.special(b"/block", block, 0o660, Owner::ROOT).unwrap();
        });
        assert_vector(&bytes, 34304, "e90aee837c22bc538d0a3605d3e98b89ce6f4af522effad82a97d882aafd070a");
    }

    /// TAR-01
    #[test]
    fn pax_is_used_only_where_needed() {
        let splits = layer(|writer| {
            let name = format!("/{}/{}", "c".repeat(154), "d".repeat(100));
            writer.directory(name.as_bytes(), 0o755, USER).unwrap();
        });
        assert_eq!(splits.len(), 512 + 1024);
        let pax = layer(|writer| {
            let name = format!("/{}/{}", "c".repeat(155), "d".repeat(100));
            writer.directory(name.as_bytes(), 0o755, USER).unwrap();
        });
        assert_eq!(pax.len(), 3 * 512 + 1024);
        assert_eq!(pax[156], b'x');
    }

    #[test]
    fn tar_15_a_file_that_changes_while_it_is_read_is_an_error() {
        let mut writer = LayerWriter::new(Vec::new());
        let short = writer.file(b"/a", 0o644, USER, 4, b"abc".as_slice()).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        let mut writer = LayerWriter::new(Vec::new());
        let long = writer.file(b"/a", 0o644, USER, 2, b"abc".as_slice()).unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidData);
    }

    /// TAR-02
    #[test]
    fn names_that_are_not_absolute_are_refused() {
        for name in ["", "a", "/", "/a/", "/a\0b"] {
            let result = LayerWriter::new(Vec::new()).directory(name.as_bytes(), 0o755, USER);
            assert!(result.is_err(), "{name:?}");
        }
    }
}
