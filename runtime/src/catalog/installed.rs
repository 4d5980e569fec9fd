//! The buildpacks and image extensions that are installed in a builder image.

use std::io;
use std::path::{Path, PathBuf};

use super::{Builder, Buildpack, BuildpackKind, Catalog, CatalogError, DigestOfFile, Extension};
use crate::cnb::id::BuildpackRef;
use crate::cnb::order::{Order, OrderToml};
use crate::toml_text::TomlFileError;

/// Directories of a platform.
///
/// # Shape
/// ```text
/// <buildpacks>/<id, / as _>/<version>/buildpack.toml …
/// <extensions>/<id, / as _>/<version>/extension.toml …
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Installed<'a> {
    pub buildpacks: &'a Path,
    pub extensions: &'a Path,
}

impl Installed<'_> {
    /// Loads what `order` names, and what composites among it name; nothing else
    /// of the directories is looked at.
    ///
    /// A member of a composite that is not there is no error here: the
    /// [`super::Expansion`] says so when it comes to it.
    ///
    /// # Errors
    /// [`CatalogError`].
    ///
    /// # Spec
    /// ORD-10; API-05, API-06: the APIs of all of them are checked before anything runs.
    pub fn builder(
        self,
        order: OrderToml,
        digest_of_file: DigestOfFile<'_>,
    ) -> Result<Builder, CatalogError> {
        let OrderToml { order, extensions } = order;
        let mut catalog = Catalog::default();
        for member in extensions.groups.iter().flat_map(|group| &group.members) {
            if catalog.extension(&member.buildpack).is_err() {
                catalog.add_extension(self.extension(&member.buildpack)?);
            }
        }
        let mut pending: Vec<BuildpackRef> = Vec::new();
        for wanted in references(&order) {
            if catalog.get(&wanted).is_err() {
                let buildpack = self.buildpack(&wanted, digest_of_file)?;
                pending.extend(members(&buildpack));
                catalog.add(buildpack)?;
            }
        }
        while let Some(wanted) = pending.pop() {
            if catalog.get(&wanted).is_ok() {
                continue;
            }
            match self.buildpack(&wanted, digest_of_file) {
                Ok(buildpack) => {
                    pending.extend(members(&buildpack));
                    catalog.add(buildpack)?;
                }
                Err(CatalogError::Missing { .. }) => {}
                Err(error) => {
                    return Err(CatalogError::Member { buildpack: wanted, source: Box::new(error) });
                }
            }
        }
        Ok(Builder { catalog, order, extensions, build_config: None })
    }

    /// Loads one buildpack. It has the name under which it is installed.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn buildpack(
        self,
        wanted: &BuildpackRef,
        digest_of_file: DigestOfFile<'_>,
    ) -> Result<Buildpack, CatalogError> {
        match Buildpack::load_any(&directory_in(self.buildpacks, wanted), digest_of_file) {
            Ok(buildpack) => Ok(Buildpack { reference: wanted.clone(), ..buildpack }),
            Err(error) if is_missing(&error) => {
                Err(CatalogError::Missing { wanted: wanted.clone(), nearest: None })
            }
            Err(error) => Err(error),
        }
    }

    /// Loads one image extension. It has the name under which it is installed.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn extension(self, wanted: &BuildpackRef) -> Result<Extension, CatalogError> {
        match Extension::load(&directory_in(self.extensions, wanted)) {
            Ok(extension) => Ok(Extension { reference: wanted.clone(), ..extension }),
            Err(error) if is_missing(&error) => {
                Err(CatalogError::MissingExtension { wanted: wanted.clone() })
            }
            Err(error) => Err(error),
        }
    }
}

fn directory_in(parent: &Path, module: &BuildpackRef) -> PathBuf {
    parent.join(module.id.directory_name()).join(module.version.as_str())
}

fn is_missing(error: &CatalogError) -> bool {
    matches!(
        error,
        CatalogError::File { source: TomlFileError::Io { source, .. }, .. }
            if source.kind() == io::ErrorKind::NotFound
    )
}

fn references(order: &Order) -> Vec<BuildpackRef> {
    order.groups.iter().flat_map(|group| &group.members).map(|member| member.buildpack.clone()).collect()
}

