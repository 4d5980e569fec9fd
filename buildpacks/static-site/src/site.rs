//! Where the website is. Knows nothing of images or servers.

use std::path::{Path, PathBuf};

use wapack_sdk::{DetectContext, Error, fs};

/// The variable that names the root of the website.
pub const ROOT_VARIABLE: &str = "BP_STATIC_ROOT";

/// Where a website may be in an app, best first; the empty path is the app.
const USUAL_ROOTS: [&str; 3] = ["", "public", "dist"];

/// Lists of packages that Node's package managers leave.
const LOCKS: [&str; 6] =
    ["package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml", "bun.lock", "bun.lockb"];

/// The root of the website, if there is a website.
///
/// # Errors
/// When the user names a root that is none.
pub fn find_root(context: &DetectContext) -> Result<Option<PathBuf>, Error> {
    match context.user_env.get(ROOT_VARIABLE).filter(|value| !value.is_empty()) {
        Some(named) => named_root(context, named).map(Some),
        None => {
            Ok(USUAL_ROOTS.into_iter().filter_map(|root| context.app_path(root)).find(|root| has_index(root)))
        }
    }
}

fn named_root(context: &DetectContext, named: &str) -> Result<PathBuf, Error> {
    let root = context.app_path(named).ok_or_else(|| {
        Error::app(format!("`{ROOT_VARIABLE}` leads out of the app: `{named}`"))
            .hint("name a directory relative to the app, such as `public`")
    })?;
    if has_index(&root) {
        Ok(root)
    } else {
        Err(Error::app(format!("there is no `index.html` in `{named}`, which `{ROOT_VARIABLE}` names"))
            .hint("build the website first, or name the directory that has its `index.html`"))
    }
}

/// What shows that the app is one of Node.js which has pages, rather than a
/// website: packages that are installed, or a server that is started. The user
/// who names a root has decided.
pub fn server_of_its_own(context: &DetectContext) -> Option<String> {
    if context.user_env.get(ROOT_VARIABLE).is_some_and(|value| !value.is_empty()) {
        return None;
    }
    if let Some(lock) = LOCKS.into_iter().find(|lock| context.app.join(lock).is_file()) {
        return Some(format!("`{lock}`"));
    }
    // What is no valid package says nothing.
    let package = fs::read(context.app.join("package.json")).ok()?;
    let package: serde_json::Value = serde_json::from_slice(&package).ok()?;
    package["scripts"]["start"].as_str().map(|_| "`package.json` has a start script".to_owned())
}

fn has_index(directory: &Path) -> bool {
    directory.join("index.html").is_file()
}

#[cfg(test)]
mod tests {
    use wapack_sdk::testing::Project;

    use super::*;

    fn root(files: &[&str], named: &str) -> Result<Option<String>, String> {
        let project = Project::new().unwrap().user_env(ROOT_VARIABLE, named);
        for file in files {
            project.app_file(file, "").unwrap();
        }
        let app = project.path().join("app");
        find_root(&project.detect_context())
            .map(|root| root.map(|root| root.strip_prefix(&app).unwrap().display().to_string()))
            .map_err(|error| error.message)
    }

    #[test]
    fn the_first_index_html_counts() {
        let all = ["index.html", "public/index.html", "dist/index.html"];
        assert_eq!(root(&all, ""), Ok(Some(String::new())));
        assert_eq!(root(&all[1..], ""), Ok(Some("public".into())));
        assert_eq!(root(&all[2..], ""), Ok(Some("dist".into())));
        assert_eq!(root(&["package.json", "server.js", "index.html/x"], ""), Ok(None));
    }

    #[test]
    fn the_user_may_name_the_root() {
        let files = ["index.html", "out/site/index.html"];
        assert_eq!(root(&files, "out/site"), Ok(Some("out/site".into())));
        assert_eq!(root(&files, "./out/./site/"), Ok(Some("out/site".into())));
        assert_eq!(root(&files, "."), Ok(Some(String::new())));
        assert!(root(&files, "out").unwrap_err().contains("no `index.html` in `out`"));
    }

    #[test]
    fn the_root_is_in_the_app() {
        for named in ["..", "../app", "out/../..", "/workspace", "/"] {
            assert!(root(&["index.html"], named).unwrap_err().contains("leads out of the app"), "{named}");
        }
    }
}
