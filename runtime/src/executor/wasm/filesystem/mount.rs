//! The mount table and the file operations on it.
//!
//! A mount is a host directory at a guest path: `lower` is read-only, `upper`
//! takes what is written, and `hidden` cuts paths out of `lower`. A file of
//! `lower` is copied to `upper` when it is first written to. Directories above
//! and between mounts are made up: they can be listed, nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::fresh::FreshDirectory;
use super::open_file::OpenFile;
use super::quota::{ListingCharge, Quota};
use super::resolve::GuestPath;

/// How lookups in a host directory go: never out of it, never through a link.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
pub(super) const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

/// A mount to be added to a table.
#[derive(Debug)]
pub(crate) struct MountSpec {
    /// Clean absolute guest path.
    pub(crate) guest_path: String,
    /// Read-only contents.
    pub(crate) lower: Option<OwnedFd>,
    /// What wins over `lower`, and where writes go.
    pub(crate) upper: Option<OwnedFd>,
    /// Whether `upper` takes changes; without, it only shows what others wrote.
    pub(crate) writable: bool,
    /// Paths below the mount that `lower` does not show.
    pub(crate) hidden: Vec<String>,
}

#[derive(Debug)]
struct Mount {
    lower: Option<OwnedFd>,
    upper: Option<OwnedFd>,
    writable: bool,
    hidden: BTreeSet<String>,
}

/// Everything a guest can see.
#[derive(Debug)]
pub(crate) struct MountTable {
    mounts: BTreeMap<String, Mount>,
    quota: Quota,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeKind {
    Directory,
    File {
        size: u64,
        /// Who may execute it: some of the bits `0111`.
        execute: u32,
    },
    Symlink,
    /// A socket, FIFO or device: visible in listings, never opened.
    Special,
}

/// How to open a path.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "the flags of open(2), independent of each other")]
pub(crate) struct OpenHow {
    pub(crate) write: bool,
    pub(crate) create: bool,
    pub(crate) exclusive: bool,
    pub(crate) truncate: bool,
    pub(crate) directory: bool,
}

/// What was opened.
#[derive(Debug)]
pub(crate) enum Opened {
    Directory,
    File(OpenFile),
}

/// Where a path is inside its mount.
#[derive(Debug, Clone)]
struct Place<'a> {
    mount: &'a str,
    /// Empty for the mount itself.
    relative: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Upper,
    Lower,
}

impl MountTable {
    /// A table without mounts: an empty `/`.
    pub(crate) fn new(quota: Quota) -> Self {
        Self { mounts: BTreeMap::new(), quota }
    }

    /// The counters its writes are charged to.
    pub(crate) fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Adds a mount, or replaces the one at the same path.
    pub(crate) fn mount(&mut self, spec: MountSpec) {
        let hidden = spec.hidden.into_iter().collect();
        self.mounts.insert(
            spec.guest_path,
            Mount { lower: spec.lower, upper: spec.upper, writable: spec.writable, hidden },
        );
    }

    /// Makes a read-only mount writable: what is written goes to `upper`.
    pub(crate) fn make_writable(&mut self, guest_path: &str, upper: OwnedFd) {
        if let Some(mount) = self.mounts.get_mut(guest_path) {
            mount.upper = Some(upper);
            mount.writable = true;
        }
    }

    /// Whether the mount that covers `path` takes changes.
    pub(crate) fn is_writable(&self, path: &GuestPath) -> bool {
        let mount = self.place(path).and_then(|place| self.mounts.get(place.mount));
        mount.is_some_and(|mount| mount.writable)
    }

