//! What a buildpack is, what its component exports and imports, and what it wants.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::catalog::{Buildpack, BuildpackKind};
use wapack_runtime::cnb::id::BuildpackRef;
use wapack_runtime::executor::wasm::Interface;
use wapack_runtime::executor::worker::WorkerExecutor;
use wapack_runtime::oci::digest::Digest;
use wapack_runtime::policy::Policy;
use wapack_runtime::text::harmless;

use super::{NoCache, worker_settings};
use crate::failure::{Failure, InputError};

/// # Shape
/// Keys are stable. `buildpack` is missing for a bare component; `component` for a composite.
#[derive(Debug, Serialize)]
pub(crate) struct BuildpackReport {
    buildpack: Option<Described>,
    component: Option<Component>,
}

#[derive(Debug, Serialize)]
struct Described {
    id: String,
    version: String,
    api: String,
    name: String,
    homepage: String,
    description: String,
    /// `component` or `composite`.
    kind: &'static str,
    /// `os/arch`, `*` for any; empty means any Linux.
    targets: Vec<String>,
    /// Groups of a composite, as `id@version`.
    order: Vec<Vec<String>>,
    grants: Vec<Asked>,
}

#[derive(Debug, Serialize)]
struct Asked {
    grant: String,
    allowed: bool,
    /// It runs without.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
}

#[derive(Debug, Serialize)]
struct Component {
    digest: String,
    bytes: u64,
    exports: Vec<String>,
    imports: Vec<String>,
}

/// Looks at a buildpack's directory. Its component is compiled, in a confined
/// process, and not run.
pub(super) fn look(directory: &Path, policy: &Policy, cancel: &Cancel) -> Result<BuildpackReport, Failure> {
    let directory = fs_err::canonicalize(directory)
        .map_err(|source| InputError::Unreadable { path: directory.to_owned(), source })?;
    let digest = |path: &Path| fs_err::read(path).map(|bytes| Digest::of(&bytes).to_string());
    let buildpack = Buildpack::load(&directory, &digest)?;
    let descriptor = &buildpack.descriptor;
    let allowed = policy.allowed(&buildpack.reference.id);
    let (kind, component) = match &buildpack.kind {
        BuildpackKind::Component { path, digest } => {
            ("component", Some(component(&buildpack.reference, path, digest, policy, cancel)?))
        }
        BuildpackKind::Composite(_) => ("composite", None),
        BuildpackKind::Classic => ("classic", None),
    };
    let any = |text: &str| if text.is_empty() { "*".to_owned() } else { text.to_owned() };
    let described = Described {
        id: buildpack.reference.id.to_string(),
        version: buildpack.reference.version.to_string(),
        api: descriptor.api.to_string(),
        name: descriptor.name.clone(),
        homepage: descriptor.homepage.clone(),
        description: descriptor.description.clone(),
        kind,
        targets: descriptor
            .targets
            .iter()
            .map(|target| format!("{}/{}", any(&target.os), any(&target.arch)))
            .collect(),
        order: descriptor
            .order
            .iter()
            .map(|group| group.members.iter().map(|member| member.buildpack.to_string()).collect())
            .collect(),
        grants: [(&descriptor.grants.required, false), (&descriptor.grants.optional, true)]
            .into_iter()
            .flat_map(|(grants, optional)| grants.0.iter().map(move |grant| (grant, optional)))
            .map(|(grant, optional)| Asked {
                grant: grant.to_string(),
                allowed: allowed.allows(grant),
                optional,
            })
            .collect(),
    };
    Ok(BuildpackReport { buildpack: Some(described), component })
}

/// Looks at a `.wasm` file alone.
pub(super) fn look_at_component(
    file: &Path,
    policy: &Policy,
    cancel: &Cancel,
) -> Result<BuildpackReport, Failure> {
    let unreadable = |source| InputError::Unreadable { path: file.to_owned(), source };
    // Messages want a name; a component has none of its own.
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
    let id = stem.parse().or_else(|_| "component".parse()).expect("it is a valid id");
    let reference = BuildpackRef { id, version: "0".parse().expect("it is a valid version") };
    let path = fs_err::canonicalize(file).map_err(unreadable)?;
    let digest = Digest::of(&fs_err::read(&path).map_err(unreadable)?).to_string();
    let component = component(&reference, &path, &digest, policy, cancel)?;
    Ok(BuildpackReport { buildpack: None, component: Some(component) })
}

fn component(
    reference: &BuildpackRef,
    path: &Path,
    digest: &str,
    policy: &Policy,
    cancel: &Cancel,
) -> Result<Component, Failure> {
    let executor = WorkerExecutor::new(worker_settings(policy, Vec::new(), cancel)?, &NoCache);
    let (_, Interface { imports, exports }) = executor.compile(reference, path)?;
    let bytes = fs_err::metadata(path).map(|metadata| metadata.len());
    let bytes = bytes.map_err(|source| InputError::Unreadable { path: path.to_owned(), source })?;
    Ok(Component { digest: digest.to_owned(), bytes, exports, imports })
}

pub(super) fn text(report: &BuildpackReport) -> String {
    let mut text = String::new();
    if let Some(buildpack) = &report.buildpack {
        let _ = writeln!(text, "{}@{}", buildpack.id, buildpack.version);
        let mut field = |name: &str, value: &str| {
            if !value.is_empty() {
                let _ = writeln!(text, "  {name:<12}{}", harmless(value));
            }
        };
        field("name", &buildpack.name);
        field("description", &buildpack.description);
        field("homepage", &buildpack.homepage);
        field("kind", buildpack.kind);
        field("API", &buildpack.api);
        let targets: BTreeSet<&str> = buildpack.targets.iter().map(String::as_str).collect();
        let targets: Vec<&str> = targets.into_iter().collect();
        field(
            "targets",
            if targets.is_empty() { "any Linux".to_owned() } else { targets.join(", ") }.as_str(),
        );
        for group in &buildpack.order {
            field("group", &group.join(", "));
        }
        text.push_str("\nGrants it asks for\n");
        if buildpack.grants.is_empty() {
            text.push_str("  none\n");
        }
        for Asked { grant, allowed, optional } in &buildpack.grants {
            let answer = match (allowed, optional) {
                (true, _) => "allowed".to_owned(),
                (false, false) => format!("NOT ALLOWED; `--grant {grant}` or the policy file allows it"),
                (false, true) => "not allowed; it runs without".to_owned(),
            };
            let _ = writeln!(text, "  {grant:<20}{answer}");
        }
    }
    if let Some(component) = &report.component {
        if !text.is_empty() {
            text.push('\n');
        }
        let size = wapack_runtime::limits::show_bytes(component.bytes);
        let _ = writeln!(text, "Component\n  {:<12}{}\n  {:<12}{size}", "digest", component.digest, "size");
        for (title, names) in [("Exports", &component.exports), ("Imports", &component.imports)] {
            let _ = writeln!(text, "\n{title}");
            for name in names {
                let _ = writeln!(text, "  {}", harmless(name));
            }
            if names.is_empty() {
                text.push_str("  none\n");
            }
        }
    }
    text
}
