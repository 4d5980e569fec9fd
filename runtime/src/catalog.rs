//! The buildpacks at hand: loaded from directories, found by id and version,
//! and put together to the groups that an order stands for.
//!
//! What kind a buildpack is, is settled here, by what its directory holds. The
//! catalog must not know how any kind is run.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::cnb::api::ApiVersion;
use crate::cnb::buildpack_toml::BuildpackDescriptor;
use crate::cnb::id::{BuildpackRef, ExecEnv};
use crate::cnb::order::{Order, OrderMember};
use crate::fault::{Diagnose, Fault};
use crate::toml_text::{self, TomlFileError};

/// Groups an order may stand for; composites in composites multiply.
const MAX_GROUPS: usize = 10_000;

/// Composites inside each other, and members of one group.
const MAX_MEMBERS: usize = 1_000;

/// A buildpack that can take part in a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buildpack {
    pub reference: BuildpackRef,
    pub descriptor: BuildpackDescriptor,
    /// Where it lies; read-only for everybody.
    pub directory: PathBuf,
    pub kind: BuildpackKind,
}

/// What runs a buildpack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildpackKind {
    /// A WebAssembly component.
    Component {
        /// `buildpack.wasm`.
        path: PathBuf,
        /// `sha256:<hex>` of its bytes.
        digest: String,
    },
    /// Other buildpacks, by an order.
    Composite(Order),
    /// Executables for a container: `bin/detect` and `bin/build`.
    Classic,
}

/// Computes `sha256:<hex>` of a file, or remembers it.
pub type DigestOfFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// Why buildpacks could not be loaded or put together.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A TOML file cannot be read or is not valid.
    #[error("cannot load {what}")]
    File { what: &'static str, source: TomlFileError },
    /// A directory or component cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The directory holds nothing that could run.
    #[error("`{}` is no buildpack: buildpack `{buildpack}` has no `buildpack.wasm` and no `[[order]]`", directory.display())]
    NoProgram { buildpack: BuildpackRef, directory: PathBuf },
    /// A buildpack of executables.
    #[error(
        "buildpack `{buildpack}` is made of executables (`bin/detect`, `bin/build`), which this version cannot run"
    )]
    ClassicUnsupported { buildpack: BuildpackRef },
    /// Its API is too old or too new.
    #[error("buildpack `{buildpack}` uses Buildpack API {api}; known are {} to {}",
        ApiVersion::SUPPORTED_BUILDPACK_APIS.start(), ApiVersion::SUPPORTED_BUILDPACK_APIS.end())]
    ApiUnsupported { buildpack: BuildpackRef, api: ApiVersion },
    /// Two different directories for one buildpack.
    #[error("buildpack `{buildpack}` is there twice: `{}` and `{}`", first.display(), second.display())]
    Duplicate { buildpack: BuildpackRef, first: PathBuf, second: PathBuf },
    /// Ids that only differ in upper and lower case.
    #[error("the buildpack ids `{first}` and `{second}` differ in upper and lower case only")]
    SameId { first: BuildpackRef, second: BuildpackRef },
    /// A builder's directory does not hold what its name says.
    #[error("`{}` holds buildpack `{found}`, not `{expected}`", directory.display())]
    Misplaced { directory: PathBuf, found: BuildpackRef, expected: String },
    /// An order names a buildpack that is not there.
    #[error("there is no buildpack `{wanted}`")]
    Missing {
        wanted: BuildpackRef,
        /// The nearest one that is there.
        nearest: Option<BuildpackRef>,
    },
    /// A composite buildpack contains itself.
    #[error("buildpack `{buildpack}` contains itself")]
    Cycle { buildpack: BuildpackRef },
    /// An order stands for too many groups, or one of them has too many members.
    #[error("the order is too large: more than {limit} {of}")]
    TooLarge { limit: usize, of: &'static str },
}

