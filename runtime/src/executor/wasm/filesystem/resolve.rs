//! Guest paths, and how a path with links in it becomes one without.

use std::fmt;

use rustix::io::Errno;

use super::mount::{MountTable, NodeKind};

/// Links one path may go through, as Linux has it.
const MAX_LINKS: usize = 40;
/// Bytes of one name.
const MAX_NAME_BYTES: usize = 255;
/// Bytes of one path.
const MAX_PATH_BYTES: usize = 4096;

/// An absolute guest path: `/` or `/a/b`, with neither `.`, `..` nor an empty name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GuestPath(String);

impl GuestPath {
    /// `/`
    pub(crate) fn root() -> Self {
        Self("/".to_owned())
    }

    /// Parses an absolute path without `..`, as it is: no link is followed.
    ///
    /// # Errors
    /// `EINVAL` for what is none, `ENAMETOOLONG`.
    pub(crate) fn parse(path: &str) -> Result<Self, Errno> {
        let names = path.strip_prefix('/').ok_or(Errno::INVAL)?;
        let mut parsed = Self::root();
        for name in names.split('/').filter(|name| !matches!(*name, "" | ".")) {
            if name == ".." {
                return Err(Errno::INVAL);
            }
            parsed.push(name)?;
        }
        Ok(parsed)
    }

    /// The path as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn push(&mut self, name: &str) -> Result<(), Errno> {
        if name.contains('\0') {
            return Err(Errno::INVAL);
        }
        if name.len() > MAX_NAME_BYTES || self.0.len() + 1 + name.len() > MAX_PATH_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        if self.0.len() > 1 {
            self.0.push('/');
        }
        self.0.push_str(name);
        Ok(())
    }

    /// This path with `name` added.
    pub(crate) fn join(&self, name: &str) -> Result<Self, Errno> {
        let mut joined = self.clone();
        joined.push(name)?;
        Ok(joined)
    }

    /// The directory this is in; `None` for `/`.
    pub(crate) fn parent(&self) -> Option<Self> {
        match self.0.rfind('/') {
            _ if self.0.len() == 1 => None,
            Some(0) => Some(Self::root()),
            Some(end) => Some(Self(self.0[..end].to_owned())),
            None => None,
        }
    }

    /// How many names the path has.
    pub(crate) fn depth(&self) -> u64 {
        if self.0.len() == 1 { 0 } else { self.0.matches('/').count() as u64 }
    }

    /// The path below `ancestor`, without a leading `/`; `Some("")` for itself.
    pub(crate) fn below(&self, ancestor: &str) -> Option<&str> {
        if ancestor == "/" {
            return Some(&self.0[1..]);
        }
        match self.0.strip_prefix(ancestor)? {
            "" => Some(""),
            rest => rest.strip_prefix('/'),
        }
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Resolves `path`, relative to the directory `base`, to a path without links.
///
/// The last name may be missing; whether it may be a link is up to `follow`.
/// Absolute links are resolved against the mount table, never against the host.
///
/// # Errors
/// `EPERM` above `/`, `ELOOP` after 40 links, `ENOENT` or `ENOTDIR` when a
/// directory on the way is missing or is none.
pub(crate) fn resolve(
    table: &MountTable,
    base: &GuestPath,
    path: &str,
    follow: bool,
) -> Result<GuestPath, Errno> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(Errno::NAMETOOLONG);
    }
    // WASI paths are relative; an absolute one would step over its descriptor.
    if path.starts_with('/') {
        return Err(Errno::PERM);
    }
    // A trailing slash means "the directory this leads to".
    let follow = follow || path.ends_with('/');
    let resolved = match resolve_without_links(table, base, path, follow)? {
        Some(resolved) => resolved,
        None => resolve_step_by_step(table, base, path, follow)?,
    };
    if path.ends_with('/') && !matches!(table.kind(&resolved)?, None | Some(NodeKind::Directory)) {
        return Err(Errno::NOTDIR);
    }
    Ok(resolved)
}

/// The common case in one system call: no `..` and no link on the way.
fn resolve_without_links(
    table: &MountTable,
    base: &GuestPath,
    path: &str,
    follow: bool,
) -> Result<Option<GuestPath>, Errno> {
    let mut candidate = base.clone();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => return Ok(None),
            name => candidate.push(name)?,
        }
    }
    match table.kind(&candidate) {
        Ok(Some(NodeKind::Symlink)) if follow => Ok(None),
        // The kernel says so when a link is on the way.
        Err(Errno::LOOP) => Ok(None),
        Ok(Some(_)) => Ok(Some(candidate)),
        // Missing: only its last name may be.
        Ok(None) => match candidate.parent() {
            Some(parent) if table.kind(&parent)? != Some(NodeKind::Directory) => Err(Errno::NOENT),
            _ => Ok(Some(candidate)),
        },
        Err(error) => Err(error),
    }
}

fn resolve_step_by_step(
    table: &MountTable,
    base: &GuestPath,
    path: &str,
    follow: bool,
) -> Result<GuestPath, Errno> {
    let mut current = base.clone();
    // What is still to walk, next name last.
    let mut pending: Vec<String> = names_reversed(path);
    let mut links = 0;
    while let Some(name) = pending.pop() {
        if name == ".." {
            current = current.parent().ok_or(Errno::PERM)?;
            continue;
        }
        let next = current.join(&name)?;
        match table.kind(&next)? {
            Some(NodeKind::Symlink) if follow || !pending.is_empty() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = table.read_link(&next)?;
                if target.is_empty() {
                    return Err(Errno::NOENT);
                }
                if target.starts_with('/') {
                    current = GuestPath::root();
                }
                pending.extend(names_reversed(&target));
                if pending.len() > MAX_PATH_BYTES {
                    return Err(Errno::NAMETOOLONG);
                }
            }
            Some(NodeKind::Directory) => current = next,
            _ if pending.is_empty() => return Ok(next),
            Some(_) => return Err(Errno::NOTDIR),
            None => return Err(Errno::NOENT),
        }
    }
    Ok(current)
}

fn names_reversed(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect()
}
