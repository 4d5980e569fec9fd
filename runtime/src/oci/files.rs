//! Which files an image holds, and what starting them takes.
//!
//! An index is made by streaming layers once; nothing is unpacked. Layers may
//! be hostile: links lead nowhere outside the image, whiteouts remove what is
//! below them only, and numbers and sizes are bounded. It must not know what
//! is looked for in it.
//!
//! # Spec
//! image-spec `layer.md`, "Applying Changesets" and "Whiteouts".

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Seek};

use serde::{Deserialize, Serialize};

use super::elf::Elf;

mod scan;

#[cfg(test)]
pub(crate) use scan::library_cache;
pub use scan::{LayerBlob, ScanError};

/// Links followed on the way to one file, as the kernel does.
const MAX_LINKS: usize = 40;
/// How much of a script's first line the kernel reads.
const SCRIPT_BYTES: u64 = 256;
/// What a path may hold that leads through links of hostile length.
const MAX_STEPS: usize = 10_000;

/// What is at one path of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    #[serde(rename = "d")]
    Directory,
    /// A symbolic link and where it points.
    #[serde(rename = "l")]
    Link(String),
    #[serde(rename = "f")]
    File {
        /// Whether anybody may execute it.
        #[serde(rename = "x")]
        executable: bool,
        #[serde(rename = "c")]
        contents: Contents,
    },
}

/// What a file is, for whoever starts it or loads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contents {
    /// Nobody has looked yet, or it was too large to be looked at.
    #[serde(rename = "u")]
    Unread,
    /// A program or a library.
    #[serde(rename = "e")]
    Elf(Box<Elf>),
    #[serde(rename = "s")]
    Script(Script),
    /// `ld.so.cache`: file names and paths of libraries.
    #[serde(rename = "c")]
    LibraryCache(Vec<(String, String)>),
    /// A small text that says where a loader looks.
    #[serde(rename = "t")]
    Text(String),
    /// Nothing of these.
    #[serde(rename = "o")]
    Other,
}

/// The first line of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    pub interpreter: String,
    /// Everything after it: the kernel passes it on as one argument.
    pub argument: Option<String>,
}

impl Contents {
    /// Looks at the start of a file, and at the headers if it is a program.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(mut source: impl Read + Seek) -> io::Result<Self> {
        let mut start = Vec::new();
        source.by_ref().take(SCRIPT_BYTES).read_to_end(&mut start)?;
        if start.starts_with(&object::elf::ELFMAG) {
            return Ok(Elf::read(source).map_or(Self::Other, |elf| Self::Elf(Box::new(elf))));
        }
        Ok(Script::parse(&start).map_or(Self::Other, Self::Script))
    }
}

impl Script {
    /// Reads `#!` as the kernel does; `None` when there is nothing to start.
    fn parse(start: &[u8]) -> Option<Self> {
        let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
        let line = String::from_utf8_lossy(line);
        let line = line.trim_matches([' ', '\t']);
        let (interpreter, rest) = line.split_once([' ', '\t', '\0']).unwrap_or((line, ""));
        let rest = rest.trim_matches([' ', '\t']);
        (!interpreter.is_empty()).then(|| Self {
            interpreter: interpreter.to_owned(),
            argument: (!rest.is_empty()).then(|| rest.to_owned()),
        })
    }
}

/// The files of one layer or of several together.
///
/// # Shape
/// Paths are clean and relative to the image's root; the root itself is `""`
/// and always a directory. A path that is not UTF-8 is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileIndex {
    nodes: BTreeMap<String, Node>,
}

impl FileIndex {
    /// What is at a clean path; links are not followed.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        if path.is_empty() { Some(&Node::Directory) } else { self.nodes.get(path) }
    }

    /// How many paths there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no path at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Every path, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Puts something at a clean path, whatever was there.
    pub fn insert(&mut self, path: &str, node: Node) {
        if node != Node::Directory || self.get(path) != Some(&Node::Directory) {
            self.remove_below(path, &HashSet::new());
            self.nodes.insert(path.to_owned(), node);
        }
    }

    fn remove_below(&mut self, path: &str, except: &HashSet<String>) {
        // `0` comes right after `/`: everything between is below the path.
        let below = if path.is_empty() {
            self.nodes.range::<str, _>(..)
        } else {
            self.nodes.range::<str, _>((
                std::ops::Bound::Included(format!("{path}/").as_str()),
                std::ops::Bound::Excluded(format!("{path}0").as_str()),
            ))
        };
        let gone: Vec<String> =
            below.map(|(path, _)| path).filter(|path| !except.contains(*path)).cloned().collect();
        for path in gone {
            self.nodes.remove(&path);
        }
    }
}

/// What [`follow`] has to know of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Directory,
    File,
    /// And where it points.
    Link(String),
}

impl From<&Node> for Step {
    fn from(node: &Node) -> Self {
        match node {
            Node::Directory => Self::Directory,
            Node::File { .. } => Self::File,
            Node::Link(target) => Self::Link(target.clone()),
        }
    }
}

/// Where a path leads, with every link followed and `..` stopping at the
/// image's root; `None` when there is nothing. `look` is asked for clean paths.
///
/// # Errors
/// Those of `look`.
pub fn follow<E>(
    path: &str,
    mut look: impl FnMut(&str) -> Result<Option<Step>, E>,
) -> Result<Option<String>, E> {
    let mut waiting: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut at = String::new();
    let (mut links, mut steps) = (0, 0);
    while let Some(part) = waiting.pop() {
        steps += 1;
        if steps > MAX_STEPS {
            return Ok(None);
        }
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let next = if at.is_empty() { part } else { format!("{at}/{part}") };
        match look(&next)? {
            None => return Ok(None),
            Some(Step::Directory) => at = next,
            Some(Step::File) => return Ok(waiting.is_empty().then_some(next)),
            Some(Step::Link(target)) => {
                links += 1;
                if links > MAX_LINKS {
                    return Ok(None);
                }
                if target.starts_with('/') {
                    at.clear();
                }
                waiting.extend(target.split('/').rev().map(str::to_owned));
            }
        }
    }
    Ok(Some(at))
}

#[cfg(test)]
mod tests;
