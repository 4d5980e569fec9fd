//! From an order to the groups it stands for.

use std::rc::Rc;

use super::{Builder, Buildpack, BuildpackKind, Catalog, CatalogError, Extension};
use crate::cnb::api::ApiVersion;
use crate::cnb::id::{BuildpackId, BuildpackRef, ExecEnv};
use crate::cnb::order::{Order, OrderGroup, OrderMember};

/// Groups an order may stand for; composites in composites multiply.
const MAX_GROUPS: usize = 10_000;

/// Composites inside each other, and members of one group.
const MAX_MEMBERS: usize = 1_000;

/// One member of an expanded group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupMember<'a> {
    pub module: Module<'a>,
    pub optional: bool,
}

/// What a member of a group can be; never a composite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module<'a> {
    Buildpack(&'a Buildpack),
    Extension(&'a Extension),
}

impl<'a> Module<'a> {
    /// Its id and version; a buildpack and an extension may have the same.
    #[must_use]
    pub fn reference(self) -> &'a BuildpackRef {
        match self {
            Self::Buildpack(buildpack) => &buildpack.reference,
            Self::Extension(extension) => &extension.reference,
        }
    }

    /// Whether it is an image extension.
    #[must_use]
    pub fn is_extension(self) -> bool {
        matches!(self, Self::Extension(_))
    }

    /// Whether it says that it is for `exec_env`.
    ///
    /// # Spec
    /// DET-15, API-21: the list counts from Buildpack API 0.12 on.
    fn is_for(self, exec_env: &ExecEnv) -> bool {
        let (api, exec_envs) = match self {
            Self::Buildpack(buildpack) => (buildpack.descriptor.api, &buildpack.descriptor.exec_envs),
            Self::Extension(extension) => (extension.descriptor.api, &extension.descriptor.exec_envs),
        };
        api < ApiVersion::zero(12) || exec_env.is_among(exec_envs)
    }
}

impl Builder {
    /// The groups that the order stands for, in the order they are to be tried.
    ///
    /// Members for other execution environments than `exec_env` are left out, as
    /// if the order did not name them; `None` asks nobody.
    ///
    /// # Spec
    /// ORD-02 to ORD-09, ORD-11, DET-15, BPT-05.
    pub fn groups<'a>(&'a self, exec_env: Option<&'a ExecEnv>) -> Expansion<'a> {
        Expansion::new(&self.catalog, &self.order, &self.extensions, exec_env)
    }
}

/// The groups of an order, one at a time. Made lazily: the first group usually passes.
#[derive(Debug)]
pub struct Expansion<'a> {
    catalog: &'a Catalog,
    exec_env: Option<&'a ExecEnv>,
    /// Groups of the order that were not begun.
    groups: std::slice::Iter<'a, OrderGroup>,
    extensions: &'a Order,
    /// What is still to be expanded; the next one last.
    pending: Vec<Pending<'a>>,
    yielded: usize,
}

/// A group of which the front is settled.
#[derive(Debug)]
struct Pending<'a> {
    done: Vec<GroupMember<'a>>,
    /// Members looked at, those that are not in `done` too.
    seen: usize,
    rest: Option<Rc<Rest<'a>>>,
}

impl<'a> Pending<'a> {
    /// The same front, before another rest; one more member is looked at.
    fn before(&self, rest: Option<Rc<Rest<'a>>>) -> Self {
        Self { done: self.done.clone(), seen: self.seen + 1, rest }
    }
}

/// Members still to be looked at. Shared tails, so that composites side by side
/// cost no copies.
#[derive(Debug)]
struct Rest<'a> {
    member: &'a OrderMember,
    of: Kind<'a>,
    next: Option<Rc<Rest<'a>>>,
    length: usize,
}

