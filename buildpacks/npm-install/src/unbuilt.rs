//! Whether an app should have been built before: its build step cannot run
//! here, because a build has neither Node nor a shell.

use std::path::Path;

use crate::manifest::Manifest;
use crate::script;
use crate::start::is_module;

/// Where build steps put what they make.
const OUTPUTS: [&str; 11] = [
    ".next",
    ".nuxt",
    ".output",
    ".svelte-kit",
    "build",
    "dist",
    "lib",
    "out",
    "output",
    "public/build",
    "public/dist",
];

/// Options of Node that are followed by a value of their own.
const OPTIONS_WITH_VALUE: [&str; 9] = [
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
    "--input-type",
];

/// What is missing in `directory` for `line` to start, in a sentence; `None`
/// when nothing is known to be.
pub fn missing(package: &Manifest, directory: &Path, line: &str) -> Option<String> {
    let has_build = package.scripts.get("build").is_some_and(|script| !script.trim().is_empty());
    if let Some(file) = entry(line)
        && crate::tree::normal(&file).is_some()
        && !is_module(directory, &file)
    {
        return Some(format!("`{file}`, which the app starts with, is not there"));
    }
    (has_build && !OUTPUTS.iter().any(|output| directory.join(output).exists())).then(|| {
        "`scripts.build` makes something, and nothing that looks made is there (`dist`, `build`, `.next` or the like)"
            .to_owned()
    })
}

/// The file that a line has Node start, where it says so.
fn entry(line: &str) -> Option<String> {
    let last = line.rsplit(['&', ';', '|']).next()?.trim();
    let words = script::direct(last)?.words;
    let node = words.iter().position(|word| word == "node")?;
    let mut rest = words[node + 1..].iter();
    while let Some(word) = rest.next() {
        if OPTIONS_WITH_VALUE.contains(&word.as_str()) {
            rest.next();
        } else if matches!(word.as_str(), "-e" | "--eval" | "-p" | "--print" | "--run" | "--test") {
            return None;
        } else if !word.starts_with('-') {
            return Some(word.clone());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing_in(files: &[&str], script: &str, start: &str) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let file = directory.path().join(file);
            wapack_sdk::fs::create_dir_all(file.parent().unwrap()).unwrap();
            wapack_sdk::fs::write(file, "").unwrap();
        }
        let package = Manifest::parse(&format!(r#"{{"scripts":{{{script}}}}}"#)).unwrap();
        missing(&package, directory.path(), start)
    }

    #[test]
    fn a_file_that_is_started_has_to_be_there() {
        let build = r#""build":"tsc""#;
        assert!(missing_in(&["src/x.ts"], build, "node dist/x.js").unwrap().contains("`dist/x.js`"));
        assert!(missing_in(&[], "", "node -r dotenv/config x.js").unwrap().contains("`x.js`"));
        assert_eq!(missing_in(&["dist/x.js"], build, "A=1 node -r dotenv/config dist/x"), None);
        assert_eq!(missing_in(&["x.js"], "", "migrate && node ./x.js"), None);
        assert_eq!(missing_in(&["x.js"], "", "node -e 1"), None);
    }

    #[test]
    fn a_tool_that_starts_what_was_built_needs_it() {
        let build = r#""build":"next build""#;
        assert!(missing_in(&["pages/index.js"], build, "next start").unwrap().contains("scripts.build"));
        assert_eq!(missing_in(&[".next/BUILD_ID"], build, "next start"), None);
        assert_eq!(missing_in(&["pages/index.js"], "", "next start"), None);
        // A server of its own that serves what was built.
        assert!(missing_in(&["server.js"], build, "node server.js").is_some());
    }
}
