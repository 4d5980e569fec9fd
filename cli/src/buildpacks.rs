//! Builders and buildpacks by what people call them, and the order they make.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use url::Url;
use wapack_runtime::catalog::{Builder, Buildpack, Catalog};
use wapack_runtime::cnb::id::{BuildpackId, BuildpackRef, BuildpackVersion};
use wapack_runtime::cnb::order::{Order, OrderGroup, OrderMember};
use wapack_runtime::cnb::project_toml::{GroupBuildpack, GroupEntry};
use wapack_runtime::policy::Policy;
use wapack_runtime::store::{Store, StoreError};

use crate::args::AppArguments;
use crate::embedded;
use crate::failure::{Failure, InputError};
use crate::output::Output;
use crate::project::{Project, ProjectError};

/// The word for the builder that is part of this program.
const BUILTIN: &str = "builtin";

/// Locators that stand for buildpacks of the builder.
const FROM_BUILDER: [&str; 2] = ["from=builder:", "urn:cnb:builder:"];

/// Locators of what this version does not fetch.
const REMOTE: [&str; 4] = ["docker://", "http://", "https://", "urn:cnb:registry:"];

/// What [`Store::builder`] can fail with.
enum Unpack {
    Store(StoreError),
    Archive(io::Error),
}

impl From<StoreError> for Unpack {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The builder, and the order that arguments and project file make of it.
///
/// # Spec
/// PRJ-07, PRJ-08: what the command line names wins; a group takes the place of
/// the builder's order; `pre` and `post` go around each of its groups, as written.
pub(crate) fn choose(
    arguments: &AppArguments,
    project: &Project,
    policy: &Policy,
    store: &Store,
    output: &mut Output,
) -> Result<Builder, Failure> {
    let builder = match &arguments.builder {
        Some(named) => load_builder(named, store)?,
        None => project_builder(project, store)?,
    };
    let mut assembly = Assembly { builder: &builder, store, catalog: Catalog::default(), parts: Vec::new() };
    let descriptor = &project.descriptor;
    if !arguments.buildpacks.is_empty() {
        for value in &arguments.buildpacks {
            assembly.add_named(value)?;
        }
    } else if !descriptor.group.is_empty() {
        for entry in &descriptor.group {
            assembly.add_entry(entry, project, policy)?;
        }
    } else if descriptor.pre.is_empty() && descriptor.post.is_empty() {
        return Ok(builder);
    } else {
        for entry in &descriptor.pre {
            assembly.add_entry(entry, project, policy)?;
        }
        assembly.add_order()?;
        for entry in &descriptor.post {
            assembly.add_entry(entry, project, policy)?;
        }
        return assembly.finish();
    }
    if !descriptor.pre.is_empty() || !descriptor.post.is_empty() {
        output.warning(
            "`pre` and `post` of the project file go around the builder's order, which is not used here",
        );
    }
    assembly.finish()
}

fn load_builder(named: &Path, store: &Store) -> Result<Builder, Failure> {
    let digest_of_file = |path: &Path| store.digest_of_file(path);
    if named == Path::new(BUILTIN) {
        let directory = store
            .builder(embedded::BUILDER_DIGEST, |directory| {
                embedded::unpack_builder(directory).map_err(Unpack::Archive)
            })
            .map_err(|error| match error {
                Unpack::Store(error) => Failure::Store(error),
                Unpack::Archive(error) => Failure::Builtin(error),
            })?;
        return Ok(Builder::load(&directory, &digest_of_file)?);
    }
    let missing = |source| InputError::Builder { path: named.to_owned(), source };
    let directory = named.canonicalize().map_err(missing)?;
    if !directory.join("order.toml").is_file() {
        return Err(InputError::NotABuilder { path: named.to_owned() }.into());
    }
    Ok(Builder::load(&directory, &digest_of_file)?)
}

fn project_builder(project: &Project, store: &Store) -> Result<Builder, Failure> {
    let named = project.descriptor.builder.as_str();
    if matches!(named, "" | BUILTIN) {
        return load_builder(Path::new(BUILTIN), store);
    }
    let missing = || ProjectError::Builder { named: named.escape_debug().to_string() };
    load_builder(&project.directory_of(named)?.ok_or_else(missing)?, store)
}

/// A place in a group.
enum Part {
    Member(OrderMember),
    /// Every group of the builder's order, in turn.
    Order,
}

/// Groups as they are put together.
struct Assembly<'a> {
    builder: &'a Builder,
    store: &'a Store,
    /// Buildpacks that are not the builder's.
    catalog: Catalog,
    parts: Vec<Part>,
}

