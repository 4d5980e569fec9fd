//! What a program of ours is made of, in the three formats that the lifecycle copies
//! into builds: from what cargo knows of the crates that are linked into it.
//!
//! Crates that only run while building (macros, build scripts) are not in the program
//! and not in the list. The C library and Rust's own come with the toolchain, of which
//! only the version is known.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};

use crate::Result;
use crate::archive::digest;
use crate::command::{capture, cargo};

/// A crate in a program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    name: String,
    version: String,
    /// As SPDX has it; empty when it is not known.
    license: String,
    /// Its dependencies, by name and version.
    needs: BTreeSet<(String, String)>,
}

impl Part {
    fn purl(&self) -> String {
        purl(&self.name, &self.version)
    }
}

fn purl(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{version}")
}

/// A program and its parts, itself included.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) version: String,
    pub(super) parts: BTreeSet<Part>,
    /// `rustc 1.90.0 (…)`.
    pub(super) compiler: String,
}

/// What `packages` of this repository are made of for a target, as one program.
pub(super) fn program(name: &'static str, packages: &[&str], target: &str) -> Result<Program> {
    let arguments = ["metadata", "--locked", "--format-version", "1", "--filter-platform", target];
    let metadata = capture(&mut cargo(&arguments))?;
    let metadata = serde_json::from_str(&metadata).map_err(|error| format!("`cargo metadata`: {error}"))?;
    let parts = parts(&metadata, packages)?;
    let version = parts.iter().find(|part| part.name == packages[0]).map(|part| part.version.clone());
    let compiler = capture(Command::new("rustc").arg("--version"))?.trim().to_owned();
    Ok(Program { name, version: version.unwrap_or_default(), parts, compiler })
}

/// Everything that is linked into `packages`.
fn parts(metadata: &Value, packages: &[&str]) -> Result<BTreeSet<Part>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let by_id = |key: &str, value: &Value| -> BTreeMap<String, Value> {
        list(value).into_iter().map(|entry| (text(&entry[key]), entry)).collect()
    };
    let known = by_id("id", &metadata["packages"]);
    let nodes = by_id("id", &metadata["resolve"]["nodes"]);
    let is_macro = |id: &String| {
        let targets = list(&known.get(id).unwrap_or(&Value::Null)["targets"]);
        targets
            .iter()
            .any(|target| target["kind"].as_array().is_some_and(|kinds| kinds.contains(&json!("proc-macro"))))
    };
    let linked = |id: &String| -> Vec<String> {
        let dependencies = list(&nodes.get(id).unwrap_or(&Value::Null)["deps"]);
        let normal =
            |dependency: &&Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        dependencies
            .iter()
            .filter(normal)
            .map(|dependency| text(&dependency["pkg"]))
            .filter(|id| !is_macro(id))
            .collect()
    };
    let named = |id: &String| {
        let package = known.get(id).unwrap_or(&Value::Null);
        (text(&package["name"]), text(&package["version"]))
    };
    let members: BTreeSet<String> = list(&metadata["workspace_members"]).iter().map(text).collect();
    let mut open = Vec::new();
    for package in packages {
        let id = members.iter().find(|id| named(id).0 == *package);
        open.push(id.ok_or_else(|| format!("there is no package `{package}`"))?.clone());
    }
    let mut seen = BTreeSet::new();
    let mut parts = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let needs = linked(&id);
        let (name, version) = named(&id);
        // What the slash meant before there were expressions.
        let license = text(&known.get(&id).unwrap_or(&Value::Null)["license"]).replace('/', " OR ");
        parts.insert(Part { name, version, license, needs: needs.iter().map(named).collect() });
        open.extend(needs);
    }
    Ok(parts)
}

