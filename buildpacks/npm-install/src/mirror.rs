//! Where each outermost `node_modules` stands in the layer, and what its links
//! to the app say there. Knows places only, and writes nothing.
//!
//! npm's links are relative: `node_modules/a` says `../packages/a`. The system
//! follows that from where a `node_modules` really is, which is not the app. So
//! each has a directory of the layer that mirrors the one with the lock, and in
//! it a door, a link to the app, wherever its links lead:
//!
//! ```text
//! node_modules/a                        -> ../packages/a
//! packages/a                            -> /workspace/packages/a
//! nested/0/packages/a/node_modules/b    -> ../../../lib/b
//! nested/0/lib/b                        -> /workspace/lib/b
//! ```
//!
//! The `node_modules` of `packages/a` cannot be in the first mirror, where
//! `packages/a` is a door. It is below it nevertheless: Node looks for packages
//! in every directory around, and so finds those of the root.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::bins::join;

/// The `node_modules` next to the lock.
pub const ROOT_MODULES: &str = "node_modules";

/// A link to a directory of the app. Places are relative to the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where it is.
    pub place: String,
    /// Where it leads.
    pub target: String,
}

impl Link {
    /// What it says in its mirror. `root` is where the lock is.
    pub fn text(&self, root: &Path) -> String {
        self.relative().unwrap_or_else(|| absolute(root, &self.target))
    }

    /// What npm writes into it. `None` when that cannot lead to the app from a
    /// mirror: the target is around the link's `node_modules`, or in it, where
    /// the mirror has no room for a door.
    fn relative(&self) -> Option<String> {
        let modules = outermost(&self.place);
        if is_in(modules, &self.target) || is_in(&self.target, modules) {
            return None;
        }
        let from: Vec<&str> = self.place.split('/').collect();
        let to: Vec<&str> = self.target.split('/').collect();
        let shared = from.iter().zip(&to).take_while(|(from, to)| from == to).count();
        let up = from.len() - 1 - shared;
        Some([&vec![".."; up], &to[shared..]].concat().join("/"))
    }
}

/// The mirrors of a layer: their places in it, by the `node_modules` they have.
#[derive(Debug)]
pub struct Mirrors(BTreeMap<String, String>);

impl Mirrors {
    /// The mirrors for the outermost `node_modules` in `directories`.
    pub fn new(directories: &BTreeSet<String>, links: &[Link]) -> Self {
        let mut around = "nested".to_owned();
        // The root's mirror may need the name for a door.
        while links.iter().any(|link| link.target.split('/').next() == Some(&around)) {
            around.push('_');
        }
        let nested = directories
            .iter()
            .filter(|modules| *modules != ROOT_MODULES)
            .enumerate()
            .map(|(index, modules)| (modules.clone(), format!("{around}/{index}")));
        Self(std::iter::once((ROOT_MODULES.to_owned(), String::new())).chain(nested).collect())
    }

    /// Where in the layer a place is that is in a `node_modules`, or is one.
    pub fn place(&self, place: &str) -> String {
        join(self.0.get(outermost(place)).map_or("", String::as_str), place)
    }

    /// The doors, by their places in the layer, and what they say.
    pub fn doors(&self, links: &[Link], root: &Path) -> BTreeMap<String, String> {
        let mut doors = BTreeMap::new();
        for (modules, mirror) in &self.0 {
            let targets: BTreeSet<&str> = links
                .iter()
                .filter(|link| outermost(&link.place) == modules && link.relative().is_some())
                .map(|link| link.target.as_str())
                .chain(self.between(modules))
                .collect();
            for target in &targets {
                let is_behind = targets.iter().any(|door| door != target && is_in(target, door));
                if !is_behind {
                    doors.insert(join(mirror, target), absolute(root, target));
                }
            }
        }
        doors
    }

    /// The `node_modules` between this one and the root's, where Node looks too:
    /// of a package that another package of the app is in.
    fn between(&self, modules: &str) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(move |other| {
            let around = other.strip_suffix("/node_modules");
            *other != modules && around.is_some_and(|around| is_in(modules, around))
        })
    }
}

