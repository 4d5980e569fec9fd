//! A page about an image, written to a file.

use std::path::Path;

use wapack_runtime::cancel::Cancel;
use wapack_runtime::inspection::files::read_files;
use wapack_runtime::inspection::{ImageView, html};

use crate::failure::{Failure, InputError};
use crate::looked_at::LookedAt;
use crate::output::Output;

/// Reads every layer and writes the page; `-` prints it.
pub(super) fn write(
    opened: &LookedAt,
    view: &ImageView,
    file: &Path,
    cancel: &Cancel,
    output: &mut Output,
) -> Result<(), Failure> {
    let report = read_files(&opened.found.image, &|layer| opened.layer(layer), cancel)?;
    let page = html(view, &report);
    if file == Path::new("-") {
        output.line(&page);
        return Ok(());
    }
    fs_err::write(file, page).map_err(|source| InputError::Unwritable { path: file.to_owned(), source })?;
    output.say(&file.display().to_string());
    Ok(())
}
