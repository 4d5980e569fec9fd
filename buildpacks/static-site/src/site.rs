//! Where the website is. Knows nothing of images or servers.

use std::path::{Component, Path, PathBuf};

use wapack_sdk::{DetectContext, Error};

/// The variable that names the root of the website.
pub const ROOT_VARIABLE: &str = "BP_STATIC_ROOT";

/// Where a website may be in an app, best first; the empty path is the app.
const USUAL_ROOTS: [&str; 3] = ["", "public", "dist"];

/// The root of the website relative to the app, if there is a website.
///
/// # Errors
/// When the user names a root that is none.
pub fn find_root(context: &DetectContext) -> Result<Option<PathBuf>, Error> {
    match context.user_env.get(ROOT_VARIABLE).filter(|value| !value.is_empty()) {
        Some(named) => named_root(&context.app, named).map(Some),
        None => {
            Ok(USUAL_ROOTS.into_iter().map(PathBuf::from).find(|root| has_index(&context.app.join(root))))
        }
    }
}

fn named_root(app: &Path, named: &str) -> Result<PathBuf, Error> {
    let mut root = PathBuf::new();
    for component in Path::new(named).components() {
        match component {
            Component::Normal(name) => root.push(name),
            Component::CurDir => {}
            _ => {
                return Err(Error::app(format!("`{ROOT_VARIABLE}` leads out of the app: `{named}`"))
                    .hint("name a directory relative to the app, such as `public`"));
            }
        }
    }
    if has_index(&app.join(&root)) {
        Ok(root)
    } else {
        Err(Error::app(format!("there is no `index.html` in `{named}`, which `{ROOT_VARIABLE}` names"))
            .hint("build the website first, or name the directory that has its `index.html`"))
    }
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
        find_root(&project.detect_context())
            .map(|root| root.map(|root| root.display().to_string()))
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
