//! Packages that run a script when they are installed, which a build does not do:
//! it has no Node, and the image may be for another processor.

use crate::platform::Platform;
use crate::select::Selection;
use crate::tree::{Id, Kind, Node, Tree};

/// Those that are installed and may need what their script does, each once. One
/// whose files for the platform are an optional package that is installed does not.
pub fn missed<'t>(tree: &'t Tree<'_>, selection: &Selection) -> Vec<&'t Node<'t>> {
    let is_for_platform = |id: Id| selection.stays(id) && tree.nodes[id].entry.cpu.is_some();
    let brings_files = |node: &Node<'_>| {
        node.edges.iter().any(|edge| edge.kind == Kind::Optional && edge.to.is_some_and(is_for_platform))
    };
    let mut missed: Vec<&Node<'_>> = (0..tree.nodes.len())
        .filter(|id| selection.is_installed(tree, *id))
        .map(|id| &tree.nodes[id])
        .filter(|node| !node.is_link() && node.entry.has_install_script && !brings_files(node))
        .collect();
    missed.sort_by_key(|node| node.title());
    missed.dedup_by_key(|node| node.title());
    missed
}

/// What there is to say about them.
pub fn warning(missed: &[&Node<'_>], platform: &Platform) -> Vec<String> {
    if missed.is_empty() {
        return Vec::new();
    }
    let head = "warning: these packages run a script when they are installed, which a build does not do:";
    let line = |node: &&Node<'_>| {
        format!(
            "  `{}`: what it compiles or downloads then for `{platform}` is missing; if it needs that, use a version that brings it along",
            node.title()
        )
    };
    std::iter::once(head.to_owned()).chain(missed.iter().map(line)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wapack_sdk::Target;

    use super::*;
    use crate::lock::Lock;
    use crate::manifest::Manifest;
    use crate::tree::Options;

    /// As the locks of `sharp` and `esbuild` have it, and that of `better-sqlite3`.
    #[test]
    fn packages_with_files_for_the_platform_need_no_script() {
        let lock = r#"{"lockfileVersion":3,"packages":{
            "node_modules/compiled":{"version":"1.0.0","hasInstallScript":true},
            "node_modules/deep/node_modules/compiled":{"version":"1.0.0","hasInstallScript":true},
            "node_modules/deep":{"version":"1.0.0","dependencies":{"compiled":"1"}},
            "node_modules/plain":{"version":"1.0.0"},
            "node_modules/prebuilt":{"version":"1.0.0","hasInstallScript":true,
                "optionalDependencies":{"prebuilt-x64":"1"}},
            "node_modules/prebuilt-x64":{"version":"1.0.0","optional":true,"os":["linux"],"cpu":["x64"]}}}"#;
        let root =
            Manifest::parse(r#"{"dependencies":{"compiled":"1","deep":"1","plain":"1","prebuilt":"1"}}"#);
        let root = root.unwrap();
        let tree = Tree::new(Lock::parse(lock).unwrap(), &root, BTreeMap::new(), Options::default()).unwrap();
        let said = |arch: &str| {
            let target = Target { os: "linux".into(), arch: arch.into(), variant: None, distro: None };
            let platform = Platform::of(&target, None);
            let selection = Selection::new(&tree, &platform, false).unwrap();
            warning(&missed(&tree, &selection), &platform)
        };
        let amd64 = said("amd64");
        assert_eq!(amd64.len(), 2, "{amd64:?}");
        assert!(
            amd64[1]
                .starts_with("  `compiled@1.0.0`: what it compiles or downloads then for `linux/x64/glibc`")
        );
        let arm64 = said("arm64");
        assert_eq!(arm64.len(), 3, "{arm64:?}");
        assert!(arm64[2].starts_with("  `prebuilt@1.0.0`: ") && arm64[2].contains("`linux/arm64/glibc`"));
    }
}
