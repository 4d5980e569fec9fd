//! Documents about an image that are attached to it: its bills of materials one by one,
//! and its provenance.
//!
//! Makes values from values: nothing is read, written or fetched here, and the same
//! image made from the same things has the same documents, byte for byte.

mod provenance;
mod slsa;

pub use self::provenance::{
    BUILD_TYPE, BUILDER_ID, BuildpackOrigin, PROVENANCE_NAME, Provenance, RunImageOrigin, provenance,
};
pub use self::slsa::{PREDICATE_TYPE, STATEMENT_MEDIA_TYPE, STATEMENT_TYPE};

use std::collections::BTreeMap;

use crate::inspection::SbomDocument;
use crate::oci::referrer::Attachment;

/// Where bills of materials are in an image.
const SBOM_ROOT: &str = "layers/";

/// Each bill of materials of an image as an attachment of its media type, under its path.
/// Documents of a format without one are left out.
#[must_use]
pub fn sbom_attachments(documents: Vec<SbomDocument>) -> Vec<Attachment> {
    let attachment = |document: SbomDocument| {
        Some(Attachment {
            artifact_type: document.format?.media_type().to_owned(),
            name: document.path.strip_prefix(SBOM_ROOT).unwrap_or(&document.path).to_owned(),
            annotations: BTreeMap::new(),
            content: document.content,
        })
    };
    documents.into_iter().filter_map(attachment).collect()
}

#[cfg(test)]
mod tests;
