//! The environment of the process: what the container gave, less our own
//! variables, with the changes of the image's layers.
//!
//! Later layers and later buildpacks are *put in front* in path variables, one
//! after the other in ascending order. So `b/bin` stands before `a/bin`, which
//! the spec words the other way round; published buildpacks rely on this order.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::failure::Failure;
use crate::layers::{self, BuildpackLayers, Files};
use crate::platform::ApiVersion;

/// Variables and their values.
pub(crate) type Environment = BTreeMap<OsString, OsString>;

/// Settings of the launcher that the process does not get to see.
const OWN_VARIABLES: [&str; 5] =
    ["CNB_APP_DIR", "CNB_DEPRECATION_MODE", "CNB_LAYERS_DIR", "CNB_PLATFORM_API", "CNB_PROCESS_TYPE"];
/// Elements of `PATH` that hold the launcher, and so must not be found again by the process.
const OWN_DIRECTORIES: [&[u8]; 2] = [b"/cnb/process", b"/cnb/lifecycle"];
/// Which directory of a layer goes into which variable at launch.
const PATH_VARIABLES: [(&str, &str); 2] = [("bin", "PATH"), ("lib", "LD_LIBRARY_PATH")];
/// From here on a variable's file without a suffix replaces the value.
const OVERRIDE_BY_DEFAULT: ApiVersion = ApiVersion::new(0, 5);

/// The container's environment without what is only the launcher's.
pub(crate) fn inherited(variables: impl Iterator<Item = (OsString, OsString)>) -> Environment {
    let mut environment: Environment =
        variables.filter(|(name, _)| !OWN_VARIABLES.iter().any(|own| name == own)).collect();
    if let Some(path) = environment.get_mut(OsStr::new("PATH")) {
        let kept: Vec<&[u8]> = path
            .as_bytes()
            .split(|byte| *byte == b':')
            .filter(|element| !OWN_DIRECTORIES.contains(element))
            .collect();
        *path = OsString::from_vec(kept.join(&b':'));
    }
    environment
}

/// Applies what every layer of every buildpack changes.
///
/// # Ordering
/// For each buildpack first the directories of all its layers, then layer by
/// layer `env/`, `env.launch/`, `env.launch/<type>/` (ENV-16).
pub(crate) fn apply_layers(
    environment: &mut Environment,
    buildpacks: &[BuildpackLayers],
    process_type: Option<&str>,
) -> Result<(), Failure> {
    for buildpack in buildpacks {
        for layer in &buildpack.layers {
            for (child, variable) in PATH_VARIABLES {
                let directory = layer.join(child);
                if directory.is_dir() {
                    join(environment, variable, Side::Front, directory.as_os_str(), OsStr::new(":"));
                }
            }
        }
        for layer in &buildpack.layers {
            apply_directory(environment, &layer.join("env"), None, buildpack.api)?;
            let launch = layer.join("env.launch");
            let has_own = apply_directory(environment, &launch, process_type, buildpack.api)?;
            if let Some(process_type) = process_type.filter(|_| has_own) {
                apply_directory(environment, &launch.join(process_type), None, buildpack.api)?;
            }
        }
    }
    Ok(())
}

/// Applies the files of one `env` directory, in the order of their names; says whether
/// there may be some for the process type alone.
fn apply_directory(
    environment: &mut Environment,
    directory: &Path,
    process_type: Option<&str>,
    api: ApiVersion,
) -> Result<bool, Failure> {
    let mut changes = BTreeMap::new();
    let Files { files, has_own } = layers::files_without_dangling_links(directory, process_type)?;
    for file in files {
        let contents = crate::directory::read(&file)
            .map_err(|error| Failure::launch(format!("cannot read `{}`: {error}", file.display())))?;
        if contents.contains(&0) {
            return Err(Failure::launch(format!(
                "`{}` holds a zero byte, which no variable can",
                file.display()
            )));
        }
        if let Some(name) = file.file_name() {
            changes.insert(name.to_owned(), OsString::from_vec(contents));
        }
    }
    apply_changes(environment, &changes, api);
    Ok(has_own)
}

