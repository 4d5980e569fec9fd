//! Where the files of a tar archive are in it, so that none has to be unpacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use tar::EntryType;

use super::image::BlobFile;

/// Files that an archive may have; an image has a few for each layer.
const MAX_ENTRIES: usize = 100_000;

/// Where a file's bytes are in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarPart {
    pub start: u64,
    pub size: u64,
}

/// The files of an archive by name.
#[derive(Debug, Default)]
pub struct TarIndex {
    parts: BTreeMap<String, TarPart>,
}

impl TarIndex {
    /// Reads the headers of an archive, and steps over the contents. A link has the
    /// place of what it leads to.
    ///
    /// # Errors
    /// When it is no tar archive, compressed, cut off, or has more files than images have.
    pub fn read(file: &File) -> io::Result<Self> {
        let mut parts = BTreeMap::new();
        let mut links = Vec::new();
        let mut reader = file.try_clone()?;
        let length = reader.metadata()?.len();
        refuse_compressed(&mut reader)?;
        reader.seek(SeekFrom::Start(0))?;
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            let name = clean(&entry.path()?);
            match entry.header().entry_type() {
                EntryType::Regular => {
                    let part = TarPart { start: entry.raw_file_position(), size: entry.size() };
                    if part.start.checked_add(part.size).is_none_or(|end| end > length) {
                        return Err(invalid(&format!("`{}` is cut off", name.escape_debug())));
                    }
                    // As unpacked: the last of a name wins.
                    parts.insert(name, part);
                }
                EntryType::Symlink | EntryType::Link => {
                    if let Some(target) = entry.link_name()? {
                        links.push((name, target.to_string_lossy().into_owned()));
                    }
                }
                _ => {}
            }
            if parts.len() + links.len() > MAX_ENTRIES {
                return Err(invalid(&format!("it has more than {MAX_ENTRIES} files")));
            }
        }
        // A layer that is there twice is a link to the first: `../<id>/layer.tar`.
        for (name, target) in links {
            let target = target.trim_start_matches("../");
            if let Some(part) = parts.get(target).copied() {
                parts.insert(name, part);
            }
        }
        Ok(Self { parts })
    }

    /// Where a file is; `None` when there is none of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<TarPart> {
        self.parts.get(clean(Path::new(name)).as_str()).copied()
    }

    /// The contents of a file that has at most `most` bytes; `None` when there is no such file.
    ///
    /// # Errors
    /// When it is larger, or cannot be read.
    pub fn document(&self, file: &File, name: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(part) = self.get(name) else { return Ok(None) };
        if part.size > most {
            return Err(invalid(&format!("`{}` has more than {most} bytes", name.escape_debug())));
        }
        let mut bytes = Vec::new();
        BlobFile::part(file.try_clone()?, part.start, part.size).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// `./a//b` is `a/b`.
fn clean(path: &Path) -> String {
    let parts = path.components().filter(|part| matches!(part, std::path::Component::Normal(_)));
    parts.map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn refuse_compressed(file: &mut File) -> io::Result<()> {
    let mut magic = [0; 4];
    let mut start = file.try_clone()?;
    start.seek(SeekFrom::Start(0))?;
    let read = start.take(4).read(&mut magic)?;
    match &magic[..read] {
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] => {
            Err(invalid("the archive itself is compressed; unpack it to a `.tar` first"))
        }
        _ => Ok(()),
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}
