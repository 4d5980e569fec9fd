//! The images that `analyzed.toml` names: still there, and known well enough.

use super::Inputs;
use crate::cnb::analyzed_toml::Analyzed;
use crate::cnb::run_toml::RunToml;
use crate::images::{FoundImage, Images, ImagesError, target_of};
use crate::oci::reference::same_image;
use crate::programs::files::{self, FileError};

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunImageError {
    #[error(transparent)]
    File(#[from] FileError),
    /// It was readable when it was chosen (RUN-06).
    #[error("the run image `{name}` cannot be read any more")]
    Gone { name: String, source: Option<ImagesError> },
    #[error("the build image `{name}` cannot be read")]
    BuildImage { name: String, source: Option<ImagesError> },
}

/// Brings `analyzed.toml` up to date.
///
/// # Spec
/// RUN-06, RUN-07, RUN-08.
pub(super) fn update(
    analyzed: &mut Analyzed,
    inputs: &Inputs,
    has_extensions: bool,
    images: &dyn Images,
) -> Result<(), RunImageError> {
    let api = inputs.api;
    if let Some(name) = inputs.build_image.as_deref().filter(|_| api.at_least(10)) {
        let gone = |source| RunImageError::BuildImage { name: name.to_owned(), source };
        let found = images.find(name).map_err(|error| gone(Some(error)))?.ok_or_else(|| gone(None))?;
        analyzed.build_image = Some(found.reference);
    }
    let Some(run_image) = &mut analyzed.run_image else { return Ok(()) };
    if api.at_least(14) {
        let offered = files::read_if_there(&inputs.run, RunToml::parse)?.unwrap_or_default();
        let mut names =
            offered.images.iter().flat_map(|names| std::iter::once(&names.image).chain(&names.mirrors));
        if !run_image.image.is_empty() && names.any(|name| same_image(name, &run_image.image)) {
            find(&run_image.image, images)?;
        }
    }
    let has_target = run_image.target.as_ref().is_some_and(|target| !target.os.is_empty());
    let is_wanted = has_extensions && !has_target && api.at_least(10);
    if is_wanted || (run_image.extend && api.at_least(12)) {
        let name = [&run_image.image, &run_image.reference].into_iter().find(|name| !name.is_empty());
        let Some(name) = name else { return Ok(()) };
        let found = find(name, images)?;
        if api.at_least(12) {
            run_image.target = Some(target_of(&found.image.configuration));
        }
        run_image.reference = found.reference;
    }
    Ok(())
}

fn find(name: &str, images: &dyn Images) -> Result<FoundImage, RunImageError> {
    let gone = |source| RunImageError::Gone { name: name.to_owned(), source };
    images.find(name).map_err(|error| gone(Some(error)))?.ok_or_else(|| gone(None))
}
