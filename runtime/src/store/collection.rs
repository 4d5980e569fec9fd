//! Keeping the store small: what goes, in which order, and what never does.
//!
//! What always holds:
//!
//! - **What a running build uses stays.** A build leases what it found, wrote or is about to
//!   look for, by name (`leases.rs`). Whoever collects
//!   claims a name first, and only then looks again whether anything refers to it: who wanted
//!   it in between either has it, or is done, and its record is seen. Trees go with their
//!   image, which a build leases before it reads its record.
//! - **A record goes before what it leads to**, and the directory is flushed in between. A
//!   kill or a power cut leaves something that nothing refers to, which goes the next time;
//!   never a record that leads nowhere.
//! - **A tree is moved into `work/` and removed there**: it is there whole, or not at all.
//! - **The least recently used goes first.** Clocks decide about the order and about nothing
//!   else; a clock that jumps costs a miss at worst.
//! - One collects at a time; who comes second for a build's sake leaves it at that.
//! - Looking at everything costs a `stat` for each file, so a build only looks when what it
//!   and others have written since the last time may be too much (`growth.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::files::{self, hash_of};
use super::inventory::{self, Inventory, Piece, References, StoreKind};
use super::leases::{Claims, Wait};
use super::work::{self, WorkDir};
use super::{Store, StoreError};
use crate::oci::digest::Digest;
use crate::walk::{self, Status};

/// What nothing refers to stays so long: a look at the store sees its parts one after another.
const GRACE: Duration = Duration::from_mins(10);

/// The name of the claim of whoever collects.
const COLLECTING: &str = "collecting";

/// What is to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectionGoal {
    /// The least recently used goes until no more than this is left.
    pub keep_bytes: u64,
    /// What was not used for longer goes, however little there is.
    pub max_age: Option<Duration>,
    /// How long what nothing refers to stays.
    grace: Duration,
}

impl CollectionGoal {
    /// At most so many bytes.
    #[must_use]
    pub fn keep(keep_bytes: u64) -> Self {
        Self { keep_bytes, max_age: None, grace: GRACE }
    }

    /// Nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self { keep_bytes: 0, max_age: None, grace: Duration::ZERO }
    }
}

/// What came of collecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// How many things are gone, …
    pub pieces: u64,
    /// … and what they took.
    pub freed_bytes: u64,
    /// What is left.
    pub left_bytes: u64,
    /// How many things would have gone, but are in use.
    pub in_use: u64,
}

impl Store {
    /// Takes away what is too much or too old. Waits while somebody else does.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be written. What could not be removed is tried
    /// again by the next one.
    pub fn collect(&self, goal: &CollectionGoal) -> Result<Collected, StoreError> {
        let claims = self.claims()?;
        claims.take(COLLECTING, Wait::Yes).map_err(|error| self.collecting_failed(error))?;
        self.collect_to(goal, goal.keep_bytes, claims)
    }

    /// Gets the store below `cap` if it may be above, at the end of a build. `None` when it
    /// is not, which costs reading one small file, or when somebody else is at it.
    ///
    /// # Errors
    /// As [`Store::collect`].
    pub fn keep_under(&self, cap: u64) -> Result<Option<Collected>, StoreError> {
        if !self.may_be_over(cap) {
            return Ok(None);
        }
        let claims = match self.claims() {
            // It will not grow either.
            Err(StoreError::ReadOnly { .. }) => return Ok(None),
            claims => claims?,
        };
        if !claims.take(COLLECTING, Wait::No).map_err(|error| self.collecting_failed(error))? {
            return Ok(None);
        }
        // A little below, so that not every build has to.
        self.collect_to(&CollectionGoal::keep(cap - cap / 10), cap, claims).map(Some)
    }

    /// Takes away what is kept for one image: its trees, its bills of materials, and the
    /// compressed layers that no other image's buildpacks made. `None` when nothing is kept.
    ///
    /// # Errors
    /// As [`Store::collect`].
    pub fn clear_image(&self, tenant: &str, image: &str) -> Result<Option<Collected>, StoreError> {
        let claims = self.claims()?;
        claims.take(COLLECTING, Wait::Yes).map_err(|error| self.collecting_failed(error))?;
        let directory = image_directory(tenant, image);
        let inventory = self.inventory();
        let none = BTreeSet::new();
        let its = inventory.references.exported.get(&directory).unwrap_or(&none);
        let others = inventory.references.exported.iter().filter(|(other, _)| **other != directory);
        let others: BTreeSet<&String> = others.flat_map(|(_, names)| names).collect();
        let is_alone = |piece: &Piece| {
            piece.records.iter().any(|record| its.contains(record))
                && !piece.records.iter().any(|record| others.contains(record))
        };
        let wanted = inventory.pieces.iter().filter(|piece| piece.name == directory || is_alone(piece));
        let mut choice = Choice::new(&inventory, &claims);
        for piece in wanted {
            choice.add(piece)?;
        }
        if choice.pieces.is_empty() && choice.in_use == 0 {
            return Ok(None);
        }
        let removed = self.remove(choice, &inventory);
        drop(claims);
        Ok(Some(removed.empty()))
    }

