//! Where things are on this machine, by the variables of its user.

use std::env;
use std::path::{Path, PathBuf};

use wapack_runtime::policy::PolicyPaths;

use crate::failure::InputError;

const SYSTEM_POLICY: &str = "/etc/wapack/policy.toml";

/// The cache directory: the named one, `$XDG_CACHE_HOME/wapack` or `~/.cache/wapack`.
pub(crate) fn cache(named: Option<&Path>) -> Result<PathBuf, InputError> {
    match named {
        Some(named) => Ok(named.to_owned()),
        None => user_directory("XDG_CACHE_HOME", ".cache").ok_or(InputError::NoHome),
    }
}

/// The policy files, the last one wins.
pub(crate) fn policy_files(explicit: Option<&Path>) -> PolicyPaths {
    PolicyPaths {
        system: Some(SYSTEM_POLICY.into()),
        user: user_directory("XDG_CONFIG_HOME", ".config").map(|directory| directory.join("policy.toml")),
        explicit: explicit.map(Path::to_owned),
    }
}

/// Relative paths in these variables are to be ignored, says their specification.
fn user_directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home)))?;
    Some(base.join("wapack"))
}

/// An absolute path without links as far as it exists; the rest of it may not be there yet.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in absolute.ancestors() {
        if let Ok(found) = fs_err::canonicalize(ancestor) {
            return match absolute.strip_prefix(ancestor) {
                Ok(rest) if !rest.as_os_str().is_empty() => found.join(rest),
                _ => found,
            };
        }
    }
    absolute
}
