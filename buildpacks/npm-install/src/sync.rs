//! Whether a lock still fits the `package.json` beside it. npm would look for
//! other packages where it does not; a build installs what is locked or nothing.

use nodejs_semver::{Range, Version};
use wapack_sdk::Error;

use crate::manifest::Manifest;
use crate::tree::{Edge, Kind, Node, ROOT, Tree};

/// How many disagreements are listed.
const SHOWN: usize = 5;

/// Compares what the packages of the app ask for with what is locked.
///
/// # Errors
/// When something is missing or of another version.
pub fn check(tree: &Tree<'_>, root: &Manifest, lock_file: &str) -> Result<(), Error> {
    let mut problems = Vec::new();
    for (id, node) in tree.nodes.iter().enumerate() {
        if id == ROOT || node.parent.is_none() && tree.is_workspace(id) {
            problems
                .extend(node.edges.iter().filter_map(|edge| problem(tree, node, edge, root.has_overrides)));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let more = problems.len().saturating_sub(SHOWN);
    problems.truncate(SHOWN);
    let mut list = problems.join("; ");
    if more > 0 {
        list = format!("{list}; and {more} more");
    }
    Err(Error::app(format!("`package.json` and `{lock_file}` do not fit together: {list}"))
        .hint("run `npm install`, and commit the lock with `package.json`"))
}

fn problem(tree: &Tree<'_>, from: &Node<'_>, edge: &Edge<'_>, has_overrides: bool) -> Option<String> {
    let (name, wanted) = (edge.name.as_str(), edge.version.as_str());
    let Some(to) = edge.to else {
        let needed = matches!(edge.kind, Kind::Production | Kind::Development | Kind::Peer);
        return needed.then(|| format!("`{name}@{wanted}` is not locked{}", of(from)));
    };
    // What overrides mean for a version is npm's own affair.
    if has_overrides || edge.kind.is_loose() {
        return None;
    }
    let found = &tree.nodes[to];
    if let Some(alias) = wanted.strip_prefix("npm:") {
        let at = alias.rfind('@').filter(|at| *at > 0);
        let (real, range) = at.map_or((alias, "*"), |at| (&alias[..at], &alias[at + 1..]));
        return (found.package_name() != real || !satisfies(found.version(), range))
            .then(|| format!("`{name}` is locked as `{}`, not as `{wanted}`{}", found.title(), of(from)));
    }
    (!satisfies(found.version(), wanted))
        .then(|| format!("`{name}` is locked as `{}`, not as `{wanted}`{}", found.version(), of(from)))
}

/// For messages: which package of the app asks.
fn of(from: &Node<'_>) -> String {
    match from.place.as_str() {
        "" => String::new(),
        place => format!(" (`{place}`)"),
    }
}

/// Whether a version is in a range. What is no range, such as a tag or an
/// address, cannot be judged and is taken as locked.
fn satisfies(version: &str, range: &str) -> bool {
    let range = if range.trim().is_empty() { "*" } else { range };
    match (Version::parse(version), Range::parse(range)) {
        (Ok(version), Ok(range)) => version.satisfies(&range),
        _ => true,
    }
}

impl Kind {
    /// Whether another version is none of npm's concern.
    fn is_loose(self) -> bool {
        matches!(self, Self::PeerOptional | Self::Workspace | Self::Optional | Self::Peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_judged_and_other_words_are_not() {
        assert!(satisfies("1.2.3", "^1.0.0 || ~3"));
        assert!(!satisfies("2.0.0", "^1.0.0"));
        assert!(satisfies("2.0.0", ""));
        assert!(satisfies("2.0.0", ">=1 <3"));
        assert!(satisfies("2.0.0", "latest"));
        assert!(satisfies("2.0.0", "https://host.test/x.tgz"));
    }
}