    fn claims(&self) -> Result<Claims, StoreError> {
        Claims::new(self.root()).map_err(|error| self.collecting_failed(error))
    }

    fn collecting_failed(&self, error: io::Error) -> StoreError {
        StoreError::io("collect what is too much in", self.root(), error)
    }

    fn collect_to(&self, goal: &CollectionGoal, cap: u64, claims: Claims) -> Result<Collected, StoreError> {
        // Growth from here on is not in the look.
        self.tell_growth();
        let inventory = self.inventory();
        let choice = choose(&inventory, goal, inventory::now(), &claims)
            .map_err(|error| self.collecting_failed(error))?;
        let removed = self.remove(choice, &inventory);
        // Without it the next build looks again, no worse.
        let _ = self.remember_size(removed.collected.left_bytes, cap);
        drop(claims);
        Ok(removed.empty())
    }

    /// Removes what was chosen and claimed, unless something refers to it by now.
    fn remove(&self, choice: Choice<'_>, inventory: &Inventory) -> Removed {
        let mut collected = Collected { in_use: choice.in_use, ..Collected::default() };
        let references = self.references();
        let mut going = Vec::with_capacity(choice.pieces.len());
        let mut changed: BTreeSet<&Path> = BTreeSet::new();
        // Sorted by name: an image comes before a tree of it that its record does not have.
        let mut images: BTreeSet<&str> = BTreeSet::new();
        for piece in choice.pieces.into_values() {
            let is_with_image = image_of_tree(piece).is_some_and(|image| images.contains(image));
            if !is_with_image && !self.let_go(piece, inventory, &references) {
                collected.in_use += 1;
                continue;
            }
            changed.extend(piece.records.iter().filter_map(|record| Path::new(record).parent()));
            if is_image(piece) {
                images.insert(&piece.name);
                changed.insert(Path::new(&piece.name));
            }
            going.push(piece);
        }
        for directory in changed {
            // One that is gone has nothing to flush.
            let _ = files::sync_directory(&self.root().join(directory));
        }
        // On a full disk there is none, and directories are emptied where they are.
        let trash = if going.is_empty() { None } else { self.work_dir().ok() };
        for piece in going {
            let is_document = piece.kind == StoreKind::Documents;
            if is_document && !is_without_images(piece, &references, &images) {
                continue;
            }
            if self.throw_away(piece, trash.as_ref()).is_ok() {
                collected.pieces += 1;
                collected.freed_bytes += piece.bytes;
            }
        }
        collected.left_bytes = inventory.bytes().saturating_sub(collected.freed_bytes);
        Removed { collected, trash }
    }

    /// Removes the records that lead to a piece; `false` when it has to stay.
    fn let_go(&self, piece: &Piece, inventory: &Inventory, now: &References) -> bool {
        let path = self.root().join(&piece.name);
        if let Some(digest) = digest_of(piece) {
            let is_as_seen = inventory.references.layers.get(&digest) == now.layers.get(&digest);
            let is_document = piece.kind != StoreKind::Documents && now.documents.contains_key(&digest);
            if !is_as_seen || is_document {
                return false;
            }
        } else if piece.name.starts_with("index/") {
            let leads = |(digest, names): (&Digest, &BTreeMap<String, Duration>)| {
                let blob = self.root().join(inventory::blob_name(digest));
                names.contains_key(&piece.name) && Status::of(&blob).is_ok()
            };
            if now.layers.iter().any(leads) {
                return false;
            }
        } else if image_of_tree(piece).is_some() {
            if now.trees.contains(&piece.name) || !is_free(&path) {
                return false;
            }
        } else if is_image(piece) {
            let trees = std::fs::read_dir(path.join("trees")).into_iter().flatten().flatten();
            let is_free = is_free(&path) && trees.map(|tree| tree.path()).all(|tree| is_free(&tree));
            if !is_free || !remove_file(&path.join("record")) {
                return false;
            }
        }
        piece.records.iter().all(|record| remove_file(&self.root().join(record)))
    }

    /// Directories are moved away first: nobody meets half of one.
    fn throw_away(&self, piece: &Piece, trash: Option<&WorkDir>) -> io::Result<()> {
        let path = self.root().join(&piece.name);
        let Some(trash) = trash else { return walk::remove(&path) };
        let place = || trash.path().join(walk::random_name());
        if is_image(piece) {
            for tree in std::fs::read_dir(path.join("trees")).into_iter().flatten().flatten() {
                std::fs::rename(tree.path(), place())?;
            }
        }
        match std::fs::rename(&path, place()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // A directory of somebody else's making, perhaps.
            Err(_) => walk::remove(&path),
            Ok(()) => Ok(()),
        }
    }
}

