//! The packages of a lock as a graph: who stands in whose `node_modules`, who
//! needs whom, and from that who is there for development only. Knows nothing
//! of platforms, files or downloads.
//!
//! The rules are those of npm 11. It works the flags out again at each install
//! instead of trusting the lock's, which another version may have written.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::lock::{Dependencies, Entry, Lock, Text};
use crate::manifest::Manifest;

/// The number of a package in its tree.
pub type Id = usize;

/// The app itself.
pub const ROOT: Id = 0;

/// Why one package needs another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It needs it to work.
    Production,
    /// Its authors need it.
    Development,
    /// It can do without.
    Optional,
    /// It has to stand beside it.
    Peer,
    /// If it is there, it has to be of that version.
    PeerOptional,
    /// It is a package of the same workspace.
    Workspace,
}

impl Kind {
    fn is_optional(self) -> bool {
        matches!(self, Self::Optional | Self::PeerOptional)
    }

    fn is_peer(self) -> bool {
        matches!(self, Self::Peer | Self::PeerOptional)
    }
}

/// One need of a package.
#[derive(Debug, Clone)]
pub struct Edge<'a> {
    /// The name under which it is looked for.
    pub name: Text<'a>,
    /// Which version.
    pub version: Text<'a>,
    /// Why.
    pub kind: Kind,
    /// What is found.
    pub to: Option<Id>,
}

/// What a package is there for. All are true of one that nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "npm's flags, which overlap")]
pub struct Flags {
    /// For development only.
    pub dev: bool,
    /// Because of something optional only.
    pub optional: bool,
    /// For development or because of something optional, but not for one alone.
    pub dev_optional: bool,
    /// Because of peers only.
    pub peer: bool,
    /// For nothing.
    pub extraneous: bool,
}

/// A package at its place, or a link to one.
#[derive(Debug)]
pub struct Node<'a> {
    /// Where it is, relative to the lock. Nothing but plain names.
    pub place: Text<'a>,
    /// The name of its directory, with its scope.
    pub name: Text<'a>,
    /// What is known of it.
    pub entry: Entry<'a>,
    /// The package in whose `node_modules` it is.
    pub parent: Option<Id>,
    /// The package in whose directory it is otherwise.
    pub outer: Option<Id>,
    /// Where it leads, if it is a link.
    pub target: Option<Id>,
    /// What is in its `node_modules`, by name.
    pub children: BTreeMap<Text<'a>, Id>,
    /// What it needs.
    pub edges: Vec<Edge<'a>>,
    /// Who needs it: the package, and which of its edges.
    pub needed_by: Vec<(Id, usize)>,
    /// What it is there for.
    pub flags: Flags,
    /// The package whose archive it came in.
    pub bundler: Option<Id>,
}

impl Node<'_> {
    /// The name of the package itself, which is another one for an alias.
    pub fn package_name(&self) -> &str {
        self.entry.name.as_ref().unwrap_or(&self.name).as_str()
    }

    /// Its version, for messages.
    pub fn version(&self) -> &str {
        self.entry.version.as_ref().map_or("", Text::as_str)
    }

    /// What messages call it.
    pub fn title(&self) -> String {
        match self.version() {
            "" => self.package_name().to_owned(),
            version => format!("{}@{version}", self.package_name()),
        }
    }

    /// Whether it is a link.
    pub fn is_link(&self) -> bool {
        self.target.is_some()
    }
}

/// The graph.
#[derive(Debug)]
pub struct Tree<'a> {
    /// The name and the version that the app had when the lock was written.
    pub title: (Option<Text<'a>>, Option<Text<'a>>),
    /// All packages, the app first.
    pub nodes: Vec<Node<'a>>,
}

/// What is wrong with a lock as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeError {
    /// A place that is no path in the app.
    Place(String),
    /// A package in the `node_modules` of nothing.
    Homeless(String),
    /// A link to a place that the lock does not know: where it is, where it leads.
    Target(String, String),
}

/// How dependencies are looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// As before npm 7: peers are nobody's business.
    pub ignore_peers: bool,
}

