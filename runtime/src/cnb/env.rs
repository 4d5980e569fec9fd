//! How layers change the environment, at build and at launch.
//!
//! Pure: which directories a layer has and what its files say is handed in.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use serde::{Deserialize, Serialize};

use super::id::ProcessType;
use super::layer::{EnvironmentChange, EnvironmentOperation, EnvironmentScope};

/// Variables by name. Values are bytes without NUL (ENV-06).
pub type Environment = BTreeMap<String, OsString>;

/// Variables that layers' directories are put in front of, and so are user's values (ENV-09).
pub const PATH_VARIABLES: [&str; 5] = ["CPATH", "LD_LIBRARY_PATH", "LIBRARY_PATH", "PATH", "PKG_CONFIG_PATH"];

/// Which of the directories that become part of path variables a layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "one for each directory of the specification's table")]
pub struct LayerRoots {
    pub bin: bool,
    pub lib: bool,
    pub include: bool,
    pub pkgconfig: bool,
}

/// A layer as it changes the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEnvironment<'a> {
    /// Absolute path as the process sees it, such as `/layers/acme_node/runtime`.
    pub directory: String,
    pub roots: LayerRoots,
    /// Those of one scope are applied in this order, which has to be the one of
    /// their file names; sorting the changes of a component gives it.
    pub changes: &'a [EnvironmentChange],
}

/// Applies the build layers of one buildpack, sorted by name.
///
/// # Spec
/// `buildpack.md` 0.12 "Environment"; ENV-13 to ENV-15: layer by layer, first
/// directories, then `env/`, then `env.build/`.
pub fn apply_build(environment: &mut Environment, layers: &[LayerEnvironment<'_>]) {
    for layer in layers {
        for (variable, directory) in build_directories(layer.roots) {
            put_in_front(environment, variable, format!("{}/{directory}", layer.directory).as_ref());
        }
        apply_scope(environment, layer.changes, &EnvironmentScope::All);
        apply_scope(environment, layer.changes, &EnvironmentScope::Build);
    }
}

/// Applies the launch layers of one buildpack, sorted by name, for a process.
///
/// # Spec
/// ENV-16, ENV-25: first the directories of all layers, then layer by layer
/// `env/`, `env.launch/` and `env.launch/<type>/`.
pub fn apply_launch(
    environment: &mut Environment,
    layers: &[LayerEnvironment<'_>],
    process: Option<&ProcessType>,
) {
    for layer in layers {
        for (variable, directory) in launch_directories(layer.roots) {
            put_in_front(environment, variable, format!("{}/{directory}", layer.directory).as_ref());
        }
    }
    for layer in layers {
        apply_scope(environment, layer.changes, &EnvironmentScope::All);
        apply_scope(environment, layer.changes, &EnvironmentScope::Launch);
        if let Some(process) = process {
            apply_scope(environment, layer.changes, &EnvironmentScope::Process(process.clone()));
        }
    }
}

fn build_directories(roots: LayerRoots) -> impl Iterator<Item = (&'static str, &'static str)> {
    [
        (roots.bin, "PATH", "bin"),
        (roots.lib, "LD_LIBRARY_PATH", "lib"),
        (roots.lib, "LIBRARY_PATH", "lib"),
        (roots.include, "CPATH", "include"),
        (roots.pkgconfig, "PKG_CONFIG_PATH", "pkgconfig"),
    ]
    .into_iter()
    .filter_map(|(exists, variable, directory)| exists.then_some((variable, directory)))
}

fn launch_directories(roots: LayerRoots) -> impl Iterator<Item = (&'static str, &'static str)> {
    [(roots.bin, "PATH", "bin"), (roots.lib, "LD_LIBRARY_PATH", "lib")]
        .into_iter()
        .filter_map(|(exists, variable, directory)| exists.then_some((variable, directory)))
}

/// No `:` when there is nothing to separate from (ENV-14).
pub(crate) fn put_in_front(environment: &mut Environment, variable: &str, front: &OsStr) {
    let value = environment.entry(variable.to_owned()).or_default();
    if !value.is_empty() {
        *value = joined([OsStr::new(":"), value]);
    }
    *value = joined([front, value]);
}

/// The pieces, one behind the other.
fn joined<'a>(pieces: impl IntoIterator<Item = &'a OsStr>) -> OsString {
    pieces.into_iter().collect()
}

fn apply_scope(environment: &mut Environment, changes: &[EnvironmentChange], scope: &EnvironmentScope) {
    apply_changes(environment, changes.iter().filter(|change| change.scope == *scope));
}

/// Applies changes one after the other, whatever their scope.
pub fn apply_changes<'a>(
    environment: &mut Environment,
    changes: impl IntoIterator<Item = &'a EnvironmentChange>,
) {
    for change in changes {
        let value = environment.entry(change.name.clone()).or_default();
        // ENV-20: no separator when there is nothing yet.
        let delimiter = if value.is_empty() { OsStr::new("") } else { &change.delimiter };
        match change.operation {
            EnvironmentOperation::Append => *value = joined([value, delimiter, &change.value]),
            EnvironmentOperation::Prepend => *value = joined([&change.value, delimiter, value]),
            EnvironmentOperation::Override => value.clone_from(&change.value),
            EnvironmentOperation::Default if value.is_empty() => value.clone_from(&change.value),
            EnvironmentOperation::Default => {}
        }
    }
}

