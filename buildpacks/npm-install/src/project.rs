//! Which directory of the app is started, and which one has the lock.

use std::path::{Path, PathBuf};

use wapack_sdk::{DetectContext, Error, fs};

use crate::bins::join;
use crate::lock::Lock;
use crate::tree::normal;

/// The variable that names the package to start, relative to the app.
pub const PROJECT_VARIABLE: &str = "WAPACK_NODE_PROJECT";

/// The name that other buildpacks have for it.
const OTHER_PROJECT_VARIABLE: &str = "BP_NODE_PROJECT_PATH";

/// The locks of npm; of two, the first one counts.
const LOCKS: [&str; 2] = ["npm-shrinkwrap.json", "package-lock.json"];

/// The locks of others, and whose they are.
const OTHER_LOCKS: [(&str, &str); 4] =
    [("yarn.lock", "yarn"), ("pnpm-lock.yaml", "pnpm"), ("bun.lock", "bun"), ("bun.lockb", "bun")];

/// Where things are in an app. Places are relative to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The package to start.
    pub place: String,
    /// The directory that is installed: the one with the lock.
    pub root: String,
    /// The name of the lock, if there is one.
    pub lock: Option<&'static str>,
}

/// What an app is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// One that npm installs.
    Project(Project),
    /// None, and why.
    Nothing(String),
}

impl Project {
    /// Looks into the app.
    ///
    /// # Errors
    /// When the user names a project that is none.
    pub fn find(context: &DetectContext) -> Result<Found, Error> {
        let place = named(context)?;
        let app = &context.app;
        if !app.join(&place).join("package.json").is_file() {
            return Ok(Found::Nothing("no `package.json`".to_owned()));
        }
        let own = lock_in(&app.join(&place));
        let outer = if place.is_empty() { None } else { lock_in(app) };
        let (root, lock) = match (own, outer) {
            // A lock of its own does not count in a workspace, as for npm.
            (Some(_), Some(outer)) if is_listed(&app.join(outer), &place) => (String::new(), Some(outer)),
            (Some(own), _) => (place.clone(), Some(own)),
            (None, Some(outer)) => (String::new(), Some(outer)),
            (None, None) => (place.clone(), None),
        };
        if lock.is_none()
            && let Some((file, program)) = other_lock(app, &place)
        {
            return Ok(Found::Nothing(format!(
                "`{file}` is a lock of {program}, and there is none of npm: \
                 `npm install --package-lock-only` writes a `package-lock.json`"
            )));
        }
        Ok(Found::Project(Self { place, root, lock }))
    }

    /// The directory with the lock.
    pub fn root_directory(&self, app: &Path) -> PathBuf {
        app.join(&self.root).components().collect()
    }

    /// The directory of the package to start.
    pub fn directory(&self, app: &Path) -> PathBuf {
        app.join(&self.place).components().collect()
    }
}

/// The place of the package to start.
fn named(context: &DetectContext) -> Result<String, Error> {
    let setting = [PROJECT_VARIABLE, OTHER_PROJECT_VARIABLE]
        .into_iter()
        .find_map(|name| Some((name, context.user_env.get(name).filter(|value| !value.is_empty())?)));
    let Some((variable, value)) = setting else { return Ok(String::new()) };
    let place = normal(value).ok_or_else(|| {
        Error::app(format!("`{variable}` leads out of the app: `{value}`"))
            .hint("name a directory relative to the app, such as `packages/server`")
    })?;
    if context.app.join(&place).join("package.json").is_file() {
        Ok(place)
    } else {
        Err(Error::app(format!("there is no `package.json` in `{value}`, which `{variable}` names"))
            .hint("name the directory of the package to start, relative to the app"))
    }
}

fn lock_in(directory: &Path) -> Option<&'static str> {
    LOCKS.into_iter().find(|name| directory.join(name).is_file())
}

fn other_lock(app: &Path, place: &str) -> Option<(String, &'static str)> {
    [place, ""].into_iter().find_map(|place| {
        OTHER_LOCKS
            .into_iter()
            .map(|(file, program)| (join(place, file), program))
            .find(|(file, _)| app.join(file).is_file())
    })
}

/// Whether a lock knows a directory. One that cannot be read knows nothing.
fn is_listed(lock: &Path, place: &str) -> bool {
    let Ok(bytes) = fs::read(lock) else { return false };
    let text = String::from_utf8_lossy(&bytes);
    Lock::parse(&text).is_ok_and(|lock| lock.packages.iter().any(|(listed, _)| listed.as_str() == place))
}

#[cfg(test)]
mod tests {
    use wapack_sdk::testing;

    use super::*;

    fn found(files: &[(&str, &str)], named: &str) -> Result<Found, String> {
        let app = testing::Project::new().unwrap().user_env(PROJECT_VARIABLE, named);
        for (file, text) in files {
            app.app_file(file, text).unwrap();
        }
        Project::find(&app.detect_context()).map_err(|error| error.message)
    }

    #[expect(clippy::unnecessary_wraps, reason = "to be compared with results")]
    fn project(place: &str, root: &str, lock: Option<&'static str>) -> Result<Found, String> {
        Ok(Found::Project(Project { place: place.into(), root: root.into(), lock }))
    }

    #[test]
    fn the_app_itself_is_the_usual_project() {
        let package = ("package.json", "{}");
        assert_eq!(found(&[], ""), Ok(Found::Nothing("no `package.json`".into())));
        assert_eq!(found(&[package], ""), project("", "", None));
        let both = [package, ("package-lock.json", "{}"), ("npm-shrinkwrap.json", "{}")];
        assert_eq!(found(&both[..2], ""), project("", "", Some("package-lock.json")));
        assert_eq!(found(&both, ""), project("", "", Some("npm-shrinkwrap.json")));
    }

    #[test]
    fn a_project_below_uses_its_own_lock_unless_it_is_in_a_workspace() {
        let listed = r#"{"lockfileVersion":3,"packages":{"a/b":{}}}"#;
        let other = r#"{"lockfileVersion":3,"packages":{}}"#;
        let package = ("a/b/package.json", "{}");
        let lock = Some("package-lock.json");
        assert_eq!(found(&[package, ("package-lock.json", other)], "./a//b/"), project("a/b", "", lock));
        let both = |outer| [package, ("package-lock.json", outer), ("a/b/package-lock.json", other)];
        assert_eq!(found(&both(other), "a/b"), project("a/b", "a/b", lock));
        assert_eq!(found(&both(listed), "a/b"), project("a/b", "", lock));
        assert!(found(&[package], "../a/b").unwrap_err().contains("leads out of the app"));
        assert!(found(&[package], "a").unwrap_err().contains("no `package.json` in `a`"));
    }

    #[test]
    fn locks_of_others_are_named_with_the_way_out() {
        for (file, program) in OTHER_LOCKS {
            let Ok(Found::Nothing(reason)) = found(&[("package.json", "{}"), (file, "")], "") else {
                panic!("{file}");
            };
            assert!(reason.contains(file) && reason.contains(program), "{reason}");
            assert!(reason.contains("npm install --package-lock-only"), "{reason}");
            let with_ours = found(&[("package.json", "{}"), (file, ""), ("package-lock.json", "")], "");
            assert!(matches!(with_ours, Ok(Found::Project(_))), "{with_ours:?}");
        }
    }
}