impl<'a> Tree<'a> {
    /// Makes the graph of `lock` for the app `root`. `manifests` has the
    /// `package.json` of the packages in the app, by place; they count more than
    /// what the lock remembers of them.
    ///
    /// # Errors
    /// When places and links do not fit together.
    pub fn new(
        lock: Lock<'a>,
        root: &Manifest,
        mut manifests: BTreeMap<String, Manifest>,
        options: Options,
    ) -> Result<Self, TreeError> {
        let mut nodes = vec![Node::new(Text::owned(""), Text::owned(""), root.entry.clone())];
        for (place, entry) in lock.packages {
            if place.as_str().is_empty() {
                continue;
            }
            if !is_plain(place.as_str()) {
                return Err(TreeError::Place(place.as_str().to_owned()));
            }
            let name = part(&place, name_start(place.as_str()), place.as_str().len());
            let entry = match manifests.remove(place.as_str()) {
                Some(manifest) => merged(manifest.entry, entry),
                None => entry,
            };
            nodes.push(Node::new(place, name, entry));
        }
        let mut tree = Self { title: (lock.name, lock.version), nodes };
        tree.settle()?;
        tree.follow_links()?;
        tree.connect(&workspace_patterns(&root.entry.workspaces), options);
        tree.flag();
        for id in 0..tree.nodes.len() {
            tree.nodes[id].bundler = tree.bundler(id, &mut Vec::new());
        }
        Ok(tree)
    }

    /// The package at `place`.
    pub fn find(&self, place: &str) -> Option<Id> {
        self.nodes.iter().position(|node| node.place.as_str() == place)
    }

    /// The package around this one.
    pub fn around(&self, id: Id) -> Option<Id> {
        self.nodes[id].parent.or(self.nodes[id].outer)
    }

    /// The outermost package of the chain of `node_modules` that `id` is in: the
    /// app, or a directory that something links to.
    pub fn top(&self, mut id: Id) -> Id {
        while let Some(parent) = self.nodes[id].parent {
            id = parent;
        }
        id
    }

    /// Whether it is the directory of a package of the workspace.
    pub fn is_workspace(&self, id: Id) -> bool {
        self.nodes[ROOT].edges.iter().any(|edge| {
            edge.kind == Kind::Workspace
                && edge.to.is_some_and(|to| to == id || self.nodes[to].target == Some(id))
        })
    }

    /// The edges that lead to a package.
    pub fn edges_to(&self, id: Id) -> impl Iterator<Item = (Id, &Edge<'a>)> {
        self.nodes[id].needed_by.iter().map(|&(from, edge)| (from, &self.nodes[from].edges[edge]))
    }

    /// Puts each package into the one around it.
    fn settle(&mut self) -> Result<(), TreeError> {
        let places: BTreeMap<String, Id> =
            self.nodes.iter().enumerate().map(|(id, node)| (node.place.as_str().to_owned(), id)).collect();
        for id in 1..self.nodes.len() {
            let place = self.nodes[id].place.as_str();
            if let Some(around) = owner(place) {
                let Some(&parent) = places.get(around) else {
                    return Err(TreeError::Homeless(place.to_owned()));
                };
                self.nodes[id].parent = Some(parent);
                let name = self.nodes[id].name.clone();
                self.nodes[parent].children.insert(name, id);
            } else {
                let outer = ancestors(place).find_map(|directory| places.get(directory).copied());
                self.nodes[id].outer = outer;
            }
        }
        Ok(())
    }

    fn follow_links(&mut self) -> Result<(), TreeError> {
        for id in 1..self.nodes.len() {
            let node = &self.nodes[id];
            if !node.entry.link {
                continue;
            }
            let resolved = node.entry.resolved.as_ref().map_or("", Text::as_str);
            let target = normal(resolved).and_then(|place| self.find(&place)).filter(|target| {
                // A link to a link would be a circle before long.
                !self.nodes[*target].entry.link && !self.nodes[*target].is_link()
            });
            let Some(target) = target else {
                return Err(TreeError::Target(node.place.as_str().to_owned(), resolved.to_owned()));
            };
            let package = self.nodes[target].entry.clone();
            let node = &mut self.nodes[id];
            node.target = Some(target);
            node.entry = package;
        }
        Ok(())
    }