/// Whether nobody holds a directory's own lock, as programs did that knew no leases.
fn is_free(directory: &Path) -> bool {
    matches!(work::lock(directory, FlockOperation::NonBlockingLockExclusive), Ok(Some(_)))
}

/// What has gone, but for the directory that it was moved to.
struct Removed {
    collected: Collected,
    trash: Option<WorkDir>,
}

impl Removed {
    /// Empties the directory, which takes a while: nobody should wait for a claim meanwhile.
    fn empty(self) -> Collected {
        drop(self.trash);
        self.collected
    }
}

/// What is to go, with a claim on each.
struct Choice<'a> {
    claims: &'a Claims,
    /// By name.
    pieces: BTreeMap<&'a str, &'a Piece>,
    /// Documents of images, by image.
    documents: BTreeMap<&'a str, Vec<&'a Piece>>,
    references: &'a References,
    in_use: u64,
}

impl<'a> Choice<'a> {
    fn new(inventory: &'a Inventory, claims: &'a Claims) -> Self {
        let references = &inventory.references;
        let mut documents: BTreeMap<&str, Vec<&Piece>> = BTreeMap::new();
        for piece in inventory.pieces.iter().filter(|piece| piece.kind == StoreKind::Documents) {
            let images = digest_of(piece).and_then(|digest| references.documents.get(&digest));
            for image in images.into_iter().flatten() {
                documents.entry(image.as_str()).or_default().push(piece);
            }
        }
        Self { claims, pieces: BTreeMap::new(), documents, references, in_use: 0 }
    }

    /// Adds a piece, and documents that are left without an image with it. Gives the bytes.
    fn add(&mut self, piece: &'a Piece) -> Result<u64, StoreError> {
        self.try_add(piece).map_err(|error| StoreError::io("claim", Path::new(&piece.name), error))
    }

    fn try_add(&mut self, piece: &'a Piece) -> io::Result<u64> {
        if self.pieces.contains_key(piece.name.as_str()) {
            return Ok(0);
        }
        // A tree belongs to who has its image.
        if !self.claims.take(image_of_tree(piece).unwrap_or(&piece.name), Wait::No)? {
            self.in_use += 1;
            return Ok(0);
        }
        self.pieces.insert(&piece.name, piece);
        let mut bytes = piece.bytes;
        for document in self.documents.get(piece.name.as_str()).cloned().unwrap_or_default() {
            let is_needed = digest_of(document)
                .and_then(|digest| self.references.documents.get(&digest))
                .is_some_and(|images| images.iter().any(|image| !self.pieces.contains_key(image.as_str())));
            if !is_needed {
                bytes += self.try_add(document)?;
            }
        }
        Ok(bytes)
    }
}

/// Chooses what goes: what nothing refers to, what is too old, and then the least recently
/// used for as long as there is too much.
fn choose<'a>(
    inventory: &'a Inventory,
    goal: &CollectionGoal,
    now: Duration,
    claims: &'a Claims,
) -> io::Result<Choice<'a>> {
    let mut choice = Choice::new(inventory, claims);
    let mut left = inventory.bytes();
    // A time from the future says that a clock jumped.
    let age = |piece: &Piece| now.saturating_sub(piece.used.min(now));
    let mut by_age: Vec<&Piece> = inventory.pieces.iter().collect();
    by_age.sort_by_key(|piece| (piece.used.min(now), &piece.name));
    for piece in by_age {
        let goes = match piece.kind {
            StoreKind::Documents => false,
            StoreKind::Unused => age(piece) >= goal.grace,
            _ => left > goal.keep_bytes || goal.max_age.is_some_and(|max_age| age(piece) > max_age),
        };
        if goes {
            left -= choice.try_add(piece)?.min(left);
        }
    }
    Ok(choice)
}

/// Whether every image that refers to a document is gone.
fn is_without_images(document: &Piece, references: &References, gone: &BTreeSet<&str>) -> bool {
    let images = digest_of(document).and_then(|digest| references.documents.get(&digest));
    images.is_none_or(|images| images.iter().all(|image| gone.contains(image.as_str())))
}

/// Whether it is the directory of an image, with or without a record.
fn is_image(piece: &Piece) -> bool {
    piece.name.starts_with("layers/") && !piece.name.contains("/trees/")
}

/// The image of a tree that its record does not have.
fn image_of_tree(piece: &Piece) -> Option<&str> {
    piece.name.split_once("/trees/").map(|(image, _)| image)
}

/// The digest of a piece that is a blob.
fn digest_of(piece: &Piece) -> Option<Digest> {
    format!("sha256:{}", piece.name.strip_prefix("blobs/sha256/")?).parse().ok()
}

/// Where an image's directory is, relative to the store's root.
pub(super) fn image_directory(tenant: &str, image: &str) -> String {
    format!("layers/{}/{}", hash_of(&[tenant]), hash_of(&[tenant, image]))
}

/// Whether a file is gone.
fn remove_file(path: &Path) -> bool {
    !std::fs::remove_file(path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests;
