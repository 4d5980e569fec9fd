//! The buildpacks at hand: loaded from directories, found by id and version,
//! and put together to the groups that an order stands for.
//!
//! What kind a buildpack is, is settled here, by what its directory holds. The
//! catalog must not know how any kind is run.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::cnb::api::ApiVersion;
use crate::cnb::buildpack_toml::{BuildpackDescriptor, Executables};
use crate::cnb::extension_toml::ExtensionDescriptor;
use crate::cnb::id::BuildpackRef;
use crate::cnb::order::{Order, OrderToml};
use crate::fault::{Diagnose, Fault};
use crate::toml_text::{self, TomlError, TomlFileError};

mod expansion;
mod installed;

pub use self::expansion::{Expansion, GroupMember, Module};
pub use self::installed::Installed;

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
    /// Executables: `bin/detect` and `bin/build`.
    Classic,
}

/// An image extension: says which Dockerfiles are to be applied to the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    pub reference: BuildpackRef,
    pub descriptor: ExtensionDescriptor,
    /// Where it lies; read-only for everybody.
    pub directory: PathBuf,
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
    /// The API of an image extension is too old or too new.
    #[error("image extension `{extension}` uses Buildpack API {api}; known are {} to {}",
        ExtensionDescriptor::FIRST_API, ApiVersion::SUPPORTED_BUILDPACK_APIS.end())]
    ExtensionApiUnsupported { extension: BuildpackRef, api: ApiVersion },
    /// A builder for image extensions, which only the programs of the lifecycle run.
    #[error("the builder `{}` has image extensions, which change images by Dockerfiles", directory.display())]
    HasExtensions { directory: PathBuf },
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
    /// An order names an image extension that is not there.
    #[error("there is no image extension `{wanted}`")]
    MissingExtension { wanted: BuildpackRef },
    /// A member of a composite buildpack cannot be loaded.
    #[error("cannot load `{buildpack}`, a member of a composite buildpack")]
    Member { buildpack: BuildpackRef, source: Box<CatalogError> },
    /// A composite buildpack contains itself.
    #[error("buildpack `{buildpack}` contains itself")]
    Cycle { buildpack: BuildpackRef },
    /// An order stands for too many groups, or one of them has too many members.
    #[error("the order is too large: more than {limit} {of}")]
    TooLarge { limit: usize, of: &'static str },
}

impl CatalogError {
    /// Whether it is that the API of somebody is not supported.
    #[must_use]
    pub fn is_api_unsupported(&self) -> bool {
        match self {
            Self::ApiUnsupported { .. } | Self::ExtensionApiUnsupported { .. } => true,
            Self::Member { source, .. } => source.is_api_unsupported(),
            _ => false,
        }
    }
}

