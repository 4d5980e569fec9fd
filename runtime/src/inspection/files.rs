//! The files of an image, layer by layer: which are there in the end, which are only
//! weight, and which are there twice.

mod tree;

use std::collections::BTreeMap;
use std::io::Read as _;

pub use self::tree::{FileNode, shown_name, trees};

use super::InspectionError;
use super::layer::{LayerTar, OpenLayer, Watched, is_no_file};
use crate::cancel::Cancel;
use crate::limits::show_bytes;
use crate::oci::digest::{Digest, Hasher};
use crate::oci::image::Image;
use crate::oci::tar_reader::{TarEntry, TarError, TarKind};

/// Files, directories and links that are looked at; a full Debian with a desktop has 300,000.
const MAX_ENTRIES: usize = 500_000;
/// Bytes of paths.
const MAX_PATH_BYTES: usize = 128 << 20;
/// Bytes that all layers together may have unpacked.
const MAX_BYTES: u64 = 64 << 30;
/// Smaller files are not compared: nobody saves anything by having them once.
const MIN_COMPARED_BYTES: u64 = 4 << 10;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Notes that an old union file system left; they are no files.
const WHITEOUT_NOTES: &[u8] = b".wh..wh.";

/// What is in the layers of an image.
#[derive(Debug, Default)]
pub struct FileReport {
    /// First to last.
    pub layers: Vec<LayerFiles>,
    /// Every regular file of every layer, in the order of the layers.
    pub files: Vec<FileRecord>,
    /// Sets of files in the image with the same contents, the largest gain first.
    pub duplicates: Vec<Duplicates>,
}

/// What is in one layer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LayerFiles {
    /// Regular files.
    pub files: usize,
    pub directories: usize,
    pub links: usize,
    /// Of the contents of files.
    pub bytes: u64,
    /// Of those, what a later layer hides or replaces.
    pub wasted_bytes: u64,
    /// What it takes away from the layers below.
    pub whiteouts: usize,
    /// Why it was not looked into, or not to its end.
    pub problem: Option<String>,
}

/// One file of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// Without a slash at the start, as the tar has it otherwise: any bytes.
    pub path: Vec<u8>,
    pub bytes: u64,
    /// The layer, from 0.
    pub layer: usize,
    /// The later layer that replaced or removed it.
    pub gone_in: Option<usize>,
}

/// Files with the same contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicates {
    /// Of one of them.
    pub bytes: u64,
    /// Indexes into [`FileReport::files`].
    pub files: Vec<usize>,
}

impl Duplicates {
    /// What would be saved if there were one only.
    #[must_use]
    pub fn gain(&self) -> u64 {
        self.bytes.saturating_mul(self.files.len() as u64 - 1)
    }
}

impl FileReport {
    /// What no container of the image ever sees.
    #[must_use]
    pub fn wasted_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.wasted_bytes).sum()
    }
}

