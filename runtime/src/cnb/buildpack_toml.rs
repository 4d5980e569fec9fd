//! `buildpack.toml`: what a buildpack says of itself.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::api::ApiVersion;
use super::id::{BuildpackId, BuildpackRef, BuildpackVersion, ExecEnv};
use super::order::{ExecEnvList, Order, OrderGroup};
use super::target::{BIONIC, Distro, Target, TargetPattern};
use crate::grant::{AskedGrants, Grant, Grants};
use crate::toml_text::{self, TomlError};

/// A licence of a buildpack.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct License {
    /// SPDX identifier.
    #[serde(default, rename = "type")]
    pub license_type: String,
    #[serde(default)]
    pub uri: String,
}

/// An entry of the old `[[stacks]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Stack {
    pub id: String,
    #[serde(default)]
    pub mixins: Vec<String>,
}

/// For which systems a buildpack has a `bin/build`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Executables {
    /// `bin/build`
    pub linux: bool,
    /// `bin/build.exe` or `bin/build.bat`
    pub windows: bool,
}

/// Everything we read from `buildpack.toml`.
///
/// # Spec
/// `buildpack.md` 0.12 "buildpack.toml"; BPT-01 to BPT-06. The top-level table
/// `[grants]` is ours: what the buildpack asks for beyond the empty cell.
/// Unknown keys are ignored, except there: a grant that is not understood
/// must not be left out silently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildpackDescriptor {
    pub api: ApiVersion,
    pub reference: BuildpackRef,
    /// For people; may be empty, like the next two.
    pub name: String,
    pub homepage: String,
    pub description: String,
    pub keywords: Vec<String>,
    pub licenses: Vec<License>,
    /// Whether it runs without the user's environment variables.
    pub clear_env: bool,
    /// Media types without parameters.
    pub sbom_formats: Vec<String>,
    /// Execution environments it is for; empty means all.
    pub exec_envs: Vec<ExecEnv>,
    /// What a composite buildpack consists of; empty for all others.
    pub order: Vec<OrderGroup>,
    pub targets: Vec<TargetPattern>,
    pub stacks: Vec<Stack>,
    /// The table `[metadata]` as TOML text; empty when there is none.
    pub metadata: String,
    /// What it asks for.
    pub grants: AskedGrants,
    /// Oddities of published buildpacks that are put up with.
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
struct DescriptorFile {
    api: ApiVersion,
    buildpack: BuildpackTable,
    #[serde(default)]
    order: Vec<OrderGroup>,
    #[serde(default)]
    targets: Vec<TargetPattern>,
    #[serde(default)]
    stacks: Vec<Stack>,
    #[serde(default)]
    metadata: toml::Table,
    #[serde(default)]
    grants: GrantsTable,
}

/// The table `[buildpack]`, and `[extension]` of image extensions.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct BuildpackTable {
    pub(super) id: BuildpackId,
    pub(super) version: BuildpackVersion,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) homepage: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) keywords: Vec<String>,
    #[serde(default)]
    pub(super) licenses: Vec<License>,
    #[serde(default)]
    pub(super) clear_env: bool,
    #[serde(default)]
    sbom_formats: Vec<String>,
    #[serde(default)]
    pub(super) exec_env: ExecEnvList,
}

/// # Shape
/// ```toml
/// [grants]
/// sources = ["npm"]
/// optional-sources = ["nodejs"]
/// app-write = true
/// bindings = true
/// clock = true
/// random = true
/// ```
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
#[expect(clippy::struct_excessive_bools, reason = "a table of switches, as it is written")]
struct GrantsTable {
    sources: Vec<String>,
    optional_sources: Vec<String>,
    app_write: bool,
    bindings: bool,
    clock: bool,
    random: bool,
}

impl BuildpackDescriptor {
    /// Whether it can build for `target`.
    ///
    /// # Spec
    /// TGT-02. Without any target it is for any Linux; see [`Self::infer_targets`].
    #[must_use]
    pub fn matches(&self, target: &Target) -> bool {
        if self.targets.is_empty() {
            return target.os == "linux";
        }
        self.targets.iter().any(|pattern| pattern.matches(target))
    }