impl Diagnose for CatalogError {
    fn id(&self) -> &'static str {
        match self {
            Self::File { .. } => "buildpack.invalid_toml",
            Self::Io { .. } => "buildpack.unreadable",
            Self::NoProgram { .. } => "buildpack.not_a_buildpack",
            Self::ClassicUnsupported { .. } => "buildpack.classic_unsupported",
            Self::ApiUnsupported { .. } => "buildpack.api_unsupported",
            Self::Duplicate { .. } | Self::SameId { .. } => "buildpack.duplicate",
            Self::Misplaced { .. } => "builder.misplaced",
            Self::Missing { .. } => "buildpack.missing",
            Self::Cycle { .. } => "order.cycle",
            Self::TooLarge { .. } => "order.too_large",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Io { .. } => Fault::Environment,
            Self::NoProgram { .. } | Self::ClassicUnsupported { .. } | Self::Missing { .. } => Fault::Caller,
            _ => Fault::Buildpack,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoProgram { .. } => Some(
                "build the component, and put it beside `buildpack.toml` under the name `buildpack.wasm`"
                    .into(),
            ),
            Self::ClassicUnsupported { .. } => {
                Some("use a buildpack that is a component, or leave it out of the order".into())
            }
            Self::Missing { nearest: Some(nearest), .. } => Some(format!("there is `{nearest}`")),
            Self::Missing { nearest: None, .. } => Some("add its directory with `--buildpack`".into()),
            Self::Duplicate { .. } => Some("name only one of them".into()),
            _ => None,
        }
    }
}

impl Buildpack {
    /// Loads the buildpack in `directory`. Nothing of it is run.
    ///
    /// # Errors
    /// [`CatalogError`]; a buildpack of executables is known for what it is, and refused.
    ///
    /// # Spec
    /// BPT-03: with an `[[order]]` it is a composite, whatever else lies there.
    pub fn load(directory: &Path, digest_of_file: DigestOfFile<'_>) -> Result<Self, CatalogError> {
        let buildpack = Self::load_any(directory, digest_of_file)?;
        if buildpack.kind == BuildpackKind::Classic {
            return Err(CatalogError::ClassicUnsupported { buildpack: buildpack.reference });
        }
        Ok(buildpack)
    }

    /// Loads the buildpack in `directory`, of whatever kind. Nothing of it is run.
    ///
    /// # Errors
    /// [`CatalogError`], except that buildpacks of executables are taken too.
    pub fn load_any(directory: &Path, digest_of_file: DigestOfFile<'_>) -> Result<Self, CatalogError> {
        let descriptor = toml_text::read_with(&directory.join("buildpack.toml"), BuildpackDescriptor::parse)
            .map_err(|source| CatalogError::File { what: "the buildpack", source })?;
        let reference = descriptor.reference.clone();
        if !descriptor.api.is_supported() {
            return Err(CatalogError::ApiUnsupported { buildpack: reference, api: descriptor.api });
        }
        let component = directory.join("buildpack.wasm");
        let is_file = |path: &Path| path.metadata().is_ok_and(|metadata| metadata.is_file());
        let kind = if !descriptor.order.is_empty() {
            BuildpackKind::Composite(descriptor.order())
        } else if component.symlink_metadata().is_ok() {
            let digest = digest_of_file(&component)
                .map_err(|source| CatalogError::Io { path: component.clone(), source })?;
            BuildpackKind::Component { path: component, digest }
        } else if is_file(&directory.join("bin/detect")) && is_file(&directory.join("bin/build")) {
            BuildpackKind::Classic
        } else {
            let directory = directory.to_owned();
            return Err(CatalogError::NoProgram { buildpack: reference, directory });
        };
        Ok(Self { reference, descriptor, directory: directory.to_owned(), kind })
    }
}

/// Buildpacks by id and version.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    buildpacks: BTreeMap<BuildpackRef, Buildpack>,
}