    /// Finds out who needs whom.
    fn connect(&mut self, workspaces: &[String], options: Options) {
        for id in 0..self.nodes.len() {
            let node = &self.nodes[id];
            if node.is_link() {
                continue;
            }
            let mut edges: BTreeMap<Text<'a>, (Text<'a>, Kind)> = BTreeMap::new();
            let mut add = |dependencies: &Dependencies<'a>, kind: &dyn Fn(&str) -> Kind| {
                for (name, version) in dependencies {
                    edges.insert(name.clone(), (version.clone(), kind(name.as_str())));
                }
            };
            if !options.ignore_peers {
                let meta = &node.entry.peer_dependencies_meta;
                add(&node.entry.peer_dependencies, &|name| {
                    let optional = meta.get(name).and_then(|meta| meta.get("optional"));
                    if optional.and_then(Value::as_bool) == Some(true) {
                        Kind::PeerOptional
                    } else {
                        Kind::Peer
                    }
                });
            }
            add(&node.entry.dependencies, &|_| Kind::Production);
            add(&node.entry.optional_dependencies, &|_| Kind::Optional);
            if node.parent.is_none() {
                add(&node.entry.dev_dependencies, &|_| Kind::Development);
            }
            if id == ROOT {
                for (name, &child) in &node.children {
                    let Some(target) = self.nodes[child].target else { continue };
                    let place = &self.nodes[target].place;
                    if is_member(workspaces, place.as_str()) {
                        let version = Text::owned(format!("file:{}", place.as_str()));
                        edges.insert(name.clone(), (version, Kind::Workspace));
                    }
                }
            }
            let edges: Vec<Edge<'a>> = edges
                .into_iter()
                .map(|(name, (version, kind))| Edge {
                    to: self.resolve(id, name.as_str()),
                    name,
                    version,
                    kind,
                })
                .collect();
            for (index, edge) in edges.iter().enumerate() {
                if let Some(to) = edge.to {
                    self.nodes[to].needed_by.push((id, index));
                }
            }
            self.nodes[id].edges = edges;
        }
    }

    /// What `require` finds under `name` from inside a package.
    fn resolve(&self, mut from: Id, name: &str) -> Option<Id> {
        loop {
            if let Some(child) = self.nodes[from].children.get(name) {
                return Some(*child);
            }
            from = self.around(from)?;
        }
    }

    /// Works out the flags: all are set at first, and a need takes away what it
    /// disproves, until nothing changes.
    fn flag(&mut self) {
        self.nodes[ROOT].flags =
            Flags { dev: false, optional: false, dev_optional: false, peer: false, extraneous: false };
        let mut seen = vec![false; self.nodes.len()];
        let mut pending = vec![ROOT];
        while let Some(id) = pending.pop() {
            seen[id] = true;
            let from = self.nodes[id].flags;
            if !from.extraneous {
                // What is around a needed package is needed.
                let mut around = self.around(id);
                while let Some(outer) = around.filter(|outer| self.nodes[*outer].flags.extraneous) {
                    self.nodes[outer].flags.extraneous = false;
                    around = self.around(outer);
                }
            }
            if let Some(target) = self.nodes[id].target {
                let before = self.nodes[target].flags;
                let after = before.without_what(from);
                self.nodes[target].flags = after;
                if after != before || !seen[target] {
                    pending.push(target);
                }
                continue;
            }
            for index in 0..self.nodes[id].edges.len() {
                let Edge { kind, to: Some(to), .. } = self.nodes[id].edges[index] else { continue };
                let before = self.nodes[to].flags;
                let after = before.after_need(from, kind);
                if after != before {
                    self.nodes[to].flags = after;
                    pending.push(to);
                }
            }
        }
        for (id, node) in self.nodes.iter_mut().enumerate() {
            if seen[id] && id != ROOT && (node.flags.dev || node.flags.optional) {
                node.flags.dev_optional = false;
            }
        }
    }

    /// The package in whose archive `id` came: the outermost one around it that
    /// bundles it by name, or by way of something that it bundles.
    fn bundler(&self, id: Id, path: &mut Vec<Id>) -> Option<Id> {
        let parent = self.nodes[id].parent?;
        if path.contains(&id) || !self.has_bundle_around(id) {
            return None;
        }
        path.push(id);
        if let Some(outer) = self.bundler(parent, path) {
            return Some(outer);
        }
        let node = &self.nodes[id];
        if names_of(&self.nodes[parent].entry.bundle_dependencies).any(|name| name == node.name.as_str()) {
            return Some(parent);
        }
        node.needed_by.iter().any(|&(from, _)| self.bundler(from, path) == Some(parent)).then_some(parent)
    }

    fn has_bundle_around(&self, mut id: Id) -> bool {
        while let Some(parent) = self.nodes[id].parent {
            if names_of(&self.nodes[parent].entry.bundle_dependencies).next().is_some() {
                return true;
            }
            id = parent;
        }
        false
    }
}