/// Whether an operation joins old and new value, and so has a delimiter.
#[must_use]
pub fn joins(operation: EnvironmentOperation) -> bool {
    matches!(operation, EnvironmentOperation::Append | EnvironmentOperation::Prepend)
}

/// Changes that files cannot express.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable `{name}` has {problem}")]
pub struct InexpressibleChange {
    pub name: String,
    pub problem: &'static str,
}

/// The files of a layer that say what `changes` say.
///
/// # Shape
/// Paths relative to the layer, such as `env.launch/web/PORT.default`, with
/// their contents.
///
/// # Errors
/// When two changes would be the same file, or `append` and `prepend` of one
/// variable have different delimiters, or a name cannot be a file's.
pub fn files(changes: &[EnvironmentChange]) -> Result<BTreeMap<String, OsString>, InexpressibleChange> {
    let mut files = BTreeMap::new();
    let mut delimiters: BTreeMap<String, OsString> = BTreeMap::new();
    for change in changes {
        let name = &change.name;
        let fail = |problem| Err(InexpressibleChange { name: name.clone(), problem });
        if name.is_empty() || name.contains(['/', '.', '=', '\0']) {
            return fail("a name that is empty or has one of `/`, `.`, `=` and NUL");
        }
        let directory = match &change.scope {
            EnvironmentScope::All => "env".to_owned(),
            EnvironmentScope::Build => "env.build".to_owned(),
            EnvironmentScope::Launch => "env.launch".to_owned(),
            EnvironmentScope::Process(process) => format!("env.launch/{process}"),
        };
        let (action, joins) = match change.operation {
            EnvironmentOperation::Append => ("append", true),
            EnvironmentOperation::Default => ("default", false),
            EnvironmentOperation::Override => ("override", false),
            EnvironmentOperation::Prepend => ("prepend", true),
        };
        if files.insert(format!("{directory}/{name}.{action}"), change.value.clone()).is_some() {
            return fail("two changes of the same kind in one scope");
        }
        // ENV-20: one `.delim` file serves both.
        if joins {
            let other = delimiters.insert(format!("{directory}/{name}.delim"), change.delimiter.clone());
            if other.is_some_and(|other| other != change.delimiter) {
                return fail("two delimiters in one scope");
            }
        }
    }
    delimiters.retain(|_, delimiter| !delimiter.is_empty());
    files.append(&mut delimiters);
    Ok(files)
}

/// What a file without a suffix means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsuffixed {
    /// From buildpack API 0.5 on.
    Override,
    /// Before: in front, with `:`.
    Prepend,
    /// In the operator's directory: only where there is nothing.
    Default,
}

