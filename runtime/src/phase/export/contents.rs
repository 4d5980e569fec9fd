//! What is in each layer: entries in their order, ready to be written as tar.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;

use super::{APP_DIRECTORY, ExportError, LAYERS_DIRECTORY, Launcher};
use crate::cnb::id::{BuildpackId, LayerName};
use crate::cnb::launch::{ProcessTable, Slice};
use crate::cnb::sbom::Sbom;
use crate::cnb::slice::SlicePattern;
use crate::executor::AppLink;
use crate::oci::layer::Owner;
use crate::tree::{Entry, EntryKind, Listing};

/// Where the launcher is in an image.
pub(super) const LAUNCHER_PATH: &str = "/cnb/lifecycle/launcher";

/// One entry of a layer.
#[derive(Debug, Clone)]
pub(super) struct LayerEntry<'a> {
    /// Absolute, without a trailing slash.
    pub name: Vec<u8>,
    pub mode: u32,
    pub owner: Owner,
    pub content: Content<'a>,
}

/// What a layer's entry is.
#[derive(Debug, Clone)]
pub(super) enum Content<'a> {
    Directory,
    Symlink(Vec<u8>),
    Bytes(&'a [u8]),
    /// A file of the tree the layer is made from.
    File {
        entry: &'a Entry,
        size: u64,
    },
}

fn directory<'a>(name: impl Into<Vec<u8>>, owner: Owner) -> LayerEntry<'a> {
    LayerEntry { name: name.into(), mode: 0o755, owner, content: Content::Directory }
}

/// All directories above and including `path`, from the top; not `/` itself (TAR-07).
fn directories<'a>(path: &str, owner: Owner) -> Vec<LayerEntry<'a>> {
    let ends = path.match_indices('/').map(|(place, _)| place).skip(1).chain([path.len()]);
    ends.map(|end| directory(&path[..end], owner)).collect()
}

/// Who may execute a file of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExecuteBits {
    /// As they are: a buildpack set them, so they are the same on every machine.
    Kept,
    /// All or none: the others are left to the mask of whoever has the source.
    Normal,
}

/// An entry of a tree, readable by all and writable by its owner.
fn tree_entry<'a>(root: &str, entry: &'a Entry, owner: Owner, bits: ExecuteBits) -> LayerEntry<'a> {
    let mut name = Vec::with_capacity(root.len() + 1 + entry.path.len());
    name.extend_from_slice(root.as_bytes());
    name.push(b'/');
    name.extend_from_slice(&entry.path);
    let (mode, content) = match &entry.kind {
        EntryKind::Directory => (0o755, Content::Directory),
        EntryKind::Symlink { target } => (0o777, Content::Symlink(target.clone())),
        EntryKind::File { size, execute } => {
            let execute = match bits {
                ExecuteBits::Kept => *execute,
                ExecuteBits::Normal if *execute == 0 => 0,
                ExecuteBits::Normal => 0o111,
            };
            (0o644 | execute, Content::File { entry, size: *size })
        }
    };
    LayerEntry { name, mode, owner, content }
}

/// A buildpack's layer, in walk order (TAR-08).
pub(super) fn buildpack_layer<'a>(
    buildpack: &BuildpackId,
    name: &LayerName,
    listing: &'a Listing,
    owner: Owner,
) -> Vec<LayerEntry<'a>> {
    let root = layer_directory(buildpack, name);
    let mut entries = directories(&root, owner);
    entries.extend(listing.entries.iter().map(|entry| tree_entry(&root, entry, owner, ExecuteBits::Kept)));
    entries
}

/// `/layers/<buildpack>/<layer>`
pub(super) fn layer_directory(buildpack: &BuildpackId, name: &LayerName) -> String {
    format!("{LAYERS_DIRECTORY}/{}/{name}", buildpack.directory_name())
}

