//! What becomes of each entry, whatever format it comes from.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::super::bindings::buildpack::wapack::buildpack::files::UnpackOptions;
use super::destination::Destination;
use super::entry::{Entry, Kind, clean, stays_inside, strip_names};
use super::{UnpackError, Unpacked};

/// Entries of one archive.
const MAX_ENTRIES: u64 = 1_000_000;
/// Bytes of all paths of one archive, which are kept until its end.
const MAX_NAMES_BYTES: u64 = 64 * 1024 * 1024;

/// One archive on its way into a directory.
pub(super) struct Extraction<'a, 's, 't> {
    destination: Destination<'s, 't>,
    options: &'a UnpackOptions,
    /// What this archive made, but for directories.
    made: BTreeMap<String, Made>,
    names_bytes: u64,
    seen: u64,
    unpacked: Unpacked,
    stop: &'a AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    File {
        mode: Mode,
        size: u64,
    },
    /// A file that the archive calls something else, and how large it is.
    Renamed {
        mode: Mode,
        size: u64,
    },
    Symlink,
}

impl<'a, 's, 't> Extraction<'a, 's, 't> {
    pub(super) fn new(
        destination: Destination<'s, 't>,
        options: &'a UnpackOptions,
        stop: &'a AtomicBool,
    ) -> Result<Self, UnpackError> {
        for (_, to) in &options.rename {
            if clean(to.as_bytes()).is_none_or(|names| names != [to.as_str()]) {
                return Err(UnpackError::BadRename(to.clone()));
            }
        }
        Ok(Self {
            destination,
            options,
            made: BTreeMap::new(),
            names_bytes: 0,
            seen: 0,
            unpacked: Unpacked::default(),
            stop,
        })
    }

    /// What was written.
    pub(super) fn unpacked(&self) -> Unpacked {
        self.unpacked
    }

    /// Writes one entry. Reads as much of `contents` as it needs.
    ///
    /// # Errors
    /// Every [`UnpackError`] there is.
    pub(super) fn add(&mut self, entry: &Entry, contents: &mut dyn BufRead) -> Result<(), UnpackError> {
        self.check_stop()?;
        self.seen += 1;
        if self.seen > MAX_ENTRIES {
            return Err(UnpackError::TooLarge(format!("has more than {MAX_ENTRIES} entries")));
        }
        let Some(path) = entry.destination(self.options.strip_components)? else { return Ok(()) };
        let write = |error| UnpackError::Write { number: entry.number, name: entry.name(), error };
        match &entry.kind {
            Kind::Directory => {
                if let Some(Made::Renamed { .. }) = self.made.get(&path) {
                    self.remove(&path).map_err(write)?;
                }
                match self.destination.make_directory(&path) {
                    Ok(()) => self.unpacked.entries += 1,
                    Err(error) => return Err(self.taken(entry, &path, error)),
                }
                Ok(())
            }
            Kind::File { size, mode } => self.add_file(entry, path, *size, file_mode(*mode), contents),
            Kind::Symlink(_) | Kind::HardLink(_) if self.options.skip_links => Ok(()),
            Kind::Symlink(target) => {
                let text = std::str::from_utf8(target).ok().filter(|target| stays_inside(&path, target));
                let target = text.ok_or_else(|| entry.bad_link(target))?;
                self.make_room(entry, &path)?;
                if let Err(error) = self.destination.create_symlink(&path, target) {
                    return Err(self.taken(entry, &path, error));
                }
                self.note(path, Made::Symlink)
            }
            Kind::HardLink(target) => {
                let bad_link = || entry.bad_link(target);
                let names = clean(target).ok_or_else(bad_link)?;
                let from = strip_names(&names, self.options.strip_components).ok_or_else(bad_link)?;
                // Only a file of this very archive, so that no other file gets a second name.
                let Some(made @ Made::File { .. }) = self.made.get(&from).copied() else {
                    return Err(bad_link());
                };
                if from == path {
                    return Err(bad_link());
                }
                self.make_room(entry, &path)?;
                if let Err(error) = self.destination.link(&from, &path) {
                    return Err(self.taken(entry, &path, error));
                }
                self.note(path, made)
            }
        }
    }

