//! Directories that become layers are listed several at a time, before anybody asks.
//!
//! What comes out is as if each had been listed when it was asked for: an error of one that
//! nobody asks for is nobody's error.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::on_disk::{Place, look_at};
use crate::cancel::Cancel;
use crate::oci::layer::Owner;
use crate::tree::{Listing, Tree, TreeError, TreeLimits};

/// More than this wait for the same disk.
const MAX_AT_A_TIME: usize = 8;

/// A directory that becomes a layer.
pub(super) struct Directory {
    pub place: Place<'static>,
    pub tree: Tree,
    pub listing: Listing,
}

/// How directories are listed.
#[derive(Clone, Copy)]
pub(super) struct Looking<'a> {
    /// Of everything below.
    pub owner: Owner,
    pub limits: TreeLimits,
    pub cancel: &'a Cancel,
}

/// Directories that were listed and nobody has asked for yet.
#[derive(Default)]
pub(super) struct Looks(BTreeMap<String, Result<Option<Directory>, TreeError>>);

impl Looking<'_> {
    /// Lists what is at `path`, an absolute path; `None` when nothing is.
    fn at(self, path: &str) -> Result<Option<Directory>, TreeError> {
        let Some(place) = look_at(path, self.owner)? else { return Ok(None) };
        let tree = if place.is_directory { Tree::of(path) } else { Tree::default() };
        let listing = tree.list(self.limits, self.cancel)?;
        Ok(Some(Directory { place, tree, listing }))
    }

    /// Lists all of these.
    pub(super) fn at_all(self, paths: &[String]) -> Looks {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let (next, looks) = (AtomicUsize::new(0), Mutex::new(Looks::default()));
        let work = || {
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                let found = self.at(path);
                let mut looks = looks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                looks.0.insert(path.clone(), found);
            }
        };
        std::thread::scope(|scope| {
            // One of them is this one.
            for _ in 1..cores.min(MAX_AT_A_TIME).min(paths.len()) {
                scope.spawn(work);
            }
            work();
        });
        looks.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes what is at `path` out of `looks`, or lists it now.
    pub(super) fn take(self, looks: &mut Looks, path: &str) -> Result<Option<Directory>, TreeError> {
        looks.0.remove(path).unwrap_or_else(|| self.at(path))
    }
}