    /// Whether it is for images of `stack`, which mattered before there were targets.
    /// One that lists no stacks is for any.
    ///
    /// # Spec
    /// TGT-07, TGT-15, API-19.
    #[must_use]
    pub fn fits_stack(&self, stack: &str) -> bool {
        self.stacks.is_empty() || self.stacks.iter().any(|own| own.id == "*" || own.id == stack)
    }

    /// Fills in the targets of a buildpack that lists none, by its stacks or else
    /// by the executables it has.
    ///
    /// # Spec
    /// TGT-06 to TGT-09: other stacks than bionic and `*` say nothing.
    pub fn infer_targets(&mut self, executables: Executables) {
        if !self.targets.is_empty() {
            return;
        }
        for stack in &self.stacks {
            if stack.id == "*" {
                self.targets.push(TargetPattern::default());
            } else if stack.id == BIONIC && (self.api >= ApiVersion::zero(10) || self.stacks.len() == 1) {
                self.targets.push(TargetPattern {
                    os: "linux".to_owned(),
                    arch: "amd64".to_owned(),
                    variant: String::new(),
                    distros: vec![Distro { name: "ubuntu".to_owned(), version: "18.04".to_owned() }],
                });
            }
        }
        if self.targets.is_empty() {
            let systems = [(executables.linux, "linux"), (executables.windows, "windows")];
            let has = systems.into_iter().filter(|(has, _)| *has);
            self.targets
                .extend(has.map(|(_, os)| TargetPattern { os: os.to_owned(), ..TargetPattern::default() }));
        }
    }

    /// Parses the text of a `buildpack.toml`.
    ///
    /// # Errors
    /// With line and column.
    pub fn parse(text: &str) -> Result<Self, TomlError> {
        let file: DescriptorFile = toml_text::parse(text)?;
        let at = |key: &str, message: &str| TomlError::at(text, text.find(key).unwrap_or(0), message);
        if !file.order.is_empty() && !file.stacks.is_empty() {
            return Err(at("[[stacks]]", "`[[stacks]]` and `[[order]]` exclude each other"));
        }
        if file.stacks.iter().any(|stack| stack.id == "*" && !stack.mixins.is_empty()) {
            return Err(at("[[stacks]]", "the stack `*` has no mixins"));
        }
        let sources = |key: &str, names: Vec<String>| {
            let source = |name: String| {
                if crate::grant::is_source_name(&name) {
                    Ok(Grant::Source(name))
                } else {
                    Err(at(key, &format!("`{}` is not the name of a source", name.escape_default())))
                }
            };
            names.into_iter().map(source).collect::<Result<BTreeSet<Grant>, TomlError>>()
        };
        let optional = Grants(sources("optional-sources", file.grants.optional_sources)?);
        let mut required = sources("sources", file.grants.sources)?;
        let asked = [
            (file.grants.app_write, Grant::AppWrite),
            (file.grants.bindings, Grant::Bindings),
            (file.grants.clock, Grant::Clock),
            (file.grants.random, Grant::Random),
        ];
        required.extend(asked.into_iter().filter(|(asked, _)| *asked).map(|(_, grant)| grant));

        let BuildpackTable { id, version, .. } = &file.buildpack;
        let mut warnings = Vec::new();
        if !is_plain_version(version.as_str()) {
            warnings.push(format!("buildpack `{id}` has version `{version}`, which is not `X.Y.Z`"));
        }
        let strip = |media_type: &String| media_type.split(';').next().unwrap_or_default().trim().to_owned();
        Ok(Self {
            api: file.api,
            reference: BuildpackRef { id: id.clone(), version: version.clone() },
            name: file.buildpack.name,
            homepage: file.buildpack.homepage,
            description: file.buildpack.description,
            keywords: file.buildpack.keywords,
            licenses: file.buildpack.licenses,
            clear_env: file.buildpack.clear_env,
            sbom_formats: file.buildpack.sbom_formats.iter().map(strip).collect(),
            exec_envs: file.buildpack.exec_env.0,
            order: file.order,
            targets: file.targets,
            stacks: file.stacks,
            metadata: if file.metadata.is_empty() { String::new() } else { file.metadata.to_string() },
            grants: AskedGrants { required: Grants(required), optional },
            warnings,
        })
    }

