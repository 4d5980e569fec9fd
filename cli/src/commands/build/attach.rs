//! Documents that a build attaches to its image.

use std::collections::BTreeSet;

use wapack_runtime::attestation::{
    BuildpackOrigin, Provenance, RunImageOrigin, provenance, sbom_attachments,
};
use wapack_runtime::cancel::Cancel;
use wapack_runtime::catalog::BuildpackKind;
use wapack_runtime::cnb::id::ProcessType;
use wapack_runtime::images::{Attachments, ImagesError};
use wapack_runtime::inspection::{ImageView, read_sboms};
use wapack_runtime::lifecycle::{AppRequest, BuiltImage};
use wapack_runtime::oci::compression::decompress;
use wapack_runtime::oci::digest::{DiffId, Digest};
use wapack_runtime::oci::referrer::Attachment;
use wapack_runtime::phase::export::Base;

use super::Part;
use super::destination::Destination;
use crate::args::{Attach, BuildArguments};
use crate::failure::Failure;

/// Refuses now what could not be attached later.
pub(super) fn check(arguments: &BuildArguments, destination: &Destination) -> Result<(), Failure> {
    if arguments.image.attach.is_empty() { Ok(()) } else { keeper(destination).map(drop) }
}

fn keeper(destination: &Destination) -> Result<&dyn Attachments, Failure> {
    let keeper = destination.opened.images.attachments().filter(|keeper| keeper.can_attach());
    let refused = || ImagesError::NoAttachments { name: destination.image().to_owned() };
    Ok(keeper.ok_or_else(refused)?)
}

/// What a build knows besides its images.
pub(super) struct Known<'a> {
    pub(super) arguments: &'a BuildArguments,
    pub(super) app: AppRequest<'a>,
    pub(super) created: Option<u64>,
    pub(super) cancel: &'a Cancel,
}

/// Attaches what was asked for to the image for one system; says how many documents.
pub(super) fn attach(
    built: &BuiltImage,
    part: &Part,
    destination: &Destination,
    known: &Known<'_>,
) -> Result<usize, Failure> {
    let wanted = &known.arguments.image.attach;
    if wanted.is_empty() {
        return Ok(0);
    }
    let (_, manifest) = built.exported.image.documents();
    let view = ImageView::of(&built.exported.image, Some(&manifest.digest));
    let mut attachments = Vec::new();
    if wanted.contains(&Attach::Sbom) {
        attachments.extend(sboms(built, &view, known.cancel)?);
    }
    if wanted.contains(&Attach::Provenance) {
        attachments.push(provenance_of(built, &manifest.digest, &view, part, destination, known));
    }
    keeper(destination)?.attach(&manifest, destination.image(), &attachments, known.cancel)?;
    Ok(attachments.len())
}

/// The bills of materials as they are in the image.
fn sboms(built: &BuiltImage, view: &ImageView, cancel: &Cancel) -> Result<Vec<Attachment>, Failure> {
    let Some(layer) = view.sbom.layer.as_ref().and_then(|layer| layer.parse().ok()) else {
        return Ok(Vec::new());
    };
    let open = |diff_id: &DiffId| {
        let layer = built.exported.image.layers.iter().find(|layer| layer.diff_id == *diff_id);
        let layer = layer.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
        Ok(decompress(layer.open()?)?)
    };
    Ok(sbom_attachments(read_sboms(&layer, view.layers_directory(), &open, cancel)?))
}

fn provenance_of(
    built: &BuiltImage,
    digest: &Digest,
    view: &ImageView,
    part: &Part,
    destination: &Destination,
    known: &Known<'_>,
) -> Attachment {
    let catalog = &known.app.builder.catalog;
    let origin = |buildpack: &wapack_runtime::inspection::BuildpackView| {
        let found = catalog.iter().find(|found| {
            found.reference.id.as_str() == buildpack.id
                && found.reference.version.as_str() == buildpack.version
        });
        BuildpackOrigin {
            id: buildpack.id.clone(),
            version: buildpack.version.clone(),
            digest: found.and_then(|found| match &found.kind {
                BuildpackKind::Component { digest, .. } => Some(digest.clone()),
                BuildpackKind::Composite(_) | BuildpackKind::Classic => None,
            }),
        }
    };
    let buildpacks: Vec<BuildpackOrigin> = view.buildpacks.iter().map(origin).collect();
    let run_image = match &part.run_image.run_image.base {
        Base::Scratch(_) => None,
        Base::Image(found) => Some(RunImageOrigin {
            name: part.run_image.run_image.name.clone(),
            digest: found.reference.rsplit('@').next().and_then(|digest| digest.parse().ok()),
        }),
    };
    let variables: BTreeSet<String> = known.app.user_env.keys().cloned().collect();
    provenance(&Provenance {
        digest,
        names: &destination.names,
        target: &view.target,
        buildpacks: &buildpacks,
        run_image: run_image.as_ref(),
        source: built.source.as_deref(),
        variables: &variables,
        process_type: known.arguments.image.process_type.as_ref().map(ProcessType::as_str),
        artifacts: &built.exported.artifacts,
        version: env!("CARGO_PKG_VERSION"),
        created: known.created,
    })
}
