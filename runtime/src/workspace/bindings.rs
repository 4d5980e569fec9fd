//! Service bindings of a build, as buildpacks find them in the platform directory.

use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::walk;

/// Most bytes of one value; platforms that keep them as secrets allow no more.
const MAX_VALUE_BYTES: u64 = 1 << 20;
/// Most values in all.
const MAX_VALUES: usize = 1000;

/// Why a directory of bindings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BindingsError {
    #[error("cannot read the bindings in `{}`", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot copy the bindings to `{}`", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("`{}` is no binding: it is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    #[error("`{}` is no value of a binding: it is not a file", path.display())]
    NotAFile { path: PathBuf },
    #[error("`{}` is longer than {MAX_VALUE_BYTES} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("`{}` has more than {MAX_VALUES} values in its bindings", path.display())]
    TooMany { path: PathBuf },
}

/// Copies the bindings in `from` to the new directory `to`, where a worker of another
/// user can read them. Links are followed, as what mounts secrets makes them; names
/// that begin with a dot are what it keeps for itself.
///
/// # Shape
/// ```text
/// <from>/<binding>/<key>      `type` is one of the keys
/// ```
///
/// # Errors
/// [`BindingsError`].
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), BindingsError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| BindingsError::Unreadable { path, source }
    };
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |source| BindingsError::Unwritable { path, source }
    };
    walk::create_readable(to).map_err(unwritable(to))?;
    let mut values = 0;
    for binding in visible(from).map_err(unreadable(from))? {
        let path = from.join(&binding);
        if !path.is_dir() {
            return Err(BindingsError::NotADirectory { path });
        }
        let copied = to.join(&binding);
        walk::create_readable(&copied).map_err(unwritable(&copied))?;
        for key in visible(&path).map_err(unreadable(&path))? {
            values += 1;
            if values > MAX_VALUES {
                return Err(BindingsError::TooMany { path: from.to_owned() });
            }
            let file = path.join(&key);
            if !file.is_file() {
                return Err(BindingsError::NotAFile { path: file });
            }
            let value = read(&file).map_err(unreadable(&file))?;
            if value.len() as u64 > MAX_VALUE_BYTES {
                return Err(BindingsError::TooLong { path: file });
            }
            let copy = copied.join(&key);
            fs::write(&copy, value)
                .and_then(|()| fs::set_permissions(&copy, PermissionsExt::from_mode(0o644)))
                .map_err(unwritable(&copy))?;
        }
    }
    Ok(())
}

/// The names in a directory that do not begin with a dot.
fn visible(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A file, but for what is past the longest value and one byte more.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    fs::File::open(file)?.take(MAX_VALUE_BYTES + 1).read_to_end(&mut value)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn site() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir_all(from.join("db")).unwrap();
        (temp, from, to)
    }

    /// What a mounted secret looks like: the values are links into a hidden directory.
    #[test]
    fn links_are_followed_and_hidden_names_left_out() {
        let (_temp, from, to) = site();
        fs::create_dir(from.join("db/..2026")).unwrap();
        fs::write(from.join("db/..2026/type"), "postgresql").unwrap();
        symlink("..2026", from.join("db/..data")).unwrap();
        symlink("..data/type", from.join("db/type")).unwrap();
        fs::write(from.join(".keep"), "").unwrap();
        fs::set_permissions(from.join("db/..2026/type"), PermissionsExt::from_mode(0o600)).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(visible(&to).unwrap(), ["db"]);
        assert_eq!(fs::read_dir(to.join("db")).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(to.join("db/type")).unwrap(), "postgresql");
        assert_eq!(fs::metadata(to.join("db/type")).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn what_is_no_binding_is_an_error_with_its_path() {
        let refused = |what: &dyn Fn(&Path)| {
            let (_temp, from, to) = site();
            what(&from);
            copy(&from, &to).unwrap_err().to_string().replace(&format!("{}", from.display()), "FROM")
        };
        assert_eq!(
            refused(&|from| fs::write(from.join("file"), "").unwrap()),
            "`FROM/file` is no binding: it is not a directory"
        );
        assert_eq!(
            refused(&|from| fs::create_dir(from.join("db/sub")).unwrap()),
            "`FROM/db/sub` is no value of a binding: it is not a file"
        );
        let long = vec![b'x'; (1 << 20) + 1];
        assert_eq!(
            refused(&|from| fs::write(from.join("db/key"), &long).unwrap()),
            "`FROM/db/key` is longer than 1048576 bytes"
        );
        assert_eq!(
            refused(&|from| {
                for index in 0..1001 {
                    fs::write(from.join(format!("db/{index}")), "").unwrap();
                }
            }),
            "`FROM` has more than 1000 values in its bindings"
        );
        assert_eq!(refused(&|from| fs::remove_dir_all(from).unwrap()), "cannot read the bindings in `FROM`");
    }
}
