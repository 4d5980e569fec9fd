use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::cnb::sbom::SbomFormat;
use crate::network::{Artifact, Artifacts};
use crate::oci::digest::Digest;

fn artifact(path: &str, is_pinned: bool) -> Artifact {
    Artifact { source: "npm".to_owned(), path: path.to_owned(), hash: "sha512:00ff".to_owned(), is_pinned }
}

fn document(artifacts: &Artifacts, created: Option<u64>) -> Value {
    let attachment = provenance(&Provenance {
        digest: &Digest::of(b"image"),
        names: &["demo/website:latest".to_owned(), "demo/website:1".to_owned()],
        target: "linux/amd64",
        buildpacks: &[
            BuildpackOrigin {
                id: "acme/node".into(),
                version: "1.2".into(),
                digest: Some("sha256:ab".into()),
            },
            BuildpackOrigin { id: "acme/bash".into(), version: "3".into(), digest: None },
        ],
        run_image: Some(&RunImageOrigin {
            name: "registry.example/base/debian:12".into(),
            digest: Some(Digest::of(b"run")),
        }),
        source: Some("00aa"),
        variables: &BTreeSet::from(["NODE_ENV".to_owned()]),
        process_type: None,
        artifacts,
        version: "0.1.0",
        created,
    });
    assert_eq!(attachment.artifact_type, "application/vnd.in-toto+json");
    assert_eq!(attachment.annotations["in-toto.io/predicate-type"], "https://slsa.dev/provenance/v1");
    serde_json::from_slice(&attachment.content).unwrap()
}

/// Field by field as the specifications list them: in-toto `Statement`, `ResourceDescriptor`; SLSA v1
/// `Provenance`, `BuildDefinition`, `RunDetails`, `Builder`, `BuildMetadata`.
#[test]
fn the_statement_has_the_fields_of_in_toto_and_slsa() {
    let artifacts = Artifacts { known: [artifact("a b/-/a-1.tgz", true)].into(), is_incomplete: false };
    let statement = document(&artifacts, None);
    let subject = |name| json!({ "name": name, "digest": { "sha256": Digest::of(b"image").hex() } });
    let run = Digest::of(b"run");
    assert_eq!(
        statement,
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [subject("demo/website:latest"), subject("demo/website:1")],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": "urn:wapack:build-type:image:v1",
                    "externalParameters": {
                        "names": ["demo/website:latest", "demo/website:1"],
                        "target": "linux/amd64",
                        "buildpacks": ["acme/node@1.2", "acme/bash@3"],
                        "runImage": "registry.example/base/debian:12",
                        "variables": ["NODE_ENV"],
                    },
                    "resolvedDependencies": [
                        {
                            "name": "app", "digest": { "gitTree": "00aa" },
                            "annotations": { "kind": "app" },
                        },
                        {
                            "uri": format!(
                                "pkg:oci/debian@sha256%3A{}?repository_url=registry.example/base/debian&tag=12",
                                run.hex()
                            ),
                            "name": "registry.example/base/debian:12",
                            "digest": { "sha256": run.hex() },
                            "annotations": { "kind": "run-image" },
                        },
                        {
                            "uri": "urn:cnb:builder:acme/node@1.2", "name": "acme/node@1.2",
                            "digest": { "sha256": "ab" }, "mediaType": "application/wasm",
                            "annotations": { "kind": "buildpack" },
                        },
                        {
                            "uri": "urn:cnb:builder:acme/bash@3", "name": "acme/bash@3",
                            "annotations": { "kind": "buildpack" },
                        },
                        {
                            "uri": "wapack-source:npm/a%20b/-/a-1.tgz", "digest": { "sha512": "00ff" },
                            "annotations": { "kind": "source" },
                        },
                    ],
                },
                "runDetails": {
                    "builder": { "id": "urn:wapack:builder:local:v1", "version": { "wapack": "0.1.0" } },
                    "metadata": { "wapack_hermetic": true, "wapack_complete": true },
                },
            },
        })
    );
}

#[test]
fn hermetic_is_what_was_pinned_and_is_known() {
    let metadata = |known: Vec<Artifact>, is_incomplete| {
        let artifacts = Artifacts { known: known.into_iter().collect(), is_incomplete };
        let statement = document(&artifacts, None);
        let metadata = &statement["predicate"]["runDetails"]["metadata"];
        (metadata["wapack_hermetic"] == true, metadata["wapack_complete"] == true)
    };
    assert_eq!(metadata(vec![], false), (true, true));
    assert_eq!(metadata(vec![artifact("a", true), artifact("b", true)], false), (true, true));
    assert_eq!(metadata(vec![artifact("a", true), artifact("b", false)], false), (false, true));
    assert_eq!(metadata(vec![artifact("a", true)], true), (false, false));
}

/// D8: no time unless somebody said one.
#[test]
fn d8_the_same_build_has_the_same_provenance() {
    let statement = document(&Artifacts::default(), None);
    assert_eq!(statement, document(&Artifacts::default(), None));
    assert!(statement["predicate"]["runDetails"]["metadata"].get("finishedOn").is_none());
    let dated = document(&Artifacts::default(), Some(1_700_000_000));
    // By `date -u -d @1700000000`.
    assert_eq!(dated["predicate"]["runDetails"]["metadata"]["finishedOn"], "2023-11-14T22:13:20Z");
}

#[test]
fn bills_of_materials_have_their_registered_types() {
    let document =
        |path: &str, format| SbomDocument { path: path.to_owned(), format, content: b"{}".to_vec() };
    let attachments = sbom_attachments(vec![
        document("layers/sbom/launch/a/sbom.cdx.json", Some(SbomFormat::CycloneDx)),
        document("layers/sbom/launch/sbom.legacy.json", None),
        document("layers/sbom/launch/a/l/sbom.spdx.json", Some(SbomFormat::Spdx)),
        document("layers/sbom/launch/a/sbom.syft.json", Some(SbomFormat::Syft)),
    ]);
    let kinds: Vec<_> = attachments.iter().map(|it| (it.artifact_type.as_str(), it.name.as_str())).collect();
    assert_eq!(
        kinds,
        [
            ("application/vnd.cyclonedx+json", "sbom/launch/a/sbom.cdx.json"),
            ("application/spdx+json", "sbom/launch/a/l/sbom.spdx.json"),
            ("application/vnd.syft+json", "sbom/launch/a/sbom.syft.json"),
        ]
    );
}