impl Catalog {
    /// Adds a buildpack.
    ///
    /// # Errors
    /// [`CatalogError::Duplicate`] when the same id and version came from
    /// another directory, [`CatalogError::SameId`] when ids differ in case only (BPT-02).
    pub fn add(&mut self, buildpack: Buildpack) -> Result<(), CatalogError> {
        let clash = self.buildpacks.keys().find(|known| {
            known.id != buildpack.reference.id
                && known.id.as_str().eq_ignore_ascii_case(buildpack.reference.id.as_str())
        });
        if let Some(known) = clash {
            return Err(CatalogError::SameId { first: known.clone(), second: buildpack.reference });
        }
        match self.buildpacks.get(&buildpack.reference) {
            Some(known) if known.directory != buildpack.directory => Err(CatalogError::Duplicate {
                first: known.directory.clone(),
                second: buildpack.directory,
                buildpack: buildpack.reference,
            }),
            _ => {
                self.buildpacks.insert(buildpack.reference.clone(), buildpack);
                Ok(())
            }
        }
    }

    /// All buildpacks, sorted by id and version.
    pub fn iter(&self) -> impl Iterator<Item = &Buildpack> {
        self.buildpacks.values()
    }

    /// The buildpack with exactly this id and version (ORD-10).
    ///
    /// # Errors
    /// [`CatalogError::Missing`] with the nearest one that is there.
    pub fn get(&self, wanted: &BuildpackRef) -> Result<&Buildpack, CatalogError> {
        self.buildpacks.get(wanted).ok_or_else(|| CatalogError::Missing {
            wanted: wanted.clone(),
            nearest: self.nearest(wanted).cloned(),
        })
    }

    /// Of the same id the version that is most alike, else a similar id.
    fn nearest(&self, wanted: &BuildpackRef) -> Option<&BuildpackRef> {
        let same_id = self.buildpacks.keys().filter(|known| known.id == wanted.id);
        let version = same_id.max_by_key(|known| {
            let (ours, theirs) = (numbers(known.version.as_str()), numbers(wanted.version.as_str()));
            let common = ours.iter().zip(&theirs).take_while(|(left, right)| left == right).count();
            let distance =
                ours.get(common).copied().unwrap_or(0).abs_diff(theirs.get(common).copied().unwrap_or(0));
            (common, std::cmp::Reverse(distance))
        });
        version.or_else(|| {
            let last = |reference: &BuildpackRef| {
                reference.id.as_str().rsplit('/').next().unwrap_or_default().to_ascii_lowercase()
            };
            self.buildpacks.keys().rev().find(|known| last(known) == last(wanted))
        })
    }

    /// The groups that `order` stands for, in the order they are to be tried.
    ///
    /// # Spec
    /// ORD-02 to ORD-07 and ORD-11.
    pub fn expand<'a>(&'a self, order: &'a Order) -> Expansion<'a> {
        let pending = order.groups.iter().rev();
        let pending =
            pending.map(|group| Pending { done: Vec::new(), rest: chain(&group.members, None, None) });
        Expansion { catalog: self, pending: pending.collect(), yielded: 0 }
    }
}

/// The numbers in a version: `1.20.3` is 1, 20, 3.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap_or(u64::MAX))
        .collect()
}

/// One member of an expanded group; never a composite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember<'a> {
    pub buildpack: &'a Buildpack,
    pub optional: bool,
    /// What the order restricts it to; empty means all.
    pub exec_envs: &'a [ExecEnv],
}

/// The groups of an order, one at a time. Made lazily: the first group usually passes.
#[derive(Debug)]
pub struct Expansion<'a> {
    catalog: &'a Catalog,
    /// What is still to be expanded; the next one last.
    pending: Vec<Pending<'a>>,
    yielded: usize,
}

/// A group of which the front is settled.
#[derive(Debug)]
struct Pending<'a> {
    done: Vec<GroupMember<'a>>,
    rest: Option<Rc<Rest<'a>>>,
}