/// The bills of materials of the launch image; `None` when there are none (SBOM-03, SBOM-04).
pub(super) fn sbom_layer(
    sboms: &[(BuildpackId, Option<LayerName>, Sbom)],
    owner: Owner,
) -> Option<Vec<LayerEntry<'_>>> {
    if sboms.is_empty() {
        return None;
    }
    // Sorted by the parts of their path, which is walk order.
    let mut files: BTreeMap<Vec<String>, Option<&[u8]>> = BTreeMap::new();
    for (buildpack, layer, sbom) in sboms {
        let mut path = vec![buildpack.directory_name()];
        path.extend(layer.as_ref().map(ToString::to_string));
        for end in 1..=path.len() {
            files.entry(path[..end].to_vec()).or_insert(None);
        }
        path.push(format!("sbom.{}", sbom.format.extension()));
        files.insert(path, Some(sbom.content.as_slice()));
    }
    let root = format!("{LAYERS_DIRECTORY}/sbom/launch");
    let mut entries = directories(&root, owner);
    entries.extend(files.into_iter().map(|(path, content)| {
        let name = format!("{root}/{}", path.join("/"));
        match content {
            None => directory(name, owner),
            Some(bytes) => {
                LayerEntry { name: name.into(), mode: 0o644, owner, content: Content::Bytes(bytes) }
            }
        }
    }));
    Some(entries)
}

/// TAR-12
pub(super) fn launcher_layer(launcher: &Launcher) -> Vec<LayerEntry<'_>> {
    let mut entries = directories("/cnb/lifecycle", Owner::ROOT);
    entries.push(LayerEntry {
        name: LAUNCHER_PATH.into(),
        mode: 0o755,
        owner: Owner::ROOT,
        content: Content::Bytes(&launcher.bytes),
    });
    entries
}

/// TAR-14
pub(super) fn config_layer(metadata: &str, owner: Owner) -> Vec<LayerEntry<'_>> {
    let root = format!("{LAYERS_DIRECTORY}/config");
    let mut entries = directories(&root, owner);
    let name = format!("{root}/metadata.toml").into();
    entries.push(LayerEntry { name, mode: 0o644, owner, content: Content::Bytes(metadata.as_bytes()) });
    entries
}

/// A link for each process (TAR-13); `None` without processes.
pub(super) fn process_types_layer(processes: &ProcessTable) -> Option<Vec<LayerEntry<'static>>> {
    if processes.is_empty() {
        return None;
    }
    let mut entries = directories("/cnb/process", Owner::ROOT);
    entries.extend(processes.iter().map(|(_, process)| LayerEntry {
        name: format!("/cnb/process/{}", process.process_type).into(),
        mode: 0o755,
        owner: Owner::ROOT,
        content: Content::Symlink(LAUNCHER_PATH.into()),
    }));
    Some(entries)
}

/// The app in path order (TAR-08), by path relative to it: the tree with links put into it.
pub(super) struct App<'a> {
    items: BTreeMap<Vec<u8>, AppItem<'a>>,
}

enum AppItem<'a> {
    Tree(&'a Entry),
    /// Above a link, where the source has nothing.
    MadeDirectory,
    MadeLink(Vec<u8>),
}

impl AppItem<'_> {
    fn is_directory(&self) -> bool {
        match self {
            Self::Tree(entry) => entry.kind == EntryKind::Directory,
            Self::MadeDirectory => true,
            Self::MadeLink(_) => false,
        }
    }
}

impl<'a> App<'a> {
    /// Puts the links into the app; each hides what the source has there.
    pub(super) fn new(
        listing: &'a Listing,
        links: &[(BuildpackId, AppLink)],
        launch_layers: &BTreeSet<(&BuildpackId, &LayerName)>,
    ) -> Result<Self, ExportError> {
        let tree = listing.entries.iter().map(|entry| (entry.path.clone(), AppItem::Tree(entry)));
        let mut app = Self { items: tree.collect() };
        for (buildpack, link) in links {
            let fail = |reason| {
                let (buildpack, path) = (buildpack.clone(), link.path.escape_debug().to_string());
                Err(ExportError::AppLink { buildpack, path, reason })
            };
            if !is_clean(&link.path) || !(link.target.is_empty() || is_clean(&link.target)) {
                return fail("its path or target is not a clean relative path");
            }
            if !launch_layers.contains(&(buildpack, &link.layer)) {
                return fail("its layer is not part of the image");
            }
            for (end, _) in link.path.match_indices('/') {
                let parent = app.items.entry(link.path[..end].into()).or_insert(AppItem::MadeDirectory);
                if !parent.is_directory() {
                    return fail("a part of its path is not a directory");
                }
            }
            app.remove(link.path.as_bytes());
            let mut target = layer_directory(buildpack, &link.layer);
            if !link.target.is_empty() {
                target.push('/');
                target.push_str(&link.target);
            }
            app.items.insert(link.path.clone().into(), AppItem::MadeLink(target.into()));
        }
        Ok(app)
    }

