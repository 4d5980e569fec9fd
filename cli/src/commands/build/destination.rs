//! Where the image goes, and what it is called there.

use std::path::Path;

use wapack_runtime::oci::reference::same_image;

use crate::args::BuildArguments;
use crate::failure::{Failure, InputError};
use crate::image_name::ImageName;
use crate::images::{Opened, Places};
use crate::place::Place;

/// The place of the image.
pub(super) struct Destination {
    pub(super) opened: Opened,
    /// The image's name and its further ones, each once.
    pub(super) names: Vec<String>,
}

impl Destination {
    /// Chooses it; refused now when it could not be written there later.
    pub(super) fn choose(
        arguments: &BuildArguments,
        places: &Places,
        targets: usize,
    ) -> Result<Self, Failure> {
        let name: ImageName = arguments.name.parse()?;
        let place = Self::place(arguments)?;
        let names = names(&name, &arguments.tags)?;
        let opened = places.open(place, None)?;
        if targets > 1 && !opened.images.has_indexes() {
            return Err(InputError::OneTarget { place: opened.place.to_string() }.into());
        }
        let destination = Self { opened, names };
        if let Place::Layout { .. } = destination.opened.place {
            destination.check_write()?;
        }
        Ok(destination)
    }

    /// The place without the image's name.
    pub(super) fn place(arguments: &BuildArguments) -> Result<Place, Failure> {
        let name: ImageName = arguments.name.parse()?;
        let place = match arguments.output.as_deref() {
            _ if arguments.publish => Place::Registry { name: None },
            None => Place::Layout { directory: name.default_layout(), reference: None },
            Some(value) => Place::parse(value).ok_or_else(|| InputError::Output {
                value: value.to_string_lossy().escape_debug().to_string(),
            })?,
        };
        if !place.name().is_empty() {
            let reference = place.name().to_owned();
            let place = place.without_name().to_string();
            return Err(InputError::OutputReference { place, reference }.into());
        }
        if let Place::Layout { directory, .. } = &place
            && directory.symlink_metadata().is_ok()
            && !directory.is_dir()
        {
            return Err(InputError::OutputNotADirectory { path: directory.clone() }.into());
        }
        Ok(place)
    }

    pub(super) fn image(&self) -> &str {
        &self.names[0]
    }

    /// Whether every name could be written, as far as that can be known before.
    pub(super) fn check_write(&self) -> Result<(), Failure> {
        for name in &self.names {
            self.opened.images.check_write(name)?;
        }
        Ok(())
    }

    /// Refuses to write over what the image is made of (R12).
    pub(super) fn refuse_input(&self, input: &Opened) -> Result<(), Failure> {
        let inputs = match input.place.name() {
            "" => input.images.names()?,
            name => vec![name.to_owned()],
        };
        for (name, input_name) in self.names.iter().flat_map(|name| inputs.iter().map(move |it| (name, it))) {
            if is_one(&self.opened.place.with_name(name), &input.place.with_name(input_name)) {
                return Err(InputError::OutputIsInput { place: input.place.to_string() }.into());
            }
        }
        // An archive is written as a whole, whatever the images in it are called.
        let is_archive = matches!(self.opened.place, Place::OciArchive { .. } | Place::DockerArchive { .. });
        if is_archive && same_path(self.opened.place.path(), input.place.path()) {
            return Err(InputError::OutputIsInput { place: input.place.to_string() }.into());
        }
        Ok(())
    }
}

/// Whether two places with names are the same.
pub(super) fn is_one(left: &Place, right: &Place) -> bool {
    match (left, right) {
        (Place::Registry { .. }, Place::Registry { .. }) | (Place::Daemon { .. }, Place::Daemon { .. }) => {
            same_image(left.name(), right.name())
        }
        _ => same_path(left.path(), right.path()) && left.name() == right.name(),
    }
}

/// Whether two paths lead to the same place, be it there or not.
pub(super) fn same_path(left: Option<&Path>, right: Option<&Path>) -> bool {
    let found = |path: &Path| {
        path.canonicalize().ok().or_else(|| {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Some(parent.unwrap_or(Path::new(".")).canonicalize().ok()?.join(path.file_name()?))
        })
    };
    match (left.and_then(found), right.and_then(found)) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

/// The name and the further ones, each once.
fn names(image: &ImageName, further: &[String]) -> Result<Vec<String>, InputError> {
    let mut names = vec![image.to_string()];
    for name in further {
        let name = name.parse::<ImageName>()?.to_string();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}
