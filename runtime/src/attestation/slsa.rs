//! The documents of in-toto and SLSA, as they are written.
//!
//! # Spec
//! in-toto attestation framework v1 `statement.md`, `resource_descriptor.md`; SLSA v1.0
//! "Provenance". Fields that would be empty are left out; both specifications read them
//! as the same.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// `_type` of a statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of provenance.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// Of a statement that nobody signed.
pub const STATEMENT_MEDIA_TYPE: &str = "application/vnd.in-toto+json";

#[derive(Debug, Serialize)]
pub(super) struct Statement {
    #[serde(rename = "_type")]
    pub(super) kind: &'static str,
    pub(super) subject: Vec<ResourceDescriptor>,
    #[serde(rename = "predicateType")]
    pub(super) predicate_type: &'static str,
    pub(super) predicate: Predicate,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Predicate {
    pub(super) build_definition: BuildDefinition,
    pub(super) run_details: RunDetails,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BuildDefinition {
    pub(super) build_type: &'static str,
    pub(super) external_parameters: BTreeMap<&'static str, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) internal_parameters: BTreeMap<&'static str, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) resolved_dependencies: Vec<ResourceDescriptor>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunDetails {
    pub(super) builder: Builder,
    pub(super) metadata: BuildMetadata,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Builder {
    pub(super) id: &'static str,
    pub(super) version: BTreeMap<&'static str, String>,
}

/// Names of extension fields begin with their vendor's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BuildMetadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finished_on: Option<String>,
    #[serde(rename = "wapack_hermetic")]
    pub(super) hermetic: bool,
    #[serde(rename = "wapack_complete")]
    pub(super) complete: bool,
}

/// Something by what it is called and by what its bytes hash to.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceDescriptor {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uri: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    /// Hexadecimal digits by algorithm.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) digest: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) media_type: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<&'static str, String>,
}

impl ResourceDescriptor {
    /// The digest of `sha512:<hex>`.
    pub(super) fn with_hash(mut self, hash: &str) -> Self {
        if let Some((algorithm, hex)) = hash.split_once(':') {
            self.digest.insert(algorithm.to_owned(), hex.to_owned());
        }
        self
    }
}