impl<'a> Node<'a> {
    fn new(place: Text<'a>, name: Text<'a>, entry: Entry<'a>) -> Self {
        Self {
            place,
            name,
            entry,
            parent: None,
            outer: None,
            target: None,
            children: BTreeMap::new(),
            edges: Vec::new(),
            needed_by: Vec::new(),
            flags: Flags { dev: true, optional: true, dev_optional: true, peer: true, extraneous: true },
            bundler: None,
        }
    }
}

impl Flags {
    /// What is left for the target of a link with the flags `link`.
    fn without_what(self, link: Self) -> Self {
        Self {
            dev: self.dev && link.dev,
            optional: self.optional && link.optional,
            dev_optional: self.dev_optional && link.dev_optional,
            peer: self.peer && link.peer,
            extraneous: self.extraneous && link.extraneous,
        }
    }

    /// What is left when a package with the flags `from` needs this one.
    fn after_need(self, from: Self, kind: Kind) -> Self {
        let (dev, optional, peer) = (kind == Kind::Development, kind.is_optional(), kind.is_peer());
        let after = Self {
            extraneous: self.extraneous && (from.extraneous || peer && optional),
            dev: self.dev && (from.dev || dev),
            optional: self.optional && (from.optional || optional),
            ..self
        };
        Self {
            dev_optional: self.dev_optional
                && (from.dev_optional || from.dev || from.optional || dev || optional),
            peer: self.peer && (from.peer || peer),
            ..after
        }
    }
}

/// A package of the app: its own words, and of the lock's what it cannot say.
fn merged<'a>(own: Entry<'a>, locked: Entry<'a>) -> Entry<'a> {
    Entry { resolved: locked.resolved, integrity: locked.integrity, link: locked.link, ..own }
}

/// The names in a list such as `bundleDependencies`.
pub fn names_of(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Where a workspace says that its packages are.
fn workspace_patterns(workspaces: &Value) -> Vec<String> {
    let list = if workspaces.is_object() { &workspaces["packages"] } else { workspaces };
    names_of(list).map(str::to_owned).collect()
}

/// Whether a directory is one of a workspace. A later pattern counts more.
fn is_member(patterns: &[String], place: &str) -> bool {
    patterns.iter().fold(false, |member, pattern| {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, pattern.as_str()),
        };
        let pattern = pattern.trim_start_matches("./").trim_matches('/');
        if fast_glob::glob_match(pattern, place) { !negated } else { member }
    })
}

/// Whether a place consists of plain names, so that it cannot lead elsewhere.
fn is_plain(place: &str) -> bool {
    place.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.contains(['\\', '\0']))
}

/// The place that a path in the app means; `None` when it leads out.
pub fn normal(path: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    if path.starts_with('/') {
        return None;
    }
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            name => names.push(name),
        }
    }
    Some(names.join("/"))
}

/// Where the name of the package at `place` begins: its last name, with the
/// scope before it.
fn name_start(place: &str) -> usize {
    let last = place.rfind('/').map_or(0, |slash| slash + 1);
    let before = place[..last].trim_end_matches('/');
    let scope = before.rfind('/').map_or(0, |slash| slash + 1);
    if before[scope..].starts_with('@') { scope } else { last }
}

/// The place of the package in whose `node_modules` a place is.
pub fn owner(place: &str) -> Option<&str> {
    let around = place[..name_start(place)].strip_suffix("node_modules/")?;
    match around {
        "" => Some(""),
        around => around.strip_suffix('/'),
    }
}

/// The directories around a place, the nearest first, down to the app.
fn ancestors(place: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(place), |place| match place.rfind('/') {
        Some(slash) => Some(&place[..slash]),
        None if place.is_empty() => None,
        None => Some(""),
    })
    .skip(1)
}

/// A part of a text, borrowed where the text is.
fn part<'a>(text: &Text<'a>, start: usize, end: usize) -> Text<'a> {
    match &text.0 {
        Cow::Borrowed(text) => Text(Cow::Borrowed(&text[start..end])),
        Cow::Owned(text) => Text::owned(&text[start..end]),
    }
}