    /// Removes a path and everything below it.
    fn remove(&mut self, path: &[u8]) {
        self.items.remove(path);
        let mut below = path.to_vec();
        below.push(b'/');
        let range = (Bound::Included(below.clone()), Bound::Unbounded);
        let gone: Vec<Vec<u8>> = self
            .items
            .range(range)
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&below))
            .cloned()
            .collect();
        for path in gone {
            self.items.remove(&path);
        }
    }

    /// The layers of the app: one for each slice, then one with the rest (EXP-04).
    pub(super) fn layers(
        &self,
        slices: &[Slice],
        owner: Owner,
    ) -> Result<Vec<Vec<LayerEntry<'_>>>, ExportError> {
        let mut slice_of: BTreeMap<&[u8], usize> = BTreeMap::new();
        for (number, slice) in slices.iter().enumerate() {
            let patterns = slice
                .paths
                .iter()
                .map(|pattern| SlicePattern::parse(pattern, APP_DIRECTORY))
                .collect::<Result<Vec<_>, _>>()?;
            // SLC-02: below a directory that matches, everything does. Parents come first.
            let mut whole_directories: HashSet<&[u8]> = HashSet::new();
            for (path, item) in &self.items {
                let text = String::from_utf8_lossy(path);
                let matches = parent_of(path).is_some_and(|parent| whole_directories.contains(parent))
                    || patterns.iter().any(|pattern| pattern.is_everything() || pattern.matches(&text));
                if matches {
                    if item.is_directory() {
                        whole_directories.insert(path);
                    }
                    // SLC-03
                    slice_of.entry(path).or_insert(number);
                }
            }
        }

        let mut layers: Vec<BTreeSet<&[u8]>> = vec![BTreeSet::new(); slices.len() + 1];
        for path in self.items.keys() {
            let number = slice_of.get(path.as_slice()).copied().unwrap_or(slices.len());
            layers[number].insert(path);
        }
        for layer in &mut layers[..slices.len()] {
            // SLC-04
            let parents: Vec<&[u8]> = layer.iter().flat_map(|path| parents_of(path)).collect();
            layer.extend(parents);
        }
        self.drop_emptied_directories(&mut layers[slices.len()]);
        Ok(layers
            .into_iter()
            .map(|paths| {
                if paths.is_empty() && !slices.is_empty() {
                    return vec![];
                }
                let mut entries = directories(APP_DIRECTORY, owner);
                entries.extend(paths.into_iter().map(|path| self.entry(path, owner)));
                entries
            })
            .collect())
    }

    /// SLC-05: a directory that had children and lost all of them to slices goes too.
    fn drop_emptied_directories(&self, rest: &mut BTreeSet<&[u8]>) {
        let all_parents: HashSet<&[u8]> = self.items.keys().filter_map(|path| parent_of(path)).collect();
        let mut kept_parents: HashSet<&[u8]> = HashSet::new();
        let mut kept = BTreeSet::new();
        // Last first, so that children are decided before their parents.
        while let Some(path) = rest.pop_last() {
            if all_parents.contains(path) && !kept_parents.contains(path) {
                continue;
            }
            kept_parents.extend(parent_of(path));
            kept.insert(path);
        }
        *rest = kept;
    }

    fn entry(&self, path: &[u8], owner: Owner) -> LayerEntry<'_> {
        let mut name = APP_DIRECTORY.as_bytes().to_vec();
        name.push(b'/');
        name.extend_from_slice(path);
        match &self.items[path] {
            AppItem::Tree(entry) => tree_entry(APP_DIRECTORY, entry, owner, ExecuteBits::Normal),
            AppItem::MadeDirectory => directory(name, owner),
            AppItem::MadeLink(target) => {
                LayerEntry { name, mode: 0o777, owner, content: Content::Symlink(target.clone()) }
            }
        }
    }

    /// Paths of the app as the image will have them.
    pub(super) fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.items.keys().map(Vec::as_slice)
    }
}

fn parent_of(path: &[u8]) -> Option<&[u8]> {
    path.iter().rposition(|&byte| byte == b'/').map(|slash| &path[..slash])
}

fn parents_of(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(parent_of(path), |path| parent_of(path))
}

/// Relative, without empty, `.` and `..` parts.
fn is_clean(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether a path would remove files of lower layers instead of adding one (R13).
pub(super) fn is_reserved(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|part| part.starts_with(b".wh."))
}