    /// The directory `path`, made when missing, to be filled past this table;
    /// `None` when the table has a say in what is there: below a mount with a
    /// lower side, or one that has others inside.
    ///
    /// # Errors
    /// `EROFS` when nothing may be written there, `ELOOP` or `ENOTDIR` when a link
    /// or a file is on the way.
    pub(crate) fn fresh(&self, path: &GuestPath) -> Result<Option<FreshDirectory>, Errno> {
        let place = self.place(path).ok_or(Errno::ROFS)?;
        let mount = self.mount_at(place.mount)?;
        let upper = mount.writable_upper()?;
        let has_inner = self.mounts.keys().any(|key| strip_directory(key, place.mount).is_some());
        if mount.lower.is_some() || has_inner {
            return Ok(None);
        }
        let depth = path.depth() - place.relative.split('/').filter(|name| !name.is_empty()).count() as u64;
        FreshDirectory::new(upper.as_fd(), depth, place.relative, self.quota.clone()).map(Some)
    }

    /// Makes the directory `path` and those above it, as far as they are missing.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` when one of them is a link or a file.
    pub(crate) fn create_directories(&mut self, path: &GuestPath) -> Result<(), Errno> {
        let mut missing = Vec::new();
        let mut current = Some(path.clone());
        while let Some(directory) = current {
            match self.kind(&directory)? {
                Some(NodeKind::Directory) => break,
                Some(NodeKind::Symlink) => return Err(Errno::LOOP),
                Some(_) => return Err(Errno::NOTDIR),
                None => current = directory.parent(),
            }
            missing.push(directory);
        }
        missing.iter().rev().try_for_each(|directory| self.create_directory(directory))
    }

    /// The paths of a mount that `lower` no longer shows.
    pub(crate) fn hidden(&self, guest_path: &str) -> Vec<String> {
        self.mounts.get(guest_path).map(|mount| mount.hidden.iter().cloned().collect()).unwrap_or_default()
    }

    /// The mount that covers `path`, innermost first.
    fn place<'a>(&'a self, path: &'a GuestPath) -> Option<Place<'a>> {
        let mut ancestor = path.as_str();
        loop {
            if let Some((key, _)) = self.mounts.get_key_value(ancestor) {
                return Some(Place { mount: key, relative: path.below(key)? });
            }
            match ancestor.rfind('/') {
                Some(0) if ancestor.len() > 1 => ancestor = "/",
                Some(0) | None => return None,
                Some(end) => ancestor = &ancestor[..end],
            }
        }
    }

    /// Names of mounts, or of made-up directories, directly below `path`.
    fn mounted_names(&self, path: &GuestPath) -> BTreeSet<&str> {
        self.mounts
            .keys()
            .filter_map(|key| strip_directory(key, path.as_str())?.split('/').next())
            .filter(|name| !name.is_empty())
            .collect()
    }

    fn mount_at(&self, key: &str) -> Result<&Mount, Errno> {
        self.mounts.get(key).ok_or(Errno::NOENT)
    }

    /// What stands at `path`, links not followed; `None` when nothing does.
    ///
    /// # Errors
    /// `ELOOP` when a directory on the way is a link, `ENOTDIR` when it is a file.
    pub(crate) fn kind(&self, path: &GuestPath) -> Result<Option<NodeKind>, Errno> {
        if let Some(place) = self.place(path) {
            if place.relative.is_empty() {
                return Ok(Some(NodeKind::Directory));
            }
            if let Some((_, stat)) = self.mount_at(place.mount)?.find(place.relative)? {
                return Ok(Some(kind_of(&stat)));
            }
        }
        let made_up = path.as_str() == "/" || !self.mounted_names(path).is_empty();
        Ok(made_up.then_some(NodeKind::Directory))
    }