/// What the files of one environment directory say, in the order they apply.
///
/// # Spec
/// ENV-18 to ENV-24: the name ends at the first dot, the action is all of the
/// rest, unknown actions are ignored, contents are taken as they are.
#[must_use]
pub fn changes_of_directory(
    files: &BTreeMap<String, OsString>,
    scope: &EnvironmentScope,
    unsuffixed: Unsuffixed,
) -> Vec<EnvironmentChange> {
    files
        .iter()
        .filter_map(|(file, value)| {
            let (name, action) = file.split_once('.').unwrap_or((file, ""));
            let delimiter = files.get(&format!("{name}.delim"));
            let (operation, default_delimiter) = match (action, unsuffixed) {
                ("", Unsuffixed::Prepend) => (EnvironmentOperation::Prepend, ":"),
                ("", Unsuffixed::Override) | ("override", _) => (EnvironmentOperation::Override, ""),
                ("append", _) => (EnvironmentOperation::Append, ""),
                ("prepend", _) => (EnvironmentOperation::Prepend, ""),
                ("", Unsuffixed::Default) | ("default", _) => (EnvironmentOperation::Default, ""),
                _ => return None,
            };
            Some(EnvironmentChange {
                name: name.to_owned(),
                scope: scope.clone(),
                operation,
                value: value.clone(),
                delimiter: delimiter.map_or(OsStr::new(default_delimiter), OsString::as_os_str).to_owned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use EnvironmentOperation::{Append, Default, Override, Prepend};

    fn change(
        name: &str,
        scope: EnvironmentScope,
        operation: EnvironmentOperation,
        value: &str,
    ) -> EnvironmentChange {
        EnvironmentChange { name: name.into(), scope, operation, value: value.into(), delimiter: ":".into() }
    }

    fn all(operation: EnvironmentOperation, value: &str) -> EnvironmentChange {
        change("X", EnvironmentScope::All, operation, value)
    }

    fn layer<'a>(directory: &str, changes: &'a [EnvironmentChange]) -> LayerEnvironment<'a> {
        let roots = LayerRoots { bin: true, lib: true, include: true, pkgconfig: true };
        LayerEnvironment { directory: directory.into(), roots, changes }
    }

    fn environment(entries: &[(&str, &str)]) -> Environment {
        entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
    }

    #[test]
    fn env_14_directories_of_a_build_layer() {
        let mut env = environment(&[("PATH", "/usr/bin"), ("CPATH", "")]);
        apply_build(&mut env, &[layer("/l/a", &[])]);
        let expected = [
            ("CPATH", "/l/a/include"),
            ("LD_LIBRARY_PATH", "/l/a/lib"),
            ("LIBRARY_PATH", "/l/a/lib"),
            ("PATH", "/l/a/bin:/usr/bin"),
            ("PKG_CONFIG_PATH", "/l/a/pkgconfig"),
        ];
        assert_eq!(env, environment(&expected));
    }

    #[test]
    fn env_14_directories_of_a_launch_layer() {
        let mut env = Environment::new();
        apply_launch(&mut env, &[layer("/l/a", &[])], None);
        assert_eq!(env, environment(&[("LD_LIBRARY_PATH", "/l/a/lib"), ("PATH", "/l/a/bin")]));
    }

    #[test]
    fn env_15_and_16_build_and_launch_differ() {
        let first = [change("PATH", EnvironmentScope::All, Prepend, "/first")];
        let layers = [layer("/l/a", &first), layer("/l/b", &[])];
        let mut build = Environment::new();
        apply_build(&mut build, &layers);
        assert_eq!(build["PATH"], "/l/b/bin:/first:/l/a/bin");
        let mut launch = Environment::new();
        apply_launch(&mut launch, &layers, None);
        assert_eq!(launch["PATH"], "/first:/l/b/bin:/l/a/bin");
    }

    #[test]
    fn env_17_within_a_buildpack_the_last_layer_comes_first() {
        let mut env = Environment::new();
        apply_launch(&mut env, &[layer("/l/a", &[]), layer("/l/b", &[])], None);
        assert_eq!(env["PATH"], "/l/b/bin:/l/a/bin");
    }

    #[test]
    fn env_19_and_20_operations() {
        let run = |start: &str, change: EnvironmentChange| {
            let mut env = environment(&[("X", start)]);
            apply_launch(&mut env, &[layer("/l", &[change])], None);
            env["X"].clone()
        };
        assert_eq!(run("old", all(Append, "new")), "old:new");
        assert_eq!(run("old", all(Prepend, "new")), "new:old");
        assert_eq!(run("old", all(Override, "new")), "new");
        assert_eq!(run("old", all(Default, "new")), "old");
        assert_eq!(run("", all(Append, "new")), "new");
        assert_eq!(run("", all(Default, "new\n")), "new\n");
    }

    #[test]
    fn env_13_and_25_scopes() {
        let web: ProcessType = "web".parse().unwrap();
        let changes = [
            change("A", EnvironmentScope::All, Override, "1"),
            change("B", EnvironmentScope::Build, Override, "1"),
            change("L", EnvironmentScope::Launch, Override, "1"),
            change("P", EnvironmentScope::Process(web.clone()), Override, "1"),
        ];
        let layer =
            LayerEnvironment { directory: "/l".into(), roots: LayerRoots::default(), changes: &changes };
        let names = |env: &Environment| env.keys().cloned().collect::<Vec<_>>();
        let mut env = Environment::new();
        apply_build(&mut env, std::slice::from_ref(&layer));
        assert_eq!(names(&env), ["A", "B"]);
        let mut env = Environment::new();
        apply_launch(&mut env, std::slice::from_ref(&layer), None);
        assert_eq!(names(&env), ["A", "L"]);
        let mut env = Environment::new();
        apply_launch(&mut env, std::slice::from_ref(&layer), Some(&web));
        assert_eq!(names(&env), ["A", "L", "P"]);
    }

    #[test]
    fn env_23_net_order_of_several_scopes() {
        let web: ProcessType = "web".parse().unwrap();
        let of = |operation, value: &str| {
            [
                change("X", EnvironmentScope::All, operation, &format!("{value}1")),
                change("X", EnvironmentScope::Launch, operation, &format!("{value}2")),
                change("X", EnvironmentScope::Process(web.clone()), operation, &format!("{value}3")),
            ]
        };
        for (operation, expected) in
            [(Append, "a1:a2:a3:b1:b2:b3"), (Prepend, "b3:b2:b1:a3:a2:a1"), (Override, "b3"), (Default, "a1")]
        {
            let (a, b) = (of(operation, "a"), of(operation, "b"));
            let mut env = Environment::new();
            apply_launch(&mut env, &[layer("/l/a", &a), layer("/l/b", &b)], Some(&web));
            assert_eq!(env["X"], expected, "{operation:?}");
        }
    }

    fn directory(files: &[(&str, &str)], unsuffixed: Unsuffixed) -> Vec<EnvironmentChange> {
        changes_of_directory(&environment(files), &EnvironmentScope::All, unsuffixed)
    }

    #[test]
    fn env_18_to_22_file_names() {
        let files = [
            ("X", "plain"),
            ("X.append", "appended"),
            ("X.delim", ","),
            ("X.override.bak", "ignored"),
            ("X.sh", "ignored"),
            ("Y.append", "no delimiter"),
        ];
        let changes = directory(&files, Unsuffixed::Override);
        let seen: Vec<_> = changes
            .iter()
            .map(|change| {
                let text = |text: &'_ OsString| text.to_str().unwrap().to_owned();
                (change.name.clone(), change.operation, text(&change.value), text(&change.delimiter))
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("X", Override, "plain", ","),
                ("X", Append, "appended", ","),
                ("Y", Append, "no delimiter", "")
            ]
            .map(|(name, operation, value, delimiter)| (
                name.into(),
                operation,
                value.into(),
                delimiter.into()
            ))
        );
        let mut env = Environment::new();
        apply_launch(&mut env, &[layer("/l", &changes)], None);
        assert_eq!(env["X"], "plain,appended");
    }

    #[test]
    fn env_22_override_discards_an_append_of_the_same_directory() {
        let changes = directory(&[("X.append", "a"), ("X.override", "o")], Unsuffixed::Override);
        let mut env = Environment::new();
        apply_launch(&mut env, &[layer("/l", &changes)], None);
        assert_eq!(env["X"], "o");
    }

    #[test]
    fn env_24_files_without_suffix_of_old_buildpacks() {
        let mut env = environment(&[("X", "old")]);
        let changes = directory(&[("X", "new")], Unsuffixed::Prepend);
        apply_launch(&mut env, &[layer("/l", &changes)], None);
        assert_eq!(env["X"], "new:old");
    }

    #[test]
    fn changes_as_files_and_back() {
        let web: ProcessType = "web".parse().unwrap();
        let changes = [
            all(Append, "a"),
            all(Prepend, "p"),
            change("PORT", EnvironmentScope::Process(web), Default, "80"),
        ];
        let written = files(&changes).unwrap();
        let expected = [
            ("env.launch/web/PORT.default", "80"),
            ("env/X.append", "a"),
            ("env/X.delim", ":"),
            ("env/X.prepend", "p"),
        ];
        assert_eq!(written, environment(&expected));
    }

    #[test]
    fn changes_that_files_cannot_say_are_refused() {
        let other = EnvironmentChange { delimiter: ";".into(), ..all(Prepend, "p") };
        assert!(files(&[all(Append, "a"), other]).is_err());
        assert!(files(&[all(Append, "a"), all(Append, "b")]).is_err());
        for name in ["", "A/B", "A.B", "A=B", "../X", "A\0"] {
            assert!(files(&[change(name, EnvironmentScope::All, Override, "")]).is_err(), "{name:?}");
        }
    }
}
