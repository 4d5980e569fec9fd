//! The files of a layer as a tree of bounded size, for showing.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{FileRecord, FileReport};
use crate::text::harmless;

/// Deeper parts of a path are one name.
const MAX_DEPTH: usize = 48;
/// Longest name that is shown whole.
const MAX_NAME_CHARACTERS: usize = 300;

/// A directory or file, under a name that is harmless to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileNode {
    Directory {
        name: String,
        bytes: u64,
        /// The largest first, the rest last.
        children: Vec<FileNode>,
    },
    File {
        name: String,
        bytes: u64,
        /// Whether a later layer replaced or removed it.
        is_wasted: bool,
    },
    /// Files of a directory that are too many to be shown one by one.
    Rest { files: usize, bytes: u64, wasted_bytes: u64 },
}

impl FileNode {
    /// Of everything in it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Directory { bytes, .. } | Self::File { bytes, .. } | Self::Rest { bytes, .. } => *bytes,
        }
    }
}

/// A name as it may be shown: text where it is text, and never without end.
#[must_use]
pub fn shown_name(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(&harmless(chunk.valid()));
        text.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    match text.char_indices().nth(MAX_NAME_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[derive(Default)]
struct Directory<'a> {
    directories: BTreeMap<&'a [u8], Directory<'a>>,
    /// By name; a damaged layer may have one name twice.
    files: Vec<(&'a [u8], &'a FileRecord, bool)>,
}

/// The files of each layer as a tree; together they show no more than the `most`
/// largest files one by one, and of those no more than have paths of `most_path_bytes`.
#[must_use]
pub fn trees(report: &FileReport, most: usize, most_path_bytes: usize) -> Vec<Vec<FileNode>> {
    let mut largest: Vec<usize> = (0..report.files.len()).collect();
    // Of equal files the first are shown, so that the same image always gives the same trees.
    largest.sort_by_key(|index| (Reverse(report.files[*index].bytes), *index));
    let mut is_shown = vec![false; report.files.len()];
    let mut path_bytes = 0;
    for index in largest.into_iter().take(most) {
        path_bytes += report.files[index].path.len();
        if path_bytes > most_path_bytes {
            break;
        }
        is_shown[index] = true;
    }
    let mut layers: Vec<Directory<'_>> = Vec::new();
    layers.resize_with(report.layers.len(), Directory::default);
    for (record, shown) in report.files.iter().zip(is_shown) {
        layers[record.layer].add(record, shown);
    }
    layers.into_iter().map(Directory::nodes).collect()
}

impl<'a> Directory<'a> {
    fn add(&mut self, record: &'a FileRecord, shown: bool) {
        let mut directory = self;
        let mut rest = record.path.as_slice();
        for _ in 1..MAX_DEPTH {
            let Some(slash) = rest.iter().position(|byte| *byte == b'/') else { break };
            directory = directory.directories.entry(&rest[..slash]).or_default();
            rest = &rest[slash + 1..];
        }
        directory.files.push((rest, record, shown));
    }

    /// Recursion is bounded by [`MAX_DEPTH`].
    fn nodes(self) -> Vec<FileNode> {
        let mut nodes: Vec<FileNode> = Vec::new();
        let (mut files, mut bytes, mut wasted_bytes) = (0, 0, 0);
        for (name, directory) in self.directories {
            let children = directory.nodes();
            // A directory of which nothing is shown is not shown either.
            if let [FileNode::Rest { files: of_rest, bytes: in_rest, wasted_bytes: wasted }] = children[..] {
                (files, bytes, wasted_bytes) = (files + of_rest, bytes + in_rest, wasted_bytes + wasted);
                continue;
            }
            let sum = children.iter().map(FileNode::bytes).sum();
            nodes.push(FileNode::Directory { name: shown_name(name), bytes: sum, children });
        }
        for (name, record, shown) in self.files {
            let is_wasted = record.gone_in.is_some();
            if shown {
                nodes.push(FileNode::File { name: shown_name(name), bytes: record.bytes, is_wasted });
            } else {
                (files, bytes) = (files + 1, bytes + record.bytes);
                wasted_bytes += if is_wasted { record.bytes } else { 0 };
            }
        }
        // Stable: equal ones stay sorted by name, directories first.
        nodes.sort_by_key(|node| Reverse(node.bytes()));
        if files > 0 {
            nodes.push(FileNode::Rest { files, bytes, wasted_bytes });
        }
        nodes
    }
}
