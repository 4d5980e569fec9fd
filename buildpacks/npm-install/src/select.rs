//! Which packages of a tree are installed: not those for development, unless
//! asked for, and of the optional ones those that the image can use.

use std::collections::BTreeSet;

use crate::platform::Platform;
use crate::tree::{Id, ROOT, Tree};

/// What becomes of the packages of a tree.
#[derive(Debug)]
pub struct Selection {
    /// Whether a package stays in the tree, wherever its files come from.
    stays: Vec<bool>,
}

/// Packages that the app cannot do without and the image cannot use.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfit(pub Vec<Id>);

impl Selection {
    /// Decides about all packages of `tree`.
    ///
    /// # Errors
    /// When a package does not fit `platform` and is not optional.
    pub fn new(tree: &Tree<'_>, platform: &Platform, with_dev: bool) -> Result<Self, Unfit> {
        let count = tree.nodes.len();
        // What nobody needs is not there at all.
        let gone: Vec<bool> =
            tree.nodes.iter().map(|node| node.flags.extraneous && node.parent.is_some()).collect();
        let omitted = |id: Id| {
            let top = tree.top(id);
            !with_dev && tree.nodes[id].flags.dev && (top == ROOT || tree.is_workspace(top))
        };
        let mut left_out = vec![false; count];
        let mut unfit = Vec::new();
        for id in (0..count).filter(|id| !gone[*id]) {
            let node = &tree.nodes[id];
            if platform.fits(&node.entry) {
                continue;
            }
            if node.flags.optional {
                if !left_out[id] {
                    for id in optional_set(tree, id, &gone, &left_out) {
                        left_out[id] = true;
                    }
                }
            } else if !omitted(id) {
                unfit.push(id);
            }
        }
        if !unfit.is_empty() {
            return Err(Unfit(unfit));
        }
        // Directories of the app do not go away.
        let leaves: Vec<bool> = (0..count)
            .map(|id| tree.nodes[id].parent.is_some() && (gone[id] || left_out[id] || omitted(id)))
            .collect();
        let stays = (0..count)
            .map(|id| !std::iter::successors(Some(id), |id| tree.around(*id)).any(|id| leaves[id]))
            .collect();
        Ok(Self { stays })
    }

    /// Whether a package is part of the result, be it a directory of the app.
    pub fn stays(&self, id: Id) -> bool {
        self.stays[id]
    }

    /// Whether a package is put into a `node_modules`.
    pub fn is_installed(&self, tree: &Tree<'_>, id: Id) -> bool {
        self.stays[id] && tree.nodes[id].parent.is_some()
    }
}

/// An optional package with everything that is pointless without it: what needs
/// it, up to where that is optional, and what only these need.
fn optional_set(tree: &Tree<'_>, id: Id, gone: &[bool], left_out: &[bool]) -> BTreeSet<Id> {
    let mut core = vec![id];
    let mut index = 0;
    while let Some(&id) = core.get(index) {
        index += 1;
        for (from, edge) in tree.edges_to(id) {
            let optional = matches!(edge.kind, crate::tree::Kind::Optional | crate::tree::Kind::PeerOptional);
            if !optional && !gone[from] && !core.contains(&from) {
                core.push(from);
            }
        }
    }

    let counts = |from: Id, to: Id| !core.contains(&to) && !left_out[from] && !gone[from];
    let mut set: BTreeSet<Id> = core.iter().copied().collect();
    let mut pending = core.clone();
    while let Some(from) = pending.pop() {
        for to in tree.nodes[from].edges.iter().filter_map(|edge| edge.to) {
            if counts(from, to) && set.insert(to) {
                pending.push(to);
            }
        }
    }
    loop {
        let needed: Vec<Id> = set
            .iter()
            .copied()
            .filter(|&id| tree.edges_to(id).any(|(from, _)| !set.contains(&from) && counts(from, id)))
            .collect();
        if needed.is_empty() {
            return set;
        }
        for id in needed {
            set.remove(&id);
        }
    }
}