/// Members still to be looked at. Shared tails, so that composites side by side
/// cost no copies.
#[derive(Debug)]
struct Rest<'a> {
    member: &'a OrderMember,
    /// The composites this member comes from.
    within: Option<Rc<Ancestor<'a>>>,
    next: Option<Rc<Rest<'a>>>,
    length: usize,
}

impl Drop for Rest<'_> {
    /// The derived one would recurse once for each member.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut rest) = next.and_then(Rc::into_inner) {
            next = rest.next.take();
        }
    }
}

#[derive(Debug)]
struct Ancestor<'a> {
    buildpack: &'a BuildpackRef,
    above: Option<Rc<Ancestor<'a>>>,
    depth: usize,
}

/// `members` in front of `next`.
fn chain<'a>(
    members: &'a [OrderMember],
    within: Option<&Rc<Ancestor<'a>>>,
    next: Option<Rc<Rest<'a>>>,
) -> Option<Rc<Rest<'a>>> {
    members.iter().rev().fold(next, |next, member| {
        let length = next.as_ref().map_or(0, |next| next.length) + 1;
        Some(Rc::new(Rest { member, within: within.cloned(), next, length }))
    })
}

fn contains(mut within: Option<&Rc<Ancestor<'_>>>, buildpack: &BuildpackRef) -> bool {
    while let Some(ancestor) = within {
        if ancestor.buildpack == buildpack {
            return true;
        }
        within = ancestor.above.as_ref();
    }
    false
}

impl<'a> Iterator for Expansion<'a> {
    type Item = Result<Vec<GroupMember<'a>>, CatalogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_group();
        if matches!(next, Err(_) | Ok(None)) {
            self.pending.clear();
        }
        next.transpose()
    }
}

impl<'a> Expansion<'a> {
    fn next_group(&mut self) -> Result<Option<Vec<GroupMember<'a>>>, CatalogError> {
        while let Some(Pending { mut done, mut rest }) = self.pending.pop() {
            let composite = loop {
                let Some(here) = rest.clone() else { break None };
                let buildpack = self.catalog.get(&here.member.buildpack)?;
                if let BuildpackKind::Composite(order) = &buildpack.kind {
                    break Some((here, buildpack, order));
                }
                let member = GroupMember {
                    buildpack,
                    optional: here.member.optional,
                    exec_envs: &here.member.exec_envs,
                };
                done.push(member);
                rest.clone_from(&here.next);
            };
            let Some((here, buildpack, order)) = composite else {
                self.yielded += 1;
                if self.yielded > MAX_GROUPS {
                    return Err(CatalogError::TooLarge { limit: MAX_GROUPS, of: "groups" });
                }
                // The same buildpack counts once, whatever the versions (ORD-07).
                let mut seen = BTreeSet::new();
                done.retain(|member| seen.insert(&member.buildpack.reference.id));
                return Ok(Some(done));
            };
            if contains(here.within.as_ref(), &buildpack.reference) {
                return Err(CatalogError::Cycle { buildpack: buildpack.reference.clone() });
            }
            let depth = here.within.as_ref().map_or(0, |within| within.depth) + 1;
            if done.len() + here.length > MAX_MEMBERS
                || depth > MAX_MEMBERS
                || self.pending.len() > MAX_GROUPS
            {
                return Err(CatalogError::TooLarge { limit: MAX_MEMBERS, of: "members of a group" });
            }
            let within =
                Rc::new(Ancestor { buildpack: &buildpack.reference, above: here.within.clone(), depth });
            if here.member.optional {
                // Tried last: the outer group without it (ORD-04).
                self.pending.push(Pending { done: done.clone(), rest: here.next.clone() });
            }
            for group in order.groups.iter().rev() {
                let rest = chain(&group.members, Some(&within), here.next.clone());
                self.pending.push(Pending { done: done.clone(), rest });
            }
        }
        Ok(None)
    }
}

