//! Which packages of a tree are installed: not those for development, unless
//! asked for, and of the optional ones those that the image can use.

use std::collections::BTreeSet;

use crate::platform::Platform;
use crate::tree::{Id, ROOT, Tree};

/// What becomes of the packages of a tree.
#[derive(Debug)]
pub struct Selection {
    /// Whether a package stays in the tree, wherever its files come from.
    stays: Vec<bool>,
    /// Packages that are for another Node, which is no reason to refuse them.
    pub other_node: Vec<Id>,
}

/// Packages that the app cannot do without and the image cannot use.
#[derive(Debug, PartialEq, Eq)]
pub struct Unfit(pub Vec<Id>);

impl Selection {
    /// Decides about all packages of `tree`.
    ///
    /// # Errors
    /// When a package does not fit `platform` and is not optional.
    pub fn new(tree: &Tree<'_>, platform: &Platform, with_dev: bool) -> Result<Self, Unfit> {
        let count = tree.nodes.len();
        // What nobody needs is not there at all.
        let gone: Vec<bool> =
            tree.nodes.iter().map(|node| node.flags.extraneous && node.parent.is_some()).collect();
        let omitted = |id: Id| {
            let top = tree.top(id);
            !with_dev && tree.nodes[id].flags.dev && (top == ROOT || tree.is_workspace(top))
        };
        let mut left_out = vec![false; count];
        let (mut unfit, mut other_node) = (Vec::new(), Vec::new());
        for id in (0..count).filter(|id| !gone[*id]) {
            let node = &tree.nodes[id];
            let has_node = platform.has_node_for(&node.entry);
            if platform.fits(&node.entry) && has_node {
                continue;
            }
            if node.flags.optional {
                if !left_out[id] {
                    for id in optional_set(tree, id, &gone, &left_out) {
                        left_out[id] = true;
                    }
                }
            } else if !omitted(id) {
                let list = if platform.fits(&node.entry) { &mut other_node } else { &mut unfit };
                list.push(id);
            }
        }
        if !unfit.is_empty() {
            return Err(Unfit(unfit));
        }
        // Directories of the app do not go away.
        let leaves: Vec<bool> = (0..count)
            .map(|id| tree.nodes[id].parent.is_some() && (gone[id] || left_out[id] || omitted(id)))
            .collect();
        let stays = (0..count)
            .map(|id| !std::iter::successors(Some(id), |id| tree.around(*id)).any(|id| leaves[id]))
            .collect();
        Ok(Self { stays, other_node })
    }

    /// Whether a package is part of the result, be it a directory of the app.
    pub fn stays(&self, id: Id) -> bool {
        self.stays[id]
    }

    /// Whether a package is put into a `node_modules`.
    pub fn is_installed(&self, tree: &Tree<'_>, id: Id) -> bool {
        self.stays[id] && tree.nodes[id].parent.is_some()
    }
}