/// The outermost `node_modules` that a place is in.
pub fn outermost(place: &str) -> &str {
    let end = if place.starts_with("node_modules/") {
        Some(0)
    } else {
        place.find("/node_modules/").map(|slash| slash + 1)
    };
    end.map_or(place, |start| &place[..start + ROOT_MODULES.len()])
}

/// Whether a place is a directory or in it.
fn is_in(place: &str, directory: &str) -> bool {
    directory.is_empty()
        || place.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A place of the app as it will be in the image.
fn absolute(root: &Path, place: &str) -> String {
    root.join(place).components().collect::<PathBuf>().display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(links: &[(&str, &str)]) -> Vec<Link> {
        links
            .iter()
            .map(|(place, target)| Link { place: (*place).into(), target: (*target).into() })
            .collect()
    }

    fn mirrors(directories: &[&str], links: &[Link]) -> Mirrors {
        Mirrors::new(&directories.iter().map(|&directory| directory.to_owned()).collect(), links)
    }

    fn doors(mirrors: &Mirrors, links: &[Link]) -> Vec<String> {
        let doors = mirrors.doors(links, Path::new("/app"));
        doors.iter().map(|(place, text)| format!("{place} -> {text}")).collect()
    }

    /// The texts are those that npm 11 writes for these packages.
    #[test]
    fn links_say_what_npm_writes() {
        for (place, target, text) in [
            ("node_modules/a", "packages/a", "../packages/a"),
            ("node_modules/@s/a", "a", "../../a"),
            ("packages/c/node_modules/b", "lib", "../../../lib"),
            ("packages/c/node_modules/in", "packages/c/inner", "../inner"),
            // In a mirror these would lead into the layer.
            ("node_modules/self", "", "/app"),
            ("packages/c/node_modules/c", "packages/c", "/app/packages/c"),
            ("packages/c/node_modules/up", "packages", "/app/packages"),
            ("node_modules/a", "node_modules/b/c", "/app/node_modules/b/c"),
        ] {
            let link = &links(&[(place, target)])[0];
            assert_eq!(link.text(Path::new("/app/")), text, "{place}");
        }
    }

    #[test]
    fn a_door_is_neither_behind_another_one_nor_where_the_mirror_has_a_directory() {
        let links = links(&[
            ("node_modules/a", "packages/a"),
            ("node_modules/ab", "packages/a-b"),
            ("node_modules/in", "packages/a/inner"),
            ("node_modules/self", ""),
            ("packages/a/node_modules/in", "packages/a/inner"),
            ("packages/a/node_modules/up", "packages"),
        ]);
        let mirrors = mirrors(&["node_modules", "packages/a/node_modules"], &links);
        assert_eq!(
            doors(&mirrors, &links),
            [
                "nested/0/packages/a/inner -> /app/packages/a/inner",
                "packages/a -> /app/packages/a",
                "packages/a-b -> /app/packages/a-b",
            ]
        );
        assert_eq!(mirrors.place("node_modules/a"), "node_modules/a");
        assert_eq!(mirrors.place("packages/a/node_modules"), "nested/0/packages/a/node_modules");
        assert_eq!(
            mirrors.place("packages/a/node_modules/x/node_modules/y"),
            "nested/0/packages/a/node_modules/x/node_modules/y"
        );
    }

    #[test]
    fn packages_find_those_of_the_package_around_theirs() {
        let mirrors = mirrors(&["a/b/c/node_modules", "a/b/node_modules", "ab/node_modules"], &[]);
        assert_eq!(doors(&mirrors, &[]), ["nested/0/a/b/node_modules -> /app/a/b/node_modules"]);
    }

    #[test]
    fn a_directory_of_the_app_may_have_the_name_of_ours() {
        let links = links(&[("node_modules/a", "nested/0"), ("node_modules/b", "nested_")]);
        let mirrors = mirrors(&["nested/0/node_modules"], &links);
        assert_eq!(mirrors.place("nested/0/node_modules/x"), "nested__/0/nested/0/node_modules/x");
        assert_eq!(doors(&mirrors, &links), ["nested/0 -> /app/nested/0", "nested_ -> /app/nested_"]);
    }
}