/// The documents of a program by the ending of their names, the same bytes each time.
pub(super) fn documents(program: &Program) -> [(&'static str, Vec<u8>); 3] {
    let bytes = |value: Value| format!("{value:#}\n").into_bytes();
    [
        ("sbom.cdx.json", bytes(cyclone_dx(program))),
        ("sbom.spdx.json", bytes(spdx(program))),
        ("sbom.syft.json", bytes(syft(program))),
    ]
}

fn cyclone_dx(program: &Program) -> Value {
    let Program { name, version, parts, compiler } = program;
    let reference = format!("{name}@{version}");
    let components = parts.iter().map(|part| {
        let mut component = json!({
            "type": "library", "bom-ref": part.purl(), "name": part.name, "version": part.version,
            "purl": part.purl(),
        });
        if !part.license.is_empty() {
            component["licenses"] = json!([{ "expression": part.license }]);
        }
        component
    });
    let of_program =
        json!({ "ref": reference, "dependsOn": parts.iter().map(Part::purl).collect::<Vec<_>>() });
    let of_parts = parts.iter().map(|part| {
        let needs: Vec<String> = part.needs.iter().map(|(name, version)| purl(name, version)).collect();
        json!({ "ref": part.purl(), "dependsOn": needs })
    });
    json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {
            "component": { "type": "application", "bom-ref": reference, "name": name, "version": version },
            "properties": [{ "name": "wapack:compiler", "value": compiler }],
        },
        "components": components.collect::<Vec<_>>(),
        "dependencies": std::iter::once(of_program).chain(of_parts).collect::<Vec<_>>(),
    })
}