/// Buildpacks with the order in which they are tried.
#[derive(Debug, Clone)]
pub struct Builder {
    pub catalog: Catalog,
    pub order: Order,
}

impl Builder {
    /// Loads a builder from a directory.
    ///
    /// # Shape
    /// ```text
    /// order.toml
    /// buildpacks/<id, / as _>/<version>/buildpack.toml …
    /// ```
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn load(directory: &Path, digest_of_file: DigestOfFile<'_>) -> Result<Self, CatalogError> {
        let order = toml_text::read_with(&directory.join("order.toml"), Order::parse)
            .map_err(|source| CatalogError::File { what: "the builder", source })?;
        let mut catalog = Catalog::default();
        for id_directory in directories(&directory.join("buildpacks"))? {
            for directory in directories(&id_directory)? {
                let buildpack = Buildpack::load(&directory, digest_of_file)?;
                let reference = &buildpack.reference;
                let expected = Path::new(&reference.id.directory_name()).join(reference.version.as_str());
                if !directory.ends_with(&expected) {
                    let names = directory.iter().rev().take(2).map(|name| name.to_string_lossy());
                    let mut names: Vec<_> = names.collect();
                    names.reverse();
                    let (expected, found) = (names.join("@"), buildpack.reference);
                    return Err(CatalogError::Misplaced { directory, found, expected });
                }
                catalog.add(buildpack)?;
            }
        }
        Ok(Self { catalog, order })
    }
}

