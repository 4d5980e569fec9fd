//! Variables for the buildpacks: from `project.toml`, from files, from arguments.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::failure::InputError;
use crate::project::ProjectError;

/// Largest file of variables that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// All variables; later sources win over earlier ones.
///
/// # Spec
/// PRJ-08: arguments win over files, and those over `project.toml`.
pub(crate) fn variables(
    project: &[(String, String)],
    files: &[PathBuf],
    arguments: &[OsString],
) -> Result<BTreeMap<String, String>, InputError> {
    let mut variables = BTreeMap::new();
    for (name, value) in project {
        let name = checked(name.as_bytes())
            .map_err(|rule| ProjectError::Variable { name: name.escape_debug().to_string(), rule })?;
        variables.insert(name, value.clone());
    }
    for path in files {
        for (line, text) in (1..).zip(read(path)?.lines()) {
            add_line(&mut variables, path, line, text)?;
        }
    }
    for argument in arguments {
        let (name, value) = split(argument.as_bytes());
        let name = checked(name).map_err(|rule| InputError::Variable { name: shown(name), rule })?;
        let value = match value {
            Some(value) => OsStr::from_bytes(value).to_owned(),
            None => env::var_os(&name).ok_or_else(|| InputError::UnsetVariable { name: name.clone() })?,
        };
        let value = value.into_string().map_err(|_| InputError::VariableNotUtf8 { name: name.clone() })?;
        variables.insert(name, value);
    }
    Ok(variables)
}

/// One line as `docker run --env-file` reads it: no quotes, no expansion, a
/// `#` in front for a comment; a name alone has the value it has here, if any.
fn add_line(
    variables: &mut BTreeMap<String, String>,
    path: &Path,
    line: usize,
    text: &str,
) -> Result<(), InputError> {
    let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { text };
    let text = text.trim_start();
    if text.is_empty() || text.starts_with('#') {
        return Ok(());
    }
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text.trim_end(), None),
    };
    let bad = |rule| InputError::VariableFile { path: path.to_owned(), line, rule };
    if name.contains(char::is_whitespace) {
        return Err(bad("the name has a blank in it"));
    }
    let name = checked(name.as_bytes()).map_err(bad)?;
    let value = match value {
        Some(value) => value,
        None => match env::var_os(&name) {
            None => return Ok(()),
            Some(value) => {
                value.into_string().map_err(|_| InputError::VariableNotUtf8 { name: name.clone() })?
            }
        },
    };
    variables.insert(name, value);
    Ok(())
}

fn read(path: &Path) -> Result<String, InputError> {
    let unreadable = |source| InputError::VariableFileUnreadable { path: path.to_owned(), source };
    let file = fs_err::File::open(path).map_err(|error| unreadable(std::io::Error::from(error.kind())))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(error.kind().into()))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        InputError::VariableFile { path: path.to_owned(), line, rule: "it is not UTF-8" }
    })
}

fn split(argument: &[u8]) -> (&[u8], Option<&[u8]>) {
    match argument.iter().position(|byte| *byte == b'=') {
        Some(equals) => (&argument[..equals], Some(&argument[equals + 1..])),
        None => (argument, None),
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}

/// A name becomes a file of the platform directory.
fn checked(name: &[u8]) -> Result<String, &'static str> {
    let Ok(text) = std::str::from_utf8(name) else { return Err("it is not UTF-8") };
    match text {
        "" => Err("it is empty"),
        "." | ".." => Err("it is not a file name"),
        _ if text.contains('/') => Err("it has a `/`"),
        _ if text.chars().any(char::is_control) => Err("it has control characters"),
        _ if text.len() > 255 => Err("it is longer than 255 bytes"),
        _ if text.starts_with("CNB_") => Err("names that start with `CNB_` are the specification's"),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_checked_by_name() {
        let read =
            |arguments: &[&str]| variables(&[], &[], &arguments.iter().map(Into::into).collect::<Vec<_>>());
        let found = read(&["A=1", "B=", "A=2=3"]).unwrap();
        assert_eq!(found, BTreeMap::from([("A".into(), "2=3".into()), ("B".into(), String::new())]));
        for argument in ["", "=x", ".=1", "..=1", "a/b=1", "a\nb=1", "CNB_X=1", "WAPACK_SURELY_NOT_SET"] {
            assert!(read(&[argument]).is_err(), "{argument:?}");
        }
        assert!(variables(&[("CNB_X".into(), "1".into())], &[], &[]).is_err());
    }

    /// Read by hand from docker's documentation of `--env-file`.
    #[test]
    fn files_of_variables_are_dockers() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("env");
        let read = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            variables(&[], std::slice::from_ref(&path), &[])
        };
        let text = "\u{feff}A=1\n# comment\n\n  B= two words \nC='quoted'\nD=#1 # x\nE=\nWAPACK_SURELY_NOT_SET\nA=2=3\r\n";
        let expected = [("A", "2=3"), ("B", " two words "), ("C", "'quoted'"), ("D", "#1 # x"), ("E", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read(text.as_bytes()).unwrap(), BTreeMap::from(expected));
        for (text, line) in [("A=1\nB C=2\n", 2), ("=x\n", 1), ("A=1\n\nCNB_X=1\n", 3)] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}:")), "{error}");
        }
        assert!(read(b"A=1\nB=\xff\n").unwrap_err().to_string().contains("line 2: it is not UTF-8"));
        assert!(variables(&[], &["/nowhere/at/all".into()], &[]).is_err());
    }

    #[test]
    fn prj_08_arguments_win_over_files_and_files_over_the_project() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("env");
        std::fs::write(&path, "B=file\nC=file\n").unwrap();
        let project = ["A", "B", "C"].map(|name| (name.to_owned(), "project".to_owned()));
        let found = variables(&project, &[path], &["C=argument".into()]).unwrap();
        assert_eq!(found.into_values().collect::<Vec<_>>(), ["project", "file", "argument"]);
    }
}