fn spdx(program: &Program) -> Value {
    let Program { name, version, parts, compiler } = program;
    let id = |name: &str, version: &str| {
        let plain = |byte: char| if byte.is_ascii_alphanumeric() || byte == '.' { byte } else { '-' };
        format!(
            "SPDXRef-{}-{}",
            name.replace(|byte| plain(byte) != byte, "-"),
            version.replace(|byte| plain(byte) != byte, "-")
        )
    };
    let own = format!("SPDXRef-Program-{name}");
    let package = |id: &str, name: &str, version: &str, license: &str| {
        let license = if license.is_empty() { "NOASSERTION" } else { license };
        json!({
            "SPDXID": id, "name": name, "versionInfo": version, "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false, "licenseConcluded": "NOASSERTION", "licenseDeclared": license,
            "copyrightText": "NOASSERTION",
        })
    };
    let mut packages = vec![package(&own, name, version, "")];
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", &own)];
    for part in parts {
        let reference = id(&part.name, &part.version);
        let mut package = package(&reference, &part.name, &part.version, &part.license);
        package["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": part.purl(),
        }]);
        packages.push(package);
        relationships.push(relation(&own, "CONTAINS", &reference));
        let needs = part.needs.iter().map(|(name, version)| id(name, version));
        relationships.extend(needs.map(|needed| relation(&reference, "DEPENDS_ON", &needed)));
    }
    let contents = digest(json!([packages, relationships]).to_string().as_bytes());
    json!({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": name,
        "documentNamespace": format!("urn:wapack:{name}:{version}:{contents}"),
        "creationInfo": {
            "created": "1980-01-01T00:00:01Z", "creators": ["Tool: wapack-xtask"],
            "comment": format!("the time is fixed; compiled by {compiler}"),
        },
        "packages": packages, "relationships": relationships,
    })
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn syft(program: &Program) -> Value {
    let Program { name, version, parts, compiler } = program;
    let id = |name: &str, version: &str| digest(purl(name, version).as_bytes())[7..23].to_owned();
    let artifacts = parts.iter().map(|part| {
        let licenses: Vec<Value> = (!part.license.is_empty())
            .then(|| json!({ "value": part.license, "spdxExpression": part.license, "type": "declared", "urls": [], "locations": [] }))
            .into_iter()
            .collect();
        json!({
            "id": id(&part.name, &part.version), "name": part.name, "version": part.version,
            "type": "rust-crate", "foundBy": "cargo-metadata", "locations": [], "licenses": licenses,
            "language": "rust", "cpes": [], "purl": part.purl(),
        })
    });
    let relationships = parts.iter().flat_map(|part| {
        let parent = id(&part.name, &part.version);
        part.needs.iter().map(move |(name, version)| {
            // Syft says it the other way around: the child is what needs.
            json!({ "parent": id(name, version), "child": parent, "type": "dependency-of" })
        })
    });
    let identity = digest(format!("{name}@{version} {compiler}").as_bytes());
    json!({
        "artifacts": artifacts.collect::<Vec<_>>(),
        "artifactRelationships": relationships.collect::<Vec<_>>(),
        "source": {
            "id": identity.trim_start_matches("sha256:"), "name": name, "version": version,
            "type": "file", "metadata": { "path": name },
        },
        "distro": {},
        "descriptor": { "name": "wapack-xtask", "version": version },
        "schema": {
            "version": "16.0.0",
            "url": "https://raw.githubusercontent.com/anchore/syft/main/schema/json/schema-16.0.0.json",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Value {
        let package = |id: &str, license: &str, kind: &str| json!({ "id": format!("id-{id}"), "name": id, "version": "1.0.0", "license": license, "targets": [{ "kind": [kind] }] });
        let needs =
            |id: &str, kind: Value| json!({ "pkg": format!("id-{id}"), "dep_kinds": [{ "kind": kind }] });
        json!({
            "packages": [
                package("app", "MIT", "bin"), package("lib", "MIT/Apache-2.0", "lib"),
                package("deep", "", "lib"), package("derive", "MIT", "proc-macro"),
                package("syn", "MIT", "lib"), package("cc", "MIT", "lib"), package("tempfile", "MIT", "lib"),
                package("other", "MIT", "lib"),
            ],
            "workspace_members": ["id-app", "id-other"],
            "resolve": { "nodes": [
                { "id": "id-app", "deps": [needs("lib", Value::Null), needs("derive", Value::Null), needs("cc", json!("build")), needs("tempfile", json!("dev"))] },
                { "id": "id-lib", "deps": [needs("deep", Value::Null)] },
                { "id": "id-derive", "deps": [needs("syn", Value::Null)] },
                { "id": "id-other", "deps": [] },
            ] },
        })
    }

    fn example() -> Program {
        let parts = parts(&metadata(), &["app"]).unwrap();
        Program { name: "launcher", version: "1.0.0".into(), parts, compiler: "rustc 1.2.3".into() }
    }

    #[test]
    fn only_what_is_linked_into_a_program_is_part_of_it() {
        let names: Vec<String> = example().parts.into_iter().map(|part| part.name).collect();
        assert_eq!(names, ["app", "deep", "lib"]);
        parts(&metadata(), &["lib"]).unwrap_err();
    }

    /// This repository itself: what cargo prints is what is read here.
    #[test]
    fn the_launcher_is_made_of_few_crates_and_the_lifecycle_of_many() {
        let target = "x86_64-unknown-linux-musl";
        let launcher = program("launcher", &["wapack-launcher"], target).unwrap();
        let lifecycle = program("lifecycle", &["wapack", "wapack-launcher"], target).unwrap();
        let has = |program: &Program, name: &str| program.parts.iter().any(|part| part.name == name);
        assert!(has(&launcher, "wapack-launcher") && has(&lifecycle, "wapack-launcher"));
        assert!(has(&lifecycle, "wasmtime") && !has(&launcher, "wasmtime"));
        for compiled_away in ["syn", "thiserror-impl", "cc", "insta"] {
            assert!(!has(&lifecycle, compiled_away), "{compiled_away}");
        }
        assert!(launcher.compiler.starts_with("rustc "), "{}", launcher.compiler);
    }

    #[test]
    fn sbom_11_every_format_names_the_same_parts() {
        let documents = documents(&example());
        let read = |index: usize| -> Value { serde_json::from_slice(&documents[index].1).unwrap() };
        let (cdx, spdx, syft) = (read(0), read(1), read(2));
        assert_eq!(
            [&cdx["bomFormat"], &spdx["spdxVersion"], &syft["schema"]["version"]],
            ["CycloneDX", "SPDX-2.3", "16.0.0"]
        );
        let purls = |list: &Value, pointer: &str| -> Vec<String> {
            let values = list.as_array().unwrap().iter();
            values.filter_map(|entry| entry.pointer(pointer)?.as_str().map(str::to_owned)).collect()
        };
        let expected = ["pkg:cargo/app@1.0.0", "pkg:cargo/deep@1.0.0", "pkg:cargo/lib@1.0.0"];
        assert_eq!(purls(&cdx["components"], "/purl"), expected);
        assert_eq!(purls(&spdx["packages"], "/externalRefs/0/referenceLocator"), expected);
        assert_eq!(purls(&syft["artifacts"], "/purl"), expected);
        assert_eq!(cdx["components"][2]["licenses"], json!([{ "expression": "MIT OR Apache-2.0" }]));
        assert_eq!(spdx["packages"][2]["licenseDeclared"], "NOASSERTION", "not known is not guessed");
        let ids: Vec<&Value> =
            spdx["packages"].as_array().unwrap().iter().map(|package| &package["SPDXID"]).collect();
        for relation in spdx["relationships"].as_array().unwrap() {
            assert!(ids.contains(&&relation["relatedSpdxElement"]), "{relation}");
        }
        assert_eq!(documents[0].0, "sbom.cdx.json");
        assert_eq!(documents, super::documents(&example()));
    }
}
