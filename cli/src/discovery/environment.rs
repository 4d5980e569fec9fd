//! What this machine's user has set, as one value.
//!
//! Nothing else in here looks at the process: tests bring an environment, and
//! a root, of their own. It holds tokens, so nothing prints it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;

use wapack_runtime::network::source_variable;

/// Variables, and where `/etc` is.
#[derive(Clone)]
pub(crate) struct Environment {
    variables: BTreeMap<OsString, OsString>,
    root: PathBuf,
}

impl Environment {
    pub(crate) fn of_process() -> Self {
        Self::of_variables(std::env::vars_os().collect())
    }

    /// Variables that somebody else has read, on this machine.
    pub(crate) fn of_variables(variables: BTreeMap<OsString, OsString>) -> Self {
        Self { variables, root: "/".into() }
    }

    #[cfg(test)]
    pub(crate) fn of(root: &Path, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, root: root.to_owned() }
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// A variable that is set, to text that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.variables.get(OsStr::new(name))?.to_str().filter(|text| !text.is_empty())
    }

    /// The first of these variables that is set, with its name.
    pub(super) fn first<'a>(&self, names: &[&'a str]) -> Option<(&'a str, &str)> {
        names.iter().find_map(|name| Some((*name, self.text(name)?)))
    }

    /// A variable that is an absolute path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(OsStr::new(name)).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    pub(super) fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    /// Where the user's programs keep their settings.
    pub(super) fn config_home(&self) -> Option<PathBuf> {
        self.path("XDG_CONFIG_HOME").or_else(|| Some(self.home()?.join(".config")))
    }

    /// A file of the system, such as `etc/os-release`.
    pub(super) fn system(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A program on `PATH`. Relative entries are passed over: they would be the
    /// app's directory as often as not.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        self.programs(name).next()
    }

    /// Every program of this name, the first one first.
    pub(super) fn programs(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        let path = self.variables.get(OsStr::new("PATH"));
        path.into_iter()
            .flat_map(std::env::split_paths)
            .filter(|directory| directory.is_absolute())
            .map(move |directory| directory.join(name))
            .filter(|file| {
                file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
            })
    }
}

/// The variable of a source's token.
pub(crate) fn token_variable(name: &str) -> String {
    format!("{}_TOKEN", source_variable(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_a_variable() {
        for (name, variable) in [
            ("npm", "WAPACK_SOURCE_NPM"),
            ("npm:@acme", "WAPACK_SOURCE_NPM_ACME"),
            ("npm:@a-b/c.", "WAPACK_SOURCE_NPM_A_B_C"),
        ] {
            assert_eq!(source_variable(name), variable);
        }
        assert_eq!(token_variable("npm:@acme"), "WAPACK_SOURCE_NPM_ACME_TOKEN");
    }

    #[test]
    fn programs_are_files_one_can_run_in_absolute_directories() {
        let temp = tempfile::tempdir().unwrap();
        let place = |name: &str, mode| {
            let file = temp.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        place("a/npm", 0o644);
        let npm = place("b/npm", 0o755);
        let path = format!("::.:b:{0}/a:{0}/nope:{0}/b", temp.path().display());
        let environment = Environment::of(temp.path(), &[("PATH", &path)]);
        assert_eq!(environment.program("npm"), Some(npm));
        assert_eq!(environment.program("pip"), None);
        // Where tests run there is a `src`; it stands for what an app could have.
        assert_eq!(Environment::of(temp.path(), &[("PATH", "src:.")]).program("main.rs"), None);
    }
}