/// Applies changes given as file name and contents. The map is sorted, and so
/// is the order in which they count (ENV-22).
fn apply_changes(environment: &mut Environment, changes: &BTreeMap<OsString, OsString>, api: ApiVersion) {
    for (file_name, contents) in changes {
        let bytes = file_name.as_bytes();
        let (name, action) = match bytes.iter().position(|byte| *byte == b'.') {
            Some(dot) => (&bytes[..dot], Some(&bytes[dot + 1..])),
            None => (bytes, None),
        };
        // A name that no environment can hold; `.profile`-like files are not ours.
        if name.is_empty() || name.contains(&b'=') {
            continue;
        }
        let name = OsStr::from_bytes(name);
        let delimiter = || {
            let mut delimiter_file = name.to_owned();
            delimiter_file.push(".delim");
            changes.get(&delimiter_file)
        };
        match action {
            None if api < OVERRIDE_BY_DEFAULT => {
                let delimiter = delimiter().map_or(OsStr::new(":"), OsString::as_os_str);
                join(environment, name, Side::Front, contents, delimiter);
            }
            None | Some(b"override") => {
                environment.insert(name.to_owned(), contents.clone());
            }
            Some(b"append" | b"prepend") => {
                let side = if action == Some(b"append") { Side::Back } else { Side::Front };
                let delimiter = delimiter().map_or(OsStr::new(""), OsString::as_os_str);
                join(environment, name, side, contents, delimiter);
            }
            Some(b"default") => {
                let value = environment.entry(name.to_owned()).or_default();
                if value.is_empty() {
                    value.clone_from(contents);
                }
            }
            // `delim` is data for its neighbours; others are for a later API.
            Some(_) => {}
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Front,
    Back,
}

/// Adds to a variable, with a delimiter only between two values.
fn join(
    environment: &mut Environment,
    name: impl AsRef<OsStr>,
    side: Side,
    addition: &OsStr,
    delimiter: &OsStr,
) {
    let value = environment.entry(name.as_ref().to_owned()).or_default();
    if value.is_empty() {
        value.push(addition);
        return;
    }
    let (first, second) = match side {
        Side::Front => (addition, value.as_os_str()),
        Side::Back => (value.as_os_str(), addition),
    };
    let mut joined = OsString::with_capacity(first.len() + delimiter.len() + second.len());
    joined.push(first);
    joined.push(delimiter);
    joined.push(second);
    *value = joined;
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: ApiVersion = ApiVersion::new(0, 12);

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
    }

    /// What `files` make of `before`.
    fn applied(before: &[(&str, &str)], files: &[(&str, &str)], api: ApiVersion) -> Vec<(String, String)> {
        let mut environment = environment(before);
        apply_changes(&mut environment, &self::environment(files), api);
        let text = |value: OsString| value.into_string().unwrap();
        environment.into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    fn one(before: &[(&str, &str)], files: &[(&str, &str)]) -> String {
        let after = applied(before, files, NOW);
        assert_eq!(after.len(), 1, "{after:?}");
        after[0].1.clone()
    }

    #[test]
    fn lau_10_own_variables_are_left_out() {
        let given = environment(&[
            ("CNB_LAYERS_DIR", "/layers"),
            ("CNB_APP_DIR", "/workspace"),
            ("CNB_PROCESS_TYPE", "web"),
            ("CNB_PLATFORM_API", "0.15"),
            ("CNB_DEPRECATION_MODE", "quiet"),
            ("CNB_EXEC_ENV", "test"),
            ("HOME", "/root"),
        ]);
        let left = inherited(given.into_iter());
        assert_eq!(left, environment(&[("CNB_EXEC_ENV", "test"), ("HOME", "/root")]));
    }

    #[test]
    fn lau_11_own_directories_leave_the_path_wherever_they_stand() {
        let path = |given: &str| {
            inherited(environment(&[("PATH", given)]).into_iter())[OsStr::new("PATH")]
                .to_string_lossy()
                .into_owned()
        };
        assert_eq!(path("/cnb/process:/cnb/lifecycle:/usr/bin:/bin"), "/usr/bin:/bin");
        assert_eq!(path("/usr/bin:/cnb/process:/bin:/cnb/lifecycle"), "/usr/bin:/bin");
        assert_eq!(path("/usr/bin:/cnb/process/x"), "/usr/bin:/cnb/process/x");
        assert_eq!(path("/cnb/process"), "");
    }

    #[test]
    fn env_18_the_action_is_all_after_the_first_dot() {
        assert_eq!(
            applied(&[("FOO", "old")], &[("FOO.override.bak", "new")], NOW),
            [("FOO".into(), "old".into())]
        );
    }

    #[test]
    fn env_19_actions() {
        let old = &[("FOO", "old")][..];
        assert_eq!(one(old, &[("FOO", "new")]), "new");
        assert_eq!(one(old, &[("FOO.override", "new")]), "new");
        assert_eq!(one(old, &[("FOO.append", "new")]), "oldnew");
        assert_eq!(one(old, &[("FOO.prepend", "new")]), "newold");
        assert_eq!(one(old, &[("FOO.default", "new")]), "old");
        assert_eq!(one(&[("FOO", "")], &[("FOO.default", "new")]), "new");
        assert_eq!(one(&[], &[("FOO.default", "new")]), "new");
        assert_eq!(one(old, &[("FOO.wild", "new")]), "old");
    }

    #[test]
    fn env_20_the_delimiter_stands_only_between_two_values() {
        let delimited = [("FOO.append", "new"), ("FOO.delim", ", ")];
        assert_eq!(one(&[("FOO", "old")], &delimited), "old, new");
        assert_eq!(one(&[("FOO", "")], &delimited), "new");
        assert_eq!(one(&[], &delimited), "new");
        assert_eq!(one(&[("FOO", "old")], &[("FOO.prepend", "new"), ("FOO.delim", ":")]), "new:old");
    }

    #[test]
    fn env_21_contents_are_verbatim() {
        assert_eq!(one(&[], &[("FOO", " $HOME\n")]), " $HOME\n");
    }

    #[test]
    fn env_22_an_override_discards_an_earlier_append() {
        assert_eq!(one(&[("FOO", "old")], &[("FOO.append", "lost"), ("FOO.override", "kept")]), "kept");
        assert_eq!(one(&[("FOO", "old")], &[("FOO", "base"), ("FOO.append", "+more")]), "base+more");
    }

    /// LAU-14
    #[test]
    fn env_24_before_api_0_5_a_file_without_suffix_is_put_in_front() {
        let old = ApiVersion::new(0, 4);
        let value = |files: &[(&str, &str)]| applied(&[("FOO", "old")], files, old)[0].1.clone();
        assert_eq!(value(&[("FOO", "new")]), "new:old");
        assert_eq!(value(&[("FOO", "new"), ("FOO.delim", "-")]), "new-old");
        assert_eq!(value(&[("FOO.override", "new")]), "new");
    }

    #[test]
    fn names_that_no_environment_can_hold_are_skipped() {
        assert_eq!(applied(&[], &[("A=B", "x"), (".append", "x")], NOW), []);
    }
}