impl Diagnose for CatalogError {
    fn id(&self) -> &'static str {
        match self {
            Self::Member { source, .. } => source.id(),
            Self::File { .. } => "buildpack.invalid_toml",
            Self::Io { .. } => "buildpack.unreadable",
            Self::NoProgram { .. } => "buildpack.not_a_buildpack",
            Self::ClassicUnsupported { .. } => "buildpack.classic_unsupported",
            Self::ApiUnsupported { .. } | Self::ExtensionApiUnsupported { .. } => "buildpack.api_unsupported",
            Self::HasExtensions { .. } => "builder.extensions",
            Self::Duplicate { .. } | Self::SameId { .. } => "buildpack.duplicate",
            Self::Misplaced { .. } => "builder.misplaced",
            Self::Missing { .. } => "buildpack.missing",
            Self::MissingExtension { .. } => "extension.missing",
            Self::Cycle { .. } => "order.cycle",
            Self::TooLarge { .. } => "order.too_large",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::Io { .. } => Fault::Environment,
            Self::Member { source, .. } => source.fault(),
            Self::NoProgram { .. }
            | Self::ClassicUnsupported { .. }
            | Self::HasExtensions { .. }
            | Self::Missing { .. }
            | Self::MissingExtension { .. } => Fault::Caller,
            _ => Fault::Buildpack,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Member { source, .. } => source.hint(),
            Self::NoProgram { .. } => Some(
                "build the component, and put it beside `buildpack.toml` under the name `buildpack.wasm`"
                    .into(),
            ),
            Self::ClassicUnsupported { .. } => {
                Some("use a buildpack that is a component, or leave it out of the order".into())
            }
            Self::HasExtensions { .. } => {
                Some("remove `[[order-extensions]]` from its `order.toml`, or use a builder without".into())
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
        if buildpack.kind != BuildpackKind::Classic {
            return Ok(buildpack);
        }
        let buildpack = buildpack.reference;
        if ["bin/detect", "bin/build"].iter().all(|name| is_file(&directory.join(name))) {
            return Err(CatalogError::ClassicUnsupported { buildpack });
        }
        Err(CatalogError::NoProgram { buildpack, directory: directory.to_owned() })
    }

    /// Loads the buildpack in `directory`, of whatever kind. Nothing of it is run.
    ///
    /// # Errors
    /// [`CatalogError`]. Executables that are missing are found out when they are run (DET-03).
    pub fn load_any(directory: &Path, digest_of_file: DigestOfFile<'_>) -> Result<Self, CatalogError> {
        let mut descriptor =
            toml_text::read_with(&directory.join("buildpack.toml"), BuildpackDescriptor::parse)
                .map_err(|source| CatalogError::File { what: "the buildpack", source })?;
        let reference = descriptor.reference.clone();
        if !descriptor.api.is_supported() {
            return Err(CatalogError::ApiUnsupported { buildpack: reference, api: descriptor.api });
        }
        let component = directory.join("buildpack.wasm");
        let kind = if !descriptor.order.is_empty() {
            BuildpackKind::Composite(descriptor.order())
        } else if component.symlink_metadata().is_ok() {
            let digest = digest_of_file(&component)
                .map_err(|source| CatalogError::Io { path: component.clone(), source })?;
            BuildpackKind::Component { path: component, digest }
        } else {
            BuildpackKind::Classic
        };
        descriptor.infer_targets(Executables {
            linux: is_file(&directory.join("bin/build")),
            windows: ["bin/build.exe", "bin/build.bat"].iter().any(|name| is_file(&directory.join(name))),
        });
        Ok(Self { reference, descriptor, directory: directory.to_owned(), kind })
    }
}

impl Extension {
    /// Loads the image extension in `directory`. Nothing of it is run.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn load(directory: &Path) -> Result<Self, CatalogError> {
        let mut descriptor =
            toml_text::read_with(&directory.join("extension.toml"), ExtensionDescriptor::parse)
                .map_err(|source| CatalogError::File { what: "the image extension", source })?;
        let reference = descriptor.reference.clone();
        if !descriptor.api.is_supported() || descriptor.api < ExtensionDescriptor::FIRST_API {
            return Err(CatalogError::ExtensionApiUnsupported { extension: reference, api: descriptor.api });
        }
        let has = |name: &str| is_file(&directory.join(name));
        descriptor.infer_targets(has("bin/detect") || has("bin/generate"));
        Ok(Self { reference, descriptor, directory: directory.to_owned() })
    }
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

/// Buildpacks and image extensions by id and version; the two do not share names.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    buildpacks: BTreeMap<BuildpackRef, Buildpack>,
    extensions: BTreeMap<BuildpackRef, Extension>,
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

    /// Adds an image extension.
    pub fn add_extension(&mut self, extension: Extension) {
        self.extensions.insert(extension.reference.clone(), extension);
    }

    /// The image extension with exactly this id and version.
    ///
    /// # Errors
    /// [`CatalogError::MissingExtension`].
    pub fn extension(&self, wanted: &BuildpackRef) -> Result<&Extension, CatalogError> {
        self.extensions.get(wanted).ok_or_else(|| CatalogError::MissingExtension { wanted: wanted.clone() })
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
}

/// The numbers in a version: `1.20.3` is 1, 20, 3.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap_or(u64::MAX))
        .collect()
}

/// Buildpacks with the order in which they are tried.
#[derive(Debug, Clone)]
pub struct Builder {
    pub catalog: Catalog,
    pub order: Order,
    /// Image extensions that are tried in front of every group (ORD-09).
    pub extensions: Order,
    /// The directory of what its operator sets for all builds, if it has one.
    pub build_config: Option<PathBuf>,
}

impl Builder {
    /// Loads a builder from a directory.
    ///
    /// # Shape
    /// ```text
    /// order.toml
    /// buildpacks/<id, / as _>/<version>/buildpack.toml …
    /// build-config/env/<variable>        what the operator sets, if anything
    /// ```
    ///
    /// # Errors
    /// [`CatalogError`]. A builder with image extensions is refused: applying
    /// their Dockerfiles is not for `wapack build`, and leaving them out would
    /// change the image.
    pub fn load(directory: &Path, digest_of_file: DigestOfFile<'_>) -> Result<Self, CatalogError> {
        let parse = |text: &str| match OrderToml::parse(text)? {
            file if file.order.groups.is_empty() => Err(TomlError::whole("it has no `[[order]]`")),
            file => Ok(file),
        };
        let OrderToml { order, extensions } = toml_text::read_with(&directory.join("order.toml"), parse)
            .map_err(|source| CatalogError::File { what: "the builder", source })?;
        if !extensions.groups.is_empty() {
            return Err(CatalogError::HasExtensions { directory: directory.to_owned() });
        }
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
        let build_config = Some(directory.join("build-config")).filter(|path| path.is_dir());
        Ok(Self { catalog, order, extensions, build_config })
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
mod tests;
