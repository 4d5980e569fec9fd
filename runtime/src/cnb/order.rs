//! Orders: `order.toml`, and `[[order]]` of a composite buildpack.

use serde::Deserialize;

use super::id::{BuildpackId, BuildpackRef, BuildpackVersion, ExecEnv};
use crate::toml_text::{self, TomlError};

/// Groups to be tried, in this order; the first that passes builds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Order {
    pub groups: Vec<OrderGroup>,
}

/// Buildpacks that build together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct OrderGroup {
    #[serde(default, rename = "group")]
    pub members: Vec<OrderMember>,
}

/// One buildpack of a group, possibly a composite one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderMember {
    pub buildpack: BuildpackRef,
    /// Whether the group can do without it.
    pub optional: bool,
    /// Execution environments it is for; empty means all (BPT-05).
    pub exec_envs: Vec<ExecEnv>,
}

/// The spelling of a member in TOML.
#[derive(Deserialize)]
struct MemberTable {
    id: BuildpackId,
    version: BuildpackVersion,
    #[serde(default)]
    optional: bool,
    #[serde(default, rename = "exec-env")]
    exec_env: ExecEnvList,
}

impl<'de> Deserialize<'de> for OrderMember {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = MemberTable::deserialize(deserializer)?;
        Ok(Self {
            buildpack: BuildpackRef { id: table.id, version: table.version },
            optional: table.optional,
            exec_envs: table.exec_env.0,
        })
    }
}

/// A list of execution environments, as names or as tables with `name`.
///
/// # Spec
/// BPT-04: the specification writes tables, the reference lifecycle names.
#[derive(Debug, Default)]
pub(super) struct ExecEnvList(pub(super) Vec<ExecEnv>);

#[derive(Deserialize)]
#[serde(untagged)]
enum ExecEnvSpelling {
    Name(ExecEnv),
    Table { name: ExecEnv },
}

impl<'de> Deserialize<'de> for ExecEnvList {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spellings = Vec::<ExecEnvSpelling>::deserialize(deserializer)?;
        let name = |spelling| match spelling {
            ExecEnvSpelling::Name(name) | ExecEnvSpelling::Table { name } => name,
        };
        Ok(Self(spellings.into_iter().map(name).collect()))
    }
}

/// `order.toml`: what a platform offers.
///
/// # Spec
/// `platform.md` 0.15 "order.toml"; ORD-08 and ORD-10: a member needs `id` and
/// `version`, and extensions are optional whatever is said of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrderToml {
    pub order: Order,
    /// `[[order-extensions]]`: each of these groups is tried in front of every
    /// group of buildpacks, then none (ORD-09).
    pub extensions: Order,
}

#[derive(Deserialize)]
struct OrderFile {
    #[serde(default)]
    order: Vec<OrderGroup>,
    #[serde(default, rename = "order-extensions")]
    extensions: Vec<OrderGroup>,
}

impl OrderToml {
    /// Parses the text of the file. One without any order is valid, and stands for no group.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let OrderFile { order, mut extensions } = toml_text::parse(text)?;
        extensions.iter_mut().flat_map(|group| &mut group.members).for_each(|member| member.optional = true);
        Ok(Self { order: Order { groups: order }, extensions: Order { groups: extensions } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_members_keep_their_order() {
        let order = OrderToml::parse(
            r#"
            [[order]]
            [[order.group]]
            id = "b"
            version = "1"
            [[order.group]]
            id = "a"
            version = "2"
            optional = true
            exec-env = ["test"]
            [[order]]
            [[order.group]]
            id = "c"
            version = "3"
            exec-env = [{ name = "test" }]
            unknown = 1
            "#,
        )
        .unwrap()
        .order;
        let shown: Vec<Vec<String>> = order
            .groups
            .iter()
            .map(|group| group.members.iter().map(|member| member.buildpack.to_string()).collect())
            .collect();
        assert_eq!(shown, [vec!["b@1", "a@2"], vec!["c@3"]]);
        assert!(!order.groups[0].members[0].optional && order.groups[0].members[1].optional);
        assert_eq!(order.groups[0].members[1].exec_envs, order.groups[1].members[0].exec_envs);
    }

    #[test]
    fn ord_10_a_member_needs_id_and_version() {
        for member in ["id = \"a\"", "version = \"1\"", "id = \"../a\"\nversion = \"1\""] {
            let error = OrderToml::parse(&format!("[[order]]\n[[order.group]]\n{member}\n")).unwrap_err();
            assert!(error.line >= 2, "{error}");
        }
        assert_eq!(OrderToml::parse("").unwrap(), OrderToml::default());
    }

    #[test]
    fn ord_08_extensions_are_an_order_of_their_own_and_always_optional() {
        let text = "[[order]]\n[[order.group]]\nid = \"b\"\nversion = \"1\"\n\
                    [[order-extensions]]\n[[order-extensions.group]]\nid = \"a\"\nversion = \"1\"\n\
                    optional = false\n";
        let OrderToml { order, extensions } = OrderToml::parse(text).unwrap();
        assert!(!order.groups[0].members[0].optional);
        let extension = &extensions.groups[0].members[0];
        assert_eq!((extension.buildpack.to_string().as_str(), extension.optional), ("a@1", true));
    }
}
