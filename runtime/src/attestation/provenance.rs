//! Where an image comes from, as a statement that others can read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::slsa::{
    BuildDefinition, BuildMetadata, Builder, PREDICATE_TYPE, Predicate, ResourceDescriptor, RunDetails,
    STATEMENT_MEDIA_TYPE, STATEMENT_TYPE, Statement,
};
use crate::network::{Artifact, Artifacts};
use crate::oci::digest::Digest;
use crate::oci::image::timestamp;
use crate::oci::reference::Reference;
use crate::oci::referrer::Attachment;

/// What kind of build it was; `docs/provenance.md` says what its parameters mean.
pub const BUILD_TYPE: &str = "urn:wapack:build-type:image:v1";
/// Who built: this program, where somebody ran it. It says nothing of the machine.
pub const BUILDER_ID: &str = "urn:wapack:builder:local:v1";
/// What the attachment is called.
pub const PROVENANCE_NAME: &str = "provenance.intoto.json";
/// Where tools look for the kind of a statement without reading it.
const PREDICATE_ANNOTATION: &str = "in-toto.io/predicate-type";

/// Everything that goes into the provenance of one image.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    /// Of the image's manifest.
    pub digest: &'a Digest,
    /// What the image was called by whoever asked for it; at least one.
    pub names: &'a [String],
    /// `os/architecture`.
    pub target: &'a str,
    /// Those that took part, in order.
    pub buildpacks: &'a [BuildpackOrigin],
    /// `None` on `scratch`.
    pub run_image: Option<&'a RunImageOrigin>,
    /// The app's source as a Git tree, if somebody hashed it.
    pub source: Option<&'a str>,
    /// Names of the variables that were given to buildpacks. Not their values, which may be secret.
    pub variables: &'a BTreeSet<String>,
    pub process_type: Option<&'a str>,
    pub artifacts: &'a Artifacts,
    /// Of this program.
    pub version: &'a str,
    /// Seconds since 1970, if somebody said when.
    pub created: Option<u64>,
}

/// A buildpack that took part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildpackOrigin {
    pub id: String,
    pub version: String,
    /// Of its component; classic buildpacks are more than one file.
    pub digest: Option<String>,
}

/// The run image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunImageOrigin {
    /// What it was asked for by; may be empty.
    pub name: String,
    /// Of its manifest, if it has one.
    pub digest: Option<Digest>,
}

/// The provenance of an image as an attachment.
///
/// # Shape
/// An in-toto statement v1 with a predicate of SLSA provenance v1, as JSON.
///
/// `wapack_hermetic` is true when every byte that came from outside during the build was
/// named before by a hash that nobody can forge: SLSA calls a build hermetic whose
/// dependencies are all declared before by immutable references and whose steps have no
/// network, and buildpacks never have one. `wapack_complete` is true when every file that
/// was fetched is listed, those for layers that were used again as well; without it, a
/// build is not called hermetic.
#[must_use]
pub fn provenance(request: &Provenance<'_>) -> Attachment {
    Attachment {
        artifact_type: STATEMENT_MEDIA_TYPE.to_owned(),
        name: PROVENANCE_NAME.to_owned(),
        annotations: [(PREDICATE_ANNOTATION.to_owned(), PREDICATE_TYPE.to_owned())].into(),
        content: bytes_of(&statement(request)),
    }
}

fn bytes_of(statement: &Statement) -> Vec<u8> {
    serde_json::to_vec(statement).expect("all of it has string keys")
}

fn statement(request: &Provenance<'_>) -> Statement {
    let image_hash = request.digest.as_str();
    let subject = |name: &String| {
        ResourceDescriptor { name: name.clone(), ..ResourceDescriptor::default() }.with_hash(image_hash)
    };
    let artifacts = request.artifacts;
    Statement {
        kind: STATEMENT_TYPE,
        subject: request.names.iter().map(subject).collect(),
        predicate_type: PREDICATE_TYPE,
        predicate: Predicate {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE,
                external_parameters: external(request),
                internal_parameters: BTreeMap::new(),
                resolved_dependencies: dependencies(request),
            },
            run_details: RunDetails {
                builder: Builder { id: BUILDER_ID, version: [("wapack", request.version.to_owned())].into() },
                metadata: BuildMetadata {
                    finished_on: request.created.map(timestamp),
                    hermetic: !artifacts.is_incomplete
                        && artifacts.known.iter().all(|artifact| artifact.is_pinned),
                    complete: !artifacts.is_incomplete,
                },
            },
        },
    }
}