/// An optional package with everything that is pointless without it: what needs
/// it, up to where that is optional, and what only these need.
fn optional_set(tree: &Tree<'_>, id: Id, gone: &[bool], left_out: &[bool]) -> BTreeSet<Id> {
    let mut core = vec![id];
    let mut index = 0;
    while let Some(&id) = core.get(index) {
        index += 1;
        for (from, edge) in tree.edges_to(id) {
            let optional = matches!(edge.kind, crate::tree::Kind::Optional | crate::tree::Kind::PeerOptional);
            if !optional && !gone[from] && !core.contains(&from) {
                core.push(from);
            }
        }
    }

    let counts = |from: Id, to: Id| !core.contains(&to) && !left_out[from] && !gone[from];
    let mut set: BTreeSet<Id> = core.iter().copied().collect();
    let mut pending = core.clone();
    while let Some(from) = pending.pop() {
        for to in tree.nodes[from].edges.iter().filter_map(|edge| edge.to) {
            if counts(from, to) && set.insert(to) {
                pending.push(to);
            }
        }
    }
    loop {
        let needed: Vec<Id> = set
            .iter()
            .copied()
            .filter(|&id| tree.edges_to(id).any(|(from, _)| !set.contains(&from) && counts(from, id)))
            .collect();
        if needed.is_empty() {
            return set;
        }
        for id in needed {
            set.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wapack_sdk::{Distro, Target};

    use super::*;
    use crate::lock::Lock;
    use crate::manifest::Manifest;
    use crate::tree::Options;

    /// The places that stay for Node `node`, and those that are for another one.
    fn stay(package: &str, packages: &str, node: Option<&str>) -> (Vec<String>, Vec<String>) {
        let lock = format!(r#"{{"lockfileVersion":3,"packages":{{{packages}}}}}"#);
        let root = Manifest::parse(package).unwrap();
        let tree =
            Tree::new(Lock::parse(&lock).unwrap(), &root, BTreeMap::new(), Options::default()).unwrap();
        let target = Target { os: "linux".into(), arch: "amd64".into(), variant: None, distro: None };
        let selection = Selection::new(&tree, &Platform::of(&target, node), false).unwrap();
        let place = |id: Id| tree.nodes[id].place.as_str().replace("node_modules/", "");
        let stay = (1..tree.nodes.len()).filter(|id| selection.stays(*id)).map(place).collect();
        (stay, selection.other_node.iter().map(|id| place(*id)).collect())
    }

    /// a -(optional)-> b -> c, d; b's c is for another system; d is needed by e too.
    #[test]
    fn what_is_pointless_without_an_optional_package_goes_with_it() {
        let packages = r#""node_modules/a":{"optionalDependencies":{"b":"1"}},
            "node_modules/b":{"dependencies":{"c":"1","d":"1","f":"1"}},"node_modules/c":{"os":["darwin"]},
            "node_modules/d":{},"node_modules/e":{"dependencies":{"d":"1"}},"node_modules/f":{},
            "node_modules/unneeded":{}"#;
        let (stays, _) = stay(r#"{"dependencies":{"a":"1","e":"1"}}"#, packages, None);
        assert_eq!(stays, ["a", "d", "e"]);
    }

    /// `os`, `cpu` and `libc` as packages of the registry have them, for the image and not for this machine.
    #[test]
    fn an_image_gets_what_is_for_its_processor_and_its_c_library() {
        let package = |name: &str, cpu: &str, libc: &str| {
            format!(r#""node_modules/{name}":{{"optional":true,"os":["linux"],"cpu":["{cpu}"]{libc}}}"#)
        };
        let packages = [
            r#""node_modules/a":{"optionalDependencies":{"x64":"1","x64-musl":"1","arm64":"1","arm64-musl":"1","any":"1"}}"#.to_owned(),
            package("x64", "x64", r#","libc":["glibc"]"#),
            package("x64-musl", "x64", r#","libc":["musl"]"#),
            package("arm64", "arm64", r#","libc":["glibc"]"#),
            package("arm64-musl", "arm64", r#","libc":["musl"]"#),
            package("any", "!ia32", ""),
        ];
        let lock = format!(r#"{{"lockfileVersion":3,"packages":{{{}}}}}"#, packages.join(","));
        let root = Manifest::parse(r#"{"dependencies":{"a":"1"}}"#).unwrap();
        for (arch, distro, own) in [
            ("amd64", "debian", "x64"),
            ("arm64", "debian", "arm64"),
            ("amd64", "alpine", "x64-musl"),
            ("arm64", "alpine", "arm64-musl"),
            ("arm64", "", "arm64"),
        ] {
            let distro = (!distro.is_empty()).then(|| Distro { name: distro.into(), version: "1".into() });
            let target = Target { os: "linux".into(), arch: arch.into(), variant: None, distro };
            let tree =
                Tree::new(Lock::parse(&lock).unwrap(), &root, BTreeMap::new(), Options::default()).unwrap();
            let selection = Selection::new(&tree, &Platform::of(&target, None), false).unwrap();
            let place = |id: Id| tree.nodes[id].place.as_str().replace("node_modules/", "");
            let mut stays: Vec<String> =
                (1..tree.nodes.len()).filter(|id| selection.stays(*id)).map(place).collect();
            stays.sort_unstable();
            let mut expected = ["a", "any", own];
            expected.sort_unstable();
            assert_eq!(stays, expected, "{target:?}");
        }
    }

    /// As npm: optional packages go, others are only worth a warning.
    #[test]
    fn packages_for_another_node_stay_unless_they_are_optional() {
        let package = r#"{"dependencies":{"a":"1"},"optionalDependencies":{"b":"1"}}"#;
        let packages =
            r#""node_modules/a":{"engines":{"node":">=22"}},"node_modules/b":{"engines":{"node":">=22"}}"#;
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(stay(package, packages, Some("20.1.0")), (names(&["a"]), names(&["a"])));
        assert_eq!(stay(package, packages, Some("22.0.0")), (names(&["a", "b"]), names(&[])));
        assert_eq!(stay(package, packages, None), (names(&["a", "b"]), names(&[])));
    }
}
