//! What an app without a start script starts. Buildpacks after this one replace
//! it: `wapack/npm-install` knows scripts, a `Procfile` has the last word.

use std::path::Path;

use serde_json::Value;
use wapack_sdk::{BuildContext, Error, Process};

use crate::requirement::{directories, package};
use crate::shown;

/// The process `web` for `main` of `package.json`, `server.js` or `index.js`.
/// None for an app with a start script, or with packages that are not there.
///
/// # Errors
/// When the `package.json` cannot be read.
pub fn process(context: &BuildContext, node: &Path) -> Result<Option<Process>, Error> {
    let Some(project) = directories(context)?.into_iter().next() else { return Ok(None) };
    let path = project.join("package.json");
    let package = package(&path, &shown(&context.app, &path))?;
    let needs_packages = package["dependencies"].as_object().is_some_and(|packages| !packages.is_empty());
    if package["scripts"]["start"].is_string() || needs_packages && !project.join("node_modules").is_dir() {
        return Ok(None);
    }
    Ok(script(&project, &package).map(|script| {
        let process = Process::new("web", [node.display().to_string(), script.to_owned()]).default();
        if project == context.app {
            process
        } else {
            process.working_directory(project.display().to_string())
        }
    }))
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
    fn it_starts_in_the_directory_of_the_project() {
        let project = Project::new().unwrap().user_env("WAPACK_NODE_PROJECT", "web");
        project.app_file("web/server.js", "").unwrap();
        let process = process(&project.build_context(), Path::new("/node")).unwrap().unwrap();
        assert_eq!(process.working_directory, Some(project.path().join("app/web").display().to_string()));
    }
}
