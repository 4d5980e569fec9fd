//! What came from sources, to be told later.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A file that a buildpack got from a source, wherever that was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Artifact {
    /// The name of the source, such as `npm`.
    pub source: String,
    /// Below the source.
    pub path: String,
    /// Of its bytes: `sha512:` and hexadecimal digits.
    pub hash: String,
    /// Whether the buildpack knew the bytes before they came, by a hash that nobody can forge.
    pub is_pinned: bool,
}

/// What came from sources for an image, in this build or for the layers it used again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Artifacts {
    pub known: BTreeSet<Artifact>,
    /// Whether a layer was used again of which nobody noted what was fetched for it.
    pub is_incomplete: bool,
}

impl Artifacts {
    /// Adds what was noted for a layer, if it was.
    pub fn add(&mut self, noted: Option<&BTreeSet<Artifact>>) {
        match noted {
            Some(artifacts) => self.known.extend(artifacts.iter().cloned()),
            None => self.is_incomplete = true,
        }
    }
}
