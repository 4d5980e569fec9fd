//! What is in each layer: entries in their order, ready to be written as tar.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

use super::{ExportError, FileForm, LAYERS_DIRECTORY, Launcher};
use crate::cnb::id::{BuildpackId, LayerName};
use crate::cnb::launch::Slice;
use crate::cnb::sbom::Sbom;
use crate::cnb::slice::SlicePattern;
use crate::executor::AppLink;
use crate::oci::layer::Owner;
use crate::tree::{Entry, EntryKind, Listing, SpecialFile};

/// Where the launcher is in an image.
pub(super) const LAUNCHER_PATH: &str = "/cnb/lifecycle/launcher";

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerEntry<'a> {
    /// Absolute, without a trailing slash.
    pub name: Vec<u8>,
    pub mode: u32,
    pub owner: Owner,
    pub content: Content<'a>,
}

/// What a layer's entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Directory,
    Symlink(Vec<u8>),
    Bytes(&'a [u8]),
    Special(SpecialFile),
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
    ends(path).map(|end| directory(&path[..end], owner)).collect()
}

/// Where the names of the directories above and including `path` end.
pub(super) fn ends(path: &str) -> impl Iterator<Item = usize> {
    path.match_indices('/').map(|(place, _)| place).skip(1).chain([path.len()])
}

/// Which permissions files and directories of a tree get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Modes {
    /// Readable by all and writable by the owner, and executable as they are: a
    /// buildpack set those bits, so they are the same on every machine.
    KeepExecute,
    /// The same, but executable by all or none: the source's bits are left to the
    /// mask of whoever has it.
    Normal,
    /// As on disk (TAR-05).
    OnDisk,
}

/// Lets the group do what the owner may.
pub(super) fn open_to_group(entries: &mut [LayerEntry<'_>]) {
    for entry in entries {
        if !matches!(entry.content, Content::Symlink(_)) {
            entry.mode |= (entry.mode >> 3) & 0o070;
        }
    }
}

/// Where a tree is in an image, what is above it there, and how its files look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ground<'a> {
    /// Absolute.
    pub root: String,
    /// From the top down to the root itself.
    pub above: Vec<LayerEntry<'a>>,
    /// Of everything below the root.
    pub owner: Owner,
    pub modes: Modes,
    /// Whether the group may do what the owner may.
    pub is_group_writable: bool,
}

impl Ground<'_> {
    /// A root that nobody has made: all of its parents are like everything below it.
    pub(super) fn normalised(root: String, owner: Owner, modes: Modes) -> Self {
        Self { above: directories(&root, owner), root, owner, modes, is_group_writable: false }
    }

    fn name_of(&self, path: &[u8]) -> Vec<u8> {
        let mut name = Vec::with_capacity(self.root.len() + 1 + path.len());
        name.extend_from_slice(self.root.as_bytes());
        name.push(b'/');
        name.extend_from_slice(path);
        name
    }

    /// An entry of the tree as it is in the image.
    fn entry<'a>(&self, entry: &'a Entry) -> LayerEntry<'a> {
        let (normal, content) = match &entry.kind {
            EntryKind::Directory => (0o755, Content::Directory),
            EntryKind::Symlink { target } => (0o777, Content::Symlink(target.clone())),
            EntryKind::Special(special) => (0o644, Content::Special(*special)),
            EntryKind::File { size, execute } => {
                let execute = match self.modes {
                    Modes::Normal if *execute != 0 => 0o111,
                    _ => *execute,
                };
                (0o644 | execute, Content::File { entry, size: *size })
            }
        };
        let mode = if self.modes == Modes::OnDisk { entry.mode } else { normal };
        LayerEntry { name: self.name_of(&entry.path), mode, owner: self.owner, content }
    }
}

/// A whole tree, in walk order (TAR-08).
pub(super) fn tree_layer<'a>(ground: &Ground<'a>, listing: &'a Listing) -> Vec<LayerEntry<'a>> {
    let mut entries = ground.above.clone();
    entries.extend(listing.entries.iter().map(|entry| ground.entry(entry)));
    if ground.is_group_writable {
        open_to_group(&mut entries);
    }
    entries
}