/// What an order names.
#[derive(Debug, Clone)]
enum Kind<'a> {
    /// A buildpack, and the composites it comes from.
    Buildpack(Option<Rc<Ancestor<'a>>>),
    Extension,
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
fn chain<'a>(members: &'a [OrderMember], of: &Kind<'a>, next: Option<Rc<Rest<'a>>>) -> Option<Rc<Rest<'a>>> {
    members.iter().rev().fold(next, |next, member| {
        let length = next.as_ref().map_or(0, |next| next.length) + 1;
        Some(Rc::new(Rest { member, of: of.clone(), next, length }))
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

/// The same id counts once, whatever the versions (ORD-07).
fn has(done: &[GroupMember<'_>], id: &BuildpackId, extension: bool) -> bool {
    done.iter().any(|member| member.module.is_extension() == extension && member.module.reference().id == *id)
}

impl<'a> Iterator for Expansion<'a> {
    type Item = Result<Vec<GroupMember<'a>>, CatalogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_group();
        if matches!(next, Err(_) | Ok(None)) {
            self.pending.clear();
            self.groups = [].iter();
        }
        next.transpose()
    }
}

impl<'a> Expansion<'a> {
    pub(super) fn new(
        catalog: &'a Catalog,
        order: &'a Order,
        extensions: &'a Order,
        exec_env: Option<&'a ExecEnv>,
    ) -> Self {
        Self { catalog, exec_env, groups: order.groups.iter(), extensions, pending: Vec::new(), yielded: 0 }
    }

    /// Begins the next group of the order: with each group of extensions in
    /// front, and last without any (ORD-09).
    fn begin(&mut self) -> bool {
        let Some(group) = self.groups.next() else { return false };
        let rest = chain(&group.members, &Kind::Buildpack(None), None);
        self.pending.push(Pending { done: Vec::new(), seen: 0, rest: rest.clone() });
        for extensions in self.extensions.groups.iter().rev() {
            let rest = chain(&extensions.members, &Kind::Extension, rest.clone());
            self.pending.push(Pending { done: Vec::new(), seen: 0, rest });
        }
        true
    }

    fn next_group(&mut self) -> Result<Option<Vec<GroupMember<'a>>>, CatalogError> {
        loop {
            let Some(Pending { mut done, mut seen, mut rest }) = self.pending.pop() else {
                if self.begin() {
                    continue;
                }
                return Ok(None);
            };
            let composite = loop {
                let Some(here) = rest.clone() else { break None };
                let wanted = &here.member.buildpack;
                let extension = matches!(here.of, Kind::Extension);
                if !has(&done, &wanted.id, extension) {
                    let module = if extension {
                        Module::Extension(self.catalog.extension(wanted)?)
                    } else {
                        let buildpack = self.catalog.get(wanted)?;
                        if let BuildpackKind::Composite(order) = &buildpack.kind
                            && self.is_wanted(here.member)
                        {
                            break Some((here, buildpack, order));
                        }
                        Module::Buildpack(buildpack)
                    };
                    if self.is_wanted(here.member) && self.exec_env.is_none_or(|wanted| module.is_for(wanted))
                    {
                        done.push(GroupMember { module, optional: here.member.optional });
                    }
                }
                seen += 1;
                rest.clone_from(&here.next);
            };
            let Some((here, buildpack, order)) = composite else {
                self.yielded += 1;
                if self.yielded > MAX_GROUPS {
                    return Err(CatalogError::TooLarge { limit: MAX_GROUPS, of: "groups" });
                }
                return Ok(Some(done));
            };
            self.replace(&here, buildpack, order, &Pending { done, seen, rest: None })?;
        }
    }

    /// Whether the order itself wants this member in the execution environment.
    fn is_wanted(&self, member: &OrderMember) -> bool {
        self.exec_env.is_none_or(|exec_env| exec_env.is_among(&member.exec_envs))
    }

    /// Replaces a composite by each of its groups in turn.
    fn replace(
        &mut self,
        here: &Rest<'a>,
        buildpack: &'a Buildpack,
        order: &'a Order,
        front: &Pending<'a>,
    ) -> Result<(), CatalogError> {
        let above = match &here.of {
            Kind::Buildpack(above) => above.clone(),
            Kind::Extension => None,
        };
        if contains(above.as_ref(), &buildpack.reference) {
            return Err(CatalogError::Cycle { buildpack: buildpack.reference.clone() });
        }
        let depth = above.as_ref().map_or(0, |above| above.depth) + 1;
        if front.seen + here.length > MAX_MEMBERS || depth > MAX_MEMBERS || self.pending.len() > MAX_GROUPS {
            return Err(CatalogError::TooLarge { limit: MAX_MEMBERS, of: "members of a group" });
        }
        let within =
            Kind::Buildpack(Some(Rc::new(Ancestor { buildpack: &buildpack.reference, above, depth })));
        if here.member.optional {
            // Tried last: the outer group without it (ORD-04).
            self.pending.push(front.before(here.next.clone()));
        }
        for group in order.groups.iter().rev() {
            let rest = chain(&group.members, &within, here.next.clone());
            self.pending.push(front.before(rest));
        }
        Ok(())
    }
}
