//! Where the archive of a package comes from: a source and a path, or a file
//! of the app. Never a host to connect to; the operator decides those.

use crate::lock::Text;
use crate::tree::{Id, Tree, normal};

/// Where an archive is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// In a registry.
    Registry {
        /// The source, `npm` or, for a scope, `npm:@scope`.
        source: String,
        /// The path under it.
        path: String,
    },
    /// At an address that the package was asked for by.
    Address {
        /// The source, `npm:<host>`.
        source: String,
        /// The path under it.
        path: String,
        /// The host alone.
        host: String,
    },
    /// A file of the app.
    File {
        /// Relative to the lock.
        path: String,
    },
}

/// Why a package has no origin that we can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is a commit of a repository.
    Git(String),
    /// A file outside of the app.
    Outside(String),
    /// A directory that is not linked but copied.
    Directory(String),
    /// Neither address nor version.
    Nothing,
    /// Something that we do not know.
    Unknown(String),
}

impl Origin {
    /// Where the archive of a package is.
    ///
    /// # Errors
    /// When it is nowhere that a build can get it from.
    pub fn of(tree: &Tree<'_>, id: Id) -> Result<Self, Refused> {
        let node = &tree.nodes[id];
        let name = node.package_name();
        let by_address = tree.edges_to(id).any(|(_, edge)| is_web(edge.version.as_str()));
        match node.entry.resolved.as_ref().map(Text::as_str) {
            None | Some("") => match node.version() {
                "" => Err(Refused::Nothing),
                version => Ok(in_registry(name, computed(name, version))),
            },
            Some(resolved) => Self::from_address(name, resolved, by_address),
        }
    }

    fn from_address(name: &str, resolved: &str, by_address: bool) -> Result<Self, Refused> {
        if let Some(path) = resolved.strip_prefix("file:") {
            let path = normal(path).ok_or_else(|| Refused::Outside(path.to_owned()))?;
            let lower = path.to_ascii_lowercase();
            return if [".tgz", ".tar.gz", ".tar"].iter().any(|extension| lower.ends_with(extension)) {
                Ok(Self::File { path })
            } else {
                Err(Refused::Directory(path))
            };
        }
        if resolved.starts_with("git") {
            return Err(Refused::Git(resolved.to_owned()));
        }
        if !is_web(resolved) {
            return Err(Refused::Unknown(resolved.to_owned()));
        }
        let address = resolved.split('#').next().unwrap_or_default();
        let (_, rest) = address.split_once("://").unwrap_or_default();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some(path) = registry_path(name, path) {
            return Ok(in_registry(name, path));
        }
        if by_address {
            // What stands before an `@` is nobody's business.
            let host = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
            return Ok(Self::Address { source: format!("npm:{host}"), path: path.to_owned(), host });
        }
        Ok(in_registry(name, path.to_owned()))
    }

    /// The source it needs, if it is not in the app.
    pub fn source(&self) -> Option<&str> {
        match self {
            Self::Registry { source, .. } | Self::Address { source, .. } => Some(source),
            Self::File { .. } => None,
        }
    }
}

/// A path of the registry that has the scope of `name`.
fn in_registry(name: &str, path: String) -> Origin {
    let source = match name.split_once('/') {
        Some((scope, _)) if scope.starts_with('@') => format!("npm:{scope}"),
        _ => "npm".to_owned(),
    };
    Origin::Registry { source, path }
}

/// Where a registry has an archive unless it says otherwise.
fn computed(name: &str, version: &str) -> String {
    let base = name.rsplit('/').next().unwrap_or(name);
    // Registries leave out what follows a `+`.
    let version = version.split('+').next().unwrap_or(version);
    format!("{name}/-/{base}-{version}.tgz")
}

/// The part of an address from the package's name on, if it has the usual
/// shape `<name>/-/<file>`. What is before depends on the registry, and so does
/// the spelling of the slash in the name.
fn registry_path(name: &str, path: &str) -> Option<String> {
    let path = path.split('?').next().unwrap_or(path);
    let (before, file) = path.rsplit_once("/-/")?;
    let before = before.replace("%2f", "/").replace("%2F", "/").replace("%40", "@");
    let is_whole = before.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
    is_whole.then(|| format!("{name}/-/{file}"))
}

fn is_web(address: &str) -> bool {
    address.starts_with("https://") || address.starts_with("http://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "to be compared with results")]
    fn registry(source: &str, path: &str) -> Result<Origin, Refused> {
        Ok(Origin::Registry { source: source.into(), path: path.into() })
    }

    fn origin(name: &str, resolved: &str) -> Result<Origin, Refused> {
        Origin::from_address(name, resolved, false)
    }

    #[test]
    fn a_registry_or_its_mirror_is_the_source_npm() {
        let left_pad = registry("npm", "left-pad/-/left-pad-1.3.0.tgz");
        assert_eq!(origin("left-pad", "https://registry.test/left-pad/-/left-pad-1.3.0.tgz"), left_pad);
        assert_eq!(
            origin("left-pad", "http://m.test:81/a/npm/left-pad/-/left-pad-1.3.0.tgz?x=y#z"),
            left_pad
        );
        let scoped = registry("npm:@acme", "@acme/x/-/x-1.0.0.tgz");
        assert_eq!(origin("@acme/x", "https://r.test/@acme/x/-/x-1.0.0.tgz"), scoped);
        assert_eq!(origin("@acme/x", "https://r.test/up/@acme%2fx/-/x-1.0.0.tgz"), scoped);
    }

    #[test]
    fn other_shapes_keep_their_path() {
        assert_eq!(
            origin("@acme/x", "https://r.test/download/@acme/x/1.0.0/abc"),
            registry("npm:@acme", "download/@acme/x/1.0.0/abc")
        );
        // Of another package's name nothing is taken for granted.
        assert_eq!(origin("pad", "https://r.test/left-pad/-/p.tgz"), registry("npm", "left-pad/-/p.tgz"));
    }

    #[test]
    fn an_address_is_a_source_of_its_own() {
        assert_eq!(
            Origin::from_address("x", "https://user:secret@Files.test:8443/x.tgz?token=1", true),
            Ok(Origin::Address {
                source: "npm:files.test:8443".into(),
                path: "x.tgz?token=1".into(),
                host: "files.test:8443".into()
            })
        );
        assert_eq!(
            Origin::from_address("x", "https://r.test/x/-/x-1.0.0.tgz", true),
            registry("npm", "x/-/x-1.0.0.tgz")
        );
    }

    #[test]
    fn files_are_the_apps_and_git_is_refused() {
        assert_eq!(origin("x", "file:vendor/./x.tgz"), Ok(Origin::File { path: "vendor/x.tgz".into() }));
        assert_eq!(origin("x", "file:../x.tgz"), Err(Refused::Outside("../x.tgz".into())));
        assert_eq!(origin("x", "file:/x.tgz"), Err(Refused::Outside("/x.tgz".into())));
        assert_eq!(origin("x", "file:packages/x"), Err(Refused::Directory("packages/x".into())));
        let git = "git+ssh://git@host.test/x/y.git#0123";
        assert_eq!(origin("x", git), Err(Refused::Git(git.into())));
        assert_eq!(origin("x", "ftp://x"), Err(Refused::Unknown("ftp://x".into())));
    }

    #[test]
    fn without_an_address_the_path_follows_from_name_and_version() {
        assert_eq!(computed("left-pad", "1.3.0"), "left-pad/-/left-pad-1.3.0.tgz");
        assert_eq!(computed("@acme/x", "1.0.0-rc.1+build"), "@acme/x/-/x-1.0.0-rc.1.tgz");
    }
}