/// What whoever asked for the build chose.
fn external(request: &Provenance<'_>) -> BTreeMap<&'static str, Value> {
    let mut parameters: BTreeMap<&'static str, Value> = BTreeMap::new();
    parameters.insert("names", json!(request.names));
    parameters.insert("target", json!(request.target));
    let buildpacks =
        request.buildpacks.iter().map(|buildpack| format!("{}@{}", buildpack.id, buildpack.version));
    parameters.insert("buildpacks", buildpacks.collect());
    let run_image = request.run_image.map_or("scratch", |run_image| run_image.name.as_str());
    parameters.insert("runImage", json!(run_image));
    if !request.variables.is_empty() {
        parameters.insert("variables", json!(request.variables));
    }
    if let Some(process_type) = request.process_type {
        parameters.insert("processType", json!(process_type));
    }
    parameters
}

/// What went into the image, each by its digest: the app, run image, buildpacks in order, files in order
/// of names.
fn dependencies(request: &Provenance<'_>) -> Vec<ResourceDescriptor> {
    let mut dependencies = Vec::new();
    if let Some(source) = request.source {
        dependencies.push(ResourceDescriptor {
            name: "app".to_owned(),
            digest: [("gitTree".to_owned(), source.to_owned())].into(),
            annotations: [("kind", "app".to_owned())].into(),
            ..ResourceDescriptor::default()
        });
    }
    if let Some(run_image) = request.run_image {
        let descriptor = ResourceDescriptor {
            uri: run_image.digest.as_ref().map_or_else(String::new, |digest| purl(&run_image.name, digest)),
            name: if run_image.name.is_empty() { "run image".to_owned() } else { run_image.name.clone() },
            annotations: [("kind", "run-image".to_owned())].into(),
            ..ResourceDescriptor::default()
        };
        dependencies.push(match &run_image.digest {
            Some(digest) => descriptor.with_hash(digest.as_str()),
            None => descriptor,
        });
    }
    for buildpack in request.buildpacks {
        let descriptor = ResourceDescriptor {
            uri: format!("urn:cnb:builder:{}@{}", buildpack.id, buildpack.version),
            name: format!("{}@{}", buildpack.id, buildpack.version),
            annotations: [("kind", "buildpack".to_owned())].into(),
            ..ResourceDescriptor::default()
        };
        dependencies.push(match &buildpack.digest {
            Some(digest) => ResourceDescriptor { media_type: "application/wasm".to_owned(), ..descriptor }
                .with_hash(digest),
            None => descriptor,
        });
    }
    let artifact = |artifact: &Artifact| {
        let uri = format!("wapack-source:{}/{}", encoded(&artifact.source), encoded(&artifact.path));
        let mut annotations = BTreeMap::from([("kind", "source".to_owned())]);
        if !artifact.is_pinned {
            annotations.insert("pinned", "false".to_owned());
        }
        ResourceDescriptor { uri, annotations, ..ResourceDescriptor::default() }.with_hash(&artifact.hash)
    };
    dependencies.extend(request.artifacts.known.iter().map(artifact));
    dependencies
}

/// A package URL of an image by digest.
///
/// # Spec
/// package-url `types/oci`: the last part of the name, the digest, and where it was from.
fn purl(name: &str, digest: &Digest) -> String {
    let digest = encoded(digest.as_str()).replace(':', "%3A");
    let Ok(reference) = name.parse::<Reference>() else { return format!("pkg:oci/image@{digest}") };
    let repository = reference.repository();
    let last = repository.rsplit('/').next().unwrap_or(repository).to_lowercase();
    let tag = reference.tag().map_or(String::new(), |tag| format!("&tag={}", encoded(tag)));
    format!("pkg:oci/{last}@{digest}?repository_url={}/{}{tag}", reference.registry(), encoded(repository))
}

/// Percent-encodes what has a meaning in a URI, or none.
fn encoded(text: &str) -> String {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    const SET: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'<')
        .add(b'>')
        .add(b'?')
        .add(b'`')
        .add(b'{')
        .add(b'}')
        .add(b'%')
        .add(b'\\')
        .add(b'^')
        .add(b'|')
        .add(b'[')
        .add(b']');
    utf8_percent_encode(text, SET).to_string()
}