fn members(buildpack: &Buildpack) -> Vec<BuildpackRef> {
    match &buildpack.kind {
        BuildpackKind::Composite(order) => references(order),
        BuildpackKind::Component { .. } | BuildpackKind::Classic => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Diagnose as _;

    /// `id@version`, then its API, then what it is: executables, or an order.
    fn install(root: &Path, name: &str, api: &str, order: &[&str]) {
        let (id, version) = name.split_once('@').unwrap();
        let directory = root.join("buildpacks").join(id.replace('/', "_")).join(version);
        let members: String = order.iter().map(|name| member("order", name)).collect();
        std::fs::create_dir_all(directory.join("bin")).unwrap();
        std::fs::write(directory.join("bin/build"), "").unwrap();
        let text = format!("api = \"{api}\"\n[buildpack]\nid = \"{id}\"\nversion = \"{version}\"\n{members}");
        std::fs::write(directory.join("buildpack.toml"), text).unwrap();
    }

    fn extension(root: &Path, name: &str, api: &str) {
        let (id, version) = name.split_once('@').unwrap();
        let directory = root.join("extensions").join(id.replace('/', "_")).join(version);
        std::fs::create_dir_all(&directory).unwrap();
        let text = format!("api = \"{api}\"\n[extension]\nid = \"{id}\"\nversion = \"{version}\"\n");
        std::fs::write(directory.join("extension.toml"), text).unwrap();
    }

    fn member(order: &str, name: &str) -> String {
        let (id, version) = name.split_once('@').unwrap();
        format!("[[{order}]]\n[[{order}.group]]\nid = \"{id}\"\nversion = \"{version}\"\n")
    }

    fn load(root: &Path, order: &[&str], extensions: &[&str]) -> Result<Builder, CatalogError> {
        let text: String = order
            .iter()
            .map(|name| member("order", name))
            .chain(extensions.iter().map(|name| member("order-extensions", name)))
            .collect();
        let installed =
            Installed { buildpacks: &root.join("buildpacks"), extensions: &root.join("extensions") };
        installed.builder(OrderToml::parse(&text).unwrap(), &|_| Ok("sha256:test".into()))
    }

    fn groups(builder: &Builder) -> Vec<Result<String, &'static str>> {
        builder
            .groups(None)
            .map(|group| match group {
                Ok(members) => Ok(members
                    .iter()
                    .map(|member| member.module.reference().to_string())
                    .collect::<Vec<_>>()
                    .join(" ")),
                Err(error) => Err(error.id()),
            })
            .collect()
    }

    #[test]
    fn only_what_an_order_names_is_loaded() {
        let temp = tempfile::tempdir().unwrap();
        install(temp.path(), "acme/o@1", "0.10", &["acme/a@1", "acme/b@2"]);
        install(temp.path(), "acme/a@1", "0.10", &[]);
        install(temp.path(), "acme/b@2", "0.8", &[]);
        // Nothing of these is looked at.
        install(temp.path(), "acme/b@1", "99.0", &[]);
        std::fs::create_dir_all(temp.path().join("buildpacks/broken/1")).unwrap();
        let builder = load(temp.path(), &["acme/o@1"], &[]).unwrap();
        assert_eq!(groups(&builder), [Ok("acme/a@1".to_owned()), Ok("acme/b@2".to_owned())]);
        let targets = &builder.catalog.iter().next().unwrap().descriptor.targets;
        assert_eq!(targets[0].os, "linux");
    }

    #[test]
    fn ord_10_a_missing_entry_of_the_order_is_an_error_and_a_missing_member_one_when_its_turn_comes() {
        let temp = tempfile::tempdir().unwrap();
        install(temp.path(), "a@1", "0.10", &[]);
        install(temp.path(), "o@1", "0.10", &["a@1", "gone@1"]);
        assert_eq!(load(temp.path(), &["a@1", "a@2"], &[]).unwrap_err().id(), "buildpack.missing");
        let builder = load(temp.path(), &["o@1"], &[]).unwrap();
        assert_eq!(groups(&builder), [Ok("a@1".to_owned()), Err("buildpack.missing")]);
        let missing = load(temp.path(), &["a@1"], &["gone@1"]).unwrap_err();
        assert_eq!(missing.to_string(), "there is no image extension `gone@1`");
    }

    /// API-05, API-06
    #[test]
    fn api_05_and_06_the_apis_of_all_members_are_checked_at_the_start() {
        let temp = tempfile::tempdir().unwrap();
        install(temp.path(), "old@1", "0.1", &[]);
        install(temp.path(), "fine@1", "0.2", &[]);
        install(temp.path(), "o@1", "0.10", &["fine@1", "deeper@1"]);
        install(temp.path(), "deeper@1", "0.10", &["fine@1", "old@1"]);
        assert_eq!(load(temp.path(), &["old@1"], &[]).unwrap_err().id(), "buildpack.api_unsupported");
        let nested = load(temp.path(), &["fine@1", "o@1"], &[]).unwrap_err();
        assert!(nested.is_api_unsupported(), "{nested:?}");
        load(temp.path(), &["fine@1"], &[]).unwrap();
    }

    #[test]
    fn api_12_extensions_exist_from_buildpack_api_0_9_on() {
        let temp = tempfile::tempdir().unwrap();
        install(temp.path(), "a@1", "0.10", &[]);
        extension(temp.path(), "old@1", "0.8");
        extension(temp.path(), "new@1", "0.9");
        let old = load(temp.path(), &["a@1"], &["old@1"]).unwrap_err();
        assert_eq!(old.to_string(), "image extension `old@1` uses Buildpack API 0.8; known are 0.9 to 0.12");
        assert!(old.is_api_unsupported());
        let builder = load(temp.path(), &["a@1"], &["new@1"]).unwrap();
        assert_eq!(groups(&builder), [Ok("new@1 a@1".to_owned()), Ok("a@1".to_owned())]);
    }

    #[test]
    fn ord_11_a_cycle_of_installed_composites_ends() {
        let temp = tempfile::tempdir().unwrap();
        install(temp.path(), "o@1", "0.10", &["p@1"]);
        install(temp.path(), "p@1", "0.10", &["o@1"]);
        assert_eq!(groups(&load(temp.path(), &["o@1"], &[]).unwrap()), [Err("order.cycle")]);
    }
}
