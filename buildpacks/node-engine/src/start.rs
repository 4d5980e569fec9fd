//! An app that no other buildpack makes anything of: what it starts, and what it
//! lacks. Where another one builds upon Node.js, such as `wapack/npm-install`, all
//! of this is left to that one.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wapack_sdk::{BuildContext, Error, Process};

use crate::requirement::{directories, package};
use crate::shown;

/// Locks that `wapack/npm-install` does not read.
const OTHER_LOCKS: [&str; 4] = ["yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"];

/// Makes sure that the packages of the app are there, or that somebody brings
/// them: an image without them would only fail later.
///
/// # Errors
/// When nobody does, or the `package.json` cannot be read.
pub fn check_packages(context: &BuildContext) -> Result<(), Error> {
    let Some(app) = App::alone(context)?.filter(App::lacks_packages) else { return Ok(()) };
    let lock = OTHER_LOCKS.into_iter().find(|lock| app.project.join(lock).is_file());
    let because = lock.map(|lock| format!(", and nothing here reads `{lock}`")).unwrap_or_default();
    let message = format!("no buildpack installs the `dependencies` of `{}`{because}", app.package_name);
    Err(Error::app(message).hint(
        "commit a lock that `npm install --package-lock-only` writes, or have `node_modules` among what is built",
    ))
}

/// The process `web` for `main` of `package.json`, `server.js` or `index.js`.
/// None for an app with a start script, or with packages that are not there.
///
/// # Errors
/// When the `package.json` cannot be read.
pub fn process(context: &BuildContext, node: &Path) -> Result<Option<Process>, Error> {
    let Some(app) = App::alone(context)? else { return Ok(None) };
    if app.package["scripts"]["start"].is_string() || app.lacks_packages() {
        return Ok(None);
    }
    Ok(script(&app.project, &app.package).map(|script| {
        let process = Process::new("web", [node.display().to_string(), script.to_owned()]).default();
        if app.project == context.app {
            process
        } else {
            process.working_directory(app.project.display().to_string())
        }
    }))
}

/// An app that is built by this buildpack alone.
struct App {
    project: PathBuf,
    package: Value,
    package_name: String,
}

impl App {
    /// `None` where another buildpack requires Node.js, too.
    fn alone(context: &BuildContext) -> Result<Option<Self>, Error> {
        // One entry of the plan is our own.
        let (false, Some(project)) = (context.plan.len() > 1, directories(context)?.into_iter().next())
        else {
            return Ok(None);
        };
        let path = project.join("package.json");
        let package_name = shown(&context.app, &path);
        let package = package(&path, &package_name)?;
        Ok(Some(Self { project, package, package_name }))
    }

    fn lacks_packages(&self) -> bool {
        let needs_some =
            self.package["dependencies"].as_object().is_some_and(|packages| !packages.is_empty());
        needs_some && !self.project.join("node_modules").is_dir()
    }
}

/// What Node.js is given: the first of these that is there.
fn script<'a>(project: &Path, package: &'a Value) -> Option<&'a str> {
    let is_module = |name: &&str| {
        ["", ".js", "/index.js"].iter().any(|end| project.join(format!("{name}{end}")).is_file())
    };
    package["main"].as_str().into_iter().chain(["server.js", "index.js"]).find(is_module)
}

#[cfg(test)]
mod tests {
    use wapack_sdk::testing::Project;

    use super::*;

    fn command(package: &str, files: &[&str]) -> Option<Vec<String>> {
        let project = Project::new().unwrap();
        project.app_file("package.json", package).unwrap();
        for file in files {
            project.app_file(file, "").unwrap();
        }
        let process = process(&project.build_context(), Path::new("/node")).unwrap()?;
        assert_eq!((process.process_type.as_str(), process.default), ("web", true));
        Some(process.command[1..].to_vec())
    }

    #[test]
    fn main_then_server_then_index() {
        let files = ["app.js", "server.js", "index.js"];
        assert_eq!(command(r#"{"main":"app"}"#, &files).unwrap(), ["app"]);
        assert_eq!(command(r#"{"main":"gone.js"}"#, &files).unwrap(), ["server.js"]);
        assert_eq!(command("{}", &["index.js"]).unwrap(), ["index.js"]);
        assert_eq!(command(r#"{"main":"lib"}"#, &["lib/index.js"]).unwrap(), ["lib"]);
        assert_eq!(command("{}", &["other.js"]), None);
    }

    #[test]
    fn what_others_know_better_is_left_to_them() {
        assert_eq!(command(r#"{"scripts":{"start":"node server.js"}}"#, &["server.js"]), None);
        let package = r#"{"dependencies":{"express":"4"}}"#;
        assert_eq!(command(package, &["server.js"]), None);
        assert!(command(package, &["server.js", "node_modules/express/package.json"]).is_some());
    }

    #[test]
    fn packages_that_nobody_installs_are_an_error() {
        let project = Project::new().unwrap();
        let problem =
            |project: &Project| check_packages(&project.build_context()).err().map(|error| error.message);
        project.app_file("package.json", r#"{"dependencies":{}}"#).unwrap();
        assert_eq!(problem(&project), None);
        project.app_file("package.json", r#"{"dependencies":{"express":"4"}}"#).unwrap();
        project.app_file("yarn.lock", "").unwrap();
        assert_eq!(
            problem(&project).unwrap(),
            "no buildpack installs the `dependencies` of `package.json`, and nothing here reads `yarn.lock`"
        );
        project.app_file("node_modules/express/package.json", "{}").unwrap();
        assert_eq!(problem(&project), None);
    }

    #[test]
    fn all_is_left_to_a_buildpack_that_requires_node() {
        let project = Project::new().unwrap();
        project.app_file("package.json", r#"{"dependencies":{"express":"4"}}"#).unwrap();
        project.app_file("server.js", "").unwrap();
        let project = project.plan("node").plan("node");
        let context = project.build_context();
        check_packages(&context).unwrap();
        project.app_file("package.json", "{}").unwrap();
        assert_eq!(process(&context, Path::new("/node")).unwrap(), None);
    }

    #[test]
    fn it_starts_in_the_directory_of_the_project() {
        let project = Project::new().unwrap().user_env("WAPACK_NODE_PROJECT", "web");
        project.app_file("web/server.js", "").unwrap();
        let process = process(&project.build_context(), Path::new("/node")).unwrap().unwrap();
        assert_eq!(process.working_directory, Some(project.path().join("app/web").display().to_string()));
    }
}