/// A buildpack's layer.
pub(super) fn buildpack_ground<'a>(buildpack: &BuildpackId, name: &LayerName, form: FileForm) -> Ground<'a> {
    let ground = Ground::normalised(layer_directory(buildpack, name), form.owner, Modes::KeepExecute);
    Ground { is_group_writable: form.is_group_writable, ..ground }
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
pub(super) fn process_types_layer<'a>(
    types: impl Iterator<Item = &'a str>,
) -> Option<Vec<LayerEntry<'static>>> {
    let links = types.map(|process_type| LayerEntry {
        name: format!("/cnb/process/{process_type}").into(),
        mode: 0o755,
        owner: Owner::ROOT,
        content: Content::Symlink(LAUNCHER_PATH.into()),
    });
    let mut links = links.peekable();
    links.peek()?;
    let mut entries = directories("/cnb/process", Owner::ROOT);
    entries.extend(links);
    Some(entries)
}

/// The app in path order (TAR-08), by path relative to it: the tree with links put into it.
pub(super) struct App<'a> {
    ground: Ground<'a>,
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
        ground: Ground<'a>,
        listing: &'a Listing,
        links: &[(BuildpackId, AppLink)],
        launch_layers: &BTreeSet<(&BuildpackId, &LayerName)>,
    ) -> Result<Self, ExportError> {
        let tree = listing.entries.iter().map(|entry| (entry.path.clone(), AppItem::Tree(entry)));
        let mut app = Self { ground, items: tree.collect() };
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
    pub(super) fn layers(&self, slices: &[Slice]) -> Result<Vec<Vec<LayerEntry<'a>>>, ExportError> {
        let mut layers: Vec<BTreeSet<&[u8]>> = Vec::with_capacity(slices.len() + 1);
        let mut taken = Taken::of(self.items.keys());
        for slice in slices {
            let patterns = slice
                .paths
                .iter()
                .map(|pattern| SlicePattern::parse(pattern, &self.ground.root))
                .collect::<Result<Vec<_>, _>>()?;
            // SLC-02: below a directory that matches, everything does. Parents come first.
            let mut whole_directories: HashSet<&[u8]> = HashSet::new();
            let mut layer: BTreeSet<&[u8]> = BTreeSet::new();
            for (path, item) in &self.items {
                let text = String::from_utf8_lossy(path);
                let matches = parent_of(path).is_some_and(|parent| whole_directories.contains(parent))
                    || patterns.iter().any(|pattern| pattern.is_everything() || pattern.matches(&text));
                if matches {
                    if item.is_directory() {
                        whole_directories.insert(path);
                    }
                    // SLC-03
                    if !taken.has(path) {
                        layer.insert(path);
                    }
                }
            }
            taken.add(&layer);
            // SLC-04
            let parents: Vec<&[u8]> = layer.iter().flat_map(|path| parents_of(path)).collect();
            layer.extend(parents);
            layers.push(layer);
        }
        layers.push(self.items.keys().map(Vec::as_slice).filter(|path| !taken.has(path)).collect());
        Ok(layers
            .into_iter()
            .enumerate()
            .map(|(number, paths)| {
                // An app without files is still there, and nobody's slice.
                let is_all_of_it = number == slices.len() && self.items.is_empty();
                if paths.is_empty() && !is_all_of_it {
                    return vec![];
                }
                let mut entries = self.ground.above.clone();
                entries.extend(paths.into_iter().map(|path| self.entry(path)));
                entries
            })
            .collect())
    }

    fn entry(&self, path: &[u8]) -> LayerEntry<'a> {
        let owner = self.ground.owner;
        let name = self.ground.name_of(path);
        match &self.items[path] {
            AppItem::Tree(entry) => self.ground.entry(entry),
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

/// Which paths of an app are in the layer of a slice.
///
/// A directory that had children and lost all of them to slices is taken with
/// them (SLC-05): from then on no slice gets it, and neither does the rest.
struct Taken<'a> {
    paths: HashSet<&'a [u8]>,
    /// How many children of a directory are not taken.
    left: HashMap<&'a [u8], usize>,
}

impl<'a> Taken<'a> {
    fn of(paths: impl Iterator<Item = &'a Vec<u8>>) -> Self {
        let mut left = HashMap::new();
        for parent in paths.filter_map(|path| parent_of(path)) {
            *left.entry(parent).or_insert(0) += 1;
        }
        Self { paths: HashSet::new(), left }
    }

    fn has(&self, path: &[u8]) -> bool {
        self.paths.contains(path)
    }

    fn add(&mut self, paths: &BTreeSet<&'a [u8]>) {
        self.paths.extend(paths);
        for path in paths {
            let mut path = *path;
            while let Some(parent) = parent_of(path) {
                let left = self.left.get_mut(parent).expect("a parent was counted with its child");
                *left -= 1;
                if *left > 0 || !self.paths.insert(parent) {
                    break;
                }
                path = parent;
            }
        }
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