/// The directories in a directory, sorted by name; links to some included.
fn directories(parent: &Path) -> Result<Vec<PathBuf>, CatalogError> {
    let failed = |source| CatalogError::Io { path: parent.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "the shape `load` asks for")]
    fn digest(_: &Path) -> io::Result<String> {
        Ok("sha256:test".into())
    }

    fn reference(name: &str) -> BuildpackRef {
        let (id, version) = name.split_once('@').unwrap_or((name, "1"));
        BuildpackRef { id: id.parse().unwrap(), version: version.parse().unwrap() }
    }

    /// `"A B?"` is one group with an optional member; `|` separates groups.
    fn order(text: &str) -> Order {
        let group = |group: &str| crate::cnb::order::OrderGroup {
            members: group
                .split_whitespace()
                .map(|name| OrderMember {
                    buildpack: reference(name.trim_end_matches('?')),
                    optional: name.ends_with('?'),
                    exec_envs: vec![],
                })
                .collect(),
        };
        Order { groups: text.split('|').map(group).collect() }
    }

    fn buildpack(name: &str, kind: BuildpackKind) -> Buildpack {
        let reference = reference(name);
        let text = format!(
            "api = \"0.10\"\n[buildpack]\nid = \"{}\"\nversion = \"{}\"\n",
            reference.id, reference.version
        );
        let descriptor = BuildpackDescriptor::parse(&text).unwrap();
        Buildpack { reference, descriptor, directory: PathBuf::from(format!("/{name}")), kind }
    }

    /// Composites as given, and components for all other names.
    fn catalog(composites: &[(&str, &str)], components: &str) -> Catalog {
        let mut catalog = Catalog::default();
        for (name, text) in composites {
            catalog.add(buildpack(name, BuildpackKind::Composite(order(text)))).unwrap();
        }
        for name in components.split_whitespace() {
            let kind = BuildpackKind::Component { path: PathBuf::new(), digest: String::new() };
            catalog.add(buildpack(name, kind)).unwrap();
        }
        catalog
    }

    fn shown(composites: &[(&str, &str)], text: &str) -> Vec<String> {
        let catalog = catalog(composites, "A B C D E F A@2");
        let order = order(text);
        catalog
            .expand(&order)
            .map(|group| match group {
                Err(error) => error.id().to_owned(),
                Ok(members) => members
                    .iter()
                    .map(|member| {
                        let optional = if member.optional { "?" } else { "" };
                        format!("{}{optional}", member.buildpack.reference.id)
                    })
                    .collect::<Vec<_>>()
                    .join(" "),
            })
            .collect()
    }

    #[test]
    fn ord_01_groups_keep_their_order() {
        assert_eq!(shown(&[], "B A|A|C?"), ["B A", "A", "C?"]);
    }

    #[test]
    fn ord_02_a_composite_is_replaced_by_each_of_its_groups() {
        assert_eq!(shown(&[("O", "A B|C D")], "E O F"), ["E A B F", "E C D F"]);
    }

    #[test]
    fn ord_03_depth_first_left_to_right() {
        assert_eq!(shown(&[("O", "A|B"), ("P", "C|D")], "O P"), ["A C", "A D", "B C", "B D"]);
        assert_eq!(shown(&[("O", "P|B"), ("P", "C|D")], "O"), ["C", "D", "B"]);
    }

    #[test]
    fn ord_04_an_optional_composite_is_left_out_last() {
        assert_eq!(shown(&[("O", "A|B")], "C O? D"), ["C A D", "C B D", "C D"]);
    }

    #[test]
    fn ord_06_optional_does_not_spread_into_a_composite() {
        assert_eq!(shown(&[("O", "A B?")], "O?"), ["A B?", ""]);
    }

    #[test]
    fn ord_07_the_first_of_one_id_counts_whatever_the_version() {
        assert_eq!(shown(&[("O", "A@2 B")], "A? O"), ["A? B"]);
        assert_eq!(shown(&[], "B A A B"), ["B A"]);
    }

    #[test]
    fn ord_11_cycles_are_errors_and_repetition_is_none() {
        assert_eq!(shown(&[("O", "P"), ("P", "A|O")], "O"), ["A", "order.cycle"]);
        assert_eq!(shown(&[("O", "O")], "O"), ["order.cycle"]);
        assert_eq!(shown(&[("O", "A")], "O O"), ["A"]);
    }

    #[test]
    fn composites_that_multiply_end_in_an_error() {
        let names: Vec<String> = (0..30).map(|n| format!("X{n}")).collect();
        let composites: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "A|B")).collect();
        let groups = shown(&composites, &names.join(" "));
        assert_eq!(groups.last().unwrap(), "order.too_large");
        let doubling: Vec<(String, String)> =
            (0..40).map(|n| (format!("X{n}"), format!("X{} X{}", n + 1, n + 1))).collect();
        let mut doubling: Vec<(&str, &str)> =
            doubling.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        doubling.push(("X40", "A"));
        // 2^40 members that are all the same: found out, not tried.
        let catalog = catalog(&doubling, "A");
        let order = order("X0");
        assert!(catalog.expand(&order).next().unwrap().is_err());
    }

    #[test]
    fn a_group_of_very_many_members_does_not_overflow_the_stack() {
        let text = "A ".repeat(300_000);
        assert_eq!(shown(&[], &text), ["A"]);
        // Dropped as a whole, without having been looked at.
        drop(Catalog::default().expand(&order(&text)));
    }

    #[test]
    fn ord_10_a_missing_buildpack_is_an_error_that_names_the_nearest() {
        let catalog = catalog(&[], "acme/node@1.2.0 acme/node@1.9.0 acme/node@2.0.0");
        let nearest = |name: &str| match catalog.get(&reference(name)) {
            Err(CatalogError::Missing { nearest, .. }) => nearest.map(|nearest| nearest.to_string()),
            other => panic!("{other:?}"),
        };
        assert_eq!(nearest("acme/node@1.8.7").as_deref(), Some("acme/node@1.9.0"));
        assert_eq!(nearest("acme/node@3.0.0").as_deref(), Some("acme/node@2.0.0"));
        assert_eq!(nearest("other/node@1.2.0").as_deref(), Some("acme/node@2.0.0"));
        assert_eq!(nearest("acme/go@1.2.0"), None);
        assert_eq!(catalog.get(&reference("acme/node@1.2.0")).unwrap().reference.version.as_str(), "1.2.0");
    }

    fn write(directory: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = directory.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    const TOML: &str = "api = \"0.10\"\n[buildpack]\nid = \"acme/node\"\nversion = \"1.2.0\"\n";
    const ORDER: &str = "[[order]]\n[[order.group]]\nid = \"acme/node\"\nversion = \"1.2.0\"\n";

    /// BPT-03
    #[test]
    fn what_the_directory_holds_settles_the_kind() {
        for (files, expected) in [
            (vec![("buildpack.wasm", "")], "component"),
            // BPT-03
            (vec![("buildpack.toml", "+order"), ("buildpack.wasm", ""), ("bin/detect", "")], "composite"),
            (vec![("bin/detect", ""), ("bin/build", "")], "buildpack.classic_unsupported"),
            (vec![("bin/detect", "")], "buildpack.not_a_buildpack"),
            (vec![("buildpack.toml", "api = ")], "buildpack.invalid_toml"),
            (vec![("buildpack.toml", "+api"), ("buildpack.wasm", "")], "buildpack.api_unsupported"),
        ] {
            let temp = tempfile::tempdir().unwrap();
            write(temp.path(), &[("buildpack.toml", TOML)]);
            let old = TOML.replace("0.10", "0.1");
            let composite = format!("{TOML}{ORDER}");
            let files: Vec<(&str, &str)> = files
                .into_iter()
                .map(|(name, text)| match text {
                    "+order" => (name, composite.as_str()),
                    "+api" => (name, old.as_str()),
                    text => (name, text),
                })
                .collect();
            write(temp.path(), &files);
            let found = match Buildpack::load(temp.path(), &digest) {
                Ok(buildpack) => match buildpack.kind {
                    BuildpackKind::Component { digest, .. } => {
                        assert_eq!(digest, "sha256:test");
                        "component"
                    }
                    BuildpackKind::Composite(_) => "composite",
                    BuildpackKind::Classic => "classic",
                },
                Err(error) => error.id(),
            };
            assert_eq!(found, expected, "{files:?}");
        }
    }

    #[test]
    fn a_builder_is_loaded_from_its_directory() {
        let temp = tempfile::tempdir().unwrap();
        write(
            temp.path(),
            &[
                ("order.toml", ORDER),
                ("buildpacks/acme_node/1.2.0/buildpack.toml", TOML),
                ("buildpacks/acme_node/1.2.0/buildpack.wasm", ""),
            ],
        );
        let builder = Builder::load(temp.path(), &digest).unwrap();
        let group = builder.catalog.expand(&builder.order).next().unwrap().unwrap();
        assert_eq!(group[0].buildpack.reference.to_string(), "acme/node@1.2.0");

        std::fs::rename(
            temp.path().join("buildpacks/acme_node/1.2.0"),
            temp.path().join("buildpacks/acme_node/1.3.0"),
        )
        .unwrap();
        let error = Builder::load(temp.path(), &digest).unwrap_err();
        assert_eq!(error.id(), "builder.misplaced");
        assert!(error.to_string().ends_with("holds buildpack `acme/node@1.2.0`, not `acme_node@1.3.0`"));
    }

    /// BPT-02
    #[test]
    fn ids_that_differ_in_case_only_and_second_directories_are_refused() {
        let mut catalog = catalog(&[], "acme/node");
        let component = || BuildpackKind::Component { path: PathBuf::new(), digest: String::new() };
        assert!(matches!(catalog.add(buildpack("Acme/node", component())), Err(CatalogError::SameId { .. })));
        let mut second = buildpack("acme/node", component());
        second.directory = PathBuf::from("/elsewhere");
        assert!(matches!(catalog.add(second), Err(CatalogError::Duplicate { .. })));
    }
}