    /// The order of a composite buildpack.
    #[must_use]
    pub fn order(&self) -> Order {
        Order { groups: self.order.clone() }
    }
}

/// BPT-02: `X.Y.Z` without leading zeros.
fn is_plain_version(version: &str) -> bool {
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    version.split('.').count() == 3 && version.split('.').all(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "api = \"0.10\"\n[buildpack]\nid = \"acme/node\"\nversion = \"1.2.0\"\n";

    fn with(more: &str) -> Result<BuildpackDescriptor, TomlError> {
        BuildpackDescriptor::parse(&format!("{MINIMAL}{more}"))
    }

    /// API-14, BPT-06
    #[test]
    fn bpt_01_all_keys_are_read() {
        let descriptor = with(
            r#"
            name = "Node"
            homepage = "https://example.com"
            clear-env = true
            description = "d"
            keywords = ["k"]
            sbom-formats = ["application/vnd.cyclonedx+json;version=1.5"]
            exec-env = [{ name = "test" }]
            future = "ignored"
            [[buildpack.licenses]]
            type = "MIT"
            [[targets]]
            os = "linux"
            arch-variant = "v8"
            [[stacks]]
            id = "*"
            [metadata]
            n = 1
            [metadata.deep]
            when = 1979-05-27
            [grants]
            sources = ["npm", "npm:@acme"]
            optional-sources = ["nodejs"]
            app-write = true
            bindings = true
            clock = false
            "#,
        )
        .unwrap();
        assert_eq!(descriptor.reference.to_string(), "acme/node@1.2.0");
        assert_eq!(descriptor.api, ApiVersion { major: 0, minor: 10 });
        assert!(descriptor.clear_env);
        assert_eq!(descriptor.sbom_formats, ["application/vnd.cyclonedx+json"]);
        assert_eq!(descriptor.exec_envs, ["test".parse().unwrap()]);
        assert_eq!(descriptor.licenses[0].license_type, "MIT");
        assert_eq!(descriptor.targets[0].variant, "v8");
        let metadata: toml::Table = descriptor.metadata.parse().unwrap();
        assert_eq!(metadata["n"].as_integer(), Some(1));
        assert_eq!(metadata["deep"]["when"].as_datetime().unwrap().to_string(), "1979-05-27");
        let asked: Vec<String> = descriptor.grants.required.0.iter().map(ToString::to_string).collect();
        assert_eq!(asked, ["app-write", "bindings", "source=npm", "source=npm:@acme"]);
        assert!(descriptor.grants.optional.allows(&"source=nodejs".parse().unwrap()));
        assert!(descriptor.warnings.is_empty());
    }

    #[test]
    fn bpt_02_reserved_or_strange_ids_are_refused_and_odd_versions_accepted() {
        let reserved = ["app", "config", "generated", "sbom", "App", "CONFIG", "gEnerated", "SBOM"];
        for id in reserved.into_iter().chain(["../x", "a b", "a_b", "a@1", "größe", ""]) {
            let text = MINIMAL.replace("acme/node", id);
            assert_eq!(BuildpackDescriptor::parse(&text).unwrap_err().line, 3, "{id}");
        }
        for id in ["application", "a/sbom", "A.b-9/c"] {
            assert!(BuildpackDescriptor::parse(&MINIMAL.replace("acme/node", id)).is_ok(), "{id}");
        }
        let odd = BuildpackDescriptor::parse(&MINIMAL.replace("1.2.0", "v1.02")).unwrap();
        assert_eq!(odd.warnings, ["buildpack `acme/node` has version `v1.02`, which is not `X.Y.Z`"]);
    }

    #[test]
    fn bpt_03_an_order_excludes_stacks() {
        let order = "[[order]]\n[[order.group]]\nid = \"a\"\nversion = \"1\"\n";
        assert_eq!(with(order).unwrap().order().groups.len(), 1);
        let error = with(&format!("{order}[[stacks]]\nid = \"*\"\n")).unwrap_err();
        assert_eq!(error.line, 9, "{error}");
    }

    #[test]
    fn bpt_06_parameters_of_media_types_are_ignored() {
        let formats = with("sbom-formats = [\"application/spdx+json ; version=2.3\", \"a/b\"]\n").unwrap();
        assert_eq!(formats.sbom_formats, ["application/spdx+json", "a/b"]);
    }

    /// What a buildpack is for: `api`, then its targets and stacks, then its executables.
    fn inferred(api: &str, more: &str, linux: bool, windows: bool) -> Vec<String> {
        let text = MINIMAL.replace("0.10", api) + more;
        let mut descriptor = BuildpackDescriptor::parse(&text).unwrap();
        descriptor.infer_targets(Executables { linux, windows });
        let shown = |pattern: &TargetPattern| {
            let distros = pattern.distros.iter().map(|one| format!(" {} {}", one.name, one.version));
            format!("{}/{}{}", pattern.os, pattern.arch, distros.collect::<String>())
        };
        descriptor.targets.iter().map(shown).collect()
    }

    #[test]
    fn tgt_06_without_targets_the_executables_decide() {
        assert_eq!(inferred("0.10", "", true, false), ["linux/"]);
        assert_eq!(inferred("0.10", "", false, true), ["windows/"]);
        assert_eq!(inferred("0.10", "", true, true), ["linux/", "windows/"]);
        assert_eq!(inferred("0.10", "[[targets]]\nos = \"plan9\"\n", true, true), ["plan9/"]);
    }

    #[test]
    fn tgt_07_the_stack_for_all_matches_anything_and_has_no_mixins() {
        assert_eq!(inferred("0.9", "[[stacks]]\nid = \"*\"\n", true, false), ["/"]);
        assert!(with("[[stacks]]\nid = \"*\"\nmixins = [\"git\"]\n").is_err());
        with("[[stacks]]\nid = \"x\"\nmixins = [\"git\"]\n").unwrap();
    }

    #[test]
    fn tgt_08_the_stack_bionic_is_ubuntu_18_04_on_amd64() {
        let bionic = "[[stacks]]\nid = \"io.buildpacks.stacks.bionic\"\n";
        let and_another = format!("{bionic}[[stacks]]\nid = \"heroku-18\"\n");
        assert_eq!(inferred("0.9", bionic, true, false), ["linux/amd64 ubuntu 18.04"]);
        assert_eq!(inferred("0.10", &and_another, true, false), ["linux/amd64 ubuntu 18.04"]);
        assert_eq!(inferred("0.9", &and_another, true, false), ["linux/"]);
    }

    #[test]
    fn tgt_09_other_stacks_say_nothing() {
        assert_eq!(inferred("0.9", "[[stacks]]\nid = \"heroku-18\"\n", true, false), ["linux/"]);
    }

    #[test]
    fn bpt_04_both_spellings_of_exec_env() {
        let names = with("exec-env = [\"test\", \"*\"]\n").unwrap().exec_envs;
        let tables = with("[[buildpack.exec-env]]\nname = \"test\"\n[[buildpack.exec-env]]\nname = \"*\"\n");
        assert_eq!(names, tables.unwrap().exec_envs);
    }

    #[test]
    fn unknown_grants_are_refused_with_their_place() {
        let error = with("[grants]\nnetwork = true\n").unwrap_err();
        assert_eq!(error.line, 6, "{error}");
        assert!(error.message.contains("network"), "{error}");
        for sources in ["[\"\"]", "[\"a/b\"]", "[\"-x\"]", "[\"a\\nb\"]"] {
            assert_eq!(with(&format!("[grants]\nsources = {sources}\n")).unwrap_err().line, 6, "{sources}");
        }
    }
}
