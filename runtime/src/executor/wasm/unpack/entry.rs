//! One entry of an archive, and which paths and links it may have.

use super::UnpackError;

/// Bytes of a whole path.
const MAX_PATH_BYTES: usize = 4096;
/// Bytes of one name, as every file system has it.
const MAX_NAME_BYTES: usize = 255;
/// Names of one path.
const MAX_DEPTH: usize = 128;
/// Characters of a hostile name that a message shows.
const MAX_SHOWN: usize = 200;

/// What the archive says of one entry. Its contents come separately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Counted from 1.
    pub(super) number: u64,
    /// The path as the archive has it.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
}

/// What an entry becomes; anything else was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File {
        size: u64,
        /// The permission bits as the archive has them.
        mode: u32,
    },
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
}

impl Entry {
    /// The path for messages.
    pub(super) fn name(&self) -> String {
        shown(&self.path)
    }

    pub(super) fn bad_path(&self) -> UnpackError {
        UnpackError::BadPath { number: self.number, name: self.name() }
    }

    pub(super) fn bad_link(&self, target: &[u8]) -> UnpackError {
        UnpackError::BadLink { number: self.number, name: self.name(), target: shown(target) }
    }

    /// Where the entry goes without its first `strip` names; `None` when nothing is left.
    ///
    /// # Errors
    /// [`UnpackError::BadPath`]; only a directory may be called `.`.
    pub(super) fn destination(&self, strip: u32) -> Result<Option<String>, UnpackError> {
        let names = clean(&self.path).ok_or_else(|| self.bad_path())?;
        if names.is_empty() && self.kind != Kind::Directory {
            return Err(self.bad_path());
        }
        Ok(strip_names(&names, strip))
    }
}

/// Hostile bytes for a message.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).escape_default().take(MAX_SHOWN + 1).collect();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The names of a relative path; `None` when it is not one we write.
pub(super) fn clean(path: &[u8]) -> Option<Vec<&str>> {
    let path = std::str::from_utf8(path).ok()?;
    let is_odd = path.is_empty() || path.len() > MAX_PATH_BYTES || path.starts_with('/');
    if is_odd || path.contains('\\') || path.chars().any(char::is_control) {
        return None;
    }
    let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    let is_bad = |name: &&str| *name == ".." || name.len() > MAX_NAME_BYTES;
    if names.len() > MAX_DEPTH || names.iter().any(is_bad) || names.first().is_some_and(is_drive) {
        return None;
    }
    Some(names)
}

/// `C:` begins an absolute path elsewhere.
fn is_drive(name: &&str) -> bool {
    matches!(name.as_bytes(), [letter, b':'] if letter.is_ascii_alphabetic())
}

/// The path without its first names; `None` when nothing is left.
pub(super) fn strip_names(names: &[&str], strip: u32) -> Option<String> {
    let rest = names.get(strip as usize..).filter(|rest| !rest.is_empty())?;
    Some(rest.join("/"))
}

/// Whether a symbolic link at `path`, whose directories are real ones, stays inside.
///
/// `..` may only come first: after a name it would leave what that name, perhaps
/// another link, leads to. So wherever the first name starts, each further step is
/// a step down or a link of which the same holds.
pub(super) fn stays_inside(path: &str, target: &str) -> bool {
    if target.is_empty() || target.len() > MAX_PATH_BYTES || target.starts_with('/') {
        return false;
    }
    if target.contains('\\') || target.chars().any(char::is_control) {
        return false;
    }
    let mut above = path.matches('/').count();
    let mut went_down = false;
    for name in target.split('/') {
        match name {
            "" | "." => {}
            ".." if went_down || above == 0 => return false,
            ".." => above -= 1,
            _ => went_down = true,
        }
    }
    true
}