/// Reads every layer of `image`, the lowest first, and verifies it.
///
/// A layer that is no tar as others read it too is passed over, with its problem noted;
/// one whose bytes are not those that the configuration names is an error.
///
/// # Errors
/// [`InspectionError`]
pub fn read_files(
    image: &Image,
    open: OpenLayer<'_>,
    cancel: &Cancel,
) -> Result<FileReport, InspectionError> {
    let mut reading = Reading::default();
    for (number, layer) in image.layers.iter().enumerate() {
        reading.report.layers.push(LayerFiles::default());
        match reading.layer(number, &layer.diff_id, open, cancel) {
            Ok(()) => {}
            Err(InspectionError::Tar { cause, .. }) => {
                cancel.check()?;
                reading.report.layers[number].problem = Some(cause.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(reading.finish())
}

#[derive(Default)]
struct Reading {
    report: FileReport,
    /// What is at a path now; no file for directories and links.
    present: BTreeMap<Vec<u8>, Option<usize>>,
    by_contents: BTreeMap<(u64, Digest), Vec<usize>>,
    path_bytes: usize,
    bytes: u64,
    entries: usize,
}

impl Reading {
    fn layer(
        &mut self,
        number: usize,
        diff_id: &crate::oci::digest::DiffId,
        open: OpenLayer<'_>,
        cancel: &Cancel,
    ) -> Result<(), InspectionError> {
        let mut layer = LayerTar::open(diff_id, open)?;
        // A layer's own files are safe from its whiteouts, wherever those stand.
        let mut removed = Vec::new();
        let mut added = Vec::new();
        // By directories, below which everything stays.
        let mut replaced = Vec::new();
        let mut end = None;
        while end.is_none() {
            cancel.check()?;
            let entry = match layer.tar.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) if is_no_file(&error) => continue,
                Err(error) => {
                    end = Some(layer.failed(error));
                    continue;
                }
            };
            if let Err(reason) = self.count(&entry) {
                end = Some(layer.failed(TarError::Damaged(reason)));
                continue;
            }
            let path = normal(&entry.path);
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let parent = &path[..path.len() - name.len()];
            if name == OPAQUE {
                removed.push((parent.to_vec(), false));
            } else if name.starts_with(WHITEOUT_NOTES) {
            } else if let Some(gone) = name.strip_prefix(WHITEOUT) {
                // R7: what is left has to be a name.
                if !matches!(gone, b"" | b"." | b"..") {
                    removed.push(([parent, gone].concat(), true));
                }
            } else if path.is_empty() {
            } else if entry.kind == TarKind::File {
                let digest = if entry.size >= MIN_COMPARED_BYTES {
                    match hash(&mut layer, cancel) {
                        Ok(digest) => Some(digest),
                        Err(error) => {
                            end = Some(error);
                            continue;
                        }
                    }
                } else {
                    None
                };
                let index = self.report.files.len();
                if let Some(digest) = digest {
                    self.by_contents.entry((entry.size, digest)).or_default().push(index);
                }
                let of_layer = &mut self.report.layers[number];
                (of_layer.files, of_layer.bytes) = (of_layer.files + 1, of_layer.bytes + entry.size);
                let record =
                    FileRecord { path: path.clone(), bytes: entry.size, layer: number, gone_in: None };
                self.report.files.push(record);
                added.push((path, Some(index)));
            } else {
                let of_layer = &mut self.report.layers[number];
                let is_directory = entry.kind == TarKind::Directory;
                *(if is_directory { &mut of_layer.directories } else { &mut of_layer.links }) += 1;
                if is_directory {
                    replaced.push(path);
                } else {
                    added.push((path, None));
                }
            }
        }
        self.report.layers[number].whiteouts = removed.len();
        for (path, itself) in removed {
            self.remove(&path, itself, number);
        }
        for path in replaced {
            if let Some(Some(file)) = self.present.remove(&path) {
                self.waste(file, number);
            }
        }
        for (path, file) in added {
            // What is no directory takes the place of everything below, too.
            self.remove(&path, true, number);
            self.present.insert(path, file);
        }
        end.map_or(Ok(()), Err)
    }

    fn count(&mut self, entry: &TarEntry) -> Result<(), String> {
        self.entries += 1;
        self.path_bytes += entry.path.len();
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.entries > MAX_ENTRIES {
            return Err(format!("the image has more than {MAX_ENTRIES} files"));
        }
        if self.path_bytes > MAX_PATH_BYTES {
            return Err("the files of the image have too long names".to_owned());
        }
        if self.bytes > MAX_BYTES {
            return Err(format!("the image unpacks to more than {}", show_bytes(MAX_BYTES)));
        }
        Ok(())
    }

    /// Takes away everything below `path`, a directory, and what is there `itself`.
    fn remove(&mut self, path: &[u8], itself: bool, number: usize) {
        let mut gone = Vec::new();
        if itself && let Some(file) = self.present.remove(path) {
            gone.push(file);
        }
        let below =
            if path.is_empty() || path.ends_with(b"/") { path.to_vec() } else { [path, b"/"].concat() };
        let keys: Vec<Vec<u8>> = self
            .present
            .range(below.clone()..)
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(&below))
            .cloned()
            .collect();
        for key in keys {
            gone.extend(self.present.remove(&key));
        }
        for file in gone.into_iter().flatten() {
            self.waste(file, number);
        }
    }

    fn waste(&mut self, file: usize, number: usize) {
        let record = &mut self.report.files[file];
        record.gone_in = Some(number);
        self.report.layers[record.layer].wasted_bytes += record.bytes;
    }

    fn finish(mut self) -> FileReport {
        let files = &self.report.files;
        let sets = self.by_contents.into_iter().map(|((bytes, _), mut same)| {
            same.retain(|index| files[*index].gone_in.is_none());
            Duplicates { bytes, files: same }
        });
        let mut duplicates: Vec<Duplicates> = sets.filter(|set| set.files.len() > 1).collect();
        duplicates.sort_by_key(|set| (std::cmp::Reverse(set.gain()), set.files.clone()));
        self.report.duplicates = duplicates;
        self.report
    }
}

fn hash(layer: &mut LayerTar, cancel: &Cancel) -> Result<Digest, InspectionError> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 64 << 10];
    let mut contents = Watched { inner: layer.tar.contents(), cancel };
    let result = loop {
        match contents.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) => break Err(error),
        }
    };
    cancel.check()?;
    result.map_err(|error| layer.failed(TarError::Read(error)))?;
    Ok(hasher.finish())
}

/// A path without empty and `.` parts; a `..` leads nowhere and stays as it is.
fn normal(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.collect::<Vec<_>>().join(&b'/')
}

#[cfg(test)]
mod tests;
