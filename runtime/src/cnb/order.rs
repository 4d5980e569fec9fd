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

#[derive(Deserialize)]
struct OrderFile {
    #[serde(default)]
    order: Vec<OrderGroup>,
    #[serde(default, rename = "order-extensions")]
    order_extensions: Option<toml::Value>,
}

impl Order {
    /// Parses the text of an `order.toml`.
    ///
    /// # Errors
    /// With line and column. An order with extensions is refused: image
    /// extensions are not run, and leaving one out would change the image.
    ///
    /// # Spec
    /// `platform.md` 0.15 "order.toml"; ORD-10: a member needs `id` and `version`.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let file: OrderFile = toml_text::parse(text)?;
        if file.order_extensions.is_some() {
            let offset = text.find("order-extensions").unwrap_or(0);
            return Err(TomlError::at(text, offset, "image extensions are not supported"));
        }
        if file.order.is_empty() {
            return Err(TomlError::whole("it has no `[[order]]`"));
        }
        Ok(Self { groups: file.order })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_members_keep_their_order() {
        let order = Order::parse(
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
        .unwrap();
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
            let error = Order::parse(&format!("[[order]]\n[[order.group]]\n{member}\n")).unwrap_err();
            assert!(error.line >= 2, "{error}");
        }
        Order::parse("").unwrap_err();
        let extensions =
            "[[order]]\n[[order-extensions]]\n[[order-extensions.group]]\nid = \"a\"\nversion = \"1\"\n";
        assert_eq!(Order::parse(extensions).unwrap_err().line, 2);
    }
}
