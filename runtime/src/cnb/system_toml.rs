//! `system.toml`: buildpacks that a platform puts around every group.

use serde::Deserialize;

use super::order::{Order, OrderMember};
use crate::toml_text::{self, TomlError};

/// What stands before and behind every group.
///
/// # Spec
/// `platform.md` 0.15 "system.toml"; ORD-12 to ORD-14.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SystemToml {
    pub pre: Vec<OrderMember>,
    pub post: Vec<OrderMember>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SystemFile {
    system: SystemTable,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SystemTable {
    pre: BuildpacksTable,
    post: BuildpacksTable,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BuildpacksTable {
    buildpacks: Vec<OrderMember>,
}

impl SystemToml {
    /// Parses the text of a `system.toml`.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let SystemFile { system } = toml_text::parse(text)?;
        Ok(Self { pre: system.pre.buildpacks, post: system.post.buildpacks })
    }

    /// `order` with these buildpacks around each of its groups, except where a
    /// group names one of the same id itself.
    #[must_use]
    pub fn around(&self, mut order: Order) -> Order {
        for group in &mut order.groups {
            let missing = |members: &[OrderMember]| -> Vec<OrderMember> {
                let named = |member: &OrderMember| {
                    group.members.iter().any(|direct| direct.buildpack.id == member.buildpack.id)
                };
                members.iter().filter(|member| !named(member)).cloned().collect()
            };
            let (pre, post) = (missing(&self.pre), missing(&self.post));
            group.members.splice(0..0, pre);
            group.members.extend(post);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::cnb::order::OrderToml;

    const SYSTEM: &str = r#"
        [[system.pre.buildpacks]]
        id = "first"
        version = "1"
        [[system.pre.buildpacks]]
        id = "second"
        version = "1"
        optional = true
        [[system.post.buildpacks]]
        id = "last"
        version = "1"
    "#;

    /// Groups separated by `|`, `?` behind optional members.
    fn around(groups: &[&[&str]]) -> String {
        let mut text = String::new();
        for group in groups {
            text += "[[order]]\n";
            for name in *group {
                let (id, version) = name.split_once('@').unwrap();
                writeln!(text, "[[order.group]]\nid = \"{id}\"\nversion = \"{version}\"").unwrap();
            }
        }
        let order = OrderToml::parse(&text).unwrap().order;
        let shown =
            |member: &OrderMember| format!("{}{}", member.buildpack, if member.optional { "?" } else { "" });
        let order = SystemToml::parse(SYSTEM).unwrap().around(order);
        let groups =
            order.groups.iter().map(|group| group.members.iter().map(shown).collect::<Vec<_>>().join(" "));
        groups.collect::<Vec<_>>().join(" | ")
    }

    /// ORD-12, ORD-14
    #[test]
    fn ord_12_and_14_they_stand_around_every_group_and_may_be_optional() {
        assert_eq!(
            around(&[&["a@1"], &["b@1", "c@1"]]),
            "first@1 second@1? a@1 last@1 | first@1 second@1? b@1 c@1 last@1"
        );
    }

    #[test]
    fn ord_13_one_that_a_group_names_itself_is_left_out_there() {
        assert_eq!(
            around(&[&["a@1", "first@9"], &["last@1"]]),
            "second@1? a@1 first@9 last@1 | first@1 second@1? last@1"
        );
    }

    #[test]
    fn ord_15_a_malformed_file_is_an_error_and_an_empty_one_is_not() {
        assert_eq!(SystemToml::parse("").unwrap(), SystemToml::default());
        SystemToml::parse("[system]\npre = 1\n").unwrap_err();
        SystemToml::parse("[[system.pre.buildpacks]]\nid = \"a\"\n").unwrap_err();
    }
}