impl Assembly<'_> {
    /// One that the command line names.
    ///
    /// # Spec
    /// BLDR-11, as far as there is anything to find: directories and the builder.
    fn add_named(&mut self, value: &OsStr) -> Result<(), Failure> {
        let shown = || value.to_string_lossy().escape_debug().to_string();
        let text = value.to_str();
        if let Some(text) = text {
            if text == "from=builder" {
                return self.add_order();
            }
            if let Some(reference) = FROM_BUILDER.iter().find_map(|prefix| text.strip_prefix(prefix)) {
                let reference = self.of_builder(reference, false).ok_or_else(|| self.missing(shown()))??;
                self.add_reference(reference);
                return Ok(());
            }
            if REMOTE.iter().any(|prefix| text.starts_with(prefix)) {
                return Err(InputError::BuildpackRemote { value: shown() }.into());
            }
        }
        let path = text.and_then(file_address).unwrap_or_else(|| PathBuf::from(value));
        if path.is_dir() {
            let directory =
                fs_err::canonicalize(&path).map_err(|source| InputError::Unreadable { path, source })?;
            return self.add_directory(&directory).map(drop);
        }
        if path.is_file() {
            return Err(InputError::BuildpackFile { path }.into());
        }
        let found = text.and_then(|text| self.of_builder(text, false));
        let reference = found.ok_or_else(|| self.missing(shown()))??;
        self.add_reference(reference);
        Ok(())
    }

    /// One that the project file names.
    fn add_entry(&mut self, entry: &GroupEntry, project: &Project, policy: &Policy) -> Result<(), Failure> {
        match &entry.buildpack {
            GroupBuildpack::Id { id, version } => {
                let text = match version {
                    Some(version) => format!("{id}@{version}"),
                    None => id.to_string(),
                };
                let reference = self.of_builder(&text, true).ok_or_else(|| self.missing(text))??;
                self.add_reference(reference);
                Ok(())
            }
            GroupBuildpack::Script { id, .. } => {
                Err(ProjectError::Script { id: id.to_string(), line: entry.line }.into())
            }
            GroupBuildpack::Uri { uri, id } => {
                let is_of_builder =
                    uri == "from=builder" || FROM_BUILDER.iter().any(|it| uri.starts_with(it));
                if is_of_builder || REMOTE.iter().any(|prefix| uri.starts_with(prefix)) {
                    return self.add_named(OsStr::new(uri));
                }
                let path = file_address(uri);
                let named = path.as_deref().and_then(Path::to_str).unwrap_or(uri);
                let Some(directory) = project.directory_of(named)? else {
                    return Err(ProjectError::Uri { uri: uri.escape_debug().to_string() }.into());
                };
                let found = self.add_directory(&directory)?;
                if id.as_ref().is_some_and(|id| *id != found.id) {
                    let (uri, found) = (uri.escape_debug().to_string(), found.to_string());
                    return Err(ProjectError::OtherId { uri, found }.into());
                }
                // What the operator allows a buildpack by its name, the app cannot take for itself.
                let is_known = self.builder.catalog.iter().any(|known| known.reference.id == found.id)
                    || policy.allow_buildpack.contains_key(&found.id);
                if project.confined_to.is_some() && is_known {
                    return Err(ProjectError::TakesName { id: found.id.to_string() }.into());
                }
                Ok(())
            }
        }
    }

    fn add_order(&mut self) -> Result<(), Failure> {
        if self.parts.iter().any(|part| matches!(part, Part::Order)) {
            return Err(InputError::OrderTwice.into());
        }
        self.parts.push(Part::Order);
        Ok(())
    }

    fn add_reference(&mut self, buildpack: BuildpackRef) {
        self.parts.push(Part::Member(OrderMember { buildpack, optional: false, exec_envs: Vec::new() }));
    }

    fn add_directory(&mut self, directory: &Path) -> Result<BuildpackRef, Failure> {
        let digest_of_file = |path: &Path| self.store.digest_of_file(path);
        let buildpack = Buildpack::load(directory, &digest_of_file)?;
        let reference = buildpack.reference.clone();
        self.catalog.add(buildpack)?;
        self.add_reference(reference.clone());
        Ok(reference)
    }

    /// `ID[@VERSION]` of the builder; `None` when it has none of that name.
    /// Without a version it is the only one, or with `latest` the highest.
    fn of_builder(&self, text: &str, latest: bool) -> Option<Result<BuildpackRef, Failure>> {
        let (id, version) = match text.split_once('@') {
            Some((id, version)) => (id, Some(version.parse::<BuildpackVersion>().ok()?)),
            None => (text, None),
        };
        let id: BuildpackId = id.parse().ok()?;
        if let Some(version) = version {
            let reference = BuildpackRef { id, version };
            return self.builder.catalog.get(&reference).is_ok().then_some(Ok(reference));
        }
        let mut versions: Vec<&BuildpackRef> = self
            .builder
            .catalog
            .iter()
            .map(|known| &known.reference)
            .filter(|known| known.id == id)
            .collect();
        versions.sort_by_key(|reference| numbers(reference.version.as_str()));
        let last = (*versions.last()?).clone();
        if versions.len() > 1 && !latest {
            let versions = versions.iter().map(ToString::to_string).collect();
            return Some(Err(InputError::BuildpackVersions { id: id.to_string(), versions }.into()));
        }
        Some(Ok(last))
    }

    fn missing(&self, value: String) -> Failure {
        let known = self.builder.catalog.iter().map(|buildpack| buildpack.reference.to_string()).collect();
        InputError::Buildpack { value, known }.into()
    }

    /// The builder with this order. A buildpack from a directory takes the place
    /// of the builder's own of the same version.
    fn finish(self) -> Result<Builder, Failure> {
        let mut catalog = self.catalog;
        for buildpack in self.builder.catalog.iter() {
            if catalog.get(&buildpack.reference).is_err() {
                catalog.add(buildpack.clone())?;
            }
        }
        let mut groups = vec![OrderGroup::default()];
        for part in self.parts {
            match part {
                Part::Member(member) => {
                    for group in &mut groups {
                        group.members.push(member.clone());
                    }
                }
                // There is one group before, for there is one such part at most.
                Part::Order => {
                    let before = groups.pop().unwrap_or_default();
                    groups.extend(self.builder.order.groups.iter().map(|group| {
                        let members = before.members.iter().chain(&group.members).cloned().collect();
                        OrderGroup { members }
                    }));
                }
            }
        }
        Ok(Builder {
            catalog,
            order: Order { groups },
            extensions: self.builder.extensions.clone(),
            build_config: self.builder.build_config.clone(),
        })
    }
}

/// The path of a `file:` address.
fn file_address(text: &str) -> Option<PathBuf> {
    let rest = text.strip_prefix("file:")?;
    match Url::parse(text) {
        Ok(address) if rest.starts_with('/') => address.to_file_path().ok(),
        _ => Some(PathBuf::from(rest)),
    }
}

/// Numbers in a version, for "which is higher".
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0)).collect()
}