    fn add_file(
        &mut self,
        entry: &Entry,
        path: String,
        size: u64,
        mode: Mode,
        contents: &mut dyn BufRead,
    ) -> Result<(), UnpackError> {
        let renamed = self.renamed(&path);
        let made = match renamed {
            Some(_) => Made::Renamed { mode, size },
            None => Made::File { mode, size },
        };
        let is_renamed = renamed.is_some();
        let path = renamed.unwrap_or(path);
        match self.made.get(&path) {
            // The archive has one of that name: it wins, whichever comes first.
            Some(Made::File { .. } | Made::Symlink) if is_renamed => return Ok(()),
            Some(Made::Renamed { .. }) if !is_renamed => self.make_room(entry, &path)?,
            Some(before) if *before == made => {
                // npm takes the last one; where both are the same, so is the result.
                let is_same = self.is_same(&path, size, contents)?;
                return if is_same { Ok(()) } else { Err(duplicate(entry)) };
            }
            Some(_) => return Err(duplicate(entry)),
            None => {}
        }
        let mut file = match self.destination.create_file(&path, size, mode) {
            Ok(file) => file,
            Err(Errno::EXIST) if is_renamed => return Ok(()),
            Err(error) => return Err(self.taken(entry, &path, error)),
        };
        let mut left = size;
        while left > 0 {
            self.check_stop()?;
            let chunk = contents.fill_buf().map_err(UnpackError::read)?;
            let count = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 {
                let message = format!("entry {} `{}` is cut short", entry.number, entry.name());
                return Err(UnpackError::Damaged(message));
            }
            file.write(&chunk[..count]).map_err(|error| UnpackError::Write {
                number: entry.number,
                name: entry.name(),
                error,
            })?;
            contents.consume(count);
            left -= count as u64;
        }
        self.unpacked.bytes += size;
        self.note(path, made)
    }

    fn check_stop(&self) -> Result<(), UnpackError> {
        if self.stop.load(Ordering::Relaxed) { Err(UnpackError::Stopped) } else { Ok(()) }
    }

    /// The path of a file that the options call something else.
    fn renamed(&self, path: &str) -> Option<String> {
        let (directory, name) = path.rsplit_once('/').map_or(("", path), |(parent, name)| (parent, name));
        let (_, to) = self.options.rename.iter().find(|(from, to)| from == name && from != to)?;
        Some(if directory.is_empty() { to.clone() } else { format!("{directory}/{to}") })
    }

    /// Makes room for an entry that has its path from the archive: a renamed one
    /// gives way, anything else of this archive does not.
    fn make_room(&mut self, entry: &Entry, path: &str) -> Result<(), UnpackError> {
        match self.made.get(path) {
            Some(Made::Renamed { .. }) => self.remove(path).map_err(|error| UnpackError::Write {
                number: entry.number,
                name: entry.name(),
                error,
            }),
            Some(_) => Err(duplicate(entry)),
            None => Ok(()),
        }
    }

    fn remove(&mut self, path: &str) -> Result<(), Errno> {
        self.destination.remove_file(path)?;
        if let Some(Made::Renamed { size, .. }) = self.made.remove(path) {
            self.unpacked.entries -= 1;
            self.unpacked.bytes -= size;
        }
        Ok(())
    }

    /// Whether the file that was written to `path` has these contents.
    fn is_same(&mut self, path: &str, size: u64, contents: &mut dyn BufRead) -> Result<bool, UnpackError> {
        let Ok(written) = self.destination.read_file(path) else { return Ok(false) };
        let mut written = std::io::BufReader::new(written);
        let mut left = size;
        while left > 0 {
            self.check_stop()?;
            let ours = written.fill_buf().map_err(UnpackError::read)?;
            let theirs = contents.fill_buf().map_err(UnpackError::read)?;
            let count = ours.len().min(theirs.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 || ours[..count] != theirs[..count] {
                return Ok(false);
            }
            written.consume(count);
            contents.consume(count);
            left -= count as u64;
        }
        Ok(true)
    }

    fn note(&mut self, path: String, made: Made) -> Result<(), UnpackError> {
        self.names_bytes += path.len() as u64;
        if self.names_bytes > MAX_NAMES_BYTES {
            return Err(UnpackError::TooLarge(format!(
                "has names of more than {} MiB",
                MAX_NAMES_BYTES / 1024 / 1024
            )));
        }
        self.unpacked.entries += 1;
        self.made.insert(path, made);
        Ok(())
    }

    /// Why an entry could not be made: what is in its way may come from this archive.
    fn taken(&self, entry: &Entry, path: &str, error: Errno) -> UnpackError {
        if matches!(error, Errno::EXIST | Errno::NOTDIR | Errno::LOOP) && self.made.contains_key(path) {
            return duplicate(entry);
        }
        UnpackError::Write { number: entry.number, name: entry.name(), error }
    }
}

fn duplicate(entry: &Entry) -> UnpackError {
    UnpackError::Duplicate { number: entry.number, name: entry.name() }
}

/// Readable by all and writable by us; of the archive's bits, who may execute it.
fn file_mode(mode: u32) -> Mode {
    Mode::from_raw_mode(0o644 | (mode & 0o111))
}

/// Reads what is left of an entry's contents.
pub(super) fn drain(contents: &mut impl Read) -> Result<u64, UnpackError> {
    std::io::copy(contents, &mut std::io::sink()).map_err(UnpackError::read)
}