    /// The target of the link at `path`.
    pub(crate) fn read_link(&self, path: &GuestPath) -> Result<String, Errno> {
        let place = self.place(path).ok_or(Errno::INVAL)?;
        let mount = self.mount_at(place.mount)?;
        let (side, _) = mount.find(place.relative)?.ok_or(Errno::NOENT)?;
        let link =
            open_beneath(mount.side(side)?, place.relative, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        let target = fs::readlinkat(&link, "", Vec::new())?;
        target.into_string().map_err(|_| Errno::ILSEQ)
    }

    /// Opens the file or directory at `path`, which has no links in it.
    pub(crate) fn open(&mut self, path: &GuestPath, how: OpenHow) -> Result<Opened, Errno> {
        match self.kind(path)? {
            Some(_) if how.create && how.exclusive => Err(Errno::EXIST),
            Some(NodeKind::Directory) if how.write || how.truncate => Err(Errno::ISDIR),
            Some(NodeKind::Directory) => Ok(Opened::Directory),
            Some(_) if how.directory => Err(Errno::NOTDIR),
            Some(NodeKind::Symlink) => Err(Errno::LOOP),
            Some(NodeKind::Special) => Err(Errno::PERM),
            Some(NodeKind::File { .. }) => self.open_file(path, how).map(Opened::File),
            None if how.create && !how.directory => self.create_file(path).map(Opened::File),
            None => Err(Errno::NOENT),
        }
    }

    fn open_file(&mut self, path: &GuestPath, how: OpenHow) -> Result<OpenFile, Errno> {
        let quota = self.quota.clone();
        let changes = how.write || how.truncate;
        let place = self.place(path).ok_or(Errno::NOENT)?;
        let mount = self.mount_at(place.mount)?;
        let (side, _) = mount.find(place.relative)?.ok_or(Errno::NOENT)?;
        if changes {
            mount.writable_upper()?;
            if side == Side::Lower {
                mount.copy_up(place.relative, &quota)?;
            }
        }
        let directory = mount.side(if changes { Side::Upper } else { side })?;
        // NONBLOCK: were it a FIFO after all, opening it must not wait.
        let access = if changes { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = open_beneath(directory, place.relative, flags, Mode::empty())?;
        if !matches!(kind_of(&fs::fstat(&fd)?), NodeKind::File { .. }) {
            return Err(Errno::PERM);
        }
        let file = OpenFile::new(fd, changes, quota)?;
        if how.truncate {
            file.set_size(0)?;
        }
        Ok(file)
    }

    fn create_file(&mut self, path: &GuestPath) -> Result<OpenFile, Errno> {
        let quota = self.quota.clone();
        self.create(path, |directory, name| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = fs::openat(directory, name, flags, FILE_MODE)?;
            OpenFile::new(fd, true, quota)
        })
    }

    /// Makes the directory `path`.
    pub(crate) fn create_directory(&mut self, path: &GuestPath) -> Result<(), Errno> {
        self.create(path, |directory, name| fs::mkdirat(directory, name, DIRECTORY_MODE))
    }

    /// Makes a link at `path` with the given target, which is not looked at.
    pub(crate) fn create_symlink(&mut self, path: &GuestPath, target: &str) -> Result<(), Errno> {
        if target.is_empty() {
            return Err(Errno::NOENT);
        }
        self.create(path, |directory, name| fs::symlinkat(target, directory, name))
    }

    /// What all creation has in common: nothing there yet, a directory to put
    /// it in, depth and quota.
    fn create<T>(
        &mut self,
        path: &GuestPath,
        make: impl FnOnce(&OwnedFd, &str) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if self.kind(path)?.is_some() {
            return Err(Errno::EXIST);
        }
        let parent = path.parent().ok_or(Errno::EXIST)?;
        match self.kind(&parent)? {
            Some(NodeKind::Directory) => {}
            Some(_) => return Err(Errno::NOTDIR),
            None => return Err(Errno::NOENT),
        }
        let place = self.place(path).ok_or(Errno::ROFS)?;
        let mount = self.mount_at(place.mount)?;
        mount.writable_upper()?;
        if path.depth() > self.quota.path_depth {
            return Err(Errno::NAMETOOLONG);
        }
        let (directory, name) = mount.writable_parent(place.relative, &self.quota)?;
        self.quota.charge_entry()?;
        make(&directory, name).inspect_err(|_| self.quota.refund_entry())
    }

    /// Removes the file or link at `path`.
    pub(crate) fn unlink(&mut self, path: &GuestPath) -> Result<(), Errno> {
        match self.kind(path)? {
            None => return Err(Errno::NOENT),
            Some(NodeKind::Directory) => return Err(Errno::ISDIR),
            Some(_) => {}
        }
        self.remove(path, AtFlags::empty())
    }

    /// Removes the empty directory at `path`.
    pub(crate) fn remove_directory(&mut self, path: &GuestPath) -> Result<(), Errno> {
        match self.kind(path)? {
            None => return Err(Errno::NOENT),
            Some(NodeKind::Directory) => {}
            Some(_) => return Err(Errno::NOTDIR),
        }
        if self.place(path).is_none_or(|place| place.relative.is_empty()) {
            return Err(Errno::BUSY);
        }
        if !self.list(path)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.remove(path, AtFlags::REMOVEDIR)
    }

    fn remove(&mut self, path: &GuestPath, flags: AtFlags) -> Result<(), Errno> {
        let quota = self.quota.clone();
        let place = self.place(path).ok_or(Errno::ROFS)?;
        let mount = self.mount_at(place.mount)?;
        let upper = mount.writable_upper()?;
        let (side, stat) = mount.find(place.relative)?.ok_or(Errno::NOENT)?;
        if side == Side::Upper {
            let (directory, name) = open_parent(upper, place.relative)?;
            fs::unlinkat(&directory, name, flags)?;
            quota_after_unlink(&quota, &stat);
        }
        let hide = mount.shows_below(place.relative)?;
        let (key, relative) = (place.mount.to_owned(), place.relative.to_owned());
        if hide {
            self.hide(&key, relative)?;
        }
        Ok(())
    }

    fn hide(&mut self, key: &str, relative: String) -> Result<(), Errno> {
        // A hidden path takes memory here and a line in the result.
        self.quota.charge_entry()?;
        if let Some(mount) = self.mounts.get_mut(key) {
            mount.hidden.insert(relative);
        }
        Ok(())
    }

    /// Renames within one mount. A directory that `lower` has cannot be renamed
    /// (`EXDEV`), as with every overlay; callers then copy.
    pub(crate) fn rename(&mut self, from: &GuestPath, to: &GuestPath) -> Result<(), Errno> {
        let source_kind = self.kind(from)?.ok_or(Errno::NOENT)?;
        let target_kind = self.kind(to)?;
        let (source, target) = match (self.place(from), self.place(to)) {
            (Some(source), Some(target)) if source.mount == target.mount => (source, target),
            (Some(source), Some(_)) if self.mount_at(source.mount)?.writable => {
                return Err(Errno::XDEV);
            }
            _ => return Err(Errno::ROFS),
        };
        if source.relative.is_empty() || target.relative.is_empty() {
            return Err(Errno::BUSY);
        }
        let mount = self.mount_at(source.mount)?;
        mount.writable_upper()?;
        match (source_kind, target_kind) {
            (NodeKind::Directory, Some(NodeKind::Directory)) if !self.list(to)?.is_empty() => {
                return Err(Errno::NOTEMPTY);
            }
            (NodeKind::Directory, Some(kind)) if kind != NodeKind::Directory => return Err(Errno::NOTDIR),
            (kind, Some(NodeKind::Directory)) if kind != NodeKind::Directory => return Err(Errno::ISDIR),
            _ => {}
        }
        let in_lower = mount.shows_below(source.relative)?;
        if source_kind == NodeKind::Directory && in_lower {
            return Err(Errno::XDEV);
        }
        // What is there obeys the limit, so only a move downwards can break it.
        let deeper = to.depth() > from.depth();
        if deeper && (to.depth() > self.quota.path_depth || self.too_deep(from, to.depth())?) {
            return Err(Errno::NAMETOOLONG);
        }
        if matches!(mount.find(source.relative)?, Some((Side::Lower, _))) {
            mount.copy_up(source.relative, &self.quota)?;
        }
        let upper = mount.writable_upper()?;
        let replaced = match mount.find(target.relative)? {
            Some((Side::Upper, stat)) => Some(stat),
            _ => None,
        };
        let moved = stat_beneath(upper.as_fd(), source.relative)?;
        if replaced.is_some_and(|stat| (stat.st_dev, stat.st_ino) == (moved.st_dev, moved.st_ino)) {
            // Two names of one file: the kernel leaves both, so nothing may be refunded.
            return Ok(());
        }
        let (source_directory, source_name) = open_parent(upper, source.relative)?;
        let (target_directory, target_name) = mount.writable_parent(target.relative, &self.quota)?;
        fs::renameat(&source_directory, source_name, &target_directory, target_name)?;
        if let Some(stat) = replaced {
            quota_after_unlink(&self.quota, &stat);
        }
        // A directory that came from elsewhere must not show what `lower` has there.
        let hide_target = mount.shows_below(target.relative)? && source_kind == NodeKind::Directory;
        let key = source.mount.to_owned();
        let (source, target) = (source.relative.to_owned(), target.relative.to_owned());
        if in_lower {
            self.hide(&key, source)?;
        }
        if hide_target {
            self.hide(&key, target)?;
        }
        Ok(())
    }

    /// Whether something below the directory `from` would be too deep with `from` at `depth`.
    fn too_deep(&self, from: &GuestPath, depth: u64) -> Result<bool, Errno> {
        let mut walk = Walk::new(self, from)?;
        while let Some((path, _)) = walk.next(self)? {
            if path.depth() - from.depth() + depth > self.quota.path_depth {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes `to` another name of the file `from`, within one mount.
    pub(crate) fn link(&mut self, from: &GuestPath, to: &GuestPath) -> Result<(), Errno> {
        if !matches!(self.kind(from)?.ok_or(Errno::NOENT)?, NodeKind::File { .. }) {
            return Err(Errno::PERM);
        }
        let source = self.place(from).ok_or(Errno::ROFS)?;
        let mount = self.mount_at(source.mount)?;
        mount.writable_upper()?;
        if self.place(to).is_none_or(|target| target.mount != source.mount) {
            return Err(Errno::XDEV);
        }
        if matches!(mount.find(source.relative)?, Some((Side::Lower, _))) {
            mount.copy_up(source.relative, &self.quota)?;
        }
        let (source_directory, source_name) = open_parent(mount.writable_upper()?, source.relative)?;
        let source_name = source_name.to_owned();
        self.create(to, |directory, name| {
            fs::linkat(&source_directory, source_name.as_str(), directory, name, AtFlags::empty())
        })
    }

    /// The names in the directory `path`, sorted, with what they are.
    ///
    /// # Errors
    /// `EOVERFLOW`, and the limit is noted, when that takes more than what may
    /// cross the boundary in one call.
    pub(crate) fn list(&self, path: &GuestPath) -> Result<Names, Errno> {
        let mut charge = self.quota.listing();
        let mut names: BTreeSet<String> = self.mounted_names(path).into_iter().map(str::to_owned).collect();
        if let Some(place) = self.place(path) {
            let mount = self.mount_at(place.mount)?;
            for (side, directory) in mount.sides() {
                if side == Side::Lower && mount.is_hidden(place.relative) {
                    continue;
                }
                let directory = match open_directory(directory.as_fd(), place.relative) {
                    Ok(directory) => directory,
                    Err(Errno::NOENT | Errno::NOTDIR) => continue,
                    Err(error) => return Err(error),
                };
                for entry in fs::Dir::new(directory)? {
                    let entry = entry?;
                    let name = entry.file_name().to_str().map_err(|_| Errno::ILSEQ)?;
                    if matches!(name, "." | "..") {
                        continue;
                    }
                    if side == Side::Lower && mount.hidden.contains(&join_relative(place.relative, name)) {
                        continue;
                    }
                    if !names.contains(name) {
                        charge.add(name)?;
                        names.insert(name.to_owned());
                    }
                }
            }
        }
        let mut listing = Vec::with_capacity(names.len());
        for name in names {
            if let Some(kind) = self.kind(&path.join(&name)?)? {
                listing.push((name, kind));
            }
        }
        Ok(Names { names: listing.into_iter(), _charge: charge })
    }
}

/// The names of a directory, charged to the guest's account for as long as they are held.
#[derive(Debug)]
pub(crate) struct Names {
    names: std::vec::IntoIter<(String, NodeKind)>,
    _charge: ListingCharge,
}

impl Names {
    fn is_empty(&self) -> bool {
        self.names.as_slice().is_empty()
    }
}

impl Iterator for Names {
    type Item = (String, NodeKind);

    fn next(&mut self) -> Option<Self::Item> {
        self.names.next()
    }
}

/// Every path below and including a root, parents first, sorted within each directory.
///
/// Holds one listing a level and no list of paths, which could be of any size.
pub(crate) struct Walk {
    root: Option<(GuestPath, NodeKind)>,
    levels: Vec<(GuestPath, Names)>,
}

impl Walk {
    pub(crate) fn new(table: &MountTable, root: &GuestPath) -> Result<Self, Errno> {
        let kind = table.kind(root)?.ok_or(Errno::NOENT)?;
        Ok(Self { root: Some((root.clone(), kind)), levels: Vec::new() })
    }

    /// The next path. The table may have changed since the last one.
    pub(crate) fn next(&mut self, table: &MountTable) -> Result<Option<(GuestPath, NodeKind)>, Errno> {
        let found = match self.root.take() {
            Some(root) => root,
            None => loop {
                let Some((directory, names)) = self.levels.last_mut() else { return Ok(None) };
                match names.next() {
                    Some((name, kind)) => break (directory.join(&name)?, kind),
                    None => drop(self.levels.pop()),
                }
            },
        };
        if found.1 == NodeKind::Directory {
            self.levels.push((found.0.clone(), table.list(&found.0)?));
        }
        Ok(Some(found))
    }
}

impl Mount {
    /// The host directories of this mount, the one that wins first.
    fn sides(&self) -> impl Iterator<Item = (Side, &OwnedFd)> {
        let upper = self.upper.iter().map(|fd| (Side::Upper, fd));
        upper.chain(self.lower.iter().map(|fd| (Side::Lower, fd)))
    }

    fn side(&self, side: Side) -> Result<BorrowedFd<'_>, Errno> {
        let fd = match side {
            Side::Upper => self.upper.as_ref(),
            Side::Lower => self.lower.as_ref(),
        };
        fd.map(AsFd::as_fd).ok_or(Errno::ROFS)
    }

    fn is_hidden(&self, relative: &str) -> bool {
        if self.hidden.is_empty() {
            return false;
        }
        let mut ancestor = relative;
        loop {
            if self.hidden.contains(ancestor) {
                return true;
            }
            match ancestor.rfind('/') {
                Some(end) => ancestor = &ancestor[..end],
                None => return false,
            }
        }
    }

    /// Finds `relative` and the side that shows it.
    fn find(&self, relative: &str) -> Result<Option<(Side, Stat)>, Errno> {
        for (side, directory) in self.sides() {
            if side == Side::Lower && self.is_hidden(relative) {
                continue;
            }
            match stat_beneath(directory.as_fd(), relative) {
                Ok(stat) => return Ok(Some((side, stat))),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether `lower` would show something at `relative` if `upper` had nothing there.
    fn shows_below(&self, relative: &str) -> Result<bool, Errno> {
        let Some(lower) = &self.lower else { return Ok(false) };
        if self.is_hidden(relative) {
            return Ok(false);
        }
        match stat_beneath(lower.as_fd(), relative) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where changes go.
    ///
    /// # Errors
    /// `EROFS` when the mount takes none.
    fn writable_upper(&self) -> Result<&OwnedFd, Errno> {
        self.upper.as_ref().filter(|_| self.writable).ok_or(Errno::ROFS)
    }

    /// Makes the directories above `relative` in `upper` and opens the last one.
    fn writable_parent<'a>(&self, relative: &'a str, quota: &Quota) -> Result<(OwnedFd, &'a str), Errno> {
        let upper = self.writable_upper()?;
        match open_parent(upper, relative) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        for (end, _) in relative.match_indices('/') {
            let ancestor = &relative[..end];
            if stat_beneath(upper.as_fd(), ancestor).is_ok() {
                continue;
            }
            let (directory, name) = open_parent(upper, ancestor)?;
            quota.charge_entry()?;
            fs::mkdirat(&directory, name, DIRECTORY_MODE)?;
        }
        open_parent(upper, relative)
    }

    /// Copies a file or link from `lower` to `upper`.
    fn copy_up(&self, relative: &str, quota: &Quota) -> Result<(), Errno> {
        let lower = self.side(Side::Lower)?;
        let stat = stat_beneath(lower, relative)?;
        let (directory, name) = self.writable_parent(relative, quota)?;
        quota.charge_entry()?;
        match kind_of(&stat) {
            NodeKind::Symlink => {
                let link = open_beneath(lower, relative, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
                fs::symlinkat(fs::readlinkat(&link, "", Vec::new())?, &directory, name)
            }
            NodeKind::File { size, .. } => {
                quota.charge_bytes(size)?;
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let mut source = File::from(open_beneath(lower, relative, flags, Mode::empty())?);
                let mode = FILE_MODE | Mode::from_raw_mode(stat.st_mode & 0o111);
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut copy = File::from(fs::openat(&directory, name, flags, mode)?);
                copy_exactly(&mut source, &mut copy, size)
            }
            NodeKind::Directory | NodeKind::Special => Err(Errno::PERM),
        }
    }
}

fn copy_exactly(source: &mut File, copy: &mut File, size: u64) -> Result<(), Errno> {
    let mut buffer = vec![0; 256 * 1024];
    let mut left = size;
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match source.read(&mut buffer[..want]).map_err(|error| errno(&error))? {
            0 => return Err(Errno::IO),
            count => {
                copy.write_all(&buffer[..count]).map_err(|error| errno(&error))?;
                left -= count as u64;
            }
        }
    }
    Ok(())
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn quota_after_unlink(quota: &Quota, stat: &Stat) {
    match kind_of(stat) {
        // Another name is left: only the entry is gone.
        NodeKind::File { .. } if stat.st_nlink > 1 => quota.refund_entry(),
        NodeKind::File { size, .. } => quota.unlinked((stat.st_dev, stat.st_ino), size),
        _ => quota.refund_entry(),
    }
}

fn strip_directory<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    if directory == "/" {
        return path.strip_prefix('/');
    }
    path.strip_prefix(directory)?.strip_prefix('/')
}

fn join_relative(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// The kernel's spelling of a path below a directory: "" is the directory itself.
fn kernel_path(relative: &str) -> &str {
    if relative.is_empty() { "." } else { relative }
}

pub(super) fn open_beneath(
    directory: BorrowedFd<'_>,
    relative: &str,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    loop {
        match fs::openat2(directory, kernel_path(relative), flags | OFlags::CLOEXEC, mode, BENEATH) {
            // The kernel gives up when something on the path is renamed meanwhile.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

fn open_directory(directory: BorrowedFd<'_>, relative: &str) -> Result<OwnedFd, Errno> {
    open_beneath(directory, relative, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

fn stat_beneath(directory: BorrowedFd<'_>, relative: &str) -> Result<Stat, Errno> {
    fs::fstat(open_beneath(directory, relative, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?)
}

/// Opens the directory that holds `relative`, and gives the last name.
fn open_parent<'a>(directory: &OwnedFd, relative: &'a str) -> Result<(OwnedFd, &'a str), Errno> {
    let (parent, name) = relative.rsplit_once('/').unwrap_or(("", relative));
    let parent = open_beneath(directory.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    Ok((parent, name))
}

fn kind_of(stat: &Stat) -> NodeKind {
    match fs::FileType::from_raw_mode(stat.st_mode) {
        fs::FileType::Directory => NodeKind::Directory,
        fs::FileType::RegularFile => {
            NodeKind::File { size: u64::try_from(stat.st_size).unwrap_or(0), execute: stat.st_mode & 0o111 }
        }
        fs::FileType::Symlink => NodeKind::Symlink,
        _ => NodeKind::Special,
    }
}

#[cfg(test)]
mod tests;
